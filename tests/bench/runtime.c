/* Micro benchmark of the runtime: what a fiber switch, a message to another reactor, a sleep and idling cost.
 *
 *     build/release/bench/runtime
 *
 * The main thread's reactor is pinned to the first allowed CPU, the other one to the last. */
#include <liburing.h>
#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "pool/runtime/fiber.h"
#include "pool/runtime/reactor.h"

#define YIELDS 5000000
#define STARTS 1000000
#define FIBERS 100
#define CALLS 100000
#define SLOW_CALLS 300
#define NOPS 1000000
#define NOP_DEPTH 32
#define SLEEPS 100
#define IDLE_NS 2000000000ull

static struct reactor *here, *there;
static struct loop *loop;

static uint64_t cpu_ns(clockid_t clock)
{
	struct timespec ts;

	clock_gettime(clock, &ts);
	return (uint64_t)ts.tv_sec * 1000000000 + (uint64_t)ts.tv_nsec;
}

static double per(uint64_t start_ns, double count)
{
	return (double)(loop_now_ns(loop) - start_ns) / count;
}

/* ---- fibers ---- */

static void bench_yield_alone(void)
{
	uint64_t start_ns = loop_now_ns(loop);

	for (int i = 0; i < YIELDS; i++)
		fiber_yield();
	printf("yield of the only fiber (a whole turn of the reactor)  %8.1f ns\n", per(start_ns, YIELDS));
}

static int fibers_left;
static struct fiber *waiter;

static void yield_in_company(void *arg)
{
	for (int i = 0; i < YIELDS / FIBERS; i++)
		fiber_yield();
	if (--fibers_left == 0)
		fiber_wake(waiter);
}

static void bench_yield_in_company(void)
{
	uint64_t start_ns = loop_now_ns(loop);

	waiter = fiber_self();
	fibers_left = FIBERS;
	for (int i = 0; i < FIBERS; i++)
		if (fiber_start(loop, yield_in_company, NULL))
			abort();
	while (fibers_left > 0)
		fiber_park();
	printf("yield among %d fibers (two switches)                  %8.1f ns\n", FIBERS, per(start_ns, YIELDS));
}

static void do_nothing(void *arg)
{
}

static void bench_start(void)
{
	uint64_t start_ns = loop_now_ns(loop);

	for (int i = 0; i < STARTS; i++) {
		if (fiber_start(loop, do_nothing, NULL))
			abort();
		fiber_yield();
	}
	printf("start, run and end a fiber, and a yield                %8.1f ns\n", per(start_ns, STARTS));
}

/* ---- messages ---- */

static struct task ping, pong;
static int pings_left;

static void pinged(struct task *task)
{
	loop_send(loop, &pong);
}

static void ponged(struct task *task)
{
	if (--pings_left > 0)
		loop_send(reactor_loop(there), &ping);
	else
		fiber_wake(waiter);
}

static void bench_send(void)
{
	uint64_t start_ns = loop_now_ns(loop);

	waiter = fiber_self();
	ping.fn = pinged;
	pong.fn = ponged;
	pings_left = CALLS;
	loop_send(reactor_loop(there), &ping);
	while (pings_left > 0)
		fiber_park();
	printf("loop_send there and back, both awake                   %8.2f us\n", per(start_ns, CALLS) / 1000);
}

static int nothing(void *arg)
{
	return 0;
}

static void bench_call(void)
{
	uint64_t start_ns = loop_now_ns(loop), asleep_ns = 0;

	for (int i = 0; i < CALLS; i++)
		if (fiber_call_on(reactor_loop(there), nothing, NULL))
			abort();
	printf("fiber_call_on, both awake                              %8.2f us\n", per(start_ns, CALLS) / 1000);
	for (int i = 0; i < SLOW_CALLS; i++) {
		fiber_sleep_ns(2000000);
		start_ns = loop_now_ns(loop);
		if (fiber_call_on(reactor_loop(there), nothing, NULL))
			abort();
		asleep_ns += loop_now_ns(loop) - start_ns;
	}
	printf("fiber_call_on, the other asleep                        %8.2f us\n",
	       (double)asleep_ns / SLOW_CALLS / 1000);
}

