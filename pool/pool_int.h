/* Inside of the pool: what pool.c, import.c, segment.c and rows.c share. */
#ifndef POOL_POOL_INT_H
#define POOL_POOL_INT_H

#include <stdatomic.h>

#include "pool/base/omap.h"
#include "pool/catalog_int.h"
#include "pool/label.h"
#include "pool/pool.h"
#include "pool/zones.h"

enum pool_disk_state { DISK_ONLINE, DISK_FAILED, DISK_OFFLINE, DISK_DRAINING, DISK_STATES };

/* A disk of the pool. Written before any segment on it exists, then constant but for its atomic fields. */
struct pool_disk {
	struct disk *_Atomic disk; /* NULL: missing */
	struct label label;	   /* missing: only what the catalog knows */
	_Atomic bool failed;	   /* missing, or a write or flush failed: what it lost is unknown */
	_Atomic bool leaving;	   /* out for good: its columns are to be made anew elsewhere */
	_Atomic uint64_t mended_blocks;
	enum pool_disk_state state; /* as the catalog says */
	bool by_hand;		    /* out by hand: offline and not failed */
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
	struct list watches;					    /* struct space_watch */
	bool space_freed;					    /* since the watches were last told */
	struct fmutex admin_lock;				    /* one membership change at a time */
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
void pool_put_disk_object(struct cat_txn *txn, const struct label *label, enum pool_disk_state state,
			  const struct cat_stamp *left);
/* How many disks are missing or failed. */
uint32_t pool_losses(const struct pool *pool);
/* Catalog's loss hook; arg is the pool. */
int pool_lost(void *arg, struct cat_txn *txn);
/* A disk that is out, but there, is in use again; until they are mended its columns are lost. call_lost: says so to the
 * catalog; only while nobody else changes segments. */
int pool_rejoin(struct pool *pool, struct pool_disk *pd, bool call_lost, struct err *err);
/* Refuses a disk with a label or foreign content. */
int pool_check_takeable(struct disk *disk, struct err *err);

/* segment.c: indexes all segments of the loaded catalog and takes their zones. -EUCLEAN, -ENOMEM. */
int segments_load(struct pool *pool, struct err *err);
void segments_release(struct pool *pool);
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

static inline bool policy_is_valid(struct policy policy)
{
	return policy.k > 0 && policy.k + policy.m <= SEGMENT_COLS_MAX;
}

#endif
