/* Write records: what one write puts in the place of what. See sim_disk.h. */
#include <stdlib.h>
#include <string.h>

#include "tests/sim/sim_disk.h"

#define SECTOR 512u

struct write_record *record_new(struct sim_disk *disk, uint32_t at, uint32_t count)
{
	struct write_record *record = calloc(1, sizeof(*record) + 2 * (size_t)count * sizeof(struct page *));

	if (!record)
		abort();
	list_init(&record->node);
	record->disk = disk;
	record->refs = 1;
	record->at = at;
	record->count = count;
	return record;
}

struct write_record *record_ref(struct write_record *record)
{
	record->refs++;
	return record;
}

void record_unref(struct write_record *record)
{
	if (--record->refs > 0)
		return;
	for (uint32_t i = 0; i < 2 * record->count; i++)
		page_unref(record->page[i]);
	free(record);
}

struct write_record *record_clone(const struct write_record *record)
{
	struct write_record *clone = record_new(record->disk, record->at, record->count);

	for (uint32_t i = 0; i < record->count; i++) {
		page_ref(record->page[i]);
		clone->page[i] = record->page[i];
	}
	return clone;
}

/* ---- tearing ---- */

static void garble(uint8_t *sector, struct rng *rng)
{
	uint64_t word = rng_next(rng);

	for (uint32_t i = 0; i < SECTOR; i += sizeof(word), word = word * 6364136223846793005ull + 1)
		memcpy(sector + i, &word, sizeof(word));
}

/* One page: sectors whose bit is not set in `written` stay as they were, or become garbage. */
static void tear_page(struct write_record *record, uint32_t i, uint32_t written, bool garbage, struct rng *rng)
{
	const struct page *old = page_map_get(&record->disk->map, record->at + i);
	struct page *torn = page_copy(record->page[i]);

	for (uint32_t s = 0; s < PAGE_SECTORS; s++) {
		uint8_t *sector = torn->data + s * SECTOR;

		if (written & 1u << s)
			continue;
		if (garbage)
			garble(sector, rng);
		else if (old)
			memcpy(sector, old->data + s * SECTOR, SECTOR);
		else
			memset(sector, 0, SECTOR);
	}
	page_unref(record->page[i]);
	record->page[i] = torn;
}

/* Ways to tear: cut at a sector; each page lost or not; one sector lost; each sector lost or not. */
void record_tear(struct write_record *record, struct rng *rng)
{
	bool garbage = rng_per_mille(rng, 250);
	uint32_t way = (uint32_t)rng_below(rng, 4);
	uint32_t cut = (uint32_t)rng_below(rng, (uint64_t)record->count * PAGE_SECTORS);

	for (uint32_t i = 0; i < record->count; i++) {
		uint32_t first = i * PAGE_SECTORS, written = 0xff;

		if (way == 0)
			written = cut >= first + PAGE_SECTORS ? 0xff : cut <= first ? 0 : (1u << (cut - first)) - 1;
		else if (way == 1)
			written = rng_per_mille(rng, 500) ? 0xff : 0;
		else if (way == 2)
			written = cut >= first && cut < first + PAGE_SECTORS ? ~(1u << (cut - first)) & 0xff : 0xff;
		else
			written = (uint32_t)rng_below(rng, 256);
		if (written != 0xff)
			tear_page(record, i, written, garbage, rng);
	}
}

/* ---- to and from the map ---- */

void record_to_platter(const struct write_record *record)
{
	for (uint32_t i = 0; i < record->count; i++) {
		page_ref(record->page[i]);
		page_map_set(&record->disk->map, record->at + i, record->page[i]);
	}
}

void record_to_cache(struct write_record *record)
{
	for (uint32_t i = 0; i < record->count; i++) {
		struct page *old = page_map_get(&record->disk->map, record->at + i);

		page_ref(old);
		record->page[record->count + i] = old;
	}
	record_to_platter(record);
	record->done_tick = env_tick();
	list_push_back(&record->disk->cache, &record->node);
}

void record_revert(const struct write_record *record)
{
	for (uint32_t i = 0; i < record->count; i++) {
		struct page *old = record->page[record->count + i];

		page_ref(old);
		page_map_set(&record->disk->map, record->at + i, old);
	}
}
