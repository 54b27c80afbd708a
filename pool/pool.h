/* A pool: disks gathered into zones, zones grouped into segments, and a catalog that names everything.
 *
 * The pool knows no volume: a segment belongs to an `owner` number (a lineage). Unless stated otherwise functions run on
 * fibers of the pool's loop (loop 0) and may wait. Functions marked "any loop" may be called from fibers of any loop and
 * go to the pool's loop by message. Errors: -errno and a message. */
#ifndef POOL_POOL_H
#define POOL_POOL_H

#include <stdbool.h>
#include <stdint.h>

#include "pool/base/err.h"
#include "pool/base/list.h"
#include "pool/catalog.h"
#include "pool/disks/disk.h"
#include "pool/runtime/fiber.h"

#define BLOCK_BYTES 4096u
#define BLOCK_SHIFT 12
#define POOL_NAME_MAX 64
#define POOL_DISKS_MAX 256
#define ZONE_BYTES_DEFAULT (16u << 20)
#define ZONE_BYTES_MIN (2u << 20)
#define ZONE_BYTES_MAX (1u << 30)
#define SEGMENT_COLS_MAX 24

struct pool;

struct uuid {
	uint8_t b[16];
};
void uuid_to_text(const struct uuid *uuid, char text[37]);
/* False: it is none. */
bool uuid_from_text(const char *text, struct uuid *uuid);
bool uuid_equal(const struct uuid *a, const struct uuid *b);
struct uuid uuid_new(struct loop *loop);

/* [A-Za-z0-9._-]{1,64} without a leading dot or dash. */
bool name_is_valid(const char *name);

/* --- pools ------------------------------------------------------------------------------------------------ */

struct pool_create_opts {
	const char *name;
	uint32_t zone_bytes;             /* 0: default; a power of two in [ZONE_BYTES_MIN, ZONE_BYTES_MAX] */
	bool force;                      /* take disks that hold a file system or belong to another pool */
};

/* Formats the disks and opens the pool. On success the pool owns the disks; on failure the caller still does, and no
 * label was written unless the error is an I/O error. */
int pool_create(const struct pool_create_opts *opts, struct disk **disks, uint32_t disk_count, struct pool **out,
		struct err *err);
/* Opens an existing pool from its disks, given in any order. Some may be missing or stale if every segment can do without
 * them; a disk that had failed and is there again comes back, its columns to be mended. Refuses, with nothing written:
 * foreign disks, too few disks (named), disks that were used without each other, unknown feature bits, a pool that another
 * process has open. Ownership as in pool_create. */
int pool_import(struct disk **disks, uint32_t disk_count, struct pool **out, struct err *err);
/* Closes and frees the pool and its disks. Lineages must be closed. Clean: all is durable. */
void pool_close(struct pool *pool);
/* Wipes the labels, then closes. On failure the pool stays open. */
int pool_destroy(struct pool *pool, struct err *err);
int pool_add_disk(struct pool *pool, struct disk *disk, bool force, struct err *err);

/* Disk life, by hand. Offline: the pool goes on without the disk, as if it had failed, until it is taken online, over imports
 * too; -EBUSY: it cannot do without. */
int pool_disk_offline(struct pool *pool, uint32_t disk_id, struct err *err);
/* A disk that failed or was taken offline comes back, its columns lost until they are mended; whoever has copies of segments
 * has called them lost there (volumes_disk_online). */
int pool_disk_online(struct pool *pool, uint32_t disk_id, struct err *err);
/* A disk that is out is to be removed: its columns are wanted elsewhere (segment_wants_columns). */
int pool_disk_leave(struct pool *pool, uint32_t disk_id, struct err *err);
/* Removes it. -EBUSY: *left segments still have a column there. Its handle is closed with the pool. */
int pool_disk_remove(struct pool *pool, uint32_t disk_id, uint64_t *left, struct err *err);

const char *pool_name(const struct pool *pool);
const struct uuid *pool_uuid(const struct pool *pool);
struct loop *pool_loop(const struct pool *pool);
struct catalog *pool_catalog(struct pool *pool);

/* What a disk says of itself, before any import. Fiber of the disk's loop; waits. */
struct disk_probe {
	bool labelled;                   /* a valid label of ours */
	char pool_name[POOL_NAME_MAX + 1];
	struct uuid pool_uuid, disk_uuid;
	uint32_t disk_index, disk_count; /* of how many disks, when the label was written */
	char foreign[32];                /* "ext4", "xfs", "LVM2", ... or "" */
};
int pool_probe_disk(struct disk *disk, struct disk_probe *probe, struct err *err);

