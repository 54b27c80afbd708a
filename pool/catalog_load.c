/* Loading the catalog: reads only.
 *
 *   1 Read all checkpoint headers; the newest is the one of the highest generation.
 *   2 Apply its payload from the first disk whose copy is whole. If none is, but it had not reached all disks in use yet, nobody
 *     was told anything that it says: it does not count.
 *   3 Apply its journal. A record is taken from any disk that has it whole, so that damage on one disk is bridged by the
 *     others. The journal ends where no disk has the next record.
 *   4 Refuse what a crash cannot explain: records behind the end, records of a newer generation, a newest checkpoint that
 *     is whole on no disk (transactions that were acknowledged would silently be lost); and a disk whose own state ends
 *     before the last acknowledged transaction (it comes back from the past: its data is old too).
 *
 * Why 4 never refuses a crash: a record is written only when its predecessor has been flushed on all disks, and only when
 * the header of its checkpoint has; a header only when its payload has. A header tells up to which transaction every disk
 * had all when it was written: that need not be its own last one, as a load may have found what one disk alone had of an
 * earlier crash. So no disk in use ends before what the newest header and its journal call settled. A header that is not
 * valid or a journal that cannot be read proves nothing: the disk is accepted.
 *
 * A disk that is not here, or cannot be read now, may have a checkpoint of an attempt that a crash ended. It must not count when
 * the disk comes back: without it, generations go on behind all that it can have (catalog_resume). */
#include <errno.h>
#include <inttypes.h>
#include <stdatomic.h>
#include <string.h>

#include "pool/base/crc32c.h"
#include "pool/base/mem.h"
#include "pool/catalog_int.h"

/* Of what the format allows, half is refused on loading, so that no session can ever reach the limit. */
#define CAT_NEXT_ID_USABLE (CAT_NEXT_ID_MAX / 2)
#define CAT_COUNTER_USABLE (CAT_COUNTER_MAX / 2)

/* What a valid checkpoint header says. */
struct found {
	bool valid, all_here;
	uint32_t half;
	struct cat_ident ident;
	uint64_t seq, settled_seq, next_id, payload_bytes;
	uint32_t payload_crc;
};

struct loader {
	struct catalog *cat;
	struct err *err;
	struct found (*found)[2]; /* [disk][half] */
	struct found newest;
	uint64_t dropped; /* generation that does not count; 0 */
	uint32_t disk;        /* that gave the last record */
	uint64_t pos;         /* behind the last record */
	uint64_t last_pos[2]; /* of the last record and the one before it */
	uint64_t records;
	/* Window on a journal, in cat->chunk. */
	uint32_t win_disk, win_half;
	uint64_t win_off, win_bytes;
	bool unreadable; /* set when the window could not be read */
};

static const char *disk_uri(const struct loader *l, uint32_t d)
{
	return l->cat->disks[d]->disk->uri;
}

/* --- 1 headers ------------------------------------------------------------------------------------------------- */

static void found_fill(struct found *found, const struct checkpoint_block *block, uint32_t half)
{
	found->valid = true;
	found->half = half;
	memcpy(found->ident.pool_uuid, block->pool_uuid, sizeof(found->ident.pool_uuid));
	found->ident.stamp = le64_get(block->stamp);
	found->ident.generation = le64_get(block->generation);
	found->seq = le64_get(block->seq);
	found->settled_seq = le64_get(block->settled_seq);
	found->all_here = le32_get(block->all_here) == 1;
	found->next_id = le64_get(block->next_id);
	found->payload_bytes = le64_get(block->payload_bytes);
	found->payload_crc = le32_get(block->payload_crc);
}

static int read_header(struct loader *l, uint32_t d, uint32_t half)
{
	struct cat_disk *cd = l->cat->disks[d];
	const struct catalog_half *at = &cd->half[half];
	struct checkpoint_block *block = (struct checkpoint_block *)l->cat->chunk;
	int ret = disk_read(cd->disk, at->checkpoint_off, block, sizeof(*block));

	if (!ret && checkpoint_validate(block, l->cat->pool_uuid, half, at->checkpoint_bytes))
		found_fill(&l->found[d][half], block, half);
	return ret;
}

