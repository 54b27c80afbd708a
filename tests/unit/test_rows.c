/* Rows: what a segment's I/O puts on which disk for any k + m, and that any k columns give the data back. */
#include <errno.h>
#include <isa-l.h>
#include <stdlib.h>
#include <string.h>

#include "pool/base/mem.h"
#include "pool/pool_int.h"
#include "tests/unit/medium.h"
#include "tests/unit/unit.h"

#define DISK_BYTES ((48ull << 20) + 512) /* so that the disks have blocks of 512 bytes */
#define ZONE_BYTES (8u << 20)
#define BUF_BLOCKS 4096u

static struct media media;
static struct pool *pool;
static uint8_t *out, *in;

static uint32_t rnd(uint32_t below)
{
	static uint64_t state = 1;

	state = state * 6364136223846793005ull + 1442695040888963407ull;
	return (uint32_t)(state >> 33) % below;
}

static void open_pool(uint32_t disk_count)
{
	struct pool_create_opts opts = { .name = "tank", .zone_bytes = ZONE_BYTES };
	struct disk *disks[MEDIA_MAX];
	struct err err = { "" };

	media_open(&media, disks);
	if (pool_create(&opts, disks, disk_count, &pool, &err))
		fail_msg("%s", err.msg);
}

static void run_on(uint32_t disks, void (*fn)(void *arg))
{
	env_seed(3);
	media_init(&media, disks, DISK_BYTES);
	out = aligned_alloc(BLOCK_BYTES, BUF_BLOCKS * BLOCK_BYTES);
	in = aligned_alloc(BLOCK_BYTES, BUF_BLOCKS * BLOCK_BYTES);
	assert_true(out && in);
	for (uint32_t i = 0; i < BUF_BLOCKS * BLOCK_BYTES; i += 4)
		*(uint32_t *)(out + i) = rnd(UINT32_MAX);
	run_fiber(fn, NULL);
	free(out);
	free(in);
	media_release(&media);
}

