/* Handshakes that are wrong in every way the protocol has. */
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "tests/client/nbd_hostile.h"
#include "tests/client/pattern.h"

#define GOOD_FLAGS (NBD_FIXED_NEWSTYLE | NBD_NO_ZEROES)
#define OPTION_MOST 65536u

/* A connection that has said hello with these flags, or -1. */
static int hello(struct bed *bed, uint32_t flags)
{
	int sock = nc_connect(bed->socket);

	if (sock >= 0 && nc_hello(sock, flags))
		return sock;
	if (sock >= 0)
		close(sock);
	bed_fail(bed, "no greeting");
	return -1;
}

/* The same, with structured replies. */
static int structured_hello(struct bed *bed)
{
	int sock = hello(bed, GOOD_FLAGS);

	if (sock >= 0 && (!nc_option(sock, NBD_OPT_STRUCTURED_REPLY, NULL, 0) || nc_final_reply(sock) != NBD_REP_ACK)) {
		close(sock);
		return -1;
	}
	return sock;
}

/* The connection is still good for a handshake. */
static bool goes_on(int sock)
{
	uint8_t data[64];

	return nc_option(sock, NBD_OPT_GO, data, nc_info_data(data, "")) && nc_final_reply(sock) == NBD_REP_ACK;
}

static enum verdict unknown_client_flags(struct bed *bed, const void *arg)
{
	for (unsigned bit = 2; bit < 32; bit += 5) {
		AUTO_FD sock = hello(bed, GOOD_FLAGS | 1u << bit);

		CHECK(bed, sock >= 0, "no greeting");
		CHECK(bed, nc_is_closed(sock, NC_WAIT_MS), "flag %u is taken", bit);
	}
	return PASS;
}

static enum verdict options_without_fixed_newstyle(struct bed *bed, const void *arg)
{
	static const uint32_t options[] = {
		NBD_OPT_ABORT, NBD_OPT_LIST, NBD_OPT_STARTTLS, NBD_OPT_INFO, NBD_OPT_GO, 99
	};

	for (size_t i = 0; i < sizeof(options) / sizeof(options[0]); i++) {
		AUTO_FD sock = hello(bed, 0);
		uint8_t data[64];

		CHECK(bed, sock >= 0, "no greeting");
		nc_option(sock, options[i], data, nc_info_data(data, ""));
		CHECK(bed, nc_is_closed(sock, NC_WAIT_MS), "option %u is taken", options[i]);
	}
	return PASS;
}

static enum verdict export_name_in_old_ways(struct bed *bed, const void *arg)
{
	for (uint32_t flags = 0; flags <= GOOD_FLAGS; flags++) {
		size_t want = flags & NBD_NO_ZEROES ? offsetof(struct nbd_export_name_reply, zeroes)
						    : sizeof(struct nbd_export_name_reply);
		struct nc nc = { .sock = hello(bed, flags) };
		AUTO_FD sock = nc.sock;
		uint8_t reply[256];

		CHECK(bed, sock >= 0, "no greeting");
		nc_option(sock, NBD_OPT_EXPORT_NAME, NULL, 0);
		CHECK(bed, nc_recv(sock, reply, want, NC_WAIT_MS) == NC_GOT, "flags %u: no reply", flags);
		CHECK(bed, nc_ask(&nc, NBD_CMD_FLUSH, 0, 0, 0, NULL) == 0, "flags %u: the reply is too long", flags);
	}
	return PASS;
}

static enum verdict wrong_export_names(struct bed *bed, const void *arg)
{
	static const uint32_t lengths[] = { 1, 255, 4096, 4097, OPTION_MOST };
	static uint8_t name[OPTION_MOST];

	memset(name, 'x', sizeof(name));
	for (size_t i = 0; i < sizeof(lengths) / sizeof(lengths[0]); i++) {
		AUTO_FD sock = hello(bed, GOOD_FLAGS);

		CHECK(bed, sock >= 0, "no greeting");
		nc_option(sock, NBD_OPT_EXPORT_NAME, name, lengths[i]);
		CHECK(bed, nc_is_closed(sock, NC_WAIT_MS), "a name of %u bytes is taken", lengths[i]);
	}
	return PASS;
}

static enum verdict wrong_option_magic(struct bed *bed, const void *arg)
{
	static const uint8_t bytes[64] = "IHAVEOPTIONS";
	AUTO_FD sock = hello(bed, GOOD_FLAGS);

