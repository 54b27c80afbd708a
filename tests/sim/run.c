/* Runs one seed: lives and crashes in turn. See world.h.
 *
 * At a crash several outcomes of the disks' open writes are tried: each one is settled, recovered from (perhaps crashing
 * again on the way, three deep) and examined, and then taken back. The last outcome stays, and the next life goes on
 * from it; that one may crash while opening, too, so what it comes after adds up until it has examined what it found. */
#include <stdio.h>
#include <string.h>

#include "tests/sim/client.h"
#include "tests/sim/sim_mem.h"
#include "tests/sim/trace.h"
#include "tests/sim/world.h"

#define NESTED_MAX 3u
#define CRASHES_MAX 12u /* of a seed, those in openings included */

static void world_init(struct world *w, uint64_t seed, uint32_t ops, struct counts *counts)
{
	memset(w, 0, sizeof(*w));
	config_draw(&w->config, seed, ops);
	w->counts = counts;
	rng_seed(&w->rng, seed, 3);
	w->disks = w->config.disks;
	w->after = AFTER_CLOSE;
	for (uint32_t i = 0; i < w->config.disks_max; i++)
		sim_disk_init(&w->disk[i], i, &w->config.disk[i], seed);
	model_init(&w->model, env_tick, w->config.lasting);
}

static void world_release(struct world *w)
{
	for (uint32_t i = 0; i < w->config.disks_max; i++) {
		for (enum sim_fault f = 0; f < FAULT_COUNT; f++)
			w->counts->faults += w->disk[i].faults[f];
		sim_disk_release(&w->disk[i]);
	}
	world_forget_made(w);
	while (w->volumes > 0)
		world_remove(w, w->volume[0]);
	model_release(&w->model);
}

/* ---- one life ---- */

static void forget_handles(struct sim_volume *sv)
{
	if (sv->client)
		client_free(sv->client);
	sv->client = NULL;
	sv->handle = NULL;
}

/* The engine is gone from one instant to the next. */
static void drop_engine(struct world *w)
{
	struct sim_volume *sv;

	for (uint32_t i = 0; (sv = world_image(w, i)); i++)
		forget_handles(sv);
	w->pool = NULL;
	w->vols = NULL;
	env_drop_life();
	sim_mem_drop_all();
}

static void fail_end(enum env_end end)
{
	if (end == ENV_IDLE)
		sim_fail("stuck: nothing is ready, nothing will ever happen, and the life is not over");
	else if (end == ENV_ENDLESS)
		sim_fail("the life does not end: too many steps or too much time");
}

/* How the life ended; ENV_FAILED also for what must not happen. */
static enum env_end run_life(struct world *w, uint64_t crash_after)
{
	enum env_end end;

	env_begin_life(w->config.loops, w->config.stall_ns_max);
	env_crash_after(crash_after);
	w->life_done = w->life_worked = false;
	w->counts->recoveries++;
	world_mark_faults(w);
	w->memory_failed = false;
	trace(TRACE_LIFE, w->life, w->config.loops, w->disks, crash_after);
	if (fiber_start(env_loop(0), life_fiber, w) < 0)
		sim_fail("no memory for the first fiber");
	end = env_run(&w->life_done);
	fail_end(end);
	return sim_failed() ? ENV_FAILED : end;
}

/* ---- crashes ---- */

/* What an opening comes after when it had come after `before` and `now` happened before it had settled anything. */
static enum model_after add_up(enum model_after before, enum model_after now)
{
	if (before == AFTER_CLOSE || before == AFTER_POWER)
		return before;
	if (now == AFTER_POWER)
		return now;
	return before == AFTER_LOSS ? before : now;
}

static void crash_disks(struct world *w, struct crash_set *set)
{
	enum crash_kind kind = rng_per_mille(&w->rng, w->config.power_per_mille) ? CRASH_POWER : CRASH_KILL;
	enum model_after now = kind == CRASH_POWER ? AFTER_POWER : world_after_kill(w, AFTER_KILL);

	/* A lie comes out when the power goes. */
	for (uint32_t i = 0; i < w->config.disks_max && kind == CRASH_POWER; i++)
		w->damaged |= w->disk[i].faults[FAULT_LYING_FLUSH] > 0;
	w->after = w->examined ? now : add_up(w->after, now);
	w->examined = false;
	world_end_cut(w);
	drop_engine(w);
	world_set_faults(w, false);
	crash_take(set, kind, w->disk, w->config.disks_max);
	w->counts->crashes++;
}

