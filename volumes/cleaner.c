/* The cleaner: makes space of segments that are mostly dead by moving what is live. No map changes: see places.h.
 *
 * It works within checkpoints, when all references have been counted: what has a count is live, and nothing else changes
 * counts or places meanwhile. While zones are wanted its fiber makes one checkpoint after the other. Each empties as many
 * segments as bring back what is wanted, those first of which the most is dead for the longest time (Rosenblum and
 * Ousterhout, "The Design and Implementation of a Log-Structured File System", ACM TOCS 1992), or, when the pool is full, those
 * of which the most is dead:
 *
 *     data, meta     the batch headers lead to the blocks and their checksums; those with a count are appended to a host,
 *                    in pieces, and entered in new place blocks of the segment
 *     host           the headers tell which pieces were put there; those that still are there are moved on, without what
 *                    has died
 *     blocks without counts (the tables and their maps) are not moved: the checkpoint writes them anew
 *
 * Hosts are a stream of their own (STREAM_MOVE): what has lived long lies apart from what guests have just written. When
 * the checkpoint is durable, the zones are freed by free_dead. Before that everything is still at its old place, so a crash,
 * or a checkpoint that fails, leaves but hosts that hold nothing.
 *
 * A segment that has a block which cannot be read, or whose headers do not lead to all of its blocks, stays as it is and is
 * not tried again (lseg->stuck). Hosts draw on the pool's reserve, so that cleaning works when writes are parked, but leave
 * the last zones to the tables. One lineage cleans at a time (volumes_may_clean). */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "pool/base/crc32c.h"
#include "pool/base/mem.h"
#include "volumes/lineage.h"

/* Blocks that are to be moved at once: of one part of the segment that names them. */
struct chunk {
	struct lseg *name;
	uint32_t part;
	uint32_t count;
	uint32_t at[PLACE_PIECE_BLOCKS];     /* in the part */
	uint32_t index[PLACE_PIECE_BLOCKS];  /* in the victim */
	uint32_t crc[PLACE_PIECE_BLOCKS];
};

struct cleaner {
	struct lineage *lin;
	struct lseg *victim;
	uint32_t moved;                  /* blocks of the victim */
	int rc;                          /* -ENOSPC: no more hosts; other: the checkpoint has failed */
	uint8_t *window;                 /* SCAN_WINDOW_BLOCKS */
	uint8_t *data;                   /* PLACE_PIECE_BLOCKS */
	struct chunk chunk;
};

/* --- choice --------------------------------------------------------------------------------------------------- */

/* Blocks moved at once: few enough that what does not fit the end of a segment is little. */
static uint32_t chunk_max(const struct lineage *lin)
{
	uint32_t max = lin->segment_blocks / 16;

	return max < PLACE_PIECE_BLOCKS ? max : PLACE_PIECE_BLOCKS;
}

/* A host holds all of a segment but headers and what does not fit its end. What is live must be less by enough to pay for
 * tables too: else the cleaner would go round in circles. */
static uint32_t live_max(const struct lineage *lin)
{
	return lin->segment_blocks / 16 * 15 - chunk_max(lin);
}

/* Whether all that may be live in it is known to maps and tables that are durable: replay has no need of it, and the
 * checkpoint being made has not written to it. */
static bool is_settled(const struct lineage *lin, const struct lseg *lseg)
{
	switch (lseg->seg.stream) {
	case STREAM_DATA: return lseg->last_seq < lin->log_point.seq;
	case STREAM_META: return lseg->seg.grant < lin->meta_grant;
	default: return true;
	}
}

static bool can_clean(const struct lineage *lin, const struct lseg *lseg)
{
	uint32_t live = lseg_live_after(lseg);

	return lseg_has_zones(lseg) && !lseg->held && !lseg->freeing && !lseg->moved && !lseg->stuck &&
	       lseg->unwritten == 0 && live > 0 && live < live_max(lin) && is_settled(lin, lseg);
}

static uint64_t newest_grant(const struct lineage *lin)
{
	uint64_t newest = 0;

	for (int id = 0; id < STREAM_COUNT; id++)
		newest = lin->stream[id].last_grant > newest ? lin->stream[id].last_grant : newest;
	return newest;
}

struct candidate {
	struct lseg *lseg;
	double worth;                    /* age * space gained / blocks read and written */
};

static int by_worth(const void *a, const void *b)
{
	const struct candidate *x = a, *y = b;

	if (x->worth != y->worth)
		return x->worth > y->worth ? -1 : 1;
	return x->lseg->seg.segno < y->lseg->seg.segno ? -1 : 1;
}

