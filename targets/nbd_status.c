/* Requests that look at the map: BLOCK_STATUS, and CACHE, which here means to have the map's nodes in memory.
 *
 * A look may wait for nodes, so these run on a fiber of the session, one after another; it exists while there are some. */
#include <errno.h>

#include "targets/nbd_session_int.h"

/* Descriptors of one answer: what fits the buffer. A client asks again from where they end. */
#define STATUS_BYTES_MAX 16384u
#define STATUS_EXTENTS_MAX (STATUS_BYTES_MAX / sizeof(struct nbd_extent))
/* Looked up at a time, on the fiber's stack. */
#define EXTENTS_A_LOOK 64u

/* Adds to the last descriptor, or begins another; false: there are enough. */
static bool add(struct nbd_extent *out, uint32_t max, uint32_t *count, const struct extent *extent)
{
	uint32_t flags = extent->mapped ? 0 : NBD_STATE_HOLE | NBD_STATE_ZERO;
	struct nbd_extent *last = &out[*count - 1];

	if (*count > 0 && be32_get(last->flags) == flags) {
		last->len_bytes = be32_of(be32_get(last->len_bytes) + (uint32_t)extent->len_bytes);
		return true;
	}
	if (*count == max)
		return false;
	out[(*count)++] =
		(struct nbd_extent){ .len_bytes = be32_of((uint32_t)extent->len_bytes), .flags = be32_of(flags) };
	return true;
}

/* Fills `out` for the request's range as far as it goes. */
static int describe(struct nbd_asked *asked, struct nbd_extent *out, uint32_t max, uint32_t *count)
{
	uint64_t off_bytes = asked->call.off_bytes, end = off_bytes + asked->call.len_bytes;

	while (off_bytes < end) {
		struct extent found[EXTENTS_A_LOOK];
		uint32_t n;
		int rc = volume_extents(asked->session->volume, off_bytes, end - off_bytes, found, EXTENTS_A_LOOK, &n);

		if (rc < 0)
			return rc;
		for (uint32_t i = 0; i < n; i++) {
			if (!add(out, max, count, &found[i]))
				return 0;
			off_bytes += found[i].len_bytes;
		}
	}
	return 0;
}

static int look_up_status(struct nbd_asked *asked)
{
	uint32_t max = asked->call.flags & NBD_CMD_FLAG_REQ_ONE ? 1 : STATUS_EXTENTS_MAX, count = 0;
	int rc;

	asked->extents = nbd_buffer_get(&asked->session->conn->server->buffers, STATUS_BYTES_MAX);
	if (!asked->extents)
		return -ENOMEM;
	rc = describe(asked, (struct nbd_extent *)asked->extents->data, max, &count);
	asked->extents_bytes = count * (uint32_t)sizeof(struct nbd_extent);
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
