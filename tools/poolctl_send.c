/* poolctl send: the snapshots of a volume up to one of them, oldest first, each as its difference to the one before, as a stream
 * on standard output (snapshots/stream_format.h). Data comes from the daemon by NBD.
 *
 * The same snapshots give the same stream, so one that broke off can be written again, and taken from where it broke. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "snapshots/stream.h"
#include "tools/poolctl_nbd.h"
#include "tools/poolctl_progress.h"
#include "tools/poolctl_stream.h"

struct send {
	struct cli *cli;
	struct stream_writer writer;
	struct progress progress;
	json_t *chain; /* of snapshots: the base, if there is one, and those to be sent */
	bool based;    /* there is a base */
	struct cli_image image; /* of the present one */
	const json_t *snapshot;
	/* what is gathered: ranges that lie side by side are one */
	bool data;
	uint64_t off_bytes, len_bytes;
};

/* --- which snapshots -------------------------------------------------------------------------------------- */

static int by_id(const void *a, const void *b)
{
	unsigned long long x = cli_number(*(json_t *const *)a, "id"), y = cli_number(*(json_t *const *)b, "id");

	return x < y ? -1 : x > y;
}

/* The volume's snapshots in the order in which they were made. */
static json_t *in_order(const json_t *snapshots)
{
	size_t count = json_array_size(snapshots), i;
	json_t **all = calloc(count + 1, sizeof(*all)), *sorted = json_array(), *snapshot;

	if (!all)
		return sorted;
	json_array_foreach(snapshots, i, snapshot)
		all[i] = snapshot;
	qsort(all, count, sizeof(*all), by_id);
	for (i = 0; i < count; i++)
		json_array_append(sorted, all[i]);
	free(all);
	return sorted;
}

static size_t find(const json_t *snapshots, const char *name)
{
	json_t *snapshot;
	size_t i;

	json_array_foreach(snapshots, i, snapshot) {
		if (strcmp(cli_text(snapshot, "name"), name) == 0)
			break;
	}
	return i;
}

/* Keeps from the base, or the first, to the last that is asked for. */
static enum cli_exit cut(struct send *send, const char *volume, const char *name, const char *since)
{
	size_t last = find(send->chain, name), first = since ? find(send->chain, since) : 0, count = json_array_size(send->chain);

	if (last == count || first == count)
		return cli_fail(send->cli, CLI_NOT_FOUND, -ENOENT, "no snapshot '%s@%s'", volume, last == count ? name : since);
	if (since && first >= last)
		return cli_fail(send->cli, CLI_USAGE, -EINVAL, "snapshot '%s@%s' is not older than '%s@%s'", volume, since,
				volume, name);
	while (json_array_size(send->chain) > last + 1)
		json_array_remove(send->chain, last + 1);
	while (first-- > 0)
		json_array_remove(send->chain, 0);
	send->based = since != NULL;
	return CLI_OK;
}

static enum cli_exit choose(struct send *send, const char *volume, const char *name)
{
	const char *since = cli_value(send->cli, "since");
	json_t *snapshots;
	enum cli_exit ret = cli_call(send->cli, "snapshot.list", json_pack("{s:s}", "volume", volume), &snapshots);

	if (ret)
		return ret;
	send->chain = in_order(snapshots);
	json_decref(snapshots);
	if (since && strchr(since, '@'))
		since = strchr(since, '@') + 1;
	return cut(send, volume, name, since);
}

/* --- records ---------------------------------------------------------------------------------------------- */

static enum cli_exit put(struct send *send)
{
	const uint8_t *at = send->writer.record;
	size_t left = send->writer.record_bytes;

	while (left > 0) {
		ssize_t wrote = write(STDOUT_FILENO, at, left);

		if (wrote < 0 && errno != EINTR)
			return cli_fail(send->cli, CLI_FAILED, -errno, "cannot write the stream: %s", strerror(errno));
		if (wrote > 0) {
			at += wrote;
			left -= (size_t)wrote;
		}
	}
	return CLI_OK;
}

static enum cli_exit put_data(struct send *send, uint64_t off_bytes, uint32_t len_bytes)
{
	enum cli_exit ret = cli_image_read(send->cli, &send->image, send->writer.data, off_bytes, len_bytes);

	if (ret)
		return ret;
	stream_write_data(&send->writer, off_bytes, len_bytes);
	progress_show(&send->progress, send->image.name, off_bytes, cli_number(send->snapshot, "size_bytes"),
		      send->writer.totals.data_bytes);
	return put(send);
}

/* Writes what is gathered. */
static enum cli_exit put_gathered(struct send *send)
{
	uint64_t len_bytes = send->len_bytes;
	enum cli_exit ret = CLI_OK;

	send->len_bytes = 0;
	if (len_bytes > 0 && !send->data) {
		stream_write_hole(&send->writer, send->off_bytes, len_bytes);
		return put(send);
	}
	while (len_bytes > 0 && ret == CLI_OK) {
		uint32_t part = (uint32_t)(len_bytes < STREAM_DATA_BYTES_MAX ? len_bytes : STREAM_DATA_BYTES_MAX);

		ret = put_data(send, send->off_bytes, part);
		send->off_bytes += part;
		len_bytes -= part;
	}
	return ret;
}

