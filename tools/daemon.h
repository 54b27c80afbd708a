/* The registry: every pool and export this poold knows, open or not, and the operations that control calls.
 *
 * Everything runs on fibers of loop 0 and may wait, unless stated otherwise. An operation happens wholly or not at all;
 * what it changes for good is in the state folder when it returns 0.
 *
 * Names come in as "POOL", "POOL/VOLUME" and "POOL/VOLUME@SNAPSHOT": see names.h. */
#ifndef TOOLS_DAEMON_H
#define TOOLS_DAEMON_H

#include <stdbool.h>
#include <stdint.h>

#include "pool/base/err.h"
#include "pool/pool.h"
#include "pool/runtime/fiber.h"
#include "pool/runtime/reactor.h"
#include "targets/export.h"
#include "tools/config.h"
#include "tools/names.h"
#include "tools/state.h"
#include "volumes/volume.h"

/* --- what is registered ----------------------------------------------------------------------------------- */

/* X(name, text, what). Of pools and exports alike. */
#define MEMBER_STATES(X)                                                \
	X(STARTING, "starting", "being created, imported or started")   \
	X(OPEN, "open", "usable")                                       \
	X(STOPPING, "stopping", "being exported, destroyed or removed") \
	X(DOWN, "down", "known, but could not be brought up; see its error")

enum member_state {
#define X(name, text, what) MEMBER_##name,
	MEMBER_STATES(X)
#undef X
};
const char *member_state_text(enum member_state state);

/* Counts who uses something, so that it is not freed under a fiber that waits. */
struct pin {
	uint32_t users;
	struct waitq unused;
};

struct daemon_pool {
	struct list node; /* in daemon.pools */
	struct pin pin;
	struct fmutex change; /* held by whatever changes volumes, exports or disks */
	enum member_state state;
	struct err why; /* DOWN: the reason */
	char name[POOL_NAME_MAX + 1];
	struct state_pool *record; /* NULL until the pool is ours: while it is created or imported */
	struct pool *pool;         /* OPEN, STOPPING */
	struct volumes *volumes;   /* OPEN, STOPPING */
	struct list exports;       /* struct daemon_export */
};

struct daemon_export {
	struct list node; /* in daemon_pool.exports */
	struct pin pin;
	enum member_state state;
	struct err why;              /* DOWN: the reason */
	struct state_export *record; /* never NULL; of a temporary one on no list */
	bool temporary;
	struct export *export;       /* OPEN, STOPPING */
};

struct daemon {
	const struct config *config;
	struct state state;
	struct fmutex saving; /* one write of state.json at a time */
	struct loop **loops;  /* of the reactors */
	uint32_t loop_count;
	uint64_t started_ns;
	struct list pools;
	uint32_t starting; /* fibers that bring a pool up */
	uint32_t watchers; /* fibers that end temporary exports */
	uint32_t temporaries; /* made so far; numbers their addresses */
};

/* --- life ------------------------------------------------------------------------------------------------- */

/* Any thread, before the loops run: takes the state folder and what is recorded there. */
int daemon_init(struct daemon *daemon, const struct config *config, struct err *err)
	__attribute__((warn_unused_result));
/* After daemon_stop, or right after daemon_init. */
void daemon_fini(struct daemon *daemon);

/* Brings up what is recorded, all pools in parallel; what cannot be is DOWN. The wait ends when all are done or
 * DAEMON_RESTORE_WAIT_S have passed; the rest goes on. */
#define DAEMON_RESTORE_WAIT_S 10
void daemon_restore_begin(struct daemon *daemon);
void daemon_restore_wait(struct daemon *daemon);
/* Tries again everything that is DOWN. Returns how many are still. */
uint32_t daemon_retry(struct daemon *daemon);
/* Stops exports, closes volumes and pools. Nothing is forgotten. No other operation may be under way, but pools may still
 * be STARTING: these are waited for no longer than above, and then left. */
void daemon_stop(struct daemon *daemon);

/* How many pools and exports are DOWN. */
uint32_t daemon_count_down(const struct daemon *daemon);

/* --- finding ---------------------------------------------------------------------------------------------- */

