/* Names of network disks, cut apart: see disk_uri.h. The text is copied and cut in place; each part is decoded where it lies,
 * which only makes it shorter. */
#include "pool/disks/disk_uri.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

static int hex_digit(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	c |= 0x20;
	return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* "%41" to "A". -EINVAL: not two digits, or a zero byte. */
static int decode(char *text)
{
	char *to = text;

	for (const char *from = text; *from; from++) {
		int high, low;

		if (*from != '%') {
			*to++ = *from;
			continue;
		}
		high = hex_digit(from[1]);
		low = high < 0 ? -1 : hex_digit(from[2]);
		if (low < 0 || high + low == 0)
			return -EINVAL;
		*to++ = (char)(high << 4 | low);
		from += 2;
	}
	*to = '\0';
	return 0;
}

/* Ends the text at the first `c` and returns what follows, or NULL. */
static char *cut(char *text, char c)
{
	char *at = strchr(text, c);

	if (!at)
		return NULL;
	*at = '\0';
	return at + 1;
}

static int parse_opts(struct disk_uri *uri, char *query, struct err *err)
{
	while (query) {
		char *next = cut(query, '&'), *value = cut(query, '=');

		if (!value || decode(value))
			return err_set(err, -EINVAL, "'%.64s' is not of the form KEY=VALUE", query);
		if (uri->opt_count == DISK_URI_OPTS_MAX)
			return err_set(err, -EINVAL, "there are more than %d options", DISK_URI_OPTS_MAX);
		uri->opts[uri->opt_count++] = (struct disk_uri_opt){ .key = query, .value = value };
		query = next;
	}
	return 0;
}

static int parse_user(struct disk_uri *uri, char *user, struct err *err)
{
	/* libiscsi's and curl's ways to write a secret. */
	if (strchr(user, ':') || strchr(user, '%'))
		return err_set(err, -EINVAL,
			       "a secret must not stand in a name, where everybody sees it: put it in a file and name "
			       "that by an option");
	uri->user = user;
	return 0;
}

static int parse_host(struct disk_uri *uri, char *host, struct err *err)
{
	char *after = host;

	if (*host == '[') {
		uri->host = host + 1;
		after = cut(host, ']');
		if (!after || (*after != ':' && *after != '\0'))
			return err_set(err, -EINVAL, "'%.64s' is not a host", host);
	} else {
		uri->host = host;
	}
	uri->port = cut(after, ':');
	if (uri->port && (*uri->port == '\0' || strspn(uri->port, "0123456789") != strlen(uri->port)))
		return err_set(err, -EINVAL, "'%.64s' is not a port", uri->port);
	return 0;
}

int disk_uri_parse(struct disk_uri *uri, const char *text, struct err *err)
{
	char *authority, *path, *query, *host;
	int ret;

	memset(uri, 0, sizeof(*uri));
	if (strlen(text) >= sizeof(uri->text))
		return err_set(err, -EINVAL, "it is longer than %d bytes", DISK_URI_BYTES_MAX - 1);
	strcpy(uri->text, text);
	uri->scheme = uri->text;
	authority = strstr(uri->text, "://");
	if (!authority)
		return err_set(err, -EINVAL, "it is not of the form SCHEME://HOST/...");
	*authority = '\0';
	authority += strlen("://");
	query = cut(authority, '?');
	path = cut(authority, '/');
	uri->path = path ? path : "";
	if (path && decode(path))
		return err_set(err, -EINVAL, "a '%%' in it is not followed by two hexadecimal digits");
	host = cut(authority, '@');
	ret = host ? parse_user(uri, authority, err) : 0;
	if (!ret)
		ret = parse_host(uri, host ? host : authority, err);
	return ret ? ret : parse_opts(uri, query, err);
}

const char *disk_uri_opt(struct disk_uri *uri, const char *key)
{
	for (uint32_t i = 0; i < uri->opt_count; i++) {
		if (strcmp(uri->opts[i].key, key) == 0) {
			uri->opts[i].used = true;
			return uri->opts[i].value;
		}
	}
	return NULL;
}

int disk_uri_opt_number(struct disk_uri *uri, const char *key, uint64_t min, uint64_t max, uint64_t *value,
			struct err *err)
{
	const char *text = disk_uri_opt(uri, key);
	unsigned long long number;
	char *end;

	if (!text)
		return 0;
	errno = 0;
	number = strtoull(text, &end, 10);
	if (errno || *text < '0' || *text > '9' || *end != '\0' || number < min || number > max)
		return err_set(err, -EINVAL, "%s=%.32s is not a number from %llu to %llu", key, text,
			       (unsigned long long)min, (unsigned long long)max);
	*value = number;
	return 0;
}

int disk_uri_check_opts(const struct disk_uri *uri, struct err *err)
{
	for (uint32_t i = 0; i < uri->opt_count; i++) {
		if (!uri->opts[i].used)
			return err_set(err, -EINVAL, "it has no option '%.64s' (or has it twice)", uri->opts[i].key);
	}
	return 0;
}
