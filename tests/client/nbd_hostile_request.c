/* Requests that are wrong, half, out of order, or too many. */
#include <poll.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "tests/client/nbd_hostile.h"
#include "tests/client/pattern.h"

#define MIB (1u << 20)
#define BLOCK 4096u

static bool open_any(struct bed *bed, struct nc *nc)
{
	if (nc_open(nc, bed->socket, pattern_random(&bed->random) % 2))
		return true;
	bed_fail(bed, "no connection");
	return false;
}

/* The connection still takes a good request, so it has not lost its place. */
static bool in_step(struct nc *nc)
{
	static uint8_t data[BLOCK];

	return nc_ask(nc, NBD_CMD_READ, 0, 0, BLOCK, data) == 0;
}

static enum verdict wrong_magic(struct bed *bed, const void *arg)
{
	AUTO_NC nc = { .sock = -1 };
	struct nbd_request request = nc_make(NBD_CMD_READ, 0, 1, 0, BLOCK);

	CHECK(bed, open_any(bed, &nc), "no connection");
	request.magic = be32_of(NBD_SIMPLE_REPLY_MAGIC);
	nc_send(nc.sock, &request, sizeof(request));
	CHECK(bed, nc_is_closed(nc.sock, NC_WAIT_MS), "it is taken");
	return PASS;
}

static enum verdict unknown_commands(struct bed *bed, const void *arg)
{
	AUTO_NC nc = { .sock = -1 };

	CHECK(bed, open_any(bed, &nc), "no connection");
	for (uint32_t type = NBD_CMD_BLOCK_STATUS + 1; type <= UINT16_MAX; type += 1 + type / 3) {
		int error = nc_ask(&nc, (uint16_t)type, 0, 0, BLOCK, NULL);

		CHECK(bed, error == NBD_EINVAL, "command %u answers %d", type, error);
	}
	CHECK(bed, in_step(&nc), "the connection is lost");
	return PASS;
}

static enum verdict unknown_flags(struct bed *bed, const void *arg)
{
	static uint8_t data[BLOCK];
	AUTO_NC nc = { .sock = -1 };

	CHECK(bed, open_any(bed, &nc), "no connection");
	for (uint32_t type = 0; type <= NBD_CMD_BLOCK_STATUS; type++) {
		for (unsigned bit = 5; type != NBD_CMD_DISC && bit < 16; bit++) {
			int error = nc_ask(&nc, (uint16_t)type, (uint16_t)(1u << bit), 0, BLOCK, data);

			CHECK(bed, error == NBD_EINVAL, "command %u with flag %u answers %d", type, bit, error);
		}
	}
	CHECK(bed, in_step(&nc), "the connection is lost");
	return PASS;
}

/* Offsets and lengths around every edge: the answer is an error, and the connection keeps its place. */
static enum verdict beyond_the_end(struct bed *bed, const void *arg)
{
	static const uint16_t types[] = { NBD_CMD_READ,  NBD_CMD_WRITE,        NBD_CMD_TRIM,
					  NBD_CMD_CACHE, NBD_CMD_WRITE_ZEROES, NBD_CMD_BLOCK_STATUS };
	static uint8_t data[2 * MIB];
	AUTO_NC nc = { .sock = -1 };

	CHECK(bed, open_any(bed, &nc), "no connection");
	uint64_t offsets[] = { nc.size_bytes,    nc.size_bytes - 512,  nc.size_bytes + 512, 1ull << 63,
			       UINT64_MAX - 511, UINT64_MAX - MIB + 1, INT64_MAX - 511,     1ull << 50 };

	for (size_t i = 0; i < sizeof(types) / sizeof(types[0]); i++) {
		for (size_t j = 0; j < sizeof(offsets) / sizeof(offsets[0]); j++) {
			for (uint32_t len = 1024; len <= MIB; len <<= 5) {
				int error = nc_ask(&nc, types[i], 0, offsets[j], len, data);

				CHECK(bed, error == NBD_EINVAL || error == NBD_ENOSPC,
				      "command %u of %u bytes at %llx answers %d", types[i], len,
				      (unsigned long long)offsets[j], error);
			}
		}
	}
	CHECK(bed, in_step(&nc), "the connection is lost");
	return PASS;
}

static enum verdict misaligned(struct bed *bed, const void *arg)
{
	static const uint16_t types[] = { NBD_CMD_READ,  NBD_CMD_WRITE,        NBD_CMD_TRIM,
					  NBD_CMD_CACHE, NBD_CMD_WRITE_ZEROES, NBD_CMD_BLOCK_STATUS };
	static uint8_t data[BLOCK];
	AUTO_NC nc = { .sock = -1 };

