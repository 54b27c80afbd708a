/* The map: per volume a copy-on-write B+tree of immutable nodes in the meta stream, with the overlay on top.
 *
 * Look-up descends through the node cache. Merge takes a frozen overlay, in order of LBA, through the tree:
 *
 *     merge_child: a subtree that no item touches is passed up as it is;
 *                  a leaf is merged entry by entry with the items; an inner node is merged child by child
 *     emit:        entries of each level gather in a builder, which writes them out as full nodes
 *
 * so every node that changes is read once and written once, and all new nodes are at least a quarter full: where a
 * builder is left with fewer entries, it goes on with the next sibling although no item touches that one.
 *
 * References are counted here and only here (refs.h). A node that is visited and has no other reference dies, and what it
 * refers to is passed on to the new node or dropped. One that has others, or is reached through such a node, lives on: its
 * copy takes references of its own. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "pool/base/crc32c.h"
#include "pool/base/mem.h"
#include "volumes/lineage.h"

#define NODE_MIN (MAP_FANOUT / 4)

/* --- nodes ------------------------------------------------------------------------------------------------ */

/* What the parent (or the volume's record) says about a node. */
struct node_want {
	struct node_ptr ptr;
	uint32_t level;
	uint64_t lo, hi;         /* keys are in [lo, hi) */
};

static bool node_valid(const struct map_node *node, const struct lineage *lin, const struct node_want *want)
{
	uint32_t count = le16_get(node->count);
	uint64_t at = want->lo;

	if (le32_get(node->magic) != MAP_MAGIC || le64_get(node->lineage) != lin->id)
		return false;
	if (le16_get(node->level) != want->level || count == 0 || count > MAP_FANOUT)
		return false;
	for (uint32_t i = 0; i < count; i++) {
		uint64_t key = le64_get(node->entry[i].key);

		if (key < at || key >= want->hi)
			return false;
		at = key + 1;
	}
	return true;
}

int meta_read(struct lineage *lin, const struct node_ptr *ptr, void *buf)
{
	struct lseg *lseg = lseg_get(lin, ptr->segno);
	const uint8_t *unwritten;

	if (!lseg || !lseg_has_zones(lseg) || ptr->index >= lin->segment_blocks)
		return -EIO;
	unwritten = log_find_unwritten(lin, lseg, ptr->index);
	if (unwritten) {
		memcpy(buf, unwritten, BLOCK_BYTES);
		return 0;
	}
	return scan_read_block(lin, lseg, ptr->index, ptr->crc, buf) < 0 ? -EIO : 0;
}

/* The maps of the counts and of the place blocks: never shared, without counts themselves, and never moved but rewritten. */
static bool is_uncounted(const struct volume_state *vol)
{
	return vol == vol->lin->refs.map || vol == vol->lin->places.map;
}

static int node_load(struct volume_state *vol, const struct node_want *want, struct cache_entry **out)
{
	struct lineage *lin = vol->lin;
	void *buf = mem_alloc_aligned(BLOCK_BYTES, BLOCK_BYTES);
	struct node_ptr at = want->ptr;
	int rc = buf ? 0 : -ENOMEM;

	if (rc == 0 && !is_uncounted(vol))
		rc = places_locate(lin, &at.segno, &at.index, true);
	if (rc == 0)
		rc = meta_read(lin, &at, buf);
	if (rc == 0 && !node_valid(buf, lin, want))
		rc = -EIO;
	if (rc == 0) {
		*out = nodecache_put(&lin->vl->cache, lin->id, &want->ptr, buf);
		if (!*out)
			rc = -ENOMEM;
	}
	mem_free(buf);
	return rc;
}

/* Pinned node; -EAGAIN if it is not cached and we must not wait. */
static int node_get(struct volume_state *vol, const struct node_want *want, bool wait, struct cache_entry **out)
{
	*out = nodecache_get(&vol->lin->vl->cache, vol->lin->id, &want->ptr);
	if (*out)
		return 0;
	return wait ? node_load(vol, want, out) : -EAGAIN;
}

/* Number of entries with key <= lba. Keys ascend, so between two of them are at most as many entries as they are apart: in a leaf
 * that maps every block of its range, which random access finds in no cache, there is nothing left to be searched. */
