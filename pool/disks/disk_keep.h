/* The writes of a network disk that may not be durable yet, in the order in which they were submitted, with their data.
 *
 * A write is added before it is sent and sent from here. It may go once it is acknowledged and a flush that was begun after
 * that has succeeded; until then it can be written again, should the server have lost its cache. Memory and records are two
 * rings, so nothing is allocated per write and the oldest write goes first. One loop. */
#ifndef POOL_DISKS_DISK_KEEP_H
#define POOL_DISKS_DISK_KEEP_H

#include <stdbool.h>
#include <stdint.h>

#define KEEP_BYTES (32u << 20)
#define KEEP_RECORDS 8192u

struct disk_io;

enum kept_state {
	KEPT_QUEUED, /* to be sent (again) */
	KEPT_FLYING,
	KEPT_ACKED, /* flushed once keep.flushed > stamp */
	KEPT_DEAD,  /* given up: its place is free as soon as it is the oldest */
};

struct kept {
	uint64_t off_bytes;
	char *data;
	uint32_t len_bytes, span_bytes; /* span: what it takes of the ring */
	enum kept_state state;
	bool acked_once;    /* it was acknowledged before it had to be sent again */
	uint64_t stamp;     /* flushes begun when it was acknowledged */
	struct disk_io *io; /* waits for it; NULL once answered */
};

struct keep {
	char *mem;
	struct kept *records;
	uint64_t first, end;       /* numbers of the records that exist: [first, end) */
	uint32_t head, used_bytes; /* next place in mem; taken */
};

/* 0 or -ENOMEM. */
int keep_init(struct keep *keep) __attribute__((warn_unused_result));
void keep_release(struct keep *keep);

/* Takes room for a write, QUEUED, its data not set. NULL: there is none now. len_bytes <= KEEP_BYTES / 2. */
struct kept *keep_add(struct keep *keep, uint64_t off_bytes, uint32_t len_bytes);
/* Forgets the oldest as long as they are dead, or acknowledged with a stamp below `flushed`. */
void keep_trim(struct keep *keep, uint64_t flushed);

static inline struct kept *keep_at(struct keep *keep, uint64_t number)
{
	return &keep->records[number % KEEP_RECORDS];
}
static inline bool keep_empty(const struct keep *keep)
{
	return keep->first == keep->end;
}

#endif
