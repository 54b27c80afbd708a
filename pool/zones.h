/* Free zones of the pool's disks: one bitmap a disk.
 *
 * A zone is free or taken; taken means that a segment of the catalog owns it, or a grant that is being committed. A zone
 * becomes free only when the transaction that freed it is durable. Disks are known by their id. Nothing waits; pool's
 * loop. */
#ifndef POOL_ZONES_H
#define POOL_ZONES_H

#include <stdbool.h>
#include <stdint.h>

#include "pool/pool.h"

struct zone_disk {
	bool present;
	uint32_t count;
	/* any loop reads */
	_Atomic bool in_use;
	_Atomic uint32_t free, reserve;
	uint32_t cursor; /* where the search for a free zone goes on */
	uint64_t *taken; /* bitmap; bits from count on are set */
};

struct zones {
	struct zone_disk disks[POOL_DISKS_MAX];
	_Atomic uint32_t next_disk;    /* round-robin among equals; any loop reads */
	/* of all disks in use */
	uint64_t count, reserve;
	uint32_t widest;	       /* columns of the widest segments so far */
	bool refused;		       /* a grant found no zones, and none has become free since */
	/* any loop reads */
	_Atomic uint64_t free;
	_Atomic uint64_t wanted;       /* by the cleaners, see ZONES_LOW_SHARE; 0: enough are free */
};

/* Cleaning begins when less than 1/64 of the zones, but at least 4 of the widest segments (or 1/8 of the zones if that is less),
 * are free above the reserve. It brings back enough for twice that. */
#define ZONES_LOW_SHARE 64u
#define ZONES_LOW_SEGMENTS 4u
#define ZONES_LOW_SHARE_MAX 8u

void zones_init(struct zones *zones);
void zones_release(struct zones *zones);
/* A bitmap for a disk of `count` zones, all free; NULL: no memory. To be given to zones_add_disk, or mem_free. */
uint64_t *zones_bitmap_new(uint32_t count);
/* There will be segments of this policy. */
void zones_use_policy(struct zones *zones, struct policy policy);
/* A disk with all its zones free. */
void zones_add_disk(struct zones *zones, uint32_t disk_id, uint32_t count, uint64_t *bitmap);

/* None of its zones is taken. */
void zones_remove_disk(struct zones *zones, uint32_t disk_id);

/* Takes one zone on each of k + m different disks that are in use. If there are fewer such disks, but k of them, the last
 * columns get none (DISK_NONE). -ENOSPC: not without the reserve (GRANT_DATA), or not at all; -EIO: fewer than k disks are
 * in use. avoid_disk: only if there is no other choice. */
int zones_take(struct zones *zones, struct policy policy, enum grant_class class, uint32_t avoid_disk,
	       struct zone_addr *out) __attribute__((warn_unused_result));
/* For loading: takes this very zone. False if it does not exist or is taken. */
bool zones_take_at(struct zones *zones, struct zone_addr at);
/* One more zone for a segment that has cols already, on a disk that it is not on. False: there is none. */
bool zones_take_another(struct zones *zones, const struct zone_addr *have, uint32_t cols, struct zone_addr *out);
/* Is there one? Any loop: as of some moment lately. */
bool zones_have_another(const struct zones *zones, const struct zone_addr *have, uint32_t cols);
bool zones_is_taken(const struct zones *zones, struct zone_addr at);
/* Columns without a zone are passed over. */
void zones_give_back(struct zones *zones, const struct zone_addr *addrs, uint32_t cols);
/* No zones are taken from a disk that is not in use, and its free ones are not counted. */
void zones_set_in_use(struct zones *zones, uint32_t disk_id, bool in_use);
uint32_t zones_disks_in_use(const struct zones *zones);
/* How many segments could be granted, the reserve included. Any loop: as of some moment lately. */
uint64_t zones_segments(const struct zones *zones, struct policy policy);

#endif
