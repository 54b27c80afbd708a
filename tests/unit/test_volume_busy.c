/* Volumes while something takes its time: looking at them while a change waits for slow disks, and taking back requests
 * that wait for space. In virtual time. */
#include "volumes/volume.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "pool/disks/disk_fault.h"
#include "pool/disks/disk_int.h"
#include "tests/unit/unit.h"
#include "tests/unit/unit_loop.h"
#include "tests/unit/unit_volume.h"

#define DISKS 2
#define SLOWLY "delay-us=1000000"
#define AT_ONCE_NS 1000000ull
#define MIB (1ull << 20)

struct rig {
	struct unit_loop u;
	struct loop *loops[1];
	struct disk *disks[DISKS];
	struct pool *pool;
	struct volumes *vols;
};

static struct disk *open_disk(const char *size)
{
	struct disk_open_opts opts = { 0 };
	struct err err = { "" };
	struct disk *ram, *disk;

	assert_int_equal(disk_ram_open(size, size, &opts, &ram, &err), 0);
	assert_int_equal(disk_fault_wrap(ram, "", &disk, &err), 0);
	return disk;
}

static void set_disks(struct rig *rig, const char *faults)
{
	struct err err = { "" };

	for (int i = 0; i < DISKS; i++)
		assert_int_equal(disk_fault_set(rig->disks[i], faults, &err), 0);
}

static void open_pool(struct rig *rig, const char *disk_size)
{
	struct pool_create_opts opts = { .name = "tank", .zone_bytes = ZONE_BYTES_MIN };
	struct volumes_opts volumes_opts = { .loops = rig->loops, .loop_count = 1 };
	struct err err = { "" };

	rig->loops[0] = &rig->u.loop;
	for (int i = 0; i < DISKS; i++)
		rig->disks[i] = open_disk(disk_size);
	assert_int_equal(pool_create(&opts, rig->disks, DISKS, &rig->pool, &err), 0);
	assert_int_equal(volumes_open(rig->pool, &volumes_opts, &rig->vols, &err), 0);
}

static void close_pool(struct rig *rig)
{
	volumes_close(rig->vols);
	pool_close(rig->pool);
}

static void make_volume(struct rig *rig, const char *name, uint64_t size_bytes)
{
	struct volume_create_opts opts = { .name = name, .size_bytes = size_bytes };
	struct err err = { "" };

	assert_int_equal(volume_create(rig->vols, &opts, &err), 0);
}

static void play(void (*scene)(void *arg))
{
	struct rig rig = { .vols = NULL };

	unit_loop_init(&rig.u);
	unit_loop_run_fiber(&rig.u, scene, &rig);
	unit_loop_fini(&rig.u);
}

/* ---- requests ---- */

/* One of a guest that may give up. */
struct request {
	struct vio vio;
	struct iovec iov;
	bool done;
	int res;
};

static uint8_t content[VIO_BYTES_MAX];

static void request_done(struct vio *vio, int res)
{
	struct request *req = container_of(vio, struct request, vio);

	req->done = true;
	req->res = res;
}

static void submit(struct volume *vol, struct request *req, enum vio_op op, uint64_t off_bytes, uint64_t len_bytes,
		   const bool *cancelled)
{
	*req = (struct request){
		.vio = { .op = op,
			 .off_bytes = off_bytes,
			 .len_bytes = len_bytes,
			 .iov = &req->iov,
			 .iov_count = 1,
			 .cancelled = cancelled,
			 .done = request_done },
		.iov = { content, len_bytes },
	};
	volume_submit(vol, &req->vio);
}

/* What it completed with, or 1 if it does not within a second. */
static int result_of(struct request *req)
{
	struct loop *loop = loop_self();
	uint64_t deadline_ns = loop_now_ns(loop) + 1000000000ull;

	while (!req->done && loop_now_ns(loop) < deadline_ns)
		fiber_sleep_ns(AT_ONCE_NS);
	return req->done ? req->res : 1;
}

/* ---- looking while something changes ---- */

static void create_one(struct rig *rig)
{
	make_volume(rig, "new", MIB);
}

static void delete_one(struct rig *rig)
{
	struct err err = { "" };

	assert_int_equal(volume_delete(rig->vols, "b", false, &err), 0);
}

