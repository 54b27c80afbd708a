/* Reference counts: how many map nodes and images refer to a block of the lineage's log. The truth about what is live.
 *
 * Trees share nodes. A count says how often a block is referred to by nodes (a child of a shared node counts once) and, for
 * roots, by images. Copying a shared node raises the counts of what the copy refers to; a node that nobody refers to any
 * more gives back its own references. So images can go in any order, and a block is free exactly when nothing leads to it
 * (Rodeh, "B-trees, Shadowing, and Clones", ACM TOS 2008).
 *
 * Counts are kept in pages of REFS_PER_PAGE le16, page REFS_PER_PAGE * n of a segment after the other; a map of its own,
 * never shared, tells where the pages are (none: all zero). They change in checkpoints only: pages are read when needed,
 * written to the meta stream when there are too many and at the end, and named by the checkpoint's transaction. What
 * becomes live or dead is added to lseg->delta. Blocks of the pages and of their map are counted there too, but have no
 * counts of their own.
 *
 * Home loop; all that may wait is for fibers. Errors: -EIO a page cannot be read, or a count is wrong; -ENOMEM. After an
 * error refs_abandon, and the checkpoint begins anew. */
#ifndef VOLUMES_REFS_H
#define VOLUMES_REFS_H

#include <stdint.h>

#include "pool/base/list.h"
#include "volumes/nodecache.h"

#define REFS_PER_PAGE (BLOCK_BYTES / 2)

struct lineage;
struct layer;
struct map_root;
struct ref_page;

struct refs {
	struct volume_state *map;        /* page number -> where it is */
	struct layer *written;           /* pages of the checkpoint being made, not yet in the map's tree */
	struct list pages;               /* struct ref_page, in memory */
	uint32_t page_count;
};

int refs_init(struct lineage *lin);
void refs_release(struct lineage *lin);

/* One reference more (1) or less (-1). *left, if not NULL: how many there are now. Waits. */
int refs_change(struct lineage *lin, uint32_t segno, uint32_t index, int by, uint32_t *left);
/* How many there are. Waits. */
int refs_count(struct lineage *lin, uint32_t segno, uint32_t index, uint32_t *count);
/* Writes what has changed; the map's new tree is refs.map->new_root. Waits. */
int refs_settle(struct lineage *lin);
/* The checkpoint is durable, or has failed. */
void refs_install(struct lineage *lin);
void refs_abandon(struct lineage *lin);
/* Frees pages in memory beyond those that are kept between checkpoints; none has changed. */
void refs_trim(struct lineage *lin);
/* Frees what is in memory for a segment that goes. */
struct lseg;
void refs_forget(struct lineage *lin, struct lseg *lseg);

#endif
