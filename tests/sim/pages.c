/* Pages, maps and the undo log. See pages.h.
 *
 * A map has two levels: chunks of 256 page pointers, made on first use. */
#include "tests/sim/pages.h"

#include <stdlib.h>
#include <string.h>

#define CHUNK_PAGES 256u
#define SLAB_PAGES 256u

static struct page *free_pages;

static void *must(void *ptr)
{
	if (!ptr)
		abort();
	return ptr;
}

struct page *page_new(void)
{
	struct page *page;

	if (!free_pages) {
		struct page *slab = must(malloc(SLAB_PAGES * sizeof(*slab)));

		for (uint32_t i = 0; i < SLAB_PAGES; i++) {
			slab[i].next_free = free_pages;
			free_pages = &slab[i];
		}
	}
	page = free_pages;
	free_pages = page->next_free;
	page->refs = 1;
	return page;
}

struct page *page_copy(const struct page *from)
{
	struct page *page = page_new();

	if (from)
		memcpy(page->data, from->data, PAGE_BYTES);
	else
		memset(page->data, 0, PAGE_BYTES);
	return page;
}

void page_ref(struct page *page)
{
	if (page)
		page->refs++;
}

void page_unref(struct page *page)
{
	if (!page || --page->refs > 0)
		return;
	page->next_free = free_pages;
	free_pages = page;
}

/* ---- undo ---- */

struct undo_record {
	struct page_map *map;
	uint32_t at;
	struct page *old; /* owned */
};

static struct {
	bool open;
	struct undo_record *records;
	uint32_t count, cap;
} undo;

static void undo_note(struct page_map *map, uint32_t at, struct page *old)
{
	if (undo.count == undo.cap) {
		undo.cap = undo.cap ? undo.cap * 2 : 1024;
		undo.records = must(realloc(undo.records, undo.cap * sizeof(*undo.records)));
	}
	undo.records[undo.count++] = (struct undo_record){ map, at, old };
}

void pages_undo_begin(void)
{
	undo.open = true;
}

void pages_undo(void)
{
	undo.open = false;
	while (undo.count > 0) {
		struct undo_record *r = &undo.records[--undo.count];

		page_map_set(r->map, r->at, r->old);
	}
}

void pages_undo_forget(void)
{
	undo.open = false;
	while (undo.count > 0)
		page_unref(undo.records[--undo.count].old);
}

/* ---- maps ---- */

void page_map_init(struct page_map *map, uint32_t pages)
{
	map->pages = pages;
	map->chunk_count = (pages + CHUNK_PAGES - 1) / CHUNK_PAGES;
	map->chunks = must(calloc(map->chunk_count, sizeof(struct page **)));
}

void page_map_release(struct page_map *map)
{
	for (uint32_t c = 0; c < map->chunk_count; c++) {
		for (uint32_t i = 0; map->chunks[c] && i < CHUNK_PAGES; i++)
			page_unref(map->chunks[c][i]);
		free(map->chunks[c]);
	}
	free(map->chunks);
}

struct page *page_map_get(const struct page_map *map, uint32_t at)
{
	struct page **chunk = map->chunks[at / CHUNK_PAGES];

	return chunk ? chunk[at % CHUNK_PAGES] : NULL;
}

void page_map_set(struct page_map *map, uint32_t at, struct page *page)
{
	struct page ***chunk = &map->chunks[at / CHUNK_PAGES];
	struct page *old;

	if (!*chunk)
		*chunk = must(calloc(CHUNK_PAGES, sizeof(struct page *)));
	old = (*chunk)[at % CHUNK_PAGES];
	(*chunk)[at % CHUNK_PAGES] = page;
	if (undo.open)
		undo_note(map, at, old);
	else
		page_unref(old);
}
