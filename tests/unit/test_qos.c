/* Limits of rate: places in time, requests that are held back, groups that share. In virtual time. */
#include "volumes/qos.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "pool/disks/disk_int.h"
#include "tests/unit/unit.h"
#include "tests/unit/unit_loop.h"
#include "tests/unit/unit_volume.h"

#define MS 1000000ull
#define SECOND (1000 * MS)
#define MIB (1ull << 20)

/* ---- places ---- */

static void what_is_saved_up_starts_at_once_and_then_at_the_rate(void **state)
{
	struct volume_limits limits = { .iops = 100, .burst_ms = 2000 };
	struct qos qos = { .burst_ns = 0 };
	uint64_t now = 1000 * SECOND;

	qos_set(&qos, &limits);
	for (int i = 0; i < 201; i++)
		assert_true(qos_take(&qos, now, 0) <= now);
	for (uint64_t i = 1; i <= 10; i++)
		assert_int_equal(qos_take(&qos, now, 0), now + i * 10 * MS);
	/* Nothing was lost while nobody asked, and no more than the burst is saved up. */
	now += 100 * MS + SECOND;
	for (int i = 0; i < 100; i++)
		assert_true(qos_take(&qos, now, 0) <= now);
	assert_int_equal(qos_take(&qos, now, 0), now + 10 * MS);
	now += 100 * SECOND;
	for (int i = 0; i < 201; i++)
		assert_true(qos_take(&qos, now, 0) <= now);
	assert_true(qos_take(&qos, now, 0) > now);
}

static void a_large_request_starts_and_those_behind_it_pay(void **state)
{
	struct volume_limits limits = { .bps = MIB, .burst_ms = 1 };
	struct qos qos = { .burst_ns = 0 };

	qos_set(&qos, &limits);
	assert_true(qos_take(&qos, 5 * SECOND, MIB) <= 5 * SECOND);
	assert_int_equal(qos_take(&qos, 5 * SECOND, 4096), 6 * SECOND - MS);
	assert_true(qos_take(&qos, 5 * SECOND, 0) <= 5 * SECOND); /* costs nothing, waits for nobody */
}

static void the_stricter_of_both_limits_counts(void **state)
{
	struct volume_limits limits = { .iops = 10, .bps = MIB, .burst_ms = 1 };
	struct qos qos = { .burst_ns = 0 };

	qos_set(&qos, &limits);
	(void)qos_take(&qos, SECOND, 4096);
	assert_int_equal(qos_take(&qos, SECOND, MIB), SECOND + 99 * MS);   /* by requests */
	assert_true(qos_take(&qos, SECOND, 4096) > SECOND + 1000 * MS);    /* by bytes */
}

/* ---- volumes ---- */

#define CLIENTS_MAX 4
#define DEPTH 16

struct rig {
	struct unit_loop u;
	struct loop *loops[1];
	struct pool *pool;
	struct volumes *vols;
};

/* Keeps DEPTH reads going until told to stop. */
struct client {
	struct rig *rig;
	struct volume *volume;
	uint64_t done;
	bool stop, cancelled;
	uint32_t busy;
	struct slot {
		struct client *client;
		struct vio vio;
		struct iovec iov;
	} slot[DEPTH];
};

static uint8_t content[VIO_BYTES_MAX];

static void go_on(struct slot *slot, uint64_t len_bytes);

static void slot_done(struct vio *vio, int res)
{
	struct slot *slot = container_of(vio, struct slot, vio);

	slot->client->busy--;
	if (res == -ECANCELED)
		return;
	assert_int_equal(res, 0);
	slot->client->done++;
	if (!slot->client->stop)
		go_on(slot, vio->len_bytes);
}

static void go_on(struct slot *slot, uint64_t len_bytes)
{
	slot->iov = (struct iovec){ content, len_bytes };
	slot->vio = (struct vio){ .op = VIO_READ, .len_bytes = len_bytes, .iov = &slot->iov, .iov_count = 1, .done = slot_done,
				  .cancelled = &slot->client->cancelled };
	slot->client->busy++;
	volume_submit(slot->client->volume, &slot->vio);
}

static void client_start(struct rig *rig, struct client *client, const char *name, uint64_t len_bytes)
{
	struct err err = { "" };

	*client = (struct client){ .rig = rig };
	assert_int_equal(volume_open(rig->vols, name, &client->volume, &err), 0);
	for (int i = 0; i < DEPTH; i++) {
		client->slot[i].client = client;
		go_on(&client->slot[i], len_bytes);
	}
}

static void client_stop(struct client *client)
{
	client->stop = client->cancelled = true;
	volume_cancel(client->volume);
	while (client->busy > 0)
		fiber_sleep_ns(MS);
	volume_close(client->volume);
}

