/* Recovery: from the last checkpoint and the batches after it to a running lineage.
 *
 *     1 scan     every data segment granted since the log point, all at once: follow the batch headers
 *     2 chain    put the scanned batches in order; the log ends where the next seq is missing
 *     3 verify   data of batches that nobody said were flushed; the log ends before the first that is torn
 *     4 mend     the batches that nobody said were flushed: a crash left them in some columns and not in others, and the
 *                next flush promises all columns
 *     5 apply    mappings of the chain into the overlays
 *     6 seal     one catalog transaction: the log's end, so that nothing behind it can ever be taken for valid, and
 *                empty later segments are freed; appends go on in a fresh segment
 *
 * Where batches are missing that a later header knows to have been flushed, the disk has lost data: recovery refuses,
 * rather than to roll back what was promised. What always holds: a lineage is opened with a prefix of its history that
 * includes all that was flushed; or not at all. Bounded by the log since the checkpoint. */
#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "pool/base/crc32c.h"
#include "pool/base/mem.h"
#include "volumes/lineage.h"

/* A batch found on disk: the used part of its header. */
struct found {
	struct list node;
	struct lseg *lseg;
	uint32_t index, total;
	uint64_t seq;
	struct batch_header header;      /* cut to what is used of it */
};

/* One segment being scanned, and later verified. */
struct scan {
	struct lseg *lseg;
	uint32_t from;
	struct list found;
};

struct recovery {
	struct lineage *lin;
	struct scan *scans;              /* by grant */
	uint32_t count, next, running;
	uint32_t kept;                   /* scans that hold part of the chain */
	uint64_t end_seq;                /* first batch that is not there */
	uint64_t flushed_seq;            /* newest that any header knows to be flushed */
	struct fork_list forks;
	int rc;
	struct waitq done;
	void (*step)(struct recovery *r, struct scan *scan, uint8_t *buf);
};

/* --- scan --------------------------------------------------------------------------------------------------- */

struct keeper {
	struct recovery *r;
	struct scan *scan;
};

/* Keeps the used part of a header; stops where seq is not consecutive. */
static int keep_found(void *arg, const struct batch_header *h)
{
	struct keeper *k = arg;
	const struct list *last = k->scan->found.prev;
	uint32_t bytes = batch_header_used(h);
	struct found *f;

	if (last != &k->scan->found && list_entry(last, struct found, node)->seq + 1 != le64_get(h->seq))
		return 1;
	f = mem_alloc(offsetof(struct found, header) + bytes);
	if (!f)
		return -ENOMEM;
	memcpy(&f->header, h, bytes);
	f->lseg = k->scan->lseg;
	f->index = le32_get(h->index);
	f->total = le32_get(h->total_blocks);
	f->seq = le64_get(h->seq);
	list_push_back(&k->scan->found, &f->node);
	if (le64_get(h->flushed_seq) > k->r->flushed_seq)
		k->r->flushed_seq = le64_get(h->flushed_seq);
	return 0;
}

static void find_batches(struct recovery *r, struct scan *scan, uint8_t *buf)
{
	struct keeper keeper = { r, scan };
	int rc = scan_segment(r->lin, scan->lseg, scan->from, buf, keep_found, &keeper);

	if (rc < 0)
		r->rc = rc;
}

/* --- verify --------------------------------------------------------------------------------------------------- */

/* 0: intact; positive: torn; negative: not readable. */
static int data_torn(struct recovery *r, const struct found *f, uint8_t *buf)
{
	const le32 *crcs = batch_crcs(&f->header);
	uint32_t data = le32_get(f->header.data_blocks);

	for (uint32_t i = 0; i < data;) {
		uint32_t n = data - i < SCAN_WINDOW_BLOCKS ? data - i : SCAN_WINDOW_BLOCKS;
		bool readable = scan_read(r->lin, f->lseg, f->index + 1 + i, n, buf) == 0;

		for (uint32_t j = 0; j < n; j++, i++) {
			uint8_t *block = buf + (size_t)j * BLOCK_BYTES;
			int rc;

			if (readable && crc32c(0, block, BLOCK_BYTES) == le32_get(crcs[i]))
				continue;
			rc = scan_read_block(r->lin, f->lseg, f->index + 1 + i, le32_get(crcs[i]), block);
			if (rc < 0)
				return rc == -EBADMSG ? 1 : rc;
		}
	}
	return 0;
}

static void verify_segment(struct recovery *r, struct scan *scan, uint8_t *buf)
{
	list_for_each(node, &scan->found) {
		struct found *f = list_entry(node, struct found, node);
		int rc;

		if (f->seq <= r->flushed_seq || f->seq >= r->end_seq)
			continue;
		rc = data_torn(r, f, buf);
		if (rc < 0)
			r->rc = rc;
		else if (rc > 0 && f->seq < r->end_seq)
			r->end_seq = f->seq;
	}
}

