/* Draws the dimensions of a seed. See config.h.
 *
 * Most seeds are short and have small volumes, so that many states are seen in little time; some are long, full, huge,
 * slow or hostile. Seeds without faults are the majority: in them no error is forgiven. */
#include "tests/sim/config.h"

#include <stdio.h>

#include "pool/pool.h"

#define MIB (1ull << 20)
#define MS 1000000ull
#define FILLS_ZONES_MIN 44u /* each volume holds some open segments whatever is in it */
#define AGES_SEGMENTS_MIN 28u
#define ZONES_MIN 48u       /* of a pool that is not to be filled: enough for some segments of each volume */

static bool chance(struct rng *rng, uint32_t per_mille)
{
	return rng_per_mille(rng, per_mille);
}

static void draw_policy(struct sim_config *c, struct rng *rng)
{
	static const struct policy choice[] = { { 1, 1 }, { 1, 1 }, { 1, 1 }, { 1, 2 }, { 2, 1 },
						{ 2, 1 }, { 3, 1 }, { 2, 2 }, { 4, 2 } };

	c->policy = (struct policy){ 1, 0 };
	if (c->fills || chance(rng, 400))
		return;
	c->policy = choice[rng_below(rng, sizeof(choice) / sizeof(choice[0]))];
	c->mixed = chance(rng, 150);
}

static void draw_disks(struct sim_config *c, struct rng *rng)
{
	static const uint32_t zone_mib[] = { 2, 2, 2, 2, 4, 8 };

	uint32_t cols = c->policy.k + c->policy.m, zones_min;

	c->zone_bytes = c->fills ? ZONE_BYTES_MIN : zone_mib[rng_below(rng, 6)] << 20;
	c->disks = (uint32_t)rng_range(rng, 1, 4);
	if (c->disks < cols)
		c->disks = cols;
	c->disks_max = c->disks + (uint32_t)rng_below(rng, 3);
	if (c->disks_max > SIM_DISKS_MAX)
		c->disks_max = SIM_DISKS_MAX;
	zones_min = ZONES_MIN / (cols > 1 ? 1 : c->disks);
	for (uint32_t i = 0; i < SIM_DISKS_MAX; i++) {
		uint64_t zones = c->fills ? rng_range(rng, FILLS_ZONES_MIN, 60)
					  : rng_log_range(rng, zones_min, 200);

		c->disk[i] = (struct sim_disk_opts){
			.size_bytes = 4 * MIB + zones * c->zone_bytes + rng_below(rng, 64) * 4096,
			.block_bytes = chance(rng, 500) ? 512 : 4096,
			.latency_ns = rng_log_range(rng, 4000, 4000000),
			.slow_factor = 1,
			.discard_way = (uint32_t)rng_below(rng, 3),
			.check_stable = chance(rng, 125),
		};
	}
}

static void draw_volumes(struct sim_config *c, struct rng *rng)
{
	c->volumes = chance(rng, 600) ? 1 : (uint32_t)rng_range(rng, 2, 4);
	c->window_sectors = rng_log_range(rng, 64, 4096) / c->volumes + 16;
	c->huge = chance(rng, 200);
	c->map_cache_bytes = rng_log_range(rng, 16 << 10, 1 << 20);
	c->overlay_entries_max = rng_log_range(rng, 8, 4096);
	c->checkpoint_log_bytes = rng_log_range(rng, 64 << 10, 16 * MIB);
}

/* From numbers of its own: other dimensions of a seed do not depend on it. In a pool that fills they are few. */
static void draw_forks(struct sim_config *c)
{
	struct rng rng;

	rng_seed(&rng, c->seed, 5);
	c->volumes_max = 6;
	if (chance(&rng, 350))
		return;
	c->snapshots_max = (uint32_t)rng_log_range(&rng, 1, c->fills ? 2 : SIM_SNAPSHOTS_MAX);
	c->volumes_max = (uint32_t)rng_range(&rng, c->volumes + 1, c->fills ? c->volumes + 1 : SIM_VOLUMES_MAX);
	c->fork_per_mille = (uint32_t)rng_range(&rng, 200, 900);
	c->linked = c->volumes > 1 && chance(&rng, 700);
	if (c->linked)
		c->think_ns = 0;
	c->stall_ns_max = c->loops > 1 && chance(&rng, c->linked ? 800 : 300) ? rng_log_range(&rng, 10000, 2 * MS) : 0;
	if (c->manage_ns == 0)
		c->manage_ns = rng_log_range(&rng, 20000, 20 * MS);
}