	CHECK(bed, sock >= 0, "no greeting");
	nc_send(sock, bytes, sizeof(bytes));
	CHECK(bed, nc_is_closed(sock, NC_WAIT_MS), "it is taken");
	return PASS;
}

/* Lengths up to 4 GiB: the server does not wait for the data. */
static enum verdict endless_options(struct bed *bed, const void *arg)
{
	static const uint32_t lengths[] = { OPTION_MOST + 1, 1u << 24, 0x7fffffff, 0x80000000, 0xfffffff0, 0xffffffff };

	for (uint32_t option = 1; option <= 11; option++) {
		for (size_t i = 0; i < sizeof(lengths) / sizeof(lengths[0]); i++) {
			AUTO_FD sock = hello(bed, GOOD_FLAGS);

			CHECK(bed, sock >= 0, "no greeting");
			nc_option_lying(sock, option, lengths[i], "abcdefgh", 8);
			CHECK(bed, nc_is_closed(sock, NC_WAIT_MS), "option %u waits for %u bytes", option, lengths[i]);
		}
	}
	return PASS;
}

static enum verdict unknown_options(struct bed *bed, const void *arg)
{
	static const uint32_t options[] = { 0, 4, 11, 12, 255, 0x7fffffff, 0xffffffff };
	static uint8_t data[OPTION_MOST];
	AUTO_FD sock = hello(bed, GOOD_FLAGS);

	CHECK(bed, sock >= 0, "no greeting");
	for (size_t i = 0; i < sizeof(options) / sizeof(options[0]); i++) {
		nc_option(sock, options[i], data, i % 2 ? sizeof(data) : 0);
		CHECK(bed, nc_final_reply(sock) == NBD_REP_ERR_UNSUP, "option %u is not ERR_UNSUP", options[i]);
	}
	CHECK(bed, goes_on(sock), "the handshake does not go on");
	return PASS;
}

static enum verdict data_where_none_belongs(struct bed *bed, const void *arg)
{
	static const uint32_t options[] = { NBD_OPT_LIST, NBD_OPT_STRUCTURED_REPLY };
	static uint8_t data[OPTION_MOST];
	AUTO_FD sock = hello(bed, GOOD_FLAGS);

	CHECK(bed, sock >= 0, "no greeting");
	for (size_t i = 0; i < 4; i++) {
		nc_option(sock, options[i % 2], data, i < 2 ? 1 : sizeof(data));
		CHECK(bed, nc_final_reply(sock) == NBD_REP_ERR_INVALID, "option %u is taken", options[i % 2]);
	}
	CHECK(bed, goes_on(sock), "the handshake does not go on");
	return PASS;
}

/* INFO, GO and the two of META_CONTEXT, cut short at each byte, and one too long. */
static enum verdict options_shorter_than_said(struct bed *bed, const void *arg)
{
	static const uint32_t options[] = { NBD_OPT_INFO, NBD_OPT_GO, NBD_OPT_LIST_META_CONTEXT,
					    NBD_OPT_SET_META_CONTEXT };

	for (size_t i = 0; i < sizeof(options) / sizeof(options[0]); i++) {
		uint8_t data[128] = { 0 };
		size_t right = i < 2 ? nc_info_data(data, "") : nc_meta_data(data, "");
		AUTO_FD sock = structured_hello(bed);

		CHECK(bed, sock >= 0, "no greeting");
		for (size_t len = 0; len <= right + 1; len++) {
			if (len == right)
				continue;
			nc_option(sock, options[i], data, len);
			CHECK(bed, nc_final_reply(sock) == NBD_REP_ERR_INVALID, "option %u of %zu bytes is taken",
			      options[i], len);
		}
		CHECK(bed, goes_on(sock), "the handshake does not go on");
	}
	return PASS;
}

/* Puts the lie at a place of an otherwise good option. */
static enum verdict tell_lie(struct bed *bed, uint32_t option, size_t at, uint32_t lie)
{
	uint8_t data[128] = { 0 };
	be32 wire = be32_of(lie);
	size_t len = option >= NBD_OPT_LIST_META_CONTEXT ? nc_meta_data(data, "") : nc_info_data(data, "");
	AUTO_FD sock = structured_hello(bed);

