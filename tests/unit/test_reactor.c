/* Unit tests of pool/runtime/reactor.c, reactor_fd.c and offload.c: real time, real threads, real io_uring. */
#include <assert.h>
#include <errno.h>
#include <liburing.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include "pool/runtime/fiber.h"
#include "pool/runtime/reactor.h"
#include "pool/runtime/reactor_int.h"
#include "pool/runtime/valgrind.h"
#include "tests/unit/unit.h"

#define MS 1000000ull

static struct reactor *reactor; /* the main thread's */
static struct loop *loop;

static int setup(void **state)
{
	struct err err;

	if (reactor_create(0, -1, &reactor, &err))
		fail_msg("%s", err.msg);
	loop = reactor_loop(reactor);
	return 0;
}

static int teardown(void **state)
{
	/* A test that failed has left its fiber behind: then leave the rest too. */
	if (loop->fibers_live == 0)
		reactor_destroy(reactor);
	return 0;
}

static void (*body)(void);

static void run_body(void *arg)
{
	body();
	reactor_stop(reactor);
}

/* Runs fn on a fiber of the main thread's reactor. */
static void run(void (*fn)(void))
{
	body = fn;
	assert_int_equal(fiber_start(loop, run_body, NULL), 0);
	reactor_run(reactor);
}

/* A second reactor on a thread of its own. */
struct peer {
	struct reactor *reactor;
	pthread_t thread;
};

static void *peer_main(void *arg)
{
	reactor_run(arg);
	return NULL;
}

static void peer_start(struct peer *peer, uint32_t index)
{
	assert_int_equal(reactor_create(index, -1, &peer->reactor, NULL), 0);
	assert_int_equal(pthread_create(&peer->thread, NULL, peer_main, peer->reactor), 0);
}

static void peer_end(struct peer *peer)
{
	reactor_stop(peer->reactor);
	pthread_join(peer->thread, NULL);
	reactor_destroy(peer->reactor);
}

/* ---- life ---- */

static void refuses_a_cpu_that_is_not_there(void **state)
{
	struct reactor *other;
	struct err err = { "" };

	assert_int_equal(reactor_create(0, 1 << 20, &other, &err), -EINVAL);
	assert_memory_equal(err.msg, "cannot run on CPU 1048576", 25);
}

static void check_pinned(void)
{
	cpu_set_t set;

	assert_int_equal(sched_getaffinity(0, sizeof(set), &set), 0);
	assert_int_equal(CPU_COUNT(&set), 1);
	assert_true(CPU_ISSET(0, &set));
}

static void runs_pinned(void **state)
{
	cpu_set_t before;

	sched_getaffinity(0, sizeof(before), &before);
	if (!CPU_ISSET(0, &before))
		skip();
	reactor_destroy(reactor);
	assert_int_equal(reactor_create(0, 0, &reactor, NULL), 0);
	loop = reactor_loop(reactor);
	run(check_pinned);
	sched_setaffinity(0, sizeof(before), &before);
}

static void nothing(void)
{
}

static void runs_again_after_stop(void **state)
{
	for (int i = 0; i < 3; i++)
		run(nothing);
}

static void *stop_main_reactor(void *arg)
{
	usleep(*(useconds_t *)arg);
	reactor_stop(reactor);
	return NULL;
}

static void stop_from_another_thread_ends_sleep(void **state)
{
	for (int i = 0; i < 50; i++) {
		useconds_t delay_us = i < 45 ? (useconds_t)i * 5 : 20000;
		pthread_t thread;

		assert_int_equal(pthread_create(&thread, NULL, stop_main_reactor, &delay_us), 0);
		reactor_run(reactor);
		pthread_join(thread, NULL);
	}
}

static void stop_on_signal(int number)
{
	reactor_stop(reactor);
}

static void stop_from_a_signal_handler_ends_sleep(void **state)
{
	struct sigevent event = { .sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGALRM };
	struct itimerspec after = { .it_value.tv_nsec = 20 * MS };
	timer_t id;

	signal(SIGALRM, stop_on_signal);
	assert_int_equal(timer_create(CLOCK_MONOTONIC, &event, &id), 0);
	assert_int_equal(timer_settime(id, 0, &after, NULL), 0);
	reactor_run(reactor);
	timer_delete(id);
	signal(SIGALRM, SIG_DFL);
}

/* ---- environment ---- */

