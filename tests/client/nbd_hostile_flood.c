/* Clients that want too much, or too slowly: connections, memory, time. */
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "tests/client/nbd_hostile.h"
#include "tests/client/pattern.h"

#define MIB (1u << 20)
#define BLOCK 4096u
#define FLOOD 300
/* The server's limit for a handshake, and how much later it may notice. */
#define HANDSHAKE_MS 10000
#define HANDSHAKE_LATE_MS 3000
/* What a client that never reads may cost. The server's own limit is 32 MiB of reads and 8 MiB of input a connection. */
#define GREED_BYTES_MAX (64ull << 20)

static int64_t now_ms(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (int64_t)ts.tv_sec * 1000 + ts.tv_nsec / 1000000;
}

/* Memory of the server that is its own, in bytes; 0 if unknown, also where a sanitizer keeps most of it. */
static uint64_t server_memory(pid_t pid)
{
	unsigned long long kib = 0, space_kib = 0;
	char path[64], line[128];
	FILE *file;

	snprintf(path, sizeof(path), "/proc/%d/status", (int)pid);
	file = fopen(path, "re");
	while (file && fgets(line, sizeof(line), file)) {
		sscanf(line, "RssAnon: %llu kB", &kib);
		sscanf(line, "VmSize: %llu kB", &space_kib);
	}
	if (file)
		fclose(file);
	return space_kib < 1ull << 32 ? kib << 10 : 0;
}

/* Sends without waiting, as long as the server takes it. */
static unsigned send_what_goes(struct nc *nc, uint16_t type, uint32_t len_bytes, unsigned count)
{
	unsigned sent = 0;

	while (sent < count) {
		struct nbd_request request = nc_make(type, 0, sent, (uint64_t)(sent % 32) * MIB, len_bytes);
		struct pollfd pfd = { .fd = nc->sock, .events = POLLOUT };

		if (send(nc->sock, &request, sizeof(request), MSG_NOSIGNAL | MSG_DONTWAIT) == sizeof(request))
			sent++;
		else if (poll(&pfd, 1, 300) <= 0)
			break;
	}
	return sent;
}

/* Asks for gigabytes and reads nothing. Others are served meanwhile, and the server's memory stays within its limits. */
static enum verdict never_reads(struct bed *bed, const void *arg)
{
	bool structured = arg != NULL;
	uint64_t before = server_memory(bed->server_pid), after;
	AUTO_NC nc = { .sock = -1 };

	CHECK(bed, nc_open(&nc, bed->socket, structured), "no connection");
	send_what_goes(&nc, NBD_CMD_READ, 4 * MIB, 20000);
	CHECK(bed, nbd_is_healthy(bed), "meanwhile: %s", bed->why);
	after = server_memory(bed->server_pid);
	CHECK(bed, after < before + GREED_BYTES_MAX, "the server has grown by %llu MiB",
	      (unsigned long long)(after - before) >> 20);
	return PASS;
}

/* Thousands of small requests before the first answer is read: all are answered, each once. */
static enum verdict reads_late(struct bed *bed, const void *arg)
{
	static bool answered[20000];
	AUTO_NC nc = { .sock = -1 };
	unsigned sent;

	CHECK(bed, nc_open(&nc, bed->socket, false), "no connection");
	memset(answered, 0, sizeof(answered));
	sent = send_what_goes(&nc, NBD_CMD_READ, BLOCK, 20000);
	CHECK(bed, sent > 100, "only %u requests are taken", sent);
	for (unsigned i = 0; i < sent; i++) {
		struct nc_answer answer;

		CHECK(bed, nc_answer(&nc, &answer, BLOCK, NULL, 0) == NC_GOT && answer.error == 0,
		      "%u of %u are answered", i, sent);
		CHECK(bed, answer.cookie < sent && !answered[answer.cookie], "one is answered twice");
		answered[answer.cookie] = true;
	}
	return PASS;
}

/* Leaves with requests in flight, again and again. */
static enum verdict leaves_in_flight(struct bed *bed, const void *arg)
{
	static const uint8_t data[65536];

