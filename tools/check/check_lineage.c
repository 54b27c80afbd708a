/* A lineage: its segments, and all that leads to their blocks, as its last checkpoint left it. See volumes/map_format.h for the
 * bytes, and volumes/place_format.h.
 *
 * First the batch headers tell which blocks are data. The liveness table tells which segments were moved, and the place blocks,
 * found by a tree of their own, where to. Then the trees of all images are walked, which share nodes: a node is gone into when
 * it is met for the first time, and met again counts as one reference more. Then come the pages of reference counts, found by
 * another tree. Tables, pages and their trees are referred to by nobody else, and every moved block in use must have a place to
 * itself. In the end what was found is compared with what counts and liveness say. Where a pointer is wrong the walk goes on
 * beside it, but nothing is compared: it could not agree. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tools/check/check_int.h"
#include "pool/base/crc32c.h"

#define PLACE_MAGIC 0x636c7070u
#define PART_BLOCKS 16384u
#define PIECES_MAX 168u
#define PLACED_OFF 32u
#define PIECES_OFF 2080u
#define PIECE_BYTES 12u
#define SEGNOS_MAX (1u << 24)
#define NODE_MAGIC 0x70616d70u
#define TABLE_MAGIC 0x76696c70u
#define BATCH_MAGIC 0x74616270u
#define ENTRIES_OFF 32u
#define NODE_ENTRY_BYTES 24u
#define NODE_ENTRIES_MAX 169u
#define TABLE_ENTRY_BYTES 16u
#define TABLE_ENTRIES_MAX 254u
#define LEVELS_MAX 12u
#define COUNTS_PER_PAGE 2048u
#define FLAG_SNAPSHOT 2u
#define FLAG_DELETED 4u
#define LINEAGE_BYTES 88u /* shorter: without places */

enum { OWN = 1, WITHIN = 2, HOSTED = 4 }; /* of tables or their trees; data of a batch; a moved block in use is here */

struct column {
	uint32_t disk, zone;
};

/* Where a block is that was moved. */
struct moved_to {
	uint32_t host, index;
};

struct segment {
	uint64_t grant, owner; /* grant 0: it was moved, and has no zones any more */
	uint32_t segno, sealed, stream, k, m;
	struct column col[COLS_MAX];
	/* what was found */
	uint32_t counted, told; /* blocks in use: found, and by the liveness table */
	uint16_t *found;        /* references to each block by images and their nodes */
	uint16_t *recorded;     /* the same by the pages of counts */
	uint8_t *flags;
	struct moved_to *place; /* of each block; NULL: it was not moved */
	uint32_t *below;        /* blocks mapped below a node */
};

struct lineage {
	struct check *c;
	uint64_t id;
	uint32_t k, m, blocks;    /* of a segment */
	struct segment **segment; /* [segno], NULL: none */
	uint32_t segnos;          /* all are below */
	bool broken;              /* nothing is to be compared */
};

/* --- segments ------------------------------------------------------------------------------------------------------ */

static bool segment_parse(const struct object *o, struct segment *s)
{
	const uint8_t *b = o->data;

	if (o->len_bytes < 24)
		return false;
	*s = (struct segment){
		.grant = object_id(o),
		.owner = get(b, 8),
		.segno = (uint32_t)get(b + 8, 4),
		.sealed = (uint32_t)get(b + 12, 4),
		.stream = b[16],
		.k = b[17],
		.m = b[18],
	};
	if (s->k == 0 || s->k + s->m > COLS_MAX || o->len_bytes != 24 + 8 * (s->k + s->m) || s->segno >= SEGNOS_MAX)
		return false;
	for (uint32_t i = 0; i < s->k + s->m; i++)
		s->col[i] = (struct column){ (uint32_t)get(b + 24 + 8 * i, 4), (uint32_t)get(b + 28 + 8 * i, 4) };
	return true;
}

static void zone_take(struct check *c, const struct segment *s, const struct column *col)
{
	const struct member *m = col->disk < CHECK_DISKS_MAX ? &c->member[col->disk] : NULL;
	uint8_t *byte, bit = (uint8_t)(1u << col->zone % 8);

	if (col->disk == NONE || (m && !m->disk))
		return; /* without a zone, or on a disk that is not here */
	if (!m || col->zone >= m->zone_count) {
		problem(c, "it lies beyond its disk", "segment of grant %llu", (unsigned long long)s->grant);
		return;
	}
	byte = &c->zone_taken[col->disk][col->zone / 8];
	if (*byte & bit)
		problem(c, "it is in two segments", "disk %s, zone %u", m->disk->name, col->zone);
	*byte |= bit;
}

