/* Memory of the engine. All engine code (pool/, volumes/, snapshots/) allocates here and nowhere else, so that the
 * simulator can drop a crashed engine whole and fail the Nth allocation. Never called per I/O on the hot path.
 * Any thread. NULL means no memory; callers answer -ENOMEM. Asking for 0 bytes is answered like asking for 1. */
#ifndef POOL_BASE_MEM_H
#define POOL_BASE_MEM_H

#include <stdbool.h>
#include <stddef.h>

#define MEM_PAGE_BYTES 4096

struct mem_ops {
	void *(*alloc)(size_t align_bytes, size_t size_bytes); /* Required. align is a power of two. */
	void (*free)(void *ptr);                               /* Required. NULL is allowed. */
	/* Optional. Makes whole pages inaccessible, or normal again. A hint: without it nothing is guarded. */
	void (*guard)(void *pages, size_t size_bytes, bool on);
};

void *mem_alloc(size_t size_bytes) __attribute__((malloc, warn_unused_result));
void *mem_zalloc(size_t size_bytes) __attribute__((malloc, warn_unused_result));
void *mem_alloc_aligned(size_t align_bytes, size_t size_bytes) __attribute__((malloc, warn_unused_result));
char *mem_strdup(const char *str) __attribute__((malloc, warn_unused_result));
void mem_free(void *ptr);

/* Turns a guard over part of an allocation on or off. Both arguments are multiples of MEM_PAGE_BYTES. To be turned off
 * before mem_free. */
void mem_guard(void *pages, size_t size_bytes, bool on);

/* Replaces the allocator of the process (tests only; before any engine object exists). NULL restores malloc. */
void mem_set_ops(const struct mem_ops *ops);

#endif
