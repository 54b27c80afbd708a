/* Hostile ring parameters: indexes, sizes and bases out of range, changes while running, and an available index that
 * jumps. */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "tests/client/hostile.h"

static struct vc *half_open(struct bed *bed)
{
	struct vc_options options = bed_options(bed);
	options.region_bytes = 2u << 20;
	return bed_connect(bed, &options);
}

/* ---- ring index ---- */

static enum verdict index_is_refused(struct bed *bed, uint32_t request, uint64_t index)
{
	char what[100];
	uint64_t payload[5] = { index };
	AUTO_VC vc = half_open(bed);
	CHECK(bed, vc != NULL, "%s", bed->why);
	bool has_fd = request == VU_SET_VRING_KICK || request == VU_SET_VRING_CALL || request == VU_SET_VRING_ERR;
	if (!has_fd && request != VU_SET_VRING_ADDR)
		payload[0] |= (request == VU_SET_VRING_NUM ? 128ull : 1ull) << 32;
	snprintf(what, sizeof(what), "request %u for ring %#llx", request, (unsigned long long)index);
	uint32_t size_bytes = request == VU_SET_VRING_ADDR ? 40 : 8;
	enum answer answer = hostile_ask(vc, request, payload, size_bytes, &vc->region[0].fd, has_fd);
	return hostile_is_refused(bed, answer, what) ? PASS : FAIL;
}

static enum verdict ring_index_out_of_range(struct bed *bed, const void *arg)
{
	static const uint32_t requests[] = { VU_SET_VRING_NUM,    VU_SET_VRING_ADDR, VU_SET_VRING_BASE,
					     VU_SET_VRING_ENABLE, VU_GET_VRING_BASE, VU_SET_VRING_KICK,
					     VU_SET_VRING_CALL,   VU_SET_VRING_ERR };
	static const uint32_t indexes[] = { 255, 256, 65536, 0x7fffffff, 0x80000000, 0xffffffff };
	(void)arg;
	for (unsigned i = 0; i < sizeof(requests) / sizeof(requests[0]); i++) {
		bool in_one_byte = requests[i] >= VU_SET_VRING_KICK && requests[i] <= VU_SET_VRING_ERR;
		for (unsigned j = 0; j < (in_one_byte ? 1 : sizeof(indexes) / sizeof(indexes[0])); j++) {
			if (index_is_refused(bed, requests[i], indexes[j]) != PASS)
				return FAIL;
		}
	}
	return PASS;
}

static enum verdict ring_index_just_too_large(struct bed *bed, const void *arg)
{
	(void)arg;
	uint64_t queues;
	{
		AUTO_VC vc = half_open(bed);
		CHECK(bed, vc != NULL, "%s", bed->why);
		queues = vc->queues_max;
	}
	if (index_is_refused(bed, VU_SET_VRING_NUM, queues) != PASS)
		return FAIL;
	return index_is_refused(bed, VU_SET_VRING_ENABLE, queues);
}

/* Bits above 8 have no meaning; whatever the server makes of them, no array is that large. */
static enum verdict ring_index_with_high_bits(struct bed *bed, const void *arg)
{
	static const uint64_t payloads[] = {
		0x200, 0xfffffe00, 0x100000000ull, 0xffffffff00000000ull, 0xfffffffffffffeffull, UINT64_MAX
	};
	(void)arg;
	for (unsigned i = 0; i < sizeof(payloads) / sizeof(payloads[0]); i++) {
		for (uint32_t request = VU_SET_VRING_KICK; request <= VU_SET_VRING_ERR; request++) {
			AUTO_VC vc = half_open(bed);
			CHECK(bed, vc != NULL, "%s", bed->why);
			enum answer answer = hostile_ask(vc, request, &payloads[i], 8, &vc->region[0].fd, 1);
			CHECK(bed, answer != ANSWER_NONE, "request %u with %#llx: neither answered nor closed", request,
			      (unsigned long long)payloads[i]);
		}
	}
	return PASS;
}

