/* Disks that fail, are drained and come back under a volume: what is made anew, and what need not be. That nothing is lost
 * whatever happens is the simulator's. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "pool/catalog.h"
#include "tests/unit/medium.h"
#include "tests/unit/unit.h"
#include "tests/unit/unit_loop.h"
#include "tests/unit/unit_volume.h"
#include "volumes/volume.h"

#define DISKS 3
#define DISK_BYTES (64ull << 20)
#define VOLUME_BYTES (16u << 20)
#define WRITE_BYTES (1u << 20)
#define MS 1000000ull

struct rig {
	struct unit_loop u;
	struct loop *loops[1];
	struct media media;
	struct disk *disks[MEDIA_MAX];
	struct pool *pool;
	struct volumes *vols;
	struct volume *vol;
	struct err err;
	uint8_t *buf;
	struct policy policy;
};

static void write_all(struct rig *rig, uint32_t from, uint32_t count)
{
	for (uint32_t i = from; i < from + count; i++) {
		memset(rig->buf, 1 + (int)i, WRITE_BYTES);
		assert_int_equal(unit_volume_request(rig->vol, VIO_WRITE, i * WRITE_BYTES, WRITE_BYTES, rig->buf), 0);
	}
}

static void check_all(struct rig *rig, uint32_t from, uint32_t count)
{
	for (uint32_t i = from; i < from + count; i++) {
		assert_int_equal(unit_volume_request(rig->vol, VIO_READ, i * WRITE_BYTES, WRITE_BYTES, rig->buf), 0);
		for (uint32_t at = 0; at < WRITE_BYTES; at++)
			if (rig->buf[at] != 1 + i)
				fail_msg("write %u reads %u at byte %u", i, rig->buf[at], at);
	}
}

static void flush(struct rig *rig)
{
	assert_int_equal(unit_volume_request(rig->vol, VIO_FLUSH, 0, 0, NULL), 0);
}

static void wait_idle(struct rig *rig)
{
	struct mend_info info;

	do {
		fiber_sleep_ns(MS);
		assert_int_equal(volumes_mend_info(rig->vols, &info), 0);
	} while (info.running);
}

static struct pool_disk_info disk_info(struct rig *rig, uint32_t i)
{
	struct pool_disk_info info;

	pool_get_disk_info(rig->pool, i, &info);
	return info;
}

static int fail_flush_of_disk_0(struct medium *medium, const struct disk_io *io)
{
	return medium->index == 0 && io->op == DISK_FLUSH ? -EIO : 0;
}

/* --- tests ---------------------------------------------------------------------------------------------------- */

/* Eight writes are flushed, then four are not when the disk fails: coming back costs what the last segments hold, not all. */
static void fail_a_flush(struct rig *rig)
{
	uint64_t left, done;

	write_all(rig, 0, 8);
	flush(rig);
	write_all(rig, 8, 4);
	rig->media.medium[0].fault = fail_flush_of_disk_0;
	flush(rig);
	rig->media.medium[0].fault = NULL;
	assert_string_equal(disk_info(rig, 0).state, "failed");
	pool_get_rebuild(rig->pool, &left, &done);
	assert_true(left > 0 && left < disk_info(rig, 0).columns);
	assert_int_equal(volumes_disk_online(rig->vols, 0, &rig->err), 0);
	wait_idle(rig);
	pool_get_rebuild(rig->pool, &left, &done);
	assert_int_equal(left, 0);
	assert_int_equal(pool_disk_offline(rig->pool, 1, &rig->err), 0);
	check_all(rig, 0, 12);
}

static void drain_a_disk(struct rig *rig)
{
	write_all(rig, 0, 8);
	flush(rig);
	assert_true(disk_info(rig, 0).columns > 0);
	assert_int_equal(volumes_disk_drain(rig->vols, 0, &rig->err), 0);
	wait_idle(rig);
	assert_string_equal(disk_info(rig, 0).state, "draining");
	assert_int_equal(disk_info(rig, 0).columns, 0);
	check_all(rig, 0, 8);
	assert_int_equal(volumes_disk_remove(rig->vols, 0, &rig->err), 0);
	write_all(rig, 8, 2);
	check_all(rig, 0, 10);
}

/* Of a plain volume nothing but the block is lost, it stays so when its segment moves, and it is listed until it is
 * overwritten. */
static void rot_a_plain_block(struct rig *rig)
{
	struct volume_error errors[4];
	uint32_t count, disk = 0;
	uint8_t *image = malloc(DISK_BYTES);

	write_all(rig, 0, 4);
	flush(rig);
	for (uint64_t at = 0; disk < DISKS; disk++) {
		medium_read(&rig->media.medium[disk], 0, image, DISK_BYTES);
		for (at = 0; at < DISK_BYTES && (image[at] != 3 || memcmp(image + at, image + at + 1, 4095)); at += 4096)
			;
		if (at == DISK_BYTES)
			continue;
		medium_write(&rig->media.medium[disk], at, "rot", 3);
		break;
	}
	free(image);
	assert_int_equal(unit_volume_request(rig->vol, VIO_READ, 2 * WRITE_BYTES, WRITE_BYTES, rig->buf), -EIO);
	assert_int_equal(volumes_disk_drain(rig->vols, disk, &rig->err), 0);
	wait_idle(rig);
	assert_int_equal(volumes_get_errors(rig->vols, errors, 4, &count), 0);
	assert_int_equal(count, 1);
	assert_string_equal(errors[0].volume, "v");
	assert_int_equal(errors[0].off_bytes / WRITE_BYTES, 2);
	check_all(rig, 0, 2);
	check_all(rig, 3, 1);
	write_all(rig, 2, 1);
	assert_int_equal(volumes_get_errors(rig->vols, errors, 4, &count), 0);
	assert_int_equal(count, 0);
	check_all(rig, 0, 4);
}