static void open_pool(struct rig *rig)
{
	struct pool_create_opts opts = { .name = "tank", .zone_bytes = ZONE_BYTES_MIN };
	struct volumes_opts volumes_opts = { .loops = rig->loops, .loop_count = 1 };
	struct disk_open_opts disk_opts = { 0 };
	struct disk *disk;
	struct err err = { "" };

	rig->loops[0] = &rig->u.loop;
	assert_int_equal(disk_ram_open("128M", "128M", &disk_opts, &disk, &err), 0);
	assert_int_equal(pool_create(&opts, &disk, 1, &rig->pool, &err), 0);
	assert_int_equal(volumes_open(rig->pool, &volumes_opts, &rig->vols, &err), 0);
}

static void reopen_volumes(struct rig *rig)
{
	struct volumes_opts volumes_opts = { .loops = rig->loops, .loop_count = 1 };
	struct err err = { "" };

	volumes_close(rig->vols);
	assert_int_equal(volumes_open(rig->pool, &volumes_opts, &rig->vols, &err), 0);
}

static void make_volume(struct rig *rig, const char *name, const struct volume_options *options)
{
	struct volume_create_opts opts = { .name = name, .size_bytes = MIB, .options = *options };
	struct err err = { "" };

	assert_int_equal(volume_create(rig->vols, &opts, &err), 0);
}

static void set(struct rig *rig, const char *name, const struct volume_options *options)
{
	struct err err = { "" };

	assert_int_equal(volume_set_options(rig->vols, name, options, &err), 0);
}

static void set_group(struct rig *rig, const char *name, uint64_t iops)
{
	struct volume_limits limits = { .iops = iops, .burst_ms = 10 };
	struct err err = { "" };

	assert_int_equal(volume_group_set(rig->vols, name, &limits, &err), 0);
}

/* What the client gets done in a second. */
static uint64_t in_a_second(struct client *client)
{
	uint64_t before = client->done;

	fiber_sleep_ns(SECOND);
	return client->done - before;
}

static void play(void (*scene)(struct rig *rig))
{
	struct rig rig = { .vols = NULL };

	unit_loop_init(&rig.u);
	rig.u.now_ns = 1000 * SECOND;
	unit_loop_run_fiber(&rig.u, (void (*)(void *))scene, &rig);
	unit_loop_fini(&rig.u);
}

static void run_limits(struct rig *rig)
{
	struct volume_options options = { .limits = { .iops = 500, .burst_ms = 100 } };
	struct volume_info info;
	struct client client;
	struct err err = { "" };

	open_pool(rig);
	make_volume(rig, "v", &options);
	client_start(rig, &client, "v", 4096);
	assert_in_range(in_a_second(&client), 549, 552); /* what was saved up, too */
	assert_in_range(in_a_second(&client), 499, 501);
	assert_int_equal(unit_volume_request(client.volume, VIO_FLUSH, 0, 0, NULL), 0);
	assert_int_equal(volume_get_info(rig->vols, "v", &info, &err), 0);
	assert_in_range(info.counters.throttled, 900, 1100);
	/* 15 or 16 wait all the time. */
	assert_in_range(info.counters.throttled_ns, 28 * SECOND, 32 * SECOND);
	options.limits = (struct volume_limits){ .bps = 100 * 4096, .burst_ms = 10 };
	set(rig, "v", &options);
	(void)in_a_second(&client);
	assert_in_range(in_a_second(&client), 99, 101);
	options.limits.bps = 4096;
	set(rig, "v", &options);
	(void)in_a_second(&client);
	assert_in_range(in_a_second(&client), 1, 2);
	options.limits.bps = 1000 * 4096; /* those that would have waited for long do not */
	set(rig, "v", &options);
	assert_in_range(in_a_second(&client), 995, 1015);
	client_stop(&client);
	volumes_close(rig->vols);
	pool_close(rig->pool);
}

static void limits_hold_and_change_at_once(void **state)
{
	play(run_limits);
}

static void run_cancel(struct rig *rig)
{
	struct volume_options options = { .limits = { .bps = VOLUME_BPS_MIN, .burst_ms = 1 } };
	uint64_t begin;
	struct client client;

	open_pool(rig);
	make_volume(rig, "v", &options);
	client_start(rig, &client, "v", MIB); /* the second one would start after minutes */
	fiber_sleep_ns(SECOND);
	assert_int_equal(client.done, 1);
	begin = rig->u.now_ns;
	client_stop(&client);
	assert_true(rig->u.now_ns - begin < SECOND);
	assert_int_equal(client.done, 1);
	/* Without limits nothing waits. */
	client_start(rig, &client, "v", MIB);
	fiber_sleep_ns(SECOND);
	assert_int_equal(client.done, 0); /* the debt stays */
	client.stop = true;
	set(rig, "v", &(struct volume_options){ .group = "" });
	fiber_sleep_ns(SECOND);
	assert_int_equal(client.done, DEPTH);
	client_stop(&client);
	volumes_close(rig->vols);
	pool_close(rig->pool);
}

