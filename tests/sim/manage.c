/* The manager: operations on pool and volumes while clients work, and patience with clients that wait for space.
 *
 * Every operation is noted as pending before it is asked for, so that a crash finds it there; afterwards the world follows
 * its result. One that fails for a fault stays pending until the next opening tells what has become of it. */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "tests/sim/client.h"
#include "tests/sim/sim_mem.h"
#include "tests/sim/trace.h"
#include "tests/sim/world.h"

#define SECOND 1000000000ull
#define STALL_NS (3 * SECOND)    /* without an answer: perhaps the pool is full */
#define STUCK_NS (4000 * SECOND) /* without an answer: stuck (O8); far above what the slowest disk takes */
#define CREATE_TRIES 10u
#define WAIT_NS_MIN 20000ull
#define WAIT_NS_MAX SECOND

/* ---- patience ---- */

static uint64_t answered(const struct world *w)
{
	uint64_t sum = 0;

	for (uint32_t i = 0; i < w->volumes; i++)
		sum += w->volume[i]->client ? w->volume[i]->client->answered : 0;
	return sum;
}

static int note_parked(void *arg, const struct volume_info *info)
{
	*(bool *)arg |= info->parked;
	return 0;
}

/* Space, by deleting snapshots, or a volume that nobody uses, or by discarding everything. */
static void relieve(struct world *w)
{
	w->counts->parks++;
	if (w->snapshots > 0 && w->pending.op == MANAGE_NONE) {
		while (w->snapshots > 0 && manage_delete(w, w->snapshot[0]))
			;
		return;
	}
	for (uint32_t i = 0; i < w->volumes && w->volumes > 1 && w->pending.op == MANAGE_NONE; i++) {
		struct sim_volume *sv = w->volume[i];

		if (!sv->client || !client_done(sv->client))
			continue;
		client_stop(sv->client);
		sv->client = NULL;
		volume_close(sv->handle);
		sv->handle = NULL;
		manage_delete(w, sv);
		return;
	}
	for (uint32_t i = 0; i < w->volumes; i++) {
		if (w->volume[i]->client)
			client_discard_all(w->volume[i]->client);
	}
	w->relieved = true;
}

static void patience_begins(struct world *w)
{
	w->wait_since_ns = env_now_ns();
	w->wait_answered = answered(w);
	w->wait_ns = WAIT_NS_MIN;
	w->relieved = false;
}

/* Waits a little for clients. False: over (failed). */
static bool wait_some(struct world *w)
{
	uint64_t now_ns;
	bool parked = false;

	fiber_sleep_ns(w->wait_ns);
	w->wait_ns = w->wait_ns * 2 < WAIT_NS_MAX ? w->wait_ns * 2 : WAIT_NS_MAX;
	if (sim_failed())
		return false;
	if (answered(w) != w->wait_answered)
		patience_begins(w);
	now_ns = env_now_ns();
	if (now_ns - w->wait_since_ns > STUCK_NS) {
		sim_fail("requests are stuck: no answer for %llu s",
			 (unsigned long long)((now_ns - w->wait_since_ns) / SECOND));
		return false;
	}
	if (now_ns - w->wait_since_ns > STALL_NS && !w->relieved) {
		(void)!volume_for_each(w->vols, note_parked, &parked);
		if (parked)
			relieve(w);
	}
	return !sim_failed();
}

static bool all_done(const struct world *w)
{
	for (uint32_t i = 0; i < w->volumes; i++) {
		if (w->volume[i]->client && !client_done(w->volume[i]->client))
			return false;
	}
	return true;
}

/* ---- clients ---- */

void manage_start_client(struct world *w, struct sim_volume *sv)
{
	if (sv->handle && !sv->client && manage_activate(w, sv))
		sv->client = client_start(w, sv, sv->left);
	sv->left = 0;
}

/* Stops the volume's client and waits for what is in flight. */
static bool quiesce(struct world *w, struct sim_volume *sv)
{
	if (!sv->client)
		return true;
	sv->client->stopping = true;
	patience_begins(w);
	while (!client_done(sv->client)) {
		if (!wait_some(w))
			return false;
	}
	sv->left = sv->client->left;
	client_stop(sv->client);
	sv->client = NULL;
	return true;
}

static bool quiesce_all(struct world *w)
{
	/* Relief may delete one meanwhile: begin anew until none is left. */
	for (uint32_t i = 0; i < w->volumes; i++) {
		if (!w->volume[i]->client)
			continue;
		if (!quiesce(w, w->volume[i]))
			return false;
		i = UINT32_MAX;
	}
	return true;
}

