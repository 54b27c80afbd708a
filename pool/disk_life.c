/* What somebody does to a pool's disks: offline and online, drain, removal, spares, failure domains.
 *
 * Each is one transaction that changes the disk's object in the catalog; what follows from it (mending, moving columns) is the
 * business of whoever has the segments. So an import goes on with whatever was under way. */
#include <errno.h>
#include <inttypes.h>
#include <stdatomic.h>
#include <string.h>

#include "pool/pool_int.h"

static int find_disk(struct pool *pool, uint32_t disk_id, struct pool_disk **pd, struct err *err)
{
	*pd = disk_id < POOL_DISKS_MAX ? pool->disks[disk_id] : NULL;
	return *pd ? 0 : err_set(err, -ENOENT, "pool '%s' has no disk %u", pool->name, disk_id);
}

int pool_check_disk(struct pool *pool, uint32_t disk_id, struct err *err)
{
	struct pool_disk *pd;

	return find_disk(pool, disk_id, &pd, err);
}

bool pool_disk_is_out(const struct pool *pool, uint32_t disk_id)
{
	const struct pool_disk *pd = disk_id < POOL_DISKS_MAX ? pool->disks[disk_id] : NULL;

	return pd && atomic_load(&pd->failed);
}

/* Keeps state and what goes with it. */
static void put_flags(struct pool *pool, const struct pool_disk *pd, uint32_t flags, struct cat_txn *txn)
{
	const struct disk_payload *now = catalog_get(pool->catalog, CAT_DISK, pd->label.disk_id)->data;
	struct cat_stamp left = { le64_get(now->left_generation), le64_get(now->left_stamp) };

	pool_put_disk_object(txn, pd, pd->state, flags, &left);
}

static int commit(struct pool *pool, struct cat_txn *txn, struct err *err)
{
	int ret = catalog_commit(pool->catalog, txn);

	cat_txn_release(txn);
	return ret ? err_set(err, ret, "cannot write the catalog: %s", strerror(-ret)) : 0;
}

static int commit_flags(struct pool *pool, struct pool_disk *pd, uint32_t flags, struct err *err)
{
	struct cat_txn txn;

	if (flags == atomic_load(&pd->flags))
		return 0;
	cat_txn_init(&txn);
	put_flags(pool, pd, flags, &txn);
	return commit(pool, &txn, err);
}

/* --- out and in ------------------------------------------------------------------------------------------------- */

static int offline_locked(struct pool *pool, uint32_t disk_id, struct err *err)
{
	struct pool_disk *pd;
	uint64_t grant;
	int ret = find_disk(pool, disk_id, &pd, err);

	if (ret)
		return ret;
	if (atomic_load(&pd->failed))
		return err_set(err, -EALREADY, "disk %u is out already", disk_id);
	if (pool_losses(pool) >= pool->losses_max)
		return err_set(err, -EBUSY, "pool '%s' cannot do without disk %u: %u of its disks may be out, %u are", pool->name,
			       disk_id, pool->losses_max, pool_losses(pool));
	if (!segments_whole_without(pool, disk_id, &grant))
		return err_set(err, -EBUSY, "pool '%s' cannot do without disk %u: segment %llu has no other copy of it",
			       pool->name, disk_id, (unsigned long long)grant);
	pd->by_hand = true;
	atomic_store(&pd->failed, true);
	ret = catalog_settle_losses(pool->catalog);
	return ret ? err_set(err, ret, "cannot write the catalog") : 0;
}

int pool_disk_offline(struct pool *pool, uint32_t disk_id, struct err *err)
{
	int ret;

	fmutex_lock(&pool->admin_lock);
	ret = offline_locked(pool, disk_id, err);
	fmutex_unlock(&pool->admin_lock);
	return ret;
}

static int online_locked(struct pool *pool, uint32_t disk_id, struct err *err)
{
	struct pool_disk *pd;
	uint32_t flags;
	int ret = find_disk(pool, disk_id, &pd, err);

	if (ret)
		return ret;
	flags = atomic_load(&pd->flags);
	if (!atomic_load(&pd->failed) && !(flags & DISK_GOES))
		return err_set(err, -EALREADY, "disk %u is online already", disk_id);
	if (!pd->disk)
		return err_set(err, -ENODEV, "disk %u is missing: it comes back when the pool is imported with it", disk_id);
	flags &= ~(uint32_t)(DISK_GOES | DISK_DROP);
	return atomic_load(&pd->failed) ? pool_rejoin(pool, pd, flags, err) : commit_flags(pool, pd, flags, err);
}

int pool_disk_online(struct pool *pool, uint32_t disk_id, struct err *err)
{
	int ret;

	fmutex_lock(&pool->admin_lock);
	ret = online_locked(pool, disk_id, err);
	fmutex_unlock(&pool->admin_lock);
	return ret;
}

/* --- drain and removal ------------------------------------------------------------------------------------------- */

static int check_drain(struct pool *pool, uint32_t disk_id, struct err *err)
{
	const struct zone_disk *zd = &pool->zones.disks[disk_id];
	uint64_t others = pool->zones.free - (zd->in_use ? zd->free : 0), need = segments_on_disk(pool, disk_id);
	uint32_t left = zones_disks_in_use(&pool->zones) - zd->in_use, cols = pool->cols_max;
	uint64_t kept = pool->zones.reserve - (zd->in_use ? zd->reserve : 0);

	if (left < cols)
		return err_set(err, -EBUSY, "pool '%s' needs %u disks for its volumes, and %u would be left: add one, or replace the disk",
			       pool->name, cols, left);
	if (others < need + kept)
		return err_set(err, -ENOSPC, "the other disks have no room for what disk %u holds: %" PRIu64 " zones, and %" PRIu64
			       " are free", disk_id, need, others > kept ? others - kept : 0);
	return 0;
}

