/* Where an NBD server listens: "unix:PATH" or "tcp:HOST:PORT". Blocking calls: for helper threads (reactor_offload). */
#ifndef TARGETS_NBD_LISTEN_H
#define TARGETS_NBD_LISTEN_H

#include "pool/base/err.h"
#include "targets/socket.h"

/* HOST is a name or an address, IPv6 in brackets ("tcp:[::1]:10809"); empty: every address. PORT: a number or a service.
 * A path is as in socket.h, which fills in *file; file->path is NULL for TCP. The descriptor (non-blocking) or -errno. */
int nbd_listen(const char *address, struct socket_file *file, struct err *err);

#endif
