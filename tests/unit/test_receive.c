/* Volumes that are being received, and the identity of snapshots: what is kept when the pool is opened again, and what is refused. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "pool/disks/disk_int.h"
#include "tests/unit/unit.h"
#include "tests/unit/unit_loop.h"
#include "tests/unit/unit_volume.h"
#include "volumes/map_format.h"
#include "volumes/volume.h"

#define MIB (1ull << 20)

struct rig {
	struct unit_loop u;
	struct loop *loops[1];
	struct disk *disk;
	struct pool *pool;
	struct volumes *vols;
	struct err err;
	uint8_t buf[BLOCK_BYTES] __attribute__((aligned(BLOCK_BYTES)));
};

static void open_volumes(struct rig *rig)
{
	struct volumes_opts opts = { .loops = rig->loops, .loop_count = 1 };

	assert_int_equal(volumes_open(rig->pool, &opts, &rig->vols, &rig->err), 0);
}

static void open_again(struct rig *rig)
{
	volumes_close(rig->vols);
	open_volumes(rig);
}

static void run_on_fiber(void *arg)
{
	struct pool_create_opts opts = { .name = "tank", .zone_bytes = ZONE_BYTES_MIN };
	struct disk_open_opts disk_opts = { 0 };
	void (*test)(struct rig *rig) = *(void (**)(struct rig *rig))arg;
	struct rig *rig = calloc(1, sizeof(*rig));

	assert_non_null(rig);
	rig->loops[0] = loop_self();
	assert_int_equal(disk_ram_open("1G", "1G", &disk_opts, &rig->disk, &rig->err), 0);
	assert_int_equal(pool_create(&opts, &rig->disk, 1, &rig->pool, &rig->err), 0);
	open_volumes(rig);
	test(rig);
	volumes_close(rig->vols);
	pool_close(rig->pool);
	free(rig);
}

static void run(void (*test)(struct rig *rig))
{
	struct unit_loop u;

	unit_loop_init(&u);
	unit_loop_run_fiber(&u, run_on_fiber, &test);
	unit_loop_fini(&u);
}

static void create(struct rig *rig, const char *name, bool receiving)
{
	struct volume_create_opts opts = { .name = name, .size_bytes = 4 * MIB, .receiving = receiving };

	assert_int_equal(volume_create(rig->vols, &opts, &rig->err), 0);
}

static void write_block(struct rig *rig, const char *name, uint64_t block, uint8_t value)
{
	struct volume *volume;

	memset(rig->buf, value, sizeof(rig->buf));
	assert_int_equal(volume_open(rig->vols, name, &volume, &rig->err), 0);
	assert_int_equal(unit_volume_request(volume, VIO_WRITE, block * BLOCK_BYTES, BLOCK_BYTES, rig->buf), 0);
	volume_close(volume);
}

static uint8_t read_block(struct rig *rig, const char *name, uint64_t block)
{
	struct volume *volume;

	assert_int_equal(volume_open(rig->vols, name, &volume, &rig->err), 0);
	assert_int_equal(unit_volume_request(volume, VIO_READ, block * BLOCK_BYTES, BLOCK_BYTES, rig->buf), 0);
	volume_close(volume);
	return rig->buf[0];
}

static int snapshot(struct rig *rig, const char *name)
{
	return volume_snapshot(rig->vols, &name, 1, &rig->err);
}

static struct volume_info info_of(struct rig *rig, const char *name)
{
	struct volume_info info;

	assert_int_equal(volume_get_info(rig->vols, name, &info, &rig->err), 0);
	return info;
}

static bool exists(struct rig *rig, const char *name)
{
	struct volume_info info;

	return volume_get_info(rig->vols, name, &info, NULL) == 0;
}

/* ---- receiving ---- */

static const struct uuid mon = { { 1, 2, 3 } }, tue = { { 4, 5, 6 } };

static void expect_mark(struct rig *rig, const char *name, uint64_t seq)
{
	struct receive_mark mark;

	assert_int_equal(volume_receive_get_mark(rig->vols, name, &mark, &rig->err), 0);
	assert_int_equal(mark.seq, seq);
	assert_int_equal(mark.crc, seq + 7);
}

