/* The engine's memory under the simulator: every allocation is known, so a crash drops them all, and the Nth can fail.
 *
 * Fresh memory holds a fixed pattern, so whatever reads it uninitialised does so in the same way in every run. The
 * simulator's own memory is plain malloc and survives crashes. */
#ifndef TESTS_SIM_MEM_H
#define TESTS_SIM_MEM_H

#include <stdbool.h>
#include <stdint.h>

/* Puts itself in the place of the engine's allocator. Once per process. */
void sim_mem_install(void);
/* Frees everything that the engine holds. */
void sim_mem_drop_all(void);
/* Allocations held. */
uint64_t sim_mem_held(void);
/* The nth allocation from now on fails, once; 0: none. */
void sim_mem_fail_nth(uint64_t n);
/* Whether the ordered failure has happened; the second one forgets the order. */
bool sim_mem_has_failed(void);
bool sim_mem_end_failing(void);

#endif
