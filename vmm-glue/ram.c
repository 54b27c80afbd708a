/* Guest memory. See ram.h. */
#include "vmm-glue/ram.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

static int create_file(const char *name, uint64_t size_bytes)
{
	int fd = memfd_create(name, MFD_CLOEXEC | MFD_ALLOW_SEALING);

	if (fd < 0)
		return -errno;
	if (ftruncate(fd, (off_t)size_bytes) < 0 ||
	    fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) < 0) {
		int rc = -errno;

		close(fd);
		return rc;
	}
	return fd;
}

static void *map_file(int fd, uint64_t size_bytes)
{
	void *at = mmap(NULL, size_bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE, fd, 0);

	return at == MAP_FAILED ? NULL : at;
}

/* Memory from elsewhere must be what ours is: of the right size, and unable to shrink under us. */
static int check_file(int fd, uint64_t size_bytes, struct err *err)
{
	struct stat st;
	int seals = fcntl(fd, F_GET_SEALS);

	if (fstat(fd, &st) < 0 || seals < 0 || !(seals & F_SEAL_SHRINK) || (uint64_t)st.st_size != size_bytes)
		return err_set(err, -EINVAL, "the memory handed over is not a sealed file of %llu bytes",
			       (unsigned long long)size_bytes);
	return 0;
}

static void lay_out(struct ram *ram)
{
	uint64_t low = ram->size_bytes < RAM_LOW_BYTES_MAX ? ram->size_bytes : RAM_LOW_BYTES_MAX;

	ram->piece[0] = (struct ram_piece){ 0, low, 0 };
	ram->piece[1] = (struct ram_piece){ RAM_HIGH_GPA, ram->size_bytes - low, low };
	ram->pieces = ram->size_bytes > low ? 2 : 1;
}

int ram_create(struct ram *ram, uint64_t size_bytes, int fd, struct err *err)
{
	const struct ram_piece *last = &ram->piece[0];
	int rc = fd < 0 ? 0 : check_file(fd, size_bytes, err);

	*ram = (struct ram){ .fd = fd, .dirty_fd = -1, .size_bytes = size_bytes };
	if (rc < 0)
		return rc;
	lay_out(ram);
	last = &ram->piece[ram->pieces - 1];
	ram->dirty_bytes = ((last->gpa + last->len_bytes) / RAM_PAGE_BYTES + 63) / 64 * 8;
	if (ram->fd < 0)
		ram->fd = create_file("guest-ram", size_bytes);
	ram->dirty_fd = create_file("guest-dirty", ram->dirty_bytes);
	if (ram->fd >= 0)
		ram->base = map_file(ram->fd, size_bytes);
	if (ram->dirty_fd >= 0)
		ram->dirty = map_file(ram->dirty_fd, ram->dirty_bytes);
	if (!ram->base || !ram->dirty)
		return err_set(err, -ENOMEM, "no memory for a guest of %llu MiB",
			       (unsigned long long)(size_bytes >> 20));
	/* A guest's memory has no place in core files. */
	(void)madvise(ram->base, size_bytes, MADV_DONTDUMP);
	return 0;
}

void ram_destroy(struct ram *ram)
{
	if (ram->base)
		munmap(ram->base, ram->size_bytes);
	if (ram->dirty)
		munmap(ram->dirty, ram->dirty_bytes);
	if (ram->fd >= 0)
		close(ram->fd);
	if (ram->dirty_fd >= 0)
		close(ram->dirty_fd);
	*ram = (struct ram){ .fd = -1, .dirty_fd = -1 };
}

void *ram_at(const struct ram *ram, uint64_t gpa, uint64_t len_bytes)
{
	for (uint32_t i = 0; i < ram->pieces; i++) {
		const struct ram_piece *piece = &ram->piece[i];

		if (gpa >= piece->gpa && gpa - piece->gpa < piece->len_bytes &&
		    len_bytes <= piece->len_bytes - (gpa - piece->gpa))
			return ram->base + piece->off_bytes + (gpa - piece->gpa);
	}
	return NULL;
}

void ram_written(struct ram *ram, uint64_t gpa, uint64_t len_bytes)
{
	if (len_bytes == 0)
		return;
	for (uint64_t page = gpa / RAM_PAGE_BYTES; page <= (gpa + len_bytes - 1) / RAM_PAGE_BYTES; page++)
		__atomic_fetch_or(&ram->dirty[page / 64], 1ull << (page % 64), __ATOMIC_RELAXED);
}

bool ram_put(struct ram *ram, uint64_t gpa, const void *data, uint64_t len_bytes)
{
	void *at = ram_at(ram, gpa, len_bytes);

	if (!at)
		return false;
	memcpy(at, data, len_bytes);
	ram_written(ram, gpa, len_bytes);
	return true;
}

int ram_discard(struct ram *ram, uint64_t gpa, uint64_t len_bytes)
{
	uint8_t *at = ram_at(ram, gpa, len_bytes);

	if (!at)
		return -EFAULT;
	if (fallocate(ram->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, at - ram->base, (off_t)len_bytes) < 0)
		return -errno;
	ram_written(ram, gpa, len_bytes);
	return 0;
}
