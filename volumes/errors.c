/* Blocks that could not be had in any way: found by reads, by mending and by scrubs, kept in memory while the lineage is open.
 *
 * A place in the log and an LBA are noted; which images refer to it is looked up when somebody asks, and so is whether it is
 * still lost: it may have been overwritten since, or a disk that came back may have it. All images that share a block have
 * it at the same LBA. What the cleaner has moved is known by where it was at first; of that only reads tell. */
#include <errno.h>

#include "pool/base/mem.h"
#include "volumes/lineage.h"

void errors_note(struct lineage *lin, uint32_t segno, uint32_t index, uint64_t lba)
{
	if (!lin->errors)
		lin->errors = mem_alloc(BLOCK_ERRORS_MAX * sizeof(*lin->errors));
	for (uint32_t i = 0; i < lin->error_count; i++)
		if (lin->errors[i].segno == segno && lin->errors[i].index == index)
			return;
	if (lin->errors && lin->error_count < BLOCK_ERRORS_MAX)
		lin->errors[lin->error_count++] = (struct block_error){ segno, index, lba };
}

void errors_note_in(struct lineage *lin, const struct batch_header *h, uint32_t nth)
{
	const struct batch_extent *e = batch_extents(h);
	uint32_t at = 0;

	for (uint32_t i = 0; i < le16_get(h->extent_count); i++) {
		uint32_t count = le32_get(e[i].count);

		if (le32_get(e[i].op) == BATCH_HOLE)
			continue;
		if (nth - at < count && le32_get(e[i].op) == BATCH_DATA)
			errors_note(lin, le32_get(h->segno), le32_get(h->index) + 1 + nth, le64_get(e[i].lba) + nth - at);
		at += count;
	}
}

/* Is this what is at the LBA, and still lost? */
static bool is_lost_in(struct volume_state *vol, const struct block_error *error, uint8_t *buf)
{
	struct mapping m;

	return volume_lookup(vol, error->lba, 1, &m, true) == 0 && m.segno == error->segno && m.index == error->index &&
	       io_read_block(vol, error->lba, &m, buf) < 0;
}

int errors_list(struct lineage *lin, errors_fn *fn, void *arg)
{
	uint8_t *buf = mem_alloc_aligned(BLOCK_BYTES, BLOCK_BYTES);
	uint32_t kept = 0;

	if (!buf)
		return -ENOMEM;
	for (uint32_t i = 0; i < lin->error_count; i++) {
		struct block_error error = lin->errors[i];
		bool found = false;

		list_for_each(node, &lin->volumes) {
			struct volume_state *vol = list_entry(node, struct volume_state, node);

			if (vol->flags & VOLUME_DELETED || !is_lost_in(vol, &error, buf))
				continue;
			found = true;
			fn(arg, vol, error.lba);
		}
		if (found)
			lin->errors[kept++] = error;
	}
	lin->error_count = kept;
	mem_free(buf);
	return 0;
}
