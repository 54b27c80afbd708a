/* Mending: making every column of a batch hold what it should; and moving columns to other disks.
 *
 * A batch tells all its content: its header has a checksum, the header has the checksums of the data, and the padding is
 * zero. So each of its rows can be found, by whatever way the redundancy offers, and then be compared with all columns.
 * Rows with a block that no way gives are left alone.
 *
 * Segments are mended batch by batch, in the background: those with lost columns (a disk has come back), and for a scrub all
 * of them. When all batches are mended and flushed, a transaction calls the columns good. Batches still being written are left
 * out: they go to lost columns like to others.
 *
 * Columns that should lie elsewhere (pool/moves.c) are written to new zones from what was found, verified, batch by batch;
 * rows with a block that no way gives, and what follows the last batch that can be found, are copied as they are. Then one
 * transaction names the new zones. Of a drain, a rebuild or a balance there is no other state: a crash costs the segment that
 * was under way.
 *
 * Pace: guests' writes are timed while mending works and while it sleeps. After each batch it sleeps for a multiple of the time
 * that the batch took, which grows as long as guests are slower meanwhile. Without guests it does not sleep. */
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
	const struct segment *to;
	uint32_t mend, move;             /* columns of `to`: to be compared, to be written */
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
		if (md->known[1 + i])
			continue;
		md->stats->lost++;
		errors_note_in(md->lin, h, i);
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

static int mend_run(struct mending *md, uint32_t row, uint32_t rows)
{
	struct pool *pool = md->lin->pool;
	uint32_t k = md->lin->policy.k, index = md->start + row * k;
	int rc = 0;

	if (md->mend)
		rc = segment_mend(pool, md->to, md->mend, index, rows * k, block_at(md, row * k));
	if (rc > 0)
		md->stats->mended += (uint64_t)rc;
	if (rc >= 0 && md->move)
		rc = segment_fill(pool, md->to, md->move, index, rows * k, block_at(md, row * k));
	return rc < 0 ? rc : 0;
}

/* Mends runs of rows that are known. */
static int mend_rows(struct mending *md)
{
	uint32_t k = md->lin->policy.k, rows = md->total / k;
	int rc = 0;

	for (uint32_t row = 0, n; row < rows && rc == 0; row += n) {
		for (n = 0; row + n < rows && row_known(md, row + n);)
			n++;
		if (n > 0)
			rc = mend_run(md, row, n);
		else if (md->move)
			rc = segment_copy_cells(md->lin->pool, &md->lseg->seg, md->to, md->move, md->start / k + row, 1);
		n += n == 0;
	}
	return rc;
}

