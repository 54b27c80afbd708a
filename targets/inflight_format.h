/* The inflight region: which requests are with us, in memory that outlives us (QEMU docs/interop/vhost-user.rst, "Inflight
 * I/O tracking", split rings). The front end keeps it and hands it to our successor.
 *
 *     region   queues * stride, then the trailer; stride = 16 + 16 * ring size, rounded up to 64
 *     queue    0  le64  features        0
 *              8  le16  version         1; 0: never used
 *             10  le16  desc_num        the ring's size
 *             12  le16  last_batch_head newest entry of the list of completed requests
 *             14  le16  used_idx        the used ring's index at the end of the last completed batch
 *             16        desc[desc_num]
 *     desc     0  u8    inflight        1: taken from the ring, not given back
 *              1  u8[5] padding
 *              6  le16  next            older entry of the list
 *              8  le64  counter         order in which requests were taken
 *     trailer  0  le64  magic           INFLIGHT_MAGIC; ours alone, the protocol leaves the region's size to the back end
 *              8  le64  told_sectors    the capacity that the front end knows, 0: none; a change is news for it
 *             16  u8    writeback       the cache mode the guest chose, which it must find again after our restart
 *             17  u8[7] padding
 *             24  le64  volume          the volume that the front end writes; 0: none yet ...
 *             32  le64  epoch           ... in which epoch, or is about to leave behind ...
 *             40  le64  nonce           ... by the claim with this nonce
 *             48  u8[16] padding
 *
 * A queue is valid if and only if: version is 1; desc_num is the ring's size; inflight is 0 or 1 everywhere; and, where
 * the ring's used index is ahead of used_idx by n <= size, the n first entries of the list are in range. */
#ifndef TARGETS_INFLIGHT_FORMAT_H
#define TARGETS_INFLIGHT_FORMAT_H

#include <assert.h>
#include <stddef.h>

#include "pool/base/le.h"

#define INFLIGHT_VERSION 1
#define INFLIGHT_ALIGN 64u
#define INFLIGHT_MAGIC 0x74696c66646c6f70ull

struct inflight_desc {
	uint8_t inflight;
	uint8_t padding[5];
	le16 next;
	le64 counter;
};
static_assert(sizeof(struct inflight_desc) == 16 && offsetof(struct inflight_desc, counter) == 8, "entry");

struct inflight_queue {
	le64 features;
	le16 version;
	le16 desc_num;
	le16 last_batch_head;
	le16 used_idx;
	struct inflight_desc desc[];
};
static_assert(sizeof(struct inflight_queue) == 16 && offsetof(struct inflight_queue, used_idx) == 14, "queue");

struct inflight_trailer {
	le64 magic;
	le64 told_sectors;
	uint8_t writeback;
	uint8_t padding[7];
	le64 volume;
	le64 epoch;
	le64 nonce;
	uint8_t padding2[16];
};
static_assert(sizeof(struct inflight_trailer) == 64, "trailer");

#endif
