/* What poolvm's control socket can be asked for. Their context is a struct vm, whose lock is held. */
#ifndef TOOLS_POOLVM_METHODS_H
#define TOOLS_POOLVM_METHODS_H

#include "tools/jsonrpc.h"

extern const struct jsonrpc_method poolvm_methods[];
extern const size_t poolvm_method_count;

#endif
