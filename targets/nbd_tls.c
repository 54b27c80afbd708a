/* A TLS session over a socket that the ring reads and writes: see nbd_tls.h. Credentials are in nbd_tls_creds.c.
 *
 * GnuTLS sees memory only. `in` holds what came from the socket and was not yet taken, `out` what is to be sent:
 *
 *     socket -> in -> pull -> gnutls_record_recv -> the reader's memory
 *     the writer's iovecs -> plain (up to one record) -> gnutls_record_send -> push -> out -> socket
 *
 * An empty `in` or a full `out` is EAGAIN to GnuTLS; then the fiber that called it receives or sends, and calls again. There
 * is always room in `out` for a record before one is made, so a send never stops half way.
 *
 * The handshake runs in steps on a helper thread, because a signature takes as long as a hundred requests. The fiber waits
 * for each step, so nobody else touches the session meanwhile. */
#include "targets/nbd_tls.h"

#include <errno.h>
#include <gnutls/gnutls.h>
#include <string.h>

#include "pool/base/mem.h"
#include "pool/runtime/reactor.h"
#include "targets/nbd_stream.h"
#include "targets/nbd_tls_int.h"

#define PLAIN_BYTES 16384u /* of a record */
#define RECORD_ROOM_BYTES (PLAIN_BYTES + 2048u)
#define IN_BYTES 65536u
#define OUT_BYTES (4 * RECORD_ROOM_BYTES)
/* A handshake has a few flights; more steps than this are no handshake. */
#define HANDSHAKE_STEPS_MAX 256

struct nbd_tls {
	gnutls_session_t session;
	int sock;
	bool in_ended;          /* the socket was closed by the other side */
	uint32_t in_at, in_end; /* in[in_at, in_end) is to be taken */
	uint32_t out_bytes;
	uint32_t plain_bytes;
	uint8_t in[IN_BYTES];
	uint8_t out[OUT_BYTES];
	uint8_t plain[PLAIN_BYTES];
};

/* ---- what GnuTLS calls ---- */

static ssize_t pull(gnutls_transport_ptr_t arg, void *buf, size_t len_bytes)
{
	struct nbd_tls *tls = arg;
	uint32_t there = tls->in_end - tls->in_at;

	if (there == 0) {
		if (tls->in_ended)
			return 0;
		gnutls_transport_set_errno(tls->session, EAGAIN);
		return -1;
	}
	if (len_bytes > there)
		len_bytes = there;
	memcpy(buf, tls->in + tls->in_at, len_bytes);
	tls->in_at += (uint32_t)len_bytes;
	return (ssize_t)len_bytes;
}

static ssize_t push(gnutls_transport_ptr_t arg, const void *buf, size_t len_bytes)
{
	struct nbd_tls *tls = arg;
	uint32_t room = OUT_BYTES - tls->out_bytes;

	if (room == 0) {
		gnutls_transport_set_errno(tls->session, EAGAIN);
		return -1;
	}
	if (len_bytes > room)
		len_bytes = room;
	memcpy(tls->out + tls->out_bytes, buf, len_bytes);
	tls->out_bytes += (uint32_t)len_bytes;
	return (ssize_t)len_bytes;
}

/* ---- moving to and from the socket ---- */

static int fill_in(struct nbd_tls *tls)
{
	int res;

	/* GnuTLS also says EAGAIN after a message of its own, with more to take. */
	if (tls->in_ended || tls->in_at < tls->in_end)
		return 0;
	res = nbd_socket_recv(tls->sock, tls->in, IN_BYTES);
	if (res < 0)
		return res;
	tls->in_at = 0;
	tls->in_end = (uint32_t)res;
	tls->in_ended = res == 0;
	return 0;
}

static int flush_out(struct nbd_tls *tls)
{
	struct iovec iov = { tls->out, tls->out_bytes };

	tls->out_bytes = 0;
	return iov.iov_len > 0 ? nbd_socket_send(tls->sock, &iov, 1) : 0;
}

/* ---- handshake ---- */

struct step {
	struct nbd_tls *tls;
	int res;
};

/* Helper thread. */
static int handshake_step(void *arg)
{
	struct step *step = arg;

	step->res = gnutls_handshake(step->tls->session);
	return 0;
}

static int handshake(struct nbd_tls *tls)
{
	struct step step = { .tls = tls };

	for (int steps = 0; steps < HANDSHAKE_STEPS_MAX; steps++) {
		int rc = reactor_offload(handshake_step, &step);

		if (rc == 0)
			rc = flush_out(tls); /* an alert too */
		if (rc < 0)
			return rc;
		if (step.res == GNUTLS_E_SUCCESS)
			return 0;
		if (gnutls_error_is_fatal(step.res) || tls->in_ended)
			return -EPROTO;
		if (step.res == GNUTLS_E_AGAIN && gnutls_record_get_direction(tls->session) == 0)
			rc = fill_in(tls);
		if (rc < 0)
			return rc;
	}
	return -EPROTO;
}

