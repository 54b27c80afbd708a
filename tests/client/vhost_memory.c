/* Guest memory of the test client: one memfd a region, a bump allocator, and address translation. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/mman.h>
#include <unistd.h>

#include "tests/client/vhost_client.h"

#define PAGE_BYTES 4096u

/* Takes over fd, which holds VC_FILE_OFFSET_BYTES and then the region. */
static int map_region(struct vc *vc, int fd, uint64_t size_bytes)
{
	struct vc_region *region = &vc->region[vc->regions];
	struct vc_region *before = vc->regions == 0 ? NULL : region - 1;

	void *map = mmap(NULL, size_bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, (off_t)VC_FILE_OFFSET_BYTES);
	if (map == MAP_FAILED) {
		close(fd);
		return -ENOMEM;
	}
	*region = (struct vc_region){ .fd = fd, .map = map, .size_bytes = size_bytes };
	region->gpa = before == NULL ? VC_GPA_BASE : before->gpa + before->size_bytes;
	return (int)vc->regions++;
}

int vc_region_create(struct vc *vc, uint64_t size_bytes)
{
	if (vc->regions == VC_REGIONS_MAX)
		return -ENOSPC;

	int fd = memfd_create("vhost-client", MFD_CLOEXEC);
	if (fd < 0)
		return -errno;
	if (ftruncate(fd, (off_t)(VC_FILE_OFFSET_BYTES + size_bytes)) < 0) {
		close(fd);
		return -ENOMEM;
	}
	return map_region(vc, fd, size_bytes);
}

int vc_region_import(struct vc *vc, const struct vc_region *from)
{
	if (vc->regions == VC_REGIONS_MAX)
		return -ENOSPC;

	int fd = fcntl(from->fd, F_DUPFD_CLOEXEC, 0);
	return fd < 0 ? -errno : map_region(vc, fd, from->size_bytes);
}

uint64_t vc_alloc_in(struct vc *vc, unsigned region_index, uint64_t size_bytes, uint64_t align_bytes)
{
	struct vc_region *region = &vc->region[region_index];
	uint64_t off_bytes = (region->taken_bytes + align_bytes - 1) & ~(align_bytes - 1);
	if (off_bytes + size_bytes > region->size_bytes) {
		fprintf(stderr, "guest memory region %u of %llu bytes is full\n", region_index,
			(unsigned long long)region->size_bytes);
		abort();
	}
	region->taken_bytes = off_bytes + size_bytes;
	return region->gpa + off_bytes;
}

uint64_t vc_alloc(struct vc *vc, uint64_t size_bytes)
{
	return vc_alloc_in(vc, 0, size_bytes, PAGE_BYTES);
}

void *vc_ptr(struct vc *vc, uint64_t gpa, uint64_t size_bytes)
{
	for (unsigned i = 0; i < vc->regions; i++) {
		struct vc_region *region = &vc->region[i];
		if (gpa >= region->gpa && gpa + size_bytes <= region->gpa + region->size_bytes)
			return region->map + (gpa - region->gpa);
	}
	fprintf(stderr, "no guest memory at %#llx + %llu\n", (unsigned long long)gpa, (unsigned long long)size_bytes);
	abort();
}

struct vu_region vc_region_wire(const struct vc *vc, unsigned region_index)
{
	const struct vc_region *region = &vc->region[region_index];
	return (struct vu_region){
		.gpa = region->gpa,
		.size_bytes = region->size_bytes,
		.uva = region->gpa + VC_UVA_SHIFT,
		.off_bytes = VC_FILE_OFFSET_BYTES,
	};
}