/* Newer by generation. Equal generations with different stamps come from imports that were cut short; both say the same. */
static bool is_newer(const struct found *a, const struct found *b)
{
	if (a->ident.generation != b->ident.generation)
		return a->ident.generation > b->ident.generation;
	return a->ident.stamp > b->ident.stamp;
}

static bool same_ident(const struct found *a, const struct found *b)
{
	return a->valid && b->valid && a->ident.generation == b->ident.generation && a->ident.stamp == b->ident.stamp;
}

static int choose_newest(struct loader *l)
{
	l->newest.valid = false;
	for (uint32_t d = 0; d < l->cat->disk_count; d++)
		for (uint32_t half = 0; half < 2; half++) {
			const struct found *found = &l->found[d][half];

			if (found->valid && (!l->newest.valid || is_newer(found, &l->newest)))
				l->newest = *found;
		}
	return l->newest.valid ? 0 : err_set(l->err, -ENOENT, "no disk has a valid catalog");
}

static int read_headers(struct loader *l)
{
	uint32_t readable[2] = { 0, 0 };

	for (uint32_t d = 0; d < l->cat->disk_count; d++)
		for (uint32_t half = 0; half < 2; half++)
			readable[half] += read_header(l, d, half) == 0;
	if (!readable[0] || !readable[1])
		return err_set(l->err, -EIO, "cannot read the catalog from any disk");
	return choose_newest(l);
}

/* --- 2 checkpoint ----------------------------------------------------------------------------------------------- */

/* Applies the whole entries of [buf, bytes); *used tells how far they go. -EAGAIN counts as success. */
static int apply_entries(struct catalog *cat, const uint8_t *buf, uint64_t bytes, uint64_t *used)
{
	struct cat_entry entry;
	int ret;

	*used = 0;
	while ((ret = cat_entry_next(buf, bytes, used, &entry)) > 0) {
		ret = catalog_apply_loaded(cat, &entry);
		if (ret)
			return ret;
	}
	return ret == -EAGAIN ? 0 : ret;
}

/* Streams a payload through the chunk. An entry cut off at its end is moved to `carry` bytes before the next piece. */
static int apply_payload(struct catalog *cat, struct cat_disk *cd, const struct found *found, uint8_t *buf)
{
	const uint64_t base = cd->half[found->half].checkpoint_off + CAT_BLOCK_BYTES;
	const uint32_t room = CAT_BLOCK_BYTES; /* in front of the piece: more than an entry */
	uint64_t carry = 0, used;
	uint32_t crc = 0;
	int ret;

	for (uint64_t off = 0; off < found->payload_bytes; off += CAT_CHUNK_BYTES) {
		uint64_t left = found->payload_bytes - off, piece = left < CAT_CHUNK_BYTES ? left : CAT_CHUNK_BYTES;
		uint64_t whole = (piece + CAT_BLOCK_BYTES - 1) / CAT_BLOCK_BYTES * CAT_BLOCK_BYTES;
		uint8_t *start;

		ret = disk_read(cd->disk, base + off, buf + room, whole);
		if (ret)
			return ret;
		crc = crc32c(crc, buf + room, piece);
		start = buf + room - carry;
		ret = apply_entries(cat, start, carry + piece, &used);
		if (ret)
			return ret;
		carry = carry + piece - used;
		assert(carry < room);
		memcpy(buf + room - carry, start + used, carry);
	}
	return carry || crc != found->payload_crc ? -EUCLEAN : 0;
}

