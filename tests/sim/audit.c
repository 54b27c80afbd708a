/* Oracle of exact counts: what the catalog, the maps and the liveness tables on the disks say must agree.
 *
 * Every lineage is walked as its last checkpoint left it, straight from the simulated disks' pages and with a decoder of
 * its own: from each image's root through the map nodes, which images may share, to the blocks. Then
 *
 *     every pointer leads into a segment of the lineage, nodes have their checksums, and keys ascend within their range
 *     each block is referred to as often as the pages of reference counts say; no zone is in two segments
 *     each segment has as many blocks in use as the liveness table says, and each volume as many as its record says
 *     a block in use of a segment that was moved has one place, in a host segment, to itself
 *
 * A checkpoint is made in one transaction, so this holds at any moment, whatever crash came before; only lasting damage
 * excuses. Where a flush that failed took a block that its row can restore, the walk ends: this decoder restores nothing.
 * Nothing waits here, so that nothing moves meanwhile. Bytes: see volumes/map_format.h and place_format.h.
 *
 * What is in no segment is nobody's: audit_poison overwrites it, so that whoever still needs it is found out. Every other
 * zone is left as it is, as old content is a trap too. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "pool/base/crc32c.h"
#include "pool/catalog.h"
#include "pool/pool_int.h"
#include "tests/sim/trace.h"
#include "tests/sim/world.h"

#define SEGNOS_MAX 4096u
#define ZONE_BLOCKS_MAX 2048u /* zones of 8 MiB */
#define SEGMENT_BLOCKS_MAX (8 * ZONE_BLOCKS_MAX)
#define ZONES_MAX 512u        /* of a disk */
#define NODE_MAGIC 0x70616d70u
#define TABLE_MAGIC 0x76696c70u
#define PLACE_MAGIC 0x636c7070u
#define NO_SEGNO UINT32_MAX
#define ENTRIES_OFF 32u
#define NODE_ENTRY_BYTES 24u
#define NODE_ENTRIES_MAX 169u
#define TABLE_ENTRY_BYTES 16u
#define TABLE_ENTRIES_MAX 254u
#define LEVELS_MAX 12u
#define COUNTS_PER_PAGE 2048u
#define FLAG_DELETED 4u
#define PART_BLOCKS 16384u
#define PIECES_MAX 168u
#define PLACED_OFF 32u
#define PIECES_OFF 2080u
#define PIECE_BYTES 12u

/* Where a block is that was moved. */
struct moved_to {
	uint32_t host, index;
};

/* A segment, and what was found in it. */
struct tally {
	struct segment segment;             /* grant 0: it was moved, and has no zones any more */
	struct moved_to *place;             /* [SEGMENT_BLOCKS_MAX]; NULL: it was not moved */
	uint32_t counted, told;             /* blocks in use: found, and by the liveness table */
	uint16_t found[SEGMENT_BLOCKS_MAX];    /* references to each block by images and their nodes */
	uint16_t recorded[SEGMENT_BLOCKS_MAX]; /* the same by the pages of counts */
	bool own[SEGMENT_BLOCKS_MAX];          /* of the counts or the table: not counted themselves */
	bool hosted[SEGMENT_BLOCKS_MAX];       /* by it, and in use */
	uint32_t below[SEGMENT_BLOCKS_MAX];    /* nodes: blocks mapped */
};

struct audit {
	struct world *w;
	uint64_t lineage;
	struct policy policy;
	struct tally *tally[SEGNOS_MAX]; /* [segno], NULL: none */
	uint32_t segnos;                 /* all are below */
	bool ended;                      /* at a block that has to be restored: there is no verdict */
};

struct pointer {
	uint32_t segno, index, crc;
};

static uint64_t get(const uint8_t *at, uint32_t bytes)
{
	uint64_t value = 0;

	while (bytes-- > 0)
		value = value << 8 | at[bytes];
	return value;
}

static struct pointer get_pointer(const uint8_t *at)
{
	return (struct pointer){ (uint32_t)get(at, 4), (uint32_t)get(at + 4, 4), (uint32_t)get(at + 8, 4) };
}

