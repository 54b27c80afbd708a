/* Opens a regular file or block device for the file driver: creates it if asked to, locks it, finds out its size and what
 * direct I/O demands. Plain blocking code without a loop; disk_file.c runs it on a helper thread.
 *
 * Direct I/O is used wherever the file system takes it and aligned 4096-byte I/O is enough for it; otherwise the page
 * cache, with blocks of 512 bytes. A block device always gets direct I/O, in its logical blocks.
 *
 * A regular file is locked by an open-file-description lock, a block device by O_EXCL, which also keeps out mounts. The
 * lock is taken before anything is changed, and goes with the descriptor.
 *
 * Creation: a new file, and one that is still empty, get their size by one ftruncate after their name is durable and their
 * blocks are allocated. So after a crash the file is missing, empty or complete, and opening it again goes on from there. */
#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <limits.h>
#include <linux/fs.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "pool/base/mem.h"
#include "pool/disks/disk_file_int.h"

#define BLOCK_BYTES_MIN 512
#define BLOCK_BYTES_MAX 4096
#define FILE_MODE_NEW	0600

static int fail(struct err *err, int code, const char *path, const char *what)
{
	return err_set(err, code, "cannot open '%s': %s: %s", path, what, strerror(-code));
}

/* ---- open, lock ---- */

/* The flags that fit what is at path now. */
static int open_flags(const char *path, const struct disk_open_opts *opts, int *flags, struct err *err)
{
	struct stat st;

	*flags = O_RDWR | O_CLOEXEC;
	if (stat(path, &st)) {
		if (errno != ENOENT)
			return fail(err, -errno, path, "stat");
		if (opts->create_bytes == 0)
			return err_set(err, -ENOENT, "cannot open '%s': no such file or device", path);
		*flags |= O_CREAT | O_EXCL;
	} else if (S_ISBLK(st.st_mode)) {
		*flags |= O_EXCL;
	} else if (!S_ISREG(st.st_mode)) {
		return err_set(err, -EINVAL, "cannot open '%s': it is neither a regular file nor a block device", path);
	}
	return 0;
}

/* -errno, or a descriptor; *direct tells whether O_DIRECT was accepted. */
static int open_best(const char *path, int flags, bool *direct)
{
	int fd = open(path, flags | O_DIRECT, FILE_MODE_NEW);

	*direct = fd >= 0;
	/* A file system without direct I/O may refuse after it created the file. */
	if (fd < 0 && errno == EINVAL) {
		fd = open(path, flags, FILE_MODE_NEW);
		if (fd < 0 && errno == EEXIST)
			fd = open(path, flags & ~(O_CREAT | O_EXCL));
	}
	return fd < 0 ? -errno : fd;
}

static int lock(int fd, const char *path, struct err *err)
{
	struct flock whole = { .l_type = F_WRLCK, .l_whence = SEEK_SET };

	if (fcntl(fd, F_OFD_SETLK, &whole) == 0)
		return 0;
	if (errno == EAGAIN || errno == EACCES)
		return err_set(err, -EBUSY, "cannot open '%s': it is in use by another process", path);
	return fail(err, -errno, path, "lock");
}

/* What was opened must still be what the flags were chosen for. */
static int check_kind(struct opened_file *file, int flags, const char *path, struct err *err)
{
	struct stat st;
	bool block_expected = (flags & (O_EXCL | O_CREAT)) == O_EXCL;

	if (fstat(file->fd, &st))
		return fail(err, -errno, path, "stat");
	file->is_block = S_ISBLK(st.st_mode);
	if (file->is_block != block_expected || (!file->is_block && !S_ISREG(st.st_mode)))
		return err_set(err, -EAGAIN, "cannot open '%s': it was replaced meanwhile", path);
	return 0;
}

/* ---- create ---- */

