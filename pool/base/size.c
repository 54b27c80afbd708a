/* Sizes as people write them: see size.h.
 *
 *     size  := digits [ "." digits ] [ unit [ "B" | "iB" ] ]        unit := K M G T P E
 *
 * A fraction is kept as an integer over a power of ten until it is multiplied with the unit, so that nothing is
 * rounded: "0.3K" is refused rather than guessed. */
#include "pool/base/size.h"

#include <ctype.h>
#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

static const char units[] = "KMGTPE";

#define FRACTION_DIGITS_MAX 18

/* Reads digits at *pos into *value, which holds what stands left of them. -ERANGE on overflow. */
static int parse_digits(const char **pos, uint64_t *value)
{
	for (; isdigit((unsigned char)**pos); ++*pos) {
		if (__builtin_mul_overflow(*value, 10, value) ||
		    __builtin_add_overflow(*value, (uint64_t)(**pos - '0'), value))
			return -ERANGE;
	}
	return 0;
}

/* "", "K", "KB", "KiB" ...: how far to shift, or -EINVAL. */
static int parse_unit(const char *text)
{
	const char *unit;

	if (!*text)
		return 0;
	unit = strchr(units, toupper((unsigned char)*text));
	if (!unit)
		return -EINVAL;
	text++;
	if (*text && strcasecmp(text, "B") != 0 && strcasecmp(text, "iB") != 0)
		return -EINVAL;
	return 10 * (int)(unit - units + 1);
}

/* (whole + fraction / scale) << shift */
static int combine(uint64_t whole, uint64_t fraction, uint64_t scale, int shift, uint64_t *size_bytes)
{
	unsigned __int128 bytes = (unsigned __int128)whole << shift;
	unsigned __int128 part = (unsigned __int128)fraction << shift;

	if (part % scale != 0)
		return -EINVAL;
	bytes += part / scale;
	if (bytes > UINT64_MAX)
		return -ERANGE;
	*size_bytes = (uint64_t)bytes;
	return 0;
}

/* ".25" at *pos: 25 and 100. Nothing there: 0 and 1. */
static int parse_fraction(const char **pos, uint64_t *fraction, uint64_t *scale)
{
	const char *start;

	*fraction = 0;
	*scale = 1;
	if (**pos != '.')
		return 0;
	start = ++*pos;
	if (strspn(start, "0123456789") - 1 >= FRACTION_DIGITS_MAX || parse_digits(pos, fraction) != 0)
		return -EINVAL;
	for (; start < *pos; start++)
		*scale *= 10;
	return 0;
}

int size_parse(const char *text, uint64_t *size_bytes)
{
	uint64_t whole = 0, fraction, scale;
	int ret, shift;

	if (!isdigit((unsigned char)*text))
		return -EINVAL;
	ret = parse_digits(&text, &whole);
	if (ret)
		return ret;
	ret = parse_fraction(&text, &fraction, &scale);
	if (ret)
		return ret;
	shift = parse_unit(text);
	if (shift < 0)
		return shift;
	return combine(whole, fraction, scale, shift, size_bytes);
}

char *size_to_text(uint64_t size_bytes, char buf[SIZE_TEXT_BYTES])
{
	uint64_t unit_bytes = 1;
	unsigned int hundredths;
	int unit = -1;

	while (size_bytes / unit_bytes >= 1024) {
		unit_bytes *= 1024;
		unit++;
	}
	hundredths = (unsigned int)((unsigned __int128)(size_bytes % unit_bytes) * 100 / unit_bytes);
	snprintf(buf, SIZE_TEXT_BYTES, "%llu", (unsigned long long)(size_bytes / unit_bytes));
	if (hundredths > 0)
		snprintf(buf + strlen(buf), SIZE_TEXT_BYTES - strlen(buf), ".%02u", hundredths);
	if (hundredths > 0 && hundredths % 10 == 0)
		buf[strlen(buf) - 1] = '\0';
	if (unit >= 0)
		snprintf(buf + strlen(buf), SIZE_TEXT_BYTES - strlen(buf), "%c", units[unit]);
	return buf;
}
