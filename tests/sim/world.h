/* Everything of one seed's run that outlives a crash, and what belongs to the present life of the engine.
 *
 * A life is one run of the engine from opening the pool to a crash or an orderly end. Its course is a fiber on loop 0
 * (life.c): open, examine what is there (examine.c), work, close. Clients (client.c) make requests on the volumes' home
 * loops meanwhile; the life's own fiber is the manager (manage.c). Between lives the host side (run.c) lets the disks
 * crash and tries outcomes: a probe is a life that only opens and examines, and leaves no trace.
 *
 * What fibers need across a switch lies here and not on the host's heap: a crash drops fibers without a word. */
#ifndef TESTS_SIM_WORLD_H
#define TESTS_SIM_WORLD_H

#include "tests/sim/config.h"
#include "tests/sim/model.h"
#include "tests/sim/sim_crash.h"
#include "volumes/volume.h"

struct client;

/* What several images share that were made by one call, as long as one of them is not known. */
struct sim_cut {
	struct model_cut *model;
	uint32_t refs;
};

/* An image, a volume or a snapshot, as the model's directory knows it. */
struct sim_volume {
	char name[POOL_NAME_MAX + 1]; /* its own */
	struct sim_volume *of;        /* snapshots: their volume */
	struct model_volume *model;
	struct sim_cut *cut; /* it holds one of several contents, or others of the cut do; NULL: none */
	uint32_t cut_part;   /* its origin's place in the cut */
	bool known;          /* its own content is settled: the model is right */
	bool was_read;       /* content is what it holds, in this opening */
	uint32_t *content;   /* examined: a stamp for each slot */
	uint64_t size_found; /* sectors; 0: not there */
	char name_found[VOLUME_NAME_BYTES];
	struct volume *handle; /* this life's, NULL: closed */
	uint64_t epoch;        /* the last that was acknowledged ... */
	uint64_t epoch_max;    /* ... and tried */
	struct client *client; /* this life's, NULL: none */
	uint32_t left;         /* requests still to make in this life, kept while there is no client */
};

enum manage_op {
	MANAGE_NONE,
	MANAGE_POOL_CREATE,
	MANAGE_CREATE,
	MANAGE_DELETE,
	MANAGE_RENAME,
	MANAGE_RESIZE,
	MANAGE_ADD_DISK,
	MANAGE_SNAPSHOT,
	MANAGE_CLONE,
	MANAGE_ROLLBACK,
	MANAGE_VERIFY,
	MANAGE_TAKEOVER,
	MANAGE_CHECKPOINT,
	MANAGE_LOOK,
	MANAGE_REOPEN,
	MANAGE_REIMPORT,
	MANAGE_DISK_LIFE, /* the bad disk goes offline or online; or a scrub */
	MANAGE_NONSENSE, /* requests that must be refused */
};

/* A management operation whose outcome is not known: under way, or failed. It has happened wholly or not at all. */
struct pending {
	enum manage_op op;
	struct sim_volume *volume;              /* what it is done to, NULL: several, or the pool */
	char name[POOL_NAME_MAX + 1];           /* RENAME: new name, its own */
	uint64_t size_sectors;                  /* RESIZE, ROLLBACK: new size */
	struct sim_volume *snapshot;            /* ROLLBACK: its content is the new one */
	struct sim_volume *made[MODEL_CUT_MAX]; /* CREATE, SNAPSHOT, CLONE: those to be, not yet in the directory ... */
	struct sim_volume *origin[MODEL_CUT_MAX]; /* ... and what each is made from, NULL: nothing */
	uint32_t made_count;
};

/* X(name): of a run over many seeds. */
#define SIM_COUNTS(X) \
	X(seeds)      \
	X(failures)   \
	X(twice)      \
	X(crashes)    \
	X(states)     \
	X(recoveries) X(nested) X(ios) X(bytes) X(manages) X(faults) X(errors) X(lost) X(parks) X(memory_failures)

struct counts {
#define X(name) uint64_t name;
	SIM_COUNTS(X)
#undef X
};

struct world {
	struct sim_config config;
	struct counts *counts;
	struct rng rng; /* of the load and of crashes */
	struct sim_disk disk[SIM_DISKS_MAX];
	uint32_t disks;   /* that the pool has, as far as is known */
	bool pool_exists; /* pool_create has returned once */
	struct model model;
	struct sim_volume *volume[SIM_VOLUMES_MAX];
	uint32_t volumes;
	struct sim_volume *snapshot[SIM_SNAPSHOTS_MAX];
	uint32_t snapshots;
	uint32_t names; /* handed out */
	struct pending pending;
	enum model_after after; /* what the present opening comes after */
	bool examined;          /* ... and whether that has been settled */
	bool exhausted;         /* all outcomes of one crash have been tried */
	bool damaged;           /* lasting damage was done */
	bool finished;          /* the last life came to its end */
	bool lost;              /* damaged so that it rightly refuses to be opened */

	/* of this life */
	uint32_t life;
	bool probe;
	bool absent;         /* the bad disk is not there */
	bool life_done;
	bool life_worked;    /* it got as far as its work */
	bool memory_failed;  /* an allocation was made to fail */
	bool manage_stopped; /* an operation's outcome is open: no further ones */
	struct pool *pool;
	struct volumes *vols;
	uint64_t life_faults[FAULT_COUNT]; /* all disks' counts when it began */
	uint32_t found;                    /* volumes in the directory, while it is read */
	struct volume_info found_info[SIM_IMAGES_MAX];
	uint64_t wait_since_ns, wait_answered, wait_ns; /* manager's patience */
	bool relieved;
};

