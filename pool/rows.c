/* Rows: the I/O of segments, for any k + m.
 *
 * Block i of a segment lies in row i / k, column i % k. A run of blocks touches in each data column one contiguous piece
 * of its zone; parity columns hold rows like any column. So a seg_io becomes a few disk I/Os per column:
 *
 *   k + m = 1    the caller's iovecs as they are, in io->one: no allocation, no copy
 *   read, k = 1  the same, from one of the copies
 *   otherwise    a struct rows_io: the caller's iovecs gathered per column (block 0, k, 2k ... for column 0); for k = 1
 *                all columns are copies and share the caller's iovecs; for k > 1 parity is encoded by isa-l
 *                (Cauchy matrix, any k of k + m columns give the data back) into a buffer of its own
 *
 * A column is trusted if its disk is in use and the segment does not say that it is lost. Reads use trusted columns: of a
 * mirror each copy in turn, otherwise those that hold the blocks asked for. A read that cannot (a disk is gone, or answers
 * with an error) reads whole rows of any k columns instead and decodes; columns that are not trusted come last, for
 * whoever reads knows the checksum. What has failed once in an I/O (io->tried) is not asked again.
 *
 * Writes go to every column that has a zone, or fail: so what was written has all the redundancy that there was when the
 * segment was granted, and whoever writes goes on in a segment on other disks.
 *
 * Always holds: done is called once, from the loop, never from within segment_submit. */
#include <assert.h>
#include <errno.h>
#include <isa-l.h>
#include <string.h>

#include "pool/base/mem.h"
#include "pool/pool_int.h"

/* --- encode tables ---------------------------------------------------------------------------------------------- */

int rows_prepare(struct pool *pool, struct policy policy)
{
	uint8_t matrix[SEGMENT_COLS_MAX * SEGMENT_COLS_MAX], *tables;
	uint8_t **slot = &pool->encode_tables[policy.k - 1][policy.m];

	assert(policy_is_valid(policy));
	if (policy.k == 1 || policy.m == 0 || *slot)
		return 0;
	tables = mem_alloc(32u * policy.k * policy.m);
	if (!tables)
		return -ENOMEM;
	gf_gen_cauchy1_matrix(matrix, policy.k + policy.m, policy.k);
	ec_init_tables(policy.k, policy.m, matrix + policy.k * policy.k, tables);
	*slot = tables;
	return 0;
}

uint8_t *rows_encoder(const struct pool *pool, struct policy policy)
{
	uint8_t *tables = pool->encode_tables[policy.k - 1][policy.m];

	assert(tables);
	return tables;
}

void rows_release(struct pool *pool)
{
	for (int k = 0; k < SEGMENT_COLS_MAX; k++)
		for (int m = 0; m < SEGMENT_COLS_MAX; m++)
			mem_free(pool->encode_tables[k][m]);
}

bool rows_decoder(struct policy policy, const uint32_t *from, const uint32_t *want, uint32_t want_count, uint8_t *tables)
{
	uint8_t matrix[SEGMENT_COLS_MAX * SEGMENT_COLS_MAX], part[SEGMENT_COLS_MAX * SEGMENT_COLS_MAX];
	uint8_t inverse[SEGMENT_COLS_MAX * SEGMENT_COLS_MAX];
	uint32_t k = policy.k;

	gf_gen_cauchy1_matrix(matrix, policy.k + policy.m, policy.k);
	for (uint32_t i = 0; i < k; i++)
		memcpy(part + i * k, matrix + from[i] * k, k);
	if (gf_invert_matrix(part, inverse, policy.k))
		return false;
	for (uint32_t i = 0; i < want_count; i++)
		memcpy(part + i * k, inverse + want[i] * k, k);
	ec_init_tables(policy.k, (int)want_count, part, tables);
	return true;
}

/* --- columns ---------------------------------------------------------------------------------------------------- */

/* The disk of a column, if it has one that can be asked. */
static struct disk *col_disk(const struct pool *pool, const struct segment *segment, uint32_t c)
{
	uint32_t id = segment->cols[c].disk_id;

	return id == DISK_NONE ? NULL : pool->disks[id]->disk;
}

struct disk *rows_writable_disk(const struct pool *pool, const struct segment *segment, uint32_t c)
{
	struct disk *disk = col_disk(pool, segment, c);

	return disk && !atomic_load(&pool->disks[segment->cols[c].disk_id]->failed) ? disk : NULL;
}

