/* The overlay against a plain array. */
#include "volumes/overlay.h"

#include <stdlib.h>

#include "tests/unit/unit.h"

#define BLOCKS 400u
#define UNKNOWN 0u
#define HOLE 1u

static void put(struct overlay *ov, uint32_t *model, uint32_t lba, uint32_t value)
{
	struct mapping m = { .segno = value, .index = value, .crc = value };

	assert_int_equal(overlay_put_block(ov, lba, &m), 0);
	model[lba] = value;
}

static void punch(struct overlay *ov, uint32_t *model, uint32_t lba, uint32_t count)
{
	assert_int_equal(overlay_put_hole(ov, lba, count), 0);
	for (uint32_t i = 0; i < count; i++)
		model[lba + i] = HOLE;
}

static uint32_t seen(const struct mapping *m)
{
	return m->segno == SEGNO_UNKNOWN ? UNKNOWN : mapping_is_hole(m) ? HOLE : m->segno;
}

static void check_range(const struct overlay *ov, const uint32_t *model, uint32_t lba, uint32_t count)
{
	struct mapping res[BLOCKS];
	uint32_t unknown = 0;

	for (uint32_t i = 0; i < count; i++) {
		res[i].segno = SEGNO_UNKNOWN;
		unknown += model[lba + i] == UNKNOWN;
	}
	assert_int_equal(overlay_lookup(ov, lba, count, res), unknown);
	for (uint32_t i = 0; i < count; i++)
		assert_int_equal(seen(&res[i]), model[lba + i]);
}

static void agrees_with_an_array(void **state)
{
	for (unsigned round = 0; round < 200; round++) {
		unsigned seed = round;
		uint32_t model[BLOCKS] = { 0 };
		struct overlay ov;

		overlay_init(&ov);
		for (uint32_t i = 0; i < 150; i++) {
			uint32_t lba = (uint32_t)rand_r(&seed) % BLOCKS;
			uint32_t room = BLOCKS - lba;

			if (rand_r(&seed) % 3)
				put(&ov, model, lba, 2 + i);
			else
				punch(&ov, model, lba, 1 + (uint32_t)rand_r(&seed) % (room < 60 ? room : 60));
			lba = (uint32_t)rand_r(&seed) % BLOCKS;
			check_range(&ov, model, lba, 1);
			check_range(&ov, model, lba, BLOCKS - lba);
		}
		overlay_release(&ov);
	}
}

static void a_hole_may_be_longer_than_32_bits(void **state)
{
	struct mapping m = { .segno = 7 }, res = { .segno = SEGNO_UNKNOWN };
	struct overlay ov;

	overlay_init(&ov);
	assert_int_equal(overlay_put_hole(&ov, 1, 1ull << 40), 0);
	assert_int_equal(overlay_put_block(&ov, 1ull << 35, &m), 0);
	assert_int_equal(overlay_lookup(&ov, (1ull << 40) - 1, 1, &res), 0);
	assert_true(mapping_is_hole(&res));
	res.segno = SEGNO_UNKNOWN;
	assert_int_equal(overlay_lookup(&ov, (1ull << 40) + 1, 1, &res), 1);
	assert_int_equal(ov.holes, 2);
	overlay_release(&ov);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(agrees_with_an_array),
		cmocka_unit_test(a_hole_may_be_longer_than_32_bits),
	};

	return run_unit_tests(tests);
}
