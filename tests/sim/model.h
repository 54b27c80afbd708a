/* The model: what volumes must hold, as plain arrays, and a judge over what they are found to hold.
 *
 * A volume is an array of sectors; each element is the number of the request that wrote it last, 0 for zeroes. As tests
 * also use volumes of many TiB, the array covers only some windows of the volume, one behind the other; nothing is ever
 * written outside them. Positions in the array are called slots.
 *
 * History: writes (also discards and write-zeroes) are ordered by their completion, which is the order the engine promises.
 * `base` is the array as of the last write that is certain to be durable, `live` as of the last one completed, `history`
 * the completed ones in between. A write with FUA takes effect at some time between submission and completion, so it has no
 * exact place among those completed meanwhile: whoever submits must not let it overlap with another write in flight
 * (model_conflicts).
 *
 * After a crash a content is right if and only if it is that of some set of writes, applied in some order, where
 *  - writes certain to be durable are all in, and after a process kill all completed ones (O1);
 *  - of the completed ones, without FUA, exactly a beginning of the history is in (O2);
 *  - writes in flight at the crash are in or out as a whole, and in only if the whole history is;
 *  - writes in flight may have been applied in any order, after all those of the history.
 * Writes that failed may be in or out at the place where they failed.
 *
 * A snapshot or clone of a volume in use is a cut through its history: what a crash at some instant of the call might leave, with
 * all that was completed before the instant in, and nothing that was submitted after it. Once it is known which, an image is a
 * volume of its own that begins with this content. Stamps name the family of an image, which is that of its origin.
 *
 * Nothing here knows the engine. Reports are texts. */
#ifndef TESTS_SIM_MODEL_H
#define TESTS_SIM_MODEL_H

#include <stdbool.h>
#include <stdint.h>

#include "tests/sim/stamp.h"

#define MODEL_WINDOWS_MAX 4
#define MODEL_TEXT_BYTES 512

enum model_op { MODEL_READ, MODEL_WRITE, MODEL_ZERO, MODEL_FLUSH };

enum model_state {
	REQUEST_FLYING,
	REQUEST_ACKED,
	REQUEST_FAILED, /* answered with an error: may have been applied or may still be */
	REQUEST_LOST,   /* found missing after a crash: must never come back */
};

struct model_request {
	uint32_t volume;
	uint8_t op, state;
	bool fua;
	bool certain;             /* durable whatever happens */
	bool unordered;           /* among its neighbours with the same `done`: found applied after a crash */
	uint32_t start, count;    /* slots */
	uint64_t submitted, done; /* ticks */
	uint32_t *seen;           /* READ: live content at submission */
	uint32_t place;           /* judge's: 1-based place in history, 0 none */
};

struct model_window {
	uint64_t sector;      /* of the volume */
	uint32_t count, slot; /* slots slot .. slot + count */
};

struct id_list {
	uint32_t *id;
	uint32_t count, cap;
};

struct model_volume {
	uint32_t number; /* unique in a run */
	uint32_t family; /* number of the volume that it comes from, over any number of forks */
	bool forked;     /* began as a copy: after lasting damage nobody knows with what */
	bool pinned;     /* a cut is being made: base and history stay apart */
	uint64_t size_sectors;
	struct model_window window[MODEL_WINDOWS_MAX];
	uint32_t windows, slots;
	uint32_t *base, *live;
	struct id_list history, flying;
	uint64_t floor; /* writes completed up to this tick are certain */
};

struct model {
	struct model_request *requests; /* [id]; 0 is unused */
	uint32_t count, cap;
	uint32_t next_volume;
	uint64_t (*tick)(void);
	bool keep_history; /* never fold: after lasting damage, any beginning of all history may be found */
};

void model_init(struct model *model, uint64_t (*tick)(void), bool keep_history);
void model_release(struct model *model);

/* Windows are given by sector and count, ascending and apart; slots are assigned here. */
struct model_volume *model_volume_new(struct model *model, uint64_t size_sectors, const struct model_window *windows,
				      uint32_t count);
