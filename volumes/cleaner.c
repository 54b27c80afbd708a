/* The cleaner: makes space of segments that are mostly dead by moving what is live.
 *
 * It runs while the pool is low on zones. A round takes the segments that cost least (fewest live blocks), moves what is
 * live, and makes a checkpoint, which frees them. A checkpoint costs the same for one segment as for many, so a round takes
 * as many as it can without moving more than a few segments' worth:
 *
 *     data segment   each block that a batch header names is looked up; if the map still points here it is read, verified
 *                    and appended to the log again as a write of the same block. The look-up is repeated in the
 *                    same breath as the append, so a newer write is never overtaken. Recovery needs to know nothing of it.
 *     meta segment   the first key of each node that the tree still refers to is noted; the checkpoint's merge rewrites
 *                    the nodes on the way to the noted keys
 *
 * It draws on the pool's reserve, so it works when writes are parked: then it moves at most one segment's worth a round, so
 * that each round gives back more than it takes, and one lineage at a time (volumes_may_clean), so that they do not share out
 * the reserve and all get stuck. A block that cannot be read stays where it is, and its segment is not tried again
 * (lseg->stuck). Where images share blocks it does nothing: a block written again would not be shared any more. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "pool/base/crc32c.h"
#include "pool/base/mem.h"
#include "volumes/lineage.h"

#define ROUND_MOVE_SEGMENTS 4u   /* a round moves at most so many segments' worth of blocks */
#define ROUND_SEGMENTS_MAX 64u
#define MOVE_BLOCKS_MAX 128u

/* A live block of the victim. */
struct move {
	struct volume_state *vol;
	uint64_t lba;
	struct mapping map;
	bool lost;
};

struct cleaner {
	struct lineage *lin;
	struct lseg *victim;
	uint8_t *window;                 /* SCAN_WINDOW_BLOCKS */
	uint8_t *data;                   /* MOVE_BLOCKS_MAX */
	uint32_t count;
	struct move move[MOVE_BLOCKS_MAX];
	struct mapping found[VIO_BLOCKS_MAX];
};

/* --- choice --------------------------------------------------------------------------------------------------- */

/* Blocks moved by one batch: few enough that what does not fit the end of a segment is little. */
static uint32_t move_max(const struct lineage *lin)
{
	uint32_t max = lin->segment_blocks / 16;

	return max < MOVE_BLOCKS_MAX ? max : MOVE_BLOCKS_MAX;
}

/* Less live than a segment that the cleaner fills will have: else it would go round in circles. */
static bool can_clean(const struct lineage *lin, const struct lseg *lseg)
{
	return !lseg->held && !lseg->freeing && !lseg->stuck && lseg->unwritten == 0 && lseg->live > 0 &&
	       lseg->live + 2 * move_max(lin) < lin->segment_blocks / 8 * 7;
}

static struct lseg *choose_victim(const struct lineage *lin)
{
	struct lseg *best = NULL;

	for (uint32_t i = 0; i < lin->segs_cap; i++) {
		struct lseg *lseg = lin->segs[i];

		if (lseg && !lseg->cleaned && can_clean(lin, lseg) && (!best || lseg->live < best->live))
			best = lseg;
	}
	return best;
}

static int go_on(const struct lineage *lin)
{
	if (lin->failed)
		return lin->failed;
	return lin->closing ? -ECANCELED : 0;
}

/* --- moving data ------------------------------------------------------------------------------------------------ */

static bool still_here(const struct cleaner *cl, const struct move *mv, const struct mapping *now)
{
	return !mv->lost && now->segno == cl->victim->seg.segno && now->index == mv->map.index && now->crc == mv->map.crc;
}

/* Reads the blocks to be moved, in runs. */
static void read_moves(struct cleaner *cl)
{
	for (uint32_t i = 0, n; i < cl->count; i += n) {
		uint8_t *buf = cl->data + (size_t)i * BLOCK_BYTES;

		for (n = 1; i + n < cl->count && cl->move[i + n].map.index == cl->move[i].map.index + n;)
			n++;
		if (scan_read(cl->lin, cl->victim, cl->move[i].map.index, n, buf) < 0) {
			n = 1;           /* one by one, to lose no more than is lost */
			memset(buf, 0, BLOCK_BYTES);
		}
		for (uint32_t j = 0; j < n; j++) {
			const struct mapping *m = &cl->move[i + j].map;
			uint8_t *block = buf + (size_t)j * BLOCK_BYTES;

			if (crc32c(0, block, BLOCK_BYTES) != m->crc &&
			    scan_read_block(cl->lin, cl->victim, m->index, m->crc, block) < 0)
				cl->move[i + j].lost = true;
		}
	}
}

