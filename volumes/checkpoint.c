/* Checkpoint: merges what is newer than the trees into them, so that recovery need not replay it and dead segments go.
 *
 *     1 freeze    close the open batch; overlays change places; note the log point P (no waiting in between)
 *     2 wait      until every batch before P is written
 *     3 merge     frozen overlays into new trees, liveness table (meta stream; nothing refers to the new nodes yet)
 *     4 flush     every disk written
 *     5 commit    one catalog transaction: P, roots, table. Before it the old state is whole, after it the new one
 *     6 install   new roots, drop frozen overlays
 *     7 free      segments without a live block whose batches are all before P, once nobody reads by the old maps;
 *                 their zones are used again after that transaction is durable
 *
 * A checkpoint that fails leaves the frozen overlays in place; the next one merges them again from step 2. */
#include <errno.h>

#include "pool/base/mem.h"
#include "volumes/lineage.h"

#define MERGE_TRIES 4
#define RETRY_NS (100ull * 1000 * 1000)

static struct log_point log_point_now(const struct stream *st)
{
	return (struct log_point){
		.seq = st->open ? st->open->seq : st->next_seq,
		.grant = st->last_grant,
		.index = st->seg ? st->head : UINT32_MAX,
	};
}

static void freeze(struct lineage *lin)
{
	struct stream *st = &lin->stream[STREAM_DATA];

	while (st->relocating || (st->open && st->open->extents > 0)) {
		if (st->relocating)
			waitq_wait(&lin->room);
		else
			stream_push(st);
	}
	lin->log_point = log_point_now(st);
	lin->frozen = true;
	lin->log_bytes = 0;
	list_for_each(node, &lin->volumes) {
		struct volume_state *vol = list_entry(node, struct volume_state, node);

		vol->active = !vol->active;
		vol->merging = vol->overlay[!vol->active].items.count > 0 || vol->touch[!vol->active].count > 0;
	}
}

static void reset_deltas(struct lineage *lin)
{
	for (uint32_t i = 0; i < lin->segs_cap; i++) {
		if (lin->segs[i])
			lin->segs[i]->delta = 0;
	}
}

static int merge_volumes(struct lineage *lin)
{
	list_for_each(node, &lin->volumes) {
		struct volume_state *vol = list_entry(node, struct volume_state, node);
		int rc = 0;

		vol->new_root = vol->root;
		vol->new_mapped = 0;
		if (vol->merging)
			rc = map_merge(vol, &vol->new_root, &vol->new_mapped);
		if (rc < 0)
			return rc;
	}
	return 0;
}

/* Everything of the meta stream is on the disks, and flushed. */
static int meta_sync(struct lineage *lin)
{
	struct stream *st = &lin->stream[STREAM_META];
	int rc;

	stream_push(st);
	rc = stream_wait_written(st, st->next_seq);
	return rc < 0 ? rc : log_flush_wait(lin);
}

static struct ptr_format ptr_to_format(const struct node_ptr *ptr)
{
	return (struct ptr_format){ le32_of(ptr->segno), le32_of(ptr->index), le32_of(ptr->crc) };
}

static void put_objects(struct lineage *lin, struct cat_txn *txn, const struct node_ptr *live)
{
	const struct stream *meta = &lin->stream[STREAM_META];
	struct lineage_format f = {
		.version = le32_of(1),
		.k = lin->policy.k,
		.m = lin->policy.m,
		.seq = le64_of(lin->log_point.seq),
		.head_grant = le64_of(lin->log_point.grant),
		.head_index = le32_of(lin->log_point.index),
		.birth = le32_of(lin->birth),
		.meta_grant = le64_of(meta->seg ? meta->seg->seg.grant : 0),
		.meta_index = le32_of(meta->head),
		.live = ptr_to_format(live),
	};

	cat_put(txn, CAT_LINEAGE, lin->id, &f, sizeof(f));
	list_for_each(node, &lin->volumes) {
		const struct volume_state *vol = list_entry(node, struct volume_state, node);
		struct map_root_format r = {
			.height = le32_of(vol->new_root.height),
			.root = ptr_to_format(&vol->new_root.ptr),
			.mapped_blocks = le64_of(vol->mapped_blocks + (uint64_t)vol->new_mapped),
		};

		cat_put(txn, CAT_MAP, vol->id, &r, sizeof(r));
	}
}

