/* Requests on a volume: how a vio becomes log appends, map look-ups and disk reads.
 *
 * WRITE, DISCARD, WRITE_ZEROES: everything of one request goes into one batch. A whole-block request is appended at once
 * (or waits for room); one that covers blocks in part goes to a fiber that fetches those blocks, makes sure that they
 * are still current, merges and appends without giving way in between.
 *
 * READ: mappings are looked up in the overlays and, if its nodes are cached, in the tree; runs that are contiguous on disk
 * are read straight into the caller's memory and verified there. Whatever does not go smoothly (a node to fetch, a
 * request not aligned to blocks, an error, a checksum that does not match) is done again on a fiber with a private
 * buffer, which alone decides that a block is lost. */
#include <errno.h>
#include <string.h>

#include "pool/base/crc32c.h"
#include "pool/base/mem.h"
#include "volumes/lineage.h"

#define REREADS_MAX 8            /* a block whose mapping changes under us again and again */
#define SLOW_READ_BLOCKS 64u     /* read at once on a fiber */

/* --- completion ------------------------------------------------------------------------------------------- */

static void count(const struct vio *vio, int res)
{
	struct volume_counters *c = &vio->volume->state->counters;

	c->ios[vio->op]++;
	c->bytes[vio->op] += vio->len_bytes;
	c->errors[vio->op] += res < 0;
}

void vio_finish(struct vio *vio, int res)
{
	if (res != -ECANCELED)           /* then it was never begun */
		count(vio, res);
	vio->done(vio, res);
}

static void finish_task(struct task *task)
{
	struct vio *vio = container_of(task, struct vio, task);

	vio_finish(vio, vio->res);
}

static struct volume_state *state_of(const struct vio *vio)
{
	return vio->volume->state;
}

void vio_finish_soon(struct vio *vio, int res)
{
	vio->res = res;
	vio->task.fn = finish_task;
	list_init(&vio->task.node);
	loop_post(state_of(vio)->lin->loop, &vio->task);
}

/* --- geometry --------------------------------------------------------------------------------------------- */

/* A request in blocks. A partial block is one that the request covers only in part. */
struct span {
	uint64_t lba;            /* first block touched */
	uint32_t count;          /* blocks touched; READ and WRITE only */
	bool head_partial, tail_partial;     /* one partial block only: head */
};

static struct span span_of(const struct vio *vio)
{
	uint64_t end = vio->off_bytes + vio->len_bytes;
	uint64_t last = (end - 1) >> BLOCK_SHIFT;
	struct span s = { .lba = vio->off_bytes >> BLOCK_SHIFT };

	s.count = (uint32_t)(last - s.lba + 1);
	s.head_partial = vio->off_bytes % BLOCK_BYTES != 0 || (s.lba == last && end % BLOCK_BYTES != 0);
	s.tail_partial = s.lba != last && end % BLOCK_BYTES != 0;
	return s;
}

/* A place in an iovec array. */
struct cursor {
	const struct iovec *iov;
	size_t off;
};

/* The contiguous piece at the cursor, at most len > 0 bytes. */
static uint8_t *cursor_piece(struct cursor *c, size_t len, size_t *piece)
{
	while (c->off == c->iov->iov_len) {
		c->iov++;
		c->off = 0;
	}
	*piece = c->iov->iov_len - c->off;
	if (*piece > len)
		*piece = len;
	c->off += *piece;
	return (uint8_t *)c->iov->iov_base + c->off - *piece;
}

static void cursor_skip(struct cursor *c, size_t len)
{
	for (size_t piece; len > 0; len -= piece)
		cursor_piece(c, len, &piece);
}

static void cursor_read(struct cursor *c, uint8_t *buf, size_t len)
{
	for (size_t piece; len > 0; len -= piece, buf += piece) {
		const uint8_t *at = cursor_piece(c, len, &piece);

		memcpy(buf, at, piece);
	}
}

