/* A bare NBD client: see nbd_client.h. */
#include "tests/client/nbd_client.h"

#include <errno.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#define COOKIE 0x636f6f6b69650000u

int nc_connect(const char *path)
{
	struct sockaddr_un addr = { .sun_family = AF_UNIX };
	int sock = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	strncpy(addr.sun_path, path, sizeof(addr.sun_path) - 1);
	if (sock >= 0 && connect(sock, (const struct sockaddr *)&addr, sizeof(addr)) < 0) {
		close(sock);
		return -1;
	}
	return sock;
}

static bool wait_for(int sock, short events, int wait_ms)
{
	struct pollfd pfd = { .fd = sock, .events = events };

	return poll(&pfd, 1, wait_ms) > 0;
}

bool nc_send(int sock, const void *bytes, size_t len_bytes)
{
	const uint8_t *at = bytes;

	while (len_bytes > 0) {
		ssize_t sent = send(sock, at, len_bytes, MSG_NOSIGNAL | MSG_DONTWAIT);

		if (sent < 0 && errno != EAGAIN)
			return false;
		if (sent < 0 && !wait_for(sock, POLLOUT, NC_WAIT_MS))
			return false;
		if (sent > 0) {
			at += sent;
			len_bytes -= (size_t)sent;
		}
	}
	return true;
}

static int64_t now_ms(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (int64_t)ts.tv_sec * 1000 + ts.tv_nsec / 1000000;
}

enum nc_got nc_recv(int sock, void *bytes, size_t len_bytes, int wait_ms)
{
	int64_t end_ms = now_ms() + wait_ms;
	uint8_t *at = bytes;

	while (len_bytes > 0) {
		ssize_t got = recv(sock, at, len_bytes, MSG_DONTWAIT);
		int64_t left_ms = end_ms - now_ms();

		if (got == 0 || (got < 0 && errno != EAGAIN))
			return NC_CLOSED;
		if (got < 0 && (left_ms <= 0 || !wait_for(sock, POLLIN, (int)left_ms)))
			return NC_SILENT;
		if (got > 0) {
			at += got;
			len_bytes -= (size_t)got;
		}
	}
	return NC_GOT;
}

bool nc_is_closed(int sock, int wait_ms)
{
	int64_t end_ms = now_ms() + wait_ms;
	uint8_t bytes[65536];
	ssize_t got;

	do {
		got = recv(sock, bytes, sizeof(bytes), MSG_DONTWAIT);
		if (got == 0 || (got < 0 && errno != EAGAIN))
			return true;
	} while (got > 0 || (now_ms() < end_ms && wait_for(sock, POLLIN, (int)(end_ms - now_ms()))));
	return false;
}

static bool skip(int sock, size_t len_bytes)
{
	uint8_t bytes[65536];

	while (len_bytes > 0) {
		size_t part = len_bytes < sizeof(bytes) ? len_bytes : sizeof(bytes);

		if (nc_recv(sock, bytes, part, NC_WAIT_MS) != NC_GOT)
			return false;
		len_bytes -= part;
	}
	return true;
}

/* ---- handshake ---- */

bool nc_hello(int sock, uint32_t client_flags)
{
	struct nbd_greeting greeting;
	be32 flags = be32_of(client_flags);

	return nc_recv(sock, &greeting, sizeof(greeting), NC_WAIT_MS) == NC_GOT &&
	       be64_get(greeting.magic) == NBD_MAGIC && nc_send(sock, &flags, sizeof(flags));
}

bool nc_option_lying(int sock, uint32_t option, uint32_t said_bytes, const void *data, size_t len_bytes)
{
	struct nbd_option header = {
		.magic = be64_of(NBD_OPTION_MAGIC),
		.option = be32_of(option),
		.len_bytes = be32_of(said_bytes),
	};

	return nc_send(sock, &header, sizeof(header)) && nc_send(sock, data, len_bytes);
}

bool nc_option(int sock, uint32_t option, const void *data, size_t len_bytes)
{
	return nc_option_lying(sock, option, (uint32_t)len_bytes, data, len_bytes);
}

enum nc_got nc_option_reply(int sock, struct nc_option_reply *reply)
{
	struct nbd_option_reply header;
	enum nc_got got = nc_recv(sock, &header, sizeof(header), NC_WAIT_MS);

