/* The batch header: seal, validate, print. Everything that decodes a batch goes through batch_header_validate once and
 * relies on it afterwards. */
#include "volumes/batch_format.h"

#include <stdio.h>

#include "pool/base/crc32c.h"

static uint32_t header_crc(const struct batch_header *h)
{
	static const uint8_t zero[4];
	uint32_t crc = crc32c(0, h, offsetof(struct batch_header, crc));

	crc = crc32c(crc, zero, sizeof(zero));
	return crc32c(crc, &h->lineage, sizeof(*h) - offsetof(struct batch_header, lineage));
}

void batch_header_seal(struct batch_header *h)
{
	h->magic = le32_of(BATCH_MAGIC);
	h->crc = le32_of(header_crc(h));
}

static bool place_matches(const struct batch_header *h, const struct batch_place *place)
{
	return le64_get(h->lineage) == place->lineage && le64_get(h->grant) == place->grant &&
	       le32_get(h->segno) == place->segno && le32_get(h->index) == place->index && h->k == place->policy.k &&
	       h->m == place->policy.m && h->stream == place->stream;
}

static bool sizes_add_up(const struct batch_header *h, const struct batch_place *place)
{
	uint32_t data = le32_get(h->data_blocks), extents = le16_get(h->extent_count);
	uint32_t total = le32_get(h->total_blocks);

	if (data > BATCH_BODY_BYTES / sizeof(le32))
		return false;
	if (extents * sizeof(struct batch_extent) + data * sizeof(le32) > BATCH_BODY_BYTES)
		return false;
	return total == batch_total_blocks(data, place->policy.k) && place->index < place->segment_blocks &&
	       total <= place->segment_blocks - place->index;
}

static bool op_of_stream(uint32_t op, uint8_t stream)
{
	switch (stream) {
	case STREAM_DATA: return op == BATCH_DATA || op == BATCH_HOLE;
	case STREAM_META: return op == BATCH_META;
	default: return op == BATCH_MOVED;
	}
}

static bool extents_valid(const struct batch_header *h)
{
	const struct batch_extent *e = batch_extents(h);
	uint64_t data = 0;

	for (uint32_t i = 0; i < le16_get(h->extent_count); i++) {
		uint64_t lba = le64_get(e[i].lba), count = batch_extent_count(&e[i]);
		uint32_t op = le32_get(e[i].op);

		if (!op_of_stream(op, h->stream))
			return false;
		if (count == 0 || count > BATCH_LBA_MAX || lba > BATCH_LBA_MAX - count)
			return false;
		if (op != BATCH_HOLE)
			data += count;
	}
	return data == le32_get(h->data_blocks);
}

bool batch_header_validate(const struct batch_header *h, const struct batch_place *place)
{
	return le32_get(h->magic) == BATCH_MAGIC && place_matches(h, place) && sizes_add_up(h, place) &&
	       le32_get(h->crc) == header_crc(h) && extents_valid(h);
}

char *batch_header_to_text(const struct batch_header *h, char *text, size_t text_bytes)
{
	snprintf(text, text_bytes, "batch lineage %llu seq %llu at %u:%u grant %llu: %u data blocks, %u extents",
		 (unsigned long long)le64_get(h->lineage), (unsigned long long)le64_get(h->seq), le32_get(h->segno),
		 le32_get(h->index), (unsigned long long)le64_get(h->grant), le32_get(h->data_blocks),
		 le16_get(h->extent_count));
	return text;
}