static void shrink_one(struct rig *rig)
{
	struct err err = { "" };

	assert_int_equal(volume_resize(rig->vols, "b", MIB, &err), 0);
}

static void rename_one(struct rig *rig)
{
	struct err err = { "" };

	assert_int_equal(volume_rename(rig->vols, "b", "c", &err), 0);
}

struct change {
	struct rig *rig;
	void (*make)(struct rig *rig);
	bool done;
};

static void change_fiber(void *arg)
{
	struct change *change = arg;

	change->make(change->rig);
	change->done = true;
}

/* What a volume holds is told, or not; nobody waits. */
static void measure(struct rig *rig, const char *name)
{
	struct volume_space space;
	struct err err = { "" };
	int rc = volume_get_space(rig->vols, name, &space, &err);

	assert_true(rc == 0 || rc == -EAGAIN);
}

static int count_volume(void *arg, const struct volume_info *info)
{
	++*(int *)arg;
	return 0;
}

/* As poolctl's list, stat and show do. */
static void look(struct rig *rig)
{
	uint64_t began_ns = loop_now_ns(&rig->u.loop);
	struct volume_info info;
	struct err err = { "" };
	int count = 0;

	assert_int_equal(volume_for_each(rig->vols, count_volume, &count), 0);
	assert_int_equal(count, 2);
	measure(rig, "a");
	assert_int_equal(volume_get_info(rig->vols, "a", &info, &err), 0);
	measure(rig, "b");
	assert_int_equal(volume_get_info(rig->vols, "b", &info, &err), 0);
	assert_true(loop_now_ns(&rig->u.loop) - began_ns < AT_ONCE_NS);
}

static void look_during(struct rig *rig, void (*make)(struct rig *rig))
{
	struct change change = { rig, make, false };
	uint32_t looks = 0;

	open_pool(rig, "64M");
	make_volume(rig, "a", 8 * MIB);
	make_volume(rig, "b", 8 * MIB);
	set_disks(rig, SLOWLY);
	assert_int_equal(fiber_start(&rig->u.loop, change_fiber, &change), 0);
	fiber_yield();
	for (; !change.done; looks++) {
		look(rig);
		fiber_sleep_ns(100000000ull);
	}
	assert_true(looks > 5);
	close_pool(rig);
}