static void cursor_write(struct cursor *c, const uint8_t *buf, size_t len)
{
	for (size_t piece; len > 0; len -= piece, buf += piece) {
		uint8_t *at = cursor_piece(c, len, &piece);

		memcpy(at, buf, piece);
	}
}

static void cursor_zero(struct cursor *c, size_t len)
{
	for (size_t piece; len > 0; len -= piece) {
		uint8_t *at = cursor_piece(c, len, &piece);

		memset(at, 0, piece);
	}
}

static uint32_t cursor_crc(struct cursor *c, size_t len)
{
	uint32_t crc = 0;

	for (size_t piece; len > 0; len -= piece) {
		const uint8_t *at = cursor_piece(c, len, &piece);

		crc = crc32c(crc, at, piece);
	}
	return crc;
}

/* Describes `len` bytes from the cursor as iovecs; returns how many, 0 if more than cap. Moves on. */
static uint32_t cursor_slice(struct cursor *c, size_t len, struct iovec *out, uint32_t cap)
{
	uint32_t n = 0;

	for (size_t piece; len > 0; len -= piece) {
		uint8_t *at = cursor_piece(c, len, &piece);

		if (n == cap)
			return 0;
		out[n++] = (struct iovec){ at, piece };
	}
	return n;
}

/* --- look-up ---------------------------------------------------------------------------------------------- */

static bool same_mapping(const struct mapping *a, const struct mapping *b)
{
	if (mapping_is_hole(a) || mapping_is_hole(b))
		return mapping_is_hole(a) && mapping_is_hole(b);
	return a->segno == b->segno && a->index == b->index && a->crc == b->crc;
}

/* Where the block of a mapping is, which it then says. Checked: the map on disk may say anything. */
static int locate(struct lineage *lin, struct mapping *m, bool wait)
{
	return mapping_is_hole(m) ? 0 : places_locate(lin, &m->segno, &m->index, wait);
}

static void reader_begin(struct lineage *lin, struct vio *vio)
{
	vio->reader_slot = lin->reader_gen & 1;
	lin->readers[vio->reader_slot]++;
}

static void reader_end(struct lineage *lin, struct vio *vio)
{
	if (--lin->readers[vio->reader_slot] == 0)
		waitq_wake_all(&lin->readers_gone);
}

/* --- slow operations: one fiber each, a limited number ---------------------------------------------------- */

static void slow_serve(struct vio *vio);

static void slow_fiber(void *arg)
{
	struct slow_class *class = arg;
	struct lineage *lin = class->lin;
	struct list *node;

	while ((node = list_pop_front(&class->queue)))
		slow_serve(list_entry(node, struct vio, node));
	class->running--;
	lineage_fiber_end(lin);
}

static void start_fiber(struct slow_class *class)
{
	if (list_empty(&class->queue) || class->running == SLOW_OPS_MAX)
		return;
	if (lineage_fiber(class->lin, slow_fiber, class) == 0)
		class->running++;
	else
		lineage_retry_later(class->lin);
}

void io_start_slow(struct lineage *lin)
{
	for (int i = 0; i < SLOW_CLASSES; i++)
		start_fiber(&lin->slow[i]);
}

static enum slow_class_id slow_class_of(const struct vio *vio)
{
	return vio->op == VIO_READ ? SLOW_READS : vio->op == VIO_WRITE ? SLOW_WRITES : SLOW_HOLES;
}

static void slow_start(struct vio *vio)
{
	struct slow_class *class = &state_of(vio)->lin->slow[slow_class_of(vio)];

	list_push_back(&class->queue, &vio->node);
	start_fiber(class);
}