static struct candidate weigh(const struct lineage *lin, struct lseg *lseg, uint64_t newest)
{
	double age = lin->nospace || newest < lseg->seg.grant ? 1 : 1 + (double)(newest - lseg->seg.grant);
	double blocks = lin->segment_blocks, live = lseg_live_after(lseg);

	return (struct candidate){ lseg, age * (blocks - live) / (blocks + live) };
}

/* All that can be cleaned, the best first. */
static int find_candidates(const struct lineage *lin, struct candidate **out, uint32_t *count)
{
	uint64_t newest = newest_grant(lin);
	uint32_t n = 0;

	*out = mem_alloc((lin->segs_cap + 1) * sizeof(**out));
	if (!*out)
		return -ENOMEM;
	for (uint32_t i = 0; i < lin->segs_cap; i++) {
		if (lin->segs[i] && can_clean(lin, lin->segs[i]))
			(*out)[n++] = weigh(lin, lin->segs[i], newest);
	}
	qsort(*out, n, sizeof(**out), by_worth);
	*count = n;
	return 0;
}

/* Blocks of segments that this checkpoint frees anyway. */
static uint64_t dead_blocks(const struct lineage *lin)
{
	uint64_t blocks = 0;

	for (uint32_t i = 0; i < lin->segs_cap; i++) {
		const struct lseg *lseg = lin->segs[i];

		if (lseg && lseg_has_zones(lseg) && !lseg->held && (lseg->moved || lseg_live_after(lseg) == 0))
			blocks += lin->segment_blocks;
	}
	return blocks;
}

/* Blocks that the checkpoint's tables may still need, at most: pages of counts, place blocks of all that is moved, and a few
 * nodes above them. */
static uint64_t tables_max(const struct lineage *lin)
{
	uint64_t places = 0;

	for (uint32_t i = 0; i < lin->segs_cap; i++)
		places += lin->segs[i] && (lin->segs[i]->moved || lin->segs[i]->cleaned);
	places *= (lin->segment_blocks + PLACE_BLOCKS - 1) / PLACE_BLOCKS;
	return (lin->refs.page_count + places) / 16 * 17 + lin->segment_blocks / 8;
}

/* Segments that hosts may still take: what the tables may need is left to the meta stream, and one to the data stream, for
 * discards and for what a write that fails has to move. */
static uint64_t hosts_max(const struct lineage *lin)
{
	const struct stream *meta = &lin->stream[STREAM_META];
	uint64_t segments = pool_segments_free(lin->pool, lin->policy), need = tables_max(lin);
	uint64_t have = (meta->next ? lin->segment_blocks : 0) +
		(meta->seg ? lin->segment_blocks - meta->head - (meta->open ? 1 + meta->open->data : 0) : 0);
	uint64_t spare = 1 + (need > have ? (need - have + lin->segment_blocks - 1) / lin->segment_blocks : 0);

	return segments > spare ? segments - spare : 0;
}

/* What may be moved in one checkpoint: hosts must find zones, and it must not take much longer than the log that recovery may
 * have to replay. */
static uint64_t moves_max(const struct lineage *lin)
{
	uint64_t blocks = hosts_max(lin) * lin->segment_blocks;
	uint64_t log_blocks = volumes_options(lin->vols)->checkpoint_log_bytes / BLOCK_BYTES;

	return blocks < log_blocks ? blocks : log_blocks;
}

/* Marks the best candidates; returns how many, the first ones. */
static uint32_t choose_victims(struct lineage *lin, const struct candidate *candidates, uint32_t count)
{
	uint64_t wanted = pool_segments_wanted(lin->pool, lin->policy) * lin->segment_blocks;
	uint64_t gain = dead_blocks(lin), moves = 0, max = moves_max(lin);
	uint32_t n = 0;

	while (n < count && gain < wanted) {
		struct lseg *lseg = candidates[n].lseg;
		uint32_t live = lseg_live_after(lseg);

		if (n > 0 && moves + live > max)
			break;
		lseg->cleaned = true;
		lin->cleaning_meta |= lseg->seg.stream == STREAM_META;
		gain += lin->segment_blocks - live;
		moves += live;
		n++;
	}
	return n;
}

/* --- moving ----------------------------------------------------------------------------------------------------- */

