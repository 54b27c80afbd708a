/* Inside tools/check/. */
#ifndef TOOLS_CHECK_CHECK_INT_H
#define TOOLS_CHECK_CHECK_INT_H

#include <stddef.h>

#include "tools/check/check.h"

#define BLOCK 4096u
#define COLS_MAX 24u
#define NONE UINT32_MAX
#define UUID_BYTES 16

#define DISK_OBJECT_BYTES 120u

enum { KIND_POOL = 1, KIND_DISK, KIND_SEGMENT, KIND_LINEAGE, KIND_VOLUME, KIND_MAP };
enum { STREAM_OF_DATA, STREAM_OF_META, STREAM_OF_MOVED };

/* An area of a disk. */
struct area {
	uint64_t off_bytes, len_bytes;
};

/* A disk with a label. */
struct member {
	const struct check_disk *disk; /* NULL: not there */
	uint8_t pool_uuid[UUID_BYTES];
	uint64_t generation, zones_off, disk_bytes;
	uint32_t id, zone_bytes, zone_count;
	struct area checkpoint[2], journal[2];
};

/* An object of the catalog. */
struct object {
	uint64_t key;   /* kind << 56 | id */
	uint64_t order; /* of puts and deletes: the last one counts */
	uint32_t len_bytes;
	bool deleted;
	const uint8_t *data; /* in a payload */
};

struct pointer {
	uint32_t segno, index, crc;
};

struct check {
	const struct check_opts *opts;
	struct check_counts *counts;
	struct member member[CHECK_DISKS_MAX]; /* by id */
	uint32_t zone_bytes;
	const uint8_t *pool_uuid;
	struct object *objects; /* by key */
	size_t object_count, object_cap;
	uint8_t **payloads; /* of the objects */
	size_t payload_count;
	uint8_t *zone_taken[CHECK_DISKS_MAX]; /* bit a zone */
	int error;                            /* -ENOMEM */
};

/* Little-endian, of 1 to 8 bytes. */
static inline uint64_t get(const uint8_t *at, uint32_t bytes)
{
	uint64_t value = 0;

	while (bytes-- > 0)
		value = value << 8 | at[bytes];
	return value;
}

static inline struct pointer get_pointer(const uint8_t *at)
{
	return (struct pointer){ (uint32_t)get(at, 4), (uint32_t)get(at + 4, 4), (uint32_t)get(at + 8, 4) };
}

static inline uint64_t object_id(const struct object *o)
{
	return o->key & ((1ull << 56) - 1);
}

/* --- check.c --- */

/* Tells it; false. */
bool problem(struct check *c, const char *what, const char *where_fmt, ...) __attribute__((format(printf, 3, 4)));
/* NULL: the error is noted. */
void *check_alloc(struct check *c, size_t count, size_t each_bytes);
/* The block has this field as its CRC32C, counted with the field 0. */
bool crc_is_right(const uint8_t *bytes, size_t len_bytes, uint32_t crc_off);

/* --- check_label.c --- */

bool labels_read(struct check *c, const struct check_disk *disks, uint32_t count);

/* --- check_catalog.c --- */

bool catalog_read(struct check *c);
/* NULL: none. */
const struct object *object_find(const struct check *c, uint32_t kind, uint64_t id);
/* Index of the first object of the kind with an id from this one on; object_count: none. */
size_t object_from(const struct check *c, uint32_t kind, uint64_t id);
bool object_is(const struct check *c, size_t i, uint32_t kind);

/* --- check_rows.c --- */

/* A row of an erasure code. */
struct row {
	uint32_t k, m;
	uint32_t present; /* bit c: column c could be read */
	uint8_t (*cells)[BLOCK];
};
/* Data cell `want` from k others, in whatever choice of them is_right accepts. */
bool row_restore(const struct row *row, uint32_t want, bool (*is_right)(const uint8_t *block, const void *arg),
		 const void *arg, uint8_t *out);

/* --- check_lineage.c --- */

void lineage_check(struct check *c, const struct object *lineage);
/* All segments: each within its disks, none where another is. */
void zones_check(struct check *c);

#endif
