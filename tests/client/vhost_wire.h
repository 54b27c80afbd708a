/* vhost-user messages as a front end speaks them: numbers, payload layouts, and sending and receiving one message.
 *
 * Test code, written from the specification (QEMU docs/interop/vhost-user.rst) and on purpose independent of targets/:
 * a misreading in the server must not be repeated here. All numbers are in native byte order, as the protocol says;
 * the tests run on little-endian hosts only. Nothing here validates what is sent: hostile tests send anything. */
#ifndef TESTS_CLIENT_VHOST_WIRE_H
#define TESTS_CLIENT_VHOST_WIRE_H

#include <assert.h>
#include <stddef.h>
#include <stdint.h>

enum vu_request {
	VU_GET_FEATURES = 1,
	VU_SET_FEATURES = 2,
	VU_SET_OWNER = 3,
	VU_RESET_OWNER = 4,
	VU_SET_MEM_TABLE = 5,
	VU_SET_LOG_BASE = 6,
	VU_SET_LOG_FD = 7,
	VU_SET_VRING_NUM = 8,
	VU_SET_VRING_ADDR = 9,
	VU_SET_VRING_BASE = 10,
	VU_GET_VRING_BASE = 11,
	VU_SET_VRING_KICK = 12,
	VU_SET_VRING_CALL = 13,
	VU_SET_VRING_ERR = 14,
	VU_GET_PROTOCOL_FEATURES = 15,
	VU_SET_PROTOCOL_FEATURES = 16,
	VU_GET_QUEUE_NUM = 17,
	VU_SET_VRING_ENABLE = 18,
	VU_SET_BACKEND_REQ_FD = 21,
	VU_IOTLB_MSG = 22,
	VU_GET_CONFIG = 24,
	VU_SET_CONFIG = 25,
	VU_POSTCOPY_ADVISE = 28,
	VU_GET_INFLIGHT_FD = 31,
	VU_SET_INFLIGHT_FD = 32,
	VU_RESET_DEVICE = 34,
	VU_GET_MAX_MEM_SLOTS = 36,
	VU_ADD_MEM_REG = 37,
	VU_REM_MEM_REG = 38,
	VU_SET_DEVICE_STATE_FD = 42,
	VU_CHECK_DEVICE_STATE = 43,
};

enum vu_backend_request { VU_BACKEND_CONFIG_CHANGE = 2 };

/* Header flags. */
#define VU_VERSION 0x1u
#define VU_REPLY 0x4u
#define VU_NEED_REPLY 0x8u

/* Feature bit that offers protocol features. */
#define VU_F_PROTOCOL_FEATURES 30

/* Protocol feature bits. */
#define VU_P_MQ 0
#define VU_P_LOG_SHMFD 1
#define VU_P_REPLY_ACK 3
#define VU_P_BACKEND_REQ 5
#define VU_P_CONFIG 9
#define VU_P_INFLIGHT_SHMFD 12
#define VU_P_RESET_DEVICE 13
#define VU_P_CONFIGURE_MEM_SLOTS 15
#define VU_P_DEVICE_STATE 19

/* Bit 8 of a KICK, CALL or ERR payload: no descriptor comes with the message. */
#define VU_RING_NO_FD 0x100u

/* Flag of SET_CONFIG sent on behalf of live migration. */
#define VU_CONFIG_MIGRATION 1u

struct vu_header {
	uint32_t request;
	uint32_t flags;
	uint32_t size_bytes;
};
static_assert(sizeof(struct vu_header) == 12, "header");

struct vu_state {
	uint32_t index;
	uint32_t num;
};
static_assert(sizeof(struct vu_state) == 8, "vring state");

struct vu_addr {
	uint32_t index;
	uint32_t flags;
	uint64_t desc_uva;
	uint64_t used_uva;
	uint64_t avail_uva;
	uint64_t log_gpa;
};
static_assert(sizeof(struct vu_addr) == 40, "vring address");

struct vu_region {
	uint64_t gpa;
	uint64_t size_bytes;
	uint64_t uva;
	uint64_t off_bytes;
};
static_assert(sizeof(struct vu_region) == 32, "memory region");

#define VU_REGIONS_MAX 8
struct vu_mem_table {
	uint32_t count;
	uint32_t padding;
	struct vu_region region[VU_REGIONS_MAX];
};
static_assert(sizeof(struct vu_mem_table) == 8 + 8 * 32, "memory table");

struct vu_mem_reg {
	uint64_t padding;
	struct vu_region region;
};
static_assert(sizeof(struct vu_mem_reg) == 40, "single region");

/* 20 bytes of fields; QEMU sends and expects the C struct's 24. */
struct vu_inflight {
	uint64_t size_bytes;
	uint64_t off_bytes;
	uint16_t queues;
	uint16_t ring_size;
	uint8_t padding[4];
};
static_assert(sizeof(struct vu_inflight) == 24, "inflight description");

#define VU_CONFIG_HEADER_BYTES 12
#define VU_CONFIG_BYTES_MAX 256
struct vu_config {
	uint32_t off_bytes;
	uint32_t size_bytes;
	uint32_t flags;
	uint8_t data[VU_CONFIG_BYTES_MAX];
};
static_assert(offsetof(struct vu_config, data) == VU_CONFIG_HEADER_BYTES, "config header");

struct vu_log {
	uint64_t size_bytes;
	uint64_t off_bytes;
};
static_assert(sizeof(struct vu_log) == 16, "dirty log description");

/* One queue of the inflight region (split ring). The region belongs to the server; tests read and corrupt it. */
struct vu_inflight_desc {
	uint8_t inflight;
	uint8_t padding[5];
	uint16_t next;
	uint64_t counter;
};
static_assert(sizeof(struct vu_inflight_desc) == 16, "inflight descriptor state");

struct vu_inflight_queue {
	uint64_t features;
	uint16_t version;
	uint16_t desc_num;
	uint16_t last_batch_head;
	uint16_t used_idx;
	struct vu_inflight_desc desc[];
};
static_assert(sizeof(struct vu_inflight_queue) == 16, "inflight queue header");

#define VU_PAYLOAD_BYTES_MAX 4096
#define VU_FDS_MAX 16

/* A received message. The receiver owns the descriptors in `fd`: vu_close_fds. */
struct vu_message {
	struct vu_header header;
	uint8_t payload[VU_PAYLOAD_BYTES_MAX];
	int fd[VU_FDS_MAX];
	unsigned fds;
};

/* Connects to a listening socket once. Returns the descriptor or -errno; -EAGAIN when too many others wait. */
int vu_connect(const char *path);

/* Sends any bytes with any descriptors (at most 253, the kernel's limit) in one sendmsg. 0 or -errno; -EAGAIN when the
 * server does not take them for 2 seconds. */
int vu_send_bytes(int sock, const void *bytes, size_t len_bytes, const int *fd, unsigned fds);

/* Sends one message; the header's size is the payload's. */
int vu_send(int sock, uint32_t request, uint32_t flags, const void *payload, uint32_t size_bytes, const int *fd,
	    unsigned fds);

/* Receives one whole message. 0, -EPIPE (server closed), -ETIMEDOUT, -EPROTO (larger than VU_PAYLOAD_BYTES_MAX), or
 * another -errno. */
int vu_receive(int sock, struct vu_message *message, int wait_ms);
void vu_close_fds(struct vu_message *message);

/* True if the other side has closed, leaving unread bytes where they are. */
int vu_is_closed(int sock);

/* CLOCK_MONOTONIC. */
uint64_t vu_now_ns(void);

#endif
