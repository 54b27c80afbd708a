/* Management of images made from images: snapshots, clones, rollback, and taking them away again.
 *
 * On the pool's loop under the directory's lock. A fork is made in memory on the home loop (fork.c), then its log is made
 * durable, then the catalog's transaction makes it exist; where that fails it is undone. */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "pool/base/mem.h"
#include "volumes/directory.h"

/* --- forks ---------------------------------------------------------------------------------------------------- */

struct fork_call {
	struct volume_state *origin, *image;
	uint64_t id;
	struct volume_format f;
	const struct receive_mark *mark; /* of a volume that is being received: in the same transaction. NULL: none */
	bool committed;
	int res;
};

static int room_on_home(void *arg)
{
	struct fork_call *call = arg;

	return fork_wait_room(call->origin);
}

static int hold_on_home(void *arg)
{
	((struct lineage *)arg)->held++;
	return 0;
}

static int release_on_home(void *arg)
{
	struct lineage *lin = arg;

	lin->held--;
	lineage_drain_soon(lin);
	return 0;
}

static int fork_on_home(void *arg)
{
	struct fork_call *call = arg;

	return fork_image(call->origin, call->id, &call->f, &call->image);
}

static int sync_on_home(void *arg)
{
	return fork_sync(((struct fork_call *)arg)->image);
}

static int done_on_home(void *arg)
{
	struct fork_call *call = arg;

	fork_done(call->image, call->committed);
	return 0;
}

/* What the catalog will say of the new image. */
static void fork_format(struct volumes *vols, struct fork_call *call, const char *own_name, uint32_t flags)
{
	const struct volume_state *origin = call->origin;
	struct uuid guid = uuid_new(vols->loop);

	call->id = pool_new_id(vols->pool);
	call->f = (struct volume_format){
		.version = le32_of(2),
		.number = le32_of((uint32_t)call->id),
		.lineage = le64_of(origin->lin->id),
		.size_bytes = le64_of(origin->size_bytes),
		.created_s = le64_of(vols->loop->ops->wall_s(vols->loop)),
		.flags = le32_of(flags | (origin->flags & VOLUME_TRIM_PENDING)),
		.of = le32_of(flags & VOLUME_SNAPSHOT ? origin->number : 0),
	};
	memcpy(call->f.name, own_name, strlen(own_name));
	memcpy(call->f.guid, guid.b, sizeof(call->f.guid));
}

/* One instant for all: nothing is appended while the forks are made. */
static int fork_all(struct fork_call *calls, uint32_t count)
{
	uint32_t held = 0;
	int rc = 0;

	for (uint32_t i = 0; i < count && rc == 0; i++)
		rc = fiber_call_on(calls[i].origin->lin->loop, room_on_home, &calls[i]);
	for (; held < count && count > 1 && rc == 0; held += rc == 0)
		rc = fiber_call_on(calls[held].origin->lin->loop, hold_on_home, calls[held].origin->lin);
	for (uint32_t i = 0; i < count && rc == 0; i++)
		rc = fiber_call_on(calls[i].origin->lin->loop, fork_on_home, &calls[i]);
	while (held-- > 0)
		directory_call(calls[held].origin->lin->loop, release_on_home, calls[held].origin->lin);
	for (uint32_t i = 0; i < count && rc == 0; i++)
		rc = fiber_call_on(calls[i].origin->lin->loop, sync_on_home, &calls[i]);
	return rc;
}

static int commit_forks(struct volumes *vols, const struct fork_call *calls, uint32_t count)
{
	struct cat_txn txn;
	int rc;

	cat_txn_init(&txn);
	for (uint32_t i = 0; i < count; i++) {
		struct volume_format f = volume_to_format(calls[i].image);

		cat_put(&txn, CAT_VOLUME, calls[i].id, &f, sizeof(f));
		if (calls[i].mark)
			directory_put_mark(&txn, calls[i].origin, *calls[i].mark);
	}
	rc = pool_commit(vols->pool, &txn);
	cat_txn_release(&txn);
	return rc;
}

/* Makes all of them or none. */
static int make_images(struct volumes *vols, struct fork_call *calls, uint32_t count)
{
	int rc = fork_all(calls, count);

	if (rc == 0)
		rc = commit_forks(vols, calls, count);
	for (uint32_t i = 0; i < count; i++) {
		calls[i].committed = rc == 0;
		if (!calls[i].image)
			continue;
		if (rc == 0)
			(void)directory_add(vols, calls[i].image); /* its volume is there */
		directory_call(calls[i].origin->lin->loop, done_on_home, &calls[i]);
	}
	return rc;
}