/* Finds a pool in any state and pins it: it stays in memory and, if open, open. -ENOENT. */
int daemon_pool_find(struct daemon *daemon, const char *name, struct daemon_pool **out, struct err *err)
	__attribute__((warn_unused_result));
/* The same, but -ENXIO with the reason unless it is open. */
int daemon_pool_get(struct daemon *daemon, const char *name, struct daemon_pool **out, struct err *err)
	__attribute__((warn_unused_result));
void daemon_pool_put(struct daemon_pool *pool);

void pin_init(struct pin *pin);
void pin_take(struct pin *pin);
void pin_drop(struct pin *pin);
void pin_wait_unused(struct pin *pin);

/* --- pools ------------------------------------------------------------------------------------------------ */

/* How disks named by the administrator are opened. */
struct disk_request {
	const char *const *uris;
	uint32_t count;
	uint64_t create_bytes; /* see struct disk_open_opts */
	bool preallocate;
};

int daemon_pool_create(struct daemon *daemon, const struct pool_create_opts *opts, const struct disk_request *disks,
		       struct err *err) __attribute__((warn_unused_result));
/* A pool that is known but DOWN is brought up from these disks, which replace the recorded ones. name: filled in. */
int daemon_pool_import(struct daemon *daemon, const struct disk_request *disks, char name[POOL_NAME_MAX + 1],
		       struct err *err) __attribute__((warn_unused_result));
/* Closes the pool and forgets it. -EBUSY if it has exports, unless forced: these then go too. */
int daemon_pool_export(struct daemon *daemon, const char *name, bool force, struct err *err)
	__attribute__((warn_unused_result));
/* Wipes it. Exports as above. */
int daemon_pool_destroy(struct daemon *daemon, const char *name, bool force, struct err *err)
	__attribute__((warn_unused_result));
int daemon_pool_add(struct daemon *daemon, const char *name, const struct disk_request *disk, bool force,
		    struct err *err) __attribute__((warn_unused_result));
int daemon_disk_probe(struct daemon *daemon, const char *uri, struct disk_probe *probe, uint64_t *size_bytes,
		      struct err *err) __attribute__((warn_unused_result));

/* --- volumes and snapshots ------------------------------------------------------------------------------- */

/* Disk life and scrub, of one pool. */
enum daemon_disk_op { DAEMON_DISK_OFFLINE, DAEMON_DISK_ONLINE, DAEMON_DISK_REMOVE };
int daemon_disk_change(struct daemon *daemon, const char *pool, uint32_t disk_id, enum daemon_disk_op op, struct err *err);
int daemon_scrub(struct daemon *daemon, const char *pool, struct err *err);

int daemon_volume_create(struct daemon *daemon, const char *name, uint64_t size_bytes, const char *policy,
			 struct err *err) __attribute__((warn_unused_result));
/* -EBUSY while it, or a snapshot that is to go too, has exports; -ENOTEMPTY: it has snapshots, which are not to. */
int daemon_volume_delete(struct daemon *daemon, const char *name, bool with_snapshots, struct err *err)
	__attribute__((warn_unused_result));
/* new_name: with the pool, which stays, or without it. Exports go on, also those of snapshots. */
int daemon_volume_rename(struct daemon *daemon, const char *name, const char *new_name, struct err *err)
	__attribute__((warn_unused_result));
/* A new volume, of the same pool, from a snapshot, or from what a volume holds now. */
int daemon_clone(struct daemon *daemon, const char *from, const char *new_name, struct err *err)
	__attribute__((warn_unused_result));

/* All of one pool, at one instant. */
int daemon_snapshot_create(struct daemon *daemon, const char *const *names, uint32_t count, struct err *err)
	__attribute__((warn_unused_result));
int daemon_snapshot_delete(struct daemon *daemon, const char *name, struct err *err)
	__attribute__((warn_unused_result));
/* new_name: "SNAPSHOT", "VOLUME@SNAPSHOT" or all of it; pool and volume stay. Exports go on. */
int daemon_snapshot_rename(struct daemon *daemon, const char *name, const char *new_name, struct err *err)
	__attribute__((warn_unused_result));
