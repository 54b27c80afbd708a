/* Semantics of sessions that end without GET_VRING_BASE and come back: the inflight region carries the requests over.
 *
 * Here the server lives on and only the connection goes; vhost-bench --reconnect is for servers that are killed. */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "tests/client/pattern.h"
#include "tests/client/semantics.h"

#define ROUNDS 50
#define AT_ONCE 64

static struct vc *open_with_inflight(struct bed *bed, bool interrupts)
{
	struct vc_options options = bed_options(bed);
	options.region_bytes = 16u << 20;
	options.interrupts = interrupts;
	return bed_open(bed, &options);
}

static enum verdict new_session_after_close(struct bed *bed, const void *arg)
{
	(void)arg;
	for (unsigned i = 0; i < 100; i++) {
		AUTO_VC vc = open_with_inflight(bed, false);
		CHECK(bed, vc != NULL, "session %u: %s", i, bed->why);
		if (i % 2 == 0)
			continue;
		int rc = vc_io(vc, 0, VIRTIO_BLK_T_IN, 0, vc_alloc(vc, 4096), 4096);
		CHECK(bed, rc == VIRTIO_BLK_S_OK, "session %u: a read: %d", i, rc);
	}
	return PASS;
}

static enum verdict second_session_waits(struct bed *bed, const void *arg)
{
	struct vu_message reply;
	(void)arg;
	AUTO_VC vc = open_with_inflight(bed, false);
	CHECK(bed, vc != NULL, "%s", bed->why);
	AUTO_FD second = vu_connect(bed->socket);
	if (second < 0)
		return PASS; /* turned away at once is fine too */
	vu_send(second, VU_GET_FEATURES, 0, NULL, 0, NULL, 0);
	int rc = vu_receive(second, &reply, QUIET_MS);
	CHECK(bed, rc != 0, "two sessions at once on one socket");
	rc = vc_io(vc, 0, VIRTIO_BLK_T_IN, 0, vc_alloc(vc, 4096), 4096);
	CHECK(bed, rc == VIRTIO_BLK_S_OK, "a read in the first session: %d", rc);
	return PASS;
}

static enum verdict inflight_region_is_sane(struct bed *bed, const void *arg)
{
	struct vc_options options = bed_options(bed);
	(void)arg;
	AUTO_VC vc = bed_connect(bed, &options);
	CHECK(bed, vc != NULL, "%s", bed->why);
	if (!vc_has_protocol(vc, VU_P_INFLIGHT_SHMFD))
		return bed_skip(bed, "INFLIGHT_SHMFD is not offered");
	CHECK(bed, vc_start(vc) == 0, "%s", vc->error);
	uint64_t least = sizeof(struct vu_inflight_queue) + options.ring_size * sizeof(struct vu_inflight_desc);
	CHECK(bed, vc->inflight.size_bytes >= least, "the region has %llu bytes, not %llu",
	      (unsigned long long)vc->inflight.size_bytes, (unsigned long long)least);
	CHECK(bed, vc->inflight.queues == 1 && vc->inflight.ring_size == options.ring_size, "it is for %u queues of %u",
	      vc->inflight.queues, vc->inflight.ring_size);
	int rc = vc_io(vc, 0, VIRTIO_BLK_T_IN, 0, vc_alloc(vc, 4096), 4096);
	CHECK(bed, rc == VIRTIO_BLK_S_OK && vc_stop(vc) == 0, "a read: %d", rc);
	struct vu_inflight_queue *queue = mmap(NULL, vc->inflight.size_bytes, PROT_READ, MAP_SHARED, vc->inflight_fd,
					       (off_t)vc->inflight.off_bytes);
	CHECK(bed, queue != MAP_FAILED, "cannot map it");
	struct vu_inflight_queue head = *queue;
	unsigned in_flight = 0;
	for (unsigned i = 0; i < options.ring_size; i++)
		in_flight += queue->desc[i].inflight;
	munmap(queue, vc->inflight.size_bytes);
	CHECK(bed, head.version == 1 && head.desc_num == options.ring_size && head.used_idx == 1,
	      "version %u, desc_num %u, used_idx %u", head.version, head.desc_num, head.used_idx);
	CHECK(bed, in_flight == 0, "%u requests are marked in flight after all were completed", in_flight);
	return PASS;
}

/* Writes that leave when the connection goes; each must complete exactly once, and its data be there. */
static bool offer_writes(struct bed *bed, struct vc *vc, uint64_t gpa, uint32_t version)
{
	for (unsigned i = 0; i < AT_ONCE; i++) {
		struct vc_seg seg = { .gpa = gpa + i * 16384u, .len_bytes = 16384 };
		struct vc_request request = { .type = VIRTIO_BLK_T_OUT, .sector = i * 32ull, .seg = &seg, .segs = 1 };
		pattern_fill(vc_ptr(vc, seg.gpa, 16384), 16384, i, version, 3);
		if (vc_submit(vc, 0, &request) < 0) {
			bed_fail(bed, "the ring is full");
			return false;
		}
	}
	return true;
}

static bool reconnect(struct bed *bed, struct vc *vc)
{
	vc_disconnect(vc);
	if (vc_connect(vc) == 0 && vc_start(vc) == 0)
		return true;
	bed_fail(bed, "no session: %s", vc->error);
	return false;
}