static int fork_error(struct err *err, int rc, const char *what, const char *name)
{
	if (rc == -EMLINK)
		return err_set(err, rc, "cannot %s '%s': it has %u snapshots and clones, and no more are possible", what, name,
			       IMAGES_MAX);
	if (rc == -EIO)
		return err_set(err, rc, "cannot %s '%s': its log cannot be written", what, name);
	return directory_commit_error(err, rc, what, name);
}

static int check_healthy(const struct volume_state *vol, const char *name, struct err *err)
{
	if (vol->lin->damage[0])
		return err_set(err, -EIO, "volume '%s' is damaged: %s", name, vol->lin->damage);
	return 0;
}

/* May an image be made of it? */
static int check_complete(const struct volume_state *vol, const char *name, struct err *err)
{
	if (vol->flags & VOLUME_RECEIVING)
		return err_set(err, -EBUSY, "volume '%s' is being received and not complete", name);
	return check_healthy(vol, name, err);
}

/* --- snapshots -------------------------------------------------------------------------------------------------- */

static int plan_snapshot(struct volumes *vols, const char *name, struct fork_call *calls, uint32_t before, struct err *err)
{
	const char *at = strchr(name, '@');
	char of[POOL_NAME_MAX + 1] = "";
	int rc;

	if (!at || at - name > POOL_NAME_MAX)
		return err_set(err, -EINVAL, "'%s' does not name a snapshot: VOLUME@SNAPSHOT", name);
	memcpy(of, name, (size_t)(at - name));
	rc = directory_need(vols, of, &calls[before].origin, err);
	if (rc == 0)
		rc = check_complete(calls[before].origin, of, err);
	if (rc == 0)
		rc = directory_check_snapshot(vols, calls[before].origin, at + 1, err);
	for (uint32_t i = 0; i < before && rc == 0; i++) {
		if (calls[i].origin == calls[before].origin)
			rc = err_set(err, -EINVAL, "volume '%s' is named twice", of);
	}
	if (rc == 0)
		fork_format(vols, &calls[before], at + 1, VOLUME_SNAPSHOT);
	return rc;
}

int volume_snapshot(struct volumes *vols, const char *const *names, uint32_t count, struct err *err)
{
	struct fork_call *calls;
	int rc = 0;

	if (count == 0 || count > VOLUME_SNAPSHOTS_MAX)
		return err_set(err, -EINVAL, "%u snapshots at once: from 1 to %u", count, VOLUME_SNAPSHOTS_MAX);
	calls = mem_zalloc(count * sizeof(*calls));
	if (!calls)
		return err_set(err, -ENOMEM, "cannot make a snapshot: out of memory");
	fmutex_lock(&vols->change);
	for (uint32_t i = 0; i < count && rc == 0; i++)
		rc = plan_snapshot(vols, names[i], calls, i, err);
	if (rc == 0) {
		rc = make_images(vols, calls, count);
		if (rc < 0)
			fork_error(err, rc, "make snapshot", names[0]);
	}
	fmutex_unlock(&vols->change);
	mem_free(calls);
	return rc;
}

int volume_clone(struct volumes *vols, const char *from, const char *new_name, struct err *err)
{
	struct fork_call call = { NULL };
	int rc;

	fmutex_lock(&vols->change);
	rc = directory_need(vols, from, &call.origin, err);
	if (rc == 0)
		rc = check_complete(call.origin, from, err);
	if (rc == 0)
		rc = directory_check_new(vols, new_name, err);
	if (rc == 0) {
		fork_format(vols, &call, new_name, 0);
		rc = make_images(vols, &call, 1);
		if (rc < 0)
			fork_error(err, rc, "clone", from);
	}
	fmutex_unlock(&vols->change);
	return rc;
}

/* --- receiving -------------------------------------------------------------------------------------------------- */

int directory_receive_snapshot(struct volumes *vols, struct volume_state *origin, const char *own, const struct uuid *guid,
			       uint64_t created_s, struct receive_mark mark, struct err *err)
{
	struct fork_call call = { .origin = origin, .mark = &mark };
	int rc = check_healthy(origin, origin->name, err);

	if (rc == 0)
		rc = directory_check_snapshot(vols, origin, own, err);
	if (rc < 0)
		return rc;
	fork_format(vols, &call, own, VOLUME_SNAPSHOT);
	memcpy(call.f.guid, guid->b, sizeof(call.f.guid));
	call.f.created_s = le64_of(created_s);
	rc = make_images(vols, &call, 1);
	if (rc < 0)
		return fork_error(err, rc, "make snapshot", own);
	origin->receive = mark;
	return 0;
}

