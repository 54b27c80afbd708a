/* Bytes of the catalog: entries, checkpoint headers, journal records; building, checking and printing them.
 *
 * Nothing here waits or allocates except the transaction builder. Every decoder takes memory of any content and never
 * looks beyond the length it was given. */
#include "pool/catalog_format.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "pool/base/crc32c.h"
#include "pool/base/mem.h"

/* --- entries ------------------------------------------------------------------------------------------------ */

static bool kind_is_known(uint64_t kind)
{
	switch (kind) {
#define X(name, number, what) case number:
		CATALOG_KINDS(X)
#undef X
		return true;
	default: return false;
	}
}

static const char *kind_name(enum catalog_kind kind)
{
	switch (kind) {
#define X(name, number, what) \
	case CAT_##name: return #name;
		CATALOG_KINDS(X)
#undef X
	}
	return "?";
}

static bool is_zero(const uint8_t *bytes, size_t len)
{
	while (len--)
		if (*bytes++)
			return false;
	return true;
}

int cat_entry_next(const uint8_t *payload, uint64_t payload_bytes, uint64_t *pos, struct cat_entry *entry)
{
	const uint8_t *at = payload + *pos;
	uint64_t left = payload_bytes - *pos;
	struct cat_entry_head head;
	uint32_t len, op, whole;

	if (left == 0)
		return 0;
	if (left < sizeof(head))
		return -EAGAIN;
	memcpy(&head, at, sizeof(head));
	entry->key = le64_get(head.key);
	len = le32_get(head.len_bytes);
	op = le32_get(head.op);
	if (!kind_is_known(entry->key >> CAT_ID_BITS) || len > CATALOG_OBJ_MAX)
		return -EUCLEAN;
	if (op != CAT_OP_PUT && !(op == CAT_OP_DEL && len == 0))
		return -EUCLEAN;
	whole = cat_entry_bytes(len);
	if (left < whole)
		return -EAGAIN;
	if (!is_zero(at + sizeof(head) + len, whole - sizeof(head) - len))
		return -EUCLEAN;
	entry->op = op;
	entry->obj = (struct cat_obj){
		.kind = entry->key >> CAT_ID_BITS,
		.id = entry->key & ((1ull << CAT_ID_BITS) - 1),
		.len_bytes = len,
		.data = at + sizeof(head),
	};
	*pos += whole;
	return 1;
}

char *cat_entry_to_text(const struct cat_entry *entry, char text[CAT_TEXT_BYTES])
{
	snprintf(text, CAT_TEXT_BYTES, "%s %s %" PRIu64 " (%u bytes)", entry->op == CAT_OP_PUT ? "put" : "delete",
		 kind_name(entry->obj.kind), entry->obj.id, entry->obj.len_bytes);
	return text;
}

/* --- transactions -------------------------------------------------------------------------------------------- */

void cat_txn_init(struct cat_txn *txn)
{
	*txn = (struct cat_txn){ 0 };
}

void cat_txn_release(struct cat_txn *txn)
{
	mem_free(txn->buf);
	cat_txn_init(txn);
}

/* Room for `bytes` more, or NULL with the transaction's error set. */
static uint8_t *txn_reserve(struct cat_txn *txn, uint32_t bytes)
{
	uint64_t need = (uint64_t)txn->len_bytes + bytes, cap = txn->cap_bytes ? txn->cap_bytes : 256;
	uint8_t *buf;

	if (txn->error)
		return NULL;
	while (cap < need)
		cap *= 2;
	if (cap > txn->cap_bytes) {
		buf = cap > UINT32_MAX ? NULL : mem_alloc(cap);
		if (!buf) {
			txn->error = -ENOMEM;
			return NULL;
		}
		if (txn->len_bytes)
			memcpy(buf, txn->buf, txn->len_bytes);
		mem_free(txn->buf);
		txn->buf = buf;
		txn->cap_bytes = (uint32_t)cap;
	}
	buf = txn->buf + txn->len_bytes;
	txn->len_bytes += bytes;
	return buf;
}

/* Writes an entry of cat_entry_bytes(len_bytes). */
void cat_entry_encode(uint8_t *at, uint64_t key, enum cat_op op, const void *data, uint32_t len_bytes)
{
	struct cat_entry_head head = { .key = le64_of(key), .len_bytes = le32_of(len_bytes), .op = le32_of(op) };
	uint32_t padding = cat_entry_bytes(len_bytes) - (uint32_t)sizeof(head) - len_bytes;

	memcpy(at, &head, sizeof(head));
	if (len_bytes)
		memcpy(at + sizeof(head), data, len_bytes);
	memset(at + sizeof(head) + len_bytes, 0, padding);
}

