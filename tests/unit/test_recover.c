/* Recovery of a lineage from disks that have lost something, or say what cannot be. What crashes leave is the
 * simulator's; here the damage is chosen.
 *
 * A log of BATCHES batches of one write each fills one segment and goes on in a second, so that what is behind a batch
 * missing in the first is found all the same. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "pool/catalog.h"
#include "tests/unit/medium.h"
#include "tests/unit/unit.h"
#include "tests/unit/unit_loop.h"
#include "tests/unit/unit_volume.h"
#include "volumes/batch_format.h"
#include "volumes/map_format.h"

#define DISKS 2
#define DISK_BYTES (32ull << 20)
#define BATCHES 10u
#define WRITE_BLOCKS 64u
#define WRITE_BYTES (WRITE_BLOCKS * BLOCK_BYTES)

struct rig {
	struct unit_loop u;
	struct loop *loops[1];
	struct media media; /* what the pool is on */
	struct pool *pool;
	struct volumes *vols;
	struct volume *vol;
	struct err err;
	uint8_t *buf;
	/* what a test chooses */
	struct policy policy;
	bool flush; /* after each write */
};

/* --- a pool and its log --------------------------------------------------------------------------------------- */

static void open_volumes(struct rig *rig)
{
	struct volumes_opts opts = { .loops = rig->loops, .loop_count = 1 };

	assert_int_equal(volumes_open(rig->pool, &opts, &rig->vols, &rig->err), 0);
}

static void import(struct rig *rig)
{
	struct disk *disks[MEDIA_MAX];

	media_open(&rig->media, disks);
	assert_int_equal(pool_import(disks, DISKS, &rig->pool, &rig->err), 0);
}

static int reopen(struct rig *rig)
{
	import(rig);
	open_volumes(rig);
	return unit_volume_open(rig->vols, "v", &rig->vol, &rig->err);
}

static void close_all(struct rig *rig)
{
	if (rig->vol)
		volume_close(rig->vol);
	rig->vol = NULL;
	volumes_close(rig->vols);
	pool_close(rig->pool);
}

static void write_log(struct rig *rig)
{
	for (uint32_t i = 0; i < BATCHES; i++) {
		memset(rig->buf, 1 + (int)i, WRITE_BYTES);
		assert_int_equal(unit_volume_request(rig->vol, VIO_WRITE, i * WRITE_BYTES, WRITE_BYTES, rig->buf), 0);
		if (rig->flush)
			assert_int_equal(unit_volume_request(rig->vol, VIO_FLUSH, 0, 0, NULL), 0);
	}
}

/* Leaves in rig->media what disks hold after a crash that loses nothing. */
static void crash(struct rig *rig)
{
	struct media crashed;

	media_clone(&crashed, &rig->media);
	close_all(rig);
	media_release(&rig->media);
	rig->media = crashed;
}

static void make_and_crash(struct rig *rig)
{
	struct pool_create_opts pool_opts = { .name = "tank", .zone_bytes = ZONE_BYTES_MIN };
	struct volume_create_opts opts = { .name = "v", .size_bytes = 16 << 20, .policy = rig->policy };
	struct disk *disks[MEDIA_MAX];

	media_init(&rig->media, DISKS, DISK_BYTES);
	media_open(&rig->media, disks);
	assert_int_equal(pool_create(&pool_opts, disks, DISKS, &rig->pool, &rig->err), 0);
	open_volumes(rig);
	assert_int_equal(volume_create(rig->vols, &opts, &rig->err), 0);
	assert_int_equal(unit_volume_open(rig->vols, "v", &rig->vol, &rig->err), 0);
	write_log(rig);
	crash(rig);
}

/* How many of the writes are there, from the first on; behind them there must be nothing. */
static uint32_t writes_found(struct rig *rig)
{
	uint32_t found = BATCHES;

	for (uint32_t i = BATCHES; i-- > 0;) {
		assert_int_equal(unit_volume_request(rig->vol, VIO_READ, i * WRITE_BYTES, WRITE_BYTES, rig->buf), 0);
		assert_memory_equal(rig->buf, rig->buf + 1, WRITE_BYTES - 1);
		if (rig->buf[0] == 0 && i + 1 == found)
			found = i;
		else
			assert_int_equal(rig->buf[0], i + 1);
	}
	return found;
}

/* --- damage ----------------------------------------------------------------------------------------------------- */

struct place {
	struct medium *medium;
	uint64_t off;
};

/* The header of the batch with the i-th write. */
static struct place find_batch(struct rig *rig, uint32_t i)
{
	struct batch_header h;

	for (uint32_t d = 0; d < DISKS; d++) {
		for (uint64_t off = 0; off < DISK_BYTES; off += BLOCK_BYTES) {
			medium_read(&rig->media.medium[d], off, &h, sizeof(h));
			if (le32_get(h.magic) == BATCH_MAGIC && h.stream == STREAM_DATA &&
			    le64_get(batch_extents(&h)->lba) == i * WRITE_BLOCKS)
				return (struct place){ &rig->media.medium[d], off };
		}
	}
	fail_msg("no batch has write %u", i);
	return (struct place){ NULL, 0 };
}

/* --- tests ------------------------------------------------------------------------------------------------------- */

