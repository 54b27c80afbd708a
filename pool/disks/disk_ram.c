/* "ram:SIZE[,block=N]": a disk in anonymous memory, for tests and measurements. Its content ends with the process.
 *
 * The memory is sparse: it is reserved as address space and comes into being when written, in huge pages where the kernel
 * has them; a discard gives whole pages back. Blocks are 4096 bytes unless N (512, 1024, 2048, 4096) says otherwise.
 *
 * A write is copied within submit, a read in the loop's next turn, and both are completed there: submitting a read only fetches
 * the start of its data into the cache, so that the misses of all reads of a turn overlap, and whoever looks at the data
 * when it is completed finds it in the cache.
 * Nothing is shared but the memory, so several loops may use the disk at once, as long as their ranges do not overlap. */
#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "pool/base/crc32c.h"
#include "pool/base/mem.h"
#include "pool/base/size.h"
#include "pool/disks/disk_int.h"

#define BLOCK_BYTES_DEFAULT 4096
#define SPEC_BYTES_MAX	    64
#define CACHE_LINE_BYTES    64
#define PREFETCH_BYTES	    1024 /* then the CPU's own prefetcher has understood */

struct ram_disk {
	struct disk disk;
	char *mem; /* disk.size_bytes long */
};

static void copy_iov(struct ram_disk *ram, const struct disk_io *io)
{
	char *at = ram->mem + io->off_bytes;

	for (uint32_t i = 0; i < io->iov_count; i++) {
		if (io->op == DISK_WRITE)
			memcpy(at, io->iov[i].iov_base, io->iov[i].iov_len);
		else
			memcpy(io->iov[i].iov_base, at, io->iov[i].iov_len);
		at += io->iov[i].iov_len;
	}
}

/* Gives back the whole pages of the range. */
static void discard(struct ram_disk *ram, uint64_t off_bytes, uint64_t len_bytes)
{
	uint64_t start = (off_bytes + MEM_PAGE_BYTES - 1) & -(uint64_t)MEM_PAGE_BYTES;
	uint64_t end = (off_bytes + len_bytes) & -(uint64_t)MEM_PAGE_BYTES;

	/* Only a hint: should it fail, the data just stays. */
	if (start < end)
		(void)madvise(ram->mem + start, end - start, MADV_DONTNEED);
}

static struct ram_disk *ram_of(struct disk *disk)
{
	return container_of(disk, struct ram_disk, disk);
}

static void prefetch(const char *mem, uint64_t len_bytes)
{
	for (uint64_t i = 0; i < len_bytes && i < PREFETCH_BYTES; i += CACHE_LINE_BYTES)
		__builtin_prefetch(mem + i);
}

static bool has_whole_blocks(const struct disk_io *io)
{
	for (uint32_t i = 0; i < io->iov_count; i++) {
		if (io->iov[i].iov_len % CRC32C_BLOCK_BYTES != 0)
			return false;
	}
	return true;
}

static void read_with_crc(const struct ram_disk *ram, struct disk_io *io)
{
	const char *at = ram->mem + io->off_bytes;
	uint32_t *crc = io->crc;

	for (uint32_t i = 0; i < io->iov_count; i++) {
		uint32_t blocks = (uint32_t)(io->iov[i].iov_len / CRC32C_BLOCK_BYTES);

		crc32c_copy(io->iov[i].iov_base, at, blocks, crc);
		at += io->iov[i].iov_len;
		crc += blocks;
	}
	io->has_crc = true;
}

static void read_later(struct task *task)
{
	struct disk_io *io = container_of(task, struct disk_io, task);

	if (io->crc && has_whole_blocks(io))
		read_with_crc(ram_of(io->disk), io);
	else
		copy_iov(ram_of(io->disk), io);
	disk_done(io, 0);
}

static void ram_submit(struct disk *disk, struct disk_io *io)
{
	struct ram_disk *ram = ram_of(disk);

	if (io->op == DISK_READ) {
		prefetch(ram->mem + io->off_bytes, io->len_bytes);
		io->task.fn = read_later;
		loop_post(loop_self(), &io->task);
		return;
	}
	if (io->op == DISK_WRITE)
		copy_iov(ram, io);
	else if (io->op == DISK_DISCARD)
		discard(ram, io->off_bytes, io->len_bytes);
	disk_done_later(io, 0);
}

static void ram_close(struct disk *disk)
{
	struct ram_disk *ram = ram_of(disk);

	munmap(ram->mem, disk->size_bytes);
	mem_free(ram);
}

static const struct disk_ops ram_ops = {
	.scheme = "ram",
	.submit = ram_submit,
	.close = ram_close,
};

static int block_parse(const char *text, uint32_t *block_bytes)
{
	uint64_t value;

	if (strncmp(text, "block=", 6) != 0 || size_parse(text + 6, &value))
		return -EINVAL;
	if (value < 512 || value > 4096 || (value & (value - 1)))
		return -EINVAL;
	*block_bytes = (uint32_t)value;
	return 0;
}

static int spec_parse(const char *spec, uint64_t *size_bytes, uint32_t *block_bytes, struct err *err)
{
	char text[SPEC_BYTES_MAX];
	char *option;

	if (strlen(spec) >= sizeof(text))
		return err_set(err, -EINVAL, "cannot open 'ram:%.32s...': it is too long", spec);
	strcpy(text, spec);
	option = strchr(text, ',');
	if (option)
		*option++ = '\0';
	if (option && block_parse(option, block_bytes))
		return err_set(
		    err, -EINVAL, "cannot open 'ram:%s': '%s' is not block=512, 1024, 2048 or 4096", spec, option);
	if (size_parse(text, size_bytes))
		return err_set(
		    err, -EINVAL, "cannot open 'ram:%s': '%s' is not a size (such as 512M or 4G)", spec, text);
	if (*size_bytes == 0 || *size_bytes % *block_bytes != 0)
		return err_set(err, -EINVAL, "cannot open 'ram:%s': the size must be a multiple of %u bytes and not 0",
		    spec, *block_bytes);
	return 0;
}

int disk_ram_open(
    const char *uri, const char *rest, const struct disk_open_opts *opts, struct disk **out, struct err *err)
{
	uint64_t size_bytes = 0;
	uint32_t block_bytes = BLOCK_BYTES_DEFAULT;
	struct ram_disk *ram;
	void *mem;
	int ret = spec_parse(rest, &size_bytes, &block_bytes, err);

	if (ret)
		return ret;
	mem = mmap(NULL, size_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (mem == MAP_FAILED)
		return err_set(err, -ENOMEM, "cannot open '%s': not enough address space", uri);
	/* Both are wishes; all works without them. */
	(void)madvise(mem, size_bytes, MADV_HUGEPAGE);
	(void)madvise(mem, size_bytes, MADV_DONTDUMP);
	ram = mem_alloc(sizeof(*ram));
	if (!ram) {
		munmap(mem, size_bytes);
		return err_set(err, -ENOMEM, "cannot open '%s': no memory", uri);
	}
	disk_init(&ram->disk, &ram_ops, size_bytes, block_bytes);
	ram->disk.volatile_data = true;
	ram->mem = mem;
	*out = &ram->disk;
	return 0;
}
