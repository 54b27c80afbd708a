/* Which parts of a range are mapped, or differ between two images: see volume_extents and volume_changes in volume.h.
 *
 * At each place the newest layer that knows of it decides: the overlays from the newest on, then the
 * tree. A layer tells how far what it says holds, and no layer is believed beyond the point where a newer one begins to
 * know something. So a hole is passed in one step, however large it is, and mapped blocks leaf by leaf.
 *
 * Between two steps the volume may change. Each step is true for the moment at which it was made. */
#include <errno.h>

#include "volumes/lineage.h"

/* Steps until others get a turn, and overlay items passed in one step. */
#define STEPS_A_TURN 64
#define ITEMS_A_STEP 256u

/* Blocks from a place on that are alike. */
struct run {
	bool mapped;
	uint64_t blocks;
};

/* What an overlay says of `lba`. False: nothing, up to run->blocks blocks on, at most `max`. */
static bool overlay_run(const struct overlay *ov, uint64_t lba, uint64_t max, struct run *run)
{
	struct omap_iter it;
	uint64_t end = lba;
	uint32_t items = 0;

	if (omap_seek_floor(&ov->items, lba, &it) && omap_key(&it) + mapping_count(omap_value(&it)) > lba) {
		run->mapped = !mapping_is_hole(omap_value(&it));
		do {
			end = omap_key(&it) + mapping_count(omap_value(&it));
		} while (end - lba < max && ++items < ITEMS_A_STEP && omap_next(&it) && omap_key(&it) == end &&
			 mapping_is_hole(omap_value(&it)) != run->mapped);
		run->blocks = end - lba < max ? end - lba : max;
		return true;
	}
	run->blocks = omap_seek(&ov->items, lba, &it) && omap_key(&it) - lba < max ? omap_key(&it) - lba : max;
	return false;
}

/* What is asked: how vol is mapped, or where it differs from `since`. */
struct question {
	struct volume_state *vol;
	const struct volume_state *since; /* NULL: the former */
};

/* A reader only for the step: segments with nodes of the tree we look at stay, and a checkpoint waits for readers. */
static int tree_run(const struct question *q, uint64_t lba, uint64_t max, struct run *run)
{
	struct lineage *lin = q->vol->lin;
	uint32_t slot = lin->reader_gen & 1;
	bool same;
	int rc;

	lin->readers[slot]++;
	if (q->since) {
		rc = map_same_run(q->vol, q->since, lba, max, &same, &run->blocks);
		run->mapped = !same;
	} else {
		rc = map_run(q->vol, lba, max, &run->mapped, &run->blocks);
	}
	if (--lin->readers[slot] == 0)
		waitq_wake_all(&lin->readers_gone);
	return rc;
}

static bool has_layer(const struct volume_state *vol, const struct layer *layer)
{
	for (uint32_t i = 0; i < vol->layers; i++) {
		if (vol->layer[i] == layer)
			return true;
	}
	return false;
}

/* What the layers of `vol` that `other` does not share say of lba; as overlay_run. */
static bool layers_run(const struct volume_state *vol, const struct volume_state *other, uint64_t lba, uint64_t max,
		       struct run *run)
{
	run->blocks = max;
	for (uint32_t i = vol->layers; i > 0; i--) {
		if (other && has_layer(other, vol->layer[i - 1]))
			continue;
		if (overlay_run(&vol->layer[i - 1]->changes, lba, run->blocks, run))
			return true;
	}
	return false;
}

/* One step: what holds for `lba`, and for how many blocks from there on, at most `max`, it surely does. */
static int step(const struct question *q, uint64_t lba, uint64_t max, struct run *run)
{
	bool found = layers_run(q->vol, q->since, lba, max, run);

	if (!found && q->since)
		found = layers_run(q->since, q->vol, lba, run->blocks, run);
	if (!found)
		return tree_run(q, lba, run->blocks, run);
	run->mapped |= q->since != NULL; /* whatever is newer has changed */
	return 0;
}

/* Adds to the last extent, or begins another; false: that would be one too many. */
static bool add(struct extent *out, uint32_t max, uint32_t *count, const struct run *run)
{
	if (*count > 0 && out[*count - 1].mapped == run->mapped) {
		out[*count - 1].len_bytes += run->blocks << BLOCK_SHIFT;
		return true;
	}
	if (*count == max)
		return false;
	out[(*count)++] = (struct extent){ .mapped = run->mapped, .len_bytes = run->blocks << BLOCK_SHIFT };
	return true;
}

static int walk(const struct question *q, uint64_t lba, uint64_t end, struct extent *out, uint32_t max, uint32_t *count)
{
	for (uint32_t steps = 1; lba < end; steps++) {
		struct run run;
		int rc = step(q, lba, end - lba, &run);

		if (rc < 0)
			return rc;
		if (!add(out, max, count, &run))
			return 0;
		lba += run.blocks;
		if (steps % STEPS_A_TURN == 0)
			fiber_yield();
	}
	return 0;
}

/* Takes off what whole blocks have more than the range asked for. */
static void trim(struct extent *out, uint32_t count, uint64_t head_bytes, uint64_t len_bytes)
{
	uint64_t left = len_bytes;

	if (count > 0)
		out[0].len_bytes -= head_bytes;
	for (uint32_t i = 0; i < count; i++) {
		if (out[i].len_bytes > left)
			out[i].len_bytes = left;
		left -= out[i].len_bytes;
	}
}

static int answer(const struct question *q, uint64_t off_bytes, uint64_t len_bytes, struct extent *out, uint32_t max,
		  uint32_t *count)
{
	uint64_t end = off_bytes + len_bytes;
	int rc;

	*count = 0;
	if (len_bytes == 0 || max == 0 || off_bytes > q->vol->size_bytes || len_bytes > q->vol->size_bytes - off_bytes)
		return -EINVAL;
	rc = walk(q, off_bytes >> BLOCK_SHIFT, (end + BLOCK_BYTES - 1) >> BLOCK_SHIFT, out, max, count);
	trim(out, *count, off_bytes % BLOCK_BYTES, len_bytes);
	return rc;
}

int volume_extents(struct volume *volume, uint64_t off_bytes, uint64_t len_bytes, struct extent *out, uint32_t max,
		   uint32_t *count)
{
	struct question q = { .vol = volume->state };

	return answer(&q, off_bytes, len_bytes, out, max, count);
}

int volume_changes(struct volume *volume, const struct volume *since, uint64_t off_bytes, uint64_t len_bytes,
		   struct extent *out, uint32_t max, uint32_t *count)
{
	struct question q = { .vol = volume->state, .since = since->state };

	*count = 0;
	if (q.vol->lin != q.since->lin)
		return -EXDEV;
	return answer(&q, off_bytes, len_bytes, out, max, count);
}
