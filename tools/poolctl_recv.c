/* poolctl recv: takes a stream of snapshots (snapshots/stream_format.h) from standard input into a volume.
 *
 * Nothing of a record is done before all of it is there and right. The daemon marks the volume as being received, and remembers how
 * far the stream was taken: at each snapshot, which comes into being together with that mark; now and then in between, after a
 * flush; and when it breaks off. Doing a record twice changes nothing, so with --resume the stream is read again from its start, what
 * is marked as taken is verified and passed over, and the rest is done. */
#include <errno.h>
#include <signal.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "pool/base/mem.h"
#include "snapshots/stream.h"
#include "tools/poolctl_nbd.h"
#include "tools/poolctl_progress.h"
#include "tools/poolctl_stream.h"

#define MARK_BYTES (64u << 20) /* of data between two marks */

struct recv {
	struct cli *cli;
	const char *volume;
	struct stream_reader reader;
	uint8_t *record;
	struct progress progress;
	uint64_t stream_bytes, read_bytes; /* the stream's length (0: nobody knows), and what was read of it */
	struct stream_mark taken;  /* by the daemon, when we began */
	struct stream_mark marked; /* last told to it */
	uint64_t unmarked_bytes;
	bool begun;     /* the volume is being received */
	bool complete;  /* no more */
	bool ready;     /* for the present snapshot: size, and */
	struct cli_image image;
};

static volatile sig_atomic_t interrupted;

static void on_signal(int number)
{
	interrupted = number;
}

static void catch_signals(void)
{
	struct sigaction action = { .sa_handler = on_signal, .sa_flags = (int)SA_RESETHAND };

	sigaction(SIGINT, &action, NULL);
	sigaction(SIGTERM, &action, NULL);
}

/* --- reading ---------------------------------------------------------------------------------------------- */

/* Returns how many bytes there were; fewer than asked for at the end. */
static enum cli_exit read_bytes(struct recv *recv, void *buf, size_t len_bytes, size_t *got_bytes)
{
	for (*got_bytes = 0; *got_bytes < len_bytes && !interrupted;) {
		ssize_t got = read(STDIN_FILENO, (uint8_t *)buf + *got_bytes, len_bytes - *got_bytes);

		if (got < 0 && errno != EINTR)
			return cli_fail(recv->cli, CLI_FAILED, -errno, "cannot read the stream: %s", strerror(errno));
		if (got == 0)
			break;
		if (got > 0)
			*got_bytes += (size_t)got;
	}
	recv->read_bytes += *got_bytes;
	if (interrupted)
		return cli_fail(recv->cli, CLI_FAILED, -EINTR, "interrupted");
	return CLI_OK;
}

static enum cli_exit read_all(struct recv *recv, void *buf, size_t len_bytes)
{
	size_t got;
	enum cli_exit ret = read_bytes(recv, buf, len_bytes, &got);

	if (ret == CLI_OK && got < len_bytes)
		return cli_fail(recv->cli, CLI_FAILED, -EBADMSG, "the stream ends before it is complete");
	return ret;
}

static enum cli_exit read_record(struct recv *recv, struct stream_item *item)
{
	struct stream_header *header = (struct stream_header *)recv->record;
	struct err err;
	enum cli_exit ret = read_all(recv, header, sizeof(*header));
	int len_bytes;

	if (ret)
		return ret;
	len_bytes = stream_record_bytes(header, &err);
	if (len_bytes < 0)
		return cli_fail(recv->cli, CLI_FAILED, len_bytes, "%s", err.msg);
	ret = read_all(recv, header + 1, (size_t)len_bytes - sizeof(*header));
	if (ret)
		return ret;
	if (stream_read(&recv->reader, recv->record, (uint32_t)len_bytes, item, &err) != 0)
		return cli_fail(recv->cli, CLI_FAILED, -EBADMSG, "%s", err.msg);
	return CLI_OK;
}

static enum cli_exit expect_nothing_more(struct recv *recv)
{
	uint8_t byte;
	size_t got;
	enum cli_exit ret = read_bytes(recv, &byte, 1, &got);

	if (ret == CLI_OK && got > 0)
		return cli_fail(recv->cli, CLI_FAILED, -EBADMSG, "there is something behind the end of the stream");
	return ret;
}

/* --- marks ------------------------------------------------------------------------------------------------ */

static json_t *with_mark(const struct stream_mark *mark)
{
	return json_pack("{s:I, s:I}", "seq", (json_int_t)mark->seq, "crc", (json_int_t)mark->crc);
}

