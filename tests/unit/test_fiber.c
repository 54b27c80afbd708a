/* Unit tests of pool/runtime/fiber.c and fiber_sync.c, on one loop in virtual time. Calls between real loops:
 * test_reactor.c. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "pool/base/mem.h"
#include "pool/runtime/fiber.h"
#include "tests/unit/unit.h"
#include "tests/unit/unit_loop.h"

static struct unit_loop u;
static struct fiber *fiber_a;
static char trace[256];

static void note(const char *what)
{
	strncat(trace, what, sizeof(trace) - strlen(trace) - 1);
}

static int setup(void **state)
{
	trace[0] = '\0';
	unit_loop_init(&u);
	return 0;
}

static int teardown(void **state)
{
	unit_loop_fini(&u);
	return 0;
}

/* ---- start ---- */

static void note_arg(void *arg)
{
	assert_non_null(fiber_self());
	note(arg);
}

static void start_runs_in_the_next_turn(void **state)
{
	assert_int_equal(fiber_start(&u.loop, note_arg, "a"), 0);
	assert_int_equal(fiber_start(&u.loop, note_arg, "b"), 0);
	assert_string_equal(trace, "");
	assert_null(fiber_self());
	loop_turn(&u.loop);
	assert_string_equal(trace, "ab");
	assert_int_equal(u.loop.fibers_live, 0);
}

static void start_nested(void *arg)
{
	assert_int_equal(fiber_start(&u.loop, note_arg, "inner"), 0);
	note("outer ");
}

static void started_by_a_fiber_runs_after_it(void **state)
{
	unit_loop_run_fiber(&u, start_nested, NULL);
	assert_string_equal(trace, "outer inner");
}

static void stacks_are_kept_for_reuse(void **state)
{
	unit_loop_run_fiber(&u, note_arg, "");
	assert_int_equal(u.loop.fibers_free, 1);
	for (int i = 0; i < 100; i++)
		unit_loop_run_fiber(&u, note_arg, "");
	assert_int_equal(u.loop.fibers_free, 1);
	for (int i = 0; i < 200; i++)
		assert_int_equal(fiber_start(&u.loop, note_arg, ""), 0);
	unit_loop_run(&u);
	assert_in_range(u.loop.fibers_free, 2, 100);
}

static void deep(void *arg)
{
	volatile char frame[FIBER_STACK_BYTES / 2];

	memset((char *)frame, 1, sizeof(frame));
	note("deep");
}

static void half_the_stack_can_be_used_by_one_frame(void **state)
{
	unit_loop_run_fiber(&u, deep, NULL);
	assert_string_equal(trace, "deep");
}

static void print_float(void *arg)
{
	char text[64];

	snprintf(text, sizeof(text), "%.3f", 1.0 / (double)(uintptr_t)arg);
	note(text);
}

static void library_code_runs_on_fibers(void **state)
{
	unit_loop_run_fiber(&u, print_float, (void *)(uintptr_t)8);
	assert_string_equal(trace, "0.125");
}

/* ---- no memory ---- */

static int allocs_left;

static void *scarce_alloc(size_t align_bytes, size_t size_bytes)
{
	void *ptr;

	if (allocs_left == 0)
		return NULL;
	allocs_left--;
	return posix_memalign(&ptr, align_bytes < 16 ? 16 : align_bytes, size_bytes) ? NULL : ptr;
}

static const struct mem_ops scarce_ops = { .alloc = scarce_alloc, .free = free };

static void sleep_one_ns(void *arg)
{
	fiber_sleep_ns(1);
	note("s");
}

static void without_memory_start_fails_and_sleepers_sleep(void **state)
{
	int started = 0;

	mem_set_ops(&scarce_ops);
	allocs_left = 300;
	while (started < 1000 && fiber_start(&u.loop, sleep_one_ns, NULL) == 0)
		started++;
	assert_in_range(started, 200, 299);
	assert_int_equal(fiber_start(&u.loop, sleep_one_ns, NULL), -ENOMEM);
	unit_loop_run(&u);
	assert_int_equal(strlen(trace), sizeof(trace) - 1);
	assert_int_equal(u.loop.fibers_live, 0);
	unit_loop_fini(&u);
	mem_set_ops(NULL);
	unit_loop_init(&u);
}

/* ---- park, wake, yield, sleep ---- */

static void park_once(void *arg)
{
	fiber_a = fiber_self();
	note("park ");
	fiber_park();
	note("woken");
}

static void park_waits_for_wake(void **state)
{
	unit_loop_start_fiber(&u, park_once, NULL);
	assert_string_equal(trace, "park ");
	fiber_wake(fiber_a);
	fiber_wake(fiber_a);
	assert_string_equal(trace, "park ");
	unit_loop_run(&u);
	assert_string_equal(trace, "park woken");
}

static void park_twice(void *arg)
{
	park_once(arg);
	fiber_park();
	note(" again");
}

