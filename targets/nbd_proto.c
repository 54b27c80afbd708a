/* NBD messages taken apart and judged: see nbd_proto.h.
 *
 * Lengths inside an option come from the client, so a reader walks its data: each step takes bytes that are there or
 * marks the reader bad, and what a bad reader gives is empty. One look at the end tells. */
#include "targets/nbd_proto.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

/* ---- reading an option's data ---- */

struct reader {
	const uint8_t *at;
	uint32_t left_bytes;
	int error;
};

static const uint8_t *take(struct reader *r, uint32_t len_bytes)
{
	const uint8_t *bytes = r->at;

	if (r->error || len_bytes > r->left_bytes) {
		r->error = r->error ? r->error : -EINVAL;
		return NULL;
	}
	r->at += len_bytes;
	r->left_bytes -= len_bytes;
	return bytes;
}

static uint16_t take_16(struct reader *r)
{
	const be16 *value = (const be16 *)take(r, sizeof(*value));

	return value ? be16_get(*value) : 0;
}

static uint32_t take_32(struct reader *r)
{
	const be32 *value = (const be32 *)take(r, sizeof(*value));

	return value ? be32_get(*value) : 0;
}

static struct nbd_text take_text(struct reader *r)
{
	struct nbd_text text = { .len_bytes = take_32(r) };

	if (!r->error && text.len_bytes <= r->left_bytes && text.len_bytes > NBD_NAME_BYTES_MAX)
		r->error = -E2BIG;
	text.bytes = take(r, text.len_bytes);
	if (!text.bytes)
		text.len_bytes = 0;
	return text;
}

/* ---- options ---- */

bool nbd_text_is(struct nbd_text text, const char *string)
{
	return text.len_bytes == strlen(string) && memcmp(text.bytes, string, text.len_bytes) == 0;
}

int nbd_info_option_parse(const void *data, uint32_t len_bytes, struct nbd_info_option *out)
{
	struct reader r = { .at = data, .left_bytes = len_bytes };

	out->name = take_text(&r);
	out->type_count = take_16(&r);
	out->types = (const be16 *)take(&r, out->type_count * (uint32_t)sizeof(be16));
	if (!r.error && r.left_bytes > 0)
		r.error = -EINVAL;
	return r.error;
}

bool nbd_info_option_asks(const struct nbd_info_option *option, uint16_t type)
{
	for (uint16_t i = 0; i < option->type_count; i++) {
		if (be16_get(option->types[i]) == type)
			return true;
	}
	return false;
}

int nbd_meta_option_parse(const void *data, uint32_t len_bytes, struct nbd_meta_option *out)
{
	struct reader r = { .at = data, .left_bytes = len_bytes };

	out->name = take_text(&r);
	out->query_count = take_32(&r);
	out->queries = r.at;
	out->queries_bytes = r.left_bytes;
	/* Each takes 4 bytes at least, so a lie about the count ends soon. */
	for (uint32_t i = 0; i < out->query_count && !r.error; i++)
		take_text(&r);
	if (!r.error && out->query_count > NBD_QUERIES_MAX)
		r.error = -E2BIG;
	if (!r.error && r.left_bytes > 0)
		r.error = -EINVAL;
	return r.error;
}

bool nbd_meta_option_next(struct nbd_meta_option *option, struct nbd_text *query)
{
	struct reader r = { .at = option->queries, .left_bytes = option->queries_bytes };

	if (option->query_count == 0)
		return false;
	*query = take_text(&r);
	option->query_count--;
	option->queries = r.at;
	option->queries_bytes = r.left_bytes;
	return !r.error;
}

bool nbd_query_selects(struct nbd_text query, const char *context, bool list)
{
	if (nbd_text_is(query, context))
		return true;
	return list && query.len_bytes > 0 && query.bytes[query.len_bytes - 1] == ':' &&
	       strncmp(context, (const char *)query.bytes, query.len_bytes) == 0;
}

/* ---- requests ---- */

uint16_t nbd_transmission_flags(const struct nbd_terms *terms)
{
	uint32_t flags = NBD_FLAG_HAS_FLAGS | NBD_FLAG_SEND_FLUSH | NBD_FLAG_SEND_FUA | NBD_FLAG_CAN_MULTI_CONN |
			 NBD_FLAG_SEND_CACHE;

	if (terms->read_only)
		flags |= NBD_FLAG_READ_ONLY;
	else
		flags |= NBD_FLAG_SEND_TRIM | NBD_FLAG_SEND_WRITE_ZEROES | NBD_FLAG_SEND_FAST_ZERO;
	if (terms->structured)
		flags |= NBD_FLAG_SEND_DF;
	return (uint16_t)flags;
}

bool nbd_request_decode(const struct nbd_request *wire, struct nbd_call *call)
{
	*call = (struct nbd_call){
		.cookie = be64_get(wire->cookie),
		.off_bytes = be64_get(wire->off_bytes),
		.len_bytes = be32_get(wire->len_bytes),
		.flags = be16_get(wire->flags),
		.type = be16_get(wire->type),
	};
	return be32_get(wire->magic) == NBD_REQUEST_MAGIC;
}

