/* Semantics of rings: when they start and stop, who is notified when, and that what was offered is what is done. */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "tests/client/semantics.h"

#define SNAPSHOT_BYTES (8u << 20)

/* A session set up to just before its ring 0 starts, with one read offered in it. */
static struct vc *almost_started(struct bed *bed)
{
	struct vc_options options = bed_options(bed);
	struct vc *vc = bed_connect(bed, &options);
	if (vc == NULL)
		return NULL;
	if (vc_send_features(vc) < 0 || vc_share_memory(vc) < 0 || !submit_read(bed, vc, 0, 0, vc_alloc(vc, 4096))) {
		vc_destroy(vc);
		return NULL;
	}
	vc_publish(&vc->ring[0]);
	return vc;
}

/* ---- starting and stopping ---- */

static enum verdict begins_stopped(struct bed *bed, const void *arg)
{
	struct vu_state size = { .index = 0, .num = 128 };
	(void)arg;
	AUTO_VC vc = almost_started(bed);
	CHECK(bed, vc != NULL, "%s", bed->why);
	CHECK(bed, vc_call(vc, VU_SET_VRING_NUM, &size, sizeof(size), NULL, 0) == 0, "%s", vc->error);
	CHECK(bed, vc_ring_send_addr(vc, 0) == 0, "%s", vc->error);
	CHECK(bed, vc_ring_enable(vc, 0, true) == 0, "%s", vc->error);
	CHECK(bed, stays_quiet(&vc->ring[0], 0), "a ring without kick descriptor was processed");
	return PASS;
}

static enum verdict begins_disabled(struct bed *bed, const void *arg)
{
	(void)arg;
	AUTO_VC vc = almost_started(bed);
	CHECK(bed, vc != NULL, "%s", bed->why);
	CHECK(bed, vc_ring_setup(vc, 0) == 0, "%s", vc->error);
	vc_notify(&vc->ring[0]);
	CHECK(bed, stays_quiet(&vc->ring[0], 0), "a ring that was never enabled was processed");
	CHECK(bed, vc_ring_enable(vc, 0, true) == 0, "%s", vc->error);
	return reap_ok(bed, vc, 0, 1) ? PASS : FAIL;
}

static enum verdict starts_on_kick(struct bed *bed, const void *arg)
{
	(void)arg;
	AUTO_VC vc = almost_started(bed);
	CHECK(bed, vc != NULL, "%s", bed->why);
	CHECK(bed, vc_ring_setup(vc, 0) == 0, "%s", vc->error);
	CHECK(bed, vc_ring_enable(vc, 0, true) == 0, "%s", vc->error);
	if (!stays_quiet(&vc->ring[0], 0))
		printf("# the ring started at SET_VRING_KICK, before the first kick (as newer standards allow)\n");
	vc_notify(&vc->ring[0]);
	return reap_ok(bed, vc, 0, 1) ? PASS : FAIL;
}

/* Stopped by GET_VRING_BASE: kicked and full of requests, not a byte of guest memory changes, no call comes. */
static enum verdict stopped_ring_touches_nothing(struct bed *bed, const void *arg)
{
	struct vc_options options = bed_options(bed);
	(void)arg;
	options.interrupts = true;
	AUTO_VC vc = bed_open(bed, &options);
	CHECK(bed, vc != NULL, "%s", bed->why);
	uint64_t gpa = vc_alloc(vc, 4096);
	CHECK(bed, vc_io(vc, 0, VIRTIO_BLK_T_IN, 0, gpa, 4096) == 0, "a read");
	CHECK(bed, vc_ring_stop(vc, 0) == 1, "stopped at %u, not 1", vc->ring[0].base);
	(void)vc_calls(&vc->ring[0], 0);
	memset(vc_ptr(vc, gpa, 4096), 0x77, 4096);
	vc_want_call(vc, 0, 0);
	for (unsigned i = 0; i < 8; i++) {
		if (!submit_read(bed, vc, 0, 0, gpa))
			return FAIL;
	}
	vc_publish(&vc->ring[0]);
	uint8_t *before = malloc(SNAPSHOT_BYTES);
	memcpy(before, vc->region[0].map, SNAPSHOT_BYTES);
	vc_notify(&vc->ring[0]);
	usleep(QUIET_MS * 1000);
	bool same = memcmp(before, vc->region[0].map, SNAPSHOT_BYTES) == 0;
	free(before);
	CHECK(bed, same, "guest memory changed after GET_VRING_BASE");
	CHECK(bed, vc_calls(&vc->ring[0], 0) == 0, "a call came after GET_VRING_BASE");
	return PASS;
}