	for (unsigned round = 0; round < 200; round++) {
		AUTO_NC nc = { .sock = -1 };

		CHECK(bed, nc_open(&nc, bed->socket, round % 2), "no connection");
		for (unsigned i = 0; i < 32; i++) {
			uint16_t type = (uint16_t)(i % 8 == NBD_CMD_DISC ? 0 : i % 8);

			nc_request(&nc, type, 0, i, (uint64_t)i * MIB, type == NBD_CMD_FLUSH ? 0 : sizeof(data));
			if (type == NBD_CMD_WRITE)
				(void)!send(nc.sock, data, sizeof(data), MSG_NOSIGNAL);
		}
	}
	return PASS;
}

/* More connections than there may be; those beyond are closed at once, and when all have left others are served. */
static enum verdict flood(struct bed *bed, const void *arg)
{
	static int socks[FLOOD];
	int closed = 0;

	for (int i = 0; i < FLOOD; i++)
		socks[i] = nc_connect(bed->socket);
	for (int i = 0; i < FLOOD; i++) {
		struct nbd_greeting greeting;

		if (socks[i] < 0 || nc_recv(socks[i], &greeting, sizeof(greeting), NC_WAIT_MS) != NC_GOT)
			closed++;
	}
	for (int i = 0; i < FLOOD; i++) {
		if (socks[i] >= 0)
			close(socks[i]);
	}
	CHECK(bed, closed > 0, "%d connections are taken", FLOOD);
	CHECK(bed, closed < FLOOD, "none is taken");
	for (int tries = 0; tries < 100 && !nbd_is_healthy(bed); tries++)
		usleep(20000);
	return PASS;
}

/* How a slow client begins. */
static bool begin_slowly(struct bed *bed, int sock, int way)
{
	switch (way) {
	case 0: return true;
	case 1: return nc_hello(sock, NBD_FIXED_NEWSTYLE | NBD_NO_ZEROES);
	case 2: return nc_hello(sock, NBD_FIXED_NEWSTYLE) && nc_option_lying(sock, NBD_OPT_GO, 6, "\0\0\0", 3);
	default: return nc_hello(sock, NBD_FIXED_NEWSTYLE);
	}
}

#define SLOW_WAYS 4

/* Handshakes that never end: silent from the start, half way, within an option, and with an option a second. */
static enum verdict slow_handshakes(struct bed *bed, const void *arg)
{
	int64_t start_ms = now_ms();
	int socks[SLOW_WAYS], open_count = SLOW_WAYS;
	bool early = false;

	for (int way = 0; way < SLOW_WAYS; way++) {
		socks[way] = nc_connect(bed->socket);
		CHECK(bed, socks[way] >= 0 && begin_slowly(bed, socks[way], way), "no connection");
	}
	while (open_count > 0 && now_ms() < start_ms + HANDSHAKE_MS + HANDSHAKE_LATE_MS) {
		if (socks[SLOW_WAYS - 1] >= 0)
			nc_option(socks[SLOW_WAYS - 1], NBD_OPT_LIST, NULL, 0);
		for (int way = 0; way < SLOW_WAYS; way++) {
			if (socks[way] < 0 || !nc_is_closed(socks[way], 100))
				continue;
			early |= now_ms() < start_ms + HANDSHAKE_MS - 500;
			close(socks[way]);
			socks[way] = -1;
			open_count--;
		}
		usleep(200000);
	}
	for (int way = 0; way < SLOW_WAYS; way++) {
		if (socks[way] >= 0)
			close(socks[way]);
	}
	CHECK(bed, open_count == 0, "%d handshakes may go on after %lld ms", open_count,
	      (long long)(now_ms() - start_ms));
	CHECK(bed, !early, "one is ended early");
	return PASS;
}

const struct test nbd_flood_tests[] = {
	{ "a reader that never reads", never_reads, NULL },
	{ "a reader of chunks that never reads", never_reads, "" },
	{ "a reader that reads late", reads_late, NULL },
	{ "leaving with requests in flight", leaves_in_flight, NULL },
	{ "a flood of connections", flood, NULL },
	{ "slow handshakes", slow_handshakes, NULL },
	{ 0 },
};