static int mend_to(struct lineage *lin, struct lseg *lseg, const struct segment *to, uint32_t mend, uint32_t move,
		   const struct batch_header *h, struct mend_stats *stats)
{
	uint32_t used = batch_header_used(h), data = le32_get(h->data_blocks);
	struct mending *md = mem_zalloc(sizeof(*md));
	int rc = -ENOMEM;

	if (!md)
		return -ENOMEM;
	*md = (struct mending){ .lin = lin, .lseg = lseg, .to = to, .mend = mend, .move = move, .stats = stats,
				.start = le32_get(h->index), .total = le32_get(h->total_blocks) };
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

int mend_batch(struct lineage *lin, struct lseg *lseg, const struct batch_header *h, struct mend_stats *stats)
{
	return mend_to(lin, lseg, &lseg->seg, ALL_COLUMNS, 0, h, stats);
}

/* --- segments ------------------------------------------------------------------------------------------------- */

struct mender {
	struct lineage *lin;
	struct lseg *lseg;
	bool scrub;
	struct segment to;               /* where to write: the segment, or what it will be */
	uint32_t mend, move;             /* columns of it */
	uint32_t end;                    /* block behind the last batch that was done */
	int failed;                      /* -errno of a batch that could not be done */
	uint64_t since_ns, guest_ios;    /* when it was last looked at guests */
	uint32_t pace;
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

/* --- pace ------------------------------------------------------------------------------------------------------- */

#define PACE_MIN 3u               /* sleeps so many times as long as it worked, at least, while guests work ... */
#define PACE_MAX 64u
#define PACE_SLEEP_NS_MAX (500ull * 1000 * 1000)

void mend_note_write(struct lineage *lin, uint64_t took_ns)
{
	int64_t *mean = lin->mending && !lin->mend_sleeps ? &lin->write_ns_mending : &lin->write_ns_calm;

	*mean = *mean == 0 ? (int64_t)took_ns : *mean + ((int64_t)took_ns - *mean) / 8;
}

/* Half as slow again is slower. */
static void set_pace(struct mender *m, bool guests)
{
	bool slower = m->lin->write_ns_mending > m->lin->write_ns_calm + m->lin->write_ns_calm / 2;

	m->pace = slower ? m->pace * 2 : m->pace / 2;
	if (m->pace < PACE_MIN)
		m->pace = PACE_MIN;
	if (m->pace > PACE_MAX)
		m->pace = PACE_MAX;
	if (!guests)
		m->pace = 0;
}

static void keep_pace(struct mender *m)
{
	struct lineage *lin = m->lin;
	uint64_t worked_ns = loop_now_ns(lin->loop) - m->since_ns, sleep_ns;

	set_pace(m, lin->guest_ios != m->guest_ios);
	sleep_ns = worked_ns * m->pace;
	if (sleep_ns > PACE_SLEEP_NS_MAX)
		sleep_ns = PACE_SLEEP_NS_MAX;
	lin->mend_sleeps = true;
	if (sleep_ns)
		fiber_sleep_ns(sleep_ns);
	else
		fiber_yield();
	lin->mend_sleeps = false;
	m->since_ns = loop_now_ns(lin->loop);
	m->guest_ios = lin->guest_ios;
}

/* --- a segment ---------------------------------------------------------------------------------------------------- */

static int mend_one(void *arg, const struct batch_header *h)
{
	struct mender *m = arg;
	int rc = go_on(m->lin);

	if (rc == 0 && in_flight(m->lin, m->lseg, le32_get(h->index)))
		return 1;
	if (rc == 0)
		rc = mend_to(m->lin, m->lseg, &m->to, m->mend, m->move, h, &m->lin->mend_stats);
	m->failed = rc;
	if (rc < 0)
		return rc;
	m->end = le32_get(h->index) + le32_get(h->total_blocks);
	keep_pace(m);
	return 0;
}

#define REST_ROWS 64u             /* copied at once */

/* What no header leads to may be needed all the same. */
static int copy_rest(struct mender *m)
{
	const struct lineage *lin = m->lin;
	uint32_t k = lin->policy.k, end = lin->segment_blocks;
	int rc;

	if (m->lseg->seg.sealed_blocks < end)
		end = m->lseg->seg.sealed_blocks;
	for (uint32_t row = m->end / k, n; row < end / k; row += n) {
		n = end / k - row < REST_ROWS ? end / k - row : REST_ROWS;
		rc = go_on(lin);
		if (rc == 0)
			rc = segment_copy_cells(lin->pool, &m->lseg->seg, &m->to, m->move, row, n);
		if (rc < 0)
			return rc;
		keep_pace(m);
	}
	return 0;
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

/* What was written there may never have come to lie on the disk. */
static bool is_unflushed(const struct lineage *lin, const struct lseg *lseg)
{
	return lseg->unwritten > 0 || lseg->flush_round > lin->flushed_round;
}

/* The stream goes on elsewhere once nothing is under way in the segment; what it holds is flushed. */
static int leave(struct lineage *lin, struct lseg *lseg)
{
	struct stream *st = &lin->stream[lseg->seg.stream];

	while (go_on(lin) == 0 && (lseg->unwritten > 0 || st->relocating))
		waitq_wait(&lin->room);
	if (go_on(lin) < 0)
		return go_on(lin);
	if (st->seg == lseg || st->next == lseg)
		lseg->held = false;
	if (st->seg == lseg)
		st->seg = NULL;
	if (st->next == lseg)
		st->next = NULL;
	return is_unflushed(lin, lseg) ? log_flush_wait(lin) : 0;
}

/* Columns that are lost, and can be written, become good. */
static int mend_or_move(struct mender *m, uint32_t lost)
{
	struct lineage *lin = m->lin;
	struct lseg *lseg = m->lseg;
	int rc = 0;

	m->end = 0;
	m->failed = 0;
	m->since_ns = loop_now_ns(lin->loop);
	lseg->lost_again = false;
	if (m->mend || m->move)
		rc = scan_segment(lin, lseg, 0, m->window, mend_one, m);
	if (rc < 0 && m->move && !m->failed)
		rc = 0;                  /* a place where a header may be cannot be read: the rest is copied */
	if (rc == 0 && m->move)
		rc = copy_rest(m);
	if (rc == 0 && (lost | m->move))
		rc = flush_columns(lin, &m->to, lost | m->move);
	return rc;
}

static uint32_t movable(const struct lineage *lin, const struct lseg *lseg)
{
	return segment_movable_cols(lin->pool, &lseg->seg, lseg->held);
}

static int mend_segment(struct mender *m)
{
	struct lineage *lin = m->lin;
	struct lseg *lseg = m->lseg;
	uint32_t lost;
	int rc = 0;

	m->move = movable(lin, lseg);
	m->to = lseg->seg;
	if (m->move) {
		m->move = 0;
		rc = leave(lin, lseg);
		if (rc == 0)
			rc = segment_move_begin(lin->pool, &lseg->seg, &m->to, &m->move);
	}
	lost = lseg->seg.lost & segment_writable_cols(lin->pool, &lseg->seg) & ~m->move;
	m->mend = (m->scrub ? ALL_COLUMNS : lost) & ~m->move;
	if (rc == 0)
		rc = mend_or_move(m, lost);
	if (lseg->lost_again || (segment_writable_cols(lin->pool, &m->to) & lost) != lost)
		lost = 0;
	if (m->move) {
		m->to.lost = lseg->seg.lost & ~m->move;
		rc = segment_move_end(lin->pool, &lseg->seg, &m->to, m->move, rc == 0);
	}
	return rc == 0 && lost ? call_good(lin, lseg, lost) : rc;
}

static bool wants_mending(const struct lineage *lin, const struct lseg *lseg)
{
	return (lseg->seg.lost & segment_writable_cols(lin->pool, &lseg->seg)) || movable(lin, lseg);
}

/* A scrub that is paused goes on where it was. */
static bool scrubs(const struct mender *m, uint32_t segno)
{
	return m->scrub && segno >= m->lin->scrub_at && !volumes_scrub_paused(m->lin->vols);
}

static void mend_all(struct mender *m)
{
	struct lineage *lin = m->lin;
	bool scrub = m->scrub;

	for (uint32_t i = 0; i < lin->segs_cap && go_on(lin) == 0; i++) {
		struct lseg *lseg = lin->segs[i];

		if (!lseg || lseg->freeing || !lseg_has_zones(lseg))
			continue;
		m->scrub = scrub;
		m->scrub = scrubs(m, i);
		if (!m->scrub && !wants_mending(lin, lseg))
			continue;
		m->lseg = lseg;
		lseg->mending = true;
		(void)mend_segment(m);   /* another time, if not now */
		lseg->mending = false;
		if (m->scrub)
			lin->scrub_at = i + 1;
	}
}

static void mend_fiber(void *arg)
{
	struct lineage *lin = arg;
	struct mender m = { .lin = lin };

	m.window = mem_alloc_aligned(BLOCK_BYTES, SCAN_WINDOW_BLOCKS * BLOCK_BYTES);
	do {
		m.scrub = lin->scrub_wanted;
		lin->mend_again = false;
		if (m.window)
			mend_all(&m);
		if (m.scrub && !volumes_scrub_paused(lin->vols)) {
			lin->scrub_wanted = false;
			lin->scrub_at = 0;
		}
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
	bool any = false;
	int rc = 0;

	cat_txn_init(&txn);
	for (uint32_t i = 0; i < lin->segs_cap && lin->policy.m > 0; i++) {
		struct lseg *lseg = lin->segs[i];

		if (!lseg || !lseg_has_zones(lseg) || lseg->freeing || !is_unflushed(lin, lseg) || !lose_columns(lseg, disk_id))
			continue;
		segment_put_in(&txn, &lseg->seg);
		any = true;
	}
	if (any)
		rc = pool_commit(lin->pool, &txn);
	cat_txn_release(&txn);
	return rc;
}

void mend_start(struct lineage *lin, bool scrub)
{
	lin->scrub_wanted |= scrub;
	lin->mend_again = true;
	if (lin->mending || !lin->running || lin->failed || lin->closing)
		return;
	lin->mending = lineage_fiber(lin, mend_fiber, lin) == 0;
}
