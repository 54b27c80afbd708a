/* The catalog: the newest checkpoint that a disk has whole, and the journal behind it from whichever disk has each record. See
 * pool/catalog_format.h for the bytes. Puts and deletes are collected, then sorted: of each object the last one counts. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "tools/check/check_int.h"
#include "pool/base/crc32c.h"

#define RECORD_HEAD 64u
#define RECORD_PAYLOAD_MAX (128u << 10)
#define OBJECT_BYTES_MAX 2048u
#define READ_BYTES (1u << 20)

/* A valid checkpoint header. */
struct checkpoint {
	uint32_t half, payload_crc;
	uint64_t stamp, generation, seq, payload_bytes;
};

static bool read_at(const struct member *m, uint64_t off, void *buf, uint64_t len)
{
	uint8_t *at = buf;

	for (; len > 0; at += READ_BYTES, off += READ_BYTES, len -= len < READ_BYTES ? len : READ_BYTES) {
		if (m->disk->read(m->disk->arg, off, at, (uint32_t)(len < READ_BYTES ? len : READ_BYTES)) != 0)
			return false;
	}
	return true;
}

/* --- entries ----------------------------------------------------------------------------------------------------- */

static struct object *object_new(struct check *c)
{
	if (c->object_count == c->object_cap) {
		size_t cap = c->object_cap ? 2 * c->object_cap : 1024;
		struct object *objects = realloc(c->objects, cap * sizeof(*objects));

		if (!objects) {
			c->error = -ENOMEM;
			return NULL;
		}
		c->objects = objects;
		c->object_cap = cap;
	}
	return &c->objects[c->object_count];
}

static bool keep_payload(struct check *c, uint8_t *payload)
{
	uint8_t **payloads = realloc(c->payloads, (c->payload_count + 1) * sizeof(*payloads));

	if (!payloads) {
		free(payload);
		c->error = -ENOMEM;
		return false;
	}
	c->payloads = payloads;
	c->payloads[c->payload_count++] = payload;
	return true;
}

/* False: they are not valid. */
static bool take_entries(struct check *c, const uint8_t *at, uint64_t len)
{
	while (len > 0) {
		uint32_t data = len >= 16 ? (uint32_t)get(at + 8, 4) : NONE,
			 op = len >= 16 ? (uint32_t)get(at + 12, 4) : 0;
		uint64_t whole = 16 + ((uint64_t)data + 7) / 8 * 8;
		struct object *o;

		if (data > OBJECT_BYTES_MAX || whole > len || (op != 1 && op != 2) || (op == 2 && data > 0))
			return false;
		o = object_new(c);
		if (!o)
			return false;
		*o = (struct object){ get(at, 8), c->object_count, data, op == 2, at + 16 };
		c->object_count++;
		at += whole;
		len -= whole;
	}
	return true;
}

/* --- checkpoint -------------------------------------------------------------------------------------------------- */

static bool checkpoint_parse(const struct check *c, const uint8_t *b, uint32_t half, uint64_t area_bytes,
			     struct checkpoint *cp)
{
	if (memcmp(b, "pcatchkp", 8) != 0 || memcmp(b + 8, c->pool_uuid, UUID_BYTES) != 0 ||
	    !crc_is_right(b, BLOCK, 68))
		return false;
	*cp = (struct checkpoint){ half,           (uint32_t)get(b + 64, 4), get(b + 24, 8),
				   get(b + 32, 8), get(b + 40, 8),           get(b + 56, 8) };
	return cp->generation % 2 == half && cp->payload_bytes <= area_bytes - BLOCK;
}

static bool checkpoint_of(const struct check *c, const struct member *m, uint32_t half, struct checkpoint *cp)
{
	uint8_t block[BLOCK];

	return m->disk && read_at(m, m->checkpoint[half].off_bytes, block, BLOCK) &&
	       checkpoint_parse(c, block, half, m->checkpoint[half].len_bytes, cp);
}

static bool find_newest(const struct check *c, struct checkpoint *newest)
{
	bool found = false;

	for (uint32_t id = 0; id < CHECK_DISKS_MAX; id++) {
		for (uint32_t half = 0; half < 2; half++) {
			struct checkpoint cp;

			if (!checkpoint_of(c, &c->member[id], half, &cp) ||
			    (found && cp.generation <= newest->generation))
				continue;
			*newest = cp;
			found = true;
		}
	}
	return found;
}

static bool load_payload(struct check *c, const struct member *m, const struct checkpoint *cp)
{
	uint64_t whole = (cp->payload_bytes + BLOCK - 1) / BLOCK * BLOCK;
	uint8_t *payload = check_alloc(c, whole, 1);

	if (!payload)
		return false;
	if (!read_at(m, m->checkpoint[cp->half].off_bytes + BLOCK, payload, whole) ||
	    crc32c(0, payload, cp->payload_bytes) != cp->payload_crc) {
		free(payload);
		return false;
	}
	return keep_payload(c, payload) && take_entries(c, payload, cp->payload_bytes);
}

