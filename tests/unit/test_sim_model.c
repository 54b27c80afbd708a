/* The simulator's model: that its judge accepts every content that the rules allow and no other. A simulator whose judge
 * sleeps finds nothing, so each rule is broken here once. */
#include <string.h>

#include "tests/sim/model.h"
#include "tests/unit/unit.h"

/* The model belongs to another program and nothing else here needs it. */
#include "tests/sim/model.c"
#include "tests/sim/model_adopt.c"
#include "tests/sim/model_cut.c"
#include "tests/sim/model_judge.c"
#include "tests/sim/stamp.c"

#define SLOTS 16

static struct model m;
static struct model_volume *vol;
static uint32_t content[SLOTS]; /* what is found */
static uint64_t ticks;

static uint64_t tick(void)
{
	return ++ticks;
}

static int begin(void **state)
{
	const struct model_window window = { .sector = 0, .count = SLOTS };

	model_init(&m, tick, false);
	vol = model_volume_new(&m, SLOTS, &window, 1);
	memset(content, 0, sizeof(content));
	return 0;
}

static int end(void **state)
{
	model_volume_free(vol);
	model_release(&m);
	return 0;
}

static uint32_t submit(enum model_op op, uint32_t start, uint32_t count)
{
	return model_submit(&m, vol, op, start, count, false);
}

static uint32_t acked(enum model_op op, uint32_t start, uint32_t count)
{
	uint32_t id = submit(op, start, count);

	model_acknowledge(&m, vol, id);
	return id;
}

static void flush(void)
{
	(void)acked(MODEL_FLUSH, 0, 0);
}

static void found(uint32_t start, uint32_t count, uint32_t id)
{
	for (uint32_t i = 0; i < count; i++)
		content[start + i] = id;
}

static bool right_after(enum model_after after)
{
	struct model_verdict verdict;
	bool right = model_judge(&m, vol, after, vol->size_sectors, content, &verdict);

	if (right)
		model_adopt(&m, vol, after, content, &verdict);
	model_verdict_release(&verdict);
	return right;
}

/* ---- after a crash ---- */

static void flushed_write_must_survive_power_loss(void **state)
{
	uint32_t id = acked(MODEL_WRITE, 0, 4);

	flush();
	assert_false(right_after(AFTER_POWER));
	found(0, 4, id);
	assert_true(right_after(AFTER_POWER));
}

static void unflushed_write_may_be_lost_to_power_but_not_to_a_kill(void **state)
{
	(void)acked(MODEL_WRITE, 0, 4);
	assert_false(right_after(AFTER_KILL));
	assert_true(right_after(AFTER_POWER));
}

static void write_completed_during_a_flush_is_not_flushed(void **state)
{
	uint32_t id = submit(MODEL_FLUSH, 0, 0);

	(void)acked(MODEL_WRITE, 0, 4);
	model_acknowledge(&m, vol, id);
	assert_true(right_after(AFTER_POWER));
}

static void later_write_without_the_earlier_one_is_a_hole(void **state)
{
	uint32_t first = acked(MODEL_WRITE, 0, 4), second = acked(MODEL_WRITE, 8, 4);

	found(8, 4, second);
	assert_false(right_after(AFTER_POWER));
	found(0, 4, first);
	assert_true(right_after(AFTER_POWER));
}

static void zeroes_of_a_discard_count_as_its_trace(void **state)
{
	uint32_t first = acked(MODEL_WRITE, 0, 4), second;

	flush();
	second = acked(MODEL_WRITE, 8, 4);
	(void)acked(MODEL_ZERO, 0, 4);
	assert_false(right_after(AFTER_POWER)); /* the discard is in, the write before it is not */
	found(8, 4, second);
	assert_true(right_after(AFTER_POWER));
	(void)first;
}

static void completed_write_in_part_is_wrong(void **state)
{
	uint32_t id = acked(MODEL_WRITE, 0, 4);

	found(0, 3, id);
	assert_false(right_after(AFTER_POWER));
}