	CHECK(bed, sock >= 0, "no greeting");
	memcpy(data + at, &wire, sizeof(wire));
	nc_option(sock, option, data, len);
	CHECK(bed, nc_final_reply(sock) == NBD_REP_ERR_INVALID, "option %u: %u at byte %zu is taken", option, lie, at);
	CHECK(bed, goes_on(sock), "the handshake does not go on");
	return PASS;
}

/* Lengths inside an option that reach beyond it: of the name, and the number of queries and the length of the first. */
static enum verdict lengths_that_lie(struct bed *bed, const void *arg)
{
	static const uint32_t lies[] = { 200, 4096, 4097, 0x7fffffff, 0x80000000, 0xfffffffa, 0xffffffff };
	static const struct {
		uint32_t option;
		size_t at;
	} places[] = { { NBD_OPT_INFO, 0 },
		       { NBD_OPT_GO, 0 },
		       { NBD_OPT_LIST_META_CONTEXT, 0 },
		       { NBD_OPT_LIST_META_CONTEXT, 4 },
		       { NBD_OPT_LIST_META_CONTEXT, 8 },
		       { NBD_OPT_SET_META_CONTEXT, 0 },
		       { NBD_OPT_SET_META_CONTEXT, 4 },
		       { NBD_OPT_SET_META_CONTEXT, 8 } };

	for (size_t place = 0; place < sizeof(places) / sizeof(places[0]); place++) {
		for (size_t i = 0; i < sizeof(lies) / sizeof(lies[0]); i++) {
			if (tell_lie(bed, places[place].option, places[place].at, lies[i]) != PASS)
				return FAIL;
		}
	}
	return PASS;
}

static enum verdict names_too_long(struct bed *bed, const void *arg)
{
	static uint8_t data[8192];
	be32 len = be32_of(4097);
	AUTO_FD sock = hello(bed, GOOD_FLAGS);

	CHECK(bed, sock >= 0, "no greeting");
	memcpy(data, &len, sizeof(len));
	nc_option(sock, NBD_OPT_GO, data, 4 + 4097 + 2);
	CHECK(bed, nc_final_reply(sock) == NBD_REP_ERR_TOO_BIG, "a name of 4097 bytes is taken");
	len = be32_of(4096);
	memcpy(data, &len, sizeof(len));
	nc_option(sock, NBD_OPT_GO, data, 4 + 4096 + 2);
	CHECK(bed, nc_final_reply(sock) == NBD_REP_ERR_UNKNOWN, "a name of 4096 bytes is not just unknown");
	CHECK(bed, goes_on(sock), "the handshake does not go on");
	return PASS;
}

static enum verdict meta_context_without_structured_replies(struct bed *bed, const void *arg)
{
	uint8_t data[64];
	AUTO_FD sock = hello(bed, GOOD_FLAGS);

	CHECK(bed, sock >= 0, "no greeting");
	nc_option(sock, NBD_OPT_SET_META_CONTEXT, data, nc_meta_data(data, ""));
	CHECK(bed, nc_final_reply(sock) == NBD_REP_ERR_INVALID, "it is taken");
	CHECK(bed, goes_on(sock), "the handshake does not go on");
	return PASS;
}

/* Thousands of queries, all empty: 64 KiB of nothing. */
static enum verdict queries_without_number(struct bed *bed, const void *arg)
{
	static uint8_t data[OPTION_MOST];
	be32 count = be32_of((OPTION_MOST - 8) / 4);
	AUTO_FD sock = structured_hello(bed);

	CHECK(bed, sock >= 0, "no greeting");
	memset(data, 0, sizeof(data));
	memcpy(data + 4, &count, sizeof(count));
	for (int i = 0; i < 8; i++) {
		nc_option(sock, i % 2 ? NBD_OPT_LIST_META_CONTEXT : NBD_OPT_SET_META_CONTEXT, data, sizeof(data));
		CHECK(bed, nc_final_reply(sock) == NBD_REP_ERR_TOO_BIG, "that many queries are not refused");
	}
	CHECK(bed, goes_on(sock), "the handshake does not go on");
	return PASS;
}

/* A failed SET_META_CONTEXT takes back what was selected before. */
static enum verdict context_taken_back(struct bed *bed, const void *arg)
{
	struct nc nc = { .structured = true };
	uint8_t data[64];
	AUTO_FD sock = structured_hello(bed);

