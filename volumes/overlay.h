/* Overlay: the part of a volume's map that is newer than its tree.
 *
 * Every write and discard puts its mapping here when it enters the log; the log itself makes it durable. A checkpoint
 * freezes the overlay, merges it into the tree on disk and drops it. So writes never wait for map nodes, and nodes are
 * immutable. Items are single blocks or holes of any length; they never overlap. Home loop only. */
#ifndef VOLUMES_OVERLAY_H
#define VOLUMES_OVERLAY_H

#include <stdbool.h>
#include <stdint.h>

#include "pool/base/omap.h"
#include "volumes/map_format.h"

/* Where a block is. For a hole segno is SEGNO_NONE. */
struct mapping {
	uint32_t segno, index, crc, birth;
};

#define OVERLAY_KEEP_BYTES (2ull << 20)
#define SEGNO_UNKNOWN (UINT32_MAX - 1)  /* in lookups: not found so far */

struct overlay {
	struct omap items;       /* first LBA -> struct mapping; a hole keeps its length in index and crc */
	uint64_t holes;          /* items that are holes */
};

void overlay_init(struct overlay *ov);
void overlay_release(struct overlay *ov);
/* Empties it for the next checkpoint's turn. Some memory is kept, so that steady writes of usual size allocate nothing. */
void overlay_clear(struct overlay *ov);

static inline bool mapping_is_hole(const struct mapping *m)
{
	return m->segno == SEGNO_NONE;
}

/* Length in blocks of the item. */
static inline uint64_t mapping_count(const struct mapping *m)
{
	return mapping_is_hole(m) ? (uint64_t)m->crc << 32 | m->index : 1;
}

/* 0 or -ENOMEM; on failure the block keeps its old mapping or none. */
int overlay_put_block(struct overlay *ov, uint64_t lba, const struct mapping *m) __attribute__((warn_unused_result));
int overlay_put_hole(struct overlay *ov, uint64_t lba, uint64_t count) __attribute__((warn_unused_result));

/* Fills those of res[0..n) (blocks lba..lba+n) that are SEGNO_UNKNOWN and known here; returns how many stay unknown. */
uint32_t overlay_lookup(const struct overlay *ov, uint64_t lba, uint32_t n, struct mapping *res);

#endif