static void write_in_flight_is_in_or_out_as_a_whole(void **state)
{
	uint32_t id = submit(MODEL_WRITE, 0, 4);

	found(1, 2, id);
	assert_false(right_after(AFTER_KILL));
	found(0, 4, id);
	assert_true(right_after(AFTER_KILL));
}

static void write_in_flight_is_in_only_after_the_whole_history(void **state)
{
	(void)acked(MODEL_WRITE, 0, 4);
	found(8, 4, submit(MODEL_WRITE, 8, 4));
	assert_false(right_after(AFTER_POWER));
}

static void writes_in_flight_may_overlap_in_any_order(void **state)
{
	uint32_t a = submit(MODEL_WRITE, 0, 8), b = submit(MODEL_WRITE, 4, 8);

	found(0, 8, a);
	found(8, 4, b);
	assert_true(right_after(AFTER_POWER));
	(void)end(state);
	(void)begin(state);
	a = submit(MODEL_WRITE, 0, 8);
	b = submit(MODEL_WRITE, 4, 8);
	found(0, 4, a);
	found(4, 8, b);
	assert_true(right_after(AFTER_POWER));
}

static void writes_in_flight_cannot_each_be_over_the_other(void **state)
{
	uint32_t a = submit(MODEL_WRITE, 0, 8), b = submit(MODEL_WRITE, 0, 8);

	found(0, 4, a);
	found(4, 4, b);
	assert_false(right_after(AFTER_POWER));
}

static void what_was_undone_must_not_come_back(void **state)
{
	uint32_t id = acked(MODEL_WRITE, 0, 4);

	assert_true(right_after(AFTER_POWER));
	found(0, 4, id);
	assert_false(right_after(AFTER_POWER));
}

static void what_a_kill_left_unflushed_may_be_lost_to_power_later(void **state)
{
	uint32_t id = acked(MODEL_WRITE, 0, 4);

	found(0, 4, id);
	assert_true(right_after(AFTER_KILL));
	found(0, 4, STAMP_ZERO);
	assert_true(right_after(AFTER_POWER));
}

static void what_power_loss_left_is_durable(void **state)
{
	uint32_t id = acked(MODEL_WRITE, 0, 4);

	found(0, 4, id);
	assert_true(right_after(AFTER_POWER));
	found(0, 4, STAMP_ZERO);
	assert_false(right_after(AFTER_POWER));
}

static void write_with_fua_is_durable_and_those_before_it(void **state)
{
	uint32_t before = acked(MODEL_WRITE, 0, 4), fua = model_submit(&m, vol, MODEL_WRITE, 4, 4, true);

	(void)acked(MODEL_WRITE, 8, 4); /* while it is in flight: may be lost */
	model_acknowledge(&m, vol, fua);
	found(4, 4, fua);
	assert_false(right_after(AFTER_POWER));
	found(0, 4, before);
	assert_true(right_after(AFTER_POWER));
}

static void failed_write_is_in_or_out_as_a_whole(void **state)
{
	uint32_t id = submit(MODEL_WRITE, 0, 4);

	model_fail(&m, vol, id);
	found(0, 2, id);
	assert_false(right_after(AFTER_KILL));
	found(0, 4, id);
	assert_true(right_after(AFTER_KILL));
}

static void shrunk_away_content_is_gone_for_ever(void **state)
{
	uint32_t id = acked(MODEL_WRITE, 4, 8);

	flush();
	model_resize(&m, vol, 8);
	model_resize(&m, vol, SLOTS);
	found(4, 8, id);
	assert_false(right_after(AFTER_POWER));
	found(8, 4, STAMP_ZERO);
	assert_true(right_after(AFTER_POWER));
}

static void nothing_appears_where_nobody_wrote_it(void **state)
{
	uint32_t id = acked(MODEL_WRITE, 0, 4);

	found(0, 4, id);
	found(8, 1, id);
	assert_false(right_after(AFTER_KILL));
}

