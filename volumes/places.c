/* Places hang off the segments that they are about, and are on a list: for CLOCK, or of what the checkpoint changes. */
#include "volumes/places.h"

#include <errno.h>
#include <string.h>

#include "pool/base/mem.h"
#include "volumes/lineage.h"

#define WRITES_A_TURN 16u

/* A part of a segment that is moved. */
struct place {
	struct list node;
	struct lseg *lseg;
	uint32_t part;
	bool recent;                     /* CLOCK's bit */
	struct place_block *now;         /* block-aligned; empty if the part has none on disk */
	struct place_block *next;        /* what the checkpoint being made changes it to; NULL: nothing */
};

static uint32_t parts(const struct lineage *lin)
{
	return (lin->segment_blocks + PLACE_BLOCKS - 1) / PLACE_BLOCKS;
}

static struct place_part part_of(const struct lineage *lin, uint32_t segno, uint32_t part)
{
	return (struct place_part){ .lineage = lin->id, .segno = segno, .part = part,
				    .segment_blocks = lin->segment_blocks };
}

static uint64_t place_number(const struct lineage *lin, uint32_t segno, uint32_t part)
{
	return (uint64_t)segno * parts(lin) + part;
}

/* --- life ------------------------------------------------------------------------------------------------------- */

int places_init(struct lineage *lin)
{
	static const struct volume_format nameless = { .size_bytes = { 0 } };
	struct places *pl = &lin->places;

	list_init(&pl->cached);
	list_init(&pl->changed);
	pl->written = layer_new();
	pl->map = volume_state_new(lin, 0, &nameless);
	if (pl->written && pl->map)
		return 0;
	places_release(lin);
	return -ENOMEM;
}

static void place_free(struct lineage *lin, struct place *place)
{
	place->lseg->place[place->part] = NULL;
	list_del(&place->node);
	lin->places.count--;
	mem_free(place->now);
	mem_free(place->next);
	mem_free(place);
}

void places_release(struct lineage *lin)
{
	struct places *pl = &lin->places;

	list_splice_back(&pl->cached, &pl->changed);
	while (!list_empty(&pl->cached))
		place_free(lin, list_entry(pl->cached.next, struct place, node));
	if (pl->written)
		layer_put(pl->written);
	if (pl->map)
		volume_state_free(pl->map);
}

void places_forget(struct lineage *lin, struct lseg *lseg)
{
	for (uint32_t i = 0; lseg->place && i < parts(lin); i++) {
		if (lseg->place[i])
			place_free(lin, lseg->place[i]);
	}
	mem_free(lseg->place);
	lseg->place = NULL;
}

/* --- in memory ---------------------------------------------------------------------------------------------------- */

/* Makes room for one more: drops one that was not used lately. What is being changed stays. */
static void evict(struct lineage *lin)
{
	struct places *pl = &lin->places;
	struct list *node;

	while (pl->count >= PLACES_MAX && (node = list_pop_front(&pl->cached))) {
		struct place *place = list_entry(node, struct place, node);

		list_push_back(&pl->cached, node);
		if (!place->recent)
			place_free(lin, place);
		else
			place->recent = false;
	}
}

/* With an empty block. */
static struct place *place_new(struct lineage *lin, struct lseg *lseg, uint32_t part)
{
	struct place_part of = part_of(lin, lseg->seg.segno, part);
	struct place *place;

	if (!lseg->place)
		lseg->place = mem_zalloc(parts(lin) * sizeof(struct place *));
	place = lseg->place ? mem_alloc(sizeof(*place)) : NULL;
	if (!place)
		return NULL;
	*place = (struct place){ .lseg = lseg, .part = part, .recent = true,
				 .now = mem_alloc_aligned(BLOCK_BYTES, BLOCK_BYTES) };
	if (!place->now) {
		mem_free(place);
		return NULL;
	}
	place_init(place->now, &of);
	lseg->place[part] = place;
	list_push_back(&lin->places.cached, &place->node);
	lin->places.count++;
	return place;
}

