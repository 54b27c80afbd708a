/* Requests that look at the map: BLOCK_STATUS, and CACHE, which here means to have the map's nodes in memory.
 *
 * A look may wait for nodes, so these run on a fiber of the session, one after another; it exists while there are some. */
#include <errno.h>

#include "targets/nbd_session_int.h"

/* A chunk of an answer, one for each context that was selected. Of what has no room a client asks again. */
#define STATUS_BYTES_MAX 16384u
#define STATUS_EXTENTS_MAX ((STATUS_BYTES_MAX - sizeof(struct nbd_chunk_status)) / sizeof(struct nbd_extent))
static_assert(NBD_CONTEXTS_MAX * STATUS_BYTES_MAX <= NBD_BUFFER_BYTES_MAX, "an answer fits a buffer");
/* Looked up at a time, on the fiber's stack. */
#define EXTENTS_A_LOOK 64u

static uint32_t flags_of(const struct nbd_context *context, const struct extent *extent)
{
	if (context->since)
		return extent->mapped ? NBD_STATE_CHANGED : 0;
	return extent->mapped ? 0 : NBD_STATE_HOLE | NBD_STATE_ZERO;
}

/* Adds to the last descriptor, or begins another; false: there are enough. */
static bool add(struct nbd_extent *out, uint32_t max, uint32_t *count, uint32_t flags, uint64_t len_bytes)
{
	struct nbd_extent *last = &out[*count - 1];

	if (*count > 0 && be32_get(last->flags) == flags) {
		last->len_bytes = be32_of(be32_get(last->len_bytes) + (uint32_t)len_bytes);
		return true;
	}
	if (*count == max)
		return false;
	out[(*count)++] = (struct nbd_extent){ .len_bytes = be32_of((uint32_t)len_bytes), .flags = be32_of(flags) };
	return true;
}

static int look(struct nbd_asked *asked, const struct nbd_context *context, uint64_t off_bytes, uint64_t len_bytes,
		struct extent found[EXTENTS_A_LOOK], uint32_t *n)
{
	struct volume *volume = asked->session->volume;

	if (context->since)
		return volume_changes(volume, context->since, off_bytes, len_bytes, found, EXTENTS_A_LOOK, n);
	return volume_extents(volume, off_bytes, len_bytes, found, EXTENTS_A_LOOK, n);
}

/* Fills `out` for the request's range as far as it goes. */
static int describe(struct nbd_asked *asked, const struct nbd_context *context, struct nbd_extent *out, uint32_t max,
		    uint32_t *count)
{
	uint64_t off_bytes = asked->call.off_bytes, end = off_bytes + asked->call.len_bytes;

	while (off_bytes < end) {
		struct extent found[EXTENTS_A_LOOK];
		uint32_t n;
		int rc = look(asked, context, off_bytes, end - off_bytes, found, &n);

		if (rc < 0)
			return rc;
		for (uint32_t i = 0; i < n; i++) {
			if (!add(out, max, count, flags_of(context, &found[i]), found[i].len_bytes))
				return 0;
			off_bytes += found[i].len_bytes;
		}
	}
	return 0;
}

/* The chunk of one context, behind those before. */
static int add_chunk(struct nbd_asked *asked, uint32_t context)
{
	const struct nbd_conn *conn = asked->session->conn;
	struct nbd_chunk_status *head = (struct nbd_chunk_status *)(asked->status->data + asked->status_bytes);
	uint32_t max = asked->call.flags & NBD_CMD_FLAG_REQ_ONE ? 1 : STATUS_EXTENTS_MAX, count = 0, len_bytes;
	int rc = describe(asked, &conn->context[context], (struct nbd_extent *)(head + 1), max, &count);

	len_bytes = (uint32_t)(sizeof(*head) + count * sizeof(struct nbd_extent));
	head->chunk = nbd_reply_chunk(asked, NBD_CHUNK_BLOCK_STATUS, context + 1 == conn->context_count,
				      len_bytes - sizeof(head->chunk));
	head->context = be32_of(context + 1);
	asked->status_bytes += len_bytes;
	return rc;
}

static int look_up_status(struct nbd_asked *asked)
{
	const struct nbd_conn *conn = asked->session->conn;
	int rc = 0;

	asked->status_bytes = 0;
	asked->status = nbd_buffer_get(&conn->server->buffers, conn->context_count * STATUS_BYTES_MAX);
	if (!asked->status)
		return -ENOMEM;
	for (uint32_t i = 0; i < conn->context_count && rc == 0; i++)
		rc = add_chunk(asked, i);
	return rc;
}

/* One extent is the whole of what is told, but all nodes are passed to find where it ends. */
static int warm_cache(struct nbd_asked *asked)
{
	uint64_t off_bytes = asked->call.off_bytes, end = off_bytes + asked->call.len_bytes;
	int rc = 0;

	while (rc == 0 && off_bytes < end && !asked->session->conn->leaving) {
		struct extent found[EXTENTS_A_LOOK];
		uint32_t n;

		rc = volume_extents(asked->session->volume, off_bytes, end - off_bytes, found, EXTENTS_A_LOOK, &n);
		for (uint32_t i = 0; rc == 0 && i < n; i++)
			off_bytes += found[i].len_bytes;
	}
	return rc;
}

static void status_fiber(void *arg)
{
	struct nbd_session *s = arg;
	struct list *node;

	while ((node = list_pop_front(&s->status_queue))) {
		struct nbd_asked *asked = list_entry(node, struct nbd_asked, node);
		bool status = asked->call.type == NBD_CMD_BLOCK_STATUS;

		nbd_request_answer(asked, status ? look_up_status(asked) : warm_cache(asked));
	}
	s->status_runs = false;
	waitq_wake_all(&s->room);
}

void nbd_status_start(struct nbd_asked *asked)
{
	struct nbd_session *s = asked->session;

	list_push_back(&s->status_queue, &asked->node);
	if (s->status_runs)
		return;
	s->status_runs = fiber_start(s->conn->server->loop, status_fiber, s) == 0;
	if (!s->status_runs) {
		list_del(&asked->node);
		nbd_request_answer(asked, -ENOMEM);
	}
}