	CHECK(bed, open_any(bed, &nc), "no connection");
	for (size_t i = 0; i < sizeof(types) / sizeof(types[0]); i++) {
		for (uint32_t by = 1; by < 512; by *= 3) {
			CHECK(bed, nc_ask(&nc, types[i], 0, by, 512, data) == NBD_EINVAL, "command %u at %u is taken",
			      types[i], by);
			CHECK(bed, nc_ask(&nc, types[i], 0, 0, by, data) == NBD_EINVAL, "command %u of %u is taken",
			      types[i], by);
		}
	}
	CHECK(bed, in_step(&nc), "the connection is lost");
	return PASS;
}

static enum verdict of_no_length(struct bed *bed, const void *arg)
{
	AUTO_NC nc = { .sock = -1 };

	CHECK(bed, open_any(bed, &nc), "no connection");
	for (uint32_t type = 0; type <= NBD_CMD_WRITE_ZEROES; type++) {
		if (type != NBD_CMD_DISC)
			CHECK(bed, nc_ask(&nc, (uint16_t)type, 0, 0, 0, NULL) == 0, "command %u of no length fails", type);
	}
	CHECK(bed, nc_ask(&nc, NBD_CMD_BLOCK_STATUS, 0, 0, 0, NULL) == NBD_EINVAL, "the status of nothing is told");
	CHECK(bed, nc_ask(&nc, NBD_CMD_FLUSH, 0, BLOCK, BLOCK, NULL) == NBD_EINVAL, "a flush of a range is taken");
	CHECK(bed, in_step(&nc), "the connection is lost");
	return PASS;
}

/* Reads and writes of more than 32 MiB; the data of the writes is really sent, and skipped. */
static enum verdict too_long(struct bed *bed, const void *arg)
{
	static uint8_t data[(32u << 20) + 512];
	AUTO_NC nc = { .sock = -1 };
	int error;

	CHECK(bed, open_any(bed, &nc), "no connection");
	error = nc_ask(&nc, NBD_CMD_WRITE, 0, 0, sizeof(data), data);
	CHECK(bed, error == NBD_EINVAL, "a write of more than 32 MiB answers %d", error);
	error = nc_ask(&nc, NBD_CMD_READ, 0, 0, 0xfffffe00, data);
	CHECK(bed, error == NBD_EINVAL || error == NBD_EOVERFLOW, "a read of 4 GiB answers %d", error);
	error = nc_ask(&nc, NBD_CMD_READ, 0, 0, sizeof(data), data);
	CHECK(bed, error == NBD_EINVAL || error == NBD_EOVERFLOW, "a read of more than 32 MiB answers %d", error);
	CHECK(bed, nc_ask(&nc, NBD_CMD_READ, 0, 0, 32u << 20, data) == 0, "a read of 32 MiB fails");
	CHECK(bed, in_step(&nc), "the connection is lost");
	return PASS;
}

/* A write of 4 GiB of which little comes. */
static enum verdict endless_write(struct bed *bed, const void *arg)
{
	static const uint8_t data[MIB];
	AUTO_NC nc = { .sock = -1 };

	CHECK(bed, open_any(bed, &nc), "no connection");
	nc_request(&nc, NBD_CMD_WRITE, 0, 1, 0, 0xffffffff);
	for (int i = 0; i < 8; i++)
		CHECK(bed, nc_send(nc.sock, data, sizeof(data)), "it is closed early");
	return PASS;
}

struct extents {
	struct nbd_extent extent[4096];
};

/* Block status of nearly 4 GiB: lengths add up to no more than was asked for. */
static enum verdict status_of_4_gib(struct bed *bed, const void *arg)
{
	static struct extents found;
	struct nc_answer answer;
	uint64_t sum = 0;
	AUTO_NC nc = { .sock = -1 };

