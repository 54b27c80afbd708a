/* Memory shared with the other side of a socket: a range of its file, mapped so that nothing it does to the file harms us.
 *
 * The other side may shrink the file at any time; touching what is gone raises SIGBUS. A handler of the process recognises
 * a fault inside such a mapping, puts zeroed private memory in place of the whole mapping and marks it broken; the
 * instruction then goes on. Whoever uses the memory looks at sharemem_breaks() between requests and stops using what
 * is broken. Faults anywhere else go to the handler that was there before.
 *
 * Reference counts and all calls but sharemem_breaks and sharemem_is_broken: the thread that mapped. */
#ifndef TARGETS_SHAREMEM_H
#define TARGETS_SHAREMEM_H

#include <stdbool.h>
#include <stdint.h>

/* Mappings alive in the whole process. */
#define SHAREMEM_MAPS_MAX 4096

struct sharemem;

/* Maps [off_bytes, off_bytes + len_bytes) of a regular file, readable and writable. The caller keeps fd and may close it.
 * off_bytes and len_bytes must be multiples of 4 KiB, the range inside the file. 0 or -errno:
 * -EINVAL misaligned, empty or no regular file; -ERANGE leaves the file; -EPERM a file system that could stall us;
 * -ENOSPC too many mappings; what mmap says. */
int sharemem_map(int fd, uint64_t off_bytes, uint64_t len_bytes, struct sharemem **out)
	__attribute__((warn_unused_result));
struct sharemem *sharemem_get(struct sharemem *mem);
/* Unmaps with the last reference. NULL is allowed. */
void sharemem_put(struct sharemem *mem);

uint8_t *sharemem_base(const struct sharemem *mem);
bool sharemem_is_broken(const struct sharemem *mem);
/* Counts how often any mapping of the process broke: unchanged means that none did. */
uint32_t sharemem_breaks(void);

#endif