static void what_is_held_back_can_be_taken_back_or_let_go(void **state)
{
	play(run_cancel);
}

static void run_group(struct rig *rig)
{
	struct volume_options options = { .group = "bronze" };
	struct volume_info info;
	struct client a, b, c;
	struct err err = { "" };

	open_pool(rig);
	set_group(rig, "bronze", 600);
	make_volume(rig, "a", &options);
	make_volume(rig, "b", &options);
	make_volume(rig, "c", &(struct volume_options){ .limits = { .iops = 100, .burst_ms = 10 }, .group = "bronze" });
	client_start(rig, &a, "a", 4096);
	assert_in_range(in_a_second(&a), 600, 608);
	client_start(rig, &b, "b", 4096);
	assert_in_range(in_a_second(&a), 298, 302);
	assert_in_range(in_a_second(&b), 298, 302);
	client_start(rig, &c, "c", 4096); /* has less by a limit of its own; the others share the rest */
	(void)in_a_second(&a);
	assert_in_range(in_a_second(&c), 99, 101);
	assert_in_range(in_a_second(&a), 248, 252);
	set_group(rig, "bronze", 60);
	(void)in_a_second(&a);
	assert_in_range(in_a_second(&a) + in_a_second(&b) + in_a_second(&c), 57, 63);
	client_stop(&a);
	client_stop(&b);
	client_stop(&c);
	assert_int_equal(volume_group_delete(rig->vols, "bronze", &err), -EBUSY);
	assert_int_equal(volume_set_options(rig->vols, "a", &(struct volume_options){ .group = "gold" }, &err), -ENOENT);
	reopen_volumes(rig);
	assert_int_equal(volume_get_info(rig->vols, "c", &info, &err), 0);
	assert_string_equal(info.options.group, "bronze");
	assert_int_equal(info.options.limits.iops, 100);
	client_start(rig, &a, "a", 4096);
	(void)in_a_second(&a);
	assert_in_range(in_a_second(&a), 59, 61);
	client_stop(&a);
	set(rig, "a", &(struct volume_options){ .group = "" });
	assert_int_equal(volume_delete(rig->vols, "b", false, &err), 0);
	assert_int_equal(volume_delete(rig->vols, "c", false, &err), 0);
	assert_int_equal(volume_group_delete(rig->vols, "bronze", &err), 0);
	assert_int_equal(volume_group_delete(rig->vols, "bronze", &err), -ENOENT);
	reopen_volumes(rig);
	assert_int_equal(volume_get_info(rig->vols, "a", &info, &err), 0);
	assert_string_equal(info.options.group, "");
	volumes_close(rig->vols);
	pool_close(rig->pool);
}

static void volumes_share_a_groups_limits_in_turns(void **state)
{
	play(run_group);
}

static void run_refused(struct rig *rig)
{
	static const struct volume_limits bad[] = { { .iops = VOLUME_IOPS_MAX + 1 }, { .bps = VOLUME_BPS_MIN - 1 },
						    { .bps = VOLUME_BPS_MAX + 1 }, { .iops = 1, .burst_ms = VOLUME_BURST_MS_MAX + 1 } };
	const char *snapshot = "v@s";
	struct volume_options options = { .group = "" };
	struct err err = { "" };

	open_pool(rig);
	make_volume(rig, "v", &options);
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		options.limits = bad[i];
		assert_int_equal(volume_set_options(rig->vols, "v", &options, &err), -EINVAL);
		assert_int_equal(volume_group_set(rig->vols, "g", &bad[i], &err), -EINVAL);
	}
	options.limits = (struct volume_limits){ .iops = 1 };
	assert_int_equal(volume_snapshot(rig->vols, &snapshot, 1, &err), 0);
	assert_int_equal(volume_set_options(rig->vols, snapshot, &options, &err), -EROFS);
	assert_int_equal(volume_group_set(rig->vols, "no name", &options.limits, &err), -EINVAL);
	volumes_close(rig->vols);
	pool_close(rig->pool);
}

static void limits_out_of_range_are_refused(void **state)
{
	play(run_refused);
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(what_is_saved_up_starts_at_once_and_then_at_the_rate),
		cmocka_unit_test(a_large_request_starts_and_those_behind_it_pay),
		cmocka_unit_test(the_stricter_of_both_limits_counts),
		cmocka_unit_test(limits_hold_and_change_at_once),
		cmocka_unit_test(what_is_held_back_can_be_taken_back_or_let_go),
		cmocka_unit_test(volumes_share_a_groups_limits_in_turns),
		cmocka_unit_test(limits_out_of_range_are_refused),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
