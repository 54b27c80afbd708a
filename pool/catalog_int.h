/* Inside of the catalog, shared by catalog.c (objects, commit), catalog_write.c and catalog_load.c; and what only the
 * pool may do with it.
 *
 * Life: catalog_new, catalog_attach each disk, then catalog_format (a new pool) or catalog_load (an old one) and
 * catalog_checkpoint; catalog_free. */
#ifndef POOL_CATALOG_INT_H
#define POOL_CATALOG_INT_H

#include "pool/base/omap.h"
#include "pool/catalog.h"
#include "pool/catalog_format.h"
#include "pool/disks/disk.h"
#include "pool/label.h"
#include "pool/runtime/fiber.h"

#define CAT_CHUNK_BYTES (256u << 10) /* checkpoints are streamed, journals read, in pieces of this */

static_assert(CAT_CHUNK_BYTES >= RECORD_PAYLOAD_MAX + 2 * CAT_BLOCK_BYTES,
	      "a chunk holds any record and the next one's head");
static_assert(JOURNAL_BYTES_MIN >= RECORD_PAYLOAD_MAX + CAT_BLOCK_BYTES, "an empty journal takes any record");

/* An object in memory. The map holds pointers to it; a NULL there keeps room for an object of the running commit. */
struct cat_node {
	struct cat_node *next; /* prepared puts of the running commit */
	bool placed;           /* the running commit made the place for it */
	struct cat_obj obj;    /* .data points at bytes */
	uint8_t bytes[];
};

/* A transaction that waits for its commit. */
struct cat_commit {
	struct list node; /* catalog.waiting, then in a group */
	struct cat_txn *txn;
	struct cat_node *puts, **puts_tail; /* prepared */
	bool finished;
	int res;
};

/* Names a checkpoint. */
struct cat_stamp {
	uint64_t generation, stamp;
};

/* A disk that carries the catalog. */
struct cat_disk {
	struct disk *disk;
	struct catalog_half half[2];
	_Atomic bool *failed; /* set when a write or flush fails */
	bool out;	      /* failed, and accounted for: it gets no more writes */
	bool stale;	      /* loading: it ends before the last acknowledged transaction */
	bool behind;	      /* loading: a crash kept the newest checkpoint from it */
	struct cat_stamp own; /* loading: its newest checkpoint */
	struct disk_io io;    /* of the running parallel write */
	struct iovec iov;
	struct catalog *cat;
};

/* What changed: called for every entry when its commit has become durable, before old is freed. Must not wait. old, new:
 * NULL if absent. */
typedef void cat_change_fn(void *arg, const struct cat_obj *old, const struct cat_obj *new);
/* Disks have failed. May the catalog go on without them? 0, and txn says which ones: it is committed on the others together
 * with whatever was under way. -EIO: it may not. Must not wait. */
typedef int cat_loss_fn(void *arg, struct cat_txn *txn);

struct catalog {
	struct omap objects;      /* cat_key -> struct cat_node * */
	uint64_t count;           /* objects, placeholders not counted */
	uint64_t live_bytes;      /* their entries */
	_Atomic uint64_t next_id; /* any thread may take one */
	uint8_t pool_uuid[16];
	uint64_t stamp, generation, seq;     /* of the last checkpoint; of the last durable transaction */
	uint64_t settled_seq;                /* transactions up to here are on every disk that is not out */
	struct cat_stamp newest;	     /* checkpoint that a disk may have at most, whether its write was completed or not */
	uint64_t next_generation;            /* of the next attempt at a checkpoint */
	uint64_t journal_pos, journal_bytes; /* next record; the smallest journal of all disks */
	uint64_t payload_max;                /* of a checkpoint, on the smallest area */
	bool without_some;                   /* disks are missing, as far as they cannot be said to be out */
	bool broken;                         /* an I/O failed: what is durable is unknown until re-import */
	struct cat_disk *disks[POOL_DISKS_MAX];
	uint32_t disk_count;
	struct fmutex commit_lock; /* owner writes the disks */
	struct list waiting;       /* struct cat_commit: not yet in a record */
	struct fiber *io_waiter;
	uint32_t io_pending;
	uint8_t *chunk; /* CAT_CHUNK_BYTES, block-aligned; owner of commit_lock */
	cat_change_fn *change_fn;
	cat_loss_fn *loss_fn; /* NULL: every disk is needed */
	void *hook_arg;
};

