/* Free zones: spreading, the reserve, exhaustion, and bitmaps against a plain array. */
#include <errno.h>
#include <string.h>

#include "pool/base/mem.h"
#include "pool/zones.h"
#include "tests/unit/unit.h"

static struct zones zones;

static void add(uint32_t disk_id, uint32_t count)
{
	uint64_t *bitmap = zones_bitmap_new(count);

	assert_non_null(bitmap);
	zones_add_disk(&zones, disk_id, count, bitmap);
}

static int take(uint32_t cols, enum grant_class class, struct zone_addr *out)
{
	return zones_take(&zones, (struct policy){ 1, (uint8_t)(cols - 1) }, class, UINT32_MAX, out);
}

static int setup(void **state)
{
	zones_init(&zones);
	return 0;
}

static int teardown(void **state)
{
	zones_release(&zones);
	return 0;
}

static void columns_are_on_different_disks(void **state)
{
	struct zone_addr at[5];

	for (uint32_t id = 0; id < 5; id++)
		add(id * 3, 50);
	for (int i = 0; i < 40; i++) {
		assert_int_equal(take(4, GRANT_DATA, at), 0);
		for (int a = 0; a < 4; a++)
			for (int b = 0; b < a; b++)
				assert_true(at[a].disk_id != at[b].disk_id);
	}
}

static void segments_spread_over_equal_disks(void **state)
{
	uint32_t per_disk[4] = { 0 };
	struct zone_addr at;

	for (uint32_t id = 0; id < 4; id++)
		add(id, 100);
	for (int i = 0; i < 40; i++) {
		assert_int_equal(take(1, GRANT_DATA, &at), 0);
		per_disk[at.disk_id]++;
	}
	for (int id = 0; id < 4; id++)
		assert_int_equal(per_disk[id], 10);
}

static void turn_goes_round_among_equal_disks(void **state)
{
	struct zone_addr at;

	for (uint32_t id = 0; id < 4; id++)
		add(id, 100);
	for (uint32_t i = 0; i < 40; i++) {
		assert_int_equal(take(1, GRANT_DATA, &at), 0);
		assert_int_equal(at.disk_id, i % 4);
		zones_give_back(&zones, &at, 1);
	}
}

static void disk_with_most_free_zones_is_taken_first(void **state)
{
	struct zone_addr at;

	add(0, 100);
	add(1, 130);
	for (int i = 0; i < 30; i++) {
		assert_int_equal(take(1, GRANT_DATA, &at), 0);
		assert_int_equal(at.disk_id, 1);
	}
}

static void avoided_disk_is_used_only_without_another_choice(void **state)
{
	struct zone_addr at[2];

	add(0, 100);
	add(1, 20);
	while (zones_take(&zones, (struct policy){ 1, 0 }, GRANT_DATA, 0, at) == 0 && at[0].disk_id == 1)
		;
	assert_int_equal(at[0].disk_id, 0);
	assert_int_equal(zones.disks[1].free, zones.disks[1].reserve);
	assert_int_equal(zones_take(&zones, (struct policy){ 1, 1 }, GRANT_RESERVE, 0, at), 0);
	assert_int_equal(at[0].disk_id, 1);
	assert_int_equal(at[1].disk_id, 0);
}

static void data_leaves_the_reserve_on_every_disk(void **state)
{
	struct zone_addr at[2];

	add(0, 300);
	add(1, 1000);
	add(2, 4);
	assert_true(zones.reserve >= 1304 / 32);
	while (take(2, GRANT_DATA, at) == 0)
		;
	while (take(1, GRANT_DATA, at) == 0)
		;
	for (int id = 0; id < 3; id++) {
		assert_true(zones.disks[id].reserve > 0);
		assert_int_equal(zones.disks[id].free, zones.disks[id].reserve);
	}
	assert_int_equal(zones.free, zones.reserve);
	assert_int_equal(take(1, GRANT_DATA, at), -ENOSPC);
	while (take(1, GRANT_RESERVE, at) == 0)
		;
	assert_int_equal(zones.free, 0);
}

static void reserve_of_a_small_pool_is_at_most_a_quarter(void **state)
{
	add(0, 8);
	assert_int_equal(zones.reserve, 2);
	add(1, 8);
	assert_int_equal(zones.reserve, 4);
	add(2, 200);
	assert_true(zones.reserve >= 8 && zones.reserve <= 10);
}