static int load_checkpoint(struct loader *l)
{
	struct catalog *cat = l->cat;
	uint8_t *buf = mem_alloc_aligned(CAT_BLOCK_BYTES, CAT_BLOCK_BYTES + CAT_CHUNK_BYTES);
	int ret = -EUCLEAN;

	if (!buf)
		return err_set(l->err, -ENOMEM, "out of memory");
	for (uint32_t d = 0; d < cat->disk_count; d++) {
		if (!same_ident(&l->found[d][l->newest.half], &l->newest))
			continue;
		ret = apply_payload(cat, cat->disks[d], &l->newest, buf);
		l->disk = d;
		if (ret == 0 || ret == -ENOMEM)
			break;
		catalog_clear(cat);
	}
	mem_free(buf);
	if (ret == -ENOMEM)
		return err_set(l->err, ret, "out of memory");
	if (ret)
		return err_set(l->err, ret,
			       "the newest checkpoint of the catalog (generation %" PRIu64 ") is damaged on every disk "
			       "that has it",
			       l->newest.ident.generation);
	cat->stamp = l->newest.ident.stamp;
	cat->generation = l->newest.ident.generation;
	cat->next_generation = cat->generation + 1;
	if (l->dropped > cat->generation)
		cat->next_generation += (l->dropped - cat->generation + 1) / 2 * 2;
	cat->newest = (struct cat_stamp){ cat->next_generation + CAT_UNSEEN_GENERATIONS, 0 };
	cat->seq = l->newest.seq;
	cat->settled_seq = l->newest.settled_seq;
	atomic_store(&cat->next_id, l->newest.next_id);
	return 0;
}

/* --- 3 journal --------------------------------------------------------------------------------------------------- */

/* Puts the window on a disk's journal at pos. */
static int window_move(struct loader *l, uint32_t d, uint32_t half, uint64_t pos)
{
	struct cat_disk *cd = l->cat->disks[d];
	const struct catalog_half *at = &cd->half[half];
	int ret;

	l->win_disk = d;
	l->win_half = half;
	l->win_off = pos;
	l->win_bytes = 0;
	if (pos >= at->journal_bytes)
		return 0;
	l->win_bytes = at->journal_bytes - pos < CAT_CHUNK_BYTES ? at->journal_bytes - pos : CAT_CHUNK_BYTES;
	ret = disk_read(cd->disk, at->journal_off + pos, l->cat->chunk, l->win_bytes);
	if (ret) {
		l->win_bytes = 0;
		l->unreadable = true;
	}
	return ret;
}

/* The record at pos, if the window holds a valid one of this ident and number. */
static const struct record_head *window_record(const struct loader *l, uint32_t d, uint64_t pos, const struct found *of,
					       uint64_t seq)
{
	const struct record_head *head = (const struct record_head *)(l->cat->chunk + (pos - l->win_off));

	if (l->win_disk != d || l->win_half != of->half || pos < l->win_off || pos >= l->win_off + l->win_bytes)
		return NULL;
	if (!record_validate(head, l->win_off + l->win_bytes - pos, &of->ident) || le64_get(head->seq) != seq)
		return NULL;
	return head;
}

/* The record at pos of disk d, or NULL; *readable is set if the disk could be read there. */
static const struct record_head *find_record(struct loader *l, uint32_t d, uint64_t pos, const struct found *of,
					     uint64_t seq, bool *readable)
{
	const struct record_head *head = window_record(l, d, pos, of, seq);

	if (head)
		return head;
	if (window_move(l, d, of->half, pos))
		return NULL;
	*readable = true;
	return window_record(l, d, pos, of, seq);
}

static int apply_record(struct loader *l, const struct record_head *head)
{
	struct catalog *cat = l->cat;
	uint32_t payload_bytes = le32_get(head->payload_bytes);
	uint64_t used = 0;
	int ret = -EUCLEAN;

	if (le64_get(head->next_id) >= atomic_load(&cat->next_id))
		ret = apply_entries(cat, (const uint8_t *)(head + 1), payload_bytes, &used);
	if (ret == -ENOMEM)
		return err_set(l->err, ret, "out of memory");
	if (ret || used != payload_bytes)
		return err_set(l->err, -EUCLEAN, "transaction %" PRIu64 " of the catalog makes no sense", cat->seq + 1);
	atomic_store(&cat->next_id, le64_get(head->next_id));
	/* A record is written when the checkpoint and the records before it are on all disks. */
	cat->settled_seq = cat->seq++;
	l->last_pos[1] = l->last_pos[0];
	l->last_pos[0] = l->pos;
	l->pos += record_bytes(payload_bytes);
	l->records++;
	return 0;
}