/* ---- reads ---- */

static bool read_shows(uint32_t read, uint32_t value)
{
	char why[MODEL_TEXT_BYTES];

	return model_read_done(&m, vol, read, &value, why);
}

static void read_shows_the_last_completed_write(void **state)
{
	uint32_t old = acked(MODEL_WRITE, 0, 1), new = acked(MODEL_WRITE, 0, 1);

	assert_false(read_shows(submit(MODEL_READ, 0, 1), old));
	assert_false(read_shows(submit(MODEL_READ, 0, 1), STAMP_ZERO));
	assert_true(read_shows(submit(MODEL_READ, 0, 1), new));
}

static void read_may_show_what_was_in_flight_meanwhile(void **state)
{
	uint32_t old = acked(MODEL_WRITE, 0, 1), read = submit(MODEL_READ, 0, 1), again = submit(MODEL_READ, 0, 1);
	uint32_t new = acked(MODEL_WRITE, 0, 1);

	assert_true(read_shows(read, old));
	assert_true(read_shows(again, new));
}

static void read_never_shows_a_write_to_another_place(void **state)
{
	uint32_t elsewhere = submit(MODEL_WRITE, 4, 1);

	assert_false(read_shows(submit(MODEL_READ, 0, 1), elsewhere));
}

/* ---- cuts ---- */

static bool cut_may_hold(struct model_cut *cut, uint32_t slot0, uint32_t slot1)
{
	char why[MODEL_TEXT_BYTES];

	content[0] = slot0;
	content[1] = slot1;
	return model_cut_judge(cut, 0, false, content, why);
}

static void snapshot_has_what_was_completed_before_and_nothing_submitted_later(void **state)
{
	uint32_t before = acked(MODEL_WRITE, 0, 1), later;
	struct model_cut *cut = model_cut_begin(&m, &vol, 1);

	model_cut_end(&m, cut);
	later = acked(MODEL_WRITE, 1, 1);
	assert_true(cut_may_hold(cut, before, 0));
	assert_false(cut_may_hold(cut, 0, 0));
	assert_false(cut_may_hold(cut, before, later));
	model_cut_free(cut);
}

static void snapshot_has_a_beginning_of_what_was_completed_meanwhile(void **state)
{
	struct model_cut *cut = model_cut_begin(&m, &vol, 1);
	uint32_t first = acked(MODEL_WRITE, 0, 1), second = acked(MODEL_WRITE, 1, 1);

	flush(); /* not of before the call */
	model_cut_end(&m, cut);
	assert_true(cut_may_hold(cut, 0, 0));
	assert_true(cut_may_hold(cut, first, 0));
	assert_true(cut_may_hold(cut, first, second));
	assert_false(cut_may_hold(cut, 0, second));
	model_cut_free(cut);
}

static void snapshot_has_a_write_in_flight_as_a_whole_whatever_becomes_of_it(void **state)
{
	uint32_t flying = submit(MODEL_WRITE, 0, 2);
	struct model_cut *cut = model_cut_begin(&m, &vol, 1);

	model_cut_end(&m, cut);
	model_fail(&m, vol, flying);
	assert_true(cut_may_hold(cut, 0, 0));
	assert_true(cut_may_hold(cut, flying, flying));
	assert_false(cut_may_hold(cut, flying, 0));
	model_cut_free(cut);
}

static uint32_t acked_on(struct model_volume *volume)
{
	uint32_t id = model_submit(&m, volume, MODEL_WRITE, 0, 1, false);

	model_acknowledge(&m, volume, id);
	return id;
}

