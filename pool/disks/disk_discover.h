/* What a server of network disks offers. */
#ifndef POOL_DISKS_DISK_DISCOVER_H
#define POOL_DISKS_DISK_DISCOVER_H

#include <stdint.h>

#include "pool/base/err.h"

/* Takes what is found, one call each. */
struct disk_finder {
	const char *server; /* set by disk_discover */
	/* `uri` opens the disk, or names a target that cannot be looked into, for the reason `why` (otherwise ""). size_bytes is
	 * 0 if the server was not asked. All is good during the call only. */
	void (*found)(struct disk_finder *finder, const char *uri, uint64_t size_bytes, const char *why);
};

/* Asks "iscsi://[USER@]HOST[:PORT][?secret-file=PATH...]", "nbd://HOST[:PORT]" or "nbd+unix:///?socket=PATH" (or nbds). Fiber of a
 * real loop; waits. 0, or -errno and a message. */
int disk_discover(const char *uri, struct disk_finder *finder, struct err *err) __attribute__((warn_unused_result));

/* --- for drivers --- */

/* Tells of a disk whose URI is the server's with this path (not percent-encoded), options included. */
void disk_found(struct disk_finder *finder, const char *path, uint64_t size_bytes, const char *why);
int disk_iscsi_discover(const char *uri, struct disk_finder *finder, struct err *err)
	__attribute__((warn_unused_result));
int disk_nbd_discover(const char *uri, struct disk_finder *finder, struct err *err) __attribute__((warn_unused_result));

#endif
