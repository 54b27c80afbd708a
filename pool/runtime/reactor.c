/* The reactor: one thread's loop on io_uring. See reactor.h.
 *
 * A turn: mailbox, timers, tasks, pollers; submit what they prepared (much of it in parts); run the completions. The ring defers all kernel work
 * to this thread (DEFER_TASKRUN), and tells by a flag in shared memory when there is some (TASKRUN_FLAG), so a turn that
 * has nothing to submit and nothing to reap makes no system call.
 *
 * Idle: after a turn without work the reactor spins for spin_ns, then arms its pollers and sleeps in the ring until a
 * completion, the next timer or the doorbell. spin_ns follows what idle times were lately: had the last one been covered
 * by spinning at most SPIN_NS_MAX, it grows to do so; had it not, it halves, down to none.
 *
 * Doorbell: an eventfd under a multishot poll. The poll reports every write, so the counter is never read. Going to sleep:
 * asleep = true, then look at mailbox and stop. Waking: push (or set stop), then look at asleep. All of it is sequentially
 * consistent: at least one side sees the other. */
#include "pool/runtime/reactor.h"

#include <assert.h>
#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/random.h>
#include <time.h>
#include <unistd.h>

#include "pool/base/mem.h"
#include "pool/runtime/fiber.h"
#include "pool/runtime/reactor_int.h"
#include "pool/runtime/valgrind.h"

#define SQ_ENTRIES 512
/* So many are submitted before the turn ends: the kernel starts them together, and the first should not wait for the last. */
#define SUBMIT_BATCH 8
#define CQ_ENTRIES 4096
#define REAP_BATCH 64
#define REAP_BATCHES_MAX (CQ_ENTRIES / REAP_BATCH)
#define SPIN_NS_MIN 4000
#define SPIN_NS_MAX 50000
/* While the kernel has no memory for a full queue. */
#define SUBMIT_TRIES_MAX 10000
#define SUBMIT_RETRY_NS 1000000

#define VALGRIND_NAP_NS 200000

#define NS_PER_S 1000000000ull

struct reactor *reactor_of(struct loop *loop)
{
	return container_of(loop, struct reactor, loop);
}

struct loop *reactor_loop(struct reactor *reactor)
{
	return &reactor->loop;
}

/* ---- environment ---- */

static uint64_t real_now_ns(struct loop *loop)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * NS_PER_S + (uint64_t)ts.tv_nsec;
}

static uint64_t real_wall_s(struct loop *loop)
{
	return (uint64_t)time(NULL);
}

static uint64_t real_random(struct loop *loop)
{
	struct reactor *reactor = reactor_of(loop);

	if (reactor->random_left == 0) {
		/* Up to 256 bytes come whole or not at all. */
		while (getrandom(reactor->random_pool, sizeof(reactor->random_pool), 0) < 0)
			assert(errno == EINTR);
		reactor->random_left = RANDOM_POOL_COUNT;
	}
	return reactor->random_pool[--reactor->random_left];
}

/* Async-signal-safe. */
static void ring_doorbell(struct reactor *reactor)
{
	uint64_t one = 1;
	ssize_t len = write(reactor->event_fd, &one, sizeof(one));

	assert(len == sizeof(one));
}

static void real_wake(struct loop *loop)
{
	struct reactor *reactor = reactor_of(loop);

	/* Pairs with the store in reactor_sleep. Of many senders one rings. */
	if (atomic_load(&reactor->asleep) && atomic_exchange(&reactor->asleep, false))
		ring_doorbell(reactor);
}

static const struct loop_ops real_ops = {
	.now_ns = real_now_ns,
	.wall_s = real_wall_s,
	.random = real_random,
	.wake = real_wake,
};

/* ---- ring ---- */

/* A submit failed: may it be tried again? Anything else is a bug of ours. */
static bool is_passing(int ret)
{
	return ret == -EAGAIN || ret == -EBUSY || ret == -EINTR;
}

