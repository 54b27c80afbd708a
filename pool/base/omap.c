/* Ordered map: a B+tree whose leaves are a doubly linked list.
 *
 * Nodes. All nodes of a map have one size, so that one free list serves both kinds. Memory for them comes in chunks of as many
 * nodes as the map has already, up to CHUNK_NODES_MAX: a large map allocates rarely, a small one wastes little. A leaf holds up to LEAF_KEYS keys and,
 * behind the key array, their values. An inner node holds as many (key, child) pairs as fit into the same bytes; keys[i] is
 * the lowest key that may lie under child[i], keys[0] included. Whether a node is a leaf follows from its distance to the
 * root: all leaves lie at the same depth.
 *
 * Fences. Each leaf knows the range [low, high] of keys that belong to it, whether present or not. A put whose key lies
 * between the fences of the finger (the leaf of the last put) goes there without a descent.
 *
 * Growth. A full leaf at the right edge of the map is left full and a new one started (sequential fill wastes nothing). A
 * full node whose last insertion was just before this one belongs to a sequential stream between other keys: it is split
 * where the stream grows, so that the part before fills up to 7/8; that part gets at least 1/8. Otherwise it is split in
 * halves. The nodes a split may need are put on the free list before anything changes, so a failed put changes no key.
 *
 * Shrinking. A deletion that leaves a node under a quarter full merges it with a neighbour of the same parent when both
 * make at most 3/4 of a node, and otherwise shares their entries equally. Freed nodes wait on the free list for reuse.
 *
 * Always: an empty map has no root, other maps no empty node; an inner node has at least two children; neighbouring
 * leaves' fences meet (left->high + 1 == right->low) and cover all of uint64_t; keys ascend. omap_valid() checks it. */
#include "pool/base/omap.h"

#include <assert.h>
#include <errno.h>
#include <string.h>

#include "pool/base/mem.h"
#include "pool/base/omap_int.h"

#define LEAF_KEYS	 64 /* of 32, 48, 64 and 96 the fastest over 4 million entries, see tests/bench/omap.c */
#define HEIGHT_MAX	 16
#define NODE_ALIGN_BYTES 64
#define VALUE_BYTES_MAX	 64
#define CHUNK_NODES_MAX	 64

/* In front of the nodes of one allocation. */
struct omap_chunk {
	struct omap_chunk *next;
	uint32_t nodes;
} __attribute__((aligned(NODE_ALIGN_BYTES)));

struct omap_node {
	struct omap_node *next, *prev; /* leaves: neighbours; free nodes: next */
	uint64_t low, high;	       /* leaves: fences, both inclusive */
	uint32_t count;
	uint32_t grown; /* the place behind the last insertion */
	uint64_t keys[] __attribute__((aligned(8)));
};

/* The way from the root (depth 0) to a leaf (depth height - 1). */
struct path {
	struct omap_node *node[HEIGHT_MAX];
	uint32_t pos[HEIGHT_MAX]; /* inner: the child taken; leaf: the place of the key */
};

static uint32_t node_bytes(const struct omap *map)
{
	uint32_t bytes = sizeof(struct omap_node) + LEAF_KEYS * (sizeof(uint64_t) + map->value_bytes);

	return (bytes + NODE_ALIGN_BYTES - 1) / NODE_ALIGN_BYTES * NODE_ALIGN_BYTES;
}

/* Capacity in entries, and bytes of what stands beside a key. */
static uint32_t node_cap(const struct omap *map, bool leaf)
{
	if (leaf)
		return LEAF_KEYS;
	return LEAF_KEYS * (sizeof(uint64_t) + map->value_bytes) / (sizeof(uint64_t) + sizeof(struct omap_node *));
}

static uint32_t item_bytes(const struct omap *map, bool leaf)
{
	return leaf ? map->value_bytes : sizeof(struct omap_node *);
}

static char *node_items(const struct omap *map, const struct omap_node *node, bool leaf)
{
	return (char *)(node->keys + node_cap(map, leaf));
}

static void *leaf_value(const struct omap *map, const struct omap_node *leaf, uint32_t pos)
{
	return (char *)(leaf->keys + LEAF_KEYS) + (size_t)pos * map->value_bytes;
}

static struct omap_node *child_at(const struct omap *map, const struct omap_node *inner, uint32_t pos)
{
	return ((struct omap_node **)node_items(map, inner, false))[pos];
}

