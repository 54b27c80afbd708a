/* Guest memory: the one gate from a guest's (or front end's) address to a pointer.
 *
 * A `struct guestmem` is an unchangeable table of regions with a reference count. A change makes a new table; regions that
 * stay are shared with the old one, and memory stays mapped as long as a table names it. So whoever has requests in
 * flight holds a reference of the table their addresses were looked up in, and is safe.
 *
 * Every region has two addresses: guest-physical (descriptors) and user (ring addresses in messages). Pointers handed
 * out never reach beyond a region; what they point to is written by the guest at any time: copy, then check, then use.
 *
 * One thread at a time: the loop of the session. */
#ifndef TARGETS_GUESTMEM_H
#define TARGETS_GUESTMEM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

/* What we offer as memory slots: QEMU takes one a DIMM, at most 509. */
#define GUESTMEM_REGIONS_MAX 509
#define GUESTMEM_REGION_BYTES_MAX (1ull << 46)

struct guestmem;

/* A region as a message describes it. Valid if and only if all numbers are multiples of 4 KiB, the size is in
 * [4 KiB, GUESTMEM_REGION_BYTES_MAX], neither address range wraps, and the file has the range. */
struct guestmem_slot {
	uint64_t gpa, uva;
	uint64_t len_bytes;
	uint64_t off_bytes;            /* in the file */
};

/* A table of exactly these regions, all mapped anew; fds[i] belongs to slots[i] and stays the caller's. 0 or -errno, the
 * reason in the log is errno's: -EINVAL, -ERANGE, -EEXIST (two regions overlap), -ENOSPC (too many), what mmap says. */
int guestmem_create(const struct guestmem_slot *slots, const int *fds, uint32_t count, struct guestmem **out)
	__attribute__((warn_unused_result));
/* A copy of `mem` with one region more. */
int guestmem_with(const struct guestmem *mem, const struct guestmem_slot *slot, int fd, struct guestmem **out)
	__attribute__((warn_unused_result));
/* A copy without the region of the same addresses and size (off_bytes does not count); -ENOENT. */
int guestmem_without(const struct guestmem *mem, const struct guestmem_slot *slot, struct guestmem **out)
	__attribute__((warn_unused_result));
struct guestmem *guestmem_get(struct guestmem *mem);
/* NULL is allowed. */
void guestmem_put(struct guestmem *mem);
uint32_t guestmem_count(const struct guestmem *mem);

/* Appends the pieces of [gpa, gpa + len_bytes) to iov: one for each region it crosses. Returns how many, -EFAULT when a
 * byte of it is no guest memory, -E2BIG when more than `room` are needed. len_bytes > 0. */
int guestmem_iov(struct guestmem *mem, uint64_t gpa, uint64_t len_bytes, struct iovec *iov, uint32_t room);
/* The pointer, or NULL unless all of [gpa, gpa + len_bytes) lies in one region. */
void *guestmem_ptr(struct guestmem *mem, uint64_t gpa, uint64_t len_bytes);
/* The same by user address. */
void *guestmem_user_ptr(struct guestmem *mem, uint64_t uva, uint64_t len_bytes);
/* Copies out of guest memory, once, across regions. 0 or -EFAULT. */
int guestmem_read(struct guestmem *mem, uint64_t gpa, void *into, uint32_t len_bytes);

/* A region's file has shrunk under us: nothing of this table is worth touching any more. */
bool guestmem_is_broken(const struct guestmem *mem);

/* Reads memory that the guest may be writing, exactly once: the compiler cannot read it again later. */
static inline void guest_copy(void *into, const void *from, size_t len_bytes)
{
	__builtin_memcpy(into, from, len_bytes);
	__asm__ volatile("" : : "r"(into), "r"(from) : "memory");
}

#endif
