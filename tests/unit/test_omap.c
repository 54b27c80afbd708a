/* Unit tests of pool/base/omap.c: against a sorted array, at size, and with every allocation failing once. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "pool/base/mem.h"
#include "pool/base/omap.h"
#include "pool/base/omap_int.h"
#include "tests/unit/unit.h"

#define VALUE_WORDS_MAX 16

/* A value of any size whose every word follows from key and version, so that a mix-up shows. */
static const uint32_t *value_of(uint64_t key, uint32_t version)
{
	static uint32_t words[VALUE_WORDS_MAX];

	for (uint32_t i = 0; i < VALUE_WORDS_MAX; i++)
		words[i] = (uint32_t)(key * 2654435761u) + version * 40503u + i;
	return words;
}

static uint64_t random_next(uint64_t *seed)
{
	uint64_t x = *seed += 0x9e3779b97f4a7c15;

	x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9;
	x = (x ^ (x >> 27)) * 0x94d049bb133111eb;
	return x ^ (x >> 31);
}

/* The model: a sorted array. */

#define MODEL_MAX 20000

struct model {
	uint32_t count;
	uint64_t keys[MODEL_MAX];
	uint32_t versions[MODEL_MAX];
};

static uint32_t model_find(const struct model *model, uint64_t key)
{
	uint32_t low = 0, high = model->count;

	while (low < high) {
		uint32_t mid = (low + high) / 2;

		if (model->keys[mid] < key)
			low = mid + 1;
		else
			high = mid;
	}
	return low;
}

static bool model_has(const struct model *model, uint64_t key)
{
	uint32_t at = model_find(model, key);

	return at < model->count && model->keys[at] == key;
}

static void model_put(struct model *model, uint64_t key, uint32_t version)
{
	uint32_t at = model_find(model, key);

	if (!model_has(model, key)) {
		assert_true(model->count < MODEL_MAX);
		memmove(model->keys + at + 1, model->keys + at, (model->count - at) * sizeof(*model->keys));
		memmove(model->versions + at + 1, model->versions + at, (model->count - at) * sizeof(*model->versions));
		model->count++;
	}
	model->keys[at] = key;
	model->versions[at] = version;
}

static void model_del(struct model *model, uint64_t key)
{
	uint32_t at = model_find(model, key);

	model->count--;
	memmove(model->keys + at, model->keys + at + 1, (model->count - at) * sizeof(*model->keys));
	memmove(model->versions + at, model->versions + at + 1, (model->count - at) * sizeof(*model->versions));
}

/* The whole map equals the model, by iterator and by lookup. */
static void assert_same(const struct omap *map, const struct model *model)
{
	struct omap_iter it;
	uint32_t i = 0;

	assert_true(omap_valid(map));
	assert_int_equal(map->count, model->count);
	for (bool more = omap_seek(map, 0, &it); more; more = omap_next(&it), i++) {
		const void *value = value_of(model->keys[i], model->versions[i]);

		assert_true(i < model->count);
		assert_int_equal(omap_key(&it), model->keys[i]);
		assert_memory_equal(omap_value(&it), value, map->value_bytes);
		assert_ptr_equal(omap_get(map, model->keys[i]), omap_value(&it));
	}
	assert_int_equal(i, model->count);
	assert_false(omap_next(&it));
}

static void assert_seeks(const struct omap *map, const struct model *model, uint64_t key)
{
	uint32_t at = model_find(model, key);
	uint32_t above = at + model_has(model, key);
	struct omap_iter it;

	assert_int_equal(omap_get(map, key) != NULL, above > at);
	assert_int_equal(omap_seek(map, key, &it), at < model->count);
	if (at < model->count)
		assert_int_equal(omap_key(&it), model->keys[at]);
	assert_int_equal(omap_seek_floor(map, key, &it), above > 0);
	if (above > 0)
		assert_int_equal(omap_key(&it), model->keys[above - 1]);
}

/* How keys are drawn, and how often one is put rather than deleted. */
struct workload {
	uint64_t key_space;
	uint64_t key_step;
	uint32_t run_max; /* keys of one sequential run */
	uint32_t put_percent;
};