static int drain_locked(struct pool *pool, uint32_t disk_id, bool drop, struct err *err)
{
	struct pool_disk *pd;
	uint32_t flags;
	int ret = find_disk(pool, disk_id, &pd, err);

	if (ret)
		return ret;
	flags = atomic_load(&pd->flags);
	/* What is on a disk that is out is not safe where it is: as much of it moves as can. */
	if (!atomic_load(&pd->failed) && !(flags & DISK_GOES))
		ret = check_drain(pool, disk_id, err);
	return ret ? ret : commit_flags(pool, pd, (flags & ~(uint32_t)DISK_SPARE) | DISK_GOES | (drop ? DISK_DROP : 0), err);
}

int pool_disk_drain(struct pool *pool, uint32_t disk_id, bool drop, struct err *err)
{
	int ret;

	fmutex_lock(&pool->admin_lock);
	ret = drain_locked(pool, disk_id, drop, err);
	fmutex_unlock(&pool->admin_lock);
	return ret;
}

static int remove_locked(struct pool *pool, uint32_t disk_id, uint64_t *left, struct err *err)
{
	struct pool_disk *pd;
	struct cat_txn txn;
	int ret = find_disk(pool, disk_id, &pd, err);
	bool out;

	if (ret)
		return ret;
	if (pool->removed_count == POOL_DISKS_MAX)
		return err_set(err, -ENOSPC, "too many disks were removed: export and import the pool first");
	out = atomic_load(&pd->failed);
	*left = segments_on_disk(pool, disk_id);
	if (!out && !(atomic_load(&pd->flags) & DISK_GOES))
		return err_set(err, -EBUSY, "disk %u is in use: drain it first, or take it offline", disk_id);
	if (*left)
		return err_set(err, -EBUSY, "%" PRIu64 " segments have a column on disk %u", *left, disk_id);
	cat_txn_init(&txn);
	cat_del(&txn, CAT_DISK, disk_id);
	ret = commit(pool, &txn, err);
	if (ret)
		return ret;
	zones_remove_disk(&pool->zones, disk_id);
	pool->removed[pool->removed_count++] = pd;
	pool->disks[disk_id] = NULL;
	pool->disk_count--;
	if (pd->disk)
		catalog_leave_out(pool->catalog, pd->disk);
	/* So that nobody takes it for a disk of the pool. Should it fail, the import says that it is none. */
	if (!out)
		(void)!label_wipe(pd->disk, err);
	return 0;
}

int pool_disk_remove(struct pool *pool, uint32_t disk_id, uint64_t *left, struct err *err)
{
	int ret;

	fmutex_lock(&pool->admin_lock);
	ret = remove_locked(pool, disk_id, left, err);
	fmutex_unlock(&pool->admin_lock);
	return ret;
}

bool pool_disk_to_drop(const struct pool *pool, uint32_t *disk_id)
{
	for (uint32_t id = 0; id < POOL_DISKS_MAX; id++) {
		const struct pool_disk *pd = pool->disks[id];

		if (!pd || !(atomic_load(&pd->flags) & DISK_DROP) || segments_on_disk(pool, id))
			continue;
		*disk_id = id;
		return true;
	}
	return false;
}

/* --- spares and domains --------------------------------------------------------------------------------------------- */

static struct pool_disk *find_spare(const struct pool *pool)
{
	for (uint32_t id = 0; id < POOL_DISKS_MAX; id++) {
		struct pool_disk *pd = pool->disks[id];

		if (pd && atomic_load(&pd->flags) & DISK_SPARE && !atomic_load(&pd->failed))
			return pd;
	}
	return NULL;
}

static int take_spare_locked(struct pool *pool, uint32_t failed_id, struct err *err)
{
	struct pool_disk *pd, *spare = find_spare(pool);
	struct cat_txn txn;
	int ret = find_disk(pool, failed_id, &pd, err);

	if (ret)
		return ret;
	if (!spare || !atomic_load(&pd->failed))
		return err_set(err, -ENODEV, spare ? "disk %u has not failed" : "there is no spare for disk %u", failed_id);
	cat_txn_init(&txn);
	put_flags(pool, pd, atomic_load(&pd->flags) | DISK_GOES, &txn);
	put_flags(pool, spare, atomic_load(&spare->flags) & ~(uint32_t)DISK_SPARE, &txn);
	return commit(pool, &txn, err);
}

int pool_take_spare(struct pool *pool, uint32_t failed_id, struct err *err)
{
	int ret;

	fmutex_lock(&pool->admin_lock);
	ret = take_spare_locked(pool, failed_id, err);
	fmutex_unlock(&pool->admin_lock);
	return ret;
}

static int set_domain_locked(struct pool *pool, uint32_t disk_id, const char *domain, struct err *err)
{
	char before[DISK_DOMAIN_BYTES];
	struct pool_disk *pd;
	struct cat_txn txn;
	int ret = find_disk(pool, disk_id, &pd, err);

	if (ret)
		return ret;
	memcpy(before, pd->domain, sizeof(before));
	ret = pool_set_domain(pd, domain, err);
	if (ret)
		return ret;
	cat_txn_init(&txn);
	put_flags(pool, pd, atomic_load(&pd->flags), &txn);
	ret = commit(pool, &txn, err);
	if (ret)
		memcpy(pd->domain, before, sizeof(before));
	return ret;
}

int pool_disk_set_domain(struct pool *pool, uint32_t disk_id, const char *domain, struct err *err)
{
	int ret;

	fmutex_lock(&pool->admin_lock);
	ret = set_domain_locked(pool, disk_id, domain, err);
	fmutex_unlock(&pool->admin_lock);
	return ret;
}
