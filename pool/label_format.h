/* On disk: the label, one 4 KiB block that says to which pool a disk belongs and where everything on it lies.
 *
 *   off  size  field
 *     0     8  magic          "pooldLBL"
 *     8     4  version        1
 *    12     4  crc            CRC32C of the 4096 bytes with this field 0
 *    16     8  compat         feature bits: unknown ones do no harm
 *    24     8  ro_compat      unknown ones forbid writing; poold always writes, so it refuses the disk
 *    32     8  incompat       unknown ones: the disk is refused
 *    40     4  copy           0..3: which of the four copies this is
 *    44     4  disk_id        number of the disk in its pool, 0..255, never used again for another
 *    48    16  pool_uuid
 *    64    16  disk_uuid
 *    80     8  generation     of the label; the newest valid copy counts
 *    88     4  disk_count     disks of the pool when this was written, 1..256
 *    92     4  zone_bytes     a power of two, 2 MiB..1 GiB, the same on all disks of a pool
 *    96     8  disk_bytes     size that is used, a multiple of 4096
 *   104     8  zones_off      first zone
 *   112     4  zone_count
 *   116     4  zero
 *   120    64  half[2]        catalog halves: {checkpoint_off, checkpoint_bytes, journal_off, journal_bytes}, 8 bytes each
 *   184    68  pool_name      1..64 characters, padded with zeroes
 *   252  3844  zero
 *
 * Copies 0 and 1 lie at 64 KiB and 128 KiB, copies 2 and 3 at 128 KiB and 64 KiB before disk_bytes. They are written
 * as 0, 1, flush, 2, 3, flush: at every moment two of them are whole.
 *
 * Valid if and only if: magic and crc match; version is 1 and no unknown bit stands in ro_compat or incompat (these are
 * refused with a message of their own, before anything else is looked at); copy is that of its place; disk_id < 256,
 * 1 <= disk_count <= 256; pool_name is a valid name; disk_bytes does not exceed the disk; and
 *   256 KiB <= half[0].checkpoint < half[0].journal < half[1].checkpoint < half[1].journal < zones <= disk_bytes - 256 KiB
 * where no piece overlaps the next, all but the zones' length are multiples of 4096, checkpoints have 1 MiB..1 GiB,
 * journals 256 KiB..64 MiB, and there is at least one zone. */
#ifndef POOL_LABEL_FORMAT_H
#define POOL_LABEL_FORMAT_H

#include <assert.h>
#include <stddef.h>
#include <stdint.h>

#include "pool/base/le.h"

#define LABEL_MAGIC	  "pooldLBL"
#define LABEL_VERSION	  1
#define LABEL_BYTES	  4096
#define LABEL_COPIES	  4
#define LABEL_FRONT_BYTES (256u << 10) /* kept for labels at the front */
#define LABEL_BACK_BYTES  (256u << 10) /* and at the end */

#define LABEL_COMPAT_KNOWN    0ull
#define LABEL_RO_COMPAT_KNOWN 0ull
#define LABEL_INCOMPAT_KNOWN  0ull

#define CHECKPOINT_BYTES_MIN (1ull << 20)
#define CHECKPOINT_BYTES_MAX (1ull << 30)
#define JOURNAL_BYTES_MIN    (256ull << 10)
#define JOURNAL_BYTES_MAX    (64ull << 20)

struct label_half {
	le64 checkpoint_off, checkpoint_bytes, journal_off, journal_bytes;
};

struct label_block {
	uint8_t magic[8];
	le32 version, crc;
	le64 compat, ro_compat, incompat;
	le32 copy, disk_id;
	uint8_t pool_uuid[16], disk_uuid[16];
	le64 generation;
	le32 disk_count, zone_bytes;
	le64 disk_bytes, zones_off;
	le32 zone_count, zero;
	struct label_half half[2];
	char pool_name[68];
	uint8_t pad[3844];
};

static_assert(sizeof(struct label_half) == 32, "label half");
static_assert(offsetof(struct label_block, compat) == 16, "label");
static_assert(offsetof(struct label_block, copy) == 40, "label");
static_assert(offsetof(struct label_block, pool_uuid) == 48, "label");
static_assert(offsetof(struct label_block, generation) == 80, "label");
static_assert(offsetof(struct label_block, disk_bytes) == 96, "label");
static_assert(offsetof(struct label_block, zone_count) == 112, "label");
static_assert(offsetof(struct label_block, half) == 120, "label");
static_assert(offsetof(struct label_block, pool_name) == 184, "label");
static_assert(offsetof(struct label_block, pad) == 252, "label");
static_assert(sizeof(struct label_block) == LABEL_BYTES, "label");

#endif
