/*
 * hammer: keeps a block device busy and knows, byte for byte, what must be read back.
 *
 *   hammer DEVICE SIZE_MIB SEED
 *
 * The first SIZE_MIB of the device are cut into THREADS slices of which each thread owns one, so
 * THREADS requests are in flight at any time and none overlaps another. A thread writes, reads,
 * zeroes and flushes random extents of 4 KiB to 1 MiB. For each 4 KiB block it remembers the
 * generation last acknowledged; the content of a block follows from its place, its generation and
 * the seed. Every read must return exactly that generation: a lost write, a write done again after
 * a newer one, and a write in the wrong place all show.
 *
 * While it runs it prints "@value hammer N" (N operations done) a few times a second, if N has
 * changed. SIGTERM makes it stop, read everything back once more, print a summary and exit: 0 if
 * all was right, 1 after the first wrong byte or I/O error.
 *
 * The device must read as zeroes at the start.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <linux/fs.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

enum {
	THREADS = 32,
	BLOCK_BYTES = 4096,
	BLOCK_WORDS = BLOCK_BYTES / 8,
	EXTENT_BLOCKS_MAX = 256,
	REPORT_US = 200 * 1000,
};

struct slice {
	pthread_t thread;
	int fd;
	uint64_t first_block;
	uint64_t blocks;
	uint64_t random;
	uint32_t *generation; /* last acknowledged, per block; 0 is never written */
	uint64_t *buffer;     /* EXTENT_BLOCKS_MAX blocks, aligned for O_DIRECT */
};

/* Set in a generation that was made by write-zeroes. */
#define ZEROED 0x80000000u

static uint64_t seed;
static atomic_bool stopping;
static atomic_uint_fast64_t ops_done;
static atomic_uint_fast64_t bytes_written;

static uint64_t mix(uint64_t x)
{
	x ^= x >> 30;
	x *= 0xbf58476d1ce4e5b9u;
	x ^= x >> 27;
	x *= 0x94d049bb133111ebu;
	return x ^ (x >> 31);
}

static uint64_t next_random(struct slice *s)
{
	s->random += 0x9e3779b97f4a7c15u;
	return mix(s->random);
}

static uint32_t next_generation(uint32_t generation)
{
	return (generation & ~ZEROED) + 1;
}

/* The content of a block: word i is first + i * step. */
struct pattern {
	uint64_t first;
	uint64_t step;
};

static struct pattern pattern_of(uint64_t block, uint32_t generation)
{
	if (generation == 0 || (generation & ZEROED))
		return (struct pattern){ 0, 0 };
	uint64_t first = mix(seed ^ mix(block + 1) ^ ((uint64_t)generation << 40));
	return (struct pattern){ first, mix(first) | 1 };
}

static void fill_block(uint64_t *words, struct pattern p)
{
	for (int i = 0; i < BLOCK_WORDS; i++)
		words[i] = p.first + (uint64_t)i * p.step;
}

/* The index of the first wrong word, or -1. */
static int find_wrong_word(const uint64_t *words, struct pattern p)
{
	for (int i = 0; i < BLOCK_WORDS; i++)
		if (words[i] != p.first + (uint64_t)i * p.step)
			return i;
	return -1;
}

static _Noreturn void fail_io(const char *what, uint64_t block, uint64_t blocks, ssize_t got)
{
	int err = errno;
	printf("hammer: %s of %" PRIu64 " blocks at block %" PRIu64 " failed: %s\n", what, blocks, block,
	    got < 0 ? strerror(err) : "short transfer");
	exit(1);
}

static _Noreturn void fail_content(const uint64_t *words, uint64_t block, uint32_t generation, int wrong)
{
	printf("hammer: block %" PRIu64 " is not generation %u%s: word %d is %016" PRIx64 "\n", block,
	    generation & ~ZEROED, generation & ZEROED ? " (zeroed)" : "", wrong, words[wrong]);
	for (uint32_t g = 0; g < (generation & ~ZEROED) + 64; g++)
		if (find_wrong_word(words, pattern_of(block, g)) < 0)
			printf("hammer: it is generation %u\n", g);
	exit(1);
}

static void write_extent(struct slice *s, uint64_t at, uint64_t count)
{
	for (uint64_t i = 0; i < count; i++)
		fill_block(s->buffer + i * BLOCK_WORDS,
		    pattern_of(s->first_block + at + i, next_generation(s->generation[at + i])));
	uint64_t block = s->first_block + at;
	size_t len_bytes = count * BLOCK_BYTES;
	ssize_t got = pwrite(s->fd, s->buffer, len_bytes, (off_t)(block * BLOCK_BYTES));
	if (got != (ssize_t)len_bytes)
		fail_io("write", block, count, got);
	for (uint64_t i = 0; i < count; i++)
		s->generation[at + i] = next_generation(s->generation[at + i]);
	atomic_fetch_add(&bytes_written, len_bytes);
}

