/* What happened in the run of one seed: a hash over all events, the trail of the latest ones, and the verdict.
 *
 * One seed runs at a time in a process, so this is process-wide. trace_hash only goes into the hash; trace goes into
 * hash and trail, and is printed at once when verbose. sim_fail records the first failure; whoever runs the simulation
 * looks at sim_failed between steps. Same seed, same calls, same hash. */
#ifndef TESTS_SIM_TRACE_H
#define TESTS_SIM_TRACE_H

#include <stdbool.h>
#include <stdint.h>

/* X(name, format): the format takes four unsigned long long in order. */
#define TRACE_KINDS(X)                                                                                               \
	X(LIFE, "---- life %llu: %llu loops, %llu disks, crash in %llu disk events")                                 \
	X(CRASH,                                                                                                     \
	  "---- crash (kind %llu) after %llu disk events of this life; unsettled writes %llu, outcomes to try %llu") \
	X(OUTCOME, "---- outcome %llu: plan %llu, mask %#llx, depth %llu")                                           \
	X(DISK_READ, "disk %llu: read at %#llx, %llu bytes (I/O %llu)")                                              \
	X(DISK_WRITE, "disk %llu: write at %#llx, %llu bytes (I/O %llu)")                                            \
	X(DISK_FLUSH, "disk %llu: flush (at %#llx, %llu bytes, I/O %llu)")                                           \
	X(DISK_DISCARD, "disk %llu: discard at %#llx, %llu bytes (I/O %llu)")                                        \
	X(DISK_DONE, "disk %llu: I/O %llu done, error %llu, fault %llu")                                             \
	X(DISK_ROT, "disk %llu: bit rot in block at %#llx, sector %llu, way %llu")                                   \
	X(READ, "volume %llu: read %llu at sector %llu, %llu sectors")                                               \
	X(WRITE, "volume %llu: write %llu at sector %llu, %llu sectors")                                             \
	X(WRITE_FUA, "volume %llu: write %llu with FUA at sector %llu, %llu sectors")                                \
	X(FLUSH, "volume %llu: flush %llu (at sector %llu, %llu sectors)")                                           \
	X(DISCARD, "volume %llu: discard %llu at sector %llu, %llu sectors")                                         \
	X(ZEROES, "volume %llu: write zeroes %llu at sector %llu, %llu sectors")                                     \
	X(DONE, "volume %llu: request %llu done, error %llu, tick %llu")                                             \
	X(MANAGE, "manage: operation %llu on volume %llu, argument %llu, allocation to fail %llu")                   \
	X(MANAGED, "manage: operation %llu on volume %llu done, error %llu, tick %llu")                              \
	X(CHECK, "check: volume %llu, %llu sectors, content hash %#llx, settled at %llu")                            \
	X(STEP, "step %llu: %llu %llu %llu")

enum trace_kind {
#define X(name, format) TRACE_##name,
	TRACE_KINDS(X)
#undef X
		TRACE_KIND_COUNT,
};

/* Forgets everything; `verbose`: print while it happens. */
void trace_start(uint64_t seed, bool verbose);
/* Virtual time of what is traced from now on. */
void trace_time(uint64_t now_ns);
void trace_hash(uint64_t value);
void trace(enum trace_kind kind, uint64_t a, uint64_t b, uint64_t c, uint64_t d);
uint64_t trace_result(void);
/* Prints the trail's last lines. */
void trace_print_trail(void);

/* First failure counts, later ones are ignored. Prints nothing unless verbose. */
void sim_fail(const char *format, ...) __attribute__((format(printf, 1, 2)));
bool sim_failed(void);
const char *sim_failure(void);

#endif