struct pool_disk_info {
	const char *uri;                 /* "" if it is missing */
	uint32_t id;
	struct uuid uuid;
	/* "online", "away" (it cannot be reached; I/O waits), "draining", "failed", "offline", "missing" */
	const char *state;
	const char *why;                 /* it is away, or NULL; valid until the caller gives way */
	uint64_t mended_blocks;          /* put right on it since the import */
	uint64_t size_bytes, zones, zones_free;
	struct disk_counters counters;
};
struct pool_info {
	uint32_t disk_count, disks_in_use;
	uint32_t zone_bytes;
	uint64_t zones, zones_free, zones_reserved;
	uint64_t segments, catalog_objects;
};
void pool_get_info(const struct pool *pool, struct pool_info *info);
/* i < disk_count */
void pool_get_disk_info(const struct pool *pool, uint32_t i, struct pool_disk_info *info);

/* --- segments --------------------------------------------------------------------------------------------- */

/* Redundancy: k data and m parity zones a row. plain is {1, 0}. */
struct policy {
	uint8_t k, m;
};
#define POLICY_TEXT_BYTES 16
/* "plain", "mirror2", "mirror3", "ec:K+M" (K >= 2, M >= 1, K + M <= SEGMENT_COLS_MAX); false: none of these. */
bool policy_from_text(const char *text, struct policy *policy);
char *policy_to_text(struct policy policy, char text[POLICY_TEXT_BYTES]);
/* Makes ready for segments of this policy. As many disks may fail as the greatest m in use. -ENOMEM. */
int pool_use_policy(struct pool *pool, struct policy policy) __attribute__((warn_unused_result));
/* In the transaction that first uses the policy: the pool remembers how many disks may fail. */
void pool_put_policy_in(struct pool *pool, struct policy policy, struct cat_txn *txn);
/* -ENODEV: too few disks are in use. */
int pool_check_policy(const struct pool *pool, struct policy policy, struct err *err);

enum segment_stream {
	STREAM_DATA = 0,                 /* a lineage's batch log, replayed by recovery */
	STREAM_META = 1,                 /* map nodes and tables, reached from checkpoints */
	STREAM_MOVE = 2,                 /* what the cleaner has moved here */
	STREAM_COUNT,
};

/* Who may take the last free zones. */
enum grant_class {
	GRANT_DATA,                      /* leaves the reserve alone */
	GRANT_RESERVE,                   /* may use the reserve: map, liveness, discards */
};

struct zone_addr {
	uint32_t disk_id, zone;
};

#define SEGMENT_UNSEALED UINT32_MAX
/* disk_id of a column that has no zone: too few disks were in use when the segment was granted. At most m of them. */
#define DISK_NONE UINT32_MAX

/* A segment as the catalog knows it; `grant` names this life of it and is unique for ever. */
struct segment {
	uint64_t grant, owner;
	uint32_t segno;                  /* owner's number for it, unique within the owner while the segment lives */
	uint32_t sealed_blocks;          /* log ends here (recovery's seal); SEGMENT_UNSEALED otherwise */
	uint32_t lost;                   /* bit c: column c may lack what the others hold, until it is mended */
	uint8_t stream;                  /* enum segment_stream */
	struct policy policy;
	struct zone_addr cols[SEGMENT_COLS_MAX];     /* k data columns, then m parity columns */
};

/* Blocks of data a segment of this policy holds: k * zone_bytes / BLOCK_BYTES. */
uint32_t segment_blocks(const struct pool *pool, struct policy policy);

/* Grants a fresh segment on different disks, durable on return. Any loop. -ENOSPC: no zones left for this class; -EIO: too
 * few disks are in use, or the catalog cannot be written. `avoid_disk` (UINT32_MAX: none) is used only if there is no other choice. */
int segment_grant(struct pool *pool, uint64_t owner, uint32_t segno, enum segment_stream stream, struct policy policy,
		  enum grant_class class, uint32_t avoid_disk, struct segment *out) __attribute__((warn_unused_result));
/* In a transaction: frees a segment (its zones are reusable once the commit is durable), or changes its seal. Any loop. */
void segment_free_in(struct cat_txn *txn, uint64_t grant);
void segment_put_in(struct cat_txn *txn, const struct segment *segment);
/* Commits a transaction to the pool's catalog and frees the zones of segments it deletes. Any loop. */
int pool_commit(struct pool *pool, struct cat_txn *txn) __attribute__((warn_unused_result));
/* A number for grants, lineages, volumes, ...: any loop. */
uint64_t pool_new_id(struct pool *pool);
/* Segments that the pool could still grant, and how many cleaning should bring back: 0 until zones get scarce. Any loop, any
 * context. */
uint64_t pool_segments_free(const struct pool *pool, struct policy policy);
uint64_t pool_segments_wanted(const struct pool *pool, struct policy policy);
/* Calls fn for each segment of the owner. Pool's loop. fn must not wait. */
void segment_for_each(struct pool *pool, uint64_t owner, void (*fn)(void *arg, const struct segment *segment), void *arg);
/* Decodes a CAT_SEGMENT object; false if malformed. */
bool segment_from_obj(const struct cat_obj *obj, struct segment *out);

