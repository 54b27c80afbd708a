/* Life of an NBD server and its connections: see nbd.h.
 *
 * One fiber accepts, one serves each connection: handshake, then session (which has a fiber more to write). A connection
 * has a deadline while it shakes hands, and again when the server stops: when it passes, the socket is shut and every wait
 * of the connection ends by itself. */
#include "targets/nbd.h"

#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "pool/base/mem.h"
#include "targets/nbd_int.h"

/* After accept failed, for lack of descriptors, say. */
#define ACCEPT_RETRY_NS 100000000ull
/* How long a newcomer waits for those who are leaving. */
#define ROOM_WAIT_NS 2000000000ull
#define ROOM_LOOK_NS 1000000ull
/* What a Unix socket may hold on its way out: replies of a whole turn. */
#define SEND_BUFFER_BYTES (1 << 20)

/* ---- a connection ---- */

static void deadline_passed(struct timer *timer)
{
	struct nbd_conn *conn = container_of(timer, struct nbd_conn, deadline);

	conn->late = true;
	nbd_stream_shut(&conn->stream, false);
}

/* TCP: small messages at once, and a peer that is gone for good is noticed; the kernel finds the right buffers by itself.
 * Unix: room for the replies of a turn. All of it works without, only slower. */
static void tune_socket(int sock)
{
	int on = 1, bytes = SEND_BUFFER_BYTES, domain = AF_UNSPEC;
	socklen_t len = sizeof(domain);

	(void)getsockopt(sock, SOL_SOCKET, SO_DOMAIN, &domain, &len);
	if (domain == AF_UNIX) {
		(void)setsockopt(sock, SOL_SOCKET, SO_SNDBUF, &bytes, sizeof(bytes));
		return;
	}
	(void)setsockopt(sock, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
	(void)setsockopt(sock, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof(on));
}

static int set_deadline(struct nbd_conn *conn, uint64_t after_ns)
{
	struct loop *loop = conn->server->loop;

	return timer_arm(loop, &conn->deadline, loop_now_ns(loop) + after_ns);
}

static void conn_close(struct nbd_conn *conn)
{
	struct nbd_server *server = conn->server;

	if (conn->stream.tls && set_deadline(conn, NBD_STOP_NS_MAX) == 0)
		nbd_tls_bye(conn->stream.tls);
	timer_cancel(server->loop, &conn->deadline);
	nbd_contexts_drop(conn);
	nbd_tls_free(conn->stream.tls);
	nbd_input_release(&conn->input);
	close(conn->stream.sock);
	list_del(&conn->node);
	nbd_claim_drop(conn);
	mem_free(conn);
	server->conn_count--;
	waitq_wake_all(&server->changed);
}

static void handshake_failed(struct nbd_conn *conn, int rc)
{
	struct nbd_server *server = conn->server;
	char line[96];

	server->counters.handshakes_failed++;
	/* Whoever only looks whether somebody listens is no news. */
	if (rc == -EPIPE && !conn->late)
		return;
	snprintf(line, sizeof(line), "a handshake failed: %s", conn->late ? "it took too long" : strerror(-rc));
	server->conf.log(server->conf.log_arg, line);
}

static void conn_fiber(void *arg)
{
	struct nbd_conn *conn = arg;
	struct nbd_server *server = conn->server;
	int rc = nbd_handshake(conn);

	if (!conn->leaving)
		timer_cancel(server->loop, &conn->deadline);
	if (rc == 0) {
		server->counters.sessions++;
		nbd_session_run(conn);
	} else if (rc != -ECONNABORTED && !conn->leaving) {
		handshake_failed(conn, rc);
	}
	conn_close(conn);
}

/* 0, or -ENOMEM and the socket is still the caller's. */
static int conn_start(struct nbd_server *server, int sock)
{
	struct nbd_conn *conn = mem_zalloc(sizeof(*conn));

	if (!conn)
		return -ENOMEM;
	conn->server = server;
	conn->stream.sock = sock;
	nbd_claim_init(conn);
	nbd_input_init(&conn->input, &conn->stream, &server->buffers);
	timer_init(&conn->deadline, deadline_passed);
	if (set_deadline(conn, NBD_HANDSHAKE_NS_MAX))
		goto free_conn;
	if (fiber_start(server->loop, conn_fiber, conn))
		goto cancel_timer;
	list_push_back(&server->conns, &conn->node);
	server->conn_count++;
	return 0;

cancel_timer:
	timer_cancel(server->loop, &conn->deadline);
free_conn:
	mem_free(conn);
	return -ENOMEM;
}

/* Nothing new is read; what is in flight and does not wait for space may finish until the deadline. A handshake ends at
 * once. */
static void conn_leave(struct nbd_conn *conn)
{
	conn->leaving = true;
	volume_cancel(conn->server->conf.volume);
	nbd_stream_shut(&conn->stream, conn->session);
	if (set_deadline(conn, NBD_STOP_NS_MAX))
		nbd_stream_shut(&conn->stream, false);
}

/* ---- accepting ---- */

static bool has_room(const struct nbd_server *server)
{
	return server->conn_count < server->conf.conns_max;
}

/* Where clients have gone and only their requests remain, or are about to see that they have, there will soon be room. */
static bool wait_for_room(struct nbd_server *server)
{
	uint64_t deadline_ns = loop_now_ns(server->loop) + ROOM_WAIT_NS;

	while (!has_room(server) && (server->winding_up > 0 || server->busy_claiming > 0) && !server->stopping &&
	       loop_now_ns(server->loop) < deadline_ns)
		fiber_sleep_ns(ROOM_LOOK_NS);
	return has_room(server) && !server->stopping;
}

static void accept_one(struct nbd_server *server)
{
	int sock = accept4(server->conf.listen_fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);

	if (sock < 0) {
		if (errno != EAGAIN && errno != EINTR && errno != ECONNABORTED)
			fiber_sleep_ns(ACCEPT_RETRY_NS);
		return;
	}
	tune_socket(sock);
	if (wait_for_room(server) && conn_start(server, sock) == 0)
		return;
	server->counters.turned_away++;
	server->conf.log(server->conf.log_arg, "a connection is turned away: there are as many as may be");
	close(sock);
}

static void listen_fiber(void *arg)
{
	struct nbd_server *server = arg;

	while (!server->stopping) {
		int rc = fd_wait(server->conf.listen_fd, POLLIN, UINT64_MAX, &server->no_more);

		if (rc >= 0)
			accept_one(server);
		else if (rc != -ECANCELED)
			fiber_sleep_ns(ACCEPT_RETRY_NS);
	}
	server->listening = false;
	waitq_wake_all(&server->changed);
}

/* ---- the server ---- */

int nbd_server_start(const struct nbd_conf *conf, struct nbd_server **out)
{
	struct nbd_server *server = mem_zalloc(sizeof(*server));

	if (!server)
		return -ENOMEM;
	server->conf = *conf;
	server->loop = volume_loop(conf->volume);
	snprintf(server->name, sizeof(server->name), "%s", conf->name);
	server->conf.name = server->name;
	fd_cancel_init(&server->no_more);
	fmutex_init(&server->claiming);
	nbd_buffers_init(&server->buffers);
	list_init(&server->conns);
	waitq_init(&server->changed);
	if (fiber_start(server->loop, listen_fiber, server)) {
		mem_free(server);
		return -ENOMEM;
	}
	server->listening = true;
	*out = server;
	return 0;
}

void nbd_server_stop(struct nbd_server *server)
{
	server->stopping = true;
	fd_cancel(&server->no_more);
	list_for_each(node, &server->conns)
		conn_leave(list_entry(node, struct nbd_conn, node));
	while (server->listening || server->conn_count > 0)
		waitq_wait(&server->changed);
	nbd_buffers_release(&server->buffers);
	mem_free(server);
}

uint32_t nbd_server_conns(const struct nbd_server *server)
{
	return server->conn_count;
}

const struct nbd_counters *nbd_server_counters(const struct nbd_server *server)
{
	return &server->counters;
}
