/* What the files of the registry (daemon*.c) say to each other. The rules that keep it whole:
 *
 * - A pool's engine objects are used only while its state is OPEN and it is pinned, or by the one fiber that put it into
 *   STARTING or STOPPING. The same holds for an export and its target.
 * - Whoever leaves OPEN sets STOPPING first, then waits until the pin is unused, then closes.
 * - A fiber that walks a list may wait only while it has pinned the member it stands on.
 * - What is recorded changes together with state.json, under daemon.saving, or not at all. */
#ifndef TOOLS_DAEMON_INT_H
#define TOOLS_DAEMON_INT_H

#include "tools/daemon.h"

/* --- daemon_record.c: changes of the state folder. 0, or -errno with nothing changed ---------------------- */

/* Makes pool->record of an open pool that has none. */
int daemon_record_pool(struct daemon *daemon, struct daemon_pool *pool, struct err *err)
	__attribute__((warn_unused_result));
/* The pool's recorded disks become those it has, and `extra` (may be NULL). */
int daemon_record_disks(struct daemon *daemon, struct daemon_pool *pool, const char *extra, struct err *err)
	__attribute__((warn_unused_result));
/* The pool and all its exports leave the state. Their records stay with them, on no list. */
int daemon_forget_pool(struct daemon *daemon, struct daemon_pool *pool, struct err *err)
	__attribute__((warn_unused_result));
int daemon_record_export(struct daemon *daemon, struct daemon_export *exp, struct err *err)
	__attribute__((warn_unused_result));
int daemon_forget_export(struct daemon *daemon, struct daemon_export *exp, struct err *err)
	__attribute__((warn_unused_result));
/* The exports of an image, and of a volume's snapshots, get the new name, which stays even if it cannot be written: the id is
 * what binds them. `old` has the name that it had. */
int daemon_record_rename(struct daemon *daemon, struct daemon_pool *pool, const struct volume_info *old,
			 const char *name, struct err *err) __attribute__((warn_unused_result));

/* --- daemon_pool.c ---------------------------------------------------------------------------------------- */

/* A registered pool in this state. NULL: no memory. */
struct daemon_pool *daemon_pool_new(struct daemon *daemon, const char *name, enum member_state state);
/* Waits until nobody looks at it; frees its exports and records too. */
void daemon_pool_free(struct daemon_pool *pool);
struct daemon_pool *daemon_pool_lookup(struct daemon *daemon, const char *name);
/* STARTING -> OPEN, or DOWN with the reason: opens the recorded disks, the pool, its volumes and exports. */
void daemon_pool_bring_up(struct daemon *daemon, struct daemon_pool *pool);
/* What is to be seen to now and then: see volumes_tend. */
void daemon_pool_tend(struct daemon *daemon, struct daemon_pool *pool);
/* OPEN -> DOWN: stops exports, closes all. */
void daemon_pool_shut(struct daemon_pool *pool);

/* --- daemon_export.c -------------------------------------------------------------------------------------- */

/* A registered export in state DOWN that owns record. NULL: no memory. */
struct daemon_export *daemon_export_new(struct daemon_pool *pool, struct state_export *record);
void daemon_export_free(struct daemon_export *exp);
/* DOWN -> OPEN, or DOWN with the reason, for every export of the pool. pool->change is held. */
void daemon_export_bring_up_all(struct daemon_pool *pool);
/* OPEN -> DOWN. */
void daemon_export_shut(struct daemon_export *exp);
/* Whether the record is of this image or, if asked, of a snapshot of this volume. */
bool daemon_export_is_of(const struct state_export *record, const struct volume_info *image, bool or_snapshot);

#endif