/* --- mend --------------------------------------------------------------------------------------------------------- */

static void mend_segment(struct recovery *r, struct scan *scan, uint8_t *buf)
{
	(void)buf;
	list_for_each(node, &scan->found) {
		struct found *f = list_entry(node, struct found, node);
		struct mend_stats stats = { 0 };
		int rc;

		if (f->seq <= r->flushed_seq || f->seq >= r->end_seq)
			continue;
		rc = mend_batch(r->lin, f->lseg, &f->header, &stats);
		if (rc < 0 || stats.lost > 0)
			r->rc = rc < 0 ? rc : -EIO;
	}
}

/* --- many segments at once ------------------------------------------------------------------------------------ */

static void worker(void *arg)
{
	struct recovery *r = arg;
	uint8_t *buf = mem_alloc_aligned(BLOCK_BYTES, SCAN_WINDOW_BLOCKS * BLOCK_BYTES);

	if (!buf)
		r->rc = -ENOMEM;
	while (buf && r->next < r->count && r->rc == 0)
		r->step(r, &r->scans[r->next++], buf);
	mem_free(buf);
	r->running--;
	waitq_wake_all(&r->done);
	lineage_fiber_end(r->lin);
}

static int for_all_scans(struct recovery *r, void (*step)(struct recovery *r, struct scan *scan, uint8_t *buf))
{
	r->step = step;
	r->next = 0;
	while (r->running < REPLAY_FIBERS_MAX && r->running < r->count && r->rc == 0) {
		r->running++;
		if (lineage_fiber(r->lin, worker, r) < 0) {
			r->running--;
			r->rc = -ENOMEM;
		}
	}
	while (r->running > 0)
		waitq_wait(&r->done);
	return r->rc;
}

static int by_grant(const void *a, const void *b)
{
	uint64_t x = ((const struct scan *)a)->lseg->seg.grant, y = ((const struct scan *)b)->lseg->seg.grant;

	return x < y ? -1 : x > y;
}

/* The data segments in which the log after the log point may be. */
static int collect_scans(struct recovery *r)
{
	struct lineage *lin = r->lin;

	r->scans = mem_zalloc((lin->segs_cap + 1) * sizeof(*r->scans));
	if (!r->scans)
		return -ENOMEM;
	for (uint32_t i = 0; i < lin->segs_cap; i++) {
		struct lseg *lseg = lin->segs[i];
		struct scan *scan = &r->scans[r->count];

		if (!lseg || lseg->moved || lseg->seg.stream != STREAM_DATA || lseg->seg.grant < lin->log_point.grant)
			continue;
		if (lseg->seg.grant == lin->log_point.grant) {
			if (lin->log_point.index == UINT32_MAX)
				continue;
			scan->from = lin->log_point.index;
		}
		scan->lseg = lseg;
		list_init(&scan->found);
		r->count++;
	}
	qsort(r->scans, r->count, sizeof(*r->scans), by_grant);
	for (uint32_t i = 0; i < r->count; i++)
		list_init(&r->scans[i].found);
	return 0;
}

/* --- chain ------------------------------------------------------------------------------------------------------ */

/* Follows consecutive seq through the segments in the order of their grants. Batches that were moved to a later segment
 * after the log point had been taken, though they are older than it, are in the checkpoint already. */
static void find_end(struct recovery *r)
{
	r->end_seq = r->lin->log_point.seq;
	for (uint32_t i = 0; i < r->count; i++) {
		list_for_each(node, &r->scans[i].found) {
			uint64_t seq = list_entry(node, struct found, node)->seq;

			if (seq < r->lin->log_point.seq)
				continue;
			if (seq != r->end_seq)
				return;
			r->end_seq++;
		}
	}
}

static int check_promises(const struct recovery *r, struct err *err)
{
	const struct fork_list *forks = &r->forks;

	if (forks->count > 0 && forks->image[forks->count - 1]->fork_seq > r->end_seq)
		return err_set(err, -EIO, "the log is damaged: batch %llu is missing, but a snapshot or clone was made later",
			       (unsigned long long)r->end_seq);
	if (r->end_seq > r->flushed_seq)
		return 0;
	return err_set(err, -EIO, "the log is damaged: batch %llu is missing, but everything up to batch %llu was flushed",
		       (unsigned long long)r->end_seq, (unsigned long long)r->flushed_seq);
}

/* --- apply ------------------------------------------------------------------------------------------------------ */

