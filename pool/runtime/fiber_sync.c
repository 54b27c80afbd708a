/* What fibers wait on: wait queues, mutexes, calls on another loop. See fiber.h.
 *
 * A waiter's node lives on its fiber's stack and is unlinked by whoever wakes it; "not on a list" is therefore the proof
 * that the wake was meant for this wait, and stray wakes do no harm. */
#include "pool/runtime/fiber.h"

#include <assert.h>
#include <errno.h>

struct waiter {
	struct list node;
	struct fiber *fiber;
};

void waitq_init(struct waitq *q)
{
	list_init(&q->waiters);
}

void waitq_wait(struct waitq *q)
{
	struct waiter waiter = { .fiber = fiber_self() };

	list_push_back(&q->waiters, &waiter.node);
	while (!list_empty(&waiter.node))
		fiber_park();
}

/* Wakes the first waiter; false if there is none. */
static bool wake_first(struct list *waiters)
{
	struct list *node = list_pop_front(waiters);

	if (!node)
		return false;
	fiber_wake(list_entry(node, struct waiter, node)->fiber);
	return true;
}

void waitq_wake_one(struct waitq *q)
{
	wake_first(&q->waiters);
}

void waitq_wake_all(struct waitq *q)
{
	while (wake_first(&q->waiters))
		;
}

void fmutex_init(struct fmutex *m)
{
	m->held = false;
	waitq_init(&m->q);
}

void fmutex_lock(struct fmutex *m)
{
	/* With waiters, the unlocker leaves it held for the first of them: nobody overtakes. */
	if (m->held)
		waitq_wait(&m->q);
	m->held = true;
}

void fmutex_unlock(struct fmutex *m)
{
	assert(m->held);
	m->held = wake_first(&m->q.waiters);
}

/* A call that travels to another loop and back. It lives on the caller's stack and belongs to one loop at a time. */
struct remote_call {
	struct task task;
	struct loop *to, *home;
	struct fiber *caller;
	int (*fn)(void *arg);
	void *arg;
	int res;
	bool done;
};

static void call_returned(struct task *task)
{
	struct remote_call *call = container_of(task, struct remote_call, task);

	call->done = true;
	fiber_wake(call->caller);
}

static void call_return(struct remote_call *call, int res)
{
	call->res = res;
	call->task.fn = call_returned;
	loop_send(call->home, &call->task);
}

static void call_run(void *arg)
{
	struct remote_call *call = arg;

	call_return(call, call->fn(call->arg));
}

static void call_arrived(struct task *task)
{
	struct remote_call *call = container_of(task, struct remote_call, task);

	if (fiber_start(call->to, call_run, call))
		call_return(call, -ENOMEM);
}

int fiber_call_on(struct loop *loop, int (*fn)(void *arg), void *arg)
{
	struct remote_call call = {
		.task.fn = call_arrived,
		.to = loop,
		.home = loop_self(),
		.caller = fiber_self(),
		.fn = fn,
		.arg = arg,
	};

	assert(call.caller);
	if (loop == call.home)
		return fn(arg);
	loop_send(loop, &call.task);
	while (!call.done)
		fiber_park();
	return call.res;
}