/* Reads the chunk, in runs. False: a block is lost. */
static bool read_chunk(struct cleaner *cl)
{
	const struct chunk *ch = &cl->chunk;

	for (uint32_t i = 0, n; i < ch->count; i += n) {
		uint8_t *buf = cl->data + (size_t)i * BLOCK_BYTES;

		for (n = 1; i + n < ch->count && ch->index[i + n] == ch->index[i] + n;)
			n++;
		if (scan_read(cl->lin, cl->victim, ch->index[i], n, buf) < 0)
			memset(buf, 0, (size_t)n * BLOCK_BYTES);
		for (uint32_t j = 0; j < n; j++, buf += BLOCK_BYTES) {
			if (crc32c(0, buf, BLOCK_BYTES) != ch->crc[i + j] &&
			    scan_read_block(cl->lin, cl->victim, ch->index[i + j], ch->crc[i + j], buf) < 0)
				return false;
		}
	}
	return true;
}

/* The blocks fit without another segment, or there may be one more. */
static bool may_append(const struct lineage *lin, uint32_t blocks)
{
	const struct stream *st = &lin->stream[STREAM_MOVE];
	uint32_t head = st->head + (st->open ? batch_total_blocks(st->open->data, lin->policy.k) : 0);

	if (st->next || st->granting || (st->seg && head + batch_total_blocks(blocks, lin->policy.k) <= lin->segment_blocks))
		return true;
	return !lin->noreserve && hosts_max(lin) > 0;
}

static int host_room(struct lineage *lin, uint32_t blocks, struct batch **b)
{
	for (;;) {
		int rc = lin->closing || !may_append(lin, blocks) ? -ENOSPC :
			log_room(&lin->stream[STREAM_MOVE], blocks, 1, ROOM_DATA, b);

		if (rc != -EAGAIN)
			return rc;
		waitq_wait(&lin->room);
	}
}

/* Appends the chunk as one piece; *index is where it begins. */
static int append_chunk(struct cleaner *cl, struct lseg **host, uint32_t *index)
{
	const struct chunk *ch = &cl->chunk;
	struct batch *b;
	int rc = host_room(cl->lin, ch->count, &b);

	if (rc < 0)
		return rc;
	batch_add_extent(b, BATCH_MOVED, ch->name->seg.segno, (uint64_t)ch->part * PLACE_BLOCKS + ch->at[0], ch->count);
	for (uint32_t i = 0; i < ch->count; i++) {
		uint32_t at;

		memcpy(batch_add_block(b, &at), cl->data + (size_t)i * BLOCK_BYTES, BLOCK_BYTES);
		batch_set_crc(b, ch->crc[i]);
		if (i == 0)
			*index = at;
	}
	*host = b->lseg;
	(*host)->delta += (int32_t)ch->count;
	cl->moved += ch->count;
	stream_kick(b->stream);
	return 0;
}

/* Adds a block to the chunk if it is live. */
static int take_block(struct cleaner *cl, uint32_t at, uint32_t index, uint32_t crc)
{
	struct chunk *ch = &cl->chunk;
	uint32_t count;
	int rc = refs_count(cl->lin, ch->name->seg.segno, ch->part * PLACE_BLOCKS + at, &count);

	if (rc == 0 && count > 0) {
		ch->at[ch->count] = at;
		ch->index[ch->count] = index;
		ch->crc[ch->count++] = crc;
	}
	return rc;
}

/* --- data and meta segments --------------------------------------------------------------------------------------- */

static int move_chunk(struct cleaner *cl)
{
	struct chunk *ch = &cl->chunk;
	struct place_block *block;
	struct lseg *host;
	uint32_t index;

	if (ch->count == 0)
		return 0;
	if (!read_chunk(cl))
		return -EBADMSG;
	cl->rc = places_edit(cl->lin, ch->name, ch->part, &block);
	if (cl->rc == 0)
		cl->rc = append_chunk(cl, &host, &index);
	if (cl->rc < 0)
		return cl->rc;
	if (!place_append(block, ch->at, ch->count, host->seg.segno, index))
		return -EBADMSG;
	ch->count = 0;
	return 0;
}

static int take_batch(void *arg, const struct batch_header *h)
{
	struct cleaner *cl = arg;
	struct chunk *ch = &cl->chunk;

	for (uint32_t i = 0; i < le32_get(h->data_blocks); i++) {
		uint32_t index = le32_get(h->index) + 1 + i;
		int rc = index / PLACE_BLOCKS != ch->part || ch->count == chunk_max(cl->lin) ? move_chunk(cl) : 0;

		if (rc < 0)
			return rc;
		ch->part = index / PLACE_BLOCKS;
		cl->rc = take_block(cl, index % PLACE_BLOCKS, index, le32_get(batch_crcs(h)[i]));
		if (cl->rc < 0)
			return cl->rc;
	}
	return 0;
}

