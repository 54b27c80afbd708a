/* A loop in virtual time for unit tests: time stands still while there is work and jumps to the next timer when there is
 * none, so tests of timers and fibers are exact and take no time. */
#ifndef TESTS_UNIT_UNIT_LOOP_H
#define TESTS_UNIT_UNIT_LOOP_H

#include <stdbool.h>
#include <stdint.h>

#include "pool/runtime/loop.h"

struct unit_loop {
	struct loop loop;
	struct loop *previous;
	uint64_t now_ns;
	uint64_t random; /* the same on every run */
	uint32_t wakes;  /* calls of ops->wake */
};

/* Makes the loop the calling thread's. */
void unit_loop_init(struct unit_loop *u);
void unit_loop_fini(struct unit_loop *u);

/* Runs until nothing is left to do and no timer is armed. */
void unit_loop_run(struct unit_loop *u);

/* Runs fn(arg) on a fiber until nothing is left to do; it may wait for something by then. */
void unit_loop_start_fiber(struct unit_loop *u, void (*fn)(void *arg), void *arg);

/* Runs fn(arg) on a fiber, and all that it starts, to the end, which must come. */
void unit_loop_run_fiber(struct unit_loop *u, void (*fn)(void *arg), void *arg);

#endif
