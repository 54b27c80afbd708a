/* Management of volumes: creating, deleting, renaming, resizing, looking, handles. What there is to snapshots and clones is in
 * snapshot.c, the disks' part in disks.c.
 *
 * A change is first durable in the catalog and then takes effect. A volume that shrinks carries the mark "trim pending" until
 * what was beyond its end is unmapped; after a crash in between the next resize finishes that first, so old data never
 * shows. */
#include "volumes/volume.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "pool/base/mem.h"
#include "volumes/directory.h"

static int check_size(uint64_t *size_bytes, struct err *err)
{
	if (*size_bytes == 0 || *size_bytes > VOLUME_SIZE_MAX)
		return err_set(err, -EINVAL, "bad volume size %llu: from 4 KiB to 1 PiB", (unsigned long long)*size_bytes);
	*size_bytes = (*size_bytes + BLOCK_BYTES - 1) / BLOCK_BYTES * BLOCK_BYTES;
	return 0;
}

/* --- create and delete -------------------------------------------------------------------------------------- */

static int commit_new(struct volumes *vols, const struct volume_state *vol, const struct lineage_format *lf,
		      const struct volume_format *vf, const struct volume_options *options)
{
	struct cat_txn txn;
	int rc;

	cat_txn_init(&txn);
	pool_put_policy_in(vols->pool, vol->lin->policy, &txn);
	cat_put(&txn, CAT_LINEAGE, vol->lin->id, lf, sizeof(*lf));
	cat_put(&txn, CAT_VOLUME, vol->id, vf, sizeof(*vf));
	options_put_in(vols, vol->id, options, &txn);
	rc = pool_commit(vols->pool, &txn);
	cat_txn_release(&txn);
	return rc;
}

static int create_lineage(struct volumes *vols, const struct volume_create_opts *opts, uint64_t size_bytes,
			  const struct volume_options *options, struct err *err)
{
	struct policy policy = opts->policy.k ? opts->policy : (struct policy){ 1, 0 };
	struct volume_format vf = { .version = le32_of(2), .size_bytes = le64_of(size_bytes),
				    .created_s = le64_of(vols->loop->ops->wall_s(vols->loop)),
				    .flags = le32_of(opts->receiving ? VOLUME_RECEIVING : 0),
				    .origin = le32_of(NUMBER_NONE) };
	struct uuid guid = uuid_new(vols->loop);
	struct lineage_format lf = { .version = le32_of(1), .k = policy.k, .m = policy.m, .seq = le64_of(1),
				     .head_index = le32_of(UINT32_MAX), .birth = le32_of(1),
				     .live = { .segno = le32_of(SEGNO_NONE) },
				     .refs = { .segno = le32_of(SEGNO_NONE) },
				     .places = { .segno = le32_of(SEGNO_NONE) } };
	struct volume_state *vol;
	struct lineage *lin;
	int rc = pool_use_policy(vols->pool, policy);

	if (rc == 0)
		rc = lineage_alloc(vols, vols->pool, directory_choose_home(vols), pool_new_id(vols->pool), policy, &lin);
	if (rc < 0)
		return err_set(err, rc, "cannot create volume '%s': out of memory", opts->name);
	vf.lineage = le64_of(lin->id);
	memcpy(vf.name, opts->name, strlen(opts->name));
	memcpy(vf.guid, guid.b, sizeof(vf.guid));
	vol = lineage_add_volume(lin, pool_new_id(vols->pool), &vf);
	if (vol)
		vol->fresh = true;
	if (vol)
		directory_start_lineage(lin, &lf); /* first all that needs memory */
	rc = vol ? lin->failed : -ENOMEM;
	if (rc == 0)
		rc = options_prepare(vol, options);
	if (rc == 0)
		rc = commit_new(vols, vol, &lf, &vf, options);
	if (rc < 0) {
		(void)directory_stop_lineage(lin, true);
		lineage_free(lin);
		return directory_commit_error(err, rc, "create volume", opts->name);
	}
	list_push_back(&vols->lineages, &lin->node);
	(void)directory_add(vols, vol);
	options_apply(vol, options);
	return 0;
}