static bool wrong(const struct audit *a, const char *what, uint32_t segno, uint32_t index)
{
	sim_fail("audit of lineage %llu: %s (segment %u, block %u)", (unsigned long long)a->lineage, what, segno,
		 index);
	return false;
}

/* ---- blocks ---- */

static struct tally *tally_of(const struct audit *a, const struct pointer *p, enum segment_stream stream)
{
	struct tally *t = p->segno < SEGNOS_MAX ? a->tally[p->segno] : NULL;

	if (!t || (!t->place && t->segment.stream != stream)) {
		wrong(a, "a pointer leads to no segment of its kind", p->segno, p->index);
		return NULL;
	}
	if (p->index >= segment_blocks(a->w->pool, a->policy)) {
		wrong(a, "a pointer leads beyond its segment", p->segno, p->index);
		return NULL;
	}
	return t;
}

/* Notes a reference to the block by an image. NULL: there cannot be one. */
static struct tally *refer(struct audit *a, const struct pointer *p, enum segment_stream stream)
{
	struct tally *t = tally_of(a, p, stream);

	if (!t)
		return NULL;
	if (t->own[p->index]) {
		wrong(a, "a block is used for two things", p->segno, p->index);
		return NULL;
	}
	t->counted += t->found[p->index]++ == 0;
	return t;
}

/* Notes a block that is referred to once and has no count. */
static bool own(struct audit *a, const struct pointer *p, bool counted)
{
	struct tally *t = tally_of(a, p, STREAM_META);

	if (!t)
		return false;
	if (t->place || t->own[p->index] || t->found[p->index] > 0)
		return wrong(a, "a block is used for two things", p->segno, p->index);
	t->own[p->index] = true;
	t->counted += counted;
	return true;
}

static struct sim_disk *sim_disk_of(struct world *w, const struct pool_disk *disk)
{
	return &w->disk[disk->disk->uri[4] - '0'];
}

/* The host of a block that was moved; NULL: there is none. */
static struct tally *host_of(const struct audit *a, const struct moved_to *to)
{
	struct tally *host = to->host < SEGNOS_MAX ? a->tally[to->host] : NULL;

	return host && !host->place && host->segment.stream == STREAM_MOVE &&
			       to->index < segment_blocks(a->w->pool, a->policy) ? host : NULL;
}

/* NULL: it was moved nowhere. */
static const uint8_t *content(const struct audit *a, const struct pointer *p)
{
	static const uint8_t zeroes[PAGE_BYTES];
	const struct tally *t = a->tally[p->segno];
	const struct moved_to here = { p->segno, p->index }, *at = t->place ? &t->place[p->index] : &here;
	const struct tally *in = t->place ? host_of(a, at) : t;
	const struct zone_addr *zone = in ? &in->segment.cols[at->index % a->policy.k] : NULL;
	const struct pool_disk *disk = in ? a->w->pool->disks[zone->disk_id] : NULL;
	const struct page *page;
	uint64_t off;

	if (!in)
		return NULL;
	off = disk->label.zones_off + (uint64_t)zone->zone * disk->label.zone_bytes +
	      (uint64_t)(at->index / a->policy.k) * PAGE_BYTES;
	page = page_map_get(&sim_disk_of(a->w, disk)->map, (uint32_t)(off / PAGE_BYTES));
	return page ? page->data : zeroes;
}

/* The block is not what its pointer says. */
static void damaged(struct audit *a, const char *what, const struct pointer *p)
{
	a->ended = a->policy.m > 0 && world_faults_ever(a->w, FAULT_FLUSH_EIO) > 0;
	if (!a->ended)
		wrong(a, what, p->segno, p->index);
}

/* Content of a block of the meta stream; NULL: it is not as it should be. */
static const uint8_t *meta_block(struct audit *a, const struct pointer *p, uint32_t magic)
{
	const uint8_t *block = content(a, p);

	if (block && crc32c(0, block, PAGE_BYTES) == p->crc && get(block, 4) == magic && get(block + 8, 8) == a->lineage)
		return block;
	damaged(a, "a map node or liveness block is not what its pointer says", p);
	return NULL;
}