static void receive(struct rig *rig)
{
	struct volume_info info;

	create(rig, "v", true);
	write_block(rig, "v", 1, 11);
	assert_int_equal(volume_receive_set_mark(rig->vols, "v", (struct receive_mark){ 5, 12 }, &rig->err), 0);
	open_again(rig);
	assert_true(info_of(rig, "v").receiving);
	expect_mark(rig, "v", 5);
	assert_int_equal(snapshot(rig, "v@mine"), -EBUSY);
	assert_int_equal(volume_clone(rig->vols, "v", "mine", &rig->err), -EBUSY);
	write_block(rig, "v", 2, 12);
	assert_int_equal(volume_receive_snapshot(rig->vols, "v@mon", &mon, 99, (struct receive_mark){ 9, 16 }, &rig->err), 0);
	open_again(rig);
	expect_mark(rig, "v", 9);
	info = info_of(rig, "v@mon");
	assert_true(info.snapshot && !info.receiving && uuid_equal(&info.guid, &mon));
	assert_int_equal(info.created_s, 99);
	assert_int_equal(read_block(rig, "v@mon", 2), 12);
	assert_int_equal(volume_receive_end(rig->vols, "v", &rig->err), 0);
	open_again(rig);
	assert_false(info_of(rig, "v").receiving);
	assert_int_equal(volume_receive_end(rig->vols, "v", &rig->err), -EINVAL);
	assert_int_equal(snapshot(rig, "v@mine"), 0);
}

static void a_volume_is_received(void **state)
{
	run(receive);
}

static void receive_on_base(struct rig *rig)
{
	struct volume *volume;

	create(rig, "v", true);
	write_block(rig, "v", 1, 11);
	assert_int_equal(volume_receive_snapshot(rig->vols, "v@mon", &mon, 1, (struct receive_mark){ 3, 10 }, &rig->err), 0);
	assert_int_equal(volume_receive_begin(rig->vols, "v", &mon, &rig->err), -EEXIST);
	assert_int_equal(volume_receive_end(rig->vols, "v", &rig->err), 0);
	assert_int_equal(volume_receive_begin(rig->vols, "v", &tue, &rig->err), -ENOENT);
	assert_int_equal(volume_receive_begin(rig->vols, "v@mon", &mon, &rig->err), -EROFS);
	assert_int_equal(volume_open(rig->vols, "v", &volume, &rig->err), 0);
	assert_int_equal(volume_receive_begin(rig->vols, "v", &mon, &rig->err), -EBUSY);
	volume_close(volume);
	write_block(rig, "v", 2, 12);
	assert_int_equal(volume_receive_begin(rig->vols, "v", &mon, &rig->err), -EBUSY);
	assert_false(info_of(rig, "v").receiving);
	assert_int_equal(volume_rollback(rig->vols, "v@mon", &rig->err), 0);
	assert_int_equal(volume_resize(rig->vols, "v", 8 * MIB, &rig->err), 0);
	assert_int_equal(volume_receive_begin(rig->vols, "v", &mon, &rig->err), -EBUSY);
	assert_int_equal(volume_resize(rig->vols, "v", 4 * MIB, &rig->err), 0);
	assert_int_equal(volume_receive_begin(rig->vols, "v", &mon, &rig->err), 0);
	assert_int_equal(volume_receive_get_mark(rig->vols, "v", &(struct receive_mark){ 0 }, &rig->err), 0);
}

static void differences_need_their_base_unchanged(void **state)
{
	run(receive_on_base);
}

static void give_up(struct rig *rig)
{
	create(rig, "v", true);
	write_block(rig, "v", 1, 11);
	assert_int_equal(volume_receive_snapshot(rig->vols, "v@mon", &mon, 1, (struct receive_mark){ 3, 10 }, &rig->err), 0);
	write_block(rig, "v", 1, 12);
	assert_int_equal(volume_receive_snapshot(rig->vols, "v@mon", &tue, 1, (struct receive_mark){ 4, 11 }, &rig->err),
			 -EEXIST);
	expect_mark(rig, "v", 3);
	assert_int_equal(volume_rollback(rig->vols, "v@mon", &rig->err), 0);
	open_again(rig);
	assert_false(info_of(rig, "v").receiving);
	assert_int_equal(read_block(rig, "v", 1), 11);
	assert_false(exists(rig, "v@tue"));
}

