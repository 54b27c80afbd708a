/* Which driver knows what a server offers, and how the names it finds become URIs: the server's own, with the path put in. */
#include "pool/disks/disk_discover.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "pool/disks/disk_uri.h"

static const struct {
	const char *scheme;
	int (*discover)(const char *uri, struct disk_finder *finder, struct err *err);
} schemes[] = {
	{ "iscsi://", disk_iscsi_discover },    { "nbd://", disk_nbd_discover },
	{ "nbds://", disk_nbd_discover },       { "nbd+unix://", disk_nbd_discover },
	{ "nbds+unix://", disk_nbd_discover },
};

int disk_discover(const char *uri, struct disk_finder *finder, struct err *err)
{
	finder->server = uri;
	for (size_t i = 0; i < sizeof(schemes) / sizeof(schemes[0]); i++) {
		int ret;

		if (strncmp(uri, schemes[i].scheme, strlen(schemes[i].scheme)) != 0)
			continue;
		ret = schemes[i].discover(uri, finder, err);
		return ret ? err_prefix(err, ret, "cannot ask '%.200s'", uri) : 0;
	}
	return err_set(err, -EINVAL, "cannot ask '%.200s': only iscsi:// and nbd:// servers can be asked", uri);
}

static void encode(char *to, size_t room_bytes, const char *path)
{
	static const char digits[] = "0123456789abcdef";
	size_t used_bytes = 0;

	for (const char *at = path; *at && used_bytes + 4 <= room_bytes; at++) {
		unsigned char byte = (unsigned char)*at;

		if (!strchr("%?#@&= ", byte) && byte > ' ' && byte < 0x7f) {
			to[used_bytes++] = *at;
			continue;
		}
		to[used_bytes++] = '%';
		to[used_bytes++] = digits[byte >> 4];
		to[used_bytes++] = digits[byte & 15];
	}
	to[used_bytes] = '\0';
}

void disk_found(struct disk_finder *finder, const char *path, uint64_t size_bytes, const char *why)
{
	size_t server_bytes = strcspn(finder->server, "?");
	const char *query = finder->server + server_bytes;
	char uri[DISK_URI_BYTES_MAX], encoded[DISK_URI_BYTES_MAX];

	/* "nbd://host/" and "nbd://host" are the same; of "nbd+unix:///" two slashes belong to the scheme. */
	if (server_bytes > 0 && finder->server[server_bytes - 1] == '/')
		server_bytes--;
	encode(encoded, sizeof(encoded), path);
	if (snprintf(uri, sizeof(uri), "%.*s/%s%s", (int)server_bytes, finder->server, encoded, query) < (int)sizeof(uri))
		finder->found(finder, uri, size_bytes, why);
}
