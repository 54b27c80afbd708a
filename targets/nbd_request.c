/* Requests at the volume: cut into pieces, submitted, finished. See nbd_session_int.h.
 *
 * Pieces end at multiples of VIO_BYTES_MAX, so of a large request only the first and the last can cover a block in part.
 * All pieces of a request are under way together; the data of a write is submitted as it arrives.
 *
 * WRITE_ZEROES and TRIM are one operation on the map, whatever their length. NO_HOLE asks for zeroes that hold space, so
 * these are written, one piece after another: the client named no data, and memory is not to be what it costs. */
#include <assert.h>
#include <errno.h>

#include "targets/nbd_session_int.h"

static const uint8_t zeroes[NBD_ZERO_BYTES];

/* ---- requests and pieces ---- */

struct nbd_asked *nbd_request_get(struct nbd_session *s, const struct nbd_call *call)
{
	struct nbd_asked *asked;

	while (list_empty(&s->free_requests))
		waitq_wait(&s->room);
	asked = list_entry(list_pop_front(&s->free_requests), struct nbd_asked, node);
	s->requests_used++;
	asked->session = s;
	asked->call = *call;
	asked->pending = 1;
	asked->unsent = 1;
	asked->whole = false;
	asked->error = 0;
	asked->zeroes_left = 0;
	asked->status = NULL;
	list_init(&asked->gathered);
	return asked;
}

void nbd_request_drop(struct nbd_asked *asked)
{
	struct nbd_session *s = asked->session;

	assert(asked->unsent > 0);
	if (--asked->unsent > 0)
		return;
	if (asked->status)
		nbd_buffer_put(&s->conn->server->buffers, asked->status);
	list_push_front(&s->free_requests, &asked->node);
	s->requests_used--;
	waitq_wake_all(&s->room);
}

/* Waits for one. */
static struct nbd_piece *piece_get(struct nbd_asked *asked)
{
	struct nbd_session *s = asked->session;
	struct nbd_piece *piece;

	while (list_empty(&s->free_pieces))
		waitq_wait(&s->room);
	piece = list_entry(list_pop_front(&s->free_pieces), struct nbd_piece, node);
	piece->asked = asked;
	piece->buffer = NULL;
	piece->slices = 0;
	return piece;
}

static void give_slices_back(struct nbd_piece *piece)
{
	for (uint32_t i = 0; i < piece->slices; i++)
		nbd_input_give_back(&piece->asked->session->conn->input, &piece->slice[i]);
	piece->slices = 0;
}

void nbd_piece_put(struct nbd_piece *piece)
{
	struct nbd_session *s = piece->asked->session;

	give_slices_back(piece);
	if (piece->buffer) {
		s->read_bytes -= piece->buffer->size_bytes;
		nbd_buffer_put(&s->conn->server->buffers, piece->buffer);
	}
	list_push_front(&s->free_pieces, &piece->node);
	waitq_wake_all(&s->room);
}

/* ---- the end ---- */

static void drop_gathered(struct nbd_asked *asked)
{
	struct list *node;

	while ((node = list_pop_front(&asked->gathered)))
		nbd_piece_put(list_entry(node, struct nbd_piece, node));
}

static void finish(struct nbd_asked *asked)
{
	if (asked->error == -ECANCELED) {
		nbd_request_drop(asked); /* neither done nor failed: the end of the connection is the answer */
		return;
	}
	if (asked->error)
		asked->session->conn->server->counters.failed_requests++;
	if (asked->whole && !asked->error) {
		nbd_reply_whole(asked);
		return;
	}
	drop_gathered(asked);
	nbd_reply_end(asked);
}

static void unpend(struct nbd_asked *asked, int res)
{
	if (res < 0 && !asked->error)
		asked->error = res;
	assert(asked->pending > 0);
	if (--asked->pending == 0)
		finish(asked);
}

void nbd_request_answer(struct nbd_asked *asked, int error)
{
	asked->error = error;
	nbd_reply_end(asked);
}

/* ---- sending to the volume ---- */