/* The snapshot's volume holds again what the snapshot holds. -EBUSY while the volume has exports. */
int daemon_snapshot_rollback(struct daemon *daemon, const char *name, struct err *err)
	__attribute__((warn_unused_result));

/* What a stream of snapshots brings, see volume_receive_begin. */
struct receive_request {
	const char *volume;
	const struct uuid *base; /* NULL: the volume is new */
	uint64_t size_bytes;     /* of a new one */
	const char *policy;
};
int daemon_receive_begin(struct daemon *daemon, const struct receive_request *request, struct err *err)
	__attribute__((warn_unused_result));
int daemon_receive_get_mark(struct daemon *daemon, const char *volume, struct receive_mark *mark, struct err *err)
	__attribute__((warn_unused_result));
int daemon_receive_set_mark(struct daemon *daemon, const char *volume, struct receive_mark mark, struct err *err)
	__attribute__((warn_unused_result));
int daemon_receive_snapshot(struct daemon *daemon, const char *snapshot, const struct uuid *guid, uint64_t created_s,
			    struct receive_mark mark, struct err *err) __attribute__((warn_unused_result));
int daemon_receive_end(struct daemon *daemon, const char *volume, struct err *err) __attribute__((warn_unused_result));

/* Whoever writes the volume may not go on. */
int daemon_volume_fence(struct daemon *daemon, const char *name, struct err *err) __attribute__((warn_unused_result));

/* Where an image differs from a snapshot. */
struct diff_range {
	uint64_t off_bytes, len_bytes;
	bool data; /* or a hole, which reads as zeroes */
};
#define DIFF_RANGES_MAX 4096
struct diff_page {
	uint64_t size_bytes; /* of the newer one */
	uint64_t next_bytes; /* up to here this is all; size_bytes: the end */
	uint32_t count;
	struct diff_range range[];
};
/* Ranges from off_bytes on where `to` (NULL: the snapshot's volume now) differs from the snapshot `from`, in order. *page is to be
 * freed. -EXDEV: they do not share anything. */
int daemon_snapshot_diff(struct daemon *daemon, const char *from, const char *to, uint64_t off_bytes,
			 struct diff_page **page, struct err *err) __attribute__((warn_unused_result));

/* A new size: absolute, or relative to the present one. */
struct resize_request {
	bool relative; /* delta_bytes counts, else size_bytes */
	uint64_t size_bytes;
	int64_t delta_bytes;
	bool force; /* may shrink */
};
int daemon_volume_resize(struct daemon *daemon, const char *name, const struct resize_request *request, struct err *err)
	__attribute__((warn_unused_result));

/* --- exports ---------------------------------------------------------------------------------------------- */

#define EXPORT_TEMPORARY_S 10
#define EXPORT_GIVEN_BYTES 128
struct export_request {
	const char *image; /* "POOL/VOLUME", or "POOL/VOLUME@SNAPSHOT", which is exported read-only */
	const char *kind;  /* "vhost-user-blk": address is an absolute path; "nbd": see struct nbd_opts */
	const char *address;
	uint32_t queues; /* vhost-user-blk; 0: default */
	bool read_only;
	bool standby; /* beside another writable export: its clients may write when the other's do not */
	const char *tls_certs, *tls_psk; /* nbd: absolute path of one of both, or NULL */
	/* For one command: recorded nowhere, and gone with its last client, or when none has come for EXPORT_TEMPORARY_S. With
	 * address NULL it gets one, and the caller's buffer has it. */
	bool temporary;
	bool receiving; /* of a volume that is being received; of no other */
	char given[EXPORT_GIVEN_BYTES];
};
/* At most one writable export of a volume, and any number on standby. */
int daemon_export_add(struct daemon *daemon, struct export_request *request, struct err *err)
	__attribute__((warn_unused_result));
/* Gives one of both: the volume or snapshot (which then must have one export only) or the address; the other is NULL. */
int daemon_export_remove(struct daemon *daemon, const char *image, const char *address, struct err *err)
	__attribute__((warn_unused_result));

#endif
