/* What a seed decides before anything runs: the dimensions of the simulation. */
#ifndef TESTS_SIM_CONFIG_H
#define TESTS_SIM_CONFIG_H

#include "pool/pool.h"
#include "tests/sim/sim_disk.h"

#define SIM_VOLUMES_MAX 8
#define SIM_SNAPSHOTS_MAX 12
#define SIM_IMAGES_MAX (SIM_VOLUMES_MAX + SIM_SNAPSHOTS_MAX + 4) /* with what must not be there */
#define SIM_DEPTH_MAX 64

enum size_profile { SIZES_SMALL, SIZES_MIXED, SIZES_LARGE, SIZES_BLOCKS, SIZE_PROFILES };

struct sim_config {
	uint64_t seed;
	uint32_t loops;
	uint64_t stall_ns_max; /* of a loop's thread; 0: they run whenever they have work */

	uint32_t disks;     /* at first */
	uint32_t disks_max; /* with those that may be added */
	struct sim_disk_opts disk[SIM_DISKS_MAX];
	uint32_t zone_bytes;
	uint64_t map_cache_bytes, overlay_entries_max, checkpoint_log_bytes;

	struct policy policy;    /* of volumes; with `mixed` some are plain */
	bool mixed;
	uint32_t volumes;        /* at first */
	uint32_t volumes_max;    /* with those that are made later */
	uint32_t snapshots_max;  /* at a time; 0: no forks at all */
	bool linked;             /* what one volume has completed, others go on from at once */
	uint32_t fork_per_mille; /* of management operations are about snapshots and clones */
	uint64_t window_sectors; /* of a volume, in all its windows; what is written to */
	bool huge;               /* volumes of many TiB with windows far apart */

	uint32_t ops;   /* requests in all */
	uint32_t depth; /* requests in flight per volume */
	enum size_profile sizes;
	uint64_t think_ns;  /* 0: a new request as soon as one is done */
	uint64_t manage_ns; /* typical time between management operations; 0: none */
	uint32_t flush_per_mille, fua_per_mille, read_per_mille, zero_per_mille;
	bool odd_iov; /* requests in pieces of any number of sectors */

	uint32_t lives;            /* crashes + 1 */
	uint32_t outcomes;         /* of each crash to check */
	uint32_t exhaustive_max;   /* all outcomes if at most so many writes are open */
	uint32_t power_per_mille;  /* of crashes */
	uint32_t nested_per_mille; /* of recoveries that crash again */

	bool fills;             /* more is written than the pool holds */
	bool ages;              /* the pool is written several times over */
	bool fail_memory;       /* allocations fail in management operations */
	bool fail_recovery;     /* faults also while opening */
	bool lasting;           /* a fault that lasts may happen */
	uint32_t rot_per_mille; /* of manager's turns */
	bool any_fault;
	bool within;               /* all faults befall one disk, and every volume can do without it: nothing is forgiven */
	uint32_t bad_disk;
	uint32_t absent_per_mille; /* of openings: the bad disk is not there */
	uint32_t dead_per_mille;   /* of manager's turns: it answers nothing any more, in this life */
};

/* ops: 0, or how many in the place of the seed's choice. */
void config_draw(struct sim_config *config, uint64_t seed, uint32_t ops);
void config_print(const struct sim_config *config);

#endif