/* ---- ring ---- */

struct nop {
	struct ring_op op;
};

static int nops_left;

static void nop_submit(struct nop *nop)
{
	io_uring_prep_nop(reactor_sqe(here, &nop->op));
}

static void nop_done(struct ring_op *op, int res, uint32_t cqe_flags)
{
	if (--nops_left >= NOP_DEPTH)
		nop_submit(container_of(op, struct nop, op));
	else if (nops_left == 0)
		fiber_wake(waiter);
}

static void bench_nops(void)
{
	static struct nop nops[NOP_DEPTH];
	uint64_t start_ns = loop_now_ns(loop);

	waiter = fiber_self();
	nops_left = NOPS;
	for (int i = 0; i < NOP_DEPTH; i++) {
		nops[i].op.done = nop_done;
		nop_submit(&nops[i]);
	}
	while (nops_left > 0)
		fiber_park();
	printf("ring operation (NOP), depth %d                         %8.1f ns\n", NOP_DEPTH, per(start_ns, NOPS));
}

/* ---- time ---- */

static void bench_sleep(uint64_t ns)
{
	uint64_t start_ns = loop_now_ns(loop);

	for (int i = 0; i < SLEEPS; i++)
		fiber_sleep_ns(ns);
	printf("fiber_sleep_ns(%7llu) takes                          %8.1f us\n", (unsigned long long)ns,
	       per(start_ns, SLEEPS) / 1000);
}

static void bench_idle(void)
{
	uint64_t used_ns = cpu_ns(CLOCK_PROCESS_CPUTIME_ID);

	fiber_sleep_ns(IDLE_NS);
	used_ns = cpu_ns(CLOCK_PROCESS_CPUTIME_ID) - used_ns;
	printf("CPU of two idle reactors                               %8.4f %%\n", (double)used_ns * 100 / IDLE_NS);
	used_ns = cpu_ns(CLOCK_PROCESS_CPUTIME_ID);
	for (int i = 0; i < 20; i++)
		fiber_sleep_ns(IDLE_NS / 20);
	used_ns = cpu_ns(CLOCK_PROCESS_CPUTIME_ID) - used_ns;
	printf("the same with a timer every 100 ms                     %8.4f %%\n", (double)used_ns * 100 / IDLE_NS);
}

static void bench_all(void *arg)
{
	bench_yield_alone();
	bench_yield_in_company();
	bench_start();
	bench_send();
	bench_call();
	bench_nops();
	bench_sleep(10000);
	bench_sleep(1000000);
	bench_idle();
	reactor_stop(there);
	reactor_stop(here);
}

static void *run_there(void *arg)
{
	reactor_run(there);
	return NULL;
}

static void find_cpus(int *first, int *last)
{
	cpu_set_t set;

	*first = *last = -1;
	if (sched_getaffinity(0, sizeof(set), &set))
		return;
	for (int cpu = 0; cpu < CPU_SETSIZE; cpu++) {
		if (!CPU_ISSET(cpu, &set))
			continue;
		*last = cpu;
		if (*first < 0)
			*first = cpu;
	}
}

int main(void)
{
	int first, last;
	pthread_t thread;
	struct err err;

	find_cpus(&first, &last);
	if (reactor_create(0, first, &here, &err) || reactor_create(1, last, &there, &err)) {
		fprintf(stderr, "%s\n", err.msg);
		return 1;
	}
	loop = reactor_loop(here);
	if (fiber_start(loop, bench_all, NULL) || pthread_create(&thread, NULL, run_there, NULL))
		return 1;
	reactor_run(here);
	pthread_join(thread, NULL);
	reactor_destroy(here);
	reactor_destroy(there);
	return 0;
}
