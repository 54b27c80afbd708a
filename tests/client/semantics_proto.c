/* Semantics of messages: what is offered, configuration space, acknowledgements, memory slots, change of size. */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "tests/client/semantics.h"
#include "tests/client/server_proc.h"

#define WCE_OFF_BYTES offsetof(struct virtio_blk_config, wce)

struct feature {
	const char *name;
	unsigned bit;
};

static const struct feature must_features[] = {
	{ "VERSION_1", VIRTIO_F_VERSION_1 },           { "PROTOCOL_FEATURES", VU_F_PROTOCOL_FEATURES },
	{ "RING_EVENT_IDX", VIRTIO_RING_F_EVENT_IDX }, { "RING_INDIRECT_DESC", VIRTIO_RING_F_INDIRECT_DESC },
	{ "BLK_SEG_MAX", VIRTIO_BLK_F_SEG_MAX },       { "BLK_BLK_SIZE", VIRTIO_BLK_F_BLK_SIZE },
	{ "BLK_FLUSH", VIRTIO_BLK_F_FLUSH },           { "BLK_TOPOLOGY", VIRTIO_BLK_F_TOPOLOGY },
	{ "BLK_CONFIG_WCE", VIRTIO_BLK_F_CONFIG_WCE }, { "BLK_MQ", VIRTIO_BLK_F_MQ },
	{ "BLK_DISCARD", VIRTIO_BLK_F_DISCARD },       { "BLK_WRITE_ZEROES", VIRTIO_BLK_F_WRITE_ZEROES },
};

static const struct feature must_protocol[] = {
	{ "MQ", VU_P_MQ },
	{ "REPLY_ACK", VU_P_REPLY_ACK },
	{ "BACKEND_REQ", VU_P_BACKEND_REQ },
	{ "CONFIG", VU_P_CONFIG },
	{ "INFLIGHT_SHMFD", VU_P_INFLIGHT_SHMFD },
	{ "CONFIGURE_MEM_SLOTS", VU_P_CONFIGURE_MEM_SLOTS },
};

static struct vc *half_open(struct bed *bed)
{
	struct vc_options options = bed_options(bed);
	return bed_connect(bed, &options);
}

static enum verdict features_offered(struct bed *bed, const void *arg)
{
	(void)arg;
	AUTO_VC vc = half_open(bed);
	CHECK(bed, vc != NULL, "%s", bed->why);
	for (unsigned i = 0; i < sizeof(must_features) / sizeof(must_features[0]); i++)
		CHECK(bed, vc->features_offered & VC_BIT(must_features[i].bit), "%s is not offered",
		      must_features[i].name);
	return PASS;
}

static enum verdict protocol_offered(struct bed *bed, const void *arg)
{
	(void)arg;
	AUTO_VC vc = half_open(bed);
	CHECK(bed, vc != NULL, "%s", bed->why);
	for (unsigned i = 0; i < sizeof(must_protocol) / sizeof(must_protocol[0]); i++)
		CHECK(bed, vc->protocol_offered & VC_BIT(must_protocol[i].bit), "%s is not offered",
		      must_protocol[i].name);
	return PASS;
}

/* ---- configuration space ---- */

static enum verdict config_of_256_bytes(struct bed *bed, const void *arg)
{
	struct vu_config request = { .size_bytes = VU_CONFIG_BYTES_MAX };
	struct vu_config answer;
	struct vu_message reply;
	(void)arg;
	AUTO_VC vc = half_open(bed);
	CHECK(bed, vc != NULL, "%s", bed->why);
	CHECK(bed, vc_ask(vc, VU_GET_CONFIG, &request, sizeof(request), &reply) == 0, "%s", vc->error);
	vu_close_fds(&reply);
	CHECK(bed, reply.header.size_bytes == sizeof(request), "answered with %u bytes, not %zu",
	      reply.header.size_bytes, sizeof(request));
	memcpy(&answer, reply.payload, sizeof(answer));
	CHECK(bed, answer.off_bytes == 0 && answer.size_bytes == VU_CONFIG_BYTES_MAX, "offset %u, size %u",
	      answer.off_bytes, answer.size_bytes);
	CHECK(bed, memcmp(answer.data, &vc->config, VC_CONFIG_BYTES) == 0, "differs from what a short request gave");
	/* Behind the last field of any virtio-blk standard so far (zoned: 96 bytes). */
	for (unsigned i = 96; i < VU_CONFIG_BYTES_MAX; i++)
		CHECK(bed, answer.data[i] == 0, "byte %u is not zero", i);
	return PASS;
}

