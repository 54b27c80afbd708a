/* Checkpoint: merges what is newer than the trees into them, so that recovery need not replay it and dead segments go.
 *
 *     1 freeze    close the open batch; images get new top layers; note the log point P (no waiting in between)
 *     2 wait      until every batch before P is written
 *     3 merge     frozen layers into new trees, with reference counts (meta stream; nothing refers to the new nodes yet). A
 *                 layer is merged once, whichever images share it. If zones are wanted, the cleaner moves what is live out of
 *                 some segments (cleaner.c). Then the tables: places, counts, liveness
 *     4 flush     every disk written
 *     5 commit    one catalog transaction: P, roots, table. Before it the old state is whole, after it the new one
 *     6 install   new roots, drop frozen layers
 *     7 free      once nobody reads by the old maps: moved blocks are read at their new places; segments without a live
 *                 block of their own whose batches are all before P go; their zones are used again after that transaction is
 *                 durable
 *
 * A checkpoint that fails leaves the frozen layers in place; the next one merges them again from step 2. */
#include <errno.h>

#include "pool/base/mem.h"
#include "volumes/lineage.h"

#define MERGE_TRIES 4
#define RETRY_NS (100ull * 1000 * 1000)
/* Of images that go, a checkpoint. */
#define RECLAIM_NODES 4096u
#define UNIQUE_STEPS 1024u

static struct log_point log_point_now(const struct stream *st)
{
	return (struct log_point){
		.seq = st->open ? st->open->seq : st->next_seq,
		.grant = st->last_grant,
		.index = st->seg ? st->head : UINT32_MAX,
	};
}

/* A place in the log between two batches, without a fork under way. */
static void wait_boundary(struct lineage *lin)
{
	struct stream *st = &lin->stream[STREAM_DATA];

	while (lin->forking > 0 || st->relocating || (st->open && st->open->extents > 0)) {
		if (lin->forking > 0 || st->relocating)
			waitq_wait(&lin->room);
		else
			stream_push(st);
	}
}

/* What an image needs for its layers to be frozen: a top layer that takes changes from then on, or, for one that goes, the
 * order to unmap its next part. */
static int prepare_image(struct volume_state *vol)
{
	const struct layer *top = layer_top(vol);

	if (!(vol->flags & VOLUME_DELETED) && (!volume_is_writable(vol) || layer_is_empty(top)))
		return 0;
	if (!vol->spare)
		vol->spare = layer_new();
	if (!vol->spare)
		return -ENOMEM;
	return vol->reclaim_end > 0 ? overlay_put_hole(&vol->spare->changes, 0, vol->reclaim_end) : 0;
}

static void freeze_image(struct volume_state *vol)
{
	bool writable = volume_is_writable(vol), turn = writable && !layer_is_empty(layer_top(vol));
	struct layer *spare = vol->spare;

	vol->going = vol->flags & VOLUME_DELETED;
	vol->joined = true;
	if (vol->going || turn)
		vol->spare = NULL;
	if (vol->going)
		layer_push(vol, spare);
	vol->frozen = vol->layers - (writable && !turn);
	if (turn)
		layer_push(vol, spare);
	for (uint32_t i = 0; i < vol->frozen; i++)
		vol->layer[i]->group++;
}

static int freeze(struct lineage *lin)
{
	int rc = 0;

	wait_boundary(lin);              /* and no waiting from here on */
	list_for_each(node, &lin->volumes) {
		rc = prepare_image(list_entry(node, struct volume_state, node));
		if (rc < 0)
			return rc;
	}
	lin->log_point = log_point_now(&lin->stream[STREAM_DATA]);
	lin->log_birth = lin->birth;
	lin->frozen = true;
	lin->log_bytes = lin->changes = 0;
	list_for_each(node, &lin->volumes)
		freeze_image(list_entry(node, struct volume_state, node));
	return 0;
}

/* --- merge ---------------------------------------------------------------------------------------------------- */

/* Nothing has been merged yet. */
static void reset_merge(struct lineage *lin)
{
	places_abandon(lin);
	refs_abandon(lin);
	cleaner_forget(lin);
	for (uint32_t i = 0; i < lin->segs_cap; i++) {
		if (lin->segs[i])
			lin->segs[i]->delta = 0;
	}
	list_for_each(node, &lin->volumes) {
		const struct volume_state *vol = list_entry(node, struct volume_state, node);

		for (uint32_t i = 0; vol->joined && i < vol->frozen; i++)
			vol->layer[i]->merged = false;
	}
}

