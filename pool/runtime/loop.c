/* The event loop's bookkeeping: ready list, mailbox, timers, pollers. See loop.h.
 *
 * Mailbox: a stack that any thread pushes on with compare-and-swap; the loop takes it whole and reverses it, so the order
 * of each sender is kept. Sleep and wake: a sender pushes, then calls ops->wake; the loop's thread announces its sleep,
 * then looks into the mailbox. Both are sequentially consistent, so at least one of them sees the other.
 *
 * Timers: a binary heap in timers[1..timer_count], smallest due_ns at 1; timers[timer->heap_pos] == timer for each armed
 * one. Room is always kept for one timer of each live fiber, so a sleeping fiber never meets -ENOMEM. */
#include "pool/runtime/loop.h"

#include <assert.h>
#include <errno.h>
#include <stdatomic.h>
#include <string.h>

#include "pool/base/mem.h"
#include "pool/runtime/runtime_int.h"

#define TIMER_CAP_MIN 64

static _Thread_local struct loop *self_loop;

void loop_init(struct loop *loop, const struct loop_ops *ops, uint32_t index)
{
	memset(loop, 0, sizeof(*loop));
	loop->ops = ops;
	loop->index = index;
	list_init(&loop->ready);
	list_init(&loop->pollers);
	list_init(&loop->free_fibers);
	atomic_init(&loop->mailbox, NULL);
}

void loop_fini(struct loop *loop)
{
	assert(!loop_has_ready(loop));
	fiber_release_free(loop);
	assert(loop->fibers_live == 0);
	mem_free(loop->timers);
	loop->timers = NULL;
	loop->timer_count = loop->timer_cap = 0;
}

struct loop *loop_self(void)
{
	return self_loop;
}

struct loop *loop_enter(struct loop *loop)
{
	struct loop *previous = self_loop;

	self_loop = loop;
	return previous;
}

/* ---- tasks and mailbox ---- */

void loop_post(struct loop *loop, struct task *task)
{
	list_push_back(&loop->ready, &task->node);
}

void loop_send(struct loop *loop, struct task *task)
{
	struct task *head = atomic_load_explicit(&loop->mailbox, memory_order_relaxed);

	/* Sequentially consistent: pairs with the loop's look at the mailbox after it announced its sleep. */
	do {
		task->mail_next = head;
	} while (!atomic_compare_exchange_weak(&loop->mailbox, &head, task));
	loop->ops->wake(loop);
}

static void drain_mailbox(struct loop *loop)
{
	struct task *newest, *oldest = NULL;

	if (!atomic_load_explicit(&loop->mailbox, memory_order_relaxed))
		return;
	newest = atomic_exchange_explicit(&loop->mailbox, NULL, memory_order_acquire);
	while (newest) {
		struct task *next = newest->mail_next;

		newest->mail_next = oldest;
		oldest = newest;
		newest = next;
	}
	while (oldest) {
		struct task *next = oldest->mail_next;

		loop_post(loop, oldest);
		oldest = next;
	}
}

bool loop_has_ready(const struct loop *loop)
{
	return !list_empty(&loop->ready) || atomic_load(&loop->mailbox);
}

static uint32_t run_ready(struct loop *loop)
{
	struct list batch, *node;
	uint32_t ran = 0;

	list_init(&batch);
	list_splice_back(&batch, &loop->ready);
	while ((node = list_pop_front(&batch))) {
		struct task *task = list_entry(node, struct task, node);

		task->fn(task);
		ran++;
	}
	return ran;
}

/* ---- timers ---- */

void timer_init(struct timer *timer, void (*fn)(struct timer *timer))
{
	timer->due_ns = 0;
	timer->heap_pos = 0;
	timer->fn = fn;
}

static void heap_put(struct loop *loop, uint32_t pos, struct timer *timer)
{
	loop->timers[pos] = timer;
	timer->heap_pos = pos;
}

static void heap_up(struct loop *loop, uint32_t pos, struct timer *timer)
{
	for (; pos > 1 && loop->timers[pos / 2]->due_ns > timer->due_ns; pos /= 2)
		heap_put(loop, pos, loop->timers[pos / 2]);
	heap_put(loop, pos, timer);
}

static void heap_down(struct loop *loop, uint32_t pos, struct timer *timer)
{
	uint32_t child;

	for (; (child = pos * 2) <= loop->timer_count; pos = child) {
		if (child < loop->timer_count && loop->timers[child + 1]->due_ns < loop->timers[child]->due_ns)
			child++;
		if (loop->timers[child]->due_ns >= timer->due_ns)
			break;
		heap_put(loop, pos, loop->timers[child]);
	}
	heap_put(loop, pos, timer);
}