/* --- rollback --------------------------------------------------------------------------------------------------- */

struct rollback_call {
	struct volume_state *vol, *snapshot, *old;
	uint64_t old_id;
	bool committed;
};

static int begin_on_home(void *arg)
{
	struct rollback_call *call = arg;

	return rollback_begin(call->vol, call->snapshot, call->old_id, &call->old);
}

static int end_on_home(void *arg)
{
	struct rollback_call *call = arg;

	rollback_end(call->vol, call->old, call->committed);
	if (call->committed)
		epoch_fenced(call->vol);
	return 0;
}

/* The volume is from now on what the snapshot is; its old tree belongs to an image without a name, which goes. */
static int commit_rollback(struct volumes *vols, const struct rollback_call *call)
{
	const struct cat_obj *map = catalog_get(pool_catalog(vols->pool), CAT_MAP, call->vol->id);
	struct volume_format f = volume_to_format(call->vol), old = volume_to_format(call->old);
	struct cat_txn txn;
	int rc;

	cat_txn_init(&txn);
	cat_put(&txn, CAT_VOLUME, call->vol->id, &f, sizeof(f));
	cat_put(&txn, CAT_VOLUME, call->old_id, &old, sizeof(old));
	if (map) {
		cat_put(&txn, CAT_MAP, call->old_id, map->data, map->len_bytes);
		cat_del(&txn, CAT_MAP, call->vol->id);
	}
	epoch_fence_in(&txn, call->vol);
	rc = pool_commit(vols->pool, &txn);
	cat_txn_release(&txn);
	return rc;
}

static int roll_back(struct volumes *vols, const char *name, struct volume_state *vol, struct volume_state *snapshot,
		     struct err *err)
{
	struct rollback_call call = { .vol = vol, .snapshot = snapshot, .old_id = pool_new_id(vols->pool) };
	int rc = fiber_call_on(vol->lin->loop, begin_on_home, &call);

	if (rc == 0)
		rc = commit_rollback(vols, &call);
	call.committed = rc == 0;
	if (call.old)
		directory_call(vol->lin->loop, end_on_home, &call);
	return rc < 0 ? fork_error(err, rc, "roll back to", name) : 0;
}

int volume_rollback(struct volumes *vols, const char *name, struct err *err)
{
	struct volume_state *snapshot, *vol = NULL;
	char of[VOLUME_NAME_BYTES];
	int rc;

	snprintf(of, sizeof(of), "%.*s", (int)strcspn(name, "@"), name);
	fmutex_lock(&vols->change);
	rc = strchr(name, '@') ? directory_need(vols, name, &snapshot, err) :
				 err_set(err, -EINVAL, "'%s' does not name a snapshot: VOLUME@SNAPSHOT", name);
	if (rc == 0)
		rc = directory_need(vols, of, &vol, err);
	if (rc == 0)
		rc = check_healthy(vol, of, err);
	if (rc == 0 && vol->opens > 0)
		rc = err_set(err, -EBUSY, "volume '%s' is in use: remove its exports first", of);
	if (rc == 0)
		rc = roll_back(vols, name, vol, snapshot, err);
	fmutex_unlock(&vols->change);
	return rc;
}

/* --- going -------------------------------------------------------------------------------------------------------- */

static int delete_on_home(void *arg)
{
	struct volume_state *vol = arg;

	vol->flags |= VOLUME_DELETED;
	vol->name[0] = '\0';
	checkpoint_start(vol->lin);
	return 0;
}

int directory_delete_images(struct volumes *vols, struct volume_state **image, uint32_t count, struct err *err)
{
	struct cat_txn txn;
	int rc;

	cat_txn_init(&txn);
	for (uint32_t i = 0; i < count; i++) {
		struct volume_format f = volume_to_format(image[i]);

		f.flags = le32_of(image[i]->flags | VOLUME_DELETED);
		memset(f.name, 0, sizeof(f.name));
		cat_put(&txn, CAT_VOLUME, image[i]->id, &f, sizeof(f));
		if (image[i]->epoch > 0)
			cat_del(&txn, CAT_EPOCH, image[i]->id);
	}
	rc = pool_commit(vols->pool, &txn);
	cat_txn_release(&txn);
	if (rc < 0)
		return directory_commit_error(err, rc, "delete", image[0]->name);
	fmutex_lock(&vols->directory);
	for (uint32_t i = 0; i < count; i++) {
		directory_remove(vols, image[i]);
		directory_call(image[i]->lin->loop, delete_on_home, image[i]);
	}
	fmutex_unlock(&vols->directory);
	return 0;
}

