/* On disk: payloads of the catalog's objects that belong to the pool.
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
 *    19     5  zero
 *    24   8*c  cols           c = k + m <= 24 of {disk_id 4, zone 4}: data columns, then parity
 *
 * Valid if and only if: the length is 24 + 8 * (k + m); stream, k and m are in range; the columns lie on different disks,
 * each on a disk of the pool and below its zone_count; sealed_blocks is 0xffffffff or at most k * zone_bytes / 4096; no other
 * segment has one of its zones; no other segment of the owner has its segno.
 *
 * CAT_DISK, id = disk_id:
 *
 *     0    16  uuid           of the disk, as in its label
 *    16     8  disk_bytes     as in its label
 *    24     4  zone_count     as in its label
 *    28     4  state          0 in use
 *
 * Valid if and only if: the length is 32, id < 256, state is 0, and the fields equal the label of the disk with that id. */
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
	uint8_t stream, k, m, zero[5];
	struct segment_col cols[SEGMENT_COLS_MAX];
};

struct disk_payload {
	uint8_t uuid[16];
	le64 disk_bytes;
	le32 zone_count, state;
};

static_assert(sizeof(struct segment_col) == 8, "segment column");
static_assert(offsetof(struct segment_payload, stream) == 16, "segment");
static_assert(offsetof(struct segment_payload, cols) == 24, "segment");
static_assert(sizeof(struct segment_payload) == 24 + 8 * SEGMENT_COLS_MAX, "segment");
static_assert(offsetof(struct disk_payload, disk_bytes) == 16, "disk");
static_assert(sizeof(struct disk_payload) == 32, "disk");

#define SEGMENT_TEXT_BYTES 640

static inline uint32_t segment_payload_bytes(struct policy policy)
{
	return (uint32_t)offsetof(struct segment_payload, cols) +
	       (uint32_t)(policy.k + policy.m) * (uint32_t)sizeof(struct segment_col);
}

char *segment_to_text(const struct segment *segment, char text[SEGMENT_TEXT_BYTES]);

#endif
