/* Inside of the image: image.c (patching), image_map.c (making it, and where things lie), image_use.c (using it). */
#ifndef TESTS_FUZZ_IMAGE_INT_H
#define TESTS_FUZZ_IMAGE_INT_H

#include <stdbool.h>

#include "pool/catalog_format.h"
#include "tests/fuzz/image.h"
#include "tests/unit/medium.h"
#include "volumes/volume.h"

#define IMAGE_DISKS 2u
#define IMAGE_DISK_BYTES (28ull << 20)
#define IMAGE_VOLUMES 2u
#define IMAGE_VOLUME_BYTES (2ull << 20)
#define PARTS_MAX 8192u
#define OBJECTS_MAX 64u

/* A structure on a disk. Its checksum stands in `parent`, parent_off bytes in; a part, or with is_root an object. */
struct image_part {
	enum image_kind kind;
	bool changed, keep_checksum, is_root;
	uint32_t disk, len_bytes, parent, parent_off;
	uint64_t off;
};

struct image_object {
	bool changed, deleted;
	uint64_t key;
	uint32_t len_bytes;
	uint8_t data[CATALOG_OBJ_MAX];
};

struct image {
	struct media media;
	uint32_t part_count, object_count;
	struct image_part part[PARTS_MAX];
	struct image_object object[OBJECTS_MAX];
	struct record_head next_record;
	uint64_t next_record_off[IMAGE_DISKS];
};

/* A copy of the image that is patched and used. */
struct run {
	const struct image *image;
	struct media media;
	uint32_t part_count, object_count;
	struct image_part part[PARTS_MAX];
	struct image_object object[OBJECTS_MAX];
};

struct image *image_make(void);
/* Whatever is on the media: import, use, close, twice. */
void image_use(struct media *media);

/* --- image_use.c, for making it too ------------------------------------------------------------------------ */

/* Runs fn(arg) on a fiber in virtual time to its end, which must come. */
void image_run(void (*fn)(void *arg), void *arg);
void image_volumes_opts(struct volumes_opts *opts);
/* Waits. */
int image_request(struct volume *volume, enum vio_op op, uint64_t off_bytes, uint64_t len_bytes, void *buf);

#endif