bool manage_close_volume(struct world *w, struct sim_volume *sv)
{
	if (!quiesce(w, sv))
		return false;
	if (sv->handle)
		volume_close(sv->handle);
	sv->handle = NULL;
	return true;
}

/* ---- one operation ---- */

uint64_t manage_begin(struct world *w, enum manage_op op, struct sim_volume *sv, uint64_t argument)
{
	uint64_t nth = 0;

	w->pending.op = op;
	w->pending.volume = sv;
	w->counts->manages++;
	if (w->config.fail_memory && rng_per_mille(&w->rng, 300)) {
		nth = rng_log_range(&w->rng, 1, 60);
		sim_mem_fail_nth(nth);
	}
	trace(TRACE_MANAGE, op, sv ? sv->model->number : 0, argument, nth);
	return env_tick();
}

/* Without memory an operation has happened or not, and the directory tells at once which. */
static void settle_now(struct world *w)
{
	switch (w->pending.op) {
	case MANAGE_CREATE:
	case MANAGE_DELETE:
	case MANAGE_RENAME:
	case MANAGE_RESIZE:
	case MANAGE_SNAPSHOT:
	case MANAGE_CLONE:
	case MANAGE_ROLLBACK: examine_directory(w); break;
	default: w->pending = (struct pending){ 0 };
	}
	w->manage_stopped = w->pending.op != MANAGE_NONE; /* only content can tell, after the next opening */
}

/* True: it happened. Otherwise it did not, or nobody knows yet; the volume may be gone. */
bool manage_end(struct world *w, int rc, uint64_t since, const struct err *err)
{
	bool failed = sim_mem_end_failing();

	world_end_cut(w);
	trace(TRACE_MANAGED, w->pending.op, w->pending.volume ? w->pending.volume->model->number : 0, (uint64_t)-rc,
	      env_tick());
	w->memory_failed |= failed;
	w->counts->memory_failures += failed;
	if (rc == 0) {
		w->pending.op = MANAGE_NONE;
		return true;
	}
	w->counts->errors++;
	if (rc == -ENOSPC || (rc == -ENOMEM && failed)) {
		settle_now(w);
		return false;
	}
	if (!world_excuses(w, rc, since))
		sim_fail("operation %d failed with error %d, and nothing excuses it: %s", (int)w->pending.op, -rc,
			 err->msg);
	if (rc > 0 || !err->msg[0])
		sim_fail("operation %d failed with %d and message '%s'", (int)w->pending.op, rc, err->msg);
	w->manage_stopped = true;
	return false;
}

/* For a new volume of the policy: then there is none. */
static bool too_few_disks(const struct world *w)
{
	struct pool_info info;

	pool_get_info(w->pool, &info);
	return info.disks_in_use < (uint32_t)w->config.policy.k + w->config.policy.m;
}

bool manage_create(struct world *w)
{
	struct sim_volume *sv;
	struct volume_create_opts opts;
	struct err err = { "" };
	uint64_t since;

	if (w->volumes >= w->config.volumes_max || too_few_disks(w))
		return true;
	sv = sim_volume_new(w);
	w->pending.made[0] = sv;
	w->pending.made_count = 1;
	opts = (struct volume_create_opts){ .name = sv->name, .size_bytes = sv->model->size_sectors * SECTOR_BYTES,
					    .policy = w->config.policy };
	if (w->config.mixed && rng_per_mille(&w->rng, 500))
		opts.policy = (struct policy){ 1, 0 };
	since = manage_begin(w, MANAGE_CREATE, sv, sv->model->size_sectors);
	if (!manage_end(w, volume_create(w->vols, &opts, &err), since, &err))
		return false;
	world_add_made(w);
	if (volume_open(w->vols, sv->name, &sv->handle, &err) < 0) {
		sv->handle = NULL;
		sim_fail("a volume just created cannot be opened: %s", err.msg);
	}
	return !sim_failed();
}

bool manage_delete(struct world *w, struct sim_volume *sv)
{
	bool with_snapshots;
	char name[VOLUME_NAME_BYTES];
	struct err err = { "" };
	uint64_t since;

	if (!manage_close_volume(w, sv))
		return false;
	with_snapshots = world_has_snapshots(w, sv); /* now: some may have gone as relief */
	sim_volume_name(sv, name);
	since = manage_begin(w, MANAGE_DELETE, sv, with_snapshots);
	if (!manage_end(w, volume_delete(w->vols, name, with_snapshots, &err), since, &err))
		return false;
	world_remove(w, sv);
	return true;
}