static enum cli_exit call_with(struct recv *recv, const char *method, json_t *params, const char *key, const char *value)
{
	json_t *result;
	enum cli_exit ret;

	json_object_set_new(params, key, json_string(value));
	ret = cli_call(recv->cli, method, params, &result);
	if (ret == CLI_OK)
		json_decref(result);
	return ret;
}

/* The daemon learns that everything up to here is done. */
static enum cli_exit mark(struct recv *recv)
{
	enum cli_exit ret = recv->image.nbd ? cli_image_flush(recv->cli, &recv->image) : CLI_OK;

	if (ret == CLI_OK && recv->marked.seq < recv->reader.mark.seq)
		ret = call_with(recv, "receive.mark", with_mark(&recv->reader.mark), "volume", recv->volume);
	if (ret)
		return ret;
	recv->marked = recv->reader.mark;
	recv->unmarked_bytes = 0;
	return CLI_OK;
}

/* --- doing ------------------------------------------------------------------------------------------------ */

static enum cli_exit begin(struct recv *recv, const struct stream_begin *begin)
{
	const char *policy = cli_value(recv->cli, "policy");
	char guid[STREAM_GUID_TEXT_BYTES], text[STREAM_POLICY_TEXT_BYTES];
	json_t *params;
	enum cli_exit ret;

	if (stream_guid_is_none(&begin->base))
		params = json_pack("{s:s, s:I}", "policy", policy ? policy : stream_policy_to_text(begin, text), "size_bytes",
				   (json_int_t)STREAM_BLOCK_BYTES); /* the first snapshot tells */
	else
		params = json_pack("{s:s}", "base", stream_guid_to_text(&begin->base, guid));
	ret = call_with(recv, "receive.begin", params, "volume", recv->volume);
	recv->begun = ret == CLI_OK;
	return ret;
}

/* The volume has the snapshot's size and can be written. */
static enum cli_exit get_ready(struct recv *recv)
{
	struct cli_image_opts opts = { .receiving = true };
	json_t *result;
	enum cli_exit ret;

	if (recv->ready)
		return CLI_OK;
	ret = cli_call(recv->cli, "volume.resize",
		       json_pack("{s:s, s:I, s:b}", "volume", recv->volume, "size_bytes",
				 (json_int_t)recv->reader.snapshot.size_bytes, "force", 1),
		       &result);
	if (ret)
		return ret;
	json_decref(result);
	ret = cli_image_open(recv->cli, recv->volume, &opts, &recv->image);
	recv->ready = ret == CLI_OK;
	return ret;
}

static enum cli_exit write_range(struct recv *recv, const struct stream_item *item)
{
	enum cli_exit ret = get_ready(recv);

	if (ret)
		return ret;
	if (item->type == STREAM_RECORD_HOLE)
		return cli_image_punch(recv->cli, &recv->image, item->off_bytes, item->len_bytes);
	recv->unmarked_bytes += item->len_bytes;
	return cli_image_write(recv->cli, &recv->image, item->data, item->off_bytes, (uint32_t)item->len_bytes);
}

/* All of the snapshot has come: it comes into being. */
static enum cli_exit take(struct recv *recv, const struct stream_snapshot *snapshot)
{
	char guid[STREAM_GUID_TEXT_BYTES], name[512];
	json_t *params = with_mark(&recv->reader.mark);
	enum cli_exit ret = get_ready(recv);

	if (ret == CLI_OK)
		ret = cli_image_flush(recv->cli, &recv->image);
	cli_image_close(recv->cli, &recv->image);
	recv->ready = false;
	if (ret) {
		json_decref(params);
		return ret;
	}
	snprintf(name, sizeof(name), "%s@%s", recv->volume, snapshot->name);
	json_object_set_new(params, "created_s", json_integer((json_int_t)snapshot->created_s));
	json_object_set_new(params, "guid", json_string(stream_guid_to_text(&snapshot->guid, guid)));
	ret = call_with(recv, "receive.snapshot", params, "snapshot", name);
	if (ret == CLI_OK)
		recv->marked = recv->reader.mark;
	return ret;
}

static enum cli_exit finish(struct recv *recv)
{
	enum cli_exit ret = expect_nothing_more(recv);

	if (ret == CLI_OK)
		ret = call_with(recv, "receive.end", json_object(), "volume", recv->volume);
	recv->complete = ret == CLI_OK;
	return ret;
}

