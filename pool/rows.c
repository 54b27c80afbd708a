/* Rows: the I/O of segments, for any k + m.
 *
 * Block i of a segment lies in row i / k, column i % k. A run of blocks touches in each data column one contiguous piece
 * of its zone; parity columns hold rows like any column. So a seg_io becomes a few disk I/Os per column:
 *
 *   k + m = 1    the caller's iovecs as they are, in io->one: no allocation, no copy
 *   read, k = 1  the same, from the first column
 *   otherwise    a struct rows_io: the caller's iovecs gathered per column (block 0, k, 2k ... for column 0); for k = 1
 *                all m parity columns are copies and share the caller's iovecs; for k > 1 parity is encoded by isa-l
 *                (Cauchy matrix, any k of k + m columns give the data back) into a buffer of its own
 *
 * Reads use data columns only. A column that fails makes the whole I/O fail, with failed_disk set; reconstruction from the
 * other columns belongs into rows_io_finish().
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

void rows_release(struct pool *pool)
{
	for (int k = 0; k < SEGMENT_COLS_MAX; k++)
		for (int m = 0; m < SEGMENT_COLS_MAX; m++)
			mem_free(pool->encode_tables[k][m]);
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
	uint32_t disk_id;
};

struct rows_io {
	struct seg_io *io;
	uint32_t iov_cap, iov_used;
	uint32_t col_io_cap, col_io_used;
	struct iovec *iov;
	uint8_t *parity; /* m columns of `rows` blocks; NULL if none */
	struct col_io cols[];
};

static uint64_t column_off(const struct pool *pool, struct zone_addr at, uint32_t row)
{
	return pool->disks[at.disk_id]->label.zones_off + (uint64_t)at.zone * pool->zone_bytes +
	       (uint64_t)row * BLOCK_BYTES;
}

/* Where reconstruction goes: here the results of all columns are known, and nothing is in flight. */
static void rows_io_finish(struct rows_io *rows)
{
	struct seg_io *io = rows->io;

	mem_free(rows->parity);
	mem_free(rows->iov);
	mem_free(rows);
	io->done(io, io->res);
}

static void col_done(struct disk_io *disk_io, int res)
{
	struct col_io *col = container_of(disk_io, struct col_io, io);
	struct seg_io *io = col->rows->io;

	if (res && !io->res) {
		io->res = res;
		io->failed_disk = col->disk_id;
	}
	if (--io->pending == 0)
		rows_io_finish(col->rows);
}

/* Starts a disk I/O on a column at a row; iovecs are added by col_add. */
static struct col_io *col_begin(struct rows_io *rows, uint32_t c, uint32_t row)
{
	struct seg_io *io = rows->io;
	struct zone_addr at = io->segment->cols[c];
	struct col_io *col = &rows->cols[rows->col_io_used++];

