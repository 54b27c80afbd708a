/* Guest memory: one memfd, mapped whole, that the guest sees in two pieces around the hole for devices below 4 GiB.
 *
 * ram_at is the one gate from guest address to pointer. The dirty log has one bit a page of guest address space, in the
 * layout of vhost's log: device models here set bits with ram_written, a vhost back end sets them in the same memory.
 * Any thread, but create and destroy. */
#ifndef VMM_RAM_H
#define VMM_RAM_H

#include <stdbool.h>
#include <stdint.h>

#include "pool/base/err.h"

#define RAM_PAGE_BYTES 4096ull
#define RAM_LOW_BYTES_MAX (3ull << 30)
#define RAM_HIGH_GPA (4ull << 30)

struct ram_piece {
	uint64_t gpa, len_bytes, off_bytes; /* off: in the file and the mapping */
};

struct ram {
	uint8_t *base;
	int fd;
	uint64_t size_bytes;
	struct ram_piece piece[2];
	uint32_t pieces;
	uint64_t *dirty; /* the log; shared with back ends */
	int dirty_fd;
	uint64_t dirty_bytes;
};

/* size_bytes: a multiple of the page. fd: memory to adopt, or -1 for new and empty memory. ram_destroy in any case. */
int ram_create(struct ram *ram, uint64_t size_bytes, int fd, struct err *err) __attribute__((warn_unused_result));
void ram_destroy(struct ram *ram);

/* NULL unless all of it is memory. */
void *ram_at(const struct ram *ram, uint64_t gpa, uint64_t len_bytes);
/* Copies into guest memory. false: it is not all memory. */
bool ram_put(struct ram *ram, uint64_t gpa, const void *data, uint64_t len_bytes);
/* Somebody beside the guest has written here. */
void ram_written(struct ram *ram, uint64_t gpa, uint64_t len_bytes);
/* Gives pages back to the host; they read as zeroes afterwards. */
int ram_discard(struct ram *ram, uint64_t gpa, uint64_t len_bytes);

#endif
