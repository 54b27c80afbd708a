/* What every disk must do: see disk_suite.h. */
#include "tests/unit/disk_suite.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "pool/runtime/fiber.h"
#include "tests/unit/unit.h"

#define KIB	  1024ull
#define MIB	  (1024 * KIB)
#define BUF_ALIGN 4096

void *suite_pattern(uint64_t len_bytes, uint64_t seed)
{
	uint64_t *buf = aligned_alloc(BUF_ALIGN, (len_bytes + BUF_ALIGN - 1) & -(uint64_t)BUF_ALIGN);

	assert_non_null(buf);
	for (uint64_t i = 0; i < len_bytes / sizeof(*buf); i++)
		buf[i] = (seed + 1) * 0x9e3779b97f4a7c15 + i;
	return buf;
}

/* ---- submitting ---- */

struct suite_wait {
	struct disk_io io;
	struct loop *loop;
	struct fiber *fiber;
	uint32_t done_count;
	int res;
};

static void wait_done(struct disk_io *io, int res)
{
	struct suite_wait *wait = container_of(io, struct suite_wait, io);

	assert_ptr_equal(loop_self(), wait->loop);
	assert_null(fiber_self());
	assert_int_equal(wait->done_count, 0);
	wait->done_count++;
	wait->res = res;
	fiber_wake(wait->fiber);
}

int suite_submit(struct disk *disk, struct disk_io *io)
{
	struct suite_wait wait = { .io = *io, .loop = loop_self(), .fiber = fiber_self() };

	wait.io.done = wait_done;
	disk_submit(disk, &wait.io);
	assert_int_equal(wait.done_count, 0);
	while (wait.done_count == 0)
		fiber_park();
	fiber_yield();
	assert_int_equal(wait.done_count, 1);
	return wait.res;
}

int suite_io(struct disk *disk, enum disk_op op, uint64_t off_bytes, void *buf, uint64_t len_bytes)
{
	const struct iovec iov = { .iov_base = buf, .iov_len = len_bytes };
	struct disk_io io = { .op = op, .off_bytes = off_bytes, .len_bytes = len_bytes, .iov = &iov, .iov_count = 1 };

	return suite_submit(disk, &io);
}

/* ---- refusals ---- */

static uint64_t errors_of(const struct disk *disk, enum disk_op op)
{
	struct disk_counters sum;

	disk_counters_sum(disk, &sum);
	return sum.errors[op];
}

static void refuses(struct disk *disk, struct disk_io *io)
{
	uint64_t before = errors_of(disk, io->op);

	assert_int_equal(suite_submit(disk, io), -EINVAL);
	assert_int_equal(errors_of(disk, io->op), before + 1);
}

static void refuses_misalignment(struct disk *disk, enum disk_op op)
{
	uint32_t block = disk->block_bytes;
	char *buf = suite_pattern(4 * block, 0);
	struct iovec iov[2] = { { .iov_base = buf, .iov_len = block } };
	struct disk_io io = { .op = op, .len_bytes = block, .iov = iov, .iov_count = 1 };

	io.off_bytes = block / 2;
	refuses(disk, &io);
	io.off_bytes = 1;
	refuses(disk, &io);
	io.off_bytes = 0;
	iov[0].iov_base = buf + block / 2;
	refuses(disk, &io);
	iov[0] = (struct iovec){ .iov_base = buf, .iov_len = block / 2 };
	iov[1] = (struct iovec){ .iov_base = buf, .iov_len = block / 2 };
	io.iov_count = 2;
	refuses(disk, &io);
	io.iov_count = 1;
	io.len_bytes = block / 2;
	refuses(disk, &io);
	free(buf);
}

static void refuses_wrong_sums(struct disk *disk, enum disk_op op)
{
	uint32_t block = disk->block_bytes;
	char *buf = suite_pattern(2 * block, 0);
	struct iovec *iov = calloc(DISK_IOV_MAX + 1, sizeof(*iov));
	struct disk_io io = { .op = op, .iov = iov };

	assert_non_null(iov);
	for (uint32_t i = 0; i <= DISK_IOV_MAX; i++)
		iov[i] = (struct iovec){ .iov_base = buf, .iov_len = block };
	refuses(disk, &io);
	io.len_bytes = block;
	refuses(disk, &io);
	io.iov_count = 2;
	refuses(disk, &io);
	io.len_bytes = 3 * block;
	refuses(disk, &io);
	iov[1].iov_len = 0;
	io.len_bytes = block;
	refuses(disk, &io);
	iov[1].iov_len = -(size_t)block;
	io.iov_count = 3;
	refuses(disk, &io);
	iov[1].iov_len = block;
	io.iov_count = DISK_IOV_MAX + 1;
	io.len_bytes = (uint64_t)io.iov_count * block;
	refuses(disk, &io);
	free(iov);
	free(buf);
}