static bool col_trusted(const struct pool *pool, const struct segment *segment, uint32_t c)
{
	return !(segment->lost >> c & 1) && rows_writable_disk(pool, segment, c);
}

uint32_t segment_writable_cols(const struct pool *pool, const struct segment *segment)
{
	uint32_t cols = 0;

	for (uint32_t c = 0; c < (uint32_t)segment->policy.k + segment->policy.m; c++)
		cols |= (uint32_t)(rows_writable_disk(pool, segment, c) != NULL) << c;
	return cols;
}

uint64_t rows_cell_off(const struct pool *pool, struct zone_addr at, uint32_t row)
{
	return pool->disks[at.disk_id]->label.zones_off + (uint64_t)at.zone * pool->zone_bytes +
	       (uint64_t)row * BLOCK_BYTES;
}

/* --- walking the caller's memory --------------------------------------------------------------------------------- */

struct iov_cursor {
	const struct iovec *iov, *end;
	size_t off; /* in *iov */
};

/* The next contiguous piece, at most max bytes; moves behind it. */
static struct iovec cursor_take(struct iov_cursor *cur, size_t max)
{
	struct iovec piece;

	for (; cur->iov < cur->end && cur->off == cur->iov->iov_len; cur->off = 0)
		cur->iov++;
	assert(cur->iov < cur->end);
	piece.iov_base = (uint8_t *)cur->iov->iov_base + cur->off;
	piece.iov_len = cur->iov->iov_len - cur->off;
	if (piece.iov_len > max)
		piece.iov_len = max;
	cur->off += piece.iov_len;
	return piece;
}

/* --- the general I/O ---------------------------------------------------------------------------------------------- */

/* One disk I/O of a column. A column has several if its iovecs are too many for one. */
struct col_io {
	struct disk_io io;
	struct rows_io *rows;
	uint32_t col;
};

struct rows_io {
	struct seg_io *io;
	uint32_t iov_cap, iov_used;
	uint32_t col_io_cap, col_io_used;
	struct iovec *iov;
	uint8_t *buf; /* write: m parity columns of whole rows; decoding read: see decode_start; else NULL */
	struct decoding *decoding; /* NULL: blocks are read in place */
	struct col_io cols[];
};

static void rows_io_free(struct rows_io *rows)
{
	mem_free(rows->buf);
	mem_free(rows->iov);
	mem_free(rows->decoding);
	mem_free(rows);
}

static void fail_now(struct task *task)
{
	struct seg_io *io = container_of(container_of(task, struct disk_io, task), struct seg_io, one);

	io->done(io, io->res);
}

static void fail_later(struct seg_io *io, int res)
{
	io->res = res;
	io->one.task = (struct task){ .fn = fail_now };
	loop_post(loop_self(), &io->one.task);
}

static void decode_finish(struct rows_io *rows);
static void submit_read(struct seg_io *io);

static void finish_good(struct seg_io *io)
{
	io->failed_disk = UINT32_MAX;
	io->done(io, 0);
}

/* The results of all columns are known, and nothing is in flight. */
static void rows_io_finish(struct rows_io *rows)
{
	struct seg_io *io = rows->io;
	bool good = io->pending_error == 0;

	if (good && rows->decoding)
		decode_finish(rows);
	rows_io_free(rows);
	if (good)
		finish_good(io);
	else if (io->op == DISK_READ)
		submit_read(io);
	else
		io->done(io, io->res);
}

/* Notes that a column has failed. */
static void note_error(struct seg_io *io, uint32_t col, int res)
{
	io->pending_error = res;
	io->tried |= 1u << col;
	if (io->res)
		return;
	io->res = res;
	io->failed_disk = io->segment->cols[col].disk_id;
}

static void col_done(struct disk_io *disk_io, int res)
{
	struct col_io *col = container_of(disk_io, struct col_io, io);
	struct seg_io *io = col->rows->io;

	if (res)
		note_error(io, col->col, res);
	if (--io->pending == 0)
		rows_io_finish(col->rows);
}

/* Starts a disk I/O on a column at a row; iovecs are added by col_add. */
static struct col_io *col_begin(struct rows_io *rows, uint32_t c, uint32_t row)
{
	struct seg_io *io = rows->io;
	struct col_io *col = &rows->cols[rows->col_io_used++];

	assert(rows->col_io_used <= rows->col_io_cap);
	col->rows = rows;
	col->col = c;
	col->io = (struct disk_io){
		.op = io->op,
		.off_bytes = rows_cell_off(io->pool, io->segment->cols[c], row),
		.iov = rows->iov + rows->iov_used,
		.done = col_done,
	};
	return col;
}

