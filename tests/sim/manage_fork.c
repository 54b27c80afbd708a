/* The manager's operations on snapshots and clones, while clients write to their origins. See world.h. */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "tests/sim/client.h"
#include "tests/sim/trace.h"
#include "tests/sim/world.h"

#define CLONE_REQUESTS 10u
#define RECLAIM_TURNS 200u
#define RECLAIM_WAIT_NS 1000000ull
/* Zones that a volume may hold with nothing in it. */
#define EMPTY_ZONES 8u

/* ---- snapshots ---- */

static bool is_chosen(const struct world *w, const struct sim_volume *sv)
{
	for (uint32_t i = 0; i < w->pending.made_count; i++) {
		if (w->pending.origin[i] == sv)
			return true;
	}
	return false;
}

/* One volume, or several. */
static void choose_origins(struct world *w)
{
	struct pending *p = &w->pending;
	bool one = rng_per_mille(&w->rng, w->config.linked ? 200 : 500);
	uint32_t wanted = one ? 1 : (uint32_t)rng_range(&w->rng, 2, MODEL_CUT_MAX);

	for (uint32_t i = 0; i < wanted && w->snapshots + p->made_count < w->config.snapshots_max; i++) {
		struct sim_volume *sv = w->volume[rng_below(&w->rng, w->volumes)];

		if (!sv->known || is_chosen(w, sv))
			continue;
		p->origin[p->made_count] = sv;
		p->made[p->made_count++] = sim_volume_fork(w, sv, sv);
	}
}

void manage_snapshot(struct world *w)
{
	char text[MODEL_CUT_MAX][VOLUME_NAME_BYTES];
	const char *names[MODEL_CUT_MAX];
	struct pending *p = &w->pending;
	struct err err = { "" };
	bool verify = rng_per_mille(&w->rng, 500);
	uint32_t count;
	uint64_t since;

	choose_origins(w);
	count = p->made_count;
	if (count == 0) {
		if (w->snapshots > 0)
			manage_delete(w, w->snapshot[rng_below(&w->rng, w->snapshots)]);
		return;
	}
	for (uint32_t i = 0; i < count; i++) {
		sim_volume_name(p->made[i], text[i]);
		names[i] = text[i];
	}
	since = manage_begin(w, MANAGE_SNAPSHOT, NULL, p->made[0]->model->number);
	world_begin_cut(w);
	if (!manage_end(w, volume_snapshot(w->vols, names, count, &err), since, &err))
		return;
	world_add_made(w);
	for (uint32_t i = w->snapshots - count; i < w->snapshots && verify; i++)
		manage_verify(w, w->snapshot[i]);
}

void manage_verify(struct world *w, struct sim_volume *snapshot)
{
	char name[VOLUME_NAME_BYTES];
	struct err err = { "" };
	int rc;

	sim_volume_name(snapshot, name);
	trace(TRACE_MANAGE, MANAGE_VERIFY, snapshot->model->number, 0, 0);
	rc = volume_open(w->vols, name, &snapshot->handle, &err);
	if (rc < 0) {
		snapshot->handle = NULL;
		if (!world_excuses(w, rc, env_tick()))
			sim_fail("snapshot %s cannot be opened: %s", name, err.msg);
		return;
	}
	(void)examine_image(w, snapshot);
	volume_close(snapshot->handle);
	snapshot->handle = NULL;
}

/* Its content must be known before it becomes that of something else. */
static bool is_known(struct world *w, struct sim_volume *snapshot)
{
	if (!snapshot->known)
		manage_verify(w, snapshot);
	return snapshot->known && !sim_failed();
}

/* ---- clones ---- */

static struct sim_volume *draw_clone_origin(struct world *w)
{
	if (w->snapshots > 0 && rng_per_mille(&w->rng, 600))
		return w->snapshot[rng_below(&w->rng, w->snapshots)];
	return w->volume[rng_below(&w->rng, w->volumes)];
}

void manage_clone(struct world *w)
{
	struct sim_volume *origin = draw_clone_origin(w), *sv;
	char name[VOLUME_NAME_BYTES];
	struct err err = { "" };
	uint64_t since;

	if (w->volumes >= w->config.volumes_max) {
		manage_delete(w, w->volume[rng_below(&w->rng, w->volumes)]);
		return;
	}
	if (origin->of ? !is_known(w, origin) : !origin->known)
		return;
	sim_volume_name(origin, name);
	sv = sim_volume_fork(w, origin, NULL);
	w->pending.made[0] = sv;
	w->pending.origin[0] = origin;
	w->pending.made_count = 1;
	since = manage_begin(w, MANAGE_CLONE, sv, origin->model->number);
	if (!sv->known)
		world_begin_cut(w);
	if (!manage_end(w, volume_clone(w->vols, name, sv->name, &err), since, &err))
		return;
	world_add_made(w);
	sv->left = CLONE_REQUESTS;
	manage_reopen_volume(w, sv);
}

/* ---- rollback ---- */

static bool is_there(const struct world *w, const struct sim_volume *snapshot)
{
	for (uint32_t i = 0; i < w->snapshots; i++) {
		if (w->snapshot[i] == snapshot)
			return true;
	}
	return false;
}

