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
	struct error_list *errors;
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
	call->info->scrubbing |= lin->scrub_wanted;
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
	rc = pool_disk_is_out(vols->pool, disk_id) ? each_lineage(vols, lose_on_home, &call) : 0;
	if (rc < 0)
		err_set(err, rc, "cannot note what disk %u has missed: %s", disk_id, strerror(-rc));
	else
		rc = pool_disk_online(vols->pool, disk_id, err);
	if (rc == 0)
		(void)!each_lineage(vols, mend_on_home, &call);
	vols->rebuild.counted = false;
	fmutex_unlock(&vols->change);
	return rc;
}

static void mend_everywhere(struct volumes *vols)
{
	struct mend_call call = { 0 };

	vols->rebuild.counted = false;
	fmutex_lock(&vols->change);
	(void)!each_lineage(vols, mend_on_home, &call);
	fmutex_unlock(&vols->change);
}

/* --- drain, removal, replacement ---------------------------------------------------------------------------------- */

int volumes_disk_drain(struct volumes *vols, uint32_t disk_id, struct err *err)
{
	int rc = pool_disk_drain(vols->pool, disk_id, false, err);

	if (rc == 0)
		mend_everywhere(vols);
	return rc;
}

int volumes_disk_remove(struct volumes *vols, uint32_t disk_id, struct err *err)
{
	uint64_t left = 0, before = UINT64_MAX;
	int rc = pool_disk_remove(vols->pool, disk_id, &left, err);

	if (rc != -EBUSY || left == 0)
		return rc;
	rc = pool_disk_drain(vols->pool, disk_id, true, err);
	for (uint32_t still = 0; rc == 0 && still < REMOVE_STALL_POLLS; still++) {
		mend_everywhere(vols);
		fiber_sleep_ns(REMOVE_POLL_NS);
		rc = pool_disk_remove(vols->pool, disk_id, &left, err);
		if (rc != -EBUSY)
			return rc == -ENOENT ? 0 : rc; /* it was dropped */
		if (left < before)
			still = 0;
		before = left;
		rc = 0;
	}
	return rc < 0 ? rc
		      : err_set(err, -ENOSPC,
				"cannot remove disk %u: the other disks have no room for %llu segments' columns", disk_id,
				(unsigned long long)left);
}

int volumes_disk_replace(struct volumes *vols, uint32_t disk_id, struct disk *disk, const struct pool_add_opts *opts,
			 struct err *err)
{
	int rc = pool_check_disk(vols->pool, disk_id, err);

	if (rc == 0)
		rc = pool_add_disk(vols->pool, disk, opts, err);
	if (rc < 0)
		return rc;
	/* The new disk stays in the pool, whatever follows. */
	rc = pool_disk_drain(vols->pool, disk_id, true, err);
	if (rc == 0)
		mend_everywhere(vols);
	else
		err_prefix(err, rc, "disk '%s' is part of the pool now, but", disk->uri);
	return rc < 0 ? 1 : 0;
}

/* --- care --------------------------------------------------------------------------------------------------------- */

#define RETRY_NS (10ull * 1000 * 1000 * 1000) /* after a disk has failed; then twice as long each time */
#define RETRY_DOUBLINGS_MAX 6u
#define SPARE_AFTER_NS_DEFAULT (300ull * 1000 * 1000 * 1000)

/* What failed may have been a cable. */
static void try_to_take_back(struct volumes *vols, uint32_t disk_id, struct disk_care *care, uint64_t now_ns)
{
	struct err ignored;

	care->retry_ns = now_ns + (RETRY_NS << (care->retries < RETRY_DOUBLINGS_MAX ? care->retries : RETRY_DOUBLINGS_MAX));
	care->retries++;
	(void)!volumes_disk_online(vols, disk_id, &ignored);
}

static void care_for(struct volumes *vols, const struct pool_disk_info *info, uint64_t now_ns)
{
	uint64_t spare_after_ns = vols->opts.spare_after_ns ? vols->opts.spare_after_ns : SPARE_AFTER_NS_DEFAULT;
	struct disk_care *care = &vols->care[info->id];
	struct err ignored;

	if (!info->failed || info->goes) {
		care->failed_ns = 0;
		return;
	}
	if (care->failed_ns == 0) {
		care->failed_ns = now_ns;
		care->retry_ns = now_ns + (RETRY_NS << (care->retries < RETRY_DOUBLINGS_MAX ? care->retries : RETRY_DOUBLINGS_MAX));
	}
	if (info->uri[0] && now_ns >= care->retry_ns)
		try_to_take_back(vols, info->id, care, now_ns);
	else if (now_ns - care->failed_ns >= spare_after_ns)
		(void)!pool_take_spare(vols->pool, info->id, &ignored);
}

