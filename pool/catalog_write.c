/* Writing the catalog: the same bytes to all disks in parallel, journal records, checkpoints.
 *
 * A record:      write on all disks -> flush all disks.
 * A checkpoint:  write the payload, chunk by chunk, on all disks -> flush all -> write the header block on all ->
 *                flush all. It goes to the half that the newest valid checkpoint is not in, and only a header that is
 *                complete makes it count, so there is one valid checkpoint on every disk at every moment.
 *
 * A disk that fails ends the attempt. Whoever asked for it (catalog.c) then either writes a checkpoint on the disks that
 * are left, which has the same transactions and says that the disk has failed, or gives up.
 *
 * Generations: an attempt that failed may have left its header on some disks. The next one takes a later generation of the
 * same half, so no two checkpoints of a session share a generation, and the other half stays whole until one succeeds. */
#include <errno.h>
#include <stdatomic.h>
#include <string.h>

#include "pool/base/crc32c.h"
#include "pool/base/mem.h"
#include "pool/catalog_int.h"

/* --- all disks in parallel ------------------------------------------------------------------------------------ */

static void io_done(struct disk_io *io, int res)
{
	struct cat_disk *cd = container_of(io, struct cat_disk, io);
	struct catalog *cat = cd->cat;

	if (res)
		atomic_store(cd->failed, true);
	if (--cat->io_pending == 0)
		fiber_wake(cat->io_waiter);
}

/* 0: all disks that are not out are well; 1: one has failed; -EIO: there is none. */
static int state_of_disks(const struct catalog *cat)
{
	uint32_t well = 0, failed = 0;

	for (uint32_t i = 0; i < cat->disk_count; i++) {
		const struct cat_disk *cd = cat->disks[i];

		failed += !cd->out && atomic_load(cd->failed);
		well += !cd->out && !atomic_load(cd->failed);
	}
	return well == 0 ? -EIO : failed > 0;
}

/* Submits each disk's prepared io and waits for all. */
static int run_all(struct catalog *cat)
{
	int ret = state_of_disks(cat);

	assert(fiber_self() && cat->disk_count > 0);
	if (ret)
		return ret;
	cat->io_waiter = fiber_self();
	cat->io_pending = 1;
	for (uint32_t i = 0; i < cat->disk_count; i++) {
		if (cat->disks[i]->out)
			continue;
		cat->io_pending++;
		disk_submit(cat->disks[i]->disk, &cat->disks[i]->io);
	}
	cat->io_pending--;
	while (cat->io_pending)
		fiber_park();
	return state_of_disks(cat);
}

int catalog_write_all(struct catalog *cat, enum cat_area area, uint64_t generation, uint64_t off, const void *buf,
		      uint64_t len)
{
	for (uint32_t i = 0; i < cat->disk_count; i++) {
		struct cat_disk *cd = cat->disks[i];
		const struct catalog_half *half = &cd->half[generation % 2];

		cd->iov = (struct iovec){ .iov_base = (void *)buf, .iov_len = len };
		cd->io = (struct disk_io){
			.op = DISK_WRITE,
			.iov = &cd->iov,
			.iov_count = 1,
			.len_bytes = len,
			.done = io_done,
			.off_bytes = (area == CAT_CHECKPOINT ? half->checkpoint_off : half->journal_off) + off,
		};
	}
	return run_all(cat);
}

int catalog_flush_all(struct catalog *cat)
{
	for (uint32_t i = 0; i < cat->disk_count; i++)
		cat->disks[i]->io = (struct disk_io){ .op = DISK_FLUSH, .done = io_done };
	return run_all(cat);
}

/* --- journal ---------------------------------------------------------------------------------------------------- */

int catalog_write_record(struct catalog *cat, uint32_t payload_bytes)
{
	struct record_head *head = (struct record_head *)cat->chunk;
	uint32_t bytes = record_bytes(payload_bytes);
	int ret;

	assert(payload_bytes > 0 && payload_bytes <= RECORD_PAYLOAD_MAX &&
	       bytes <= cat->journal_bytes - cat->journal_pos);
	memcpy(head->pool_uuid, cat->pool_uuid, sizeof(head->pool_uuid));
	head->stamp = le64_of(cat->stamp);
	head->generation = le64_of(cat->generation);
	head->seq = le64_of(cat->seq + 1);
	head->next_id = le64_of(atomic_load(&cat->next_id));
	head->payload_bytes = le32_of(payload_bytes);
	memset((uint8_t *)(head + 1) + payload_bytes, 0, bytes - sizeof(*head) - payload_bytes);
	record_seal(head);
	ret = catalog_write_all(cat, CAT_JOURNAL, cat->generation, cat->journal_pos, head, bytes);
	if (!ret)
		ret = catalog_flush_all(cat);
	if (ret)
		return ret;
	cat->settled_seq = ++cat->seq;
	cat->journal_pos += bytes;
	return 0;
}

/* --- checkpoint -------------------------------------------------------------------------------------------------- */

/* A payload on its way to the disks: full chunks leave as they come. */
struct payload_writer {
	struct catalog *cat;
	uint64_t generation;
	uint64_t written_bytes; /* whole chunks, on the disks */
	uint32_t fill_bytes;    /* in cat->chunk */
	uint32_t crc;
};

static int writer_chunk_out(struct payload_writer *w, uint32_t padded_bytes)
{
	int ret;

	assert(w->written_bytes + w->fill_bytes <= w->cat->payload_max);
	ret = catalog_write_all(w->cat, CAT_CHECKPOINT, w->generation, CAT_BLOCK_BYTES + w->written_bytes,
				w->cat->chunk, padded_bytes);

	w->crc = crc32c(w->crc, w->cat->chunk, w->fill_bytes);
	w->written_bytes += w->fill_bytes;
	w->fill_bytes = 0;
	return ret;
}