/* One run of puts or of deletions of neighbouring keys, done to map and model alike. */
static void random_run(struct omap *map, struct model *model, const struct workload *load, uint64_t *seed)
{
	uint64_t key = random_next(seed) % load->key_space * load->key_step;
	uint32_t run = 1 + random_next(seed) % load->run_max;
	uint64_t step = random_next(seed) % 4 == 0 ? -load->key_step : load->key_step;
	bool put = random_next(seed) % 100 < load->put_percent;

	for (; run > 0; run--, key += step) {
		uint32_t version = (uint32_t)random_next(seed);

		if (put) {
			assert_int_equal(omap_put(map, key, value_of(key, version)), 0);
			model_put(model, key, version);
		} else {
			bool had = model_has(model, key);

			assert_int_equal(omap_del(map, key), had);
			if (had)
				model_del(model, key);
		}
	}
}

static void workload_check(const struct workload *load, uint32_t value_bytes, uint64_t seed)
{
	struct model *model = calloc(1, sizeof(*model));
	struct omap map;

	assert_non_null(model);
	omap_init(&map, value_bytes);
	for (uint32_t round = 0; round < 6; round++) {
		/* Grow, shrink, grow, ... */
		struct workload phase = *load;

		if (round % 2)
			phase.put_percent = 100 - phase.put_percent;
		for (uint32_t i = 0; i < 8000 / load->run_max; i++) {
			random_run(&map, model, &phase, &seed);
			assert_seeks(&map, model, random_next(&seed) % load->key_space * load->key_step + i % 3 - 1);
		}
		assert_same(&map, model);
	}
	while (model->count > 0) {
		uint64_t key = model->keys[random_next(&seed) % model->count];

		assert_true(omap_del(&map, key));
		model_del(model, key);
		if (model->count % 128 == 0)
			assert_same(&map, model);
	}
	assert_null(map.root);
	omap_destroy(&map);
	free(model);
}

static void random_keys_match_a_sorted_array(void **state)
{
	const uint32_t value_bytes[] = { 4, 12, 24, 64 };
	const struct workload load = { .key_space = 15000, .key_step = 1, .run_max = 1, .put_percent = 90 };

	for (uint32_t i = 0; i < 4; i++)
		workload_check(&load, value_bytes[i], i);
}

static void keys_over_the_whole_range_match_a_sorted_array(void **state)
{
	const struct workload load = {
		.key_space = 12000, .key_step = UINT64_MAX / 12000, .run_max = 1, .put_percent = 85
	};

	workload_check(&load, 24, 1);
}

static void sequential_runs_match_a_sorted_array(void **state)
{
	const struct workload load = { .key_space = 15000, .key_step = 1, .run_max = 200, .put_percent = 70 };

	for (uint64_t seed = 0; seed < 8; seed++)
		workload_check(&load, 24, seed);
}

static void empty_map_finds_nothing(void **state)
{
	struct omap_iter it;
	struct omap map;

	omap_init(&map, 8);
	assert_null(omap_get(&map, 0));
	assert_false(omap_del(&map, 0));
	assert_false(omap_seek(&map, 0, &it));
	assert_false(omap_next(&it));
	assert_false(omap_seek_floor(&map, UINT64_MAX, &it));
	assert_int_equal(map.mem_bytes, 0);
	assert_true(omap_valid(&map));
	omap_destroy(&map);
}

static void first_and_last_key_are_ordinary_keys(void **state)
{
	struct omap_iter it;
	struct omap map;

	omap_init(&map, 8);
	for (uint64_t i = 0; i < 5000; i++) {
		assert_int_equal(omap_put(&map, i, value_of(i, 0)), 0);
		assert_int_equal(omap_put(&map, UINT64_MAX - i, value_of(i, 1)), 0);
	}
	assert_true(omap_valid(&map));
	assert_memory_equal(omap_get(&map, UINT64_MAX), value_of(0, 1), 8);
	assert_true(omap_seek(&map, UINT64_MAX, &it));
	assert_false(omap_next(&it));
	assert_true(omap_seek_floor(&map, UINT64_MAX / 2, &it));
	assert_int_equal(omap_key(&it), 4999);
	assert_true(omap_seek(&map, UINT64_MAX / 2, &it));
	assert_int_equal(omap_key(&it), UINT64_MAX - 4999);
	assert_true(omap_del(&map, 0) && omap_del(&map, UINT64_MAX));
	assert_true(omap_valid(&map));
	omap_destroy(&map);
}

