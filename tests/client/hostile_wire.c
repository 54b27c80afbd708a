/* Hostile messages: headers, sizes, order, unknown requests, configuration space, floods and storms.
 *
 * Each bad message gets a connection of its own, so that what the server remembers of one cannot hide another. */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "tests/client/hostile.h"
#include "tests/client/pattern.h"

#define FLOOD_MESSAGES 20000
#define STORM_MESSAGES_MAX 24
#define CONNECTIONS 100
#define CONNECTIONS_HELD 16

/* A negotiated session without rings. */
static struct vc *half_open(struct bed *bed)
{
	struct vc_options options = bed_options(bed);
	options.region_bytes = 2u << 20;
	return bed_connect(bed, &options);
}

/* ---- headers ---- */

static enum verdict header_is_refused(struct bed *bed, struct vu_header header)
{
	AUTO_VC vc = half_open(bed);
	CHECK(bed, vc != NULL, "%s", bed->why);
	char what[100];
	snprintf(what, sizeof(what), "request %u, flags %#x, size %u", header.request, header.flags, header.size_bytes);
	return hostile_is_refused(bed, hostile_ask_bytes(vc, &header, sizeof(header), NULL, 0), what) ? PASS : FAIL;
}

static enum verdict wrong_version(struct bed *bed, const void *arg)
{
	static const uint32_t flags[] = { 0, 2, 3, 0xfffffffc };
	(void)arg;
	for (unsigned i = 0; i < sizeof(flags) / sizeof(flags[0]); i++) {
		struct vu_header header = { .request = VU_SET_OWNER, .flags = flags[i] | VU_NEED_REPLY };
		if (header_is_refused(bed, header) != PASS)
			return FAIL;
	}
	return PASS;
}

static enum verdict reply_flag_in_request(struct bed *bed, const void *arg)
{
	(void)arg;
	struct vu_header header = { .request = VU_SET_OWNER, .flags = VU_VERSION | VU_REPLY | VU_NEED_REPLY };
	AUTO_VC vc = half_open(bed);
	CHECK(bed, vc != NULL, "%s", bed->why);
	enum answer answer = hostile_ask_bytes(vc, &header, sizeof(header), NULL, 0);
	CHECK(bed, answer != ANSWER_NONE, "neither answered nor closed");
	return PASS;
}

static enum verdict endless_size(struct bed *bed, const void *arg)
{
	static const uint32_t sizes[] = { 4097, 0x10000, 0x7fffffff, 0x80000000, 0xfffffff3, 0xffffffff };
	static const uint32_t requests[] = { VU_GET_FEATURES, VU_SET_MEM_TABLE, VU_SET_CONFIG, 77 };
	(void)arg;
	for (unsigned i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
		for (unsigned j = 0; j < sizeof(requests) / sizeof(requests[0]); j++) {
			struct vu_header header = { .request = requests[j],
						    .flags = VU_VERSION | VU_NEED_REPLY,
						    .size_bytes = sizes[i] };
			if (header_is_refused(bed, header) != PASS)
				return FAIL;
		}
	}
	return PASS;
}

/* ---- sizes ---- */

struct sized_request {
	uint32_t request;
	uint32_t size_bytes;
};

static const struct sized_request sized_requests[] = {
	{ VU_SET_FEATURES, 8 },     { VU_SET_PROTOCOL_FEATURES, 8 }, { VU_SET_MEM_TABLE, 40 },
	{ VU_SET_VRING_NUM, 8 },    { VU_SET_VRING_ADDR, 40 },       { VU_SET_VRING_BASE, 8 },
	{ VU_GET_VRING_BASE, 8 },   { VU_SET_VRING_KICK, 8 },        { VU_SET_VRING_CALL, 8 },
	{ VU_SET_VRING_ERR, 8 },    { VU_SET_VRING_ENABLE, 8 },      { VU_SET_INFLIGHT_FD, 20 },
	{ VU_GET_INFLIGHT_FD, 20 }, { VU_ADD_MEM_REG, 40 },          { VU_REM_MEM_REG, 40 },
	{ VU_GET_CONFIG, 12 },      { VU_SET_CONFIG, 12 },
};