/* ---- sizes and bases ---- */

static enum verdict state_is_refused(struct bed *bed, uint32_t request, uint32_t num)
{
	char what[100];
	struct vu_state state = { .index = 0, .num = num };
	AUTO_VC vc = half_open(bed);
	CHECK(bed, vc != NULL, "%s", bed->why);
	snprintf(what, sizeof(what), "%s %u", request == VU_SET_VRING_NUM ? "queue size" : "base", num);
	enum answer answer = hostile_ask(vc, request, &state, sizeof(state), NULL, 0);
	return hostile_is_refused(bed, answer, what) ? PASS : FAIL;
}

static enum verdict bad_queue_sizes(struct bed *bed, const void *arg)
{
	static const uint32_t sizes[] = { 0, 3, 5, 100, 129, 32769, 65535, 65536, 65536 + 128, 0x80000000, 0xffffffff };
	(void)arg;
	for (unsigned i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
		if (state_is_refused(bed, VU_SET_VRING_NUM, sizes[i]) != PASS)
			return FAIL;
	}
	return PASS;
}

static enum verdict bad_bases(struct bed *bed, const void *arg)
{
	(void)arg;
	return state_is_refused(bed, VU_SET_VRING_BASE, 0x10000) == PASS &&
			       state_is_refused(bed, VU_SET_VRING_BASE, 0xffffffff) == PASS
		       ? PASS
		       : FAIL;
}

/* A ring that is started with one step left out. */
static void start_without(struct vc *vc, uint32_t left_out, int kick_fd)
{
	struct vu_state size = { .index = 0, .num = 128 };
	if (left_out != VU_SET_FEATURES)
		(void)vc_send_features(vc);
	if (left_out != VU_SET_MEM_TABLE)
		(void)vc_share_memory(vc);
	if (left_out != VU_SET_VRING_NUM)
		(void)vc_call(vc, VU_SET_VRING_NUM, &size, sizeof(size), NULL, 0);
	if (left_out != VU_SET_VRING_ADDR)
		(void)vc_ring_send_addr(vc, 0);
	(void)vc_ring_send_fd(vc, VU_SET_VRING_KICK, 0, kick_fd);
	(void)vc_ring_enable(vc, 0, true);
}

static enum verdict started_half_set_up(struct bed *bed, const void *arg)
{
	static const uint32_t left_out[] = { VU_SET_VRING_NUM, VU_SET_VRING_ADDR, VU_SET_MEM_TABLE, VU_SET_FEATURES };
	(void)arg;
	for (unsigned i = 0; i < sizeof(left_out) / sizeof(left_out[0]); i++) {
		AUTO_VC vc = half_open(bed);
		CHECK(bed, vc != NULL, "%s", bed->why);
		AUTO_FD kick = eventfd(1, EFD_NONBLOCK | EFD_CLOEXEC);
		start_without(vc, left_out[i], kick);
		usleep(10000);
		CHECK(bed, vc_ring_stop(vc, 0) != -ETIMEDOUT, "GET_VRING_BASE: neither answered nor closed");
	}
	return PASS;
}

/* ---- changes while running ---- */

enum change { CHANGE_SIZE_DOWN, CHANGE_SIZE_UP, CHANGE_BASE, CHANGE_ADDR_BAD, CHANGE_ADDR_SAME, CHANGE_FEATURES };