	CHECK(bed, nc_open(&nc, bed->socket, true), "no connection");
	if (nc.size_bytes < 5ull << 30)
		return bed_skip(bed, "the volume is smaller than 5 GiB");
	for (int one = 0; one <= 1; one++) {
		nc_request(&nc, NBD_CMD_BLOCK_STATUS, one ? NBD_CMD_FLAG_REQ_ONE : 0, 1, 512, 0xfffffe00);
		CHECK(bed, nc_answer(&nc, &answer, 0, &found, sizeof(found)) == NC_GOT, "no answer");
		CHECK(bed,
		      answer.type == NBD_CHUNK_BLOCK_STATUS && answer.data_bytes >= 8 && answer.data_bytes % 8 == 0,
		      "no status");
		CHECK(bed, !one || answer.data_bytes == 8, "more than one extent");
		sum = 0;
		for (uint32_t i = 0; i < answer.data_bytes / 8 && i < 4096; i++)
			sum += be32_get(found.extent[i].len_bytes);
		CHECK(bed, sum > 0 && sum <= 0xfffffe00, "%llu bytes are told", (unsigned long long)sum);
	}
	CHECK(bed, nc_ask(&nc, NBD_CMD_BLOCK_STATUS, 0, 0, 0xffffffff, NULL) == NBD_EINVAL, "an odd length is taken");
	CHECK(bed, in_step(&nc), "the connection is lost");
	return PASS;
}

static enum verdict status_without_context(struct bed *bed, const void *arg)
{
	AUTO_NC nc = { .sock = -1 };

	CHECK(bed, nc_open(&nc, bed->socket, false), "no connection");
	CHECK(bed, nc_ask(&nc, NBD_CMD_BLOCK_STATUS, 0, 0, BLOCK, NULL) == NBD_EINVAL, "it is told");
	CHECK(bed, in_step(&nc), "the connection is lost");
	return PASS;
}

/* Leaves within the data of a write, at every power of two. */
static enum verdict half_writes(struct bed *bed, const void *arg)
{
	static const uint8_t data[4 * MIB];

	for (uint32_t part = 1; part < sizeof(data); part *= 2) {
		AUTO_NC nc = { .sock = -1 };

		CHECK(bed, open_any(bed, &nc), "no connection");
		nc_request(&nc, NBD_CMD_WRITE, 0, 1, 0, sizeof(data));
		CHECK(bed, nc_send(nc.sock, data, part), "it is closed early");
	}
	return PASS;
}

/* A request is cut anywhere, and its parts come late. */
static enum verdict in_small_parts(struct bed *bed, const void *arg)
{
	uint8_t message[sizeof(struct nbd_request) + 512], found[512];
	struct nbd_request request = nc_make(NBD_CMD_WRITE, 0, 1, 8 * MIB, 512);
	struct nc_answer answer;
	AUTO_NC nc = { .sock = -1 };

	CHECK(bed, open_any(bed, &nc), "no connection");
	memcpy(message, &request, sizeof(request));
	for (size_t i = 0; i < 512; i++)
		message[sizeof(request) + i] = (uint8_t)pattern_random(&bed->random);
	for (size_t i = 0; i < sizeof(message); i += 3) {
		CHECK(bed, nc_send(nc.sock, message + i, sizeof(message) - i < 3 ? sizeof(message) - i : 3),
		      "it is closed");
		usleep(500);
	}
	CHECK(bed, nc_answer(&nc, &answer, 0, NULL, 0) == NC_GOT && answer.error == 0, "it is not understood");
	CHECK(bed, nc_ask(&nc, NBD_CMD_READ, 0, 8 * MIB, 512, found) == 0, "it cannot be read");
	CHECK(bed, memcmp(found, message + sizeof(request), 512) == 0, "it is not what was sent");
	return PASS;
}

#define OVERLAPS 64
#define OVERLAP_BYTES (2 * BLOCK)

/* Writes to one place, all in flight at once: afterwards it holds one of them, whole. */
static enum verdict overlapping_writes(struct bed *bed, const void *arg)
{
	static uint8_t data[OVERLAP_BYTES], found[OVERLAP_BYTES];
	struct nc_answer answer;
	AUTO_NC nc = { .sock = -1 };

	CHECK(bed, open_any(bed, &nc), "no connection");
	for (unsigned round = 0; round < 20; round++) {
		for (unsigned i = 0; i < OVERLAPS; i++) {
			memset(data, (int)i + 1, sizeof(data));
			nc_request(&nc, NBD_CMD_WRITE, 0, i, 16 * MIB, sizeof(data));
			CHECK(bed, nc_send(nc.sock, data, sizeof(data)), "it is closed");
		}
		for (unsigned i = 0; i < OVERLAPS; i++)
			CHECK(bed, nc_answer(&nc, &answer, 0, NULL, 0) == NC_GOT && answer.error == 0, "a write fails");
		CHECK(bed, nc_ask(&nc, NBD_CMD_READ, 0, 16 * MIB, sizeof(found), found) == 0, "it cannot be read");
		CHECK(bed, found[0] > 0 && memcmp(found, found + 1, sizeof(found) - 1) == 0, "writes are mixed");
	}
	return PASS;
}