static enum verdict wrong_size(struct bed *bed, const struct sized_request *request, uint32_t size_bytes)
{
	static const uint8_t zeroes[VU_PAYLOAD_BYTES_MAX];
	char what[100];
	AUTO_VC vc = half_open(bed);
	CHECK(bed, vc != NULL, "%s", bed->why);
	snprintf(what, sizeof(what), "request %u with a payload of %u bytes", request->request, size_bytes);
	enum answer answer = hostile_ask(vc, request->request, zeroes, size_bytes, NULL, 0);
	return hostile_is_refused(bed, answer, what) ? PASS : FAIL;
}

static enum verdict payload_too_short(struct bed *bed, const void *arg)
{
	(void)arg;
	for (unsigned i = 0; i < sizeof(sized_requests) / sizeof(sized_requests[0]); i++) {
		const struct sized_request *request = &sized_requests[i];
		uint32_t sizes[] = { 0, 1, request->size_bytes / 2, request->size_bytes - 1 };
		for (unsigned j = 0; j < sizeof(sizes) / sizeof(sizes[0]); j++) {
			if (wrong_size(bed, request, sizes[j]) != PASS)
				return FAIL;
		}
	}
	return PASS;
}

static enum verdict payload_too_long(struct bed *bed, const void *arg)
{
	(void)arg;
	for (unsigned i = 0; i < sizeof(sized_requests) / sizeof(sized_requests[0]); i++) {
		if (wrong_size(bed, &sized_requests[i], VU_PAYLOAD_BYTES_MAX) != PASS)
			return FAIL;
	}
	return PASS;
}

static enum verdict payload_where_none_belongs(struct bed *bed, const void *arg)
{
	static const uint32_t requests[] = { VU_GET_FEATURES,      VU_SET_OWNER,     VU_GET_PROTOCOL_FEATURES,
					     VU_GET_MAX_MEM_SLOTS, VU_GET_QUEUE_NUM, VU_RESET_OWNER };
	static const uint8_t zeroes[64];
	(void)arg;
	for (unsigned i = 0; i < sizeof(requests) / sizeof(requests[0]); i++) {
		AUTO_VC vc = half_open(bed);
		CHECK(bed, vc != NULL, "%s", bed->why);
		enum answer answer = hostile_ask(vc, requests[i], zeroes, sizeof(zeroes), NULL, 0);
		CHECK(bed, answer != ANSWER_NONE, "request %u: neither answered nor closed", requests[i]);
	}
	return PASS;
}

/* ---- the byte stream ---- */

static enum verdict partial_then_close(struct bed *bed, const void *arg)
{
	struct {
		struct vu_header header;
		struct vu_addr addr;
	} message = {
		.header = { .request = VU_SET_VRING_ADDR, .flags = VU_VERSION, .size_bytes = sizeof(struct vu_addr) }
	};
	(void)arg;
	for (unsigned len = 1; len < 12 + sizeof(struct vu_addr); len += 3) {
		AUTO_FD sock = vu_connect(bed->socket);
		CHECK(bed, sock >= 0, "cannot connect: %s", strerror(-sock));
		CHECK(bed, vu_send_bytes(sock, &message, len, NULL, 0) == 0, "cannot send %u bytes", len);
	}
	return PASS;
}

