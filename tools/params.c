/* Typed parameters of a control method: see params.h. */
#include "tools/params.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

void params_init(struct params *params, const json_t *object, struct err *err)
{
	*params = (struct params){ .object = object, .err = err };
}

static void __attribute__((format(printf, 3, 4))) bad(struct params *params, const char *key, const char *fmt, ...)
{
	char what[128];
	va_list args;

	if (params->bad)
		return;
	params->bad = true;
	va_start(args, fmt);
	vsnprintf(what, sizeof(what), fmt, args);
	va_end(args);
	err_set(params->err, -EINVAL, "invalid parameter '%s': %s", key, what);
}

/* The member, NULL if absent. */
static const json_t *take(struct params *params, const char *key)
{
	const json_t *value = json_object_get(params->object, key);

	if (value)
		params->taken++;
	return value;
}

static const json_t *take_required(struct params *params, const char *key)
{
	const json_t *value = take(params, key);

	if (!value)
		bad(params, key, "it is missing");
	return value;
}

static bool has_control(const char *text)
{
	for (; *text; text++) {
		if ((unsigned char)*text < ' ' || *text == 127)
			return true;
	}
	return false;
}

/* The text of value, NULL if it is none. */
static const char *as_text(struct params *params, const char *key, const json_t *value)
{
	size_t len = json_string_length(value);

	if (!json_is_string(value))
		bad(params, key, "it must be a string");
	else if (len == 0 || len > PARAM_TEXT_BYTES_MAX)
		bad(params, key, "it must have 1 to %d bytes", PARAM_TEXT_BYTES_MAX);
	else if (has_control(json_string_value(value)))
		bad(params, key, "it holds a control character");
	else
		return json_string_value(value);
	return NULL;
}

static int64_t as_integer(struct params *params, const char *key, const json_t *value, int64_t min, int64_t max)
{
	if (!json_is_integer(value))
		bad(params, key, "it must be an integer");
	else if (json_integer_value(value) < min || json_integer_value(value) > max)
		bad(params, key, "it must be from %lld to %lld", (long long)min, (long long)max);
	else
		return json_integer_value(value);
	return 0;
}

/* JSON integers here are signed. */
static int64_t clamp(uint64_t max)
{
	return max > INT64_MAX ? INT64_MAX : (int64_t)max;
}

const char *param_text(struct params *params, const char *key)
{
	const json_t *value = take_required(params, key);

	return value ? as_text(params, key, value) : NULL;
}

const char *param_text_or(struct params *params, const char *key, const char *fallback)
{
	const json_t *value = take(params, key);

	return value ? as_text(params, key, value) : fallback;
}

uint64_t param_u64(struct params *params, const char *key, uint64_t max)
{
	const json_t *value = take_required(params, key);

	return value ? (uint64_t)as_integer(params, key, value, 0, clamp(max)) : 0;
}

uint64_t param_u64_or(struct params *params, const char *key, uint64_t max, uint64_t fallback)
{
	const json_t *value = take(params, key);

	return value ? (uint64_t)as_integer(params, key, value, 0, clamp(max)) : fallback;
}

int64_t param_delta(struct params *params, const char *key, int64_t max)
{
	const json_t *value = take(params, key);

	return value ? as_integer(params, key, value, -max, max) : 0;
}

bool param_flag(struct params *params, const char *key)
{
	const json_t *value = take(params, key);

	if (value && !json_is_boolean(value))
		bad(params, key, "it must be true or false");
	return json_is_true(value);
}

uint32_t param_texts(struct params *params, const char *key, const char **texts, uint32_t max)
{
	const json_t *value = take_required(params, key);
	size_t count = json_array_size(value);

	if (!value)
		return 0;
	if (!json_is_array(value) || count == 0 || count > max)
		bad(params, key, "it must be an array of 1 to %u strings", max);
	for (size_t i = 0; i < count && !params->bad; i++)
		texts[i] = as_text(params, key, json_array_get(value, i));
	return params->bad ? 0 : (uint32_t)count;
}

bool param_given(const struct params *params, const char *key)
{
	return json_object_get(params->object, key) != NULL;
}

int params_end(struct params *params)
{
	if (!params->bad && params->taken < json_object_size(params->object)) {
		params->bad = true;
		return err_set(params->err, -EINVAL, "invalid parameters: there is one that this method does not know");
	}
	return params->bad ? -EINVAL : 0;
}
