/* Exports: a volume served on a socket. The public face of targets/.
 *
 * Functions run on fibers of the pool's loop and may wait; an export's work runs on its volume's home loop. */
#ifndef TARGETS_EXPORT_H
#define TARGETS_EXPORT_H

#include <stdbool.h>
#include <stdint.h>

#include "pool/base/err.h"
#include "volumes/volume.h"

#define EXPORT_QUEUES_MAX 64

struct export;

/* Where the rare lines about exports go (a ring given up, a request refused); NULL: nowhere. Not per I/O, and limited in
 * number. Set once, before the first export; called on any loop. */
void export_set_log(void (*log)(const char *line));

struct vhost_user_opts {
	const char *socket_path; /* created 0600 (or fd passed: listen_fd); replaced if stale, refused if in use */
	int listen_fd;           /* >= 0: already listening; -1: create socket_path */
	uint32_t queues;         /* 0: default 4 */
	bool read_only;
};

/* Takes over the volume handle on success; on failure the caller still owns it. `serial`: GET_ID's string, <= 20 bytes. */
int export_vhost_user_start(struct volume *volume, const char *serial, const struct vhost_user_opts *opts,
			    struct export **out, struct err *err);

struct nbd_opts {
	const char *address; /* "unix:PATH" (as socket_path above) or "tcp:HOST:PORT"; see nbd_listen.h */
	bool read_only;
	/* TLS, and nothing without it; at most one of both. Files: see nbd_tls.h. NULL: plain text. */
	const char *tls_certs_dir, *tls_psk_file;
	uint32_t connections_max; /* 0: default */
};

/* As above. `name`: what clients call the export; the empty name means it too. A volume may have several of these. */
int export_nbd_start(struct volume *volume, const char *name, const struct nbd_opts *opts, struct export **out,
		     struct err *err);

/* Stops serving, closes the volume handle, removes the socket, frees. Requests in flight finish first; those that wait for
 * space in a full pool get no answer, and a vhost-user front end's inflight region keeps them for the next session. */
void export_stop(struct export *exp);

struct export_info {
	const char *kind; /* "vhost-user-blk", "nbd" */
	const char *address;
	bool connected, read_only, tls;
	uint32_t queues, queues_running; /* vhost-user-blk */
	uint32_t connections;            /* now */
	uint64_t sessions;               /* since start */
	uint64_t requests, bad_requests, broken_rings;
	uint64_t turned_away; /* connections */
};
void export_get_info(struct export *exp, struct export_info *info);

#endif