static void zones_are_wanted_below_a_mark_above_the_reserve(void **state)
{
	struct zone_addr at;

	add(0, 640);                         /* reserve 20, mark 10 */
	assert_int_equal(zones.wanted, 0);
	for (uint32_t free = 640; free-- > 1;) {
		assert_int_equal(take(1, GRANT_RESERVE, &at), 0);
		assert_int_equal(zones.wanted, free < 20 + 10 ? 20 + 2 * 10 - free : 0);
	}
	add(1, 640);
	assert_int_equal(zones.wanted, 0);
}

static void mark_of_a_small_pool_is_four_zones_but_at_most_an_eighth(void **state)
{
	struct zone_addr at;

	add(0, 64);                          /* reserve 8 */
	while (zones.free > 8 + 4)
		assert_int_equal(take(1, GRANT_DATA, &at), 0);
	assert_int_equal(zones.wanted, 0);
	assert_int_equal(take(1, GRANT_DATA, &at), 0);
	assert_int_equal(zones.wanted, 8 + 2 * 4 - 11);
	zones_release(&zones);
	add(0, 16);                          /* reserve 4 */
	while (zones.free > 4 + 2)
		assert_int_equal(take(1, GRANT_DATA, &at), 0);
	assert_int_equal(zones.wanted, 0);
	assert_int_equal(take(1, GRANT_DATA, &at), 0);
	assert_int_equal(zones.wanted, 4 + 2 * 2 - 5);
}

static void wide_segments_make_reserve_and_mark_larger(void **state)
{
	struct zone_addr at[4];

	for (uint32_t id = 0; id < 4; id++)
		add(id, 100);
	assert_int_equal(zones.reserve, 4 * 3); /* 12.5 zones */
	assert_int_equal(take(4, GRANT_DATA, at), 0);
	assert_int_equal(zones.reserve, 4 * 8);
	while (zones.free >= 4 * (8 + 4)) {
		assert_int_equal(zones.wanted, 0);
		assert_int_equal(take(4, GRANT_DATA, at), 0);
	}
	assert_int_equal(zones.wanted, 4 * (8 + 2 * 4) - zones.free);
}

static void refused_grant_makes_zones_wanted(void **state)
{
	struct zone_addr at[2];

	add(0, 400);
	add(1, 40);
	while (take(2, GRANT_RESERVE, at) == 0)
		;
	assert_int_equal(zones.disks[1].free, 0);
	assert_true(zones.wanted > 0);       /* though there are many on the other disk */
	zones_give_back(&zones, at, 2);
	assert_int_equal(zones.wanted, 0);
}

static void segments_are_counted_by_the_disks_that_have_room_for_their_columns(void **state)
{
	add(0, 10);
	add(1, 3);
	assert_int_equal(zones_segments(&zones, (struct policy){ 1, 0 }), 13);
	assert_int_equal(zones_segments(&zones, (struct policy){ 1, 1 }), 3);
	add(2, 4);
	assert_int_equal(zones_segments(&zones, (struct policy){ 1, 1 }), 7);
	assert_int_equal(zones_segments(&zones, (struct policy){ 2, 1 }), 3);
	zones_set_in_use(&zones, 1, false);
	assert_int_equal(zones_segments(&zones, (struct policy){ 2, 1 }), 4); /* with a column less */
	assert_int_equal(zones_segments(&zones, (struct policy){ 3, 1 }), 0);
}

static void too_few_disks_take_nothing(void **state)
{
	struct zone_addr at[3];

	add(0, 100);
	add(1, 100);
	assert_int_equal(zones_take(&zones, (struct policy){ 3, 1 }, GRANT_RESERVE, UINT32_MAX, at), -EIO);
	assert_int_equal(zones.free, 200);
}

static void with_too_few_disks_in_use_the_last_columns_get_no_zone(void **state)
{
	struct zone_addr at[3];

	for (uint32_t i = 0; i < 3; i++)
		add(i, 100);
	zones_set_in_use(&zones, 1, false);
	assert_int_equal(zones.free, 200);
	assert_int_equal(take(3, GRANT_RESERVE, at), 0);
	assert_true(at[0].disk_id != 1 && at[1].disk_id != 1);
	assert_int_equal(at[2].disk_id, DISK_NONE);
	zones_set_in_use(&zones, 1, true);
	assert_int_equal(zones.free, 298);
	zones_give_back(&zones, at, 3);
	assert_int_equal(zones.free, 300);
}

