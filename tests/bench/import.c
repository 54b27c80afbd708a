/* How long an import takes with ZONES zones, all of them in segments, and what a grant costs.
 *
 *     make build/release/bench/import && build/release/bench/import
 *
 * The disks are sparse memory; the catalog of a million segments is read and written whole. */
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "pool/disks/disk_int.h"
#include "pool/pool_int.h"
#include "pool/segment_format.h"

#define DISKS 4u
#define ZONES_PER_DISK 250000u
#define ZONE_BYTES ZONE_BYTES_MIN
#define OWNERS 1000u

static uint64_t now_ns(struct loop *loop)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000000 + (uint64_t)t.tv_nsec;
}

static uint64_t next_random(struct loop *loop)
{
	static uint64_t state = 1;

	return state = state * 6364136223846793005ull + 1442695040888963407ull;
}

static void no_wake(struct loop *loop)
{
}

static const struct loop_ops ops = { .now_ns = now_ns, .wall_s = now_ns, .random = next_random, .wake = no_wake };

static void must(int ret, const char *what, const struct err *err)
{
	if (ret == 0)
		return;
	fprintf(stderr, "%s: %d %s\n", what, ret, err ? err->msg : "");
	exit(1);
}

/* The same memory under a fresh handle: a pool closes its disks. */
static struct disk *kept[DISKS];

static void keep_open(struct disk *disk)
{
}

static struct disk_ops kept_ops;

static void open_disks(void)
{
	char size[32];
	struct err err;

	snprintf(size, sizeof(size), "%lluM", (ZONES_PER_DISK + 300ull) * (ZONE_BYTES >> 20));
	for (uint32_t d = 0; d < DISKS; d++) {
		must(disk_ram_open("ram:", size, NULL, &kept[d], &err), "open", &err);
		kept_ops = *kept[d]->ops;
		kept_ops.close = keep_open;
		kept[d]->ops = &kept_ops;
	}
}

/* Puts segments on all zones, a thousand in a transaction, without granting them one by one. */
static void fill_catalog(struct pool *pool)
{
	uint64_t number = 0;

	catalog_on_change(pool->catalog, NULL, NULL);
	for (uint32_t zone = 0; zone < ZONES_PER_DISK;) {
		struct cat_txn txn;

		cat_txn_init(&txn);
		for (uint32_t n = 0; n < 250 && zone < ZONES_PER_DISK; n++, zone++)
			for (uint32_t d = 0; d < DISKS; d++, number++) {
				struct segment segment = {
					.grant = pool_new_id(pool),
					.owner = 1 + number % OWNERS,
					.segno = (uint32_t)(number / OWNERS),
					.sealed_blocks = SEGMENT_UNSEALED,
					.policy = { 1, 0 },
					.cols = { { d, zone } },
				};
				segment_put_in(&txn, &segment);
			}
		must(catalog_commit(pool->catalog, &txn), "commit", NULL);
		cat_txn_release(&txn);
	}
}

static void report(struct loop *loop, const char *what, uint64_t start_ns, uint32_t times)
{
	printf("%-40s %10.3f ms\n", what, (double)(now_ns(loop) - start_ns) / 1e6 / times);
}

static void measure_grants(struct pool *pool, struct loop *loop)
{
	struct segment segment;
	uint64_t start = now_ns(loop);

	for (uint32_t i = 0; i < 200; i++)
		must(segment_grant(pool, 5, 1000000 + i, STREAM_DATA, (struct policy){ 1, 0 }, GRANT_RESERVE,
				   UINT32_MAX, &segment),
		     "grant", NULL);
	report(loop, "grant", start, 200);
}

static void count_segment(void *arg, const struct segment *segment)
{
	++*(uint64_t *)arg;
}

static void measure_owners(struct pool *pool, struct loop *loop)
{
	uint64_t count = 0, start = now_ns(loop);

	for (uint64_t owner = 1; owner <= OWNERS; owner++)
		segment_for_each(pool, owner, count_segment, &count);
	report(loop, "all segments of all owners", start, 1);
	printf("%-40s %10llu\n", "segments", (unsigned long long)count);
}

static void measure(void *arg)
{
	struct pool_create_opts opts = { .name = "tank", .zone_bytes = ZONE_BYTES };
	struct loop *loop = loop_self();
	struct pool *pool;
	struct err err;
	uint64_t start;

	open_disks();
	must(pool_create(&opts, kept, DISKS, &pool, &err), "create", &err);
	start = now_ns(loop);
	fill_catalog(pool);
	report(loop, "fill the catalog", start, 1);
	pool_close(pool);
	start = now_ns(loop);
	must(pool_import(kept, DISKS, &pool, &err), "import", &err);
	report(loop, "import", start, 1);
	measure_owners(pool, loop);
	measure_grants(pool, loop);
	start = now_ns(loop);
	must(catalog_checkpoint(pool->catalog), "checkpoint", NULL);
	report(loop, "checkpoint", start, 1);
	pool_close(pool);
}

int main(void)
{
	struct loop loop;

	loop_init(&loop, &ops, 0);
	loop_enter(&loop);
	must(fiber_start(&loop, measure, NULL), "fiber", NULL);
	while (loop_turn(&loop) || loop_has_ready(&loop))
		;
	loop_enter(NULL);
	loop_fini(&loop);
	return 0;
}