	CHECK(bed, sock >= 0, "no greeting");
	nc.sock = sock;
	nc_option(sock, NBD_OPT_SET_META_CONTEXT, data, nc_meta_data(data, ""));
	CHECK(bed, nc_final_reply(sock) == NBD_REP_ACK, "no context");
	nc_option(sock, NBD_OPT_SET_META_CONTEXT, data, 3);
	CHECK(bed, nc_final_reply(sock) == NBD_REP_ERR_INVALID, "nonsense is taken");
	CHECK(bed, goes_on(sock), "the handshake does not go on");
	CHECK(bed, nc_ask(&nc, NBD_CMD_BLOCK_STATUS, 0, 0, 4096, NULL) == NBD_EINVAL, "block status is told");
	return PASS;
}

static enum verdict too_many_options(struct bed *bed, const void *arg)
{
	AUTO_FD sock = hello(bed, GOOD_FLAGS);

	CHECK(bed, sock >= 0, "no greeting");
	for (int i = 0; i < 1000; i++) {
		if (!nc_option(sock, NBD_OPT_LIST, NULL, 0) || nc_final_reply(sock) == 0)
			return PASS;
	}
	return bed_fail(bed, "a thousand options are taken");
}

static enum verdict byte_by_byte(struct bed *bed, const void *arg)
{
	uint8_t message[128];
	struct nbd_option header = { .magic = be64_of(NBD_OPTION_MAGIC), .option = be32_of(NBD_OPT_GO) };
	size_t len = nc_info_data(message + sizeof(header), "");
	AUTO_FD sock = hello(bed, GOOD_FLAGS);

	CHECK(bed, sock >= 0, "no greeting");
	header.len_bytes = be32_of((uint32_t)len);
	memcpy(message, &header, sizeof(header));
	for (size_t i = 0; i < sizeof(header) + len; i++) {
		CHECK(bed, nc_send(sock, message + i, 1), "it is closed after %zu bytes", i);
		usleep(2000);
	}
	CHECK(bed, nc_final_reply(sock) == NBD_REP_ACK, "it is not understood");
	return PASS;
}

/* A good handshake and a request, all of it sent before anything is answered. */
static enum verdict all_at_once(struct bed *bed, const void *arg)
{
	uint8_t bytes[256];
	struct nbd_option header = { .magic = be64_of(NBD_OPTION_MAGIC), .option = be32_of(NBD_OPT_GO) };
	struct nbd_request request = nc_make(NBD_CMD_READ, 0, 7, 0, 4096);
	be32 flags = be32_of(GOOD_FLAGS);
	size_t len = nc_info_data(bytes + sizeof(flags) + sizeof(header), "");
	struct nc nc = { .sock = nc_connect(bed->socket) };
	AUTO_FD sock = nc.sock;
	struct nc_answer answer;

	CHECK(bed, sock >= 0, "no connection");
	header.len_bytes = be32_of((uint32_t)len);
	memcpy(bytes, &flags, sizeof(flags));
	memcpy(bytes + sizeof(flags), &header, sizeof(header));
	len += sizeof(flags) + sizeof(header);
	memcpy(bytes + len, &request, sizeof(request));
	CHECK(bed, nc_send(sock, bytes, len + sizeof(request)), "it is closed");
	CHECK(bed, nc_recv(sock, bytes, sizeof(struct nbd_greeting), NC_WAIT_MS) == NC_GOT, "no greeting");
	CHECK(bed, nc_final_reply(sock) == NBD_REP_ACK, "no transmission");
	CHECK(bed, nc_answer(&nc, &answer, 4096, NULL, 0) == NC_GOT && answer.cookie == 7, "the request is lost");
	return PASS;
}

static enum verdict requests_before_the_end(struct bed *bed, const void *arg)
{
	struct nc nc = { .sock = hello(bed, GOOD_FLAGS) };
	AUTO_FD sock = nc.sock;

	CHECK(bed, sock >= 0, "no greeting");
	nc_request(&nc, NBD_CMD_READ, 0, 1, 0, 4096);
	CHECK(bed, nc_is_closed(sock, NC_WAIT_MS), "a request is taken for an option");
	return PASS;
}

static enum verdict abort_with_data(struct bed *bed, const void *arg)
{
	static uint8_t data[OPTION_MOST];
	AUTO_FD sock = hello(bed, GOOD_FLAGS);

