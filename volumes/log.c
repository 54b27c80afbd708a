/* The log of a lineage: streams (data, meta, moved) of batches appended to segments.
 *
 *     room -> fill the open batch -> kick -> [written, any order] -> retire in log order -> acknowledge
 *
 * A batch's place is known when it is opened, so mappings enter the overlay while it is filled; until it is written, reads
 * find its blocks in its buffer. A batch leaves at once when nothing is in flight, else it gathers until the batch in
 * flight is done or it is full: no fixed delay. What always holds:
 * - batches of the data stream have consecutive seq and are retired (acknowledged) in that order;
 * - a segment is written front to back and holds batches of one stream only;
 * - nothing is acknowledged that is not written; FLUSH completes after every disk written since the last one flushed. */
#include <errno.h>
#include <string.h>

#include "pool/base/mem.h"
#include "volumes/lineage.h"

/* --- segments --------------------------------------------------------------------------------------------- */

struct lseg *lseg_get(const struct lineage *lin, uint32_t segno)
{
	return segno < lin->segs_cap ? lin->segs[segno] : NULL;
}

static int segs_grow(struct lineage *lin, uint32_t need)
{
	uint32_t cap = lin->segs_cap ? lin->segs_cap : 64;
	struct lseg **segs;

	if (need > SEGNO_MAX)
		return -ENOSPC;
	while (cap < need)
		cap *= 2;
	segs = mem_zalloc(cap * sizeof(struct lseg *));
	if (!segs)
		return -ENOMEM;
	if (lin->segs)
		memcpy(segs, lin->segs, lin->segs_cap * sizeof(struct lseg *));
	mem_free(lin->segs);
	lin->segs = segs;
	lin->segs_cap = cap;
	return 0;
}

struct lseg *lseg_add(struct lineage *lin, const struct segment *seg)
{
	struct lseg *lseg;

	if (seg->segno >= lin->segs_cap && segs_grow(lin, seg->segno + 1) < 0)
		return NULL;
	if (lin->segs[seg->segno])
		return NULL;
	lseg = mem_zalloc(sizeof(*lseg));
	if (!lseg)
		return NULL;
	lseg->seg = *seg;
	lin->segs[seg->segno] = lseg;
	return lseg;
}

void lseg_del(struct lineage *lin, struct lseg *lseg)
{
	lin->segs[lseg->seg.segno] = NULL;
	refs_forget(lin, lseg);
	places_forget(lin, lseg);
	mem_free(lseg);
}

static uint32_t free_segno(const struct lineage *lin)
{
	uint32_t segno = 0;

	while (segno < lin->segs_cap && lin->segs[segno])
		segno++;
	return segno;
}

int lseg_grant(struct stream *st, enum grant_class class, uint32_t avoid_disk, struct lseg **out)
{
	struct lineage *lin = st->lin;
	struct segment want = { .segno = free_segno(lin) };
	struct lseg *lseg = lseg_add(lin, &want); /* holds the number while the pool is asked */
	int rc;

	if (!lseg)
		return -ENOMEM;
	lseg->held = true;
	rc = segment_grant(lin->pool, lin->id, want.segno, st->id, lin->policy, class, avoid_disk, &lseg->seg);
	if (rc < 0) {
		lseg_del(lin, lseg);
		return rc;
	}
	*out = lseg;
	return 0;
}

static int grant_next(struct stream *st)
{
	struct lineage *lin = st->lin;
	bool reserve = lin->nospace && st->want_reserve;
	uint64_t frees = lin->frees;
	int rc = lseg_grant(st, reserve ? GRANT_RESERVE : GRANT_DATA, UINT32_MAX, &st->next);

	st->next_reserve = reserve && st->id == STREAM_DATA;
	if (rc == -ENOSPC && frees == lin->frees) {
		lin->nospace = true;
		lin->noreserve |= reserve;
	}
	return rc;
}

