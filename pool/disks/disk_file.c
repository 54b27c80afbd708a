/* "PATH" or "file:PATH": a disk on a regular file or a local block device, by io_uring.
 *
 * Opening (disk_file_open.c) and closing run on a helper thread. Reads, writes, flushes (fdatasync) and the discards of
 * files (punched holes) go through the ring of the submitting loop and complete there. io_uring has no discard for block
 * devices on the kernels we want to run on, so that is an ioctl on a helper thread, waited for by a fiber.
 *
 * Short transfers are continued from the last whole block, by a plain read or write up to the end of the piece of memory
 * it stopped in, then by vector again. A continuation moves at least one block or the I/O fails with -EIO, so it ends.
 * -EINTR and -EAGAIN are tried again RETRIES_MAX times; flushes never, since a second fdatasync succeeds whatever the first
 * has lost.
 *
 * Discards are hints: where there are none, or where the file was opened as preallocated and shall stay so, they succeed
 * and do nothing. */
#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <liburing.h>
#include <linux/fs.h>
#include <stdatomic.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "pool/base/mem.h"
#include "pool/disks/disk_file_int.h"
#include "pool/disks/disk_int.h"
#include "pool/runtime/fiber.h"
#include "pool/runtime/reactor.h"

#define RETRIES_MAX	16
#define PIECE_BYTES_MAX (1u << 30) /* of one plain read or write */

struct file_disk {
	struct disk disk;
	struct opened_file opened;
	_Atomic bool no_discard; /* any loop; only ever becomes true */
};

/* The driver's part of an I/O, in disk_io.priv. */
struct file_io {
	struct ring_op op;
	uint64_t moved_bytes; /* whole blocks transferred */
	uint32_t retries;
};

static_assert(sizeof(struct file_io) <= sizeof(((struct disk_io *)0)->priv), "file_io is too large");

static struct file_io *file_io_of(struct disk_io *io)
{
	return (struct file_io *)io->priv;
}

static struct disk_io *io_of_op(struct ring_op *op)
{
	return (struct disk_io *)((char *)container_of(op, struct file_io, op) - offsetof(struct disk_io, priv));
}

static struct file_disk *file_of(struct disk *disk)
{
	return container_of(disk, struct file_disk, disk);
}

static struct io_uring_sqe *sqe_for(struct disk_io *io, void (*done)(struct ring_op *op, int res, uint32_t flags))
{
	struct file_io *fio = file_io_of(io);

	fio->op.done = done;
	return reactor_sqe(reactor_of(loop_self()), &fio->op);
}

/* ---- reads and writes ---- */

static void transfer_done(struct ring_op *op, int res, uint32_t cqe_flags);

/* Starts what is left of a transfer, or a part of it. */
static void transfer_submit(struct file_disk *file, struct disk_io *io)
{
	uint64_t skip_bytes = file_io_of(io)->moved_bytes, off_bytes = io->off_bytes + skip_bytes;
	struct io_uring_sqe *sqe = sqe_for(io, transfer_done);
	const struct iovec *iov = io->iov, *end = io->iov + io->iov_count;
	int fd = file->opened.fd;

	for (; skip_bytes >= iov->iov_len; iov++)
		skip_bytes -= iov->iov_len;
	if (skip_bytes == 0 && end - iov > 1) {
		if (io->op == DISK_READ)
			io_uring_prep_readv(sqe, fd, iov, (unsigned)(end - iov), off_bytes);
		else
			io_uring_prep_writev(sqe, fd, iov, (unsigned)(end - iov), off_bytes);
	} else {
		char *buf = (char *)iov->iov_base + skip_bytes;
		uint64_t len_bytes = iov->iov_len - skip_bytes;

		if (len_bytes > PIECE_BYTES_MAX)
			len_bytes = PIECE_BYTES_MAX;
		if (io->op == DISK_READ)
			io_uring_prep_read(sqe, fd, buf, (unsigned)len_bytes, off_bytes);
		else
			io_uring_prep_write(sqe, fd, buf, (unsigned)len_bytes, off_bytes);
	}
}

