/* A backing disk behind one table of operations.
 *
 * A disk is opened once and used from any loop: an I/O is submitted and completed on the loop of the submitting thread.
 * Offsets, lengths and memory are aligned to block_bytes (a power of two, 512 to 4096); the engine itself always uses
 * 4 KiB units. `done` is never called from within submit. Completions may come in any order. A driver reports short
 * transfers as -EIO and never a length. Reads and writes that leave [0, size_bytes) are refused with -EINVAL by
 * disk_submit before the driver sees them.
 *
 * To add a back end: 1 write disk_x.c with a const struct disk_ops and its open function; 2 name its URI scheme in the
 * table of disk_open.c; 3 add its open options to the man page; 4 run tests/unit/test_disk.c over it. */
#ifndef POOL_DISKS_DISK_H
#define POOL_DISKS_DISK_H

#include <stdint.h>
#include <sys/uio.h>

#include "pool/base/err.h"
#include "pool/base/list.h"
#include "pool/runtime/loop.h"

enum disk_op {
	DISK_READ,
	DISK_WRITE,
	DISK_FLUSH,      /* all writes completed before the submit are durable; off/len unused */
	DISK_DISCARD,    /* hint: content of the range becomes undefined */
	DISK_OP_COUNT,
};

#define DISK_IOV_MAX 1024

struct disk;

/* One I/O. The submitter owns it and all memory it names until done is called. */
struct disk_io {
	enum disk_op op;
	uint32_t iov_count;              /* <= DISK_IOV_MAX */
	uint64_t off_bytes;
	uint64_t len_bytes;              /* sum of iov; for DISCARD the range */
	const struct iovec *iov;
	void (*done)(struct disk_io *io, int res);   /* 0 or -errno; on the submitting loop */
	/* READ, optional: room for the CRC32C of each 4 KiB. A driver that copies the data itself may fill it. */
	uint32_t *crc;
	bool has_crc;                    /* it did */
	struct disk *disk;               /* set by disk_submit */
	/* Driver's scratch until done. */
	struct task task;
	void *priv[6];
};

/* What shows that a disk is still the same one: `bytes`, found at skip_bytes in any of the blocks of 4 KiB at off_bytes. */
#define DISK_MARK_BYTES 32
struct disk_mark {
	uint32_t count;                  /* of places; 0: nothing to be known by */
	uint64_t off_bytes[4];
	uint32_t skip_bytes;
	uint8_t bytes[DISK_MARK_BYTES];
};

/* Who can tell whether a disk that hangs can be done without: its I/O then fails instead of waiting on. Asked again and again
 * while I/O waits. */
struct disk_expendable {
	bool (*can_do_without)(void *arg, struct disk *disk); /* loop of the disk's opener; does not wait */
	void *arg;
};

struct disk_ops {
	const char *scheme;              /* Required. "file", "ram", ... */
	/* Required. Starts an I/O that disk_submit has checked. Loop thread of the submitter. Never fails: errors go to
	 * done. Never blocks. */
	void (*submit)(struct disk *disk, struct disk_io *io);
	/* Required. Frees the disk; no I/O is in flight. Fiber of the pool's loop; may wait. */
	void (*close)(struct disk *disk);
	/* Optional, for disks that may become another one unnoticed: remembers the mark, which is checked whenever the disk
	 * comes back. Loop of the opener. */
	void (*set_mark)(struct disk *disk, const struct disk_mark *mark);
	/* Optional, for disks whose I/O may wait for a server: remembers whom to ask when it has waited too long. Loop of the
	 * opener. */
	void (*set_spare)(struct disk *disk, const struct disk_expendable *spare);
	/* Optional. Why the disk cannot be reached at present, NULL if it can. Loop of the opener; valid until it gives way. */
	const char *(*away)(const struct disk *disk);
};

struct disk_counters {
	uint64_t ios[DISK_OP_COUNT], bytes[DISK_OP_COUNT], errors[DISK_OP_COUNT];
};

#define DISK_LOOPS_MAX 64

struct disk {
	const struct disk_ops *ops;
	char *uri;                       /* as given by the administrator, owned */
	uint64_t size_bytes;             /* multiple of block_bytes */
	uint32_t block_bytes;
	bool volatile_data;              /* content is lost with the process (ram:) */
	/* Flushes: one at a time, see disk_submit. */
	struct disk_io flush;            /* the one that the driver has */
	struct disk_io *flushing;        /* those it is made for */
	struct disk_io *_Atomic flushes; /* those that wait for the next one; any loop */
	_Atomic int flush_error;         /* of the first that failed; 0: none has */
	/* Per loop, each written by that loop's thread only: [loop->index]. */
	struct disk_counters counters[DISK_LOOPS_MAX];
};

/* How a disk is opened. */
struct disk_open_opts {
	bool allow_fault;                /* fault: is accepted (poold's test flag) */
	uint64_t create_bytes;           /* file: create with this size if missing; 0: must exist */
	bool preallocate;                /* with create_bytes: allocate all blocks now */
};

/* Opens "PATH", "file:PATH", "ram:SIZE[,block=N]", "nbd://...", "iscsi://...", "fault:OPTS:URI". Fiber of a real loop; waits.
 * A file is locked against a second opener (-EBUSY). */
int disk_open(const char *uri, const struct disk_open_opts *opts, struct disk **out, struct err *err);
void disk_close(struct disk *disk);

/* Submits; any loop thread; io->done comes later on this loop. Counts.
 * A flush that fails may have lost what anybody wrote to the disk, also for those whose own flush succeeds a little later while
 * the failure has not yet been noticed elsewhere. So a disk has one flush in flight, shared by all loops that ask before it
 * begins, and after one has failed all others fail likewise, until disk_flush_anew. */
void disk_submit(struct disk *disk, struct disk_io *io);
/* What a flush that failed may have lost is not relied on any more: flushes succeed again. Fiber of the pool's loop. */
void disk_flush_anew(struct disk *disk);

/* Waiting forms, for fibers. 0 or -errno. buf must be aligned to block_bytes. */
int disk_read(struct disk *disk, uint64_t off_bytes, void *buf, uint64_t len_bytes);
int disk_write(struct disk *disk, uint64_t off_bytes, const void *buf, uint64_t len_bytes);
int disk_flush(struct disk *disk);

/* Tells the disk by what it is known, or that it is known by nothing any more (count 0). Loop of the opener. */
void disk_set_mark(struct disk *disk, const struct disk_mark *mark);
/* Tells the disk whom to ask whether it can be done without. Loop of the opener; arg is good until the disk is closed. */
void disk_set_expendable(struct disk *disk, const struct disk_expendable *spare);
/* Why a disk cannot be reached at present (its I/O waits), or NULL. Loop of the opener; valid until it gives way. */
const char *disk_away(const struct disk *disk);

void disk_counters_sum(const struct disk *disk, struct disk_counters *sum);

/* For drivers. */
void disk_init(struct disk *disk, const struct disk_ops *ops, uint64_t size_bytes, uint32_t block_bytes);

#endif
