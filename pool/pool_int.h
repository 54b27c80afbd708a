/* Inside of the pool: what pool.c, import.c, segment.c and rows.c share. */
#ifndef POOL_POOL_INT_H
#define POOL_POOL_INT_H

#include <stdatomic.h>

#include "pool/base/omap.h"
#include "pool/catalog_int.h"
#include "pool/label.h"
#include "pool/pool.h"
#include "pool/segment_format.h"
#include "pool/zones.h"

enum pool_disk_state { DISK_ONLINE, DISK_FAILED, DISK_OFFLINE, DISK_STATES };

enum pool_disk_flag {
	DISK_GOES = 1,	/* its columns are wanted elsewhere */
	DISK_DROP = 2,	/* then it leaves the pool */
	DISK_SPARE = 4, /* nothing is granted on it */
	DISK_FLAGS = 7,
};

/* A disk of the pool. Written before any segment on it exists, then constant but for its atomic fields. */
struct pool_disk {
	struct disk *_Atomic disk; /* NULL: missing */
	struct label label;	   /* missing: only what the catalog knows */
	_Atomic bool failed;	   /* missing, or a write or flush failed: what it lost is unknown */
	_Atomic bool crowded;	   /* others have so much more room that columns move there */
	_Atomic uint32_t flags;	   /* as the catalog says: enum pool_disk_flag */
	_Atomic uint32_t writers;  /* who is putting cells right on it */
	_Atomic uint64_t mended_blocks;
	char domain[DISK_DOMAIN_BYTES];
	enum pool_disk_state state; /* as the catalog says */
	bool by_hand;		    /* out by hand: offline and not failed */
	bool stale;		    /* import: it lacks what it had acknowledged */
};

#define ROW_BUFFER_SIZES 3
#define ROW_BUFFERS_KEPT 32 /* of a size and loop */
struct row_buffers {
	uint32_t count[ROW_BUFFER_SIZES];
	void *buf[ROW_BUFFER_SIZES][ROW_BUFFERS_KEPT];
};

struct pool {
	struct loop *loop; /* home: everything below unless said otherwise belongs to it */
	struct uuid uuid;
	char name[POOL_NAME_MAX + 1];
	uint32_t zone_bytes;			 /* any loop; constant */
	struct pool_disk *disks[POOL_DISKS_MAX]; /* by disk id; any loop */
	struct pool_disk *removed[POOL_DISKS_MAX]; /* kept until the end: other loops may still look */
	uint32_t removed_count;
	uint32_t disk_count;
	struct catalog *catalog;
	struct zones zones;
	struct omap owners; /* owner -> struct owner_segments * */
	uint64_t segment_count;
	uint32_t losses_max; /* so many disks may fail: the greatest m of all policies in use */
	uint32_t cols_max;   /* columns of the widest policy in use, at least 1 */
	enum pool_space_level space_level;
	uint64_t space_changes[POOL_SPACE_LEVELS];
	void (*space_changed)(void *arg, enum pool_space_level level); /* may be NULL */
	void *space_arg;
	struct list watches;					    /* struct space_watch */
	bool space_freed;					    /* since the watches were last told */
	struct fmutex admin_lock;				    /* one membership change at a time */
	uint64_t columns_made;					    /* mended or moved since the import */
	struct row_buffers row_buffers[DISK_LOOPS_MAX];		    /* of rows.c; each of its loop */
	uint8_t *encode_tables[SEGMENT_COLS_MAX][SEGMENT_COLS_MAX]; /* [k - 1][m]: isa-l; constant once set; any loop */
};