static int count_referred(struct cleaner *cl, uint32_t *blocks)
{
	*blocks = 0;
	for (uint32_t i = 0; i < cl->lin->segment_blocks; i++) {
		uint32_t count;
		int rc = refs_count(cl->lin, cl->victim->seg.segno, i, &count);

		if (rc < 0)
			return rc;
		*blocks += count > 0;
	}
	return 0;
}

/* Not moved after all: what hosts have of it is not live there. */
static void give_up(struct cleaner *cl)
{
	uint32_t parts = (cl->lin->segment_blocks + PLACE_BLOCKS - 1) / PLACE_BLOCKS, at[PLACE_PIECE_BLOCKS];

	for (uint32_t part = 0; part < parts; part++) {
		const struct place_block *block;

		if (places_look(cl->lin, cl->victim, part, &block) < 0)
			continue;
		for (uint32_t n = 0; n < le32_get(block->count); n++)
			lseg_get(cl->lin, le32_get(block->piece[n].host))->delta -= (int32_t)place_piece_blocks(block, n, at);
	}
	places_drop(cl->lin, cl->victim);
}

static int clean_named(struct cleaner *cl)
{
	uint32_t referred = 0;
	int rc;

	cl->chunk = (struct chunk){ .name = cl->victim };
	rc = scan_segment(cl->lin, cl->victim, 0, cl->window, take_batch, cl);
	if (rc == 0)
		rc = move_chunk(cl);
	if (rc == 0)
		rc = cl->rc = count_referred(cl, &referred);
	if (rc == 0 && cl->moved != referred)
		rc = -EBADMSG;
	if (rc == 0 && referred > 0)
		cl->victim->moving = true;
	else
		give_up(cl);
	return rc;
}

/* --- hosts ---------------------------------------------------------------------------------------------------------- */

/* The number of a piece that an extent tells of, if it is still there. */
static int find_piece(struct cleaner *cl, const struct batch_extent *e, uint32_t index, uint32_t *piece, uint32_t *blocks,
		      uint32_t at[PLACE_PIECE_BLOCKS])
{
	const struct chunk *ch = &cl->chunk;
	const struct place_block *block;
	int rc = places_look(cl->lin, ch->name, ch->part, &block);

	*piece = PLACE_PIECES;
	if (rc < 0)
		return rc;
	*piece = place_piece_at(block, (uint32_t)(le64_get(e->lba) % PLACE_BLOCKS));
	if (*piece == PLACE_PIECES)
		return 0;
	*blocks = place_piece_blocks(block, *piece, at);
	if (le32_get(block->piece[*piece].host) != cl->victim->seg.segno ||
	    le32_get(block->piece[*piece].index) != index || *blocks != le32_get(e->count))
		*piece = PLACE_PIECES;
	return 0;
}

/* The chunk is what is left of the piece. */
static int move_piece(struct cleaner *cl, uint32_t piece)
{
	const struct chunk *ch = &cl->chunk;
	struct lseg *host = cl->victim;
	struct place_block *block;
	uint32_t index = 0;
	int rc = places_edit(cl->lin, ch->name, ch->part, &block);

	if (rc == 0 && ch->count > 0)
		rc = append_chunk(cl, &host, &index);
	if (rc < 0)
		return rc;
	place_replace(block, piece, ch->at, ch->count, host->seg.segno, index);
	cl->victim->delta -= (int32_t)ch->count;
	return 0;
}

static int take_piece(struct cleaner *cl, const struct batch_extent *e, uint32_t index, const le32 *crcs)
{
	uint32_t at[PLACE_PIECE_BLOCKS], piece, blocks;
	struct chunk *ch = &cl->chunk;

	*ch = (struct chunk){ .name = lseg_get(cl->lin, le32_get(e->volume)),
			      .part = (uint32_t)(le64_get(e->lba) / PLACE_BLOCKS) };
	if (!ch->name || !ch->name->moved || le64_get(e->lba) >= cl->lin->segment_blocks)
		return 0;
	cl->rc = find_piece(cl, e, index, &piece, &blocks, at);
	if (cl->rc < 0 || piece == PLACE_PIECES)
		return cl->rc;
	for (uint32_t i = 0; i < blocks && cl->rc == 0; i++)
		cl->rc = take_block(cl, at[i], index + i, le32_get(crcs[i]));
	if (cl->rc == 0 && !read_chunk(cl))
		return 0;                /* it stays, and so does the segment */
	if (cl->rc == 0)
		cl->rc = move_piece(cl, piece);
	return cl->rc;
}

