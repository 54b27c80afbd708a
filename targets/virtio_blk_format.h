/* virtio-blk requests and configuration space as the guest sees them (virtio 1.2, section 5.2). Numbers: linux/virtio_blk.h.
 *
 *     request    device reads    0  le32  type           VIRTIO_BLK_T_*
 *                                4  le32  reserved
 *                                8  le64  sector         of 512 bytes, for IN and OUT
 *                               16        data           OUT: multiple of 512 bytes; DISCARD, WRITE_ZEROES: ranges
 *                device writes            data           IN: multiple of 512 bytes; GET_ID: 20 bytes
 *                                   u8    status         the last byte of all
 *     range                      0  le64  sector
 *                                8  le32  num_sectors
 *                               12  le32  flags          VIRTIO_BLK_WRITE_ZEROES_FLAG_UNMAP
 *
 * Framing carries no meaning: header, data and status may be cut into descriptors anywhere. A request is carried out if
 * and only if: it has a whole header and a status byte; its type is known and negotiated; its data goes in the type's
 * direction only and is a multiple of the unit; all it touches lies within the capacity; and it does not write to a read-only device. Ranges are checked all
 * before the first is carried out. */
#ifndef TARGETS_VIRTIO_BLK_FORMAT_H
#define TARGETS_VIRTIO_BLK_FORMAT_H

#include <assert.h>
#include <stddef.h>

#include "pool/base/le.h"

struct blk_header {
	le32 type;
	le32 reserved;
	le64 sector;
};
static_assert(sizeof(struct blk_header) == 16, "request header");

struct blk_range {
	le64 sector;
	le32 num_sectors;
	le32 flags;
};
static_assert(sizeof(struct blk_range) == 16, "discard or write zeroes range");

/* Configuration space. */
struct blk_config {
	le64 capacity;                 /* 512-byte sectors */
	le32 size_max;
	le32 seg_max;
	le16 cylinders;
	uint8_t heads, sectors;
	le32 blk_size;
	uint8_t physical_block_exp;
	uint8_t alignment_offset;
	le16 min_io_size;              /* logical blocks */
	le32 opt_io_size;
	uint8_t writeback;
	uint8_t unused0;
	le16 num_queues;
	le32 max_discard_sectors;
	le32 max_discard_seg;
	le32 discard_sector_alignment;
	le32 max_write_zeroes_sectors;
	le32 max_write_zeroes_seg;
	uint8_t write_zeroes_may_unmap;
	uint8_t unused1[3];
};
static_assert(sizeof(struct blk_config) == 60, "configuration space");
static_assert(offsetof(struct blk_config, writeback) == 32, "cache mode");
static_assert(offsetof(struct blk_config, max_discard_sectors) == 36, "discard limits");

#endif