#define TEST_ON(disks, name)                 \
	static void name##_fiber(void *arg); \
	static void name(void **state)       \
	{                                    \
		run_on(disks, name##_fiber); \
	}                                    \
	static void name##_fiber(void *arg)

static struct segment grant(struct policy policy)
{
	static uint32_t segno;
	struct segment segment;

	assert_int_equal(segment_grant(pool, 1, segno++, STREAM_DATA, policy, GRANT_RESERVE, UINT32_MAX, &segment), 0);
	return segment;
}

static void free_segment(const struct segment *segment)
{
	struct cat_txn txn;

	cat_txn_init(&txn);
	segment_free_in(&txn, segment->grant);
	assert_int_equal(pool_commit(pool, &txn), 0);
	cat_txn_release(&txn);
}

/* --- one I/O with a fragmented iovec, waited for ------------------------------------------------------------------------ */

struct waiting {
	struct seg_io io;
	struct fiber *fiber;
	bool submitted, finished;
	int res;
};

static void io_done(struct seg_io *io, int res)
{
	struct waiting *w = container_of(io, struct waiting, io);

	assert_true(w->submitted && !w->finished);
	w->finished = true;
	w->res = res;
	fiber_wake(w->fiber);
}

/* Cuts [buf, bytes) into pieces of sectors; pieces 0 means one whole piece. */
static uint32_t fragment(uint8_t *buf, uint32_t bytes, uint32_t max_sectors, struct iovec *iov)
{
	uint32_t count = 0;

	while (bytes) {
		uint32_t piece = max_sectors ? (1 + rnd(max_sectors)) * 512 : bytes;

		if (piece > bytes || count == DISK_IOV_MAX - 1)
			piece = bytes;
		iov[count++] = (struct iovec){ buf, piece };
		buf += piece;
		bytes -= piece;
	}
	return count;
}

static int run_io(enum disk_op op, const struct segment *segment, uint32_t index, uint32_t count, uint8_t *buf,
		  uint32_t max_sectors, uint32_t *failed_disk)
{
	struct iovec iov[DISK_IOV_MAX];
	struct waiting w = {
		.io = { .op = op, .segment = segment, .index = index, .count = count, .iov = iov, .done = io_done },
		.fiber = fiber_self(),
	};

	w.io.iov_count = fragment(buf, count * BLOCK_BYTES, max_sectors, iov);
	segment_submit(pool, &w.io);
	w.submitted = true;
	while (!w.finished)
		fiber_park();
	if (failed_disk)
		*failed_disk = w.io.failed_disk;
	return w.res;
}

/* --- what stands on the disks --------------------------------------------------------------------------------------------- */

static void read_cell(const struct segment *segment, uint32_t col, uint32_t row, uint8_t *cell)
{
	struct zone_addr at = segment->cols[col];
	uint64_t off = pool->disks[at.disk_id]->label.zones_off + (uint64_t)at.zone * ZONE_BYTES +
		       (uint64_t)row * BLOCK_BYTES;

	medium_read(&media.medium[at.disk_id], off, cell, BLOCK_BYTES);
}

/* Gets row's data from k columns chosen at random and compares. */
static void check_row_from_any_columns(const struct segment *segment, uint32_t row, const uint8_t *data)
{
	uint32_t k = segment->policy.k, n = k + segment->policy.m, chosen[SEGMENT_COLS_MAX] = { 0 }, count = 0;
	uint8_t matrix[24 * 24], part[24 * 24], inverse[24 * 24], tables[32 * 24 * 24];
	static uint8_t cells[SEGMENT_COLS_MAX][BLOCK_BYTES], got[SEGMENT_COLS_MAX][BLOCK_BYTES];
	uint8_t *from[SEGMENT_COLS_MAX] = { NULL }, *to[SEGMENT_COLS_MAX] = { NULL };

	for (uint32_t c = 0; c < n && count < k; c++)
		if (rnd(n - c) < k - count)
			chosen[count++] = c;
	gf_gen_cauchy1_matrix(matrix, (int)n, (int)k);
	for (uint32_t i = 0; i < k; i++) {
		read_cell(segment, chosen[i], row, cells[i]);
		from[i] = cells[i];
		to[i] = got[i];
		memcpy(part + i * k, matrix + chosen[i] * k, k);
		if (k == 1)
			part[0] = 1;
	}
	assert_int_equal(gf_invert_matrix(part, inverse, (int)k), 0);
	ec_init_tables((int)k, (int)k, inverse, tables);
	ec_encode_data(BLOCK_BYTES, (int)k, (int)k, tables, from, to);
	for (uint32_t c = 0; c < k; c++)
		assert_memory_equal(got[c], data + c * BLOCK_BYTES, BLOCK_BYTES);
}

static void check_data_columns(const struct segment *segment, uint32_t row, const uint8_t *data)
{
	uint8_t cell[BLOCK_BYTES];

	for (uint32_t c = 0; c < segment->policy.k; c++) {
		read_cell(segment, c, row, cell);
		assert_memory_equal(cell, data + c * BLOCK_BYTES, BLOCK_BYTES);
	}
}

static void check_reads(const struct segment *segment, uint32_t blocks, uint32_t max_sectors)
{
	for (int i = 0; i < 20; i++) {
		uint32_t index = rnd(blocks), count = 1 + rnd(blocks - index);

		memset(in, 0, (size_t)count * BLOCK_BYTES);
		assert_int_equal(run_io(DISK_READ, segment, index, count, in, max_sectors, NULL), 0);
		assert_memory_equal(in, out + (size_t)index * BLOCK_BYTES, (size_t)count * BLOCK_BYTES);
	}
}

/* Writes rows front to back in runs of random length, then checks all that stands there. */
static void write_and_check(struct policy policy, uint32_t rows, uint32_t max_sectors)
{
	struct segment segment = grant(policy);
	uint32_t k = policy.k;

	for (uint32_t row = 0, n; row < rows; row += n) {
		n = 1 + rnd(rows - row < 9 ? rows - row : 9);
		assert_int_equal(run_io(DISK_WRITE, &segment, row * k, n * k, out + (size_t)row * k * BLOCK_BYTES,
					max_sectors, NULL),
				 0);
	}
	for (uint32_t row = 0; row < rows; row++) {
		check_data_columns(&segment, row, out + (size_t)row * k * BLOCK_BYTES);
		check_row_from_any_columns(&segment, row, out + (size_t)row * k * BLOCK_BYTES);
	}
	check_reads(&segment, rows * k, max_sectors);
	free_segment(&segment);
}

TEST_ON(8, any_k_columns_give_the_data_back)
{
	static const struct policy policies[] = {
		{ 1, 0 }, { 1, 1 }, { 1, 2 }, { 2, 0 }, { 3, 0 }, { 2, 1 },
		{ 4, 2 }, { 5, 3 }, { 6, 2 }, { 7, 1 }, { 1, 7 },
	};

	open_pool(8);
	for (size_t p = 0; p < sizeof(policies) / sizeof(policies[0]); p++)
		for (uint32_t max_sectors = 0; max_sectors <= 40; max_sectors = max_sectors ? max_sectors * 6 + 3 : 1)
			write_and_check(policies[p], 40, max_sectors);
	pool_close(pool);
}

TEST_ON(3, run_with_more_pieces_than_one_disk_io_takes)
{
	struct policy policy = { 2, 1 };
	struct segment segment;

	open_pool(3);
	segment = grant(policy);
	assert_int_equal(segment_blocks(pool, policy), BUF_BLOCKS);
	assert_int_equal(segment_write(pool, &segment, 0, BUF_BLOCKS, out), 0);
	for (uint32_t row = 0; row < BUF_BLOCKS / 2; row += 61)
		check_row_from_any_columns(&segment, row, out + (size_t)row * 2 * BLOCK_BYTES);
	memset(in, 0, BUF_BLOCKS * BLOCK_BYTES);
	assert_int_equal(segment_read(pool, &segment, 0, BUF_BLOCKS, in), 0);
	assert_memory_equal(in, out, BUF_BLOCKS * BLOCK_BYTES);
	pool_close(pool);
}

static uint64_t allocs;

static void *counting_alloc(size_t align_bytes, size_t size_bytes)
{
	void *ptr;

	allocs++;
	return posix_memalign(&ptr, align_bytes < 16 ? 16 : align_bytes, size_bytes) ? NULL : ptr;
}

static uint64_t allocs_allowed;

static void *limited_alloc(size_t align_bytes, size_t size_bytes)
{
	return allocs_allowed-- ? counting_alloc(align_bytes, size_bytes) : NULL;
}

static const struct mem_ops counting_mem = { .alloc = counting_alloc, .free = free };
static const struct mem_ops limited_mem = { .alloc = limited_alloc, .free = free };

TEST_ON(3, plain_segments_and_mirror_reads_allocate_nothing)
{
	struct segment plain, mirror;
	uint64_t writes;

	open_pool(3);
	plain = grant((struct policy){ 1, 0 });
	mirror = grant((struct policy){ 1, 2 });
	mem_set_ops(&counting_mem);
	allocs = 0;
	writes = media.medium[plain.cols[0].disk_id].writes;
	assert_int_equal(run_io(DISK_WRITE, &plain, 3, 100, out, 9, NULL), 0);
	assert_int_equal(media.medium[plain.cols[0].disk_id].writes, writes + 1);
	assert_int_equal(run_io(DISK_READ, &plain, 3, 100, in, 9, NULL), 0);
	assert_int_equal(run_io(DISK_READ, &mirror, 3, 100, in, 9, NULL), 0);
	assert_int_equal(allocs, 0);
	mem_set_ops(NULL);
	pool_close(pool);
}

/* Until an I/O needs no more allocations than were allowed. */
static uint32_t run_with_allocs(enum disk_op op, const struct segment *segment)
{
	uint32_t failed_disk;
	int ret = -ENOMEM;

	for (uint32_t n = 0;; n++) {
		allocs_allowed = n;
		ret = run_io(op, segment, 0, 2, op == DISK_READ ? in : out, 0, &failed_disk);
		allocs_allowed = UINT64_MAX;
		assert_int_equal(failed_disk, UINT32_MAX);
		if (!ret)
			return n;
		assert_int_equal(ret, -ENOMEM);
	}
}

TEST_ON(3, no_memory_is_answered_later_not_within_submit)
{
	struct segment segment;

	open_pool(3);
	segment = grant((struct policy){ 2, 1 });
	mem_set_ops(&limited_mem);
	assert_int_equal(run_with_allocs(DISK_WRITE, &segment), 3);
	assert_int_equal(run_with_allocs(DISK_READ, &segment), 2);
	mem_set_ops(NULL);
	pool_close(pool);
}

static enum disk_op broken_op;

static int fault_data(struct medium *medium, const struct disk_io *io)
{
	return io->op == broken_op ? -ENXIO : 0;
}

static void check_failed_disk(const struct segment *segment, uint32_t col, enum disk_op op, int expected)
{
	uint32_t disk_id = segment->cols[col].disk_id, failed_disk;

	broken_op = op;
	media.medium[disk_id].fault = fault_data;
	assert_int_equal(run_io(op, segment, 0, segment->policy.k * 3, op == DISK_READ ? in : out, 0, &failed_disk),
			 expected);
	assert_int_equal(failed_disk, expected ? disk_id : UINT32_MAX);
	media.medium[disk_id].fault = NULL;
}

TEST_ON(8, error_of_a_column_names_the_disk)
{
	static const struct policy policies[] = { { 1, 0 }, { 1, 2 }, { 3, 0 }, { 4, 2 } };

	open_pool(8);
	for (size_t p = 0; p < sizeof(policies) / sizeof(policies[0]); p++) {
		struct segment segment = grant(policies[p]);

		for (uint32_t c = 0; c < policies[p].k + policies[p].m; c++) {
			check_failed_disk(&segment, c, DISK_WRITE, -ENXIO);
			check_failed_disk(&segment, c, DISK_READ, policies[p].m ? 0 : -ENXIO);
		}
	}
	pool_close(pool);
}

/* --- reading around what is wrong, and mending it -------------------------------------------------------------------------- */

static void damage_cell(const struct segment *segment, uint32_t col, uint32_t row)
{
	struct zone_addr at = segment->cols[col];
	uint64_t off = pool->disks[at.disk_id]->label.zones_off + (uint64_t)at.zone * ZONE_BYTES +
		       (uint64_t)row * BLOCK_BYTES;
	uint8_t garbage[512];

	memset(garbage, 0xa5, sizeof(garbage));
	medium_write(&media.medium[at.disk_id], off + 512 * rnd(8), garbage, sizeof(garbage));
}

/* Columns differ in what is said of them; any m may be gone at once. */
static void fail_some_columns(const struct segment *segment, bool failed)
{
	for (uint32_t i = 0; i < segment->policy.m; i++) {
		struct pool_disk *pd = pool->disks[segment->cols[(i * 3 + 1) % (segment->policy.k + segment->policy.m)].disk_id];

		atomic_store(&pd->failed, failed);
		media.medium[segment->cols[(i * 3 + 1) % (segment->policy.k + segment->policy.m)].disk_id].fault =
		    failed ? fault_data : NULL;
	}
}

static const struct policy redundant[] = { { 1, 1 }, { 1, 2 }, { 2, 1 }, { 3, 2 }, { 4, 2 }, { 5, 3 } };

TEST_ON(8, reads_do_without_any_m_disks)
{
	open_pool(8);
	broken_op = DISK_READ;
	for (size_t p = 0; p < sizeof(redundant) / sizeof(redundant[0]); p++) {
		struct segment segment = grant(redundant[p]);
		uint32_t blocks = redundant[p].k * 40;

		assert_int_equal(segment_write(pool, &segment, 0, blocks, out), 0);
		fail_some_columns(&segment, true);
		check_reads(&segment, blocks, 0);
		check_reads(&segment, blocks, 9);
		assert_int_equal(segment_write(pool, &segment, 0, blocks, out), -EIO);
		fail_some_columns(&segment, false);
		check_reads(&segment, blocks, 0);
	}
	pool_close(pool);
}

static bool is_block(void *arg, const void *block)
{
	return memcmp(block, arg, BLOCK_BYTES) == 0;
}

static void check_healed(const struct segment *segment, uint32_t index)
{
	uint32_t k = segment->policy.k, row = index / k;
	uint8_t cell[BLOCK_BYTES];

	for (uint32_t c = 0; c < (k == 1 ? 1u + segment->policy.m : 1u); c++) {
		read_cell(segment, k == 1 ? c : index % k, row, cell);
		assert_memory_equal(cell, out + (size_t)index * BLOCK_BYTES, BLOCK_BYTES);
	}
}

TEST_ON(8, checked_read_finds_and_heals_the_block_with_any_m_cells_wrong)
{
	open_pool(8);
	for (size_t p = 0; p < sizeof(redundant) / sizeof(redundant[0]); p++) {
		struct segment segment = grant(redundant[p]);
		uint32_t k = redundant[p].k, m = redundant[p].m;

		assert_int_equal(segment_write(pool, &segment, 0, k * 40, out), 0);
		for (uint32_t row = 0; row < 40; row++) {
			uint32_t first = rnd(k + m), index = row * k + rnd(k);

			for (uint32_t i = 0; i < m; i++)
				damage_cell(&segment, (first + i) % (k + m), row);
			assert_int_equal(segment_read_checked(pool, &segment, index, is_block,
							      out + (size_t)index * BLOCK_BYTES, in),
					 0);
			assert_memory_equal(in, out + (size_t)index * BLOCK_BYTES, BLOCK_BYTES);
			check_healed(&segment, index);
		}
	}
	pool_close(pool);
}

TEST_ON(8, checked_read_beyond_redundancy_gives_and_writes_nothing)
{
	struct segment segment;
	uint64_t writes = 0;

	open_pool(8);
	segment = grant((struct policy){ 3, 2 });
	assert_int_equal(segment_write(pool, &segment, 0, 3, out), 0);
	for (uint32_t c = 0; c < 3; c++)
		damage_cell(&segment, c, 0);
	for (uint32_t i = 0; i < 8; i++)
		writes += media.medium[i].writes;
	assert_int_equal(segment_read_checked(pool, &segment, 1, is_block, out + BLOCK_BYTES, in), -EBADMSG);
	for (uint32_t i = 0; i < 8; i++)
		writes -= media.medium[i].writes;
	assert_int_equal(writes, 0);
	pool_close(pool);
}

TEST_ON(8, mend_writes_the_columns_that_differ_and_no_others)
{
	open_pool(8);
	for (size_t p = 0; p < sizeof(redundant) / sizeof(redundant[0]); p++) {
		struct segment segment = grant(redundant[p]);
		uint32_t k = redundant[p].k, cols = k + redundant[p].m;

		assert_int_equal(segment_write(pool, &segment, 0, k * 4, out), 0);
		assert_int_equal(segment_mend(pool, &segment, ALL_COLUMNS, 0, k * 4, out), 0);
		damage_cell(&segment, cols - 1, 2);
		assert_int_equal(segment_mend(pool, &segment, ALL_COLUMNS, 0, k * 4, out), 1);
		for (uint32_t c = 0; c < cols; c++)
			damage_cell(&segment, c, 3);
		assert_int_equal(segment_mend(pool, &segment, ALL_COLUMNS, 0, k * 4, out), cols);
		for (uint32_t row = 0; row < 4; row++)
			check_row_from_any_columns(&segment, row, out + (size_t)row * k * BLOCK_BYTES);
	}
	pool_close(pool);
}

TEST_ON(2, segment_granted_with_too_few_disks_is_written_and_read_without_its_last_columns)
{
	struct segment segment;

	open_pool(2);
	segment = grant((struct policy){ 2, 1 });
	assert_int_equal(segment.cols[2].disk_id, DISK_NONE);
	assert_int_equal(run_io(DISK_WRITE, &segment, 0, 40, out, 7, NULL), 0);
	check_reads(&segment, 40, 7);
	free_segment(&segment);
	pool_close(pool);
}

TEST_ON(2, failed_flush_is_never_followed_by_a_good_one)
{
	open_pool(2);
	assert_int_equal(pool_flush_disk(pool, 1), 0);
	broken_op = DISK_FLUSH;
	media.medium[1].fault = fault_data;
	assert_int_equal(pool_flush_disk(pool, 1), -EIO);
	media.medium[1].fault = NULL;
	assert_int_equal(pool_flush_disk(pool, 1), -EIO);
	assert_int_equal(pool_flush_disk(pool, 0), 0);
	pool_close(pool);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(any_k_columns_give_the_data_back),
		cmocka_unit_test(run_with_more_pieces_than_one_disk_io_takes),
		cmocka_unit_test(plain_segments_and_mirror_reads_allocate_nothing),
		cmocka_unit_test(no_memory_is_answered_later_not_within_submit),
		cmocka_unit_test(error_of_a_column_names_the_disk),
		cmocka_unit_test(reads_do_without_any_m_disks),
		cmocka_unit_test(checked_read_finds_and_heals_the_block_with_any_m_cells_wrong),
		cmocka_unit_test(checked_read_beyond_redundancy_gives_and_writes_nothing),
		cmocka_unit_test(mend_writes_the_columns_that_differ_and_no_others),
		cmocka_unit_test(segment_granted_with_too_few_disks_is_written_and_read_without_its_last_columns),
		cmocka_unit_test(failed_flush_is_never_followed_by_a_good_one),
	};

	return run_unit_tests(tests);
}