static void rename_image(struct world *w, struct sim_volume *sv)
{
	char name[VOLUME_NAME_BYTES], new_name[VOLUME_NAME_BYTES];
	struct pending *p = &w->pending;
	struct err err = { "" };
	uint64_t since;

	sim_volume_name(sv, name);
	snprintf(p->name, sizeof(p->name), "%s%u", sv->of ? "s" : "vol", ++w->names);
	snprintf(new_name, sizeof(new_name), "%s%s%s", sv->of ? sv->of->name : "", sv->of ? "@" : "", p->name);
	since = manage_begin(w, MANAGE_RENAME, sv, w->names);
	if (manage_end(w, volume_rename(w->vols, name, new_name, &err), since, &err))
		strcpy(sv->name, p->name);
}

/* Into a window, to the edge of one, or beyond all. */
static uint64_t draw_size(struct world *w, const struct sim_volume *sv)
{
	const struct model_window *win = &sv->model->window[rng_below(&w->rng, sv->model->windows)];
	uint64_t size = win->sector + rng_below(&w->rng, win->count + win->count / 4);

	if (rng_per_mille(&w->rng, 200))
		size = win->sector;
	else if (rng_per_mille(&w->rng, 300))
		size = win->sector + win->count;
	return size < 8 ? 8 : size;
}

static void resize_volume(struct world *w, struct sim_volume *sv)
{
	uint64_t ask = draw_size(w, sv), size = (ask + 7) & ~7ull, since;
	bool shrinks = size < sv->model->size_sectors, was_open = sv->client != NULL;
	struct err err = { "" };

	if (shrinks && !quiesce(w, sv))
		return;
	w->pending.size_sectors = size;
	since = manage_begin(w, MANAGE_RESIZE, sv, size);
	if (!manage_end(w, volume_resize(w->vols, sv->name, ask * SECTOR_BYTES, &err), since, &err)) {
		if (shrinks && w->manage_stopped)
			return; /* the tail may be gone or not: nobody looks at it in this life */
	} else {
		model_resize(&w->model, sv->model, size);
	}
	if (was_open)
		manage_start_client(w, sv);
}

static void add_disk(struct world *w)
{
	struct err err = { "" };
	struct disk *disk;
	uint64_t since;
	int rc;

	if (w->disks == w->config.disks_max)
		return;
	since = manage_begin(w, MANAGE_ADD_DISK, NULL, w->disks);
	disk = sim_disk_open(&w->disk[w->disks]);
	rc = disk ? pool_add_disk(w->pool, disk, w->disk[w->disks].writes > 0, &err) : -ENOMEM;
	if (rc < 0 && disk)
		disk_close(disk);
	if (manage_end(w, rc, since, &err))
		w->disks++;
}

static void checkpoint(struct world *w, struct sim_volume *sv)
{
	struct err err = { "" };
	uint64_t since = manage_begin(w, MANAGE_CHECKPOINT, sv, 0);

	if (!manage_end(w, volume_checkpoint(w->vols, sv->name, &err), since, &err) && !sim_failed()) {
		w->pending = (struct pending){ 0 }; /* changes nothing that can be seen */
		w->manage_stopped = false;
	}
}

static void look(struct world *w)
{
	struct pool_info info;
	struct pool_disk_info disk_info;

	pool_get_info(w->pool, &info);
	for (uint32_t i = 0; i < info.disk_count; i++)
		pool_get_disk_info(w->pool, i, &disk_info);
	if (info.disk_count != w->disks || info.zones_free > info.zones)
		sim_fail("the pool says %u disks, %llu of %llu zones free", info.disk_count,
			 (unsigned long long)info.zones_free, (unsigned long long)info.zones);
	if (w->pending.op == MANAGE_NONE)
		examine_directory(w);
}

void manage_expect(int rc, int wanted, const struct err *err, const char *what)
{
	if (rc != wanted || !err->msg[0])
		sim_fail("%s: error %d instead of %d, message '%s'", what, -rc, -wanted, err->msg);
}

