/* Unit tests of pool/runtime/loop.c. */
#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <stdlib.h>

#include "pool/base/mem.h"
#include "pool/runtime/loop.h"
#include "tests/unit/unit.h"
#include "tests/unit/unit_loop.h"

static struct unit_loop u;
static int trace[4096];
static int trace_len;

static int setup(void **state)
{
	trace_len = 0;
	unit_loop_init(&u);
	return 0;
}

static int teardown(void **state)
{
	unit_loop_fini(&u);
	return 0;
}

static void assert_trace(const int *expected, int len)
{
	assert_int_equal(trace_len, len);
	assert_memory_equal(trace, expected, (size_t)len * sizeof(*expected));
}

#define ASSERT_TRACE(...) assert_trace((int[]){ __VA_ARGS__ }, sizeof((int[]){ __VA_ARGS__ }) / sizeof(int))

/* ---- tasks ---- */

struct numbered {
	struct task task;
	int number;
	struct numbered *then; /* posted when run */
};

static void run_numbered(struct task *task)
{
	struct numbered *n = container_of(task, struct numbered, task);

	trace[trace_len++] = n->number;
	if (n->then)
		loop_post(&u.loop, &n->then->task);
}

static void tasks_run_first_in_first_out(void **state)
{
	struct numbered n[3];

	assert_false(loop_has_ready(&u.loop));
	for (int i = 0; i < 3; i++) {
		n[i] = (struct numbered){ .task.fn = run_numbered, .number = i };
		loop_post(&u.loop, &n[i].task);
	}
	assert_true(loop_has_ready(&u.loop));
	assert_int_equal(loop_turn(&u.loop), 3);
	ASSERT_TRACE(0, 1, 2);
	assert_int_equal(loop_turn(&u.loop), 0);
	assert_false(loop_has_ready(&u.loop));
}

static void tasks_posted_meanwhile_wait_for_the_next_turn(void **state)
{
	struct numbered n = { .task.fn = run_numbered, .number = 7 };

	n.then = &n;
	loop_post(&u.loop, &n.task);
	assert_int_equal(loop_turn(&u.loop), 1);
	assert_int_equal(loop_turn(&u.loop), 1);
	n.then = NULL;
	assert_int_equal(loop_turn(&u.loop), 1);
	assert_int_equal(loop_turn(&u.loop), 0);
	ASSERT_TRACE(7, 7, 7);
}

static void self_is_the_entered_loop(void **state)
{
	assert_ptr_equal(loop_self(), &u.loop);
	assert_ptr_equal(loop_enter(NULL), &u.loop);
	assert_null(loop_self());
	assert_null(loop_enter(&u.loop));
}

/* ---- mailbox ---- */

static void mail_keeps_its_order_and_wakes(void **state)
{
	struct numbered n[3];

	for (int i = 0; i < 3; i++) {
		n[i] = (struct numbered){ .task.fn = run_numbered, .number = i };
		loop_send(&u.loop, &n[i].task);
	}
	assert_true(u.wakes > 0);
	assert_true(loop_has_ready(&u.loop));
	assert_int_equal(loop_turn(&u.loop), 3);
	ASSERT_TRACE(0, 1, 2);
}

#define SENDERS 4
#define LETTERS 20000

struct letter {
	struct task task;
	int sender, number;
};

static struct letter letters[SENDERS][LETTERS];
static int received[SENDERS];

static void receive(struct task *task)
{
	struct letter *letter = container_of(task, struct letter, task);

	assert_int_equal(letter->number, received[letter->sender]);
	received[letter->sender]++;
}

static void *send_all(void *arg)
{
	int sender = (int)(intptr_t)arg;

	for (int i = 0; i < LETTERS; i++) {
		letters[sender][i] = (struct letter){ .task.fn = receive, .sender = sender, .number = i };
		loop_send(&u.loop, &letters[sender][i].task);
	}
	return NULL;
}