static enum verdict one_byte_at_a_time(struct bed *bed, const void *arg)
{
	struct vu_header header = { .request = VU_GET_FEATURES, .flags = VU_VERSION };
	struct vu_message reply;
	(void)arg;
	AUTO_FD sock = vu_connect(bed->socket);
	CHECK(bed, sock >= 0, "cannot connect: %s", strerror(-sock));
	for (unsigned i = 0; i < sizeof(header); i++) {
		CHECK(bed, vu_send_bytes(sock, (char *)&header + i, 1, NULL, 0) == 0, "closed after %u bytes", i);
		usleep(1000);
	}
	int rc = vu_receive(sock, &reply, ANSWER_WAIT_MS);
	CHECK(bed, rc == 0 && reply.header.size_bytes == 8, "not answered: %s", strerror(-rc));
	vu_close_fds(&reply);
	return PASS;
}

static enum verdict many_messages_in_one_send(struct bed *bed, const void *arg)
{
	struct vu_header header[8];
	struct vu_message reply;
	(void)arg;
	AUTO_FD sock = vu_connect(bed->socket);
	CHECK(bed, sock >= 0, "cannot connect: %s", strerror(-sock));
	for (unsigned i = 0; i < 8; i++)
		header[i] = (struct vu_header){ .request = VU_GET_FEATURES, .flags = VU_VERSION };
	CHECK(bed, vu_send_bytes(sock, header, sizeof(header), NULL, 0) == 0, "closed while sending");
	for (unsigned i = 0; i < 8; i++) {
		int rc = vu_receive(sock, &reply, ANSWER_WAIT_MS);
		CHECK(bed, rc == 0, "message %u of 8 not answered: %s", i + 1, strerror(-rc));
		vu_close_fds(&reply);
	}
	return PASS;
}

/* Requests without reading answers: the server may close or stop reading, but not fall over or block for good. */
static enum verdict flood_without_reading(struct bed *bed, const void *arg)
{
	(void)arg;
	AUTO_FD sock = vu_connect(bed->socket);
	CHECK(bed, sock >= 0, "cannot connect: %s", strerror(-sock));
	for (unsigned i = 0; i < FLOOD_MESSAGES; i++) {
		if (vu_send(sock, VU_GET_FEATURES, 0, NULL, 0, NULL, 0) < 0)
			break;
	}
	return PASS;
}

static enum verdict many_connections(struct bed *bed, const void *arg)
{
	int sock[CONNECTIONS_HELD];
	unsigned open_count = 0;
	(void)arg;
	for (unsigned i = 0; i < CONNECTIONS; i++) {
		int one = vu_connect(bed->socket);
		if (one >= 0)
			close(one);
	}
	/* Held open together: all but one wait in the listener's queue, or are turned away. */
	while (open_count < CONNECTIONS_HELD) {
		sock[open_count] = vu_connect(bed->socket);
		if (sock[open_count] < 0)
			break;
		open_count++;
	}
	usleep(50000);
	for (unsigned i = 0; i < open_count; i++)
		close(sock[i]);
	return PASS;
}

/* ---- requests ---- */

static enum verdict unknown_requests(struct bed *bed, const void *arg)
{
	static const uint32_t requests[] = { 0,   19,      20,      23,         26,         27,        33, 35,
					     39,  40,      41,      44,         45,         46,        63, 127,
					     255, 256 + 1, 0x10001, 0x7fffffff, 0x80000001, 0xffffffff };
	static const uint8_t zeroes[16];
	(void)arg;
	for (unsigned i = 0; i < sizeof(requests) / sizeof(requests[0]); i++) {
		for (uint32_t size_bytes = 0; size_bytes <= 16; size_bytes += 8) {
			AUTO_VC vc = half_open(bed);
			CHECK(bed, vc != NULL, "%s", bed->why);
			char what[100];
			snprintf(what, sizeof(what), "unknown request %u of %u bytes", requests[i], size_bytes);
			if (!hostile_is_refused(bed, hostile_ask(vc, requests[i], zeroes, size_bytes, NULL, 0), what))
				return FAIL;
		}
	}
	return PASS;
}

