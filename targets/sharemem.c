/* Shared mappings that survive what the other side does to the file. See sharemem.h.
 *
 * How: every mapping has an entry in a fixed table, which is all that the SIGBUS handler looks at. Writers of the table
 * hold a lock; the handler takes none. An entry is read under its sequence number (odd while it changes): an entry
 * that changes belongs to another thread's mapping, never to the one whose access faults, so it is passed over.
 *
 * The handler replaces a broken mapping as a whole, not page by page: so a front end cannot make us use up the
 * process's mappings, and huge pages need no care. What is written there afterwards reaches nobody.
 *
 * Always: a mapping is in the table from before its first access until after its last. */
#include "targets/sharemem.h"

#include <assert.h>
#include <errno.h>
#include <linux/magic.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/vfs.h>

#include "pool/base/mem.h"

#define PAGE_BYTES 4096u
#define XFS_MAGIC 0x58465342
#define HUGE_PAGE_BYTES_MAX (1ull << 30)

struct sharemem {
	uint8_t *base;
	uint8_t *map;                  /* what mmap returned: base rounded down to a (huge) page */
	uint64_t map_bytes;
	uint32_t refs;
	uint32_t entry;
};

struct entry {
	_Atomic uint32_t seq;          /* odd: being changed */
	_Atomic uintptr_t start, end;  /* 0: free */
	_Atomic bool broken;
};

static struct entry table[SHAREMEM_MAPS_MAX];
static _Atomic uint32_t table_used;    /* no entry at or above it was ever in use */
static pthread_mutex_t table_lock = PTHREAD_MUTEX_INITIALIZER;
static _Atomic uint32_t breaks;
static struct sigaction previous_action;

/* ---- the fault ---- */

static bool entry_covers(const struct entry *entry, uintptr_t addr, uintptr_t *start, uintptr_t *end)
{
	/* Acquire: pairs with entry_set, so that start and end are of the generation that seq names. */
	uint32_t seq = atomic_load_explicit(&entry->seq, memory_order_acquire);

	*start = atomic_load_explicit(&entry->start, memory_order_relaxed);
	*end = atomic_load_explicit(&entry->end, memory_order_relaxed);
	atomic_thread_fence(memory_order_acquire);
	return !(seq & 1) && seq == atomic_load_explicit(&entry->seq, memory_order_relaxed) && addr >= *start &&
	       addr < *end;
}

