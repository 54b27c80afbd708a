/* Oracle of exact counts: what the disks say of each other must agree. The offline check (tools/check/check.h) says whether it does,
 * from the simulated disks' pages, as it would from the disks of a machine that was switched off at this moment.
 *
 * A checkpoint is made in one transaction, so this holds at any moment, whatever crash came before; only lasting damage
 * excuses. Nothing waits here, so that nothing moves meanwhile.
 *
 * What is in no segment, nor about to be, is nobody's: audit_poison overwrites it, so that whoever still needs it is found out. Every other
 * zone is left as it is, as old content is a trap too. */
#include <stdio.h>
#include <string.h>

#include "tools/check/check.h"
#include "pool/catalog_int.h"
#include "pool/pool_int.h"
#include "tests/sim/trace.h"
#include "tests/sim/world.h"


static struct sim_disk *sim_disk_of(struct world *w, const struct pool_disk *disk)
{
	return &w->disk[disk->disk->uri[4] - '0'];
}

/* ---- the check ---- */

static int read_pages(void *arg, uint64_t off_bytes, void *buf, uint32_t len_bytes)
{
	const struct sim_disk *disk = arg;

	for (uint32_t at = 0; at < len_bytes; at += PAGE_BYTES) {
		const struct page *page = page_map_get(&disk->map, (uint32_t)((off_bytes + at) / PAGE_BYTES));

		if (page)
			memcpy((uint8_t *)buf + at, page->data, PAGE_BYTES);
		else
			memset((uint8_t *)buf + at, 0, PAGE_BYTES);
	}
	return 0;
}

static void on_problem(void *arg, const char *where, const char *what)
{
	sim_fail("audit: %s: %s", where, what);
}

/* The disks that the pool uses. */
static uint32_t disks_of(struct world *w, struct check_disk disks[SIM_DISKS_MAX])
{
	uint32_t count = 0;

	for (uint32_t id = 0; id < w->pool->disk_count; id++) {
		const struct pool_disk *disk = w->pool->disks[id];

		if (disk->disk)
			disks[count++] = (struct check_disk){ disk->disk->uri, (uint64_t)sim_disk_of(w, disk)->map.pages * PAGE_BYTES,
							      read_pages, sim_disk_of(w, disk) };
	}
	return count;
}

bool audit_pool(struct world *w)
{
	/* A flush that failed may have cost blocks that nobody has met since. */
	bool all = world_faults_ever(w, FAULT_FLUSH_EIO) == 0;
	struct check_opts opts = { .headers = all, .partial = true, .data = all, .problem = on_problem };
	struct check_disk disks[SIM_DISKS_MAX];
	struct check_counts counts;

	if (w->config.within)
		return true; /* what the bad disk holds is to be reconstructed: the check does not do that */
	if (check_pool(disks, disks_of(w, disks), &opts, &counts) != 0)
		sim_fail("audit: the check came to no end");
	return !sim_failed();
}

/* ---- zones ---- */

static void poison_zone(struct sim_disk *disk, const struct label *label, uint32_t zone)
{
	static struct page *poison;
	uint32_t first = (uint32_t)((label->zones_off + (uint64_t)zone * label->zone_bytes) / PAGE_BYTES);

	if (!poison) {
		poison = page_new();
		memset(poison->data, 0xa5, PAGE_BYTES);
	}
	for (uint32_t at = first; at < first + label->zone_bytes / PAGE_BYTES; at++) {
		struct page *page = page_map_get(&disk->map, at);

		if (!page || page == poison)
			continue;
		page_ref(poison);
		page_map_set(&disk->map, at, poison);
	}
}

void audit_poison(struct world *w)
{
	/* After a commit that failed nobody knows what is in a segment. */
	if (pool_catalog(w->pool)->broken)
		return;
	for (uint32_t id = 0; id < w->pool->disk_count; id++) {
		const struct pool_disk *disk = w->pool->disks[id];

		if (!disk->disk)
			continue;
		for (uint32_t zone = w->life % 2; zone < disk->label.zone_count; zone += 2) {
			if (!zones_is_taken(&w->pool->zones, (struct zone_addr){ id, zone }))
				poison_zone(sim_disk_of(w, disk), &disk->label, zone);
		}
	}
}
