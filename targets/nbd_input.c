/* Chunks of received bytes: see nbd_input.h.
 *
 *     chunk->data   | taken, perhaps in slices | received | free |
 *                   0                          at         end    NBD_CHUNK_BYTES
 *
 * The reader holds one reference of the current chunk, each slice one of its chunk. When all is taken and nobody else
 * holds the chunk, it is filled from the start again, so a connection with little to say stays in one place. */
#include "targets/nbd_input.h"

#include <errno.h>
#include <string.h>

void nbd_input_init(struct nbd_input *in, struct nbd_stream *stream, struct nbd_buffers *store)
{
	*in = (struct nbd_input){ .stream = stream, .store = store };
	waitq_init(&in->room);
}

static void drop(struct nbd_input *in, struct nbd_buffer *chunk)
{
	if (chunk->refs == 1) {
		in->chunks--;
		waitq_wake_all(&in->room);
	}
	nbd_buffer_put(in->store, chunk);
}

void nbd_input_release(struct nbd_input *in)
{
	if (in->chunk)
		drop(in, in->chunk);
	in->chunk = NULL;
}

/* Puts what is left at the start of a chunk that has room. */
static int make_room(struct nbd_input *in)
{
	struct nbd_buffer *chunk = in->chunk;
	uint32_t left = nbd_input_left(in);
	const uint8_t *from = chunk ? chunk->data + in->at : NULL;

	if (!chunk || chunk->refs > 1) {
		while (in->chunks == NBD_CHUNKS_MAX)
			waitq_wait(&in->room);
		chunk = nbd_buffer_get(in->store, NBD_CHUNK_BYTES);
		if (!chunk)
			return -ENOMEM;
		in->chunks++;
	}
	if (left > 0)
		memmove(chunk->data, from, left);
	if (in->chunk && in->chunk != chunk)
		drop(in, in->chunk);
	in->chunk = chunk;
	in->at = 0;
	in->end = left;
	return 0;
}

static int receive(struct nbd_input *in)
{
	int res = nbd_stream_recv(in->stream, in->chunk->data + in->end, NBD_CHUNK_BYTES - in->end);

	if (res <= 0)
		return res < 0 ? res : -EPIPE;
	in->end += (uint32_t)res;
	return 0;
}

/* Starts at the front again where that costs nothing. */
static void rewind_if_empty(struct nbd_input *in)
{
	if (in->at == in->end && in->chunk && in->chunk->refs == 1)
		in->at = in->end = 0;
}

int nbd_input_peek(struct nbd_input *in, uint32_t len_bytes, const void **bytes)
{
	int rc = 0;

	rewind_if_empty(in);
	if (!in->chunk || NBD_CHUNK_BYTES - in->at < len_bytes)
		rc = make_room(in);
	while (rc == 0 && nbd_input_left(in) < len_bytes)
		rc = receive(in);
	*bytes = rc == 0 ? in->chunk->data + in->at : NULL;
	return rc;
}

void nbd_input_take(struct nbd_input *in, uint32_t len_bytes)
{
	in->at += len_bytes;
}

/* Makes sure that there is a byte to take. */
static int need_some(struct nbd_input *in)
{
	const void *byte;

	return nbd_input_left(in) > 0 ? 0 : nbd_input_peek(in, 1, &byte);
}

int nbd_input_skip(struct nbd_input *in, uint32_t len_bytes)
{
	while (len_bytes > 0) {
		int rc = need_some(in);
		uint32_t part = nbd_input_left(in);

		if (rc < 0)
			return rc;
		if (part > len_bytes)
			part = len_bytes;
		in->at += part;
		len_bytes -= part;
	}
	return 0;
}

int nbd_input_slice(struct nbd_input *in, uint32_t len_bytes, struct nbd_slice *slice, bool *is_new)
{
	int rc = need_some(in);
	uint32_t part;

	if (rc < 0)
		return rc;
	part = nbd_input_left(in);
	if (part > len_bytes)
		part = len_bytes;
	*is_new = slice->chunk != in->chunk || slice->data + slice->len_bytes != in->chunk->data + in->at;
	if (*is_new) {
		*slice = (struct nbd_slice){ .data = in->chunk->data + in->at, .chunk = in->chunk };
		in->chunk->refs++;
	}
	slice->len_bytes += part;
	in->at += part;
	return 0;
}

void nbd_input_give_back(struct nbd_input *in, struct nbd_slice *slice)
{
	drop(in, slice->chunk);
	slice->chunk = NULL;
}