/* Number of keys < key. The loop has no branch on the data: its multiply becomes a mask. */
static uint32_t keys_below(const uint64_t *keys, uint32_t count, uint64_t key)
{
	const uint64_t *base = keys;

	while (count > 1) {
		uint32_t half = count / 2;

		base += (base[half - 1] < key) * half;
		count -= half;
	}
	return (uint32_t)(base - keys) + (count == 1 && *base < key);
}

/* The child of an inner node under which key belongs. */
static uint32_t child_pos(const struct omap_node *inner, uint64_t key)
{
	return key == UINT64_MAX ? inner->count - 1 : keys_below(inner->keys, inner->count, key + 1) - 1;
}

static void prefetch_keys(const struct omap_node *node, uint32_t count)
{
	const char *end = (const char *)(node->keys + count);

	for (const char *line = (const char *)node; line < end; line += 64)
		__builtin_prefetch(line);
}

static struct omap_node *find_leaf(const struct omap *map, uint64_t key)
{
	struct omap_node *node = map->root;

	for (uint32_t level = map->height; level > 1; level--) {
		node = child_at(map, node, child_pos(node, key));
		prefetch_keys(node, LEAF_KEYS);
	}
	return node;
}

static void find_path(const struct omap *map, uint64_t key, struct path *path)
{
	struct omap_node *node = map->root;
	uint32_t depth = 0;

	assert(map->height > 0 && map->height <= HEIGHT_MAX);
	for (; depth + 1 < map->height; depth++) {
		path->node[depth] = node;
		path->pos[depth] = child_pos(node, key);
		node = child_at(map, node, path->pos[depth]);
	}
	path->node[depth] = node;
	path->pos[depth] = keys_below(node->keys, node->count, key);
}

/* Nodes. */

static void node_release(struct omap *map, struct omap_node *node)
{
	node->next = map->free;
	map->free = node;
}

static size_t chunk_bytes(const struct omap *map, uint32_t nodes)
{
	return sizeof(struct omap_chunk) + (size_t)nodes * node_bytes(map);
}

/* All nodes of the chunk are free. */
static void chunk_link(struct omap *map, struct omap_chunk *chunk)
{
	chunk->next = map->chunks;
	map->chunks = chunk;
	map->nodes += chunk->nodes;
	map->mem_bytes += chunk_bytes(map, chunk->nodes);
	for (uint32_t i = chunk->nodes; i-- > 0;)
		node_release(map, (struct omap_node *)((char *)(chunk + 1) + (size_t)i * node_bytes(map)));
}

static int chunk_add(struct omap *map, uint32_t nodes)
{
	struct omap_chunk *chunk = mem_alloc_aligned(NODE_ALIGN_BYTES, chunk_bytes(map, nodes));

	if (!chunk)
		return -ENOMEM;
	chunk->nodes = nodes;
	chunk_link(map, chunk);
	return 0;
}

/* Puts at least `want` nodes on the free list. 0 or -ENOMEM. */
static int nodes_reserve(struct omap *map, uint32_t want)
{
	uint32_t nodes = map->nodes < CHUNK_NODES_MAX ? map->nodes : CHUNK_NODES_MAX;

	for (struct omap_node *node = map->free; node && want > 0; node = node->next)
		want--;
	if (want == 0)
		return 0;
	return chunk_add(map, want > nodes ? want : nodes);
}

/* From the reserve. */
static struct omap_node *node_take(struct omap *map)
{
	struct omap_node *node = map->free;

	assert(node);
	map->free = node->next;
	node->next = node->prev = NULL;
	node->count = node->grown = 0;
	return node;
}

/* Entries. `leaf` says what kind of node is meant. */

static void entry_insert(
    const struct omap *map, struct omap_node *node, bool leaf, uint32_t pos, uint64_t key, const void *item)
{
	size_t bytes = item_bytes(map, leaf);
	char *at = node_items(map, node, leaf) + pos * bytes;
	uint32_t after = node->count - pos;

	if (after > 0) {
		memmove(node->keys + pos + 1, node->keys + pos, after * sizeof(uint64_t));
		memmove(at + bytes, at, after * bytes);
	}
	node->keys[pos] = key;
	memcpy(at, item, bytes);
	node->count++;
	node->grown = pos + 1;
}

static void entry_remove(const struct omap *map, struct omap_node *node, bool leaf, uint32_t pos)
{
	size_t bytes = item_bytes(map, leaf);
	char *at = node_items(map, node, leaf) + pos * bytes;
	uint32_t after = --node->count - pos;

	memmove(node->keys + pos, node->keys + pos + 1, after * sizeof(uint64_t));
	memmove(at, at + bytes, after * bytes);
}