/* The leaf of the last put is merged away; the next put belongs where it was. */
static void put_after_its_leaf_was_merged_away(void **state)
{
	struct omap map;

	omap_init(&map, 8);
	for (uint64_t key = 0; key < 256; key += 2)
		assert_int_equal(omap_put(&map, key, value_of(key, 0)), 0);
	assert_int_equal(omap_put(&map, 200, value_of(200, 1)), 0);
	for (uint64_t key = 0; key < 256; key += 2)
		assert_true(key % 16 == 8 || omap_del(&map, key));
	assert_int_equal(map.height, 1);
	assert_int_equal(omap_put(&map, 201, value_of(201, 2)), 0);
	assert_true(omap_valid(&map));
	assert_non_null(omap_get(&map, 201));
	assert_memory_equal(omap_get(&map, 201), value_of(201, 2), 8);
	omap_destroy(&map);
}

/* How memory is used. */

/* Bytes held for one entry, as a multiple of what key and value themselves take. */
static double overhead(const struct omap *map)
{
	return (double)map->mem_bytes / ((double)map->count * (8 + map->value_bytes));
}

static void sequential_fill_leaves_full_leaves(void **state)
{
	struct omap map;

	omap_init(&map, 24);
	for (uint64_t key = 0; key < 200000; key++)
		assert_int_equal(omap_put(&map, key, value_of(key, 0)), 0);
	assert_true(overhead(&map) < 1.06);
	assert_true(omap_valid(&map));
	omap_destroy(&map);
}

static void interleaved_streams_leave_leaves_mostly_full(void **state)
{
	struct omap map;

	omap_init(&map, 24);
	for (uint64_t i = 0; i < 200000; i++) {
		uint64_t key = (i % 4 << 32) + i;

		assert_int_equal(omap_put(&map, key, value_of(key, 0)), 0);
	}
	assert_true(overhead(&map) < 1.2);
	omap_destroy(&map);
}

static void overwriting_takes_no_memory(void **state)
{
	struct omap map;
	uint64_t held;

	omap_init(&map, 24);
	for (uint64_t key = 0; key < 64; key++)
		assert_int_equal(omap_put(&map, key, value_of(key, 0)), 0);
	held = map.mem_bytes;
	for (uint32_t i = 0; i < 10000; i++)
		assert_int_equal(omap_put(&map, i % 64, value_of(i, i)), 0);
	assert_int_equal(map.mem_bytes, held);
	assert_int_equal(map.count, 64);
	omap_destroy(&map);
}

/* A hostile order: leaves are filled, split, and almost emptied everywhere before new ones are made. */
static void thinning_out_gives_nodes_back(void **state)
{
	struct omap map;
	uint64_t held;

	omap_init(&map, 24);
	for (uint64_t key = 0; key < 100000; key++)
		assert_int_equal(omap_put(&map, key, value_of(key, 0)), 0);
	held = map.mem_bytes;
	for (uint64_t key = 0; key < 100000; key++)
		assert_true(key % 32 == 0 || omap_del(&map, key));
	assert_true(omap_valid(&map));
	assert_int_equal(map.count, 3125);
	/* What was freed serves keys in quite another place. */
	for (uint64_t key = 1000000; key < 1090000; key++)
		assert_int_equal(omap_put(&map, key, value_of(key, 0)), 0);
	assert_int_equal(map.mem_bytes, held);
	omap_destroy(&map);
	assert_int_equal(map.mem_bytes, 0);
}

static void clearing_keeps_memory_up_to_a_limit(void **state)
{
	struct omap map;
	uint64_t held;

	omap_init(&map, 24);
	for (uint64_t key = 0; key < 100000; key++)
		assert_int_equal(omap_put(&map, key, value_of(key, 0)), 0);
	omap_clear(&map, 1 << 20);
	held = map.mem_bytes;
	assert_true(held > 1 << 19 && held <= 1 << 20);
	assert_true(omap_valid(&map));
	assert_int_equal(map.count, 0);
	for (uint64_t key = 0; key < 10000; key++)
		assert_int_equal(omap_put(&map, key, value_of(key, 0)), 0);
	assert_int_equal(map.mem_bytes, held);
	assert_true(omap_valid(&map));
	omap_destroy(&map);
	assert_int_equal(map.mem_bytes, 0);
}

/* Overwriting in between hides the order from the finger; still no leaf may be left almost empty. */
static void descending_puts_at_leaf_ends_stay_compact(void **state)
{
	struct omap map;

	omap_init(&map, 24);
	for (uint64_t key = 0; key < 64; key++)
		assert_int_equal(omap_put(&map, key, value_of(key, 0)), 0);
	for (uint64_t key = 100000; key > 64; key--) {
		assert_int_equal(omap_put(&map, key, value_of(key, 0)), 0);
		assert_int_equal(omap_put(&map, key % 64, value_of(key, 0)), 0);
	}
	assert_true(overhead(&map) < 2.2);
	assert_true(omap_valid(&map));
	omap_destroy(&map);
}