static void order_of_each_thread_is_kept(void **state)
{
	pthread_t threads[SENDERS];
	int left = SENDERS * LETTERS;

	for (intptr_t i = 0; i < SENDERS; i++)
		assert_int_equal(pthread_create(&threads[i], NULL, send_all, (void *)i), 0);
	while (left > 0) {
		left -= (int)loop_turn(&u.loop);
		sched_yield();
	}
	for (int i = 0; i < SENDERS; i++) {
		pthread_join(threads[i], NULL);
		assert_int_equal(received[i], LETTERS);
	}
}

/* ---- timers ---- */

#define MANY 1000

struct alarm {
	struct timer timer;
	int number;
};

static void ring(struct timer *timer)
{
	trace[trace_len++] = container_of(timer, struct alarm, timer)->number;
}

static void timers_fire_at_their_time_in_order(void **state)
{
	static const uint64_t due_ns[] = { 1300, 1100, 1500, 1200, 1400 };
	struct alarm alarms[5];

	assert_int_equal(loop_next_timer_ns(&u.loop), UINT64_MAX);
	for (int i = 0; i < 5; i++) {
		timer_init(&alarms[i].timer, ring);
		alarms[i].number = i;
		assert_int_equal(timer_arm(&u.loop, &alarms[i].timer, due_ns[i]), 0);
	}
	assert_int_equal(loop_next_timer_ns(&u.loop), 1100);
	assert_int_equal(loop_turn(&u.loop), 0);
	u.now_ns = 1099;
	assert_int_equal(loop_turn(&u.loop), 0);
	u.now_ns = 1200;
	assert_int_equal(loop_turn(&u.loop), 2);
	ASSERT_TRACE(1, 3);
	unit_loop_run(&u);
	ASSERT_TRACE(1, 3, 0, 4, 2);
	assert_int_equal(u.now_ns, 1500);
}

static void rearm_moves_a_timer_both_ways(void **state)
{
	struct alarm a = { .number = 1 }, b = { .number = 2 };

	timer_init(&a.timer, ring);
	timer_init(&b.timer, ring);
	assert_int_equal(timer_arm(&u.loop, &a.timer, 1100), 0);
	assert_int_equal(timer_arm(&u.loop, &b.timer, 1200), 0);
	assert_int_equal(timer_arm(&u.loop, &a.timer, 1300), 0);
	assert_int_equal(loop_next_timer_ns(&u.loop), 1200);
	assert_int_equal(timer_arm(&u.loop, &a.timer, 1050), 0);
	assert_int_equal(loop_next_timer_ns(&u.loop), 1050);
	unit_loop_run(&u);
	ASSERT_TRACE(1, 2);
}

static void cancelled_timer_does_not_fire(void **state)
{
	struct alarm a = { .number = 1 };

	timer_init(&a.timer, ring);
	timer_cancel(&u.loop, &a.timer);
	assert_int_equal(timer_arm(&u.loop, &a.timer, 1100), 0);
	timer_cancel(&u.loop, &a.timer);
	timer_cancel(&u.loop, &a.timer);
	unit_loop_run(&u);
	assert_int_equal(trace_len, 0);
	assert_int_equal(u.now_ns, 1000);
}

static void rearm_for_now(struct timer *timer)
{
	ring(timer);
	assert_int_equal(timer_arm(&u.loop, timer, 0), 0);
}

static void timer_rearmed_for_the_past_does_not_hold_the_loop(void **state)
{
	struct alarm a = { .number = 1 };

	timer_init(&a.timer, rearm_for_now);
	assert_int_equal(timer_arm(&u.loop, &a.timer, 0), 0);
	assert_int_equal(loop_turn(&u.loop), 1);
	assert_int_equal(loop_turn(&u.loop), 1);
	timer_cancel(&u.loop, &a.timer);
}

static struct alarm many[MANY];
static uint64_t last_due_ns;
static int fired;

static void check_order(struct timer *timer)
{
	assert_true(timer->due_ns >= last_due_ns);
	assert_int_equal(timer->heap_pos, 0);
	last_due_ns = timer->due_ns;
	fired++;
}