static enum answer apply_change(struct vc *vc, enum change change)
{
	struct vu_state state = { .index = 0, .num = 2 };
	struct vu_addr addr = { .desc_uva = 16, .used_uva = 32, .avail_uva = 48 };
	uint64_t features = VC_BIT(VIRTIO_F_VERSION_1) | VC_BIT(VU_F_PROTOCOL_FEATURES);
	switch (change) {
	case CHANGE_SIZE_UP:
		state.num = 32768;
		/* fall through */
	case CHANGE_SIZE_DOWN: return hostile_ask(vc, VU_SET_VRING_NUM, &state, sizeof(state), NULL, 0);
	case CHANGE_BASE: state.num = 12345; return hostile_ask(vc, VU_SET_VRING_BASE, &state, sizeof(state), NULL, 0);
	case CHANGE_ADDR_BAD: return hostile_ask(vc, VU_SET_VRING_ADDR, &addr, sizeof(addr), NULL, 0);
	case CHANGE_ADDR_SAME: return vc_ring_send_addr(vc, 0) == 0 ? ANSWER_DONE : ANSWER_REFUSED;
	case CHANGE_FEATURES: return hostile_ask(vc, VU_SET_FEATURES, &features, sizeof(features), NULL, 0);
	}
	return ANSWER_NONE;
}

static enum verdict changed_while_running(struct bed *bed, const void *arg)
{
	const enum change *change = arg;
	for (unsigned round = 0; round < 5; round++) {
		struct vc_options options = bed_options(bed);
		AUTO_VC vc = bed_open(bed, &options);
		CHECK(bed, vc != NULL, "%s", bed->why);
		uint64_t gpa = vc_alloc(vc, 4096);
		struct vc_seg seg = { .gpa = gpa, .len_bytes = 4096 };
		struct vc_request request = { .type = VIRTIO_BLK_T_IN, .seg = &seg, .segs = 1 };
		for (unsigned i = 0; i < 40; i++)
			(void)vc_submit(vc, 0, &request);
		vc_kick(vc, 0);
		enum answer answer = apply_change(vc, *change);
		CHECK(bed, answer != ANSWER_NONE, "neither answered nor closed");
		for (unsigned i = 0; i < 40; i++)
			(void)vc_submit(vc, 0, &request);
		vc_publish(&vc->ring[0]);
		vc_notify(&vc->ring[0]);
		int base = vc_ring_stop(vc, 0);
		CHECK(bed, base != -ETIMEDOUT, "GET_VRING_BASE: neither answered nor closed");
	}
	return PASS;
}

/* ---- the available index ---- */

static enum verdict avail_index_jumps(struct bed *bed, const void *arg)
{
	const uint16_t *step = arg;
	AUTO_RIG rig;
	CHECK(bed, rig_open(&rig, bed), "%s", bed->why);
	rig.ring->avail_next = *step;
	vc_publish(rig.ring);
	return rig_expect(&rig, FATE_SILENT | FATE_CLOSED);
}

static enum verdict avail_index_goes_back(struct bed *bed, const void *arg)
{
	(void)arg;
	AUTO_RIG rig;
	CHECK(bed, rig_open(&rig, bed), "%s", bed->why);
	for (unsigned i = 0; i < 4; i++) {
		int rc = vc_io(rig.vc, 0, VIRTIO_BLK_T_IN, 0, rig.data_gpa, RIG_DATA_BYTES);
		CHECK(bed, rc == VIRTIO_BLK_S_OK, "a good read: %d", rc);
	}
	rig.ring->avail_next--;
	vc_publish(rig.ring);
	return rig_expect(&rig, FATE_SILENT | FATE_CLOSED);
}

static enum verdict base_ahead_of_avail(struct bed *bed, const void *arg)
{
	struct vc_options options = bed_options(bed);
	(void)arg;
	AUTO_VC vc = bed_connect(bed, &options);
	CHECK(bed, vc != NULL, "%s", bed->why);
	vc->ring[0].base = 100;
	CHECK(bed, vc_start(vc) == 0 || vu_is_closed(vc->sock), "%s", vc->error);
	usleep(20000);
	CHECK(bed, vc_used_idx(&vc->ring[0]) == 0, "the server completed %u requests", vc_used_idx(&vc->ring[0]));
	CHECK(bed, vc_ring_stop(vc, 0) != -ETIMEDOUT, "GET_VRING_BASE: neither answered nor closed");
	return PASS;
}