static void read_extent(struct slice *s, uint64_t at, uint64_t count)
{
	uint64_t block = s->first_block + at;
	size_t len_bytes = count * BLOCK_BYTES;
	ssize_t got = pread(s->fd, s->buffer, len_bytes, (off_t)(block * BLOCK_BYTES));
	if (got != (ssize_t)len_bytes)
		fail_io("read", block, count, got);
	for (uint64_t i = 0; i < count; i++) {
		const uint64_t *words = s->buffer + i * BLOCK_WORDS;
		uint32_t generation = s->generation[at + i];
		int wrong = find_wrong_word(words, pattern_of(block + i, generation));
		if (wrong >= 0)
			fail_content(words, block + i, generation, wrong);
	}
}

static void zero_extent(struct slice *s, uint64_t at, uint64_t count)
{
	uint64_t block = s->first_block + at;
	uint64_t range[2] = { block * BLOCK_BYTES, count * BLOCK_BYTES };
	if (ioctl(s->fd, BLKZEROOUT, range) != 0)
		fail_io("write-zeroes", block, count, -1);
	for (uint64_t i = 0; i < count; i++)
		s->generation[at + i] = next_generation(s->generation[at + i]) | ZEROED;
}

static void one_operation(struct slice *s)
{
	uint64_t largest = EXTENT_BLOCKS_MAX >> (next_random(s) % 9);
	uint64_t count = 1 + next_random(s) % largest;
	if (count > s->blocks)
		count = s->blocks;
	uint64_t at = next_random(s) % (s->blocks - count + 1);
	unsigned percent = (unsigned)(next_random(s) % 100);
	if (percent < 55)
		write_extent(s, at, count);
	else if (percent < 94)
		read_extent(s, at, count);
	else if (percent < 97)
		zero_extent(s, at, count);
	else if (fdatasync(s->fd) != 0)
		fail_io("flush", 0, 0, -1);
}

static void *run_slice(void *arg)
{
	struct slice *s = arg;
	while (!atomic_load(&stopping)) {
		one_operation(s);
		atomic_fetch_add(&ops_done, 1);
	}
	for (uint64_t at = 0; at < s->blocks; at += EXTENT_BLOCKS_MAX) {
		uint64_t left = s->blocks - at;
		read_extent(s, at, left < EXTENT_BLOCKS_MAX ? left : EXTENT_BLOCKS_MAX);
	}
	return NULL;
}

static void start_slice(struct slice *s, int index, int fd, uint64_t blocks)
{
	s->fd = fd;
	s->blocks = blocks;
	s->first_block = (uint64_t)index * blocks;
	s->random = mix(seed + (uint64_t)index + 1);
	s->generation = calloc(blocks, sizeof(*s->generation));
	s->buffer = aligned_alloc(BLOCK_BYTES, (size_t)EXTENT_BLOCKS_MAX * BLOCK_BYTES);
	if (s->generation == NULL || s->buffer == NULL || pthread_create(&s->thread, NULL, run_slice, s) != 0) {
		printf("hammer: out of memory\n");
		exit(1);
	}
}

static void on_stop(int sig)
{
	(void)sig;
	atomic_store(&stopping, true);
}

static void report_until_stopped(void)
{
	uint64_t reported = 0;
	while (!atomic_load(&stopping)) {
		usleep(REPORT_US);
		uint64_t now = atomic_load(&ops_done);
		if (now != reported)
			printf("@value hammer %" PRIu64 "\n", now);
		reported = now;
	}
}

int main(int argc, char **argv)
{
	static struct slice slices[THREADS];

	if (argc != 4) {
		fprintf(stderr, "usage: hammer DEVICE SIZE_MIB SEED\n");
		return 2;
	}
	setvbuf(stdout, NULL, _IOLBF, 0);
	seed = strtoull(argv[3], NULL, 0);
	uint64_t blocks = strtoull(argv[2], NULL, 0) * 256 / THREADS;
	int fd = open(argv[1], O_RDWR | O_DIRECT | O_CLOEXEC);
	if (fd < 0 || blocks == 0) {
		printf("hammer: cannot use '%s': %s\n", argv[1], strerror(errno));
		return 1;
	}
	signal(SIGTERM, on_stop);
	for (int i = 0; i < THREADS; i++)
		start_slice(&slices[i], i, fd, blocks);
	report_until_stopped();
	for (int i = 0; i < THREADS; i++)
		pthread_join(slices[i].thread, NULL);
	printf("hammer: %" PRIu64 " operations, %" PRIu64 " MiB written, every block verified\n",
	    (uint64_t)atomic_load(&ops_done), (uint64_t)atomic_load(&bytes_written) >> 20);
	return 0;
}
