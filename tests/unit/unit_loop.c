/* A loop in virtual time for unit tests: see unit_loop.h. */
#include "tests/unit/unit_loop.h"

#include "pool/runtime/fiber.h"
#include "tests/unit/unit.h"

static uint64_t unit_now_ns(struct loop *loop)
{
	return container_of(loop, struct unit_loop, loop)->now_ns;
}

static uint64_t unit_wall_s(struct loop *loop)
{
	return unit_now_ns(loop) / 1000000000;
}

static uint64_t unit_random(struct loop *loop)
{
	struct unit_loop *u = container_of(loop, struct unit_loop, loop);

	u->random = u->random * 6364136223846793005ull + 1442695040888963407ull;
	return u->random ^ u->random >> 29;
}

static void unit_wake(struct loop *loop)
{
	__atomic_add_fetch(&container_of(loop, struct unit_loop, loop)->wakes, 1, __ATOMIC_RELAXED);
}

static const struct loop_ops unit_ops = {
	.now_ns = unit_now_ns,
	.wall_s = unit_wall_s,
	.random = unit_random,
	.wake = unit_wake,
};

void unit_loop_init(struct unit_loop *u)
{
	u->now_ns = 1000;
	u->wakes = 0;
	u->random = 1;
	loop_init(&u->loop, &unit_ops, 0);
	u->previous = loop_enter(&u->loop);
}

void unit_loop_fini(struct unit_loop *u)
{
	loop_enter(u->previous);
	/* A test that failed has left its fibers and tasks behind: then leave the rest too. */
	if (u->loop.fibers_live == 0 && !loop_has_ready(&u->loop))
		loop_fini(&u->loop);
}

void unit_loop_run(struct unit_loop *u)
{
	for (;;) {
		uint64_t due_ns;

		while (loop_turn(&u->loop) > 0 || loop_has_ready(&u->loop))
			;
		due_ns = loop_next_timer_ns(&u->loop);
		if (due_ns == UINT64_MAX)
			return;
		assert_true(due_ns > u->now_ns);
		u->now_ns = due_ns;
	}
}

void unit_loop_start_fiber(struct unit_loop *u, void (*fn)(void *arg), void *arg)
{
	assert_int_equal(fiber_start(&u->loop, fn, arg), 0);
	unit_loop_run(u);
}

struct job {
	void (*fn)(void *arg);
	void *arg;
	bool ended;
};

static void job_fiber(void *arg)
{
	struct job *job = arg;

	job->fn(job->arg);
	job->ended = true;
}

void unit_loop_run_fiber(struct unit_loop *u, void (*fn)(void *arg), void *arg)
{
	struct job job = { fn, arg, false };

	unit_loop_start_fiber(u, job_fiber, &job);
	assert_true(job.ended); /* else it waits for ever */
}