static void snapshots_made_at_once_have_an_instant_in_common(void **state)
{
	struct model_volume *volumes[] = { vol, model_volume_fork(&m, vol) };
	uint32_t empty[SLOTS] = { 0 }, one[SLOTS] = { 0 }, two[SLOTS] = { 0 };
	struct model_cut *cut = model_cut_begin(&m, volumes, 2);

	one[0] = acked_on(volumes[0]);
	two[0] = acked_on(volumes[1]);
	model_cut_end(&m, cut);
	assert_true(model_cut_is_one(cut, (const uint32_t *const[]){ empty, empty }));
	assert_true(model_cut_is_one(cut, (const uint32_t *const[]){ one, empty }));
	assert_true(model_cut_is_one(cut, (const uint32_t *const[]){ one, two }));
	assert_false(model_cut_is_one(cut, (const uint32_t *const[]){ empty, two }));
	model_cut_free(cut);
	model_volume_free(volumes[1]);
}

static void clone_begins_with_its_content_and_never_loses_it(void **state)
{
	uint32_t inherited = acked(MODEL_WRITE, 0, 1), own;
	struct model_volume *clone = model_volume_fork(&m, vol), *origin = vol;

	content[0] = inherited;
	model_begin_with(&m, clone, SLOTS, content);
	vol = clone;
	assert_true(right_after(AFTER_POWER));
	found(0, 1, 0);
	assert_false(right_after(AFTER_POWER));
	own = acked(MODEL_WRITE, 0, 1);
	found(0, 1, inherited);
	assert_false(right_after(AFTER_KILL));
	found(0, 1, own);
	assert_true(right_after(AFTER_KILL));
	vol = origin;
	model_volume_free(clone);
}

/* ---- stamps ---- */

static void stamp_is_known_only_at_its_place_and_whole(void **state)
{
	uint8_t sector[STAMP_BYTES] = { 0 };

	assert_int_equal(stamp_read(sector, 1, 7), STAMP_ZERO);
	stamp_fill(sector, 1, 7, 42);
	assert_int_equal(stamp_read(sector, 1, 7), 42);
	assert_int_equal(stamp_read(sector, 1, 8), STAMP_WRONG);
	assert_int_equal(stamp_read(sector, 2, 7), STAMP_WRONG);
	sector[300] ^= 1;
	assert_int_equal(stamp_read(sector, 1, 7), STAMP_WRONG);
}

#define model_test(name) cmocka_unit_test_setup_teardown(name, begin, end)

int main(void)
{
	const struct CMUnitTest tests[] = {
		model_test(flushed_write_must_survive_power_loss),
		model_test(unflushed_write_may_be_lost_to_power_but_not_to_a_kill),
		model_test(write_completed_during_a_flush_is_not_flushed),
		model_test(later_write_without_the_earlier_one_is_a_hole),
		model_test(zeroes_of_a_discard_count_as_its_trace),
		model_test(completed_write_in_part_is_wrong),
		model_test(write_in_flight_is_in_or_out_as_a_whole),
		model_test(write_in_flight_is_in_only_after_the_whole_history),
		model_test(writes_in_flight_may_overlap_in_any_order),
		model_test(writes_in_flight_cannot_each_be_over_the_other),
		model_test(what_was_undone_must_not_come_back),
		model_test(what_a_kill_left_unflushed_may_be_lost_to_power_later),
		model_test(what_power_loss_left_is_durable),
		model_test(write_with_fua_is_durable_and_those_before_it),
		model_test(failed_write_is_in_or_out_as_a_whole),
		model_test(shrunk_away_content_is_gone_for_ever),
		model_test(nothing_appears_where_nobody_wrote_it),
		model_test(read_shows_the_last_completed_write),
		model_test(read_may_show_what_was_in_flight_meanwhile),
		model_test(read_never_shows_a_write_to_another_place),
		model_test(snapshot_has_what_was_completed_before_and_nothing_submitted_later),
		model_test(snapshot_has_a_beginning_of_what_was_completed_meanwhile),
		model_test(snapshot_has_a_write_in_flight_as_a_whole_whatever_becomes_of_it),
		model_test(snapshots_made_at_once_have_an_instant_in_common),
		model_test(clone_begins_with_its_content_and_never_loses_it),
		cmocka_unit_test(stamp_is_known_only_at_its_place_and_whole),
	};

	return run_unit_tests(tests);
}