static void submit_full_queue(struct reactor *reactor)
{
	const struct timespec pause = { .tv_nsec = SUBMIT_RETRY_NS };

	assert(reactor->enabled);
	for (int tries = 0; tries < SUBMIT_TRIES_MAX; tries++) {
		int ret = io_uring_submit(&reactor->ring);

		if (ret > 0)
			return;
		assert(is_passing(ret));
		nanosleep(&pause, NULL);
	}
	assert(!"the kernel takes no submissions");
}

struct io_uring_sqe *reactor_sqe(struct reactor *reactor, struct ring_op *op)
{
	struct io_uring_sqe *sqe;

	if (reactor->enabled && io_uring_sq_ready(&reactor->ring) >= SUBMIT_BATCH)
		(void)io_uring_submit(&reactor->ring); /* what it does not take goes later */
	while (!(sqe = io_uring_get_sqe(&reactor->ring)))
		submit_full_queue(reactor);
	io_uring_sqe_set_data(sqe, op);
	return sqe;
}

static void submit_prepared(struct reactor *reactor)
{
	int ret;

	if (io_uring_sq_ready(&reactor->ring) == 0)
		return;
	/* What does not go now goes with the next turn: the completions reaped in between make room. */
	ret = io_uring_submit_and_get_events(&reactor->ring);
	assert(ret >= 0 || is_passing(ret));
}

static void complete(const struct io_uring_cqe *cqe)
{
	struct ring_op *op = io_uring_cqe_get_data(cqe);

	/* Cancellations carry no op: what they cancel reports. */
	if (op)
		op->done(op, cqe->res, cqe->flags);
}

static uint32_t reap_completions(struct reactor *reactor)
{
	struct io_uring_cqe *cqes[REAP_BATCH];
	uint32_t reaped = 0, count;

	/* Peeking also runs deferred kernel work and fetches what overflowed the queue. */
	for (int batch = 0; batch < REAP_BATCHES_MAX; batch++) {
		count = io_uring_peek_batch_cqe(&reactor->ring, cqes, REAP_BATCH);
		for (uint32_t i = 0; i < count; i++)
			complete(cqes[i]);
		io_uring_cq_advance(&reactor->ring, count);
		reaped += count;
		if (count < REAP_BATCH)
			break;
	}
	return reaped;
}

/* Sleeps until there is a completion or a timer is due; submits too. */
static void wait_in_ring(struct reactor *reactor)
{
	uint64_t due_ns = loop_next_timer_ns(&reactor->loop), now_ns, left_ns;
	struct __kernel_timespec ts, *timeout = NULL;
	struct io_uring_cqe *cqe;
	int ret;

	if (due_ns != UINT64_MAX) {
		now_ns = loop_now_ns(&reactor->loop);
		left_ns = due_ns > now_ns ? due_ns - now_ns : 0;
		ts.tv_sec = (long long)(left_ns / NS_PER_S);
		ts.tv_nsec = (long long)(left_ns % NS_PER_S);
		timeout = &ts;
	}
	ret = io_uring_submit_and_wait_timeout(&reactor->ring, &cqe, 1, timeout, NULL);
	assert(ret >= 0 || ret == -ETIME || is_passing(ret));
}

/* Valgrind lets no other thread run during io_uring_enter: nap instead, the next turn submits and reaps. */
static void nap(void)
{
	const struct timespec ts = { .tv_nsec = VALGRIND_NAP_NS };

	nanosleep(&ts, NULL);
}

/* ---- doorbell ---- */

static void arm_doorbell(struct reactor *reactor)
{
	io_uring_prep_poll_multishot(reactor_sqe(reactor, &reactor->doorbell), reactor->event_fd, POLLIN);
}

static void doorbell_rang(struct ring_op *op, int res, uint32_t cqe_flags)
{
	if (!(cqe_flags & IORING_CQE_F_MORE))
		arm_doorbell(container_of(op, struct reactor, doorbell));
}

/* ---- rhythm ---- */

