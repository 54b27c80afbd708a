/* Rows put right: finding a block's true content among what the columns offer, and making columns hold what they should.
 *
 * segment_read_checked reads all cells of the block's row and tries, until the check accepts one:
 *
 *     k = 1   each copy
 *     k > 1   the block's own cell, then what each set of k other cells gives when decoded
 *
 * so up to m cells may be wrong, and it need not be known which. The block is then written to its own cell (k = 1: to every
 * copy that differs), after a second look at it: a read may have gone astray. Other cells of the row are left to whoever
 * knows their content.
 *
 * segment_mend is told the content of whole rows and compares columns with it. It never writes what is right already:
 * a crash while writing may tear, and the other columns may be all there is. segment_fill is for zones that nobody reads yet. */
#include <errno.h>
#include <isa-l.h>
#include <stdatomic.h>
#include <string.h>

#include "pool/base/mem.h"
#include "pool/pool_int.h"

#define READ_TRIES 3

/* --- all cells of a row ----------------------------------------------------------------------------------------- */

struct row_read {
	struct pool *pool;
	const struct segment *segment;
	uint32_t row, cols, pending;
	struct fiber *fiber;
	uint8_t *cells; /* [cols], then one block of scratch */
	struct cell_read {
		struct disk_io io;
		struct iovec iov;
		struct row_read *row;
		int res;
	} cell[SEGMENT_COLS_MAX];
};

static uint8_t *cell_at(const struct row_read *rr, uint32_t c)
{
	return rr->cells + (size_t)c * BLOCK_BYTES;
}

static void cell_done(struct disk_io *io, int res)
{
	struct cell_read *cell = container_of(io, struct cell_read, io);

	cell->res = res;
	if (--cell->row->pending == 0)
		fiber_wake(cell->row->fiber);
}

static void read_cells(struct row_read *rr)
{
	rr->fiber = fiber_self();
	rr->pending = 1;
	for (uint32_t c = 0; c < rr->cols; c++) {
		struct cell_read *cell = &rr->cell[c];
		struct zone_addr at = rr->segment->cols[c];
		struct disk *disk = at.disk_id == DISK_NONE ? NULL : rr->pool->disks[at.disk_id]->disk;

		cell->row = rr;
		cell->res = -EIO;
		if (!disk)
			continue;
		cell->iov = (struct iovec){ cell_at(rr, c), BLOCK_BYTES };
		cell->io = (struct disk_io){ .op = DISK_READ, .iov = &cell->iov, .iov_count = 1, .done = cell_done,
					     .len_bytes = BLOCK_BYTES, .off_bytes = rows_cell_off(rr->pool, at, rr->row) };
		rr->pending++;
		disk_submit(disk, &cell->io);
	}
	rr->pending--;
	while (rr->pending)
		fiber_park();
}

static int first_error(const struct row_read *rr)
{
	for (uint32_t c = 0; c < rr->cols; c++)
		if (!rr->cell[c].res)
			return -EBADMSG; /* something was read, but nothing that passed */
	return rr->cell[0].res;
}

/* --- the search --------------------------------------------------------------------------------------------------- */

struct search {
	struct row_read *rr;
	uint32_t own; /* column of the block */
	block_check_fn *check;
	void *arg;
};

static const uint8_t *decode_own(const struct search *s, const uint32_t *from)
{
	struct row_read *rr = s->rr;
	uint8_t tables[32 * SEGMENT_COLS_MAX], *cells[SEGMENT_COLS_MAX], *to = cell_at(rr, rr->cols);

	if (!rows_decoder(rr->segment->policy, from, &s->own, 1, tables))
		return NULL;
	for (uint32_t i = 0; i < rr->segment->policy.k; i++)
		cells[i] = cell_at(rr, from[i]);
	ec_encode_data(BLOCK_BYTES, rr->segment->policy.k, 1, tables, cells, &to);
	return s->check(s->arg, to) ? to : NULL;
}

/* Every set of k readable cells without the own one, in ascending order. */
static const uint8_t *search_sets(const struct search *s, uint32_t *from, uint32_t chosen, uint32_t next)
{
	const struct row_read *rr = s->rr;
	const uint8_t *found = NULL;

	if (chosen == rr->segment->policy.k)
		return decode_own(s, from);
	for (uint32_t c = next; c < rr->cols && !found; c++) {
		if (c == s->own || rr->cell[c].res)
			continue;
		from[chosen] = c;
		found = search_sets(s, from, chosen + 1, c + 1);
	}
	return found;
}

