/* Volumes over ram disks in virtual time: what a person would try first. Crashes and faults are the simulator's. */
#include "volumes/volume.h"

#include <stdlib.h>
#include <string.h>

#include "pool/disks/disk_int.h"
#include "tests/unit/unit.h"
#include "tests/unit/unit_loop.h"
#include "tests/unit/unit_volume.h"

#define DISKS 3
#define VOLUME_BYTES (8ull << 20)

struct rig {
	struct unit_loop u;
	struct loop *loops[1];
	struct disk *disks[DISKS];
	struct pool *pool;
	struct volumes *vols;
	struct volume *vol;
	uint8_t *model;
	bool large;                      /* limits */
};

static struct volumes_opts small_limits(struct rig *rig)
{
	rig->loops[0] = &rig->u.loop;
	return (struct volumes_opts){ .loops = rig->loops, .loop_count = 1, .map_cache_bytes = 64 * BLOCK_BYTES,
				      .overlay_entries_max = 300, .checkpoint_log_bytes = 4 << 20 };
}

/* So large that no checkpoint comes of them. */
static struct volumes_opts large_limits(struct rig *rig)
{
	struct volumes_opts opts = small_limits(rig);

	opts.overlay_entries_max = 1 << 20;
	opts.checkpoint_log_bytes = 1 << 30;
	return opts;
}

static void open_volumes(struct rig *rig)
{
	struct volumes_opts opts = rig->large ? large_limits(rig) : small_limits(rig);
	struct err err = { "" };

	assert_int_equal(volumes_open(rig->pool, &opts, &rig->vols, &err), 0);
}

static void open_pool(struct rig *rig, const char *size)
{
	struct pool_create_opts opts = { .name = "tank", .zone_bytes = ZONE_BYTES_MIN };
	struct disk_open_opts disk_opts = { 0 };
	struct err err = { "" };

	for (int i = 0; i < DISKS; i++)
		assert_int_equal(disk_ram_open(size, size, &disk_opts, &rig->disks[i], &err), 0);
	assert_int_equal(pool_create(&opts, rig->disks, DISKS, &rig->pool, &err), 0);
	open_volumes(rig);
}

static void make_volume(struct rig *rig, uint64_t size_bytes)
{
	struct volume_create_opts opts = { .name = "web0", .size_bytes = size_bytes };
	struct err err = { "" };

	assert_int_equal(volume_create(rig->vols, &opts, &err), 0);
	assert_int_equal(unit_volume_open(rig->vols, "web0", &rig->vol, &err), 0);
}

static int request(struct rig *rig, enum vio_op op, uint64_t off, uint64_t len, void *buf)
{
	return unit_volume_request(rig->vol, op, off, len, buf);
}

static void check_all(struct rig *rig)
{
	uint8_t *buf = aligned_alloc(BLOCK_BYTES, VIO_BYTES_MAX);

	for (uint64_t off = 0; off < VOLUME_BYTES; off += VIO_BYTES_MAX) {
		assert_int_equal(request(rig, VIO_READ, off, VIO_BYTES_MAX, buf), 0);
		assert_memory_equal(buf, rig->model + off, VIO_BYTES_MAX);
	}
	free(buf);
}

static void random_change(struct rig *rig, unsigned *seed, uint8_t *buf)
{
	uint64_t unit = rand_r(seed) % 2 ? BLOCK_BYTES : SECTOR_BYTES;
	uint64_t len = unit * (1 + rand_r(seed) % (rand_r(seed) % 8 ? 8 : 100));
	uint64_t off = rand_r(seed) % ((VOLUME_BYTES - len) / unit) * unit;
	enum vio_op op = rand_r(seed) % 5 ? VIO_WRITE : rand_r(seed) % 2 ? VIO_DISCARD : VIO_WRITE_ZEROES;

	for (uint64_t i = 0; i < len; i++)
		buf[i] = (uint8_t)(op == VIO_WRITE ? rand_r(seed) : 0);
	assert_int_equal(request(rig, op, off, len, buf), 0);
	memcpy(rig->model + off, buf, len);
	assert_int_equal(request(rig, VIO_READ, off, len, buf), 0);
	assert_memory_equal(buf, rig->model + off, len);
}

