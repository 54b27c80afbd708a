/* Snapshots and clones over ram disks in virtual time, against a plain array per image. Crashes are the simulator's. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "pool/disks/disk_int.h"
#include "tests/unit/unit.h"
#include "tests/unit/unit_loop.h"
#include "tests/unit/unit_volume.h"
#include "volumes/volume.h"

#define BLOCKS 2048u
#define IMAGES_TRIED 14u
#define SEEDS 8u

/* A volume or snapshot, and the stamp that each of its blocks holds; 0: zeroes. */
struct image {
	char name[VOLUME_NAME_BYTES];
	uint32_t stamp[BLOCKS];
};

struct rig {
	struct unit_loop u;
	struct loop *loops[1];
	struct disk *disk;
	struct pool *pool;
	struct volumes *vols;
	struct err err;
	struct image *image[IMAGES_TRIED];
	uint32_t images, names, stamps;
	uint64_t zones;                  /* free at first */
	unsigned seed;
	uint32_t buf[BLOCK_BYTES / 4] __attribute__((aligned(BLOCK_BYTES)));
};

static uint32_t rnd(struct rig *rig, uint32_t below)
{
	return (uint32_t)rand_r(&rig->seed) % below;
}

static void open_volumes(struct rig *rig)
{
	struct volumes_opts opts = { .loops = rig->loops, .loop_count = 1, .map_cache_bytes = 64 * BLOCK_BYTES,
				     .overlay_entries_max = 400, .checkpoint_log_bytes = 4 << 20 };

	assert_int_equal(volumes_open(rig->pool, &opts, &rig->vols, &rig->err), 0);
}

static void open_rig(struct rig *rig)
{
	struct pool_create_opts opts = { .name = "tank", .zone_bytes = ZONE_BYTES_MIN };
	struct disk_open_opts disk_opts = { 0 };

	rig->loops[0] = &rig->u.loop;
	assert_int_equal(disk_ram_open("2G", "2G", &disk_opts, &rig->disk, &rig->err), 0);
	assert_int_equal(pool_create(&opts, &rig->disk, 1, &rig->pool, &rig->err), 0);
	open_volumes(rig);
}

static void close_rig(struct rig *rig)
{
	volumes_close(rig->vols);
	pool_close(rig->pool);
	while (rig->images > 0)
		free(rig->image[--rig->images]);
}

static struct image *add_image(struct rig *rig, const struct image *from)
{
	struct image *image = calloc(1, sizeof(*image));

	if (from)
		memcpy(image->stamp, from->stamp, sizeof(image->stamp));
	rig->image[rig->images++] = image;
	return image;
}

static void remove_image(struct rig *rig, struct image *image)
{
	for (uint32_t i = 0; i < rig->images; i++) {
		if (rig->image[i] == image)
			rig->image[i--] = rig->image[--rig->images];
	}
	free(image);
}

static bool is_snapshot(const struct image *image)
{
	return strchr(image->name, '@');
}

/* ---- I/O ---- */

static int change(struct rig *rig, struct image *image, enum vio_op op, uint32_t block, uint32_t count)
{
	struct volume *vol;
	int rc = 0;

	assert_int_equal(unit_volume_open(rig->vols, image->name, &vol, &rig->err), 0);
	for (uint32_t i = 0; op == VIO_WRITE && i < count && rc == 0; i++) {
		rig->stamps++;
		for (uint32_t w = 0; w < BLOCK_BYTES / 4; w++)
			rig->buf[w] = rig->stamps;
		rc = unit_volume_request(vol, op, (uint64_t)(block + i) * BLOCK_BYTES, BLOCK_BYTES, rig->buf);
		if (rc == 0)
			image->stamp[block + i] = rig->stamps;
	}
	if (op != VIO_WRITE) {
		rc = unit_volume_request(vol, op, (uint64_t)block * BLOCK_BYTES, (uint64_t)count * BLOCK_BYTES, NULL);
		if (rc == 0)
			memset(image->stamp + block, 0, count * sizeof(image->stamp[0]));
	}
	volume_close(vol);
	return rc;
}

static void check_image(struct rig *rig, const struct image *image)
{
	struct volume *vol;

	assert_int_equal(unit_volume_open(rig->vols, image->name, &vol, &rig->err), 0);
	for (uint32_t i = 0; i < BLOCKS; i++) {
		assert_int_equal(unit_volume_request(vol, VIO_READ, (uint64_t)i * BLOCK_BYTES, BLOCK_BYTES, rig->buf), 0);
		if (rig->buf[0] != image->stamp[i])
			fail_msg("%s block %u: %u instead of %u", image->name, i, rig->buf[0], image->stamp[i]);
		assert_int_equal(rig->buf[BLOCK_BYTES / 4 - 1], image->stamp[i]);
	}
	volume_close(vol);
}

static void check_all(struct rig *rig)
{
	for (uint32_t i = 0; i < rig->images; i++)
		check_image(rig, rig->image[i]);
}