void manage_rollback(struct world *w, struct sim_volume *snapshot)
{
	struct sim_volume *sv = snapshot->of;
	char name[VOLUME_NAME_BYTES];
	struct err err = { "" };
	uint64_t since;

	if (!sv->known || !is_known(w, snapshot) || !manage_close_volume(w, sv))
		return;
	if (is_there(w, snapshot)) { /* unless it had to go to make room */
		sim_volume_name(snapshot, name);
		w->pending.size_sectors = snapshot->model->size_sectors;
		w->pending.snapshot = snapshot;
		sv->epoch_max++;
		since = manage_begin(w, MANAGE_ROLLBACK, sv, snapshot->model->number);
		if (manage_end(w, volume_rollback(w->vols, name, &err), since, &err))
			world_rolled_back(w, sv, snapshot);
	}
	if (!w->manage_stopped)
		manage_reopen_volume(w, sv);
}

/* ---- space ---- */

static bool delete_all_but(struct world *w, struct sim_volume *kept)
{
	while (w->snapshots + w->volumes > 1) {
		struct sim_volume *sv = world_image(w, (uint32_t)rng_below(&w->rng, w->snapshots + w->volumes));

		if (sv != kept && !manage_delete(w, sv))
			return false;
	}
	return true;
}

/* Also what a shrink that failed half-way has left beyond the end: the same size again finishes it. */
static void discard_all(struct world *w, struct sim_volume *sv)
{
	struct err err = { "" };
	int rc = volume_resize(w->vols, sv->name, sv->model->size_sectors * SECTOR_BYTES, &err);

	if (rc < 0 && !world_excuses(w, rc, env_tick()))
		sim_fail("a shrink cannot be finished: error %d, %s", -rc, err.msg);
	manage_start_client(w, sv);
	client_discard_all(sv->client);
	(void)manage_close_volume(w, sv);
}

/* Nothing is left to come back. False: failed, or a fault excuses that it cannot. */
static bool wait_for_reclaim(struct world *w, const struct sim_volume *sv)
{
	uint64_t images = 1, blocks = 0, since = env_tick();
	struct err err = { "" };

	for (uint32_t turn = 0; turn < RECLAIM_TURNS && images > 0; turn++) {
		int rc = volume_checkpoint(w->vols, sv->name, &err);

		if (rc == 0)
			rc = volumes_get_reclaim(w->vols, &images, &blocks);
		if (rc < 0 && world_excuses(w, rc, since))
			return false;
		if (rc < 0)
			sim_fail("space cannot be reclaimed: error %d, %s", -rc, err.msg);
		fiber_sleep_ns(RECLAIM_WAIT_NS);
	}
	if (images > 0)
		sim_fail("%llu deleted images with %llu blocks are not reclaimed, however often",
			 (unsigned long long)images, (unsigned long long)blocks);
	return !sim_failed();
}

bool manage_space_comes_back(struct world *w)
{
	struct sim_volume *kept = w->volumes > 0 ? w->volume[rng_below(&w->rng, w->volumes)] : NULL;
	uint32_t columns = (uint32_t)w->config.policy.k + w->config.policy.m;
	struct pool_info info;

	if (!kept || w->config.snapshots_max == 0)
		return true;
	if (!delete_all_but(w, kept))
		return false;
	discard_all(w, kept);
	if (sim_failed() || !wait_for_reclaim(w, kept) || !audit_pool(w))
		return !sim_failed();
	pool_get_info(w->pool, &info);
	if (info.zones_free + EMPTY_ZONES * columns < info.zones)
		sim_fail("one volume is left, with nothing in it, but only %llu of %llu zones are free",
			 (unsigned long long)info.zones_free, (unsigned long long)info.zones);
	return !sim_failed();
}

/* ---- nonsense ---- */

static void snapshot_nonsense(struct world *w, const struct sim_volume *sv)
{
	const struct sim_volume *snapshot = w->snapshot[0];
	char name[VOLUME_NAME_BYTES];
	const char *names[] = { name };
	struct err err = { "" };

	for (uint32_t i = 1; snapshot->of != sv; i++)
		snapshot = w->snapshot[i];
	sim_volume_name(snapshot, name);
	switch (rng_below(&w->rng, 3)) {
	case 0:
		manage_expect(volume_snapshot(w->vols, names, 1, &err), -EEXIST, &err,
			      "a second snapshot of the same name");
		break;
	case 1: manage_expect(volume_resize(w->vols, name, 4096, &err), -EROFS, &err, "resize of a snapshot"); break;
	default: manage_expect(volume_rollback(w->vols, name, &err), -EBUSY, &err, "rollback of an open volume");
	}
}

void manage_fork_nonsense(struct world *w)
{
	const struct sim_volume *sv = w->volume[rng_below(&w->rng, w->volumes)];
	char name[VOLUME_NAME_BYTES];
	const char *twice[] = { name, name };
	struct err err = { "" };

	if (!sv->handle) /* perhaps its deletion has failed */
		return;
	snprintf(name, sizeof(name), "%s@twice", sv->name);
	switch (rng_below(&w->rng, 4)) {
	case 0:
		manage_expect(volume_clone(w->vols, sv->name, sv->name, &err), -EEXIST, &err, "a clone in its place");
		break;
	case 1:
		manage_expect(volume_snapshot(w->vols, twice, 2, &err), -EINVAL, &err, "two snapshots of a volume");
		break;
	case 2: manage_expect(volume_clone(w->vols, name, "x", &err), -ENOENT, &err, "a clone of nothing"); break;
	default:
		if (world_has_snapshots(w, sv))
			snapshot_nonsense(w, sv);
	}
}
