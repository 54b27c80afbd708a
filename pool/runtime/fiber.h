/* Fibers: straight-line code for everything slow (checkpoint, control commands, map misses).
 *
 * A fiber runs on one loop for its whole life and gives way only in the functions marked "waits". The switch is
 * Boost.Context's make_fcontext/jump_fcontext (C entry points). Stacks have a guard page where the environment is real,
 * and are kept for reuse. All functions: loop thread. */
#ifndef POOL_RUNTIME_FIBER_H
#define POOL_RUNTIME_FIBER_H

#include "pool/runtime/loop.h"

/* Sanitizers make frames several times as large. */
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define FIBER_STACK_BYTES (256 * 1024)
#else
#define FIBER_STACK_BYTES (64 * 1024)
#endif

struct fiber;

/* Starts fn(arg) on a fiber; it first runs in the next turn. 0 or -ENOMEM. */
int fiber_start(struct loop *loop, void (*fn)(void *arg), void *arg) __attribute__((warn_unused_result));
/* NULL outside fibers. */
struct fiber *fiber_self(void);
/* Waits until fiber_wake. A wake that came before the park is not lost: the park then returns at once. So it may have been
 * meant for an earlier wait: always park in a loop, `while (!op.done) fiber_park();`. */
void fiber_park(void);
/* The same, but no longer than until due_ns (loop time; UINT64_MAX: without end). False: the time ended it. */
bool fiber_park_until(uint64_t due_ns);
/* Makes a parked fiber (or one about to park) runnable. Does not end fiber_sleep_ns. Loop thread of that fiber. */
void fiber_wake(struct fiber *fiber);
/* Waits one turn, so that others run. */
void fiber_yield(void);
/* Waits for a time (in the simulator, virtual time). Never less than that. */
void fiber_sleep_ns(uint64_t ns);

/* Runs fn(arg) on a fiber of another loop and waits for it; on the same loop it is called directly. From a fiber only.
 * -ENOMEM or fn's result. */
int fiber_call_on(struct loop *loop, int (*fn)(void *arg), void *arg) __attribute__((warn_unused_result));

/* Wait queue: fibers parked for a condition; woken ones look again. A wait ends only by a wake of this queue. */
struct waitq {
	struct list waiters;
};
void waitq_init(struct waitq *q);
void waitq_wait(struct waitq *q); /* waits */
void waitq_wake_all(struct waitq *q);
void waitq_wake_one(struct waitq *q);

/* Mutual exclusion between fibers of one loop, fair. */
struct fmutex {
	bool held;
	struct waitq q;
};
void fmutex_init(struct fmutex *m);
void fmutex_lock(struct fmutex *m); /* waits */
void fmutex_unlock(struct fmutex *m);

#endif
