/* A library to preload that counts what a program does that takes long: allocations and locks. tests/it/hot-path.sh asks it
 * how many of them a request costs.
 *
 *     COUNT_CALLS_FILE=PATH LD_PRELOAD=count_calls.so PROGRAM
 *
 * The file holds two native 64-bit numbers, always current: calls of malloc and its kin, calls that take a lock. Calls from
 * any thread and any library count; what glibc does inside itself does not. */
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

struct counts {
	uint64_t allocations;
	uint64_t locks;
};

static struct counts unseen;
static struct counts *counts = &unseen;

/* What glibc calls its own allocator by; dlsym would allocate. */
void *__libc_malloc(size_t size);
void *__libc_calloc(size_t count, size_t size);
void *__libc_realloc(void *ptr, size_t size);
void *__libc_memalign(size_t align, size_t size);

__attribute__((constructor)) static void open_counts(void)
{
	const char *path = getenv("COUNT_CALLS_FILE");
	int fd = path ? open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600) : -1;
	void *map;

	if (fd < 0 || ftruncate(fd, sizeof(struct counts)) < 0)
		return;
	map = mmap(NULL, sizeof(struct counts), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	close(fd);
	if (map != MAP_FAILED)
		counts = map;
}

static void count(uint64_t *counter)
{
	__atomic_fetch_add(counter, 1, __ATOMIC_RELAXED);
}

/* ---- allocations ---- */

void *malloc(size_t size)
{
	count(&counts->allocations);
	return __libc_malloc(size);
}

void *calloc(size_t number, size_t size)
{
	count(&counts->allocations);
	return __libc_calloc(number, size);
}

void *realloc(void *ptr, size_t size)
{
	count(&counts->allocations);
	return __libc_realloc(ptr, size);
}

void *memalign(size_t align, size_t size);
void *memalign(size_t align, size_t size)
{
	count(&counts->allocations);
	return __libc_memalign(align, size);
}

void *aligned_alloc(size_t align, size_t size)
{
	return memalign(align, size);
}

int posix_memalign(void **out, size_t align, size_t size)
{
	void *ptr = memalign(align, size);

	if (!ptr)
		return ENOMEM;
	*out = ptr;
	return 0;
}

/* ---- locks ---- */

/* The next definition of a function; looked up once. */
static void *real(void **slot, const char *name)
{
	void *found = __atomic_load_n(slot, __ATOMIC_RELAXED);

	if (!found) {
		found = dlsym(RTLD_NEXT, name);
		__atomic_store_n(slot, found, __ATOMIC_RELAXED);
	}
	return found;
}

#define COUNTED_LOCK(name, type)                                             \
	int name(type *lock)                                                 \
	{                                                                    \
		static void *slot;                                           \
		int (*call)(type *);                                         \
                                                                             \
		count(&counts->locks);                                       \
		*(void **)&call = real(&slot, #name);                        \
		return call(lock);                                           \
	}

COUNTED_LOCK(pthread_mutex_lock, pthread_mutex_t)
COUNTED_LOCK(pthread_mutex_trylock, pthread_mutex_t)
COUNTED_LOCK(pthread_rwlock_rdlock, pthread_rwlock_t)
COUNTED_LOCK(pthread_rwlock_wrlock, pthread_rwlock_t)
COUNTED_LOCK(pthread_spin_lock, volatile int)
