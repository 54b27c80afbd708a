/* The control socket: JSON-RPC 2.0 over a Unix stream socket, one request and one answer a line.
 *
 * Only root and the daemon's own user may use it: the socket has mode 0600, and the peer's credentials are checked for each
 * command. Functions: fibers of loop 0; they may wait. */
#ifndef TOOLS_CONTROL_H
#define TOOLS_CONTROL_H

#include "pool/base/err.h"
#include "tools/jsonrpc.h"

/* Limits. A client that goes beyond one is told, where that is possible, and loses its connection. */
#define CONTROL_REQUEST_BYTES_MAX (128u << 10) /* one request */
#define CONTROL_CONNS_MAX 64                   /* served at once; others wait to be accepted */
#define CONTROL_BACKLOG 1024                   /* waiting ones, as far as the system allows */
#define CONTROL_HALF_S 10                      /* from the first byte of a request to its newline */
#define CONTROL_SEND_S 10                      /* for the peer to read on */
#define CONTROL_IDLE_MS 100                    /* without a request, when others wait: may lose its place */

struct control;

/* What is served. */
struct control_opts {
	const char *socket_path; /* replaced if stale; -EADDRINUSE if a daemon answers there */
	const struct jsonrpc_method *methods;
	size_t method_count;
	void *context; /* of the methods */
};

/* Listens: those who connect wait. */
int control_open(const struct control_opts *opts, struct control **out, struct err *err)
	__attribute__((warn_unused_result));
/* Serves them from now on. */
int control_serve(struct control *control, struct err *err) __attribute__((warn_unused_result));
/* Ends all connections, once their present command is done, and removes the socket. */
void control_stop(struct control *control);

#endif