/* ---- maps ---- */

/* A node that lies on a way from a root; keys below are in [low, end). */
struct place {
	struct pointer p;
	uint32_t level;
	uint64_t low, end;
};

static const uint8_t *map_node(struct audit *a, const struct place *at, uint32_t *count)
{
	const uint8_t *node = meta_block(a, &at->p, NODE_MAGIC);
	uint64_t low = at->low;

	if (!node)
		return NULL;
	*count = (uint32_t)get(node + 6, 2);
	if (get(node + 4, 2) != at->level || *count == 0 || *count > NODE_ENTRIES_MAX) {
		wrong(a, "a map node is not of its level, or empty", at->p.segno, at->p.index);
		return NULL;
	}
	for (uint32_t i = 0; i < *count; i++) {
		uint64_t key = get(node + ENTRIES_OFF + i * NODE_ENTRY_BYTES, 8);

		if (key < low || key >= at->end) {
			wrong(a, "a map node's keys do not ascend in their range", at->p.segno, at->p.index);
			return NULL;
		}
		low = key + 1;
	}
	return node;
}

static struct place child_of(const struct place *at, const uint8_t *node, uint32_t i, uint32_t count)
{
	const uint8_t *entry = node + ENTRIES_OFF + i * NODE_ENTRY_BYTES;

	return (struct place){ .p = get_pointer(entry + 8),
			       .level = at->level - 1,
			       .low = i > 0 ? get(entry, 8) : at->low,
			       .end = i + 1 < count ? get(entry + NODE_ENTRY_BYTES, 8) : at->end };
}

/* Goes into a node when it is met for the first time. *mapped: blocks below. */
static bool walk(struct audit *a, const struct place *at, uint64_t *mapped)
{
	struct tally *t = refer(a, &at->p, STREAM_META);
	const uint8_t *node;
	uint64_t below = 0;
	uint32_t count;

	if (!t)
		return false;
	node = t->found[at->p.index] == 1 ? map_node(a, at, &count) : NULL;
	if (!node && t->found[at->p.index] == 1)
		return false;
	for (uint32_t i = 0; node && i < count; i++) {
		struct place child = child_of(at, node, i, count);
		struct pointer block = child.p;

		if (at->level > 0 ? !walk(a, &child, &below) : !refer(a, &block, STREAM_DATA))
			return false;
		below += at->level == 0;
	}
	if (node)
		t->below[at->p.index] = (uint32_t)below;
	*mapped += t->below[at->p.index];
	return true;
}

/* Images without a record have never been in a checkpoint. */
static bool walk_volume(struct audit *a, const struct cat_obj *volume)
{
	const struct cat_obj *map = catalog_get(pool_catalog(a->w->pool), CAT_MAP, volume->id);
	const uint8_t *record = map ? map->data : NULL;
	uint32_t height = record ? (uint32_t)get(record, 4) : 0;
	bool going = get((const uint8_t *)volume->data + 32, 4) & FLAG_DELETED;
	uint64_t mapped = 0;

	if (height > LEVELS_MAX)
		return wrong(a, "a map is too high", height, 0);
	if (height > 0) {
		struct place root = { .p = get_pointer(record + 4), .level = height - 1, .end = UINT64_MAX };

		if (!walk(a, &root, &mapped))
			return false;
	}
	if (record && !going && get(record + 16, 8) != mapped)
		return wrong(a, "a volume's record is wrong about how many blocks are mapped", (uint32_t)mapped,
			     (uint32_t)get(record + 16, 8));
	return true;
}

static bool walk_volumes(struct audit *a)
{
	struct catalog *cat = pool_catalog(a->w->pool);

	for (const struct cat_obj *obj = catalog_next(cat, CAT_VOLUME, 0); obj;
	     obj = catalog_next(cat, CAT_VOLUME, obj->id + 1)) {
		if (get((const uint8_t *)obj->data + 8, 8) == a->lineage && !walk_volume(a, obj))
			return false;
	}
	return true;
}

/* ---- maps of tables ---- */

typedef bool take_fn(struct audit *a, uint64_t number, const struct pointer *p);

