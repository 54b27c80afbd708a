/* Reads off the smooth path, over disks that count, fail or hold them. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "pool/catalog.h"
#include "tests/unit/medium.h"
#include "tests/unit/unit.h"
#include "tests/unit/unit_loop.h"
#include "tests/unit/unit_volume.h"
#include "volumes/volume.h"

#define DISK_BYTES (48ull << 20)
#define SECOND_NS 1000000000ull
#define READS_MAX 8u /* of a MiB that is contiguous on disk, with its map nodes */

struct rig {
	struct unit_loop u;
	struct loop *loops[1];
	struct media media;
	struct pool *pool;
	struct volumes *vols;
	struct volume *vol;
	struct err err;
	uint8_t *buf;
	bool read_done, checkpoint_done;
	int read_res;
};

static void open_volumes(struct rig *rig)
{
	struct volumes_opts opts = { .loops = rig->loops, .loop_count = 1 };

	assert_int_equal(volumes_open(rig->pool, &opts, &rig->vols, &rig->err), 0);
}

static void make_volume(struct rig *rig)
{
	struct pool_create_opts pool_opts = { .name = "tank", .zone_bytes = ZONE_BYTES_MIN };
	struct volume_create_opts opts = { .name = "v", .size_bytes = 16 << 20 };
	struct disk *disks[MEDIA_MAX];

	media_init(&rig->media, 1, DISK_BYTES);
	media_open(&rig->media, disks);
	assert_int_equal(pool_create(&pool_opts, disks, 1, &rig->pool, &rig->err), 0);
	open_volumes(rig);
	assert_int_equal(volume_create(rig->vols, &opts, &rig->err), 0);
	assert_int_equal(unit_volume_open(rig->vols, "v", &rig->vol, &rig->err), 0);
}

static void close_volumes(struct rig *rig)
{
	volume_close(rig->vol);
	volumes_close(rig->vols);
}

static int request(struct rig *rig, enum vio_op op, uint64_t off_bytes, uint64_t len_bytes)
{
	return unit_volume_request(rig->vol, op, off_bytes, len_bytes, rig->buf);
}

/* Of each sector its number. */
static void fill(uint8_t *buf, uint64_t len_bytes)
{
	for (uint64_t i = 0; i < len_bytes / SECTOR_BYTES; i++)
		memset(buf + i * SECTOR_BYTES, (int)(i * 7 + i / 256 + 1), SECTOR_BYTES);
}

/* A MiB in one batch, and no map node in memory. */
static void make_cold_mib(struct rig *rig)
{
	make_volume(rig);
	fill(rig->buf, VIO_BYTES_MAX);
	assert_int_equal(request(rig, VIO_WRITE, 0, VIO_BYTES_MAX), 0);
	close_volumes(rig);
	open_volumes(rig);
	assert_int_equal(unit_volume_open(rig->vols, "v", &rig->vol, &rig->err), 0);
	rig->media.medium[0].reads = 0;
}

static void check_mib(struct rig *rig, uint64_t off_bytes, uint64_t len_bytes)
{
	uint8_t *want = malloc(VIO_BYTES_MAX);

	fill(want, VIO_BYTES_MAX);
	memset(rig->buf, 0xee, VIO_BYTES_MAX);
	assert_int_equal(request(rig, VIO_READ, off_bytes, len_bytes), 0);
	assert_memory_equal(rig->buf, want + off_bytes, len_bytes);
	free(want);
}

/* --- a read whose map is not in memory, or that is not of whole blocks -------------------------------------------- */

static void read_cold(void *arg)
{
	struct rig *rig = arg;

	make_cold_mib(rig);
	check_mib(rig, 0, VIO_BYTES_MAX);
	assert_true(rig->media.medium[0].reads <= READS_MAX);
	rig->media.medium[0].reads = 0;
	check_mib(rig, SECTOR_BYTES, VIO_BYTES_MAX - 2 * SECTOR_BYTES);
	assert_true(rig->media.medium[0].reads <= READS_MAX);
	close_volumes(rig);
	pool_close(rig->pool);
}

static int fail_long_reads(struct medium *medium, const struct disk_io *io)
{
	return io->op == DISK_READ && io->len_bytes > BLOCK_BYTES ? -EIO : 0;
}

static void read_by_blocks(void *arg)
{
	struct rig *rig = arg;

	make_cold_mib(rig);
	rig->media.medium[0].fault = fail_long_reads;
	check_mib(rig, 0, VIO_BYTES_MAX);
	check_mib(rig, 3 * SECTOR_BYTES, VIO_BYTES_MAX / 2);
	rig->media.medium[0].fault = NULL;
	close_volumes(rig);
	pool_close(rig->pool);
}

/* Damages the second sector of the volume on its disk. */
static void damage_a_block(struct rig *rig)
{
	struct medium *medium = &rig->media.medium[0];
	uint8_t want[2 * SECTOR_BYTES], found[2 * SECTOR_BYTES];

	fill(want, sizeof(want));
	for (uint64_t off = 0; off < DISK_BYTES; off += BLOCK_BYTES) {
		medium_read(medium, off, found, sizeof(found));
		if (memcmp(found, want, sizeof(found)) == 0) {
			found[SECTOR_BYTES] ^= 1;
			medium_write(medium, off, found, sizeof(found));
			return;
		}
	}
	fail_msg("the block is nowhere");
}

