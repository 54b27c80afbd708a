/* Virtual time, events and loops. See sim_env.h.
 *
 * Events lie in a binary heap ordered by (due, order of their making), so equal times have one order. */
#include "tests/sim/sim_env.h"

#include <stdlib.h>
#include <string.h>

#include "tests/sim/trace.h"

#define STEPS_PER_LIFE_MAX 1000000ull
#define NS_PER_LIFE_MAX (30ull * 3600 * 1000000000)
#define TURN_NS_MIN 200
#define TURN_NS_MAX 3000
#define STALLS_PER_MILLE 60
#define WALL_S_START 1700000000ull

static struct {
	struct rng schedule, engine; /* what runs next; what the engine asks for */
	uint64_t now_ns, tick, made;
	struct loop loops[SIM_LOOPS_MAX];
	uint32_t loop_count;
	struct sim_event **heap; /* 0-based */
	uint32_t events, event_cap;
	uint64_t life_start_ns, steps, disk_events, crash_in;
	bool crash;
	uint64_t stall_ns_max, stalled_until_ns[SIM_LOOPS_MAX];
} env;

/* ---- what the engine sees ---- */

static uint64_t sim_now_ns(struct loop *loop)
{
	return env.now_ns;
}

static uint64_t sim_wall_s(struct loop *loop)
{
	return WALL_S_START + env.now_ns / 1000000000ull;
}

static uint64_t sim_random(struct loop *loop)
{
	return rng_next(&env.engine);
}

/* Nobody sleeps here: env_run looks into every mailbox. */
static void sim_wake(struct loop *loop)
{
}

static const struct loop_ops sim_loop_ops = {
	.now_ns = sim_now_ns,
	.wall_s = sim_wall_s,
	.random = sim_random,
	.wake = sim_wake,
};

/* ---- lives ---- */

void env_reset(uint64_t seed)
{
	rng_seed(&env.schedule, seed, 1);
	rng_seed(&env.engine, seed, 2);
	env.now_ns = 1000000;
	env.tick = 0;
	env.made = 0;
	env.events = 0;
	env.loop_count = 0;
}

void env_begin_life(uint32_t loop_count, uint64_t stall_ns_max)
{
	env.loop_count = loop_count;
	env.stall_ns_max = stall_ns_max;
	memset(env.stalled_until_ns, 0, sizeof(env.stalled_until_ns));
	env.life_start_ns = env.now_ns;
	env.steps = env.disk_events = env.crash_in = 0;
	env.crash = false;
	for (uint32_t i = 0; i < loop_count; i++)
		loop_init(&env.loops[i], &sim_loop_ops, i);
}

void env_drop_life(void)
{
	env.loop_count = 0;
	env.events = 0;
	env.crash_in = 0;
	env.crash = false;
}

void env_end_life(void)
{
	for (uint32_t i = 0; i < env.loop_count; i++) {
		struct loop *previous = loop_enter(&env.loops[i]);

		loop_fini(&env.loops[i]);
		loop_enter(previous);
	}
	env_drop_life();
}

struct loop *env_loop(uint32_t index)
{
	return &env.loops[index];
}

uint32_t env_loop_count(void)
{
	return env.loop_count;
}

uint64_t env_now_ns(void)
{
	return env.now_ns;
}

uint64_t env_tick(void)
{
	return ++env.tick;
}

/* ---- events ---- */

static bool event_before(const struct sim_event *a, const struct sim_event *b)
{
	return a->due_ns != b->due_ns ? a->due_ns < b->due_ns : a->order < b->order;
}

static void heap_push(struct sim_event *event)
{
	uint32_t pos = env.events++;

	for (; pos > 0 && event_before(event, env.heap[(pos - 1) / 2]); pos = (pos - 1) / 2)
		env.heap[pos] = env.heap[(pos - 1) / 2];
	env.heap[pos] = event;
}

static struct sim_event *heap_pop(void)
{
	struct sim_event *top = env.heap[0], *last = env.heap[--env.events];
	uint32_t pos = 0, child;

