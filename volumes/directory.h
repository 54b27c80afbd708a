/* Inside volumes/: the directory of volumes and snapshots. Everything here belongs to the pool's loop. */
#ifndef VOLUMES_DIRECTORY_H
#define VOLUMES_DIRECTORY_H

#include "volumes/lineage.h"

#define CALL_RETRY_NS (10ull * 1000 * 1000)

struct volumes {
	struct pool *pool;
	struct volumes_opts opts;
	struct loop *loop;
	struct vloop *vloops;
	uint32_t next_home;
	struct list lineages;
	struct list volumes;             /* struct volume_state by dir: those with a name */
	struct table names, numbers;     /* the same, by by_name and by_number */
	struct fmutex change;            /* held by what changes volumes, or needs them unchanged over I/O */
	struct fmutex measure;           /* held by who takes `change` only to measure */
	struct fmutex claims;            /* held while an epoch changes */
	struct fmutex directory;         /* held while `volumes` is walked, and when one is freed */
	struct task squeeze;
	_Atomic bool squeeze_queued;
	struct lineage *_Atomic cleaner; /* the one that cleans */
	_Atomic bool cleaners_wait;
};

/* --- names.c --- */

/* Enters an image with a name; false: a snapshot whose volume is not there. */
bool directory_add(struct volumes *vols, struct volume_state *vol);
/* It is no longer found; neither are, if it is a volume, its snapshots by their names. One that is not there stays so. */
void directory_remove(struct volumes *vols, struct volume_state *vol);
void directory_set_name(struct volumes *vols, struct volume_state *vol, const char *own);
/* "VOLUME" or "VOLUME@SNAPSHOT". */
struct volume_state *directory_find(struct volumes *vols, const char *name);
/* -ENOENT with a message. */
int directory_need(struct volumes *vols, const char *name, struct volume_state **vol, struct err *err);
/* May a volume get this name? */
int directory_check_new(struct volumes *vols, const char *name, struct err *err);
/* May a snapshot of the volume get this name of its own? */
int directory_check_snapshot(struct volumes *vols, const struct volume_state *of, const char *own, struct err *err);
/* Full name. */
void directory_name(const struct volume_state *vol, char name[VOLUME_NAME_BYTES]);
/* By number within a lineage. NULL: none with a name. */
struct volume_state *directory_find_number(struct volumes *vols, const struct lineage *lin, uint32_t number);

/* --- directory.c --- */

int directory_commit_error(struct err *err, int rc, const char *what, const char *name);
struct volume_format volume_to_format(const struct volume_state *vol);
/* Where the next lineage lives. */
struct vloop *directory_choose_home(struct volumes *vols);
/* A lineage that cannot be recovered stays in the directory, failed, with the reason: it harms no other. */
void directory_start_lineage(struct lineage *lin, const struct lineage_format *f);
/* Closes it, with a checkpoint unless abandoned, and takes it off the list of lineages. */
int directory_stop_lineage(struct lineage *lin, bool abandon);
/* fiber_call_on for what must be done: tries again when there is no memory. fn returns 0. */
void directory_call(struct loop *loop, int (*fn)(void *arg), void *arg);

/* --- receive.c --- */

/* The volume's object as it will be with this mark. */
void directory_put_mark(struct cat_txn *txn, const struct volume_state *vol, struct receive_mark mark);

/* --- epoch.c --- */

int epoch_load(struct volume_state *vol) __attribute__((warn_unused_result));
/* Adds to a transaction that nobody who ever wrote the volume may go on; and notes it, when that is durable. Not open. */
void epoch_fence_in(struct cat_txn *txn, const struct volume_state *vol);
void epoch_fenced(struct volume_state *vol);

/* --- snapshot.c --- */

/* A complete snapshot of a volume that is being received. `change` is held. */
int directory_receive_snapshot(struct volumes *vols, struct volume_state *origin, const char *own, const struct uuid *guid,
			       uint64_t created_s, struct receive_mark mark, struct err *err);

/* Takes the name from images of one lineage; their space comes back in the background. One transaction. */
int directory_delete_images(struct volumes *vols, struct volume_state **image, uint32_t count, struct err *err);

#endif