/* Puts a timer whose due_ns is new where it belongs, from the place it has. */
static void heap_settle(struct loop *loop, uint32_t pos, struct timer *timer)
{
	if (pos > 1 && loop->timers[pos / 2]->due_ns > timer->due_ns)
		heap_up(loop, pos, timer);
	else
		heap_down(loop, pos, timer);
}

static int heap_grow(struct loop *loop, uint32_t cap)
{
	struct timer **timers = mem_alloc(((size_t)cap + 1) * sizeof(*timers));

	if (!timers)
		return -ENOMEM;
	if (loop->timer_count > 0)
		memcpy(timers + 1, loop->timers + 1, loop->timer_count * sizeof(*timers));
	mem_free(loop->timers);
	loop->timers = timers;
	loop->timer_cap = cap;
	return 0;
}

int loop_reserve_timers(struct loop *loop, uint32_t extra)
{
	/* Armed timers of fibers are counted twice: simple, and on the safe side. */
	uint32_t wanted = loop->timer_count + loop->fibers_live + extra;

	if (wanted <= loop->timer_cap)
		return 0;
	if (wanted < TIMER_CAP_MIN)
		wanted = TIMER_CAP_MIN;
	return heap_grow(loop, wanted * 2);
}

static void heap_insert(struct loop *loop, struct timer *timer)
{
	assert(loop->timer_count < loop->timer_cap);
	loop->timer_count++;
	heap_up(loop, loop->timer_count, timer);
}

int timer_arm(struct loop *loop, struct timer *timer, uint64_t due_ns)
{
	int ret;

	if (timer->heap_pos > 0) {
		timer->due_ns = due_ns;
		heap_settle(loop, timer->heap_pos, timer);
		return 0;
	}
	ret = loop_reserve_timers(loop, 1);
	if (ret)
		return ret;
	timer->due_ns = due_ns;
	heap_insert(loop, timer);
	return 0;
}

void loop_arm_fiber_timer(struct loop *loop, struct timer *timer, uint64_t due_ns)
{
	assert(timer->heap_pos == 0);
	timer->due_ns = due_ns;
	heap_insert(loop, timer);
}

void timer_cancel(struct loop *loop, struct timer *timer)
{
	uint32_t pos = timer->heap_pos;
	struct timer *last;

	if (pos == 0)
		return;
	assert(loop->timers[pos] == timer);
	last = loop->timers[loop->timer_count--];
	if (last != timer)
		heap_settle(loop, pos, last);
	timer->heap_pos = 0;
}

uint64_t loop_next_timer_ns(const struct loop *loop)
{
	return loop->timer_count > 0 ? loop->timers[1]->due_ns : UINT64_MAX;
}

static uint32_t run_timers(struct loop *loop)
{
	/* At most as many as there are now, so that a timer that re-arms itself for the past cannot hold the loop. */
	uint32_t left = loop->timer_count, ran = 0;
	uint64_t now_ns;

	if (left == 0)
		return 0;
	now_ns = loop_now_ns(loop);
	for (; left > 0 && loop_next_timer_ns(loop) <= now_ns; left--, ran++) {
		struct timer *timer = loop->timers[1];

		timer_cancel(loop, timer);
		timer->fn(timer);
	}
	return ran;
}

uint32_t loop_turn(struct loop *loop)
{
	uint32_t ran;

	assert(!loop->current && self_loop == loop);
	drain_mailbox(loop);
	ran = run_timers(loop);
	return ran + run_ready(loop);
}

/* ---- pollers ---- */

void poller_add(struct loop *loop, struct poller *poller)
{
	list_push_back(&loop->pollers, &poller->node);
}

void poller_del(struct loop *loop, struct poller *poller)
{
	(void)loop;
	list_del(&poller->node);
}

uint32_t loop_poll_all(struct loop *loop)
{
	struct list todo, *node;
	uint32_t work = 0;

	/* Each goes back before it is called: then it may delete itself or any other. */
	list_init(&todo);
	list_splice_back(&todo, &loop->pollers);
	while ((node = list_pop_front(&todo))) {
		struct poller *poller = list_entry(node, struct poller, node);

		list_push_back(&loop->pollers, node);
		work += (uint32_t)poller->poll(poller);
	}
	return work;
}