int volume_create(struct volumes *vols, const struct volume_create_opts *opts, struct err *err)
{
	struct volume_options options = opts->options;
	uint64_t size_bytes = opts->size_bytes;
	int rc;

	fmutex_lock(&vols->change);
	rc = directory_check_new(vols, opts->name, err);
	if (rc == 0)
		rc = check_size(&size_bytes, err);
	if (rc == 0 && opts->policy.k)
		rc = pool_check_policy(vols->pool, opts->policy, err);
	if (rc == 0)
		rc = options_check(vols, &options, err);
	if (rc == 0)
		rc = create_lineage(vols, opts, size_bytes, &options, err);
	fmutex_unlock(&vols->change);
	return rc;
}

static void free_in_txn(void *arg, const struct segment *segment)
{
	segment_free_in(arg, segment->grant);
}

static void delete_objects(struct volumes *vols, const struct lineage *lin, struct cat_txn *txn)
{
	const struct catalog *cat = pool_catalog(vols->pool);

	for (const struct cat_obj *obj = catalog_next(cat, CAT_VOLUME, 0); obj; obj = catalog_next(cat, CAT_VOLUME, obj->id + 1)) {
		if (le64_get(((const struct volume_format *)obj->data)->lineage) != lin->id)
			continue;
		cat_del(txn, CAT_VOLUME, obj->id);
		options_put_in(vols, obj->id, NULL, txn);
		if (catalog_get(cat, CAT_MAP, obj->id))
			cat_del(txn, CAT_MAP, obj->id);
		if (catalog_get(cat, CAT_EPOCH, obj->id))
			cat_del(txn, CAT_EPOCH, obj->id);
	}
}

/* The lineage with all its images and segments goes in one transaction. */
static int delete_lineage(struct volumes *vols, struct volume_state *vol, struct err *err)
{
	struct lineage *lin = vol->lin;
	struct cat_txn txn;
	int rc;

	(void)directory_stop_lineage(lin, true);
	cat_txn_init(&txn);
	delete_objects(vols, lin, &txn);
	cat_del(&txn, CAT_LINEAGE, lin->id);
	segment_for_each(vols->pool, lin->id, free_in_txn, &txn);
	rc = pool_commit(vols->pool, &txn);
	cat_txn_release(&txn);
	if (rc == 0) {
		fmutex_lock(&vols->directory);
		lineage_free(lin);
		fmutex_unlock(&vols->directory);
		return 0;
	}
	list_push_back(&vols->lineages, &lin->node);
	lin->failed = rc;
	strcpy(lin->damage, "closed: its deletion could not be written");
	return directory_commit_error(err, rc, "delete volume", vol->name);
}

/* Images that go together. */
struct image_array {
	struct volume_state **v;
	uint32_t count;
};

/* The image and its snapshots. */
static int collect_images(struct volume_state *vol, struct image_array *a)
{
	*a = (struct image_array){ .v = mem_alloc((vol->snapshot_count + 1) * sizeof(struct volume_state *)) };
	if (!a->v)
		return -ENOMEM;
	a->v[a->count++] = vol;
	list_for_each(node, &vol->snapshots)
		a->v[a->count++] = list_entry(node, struct volume_state, sibling);
	return 0;
}

static int check_unused(const struct image_array *a, struct err *err)
{
	for (uint32_t i = 0; i < a->count; i++) {
		char name[VOLUME_NAME_BYTES];

		directory_name(a->v[i], name);
		if (a->v[i]->opens > 0)
			return err_set(err, -EBUSY, "volume '%s' is in use: remove its exports first", name);
	}
	return 0;
}

static int delete_volume(struct volumes *vols, const char *name, bool with_snapshots, struct err *err)
{
	struct image_array a = { NULL };
	struct volume_state *vol;
	int rc = directory_need(vols, name, &vol, err);

	if (rc < 0)
		return rc;
	rc = collect_images(vol, &a);
	if (rc < 0)
		return err_set(err, rc, "cannot delete '%s': out of memory", name);
	rc = check_unused(&a, err);
	if (rc == 0 && a.count > 1 && !with_snapshots)
		rc = err_set(err, -ENOTEMPTY, "volume '%s' has %u snapshots: delete them first, or together with it", name,
			     a.count - 1);
	if (rc == 0)
		rc = a.count == vol->lin->named ? delete_lineage(vols, vol, err) : directory_delete_images(vols, a.v, a.count, err);
	mem_free(a.v);
	return rc;
}