/* False: one of them has work. */
static bool arm_pollers(struct reactor *reactor)
{
	bool quiet = true;

	list_for_each(node, &reactor->loop.pollers) {
		struct poller *poller = list_entry(node, struct poller, node);

		if (poller->arm && poller->arm(poller))
			quiet = false;
	}
	return quiet;
}

static void disarm_pollers(struct reactor *reactor)
{
	list_for_each(node, &reactor->loop.pollers) {
		struct poller *poller = list_entry(node, struct poller, node);

		if (poller->disarm)
			poller->disarm(poller);
	}
}

static void reactor_sleep(struct reactor *reactor)
{
	if (arm_pollers(reactor)) {
		/* Pairs with the loads in real_wake and reactor_stop. */
		atomic_store(&reactor->asleep, true);
		if (RUNNING_ON_VALGRIND)
			nap();
		else if (!loop_has_ready(&reactor->loop) && !atomic_load(&reactor->stop))
			wait_in_ring(reactor);
		atomic_store(&reactor->asleep, false);
	}
	disarm_pollers(reactor);
}

static void idle_began_or_lasts(struct reactor *reactor)
{
	uint64_t now_ns = loop_now_ns(&reactor->loop);

	if (reactor->idle_since_ns == 0)
		reactor->idle_since_ns = now_ns;
	if (now_ns - reactor->idle_since_ns < reactor->spin_ns)
		__builtin_ia32_pause();
	else
		reactor_sleep(reactor);
}

static void idle_ended(struct reactor *reactor)
{
	uint64_t idle_ns = loop_now_ns(&reactor->loop) - reactor->idle_since_ns;

	reactor->idle_since_ns = 0;
	if (idle_ns <= SPIN_NS_MAX) {
		uint64_t enough_ns = idle_ns * 2 < SPIN_NS_MIN ? SPIN_NS_MIN : idle_ns * 2;

		if (enough_ns > SPIN_NS_MAX)
			enough_ns = SPIN_NS_MAX;
		if (reactor->spin_ns < enough_ns)
			reactor->spin_ns = enough_ns;
	} else {
		reactor->spin_ns = reactor->spin_ns / 2 < SPIN_NS_MIN ? 0 : reactor->spin_ns / 2;
	}
}

static uint32_t reactor_turn(struct reactor *reactor)
{
	uint32_t work = loop_turn(&reactor->loop) + loop_poll_all(&reactor->loop);

	submit_prepared(reactor);
	return work + reap_completions(reactor);
}

static void settle_on_thread(struct reactor *reactor)
{
	char name[16];

	if (reactor->cpu >= 0) {
		cpu_set_t set;

		CPU_ZERO(&set);
		CPU_SET(reactor->cpu, &set);
		/* reactor_create has checked it; should the CPU be gone by now, we run anywhere. */
		(void)pthread_setaffinity_np(pthread_self(), sizeof(set), &set);
	}
	if (gettid() != getpid()) {
		snprintf(name, sizeof(name), "reactor-%u", reactor->loop.index);
		pthread_setname_np(pthread_self(), name);
	}
	if (!reactor->enabled) {
		/* The ring's one issuer is who enables it. (io_uring_enable_rings is missing in liburing.so 2.3.) */
		int ret = io_uring_register((unsigned int)reactor->ring.ring_fd, IORING_REGISTER_ENABLE_RINGS, NULL, 0);

		assert(ret == 0);
		reactor->enabled = true;
		arm_doorbell(reactor);
	}
	/* Saves a look-up of the descriptor per system call; does without where it is unknown. */
	(void)io_uring_register_ring_fd(&reactor->ring);
}

void reactor_run(struct reactor *reactor)
{
	struct loop *previous = loop_enter(&reactor->loop);

	settle_on_thread(reactor);
	while (!atomic_load_explicit(&reactor->stop, memory_order_relaxed)) {
		if (reactor_turn(reactor) == 0)
			idle_began_or_lasts(reactor);
		else if (reactor->idle_since_ns > 0)
			idle_ended(reactor);
	}
	atomic_store(&reactor->stop, false);
	(void)io_uring_unregister_ring_fd(&reactor->ring);
	loop_enter(previous);
}

