/* Completing a checkpoint that a crash left on some disks only.
 *
 * The next checkpoint is written over the older half. On a disk that lacks the newest one, that half is all there is: until
 * the new header is there, this disk would have no whole catalog, and the pool would hang on those that have the newest.
 * So it is copied to the others first, over what is older still on them: payload -> flush -> header, as any checkpoint.
 * One that has a journal was on all disks in use when its first record was written: who lacks it then is another matter. */
#include <errno.h>
#include <stdatomic.h>

#include "pool/base/crc32c.h"
#include "pool/catalog_int.h"

static uint64_t at_half(const struct catalog *cat, const struct cat_disk *cd)
{
	return cd->half[cat->generation % 2].checkpoint_off;
}

/* Reads the header of the newest checkpoint to cat->chunk. */
static int read_newest(struct catalog *cat, const struct cat_disk *from)
{
	const struct checkpoint_block *block = (const struct checkpoint_block *)cat->chunk;
	const struct catalog_half *half = &from->half[cat->generation % 2];
	int ret = disk_read(from->disk, half->checkpoint_off, cat->chunk, CAT_BLOCK_BYTES);

	if (ret)
		return ret;
	if (!checkpoint_validate(block, cat->pool_uuid, cat->generation % 2, half->checkpoint_bytes) ||
	    le64_get(block->generation) != cat->generation || le64_get(block->stamp) != cat->stamp)
		return -EUCLEAN;
	return 0;
}

/* 1: `to` cannot be written; -EUCLEAN: the copy differs from what the header says. */
static int copy_payload(struct catalog *cat, const struct cat_disk *from, const struct cat_disk *to, uint64_t bytes,
			uint32_t crc_wanted)
{
	uint32_t crc = 0;

	for (uint64_t off = 0; off < bytes; off += CAT_CHUNK_BYTES) {
		uint64_t piece = bytes - off < CAT_CHUNK_BYTES ? bytes - off : CAT_CHUNK_BYTES;
		uint64_t whole = (piece + CAT_BLOCK_BYTES - 1) / CAT_BLOCK_BYTES * CAT_BLOCK_BYTES;
		int ret = disk_read(from->disk, at_half(cat, from) + CAT_BLOCK_BYTES + off, cat->chunk, whole);

		if (ret)
			return ret;
		crc = crc32c(crc, cat->chunk, piece);
		if (disk_write(to->disk, at_half(cat, to) + CAT_BLOCK_BYTES + off, cat->chunk, whole))
			return 1;
	}
	return crc == crc_wanted ? 0 : -EUCLEAN;
}

static int copy_newest(struct catalog *cat, const struct cat_disk *from, const struct cat_disk *to)
{
	const struct checkpoint_block *block = (const struct checkpoint_block *)cat->chunk;
	int ret = read_newest(cat, from);

	if (!ret)
		ret = copy_payload(cat, from, to, le64_get(block->payload_bytes), le32_get(block->payload_crc));
	if (!ret && disk_flush(to->disk))
		return 1;
	if (!ret)
		ret = read_newest(cat, from);
	if (!ret && disk_write(to->disk, at_half(cat, to), cat->chunk, CAT_BLOCK_BYTES))
		return 1;
	return ret;
}

/* From whichever disk has it whole. Without one nothing is lost yet. */
static int complete(struct catalog *cat, struct cat_disk *to)
{
	int ret = -EUCLEAN;

	for (uint32_t i = 0; i < cat->disk_count && ret < 0; i++) {
		if (!cat->disks[i]->out && !cat->disks[i]->behind)
			ret = copy_newest(cat, cat->disks[i], to);
	}
	if (ret > 0)
		atomic_store(to->failed, true);
	to->behind = ret != 0;
	return ret > 0;
}

int catalog_spread(struct catalog *cat)
{
	int ret = 0;

	for (uint32_t i = 0; i < cat->disk_count && !ret; i++) {
		if (cat->disks[i]->behind && !cat->disks[i]->out)
			ret = complete(cat, cat->disks[i]);
	}
	return ret;
}