/* Counting goes through all segments: only while there may be something to count. */
static void note_rebuild(struct volumes *vols, bool trouble, uint64_t now_ns)
{
	struct rebuild *r = &vols->rebuild;

	if (r->counted && !trouble && r->left == 0)
		return;
	r->counted = true;
	pool_get_rebuild(vols->pool, &r->left, &r->done);
	r->now_ns = now_ns;
	if (r->left > 0 && r->since_ns)
		return;
	r->since_ns = r->left > 0 ? now_ns : 0;
	r->done_before = r->done;
}

static void scrub_by_schedule(struct volumes *vols, uint64_t now_ns)
{
	if (vols->opts.scrub_every_ns == 0 || now_ns - vols->scrubbed_ns < vols->opts.scrub_every_ns)
		return;
	vols->scrubbed_ns = now_ns;
	(void)!volumes_scrub(vols);
}

static bool drop_drained(struct volumes *vols)
{
	bool dropped = false;
	uint64_t left;
	struct err ignored;
	uint32_t id;

	while (pool_disk_to_drop(vols->pool, &id) && pool_disk_remove(vols->pool, id, &left, &ignored) == 0)
		dropped = true;
	return dropped;
}

bool volumes_tend(struct volumes *vols)
{
	uint64_t now_ns = loop_now_ns(vols->loop);
	struct pool_disk_info disk;
	struct pool_info info;
	bool trouble = false;

	pool_get_info(vols->pool, &info);
	for (uint32_t i = 0; i < info.disk_count; i++) {
		pool_get_disk_info(vols->pool, i, &disk);
		trouble |= disk.out || disk.goes;
		care_for(vols, &disk, now_ns);
		pool_get_info(vols->pool, &info);
	}
	scrub_by_schedule(vols, now_ns);
	note_rebuild(vols, trouble, now_ns);
	if (pool_note_fill(vols->pool) || vols->rebuild.left > 0)
		mend_everywhere(vols);
	return drop_drained(vols);
}

/* --- scrub -------------------------------------------------------------------------------------------------------- */

int volumes_scrub(struct volumes *vols)
{
	struct mend_call call = { 0 };
	int rc;

	vols->scrub_paused = false;
	fmutex_lock(&vols->change);
	rc = each_lineage(vols, scrub_on_home, &call);
	fmutex_unlock(&vols->change);
	return rc;
}

void volumes_scrub_pause(struct volumes *vols)
{
	vols->scrub_paused = true;
}

bool volumes_scrub_paused(const struct volumes *vols)
{
	return vols->scrub_paused;
}

static void add_rebuild(const struct volumes *vols, struct mend_info *info)
{
	const struct rebuild *r = &vols->rebuild;
	uint64_t done = r->done - r->done_before, ms = (r->now_ns - r->since_ns) / 1000000;
	struct pool_info pool;

	pool_get_info(vols->pool, &pool);
	info->rebuild_left_bytes = r->left * pool.zone_bytes;
	if (!r->since_ns || !done || !ms)
		return;
	info->rebuild_bytes_per_s = done * pool.zone_bytes / ms * 1000;
	info->rebuild_left_s = r->left * ms / done / 1000;
}

int volumes_mend_info(struct volumes *vols, struct mend_info *info)
{
	struct mend_call call = { .info = info };
	int rc;

	*info = (struct mend_info){ .paused = vols->scrub_paused };
	add_rebuild(vols, info);
	fmutex_lock(&vols->directory);
	rc = each_lineage(vols, mend_info_on_home, &call);
	fmutex_unlock(&vols->directory);
	return rc;
}

/* --- what is lost --------------------------------------------------------------------------------------------------- */

struct error_list {
	struct volume_error *out;
	uint32_t max, count;
};

static void add_error(void *arg, const struct volume_state *vol, uint64_t lba)
{
	struct error_list *list = arg;

	if (list->count == list->max)
		return;
	directory_name(vol, list->out[list->count].volume);
	list->out[list->count++].off_bytes = lba * BLOCK_BYTES;
}

static int errors_on_home(void *arg)
{
	const struct mend_call *call = arg;

	return errors_list(call->lin, add_error, call->errors);
}

int volumes_get_errors(struct volumes *vols, struct volume_error *out, uint32_t max, uint32_t *count)
{
	struct error_list list = { .out = out, .max = max };
	struct mend_call call = { .errors = &list };
	int rc;

	fmutex_lock(&vols->change);
	fmutex_lock(&vols->directory);
	rc = each_lineage(vols, errors_on_home, &call);
	fmutex_unlock(&vols->directory);
	fmutex_unlock(&vols->change);
	*count = list.count;
	return rc;
}
