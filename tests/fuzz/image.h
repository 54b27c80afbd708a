/* A pool's image as a fuzz target: valid bytes made once, patched by the input with all checksums mended, then used.
 *
 * The image is that of two disks with two volumes (of one column and of two) after a power loss: a checkpoint, batches after it,
 * holes. It knows where each structure lies. An input is a list of patches
 *
 *     structure 2 | offset 2 | control 1 | bytes 1 .. 16
 *
 * each of which overwrites bytes of one structure, as they are in the image so far. Catalog objects are patched by a
 * journal record more, which puts the changed object (or deletes it, or cuts it short). What carries a checksum of a
 * patched structure is mended, from data up to labels, so that hostile content passes every checksum. Control bit 7
 * leaves the checksum of a data block as it is. */
#ifndef TESTS_FUZZ_IMAGE_H
#define TESTS_FUZZ_IMAGE_H

#include "tests/fuzz/fuzz.h"

/* What may be patched. */
enum image_kind {
	IMAGE_LABEL = 1 << 0,
	IMAGE_CHECKPOINT = 1 << 1, /* of the catalog: header and payload */
	IMAGE_RECORD = 1 << 2,     /* of the catalog's journal */
	IMAGE_POOL_OBJECT = 1 << 3,
	IMAGE_VOLUME_OBJECT = 1 << 4,
	IMAGE_BATCH = 1 << 5,      /* header */
	IMAGE_DATA = 1 << 6,       /* block of a batch */
	IMAGE_NODE = 1 << 7,       /* of a map */
	IMAGE_LIVE = 1 << 8,       /* block of a liveness table */
};

/* One run: patches structures of these kinds, imports, reads, writes and discards in every volume that opens, takes a
 * checkpoint, closes, and does it again: success or a clean error everywhere. */
void image_fuzz(unsigned kinds, struct fuzz_input *in);

#endif
