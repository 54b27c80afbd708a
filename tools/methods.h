/* The control socket's methods, by name: what poolctl can ask for. */
#ifndef TOOLS_METHODS_H
#define TOOLS_METHODS_H

#include "tools/jsonrpc.h"

/* Their context is a struct daemon. On fibers of loop 0; they wait. */
extern const struct jsonrpc_method methods[];
extern const size_t method_count;

#endif