/* --- life.c --- */

void life_fiber(void *arg); /* arg: struct world */
/* Opens pool, directory and volumes, whatever it takes. False: failed, or lost for a good reason. */
bool life_open(struct world *w);
void life_close(struct world *w);
void world_set_faults(struct world *w, bool on);
/* Faults of this kind in this life. */
uint64_t world_faults(const struct world *w, enum sim_fault fault);
/* The same since the beginning. */
uint64_t world_faults_ever(const struct world *w, enum sim_fault fault);
void world_mark_faults(struct world *w);
/* Sets w->damaged if a disk has made lasting damage by now; returns it. */
bool world_note_damage(struct world *w);
/* An error of the engine may come from a fault. since: tick at which the failed request began. */
bool world_excuses(struct world *w, int error, uint64_t since);
/* What an opening comes after, given an orderly close or a process kill in this life. */
enum model_after world_after_kill(const struct world *w, enum model_after good);

/* --- images.c --- */

/* All images: volumes, snapshots, then those that the pending operation makes. NULL: no more. */
struct sim_volume *world_image(const struct world *w, uint32_t index);
struct sim_volume *sim_volume_new(struct world *w);
/* A snapshot (of: its volume), or a clone, of the volume or snapshot. */
struct sim_volume *sim_volume_fork(struct world *w, const struct sim_volume *origin, struct sim_volume *of);
void sim_volume_free(struct sim_volume *sv);
void sim_volume_name(const struct sim_volume *sv, char name[VOLUME_NAME_BYTES]);
/* From now on the model keeps track of what those to be made may hold. */
void world_begin_cut(struct world *w);
/* The pending operation, if it is one of these, is over. */
void world_end_cut(struct world *w);
/* All that is to be known of the image, or of all those of its cut, is known. */
void sim_volume_drop_cut(struct sim_volume *sv);
/* Those to be made are in the directory, or will never be. */
void world_add_made(struct world *w);
void world_forget_made(struct world *w);
/* A volume goes with its snapshots. */
void world_remove(struct world *w, struct sim_volume *sv);
bool world_has_snapshots(const struct world *w, const struct sim_volume *sv);
void world_rolled_back(struct world *w, struct sim_volume *sv, const struct sim_volume *snapshot);

/* --- examine.c --- */

/* The directory is as before or after the pending operation; settles which, unless probing or only content can tell. */
bool examine_directory(struct world *w);
/* All images' content is right; goes on from it, unless probing. */
bool examine_content(struct world *w);
/* The same for one image that is open, while others work. */
bool examine_image(struct world *w, struct sim_volume *sv);

/* --- audit.c --- */

/* Catalog, maps and liveness tables on the disks agree. There is no lasting damage. */
bool audit_pool(struct world *w);
/* Overwrites zones that are in no segment. */
void audit_poison(struct world *w);

/* --- manage.c --- */

/* Clients work, operations happen, until all requests are done. */
void manage_work(struct world *w);
bool manage_create(struct world *w);
bool manage_delete(struct world *w, struct sim_volume *sv);

/* --- manage_fork.c --- */

/* Snapshots of some volumes, at one instant. */
void manage_snapshot(struct world *w);
void manage_clone(struct world *w);
void manage_rollback(struct world *w, struct sim_volume *snapshot);
/* The snapshot holds what it held. */
void manage_verify(struct world *w, struct sim_volume *snapshot);
/* What they must refuse. */
void manage_fork_nonsense(struct world *w);
/* With one volume left, and nothing in it, the space is back. */
bool manage_space_comes_back(struct world *w);

/* --- manage_epoch.c --- */

/* Its epoch is one that it may have. */
void manage_check_epoch(struct world *w, const struct sim_volume *sv);
/* The volume's handle becomes its writer, unless it is. False: a fault forbids it. */
bool manage_activate(struct world *w, struct sim_volume *sv);
/* Another handle becomes the writer while the client works, and serves it from then on. */
void manage_takeover(struct world *w, struct sim_volume *sv);

/* --- manage.c for manage_fork.c and manage_epoch.c --- */

/* Notes the operation as pending; tick at which it begins. */
uint64_t manage_begin(struct world *w, enum manage_op op, struct sim_volume *sv, uint64_t argument);
/* True: it happened. Otherwise it did not, or nobody knows yet; the volume may be gone. */
bool manage_end(struct world *w, int rc, uint64_t since, const struct err *err);
/* Stops the volume's client, waits for what is in flight and closes it. */
bool manage_close_volume(struct world *w, struct sim_volume *sv);
/* Opens it again; its client goes on. */
void manage_reopen_volume(struct world *w, struct sim_volume *sv);
void manage_start_client(struct world *w, struct sim_volume *sv);
/* A request that makes no sense was refused with this error. */
void manage_expect(int rc, int wanted, const struct err *err, const char *what);

/* --- run.c --- */

/* Runs one seed; true if all is well. ops: 0 or a number of requests. */
bool run_seed(uint64_t seed, uint32_t ops, bool verbose, struct counts *counts, uint64_t *hash);

#endif