int catalog_new(const struct uuid *pool_uuid, struct catalog **out);
void catalog_free(struct catalog *cat);
void catalog_set_hooks(struct catalog *cat, cat_change_fn *change, cat_loss_fn *loss, void *arg);
/* Calls fn for each object of the kind until it returns something else than 0, and returns that. fn must not wait. */
int catalog_for_each(const struct catalog *cat, enum catalog_kind kind, int (*fn)(void *arg, const struct cat_obj *obj),
		     void *arg);
/* Lets a disk carry the catalog, before catalog_format or catalog_load. -ENOMEM. */
int catalog_attach(struct catalog *cat, struct disk *disk, const struct catalog_half half[2], _Atomic bool *failed);
/* Brings a disk into a running catalog: commits txn, which names it, on the old disks, then writes a checkpoint on all.
 * Waits. -ENOSPC: the objects do not fit its halves. After -EIO the disk may or may not belong to the pool. */
int catalog_admit(struct catalog *cat, struct disk *disk, const struct catalog_half half[2], _Atomic bool *failed,
		  struct cat_txn *txn) __attribute__((warn_unused_result));

/* Reads the newest state from the attached disks; writes nothing. -ENOENT: no catalog at all; -EUCLEAN: damaged; -EIO:
 * cannot be read. Disks that are older than the others are marked stale; without a loss hook, -EUCLEAN. */
int catalog_load(struct catalog *cat, struct err *err) __attribute__((warn_unused_result));
/* Writes the first, empty catalog, in both halves. */
int catalog_format(struct catalog *cat) __attribute__((warn_unused_result));
/* Writes all objects as the next generation on all disks. Waits. */
int catalog_checkpoint(struct catalog *cat) __attribute__((warn_unused_result));
/* After loading: leaves out disks that have failed, makes durable on the others what was read, which may stand in their
 * caches only, asks the loss hook, and writes a checkpoint. without_some: disks are not here, or not used. Waits. */
int catalog_resume(struct catalog *cat, bool without_some) __attribute__((warn_unused_result));
/* A disk was marked failed from outside: makes that durable. 0, or -EIO: the catalog cannot go on without it. Waits. */
int catalog_settle_losses(struct catalog *cat) __attribute__((warn_unused_result));
/* A disk that is out comes back: commits txn, which says so, on all disks but it, then a checkpoint on all. Waits. */
int catalog_readmit(struct catalog *cat, struct disk *disk, struct cat_txn *txn) __attribute__((warn_unused_result));
/* Makes whatever catalog the disk's halves hold unreadable, and flushes. */
int catalog_wipe_disk(struct disk *disk, const struct catalog_half half[2]);

/* By so much, which is even, an attempt of which only a disk that is away knows can be ahead of the others: a generation or two
 * for every disk that failed it. */
#define CAT_UNSEEN_GENERATIONS 1024u

/* --- between the files of the catalog ----------------------------------------------------------------------------- */

/* Applies a payload's entries to memory, for loading. -EUCLEAN, -ENOMEM. */
int catalog_apply_loaded(struct catalog *cat, const struct cat_entry *entry);
void catalog_clear(struct catalog *cat);

/* Writes [buf, len) at each disk's `base` + off. 1: disks have failed and are marked; -EIO: there is no disk left. */
enum cat_area { CAT_CHECKPOINT, CAT_JOURNAL };
int catalog_write_all(struct catalog *cat, enum cat_area area, uint64_t generation, uint64_t off, const void *buf,
		      uint64_t len);
int catalog_flush_all(struct catalog *cat);

/* After loading, before anything else is written: brings the newest checkpoint to the disks that lack it, unflushed. 1: a
 * disk has failed and is marked. */
int catalog_spread(struct catalog *cat);

/* One journal record with this payload, which stands at cat->chunk + sizeof(struct record_head). */
int catalog_write_record(struct catalog *cat, uint32_t payload_bytes);
/* A checkpoint of all objects and then of the transactions of a group of struct cat_commit. commit_lock held; the chunk is
 * used. Both: 1 if disks have failed: some have it, some do not. */
int catalog_write_checkpoint(struct catalog *cat, const struct list *group);

#endif