/* Moves the last n entries of left to the front of right. */
static void entries_to_right(
    const struct omap *map, struct omap_node *left, struct omap_node *right, bool leaf, uint32_t n)
{
	size_t bytes = item_bytes(map, leaf);
	char *from = node_items(map, left, leaf), *to = node_items(map, right, leaf);

	memmove(right->keys + n, right->keys, right->count * sizeof(uint64_t));
	memmove(to + n * bytes, to, right->count * bytes);
	left->count -= n;
	right->count += n;
	memcpy(right->keys, left->keys + left->count, n * sizeof(uint64_t));
	memcpy(to, from + left->count * bytes, n * bytes);
}

/* Moves the first n entries of right to the end of left. */
static void entries_to_left(
    const struct omap *map, struct omap_node *left, struct omap_node *right, bool leaf, uint32_t n)
{
	size_t bytes = item_bytes(map, leaf);
	char *to = node_items(map, left, leaf), *from = node_items(map, right, leaf);

	memcpy(left->keys + left->count, right->keys, n * sizeof(uint64_t));
	memcpy(to + left->count * bytes, from, n * bytes);
	left->count += n;
	right->count -= n;
	memmove(right->keys, right->keys + n, right->count * sizeof(uint64_t));
	memmove(from, from + n * bytes, right->count * bytes);
}

/* Growth. */

/* An eighth of an inner node, which a split may leave, must be two children or more. */
static_assert(LEAF_KEYS * (sizeof(uint64_t) + 4) / (2 * sizeof(uint64_t)) / 8 >= 2, "inner nodes are too small");

/* Nodes that a split of the path's leaf needs: one for each full node from the leaf up, and a new root if all are full. */
static uint32_t split_need(const struct omap *map, const struct path *path)
{
	uint32_t need = 1, depth = map->height - 1;

	while (depth > 0 && path->node[depth - 1]->count == node_cap(map, false)) {
		depth--;
		need++;
	}
	return depth == 0 ? need + 1 : need;
}

/* How many entries of a full node stay when it is split for an insertion at pos. */
static uint32_t split_keep(const struct omap_node *node, bool leaf, uint32_t pos)
{
	uint32_t least = node->count / 8, most = node->count - least;

	if (leaf && !node->next && pos == node->count)
		return node->count;
	if (pos != node->grown)
		return node->count / 2;
	return pos < least ? least : pos > most ? most : pos;
}

static void leaf_link_after(struct omap_node *left, struct omap_node *right)
{
	right->next = left->next;
	right->prev = left;
	if (right->next)
		right->next->prev = right;
	left->next = right;
	right->low = right->keys[0];
	right->high = left->high;
	left->high = right->low - 1;
}

/* Inserts into a full node by splitting it. Returns the new right part, which is never empty. */
static struct omap_node *node_split_insert(
    struct omap *map, struct omap_node *node, bool leaf, uint32_t pos, uint64_t key, const void *item)
{
	struct omap_node *right = node_take(map);
	uint32_t keep = split_keep(node, leaf, pos);

	entries_to_right(map, node, right, leaf, node->count - keep);
	if (pos <= keep && right->count > 0)
		entry_insert(map, node, leaf, pos, key, item);
	else
		entry_insert(map, right, leaf, pos - keep, key, item);
	if (leaf)
		leaf_link_after(node, right);
	return right;
}

static void root_grow(struct omap *map, uint64_t low_of_right, struct omap_node *right)
{
	struct omap_node *root = node_take(map), *left = map->root;

	entry_insert(map, root, false, 0, 0, &left);
	entry_insert(map, root, false, 1, low_of_right, &right);
	map->root = root;
	map->height++;
	assert(map->height <= HEIGHT_MAX);
}

/* Inserts a key that is not in the map into the path's full leaf. */
static void path_split_insert(struct omap *map, const struct path *path, uint64_t key, const void *value)
{
	uint32_t depth = map->height - 1;
	struct omap_node *right;

	right = node_split_insert(map, path->node[depth], true, path->pos[depth], key, value);
	while (depth-- > 0) {
		struct omap_node *parent = path->node[depth], *child = right;
		uint32_t pos = path->pos[depth] + 1;

		if (parent->count < node_cap(map, false)) {
			entry_insert(map, parent, false, pos, child->keys[0], &child);
			return;
		}
		right = node_split_insert(map, parent, false, pos, child->keys[0], &child);
	}
	root_grow(map, right->keys[0], right);
}