static uint32_t entries_upto(const struct map_node *node, uint64_t lba)
{
	uint32_t count = le16_get(node->count), lo = 0, hi = count;
	uint64_t first = le64_get(node->entry[0].key), last = le64_get(node->entry[count - 1].key);

	if (lba < first)
		return 0;
	if (lba >= last)
		return count;
	if (lba - first < count)
		hi = (uint32_t)(lba - first) + 1;
	if (last - lba < count)
		lo = count - (uint32_t)(last - lba);
	while (lo < hi) {
		uint32_t mid = (lo + hi) / 2;

		if (le64_get(node->entry[mid].key) <= lba)
			lo = mid + 1;
		else
			hi = mid;
	}
	return lo;
}

static struct node_ptr entry_ptr(const struct map_entry *e)
{
	return (struct node_ptr){ le32_get(e->segno), le32_get(e->index), le32_get(e->crc) };
}

/* The child that covers lba, narrowed to its range. Key 0 of a node also stands for what is below it. */
static struct node_want child_want(const struct map_node *node, const struct node_want *parent, uint32_t i)
{
	struct node_want want = { .ptr = entry_ptr(&node->entry[i]), .level = parent->level - 1, .lo = parent->lo,
				  .hi = parent->hi };

	if (i > 0)
		want.lo = le64_get(node->entry[i].key);
	if (i + 1 < le16_get(node->count))
		want.hi = le64_get(node->entry[i + 1].key);
	return want;
}

static struct node_want root_want(const struct map_root *root)
{
	return (struct node_want){ .ptr = root->ptr, .level = root->height - 1, .lo = 0, .hi = BATCH_LBA_MAX };
}

/* --- look-up ---------------------------------------------------------------------------------------------- */

/* The leaf that covers lba, pinned, with its range in *want. */
static int find_leaf(struct volume_state *vol, const struct map_root *root, uint64_t lba, bool wait,
		     struct node_want *want, struct cache_entry **out)
{
	*want = root_want(root);
	for (;;) {
		uint32_t i;
		int rc = node_get(vol, want, wait, out);

		if (rc < 0 || want->level == 0)
			return rc;
		i = entries_upto((*out)->node, lba);
		*want = child_want((*out)->node, want, i > 0 ? i - 1 : 0);
		nodecache_unpin(*out);
	}
}

static void take_from_leaf(const struct map_node *leaf, uint64_t leaf_hi, uint64_t lba, uint32_t n, struct mapping *res)
{
	uint32_t at = entries_upto(leaf, lba), count = le16_get(leaf->count);

	if (at > 0 && le64_get(leaf->entry[at - 1].key) == lba)
		at--;
	for (uint32_t i = 0; i < n && lba + i < leaf_hi; i++) {
		const struct map_entry *e = &leaf->entry[at];
		bool here = at < count && le64_get(e->key) == lba + i;

		if (res[i].segno == SEGNO_UNKNOWN) {
			if (here)
				res[i] = (struct mapping){ le32_get(e->segno), le32_get(e->index), le32_get(e->crc),
							   le32_get(e->birth) };
			else
				res[i] = (struct mapping){ .segno = SEGNO_NONE, .index = 1 };
		}
		at += here;
	}
}

int map_lookup(struct volume_state *vol, uint64_t lba, uint32_t n, struct mapping *res, bool wait)
{
	struct map_root root = vol->root; /* may change while we wait; its nodes stay until their readers are gone */
	uint32_t i = 0;

	while (i < n) {
		struct node_want want = { .hi = BATCH_LBA_MAX };
		struct cache_entry *leaf = NULL;

		if (res[i].segno != SEGNO_UNKNOWN) {
			i++;
			continue;
		}
		if (root.height > 0) {
			int rc = find_leaf(vol, &root, lba + i, wait, &want, &leaf);

			if (rc < 0)
				return rc;
			take_from_leaf(leaf->node, want.hi, lba + i, n - i, res + i);
			nodecache_unpin(leaf);
		} else {
			res[i] = (struct mapping){ .segno = SEGNO_NONE, .index = 1 };
		}
	}
	return 0;
}

