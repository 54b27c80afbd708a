/* Ordered map in memory from uint64_t to a fixed-size value: a B+tree with linked leaves.
 *
 * Used for the overlay of a volume's map (millions of entries, hot) and for the catalog's directory. Value pointers
 * handed out stay valid until the next put, del, clear or destroy. Memory comes in chunks. One owner thread. Insertion next
 * to the last insertion (sequential writes) does not descend from the root. */
#ifndef POOL_BASE_OMAP_H
#define POOL_BASE_OMAP_H

#include <stdbool.h>
#include <stdint.h>

struct omap_node;
struct omap_chunk;

struct omap {
	struct omap_node *root;
	struct omap_node *finger;  /* leaf of the last put: where the next one probably goes */
	struct omap_node *free;    /* nodes to use again */
	struct omap_chunk *chunks; /* memory of all nodes; released by omap_clear and omap_destroy */
	uint64_t count;
	uint64_t nodes;            /* free ones included */
	uint64_t mem_bytes;        /* memory held */
	uint32_t value_bytes;
	uint32_t height;
};

struct omap_iter {
	const struct omap *map;
	struct omap_node *leaf;
	uint32_t pos;
};

/* value_bytes: multiple of 4, at most 64. Allocates nothing. */
void omap_init(struct omap *map, uint32_t value_bytes);
/* Frees everything; the map is as after omap_init. */
void omap_destroy(struct omap *map);
/* Empties the map, keeping up to keep_bytes of its memory for what comes next. */
void omap_clear(struct omap *map, uint64_t keep_bytes);

void *omap_get(const struct omap *map, uint64_t key);
/* Inserts or replaces. 0 or -ENOMEM (map unchanged). */
int omap_put(struct omap *map, uint64_t key, const void *value) __attribute__((warn_unused_result));
bool omap_del(struct omap *map, uint64_t key);

/* Iterators: seek puts `it` on the smallest key >= key (false: none); seek_floor on the greatest key <= key. Any
 * change of the map ends the iterator's life. */
bool omap_seek(const struct omap *map, uint64_t key, struct omap_iter *it);
bool omap_seek_floor(const struct omap *map, uint64_t key, struct omap_iter *it);
bool omap_next(struct omap_iter *it);
uint64_t omap_key(const struct omap_iter *it);
void *omap_value(const struct omap_iter *it);

#endif
