/* The names of network disks: "SCHEME://[USER@]HOST[:PORT][/PATH][?KEY=VALUE[&KEY=VALUE]...]".
 *
 * HOST is a name, an IPv4 address or an IPv6 address in brackets; it may be empty (nbd+unix:///). All parts but SCHEME and
 * HOST are percent-decoded. Pure; any thread. */
#ifndef POOL_DISKS_DISK_URI_H
#define POOL_DISKS_DISK_URI_H

#include <stdbool.h>
#include <stdint.h>

#include "pool/base/err.h"

#define DISK_URI_BYTES_MAX 1024
#define DISK_URI_OPTS_MAX 8

struct disk_uri {
	char text[DISK_URI_BYTES_MAX]; /* what the others point into */
	const char *scheme;
	const char *user; /* NULL: none */
	const char *host;
	const char *port; /* NULL: none */
	const char *path; /* without the slash in front; "" if none */
	uint32_t opt_count;
	struct disk_uri_opt {
		const char *key, *value;
		bool used;
	} opts[DISK_URI_OPTS_MAX];
};

/* 0, or -EINVAL and a message. A secret in the user part ("user%secret@", "user:secret@") is refused, and not repeated. */
int disk_uri_parse(struct disk_uri *uri, const char *text, struct err *err) __attribute__((warn_unused_result));

/* The value of an option, or NULL. */
const char *disk_uri_opt(struct disk_uri *uri, const char *key);

/* A whole number from min to max; *value stays as it is if the option is not there. 0 or -EINVAL and a message. */
int disk_uri_opt_number(struct disk_uri *uri, const char *key, uint64_t min, uint64_t max, uint64_t *value,
			struct err *err) __attribute__((warn_unused_result));

/* Refuses options that nobody has asked for. */
int disk_uri_check_opts(const struct disk_uri *uri, struct err *err) __attribute__((warn_unused_result));

#endif