	if (got != NC_GOT)
		return got;
	reply->option = be32_get(header.option);
	reply->type = be32_get(header.type);
	reply->len_bytes = be32_get(header.len_bytes);
	if (be64_get(header.magic) != NBD_OPTION_REPLY_MAGIC || reply->len_bytes > sizeof(reply->data))
		return NC_SILENT;
	return nc_recv(sock, reply->data, reply->len_bytes, NC_WAIT_MS);
}

uint32_t nc_final_reply(int sock)
{
	struct nc_option_reply reply;

	for (int replies = 0; replies < 100; replies++) {
		if (nc_option_reply(sock, &reply) != NC_GOT)
			return 0;
		if (reply.type == NBD_REP_ACK || (reply.type & NBD_REP_ERROR))
			return reply.type;
	}
	return 0;
}

static size_t put_text(uint8_t *data, const char *text)
{
	be32 len = be32_of((uint32_t)strlen(text));

	memcpy(data, &len, sizeof(len));
	strcpy((char *)data + sizeof(len), text); /* what follows goes over the 0 */
	return sizeof(len) + strlen(text);
}

size_t nc_info_data(uint8_t *data, const char *name)
{
	size_t len = put_text(data, name);

	memset(data + len, 0, 2);
	return len + 2;
}

size_t nc_meta_data(uint8_t *data, const char *name)
{
	size_t len = put_text(data, name);
	be32 one = be32_of(1);

	memcpy(data + len, &one, sizeof(one));
	len += sizeof(one);
	return len + put_text(data + len, "base:allocation");
}

static bool go(struct nc *nc)
{
	uint8_t data[64];
	struct nc_option_reply reply;
	struct nbd_info_export info;

	if (!nc_option(nc->sock, NBD_OPT_GO, data, nc_info_data(data, "")))
		return false;
	do {
		if (nc_option_reply(nc->sock, &reply) != NC_GOT || (reply.type & NBD_REP_ERROR))
			return false;
		if (reply.type == NBD_REP_INFO && reply.len_bytes == sizeof(info)) {
			memcpy(&info, reply.data, sizeof(info));
			nc->size_bytes = be64_get(info.size_bytes);
			nc->flags = be16_get(info.flags);
		}
	} while (reply.type != NBD_REP_ACK);
	return true;
}

static bool negotiate(struct nc *nc)
{
	uint8_t data[64];

	if (!nc_hello(nc->sock, NBD_FIXED_NEWSTYLE | NBD_NO_ZEROES))
		return false;
	if (nc->structured &&
	    (!nc_option(nc->sock, NBD_OPT_STRUCTURED_REPLY, NULL, 0) || nc_final_reply(nc->sock) != NBD_REP_ACK ||
	     !nc_option(nc->sock, NBD_OPT_SET_META_CONTEXT, data, nc_meta_data(data, "")) ||
	     nc_final_reply(nc->sock) != NBD_REP_ACK))
		return false;
	return go(nc);
}

bool nc_open(struct nc *nc, const char *path, bool structured)
{
	*nc = (struct nc){ .sock = nc_connect(path), .structured = structured };
	if (nc->sock >= 0 && negotiate(nc))
		return true;
	nc_close(nc);
	return false;
}

void nc_close(struct nc *nc)
{
	if (nc->sock >= 0)
		close(nc->sock);
	nc->sock = -1;
}

/* ---- transmission ---- */

struct nbd_request nc_make(uint16_t type, uint16_t flags, uint64_t cookie, uint64_t off_bytes, uint32_t len_bytes)
{
	return (struct nbd_request){
		.magic = be32_of(NBD_REQUEST_MAGIC),
		.flags = be16_of(flags),
		.type = be16_of(type),
		.cookie = be64_of(cookie),
		.off_bytes = be64_of(off_bytes),
		.len_bytes = be32_of(len_bytes),
	};
}

bool nc_request(struct nc *nc, uint16_t type, uint16_t flags, uint64_t cookie, uint64_t off_bytes, uint32_t len_bytes)
{
	struct nbd_request request = nc_make(type, flags, cookie, off_bytes, len_bytes);

	return nc_send(nc->sock, &request, sizeof(request));
}

/* Takes len_bytes, of which the first room_bytes are kept. */
static enum nc_got take_data(int sock, uint32_t len_bytes, void *data, size_t room_bytes)
{
	size_t kept = len_bytes < room_bytes ? len_bytes : room_bytes;