/* How many blocks from lba on, up to the end of the leaf's range, are mapped as lba is. */
static uint64_t run_in_leaf(const struct map_node *leaf, uint64_t leaf_hi, uint64_t lba, bool *mapped)
{
	uint32_t at = entries_upto(leaf, lba), count = le16_get(leaf->count);
	uint64_t end = lba + 1;

	*mapped = at > 0 && le64_get(leaf->entry[at - 1].key) == lba;
	if (!*mapped)
		return (at < count ? le64_get(leaf->entry[at].key) : leaf_hi) - lba;
	for (; at < count && le64_get(leaf->entry[at].key) == end; at++)
		end++;
	return end - lba;
}

int map_run(struct volume_state *vol, uint64_t lba, uint64_t max, bool *mapped, uint64_t *blocks)
{
	struct map_root root = vol->root; /* as in map_lookup */
	struct node_want want;
	struct cache_entry *leaf;
	int rc;

	*mapped = false;
	*blocks = max;
	if (root.height == 0)
		return 0;
	rc = find_leaf(vol, &root, lba, true, &want, &leaf);
	if (rc < 0)
		return rc;
	*blocks = run_in_leaf(leaf->node, want.hi, lba, mapped);
	nodecache_unpin(leaf);
	if (*blocks > max)
		*blocks = max;
	return 0;
}

/* --- difference ----------------------------------------------------------------------------------------------- */

static bool same_node(const struct node_ptr *a, const struct node_ptr *b)
{
	return a->segno == b->segno && a->index == b->index && a->crc == b->crc;
}

/* One way down two trees at once: the nodes that cover lba, which leads as far as they are different. */
struct pair {
	struct volume_state *vol;
	uint64_t lba;
	struct node_want want[2];
	bool empty[2];                   /* the tree has no nodes */
};

/* Goes down one level on the side that is higher, or on both. */
static int pair_descend(struct pair *p)
{
	uint32_t level[2] = { p->empty[0] ? 0 : p->want[0].level, p->empty[1] ? 0 : p->want[1].level };

	for (int side = 0; side < 2; side++) {
		struct cache_entry *e;
		uint32_t i;
		int rc;

		if (level[side] == 0 || level[side] < level[!side])
			continue;
		rc = node_get(p->vol, &p->want[side], true, &e);
		if (rc < 0)
			return rc;
		i = entries_upto(e->node, p->lba);
		p->want[side] = child_want(e->node, &p->want[side], i > 0 ? i - 1 : 0);
		nodecache_unpin(e);
	}
	return 0;
}

/* Where the leaf that covers the pair's lba maps [lba, lba + n). */
static int pair_leaf(struct pair *p, int side, uint32_t n, struct mapping *res)
{
	struct cache_entry *e;
	int rc = 0;

	for (uint32_t i = 0; i < n; i++)
		res[i] = (struct mapping){ .segno = p->empty[side] ? SEGNO_NONE : SEGNO_UNKNOWN };
	if (!p->empty[side])
		rc = node_get(p->vol, &p->want[side], true, &e);
	if (rc < 0 || p->empty[side])
		return rc;
	take_from_leaf(e->node, p->want[side].hi, p->lba, n, res);
	nodecache_unpin(e);
	return 0;
}

static bool same_place(const struct mapping *a, const struct mapping *b)
{
	return a->segno == b->segno && (mapping_is_hole(a) || a->index == b->index);
}

/* Two different leaves: block by block. */
static int pair_compare(struct pair *p, uint64_t max, bool *same, uint64_t *blocks)
{
	struct mapping map[2][64];
	uint32_t n = max < 64 ? (uint32_t)max : 64;
	int rc = pair_leaf(p, 0, n, map[0]);

	if (rc == 0)
		rc = pair_leaf(p, 1, n, map[1]);
	if (rc < 0)
		return rc;
	*same = same_place(&map[0][0], &map[1][0]);
	for (*blocks = 1; *blocks < n && same_place(&map[0][*blocks], &map[1][*blocks]) == *same;)
		++*blocks;
	return 0;
}