	assert(rows->col_io_used <= rows->col_io_cap);
	col->rows = rows;
	col->disk_id = at.disk_id;
	col->io = (struct disk_io){
		.op = io->op,
		.off_bytes = column_off(io->pool, at, row),
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

/* Encodes row after row into rows->parity; scratch: k blocks. */
static void encode_rows(struct rows_io *rows, uint8_t *scratch)
{
	const struct seg_io *io = rows->io;
	struct policy policy = io->segment->policy;
	uint8_t *tables = io->pool->encode_tables[policy.k - 1][policy.m];
	uint8_t *data[SEGMENT_COLS_MAX], *parity[SEGMENT_COLS_MAX];
	uint32_t row_count = io->count / policy.k;
	struct iov_cursor cur = { io->iov, io->iov + io->iov_count, 0 };

	assert(tables);
	for (uint32_t row = 0; row < row_count; row++) {
		for (uint32_t c = 0; c < policy.k; c++)
			data[c] = block_ptr(&cur, scratch + c * BLOCK_BYTES);
		for (uint32_t p = 0; p < policy.m; p++)
			parity[p] = rows->parity + ((uint64_t)p * row_count + row) * BLOCK_BYTES;
		ec_encode_data(BLOCK_BYTES, policy.k, policy.m, tables, data, parity);
	}
}

static void parity_columns(struct rows_io *rows)
{
	const struct seg_io *io = rows->io;
	struct policy policy = io->segment->policy;
	size_t column_bytes = (size_t)io->count / policy.k * BLOCK_BYTES;

	encode_rows(rows, rows->parity + policy.m * column_bytes);
	for (uint32_t p = 0; p < policy.m; p++) {
		struct col_io *col = col_begin(rows, policy.k + p, io->index / policy.k);

		col_add(rows, col, (struct iovec){ rows->parity + p * column_bytes, column_bytes });
	}
}

/* --- submit ------------------------------------------------------------------------------------------------------------ */

static bool has_parity(const struct seg_io *io)
{
	return io->op == DISK_WRITE && io->segment->policy.m > 0;
}

/* Bounds: each caller's piece is cut at most at each block boundary; a column begins a new disk I/O at most every
 * DISK_IOV_MAX - 7 pieces (a block has 8 of 512 bytes). */
static struct rows_io *rows_io_new(struct seg_io *io)
{
	struct policy policy = io->segment->policy;
	uint32_t cols = policy.k + (has_parity(io) ? policy.m : 0);
	uint32_t iov_cap = io->iov_count + io->count + policy.m;
	uint32_t col_io_cap = cols + iov_cap / (DISK_IOV_MAX / 2);
	struct rows_io *rows = mem_alloc(sizeof(*rows) + col_io_cap * sizeof(struct col_io));

	if (!rows)
		return NULL;
	*rows = (struct rows_io){ .io = io, .iov_cap = iov_cap, .col_io_cap = col_io_cap };
	rows->iov = mem_alloc(iov_cap * sizeof(struct iovec));
	if (has_parity(io) && policy.k > 1)
		rows->parity = mem_alloc_aligned(BLOCK_BYTES,
						 ((size_t)io->count / policy.k * policy.m + policy.k) * BLOCK_BYTES);
	if (rows->iov && (rows->parity || !has_parity(io) || policy.k == 1))
		return rows;
	mem_free(rows->iov);
	mem_free(rows->parity);
	mem_free(rows);
	return NULL;
}

static void no_memory(struct task *task)
{
	struct seg_io *io = container_of(container_of(task, struct disk_io, task), struct seg_io, one);

	io->done(io, -ENOMEM);
}

static void submit_columns(struct seg_io *io)
{
	struct policy policy = io->segment->policy;
	struct rows_io *rows = rows_io_new(io);
	uint32_t used;

	if (!rows) {
		io->one.task = (struct task){ .fn = no_memory };
		loop_post(loop_self(), &io->one.task);
		return;
	}
	for (uint32_t c = 0; c < policy.k; c++)
		gather_column(rows, c);
	if (has_parity(io) && policy.k > 1)
		parity_columns(rows);
	for (uint32_t c = 1; has_parity(io) && policy.k == 1 && c <= policy.m; c++)
		copy_column(rows, c);
	used = io->pending = rows->col_io_used;
	for (uint32_t i = 0; i < used; i++)
		disk_submit(io->pool->disks[rows->cols[i].disk_id]->disk, &rows->cols[i].io);
}

static void one_done(struct disk_io *disk_io, int res)
{
	struct seg_io *io = container_of(disk_io, struct seg_io, one);

	if (res)
		io->failed_disk = io->segment->cols[0].disk_id;
	io->done(io, res);
}

static void submit_one(struct seg_io *io)
{
	struct zone_addr at = io->segment->cols[0];

	io->one.op = io->op;
	io->one.iov = io->iov;
	io->one.iov_count = io->iov_count;
	io->one.off_bytes = column_off(io->pool, at, io->index);
	io->one.len_bytes = (uint64_t)io->count * BLOCK_BYTES;
	io->one.done = one_done;
	disk_submit(io->pool->disks[at.disk_id]->disk, &io->one);
}

void segment_submit(struct pool *pool, struct seg_io *io)
{
	struct policy policy = io->segment->policy;

	assert(io->op == DISK_READ || io->op == DISK_WRITE);
	assert(io->count > 0 && io->index < segment_blocks(pool, policy) &&
	       io->count <= segment_blocks(pool, policy) - io->index);
	assert(io->op == DISK_READ || (io->index % policy.k == 0 && io->count % policy.k == 0));
	io->pool = pool;
	io->res = 0;
	io->failed_disk = UINT32_MAX;
	if (policy.k == 1 && !has_parity(io))
		submit_one(io);
	else
		submit_columns(io);
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

int pool_flush_disk(struct pool *pool, uint32_t disk_id)
{
	struct pool_disk *pd = pool->disks[disk_id];

	if (disk_flush(pd->disk))
		atomic_store(&pd->failed, true);
	return atomic_load(&pd->failed) ? -EIO : 0;
}
