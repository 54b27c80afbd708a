/* What all disks share: the check of every I/O, the counters, and the forms that wait.
 *
 * disk_submit is the one place that validates an I/O; drivers rely on it. Nothing here makes a system call and no driver is
 * named here, so the simulator links this file with a disk of its own (disk_open.c knows the drivers).
 *
 * Counters: each loop writes its own set and any thread reads all of them, so both sides use relaxed atomic accesses. */
#include "pool/disks/disk.h"

#include <assert.h>
#include <errno.h>
#include <stdatomic.h>
#include <string.h>

#include "pool/base/mem.h"
#include "pool/disks/disk_int.h"
#include "pool/runtime/fiber.h"

#define BLOCK_BYTES_MIN 512
#define BLOCK_BYTES_MAX 4096

void disk_init(struct disk *disk, const struct disk_ops *ops, uint64_t size_bytes, uint32_t block_bytes)
{
	assert(block_bytes >= BLOCK_BYTES_MIN && block_bytes <= BLOCK_BYTES_MAX);
	assert((block_bytes & (block_bytes - 1)) == 0 && size_bytes % block_bytes == 0);
	memset(disk, 0, sizeof(*disk));
	disk->ops = ops;
	disk->size_bytes = size_bytes;
	disk->block_bytes = block_bytes;
}

void disk_close(struct disk *disk)
{
	char *uri = disk->uri;

	disk->ops->close(disk);
	mem_free(uri);
}

/* ---- one I/O ---- */

static void count(uint64_t *counter, uint64_t n)
{
	__atomic_store_n(counter, *counter + n, __ATOMIC_RELAXED);
}

static struct disk_counters *own_counters(struct disk *disk)
{
	uint32_t index = loop_self()->index;

	assert(index < DISK_LOOPS_MAX);
	return &disk->counters[index];
}

static bool range_valid(const struct disk *disk, uint64_t off_bytes, uint64_t len_bytes)
{
	if ((off_bytes | len_bytes) & (disk->block_bytes - 1))
		return false;
	return len_bytes > 0 && off_bytes <= disk->size_bytes && len_bytes <= disk->size_bytes - off_bytes;
}

/* Every piece aligned in place and length, and all together as long as the I/O says. */
static bool iov_valid(const struct disk *disk, const struct disk_io *io)
{
	uint64_t left_bytes = io->len_bytes;

	if (io->iov_count > DISK_IOV_MAX)
		return false;
	for (uint32_t i = 0; i < io->iov_count; i++) {
		const struct iovec *iov = &io->iov[i];

		if (((uintptr_t)iov->iov_base | iov->iov_len) & (disk->block_bytes - 1))
			return false;
		if (iov->iov_len == 0 || iov->iov_len > left_bytes)
			return false;
		left_bytes -= iov->iov_len;
	}
	return left_bytes == 0;
}

static bool io_valid(const struct disk *disk, const struct disk_io *io)
{
	switch (io->op) {
	case DISK_READ:
	case DISK_WRITE:
		return range_valid(disk, io->off_bytes, io->len_bytes) && iov_valid(disk, io);
	case DISK_DISCARD:
		return range_valid(disk, io->off_bytes, io->len_bytes);
	default:
		return true;
	}
}

/* ---- flushes ---- */

/* `flushes` is NULL: none in flight; else a stack by priv[0] that ends with this. */
static struct disk_io in_flight;

static void flush_begin(struct disk *disk);

static void flush_told(struct task *task)
{
	struct disk_io *io = container_of(task, struct disk_io, task);

	io->done(io, (int)(intptr_t)io->priv[0]);
}

/* On the loop that asked. The caller has nothing more of io. */
static void flush_tell(struct disk_io *io, int res)
{
	struct loop *loop = io->priv[1];

	if (loop == loop_self()) {
		io->done(io, res);
		return;
	}
	io->priv[0] = (void *)(intptr_t)res;
	io->task.fn = flush_told;
	loop_send(loop, &io->task);
}

static void flushed(struct disk_io *flush, int res)
{
	struct disk *disk = flush->disk;
	struct disk_io *io = disk->flushing, *none = &in_flight;

	if (res)
		atomic_store(&disk->flush_error, res);
	if (!atomic_compare_exchange_strong(&disk->flushes, &none, NULL))
		flush_begin(disk);
	while (io != &in_flight) {       /* the disk may be gone with the last of them */
		struct disk_io *next = io->priv[0];

		flush_tell(io, res);
		io = next;
	}
}

/* For all that wait. */
static void flush_begin(struct disk *disk)
{
	int error = atomic_load(&disk->flush_error);

	disk->flushing = atomic_exchange(&disk->flushes, &in_flight);
	disk->flush = (struct disk_io){ .op = DISK_FLUSH, .done = flushed, .disk = disk };
	if (error)
		disk_done_later(&disk->flush, error);
	else
		disk->ops->submit(disk, &disk->flush);
}

