/* A virtio block device on a volume: requests from rings to the volume and back.
 *
 * A `struct blk_dev` is the device of an export: it lives with it. A `struct blk_queue` is one started ring with its
 * requests; it allocates when made and never again. Bytes: virtio_blk_format.h.
 *
 * One thread: the volume's home loop. */
#ifndef TARGETS_VIRTIO_BLK_H
#define TARGETS_VIRTIO_BLK_H

#include <stdbool.h>
#include <stdint.h>

#include "targets/virtio_blk_format.h"
#include "targets/virtq.h"
#include "volumes/volume.h"

#define BLK_SERIAL_BYTES 20
/* Ranges of one DISCARD or WRITE_ZEROES, and sectors of one range. */
#define BLK_RANGES_MAX 32u
#define BLK_RANGE_SECTORS_MAX (1u << 23)
/* Data pieces of one request: fits a ring of 128, QEMU's default, without indirect tables. */
#define BLK_SEG_MAX 126u
/* New requests taken from a ring at one look. */
#define BLK_POP_BATCH 64u

/* What a device counts: name, help. */
#define BLK_COUNTERS(X)                                          \
	X(requests, "requests taken from rings")                 \
	X(bad_requests, "requests answered with an error of the driver's making") \
	X(failed_requests, "requests that the volume failed")    \
	X(broken_rings, "rings given up because of their driver") \
	X(lost_rings, "rings given up because their memory went away") \
	X(notifications, "completion notifications sent")        \
	X(resubmitted, "requests taken over from a predecessor")

struct blk_counters {
#define X(name, help) uint64_t name;
	BLK_COUNTERS(X)
#undef X
};

struct blk_dev {
	struct volume *volume;
	char serial[BLK_SERIAL_BYTES]; /* padded with zeroes */
	uint16_t queues;
	bool read_only;
	bool writeback;                /* the cache mode the guest chose */
	struct blk_counters count;
};

void blk_dev_init(struct blk_dev *dev, struct volume *volume, const char *serial, uint16_t queues, bool read_only);
/* The virtio feature bits this device offers, ring features included. */
uint64_t blk_dev_features(const struct blk_dev *dev);
/* Ring size and INDIRECT_DESC matter to seg_max. ring_size 0: not known yet. */
void blk_dev_config(const struct blk_dev *dev, uint16_t ring_size, struct blk_config *config);
/* Takes what may be written of [off_bytes, off_bytes + len_bytes) of the configuration space. -EPERM: something in it
 * is read-only (not with `migration`: then the rest is ignored); -EINVAL: a value out of range. */
int blk_dev_set_config(struct blk_dev *dev, uint32_t off_bytes, const uint8_t *data, uint32_t len_bytes, bool migration);

struct blk_queue;

struct blk_queue_conf {
	struct blk_dev *dev;
	struct virtq *virtq;           /* the queue owns it from a successful blk_queue_create on */
	uint64_t features;             /* negotiated */
	/* Required. Requests have completed since the last blk_queue_poll found none. */
	void (*wake)(void *arg);
	/* Required. The driver wants to be told of used requests. */
	void (*notify)(void *arg);
	/* Required. An abandoned queue is gone. */
	void (*gone)(void *arg);
	void *arg, *gone_arg;
};

int blk_queue_create(const struct blk_queue_conf *conf, struct blk_queue **out) __attribute__((warn_unused_result));
/* Before a drain that is to end even if the pool is full: requests that wait for space, now or later, are not carried out
 * and not given back. Where there is an inflight region a successor finds them there. */
void blk_queue_leave(struct blk_queue *queue);
/* Lets go of the queue: nothing of the guest's is touched from now on. Requests at the volume run to their end (or leave, as
 * above), are forgotten, and then `gone` is called (from here, if there are none). */
void blk_queue_abandon(struct blk_queue *queue);

enum blk_take {
	BLK_TAKE_NONE,
	BLK_TAKE_RESUBMITS,            /* those a predecessor had taken: to drain */
	BLK_TAKE_ALL,
};
/* Gives completed requests back, takes new ones. Returns how many of both. */
uint32_t blk_queue_poll(struct blk_queue *queue, enum blk_take take);
/* No request is with us, except those a broken ring can no longer deliver. */
bool blk_queue_is_drained(const struct blk_queue *queue);
/* Memory under the ring went away; known after the poll that noticed. */
bool blk_queue_is_lost(const struct blk_queue *queue);
/* A request could be taken now; if not, a completion will make room (and call `wake`). */
bool blk_queue_has_room(const struct blk_queue *queue);
struct virtq *blk_queue_virtq(const struct blk_queue *queue);

#endif
