/* Labels: an input is a list of patches {offset 2, length 1, bytes} over a valid label, with its checksum mended. What is
 * accepted keeps the promises of label_validate, and encodes to the same bytes (but for compat bits, which are not kept). */
#include "pool/base/crc32c.h"
#include "pool/label.h"
#include "tests/fuzz/fuzz.h"

#define DISK_BYTES (64ull << 20)

static struct label_block valid;

static void make_valid(void)
{
	struct label label = { .pool_name = "tank", .generation = 3, .disk_id = 1, .disk_count = 2 };
	struct err err;

	FUZZ_REQUIRE(label_layout(&label, DISK_BYTES, ZONE_BYTES_MIN, &err) == 0);
	memset(label.pool_uuid.b, 0x11, sizeof(label.pool_uuid.b));
	memset(label.disk_uuid.b, 0x22, sizeof(label.disk_uuid.b));
	label_encode(&label, 0, &valid);
}

static void mend(struct label_block *block)
{
	block->crc = le32_of(0);
	block->crc = le32_of(crc32c(0, block, sizeof(*block)));
}

static void patch(struct label_block *block, struct fuzz_input *in)
{
	while (in->left > 0) {
		uint32_t off = fuzz_uint16(in) % sizeof(*block), len = 1 + fuzz_uint8(in) % 16;

		if (len > sizeof(*block) - off)
			len = (uint32_t)sizeof(*block) - off;
		fuzz_take(in, (uint8_t *)block + off, len);
	}
}

static void check(const struct label *label, const struct label_block *block)
{
	uint64_t limit = DISK_BYTES - LABEL_BACK_BYTES;
	char text[LABEL_TEXT_BYTES];
	struct label_block again;

	FUZZ_REQUIRE(label->disk_bytes <= DISK_BYTES && label->zone_count > 0);
	FUZZ_REQUIRE(label->zones_off >= label->half[1].journal_off + label->half[1].journal_bytes);
	FUZZ_REQUIRE(label->zones_off <= limit && label->zone_count <= (limit - label->zones_off) / label->zone_bytes);
	FUZZ_REQUIRE(name_is_valid(label->pool_name));
	FUZZ_REQUIRE(strlen(label_to_text(label, text)) < sizeof(text));
	label_encode(label, 0, &again);
	again.compat = block->compat;
	again.zero = block->zero;
	memcpy(again.pad, block->pad, sizeof(again.pad));
	mend(&again);
	FUZZ_REQUIRE(memcmp(&again, block, sizeof(again)) == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct fuzz_input in = { data, size };
	struct label_block block;
	struct label label;
	struct err err = { "" };

	if (!valid.magic[0])
		make_valid();
	block = valid;
	patch(&block, &in);
	mend(&block);
	if (label_validate(&block, 0, DISK_BYTES, &label, &err) == 0)
		check(&label, &block);
	else
		FUZZ_REQUIRE(err.msg[0]);
	return 0;
}
