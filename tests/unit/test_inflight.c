/* Unit tests of targets/inflight.c: what a successor makes of a region, whenever its predecessor died. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "targets/inflight.h"
#include "targets/inflight_format.h"
#include "tests/unit/unit.h"

#define SIZE 8
#define QUEUES 3
#define RING 1

static int fd;
static uint64_t len_bytes;
static uint8_t *map;                   /* the front end's view */
static struct inflight *inf;
static struct inflight_ring track;
static uint16_t heads[SIZE];
static bool fresh;

static void open_region(void)
{
	assert_int_equal(inflight_map(fd, 0, len_bytes, QUEUES, SIZE, &inf), 0);
}

static int setup(void **state)
{
	len_bytes = inflight_bytes(QUEUES, SIZE);
	fd = inflight_create(QUEUES, SIZE, true);
	assert_true(fd >= 0);
	map = mmap(NULL, len_bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	assert_true(map != MAP_FAILED);
	open_region();
	return 0;
}

static int teardown(void **state)
{
	inflight_put(inf);
	munmap(map, len_bytes);
	close(fd);
	return 0;
}

static struct inflight_queue *queue(void)
{
	/* 16 + 8 * 16 rounded up to 64. */
	return (struct inflight_queue *)(map + RING * 192);
}

static int start(uint16_t used_idx)
{
	return inflight_ring_start(inf, RING, SIZE, used_idx, &track, heads, &fresh);
}

/* The process dies and the next one opens the region. */
static int restart(uint16_t used_idx)
{
	inflight_put(inf);
	open_region();
	memset(&track, 0xff, sizeof(track));
	return start(used_idx);
}

static void expect_heads(int count, const uint16_t *expected)
{
	for (int i = 0; i < count; i++)
		assert_int_equal(heads[i], expected[i]);
}

#define EXPECT_RESTART(used_idx, ...)                                                                              \
	do {                                                                                                       \
		const uint16_t expected[] = { 0, ##__VA_ARGS__ };                                                  \
		const int count = sizeof(expected) / sizeof(expected[0]) - 1;                                      \
                                                                                                                   \
		assert_int_equal(restart(used_idx), count);                                                        \
		assert_false(fresh);                                                                               \
		expect_heads(count, expected + 1);                                                                 \
	} while (0)

/* ---- a life without accidents ---- */

static void an_unused_region_has_no_history(void **state)
{
	assert_false(inflight_has_history(inf, RING));
	assert_int_equal(start(0), 0);
	assert_true(fresh);
	assert_true(inflight_has_history(inf, RING));
	assert_false(inflight_has_history(inf, RING + 1));
	assert_int_equal(le16_get(queue()->version), 1);
	assert_int_equal(le16_get(queue()->desc_num), SIZE);
}

static void what_was_taken_is_in_flight_in_order(void **state)
{
	start(0);
	inflight_take(&track, 5);
	inflight_take(&track, 2);
	inflight_take(&track, 7);
	EXPECT_RESTART(0, 5, 2, 7);
	/* Once more: a successor that died at once has changed nothing. */
	EXPECT_RESTART(0, 5, 2, 7);
	/* New requests come after the old ones. */
	inflight_take(&track, 0);
	EXPECT_RESTART(0, 5, 2, 7, 0);
}

static void what_was_given_back_is_not_in_flight(void **state)
{
	start(100);
	for (uint16_t i = 0; i < 4; i++)
		inflight_take(&track, i);
	inflight_give(&track, 2);
	inflight_given(&track, (uint16_t[]){ 2 }, 1, 101);
	inflight_give(&track, 0);
	inflight_give(&track, 3);
	inflight_given(&track, (uint16_t[]){ 0, 3 }, 2, 103);
	EXPECT_RESTART(103, 1);
	assert_int_equal(le16_get(queue()->used_idx), 103);
}

/* ---- death in the middle of giving back two of four, 4 and 1 of 3, 4, 1, 6 ---- */

static const uint16_t batch[] = { 4, 1 };

static void take_four(uint16_t used_idx)
{
	static const uint16_t order[] = { 3, 4, 1, 6 };

	start(used_idx);
	/* A batch before, so that the list is not empty. */
	inflight_take(&track, 6);
	inflight_give(&track, 6);
	inflight_given(&track, (uint16_t[]){ 6 }, 1, (uint16_t)(used_idx + 1));
	for (unsigned i = 0; i < 4; i++)
		inflight_take(&track, order[i]);
}

static void death_before_the_list_is_complete(void **state)
{
	take_four(10);
	inflight_give(&track, 4);
	EXPECT_RESTART(11, 3, 4, 1, 6);
}

static void death_before_the_index_moves(void **state)
{
	take_four(10);
	inflight_give(&track, 4);
	inflight_give(&track, 1);
	EXPECT_RESTART(11, 3, 4, 1, 6);
	/* The list's stale entries do no harm to the next batch, nor to a death within it. */
	inflight_give(&track, 6);
	EXPECT_RESTART(12, 3, 4, 1);
	assert_int_equal(le16_get(queue()->used_idx), 12);
}

static void death_after_the_index_moved(void **state)
{
	take_four(10);
	inflight_give(&track, 4);
	inflight_give(&track, 1);
	EXPECT_RESTART(13, 3, 6);
	EXPECT_RESTART(13, 3, 6);
}

static void death_after_some_flags_are_cleared(void **state)
{
	for (unsigned cleared = 1; cleared <= 2; cleared++) {
		take_four(10);
		inflight_give(&track, 4);
		inflight_give(&track, 1);
		for (unsigned i = 0; i < cleared; i++)
			queue()->desc[batch[i]].inflight = 0;
		EXPECT_RESTART(13, 3, 6);
		inflight_give(&track, 3);
		inflight_give(&track, 6);
		inflight_given(&track, (uint16_t[]){ 3, 6 }, 2, 15);
		EXPECT_RESTART(15);
		le16 unused = le16_of(0);

		queue()->version = unused;
	}
}

static void death_within_taking(void **state)
{
	start(0);
	inflight_take(&track, 3);
	/* The counter is there, the flag not yet. */
	queue()->desc[5].counter = le64_of(1);
	EXPECT_RESTART(0, 3);
}

static void the_index_may_wrap_within_a_batch(void **state)
{
	take_four(65533);
	inflight_give(&track, 4);
	inflight_give(&track, 1);
	EXPECT_RESTART(0, 3, 6);
}

/* A thousand random steps and deaths against a plain list. */
static void random_lives_agree_with_a_list(void **state)
{
	uint16_t order[SIZE], used_idx = 65000, count = 0;
	uint16_t given[SIZE];

	srand(7);
	assert_int_equal(start(used_idx), 0);
	for (unsigned step = 0; step < 20000; step++) {
		uint16_t head = (uint16_t)(rand() % SIZE), n = 0, at;
		bool busy = false;

		for (at = 0; at < count; at++)
			busy |= order[at] == head;
		if (!busy && rand() % 2) {
			inflight_take(&track, head);
			order[count++] = head;
		} else if (count > 0 && rand() % 3) {
			for (; count > 0 && n < 1 + rand() % 3; n++) {
				at = (uint16_t)(rand() % count);
				given[n] = order[at];
				inflight_give(&track, given[n]);
				memmove(&order[at], &order[at + 1], (size_t)(--count - at) * sizeof(order[0]));
			}
			used_idx = (uint16_t)(used_idx + n);
			/* Or death, with the index moved. */
			if (rand() % 4)
				inflight_given(&track, given, n, used_idx);
			else
				assert_int_equal(restart(used_idx), count);
		}
		if (rand() % 16)
			continue;
		assert_int_equal(restart(used_idx), count);
		expect_heads(count, order);
	}
}

/* ---- regions of another life, and regions that lie ---- */

static void a_ring_that_was_reset_starts_afresh(void **state)
{
	start(500);
	inflight_take(&track, 3);
	assert_int_equal(restart(0), 0);
	assert_true(fresh);
	/* And the old request is forgotten. */
	EXPECT_RESTART(0);
}

static void damaged_regions_are_refused(void **state)
{
	start(0);
	inflight_take(&track, 3);
	queue()->desc_num = le16_of(SIZE - 1);
	assert_int_equal(restart(0), -EBADMSG);
	queue()->desc_num = le16_of(SIZE);
	queue()->version = le16_of(2);
	assert_int_equal(restart(0), -EBADMSG);
	queue()->version = le16_of(1);
	queue()->desc[0].inflight = 2;
	assert_int_equal(restart(0), -EBADMSG);
	queue()->desc[0].inflight = 0;
	assert_int_equal(restart(0), 1);
}

static void a_list_that_leaves_the_ring_is_refused(void **state)
{
	start(0);
	inflight_take(&track, 3);
	inflight_give(&track, 3);
	queue()->last_batch_head = le16_of(SIZE);
	assert_int_equal(restart(1), -EBADMSG);
	queue()->last_batch_head = le16_of(3);
	queue()->desc[3].next = le16_of(0xffff);
	/* Only as much of the list as counts is looked at. */
	assert_int_equal(restart(1), 0);
	queue()->used_idx = le16_of(0);
	assert_int_equal(restart(2), -EBADMSG);
}

static void a_list_in_a_loop_ends(void **state)
{
	start(0);
	inflight_take(&track, 3);
	inflight_take(&track, 4);
	inflight_give(&track, 3);
	queue()->desc[3].next = le16_of(3);
	EXPECT_RESTART(8, 4);
}

static void equal_counters_have_an_order_all_the_same(void **state)
{
	start(0);
	for (uint16_t i = 0; i < 4; i++)
		inflight_take(&track, (uint16_t)(6 - i));
	for (uint16_t i = 0; i < SIZE; i++)
		queue()->desc[i].counter = le64_of(UINT64_MAX);
	EXPECT_RESTART(0, 3, 4, 5, 6);
	inflight_take(&track, 0);
	EXPECT_RESTART(0, 0, 3, 4, 5, 6);
}

static void rings_the_region_lacks_are_refused(void **state)
{
	assert_int_equal(inflight_ring_start(inf, QUEUES, SIZE, 0, &track, heads, &fresh), -EINVAL);
	assert_int_equal(inflight_ring_start(inf, 0, SIZE * 2, 0, &track, heads, &fresh), -EINVAL);
	assert_false(inflight_has_history(inf, QUEUES));
}

static void rings_do_not_share_entries(void **state)
{
	struct inflight_ring other;
	uint16_t other_heads[SIZE];
	bool other_fresh;

	start(0);
	inflight_take(&track, 3);
	assert_int_equal(inflight_ring_start(inf, RING + 1, SIZE, 0, &other, other_heads, &other_fresh), 0);
	inflight_take(&other, 4);
	assert_int_equal(inflight_ring_start(inf, RING - 1, SIZE, 0, &other, other_heads, &other_fresh), 0);
	inflight_take(&other, 5);
	EXPECT_RESTART(0, 3);
}

static void regions_too_small_are_refused(void **state)
{
	struct inflight *small;
	int other = memfd_create("small", MFD_CLOEXEC);

	assert_int_equal(ftruncate(other, 4096), 0);
	assert_int_equal(inflight_map(other, 0, 4096, 1, 128, &small), 0);
	inflight_put(small);
	assert_int_equal(inflight_map(other, 0, 4096, 2, 128, &small), -EINVAL);
	assert_int_equal(inflight_map(other, 0, 2079, 1, 128, &small), -EINVAL);
	assert_int_equal(inflight_map(other, 0, 8192, 1, 128, &small), -ERANGE);
	assert_int_equal(inflight_map(other, 4096, 4096, 1, 128, &small), -ERANGE);
	assert_int_equal(inflight_map(other, 16, 4096, 1, 128, &small), -EINVAL);
	assert_int_equal(inflight_map(other, 0, UINT64_MAX, 1, 128, &small), -EINVAL);
	assert_int_equal(inflight_map(other, 0, 4096, 1, 0, &small), -EINVAL);
	assert_int_equal(inflight_map(other, 0, 4096, 1, 2048, &small), -EINVAL);
	close(other);
}

static void our_regions_cannot_shrink(void **state)
{
	assert_int_equal(ftruncate(fd, 0), -1);
	assert_int_equal(ftruncate(fd, (off_t)len_bytes * 2), -1);
}

/* ---- what else must be remembered ---- */

static void cache_mode_and_capacity_are_remembered(void **state)
{
	assert_int_equal(inflight_writeback(inf), 1);
	assert_int_equal(inflight_told(inf), 0);
	inflight_set_writeback(inf, false);
	inflight_set_told(inf, 12345);
	start(0);
	restart(0);
	assert_int_equal(inflight_writeback(inf), 0);
	assert_int_equal(inflight_told(inf), 12345);
}

static void a_region_of_another_back_end_remembers_nothing_more(void **state)
{
	struct inflight *foreign;
	int other = memfd_create("foreign", MFD_CLOEXEC);

	assert_int_equal(ftruncate(other, 8192), 0);
	assert_int_equal(inflight_map(other, 0, 8192, 1, 128, &foreign), 0);
	assert_int_equal(inflight_writeback(foreign), -ENOENT);
	inflight_set_writeback(foreign, false);
	inflight_set_told(foreign, 7);
	assert_int_equal(inflight_told(foreign), 0);
	inflight_put(foreign);
	close(other);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
	const struct CMUnitTest tests[] = {
		TEST(an_unused_region_has_no_history),
		TEST(what_was_taken_is_in_flight_in_order),
		TEST(what_was_given_back_is_not_in_flight),
		TEST(death_before_the_list_is_complete),
		TEST(death_before_the_index_moves),
		TEST(death_after_the_index_moved),
		TEST(death_after_some_flags_are_cleared),
		TEST(death_within_taking),
		TEST(the_index_may_wrap_within_a_batch),
		TEST(random_lives_agree_with_a_list),
		TEST(a_ring_that_was_reset_starts_afresh),
		TEST(damaged_regions_are_refused),
		TEST(a_list_that_leaves_the_ring_is_refused),
		TEST(a_list_in_a_loop_ends),
		TEST(equal_counters_have_an_order_all_the_same),
		TEST(rings_the_region_lacks_are_refused),
		TEST(rings_do_not_share_entries),
		TEST(regions_too_small_are_refused),
		TEST(our_regions_cannot_shrink),
		TEST(cache_mode_and_capacity_are_remembered),
		TEST(a_region_of_another_back_end_remembers_nothing_more),
	};

	return run_unit_tests(tests);
}