	CHECK(bed, sock >= 0, "no greeting");
	nc_option(sock, NBD_OPT_ABORT, data, sizeof(data));
	CHECK(bed, nc_final_reply(sock) == NBD_REP_ACK, "ABORT is not acknowledged");
	CHECK(bed, nc_is_closed(sock, NC_WAIT_MS), "it is not closed");
	return PASS;
}

static enum verdict starttls_where_there_is_none(struct bed *bed, const void *arg)
{
	AUTO_FD sock = hello(bed, GOOD_FLAGS);

	CHECK(bed, sock >= 0, "no greeting");
	nc_option(sock, NBD_OPT_STARTTLS, NULL, 0);
	CHECK(bed, nc_final_reply(sock) == NBD_REP_ERR_POLICY, "it is not refused");
	CHECK(bed, goes_on(sock), "the handshake does not go on");
	return PASS;
}

/* Leaves after each byte of a good handshake. */
static enum verdict leaves_early(struct bed *bed, const void *arg)
{
	uint8_t bytes[128];
	struct nbd_option header = { .magic = be64_of(NBD_OPTION_MAGIC), .option = be32_of(NBD_OPT_GO) };
	be32 flags = be32_of(GOOD_FLAGS);
	size_t len = nc_info_data(bytes + sizeof(flags) + sizeof(header), "");

	header.len_bytes = be32_of((uint32_t)len);
	memcpy(bytes, &flags, sizeof(flags));
	memcpy(bytes + sizeof(flags), &header, sizeof(header));
	len += sizeof(flags) + sizeof(header);
	for (size_t cut = 0; cut <= len; cut++) {
		AUTO_FD sock = nc_connect(bed->socket);

		CHECK(bed, sock >= 0, "no connection");
		nc_send(sock, bytes, cut);
		if (cut % 2)
			shutdown(sock, SHUT_WR);
	}
	return PASS;
}

static enum verdict random_handshakes(struct bed *bed, const void *arg)
{
	for (unsigned round = 0; round < bed->rounds; round++) {
		uint64_t random = pattern_random(&bed->random);
		uint8_t data[96];
		AUTO_FD sock = hello(bed, GOOD_FLAGS);

		CHECK(bed, sock >= 0, "no greeting");
		for (size_t i = 0; i < sizeof(data); i++)
			data[i] = pattern_random(&bed->random) % 4 ? 0 : (uint8_t)pattern_random(&bed->random);
		for (int options = 0; options < 8; options++) {
			uint32_t option = (uint32_t)pattern_random(&bed->random) % 12;
			size_t len = pattern_random(&bed->random) % sizeof(data);

			nc_option_lying(sock, option, (uint32_t)(random % 8 ? len : pattern_random(&bed->random)), data,
					len);
		}
		if (random % 16 == 0)
			usleep(1000);
	}
	return PASS;
}

const struct test nbd_handshake_tests[] = {
	{ "client flags that nobody knows", unknown_client_flags, NULL },
	{ "options without fixed newstyle", options_without_fixed_newstyle, NULL },
	{ "EXPORT_NAME with and without zeroes", export_name_in_old_ways, NULL },
	{ "EXPORT_NAME with names that are not there, too long", wrong_export_names, NULL },
	{ "a wrong option magic", wrong_option_magic, NULL },
	{ "option lengths to 4 GiB", endless_options, NULL },
	{ "unknown options", unknown_options, NULL },
	{ "data where none belongs", data_where_none_belongs, NULL },
	{ "options shorter and longer than said", options_shorter_than_said, NULL },
	{ "lengths within options that lie", lengths_that_lie, NULL },
	{ "names of more than 4096 bytes", names_too_long, NULL },
	{ "meta contexts without structured replies", meta_context_without_structured_replies, NULL },
	{ "meta queries without number", queries_without_number, NULL },
	{ "a meta context taken back by a bad option", context_taken_back, NULL },
	{ "too many options", too_many_options, NULL },
	{ "a handshake byte by byte", byte_by_byte, NULL },
	{ "a handshake and a request all at once", all_at_once, NULL },
	{ "requests before the end of the handshake", requests_before_the_end, NULL },
	{ "ABORT with data", abort_with_data, NULL },
	{ "STARTTLS where there is no TLS", starttls_where_there_is_none, NULL },
	{ "leaving after each byte", leaves_early, NULL },
	{ "random options", random_handshakes, NULL },
	{ 0 },
};