static void two_wakes_of_one_park_are_one(void **state)
{
	unit_loop_start_fiber(&u, park_twice, NULL);
	fiber_wake(fiber_a);
	fiber_wake(fiber_a);
	unit_loop_run(&u);
	assert_string_equal(trace, "park woken");
	fiber_wake(fiber_a);
	unit_loop_run(&u);
	assert_string_equal(trace, "park woken again");
}

static void wake_self_and_park(void *arg)
{
	fiber_wake(fiber_self());
	fiber_park();
	note("on");
	fiber_a = fiber_self();
	fiber_park();
	note(" end");
}

static void wake_before_park_is_kept_once(void **state)
{
	unit_loop_start_fiber(&u, wake_self_and_park, NULL);
	assert_string_equal(trace, "on");
	fiber_wake(fiber_a);
	unit_loop_run(&u);
	assert_string_equal(trace, "on end");
}

static void yield_then_park(void *arg)
{
	fiber_a = fiber_self();
	fiber_yield();
	fiber_park();
	note("on");
}

static void wake_a(void *arg)
{
	fiber_wake(fiber_a);
}

static void wake_of_a_ready_fiber_is_kept(void **state)
{
	assert_int_equal(fiber_start(&u.loop, yield_then_park, NULL), 0);
	assert_int_equal(fiber_start(&u.loop, wake_a, NULL), 0);
	unit_loop_run(&u);
	assert_string_equal(trace, "on");
}

static void count_yields(void *arg)
{
	for (int i = 0; i < 3; i++) {
		note(arg);
		fiber_yield();
	}
}

static void yield_lets_others_run(void **state)
{
	assert_int_equal(fiber_start(&u.loop, count_yields, "a"), 0);
	assert_int_equal(fiber_start(&u.loop, count_yields, "b"), 0);
	unit_loop_run(&u);
	assert_string_equal(trace, "ababab");
}

static void sleep_as_told(void *arg)
{
	uint64_t ns = (uintptr_t)arg, start_ns = u.now_ns;
	char text[16];

	fiber_sleep_ns(ns);
	assert_int_equal(u.now_ns, start_ns + ns);
	snprintf(text, sizeof(text), "%u ", (unsigned int)ns);
	note(text);
}

static void sleepers_wake_in_order_of_time(void **state)
{
	static const uintptr_t ns[] = { 50, 10, 40, 20, 30, 60 };

	for (size_t i = 0; i < sizeof(ns) / sizeof(ns[0]); i++)
		assert_int_equal(fiber_start(&u.loop, sleep_as_told, (void *)ns[i]), 0);
	unit_loop_run(&u);
	assert_string_equal(trace, "10 20 30 40 50 60 ");
}

static void sleep_then_park(void *arg)
{
	fiber_a = fiber_self();
	fiber_sleep_ns(100);
	assert_int_equal(u.now_ns, 1100);
	fiber_park();
	note("on");
}

static void wake_does_not_end_a_sleep_and_is_kept(void **state)
{
	assert_int_equal(fiber_start(&u.loop, sleep_then_park, NULL), 0);
	assert_int_equal(fiber_start(&u.loop, wake_a, NULL), 0);
	unit_loop_run(&u);
	assert_string_equal(trace, "on");
}

static void sleep_then_wake_a(void *arg)
{
	fiber_sleep_ns(100);
	fiber_wake(fiber_a);
}

/* The waker's timer was armed first, so it runs first when both are due. */
static void wake_between_the_end_of_a_sleep_and_its_return_is_kept(void **state)
{
	assert_int_equal(fiber_start(&u.loop, sleep_then_wake_a, NULL), 0);
	assert_int_equal(fiber_start(&u.loop, sleep_then_park, NULL), 0);
	unit_loop_run(&u);
	assert_string_equal(trace, "on");
}

static void park_until_1100(void *arg)
{
	fiber_a = fiber_self();
	note(fiber_park_until(1100) ? "woken" : "timeout");
}

static void park_until_ends_by_time(void **state)
{
	unit_loop_start_fiber(&u, park_until_1100, NULL);
	assert_string_equal(trace, "timeout");
	assert_int_equal(u.now_ns, 1100);
}

static void park_until_ends_by_wake_and_disarms(void **state)
{
	assert_int_equal(fiber_start(&u.loop, park_until_1100, NULL), 0);
	assert_int_equal(fiber_start(&u.loop, wake_a, NULL), 0);
	unit_loop_run(&u);
	assert_string_equal(trace, "woken");
	assert_int_equal(u.now_ns, 1000);
}

static void park_without_end(void *arg)
{
	fiber_a = fiber_self();
	note(fiber_park_until(UINT64_MAX) ? "woken" : "timeout");
}

static void park_until_without_end_arms_no_timer(void **state)
{
	unit_loop_start_fiber(&u, park_without_end, NULL);
	assert_int_equal(loop_next_timer_ns(&u.loop), UINT64_MAX);
	fiber_wake(fiber_a);
	unit_loop_run(&u);
	assert_string_equal(trace, "woken");
}

