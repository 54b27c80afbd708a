/* Simulated disks: they outlive the engine's crashes, and can do wrong whatever a disk can do wrong.
 *
 * A disk's map of pages is what a read sees. Writes take their time; one that is done sits in the volatile cache, a list
 * of write records in order of completion, each of which keeps the pages that it replaced. A flush lets go of the records
 * of writes that were done when it was submitted: these are durable. See sim_crash.h for what a crash makes of the rest.
 *
 * The disk also checks the engine: whole 4 KiB blocks, aligned memory, and (by option) that memory being written does not
 * change. */
#ifndef TESTS_SIM_SIM_DISK_H
#define TESTS_SIM_SIM_DISK_H

#include "pool/disks/disk.h"
#include "tests/sim/pages.h"
#include "tests/sim/rng.h"
#include "tests/sim/sim_env.h"

#define SIM_DISKS_MAX 6

/* X(name, does it last?): a fault that lasts leaves the disk's content wrong. */
#define SIM_FAULTS(X)                                                   \
	X(READ_EIO, false)                                              \
	X(WRITE_EIO, false) /* written wholly, in part or not at all */ \
	X(FLUSH_EIO, false) /* and what was in the cache may be gone */ \
	X(MISDIRECTED_READ, false)                                      \
	X(MISDIRECTED_WRITE, true)                                      \
	X(PHANTOM_WRITE, true) /* reported done, never done */          \
	X(LYING_FLUSH, true)   /* reported done, never done */          \
	X(BIT_ROT, true)

enum sim_fault {
#define X(name, lasts) FAULT_##name,
	SIM_FAULTS(X)
#undef X
		FAULT_COUNT,
	FAULT_NONE = FAULT_COUNT,
};

const char *sim_fault_name(enum sim_fault fault);

struct sim_disk_opts {
	uint64_t size_bytes;
	uint32_t block_bytes;
	uint64_t latency_ns;  /* typical, of one small I/O */
	uint32_t slow_factor; /* 1: normal */
	uint32_t discard_way; /* 0: ignored, 1: zeroes, 2: garbage */
	bool check_stable;    /* memory of a write must not change in flight */
	uint32_t fault_per_mille[FAULT_COUNT];
};

/* What was written where: new pages, then the ones they replaced once the write is in the cache. */
struct write_record {
	struct list node; /* sim_disk.cache */
	struct sim_disk *disk;
	uint32_t refs, at, count;
	uint64_t done_tick;
	struct page *page[]; /* 2 * count, owned */
};

struct sim_disk {
	uint32_t index;
	struct sim_disk_opts opts;
	struct rng rng;
	struct page_map map;
	struct list cache;   /* write_record: done, not durable */
	struct list pending; /* sim_io in flight */
	bool faults_on;
	bool dead;                    /* all I/O fails */
	bool attached;                /* the engine has it open */
	uint64_t faults[FAULT_COUNT]; /* injected */
	uint64_t last_fault;          /* tick */
	uint64_t writes;              /* submitted, ever */
};

void sim_disk_init(struct sim_disk *disk, uint32_t index, const struct sim_disk_opts *opts, uint64_t seed);
void sim_disk_release(struct sim_disk *disk);
/* The engine's handle for this life, in the engine's memory; NULL: none (an allocation was made to fail). */
struct disk *sim_disk_open(struct sim_disk *disk);
/* Damages a block that holds something. False: there is none. */
bool sim_disk_rot(struct sim_disk *disk);
bool sim_fault_lasts(enum sim_fault fault);

/* --- for sim_disk.c, sim_record.c and sim_crash.c --- */

/* An I/O in flight. */
struct sim_io {
	struct sim_event event;
	struct list node;
	struct sim_disk *disk;
	struct disk_io *io;
	struct loop *loop;
	struct write_record *record; /* WRITE, DISCARD */
	uint64_t number;             /* tick of submission */
	enum sim_fault fault;
};
void sim_io_free(struct sim_io *sio);

enum fate { FATE_LOST, FATE_KEPT, FATE_TORN };

/* Its pages are still to be set. */
struct write_record *record_new(struct sim_disk *disk, uint32_t at, uint32_t count);
struct write_record *record_ref(struct write_record *record);
void record_unref(struct write_record *record);
/* A copy that shares pages, replaced ones not included. */
struct write_record *record_clone(const struct write_record *record);
/* Tears it against what the disk holds now: some sectors stay old, or become garbage. */
void record_tear(struct write_record *record, struct rng *rng);
/* Into the map and the cache; takes over the reference. */
void record_to_cache(struct write_record *record);
/* Into the map for good. */
void record_to_platter(const struct write_record *record);
/* Out of the map again; the latest in the cache must go first. */
void record_revert(const struct write_record *record);

#endif
