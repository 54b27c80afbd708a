/* Free zones: bitmaps, the choice of disks, and the reserve.
 *
 * A grant takes the disks with the most free zones; among equals the turn goes round, so that segments spread. On a disk
 * the search goes on where it last stopped: a freed zone is used again as late as possible.
 *
 * The reserve keeps the catalog, maps and cleaners alive in a pool that is full of data (P7): 8 of the widest segments or
 * zones / 32, whichever is more, but no more than a quarter of the pool, shared out to the disks by size and rounded up. It is
 * held per disk and not in the sum because a segment of several columns needs zones on different disks.
 *
 * Always holds: disks[i].free is the number of clear bits below count; zones.free, count and reserve are the sums over
 * the disks in use. */
#include "pool/zones.h"

#include <assert.h>
#include <errno.h>
#include <string.h>

#include "pool/base/mem.h"

#define WORD_BITS 64u
#define RESERVE_SEGMENTS 8u
#define RESERVE_SHARE 32u /* 1/32 of the pool: a checkpoint writes up to 1/80 anew, and hosts need room */

static uint32_t word_count(uint32_t zones)
{
	return (zones + WORD_BITS - 1) / WORD_BITS;
}

static bool bit_get(const uint64_t *bits, uint32_t i)
{
	return bits[i / WORD_BITS] >> i % WORD_BITS & 1;
}

void zones_init(struct zones *zones)
{
	memset(zones, 0, sizeof(*zones));
	zones->widest = 1;
}

void zones_release(struct zones *zones)
{
	for (uint32_t i = 0; i < POOL_DISKS_MAX; i++)
		mem_free(zones->disks[i].taken);
	zones_init(zones);
}

static uint64_t at_least(uint64_t value, uint64_t least)
{
	return value > least ? value : least;
}

static void note_low(struct zones *zones)
{
	uint64_t low = at_least(zones->count / ZONES_LOW_SHARE, ZONES_LOW_SEGMENTS * zones->widest);

	if (low > zones->count / ZONES_LOW_SHARE_MAX)
		low = at_least(zones->count / ZONES_LOW_SHARE_MAX, 1);
	if (zones->free < zones->reserve + low)
		zones->wanted = zones->reserve + 2 * low - zones->free;
	else
		zones->wanted = zones->refused ? low : 0;
}

/* Shares the reserve out again: the number of zones has changed. */
static void set_reserve(struct zones *zones)
{
	uint64_t want = at_least(zones->count / RESERVE_SHARE, RESERVE_SEGMENTS * zones->widest);

	if (want > zones->count / 4)
		want = zones->count / 4;
	zones->reserve = 0;
	for (uint32_t i = 0; i < POOL_DISKS_MAX; i++) {
		struct zone_disk *zd = &zones->disks[i];

		if (!zd->in_use)
			continue;
		zd->reserve = (uint32_t)((want * zd->count + zones->count - 1) / zones->count);
		zones->reserve += zd->reserve;
	}
}

void zones_use_policy(struct zones *zones, struct policy policy)
{
	uint32_t cols = policy.k + policy.m;

	if (cols <= zones->widest)
		return;
	zones->widest = cols;
	set_reserve(zones);
	note_low(zones);
}

uint64_t *zones_bitmap_new(uint32_t count)
{
	uint32_t words = word_count(count);
	uint64_t *bitmap = mem_zalloc(words * sizeof(*bitmap));

	assert(count > 0);
	if (bitmap && count % WORD_BITS)
		bitmap[words - 1] = ~0ull << count % WORD_BITS;
	return bitmap;
}

void zones_add_disk(struct zones *zones, uint32_t disk_id, uint32_t count, uint64_t *bitmap)
{
	struct zone_disk *zd = &zones->disks[disk_id];

	assert(disk_id < POOL_DISKS_MAX && !zd->present);
	*zd = (struct zone_disk){ .present = true, .count = count, .free = count, .taken = bitmap };
	zones_set_in_use(zones, disk_id, true);
}