static void a_rollback_gives_it_up(void **state)
{
	run(give_up);
}

/* ---- identity ---- */

static void keep_guids(struct rig *rig)
{
	struct uuid guid, again;

	create(rig, "v", false);
	assert_int_equal(snapshot(rig, "v@a"), 0);
	assert_int_equal(snapshot(rig, "v@b"), 0);
	guid = info_of(rig, "v@a").guid;
	again = info_of(rig, "v@b").guid;
	assert_false(uuid_equal(&guid, &again));
	assert_int_equal(volume_rename(rig->vols, "v@a", "v@c", &rig->err), 0);
	open_again(rig);
	again = info_of(rig, "v@c").guid;
	assert_true(uuid_equal(&guid, &again));
}

static void snapshots_keep_their_guid(void **state)
{
	run(keep_guids);
}

/* Makes all images' objects what an earlier version wrote. */
static void make_old(struct rig *rig)
{
	struct catalog *cat = pool_catalog(rig->pool);
	struct cat_txn txn;

	cat_txn_init(&txn);
	for (const struct cat_obj *obj = catalog_next(cat, CAT_VOLUME, 0); obj; obj = catalog_next(cat, CAT_VOLUME, obj->id + 1)) {
		struct volume_format f;

		memcpy(&f, obj->data, sizeof(f));
		f.version = le32_of(1);
		cat_put(&txn, CAT_VOLUME, obj->id, &f, VOLUME_FORMAT_1_BYTES);
	}
	assert_int_equal(pool_commit(rig->pool, &txn), 0);
	cat_txn_release(&txn);
}

static void upgrade(struct rig *rig)
{
	struct uuid a, b, again;

	create(rig, "v", false);
	write_block(rig, "v", 1, 11);
	assert_int_equal(snapshot(rig, "v@a"), 0);
	assert_int_equal(snapshot(rig, "v@b"), 0);
	volumes_close(rig->vols);
	make_old(rig);
	open_volumes(rig);
	assert_int_equal(read_block(rig, "v@a", 1), 11);
	a = info_of(rig, "v@a").guid;
	b = info_of(rig, "v@b").guid;
	assert_false(uuid_equal(&a, &b));
	open_again(rig);
	again = info_of(rig, "v@a").guid;
	assert_true(uuid_equal(&a, &again));
	assert_int_equal(volume_rename(rig->vols, "v@a", "v@c", &rig->err), 0);
	open_again(rig);
	again = info_of(rig, "v@c").guid;
	assert_true(uuid_equal(&a, &again));
}

static void snapshots_of_earlier_versions_get_a_guid_that_stays(void **state)
{
	run(upgrade);
}

static void guids_are_read_as_they_are_written(void **state)
{
	struct uuid a = { { 0x12, 0xab, 0, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0xff, 0xee, 0xdd, 0xcc } }, b;
	char text[40];

	uuid_to_text(&a, text);
	assert_true(uuid_from_text(text, &b));
	assert_true(uuid_equal(&a, &b));
	text[35] = 'g';
	assert_false(uuid_from_text(text, &b));
	text[35] = '\0';
	assert_false(uuid_from_text(text, &b));
	strcpy(text + 35, "ccc");
	assert_false(uuid_from_text(text, &b));
	assert_false(uuid_from_text("", &b));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_volume_is_received),
		cmocka_unit_test(differences_need_their_base_unchanged),
		cmocka_unit_test(a_rollback_gives_it_up),
		cmocka_unit_test(snapshots_keep_their_guid),
		cmocka_unit_test(snapshots_of_earlier_versions_get_a_guid_that_stays),
		cmocka_unit_test(guids_are_read_as_they_are_written),
	};

	return run_unit_tests(tests);
}
