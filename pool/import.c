/* Importing a pool: labels, catalog, membership, segments; nothing is written before all of it has been checked.
 *
 * The labels say which pool the disks belong to and where on them the catalog lies; the catalog's CAT_DISK objects say
 * which disks the pool consists of, and which of them are out. A disk that is missing or stale (its catalog ends before the
 * last acknowledged transaction) is out from now on, if no more disks are out than the policies in use allow and every
 * segment is whole without them. When all is well, a fresh checkpoint is written on all disks that are in use: then they
 * agree, whatever a crash left behind. Disks that were out and are here come back. */
#include <errno.h>
#include <inttypes.h>
#include <stdatomic.h>
#include <string.h>

#include "pool/base/mem.h"
#include "pool/pool_int.h"
#include "pool/segment_format.h"

/* --- labels ------------------------------------------------------------------------------------------------------ */

static int read_labels(struct disk **disks, uint32_t disk_count, struct label *labels, struct err *err)
{
	for (uint32_t i = 0; i < disk_count; i++) {
		int ret = label_read(disks[i], &labels[i], err);

		if (ret)
			return err_prefix(err, ret, "disk '%s'", disks[i]->uri);
	}
	return 0;
}

static int check_pair(struct disk **disks, const struct label *labels, uint32_t a, uint32_t b, struct err *err)
{
	if (!uuid_equal(&labels[a].pool_uuid, &labels[b].pool_uuid))
		return err_set(err, -EINVAL, "disk '%s' belongs to pool '%s', disk '%s' to pool '%s'%s", disks[a]->uri,
			       labels[a].pool_name, disks[b]->uri, labels[b].pool_name,
			       strcmp(labels[a].pool_name, labels[b].pool_name) ? ""
										: " (another one of the same name)");
	if (uuid_equal(&labels[a].disk_uuid, &labels[b].disk_uuid) || labels[a].disk_id == labels[b].disk_id)
		return err_set(err, -EINVAL,
			       "disks '%s' and '%s' both say that they are disk %u: one is a copy of the other",
			       disks[a]->uri, disks[b]->uri, labels[a].disk_id);
	if (labels[a].zone_bytes != labels[b].zone_bytes)
		return err_set(err, -EUCLEAN, "disks '%s' and '%s' have different zone sizes", disks[a]->uri,
			       disks[b]->uri);
	return 0;
}

static int check_labels(struct disk **disks, const struct label *labels, uint32_t disk_count, struct err *err)
{
	for (uint32_t a = 1; a < disk_count; a++)
		for (uint32_t b = 0; b < a; b++) {
			int ret = check_pair(disks, labels, b, a, err);

			if (ret)
				return ret;
		}
	return 0;
}

/* --- properties ------------------------------------------------------------------------------------------------------ */

static int load_properties(struct pool *pool, struct err *err)
{
	const struct cat_obj *obj = catalog_get(pool->catalog, CAT_POOL, 0);
	const struct pool_payload *payload = obj ? obj->data : NULL;

	if (!obj)
		return 0;
	if (obj->len_bytes != sizeof(*payload) || le32_get(payload->losses_max) >= SEGMENT_COLS_MAX ||
	    le32_get(payload->zero))
		return err_set(err, -EUCLEAN, "the catalog's entry of the pool makes no sense");
	pool->losses_max = le32_get(payload->losses_max);
	return 0;
}

/* --- membership ---------------------------------------------------------------------------------------------------- */

struct membership {
	struct pool *pool;
	struct err *err;
	uint32_t members, missing;
	struct uuid missing_uuid; /* of the first one */
	uint32_t missing_id;
};

static const struct cat_disk *cat_disk_of(const struct pool *pool, const struct pool_disk *pd)
{
	const struct catalog *cat = pool->catalog;

	for (uint32_t i = 0; i < cat->disk_count; i++)
		if (cat->disks[i]->disk == pd->disk)
			return cat->disks[i];
	return NULL;
}

static int note_missing(struct membership *ms, uint32_t id, const struct disk_payload *payload)
{
	struct label label = {
		.disk_id = id,
		.pool_uuid = ms->pool->uuid,
		.disk_bytes = le64_get(payload->disk_bytes),
		.zone_count = le32_get(payload->zone_count),
		.zone_bytes = ms->pool->zone_bytes,
	};

	memcpy(label.disk_uuid.b, payload->uuid, sizeof(payload->uuid));
	if (!ms->missing++) {
		ms->missing_uuid = label.disk_uuid;
		ms->missing_id = id;
	}
	if (label.zone_count == 0 || label.zone_count > label.disk_bytes / label.zone_bytes)
		return err_set(ms->err, -EUCLEAN, "the catalog's entry of disk %u makes no sense", id);
	return pool_attach_missing(ms->pool, &label) ? err_set(ms->err, -ENOMEM, "out of memory") : 0;
}

