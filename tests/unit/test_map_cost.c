/* What the map costs beside the data: writes to disk, and memory. */
#include <malloc.h>
#include <stdlib.h>
#include <string.h>

#include "pool/base/mem.h"
#include "tests/unit/unit.h"
#include "tests/unit/unit_loop.h"
#include "tests/unit/unit_volume.h"
#include "volumes/lineage.h"

#define VOLUME_BYTES (1ull << 40)
#define DEPTH 32
#define WRITES 65536u
#define FILL 0x5a
#define LONG_BYTES (128u << 10)
/* A full volume this much smaller than VOLUME_BYTES, with as much less overlay, costs what a full one of VOLUME_BYTES does. */
#define SCALE 2048
#define CACHE_BYTES (64 * BLOCK_BYTES)
/* A cold read's buffers and the stack of its fiber. */
#define READ_MEMORY_MAX (512u << 10)

struct rig {
	struct unit_loop u;
	struct loop *loops[1];
	struct pool *pool;
	struct volumes *vols;
	struct volume *vol;
	struct volumes_opts opts;
	struct err err;
};

static void open_volumes(struct rig *rig)
{
	assert_int_equal(volumes_open(rig->pool, &rig->opts, &rig->vols, &rig->err), 0);
	assert_int_equal(unit_volume_open(rig->vols, "v", &rig->vol, &rig->err), 0);
}

static void open_all(struct rig *rig)
{
	struct pool_create_opts pool_opts = { .name = "tank" };
	struct volume_create_opts opts = { .name = "v", .size_bytes = VOLUME_BYTES };
	struct disk_open_opts disk_opts = { 0 };
	struct disk *disk;

	assert_int_equal(disk_open("ram:4G", &disk_opts, &disk, &rig->err), 0);
	assert_int_equal(pool_create(&pool_opts, &disk, 1, &rig->pool, &rig->err), 0);
	assert_int_equal(volumes_open(rig->pool, &rig->opts, &rig->vols, &rig->err), 0);
	assert_int_equal(volume_create(rig->vols, &opts, &rig->err), 0);
	assert_int_equal(unit_volume_open(rig->vols, "v", &rig->vol, &rig->err), 0);
}

static void close_volumes(struct rig *rig)
{
	volume_close(rig->vol);
	volumes_close(rig->vols);
}

static void close_all(struct rig *rig)
{
	close_volumes(rig);
	pool_close(rig->pool);
}

/* --- load -------------------------------------------------------------------------------------------------------- */

/* Writes of one size, DEPTH of them in flight. */
struct load {
	struct rig *rig;
	uint64_t (*place)(uint32_t i);
	uint32_t count, sent, done;
	struct iovec iov;
	struct fiber *fiber;
	struct load_slot {
		struct vio vio;
		struct load *load;
	} slot[DEPTH];
};

static void load_send(struct load_slot *slot);

static void load_done(struct vio *vio, int res)
{
	struct load_slot *slot = container_of(vio, struct load_slot, vio);
	struct load *load = slot->load;

	assert_int_equal(res, 0);
	load->done++;
	if (load->sent < load->count)
		load_send(slot);
	else if (load->done == load->count)
		fiber_wake(load->fiber);
}

static void load_send(struct load_slot *slot)
{
	struct load *load = slot->load;

	slot->vio = (struct vio){ .op = VIO_WRITE,
				  .off_bytes = load->place(load->sent++),
				  .len_bytes = load->iov.iov_len,
				  .iov = &load->iov,
				  .iov_count = 1,
				  .done = load_done };
	volume_submit(load->rig->vol, &slot->vio);
}

static void write_load(struct rig *rig, uint32_t count, uint32_t len_bytes, uint64_t (*place)(uint32_t i))
{
	struct load load = { .rig = rig, .place = place, .count = count, .fiber = fiber_self() };

	load.iov = (struct iovec){ aligned_alloc(BLOCK_BYTES, len_bytes), len_bytes };
	memset(load.iov.iov_base, FILL, len_bytes);
	for (uint32_t i = 0; i < DEPTH; i++) {
		load.slot[i].load = &load;
		load_send(&load.slot[i]);
	}
	while (load.done < load.count)
		fiber_park();
	free(load.iov.iov_base);
}

static uint64_t random_place(uint32_t i)
{
	uint64_t x = (i + 1) * 0x9e3779b97f4a7c15ull;

	x = (x ^ x >> 32) * 0xd6e8feb86659fd93ull;
	return (x ^ x >> 29) % (VOLUME_BYTES / BLOCK_BYTES) * BLOCK_BYTES;
}

static uint64_t scaled_place(uint32_t i)
{
	return random_place(i) % (VOLUME_BYTES / SCALE);
}

static uint64_t next_place(uint32_t i)
{
	return (uint64_t)i * LONG_BYTES;
}

/* --- disk writes -------------------------------------------------------------------------------------------------- */

static void take_counters(struct rig *rig, struct volume_counters *counters)
{
	struct volume_info info;

	assert_int_equal(volume_checkpoint(rig->vols, "v", &rig->err), 0);
	assert_int_equal(volume_get_info(rig->vols, "v", &info, &rig->err), 0);
	*counters = info.counters;
}

