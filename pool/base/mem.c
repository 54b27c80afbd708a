/* The engine's allocator: malloc, unless a test has put another one in its place. See mem.h.
 *
 * Under AddressSanitizer a guard is poisoned shadow instead of a protected page: LeakSanitizer reads live allocations
 * from end to end and must not fault on the way. */
#include "pool/base/mem.h"

#include <assert.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#ifdef __SANITIZE_ADDRESS__
#include <sanitizer/asan_interface.h>
#endif

static void *real_alloc(size_t align_bytes, size_t size_bytes)
{
	void *ptr;

	if (align_bytes <= _Alignof(max_align_t))
		return malloc(size_bytes);
	return posix_memalign(&ptr, align_bytes, size_bytes) ? NULL : ptr;
}

static void real_guard(void *pages, size_t size_bytes, bool on)
{
#ifdef __SANITIZE_ADDRESS__
	if (on)
		ASAN_POISON_MEMORY_REGION(pages, size_bytes);
	else
		ASAN_UNPOISON_MEMORY_REGION(pages, size_bytes);
#else
	/* Turning it on may fail when the process has no mappings left: then there is no guard, as a hint allows. Turning
	 * it off must not, or the memory could never be used again. */
	int ret = mprotect(pages, size_bytes, on ? PROT_NONE : PROT_READ | PROT_WRITE);

	assert(on || ret == 0);
#endif
}

static const struct mem_ops real_ops = {
	.alloc = real_alloc,
	.free = free,
	.guard = real_guard,
};

static const struct mem_ops *current_ops = &real_ops;

void mem_set_ops(const struct mem_ops *ops)
{
	current_ops = ops ? ops : &real_ops;
}

void *mem_alloc_aligned(size_t align_bytes, size_t size_bytes)
{
	assert(align_bytes > 0 && (align_bytes & (align_bytes - 1)) == 0);
	return current_ops->alloc(align_bytes, size_bytes > 0 ? size_bytes : 1);
}

void *mem_alloc(size_t size_bytes)
{
	return mem_alloc_aligned(_Alignof(max_align_t), size_bytes);
}

void *mem_zalloc(size_t size_bytes)
{
	void *ptr = mem_alloc(size_bytes);

	return ptr ? memset(ptr, 0, size_bytes) : NULL;
}

char *mem_strdup(const char *str)
{
	size_t size_bytes = strlen(str) + 1;
	char *copy = mem_alloc(size_bytes);

	return copy ? memcpy(copy, str, size_bytes) : NULL;
}

void mem_free(void *ptr)
{
	current_ops->free(ptr);
}

void mem_guard(void *pages, size_t size_bytes, bool on)
{
	assert((uintptr_t)pages % MEM_PAGE_BYTES == 0 && size_bytes % MEM_PAGE_BYTES == 0);
	if (current_ops->guard)
		current_ops->guard(pages, size_bytes, on);
}