static bool payload_matches(const struct disk_payload *payload, const struct label *label)
{
	return memcmp(payload->uuid, label->disk_uuid.b, sizeof(payload->uuid)) == 0 &&
	       le64_get(payload->disk_bytes) == label->disk_bytes && le32_get(payload->zone_count) == label->zone_count;
}

/* A disk that is out has not been used without the others since. */
static bool stayed_away(const struct disk_payload *payload, const struct cat_stamp *own)
{
	uint64_t left = le64_get(payload->left_generation);

	return own->generation < left || (own->generation == left && own->stamp == le64_get(payload->left_stamp));
}

static int check_present(struct membership *ms, struct pool_disk *pd, const struct disk_payload *payload)
{
	const struct cat_disk *cd = cat_disk_of(ms->pool, pd);
	bool out = pd->state == DISK_FAILED || pd->state == DISK_OFFLINE;

	if (!payload_matches(payload, &pd->label))
		return err_set(ms->err, -EUCLEAN, "disk '%s' is not the disk %u that the pool knows", pd->disk->uri,
			       pd->label.disk_id);
	if (out && !stayed_away(payload, &cd->own))
		return err_set(ms->err, -EINVAL,
			       "disk '%s' and the others were used without each other: leave it out, or leave them out",
			       pd->disk->uri);
	atomic_store(&pd->failed, out || cd->stale);
	zones_set_in_use(&ms->pool->zones, pd->label.disk_id, !out && !cd->stale);
	return 0;
}

static int check_member(void *arg, const struct cat_obj *obj)
{
	struct membership *ms = arg;
	const struct disk_payload *payload = obj->data;
	struct pool_disk *pd;
	int ret = 0;

	if (obj->id >= POOL_DISKS_MAX || obj->len_bytes != sizeof(*payload) || le32_get(payload->state) >= DISK_STATES)
		return err_set(ms->err, -EUCLEAN, "the catalog's entry of disk %" PRIu64 " makes no sense", obj->id);
	ms->members++;
	pd = ms->pool->disks[obj->id];
	if (!pd)
		ret = note_missing(ms, (uint32_t)obj->id, payload);
	if (ret)
		return ret;
	ms->pool->disks[obj->id]->state = le32_get(payload->state);
	return pd ? check_present(ms, pd, payload) : 0;
}

static int refuse_missing(const struct membership *ms)
{
	char uuid_text[37];

	uuid_to_text(&ms->missing_uuid, uuid_text);
	return err_set(ms->err, -ENODEV, "%u of its %u disks %s missing: disk %u (uuid %s)%s", ms->missing, ms->members,
		       ms->missing == 1 ? "is" : "are", ms->missing_id, uuid_text, ms->missing == 1 ? "" : ", ...");
}

static int check_members(struct membership *ms)
{
	struct pool *pool = ms->pool;
	int ret = catalog_for_each(pool->catalog, CAT_DISK, check_member, ms);

	if (ret)
		return ret;
	for (uint32_t id = 0; id < POOL_DISKS_MAX; id++)
		if (pool->disks[id] && !catalog_get(pool->catalog, CAT_DISK, id))
			return err_set(ms->err, -EINVAL,
				       "disk '%s' is not part of it (was adding it interrupted?): leave it out",
				       pool->disks[id]->disk->uri);
	return 0;
}

/* The first disk that is here, but older than the others. */
static const struct pool_disk *stale_disk(const struct pool *pool, uint32_t *count)
{
	const struct pool_disk *first = NULL;

	*count = 0;
	for (uint32_t id = 0; id < POOL_DISKS_MAX; id++) {
		const struct pool_disk *pd = pool->disks[id];

		if (!pd || !pd->disk || pd->state == DISK_FAILED || pd->state == DISK_OFFLINE || !atomic_load(&pd->failed))
			continue;
		first = first ? first : pd;
		++*count;
	}
	return first;
}