static void grant_fiber(void *arg)
{
	struct stream *st = arg;
	struct lineage *lin = st->lin;
	int rc = grant_next(st);

	st->granting = false;
	st->want_reserve = false;
	cleaner_start(lin);
	if (rc == -ENOSPC) {
		volumes_squeeze(lin->vols);
	} else if (rc < 0 && rc != -ENOMEM) {
		lineage_fail(lin, rc);
	}
	lineage_drain_soon(lin);
	lineage_fiber_end(lin);
}

/* Asks for the next segment, unless asked already or known to be in vain. */
static void grant_ahead(struct stream *st, enum room_class class)
{
	struct lineage *lin = st->lin;
	bool urgent = class != ROOM_DATA || st->id != STREAM_DATA;

	st->want_reserve |= urgent;
	if (st->granting || st->next || lin->failed)
		return;
	if (lin->noreserve || (lin->nospace && !urgent))
		return;                  /* space_freed comes first */
	st->granting = lineage_fiber(lin, grant_fiber, st) == 0;
	if (!st->granting)
		lineage_retry_later(lin);
}

void space_freed(struct task *task)
{
	struct lineage *lin = container_of(task, struct lineage, space_task);

	lin->space.queued = false;
	lin->frees++;
	lin->nospace = lin->noreserve = false;
	lineage_drain_soon(lin);
}

/* --- batches ---------------------------------------------------------------------------------------------- */

static struct batch *batch_alloc(struct vloop *vl)
{
	struct list *node = list_pop_front(&vl->free_batches);
	struct batch *b;

	if (node)
		return list_entry(node, struct batch, node);
	if (vl->batches == BATCHES_PER_LOOP)
		return NULL;
	b = mem_zalloc(sizeof(*b));
	if (!b)
		return NULL;
	b->buf = mem_alloc_aligned(BLOCK_BYTES, (size_t)BATCH_BLOCKS_MAX * BLOCK_BYTES);
	if (!b->buf) {
		mem_free(b);
		return NULL;
	}
	vl->batches++;
	return b;
}

void batch_free(struct vloop *vl, struct batch *b)
{
	struct list *starved;

	list_push_front(&vl->free_batches, &b->node);
	starved = list_pop_front(&vl->starved);
	if (starved)
		lineage_drain_soon(list_entry(starved, struct lineage, starved));
}

static struct batch *batch_open(struct stream *st)
{
	struct lineage *lin = st->lin;
	struct batch *b = batch_alloc(lin->vl);

	if (!b) {
		lineage_starve(lin, lin->vl->batches < BATCHES_PER_LOOP);
		return NULL;
	}
	list_init(&b->node);
	list_init(&b->vios);
	b->stream = st;
	b->lseg = st->seg;
	b->start = st->head;
	b->seq = st->next_seq++;
	b->data = b->extents = b->total = 0;
	b->done = false;
	b->lseg->unwritten++;
	st->open = b;
	return b;
}

/* Where appends of this class end in a segment. */
static uint32_t room_end(const struct stream *st, enum room_class class)
{
	bool tail = st->id == STREAM_DATA && class != ROOM_HOLE;

	return st->lin->segment_blocks - (tail ? HOLE_TAIL_ROWS * st->lin->policy.k : 0);
}

static bool batch_fits(const struct batch *b, uint32_t blocks, uint32_t extents, enum room_class class)
{
	const struct lineage *lin = b->stream->lin;
	uint32_t data = b->data + blocks;

	return data <= BATCH_DATA_MAX &&
	       (b->extents + extents) * sizeof(struct batch_extent) + data * sizeof(le32) <= BATCH_BODY_BYTES &&
	       b->start + batch_total_blocks(data, lin->policy.k) <= room_end(b->stream, class);
}

static struct batch_extent *extent_at(struct batch *b, uint32_t i)
{
	struct batch_header *h = (struct batch_header *)b->buf;

	return (struct batch_extent *)h->body + i;
}

void batch_add_extent(struct batch *b, enum batch_op op, uint32_t volume, uint64_t lba, uint64_t count)
{
	*extent_at(b, b->extents++) = (struct batch_extent){
		.lba = le64_of(lba),
		.count = le32_of((uint32_t)count),
		.count_high = le32_of((uint32_t)(count >> 32)),
		.volume = le32_of(volume),
		.op = le32_of(op),
	};
}

