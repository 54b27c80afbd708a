/* Layers: what of an image's map is newer than its tree. See struct layer. */
#include "pool/base/mem.h"
#include "volumes/lineage.h"

struct layer *layer_new(void)
{
	struct layer *layer = mem_zalloc(sizeof(*layer));

	if (!layer)
		return NULL;
	layer->refs = 1;
	overlay_init(&layer->changes);
	return layer;
}

void layer_put(struct layer *layer)
{
	if (--layer->refs > 0)
		return;
	overlay_release(&layer->changes);
	mem_free(layer->touch.key);
	mem_free(layer);
}

bool layer_is_empty(const struct layer *layer)
{
	return layer->changes.items.count == 0 && layer->touch.count == 0;
}

void layer_push(struct volume_state *vol, struct layer *layer)
{
	vol->layer[vol->layers++] = layer;
}

void layers_share(struct volume_state *vol, const struct volume_state *from)
{
	for (uint32_t i = 0; i < from->layers; i++) {
		from->layer[i]->refs++;
		layer_push(vol, from->layer[i]);
	}
}

void layers_release(struct volume_state *vol)
{
	while (vol->layers > 0)
		layer_put(vol->layer[--vol->layers]);
}

/* Keeps a layer that nobody else has for the next freeze, with some of its memory: steady writes allocate nothing. */
static void layer_recycle(struct volume_state *vol, struct layer *layer)
{
	if (vol->spare || layer->refs > 1 || !volume_is_writable(vol)) {
		layer_put(layer);
		return;
	}
	overlay_clear(&layer->changes);
	layer->touch.count = 0;
	layer->group = 0;
	layer->merged = false;
	vol->spare = layer;
}

bool volume_is_settled(const struct volume_state *vol)
{
	for (uint32_t i = 0; i < vol->layers; i++) {
		if (!layer_is_empty(vol->layer[i]))
			return false;
	}
	return !vol->fresh && !vol->joined;
}

void layers_install(struct volume_state *vol)
{
	uint32_t merged = 0;

	while (merged < vol->layers && vol->layer[merged]->merged) {
		vol->root = vol->layer[merged]->root;
		vol->mapped_blocks = vol->layer[merged]->mapped_blocks;
		layer_recycle(vol, vol->layer[merged++]);
	}
	vol->layers -= merged;
	for (uint32_t i = 0; i < vol->layers; i++)
		vol->layer[i] = vol->layer[i + merged];
}

int volume_map_block(struct volume_state *vol, uint64_t lba, const struct mapping *m)
{
	struct overlay *ov = &layer_top(vol)->changes;
	uint64_t before = ov->items.count;
	int rc = overlay_put_block(ov, lba, m);

	vol->lin->changes += ov->items.count - before;
	return rc;
}

int volume_map_hole(struct volume_state *vol, uint64_t lba, uint64_t count)
{
	struct overlay *ov = &layer_top(vol)->changes;
	uint64_t before = ov->items.count;
	int rc = overlay_put_hole(ov, lba, count);

	vol->lin->changes += ov->items.count - before; /* may be fewer: modulo 2^64 */
	return rc;
}

int volume_lookup(struct volume_state *vol, uint64_t lba, uint32_t n, struct mapping *map, bool wait)
{
	for (uint32_t i = 0; i < n; i++)
		map[i].segno = SEGNO_UNKNOWN;
	for (uint32_t i = vol->layers; i > 0; i--) {
		if (overlay_lookup(&vol->layer[i - 1]->changes, lba, n, map) == 0)
			return 0;
	}
	return map_lookup(vol, lba, n, map, wait);
}