/* Makes the file's name durable. */
static int sync_parent(const char *path)
{
	char copy[PATH_MAX];
	int fd, ret;

	if (strlen(path) >= sizeof(copy))
		return -ENAMETOOLONG;
	strcpy(copy, path);
	fd = open(dirname(copy), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	ret = fsync(fd) ? -errno : 0;
	close(fd);
	return ret;
}

/* Gives an empty file its size. */
static int fill_empty(int fd, const char *path, const struct disk_open_opts *opts, struct err *err)
{
	off_t size = (off_t)opts->create_bytes;
	int ret;

	if (size < 0 || size % BLOCK_BYTES_MAX != 0)
		return err_set(
		    err, -EINVAL, "cannot create '%s': the size must be a multiple of %u bytes", path, BLOCK_BYTES_MAX);
	ret = sync_parent(path);
	if (ret)
		return err_set(err, ret, "cannot create '%s': syncing its folder failed: %s", path, strerror(-ret));
	if (opts->preallocate && fallocate(fd, FALLOC_FL_KEEP_SIZE, 0, size))
		return err_set(err, -errno, "cannot create '%s': preallocation failed: %s", path, strerror(errno));
	if (ftruncate(fd, size))
		return err_set(err, -errno, "cannot create '%s': setting the size failed: %s", path, strerror(errno));
	if (fsync(fd))
		return err_set(err, -errno, "cannot create '%s': syncing failed: %s", path, strerror(errno));
	return 0;
}

/* ---- probe ---- */

static int probe_size(struct opened_file *file, const char *path, struct err *err)
{
	struct stat st;

	if (file->is_block) {
		if (ioctl(file->fd, BLKGETSIZE64, &file->size_bytes))
			return fail(err, -errno, path, "size");
		return 0;
	}
	if (fstat(file->fd, &st))
		return fail(err, -errno, path, "stat");
	file->size_bytes = (uint64_t)st.st_size;
	return 0;
}

/* By asking the kernel: the alignment of direct I/O, 0 for "none possible", or -1 where the file system does not tell. */
static int align_told(int fd)
{
#ifdef STATX_DIOALIGN
	struct statx stx;

	if (statx(fd, "", AT_EMPTY_PATH, STATX_DIOALIGN, &stx) == 0 && (stx.stx_mask & STATX_DIOALIGN)) {
		uint32_t mem = stx.stx_dio_mem_align, offset = stx.stx_dio_offset_align;

		return mem == 0 || offset == 0 ? 0 : (int)(mem > offset ? mem : offset);
	}
#endif
	return -1;
}

/* By trying: the least alignment at which a direct read is not refused, 0 for none. */
static int align_tried(int fd)
{
	char *buf = mem_alloc_aligned(BLOCK_BYTES_MAX, 2 * BLOCK_BYTES_MAX);
	int align = BLOCK_BYTES_MIN;

	if (!buf)
		return 0;
	/* Memory that is aligned to `align` and no better, so that demands on memory show too. */
	for (; align <= BLOCK_BYTES_MAX; align *= 2) {
		if (pread(fd, buf + align % BLOCK_BYTES_MAX, (size_t)align, align) >= 0 || errno != EINVAL)
			break;
	}
	mem_free(buf);
	return align <= BLOCK_BYTES_MAX ? align : 0;
}

static int probe_block_device(struct opened_file *file, const char *path, struct err *err)
{
	int block_bytes;

	if (ioctl(file->fd, BLKSSZGET, &block_bytes))
		return fail(err, -errno, path, "block size");
	if (block_bytes < BLOCK_BYTES_MIN || block_bytes > BLOCK_BYTES_MAX || (block_bytes & (block_bytes - 1)))
		return err_set(err, -EINVAL, "cannot open '%s': its logical blocks have %d bytes, not 512 to 4096",
		    path, block_bytes);
	file->block_bytes = (uint32_t)block_bytes;
	return 0;
}

/* Chooses between direct and buffered I/O. */
static int probe_file(struct opened_file *file, const char *path, struct err *err)
{
	int align = 0;

	file->block_bytes = BLOCK_BYTES_MIN;
	if (!file->direct)
		return 0;
	align = align_told(file->fd);
	if (align < 0)
		align = align_tried(file->fd);
	if (align > 0 && align <= BLOCK_BYTES_MAX) {
		file->block_bytes = align > BLOCK_BYTES_MIN ? (uint32_t)align : BLOCK_BYTES_MIN;
		return 0;
	}
	file->direct = false;
	if (fcntl(file->fd, F_SETFL, 0))
		return fail(err, -errno, path, "leaving direct I/O");
	return 0;
}

static int probe(struct opened_file *file, const char *path, struct err *err)
{
	int ret = probe_size(file, path, err);

	if (!ret)
		ret = file->is_block ? probe_block_device(file, path, err) : probe_file(file, path, err);
	if (ret)
		return ret;
	file->size_bytes &= -(uint64_t)file->block_bytes;
	if (file->size_bytes == 0)
		return err_set(err, -EINVAL, "cannot open '%s': it has no room for a single block of %u bytes", path,
		    file->block_bytes);
	return 0;
}

/* ---- all together ---- */

static int prepare_locked(
    struct opened_file *file, int flags, const char *path, const struct disk_open_opts *opts, struct err *err)
{
	int ret = probe_size(file, path, err);

	if (!ret && !file->is_block && file->size_bytes == 0 && opts->create_bytes > 0)
		ret = fill_empty(file->fd, path, opts, err);
	if (!ret)
		ret = probe(file, path, err);
	/* Only under the lock: without it the new file might be another's already. */
	if (ret && (flags & O_CREAT))
		unlink(path);
	return ret;
}

int opened_file_open(const char *path, const struct disk_open_opts *opts, struct opened_file *file, struct err *err)
{
	int flags, ret = open_flags(path, opts, &flags, err);

	if (ret)
		return ret;
	file->fd = open_best(path, flags, &file->direct);
	if (file->fd == -EBUSY)
		return err_set(err, -EBUSY, "cannot open '%s': it is mounted or in use by another process", path);
	if (file->fd < 0)
		return err_set(err, file->fd, "cannot open '%s': %s", path, strerror(-file->fd));
	ret = check_kind(file, flags, path, err);
	if (!ret)
		ret = lock(file->fd, path, err);
	if (!ret)
		ret = prepare_locked(file, flags, path, opts, err);
	if (ret)
		close(file->fd);
	return ret;
}