static uint64_t pair_end(const struct pair *p)
{
	uint64_t end[2] = { p->empty[0] ? BATCH_LBA_MAX : p->want[0].hi, p->empty[1] ? BATCH_LBA_MAX : p->want[1].hi };

	return end[0] < end[1] ? end[0] : end[1];
}

int map_same_run(struct volume_state *vol, const struct volume_state *other, uint64_t lba, uint64_t max, bool *same,
		 uint64_t *blocks)
{
	struct pair p = { .vol = vol, .lba = lba, .want = { root_want(&vol->root), root_want(&other->root) },
			  .empty = { vol->root.height == 0, other->root.height == 0 } };

	*same = true;
	*blocks = max;
	if (p.empty[0] && p.empty[1])
		return 0;
	for (;;) {
		bool leaves = (p.empty[0] || p.want[0].level == 0) && (p.empty[1] || p.want[1].level == 0);
		uint64_t left;
		int rc;

		left = pair_end(&p) - lba < max ? pair_end(&p) - lba : max;
		if (!p.empty[0] && !p.empty[1] && same_node(&p.want[0].ptr, &p.want[1].ptr)) {
			*blocks = left;
			return 0;
		}
		rc = leaves ? pair_compare(&p, left, same, blocks) : pair_descend(&p);
		if (rc < 0 || leaves)
			return rc;
	}
}

/* --- merge: building ---------------------------------------------------------------------------------------- */

struct builder_level {
	struct map_node node;            /* being written */
	uint32_t count;
	struct map_entry entry[2 * MAP_FANOUT];
};

struct merge {
	struct volume_state *vol;
	bool uncounted;
	bool drop_shared;                /* the image goes: what it shares need not be looked into */
	const uint64_t *touch, *touch_end; /* keys to be touched, ascending */
	struct omap_iter item;           /* next overlay item not yet merged whole */
	bool more;
	int64_t mapped;                  /* blocks mapped minus blocks unmapped */
	uint32_t reads;                  /* nodes since the last yield */
	struct builder_level level[MAP_LEVELS_MAX];
};

/* One reference more or less to a block or node. *left: how many there are then. */
static int count_ref(struct merge *mg, uint32_t segno, uint32_t index, int by, uint32_t *left)
{
	struct lseg *lseg;

	if (!mg->uncounted)
		return refs_change(mg->vol->lin, segno, index, by, left);
	lseg = lseg_get(mg->vol->lin, segno);
	if (!lseg)
		return -EIO;
	lseg->delta += by;
	if (left)
		*left = 0;
	return 0;
}

static int count_entry(struct merge *mg, const struct map_entry *e, int by)
{
	return count_ref(mg, le32_get(e->segno), le32_get(e->index), by, NULL);
}

static int emit(struct merge *mg, uint32_t level, const struct map_entry *e);

/* Writes the first n gathered entries of a level as one node and hands its pointer up. */
static int write_node(struct merge *mg, uint32_t level, uint32_t n)
{
	struct builder_level *b = &mg->level[level];
	struct lineage *lin = mg->vol->lin;
	struct map_node *node = &b->node;
	struct map_entry up = { .key = b->entry[0].key };
	struct node_ptr ptr;
	struct cache_entry *cached;
	int rc;

	*node = (struct map_node){ .magic = le32_of(MAP_MAGIC), .level = le16_of((uint16_t)level),
				   .count = le16_of((uint16_t)n), .lineage = le64_of(lin->id),
				   .volume = le32_of(mg->vol->number) };
	memcpy(node->entry, b->entry, n * sizeof(node->entry[0]));
	rc = meta_append(lin, node, &ptr);
	if (rc < 0)
		return rc;
	cached = nodecache_put(&lin->vl->cache, lin->id, &ptr, node);
	if (cached)
		nodecache_unpin(cached);
	memmove(b->entry, b->entry + n, (b->count - n) * sizeof(b->entry[0]));
	b->count -= n;
	rc = count_ref(mg, ptr.segno, ptr.index, 1, NULL);
	up.segno = le32_of(ptr.segno);
	up.index = le32_of(ptr.index);
	up.crc = le32_of(ptr.crc);
	return rc < 0 ? rc : emit(mg, level + 1, &up);
}