	if (nc_recv(sock, data, kept, NC_WAIT_MS) != NC_GOT)
		return NC_CLOSED;
	return skip(sock, len_bytes - kept) ? NC_GOT : NC_CLOSED;
}

static enum nc_got take_chunk(int sock, struct nc_answer *answer, uint32_t len_bytes, void *data, size_t room_bytes)
{
	be64 off;
	be32 word;

	if (answer->type == NBD_CHUNK_OFFSET_DATA && len_bytes > sizeof(off)) {
		if (nc_recv(sock, &off, sizeof(off), NC_WAIT_MS) != NC_GOT)
			return NC_CLOSED;
		answer->off_bytes = be64_get(off);
		len_bytes -= (uint32_t)sizeof(off);
	} else if (answer->type != NBD_CHUNK_NONE && len_bytes >= sizeof(word)) {
		if (nc_recv(sock, &word, sizeof(word), NC_WAIT_MS) != NC_GOT)
			return NC_CLOSED;
		answer->error = answer->type == NBD_CHUNK_ERROR ? be32_get(word) : 0;
		len_bytes -= (uint32_t)sizeof(word);
	}
	answer->data_bytes = len_bytes;
	return take_data(sock, len_bytes, data, room_bytes);
}

enum nc_got nc_answer(struct nc *nc, struct nc_answer *answer, uint32_t simple_bytes, void *data, size_t room_bytes)
{
	struct nbd_chunk chunk;
	struct nbd_simple_reply simple;
	enum nc_got got = nc_recv(nc->sock, &simple, sizeof(simple), NC_WAIT_MS);

	if (got != NC_GOT)
		return got;
	*answer = (struct nc_answer){ .chunk = be32_get(simple.magic) == NBD_CHUNK_MAGIC };
	if (!answer->chunk) {
		answer->cookie = be64_get(simple.cookie);
		answer->error = be32_get(simple.error);
		answer->done = true;
		answer->data_bytes = answer->error ? 0 : simple_bytes;
		if (be32_get(simple.magic) != NBD_SIMPLE_REPLY_MAGIC)
			return NC_SILENT;
		return take_data(nc->sock, answer->data_bytes, data, room_bytes);
	}
	memcpy(&chunk, &simple, sizeof(simple));
	got = nc_recv(nc->sock, (uint8_t *)&chunk + sizeof(simple), sizeof(chunk) - sizeof(simple), NC_WAIT_MS);
	if (got != NC_GOT)
		return got;
	answer->cookie = be64_get(chunk.cookie);
	answer->type = be16_get(chunk.type);
	answer->done = be16_get(chunk.flags) & NBD_CHUNK_FLAG_DONE;
	return take_chunk(nc->sock, answer, be32_get(chunk.len_bytes), data, room_bytes);
}

/* The whole answer to one READ in chunks, put together. */
static int take_chunks(struct nc *nc, uint64_t off_bytes, uint32_t len_bytes, uint8_t *data)
{
	static uint8_t piece[32 << 20];
	struct nc_answer answer;
	int error = 0;

	do {
		if (nc_answer(nc, &answer, 0, piece, sizeof(piece)) != NC_GOT)
			return -1;
		if (answer.error)
			error = (int)answer.error;
		if (answer.type != NBD_CHUNK_OFFSET_DATA)
			continue;
		if (answer.off_bytes < off_bytes || answer.off_bytes - off_bytes > len_bytes ||
		    answer.data_bytes > len_bytes - (answer.off_bytes - off_bytes))
			return -1;
		memcpy(data + (answer.off_bytes - off_bytes), piece, answer.data_bytes);
	} while (!answer.done);
	return error;
}

int nc_ask(struct nc *nc, uint16_t type, uint16_t flags, uint64_t off_bytes, uint32_t len_bytes, void *data)
{
	bool reads = type == NBD_CMD_READ;
	struct nc_answer answer;

	if (!nc_request(nc, type, flags, COOKIE, off_bytes, len_bytes))
		return -1;
	if (type == NBD_CMD_WRITE && !nc_send(nc->sock, data, len_bytes))
		return -1;
	if (reads && nc->structured)
		return take_chunks(nc, off_bytes, len_bytes, data);
	if (nc_answer(nc, &answer, reads ? len_bytes : 0, reads ? data : NULL, reads ? len_bytes : 0) != NC_GOT)
		return -1;
	return answer.cookie == COOKIE && answer.done ? (int)answer.error : -1;
}
