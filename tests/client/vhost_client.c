/* Sessions of the test client: connect, negotiate, share memory, start and stop rings, in QEMU's order of messages.
 *
 * How: vc_connect does what QEMU does when the device is made, vc_start what it does when the driver says DRIVER_OK.
 * With REPLY_ACK every message that has no answer of its own is sent with NEED_REPLY, so errors surface where they
 * happen. Losing a session (vc_disconnect without vc_stop) keeps rings, requests in flight and the inflight region;
 * the next vc_start gives all of them to the new server.
 *
 * Always: vc->sock is -1 outside a session. A ring whose `running` is set at vc_start was not stopped orderly: its base
 * is taken from the used ring, read only after the new session was accepted (the old one writes no more by then). */
#include "tests/client/vhost_client.h"

#include <errno.h>
#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#define DEFAULT_WAIT_MS 5000
#define RETRY_US 500

#define KNOWN_FEATURES                                                                                        \
	(VC_BIT(VIRTIO_F_VERSION_1) | VC_BIT(VU_F_PROTOCOL_FEATURES) | VC_BIT(VIRTIO_RING_F_EVENT_IDX) |      \
	 VC_BIT(VIRTIO_RING_F_INDIRECT_DESC) | VC_BIT(VIRTIO_BLK_F_SIZE_MAX) | VC_BIT(VIRTIO_BLK_F_SEG_MAX) | \
	 VC_BIT(VIRTIO_BLK_F_RO) | VC_BIT(VIRTIO_BLK_F_BLK_SIZE) | VC_BIT(VIRTIO_BLK_F_FLUSH) |               \
	 VC_BIT(VIRTIO_BLK_F_TOPOLOGY) | VC_BIT(VIRTIO_BLK_F_CONFIG_WCE) | VC_BIT(VIRTIO_BLK_F_MQ) |          \
	 VC_BIT(VIRTIO_BLK_F_DISCARD) | VC_BIT(VIRTIO_BLK_F_WRITE_ZEROES))

#define KNOWN_PROTOCOL                                                                                  \
	(VC_BIT(VU_P_MQ) | VC_BIT(VU_P_REPLY_ACK) | VC_BIT(VU_P_CONFIG) | VC_BIT(VU_P_INFLIGHT_SHMFD) | \
	 VC_BIT(VU_P_CONFIGURE_MEM_SLOTS) | VC_BIT(VU_P_BACKEND_REQ))

/* ---- guest side ---- */

void vc_options_init(struct vc_options *options, const char *path)
{
	*options = (struct vc_options){
		.path = path,
		.features = KNOWN_FEATURES,
		.protocol = KNOWN_PROTOCOL,
		.queues = 1,
		.ring_size = 128,
		.regions = 1,
		.region_bytes = 16u << 20,
		.connect_wait_ms = DEFAULT_WAIT_MS,
		.reply_wait_ms = DEFAULT_WAIT_MS,
	};
}

struct vc *vc_create(const struct vc_options *options)
{
	struct vc *vc = calloc(1, sizeof(*vc));
	if (vc == NULL)
		return NULL;
	vc->options = *options;
	vc->sock = -1;
	vc->backend_sock = -1;
	vc->inflight_fd = -1;
	for (unsigned i = 0; i < options->regions; i++) {
		if (vc_region_create(vc, options->region_bytes) < 0) {
			vc_destroy(vc);
			return NULL;
		}
	}
	for (unsigned i = 0; i < options->queues; i++)
		vc_ring_create(vc, i, (uint16_t)options->ring_size);
	return vc;
}

static void close_fd(int *fd)
{
	if (*fd >= 0)
		close(*fd);
	*fd = -1;
}

void vc_destroy(struct vc *vc)
{
	if (vc == NULL)
		return;
	vc_disconnect(vc);
	for (unsigned i = 0; i < vc->options.queues; i++) {
		if (vc->ring[i].slot != NULL)
			vc_ring_free(&vc->ring[i]);
	}
	for (unsigned i = 0; i < vc->regions; i++) {
		munmap(vc->region[i].map, vc->region[i].size_bytes);
		close(vc->region[i].fd);
	}
	close_fd(&vc->inflight_fd);
	free(vc);
}

void vc_rings_reset(struct vc *vc)
{
	for (unsigned i = 0; i < vc->options.queues; i++)
		vc_ring_reset(&vc->ring[i]);
	close_fd(&vc->inflight_fd);
}