static void draw_load(struct sim_config *c, struct rng *rng)
{
	c->ops = (uint32_t)rng_log_range(rng, 40, 400);
	c->depth = (uint32_t)rng_log_range(rng, 1, SIM_DEPTH_MAX);
	c->sizes = (enum size_profile)rng_below(rng, SIZE_PROFILES);
	c->think_ns = chance(rng, 500) ? 0 : rng_log_range(rng, 1000, 2 * MS);
	c->manage_ns = chance(rng, 250) ? 0 : rng_log_range(rng, 20000, 20 * MS);
	c->flush_per_mille = chance(rng, 200) ? 0 : (uint32_t)rng_below(rng, 200);
	c->fua_per_mille = chance(rng, 500) ? 0 : (uint32_t)rng_below(rng, 300);
	c->read_per_mille = (uint32_t)rng_range(rng, 50, 500);
	c->zero_per_mille = chance(rng, 250) ? 0 : (uint32_t)rng_below(rng, 250);
	c->odd_iov = chance(rng, 300);
}

static void draw_crashes(struct sim_config *c, struct rng *rng)
{
	c->lives = (uint32_t)rng_range(rng, 1, 4);
	c->outcomes = chance(rng, 10) ? 40 : (uint32_t)rng_range(rng, 6, 18);
	c->exhaustive_max = chance(rng, 1) ? 10 : chance(rng, 100) ? 4 : 0;
	c->power_per_mille = chance(rng, 200) ? 0 : chance(rng, 250) ? 1000 : 700;
	c->nested_per_mille = (uint32_t)rng_below(rng, 400);
}

/* A long load that overwrites much more than it keeps: segments are used again and again. */
static void draw_long(struct sim_config *c, struct rng *rng)
{
	c->ops = (uint32_t)rng_range(rng, 500, 2000);
	c->outcomes = (uint32_t)rng_range(rng, 2, 5);
	c->checkpoint_log_bytes = rng_log_range(rng, 64 << 10, 2 * MIB);
}

/* A load that the pool cannot hold: without FUA, as relief must be free to discard what waits for space. */
static void draw_filling(struct sim_config *c, struct rng *rng)
{
	c->ops = (uint32_t)rng_range(rng, 200, 500);
	c->sizes = SIZES_LARGE;
	c->fua_per_mille = 0;
	c->disks = 1;
	c->window_sectors = rng_range(rng, 50, 100) * 2048 / c->volumes;
	c->huge = false;
	c->outcomes = 2;
	c->exhaustive_max = 0;
	c->lives = (uint32_t)rng_range(rng, 1, 2);
}

/* What an aging pool holds besides its volume: some snapshots, and a clone or a volume of its own log. */
static uint32_t draw_aging_forks(struct sim_config *c, struct rng *rng)
{
	if (c->snapshots_max == 0 || chance(rng, 300)) {
		c->manage_ns = 0;
		return 0;
	}
	c->manage_ns = rng_log_range(rng, 50000, 5 * MS);
	c->snapshots_max = (uint32_t)rng_range(rng, 1, 2);
	c->volumes_max = 2;
	return c->snapshots_max + 1;
}

/* A pool just large enough, overwritten again and again in pieces: the cleaner has to move what is live. It is so without a
 * disk that may be missing. */