static int emit(struct merge *mg, uint32_t level, const struct map_entry *e)
{
	struct builder_level *b;

	if (level >= MAP_LEVELS_MAX)
		return -EFBIG;
	b = &mg->level[level];
	b->entry[b->count++] = *e;
	return b->count == 2 * MAP_FANOUT ? write_node(mg, level, MAP_FANOUT) : 0;
}

/* Writes all that a level has gathered, in nodes of even size. */
static int flush_level(struct merge *mg, uint32_t level)
{
	struct builder_level *b = &mg->level[level];
	int rc = 0;

	if (b->count > MAP_FANOUT)
		rc = write_node(mg, level, (b->count + 1) / 2);
	if (rc == 0 && b->count > 0)
		rc = write_node(mg, level, b->count);
	return rc;
}

/* True if a node of `level` may be passed up as it is: nothing gathered below or beside it is too small for a node. */
static bool can_pass(struct merge *mg, uint32_t level, int *rc)
{
	for (uint32_t i = 0; i <= level; i++) {
		if (mg->level[i].count > 0 && mg->level[i].count < NODE_MIN)
			return false;
		*rc = flush_level(mg, i);
		if (*rc < 0)
			return false;
	}
	return true;
}

/* --- merge: walking ----------------------------------------------------------------------------------------- */

static const struct mapping *item_mapping(const struct merge *mg)
{
	return omap_value(&mg->item);
}

static uint64_t item_end(const struct merge *mg)
{
	return omap_key(&mg->item) + mapping_count(item_mapping(mg));
}

/* Takes the next item if it is a block below hi; goes past holes that end at or below `upto`. */
static int take_items_below(struct merge *mg, uint64_t upto)
{
	while (mg->more && omap_key(&mg->item) < upto) {
		const struct mapping *m = item_mapping(mg);
		struct map_entry e;
		int rc;

		if (mapping_is_hole(m)) {
			if (item_end(mg) > upto)
				return 0;
			mg->more = omap_next(&mg->item);
			continue;
		}
		e = (struct map_entry){ le64_of(omap_key(&mg->item)), le32_of(m->segno), le32_of(m->index),
					le32_of(m->crc), le32_of(m->birth) };
		mg->mapped++;
		mg->more = omap_next(&mg->item);
		rc = count_entry(mg, &e, 1);
		if (rc == 0)
			rc = emit(mg, 0, &e);
		if (rc < 0)
			return rc;
	}
	return 0;
}

/* True if the next item replaces or unmaps the block at lba. All items that end at or below lba are merged. */
static bool item_covers(const struct merge *mg, uint64_t lba)
{
	return mg->more && omap_key(&mg->item) <= lba && lba < item_end(mg);
}

/* kept: the leaf lives on, as others refer to it. */
static int merge_leaf(struct merge *mg, const struct map_node *leaf, uint64_t hi, bool kept)
{
	for (uint32_t i = 0; i < le16_get(leaf->count); i++) {
		const struct map_entry *e = &leaf->entry[i];
		uint64_t lba = le64_get(e->key);
		bool gone;
		int rc = take_items_below(mg, lba);

		if (rc < 0)
			return rc;
		gone = item_covers(mg, lba);
		mg->mapped -= gone;
		if (gone != kept)        /* else its reference is passed on to the new leaf, or stays with the old one */
			rc = count_entry(mg, e, gone ? -1 : 1);
		if (rc == 0 && !gone)
			rc = emit(mg, 0, e);
		if (rc < 0)
			return rc;
	}
	while (mg->touch < mg->touch_end && *mg->touch < hi)
		mg->touch++;
	return take_items_below(mg, hi);
}

static int merge_child(struct merge *mg, const struct map_entry *e, const struct node_want *want, bool kept);

static int merge_children(struct merge *mg, const struct map_node *node, const struct node_want *want, bool kept)
{
	for (uint32_t i = 0; i < le16_get(node->count); i++) {
		struct node_want child = child_want(node, want, i);
		int rc = merge_child(mg, &node->entry[i], &child, kept);

		if (rc < 0)
			return rc;
	}
	return 0;
}