struct vc *vc_open(const struct vc_options *options)
{
	struct vc *vc = vc_create(options);
	if (vc == NULL) {
		fprintf(stderr, "no memory for a client\n");
		return NULL;
	}
	if (vc_connect(vc) < 0 || vc_start(vc) < 0) {
		fprintf(stderr, "%s: %s\n", options->path, vc->error);
		vc_destroy(vc);
		return NULL;
	}
	return vc;
}

void vc_close(struct vc *vc)
{
	if (vc != NULL && vc->sock >= 0)
		(void)vc_stop(vc);
	vc_destroy(vc);
}

/* ---- messages ---- */

__attribute__((format(printf, 3, 4))) static void explain(struct vc *vc, int rc, const char *format, ...)
{
	va_list args;
	va_start(args, format);
	int len = vsnprintf(vc->error, sizeof(vc->error), format, args);
	va_end(args);
	if (len >= 0 && (size_t)len < sizeof(vc->error))
		snprintf(vc->error + len, sizeof(vc->error) - (size_t)len, ": %s", strerror(-rc));
}

/* Leaves a message and is rc. A macro, so that whoever analyses the code sees that it is. */
#define fail(vc, rc, ...) (explain(vc, rc, __VA_ARGS__), (rc))

static int receive_answer(struct vc *vc, uint32_t request, struct vu_message *reply)
{
	int rc = vu_receive(vc->sock, reply, vc->options.reply_wait_ms);
	if (rc < 0)
		return fail(vc, rc, "no answer to request %u", request);
	if (reply->header.request != request || (reply->header.flags & 3) != VU_VERSION ||
	    (reply->header.flags & VU_REPLY) == 0) {
		vu_close_fds(reply);
		return fail(vc, -EPROTO, "request %u answered by request %u with flags %#x", request,
			    reply->header.request, reply->header.flags);
	}
	return 0;
}

int vc_ask(struct vc *vc, uint32_t request, const void *payload, uint32_t size_bytes, struct vu_message *reply)
{
	int rc = vu_send(vc->sock, request, 0, payload, size_bytes, NULL, 0);
	if (rc < 0)
		return fail(vc, rc, "cannot send request %u", request);
	return receive_answer(vc, request, reply);
}

int vc_ask_u64(struct vc *vc, uint32_t request, uint64_t *value)
{
	struct vu_message reply;
	int rc = vc_ask(vc, request, NULL, 0, &reply);
	if (rc < 0)
		return rc;
	vu_close_fds(&reply);
	if (reply.header.size_bytes != sizeof(*value))
		return fail(vc, -EPROTO, "answer to request %u has %u bytes", request, reply.header.size_bytes);
	memcpy(value, reply.payload, sizeof(*value));
	return 0;
}

int vc_call(struct vc *vc, uint32_t request, const void *payload, uint32_t size_bytes, const int *fd, unsigned fds)
{
	bool ack = vc_has_protocol(vc, VU_P_REPLY_ACK);
	struct vu_message reply;
	uint64_t result;

	int rc = vu_send(vc->sock, request, ack ? VU_NEED_REPLY : 0, payload, size_bytes, fd, fds);
	if (rc < 0)
		return fail(vc, rc, "cannot send request %u", request);
	if (!ack)
		return 0;
	rc = receive_answer(vc, request, &reply);
	if (rc < 0)
		return rc;
	vu_close_fds(&reply);
	if (reply.header.size_bytes != sizeof(result))
		return fail(vc, -EPROTO, "acknowledgement of request %u has %u bytes", request,
			    reply.header.size_bytes);
	memcpy(&result, reply.payload, sizeof(result));
	return result == 0 ? 0 : fail(vc, -EREMOTEIO, "request %u refused", request);
}

int vc_get_config(struct vc *vc, uint32_t off_bytes, void *into, uint32_t size_bytes)
{
	struct vu_config config = { .off_bytes = off_bytes, .size_bytes = size_bytes };
	struct vu_message reply;
	if (size_bytes > VU_CONFIG_BYTES_MAX)
		return -EINVAL;
	int rc = vc_ask(vc, VU_GET_CONFIG, &config, VU_CONFIG_HEADER_BYTES + size_bytes, &reply);
	if (rc < 0)
		return rc;
	vu_close_fds(&reply);
	if (reply.header.size_bytes != VU_CONFIG_HEADER_BYTES + size_bytes)
		return fail(vc, -EREMOTEIO, "GET_CONFIG of %u bytes answered with a payload of %u", size_bytes,
			    reply.header.size_bytes);
	memcpy(into, reply.payload + VU_CONFIG_HEADER_BYTES, size_bytes);
	return 0;
}