/* Headers, padding, map nodes and liveness that a load makes us write, per mille of its data. */
static uint64_t metadata_of(struct rig *rig, uint32_t count, uint32_t len_bytes, uint64_t (*place)(uint32_t i))
{
	struct volume_counters before, after;
	uint64_t data_bytes = (uint64_t)count * len_bytes, written;

	take_counters(rig, &before);
	write_load(rig, count, len_bytes, place);
	take_counters(rig, &after);
	assert_int_equal(after.bytes[VIO_WRITE] - before.bytes[VIO_WRITE], data_bytes);
	assert_int_equal(after.cleaned_segments, 0);
	assert_true(after.checkpoints - before.checkpoints > 2);
	written = after.data_bytes_written - before.data_bytes_written + after.meta_bytes_written -
		  before.meta_bytes_written;
	return (written - data_bytes) * 1000 / data_bytes;
}

static void write_at_random(void *arg)
{
	struct rig *rig = arg;

	rig->opts.overlay_entries_max = WRITES / 16;
	open_all(rig);
	assert_true(metadata_of(rig, WRITES, BLOCK_BYTES, random_place) <= 100);
	close_all(rig);
}

static void overwrite_at_random(void *arg)
{
	struct rig *rig = arg;

	rig->opts.overlay_entries_max = OVERLAY_ENTRIES_DEFAULT / SCALE;
	open_all(rig);
	write_load(rig, VOLUME_BYTES / SCALE / LONG_BYTES, LONG_BYTES, next_place);
	assert_true(metadata_of(rig, WRITES, BLOCK_BYTES, scaled_place) <= 750);
	close_all(rig);
}

static void write_in_sequence(void *arg)
{
	struct rig *rig = arg;

	rig->opts.overlay_entries_max = OVERLAY_ENTRIES_DEFAULT / SCALE;
	open_all(rig);
	assert_true(metadata_of(rig, 2048, LONG_BYTES, next_place) <= 20);
	close_all(rig);
}

/* --- memory ------------------------------------------------------------------------------------------------------- */

static size_t memory_bytes, memory_bytes_max;

static void *counting_alloc(size_t align_bytes, size_t size_bytes)
{
	void *ptr = aligned_alloc(align_bytes, (size_bytes + align_bytes - 1) & -align_bytes);

	memory_bytes += ptr ? malloc_usable_size(ptr) : 0;
	if (memory_bytes > memory_bytes_max)
		memory_bytes_max = memory_bytes;
	return ptr;
}

static void counting_free(void *ptr)
{
	memory_bytes -= malloc_usable_size(ptr);
	free(ptr);
}

static void read_at_random(void *arg)
{
	struct rig *rig = arg;
	struct volume_counters counters;
	size_t before;
	uint8_t *buf = aligned_alloc(BLOCK_BYTES, BLOCK_BYTES);

	rig->opts.map_cache_bytes = CACHE_BYTES;
	open_all(rig);
	write_load(rig, WRITES, BLOCK_BYTES, random_place);
	close_volumes(rig);
	open_volumes(rig);
	before = memory_bytes_max = memory_bytes;
	for (uint32_t i = 0; i < WRITES; i++) {
		assert_int_equal(unit_volume_request(rig->vol, VIO_READ, random_place(i), BLOCK_BYTES, buf), 0);
		assert_int_equal(buf[0], FILL);
	}
	assert_true(memory_bytes_max - before <= CACHE_BYTES + READ_MEMORY_MAX);
	take_counters(rig, &counters);
	assert_true(counters.map_cache_misses > WRITES); /* the map is far bigger */
	close_all(rig);
	free(buf);
}

/* --- tests ------------------------------------------------------------------------------------------------------- */

static void run(void (*fn)(void *arg))
{
	struct rig rig = { .opts.loop_count = 1, .opts.loops = rig.loops };

	rig.loops[0] = &rig.u.loop;
	unit_loop_init(&rig.u);
	unit_loop_run_fiber(&rig.u, fn, &rig);
	unit_loop_fini(&rig.u);
}

static void random_writes_cost_little_metadata(void **state)
{
	run(write_at_random);
}

static void random_overwrites_of_a_full_volume_cost_less_than_the_data(void **state)
{
	run(overwrite_at_random);
}

static void sequential_writes_cost_hardly_any_metadata(void **state)
{
	run(write_in_sequence);
}

static void cold_reads_stay_within_the_cache(void **state)
{
	static const struct mem_ops counting = { .alloc = counting_alloc, .free = counting_free };

	mem_set_ops(&counting);
	run(read_at_random);
	mem_set_ops(NULL);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(random_writes_cost_little_metadata),
		cmocka_unit_test(random_overwrites_of_a_full_volume_cost_less_than_the_data),
		cmocka_unit_test(sequential_writes_cost_hardly_any_metadata),
		cmocka_unit_test(cold_reads_stay_within_the_cache),
	};

	return run_unit_tests(tests);
}
