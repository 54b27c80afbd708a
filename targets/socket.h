/* The listening Unix socket of an export. Blocking calls: for helper threads (reactor_offload). */
#ifndef TARGETS_SOCKET_H
#define TARGETS_SOCKET_H

#include <sys/types.h>

#include "pool/base/err.h"

/* A socket file that we made. */
struct socket_file {
	const char *path;              /* the caller's */
	dev_t dev;
	ino_t ino;
};

/* Creates `path`, mode 0600, and listens. A stale socket is replaced; one that somebody listens on (-EADDRINUSE), and
 * anything that is no socket (-EEXIST), is left alone. The descriptor (non-blocking) or -errno. */
int socket_listen(const char *path, struct socket_file *file, struct err *err);
/* Removes the file, if it is still ours. */
void socket_remove(const struct socket_file *file);

#endif