static void lose_a_flushed_batch(void *arg)
{
	static const uint8_t zeroes[BLOCK_BYTES];
	struct rig *rig = arg;
	uint8_t header[BLOCK_BYTES];
	struct place lost;

	rig->flush = true;
	make_and_crash(rig);
	lost = find_batch(rig, 2);
	medium_read(lost.medium, lost.off, header, BLOCK_BYTES);
	medium_write(lost.medium, lost.off, zeroes, BLOCK_BYTES);
	assert_int_equal(reopen(rig), -EIO);
	assert_non_null(strstr(rig->err.msg, "was flushed"));
	close_all(rig);

	/* Nothing was cut: with the batch back all is there. */
	medium_write(lost.medium, lost.off, header, BLOCK_BYTES);
	assert_int_equal(reopen(rig), 0);
	assert_int_equal(writes_found(rig), BATCHES);
	close_all(rig);
}

static void lose_an_unflushed_batch(void *arg)
{
	static const uint8_t zeroes[BLOCK_BYTES];
	struct rig *rig = arg;
	struct place lost;

	make_and_crash(rig);
	lost = find_batch(rig, 2);
	medium_write(lost.medium, lost.off, zeroes, BLOCK_BYTES);
	for (int i = 0; i < 2; i++) {
		assert_int_equal(reopen(rig), 0);
		assert_int_equal(writes_found(rig), 2);
		close_all(rig);
	}
}

static void tear_an_unflushed_batch(void *arg)
{
	static const uint8_t zeroes[SECTOR_BYTES];
	struct rig *rig = arg;
	struct place torn;

	make_and_crash(rig);
	torn = find_batch(rig, 3);
	medium_write(torn.medium, torn.off + WRITE_BYTES, zeroes, SECTOR_BYTES);
	assert_int_equal(reopen(rig), 0);
	assert_int_equal(writes_found(rig), 3);
	close_all(rig);
}

/* The torn batch and those behind it are cut off for good, although their headers are still there. */
static void crash_again_after_a_cut(void *arg)
{
	static const uint8_t zeroes[SECTOR_BYTES];
	struct rig *rig = arg;
	struct place torn;

	make_and_crash(rig);
	torn = find_batch(rig, 3);
	medium_write(torn.medium, torn.off + WRITE_BYTES, zeroes, SECTOR_BYTES);
	assert_int_equal(reopen(rig), 0);
	memset(rig->buf, 1 + 3, WRITE_BYTES);
	assert_int_equal(unit_volume_request(rig->vol, VIO_WRITE, 3 * WRITE_BYTES, WRITE_BYTES, rig->buf), 0);
	assert_int_equal(unit_volume_request(rig->vol, VIO_FLUSH, 0, 0, NULL), 0);
	crash(rig);
	assert_int_equal(reopen(rig), 0);
	assert_int_equal(writes_found(rig), 4);
	close_all(rig);
}

/* The catalog says of the lineage that its policy is another than that of its segments. */
static void change_policy(struct rig *rig, struct policy policy)
{
	const struct cat_obj *obj;
	struct lineage_format f;
	struct cat_txn txn;

	import(rig);
	obj = catalog_next(pool_catalog(rig->pool), CAT_LINEAGE, 0);
	memcpy(&f, obj->data, sizeof(f));
	f.k = policy.k;
	f.m = policy.m;
	cat_txn_init(&txn);
	cat_put(&txn, CAT_LINEAGE, obj->id, &f, sizeof(f));
	assert_int_equal(pool_commit(rig->pool, &txn), 0);
	cat_txn_release(&txn);
	pool_close(rig->pool);
}

static void lie_about_a_policy(void *arg)
{
	struct rig *rig = arg;

	make_and_crash(rig);
	change_policy(rig, (struct policy){ 3 - rig->policy.k, 0 });
	assert_int_equal(reopen(rig), -EIO);
	assert_non_null(strstr(rig->err.msg, "another policy"));
	close_all(rig);
}

static void run(void (*fn)(void *arg), struct policy policy)
{
	struct rig rig = { .policy = policy, .buf = aligned_alloc(BLOCK_BYTES, WRITE_BYTES) };

	rig.loops[0] = &rig.u.loop;
	unit_loop_init(&rig.u);
	unit_loop_run_fiber(&rig.u, fn, &rig);
	unit_loop_fini(&rig.u);
	media_release(&rig.media);
	free(rig.buf);
}

static void refuses_when_a_flushed_batch_is_missing(void **state)
{
	run(lose_a_flushed_batch, (struct policy){ 1, 0 });
}

static void ends_before_an_unflushed_batch_that_is_missing(void **state)
{
	run(lose_an_unflushed_batch, (struct policy){ 1, 0 });
}

static void ends_before_an_unflushed_batch_that_is_torn(void **state)
{
	run(tear_an_unflushed_batch, (struct policy){ 1, 0 });
}

static void what_was_cut_off_stays_away(void **state)
{
	run(crash_again_after_a_cut, (struct policy){ 1, 0 });
}

static void refuses_segments_with_fewer_columns_than_the_lineage(void **state)
{
	run(lie_about_a_policy, (struct policy){ 1, 0 });
}

static void refuses_segments_with_more_columns_than_the_lineage(void **state)
{
	run(lie_about_a_policy, (struct policy){ 2, 0 });
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(refuses_when_a_flushed_batch_is_missing),
		cmocka_unit_test(ends_before_an_unflushed_batch_that_is_missing),
		cmocka_unit_test(ends_before_an_unflushed_batch_that_is_torn),
		cmocka_unit_test(what_was_cut_off_stays_away),
		cmocka_unit_test(refuses_segments_with_fewer_columns_than_the_lineage),
		cmocka_unit_test(refuses_segments_with_more_columns_than_the_lineage),
	};

	return run_unit_tests(tests);
}
