/* volume_extents against a plain array of which blocks are mapped, over overlays, merges and trees; in virtual time. */
#include "volumes/volume.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "pool/disks/disk_int.h"
#include "pool/runtime/fiber.h"
#include "tests/unit/unit.h"
#include "tests/unit/unit_loop.h"
#include "tests/unit/unit_volume.h"

#define BLOCKS 4096u
#define VOLUME_BYTES ((uint64_t)BLOCKS * BLOCK_BYTES)

struct rig {
	struct unit_loop u;
	struct loop *loops[1];
	struct pool *pool;
	struct volumes *vols;
	struct volume *vol;
	bool mapped[BLOCKS];
	bool checking, checked; /* by the bystander */
};

static void open_all(struct rig *rig, uint64_t size_bytes)
{
	struct volumes_opts opts = { .loops = rig->loops, .loop_count = 1, .overlay_entries_max = 100000 };
	struct volume_create_opts create = { .name = "web0", .size_bytes = size_bytes };
	struct pool_create_opts pool_opts = { .name = "tank", .zone_bytes = ZONE_BYTES_MIN };
	struct disk_open_opts disk_opts = { 0 };
	struct disk *disk;
	struct err err;

	rig->loops[0] = &rig->u.loop;
	assert_int_equal(disk_ram_open("1G", "1G", &disk_opts, &disk, &err), 0);
	assert_int_equal(pool_create(&pool_opts, &disk, 1, &rig->pool, &err), 0);
	assert_int_equal(volumes_open(rig->pool, &opts, &rig->vols, &err), 0);
	assert_int_equal(volume_create(rig->vols, &create, &err), 0);
	assert_int_equal(unit_volume_open(rig->vols, "web0", &rig->vol, &err), 0);
}

static void close_all(struct rig *rig)
{
	volume_close(rig->vol);
	volumes_close(rig->vols);
	pool_close(rig->pool);
}

static void request(struct rig *rig, enum vio_op op, uint64_t off, uint64_t len)
{
	static uint8_t data[VIO_BYTES_MAX];

	assert_int_equal(unit_volume_request(rig->vol, op, off, len, data), 0);
}

static void change(struct rig *rig, bool map, uint32_t first, uint32_t count)
{
	request(rig, map ? VIO_WRITE : VIO_DISCARD, (uint64_t)first * BLOCK_BYTES, (uint64_t)count * BLOCK_BYTES);
	memset(rig->mapped + first, map, count * sizeof(rig->mapped[0]));
}

/* What is told of a range, by at most max extents, is right, complete and not cut finer than need be. */
static void check(struct rig *rig, uint64_t off, uint64_t len, uint32_t max)
{
	struct extent found[64];
	uint64_t at = off;
	uint32_t count;

	assert_int_equal(volume_extents(rig->vol, off, len, found, max, &count), 0);
	assert_in_range(count, 1, max);
	for (uint32_t i = 0; i < count; i++) {
		uint64_t end = at + found[i].len_bytes;

		assert_true(end > at && end <= off + len);
		assert_true(i == 0 || found[i].mapped != found[i - 1].mapped);
		for (; at < end; at = at / BLOCK_BYTES * BLOCK_BYTES + BLOCK_BYTES)
			assert_int_equal(rig->mapped[at / BLOCK_BYTES], found[i].mapped);
		at = end;
	}
	assert_true(at == off + len || count == max);
}

static void check_somewhere(struct rig *rig, unsigned *seed)
{
	uint64_t sectors = VOLUME_BYTES / SECTOR_BYTES;
	uint64_t first = (uint64_t)rand_r(seed) % sectors;
	uint64_t count = 1 + (uint64_t)rand_r(seed) % (sectors - first);

	check(rig, first * SECTOR_BYTES, count * SECTOR_BYTES, 1 + rand_r(seed) % 64);
}

static void bystander(void *arg)
{
	struct rig *rig = arg;
	unsigned seed = 2;

	while (rig->checking) {
		check_somewhere(rig, &seed);
		fiber_yield();
	}
	rig->checked = true;
}