static void disks_check(struct check *c)
{
	for (size_t i = object_from(c, KIND_DISK, 0); object_is(c, i, KIND_DISK); i++) {
		const struct object *o = &c->objects[i];
		uint64_t id = object_id(o);

		if (o->len_bytes != DISK_OBJECT_BYTES || id >= CHECK_DISKS_MAX)
			problem(c, "its object makes no sense", "disk number %llu", (unsigned long long)id);
		else if (get(o->data + 28, 4) == 0 && !c->member[id].disk && !c->opts->partial)
			problem(c, "it belongs to the pool and is in use, but was not given", "disk number %llu",
				(unsigned long long)id);
	}
}

void zones_check(struct check *c)
{
	struct segment s;

	disks_check(c);
	for (size_t i = object_from(c, KIND_SEGMENT, 0); object_is(c, i, KIND_SEGMENT); i++) {
		const struct object *o = &c->objects[i];

		c->counts->segments++;
		if (!segment_parse(o, &s)) {
			problem(c, "its object makes no sense", "segment of grant %llu",
				(unsigned long long)object_id(o));
			continue;
		}
		for (uint32_t col = 0; col < s.k + s.m; col++)
			zone_take(c, &s, &s.col[col]);
		if (!object_find(c, KIND_LINEAGE, s.owner))
			problem(c, "it belongs to a log that is not there", "segment of grant %llu",
				(unsigned long long)s.grant);
	}
}

static void segment_free(struct segment *s)
{
	if (!s)
		return;
	free(s->found);
	free(s->recorded);
	free(s->flags);
	free(s->below);
	free(s->place);
	free(s);
}

/* Makes room for the number. False: there is none. */
static bool make_slot(struct lineage *lin, uint32_t segno)
{
	uint32_t cap = segno + 1 > 2 * lin->segnos ? segno + 1 : 2 * lin->segnos;
	struct segment **slots;

	if (segno < lin->segnos)
		return true;
	slots = realloc(lin->segment, cap * sizeof(*slots));
	if (!slots) {
		lin->c->error = -ENOMEM;
		return false;
	}
	memset(slots + lin->segnos, 0, (cap - lin->segnos) * sizeof(*slots));
	lin->segment = slots;
	lin->segnos = cap;
	return true;
}

static struct segment *segment_add(struct lineage *lin, const struct segment *from)
{
	struct check *c = lin->c;
	struct segment *s = make_slot(lin, from->segno) ? check_alloc(c, 1, sizeof(*s)) : NULL;

	if (!s)
		return NULL;
	*s = *from;
	s->found = check_alloc(c, lin->blocks, sizeof(*s->found));
	s->recorded = check_alloc(c, lin->blocks, sizeof(*s->recorded));
	s->flags = check_alloc(c, lin->blocks, sizeof(*s->flags));
	s->below = s->stream == STREAM_OF_META ? check_alloc(c, lin->blocks, sizeof(*s->below)) : NULL;
	if (c->error) {
		segment_free(s);
		return NULL;
	}
	lin->segment[s->segno] = s;
	return s;
}

/* Those of this lineage. False: no memory. */
static bool segments_collect(struct lineage *lin)
{
	struct check *c = lin->c;
	struct segment s;

	for (size_t i = object_from(c, KIND_SEGMENT, 0); object_is(c, i, KIND_SEGMENT) && !c->error; i++) {
		if (!segment_parse(&c->objects[i], &s) || s.owner != lin->id)
			continue;
		if (s.k != lin->k || s.m != lin->m)
			problem(c, "its policy is not its log's", "lineage %llu, segment %u", (unsigned long long)lin->id, s.segno);
		else if (s.segno < lin->segnos && lin->segment[s.segno])
			problem(c, "two have this number", "lineage %llu, segment %u", (unsigned long long)lin->id, s.segno);
		else
			segment_add(lin, &s);
	}
	return !c->error;
}