static void refuse_a_drain(struct rig *rig)
{
	assert_int_equal(volumes_disk_drain(rig->vols, 0, &rig->err), 0);
	assert_int_equal(volumes_disk_drain(rig->vols, 1, &rig->err), -EBUSY);
	assert_non_null(strstr(rig->err.msg, "needs 2 disks"));
	assert_int_equal(volumes_disk_online(rig->vols, 0, &rig->err), 0);
	assert_string_equal(disk_info(rig, 0).state, "online");
	assert_int_equal(volumes_disk_online(rig->vols, 0, &rig->err), -EALREADY);
	assert_int_equal(volumes_disk_drain(rig->vols, 9, &rig->err), -ENOENT);
}

/* Two disks of one shelf, and one of another: every mirror is on both shelves. */
static void use_domains(struct rig *rig)
{
	assert_int_equal(pool_disk_set_domain(rig->pool, 0, "shelf-a", &rig->err), 0);
	assert_int_equal(pool_disk_set_domain(rig->pool, 1, "shelf-a", &rig->err), 0);
	assert_int_equal(pool_disk_set_domain(rig->pool, 2, "shelf-b", &rig->err), 0);
	assert_int_equal(pool_disk_set_domain(rig->pool, 2, "no good", &rig->err), -EINVAL);
	write_all(rig, 0, 12);
	flush(rig);
	assert_int_equal(pool_count_exposed(rig->pool), 0);
	assert_int_equal(pool_disk_set_domain(rig->pool, 2, "shelf-a", &rig->err), 0);
	assert_true(pool_count_exposed(rig->pool) > 0);
}

/* --- running -------------------------------------------------------------------------------------------------- */

struct job {
	struct rig *rig;
	void (*fn)(struct rig *rig);
};

static void job_fiber(void *arg)
{
	struct pool_create_opts pool_opts = { .name = "tank", .zone_bytes = ZONE_BYTES_MIN };
	struct job *job = arg;
	struct rig *rig = job->rig;
	struct volume_create_opts opts = { .name = "v", .size_bytes = VOLUME_BYTES, .policy = rig->policy };
	struct volumes_opts vols_opts = { .loops = rig->loops, .loop_count = 1 };

	media_init(&rig->media, DISKS, DISK_BYTES);
	media_open(&rig->media, rig->disks);
	assert_int_equal(pool_create(&pool_opts, rig->disks, DISKS, &rig->pool, &rig->err), 0);
	assert_int_equal(volumes_open(rig->pool, &vols_opts, &rig->vols, &rig->err), 0);
	assert_int_equal(volume_create(rig->vols, &opts, &rig->err), 0);
	assert_int_equal(unit_volume_open(rig->vols, "v", &rig->vol, &rig->err), 0);
	job->fn(rig);
	volume_close(rig->vol);
	volumes_close(rig->vols);
	pool_close(rig->pool);
	media_release(&rig->media);
}

static void run(void (*fn)(struct rig *rig), struct policy policy)
{
	struct rig rig = { .policy = policy, .buf = aligned_alloc(BLOCK_BYTES, WRITE_BYTES) };
	struct job job = { &rig, fn };

	assert_non_null(rig.buf);
	unit_loop_init(&rig.u);
	rig.loops[0] = &rig.u.loop;
	unit_loop_run_fiber(&rig.u, job_fiber, &job);
	unit_loop_fini(&rig.u);
	free(rig.buf);
}

static void a_disk_that_comes_back_lacks_only_what_was_not_flushed(void **state)
{
	run(fail_a_flush, (struct policy){ 1, 1 });
}

static void a_drained_disk_of_a_mirror_is_empty(void **state)
{
	run(drain_a_disk, (struct policy){ 1, 1 });
}

static void a_drained_disk_of_plain_volumes_is_empty(void **state)
{
	run(drain_a_disk, (struct policy){ 1, 0 });
}

static void a_lost_block_stays_the_only_one_and_is_listed(void **state)
{
	run(rot_a_plain_block, (struct policy){ 1, 0 });
}

static void a_drain_that_leaves_too_few_disks_is_refused(void **state)
{
	run(refuse_a_drain, (struct policy){ 1, 1 });
}

static void columns_are_in_different_domains(void **state)
{
	run(use_domains, (struct policy){ 1, 1 });
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_disk_that_comes_back_lacks_only_what_was_not_flushed),
		cmocka_unit_test(a_drained_disk_of_a_mirror_is_empty),
		cmocka_unit_test(a_drained_disk_of_plain_volumes_is_empty),
		cmocka_unit_test(a_lost_block_stays_the_only_one_and_is_listed),
		cmocka_unit_test(a_drain_that_leaves_too_few_disks_is_refused),
		cmocka_unit_test(columns_are_in_different_domains),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