static void check_environment(void)
{
	uint64_t before_ns = loop_now_ns(loop), first = loop_random(loop);
	bool differs = false;

	assert_ptr_equal(loop_self(), loop);
	assert_ptr_equal(reactor_of(loop), reactor);
	assert_in_range(loop->ops->wall_s(loop), 1700000000, 1ull << 40);
	for (int i = 0; i < 100; i++)
		differs |= loop_random(loop) != first;
	assert_true(differs);
	assert_true(loop_now_ns(loop) >= before_ns);
}

static void environment_is_there(void **state)
{
	run(check_environment);
}

static void check_sleep(void)
{
	static const uint64_t times_ns[] = { 0, 1000, 30000, 300000, 3 * MS, 30 * MS };

	for (size_t i = 0; i < sizeof(times_ns) / sizeof(times_ns[0]); i++) {
		uint64_t start_ns = loop_now_ns(loop), took_ns;

		fiber_sleep_ns(times_ns[i]);
		took_ns = loop_now_ns(loop) - start_ns;
		assert_in_range(took_ns, times_ns[i], times_ns[i] + 1000 * MS);
	}
}

static void sleep_takes_its_time(void **state)
{
	run(check_sleep);
}

/* ---- ring ---- */

#define NOPS 20000

static int nops_left;
static struct fiber *nop_waiter;

static void nop_done(struct ring_op *op, int res, uint32_t cqe_flags)
{
	assert(res == 0);
	if (--nops_left == 0)
		fiber_wake(nop_waiter);
}

static void check_nops(void)
{
	static struct ring_op ops[NOPS];

	nops_left = NOPS;
	nop_waiter = fiber_self();
	for (int i = 0; i < NOPS; i++) {
		ops[i].done = nop_done;
		io_uring_prep_nop(reactor_sqe(reactor, &ops[i]));
	}
	while (nops_left > 0)
		fiber_park();
}

/* 40 times the submission queue and 5 times the completion queue. */
static void full_queues_lose_nothing(void **state)
{
	run(check_nops);
}

/* ---- descriptors ---- */

static int sockets[2];

static int setup_sockets(void **state)
{
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, sockets), 0);
	return setup(state);
}

static int teardown_sockets(void **state)
{
	close(sockets[0]);
	close(sockets[1]);
	return teardown(state);
}

static void write_byte(void *arg)
{
	assert_int_equal(send(sockets[1], "x", 1, 0), 1);
}

static void check_wait_ready(void)
{
	char byte;

	assert_int_equal(fd_wait(sockets[0], POLLOUT, UINT64_MAX, NULL), POLLOUT);
	assert_int_equal(fiber_start(loop, write_byte, NULL), 0);
	assert_int_equal(fd_wait(sockets[0], POLLIN, UINT64_MAX, NULL), POLLIN);
	assert_int_equal(fd_wait(sockets[0], POLLIN, 0, NULL), POLLIN);
	assert_int_equal(recv(sockets[0], &byte, 1, 0), 1);
}

static void fd_wait_returns_what_is_ready(void **state)
{
	run(check_wait_ready);
}

static void check_wait_timeout(void)
{
	uint64_t start_ns = loop_now_ns(loop);

	assert_int_equal(fd_wait(sockets[0], POLLIN, start_ns + 10 * MS, NULL), -ETIMEDOUT);
	assert_in_range(loop_now_ns(loop) - start_ns, 10 * MS, 1000 * MS);
	assert_int_equal(fd_wait(sockets[0], POLLIN, 0, NULL), -ETIMEDOUT);
}

static void fd_wait_ends_at_its_deadline(void **state)
{
	run(check_wait_timeout);
}

static void check_wait_hangup(void)
{
	shutdown(sockets[1], SHUT_RDWR);
	assert_true(fd_wait(sockets[0], POLLIN, UINT64_MAX, NULL) & (POLLIN | POLLHUP));
}

static void fd_wait_sees_a_hangup(void **state)
{
	run(check_wait_hangup);
}

static void check_wait_bad_fd(void)
{
	assert_int_equal(fd_wait(-1, POLLIN, UINT64_MAX, NULL), -EBADF);
}

static void fd_wait_on_a_bad_descriptor_fails(void **state)
{
	run(check_wait_bad_fd);
}

static struct fd_cancel cancel;
static int cancelled_waits;

static void wait_for_cancel(void *arg)
{
	assert_int_equal(fd_wait(sockets[0], POLLIN, UINT64_MAX, &cancel), -ECANCELED);
	cancelled_waits++;
}