static int commit(struct lineage *lin, const struct node_ptr *live)
{
	struct cat_txn txn;
	int rc;

	cat_txn_init(&txn);
	put_objects(lin, &txn, live);
	rc = pool_commit(lin->pool, &txn);
	cat_txn_release(&txn);
	return rc;
}

static void install(struct lineage *lin, const struct node_ptr *live)
{
	lin->live_ptr = *live;
	lin->frozen = false;
	lin->clean_in_vain = false;
	for (uint32_t i = 0; i < lin->segs_cap; i++) {
		struct lseg *lseg = lin->segs[i];

		if (!lseg)
			continue;
		lseg->live = (uint32_t)((int64_t)lseg->live + lseg->delta);
		lseg->delta = 0;
		lseg->table_blocks = lseg->table_blocks_new;
	}
	list_for_each(node, &lin->volumes) {
		struct volume_state *vol = list_entry(node, struct volume_state, node);

		vol->root = vol->new_root;
		vol->mapped_blocks += (uint64_t)vol->new_mapped;
		vol->merging = false;
		overlay_release(&vol->overlay[!vol->active]);
		mem_free(vol->touch[!vol->active].key);
		vol->touch[!vol->active] = (struct touch_list){ 0 };
	}
}

static bool is_dead(const struct lineage *lin, const struct lseg *lseg)
{
	return !lseg->held && !lseg->mending && lseg->live == 0 && lseg->table_blocks == 0 && lseg->unwritten == 0 &&
	       (lseg->seg.stream == STREAM_META || lseg->last_seq < lin->log_point.seq);
}

/* Waits until no reader that may have looked at the old maps is left. */
static void wait_readers(struct lineage *lin)
{
	uint32_t old = lin->reader_gen++ & 1;

	while (lin->readers[old] > 0)
		waitq_wait(&lin->readers_gone);
}

static int free_dead(struct lineage *lin)
{
	struct cat_txn txn;
	uint32_t dead = 0;
	int rc = 0;

	wait_readers(lin);
	cat_txn_init(&txn);
	for (uint32_t i = 0; i < lin->segs_cap; i++) {
		if (lin->segs[i] && is_dead(lin, lin->segs[i])) {
			segment_free_in(&txn, lin->segs[i]->seg.grant);
			lin->segs[i]->freeing = true;
			dead++;
		}
	}
	if (dead > 0)
		rc = pool_commit(lin->pool, &txn);
	cat_txn_release(&txn);
	for (uint32_t i = 0; i < lin->segs_cap; i++) {
		struct lseg *lseg = lin->segs[i];

		if (!lseg || !lseg->freeing)
			continue;
		lseg->freeing = false;
		if (rc == 0)
			lseg_del(lin, lseg);
	}
	return rc;
}

static int merge_and_commit(struct lineage *lin)
{
	struct node_ptr live;
	int rc = stream_wait_written(&lin->stream[STREAM_DATA], lin->log_point.seq - 1);

	if (rc == 0)
		rc = merge_volumes(lin);
	if (rc == 0)
		rc = live_write(lin, &live);
	if (rc == 0)
		rc = meta_sync(lin);
	if (rc == 0)
		rc = commit(lin, &live);
	if (rc == 0)
		install(lin, &live);
	else
		reset_deltas(lin);
	return rc;
}