/* Somebody looks all the while that the overlay is merged into the tree. */
static void checkpoint(struct rig *rig)
{
	struct err err;

	rig->checking = true;
	rig->checked = false;
	assert_int_equal(fiber_start(&rig->u.loop, bystander, rig), 0);
	assert_int_equal(volume_checkpoint(rig->vols, "web0", &err), 0);
	rig->checking = false;
	while (!rig->checked)
		fiber_yield();
}

static void change_and_check(void *arg)
{
	struct rig *rig = arg;
	unsigned seed = 1;

	open_all(rig, VOLUME_BYTES);
	for (int i = 0; i < 3000; i++) {
		uint32_t first = (uint32_t)rand_r(&seed) % BLOCKS, count = 1 + (uint32_t)rand_r(&seed) % 60;

		change(rig, rand_r(&seed) % 3 > 0, first, count < BLOCKS - first ? count : BLOCKS - first);
		check_somewhere(rig, &seed);
		check_somewhere(rig, &seed);
		if (i % 500 == 499)
			checkpoint(rig);
		if (i % 700 == 699)
			change(rig, false, 0, BLOCKS);
	}
	check(rig, 0, VOLUME_BYTES, 64);
	close_all(rig);
}

static void run(void (*fn)(void *arg))
{
	struct rig *rig = calloc(1, sizeof(*rig));

	unit_loop_init(&rig->u);
	unit_loop_run_fiber(&rig->u, fn, rig);
	unit_loop_fini(&rig->u);
	free(rig);
}

static void tells_what_is_mapped(void **state)
{
	run(change_and_check);
}

/* A petabyte of nothing around two blocks: in steps of the changes, not of the blocks. */
static void look_at_a_vast_volume(void *arg)
{
	struct rig *rig = arg;
	struct extent found[8];
	struct err err;
	uint32_t count;

	open_all(rig, VOLUME_SIZE_MAX);
	request(rig, VIO_WRITE, VOLUME_SIZE_MAX / 2, BLOCK_BYTES);
	assert_int_equal(volume_checkpoint(rig->vols, "web0", &err), 0);
	request(rig, VIO_WRITE, VOLUME_SIZE_MAX / 4, BLOCK_BYTES);
	assert_int_equal(volume_extents(rig->vol, 0, VOLUME_SIZE_MAX, found, 8, &count), 0);
	assert_int_equal(count, 5);
	assert_int_equal(found[0].len_bytes, VOLUME_SIZE_MAX / 4);
	assert_int_equal(found[1].len_bytes, BLOCK_BYTES);
	assert_int_equal(found[3].len_bytes, BLOCK_BYTES);
	close_all(rig);
}

static void passes_holes_at_once(void **state)
{
	run(look_at_a_vast_volume);
}

static void ask_wrongly(void *arg)
{
	struct rig *rig = arg;
	struct extent found[1];
	uint32_t count;

	open_all(rig, VOLUME_BYTES);
	assert_int_equal(volume_extents(rig->vol, 0, 0, found, 1, &count), -EINVAL);
	assert_int_equal(volume_extents(rig->vol, 0, VOLUME_BYTES, found, 0, &count), -EINVAL);
	assert_int_equal(volume_extents(rig->vol, 512, VOLUME_BYTES, found, 1, &count), -EINVAL);
	assert_int_equal(volume_extents(rig->vol, UINT64_MAX, 512, found, 1, &count), -EINVAL);
	assert_int_equal(volume_extents(rig->vol, 512, UINT64_MAX, found, 1, &count), -EINVAL);
	close_all(rig);
}

static void refuses_what_is_not_there(void **state)
{
	run(ask_wrongly);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(tells_what_is_mapped),
		cmocka_unit_test(passes_holes_at_once),
		cmocka_unit_test(refuses_what_is_not_there),
	};

	return run_unit_tests(tests);
}