static bool replace_broken(uintptr_t addr)
{
	uint32_t used = atomic_load_explicit(&table_used, memory_order_acquire);
	uintptr_t start, end;
	void *zeroes;

	for (uint32_t i = 0; i < used; i++) {
		if (!entry_covers(&table[i], addr, &start, &end))
			continue;
		zeroes = mmap((void *)start, end - start, PROT_READ | PROT_WRITE,
			      MAP_FIXED | MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
		if (zeroes == MAP_FAILED)
			return false;
		atomic_store(&table[i].broken, true);
		atomic_fetch_add(&breaks, 1);
		return true;
	}
	return false;
}

static void on_sigbus(int signum, siginfo_t *info, void *context)
{
	int saved_errno = errno;

	if (info->si_code > 0 && replace_broken((uintptr_t)info->si_addr)) {
		errno = saved_errno;
		return;
	}
	if (previous_action.sa_flags & SA_SIGINFO) {
		previous_action.sa_sigaction(signum, info, context);
	} else if (previous_action.sa_handler != SIG_DFL && previous_action.sa_handler != SIG_IGN) {
		previous_action.sa_handler(signum);
	} else {
		/* Not ours: the instruction faults again, and the process ends as it would have without us. */
		signal(SIGBUS, SIG_DFL);
	}
	errno = saved_errno;
}

static void install_handler(void)
{
	struct sigaction action = { .sa_sigaction = on_sigbus, .sa_flags = SA_SIGINFO | SA_NODEFER };
	int rc;

	sigemptyset(&action.sa_mask);
	rc = sigaction(SIGBUS, &action, &previous_action);
	assert(rc == 0);
	(void)rc;
}

/* ---- the table ---- */

static void entry_set(struct entry *entry, uintptr_t start, uintptr_t end)
{
	atomic_fetch_add_explicit(&entry->seq, 1, memory_order_acquire);
	atomic_thread_fence(memory_order_release);
	atomic_store_explicit(&entry->start, start, memory_order_relaxed);
	atomic_store_explicit(&entry->end, end, memory_order_relaxed);
	atomic_store_explicit(&entry->broken, false, memory_order_relaxed);
	/* Release: pairs with the acquire in entry_covers. */
	atomic_fetch_add_explicit(&entry->seq, 1, memory_order_release);
}

/* The entry's number, or -ENOSPC. */
static int table_add(uintptr_t start, uintptr_t end)
{
	uint32_t used, i;

	pthread_mutex_lock(&table_lock);
	used = atomic_load_explicit(&table_used, memory_order_relaxed);
	for (i = 0; i < used && atomic_load_explicit(&table[i].end, memory_order_relaxed) != 0; i++)
		;
	if (i < SHAREMEM_MAPS_MAX) {
		entry_set(&table[i], start, end);
		if (i == used)
			atomic_store_explicit(&table_used, used + 1, memory_order_release);
	}
	pthread_mutex_unlock(&table_lock);
	return i < SHAREMEM_MAPS_MAX ? (int)i : -ENOSPC;
}

static void table_del(uint32_t i)
{
	pthread_mutex_lock(&table_lock);
	entry_set(&table[i], 0, 0);
	pthread_mutex_unlock(&table_lock);
}

/* ---- mapping ---- */

/* The size of the file's pages, or -EPERM: faults on other file systems may wait for a network or for a process of the
 * other side's choice (FUSE), and with them all volumes of this thread. */
static int64_t file_page_bytes(int fd)
{
	struct statfs fs;

	if (fstatfs(fd, &fs) < 0)
		return -errno;
	switch (fs.f_type) {
	case HUGETLBFS_MAGIC:
		return fs.f_bsize >= PAGE_BYTES && (uint64_t)fs.f_bsize <= HUGE_PAGE_BYTES_MAX ? fs.f_bsize : -EINVAL;
	case TMPFS_MAGIC:
	case RAMFS_MAGIC:
	case EXT4_SUPER_MAGIC:
	case XFS_MAGIC:
	case BTRFS_SUPER_MAGIC:
		return PAGE_BYTES;
	default:
		return -EPERM;
	}
}

/* The range must be aligned and lie in the regular file as it is now. */
static int check_range(int fd, uint64_t off_bytes, uint64_t len_bytes)
{
	struct stat st;
	uint64_t end_bytes;

	if (len_bytes == 0 || (off_bytes | len_bytes) % PAGE_BYTES != 0)
		return -EINVAL;
	if (__builtin_add_overflow(off_bytes, len_bytes, &end_bytes) || end_bytes > INT64_MAX)
		return -ERANGE;
	if (fstat(fd, &st) < 0)
		return -errno;
	if (!S_ISREG(st.st_mode))
		return -EINVAL;
	return end_bytes <= (uint64_t)st.st_size ? 0 : -ERANGE;
}

static int map_pages(struct sharemem *mem, int fd, uint64_t off_bytes, uint64_t len_bytes, uint64_t page_bytes)
{
	uint64_t head_bytes = off_bytes % page_bytes;
	int entry;
	void *map;

	mem->map_bytes = (head_bytes + len_bytes + page_bytes - 1) / page_bytes * page_bytes;
	map = mmap(NULL, mem->map_bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE, fd,
		   (off_t)(off_bytes - head_bytes));
	if (map == MAP_FAILED)
		return -errno;
	entry = table_add((uintptr_t)map, (uintptr_t)map + mem->map_bytes);
	if (entry < 0) {
		munmap(map, mem->map_bytes);
		return entry;
	}
	/* A guest's memory has no place in a core file. */
	(void)madvise(map, mem->map_bytes, MADV_DONTDUMP);
	mem->map = map;
	mem->base = mem->map + head_bytes;
	mem->entry = (uint32_t)entry;
	return 0;
}

int sharemem_map(int fd, uint64_t off_bytes, uint64_t len_bytes, struct sharemem **out)
{
	static pthread_once_t once = PTHREAD_ONCE_INIT;
	struct sharemem *mem;
	int64_t page_bytes;
	int rc;

	rc = check_range(fd, off_bytes, len_bytes);
	if (rc < 0)
		return rc;
	page_bytes = file_page_bytes(fd);
	if (page_bytes < 0)
		return (int)page_bytes;
	mem = mem_zalloc(sizeof(*mem));
	if (!mem)
		return -ENOMEM;
	pthread_once(&once, install_handler);
	rc = map_pages(mem, fd, off_bytes, len_bytes, (uint64_t)page_bytes);
	if (rc < 0) {
		mem_free(mem);
		return rc;
	}
	mem->refs = 1;
	*out = mem;
	return 0;
}

struct sharemem *sharemem_get(struct sharemem *mem)
{
	mem->refs++;
	return mem;
}

void sharemem_put(struct sharemem *mem)
{
	if (!mem)
		return;
	assert(mem->refs > 0);
	if (--mem->refs > 0)
		return;
	/* Nobody touches it any more. Out of the table first: once unmapped, the addresses may be another thread's. */
	table_del(mem->entry);
	munmap(mem->map, mem->map_bytes);
	mem_free(mem);
}

uint8_t *sharemem_base(const struct sharemem *mem)
{
	return mem->base;
}

bool sharemem_is_broken(const struct sharemem *mem)
{
	return atomic_load_explicit(&table[mem->entry].broken, memory_order_relaxed);
}

uint32_t sharemem_breaks(void)
{
	return atomic_load_explicit(&breaks, memory_order_relaxed);
}
