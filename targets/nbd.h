/* The NBD server of one listening socket: any number of connections, up to a limit, to one volume.
 *
 * All connections share the volume, so what one has written and flushed is written and flushed for all: CAN_MULTI_CONN.
 * All of it on the volume's home loop. Functions marked "waits" want a fiber. */
#ifndef TARGETS_NBD_H
#define TARGETS_NBD_H

#include <stdbool.h>
#include <stdint.h>

#include "volumes/volume.h"

#define NBD_EXPORT_NAME_BYTES_MAX 256u
/* Connections of a server. Each may hold NBD_READ_BYTES_MAX and NBD_CHUNKS_MAX chunks of memory at worst. */
#define NBD_CONNS_DEFAULT 32u
#define NBD_CONNS_MAX 1024u
/* A handshake must be over after this time. */
#define NBD_HANDSHAKE_NS_MAX (10 * 1000000000ull)
/* Asked to stop, clients have this time to take the answers to what is in flight. */
#define NBD_STOP_NS_MAX (5 * 1000000000ull)

struct nbd_tls_creds;
struct nbd_server;

struct nbd_conf {
	struct volume *volume; /* of whoever writes */
	struct volume *reader; /* another handle of it, which stays INACTIVE: of all others */
	const char *name; /* of the export; 1 .. NBD_EXPORT_NAME_BYTES_MAX bytes. "" means it too */
	bool read_only;
	uint32_t conns_max;          /* 1 .. NBD_CONNS_MAX */
	int listen_fd;               /* non-blocking; stays the caller's, until after the stop */
	struct nbd_tls_creds *creds; /* the same; NULL: plain text only, otherwise TLS only */
	/* Required. One line about the server for a person; rare. */
	void (*log)(void *arg, const char *line);
	void *log_arg;
};

struct nbd_counters {
	uint64_t sessions; /* handshakes that led to a transmission */
	uint64_t handshakes_failed;
	uint64_t turned_away; /* over the limit */
	uint64_t requests, bad_requests, failed_requests;
};

/* What conf names must last as long as the server, but for the name. 0 or -ENOMEM. */
int nbd_server_start(const struct nbd_conf *conf, struct nbd_server **out);
/* Ends all connections: requests in flight finish first, but for those that wait for space, which are dropped. Frees the
 * server. Waits. */
void nbd_server_stop(struct nbd_server *server);
/* Connections there are, those in the handshake included. */
uint32_t nbd_server_conns(const struct nbd_server *server);
const struct nbd_counters *nbd_server_counters(const struct nbd_server *server);

#endif