/* An image of the volume: zeroes until model_begin_with. */
struct model_volume *model_volume_fork(struct model *model, const struct model_volume *origin);
/* Its content from now on, and durably; nothing may be in flight. */
void model_begin_with(struct model *model, struct model_volume *vol, uint64_t size_sectors, const uint32_t *content);
void model_volume_free(struct model_volume *vol);
/* Sector of a slot; the slot must exist. */
uint64_t model_sector_of(const struct model_volume *vol, uint32_t slot);
/* Slots within the volume's present size: all slots below the result, as windows ascend. */
uint32_t model_slots_in_use(const struct model_volume *vol);
uint32_t model_slots_within(const struct model_volume *vol, uint64_t size_sectors);
/* Slots from this one to the end of its window, no more than are in use. */
uint32_t model_run(const struct model_volume *vol, uint32_t slot);
uint32_t model_run_within(const struct model_volume *vol, uint32_t slot, uint32_t slots);
/* Everything beyond is gone. No write beyond may be in flight. */
void model_resize(struct model *model, struct model_volume *vol, uint64_t size_sectors);

bool model_conflicts(const struct model *model, const struct model_volume *vol, uint32_t start, uint32_t count,
		     bool fua);
/* Returns the request's number. */
uint32_t model_submit(struct model *model, struct model_volume *vol, enum model_op op, uint32_t start, uint32_t count,
		      bool fua);
/* WRITE, ZERO, FLUSH. */
void model_acknowledge(struct model *model, struct model_volume *vol, uint32_t id);
/* Nobody knows what of it has happened. */
void model_fail(struct model *model, struct model_volume *vol, uint32_t id);
/* It has not happened. */
void model_refuse(struct model *model, struct model_volume *vol, uint32_t id);
/* All completed up to this tick is durable. */
void model_flushed(struct model *model, struct model_volume *vol, uint64_t tick);
/* READ: content as stamps. False: it cannot be right; why says so. */
bool model_read_done(struct model *model, const struct model_volume *vol, uint32_t id, const uint32_t *content,
		     char why[MODEL_TEXT_BYTES]);

/* --- after a crash ---------------------------------------------------------------------------------------- */

enum model_after {
	AFTER_CLOSE,  /* nothing may be missing; all is durable */
	AFTER_KILL,   /* nothing acknowledged may be missing; nothing more is durable than before */
	AFTER_POWER,  /* nothing flushed may be missing; all there is is durable */
	AFTER_LOSS,   /* nothing flushed may be missing; nothing more is durable than before */
	AFTER_DAMAGE, /* any beginning of history will do; for keep_history */
};

struct model_verdict {
	uint32_t prefix;        /* writes of the history that are in, FUA aside */
	struct id_list applied; /* flying or failed ones that are in, in order */
	char why[MODEL_TEXT_BYTES];
};

/* True: right. The model is not changed. size_sectors: what the volume is found to have (after a crash in a resize). */
bool model_judge(struct model *model, const struct model_volume *vol, enum model_after after, uint64_t size_sectors,
		 const uint32_t *content, struct model_verdict *verdict);
/* Goes on from the content found right, when the model has the size found. */
void model_adopt(struct model *model, struct model_volume *vol, enum model_after after, const uint32_t *content,
		 const struct model_verdict *verdict);
void model_verdict_release(struct model_verdict *verdict);

/* --- cuts (model_cut.c) ----------------------------------------------------------------------------------- */

#define MODEL_CUT_MAX 4

/* What the images made by one call may hold: all requests and the origins' histories, as they were when it ended. */
struct model_cut {
	struct model requests;
	uint64_t began, ended; /* ticks; 0: not yet */
	uint32_t count;
	struct model_volume *origin[MODEL_CUT_MAX]; /* the volumes themselves before the end, then copies */
};

/* Before the call. The volumes are apart. */
struct model_cut *model_cut_begin(struct model *model, struct model_volume *const *origins, uint32_t count);
/* The call has returned, or will never return. */
void model_cut_end(struct model *model, struct model_cut *cut);
void model_cut_free(struct model_cut *cut);
/* May the image of this origin hold this? damaged: of a lasting kind. */
bool model_cut_judge(struct model_cut *cut, uint32_t which, bool damaged, const uint32_t *content,
		     char why[MODEL_TEXT_BYTES]);
/* Is there one instant at which all of them may have held this? */
bool model_cut_is_one(struct model_cut *cut, const uint32_t *const *contents);

/* For model_judge.c, model_adopt.c and model_cut.c. */
void id_list_add(struct id_list *list, uint32_t id);
/* What a slot shows when this request was the last one there. */
static inline uint32_t request_value(const struct model_request *r, uint32_t id)
{
	return r->op == MODEL_WRITE ? id : STAMP_ZERO;
}
static inline bool request_covers(const struct model_request *r, uint32_t slot)
{
	return slot >= r->start && slot - r->start < r->count;
}

#endif