static void random_changes(void *arg)
{
	struct rig *rig = arg;
	struct err err = { "" };
	unsigned seed = 1;
	uint8_t *buf = aligned_alloc(BLOCK_BYTES, VIO_BYTES_MAX);

	open_pool(rig, "512M");
	make_volume(rig, VOLUME_BYTES);
	for (int round = 0; round < 6; round++) {
		for (int i = 0; i < 400; i++)
			random_change(rig, &seed, buf);
		check_all(rig);
		if (round % 2)
			assert_int_equal(volume_checkpoint(rig->vols, "web0", &err), 0);
		check_all(rig);
		volume_close(rig->vol);
		volumes_close(rig->vols);
		open_volumes(rig);
		assert_int_equal(unit_volume_open(rig->vols, "web0", &rig->vol, &err), 0);
		check_all(rig);
	}
	volume_close(rig->vol);
	volumes_close(rig->vols);
	pool_close(rig->pool);
	free(buf);
}

static void reads_back_what_was_written(void **state)
{
	struct rig rig = { .model = calloc(1, VOLUME_BYTES) };

	unit_loop_init(&rig.u);
	unit_loop_run_fiber(&rig.u, random_changes, &rig);
	unit_loop_fini(&rig.u);
	free(rig.model);
}

static void overwrite_many_times(void *arg)
{
	struct rig *rig = arg;
	uint8_t *buf = aligned_alloc(BLOCK_BYTES, VIO_BYTES_MAX);
	struct pool_info before, after;
	struct err err = { "" };

	open_pool(rig, "64M");
	make_volume(rig, VOLUME_BYTES);
	pool_get_info(rig->pool, &before);
	for (int i = 0; i < 100; i++) {      /* 800 MiB through a pool of 192 MiB */
		memset(buf, i, VIO_BYTES_MAX);
		for (uint64_t off = 0; off < VOLUME_BYTES; off += VIO_BYTES_MAX)
			assert_int_equal(request(rig, VIO_WRITE, off, VIO_BYTES_MAX, buf), 0);
	}
	assert_int_equal(request(rig, VIO_DISCARD, 0, VOLUME_BYTES, NULL), 0);
	assert_int_equal(volume_checkpoint(rig->vols, "web0", &err), 0);
	pool_get_info(rig->pool, &after);
	assert_true(before.zones_free - after.zones_free <= 4); /* open segments and those granted ahead */
	check_all(rig);
	volume_close(rig->vol);
	assert_int_equal(volume_delete(rig->vols, "web0", false, &err), 0);
	pool_get_info(rig->pool, &after);
	assert_int_equal(after.zones_free, before.zones_free);
	volumes_close(rig->vols);
	pool_close(rig->pool);
	free(buf);
}

static void space_comes_back(void **state)
{
	struct rig rig = { .model = calloc(1, VOLUME_BYTES) };

	unit_loop_init(&rig.u);
	unit_loop_run_fiber(&rig.u, overwrite_many_times, &rig);
	unit_loop_fini(&rig.u);
	free(rig.model);
}

/* Overwrites most of the volume at random, and now and then a block that is not written again: so each segment keeps a
 * live block, and none comes back by dying. */
static uint64_t garbage_off(int i, unsigned *seed)
{
	uint64_t blocks = 4 * VOLUME_BYTES / BLOCK_BYTES, kept = blocks / 8;

	return (i % 100 == 0 ? blocks - 1 - (unsigned)i / 100 % kept : rand_r(seed) % (blocks - kept)) * BLOCK_BYTES;
}

static void fill_with_garbage(void *arg)
{
	struct rig *rig = arg;
	unsigned seed = 1;
	uint8_t *buf = aligned_alloc(BLOCK_BYTES, VIO_BYTES_MAX);

	open_pool(rig, "64M");
	make_volume(rig, 4 * VOLUME_BYTES);
	memset(buf, 1, VIO_BYTES_MAX);
	for (uint64_t off = 0; off < 4 * VOLUME_BYTES; off += VIO_BYTES_MAX)
		assert_int_equal(request(rig, VIO_WRITE, off, VIO_BYTES_MAX, buf), 0);
	for (int i = 0; i < 100000; i++)
		assert_int_equal(request(rig, VIO_WRITE, garbage_off(i, &seed), BLOCK_BYTES, buf), 0);
	assert_true(rig->u.now_ns < 1000000000);
	volume_close(rig->vol);
	volumes_close(rig->vols);
	pool_close(rig->pool);
	free(buf);
}

static void writes_into_a_pool_full_of_garbage_wait_for_no_timer(void **state)
{
	struct rig rig = { .large = true };

	unit_loop_init(&rig.u);
	unit_loop_run_fiber(&rig.u, fill_with_garbage, &rig);
	unit_loop_fini(&rig.u);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(reads_back_what_was_written),
		cmocka_unit_test(space_comes_back),
		cmocka_unit_test(writes_into_a_pool_full_of_garbage_wait_for_no_timer),
	};

	return run_unit_tests(tests);
}