static int apply_data(struct volume_state *vol, const struct found *f, uint64_t lba, uint32_t count, uint32_t first)
{
	const le32 *crcs = batch_crcs(&f->header);

	for (uint32_t i = 0; i < count; i++) {
		struct mapping m = { .segno = f->lseg->seg.segno, .index = f->index + 1 + first + i,
				     .crc = le32_get(crcs[first + i]), .birth = vol->lin->birth };
		int rc = volume_map_block(vol, lba + i, &m);

		if (rc < 0)
			return rc;
	}
	return 0;
}

static int apply_batch(struct lineage *lin, const struct found *f)
{
	const struct batch_extent *e = batch_extents(&f->header);
	uint32_t first = 0;

	for (uint32_t i = 0; i < le16_get(f->header.extent_count); i++) {
		struct volume_state *vol = lineage_find_volume(lin, le32_get(e[i].volume));
		uint64_t lba = le64_get(e[i].lba), count = batch_extent_count(&e[i]);
		bool data = le32_get(e[i].op) == BATCH_DATA;
		int rc = 0;

		if (vol && (vol->flags & VOLUME_SNAPSHOT))
			rc = -EUCLEAN;
		else if (vol && data)
			rc = apply_data(vol, f, lba, (uint32_t)count, first);
		else if (vol)
			rc = volume_map_hole(vol, lba, count);
		if (rc < 0)
			return rc;
		if (data)
			first += (uint32_t)count;
	}
	return 0;
}

/* Replays the chain; notes for each segment the newest batch in it, and for the log where it ends. */
static int apply_chain(struct recovery *r, struct lseg **tail, uint32_t *tail_blocks)
{
	struct lineage *lin = r->lin;

	for (uint32_t i = 0; i < r->count; i++) {
		list_for_each(node, &r->scans[i].found) {
			const struct found *f = list_entry(node, struct found, node);
			int rc;

			if (f->seq >= r->end_seq)
				return 0;
			rc = forks_replay(&r->forks, f->seq);
			if (rc == 0 && f->seq >= lin->log_point.seq)
				rc = apply_batch(lin, f);
			if (rc < 0)
				return rc;
			f->lseg->last_seq = f->seq;
			lin->log_bytes += (uint64_t)f->total * BLOCK_BYTES;
			*tail = f->lseg;
			*tail_blocks = f->index + f->total;
		}
	}
	return 0;
}

/* --- seal ------------------------------------------------------------------------------------------------------- */

static bool seal_one(struct cat_txn *txn, struct scan *scan, const struct lseg *tail, uint32_t tail_blocks)
{
	struct lseg *lseg = scan->lseg;

	assert(lseg);
	if (lseg == tail) {
		if (lseg->seg.sealed_blocks == tail_blocks)
			return false;
		lseg->seg.sealed_blocks = tail_blocks;
		segment_put_in(txn, &lseg->seg);
		return true;
	}
	if (tail && lseg->seg.grant < tail->seg.grant)
		return false;
	lseg->freeing = true;            /* behind the end: holds nothing */
	segment_free_in(txn, lseg->seg.grant);
	return true;
}

static int seal(struct recovery *r, struct lseg *tail, uint32_t tail_blocks)
{
	struct lineage *lin = r->lin;
	struct cat_txn txn;
	bool change = false;
	int rc = 0;

	cat_txn_init(&txn);
	for (uint32_t i = 0; i < r->count; i++)
		change |= seal_one(&txn, &r->scans[i], tail, tail_blocks);
	if (change)
		rc = pool_commit(lin->pool, &txn);
	cat_txn_release(&txn);
	for (uint32_t i = 0; i < r->count; i++) {
		if (!r->scans[i].lseg->freeing) {
			log_mark_dirty(lin, &r->scans[i].lseg->seg);
			r->scans[i].lseg->flush_round = lin->flush_round;
		} else if (rc == 0) {
			lseg_del(lin, r->scans[i].lseg);
		}
	}
	return rc;
}

/* Before the first batch of the replay there may be live data in the log point's segment: it is then the tail. */
static struct lseg *initial_tail(const struct recovery *r, uint32_t *blocks)
{
	*blocks = r->lin->log_point.index;
	if (r->count > 0 && r->scans[0].lseg->seg.grant == r->lin->log_point.grant)
		return r->scans[0].lseg;
	return NULL;
}

/* --- all together ----------------------------------------------------------------------------------------------- */