static bool load_checkpoint(struct check *c, const struct checkpoint *newest)
{
	for (uint32_t id = 0; id < CHECK_DISKS_MAX && !c->error; id++) {
		struct checkpoint cp;

		if (!checkpoint_of(c, &c->member[id], newest->half, &cp) || cp.stamp != newest->stamp ||
		    cp.generation != newest->generation)
			continue;
		c->object_count = 0;
		if (load_payload(c, &c->member[id], &cp))
			return true;
		problem(c, "the newest checkpoint of the catalog is damaged here", "disk %s", c->member[id].disk->name);
	}
	return false;
}

/* --- journal ----------------------------------------------------------------------------------------------------- */

/* The record of this number on this disk, in new memory. NULL: it is not there. */
static uint8_t *record_of(struct check *c, const struct member *m, const struct checkpoint *cp, uint64_t pos,
			  uint64_t seq)
{
	const struct area *area = &m->journal[cp->half];
	uint64_t left = area->len_bytes - pos, most = RECORD_HEAD + RECORD_PAYLOAD_MAX, whole;
	uint8_t head[BLOCK], *record;

	if (pos >= area->len_bytes || !read_at(m, area->off_bytes + pos, head, BLOCK))
		return NULL;
	whole = (RECORD_HEAD + get(head + 56, 4) + BLOCK - 1) / BLOCK * BLOCK;
	if (memcmp(head, "pcatrecd", 8) != 0 || memcmp(head + 8, c->pool_uuid, UUID_BYTES) != 0 ||
	    get(head + 24, 8) != cp->stamp || get(head + 32, 8) != cp->generation || get(head + 40, 8) != seq ||
	    RECORD_HEAD + get(head + 56, 4) > most || whole > left)
		return NULL;
	record = check_alloc(c, whole, 1);
	if (record && (!read_at(m, area->off_bytes + pos, record, whole) || !crc_is_right(record, whole, 60))) {
		free(record);
		record = NULL;
	}
	return record;
}

/* Bytes that it takes; 0: the journal ends here. */
static uint64_t load_record(struct check *c, const struct checkpoint *cp, uint64_t pos, uint64_t seq)
{
	for (uint32_t id = 0; id < CHECK_DISKS_MAX && !c->error; id++) {
		uint8_t *record = c->member[id].disk ? record_of(c, &c->member[id], cp, pos, seq) : NULL;
		uint64_t payload_bytes = record ? get(record + 56, 4) : 0;

		if (!record)
			continue;
		if (!keep_payload(c, record))
			return 0;
		if (!take_entries(c, record + RECORD_HEAD, payload_bytes) && !c->error)
			problem(c, "a transaction of the catalog makes no sense", "disk %s, transaction %llu",
				c->member[id].disk->name, (unsigned long long)seq);
		return (RECORD_HEAD + payload_bytes + BLOCK - 1) / BLOCK * BLOCK;
	}
	return 0;
}

/* --- objects ----------------------------------------------------------------------------------------------------- */

static int by_key(const void *a, const void *b)
{
	const struct object *x = a, *y = b;

	if (x->key != y->key)
		return x->key < y->key ? -1 : 1;
	return x->order < y->order ? -1 : x->order > y->order;
}

static void keep_last_ones(struct check *c)
{
	size_t kept = 0;

	qsort(c->objects, c->object_count, sizeof(*c->objects), by_key);
	for (size_t i = 0; i < c->object_count; i++) {
		bool last = i + 1 == c->object_count || c->objects[i + 1].key != c->objects[i].key;

		if (last && !c->objects[i].deleted)
			c->objects[kept++] = c->objects[i];
	}
	c->object_count = kept;
}

size_t object_from(const struct check *c, uint32_t kind, uint64_t id)
{
	uint64_t key = (uint64_t)kind << 56 | id;
	size_t low = 0, high = c->object_count;

	while (low < high) {
		size_t mid = (low + high) / 2;

		if (c->objects[mid].key < key)
			low = mid + 1;
		else
			high = mid;
	}
	return low;
}

bool object_is(const struct check *c, size_t i, uint32_t kind)
{
	return i < c->object_count && c->objects[i].key >> 56 == kind;
}

const struct object *object_find(const struct check *c, uint32_t kind, uint64_t id)
{
	size_t i = object_from(c, kind, id);

	return object_is(c, i, kind) && object_id(&c->objects[i]) == id ? &c->objects[i] : NULL;
}

bool catalog_read(struct check *c)
{
	struct checkpoint newest = { 0 };
	uint64_t pos = 0, seq, step;

	if (!find_newest(c, &newest))
		return problem(c, "no disk has a checkpoint of it", "catalog");
	if (!load_checkpoint(c, &newest))
		return problem(c, "no disk has its newest checkpoint whole", "catalog");
	for (seq = newest.seq + 1; (step = load_record(c, &newest, pos, seq)) > 0; seq++)
		pos += step;
	keep_last_ones(c);
	return !c->error;
}
