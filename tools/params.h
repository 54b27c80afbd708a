/* Typed parameters of a control method, so that a method is a few lines:
 *
 *	const char *volume = param_text(params, "volume");
 *	uint64_t size_bytes = param_u64(params, "size_bytes", VOLUME_SIZE_MAX);
 *	bool force = param_flag(params, "force");
 *
 *	if (params_end(params) != 0)
 *		return -EINVAL;
 *
 * The first thing wrong is remembered with its message and the getters then return defaults, so only params_end needs
 * checking. It also refuses parameters that no getter asked for: ask for all before it, and act only after it.
 * Texts belong to the request. */
#ifndef TOOLS_PARAMS_H
#define TOOLS_PARAMS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <jansson.h>

#include "pool/base/err.h"

#define PARAM_TEXT_BYTES_MAX 4096

struct params {
	const json_t *object; /* NULL: no parameters were given */
	size_t taken;         /* how many of its members were asked for and are there */
	bool bad;
	struct err *err;
};

void params_init(struct params *params, const json_t *object, struct err *err);

/* Required: a string of 1 .. PARAM_TEXT_BYTES_MAX bytes without control characters. */
const char *param_text(struct params *params, const char *key);
/* Optional: fallback if absent. */
const char *param_text_or(struct params *params, const char *key, const char *fallback);
/* Required: an integer from 0 to max. */
uint64_t param_u64(struct params *params, const char *key, uint64_t max);
uint64_t param_u64_or(struct params *params, const char *key, uint64_t max, uint64_t fallback);
/* Optional: an integer from -max to max; 0 if absent. */
int64_t param_delta(struct params *params, const char *key, int64_t max);
/* Optional: false if absent. */
bool param_flag(struct params *params, const char *key);
/* Required: an array of 1 .. max texts; returns how many, 0 on error. */
uint32_t param_texts(struct params *params, const char *key, const char **texts, uint32_t max);
bool param_given(const struct params *params, const char *key);

/* 0, or -EINVAL with the message of the first thing wrong. */
int params_end(struct params *params) __attribute__((warn_unused_result));

#endif
