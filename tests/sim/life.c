/* One life of the engine: open, examine, work, close. See world.h.
 *
 * Opening is tried again when a fault or a failed allocation may have been the reason, then without faults: only lasting
 * damage may keep a pool or a volume shut. */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "tests/sim/client.h"
#include "tests/sim/sim_mem.h"
#include "tests/sim/trace.h"
#include "tests/sim/world.h"

#define POOL_NAME "tank"
#define OPEN_TRIES 4

/* ---- faults ---- */

void world_set_faults(struct world *w, bool on)
{
	for (uint32_t i = 0; i < w->config.disks_max; i++)
		w->disk[i].faults_on = on && w->config.any_fault;
}

uint64_t world_faults_ever(const struct world *w, enum sim_fault fault)
{
	uint64_t sum = 0;

	for (uint32_t i = 0; i < w->config.disks_max; i++)
		sum += w->disk[i].faults[fault];
	return sum;
}

uint64_t world_faults(const struct world *w, enum sim_fault fault)
{
	return world_faults_ever(w, fault) - w->life_faults[fault];
}

void world_mark_faults(struct world *w)
{
	for (enum sim_fault f = 0; f < FAULT_COUNT; f++)
		w->life_faults[f] = world_faults_ever(w, f);
}

bool world_note_damage(struct world *w)
{
	if (w->config.within)
		return false;
	if (world_faults_ever(w, FAULT_MISDIRECTED_WRITE) || world_faults_ever(w, FAULT_PHANTOM_WRITE) ||
	    world_faults_ever(w, FAULT_BIT_ROT))
		w->damaged = true;
	return w->damaged;
}

static bool fault_since(const struct world *w, uint64_t since)
{
	for (uint32_t i = 0; i < w->config.disks_max; i++) {
		if (w->disk[i].last_fault >= since && w->disk[i].last_fault > 0)
			return true;
	}
	return false;
}

bool world_excuses(struct world *w, int error, uint64_t since)
{
	(void)world_note_damage(w);
	if ((w->memory_failed || sim_mem_has_failed()) && (error == -ENOMEM || error == -EIO))
		return true;
	if (w->config.within || (error != -EIO && !w->damaged))
		return false;
	/* After a write that failed the log is closed until the next opening. */
	if (w->damaged || world_faults(w, FAULT_WRITE_EIO) || world_faults(w, FAULT_FLUSH_EIO))
		return true;
	return fault_since(w, since);
}

enum model_after world_after_kill(const struct world *w, enum model_after good)
{
	if (world_faults(w, FAULT_FLUSH_EIO) && !w->config.within)
		return AFTER_LOSS;
	if ((world_faults(w, FAULT_WRITE_EIO) && !w->config.within) || w->memory_failed)
		return AFTER_KILL;
	return good;
}

/* ---- opening ---- */

static void close_disks(struct disk **disks, uint32_t count)
{
	for (uint32_t i = 0; i < count; i++)
		disk_close(disks[i]);
}

static int open_disks(struct world *w, struct disk **disks, uint32_t count)
{
	for (uint32_t i = 0; i < count; i++) {
		disks[i] = sim_disk_open(&w->disk[i]);
		if (!disks[i]) {
			close_disks(disks, i);
			return -ENOMEM;
		}
	}
	return 0;
}

static int import_some(struct world *w, uint32_t count, bool without_bad, struct err *err)
{
	struct disk *disks[SIM_DISKS_MAX];
	int rc = open_disks(w, disks, count);

	if (rc < 0)
		return err_set(err, rc, "no memory for disks");
	if (without_bad) {
		disk_close(disks[w->config.bad_disk]);
		disks[w->config.bad_disk] = disks[--count];
	}
	rc = pool_import(disks, count, &w->pool, err);
	if (rc < 0)
		close_disks(disks, count);
	return rc;
}

/* Without the bad disk if it is absent, or if it spoils the import: it may have no label any more. */
static int import_pool(struct world *w, uint32_t count, struct err *err)
{
	bool may_miss = w->config.within && count > 1 && w->volumes > 0 && w->pending.op != MANAGE_ADD_DISK;
	int rc = import_some(w, count, may_miss && w->absent, err);

	return rc < 0 && rc != -ENOMEM && may_miss && !w->absent ? import_some(w, count, true, err) : rc;
}