static enum verdict starts_again_where_it_stopped(struct bed *bed, const void *arg)
{
	struct vc_options options = bed_options(bed);
	(void)arg;
	AUTO_VC vc = bed_open(bed, &options);
	CHECK(bed, vc != NULL, "%s", bed->why);
	uint64_t gpa = vc_alloc(vc, 4096);
	for (unsigned round = 0; round < 20; round++) {
		for (unsigned i = 0; i < 10; i++) {
			if (!submit_read(bed, vc, 0, i * 8, gpa))
				return FAIL;
		}
		vc_kick(vc, 0);
		int base = vc_ring_stop(vc, 0);
		CHECK(bed, base >= 0, "%s", vc->error);
		CHECK(bed, (uint16_t)base == vc_used_idx(&vc->ring[0]), "stopped at %d, but completed up to %u", base,
		      vc_used_idx(&vc->ring[0]));
		CHECK(bed, stays_quiet(&vc->ring[0], (uint16_t)base), "completions after GET_VRING_BASE");
		CHECK(bed, vc_ring_setup(vc, 0) == 0 && vc_ring_enable(vc, 0, true) == 0, "%s", vc->error);
		vc_notify(&vc->ring[0]);
		if (!reap_ok(bed, vc, 0, 10))
			return FAIL;
	}
	return PASS;
}

/* Large writes in flight, then GET_VRING_BASE at once: an honest index, and all before it really done. */
static enum verdict stop_drains(struct bed *bed, const void *arg)
{
	struct vc_options options = bed_options(bed);
	(void)arg;
	options.region_bytes = 64u << 20;
	AUTO_VC vc = bed_open(bed, &options);
	CHECK(bed, vc != NULL, "%s", bed->why);
	for (unsigned i = 0; i < 32; i++) {
		struct vc_seg seg = { .gpa = vc_alloc(vc, 1u << 20), .len_bytes = 1u << 20 };
		memset(vc_ptr(vc, seg.gpa, 1u << 20), (int)(0x40 + i), 1u << 20);
		struct vc_request request = { .type = VIRTIO_BLK_T_OUT,
					      .sector = (uint64_t)i * 2048,
					      .seg = &seg,
					      .segs = 1 };
		CHECK(bed, vc_submit(vc, 0, &request) >= 0, "the ring is full");
	}
	vc_kick(vc, 0);
	usleep(500);
	int base = vc_ring_stop(vc, 0);
	uint16_t used_idx = vc_used_idx(&vc->ring[0]);
	CHECK(bed, base >= 0, "%s", vc->error);
	CHECK(bed, (uint16_t)base == used_idx, "stopped at %d, but completed up to %u", base, used_idx);
	CHECK(bed, stays_quiet(&vc->ring[0], used_idx), "completions after GET_VRING_BASE");
	if (!reap_ok(bed, vc, 0, used_idx))
		return FAIL;
	CHECK(bed, vc_ring_setup(vc, 0) == 0 && vc_ring_enable(vc, 0, true) == 0, "%s", vc->error);
	vc_notify(&vc->ring[0]);
	return reap_ok(bed, vc, 0, 32u - used_idx) ? PASS : FAIL;
}

static enum verdict index_wraps(struct bed *bed, const void *arg)
{
	struct vc_options options = bed_options(bed);
	(void)arg;
	options.ring_size = 256;
	AUTO_VC vc = bed_open(bed, &options);
	CHECK(bed, vc != NULL, "%s", bed->why);
	uint64_t gpa = vc_alloc(vc, 4096);
	for (unsigned i = 0; i < 70000; i += 200) {
		for (unsigned j = 0; j < 200; j++) {
			if (!submit_read(bed, vc, 0, 0, gpa))
				return FAIL;
		}
		vc_kick(vc, 0);
		if (!reap_ok(bed, vc, 0, 200))
			return FAIL;
	}
	CHECK(bed, vc_ring_stop(vc, 0) == 70000 - 65536, "stopped at %u", vc->ring[0].base);
	return PASS;
}