static void zone_is_taken_once(void **state)
{
	struct zone_addr at = { 3, 64 };

	add(3, 65);
	assert_true(zones_take_at(&zones, at));
	assert_false(zones_take_at(&zones, at));
	assert_true(zones_is_taken(&zones, at));
	assert_false(zones_take_at(&zones, (struct zone_addr){ 3, 65 }));
	assert_false(zones_take_at(&zones, (struct zone_addr){ 2, 0 }));
	assert_false(zones_take_at(&zones, (struct zone_addr){ 256 + 3, 0 }));
	assert_false(zones_take_at(&zones, (struct zone_addr){ UINT32_MAX, UINT32_MAX }));
	assert_int_equal(zones.free, 64);
	zones_give_back(&zones, &at, 1);
	assert_true(zones_take_at(&zones, at));
}

static void freed_zone_is_used_again_late(void **state)
{
	struct zone_addr first, at;

	add(0, 70);
	assert_int_equal(take(1, GRANT_RESERVE, &first), 0);
	zones_give_back(&zones, &first, 1);
	for (int i = 0; i < 69; i++) {
		assert_int_equal(take(1, GRANT_RESERVE, &at), 0);
		assert_int_not_equal(at.zone, first.zone);
	}
	assert_int_equal(take(1, GRANT_RESERVE, &at), 0);
	assert_int_equal(at.zone, first.zone);
}

static uint32_t rnd(void)
{
	static uint64_t state = 1;

	state = state * 6364136223846793005ull + 1442695040888963407ull;
	return (uint32_t)(state >> 33);
}

static void bitmaps_agree_with_an_array(void **state)
{
	static bool taken[3][131];
	static const uint32_t count[3] = { 1, 64, 131 };
	uint64_t free = 196;

	memset(taken, 0, sizeof(taken));
	for (uint32_t id = 0; id < 3; id++)
		add(id, count[id]);
	for (int i = 0; i < 20000; i++) {
		struct zone_addr at;

		if (rnd() % 2) {
			int ret = take(1, GRANT_RESERVE, &at);

			assert_int_equal(ret, free ? 0 : -ENOSPC);
			if (ret)
				continue;
			assert_false(taken[at.disk_id][at.zone]);
			taken[at.disk_id][at.zone] = true;
			free--;
		} else {
			at.disk_id = rnd() % 3;
			at.zone = rnd() % count[at.disk_id];
			assert_int_equal(zones_is_taken(&zones, at), taken[at.disk_id][at.zone]);
			if (!taken[at.disk_id][at.zone])
				continue;
			zones_give_back(&zones, &at, 1);
			taken[at.disk_id][at.zone] = false;
			free++;
		}
		assert_int_equal(zones.free, free);
	}
}

#define zone_test(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		zone_test(columns_are_on_different_disks),
		zone_test(segments_spread_over_equal_disks),
		zone_test(turn_goes_round_among_equal_disks),
		zone_test(disk_with_most_free_zones_is_taken_first),
		zone_test(avoided_disk_is_used_only_without_another_choice),
		zone_test(data_leaves_the_reserve_on_every_disk),
		zone_test(reserve_of_a_small_pool_is_at_most_a_quarter),
		zone_test(zones_are_wanted_below_a_mark_above_the_reserve),
		zone_test(mark_of_a_small_pool_is_four_zones_but_at_most_an_eighth),
		zone_test(wide_segments_make_reserve_and_mark_larger),
		zone_test(refused_grant_makes_zones_wanted),
		zone_test(segments_are_counted_by_the_disks_that_have_room_for_their_columns),
		zone_test(too_few_disks_take_nothing),
		zone_test(with_too_few_disks_in_use_the_last_columns_get_no_zone),
		zone_test(zone_is_taken_once),
		zone_test(freed_zone_is_used_again_late),
		zone_test(bitmaps_agree_with_an_array),
	};

	return run_unit_tests(tests);
}