/* True if every move could be looked up at once; otherwise waits for the nodes. */
static int look_again(struct cleaner *cl, struct mapping *now, bool *waited)
{
	*waited = false;
	for (uint32_t i = 0; i < cl->count; i++) {
		int rc = volume_lookup(cl->move[i].vol, cl->move[i].lba, 1, &now[i], false);

		if (rc == -EAGAIN) {
			*waited = true;
			rc = volume_lookup(cl->move[i].vol, cl->move[i].lba, 1, &now[i], true);
		}
		if (rc < 0)
			return rc;
	}
	return 0;
}

static int append_move(struct cleaner *cl, struct batch *b, uint32_t i)
{
	const struct move *mv = &cl->move[i];
	struct mapping to = { .segno = b->lseg->seg.segno, .crc = mv->map.crc, .birth = mv->map.birth };
	uint8_t *block;

	batch_add_extent(b, BATCH_DATA, mv->vol->number, mv->lba, 1);
	block = batch_add_block(b, &to.index);
	memcpy(block, cl->data + (size_t)i * BLOCK_BYTES, BLOCK_BYTES);
	batch_set_crc(b, mv->map.crc);
	return volume_map_block(mv->vol, mv->lba, &to);
}

/* Appends what is still here, without giving way between the look-up and the append. */
static int append_moves(struct cleaner *cl)
{
	struct stream *st = &cl->lin->stream[STREAM_DATA];
	bool waited = true;
	struct batch *b;
	int rc = 0;

	while (rc == 0 && waited) {
		while ((rc = log_room(st, cl->count, cl->count, ROOM_MOVE, &b)) == -EAGAIN && (rc = go_on(cl->lin)) == 0)
			waitq_wait(&cl->lin->room);
		if (rc == 0)
			rc = look_again(cl, cl->found, &waited);
	}
	for (uint32_t i = 0; i < cl->count && rc == 0; i++) {
		if (cl->move[i].lost)
			cl->victim->stuck = true;
		else if (still_here(cl, &cl->move[i], &cl->found[i]))
			rc = append_move(cl, b, i);
	}
	stream_kick(st);
	return rc;
}

static int flush_moves(struct cleaner *cl)
{
	int rc = 0;

	if (cl->count > 0) {
		read_moves(cl);
		rc = append_moves(cl);
	}
	cl->count = 0;
	return rc < 0 ? rc : go_on(cl->lin);
}

static int consider_block(struct cleaner *cl, struct volume_state *vol, uint64_t lba, const struct mapping *now,
			  uint32_t index)
{
	if (now->segno != cl->victim->seg.segno || now->index != index)
		return 0;
	cl->move[cl->count++] = (struct move){ vol, lba, *now, false };
	return cl->count == move_max(cl->lin) ? flush_moves(cl) : 0;
}

static int consider_extent(struct cleaner *cl, const struct batch_extent *e, uint32_t index)
{
	struct volume_state *vol = lineage_find_volume(cl->lin, le32_get(e->volume));
	uint64_t lba = le64_get(e->lba);
	uint32_t count = le32_get(e->count);
	struct mapping now[32];

	for (uint32_t at = 0; vol && at < count;) {
		uint32_t n = count - at < 32 ? count - at : 32;
		int rc = volume_lookup(vol, lba + at, n, now, true);

		for (uint32_t i = 0; i < n && rc == 0; i++)
			rc = consider_block(cl, vol, lba + at + i, &now[i], index + at + i);
		if (rc < 0)
			return rc;
		at += n;
	}
	return 0;
}

static int clean_data_batch(void *arg, const struct batch_header *h)
{
	const struct batch_extent *e = batch_extents(h);
	uint32_t index = le32_get(h->index) + 1;
	struct cleaner *cl = arg;

	for (uint32_t i = 0; i < le16_get(h->extent_count); i++) {
		int rc;

		if (le32_get(e[i].op) != BATCH_DATA)
			continue;
		rc = consider_extent(cl, &e[i], index);
		if (rc < 0)
			return rc;
		index += le32_get(e[i].count);
	}
	return 0;
}

/* --- moving map nodes --------------------------------------------------------------------------------------------- */

static int clean_node(struct cleaner *cl, uint32_t index)
{
	struct map_node *node = (struct map_node *)cl->data;
	struct node_ptr ptr = { cl->victim->seg.segno, index, 0 };
	struct volume_state *vol;
	bool live = false;
	int rc;

	if (scan_read(cl->lin, cl->victim, index, 1, node) < 0)
		return 0;                /* if it is live its merge will say so */
	ptr.crc = crc32c(0, node, BLOCK_BYTES);
	vol = lineage_find_volume(cl->lin, le32_get(node->volume));
	if (le32_get(node->magic) != MAP_MAGIC || !vol)
		return 0;
	rc = map_refers_to(vol, le64_get(node->entry[0].key), le16_get(node->level), &ptr, &live);
	if (rc == 0 && live)
		rc = map_touch(vol, le64_get(node->entry[0].key));
	return rc;
}