static enum verdict starts_at_any_base(struct bed *bed, const void *arg)
{
	struct vc_options options = bed_options(bed);
	uint16_t base = 65533;
	(void)arg;
	AUTO_VC vc = bed_connect(bed, &options);
	CHECK(bed, vc != NULL, "%s", bed->why);
	struct vc_ring *ring = &vc->ring[0];
	ring->base = ring->avail_next = ring->used_seen = ring->kicked = base;
	ring->avail->idx = ring->used->idx = base;
	CHECK(bed, vc_start(vc) == 0, "%s", vc->error);
	uint64_t gpa = vc_alloc(vc, 4096);
	for (unsigned i = 0; i < 6; i++) {
		int rc = vc_io(vc, 0, VIRTIO_BLK_T_IN, 0, gpa, 4096);
		CHECK(bed, rc == 0, "read %u: %d %s", i, rc, vc->error);
	}
	CHECK(bed, vc_ring_stop(vc, 0) == 3, "stopped at %u, not 3", ring->base);
	return PASS;
}

static enum verdict disabled_ring_waits(struct bed *bed, const void *arg)
{
	struct vc_options options = bed_options(bed);
	(void)arg;
	AUTO_VC vc = bed_open(bed, &options);
	CHECK(bed, vc != NULL, "%s", bed->why);
	uint64_t gpa = vc_alloc(vc, 4096);
	CHECK(bed, vc_io(vc, 0, VIRTIO_BLK_T_IN, 0, gpa, 4096) == 0, "a read");
	CHECK(bed, vc_ring_enable(vc, 0, false) == 0, "%s", vc->error);
	if (!submit_read(bed, vc, 0, 0, gpa))
		return FAIL;
	vc_publish(&vc->ring[0]);
	vc_notify(&vc->ring[0]);
	CHECK(bed, stays_quiet(&vc->ring[0], 1), "a disabled ring was processed");
	CHECK(bed, vc_ring_enable(vc, 0, true) == 0, "%s", vc->error);
	return reap_ok(bed, vc, 0, 1) ? PASS : FAIL;
}

static enum verdict disabled_then_stopped(struct bed *bed, const void *arg)
{
	struct vc_options options = bed_options(bed);
	(void)arg;
	AUTO_VC vc = bed_open(bed, &options);
	CHECK(bed, vc != NULL, "%s", bed->why);
	uint64_t gpa = vc_alloc(vc, 4096);
	for (unsigned i = 0; i < 20; i++) {
		if (!submit_read(bed, vc, 0, i * 8, gpa))
			return FAIL;
	}
	vc_kick(vc, 0);
	CHECK(bed, vc_ring_enable(vc, 0, false) == 0, "%s", vc->error);
	int base = vc_ring_stop(vc, 0);
	CHECK(bed, base >= 0 && (uint16_t)base == vc_used_idx(&vc->ring[0]), "stopped at %d, completed up to %u", base,
	      vc_used_idx(&vc->ring[0]));
	return PASS;
}

static enum verdict kick_fd_can_be_replaced(struct bed *bed, const void *arg)
{
	struct vc_options options = bed_options(bed);
	(void)arg;
	AUTO_VC vc = bed_open(bed, &options);
	CHECK(bed, vc != NULL, "%s", bed->why);
	uint64_t gpa = vc_alloc(vc, 4096);
	for (unsigned i = 0; i < 20; i++) {
		if (!submit_read(bed, vc, 0, 0, gpa))
			return FAIL;
		vc_kick(vc, 0);
		CHECK(bed, vc_ring_send_fd(vc, VU_SET_VRING_KICK, 0, vc->ring[0].kick_fd) == 0, "%s", vc->error);
		CHECK(bed, vc_ring_send_fd(vc, VU_SET_VRING_CALL, 0, vc->ring[0].call_fd) == 0, "%s", vc->error);
		if (!reap_ok(bed, vc, 0, 1))
			return FAIL;
	}
	return PASS;
}

/* ---- notifications ---- */