int vc_set_config(struct vc *vc, uint32_t off_bytes, const void *from, uint32_t size_bytes, uint32_t flags)
{
	struct vu_config config = { .off_bytes = off_bytes, .size_bytes = size_bytes, .flags = flags };
	if (size_bytes > VU_CONFIG_BYTES_MAX)
		return -EINVAL;
	memcpy(config.data, from, size_bytes);
	return vc_call(vc, VU_SET_CONFIG, &config, VU_CONFIG_HEADER_BYTES + size_bytes, NULL, 0);
}

int vc_serve_backend(struct vc *vc, int wait_ms)
{
	struct vu_message message;
	int rc = vu_receive(vc->backend_sock, &message, wait_ms);
	if (rc < 0)
		return rc;
	vu_close_fds(&message);
	uint64_t result = 1;
	if (message.header.request == VU_BACKEND_CONFIG_CHANGE) {
		vc->config_changes++;
		result = 0;
	}
	if (message.header.flags & VU_NEED_REPLY)
		rc = vu_send(vc->backend_sock, message.header.request, VU_REPLY, &result, sizeof(result), NULL, 0);
	return rc;
}

/* ---- connecting ---- */

int vc_connect_socket(struct vc *vc)
{
	vc->sock = vu_connect(vc->options.path);
	if (vc->sock >= 0)
		return 0;
	int rc = vc->sock;
	vc->sock = -1;
	return fail(vc, rc, "cannot connect to '%s'", vc->options.path);
}

static int offer_backend_channel(struct vc *vc)
{
	int pair[2];
	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) < 0)
		return -errno;
	int rc = vc_call(vc, VU_SET_BACKEND_REQ_FD, NULL, 0, &pair[1], 1);
	close(pair[1]);
	vc->backend_sock = pair[0];
	return rc;
}

static int negotiate_protocol(struct vc *vc)
{
	int rc = vc_ask_u64(vc, VU_GET_PROTOCOL_FEATURES, &vc->protocol_offered);
	if (rc < 0)
		return rc;
	uint64_t chosen = vc->protocol_offered & vc->options.protocol;
	rc = vc_call(vc, VU_SET_PROTOCOL_FEATURES, &chosen, sizeof(chosen), NULL, 0);
	if (rc < 0)
		return rc;
	vc->protocol = chosen;
	if (vc_has_protocol(vc, VU_P_MQ))
		rc = vc_ask_u64(vc, VU_GET_QUEUE_NUM, &vc->queues_max);
	if (rc == 0 && vc_has_protocol(vc, VU_P_BACKEND_REQ))
		rc = offer_backend_channel(vc);
	return rc;
}

int vc_negotiate(struct vc *vc)
{
	vc->protocol = 0;
	vc->queues_max = 1;
	int rc = vc_ask_u64(vc, VU_GET_FEATURES, &vc->features_offered);
	if (rc < 0)
		return rc;
	vc->features = vc->features_offered & vc->options.features;
	if (vc_has(vc, VU_F_PROTOCOL_FEATURES))
		rc = negotiate_protocol(vc);
	if (rc == 0)
		rc = vc_call(vc, VU_SET_OWNER, NULL, 0, NULL, 0);
	if (rc == 0 && vc_has_protocol(vc, VU_P_CONFIG))
		rc = vc_get_config(vc, 0, &vc->config, VC_CONFIG_BYTES);
	return rc;
}

/* The server is not there yet, or went away in the middle. */
static bool is_worth_retrying(int rc)
{
	return rc == -ENOENT || rc == -ECONNREFUSED || rc == -EPIPE || rc == -ECONNRESET || rc == -EAGAIN;
}