static int take_moved_batch(void *arg, const struct batch_header *h)
{
	const struct batch_extent *e = batch_extents(h);
	uint32_t first = 0;

	for (uint32_t i = 0; i < le16_get(h->extent_count); i++) {
		int rc = take_piece(arg, &e[i], le32_get(h->index) + 1 + first, batch_crcs(h) + first);

		if (rc < 0)
			return rc;
		first += le32_get(e[i].count);
	}
	return 0;
}

static int clean_host(struct cleaner *cl)
{
	int rc = scan_segment(cl->lin, cl->victim, 0, cl->window, take_moved_batch, cl);

	return rc == 0 && lseg_live_after(cl->victim) > 0 ? -EBADMSG : rc;
}

/* --- with the checkpoint ---------------------------------------------------------------------------------------------- */

/* 0 also if the segment is stuck. */
static int clean_segment(struct cleaner *cl, struct lseg *victim)
{
	int rc;

	cl->victim = victim;
	cl->moved = 0;
	rc = victim->seg.stream == STREAM_MOVE ? clean_host(cl) : clean_named(cl);
	if (cl->rc < 0)
		return cl->rc;
	victim->stuck = rc < 0;
	cl->lin->emptied += rc == 0;
	return 0;
}

static int clean_segments(struct lineage *lin, uint8_t *window, uint8_t *data)
{
	struct cleaner *cl = mem_zalloc(sizeof(*cl));
	struct candidate *candidates = NULL;
	uint32_t count = 0, victims;
	int rc = cl ? find_candidates(lin, &candidates, &count) : -ENOMEM;

	victims = rc == 0 ? choose_victims(lin, candidates, count) : 0;
	for (uint32_t i = 0; i < victims && rc == 0; i++) {
		cl->lin = lin;
		cl->window = window;
		cl->data = data;
		rc = clean_segment(cl, candidates[i].lseg);
	}
	mem_free(candidates);
	mem_free(cl);
	return rc == -ENOSPC ? 0 : rc;   /* what has been moved is moved */
}

int cleaner_evacuate(struct lineage *lin)
{
	uint8_t *window = mem_alloc_aligned(BLOCK_BYTES, SCAN_WINDOW_BLOCKS * BLOCK_BYTES);
	uint8_t *data = mem_alloc_aligned(BLOCK_BYTES, PLACE_PIECE_BLOCKS * BLOCK_BYTES);
	int rc = window && data ? 0 : -ENOMEM;

	lin->emptied = 0;
	if (rc == 0)
		rc = clean_segments(lin, window, data);
	mem_free(window);
	mem_free(data);
	return rc;
}

void cleaner_forget(struct lineage *lin)
{
	lin->cleaning_meta = false;
	for (uint32_t i = 0; i < lin->segs_cap; i++) {
		if (lin->segs[i])
			lin->segs[i]->cleaned = false;
	}
}

/* --- rounds ------------------------------------------------------------------------------------------------------- */

static bool has_candidate(const struct lineage *lin)
{
	for (uint32_t i = 0; i < lin->segs_cap; i++) {
		if (lin->segs[i] && can_clean(lin, lin->segs[i]))
			return true;
	}
	return false;
}

/* One round. False: there is nothing to gain. */
static bool clean_round(struct lineage *lin)
{
	uint32_t emptied;

	if ((!has_candidate(lin) && lin->log_bytes == 0) || checkpoint_run(lin) < 0)
		return false;            /* nothing new would be known of what is live */
	emptied = lin->emptied;
	lin->counters.cleaned_segments += emptied;
	return emptied > 0;
}

static void cleaner_fiber(void *arg)
{
	struct lineage *lin = arg;
	bool gained = true;

	while (gained && pool_segments_wanted(lin->pool, lin->policy) > 0 && !lin->closing) {
		gained = clean_round(lin);
		if (volumes_cleaner_awaited(lin->vols))
			break;           /* let another have a turn */
	}
	lin->cleaning = false;
	lin->clean_in_vain = !gained && pool_segments_wanted(lin->pool, lin->policy) > 0;
	volumes_cleaned(lin->vols, lin);
	lineage_drain_soon(lin);
	lineage_fiber_end(lin);
}

void cleaner_start(struct lineage *lin)
{
	if (lin->cleaning || lin->clean_in_vain || !lin->running || lin->failed || lin->closing ||
	    pool_segments_wanted(lin->pool, lin->policy) == 0)
		return;
	if (!volumes_may_clean(lin->vols, lin))
		return;
	lin->cleaning = lineage_fiber(lin, cleaner_fiber, lin) == 0;
	if (!lin->cleaning)
		volumes_cleaned(lin->vols, lin);
}