/* Again if map nodes could not be read or written: the next try writes to another segment. */
static int merge_with_retries(struct lineage *lin)
{
	struct stream *meta = &lin->stream[STREAM_META];
	int rc = -EIO;

	for (int tries = 0; tries < MERGE_TRIES && rc == -EIO && !lin->failed; tries++) {
		while (meta->relocating)
			waitq_wait(&lin->room);
		meta->error = 0;
		rc = merge_and_commit(lin);
	}
	return rc;
}

static bool something_new(const struct lineage *lin)
{
	if (lin->frozen || lin->log_bytes > 0)
		return true;
	list_for_each(node, &lin->volumes) {
		const struct volume_state *vol = list_entry(node, struct volume_state, node);

		if (vol->touch[vol->active].count > 0)
			return true;
	}
	return false;
}

static int checkpoint_once(struct lineage *lin)
{
	int rc = 0;

	if (something_new(lin)) {
		if (!lin->frozen)
			freeze(lin);
		rc = merge_with_retries(lin);
		lin->counters.checkpoints++;
	}
	if (rc == 0)
		rc = free_dead(lin);
	if (rc == -ENOMEM)
		fiber_sleep_ns(RETRY_NS);
	else if (rc < 0)
		lineage_fail(lin, rc);   /* the log cannot be shortened any more */
	return rc;
}

static bool has_dead(const struct lineage *lin)
{
	for (uint32_t i = 0; i < lin->segs_cap; i++) {
		if (lin->segs[i] && is_dead(lin, lin->segs[i]))
			return true;
	}
	return false;
}

static void checkpoint_fiber(void *arg)
{
	struct lineage *lin = arg;

	checkpoint_once(lin);
	lin->checkpointing = false;
	waitq_wake_all(&lin->checkpoint_done);
	lineage_drain_soon(lin);
	lineage_fiber_end(lin);
}

void checkpoint_start(struct lineage *lin)
{
	if (!lin->running || lin->checkpointing || lin->failed || lin->closing)
		return;
	if (!something_new(lin) && !has_dead(lin))
		return;
	lin->checkpointing = lineage_fiber(lin, checkpoint_fiber, lin) == 0;
}

void checkpoint_if_due(struct lineage *lin)
{
	const struct volumes_opts *opts = volumes_options(lin->vols);
	uint64_t entries = 0;

	if (lin->checkpointing)
		return;
	list_for_each(node, &lin->volumes) {
		const struct volume_state *vol = list_entry(node, struct volume_state, node);

		entries += vol->overlay[vol->active].items.count;
	}
	if (lin->log_bytes >= opts->checkpoint_log_bytes || entries >= opts->overlay_entries_max)
		checkpoint_start(lin);
}

static void squeezed(struct task *task)
{
	struct lineage *lin = container_of(task, struct lineage, squeeze);

	lin->squeeze_queued = false;
	checkpoint_start(lin);
	cleaner_start(lin);
	mend_start(lin, false);
}

static void quiet_timer_fired(struct timer *timer)
{
	checkpoint_start(container_of(timer, struct lineage, quiet_timer));
}

void checkpoint_init(struct lineage *lin)
{
	waitq_init(&lin->checkpoint_done);
	waitq_init(&lin->readers_gone);
	lin->squeeze.fn = squeezed;
	list_init(&lin->squeeze.node);
	timer_init(&lin->quiet_timer, quiet_timer_fired);
}

void checkpoint_later(struct lineage *lin)
{
	if (lin->quiet_timer.heap_pos == 0 && !lin->closing)
		(void)timer_arm(lin->loop, &lin->quiet_timer, loop_now_ns(lin->loop) + CHECKPOINT_AGE_NS);
}

int checkpoint_run(struct lineage *lin)
{
	int rc;

	while (lin->checkpointing)
		waitq_wait(&lin->checkpoint_done);
	if (lin->failed)
		return lin->failed;
	if (!something_new(lin) && !has_dead(lin))
		return 0;
	lin->checkpointing = true;
	rc = checkpoint_once(lin);
	lin->checkpointing = false;
	waitq_wake_all(&lin->checkpoint_done);
	lineage_drain_soon(lin);
	return rc;
}