static void check_cancel(void)
{
	fd_cancel_init(&cancel);
	cancelled_waits = 0;
	assert_int_equal(fd_wait(sockets[0], POLLOUT, UINT64_MAX, &cancel), POLLOUT);
	for (int i = 0; i < 3; i++)
		assert_int_equal(fiber_start(loop, wait_for_cancel, NULL), 0);
	fiber_sleep_ns(2 * MS);
	assert_int_equal(cancelled_waits, 0);
	fd_cancel(&cancel);
	fiber_sleep_ns(2 * MS);
	assert_int_equal(cancelled_waits, 3);
	write_byte(NULL);
	wait_for_cancel(NULL);
}

static void fd_cancel_ends_present_and_future_waits(void **state)
{
	run(check_cancel);
}

static int watch_calls, bytes_seen;

static void drain_socket(struct fd_watch *watch)
{
	char bytes[16];
	ssize_t len;

	watch_calls++;
	while ((len = recv(watch->fd, bytes, sizeof(bytes), MSG_DONTWAIT)) > 0)
		bytes_seen += (int)len;
}

static void check_watch(void)
{
	struct fd_watch watch;

	watch_calls = bytes_seen = 0;
	write_byte(NULL);
	assert_int_equal(fd_watch_start(reactor, &watch, sockets[0], drain_socket), 0);
	for (int i = 1; i <= 20; i++) {
		while (bytes_seen < i)
			fiber_sleep_ns(MS / 10);
		write_byte(NULL);
	}
	fd_watch_stop(&watch);
	assert_in_range(watch_calls, 20, 40);
	watch_calls = 0;
	write_byte(NULL);
	fiber_sleep_ns(2 * MS);
	assert_int_equal(watch_calls, 0);
}

static void fd_watch_reports_until_stopped(void **state)
{
	run(check_watch);
}

static void count_call(struct fd_watch *watch)
{
	watch_calls++;
}

static void check_watch_stop_at_once(void)
{
	struct fd_watch watch;

	watch_calls = 0;
	assert_int_equal(fd_watch_start(reactor, &watch, sockets[0], count_call), 0);
	fd_watch_stop(&watch);
	assert_int_equal(watch_calls, 0);
	assert_int_equal(fd_watch_start(reactor, &watch, -1, count_call), -EBADF);
}

static void fd_watch_can_be_stopped_at_once(void **state)
{
	run(check_watch_stop_at_once);
}

static void check_watch_bad_fd(void)
{
	struct fd_watch watch;

	watch_calls = 0;
	assert_int_equal(fd_watch_start(reactor, &watch, 1 << 20, count_call), 0);
	fiber_sleep_ns(2 * MS);
	assert_int_equal(watch_calls, 1);
	fd_watch_stop(&watch);
}

static void fd_watch_of_a_bad_descriptor_calls_once(void **state)
{
	run(check_watch_bad_fd);
}

#define FLOOD 3
#define FLOOD_EVENTS 10000

static struct fd_watch flood_watches[FLOOD];
static atomic_int flood_seen;

static void flood_event(struct fd_watch *watch)
{
	uint64_t count;

	if (read(watch->fd, &count, sizeof(count)) == sizeof(count))
		atomic_fetch_add(&flood_seen, (int)count);
}

static void *flood_write(void *arg)
{
	uint64_t one = 1;

	for (int i = 0; i < FLOOD_EVENTS; i++)
		for (int j = 0; j < FLOOD; j++)
			assert(write(flood_watches[j].fd, &one, sizeof(one)) == sizeof(one));
	return NULL;
}

static void check_flood(void)
{
	pthread_t thread;

	flood_seen = 0;
	for (int j = 0; j < FLOOD; j++)
		assert_int_equal(fd_watch_start(reactor, &flood_watches[j], eventfd(0, EFD_NONBLOCK), flood_event), 0);
	assert_int_equal(pthread_create(&thread, NULL, flood_write, NULL), 0);
	while (flood_seen < FLOOD * FLOOD_EVENTS)
		fiber_sleep_ns(MS);
	pthread_join(thread, NULL);
	for (int j = 0; j < FLOOD; j++) {
		fd_watch_stop(&flood_watches[j]);
		close(flood_watches[j].fd);
	}
}

static void fd_watch_loses_no_event(void **state)
{
	run(check_flood);
}

static void nap_ms(unsigned int ms)
{
	fiber_sleep_ns(ms * MS);
}

static void *wake_by_message(void *arg)
{
	usleep(5000);
	loop_send(loop, arg);
	return NULL;
}

static void message_arrived(struct task *task)
{
	watch_calls++;
	fiber_wake(nop_waiter);
}