/* Reads one block through a private buffer and verifies it; the mapping is looked up again when it has changed. */
static int read_block(struct volume_state *vol, uint64_t lba, struct mapping *m, uint8_t *buf)
{
	struct lineage *lin = vol->lin;
	int rc = -EIO;

	for (int tries = 0; tries < REREADS_MAX; tries++) {
		struct mapping before = *m, at = *m;
		const struct lseg *lseg;
		const uint8_t *unwritten;

		if (mapping_is_hole(m)) {
			memset(buf, 0, BLOCK_BYTES);
			return 0;
		}
		rc = locate(lin, &at, true);
		if (rc < 0)
			return rc;
		lseg = lseg_get(lin, at.segno);
		unwritten = log_find_unwritten(lin, lseg, at.index);
		if (unwritten) {
			memcpy(buf, unwritten, BLOCK_BYTES);
			return 0;
		}
		if (scan_read_block(lin, lseg, at.index, m->crc, buf) == 0)
			return 0;
		rc = volume_lookup(vol, lba, 1, m, true);
		if (rc < 0)
			return rc;
		if (same_mapping(&before, m))
			break;           /* it is lost */
	}
	return -EIO;
}

/* How many blocks from the first on can be read in one go: contiguous on disk, none but perhaps the first in a buffer. */
static uint32_t run_length(const struct lineage *lin, const struct lseg *lseg, const struct mapping *map, uint32_t max)
{
	uint32_t n = 1;

	while (n < max && map[n].segno == map->segno && map[n].index == map->index + n &&
	       !log_find_unwritten(lin, lseg, map[n].index))
		n++;
	return n;
}

/* Tries to read what follows the first block on disk with it. Returns how many blocks that is; *good: they are in buf,
 * not verified. */
static uint32_t read_ahead(struct lineage *lin, const struct mapping *at, uint32_t max, uint8_t *buf, bool *good)
{
	const struct lseg *lseg = mapping_is_hole(at) ? NULL : lseg_get(lin, at->segno);
	uint32_t n = 1;

	*good = false;
	if (!lseg || log_find_unwritten(lin, lseg, at->index))
		return n;
	n = run_length(lin, lseg, at, max);
	*good = n > 1 && segment_read(lin->pool, &lseg->seg, at->index, n, buf) == 0;
	return n;
}

/* *map: by name; *at: where the blocks lie. */
static int find_blocks(struct volume_state *vol, uint64_t lba, uint32_t count, struct mapping *map, struct mapping *at)
{
	int rc = volume_lookup(vol, lba, count, map, true);

	for (uint32_t i = 0; i < count && rc == 0; i++) {
		at[i] = map[i];
		rc = locate(vol->lin, &at[i], true);
	}
	return rc;
}

/* Blocks lba..lba+count, a disk run at a time; one that is not right then is read by itself. */
static int read_blocks(struct volume_state *vol, uint64_t lba, uint32_t count, uint8_t *buf)
{
	struct mapping map[SLOW_READ_BLOCKS], at[SLOW_READ_BLOCKS];
	int rc = find_blocks(vol, lba, count, map, at);

	for (uint32_t i = 0, n; i < count && rc == 0; i += n) {
		bool good;

		n = read_ahead(vol->lin, &at[i], count - i, buf + (size_t)i * BLOCK_BYTES, &good);
		for (uint32_t j = i; j < i + n && rc == 0; j++) {
			uint8_t *block = buf + (size_t)j * BLOCK_BYTES;

			if (!good || crc32c(0, block, BLOCK_BYTES) != map[j].crc)
				rc = read_block(vol, lba + j, &map[j], block);
		}
	}
	return rc;
}

/* Reads everything through private memory. */
static int read_slowly(struct vio *vio)
{
	struct cursor cur = { vio->iov, 0 };
	uint64_t off = vio->off_bytes, end = off + vio->len_bytes;
	uint32_t blocks = span_of(vio).count < SLOW_READ_BLOCKS ? span_of(vio).count : SLOW_READ_BLOCKS;
	uint8_t *buf = mem_alloc_aligned(BLOCK_BYTES, (size_t)blocks * BLOCK_BYTES);
	int rc = buf ? 0 : -ENOMEM;

	while (rc == 0 && off < end) {
		size_t in_block = off % BLOCK_BYTES;
		size_t len = (size_t)blocks * BLOCK_BYTES - in_block;

		if (len > end - off)
			len = end - off;
		rc = read_blocks(state_of(vio), off >> BLOCK_SHIFT,
				 (uint32_t)((in_block + len + BLOCK_BYTES - 1) >> BLOCK_SHIFT), buf);
		if (rc == 0)
			cursor_write(&cur, buf + in_block, len);
		off += len;
	}
	mem_free(buf);
	return rc;
}

