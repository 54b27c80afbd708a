/* Names: see names.h. Each part of one has the form of name_is_valid. */
#include "tools/names.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

bool image_name_is_snapshot(const char *name)
{
	return strchr(name, '@') != NULL;
}

/* The first len bytes are a valid part of a name. */
static bool part_is_valid(const char *text, size_t len)
{
	char part[POOL_NAME_MAX + 1];

	if (len > POOL_NAME_MAX)
		return false;
	snprintf(part, sizeof(part), "%.*s", (int)len, text);
	return name_is_valid(part);
}

bool image_name_is_valid(const char *name, enum image_kind kind)
{
	size_t len = strcspn(name, "@");

	if (kind != IMAGE_EITHER && (kind == IMAGE_SNAPSHOT) != image_name_is_snapshot(name))
		return false;
	return part_is_valid(name, len) && (!name[len] || part_is_valid(name + len + 1, strlen(name + len + 1)));
}

static const char *form_of(enum image_kind kind)
{
	switch (kind) {
	case IMAGE_VOLUME: return "a volume; give POOL/VOLUME";
	case IMAGE_SNAPSHOT: return "a snapshot; give POOL/VOLUME@SNAPSHOT";
	case IMAGE_GROUP: return "a group; give POOL/GROUP";
	default: return "a volume or snapshot; give POOL/VOLUME or POOL/VOLUME@SNAPSHOT";
	}
}

int image_path_parse(const char *name, enum image_kind kind, struct image_path *path, struct err *err)
{
	const char *slash = strchr(name, '/');

	if (!slash || !part_is_valid(name, (size_t)(slash - name)) || !image_name_is_valid(slash + 1, IMAGE_EITHER))
		return err_set(
			err, -EINVAL,
			"'%.100s' is not the name of %s, each part 1 to %d of A-Z a-z 0-9 . _ - and not beginning "
			"with . or -",
			name, form_of(kind), POOL_NAME_MAX);
	if (!image_name_is_valid(slash + 1, kind))
		return err_set(err, -EINVAL, "'%s' is not the name of %s", name, form_of(kind));
	snprintf(path->pool, sizeof(path->pool), "%.*s", (int)(slash - name), name);
	snprintf(path->image, sizeof(path->image), "%s", slash + 1);
	return 0;
}
