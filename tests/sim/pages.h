/* What simulated disks hold: 4 KiB pages counted by references, and maps from page number to page.
 *
 * A write puts new pages into a map, so the old ones can be kept as they are for a crash to return to: nothing is copied.
 * No page means zeroes. While an undo log is open, every change of every map is noted and can be taken back; logs do not
 * nest. Pages are recycled, never given back. */
#ifndef TESTS_SIM_PAGES_H
#define TESTS_SIM_PAGES_H

#include <stdbool.h>
#include <stdint.h>

#define PAGE_BYTES 4096u
#define PAGE_SECTORS 8u

struct page {
	uint32_t refs;
	struct page *next_free;
	uint8_t data[PAGE_BYTES];
};

struct page *page_new(void);                     /* content undefined, one reference */
struct page *page_copy(const struct page *from); /* of NULL: zeroes */
void page_ref(struct page *page);                /* NULL is allowed, here and below */
void page_unref(struct page *page);

struct page_map {
	struct page ***chunks;
	uint32_t pages, chunk_count;
};

void page_map_init(struct page_map *map, uint32_t pages);
void page_map_release(struct page_map *map);
struct page *page_map_get(const struct page_map *map, uint32_t at); /* borrowed */
/* Takes over the reference. */
void page_map_set(struct page_map *map, uint32_t at, struct page *page);

void pages_undo_begin(void);
/* Takes back all changes since pages_undo_begin and closes the log ... */
void pages_undo(void);
/* ... or keeps them. */
void pages_undo_forget(void);

#endif
