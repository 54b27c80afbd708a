/* The overlay keeps non-overlapping items in an ordered map. A put first cuts away what it covers:
 *
 *     hole   [-------------------)          put_block      [------)B[----------)
 *     blocks  B  B BB   B                   put_hole       [-------------------)
 */
#include "volumes/overlay.h"

#include <errno.h>

void overlay_init(struct overlay *ov)
{
	omap_init(&ov->items, sizeof(struct mapping));
	ov->holes = 0;
}

void overlay_clear(struct overlay *ov)
{
	omap_clear(&ov->items, OVERLAY_KEEP_BYTES);
	ov->holes = 0;
}

void overlay_release(struct overlay *ov)
{
	omap_destroy(&ov->items);
	ov->holes = 0;
}

static int put_hole_item(struct overlay *ov, uint64_t lba, uint64_t count)
{
	struct mapping m = { .segno = SEGNO_NONE, .index = (uint32_t)count, .crc = (uint32_t)(count >> 32) };
	int rc;

	if (count == 0)
		return 0;
	rc = omap_put(&ov->items, lba, &m);
	if (rc == 0)
		ov->holes++;
	return rc;
}

static void del_item(struct overlay *ov, uint64_t lba, bool hole)
{
	omap_del(&ov->items, lba);
	if (hole)
		ov->holes--;
}

/* Cuts [lba, lba+count) out of the hole that begins before lba and reaches into the range, if there is one. */
static int cut_hole_before(struct overlay *ov, uint64_t lba, uint64_t count)
{
	struct omap_iter it;
	uint64_t start, end;
	int rc;

	if (lba == 0 || !omap_seek_floor(&ov->items, lba - 1, &it))
		return 0;
	const struct mapping *m = omap_value(&it);

	start = omap_key(&it);
	end = start + mapping_count(m);
	if (!mapping_is_hole(m) || end <= lba)
		return 0;
	if (end > lba + count) {
		rc = put_hole_item(ov, lba + count, end - lba - count);
		if (rc < 0)
			return rc;
	}
	ov->holes--;                     /* replaced in place by the shorter one */
	return put_hole_item(ov, start, lba - start);
}

/* Removes every item that begins in [lba, lba+count); what a last hole has beyond the end stays. */
static int remove_range(struct overlay *ov, uint64_t lba, uint64_t count)
{
	struct omap_iter it;

	while (omap_seek(&ov->items, lba, &it) && omap_key(&it) < lba + count) {
		uint64_t start = omap_key(&it);
		const struct mapping *m = omap_value(&it);
		bool hole = mapping_is_hole(m);
		uint64_t end = start + mapping_count(m);

		if (end > lba + count) {
			int rc = put_hole_item(ov, lba + count, end - lba - count);

			if (rc < 0)
				return rc;
		}
		del_item(ov, start, hole);
	}
	return 0;
}

int overlay_put_block(struct overlay *ov, uint64_t lba, const struct mapping *m)
{
	if (ov->holes > 0) {
		int rc = cut_hole_before(ov, lba, 1);

		if (rc == 0)
			rc = remove_range(ov, lba, 1);
		if (rc < 0)
			return rc;
	}
	return omap_put(&ov->items, lba, m);
}

int overlay_put_hole(struct overlay *ov, uint64_t lba, uint64_t count)
{
	int rc = cut_hole_before(ov, lba, count);

	if (rc == 0)
		rc = remove_range(ov, lba, count);
	return rc < 0 ? rc : put_hole_item(ov, lba, count);
}

/* Fills res for the part of one item that lies in the range; returns how many it filled. */
static uint32_t fill_from_item(uint64_t start, const struct mapping *m, uint64_t lba, uint32_t n, struct mapping *res)
{
	uint64_t end = start + mapping_count(m);
	uint64_t from = start > lba ? start : lba;
	uint64_t to = end < lba + n ? end : lba + n;
	uint32_t filled = 0;

	for (uint64_t at = from; at < to; at++) {
		if (res[at - lba].segno != SEGNO_UNKNOWN)
			continue;
		res[at - lba] = *m;
		filled++;
	}
	return filled;
}

uint32_t overlay_lookup(const struct overlay *ov, uint64_t lba, uint32_t n, struct mapping *res)
{
	struct omap_iter it;
	uint32_t unknown = 0;
	bool more;

	for (uint32_t i = 0; i < n; i++)
		unknown += res[i].segno == SEGNO_UNKNOWN;
	more = omap_seek_floor(&ov->items, lba, &it) || (n > 1 && omap_seek(&ov->items, lba, &it));
	while (more && unknown > 0 && omap_key(&it) < lba + n) {
		unknown -= fill_from_item(omap_key(&it), omap_value(&it), lba, n, res);
		more = n > 1 && omap_next(&it);
	}
	return unknown;
}