uint8_t *batch_add_block(struct batch *b, uint32_t *index)
{
	uint32_t at = 1 + b->data++;

	*index = b->start + at;
	return b->buf + (size_t)at * BLOCK_BYTES;
}

void batch_set_crc(struct batch *b, uint32_t crc)
{
	b->crc[b->data - 1] = crc;
}

static void batch_fill_header(struct batch *b)
{
	struct lineage *lin = b->stream->lin;
	struct batch_header *h = (struct batch_header *)b->buf;
	size_t extent_bytes = b->extents * sizeof(struct batch_extent);
	le32 *crcs = (le32 *)(h->body + extent_bytes);

	h->lineage = le64_of(lin->id);
	h->grant = le64_of(b->lseg->seg.grant);
	h->seq = le64_of(b->seq);
	h->flushed_seq = le64_of(lin->flushed_seq);
	h->segno = le32_of(b->lseg->seg.segno);
	h->index = le32_of(b->start);
	h->data_blocks = le32_of(b->data);
	h->total_blocks = le32_of(b->total);
	h->extent_count = le16_of((uint16_t)b->extents);
	h->stream = (uint8_t)b->stream->id;
	h->k = lin->policy.k;
	h->m = lin->policy.m;
	memset(h->zero, 0, sizeof(h->zero));
	for (uint32_t i = 0; i < b->data; i++)
		crcs[i] = le32_of(b->crc[i]);
	memset(crcs + b->data, 0, BATCH_BODY_BYTES - extent_bytes - b->data * sizeof(le32));
	batch_header_seal(h);
}

static void flush_start(struct lineage *lin);

/* --- writing and retiring --------------------------------------------------------------------------------- */

static void count_written(struct lineage *lin, const struct batch *b)
{
	uint64_t bytes = (uint64_t)b->total * BLOCK_BYTES * (lin->policy.k + lin->policy.m) / lin->policy.k;

	lin->counters.batches++;
	if (b->stream->id == STREAM_META) {
		lin->counters.meta_bytes_written += bytes;
		return;
	}
	lin->counters.data_bytes_written += bytes;
	if (b->stream->id != STREAM_DATA)
		return;
	lin->log_bytes += bytes;
	lin->unflushed_bytes += bytes;
	checkpoint_later(lin);
}

void log_mark_dirty(struct lineage *lin, const struct segment *seg)
{
	for (uint32_t c = 0; c < (uint32_t)seg->policy.k + seg->policy.m; c++) {
		uint32_t id = seg->cols[c].disk_id;

		if (id != DISK_NONE)
			lin->dirty_disks[id / 64] |= 1ull << id % 64;
	}
}

static void acknowledge(struct lineage *lin, struct list *vios, int res)
{
	struct list *node;

	while ((node = list_pop_front(vios))) {
		struct vio *vio = list_entry(node, struct vio, node);

		if (res == 0 && vio->fua)
			log_flush_vio(lin, vio);
		else
			vio_finish(vio, res);
	}
}

void batch_retire(struct batch *b)
{
	struct stream *st = b->stream;
	struct lineage *lin = st->lin;
	struct list vios;

	list_init(&vios);
	list_splice_back(&vios, &b->vios);
	list_del(&b->node);
	st->inflight_count--;
	b->lseg->unwritten--;
	log_mark_dirty(lin, &b->lseg->seg);
	b->lseg->flush_round = lin->flush_round;
	if (b->res == 0)
		st->relocations = 0;
	if (st->id == STREAM_DATA && b->res == 0)
		lin->completed_seq = b->seq;
	acknowledge(lin, &vios, lin->failed ? lin->failed : b->res);
	batch_free(lin->vl, b);
}

/* Retires in log order what is done; true if the oldest has failed and nothing is in flight any more. */
static bool retire_done(struct stream *st)
{
	while (!list_empty(&st->inflight)) {
		struct batch *b = list_entry(st->inflight.next, struct batch, node);

		if (!b->done || b->res < 0)
			break;
		batch_retire(b);
	}
	list_for_each(node, &st->inflight) {
		if (!list_entry(node, struct batch, node)->done)
			return false;
	}
	return !list_empty(&st->inflight);
}

