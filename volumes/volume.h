/* Volumes: thin block devices carved from a pool. The public face of volumes/.
 *
 * Management functions run on fibers of the pool's loop and may wait. volume_submit and everything about an open
 * volume's I/O run on the volume's home loop (volume_loop). Names are "VOLUME" or "VOLUME@SNAPSHOT" within a pool;
 * "POOL/VOLUME" is the business of tools/. Where a volume is read, a snapshot will do; writes to one give -EROFS. Errors: -errno
 * and a message; the data path gives 0 or -errno:
 *     -EIO  a block could not be read correctly or the log cannot be written;  -EINVAL  misaligned or out of range. */
#ifndef VOLUMES_VOLUME_H
#define VOLUMES_VOLUME_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/uio.h>

#include "pool/pool.h"

#define SECTOR_BYTES 512u
#define VOLUME_NAME_BYTES (2 * POOL_NAME_MAX + 2) /* of a full name with its end */
#define VOLUME_SIZE_MAX (1ull << 50)
/* Largest READ or WRITE; such a write is all or nothing across a crash. DISCARD and WRITE_ZEROES take any length. */
#define VIO_BYTES_MAX (1u << 20)

struct volumes;                  /* all lineages and volumes of one open pool */
struct volume;                   /* one volume, open */

/* --- data path -------------------------------------------------------------------------------------------- */

enum vio_op {
	VIO_READ,
	VIO_WRITE,
	VIO_FLUSH,               /* durable: every write completed before the submit */
	VIO_DISCARD,             /* reads as zeroes afterwards; space comes back */
	VIO_WRITE_ZEROES,        /* reads as zeroes afterwards; a map operation too */
	VIO_OP_COUNT,
};

/* One request. The submitter owns it, its iov and its memory until done. Memory may change under us (guest memory):
 * writes are copied before they are checksummed. Ranges are multiples of SECTOR_BYTES. Requests in flight together have
 * no order among them, but are applied atomically and in the order of their completion. */
struct vio {
	enum vio_op op;
	bool fua;                        /* WRITE, DISCARD, WRITE_ZEROES: complete only when durable */
	uint64_t off_bytes, len_bytes;
	const struct iovec *iov;         /* READ, WRITE: len_bytes in all */
	uint32_t iov_count;              /* <= DISK_IOV_MAX */
	const bool *cancelled;           /* Optional. See volume_cancel */
	void (*done)(struct vio *vio, int res);      /* on the home loop, never from within volume_submit */
	/* engine's own; zero before the submit */
	struct volume *volume;
	struct task task;
	struct list node;
	int res;
	uint32_t reader_slot;
	bool internal;                   /* ours: may reach beyond the volume's size */
};

void volume_submit(struct volume *volume, struct vio *vio);
/* Requests whose *cancelled has become true do not wait for space: what finds the pool full, or waits because it is, ends with
 * -ECANCELED in a later turn, and nothing of it is done. The others go on as ever. Home loop. */
void volume_cancel(struct volume *volume);

/* A part of a volume that is mapped, or not: then it reads as zeroes and holds no space. */
struct extent {
	uint64_t len_bytes;
	bool mapped;
};
/* Describes [off_bytes, off_bytes + len_bytes) by at most max extents from its start on, neighbours never alike; *count
 * of them, which cover less than the range if there are more. What changes meanwhile may be told as before or
 * after. Fiber of the home loop; waits for map nodes, which are in the cache then. 0, -EINVAL or -EIO. */
int volume_extents(struct volume *volume, uint64_t off_bytes, uint64_t len_bytes, struct extent *out, uint32_t max,
		   uint32_t *count) __attribute__((warn_unused_result));

/* The same, but `mapped` says where the volume differs from `since`, an image of the same lineage (-EXDEV: it is not): where
 * one of them was written or discarded since they parted. Data is not read, and what the two share is passed over, so it
 * costs what has changed. Beyond the end of a smaller `since` that is what is mapped. */
int volume_changes(struct volume *volume, const struct volume *since, uint64_t off_bytes, uint64_t len_bytes,
		   struct extent *out, uint32_t max, uint32_t *count) __attribute__((warn_unused_result));

/* --- who may write ---------------------------------------------------------------------------------------- */

/* A volume has an epoch, a number that only grows, in the catalog. At most one handle writes: the one that made the present
 * epoch. A handle is INACTIVE when opened: it reads, and what changes the volume ends with -EROFS. Whoever was the writer before is
 * fenced by the next epoch: all it asks for, and what still waits, ends with -ESTALE and has not happened. */
#define VOLUME_HOLDER_BYTES 112
struct volume_claim {
	uint64_t epoch;                  /* the volume's, as far as the claimant knows */
	uint64_t nonce;                  /* random, not 0: after a crash in its midst the same claim succeeds again */
	const char *holder;              /* who it is, for people; cut to VOLUME_HOLDER_BYTES */
};
/* Compare-and-set: the handle becomes the writer in epoch claim->epoch + 1, which is durable then. -ESTALE: the volume's
 * epoch is another one; -EBUSY: the present writer is at work; -EROFS: a snapshot. Any loop; waits. */
