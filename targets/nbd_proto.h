/* What an NBD client may say: limits, decoding, validation, and the names of things. Bytes: nbd_format.h.
 *
 * Every message of a client passes one function here, once; whatever comes after relies on it. Nothing here waits,
 * allocates or touches a socket. Any thread. */
#ifndef TARGETS_NBD_PROTO_H
#define TARGETS_NBD_PROTO_H

#include <stdbool.h>
#include <stdint.h>

#include "targets/nbd_format.h"

/* Of any string on the wire. */
#define NBD_NAME_BYTES_MAX 4096u
/* Data of an option. A longer one ends the connection: no honest client sends it, and skipping 4 GiB is no service. */
#define NBD_OPTION_BYTES_MAX 65536u
/* Options of one handshake. */
#define NBD_OPTIONS_MAX 64u
/* Data of one READ or WRITE. */
#define NBD_PAYLOAD_BYTES_MAX (32u << 20)
#define NBD_BLOCK_BYTES_MIN 512u
#define NBD_BLOCK_BYTES_PREFERRED 4096u

/* Queries in one option about metadata contexts. */
#define NBD_QUERIES_MAX 64u

/* Metadata contexts. The second is followed by the name of a snapshot. */
#define NBD_CONTEXT_ALLOCATION "base:allocation"
#define NBD_CONTEXT_CHANGED_SINCE "poold:changed-since:"

/* A string inside a message, not terminated. */
struct nbd_text {
	const uint8_t *bytes;
	uint32_t len_bytes;
};

bool nbd_text_is(struct nbd_text text, const char *string);

/* ---- options ---- */

/* Data of INFO and GO. */
struct nbd_info_option {
	struct nbd_text name;
	const be16 *types;
	uint16_t type_count;
};

/* Data of LIST_META_CONTEXT and SET_META_CONTEXT. */
struct nbd_meta_option {
	struct nbd_text name;
	uint32_t query_count;
	const uint8_t *queries;
	uint32_t queries_bytes;
};

/* 0; -EINVAL: lengths that do not add up; -E2BIG: a string is too long. `out` points into `data`. */
int nbd_info_option_parse(const void *data, uint32_t len_bytes, struct nbd_info_option *out)
	__attribute__((warn_unused_result));
/* The same; all queries have been checked too, and their number (-E2BIG). */
int nbd_meta_option_parse(const void *data, uint32_t len_bytes, struct nbd_meta_option *out)
	__attribute__((warn_unused_result));
/* Takes the next query out of a parsed option; false: there is none. */
bool nbd_meta_option_next(struct nbd_meta_option *option, struct nbd_text *query);
/* Whether a query selects this context. `list`: one that ends with a colon stands for all that begin with it. */
bool nbd_query_selects(struct nbd_text query, const char *context, bool list);
bool nbd_info_option_asks(const struct nbd_info_option *option, uint16_t type);

/* ---- requests ---- */

/* A request in host order. */
struct nbd_call {
	uint64_t cookie, off_bytes;
	uint32_t len_bytes;
	uint16_t flags, type;
};

/* What was agreed in the handshake. */
struct nbd_terms {
	uint64_t size_bytes;
	bool read_only;
	bool structured; /* structured replies */
	bool contexts;   /* a metadata context was selected; implies structured */
};

uint16_t nbd_transmission_flags(const struct nbd_terms *terms);

/* False: not a request, the stream is lost. */
bool nbd_request_decode(const struct nbd_request *wire, struct nbd_call *call);
/* WRITE, TRIM, WRITE_ZEROES. */
bool nbd_call_changes_data(const struct nbd_call *call);
/* 0 or the -errno to answer with. What passes lies within size_bytes, is a multiple of NBD_BLOCK_BYTES_MIN, is not longer
 * than NBD_PAYLOAD_BYTES_MAX if it has a payload, and carries no flag that its type does not have. len_bytes may be 0,
 * but not for BLOCK_STATUS. The payload of a WRITE follows in any case. */
int nbd_call_validate(const struct nbd_call *call, const struct nbd_terms *terms) __attribute__((warn_unused_result));

/* The one place where an errno becomes an error on the wire. res: 0 or -errno. */
uint32_t nbd_error_of(int res);

/* ---- for people ---- */

/* "GO", "READ", "ERR_UNKNOWN", "EIO"; or "unknown". */
const char *nbd_option_name(uint32_t option);
const char *nbd_option_reply_name(uint32_t type);
const char *nbd_command_name(uint16_t type);
const char *nbd_error_name(uint32_t error);

#define NBD_CALL_TEXT_BYTES 112
/* "WRITE off 4096 len 512 flags 0x1 cookie 0x2a". Returns buf. */
char *nbd_call_to_text(const struct nbd_call *call, char buf[NBD_CALL_TEXT_BYTES]);

#endif
