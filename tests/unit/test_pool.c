/* Pools as a whole: create, import, grow, grant, run full; what is refused; and crashes in between. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "pool/base/mem.h"
#include "pool/pool_int.h"
#include "pool/segment_format.h"
#include "tests/unit/medium.h"
#include "tests/unit/unit.h"

#define DISK_BYTES (40ull << 20)

static const struct policy plain = { 1, 0 };
static struct media media;
static struct pool *pool;

/* --- rig -------------------------------------------------------------------------------------------------------- */

static void close_disks(struct disk **disks, uint32_t count)
{
	for (uint32_t i = 0; i < count; i++)
		disk_close(disks[i]);
}

static int try_create(struct media *of, uint32_t disk_count, bool force, struct err *err)
{
	struct pool_create_opts opts = { .name = "tank", .force = force };
	struct disk *disks[MEDIA_MAX] = { NULL };
	int ret;

	media_open(of, disks);
	ret = pool_create(&opts, disks, disk_count, &pool, err);
	close_disks(disks + (ret ? 0 : disk_count), of->count - (ret ? 0 : disk_count));
	return ret;
}

static void create(uint32_t disk_count)
{
	struct err err = { "" };

	if (try_create(&media, disk_count, false, &err))
		fail_msg("%s", err.msg);
}

/* Imports from the media whose numbers stand in `order`. */
static int try_import_of(struct media *of, const uint32_t *order, uint32_t count, struct err *err)
{
	struct disk *disks[MEDIA_MAX] = { NULL }, *chosen[MEDIA_MAX] = { NULL };
	int ret;

	media_open(of, disks);
	for (uint32_t i = 0; i < count; i++) {
		chosen[i] = disks[order[i]];
		disks[order[i]] = NULL;
	}
	ret = pool_import(chosen, count, &pool, err);
	if (ret)
		close_disks(chosen, count);
	for (uint32_t i = 0; i < of->count; i++)
		if (disks[i])
			disk_close(disks[i]);
	return ret;
}

static int try_import(struct media *of, uint32_t count, struct err *err)
{
	static const uint32_t order[MEDIA_MAX] = { 0, 1, 2, 3, 4, 5, 6, 7 };

	return try_import_of(of, order, count, err);
}

static void import(void)
{
	struct err err = { "" };

	if (try_import(&media, media.count, &err))
		fail_msg("%s", err.msg);
}

/* An import that must fail with this error and these words, and without a write. */
static void import_refused(uint32_t count, int error, const char *words)
{
	struct err err = { "" };
	uint64_t writes[MEDIA_MAX] = { 0 };

	for (uint32_t i = 0; i < media.count; i++)
		writes[i] = media.medium[i].writes;
	assert_int_equal(try_import(&media, count, &err), error);
	if (!strstr(err.msg, words))
		fail_msg("'%s' lacks '%s'", err.msg, words);
	for (uint32_t i = 0; i < media.count; i++)
		assert_int_equal(media.medium[i].writes, writes[i]);
}

static void run_on(uint32_t disks, void (*fn)(void *arg))
{
	env_seed(1);
	media_init(&media, disks, DISK_BYTES);
	run_fiber(fn, NULL);
	media_release(&media);
}

