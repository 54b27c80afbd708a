/* Answers: what they look like, and the one writer that sends them. See nbd_session_int.h.
 *
 * Simple replies are sent where the protocol allows: 16 bytes. With structured replies, whatever carries data or an error is
 * a chunk. A read that is cut into pieces is answered piece by piece as they come (OFFSET_DATA each, NONE or ERROR at the
 * end) unless the client wants it whole, or there are no chunks: then the pieces are gathered, so that an error is
 * known before the first byte is sent.
 *
 * The writer takes all that is queued, up to SEND_BYTES of it, and sends it with one call. What completes meanwhile is
 * queued behind. A client that does not take its answers thereby stops only itself: its requests stay in use, and its
 * reader waits for room. */
#include "targets/nbd_session_int.h"

/* Sent at once. More would keep buffers from being used again, less would cost calls. */
#define SEND_BYTES (512u << 10)

/* ---- queueing ---- */

static void queue(struct nbd_session *s, struct nbd_reply *reply)
{
	list_push_back(&s->out, &reply->node);
	waitq_wake_one(&s->out_some);
}

struct nbd_chunk nbd_reply_chunk(const struct nbd_asked *asked, enum nbd_chunk_type type, bool done, size_t len_bytes)
{
	return (struct nbd_chunk){
		.magic = be32_of(NBD_CHUNK_MAGIC),
		.flags = be16_of(done ? NBD_CHUNK_FLAG_DONE : 0),
		.type = be16_of((uint16_t)type),
		.cookie = be64_of(asked->call.cookie),
		.len_bytes = be32_of((uint32_t)len_bytes),
	};
}

static void set_simple(struct nbd_reply *reply, const struct nbd_asked *asked)
{
	reply->header_bytes = sizeof(reply->header.simple);
	reply->header.simple = (struct nbd_simple_reply){
		.magic = be32_of(NBD_SIMPLE_REPLY_MAGIC),
		.error = be32_of(nbd_error_of(asked->error)),
		.cookie = be64_of(asked->call.cookie),
	};
}

static void set_none(struct nbd_reply *reply, const struct nbd_asked *asked)
{
	reply->header_bytes = sizeof(reply->header.chunk);
	reply->header.chunk = nbd_reply_chunk(asked, NBD_CHUNK_NONE, true, 0);
}

static void set_error(struct nbd_reply *reply, const struct nbd_asked *asked)
{
	const size_t payload = sizeof(struct nbd_chunk_error) - sizeof(struct nbd_chunk);

	reply->header_bytes = sizeof(reply->header.chunk_error);
	reply->header.chunk_error = (struct nbd_chunk_error){
		.chunk = nbd_reply_chunk(asked, NBD_CHUNK_ERROR, true, payload),
		.error = be32_of(nbd_error_of(asked->error)),
	};
}

static void set_status(struct nbd_reply *reply, const struct nbd_asked *asked)
{
	reply->header_bytes = 0;
	reply->data = asked->status->data;
	reply->data_bytes = asked->status_bytes;
}

static void set_data(struct nbd_reply *reply, const struct nbd_asked *asked, uint64_t off_bytes, uint64_t len_bytes,
		     bool done)
{
	const size_t payload = sizeof(struct nbd_chunk_data) - sizeof(struct nbd_chunk);

	reply->header_bytes = sizeof(reply->header.chunk_data);
	reply->header.chunk_data = (struct nbd_chunk_data){
		.chunk = nbd_reply_chunk(asked, NBD_CHUNK_OFFSET_DATA, done, payload + len_bytes),
		.off_bytes = be64_of(off_bytes),
	};
}

/* ---- the end of a request ---- */

static void end_sent(struct nbd_reply *reply)
{
	nbd_request_drop(container_of(reply, struct nbd_asked, reply));
}

void nbd_reply_end(struct nbd_asked *asked)
{
	struct nbd_session *s = asked->session;
	struct nbd_reply *reply = &asked->reply;

	reply->sent = end_sent;
	reply->data_bytes = 0;
	set_simple(reply, asked);
	if (s->conn->terms.structured) {
		if (asked->error)
			set_error(reply, asked);
		else if (asked->status)
			set_status(reply, asked);
		else if (asked->call.type == NBD_CMD_READ)
			set_none(reply, asked);
	}
	queue(s, reply);
}

/* ---- data ---- */

static void piece_sent(struct nbd_reply *reply)
{
	struct nbd_piece *piece = container_of(reply, struct nbd_piece, reply);
	struct nbd_asked *asked = piece->asked;

	nbd_piece_put(piece);
	nbd_request_drop(asked);
}

static struct nbd_reply *piece_reply(struct nbd_piece *piece)
{
	piece->asked->unsent++;
	piece->reply.sent = piece_sent;
	piece->reply.header_bytes = 0;
	piece->reply.data = piece->buffer->data;
	piece->reply.data_bytes = (uint32_t)piece->vio.len_bytes;
	return &piece->reply;
}

void nbd_reply_piece(struct nbd_piece *piece)
{
	struct nbd_reply *reply = piece_reply(piece);

	set_data(reply, piece->asked, piece->vio.off_bytes, piece->vio.len_bytes, false);
	queue(piece->asked->session, reply);
}

void nbd_reply_whole(struct nbd_asked *asked)
{
	bool first = true;
	struct list *node;

	while ((node = list_pop_front(&asked->gathered))) {
		struct nbd_reply *reply = piece_reply(list_entry(node, struct nbd_piece, node));

		if (first && asked->session->conn->terms.structured)
			set_data(reply, asked, asked->call.off_bytes, asked->call.len_bytes, true);
		else if (first)
			set_simple(reply, asked);
		first = false;
		queue(asked->session, reply);
	}
	nbd_request_drop(asked);
}

/* ---- the writer ---- */

/* Moves replies to `batch` as far as they go into one send; returns the number of iovecs. */
static uint32_t gather(struct nbd_session *s, struct list *batch)
{
	uint32_t iovs = 0, bytes = 0;

	while (!list_empty(&s->out) && iovs + 2 <= NBD_SEND_IOV_MAX && bytes < SEND_BYTES) {
		struct nbd_reply *reply = list_entry(list_pop_front(&s->out), struct nbd_reply, node);

		if (reply->header_bytes > 0)
			s->iov[iovs++] = (struct iovec){ &reply->header, reply->header_bytes };
		if (reply->data_bytes > 0)
			s->iov[iovs++] = (struct iovec){ (void *)(uintptr_t)reply->data, reply->data_bytes };
		bytes += reply->header_bytes + reply->data_bytes;
		list_push_back(batch, &reply->node);
	}
	return iovs;
}

static void send_batch(struct nbd_session *s)
{
	struct list batch, *node;
	uint32_t iovs;

	list_init(&batch);
	iovs = gather(s, &batch);
	if (!s->broken && nbd_stream_send(&s->conn->stream, s->iov, iovs) < 0) {
		s->broken = true;
		nbd_stream_shut(&s->conn->stream, false); /* the reader hears of it */
	}
	while ((node = list_pop_front(&batch))) {
		struct nbd_reply *reply = list_entry(node, struct nbd_reply, node);

		reply->sent(reply);
	}
}

void nbd_reply_fiber(void *arg)
{
	struct nbd_session *s = arg;

	for (;;) {
		while (list_empty(&s->out) && !s->ending)
			waitq_wait(&s->out_some);
		if (list_empty(&s->out))
			break;
		send_batch(s);
	}
	s->writer_runs = false;
	waitq_wake_all(&s->room);
}