/* --- fast reads ------------------------------------------------------------------------------------------- */

struct read_op {
	struct list node;
	struct vio *vio;
	struct span span;
	uint32_t pending, runs, iovs;
	int res;
	struct mapping map[VIO_BLOCKS_MAX];  /* where the blocks lie */
	uint32_t crc[VIO_BLOCKS_MAX];    /* as read; a run's io->crc points to its first block's */
	struct seg_io io[READ_RUNS_MAX];
	struct iovec iov[READ_IOVS_MAX];
};

static struct read_op *read_alloc(struct vloop *vl)
{
	struct list *node = list_pop_front(&vl->free_reads);
	struct read_op *op;

	if (node)
		return list_entry(node, struct read_op, node);
	if (vl->reads == READS_PER_LOOP)
		return NULL;
	op = mem_alloc(sizeof(*op));
	if (op)
		vl->reads++;
	return op;
}

static void read_free(struct vloop *vl, struct read_op *op)
{
	struct list *starved;

	list_push_front(&vl->free_reads, &op->node);
	starved = list_pop_front(&vl->starved);
	if (starved)
		lineage_drain_soon(list_entry(starved, struct lineage, starved));
}

static bool run_verify(const struct read_op *op, const struct seg_io *io)
{
	const struct mapping *map = op->map + (io->crc - op->crc);
	struct cursor cur = { io->iov, 0 };

	for (uint32_t i = 0; i < io->count; i++) {
		if ((io->has_crc ? io->crc[i] : cursor_crc(&cur, BLOCK_BYTES)) != map[i].crc)
			return false;
	}
	return true;
}

static bool read_verify(const struct read_op *op)
{
	for (uint32_t i = 0; i < op->runs; i++) {
		if (!run_verify(op, &op->io[i]))
			return false;
	}
	return true;
}

static void read_finish(struct read_op *op)
{
	struct vio *vio = op->vio;
	struct lineage *lin = state_of(vio)->lin;
	bool good = op->res == 0 && read_verify(op);

	read_free(lin->vl, op);
	if (!good) {
		slow_start(vio);         /* still counted as a reader */
		return;
	}
	reader_end(lin, vio);
	vio_finish(vio, 0);
}

static void read_run_done(struct seg_io *io, int res)
{
	struct read_op *op = io->priv;

	if (res < 0)
		op->res = res;
	if (--op->pending == 0)
		read_finish(op);
}

/* Adds the disk run that begins at block i; 0 if it does not fit the op. */
static uint32_t add_run(struct read_op *op, struct lineage *lin, struct lseg *lseg, uint32_t i, struct cursor *cur)
{
	uint32_t n = run_length(lin, lseg, &op->map[i], op->span.count - i);
	struct iovec *iov = op->iov + op->iovs;
	uint32_t iovs;

	if (op->runs == READ_RUNS_MAX)
		return 0;
	iovs = cursor_slice(cur, (size_t)n * BLOCK_BYTES, iov, READ_IOVS_MAX - op->iovs);
	if (iovs == 0)
		return 0;
	op->io[op->runs++] = (struct seg_io){ .op = DISK_READ, .segment = &lseg->seg, .index = op->map[i].index,
					      .count = n, .iov = iov, .iov_count = iovs, .crc = op->crc + i,
					      .done = read_run_done, .priv = op };
	op->iovs += iovs;
	return n;
}

/* Finds the blocks. False: not for the fast path. */
static bool read_locate(struct read_op *op, struct volume_state *vol)
{
	if (volume_lookup(vol, op->span.lba, op->span.count, op->map, false) < 0)
		return false;
	for (uint32_t i = 0; i < op->span.count; i++) {
		if (locate(vol->lin, &op->map[i], false) < 0)
			return false;
	}
	return true;
}