/* Failing allocations. */

static uint64_t allocs, frees, alloc_bytes, fail_at; /* fail_at: 1-based, 0 for never */

static void *counting_alloc(size_t align_bytes, size_t size_bytes)
{
	void *ptr = NULL;

	if (++allocs == fail_at || posix_memalign(&ptr, align_bytes, size_bytes))
		return NULL;
	alloc_bytes += size_bytes;
	return ptr;
}

static void counting_free(void *ptr)
{
	frees += ptr != NULL;
	free(ptr);
}

/* 6,000 puts in several orders; the one that fails must change nothing and succeed when tried again. Returns how many
 * failed. */
static uint32_t fill_with_failure(struct omap *map, struct model *model, uint64_t seed)
{
	uint32_t failed = 0;

	for (uint32_t i = 0; i < 6000; i++) {
		uint64_t key = i % 2 ? i : random_next(&seed) % (1 << 20);

		if (omap_put(map, key, value_of(key, i))) {
			assert_same(map, model);
			failed++;
			assert_int_equal(omap_put(map, key, value_of(key, i)), 0);
		}
		model_put(model, key, i);
	}
	return failed;
}

static void every_failing_allocation_leaves_the_map_unchanged(void **state)
{
	const struct mem_ops ops = { .alloc = counting_alloc, .free = counting_free };
	struct model *model = calloc(1, sizeof(*model));
	uint32_t failed = 1;

	assert_non_null(model);
	mem_set_ops(&ops);
	for (fail_at = 1; failed > 0; fail_at++) {
		struct omap map;

		allocs = frees = alloc_bytes = 0;
		model->count = 0;
		omap_init(&map, 4);
		failed = fill_with_failure(&map, model, 7);
		assert_same(&map, model);
		assert_int_equal(map.mem_bytes, alloc_bytes);
		omap_destroy(&map);
		assert_int_equal(allocs - failed, frees);
	}
	mem_set_ops(NULL);
	assert_true(fail_at > 9);
	free(model);
}

/* At size. */

static uint64_t shuffled(uint64_t i)
{
	return i * 0x9e3779b97f4a7c15;
}

static void a_million_entries_come_and_go(void **state)
{
	const uint64_t n = 1000000;
	struct omap_iter it;
	uint64_t seen = 0, last = 0;
	struct omap map;

	omap_init(&map, 24);
	for (uint64_t i = 0; i < n; i++)
		assert_int_equal(omap_put(&map, shuffled(i), value_of(i, 1)), 0);
	assert_int_equal(map.count, n);
	assert_true(omap_valid(&map));
	for (uint64_t i = 0; i < n; i++)
		assert_memory_equal(omap_get(&map, shuffled(i)), value_of(i, 1), 24);
	for (bool more = omap_seek(&map, 0, &it); more; more = omap_next(&it)) {
		assert_true(seen++ == 0 || omap_key(&it) > last);
		last = omap_key(&it);
	}
	assert_int_equal(seen, n);
	for (uint64_t i = 0; i < n; i++)
		assert_true(omap_del(&map, shuffled(i)));
	assert_true(omap_valid(&map));
	assert_int_equal(map.height, 0);
	omap_destroy(&map);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(empty_map_finds_nothing),
		cmocka_unit_test(first_and_last_key_are_ordinary_keys),
		cmocka_unit_test(random_keys_match_a_sorted_array),
		cmocka_unit_test(keys_over_the_whole_range_match_a_sorted_array),
		cmocka_unit_test(sequential_runs_match_a_sorted_array),
		cmocka_unit_test(put_after_its_leaf_was_merged_away),
		cmocka_unit_test(sequential_fill_leaves_full_leaves),
		cmocka_unit_test(interleaved_streams_leave_leaves_mostly_full),
		cmocka_unit_test(overwriting_takes_no_memory),
		cmocka_unit_test(thinning_out_gives_nodes_back),
		cmocka_unit_test(clearing_keeps_memory_up_to_a_limit),
		cmocka_unit_test(descending_puts_at_leaf_ends_stay_compact),
		cmocka_unit_test(every_failing_allocation_leaves_the_map_unchanged),
		cmocka_unit_test(a_million_entries_come_and_go),
	};

	return run_unit_tests(tests);
}
