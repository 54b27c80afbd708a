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
	uint32_t count, free, reserve;
	uint32_t cursor; /* where the search for a free zone goes on */
	uint64_t *taken; /* bitmap; bits from count on are set */
};

struct zones {
	struct zone_disk disks[POOL_DISKS_MAX];
	uint32_t next_disk;	       /* round-robin among equals */
	uint64_t count, reserve;       /* of all present disks */
	/* any loop reads */
	_Atomic uint64_t free;
	_Atomic uint64_t wanted;       /* by the cleaners, see ZONES_LOW_SHARE; 0: enough are free */
};

/* Cleaning begins when less than 1/64 of the zones, but at least 4 (or 1/8 if that is fewer), are free above the reserve. It
 * brings back enough for twice that. */
#define ZONES_LOW_SHARE 64u
#define ZONES_LOW_MIN 4u
#define ZONES_LOW_SHARE_MAX 8u

void zones_init(struct zones *zones);
void zones_release(struct zones *zones);
/* A bitmap for a disk of `count` zones, all free; NULL: no memory. To be given to zones_add_disk, or mem_free. */
uint64_t *zones_bitmap_new(uint32_t count);
/* A disk with all its zones free. */
void zones_add_disk(struct zones *zones, uint32_t disk_id, uint32_t count, uint64_t *bitmap);

/* Takes one zone on each of `cols` different disks. -ENOSPC: not without the reserve (GRANT_DATA), or not at all.
 * avoid_disk: only if there is no other choice. */
int zones_take(struct zones *zones, uint32_t cols, enum grant_class class, uint32_t avoid_disk, struct zone_addr *out)
    __attribute__((warn_unused_result));
/* For loading: takes this very zone. False if it does not exist or is taken. */
bool zones_take_at(struct zones *zones, struct zone_addr at);
bool zones_is_taken(const struct zones *zones, struct zone_addr at);
void zones_give_back(struct zones *zones, const struct zone_addr *addrs, uint32_t cols);

#endif