/* --- space -------------------------------------------------------------------------------------------------------- */

struct space_call {
	struct volume_state *vol;
	struct volume_space *space;
};

static int measure_on_home(void *arg)
{
	const struct space_call *call = arg;

	return checkpoint_measure(call->vol, call->space);
}

static int measure(struct volumes *vols, const char *name, struct volume_space *space, struct err *err)
{
	struct space_call call = { .space = space };
	int rc = directory_need(vols, name, &call.vol, err);

	if (rc == 0)
		rc = check_healthy(call.vol, name, err);
	if (rc < 0)
		return rc;
	rc = fiber_call_on(call.vol->lin->loop, measure_on_home, &call);
	if (rc < 0)
		err_set(err, rc, "cannot tell what '%s' holds: %s", name,
			rc == -ENOMEM ? "out of memory" : "its map cannot be read");
	return rc;
}

int volume_get_space(struct volumes *vols, const char *name, struct volume_space *space, struct err *err)
{
	int rc;

	fmutex_lock(&vols->measure);     /* so that whoever holds `change` changes something */
	if (vols->change.held) {
		rc = err_set(err, -EAGAIN, "cannot tell what '%s' holds: volumes are being changed", name);
	} else {
		fmutex_lock(&vols->change);
		rc = measure(vols, name, space, err);
		fmutex_unlock(&vols->change);
	}
	fmutex_unlock(&vols->measure);
	return rc;
}

struct reclaim_call {
	struct lineage *lin;
	uint64_t images, blocks;
};

static int reclaim_on_home(void *arg)
{
	struct reclaim_call *call = arg;

	list_for_each(node, &call->lin->volumes) {
		const struct volume_state *vol = list_entry(node, struct volume_state, node);

		if (!(vol->flags & VOLUME_DELETED))
			continue;
		call->images++;
		call->blocks += vol->mapped_blocks;
	}
	return 0;
}

int volumes_get_reclaim(struct volumes *vols, uint64_t *images, uint64_t *blocks)
{
	struct reclaim_call call = { NULL };
	int rc = 0;

	fmutex_lock(&vols->directory);
	list_for_each(node, &vols->lineages) {
		call.lin = list_entry(node, struct lineage, node);
		if (rc == 0)
			rc = fiber_call_on(call.lin->loop, reclaim_on_home, &call);
	}
	fmutex_unlock(&vols->directory);
	*images = call.images;
	*blocks = call.blocks;
	return rc;
}

/* --- for those who serve a volume ----------------------------------------------------------------------------------- */

static struct volume_state *volume_of(struct volume_state *vol)
{
	return vol->volume ? vol->volume : vol;
}

struct sibling_call {
	struct volume_state *vol;
	const char *name;
	struct volume *snapshot;
	char *names;
};

static int open_on_pool(void *arg)
{
	struct sibling_call *call = arg;
	char full[VOLUME_NAME_BYTES];

	snprintf(full, sizeof(full), "%s@%s", volume_of(call->vol)->name, call->name);
	return volume_open(call->vol->vols, full, &call->snapshot, NULL);
}

int volume_snapshot_open(struct volume *volume, const char *name, struct volume **out)
{
	struct sibling_call call = { .vol = volume->state, .name = name };
	int rc = strlen(name) > POOL_NAME_MAX ? -ENOENT : fiber_call_on(call.vol->vols->loop, open_on_pool, &call);

	*out = call.snapshot;
	return rc;
}

static int close_on_pool(void *arg)
{
	volume_close(arg);
	return 0;
}

void volume_snapshot_close(struct volume *snapshot)
{
	directory_call(snapshot->state->vols->loop, close_on_pool, snapshot);
}

static int names_on_pool(void *arg)
{
	struct sibling_call *call = arg;
	const struct volume_state *of = volume_of(call->vol);
	size_t bytes = 1;
	char *at;

	list_for_each(node, &of->snapshots)
		bytes += strlen(list_entry(node, struct volume_state, sibling)->name) + 1;
	at = call->names = mem_zalloc(bytes);
	if (!at)
		return -ENOMEM;
	list_for_each(node, &of->snapshots)
		at = stpcpy(at, list_entry(node, struct volume_state, sibling)->name) + 1;
	return 0;
}

int volume_snapshot_names(struct volume *volume, char **names)
{
	struct sibling_call call = { .vol = volume->state };
	int rc = fiber_call_on(call.vol->vols->loop, names_on_pool, &call);

	*names = call.names;
	return rc;
}