/* Copies what is in memory, zeroes holes, collects disk runs. False: not for the fast path. */
static bool read_plan(struct read_op *op, struct lineage *lin)
{
	struct cursor cur = { op->vio->iov, 0 };
	uint32_t i = 0;

	while (i < op->span.count) {
		const struct mapping *m = &op->map[i];
		struct lseg *lseg = mapping_is_hole(m) ? NULL : lseg_get(lin, m->segno);
		const uint8_t *unwritten;
		uint32_t n = 1;

		if (!lseg) {
			cursor_zero(&cur, BLOCK_BYTES);
		} else if ((unwritten = log_find_unwritten(lin, lseg, m->index))) {
			cursor_write(&cur, unwritten, BLOCK_BYTES);
		} else {
			n = add_run(op, lin, lseg, i, &cur);
			if (n == 0)
				return false;
		}
		i += n;
	}
	return true;
}

static void read_submit(struct read_op *op, struct lineage *lin)
{
	uint32_t runs = op->runs;

	op->pending = runs + 1;
	for (uint32_t i = 0; i < runs; i++)
		segment_submit(lin->pool, &op->io[i]);
	if (--op->pending > 0)
		return;
	reader_end(lin, op->vio);        /* all of it was in memory */
	vio_finish_soon(op->vio, 0);
	read_free(lin->vl, op);
}

static bool whole_blocks(const struct vio *vio)
{
	return (vio->off_bytes | vio->len_bytes) % BLOCK_BYTES == 0;
}

/* False: no read slot free; try again after a drain. */
static bool read_start(struct vio *vio)
{
	struct volume_state *vol = state_of(vio);
	struct lineage *lin = vol->lin;
	struct read_op *op;

	if (!whole_blocks(vio)) {
		reader_begin(lin, vio);
		slow_start(vio);
		return true;
	}
	op = read_alloc(lin->vl);
	if (!op) {
		lineage_starve(lin, lin->vl->reads < READS_PER_LOOP);
		return false;
	}
	reader_begin(lin, vio);
	op->vio = vio;
	op->span = span_of(vio);
	op->runs = op->iovs = 0;
	op->res = 0;
	if (read_locate(op, vol) && read_plan(op, lin)) {
		read_submit(op, lin);
	} else {
		read_free(lin->vl, op);
		slow_start(vio);
	}
	return true;
}

/* --- appends ---------------------------------------------------------------------------------------------- */

/* The merged content of the partial blocks of a request. */
struct edges {
	uint8_t *head, *tail;
};

static bool in_range(const struct volume_state *vol, const struct vio *vio)
{
	uint64_t end = vio->internal ? VOLUME_SIZE_MAX : vol->size_bytes;

	return vio->off_bytes <= end && vio->len_bytes <= end - vio->off_bytes;
}

/* Takes a block from the cursor; its checksum. */
static uint32_t cursor_read_block(struct cursor *c, uint8_t *to)
{
	size_t piece;
	const uint8_t *at = cursor_piece(c, BLOCK_BYTES, &piece);
	uint32_t crc;

	if (piece == BLOCK_BYTES) {
		crc32c_copy(to, at, 1, &crc);
		return crc;
	}
	memcpy(to, at, piece);
	cursor_read(c, to + piece, BLOCK_BYTES - piece);
	return crc32c(0, to, BLOCK_BYTES);
}

static int append_block(struct batch *b, struct volume_state *vol, uint64_t lba, struct cursor *cur, const uint8_t *edge)
{
	struct mapping m = { .segno = b->lseg->seg.segno, .birth = vol->lin->birth };
	uint8_t *to = batch_add_block(b, &m.index);

	if (edge)
		crc32c_copy(to, edge, 1, &m.crc);
	else
		m.crc = cursor_read_block(cur, to);
	batch_set_crc(b, m.crc);
	return volume_map_block(vol, lba, &m);
}