static struct nbd_tls *tls_new(struct nbd_tls_creds *creds, int sock)
{
	struct nbd_tls *tls = mem_alloc(sizeof(*tls));

	if (!tls)
		return NULL;
	memset(tls, 0, offsetof(struct nbd_tls, in));
	tls->sock = sock;
	if (gnutls_init(&tls->session, GNUTLS_SERVER | GNUTLS_NONBLOCK | GNUTLS_NO_SIGNAL | GNUTLS_NO_TICKETS) < 0) {
		mem_free(tls);
		return NULL;
	}
	gnutls_transport_set_ptr(tls->session, tls);
	gnutls_transport_set_pull_function(tls->session, pull);
	gnutls_transport_set_push_function(tls->session, push);
	if (nbd_tls_creds_use(creds, tls->session) < 0) {
		nbd_tls_free(tls);
		return NULL;
	}
	return tls;
}

int nbd_tls_start(struct nbd_tls_creds *creds, int sock, struct nbd_tls **out)
{
	struct nbd_tls *tls = tls_new(creds, sock);
	int rc;

	if (!tls)
		return -ENOMEM;
	rc = handshake(tls);
	if (rc < 0) {
		nbd_tls_free(tls);
		return rc;
	}
	*out = tls;
	return 0;
}

void nbd_tls_free(struct nbd_tls *tls)
{
	if (!tls)
		return;
	gnutls_deinit(tls->session);
	mem_free(tls);
}

/* ---- receiving ---- */

int nbd_tls_recv(struct nbd_tls *tls, void *buf, size_t len_bytes)
{
	size_t got = 0;

	for (;;) {
		ssize_t res = gnutls_record_recv(tls->session, (uint8_t *)buf + got, len_bytes - got);
		int rc;

		if (res > 0)
			got += (size_t)res;
		if (got == len_bytes || (got > 0 && res <= 0))
			return (int)got; /* an end or an error is met again by the next call */
		if (res > 0 || res == GNUTLS_E_INTERRUPTED)
			continue;
		if (res == 0)
			return 0;
		if (res != GNUTLS_E_AGAIN)
			return -EPROTO; /* a renegotiation too: none is ever allowed */
		rc = fill_in(tls);
		if (rc < 0)
			return rc;
	}
}

/* ---- sending ---- */

/* Makes a record of what was gathered. */
static int seal(struct nbd_tls *tls)
{
	uint32_t sealed = 0;

	while (sealed < tls->plain_bytes) {
		ssize_t res;
		int rc = OUT_BYTES - tls->out_bytes < RECORD_ROOM_BYTES ? flush_out(tls) : 0;

		if (rc < 0)
			return rc;
		res = gnutls_record_send(tls->session, tls->plain + sealed, tls->plain_bytes - sealed);
		if (res > 0)
			sealed += (uint32_t)res;
		else if (res != GNUTLS_E_AGAIN && res != GNUTLS_E_INTERRUPTED)
			return -EPROTO;
	}
	tls->plain_bytes = 0;
	return 0;
}

/* Takes as much as fits the record. */
static size_t gather(struct nbd_tls *tls, const struct iovec *iov)
{
	size_t len_bytes = PLAIN_BYTES - tls->plain_bytes;

	if (len_bytes > iov->iov_len)
		len_bytes = iov->iov_len;
	memcpy(tls->plain + tls->plain_bytes, iov->iov_base, len_bytes);
	tls->plain_bytes += (uint32_t)len_bytes;
	return len_bytes;
}

int nbd_tls_send(struct nbd_tls *tls, struct iovec *iov, uint32_t count)
{
	int rc = 0;

	for (uint32_t i = 0; i < count && rc == 0; i++) {
		while (iov[i].iov_len > 0 && rc == 0) {
			size_t len_bytes = gather(tls, &iov[i]);

			iov[i].iov_base = (uint8_t *)iov[i].iov_base + len_bytes;
			iov[i].iov_len -= len_bytes;
			if (tls->plain_bytes == PLAIN_BYTES)
				rc = seal(tls);
		}
	}
	if (rc == 0)
		rc = seal(tls);
	return rc == 0 ? flush_out(tls) : rc;
}

void nbd_tls_bye(struct nbd_tls *tls)
{
	/* The other side may be gone; it is only a courtesy. */
	if (gnutls_bye(tls->session, GNUTLS_SHUT_WR) == 0)
		(void)flush_out(tls);
}
