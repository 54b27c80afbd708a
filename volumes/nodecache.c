/* A fixed table of entries with chained hashing and a CLOCK hand. Node memory comes in chunks of CHUNK_NODES so that a
 * cache that is never filled costs little, and its limit is never exceeded. */
#include "volumes/nodecache.h"

#include <errno.h>
#include <string.h>

#include "pool/base/mem.h"

#define CHUNK_NODES 64u

int nodecache_init(struct nodecache *cache, uint64_t capacity_bytes)
{
	uint64_t nodes = capacity_bytes / BLOCK_BYTES;
	uint32_t buckets = 1;

	if (nodes < NODECACHE_MIN_NODES)
		nodes = NODECACHE_MIN_NODES;
	if (nodes > 1u << 28)
		nodes = 1u << 28;
	while (buckets < nodes)
		buckets *= 2;
	*cache = (struct nodecache){ .capacity = (uint32_t)nodes, .hash_mask = buckets - 1 };
	cache->chunk_count = (cache->capacity + CHUNK_NODES - 1) / CHUNK_NODES;
	cache->entries = mem_zalloc(nodes * sizeof(*cache->entries));
	cache->hash = mem_zalloc(buckets * sizeof(struct cache_entry *));
	cache->chunks = mem_zalloc(cache->chunk_count * sizeof(uint8_t *));
	if (cache->entries && cache->hash && cache->chunks)
		return 0;
	nodecache_release(cache);
	return -ENOMEM;
}

void nodecache_release(struct nodecache *cache)
{
	for (uint32_t i = 0; cache->chunks && i < cache->chunk_count; i++)
		mem_free(cache->chunks[i]);
	mem_free(cache->chunks);
	mem_free(cache->hash);
	mem_free(cache->entries);
	*cache = (struct nodecache){ 0 };
}

static struct cache_entry **bucket_of(const struct nodecache *cache, uint64_t lineage, const struct node_ptr *ptr)
{
	uint64_t h = lineage * 0x9e3779b97f4a7c15ull ^ ((uint64_t)ptr->segno << 32 | ptr->index);

	h *= 0xff51afd7ed558ccdull;
	return &cache->hash[(h >> 32) & cache->hash_mask];
}

static bool same_ptr(const struct node_ptr *a, const struct node_ptr *b)
{
	return a->segno == b->segno && a->index == b->index && a->crc == b->crc;
}

static struct cache_entry *find(const struct nodecache *cache, uint64_t lineage, const struct node_ptr *ptr)
{
	struct cache_entry *e = *bucket_of(cache, lineage, ptr);

	while (e && !(e->lineage == lineage && same_ptr(&e->ptr, ptr)))
		e = e->hash_next;
	return e;
}

struct cache_entry *nodecache_get(struct nodecache *cache, uint64_t lineage, const struct node_ptr *ptr)
{
	struct cache_entry *e = find(cache, lineage, ptr);

	if (!e) {
		cache->misses++;
		return NULL;
	}
	cache->hits++;
	e->recent = true;
	e->pins++;
	return e;
}

static void unhash(struct nodecache *cache, struct cache_entry *e)
{
	struct cache_entry **at = bucket_of(cache, e->lineage, &e->ptr);

	while (*at != e)
		at = &(*at)->hash_next;
	*at = e->hash_next;
	e->used = false;
}

/* An unused entry, evicting if the table is full; NULL if all are pinned. */
static struct cache_entry *take_entry(struct nodecache *cache)
{
	if (cache->used < cache->capacity)
		return &cache->entries[cache->used++];
	for (uint32_t tries = 0; tries < 2 * cache->capacity; tries++) {
		struct cache_entry *e = &cache->entries[cache->hand];

		cache->hand = (cache->hand + 1) % cache->capacity;
		if (e->pins > 0)
			continue;
		if (e->used && e->recent) {
			e->recent = false;
			continue;
		}
		if (e->used)
			unhash(cache, e);
		return e;
	}
	return NULL;
}

static struct map_node *node_memory(struct nodecache *cache, const struct cache_entry *e)
{
	uint32_t i = (uint32_t)(e - cache->entries);
	uint8_t **chunk = &cache->chunks[i / CHUNK_NODES];

	if (!*chunk)
		*chunk = mem_alloc_aligned(BLOCK_BYTES, CHUNK_NODES * BLOCK_BYTES);
	return *chunk ? (struct map_node *)(*chunk + (size_t)(i % CHUNK_NODES) * BLOCK_BYTES) : NULL;
}

struct cache_entry *nodecache_put(struct nodecache *cache, uint64_t lineage, const struct node_ptr *ptr, const void *node)
{
	struct cache_entry *e = find(cache, lineage, ptr);

	if (e) {
		e->pins++;
		return e;
	}
	e = take_entry(cache);
	if (!e)
		return NULL;
	e->node = node_memory(cache, e);
	if (!e->node)
		return NULL;             /* stays unused; CLOCK finds it again */
	memcpy(e->node, node, BLOCK_BYTES);
	e->lineage = lineage;
	e->ptr = *ptr;
	e->pins = 1;
	e->recent = true;
	e->used = true;
	e->hash_next = *bucket_of(cache, lineage, ptr);
	*bucket_of(cache, lineage, ptr) = e;
	return e;
}

void nodecache_forget(struct nodecache *cache, uint64_t lineage)
{
	for (uint32_t i = 0; i < cache->used; i++) {
		struct cache_entry *e = &cache->entries[i];

		if (e->used && e->lineage == lineage)
			unhash(cache, e);
	}
}

uint64_t nodecache_bytes(const struct nodecache *cache)
{
	return (uint64_t)cache->used * BLOCK_BYTES;
}