/* ---- wait queue ---- */

static struct waitq queue;

static void wait_and_note(void *arg)
{
	if (!fiber_a)
		fiber_a = fiber_self();
	waitq_wait(&queue);
	note(arg);
}

static void start_three_waiters(void)
{
	fiber_a = NULL;
	waitq_init(&queue);
	waitq_wake_one(&queue);
	waitq_wake_all(&queue);
	unit_loop_start_fiber(&u, wait_and_note, "1");
	unit_loop_start_fiber(&u, wait_and_note, "2");
	unit_loop_start_fiber(&u, wait_and_note, "3");
	assert_string_equal(trace, "");
}

static void waitq_wakes_first_come_first(void **state)
{
	start_three_waiters();
	waitq_wake_one(&queue);
	unit_loop_run(&u);
	assert_string_equal(trace, "1");
	waitq_wake_all(&queue);
	unit_loop_run(&u);
	assert_string_equal(trace, "123");
}

static void stray_wake_does_not_end_a_waitq_wait(void **state)
{
	start_three_waiters();
	fiber_wake(fiber_a);
	unit_loop_run(&u);
	assert_string_equal(trace, "");
	waitq_wake_all(&queue);
	unit_loop_run(&u);
	assert_string_equal(trace, "123");
}

/* ---- mutex ---- */

static struct fmutex mutex;
static int inside;

static void enter_in_turn(void *arg)
{
	for (int i = 0; i < 2; i++) {
		fmutex_lock(&mutex);
		assert_int_equal(inside++, 0);
		note(arg);
		fiber_yield();
		fiber_sleep_ns(5);
		inside--;
		fmutex_unlock(&mutex);
	}
}

static void mutex_excludes_and_is_fair(void **state)
{
	fmutex_init(&mutex);
	inside = 0;
	assert_int_equal(fiber_start(&u.loop, enter_in_turn, "a"), 0);
	assert_int_equal(fiber_start(&u.loop, enter_in_turn, "b"), 0);
	assert_int_equal(fiber_start(&u.loop, enter_in_turn, "c"), 0);
	unit_loop_run(&u);
	assert_string_equal(trace, "abcabc");
	assert_false(mutex.held);
}

/* ---- call ---- */

static int negate(void *arg)
{
	fiber_yield();
	return -*(int *)arg;
}

static void call_same_loop(void *arg)
{
	int five = 5;

	assert_int_equal(fiber_call_on(&u.loop, negate, &five), -5);
	note("done");
}

static void call_on_the_same_loop(void **state)
{
	unit_loop_run_fiber(&u, call_same_loop, NULL);
	assert_string_equal(trace, "done");
}

/* ---- many ---- */

static int left;

static void wander(void *arg)
{
	unsigned int seed = (unsigned int)(uintptr_t)arg;

	for (int i = 0; i < 50; i++) {
		if (rand_r(&seed) % 2)
			fiber_yield();
		else
			fiber_sleep_ns((uint64_t)rand_r(&seed) % 1000);
	}
	left--;
}

static void a_thousand_fibers_wander(void **state)
{
	left = 1000;
	for (uintptr_t i = 0; i < 1000; i++)
		assert_int_equal(fiber_start(&u.loop, wander, (void *)i), 0);
	unit_loop_run(&u);
	assert_int_equal(left, 0);
}

#define fiber_test(fn) cmocka_unit_test_setup_teardown(fn, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		fiber_test(start_runs_in_the_next_turn),
		fiber_test(started_by_a_fiber_runs_after_it),
		fiber_test(stacks_are_kept_for_reuse),
		fiber_test(half_the_stack_can_be_used_by_one_frame),
		fiber_test(library_code_runs_on_fibers),
		fiber_test(without_memory_start_fails_and_sleepers_sleep),
		fiber_test(park_waits_for_wake),
		fiber_test(two_wakes_of_one_park_are_one),
		fiber_test(wake_before_park_is_kept_once),
		fiber_test(wake_of_a_ready_fiber_is_kept),
		fiber_test(yield_lets_others_run),
		fiber_test(sleepers_wake_in_order_of_time),
		fiber_test(wake_does_not_end_a_sleep_and_is_kept),
		fiber_test(wake_between_the_end_of_a_sleep_and_its_return_is_kept),
		fiber_test(park_until_ends_by_time),
		fiber_test(park_until_ends_by_wake_and_disarms),
		fiber_test(park_until_without_end_arms_no_timer),
		fiber_test(waitq_wakes_first_come_first),
		fiber_test(stray_wake_does_not_end_a_waitq_wait),
		fiber_test(mutex_excludes_and_is_fair),
		fiber_test(call_on_the_same_loop),
		fiber_test(a_thousand_fibers_wander),
	};

	return run_unit_tests(tests);
}
