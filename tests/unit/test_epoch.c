/* Who may write a volume. */
#include "volumes/volume.h"

#include <errno.h>
#include <string.h>

#include "pool/disks/disk_fault.h"
#include "pool/disks/disk_int.h"
#include "tests/unit/unit.h"
#include "tests/unit/unit_loop.h"
#include "tests/unit/unit_volume.h"

struct rig {
	struct unit_loop u;
	struct disk *disk; /* of the pool that is open */
	struct pool *pool;
	struct volumes *vols;
	struct volume *a, *b;
	struct err err;
};

static uint8_t ones[BLOCK_BYTES], got[BLOCK_BYTES];

static void open_volumes(struct rig *rig)
{
	struct loop *loops[] = { &rig->u.loop };
	struct volumes_opts opts = { .loops = loops, .loop_count = 1 };

	assert_int_equal(volumes_open(rig->pool, &opts, &rig->vols, &rig->err), 0);
}

static void open_handles(struct rig *rig)
{
	assert_int_equal(volume_open(rig->vols, "v", &rig->a, &rig->err), 0);
	assert_int_equal(volume_open(rig->vols, "v", &rig->b, &rig->err), 0);
}

static void close_handles(struct rig *rig)
{
	volume_close(rig->a);
	volume_close(rig->b);
}

static void set_up(struct rig *rig)
{
	struct volume_create_opts volume_opts = { .name = "v", .size_bytes = 64 * BLOCK_BYTES };
	struct pool_create_opts opts = { .name = "tank", .zone_bytes = ZONE_BYTES_MIN };
	struct disk_open_opts disk_opts = { 0 };
	struct disk *ram;

	memset(ones, 0x11, sizeof(ones));
	assert_int_equal(disk_ram_open("ram", "128M", &disk_opts, &ram, &rig->err), 0);
	assert_int_equal(disk_fault_wrap(ram, "", &rig->disk, &rig->err), 0);
	assert_int_equal(pool_create(&opts, &rig->disk, 1, &rig->pool, &rig->err), 0);
	open_volumes(rig);
	assert_int_equal(volume_create(rig->vols, &volume_opts, &rig->err), 0);
	open_handles(rig);
}

static void tear_down(struct rig *rig)
{
	close_handles(rig);
	volumes_close(rig->vols);
	pool_close(rig->pool);
}

static void reopen(struct rig *rig)
{
	close_handles(rig);
	volumes_close(rig->vols);
	open_volumes(rig);
	open_handles(rig);
}

static int claim(struct rig *rig, struct volume *volume, uint64_t epoch, uint64_t nonce)
{
	struct volume_claim claim = { epoch, nonce, "somebody" };

	rig->err.msg[0] = '\0';
	return volume_activate(volume, &claim, &rig->err);
}

static int write_block(struct volume *volume)
{
	return unit_volume_request(volume, VIO_WRITE, 0, BLOCK_BYTES, ones);
}

static int read_block(struct volume *volume)
{
	return unit_volume_request(volume, VIO_READ, 0, BLOCK_BYTES, got);
}

static void an_inactive_handle_reads_and_does_not_write(void *arg)
{
	struct rig *rig = arg;

	set_up(rig);
	assert_int_equal(read_block(rig->a), 0);
	assert_int_equal(unit_volume_request(rig->a, VIO_FLUSH, 0, 0, NULL), 0);
	assert_int_equal(write_block(rig->a), -EROFS);
	assert_int_equal(unit_volume_request(rig->a, VIO_DISCARD, 0, BLOCK_BYTES, NULL), -EROFS);
	assert_int_equal(unit_volume_request(rig->a, VIO_WRITE_ZEROES, 512, 512, NULL), -EROFS);
	tear_down(rig);
}

static void the_writer_before_is_fenced(void *arg)
{
	struct rig *rig = arg;

	set_up(rig);
	assert_int_equal(claim(rig, rig->a, 0, 7), 0);
	assert_int_equal(write_block(rig->a), 0);
	volume_rest(rig->a);
	assert_int_equal(write_block(rig->a), 0); /* it still is the writer */
	assert_int_equal(claim(rig, rig->b, 1, 8), 0);
	assert_int_equal(write_block(rig->b), 0);
	assert_int_equal(write_block(rig->a), -ESTALE);
	assert_int_equal(unit_volume_request(rig->a, VIO_WRITE, 512, 512, ones), -ESTALE);
	assert_int_equal(read_block(rig->a), -ESTALE);
	assert_int_equal(unit_volume_request(rig->a, VIO_FLUSH, 0, 0, NULL), -ESTALE);
	assert_int_equal(volume_resume(rig->a, &rig->err), -ESTALE);
	assert_int_equal(volume_resume(rig->b, &rig->err), 0);
	tear_down(rig);
}

static void a_writer_at_work_is_not_superseded(void *arg)
{
	struct rig *rig = arg;
	struct volume_info info;

	set_up(rig);
	assert_int_equal(claim(rig, rig->a, 0, 7), 0);
	assert_int_equal(claim(rig, rig->b, 1, 8), -EBUSY);
	assert_non_null(strstr(rig->err.msg, "somebody"));
	assert_true(volume_is_held(rig->b));
	assert_false(volume_is_held(rig->a));
	assert_int_equal(volume_get_info(rig->vols, "v", &info, &rig->err), 0);
	assert_true(info.held && info.epoch == 1);
	assert_string_equal(info.holder, "somebody");
	/* A rest and a return keep the other one out as well. */
	volume_rest(rig->a);
	assert_int_equal(volume_resume(rig->a, &rig->err), 0);
	assert_int_equal(claim(rig, rig->b, 1, 8), -EBUSY);
	assert_int_equal(write_block(rig->a), 0);
	tear_down(rig);
}

