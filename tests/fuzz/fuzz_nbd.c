/* An NBD connection, from the first byte of the handshake to the last reply, on a volume in memory.
 *
 * The stream is the input: nbd_stream's functions are replaced, receives come in pieces of sizes that the first byte
 * chooses, and sends go nowhere (or fail from some point on). Its bits:
 *
 *     0  the volume fails everything    1  read-only    2  receives of 1 .. 7 bytes    3  the client stops taking replies
 *     4  a valid handshake (GO, structured replies, two contexts) comes first, so that the input is requests
 *
 * The connection ends by itself, with nothing left in flight. */
#include "pool/base/mem.h"
#include "tests/fuzz/fuzz.h"
#include "tests/unit/fake_volume.h"
#include "tests/unit/unit.h"
#include "tests/unit/unit_loop.h"
#include "targets/nbd_int.h"

#define VOLUME_BYTES (1u << 20)
#define SENDS_TAKEN 20

static struct fuzz_input before, stream;
static uint8_t features;
static uint32_t sends;

/* --- instead of nbd_stream.c -------------------------------------------------------------------------------- */

int nbd_stream_recv(struct nbd_stream *s, void *buf, size_t len_bytes)
{
	struct fuzz_input *in = before.left > 0 ? &before : &stream;

	fiber_yield();
	if (features & 4 && len_bytes > 7)
		len_bytes = 1 + in->left % 7;
	return (int)fuzz_take(in, buf, len_bytes < in->left ? len_bytes : in->left);
}

int nbd_stream_send(struct nbd_stream *s, struct iovec *iov, uint32_t count)
{
	volatile uint8_t last;

	FUZZ_REQUIRE(count > 0 && count <= NBD_SEND_IOV_MAX);
	fiber_yield();
	for (uint32_t i = 0; i < count; i++) {
		for (size_t at = 0; at < iov[i].iov_len; at += 512)
			last = ((uint8_t *)iov[i].iov_base)[at];
		if (iov[i].iov_len > 0)
			last = ((uint8_t *)iov[i].iov_base)[iov[i].iov_len - 1];
	}
	(void)last;
	return features & 8 && ++sends > SENDS_TAKEN ? -EPIPE : 0;
}

void nbd_stream_shut(struct nbd_stream *s, bool reading_only)
{
	before.left = stream.left = 0;
}

int nbd_socket_recv(int sock, void *buf, size_t len_bytes)
{
	FUZZ_REQUIRE(!"there is no TLS here");
	return -EIO;
}

int nbd_socket_send(int sock, struct iovec *iov, uint32_t count)
{
	FUZZ_REQUIRE(!"there is no TLS here");
	return -EIO;
}

/* --- the volume's map: every other 64 KiB ------------------------------------------------------------------ */

int volume_extents(struct volume *volume, uint64_t off_bytes, uint64_t len_bytes, struct extent *out, uint32_t max,
		   uint32_t *count)
{
	FUZZ_REQUIRE(max > 0 && len_bytes > 0 && off_bytes <= VOLUME_BYTES && len_bytes <= VOLUME_BYTES - off_bytes);
	fiber_yield();
	for (*count = 0; *count < max && len_bytes > 0; ++*count) {
		uint64_t piece = 65536 - off_bytes % 65536;

		if (piece > len_bytes)
			piece = len_bytes;
		out[*count] = (struct extent){ piece, off_bytes / 65536 % 2 };
		off_bytes += piece;
		len_bytes -= piece;
	}
	return volume->fail;
}

/* --- its snapshots: "mon" and "tue", which differ from it as its map does from nothing ------------------------ */

static struct volume snapshots[2];
static const char names[] = "mon\0tue\0";
static uint32_t open_snapshots;

int volume_changes(struct volume *volume, const struct volume *since, uint64_t off_bytes, uint64_t len_bytes,
		   struct extent *out, uint32_t max, uint32_t *count)
{
	FUZZ_REQUIRE(open_snapshots > 0 && (since == &snapshots[0] || since == &snapshots[1]));
	return volume_extents(volume, off_bytes, len_bytes, out, max, count);
}

int volume_snapshot_open(struct volume *volume, const char *name, struct volume **out)
{
	FUZZ_REQUIRE(strlen(name) <= POOL_NAME_MAX);
	fiber_yield();
	if (strcmp(name, names) != 0 && strcmp(name, names + 4) != 0)
		return -ENOENT;
	*out = &snapshots[strcmp(name, names) != 0];
	open_snapshots++;
	return 0;
}

void volume_snapshot_close(struct volume *snapshot)
{
	fiber_yield();
	open_snapshots--;
}

int volume_snapshot_names(struct volume *volume, char **out)
{
	fiber_yield();
	*out = mem_alloc(sizeof(names));
	memcpy(*out, names, sizeof(names));
	return 0;
}

/* --- a run --------------------------------------------------------------------------------------------------- */

static void serve(void *arg)
{
	struct nbd_conn *conn = arg;

	if (nbd_handshake(conn) == 0)
		nbd_session_run(conn);
	conn->leaving = true;
	nbd_contexts_drop(conn);
}

/* Client flags, STRUCTURED_REPLY, SET_META_CONTEXT of two contexts, GO. */
static const uint8_t handshake[] = "\0\0\0\3"
				   "IHAVEOPT\0\0\0\10\0\0\0\0"
				   "IHAVEOPT\0\0\0\12\0\0\0\66\0\0\0\0\0\0\0\2\0\0\0\17base:allocation"
				   "\0\0\0\27poold:changed-since:mon"
				   "IHAVEOPT\0\0\0\7\0\0\0\6\0\0\0\0\0\0";

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct nbd_server server = { .conf = { .name = "web0", .conns_max = 1, .listen_fd = -1 } };
	struct nbd_conn conn = { .server = &server, .stream.sock = -1 };
	static struct volume volume;
	struct unit_loop u;

	stream = (struct fuzz_input){ data, size };
	features = fuzz_uint8(&stream);
	sends = 0;
	before = (struct fuzz_input){ handshake, features & 16 ? sizeof(handshake) - 1 : 0 };
	unit_loop_init(&u);
	fake_volume_init(&volume, &u.loop, VOLUME_BYTES);
	volume.fail = features & 1 ? -EIO : 0;
	server.conf.volume = server.conf.reader = &volume;
	server.loop = &u.loop;
	server.conf.read_only = features & 2;
	list_init(&server.conns);
	waitq_init(&server.changed);
	fmutex_init(&server.claiming);
	nbd_buffers_init(&server.buffers);
	timer_init(&conn.deadline, NULL);
	list_init(&conn.node);
	nbd_input_init(&conn.input, &conn.stream, &server.buffers);
	unit_loop_start_fiber(&u, serve, &conn);
	FUZZ_REQUIRE(conn.leaving && u.loop.fibers_live == 0 && open_snapshots == 0);
	nbd_input_release(&conn.input);
	nbd_buffers_release(&server.buffers);
	fake_volume_fini(&volume);
	unit_loop_fini(&u);
	return 0;
}
