/* The simulated environment: virtual time, events, and one to three loops run by one thread.
 *
 * Time stands still while code runs and moves between steps: a little with every loop turn, and to the next event or
 * timer when nothing is ready. A step is one event or one turn of one loop, chosen at random among those with work. So
 * the loops of different threads interleave in every way that messages allow. A crash can be ordered after a number of
 * disk events (submissions and completions); it comes between two steps, which loses nothing: what a turn does to
 * disks becomes visible through events only.
 *
 * Process-wide, as one seed runs at a time. */
#ifndef TESTS_SIM_ENV_H
#define TESTS_SIM_ENV_H

#include "pool/runtime/loop.h"
#include "tests/sim/rng.h"

#define SIM_LOOPS_MAX 3

/* Something that will happen; embedded in its owner. */
struct sim_event {
	uint64_t due_ns, order;
	void (*fn)(struct sim_event *event);
};

enum env_end {
	ENV_DONE,    /* what was asked for is done */
	ENV_CRASHED, /* the ordered crash has come */
	ENV_FAILED,  /* sim_fail was called */
	ENV_IDLE,    /* nothing will ever happen again */
	ENV_ENDLESS, /* too many steps or too much virtual time */
};

/* Time zero, no life. */
void env_reset(uint64_t seed);
/* Begins a life of the engine: fresh loops, which stall for up to stall_ns_max now and then (0: never). Time goes on. */
void env_begin_life(uint32_t loop_count, uint64_t stall_ns_max);
/* Ends it without ceremony: loops and pending events are forgotten (their memory is sim_mem's). */
void env_drop_life(void);
/* Ends it in order: the loops are finished and must be at rest. */
void env_end_life(void);

struct loop *env_loop(uint32_t index);
uint32_t env_loop_count(void);
uint64_t env_now_ns(void);
/* A number that grows with every call: the order of things. */
uint64_t env_tick(void);

void env_after(struct sim_event *event, uint64_t delay_ns, void (*fn)(struct sim_event *event));

/* Orders a crash after `disk_events` more; 0: none. */
void env_crash_after(uint64_t disk_events);
bool env_crash_ordered(void);
/* A disk event; called by the disks. */
void env_count_disk_event(void);
/* Disk events of this life. */
uint64_t env_disk_events(void);

enum env_end env_run(const bool *done);

#endif
