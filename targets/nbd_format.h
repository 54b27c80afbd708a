/* NBD on the wire: fixed newstyle handshake and transmission, as doc/proto.md of NetworkBlockDevice/nbd has it.
 * All integers are big-endian.
 *
 * Handshake. The server greets, the client answers with its flags, then sends options until one starts the transmission:
 *
 *     greeting        server   magic 8 "NBDMAGIC", option magic 8 "IHAVEOPT", handshake flags 2
 *     client flags    client   flags 4
 *     option          client   option magic 8, option 4, length 4, data
 *     option reply    server   reply magic 8, option 4, reply type 4, length 4, data
 *     export name     server   size 8, transmission flags 2, 124 zeroes unless NO_ZEROES; answers EXPORT_NAME only
 *
 *     data of INFO, GO              name length 4, name, count 2, count x information type 2
 *     data of LIST/SET_META_CONTEXT name length 4, name, count 4, count x { query length 4, query }
 *     data of the reply SERVER      name length 4, name
 *     data of the reply INFO        information type 2, and what belongs to it
 *     data of the reply META_CONTEXT context id 4, name
 *     data of an error reply        a text for a person, or nothing
 *
 * Transmission:
 *
 *     request         client   magic 4, flags 2, type 2, cookie 8, offset 8, length 4; WRITE: data
 *     simple reply    server   magic 4, error 4, cookie 8; READ without error: data
 *     reply chunk     server   magic 4, flags 2, type 2, cookie 8, length 4, payload
 *
 *     payload of OFFSET_DATA        offset 8, data
 *     payload of BLOCK_STATUS       context id 4, then { length 4, status flags 4 } each
 *     payload of ERROR              error 4, message length 2, message
 *
 * A client's message is valid if and only if the functions of nbd_proto.h say so. */
#ifndef TARGETS_NBD_FORMAT_H
#define TARGETS_NBD_FORMAT_H

#include <assert.h>
#include <stddef.h>

#include "pool/base/be.h"

#define NBD_MAGIC 0x4e42444d41474943ull
#define NBD_OPTION_MAGIC 0x49484156454f5054ull
#define NBD_OPTION_REPLY_MAGIC 0x0003e889045565a9ull
#define NBD_REQUEST_MAGIC 0x25609513u
#define NBD_SIMPLE_REPLY_MAGIC 0x67446698u
#define NBD_CHUNK_MAGIC 0x668e33efu

/* ---- handshake ---- */

/* Handshake flags and the client's answer to them have the same bits. */
#define NBD_FIXED_NEWSTYLE (1u << 0)
#define NBD_NO_ZEROES (1u << 1)

/* X(name, number) */
#define NBD_OPTIONS(X)          \
	X(EXPORT_NAME, 1)       \
	X(ABORT, 2)             \
	X(LIST, 3)              \
	X(STARTTLS, 5)          \
	X(INFO, 6)              \
	X(GO, 7)                \
	X(STRUCTURED_REPLY, 8)  \
	X(LIST_META_CONTEXT, 9) \
	X(SET_META_CONTEXT, 10)

enum nbd_option_type {
#define X(name, number) NBD_OPT_##name = (number),
	NBD_OPTIONS(X)
#undef X
};

#define NBD_REP_ERROR (1u << 31)

/* X(name, number) */
#define NBD_OPTION_REPLIES(X)               \
	X(ACK, 1u)                          \
	X(SERVER, 2u)                       \
	X(INFO, 3u)                         \
	X(META_CONTEXT, 4u)                 \
	X(ERR_UNSUP, NBD_REP_ERROR | 1u)    \
	X(ERR_POLICY, NBD_REP_ERROR | 2u)   \
	X(ERR_INVALID, NBD_REP_ERROR | 3u)  \
	X(ERR_TLS_REQD, NBD_REP_ERROR | 5u) \
	X(ERR_UNKNOWN, NBD_REP_ERROR | 6u)  \
	X(ERR_SHUTDOWN, NBD_REP_ERROR | 7u) \
	X(ERR_TOO_BIG, NBD_REP_ERROR | 9u)

#define X(name, number) static const uint32_t NBD_REP_##name = (number);
NBD_OPTION_REPLIES(X)
#undef X

enum nbd_info_type {
	NBD_INFO_EXPORT = 0,
	NBD_INFO_NAME = 1,
	NBD_INFO_DESCRIPTION = 2,
	NBD_INFO_BLOCK_SIZE = 3,
};

/* Transmission flags: what the export can do. */
#define NBD_FLAG_HAS_FLAGS (1u << 0)
#define NBD_FLAG_READ_ONLY (1u << 1)
#define NBD_FLAG_SEND_FLUSH (1u << 2)
#define NBD_FLAG_SEND_FUA (1u << 3)
#define NBD_FLAG_SEND_TRIM (1u << 5)
#define NBD_FLAG_SEND_WRITE_ZEROES (1u << 6)
#define NBD_FLAG_SEND_DF (1u << 7)
#define NBD_FLAG_CAN_MULTI_CONN (1u << 8)
#define NBD_FLAG_SEND_CACHE (1u << 10)
#define NBD_FLAG_SEND_FAST_ZERO (1u << 11)