static void a_claim_compares(void *arg)
{
	struct rig *rig = arg;

	set_up(rig);
	assert_int_equal(claim(rig, rig->a, 1, 7), -ESTALE);
	assert_int_equal(claim(rig, rig->a, 0, 7), 0);
	volume_rest(rig->a);
	assert_int_equal(claim(rig, rig->b, 0, 8), -ESTALE);
	assert_int_equal(volume_epoch(rig->b), 1);
	/* The same claim again finds itself done. */
	assert_int_equal(claim(rig, rig->b, 0, 7), 0);
	assert_int_equal(volume_epoch(rig->b), 1);
	assert_int_equal(write_block(rig->b), 0);
	tear_down(rig);
}

static void an_epoch_is_durable(void *arg)
{
	struct rig *rig = arg;

	set_up(rig);
	assert_int_equal(claim(rig, rig->a, 0, 7), 0);
	reopen(rig);
	assert_int_equal(volume_epoch(rig->a), 1);
	assert_int_equal(write_block(rig->a), -EROFS);
	assert_int_equal(claim(rig, rig->a, 0, 8), -ESTALE);
	assert_int_equal(claim(rig, rig->a, 0, 7), 0);
	assert_int_equal(write_block(rig->a), 0);
	tear_down(rig);
}

/* The catalog could not be written: nothing has changed. */
static void a_claim_that_is_not_durable_does_not_count(void *arg)
{
	struct rig *rig = arg;

	set_up(rig);
	assert_int_equal(claim(rig, rig->a, 0, 7), 0);
	volume_rest(rig->a);
	assert_int_equal(disk_fault_set(rig->disk, "eio-write", &rig->err), 0);
	assert_int_equal(claim(rig, rig->b, 1, 8), -EIO);
	assert_int_equal(disk_fault_set(rig->disk, "", &rig->err), 0);
	assert_int_equal(read_block(rig->a), 0);
	assert_int_equal(volume_resume(rig->a, &rig->err), 0);
	assert_int_equal(volume_resume(rig->b, &rig->err), -ESTALE);
	tear_down(rig);
}

static void fencing_needs_no_consent(void *arg)
{
	struct rig *rig = arg;
	struct volume_info info;

	set_up(rig);
	assert_int_equal(claim(rig, rig->a, 0, 7), 0);
	assert_int_equal(volume_fence(rig->vols, "v", &rig->err), 0);
	assert_int_equal(write_block(rig->a), -ESTALE);
	assert_int_equal(volume_get_info(rig->vols, "v", &info, &rig->err), 0);
	assert_true(!info.held && info.epoch == 2 && info.holder[0] == '\0');
	assert_int_equal(claim(rig, rig->b, 2, 8), 0);
	assert_int_equal(write_block(rig->b), 0);
	tear_down(rig);
}

/* Who wrote before a rollback does not go on after it; who wrote a volume that is gone has nothing on one of its name. */
static void a_rollback_fences_and_a_clone_begins_anew(void *arg)
{
	const char *snapshot = "v@s";
	struct rig *rig = arg;

	set_up(rig);
	assert_int_equal(claim(rig, rig->a, 0, 7), 0);
	assert_int_equal(volume_snapshot(rig->vols, &snapshot, 1, &rig->err), 0);
	close_handles(rig);
	assert_int_equal(volume_rollback(rig->vols, "v@s", &rig->err), 0);
	open_handles(rig);
	assert_int_equal(volume_epoch(rig->a), 2);
	close_handles(rig);
	assert_int_equal(volume_clone(rig->vols, "v@s", "w", &rig->err), 0);
	assert_int_equal(volume_open(rig->vols, "w", &rig->a, &rig->err), 0);
	assert_int_equal(volume_epoch(rig->a), 0);
	assert_int_equal(claim(rig, rig->a, 0, 7), 0);
	assert_int_equal(write_block(rig->a), 0);
	volume_close(rig->a);
	assert_int_equal(volume_delete(rig->vols, "w", false, &rig->err), 0);
	assert_int_equal(volume_open(rig->vols, "v@s", &rig->a, &rig->err), 0);
	assert_int_equal(claim(rig, rig->a, 0, 7), -EROFS);
	assert_int_equal(volume_open(rig->vols, "v", &rig->b, &rig->err), 0);
	reopen(rig);
	tear_down(rig);
}

static void play(void (*scene)(void *arg))
{
	struct rig rig = { .vols = NULL };

	unit_loop_init(&rig.u);
	unit_loop_run_fiber(&rig.u, scene, &rig);
	unit_loop_fini(&rig.u);
}

#define SCENES(X)                                      \
	X(an_inactive_handle_reads_and_does_not_write) \
	X(the_writer_before_is_fenced)                 \
	X(a_writer_at_work_is_not_superseded)          \
	X(a_claim_compares)                            \
	X(an_epoch_is_durable)                         \
	X(a_claim_that_is_not_durable_does_not_count)  \
	X(fencing_needs_no_consent)                    \
	X(a_rollback_fences_and_a_clone_begins_anew)

#define X(name)                              \
	static void test_##name(void **state) \
	{                                    \
		play(name);                  \
	}
SCENES(X)
#undef X

int main(void)
{
#define X(name) { #name, test_##name, NULL, NULL, NULL },
	const struct CMUnitTest tests[] = { SCENES(X) };
#undef X

	return run_unit_tests(tests);
}
