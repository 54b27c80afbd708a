/* Error messages: see err.h.
 *
 * A message is formatted beside the old one and then copied over it, so the arguments may point into the message that
 * is being replaced. One that does not fit ends in "...": it is always a proper string. */
#include "pool/base/err.h"

#include <assert.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#define ELLIPSIS "..."

static void mark_cut(char *msg, size_t size, int wanted_len)
{
	if (wanted_len >= 0 && (size_t)wanted_len >= size)
		memcpy(msg + size - sizeof(ELLIPSIS), ELLIPSIS, sizeof(ELLIPSIS));
}

int err_set(struct err *err, int code, const char *fmt, ...)
{
	struct err next;
	va_list args;

	assert(code < 0);
	if (!err)
		return code;
	va_start(args, fmt);
	mark_cut(next.msg, sizeof(next.msg), vsnprintf(next.msg, sizeof(next.msg), fmt, args));
	va_end(args);
	*err = next;
	return code;
}

int err_prefix(struct err *err, int code, const char *fmt, ...)
{
	char context[sizeof(err->msg)];
	va_list args;

	assert(code < 0);
	if (!err)
		return code;
	va_start(args, fmt);
	mark_cut(context, sizeof(context), vsnprintf(context, sizeof(context), fmt, args));
	va_end(args);
	return err_set(err, code, "%s: %s", context, err->msg);
}