static void col_add(struct rows_io *rows, struct col_io *col, struct iovec piece)
{
	struct iovec *last = &rows->iov[rows->iov_used - 1];

	col->io.len_bytes += piece.iov_len;
	if (col->io.iov_count && (uint8_t *)last->iov_base + last->iov_len == piece.iov_base) {
		last->iov_len += piece.iov_len;
		return;
	}
	assert(rows->iov_used < rows->iov_cap && col->io.iov_count < DISK_IOV_MAX);
	rows->iov[rows->iov_used++] = piece;
	col->io.iov_count++;
}

/* Pieces of the block that begins at cur. */
static uint32_t block_pieces(struct iov_cursor cur)
{
	uint32_t pieces = 0;

	for (size_t left = BLOCK_BYTES; left; pieces++)
		left -= cursor_take(&cur, left).iov_len;
	return pieces;
}

/* Gathers the blocks of data column c. */
static void gather_column(struct rows_io *rows, uint32_t c)
{
	const struct seg_io *io = rows->io;
	uint32_t k = io->segment->policy.k;
	struct iov_cursor cur = { io->iov, io->iov + io->iov_count, 0 };
	struct col_io *col = NULL;

	for (uint32_t i = io->index; i < io->index + io->count; i++) {
		bool mine = i % k == c;

		if (mine && (!col || col->io.iov_count + block_pieces(cur) > DISK_IOV_MAX))
			col = col_begin(rows, c, i / k);
		for (size_t left = BLOCK_BYTES; left;) {
			struct iovec piece = cursor_take(&cur, left);

			left -= piece.iov_len;
			if (mine)
				col_add(rows, col, piece);
		}
	}
}

/* A mirror's copy: the caller's iovecs as they are. */
static void copy_column(struct rows_io *rows, uint32_t c)
{
	const struct seg_io *io = rows->io;
	struct col_io *col = col_begin(rows, c, io->index);

	col->io.iov = io->iov;
	col->io.iov_count = io->iov_count;
	col->io.len_bytes = (uint64_t)io->count * BLOCK_BYTES;
}

/* --- parity ---------------------------------------------------------------------------------------------------------- */

/* The block at cur as one contiguous piece: in place, or copied to scratch. */
static uint8_t *block_ptr(struct iov_cursor *cur, uint8_t *scratch)
{
	struct iovec piece = cursor_take(cur, BLOCK_BYTES);
	size_t have = piece.iov_len;

	if (have == BLOCK_BYTES)
		return piece.iov_base;
	memcpy(scratch, piece.iov_base, have);
	while (have < BLOCK_BYTES) {
		piece = cursor_take(cur, BLOCK_BYTES - have);
		memcpy(scratch + have, piece.iov_base, piece.iov_len);
		have += piece.iov_len;
	}
	return scratch;
}

/* Encodes row after row into rows->buf; scratch: k blocks. */
static void encode_rows(struct rows_io *rows, uint8_t *scratch)
{
	const struct seg_io *io = rows->io;
	struct policy policy = io->segment->policy;
	uint8_t *tables = rows_encoder(io->pool, policy);
	uint8_t *data[SEGMENT_COLS_MAX], *parity[SEGMENT_COLS_MAX];
	uint32_t row_count = io->count / policy.k;
	struct iov_cursor cur = { io->iov, io->iov + io->iov_count, 0 };

	for (uint32_t row = 0; row < row_count; row++) {
		for (uint32_t c = 0; c < policy.k; c++)
			data[c] = block_ptr(&cur, scratch + c * BLOCK_BYTES);
		for (uint32_t p = 0; p < policy.m; p++)
			parity[p] = rows->buf + ((uint64_t)p * row_count + row) * BLOCK_BYTES;
		ec_encode_data(BLOCK_BYTES, policy.k, policy.m, tables, data, parity);
	}
}

static void parity_columns(struct rows_io *rows)
{
	const struct seg_io *io = rows->io;
	struct policy policy = io->segment->policy;
	size_t column_bytes = (size_t)io->count / policy.k * BLOCK_BYTES;

	encode_rows(rows, rows->buf + policy.m * column_bytes);
	for (uint32_t p = 0; p < policy.m; p++)
		if (col_disk(io->pool, io->segment, policy.k + p))
			col_add(rows, col_begin(rows, policy.k + p, io->index / policy.k),
				(struct iovec){ rows->buf + p * column_bytes, column_bytes });
}