static const uint8_t *search(const struct search *s)
{
	const struct row_read *rr = s->rr;
	uint32_t from[SEGMENT_COLS_MAX];

	for (uint32_t c = 0; c < rr->cols; c++) {
		bool candidate = rr->segment->policy.k == 1 || c == s->own;

		if (candidate && !rr->cell[c].res && s->check(s->arg, cell_at(rr, c)))
			return cell_at(rr, c);
	}
	return rr->segment->policy.k == 1 || rr->segment->policy.m == 0 ? NULL : search_sets(s, from, 0, 0);
}

/* --- healing ------------------------------------------------------------------------------------------------------ */

/* Writes len bytes of a column that should be `right`, if a second look (at `seen`) says that they are not. 1: written. */
static int put_right(struct pool *pool, const struct segment *segment, uint32_t c, uint32_t row, const uint8_t *right,
		     uint8_t *seen, size_t len)
{
	struct disk *disk = rows_writable_disk(pool, segment, c);
	struct pool_disk *pd;
	uint64_t off;
	bool same;
	int ret;

	if (!disk || segment->moving >> c & 1)
		return 0;
	pd = pool->disks[segment->cols[c].disk_id];
	off = rows_cell_off(pool, segment->cols[c], row);
	atomic_fetch_add(&pd->writers, 1);
	same = !disk_read(disk, off, seen, len) && !memcmp(seen, right, len);
	ret = same ? 0 : disk_write(disk, off, right, len);
	atomic_fetch_sub(&pd->writers, 1);
	if (!ret && !same)
		atomic_fetch_add(&pd->mended_blocks, len / BLOCK_BYTES);
	return ret ? ret : !same;
}

static void heal(const struct search *s, const uint8_t *found)
{
	struct row_read *rr = s->rr;
	bool mirror = rr->segment->policy.k == 1;

	if (rr->segment->policy.m == 0)
		return;
	for (uint32_t c = 0; c < rr->cols; c++) {
		uint8_t *cell = cell_at(rr, c);

		if (cell == found || (!mirror && c != s->own) ||
		    (!rr->cell[c].res && !memcmp(cell, found, BLOCK_BYTES)))
			continue;
		/* Should it fail, the block is no worse than before. */
		(void)put_right(rr->pool, rr->segment, c, rr->row, found, cell, BLOCK_BYTES);
	}
}

int segment_read_checked(struct pool *pool, const struct segment *segment, uint32_t index, block_check_fn *check, void *arg,
			 void *buf)
{
	struct row_read *rr = mem_zalloc(sizeof(*rr));
	struct search s = { rr, index % segment->policy.k, check, arg };
	const uint8_t *found = NULL;
	int ret = -ENOMEM;

	if (!rr)
		return -ENOMEM;
	rr->pool = pool;
	rr->segment = segment;
	rr->row = index / segment->policy.k;
	rr->cols = segment->policy.k + segment->policy.m;
	rr->cells = mem_alloc_aligned(BLOCK_BYTES, (rr->cols + 1) * (size_t)BLOCK_BYTES);
	for (int i = 0; i < READ_TRIES && rr->cells && !found; i++) {
		read_cells(rr);
		found = search(&s);
		ret = found ? 0 : first_error(rr);
	}
	if (found) {
		heal(&s, found);
		memcpy(buf, found, BLOCK_BYTES);
	}
	mem_free(rr->cells);
	mem_free(rr);
	return ret;
}

/* --- whole rows --------------------------------------------------------------------------------------------------- */

/* Lays out the columns of rows: data gathered, parity encoded. cols: k + m columns of `rows` blocks. */
static void fill_columns(const struct pool *pool, struct policy policy, const uint8_t *buf, uint32_t rows, uint8_t *cols)
{
	size_t column_bytes = (size_t)rows * BLOCK_BYTES;
	uint8_t *data[SEGMENT_COLS_MAX], *parity[SEGMENT_COLS_MAX];

	for (uint32_t i = 0; i < rows * policy.k; i++)
		memcpy(cols + i % policy.k * column_bytes + (size_t)(i / policy.k) * BLOCK_BYTES,
		       buf + (size_t)i * BLOCK_BYTES, BLOCK_BYTES);
	for (uint32_t p = 0; p < policy.m && policy.k == 1; p++)
		memcpy(cols + (1 + p) * column_bytes, buf, column_bytes);
	if (policy.k == 1 || policy.m == 0)
		return;
	for (uint32_t c = 0; c < policy.k; c++)
		data[c] = cols + c * column_bytes;
	for (uint32_t p = 0; p < policy.m; p++)
		parity[p] = cols + (policy.k + p) * column_bytes;
	ec_encode_data((int)column_bytes, policy.k, policy.m, rows_encoder(pool, policy), data, parity);
}