int vc_connect(struct vc *vc)
{
	uint64_t deadline_ns = vu_now_ns() + (uint64_t)vc->options.connect_wait_ms * 1000000u;
	for (;;) {
		int rc = vc_connect_socket(vc);
		if (rc == 0)
			rc = vc_negotiate(vc);
		if (rc == 0)
			return 0;
		vc_disconnect(vc);
		if (!is_worth_retrying(rc) || vu_now_ns() > deadline_ns)
			return rc;
		usleep(RETRY_US);
	}
}

void vc_disconnect(struct vc *vc)
{
	close_fd(&vc->sock);
	close_fd(&vc->backend_sock);
	for (unsigned i = 0; i < vc->regions; i++)
		vc->region[i].shared = false;
}

/* ---- starting ---- */

static int get_inflight(struct vc *vc)
{
	struct vu_inflight want = { .queues = (uint16_t)vc->options.queues,
				    .ring_size = (uint16_t)vc->options.ring_size };
	struct vu_message reply;
	int rc = vc_ask(vc, VU_GET_INFLIGHT_FD, &want, sizeof(want), &reply);
	if (rc < 0)
		return rc;
	if (reply.header.size_bytes != sizeof(vc->inflight) || reply.fds != 1) {
		vu_close_fds(&reply);
		return fail(vc, -EPROTO, "GET_INFLIGHT_FD answered with %u bytes and %u descriptors",
			    reply.header.size_bytes, reply.fds);
	}
	memcpy(&vc->inflight, reply.payload, sizeof(vc->inflight));
	vc->inflight_fd = reply.fd[0];
	return 0;
}

int vc_setup_inflight(struct vc *vc)
{
	int rc = vc->inflight_fd < 0 ? get_inflight(vc) : 0;
	if (rc < 0)
		return rc;
	return vc_call(vc, VU_SET_INFLIGHT_FD, &vc->inflight, sizeof(vc->inflight), &vc->inflight_fd, 1);
}

int vc_send_features(struct vc *vc)
{
	return vc_call(vc, VU_SET_FEATURES, &vc->features, sizeof(vc->features), NULL, 0);
}

int vc_region_share(struct vc *vc, unsigned region)
{
	struct vu_mem_reg reg = { .region = vc_region_wire(vc, region) };
	int rc = vc_call(vc, VU_ADD_MEM_REG, &reg, sizeof(reg), &vc->region[region].fd, 1);
	if (rc == 0)
		vc->region[region].shared = true;
	return rc;
}

int vc_region_unshare(struct vc *vc, unsigned region)
{
	struct vu_mem_reg reg = { .region = vc_region_wire(vc, region) };
	int rc = vc_call(vc, VU_REM_MEM_REG, &reg, sizeof(reg), NULL, 0);
	if (rc == 0)
		vc->region[region].shared = false;
	return rc;
}

static int share_by_slots(struct vc *vc)
{
	for (unsigned i = 0; i < vc->regions; i++) {
		int rc = vc_region_share(vc, i);
		if (rc < 0)
			return rc;
	}
	return 0;
}

int vc_share_memory(struct vc *vc)
{
	struct vu_mem_table table = { .count = vc->regions };
	int fd[VU_REGIONS_MAX];

	if (vc->options.mem_slots)
		return share_by_slots(vc);
	if (vc->regions > VU_REGIONS_MAX)
		return fail(vc, -E2BIG, "%u regions do not fit a memory table", vc->regions);
	for (unsigned i = 0; i < vc->regions; i++) {
		table.region[i] = vc_region_wire(vc, i);
		fd[i] = vc->region[i].fd;
	}
	uint32_t size_bytes = (uint32_t)(offsetof(struct vu_mem_table, region) + vc->regions * sizeof(table.region[0]));
	return vc_call(vc, VU_SET_MEM_TABLE, &table, size_bytes, fd, vc->regions);
}

int vc_ring_send_addr(struct vc *vc, unsigned queue)
{
	const struct vc_ring *ring = &vc->ring[queue];
	struct vu_addr addr = {
		.index = queue,
		.desc_uva = ring->desc_gpa + VC_UVA_SHIFT,
		.avail_uva = ring->avail_gpa + VC_UVA_SHIFT,
		.used_uva = ring->used_gpa + VC_UVA_SHIFT,
	};
	return vc_call(vc, VU_SET_VRING_ADDR, &addr, sizeof(addr), NULL, 0);
}

int vc_ring_send_fd(struct vc *vc, uint32_t request, unsigned queue, int fd)
{
	uint64_t payload = queue;
	return vc_call(vc, request, &payload, sizeof(payload), &fd, 1);
}