static enum cli_exit do_record(struct recv *recv, const struct stream_item *item)
{
	switch (item->type) {
	case STREAM_RECORD_STREAM: return recv->begun ? CLI_OK : begin(recv, &item->begin);
	case STREAM_RECORD_SNAPSHOT: return CLI_OK;
	case STREAM_RECORD_DATA:
	case STREAM_RECORD_HOLE: return write_range(recv, item);
	case STREAM_RECORD_TAKEN: return take(recv, &item->snapshot);
	case STREAM_RECORD_END: return finish(recv);
	}
	return CLI_OK;
}

/* A record that was done before. At the last of them it shows whether it is the same stream. */
static enum cli_exit pass_over(struct recv *recv)
{
	if (recv->reader.mark.seq == recv->taken.seq && recv->reader.mark.crc != recv->taken.crc)
		return cli_fail(recv->cli, CLI_FAILED, -ESTALE,
				"this is not the stream of which '%s' has received a part, or it was written another way",
				recv->volume);
	return CLI_OK;
}

static enum cli_exit receive_one(struct recv *recv)
{
	struct stream_item item;
	enum cli_exit ret = read_record(recv, &item);

	if (ret)
		return ret;
	if (recv->reader.mark.seq <= recv->taken.seq)
		return pass_over(recv);
	ret = do_record(recv, &item);
	progress_show(&recv->progress, recv->volume, recv->read_bytes, recv->stream_bytes, recv->reader.totals.data_bytes);
	return ret == CLI_OK && recv->unmarked_bytes >= MARK_BYTES ? mark(recv) : ret;
}

/* --- as a whole ------------------------------------------------------------------------------------------- */

/* How far was it? */
static enum cli_exit resume(struct recv *recv)
{
	json_t *shown;
	enum cli_exit ret = cli_call(recv->cli, "receive.show", json_pack("{s:s}", "volume", recv->volume), &shown);

	if (ret)
		return ret;
	recv->taken = (struct stream_mark){ cli_number(shown, "seq"), (uint32_t)cli_number(shown, "crc") };
	recv->marked = recv->taken;
	recv->begun = true;
	json_decref(shown);
	return CLI_OK;
}

/* What was done stays done. The record that failed was not: the reader may be behind it. */
static void keep_what_there_is(struct recv *recv, const struct stream_mark *done)
{
	recv->reader.mark = *done;
	if (recv->begun && !recv->complete && done->seq > recv->taken.seq && mark(recv) == CLI_OK && !recv->cli->json)
		fprintf(stderr, "poolctl: %llu records are kept: 'poolctl recv %s --resume' goes on, given the stream again\n",
			(unsigned long long)done->seq, recv->volume);
}

static enum cli_exit receive_all(struct recv *recv)
{
	enum cli_exit ret = CLI_OK;

	while (ret == CLI_OK && !recv->complete) {
		struct stream_mark done = recv->reader.mark;

		ret = receive_one(recv);
		if (ret)
			keep_what_there_is(recv, &done);
	}
	return ret;
}

static uint64_t file_bytes(int fd)
{
	struct stat st;

	return fstat(fd, &st) == 0 && S_ISREG(st.st_mode) ? (uint64_t)st.st_size : 0;
}

static enum cli_exit show_result(struct recv *recv)
{
	json_t *volume;
	enum cli_exit ret = cli_call(recv->cli, "volume.show", json_pack("{s:s}", "volume", recv->volume), &volume);

	if (ret)
		return ret;
	if (!cli_print_json(recv->cli, volume))
		printf("volume '%s' is received\n", recv->volume);
	json_decref(volume);
	return CLI_OK;
}

enum cli_exit cli_recv(struct cli *cli)
{
	struct recv recv = { .cli = cli, .volume = cli->args[0], .stream_bytes = file_bytes(STDIN_FILENO) };
	enum cli_exit ret;

	recv.record = mem_alloc(STREAM_RECORD_BYTES_MAX);
	if (!recv.record || stream_reader_init(&recv.reader) != 0) {
		mem_free(recv.record);
		return cli_fail(cli, CLI_FAILED, -ENOMEM, "no memory");
	}
	progress_init(&recv.progress);
	catch_signals();
	ret = cli_value(cli, "resume") ? resume(&recv) : CLI_OK;
	if (ret == CLI_OK)
		ret = receive_all(&recv);
	progress_end(&recv.progress);
	cli_image_close(cli, &recv.image);
	if (ret == CLI_OK)
		ret = show_result(&recv);
	stream_reader_release(&recv.reader);
	mem_free(recv.record);
	return ret;
}