static void submit(struct nbd_piece *piece, enum vio_op op, uint64_t off_bytes, uint64_t len_bytes, uint32_t iovs,
		   void (*done)(struct vio *vio, int res))
{
	piece->vio = (struct vio){
		.op = op,
		.fua = piece->asked->call.flags & NBD_CMD_FLAG_FUA,
		.off_bytes = off_bytes,
		.len_bytes = len_bytes,
		.iov = piece->iov,
		.iov_count = iovs,
		.cancelled = &piece->asked->session->conn->leaving,
		.done = done,
	};
	volume_submit(piece->asked->session->volume, &piece->vio);
}

/* How much of what is left at `off_bytes` is the next piece. */
static uint32_t piece_bytes(uint64_t off_bytes, uint64_t left_bytes)
{
	uint64_t to_cut = VIO_BYTES_MAX - off_bytes % VIO_BYTES_MAX;

	return (uint32_t)(left_bytes < to_cut ? left_bytes : to_cut);
}

/* ---- operations without data ---- */

static void plain_done(struct vio *vio, int res)
{
	struct nbd_piece *piece = container_of(vio, struct nbd_piece, vio);
	struct nbd_asked *asked = piece->asked;

	nbd_piece_put(piece);
	unpend(asked, res);
}

static void start_plain(struct nbd_asked *asked, enum vio_op op)
{
	asked->pending++;
	submit(piece_get(asked), op, asked->call.off_bytes, asked->call.len_bytes, 0, plain_done);
}

/* ---- zeroes that are data ---- */

static void zeroes_done(struct vio *vio, int res);

static void submit_zeroes(struct nbd_piece *piece)
{
	struct nbd_asked *asked = piece->asked;
	uint64_t off_bytes = asked->call.off_bytes + asked->call.len_bytes - asked->zeroes_left;
	uint32_t len_bytes = piece_bytes(off_bytes, asked->zeroes_left), iovs = 0;

	asked->zeroes_left -= len_bytes;
	for (uint32_t left = len_bytes; left > 0; left -= (uint32_t)piece->iov[iovs++].iov_len)
		piece->iov[iovs] =
			(struct iovec){ (void *)(uintptr_t)zeroes, left < NBD_ZERO_BYTES ? left : NBD_ZERO_BYTES };
	submit(piece, VIO_WRITE, off_bytes, len_bytes, iovs, zeroes_done);
}

static void zeroes_done(struct vio *vio, int res)
{
	struct nbd_piece *piece = container_of(vio, struct nbd_piece, vio);

	if (res == 0 && piece->asked->zeroes_left > 0 && !piece->asked->session->broken)
		submit_zeroes(piece);
	else
		plain_done(vio, res);
}

static void start_zeroes(struct nbd_asked *asked)
{
	if (!(asked->call.flags & NBD_CMD_FLAG_NO_HOLE)) {
		start_plain(asked, VIO_WRITE_ZEROES);
		return;
	}
	asked->pending++;
	asked->zeroes_left = asked->call.len_bytes;
	submit_zeroes(piece_get(asked));
}

/* ---- reads ---- */

static void read_done(struct vio *vio, int res)
{
	struct nbd_piece *piece = container_of(vio, struct nbd_piece, vio);
	struct nbd_asked *asked = piece->asked;

	if (!asked->whole) {
		if (res == 0)
			nbd_reply_piece(piece);
		else
			nbd_piece_put(piece);
	}
	unpend(asked, res);
}

static void wait_for_bytes(struct nbd_session *s, uint64_t len_bytes)
{
	while (s->read_bytes > 0 && s->read_bytes + len_bytes > NBD_READ_BYTES_MAX)
		waitq_wait(&s->room);
}

static int start_read_piece(struct nbd_asked *asked, uint64_t off_bytes, uint32_t len_bytes)
{
	struct nbd_session *s = asked->session;
	struct nbd_piece *piece;

	if (!asked->whole)
		wait_for_bytes(s, nbd_buffer_size_bytes(len_bytes));
	piece = piece_get(asked);
	piece->buffer = nbd_buffer_get(&s->conn->server->buffers, len_bytes);
	if (!piece->buffer) {
		nbd_piece_put(piece);
		return -ENOMEM;
	}
	s->read_bytes += piece->buffer->size_bytes;
	piece->iov[0] = (struct iovec){ piece->buffer->data, len_bytes };
	if (asked->whole)
		list_push_back(&asked->gathered, &piece->node);
	asked->pending++;
	submit(piece, VIO_READ, off_bytes, len_bytes, 1, read_done);
	return 0;
}