static int create_pool(struct world *w, struct err *err)
{
	struct pool_create_opts opts = { .name = POOL_NAME, .zone_bytes = w->config.zone_bytes, .force = true };
	struct disk *disks[SIM_DISKS_MAX];
	int rc = open_disks(w, disks, w->disks);

	if (rc < 0)
		return err_set(err, rc, "no memory for disks");
	rc = pool_create(&opts, disks, w->disks, &w->pool, err);
	if (rc < 0)
		close_disks(disks, w->disks);
	else
		w->pool_exists = true;
	return rc;
}

/* An interrupted add of a disk: the pool has the new one, perhaps as a missing one, or refuses it. */
static int import_either(struct world *w, struct err *err)
{
	int rc = w->pending.op == MANAGE_ADD_DISK ? import_pool(w, w->disks + 1, err) : -EINVAL;
	struct pool_info info;

	if (rc < 0)
		rc = import_pool(w, w->disks, err);
	if (rc < 0 || w->probe)
		return rc;
	pool_get_info(w->pool, &info);
	if (w->pending.op == MANAGE_ADD_DISK && info.disk_count == w->disks + 1) {
		w->disks++;
		w->pending = (struct pending){ 0 };
	}
	return rc;
}

static int open_pool(struct world *w, struct err *err)
{
	int rc;

	if (w->pool_exists)
		return import_either(w, err);
	rc = import_pool(w, w->disks, err); /* pool_create was interrupted: there is a pool or not */
	w->pool_exists = rc == 0 && !w->probe;
	return rc < 0 && !w->probe && rc != -ENOMEM ? create_pool(w, err) : rc;
}

static int open_volumes(struct world *w, struct err *err)
{
	static struct loop *loops[SIM_LOOPS_MAX];
	struct volumes_opts opts = { .loops = loops,
				     .loop_count = env_loop_count(),
				     .map_cache_bytes = w->config.map_cache_bytes,
				     .overlay_entries_max = w->config.overlay_entries_max,
				     .checkpoint_log_bytes = w->config.checkpoint_log_bytes };

	for (uint32_t i = 0; i < opts.loop_count; i++)
		loops[i] = env_loop(i);
	return volumes_open(w->pool, &opts, &w->vols, err);
}

/* Images are opened by the names found: a rename may have happened in a life that is only probed. */
static int open_handles(struct world *w, struct err *err)
{
	struct sim_volume *sv;
	int first = 0;

	for (uint32_t i = 0; (sv = world_image(w, i)); i++) {
		int rc = sv->size_found > 0 ? volume_open(w->vols, sv->name_found, &sv->handle, err) : 0;

		if (rc == 0 && sv->handle)
			manage_check_epoch(w, sv);
		if (rc == 0)
			continue;
		sv->handle = NULL;
		first = rc;
	}
	return first;
}

static void close_handles(struct world *w)
{
	struct sim_volume *sv;

	for (uint32_t i = 0; (sv = world_image(w, i)); i++) {
		if (sv->handle)
			volume_close(sv->handle);
		sv->handle = NULL;
	}
}

void life_close(struct world *w)
{
	close_handles(w);
	if (w->vols)
		volumes_close(w->vols);
	w->vols = NULL;
	if (w->pool)
		pool_close(w->pool);
	w->pool = NULL;
}

/* 1: open but for some volumes, which is for the caller to judge. */
static int open_once(struct world *w, struct err *err)
{
	int rc = open_pool(w, err);

	if (rc < 0) {
		w->pool = NULL;
		return rc;
	}
	rc = open_volumes(w, err);
	if (rc < 0) {
		w->vols = NULL;
		return rc;
	}
	if (!examine_directory(w))
		return err_set(err, -EIO, "the directory is not right");
	return open_handles(w, err) < 0 ? 1 : 0;
}

