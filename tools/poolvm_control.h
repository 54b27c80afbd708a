/* poolvm's control socket: JSON-RPC 2.0, one request and one answer a line, served by the VM's event loop. Only the user it
 * runs as may connect (mode 0600). */
#ifndef TOOLS_POOLVM_CONTROL_H
#define TOOLS_POOLVM_CONTROL_H

#include "vmm-glue/vm.h"

#define CONTROL_LINE_BYTES_MAX 65536u
#define CONTROL_CLIENTS_MAX 8

struct poolvm_control;

int poolvm_control_open(struct vm *vm, const char *path, struct poolvm_control **out, struct err *err)
	__attribute__((warn_unused_result));
/* NULL is allowed. */
void poolvm_control_close(struct poolvm_control *control);

#endif