/* Known requests whose protocol feature was not chosen. */
static enum verdict requests_not_negotiated(struct bed *bed, const void *arg)
{
	static const uint32_t requests[] = { VU_POSTCOPY_ADVISE,   29, 30, VU_IOTLB_MSG, VU_SET_DEVICE_STATE_FD,
					     VU_CHECK_DEVICE_STATE };
	static const uint8_t zeroes[32];
	(void)arg;
	for (unsigned i = 0; i < sizeof(requests) / sizeof(requests[0]); i++) {
		AUTO_VC vc = half_open(bed);
		CHECK(bed, vc != NULL, "%s", bed->why);
		char what[100];
		snprintf(what, sizeof(what), "request %u without its protocol feature", requests[i]);
		uint32_t size_bytes = requests[i] == VU_IOTLB_MSG ? 32 : 0;
		if (!hostile_is_refused(bed, hostile_ask(vc, requests[i], zeroes, size_bytes, NULL, 0), what))
			return FAIL;
	}
	return PASS;
}

static enum verdict features_not_offered(struct bed *bed, const void *arg)
{
	static const uint32_t requests[] = { VU_SET_FEATURES, VU_SET_PROTOCOL_FEATURES };
	(void)arg;
	for (unsigned i = 0; i < 2; i++) {
		AUTO_VC vc = half_open(bed);
		CHECK(bed, vc != NULL, "%s", bed->why);
		uint64_t all = UINT64_MAX;
		const char *what = i == 0 ? "SET_FEATURES of what was not offered"
					  : "SET_PROTOCOL_FEATURES of what was not offered";
		if (!hostile_is_refused(bed, hostile_ask(vc, requests[i], &all, sizeof(all), NULL, 0), what))
			return FAIL;
	}
	return PASS;
}

static enum verdict out_of_order(struct bed *bed, const void *arg)
{
	static const uint32_t requests[] = { VU_SET_VRING_ENABLE, VU_SET_VRING_NUM, VU_SET_VRING_BASE,
					     VU_GET_VRING_BASE };
	struct vu_state state = { .index = 0, .num = 1 };
	(void)arg;
	for (unsigned i = 0; i < sizeof(requests) / sizeof(requests[0]); i++) {
		AUTO_FD sock = vu_connect(bed->socket);
		CHECK(bed, sock >= 0, "cannot connect: %s", strerror(-sock));
		vu_send(sock, requests[i], VU_NEED_REPLY, &state, sizeof(state), NULL, 0);
		vu_send(sock, VU_SET_OWNER, VU_NEED_REPLY, NULL, 0, NULL, 0);
		vu_send(sock, VU_SET_OWNER, VU_NEED_REPLY, NULL, 0, NULL, 0);
		vu_send(sock, VU_RESET_OWNER, VU_NEED_REPLY, NULL, 0, NULL, 0);
		vu_send(sock, VU_RESET_DEVICE, VU_NEED_REPLY, NULL, 0, NULL, 0);
		usleep(20000);
	}
	return PASS;
}

/* ---- configuration space ---- */

struct config_access {
	uint32_t off_bytes;
	uint32_t size_bytes;
	uint32_t sent_bytes; /* of data after the config header */
};

static const struct config_access bad_accesses[] = {
	{ 0, 257, 257 },        { 256, 1, 1 },        { 255, 2, 2 },
	{ 1, 256, 256 },        { 0xffffffff, 1, 1 }, { 0xffffff00, 256, 256 },
	{ 0xfffffff0, 32, 32 }, { 0, 0xffffffff, 0 }, { 8, 0xfffffff8, 64 },
	{ 0, 256, 8 },          { 0, 8, 256 },        { 0x80000000, 8, 8 },
};