static bool walk_table_map(struct audit *a, const struct place *at, take_fn *take)
{
	uint32_t count;
	const uint8_t *node = own(a, &at->p, true) ? map_node(a, at, &count) : NULL;

	if (!node)
		return false;
	for (uint32_t i = 0; i < count; i++) {
		struct place child = child_of(at, node, i, count);

		if (at->level > 0 ? !walk_table_map(a, &child, take) :
				    !take(a, get(node + ENTRIES_OFF + i * NODE_ENTRY_BYTES, 8), &child.p))
			return false;
	}
	return true;
}

/* A map of tables: height and root as the lineage's record has them. */
static bool walk_tables(struct audit *a, const uint8_t *record, take_fn *take)
{
	uint32_t height = (uint32_t)get(record, 4);
	struct place root = { .p = get_pointer(record + 4), .level = height - 1, .end = UINT64_MAX };

	if (height > LEVELS_MAX)
		return wrong(a, "a map of tables is too high", height, 0);
	return height == 0 || walk_table_map(a, &root, take);
}

/* ---- reference counts ---- */

static bool take_page(struct audit *a, uint64_t number, const struct pointer *p)
{
	uint32_t per_segment = (segment_blocks(a->w->pool, a->policy) + COUNTS_PER_PAGE - 1) / COUNTS_PER_PAGE;
	struct tally *t = number / per_segment < SEGNOS_MAX ? a->tally[number / per_segment] : NULL;
	uint32_t first = (uint32_t)(number % per_segment) * COUNTS_PER_PAGE;
	const uint8_t *page;

	if (!t || !own(a, p, true))
		return t ? false : wrong(a, "there are counts for a segment that is not there", (uint32_t)number, 0);
	page = content(a, p);
	if (crc32c(0, page, PAGE_BYTES) != p->crc) {
		damaged(a, "a page of counts is not what its pointer says", p);
		return false;
	}
	for (uint32_t i = 0; i < COUNTS_PER_PAGE && first + i < SEGMENT_BLOCKS_MAX; i++)
		t->recorded[first + i] = (uint16_t)get(page + 2 * (size_t)i, 2);
	return true;
}

static bool compare_counts(const struct audit *a, uint32_t segno)
{
	const struct tally *t = a->tally[segno];

	for (uint32_t i = 0; i < segment_blocks(a->w->pool, a->policy); i++) {
		if (t->found[i] == t->recorded[i])
			continue;
		sim_fail("audit of lineage %llu: block %u of segment %u has %u references, but %u are recorded",
			 (unsigned long long)a->lineage, i, segno, t->found[i], t->recorded[i]);
		return false;
	}
	return true;
}

/* ---- liveness ---- */

static struct tally *new_tally(struct audit *a, const struct segment *segment)
{
	struct tally *t = calloc(1, sizeof(*t));

	if (!t)
		abort();
	t->segment = *segment;
	a->tally[segment->segno] = t;
	if (segment->segno >= a->segnos)
		a->segnos = segment->segno + 1;
	return t;
}

/* A segment that was moved. Its zones may be there yet. */
static struct tally *moved_tally(struct audit *a, uint32_t segno)
{
	struct segment none = { .segno = segno };
	struct tally *t = a->tally[segno] ? a->tally[segno] : new_tally(a, &none);

	if (t->place)
		return NULL;
	t->place = malloc(SEGMENT_BLOCKS_MAX * sizeof(*t->place));
	if (!t->place)
		abort();
	memset(t->place, 0xff, SEGMENT_BLOCKS_MAX * sizeof(*t->place));
	return t;
}

static bool take_told(struct audit *a, const uint8_t *entry)
{
	uint32_t segno = (uint32_t)get(entry + 8, 4), live = (uint32_t)get(entry + 12, 4);
	uint64_t grant = get(entry, 8);
	struct tally *t = segno >= SEGNOS_MAX ? NULL : grant == 0 ? moved_tally(a, segno) : a->tally[segno];

	if (!t || (grant != 0 && (t->place || t->segment.grant != grant)) || t->told > 0 || live == 0)
		return wrong(a, "the liveness table names a segment that is not there, twice, or without need", segno,
			     live);
	t->told = live;
	return true;
}