/* The space watcher: posted to its own loop whenever zones became free. Registered once; any loop, from fibers. */
struct space_watch {
	struct list node;                /* owner: pool's loop */
	struct loop *loop;
	struct task *task;               /* sent to `loop` with loop_send; must tolerate being sent while queued: see .queued */
	_Atomic bool queued;             /* the pool sets it before sending; the task's fn clears it first */
};
int space_watch_add(struct pool *pool, struct space_watch *watch);
/* Afterwards the task is not on its way either. Waits. */
void space_watch_del(struct pool *pool, struct space_watch *watch);

/* --- segment I/O: rows ------------------------------------------------------------------------------------ */

/* A segment is addressed as one linear space of data blocks; block i lies in row i / k, column i % k. Parity of a row is
 * written with its data. With k = 1 a run of blocks is contiguous on each column's zone.
 *
 * One read or write of a run of whole blocks. The submitter owns it and its memory until done. Submitted and completed on
 * the calling loop. Writes must start and end on row boundaries.
 *
 * A read that a disk answers with an error, or whose disk is gone, is answered from the other columns. Whether the data is
 * right only its owner can tell, who knows the checksum: segment_read_checked finds the right one. A write is done when
 * every column that has a zone is written; it fails at once if one of them is on a failed disk. */
struct seg_io {
	enum disk_op op;                 /* DISK_READ or DISK_WRITE */
	const struct segment *segment;
	uint32_t index, count;           /* blocks */
	const struct iovec *iov;         /* count * BLOCK_BYTES in all; at most DISK_IOV_MAX pieces */
	uint32_t iov_count;
	void (*done)(struct seg_io *io, int res);    /* 0, or the first -errno of any column */
	uint32_t *crc;                   /* READ, optional: room for each block's CRC32C, for disks that know it at no cost */
	bool has_crc;                    /* they are there */
	uint32_t failed_disk;            /* on error: which disk, UINT32_MAX if none */
	/* pool's own */
	struct pool *pool;
	uint32_t tried;                  /* bit c: column c could not be read */
	struct disk_io one;              /* k + m = 1: no allocation at all */
	void *priv;
	int res, pending_error;
	uint32_t pending;
};
void segment_submit(struct pool *pool, struct seg_io *io);
/* Waiting forms for fibers of any loop. buf is block-aligned. */
int segment_read(struct pool *pool, const struct segment *segment, uint32_t index, uint32_t count, void *buf);
int segment_write(struct pool *pool, const struct segment *segment, uint32_t index, uint32_t count, const void *buf);

/* Says whether this is the block: by its checksum, say. Must not wait. */
typedef bool block_check_fn(void *arg, const void *block);
/* Reads one block in every way that its row offers until one passes the check, and then writes it where it was wrong. Only
 * what has passed is ever written. Waits; fibers of any loop. 0; -EBADMSG: none passed; other: none could be read. */
int segment_read_checked(struct pool *pool, const struct segment *segment, uint32_t index, block_check_fn *check, void *arg,
			 void *buf) __attribute__((warn_unused_result));
/* Makes all columns of a run of whole rows hold what buf, which is known to be right, says: reads them, and writes those
 * that differ or cannot be read. Columns without a zone or on a failed disk are left out. Waits; fibers of any loop. The
 * number of columns written, or the first -errno. */
int segment_mend(struct pool *pool, const struct segment *segment, uint32_t index, uint32_t count, const void *buf)
    __attribute__((warn_unused_result));
/* Bit c: column c has a zone that can be written. */
uint32_t segment_writable_cols(const struct pool *pool, const struct segment *segment);

/* Flushes one disk of the pool by id. -EIO: it has failed, now or before: it is out of use for good (see pool_lose_disk).
 * Waits; fibers of any loop. */
int pool_flush_disk(struct pool *pool, uint32_t disk_id) __attribute__((warn_unused_result));

#define DISK_SET_WORDS (POOL_DISKS_MAX / 64)
/* Flushes the disks whose bits are set, all at once, and leaves set those that have failed. Waits; fibers of any loop. */
void pool_flush_disks(struct pool *pool, uint64_t disks[DISK_SET_WORDS]);

/* The pool goes on without a disk from which an error came: 0 when the others' catalog says so durably. Then nothing on it
 * is trusted, written or granted any more. -EIO: the pool cannot do without it; if it has not failed before, nothing has
 * changed. Waits; fibers of any loop. */
int pool_lose_disk(struct pool *pool, uint32_t disk_id) __attribute__((warn_unused_result));
/* Does the segment have columns without a zone, or on disks that are out and to be removed, and is there a disk with room for
 * them? Any loop. */
bool segment_wants_columns(const struct pool *pool, const struct segment *segment);
/* Gives such columns a zone on other disks, where there are any, and calls them lost, durably. The segment is not being
 * written. Any loop. 0, or -errno: *segment is as before. */
int segment_move_columns(struct pool *pool, struct segment *segment) __attribute__((warn_unused_result));
/* Can the segment's blocks be had from columns that are trusted? Any loop. */
bool segment_is_whole(const struct pool *pool, const struct segment *segment);

#endif
