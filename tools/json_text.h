/* JSON from outside, and text for JSON. Any thread. */
#ifndef TOOLS_JSON_TEXT_H
#define TOOLS_JSON_TEXT_H

#include <stddef.h>

#include <jansson.h>

#include "pool/base/err.h"

/* Deepest nesting of arrays and objects that is read. Small, because jansson recurses and fibers' stacks are small. */
#define JSON_TEXT_DEPTH_MAX 16

/* Parses one whole JSON object or array. Refused with -EINVAL and a message: bad syntax, invalid UTF-8, a key given
 * twice, nesting beyond JSON_TEXT_DEPTH_MAX, integers beyond 64 bits. The caller owns *out. */
int json_text_parse(const char *text, size_t len_bytes, json_t **out, struct err *err)
	__attribute__((warn_unused_result));

/* A JSON string of any bytes: those that are not UTF-8 become '?'. NULL: no memory. */
json_t *json_text_string(const char *text);

#endif