/* --- blocks -------------------------------------------------------------------------------------------------------- */

static bool wrong(struct lineage *lin, const char *what, uint32_t segno, uint32_t index)
{
	lin->broken = true;
	return problem(lin->c, what, "lineage %llu, segment %u, block %u", (unsigned long long)lin->id, segno, index);
}

/* Also of a column that the catalog calls lost: what is accepted has its checksum. */
static bool read_cell(const struct lineage *lin, const struct segment *s, uint32_t col, uint32_t row, uint8_t *out)
{
	const struct column *at = &s->col[col];
	const struct member *m = at->disk < CHECK_DISKS_MAX ? &lin->c->member[at->disk] : NULL;
	uint64_t off;

	if (!m || !m->disk || at->zone >= m->zone_count)
		return false;
	off = m->zones_off + (uint64_t)at->zone * m->zone_bytes + (uint64_t)row * BLOCK;
	return m->disk->read(m->disk->arg, off, out, BLOCK) == 0;
}

/* From the other cells of its row. */
static bool restore(const struct lineage *lin, const struct segment *s, uint32_t index,
		    bool (*is_right)(const uint8_t *block, const void *arg), const void *arg, uint8_t *out)
{
	struct row row = { .k = s->k, .m = s->m, .cells = check_alloc(lin->c, s->k + s->m, BLOCK) };
	bool right;

	for (uint32_t col = 0; row.cells && col < s->k + s->m; col++) {
		if (read_cell(lin, s, col, index / s->k, row.cells[col]))
			row.present |= 1u << col;
	}
	right = row.cells && row_restore(&row, index % s->k, is_right, arg, out);
	free(row.cells);
	return right;
}

/* The host of a block that was moved; NULL: there is none. */
static struct segment *host_of(const struct lineage *lin, const struct moved_to *to)
{
	struct segment *host = to->host < lin->segnos ? lin->segment[to->host] : NULL;

	return host && !host->place && host->stream == STREAM_OF_MOVED && to->index < lin->blocks ? host : NULL;
}

/* A block that `is_right` accepts, from wherever it lies as it is. */
static bool read_block(const struct lineage *lin, const struct segment *s, uint32_t index,
		       bool (*is_right)(const uint8_t *block, const void *arg), const void *arg, uint8_t *out)
{
	uint32_t col, row;

	if (s->place) {
		const struct moved_to *to = &s->place[index];

		s = host_of(lin, to);
		index = to->index;
	}
	if (!s)
		return false;
	col = index % s->k;
	row = index / s->k;
	if (read_cell(lin, s, col, row, out) && is_right(out, arg))
		return true;
	for (uint32_t copy = 1; s->k == 1 && copy <= s->m; copy++) {
		if (read_cell(lin, s, copy, row, out) && is_right(out, arg))
			return true;
	}
	return s->k > 1 && s->m > 0 && restore(lin, s, index, is_right, arg, out);
}

static bool has_crc(const uint8_t *block, const void *arg)
{
	return crc32c(0, block, BLOCK) == *(const uint32_t *)arg;
}

static struct segment *segment_of(struct lineage *lin, const struct pointer *p, uint32_t stream)
{
	struct segment *s = p->segno < lin->segnos ? lin->segment[p->segno] : NULL;

	if (!s || (!s->place && s->stream != stream)) {
		wrong(lin, "a pointer leads to no segment of its kind", p->segno, p->index);
		return NULL;
	}
	if (p->index >= lin->blocks || (lin->c->opts->headers && !s->place && !(s->flags[p->index] & WITHIN))) {
		wrong(lin, "a pointer leads to where no batch has data", p->segno, p->index);
		return NULL;
	}
	return s;
}

/* Notes a reference by an image or a node. NULL: there cannot be one. */
static struct segment *refer(struct lineage *lin, const struct pointer *p, uint32_t stream)
{
	struct segment *s = segment_of(lin, p, stream);

	if (!s)
		return NULL;
	if (s->flags[p->index] & OWN) {
		wrong(lin, "a block is used for two things", p->segno, p->index);
		return NULL;
	}
	s->counted += s->found[p->index] == 0;
	lin->c->counts->blocks += s->found[p->index] == 0;
	s->found[p->index]++;
	return s;
}

