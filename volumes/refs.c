/* Pages hang off the segments that they are about, so that a change costs two look-ups in arrays. */
#include "volumes/refs.h"

#include <errno.h>
#include <string.h>

#include "pool/base/mem.h"
#include "volumes/lineage.h"

#define WRITES_A_TURN 16u

struct ref_page {
	struct list node;
	struct lseg *lseg;
	uint32_t n;                      /* of the segment */
	bool dirty;
	le16 *count;                     /* [REFS_PER_PAGE], block-aligned */
};

static uint32_t pages_per_segment(const struct lineage *lin)
{
	return (lin->segment_blocks + REFS_PER_PAGE - 1) / REFS_PER_PAGE;
}

/* In memory: as much as a quarter of the map cache. */
static uint32_t pages_max(const struct lineage *lin)
{
	uint64_t pages = volumes_options(lin->vols)->map_cache_bytes / BLOCK_BYTES / 4;

	return pages < REF_PAGES_MIN ? REF_PAGES_MIN : pages > REF_PAGES_MAX ? REF_PAGES_MAX : (uint32_t)pages;
}

static uint64_t page_number(const struct lineage *lin, const struct lseg *lseg, uint32_t n)
{
	return (uint64_t)lseg->seg.segno * pages_per_segment(lin) + n;
}

int refs_init(struct lineage *lin)
{
	static const struct volume_format nameless = { .size_bytes = { 0 } };
	struct refs *refs = &lin->refs;

	list_init(&refs->pages);
	refs->written = layer_new();
	refs->map = volume_state_new(lin, 0, &nameless);
	if (refs->written && refs->map)
		return 0;
	refs_release(lin);
	return -ENOMEM;
}

static struct ref_page *page_new(struct lseg *lseg, uint32_t n)
{
	struct ref_page *page = mem_alloc(sizeof(*page));

	if (!page)
		return NULL;
	*page = (struct ref_page){ .lseg = lseg, .n = n, .count = mem_alloc_aligned(BLOCK_BYTES, BLOCK_BYTES) };
	if (page->count)
		return page;
	mem_free(page);
	return NULL;
}

static void page_free(struct ref_page *page)
{
	mem_free(page->count);
	mem_free(page);
}

static void drop_page(struct refs *refs, struct ref_page *page)
{
	page->lseg->ref_page[page->n] = NULL;
	list_del(&page->node);
	page_free(page);
	refs->page_count--;
}

static void drop_pages(struct refs *refs)
{
	while (!list_empty(&refs->pages))
		drop_page(refs, list_entry(refs->pages.next, struct ref_page, node));
}

void refs_release(struct lineage *lin)
{
	drop_pages(&lin->refs);
	if (lin->refs.written)
		layer_put(lin->refs.written);
	if (lin->refs.map)
		volume_state_free(lin->refs.map);
}

/* --- pages -------------------------------------------------------------------------------------------------- */

static bool all_zero(const struct ref_page *page)
{
	for (uint32_t i = 0; i < REFS_PER_PAGE; i++) {
		if (le16_get(page->count[i]) != 0)
			return false;
	}
	return true;
}

static int write_page(struct lineage *lin, struct ref_page *page)
{
	struct overlay *written = &lin->refs.written->changes;
	uint64_t number = page_number(lin, page->lseg, page->n);
	struct node_ptr at;
	struct mapping m;
	int rc;

	if (!page->dirty)
		return 0;
	page->dirty = false;
	if (all_zero(page))
		return overlay_put_hole(written, number, 1);
	rc = meta_append(lin, page->count, &at);
	m = (struct mapping){ .segno = at.segno, .index = at.index, .crc = at.crc };
	return rc < 0 ? rc : overlay_put_block(written, number, &m);
}

static int write_pages(struct lineage *lin)
{
	uint32_t written = 0;

	list_for_each(node, &lin->refs.pages) {
		int rc = write_page(lin, list_entry(node, struct ref_page, node));

		if (rc < 0)
			return rc;
		if (++written % WRITES_A_TURN == 0)
			fiber_yield();
	}
	return 0;
}

static int find_page(struct lineage *lin, uint64_t number, struct mapping *m)
{
	m->segno = SEGNO_UNKNOWN;
	if (overlay_lookup(&lin->refs.written->changes, number, 1, m) == 0)
		return 0;
	return map_lookup(lin->refs.map, number, 1, m, true);
}

static int read_page(struct lineage *lin, struct ref_page *page)
{
	struct mapping m;
	int rc = find_page(lin, page_number(lin, page->lseg, page->n), &m);

	if (rc == 0 && mapping_is_hole(&m))
		memset(page->count, 0, BLOCK_BYTES);
	else if (rc == 0)
		rc = meta_read(lin, &(struct node_ptr){ m.segno, m.index, m.crc }, page->count);
	return rc;
}