static bool read_table(struct audit *a, struct pointer p)
{
	while (p.segno != NO_SEGNO) {
		const uint8_t *block = own(a, &p, false) ? meta_block(a, &p, TABLE_MAGIC) : NULL;
		uint32_t count = block ? (uint32_t)get(block + 4, 4) : 0;

		if (!block)
			return false;
		if (count > TABLE_ENTRIES_MAX)
			return wrong(a, "a block of the liveness table has too many entries", p.segno, p.index);
		for (uint32_t i = 0; i < count; i++) {
			if (!take_told(a, block + ENTRIES_OFF + i * TABLE_ENTRY_BYTES))
				return false;
		}
		p = get_pointer(block + 16);
	}
	return true;
}

/* ---- places ---- */

static bool take_places(struct audit *a, uint64_t number, const struct pointer *p)
{
	uint32_t parts = (segment_blocks(a->w->pool, a->policy) + PART_BLOCKS - 1) / PART_BLOCKS;
	uint32_t segno = (uint32_t)(number / parts), first = (uint32_t)(number % parts) * PART_BLOCKS;
	struct tally *t = segno < SEGNOS_MAX ? a->tally[segno] : NULL;
	const uint8_t *block = own(a, p, true) ? content(a, p) : NULL;
	uint32_t count = block ? (uint32_t)get(block + 12, 4) : 0, n = 0;
	struct moved_to to = { NO_SEGNO, 0 };

	if (!block || !t || !t->place)
		return block ? wrong(a, "there are places for a segment that was not moved", segno, first) : false;
	if (crc32c(0, block, PAGE_BYTES) != p->crc || get(block, 4) != PLACE_MAGIC || get(block + 4, 4) != segno ||
	    get(block + 16, 8) != a->lineage || count == 0 || count > PIECES_MAX) {
		damaged(a, "a place block is not what its pointer says", p);
		return false;
	}
	for (uint32_t i = 0; i < PART_BLOCKS && first + i < SEGMENT_BLOCKS_MAX; i++) {
		const uint8_t *piece = block + PIECES_OFF + (size_t)n * PIECE_BYTES;

		if (n < count && get(piece, 4) == i) {
			to = (struct moved_to){ (uint32_t)get(piece + 4, 4), (uint32_t)get(piece + 8, 4) };
			n++;
		}
		if (!(block[PLACED_OFF + i / 8] >> i % 8 & 1))
			continue;
		t->place[first + i] = to;
		to.index++;
	}
	return n == count || wrong(a, "a place block has pieces out of order", p->segno, p->index);
}

/* Every block in use has a place of its own, where the host has a block in use. */
static bool count_hosted(const struct audit *a)
{
	for (uint32_t segno = 0; segno < a->segnos; segno++) {
		const struct tally *t = a->tally[segno];

		for (uint32_t i = 0; t && t->place && i < segment_blocks(a->w->pool, a->policy); i++) {
			struct tally *host = t->found[i] > 0 ? host_of(a, &t->place[i]) : NULL;

			if (t->found[i] == 0)
				continue;
			if (!host || host->hosted[t->place[i].index])
				return wrong(a, "a moved block has no place, or not to itself", segno, i);
			host->hosted[t->place[i].index] = true;
			host->counted++;
		}
	}
	return true;
}

static bool compare(const struct audit *a)
{
	for (uint32_t i = 0; i < a->segnos; i++) {
		const struct tally *t = a->tally[i];

		if (!t || (t->counted == t->told && compare_counts(a, i)))
			continue;
		if (t->counted == t->told)
			return false;
		sim_fail("audit of lineage %llu: segment %u has %u blocks in use, but the liveness table says %u",
			 (unsigned long long)a->lineage, i, t->counted, t->told);
		return false;
	}
	return true;
}

/* ---- lineages ---- */

static void add_segment(void *arg, const struct segment *segment)
{
	struct audit *a = arg;

	if (segment->segno >= SEGNOS_MAX || a->tally[segment->segno])
		wrong(a, "a segment's number is too large, or taken", segment->segno, 0);
	else
		new_tally(a, segment);
}

