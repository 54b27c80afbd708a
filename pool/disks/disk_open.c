/* From a URI to an open disk: the table of all drivers, and fault: around any of them.
 *
 * A URI is "SCHEME:REST". One that begins with '/' or '.', or has no ':' at all, is the path of a file or block device.
 * Only here are drivers named; disk.c works without them. */
#include <errno.h>
#include <string.h>

#include "pool/base/mem.h"
#include "pool/disks/disk_fault.h"
#include "pool/disks/disk_int.h"

static int fault_open(
    const char *uri, const char *rest, const struct disk_open_opts *opts, struct disk **out, struct err *err);

/* To add a back end, add a row; see disk.h. A driver with several schemes has several rows. */
static const struct scheme {
	const char *name;
	int (*open)(
	    const char *uri, const char *rest, const struct disk_open_opts *opts, struct disk **out, struct err *err);
} schemes[] = {
	{ "file", disk_file_open },
	{ "ram", disk_ram_open },
	{ "nbd", disk_nbd_open },
	{ "nbds", disk_nbd_open },
	{ "nbd+unix", disk_nbd_open },
	{ "nbds+unix", disk_nbd_open },
	{ "iscsi", disk_iscsi_open },
	{ "fault", fault_open },
};

#define SCHEME_COUNT (sizeof(schemes) / sizeof(schemes[0]))

/* rest is "OPTS:URI". */
static int fault_open(
    const char *uri, const char *rest, const struct disk_open_opts *opts, struct disk **out, struct err *err)
{
	const char *colon = strchr(rest, ':');
	struct disk *inner;
	char *text;
	int ret;

	if (!opts->allow_fault)
		return err_set(err, -EPERM, "cannot open '%s': fault disks are for tests and not allowed here", uri);
	if (!colon)
		return err_set(err, -EINVAL, "cannot open '%s': it is not of the form fault:OPTIONS:URI", uri);
	text = mem_strdup(rest);
	if (!text)
		return err_set(err, -ENOMEM, "cannot open '%s': no memory", uri);
	text[colon - rest] = '\0';
	ret = disk_open(colon + 1, opts, &inner, err);
	if (ret)
		goto free_text;
	ret = disk_fault_wrap(inner, text, out, err);
	if (ret) {
		err_prefix(err, ret, "cannot open '%s'", uri);
		disk_close(inner);
	}
free_text:
	mem_free(text);
	return ret;
}

static const struct scheme *find_scheme(const char *uri, size_t name_bytes)
{
	for (size_t i = 0; i < SCHEME_COUNT; i++) {
		if (strlen(schemes[i].name) == name_bytes && memcmp(schemes[i].name, uri, name_bytes) == 0)
			return &schemes[i];
	}
	return NULL;
}

static int open_by_scheme(const char *uri, const struct disk_open_opts *opts, struct disk **out, struct err *err)
{
	const char *colon = strchr(uri, ':');
	const struct scheme *scheme;

	if (!colon || uri[0] == '/' || uri[0] == '.')
		return disk_file_open(uri, uri, opts, out, err);
	scheme = find_scheme(uri, (size_t)(colon - uri));
	if (!scheme)
		return err_set(err, -EINVAL,
		    "cannot open '%s': no disk has the scheme '%.*s' (for a path, write 'file:%s')", uri,
		    (int)(colon - uri), uri, uri);
	return scheme->open(uri, colon + 1, opts, out, err);
}

int disk_open(const char *uri, const struct disk_open_opts *opts, struct disk **out, struct err *err)
{
	char *copy = mem_strdup(uri);
	int ret;

	if (!copy)
		return err_set(err, -ENOMEM, "cannot open '%s': no memory", uri);
	ret = open_by_scheme(uri, opts, out, err);
	if (ret)
		mem_free(copy);
	else
		(*out)->uri = copy;
	return ret;
}
