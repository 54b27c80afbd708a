/* Names as control sees them: "POOL/VOLUME" and "POOL/VOLUME@SNAPSHOT". The one place that takes them apart. */
#ifndef TOOLS_NAMES_H
#define TOOLS_NAMES_H

#include <stdbool.h>

#include "pool/base/err.h"
#include "pool/pool.h"
#include "volumes/volume.h"

/* What a name is to stand for. */
enum image_kind {
	IMAGE_VOLUME,
	IMAGE_SNAPSHOT,
	IMAGE_EITHER,
	IMAGE_GROUP, /* no image, but called alike: limits that volumes share */
};

struct image_path {
	char pool[POOL_NAME_MAX + 1];
	char image[VOLUME_NAME_BYTES]; /* "VOLUME" or "VOLUME@SNAPSHOT" */
};

/* Without its pool. */
bool image_name_is_valid(const char *name, enum image_kind kind);
bool image_name_is_snapshot(const char *name);
/* With its pool. -EINVAL. */
int image_path_parse(const char *name, enum image_kind kind, struct image_path *path, struct err *err)
	__attribute__((warn_unused_result));

#endif