static struct vc *open_with_calls(struct bed *bed, bool event_idx)
{
	struct vc_options options = bed_options(bed);
	options.interrupts = true;
	if (!event_idx)
		options.features &= ~VC_BIT(VIRTIO_RING_F_EVENT_IDX);
	struct vc *vc = bed_open(bed, &options);
	if (vc == NULL)
		return NULL;
	/* A server may call once more than wanted when the ring starts, and at its first completion. */
	int rc = vc_io(vc, 0, VIRTIO_BLK_T_IN, 0, vc_alloc(vc, 4096), 4096);
	usleep(20000);
	(void)vc_calls(&vc->ring[0], 0);
	if (rc == VIRTIO_BLK_S_OK)
		return vc;
	bed_fail(bed, "the first read: %d %s", rc, vc->error);
	vc_destroy(vc);
	return NULL;
}

static enum verdict calls_when_done(struct bed *bed, const void *arg)
{
	const bool *event_idx = arg;
	AUTO_VC vc = open_with_calls(bed, *event_idx);
	CHECK(bed, vc != NULL, "%s", bed->why);
	uint64_t gpa = vc_alloc(vc, 4096);
	for (unsigned i = 0; i < 200; i++) {
		vc_want_call(vc, 0, 0);
		if (!submit_read(bed, vc, 0, i * 8, gpa))
			return FAIL;
		vc_kick(vc, 0);
		CHECK(bed, vc_calls(&vc->ring[0], WAIT_MS) > 0, "round %u: no call", i);
		CHECK(bed, vc_used_idx(&vc->ring[0]) == vc->ring[0].avail_next,
		      "round %u: called before the completion", i);
		if (!reap_ok(bed, vc, 0, 1))
			return FAIL;
	}
	return PASS;
}

static enum verdict no_call_unless_wanted(struct bed *bed, const void *arg)
{
	const bool *event_idx = arg;
	AUTO_VC vc = open_with_calls(bed, *event_idx);
	CHECK(bed, vc != NULL, "%s", bed->why);
	struct vc_ring *ring = &vc->ring[0];
	uint64_t gpa = vc_alloc(vc, 4096);
	if (*event_idx)
		vc_want_call(vc, 0, 20000);
	else
		ring->avail->flags = VRING_AVAIL_F_NO_INTERRUPT;
	for (unsigned i = 0; i < 50; i++) {
		if (!submit_read(bed, vc, 0, i * 8, gpa))
			return FAIL;
	}
	vc_kick(vc, 0);
	if (!reap_ok(bed, vc, 0, 50))
		return FAIL;
	uint64_t calls = vc_calls(ring, QUIET_MS);
	CHECK(bed, calls == 0, "%llu calls nobody wanted", (unsigned long long)calls);
	return PASS;
}

/* used_event names the tenth completion: none of the first nine may call, the tenth must. */
static enum verdict call_at_the_index_named(struct bed *bed, const void *arg)
{
	(void)arg;
	AUTO_VC vc = open_with_calls(bed, true);
	CHECK(bed, vc != NULL, "%s", bed->why);
	if (!vc_has(vc, VIRTIO_RING_F_EVENT_IDX))
		return bed_skip(bed, "EVENT_IDX is not offered");
	uint64_t gpa = vc_alloc(vc, 4096);
	vc_want_call(vc, 0, 9);
	for (unsigned i = 0; i < 9; i++) {
		if (!submit_read(bed, vc, 0, 0, gpa))
			return FAIL;
		vc_kick(vc, 0);
		if (!reap_ok(bed, vc, 0, 1))
			return FAIL;
	}
	CHECK(bed, vc_calls(&vc->ring[0], QUIET_MS) == 0, "called before the index named");
	if (!submit_read(bed, vc, 0, 0, gpa))
		return FAIL;
	vc_kick(vc, 0);
	CHECK(bed, vc_calls(&vc->ring[0], WAIT_MS) > 0, "no call at the index named");
	return reap_ok(bed, vc, 0, 1) ? PASS : FAIL;
}