/* All images that share the layer go from tree `base` to the new one. */
static int merge_layer(struct volume_state *vol, struct layer *layer, const struct map_root *base, uint64_t mapped_blocks)
{
	int64_t delta = 0;
	int rc = 0;

	layer->root = *base;
	if (!layer_is_empty(layer)) {
		for (uint32_t i = 1; i < layer->group && rc == 0; i++)
			rc = map_root_put(vol->lin, base);
		if (rc == 0)
			rc = map_merge(vol, layer, base, &layer->root, &delta);
		for (uint32_t i = 1; i < layer->group && rc == 0; i++)
			rc = map_root_get(vol->lin, &layer->root);
	}
	layer->mapped_blocks = layer->root.height > 0 ? mapped_blocks + (uint64_t)delta : 0;
	layer->merged = rc == 0;
	return rc;
}

static int merge_image(struct volume_state *vol)
{
	vol->new_root = vol->root;
	vol->new_mapped = vol->mapped_blocks;
	for (uint32_t i = 0; i < vol->frozen; i++) {
		struct layer *layer = vol->layer[i];
		int rc = layer->merged ? 0 : merge_layer(vol, layer, &vol->new_root, vol->new_mapped);

		if (rc < 0)
			return rc;
		vol->new_root = layer->root;
		vol->new_mapped = layer->mapped_blocks;
	}
	return 0;
}

static int merge_images(struct lineage *lin)
{
	int rc = 0;

	list_for_each(node, &lin->volumes) {
		struct volume_state *vol = list_entry(node, struct volume_state, node);

		if (vol->joined && vol->fresh && rc == 0)
			rc = map_root_get(lin, &vol->root);
	}
	list_for_each(node, &lin->volumes) {
		struct volume_state *vol = list_entry(node, struct volume_state, node);

		if (vol->joined && rc == 0)
			rc = merge_image(vol);
	}
	return rc;
}

/* What else the catalog is going to name; liveness last, for it tells of all. */
static int write_tables(struct lineage *lin, struct node_ptr *live)
{
	int rc = lin->cleaning ? cleaner_evacuate(lin) : 0;

	if (rc == 0)
		rc = places_settle(lin);
	if (rc == 0)
		rc = refs_settle(lin);
	return rc < 0 ? rc : live_write(lin, live);
}

static int sync_stream(struct stream *st)
{
	stream_push(st);
	return stream_wait_written(st, st->next_seq);
}

/* Everything that the catalog is going to name is on the disks, and flushed. */
static int sync(struct lineage *lin)
{
	int rc = sync_stream(&lin->stream[STREAM_MOVE]);

	if (rc == 0)
		rc = sync_stream(&lin->stream[STREAM_META]);
	return rc < 0 ? rc : log_flush_wait(lin);
}

static struct ptr_format ptr_to_format(const struct node_ptr *ptr)
{
	return (struct ptr_format){ le32_of(ptr->segno), le32_of(ptr->index), le32_of(ptr->crc) };
}

static bool is_gone(const struct volume_state *vol)
{
	return vol->joined && vol->going && vol->new_root.height == 0;
}

static bool same_root(const struct map_root *a, const struct map_root *b)
{
	return a->height == b->height && a->ptr.segno == b->ptr.segno && a->ptr.index == b->ptr.index;
}

static void put_image(struct cat_txn *txn, const struct volume_state *vol)
{
	struct map_root_format r = {
		.height = le32_of(vol->new_root.height),
		.root = ptr_to_format(&vol->new_root.ptr),
		.mapped_blocks = le64_of(vol->new_mapped),
	};

	if (is_gone(vol)) {
		cat_del(txn, CAT_VOLUME, vol->id);
		if (!vol->fresh)
			cat_del(txn, CAT_MAP, vol->id);
	} else if (vol->fresh || !same_root(&vol->root, &vol->new_root)) {
		cat_put(txn, CAT_MAP, vol->id, &r, sizeof(r));
	}
}