static int append_data(struct batch *b, const struct vio *vio, const struct edges *edges)
{
	struct volume_state *vol = state_of(vio);
	struct span s = span_of(vio);
	struct cursor cur = { vio->iov, 0 };
	int rc = 0;

	batch_add_extent(b, BATCH_DATA, vol->number, s.lba, s.count);
	for (uint32_t i = 0; i < s.count; i++) {
		const uint8_t *edge = NULL;
		int put;

		if (i == 0 && s.head_partial) {
			edge = edges->head;
			if (s.count > 1)
				cursor_skip(&cur, BLOCK_BYTES - vio->off_bytes % BLOCK_BYTES);
		} else if (i == s.count - 1 && s.tail_partial) {
			edge = edges->tail;
		}
		put = append_block(b, vol, s.lba + i, &cur, edge);
		if (put < 0)
			rc = put;
	}
	return rc;
}

static int append_edge(struct batch *b, struct volume_state *vol, uint64_t lba, const uint8_t *edge)
{
	batch_add_extent(b, BATCH_DATA, vol->number, lba, 1);
	return append_block(b, vol, lba, NULL, edge);
}

/* Blocks covered whole become a hole; partial ones are written with their zeroes. */
static int append_hole(struct batch *b, const struct vio *vio, const struct edges *edges)
{
	struct volume_state *vol = state_of(vio);
	uint64_t end = vio->off_bytes + vio->len_bytes;
	uint64_t first = (vio->off_bytes + BLOCK_BYTES - 1) >> BLOCK_SHIFT, last = end >> BLOCK_SHIFT;
	int rc[3] = { 0 };

	if (edges->head)
		rc[0] = append_edge(b, vol, vio->off_bytes >> BLOCK_SHIFT, edges->head);
	if (last > first) {
		batch_add_extent(b, BATCH_HOLE, vol->number, first, last - first);
		rc[1] = volume_map_hole(vol, first, last - first);
	}
	if (edges->tail)
		rc[2] = append_edge(b, vol, end >> BLOCK_SHIFT, edges->tail);
	return rc[0] < 0 ? rc[0] : rc[1] < 0 ? rc[1] : rc[2]; /* but the batch has all of the request */
}

static bool too_many_changes(const struct lineage *lin)
{
	return lin->changes >= 2 * volumes_options(lin->vols)->overlay_entries_max;
}

/* 0: appended, the batch completes the vio. -EAGAIN: no room now. Other: refused. */
static int append(struct vio *vio, const struct edges *edges)
{
	struct volume_state *vol = state_of(vio);
	struct stream *st = &vol->lin->stream[STREAM_DATA];
	bool hole = vio->op != VIO_WRITE;
	struct batch *b;
	int rc;

	if (!in_range(vol, vio))
		return -EINVAL;
	if (!volume_is_writable(vol))
		return -EROFS;
	if (!vio->internal && !volume_is_writer(vio->volume))
		return volume_is_fenced(vio->volume) ? -ESTALE : -EROFS;
	if (vol->lin->failed || vol->lin->closing)
		return vol->lin->failed ? vol->lin->failed : -EIO;
	if (vol->lin->held > 0)
		return -EAGAIN;
	if (too_many_changes(vol->lin)) {
		checkpoint_start(vol->lin);
		return -EAGAIN;
	}
	rc = hole ? log_room(st, 2, 3, ROOM_HOLE, &b) : log_room(st, span_of(vio).count, 1, ROOM_DATA, &b);
	if (rc < 0)
		return rc;
	rc = hole ? append_hole(b, vio, edges) : append_data(b, vio, edges);
	if (rc < 0)
		lineage_fail(vol->lin, rc); /* the overlay no longer tells what the log says */
	list_push_back(&b->vios, &vio->node);
	stream_kick(st);
	return 0;
}

/* Cancelled, and what it waits for is space: see volume_cancel. */
static bool gives_up(const struct vio *vio)
{
	const struct lineage *lin = state_of(vio)->lin;

	return vio->cancelled && *vio->cancelled && (vio->op == VIO_WRITE ? lin->nospace : lin->noreserve);
}

/* --- partial blocks --------------------------------------------------------------------------------------- */

