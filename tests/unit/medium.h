/* A disk in memory for unit tests, whose content outlives its handle, and whose every write can be replayed.
 *
 * A medium is a table of shared 4 KiB pages: cloning one is cheap, so a test can open thousands of crash states. Writes and
 * flushes of all media are recorded in one log, in the order in which they were submitted; crash_image() makes from a
 * prefix of it what a power loss at that moment may leave. */
#ifndef TESTS_UNIT_MEDIUM_H
#define TESTS_UNIT_MEDIUM_H

#include <stdbool.h>
#include <stdint.h>

#include "pool/disks/disk.h"

#define MEDIA_MAX 8
#define HELD_MAX 8 /* I/Os of a medium */

struct medium_page;

struct medium {
	uint32_t index; /* in the set */
	uint64_t size_bytes;
	struct medium_page **pages; /* NULL: zeroes */
	/* Faults: -errno to fail an I/O with, 0 to let it pass. NULL: none. A failed write changes nothing. */
	int (*fault)(struct medium *medium, const struct disk_io *io);
	/* What this says true of stays in flight until medium_let_go. NULL: nothing does. */
	bool (*hold)(struct medium *medium, const struct disk_io *io);
	struct disk_io *held[HELD_MAX];
	uint32_t held_count;
	uint64_t reads, writes, flushes;
};

/* Some media and their common log. */
struct media {
	uint32_t count;
	struct medium medium[MEDIA_MAX];
	bool logging;
	struct log_entry *log;
	uint64_t log_count, log_cap;
};

void media_init(struct media *media, uint32_t count, uint64_t size_bytes);
void media_release(struct media *media);
/* A copy of the content and the faults, with an empty log and nothing held. */
void media_clone(struct media *to, const struct media *from);
/* Handles for all media, owned by who closes them. */
void media_open(struct media *media, struct disk **disks);

/* Carries out what was held, on the loop it came from. */
void medium_let_go(struct medium *medium);

void medium_read(const struct medium *medium, uint64_t off, void *buf, uint64_t len);
void medium_write(struct medium *medium, uint64_t off, const void *buf, uint64_t len);

/* How the writes that were not flushed come out: bit i % 64 of `kept` for the i-th of them; those kept are torn, by 512
 * byte sectors chosen from `torn`, if it is not 0. */
struct crash {
	uint64_t base;    /* the image holds the first so many entries, see media_advance */
	uint64_t entries; /* of the log */
	uint64_t kept, torn;
};
/* Applies entries to a base image, from `from` on, as far as all that stands before `entries` is durable on its medium.
 * Returns the new `from`. */
uint64_t media_advance(struct media *base, const struct media *logged, uint64_t from, uint64_t entries);
/* Makes a clone of the base image what a crash leaves. Returns the number of writes that were not flushed. */
uint32_t crash_image(struct media *image, const struct media *logged, const struct crash *crash);

/* An environment with random numbers that differ. Runs fn(arg) on a fiber to the end. */
void run_fiber(void (*fn)(void *arg), void *arg);
/* Called after each turn of run_fiber's loop; NULL: nothing. */
void env_between_turns(void (*fn)(void));
/* The same on every call after env_seed. */
void env_seed(uint64_t seed);

#endif