static void nonsense(struct world *w, struct sim_volume *sv)
{
	struct volume_create_opts opts = { .name = sv->name, .size_bytes = 4096 };
	struct err err = { "" };

	switch (rng_below(&w->rng, 6)) {
	case 0:
		manage_expect(volume_create(w->vols, &opts, &err), -EEXIST, &err, "a second volume of the same name");
		break;
	case 1:
		manage_expect(volume_delete(w->vols, "nobody", false, &err), -ENOENT, &err,
			      "delete of a volume that does not exist");
		break;
	case 2:
		if (sv->handle)
			manage_expect(volume_delete(w->vols, sv->name, false, &err), -EBUSY, &err,
				      "delete of an open volume");
		break;
	case 3:
		opts.name = "-x";
		manage_expect(volume_create(w->vols, &opts, &err), -EINVAL, &err, "a volume with a wrong name");
		break;
	case 4:
		manage_expect(volume_resize(w->vols, sv->name, VOLUME_SIZE_MAX + 1, &err), -EINVAL, &err,
			      "a volume too big");
		break;
	default: manage_expect(volume_rename(w->vols, sv->name, "a/b", &err), -EINVAL, &err, "rename to a wrong name");
	}
}

void manage_reopen_volume(struct world *w, struct sim_volume *sv)
{
	struct err err = { "" };
	int rc;

	rc = volume_open(w->vols, sv->name, &sv->handle, &err);
	if (rc < 0) {
		sv->handle = NULL;
		if (!world_excuses(w, rc, env_tick()))
			sim_fail("volume %s cannot be opened: %s", sv->name, err.msg);
	} else if (!sv->known) {
		(void)examine_image(w, sv);
	}
	manage_start_client(w, sv);
}

static void reopen(struct world *w, struct sim_volume *sv)
{
	if (manage_close_volume(w, sv))
		manage_reopen_volume(w, sv);
}

/* Export and import. What comes back must be all there was. */
static void reimport(struct world *w)
{
	if (!quiesce_all(w))
		return;
	trace(TRACE_MANAGE, MANAGE_REIMPORT, 0, 0, 0);
	life_close(w);
	w->after = world_after_kill(w, AFTER_CLOSE);
	w->examined = false;
	if (!life_open(w) || !examine_content(w))
		return;
	w->examined = true;
	w->after = AFTER_KILL;
	w->manage_stopped = false;
	world_set_faults(w, true);
	for (uint32_t i = 0; i < w->volumes; i++)
		manage_start_client(w, w->volume[i]);
}

/* Nobody may notice. The pool may say that it cannot do without the disk, or that it is not there. */
static void disk_life(struct world *w)
{
	struct err err = { "" };
	int rc = 0;

	if (!w->config.within)
		return;
	w->counts->manages++;
	switch (rng_below(&w->rng, 3)) {
	case 0: rc = pool_disk_offline(w->pool, w->config.bad_disk, &err); break;
	case 1: rc = volumes_disk_online(w->vols, w->config.bad_disk, &err); break;
	default: rc = volumes_scrub(w->vols);
	}
	trace(TRACE_MANAGE, MANAGE_DISK_LIFE, w->config.bad_disk, (uint64_t)-rc, 0);
	if (rc < 0 && rc != -EBUSY && rc != -EALREADY && rc != -ENODEV && !world_excuses(w, rc, env_tick()))
		sim_fail("disk life: error %d, %s", -rc, err.msg);
}

/* ---- choice ---- */

static void rot_some_disk(struct world *w)
{
	for (uint32_t i = 0; i < w->disks; i++) {
		if (w->config.rot_per_mille && w->config.disk[i].fault_per_mille[FAULT_BIT_ROT] &&
		    rng_per_mille(&w->rng, w->config.rot_per_mille) && sim_disk_rot(&w->disk[i]))
			w->damaged = !w->config.within;
	}
	if (rng_per_mille(&w->rng, w->config.dead_per_mille))
		w->disk[w->config.bad_disk].dead = true;
}

static void look_at_disks(struct world *w)
{
	if (!world_note_damage(w) && audit_pool(w))
		audit_poison(w);
}