/* A partial block being merged. */
struct edge_block {
	bool wanted;
	uint64_t lba;
	struct mapping have;             /* what buf holds */
	uint8_t *buf;
};

/* Brings the block's current content into buf. Sets *waited if it gave way, so that the other edge is looked at again. */
static int edge_fetch(struct volume_state *vol, struct edge_block *e, bool *waited)
{
	struct mapping now;
	int rc = volume_lookup(vol, e->lba, 1, &now, false);

	if (rc == -EAGAIN) {
		*waited = true;
		return volume_lookup(vol, e->lba, 1, &now, true) < 0 ? -EIO : 0;
	}
	if (rc < 0 || same_mapping(&now, &e->have))
		return rc;
	*waited = true;
	rc = read_block(vol, e->lba, &now, e->buf);
	if (rc == 0)
		e->have = now;
	return rc;
}

/* Puts the request's part of the block over the old content in `merged`. */
static void edge_merge(const struct vio *vio, const struct edge_block *e, uint8_t *merged)
{
	uint64_t block = e->lba << BLOCK_SHIFT, end = vio->off_bytes + vio->len_bytes;
	uint64_t from = vio->off_bytes > block ? vio->off_bytes : block;
	uint64_t to = end < block + BLOCK_BYTES ? end : block + BLOCK_BYTES;
	struct cursor cur = { vio->iov, 0 };

	memcpy(merged, e->buf, BLOCK_BYTES);
	if (vio->op != VIO_WRITE) {
		memset(merged + (from - block), 0, to - from);
		return;
	}
	cursor_skip(&cur, from - vio->off_bytes);
	cursor_read(&cur, merged + (from - block), to - from);
}

static int edges_fetch(struct volume_state *vol, struct edge_block *head, struct edge_block *tail)
{
	bool waited = true;
	int rc = 0;

	while (rc == 0 && waited) {
		waited = false;
		if (head->wanted)
			rc = edge_fetch(vol, head, &waited);
		if (rc == 0 && tail->wanted)
			rc = edge_fetch(vol, tail, &waited);
	}
	return rc;
}

/* Until both edges are current and there is room in the same breath. */
static int merge_and_append(struct vio *vio, struct edge_block *head, struct edge_block *tail, uint8_t *merged)
{
	struct volume_state *vol = state_of(vio);
	struct edges edges = { .head = head->wanted ? merged : NULL, .tail = tail->wanted ? merged + BLOCK_BYTES : NULL };

	for (;;) {
		int rc;

		/* A reader only while it reads: a checkpoint waits for readers, and room may wait for the checkpoint. */
		reader_begin(vol->lin, vio);
		rc = edges_fetch(vol, head, tail);
		reader_end(vol->lin, vio);
		if (rc < 0)
			return rc;
		if (edges.head)
			edge_merge(vio, head, edges.head);
		if (edges.tail)
			edge_merge(vio, tail, edges.tail);
		rc = append(vio, &edges);
		if (rc != -EAGAIN)
			return rc;
		if (gives_up(vio))
			return -ECANCELED;
		waitq_wait(&vol->lin->room);
	}
}

static int write_slowly(struct vio *vio)
{
	struct span s = span_of(vio);
	uint64_t last = (vio->off_bytes + vio->len_bytes - 1) >> BLOCK_SHIFT;
	uint8_t *buf = mem_alloc_aligned(BLOCK_BYTES, 4 * BLOCK_BYTES);
	struct edge_block head = { .wanted = s.head_partial, .lba = s.lba, .buf = buf };
	struct edge_block tail = { .wanted = s.tail_partial, .lba = last, .buf = buf + BLOCK_BYTES };
	int rc;

	if (!buf)
		return -ENOMEM;
	head.have.segno = tail.have.segno = SEGNO_UNKNOWN;
	rc = merge_and_append(vio, &head, &tail, buf + 2 * BLOCK_BYTES);
	mem_free(buf);
	return rc;
}

