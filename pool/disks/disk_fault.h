/* A disk that misbehaves on demand, around any other disk. For tests. The faults are listed in FAULT_KINDS; how they work
 * is told in disk_fault.c.
 *
 * Options are a comma list of NAME[=P], delay-us=N and seed=N. P is a probability from 0 to 1 and is 1 if not given. An
 * empty list is allowed: no faults. */
#ifndef POOL_DISKS_DISK_FAULT_H
#define POOL_DISKS_DISK_FAULT_H

#include "pool/disks/disk.h"

/*        kind            name */
#define FAULT_KINDS(X)                                                                                           \
	X(FAULT_EIO_READ, "eio-read")	  /* a read fails, nothing is read */                                    \
	X(FAULT_EIO_WRITE, "eio-write")	  /* a write fails, nothing is written */                                \
	X(FAULT_EIO_FLUSH, "eio-flush")	  /* a flush fails, nothing is flushed */                                \
	X(FAULT_CORRUPT, "corrupt")	  /* a read returns one flipped bit; the disk itself is unharmed */      \
	X(FAULT_ROT, "rot")		  /* a write stores one flipped bit and succeeds */                      \
	X(FAULT_TORN, "torn")		  /* a write stores a part of its sectors, garbage in some, and fails */ \
	X(FAULT_MISDIRECT, "misdirect")	  /* a read or write goes to another place, and succeeds */              \
	X(FAULT_LOSE_WRITE, "lose-write") /* a write succeeds, nothing is written */                             \
	X(FAULT_LOSE_FLUSH, "lose-flush") /* a flush succeeds, nothing is flushed */                             \
	X(FAULT_HANG, "hang")		  /* any I/O stays where it is until hang is off, then goes on */

#define X(kind, name) kind,
enum fault_kind { FAULT_KINDS(X) FAULT_KIND_COUNT };
#undef X

/* Wraps `inner`, which *out then owns (on failure the caller keeps it). 0 or -errno. */
int disk_fault_wrap(struct disk *inner, const char *opts, struct disk **out, struct err *err);

/* Puts the faults named in opts in place of all there are, for I/Os submitted from now on; seed starts anew only if
 * named. The disk must have been made by disk_fault_wrap. Any thread. 0, or -EINVAL and all stays as it was. */
int disk_fault_set(struct disk *disk, const char *opts, struct err *err);

/* Whether the disk was made by disk_fault_wrap, so that disk_fault_set may be called. Any thread. */
bool disk_is_fault(const struct disk *disk);

/* How often a fault of this kind has been done. Any thread. */
uint64_t disk_fault_count(const struct disk *disk, enum fault_kind kind);

#endif
