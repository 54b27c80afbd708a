/* Disks that fail, and come back: flushes, and a pool that goes on without some of its disks.
 *
 * A disk fails by a write of the catalog or a flush that fails, by being missing or stale at import, or because somebody
 * says so who got an error from it (pool_lose_disk). From then on `failed` keeps it from being trusted, written or granted.
 * That is made durable by a checkpoint of the catalog on the other disks (pool_lost), before anything is acknowledged that
 * the failed disk may lack. The pool goes on as long as no more disks are out than losses_max, the greatest m in use: so
 * at least one disk has the newest catalog when as many are missing at an import.
 *
 * What a disk may lack is known before it comes back: while it is out, nobody writes to segments that have a column on it,
 * and whoever had written to them and not flushed calls that column lost (volumes/mend.c). Only a disk that is stale at
 * import, which lacks what it had acknowledged, may lack anything: all its columns are lost in the transaction that takes it
 * out. Coming back is one transaction; then its catalog is written anew, and lost columns are mended. */
#include <errno.h>
#include <stdatomic.h>
#include <string.h>

#include "pool/pool_int.h"

/* --- losing ------------------------------------------------------------------------------------------------------- */

uint32_t pool_losses(const struct pool *pool)
{
	uint32_t losses = 0;

	for (uint32_t id = 0; id < POOL_DISKS_MAX; id++)
		losses += pool->disks[id] && atomic_load(&pool->disks[id]->failed);
	return losses;
}

int pool_lost(void *arg, struct cat_txn *txn)
{
	struct pool *pool = arg;

	bool too_many = pool_losses(pool) > pool->losses_max;

	for (uint32_t id = 0; id < POOL_DISKS_MAX; id++) {
		struct pool_disk *pd = pool->disks[id];

		if (!pd || !atomic_load(&pd->failed))
			continue;
		pool_set_use(pool, id);
		if (pd->state == DISK_FAILED || pd->state == DISK_OFFLINE)
			continue;
		if (too_many)
			return -EIO;
		pool_put_disk_object(txn, pd, pd->by_hand ? DISK_OFFLINE : DISK_FAILED, atomic_load(&pd->flags),
				     &pool->catalog->newest);
		if (pd->stale)
			segments_put_lost(pool, id, txn);
	}
	return 0;
}

struct disk_call {
	struct pool *pool;
	uint32_t disk_id;
};

static int lose_home(void *arg)
{
	const struct disk_call *call = arg;
	struct pool *pool = call->pool;
	struct pool_disk *pd = pool->disks[call->disk_id];
	uint64_t without;

	if (!atomic_load(&pd->failed)) {
		if (pool_losses(pool) >= pool->losses_max || !segments_whole_without(pool, call->disk_id, &without))
			return -EIO;
		atomic_store(&pd->failed, true);
	}
	return catalog_settle_losses(pool->catalog);
}

int pool_lose_disk(struct pool *pool, uint32_t disk_id)
{
	struct disk_call call = { pool, disk_id };

	return fiber_call_on(pool->loop, lose_home, &call) ? -EIO : 0;
}

/* --- flushing ----------------------------------------------------------------------------------------------------- */

#define FLUSHES_AT_ONCE 16u

struct flushing {
	uint32_t count, pending;
	struct fiber *fiber;
	struct one_flush {
		struct disk_io io;
		struct pool_disk *pd;
		struct flushing *all;
	} one[FLUSHES_AT_ONCE];
};

static void flush_done(struct disk_io *io, int res)
{
	struct one_flush *one = container_of(io, struct one_flush, io);

	if (res)
		atomic_store(&one->pd->failed, true);
	if (--one->all->pending == 0)
		fiber_wake(one->all->fiber);
}

static void flush_gathered(struct flushing *fl)
{
	fl->fiber = fiber_self();
	fl->pending = fl->count + 1;
	for (uint32_t i = 0; i < fl->count; i++) {
		struct one_flush *one = &fl->one[i];

		one->all = fl;
		one->io = (struct disk_io){ .op = DISK_FLUSH, .done = flush_done };
		disk_submit(one->pd->disk, &one->io);
	}
	fl->pending--;
	while (fl->pending)
		fiber_park();
	fl->count = 0;
}

void pool_flush_disks(struct pool *pool, uint64_t disks[DISK_SET_WORDS])
{
	struct flushing fl;

	fl.count = 0;
	for (uint32_t id = 0; id < POOL_DISKS_MAX; id++) {
		if (!(disks[id / 64] >> id % 64 & 1) || !pool->disks[id])
			continue;
		fl.one[fl.count].pd = pool->disks[id];
		fl.count += pool->disks[id]->disk != NULL;
		if (fl.count == FLUSHES_AT_ONCE)
			flush_gathered(&fl);
	}
	flush_gathered(&fl);
	for (uint32_t id = 0; id < POOL_DISKS_MAX; id++)
		if (disks[id / 64] >> id % 64 & 1 && (!pool->disks[id] || !atomic_load(&pool->disks[id]->failed)))
			disks[id / 64] &= ~(1ull << id % 64);
}

int pool_flush_disk(struct pool *pool, uint32_t disk_id)
{
	uint64_t disks[DISK_SET_WORDS] = { 0 };

	disks[disk_id / 64] = 1ull << disk_id % 64;
	pool_flush_disks(pool, disks);
	return disks[disk_id / 64] ? -EIO : 0;
}

/* --- coming back -------------------------------------------------------------------------------------------------- */

int pool_rejoin(struct pool *pool, struct pool_disk *pd, uint32_t flags, struct err *err)
{
	struct cat_txn txn;
	int ret;

	disk_flush_anew(pd->disk);
	cat_txn_init(&txn);
	pool_put_disk_object(&txn, pd, DISK_ONLINE, flags, NULL);
	ret = catalog_readmit(pool->catalog, pd->disk, &txn);
	cat_txn_release(&txn);
	if (!ret)
		pd->by_hand = pd->stale = false;
	if (ret)
		return err_set(err, ret, "cannot take disk '%s' back: %s", pd->disk->uri, strerror(-ret));
	pool_set_use(pool, pd->label.disk_id);
	return 0;
}