/* Fills the completion queue without reaping, lets descriptor and doorbell ring into it, and looks whether both still
 * report afterwards: the kernel ends a multishot poll that it cannot post. */
static void check_watch_after_overflow(void)
{
	static struct ring_op ops[NOPS];
	struct task message = { .fn = message_arrived };
	struct fd_watch watch;
	pthread_t thread;
	uint64_t one = 1;
	int fd = eventfd(0, EFD_NONBLOCK);

	assert_int_equal(fd_watch_start(reactor, &watch, fd, flood_event), 0);
	nap_ms(1);
	flood_seen = 0;
	nops_left = NOPS;
	nop_waiter = fiber_self();
	for (int i = 0; i < NOPS; i++) {
		ops[i].done = nop_done;
		io_uring_prep_nop(reactor_sqe(reactor, &ops[i]));
	}
	assert_int_equal(write(reactor->event_fd, &one, sizeof(one)), sizeof(one));
	assert_int_equal(write(fd, &one, sizeof(one)), sizeof(one));
	while (nops_left > 0 || flood_seen < 1)
		nap_ms(1);
	assert_int_equal(write(fd, &one, sizeof(one)), sizeof(one));
	while (flood_seen < 2)
		nap_ms(1);
	fd_watch_stop(&watch);
	close(fd);

	watch_calls = 0;
	assert_int_equal(pthread_create(&thread, NULL, wake_by_message, &message), 0);
	while (watch_calls == 0)
		fiber_park();
	pthread_join(thread, NULL);
}

static void full_queue_ends_no_watch(void **state)
{
	run(check_watch_after_overflow);
}

/* ---- pollers ---- */

struct doorbell {
	struct poller poller;
	int polled, armed, disarmed, work;
};

static int poll_doorbell(struct poller *poller)
{
	struct doorbell *d = container_of(poller, struct doorbell, poller);

	d->polled++;
	return d->work > 0 ? d->work-- : 0;
}

static bool arm_doorbell(struct poller *poller)
{
	struct doorbell *d = container_of(poller, struct doorbell, poller);

	d->armed++;
	/* The first time, work slips in just before the sleep. */
	if (d->armed == 1)
		d->work = 1;
	return d->armed == 1;
}

static void disarm_doorbell(struct poller *poller)
{
	container_of(poller, struct doorbell, poller)->disarmed++;
}

static void check_poller(void)
{
	struct doorbell d = {
		.poller = { .poll = poll_doorbell, .arm = arm_doorbell, .disarm = disarm_doorbell },
	};

	poller_add(loop, &d.poller);
	fiber_sleep_ns(20 * MS);
	poller_del(loop, &d.poller);
	assert_in_range(d.armed, 2, 100);
	assert_int_equal(d.armed, d.disarmed);
	assert_int_equal(d.work, 0);
	assert_true(d.polled > 2);
}

static void pollers_are_armed_before_each_sleep(void **state)
{
	run(check_poller);
}

/* ---- idle ---- */

static uint64_t thread_cpu_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_THREAD_CPUTIME_ID, &ts);
	return (uint64_t)ts.tv_sec * 1000 * MS + (uint64_t)ts.tv_nsec;
}

static void check_idle(void)
{
	struct fd_watch watch;
	uint64_t cpu_ns;

	assert_int_equal(fd_watch_start(reactor, &watch, sockets[0], count_call), 0);
	fiber_sleep_ns(10 * MS);
	cpu_ns = thread_cpu_ns();
	fiber_sleep_ns(500 * MS);
	assert_in_range(thread_cpu_ns() - cpu_ns, 0, 1 * MS);
	cpu_ns = thread_cpu_ns();
	for (int i = 0; i < 50; i++)
		fiber_sleep_ns(10 * MS);
	assert_in_range(thread_cpu_ns() - cpu_ns, 0, 25 * MS);
	fd_watch_stop(&watch);
}

static void idle_reactor_uses_no_cpu(void **state)
{
	if (RUNNING_ON_VALGRIND)
		skip();
	run(check_idle);
}

/* ---- calls between reactors ---- */

#define PEERS 2
#define CALLERS 8
#define CALLS 300

static struct peer peers[PEERS];
static int callers_left;
static struct waitq all_called;

struct sum {
	struct loop *on;
	int a, b;
};

static int add(void *arg)
{
	struct sum *sum = arg;

	assert(loop_self() == sum->on && fiber_self());
	if (sum->b % 16 == 0)
		fiber_sleep_ns((uint64_t)sum->b * 100);
	else if (sum->b % 3 == 0)
		fiber_yield();
	return sum->a + sum->b;
}

