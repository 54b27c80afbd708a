/* One environment, real or simulated: an event loop of tasks, timers, fibers and messages.
 *
 * A loop is owned by one thread. The engine sees time, randomness and scheduling only through it. The same loop code
 * runs under a reactor (pool/runtime/reactor.h: io_uring, real time) and under the simulator (tests/sim: virtual
 * time); what differs is `struct loop_ops`. Disks come through pool/disks/disk.h.
 *
 * Nothing here allocates after init except fiber_start (which keeps stacks for reuse) and the timer heap's growth. */
#ifndef POOL_RUNTIME_LOOP_H
#define POOL_RUNTIME_LOOP_H

#include <stdbool.h>
#include <stdint.h>

#include "pool/base/list.h"

struct loop;

/* The environment. */
struct loop_ops {
	uint64_t (*now_ns)(struct loop *loop); /* Required. Monotonic. Loop thread. */
	uint64_t (*wall_s)(struct loop *loop); /* Required. Seconds since 1970, for display only. */
	uint64_t (*random)(struct loop *loop); /* Required. 64 random bits. Loop thread. */
	void (*wake)(struct loop *loop);       /* Required. Any thread: end the loop's sleep, if it sleeps. */
};

/* A callback waiting to run. Embedded in its owner; on at most one list at a time. */
struct task {
	struct list node;       /* owner: the loop it was posted to */
	struct task *mail_next; /* used while in a mailbox */
	void (*fn)(struct task *task);
};

struct timer {
	uint64_t due_ns;
	uint32_t heap_pos; /* 0: not armed */
	void (*fn)(struct timer *timer);
};

/* Something looked at every turn while the loop is busy (a vring, say). */
struct poller {
	struct list node;
	int (*poll)(struct poller *poller); /* Required. Returns the amount of work done; 0 means idle. */
	/* Optional. The loop is about to sleep: ask for a notification and look once more. Returns true when there is
	 * work after all (the loop then does not sleep). Called again before every sleep. */
	bool (*arm)(struct poller *poller);
	/* Optional. The loop is awake again: notifications are no longer needed. */
	void (*disarm)(struct poller *poller);
};

struct fiber;

struct loop {
	const struct loop_ops *ops;
	struct list ready; /* tasks to run, first in first out */
	struct list pollers;
	struct timer **timers; /* binary heap, 1-based */
	uint32_t timer_count, timer_cap;
	struct task *_Atomic mailbox; /* tasks sent by other threads, newest first */
	struct list free_fibers;      /* kept stacks */
	uint32_t fibers_live, fibers_free;
	struct fiber *current; /* running fiber, NULL in plain tasks */
	void *main_context;    /* opaque to all but fiber.c */
	uint32_t index;        /* 0-based number of the loop; loop 0 is the pool's home */
};

void loop_init(struct loop *loop, const struct loop_ops *ops, uint32_t index);
/* Frees stacks and heap. Everything posted must have run and every fiber must have ended. */
void loop_fini(struct loop *loop);

/* The loop of the calling thread; set by loop_enter for the time a thread runs it. */
struct loop *loop_self(void);
struct loop *loop_enter(struct loop *loop); /* returns the previous one */

/* Runs mailbox, due timers and the ready list once (tasks posted meanwhile wait for the next turn).
 * Returns the number of things run. The thread must have entered the loop (loop_enter). Does not call pollers: that is
 * the reactor's rhythm (loop_poll_all). */
uint32_t loop_turn(struct loop *loop);
uint32_t loop_poll_all(struct loop *loop);
/* Time of the earliest timer, UINT64_MAX if none. */
uint64_t loop_next_timer_ns(const struct loop *loop);
bool loop_has_ready(const struct loop *loop);

static inline uint64_t loop_now_ns(struct loop *loop)
{
	return loop->ops->now_ns(loop);
}
static inline uint64_t loop_random(struct loop *loop)
{
	return loop->ops->random(loop);
}

/* Loop thread. A task must not be posted while it is posted. */
void loop_post(struct loop *loop, struct task *task);
/* Any thread: runs the task on `loop`'s thread. Order per sender is kept. */
void loop_send(struct loop *loop, struct task *task);

void timer_init(struct timer *timer, void (*fn)(struct timer *timer));
/* Arms or re-arms. 0 or -ENOMEM. */
int timer_arm(struct loop *loop, struct timer *timer, uint64_t due_ns);
void timer_cancel(struct loop *loop, struct timer *timer);

void poller_add(struct loop *loop, struct poller *poller);
void poller_del(struct loop *loop, struct poller *poller);

#endif
