/* Speed and memory of pool/base/omap.c with the values of a volume's map (24 bytes).
 *
 *     make build/release/libbase.a
 *     gcc -std=gnu11 -O2 -I. tests/bench/omap.c build/release/libbase.a -lisal -o build/bench-omap && build/bench-omap
 *
 * Random keys are drawn from four times as many as there are entries, so a quarter of the lookups hit. */
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "pool/base/omap.h"

#define OPS 2000000

static uint64_t seed = 88172645463325252;
static const uint64_t value[3] = { 1, 2, 3 };

static uint64_t random_next(void)
{
	seed ^= seed << 13;
	seed ^= seed >> 7;
	seed ^= seed << 17;
	return seed;
}

static double now_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec * 1e9 + (double)t.tv_nsec;
}

static void put(struct omap *map, uint64_t key)
{
	if (omap_put(map, key, value))
		abort();
}

static void report(const char *what, double start_ns, uint64_t ops)
{
	printf("  %-34s %7.1f ns\n", what, (now_ns() - start_ns) / (double)ops);
}

static void report_memory(const struct omap *map)
{
	printf("  %-34s %7.1f\n", "  bytes an entry", (double)map->mem_bytes / (double)map->count);
}

static void bench_random(uint64_t entries)
{
	uint64_t space = entries * 4, sum = 0, seen = 0;
	struct omap_iter it;
	struct omap map;
	double start;

	omap_init(&map, sizeof(value));
	start = now_ns();
	while (map.count < entries)
		put(&map, random_next() % space);
	report("random insertion from empty", start, entries);
	report_memory(&map);
	start = now_ns();
	for (uint64_t i = 0; i < OPS; i++)
		sum += omap_get(&map, random_next() % space) != NULL;
	report("random get", start, OPS);
	start = now_ns();
	for (uint64_t i = 0; i < OPS; i++)
		put(&map, random_next() % space);
	report("random put, old and new keys", start, OPS);
	start = now_ns();
	for (bool more = omap_seek(&map, 0, &it); more; more = omap_next(&it), seen++)
		sum += *(uint64_t *)omap_value(&it);
	report("iterator step", start, seen);
	start = now_ns();
	for (uint64_t i = 0; i < OPS; i++)
		sum += omap_del(&map, random_next() % space);
	report("random del", start, OPS);
	omap_destroy(&map);
	if (sum == 0)
		abort();
}

static void bench_sequential(uint64_t entries)
{
	struct omap map;
	double start = now_ns();

	omap_init(&map, sizeof(value));
	for (uint64_t i = 0; i < entries; i++)
		put(&map, i);
	report("sequential insertion", start, entries);
	report_memory(&map);
	start = now_ns();
	for (uint64_t i = 0; i < entries; i++)
		put(&map, i);
	report("sequential overwrite", start, entries);
	omap_destroy(&map);
	start = now_ns();
	for (uint64_t i = 0; i < entries; i++)
		put(&map, (i % 4 << 40) + i / 4);
	report("4 sequential streams, interleaved", start, entries);
	report_memory(&map);
	omap_destroy(&map);
}

int main(void)
{
	for (uint64_t entries = 1000000; entries <= 4000000; entries *= 4) {
		printf("%llu entries\n", (unsigned long long)entries);
		bench_random(entries);
		bench_sequential(entries);
	}
	return 0;
}