static void start_read(struct nbd_asked *asked)
{
	const struct nbd_call *call = &asked->call;
	uint64_t off_bytes = call->off_bytes, end = off_bytes + call->len_bytes;
	int rc = 0;

	asked->whole = !asked->session->conn->terms.structured || (call->flags & NBD_CMD_FLAG_DF) ||
		       piece_bytes(off_bytes, call->len_bytes) == call->len_bytes;
	if (asked->whole)
		wait_for_bytes(asked->session, call->len_bytes);
	while (rc == 0 && off_bytes < end && !asked->session->broken) {
		uint32_t len_bytes = piece_bytes(off_bytes, end - off_bytes);

		rc = start_read_piece(asked, off_bytes, len_bytes);
		off_bytes += len_bytes;
	}
	if (rc < 0 && !asked->error)
		asked->error = rc;
}

/* ---- writes ---- */

/* Takes the piece's data off the input. */
static int fill_slices(struct nbd_piece *piece, uint32_t len_bytes)
{
	struct nbd_input *in = &piece->asked->session->conn->input;
	struct nbd_slice slice = { .chunk = NULL };

	while (len_bytes > 0) {
		uint32_t before = slice.len_bytes;
		bool is_new;
		int rc = nbd_input_slice(in, len_bytes, &slice, &is_new);

		if (rc < 0)
			return rc;
		len_bytes -= is_new ? slice.len_bytes : slice.len_bytes - before;
		assert(!is_new || piece->slices < NBD_SLICES_MAX);
		piece->slices += is_new;
		piece->slice[piece->slices - 1] = slice;
	}
	return 0;
}

static int start_write_piece(struct nbd_asked *asked, uint64_t off_bytes, uint32_t len_bytes)
{
	struct nbd_piece *piece = piece_get(asked);
	int rc = fill_slices(piece, len_bytes);

	if (rc < 0) {
		nbd_piece_put(piece);
		return rc;
	}
	for (uint32_t i = 0; i < piece->slices; i++)
		piece->iov[i] = (struct iovec){ piece->slice[i].data, piece->slice[i].len_bytes };
	asked->pending++;
	submit(piece, VIO_WRITE, off_bytes, len_bytes, piece->slices, plain_done);
	return 0;
}

static int start_write(struct nbd_asked *asked)
{
	uint64_t off_bytes = asked->call.off_bytes, end = off_bytes + asked->call.len_bytes;
	int rc = 0;

	while (rc == 0 && off_bytes < end) {
		uint32_t len_bytes = piece_bytes(off_bytes, end - off_bytes);

		rc = start_write_piece(asked, off_bytes, len_bytes);
		off_bytes += len_bytes;
	}
	if (rc < 0 && !asked->error)
		asked->error = rc;
	return rc;
}

/* ---- all ---- */

int nbd_request_start(struct nbd_asked *asked)
{
	int rc = 0;

	if (asked->call.len_bytes == 0 && asked->call.type != NBD_CMD_FLUSH) {
		nbd_request_answer(asked, 0);
		return 0;
	}
	switch (asked->call.type) {
	case NBD_CMD_READ: start_read(asked); break;
	case NBD_CMD_WRITE: rc = start_write(asked); break;
	case NBD_CMD_FLUSH: start_plain(asked, VIO_FLUSH); break;
	case NBD_CMD_TRIM: start_plain(asked, VIO_DISCARD); break;
	case NBD_CMD_WRITE_ZEROES: start_zeroes(asked); break;
	case NBD_CMD_CACHE:
	case NBD_CMD_BLOCK_STATUS: nbd_status_start(asked); return 0;
	}
	unpend(asked, 0);
	return rc;
}