static bool has_work_below(const struct merge *mg, uint64_t hi)
{
	return (mg->more && omap_key(&mg->item) < hi) || (mg->touch < mg->touch_end && *mg->touch < hi);
}

/* Gives up the reference to a node whose copy is about to be made, unless it comes from a node that lives on. *lives: so
 * does this one. */
static int leave_node(struct merge *mg, const struct node_want *want, bool kept, bool *lives)
{
	uint32_t left = 1;
	int rc = kept ? 0 : count_ref(mg, want->ptr.segno, want->ptr.index, -1, &left);

	*lives = left > 0;
	return rc;
}

static bool is_unmapped_whole(const struct merge *mg, const struct node_want *want)
{
	return item_covers(mg, want->lo) && item_end(mg) >= want->hi;
}

/* `kept`: the parent lives on. */
static int merge_child(struct merge *mg, const struct map_entry *e, const struct node_want *want, bool kept)
{
	struct cache_entry *cached;
	bool lives = false;
	int rc = 0;

	if (!has_work_below(mg, want->hi) && can_pass(mg, want->level, &rc)) {
		if (kept)
			rc = count_entry(mg, e, 1);
		return rc < 0 ? rc : emit(mg, want->level + 1, e);
	}
	if (rc == 0)
		rc = leave_node(mg, want, kept, &lives);
	if (rc < 0 || (lives && mg->drop_shared && is_unmapped_whole(mg, want)))
		return rc;
	if (++mg->reads % 4 == 0)
		fiber_yield();           /* guests first */
	rc = node_get(mg->vol, want, true, &cached);
	if (rc < 0)
		return rc;
	if (want->level == 0)
		rc = merge_leaf(mg, cached->node, want->hi, lives);
	else
		rc = merge_children(mg, cached->node, want, lives);
	nodecache_unpin(cached);
	return rc;
}

static bool nothing_above(const struct merge *mg, uint32_t level)
{
	for (uint32_t i = level + 1; i < MAP_LEVELS_MAX; i++) {
		if (mg->level[i].count > 0)
			return false;
	}
	return true;
}

/* Writes what is gathered level by level until one pointer is left: the root. */
static int finish_root(struct merge *mg, struct map_root *root)
{
	*root = (struct map_root){ .ptr.segno = SEGNO_NONE };
	for (uint32_t level = 0; level < MAP_LEVELS_MAX; level++) {
		struct builder_level *b = &mg->level[level];
		int rc;

		if (level > 0 && b->count == 1 && nothing_above(mg, level)) {
			*root = (struct map_root){ .ptr = entry_ptr(&b->entry[0]), .height = level };
			return 0;
		}
		rc = flush_level(mg, level);
		if (rc < 0)
			return rc;
	}
	return 0;
}

static int by_key(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

	return x < y ? -1 : x > y;
}

int layer_touch(struct layer *layer, uint64_t key)
{
	struct touch_list *t = &layer->touch;

	if (t->count == t->cap) {
		uint32_t cap = t->cap ? 2 * t->cap : 256;
		uint64_t *keys = mem_alloc(cap * sizeof(*keys));

		if (!keys)
			return -ENOMEM;
		if (t->count > 0)
			memcpy(keys, t->key, t->count * sizeof(*keys));
		mem_free(t->key);
		t->key = keys;
		t->cap = cap;
	}
	t->key[t->count++] = key;
	return 0;
}

static int walk_node(struct volume_state *vol, const struct node_want *want, map_walk_fn *fn, void *arg)
{
	struct cache_entry *e = NULL;
	int rc = fn(arg, want->lo, (int)want->level, &want->ptr);

	if (rc == 0)
		rc = node_get(vol, want, true, &e);
	else
		return rc < 0 ? rc : 0;
	for (uint32_t i = 0; rc >= 0 && i < le16_get(e->node->count); i++) {
		struct node_want child = child_want(e->node, want, i);

		if (want->level > 0)
			rc = walk_node(vol, &child, fn, arg);
		else
			rc = fn(arg, le64_get(e->node->entry[i].key), -1, &child.ptr);
	}
	if (e)
		nodecache_unpin(e);
	return rc < 0 ? rc : 0;
}

