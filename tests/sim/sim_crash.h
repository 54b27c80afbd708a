/* What a crash makes of the disks' unfinished business.
 *
 *     kill:  the process dies, the disks do not. What was done stays done (volatile caches included); each write in
 *            flight is lost, kept or torn.
 *     power: the volatile caches are gone too: each write since the last flush is lost, kept or torn on its own.
 *
 * crash_take turns the disks into what is certain and gathers the writes whose fate is open. crash_settle draws one
 * outcome. To try several, crash_save goes before each outcome but the last one and crash_restore after its recovery. */
#ifndef TESTS_SIM_SIM_CRASH_H
#define TESTS_SIM_SIM_CRASH_H

#include "tests/sim/sim_disk.h"

enum crash_kind { CRASH_KILL, CRASH_POWER };

struct crash_set {
	enum crash_kind kind;
	struct write_record **records; /* owned references; per disk in order of completion, then of submission */
	uint32_t count, cap;
};

void crash_take(struct crash_set *set, enum crash_kind kind, struct sim_disk *disks, uint32_t disk_count);
void crash_set_release(struct crash_set *set);

enum settle_way {
	SETTLE_KEEP_ALL,
	SETTLE_LOSE_ALL,
	SETTLE_MASK,     /* bit i of mask: write i is kept */
	SETTLE_RANDOM,   /* lost, kept or torn, by chances drawn for this outcome */
	SETTLE_ONE_LOST, /* all kept but one, which is lost or torn */
	SETTLE_WAYS,
};
void crash_settle(const struct crash_set *set, enum settle_way way, uint64_t mask, struct rng *rng);

/* The disks' state in between, caches included. */
struct crash_save {
	struct write_record **records;
	uint32_t count;
};
void crash_save(struct crash_save *save, struct sim_disk *disks, uint32_t disk_count);
/* No I/O may be in flight but such as is to be forgotten. */
void crash_restore(struct crash_save *save, struct sim_disk *disks, uint32_t disk_count);

#endif