static void read_damaged(void *arg)
{
	struct rig *rig = arg;

	make_cold_mib(rig);
	damage_a_block(rig);
	assert_int_equal(request(rig, VIO_READ, 0, VIO_BYTES_MAX), -EIO);
	assert_int_equal(request(rig, VIO_READ, SECTOR_BYTES, SECTOR_BYTES), -EIO);
	check_mib(rig, BLOCK_BYTES, VIO_BYTES_MAX - BLOCK_BYTES);
	close_volumes(rig);
	pool_close(rig->pool);
}

/* --- a read in flight, and its segment dies ------------------------------------------------------------------------ */

static bool hold_reads(struct medium *medium, const struct disk_io *io)
{
	return io->op == DISK_READ;
}

static void read_fiber(void *arg)
{
	struct rig *rig = arg;
	uint8_t *buf = aligned_alloc(BLOCK_BYTES, BLOCK_BYTES);

	rig->read_res = unit_volume_request(rig->vol, VIO_READ, 0, BLOCK_BYTES, buf);
	assert_int_equal(buf[0], 1);
	rig->read_done = true;
	free(buf);
}

static void checkpoint_fiber(void *arg)
{
	struct rig *rig = arg;

	assert_int_equal(volume_checkpoint(rig->vols, "v", &rig->err), 0);
	rig->checkpoint_done = true;
}

/* The grant of the data segment that was granted first. */
static uint64_t first_segment(struct rig *rig)
{
	struct catalog *cat = pool_catalog(rig->pool);
	struct segment segment;

	for (const struct cat_obj *obj = catalog_next(cat, CAT_SEGMENT, 0); obj;
	     obj = catalog_next(cat, CAT_SEGMENT, obj->id + 1)) {
		assert_true(segment_from_obj(obj, &segment));
		if (segment.stream == STREAM_DATA)
			return obj->id;
	}
	fail_msg("there is no data segment");
	return 0;
}

static void free_while_read(void *arg)
{
	struct rig *rig = arg;
	uint64_t grant;

	make_volume(rig);
	fill(rig->buf, VIO_BYTES_MAX);
	assert_int_equal(request(rig, VIO_WRITE, 0, BLOCK_BYTES), 0);
	grant = first_segment(rig);
	rig->media.medium[0].hold = hold_reads;
	assert_int_equal(fiber_start(&rig->u.loop, read_fiber, rig), 0);
	fiber_sleep_ns(SECOND_NS);
	assert_int_equal(rig->media.medium[0].held_count, 1);
	rig->media.medium[0].hold = NULL;
	for (int i = 0; i < 4; i++) /* all of the first segment is dead, and it is full */
		assert_int_equal(request(rig, VIO_WRITE, 0, VIO_BYTES_MAX), 0);
	assert_int_equal(fiber_start(&rig->u.loop, checkpoint_fiber, rig), 0);
	fiber_sleep_ns(SECOND_NS);
	assert_false(rig->checkpoint_done);
	assert_non_null(catalog_get(pool_catalog(rig->pool), CAT_SEGMENT, grant));

	medium_let_go(&rig->media.medium[0]);
	fiber_sleep_ns(SECOND_NS);
	assert_true(rig->read_done);
	assert_int_equal(rig->read_res, 0);
	assert_true(rig->checkpoint_done);
	assert_null(catalog_get(pool_catalog(rig->pool), CAT_SEGMENT, grant));
	close_volumes(rig);
	pool_close(rig->pool);
}

/* --- tests ------------------------------------------------------------------------------------------------------- */

static void run(void (*fn)(void *arg))
{
	struct rig rig = { .buf = aligned_alloc(BLOCK_BYTES, VIO_BYTES_MAX) };

	rig.loops[0] = &rig.u.loop;
	unit_loop_init(&rig.u);
	unit_loop_run_fiber(&rig.u, fn, &rig);
	unit_loop_fini(&rig.u);
	media_release(&rig.media);
	free(rig.buf);
}

static void a_cold_read_takes_disk_runs_at_once(void **state)
{
	run(read_cold);
}

static void a_run_that_cannot_be_read_is_read_by_blocks(void **state)
{
	run(read_by_blocks);
}

static void a_damaged_block_is_not_served(void **state)
{
	run(read_damaged);
}

static void a_segment_is_freed_only_when_its_readers_are_gone(void **state)
{
	run(free_while_read);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_cold_read_takes_disk_runs_at_once),
		cmocka_unit_test(a_run_that_cannot_be_read_is_read_by_blocks),
		cmocka_unit_test(a_damaged_block_is_not_served),
		cmocka_unit_test(a_segment_is_freed_only_when_its_readers_are_gone),
	};

	return run_unit_tests(tests);
}