static int send_state(struct vc *vc, uint32_t request, unsigned queue, uint32_t num)
{
	struct vu_state state = { .index = queue, .num = num };
	return vc_call(vc, request, &state, sizeof(state), NULL, 0);
}

static void renew_eventfd(int *fd)
{
	close_fd(fd);
	*fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (*fd < 0)
		abort();
}

/* What the driver wants to be told before the device looks at the ring. */
static void set_call_wish(struct vc *vc, struct vc_ring *ring)
{
	if (vc->options.interrupts) {
		vc_want_call(vc, ring->index, 0);
		return;
	}
	ring->event_set = ring->used_seen;
	ring->avail->flags = VRING_AVAIL_F_NO_INTERRUPT;
	ring->avail->ring[ring->size] = (uint16_t)(ring->used_seen - 1);
}

int vc_ring_setup(struct vc *vc, unsigned queue)
{
	struct vc_ring *ring = &vc->ring[queue];
	if (ring->running)
		ring->base = vc_used_idx(ring);
	set_call_wish(vc, ring);
	renew_eventfd(&ring->kick_fd);
	renew_eventfd(&ring->call_fd);
	renew_eventfd(&ring->err_fd);
	int rc = send_state(vc, VU_SET_VRING_NUM, queue, ring->size);
	if (rc == 0)
		rc = send_state(vc, VU_SET_VRING_BASE, queue, ring->base);
	if (rc == 0)
		rc = vc_ring_send_addr(vc, queue);
	if (rc == 0)
		rc = vc_ring_send_fd(vc, VU_SET_VRING_ERR, queue, ring->err_fd);
	if (rc == 0)
		rc = vc_ring_send_fd(vc, VU_SET_VRING_KICK, queue, ring->kick_fd);
	if (rc == 0)
		rc = vc_ring_send_fd(vc, VU_SET_VRING_CALL, queue, ring->call_fd);
	if (rc == 0)
		ring->running = true;
	return rc;
}

int vc_ring_enable(struct vc *vc, unsigned queue, bool on)
{
	return send_state(vc, VU_SET_VRING_ENABLE, queue, on);
}

int vc_start(struct vc *vc)
{
	if (vc->options.queues > vc->queues_max)
		return fail(vc, -EINVAL, "the server has only %llu queues", (unsigned long long)vc->queues_max);
	int rc = vc_has_protocol(vc, VU_P_INFLIGHT_SHMFD) ? vc_setup_inflight(vc) : 0;
	if (rc == 0)
		rc = vc_send_features(vc);
	if (rc == 0)
		rc = vc_share_memory(vc);
	for (unsigned i = 0; rc == 0 && i < vc->options.queues; i++)
		rc = vc_ring_setup(vc, i);
	if (!vc_has(vc, VU_F_PROTOCOL_FEATURES))
		goto kick;
	for (unsigned i = 0; rc == 0 && i < vc->options.queues; i++)
		rc = vc_ring_enable(vc, i, true);
kick:
	for (unsigned i = 0; rc == 0 && i < vc->options.queues; i++)
		vc_notify(&vc->ring[i]);
	return rc;
}

int vc_ring_stop(struct vc *vc, unsigned queue)
{
	struct vu_state state = { .index = queue };
	struct vu_message reply;
	int rc = vc_ask(vc, VU_GET_VRING_BASE, &state, sizeof(state), &reply);
	if (rc < 0)
		return rc;
	vu_close_fds(&reply);
	if (reply.header.size_bytes != sizeof(state))
		return fail(vc, -EPROTO, "GET_VRING_BASE answered with %u bytes", reply.header.size_bytes);
	memcpy(&state, reply.payload, sizeof(state));
	if (state.index != queue || state.num > UINT16_MAX)
		return fail(vc, -EPROTO, "GET_VRING_BASE answered ring %u, index %u", state.index, state.num);
	vc->ring[queue].base = (uint16_t)state.num;
	vc->ring[queue].running = false;
	return (int)state.num;
}

int vc_stop(struct vc *vc)
{
	int rc = 0;
	for (unsigned i = 0; rc >= 0 && i < vc->options.queues; i++)
		rc = vc_ring_stop(vc, i);
	return rc < 0 ? rc : 0;
}