/* The driver kicks only when asked to: nothing may ever be overlooked, however the server sleeps and wakes. */
static enum verdict no_kick_is_lost(struct bed *bed, const void *arg)
{
	const bool *event_idx = arg;
	AUTO_VC vc = open_with_calls(bed, *event_idx);
	CHECK(bed, vc != NULL, "%s", bed->why);
	uint64_t gpa = vc_alloc(vc, 4096);
	unsigned in_flight = 0;
	for (unsigned i = 0; i < 3000; i++) {
		if (!submit_read(bed, vc, 0, i % 64 * 8, gpa))
			return FAIL;
		vc_kick(vc, 0);
		in_flight++;
		if (i % 7 == 0)
			usleep(i % 1000);
		if (in_flight < 30 && i % 3 != 0)
			continue;
		if (!reap_ok(bed, vc, 0, in_flight))
			return FAIL;
		in_flight = 0;
	}
	return reap_ok(bed, vc, 0, in_flight) ? PASS : FAIL;
}

/* ---- chains and queues ---- */

static enum verdict direct_and_indirect(struct bed *bed, const void *arg)
{
	struct vc_options options = bed_options(bed);
	(void)arg;
	AUTO_VC vc = bed_open(bed, &options);
	CHECK(bed, vc != NULL, "%s", bed->why);
	struct vc_seg seg[16];
	uint64_t gpa = vc_alloc(vc, 16 * 4096);
	for (unsigned i = 0; i < 16; i++)
		seg[i] = (struct vc_seg){ .gpa = gpa + (15 - i) * 4096, .len_bytes = 512 * (1 + i % 8) };
	for (unsigned round = 0; round < 200; round++) {
		struct vc_request request = { .type = VIRTIO_BLK_T_IN,
					      .sector = round,
					      .seg = seg,
					      .segs = 1 + round % 16,
					      .direct = round % 3 == 0 };
		int rc = vc_do(vc, 0, &request);
		CHECK(bed, rc == 0, "round %u: %d %s", round, rc, vc->error);
	}
	return PASS;
}

static enum verdict seg_max_pieces(struct bed *bed, const void *arg)
{
	const bool *direct = arg;
	struct vc_options options = bed_options(bed);
	struct vc_seg seg[VC_SEGS_MAX];
	options.direct = *direct;
	if (*direct)
		options.ring_size = 256;
	AUTO_VC vc = bed_open(bed, &options);
	CHECK(bed, vc != NULL, "%s", bed->why);
	unsigned segs = vc->config.seg_max < VC_SEGS_MAX ? vc->config.seg_max : VC_SEGS_MAX;
	if (*direct && segs > options.ring_size - 2)
		segs = options.ring_size - 2;
	uint64_t gpa = vc_alloc(vc, VC_SEGS_MAX * 4096);
	uint8_t *data = vc_ptr(vc, gpa, VC_SEGS_MAX * 4096);
	for (unsigned i = 0; i < segs; i++) {
		seg[i] = (struct vc_seg){ .gpa = gpa + (segs - 1 - i) * 4096, .len_bytes = 4096 };
		memset(data + (segs - 1 - i) * 4096, (int)i, 4096);
	}
	struct vc_request request = { .type = VIRTIO_BLK_T_OUT, .seg = seg, .segs = segs };
	int rc = vc_do(vc, 0, &request);
	CHECK(bed, rc == 0, "a write in %u pieces: %d %s", segs, rc, vc->error);
	memset(data, 0xff, VC_SEGS_MAX * 4096);
	request.type = VIRTIO_BLK_T_IN;
	rc = vc_do(vc, 0, &request);
	CHECK(bed, rc == 0, "a read in %u pieces: %d %s", segs, rc, vc->error);
	for (unsigned i = 0; i < segs * 4096; i++)
		CHECK(bed, data[i] == (uint8_t)(segs - 1 - i / 4096), "byte %u of the buffers is wrong", i);
	return PASS;
}

