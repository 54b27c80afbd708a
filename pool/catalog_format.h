/* On disk: the catalog. Each disk has two halves, each half a checkpoint area and a journal area (see label_format.h).
 * Generation g of the catalog lives in half g % 2, on all disks alike.
 *
 * Entry: one object put or deleted. Entries stand back to back in payloads.
 *
 *   off  size  field
 *     0     8  key            kind << 56 | id
 *     8     4  len_bytes      of data; at most 2048, 0 when op is 2
 *    12     4  op             1 put, 2 delete
 *    16   len  data
 *     .     .  zeroes up to a multiple of 8
 *
 * Valid if and only if: it lies wholly inside its payload, the kind is known, op and len_bytes are as said, the padding
 * is zero.
 *
 * Checkpoint: a header block at the start of the area and the payload behind it. Applied to nothing, its entries in
 * their order give the catalog at sequence number `seq`.
 *
 *     0     8  magic          "pcatchkp"
 *     8    16  pool_uuid
 *    24     8  stamp          random; all records of this checkpoint's journal repeat it
 *    32     8  generation     from 1
 *    40     8  seq            of the last transaction contained
 *    48     8  next_id        all numbers handed out are below it
 *    56     8  payload_bytes  <= the area - 4096
 *    64     4  payload_crc    CRC32C of the payload
 *    68     4  crc            CRC32C of these 4096 bytes with this field 0
 *    72     8  settled_seq    transactions up to here were on every disk in use when this was written
 *    80     4  all_here       1: no disk of the pool was out or missing; 0
 *    84  4012  zero
 *
 * The header is written when the payload has been flushed on all disks: a valid header over an invalid payload is damage,
 * not a crash. Valid if and only if: magic, crc and pool_uuid match, generation % 2 is the half, generation < 2^62,
 * settled_seq <= seq < 2^62, next_id <= 2^55, payload_bytes fits the area; payload_crc matches and every entry is valid.
 *
 * Journal record: one transaction, or several that were committed together. The first one stands at the start of the
 * journal area, each next one behind its predecessor.
 *
 *     0     8  magic          "pcatrecd"
 *     8    16  pool_uuid
 *    24     8  stamp          of the checkpoint
 *    32     8  generation     of the checkpoint
 *    40     8  seq            checkpoint's + 1, + 2, ...
 *    48     8  next_id
 *    56     4  payload_bytes  1 .. 131072
 *    60     4  crc            CRC32C of header, payload and padding with this field 0
 *    64     .  payload, then zeroes up to a multiple of 4096
 *
 * Valid if and only if: magic, crc, pool_uuid, stamp and generation match, seq is the expected one, next_id is not below
 * the last one and <= 2^55, payload_bytes is in range and the record fits the area; and every entry is valid.
 *
 * A record is written on all disks, then flushed on all disks; only then is it acknowledged, and only then is the next
 * one written. So the journal ends at the first place where no disk has the expected record, and no disk can lack more
 * than the last one. Stale blocks of earlier generations never match stamp and generation. */
#ifndef POOL_CATALOG_FORMAT_H
#define POOL_CATALOG_FORMAT_H

#include <assert.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "pool/base/le.h"
#include "pool/catalog.h"

#define CAT_BLOCK_BYTES 4096u
#define CHECKPOINT_MAGIC "pcatchkp"
#define RECORD_MAGIC "pcatrecd"
#define RECORD_PAYLOAD_MAX (128u << 10)
#define CAT_NEXT_ID_MAX (1ull << 55)
#define CAT_COUNTER_MAX (1ull << 62) /* generation, seq */
#define CAT_ID_BITS 56

enum cat_op {
	CAT_OP_PUT = 1,
	CAT_OP_DEL = 2,
};

struct cat_entry_head {
	le64 key;
	le32 len_bytes, op;
};

struct checkpoint_block {
	uint8_t magic[8], pool_uuid[16];
	le64 stamp, generation, seq, next_id, payload_bytes;
	le32 payload_crc, crc;
	le64 settled_seq;
	le32 all_here;
	uint8_t zero[4012];
};

struct record_head {
	uint8_t magic[8], pool_uuid[16];
	le64 stamp, generation, seq, next_id;
	le32 payload_bytes, crc;
};

static_assert(sizeof(struct cat_entry_head) == 16, "catalog entry");
static_assert(sizeof(struct checkpoint_block) == CAT_BLOCK_BYTES, "checkpoint");
static_assert(offsetof(struct checkpoint_block, stamp) == 24, "checkpoint");
static_assert(offsetof(struct checkpoint_block, payload_crc) == 64, "checkpoint");
static_assert(offsetof(struct checkpoint_block, settled_seq) == 72, "checkpoint");
static_assert(offsetof(struct checkpoint_block, all_here) == 80, "checkpoint");
static_assert(offsetof(struct checkpoint_block, zero) == 84, "checkpoint");
static_assert(sizeof(struct record_head) == 64, "record");
static_assert(offsetof(struct record_head, stamp) == 24, "record");
static_assert(offsetof(struct record_head, payload_bytes) == 56, "record");

/* A put or delete as it stands in a payload; data points into the payload. */
struct cat_entry {
	uint64_t key;
	enum cat_op op;
	struct cat_obj obj;
};

/* What names a checkpoint and its journal. */
struct cat_ident {
	uint8_t pool_uuid[16];
	uint64_t stamp, generation;
};

#define CAT_TEXT_BYTES 256

static inline uint64_t cat_key(enum catalog_kind kind, uint64_t id)
{
	return (uint64_t)kind << CAT_ID_BITS | id;
}

/* Size of an entry with len_bytes of data. */
static inline uint32_t cat_entry_bytes(uint32_t len_bytes)
{
	return (uint32_t)sizeof(struct cat_entry_head) + (len_bytes + 7) / 8 * 8;
}

/* Size on disk of a record with this payload. */
static inline uint32_t record_bytes(uint32_t payload_bytes)
{
	return ((uint32_t)sizeof(struct record_head) + payload_bytes + CAT_BLOCK_BYTES - 1) / CAT_BLOCK_BYTES *
	       CAT_BLOCK_BYTES;
}

/* Decodes the entry at *pos and moves *pos behind it. 1; 0 at the end; -EAGAIN: cut off by the end; -EUCLEAN: invalid. */
int cat_entry_next(const uint8_t *payload, uint64_t payload_bytes, uint64_t *pos, struct cat_entry *entry);
/* Writes an entry of cat_entry_bytes(len_bytes). */
void cat_entry_encode(uint8_t *at, uint64_t key, enum cat_op op, const void *data, uint32_t len_bytes);
char *cat_entry_to_text(const struct cat_entry *entry, char text[CAT_TEXT_BYTES]);

/* Fills in magic and crc; the other fields are set. */
void checkpoint_seal(struct checkpoint_block *block);
/* All that can be said without the payload. area_bytes: size of the checkpoint area. */
bool checkpoint_validate(const struct checkpoint_block *block, const uint8_t pool_uuid[16], uint32_t half,
			 uint64_t area_bytes);
char *checkpoint_to_text(const struct checkpoint_block *block, char text[CAT_TEXT_BYTES]);

/* As checkpoint_seal; `head` stands at the start of its record_bytes(). */
void record_seal(struct record_head *head);
/* All but seq, next_id against the last one, and the entries, which are the caller's to check. avail_bytes: memory (and
 * journal area) from head on. */
bool record_validate(const struct record_head *head, uint64_t avail_bytes, const struct cat_ident *ident);
char *record_to_text(const struct record_head *head, char text[CAT_TEXT_BYTES]);

#endif