static enum verdict same_cookie(struct bed *bed, const void *arg)
{
	struct nc_answer answer;
	AUTO_NC nc = { .sock = -1 };

	CHECK(bed, nc_open(&nc, bed->socket, false), "no connection");
	for (unsigned i = 0; i < 100; i++)
		CHECK(bed, nc_request(&nc, NBD_CMD_READ, 0, 42, i * BLOCK, BLOCK), "it is closed");
	for (unsigned i = 0; i < 100; i++)
		CHECK(bed, nc_answer(&nc, &answer, BLOCK, NULL, 0) == NC_GOT && answer.cookie == 42,
		      "an answer is missing");
	return PASS;
}

/* What is in flight is answered before the connection is closed. */
static enum verdict last_words(struct bed *bed, const void *arg)
{
	bool half_close = arg != NULL;
	struct nc_answer answer;
	AUTO_NC nc = { .sock = -1 };

	CHECK(bed, nc_open(&nc, bed->socket, false), "no connection");
	for (unsigned i = 0; i < 100; i++)
		CHECK(bed, nc_request(&nc, NBD_CMD_READ, 0, i, i * BLOCK, BLOCK), "it is closed");
	if (half_close)
		shutdown(nc.sock, SHUT_WR);
	else
		nc_request(&nc, NBD_CMD_DISC, 0, 0, 0, 0);
	for (unsigned i = 0; i < 100; i++)
		CHECK(bed, nc_answer(&nc, &answer, BLOCK, NULL, 0) == NC_GOT && answer.error == 0,
		      "answer %u is missing", i);
	CHECK(bed, nc_is_closed(nc.sock, NC_WAIT_MS), "it is not closed");
	return PASS;
}

static void bend(struct bed *bed, struct nbd_request *request)
{
	uint8_t *bytes = (uint8_t *)request;

	/* Not the magic, most of the time: there would be nothing more to see. */
	for (unsigned changes = pattern_random(&bed->random) % 4; changes > 0; changes--) {
		size_t at = pattern_random(&bed->random) % 32
				    ? 4 + pattern_random(&bed->random) % (sizeof(*request) - 4)
				    : pattern_random(&bed->random) % sizeof(*request);

		bytes[at] ^= (uint8_t)(1u << pattern_random(&bed->random) % 8);
	}
}

/* Requests of all kinds with bits flipped, data of any length behind them, and nobody reads the answers. */
static enum verdict random_requests(struct bed *bed, const void *arg)
{
	static const uint8_t data[65536];

	for (unsigned round = 0; round < bed->rounds; round++) {
		AUTO_NC nc = { .sock = -1 };

		CHECK(bed, open_any(bed, &nc), "no connection");
		for (unsigned i = 0; i < 64; i++) {
			uint64_t random = pattern_random(&bed->random);
			struct nbd_request request = nc_make((uint16_t)(random % 9), (uint16_t)(random >> 8 & 31),
							     random, random >> 16 & 0xffffe00,
							     (uint32_t)(random >> 40 & 0x1fe00));

			bend(bed, &request);
			if (send(nc.sock, &request, sizeof(request), MSG_NOSIGNAL | MSG_DONTWAIT) < 0)
				break;
			if (random % 9 == NBD_CMD_WRITE)
				(void)!send(nc.sock, data, random >> 40 & 0xfe00, MSG_NOSIGNAL | MSG_DONTWAIT);
		}
	}
	return PASS;
}

const struct test nbd_request_tests[] = {
	{ "a wrong request magic", wrong_magic, NULL },
	{ "unknown commands", unknown_commands, NULL },
	{ "unknown flags", unknown_flags, NULL },
	{ "ranges beyond the end, and that wrap", beyond_the_end, NULL },
	{ "misaligned ranges", misaligned, NULL },
	{ "requests of no length", of_no_length, NULL },
	{ "reads and writes of more than 32 MiB", too_long, NULL },
	{ "a write of 4 GiB that never ends", endless_write, NULL },
	{ "block status near 2^32", status_of_4_gib, NULL },
	{ "block status without a context", status_without_context, NULL },
	{ "leaving within the data of a write", half_writes, NULL },
	{ "a request in small parts", in_small_parts, NULL },
	{ "overlapping writes", overlapping_writes, NULL },
	{ "one cookie for all", same_cookie, NULL },
	{ "DISC with requests in flight", last_words, NULL },
	{ "half a close with requests in flight", last_words, "" },
	{ "random requests", random_requests, NULL },
	{ 0 },
};