struct nbd_greeting {
	be64 magic;
	be64 option_magic;
	be16 flags;
};

struct nbd_option {
	be64 magic;
	be32 option;
	be32 len_bytes;
};

struct nbd_option_reply {
	be64 magic;
	be32 option;
	be32 type;
	be32 len_bytes;
};

/* Without NO_ZEROES all of it, with it all before `zeroes`. */
struct nbd_export_name_reply {
	be64 size_bytes;
	be16 flags;
	uint8_t zeroes[124];
};

struct nbd_info_export {
	be16 type;
	be64 size_bytes;
	be16 flags;
};

struct nbd_info_block_size {
	be16 type;
	be32 min_bytes, preferred_bytes, payload_bytes_max;
};

static_assert(sizeof(struct nbd_greeting) == 18, "greeting");
static_assert(sizeof(struct nbd_option) == 16, "option");
static_assert(sizeof(struct nbd_option_reply) == 20, "option reply");
static_assert(sizeof(struct nbd_export_name_reply) == 134, "answer to EXPORT_NAME");
static_assert(offsetof(struct nbd_export_name_reply, zeroes) == 10, "answer to EXPORT_NAME");
static_assert(sizeof(struct nbd_info_export) == 12, "information: export");
static_assert(sizeof(struct nbd_info_block_size) == 14, "information: block size");

/* ---- transmission ---- */

/* X(name, number) */
#define NBD_COMMANDS(X)    \
	X(READ, 0)         \
	X(WRITE, 1)        \
	X(DISC, 2)         \
	X(FLUSH, 3)        \
	X(TRIM, 4)         \
	X(CACHE, 5)        \
	X(WRITE_ZEROES, 6) \
	X(BLOCK_STATUS, 7)

enum nbd_command {
#define X(name, number) NBD_CMD_##name = (number),
	NBD_COMMANDS(X)
#undef X
};

#define NBD_CMD_FLAG_FUA (1u << 0)
#define NBD_CMD_FLAG_NO_HOLE (1u << 1)
#define NBD_CMD_FLAG_DF (1u << 2)
#define NBD_CMD_FLAG_REQ_ONE (1u << 3)
#define NBD_CMD_FLAG_FAST_ZERO (1u << 4)

/* X(name, number) */
#define NBD_ERRORS(X)    \
	X(EPERM, 1)      \
	X(EIO, 5)        \
	X(ENOMEM, 12)    \
	X(EINVAL, 22)    \
	X(ENOSPC, 28)    \
	X(EOVERFLOW, 75) \
	X(ENOTSUP, 95)   \
	X(ESHUTDOWN, 108)

enum nbd_error {
#define X(name, number) NBD_##name = (number),
	NBD_ERRORS(X)
#undef X
};

enum nbd_chunk_type {
	NBD_CHUNK_NONE = 0,
	NBD_CHUNK_OFFSET_DATA = 1,
	NBD_CHUNK_OFFSET_HOLE = 2,
	NBD_CHUNK_BLOCK_STATUS = 5,
	NBD_CHUNK_ERROR = 0x8001,
};

#define NBD_CHUNK_FLAG_DONE (1u << 0)

/* Status flag of poold:changed-since:SNAPSHOT, which has the place that qemu:dirty-bitmap:NAME gives its own. */
#define NBD_STATE_CHANGED (1u << 0)

/* Status flags of base:allocation. */
#define NBD_STATE_HOLE (1u << 0)
#define NBD_STATE_ZERO (1u << 1)

struct nbd_request {
	be32 magic;
	be16 flags;
	be16 type;
	be64 cookie;
	be64 off_bytes;
	be32 len_bytes;
};

struct nbd_simple_reply {
	be32 magic;
	be32 error;
	be64 cookie;
};

struct nbd_chunk {
	be32 magic;
	be16 flags;
	be16 type;
	be64 cookie;
	be32 len_bytes;
};

struct nbd_chunk_data {
	struct nbd_chunk chunk;
	be64 off_bytes;
};

struct nbd_chunk_error {
	struct nbd_chunk chunk;
	be32 error;
	be16 message_bytes;
};

struct nbd_chunk_status {
	struct nbd_chunk chunk;
	be32 context;
};

struct nbd_extent {
	be32 len_bytes;
	be32 flags;
};

static_assert(sizeof(struct nbd_request) == 28, "request");
static_assert(sizeof(struct nbd_simple_reply) == 16, "simple reply");
static_assert(sizeof(struct nbd_chunk) == 20, "reply chunk");
static_assert(sizeof(struct nbd_chunk_data) == 28, "reply chunk with data");
static_assert(sizeof(struct nbd_chunk_error) == 26, "reply chunk with an error");
static_assert(sizeof(struct nbd_chunk_status) == 24, "reply chunk with block status");
static_assert(sizeof(struct nbd_extent) == 8, "extent of block status");

#endif