/* Where two images of one lineage differ, every block does that differs. Which ones besides is not checked here. */
static void check_changes(struct rig *rig, const struct image *a, const struct image *b)
{
	struct extent extent[64];
	struct volume *vol, *since;
	uint32_t block = 0, count;
	int rc = 0;

	assert_int_equal(volume_open(rig->vols, a->name, &vol, &rig->err), 0);
	assert_int_equal(volume_open(rig->vols, b->name, &since, &rig->err), 0);
	while (block < BLOCKS && rc == 0) {
		rc = volume_changes(vol, since, (uint64_t)block * BLOCK_BYTES, (uint64_t)(BLOCKS - block) * BLOCK_BYTES,
				    extent, 64, &count);
		for (uint32_t i = 0; i < count; i++) {
			uint32_t end = block + (uint32_t)(extent[i].len_bytes / BLOCK_BYTES);

			for (; block < end; block++)
				assert_true(extent[i].mapped || a->stamp[block] == b->stamp[block]);
		}
	}
	assert_true(rc == 0 || rc == -EXDEV);
	volume_close(vol);
	volume_close(since);
}

static uint64_t changed_blocks(struct rig *rig, const struct image *a, const struct image *b)
{
	struct extent extent[64];
	struct volume *vol, *since;
	uint64_t blocks = 0;
	uint32_t count;

	assert_int_equal(volume_open(rig->vols, a->name, &vol, &rig->err), 0);
	assert_int_equal(volume_open(rig->vols, b->name, &since, &rig->err), 0);
	assert_int_equal(volume_changes(vol, since, 0, BLOCKS * BLOCK_BYTES, extent, 64, &count), 0);
	for (uint32_t i = 0; i < count; i++)
		blocks += extent[i].mapped ? extent[i].len_bytes / BLOCK_BYTES : 0;
	volume_close(vol);
	volume_close(since);
	return blocks;
}

/* ---- operations ---- */

static struct image *create(struct rig *rig)
{
	struct image *image = add_image(rig, NULL);
	struct volume_create_opts opts = { .name = image->name, .size_bytes = BLOCKS * BLOCK_BYTES };

	snprintf(image->name, sizeof(image->name), "v%u", ++rig->names);
	assert_int_equal(volume_create(rig->vols, &opts, &rig->err), 0);
	return image;
}

static struct image *snapshot(struct rig *rig, const struct image *of)
{
	struct image *image = add_image(rig, of);
	const char *name = image->name;

	snprintf(image->name, sizeof(image->name), "%.20s@s%u", of->name, ++rig->names);
	assert_int_equal(volume_snapshot(rig->vols, &name, 1, &rig->err), 0);
	return image;
}

static struct image *clone_of(struct rig *rig, const struct image *from)
{
	struct image *image = add_image(rig, from);

	snprintf(image->name, sizeof(image->name), "v%u", ++rig->names);
	assert_int_equal(volume_clone(rig->vols, from->name, image->name, &rig->err), 0);
	return image;
}

static struct image *volume_of(struct rig *rig, const struct image *snap)
{
	size_t len = strcspn(snap->name, "@");

	for (uint32_t i = 0; i < rig->images; i++) {
		if (strlen(rig->image[i]->name) == len && memcmp(rig->image[i]->name, snap->name, len) == 0)
			return rig->image[i];
	}
	return NULL;
}

static void roll_back(struct rig *rig, const struct image *snap)
{
	struct image *vol = volume_of(rig, snap);

	assert_int_equal(volume_rollback(rig->vols, snap->name, &rig->err), 0);
	memcpy(vol->stamp, snap->stamp, sizeof(vol->stamp));
}

static void delete(struct rig *rig, struct image *image)
{
	int rc = volume_delete(rig->vols, image->name, false, &rig->err);
	bool has_snapshots = false;

	for (uint32_t i = 0; i < rig->images; i++)
		has_snapshots |= is_snapshot(rig->image[i]) && volume_of(rig, rig->image[i]) == image;
	assert_int_equal(rc, has_snapshots ? -ENOTEMPTY : 0);
	if (rc == 0)
		remove_image(rig, image);
}

static void write_some(struct rig *rig, struct image *image)
{
	enum vio_op op = rnd(rig, 6) ? VIO_WRITE : VIO_DISCARD;
	uint32_t count = 1 + rnd(rig, rnd(rig, 4) ? 8 : 300), block = rnd(rig, BLOCKS - count);

	assert_int_equal(change(rig, image, op, block, count), is_snapshot(image) ? -EROFS : 0);
}

static void operate(struct rig *rig)
{
	struct image *image = rig->image[rnd(rig, rig->images)];
	uint32_t what = rnd(rig, 100);

	if (what < 70)
		write_some(rig, image);
	else if (what < 78 && rig->images < IMAGES_TRIED && !is_snapshot(image))
		snapshot(rig, image);
	else if (what < 84 && rig->images < IMAGES_TRIED)
		clone_of(rig, image);
	else if (what < 92 && rig->images > 4)
		delete(rig, image);
	else if (what < 94 && is_snapshot(image))
		roll_back(rig, image);
	else if (what < 96)
		assert_int_equal(volume_checkpoint(rig->vols, image->name, &rig->err), 0);
}

