/* Labels: what a disk says of itself, in four copies. See label_format.h for the bytes.
 *
 * label_layout decides where everything on a disk lies; nothing else in the engine knows. All reads and writes wait. */
#ifndef POOL_LABEL_H
#define POOL_LABEL_H

#include <stdint.h>

#include "pool/base/err.h"
#include "pool/disks/disk.h"
#include "pool/label_format.h"
#include "pool/pool.h"

/* One half of the catalog on one disk. */
struct catalog_half {
	uint64_t checkpoint_off, checkpoint_bytes;
	uint64_t journal_off, journal_bytes;
};

/* A label in memory. */
struct label {
	struct uuid pool_uuid, disk_uuid;
	char pool_name[POOL_NAME_MAX + 1];
	uint64_t generation;
	uint32_t disk_id, disk_count;
	uint64_t disk_bytes;
	uint32_t zone_bytes, zone_count;
	uint64_t zones_off;
	struct catalog_half half[2];
};

#define LABEL_TEXT_BYTES 512

/* Fills disk_bytes, zones and halves for a disk of this size. -ENOSPC: too small. */
int label_layout(struct label *label, uint64_t size_bytes, uint32_t zone_bytes, struct err *err);
/* The zone size for a pool whose smallest disk has this size, when nobody asked for one. */
uint32_t label_default_zone_bytes(uint64_t size_bytes);
/* Where a copy lies on a disk of disk_bytes. */
uint64_t label_copy_off(uint64_t disk_bytes, uint32_t copy);

void label_encode(const struct label *label, uint32_t copy, struct label_block *block);
/* 0, and *out is filled; -ENOENT: no label; -EOPNOTSUPP: written by a newer version; -EUCLEAN: it makes no sense.
 * disk_bytes: the disk's actual size. */
int label_validate(
    const struct label_block *block, uint32_t copy, uint64_t disk_bytes, struct label *out, struct err *err);
/* One line; returns text. */
char *label_to_text(const struct label *label, char text[LABEL_TEXT_BYTES]);

/* The newest valid copy on the disk. Errors as label_validate, or of the disk when no copy could be read. */
int label_read(struct disk *disk, struct label *out, struct err *err);
/* 1: all four copies are valid and of this generation; 0: they are not; -ENOMEM. */
int label_is_complete(struct disk *disk, const struct label *label);
/* Writes all four copies with the flushes in between. */
int label_write(struct disk *disk, const struct label *label, struct err *err);
/* Zeroes the places of labels and of everything foreign at both ends, and flushes. */
int label_wipe(struct disk *disk, struct err *err);

#endif
