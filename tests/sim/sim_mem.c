/* The engine's allocator under the simulator. See sim_mem.h.
 *
 *     | unused | struct piece | what the engine gets ... |
 *     ^ malloc                ^ aligned
 *
 * All pieces are on one list. */
#include "tests/sim/sim_mem.h"

#include <malloc.h>
#include <stdlib.h>
#include <string.h>

#include "pool/base/list.h"
#include "pool/base/mem.h"
#include "tests/sim/trace.h"

#ifdef __SANITIZE_ADDRESS__
#include <sanitizer/asan_interface.h>
#else
#define ASAN_UNPOISON_MEMORY_REGION(ptr, size_bytes) ((void)(ptr))
#define ASAN_POISON_MEMORY_REGION(ptr, size_bytes) ((void)(ptr))
#endif

#define PIECE_MAGIC 0x7069656365212121ull
#define PATTERN 0xa5
#define PATTERN_BYTES_MAX 512 /* the start of a piece is enough to catch most, and cheap */

struct piece {
	struct list node;
	void *base;
	size_t size_bytes;
	uint64_t magic;
};

static struct {
	struct list pieces;
	uint64_t held, fail_in;
	bool failed;
} mem = { .pieces = LIST_INIT(mem.pieces) };

static bool must_fail(void)
{
	if (mem.fail_in == 0 || --mem.fail_in > 0)
		return false;
	mem.failed = true;
	return true;
}

static void *piece_alloc(size_t align_bytes, size_t size_bytes)
{
	size_t head_bytes = (sizeof(struct piece) + align_bytes - 1) & ~(align_bytes - 1);
	struct piece *piece;
	void *base;
	char *ptr;

	if (must_fail() || posix_memalign(&base, align_bytes < 16 ? 16 : align_bytes, head_bytes + size_bytes))
		return NULL;
	ptr = (char *)base + head_bytes;
	piece = (struct piece *)ptr - 1;
	*piece = (struct piece){ .base = base, .size_bytes = size_bytes, .magic = PIECE_MAGIC };
	list_push_back(&mem.pieces, &piece->node);
	mem.held++;
	memset(ptr, PATTERN, size_bytes < PATTERN_BYTES_MAX ? size_bytes : PATTERN_BYTES_MAX);
	return ptr;
}

static bool piece_release(struct piece *piece)
{
	if (piece->magic != PIECE_MAGIC) {
		sim_fail("the engine freed memory that is not its own, or wrote in front of it");
		return false;
	}
	piece->magic = 0;
	list_del(&piece->node);
	mem.held--;
	ASAN_UNPOISON_MEMORY_REGION(piece + 1, piece->size_bytes);
	free(piece->base);
	return true;
}

static void piece_free(void *ptr)
{
	if (ptr)
		piece_release((struct piece *)ptr - 1);
}

/* A guard costs a system call or two a fiber: only AddressSanitizer's is cheap enough. */
static void piece_guard(void *pages, size_t size_bytes, bool on)
{
	if (on)
		ASAN_POISON_MEMORY_REGION(pages, size_bytes);
	else
		ASAN_UNPOISON_MEMORY_REGION(pages, size_bytes);
}

static const struct mem_ops sim_mem_ops = {
	.alloc = piece_alloc,
	.free = piece_free,
	.guard = piece_guard,
};

void sim_mem_install(void)
{
	/* Keep what was freed: thousands of engines will want it again. */
	mallopt(M_MMAP_THRESHOLD, 1 << 30);
	mallopt(M_TRIM_THRESHOLD, 1 << 30);
	mallopt(M_TOP_PAD, 16 << 20);
	mem_set_ops(&sim_mem_ops);
}

void sim_mem_drop_all(void)
{
	struct list *node;

	while ((node = mem.pieces.next) != &mem.pieces && piece_release(list_entry(node, struct piece, node)))
		;
	list_init(&mem.pieces); /* after damage: the rest is lost */
	mem.held = 0;
	mem.fail_in = 0;
}

uint64_t sim_mem_held(void)
{
	return mem.held;
}

void sim_mem_fail_nth(uint64_t n)
{
	mem.fail_in = n;
	mem.failed = false;
}

bool sim_mem_has_failed(void)
{
	return mem.failed;
}

bool sim_mem_end_failing(void)
{
	bool failed = mem.failed;

	mem.fail_in = 0;
	mem.failed = false;
	return failed;
}