static enum verdict queues_are_independent(struct bed *bed, const void *arg)
{
	struct vc_options options = bed_options(bed);
	(void)arg;
	options.queues = 2;
	options.region_bytes = 16u << 20;
	AUTO_VC vc = bed_connect(bed, &options);
	CHECK(bed, vc != NULL, "%s", bed->why);
	if (vc->queues_max < 2)
		return bed_skip(bed, "the server has one queue");
	CHECK(bed, vc_start(vc) == 0, "%s", vc->error);
	uint64_t gpa = vc_alloc(vc, 4096);
	for (unsigned round = 0; round < 100; round++) {
		for (unsigned i = 0; i < 20; i++) {
			if (!submit_read(bed, vc, i % 2, i * 8, gpa))
				return FAIL;
		}
		vc_kick(vc, 0);
		vc_kick(vc, 1);
		if (!reap_ok(bed, vc, 1, 10) || !reap_ok(bed, vc, 0, 10))
			return FAIL;
	}
	CHECK(bed, vc_ring_stop(vc, 0) == 1000, "queue 0 stopped at %u", vc->ring[0].base);
	if (!submit_read(bed, vc, 1, 0, gpa))
		return FAIL;
	vc_kick(vc, 1);
	if (!reap_ok(bed, vc, 1, 1))
		return FAIL;
	CHECK(bed, vc_ring_stop(vc, 1) == 1001, "queue 1 stopped at %u", vc->ring[1].base);
	return PASS;
}

static enum verdict ring_sizes(struct bed *bed, const void *arg)
{
	static const unsigned sizes[] = { 2, 4, 64, 256, 1024 };
	(void)arg;
	for (unsigned i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
		struct vc_options options = bed_options(bed);
		options.ring_size = sizes[i];
		AUTO_VC vc = bed_open(bed, &options);
		CHECK(bed, vc != NULL, "size %u: %s", sizes[i], bed->why);
		uint64_t gpa = vc_alloc(vc, 4096);
		for (unsigned round = 0; round < 10; round++) {
			unsigned count = vc->ring[0].free_count;
			if (!vc_has(vc, VIRTIO_RING_F_INDIRECT_DESC))
				return bed_skip(bed, "INDIRECT_DESC is not offered");
			for (unsigned j = 0; j < count; j++) {
				if (!submit_read(bed, vc, 0, 0, gpa))
					return FAIL;
			}
			vc_kick(vc, 0);
			if (!reap_ok(bed, vc, 0, count))
				return FAIL;
		}
	}
	return PASS;
}

static const bool with_event_idx = true;
static const bool without_event_idx = false;
static const bool in_tables = false;
static const bool in_the_ring = true;

const struct test semantics_ring_tests[] = {
	{ "ring: begins stopped", begins_stopped, NULL },
	{ "ring: begins disabled, and runs once enabled", begins_disabled, NULL },
	{ "ring: starts on kick", starts_on_kick, NULL },
	{ "ring: stopped, it touches no memory and calls nobody", stopped_ring_touches_nothing, NULL },
	{ "ring: starts again where it stopped", starts_again_where_it_stopped, NULL },
	{ "ring: GET_VRING_BASE drains and tells the truth", stop_drains, NULL },
	{ "ring: indexes wrap", index_wraps, NULL },
	{ "ring: starts at any base", starts_at_any_base, NULL },
	{ "ring: disabled, it waits", disabled_ring_waits, NULL },
	{ "ring: may be disabled before it is stopped", disabled_then_stopped, NULL },
	{ "ring: kick and call descriptors may be sent again", kick_fd_can_be_replaced, NULL },
	{ "ring: every size a driver may choose", ring_sizes, NULL },
	{ "call: comes after the completion", calls_when_done, &with_event_idx },
	{ "call: comes after the completion, without event index", calls_when_done, &without_event_idx },
	{ "call: does not come when the event index is far", no_call_unless_wanted, &with_event_idx },
	{ "call: does not come when interrupts are off", no_call_unless_wanted, &without_event_idx },
	{ "call: comes at the index named", call_at_the_index_named, NULL },
	{ "kick: none is lost", no_kick_is_lost, &with_event_idx },
	{ "kick: none is lost without event index", no_kick_is_lost, &without_event_idx },
	{ "chain: direct and indirect in turn", direct_and_indirect, NULL },
	{ "chain: seg_max pieces in an indirect table", seg_max_pieces, &in_tables },
	{ "chain: seg_max pieces in the ring", seg_max_pieces, &in_the_ring },
	{ "queues: two are independent", queues_are_independent, NULL },
	{ NULL, NULL, NULL },
};