static enum verdict config_in_pieces(struct bed *bed, const void *arg)
{
	uint8_t piece[VC_CONFIG_BYTES];
	(void)arg;
	AUTO_VC vc = half_open(bed);
	CHECK(bed, vc != NULL, "%s", bed->why);
	for (uint32_t off = 0; off < VC_CONFIG_BYTES; off += 4) {
		CHECK(bed, vc_get_config(vc, off, piece, 4) == 0, "at %u: %s", off, vc->error);
		CHECK(bed, memcmp(piece, (uint8_t *)&vc->config + off, 4) == 0, "at %u: differs from the whole", off);
	}
	return PASS;
}

static bool is_power_of_two(uint64_t value)
{
	return value != 0 && (value & (value - 1)) == 0;
}

static enum verdict config_is_sane(struct bed *bed, const void *arg)
{
	(void)arg;
	AUTO_VC vc = half_open(bed);
	CHECK(bed, vc != NULL, "%s", bed->why);
	const struct virtio_blk_config *config = &vc->config;
	CHECK(bed, config->capacity > 0 && config->capacity < UINT64_MAX / 512, "capacity %llu",
	      (unsigned long long)config->capacity);
	CHECK(bed, is_power_of_two(config->blk_size) && config->blk_size >= 512 && config->blk_size <= 4096,
	      "blk_size %u", config->blk_size);
	if (vc_has(vc, VIRTIO_BLK_F_SIZE_MAX))
		CHECK(bed, config->size_max >= 65536, "size_max %u cuts requests into crumbs", config->size_max);
	CHECK(bed, config->seg_max > 0, "seg_max is 0");
	CHECK(bed, config->num_queues > 0 && config->num_queues == vc->queues_max, "num_queues %u, GET_QUEUE_NUM %llu",
	      config->num_queues, (unsigned long long)vc->queues_max);
	CHECK(bed, !vc_has(vc, VIRTIO_BLK_F_FLUSH) || config->wce == 1, "FLUSH offered, but wce is %u", config->wce);
	CHECK(bed,
	      config->max_discard_sectors > 0 && config->max_discard_seg > 0 && config->discard_sector_alignment > 0,
	      "discard: %u sectors, %u segments, alignment %u", config->max_discard_sectors, config->max_discard_seg,
	      config->discard_sector_alignment);
	CHECK(bed, config->max_write_zeroes_sectors > 0 && config->max_write_zeroes_seg > 0,
	      "write zeroes: %u sectors, %u segments", config->max_write_zeroes_sectors, config->max_write_zeroes_seg);
	return PASS;
}

/* Without indirect tables a chain must fit the ring: seg_max pieces, a header and a status. */
static enum verdict seg_max_fits_the_ring(struct bed *bed, const void *arg)
{
	struct vc_options options = bed_options(bed);
	uint32_t seg_max;
	(void)arg;
	options.features &= ~VC_BIT(VIRTIO_RING_F_INDIRECT_DESC);
	options.ring_size = 64;
	AUTO_VC vc = bed_open(bed, &options);
	CHECK(bed, vc != NULL, "%s", bed->why);
	CHECK(bed, vc_get_config(vc, offsetof(struct virtio_blk_config, seg_max), &seg_max, 4) == 0, "%s", vc->error);
	CHECK(bed, seg_max <= options.ring_size - 2, "seg_max %u with a ring of %u and no indirect tables", seg_max,
	      options.ring_size);
	return PASS;
}

static enum verdict wce_can_be_switched(struct bed *bed, const void *arg)
{
	struct vc_options options = bed_options(bed);
	(void)arg;
	AUTO_VC vc = bed_open(bed, &options);
	CHECK(bed, vc != NULL, "%s", bed->why);
	if (!vc_has(vc, VIRTIO_BLK_F_CONFIG_WCE))
		return bed_skip(bed, "CONFIG_WCE is not offered");
	uint64_t gpa = vc_alloc(vc, 4096);
	for (uint8_t wce = 0; wce <= 1; wce++) {
		uint8_t now = 0xff;
		CHECK(bed, vc_set_config(vc, WCE_OFF_BYTES, &wce, 1, 0) == 0, "wce = %u: %s", wce, vc->error);
		CHECK(bed, vc_get_config(vc, WCE_OFF_BYTES, &now, 1) == 0, "%s", vc->error);
		CHECK(bed, now == wce, "wce set to %u reads %u", wce, now);
		CHECK(bed, vc_io(vc, 0, VIRTIO_BLK_T_OUT, 0, gpa, 4096) == 0, "a write with wce = %u", wce);
		CHECK(bed, vc_flush(vc, 0) == 0, "a flush with wce = %u", wce);
	}
	return PASS;
}