static void batch_written(struct seg_io *io, int res)
{
	struct batch *b = container_of(io, struct batch, io);
	struct stream *st = b->stream;
	struct lineage *lin = st->lin;

	b->done = true;
	b->res = res;
	if (retire_done(st))
		relocate_start(st);
	if (lin->unflushed_bytes > UNFLUSHED_BYTES_MAX)
		flush_start(lin);        /* bounds what recovery has to verify */
	stream_kick(st);
	lineage_drain_soon(lin);
	checkpoint_if_due(lin);
}

void batch_submit(struct batch *b)
{
	struct lineage *lin = b->stream->lin;

	batch_fill_header(b);
	memset(b->buf + (size_t)(1 + b->data) * BLOCK_BYTES, 0, (size_t)(b->total - 1 - b->data) * BLOCK_BYTES);
	count_written(lin, b);
	b->iov = (struct iovec){ b->buf, (size_t)b->total * BLOCK_BYTES };
	b->io = (struct seg_io){ .op = DISK_WRITE, .segment = &b->lseg->seg, .index = b->start, .count = b->total,
				 .iov = &b->iov, .iov_count = 1, .done = batch_written };
	segment_submit(lin->pool, &b->io);
}

static void submit_open(struct stream *st)
{
	struct batch *b = st->open;

	st->open = NULL;
	b->total = batch_total_blocks(b->data, st->lin->policy.k);
	st->head += b->total;
	if (st->id == STREAM_DATA)
		b->lseg->last_seq = b->seq;
	list_push_back(&st->inflight, &b->node);
	st->inflight_count++;
	batch_submit(b);
}

/* Whether the open batch leaves now, or goes on gathering until more of what is in flight is done. With at least as much in
 * it as is being written, waiting would leave the disk with less to do than there is; with less, it would pay a header and
 * an I/O for little. */
static bool may_leave(const struct stream *st)
{
	uint32_t writing = 0;

	if (st->relocating || st->inflight_count == STREAM_INFLIGHT_MAX)
		return false;
	list_for_each(node, &st->inflight) {
		const struct batch *b = list_entry(node, struct batch, node);

		writing += b->done ? 0 : b->data;
	}
	return st->open->data >= writing;
}

static void kick_task(struct task *task)
{
	struct stream *st = container_of(task, struct stream, kick);

	st->kick_posted = false;
	if (st->open && st->open->extents > 0 && may_leave(st))
		submit_open(st);
}

void stream_kick(struct stream *st)
{
	if (st->kick_posted || !st->open)
		return;
	st->kick_posted = true;
	loop_post(st->lin->loop, &st->kick);
}

void stream_push(struct stream *st)
{
	while (st->open && st->open->extents > 0 && (st->inflight_count >= STREAM_INFLIGHT_MAX || st->relocating))
		waitq_wait(&st->lin->room);
	if (st->open && st->open->extents > 0)
		submit_open(st);
}

int stream_wait_written(struct stream *st, uint64_t seq)
{
	struct lineage *lin = st->lin;

	while (!lin->failed && !list_empty(&st->inflight) &&
	       list_entry(st->inflight.next, struct batch, node)->seq <= seq)
		waitq_wait(&lin->room);
	return lin->failed ? lin->failed : st->error;
}

/* --- room ------------------------------------------------------------------------------------------------- */

/* Takes the segment granted ahead. Until there is one the old stays open: discards may still use its tail. */
static int next_segment(struct stream *st, enum room_class class)
{
	if (!st->next) {
		grant_ahead(st, class);
		return -EAGAIN;
	}
	if (st->seg)
		st->seg->held = false;
	st->seg = st->next;
	st->reserve = st->next_reserve;
	st->next = NULL;
	st->head = 0;
	st->last_grant = st->seg->seg.grant;
	return 0;
}

/* What is in flight and one more batch fit a segment: relocate.c moves them all to a fresh one. */
static bool may_move_on(const struct stream *st)
{
	uint32_t blocks = BATCH_BLOCKS_MAX;

	list_for_each(node, &st->inflight)
		blocks += list_entry(node, struct batch, node)->total;
	return blocks <= st->lin->segment_blocks;
}

