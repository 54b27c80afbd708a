/* Names and uuids: the two ways in which people and labels call things. */
#include <stdio.h>
#include <string.h>

#include "pool/pool.h"
#include "pool/pool_int.h"

#define NAME_CHARS "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-"

bool name_is_valid(const char *name)
{
	size_t len = strnlen(name, POOL_NAME_MAX + 1);

	if (len == 0 || len > POOL_NAME_MAX || name[0] == '.' || name[0] == '-')
		return false;
	return strspn(name, NAME_CHARS) == len;
}

void uuid_to_text(const struct uuid *uuid, char text[37])
{
	static const char digits[] = "0123456789abcdef";
	char *at = text;

	for (int i = 0; i < 16; i++) {
		if (i == 4 || i == 6 || i == 8 || i == 10)
			*at++ = '-';
		*at++ = digits[uuid->b[i] >> 4];
		*at++ = digits[uuid->b[i] & 15];
	}
	*at = '\0';
}

static int digit_of(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

bool uuid_from_text(const char *text, struct uuid *uuid)
{
	for (int i = 0; i < 16; i++) {
		if ((i == 4 || i == 6 || i == 8 || i == 10) && *text++ != '-')
			return false;
		if (digit_of(text[0]) < 0 || digit_of(text[1]) < 0)
			return false;
		uuid->b[i] = (uint8_t)(digit_of(text[0]) << 4 | digit_of(text[1]));
		text += 2;
	}
	return *text == '\0';
}

/* RFC 4122, version 4: random. */
struct uuid uuid_new(struct loop *loop)
{
	uint64_t random[2] = { loop_random(loop), loop_random(loop) };
	struct uuid uuid;

	memcpy(uuid.b, random, sizeof(uuid.b));
	uuid.b[6] = (uuid.b[6] & 0x0f) | 0x40;
	uuid.b[8] = (uuid.b[8] & 0x3f) | 0x80;
	return uuid;
}

bool uuid_equal(const struct uuid *a, const struct uuid *b)
{
	return memcmp(a->b, b->b, sizeof(a->b)) == 0;
}