#define LOOK_DURING(change)                                                  \
	static void change##_scene(void *rig)                                \
	{                                                                    \
		look_during(rig, change##_one);                              \
	}                                                                    \
	static void volumes_can_be_looked_at_during_a_##change(void **state) \
	{                                                                    \
		play(change##_scene);                                        \
	}

LOOK_DURING(create)
LOOK_DURING(delete)
LOOK_DURING(shrink)
LOOK_DURING(rename)

/* ---- requests that wait for space ---- */

#define WRITES 400u

/* Writes more than the pool holds; returns how many of them wait. */
static uint32_t fill(struct volume *vol, struct request *reqs, const bool *cancelled)
{
	uint32_t waiting = 0;

	for (uint32_t i = 0; i < WRITES; i++) {
		submit(vol, &reqs[i], VIO_WRITE, i * MIB, MIB, cancelled);
		if (waiting > 0 || result_of(&reqs[i]) == 1)
			waiting++;
		else
			assert_int_equal(reqs[i].res, 0);
	}
	return waiting;
}

static void cancel_scene(void *arg)
{
	struct rig *rig = arg;
	struct request *reqs = calloc(WRITES, sizeof(*reqs)), partial, patient, later;
	bool cancelled = false;
	uint64_t errors;
	struct volume_info info;
	struct err err = { "" };
	struct volume *vol;
	uint32_t waiting;

	open_pool(rig, "64M");
	make_volume(rig, "a", WRITES * MIB);
	assert_int_equal(unit_volume_open(rig->vols, "a", &vol, &err), 0);
	waiting = fill(vol, reqs, &cancelled);
	assert_true(waiting > 1 && waiting < WRITES);
	submit(vol, &patient, VIO_WRITE, 0, MIB, NULL);
	submit(vol, &partial, VIO_WRITE, SECTOR_BYTES, MIB - SECTOR_BYTES, &cancelled);
	assert_int_equal(result_of(&partial), 1);
	assert_int_equal(volume_get_info(rig->vols, "a", &info, &err), 0);
	assert_true(info.parked);
	errors = info.counters.errors[VIO_WRITE];

	/* Nothing happens to those who have not given up. */
	volume_cancel(vol);
	assert_int_equal(result_of(&reqs[WRITES - 1]), 1);

	cancelled = true;
	volume_cancel(vol);
	for (uint32_t i = WRITES - waiting; i < WRITES; i++)
		assert_int_equal(result_of(&reqs[i]), -ECANCELED);
	assert_int_equal(result_of(&partial), -ECANCELED);
	assert_int_equal(result_of(&patient), 1);
	/* Who comes later does not wait either; and reads, flushes and discards are as ever. */
	submit(vol, &later, VIO_WRITE, 0, MIB, &cancelled);
	assert_int_equal(result_of(&later), -ECANCELED);
	submit(vol, &later, VIO_READ, 0, MIB, &cancelled);
	assert_int_equal(result_of(&later), 0);
	submit(vol, &later, VIO_FLUSH, 0, 0, &cancelled);
	assert_int_equal(result_of(&later), 0);
	submit(vol, &later, VIO_DISCARD, 8 * MIB, 32 * MIB, &cancelled);
	assert_int_equal(result_of(&later), 0);
	/* The discard made space: the patient one is done, and a write that need not wait is not given up. */
	fiber_sleep_ns(20000000000ull);
	assert_int_equal(result_of(&patient), 0);
	submit(vol, &later, VIO_WRITE, 0, MIB, &cancelled);
	assert_int_equal(result_of(&later), 0);
	assert_int_equal(volume_get_info(rig->vols, "a", &info, &err), 0);
	assert_int_equal(info.counters.errors[VIO_WRITE], errors);
	volume_close(vol);
	close_pool(rig);
	free(reqs);
}

static void requests_that_wait_for_space_can_be_taken_back(void **state)
{
	play(cancel_scene);
}

static uint32_t count_done(const struct request *reqs)
{
	uint32_t done = 0;

	for (uint32_t i = 0; i < WRITES; i++)
		done += reqs[i].done;
	return done;
}

/* Each time that all is discarded, what waits fills the pool once more. */
static void refill_scene(void *arg)
{
	struct rig *rig = arg;
	struct request *reqs = calloc(WRITES, sizeof(*reqs)), discard;
	struct err err = { "" };
	struct volume *vol;

	open_pool(rig, "64M");
	make_volume(rig, "a", WRITES * MIB);
	assert_int_equal(unit_volume_open(rig->vols, "a", &vol, &err), 0);
	assert_true(fill(vol, reqs, NULL) > 0);
	for (uint32_t before = count_done(reqs), now; before < WRITES; before = now) {
		submit(vol, &discard, VIO_DISCARD, 0, WRITES * MIB, NULL);
		fiber_sleep_ns(20000000000ull);
		assert_true(discard.done && discard.res == 0);
		now = count_done(reqs);
		if (now == before)
			fail_msg("%u of %u writes are done, and no more will", now, WRITES);
	}
	volume_close(vol);
	close_pool(rig);
	free(reqs);
}

static void a_full_pool_goes_on_whenever_all_is_discarded(void **state)
{
	play(refill_scene);
}

/* ---- writes that do not wait for ever ---- */

#define SECOND_NS 1000000000ull

static void fail_after(struct rig *rig, const char *name, uint32_t seconds)
{
	struct volume_options options = { .full_after_s = seconds };
	struct err err = { "" };

	assert_int_equal(volume_set_options(rig->vols, name, &options, &err), 0);
}

static void count_level(void *arg, enum pool_space_level level)
{
	((uint32_t *)arg)[level]++;
}

static const char *state_of(struct rig *rig, const char *name)
{
	struct volume_info info;
	struct err err = { "" };

	assert_int_equal(volume_get_info(rig->vols, name, &info, &err), 0);
	return info.full ? "full" : info.parked ? "parked" : "ok";
}

static void full_scene(void *arg)
{
	struct rig *rig = arg;
	struct request *reqs = calloc(WRITES, sizeof(*reqs)), own[4], partial, later;
	uint32_t levels[POOL_SPACE_LEVELS] = { 0 }, waiting;
	bool cancelled = false;
	struct volume *a, *b;
	struct pool_info info;
	struct err err = { "" };

	open_pool(rig, "64M");
	pool_set_space_watch(rig->pool, count_level, levels);
	make_volume(rig, "a", WRITES * MIB);
	make_volume(rig, "b", 64 * MIB);
	assert_int_equal(unit_volume_open(rig->vols, "a", &a, &err), 0);
	assert_int_equal(unit_volume_open(rig->vols, "b", &b, &err), 0);
	fail_after(rig, "b", 8);
	waiting = fill(a, reqs, &cancelled);
	assert_true(waiting > 1 && waiting < WRITES);
	pool_get_info(rig->pool, &info);
	assert_int_equal(info.space_level, POOL_SPACE_FULL);
	for (int level = 0; level < POOL_SPACE_LEVELS; level++)
		assert_int_equal(levels[level], info.space_changes[level]);
	assert_true(levels[POOL_SPACE_LOW] > 0 && levels[POOL_SPACE_FULL] > 0);

	/* They wait for their time, and not longer; who comes later not at all. */
	for (int i = 0; i < 4; i++)
		submit(b, &own[i], VIO_WRITE, (uint64_t)i * MIB, MIB, NULL);
	submit(b, &partial, VIO_WRITE, SECTOR_BYTES, MIB - SECTOR_BYTES, NULL);
	fiber_sleep_ns(3 * SECOND_NS);
	assert_int_equal(result_of(&own[3]), 1);
	assert_int_equal(result_of(&partial), 1);
	assert_string_equal(state_of(rig, "b"), "parked");
	fiber_sleep_ns(4 * SECOND_NS);
	assert_int_equal(result_of(&own[3]), -ENOSPC);
	assert_int_equal(result_of(&partial), -ENOSPC);
	assert_string_equal(state_of(rig, "b"), "full");
	submit(b, &later, VIO_WRITE, 0, MIB, NULL);
	assert_int_equal(result_of(&later), -ENOSPC);
	submit(b, &later, VIO_DISCARD, 0, MIB, NULL);
	assert_int_equal(result_of(&later), 0);
	submit(b, &later, VIO_READ, 0, MIB, NULL);
	assert_int_equal(result_of(&later), 0);
	assert_int_equal(result_of(&reqs[WRITES - 1]), 1); /* the other volume waits on */

	/* The option may change meanwhile. */
	fail_after(rig, "b", 0);
	submit(b, &later, VIO_WRITE, 0, MIB, NULL);
	fiber_sleep_ns(60 * SECOND_NS);
	assert_int_equal(result_of(&later), 1);
	fail_after(rig, "b", 1);
	assert_int_equal(result_of(&later), -ENOSPC);

	/* Room again. */
	cancelled = true;
	volume_cancel(a);
	assert_int_equal(result_of(&reqs[WRITES - 1]), -ECANCELED);
	volume_close(a);
	assert_int_equal(volume_delete(rig->vols, "a", false, &err), 0);
	fiber_sleep_ns(AT_ONCE_NS);
	submit(b, &later, VIO_WRITE, 0, MIB, NULL);
	assert_int_equal(result_of(&later), 0);
	assert_string_equal(state_of(rig, "b"), "ok");
	pool_get_info(rig->pool, &info);
	assert_int_equal(info.space_level, POOL_SPACE_OK);
	volume_close(b);
	close_pool(rig);
	free(reqs);
}

static void writes_fail_after_a_time_where_that_is_asked_for(void **state)
{
	play(full_scene);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(volumes_can_be_looked_at_during_a_create),
		cmocka_unit_test(volumes_can_be_looked_at_during_a_delete),
		cmocka_unit_test(volumes_can_be_looked_at_during_a_shrink),
		cmocka_unit_test(volumes_can_be_looked_at_during_a_rename),
		cmocka_unit_test(requests_that_wait_for_space_can_be_taken_back),
		cmocka_unit_test(a_full_pool_goes_on_whenever_all_is_discarded),
		cmocka_unit_test(writes_fail_after_a_time_where_that_is_asked_for),
	};

	return run_unit_tests(tests);
}
