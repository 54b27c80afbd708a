/* nbd-hostile: bad NBD clients, one kind a test. After each the server must live, serve a good client, and hold no descriptor
 * more than before. */
#include "tests/client/nbd_hostile.h"

#include <string.h>
#include <unistd.h>

#include "tests/client/pattern.h"
#include "tests/client/server_proc.h"

#define HEALTH_BYTES 16384u
#define HEALTH_OFF (1u << 20)
#define SETTLE_US 10000
#define SETTLE_TRIES 500

static int fds_at_start;

static bool write_and_read_back(struct bed *bed, struct nc *nc)
{
	static uint8_t wrote[HEALTH_BYTES], found[HEALTH_BYTES];
	uint32_t seed = (uint32_t)pattern_random(&bed->random);
	int error;

	pattern_fill(wrote, HEALTH_BYTES, 1, 1, seed);
	error = nc_ask(nc, NBD_CMD_WRITE, NBD_CMD_FLAG_FUA, HEALTH_OFF, HEALTH_BYTES, wrote);
	if (error == 0)
		error = nc_ask(nc, NBD_CMD_READ, 0, HEALTH_OFF, HEALTH_BYTES, found);
	if (error != 0)
		bed_fail(bed, "a good request answered %d", error);
	else if (memcmp(wrote, found, HEALTH_BYTES) != 0)
		bed_fail(bed, "read back wrong data");
	else
		return true;
	return false;
}

bool nbd_is_healthy(struct bed *bed)
{
	AUTO_NC nc = { .sock = -1 };

	if (nc_open(&nc, bed->socket, pattern_random(&bed->random) % 2))
		return write_and_read_back(bed, &nc);
	bed_fail(bed, "no connection");
	return false;
}

static bool leaks_nothing(struct bed *bed)
{
	int found = 0;

	if (bed->server_pid == 0)
		return true;
	for (unsigned i = 0; i < SETTLE_TRIES; i++) {
		found = server_fds(bed->server_pid);
		if (found <= fds_at_start)
			return true;
		usleep(SETTLE_US);
	}
	bed_fail(bed, "leaked: the server has %d descriptors open, before the first case %d", found, fds_at_start);
	return false;
}

static enum verdict check_after(struct bed *bed, bool *bail_out)
{
	if (bed->server_pid != 0 && !server_is_alive(bed->server_pid)) {
		*bail_out = true;
		return bed_fail(bed, "the server died");
	}
	if (!nbd_is_healthy(bed))
		return bed_fail(bed, "the next good client suffers: %s", bed->why);
	return leaks_nothing(bed) ? PASS : FAIL;
}

static bool prepare(struct bed *bed)
{
	if (!nbd_is_healthy(bed))
		return false;
	if (bed->server_pid != 0) {
		usleep(SETTLE_US * 10);
		fds_at_start = server_fds(bed->server_pid);
	}
	return true;
}

int main(int argc, char **argv)
{
	static const struct test *const lists[] = {
		nbd_handshake_tests, nbd_request_tests, nbd_flood_tests, nbd_tls_tests, NULL,
	};
	static const struct tap_plan plan = {
		.program = "nbd-hostile",
		.lists = lists,
		.after = check_after,
		.before_all = prepare,
	};
	return tap_main(&plan, argc, argv);
}