/* Calls fn for each of the columns with what it should hold. *sum: of what fn returned, or the first -errno. */
struct columns {
	struct pool *pool;
	const struct segment *segment;
	uint32_t row;
	size_t len; /* of a column */
	uint8_t *scratch;
};
typedef int column_fn(const struct columns *cols, uint32_t c, const uint8_t *content);

static int for_columns(struct pool *pool, const struct segment *segment, uint32_t which, uint32_t index, uint32_t count,
		       const void *buf, column_fn *fn)
{
	struct policy policy = segment->policy;
	uint32_t rows = count / policy.k, n = policy.k + policy.m;
	struct columns cols = { pool, segment, index / policy.k, (size_t)rows * BLOCK_BYTES, NULL };
	uint8_t *content;
	int sum = 0;

	assert(index % policy.k == 0 && count % policy.k == 0 && count > 0);
	content = mem_alloc_aligned(BLOCK_BYTES, (n + 1) * cols.len);
	if (!content)
		return -ENOMEM;
	fill_columns(pool, policy, buf, rows, content);
	cols.scratch = content + n * cols.len;
	for (uint32_t c = 0; c < n && sum >= 0; c++) {
		int ret = which >> c & 1 ? fn(&cols, c, content + c * cols.len) : 0;

		sum = ret < 0 ? ret : sum + ret;
	}
	mem_free(content);
	return sum;
}

static int mend_column(const struct columns *cols, uint32_t c, const uint8_t *content)
{
	return put_right(cols->pool, cols->segment, c, cols->row, content, cols->scratch, cols->len);
}

int segment_mend(struct pool *pool, const struct segment *segment, uint32_t cols, uint32_t index, uint32_t count,
		 const void *buf)
{
	return for_columns(pool, segment, cols, index, count, buf, mend_column);
}

static int write_cells(struct pool *pool, const struct segment *segment, uint32_t c, uint32_t row, const void *cells,
		       size_t len)
{
	struct disk *disk = rows_writable_disk(pool, segment, c);

	return disk ? disk_write(disk, rows_cell_off(pool, segment->cols[c], row), cells, len) : -EIO;
}

static int fill_column(const struct columns *cols, uint32_t c, const uint8_t *content)
{
	return write_cells(cols->pool, cols->segment, c, cols->row, content, cols->len);
}

int segment_fill(struct pool *pool, const struct segment *segment, uint32_t cols, uint32_t index, uint32_t count,
		 const void *buf)
{
	return for_columns(pool, segment, cols, index, count, buf, fill_column);
}

/* --- as it is ----------------------------------------------------------------------------------------------------- */

/* Positive: it cannot be had. */
static int copy_column(struct pool *pool, const struct segment *from, const struct segment *to, uint32_t c, uint32_t row,
		       uint32_t rows, uint8_t *buf)
{
	struct disk *disk = rows_trusted_disk(pool, from, c);
	size_t len = (size_t)rows * BLOCK_BYTES;
	uint32_t k = from->policy.k;

	if (disk && disk_read(disk, rows_cell_off(pool, from->cols[c], row), buf, len) == 0)
		return write_cells(pool, to, c, row, buf, len);
	if (from->policy.m == 0 || segment_read(pool, from, row * k, rows * k, buf) < 0)
		return 1;
	return segment_fill(pool, to, 1u << c, row * k, rows * k, buf);
}

int segment_copy_cells(struct pool *pool, const struct segment *from, const struct segment *to, uint32_t cols, uint32_t row,
		       uint32_t rows)
{
	uint8_t *buf = mem_alloc_aligned(BLOCK_BYTES, (size_t)rows * from->policy.k * BLOCK_BYTES);
	int ret = buf ? 0 : -ENOMEM;

	for (uint32_t c = 0; c < SEGMENT_COLS_MAX && ret >= 0; c++) {
		if (!(cols >> c & 1))
			continue;
		ret = copy_column(pool, from, to, c, row, rows, buf);
		for (uint32_t r = 0; r < rows && ret > 0 && rows > 1; r++)
			if (copy_column(pool, from, to, c, row + r, 1, buf) < 0)
				ret = -EIO;
	}
	mem_free(buf);
	return ret < 0 ? ret : 0;
}