void zones_set_in_use(struct zones *zones, uint32_t disk_id, bool in_use)
{
	struct zone_disk *zd = &zones->disks[disk_id];

	assert(zd->present);
	if (zd->in_use == in_use)
		return;
	zd->in_use = in_use;
	zones->count += in_use ? zd->count : -(uint64_t)zd->count;
	zones->free += in_use ? zd->free : -(uint64_t)zd->free;
	zones->refused &= !in_use;
	set_reserve(zones);
	note_low(zones);
}

void zones_remove_disk(struct zones *zones, uint32_t disk_id)
{
	struct zone_disk *zd = &zones->disks[disk_id];

	zones_set_in_use(zones, disk_id, false);
	assert(zd->free == zd->count);
	mem_free(zd->taken);
	*zd = (struct zone_disk){ 0 };
}

uint32_t zones_disks_in_use(const struct zones *zones)
{
	uint32_t n = 0;

	for (uint32_t i = 0; i < POOL_DISKS_MAX; i++)
		n += zones->disks[i].in_use;
	return n;
}

uint64_t zones_segments(const struct zones *zones, struct policy policy)
{
	uint32_t cols = policy.k + policy.m, in_use = zones_disks_in_use(zones), with = cols < in_use ? cols : in_use;
	uint64_t segments = with < policy.k ? 0 : UINT64_MAX, before;

	do {                             /* no more than once on each disk */
		uint64_t usable = 0;

		before = segments;
		for (uint32_t i = 0; i < POOL_DISKS_MAX; i++) {
			const struct zone_disk *zd = &zones->disks[i];

			if (zd->in_use)
				usable += zd->free < before ? zd->free : before;
		}
		segments = segments == 0 ? 0 : usable / with;
	} while (segments < before);
	return segments;
}

/* --- choice of disks ---------------------------------------------------------------------------------------------- */

static bool disk_has_room(const struct zone_disk *zd, enum grant_class class)
{
	return zd->in_use && zd->free > (class == GRANT_DATA ? zd->reserve : 0);
}

static bool is_chosen(const struct zone_addr *out, uint32_t chosen, uint32_t disk_id)
{
	for (uint32_t c = 0; c < chosen; c++)
		if (out[c].disk_id == disk_id)
			return true;
	return false;
}

/* The disk with the most free zones that is not chosen yet, looking round from next_disk; POOL_DISKS_MAX if none. */
static uint32_t choose_disk(const struct zones *zones, enum grant_class class, uint32_t avoid_disk,
			    const struct zone_addr *out, uint32_t chosen)
{
	uint32_t best = POOL_DISKS_MAX;

	for (uint32_t i = 0; i < POOL_DISKS_MAX; i++) {
		uint32_t id = (zones->next_disk + i) % POOL_DISKS_MAX;

		if (id == avoid_disk || !disk_has_room(&zones->disks[id], class) || is_chosen(out, chosen, id))
			continue;
		if (best == POOL_DISKS_MAX || zones->disks[id].free > zones->disks[best].free)
			best = id;
	}
	return best;
}

/* --- zones of a disk ------------------------------------------------------------------------------------------------ */

/* First clear bit at or after `from`, looking round. There is one. */
static uint32_t find_clear(const struct zone_disk *zd, uint32_t from)
{
	uint32_t words = word_count(zd->count), w = from / WORD_BITS;
	uint64_t clear = ~zd->taken[w] & ~0ull << from % WORD_BITS;

	for (uint32_t i = 0; i < words && !clear; i++) {
		w = (w + 1) % words;
		clear = ~zd->taken[w];
	}
	assert(clear);
	return w * WORD_BITS + (uint32_t)__builtin_ctzll(clear);
}

static void mark_taken(struct zones *zones, struct zone_addr at)
{
	struct zone_disk *zd = &zones->disks[at.disk_id];

	zd->taken[at.zone / WORD_BITS] |= 1ull << at.zone % WORD_BITS;
	zd->free--;
	zones->free -= zd->in_use;
	note_low(zones);
}