static void call_many(void *arg)
{
	int caller = (int)(intptr_t)arg;

	for (int i = 0; i < CALLS; i++) {
		struct sum sum = { reactor_loop(peers[(caller + i) % PEERS].reactor), caller, i };

		assert_int_equal(fiber_call_on(sum.on, add, &sum), caller + i);
		if (i % 50 == 0)
			fiber_sleep_ns(MS / 5);
	}
	if (--callers_left == 0)
		waitq_wake_all(&all_called);
}

static void check_calls(void)
{
	waitq_init(&all_called);
	callers_left = CALLERS;
	for (intptr_t i = 0; i < CALLERS; i++)
		assert_int_equal(fiber_start(loop, call_many, (void *)i), 0);
	while (callers_left > 0)
		waitq_wait(&all_called);
}

static void calls_between_reactors_all_return(void **state)
{
	for (uint32_t i = 0; i < PEERS; i++)
		peer_start(&peers[i], i + 1);
	run(check_calls);
	for (int i = 0; i < PEERS; i++)
		peer_end(&peers[i]);
}

static int call_back(void *arg)
{
	struct sum *sum = arg;

	sum->on = loop;
	return fiber_call_on(loop, add, sum);
}

static void check_nested_call(void)
{
	struct sum sum = { NULL, 20, 22 };

	assert_int_equal(fiber_call_on(reactor_loop(peers[0].reactor), call_back, &sum), 42);
}

static void a_call_may_call_back(void **state)
{
	peer_start(&peers[0], 1);
	run(check_nested_call);
	peer_end(&peers[0]);
}

/* ---- offload ---- */

static pthread_t main_thread;
static atomic_int at_once, at_once_max;
static int offloads_left;

static int block_a_while(void *arg)
{
	int now = atomic_fetch_add(&at_once, 1) + 1, max = atomic_load(&at_once_max);

	assert(!pthread_equal(pthread_self(), main_thread));
	while (now > max && !atomic_compare_exchange_weak(&at_once_max, &max, now))
		;
	usleep(3000);
	atomic_fetch_sub(&at_once, 1);
	return -(int)(intptr_t)arg;
}

static void offload_one(void *arg)
{
	assert_int_equal(reactor_offload(block_a_while, arg), -(int)(intptr_t)arg);
	if (--offloads_left == 0)
		waitq_wake_all(&all_called);
}

static void check_offload(void)
{
	main_thread = pthread_self();
	at_once_max = 0;
	offloads_left = 20;
	waitq_init(&all_called);
	for (intptr_t i = 0; i < 20; i++)
		assert_int_equal(fiber_start(loop, offload_one, (void *)i), 0);
	while (offloads_left > 0)
		waitq_wait(&all_called);
	assert_in_range(at_once_max, 2, 4);
}

static void offloaded_functions_run_beside_the_loop(void **state)
{
	run(check_offload);
}

#define reactor_test(fn) cmocka_unit_test_setup_teardown(fn, setup, teardown)
#define socket_test(fn) cmocka_unit_test_setup_teardown(fn, setup_sockets, teardown_sockets)

int main(void)
{
	const struct CMUnitTest tests[] = {
		reactor_test(refuses_a_cpu_that_is_not_there),
		reactor_test(runs_pinned),
		reactor_test(runs_again_after_stop),
		reactor_test(stop_from_another_thread_ends_sleep),
		reactor_test(stop_from_a_signal_handler_ends_sleep),
		reactor_test(environment_is_there),
		reactor_test(sleep_takes_its_time),
		reactor_test(full_queues_lose_nothing),
		socket_test(fd_wait_returns_what_is_ready),
		socket_test(fd_wait_ends_at_its_deadline),
		socket_test(fd_wait_sees_a_hangup),
		reactor_test(fd_wait_on_a_bad_descriptor_fails),
		socket_test(fd_cancel_ends_present_and_future_waits),
		socket_test(fd_watch_reports_until_stopped),
		socket_test(fd_watch_can_be_stopped_at_once),
		reactor_test(fd_watch_of_a_bad_descriptor_calls_once),
		reactor_test(fd_watch_loses_no_event),
		reactor_test(full_queue_ends_no_watch),
		reactor_test(pollers_are_armed_before_each_sleep),
		socket_test(idle_reactor_uses_no_cpu),
		reactor_test(calls_between_reactors_all_return),
		reactor_test(a_call_may_call_back),
		reactor_test(offloaded_functions_run_beside_the_loop),
	};

	return run_unit_tests(tests);
}
