/* The real environment: one thread, one loop, one io_uring (single issuer, deferred task run).
 *
 * A reactor polls while it is busy: each turn runs ready tasks, pollers, submits once and reaps all completions. When
 * nothing happened for a short adaptive time it arms its pollers and sleeps in io_uring, so an idle process uses no
 * CPU. Real environment only: engine code never includes this; disks/ drivers, targets/ and tools/ do. */
#ifndef POOL_RUNTIME_REACTOR_H
#define POOL_RUNTIME_REACTOR_H

#include <poll.h>

#include "pool/base/err.h"
#include "pool/runtime/loop.h"

struct reactor;
struct io_uring_sqe;

/* Creates the reactor of number `index`, pinned to `cpu` (-1: not pinned). The thread that calls reactor_run owns it; fibers
 * and tasks may be put on its loop before that, by the thread that created it. */
int reactor_create(uint32_t index, int cpu, struct reactor **out, struct err *err);
/* After reactor_run returned; no operation is in flight, every fiber has ended (loop_fini). */
void reactor_destroy(struct reactor *reactor);
struct loop *reactor_loop(struct reactor *reactor);
/* Runs until reactor_stop: ends after the turn in which that is seen. The calling thread becomes the loop's thread; should it
 * be run again, then by the same thread. A stop that comes before the run ends it at once. */
void reactor_run(struct reactor *reactor);
/* Any thread, also from a signal handler. */
void reactor_stop(struct reactor *reactor);

/* The reactor behind a loop (the loop must be a reactor's). */
struct reactor *reactor_of(struct loop *loop);

/* One submission to the ring. The caller fills the sqe (never NULL: the ring is submitted and waited on when full) with
 * io_uring_prep_*; user data is set here. `done` runs on the loop thread with cqe->res and cqe->flags. */
struct ring_op {
	void (*done)(struct ring_op *op, int res, uint32_t cqe_flags);
};
struct io_uring_sqe *reactor_sqe(struct reactor *reactor, struct ring_op *op);

/* Watches a descriptor without end (multishot poll): fn runs on the loop thread each time something arrives (POLLIN) and once
 * at first if something is there. It is not told again of what it leaves unread, so it reads until -EAGAIN. It may also be
 * called for nothing. A descriptor that cannot be polled: fn is called once, its read tells why.
 * fd_watch_stop: after it returns fn is not called again and the struct may be freed (waits; fiber only). */
struct fd_watch {
	struct ring_op op;
	struct reactor *reactor;
	int fd;
	bool active, stopping;
	struct fiber *stopper;
	void (*fn)(struct fd_watch *watch);
};
int fd_watch_start(struct reactor *reactor, struct fd_watch *watch, int fd, void (*fn)(struct fd_watch *watch));
void fd_watch_stop(struct fd_watch *watch);

/* Asks once whether a descriptor is ready: after fd_poll_arm, fn runs on the loop thread with poll's revents, or -errno, and
 * it is armed no more. Level-triggered: what is ready already tells in the same turn. Not to be armed twice.
 * fd_poll_stop: as fd_watch_stop. */
struct fd_poll {
	struct ring_op op;
	struct reactor *reactor;
	int fd;
	bool armed, stopping;
	struct fiber *stopper;
	void (*fn)(struct fd_poll *poll, int revents);
};
void fd_poll_init(struct reactor *reactor, struct fd_poll *poll, int fd, void (*fn)(struct fd_poll *poll, int revents));
void fd_poll_arm(struct fd_poll *poll, short events);
void fd_poll_stop(struct fd_poll *poll);

/* Waits (fiber) until fd is ready for `events`, deadline_ns (loop time; UINT64_MAX: none) passes, or `cancel` is
 * signalled. Returns revents > 0, -ETIMEDOUT, -ECANCELED or -errno. cancel may be NULL. Then use plain non-blocking
 * recv/send/accept. */
struct fd_cancel {
	bool cancelled;
	struct list waiters;
};
void fd_cancel_init(struct fd_cancel *cancel);
void fd_cancel(struct fd_cancel *cancel); /* loop thread; all present and future fd_wait with it return -ECANCELED */
int fd_wait(int fd, short events, uint64_t deadline_ns, struct fd_cancel *cancel);

/* Runs a blocking function on a helper thread and waits (fiber) for it. For open(), fallocate() and the like. A few run at
 * once, more wait in line. fn's result, or -EAGAIN if there is no thread and none can be made. */
int reactor_offload(int (*fn)(void *arg), void *arg);

#endif