void reactor_stop(struct reactor *reactor)
{
	int saved_errno = errno;

	atomic_store(&reactor->stop, true);
	real_wake(&reactor->loop);
	errno = saved_errno;
}

/* ---- life ---- */

static int check_cpu(int cpu, struct err *err)
{
	cpu_set_t allowed;

	if (cpu < 0)
		return 0;
	if (sched_getaffinity(0, sizeof(allowed), &allowed))
		return err_set(err, -errno, "cannot read the allowed CPUs: %s", strerror(errno));
	if (cpu >= CPU_SETSIZE || !CPU_ISSET(cpu, &allowed))
		return err_set(err, -EINVAL, "cannot run on CPU %d: this process may not use it (see 'nproc')", cpu);
	return 0;
}

static int ring_error(int ret, struct err *err)
{
	const char *hint = "";

	if (ret == -ENOSYS || ret == -EINVAL)
		hint = " (Linux 6.1 or later is needed)";
	else if (ret == -EPERM)
		hint = " (see sysctl kernel.io_uring_disabled)";
	else if (ret == -ENOMEM)
		hint = " (see ulimit -l)";
	return err_set(err, ret, "cannot set up io_uring: %s%s", strerror(-ret), hint);
}

static int open_ring(struct reactor *reactor, struct err *err)
{
	struct io_uring_params params = {
		.flags = IORING_SETUP_R_DISABLED | IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN |
			 IORING_SETUP_TASKRUN_FLAG | IORING_SETUP_SUBMIT_ALL | IORING_SETUP_CQSIZE,
		.cq_entries = CQ_ENTRIES,
	};
	int ret = io_uring_queue_init_params(SQ_ENTRIES, &reactor->ring, &params);

	return ret ? ring_error(ret, err) : 0;
}

int reactor_create(uint32_t index, int cpu, struct reactor **out, struct err *err)
{
	struct reactor *reactor;
	int ret = check_cpu(cpu, err);

	if (ret)
		return ret;
	reactor = mem_alloc_aligned(_Alignof(struct reactor), sizeof(*reactor));
	if (!reactor)
		return err_set(err, -ENOMEM, "cannot create reactor %u: out of memory", index);
	memset(reactor, 0, sizeof(*reactor));
	reactor->cpu = cpu;
	reactor->doorbell.done = doorbell_rang;
	ret = open_ring(reactor, err);
	if (ret)
		goto free_reactor;
	reactor->event_fd = eventfd(0, EFD_CLOEXEC);
	if (reactor->event_fd < 0) {
		ret = err_set(err, -errno, "cannot create an eventfd: %s", strerror(errno));
		goto close_ring;
	}
	loop_init(&reactor->loop, &real_ops, index);
	offload_init(&reactor->offload);
	*out = reactor;
	return 0;

close_ring:
	io_uring_queue_exit(&reactor->ring);
free_reactor:
	mem_free(reactor);
	return ret;
}

void reactor_destroy(struct reactor *reactor)
{
	offload_fini(&reactor->offload);
	io_uring_queue_exit(&reactor->ring);
	close(reactor->event_fd);
	loop_fini(&reactor->loop);
	mem_free(reactor);
}

/* ---- blocking functions ---- */

struct offload_call {
	struct offload_job job;
	struct fiber *caller;
	bool done;
};

static void offload_done(struct task *task)
{
	struct offload_call *call = container_of(task, struct offload_call, job.done);

	call->done = true;
	fiber_wake(call->caller);
}

int reactor_offload(int (*fn)(void *arg), void *arg)
{
	struct loop *loop = loop_self();
	struct offload_call call = {
		.job = { .fn = fn, .arg = arg, .loop = loop, .done.fn = offload_done },
		.caller = fiber_self(),
	};
	int ret;

	assert(call.caller);
	ret = offload_submit(&reactor_of(loop)->offload, &call.job);
	if (ret)
		return ret;
	while (!call.done)
		fiber_park();
	return call.job.res;
}
