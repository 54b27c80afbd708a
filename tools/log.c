/* The daemon's log: see log.h.
 *
 *     2026-01-31T12:00:00.123Z info: pool 'tank' is open: 3 disks, 2 volumes
 *
 * A line is formatted on the stack and leaves in one write, so lines of several threads never mix. Control characters
 * are replaced, so whatever a message quotes stays on its line. A line that does not fit is cut. */
#include "tools/log.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define LOG_LINE_BYTES 1024

static enum log_level log_level_max = LOG_LEVEL_INFO;

static const char *const level_texts[LOG_LEVEL_COUNT] = {
#define X(name, text) [LOG_LEVEL_##name] = (text),
	LOG_LEVELS(X)
#undef X
};

void log_set_level(enum log_level level)
{
	log_level_max = level;
}

int log_level_parse(const char *text)
{
	for (int i = 0; i < LOG_LEVEL_COUNT; i++) {
		if (strcmp(text, level_texts[i]) == 0)
			return i;
	}
	return -EINVAL;
}

const char *log_level_text(enum log_level level)
{
	return level_texts[level];
}

/* Returns the length written. */
static size_t format_head(char *line, size_t size_bytes, enum log_level level)
{
	struct timespec now;
	struct tm tm;
	size_t len;

	clock_gettime(CLOCK_REALTIME, &now);
	gmtime_r(&now.tv_sec, &tm);
	len = strftime(line, size_bytes, "%Y-%m-%dT%H:%M:%S", &tm);
	len += (size_t)snprintf(line + len, size_bytes - len, ".%03ldZ %s: ", now.tv_nsec / 1000000,
				level_texts[level]);
	return len;
}

static void replace_controls(char *text)
{
	for (; *text; text++) {
		if ((unsigned char)*text < ' ' || *text == 127)
			*text = ' ';
	}
}

void log_write(enum log_level level, const char *fmt, ...)
{
	char line[LOG_LINE_BYTES];
	va_list args;
	size_t len;

	if (level > log_level_max)
		return;
	len = format_head(line, sizeof(line), level);
	va_start(args, fmt);
	vsnprintf(line + len, sizeof(line) - 1 - len, fmt, args);
	va_end(args);
	replace_controls(line);
	len = strlen(line);
	line[len++] = '\n';
	/* There is nobody to tell if the log cannot be written. */
	if (write(STDERR_FILENO, line, len) < 0)
		return;
}
