/* Ways around TLS where it is required (bed->other_socket). */
#include <string.h>
#include <unistd.h>

#include "tests/client/nbd_hostile.h"
#include "tests/client/pattern.h"

#define GOOD_FLAGS (NBD_FIXED_NEWSTYLE | NBD_NO_ZEROES)

static enum verdict need_socket(struct bed *bed)
{
	return bed->other_socket ? PASS : bed_skip(bed, "no --other-socket with TLS");
}

static int hello(struct bed *bed, uint32_t flags)
{
	int sock = nc_connect(bed->other_socket);

	if (sock >= 0 && nc_hello(sock, flags))
		return sock;
	if (sock >= 0)
		close(sock);
	return -1;
}

static enum verdict options_before_tls(struct bed *bed, const void *arg)
{
	uint8_t data[64];

	if (need_socket(bed) != PASS)
		return SKIP;
	AUTO_FD sock = hello(bed, GOOD_FLAGS);

	CHECK(bed, sock >= 0, "no greeting");
	for (uint32_t option = 3; option <= 40; option++) {
		if (option == NBD_OPT_STARTTLS)
			continue;
		nc_option(sock, option, data, nc_info_data(data, ""));
		CHECK(bed, nc_final_reply(sock) == NBD_REP_ERR_TLS_REQD, "option %u is not ERR_TLS_REQD", option);
	}
	nc_option(sock, NBD_OPT_ABORT, NULL, 0);
	CHECK(bed, nc_final_reply(sock) == NBD_REP_ACK, "ABORT is not acknowledged");
	return PASS;
}

static enum verdict export_name_before_tls(struct bed *bed, const void *arg)
{
	if (need_socket(bed) != PASS)
		return SKIP;
	for (uint32_t flags = 0; flags <= GOOD_FLAGS; flags++) {
		AUTO_FD sock = hello(bed, flags);
		uint8_t byte;

		CHECK(bed, sock >= 0, "no greeting");
		nc_option(sock, NBD_OPT_EXPORT_NAME, NULL, 0);
		CHECK(bed, nc_recv(sock, &byte, 1, NC_WAIT_MS) == NC_CLOSED, "flags %u: it is answered", flags);
	}
	return PASS;
}

static enum verdict starttls_without_fixed_newstyle(struct bed *bed, const void *arg)
{
	uint8_t byte;

	if (need_socket(bed) != PASS)
		return SKIP;
	AUTO_FD sock = hello(bed, 0);

	CHECK(bed, sock >= 0, "no greeting");
	nc_option(sock, NBD_OPT_STARTTLS, NULL, 0);
	CHECK(bed, nc_recv(sock, &byte, 1, NC_WAIT_MS) == NC_CLOSED, "it is answered");
	return PASS;
}

static enum verdict starttls_with_data(struct bed *bed, const void *arg)
{
	if (need_socket(bed) != PASS)
		return SKIP;
	AUTO_FD sock = hello(bed, GOOD_FLAGS);

	CHECK(bed, sock >= 0, "no greeting");
	nc_option(sock, NBD_OPT_STARTTLS, "x", 1);
	CHECK(bed, nc_final_reply(sock) == NBD_REP_ERR_INVALID, "it is taken");
	nc_option(sock, NBD_OPT_LIST, NULL, 0);
	CHECK(bed, nc_final_reply(sock) == NBD_REP_ERR_TLS_REQD, "the handshake does not go on");
	return PASS;
}

/* Whether anything that was received is an option reply. */
static bool has_option_reply(const uint8_t *bytes, size_t len_bytes)
{
	be64 magic = be64_of(NBD_OPTION_REPLY_MAGIC);

	for (size_t i = 0; i + sizeof(magic) <= len_bytes; i++) {
		if (memcmp(bytes + i, &magic, sizeof(magic)) == 0)
			return true;
	}
	return false;
}