static int put_first(struct omap *map, uint64_t key, const void *value)
{
	int ret = nodes_reserve(map, 1);

	if (ret)
		return ret;
	map->root = map->finger = node_take(map);
	map->root->low = 0;
	map->root->high = UINT64_MAX;
	map->height = 1;
	map->count = 1;
	entry_insert(map, map->root, true, 0, key, value);
	return 0;
}

/* The slow form of put: the leaf that key belongs to is full. */
static int put_split(struct omap *map, struct omap_node *leaf, uint64_t key, const void *value)
{
	struct path path;
	int ret;

	find_path(map, key, &path);
	ret = nodes_reserve(map, split_need(map, &path));
	if (ret)
		return ret;
	path_split_insert(map, &path, key, value);
	map->count++;
	map->finger = key > leaf->high ? leaf->next : leaf;
	return 0;
}

/* Shrinking. */

static void leaf_unlink(struct omap *map, struct omap_node *leaf)
{
	leaf->prev->high = leaf->high;
	leaf->prev->next = leaf->next;
	if (leaf->next)
		leaf->next->prev = leaf->prev;
	if (map->finger == leaf)
		map->finger = leaf->prev;
}

/* Joins the children at and at + 1 of parent: all in one, or half in each. Returns whether parent lost a child. */
static bool children_join(struct omap *map, struct omap_node *parent, uint32_t at, bool leaf)
{
	struct omap_node *left = child_at(map, parent, at), *right = child_at(map, parent, at + 1);
	uint32_t sum = left->count + right->count, cap = node_cap(map, leaf);

	if (sum <= cap - cap / 4) {
		entries_to_left(map, left, right, leaf, right->count);
		if (leaf)
			leaf_unlink(map, right);
		entry_remove(map, parent, false, at + 1);
		node_release(map, right);
		return true;
	}
	if (left->count > sum / 2)
		entries_to_right(map, left, right, leaf, left->count - sum / 2);
	else
		entries_to_left(map, left, right, leaf, sum / 2 - left->count);
	parent->keys[at + 1] = right->keys[0];
	if (leaf) {
		right->low = right->keys[0];
		left->high = right->low - 1;
	}
	return false;
}

/* An inner root with one child gives way to it, an empty root leaf to nothing. */
static void root_shrink(struct omap *map)
{
	struct omap_node *root = map->root;

	if (root->count > (map->height > 1))
		return;
	map->root = map->height > 1 ? child_at(map, root, 0) : NULL;
	map->height--;
	if (!map->root)
		map->finger = NULL;
	node_release(map, root);
}

/* Restores the fill of the nodes on the way to key, from the leaf up. */
static void path_shrink(struct omap *map, uint64_t key)
{
	struct path path;

	find_path(map, key, &path);
	for (uint32_t depth = map->height - 1; depth > 0; depth--) {
		bool leaf = depth == map->height - 1;
		uint32_t at = path.pos[depth - 1];

		if (path.node[depth]->count >= node_cap(map, leaf) / 4)
			return;
		if (!children_join(map, path.node[depth - 1], at > 0 ? at - 1 : 0, leaf))
			return;
	}
	root_shrink(map);
}

/* The public face. */

void omap_init(struct omap *map, uint32_t value_bytes)
{
	assert(value_bytes > 0 && value_bytes % 4 == 0 && value_bytes <= VALUE_BYTES_MAX);
	*map = (struct omap){ .value_bytes = value_bytes };
}

void omap_clear(struct omap *map, uint64_t keep_bytes)
{
	struct omap_chunk *chunk = map->chunks, *next;

	omap_init(map, map->value_bytes);
	for (; chunk; chunk = next) {
		next = chunk->next;
		if (map->mem_bytes + chunk_bytes(map, chunk->nodes) <= keep_bytes)
			chunk_link(map, chunk);
		else
			mem_free(chunk);
	}
}

void omap_destroy(struct omap *map)
{
	omap_clear(map, 0);
}

void *omap_get(const struct omap *map, uint64_t key)
{
	struct omap_node *leaf = find_leaf(map, key);
	uint32_t pos;

	if (!leaf)
		return NULL;
	pos = keys_below(leaf->keys, leaf->count, key);
	return pos < leaf->count && leaf->keys[pos] == key ? leaf_value(map, leaf, pos) : NULL;
}