static void fork_something(struct world *w)
{
	static const enum manage_op choice[] = {
		MANAGE_SNAPSHOT, MANAGE_SNAPSHOT, MANAGE_SNAPSHOT, MANAGE_SNAPSHOT, MANAGE_CLONE,  MANAGE_CLONE,
		MANAGE_ROLLBACK, MANAGE_VERIFY,   MANAGE_DELETE,   MANAGE_DELETE,   MANAGE_RENAME, MANAGE_NONSENSE,
	};
	enum manage_op op = choice[rng_below(&w->rng, sizeof(choice) / sizeof(choice[0]))];
	struct sim_volume *snapshot = w->snapshots > 0 ? w->snapshot[rng_below(&w->rng, w->snapshots)] : NULL;

	if (op == MANAGE_CLONE)
		manage_clone(w);
	else if (op == MANAGE_NONSENSE && !w->damaged)
		manage_fork_nonsense(w);
	else if (op == MANAGE_SNAPSHOT || !snapshot)
		manage_snapshot(w);
	else if (op == MANAGE_ROLLBACK)
		manage_rollback(w, snapshot);
	else if (op == MANAGE_VERIFY)
		manage_verify(w, snapshot);
	else if (op == MANAGE_RENAME)
		rename_image(w, snapshot);
	else
		manage_delete(w, snapshot);
}

static void operate(struct world *w)
{
	static const enum manage_op choice[] = {
		MANAGE_CREATE,   MANAGE_DELETE,     MANAGE_RENAME,     MANAGE_RESIZE,     MANAGE_RESIZE,
		MANAGE_ADD_DISK, MANAGE_CHECKPOINT, MANAGE_CHECKPOINT, MANAGE_CHECKPOINT, MANAGE_LOOK,
		MANAGE_REOPEN,   MANAGE_REIMPORT,   MANAGE_NONSENSE,   MANAGE_DISK_LIFE,  MANAGE_TAKEOVER,
	};
	enum manage_op op = choice[rng_below(&w->rng, sizeof(choice) / sizeof(choice[0]))];
	struct sim_volume *sv = w->volume[rng_below(&w->rng, w->volumes)];

	if (w->manage_stopped) { /* only a new opening helps */
		if (rng_per_mille(&w->rng, 200))
			reimport(w);
		return;
	}
	if (w->config.snapshots_max > 0 && rng_per_mille(&w->rng, w->config.fork_per_mille)) {
		fork_something(w);
		return;
	}
	if (!sv->known && op != MANAGE_DELETE)
		op = MANAGE_REOPEN;
	switch (op) {
	case MANAGE_CREATE:
		if (manage_create(w)) {
			w->volume[w->volumes - 1]->left = 10;
			manage_start_client(w, w->volume[w->volumes - 1]);
		}
		break;
	case MANAGE_DELETE:
		if (w->volumes > 1)
			manage_delete(w, sv);
		break;
	case MANAGE_RENAME: rename_image(w, sv); break;
	case MANAGE_RESIZE: resize_volume(w, sv); break;
	case MANAGE_ADD_DISK: add_disk(w); break;
	case MANAGE_CHECKPOINT: checkpoint(w, sv); break;
	case MANAGE_LOOK: look(w); break;
	case MANAGE_TAKEOVER: manage_takeover(w, sv); break;
	case MANAGE_REOPEN: reopen(w, sv); break;
	case MANAGE_REIMPORT: reimport(w); break;
	case MANAGE_DISK_LIFE: disk_life(w); break;
	default: nonsense(w, sv);
	}
}

static void give_work(struct world *w)
{
	uint32_t requests = w->config.ops / w->config.lives + 1;

	for (uint32_t i = 0; i < CREATE_TRIES && w->volumes < w->config.volumes && !w->manage_stopped && !sim_failed();
	     i++)
		(void)manage_create(w);
	for (uint32_t i = 0; i < w->volumes; i++) {
		w->volume[i]->left = requests / w->volumes + 1;
		manage_start_client(w, w->volume[i]);
	}
}

static bool work_left(const struct world *w, uint32_t turns)
{
	return !sim_failed() && !w->lost && w->volumes > 0 && (turns > 0 || !all_done(w));
}

void manage_work(struct world *w)
{
	/* A few operations come in any case, even if the clients are quick. */
	uint32_t turns = w->config.manage_ns > 0 ? (uint32_t)rng_below(&w->rng, w->config.snapshots_max > 0 ? 10 : 4)
						 : 0;

	w->manage_stopped = false;
	give_work(w);
	patience_begins(w);
	for (; work_left(w, turns); turns -= turns > 0) {
		if (w->config.manage_ns > 0) {
			fiber_sleep_ns(rng_below(&w->rng, 2 * w->config.manage_ns));
			rot_some_disk(w);
			look_at_disks(w);
			operate(w);
		}
		if (!work_left(w, turns) || !wait_some(w))
			break;
	}
	if (!sim_failed() && !w->lost)
		(void)quiesce_all(w);
}