static void refuses_out_of_range(struct disk *disk, enum disk_op op)
{
	uint32_t block = disk->block_bytes;
	char *buf = suite_pattern(2 * block, 0);
	struct iovec iov = { .iov_base = buf, .iov_len = 2 * block };
	struct disk_io io = { .op = op, .len_bytes = 2 * block, .iov = &iov, .iov_count = 1 };

	io.off_bytes = disk->size_bytes - block;
	refuses(disk, &io);
	io.off_bytes = disk->size_bytes;
	refuses(disk, &io);
	io.off_bytes = -(uint64_t)block;
	refuses(disk, &io);
	io.off_bytes = INT64_MAX & -(uint64_t)block;
	refuses(disk, &io);
	free(buf);
}

static void refuses_bad_discards(struct disk *disk)
{
	struct disk_io io = { .op = DISK_DISCARD };

	refuses(disk, &io);
	io.len_bytes = disk->block_bytes;
	io.off_bytes = disk->size_bytes;
	refuses(disk, &io);
	io.off_bytes = disk->block_bytes / 2;
	refuses(disk, &io);
	io.off_bytes = disk->block_bytes;
	io.len_bytes = -(uint64_t)disk->block_bytes;
	refuses(disk, &io);
	io.len_bytes = disk->block_bytes / 2;
	refuses(disk, &io);
}

/* ---- data ---- */

/* Cuts len_bytes of buf into pieces of 1, 2, 3, ..., 7, 1, 2, ... blocks. */
static uint32_t cut(struct disk *disk, char *buf, uint64_t len_bytes, struct iovec *iov)
{
	uint32_t count = 0;

	while (len_bytes > 0) {
		uint64_t piece = (count % 7 + 1) * disk->block_bytes;

		if (piece > len_bytes)
			piece = len_bytes;
		iov[count++] = (struct iovec){ .iov_base = buf, .iov_len = piece };
		buf += piece;
		len_bytes -= piece;
	}
	return count;
}

/* Written from pieces in order, read into pieces that stand the other way round in memory. */
static void moves_data_in_many_pieces(struct disk *disk)
{
	const uint64_t len_bytes = 256 * disk->block_bytes, off_bytes = 3 * disk->block_bytes;
	char *out = suite_pattern(len_bytes, 1), *in = suite_pattern(len_bytes, 2);
	struct iovec iov[256];
	struct disk_io io = { .op = DISK_WRITE, .off_bytes = off_bytes, .len_bytes = len_bytes, .iov = iov };

	io.iov_count = cut(disk, out, len_bytes, iov);
	assert_true(io.iov_count > 60);
	assert_int_equal(suite_submit(disk, &io), 0);
	assert_int_equal(disk_read(disk, off_bytes, in, len_bytes), 0);
	assert_memory_equal(in, out, len_bytes);
	io.op = DISK_READ;
	io.iov_count = 256;
	for (uint32_t i = 0; i < 256; i++)
		iov[255 - i] = (struct iovec){ .iov_base = in + i * disk->block_bytes, .iov_len = disk->block_bytes };
	assert_int_equal(suite_submit(disk, &io), 0);
	for (uint32_t i = 0; i < 256; i++)
		assert_memory_equal(in + i * disk->block_bytes, out + (255 - i) * disk->block_bytes, disk->block_bytes);
	free(out);
	free(in);
}

static void takes_the_most_pieces(struct disk *disk)
{
	const uint64_t len_bytes = (uint64_t)DISK_IOV_MAX * disk->block_bytes;
	char *out = suite_pattern(len_bytes, 3), *in = suite_pattern(len_bytes, 4);
	struct iovec *iov = calloc(DISK_IOV_MAX, sizeof(*iov));
	struct disk_io io = { .op = DISK_WRITE, .len_bytes = len_bytes, .iov = iov, .iov_count = DISK_IOV_MAX };

	assert_non_null(iov);
	for (uint32_t i = 0; i < DISK_IOV_MAX; i++)
		iov[i] = (struct iovec){ .iov_base = out + i * disk->block_bytes, .iov_len = disk->block_bytes };
	assert_int_equal(suite_submit(disk, &io), 0);
	for (uint32_t i = 0; i < DISK_IOV_MAX; i++)
		iov[i].iov_base = in + i * disk->block_bytes;
	io.op = DISK_READ;
	assert_int_equal(suite_submit(disk, &io), 0);
	assert_memory_equal(in, out, len_bytes);
	free(iov);
	free(out);
	free(in);
}

static void reaches_first_and_last_block(struct disk *disk)
{
	uint32_t block = disk->block_bytes;
	char *first = suite_pattern(block, 5), *last = suite_pattern(block, 6), *in = suite_pattern(block, 7);

	assert_int_equal(disk_write(disk, 0, first, block), 0);
	assert_int_equal(disk_write(disk, disk->size_bytes - block, last, block), 0);
	assert_int_equal(disk_flush(disk), 0);
	assert_int_equal(disk_read(disk, 0, in, block), 0);
	assert_memory_equal(in, first, block);
	assert_int_equal(disk_read(disk, disk->size_bytes - block, in, block), 0);
	assert_memory_equal(in, last, block);
	free(first);
	free(last);
	free(in);
}

