/* The state folder: what poold serves, so that a restart serves it again without a command.
 *
 *     lock         held (flock) while a poold runs on the folder; holds its pid
 *     state.json   the pools imported and the exports, replaced atomically
 *
 *	{"version": 1,
 *	 "pools": [{"name": "tank", "uuid": "...", "disks": ["/dev/sdb", ...]}, ...],
 *	 "exports": [{"pool_uuid": "...", "volume_id": 7, "volume": "web0", "kind": "vhost-user-blk",
 *	              "address": "/run/web0.sock", "queues": 4, "read_only": false}, ...]}
 *
 * An export with TLS also has "tls_certs": "/etc/..." or "tls_psk": "/etc/...".
 *
 * An export is bound to its volume by the pool's uuid and the volume's id; the name ("web0", or "web0@monday" of a snapshot)
 * is for people. A record only ever
 * leaves by command. A file that cannot be read in full is refused, never overwritten.
 *
 * Records are owned by whoever made them; a list names those to be written. One thread, except state_write. */
#ifndef TOOLS_STATE_H
#define TOOLS_STATE_H

#include <stdbool.h>
#include <stdint.h>

#include "pool/base/err.h"
#include "pool/base/list.h"
#include "pool/pool.h"
#include "volumes/volume.h"

#define STATE_VERSION 1
#define STATE_KIND_MAX 31
#define UUID_TEXT_BYTES 37

struct state_pool {
	struct list node; /* in state.pools while recorded */
	char name[POOL_NAME_MAX + 1];
	char uuid[UUID_TEXT_BYTES];
	char **disks; /* URIs, owned */
	uint32_t disk_count;
};

struct state_export {
	struct list node; /* in state.exports while recorded */
	char pool_uuid[UUID_TEXT_BYTES];
	char volume[VOLUME_NAME_BYTES];
	uint64_t volume_id;
	char kind[STATE_KIND_MAX + 1];
	char *address;   /* owned */
	uint32_t queues; /* 0: the target's default */
	bool read_only;
	char *tls_certs, *tls_psk; /* owned; NULL: none. Files of TLS, see struct nbd_opts */
};

struct state {
	int dir_fd, lock_fd;
	struct list pools, exports;
};

/* Creates the folder (0700) and its parents if need be, and locks it. -EBUSY: another poold has it. */
int state_open(struct state *state, const char *dir, struct err *err) __attribute__((warn_unused_result));
/* Frees all records that are on the lists, and unlocks. */
void state_close(struct state *state);

/* Reads state.json into empty lists; an absent file is an empty state. */
int state_load(struct state *state, struct err *err) __attribute__((warn_unused_result));
/* The lists as JSON text, to be freed. NULL: no memory. */
char *state_to_text(const struct state *state);
int state_from_text(struct state *state, const char *text, size_t len_bytes, struct err *err)
	__attribute__((warn_unused_result));
/* Replaces state.json: afterwards it is text, or on failure what it was. Blocks; any thread, one at a time. */
int state_write(const struct state *state, const char *text, struct err *err) __attribute__((warn_unused_result));

/* Makers return NULL when there is no memory. New records are on no list. */
struct state_pool *state_pool_new(const char *name, const char *uuid, const char *const *disks, uint32_t disk_count);
void state_pool_free(struct state_pool *pool);
struct state_export *state_export_new(const char *pool_uuid, const char *volume, uint64_t volume_id, const char *kind,
				      const char *address);
/* Copies both; each may be NULL. 0 or -ENOMEM. */
int state_export_set_tls(struct state_export *exp, const char *certs, const char *psk)
	__attribute__((warn_unused_result));
void state_export_free(struct state_export *exp);

#endif
