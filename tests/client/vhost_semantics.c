/* vhost-semantics: what a well-behaved front end may rely on (VHOST.md, vhost-user.rst, virtio 1.2 sections 2.7, 5.2).
 *
 * The tests are in semantics_*.c. Tests of what a server does not offer are skipped, except for the list of features
 * that must be offered ("must" in VHOST.md). */
#include <string.h>
#include <unistd.h>

#include "tests/client/semantics.h"

bool stays_quiet(const struct vc_ring *ring, uint16_t used_idx)
{
	for (unsigned i = 0; i < QUIET_MS; i++) {
		usleep(1000);
		if (vc_used_idx(ring) != used_idx)
			return false;
	}
	return true;
}

bool reap_ok(struct bed *bed, struct vc *vc, unsigned queue, unsigned count)
{
	struct vc_done done;
	for (unsigned i = 0; i < count; i++) {
		int rc = vc_wait(vc, queue, &done, WAIT_MS);
		if (rc < 0) {
			bed_fail(bed, "completion %u of %u: %s %s", i + 1, count, strerror(-rc), vc->error);
			return false;
		}
		if (done.status != VIRTIO_BLK_S_OK) {
			bed_fail(bed, "completion %u of %u: status %u", i + 1, count, done.status);
			return false;
		}
	}
	return true;
}

bool submit_read(struct bed *bed, struct vc *vc, unsigned queue, uint64_t sector, uint64_t gpa)
{
	struct vc_seg seg = { .gpa = gpa, .len_bytes = 4096 };
	struct vc_request request = { .type = VIRTIO_BLK_T_IN, .sector = sector, .seg = &seg, .segs = 1 };
	if (vc_submit(vc, queue, &request) >= 0)
		return true;
	bed_fail(bed, "the ring is full");
	return false;
}

int main(int argc, char **argv)
{
	static const struct test *const lists[] = {
		semantics_proto_tests, semantics_ring_tests, semantics_block_tests, semantics_reconnect_tests, NULL,
	};
	static const struct tap_plan plan = { .program = "vhost-semantics", .lists = lists };
	return tap_main(&plan, argc, argv);
}