/* Notes a block that is referred to once and has no count of its own; counted: but is in use. */
static struct segment *own(struct lineage *lin, const struct pointer *p, bool counted)
{
	struct segment *s = segment_of(lin, p, STREAM_OF_META);

	if (!s)
		return NULL;
	if (s->place || s->flags[p->index] & OWN || s->found[p->index] > 0) {
		wrong(lin, "a block is used for two things", p->segno, p->index);
		return NULL;
	}
	s->flags[p->index] |= OWN;
	s->counted += counted;
	return s;
}

static bool meta_block(struct lineage *lin, const struct segment *s, const struct pointer *p, uint32_t magic,
		       uint8_t *out)
{
	if (read_block(lin, s, p->index, has_crc, &p->crc, out) &&
	    (magic == 0 || (get(out, 4) == magic && get(out + 8, 8) == lin->id)))
		return true;
	return wrong(lin, "a block of the map, the counts or the liveness table is not what its pointer says", p->segno,
		     p->index);
}

/* --- batches ------------------------------------------------------------------------------------------------------- */

struct place {
	const struct lineage *lin;
	const struct segment *s;
	uint32_t index;
};

/* A header that was written for this place. */
static bool is_header(const uint8_t *b, const void *arg)
{
	const struct place *at = arg;

	return get(b, 4) == BATCH_MAGIC && get(b + 8, 8) == at->lin->id && get(b + 16, 8) == at->s->grant &&
	       get(b + 40, 4) == at->s->segno && get(b + 44, 4) == at->index && b[58] == at->s->stream &&
	       b[59] == at->s->k && b[60] == at->s->m && crc_is_right(b, BLOCK, 4);
}

/* Marks the data of all batches from the segment's start to the first place where there is none. */
static void batches_read(struct lineage *lin, struct segment *s)
{
	struct place at = { lin, s, 0 };
	uint8_t header[BLOCK];

	while (at.index < lin->blocks && at.index < s->sealed && read_block(lin, s, at.index, is_header, &at, header)) {
		uint64_t data = get(header + 48, 4), total = get(header + 52, 4);

		if (1 + data > total || total > lin->blocks - at.index) {
			wrong(lin, "a batch header makes no sense", s->segno, at.index);
			return;
		}
		for (uint32_t i = 1; i <= data; i++)
			s->flags[at.index + i] |= WITHIN;
		lin->c->counts->batches++;
		at.index += (uint32_t)total;
	}
}

/* --- maps ---------------------------------------------------------------------------------------------------------- */

/* A node that lies on a way from a root; keys below are in [low, end). */
struct spot {
	struct pointer p;
	uint32_t level;
	uint64_t low, end;
};

static bool map_node(struct lineage *lin, const struct segment *s, const struct spot *at, uint8_t *node,
		     uint32_t *count)
{
	uint64_t low = at->low;

	if (!meta_block(lin, s, &at->p, NODE_MAGIC, node))
		return false;
	lin->c->counts->nodes++;
	*count = (uint32_t)get(node + 6, 2);
	if (get(node + 4, 2) != at->level || *count == 0 || *count > NODE_ENTRIES_MAX)
		return wrong(lin, "a map node is not of its level, or empty", at->p.segno, at->p.index);
	for (uint32_t i = 0; i < *count; i++) {
		uint64_t key = get(node + ENTRIES_OFF + i * NODE_ENTRY_BYTES, 8);

		if (key < low || key >= at->end)
			return wrong(lin, "a map node's keys do not ascend in their range", at->p.segno, at->p.index);
		low = key + 1;
	}
	return true;
}

static struct spot child_of(const struct spot *at, const uint8_t *node, uint32_t i, uint32_t count)
{
	const uint8_t *entry = node + ENTRIES_OFF + i * NODE_ENTRY_BYTES;

	return (struct spot){ .p = get_pointer(entry + 8),
			      .level = at->level - 1,
			      .low = i > 0 ? get(entry, 8) : at->low,
			      .end = i + 1 < count ? get(entry + NODE_ENTRY_BYTES, 8) : at->end };
}

