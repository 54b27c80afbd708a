/* Mending: making every column of a batch hold what it should.
 *
 * A batch tells all its content: its header has a checksum, the header has the checksums of the data, and the padding is
 * zero. So each of its rows can be found, by whatever way the redundancy offers, and then be compared with all columns.
 * Rows with a block that no way gives are left alone.
 *
 * Segments are mended batch by batch, in the background: those with lost columns (a disk has come back, a column was moved
 * to another disk), and for a scrub all of them. A column that has no zone, or whose disk is to be removed, first gets a zone
 * elsewhere, by a transaction that calls it lost; that is all the state there is, so a crash interrupts nothing. When all
 * batches are mended and flushed, another transaction calls the column good. Batches still being written are left out: they
 * go to lost columns like to others. */
#include <errno.h>
#include <string.h>

#include "pool/base/crc32c.h"
#include "pool/base/mem.h"
#include "volumes/lineage.h"

/* A batch in memory while it is mended. */
struct mending {
	struct lineage *lin;
	struct lseg *lseg;
	uint32_t start, total;
	uint8_t *buf;                    /* total blocks */
	bool *known;                     /* [total] */
	struct mend_stats *stats;
};

static uint8_t *block_at(const struct mending *md, uint32_t i)
{
	return md->buf + (size_t)i * BLOCK_BYTES;
}

/* Gets the data blocks, all at once and then those that are wrong one by one. */
static void fetch_data(struct mending *md, const struct batch_header *h)
{
	const le32 *crcs = batch_crcs(h);
	uint32_t data = le32_get(h->data_blocks);

	if (data == 0)
		return;
	if (scan_read(md->lin, md->lseg, md->start + 1, data, block_at(md, 1)) < 0)
		memset(block_at(md, 1), 0, (size_t)data * BLOCK_BYTES);
	for (uint32_t i = 0; i < data; i++) {
		uint32_t crc = le32_get(crcs[i]);

		md->known[1 + i] = crc32c(0, block_at(md, 1 + i), BLOCK_BYTES) == crc ||
				   scan_read_block(md->lin, md->lseg, md->start + 1 + i, crc, block_at(md, 1 + i)) == 0;
		md->stats->lost += !md->known[1 + i];
	}
	md->stats->blocks += md->total;
}

static bool row_known(const struct mending *md, uint32_t row)
{
	uint32_t k = md->lin->policy.k;

	for (uint32_t c = 0; c < k; c++) {
		if (!md->known[row * k + c])
			return false;
	}
	return true;
}

/* Mends runs of rows that are known. */
static int mend_rows(struct mending *md)
{
	uint32_t k = md->lin->policy.k, rows = md->total / k;

	for (uint32_t row = 0, n; row < rows; row += n) {
		int rc;

		for (n = 0; row + n < rows && row_known(md, row + n);)
			n++;
		if (n == 0) {
			n = 1;
			continue;
		}
		rc = segment_mend(md->lin->pool, &md->lseg->seg, md->start + row * k, n * k, block_at(md, row * k));
		if (rc < 0)
			return rc;
		md->stats->mended += (uint64_t)rc;
	}
	return 0;
}

int mend_batch(struct lineage *lin, struct lseg *lseg, const struct batch_header *h, struct mend_stats *stats)
{
	uint32_t used = batch_header_used(h), data = le32_get(h->data_blocks);
	struct mending *md = mem_zalloc(sizeof(*md));
	int rc = -ENOMEM;

	if (!md)
		return -ENOMEM;
	md->lin = lin;
	md->lseg = lseg;
	md->stats = stats;
	md->start = le32_get(h->index);
	md->total = le32_get(h->total_blocks);
	md->buf = mem_alloc_aligned(BLOCK_BYTES, (size_t)md->total * (BLOCK_BYTES + sizeof(bool)));
	if (md->buf) {
		md->known = (bool *)block_at(md, md->total);
		memset(md->known, true, md->total * sizeof(bool));
		memset(md->buf, 0, BLOCK_BYTES);
		memcpy(md->buf, h, used);
		md->known[0] = scan_header_valid(lin, lseg, md->start, md->buf);
		memset(block_at(md, 1 + data), 0, (size_t)(md->total - 1 - data) * BLOCK_BYTES);
		fetch_data(md, h);
		rc = mend_rows(md);
	}
	mem_free(md->buf);
	mem_free(md);
	return rc;
}

/* --- segments ------------------------------------------------------------------------------------------------- */

struct mender {
	struct lineage *lin;
	struct lseg *lseg;
	bool scrub;
	uint8_t *window;                 /* SCAN_WINDOW_BLOCKS */
};

static int go_on(const struct lineage *lin)
{
	if (lin->failed)
		return lin->failed;
	return lin->closing ? -ECANCELED : 0;
}

/* Is the batch that begins at this block still in memory? */
static bool in_flight(const struct lineage *lin, const struct lseg *lseg, uint32_t start)
{
	const struct stream *st = &lin->stream[lseg->seg.stream];

	if (lseg->unwritten == 0)
		return false;
	if (st->open && st->open->lseg == lseg && st->open->start <= start)
		return true;
	list_for_each(node, &st->inflight) {
		const struct batch *b = list_entry(node, struct batch, node);

		if (b->lseg == lseg && b->start <= start)
			return true;
	}
	return false;
}