	for (; (child = 2 * pos + 1) < env.events; pos = child) {
		if (child + 1 < env.events && event_before(env.heap[child + 1], env.heap[child]))
			child++;
		if (!event_before(env.heap[child], last))
			break;
		env.heap[pos] = env.heap[child];
	}
	env.heap[pos] = last;
	return top;
}

void env_after(struct sim_event *event, uint64_t delay_ns, void (*fn)(struct sim_event *event))
{
	if (env.events == env.event_cap) {
		env.event_cap = env.event_cap ? env.event_cap * 2 : 256;
		env.heap = realloc(env.heap, env.event_cap * sizeof(struct sim_event *));
		if (!env.heap)
			abort();
	}
	event->due_ns = env.now_ns + delay_ns;
	event->order = env.made++;
	event->fn = fn;
	heap_push(event);
}

/* ---- crashes ---- */

void env_crash_after(uint64_t disk_events)
{
	env.crash_in = disk_events;
}

bool env_crash_ordered(void)
{
	return env.crash_in > 0 || env.crash;
}

void env_count_disk_event(void)
{
	env.disk_events++;
	if (env.crash_in > 0 && --env.crash_in == 0)
		env.crash = true;
}

uint64_t env_disk_events(void)
{
	return env.disk_events;
}

/* ---- running ---- */

/* When the loop has something to do and runs, UINT64_MAX: not before an event. */
static uint64_t next_turn_ns(uint32_t i)
{
	const struct loop *loop = &env.loops[i];
	uint64_t next_ns = loop_has_ready(loop) ? env.now_ns : loop_next_timer_ns(loop);

	return next_ns > env.stalled_until_ns[i] ? next_ns : env.stalled_until_ns[i];
}

/* Its thread does not get to run for a while. */
static bool stalls(uint32_t i)
{
	if (env.stall_ns_max == 0 || !rng_per_mille(&env.schedule, STALLS_PER_MILLE))
		return false;
	env.stalled_until_ns[i] = env.now_ns + rng_range(&env.schedule, env.stall_ns_max / 8, env.stall_ns_max);
	return true;
}

static bool turn_some_loop(void)
{
	uint32_t with_work[SIM_LOOPS_MAX], n = 0, chosen;
	struct loop *previous;

	for (uint32_t i = 0; i < env.loop_count; i++) {
		if (next_turn_ns(i) <= env.now_ns)
			with_work[n++] = i;
	}
	if (n == 0)
		return false;
	chosen = with_work[n > 1 ? rng_below(&env.schedule, n) : 0];
	if (stalls(chosen))
		return true;
	previous = loop_enter(&env.loops[chosen]);
	trace_hash(chosen);
	loop_turn(&env.loops[chosen]);
	loop_enter(previous);
	env.now_ns += rng_range(&env.schedule, TURN_NS_MIN, TURN_NS_MAX);
	return true;
}

static bool fire_due_event(void)
{
	struct sim_event *event;

	if (env.events == 0 || env.heap[0]->due_ns > env.now_ns)
		return false;
	event = heap_pop();
	event->fn(event);
	return true;
}

/* To the next event or timer; false if there is none. */
static bool skip_time(void)
{
	uint64_t next_ns = env.events > 0 ? env.heap[0]->due_ns : UINT64_MAX;

	for (uint32_t i = 0; i < env.loop_count; i++) {
		if (next_turn_ns(i) < next_ns)
			next_ns = next_turn_ns(i);
	}
	if (next_ns == UINT64_MAX)
		return false;
	if (next_ns > env.now_ns)
		env.now_ns = next_ns;
	return true;
}

enum env_end env_run(const bool *done)
{
	for (;;) {
		if (sim_failed())
			return ENV_FAILED;
		if (env.crash)
			return ENV_CRASHED;
		if (*done)
			return ENV_DONE;
		if (++env.steps > STEPS_PER_LIFE_MAX || env.now_ns - env.life_start_ns > NS_PER_LIFE_MAX)
			return ENV_ENDLESS;
		trace_time(env.now_ns);
		if (!fire_due_event() && !turn_some_loop() && !skip_time())
			return ENV_IDLE;
	}
}