int volume_delete(struct volumes *vols, const char *name, bool with_snapshots, struct err *err)
{
	int rc;

	fmutex_lock(&vols->change);
	rc = delete_volume(vols, name, with_snapshots, err);
	fmutex_unlock(&vols->change);
	return rc;
}

/* --- rename and resize -------------------------------------------------------------------------------------- */

static int put_volume(struct volumes *vols, const struct volume_state *vol, const char *name, uint64_t size_bytes,
		      uint32_t flags)
{
	struct volume_format f = volume_to_format(vol);
	struct cat_txn txn;
	int rc;

	f.size_bytes = le64_of(size_bytes);
	f.flags = le32_of(flags);
	memset(f.name, 0, sizeof(f.name));
	memcpy(f.name, name, strlen(name));
	cat_txn_init(&txn);
	cat_put(&txn, CAT_VOLUME, vol->id, &f, sizeof(f));
	rc = pool_commit(vols->pool, &txn);
	cat_txn_release(&txn);
	return rc;
}

/* "VOLUME@NEW" for a snapshot "VOLUME@OLD". */
static int check_new_snapshot_name(struct volumes *vols, const struct volume_state *vol, const char *name, const char *new_name,
				   struct err *err)
{
	size_t of_len = strcspn(name, "@");

	if (strcspn(new_name, "@") != of_len || memcmp(new_name, name, of_len + 1) != 0)
		return err_set(err, -EINVAL, "a snapshot stays with its volume: its new name must be '%.*s@NAME'", (int)of_len,
			       name);
	return directory_check_snapshot(vols, vol->volume, new_name + of_len + 1, err);
}

int volume_rename(struct volumes *vols, const char *name, const char *new_name, struct err *err)
{
	struct volume_state *vol;
	int rc;

	fmutex_lock(&vols->change);
	rc = directory_need(vols, name, &vol, err);
	if (rc == 0)
		rc = vol->flags & VOLUME_SNAPSHOT ? check_new_snapshot_name(vols, vol, name, new_name, err) :
						    directory_check_new(vols, new_name, err);
	if (rc == 0) {
		const char *own = vol->flags & VOLUME_SNAPSHOT ? strchr(new_name, '@') + 1 : new_name;

		rc = put_volume(vols, vol, own, vol->size_bytes, vol->flags);
		if (rc < 0)
			directory_commit_error(err, rc, "rename volume", name);
		else
			directory_set_name(vols, vol, own);
	}
	fmutex_unlock(&vols->change);
	return rc;
}

struct resize_call {
	struct volume_state *vol;
	uint64_t size_bytes;
};

static int resize_on_home(void *arg)
{
	struct resize_call *call = arg;
	struct volume_state *vol = call->vol;

	vol->size_bytes = call->size_bytes;
	list_for_each_safe(node, next, &vol->watches) {
		struct volume_watch *watch = list_entry(node, struct volume_watch, node);

		watch->resized(watch);
	}
	return 0;
}

/* Unmaps what is beyond the size, durably. */
static int trim_on_home(void *arg)
{
	struct volume_state *vol = arg;
	int rc = 0;

	if (vol->size_bytes < VOLUME_SIZE_MAX)
		rc = lineage_request(vol, VIO_DISCARD, vol->size_bytes, VOLUME_SIZE_MAX - vol->size_bytes);
	return rc < 0 ? rc : lineage_request(vol, VIO_FLUSH, 0, 0);
}

/* Finishes a trim that is pending: before that the volume must not grow. */
static int trim(struct volumes *vols, struct volume_state *vol, struct err *err)
{
	int rc = fiber_call_on(vol->lin->loop, trim_on_home, vol);

	if (rc < 0)
		return err_set(err, rc, "cannot give back the space beyond the end of volume '%s'; try again", vol->name);
	rc = put_volume(vols, vol, vol->name, vol->size_bytes, vol->flags & ~VOLUME_TRIM_PENDING);
	if (rc < 0)
		return directory_commit_error(err, rc, "resize volume", vol->name);
	vol->flags &= ~VOLUME_TRIM_PENDING;
	return 0;
}