static void data_block(struct lineage *lin, const struct pointer *p)
{
	const struct segment *s = refer(lin, p, STREAM_OF_DATA);
	uint8_t block[BLOCK];

	if (!s || !lin->c->opts->data || s->found[p->index] > 1)
		return;
	lin->c->counts->verified++;
	if (!read_block(lin, s, p->index, has_crc, &p->crc, block))
		problem(lin->c, "its data cannot be read, or has not its checksum",
			"lineage %llu, segment %u, block %u", (unsigned long long)lin->id, p->segno, p->index);
}

/* *mapped: blocks below are added. */
static void walk(struct lineage *lin, const struct spot *at, uint64_t *mapped)
{
	struct segment *s = refer(lin, &at->p, STREAM_OF_META);
	uint8_t node[BLOCK];
	uint64_t below = 0;
	uint32_t count = 0;

	if (!s)
		return;
	if (s->found[at->p.index] > 1) {
		*mapped += s->below[at->p.index];
		return;
	}
	if (!map_node(lin, s, at, node, &count))
		return;
	for (uint32_t i = 0; i < count; i++) {
		struct spot child = child_of(at, node, i, count);

		if (at->level > 0)
			walk(lin, &child, &below);
		else
			data_block(lin, &child.p);
		below += at->level == 0;
	}
	s->below[at->p.index] = (uint32_t)below;
	*mapped += below;
}

/* An image without a record has never been in a checkpoint. */
static void image_walk(struct lineage *lin, const struct object *image)
{
	const struct object *map = object_find(lin->c, KIND_MAP, object_id(image));
	uint32_t height = map && map->len_bytes == 24 ? (uint32_t)get(map->data, 4) : 0;
	uint32_t flags = (uint32_t)get(image->data + 32, 4);
	uint64_t mapped = 0;

	lin->c->counts->snapshots += (flags & (FLAG_SNAPSHOT | FLAG_DELETED)) == FLAG_SNAPSHOT;
	lin->c->counts->volumes += (flags & (FLAG_SNAPSHOT | FLAG_DELETED)) == 0;
	if (height > LEVELS_MAX || (map && map->len_bytes != 24)) {
		wrong(lin, "the record of an image's map makes no sense", height, 0);
		return;
	}
	if (height > 0) {
		struct spot root = { .p = get_pointer(map->data + 4), .level = height - 1, .end = UINT64_MAX };

		walk(lin, &root, &mapped);
	}
	if (map && !(flags & FLAG_DELETED) && !lin->broken && get(map->data + 16, 8) != mapped)
		problem(lin->c, "its record is wrong about how many blocks are mapped", "lineage %llu, image %llu",
			(unsigned long long)lin->id, (unsigned long long)object_id(image));
}

static void images_walk(struct lineage *lin)
{
	struct check *c = lin->c;

	for (size_t i = object_from(c, KIND_VOLUME, 0); object_is(c, i, KIND_VOLUME); i++) {
		if (c->objects[i].len_bytes >= 120 && get(c->objects[i].data + 8, 8) == lin->id)
			image_walk(lin, &c->objects[i]);
	}
}

/* --- maps of tables -------------------------------------------------------------------------------------------------- */

typedef void take_fn(struct lineage *lin, uint64_t number, const struct pointer *p);

static void walk_table_map(struct lineage *lin, const struct spot *at, take_fn *take)
{
	const struct segment *s = own(lin, &at->p, true);
	uint8_t node[BLOCK];
	uint32_t count = 0;

	if (!s || !map_node(lin, s, at, node, &count))
		return;
	for (uint32_t i = 0; i < count; i++) {
		struct spot child = child_of(at, node, i, count);

		if (at->level > 0)
			walk_table_map(lin, &child, take);
		else
			take(lin, get(node + ENTRIES_OFF + i * NODE_ENTRY_BYTES, 8), &child.p);
	}
}

/* Height and root as the lineage's record has them. */
static void walk_tables(struct lineage *lin, const uint8_t *record, take_fn *take)
{
	uint32_t height = (uint32_t)get(record, 4);
	struct spot root = { .p = get_pointer(record + 4), .level = height - 1, .end = UINT64_MAX };

	if (height > LEVELS_MAX)
		wrong(lin, "a map of tables is too high", height, 0);
	else if (height > 0)
		walk_table_map(lin, &root, take);
}

/* --- reference counts ---------------------------------------------------------------------------------------------- */

