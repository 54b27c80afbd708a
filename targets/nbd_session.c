/* A session: from the end of the handshake to the last answer. See nbd_session_int.h for how its parts work together.
 *
 * The reader reads requests, has each validated once, and starts it. It ends at DISC, when the stream ends or breaks the
 * rules, or when the connection is asked to leave; then it waits until every request has been answered or dropped. */
#include <errno.h>

#include "pool/base/mem.h"
#include "targets/nbd_session_int.h"

/* Carries out or refuses one request. -errno: the stream is lost. */
static int take_call(struct nbd_session *s, const struct nbd_call *call)
{
	struct nbd_asked *asked = nbd_request_get(s, call);
	int verdict = nbd_call_validate(call, &s->conn->terms);
	int rc = 0;

	s->conn->server->counters.requests++;
	if (verdict == 0 && nbd_call_changes_data(call)) {
		verdict = nbd_claim(s->conn);
		s->volume = verdict == 0 ? s->conn->server->conf.volume : s->volume;
	}
	if (verdict == 0)
		return nbd_request_start(asked);
	s->conn->server->counters.bad_requests++;
	if (call->type == NBD_CMD_WRITE)
		rc = nbd_input_skip(&s->conn->input, call->len_bytes);
	nbd_request_answer(asked, verdict);
	return rc;
}

/* -ECONNABORTED: the client says goodbye. */
static int read_call(struct nbd_session *s, struct nbd_call *call)
{
	const void *wire;
	int rc = nbd_input_peek(&s->conn->input, sizeof(struct nbd_request), &wire);

	if (rc < 0)
		return rc;
	if (!nbd_request_decode(wire, call))
		return -EPROTO;
	nbd_input_take(&s->conn->input, sizeof(struct nbd_request));
	return call->type == NBD_CMD_DISC ? -ECONNABORTED : 0;
}

static void read_requests(struct nbd_session *s)
{
	struct nbd_call call;
	int rc = 0;

	/* Whom nothing can be answered is not served, whatever of his has arrived already. */
	while (rc == 0 && !s->conn->leaving && !s->broken) {
		rc = read_call(s, &call);
		if (rc == 0)
			rc = take_call(s, &call);
	}
}

/* Everything that was begun comes to its end, except what waits for space in a full pool: that is dropped. */
static void wind_up(struct nbd_session *s)
{
	s->conn->server->winding_up++;
	s->conn->leaving = true;
	volume_cancel(s->volume);
	while (s->requests_used > 0 || s->status_runs)
		waitq_wait(&s->room);
	s->ending = true;
	waitq_wake_all(&s->out_some);
	while (s->writer_runs)
		waitq_wait(&s->room);
	s->conn->server->winding_up--;
}

static struct nbd_session *session_new(struct nbd_conn *conn)
{
	struct nbd_session *s = mem_zalloc(sizeof(*s));

	if (!s)
		return NULL;
	s->conn = conn;
	s->volume = conn->server->conf.reader;
	list_init(&s->free_requests);
	list_init(&s->free_pieces);
	list_init(&s->out);
	list_init(&s->status_queue);
	waitq_init(&s->room);
	waitq_init(&s->out_some);
	for (uint32_t i = NBD_REQUESTS_MAX; i-- > 0;)
		list_push_front(&s->free_requests, &s->request[i].node);
	for (uint32_t i = NBD_PIECES_MAX; i-- > 0;)
		list_push_front(&s->free_pieces, &s->piece[i].node);
	return s;
}

void nbd_session_run(struct nbd_conn *conn)
{
	struct nbd_session *s = session_new(conn);

	if (!s)
		return;
	if (fiber_start(conn->server->loop, nbd_reply_fiber, s) == 0) {
		s->writer_runs = true;
		conn->session = s;
		read_requests(s);
		wind_up(s);
		conn->session = NULL;
	}
	mem_free(s);
}