static void slow_serve(struct vio *vio)
{
	struct lineage *lin = state_of(vio)->lin;
	int rc;

	if (vio->op == VIO_READ) {
		rc = read_slowly(vio);
		reader_end(lin, vio);
		vio_finish(vio, rc);
		return;
	}
	rc = write_slowly(vio);
	if (rc < 0)
		vio_finish(vio, rc);
}

/* --- entry ------------------------------------------------------------------------------------------------ */

static void change_start(struct vio *vio)
{
	static const struct edges none;
	struct lineage *lin = state_of(vio)->lin;
	struct list *queue = vio->op == VIO_WRITE ? &lin->wait_writes : &lin->wait_holes;
	int rc = -EAGAIN;

	if (!whole_blocks(vio)) {
		slow_start(vio);
		return;
	}
	if (list_empty(queue))           /* nobody is overtaken */
		rc = append(vio, &none);
	if (rc == -EAGAIN && gives_up(vio))
		rc = -ECANCELED;
	if (rc == -EAGAIN)
		list_push_back(queue, &vio->node);
	else if (rc < 0)
		vio_finish_soon(vio, rc);
}

static void drop_cancelled(struct list *queue)
{
	list_for_each_safe(node, next, queue) {
		struct vio *vio = list_entry(node, struct vio, node);

		if (!gives_up(vio))
			continue;
		list_del(node);
		vio_finish(vio, -ECANCELED);
	}
}

static void drain_queue(struct list *queue)
{
	static const struct edges none;

	while (!list_empty(queue)) {
		struct vio *vio = list_entry(queue->next, struct vio, node);
		int rc;

		list_del(&vio->node);
		rc = append(vio, &none);
		if (rc == -EAGAIN) {
			list_push_front(queue, &vio->node);
			drop_cancelled(queue);
			return;
		}
		if (rc < 0)
			vio_finish(vio, rc);
	}
}

void io_drain(struct lineage *lin)
{
	drain_queue(&lin->wait_holes);
	drain_queue(&lin->wait_writes);
	while (!list_empty(&lin->wait_reads)) {
		struct vio *vio = list_entry(lin->wait_reads.next, struct vio, node);

		list_del(&vio->node);
		if (!read_start(vio)) {
			list_push_front(&lin->wait_reads, &vio->node);
			return;
		}
	}
}

static bool acceptable(const struct volume_state *vol, const struct vio *vio)
{
	if (vio->op == VIO_FLUSH)
		return true;
	if (vio->op >= VIO_OP_COUNT || vio->len_bytes == 0 || (vio->off_bytes | vio->len_bytes) % SECTOR_BYTES != 0)
		return false;
	if ((vio->op == VIO_READ || vio->op == VIO_WRITE) &&
	    (vio->len_bytes > VIO_BYTES_MAX || vio->iov_count == 0 || vio->iov_count > DISK_IOV_MAX))
		return false;
	return in_range(vol, vio);
}

void volume_submit(struct volume *volume, struct vio *vio)
{
	struct volume_state *vol = volume->state;
	struct lineage *lin = vol->lin;

	vio->volume = volume;
	if (!acceptable(vol, vio)) {
		vio_finish_soon(vio, -EINVAL);
		return;
	}
	if (volume_is_fenced(volume)) {
		vio_finish_soon(vio, -ESTALE);
		return;
	}
	switch (vio->op) {
	case VIO_READ:
		if (!list_empty(&lin->wait_reads) || !read_start(vio))
			list_push_back(&lin->wait_reads, &vio->node);
		break;
	case VIO_FLUSH:
		log_flush_vio(lin, vio);
		break;
	default:
		change_start(vio);
	}
}

void volume_cancel(struct volume *volume)
{
	lineage_drain_soon(volume->state->lin);
}

void io_release_loop(struct vloop *vl)
{
	struct list *node;

	while ((node = list_pop_front(&vl->free_reads)))
		mem_free(list_entry(node, struct read_op, node));
	while ((node = list_pop_front(&vl->free_batches))) {
		struct batch *b = list_entry(node, struct batch, node);

		mem_free(b->buf);
		mem_free(b);
	}
	nodecache_release(&vl->cache);
}