static void reopen(struct rig *rig)
{
	volumes_close(rig->vols);
	open_volumes(rig);
}

static uint64_t zones_free(struct rig *rig)
{
	struct pool_info info;

	pool_get_info(rig->pool, &info);
	return info.zones_free;
}

/* Until what was deleted has come back. */
static void settle(struct rig *rig, const char *name)
{
	uint64_t images = 1, blocks;

	for (int i = 0; i < 100 && images > 0; i++) {
		assert_int_equal(volume_checkpoint(rig->vols, name, &rig->err), 0);
		assert_int_equal(volumes_get_reclaim(rig->vols, &images, &blocks), 0);
	}
	assert_int_equal(images, 0);
}

static void random_operations(void *arg)
{
	struct rig *rig = arg;
	struct image *last;

	open_rig(rig);
	rig->zones = zones_free(rig);
	create(rig);
	for (int round = 0; round < 12; round++) {
		for (int i = 0; i < 150; i++)
			operate(rig);
		check_all(rig);
		check_changes(rig, rig->image[rnd(rig, rig->images)], rig->image[rnd(rig, rig->images)]);
		reopen(rig);
		check_all(rig);
		check_changes(rig, rig->image[rnd(rig, rig->images)], rig->image[rnd(rig, rig->images)]);
	}
	/* Snapshots first, as volumes that have some stay. */
	for (int pass = 0; pass < 2; pass++) {
		for (uint32_t i = 0; i < rig->images && rig->images > 1;)
			if (pass == 0 ? is_snapshot(rig->image[i]) : i > 0)
				delete(rig, rig->image[i]);
			else
				i++;
	}
	last = rig->image[0];
	check_image(rig, last);
	assert_int_equal(change(rig, last, VIO_DISCARD, 0, BLOCKS), 0);
	settle(rig, last->name);
	assert_true(zones_free(rig) + 6 >= rig->zones);
	close_rig(rig);
}

static void run(void (*fn)(void *arg), unsigned seed)
{
	struct rig *rig = aligned_alloc(BLOCK_BYTES, (sizeof(*rig) + BLOCK_BYTES - 1) / BLOCK_BYTES * BLOCK_BYTES);

	memset(rig, 0, sizeof(*rig));
	rig->seed = seed;
	unit_loop_init(&rig->u);
	unit_loop_run_fiber(&rig->u, fn, rig);
	unit_loop_fini(&rig->u);
	free(rig);
}

static void images_in_any_order(void **state)
{
	for (unsigned seed = 1; seed <= SEEDS; seed++)
		run(random_operations, seed);
}

/* ---- space ---- */

static uint64_t unique(struct rig *rig, const struct image *image)
{
	struct volume_space space;

	assert_int_equal(volume_get_space(rig->vols, image->name, &space, &rig->err), 0);
	assert_int_equal(space.referenced_blocks, 1000);
	return space.unique_blocks;
}

static void check_counts(struct rig *rig, const struct image *vol, uint32_t volumes, uint32_t snapshots)
{
	uint64_t volume_count, snapshot_count;
	struct volume_info info;

	volumes_count(rig->vols, &volume_count, &snapshot_count);
	assert_int_equal(volume_count, volumes);
	assert_int_equal(snapshot_count, snapshots);
	assert_int_equal(volume_get_info(rig->vols, vol->name, &info, &rig->err), 0);
	assert_int_equal(info.snapshots, snapshots);
}

static void tell_space(void *arg)
{
	struct rig *rig = arg;
	struct image *vol, *snap, *copy;

	open_rig(rig);
	vol = create(rig);
	assert_int_equal(change(rig, vol, VIO_WRITE, 0, 1000), 0);
	assert_int_equal(unique(rig, vol), 1000);
	check_counts(rig, vol, 1, 0);
	snap = snapshot(rig, vol);
	assert_int_equal(unique(rig, vol), 0);
	assert_int_equal(unique(rig, snap), 0);
	copy = clone_of(rig, snap);
	check_counts(rig, vol, 2, 1);
	assert_int_equal(change(rig, vol, VIO_WRITE, 0, 10), 0);
	assert_int_equal(changed_blocks(rig, vol, snap), 10);
	assert_int_equal(unique(rig, vol), 10);
	assert_int_equal(changed_blocks(rig, vol, snap), 10);
	assert_int_equal(changed_blocks(rig, snap, copy), 0);
	assert_int_equal(unique(rig, snap), 0);
	assert_int_equal(change(rig, copy, VIO_WRITE, 0, 5), 0);
	assert_int_equal(unique(rig, copy), 5);
	assert_int_equal(unique(rig, snap), 5);
	delete(rig, copy);
	settle(rig, vol->name);
	assert_int_equal(unique(rig, snap), 10);
	delete(rig, snap);
	settle(rig, vol->name);
	assert_int_equal(unique(rig, vol), 1000);
	check_all(rig);
	close_rig(rig);
}

static void space_is_told(void **state)
{
	run(tell_space, 1);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(images_in_any_order),
		cmocka_unit_test(space_is_told),
	};

	return run_unit_tests(tests);
}