static void draw_aging(struct sim_config *c, struct rng *rng)
{
	uint32_t cols = c->policy.k + c->policy.m, forks = draw_aging_forks(c, rng);
	uint64_t segments = AGES_SEGMENTS_MIN + (forks > 0 ? 16 : 0) + rng_below(rng, 20);
	uint32_t disks = cols > 1 && c->disks > cols ? c->disks - 1 : c->disks;

	c->zone_bytes = ZONE_BYTES_MIN;
	c->volumes = 1;
	c->huge = false;
	for (uint32_t i = 0; i < SIM_DISKS_MAX; i++) {
		c->disk[i].size_bytes = 4 * MIB + (segments * cols + disks - 1) / disks * c->zone_bytes;
		if (c->disk[i].latency_ns > MS)
			c->disk[i].latency_ns = MS;
	}
	c->window_sectors = segments * c->policy.k * (c->zone_bytes / 512) * rng_range(rng, 25, 60) / 100 / (1 + forks);
	c->sizes = chance(rng, 300) ? SIZES_MIXED : SIZES_LARGE;
	c->ops = (uint32_t)rng_range(rng, 400, 1600);
	c->read_per_mille = (uint32_t)rng_range(rng, 50, 200);
	c->zero_per_mille = c->zero_per_mille > 100 ? 100 : c->zero_per_mille;
	c->overlay_entries_max = rng_log_range(rng, 512, 16384);
	c->checkpoint_log_bytes = rng_log_range(rng, MIB, 32 * MIB);
	c->outcomes = (uint32_t)rng_range(rng, 2, 5);
	c->exhaustive_max = 0;
}

/* ---- faults ---- */

static void on_all_disks(struct sim_config *c, enum sim_fault fault, uint32_t per_mille)
{
	for (uint32_t i = 0; i < c->disks_max; i++)
		c->disk[i].fault_per_mille[fault] = per_mille;
}

/* Damage that lasts befalls one of several disks: the catalog's other copies are good. */
static void on_one_disk(struct sim_config *c, struct rng *rng, enum sim_fault fault, uint32_t per_mille)
{
	uint32_t chosen;

	if (c->disks < 2)
		c->disks = 2;
	if (c->disks_max < c->disks)
		c->disks_max = c->disks;
	chosen = (uint32_t)rng_below(rng, c->disks);
	c->disk[chosen].fault_per_mille[fault] = per_mille;
	c->lasting = true;
}

/* To some ten seconds an I/O at worst. */
static void slow_down(struct sim_disk_opts *disk, struct rng *rng)
{
	if (disk->latency_ns > MS / 4)
		disk->latency_ns = MS / 4;
	disk->slow_factor = (uint32_t)rng_log_range(rng, 10, 1000);
}

static void draw_fault(struct sim_config *c, struct rng *rng)
{
	uint32_t rate = (uint32_t)rng_log_range(rng, 2, 100);

	c->any_fault = true;
	switch (rng_below(rng, 9)) {
	case 0: on_all_disks(c, FAULT_READ_EIO, rate * 2); break;
	case 1: on_all_disks(c, FAULT_WRITE_EIO, rate / 2 + 1); break;
	case 2: on_all_disks(c, FAULT_FLUSH_EIO, rate); break;
	case 3:
		on_one_disk(c, rng, FAULT_MISDIRECTED_READ, rate);
		c->lasting = c->fail_recovery; /* a log that looks shorter than it is gets cut */
		break;
	case 4: on_one_disk(c, rng, FAULT_MISDIRECTED_WRITE, rate); break;
	case 5: on_one_disk(c, rng, FAULT_PHANTOM_WRITE, rate); break;
	case 6: on_one_disk(c, rng, FAULT_LYING_FLUSH, 1000); break;
	case 7:
		on_one_disk(c, rng, FAULT_BIT_ROT, 1); /* made by the manager */
		c->rot_per_mille = rate * 5;
		break;
	default: slow_down(&c->disk[rng_below(rng, c->disks)], rng);
	}
}

/* Whatever one disk can do wrong, several at once. */
static void draw_bad_disk(struct sim_config *c, struct rng *rng)
{
	struct sim_disk_opts *disk;

	c->any_fault = c->within = true;
	c->bad_disk = (uint32_t)rng_below(rng, c->disks);
	disk = &c->disk[c->bad_disk];
	c->absent_per_mille = chance(rng, 500) ? 300 : 0;
	c->dead_per_mille = chance(rng, 300) ? 200 : 0;
	for (uint32_t i = 0; i < 1 + rng_below(rng, 2); i++) {
		enum sim_fault fault = (enum sim_fault)rng_below(rng, FAULT_COUNT);

		disk->fault_per_mille[fault] = fault == FAULT_LYING_FLUSH ? 1000 : (uint32_t)rng_log_range(rng, 2, 100);
		if (fault == FAULT_BIT_ROT)
			c->rot_per_mille = disk->fault_per_mille[fault] * 5;
	}
}