/* ---- acknowledgements ---- */

/* NEED_REPLY on a message with an answer of its own brings that one answer only. */
static enum verdict one_answer_only(struct bed *bed, const void *arg)
{
	struct vu_message reply;
	uint64_t features;
	(void)arg;
	AUTO_VC vc = half_open(bed);
	CHECK(bed, vc != NULL, "%s", bed->why);
	CHECK(bed, vu_send(vc->sock, VU_GET_FEATURES, VU_NEED_REPLY, NULL, 0, NULL, 0) == 0, "closed");
	CHECK(bed, vu_receive(vc->sock, &reply, WAIT_MS) == 0 && reply.header.size_bytes == 8, "no answer");
	int rc = vu_receive(vc->sock, &reply, QUIET_MS);
	CHECK(bed, rc == -ETIMEDOUT, "more than one answer");
	CHECK(bed, vc_ask_u64(vc, VU_GET_FEATURES, &features) == 0 && features == vc->features_offered, "%s",
	      vc->error);
	return PASS;
}

static enum verdict no_answer_unless_wanted(struct bed *bed, const void *arg)
{
	struct vu_message reply;
	struct vu_state state = { .index = 0, .num = 64 };
	(void)arg;
	AUTO_VC vc = half_open(bed);
	CHECK(bed, vc != NULL, "%s", bed->why);
	CHECK(bed, vu_send(vc->sock, VU_SET_VRING_NUM, 0, &state, sizeof(state), NULL, 0) == 0, "closed");
	CHECK(bed, vu_receive(vc->sock, &reply, QUIET_MS) == -ETIMEDOUT, "an answer nobody asked for");
	return PASS;
}

/* As the oldest front ends do: no protocol features, no acknowledgements, rings enabled from the start. */
static enum verdict without_protocol_features(struct bed *bed, const void *arg)
{
	struct vc_options options = bed_options(bed);
	(void)arg;
	options.features &= ~VC_BIT(VU_F_PROTOCOL_FEATURES);
	AUTO_VC vc = bed_open(bed, &options);
	CHECK(bed, vc != NULL, "%s", bed->why);
	int rc = vc_io(vc, 0, VIRTIO_BLK_T_IN, 0, vc_alloc(vc, 4096), 4096);
	CHECK(bed, rc == VIRTIO_BLK_S_OK, "a read: %d %s", rc, vc->error);
	CHECK(bed, vc_stop(vc) == 0 && vc->ring[0].base == 1, "%s", vc->error);
	return PASS;
}

static enum verdict without_reply_ack(struct bed *bed, const void *arg)
{
	struct vc_options options = bed_options(bed);
	(void)arg;
	options.protocol = VC_BIT(VU_P_MQ) | VC_BIT(VU_P_CONFIG);
	AUTO_VC vc = bed_open(bed, &options);
	CHECK(bed, vc != NULL, "%s", bed->why);
	int rc = vc_io(vc, 0, VIRTIO_BLK_T_IN, 0, vc_alloc(vc, 4096), 4096);
	CHECK(bed, rc == VIRTIO_BLK_S_OK, "a read: %d %s", rc, vc->error);
	return PASS;
}

/* ---- memory slots ---- */

static enum verdict memory_slots(struct bed *bed, const void *arg)
{
	struct vc_options options = bed_options(bed);
	uint64_t slots;
	(void)arg;
	options.mem_slots = true;
	options.regions = 3;
	AUTO_VC vc = bed_connect(bed, &options);
	CHECK(bed, vc != NULL, "%s", bed->why);
	if (!vc_has_protocol(vc, VU_P_CONFIGURE_MEM_SLOTS))
		return bed_skip(bed, "CONFIGURE_MEM_SLOTS is not offered");
	CHECK(bed, vc_ask_u64(vc, VU_GET_MAX_MEM_SLOTS, &slots) == 0, "%s", vc->error);
	CHECK(bed, slots >= 8, "only %llu slots", (unsigned long long)slots);
	CHECK(bed, vc_start(vc) == 0, "%s", vc->error);
	for (unsigned region = 0; region < 3; region++) {
		uint64_t gpa = vc_alloc_in(vc, region, 4096, 4096);
		int rc = vc_io(vc, 0, VIRTIO_BLK_T_IN, 0, gpa, 4096);
		CHECK(bed, rc == VIRTIO_BLK_S_OK, "a read into region %u: %d", region, rc);
	}
	return PASS;
}