/* A GO in plain text behind STARTTLS, in the same segment or after the ACK: it must have no effect, then or later. */
static enum verdict plain_text_behind_starttls(struct bed *bed, const void *arg)
{
	bool after_ack = arg != NULL;
	uint8_t bytes[256], data[64];
	struct nbd_option starttls = { .magic = be64_of(NBD_OPTION_MAGIC), .option = be32_of(NBD_OPT_STARTTLS) };
	struct nbd_option go = { .magic = be64_of(NBD_OPTION_MAGIC), .option = be32_of(NBD_OPT_GO) };
	size_t len = nc_info_data(data, ""), got = 0;

	if (need_socket(bed) != PASS)
		return SKIP;
	AUTO_FD sock = hello(bed, GOOD_FLAGS);

	CHECK(bed, sock >= 0, "no greeting");
	go.len_bytes = be32_of((uint32_t)len);
	memcpy(bytes, &starttls, sizeof(starttls));
	memcpy(bytes + sizeof(starttls), &go, sizeof(go));
	memcpy(bytes + sizeof(starttls) + sizeof(go), data, len);
	if (after_ack) {
		nc_send(sock, bytes, sizeof(starttls));
		CHECK(bed, nc_final_reply(sock) == NBD_REP_ACK, "STARTTLS is not acknowledged");
		nc_send(sock, bytes + sizeof(starttls), sizeof(go) + len);
	} else {
		nc_send(sock, bytes, sizeof(starttls) + sizeof(go) + len);
	}
	while (got < sizeof(bytes) && nc_recv(sock, bytes + got, 1, NC_WAIT_MS) == NC_GOT)
		got++;
	CHECK(bed, !has_option_reply(bytes, got), "plain text is answered");
	CHECK(bed, nc_is_closed(sock, NC_WAIT_MS), "it is not closed");
	return PASS;
}

static enum verdict garbage_for_tls(struct bed *bed, const void *arg)
{
	if (need_socket(bed) != PASS)
		return SKIP;
	for (unsigned round = 0; round < 50; round++) {
		/* Begins like a record of a handshake, every other time. */
		uint8_t bytes[600] = { 22, 3, 1, 2, 0, 1 };
		AUTO_FD sock = hello(bed, GOOD_FLAGS);

		CHECK(bed, sock >= 0, "no greeting");
		for (size_t i = round % 2 ? 6 : 0; i < sizeof(bytes); i++)
			bytes[i] = (uint8_t)pattern_random(&bed->random);
		nc_option(sock, NBD_OPT_STARTTLS, NULL, 0);
		CHECK(bed, nc_final_reply(sock) == NBD_REP_ACK, "STARTTLS is not acknowledged");
		nc_send(sock, bytes, 1 + pattern_random(&bed->random) % sizeof(bytes));
		if (round == 0) {
			nc_send(sock, bytes, sizeof(bytes));
			CHECK(bed, nc_is_closed(sock, 2 * NC_WAIT_MS), "it is not closed");
		}
	}
	return PASS;
}

static enum verdict silent_after_starttls(struct bed *bed, const void *arg)
{
	if (need_socket(bed) != PASS)
		return SKIP;
	AUTO_FD sock = hello(bed, GOOD_FLAGS);

	CHECK(bed, sock >= 0, "no greeting");
	nc_option(sock, NBD_OPT_STARTTLS, NULL, 0);
	CHECK(bed, nc_final_reply(sock) == NBD_REP_ACK, "STARTTLS is not acknowledged");
	CHECK(bed, nc_is_closed(sock, 13000), "it may go on for 13 s");
	return PASS;
}

const struct test nbd_tls_tests[] = {
	{ "TLS: options before it", options_before_tls, NULL },
	{ "TLS: EXPORT_NAME before it", export_name_before_tls, NULL },
	{ "TLS: downgrade by STARTTLS without fixed newstyle", starttls_without_fixed_newstyle, NULL },
	{ "TLS: STARTTLS with data", starttls_with_data, NULL },
	{ "TLS: plain text with STARTTLS", plain_text_behind_starttls, NULL },
	{ "TLS: plain text after STARTTLS", plain_text_behind_starttls, "" },
	{ "TLS: garbage for a handshake", garbage_for_tls, NULL },
	{ "TLS: silence after STARTTLS", silent_after_starttls, NULL },
	{ 0 },
};