static int open_with_room(struct stream *st, uint32_t blocks, enum room_class class)
{
	struct lineage *lin = st->lin;
	int rc = 0;

	if (!may_move_on(st))
		return -EAGAIN;
	if (!st->seg || st->head + batch_total_blocks(blocks, lin->policy.k) > room_end(st, class))
		rc = next_segment(st, class);
	if (rc < 0)
		return rc;
	if (st->head > lin->segment_blocks / 2 && st->id != STREAM_MOVE)
		grant_ahead(st, class);  /* nobody waits for what is moved */
	return batch_open(st) ? 0 : -EAGAIN;
}

int log_room(struct stream *st, uint32_t blocks, uint32_t extents, enum room_class class, struct batch **out)
{
	struct lineage *lin = st->lin;

	if (lin->failed || st->error)
		return lin->failed ? lin->failed : st->error;
	if (st->relocating || (st->reserve && lin->nospace && class == ROOM_DATA))
		return -EAGAIN;
	if (st->open && !batch_fits(st->open, blocks, extents, class)) {
		if (st->inflight_count >= STREAM_INFLIGHT_MAX)
			return -EAGAIN;
		submit_open(st);
	}
	if (!st->open) {
		int rc = open_with_room(st, blocks, class);

		if (rc < 0)
			return rc;
	}
	*out = st->open;
	return 0;
}

static void drain_task(struct task *task)
{
	struct lineage *lin = container_of(task, struct lineage, drain);

	lin->drain_posted = false;
	io_drain(lin);
	waitq_wake_all(&lin->room);
}

void lineage_drain_soon(struct lineage *lin)
{
	if (lin->drain_posted)
		return;
	lin->drain_posted = true;
	loop_post(lin->loop, &lin->drain);
}

static void retry_fired(struct timer *timer)
{
	struct lineage *lin = container_of(timer, struct lineage, retry);

	if (!list_empty(&lin->flush_waiters))
		flush_start(lin);
	io_start_slow(lin);
	lineage_drain_soon(lin);
}

void lineage_retry_later(struct lineage *lin)
{
	if (lin->retry.heap_pos == 0)
		(void)timer_arm(lin->loop, &lin->retry, loop_now_ns(lin->loop) + MEMORY_RETRY_NS);
}

void lineage_starve(struct lineage *lin, bool no_memory)
{
	if (list_empty(&lin->starved))
		list_push_back(&lin->vl->starved, &lin->starved);
	if (no_memory)
		lineage_retry_later(lin);
}

static const uint8_t *block_in(const struct batch *b, const struct lseg *lseg, uint32_t index)
{
	if (b->lseg != lseg || index <= b->start || index > b->start + b->data)
		return NULL;
	return b->buf + (size_t)(index - b->start) * BLOCK_BYTES;
}

const uint8_t *log_find_unwritten(const struct lineage *lin, const struct lseg *lseg, uint32_t index)
{
	const struct stream *st = &lin->stream[lseg->seg.stream];
	const uint8_t *found;

	if (lseg->unwritten == 0)
		return NULL;
	if (st->open && (found = block_in(st->open, lseg, index)))
		return found;
	list_for_each(node, &st->inflight) {
		found = block_in(list_entry(node, struct batch, node), lseg, index);
		if (found)
			return found;
	}
	return NULL;
}

/* --- flush ------------------------------------------------------------------------------------------------ */

/* A fiber waiting for a flush. Shares the list with vios: told apart by vio->volume being NULL. */
struct flush_wait {
	struct vio vio;
	struct fiber *fiber;
	bool done;
};

/* Is what was written since the last good flush durable on k columns? */
static bool round_is_whole(const struct lineage *lin, uint64_t round)
{
	for (uint32_t i = 0; i < lin->segs_cap; i++) {
		const struct lseg *lseg = lin->segs[i];

		if (lseg && lseg->flush_round == round && !segment_is_whole(lin->pool, &lseg->seg))
			return false;
	}
	return true;
}