/* Applies the next record. 1; 0 at the end of the journal; -errno. */
static int next_record(struct loader *l)
{
	uint32_t count = l->cat->disk_count, first = l->disk;
	bool readable = false;

	for (uint32_t i = 0; i < count; i++) {
		const struct record_head *head;
		int ret;

		l->disk = (first + i) % count;
		head = find_record(l, l->disk, l->pos, &l->newest, l->cat->seq + 1, &readable);
		if (head) {
			ret = apply_record(l, head);
			return ret ? ret : 1;
		}
	}
	return readable ? 0 : err_set(l->err, -EIO, "cannot read the catalog's journal from any disk");
}

/* --- 4 what a crash cannot explain --------------------------------------------------------------------------------- */

/* Is there a record of `of` with a number from seq on in the window? */
static bool window_has_later(const struct loader *l, const struct found *of, uint64_t seq)
{
	for (uint64_t off = 0; off < l->win_bytes; off += CAT_BLOCK_BYTES) {
		const struct record_head *head = (const struct record_head *)(l->cat->chunk + off);

		if (record_validate(head, l->win_bytes - off, &of->ident) && le64_get(head->seq) >= seq)
			return true;
	}
	return false;
}

static int check_no_later_records(struct loader *l)
{
	for (uint32_t d = 0; d < l->cat->disk_count; d++) {
		if (window_move(l, d, l->newest.half, l->pos))
			continue;
		/* The next one itself may stand in a wrong place: a write went astray, and was never acknowledged. */
		if (window_has_later(l, &l->newest, l->cat->seq + 2))
			return err_set(l->err, -EUCLEAN,
				       "transaction %" PRIu64 " of the catalog is damaged on every disk, but later "
				       "ones exist",
				       l->cat->seq + 1);
	}
	return 0;
}

/* Does a half's journal begin with a record of a newer generation? */
static bool has_newer_journal(struct loader *l, uint32_t d, uint32_t half)
{
	const struct record_head *head = (const struct record_head *)l->cat->chunk;
	struct cat_ident ident = l->newest.ident;

	if (window_move(l, d, half, 0) || l->win_bytes < sizeof(*head))
		return false;
	ident.stamp = le64_get(head->stamp);
	ident.generation = le64_get(head->generation);
	return ident.generation > l->newest.ident.generation && record_validate(head, l->win_bytes, &ident);
}

static int check_no_newer_journal(struct loader *l)
{
	for (uint32_t d = 0; d < l->cat->disk_count; d++)
		for (uint32_t half = 0; half < 2; half++)
			if (has_newer_journal(l, d, half))
				return err_set(l->err, -EUCLEAN,
					       "the newest checkpoint of the catalog is missing on every disk, but its "
					       "journal exists on disk '%s'",
					       disk_uri(l, d));
	return 0;
}

static const struct found *own_newest(const struct loader *l, uint32_t d)
{
	const struct found *a = &l->found[d][0], *b = &l->found[d][1];

	return !b->valid || (a->valid && is_newer(a, b)) ? a : b;
}

/* How far a disk's own state goes: its newest header and the journal behind it. */
static uint64_t own_seq(struct loader *l, uint32_t d)
{
	const struct found *own = own_newest(l, d);
	const struct record_head *head;
	uint64_t seq = own->seq, pos = 0;
	bool readable;

	while ((head = find_record(l, d, pos, own, seq + 1, &readable))) {
		seq++;
		pos += record_bytes(le32_get(head->payload_bytes));
	}
	return seq;
}

/* Has the disk one of the last two records? */
static bool has_last_records(struct loader *l, uint32_t d)
{
	bool readable;

	for (uint32_t i = 0; i < 2 && i < l->records; i++)
		if (find_record(l, d, l->last_pos[i], &l->newest, l->cat->seq - i, &readable))
			return true;
	return false;
}

static bool is_stale(struct loader *l, uint32_t d)
{
	const struct found *found = &l->found[d][l->newest.half];

	if (!found->valid)
		return false;
	if (!same_ident(found, &l->newest) && !l->found[d][!l->newest.half].valid)
		return false; /* two crashes in a row: one lost the newest header here, the next tore what replaced the older */
	l->unreadable = false;
	return !has_last_records(l, d) && own_seq(l, d) < l->cat->settled_seq && !l->unreadable;
}