int volume_activate(struct volume *volume, const struct volume_claim *claim, struct err *err)
	__attribute__((warn_unused_result));
/* The writer's client is at rest: another handle may be activated. Until one is, it still is the writer. Home loop. */
void volume_rest(struct volume *volume);
/* The writer goes on after a rest. -ESTALE: it is not the writer any more. Any loop; waits. */
int volume_resume(struct volume *volume, struct err *err) __attribute__((warn_unused_result));
/* A new epoch that is nobody's: the writer, if there is one, is fenced though it works. Pool's loop; waits. */
int volume_fence(struct volumes *volumes, const char *name, struct err *err);
/* The epoch now. Home loop. */
uint64_t volume_epoch(const struct volume *volume);
/* Another handle is the writer and at work. Home loop. */
bool volume_is_held(const struct volume *volume);

/* --- management ------------------------------------------------------------------------------------------- */

struct volumes_opts {
	struct loop **loops;             /* where lineages may live; loops[0] is the pool's */
	uint32_t loop_count;
	uint64_t map_cache_bytes;        /* per loop: cache of map nodes; 0: default 64 MiB */
	uint64_t overlay_entries_max;    /* per lineage: map changes kept in memory until a checkpoint; 0: default */
	uint64_t checkpoint_log_bytes;   /* per lineage: log written until a checkpoint; bounds recovery; 0: default 1 GiB */
};

/* Reads the directory and recovers every lineage (all in parallel). */
int volumes_open(struct pool *pool, const struct volumes_opts *opts, struct volumes **out, struct err *err);
/* Checkpoints and closes all lineages. All volumes must be closed. */
void volumes_close(struct volumes *volumes);

struct volume_create_opts {
	const char *name;
	uint64_t size_bytes;             /* rounded up to 4 KiB; 1 .. VOLUME_SIZE_MAX */
	struct policy policy;            /* {0, 0}: plain */
	bool receiving;                  /* as after volume_receive_begin */
};
int volume_create(struct volumes *volumes, const struct volume_create_opts *opts, struct err *err);
/* A volume or a snapshot, of which clones and other snapshots may exist. It is gone at once; what it held alone comes back in
 * the background. -EBUSY while open; -ENOTEMPTY: a volume that has snapshots, unless they are to go with it. */
int volume_delete(struct volumes *volumes, const char *name, bool with_snapshots, struct err *err);
/* A snapshot keeps its volume: "VOLUME@OLD" to "VOLUME@NEW". */
int volume_rename(struct volumes *volumes, const char *name, const char *new_name, struct err *err);
/* Grows or shrinks, open or not. What is beyond a smaller size is gone and reads as zeroes if it grows again. */
int volume_resize(struct volumes *volumes, const char *name, uint64_t size_bytes, struct err *err);

/* Snapshots "VOLUME@SNAPSHOT" of all the named volumes, as of one instant between the call and its return: what was written
 * before is in, what is written afterwards is not, and none of them has a write that came after one which another lacks.
 * They are durable and hold what was acknowledged, flushed or not. O(1); guests wait for a turn of their loops at most. */
int volume_snapshot(struct volumes *volumes, const char *const *names, uint32_t count, struct err *err);
#define VOLUME_SNAPSHOTS_MAX 64u /* in one call */
/* A new volume that begins with what a snapshot, or another volume now, holds. O(1). */
int volume_clone(struct volumes *volumes, const char *from, const char *new_name, struct err *err);
/* The snapshot's volume holds again what the snapshot holds, and has its size. -EBUSY while it is open. */
int volume_rollback(struct volumes *volumes, const char *snapshot, struct err *err);
/* What an image holds, as of a checkpoint: made now if since the last one, which is at most ten seconds old, the image has
 * changed or others have been made. Reads the map nodes that the image does not share. -EAGAIN while something is being
 * changed. */
struct volume_space {
	uint64_t referenced_blocks;      /* mapped, whoever else refers to them */
	uint64_t unique_blocks;          /* would come back if this image alone went */
};
int volume_get_space(struct volumes *volumes, const char *name, struct volume_space *space, struct err *err);
/* Images deleted whose space has not come back yet, and the blocks they map at most. */
int volumes_get_reclaim(struct volumes *volumes, uint64_t *images, uint64_t *blocks);

/* Receiving: a volume takes, difference by difference, what snapshots of a volume elsewhere hold. Until volume_receive_end what it
 * holds is nobody's: it has no other snapshots or clones made of it meanwhile. A rollback ends it too. How far the stream has
 * come is kept with the volume; what the mark says is the caller's business.
 *
 * -ENOENT: no snapshot of the volume has the guid `base`; -EBUSY: the volume is in use, or differs from that snapshot. */