int omap_put(struct omap *map, uint64_t key, const void *value)
{
	struct omap_node *leaf = map->finger;
	uint32_t pos;

	if (!leaf || key < leaf->low || key > leaf->high)
		leaf = find_leaf(map, key);
	if (!leaf)
		return put_first(map, key, value);
	pos = keys_below(leaf->keys, leaf->count, key);
	if (pos < leaf->count && leaf->keys[pos] == key) {
		memcpy(leaf_value(map, leaf, pos), value, map->value_bytes);
	} else if (leaf->count < LEAF_KEYS) {
		entry_insert(map, leaf, true, pos, key, value);
		map->count++;
	} else {
		return put_split(map, leaf, key, value);
	}
	map->finger = leaf;
	return 0;
}

bool omap_del(struct omap *map, uint64_t key)
{
	struct omap_node *leaf = find_leaf(map, key);
	uint32_t pos;

	if (!leaf)
		return false;
	pos = keys_below(leaf->keys, leaf->count, key);
	if (pos == leaf->count || leaf->keys[pos] != key)
		return false;
	entry_remove(map, leaf, true, pos);
	map->count--;
	if (leaf->count < LEAF_KEYS / 4)
		path_shrink(map, key);
	return true;
}

bool omap_seek(const struct omap *map, uint64_t key, struct omap_iter *it)
{
	struct omap_node *leaf = find_leaf(map, key);

	*it = (struct omap_iter){ .map = map, .leaf = leaf };
	if (!leaf)
		return false;
	it->pos = keys_below(leaf->keys, leaf->count, key);
	if (it->pos == leaf->count) {
		it->leaf = leaf->next;
		it->pos = 0;
	}
	return it->leaf != NULL;
}

bool omap_seek_floor(const struct omap *map, uint64_t key, struct omap_iter *it)
{
	struct omap_node *leaf = find_leaf(map, key);

	*it = (struct omap_iter){ .map = map, .leaf = leaf };
	if (!leaf)
		return false;
	it->pos = keys_below(leaf->keys, leaf->count, key);
	if (it->pos < leaf->count && leaf->keys[it->pos] == key)
		return true;
	if (it->pos == 0) {
		it->leaf = leaf = leaf->prev;
		it->pos = leaf ? leaf->count : 0;
	}
	it->pos -= leaf != NULL;
	return leaf != NULL;
}

bool omap_next(struct omap_iter *it)
{
	if (!it->leaf)
		return false;
	if (++it->pos == it->leaf->count) {
		it->leaf = it->leaf->next;
		it->pos = 0;
	}
	return it->leaf != NULL;
}

uint64_t omap_key(const struct omap_iter *it)
{
	return it->leaf->keys[it->pos];
}

void *omap_value(const struct omap_iter *it)
{
	return leaf_value(it->map, it->leaf, it->pos);
}

/* The check. */

struct check {
	const struct omap *map;
	struct omap_node *prev; /* leaf before */
	uint64_t keys;		/* counted so far */
};

static bool leaf_valid(struct check *check, struct omap_node *leaf, uint64_t low)
{
	uint64_t follows = check->prev ? check->prev->high + 1 : 0;

	if (leaf->prev != check->prev || (check->prev && check->prev->next != leaf))
		return false;
	if (leaf->low != low || low != follows || leaf->count == 0 || leaf->count > LEAF_KEYS)
		return false;
	if (leaf->keys[0] < leaf->low || leaf->keys[leaf->count - 1] > leaf->high)
		return false;
	for (uint32_t i = 1; i < leaf->count; i++) {
		if (leaf->keys[i - 1] >= leaf->keys[i])
			return false;
	}
	check->prev = leaf;
	check->keys += leaf->count;
	return true;
}

static bool tree_valid(struct check *check, struct omap_node *node, uint32_t level, uint64_t low)
{
	if (level == 1)
		return leaf_valid(check, node, low);
	if (node->count < 2 || node->count > node_cap(check->map, false) || node->keys[0] != low)
		return false;
	for (uint32_t i = 0; i < node->count; i++) {
		if (!tree_valid(check, child_at(check->map, node, i), level - 1, node->keys[i]))
			return false;
	}
	return true;
}

bool omap_valid(const struct omap *map)
{
	struct check check = { .map = map };

	if (!map->root)
		return map->count == 0 && map->height == 0 && !map->finger;
	if (!tree_valid(&check, map->root, map->height, 0))
		return false;
	return check.keys == map->count && check.prev->high == UINT64_MAX && !check.prev->next;
}