/* The flags a command may carry. FUA is allowed everywhere, also where it says nothing. */
static uint32_t flags_allowed(const struct nbd_call *call, const struct nbd_terms *terms)
{
	switch (call->type) {
	case NBD_CMD_READ: return NBD_CMD_FLAG_FUA | (terms->structured ? NBD_CMD_FLAG_DF : 0);
	case NBD_CMD_WRITE_ZEROES: return NBD_CMD_FLAG_FUA | NBD_CMD_FLAG_NO_HOLE | NBD_CMD_FLAG_FAST_ZERO;
	case NBD_CMD_BLOCK_STATUS: return NBD_CMD_FLAG_FUA | NBD_CMD_FLAG_REQ_ONE;
	default: return NBD_CMD_FLAG_FUA;
	}
}

bool nbd_call_changes_data(const struct nbd_call *call)
{
	return call->type == NBD_CMD_WRITE || call->type == NBD_CMD_TRIM || call->type == NBD_CMD_WRITE_ZEROES;
}

static int validate_payload(const struct nbd_call *call, const struct nbd_terms *terms)
{
	if (call->len_bytes <= NBD_PAYLOAD_BYTES_MAX)
		return 0;
	if (call->type == NBD_CMD_READ)
		return terms->structured ? -EOVERFLOW : -EINVAL;
	return call->type == NBD_CMD_WRITE ? -EINVAL : 0;
}

static int validate_range(const struct nbd_call *call, const struct nbd_terms *terms)
{
	if (call->off_bytes > terms->size_bytes || call->len_bytes > terms->size_bytes - call->off_bytes)
		return call->type == NBD_CMD_WRITE || call->type == NBD_CMD_WRITE_ZEROES ? -ENOSPC : -EINVAL;
	if ((call->off_bytes | call->len_bytes) % NBD_BLOCK_BYTES_MIN != 0)
		return -EINVAL;
	return 0;
}

static int validate_status(const struct nbd_call *call, const struct nbd_terms *terms)
{
	if (call->type != NBD_CMD_BLOCK_STATUS)
		return 0;
	return terms->contexts && call->len_bytes > 0 ? 0 : -EINVAL;
}

/* Zeroes that must not be holes are written like any data. */
static int validate_zeroes(const struct nbd_call *call)
{
	const uint32_t both = NBD_CMD_FLAG_NO_HOLE | NBD_CMD_FLAG_FAST_ZERO;

	return call->type == NBD_CMD_WRITE_ZEROES && (call->flags & both) == both ? -ENOTSUP : 0;
}

int nbd_call_validate(const struct nbd_call *call, const struct nbd_terms *terms)
{
	int rc;

	if (call->type > NBD_CMD_BLOCK_STATUS || call->type == NBD_CMD_DISC ||
	    (call->flags & ~flags_allowed(call, terms)))
		return -EINVAL;
	if (call->type == NBD_CMD_FLUSH)
		return call->off_bytes || call->len_bytes ? -EINVAL : 0;
	if (nbd_call_changes_data(call) && terms->read_only)
		return -EPERM;
	rc = validate_payload(call, terms);
	if (rc == 0)
		rc = validate_range(call, terms);
	if (rc == 0)
		rc = validate_status(call, terms);
	return rc ? rc : validate_zeroes(call);
}

uint32_t nbd_error_of(int res)
{
	switch (res) {
	case 0: return 0;
	case -EPERM:
	case -EACCES:
	case -EROFS:
	case -EBUSY:
	case -ESTALE: return NBD_EPERM;
	case -ENOMEM: return NBD_ENOMEM;
	case -EINVAL: return NBD_EINVAL;
	case -ENOSPC:
	case -EDQUOT:
	case -EFBIG: return NBD_ENOSPC;
	case -EOVERFLOW: return NBD_EOVERFLOW;
	case -EOPNOTSUPP: return NBD_ENOTSUP;
	case -ESHUTDOWN: return NBD_ESHUTDOWN;
	default: return NBD_EIO;
	}
}

/* ---- for people ---- */

#define NAME_CASE(name, number) \
	case number: return #name;

const char *nbd_option_name(uint32_t option)
{
	switch (option) {
		NBD_OPTIONS(NAME_CASE)
	}
	return "unknown";
}

const char *nbd_option_reply_name(uint32_t type)
{
	switch (type) {
		NBD_OPTION_REPLIES(NAME_CASE)
	}
	return "unknown";
}

const char *nbd_command_name(uint16_t type)
{
	switch (type) {
		NBD_COMMANDS(NAME_CASE)
	}
	return "unknown";
}

const char *nbd_error_name(uint32_t error)
{
	switch (error) {
		NBD_ERRORS(NAME_CASE)
	}
	return "unknown";
}

char *nbd_call_to_text(const struct nbd_call *call, char buf[NBD_CALL_TEXT_BYTES])
{
	snprintf(buf, NBD_CALL_TEXT_BYTES, "%s off %llu len %u flags 0x%x cookie 0x%llx", nbd_command_name(call->type),
		 (unsigned long long)call->off_bytes, call->len_bytes, call->flags, (unsigned long long)call->cookie);
	return buf;
}