/* --- submit: columns --------------------------------------------------------------------------------------------------- */

static void submit_all(struct rows_io *rows)
{
	struct seg_io *io = rows->io;
	uint32_t used = rows->col_io_used;

	io->pending = used;
	for (uint32_t i = 0; i < used; i++)
		disk_submit(col_disk(io->pool, io->segment, rows->cols[i].col), &rows->cols[i].io);
}

/* NULL: no memory. buf_bytes 0: none needed. */
static struct rows_io *rows_io_new(struct seg_io *io, uint32_t iov_cap, uint32_t col_io_cap, size_t buf_bytes)
{
	struct rows_io *rows = mem_alloc(sizeof(*rows) + col_io_cap * sizeof(struct col_io));

	if (!rows)
		return NULL;
	*rows = (struct rows_io){ .io = io, .iov_cap = iov_cap, .col_io_cap = col_io_cap };
	rows->iov = mem_alloc(iov_cap * sizeof(struct iovec));
	if (rows->iov && buf_bytes)
		rows->buf = mem_alloc_aligned(BLOCK_BYTES, buf_bytes);
	if (rows->iov && (rows->buf || !buf_bytes))
		return rows;
	rows_io_free(rows);
	return NULL;
}

/* For gathered columns. Bounds: each caller's piece is cut at most at each block boundary; a column begins a new disk I/O
 * at most every DISK_IOV_MAX - 7 pieces (a block has 8 of 512 bytes). */
static struct rows_io *rows_io_gathering(struct seg_io *io, uint32_t cols, size_t buf_bytes)
{
	uint32_t iov_cap = io->iov_count + io->count + cols;

	return rows_io_new(io, iov_cap, cols + iov_cap / (DISK_IOV_MAX / 2), buf_bytes);
}

/* --- submit: writes ---------------------------------------------------------------------------------------------------- */

static void submit_write(struct seg_io *io)
{
	struct policy policy = io->segment->policy;
	uint32_t cols = policy.k + policy.m;
	bool parity = policy.k > 1 && policy.m > 0;
	size_t rows_and_scratch = (size_t)io->count / policy.k * policy.m + policy.k;
	struct rows_io *rows = rows_io_gathering(io, cols, parity ? rows_and_scratch * BLOCK_BYTES : 0);

	if (!rows) {
		fail_later(io, -ENOMEM);
		return;
	}
	for (uint32_t c = 0; c < policy.k; c++) {
		if (!col_disk(io->pool, io->segment, c))
			continue;
		if (policy.k == 1)
			copy_column(rows, c);
		else
			gather_column(rows, c);
	}
	for (uint32_t c = 1; c < cols && policy.k == 1; c++)
		if (col_disk(io->pool, io->segment, c))
			copy_column(rows, c);
	if (parity)
		parity_columns(rows);
	submit_all(rows);
}

/* The disk of a column that has a zone and cannot be written; DISK_NONE if there is none. */
static uint32_t unwritable_disk(const struct seg_io *io)
{
	const struct segment *segment = io->segment;

	for (uint32_t c = 0; c < (uint32_t)segment->policy.k + segment->policy.m; c++)
		if (segment->cols[c].disk_id != DISK_NONE && !rows_writable_disk(io->pool, segment, c))
			return segment->cols[c].disk_id;
	return DISK_NONE;
}

/* --- submit: decoding reads -------------------------------------------------------------------------------------------- */

/* Whole rows are read from k columns to buf, column after column; behind them stand the wanted columns that are not among
 * them, once decoded. */
struct decoding {
	uint32_t row, rows;
	uint32_t from[SEGMENT_COLS_MAX], want[SEGMENT_COLS_MAX], want_count;
	uint8_t *place[SEGMENT_COLS_MAX]; /* [data column]: in buf */
	uint8_t tables[32 * SEGMENT_COLS_MAX * SEGMENT_COLS_MAX];
};

/* Columns to read rows from: trusted ones, then others. False: fewer than k are left. */
static bool choose_sources(const struct seg_io *io, uint32_t *from)
{
	struct policy policy = io->segment->policy;
	uint32_t n = 0;

	for (int trusted = 1; trusted >= 0; trusted--)
		for (uint32_t c = 0; c < (uint32_t)policy.k + policy.m && n < policy.k; c++)
			if (!(io->tried >> c & 1) && col_disk(io->pool, io->segment, c) &&
			    col_trusted(io->pool, io->segment, c) == trusted)
				from[n++] = c;
	return n == policy.k;
}