static enum verdict bad_config_access(struct bed *bed, uint32_t request, const struct config_access *access)
{
	uint8_t bytes[VU_PAYLOAD_BYTES_MAX] = { 0 };
	char what[100];
	struct vu_config config = { .off_bytes = access->off_bytes, .size_bytes = access->size_bytes };
	AUTO_VC vc = half_open(bed);
	CHECK(bed, vc != NULL, "%s", bed->why);
	memcpy(bytes, &config, VU_CONFIG_HEADER_BYTES);
	snprintf(what, sizeof(what), "request %u at %u of %u bytes with %u sent", request, access->off_bytes,
		 access->size_bytes, access->sent_bytes);
	int rc = vu_send(vc->sock, request, VU_NEED_REPLY, bytes, VU_CONFIG_HEADER_BYTES + access->sent_bytes, NULL, 0);
	struct vu_message reply;
	if (rc == 0)
		rc = vu_receive(vc->sock, &reply, ANSWER_WAIT_MS);
	CHECK(bed, rc != -ETIMEDOUT, "%s: neither answered nor closed", what);
	if (rc < 0)
		return PASS;
	vu_close_fds(&reply);
	uint64_t result;
	memcpy(&result, reply.payload, sizeof(result));
	if (request == VU_SET_CONFIG)
		CHECK(bed, reply.header.size_bytes == 8 && result != 0, "%s: accepted", what);
	else
		CHECK(bed, reply.header.size_bytes <= VU_CONFIG_HEADER_BYTES, "%s: answered with %u bytes", what,
		      reply.header.size_bytes);
	return PASS;
}

static enum verdict config_out_of_bounds(struct bed *bed, const void *arg)
{
	const uint32_t *request = arg;
	for (unsigned i = 0; i < sizeof(bad_accesses) / sizeof(bad_accesses[0]); i++) {
		if (bad_config_access(bed, *request, &bad_accesses[i]) != PASS)
			return FAIL;
	}
	return PASS;
}

static enum verdict read_only_config_is_kept(struct bed *bed, const void *arg)
{
	const uint32_t *flags = arg;
	uint64_t huge = UINT64_MAX / 512;
	uint64_t capacity;
	AUTO_VC vc = half_open(bed);
	CHECK(bed, vc != NULL, "%s", bed->why);
	uint64_t before = vc->config.capacity;
	int rc = vc_set_config(vc, 0, &huge, sizeof(huge), *flags);
	CHECK(bed, rc != 0 || *flags == VU_CONFIG_MIGRATION, "a new capacity was accepted");
	vc_disconnect(vc);
	CHECK(bed, vc_connect(vc) == 0, "%s", vc->error);
	CHECK(bed, vc_get_config(vc, 0, &capacity, sizeof(capacity)) == 0, "%s", vc->error);
	CHECK(bed, capacity == before, "the capacity changed from %llu to %llu", (unsigned long long)before,
	      (unsigned long long)capacity);
	return PASS;
}

static enum verdict strange_wce(struct bed *bed, const void *arg)
{
	uint8_t values[] = { 2, 0x80, 0xff, 1 };
	(void)arg;
	AUTO_VC vc = half_open(bed);
	CHECK(bed, vc != NULL, "%s", bed->why);
	for (unsigned i = 0; i < sizeof(values); i++) {
		int rc = vc_set_config(vc, offsetof(struct virtio_blk_config, wce), &values[i], 1, 0);
		CHECK(bed, rc != -ETIMEDOUT, "wce = %u: neither answered nor closed", values[i]);
		if (rc == -EPIPE)
			break;
	}
	return PASS;
}

/* ---- storms ---- */

static unsigned random_below(struct bed *bed, unsigned limit)
{
	return (unsigned)(pattern_random(&bed->random) % limit);
}

/* A word that is often near a limit. */
static uint64_t random_word(struct bed *bed)
{
	static const uint64_t edges[] = {
		0,      1,       2,          8,          255,         256,        4096,
		0xffff, 0x10000, 0x7fffffff, 0xffffffff, VC_GPA_BASE, UINT64_MAX, UINT64_MAX - 7
	};
	switch (random_below(bed, 4)) {
	case 0: return pattern_random(&bed->random);
	case 1: return pattern_random(&bed->random) % 65536;
	default: return edges[random_below(bed, sizeof(edges) / sizeof(edges[0]))];
	}
}