static void free_tally(struct tally *t)
{
	if (t)
		free(t->place);
	free(t);
}

static bool audit_lineage(struct world *w, const struct cat_obj *lineage)
{
	static struct audit a;
	const uint8_t *record = lineage->data;
	bool right;

	a.w = w;
	a.lineage = lineage->id;
	a.policy = (struct policy){ record[4], record[5] };
	a.ended = false;
	segment_for_each(w->pool, lineage->id, add_segment, &a);
	right = !sim_failed() && read_table(&a, get_pointer(record + 44)) && walk_tables(&a, record + 72, take_places) &&
		walk_volumes(&a) && walk_tables(&a, record + 56, take_page) && count_hosted(&a) && compare(&a);
	while (a.segnos > 0) {
		free_tally(a.tally[--a.segnos]);
		a.tally[a.segnos] = NULL;
	}
	return right || (a.ended && !sim_failed());
}

/* ---- zones ---- */

/* By disk and zone: belongs to a segment. As of the last look. */
static uint8_t taken[SIM_DISKS_MAX][ZONES_MAX / 8];

static bool is_taken(uint32_t disk, uint32_t zone)
{
	return taken[disk][zone / 8] & 1u << zone % 8;
}

static bool take_zones(const struct segment *segment)
{
	for (uint32_t c = 0; c < (uint32_t)segment->policy.k + segment->policy.m; c++) {
		const struct zone_addr *zone = &segment->cols[c];

		if (zone->disk_id >= SIM_DISKS_MAX)
			continue;        /* lost, and not yet made again */
		if (is_taken(zone->disk_id, zone->zone)) {
			sim_fail("audit: zone %u of disk %u is in two segments", zone->zone, zone->disk_id);
			return false;
		}
		taken[zone->disk_id][zone->zone / 8] |= (uint8_t)(1u << zone->zone % 8);
	}
	return true;
}

static bool audit_zones(const struct catalog *cat)
{
	struct segment segment;

	memset(taken, 0, sizeof(taken));
	for (const struct cat_obj *obj = catalog_next(cat, CAT_SEGMENT, 0); obj;
	     obj = catalog_next(cat, CAT_SEGMENT, obj->id + 1)) {
		if (!segment_from_obj(obj, &segment) || !take_zones(&segment))
			return false;
	}
	return true;
}

static void poison_zone(struct sim_disk *disk, const struct label *label, uint32_t zone)
{
	static struct page *poison;
	uint32_t first = (uint32_t)((label->zones_off + (uint64_t)zone * label->zone_bytes) / PAGE_BYTES);

	if (!poison) {
		poison = page_new();
		memset(poison->data, 0xa5, PAGE_BYTES);
	}
	for (uint32_t at = first; at < first + label->zone_bytes / PAGE_BYTES; at++) {
		struct page *page = page_map_get(&disk->map, at);

		if (!page || page == poison)
			continue;
		page_ref(poison);
		page_map_set(&disk->map, at, poison);
	}
}

void audit_poison(struct world *w)
{
	if (!audit_zones(pool_catalog(w->pool)))
		return;
	for (uint32_t id = 0; id < w->pool->disk_count; id++) {
		const struct pool_disk *disk = w->pool->disks[id];

		if (!disk->disk)
			continue;
		for (uint32_t zone = w->life % 2; zone < disk->label.zone_count; zone += 2) {
			if (!is_taken(id, zone))
				poison_zone(sim_disk_of(w, disk), &disk->label, zone);
		}
	}
}

/* ---- all together ---- */

bool audit_pool(struct world *w)
{
	struct catalog *cat = pool_catalog(w->pool);

	if (w->config.within)
		return true; /* what the bad disk holds is to be reconstructed: not by this decoder */
	if (!audit_zones(cat))
		return false;
	for (const struct cat_obj *obj = catalog_next(cat, CAT_LINEAGE, 0); obj;
	     obj = catalog_next(cat, CAT_LINEAGE, obj->id + 1)) {
		if (!audit_lineage(w, obj))
			return false;
	}
	return true;
}