static void take_page(struct lineage *lin, uint64_t number, const struct pointer *p)
{
	uint32_t per_segment = (lin->blocks + COUNTS_PER_PAGE - 1) / COUNTS_PER_PAGE;
	struct segment *of = number / per_segment < lin->segnos ? lin->segment[number / per_segment] : NULL;
	uint32_t first = (uint32_t)(number % per_segment) * COUNTS_PER_PAGE;
	const struct segment *s = own(lin, p, true);
	uint8_t page[BLOCK];

	if (!of)
		wrong(lin, "there are counts for a segment that is not there", (uint32_t)(number / per_segment), 0);
	if (!of || !s || !meta_block(lin, s, p, 0, page))
		return;
	for (uint32_t i = 0; i < COUNTS_PER_PAGE && first + i < lin->blocks; i++)
		of->recorded[first + i] = (uint16_t)get(page + 2 * (size_t)i, 2);
}

/* --- liveness ------------------------------------------------------------------------------------------------------ */

/* Its zones may be there yet. NULL: it is named twice, or there is no memory. */
static struct segment *segment_moved(struct lineage *lin, uint32_t segno)
{
	struct segment none = { .segno = segno, .k = lin->k, .m = lin->m };
	struct segment *s = segno < lin->segnos ? lin->segment[segno] : NULL;

	if (!s)
		s = segment_add(lin, &none);
	if (!s || s->place)
		return NULL;
	s->place = check_alloc(lin->c, lin->blocks, sizeof(*s->place));
	if (!s->below)
		s->below = check_alloc(lin->c, lin->blocks, sizeof(*s->below));
	if (s->place)
		memset(s->place, 0xff, lin->blocks * sizeof(*s->place));
	return lin->c->error ? NULL : s;
}

static struct segment *segment_told(struct lineage *lin, uint32_t segno, uint64_t grant)
{
	struct segment *s;

	if (grant == 0)
		return segno < SEGNOS_MAX ? segment_moved(lin, segno) : NULL;
	s = segno < lin->segnos ? lin->segment[segno] : NULL;
	return s && !s->place && s->grant == grant ? s : NULL;
}

static void take_told(struct lineage *lin, const uint8_t *entry)
{
	uint32_t segno = (uint32_t)get(entry + 8, 4), live = (uint32_t)get(entry + 12, 4);
	struct segment *s = segment_told(lin, segno, get(entry, 8));

	if (!s || s->told > 0 || live == 0)
		wrong(lin, "the liveness table names a segment that is not there, twice, or without need", segno, 0);
	else
		s->told = live;
}

static void read_table(struct lineage *lin, struct pointer p)
{
	while (p.segno != NONE) {
		const struct segment *s = own(lin, &p, false);
		uint8_t block[BLOCK];
		uint32_t count;

		if (!s || !meta_block(lin, s, &p, TABLE_MAGIC, block))
			return;
		count = (uint32_t)get(block + 4, 4);
		if (count > TABLE_ENTRIES_MAX) {
			wrong(lin, "a block of the liveness table has too many entries", p.segno, p.index);
			return;
		}
		for (uint32_t i = 0; i < count; i++)
			take_told(lin, block + ENTRIES_OFF + i * TABLE_ENTRY_BYTES);
		p = get_pointer(block + 16);
	}
}

/* --- places -------------------------------------------------------------------------------------------------------- */

/* Where each block of a part is. False: the pieces are not in order. */
static bool place_blocks(const struct lineage *lin, struct segment *s, uint32_t first, const uint8_t *block)
{
	uint32_t count = (uint32_t)get(block + 12, 4), n = 0;
	struct moved_to to = { NONE, 0 };

	for (uint32_t i = 0; i < PART_BLOCKS && first + i < lin->blocks; i++) {
		const uint8_t *piece = block + PIECES_OFF + (size_t)n * PIECE_BYTES;

		if (n < count && get(piece, 4) == i) {
			to = (struct moved_to){ (uint32_t)get(piece + 4, 4), (uint32_t)get(piece + 8, 4) };
			n++;
		}
		if (!(block[PLACED_OFF + i / 8] >> i % 8 & 1))
			continue;
		s->place[first + i] = to;
		to.index++;
	}
	return n == count;
}

