/* A set of opened disks on its way into a pool. Fibers of loop 0; all wait. */
#ifndef TOOLS_DAEMON_DISKS_H
#define TOOLS_DAEMON_DISKS_H

#include "tools/daemon.h"

struct disk_set {
	struct disk *disks[POOL_DISKS_MAX];
	uint32_t count;
};

/* Opens all, or none. */
int disk_set_open(struct disk_set *set, const struct daemon *daemon, const struct disk_request *request,
		  struct err *err) __attribute__((warn_unused_result));
/* Opens those that can be; -EBUSY: one is in use by another process; other: none can be. `why` tells of the first that cannot;
 * "" if there is none. */
int disk_set_open_found(struct disk_set *set, const struct daemon *daemon, const struct disk_request *request,
			struct err *why) __attribute__((warn_unused_result));
/* Closes those that are left. */
void disk_set_close(struct disk_set *set);
/* Which pool they belong to: by the first label found. -ENOENT: no label. */
int disk_set_identify(const struct disk_set *set, struct disk_probe *found, struct err *err)
	__attribute__((warn_unused_result));
/* Closes and drops the disks that have no label of this pool. */
int disk_set_keep(struct disk_set *set, const char *pool_uuid, struct err *err) __attribute__((warn_unused_result));

/* The open pool that has the disk of this name, and what it says of it; or NULL. Does not wait. */
struct daemon_pool *disk_find_open(const struct daemon *daemon, const char *uri, struct pool_disk_info *disk);

#endif
