/* The place table: where the blocks of segments that the cleaner has moved are now.
 *
 * A segment's number is the name of its blocks for ever; maps never change when blocks move. A segment that has been moved
 * has no zones of its own any more; what was live in it lies in host segments (stream MOVE), and the place blocks of its
 * parts tell where (place_format.h). A map of its own, never shared, finds the place blocks in the meta stream (none:
 * nothing of the part is live).
 *
 * It changes in checkpoints only. What a checkpoint has moved is found at its old place until places_switch: by then the
 * checkpoint is durable and no reader of the maps before it is left, so that nobody looks for what was not worth moving.
 *
 * Place blocks are read when first needed. At most PLACES_MAX are in memory, and what the checkpoint being made changes.
 *
 * Home loop. Errors: -EIO a place block cannot be read, or says nothing about the block; -ENOMEM. */
#ifndef VOLUMES_PLACES_H
#define VOLUMES_PLACES_H

#include <stdbool.h>
#include <stdint.h>

#include "pool/base/list.h"
#include "volumes/place_format.h"

struct lineage;
struct lseg;
struct layer;

struct places {
	struct volume_state *map;        /* segno * parts + part -> place block */
	struct layer *written;           /* place blocks of the checkpoint being made, not yet in the map's tree */
	struct list cached;              /* struct place, in memory; CLOCK */
	struct list changed;             /* those that the checkpoint being made changes */
	uint32_t count;                  /* of both */
	uint64_t switches;               /* what was being read meanwhile may be old */
};

int places_init(struct lineage *lin);
void places_release(struct lineage *lin);
/* The segment goes. */
void places_forget(struct lineage *lin, struct lseg *lseg);

/* From the name of a block to its place: *segno becomes that of a segment with zones. -EAGAIN: the place block is not in
 * memory; with `wait` (fiber only) it is read. */
int places_locate(struct lineage *lin, uint32_t *segno, uint32_t *index, bool wait) __attribute__((warn_unused_result));

/* --- in a checkpoint; fiber --- */

/* The place block of a part as it is now, valid until the next wait. Waits. */
int places_look(struct lineage *lin, struct lseg *lseg, uint32_t part, const struct place_block **out);
/* The same, to be changed; valid until the checkpoint ends or places_drop. A segment that is being moved begins with an empty
 * one. Waits. */
int places_edit(struct lineage *lin, struct lseg *lseg, uint32_t part, struct place_block **out);
/* The segment is not moved after all. */
void places_drop(struct lineage *lin, struct lseg *lseg);
/* Writes what has changed; the map's new tree is places.map->new_root. Waits. */
int places_settle(struct lineage *lin);
/* The checkpoint is durable, or has failed. */
void places_install(struct lineage *lin);
void places_abandon(struct lineage *lin);
/* From here on blocks are found where the last checkpoint has moved them. False: it has moved none. */
bool places_switch(struct lineage *lin);

#endif
