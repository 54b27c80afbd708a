/* Shared by the files that make JSON of the registry (show*.c). */
#ifndef TOOLS_SHOW_INT_H
#define TOOLS_SHOW_INT_H

#include "tools/show.h"

/* Makers of objects and arrays. They consume value; any failure makes *object or *array NULL, for good, so that only the
 * end result needs checking. */
void show_put(json_t **object, const char *key, json_t *value);
void show_number(json_t **object, const char *key, uint64_t value);
void show_text(json_t **object, const char *key, const char *text);
void show_flag(json_t **object, const char *key, bool flag);
void show_append(json_t **array, json_t *value);

/* Calls fn for each open pool, pinned, which appends to *array. */
void show_each_open(struct daemon *daemon, json_t **array, void (*fn)(json_t **array, struct daemon_pool *pool));
/* Calls fn for each export of the pool, pinned. */
void show_each_export(json_t **array, struct daemon_pool *pool,
		      json_t *(*fn)(const struct daemon_pool *pool, struct daemon_export *exp));
/* Calls fn, which may append and must not wait, for each volume and snapshot of an open pool. */
void show_each_image(json_t **array, struct daemon_pool *pool,
		     void (*fn)(json_t **array, struct daemon_pool *pool, const struct volume_info *info));
/* "volume": "tank/web0". */
void show_image_name(json_t **object, const char *key, const struct daemon_pool *pool, const char *image);
const char *show_volume_state(const struct volume_info *info);

#endif