static void take_places(struct lineage *lin, uint64_t number, const struct pointer *p)
{
	uint32_t parts = (lin->blocks + PART_BLOCKS - 1) / PART_BLOCKS, part = (uint32_t)(number % parts);
	struct segment *of = number / parts < lin->segnos ? lin->segment[number / parts] : NULL;
	const struct segment *in = own(lin, p, true);
	uint8_t block[BLOCK];

	if (!of || !of->place)
		wrong(lin, "there are places for a segment that was not moved", (uint32_t)(number / parts), 0);
	if (!of || !of->place || !in || !meta_block(lin, in, p, 0, block))
		return;
	if (get(block, 4) != PLACE_MAGIC || get(block + 4, 4) != number / parts || get(block + 8, 4) != part ||
	    get(block + 12, 4) == 0 || get(block + 12, 4) > PIECES_MAX || get(block + 16, 8) != lin->id ||
	    !place_blocks(lin, of, part * PART_BLOCKS, block))
		wrong(lin, "a place block makes no sense", p->segno, p->index);
}

/* Each block in use has a place of its own, where a batch has data. */
static void count_hosted(struct lineage *lin, struct segment *s)
{
	for (uint32_t i = 0; s->place && i < lin->blocks; i++) {
		struct segment *host = s->found[i] > 0 ? host_of(lin, &s->place[i]) : NULL;
		uint8_t *flags = host ? &host->flags[s->place[i].index] : NULL;

		if (s->found[i] == 0)
			continue;
		if (!host || *flags & HOSTED || (lin->c->opts->headers && !(*flags & WITHIN))) {
			wrong(lin, "a moved block has no place, or not to itself", s->segno, i);
			continue;
		}
		*flags |= HOSTED;
		host->counted++;
	}
}

/* --- comparing ------------------------------------------------------------------------------------------------------ */

static bool counts_agree(struct lineage *lin, const struct segment *s)
{
	for (uint32_t i = 0; i < lin->blocks; i++) {
		char what[96];

		if (s->found[i] == s->recorded[i])
			continue;
		snprintf(what, sizeof(what), "it has %u references, but %u are recorded", s->found[i], s->recorded[i]);
		return problem(lin->c, what, "lineage %llu, segment %u, block %u", (unsigned long long)lin->id,
			       s->segno, i);
	}
	return true;
}

/* The first block of a segment that is wrong will do. */
static void compare(struct lineage *lin, struct segment *s)
{
	char what[96];

	if (!counts_agree(lin, s) || s->counted == s->told)
		return;
	snprintf(what, sizeof(what), "it has %u blocks in use, but the liveness table says %u", s->counted, s->told);
	problem(lin->c, what, "lineage %llu, segment %u", (unsigned long long)lin->id, s->segno);
}

/* --- all of it ------------------------------------------------------------------------------------------------------ */

static void each_segment(struct lineage *lin, void (*fn)(struct lineage *lin, struct segment *s))
{
	for (uint32_t i = 0; i < lin->segnos; i++) {
		if (lin->segment[i])
			fn(lin, lin->segment[i]);
	}
}

static void lineage_run(struct lineage *lin, const struct object *o)
{
	if (lin->c->opts->headers)
		each_segment(lin, batches_read);
	read_table(lin, get_pointer(o->data + 44));
	if (o->len_bytes >= LINEAGE_BYTES)
		walk_tables(lin, o->data + 72, take_places);
	images_walk(lin);
	walk_tables(lin, o->data + 56, take_page);
	each_segment(lin, count_hosted);
	if (!lin->broken)
		each_segment(lin, compare);
}

void lineage_check(struct check *c, const struct object *o)
{
	struct lineage lin = { .c = c, .id = object_id(o) };

	c->counts->lineages++;
	if (o->len_bytes < 72 || o->data[4] == 0 || o->data[4] + o->data[5] > COLS_MAX) {
		problem(c, "its object makes no sense", "lineage %llu", (unsigned long long)lin.id);
		return;
	}
	lin.k = o->data[4];
	lin.m = o->data[5];
	lin.blocks = lin.k * (c->zone_bytes / BLOCK);
	if (segments_collect(&lin))
		lineage_run(&lin, o);
	for (uint32_t i = 0; i < lin.segnos; i++)
		segment_free(lin.segment[i]);
	free(lin.segment);
}
