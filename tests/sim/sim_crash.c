/* Crashes of disks. See sim_crash.h. */
#include "tests/sim/sim_crash.h"

#include <stdlib.h>
#include <string.h>

static void set_add(struct crash_set *set, struct write_record *record)
{
	if (set->count == set->cap) {
		set->cap = set->cap ? set->cap * 2 : 64;
		set->records = realloc(set->records, set->cap * sizeof(struct write_record *));
		if (!set->records)
			abort();
	}
	set->records[set->count++] = record;
}

/* The cache's records leave the map, the latest first, and enter the set, the oldest first. */
static void take_cache(struct crash_set *set, struct sim_disk *disk)
{
	struct list *node;

	for (node = disk->cache.prev; node != &disk->cache; node = node->prev)
		record_revert(list_entry(node, struct write_record, node));
	while ((node = list_pop_front(&disk->cache)))
		set_add(set, list_entry(node, struct write_record, node));
}

static void take_pending(struct crash_set *set, struct sim_disk *disk)
{
	struct list *node;

	while ((node = list_pop_front(&disk->pending))) {
		struct sim_io *sio = list_entry(node, struct sim_io, node);

		if (sio->record) {
			set_add(set, sio->record);
			sio->record = NULL;
		}
		sim_io_free(sio);
	}
	disk->attached = false;
}

void crash_take(struct crash_set *set, enum crash_kind kind, struct sim_disk *disks, uint32_t disk_count)
{
	*set = (struct crash_set){ .kind = kind };
	for (uint32_t i = 0; i < disk_count; i++) {
		if (kind == CRASH_POWER)
			take_cache(set, &disks[i]);
		take_pending(set, &disks[i]);
	}
}

void crash_set_release(struct crash_set *set)
{
	for (uint32_t i = 0; i < set->count; i++)
		record_unref(set->records[i]);
	free(set->records);
	*set = (struct crash_set){ 0 };
}

/* ---- outcomes ---- */

static void settle_one(const struct crash_set *set, uint32_t i, enum fate fate, struct rng *rng)
{
	struct write_record *record;

	if (fate == FATE_LOST)
		return;
	record = record_clone(set->records[i]);
	if (fate == FATE_TORN)
		record_tear(record, rng);
	if (set->kind == CRASH_KILL) {
		record_to_cache(record);
		return;
	}
	record_to_platter(record);
	record_unref(record);
}

static enum fate draw_fate(struct rng *rng, uint32_t keep_per_mille, uint32_t tear_per_mille)
{
	if (rng_per_mille(rng, tear_per_mille))
		return FATE_TORN;
	return rng_per_mille(rng, keep_per_mille) ? FATE_KEPT : FATE_LOST;
}

static void settle_random(const struct crash_set *set, struct rng *rng)
{
	static const uint32_t chances[] = { 50, 300, 500, 700, 900, 970 };
	uint32_t keep = chances[rng_below(rng, 6)];
	uint32_t tear = rng_per_mille(rng, 500) ? 0 : (uint32_t)rng_below(rng, 400);

	for (uint32_t i = 0; i < set->count; i++)
		settle_one(set, i, draw_fate(rng, keep, tear), rng);
}

static void settle_one_lost(const struct crash_set *set, struct rng *rng)
{
	uint64_t odd = rng_below(rng, set->count);
	enum fate fate = rng_per_mille(rng, 500) ? FATE_LOST : FATE_TORN;

	for (uint32_t i = 0; i < set->count; i++)
		settle_one(set, i, i == odd ? fate : FATE_KEPT, rng);
}

void crash_settle(const struct crash_set *set, enum settle_way way, uint64_t mask, struct rng *rng)
{
	if (set->count == 0 || way == SETTLE_LOSE_ALL)
		return;
	if (way == SETTLE_RANDOM) {
		settle_random(set, rng);
		return;
	}
	if (way == SETTLE_ONE_LOST) {
		settle_one_lost(set, rng);
		return;
	}
	for (uint32_t i = 0; i < set->count; i++)
		settle_one(set, i, way == SETTLE_KEEP_ALL || mask >> i & 1 ? FATE_KEPT : FATE_LOST, rng);
}

/* ---- trying several ---- */

void crash_save(struct crash_save *save, struct sim_disk *disks, uint32_t disk_count)
{
	uint32_t n = 0;

	for (uint32_t i = 0; i < disk_count; i++) {
		list_for_each(node, &disks[i].cache)
			n++;
	}
	save->count = 0;
	save->records = malloc((n + 1) * sizeof(struct write_record *));
	if (!save->records)
		abort();
	for (uint32_t i = 0; i < disk_count; i++) {
		list_for_each(node, &disks[i].cache)
			save->records[save->count++] = record_ref(list_entry(node, struct write_record, node));
	}
	pages_undo_begin();
}

static void forget_all(struct sim_disk *disk)
{
	struct list *node;

	while ((node = list_pop_front(&disk->pending)))
		sim_io_free(list_entry(node, struct sim_io, node));
	while ((node = list_pop_front(&disk->cache)))
		record_unref(list_entry(node, struct write_record, node));
	disk->attached = false;
}

void crash_restore(struct crash_save *save, struct sim_disk *disks, uint32_t disk_count)
{
	for (uint32_t i = 0; i < disk_count; i++)
		forget_all(&disks[i]);
	pages_undo();
	for (uint32_t i = 0; i < save->count; i++)
		list_push_back(&save->records[i]->disk->cache, &save->records[i]->node);
	free(save->records);
	save->records = NULL;
}