/* Reads the place block of a part. It may have been replaced when this returns. */
static int read_block(struct lineage *lin, uint32_t segno, uint32_t part, struct place_block *block)
{
	struct place_part of = part_of(lin, segno, part);
	struct mapping m = { .segno = SEGNO_UNKNOWN };
	int rc = map_lookup(lin->places.map, place_number(lin, segno, part), 1, &m, true);

	place_init(block, &of);
	if (rc < 0 || mapping_is_hole(&m))
		return rc;
	rc = meta_read(lin, &(struct node_ptr){ m.segno, m.index, m.crc }, block);
	return rc < 0 || place_validate(block, &of) ? rc : -EIO;
}

/* Reads until it is not overtaken by a switch; the segment may be gone then. */
static int load(struct lineage *lin, uint32_t segno, uint32_t part)
{
	struct place_block *block = mem_alloc_aligned(BLOCK_BYTES, BLOCK_BYTES);
	struct place *place;
	struct lseg *lseg;
	uint64_t switches;
	int rc = block ? 0 : -ENOMEM;

	while (rc == 0) {
		switches = lin->places.switches;
		rc = read_block(lin, segno, part, block);
		if (switches == lin->places.switches)
			break;
	}
	lseg = lseg_get(lin, segno);
	if (rc == 0 && lseg && lseg->moved && !(lseg->place && lseg->place[part])) {
		evict(lin);
		place = place_new(lin, lseg, part);
		if (place)
			memcpy(place->now, block, BLOCK_BYTES);
		else
			rc = -ENOMEM;
	}
	mem_free(block);
	return rc;
}

static struct place *find(const struct lseg *lseg, uint32_t part)
{
	return lseg->place ? lseg->place[part] : NULL;
}

/* --- look-up -------------------------------------------------------------------------------------------------------- */

static bool has_zones(const struct lineage *lin, uint32_t segno)
{
	const struct lseg *lseg = lseg_get(lin, segno);

	return lseg && lseg_has_zones(lseg);
}

int places_locate(struct lineage *lin, uint32_t *segno, uint32_t *index, bool wait)
{
	const struct lseg *lseg = lseg_get(lin, *segno);
	uint32_t part = *index / PLACE_BLOCKS;
	struct place *place;
	int rc;

	if (!lseg || *index >= lin->segment_blocks)
		return -EIO;
	if (!lseg->moved)
		return lseg_has_zones(lseg) ? 0 : -EIO;
	while (!(place = find(lseg, part))) {
		rc = wait ? load(lin, *segno, part) : -EAGAIN;
		if (rc < 0)
			return rc;
		lseg = lseg_get(lin, *segno);
		if (!lseg || !lseg->moved)
			return -EIO;
	}
	place->recent = true;
	return place_find(place->now, *index % PLACE_BLOCKS, segno, index) && has_zones(lin, *segno) &&
			       *index < lin->segment_blocks ? 0 : -EIO;
}

/* --- changes -------------------------------------------------------------------------------------------------------- */

static int get(struct lineage *lin, struct lseg *lseg, uint32_t part, struct place **out)
{
	int rc = 0;

	if (!lseg->moved && !find(lseg, part) && !place_new(lin, lseg, part))
		return -ENOMEM;
	while (rc == 0 && !(*out = find(lseg, part)))
		rc = load(lin, lseg->seg.segno, part);
	return rc;
}

int places_look(struct lineage *lin, struct lseg *lseg, uint32_t part, const struct place_block **out)
{
	struct place *place;
	int rc = get(lin, lseg, part, &place);

	if (rc == 0)
		*out = place->next ? place->next : place->now;
	return rc;
}

int places_edit(struct lineage *lin, struct lseg *lseg, uint32_t part, struct place_block **out)
{
	struct place *place;
	int rc = get(lin, lseg, part, &place);

	if (rc == 0 && !place->next) {
		place->next = mem_alloc_aligned(BLOCK_BYTES, BLOCK_BYTES);
		if (!place->next)
			return -ENOMEM;
		memcpy(place->next, place->now, BLOCK_BYTES);
		list_del(&place->node);
		list_push_back(&lin->places.changed, &place->node);
	}
	if (rc == 0)
		*out = place->next;
	return rc;
}

void places_drop(struct lineage *lin, struct lseg *lseg)
{
	lseg->moving = false;
	places_forget(lin, lseg);
}

/* --- with the checkpoint ---------------------------------------------------------------------------------------------- */

