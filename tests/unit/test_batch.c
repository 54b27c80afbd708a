/* The batch header's validation: every field that is wrong is found, also when the checksum is mended. */
#include "volumes/batch_format.h"

#include <stdlib.h>
#include <string.h>

#include "tests/unit/unit.h"

static const struct batch_place place = { .lineage = 5, .grant = 77, .segno = 3, .index = 8, .segment_blocks = 512,
					  .policy = { 2, 1 }, .stream = STREAM_DATA };

static void good_header(struct batch_header *h)
{
	struct batch_extent *e = (struct batch_extent *)h->body;

	memset(h, 0, sizeof(*h));
	h->lineage = le64_of(5);
	h->grant = le64_of(77);
	h->seq = le64_of(9);
	h->segno = le32_of(3);
	h->index = le32_of(8);
	h->data_blocks = le32_of(4);
	h->total_blocks = le32_of(6);
	h->extent_count = le16_of(3);
	h->k = 2;
	h->m = 1;
	e[0] = (struct batch_extent){ .lba = le64_of(100), .count = le32_of(3), .op = le32_of(BATCH_DATA) };
	e[1] = (struct batch_extent){ .lba = le64_of(0), .count_high = le32_of(1), .op = le32_of(BATCH_HOLE) };
	e[2] = (struct batch_extent){ .lba = le64_of(7), .count = le32_of(1), .op = le32_of(BATCH_DATA) };
	batch_header_seal(h);
}

static void a_good_header_is_valid(void **state)
{
	struct batch_header h;

	good_header(&h);
	assert_true(batch_header_validate(&h, &place));
}

static void any_flipped_bit_is_found(void **state)
{
	struct batch_header h;

	for (uint32_t byte = 0; byte < sizeof(h); byte++) {
		good_header(&h);
		((uint8_t *)&h)[byte] ^= (uint8_t)(1u << byte % 8);
		assert_false(batch_header_validate(&h, &place));
	}
}

static void a_header_for_another_place_is_refused(void **state)
{
	struct batch_place wrong[6] = { place, place, place, place, place, place };
	struct batch_header h;

	wrong[0].lineage++;
	wrong[1].grant++;
	wrong[2].segno++;
	wrong[3].index++;
	wrong[4].policy.k = 1;
	wrong[5].stream = STREAM_META;
	good_header(&h);
	for (uint32_t i = 0; i < 6; i++)
		assert_false(batch_header_validate(&h, &wrong[i]));
}

static void refuse(const struct batch_header *bad)
{
	struct batch_header h = *bad;

	batch_header_seal(&h);
	assert_false(batch_header_validate(&h, &place));
}

static void mended_lies_are_refused(void **state)
{
	struct batch_header h;
	struct batch_extent *e = (struct batch_extent *)h.body;

	good_header(&h), h.data_blocks = le32_of(5), refuse(&h);
	good_header(&h), h.data_blocks = le32_of(UINT32_MAX), refuse(&h);
	good_header(&h), h.total_blocks = le32_of(0), refuse(&h);
	good_header(&h), h.total_blocks = le32_of(8), refuse(&h);
	good_header(&h), h.extent_count = le16_of(UINT16_MAX), refuse(&h);
	good_header(&h), h.extent_count = le16_of(2), refuse(&h);
	good_header(&h), e[0].op = le32_of(0), refuse(&h);
	good_header(&h), e[0].op = le32_of(BATCH_META), refuse(&h);
	good_header(&h), e[0].op = le32_of(4), refuse(&h);
	good_header(&h), e[1].count_high = le32_of(0), refuse(&h);
	good_header(&h), e[1].count_high = le32_of(UINT32_MAX), refuse(&h);
	good_header(&h), e[0].lba = le64_of(UINT64_MAX), refuse(&h);
	good_header(&h), e[0].lba = le64_of(BATCH_LBA_MAX - 2), refuse(&h);
	good_header(&h), e[0].count_high = le32_of(1), refuse(&h);
}

static void random_bytes_with_a_good_checksum_do_no_harm(void **state)
{
	unsigned seed = 1;

	for (int round = 0; round < 20000; round++) {
		struct batch_header h;
		uint8_t *bytes = (uint8_t *)&h;

		good_header(&h);
		for (int i = 0; i < 4; i++)
			bytes[40 + rand_r(&seed) % 100] = (uint8_t)rand_r(&seed);
		batch_header_seal(&h);
		if (!batch_header_validate(&h, &place))
			continue;
		assert_true(8 + le32_get(h.total_blocks) <= place.segment_blocks);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_good_header_is_valid),
		cmocka_unit_test(any_flipped_bit_is_found),
		cmocka_unit_test(a_header_for_another_place_is_refused),
		cmocka_unit_test(mended_lies_are_refused),
		cmocka_unit_test(random_bytes_with_a_good_checksum_do_no_harm),
	};

	return run_unit_tests(tests);
}