static void send_random_message(struct bed *bed, struct vc *vc, const int *fd, unsigned fds_max)
{
	uint64_t word[40];
	uint32_t sizes[] = { 0, 8, 8, 8, 16, 20, 24, 40, 40, 72, 268, random_below(bed, sizeof(word)) };
	for (unsigned i = 0; i < 40; i++)
		word[i] = random_word(bed);
	if (random_below(bed, 2) == 0) /* a ring index that may be valid, and any number beside it */
		word[0] = word[0] << 32 | random_below(bed, 2);
	uint32_t size_bytes = sizes[random_below(bed, sizeof(sizes) / sizeof(sizes[0]))];
	vu_send(vc->sock, random_below(bed, 46), random_below(bed, 2) ? VU_NEED_REPLY : 0, word, size_bytes, fd,
		random_below(bed, 3) == 0 ? random_below(bed, fds_max + 1) : 0);
}

static enum verdict random_messages(struct bed *bed, const void *arg)
{
	(void)arg;
	for (unsigned round = 0; round < bed->rounds; round++) {
		AUTO_VC vc = half_open(bed);
		CHECK(bed, vc != NULL, "round %u: %s", round, bed->why);
		if (random_below(bed, 2) == 0 && vc_start(vc) < 0)
			return bed_fail(bed, "round %u: %s", round, vc->error);
		AUTO_FD event_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
		/* Never our own socket: a server that keeps a copy of it cannot see us leave, and only we would suffer. */
		int fd[] = { vc->region[0].fd,    event_fd,     vc->region[0].fd, event_fd,
			     vc->ring[0].kick_fd, STDIN_FILENO, event_fd,         vc->region[0].fd };
		unsigned messages = 1 + random_below(bed, STORM_MESSAGES_MAX);
		for (unsigned i = 0; i < 8; i++) {
			if (fd[i] < 0)
				fd[i] = event_fd;
		}
		for (unsigned i = 0; i < messages; i++)
			send_random_message(bed, vc, fd, 8);
	}
	return PASS;
}

static const uint32_t get_config = VU_GET_CONFIG;
static const uint32_t set_config = VU_SET_CONFIG;
static const uint32_t by_guest = 0;
static const uint32_t by_migration = VU_CONFIG_MIGRATION;
static const uint32_t by_unknown_flags = 0xfffffffe;

const struct test hostile_wire_tests[] = {
	{ "message: wrong protocol version", wrong_version, NULL },
	{ "message: reply flag set in a request", reply_flag_in_request, NULL },
	{ "message: size larger than any message", endless_size, NULL },
	{ "message: payload too short", payload_too_short, NULL },
	{ "message: payload too long", payload_too_long, NULL },
	{ "message: payload where none belongs", payload_where_none_belongs, NULL },
	{ "message: cut off, then closed", partial_then_close, NULL },
	{ "message: arrives one byte at a time", one_byte_at_a_time, NULL },
	{ "message: eight in one send", many_messages_in_one_send, NULL },
	{ "message: flood without reading answers", flood_without_reading, NULL },
	{ "message: many connections", many_connections, NULL },
	{ "message: unknown requests", unknown_requests, NULL },
	{ "message: requests whose feature was not negotiated", requests_not_negotiated, NULL },
	{ "message: features that were not offered", features_not_offered, NULL },
	{ "message: out of order", out_of_order, NULL },
	{ "config: reading out of bounds", config_out_of_bounds, &get_config },
	{ "config: writing out of bounds", config_out_of_bounds, &set_config },
	{ "config: capacity written by the guest", read_only_config_is_kept, &by_guest },
	{ "config: capacity written by migration", read_only_config_is_kept, &by_migration },
	{ "config: capacity written with unknown flags", read_only_config_is_kept, &by_unknown_flags },
	{ "config: strange cache modes", strange_wce, NULL },
	{ "message: storm of random ones", random_messages, NULL },
	{ NULL, NULL, NULL },
};
