/* When a batch cannot be written.
 *
 * Data stream: everything from the failed batch on is written again elsewhere, under the same seq:
 *
 *     segment A  [.....|failed|done |done ]       A is sealed in front of the failed batch (catalog, durable),
 *     segment C  [failed|done |done |open ]       then the batches go to a fresh segment on another disk
 *
 * The seal comes first: were the failed batch on the disk after all, recovery must not follow the log in A past it. Mappings
 * of the moved blocks are changed in the overlays in the same breath as the batches' places, so reads find them. Nothing
 * of this has been acknowledged, since batches retire in order. After RELOCATE_TRIES the lineage fails.
 *
 * Other streams: pointers to the lost blocks are in other blocks already. The batches are dropped and the checkpoint, told by
 * stream->error, merges again into a fresh segment. */
#include <errno.h>

#include "pool/base/mem.h"
#include "volumes/lineage.h"

#define RELOCATE_TRIES 5u

static struct batch *first_batch(const struct stream *st)
{
	return list_entry(st->inflight.next, struct batch, node);
}

/* The open batch joins those to be written again; an empty one is given back. */
static void take_open(struct stream *st)
{
	struct batch *b = st->open;

	st->open = NULL;
	if (!b)
		return;
	if (b->extents > 0) {
		list_push_back(&st->inflight, &b->node);
		st->inflight_count++;
		return;
	}
	st->next_seq--;
	b->lseg->unwritten--;
	batch_free(st->lin->vl, b);
}

static void leave_segment(struct stream *st)
{
	if (st->seg)
		st->seg->held = false;
	st->seg = NULL;
}

/* Seals every segment that holds batches to be moved in front of the first of them. */
static int seal_segments(struct stream *st)
{
	struct lseg *sealed = NULL;
	struct cat_txn txn;
	int rc;

	cat_txn_init(&txn);
	list_for_each(node, &st->inflight) {
		struct batch *b = list_entry(node, struct batch, node);

		if (b->lseg == sealed)
			continue;
		sealed = b->lseg;
		sealed->seg.sealed_blocks = b->start;
		segment_put_in(&txn, &sealed->seg);
	}
	rc = pool_commit(st->lin->pool, &txn);
	cat_txn_release(&txn);
	return rc;
}

/* In whichever layer it is: an image may have been forked since. */
static void remap_block(struct volume_state *vol, uint64_t lba, const struct mapping *from, const struct mapping *to)
{
	for (uint32_t i = 0; i < vol->layers; i++) {
		struct mapping *m = omap_get(&vol->layer[i]->changes.items, lba);

		if (!m || m->segno != from->segno || m->index != from->index)
			continue;
		m->segno = to->segno;
		m->index = to->index;
	}
}

/* Changes the mappings that point into the batch's old place. */
static void remap_batch(struct lineage *lin, const struct batch *b, uint32_t segno, uint32_t start)
{
	const struct batch_extent *e = batch_extents((const struct batch_header *)b->buf);
	uint32_t at = 1;

	for (uint32_t i = 0; i < b->extents; i++) {
		struct volume_state *vol = lineage_find_volume(lin, le32_get(e[i].volume));

		if (le32_get(e[i].op) != BATCH_DATA)
			continue;
		for (uint32_t j = 0; j < le32_get(e[i].count); j++, at++) {
			struct mapping from = { .segno = b->lseg->seg.segno, .index = b->start + at };
			struct mapping to = { .segno = segno, .index = start + at };

			if (vol)
				remap_block(vol, le64_get(e[i].lba) + j, &from, &to);
		}
	}
}

/* Puts all batches at the start of a fresh segment, without giving way. */
static void move_batches(struct stream *st, struct lseg *to)
{
	struct lineage *lin = st->lin;

	leave_segment(st);
	st->seg = to;
	st->head = 0;
	st->last_grant = to->seg.grant;
	list_for_each(node, &st->inflight) {
		struct batch *b = list_entry(node, struct batch, node);

		remap_batch(lin, b, to->seg.segno, st->head);
		b->lseg->unwritten--;
		b->lseg = to;
		b->lseg->unwritten++;
		b->start = st->head;
		b->total = batch_total_blocks(b->data, lin->policy.k);
		b->done = false;
		st->head += b->total;
		to->last_seq = b->seq;
	}
}

static int fresh_segment(struct stream *st, uint32_t avoid_disk, struct lseg **out)
{
	while (st->granting)
		waitq_wait(&st->lin->room);
	if (st->next) {                  /* it was granted before the failure: perhaps on the same disk, but it costs nothing */
		*out = st->next;
		st->next = NULL;
		return 0;
	}
	return lseg_grant(st, GRANT_RESERVE, avoid_disk, out);
}

static int relocate_data(struct stream *st)
{
	uint32_t bad_disk = first_batch(st)->io.failed_disk;
	struct lseg *to;
	int rc;

	if (++st->relocations > RELOCATE_TRIES)
		return first_batch(st)->res;
	/* Where the pool can do without the disk it does from now on; else the disk is given another chance. */
	if (bad_disk != UINT32_MAX && st->lin->policy.m > 0)
		(void)!pool_lose_disk(st->lin->pool, bad_disk);
	rc = fresh_segment(st, bad_disk, &to);
	if (rc < 0)
		return rc;
	take_open(st);
	rc = seal_segments(st);
	if (rc < 0)
		return rc;
	move_batches(st, to);
	st->relocating = false;
	list_for_each_safe(node, next, &st->inflight)
		batch_submit(list_entry(node, struct batch, node));
	return 0;
}

/* Gives up what was to be written. */
static void drop_batches(struct stream *st)
{
	take_open(st);
	while (!list_empty(&st->inflight)) {
		struct batch *b = first_batch(st);

		b->res = b->res < 0 ? b->res : -EIO;
		batch_retire(b);
	}
	leave_segment(st);
}

static void relocate_fiber(void *arg)
{
	struct stream *st = arg;
	struct lineage *lin = st->lin;
	int rc = 0;

	if (st->id != STREAM_DATA)
		st->error = first_batch(st)->res;
	else
		rc = relocate_data(st);
	if (rc < 0)
		lineage_fail(lin, rc);
	if (rc < 0 || st->id != STREAM_DATA)
		drop_batches(st);
	st->relocating = false;
	lineage_drain_soon(lin);
	lineage_fiber_end(lin);
}

void relocate_start(struct stream *st)
{
	if (st->relocating)
		return;
	st->relocating = true;
	if (lineage_fiber(st->lin, relocate_fiber, st) == 0)
		return;
	lineage_fail(st->lin, -ENOMEM);
	drop_batches(st);
	st->relocating = false;
}
