/* vhost-user messages as they stand on the socket (QEMU docs/interop/vhost-user.rst). Numbers are in the byte order of the
 * machine; this code runs on little-endian machines only.
 *
 *     header     0  le32  request        enum vhost_request
 *                4  le32  flags          bits 0-1 version (1), 2 reply, 3 need_reply
 *                8  le32  size           bytes of payload
 *     payload   12        see the structs, and the table below for who has which
 *
 * Descriptors travel as ancillary data of any part of the message.
 *
 * A request is valid if and only if: version is 1, reply is clear, no other flag bit is set; it is in the table, with a
 * payload and a number of descriptors within the bounds given there; and its protocol feature is negotiated. What the
 * payload may say is for its handler to check. */
#ifndef TARGETS_VHOST_FORMAT_H
#define TARGETS_VHOST_FORMAT_H

#include <assert.h>
#include <stddef.h>

#include "pool/base/le.h"

struct vhost_header {
	le32 request;
	le32 flags;
	le32 size;
};
static_assert(sizeof(struct vhost_header) == 12, "header");

#define VHOST_FLAG_VERSION 0x1u
#define VHOST_FLAG_VERSION_MASK 0x3u
#define VHOST_FLAG_REPLY 0x4u
#define VHOST_FLAG_NEED_REPLY 0x8u

struct vhost_state {
	le32 index;
	le32 num;
};
static_assert(sizeof(struct vhost_state) == 8, "ring state");

struct vhost_addr {
	le32 index;
	le32 flags;
	le64 desc_uva;
	le64 used_uva;
	le64 avail_uva;
	le64 log_gpa;
};
static_assert(sizeof(struct vhost_addr) == 40, "ring addresses");
#define VHOST_ADDR_FLAG_LOG 0x1u

struct vhost_region {
	le64 gpa;
	le64 len_bytes;
	le64 uva;
	le64 off_bytes;
};
static_assert(sizeof(struct vhost_region) == 32, "memory region");

/* Regions of one SET_MEM_TABLE, as many descriptors of one message. */
#define VHOST_TABLE_REGIONS_MAX 8
struct vhost_table {
	le32 count;
	le32 padding;
	struct vhost_region region[VHOST_TABLE_REGIONS_MAX];
};
static_assert(sizeof(struct vhost_table) == 8 + 32 * VHOST_TABLE_REGIONS_MAX, "memory table");
#define VHOST_TABLE_HEAD_BYTES 8

struct vhost_slot {
	le64 padding;
	struct vhost_region region;
};
static_assert(sizeof(struct vhost_slot) == 40, "memory slot");

#define VHOST_CONFIG_DATA_MAX 256
struct vhost_config {
	le32 off_bytes;
	le32 len_bytes;
	le32 flags;
	uint8_t data[VHOST_CONFIG_DATA_MAX];
};
static_assert(offsetof(struct vhost_config, data) == 12, "configuration access");
#define VHOST_CONFIG_HEAD_BYTES 12
#define VHOST_CONFIG_FLAG_MIGRATION 0x1u

/* 20 bytes of fields. QEMU and others send the C struct with its padding, and expect the same back. */
struct vhost_inflight {
	le64 len_bytes;
	le64 off_bytes;
	le16 queues;
	le16 ring_size;
	le32 padding;
};
static_assert(sizeof(struct vhost_inflight) == 24, "inflight description");
#define VHOST_INFLIGHT_BYTES_MIN 20

/* KICK, CALL and ERR: a 64-bit payload of ring number and a flag. */
#define VHOST_RING_FD_INDEX_MASK 0xffull
#define VHOST_RING_FD_NONE 0x100ull

#define VHOST_F_PROTOCOL_FEATURES_BIT 30

enum vhost_protocol_feature {
	VHOST_P_MQ = 0,
	VHOST_P_LOG_SHMFD = 1,
	VHOST_P_REPLY_ACK = 3,
	VHOST_P_BACKEND_REQ = 5,
	VHOST_P_CONFIG = 9,
	VHOST_P_INFLIGHT_SHMFD = 12,
	VHOST_P_RESET_DEVICE = 13,
	VHOST_P_CONFIGURE_MEM_SLOTS = 15,
	VHOST_P_DEVICE_STATE = 19,
	VHOST_P_NONE = 64,             /* needs no protocol feature */
};

#define U64_BYTES 8
#define STATE_BYTES sizeof(struct vhost_state)

/* X(name, number, payload min, payload max, descriptors min, descriptors max, protocol feature). The requests we know.
 * To add one: 1 a row here; 2 a payload struct above and in union vhost_payload; 3 a handler in vhost_user.c's table. */