static enum verdict slots_come_and_go(struct bed *bed, const void *arg)
{
	struct vc_options options = bed_options(bed);
	(void)arg;
	options.mem_slots = true;
	AUTO_VC vc = bed_open(bed, &options);
	CHECK(bed, vc != NULL, "%s", bed->why);
	if (!vc_has_protocol(vc, VU_P_CONFIGURE_MEM_SLOTS))
		return bed_skip(bed, "CONFIGURE_MEM_SLOTS is not offered");
	int region = vc_region_create(vc, 1u << 20);
	CHECK(bed, region == 1, "no second region");
	uint64_t gpa = vc_alloc_in(vc, 1, 4096, 4096);
	for (unsigned i = 0; i < 50; i++) {
		CHECK(bed, vc_region_share(vc, 1) == 0, "round %u: %s", i, vc->error);
		int rc = vc_io(vc, 0, VIRTIO_BLK_T_IN, 0, gpa, 4096);
		CHECK(bed, rc == VIRTIO_BLK_S_OK, "round %u: a read into the new region: %d", i, rc);
		CHECK(bed, vc_region_unshare(vc, 1) == 0, "round %u: %s", i, vc->error);
		rc = vc_io(vc, 0, VIRTIO_BLK_T_IN, 0, vc->ring[0].slots_gpa, 512);
		CHECK(bed, rc == VIRTIO_BLK_S_OK, "round %u: a read into the old region: %d", i, rc);
	}
	return PASS;
}

static enum verdict removed_slot_is_unmapped(struct bed *bed, const void *arg)
{
	struct vc_options options = bed_options(bed);
	(void)arg;
	options.mem_slots = true;
	AUTO_VC vc = bed_open(bed, &options);
	CHECK(bed, vc != NULL, "%s", bed->why);
	if (!vc_has_protocol(vc, VU_P_CONFIGURE_MEM_SLOTS))
		return bed_skip(bed, "CONFIGURE_MEM_SLOTS is not offered");
	if (bed->server_pid == 0)
		return bed_skip(bed, "needs --server-pid");
	int before = server_mappings(bed->server_pid, "vhost-client");
	CHECK(bed, vc_region_create(vc, 1u << 20) == 1, "no second region");
	CHECK(bed, vc_region_share(vc, 1) == 0, "%s", vc->error);
	CHECK(bed, server_mappings(bed->server_pid, "vhost-client") == before + 1, "the new region is not mapped");
	CHECK(bed, vc_region_unshare(vc, 1) == 0, "%s", vc->error);
	CHECK(bed, server_mappings(bed->server_pid, "vhost-client") == before, "the removed region is still mapped");
	return PASS;
}

/* A descriptor that comes with REM_MEM_REG is closed, and the message done all the same. */
static enum verdict stray_fd_of_removal_is_closed(struct bed *bed, const void *arg)
{
	struct vc_options options = bed_options(bed);
	(void)arg;
	options.mem_slots = true;
	AUTO_VC vc = bed_open(bed, &options);
	CHECK(bed, vc != NULL, "%s", bed->why);
	if (!vc_has_protocol(vc, VU_P_CONFIGURE_MEM_SLOTS))
		return bed_skip(bed, "CONFIGURE_MEM_SLOTS is not offered");
	int before = bed->server_pid == 0 ? 0 : server_fds(bed->server_pid);
	CHECK(bed, vc_region_create(vc, 1u << 20) == 1, "no second region");
	struct vu_mem_reg reg = { .region = vc_region_wire(vc, 1) };
	for (unsigned i = 0; i < 20; i++) {
		CHECK(bed, vc_region_share(vc, 1) == 0, "%s", vc->error);
		int rc = vc_call(vc, VU_REM_MEM_REG, &reg, sizeof(reg), &vc->region[1].fd, 1);
		CHECK(bed, rc == 0, "REM_MEM_REG with a descriptor: %s", vc->error);
	}
	int after = bed->server_pid == 0 ? 0 : server_fds(bed->server_pid);
	CHECK(bed, after <= before, "the server has %d open descriptors, before %d", after, before);
	return PASS;
}

