/* The front end's log of guest pages that we have written (QEMU docs/interop/vhost-user.rst, "Migration"): a bitmap in memory
 * that it shares with us, bit n of it for the guest's page n. It takes bits away while we set them.
 *
 * A `struct dirtylog` is one such bitmap, with a reference count. Loop of the session. */
#ifndef TARGETS_DIRTYLOG_H
#define TARGETS_DIRTYLOG_H

#include <stdint.h>

#define DIRTYLOG_PAGE_BYTES 4096u

struct dirtylog;

/* 0, -EINVAL (empty, or misaligned), -ENOMEM, or as sharemem_map. The caller keeps fd and may close it. */
int dirtylog_map(int fd, uint64_t off_bytes, uint64_t len_bytes, struct dirtylog **out) __attribute__((warn_unused_result));
struct dirtylog *dirtylog_get(struct dirtylog *log);
/* NULL is allowed. */
void dirtylog_put(struct dirtylog *log);
/* [gpa, gpa + len_bytes) has been written; what is beyond the bitmap is not noted. len_bytes > 0. */
void dirtylog_note(struct dirtylog *log, uint64_t gpa, uint64_t len_bytes);

#endif