static int mend_one(void *arg, const struct batch_header *h)
{
	struct mender *m = arg;
	int rc = go_on(m->lin);

	if (rc == 0 && in_flight(m->lin, m->lseg, le32_get(h->index)))
		return 1;
	if (rc == 0)
		rc = mend_batch(m->lin, m->lseg, h, &m->lin->mend_stats);
	return rc;
}

/* What was mended is durable on these columns. */
static int flush_columns(struct lineage *lin, const struct segment *seg, uint32_t cols)
{
	uint64_t disks[DISK_SET_WORDS] = { 0 };

	for (uint32_t c = 0; c < SEGMENT_COLS_MAX; c++) {
		if (cols >> c & 1)
			disks[seg->cols[c].disk_id / 64] |= 1ull << seg->cols[c].disk_id % 64;
	}
	pool_flush_disks(lin->pool, disks);
	for (int i = 0; i < DISK_SET_WORDS; i++) {
		if (disks[i])
			return -EIO;
	}
	return 0;
}

static int call_good(struct lineage *lin, struct lseg *lseg, uint32_t cols)
{
	struct cat_txn txn;
	int rc;

	lseg->seg.lost &= ~cols;
	cat_txn_init(&txn);
	segment_put_in(&txn, &lseg->seg);
	rc = pool_commit(lin->pool, &txn);
	cat_txn_release(&txn);
	return rc;
}

/* The stream goes on elsewhere once nothing is under way in the segment. */
static void leave(struct lineage *lin, struct lseg *lseg)
{
	struct stream *st = &lin->stream[lseg->seg.stream];

	while (go_on(lin) == 0 && (lseg->unwritten > 0 || st->relocating))
		waitq_wait(&lin->room);
	if (st->seg == lseg) {
		st->seg = NULL;
		lseg->held = false;
	}
}

static int mend_segment(struct mender *m)
{
	struct lineage *lin = m->lin;
	struct lseg *lseg = m->lseg;
	bool move = segment_wants_columns(lin->pool, &lseg->seg);
	uint32_t cols;
	int rc = 0;

	if (move) {
		leave(lin, lseg);
		rc = go_on(lin);
	}
	if (rc == 0 && move)
		rc = segment_move_columns(lin->pool, &lseg->seg);
	cols = lseg->seg.lost & segment_writable_cols(lin->pool, &lseg->seg);
	lseg->lost_again = false;
	if (rc == 0 && (cols || m->scrub))
		rc = scan_segment(lin, lseg, 0, m->window, mend_one, m);
	if (rc == 0 && cols)
		rc = flush_columns(lin, &lseg->seg, cols);
	if (rc == 0 && cols && !lseg->lost_again && (segment_writable_cols(lin->pool, &lseg->seg) & cols) == cols)
		rc = call_good(lin, lseg, cols);
	return rc;
}

static bool wants_mending(const struct lineage *lin, const struct lseg *lseg)
{
	return (lseg->seg.lost & segment_writable_cols(lin->pool, &lseg->seg)) ||
	       segment_wants_columns(lin->pool, &lseg->seg);
}

static void mend_all(struct mender *m)
{
	struct lineage *lin = m->lin;

	for (uint32_t i = 0; i < lin->segs_cap && go_on(lin) == 0; i++) {
		struct lseg *lseg = lin->segs[i];

		if (!lseg || lseg->freeing || !lseg_has_zones(lseg) || !(m->scrub || wants_mending(lin, lseg)))
			continue;
		m->lseg = lseg;
		lseg->mending = true;
		(void)mend_segment(m);   /* another time, if not now */
		lseg->mending = false;
	}
}

static void mend_fiber(void *arg)
{
	struct lineage *lin = arg;
	struct mender m = { .lin = lin };

	m.window = mem_alloc_aligned(BLOCK_BYTES, SCAN_WINDOW_BLOCKS * BLOCK_BYTES);
	do {
		m.scrub = lin->scrub_wanted;
		lin->mend_again = lin->scrub_wanted = false;
		if (m.window)
			mend_all(&m);
	} while (lin->mend_again && go_on(lin) == 0);
	mem_free(m.window);
	lin->mending = false;
	lineage_drain_soon(lin);
	lineage_fiber_end(lin);
}

static bool lose_columns(struct lseg *lseg, uint32_t disk_id)
{
	uint32_t cols = 0;

	for (uint32_t c = 0; c < (uint32_t)lseg->seg.policy.k + lseg->seg.policy.m; c++)
		cols |= (uint32_t)(lseg->seg.cols[c].disk_id == disk_id) << c;
	lseg->seg.lost |= cols;
	lseg->lost_again |= cols != 0;   /* mending may be under way */
	return cols != 0;
}

int mend_lose_disk(struct lineage *lin, uint32_t disk_id)
{
	struct cat_txn txn;
	int rc;

	cat_txn_init(&txn);
	for (uint32_t i = 0; i < lin->segs_cap && lin->policy.m > 0; i++) {
		struct lseg *lseg = lin->segs[i];

		if (lseg && lseg_has_zones(lseg) && !lseg->freeing && lose_columns(lseg, disk_id))
			segment_put_in(&txn, &lseg->seg);
	}
	rc = pool_commit(lin->pool, &txn);
	cat_txn_release(&txn);
	return rc;
}

void mend_start(struct lineage *lin, bool scrub)
{
	lin->scrub_wanted |= scrub;
	lin->mend_again = true;
	if (lin->mending || !lin->running || lin->failed || lin->closing || (lin->policy.m == 0 && !lin->scrub_wanted))
		return;
	lin->mending = lineage_fiber(lin, mend_fiber, lin) == 0;
}
