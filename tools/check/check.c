/* The check of a pool: see check.h. Labels, then the catalog, then segments, then each lineage by itself. */
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tools/check/check_int.h"
#include "pool/base/crc32c.h"

bool problem(struct check *c, const char *what, const char *where_fmt, ...)
{
	char where[256];
	va_list args;

	va_start(args, where_fmt);
	vsnprintf(where, sizeof(where), where_fmt, args);
	va_end(args);
	c->counts->problems++;
	c->opts->problem(c->opts->arg, where, what);
	return false;
}

void *check_alloc(struct check *c, size_t count, size_t each_bytes)
{
	void *memory = calloc(count > 0 ? count : 1, each_bytes);

	if (!memory)
		c->error = -ENOMEM;
	return memory;
}

bool crc_is_right(const uint8_t *bytes, size_t len_bytes, uint32_t crc_off)
{
	static const uint8_t zero[4];
	uint32_t crc = crc32c(0, bytes, crc_off);

	crc = crc32c(crc, zero, 4);
	return crc32c(crc, bytes + crc_off + 4, len_bytes - crc_off - 4) == get(bytes + crc_off, 4);
}

static void release(struct check *c)
{
	for (size_t i = 0; i < c->payload_count; i++)
		free(c->payloads[i]);
	for (uint32_t i = 0; i < CHECK_DISKS_MAX; i++)
		free(c->zone_taken[i]);
	free(c->payloads);
	free(c->objects);
	free(c);
}

static int run(struct check *c, const struct check_disk *disks, uint32_t count)
{
	if (!labels_read(c, disks, count) || !catalog_read(c))
		return c->error ? c->error : -EUCLEAN;
	zones_check(c);
	for (size_t i = object_from(c, KIND_LINEAGE, 0); object_is(c, i, KIND_LINEAGE) && !c->error; i++)
		lineage_check(c, &c->objects[i]);
	return c->error;
}

int check_pool(const struct check_disk *disks, uint32_t count, const struct check_opts *opts,
	       struct check_counts *counts)
{
	struct check *c = calloc(1, sizeof(*c));
	int ret;

	*counts = (struct check_counts){ 0 };
	if (!c)
		return -ENOMEM;
	c->opts = opts;
	c->counts = counts;
	ret = run(c, disks, count);
	release(c);
	return ret;
}