void config_draw(struct sim_config *config, uint64_t seed, uint32_t ops)
{
	struct rng rng;

	rng_seed(&rng, seed, 0);
	*config = (struct sim_config){ .seed = seed, .loops = (uint32_t)rng_range(&rng, 1, SIM_LOOPS_MAX) };
	config->fills = chance(&rng, 10);
	draw_policy(config, &rng);
	draw_disks(config, &rng);
	draw_volumes(config, &rng);
	draw_load(config, &rng);
	draw_crashes(config, &rng);
	if (config->fills)
		draw_filling(config, &rng);
	else if (chance(&rng, 40))
		draw_long(config, &rng);
	draw_forks(config);
	config->fail_memory = chance(&rng, 100);
	config->fail_recovery = chance(&rng, 300);
	if (config->policy.m > 0 && !config->mixed && chance(&rng, 500))
		draw_bad_disk(config, &rng);
	else if (!config->fills && chance(&rng, 350))
		draw_fault(config, &rng);
	rng_seed(&rng, seed, 4);         /* of its own: a seed that does not age stays what it was */
	config->ages = !config->fills && chance(&rng, 40);
	if (config->ages)
		draw_aging(config, &rng);
	if (ops > 0)
		config->ops = ops;
}

void config_print(const struct sim_config *c)
{
	char policy[POLICY_TEXT_BYTES];

	printf("seed %llu: %s%s, %u loops, %u disks of up to %u, zones of %u MiB, %u volumes of %llu sectors%s, cache %llu, "
	       "overlay %llu, "
	       "checkpoint every %llu bytes\n",
	       (unsigned long long)c->seed, policy_to_text(c->policy, policy), c->mixed ? " and plain" : "", c->loops, c->disks, c->disks_max, c->zone_bytes >> 20, c->volumes,
	       (unsigned long long)c->window_sectors, c->huge ? " far apart" : "",
	       (unsigned long long)c->map_cache_bytes, (unsigned long long)c->overlay_entries_max,
	       (unsigned long long)c->checkpoint_log_bytes);
	printf("  %u requests, depth %u, sizes %d, per mille: %u reads, %u zeroes, %u flushes, %u FUA; %u lives, %u "
	       "outcomes, "
	       "%u per mille power losses%s%s%s%s\n",
	       c->ops, c->depth, (int)c->sizes, c->read_per_mille, c->zero_per_mille, c->flush_per_mille,
	       c->fua_per_mille, c->lives, c->outcomes, c->power_per_mille, c->fills ? ", fills the pool" : c->ages ? ", ages the pool" : "",
	       c->fail_memory ? ", allocations fail" : "", c->any_fault ? ", disks fail" : "",
	       c->fail_recovery && c->any_fault ? " in recovery too" : "");
	printf("  up to %u volumes and %u snapshots, %u per mille of operations are about them%s\n", c->volumes_max,
	       c->snapshots_max, c->fork_per_mille, c->linked ? "; volumes follow each other" : "");
	printf("  loops stall for up to %llu ns\n", (unsigned long long)c->stall_ns_max);
	for (uint32_t i = 0; i < c->disks_max; i++) {
		printf("  disk %u: %llu KiB, blocks of %u, latency %llu ns", i,
		       (unsigned long long)c->disk[i].size_bytes >> 10, c->disk[i].block_bytes,
		       (unsigned long long)c->disk[i].latency_ns);
		for (enum sim_fault f = 0; f < FAULT_COUNT; f++) {
			if (c->disk[i].fault_per_mille[f])
				printf(", %s %u/1000", sim_fault_name(f), c->disk[i].fault_per_mille[f]);
		}
		if (c->within && i == c->bad_disk)
			printf(", bad: absent %u/1000, dead %u/1000", c->absent_per_mille, c->dead_per_mille);
		if (c->disk[i].slow_factor > 1)
			printf(", slow %u", c->disk[i].slow_factor);
		putchar('\n');
	}
}
