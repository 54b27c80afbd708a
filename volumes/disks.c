/* What lineages have to do when disks go and come back: see volumes_disk_online and its kin in volume.h. */
#include <errno.h>
#include <string.h>

#include "volumes/directory.h"

#define REMOVE_POLL_NS (100ull * 1000 * 1000)
#define REMOVE_STALL_POLLS 300u  /* without progress: there is no room */

struct mend_call {
	struct lineage *lin;
	uint32_t disk_id;
	struct mend_info *info;
};

static int each_lineage(struct volumes *vols, int (*fn)(void *arg), struct mend_call *call)
{
	int rc = 0;

	list_for_each(node, &vols->lineages) {
		call->lin = list_entry(node, struct lineage, node);
		if (rc == 0 && !call->lin->damage[0])
			rc = fiber_call_on(call->lin->loop, fn, call);
	}
	return rc;
}

static int lose_on_home(void *arg)
{
	const struct mend_call *call = arg;

	return mend_lose_disk(call->lin, call->disk_id);
}

static int mend_on_home(void *arg)
{
	const struct mend_call *call = arg;

	mend_start(call->lin, false);
	return 0;
}

static int scrub_on_home(void *arg)
{
	const struct mend_call *call = arg;

	mend_start(call->lin, true);
	return 0;
}

static int mend_info_on_home(void *arg)
{
	const struct mend_call *call = arg;
	const struct lineage *lin = call->lin;

	call->info->running |= lin->mending;
	call->info->blocks += lin->mend_stats.blocks;
	call->info->mended += lin->mend_stats.mended;
	call->info->lost += lin->mend_stats.lost;
	return 0;
}

int volumes_disk_online(struct volumes *vols, uint32_t disk_id, struct err *err)
{
	struct mend_call call = { .disk_id = disk_id };
	int rc;

	fmutex_lock(&vols->change);
	rc = each_lineage(vols, lose_on_home, &call);
	if (rc < 0)
		err_set(err, rc, "cannot note what disk %u has missed: %s", disk_id, strerror(-rc));
	else
		rc = pool_disk_online(vols->pool, disk_id, err);
	if (rc == 0)
		(void)!each_lineage(vols, mend_on_home, &call);
	fmutex_unlock(&vols->change);
	return rc;
}

int volumes_disk_remove(struct volumes *vols, uint32_t disk_id, struct err *err)
{
	struct mend_call call = { .disk_id = disk_id };
	uint64_t left = 0, before = UINT64_MAX;
	int rc = pool_disk_leave(vols->pool, disk_id, err);

	if (rc < 0)
		return rc;
	for (uint32_t still = 0; (rc = pool_disk_remove(vols->pool, disk_id, &left, err)) == -EBUSY; still++) {
		if (left < before)
			still = 0;
		before = left;
		if (still == REMOVE_STALL_POLLS)
			return err_set(err, -ENOSPC, "cannot remove disk %u: the other disks have no room for %llu segments' columns",
				       disk_id, (unsigned long long)left);
		fmutex_lock(&vols->change);
		(void)!each_lineage(vols, mend_on_home, &call);
		fmutex_unlock(&vols->change);
		fiber_sleep_ns(REMOVE_POLL_NS);
	}
	return rc;
}

int volumes_scrub(struct volumes *vols)
{
	struct mend_call call = { 0 };
	int rc;

	fmutex_lock(&vols->change);
	rc = each_lineage(vols, scrub_on_home, &call);
	fmutex_unlock(&vols->change);
	return rc;
}

int volumes_mend_info(struct volumes *vols, struct mend_info *info)
{
	struct mend_call call = { .info = info };
	int rc;

	*info = (struct mend_info){ 0 };
	fmutex_lock(&vols->directory);
	rc = each_lineage(vols, mend_info_on_home, &call);
	fmutex_unlock(&vols->directory);
	return rc;
}