static uint32_t take_on_disk(struct zones *zones, uint32_t disk_id)
{
	struct zone_disk *zd = &zones->disks[disk_id];
	uint32_t zone = find_clear(zd, zd->cursor);

	zd->cursor = (zone + 1) % zd->count;
	mark_taken(zones, (struct zone_addr){ disk_id, zone });
	return zone;
}

/* Chooses a disk for each of the first `cols` columns. */
static bool choose_disks(const struct zones *zones, uint32_t cols, enum grant_class class, uint32_t avoid_disk,
			 struct zone_addr *out)
{
	for (uint32_t c = 0; c < cols; c++) {
		uint32_t id = choose_disk(zones, class, avoid_disk, out, c);

		if (id == POOL_DISKS_MAX && avoid_disk != UINT32_MAX)
			id = choose_disk(zones, class, UINT32_MAX, out, c);
		if (id == POOL_DISKS_MAX)
			return false;
		out[c].disk_id = id;
	}
	return true;
}

int zones_take(struct zones *zones, struct policy policy, enum grant_class class, uint32_t avoid_disk,
	       struct zone_addr *out)
{
	uint32_t cols = policy.k + policy.m, in_use = zones_disks_in_use(zones), with = cols < in_use ? cols : in_use;

	assert(cols > 0 && cols <= SEGMENT_COLS_MAX);
	if (with < policy.k)
		return -EIO;
	zones_use_policy(zones, policy);
	if (!choose_disks(zones, with, class, avoid_disk, out)) {
		zones->refused = true;
		note_low(zones);
		return -ENOSPC;
	}
	for (uint32_t c = 0; c < with; c++)
		out[c].zone = take_on_disk(zones, out[c].disk_id);
	for (uint32_t c = with; c < cols; c++)
		out[c] = (struct zone_addr){ DISK_NONE, UINT32_MAX };
	zones->next_disk = (out[0].disk_id + 1) % POOL_DISKS_MAX;
	return 0;
}

bool zones_have_another(const struct zones *zones, const struct zone_addr *have, uint32_t cols)
{
	return choose_disk(zones, GRANT_DATA, UINT32_MAX, have, cols) != POOL_DISKS_MAX;
}

bool zones_take_another(struct zones *zones, const struct zone_addr *have, uint32_t cols, struct zone_addr *out)
{
	uint32_t id = choose_disk(zones, GRANT_DATA, UINT32_MAX, have, cols);

	if (id == POOL_DISKS_MAX)
		return false;
	*out = (struct zone_addr){ id, take_on_disk(zones, id) };
	return true;
}

bool zones_is_taken(const struct zones *zones, struct zone_addr at)
{
	const struct zone_disk *zd = &zones->disks[at.disk_id % POOL_DISKS_MAX];

	return at.disk_id < POOL_DISKS_MAX && zd->present && at.zone < zd->count && bit_get(zd->taken, at.zone);
}

bool zones_take_at(struct zones *zones, struct zone_addr at)
{
	const struct zone_disk *zd = &zones->disks[at.disk_id % POOL_DISKS_MAX];

	if (at.disk_id >= POOL_DISKS_MAX || !zd->present || at.zone >= zd->count || bit_get(zd->taken, at.zone))
		return false;
	mark_taken(zones, at);
	return true;
}

void zones_give_back(struct zones *zones, const struct zone_addr *addrs, uint32_t cols)
{
	for (uint32_t c = 0; c < cols; c++) {
		struct zone_disk *zd;

		if (addrs[c].disk_id == DISK_NONE)
			continue;
		assert(zones_is_taken(zones, addrs[c]));
		zd = &zones->disks[addrs[c].disk_id];
		zd->taken[addrs[c].zone / WORD_BITS] &= ~(1ull << addrs[c].zone % WORD_BITS);
		zd->free++;
		zones->free += zd->in_use;
		zones->refused = false;
		note_low(zones);
	}
}