static int replay(struct recovery *r, struct err *err)
{
	struct lineage *lin = r->lin;
	uint32_t tail_blocks;
	struct lseg *tail;
	int rc = collect_scans(r);

	if (rc == 0)
		rc = for_all_scans(r, find_batches);
	if (rc < 0)
		return err_set(err, rc, "the log cannot be read: try the import again; nothing was changed");
	find_end(r);
	rc = for_all_scans(r, verify_segment);
	if (rc < 0)
		return err_set(err, rc, "the log's end cannot be read: try the import again; nothing was changed");
	rc = check_promises(r, err);
	if (rc < 0)
		return rc;
	if (lin->policy.m > 0)
		rc = for_all_scans(r, mend_segment);
	if (rc < 0)
		return err_set(err, rc, "the log's end cannot be made whole on all disks: try the import again");
	tail = initial_tail(r, &tail_blocks);
	rc = apply_chain(r, &tail, &tail_blocks);
	if (rc == 0)
		rc = forks_replay(&r->forks, r->end_seq);
	if (rc == 0)
		rc = seal(r, tail, tail_blocks);
	if (rc < 0)
		return err_set(err, rc, "cannot replay the log");
	lin->stream[STREAM_DATA].next_seq = r->end_seq;
	lin->stream[STREAM_DATA].last_grant = tail ? tail->seg.grant : lin->log_point.grant;
	lin->completed_seq = r->end_seq - 1;
	lin->flushed_seq = r->flushed_seq;       /* what was found beyond is flushed with the next flush */
	return 0;
}

static void release_recovery(struct recovery *r)
{
	for (uint32_t i = 0; i < r->count; i++) {
		struct list *node;

		while ((node = list_pop_front(&r->scans[i].found)))
			mem_free(list_entry(node, struct found, node));
	}
	mem_free(r->scans);
	forks_release(&r->forks);
}

/* Map nodes go on where the last checkpoint stopped: what is behind that was never referred to. */
static void resume_meta(struct lineage *lin, uint64_t grant, uint32_t index)
{
	struct stream *st = &lin->stream[STREAM_META];

	for (uint32_t i = 0; i < lin->segs_cap && grant != 0; i++) {
		struct lseg *lseg = lin->segs[i];

		if (!lseg || lseg->seg.grant != grant || lseg->seg.stream != STREAM_META || index > lin->segment_blocks ||
		    index % lin->policy.k != 0)
			continue;
		lseg->held = true;
		st->seg = lseg;
		st->head = index;
		st->last_grant = grant;
	}
}

static struct map_root root_from_format(const le32 *height, const struct ptr_format *ptr)
{
	return (struct map_root){ .height = le32_get(*height),
				  .ptr = { le32_get(ptr->segno), le32_get(ptr->index), le32_get(ptr->crc) } };
}

int lineage_recover(struct lineage *lin, const struct lineage_format *f, const struct segment *segments, uint32_t count,
		    struct err *err)
{
	struct recovery r = { .lin = lin, .flushed_seq = le64_get(f->seq) - 1 };
	struct node_ptr live = { le32_get(f->live.segno), le32_get(f->live.index), le32_get(f->live.crc) };
	uint64_t start_ns = loop_now_ns(lin->loop);
	int rc;

	waitq_init(&r.done);
	lin->birth = le32_get(f->birth);
	lin->log_point = (struct log_point){ le64_get(f->seq), le64_get(f->head_grant), le32_get(f->head_index) };
	if (lin->log_point.index != UINT32_MAX && lin->log_point.index > lin->segment_blocks)
		return err_set(err, -EUCLEAN, "the log point lies behind the end of its segment");
	for (uint32_t i = 0; i < count; i++) {
		/* Every index is checked against the size that the lineage's policy gives. */
		if (segments[i].policy.k != lin->policy.k || segments[i].policy.m != lin->policy.m)
			return err_set(err, -EUCLEAN, "segment %u has another policy than its lineage", segments[i].segno);
		if (!lseg_add(lin, &segments[i]))
			return err_set(err, -EIO, "segment %u of the lineage is named twice, or no memory", segments[i].segno);
	}
	resume_meta(lin, le64_get(f->meta_grant), le32_get(f->meta_index));
	lin->refs.map->root = root_from_format(&f->refs_height, &f->refs);
	lin->places.map->root = root_from_format(&f->places_height, &f->places);
	if (lin->refs.map->root.height > MAP_LEVELS_MAX || lin->places.map->root.height > MAP_LEVELS_MAX)
		return err_set(err, -EUCLEAN, "the lineage's tables are damaged");
	rc = forks_load(lin, &r.forks);
	if (rc < 0)
		err_set(err, rc, rc == -ENOMEM ? "out of memory" : "its snapshots and clones do not fit together");
	if (rc == 0)
		rc = live_load(lin, &live, err);
	if (rc == 0)
		rc = replay(&r, err);
	release_recovery(&r);
	lin->recovery_us = (loop_now_ns(lin->loop) - start_ns) / 1000;
	return rc;
}