#define VHOST_REQUESTS(X)                                                                            \
	X(GET_FEATURES, 1, 0, 0, 0, 0, VHOST_P_NONE)                                                 \
	X(SET_FEATURES, 2, U64_BYTES, U64_BYTES, 0, 0, VHOST_P_NONE)                                 \
	X(SET_OWNER, 3, 0, 0, 0, 0, VHOST_P_NONE)                                                    \
	X(RESET_OWNER, 4, 0, 0, 0, 0, VHOST_P_NONE)                                                  \
	X(SET_MEM_TABLE, 5, VHOST_TABLE_HEAD_BYTES, sizeof(struct vhost_table), 0,                   \
	  VHOST_TABLE_REGIONS_MAX, VHOST_P_NONE)                                                     \
	X(SET_VRING_NUM, 8, STATE_BYTES, STATE_BYTES, 0, 0, VHOST_P_NONE)                            \
	X(SET_VRING_ADDR, 9, sizeof(struct vhost_addr), sizeof(struct vhost_addr), 0, 0, VHOST_P_NONE) \
	X(SET_VRING_BASE, 10, STATE_BYTES, STATE_BYTES, 0, 0, VHOST_P_NONE)                          \
	X(GET_VRING_BASE, 11, STATE_BYTES, STATE_BYTES, 0, 0, VHOST_P_NONE)                          \
	X(SET_VRING_KICK, 12, U64_BYTES, U64_BYTES, 0, 1, VHOST_P_NONE)                              \
	X(SET_VRING_CALL, 13, U64_BYTES, U64_BYTES, 0, 1, VHOST_P_NONE)                              \
	X(SET_VRING_ERR, 14, U64_BYTES, U64_BYTES, 0, 1, VHOST_P_NONE)                               \
	X(GET_PROTOCOL_FEATURES, 15, 0, 0, 0, 0, VHOST_P_NONE)                                       \
	X(SET_PROTOCOL_FEATURES, 16, U64_BYTES, U64_BYTES, 0, 0, VHOST_P_NONE)                       \
	X(GET_QUEUE_NUM, 17, 0, 0, 0, 0, VHOST_P_MQ)                                                 \
	X(SET_VRING_ENABLE, 18, STATE_BYTES, STATE_BYTES, 0, 0, VHOST_P_NONE)                        \
	X(SET_BACKEND_REQ_FD, 21, 0, 0, 1, 1, VHOST_P_BACKEND_REQ)                                   \
	X(GET_CONFIG, 24, VHOST_CONFIG_HEAD_BYTES, sizeof(struct vhost_config), 0, 0, VHOST_P_CONFIG) \
	X(SET_CONFIG, 25, VHOST_CONFIG_HEAD_BYTES, sizeof(struct vhost_config), 0, 0, VHOST_P_CONFIG) \
	X(GET_INFLIGHT_FD, 31, VHOST_INFLIGHT_BYTES_MIN, sizeof(struct vhost_inflight), 0, 0,        \
	  VHOST_P_INFLIGHT_SHMFD)                                                                    \
	X(SET_INFLIGHT_FD, 32, VHOST_INFLIGHT_BYTES_MIN, sizeof(struct vhost_inflight), 1, 1,        \
	  VHOST_P_INFLIGHT_SHMFD)                                                                    \
	X(GET_MAX_MEM_SLOTS, 36, 0, 0, 0, 0, VHOST_P_CONFIGURE_MEM_SLOTS)                            \
	X(ADD_MEM_REG, 37, sizeof(struct vhost_slot), sizeof(struct vhost_slot), 1, 1,               \
	  VHOST_P_CONFIGURE_MEM_SLOTS)                                                               \
	/* Some front ends send a descriptor with it; it is closed. */                               \
	X(REM_MEM_REG, 38, sizeof(struct vhost_slot), sizeof(struct vhost_slot), 0, 1,               \
	  VHOST_P_CONFIGURE_MEM_SLOTS)

enum vhost_request {
#define X(name, number, ...) VHOST_##name = number,
	VHOST_REQUESTS(X)
#undef X
	VHOST_REQUEST_END,             /* one more than the highest */
};

/* What we send on the back end's own channel. */
enum vhost_backend_request {
	VHOST_BACKEND_CONFIG_CHANGE = 2,
};

union vhost_payload {
	le64 u64;
	struct vhost_state state;
	struct vhost_addr addr;
	struct vhost_table table;
	struct vhost_slot slot;
	struct vhost_config config;
	struct vhost_inflight inflight;
};
#define VHOST_PAYLOAD_BYTES_MAX sizeof(union vhost_payload)

#endif
