/* What the registry holds, as JSON for the control socket. Fibers of loop 0; they wait. NULL: no memory, or what was to
 * be shown is gone. Keys carry their units; the man page of poolctl lists them. */
#ifndef TOOLS_SHOW_H
#define TOOLS_SHOW_H

#include <jansson.h>

#include "tools/daemon.h"

/* Of a pinned pool in any state; `detail`: its disks too. */
json_t *show_pool(struct daemon_pool *pool, bool detail);
json_t *show_pools(struct daemon *daemon);
/* A volume or snapshot of a pinned, open pool. `measure`: also what it shares with others, unless volumes are being changed;
 * that reads its map. */
int show_image(struct daemon_pool *pool, const char *name, bool measure, json_t **out, struct err *err)
	__attribute__((warn_unused_result));
/* All volumes of a pinned, open pool, or with NULL of all open pools. */
json_t *show_volumes(struct daemon *daemon, struct daemon_pool *pool);
/* All snapshots, measured, of a pool's volume, or with NULL of all its volumes; pools as above. */
json_t *show_snapshots(struct daemon *daemon, struct daemon_pool *pool, const char *volume);
/* Limits that volumes of a pinned, open pool share. */
json_t *show_groups(struct daemon_pool *pool);
json_t *show_exports(struct daemon *daemon);
/* The export at this address. */
json_t *show_export(struct daemon *daemon, const char *address);
/* An array of {volume, off_bytes}: what was found lost. NULL: no memory. Waits. */
json_t *show_errors(struct daemon_pool *pool);
json_t *show_probe(const char *uri, uint64_t size_bytes, const struct disk_probe *probe);
json_t *show_status(struct daemon *daemon);
/* Counters of disks, volumes, exports, loops, memory. */
json_t *show_stat(struct daemon *daemon);

#endif