static void decode_plan(struct rows_io *rows)
{
	struct decoding *d = rows->decoding;
	uint32_t k = rows->io->segment->policy.k;
	size_t column_bytes = (size_t)d->rows * BLOCK_BYTES;
	uint8_t *behind = rows->buf + k * column_bytes;

	for (uint32_t i = 0; i < k; i++) {
		uint8_t *at = rows->buf + i * column_bytes;

		if (d->from[i] < k)
			d->place[d->from[i]] = at;
		col_add(rows, col_begin(rows, d->from[i], d->row), (struct iovec){ at, column_bytes });
	}
	for (uint32_t c = 0; c < k; c++) {
		if (d->place[c])
			continue;
		d->place[c] = behind;
		d->want[d->want_count++] = c;
		behind += column_bytes;
	}
}

static void decode_finish(struct rows_io *rows)
{
	struct decoding *d = rows->decoding;
	const struct seg_io *io = rows->io;
	struct policy policy = io->segment->policy;
	struct iov_cursor cur = { io->iov, io->iov + io->iov_count, 0 };
	uint8_t *from[SEGMENT_COLS_MAX], *to[SEGMENT_COLS_MAX];

	for (uint32_t i = 0; i < policy.k; i++)
		from[i] = rows->buf + (size_t)i * d->rows * BLOCK_BYTES;
	for (uint32_t i = 0; i < d->want_count; i++)
		to[i] = d->place[d->want[i]];
	if (d->want_count && rows_decoder(policy, d->from, d->want, d->want_count, d->tables))
		ec_encode_data((int)(d->rows * BLOCK_BYTES), policy.k, (int)d->want_count, d->tables, from, to);
	for (uint32_t i = io->index; i < io->index + io->count; i++) {
		const uint8_t *cell = d->place[i % policy.k] + (size_t)(i / policy.k - d->row) * BLOCK_BYTES;

		for (size_t left = BLOCK_BYTES; left;) {
			struct iovec piece = cursor_take(&cur, left);

			memcpy(piece.iov_base, cell + BLOCK_BYTES - left, piece.iov_len);
			left -= piece.iov_len;
		}
	}
}

static void submit_decoding(struct seg_io *io, const uint32_t *from)
{
	uint32_t k = io->segment->policy.k, row = io->index / k, count = (io->index + io->count - 1) / k - row + 1;
	struct rows_io *rows = rows_io_new(io, k, k, (size_t)2 * k * count * BLOCK_BYTES);

	if (rows)
		rows->decoding = mem_zalloc(sizeof(*rows->decoding));
	if (!rows || !rows->decoding) {
		if (rows)
			rows_io_free(rows);
		fail_later(io, -ENOMEM);
		return;
	}
	rows->decoding->row = row;
	rows->decoding->rows = count;
	memcpy(rows->decoding->from, from, k * sizeof(*from));
	decode_plan(rows);
	submit_all(rows);
}

/* --- submit: reads ----------------------------------------------------------------------------------------------------- */

#define SHARE_BLOCKS 32 /* of a mirror, so many blocks come from one copy, the next ones from the next */

/* The copy to read from; SEGMENT_COLS_MAX if none is left. */
static uint32_t choose_copy(const struct seg_io *io)
{
	uint32_t cols = 1u + io->segment->policy.m, first = io->index / SHARE_BLOCKS % cols, last = SEGMENT_COLS_MAX;

	for (uint32_t i = cols; i-- > 0;) {
		uint32_t c = (first + i) % cols;
		bool usable = !(io->tried >> c & 1) && col_disk(io->pool, io->segment, c);

		if (usable && (last == SEGMENT_COLS_MAX || col_trusted(io->pool, io->segment, c) ||
			       !col_trusted(io->pool, io->segment, last)))
			last = c;
	}
	return last;
}

static void one_done(struct disk_io *disk_io, int res)
{
	struct seg_io *io = container_of(disk_io, struct seg_io, one);

	io->has_crc = disk_io->has_crc;
	if (res)
		note_error(io, io->pending, res);
	if (!res)
		finish_good(io);
	else if (io->op == DISK_READ)
		submit_read(io);
	else
		io->done(io, res);
}

