/* On disk: payloads of the catalog's objects that belong to the pool.
 *
 * CAT_POOL, id = 0; may be missing, which means zeroes:
 *
 *     0     4  losses_max     so many disks may be out; the greatest m that a volume ever had
 *     4     4  zero
 *
 * Valid if and only if: the length is 8, losses_max < 24 and the rest is zero.
 *
 * CAT_SEGMENT, id = grant number:
 *
 *   off  size  field
 *     0     8  owner          lineage
 *     8     4  segno          owner's number for it
 *    12     4  sealed_blocks  its log ends here; 0xffffffff: not sealed
 *    16     1  stream         0 data, 1 meta, 2 moved
 *    17     1  k              data columns, from 1
 *    18     1  m              parity columns
 *    19     1  zero
 *    20     4  lost           bit c: column c may lack what the others hold
 *    24   8*c  cols           c = k + m <= 24 of {disk_id 4, zone 4}: data columns, then parity
 *
 * Valid if and only if: the length is 24 + 8 * (k + m); stream, k and m are in range; lost has no bits
 * beyond the columns; at most m columns have no zone ({0xffffffff, 0xffffffff}: too few disks), the others lie on different
 * disks, each on a disk of the pool and below its zone_count; sealed_blocks is 0xffffffff or at most k * zone_bytes / 4096; no other
 * segment has one of its zones; no other segment of the owner has its segno.
 *
 * CAT_DISK, id = disk_id:
 *
 *     0    16  uuid           of the disk, as in its label
 *    16     8  disk_bytes     as in its label
 *    24     4  zone_count     as in its label
 *    28     4  state          0 online, 1 failed, 2 offline (taken out by hand), 3 draining
 *    32     8  left_generation  failed, offline: the newest checkpoint of the catalog that it may have got ...
 *    40     8  left_stamp     ... and its stamp; otherwise 0
 *
 * Valid if and only if: the length is 48, id < 256, state is in range, and the first three fields equal the label of the disk
 * with that id. A disk that is out is never a source of the catalog; if its own newest checkpoint is later than the one it
 * left with, or another of that generation, it was used without the others meanwhile and is refused. */
#ifndef POOL_SEGMENT_FORMAT_H
#define POOL_SEGMENT_FORMAT_H

#include <assert.h>
#include <stddef.h>
#include <stdint.h>

#include "pool/base/le.h"
#include "pool/pool.h"

struct segment_col {
	le32 disk_id, zone;
};

struct segment_payload {
	le64 owner;
	le32 segno, sealed_blocks;
	uint8_t stream, k, m, zero;
	le32 lost;
	struct segment_col cols[SEGMENT_COLS_MAX];
};

struct pool_payload {
	le32 losses_max, zero;
};

struct disk_payload {
	uint8_t uuid[16];
	le64 disk_bytes;
	le32 zone_count, state;
	le64 left_generation, left_stamp;
};

static_assert(sizeof(struct segment_col) == 8, "segment column");
static_assert(offsetof(struct segment_payload, stream) == 16, "segment");
static_assert(offsetof(struct segment_payload, cols) == 24, "segment");
static_assert(sizeof(struct segment_payload) == 24 + 8 * SEGMENT_COLS_MAX, "segment");
static_assert(offsetof(struct disk_payload, disk_bytes) == 16, "disk");
static_assert(sizeof(struct pool_payload) == 8, "pool");
static_assert(sizeof(struct disk_payload) == 48, "disk");

#define SEGMENT_TEXT_BYTES 640

static inline uint32_t segment_payload_bytes(struct policy policy)
{
	return (uint32_t)offsetof(struct segment_payload, cols) +
	       (uint32_t)(policy.k + policy.m) * (uint32_t)sizeof(struct segment_col);
}

char *segment_to_text(const struct segment *segment, char text[SEGMENT_TEXT_BYTES]);

#endif