static void random_arming_and_cancelling_keeps_order(void **state)
{
	int armed = 0;

	srandom(3);
	fired = 0;
	last_due_ns = 0;
	for (int i = 0; i < MANY; i++)
		timer_init(&many[i].timer, check_order);
	for (int i = 0; i < 20 * MANY; i++) {
		struct timer *timer = &many[random() % MANY].timer;

		if (random() % 3)
			assert_int_equal(timer_arm(&u.loop, timer, 2000 + (uint64_t)random() % 500), 0);
		else
			timer_cancel(&u.loop, timer);
	}
	for (int i = 0; i < MANY; i++)
		armed += many[i].timer.heap_pos > 0;
	assert_in_range(armed, MANY / 4, MANY);
	unit_loop_run(&u);
	assert_int_equal(fired, armed);
}

static void *no_alloc(size_t align_bytes, size_t size_bytes)
{
	return NULL;
}

static void arm_without_memory_fails_and_leaves_the_timer(void **state)
{
	static const struct mem_ops none = { .alloc = no_alloc, .free = free };
	struct alarm a;

	timer_init(&a.timer, ring);
	mem_set_ops(&none);
	assert_int_equal(timer_arm(&u.loop, &a.timer, 1100), -ENOMEM);
	mem_set_ops(NULL);
	assert_int_equal(a.timer.heap_pos, 0);
	assert_int_equal(timer_arm(&u.loop, &a.timer, 1100), 0);
	timer_cancel(&u.loop, &a.timer);
}

/* ---- pollers ---- */

struct counted {
	struct poller poller;
	int polled;
	struct poller *remove; /* when polled */
};

static int poll_counted(struct poller *poller)
{
	struct counted *c = container_of(poller, struct counted, poller);

	c->polled++;
	if (c->remove)
		poller_del(&u.loop, c->remove);
	return 2;
}

static void pollers_are_polled_and_add_up(void **state)
{
	struct counted a = { .poller.poll = poll_counted }, b = a;

	assert_int_equal(loop_poll_all(&u.loop), 0);
	poller_add(&u.loop, &a.poller);
	poller_add(&u.loop, &b.poller);
	assert_int_equal(loop_poll_all(&u.loop), 4);
	poller_del(&u.loop, &a.poller);
	assert_int_equal(loop_poll_all(&u.loop), 2);
	assert_int_equal(a.polled, 1);
	assert_int_equal(b.polled, 2);
	poller_del(&u.loop, &b.poller);
}

static void poller_may_delete_itself_or_the_next_one(void **state)
{
	struct counted a = { .poller.poll = poll_counted }, b = a, c = a;

	poller_add(&u.loop, &a.poller);
	poller_add(&u.loop, &b.poller);
	poller_add(&u.loop, &c.poller);
	a.remove = &b.poller;
	c.remove = &c.poller;
	assert_int_equal(loop_poll_all(&u.loop), 4);
	assert_int_equal(b.polled, 0);
	a.remove = &a.poller;
	assert_int_equal(loop_poll_all(&u.loop), 2);
	assert_int_equal(loop_poll_all(&u.loop), 0);
	assert_int_equal(c.polled, 1);
}

#define loop_test(fn) cmocka_unit_test_setup_teardown(fn, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		loop_test(tasks_run_first_in_first_out),
		loop_test(tasks_posted_meanwhile_wait_for_the_next_turn),
		loop_test(self_is_the_entered_loop),
		loop_test(mail_keeps_its_order_and_wakes),
		loop_test(order_of_each_thread_is_kept),
		loop_test(timers_fire_at_their_time_in_order),
		loop_test(rearm_moves_a_timer_both_ways),
		loop_test(cancelled_timer_does_not_fire),
		loop_test(timer_rearmed_for_the_past_does_not_hold_the_loop),
		loop_test(random_arming_and_cancelling_keeps_order),
		loop_test(arm_without_memory_fails_and_leaves_the_timer),
		loop_test(pollers_are_polled_and_add_up),
		loop_test(poller_may_delete_itself_or_the_next_one),
	};

	return run_unit_tests(tests);
}