struct receive_mark {
	uint64_t seq;
	uint32_t crc;
};
int volume_receive_begin(struct volumes *volumes, const char *name, const struct uuid *base, struct err *err);
/* Everything before the mark has been written and flushed. */
int volume_receive_set_mark(struct volumes *volumes, const char *name, struct receive_mark mark, struct err *err);
int volume_receive_get_mark(struct volumes *volumes, const char *name, struct receive_mark *mark, struct err *err);
/* "VOLUME@SNAPSHOT", complete: the volume holds what the snapshot with this guid does. One transaction with the mark. */
int volume_receive_snapshot(struct volumes *volumes, const char *name, const struct uuid *guid, uint64_t created_s,
			    struct receive_mark mark, struct err *err);
int volume_receive_end(struct volumes *volumes, const char *name, struct err *err);

struct volume_counters {
	uint64_t ios[VIO_OP_COUNT], bytes[VIO_OP_COUNT], errors[VIO_OP_COUNT];
	uint64_t data_bytes_written;     /* to disks: batches, headers and padding included */
	uint64_t meta_bytes_written;     /* to disks: map nodes, liveness */
	uint64_t batches, checkpoints, cleaned_segments, map_cache_hits, map_cache_misses, checksum_errors;
};

/* Everything below is of the volume's lineage where volumes share. */
struct volume_info {
	char name[VOLUME_NAME_BYTES];
	char origin[VOLUME_NAME_BYTES];  /* what it was made from, "" if from nothing or from what is gone */
	bool snapshot;
	bool receiving;                  /* what it holds is incomplete */
	struct uuid guid;                /* of a snapshot: equal ones hold the same, in whatever pool */
	uint32_t snapshots;              /* that the volume has */
	uint64_t id, size_bytes, created_s;
	struct policy policy;
	uint64_t mapped_blocks;          /* exact after a checkpoint; before, overwrites are counted twice */
	uint64_t segments;               /* held, with dead blocks in them */
	uint32_t home;                   /* loop index */
	uint32_t opens;                  /* handles */
	uint64_t epoch;                  /* 0: never written */
	char holder[VOLUME_HOLDER_BYTES]; /* who made it, or "" */
	bool held;                       /* and is at work */
	bool parked;                     /* writes wait for space */
	bool failed;                     /* log cannot be written: reads only; needs export and import */
	uint64_t recovery_us;            /* how long the last recovery took */
	struct volume_counters counters;
};
/* These answer at once, whatever is being changed meanwhile.
 * fn is called for each volume in the order of names; pool's loop; it must neither wait nor look at volumes itself. */
int volume_for_each(struct volumes *volumes, int (*fn)(void *arg, const struct volume_info *info), void *arg);
int volume_get_info(struct volumes *volumes, const char *name, struct volume_info *info, struct err *err);
/* How many there are. */
void volumes_count(const struct volumes *volumes, uint64_t *volume_count, uint64_t *snapshot_count);

/* A handle, INACTIVE; several may exist. The volume's home loop is fixed while it is open. */
int volume_open(struct volumes *volumes, const char *name, struct volume **out, struct err *err);
/* Another handle of the same volume, INACTIVE. NULL: no memory. Pool's loop. */
struct volume *volume_dup(const struct volume *volume);
/* No request may be in flight. */
void volume_close(struct volume *volume);
struct loop *volume_loop(const struct volume *volume);
uint64_t volume_id(const struct volume *volume);
/* Home loop. */
uint64_t volume_size_bytes(const struct volume *volume);

/* For those who serve a volume and compare it with its snapshots (of a snapshot: those of its volume). Unlike the rest, these are
 * called on fibers of the home loop. Names are those behind the @. */
/* A handle. -ENOENT or -ENOMEM. */
int volume_snapshot_open(struct volume *volume, const char *name, struct volume **out) __attribute__((warn_unused_result));
void volume_snapshot_close(struct volume *snapshot);
/* All names, one behind the other, each with its end and the last one empty; to be freed with mem_free. -ENOMEM: *names is
 * NULL. */
int volume_snapshot_names(struct volume *volume, char **names) __attribute__((warn_unused_result));

/* Told on the home loop when the size has changed. fn must not wait. Add and del: home loop. */
struct volume_watch {
	struct list node;
	void (*resized)(struct volume_watch *watch);
};
void volume_watch_add(struct volume *volume, struct volume_watch *watch);
void volume_watch_del(struct volume_watch *watch);

/* pool_disk_online, with all lineages told what they have lost there; they then mend it. */
int volumes_disk_online(struct volumes *volumes, uint32_t disk_id, struct err *err);
/* Removes a disk that is out: all its columns are made anew on other disks, then it leaves the pool. -EBUSY: it is in use;
 * -ENOSPC: nothing moves any more, since no other disk has room. */
int volumes_disk_remove(struct volumes *volumes, uint32_t disk_id, struct err *err);
/* Verifies everything and mends what is wrong, in the background. */
int volumes_scrub(struct volumes *volumes) __attribute__((warn_unused_result));

struct mend_info {
	bool running;
	uint64_t blocks, mended, lost;   /* since the import: blocks verified, pieces put right, data blocks that cannot be had */
};
int volumes_mend_info(struct volumes *volumes, struct mend_info *info) __attribute__((warn_unused_result));

/* Brings checkpoint and liveness up to date and frees dead segments now. */
int volume_checkpoint(struct volumes *volumes, const char *name, struct err *err);

#endif