static void txn_add(struct cat_txn *txn, enum catalog_kind kind, uint64_t id, enum cat_op op, const void *data,
		    uint32_t len_bytes)
{
	uint8_t *at;

	assert(kind_is_known(kind) && id < 1ull << CAT_ID_BITS && len_bytes <= CATALOG_OBJ_MAX);
	at = txn_reserve(txn, cat_entry_bytes(len_bytes));
	if (at)
		cat_entry_encode(at, cat_key(kind, id), op, data, len_bytes);
}

void cat_put(struct cat_txn *txn, enum catalog_kind kind, uint64_t id, const void *data, uint32_t len_bytes)
{
	txn_add(txn, kind, id, CAT_OP_PUT, data, len_bytes);
}

void cat_del(struct cat_txn *txn, enum catalog_kind kind, uint64_t id)
{
	txn_add(txn, kind, id, CAT_OP_DEL, NULL, 0);
}

/* --- checkpoint header ----------------------------------------------------------------------------------------- */

/* CRC32C of bytes with the le32 at crc_off taken as 0. */
static uint32_t crc_without(const void *bytes, size_t len, size_t crc_off)
{
	static const le32 zero;
	const uint8_t *at = bytes;
	const size_t after = crc_off + sizeof(zero);

	return crc32c(crc32c(crc32c(0, at, crc_off), &zero, sizeof(zero)), at + after, len - after);
}

static uint32_t checkpoint_crc(const struct checkpoint_block *block)
{
	return crc_without(block, sizeof(*block), offsetof(struct checkpoint_block, crc));
}

void checkpoint_seal(struct checkpoint_block *block)
{
	memcpy(block->magic, CHECKPOINT_MAGIC, sizeof(block->magic));
	block->crc = le32_of(checkpoint_crc(block));
}

bool checkpoint_validate(const struct checkpoint_block *block, const uint8_t pool_uuid[16], uint32_t half,
			 uint64_t area_bytes)
{
	uint64_t generation = le64_get(block->generation);

	if (memcmp(block->magic, CHECKPOINT_MAGIC, sizeof(block->magic)) != 0 ||
	    le32_get(block->crc) != checkpoint_crc(block))
		return false;
	if (memcmp(block->pool_uuid, pool_uuid, sizeof(block->pool_uuid)) != 0 || generation % 2 != half)
		return false;
	if (generation >= CAT_COUNTER_MAX || le64_get(block->seq) >= CAT_COUNTER_MAX)
		return false;
	return le64_get(block->settled_seq) <= le64_get(block->seq) && le64_get(block->next_id) <= CAT_NEXT_ID_MAX &&
	       le64_get(block->payload_bytes) <= area_bytes - sizeof(*block);
}

char *checkpoint_to_text(const struct checkpoint_block *block, char text[CAT_TEXT_BYTES])
{
	snprintf(text, CAT_TEXT_BYTES,
		 "checkpoint generation %" PRIu64 " stamp %016" PRIx64 " seq %" PRIu64 " next_id %" PRIu64
		 " payload %" PRIu64 " bytes",
		 le64_get(block->generation), le64_get(block->stamp), le64_get(block->seq), le64_get(block->next_id),
		 le64_get(block->payload_bytes));
	return text;
}

/* --- journal record --------------------------------------------------------------------------------------------- */

static uint32_t record_crc(const struct record_head *head)
{
	return crc_without(head, record_bytes(le32_get(head->payload_bytes)), offsetof(struct record_head, crc));
}

void record_seal(struct record_head *head)
{
	memcpy(head->magic, RECORD_MAGIC, sizeof(head->magic));
	head->crc = le32_of(record_crc(head));
}

bool record_validate(const struct record_head *head, uint64_t avail_bytes, const struct cat_ident *ident)
{
	uint32_t payload_bytes;

	if (avail_bytes < CAT_BLOCK_BYTES || memcmp(head->magic, RECORD_MAGIC, sizeof(head->magic)) != 0)
		return false;
	if (memcmp(head->pool_uuid, ident->pool_uuid, sizeof(head->pool_uuid)) != 0 ||
	    le64_get(head->stamp) != ident->stamp || le64_get(head->generation) != ident->generation)
		return false;
	payload_bytes = le32_get(head->payload_bytes);
	if (payload_bytes == 0 || payload_bytes > RECORD_PAYLOAD_MAX || record_bytes(payload_bytes) > avail_bytes)
		return false;
	return le64_get(head->next_id) <= CAT_NEXT_ID_MAX && le32_get(head->crc) == record_crc(head);
}

char *record_to_text(const struct record_head *head, char text[CAT_TEXT_BYTES])
{
	snprintf(text, CAT_TEXT_BYTES,
		 "record generation %" PRIu64 " stamp %016" PRIx64 " seq %" PRIu64 " next_id %" PRIu64
		 " payload %u bytes",
		 le64_get(head->generation), le64_get(head->stamp), le64_get(head->seq), le64_get(head->next_id),
		 le32_get(head->payload_bytes));
	return text;
}
