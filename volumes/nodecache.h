/* Cache of map nodes, one per loop, bounded. Nodes are immutable; a node is named by its place and its CRC32C, so an
 * entry can never be stale. Eviction is CLOCK; pinned entries stay. Loop thread only. */
#ifndef VOLUMES_NODECACHE_H
#define VOLUMES_NODECACHE_H

#include <stdbool.h>
#include <stdint.h>

#include "pool/runtime/fiber.h"
#include "volumes/map_format.h"

/* Pointer to a node. segno SEGNO_NONE: none. */
struct node_ptr {
	uint32_t segno, index, crc;
};

struct cache_entry {
	struct cache_entry *hash_next;
	uint64_t lineage;
	struct node_ptr ptr;
	uint32_t pins;
	bool recent;             /* CLOCK's bit */
	bool used;
	struct map_node *node;
};

struct nodecache {
	struct cache_entry *entries;
	struct cache_entry **hash;
	uint8_t **chunks;        /* node memory, allocated when first needed */
	uint32_t capacity, used, hand, hash_mask, chunk_count;
	uint64_t hits, misses;
};

/* capacity_bytes is rounded to nodes; at least NODECACHE_MIN_NODES. 0 or -ENOMEM. */
#define NODECACHE_MIN_NODES 64u
int nodecache_init(struct nodecache *cache, uint64_t capacity_bytes);
void nodecache_release(struct nodecache *cache);

/* Pinned entry or NULL. */
struct cache_entry *nodecache_get(struct nodecache *cache, uint64_t lineage, const struct node_ptr *ptr);
/* Takes a copy of the node; returns it pinned. NULL: everything is pinned, or no memory. */
struct cache_entry *nodecache_put(struct nodecache *cache, uint64_t lineage, const struct node_ptr *ptr, const void *node);
static inline void nodecache_unpin(struct cache_entry *e) { e->pins--; }
/* Drops all nodes of a lineage (none may be pinned). */
void nodecache_forget(struct nodecache *cache, uint64_t lineage);
/* Memory of nodes held now. */
uint64_t nodecache_bytes(const struct nodecache *cache);

#endif