/* The same head again while it is in flight: at most as many completions as the index was moved. */
static enum verdict head_twice_in_flight(struct bed *bed, const void *arg)
{
	const bool *indirect = arg;
	for (unsigned round = 0; round < 20; round++) {
		AUTO_RIG rig;
		CHECK(bed, rig_open(&rig, bed), "%s", bed->why);
		if (*indirect)
			rig_make_indirect(&rig);
		struct vc_ring *ring = rig.ring;
		for (unsigned i = 0; i < 16; i++)
			ring->avail->ring[i] = 0;
		ring->avail_next = 16;
		vc_publish(ring);
		vc_notify(ring);
		usleep(2000);
		int base = vc_ring_stop(rig.vc, 0);
		CHECK(bed, base != -ETIMEDOUT, "GET_VRING_BASE: neither answered nor closed");
		CHECK(bed, vc_used_idx(ring) <= 16, "%u completions of 16", vc_used_idx(ring));
	}
	return PASS;
}

/* Kicks without requests, and kicks of a ring that is stopped. */
static enum verdict idle_kicks(struct bed *bed, const void *arg)
{
	(void)arg;
	AUTO_RIG rig;
	CHECK(bed, rig_open(&rig, bed), "%s", bed->why);
	for (unsigned i = 0; i < 1000; i++)
		vc_notify(rig.ring);
	int rc = vc_flush(rig.vc, 0);
	CHECK(bed, rc == VIRTIO_BLK_S_OK, "a flush after many kicks: %d", rc);
	CHECK(bed, vc_ring_stop(rig.vc, 0) == 1, "%s", rig.vc->error);
	for (unsigned i = 0; i < 1000; i++)
		vc_notify(rig.ring);
	CHECK(bed, vc_ring_stop(rig.vc, 0) != -ETIMEDOUT, "a second GET_VRING_BASE: neither answered nor closed");
	return PASS;
}

static const enum change size_down = CHANGE_SIZE_DOWN;
static const enum change size_up = CHANGE_SIZE_UP;
static const enum change base_changed = CHANGE_BASE;
static const enum change addr_bad = CHANGE_ADDR_BAD;
static const enum change addr_same = CHANGE_ADDR_SAME;
static const enum change features_changed = CHANGE_FEATURES;
static const uint16_t just_too_far = RIG_RING_SIZE + 1;
static const uint16_t far = 32768;
static const uint16_t almost_round = 65535;
static const bool in_ring = false;
static const bool in_table = true;

const struct test hostile_queue_tests[] = {
	{ "queue: index out of range", ring_index_out_of_range, NULL },
	{ "queue: index one too large", ring_index_just_too_large, NULL },
	{ "queue: index with high bits", ring_index_with_high_bits, NULL },
	{ "queue: size 0, not a power of two, too large", bad_queue_sizes, NULL },
	{ "queue: base wider than an index", bad_bases, NULL },
	{ "queue: started half set up", started_half_set_up, NULL },
	{ "queue: size lowered while running", changed_while_running, &size_down },
	{ "queue: size raised while running", changed_while_running, &size_up },
	{ "queue: base changed while running", changed_while_running, &base_changed },
	{ "queue: addresses spoilt while running", changed_while_running, &addr_bad },
	{ "queue: addresses repeated while running", changed_while_running, &addr_same },
	{ "queue: features changed while running", changed_while_running, &features_changed },
	{ "queue: available index jumps one too far", avail_index_jumps, &just_too_far },
	{ "queue: available index jumps half round", avail_index_jumps, &far },
	{ "queue: available index goes back from 0", avail_index_jumps, &almost_round },
	{ "queue: available index goes back", avail_index_goes_back, NULL },
	{ "queue: base ahead of the available index", base_ahead_of_avail, NULL },
	{ "queue: one head many times in flight", head_twice_in_flight, &in_ring },
	{ "queue: one indirect head many times in flight", head_twice_in_flight, &in_table },
	{ "queue: kicks without requests", idle_kicks, NULL },
	{ NULL, NULL, NULL },
};
