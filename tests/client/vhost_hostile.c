/* vhost-hostile: a client that does everything a client must not do, and looks whether the server minds its manners.
 *
 * The cases are in hostile_*.c; here is what follows each of them (see hostile.h). Leaks are found by comparing the
 * server's open descriptors and mappings of guest memory with what they were before the case. */
#include <string.h>
#include <unistd.h>

#include "tests/client/hostile.h"
#include "tests/client/pattern.h"
#include "tests/client/server_proc.h"

#define HEALTH_BLOCKS 8
#define HEALTH_BLOCK_BYTES 4096
#define HEALTH_FIRST_SECTOR 64
#define SETTLE_TRIES 100
#define SETTLE_US 20000
#define MEMFD_NAME "vhost-client"

static int fds_at_start;
static int mappings_at_start;
static struct vc *bystander;
static uint64_t bystander_gpa;

static bool write_and_read_back(struct bed *bed, struct vc *vc, uint64_t gpa)
{
	uint32_t seed = (uint32_t)pattern_random(&bed->random);
	uint8_t *data = vc_ptr(vc, gpa, HEALTH_BLOCK_BYTES);
	uint32_t version;
	char why[200];
	for (unsigned i = 0; i < HEALTH_BLOCKS * 2; i++) {
		uint64_t block = i % HEALTH_BLOCKS;
		bool write = i < HEALTH_BLOCKS;
		memset(data, 0, HEALTH_BLOCK_BYTES);
		if (write)
			pattern_fill(data, HEALTH_BLOCK_BYTES, block, 1, seed);
		int rc = vc_io(vc, 0, write ? VIRTIO_BLK_T_OUT : VIRTIO_BLK_T_IN, HEALTH_FIRST_SECTOR + block * 8, gpa,
			       HEALTH_BLOCK_BYTES);
		if (rc != 0) {
			bed_fail(bed, "%s answered %d %s", write ? "write" : "read", rc, vc->error);
			return false;
		}
		if (!write && pattern_check(data, HEALTH_BLOCK_BYTES, block, seed, &version, why, sizeof(why)) !=
				      PATTERN_INTACT) {
			bed_fail(bed, "read back wrong data: %s", why);
			return false;
		}
	}
	return true;
}

bool hostile_is_healthy(struct bed *bed)
{
	struct vc_options options = bed_options(bed);
	AUTO_VC vc = bed_open(bed, &options);
	return vc != NULL && write_and_read_back(bed, vc, vc_alloc(vc, HEALTH_BLOCK_BYTES)) && vc_stop(vc) == 0;
}

/* Waits until the server is back at what it had; a leak is reported once and then taken as given. */
static bool settles_at(struct bed *bed, int (*look)(pid_t pid), int *expected, const char *what)
{
	int found = look(bed->server_pid);
	for (unsigned i = 0; found > *expected && i < SETTLE_TRIES; i++) {
		usleep(SETTLE_US);
		found = look(bed->server_pid);
	}
	if (found <= *expected)
		return true;
	bed_fail(bed, "leaked: the server has %d %s, before this case %d", found, what, *expected);
	*expected = found;
	return false;
}

static int guest_mappings(pid_t pid)
{
	return server_mappings(pid, MEMFD_NAME);
}

static bool leaks_nothing(struct bed *bed)
{
	return bed->server_pid == 0 ||
	       (settles_at(bed, guest_mappings, &mappings_at_start, "mappings of guest memory") &&
		settles_at(bed, server_fds, &fds_at_start, "open descriptors"));
}

static bool bystander_is_fine(struct bed *bed)
{
	return bystander == NULL || write_and_read_back(bed, bystander, bystander_gpa);
}

static enum verdict check_after(struct bed *bed, bool *bail_out)
{
	if (bed->server_pid != 0 && !server_is_alive(bed->server_pid)) {
		*bail_out = true;
		return bed_fail(bed, "the server died");
	}
	if (!hostile_is_healthy(bed)) {
		*bail_out = bed->server_pid != 0 && !server_is_alive(bed->server_pid);
		return bed_fail(bed, "the next good session suffers: %s", bed->why);
	}
	if (!bystander_is_fine(bed))
		return bed_fail(bed, "the other volume suffers: %s", bed->why);
	return leaks_nothing(bed) ? PASS : FAIL;
}

static bool prepare(struct bed *bed)
{
	if (!hostile_is_healthy(bed))
		return false;
	if (bed->other_socket != NULL) {
		struct vc_options options = bed_options(bed);
		options.path = bed->other_socket;
		bystander = bed_open(bed, &options);
		if (bystander == NULL)
			return false;
		bystander_gpa = vc_alloc(bystander, HEALTH_BLOCK_BYTES);
	}
	if (bed->server_pid == 0)
		return true;
	usleep(SETTLE_US * 10);
	fds_at_start = server_fds(bed->server_pid);
	mappings_at_start = guest_mappings(bed->server_pid);
	return true;
}

static void finish(struct bed *bed)
{
	(void)bed;
	vc_close(bystander);
}

int main(int argc, char **argv)
{
	static const struct test *const lists[] = {
		hostile_wire_tests,  hostile_fd_tests,      hostile_memory_tests,   hostile_queue_tests,
		hostile_chain_tests, hostile_request_tests, hostile_inflight_tests, NULL,
	};
	static const struct tap_plan plan = {
		.program = "vhost-hostile",
		.lists = lists,
		.after = check_after,
		.before_all = prepare,
		.after_all = finish,
	};
	return tap_main(&plan, argc, argv);
}