static void put_objects(struct lineage *lin, struct cat_txn *txn, const struct node_ptr *live)
{
	const struct stream *meta = &lin->stream[STREAM_META];
	const struct map_root *refs = &lin->refs.map->new_root, *places = &lin->places.map->new_root;
	struct lineage_format f = {
		.version = le32_of(1),
		.k = lin->policy.k,
		.m = lin->policy.m,
		.seq = le64_of(lin->log_point.seq),
		.head_grant = le64_of(lin->log_point.grant),
		.head_index = le32_of(lin->log_point.index),
		.birth = le32_of(lin->log_birth),
		.meta_grant = le64_of(meta->seg ? meta->seg->seg.grant : 0),
		.meta_index = le32_of(meta->head),
		.live = ptr_to_format(live),
		.refs_height = le32_of(refs->height),
		.refs = ptr_to_format(&refs->ptr),
		.places_height = le32_of(places->height),
		.places = ptr_to_format(&places->ptr),
	};

	cat_put(txn, CAT_LINEAGE, lin->id, &f, sizeof(f));
	list_for_each(node, &lin->volumes) {
		const struct volume_state *vol = list_entry(node, struct volume_state, node);

		if (vol->joined)
			put_image(txn, vol);
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

/* Also of images forked meanwhile: they share the layers. */
static void install_image(struct volume_state *vol)
{
	bool gone = is_gone(vol);

	layers_install(vol);
	vol->fresh &= !vol->joined;
	vol->joined = vol->going = false;
	vol->frozen = 0;
	if (gone) {
		list_del(&vol->node);
		vol->lin->images--;
		volume_state_free(vol);
	}
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
	places_install(lin);
	refs_install(lin);
	cleaner_forget(lin);
	list_for_each_safe(node, next, &lin->volumes)
		install_image(list_entry(node, struct volume_state, node));
}

/* Its zones hold nothing any more; or it has none, and nothing of it lives elsewhere. */
static bool is_dead(const struct lineage *lin, const struct lseg *lseg)
{
	return !lseg->held && !lseg->mending && (lseg->live == 0 || (lseg->moved && lseg_has_zones(lseg))) &&
	       lseg->table_blocks == 0 && lseg->unwritten == 0 &&
	       (lseg->seg.stream != STREAM_DATA || lseg->last_seq < lin->log_point.seq);
}

/* Waits until no reader that may have looked at the old maps is left. */
static void wait_readers(struct lineage *lin)
{
	uint32_t old = lin->reader_gen++ & 1;

	while (lin->readers[old] > 0)
		waitq_wait(&lin->readers_gone);
}

/* The segment is gone, or only its number is left for the blocks that were moved. */
static void lose_zones(struct lineage *lin, struct lseg *lseg)
{
	if (lseg->live > 0)
		lseg->seg = (struct segment){ .segno = lseg->seg.segno, .policy = lin->policy };
	else
		lseg_del(lin, lseg);
}

static int free_dead(struct lineage *lin)
{
	struct cat_txn txn;
	uint32_t zones = 0;
	int rc = 0;

	wait_readers(lin);
	if (places_switch(lin))
		wait_readers(lin);       /* who still reads at the old places */
	cat_txn_init(&txn);
	for (uint32_t i = 0; i < lin->segs_cap; i++) {
		struct lseg *lseg = lin->segs[i];

		if (!lseg || !is_dead(lin, lseg))
			continue;
		lseg->freeing = true;
		if (!lseg_has_zones(lseg))
			continue;
		segment_free_in(&txn, lseg->seg.grant);
		zones++;
	}
	if (zones > 0)
		rc = pool_commit(lin->pool, &txn);
	cat_txn_release(&txn);
	for (uint32_t i = 0; i < lin->segs_cap; i++) {
		struct lseg *lseg = lin->segs[i];

		if (!lseg || !lseg->freeing)
			continue;
		lseg->freeing = false;
		if (rc == 0)
			lose_zones(lin, lseg);
	}
	return rc;
}

static int merge_and_commit(struct lineage *lin)
{
	const struct stream *meta = &lin->stream[STREAM_META];
	struct node_ptr live;
	int rc = stream_wait_written(&lin->stream[STREAM_DATA], lin->log_point.seq - 1);

	lin->meta_grant = meta->seg ? meta->seg->seg.grant : meta->last_grant + 1;
	if (rc == 0)
		rc = merge_images(lin);
	if (rc == 0)
		rc = write_tables(lin, &live);
	if (rc == 0)
		rc = sync(lin);
	if (rc == 0)
		rc = commit(lin, &live);
	if (rc == 0)
		install(lin, &live);
	else
		reset_merge(lin);
	return rc;
}

static bool has_news(const struct volume_state *vol)
{
	const struct layer *top = layer_top(vol);

	return vol->fresh || (vol->flags & VOLUME_DELETED) || (top && top->touch.count > 0);
}

static bool something_new(const struct lineage *lin)
{
	if (lin->frozen || lin->log_bytes > 0 || lin->cleaning)
		return true;
	list_for_each(node, &lin->volumes) {
		if (has_news(list_entry(node, struct volume_state, node)))
			return true;
	}
	return false;
}

/* Images that go are unmapped part by part, so that no checkpoint takes long. */
static int plan_reclaim(struct lineage *lin)
{
	uint32_t nodes = RECLAIM_NODES;

	list_for_each(node, &lin->volumes) {
		struct volume_state *vol = list_entry(node, struct volume_state, node);
		int rc;

		if (!(vol->flags & VOLUME_DELETED))
			continue;
		rc = map_step(vol, &nodes, &vol->reclaim_end);
		if (rc < 0)
			return rc;
	}
	return 0;
}

/* Freezes what there is, unless an earlier checkpoint that failed has left it frozen. */
static int begin(struct lineage *lin)
{
	int rc = lin->frozen ? 0 : plan_reclaim(lin);

	if (rc == 0 && !lin->frozen)
		rc = freeze(lin);
	return rc;
}

/* Again if blocks could not be read or written: the next try writes to other segments. */
static int merge_with_retries(struct lineage *lin)
{
	struct stream *meta = &lin->stream[STREAM_META], *move = &lin->stream[STREAM_MOVE];
	int rc = -EIO;

	for (int tries = 0; tries < MERGE_TRIES && rc == -EIO && !lin->failed; tries++) {
		while (meta->relocating || move->relocating)
			waitq_wait(&lin->room);
		meta->error = move->error = 0;
		rc = begin(lin);
		if (rc == 0)
			rc = merge_and_commit(lin);
	}
	return rc;
}

static int checkpoint_once(struct lineage *lin)
{
	int rc = 0;

	if (something_new(lin)) {
		rc = merge_with_retries(lin);
		lin->counters.checkpoints++;
	}
	if (rc == 0)
		rc = free_dead(lin);
	if (rc == 0)
		cleaner_start(lin);      /* now it is known what is live */
	else if (rc == -ENOMEM)
		fiber_sleep_ns(RETRY_NS);
	else
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

static bool has_going(const struct lineage *lin)
{
	list_for_each(node, &lin->volumes) {
		if (list_entry(node, struct volume_state, node)->flags & VOLUME_DELETED)
			return true;
	}
	return false;
}

static void checkpoint_fiber(void *arg)
{
	struct lineage *lin = arg;
	int rc;

	rc = checkpoint_once(lin);
	lin->checkpointing = false;
	waitq_wake_all(&lin->checkpoint_done);
	lineage_drain_soon(lin);
	if (rc == 0)
		checkpoint_reclaim(lin);
	lineage_fiber_end(lin);
}

void checkpoint_reclaim(struct lineage *lin)
{
	if (has_going(lin))
		checkpoint_start(lin);
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

	if (lin->checkpointing)
		return;
	if (lin->log_bytes >= opts->checkpoint_log_bytes || lin->changes >= opts->overlay_entries_max)
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

/* --- what an image holds ------------------------------------------------------------------------------------------ */

struct unique {
	struct lineage *lin;
	uint64_t blocks;
	uint32_t steps;
};

static int count_unique(void *arg, uint64_t key, int level, const struct node_ptr *ptr)
{
	struct unique *u = arg;
	uint32_t refs;
	int rc = refs_count(u->lin, ptr->segno, ptr->index, &refs);

	(void)key;
	if (rc < 0 || refs > 1)
		return rc < 0 ? rc : 1;
	u->blocks += level < 0;
	if (++u->steps % UNIQUE_STEPS == 0)
		fiber_yield();
	return 0;
}

/* Its tree is all there is to it, and the trees of all others are counted. */
static bool is_measurable(const struct volume_state *vol)
{
	list_for_each(node, &vol->lin->volumes) {
		if (list_entry(node, struct volume_state, node)->fresh)
			return false;
	}
	return volume_is_settled(vol);
}

/* Counts are stable between checkpoints only, so this keeps them off. */
int checkpoint_measure(struct volume_state *vol, struct volume_space *space)
{
	struct unique u = { .lin = vol->lin };
	int rc = is_measurable(vol) ? 0 : checkpoint_run(vol->lin);

	while (vol->lin->checkpointing)
		waitq_wait(&vol->lin->checkpoint_done);
	if (rc < 0)
		return rc;
	vol->lin->checkpointing = true;
	if (vol->lin->images == 1)
		u.blocks = vol->mapped_blocks;
	else if (!vol->fresh)
		rc = map_walk(vol, count_unique, &u);
	refs_trim(vol->lin);
	vol->lin->checkpointing = false;
	waitq_wake_all(&vol->lin->checkpoint_done);
	*space = (struct volume_space){ vol->mapped_blocks, u.blocks };
	return rc;
}