static int writer_add(struct payload_writer *w, const uint8_t *bytes, uint64_t len)
{
	int ret = 0;

	while (!ret && len) {
		uint32_t piece = CAT_CHUNK_BYTES - w->fill_bytes;

		piece = len < piece ? (uint32_t)len : piece;
		memcpy(w->cat->chunk + w->fill_bytes, bytes, piece);
		w->fill_bytes += piece;
		bytes += piece;
		len -= piece;
		if (w->fill_bytes == CAT_CHUNK_BYTES)
			ret = writer_chunk_out(w, CAT_CHUNK_BYTES);
	}
	return ret;
}

static int writer_end(struct payload_writer *w)
{
	uint32_t padded = (w->fill_bytes + CAT_BLOCK_BYTES - 1) / CAT_BLOCK_BYTES * CAT_BLOCK_BYTES;

	if (!padded)
		return 0;
	memset(w->cat->chunk + w->fill_bytes, 0, padded - w->fill_bytes);
	return writer_chunk_out(w, padded);
}

static int write_objects(struct catalog *cat, struct payload_writer *w)
{
	uint8_t entry[sizeof(struct cat_entry_head) + CATALOG_OBJ_MAX];
	struct omap_iter it;
	int ret = 0;

	for (bool more = omap_seek(&cat->objects, 0, &it); more && !ret; more = omap_next(&it)) {
		struct cat_node *node = *(struct cat_node **)omap_value(&it);

		if (!node)
			continue;
		cat_entry_encode(entry, omap_key(&it), CAT_OP_PUT, node->bytes, node->obj.len_bytes);
		ret = writer_add(w, entry, cat_entry_bytes(node->obj.len_bytes));
	}
	return ret;
}

static bool all_here(const struct catalog *cat)
{
	for (uint32_t i = 0; i < cat->disk_count; i++) {
		if (cat->disks[i]->out)
			return false;
	}
	return !cat->without_some;
}

static int write_header(struct catalog *cat, const struct payload_writer *w, uint64_t stamp, uint64_t seq)
{
	struct checkpoint_block *block = (struct checkpoint_block *)cat->chunk;

	memset(block, 0, sizeof(*block));
	memcpy(block->pool_uuid, cat->pool_uuid, sizeof(block->pool_uuid));
	block->stamp = le64_of(stamp);
	block->generation = le64_of(w->generation);
	block->seq = le64_of(seq);
	block->next_id = le64_of(atomic_load(&cat->next_id));
	block->payload_bytes = le64_of(w->written_bytes);
	block->payload_crc = le32_of(w->crc);
	block->settled_seq = le64_of(cat->settled_seq);
	block->all_here = le32_of(all_here(cat));
	checkpoint_seal(block);
	cat->next_generation = w->generation + 2;
	if (cat->newest.generation < w->generation)
		cat->newest = (struct cat_stamp){ w->generation, stamp };
	return catalog_write_all(cat, CAT_CHECKPOINT, w->generation, 0, block, sizeof(*block));
}

static int write_group(const struct list *group, struct payload_writer *w)
{
	int ret = 0;

	list_for_each(node, group) {
		const struct cat_txn *txn = list_entry(node, struct cat_commit, node)->txn;

		if (!ret)
			ret = writer_add(w, txn->buf, txn->len_bytes);
	}
	return ret;
}

/* The header of an attempt that failed may stand over the payload that is to be overwritten: it must go first. Whatever it
 * said has not been acknowledged. */
static int take_back_header(struct catalog *cat)
{
	int ret;

	memset(cat->chunk, 0, CAT_BLOCK_BYTES);
	ret = catalog_write_all(cat, CAT_CHECKPOINT, cat->newest.generation, 0, cat->chunk, CAT_BLOCK_BYTES);
	return ret ? ret : catalog_flush_all(cat);
}

int catalog_write_checkpoint(struct catalog *cat, const struct list *group)
{
	struct payload_writer w = { .cat = cat, .generation = cat->next_generation };
	uint64_t stamp = loop_random(loop_self()), seq = cat->seq + !list_empty(group);
	int ret = 0;

	if (cat->newest.generation > cat->generation)
		ret = take_back_header(cat);
	if (!ret)
		ret = write_objects(cat, &w);
	if (!ret)
		ret = write_group(group, &w);
	if (!ret)
		ret = writer_end(&w);
	if (!ret)
		ret = catalog_flush_all(cat);
	if (!ret)
		ret = write_header(cat, &w, stamp, seq);
	if (!ret)
		ret = catalog_flush_all(cat);
	if (ret)
		return ret;
	cat->generation = w.generation;
	cat->next_generation = w.generation + 1;
	cat->newest = (struct cat_stamp){ w.generation, stamp };
	cat->stamp = stamp;
	cat->seq = cat->settled_seq = seq;
	cat->journal_pos = 0;
	return 0;
}

/* --- wiping --------------------------------------------------------------------------------------------------------- */

int catalog_wipe_disk(struct disk *disk, const struct catalog_half half[2])
{
	uint8_t *zeroes = mem_alloc_aligned(CAT_BLOCK_BYTES, CAT_BLOCK_BYTES);
	int ret = 0;

	if (!zeroes)
		return -ENOMEM;
	memset(zeroes, 0, CAT_BLOCK_BYTES);
	for (int h = 0; h < 2 && !ret; h++) {
		ret = disk_write(disk, half[h].checkpoint_off, zeroes, CAT_BLOCK_BYTES);
		if (!ret)
			ret = disk_write(disk, half[h].journal_off, zeroes, CAT_BLOCK_BYTES);
	}
	if (!ret)
		ret = disk_flush(disk);
	mem_free(zeroes);
	return ret;
}