static int resize(struct volumes *vols, struct volume_state *vol, uint64_t size_bytes, struct err *err)
{
	struct resize_call call = { vol, size_bytes };
	uint32_t flags = vol->flags | (size_bytes < vol->size_bytes ? VOLUME_TRIM_PENDING : 0);
	int rc = put_volume(vols, vol, vol->name, size_bytes, flags);

	if (rc < 0)
		return directory_commit_error(err, rc, "resize volume", vol->name);
	vol->flags = flags;
	directory_call(vol->lin->loop, resize_on_home, &call);
	return flags & VOLUME_TRIM_PENDING ? trim(vols, vol, err) : 0;
}

int volume_resize(struct volumes *vols, const char *name, uint64_t size_bytes, struct err *err)
{
	struct volume_state *vol;
	int rc;

	fmutex_lock(&vols->change);
	rc = directory_need(vols, name, &vol, err);
	if (rc == 0 && vol->flags & VOLUME_SNAPSHOT)
		rc = err_set(err, -EROFS, "a snapshot cannot be resized: make a clone of '%s'", name);
	if (rc == 0)
		rc = check_size(&size_bytes, err);
	if (rc == 0 && vol->lin->damage[0])
		rc = err_set(err, -EIO, "volume '%s' is damaged: %s", name, vol->lin->damage);
	if (rc == 0 && (vol->flags & VOLUME_TRIM_PENDING))
		rc = trim(vols, vol, err);
	if (rc == 0 && size_bytes != vol->size_bytes)
		rc = resize(vols, vol, size_bytes, err);
	fmutex_unlock(&vols->change);
	return rc;
}

/* --- information -------------------------------------------------------------------------------------------- */

struct info_call {
	struct volume_state *vol;
	struct volume_info *info;
};

static int info_on_home(void *arg)
{
	const struct info_call *call = arg;
	const struct volume_state *vol = call->vol;
	const struct lineage *lin = vol->lin;
	struct volume_info *info = call->info;

	info->size_bytes = vol->size_bytes;
	info->mapped_blocks = vol->mapped_blocks;
	for (uint32_t i = 0; i < vol->layers; i++)
		info->mapped_blocks += vol->layer[i]->changes.items.count - vol->layer[i]->changes.holes;
	for (uint32_t i = 0; i < lin->segs_cap; i++)
		info->segments += lin->segs[i] && lseg_has_zones(lin->segs[i]);
	info->parked = lin->nospace && (!list_empty(&lin->wait_writes) || lin->slow[SLOW_WRITES].running > 0);
	info->full = volume_is_full(vol);
	info->failed = lin->failed != 0;
	info->recovery_us = lin->recovery_us;
	info->counters = vol->counters;
	info->counters.data_bytes_written = lin->counters.data_bytes_written;
	info->counters.meta_bytes_written = lin->counters.meta_bytes_written;
	info->counters.batches = lin->counters.batches;
	info->counters.checkpoints = lin->counters.checkpoints;
	info->counters.cleaned_segments = lin->counters.cleaned_segments;
	info->counters.checksum_errors += lin->counters.checksum_errors;
	info->counters.map_cache_hits = lin->vl->cache.hits;
	info->counters.map_cache_misses = lin->vl->cache.misses;
	return 0;
}

static int fill_info(struct volume_state *vol, struct volume_info *info)
{
	struct info_call call = { vol, info };
	const struct volume_state *origin;

	*info = (struct volume_info){ .id = vol->id, .created_s = vol->created_s, .policy = vol->lin->policy,
				      .home = vol->lin->loop->index, .opens = vol->opens, .options = vol->options };
	info->epoch = vol->epoch;
	info->held = vol->busy_epoch > 0;
	strcpy(info->holder, vol->holder);
	info->snapshot = vol->flags & VOLUME_SNAPSHOT;
	info->receiving = vol->flags & VOLUME_RECEIVING;
	info->guid = vol->guid;

	info->snapshots = vol->snapshot_count;
	directory_name(vol, info->name);
	origin = vol->origin != NUMBER_NONE ? directory_find_number(vol->vols, vol->lin, vol->origin) : NULL;
	if (origin)
		directory_name(origin, info->origin);
	return fiber_call_on(vol->lin->loop, info_on_home, &call);
}

static int by_name(const void *a, const void *b)
{
	char x[VOLUME_NAME_BYTES], y[VOLUME_NAME_BYTES];

	directory_name(*(struct volume_state *const *)a, x);
	directory_name(*(struct volume_state *const *)b, y);
	return strcmp(x, y);
}

