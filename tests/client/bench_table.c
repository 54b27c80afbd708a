/* The table of versions: what each unit of the range must hold.
 *
 * How: two versions a unit, the newest one issued and the newest one acknowledged. A block is locked while a request is
 * on it (one writer or many readers), so at any read a unit holds a version between the two; they differ only after a
 * write that failed or whose outcome was never learned. With --table the two arrays are a mapped file and survive us.
 *
 * Table file: 32 bytes header {magic, units, unit bytes, seed}, then issued[units], then done[units], native order. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tests/client/bench.h"
#include "tests/client/pattern.h"

#define MAGIC 0x656c626174746276ull
#define REPORTS_MAX 20

struct file_head {
	uint64_t magic;
	uint64_t units;
	uint64_t unit_bytes;
	uint64_t seed;
};
static_assert(sizeof(struct file_head) == 32, "table file header");

static void *map_file(const char *path, uint64_t size_bytes)
{
	int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	if (fd < 0)
		return MAP_FAILED;
	void *map = MAP_FAILED;
	struct stat stat;
	if (fstat(fd, &stat) == 0 && (stat.st_size == 0 || (uint64_t)stat.st_size == size_bytes) &&
	    ftruncate(fd, (off_t)size_bytes) == 0)
		map = mmap(NULL, size_bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	close(fd);
	return map;
}

static int adopt_head(struct table *table, uint64_t units)
{
	struct file_head *head = table->map;
	struct file_head expected = { .magic = MAGIC,
				      .units = units,
				      .unit_bytes = table->unit_bytes,
				      .seed = table->seed };
	if (head->magic == 0)
		*head = expected;
	if (memcmp(head, &expected, sizeof(expected)) == 0)
		return 0;
	fprintf(stderr, "vhost-bench: the table was made with another range, block size or seed\n");
	return -EINVAL;
}

int table_open(struct table *table, const struct bench_options *options, uint64_t blocks)
{
	*table = (struct table){ .seed = options->seed, .blocks = blocks, .fresh = options->fresh };
	table->unit_bytes = options->bs_bytes < 4096 ? options->bs_bytes : 4096;
	table->units_per_block = options->bs_bytes / table->unit_bytes;
	uint64_t units = blocks * table->units_per_block;
	table->map_bytes = sizeof(struct file_head) + units * 2 * sizeof(uint32_t);
	if (options->table_path != NULL)
		table->map = map_file(options->table_path, table->map_bytes);
	else
		table->map = mmap(NULL, table->map_bytes, PROT_READ | PROT_WRITE,
				  MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (table->map == MAP_FAILED) {
		fprintf(stderr, "vhost-bench: cannot make the table of versions '%s'\n",
			options->table_path == NULL ? "" : options->table_path);
		return -EINVAL;
	}
	table->issued = (uint32_t *)((char *)table->map + sizeof(struct file_head));
	table->done = table->issued + units;
	table->busy = calloc(blocks, 1);
	if (table->busy == NULL)
		return -ENOMEM;
	return adopt_head(table, units);
}

void table_close(struct table *table)
{
	munmap(table->map, table->map_bytes);
	free(table->busy);
}

bool table_lock(struct table *table, uint64_t block, bool write)
{
	uint8_t *busy = &table->busy[block];
	if (write ? *busy != 0 : *busy >= BLOCK_READERS_MAX)
		return false;
	*busy = write ? BLOCK_WRITING : (uint8_t)(*busy + 1);
	return true;
}

void table_unlock(struct table *table, uint64_t block, bool write)
{
	uint8_t *busy = &table->busy[block];
	*busy = write ? 0 : (uint8_t)(*busy - 1);
}

void table_fill(struct table *table, uint64_t block, uint8_t *data)
{
	for (uint32_t i = 0; i < table->units_per_block; i++) {
		uint64_t unit = block * table->units_per_block + i;
		table->issued[unit]++;
		pattern_fill(data + (size_t)i * table->unit_bytes, table->unit_bytes, unit, table->issued[unit],
			     table->seed);
	}
}

void table_written(struct table *table, uint64_t block)
{
	for (uint32_t i = 0; i < table->units_per_block; i++) {
		uint64_t unit = block * table->units_per_block + i;
		table->done[unit] = table->issued[unit];
	}
}

static bool is_as_expected(const struct table *table, uint64_t unit, const uint8_t *data, char *why, size_t why_bytes)
{
	uint32_t version;
	enum pattern_found found = pattern_check(data, table->unit_bytes, unit, table->seed, &version, why, why_bytes);
	if (table->done[unit] == 0 && !table->fresh)
		return true;
	if (found == PATTERN_ZERO) {
		snprintf(why, why_bytes, "zeroes");
		return table->done[unit] == 0;
	}
	if (found == PATTERN_WRONG)
		return false;
	snprintf(why, why_bytes, "holds version %u", version);
	return version >= table->done[unit] && version <= table->issued[unit];
}

unsigned table_check(const struct table *table, uint64_t block, const uint8_t *data)
{
	static unsigned reports;
	char why[200];
	unsigned wrong = 0;
	for (uint32_t i = 0; i < table->units_per_block; i++) {
		uint64_t unit = block * table->units_per_block + i;
		if (is_as_expected(table, unit, data + (size_t)i * table->unit_bytes, why, sizeof(why)))
			continue;
		wrong++;
		if (reports++ < REPORTS_MAX)
			fprintf(stderr, "wrong data: byte %llu (unit %llu): expected version %u (issued %u): %s\n",
				(unsigned long long)unit * table->unit_bytes, (unsigned long long)unit,
				table->done[unit], table->issued[unit], why);
	}
	return wrong;
}

bool table_was_written(const struct table *table, uint64_t block)
{
	for (uint32_t i = 0; i < table->units_per_block; i++) {
		if (table->done[block * table->units_per_block + i] != 0)
			return true;
	}
	return false;
}