/* Disks whose flush failed are lost; that the pool goes on without them is durable before anybody is told of success. */
static int flush_dirty_disks(struct lineage *lin)
{
	uint64_t dirty[DISK_SET_WORDS], round = lin->flush_round++;
	bool lost = false;
	int rc = 0;

	memcpy(dirty, lin->dirty_disks, sizeof(dirty));
	memset(lin->dirty_disks, 0, sizeof(dirty));
	pool_flush_disks(lin->pool, dirty);
	for (uint32_t disk = 0; disk < POOL_DISKS_MAX && rc == 0; disk++) {
		if (!(dirty[disk / 64] & 1ull << disk % 64))
			continue;
		lost = true;
		rc = lin->policy.m > 0 ? pool_lose_disk(lin->pool, disk) : -EIO;
	}
	return rc == 0 && lost && !round_is_whole(lin, round) ? -EIO : rc;
}

static void finish_flushed(struct list *vios, int res)
{
	struct list *node;

	while ((node = list_pop_front(vios))) {
		struct vio *vio = list_entry(node, struct vio, node);

		if (vio->volume) {
			vio_finish(vio, res);
			continue;
		}
		struct flush_wait *w = container_of(vio, struct flush_wait, vio);

		w->vio.res = res;
		w->done = true;
		fiber_wake(w->fiber);
	}
}

/* Serves all who wait, then all who came meanwhile, until nobody waits. A flush that fails is never repeated: what was
 * written since the last good one is suspect on that disk, so the log stops unless the other disks are enough. */
static void flush_fiber(void *arg)
{
	struct lineage *lin = arg;

	do {
		uint64_t seq = lin->completed_seq;
		struct list vios;
		int rc;

		list_init(&vios);
		list_splice_back(&vios, &lin->flush_waiters);
		lin->unflushed_bytes = 0;
		rc = lin->failed ? lin->failed : flush_dirty_disks(lin);
		if (rc < 0)
			lineage_fail(lin, rc);
		else
			lin->flushed_seq = seq;
		finish_flushed(&vios, rc);
	} while (!list_empty(&lin->flush_waiters));
	lin->flushing = false;
	lineage_fiber_end(lin);
}

static void flush_start(struct lineage *lin)
{
	if (!lin->flushing)
		lin->flushing = lineage_fiber(lin, flush_fiber, lin) == 0;
	if (!lin->flushing)
		lineage_retry_later(lin);
}

void log_flush_vio(struct lineage *lin, struct vio *vio)
{
	list_push_back(&lin->flush_waiters, &vio->node);
	flush_start(lin);
}

int log_flush_wait(struct lineage *lin)
{
	struct flush_wait w = { .vio = { .op = VIO_FLUSH }, .fiber = fiber_self() };

	log_flush_vio(lin, &w.vio);
	while (!w.done)
		fiber_park();
	return w.vio.res;
}

/* --- failure, life ---------------------------------------------------------------------------------------- */

void lineage_fail(struct lineage *lin, int error)
{
	if (!lin->failed)
		lin->failed = error;
	lineage_drain_soon(lin);
}

static void stream_init(struct lineage *lin, enum segment_stream id)
{
	struct stream *st = &lin->stream[id];

	*st = (struct stream){ .lin = lin, .id = id, .next_seq = 1 };
	st->kick.fn = kick_task;
	list_init(&st->kick.node);
	list_init(&st->inflight);
}

void log_init(struct lineage *lin)
{
	for (int id = 0; id < STREAM_COUNT; id++)
		stream_init(lin, (enum segment_stream)id);
	lin->flush_round = 1;
	list_init(&lin->flush_waiters);
	list_init(&lin->wait_writes);
	list_init(&lin->wait_holes);
	list_init(&lin->starved);
	waitq_init(&lin->room);
	lin->drain.fn = drain_task;
	timer_init(&lin->retry, retry_fired);
	list_init(&lin->drain.node);
}

void log_release(struct lineage *lin)
{
	for (uint32_t i = 0; i < lin->segs_cap; i++) {
		if (lin->segs[i])
			lseg_del(lin, lin->segs[i]);
	}
	mem_free(lin->segs);
	list_del(&lin->starved);
}
