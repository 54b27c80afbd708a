/* Importing a pool: labels, catalog, membership, segments; nothing is written before all of it has been checked.
 *
 * The labels say which pool the disks belong to and where on them the catalog lies; the catalog's CAT_DISK objects say
 * which disks the pool consists of. As long as every policy needs every disk, all of them must be there. When all is
 * well, a fresh checkpoint is written on all disks: then they agree, whatever a crash left behind. */
#include <errno.h>
#include <inttypes.h>
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

/* --- membership ---------------------------------------------------------------------------------------------------- */

struct membership {
	struct pool *pool;
	struct err *err;
	uint32_t members, missing;
	struct uuid missing_uuid; /* of the first one */
	uint32_t missing_id;
};

static bool payload_matches(const struct disk_payload *payload, const struct label *label)
{
	return memcmp(payload->uuid, label->disk_uuid.b, sizeof(payload->uuid)) == 0 &&
	       le64_get(payload->disk_bytes) == label->disk_bytes && le32_get(payload->zone_count) == label->zone_count;
}

static int check_member(void *arg, const struct cat_obj *obj)
{
	struct membership *ms = arg;
	const struct disk_payload *payload = obj->data;
	const struct pool_disk *pd;

	if (obj->id >= POOL_DISKS_MAX || obj->len_bytes != sizeof(*payload) || le32_get(payload->state))
		return err_set(ms->err, -EUCLEAN, "the catalog's entry of disk %" PRIu64 " makes no sense", obj->id);
	ms->members++;
	pd = ms->pool->disks[obj->id];
	if (!pd) {
		if (!ms->missing++) {
			memcpy(ms->missing_uuid.b, payload->uuid, sizeof(payload->uuid));
			ms->missing_id = (uint32_t)obj->id;
		}
	} else if (!payload_matches(payload, &pd->label)) {
		return err_set(ms->err, -EUCLEAN, "disk '%s' is not the disk %u that the pool knows", pd->disk->uri,
			       pd->label.disk_id);
	}
	return 0;
}

static int refuse_missing(const struct membership *ms)
{
	char uuid_text[37];

	uuid_to_text(&ms->missing_uuid, uuid_text);
	return err_set(ms->err, -ENODEV, "%u of its %u disks %s missing: disk %u (uuid %s)%s", ms->missing, ms->members,
		       ms->missing == 1 ? "is" : "are", ms->missing_id, uuid_text, ms->missing == 1 ? "" : ", ...");
}

static int check_members(struct pool *pool, struct err *err)
{
	struct membership ms = { .pool = pool, .err = err };
	int ret = catalog_for_each(pool->catalog, CAT_DISK, check_member, &ms);

	if (ret)
		return ret;
	if (ms.missing)
		return refuse_missing(&ms);
	for (uint32_t id = 0; id < POOL_DISKS_MAX; id++)
		if (pool->disks[id] && !catalog_get(pool->catalog, CAT_DISK, id))
			return err_set(err, -EINVAL,
				       "disk '%s' is not part of it (was adding it interrupted?): leave it out",
				       pool->disks[id]->disk->uri);
	return 0;
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
		int ret = pd ? label_is_complete(pd->disk, &pd->label) : 1;

		if (ret == 0)
			ret = label_write(pd->disk, &pd->label, err);
		if (ret < 0)
			return ret == -ENOMEM ? err_set(err, ret, "out of memory") : ret;
	}
	return 0;
}

static int import_checked(struct pool *pool, struct disk **disks, const struct label *labels, uint32_t disk_count,
			  struct err *err)
{
	int ret = import_attach(pool, disks, labels, disk_count, err);

	if (!ret)
		ret = catalog_load(pool->catalog, err);
	if (!ret)
		ret = check_members(pool, err);
	if (!ret)
		ret = segments_load(pool, err);
	if (!ret)
		ret = complete_labels(pool, err);
	if (ret)
		return ret;
	/* What was read may stand in the disks' caches only (the last process was killed): it must be durable before the
	 * checkpoint overwrites its predecessor. */
	ret = catalog_flush_all(pool->catalog);
	if (!ret)
		ret = catalog_checkpoint(pool->catalog);
	return ret ? err_set(err, ret, "cannot write the catalog: %s", strerror(-ret)) : 0;
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