/* The caller's iovecs as they are, on column c of a segment of k = 1. */
static void submit_one(struct seg_io *io, uint32_t c)
{
	io->pending = c;
	io->one.op = io->op;
	io->one.iov = io->iov;
	io->one.iov_count = io->iov_count;
	io->one.off_bytes = rows_cell_off(io->pool, io->segment->cols[c], io->index);
	io->one.len_bytes = (uint64_t)io->count * BLOCK_BYTES;
	io->one.crc = io->crc;
	io->one.done = one_done;
	disk_submit(col_disk(io->pool, io->segment, c), &io->one);
}

/* May the blocks be read where they are? With `any` from columns that are not trusted, too. */
static bool in_place(const struct seg_io *io, bool any)
{
	uint32_t k = io->segment->policy.k;

	for (uint32_t i = io->index; i < io->index + io->count && i < io->index + k; i++)
		if (io->tried >> i % k & 1 || !col_disk(io->pool, io->segment, i % k) ||
		    !(any || col_trusted(io->pool, io->segment, i % k)))
			return false;
	return true;
}

static void submit_gathered(struct seg_io *io)
{
	uint32_t k = io->segment->policy.k;
	struct rows_io *rows = rows_io_gathering(io, k, 0);

	if (!rows) {
		fail_later(io, -ENOMEM);
		return;
	}
	for (uint32_t c = 0; c < k; c++)
		gather_column(rows, c);
	submit_all(rows);
}

/* Called again with another column in io->tried when one has failed. */
static void submit_read(struct seg_io *io)
{
	uint32_t from[SEGMENT_COLS_MAX];
	int give_up = io->res ? io->res : -EIO;

	io->pending_error = 0;
	if (io->segment->policy.k == 1) {
		uint32_t c = choose_copy(io);

		if (c == SEGMENT_COLS_MAX)
			fail_later(io, give_up);
		else
			submit_one(io, c);
	} else if (in_place(io, false)) {
		submit_gathered(io);
	} else if (io->segment->policy.m && choose_sources(io, from)) {
		submit_decoding(io, from);
	} else if (in_place(io, true)) {
		submit_gathered(io);
	} else {
		fail_later(io, give_up);
	}
}

void segment_submit(struct pool *pool, struct seg_io *io)
{
	struct policy policy = io->segment->policy;

	assert(io->op == DISK_READ || io->op == DISK_WRITE);
	assert(io->count > 0 && io->index < segment_blocks(pool, policy) &&
	       io->count <= segment_blocks(pool, policy) - io->index);
	assert(io->op == DISK_READ || (io->index % policy.k == 0 && io->count % policy.k == 0));
	io->pool = pool;
	io->has_crc = false;
	io->res = io->pending_error = 0;
	io->tried = 0;
	io->failed_disk = UINT32_MAX;
	if (io->op == DISK_READ) {
		submit_read(io);
	} else if (policy.m && (io->failed_disk = unwritable_disk(io)) != DISK_NONE) {
		fail_later(io, -EIO);
	} else if (policy.k + policy.m == 1) {
		submit_one(io, 0);
	} else {
		submit_write(io);
	}
}

/* --- waiting forms -------------------------------------------------------------------------------------------------- */

struct seg_wait {
	struct seg_io io;
	struct fiber *fiber;
	bool finished;
	int res;
};

static void wait_done(struct seg_io *io, int res)
{
	struct seg_wait *wait = container_of(io, struct seg_wait, io);

	wait->finished = true;
	wait->res = res;
	fiber_wake(wait->fiber);
}

static int segment_io(struct pool *pool, enum disk_op op, const struct segment *segment, uint32_t index, uint32_t count,
		      void *buf)
{
	struct iovec iov = { buf, (size_t)count * BLOCK_BYTES };
	struct seg_wait wait = {
		.io = {
			.op = op, .segment = segment, .index = index, .count = count, .iov = &iov, .iov_count = 1,
			.done = wait_done,
		},
		.fiber = fiber_self(),
	};

	assert(wait.fiber && (uintptr_t)buf % BLOCK_BYTES == 0);
	segment_submit(pool, &wait.io);
	while (!wait.finished)
		fiber_park();
	return wait.res;
}

int segment_read(struct pool *pool, const struct segment *segment, uint32_t index, uint32_t count, void *buf)
{
	return segment_io(pool, DISK_READ, segment, index, count, buf);
}

int segment_write(struct pool *pool, const struct segment *segment, uint32_t index, uint32_t count, const void *buf)
{
	return segment_io(pool, DISK_WRITE, segment, index, count, (void *)buf);
}
