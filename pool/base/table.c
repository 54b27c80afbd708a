/* Intrusive hash table with chains: see table.h. Buckets are doubled when there is more than one node a bucket. */
#include "pool/base/table.h"

#include <assert.h>

#include "pool/base/mem.h"

#define BUCKETS_MIN 16u

void table_init(struct table *table)
{
	*table = (struct table){ .bucket = &table->first };
	list_init(&table->first);
}

void table_release(struct table *table)
{
	assert(table->count == 0);
	if (table->bucket != &table->first)
		mem_free(table->bucket);
}

void table_node_init(struct table_node *node)
{
	list_init(&node->node);
}

static void grow(struct table *table)
{
	uint64_t old = table->mask + 1, buckets = old < BUCKETS_MIN ? BUCKETS_MIN : 2 * old;
	struct table bigger = { .bucket = mem_alloc(buckets * sizeof(struct list)), .mask = buckets - 1 };

	if (!bigger.bucket)
		return;
	for (uint64_t i = 0; i < buckets; i++)
		list_init(&bigger.bucket[i]);
	for (uint64_t i = 0; i < old; i++) {
		struct list *node;

		while ((node = list_pop_front(&table->bucket[i])))
			list_push_back(table_bucket(&bigger, container_of(node, struct table_node, node)->hash), node);
	}
	if (table->bucket != &table->first)
		mem_free(table->bucket);
	table->bucket = bigger.bucket;
	table->mask = bigger.mask;
}

void table_add(struct table *table, struct table_node *node, uint64_t hash)
{
	if (table->count > table->mask)
		grow(table);
	node->hash = hash;
	list_push_back(table_bucket(table, hash), &node->node);
	table->count++;
}

void table_del(struct table *table, struct table_node *node)
{
	if (list_empty(&node->node))
		return;
	list_del(&node->node);
	table->count--;
}