/* All of them, once in a seed, if they are few enough. */
static bool is_exhaustive(const struct world *w, const struct crash_set *set)
{
	return !w->exhausted && !w->probe && set->count > 1 && set->count <= w->config.exhaustive_max;
}

static uint32_t outcomes_of(const struct world *w, const struct crash_set *set)
{
	if (is_exhaustive(w, set))
		return 1u << set->count;
	return set->count > 0 ? w->config.outcomes : 1;
}

static void settle(struct world *w, const struct crash_set *set, uint32_t outcome)
{
	enum settle_way way = (enum settle_way)rng_below(&w->rng, SETTLE_WAYS);
	uint64_t mask = rng_next(&w->rng);

	if (is_exhaustive(w, set)) {
		way = SETTLE_MASK;
		mask = outcome;
	} else if (way == SETTLE_MASK) {
		way = SETTLE_RANDOM;
	}
	trace(TRACE_OUTCOME, outcome, way, mask, set->count);
	crash_settle(set, way, mask, &w->rng);
	w->counts->states++;
}

static uint64_t draw_nested(struct world *w)
{
	return rng_per_mille(&w->rng, w->config.nested_per_mille) ? rng_log_range(&w->rng, 1, 300) : 0;
}

/* Recovers from the settled outcome and examines it; crashes in between settle at random. */
static void probe(struct world *w)
{
	enum model_after after = w->after;
	bool damaged = w->damaged, lost = w->lost;

	w->probe = true;
	for (uint32_t depth = 0; depth <= NESTED_MAX; depth++) {
		struct crash_set set;

		if (run_life(w, depth < NESTED_MAX ? draw_nested(w) : 0) != ENV_CRASHED)
			break;
		w->counts->nested++;
		crash_disks(w, &set);
		settle(w, &set, depth);
		crash_set_release(&set);
	}
	drop_engine(w);
	w->probe = false;
	w->after = after;
	w->examined = false;
	w->damaged = damaged;
	w->lost = lost;
}

static void crash(struct world *w)
{
	struct crash_set set;
	uint32_t outcomes;
	uint64_t events = env_disk_events();

	crash_disks(w, &set);
	outcomes = outcomes_of(w, &set);
	trace(TRACE_CRASH, set.kind, events, set.count, outcomes);
	for (uint32_t i = 0; i + 1 < outcomes && !sim_failed(); i++) {
		struct crash_save save;

		crash_save(&save, w->disk, w->config.disks_max);
		settle(w, &set, i);
		probe(w);
		crash_restore(&save, w->disk, w->config.disks_max);
	}
	if (!sim_failed())
		settle(w, &set, outcomes - 1);
	w->exhausted |= is_exhaustive(w, &set);
	crash_set_release(&set);
}

/* ---- the seed ---- */

/* Disk events until the next crash: somewhere in the life's work, or early, in its opening. */
static uint64_t draw_crash(struct world *w, uint32_t crashes)
{
	uint64_t work = 3ull * w->config.ops / w->config.lives + 100;

	if (w->life + 1 >= w->config.lives || crashes >= CRASHES_MAX)
		return 0;
	return rng_per_mille(&w->rng, 150) ? draw_nested(w) : rng_range(&w->rng, 20, work);
}

static void end_well(struct world *w)
{
	if (w->lost) {
		w->counts->lost++;
		drop_engine(w);
		return;
	}
	env_end_life();
	if (sim_mem_held() > 0)
		sim_fail("%llu allocations are left after everything was closed", (unsigned long long)sim_mem_held());
	sim_mem_drop_all();
}

static void run_lives(struct world *w)
{
	for (uint32_t crashes = 0; !sim_failed();) {
		enum env_end end = run_life(w, draw_crash(w, crashes));

		if (end == ENV_FAILED)
			return;
		if (end == ENV_DONE && (w->finished || w->lost)) {
			end_well(w);
			return;
		}
		w->life += w->life_worked;
		crash(w);
		crashes++;
	}
}

bool run_seed(uint64_t seed, uint32_t ops, bool verbose, struct counts *counts, uint64_t *hash)
{
	static struct world world;

	trace_start(seed, verbose);
	env_reset(seed);
	world_init(&world, seed, ops, counts);
	if (verbose)
		config_print(&world.config);
	run_lives(&world);
	if (sim_failed())
		drop_engine(&world);
	world_release(&world);
	counts->seeds++;
	counts->failures += sim_failed();
	*hash = trace_result();
	return !sim_failed();
}