static void arm_troubles(struct world *w, uint32_t attempt)
{
	w->memory_failed = false;
	w->disk[w->config.bad_disk].dead = false;
	w->absent = attempt == 0 && rng_per_mille(&w->rng, w->config.absent_per_mille);
	world_mark_faults(w);
	world_set_faults(w, attempt == 0 && w->config.fail_recovery);
	if (attempt == 0 && w->config.fail_memory && rng_per_mille(&w->rng, 500))
		sim_mem_fail_nth(rng_log_range(&w->rng, 1, 1000));
}

/* Whether trouble was made; misleading reads may have cut a log. */
static bool disarm_troubles(struct world *w, uint64_t since)
{
	bool trouble = sim_mem_end_failing();

	world_set_faults(w, false);
	w->memory_failed |= trouble;
	w->counts->memory_failures += trouble;
	if (world_faults(w, FAULT_MISDIRECTED_READ) && fault_since(w, since) && !w->config.within)
		w->damaged = true;
	/* What a killed engine had written but not flushed may have gone with a cache. */
	if (world_faults(w, FAULT_FLUSH_EIO) && w->after == AFTER_KILL && !w->config.within)
		w->after = AFTER_LOSS;
	(void)world_note_damage(w);
	return trouble || fault_since(w, since);
}

/* Several disks may have failed one after the other: then the pool rightly says so. */
static bool beyond_redundancy(const struct world *w)
{
	return w->config.policy.m > 0 && w->config.any_fault && !w->config.within;
}

bool life_open(struct world *w)
{
	for (uint32_t attempt = 0; attempt < OPEN_TRIES; attempt++) {
		struct err err = { "" };
		uint64_t since = env_tick();
		bool trouble;
		int rc;

		arm_troubles(w, attempt);
		rc = open_once(w, &err);
		trouble = disarm_troubles(w, since);
		if (sim_failed())
			return false;
		if (rc == 0 || (rc == 1 && !trouble && w->damaged))
			return true;
		/* In a probe nothing makes a pool that was never finished. */
		if (w->probe && !w->pool_exists && !trouble)
			return false;
		if (!trouble && !w->damaged && !beyond_redundancy(w)) {
			sim_fail("the pool cannot be opened: error %d, %s", rc == 1 ? EIO : -rc, err.msg);
			return false;
		}
		life_close(w);
		w->lost = !trouble;
		if (w->lost)
			return false;
	}
	sim_fail("the pool cannot be opened, however often");
	return false;
}

/* ---- the last life's end ---- */

static bool examine_again(struct world *w)
{
	if (!life_open(w) || !examine_content(w))
		return false;
	w->after = AFTER_CLOSE;
	w->examined = true;
	return true;
}

/* With all volumes gone, all space is back. */
static bool empty_pool(struct world *w)
{
	struct pool_info info;

	close_handles(w);
	while (w->volumes > 0) {
		if (!manage_delete(w, w->volume[0]))
			return false;
	}
	pool_get_info(w->pool, &info);
	if (info.segments != 0 || info.zones_free != info.zones)
		sim_fail("all volumes are deleted, but %llu segments are left and %llu of %llu zones are free",
			 (unsigned long long)info.segments, (unsigned long long)info.zones_free,
			 (unsigned long long)info.zones);
	return !sim_failed();
}

static void last_acts(struct world *w)
{
	w->config.fail_memory = false;
	life_close(w);
	w->after = world_after_kill(w, AFTER_CLOSE);
	w->examined = false;
	world_set_faults(w, false);
	if (!examine_again(w))
		return;
	if (!w->damaged && (!manage_space_comes_back(w) || !empty_pool(w)))
		return;
	life_close(w);
	w->finished = true;
}

void life_fiber(void *arg)
{
	struct world *w = arg;
	bool open = life_open(w) && examine_content(w);

	if (open && !w->probe) {
		w->examined = true;
		w->after = AFTER_KILL;
		w->life_worked = true;
		world_set_faults(w, true);
		manage_work(w);
		world_set_faults(w, false);
		if (w->life + 1 >= w->config.lives && !sim_failed())
			last_acts(w);
	}
	w->life_done = true;
}