/* pool.c: a pool without disks. */
int pool_new(const struct uuid *uuid, const char *name, uint32_t zone_bytes, struct pool **out);
/* Frees all but the disks themselves. */
void pool_free(struct pool *pool);
/* Takes a disk in under its label's id: zones and catalog. The caller keeps the disk if this fails. */
int pool_attach(struct pool *pool, struct disk *disk, const struct label *label);
/* A member that is not there. -ENOMEM. */
int pool_attach_missing(struct pool *pool, const struct label *label);
/* left: the newest checkpoint that it may have, if it is out. */
void pool_put_disk_object(struct cat_txn *txn, const struct pool_disk *pd, enum pool_disk_state state, uint32_t flags,
			  const struct cat_stamp *left);
/* What the catalog says of a disk that is attached. */
void pool_note_disk_object(struct pool *pool, struct pool_disk *pd, const struct disk_payload *payload);
/* Zones are granted on a disk if it is in use, no spare and not to go. */
void pool_set_use(struct pool *pool, uint32_t disk_id);
/* The domain that a disk is in if nobody says otherwise: the host of a network disk, else "local". */
void pool_default_domain(const struct disk *disk, char domain[DISK_DOMAIN_BYTES]);
/* In memory. -EINVAL: it makes no sense. */
int pool_set_domain(struct pool_disk *pd, const char *domain, struct err *err);
/* How many disks are missing or failed. */
uint32_t pool_losses(const struct pool *pool);
/* Catalog's loss hook; arg is the pool. */
int pool_lost(void *arg, struct cat_txn *txn);
/* A disk that is out, but there, is in use again, with these flags. */
int pool_rejoin(struct pool *pool, struct pool_disk *pd, uint32_t flags, struct err *err);
/* Refuses a disk with a label or foreign content. */
int pool_check_takeable(struct disk *disk, struct err *err);

/* segment.c: indexes all segments of the loaded catalog and takes their zones. -EUCLEAN, -ENOMEM. */
int segments_load(struct pool *pool, struct err *err);
void segments_release(struct pool *pool);
/* All segments, one after the other; obj NULL: the first. NULL: no more. */
const struct cat_obj *segments_next(const struct pool *pool, const struct cat_obj *obj, struct segment *segment);
/* How many segments have a column on the disk. */
uint64_t segments_on_disk(const struct pool *pool, uint32_t disk_id);
/* Would every segment be whole without this disk? DISK_NONE: is every segment whole? Else *without is the first that is
 * not. */
bool segments_whole_without(const struct pool *pool, uint32_t disk_id, uint64_t *without);
/* Puts to txn that the columns on a disk are lost. */
void segments_put_lost(struct pool *pool, uint32_t disk_id, struct cat_txn *txn);
/* Catalog's change hook; arg is the pool. */
void segments_changed(void *arg, const struct cat_obj *old, const struct cat_obj *new);

/* Zones became free: tells all who wait for that. */
void segments_tell_watches(struct pool *pool);

/* space.c: zones were taken, refused or given back. */
void pool_note_space(struct pool *pool);

/* rows.c, rows_mend.c: makes ready for segments of this policy. -ENOMEM. */
int rows_prepare(struct pool *pool, struct policy policy);
void rows_release(struct pool *pool);
/* isa-l's tables that give m parity columns of k data columns. k > 1, m > 0, prepared. */
uint8_t *rows_encoder(const struct pool *pool, struct policy policy);
/* Tables (32 * k * want_count bytes) that give the wanted data columns from k columns `from`. k > 1. */
bool rows_decoder(struct policy policy, const uint32_t *from, const uint32_t *want, uint32_t want_count, uint8_t *tables);
/* Where a cell lies on the column's disk. */
uint64_t rows_cell_off(const struct pool *pool, struct zone_addr at, uint32_t row);
/* The disk of column c, if it has one that is in use; else NULL. */
struct disk *rows_writable_disk(const struct pool *pool, const struct segment *segment, uint32_t c);
/* ... and holds what it should, as far as is known. */
struct disk *rows_trusted_disk(const struct pool *pool, const struct segment *segment, uint32_t c);

static inline bool policy_is_valid(struct policy policy)
{
	return policy.k > 0 && policy.k + policy.m <= SEGMENT_COLS_MAX;
}

#endif
