/* The client's side of the control socket: one connection, one call at a time, blocking. */
#ifndef TOOLS_RPC_H
#define TOOLS_RPC_H

#include <stdbool.h>

#include <jansson.h>

#include "pool/base/err.h"

#define RPC_SOCKET_DEFAULT "/run/poold/poold.sock"

struct rpc;

/* Connects to the daemon at path. On failure the daemon cannot be reached. */
int rpc_connect(const char *path, struct rpc **out, struct err *err) __attribute__((warn_unused_result));
void rpc_close(struct rpc *rpc);

/* Calls a method; params (NULL: none) is consumed. 0: *result is the caller's. Otherwise -errno and a message: the
 * daemon's own, or, when rpc_is_lost, that the daemon went away or answered nonsense. */
int rpc_call(struct rpc *rpc, const char *method, json_t *params, json_t **result, struct err *err)
	__attribute__((warn_unused_result));
bool rpc_is_lost(const struct rpc *rpc);

#endif
