/* Intrusive hash table. Whoever looks walks the nodes of a bucket and knows its own by their content.
 *
 *     table_for_bucket(node, &names, hash)
 *             if (strcmp(list_entry(node, struct thing, named)->name, name) == 0) ...
 *
 * It grows as it fills; without memory for that it only becomes slower, so adding never fails. Not thread safe: one owner. */
#ifndef POOL_BASE_TABLE_H
#define POOL_BASE_TABLE_H

#include <stdint.h>

#include "pool/base/list.h"

struct table_node {
	struct list node;                /* of a bucket; self-linked: in no table */
	uint64_t hash;
};

struct table {
	struct list *bucket;             /* `mask` + 1 of them */
	uint64_t mask;
	uint64_t count;
	struct list first;               /* the only bucket while there is little */
};

/* A table stays where it is. */
void table_init(struct table *table);
/* Must be empty. */
void table_release(struct table *table);
void table_node_init(struct table_node *node);
void table_add(struct table *table, struct table_node *node, uint64_t hash);
/* A node that is in no table stays so. */
void table_del(struct table *table, struct table_node *node);

/* A hash of a number in which every bit counts. */
static inline uint64_t table_hash(uint64_t key)
{
	key ^= key >> 32;
	key *= 0x9e3779b97f4a7c15ull;
	return key ^ key >> 29;
}

static inline struct list *table_bucket(const struct table *table, uint64_t hash)
{
	return &table->bucket[hash & table->mask];
}

#define table_for_bucket(name, table, hash) list_for_each(name, table_bucket(table, hash))
#define table_entry(ptr, type, member) container_of(container_of(ptr, struct table_node, node), type, member)

#endif