static int load_page(struct lineage *lin, struct lseg *lseg, uint32_t n, struct ref_page **out)
{
	struct refs *refs = &lin->refs;
	struct ref_page *page;
	int rc = 0;

	if (refs->page_count >= pages_max(lin)) {
		rc = write_pages(lin);
		drop_pages(refs);
	}
	page = rc == 0 ? page_new(lseg, n) : NULL;
	if (!page)
		return rc < 0 ? rc : -ENOMEM;
	rc = read_page(lin, page);
	if (rc < 0) {
		page_free(page);
		return rc;
	}
	lseg->ref_page[n] = page;
	list_push_back(&refs->pages, &page->node);
	refs->page_count++;
	*out = page;
	return 0;
}

/* The count of a block, in memory. */
static int find_count(struct lineage *lin, uint32_t segno, uint32_t index, struct ref_page **out)
{
	struct lseg *lseg = lseg_get(lin, segno);
	uint32_t n = index / REFS_PER_PAGE;

	if (!lseg || index >= lin->segment_blocks)
		return -EIO;
	if (!lseg->ref_page)
		lseg->ref_page = mem_zalloc(pages_per_segment(lin) * sizeof(struct ref_page *));
	if (!lseg->ref_page)
		return -ENOMEM;
	*out = lseg->ref_page[n];
	return *out ? 0 : load_page(lin, lseg, n, out);
}

/* --- counts --------------------------------------------------------------------------------------------------- */

/* Of the segment that names the block and, if it was moved, of the one that hosts it. */
static int change_live(struct lineage *lin, struct lseg *lseg, uint32_t index, int by)
{
	uint32_t segno = lseg->seg.segno;
	int rc = 0;

	if (by != 0 && lseg->moved)
		rc = places_locate(lin, &segno, &index, true);
	if (rc < 0)
		return rc;
	lseg->delta += by;
	if (lseg->moved)
		lseg_get(lin, segno)->delta += by;
	return 0;
}

int refs_change(struct lineage *lin, uint32_t segno, uint32_t index, int by, uint32_t *left)
{
	struct ref_page *page;
	uint32_t count;
	int rc = find_count(lin, segno, index, &page);

	if (rc < 0)
		return rc;
	count = le16_get(page->count[index % REFS_PER_PAGE]);
	if (by < 0 ? count == 0 : count == UINT16_MAX)
		return -EIO;
	rc = change_live(lin, page->lseg, index, by < 0 ? -(count == 1) : count == 0);
	if (rc < 0)
		return rc;
	count += (uint32_t)by;
	page->count[index % REFS_PER_PAGE] = le16_of((uint16_t)count);
	page->dirty = true;
	if (left)
		*left = count;
	return 0;
}

int refs_count(struct lineage *lin, uint32_t segno, uint32_t index, uint32_t *count)
{
	struct ref_page *page;
	int rc = find_count(lin, segno, index, &page);

	if (rc == 0)
		*count = le16_get(page->count[index % REFS_PER_PAGE]);
	return rc;
}

/* --- with the checkpoint ---------------------------------------------------------------------------------------- */

/* Notes the page or node for rewriting if it lies in a segment that the cleaner empties. */
static int evacuate_block(void *arg, uint64_t key, int level, const struct node_ptr *ptr)
{
	struct lineage *lin = arg;
	const struct lseg *lseg = lseg_get(lin, ptr->segno);
	uint32_t per_segment = pages_per_segment(lin);
	struct ref_page *page;
	int rc;

	if (!lseg || !lseg->cleaned)
		return 0;
	if (level >= 0)
		return layer_touch(lin->refs.written, key);
	rc = find_count(lin, (uint32_t)(key / per_segment), (uint32_t)(key % per_segment) * REFS_PER_PAGE, &page);
	if (rc == 0)
		page->dirty = true;
	return rc;
}

int refs_settle(struct lineage *lin)
{
	struct refs *refs = &lin->refs;
	int64_t pages;
	int rc = lin->cleaning_meta ? map_walk(refs->map, evacuate_block, lin) : 0;

	if (rc == 0)
		rc = write_pages(lin);

	refs->map->new_root = refs->map->root;
	if (rc == 0 && !layer_is_empty(refs->written))
		rc = map_merge(refs->map, refs->written, &refs->map->root, &refs->map->new_root, &pages);
	return rc;
}

static void forget_written(struct refs *refs)
{
	overlay_clear(&refs->written->changes);
	refs->written->touch.count = 0;
}

void refs_trim(struct lineage *lin)
{
	while (lin->refs.page_count > REF_PAGES_KEPT)
		drop_page(&lin->refs, list_entry(lin->refs.pages.next, struct ref_page, node));
}

void refs_forget(struct lineage *lin, struct lseg *lseg)
{
	for (uint32_t n = 0; lseg->ref_page && n < pages_per_segment(lin); n++) {
		if (lseg->ref_page[n])
			drop_page(&lin->refs, lseg->ref_page[n]);
	}
	mem_free(lseg->ref_page);
	lseg->ref_page = NULL;
}

void refs_install(struct lineage *lin)
{
	lin->refs.map->root = lin->refs.map->new_root;
	forget_written(&lin->refs);
	refs_trim(lin);
}

void refs_abandon(struct lineage *lin)
{
	drop_pages(&lin->refs);
	forget_written(&lin->refs);
}