/* SET_MEM_TABLE while rings run, as QEMU sends when memory is plugged. */
static enum verdict table_grows_while_running(struct bed *bed, const void *arg)
{
	struct vc_options options = bed_options(bed);
	(void)arg;
	options.protocol &= ~VC_BIT(VU_P_CONFIGURE_MEM_SLOTS);
	AUTO_VC vc = bed_open(bed, &options);
	CHECK(bed, vc != NULL, "%s", bed->why);
	uint64_t gpa = vc_alloc(vc, 4096);
	for (unsigned i = 0; i < 40; i++) {
		if (!submit_read(bed, vc, 0, i * 8, gpa))
			return FAIL;
	}
	vc_kick(vc, 0);
	CHECK(bed, vc_region_create(vc, 1u << 20) == 1, "no second region");
	CHECK(bed, vc_share_memory(vc) == 0, "%s", vc->error);
	if (!reap_ok(bed, vc, 0, 40))
		return FAIL;
	int rc = vc_io(vc, 0, VIRTIO_BLK_T_IN, 0, vc_alloc_in(vc, 1, 4096, 4096), 4096);
	CHECK(bed, rc == VIRTIO_BLK_S_OK, "a read into the plugged region: %d", rc);
	return PASS;
}

/* ---- change of size ---- */

static enum verdict resize_is_announced(struct bed *bed, const void *arg)
{
	struct vc_options options = bed_options(bed);
	uint64_t capacity;
	(void)arg;
	if (bed->resize_cmd == NULL)
		return bed_skip(bed, "needs --resize-cmd");
	AUTO_VC vc = bed_open(bed, &options);
	CHECK(bed, vc != NULL, "%s", bed->why);
	CHECK(bed, system(bed->resize_cmd) == 0, "'%s' failed", bed->resize_cmd);
	CHECK(bed, vc_serve_backend(vc, WAIT_MS) == 0 && vc->config_changes == 1, "no CONFIG_CHANGE came");
	CHECK(bed, vc_get_config(vc, 0, &capacity, sizeof(capacity)) == 0, "%s", vc->error);
	CHECK(bed, capacity > vc->config.capacity, "the capacity is %llu, before %llu", (unsigned long long)capacity,
	      (unsigned long long)vc->config.capacity);
	int rc = vc_io(vc, 0, VIRTIO_BLK_T_IN, capacity - 8, vc_alloc(vc, 4096), 4096);
	CHECK(bed, rc == VIRTIO_BLK_S_OK, "a read of the new last block: %d", rc);
	return PASS;
}

const struct test semantics_proto_tests[] = {
	{ "features: all that must be offered are", features_offered, NULL },
	{ "features: all protocol features that must be offered are", protocol_offered, NULL },
	{ "features: a front end without protocol features works", without_protocol_features, NULL },
	{ "features: a front end without REPLY_ACK and inflight works", without_reply_ack, NULL },
	{ "config: 256 bytes are answered in full, zero padded", config_of_256_bytes, NULL },
	{ "config: pieces equal the whole", config_in_pieces, NULL },
	{ "config: values are sane, wce is 1", config_is_sane, NULL },
	{ "config: seg_max fits a ring without indirect tables", seg_max_fits_the_ring, NULL },
	{ "config: wce can be switched", wce_can_be_switched, NULL },
	{ "reply: NEED_REPLY on a question brings one answer", one_answer_only, NULL },
	{ "reply: none unless wanted", no_answer_unless_wanted, NULL },
	{ "memory: three slots, each usable", memory_slots, NULL },
	{ "memory: slots come and go", slots_come_and_go, NULL },
	{ "memory: a removed slot is unmapped", removed_slot_is_unmapped, NULL },
	{ "memory: a stray descriptor of REM_MEM_REG is closed", stray_fd_of_removal_is_closed, NULL },
	{ "memory: the table grows while running", table_grows_while_running, NULL },
	{ "config: a resize is announced", resize_is_announced, NULL },
	{ NULL, NULL, NULL },
};