static void transfer_done(struct ring_op *op, int res, uint32_t cqe_flags)
{
	struct disk_io *io = io_of_op(op);
	struct file_io *fio = file_io_of(io);
	struct file_disk *file = file_of(io->disk);
	uint32_t block_bytes = io->disk->block_bytes;
	bool again = (res == -EINTR || res == -EAGAIN) && fio->retries++ < RETRIES_MAX;

	if (res >= 0) {
		fio->moved_bytes += (uint32_t)res & -block_bytes;
		if (fio->moved_bytes == io->len_bytes) {
			disk_done(io, 0);
			return;
		}
		again = (uint32_t)res >= block_bytes;
		res = -EIO;
	}
	if (again)
		transfer_submit(file, io);
	else
		disk_done(io, res);
}

/* ---- flush and discard ---- */

static void flush_done(struct ring_op *op, int res, uint32_t cqe_flags)
{
	disk_done(io_of_op(op), res);
}

/* What a discard reports: none where there is no such thing. */
static int discard_result(struct disk_io *io, int res)
{
	if (res != -EOPNOTSUPP && res != -ENOTTY)
		return res;
	atomic_store_explicit(&file_of(io->disk)->no_discard, true, memory_order_relaxed);
	return 0;
}

static void discard_done(struct ring_op *op, int res, uint32_t cqe_flags)
{
	struct disk_io *io = io_of_op(op);

	disk_done(io, discard_result(io, res));
}

/* Helper thread. */
static int discard_device(void *arg)
{
	struct disk_io *io = arg;
	uint64_t range[2] = { io->off_bytes, io->len_bytes };

	return ioctl(file_of(io->disk)->opened.fd, BLKDISCARD, range) ? -errno : 0;
}

static void discard_fiber(void *arg)
{
	/* Later, so that io->done does not run on this fiber's stack. */
	disk_done_later(arg, discard_result(arg, reactor_offload(discard_device, arg)));
}

static void discard_submit(struct file_disk *file, struct disk_io *io)
{
	const int mode = FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE;

	if (atomic_load_explicit(&file->no_discard, memory_order_relaxed)) {
		disk_done_later(io, 0);
	} else if (file->opened.is_block) {
		if (fiber_start(loop_self(), discard_fiber, io))
			disk_done_later(io, -ENOMEM);
	} else {
		io_uring_prep_fallocate(
		    sqe_for(io, discard_done), file->opened.fd, mode, (off_t)io->off_bytes, (off_t)io->len_bytes);
	}
}

static void file_submit(struct disk *disk, struct disk_io *io)
{
	struct file_disk *file = file_of(disk);

	if (io->op == DISK_FLUSH) {
		io_uring_prep_fsync(sqe_for(io, flush_done), file->opened.fd, IORING_FSYNC_DATASYNC);
	} else if (io->op == DISK_DISCARD) {
		discard_submit(file, io);
	} else {
		*file_io_of(io) = (struct file_io){ .moved_bytes = 0 };
		transfer_submit(file, io);
	}
}

/* ---- open and close ---- */

static int close_job(void *arg)
{
	struct file_disk *file = arg;

	return close(file->opened.fd) ? -errno : 0;
}

static void file_close(struct disk *disk)
{
	struct file_disk *file = file_of(disk);

	/* What close has to report, a flush has reported before; there is nothing left to do about it. */
	(void)reactor_offload(close_job, file);
	mem_free(file);
}

static const struct disk_ops file_ops = {
	.scheme = "file",
	.submit = file_submit,
	.close = file_close,
};

struct open_job {
	const char *path;
	const struct disk_open_opts *opts;
	struct opened_file *opened;
	struct err *err;
};

static int open_job(void *arg)
{
	struct open_job *job = arg;

	return opened_file_open(job->path, job->opts, job->opened, job->err);
}

int disk_file_open(
    const char *uri, const char *rest, const struct disk_open_opts *opts, struct disk **out, struct err *err)
{
	struct file_disk *file = mem_zalloc(sizeof(*file));
	struct open_job job = { .path = rest, .opts = opts, .err = err };
	int ret;

	if (!file)
		return err_set(err, -ENOMEM, "cannot open '%s': no memory", uri);
	job.opened = &file->opened;
	ret = reactor_offload(open_job, &job);
	if (ret) {
		mem_free(file);
		return ret;
	}
	disk_init(&file->disk, &file_ops, file->opened.size_bytes, file->opened.block_bytes);
	file->no_discard = opts->preallocate;
	*out = &file->disk;
	return 0;
}