static int clean_meta_batch(void *arg, const struct batch_header *h)
{
	struct cleaner *cl = arg;

	for (uint32_t i = 0; i < le32_get(h->data_blocks); i++) {
		int rc = clean_node(cl, le32_get(h->index) + 1 + i);

		if (rc < 0)
			return rc;
	}
	return go_on(cl->lin);
}

/* --- rounds ------------------------------------------------------------------------------------------------------- */

static int clean_segment(struct cleaner *cl, struct lseg *victim)
{
	struct lineage *lin = cl->lin;
	int rc;

	cl->victim = victim;
	cl->count = 0;
	victim->cleaned = true;
	victim->held = true;             /* it may die meanwhile, but must not go */
	if (victim->seg.stream == STREAM_META)
		rc = scan_segment(lin, victim, 0, cl->window, clean_meta_batch, cl);
	else
		rc = scan_segment(lin, victim, 0, cl->window, clean_data_batch, cl);
	if (rc == 0)
		rc = flush_moves(cl);
	victim->held = false;
	return rc;
}

/* Whether the round takes one more, after `segments` with `live` blocks in all. */
static bool round_has_room(const struct lineage *lin, uint32_t segments, uint64_t live)
{
	uint64_t most = (uint64_t)lin->segment_blocks * (lin->nospace ? 1 : ROUND_MOVE_SEGMENTS);

	return segments == 0 || (segments < ROUND_SEGMENTS_MAX && live <= most);
}

/* One round; *cleaned: zones may have come back. */
static int clean_round(struct cleaner *cl, bool *cleaned)
{
	struct lineage *lin = cl->lin;
	struct lseg *victim;
	uint32_t segments = 0;
	uint64_t live = 0;
	int rc = 0;

	while (rc == 0 && (victim = choose_victim(lin)) && round_has_room(lin, segments, live + victim->live)) {
		segments++;
		live += victim->live;
		rc = clean_segment(cl, victim);
		lin->counters.cleaned_segments++;
	}
	*cleaned = segments > 0;
	return rc == 0 && *cleaned ? checkpoint_run(lin) : rc;
}

/* What is live is known as of the last checkpoint. If there seems to be nothing to clean, another may tell more. */
static int learn_what_is_live(struct lineage *lin)
{
	return choose_victim(lin) ? 0 : checkpoint_run(lin);
}

static void forget_cleaned(struct lineage *lin)
{
	for (uint32_t i = 0; i < lin->segs_cap; i++) {
		if (lin->segs[i])
			lin->segs[i]->cleaned = false;
	}
}

static void cleaner_fiber(void *arg)
{
	struct lineage *lin = arg;
	struct cleaner *cl = mem_zalloc(sizeof(*cl));
	bool cleaned = cl != NULL;
	int rc = 0;

	if (cl) {
		cl->lin = lin;
		cl->window = mem_alloc_aligned(BLOCK_BYTES, SCAN_WINDOW_BLOCKS * BLOCK_BYTES);
		cl->data = mem_alloc_aligned(BLOCK_BYTES, MOVE_BLOCKS_MAX * BLOCK_BYTES);
		rc = learn_what_is_live(lin);
		while (cl->window && cl->data && rc == 0 && cleaned && pool_is_low(lin->pool)) {
			rc = clean_round(cl, &cleaned);
			forget_cleaned(lin);
			if (volumes_cleaner_awaited(lin->vols))
				break;   /* let another have a turn */
		}
		mem_free(cl->window);
		mem_free(cl->data);
		mem_free(cl);
	}
	lin->cleaning = false;
	lin->clean_in_vain = rc != 0 || !cleaned;
	volumes_cleaned(lin->vols, lin);
	lineage_drain_soon(lin);
	lineage_fiber_end(lin);
}

static bool has_reason(const struct lineage *lin)
{
	return lin->images == 1 && !lin->clean_in_vain && pool_is_low(lin->pool);
}

void cleaner_start(struct lineage *lin)
{
	if (lin->cleaning || !lin->running || lin->failed || lin->closing || !has_reason(lin))
		return;
	if (!volumes_may_clean(lin->vols, lin))
		return;
	lin->cleaning = lineage_fiber(lin, cleaner_fiber, lin) == 0;
	if (!lin->cleaning)
		volumes_cleaned(lin->vols, lin);
}
