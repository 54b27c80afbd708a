/* Descriptors: watching one without end, asking about one, waiting for one. See reactor.h.
 *
 * A ring operation that the kernel knows must not disappear. Ending early therefore means: ask for cancellation, then
 * wait for the operation's own last completion, whatever it says. */
#include "pool/runtime/reactor.h"

#include <assert.h>
#include <errno.h>
#include <liburing.h>

#include "pool/runtime/fiber.h"

/* The cancellation itself reports to nobody. */
static void cancel_op(struct reactor *reactor, struct ring_op *op)
{
	io_uring_prep_cancel(reactor_sqe(reactor, NULL), op, 0);
}

/* ---- watching ---- */

static void watch_arm(struct fd_watch *watch)
{
	watch->active = true;
	io_uring_prep_poll_multishot(reactor_sqe(watch->reactor, &watch->op), watch->fd, POLLIN);
}

/* A multishot poll ends when the kernel says so, for lack of queue space or memory, say. It is no error of ours then. A
 * descriptor that cannot be polled is left to fn, which will hear of it from its own read. */
static bool watch_can_go_on(int res)
{
	return res >= 0 || res == -ENOMEM || res == -EAGAIN || res == -EINTR || res == -ECANCELED;
}

static void watch_event(struct ring_op *op, int res, uint32_t cqe_flags)
{
	struct fd_watch *watch = container_of(op, struct fd_watch, op);

	watch->active = cqe_flags & IORING_CQE_F_MORE;
	if (watch->stopping) {
		if (!watch->active)
			fiber_wake(watch->stopper);
		return;
	}
	if (!watch->active && watch_can_go_on(res))
		watch_arm(watch);
	watch->fn(watch);
}

int fd_watch_start(struct reactor *reactor, struct fd_watch *watch, int fd, void (*fn)(struct fd_watch *watch))
{
	if (fd < 0)
		return -EBADF;
	*watch = (struct fd_watch){ .op.done = watch_event, .reactor = reactor, .fd = fd, .fn = fn };
	watch_arm(watch);
	return 0;
}

void fd_watch_stop(struct fd_watch *watch)
{
	assert(!watch->stopping);
	watch->stopping = true;
	watch->stopper = fiber_self();
	assert(watch->stopper);
	if (watch->active)
		cancel_op(watch->reactor, &watch->op);
	while (watch->active)
		fiber_park();
}

/* ---- asking once ---- */

static void poll_event(struct ring_op *op, int res, uint32_t cqe_flags)
{
	struct fd_poll *poll = container_of(op, struct fd_poll, op);

	poll->armed = false;
	if (poll->stopping)
		fiber_wake(poll->stopper);
	else
		poll->fn(poll, res);
}

void fd_poll_init(struct reactor *reactor, struct fd_poll *poll, int fd, void (*fn)(struct fd_poll *poll, int revents))
{
	*poll = (struct fd_poll){ .op.done = poll_event, .reactor = reactor, .fd = fd, .fn = fn };
}

void fd_poll_arm(struct fd_poll *poll, short events)
{
	assert(!poll->armed && !poll->stopping);
	poll->armed = true;
	io_uring_prep_poll_add(reactor_sqe(poll->reactor, &poll->op), poll->fd, (unsigned short)events);
}

void fd_poll_stop(struct fd_poll *poll)
{
	assert(!poll->stopping);
	poll->stopping = true;
	poll->stopper = fiber_self();
	assert(poll->stopper);
	if (poll->armed)
		cancel_op(poll->reactor, &poll->op);
	while (poll->armed)
		fiber_park();
}

/* ---- waiting ---- */

struct fd_waiter {
	struct ring_op op;
	struct list node; /* on fd_cancel.waiters, or linked to itself */
	struct fiber *fiber;
	int res;
	bool done, cancelled;
};

void fd_cancel_init(struct fd_cancel *cancel)
{
	cancel->cancelled = false;
	list_init(&cancel->waiters);
}

void fd_cancel(struct fd_cancel *cancel)
{
	struct list *node;

	cancel->cancelled = true;
	while ((node = list_pop_front(&cancel->waiters))) {
		struct fd_waiter *waiter = list_entry(node, struct fd_waiter, node);

		waiter->cancelled = true;
		fiber_wake(waiter->fiber);
	}
}

static void wait_done(struct ring_op *op, int res, uint32_t cqe_flags)
{
	struct fd_waiter *waiter = container_of(op, struct fd_waiter, op);

	waiter->res = res;
	waiter->done = true;
	fiber_wake(waiter->fiber);
}

static void wait_for_end(struct fd_waiter *waiter, uint64_t deadline_ns)
{
	struct reactor *reactor = reactor_of(loop_self());
	bool in_time = true;

	while (!waiter->done && !waiter->cancelled && in_time)
		in_time = fiber_park_until(deadline_ns);
	if (!waiter->done)
		cancel_op(reactor, &waiter->op);
	while (!waiter->done)
		fiber_park();
}

int fd_wait(int fd, short events, uint64_t deadline_ns, struct fd_cancel *cancel)
{
	struct fd_waiter waiter = { .op.done = wait_done, .fiber = fiber_self() };

	assert(waiter.fiber);
	if (cancel && cancel->cancelled)
		return -ECANCELED;
	list_init(&waiter.node);
	if (cancel)
		list_push_back(&cancel->waiters, &waiter.node);
	io_uring_prep_poll_add(reactor_sqe(reactor_of(loop_self()), &waiter.op), fd, (unsigned short)events);
	wait_for_end(&waiter, deadline_ns);
	list_del(&waiter.node);
	if (waiter.cancelled)
		return -ECANCELED;
	return waiter.res == -ECANCELED ? -ETIMEDOUT : waiter.res;
}