int map_walk(struct volume_state *vol, map_walk_fn *fn, void *arg)
{
	struct node_want want = root_want(&vol->root);

	return vol->root.height == 0 ? 0 : walk_node(vol, &want, fn, arg);
}

static int merge_root(struct merge *mg, const struct map_root *base)
{
	struct node_want want = root_want(base);
	struct map_entry e = { .segno = le32_of(want.ptr.segno), .index = le32_of(want.ptr.index),
			       .crc = le32_of(want.ptr.crc) };

	return base->height == 0 ? take_items_below(mg, UINT64_MAX) : merge_child(mg, &e, &want, false);
}

int map_merge(struct volume_state *vol, const struct layer *layer, const struct map_root *base, struct map_root *root,
	      int64_t *mapped_delta)
{
	const struct touch_list *touch = &layer->touch;
	struct merge *mg = mem_zalloc(sizeof(*mg));
	int rc = 0;

	if (!mg)
		return -ENOMEM;
	mg->vol = vol;
	mg->uncounted = is_uncounted(vol);
	mg->drop_shared = vol->going && layer->group == 1;
	if (touch->count > 0) {
		qsort(touch->key, touch->count, sizeof(*touch->key), by_key);
		mg->touch = touch->key;
		mg->touch_end = touch->key + touch->count;
	}
	mg->more = omap_seek(&layer->changes.items, 0, &mg->item);
	rc = merge_root(mg, base);
	if (rc == 0)
		rc = finish_root(mg, root);
	*mapped_delta = mg->mapped;
	mem_free(mg);
	return rc;
}

int map_root_get(struct lineage *lin, const struct map_root *root)
{
	return root->height == 0 ? 0 : refs_change(lin, root->ptr.segno, root->ptr.index, 1, NULL);
}

int map_root_put(struct lineage *lin, const struct map_root *root)
{
	return root->height == 0 ? 0 : refs_change(lin, root->ptr.segno, root->ptr.index, -1, NULL);
}

/* --- taking a tree down ------------------------------------------------------------------------------------- */

/* The highest node on the way to key that others refer to, or else the node above the leaves; *nodes: what unmapping its
 * range visits. */
static int step_over(struct volume_state *vol, uint64_t key, struct node_want *want, uint32_t *nodes)
{
	*want = root_want(&vol->root);
	for (;;) {
		struct cache_entry *e;
		uint32_t refs, i;
		int rc = refs_count(vol->lin, want->ptr.segno, want->ptr.index, &refs);

		*nodes = 1;
		if (rc < 0 || refs > 1 || want->level == 0)
			return rc;
		rc = node_get(vol, want, true, &e);
		if (rc < 0)
			return rc;
		if (want->level == 1) {
			*nodes += le16_get(e->node->count);
			nodecache_unpin(e);
			return 0;
		}
		i = entries_upto(e->node, key);
		*want = child_want(e->node, want, i > 0 ? i - 1 : 0);
		nodecache_unpin(e);
	}
}

int map_step(struct volume_state *vol, uint32_t *nodes, uint64_t *end)
{
	*end = 0;
	while (*nodes > 0 && *end < BATCH_LBA_MAX && vol->root.height > 0) {
		struct node_want want;
		uint32_t n;
		int rc = step_over(vol, *end, &want, &n);

		if (rc < 0)
			return rc;
		*nodes -= n < *nodes ? n : *nodes;
		*end = want.hi;
	}
	return 0;
}

/* --- meta stream -------------------------------------------------------------------------------------------- */

int meta_append(struct lineage *lin, const void *block, struct node_ptr *ptr)
{
	struct stream *st = &lin->stream[STREAM_META];
	struct batch *b;
	uint8_t *to;
	int rc;

	while ((rc = log_room(st, 1, 1, ROOM_DATA, &b)) == -EAGAIN)
		waitq_wait(&lin->room);
	if (rc < 0)
		return rc;
	batch_add_extent(b, BATCH_META, 0, 0, 1);
	to = batch_add_block(b, &ptr->index);
	ptr->segno = b->lseg->seg.segno;
	crc32c_copy(to, block, 1, &ptr->crc);
	batch_set_crc(b, ptr->crc);
	return 0;
}