/* Are the disks that are neither missing nor stale enough? Segments without parity also live on disks that are out. */
static int check_enough(struct membership *ms, bool *without_some)
{
	uint32_t stale_count;
	const struct pool_disk *stale = stale_disk(ms->pool, &stale_count);
	uint64_t grant;
	bool few = ms->missing + stale_count > ms->pool->losses_max;

	*without_some = ms->missing + stale_count > 0;
	if (!*without_some || (!few && segments_whole_without(ms->pool, DISK_NONE, &grant)))
		return 0;
	if (ms->missing)
		return refuse_missing(ms);
	return err_set(ms->err, -EUCLEAN,
		       "disk '%s' is older than the others: it missed transactions while it was away", stale->disk->uri);
}

/* --- import -------------------------------------------------------------------------------------------------------- */

static int import_attach(struct pool *pool, struct disk **disks, const struct label *labels, uint32_t disk_count,
			 struct err *err)
{
	for (uint32_t i = 0; i < disk_count; i++)
		if (pool_attach(pool, disks[i], &labels[i]))
			return err_set(err, -ENOMEM, "out of memory");
	return 0;
}

/* Making a pool may have been cut short after the first copy of a label. It must not stay the only one: when it is next
 * written again, a crash could tear it. Writing the same bytes over it now cannot. */
static int complete_labels(struct pool *pool, struct err *err)
{
	for (uint32_t id = 0; id < POOL_DISKS_MAX; id++) {
		struct pool_disk *pd = pool->disks[id];
		int ret = pd && pd->disk ? label_is_complete(pd->disk, &pd->label) : 1;

		if (ret == 0)
			ret = label_write(pd->disk, &pd->label, err);
		if (ret < 0)
			return ret == -ENOMEM ? err_set(err, ret, "out of memory") : ret;
	}
	return 0;
}

static int take_back(struct pool *pool, struct err *err)
{
	int ret = 0;

	for (uint32_t id = 0; id < POOL_DISKS_MAX && !ret; id++) {
		struct pool_disk *pd = pool->disks[id];

		if (pd && pd->disk && pd->state == DISK_FAILED)
			ret = pool_rejoin(pool, pd, true, err);
	}
	return ret;
}

static int import_checked(struct pool *pool, struct disk **disks, const struct label *labels, uint32_t disk_count,
			  struct err *err)
{
	struct membership ms = { .pool = pool, .err = err };
	int ret = import_attach(pool, disks, labels, disk_count, err);
	bool without_some = false;

	if (!ret)
		ret = catalog_load(pool->catalog, err);
	if (!ret)
		ret = load_properties(pool, err);
	if (!ret)
		ret = check_members(&ms);
	if (!ret)
		ret = segments_load(pool, err);
	if (!ret)
		ret = check_enough(&ms, &without_some);
	if (!ret)
		ret = complete_labels(pool, err);
	if (ret)
		return ret;
	ret = catalog_resume(pool->catalog, without_some);
	return ret ? err_set(err, ret, "cannot write the catalog: %s", strerror(-ret)) : take_back(pool, err);
}

static int import_labelled(struct disk **disks, const struct label *labels, uint32_t disk_count, struct pool **out,
			   struct err *err)
{
	struct pool *pool;
	int ret = check_labels(disks, labels, disk_count, err);

	if (ret)
		return ret;
	if (pool_new(&labels[0].pool_uuid, labels[0].pool_name, labels[0].zone_bytes, &pool))
		return err_set(err, -ENOMEM, "out of memory");
	ret = import_checked(pool, disks, labels, disk_count, err);
	if (ret) {
		pool_free(pool);
		return err_prefix(err, ret, "pool '%s'", labels[0].pool_name);
	}
	*out = pool;
	return 0;
}

int pool_import(struct disk **disks, uint32_t disk_count, struct pool **out, struct err *err)
{
	struct label *labels;
	int ret;

	if (disk_count == 0 || disk_count > POOL_DISKS_MAX)
		return err_set(err, -EINVAL, "cannot import: a pool has 1 to %d disks, not %u", POOL_DISKS_MAX,
			       disk_count);
	labels = mem_alloc(disk_count * sizeof(*labels));
	if (!labels)
		return err_set(err, -ENOMEM, "cannot import: out of memory");
	ret = read_labels(disks, disk_count, labels, err);
	if (!ret)
		ret = import_labelled(disks, labels, disk_count, out, err);
	mem_free(labels);
	return ret ? err_prefix(err, ret, "cannot import") : 0;
}
