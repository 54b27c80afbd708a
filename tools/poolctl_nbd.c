/* Volumes and snapshots by NBD: see poolctl_nbd.h. */
#include "tools/poolctl_nbd.h"

#include <errno.h>
#include <libnbd.h>
#include <string.h>

#define STATUS_BYTES_MAX (1ull << 30) /* asked at once; the wire has 32 bits */
#define STATE_HOLE 1u
#define STATE_CHANGED 1u

static enum cli_exit fail(struct cli *cli, const struct cli_image *image, const char *what)
{
	int code = nbd_get_errno();
	const char *why = nbd_get_error();

	return cli_fail(cli, CLI_FAILED, -code, "cannot %s '%s': %s", what, image->name, why ? why : "unknown error");
}

/* --- opening ---------------------------------------------------------------------------------------------- */

const char *cli_image_socket(const struct cli_image *image)
{
	return image->address + strlen("unix:");
}

uint64_t cli_image_bytes(const struct cli_image *image)
{
	int64_t size_bytes = nbd_get_size(image->nbd);

	return size_bytes > 0 ? (uint64_t)size_bytes : 0;
}

static enum cli_exit add_export(struct cli *cli, const char *name, const struct cli_image_opts *opts, struct cli_image *image)
{
	json_t *export;
	enum cli_exit ret = cli_call(cli, "export.add",
				     json_pack("{s:s, s:s, s:b, s:b, s:b}", "volume", name, "kind", "nbd", "temporary", 1,
					       "read_only", (int)opts->read_only, "receiving", (int)opts->receiving),
				     &export);

	if (ret)
		return ret;
	snprintf(image->address, sizeof(image->address), "%s", cli_text(export, "address"));
	json_decref(export);
	return CLI_OK;
}

static int add_contexts(struct cli_image *image, const struct cli_image_opts *opts)
{
	if (!opts->read_only)
		return 0;
	if (opts->since) {
		snprintf(image->context, sizeof(image->context), "poold:changed-since:%s", opts->since);
		image->since = image->context;
	}
	if (image->since && nbd_add_meta_context(image->nbd, image->since) < 0)
		return -1;
	return nbd_add_meta_context(image->nbd, LIBNBD_CONTEXT_BASE_ALLOCATION);
}

static enum cli_exit connect_to(struct cli *cli, const struct cli_image_opts *opts, struct cli_image *image)
{
	image->nbd = nbd_create();
	if (!image->nbd || add_contexts(image, opts) < 0 || nbd_connect_unix(image->nbd, cli_image_socket(image)) < 0)
		return fail(cli, image, "reach");
	if (image->since && nbd_can_meta_context(image->nbd, image->since) != 1)
		return cli_fail(cli, CLI_FAILED, -ENOTSUP, "poold does not tell what of '%s' has changed since '%s'",
				image->name, opts->since);
	return CLI_OK;
}

enum cli_exit cli_image_open(struct cli *cli, const char *name, const struct cli_image_opts *opts, struct cli_image *image)
{
	enum cli_exit ret;

	*image = (struct cli_image){ .name = name };
	ret = add_export(cli, name, opts, image);
	return ret ? ret : connect_to(cli, opts, image);
}

void cli_image_close(struct cli *cli, struct cli_image *image)
{
	json_t *result;
	struct err err;

	if (image->nbd) {
		nbd_shutdown(image->nbd, 0);
		nbd_close(image->nbd);
	}
	/* The daemon ends it anyway, a little later. */
	if (*image->address &&
	    rpc_call(cli->rpc, "export.remove", json_pack("{s:s}", "address", image->address), &result, &err) == 0)
		json_decref(result);
	*image = (struct cli_image){ NULL };
}

/* --- data ------------------------------------------------------------------------------------------------- */

enum cli_exit cli_image_read(struct cli *cli, struct cli_image *image, void *buf, uint64_t off_bytes, uint32_t len_bytes)
{
	return nbd_pread(image->nbd, buf, len_bytes, off_bytes, 0) < 0 ? fail(cli, image, "read") : CLI_OK;
}