static void flush_submit(struct disk *disk, struct disk_io *io)
{
	struct disk_io *top = atomic_load(&disk->flushes);

	io->priv[1] = loop_self();
	do {
		io->priv[0] = top ? top : &in_flight;
	} while (!atomic_compare_exchange_weak(&disk->flushes, &top, io));
	if (!top)
		flush_begin(disk);
}

void disk_flush_anew(struct disk *disk)
{
	atomic_store(&disk->flush_error, 0);
}

/* ---- submitting ---- */

void disk_submit(struct disk *disk, struct disk_io *io)
{
	struct disk_counters *counters = own_counters(disk);

	assert((uint32_t)io->op < DISK_OP_COUNT && io->done);
	io->disk = disk;
	io->has_crc = false;
	count(&counters->ios[io->op], 1);
	if (!io_valid(disk, io)) {
		disk_done_later(io, -EINVAL);
		return;
	}
	if (io->op == DISK_FLUSH) {
		flush_submit(disk, io);
		return;
	}
	count(&counters->bytes[io->op], io->len_bytes);
	disk->ops->submit(disk, io);
}

void disk_done(struct disk_io *io, int res)
{
	if (res)
		count(&own_counters(io->disk)->errors[io->op], 1);
	io->done(io, res);
}

static void done_task(struct task *task)
{
	struct disk_io *io = container_of(task, struct disk_io, task);

	disk_done(io, (int)(intptr_t)io->priv[0]);
}

void disk_done_later(struct disk_io *io, int res)
{
	io->priv[0] = (void *)(intptr_t)res;
	io->task.fn = done_task;
	loop_post(loop_self(), &io->task);
}

void disk_set_mark(struct disk *disk, const struct disk_mark *mark)
{
	if (disk->ops->set_mark)
		disk->ops->set_mark(disk, mark);
}

void disk_set_expendable(struct disk *disk, const struct disk_expendable *spare)
{
	if (disk->ops->set_spare)
		disk->ops->set_spare(disk, spare);
}

const char *disk_away(const struct disk *disk)
{
	return disk->ops->away ? disk->ops->away(disk) : NULL;
}

void disk_counters_sum(const struct disk *disk, struct disk_counters *sum)
{
	memset(sum, 0, sizeof(*sum));
	for (uint32_t loop = 0; loop < DISK_LOOPS_MAX; loop++) {
		const struct disk_counters *from = &disk->counters[loop];

		for (uint32_t op = 0; op < DISK_OP_COUNT; op++) {
			sum->ios[op] += __atomic_load_n(&from->ios[op], __ATOMIC_RELAXED);
			sum->bytes[op] += __atomic_load_n(&from->bytes[op], __ATOMIC_RELAXED);
			sum->errors[op] += __atomic_load_n(&from->errors[op], __ATOMIC_RELAXED);
		}
	}
}

/* ---- forms that wait ---- */

struct waiting_io {
	struct disk_io io;
	struct fiber *fiber;
	int res;
	bool finished;
};

static void waiting_done(struct disk_io *io, int res)
{
	struct waiting_io *waiting = container_of(io, struct waiting_io, io);

	waiting->res = res;
	waiting->finished = true;
	fiber_wake(waiting->fiber);
}

static int submit_and_wait(struct disk *disk, enum disk_op op, uint64_t off_bytes, const struct iovec *iov)
{
	struct waiting_io waiting = {
		.io = { .op = op, .off_bytes = off_bytes, .done = waiting_done },
		.fiber = fiber_self(),
	};

	assert(waiting.fiber);
	if (iov) {
		waiting.io.iov = iov;
		waiting.io.iov_count = 1;
		waiting.io.len_bytes = iov->iov_len;
	}
	disk_submit(disk, &waiting.io);
	while (!waiting.finished)
		fiber_park();
	return waiting.res;
}

int disk_read(struct disk *disk, uint64_t off_bytes, void *buf, uint64_t len_bytes)
{
	const struct iovec iov = { .iov_base = buf, .iov_len = len_bytes };

	return submit_and_wait(disk, DISK_READ, off_bytes, &iov);
}

int disk_write(struct disk *disk, uint64_t off_bytes, const void *buf, uint64_t len_bytes)
{
	const struct iovec iov = { .iov_base = (void *)buf, .iov_len = len_bytes };

	return submit_and_wait(disk, DISK_WRITE, off_bytes, &iov);
}

int disk_flush(struct disk *disk)
{
	return submit_and_wait(disk, DISK_FLUSH, 0, NULL);
}
