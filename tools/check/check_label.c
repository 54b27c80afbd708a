/* Labels: which disk is which. See pool/label_format.h for the bytes. */
#include <stdlib.h>
#include <string.h>

#include "tools/check/check_int.h"

#define COPIES 4u
#define KIB 1024ull

static uint64_t copy_off(const struct check_disk *disk, uint32_t copy)
{
	uint64_t end = disk->size_bytes / BLOCK * BLOCK;

	return copy < 2 ? (copy + 1) * 64 * KIB : end - (4 - copy) * 64 * KIB;
}

/* In order, without overlap: the halves and the zones. */
static bool layout_is_right(const struct member *m, uint64_t size_bytes)
{
	uint64_t at = 256 * KIB, zones_end;

	for (int half = 0; half < 2; half++) {
		const struct area *areas[2] = { &m->checkpoint[half], &m->journal[half] };

		for (int i = 0; i < 2; i++) {
			if (areas[i]->off_bytes < at || areas[i]->off_bytes % BLOCK || areas[i]->len_bytes % BLOCK ||
			    areas[i]->len_bytes < BLOCK || areas[i]->len_bytes > 1ull << 30 ||
			    __builtin_add_overflow(areas[i]->off_bytes, areas[i]->len_bytes, &at))
				return false;
		}
	}
	if (m->zone_bytes < 2u << 20 || m->zone_bytes > 1u << 30 || (m->zone_bytes & (m->zone_bytes - 1)) ||
	    m->zone_count == 0)
		return false;
	return m->zones_off >= at && m->disk_bytes <= size_bytes &&
	       !__builtin_add_overflow(m->zones_off, (uint64_t)m->zone_count * m->zone_bytes, &zones_end) &&
	       zones_end <= m->disk_bytes;
}

static bool label_parse(const uint8_t *b, uint32_t copy, const struct check_disk *disk, struct member *m)
{
	if (memcmp(b, "pooldLBL", 8) != 0 || get(b + 8, 4) != 1 || !crc_is_right(b, BLOCK, 12))
		return false;
	if (get(b + 24, 8) || get(b + 32, 8) || get(b + 40, 4) != copy || get(b + 44, 4) >= CHECK_DISKS_MAX)
		return false;
	*m = (struct member){
		.disk = disk,
		.id = (uint32_t)get(b + 44, 4),
		.generation = get(b + 80, 8),
		.zone_bytes = (uint32_t)get(b + 92, 4),
		.disk_bytes = get(b + 96, 8),
		.zones_off = get(b + 104, 8),
		.zone_count = (uint32_t)get(b + 112, 4),
	};
	memcpy(m->pool_uuid, b + 48, UUID_BYTES);
	for (uint32_t half = 0; half < 2; half++) {
		const uint8_t *at = b + 120 + 32 * half;

		m->checkpoint[half] = (struct area){ get(at, 8), get(at + 8, 8) };
		m->journal[half] = (struct area){ get(at + 16, 8), get(at + 24, 8) };
	}
	return layout_is_right(m, disk->size_bytes);
}

/* The newest valid copy. */
static bool label_read(const struct check_disk *disk, struct member *out)
{
	uint8_t block[BLOCK];
	bool found = false;

	if (disk->size_bytes < 1024 * KIB)
		return false;
	for (uint32_t copy = 0; copy < COPIES; copy++) {
		struct member m;

		if (disk->read(disk->arg, copy_off(disk, copy), block, BLOCK) != 0 ||
		    !label_parse(block, copy, disk, &m))
			continue;
		if (!found || m.generation > out->generation)
			*out = m;
		found = true;
	}
	return found;
}

static bool member_add(struct check *c, const struct member *m)
{
	if (c->member[m->id].disk)
		return problem(c, "two disks have the same number", "disk %s", m->disk->name);
	if (c->pool_uuid && memcmp(c->pool_uuid, m->pool_uuid, UUID_BYTES) != 0)
		return problem(c, "it belongs to another pool", "disk %s", m->disk->name);
	if (c->pool_uuid && c->zone_bytes != m->zone_bytes)
		return problem(c, "its zones are of another size", "disk %s", m->disk->name);
	c->member[m->id] = *m;
	c->pool_uuid = c->member[m->id].pool_uuid;
	c->zone_bytes = m->zone_bytes;
	c->zone_taken[m->id] = check_alloc(c, m->zone_count / 8 + 1, 1);
	return !c->error;
}

bool labels_read(struct check *c, const struct check_disk *disks, uint32_t count)
{
	bool found = false;

	for (uint32_t i = 0; i < count; i++) {
		struct member m;

		if (!label_read(&disks[i], &m))
			problem(c, "it has no valid label", "disk %s", disks[i].name);
		else
			found |= member_add(c, &m);
	}
	return found && !c->error;
}
