/* What arrives on an NBD connection: large receives, taken apart where they lie.
 *
 * Bytes are received into 256 KiB chunks. A header is looked at in place; the data of a write is not copied but handed out
 * as slices, each of which keeps its chunk alive until it is given back. So one receive may bring dozens of requests, and
 * data moves once, from the socket to where the volume copies it from. A connection holds at most NBD_CHUNKS_MAX
 * chunks; then its reader waits. One fiber reads. Home loop. */
#ifndef TARGETS_NBD_INPUT_H
#define TARGETS_NBD_INPUT_H

#include "pool/runtime/fiber.h"
#include "targets/nbd_buffers.h"
#include "targets/nbd_stream.h"

#define NBD_CHUNK_BYTES (256u << 10)
#define NBD_CHUNKS_MAX 32u
/* Slices of a contiguous NBD_BUFFER_BYTES_MAX bytes of the stream. */
#define NBD_SLICES_MAX (NBD_BUFFER_BYTES_MAX / NBD_CHUNK_BYTES + 2)

struct nbd_input {
	struct nbd_stream *stream;
	struct nbd_buffers *store;
	struct nbd_buffer *chunk; /* being filled; NULL: none yet */
	uint32_t at, end;         /* chunk->data[at, end) was received and not yet taken */
	uint32_t chunks;          /* held, those of slices included */
	struct waitq room;        /* a chunk was given back */
};

/* Part of the stream's bytes. */
struct nbd_slice {
	uint8_t *data;
	uint32_t len_bytes;
	struct nbd_buffer *chunk;
};

void nbd_input_init(struct nbd_input *in, struct nbd_stream *stream, struct nbd_buffers *store);
/* All slices were given back. */
void nbd_input_release(struct nbd_input *in);

/* The next len_bytes (at most NBD_CHUNK_BYTES) in one piece, valid until the next call; not yet taken. 0; -EPIPE: the
 * stream ended before them; -errno. Waits. */
int nbd_input_peek(struct nbd_input *in, uint32_t len_bytes, const void **bytes) __attribute__((warn_unused_result));
/* Takes what was peeked at. */
void nbd_input_take(struct nbd_input *in, uint32_t len_bytes);
/* Takes and forgets. 0 or -errno. Waits. */
int nbd_input_skip(struct nbd_input *in, uint32_t len_bytes) __attribute__((warn_unused_result));
/* Takes what there is, 1 .. len_bytes. The slice grows if it lies just before; *is_new tells whether it is another one,
 * which must be given back. 0 or -errno. Waits. */
int nbd_input_slice(struct nbd_input *in, uint32_t len_bytes, struct nbd_slice *slice, bool *is_new)
	__attribute__((warn_unused_result));
void nbd_input_give_back(struct nbd_input *in, struct nbd_slice *slice);
/* Received, not yet taken. */
static inline uint32_t nbd_input_left(const struct nbd_input *in)
{
	return in->end - in->at;
}

#endif
