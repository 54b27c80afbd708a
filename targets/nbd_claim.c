/* Who of an NBD server's clients may write: see "who may write" in volumes/volume.h.
 *
 * A client is all connections of one peer, a process or, over TCP, a host: clients open several and call them one (multi-conn). The
 * first that writes makes its client the volume's writer, on top of the epoch that it saw when it was told of the export; it
 * stays so until its last connection ends. Meanwhile others are told that the export is read-only, and if they came
 * before it, their writes are refused. The same goes for them while another export of the volume has a writer at work. */
#include <errno.h>
#include <netinet/in.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>

#include "targets/nbd_int.h"

void nbd_claim_init(struct nbd_conn *conn)
{
	struct sockaddr_storage addr = { 0 };
	struct ucred cred = { 0 };
	socklen_t len = sizeof(addr), cred_len = sizeof(cred);

	(void)getpeername(conn->stream.sock, (struct sockaddr *)&addr, &len);
	if (addr.ss_family == AF_INET6)
		memcpy(conn->peer.host, &((struct sockaddr_in6 *)&addr)->sin6_addr, 16);
	else if (addr.ss_family == AF_INET)
		memcpy(conn->peer.host, &((struct sockaddr_in *)&addr)->sin_addr, 4);
	else if (getsockopt(conn->stream.sock, SOL_SOCKET, SO_PEERCRED, &cred, &cred_len) == 0)
		conn->peer.pid = cred.pid;
}

static bool same_peer(const struct nbd_peer *a, const struct nbd_peer *b)
{
	return a->pid == b->pid && memcmp(a->host, b->host, sizeof(a->host)) == 0;
}

static bool is_writer(const struct nbd_conn *conn)
{
	return conn->server->has_writer && same_peer(&conn->peer, &conn->server->writer);
}

bool nbd_claim_is_taken(struct nbd_conn *conn)
{
	struct nbd_server *server = conn->server;

	conn->epoch_seen = volume_epoch(server->conf.volume);
	return (server->has_writer && !is_writer(conn)) || volume_is_held(server->conf.volume);
}

static int claim(struct nbd_conn *conn, struct err *err)
{
	struct nbd_server *server = conn->server;
	struct volume_claim claim = { conn->epoch_seen, loop_random(server->loop) | 1, NULL };
	char holder[VOLUME_HOLDER_BYTES];
	int rc;

	if (is_writer(conn))
		return 0;
	if (server->has_writer)
		return err_set(err, -EBUSY, "another client of this export writes");
	/* It was away, and nobody has written since. */
	if (same_peer(&conn->peer, &server->writer) && volume_resume(server->conf.volume, err) == 0) {
		server->has_writer = true;
		return 0;
	}
	if (conn->peer.pid > 0)
		snprintf(holder, sizeof(holder), "process %d by NBD, export '%.64s'", (int)conn->peer.pid, server->name);
	else
		snprintf(holder, sizeof(holder), "a client by NBD, export '%.64s'", server->name);
	claim.holder = holder;
	rc = volume_activate(server->conf.volume, &claim, err);
	server->has_writer = rc == 0;
	if (rc == 0)
		server->writer = conn->peer;
	return rc;
}

int nbd_claim(struct nbd_conn *conn)
{
	struct nbd_server *server = conn->server;
	struct err err = { "" };
	char line[200];
	int rc;

	if (is_writer(conn))
		return 0;
	server->busy_claiming++;
	fmutex_lock(&server->claiming);
	rc = claim(conn, &err);
	fmutex_unlock(&server->claiming);
	server->busy_claiming--;
	if (rc < 0) {
		snprintf(line, sizeof(line), "a client may not write: %.150s", err.msg);
		server->conf.log(server->conf.log_arg, line);
	}
	return rc;
}

void nbd_claim_drop(struct nbd_conn *conn)
{
	struct nbd_server *server = conn->server;

	if (!is_writer(conn))
		return;
	list_for_each(node, &server->conns)
		if (same_peer(&list_entry(node, struct nbd_conn, node)->peer, &server->writer))
			return;
	server->has_writer = false;
	volume_rest(server->conf.volume);
}