static struct volume_state **sorted_volumes(struct volumes *vols, uint32_t *count)
{
	struct volume_state **all;
	uint32_t n = 0;

	list_for_each(node, &vols->volumes)
		n++;
	all = mem_alloc((n + 1) * sizeof(struct volume_state *));
	if (!all)
		return NULL;
	n = 0;
	list_for_each(node, &vols->volumes)
		all[n++] = list_entry(node, struct volume_state, dir);
	qsort(all, n, sizeof(struct volume_state *), by_name);
	*count = n;
	return all;
}

int volume_for_each(struct volumes *vols, int (*fn)(void *arg, const struct volume_info *info), void *arg)
{
	struct volume_state **all;
	uint32_t count = 0;
	int rc;

	fmutex_lock(&vols->directory);
	all = sorted_volumes(vols, &count);
	rc = all ? 0 : -ENOMEM;
	for (uint32_t i = 0; i < count && rc == 0; i++) {
		struct volume_info info;

		rc = fill_info(all[i], &info);
		if (rc == 0)
			rc = fn(arg, &info);
	}
	mem_free(all);
	fmutex_unlock(&vols->directory);
	return rc;
}

int volume_get_info(struct volumes *vols, const char *name, struct volume_info *info, struct err *err)
{
	struct volume_state *vol;
	int rc;

	fmutex_lock(&vols->directory);
	rc = directory_need(vols, name, &vol, err);
	if (rc == 0)
		rc = fill_info(vol, info);
	fmutex_unlock(&vols->directory);
	return rc;
}

void volumes_count(const struct volumes *vols, uint64_t *volume_count, uint64_t *snapshot_count)
{
	*volume_count = *snapshot_count = 0;
	list_for_each(node, &vols->volumes) {
		bool snapshot = list_entry(node, struct volume_state, dir)->flags & VOLUME_SNAPSHOT;

		*volume_count += !snapshot;
		*snapshot_count += snapshot;
	}
}

/* --- handles ------------------------------------------------------------------------------------------------ */

int volume_open(struct volumes *vols, const char *name, struct volume **out, struct err *err)
{
	struct volume *volume = mem_zalloc(sizeof(*volume));
	struct volume_state *vol;
	int rc;

	if (!volume)
		return err_set(err, -ENOMEM, "cannot open volume '%s': out of memory", name);
	fmutex_lock(&vols->change);
	rc = directory_need(vols, name, &vol, err);
	if (rc == 0 && vol->lin->damage[0])
		rc = err_set(err, -EIO, "volume '%s' is damaged: %s", name, vol->lin->damage);
	if (rc == 0) {
		vol->opens++;
		volume->state = vol;
		*out = volume;
	}
	fmutex_unlock(&vols->change);
	if (rc < 0)
		mem_free(volume);
	return rc;
}

struct volume *volume_dup(const struct volume *volume)
{
	struct volume *dup = mem_zalloc(sizeof(*dup));

	if (!dup)
		return NULL;
	dup->state = volume->state;
	dup->state->opens++;
	return dup;
}

void volume_close(struct volume *volume)
{
	volume_rest(volume);
	volume->state->opens--;
	mem_free(volume);
}

struct loop *volume_loop(const struct volume *volume)
{
	return volume->state->lin->loop;
}

uint64_t volume_id(const struct volume *volume)
{
	return volume->state->id;
}

uint64_t volume_size_bytes(const struct volume *volume)
{
	return volume->state->size_bytes;
}

void volume_watch_add(struct volume *volume, struct volume_watch *watch)
{
	list_push_back(&volume->state->watches, &watch->node);
}

void volume_watch_del(struct volume_watch *watch)
{
	list_del(&watch->node);
}

static int checkpoint_on_home(void *arg)
{
	return checkpoint_run(arg);
}

int volume_checkpoint(struct volumes *vols, const char *name, struct err *err)
{
	struct volume_state *vol;
	int rc;

	fmutex_lock(&vols->change);
	rc = directory_need(vols, name, &vol, err);
	if (rc == 0) {
		rc = fiber_call_on(vol->lin->loop, checkpoint_on_home, vol->lin);
		if (rc < 0)
			err_set(err, rc, "checkpoint of volume '%s' failed", name);
	}
	fmutex_unlock(&vols->change);
	return rc;
}
