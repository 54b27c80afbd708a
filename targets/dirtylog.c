/* Noting written pages. See dirtylog.h.
 *
 * A bit is set after the page was written, by an atomic operation with release: whoever takes the bit away and then reads the
 * page finds what was written. */
#include "targets/dirtylog.h"

#include <errno.h>

#include "pool/base/mem.h"
#include "targets/sharemem.h"

#define PAGE_BYTES 4096u

struct dirtylog {
	uint32_t refs;
	uint64_t pages; /* that it has bits for */
	uint8_t *bits;
	struct sharemem *mem;
};

int dirtylog_map(int fd, uint64_t off_bytes, uint64_t len_bytes, struct dirtylog **out)
{
	uint64_t map_bytes = (len_bytes + PAGE_BYTES - 1) / PAGE_BYTES * PAGE_BYTES;
	struct dirtylog *log;
	int rc;

	if (map_bytes < len_bytes || len_bytes == 0)
		return -EINVAL;
	log = mem_zalloc(sizeof(*log));
	if (!log)
		return -ENOMEM;
	rc = sharemem_map(fd, off_bytes, map_bytes, &log->mem);
	if (rc < 0) {
		mem_free(log);
		return rc;
	}
	log->refs = 1;
	log->pages = len_bytes > UINT64_MAX / 8 ? UINT64_MAX : len_bytes * 8;
	log->bits = sharemem_base(log->mem);
	*out = log;
	return 0;
}

struct dirtylog *dirtylog_get(struct dirtylog *log)
{
	log->refs++;
	return log;
}

void dirtylog_put(struct dirtylog *log)
{
	if (!log || --log->refs > 0)
		return;
	sharemem_put(log->mem);
	mem_free(log);
}

void dirtylog_note(struct dirtylog *log, uint64_t gpa, uint64_t len_bytes)
{
	uint64_t last = (gpa + (len_bytes - 1)) / DIRTYLOG_PAGE_BYTES;

	for (uint64_t page = gpa / DIRTYLOG_PAGE_BYTES; page <= last && page < log->pages; page++)
		__atomic_fetch_or(&log->bits[page / 8], (uint8_t)(1u << page % 8), __ATOMIC_RELEASE);
}