/* A hole is told only where something was before. */
static enum cli_exit gather(struct send *send, uint64_t off_bytes, const struct cli_range *range)
{
	bool told = range->changed && (range->allocated || send->image.since);
	enum cli_exit ret = CLI_OK;

	if (!told || send->data != range->allocated || send->off_bytes + send->len_bytes != off_bytes)
		ret = put_gathered(send);
	if (!told || ret)
		return ret;
	if (send->len_bytes == 0)
		send->off_bytes = off_bytes;
	send->data = range->allocated;
	send->len_bytes += range->len_bytes;
	return CLI_OK;
}

static enum cli_exit put_ranges(struct send *send, uint64_t size_bytes)
{
	static struct cli_range ranges[CLI_RANGES_MAX];
	enum cli_exit ret = CLI_OK;
	uint64_t off = 0;
	uint32_t count;

	while (off < size_bytes && ret == CLI_OK) {
		ret = cli_image_ranges(send->cli, &send->image, off, size_bytes - off, ranges, &count);
		for (uint32_t i = 0; ret == CLI_OK && i < count; i++) {
			ret = gather(send, off, &ranges[i]);
			off += ranges[i].len_bytes;
		}
	}
	return ret ? ret : put_gathered(send);
}

/* --- snapshots -------------------------------------------------------------------------------------------- */

static struct stream_guid guid_of(const json_t *snapshot)
{
	struct stream_guid guid = { { 0 } };

	if (snapshot)
		stream_guid_from_text(cli_text(snapshot, "guid"), &guid);
	return guid;
}

static enum cli_exit put_snapshot(struct send *send, const json_t *snapshot, const json_t *base)
{
	struct cli_image_opts opts = { .read_only = true, .since = base ? cli_text(base, "name") : NULL };
	struct stream_snapshot record = {
		.guid = guid_of(snapshot),
		.base = guid_of(base),
		.size_bytes = cli_number(snapshot, "size_bytes"),
		.created_s = cli_number(snapshot, "created_s"),
	};
	enum cli_exit ret;

	snprintf(record.name, sizeof(record.name), "%s", cli_text(snapshot, "name"));
	stream_write_snapshot(&send->writer, &record);
	send->snapshot = snapshot;
	ret = put(send);
	if (ret == CLI_OK)
		ret = cli_image_open(send->cli, cli_text(snapshot, "snapshot"), &opts, &send->image);
	if (ret == CLI_OK)
		ret = put_ranges(send, record.size_bytes);
	cli_image_close(send->cli, &send->image);
	if (ret)
		return ret;
	stream_write_taken(&send->writer);
	return put(send);
}

static enum cli_exit put_begin(struct send *send, const char *volume)
{
	struct stream_begin begin = {
		.snapshot_count = (uint32_t)json_array_size(send->chain) - send->based,
		.base = guid_of(send->based ? json_array_get(send->chain, 0) : NULL),
	};
	json_t *shown;
	enum cli_exit ret = cli_call(send->cli, "volume.show", json_pack("{s:s}", "volume", volume), &shown);

	if (ret)
		return ret;
	if (!stream_policy_from_text(cli_text(shown, "policy"), &begin))
		ret = cli_fail(send->cli, CLI_FAILED, -EPROTO, "poold tells a policy that is not known here: '%s'",
			       cli_text(shown, "policy"));
	snprintf(begin.name, sizeof(begin.name), "%s", cli_text(shown, "name"));
	json_decref(shown);
	stream_write_begin(&send->writer, &begin);
	return ret ? ret : put(send);
}

static enum cli_exit put_all(struct send *send, const char *volume)
{
	enum cli_exit ret = put_begin(send, volume);

	for (size_t i = send->based; ret == CLI_OK && i < json_array_size(send->chain); i++)
		ret = put_snapshot(send, json_array_get(send->chain, i), i > 0 ? json_array_get(send->chain, i - 1) : NULL);
	if (ret)
		return ret;
	stream_write_end(&send->writer);
	return put(send);
}

enum cli_exit cli_send(struct cli *cli)
{
	const char *at = strchr(cli->args[0], '@');
	struct send send = { .cli = cli };
	char *volume;
	enum cli_exit ret;

	if (!at)
		return cli_fail(cli, CLI_USAGE, -EINVAL, "'%s' is no snapshot: give POOL/VOLUME@SNAPSHOT", cli->args[0]);
	if (isatty(STDOUT_FILENO))
		return cli_fail(cli, CLI_USAGE, -EINVAL, "a stream is nothing for a terminal: send it to a file or a pipe");
	volume = strndup(cli->args[0], (size_t)(at - cli->args[0]));
	if (!volume || stream_writer_init(&send.writer, cli_value(cli, "compress") != NULL) != 0) {
		free(volume);
		return cli_fail(cli, CLI_FAILED, -ENOMEM, "no memory");
	}
	progress_init(&send.progress);
	ret = choose(&send, volume, at + 1);
	if (ret == CLI_OK)
		ret = put_all(&send, volume);
	progress_end(&send.progress);
	stream_writer_release(&send.writer);
	json_decref(send.chain);
	free(volume);
	return ret;
}