/* Notes a place block or a node of the map for rewriting if it lies in a segment that the cleaner empties. */
static int evacuate_block(void *arg, uint64_t key, int level, const struct node_ptr *ptr)
{
	struct lineage *lin = arg;
	const struct lseg *at = lseg_get(lin, ptr->segno);
	struct place_block *block;
	struct lseg *lseg;

	if (!at || !at->cleaned)
		return 0;
	if (level >= 0)
		return layer_touch(lin->places.written, key);
	lseg = lseg_get(lin, (uint32_t)(key / parts(lin)));
	return lseg && lseg->moved ? places_edit(lin, lseg, (uint32_t)(key % parts(lin)), &block) : -EIO;
}

static int write_block(struct lineage *lin, const struct place *place)
{
	uint64_t number = place_number(lin, place->lseg->seg.segno, place->part);
	struct overlay *written = &lin->places.written->changes;
	struct node_ptr at;
	struct mapping m;
	int rc;

	if (le32_get(place->next->count) == 0)
		return overlay_put_hole(written, number, 1);
	rc = meta_append(lin, place->next, &at);
	m = (struct mapping){ .segno = at.segno, .index = at.index, .crc = at.crc };
	return rc < 0 ? rc : overlay_put_block(written, number, &m);
}

static int write_blocks(struct lineage *lin)
{
	uint32_t written = 0;

	list_for_each(node, &lin->places.changed) {
		const struct place *place = list_entry(node, struct place, node);
		int rc;

		if (lseg_live_after(place->lseg) == 0)
			continue;
		rc = write_block(lin, place);
		if (rc < 0)
			return rc;
		if (++written % WRITES_A_TURN == 0)
			fiber_yield();
	}
	return 0;
}

/* Moved segments of which nothing is live any more need no place blocks. */
static int remove_dead(struct lineage *lin)
{
	int rc = 0;

	for (uint32_t i = 0; i < lin->segs_cap && rc == 0; i++) {
		const struct lseg *lseg = lin->segs[i];

		if (lseg && lseg->moved && lseg_live_after(lseg) == 0)
			rc = overlay_put_hole(&lin->places.written->changes, place_number(lin, i, 0), parts(lin));
	}
	return rc;
}

int places_settle(struct lineage *lin)
{
	struct places *pl = &lin->places;
	int64_t blocks;
	int rc = lin->cleaning_meta ? map_walk(pl->map, evacuate_block, lin) : 0;

	if (rc == 0)
		rc = write_blocks(lin);
	if (rc == 0)
		rc = remove_dead(lin);
	pl->map->new_root = pl->map->root;
	if (rc == 0 && !layer_is_empty(pl->written))
		rc = map_merge(pl->map, pl->written, &pl->map->root, &pl->map->new_root, &blocks);
	return rc;
}

static void forget_written(struct lineage *lin)
{
	overlay_release(&lin->places.written->changes);
	lin->places.written->touch.count = 0;
}

void places_install(struct lineage *lin)
{
	lin->places.map->root = lin->places.map->new_root;
	forget_written(lin);
}

void places_abandon(struct lineage *lin)
{
	struct list *node;

	forget_written(lin);
	while ((node = list_pop_front(&lin->places.changed))) {
		struct place *place = list_entry(node, struct place, node);

		mem_free(place->next);
		place->next = NULL;
		list_push_back(&lin->places.cached, node);
		if (!place->lseg->moved)
			place_free(lin, place);
	}
	for (uint32_t i = 0; i < lin->segs_cap; i++) {
		if (lin->segs[i])
			lin->segs[i]->moving = false;
	}
}

bool places_switch(struct lineage *lin)
{
	bool switched = !list_empty(&lin->places.changed);
	struct list *node;

	while ((node = list_pop_front(&lin->places.changed))) {
		struct place *place = list_entry(node, struct place, node);

		mem_free(place->now);
		place->now = place->next;
		place->next = NULL;
		list_push_back(&lin->places.cached, node);
	}
	for (uint32_t i = 0; i < lin->segs_cap; i++) {
		if (!lin->segs[i])
			continue;
		lin->segs[i]->moved |= lin->segs[i]->moving;
		lin->segs[i]->moving = false;
	}
	lin->places.switches += switched;
	return switched;
}