#define TEST_ON(disks, name)                 \
	static void name##_fiber(void *arg); \
	static void name(void **state)       \
	{                                    \
		run_on(disks, name##_fiber); \
	}                                    \
	static void name##_fiber(void *arg)

static bool segments_equal(const struct segment *a, const struct segment *b)
{
	char a_text[SEGMENT_TEXT_BYTES], b_text[SEGMENT_TEXT_BYTES];

	return strcmp(segment_to_text(a, a_text), segment_to_text(b, b_text)) == 0;
}

static int fault_writes(struct medium *medium, const struct disk_io *io)
{
	return io->op == DISK_WRITE ? -EIO : 0;
}

static int grant(uint64_t owner, uint32_t segno, enum grant_class class, struct segment *segment)
{
	return segment_grant(pool, owner, segno, STREAM_DATA, plain, class, UINT32_MAX, segment);
}

static int free_segment(uint64_t number)
{
	struct cat_txn txn;
	int ret;

	cat_txn_init(&txn);
	segment_free_in(&txn, number);
	ret = pool_commit(pool, &txn);
	cat_txn_release(&txn);
	return ret;
}

static int seal_segment(struct segment *segment, uint32_t blocks)
{
	struct cat_txn txn;
	int ret;

	segment->sealed_blocks = blocks;
	cat_txn_init(&txn);
	segment_put_in(&txn, segment);
	ret = pool_commit(pool, &txn);
	cat_txn_release(&txn);
	return ret;
}

static void count_segment(void *arg, const struct segment *segment)
{
	++*(uint32_t *)arg;
}

static uint32_t segments_of(uint64_t owner)
{
	uint32_t count = 0;

	segment_for_each(pool, owner, count_segment, &count);
	return count;
}

/* --- the straight path -------------------------------------------------------------------------------------------- */

TEST_ON(3, granted_segment_holds_data_after_import)
{
	static uint8_t out[3 * BLOCK_BYTES] __attribute__((aligned(4096))),
		in[3 * BLOCK_BYTES] __attribute__((aligned(4096)));
	struct segment segment, again;

	create(3);
	memset(out, 0x5a, sizeof(out));
	assert_int_equal(grant(7, 1, GRANT_DATA, &segment), 0);
	assert_int_equal(segment_write(pool, &segment, 5, 3, out), 0);
	assert_int_equal(pool_flush_disk(pool, segment.cols[0].disk_id), 0);
	assert_int_equal(seal_segment(&segment, 9), 0);
	pool_close(pool);

	import();
	assert_true(segment_from_obj(catalog_get(pool_catalog(pool), CAT_SEGMENT, segment.grant), &again));
	assert_true(segments_equal(&again, &segment));
	assert_int_equal(segment_read(pool, &again, 5, 3, in), 0);
	assert_memory_equal(in, out, sizeof(in));
	pool_close(pool);
}

TEST_ON(4, disks_may_be_given_in_any_order)
{
	struct segment segment[3];
	struct err err = { "" };

	create(4);
	for (uint32_t i = 0; i < 3; i++)
		assert_int_equal(grant(7, i, GRANT_DATA, &segment[i]), 0);
	pool_close(pool);
	for (uint32_t n = 0; n < 24; n++) {
		uint32_t order[4] = { 0, 1, 2, 3 };

		for (uint32_t i = 0, r = n; i < 4; r /= 4 - i, i++) {
			uint32_t j = i + r % (4 - i), swap = order[i];

			order[i] = order[j];
			order[j] = swap;
		}
		if (try_import_of(&media, order, 4, &err))
			fail_msg("%s", err.msg);
		assert_int_equal(segments_of(7), 3);
		pool_close(pool);
	}
}

static void wipe_catalog(uint32_t index)
{
	struct disk *disks[MEDIA_MAX] = { NULL };
	struct label label;

	media_open(&media, disks);
	assert_int_equal(label_read(disks[index], &label, NULL), 0);
	assert_int_equal(catalog_wipe_disk(disks[index], label.half), 0);
	close_disks(disks, media.count);
}

TEST_ON(2, import_makes_all_disks_agree)
{
	struct segment segment;

	create(2);
	assert_int_equal(grant(7, 1, GRANT_DATA, &segment), 0);
	pool_close(pool);
	for (uint32_t index = 0; index < 2; index++) {
		wipe_catalog(index);
		import();
		assert_int_equal(segments_of(7), 1);
		pool_close(pool);
	}
	wipe_catalog(0);
	wipe_catalog(1);
	import_refused(2, -ENOENT, "no disk has a valid catalog");
}

TEST_ON(3, segments_are_found_by_owner)
{
	struct segment segment;
	struct pool_info info;

	create(3);
	for (uint32_t i = 0; i < 9; i++)
		assert_int_equal(grant(i % 3, i, GRANT_DATA, &segment), 0);
	assert_int_equal(free_segment(segment.grant), 0);
	for (int pass = 0; pass < 2; pass++) {
		assert_int_equal(segments_of(0), 3);
		assert_int_equal(segments_of(1), 3);
		assert_int_equal(segments_of(2), 2);
		assert_int_equal(segments_of(3), 0);
		pool_get_info(pool, &info);
		assert_int_equal(info.segments, 8);
		assert_int_equal(info.zones_free, info.zones - 8);
		assert_int_equal(info.catalog_objects, 8 + 3);
		pool_close(pool);
		import();
	}
	pool_close(pool);
}

TEST_ON(2, number_of_a_living_segment_is_not_given_twice)
{
	struct segment segment, other;

	create(2);
	assert_int_equal(grant(1, 5, GRANT_DATA, &segment), 0);
	assert_int_equal(grant(1, 5, GRANT_DATA, &other), -EEXIST);
	assert_int_equal(grant(2, 5, GRANT_DATA, &other), 0);
	assert_int_equal(free_segment(segment.grant), 0);
	assert_int_equal(grant(1, 5, GRANT_DATA, &other), 0);
	assert_true(other.grant > segment.grant);
	pool_close(pool);
}

TEST_ON(2, grants_are_unique_over_imports)
{
	uint64_t last = 0;
	struct segment segment;

	create(2);
	for (int i = 0; i < 20; i++) {
		assert_int_equal(grant(1, 1, GRANT_DATA, &segment), 0);
		assert_true(segment.grant > last);
		last = segment.grant;
		assert_int_equal(free_segment(last), 0);
		if (i % 3)
			continue;
		pool_close(pool);
		import();
	}
	pool_close(pool);
}

TEST_ON(2, pool_and_disks_say_what_they_are)
{
	struct pool_disk_info info;
	char text[37];

	create(2);
	assert_string_equal(pool_name(pool), "tank");
	assert_ptr_equal(pool_loop(pool), loop_self());
	uuid_to_text(pool_uuid(pool), text);
	assert_int_equal(strlen(text), 36);
	assert_int_equal(text[14], '4');
	pool_get_disk_info(pool, 1, &info);
	assert_string_equal(info.uri, "medium:1");
	assert_string_equal(info.state, "online");
	assert_int_equal(info.id, 1);
	assert_int_equal(info.size_bytes, DISK_BYTES);
	assert_int_equal(info.zones, info.zones_free);
	assert_true(info.counters.ios[DISK_WRITE] > 0);
	pool_close(pool);
}

static void names_are_checked(void **state)
{
	char longest[66];

	assert_true(name_is_valid("a"));
	assert_true(name_is_valid("Tank_0.x-y"));
	assert_false(name_is_valid(""));
	assert_false(name_is_valid(".a"));
	assert_false(name_is_valid("-a"));
	assert_false(name_is_valid("a/b"));
	assert_false(name_is_valid("a b"));
	assert_false(name_is_valid("\xc3\xa4"));
	memset(longest, 'x', 65);
	longest[65] = '\0';
	assert_false(name_is_valid(longest));
	longest[64] = '\0';
	assert_true(name_is_valid(longest));
}

/* --- space ---------------------------------------------------------------------------------------------------------- */

static struct space_watch watch;
static uint32_t watch_calls;

static void watch_told(struct task *task)
{
	atomic_store(&watch.queued, false);
	watch_calls++;
}

static struct task watch_task = { .fn = watch_told };

static void watch_init(void)
{
	watch = (struct space_watch){ .loop = loop_self(), .task = &watch_task };
	watch_calls = 0;
}

TEST_ON(2, full_pool_keeps_the_reserve_and_tells_when_space_comes)
{
	struct segment segment, last = { 0 };
	struct pool_info info;
	uint32_t segno = 0;

	create(2);
	watch_init();
	assert_int_equal(space_watch_add(pool, &watch), 0);
	while (grant(1, segno, GRANT_DATA, &segment) == 0) {
		last = segment;
		segno++;
	}
	pool_get_info(pool, &info);
	assert_true(info.zones_reserved >= 2);
	assert_int_equal(info.zones_free, info.zones_reserved);
	assert_int_equal(grant(1, segno, GRANT_DATA, &segment), -ENOSPC);
	while (grant(1, segno, GRANT_RESERVE, &segment) == 0)
		segno++;
	pool_get_info(pool, &info);
	assert_int_equal(info.zones_free, 0);
	assert_int_equal(watch_calls, 0);

	assert_int_equal(free_segment(last.grant), 0);
	for (int turn = 0; turn < 3; turn++)
		fiber_yield();
	assert_int_equal(watch_calls, 1);
	assert_int_equal(grant(1, segno, GRANT_DATA, &segment), -ENOSPC);
	assert_int_equal(grant(1, segno, GRANT_RESERVE, &segment), 0);
	assert_memory_equal(&segment.cols[0], &last.cols[0], sizeof(last.cols[0]));

	assert_int_equal(free_segment(segment.grant), 0);
	space_watch_del(pool, &watch);
	assert_false(watch.queued);
	pool_close(pool);
}

TEST_ON(2, failed_grant_leaves_the_zones_free)
{
	struct segment segment;
	struct pool_info info;

	create(2);
	assert_int_equal(segment_grant(pool, 1, 1, STREAM_META, (struct policy){ 3, 1 }, GRANT_DATA, UINT32_MAX,
				       &segment),
			 -EIO);
	pool_get_info(pool, &info);
	assert_int_equal(info.zones_free, info.zones);
	assert_int_equal(segments_of(1), 0);
	pool_close(pool);
}

static uint64_t alloc_countdown;

static void *failing_alloc(size_t align_bytes, size_t size_bytes)
{
	void *ptr;

	if (alloc_countdown && --alloc_countdown == 0)
		return NULL;
	return posix_memalign(&ptr, align_bytes < 16 ? 16 : align_bytes, size_bytes) ? NULL : ptr;
}

static const struct mem_ops failing_mem = { .alloc = failing_alloc, .free = free };

TEST_ON(3, nomem_at_any_allocation_changes_nothing)
{
	struct segment segment;
	struct err err;
	struct pool_info info;
	uint32_t failures = 0;
	int ret;

	mem_set_ops(&failing_mem);
	for (uint64_t n = 1, failed = 1; failed; n++) {
		alloc_countdown = n;
		ret = try_create(&media, 3, true, &err);
		failed = alloc_countdown == 0;
		alloc_countdown = 0;
		assert_true(ret == 0 || (failed && ret == -ENOMEM));
		failures += failed;
		if (!ret)
			pool_close(pool);
	}
	for (uint64_t n = 1, failed = 1; failed; n++) {
		alloc_countdown = n;
		ret = try_import(&media, 3, &err);
		failed = alloc_countdown == 0;
		alloc_countdown = 0;
		assert_true(ret == 0 || (failed && ret == -ENOMEM));
		failures += failed;
		if (!ret)
			pool_close(pool);
	}
	import();
	for (uint64_t n = 1, failed = 1; failed; n++) {
		alloc_countdown = n;
		ret = segment_grant(pool, n, 0, STREAM_DATA, (struct policy){ 2, 1 }, GRANT_DATA, UINT32_MAX, &segment);
		failed = alloc_countdown == 0;
		alloc_countdown = 0;
		assert_true(ret == 0 || (failed && ret == -ENOMEM));
		assert_int_equal(segments_of(n), ret == 0);
		failures += failed;
		if (!ret)
			assert_int_equal(free_segment(segment.grant), 0);
	}
	pool_get_info(pool, &info);
	assert_int_equal(info.zones_free, info.zones);
	pool_close(pool);
	mem_set_ops(NULL);
	assert_true(failures > 50);
}

/* --- other loops ------------------------------------------------------------------------------------------------------ */

static struct loop other_loop;
static bool other_finished;

static void use_pool_from_other_loop(void *arg)
{
	struct segment segment;

	assert_ptr_equal(loop_self(), &other_loop);
	watch_init();
	assert_int_equal(space_watch_add(pool, &watch), 0);
	assert_int_equal(grant(1, 1, GRANT_DATA, &segment), 0);
	assert_int_equal(seal_segment(&segment, 3), 0);
	assert_true(pool_new_id(pool) > segment.grant);
	assert_int_equal(pool_flush_disk(pool, 0), 0);
	assert_int_equal(free_segment(segment.grant), 0);
	space_watch_del(pool, &watch);
	assert_int_equal(watch_calls, 1);
	other_finished = true;
}

static void turn_other_loop(void)
{
	struct loop *home = loop_enter(&other_loop);

	while (loop_turn(&other_loop) || loop_has_ready(&other_loop))
		;
	loop_enter(home);
}

/* One thread turns two loops. */
TEST_ON(2, pool_serves_other_loops)
{
	struct loop *home = loop_self();

	create(2);
	loop_init(&other_loop, home->ops, 1);
	other_finished = false;
	loop_enter(&other_loop);
	assert_int_equal(fiber_start(&other_loop, use_pool_from_other_loop, NULL), 0);
	loop_enter(home);
	env_between_turns(turn_other_loop);
	while (!other_finished)
		fiber_yield();
	env_between_turns(NULL);
	pool_close(pool);
	loop_fini(&other_loop);
}

/* --- what is refused ---------------------------------------------------------------------------------------------------- */

TEST_ON(3, missing_disk_is_named)
{
	struct pool_disk_info info;
	char text[37], words[120];

	create(3);
	pool_get_disk_info(pool, 2, &info);
	uuid_to_text(&info.uuid, text);
	pool_close(pool);
	snprintf(words, sizeof(words), "pool 'tank': 1 of its 3 disks is missing: disk 2 (uuid %s)", text);
	import_refused(2, -ENODEV, words);
	import_refused(1, -ENODEV, "2 of its 3 disks are missing: disk 1");
}

TEST_ON(3, disk_of_another_pool_is_refused)
{
	struct medium swap;
	struct media other;

	create(3);
	pool_close(pool);
	media_clone(&other, &media);
	env_seed(77);
	assert_int_equal(try_create(&other, 3, true, NULL), 0);
	pool_close(pool);
	swap = media.medium[1];
	media.medium[1] = other.medium[1];
	import_refused(3, -EINVAL,
		       "disk 'medium:0' belongs to pool 'tank', disk 'medium:1' to pool 'tank' (another one of");
	media.medium[1] = swap;
	media_release(&other);
}

TEST_ON(2, copy_of_a_disk_is_refused)
{
	struct medium swap;
	struct media other;

	create(2);
	pool_close(pool);
	media_clone(&other, &media);
	swap = media.medium[1];
	media.medium[1] = other.medium[0];
	import_refused(2, -EINVAL, "one is a copy of the other");
	media.medium[1] = swap;
	media_release(&other);
}

TEST_ON(2, disk_without_a_label_is_refused)
{
	create(1);
	pool_close(pool);
	import_refused(2, -ENOENT, "disk 'medium:1': no label of a pool");
}

TEST_ON(2, shrunk_disk_is_refused)
{
	create(2);
	pool_close(pool);
	media.medium[1].size_bytes -= 1 << 20;
	import_refused(2, -EUCLEAN, "its label says");
	media.medium[1].size_bytes += 1 << 20;
}

TEST_ON(2, disks_in_use_are_taken_only_by_force)
{
	struct err err = { "" };
	uint64_t writes;

	medium_write(&media.medium[1], 0, "XFSB", 4);
	writes = media.medium[0].writes;
	assert_int_equal(try_create(&media, 2, false, &err), -EEXIST);
	assert_string_equal(err.msg, "cannot use disk 'medium:1': it holds xfs data (use --force to overwrite it)");
	assert_int_equal(media.medium[0].writes, writes);
	assert_int_equal(try_create(&media, 2, true, &err), 0);
	pool_close(pool);
	assert_int_equal(try_create(&media, 2, false, &err), -EEXIST);
	assert_string_equal(err.msg, "cannot use disk 'medium:0': it belongs to pool 'tank' (use --force to take it)");
	assert_int_equal(try_create(&media, 2, true, &err), 0);
	pool_close(pool);
	import();
	pool_close(pool);
}

TEST_ON(1, create_refuses_nonsense)
{
	static const struct pool_create_opts bad[] = {
		{ .name = "" },
		{ .name = "a/b" },
		{ .name = "tank", .zone_bytes = 3 << 20 },
		{ .name = "tank", .zone_bytes = 1 << 20 },
		{ .name = "tank", .zone_bytes = 2u << 30 },
	};
	struct disk *disks[MEDIA_MAX], *twice[2];
	struct pool_create_opts good = { .name = "tank" };
	struct err err = { "" };

	media_open(&media, disks);
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
		assert_int_equal(pool_create(&bad[i], disks, 1, &pool, &err), -EINVAL);
	assert_int_equal(pool_create(&good, disks, 0, &pool, &err), -EINVAL);
	twice[0] = twice[1] = disks[0];
	assert_int_equal(pool_create(&good, twice, 2, &pool, &err), -EINVAL);
	assert_non_null(strstr(err.msg, "named twice"));
	good.zone_bytes = 32 << 20;
	assert_int_equal(pool_create(&good, disks, 1, &pool, &err), -ENOSPC);
	assert_int_equal(media.medium[0].writes, 0);
	disk_close(disks[0]);
}

TEST_ON(2, destroyed_pool_is_gone)
{
	struct err err = { "" };

	create(2);
	media.medium[1].fault = fault_writes;
	assert_int_equal(pool_destroy(pool, &err), -EIO);
	assert_non_null(strstr(err.msg, "cannot destroy pool 'tank': disk 'medium:1': "));
	media.medium[1].fault = NULL;
	assert_int_equal(pool_destroy(pool, NULL), 0);
	import_refused(2, -ENOENT, "no label");
	create(2);
	pool_close(pool);
}

/* --- catalogs that lie ------------------------------------------------------------------------------------------------------ */

/* Commits an object behind the pool's back and imports. */
static void import_with(enum catalog_kind kind, uint64_t id, const void *data, uint32_t len, const char *words)
{
	struct media image;
	struct err err = { "" };
	struct cat_txn txn;
	uint64_t writes;

	media_clone(&image, &media);
	assert_int_equal(try_import(&image, image.count, &err), 0);
	catalog_set_hooks(pool->catalog, NULL, NULL, NULL);
	cat_txn_init(&txn);
	cat_put(&txn, kind, id, data, len);
	assert_int_equal(catalog_commit(pool->catalog, &txn), 0);
	cat_txn_release(&txn);
	pool_close(pool);
	writes = image.medium[0].writes;
	assert_int_equal(try_import(&image, image.count, &err), -EUCLEAN);
	if (!strstr(err.msg, words))
		fail_msg("'%s' lacks '%s'", err.msg, words);
	assert_int_equal(image.medium[0].writes, writes);
	media_release(&image);
}

static void import_with_segment(struct segment_payload payload, uint32_t len, const char *words)
{
	import_with(CAT_SEGMENT, 1000, &payload, len, words);
}

TEST_ON(2, segments_that_lie_are_refused)
{
	struct segment segment;
	struct segment_payload good = { .owner = le64_of(1),
					.segno = le32_of(9),
					.sealed_blocks = le32_of(UINT32_MAX),
					.k = 1 },
			       p;

	create(2);
	assert_int_equal(grant(1, 4, GRANT_DATA, &segment), 0);
	pool_close(pool);
	good.cols[0].disk_id = le32_of(segment.cols[0].disk_id);
	good.cols[0].zone = le32_of(segment.cols[0].zone);
	import_with_segment(good, 32, "of disk 0, which another segment has");
	good.cols[0].zone = le32_of(segment.cols[0].zone + 1);
	p = good;
	p.cols[0].zone = le32_of(7000000);
	import_with_segment(p, 32, "claims zone 7000000 of disk 0, which does not exist");
	p = good;
	p.cols[0].disk_id = le32_of(UINT32_MAX - 1);
	import_with_segment(p, 32, "does not exist");
	p = good;
	p.cols[0] = (struct segment_col){ le32_of(DISK_NONE), le32_of(UINT32_MAX) };
	import_with_segment(p, 32, "makes no sense");
	p = good;
	p.lost = le32_of(2);
	import_with_segment(p, 32, "makes no sense");
	p = good;
	p.cols[0].disk_id = le32_of(256);
	import_with_segment(p, 32, "does not exist");
	p = good;
	p.segno = le32_of(4);
	import_with_segment(p, 32, "two segments of number 4");
	p = good;
	p.sealed_blocks = le32_of(513);
	import_with_segment(p, 32, "sealed behind its end");
	p = good;
	p.k = 2;
	p.cols[1] = p.cols[0];
	import_with_segment(p, 40, "makes no sense");
	p = good;
	p.k = 0;
	import_with_segment(p, 24, "makes no sense");
	p = good;
	p.k = 255;
	p.m = 255;
	import_with_segment(p, sizeof(p), "makes no sense");
	p = good;
	p.stream = STREAM_COUNT;
	import_with_segment(p, 32, "makes no sense");
	p = good;
	p.zero = 1;
	import_with_segment(p, 32, "makes no sense");
	import_with_segment(good, 31, "makes no sense");
	import_with_segment(good, 33, "makes no sense");
	import_with_segment(good, 0, "makes no sense");
}

TEST_ON(2, disk_entries_that_lie_are_refused)
{
	struct disk_payload good = { 0 }, p;
	const struct pool_disk *pd;

	create(2);
	pd = pool->disks[1];
	memcpy(good.uuid, pd->label.disk_uuid.b, 16);
	good.disk_bytes = le64_of(pd->label.disk_bytes);
	good.zone_count = le32_of(pd->label.zone_count);
	pool_close(pool);
	p = good;
	p.uuid[2] ^= 1;
	import_with(CAT_DISK, 1, &p, sizeof(p), "is not the disk 1 that the pool knows");
	p = good;
	p.zone_count = le32_of(1);
	import_with(CAT_DISK, 1, &p, sizeof(p), "is not the disk 1 that the pool knows");
	p = good;
	p.state = le32_of(DISK_STATES);
	import_with(CAT_DISK, 1, &p, sizeof(p), "makes no sense");
	import_with(CAT_DISK, 256, &good, sizeof(good), "makes no sense");
	import_with(CAT_DISK, 1ull << 53, &good, sizeof(good), "makes no sense");
	import_with(CAT_DISK, 1, &good, sizeof(good) - 1, "makes no sense");
}

/* --- crashes ------------------------------------------------------------------------------------------------------------------ */

static uint64_t rng_state = 1;

static uint32_t rnd(uint32_t below)
{
	rng_state = rng_state * 6364136223846793005ull + 1442695040888963407ull;
	return (uint32_t)(rng_state >> 33) % below;
}

/* Calls check for crashes at every entry of the log: all kept, all lost, some kept, some torn. */
static void for_each_crash(struct media *base, void (*check)(struct media *image, uint64_t entries))
{
	uint64_t from = 0;

	for (uint64_t entries = 0; entries <= media.log_count; entries++) {
		from = media_advance(base, &media, from, entries);
		for (uint32_t v = 0; v < 6; v++) {
			uint64_t kept = v == 0 ? 0 : v == 1 ? ~0ull : ((uint64_t)rnd(65536) << 16 | rnd(65536));
			struct crash crash = { from, entries, kept, v > 3 ? 1 + rnd(65536) : 0 };
			struct media image;

			media_clone(&image, base);
			crash_image(&image, &media, &crash);
			check(&image, entries);
			media_release(&image);
		}
	}
}

/* A pool that is being created exists or does not; either way it can be created again. */
static void check_created(struct media *image, uint64_t entries)
{
	struct err err;
	struct pool_info info;

	if (try_import(image, 2, &err) == 0) {
		pool_get_info(pool, &info);
		assert_int_equal(info.disk_count, 2);
		assert_int_equal(info.segments, 0);
		pool_close(pool);
	} else {
		assert_true(entries < media.log_count);
	}
	assert_int_equal(try_create(image, 2, true, &err), 0);
	pool_close(pool);
}

TEST_ON(2, crash_while_creating_leaves_a_pool_or_none)
{
	struct media base;

	media_clone(&base, &media);
	media.logging = true;
	create(2);
	pool_close(pool);
	for_each_crash(&base, check_created);
	media_release(&base);
}

#define OPS 40

struct op {
	struct segment segment;
	bool freed;
	uint64_t begun_at, acked_at; /* entries of the log */
};

static struct op ops[OPS];

/* Grants, seals and frees, each with the time of its acknowledgement. */
static void run_ops(void)
{
	for (uint32_t i = 0; i < OPS; i++) {
		ops[i].begun_at = media.log_count;
		ops[i].freed = i > 4 && rnd(2);
		if (ops[i].freed) {
			uint32_t victim = rnd(i);

			ops[i].segment = ops[victim].segment;
			assert_int_equal(free_segment(ops[i].segment.grant), 0);
		} else {
			assert_int_equal(grant(1, i, GRANT_RESERVE, &ops[i].segment), 0);
		}
		ops[i].acked_at = media.log_count;
	}
}

/* Is the segment there after the first `count` operations? */
static bool lives_after(uint64_t number, uint32_t count)
{
	bool lives = false;

	for (uint32_t i = 0; i < count; i++)
		if (ops[i].segment.grant == number)
			lives = !ops[i].freed;
	return lives;
}

static bool state_is_after(uint32_t count)
{
	uint32_t living = 0;

	for (uint32_t i = 0; i < OPS; i++) {
		const struct cat_obj *obj = catalog_get(pool->catalog, CAT_SEGMENT, ops[i].segment.grant);
		struct segment segment;

		if (!obj != !lives_after(ops[i].segment.grant, count))
			return false;
		if (obj && (!segment_from_obj(obj, &segment) || !segments_equal(&segment, &ops[i].segment)))
			return false;
		living += !ops[i].freed && obj;
	}
	return living == segments_of(1);
}

static void check_ops(struct media *image, uint64_t entries)
{
	struct err err = { "" };
	struct segment segment;
	uint32_t acked = 0;

	while (acked < OPS && ops[acked].acked_at <= entries)
		acked++;
	if (try_import(image, 2, &err))
		fail_msg("%s", err.msg);
	assert_true(state_is_after(acked) || (acked < OPS && state_is_after(acked + 1)));
	assert_int_equal(grant(2, 0, GRANT_RESERVE, &segment), 0);
	for (uint32_t i = 0; i < acked; i++)
		assert_true(segment.grant > ops[i].segment.grant);
	pool_close(pool);
}

TEST_ON(2, crash_keeps_acknowledged_grants_and_frees)
{
	struct media base;

	create(2);
	media_clone(&base, &media);
	media.logging = true;
	run_ops();
	pool_close(pool);
	for_each_crash(&base, check_ops);
	media_release(&base);
}

/* --- adding disks --------------------------------------------------------------------------------------------------------------- */

static int add_disk(struct media *of, uint32_t index, bool force, struct err *err)
{
	struct disk *disks[MEDIA_MAX] = { NULL };
	int ret;

	media_open(of, disks);
	ret = pool_add_disk(pool, disks[index], &(struct pool_add_opts){ .force = force }, err);
	for (uint32_t i = 0; i < of->count; i++)
		if (i != index || ret)
			disk_close(disks[i]);
	return ret;
}

static uint64_t add_acked_at;
static struct segment before_add;

/* Exactly one of the two sets of disks is the pool; once acknowledged it is the larger one. */
static void check_added(struct media *image, uint64_t entries)
{
	struct err err = { "" };
	struct segment segment;
	bool old = try_import(image, 2, &err) == 0;

	if (old) {
		assert_true(entries < add_acked_at);
		assert_int_equal(segments_of(1), 1);
		pool_close(pool);
		assert_true(try_import(image, 3, &err) < 0);
		assert_int_equal(try_import(image, 2, &err), 0);
		if (add_disk(image, 2, true, &err))
			fail_msg("%s", err.msg);
	} else if (try_import(image, 3, &err)) {
		fail_msg("%s", err.msg);
	}
	assert_int_equal(segments_of(1), 1);
	assert_true(segment_from_obj(catalog_get(pool->catalog, CAT_SEGMENT, before_add.grant), &segment));
	assert_true(segments_equal(&segment, &before_add));
	assert_int_equal(pool->disk_count, 3);
	pool_close(pool);
	assert_int_equal(try_import(image, 3, &err), 0);
	pool_close(pool);
}

TEST_ON(3, crash_while_adding_a_disk_leaves_old_or_new_pool)
{
	struct segment segment;
	struct media base;
	struct err err = { "" };

	create(2);
	assert_int_equal(grant(1, 1, GRANT_DATA, &before_add), 0);
	media_clone(&base, &media);
	media.logging = true;
	if (add_disk(&media, 2, false, &err))
		fail_msg("%s", err.msg);
	add_acked_at = media.log_count;
	media.logging = false;
	assert_int_equal(grant(3, 1, GRANT_DATA, &segment), 0);
	assert_int_equal(grant(3, 2, GRANT_DATA, &segment), 0);
	assert_int_equal(segment.cols[0].disk_id, 2);
	pool_close(pool);
	for_each_crash(&base, check_added);
	media_release(&base);
}

TEST_ON(4, added_disk_counts_and_wakes_waiters)
{
	struct pool_info before, after;
	struct disk *disks[MEDIA_MAX] = { NULL };
	struct disk_probe probe;
	struct err err = { "" };

	create(2);
	watch_init();
	assert_int_equal(space_watch_add(pool, &watch), 0);
	pool_get_info(pool, &before);
	assert_int_equal(add_disk(&media, 3, false, &err), 0);
	space_watch_del(pool, &watch);
	assert_int_equal(watch_calls, 1);
	pool_get_info(pool, &after);
	assert_int_equal(after.disk_count, 3);
	assert_int_equal(after.zones * 2, before.zones * 3);
	assert_int_equal(add_disk(&media, 0, true, &err), -EEXIST);
	assert_non_null(strstr(err.msg, "a disk of this pool already"));
	medium_write(&media.medium[2], 3, "NTFS    ", 8);
	assert_int_equal(add_disk(&media, 2, false, &err), -EEXIST);
	assert_int_equal(add_disk(&media, 2, true, &err), 0);
	pool_close(pool);
	media_open(&media, disks);
	for (int i = 0; i < 4; i++) {
		assert_int_equal(pool_probe_disk(disks[i], &probe, &err), 0);
		assert_int_equal(probe.disk_count, 4);
		disk_close(disks[i]);
	}
	import();
	pool_close(pool);
}

TEST_ON(3, failed_add_leaves_the_pool_as_it_was)
{
	struct pool_info before, after;
	struct err err = { "" };
	uint32_t failures = 0;

	create(2);
	pool_get_info(pool, &before);
	media.medium[2].fault = fault_writes;
	assert_int_equal(add_disk(&media, 2, true, &err), -EIO);
	assert_non_null(strstr(err.msg, "cannot add disk 'medium:2' to pool 'tank': "));
	media.medium[2].fault = NULL;
	mem_set_ops(&failing_mem);
	for (;; failures++) {
		int ret;

		alloc_countdown = failures + 1;
		ret = add_disk(&media, 2, true, &err);
		alloc_countdown = 0;
		if (!ret)
			break;
		assert_int_equal(ret, -ENOMEM);
		pool_get_info(pool, &after);
		assert_int_equal(after.disk_count, 2);
		assert_int_equal(after.zones_free, before.zones_free);
		assert_int_equal(after.catalog_objects, before.catalog_objects);
	}
	mem_set_ops(NULL);
	assert_true(failures >= 8);
	pool_close(pool);
	import();
	pool_close(pool);
}

/* --- failing disks ------------------------------------------------------------------------------------------------------------- */

TEST_ON(2, failed_commit_stops_the_pool_until_import)
{
	struct segment segment, other;
	struct pool_disk_info info;

	create(2);
	assert_int_equal(grant(1, 1, GRANT_DATA, &segment), 0);
	media.medium[1].fault = fault_writes;
	assert_int_equal(grant(1, 2, GRANT_DATA, &other), -EIO);
	media.medium[1].fault = NULL;
	assert_int_equal(grant(1, 3, GRANT_DATA, &other), -EIO);
	assert_int_equal(free_segment(segment.grant), -EIO);
	pool_get_disk_info(pool, 1, &info);
	assert_string_equal(info.state, "failed");
	pool_get_disk_info(pool, 0, &info);
	assert_string_equal(info.state, "online");
	pool_close(pool);
	import();
	assert_true(catalog_get(pool->catalog, CAT_SEGMENT, segment.grant) != NULL);
	assert_int_equal(grant(1, 3, GRANT_DATA, &other), 0);
	pool_close(pool);
}

TEST_ON(2, failed_create_says_which_disk)
{
	struct err err = { "" };

	media.medium[1].fault = fault_writes;
	assert_int_equal(try_create(&media, 2, false, &err), -EIO);
	assert_non_null(strstr(err.msg, "cannot create pool 'tank': disk 'medium:1': "));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(granted_segment_holds_data_after_import),
		cmocka_unit_test(disks_may_be_given_in_any_order),
		cmocka_unit_test(import_makes_all_disks_agree),
		cmocka_unit_test(segments_are_found_by_owner),
		cmocka_unit_test(number_of_a_living_segment_is_not_given_twice),
		cmocka_unit_test(grants_are_unique_over_imports),
		cmocka_unit_test(pool_and_disks_say_what_they_are),
		cmocka_unit_test(names_are_checked),
		cmocka_unit_test(full_pool_keeps_the_reserve_and_tells_when_space_comes),
		cmocka_unit_test(failed_grant_leaves_the_zones_free),
		cmocka_unit_test(nomem_at_any_allocation_changes_nothing),
		cmocka_unit_test(pool_serves_other_loops),
		cmocka_unit_test(missing_disk_is_named),
		cmocka_unit_test(disk_of_another_pool_is_refused),
		cmocka_unit_test(copy_of_a_disk_is_refused),
		cmocka_unit_test(disk_without_a_label_is_refused),
		cmocka_unit_test(shrunk_disk_is_refused),
		cmocka_unit_test(disks_in_use_are_taken_only_by_force),
		cmocka_unit_test(create_refuses_nonsense),
		cmocka_unit_test(destroyed_pool_is_gone),
		cmocka_unit_test(segments_that_lie_are_refused),
		cmocka_unit_test(disk_entries_that_lie_are_refused),
		cmocka_unit_test(crash_while_creating_leaves_a_pool_or_none),
		cmocka_unit_test(crash_keeps_acknowledged_grants_and_frees),
		cmocka_unit_test(crash_while_adding_a_disk_leaves_old_or_new_pool),
		cmocka_unit_test(added_disk_counts_and_wakes_waiters),
		cmocka_unit_test(failed_add_leaves_the_pool_as_it_was),
		cmocka_unit_test(failed_commit_stops_the_pool_until_import),
		cmocka_unit_test(failed_create_says_which_disk),
	};

	return run_unit_tests(tests);
}