enum cli_exit cli_image_write(struct cli *cli, struct cli_image *image, const void *buf, uint64_t off_bytes,
			      uint32_t len_bytes)
{
	return nbd_pwrite(image->nbd, buf, len_bytes, off_bytes, 0) < 0 ? fail(cli, image, "write") : CLI_OK;
}

enum cli_exit cli_image_punch(struct cli *cli, struct cli_image *image, uint64_t off_bytes, uint64_t len_bytes)
{
	while (len_bytes > 0) {
		uint64_t part = len_bytes < STATUS_BYTES_MAX ? len_bytes : STATUS_BYTES_MAX;

		if (nbd_zero(image->nbd, part, off_bytes, 0) < 0)
			return fail(cli, image, "write");
		off_bytes += part;
		len_bytes -= part;
	}
	return CLI_OK;
}

enum cli_exit cli_image_flush(struct cli *cli, struct cli_image *image)
{
	return nbd_flush(image->nbd, 0) < 0 ? fail(cli, image, "flush") : CLI_OK;
}

/* --- ranges ----------------------------------------------------------------------------------------------- */

/* What one metadata context told: {length, state} pairs. */
struct told {
	uint32_t pairs[2 * CLI_RANGES_MAX];
	uint32_t count, at; /* pairs */
	uint32_t done_bytes; /* of the pair at `at` */
};

struct status {
	const struct cli_image *image;
	struct told allocated, changed;
};

static int take_status(void *arg, const char *context, uint64_t off_bytes, uint32_t *entries, size_t count, int *error)
{
	struct status *status = arg;
	bool changed = status->image->since && strcmp(context, status->image->since) == 0;
	struct told *told = changed ? &status->changed : &status->allocated;

	told->count = (uint32_t)(count / 2 < CLI_RANGES_MAX ? count / 2 : CLI_RANGES_MAX);
	memcpy(told->pairs, entries, told->count * 2 * sizeof(told->pairs[0]));
	return 0;
}

static uint32_t left_of(const struct told *told)
{
	return told->at < told->count ? told->pairs[2 * told->at] - told->done_bytes : 0;
}

static void pass(struct told *told, uint32_t len_bytes)
{
	told->done_bytes += len_bytes;
	if (told->done_bytes == told->pairs[2 * told->at]) {
		told->at++;
		told->done_bytes = 0;
	}
}

/* Both contexts side by side, as far as both go. */
static uint32_t merge(struct status *status, struct cli_range *out)
{
	struct told *a = &status->allocated, *c = &status->changed;
	bool since = status->image->since;
	uint32_t count = 0;

	while (count < CLI_RANGES_MAX && left_of(a) > 0 && (!since || left_of(c) > 0)) {
		uint32_t len = since && left_of(c) < left_of(a) ? left_of(c) : left_of(a);

		out[count++] = (struct cli_range){
			.len_bytes = len,
			.allocated = !(a->pairs[2 * a->at + 1] & STATE_HOLE),
			.changed = !since || c->pairs[2 * c->at + 1] & STATE_CHANGED,
		};
		pass(a, len);
		if (since)
			pass(c, len);
	}
	return count;
}

enum cli_exit cli_image_ranges(struct cli *cli, struct cli_image *image, uint64_t off_bytes, uint64_t len_bytes,
			       struct cli_range out[CLI_RANGES_MAX], uint32_t *count)
{
	static struct status status; /* too large for the stack */
	uint64_t asked = len_bytes < STATUS_BYTES_MAX ? len_bytes : STATUS_BYTES_MAX;
	nbd_extent_callback callback = { .callback = take_status, .user_data = &status };

	memset(&status, 0, sizeof(status));
	status.image = image;
	if (nbd_block_status(image->nbd, asked, off_bytes, callback, 0) < 0)
		return fail(cli, image, "ask what is in");
	*count = merge(&status, out);
	if (*count == 0)
		return cli_fail(cli, CLI_FAILED, -EPROTO, "poold does not tell what is in '%s'", image->name);
	return CLI_OK;
}
