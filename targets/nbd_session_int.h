/* Inside of an NBD session: nbd_session.c (reading requests), nbd_request.c (carrying them out) and nbd_reply.c (answering).
 *
 *     reader fiber            tasks of the volume                       writer fiber
 *     read header, validate
 *     request_get, pieces --> volume_submit ... done --> finish ------> session->out --> one send of all there is
 *     waits for room  <------------------------------------------------ request_put
 *
 * A request is what the client asked for; a piece is one vio of it, at most VIO_BYTES_MAX, cut at multiples of that.
 * Both come from arrays made with the session. A reply is a header and data in the order they are to be sent; a
 * request has one of its own, and each piece of a read has one. */
#ifndef TARGETS_NBD_SESSION_INT_H
#define TARGETS_NBD_SESSION_INT_H

#include "targets/nbd_int.h"

/* In flight on one connection. A client that sends more waits, or fills its socket. */
#define NBD_REQUESTS_MAX 256u
#define NBD_PIECES_MAX 256u
/* Memory of reads that were begun and whose answers the client has not taken. More would not stay in the CPU's cache until it is
 * sent, and sockets take no more at once. */
#define NBD_READ_BYTES_MAX (4u << 20)
/* One zero buffer's size, and iovecs of a piece that writes zeroes. */
#define NBD_ZERO_BYTES 65536u
#define NBD_ZERO_IOVS (VIO_BYTES_MAX / NBD_ZERO_BYTES)

static_assert(4096u << (2 * (NBD_BUFFER_CLASSES - 1)) >= VIO_BYTES_MAX, "a piece of a read fits a buffer");
static_assert(NBD_PIECES_MAX > NBD_PAYLOAD_BYTES_MAX / VIO_BYTES_MAX + 1, "the largest read fits");

struct nbd_reply {
	struct list node;                      /* session->out */
	void (*sent)(struct nbd_reply *reply); /* or dropped: the client is gone */
	const void *data;
	uint32_t data_bytes;
	uint32_t header_bytes; /* may be 0 */
	union {
		struct nbd_simple_reply simple;
		struct nbd_chunk chunk;
		struct nbd_chunk_data chunk_data;
		struct nbd_chunk_error chunk_error;
	} header;
};

struct nbd_asked {
	struct list node; /* session->free_requests, or session->status_queue */
	struct nbd_session *session;
	struct nbd_call call;
	uint32_t pending;           /* pieces at the volume, and one for whoever still makes some */
	uint32_t unsent;            /* replies, and one until it is finished */
	uint32_t pieces;            /* it was cut into */
	bool whole;                 /* a read answered in one go, when all of it is there */
	int error;                  /* the first, 0 if none */
	uint32_t zeroes_left;       /* WRITE_ZEROES with NO_HOLE: bytes still to be written */
	struct list gathered;       /* pieces of a whole read, in order */
	struct nbd_buffer *status;  /* BLOCK_STATUS: the chunks of the answer, as they are sent */
	uint32_t status_bytes;
	struct nbd_reply reply;
};

struct nbd_piece {
	struct vio vio;
	struct list node; /* session->free_pieces, or nbd_asked.gathered */
	struct nbd_asked *asked;
	struct nbd_buffer *buffer; /* READ */
	uint32_t slices;           /* WRITE */
	struct nbd_slice slice[NBD_SLICES_MAX];
	struct iovec iov[NBD_ZERO_IOVS];
	struct nbd_reply reply;
};

static_assert(NBD_SLICES_MAX <= NBD_ZERO_IOVS, "iovecs of a write");

struct nbd_session {
	struct nbd_conn *conn;
	struct volume *volume; /* the server's for readers, from the first write on that for the writer */
	struct list free_requests, free_pieces;
	uint32_t requests_used;
	uint64_t read_bytes; /* see NBD_READ_BYTES_MAX */
	struct waitq room;   /* the reader waits: something was given back */

	struct list out;                    /* replies to send */
	struct waitq out_some;              /* the writer waits */
	struct iovec iov[NBD_SEND_IOV_MAX]; /* the writer's */
	bool broken;                        /* nothing can be sent any more */
	bool ending;                        /* nothing will be added to out */
	bool writer_runs;

	struct list status_queue; /* requests that look at the map, one after another */
	bool status_runs;

	struct nbd_asked request[NBD_REQUESTS_MAX];
	struct nbd_piece piece[NBD_PIECES_MAX];
};

/* --- nbd_request.c ---------------------------------------------------------------------------------------- */

/* A free request for this call. Waits for one. */
struct nbd_asked *nbd_request_get(struct nbd_session *s, const struct nbd_call *call);
/* Answers without having done anything; error: 0 or -errno. */
void nbd_request_answer(struct nbd_asked *asked, int error);
/* Carries out a valid request. A WRITE takes its data off the input: 0, or -errno if the stream ended before it.
 * Waits for room, not for the request. */
int nbd_request_start(struct nbd_asked *asked) __attribute__((warn_unused_result));
/* A reply of the request has left, or it is finished and has none. The last one frees it. */
void nbd_request_drop(struct nbd_asked *asked);
/* Frees a piece and what it holds; whoever waits for room looks again. */
void nbd_piece_put(struct nbd_piece *piece);

/* --- nbd_reply.c ------------------------------------------------------------------------------------------ */

/* Queues the last reply: done, asked->error, or block status. Drops the request when it has left. */
void nbd_reply_end(struct nbd_asked *asked);
/* Queues a piece that was read as a chunk of its own. Puts the piece and drops the request when it has left. */
void nbd_reply_piece(struct nbd_piece *piece);
/* Queues the gathered pieces behind one header; the same then for each. */
void nbd_reply_whole(struct nbd_asked *asked);
/* Header of a chunk of the request's answer. */
struct nbd_chunk nbd_reply_chunk(const struct nbd_asked *asked, enum nbd_chunk_type type, bool done, size_t len_bytes);
/* The writer; arg is the session. Ends when session->ending and all is sent. */
void nbd_reply_fiber(void *arg);

/* --- nbd_status.c ----------------------------------------------------------------------------------------- */

/* Queues a BLOCK_STATUS or CACHE: it looks at the map, which may wait. */
void nbd_status_start(struct nbd_asked *asked);

#endif
