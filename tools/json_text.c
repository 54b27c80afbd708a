/* JSON from outside: see json_text.h.
 *
 * jansson recurses once a level, to a depth of 2048 in Debian's build, which is far more than a fiber's stack holds. So
 * the depth is counted first. The count splits strings from the rest exactly as jansson's lexer does (a quote starts and
 * ends a string, a backslash in it takes the next character along), so up to the first error that jansson would report
 * the depth seen here is the depth jansson will reach. */
#include "tools/json_text.h"

#include <errno.h>
#include <stdbool.h>
#include <string.h>

/* Depth of nesting anywhere in text, counted up to JSON_TEXT_DEPTH_MAX + 1. */
static int depth_of(const char *text, size_t len_bytes)
{
	int depth = 0, deepest = 0;
	bool in_string = false;

	for (size_t i = 0; i < len_bytes && deepest <= JSON_TEXT_DEPTH_MAX; i++) {
		char c = text[i];

		if (c == '"')
			in_string = !in_string;
		else if (in_string && c == '\\')
			i++;
		else if (!in_string && (c == '[' || c == '{'))
			depth++;
		else if (!in_string && (c == ']' || c == '}'))
			depth--;
		if (depth > deepest)
			deepest = depth;
	}
	return deepest;
}

int json_text_parse(const char *text, size_t len_bytes, json_t **out, struct err *err)
{
	json_error_t error;

	if (depth_of(text, len_bytes) > JSON_TEXT_DEPTH_MAX)
		return err_set(err, -EINVAL, "invalid JSON: nested deeper than %d levels", JSON_TEXT_DEPTH_MAX);
	*out = json_loadb(text, len_bytes, JSON_REJECT_DUPLICATES, &error);
	if (!*out && json_error_code(&error) == json_error_out_of_memory)
		return err_set(err, -ENOMEM, "no memory");
	if (!*out)
		return err_set(err, -EINVAL, "invalid JSON: line %d, column %d: %s", error.line, error.column,
			       error.text);
	return 0;
}

json_t *json_text_string(const char *text)
{
	char *copy;
	json_t *string = json_string(text);

	if (string)
		return string;
	copy = strdup(text);
	if (!copy)
		return NULL;
	for (char *c = copy; *c; c++) {
		if ((unsigned char)*c >= 0x80)
			*c = '?';
	}
	string = json_string(copy);
	free(copy);
	return string;
}
