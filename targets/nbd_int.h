/* Inside of the NBD server: the server and a connection, as nbd.c (their life), nbd_handshake.c and nbd_session.c share
 * them. All of it belongs to the volume's home loop. */
#ifndef TARGETS_NBD_INT_H
#define TARGETS_NBD_INT_H

#include "pool/runtime/reactor.h"
#include "targets/nbd.h"
#include "targets/nbd_input.h"
#include "targets/nbd_proto.h"
#include "targets/nbd_stream.h"
#include "targets/nbd_tls.h"

/* Who is at the other end: of a Unix socket the process, else the host. */
struct nbd_peer {
	pid_t pid;
	uint8_t host[16];
};

struct nbd_server {
	struct nbd_conf conf; /* .name is `name` */
	struct loop *loop;
	char name[NBD_EXPORT_NAME_BYTES_MAX + 1];
	struct fd_cancel no_more; /* ends the listener's wait */
	struct nbd_buffers buffers;
	struct list conns;
	uint32_t conn_count;
	uint32_t winding_up; /* of these: read nothing more, and finish what they began */
	bool listening, stopping;
	struct waitq changed; /* a connection or the listener ended */
	struct fmutex claiming;
	uint32_t busy_claiming; /* connections that wait for it */
	bool has_writer;        /* `writer` is connected, and has written */
	struct nbd_peer writer; /* of this peer all connections may write; the last one that there was */
	struct nbd_counters counters;
};

struct nbd_session;

/* Metadata contexts that a connection may select. */
#define NBD_CONTEXTS_MAX 4u

/* One that was selected; its id is one more than its place in nbd_conn.context. */
struct nbd_context {
	struct volume *since; /* an open snapshot to compare with; NULL: base:allocation */
};

struct nbd_conn {
	struct list node; /* server's */
	struct nbd_server *server;
	struct nbd_stream stream;
	struct nbd_input input;
	struct timer deadline;       /* of the handshake, later of the end */
	struct nbd_peer peer;
	uint64_t epoch_seen;         /* the volume's when the terms were told */
	struct nbd_terms terms;      /* agreed upon */
	struct nbd_context context[NBD_CONTEXTS_MAX];
	uint32_t context_count;
	struct nbd_session *session; /* NULL in the handshake */
	bool leaving;                /* nothing new is begun, and nothing waits for space any more */
	bool late;                   /* the deadline has passed */
};

/* --- nbd_claim.c --- */

void nbd_claim_init(struct nbd_conn *conn);
/* Somebody else writes the volume: this one may only read. Notes what the volume's epoch is. */
bool nbd_claim_is_taken(struct nbd_conn *conn);
/* The connection is about to write. 0, or -errno: it may not. Waits. */
int nbd_claim(struct nbd_conn *conn);
/* The connection is off the server's list. */
void nbd_claim_drop(struct nbd_conn *conn);

/* Fibers of the connection. Both wait. */

/* 0: the transmission begins, on conn->terms; -errno: the connection is over (-ECONNABORTED: in peace). */
int nbd_handshake(struct nbd_conn *conn);
/* Serves requests until the client leaves, breaks a rule or conn->leaving; every request has been answered, as far as the
 * client took answers. */
void nbd_session_run(struct nbd_conn *conn);

/* --- nbd_context.c: metadata contexts. Fibers of the connection; all wait ----------------------------------- */

/* Selects what the query names. 1; 0: there is no such context, or it is selected already; -E2BIG: there are as many as may
 * be; other -errno. */
int nbd_context_select(struct nbd_conn *conn, struct nbd_text query) __attribute__((warn_unused_result));
/* Drops all that was selected. */
void nbd_contexts_drop(struct nbd_conn *conn);
/* Calls `tell` for each context that there is and a query selects (no queries: all of them). 0, or what `tell` returned
 * if that is not 0, or -ENOMEM. */
int nbd_contexts_list(const struct nbd_conn *conn, const struct nbd_meta_option *queries,
		      int (*tell)(void *arg, const char *context), void *arg) __attribute__((warn_unused_result));

#endif
