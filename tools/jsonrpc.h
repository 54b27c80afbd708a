/* JSON-RPC 2.0 on whole messages: one request text in, one answer text out. Knows no socket and no method.
 *
 * A request is one JSON object {"jsonrpc": "2.0", "method": TEXT, "params": OBJECT, "id": NUMBER | TEXT | null}. Without
 * "id" it is a notification: carried out, not answered. Batches (arrays) and positional parameters are refused.
 * An error answer's "data" is {"errno": 2, "name": "ENOENT"}, of Linux. */
#ifndef TOOLS_JSONRPC_H
#define TOOLS_JSONRPC_H

#include <stddef.h>

#include "tools/params.h"

/* X(name, number, what) */
#define JSONRPC_ERRORS(X)                                         \
	X(PARSE, -32700, "not valid JSON, or beyond a limit")     \
	X(REQUEST, -32600, "not a JSON-RPC 2.0 request")          \
	X(METHOD, -32601, "no such method")                       \
	X(PARAMS, -32602, "wrong, missing or unknown parameters") \
	X(FAILED, -32000, "the method failed; see data.errno")    \
	X(REFUSED, -32001, "the peer may not use this socket, or there are too many connections")

enum jsonrpc_error {
#define X(name, number, what) JSONRPC_##name = (number),
	JSONRPC_ERRORS(X)
#undef X
};

/* Answers 0 and a result (NULL stands for {}), or -errno and a message. */
struct jsonrpc_method {
	const char *name;
	int (*call)(void *context, struct params *params, json_t **result, struct err *err);
	const char *help;
};

/* Carries out one request. 0: *answer is the text of the answer, without newline, for the caller to free, or NULL when
 * there is none to give; -ENOMEM. */
int jsonrpc_answer(const struct jsonrpc_method *methods, size_t method_count, void *context, const char *request,
		   size_t len_bytes, char **answer) __attribute__((warn_unused_result));

/* The text of an error answer to a request that was not read. NULL: no memory. */
char *jsonrpc_error_text(enum jsonrpc_error error, int code, const char *message);

#endif