static int check_no_stale_disk(struct loader *l)
{
	for (uint32_t d = 0; d < l->cat->disk_count; d++) {
		const struct found *own = own_newest(l, d);

		if (own->valid)
			l->cat->disks[d]->own = (struct cat_stamp){ own->ident.generation, own->ident.stamp };
		l->cat->disks[d]->behind = l->records == 0 && !same_ident(&l->found[d][l->newest.half], &l->newest);
		l->cat->disks[d]->stale = is_stale(l, d);
		if (l->cat->disks[d]->stale && !l->cat->loss_fn)
			return err_set(l->err, -EUCLEAN,
				       "disk '%s' is older than the others: it missed transactions while it was away",
				       disk_uri(l, d));
	}
	return 0;
}

/* Numbers in use are below next_id, and enough are left. */
static int check_ids(struct loader *l)
{
	uint64_t next_id = atomic_load(&l->cat->next_id);
	struct omap_iter it;

	for (bool more = omap_seek(&l->cat->objects, 0, &it); more; more = omap_next(&it)) {
		uint64_t id = omap_key(&it) & ((1ull << CAT_ID_BITS) - 1);

		if (id >= next_id)
			next_id = id + 1;
	}
	if (next_id > CAT_NEXT_ID_USABLE || l->cat->next_generation > CAT_COUNTER_USABLE || l->cat->seq > CAT_COUNTER_USABLE)
		return err_set(l->err, -EUCLEAN, "the catalog has used up its numbers");
	atomic_store(&l->cat->next_id, next_id ? next_id : 1);
	return 0;
}

static int check_size(struct loader *l)
{
	if (l->cat->live_bytes > l->cat->payload_max)
		return err_set(l->err, -EUCLEAN, "the catalog is larger than its area on the smallest disk");
	return 0;
}

/* Does some disk hold a state before the newest checkpoint, and none a transaction after it? */
static bool is_unfinished(struct loader *l)
{
	uint32_t half = l->newest.half;
	bool lacking = false;

	for (uint32_t d = 0; d < l->cat->disk_count; d++) {
		bool readable = false;

		lacking |= !same_ident(&l->found[d][half], &l->newest) && l->found[d][!half].valid;
		if (find_record(l, d, 0, &l->newest, l->newest.seq + 1, &readable) || !readable)
			return false;
	}
	return lacking && l->newest.all_here;
}

/* The newest checkpoint that is whole. */
static int load_state(struct loader *l)
{
	int ret = load_checkpoint(l);

	while (ret == -EUCLEAN && is_unfinished(l)) {
		l->dropped = l->dropped ? l->dropped : l->newest.ident.generation;
		for (uint32_t d = 0; d < l->cat->disk_count; d++)
			l->found[d][l->newest.half].valid &= !same_ident(&l->found[d][l->newest.half], &l->newest);
		ret = choose_newest(l);
		if (!ret)
			ret = load_checkpoint(l);
	}
	return ret;
}

static int load(struct loader *l)
{
	int ret = read_headers(l);

	if (!ret)
		ret = load_state(l);
	if (ret)
		return ret;
	while ((ret = next_record(l)) > 0)
		;
	if (!ret)
		ret = check_no_later_records(l);
	if (!ret)
		ret = check_no_newer_journal(l);
	if (!ret)
		ret = check_no_stale_disk(l);
	if (!ret)
		ret = check_ids(l);
	return ret ? ret : check_size(l);
}

int catalog_load(struct catalog *cat, struct err *err)
{
	struct loader l = { .cat = cat, .err = err };
	int ret;

	assert(cat->disk_count > 0 && cat->count == 0);
	l.found = mem_zalloc(cat->disk_count * sizeof(*l.found));
	if (!l.found)
		return err_set(err, -ENOMEM, "out of memory");
	ret = load(&l);
	mem_free(l.found);
	/* The journal is not continued: a fresh checkpoint comes first. */
	cat->journal_pos = UINT64_MAX;
	if (ret)
		catalog_clear(cat);
	return ret;
}