static enum verdict writes_survive_lost_connection(struct bed *bed, const void *arg)
{
	char why[200];
	uint32_t version;
	(void)arg;
	AUTO_VC vc = open_with_inflight(bed, false);
	CHECK(bed, vc != NULL, "%s", bed->why);
	if (!vc_has_protocol(vc, VU_P_INFLIGHT_SHMFD))
		return bed_skip(bed, "INFLIGHT_SHMFD is not offered");
	uint64_t gpa = vc_alloc(vc, AT_ONCE * 16384);
	for (uint32_t round = 1; round <= ROUNDS; round++) {
		if (!offer_writes(bed, vc, gpa, round))
			return FAIL;
		vc_kick(vc, 0);
		usleep(round * 37 % 1000);
		if (!reconnect(bed, vc) || !reap_ok(bed, vc, 0, AT_ONCE))
			return FAIL;
		CHECK(bed, vc->ring[0].used_seen == vc->ring[0].avail_next, "round %u: counts differ", round);
		for (unsigned i = 0; i < AT_ONCE; i++) {
			int rc = vc_io(vc, 0, VIRTIO_BLK_T_IN, i * 32ull, gpa, 16384);
			CHECK(bed, rc == 0, "round %u: a read: %d %s", round, rc, vc->error);
			CHECK(bed,
			      pattern_check(vc_ptr(vc, gpa, 16384), 16384, i, 3, &version, why, sizeof(why)) ==
					      PATTERN_INTACT &&
				      version == round,
			      "round %u: write %u is not there (version %u)", round, i, version);
		}
	}
	CHECK(bed, stays_quiet(&vc->ring[0], vc->ring[0].avail_next), "a request was completed twice");
	CHECK(bed, vc_ring_stop(vc, 0) == vc->ring[0].avail_next, "stopped at %u", vc->ring[0].base);
	return PASS;
}

/* The connection goes again and again while the same requests are in flight. */
static enum verdict lost_many_times_in_a_row(struct bed *bed, const void *arg)
{
	(void)arg;
	AUTO_VC vc = open_with_inflight(bed, false);
	CHECK(bed, vc != NULL, "%s", bed->why);
	if (!vc_has_protocol(vc, VU_P_INFLIGHT_SHMFD))
		return bed_skip(bed, "INFLIGHT_SHMFD is not offered");
	uint64_t gpa = vc_alloc(vc, AT_ONCE * 16384);
	for (unsigned round = 1; round <= 10; round++) {
		if (!offer_writes(bed, vc, gpa, round))
			return FAIL;
		vc_kick(vc, 0);
		for (unsigned i = 0; i < 5; i++) {
			if (!reconnect(bed, vc))
				return FAIL;
		}
		if (!reap_ok(bed, vc, 0, AT_ONCE))
			return FAIL;
	}
	CHECK(bed, stays_quiet(&vc->ring[0], vc->ring[0].avail_next), "a request was completed twice");
	return PASS;
}

/* After coming back the server looks at every ring by itself and calls once: nobody may need to kick. */
static enum verdict comes_back_without_kick(struct bed *bed, const void *arg)
{
	(void)arg;
	AUTO_VC vc = open_with_inflight(bed, true);
	CHECK(bed, vc != NULL, "%s", bed->why);
	if (!vc_has_protocol(vc, VU_P_INFLIGHT_SHMFD))
		return bed_skip(bed, "INFLIGHT_SHMFD is not offered");
	uint64_t gpa = vc_alloc(vc, 4096);
	CHECK(bed, vc_io(vc, 0, VIRTIO_BLK_T_IN, 0, gpa, 4096) == 0, "a read");
	vc_disconnect(vc);
	for (unsigned i = 0; i < 8; i++) { /* offered while nobody serves, and never kicked for */
		if (!submit_read(bed, vc, 0, 0, gpa))
			return FAIL;
	}
	vc_publish(&vc->ring[0]);
	CHECK(bed,
	      vc_connect(vc) == 0 && vc_setup_inflight(vc) == 0 && vc_send_features(vc) == 0 &&
		      vc_share_memory(vc) == 0 && vc_ring_setup(vc, 0) == 0 && vc_ring_enable(vc, 0, true) == 0,
	      "%s", vc->error);
	CHECK(bed, vc_calls(&vc->ring[0], WAIT_MS) > 0, "no call after coming back");
	return reap_ok(bed, vc, 0, 8) ? PASS : FAIL;
}

/* The driver starts anew (a reset guest): rings and inflight region are new, nothing old comes back. */
static enum verdict guest_reset_forgets(struct bed *bed, const void *arg)
{
	(void)arg;
	AUTO_VC vc = open_with_inflight(bed, false);
	CHECK(bed, vc != NULL, "%s", bed->why);
	uint64_t gpa = vc_alloc(vc, AT_ONCE * 16384);
	for (unsigned round = 1; round <= 5; round++) {
		if (!offer_writes(bed, vc, gpa, round))
			return FAIL;
		vc_kick(vc, 0);
		CHECK(bed, vc_stop(vc) == 0, "%s", vc->error);
		vc_rings_reset(vc);
		CHECK(bed, vc_start(vc) == 0, "%s", vc->error);
		CHECK(bed, stays_quiet(&vc->ring[0], 0), "something old was completed after a reset");
		CHECK(bed, vc_io(vc, 0, VIRTIO_BLK_T_IN, 0, gpa, 4096) == 0, "a read after a reset: %s", vc->error);
	}
	return PASS;
}

const struct test semantics_reconnect_tests[] = {
	{ "session: a hundred, one after the other", new_session_after_close, NULL },
	{ "session: a second one waits", second_session_waits, NULL },
	{ "session: a guest that resets starts anew", guest_reset_forgets, NULL },
	{ "inflight: the region is as the standard says", inflight_region_is_sane, NULL },
	{ "inflight: writes survive a lost connection exactly once", writes_survive_lost_connection, NULL },
	{ "inflight: lost many times in a row", lost_many_times_in_a_row, NULL },
	{ "inflight: comes back without a kick, and calls", comes_back_without_kick, NULL },
	{ NULL, NULL, NULL },
};