#define CROWD 256

struct crowd {
	struct fiber *fiber;
	uint32_t left;
	struct crowd_io {
		struct disk_io io;
		struct iovec iov;
		struct crowd *crowd;
	} ios[CROWD];
};

static void crowd_done(struct disk_io *io, int res)
{
	struct crowd *crowd = container_of(io, struct crowd_io, io)->crowd;

	assert_int_equal(res, 0);
	if (--crowd->left == 0)
		fiber_wake(crowd->fiber);
}

static void crowd_run(struct disk *disk, struct crowd *crowd, enum disk_op op, char *buf)
{
	crowd->fiber = fiber_self();
	crowd->left = CROWD;
	for (uint32_t i = 0; i < CROWD; i++) {
		struct crowd_io *one = &crowd->ios[i];

		one->crowd = crowd;
		one->iov = (struct iovec){ .iov_base = buf + i * 4 * KIB, .iov_len = 4 * KIB };
		one->io = (struct disk_io){ .op = op, .len_bytes = 4 * KIB, .iov = &one->iov, .iov_count = 1 };
		one->io.off_bytes = (uint64_t)(i * 37 % CROWD) * 4 * KIB;
		one->io.done = crowd_done;
		disk_submit(disk, &one->io);
	}
	while (crowd->left > 0)
		fiber_park();
}

static void carries_many_ios_at_once(struct disk *disk)
{
	char *out = suite_pattern(CROWD * 4 * KIB, 8), *in = suite_pattern(CROWD * 4 * KIB, 9);
	struct crowd *crowd = calloc(1, sizeof(*crowd));

	assert_non_null(crowd);
	crowd_run(disk, crowd, DISK_WRITE, out);
	crowd_run(disk, crowd, DISK_READ, in);
	assert_memory_equal(in, out, CROWD * 4 * KIB);
	free(crowd);
	free(out);
	free(in);
}

static void discards_what_it_shall_and_no_more(struct disk *disk)
{
	char *out = suite_pattern(2 * MIB, 10), *in = suite_pattern(2 * MIB, 11);
	struct disk_io io = { .op = DISK_DISCARD, .off_bytes = MIB / 2, .len_bytes = MIB };

	assert_int_equal(disk_write(disk, 0, out, 2 * MIB), 0);
	assert_int_equal(suite_submit(disk, &io), 0);
	assert_int_equal(disk_read(disk, 0, in, 2 * MIB), 0);
	assert_memory_equal(in, out, MIB / 2);
	assert_memory_equal(in + MIB / 2 + MIB, out + MIB / 2 + MIB, MIB / 2);
	assert_int_equal(disk_write(disk, MIB / 2, out, MIB), 0);
	assert_int_equal(disk_read(disk, MIB / 2, in, MIB), 0);
	assert_memory_equal(in, out, MIB);
	free(out);
	free(in);
}

static void counts(struct disk *disk)
{
	char *buf = suite_pattern(8 * KIB, 12);
	struct disk_counters before, after;

	disk_counters_sum(disk, &before);
	assert_int_equal(disk_write(disk, 0, buf, 8 * KIB), 0);
	assert_int_equal(disk_read(disk, 0, buf, 4 * KIB), 0);
	assert_int_equal(disk_read(disk, 4 * KIB, buf, 4 * KIB), 0);
	assert_int_equal(disk_flush(disk), 0);
	disk_counters_sum(disk, &after);
	assert_int_equal(after.ios[DISK_WRITE] - before.ios[DISK_WRITE], 1);
	assert_int_equal(after.bytes[DISK_WRITE] - before.bytes[DISK_WRITE], 8 * KIB);
	assert_int_equal(after.ios[DISK_READ] - before.ios[DISK_READ], 2);
	assert_int_equal(after.bytes[DISK_READ] - before.bytes[DISK_READ], 8 * KIB);
	assert_int_equal(after.ios[DISK_FLUSH] - before.ios[DISK_FLUSH], 1);
	assert_memory_equal(after.errors, before.errors, sizeof(after.errors));
	free(buf);
}

void disk_suite(struct disk *disk)
{
	assert_true(disk->size_bytes >= SUITE_DISK_BYTES_MIN);
	refuses_misalignment(disk, DISK_READ);
	refuses_misalignment(disk, DISK_WRITE);
	refuses_wrong_sums(disk, DISK_READ);
	refuses_wrong_sums(disk, DISK_WRITE);
	refuses_out_of_range(disk, DISK_READ);
	refuses_out_of_range(disk, DISK_WRITE);
	refuses_bad_discards(disk);
	moves_data_in_many_pieces(disk);
	takes_the_most_pieces(disk);
	reaches_first_and_last_block(disk);
	carries_many_ios_at_once(disk);
	discards_what_it_shall_and_no_more(disk);
	counts(disk);
}
