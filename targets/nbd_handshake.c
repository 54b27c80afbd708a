/* The handshake: fixed newstyle. See nbd_format.h for the bytes and nbd_proto.h for what is valid.
 *
 * Each option is read whole, handled, and answered at once in one send. What a client negotiates gathers in conn->terms;
 * STARTTLS forgets it.
 *
 * TLS: where the server has credentials, they are required, and before TLS nothing but STARTTLS and ABORT gets anything but
 * an error. Bytes that arrived behind a STARTTLS in plain text would be taken for encrypted ones by whoever goes on
 * reading the same buffer (CVE-2021-3716 and its kind), so there must be none.
 *
 * Always: at most NBD_OPTIONS_MAX options; data of at most NBD_OPTION_BYTES_MAX each; the time is limited by whoever called
 * (conn->deadline). */
#include <assert.h>
#include <errno.h>
#include <string.h>

#include "targets/nbd_int.h"

/* An option's answer is a few short replies. */
#define OUT_BYTES 1024u
static_assert(OUT_BYTES >= 8 * sizeof(struct nbd_option_reply) + 2 * NBD_EXPORT_NAME_BYTES_MAX + 64, "replies fit");

struct handshake {
	struct nbd_conn *conn;
	bool fixed, no_zeroes; /* the client's flags */
	bool transmit;         /* the transmission begins */
	uint32_t option;       /* being answered */
	const uint8_t *data;   /* of the option */
	uint32_t len_bytes;
	uint32_t out_bytes;
	uint8_t out[OUT_BYTES];
};

/* ---- answering ---- */

static void *put(struct handshake *hs, uint32_t len_bytes)
{
	void *at = hs->out + hs->out_bytes;

	assert(len_bytes <= OUT_BYTES - hs->out_bytes);
	hs->out_bytes += len_bytes;
	return at;
}

static int send_out(struct handshake *hs)
{
	struct iovec iov = { hs->out, hs->out_bytes };

	hs->out_bytes = 0;
	return iov.iov_len > 0 ? nbd_stream_send(&hs->conn->stream, &iov, 1) : 0;
}

/* Adds a reply; returns where its data goes. */
static void *reply(struct handshake *hs, uint32_t type, size_t len_bytes)
{
	struct nbd_option_reply *header = put(hs, sizeof(*header));

	*header = (struct nbd_option_reply){
		.magic = be64_of(NBD_OPTION_REPLY_MAGIC),
		.option = be32_of(hs->option),
		.type = be32_of(type),
		.len_bytes = be32_of((uint32_t)len_bytes),
	};
	return put(hs, (uint32_t)len_bytes);
}

static int ack(struct handshake *hs)
{
	reply(hs, NBD_REP_ACK, 0);
	return 0;
}

static int refuse(struct handshake *hs, uint32_t type, const char *why)
{
	hs->out_bytes = 0;
	memcpy(reply(hs, type, strlen(why)), why, strlen(why));
	return 0;
}

static int refuse_malformed(struct handshake *hs, int rc)
{
	return rc == -E2BIG ? refuse(hs, NBD_REP_ERR_TOO_BIG, "there is too much of something in it")
			    : refuse(hs, NBD_REP_ERR_INVALID, "the lengths in it do not add up");
}

/* ---- the export ---- */

/* The empty name stands for the only export there is. */
static bool is_our_name(const struct handshake *hs, struct nbd_text name)
{
	return name.len_bytes == 0 || nbd_text_is(name, hs->conn->server->name);
}

/* The size is told now and holds for the session. */
static void settle_terms(struct handshake *hs)
{
	struct nbd_conn *conn = hs->conn;

	conn->terms.size_bytes = volume_size_bytes(conn->server->conf.volume);
	conn->terms.read_only = nbd_claim_is_taken(conn) || conn->server->conf.read_only;
}

static int handle_export_name(struct handshake *hs)
{
	struct nbd_text name = { hs->data, hs->len_bytes };
	struct nbd_export_name_reply *out;

	if (!is_our_name(hs, name))
		return -ENOENT;
	settle_terms(hs);
	out = put(hs, hs->no_zeroes ? offsetof(struct nbd_export_name_reply, zeroes) : sizeof(*out));
	out->size_bytes = be64_of(hs->conn->terms.size_bytes);
	out->flags = be16_of(nbd_transmission_flags(&hs->conn->terms));
	if (!hs->no_zeroes)
		memset(out->zeroes, 0, sizeof(out->zeroes));
	hs->transmit = true;
	return 0;
}

static void tell_export(struct handshake *hs)
{
	*(struct nbd_info_export *)reply(hs, NBD_REP_INFO, sizeof(struct nbd_info_export)) = (struct nbd_info_export){
		.type = be16_of(NBD_INFO_EXPORT),
		.size_bytes = be64_of(hs->conn->terms.size_bytes),
		.flags = be16_of(nbd_transmission_flags(&hs->conn->terms)),
	};
}

static void tell_block_size(struct handshake *hs)
{
	*(struct nbd_info_block_size *)reply(hs, NBD_REP_INFO, sizeof(struct nbd_info_block_size)) =
		(struct nbd_info_block_size){
			.type = be16_of(NBD_INFO_BLOCK_SIZE),
			.min_bytes = be32_of(NBD_BLOCK_BYTES_MIN),
			.preferred_bytes = be32_of(NBD_BLOCK_BYTES_PREFERRED),
			.payload_bytes_max = be32_of(NBD_PAYLOAD_BYTES_MAX),
		};
}

static void tell_name(struct handshake *hs)
{
	size_t len = strlen(hs->conn->server->name);
	be16 *type = reply(hs, NBD_REP_INFO, sizeof(*type) + len);

	*type = be16_of(NBD_INFO_NAME);
	memcpy(type + 1, hs->conn->server->name, len);
}

/* INFO and GO. The block size is told unasked, so that a client that never asks may at least look. */
static int handle_info(struct handshake *hs)
{
	struct nbd_info_option info;
	int rc = nbd_info_option_parse(hs->data, hs->len_bytes, &info);

	if (rc < 0)
		return refuse_malformed(hs, rc);
	if (!is_our_name(hs, info.name))
		return refuse(hs, NBD_REP_ERR_UNKNOWN, "there is no export of that name here");
	settle_terms(hs);
	tell_export(hs);
	tell_block_size(hs);
	if (nbd_info_option_asks(&info, NBD_INFO_NAME))
		tell_name(hs);
	hs->transmit = hs->option == NBD_OPT_GO;
	return ack(hs);
}

static int handle_list(struct handshake *hs)
{
	size_t len = strlen(hs->conn->server->name);
	be32 *name_bytes;

	if (hs->len_bytes > 0)
		return refuse(hs, NBD_REP_ERR_INVALID, "LIST has no data");
	name_bytes = reply(hs, NBD_REP_SERVER, sizeof(*name_bytes) + len);
	*name_bytes = be32_of((uint32_t)len);
	memcpy(name_bytes + 1, hs->conn->server->name, len);
	return ack(hs);
}

/* ---- what may be added ---- */

static int handle_structured_reply(struct handshake *hs)
{
	if (hs->len_bytes > 0)
		return refuse(hs, NBD_REP_ERR_INVALID, "STRUCTURED_REPLY has no data");
	hs->conn->terms.structured = true;
	return ack(hs);
}

static void tell_context(struct handshake *hs, uint32_t id, struct nbd_text name)
{
	be32 *out = reply(hs, NBD_REP_META_CONTEXT, sizeof(*out) + name.len_bytes);

	*out = be32_of(id);
	memcpy(out + 1, name.bytes, name.len_bytes);
}

/* There may be any number of them. */
static int tell_listed(void *arg, const char *context)
{
	struct nbd_text name = { (const uint8_t *)context, (uint32_t)strlen(context) };
	struct handshake *hs = arg;
	int rc = hs->out_bytes > OUT_BYTES / 2 ? send_out(hs) : 0;

	tell_context(hs, 0, name);
	return rc;
}

/* What was told of those before the one too many is forgotten, and they are not selected. */
static int select_contexts(struct handshake *hs, struct nbd_meta_option *meta)
{
	struct nbd_text query;
	int rc = 0;

	while (rc >= 0 && nbd_meta_option_next(meta, &query)) {
		rc = nbd_context_select(hs->conn, query);
		if (rc > 0)
			tell_context(hs, hs->conn->context_count, query);
	}
	if (rc >= 0)
		return ack(hs);
	nbd_contexts_drop(hs->conn);
	return rc == -E2BIG ? refuse(hs, NBD_REP_ERR_TOO_BIG, "that is more contexts than a connection may have") : rc;
}

static int list_contexts(struct handshake *hs, const struct nbd_meta_option *meta)
{
	int rc = nbd_contexts_list(hs->conn, meta, tell_listed, hs);

	return rc < 0 ? rc : ack(hs);
}

/* LIST_META_CONTEXT and SET_META_CONTEXT; the latter replaces what was selected before, also when it fails. */
static int handle_meta_context(struct handshake *hs)
{
	bool list = hs->option == NBD_OPT_LIST_META_CONTEXT;
	struct nbd_meta_option meta;
	int rc = nbd_meta_option_parse(hs->data, hs->len_bytes, &meta);

	if (!list)
		nbd_contexts_drop(hs->conn);
	if (rc < 0)
		return refuse_malformed(hs, rc);
	if (!hs->conn->terms.structured)
		return refuse(hs, NBD_REP_ERR_INVALID, "STRUCTURED_REPLY comes first");
	if (!is_our_name(hs, meta.name))
		return refuse(hs, NBD_REP_ERR_UNKNOWN, "there is no export of that name here");
	return list ? list_contexts(hs, &meta) : select_contexts(hs, &meta);
}

/* ---- TLS ---- */

static int handle_starttls(struct handshake *hs)
{
	struct nbd_conn *conn = hs->conn;
	int rc;

	if (!conn->server->conf.creds)
		return refuse(hs, NBD_REP_ERR_POLICY, "there is no TLS here");
	if (conn->stream.tls || hs->len_bytes > 0)
		return refuse(hs, NBD_REP_ERR_INVALID, conn->stream.tls ? "TLS runs already" : "STARTTLS has no data");
	if (nbd_input_left(&conn->input) > 0)
		return -EPROTO;
	ack(hs);
	rc = send_out(hs);
	if (rc == 0)
		rc = nbd_tls_start(conn->server->conf.creds, conn->stream.sock, &conn->stream.tls);
	nbd_contexts_drop(conn);
	conn->terms = (struct nbd_terms){ 0 };
	return rc;
}

static bool needs_tls(const struct handshake *hs)
{
	return hs->conn->server->conf.creds && !hs->conn->stream.tls;
}

/* ---- options ---- */

static int handle_abort(struct handshake *hs)
{
	ack(hs);
	/* The client may have gone without waiting for it. */
	(void)send_out(hs);
	return -ECONNABORTED;
}

static int handle_by_type(struct handshake *hs)
{
	switch (hs->option) {
	case NBD_OPT_EXPORT_NAME: return handle_export_name(hs);
	case NBD_OPT_ABORT: return handle_abort(hs);
	case NBD_OPT_LIST: return handle_list(hs);
	case NBD_OPT_STARTTLS: return handle_starttls(hs);
	case NBD_OPT_INFO:
	case NBD_OPT_GO: return handle_info(hs);
	case NBD_OPT_STRUCTURED_REPLY: return handle_structured_reply(hs);
	case NBD_OPT_LIST_META_CONTEXT:
	case NBD_OPT_SET_META_CONTEXT: return handle_meta_context(hs);
	}
	return refuse(hs, NBD_REP_ERR_UNSUP, "that option is not known here");
}

static int handle(struct handshake *hs)
{
	bool names_export = hs->option == NBD_OPT_EXPORT_NAME;

	/* EXPORT_NAME has no way to be refused but the end; without FIXED_NEWSTYLE nothing has. */
	if ((needs_tls(hs) && names_export) || (!hs->fixed && !names_export))
		return -EPROTO;
	if (needs_tls(hs) && hs->option != NBD_OPT_STARTTLS && hs->option != NBD_OPT_ABORT)
		return refuse(hs, NBD_REP_ERR_TLS_REQD, "TLS comes first");
	return handle_by_type(hs);
}

/* Reads one option whole; its data stays where it is until the next read. */
static int read_option(struct handshake *hs)
{
	struct nbd_input *in = &hs->conn->input;
	const struct nbd_option *header;
	const void *data;
	int rc = nbd_input_peek(in, sizeof(*header), (const void **)&header);

	if (rc < 0)
		return rc;
	hs->option = be32_get(header->option);
	hs->len_bytes = be32_get(header->len_bytes);
	if (be64_get(header->magic) != NBD_OPTION_MAGIC || hs->len_bytes > NBD_OPTION_BYTES_MAX)
		return -EPROTO;
	nbd_input_take(in, sizeof(*header));
	rc = nbd_input_peek(in, hs->len_bytes, &data);
	hs->data = data;
	if (rc == 0)
		nbd_input_take(in, hs->len_bytes);
	return rc;
}

static int haggle(struct handshake *hs)
{
	for (uint32_t options = 0; options < NBD_OPTIONS_MAX; options++) {
		int rc = read_option(hs);

		if (rc == 0)
			rc = handle(hs);
		if (rc == 0)
			rc = send_out(hs);
		if (rc < 0 || hs->transmit)
			return rc;
	}
	return -EPROTO;
}

/* ---- the beginning ---- */

static int greet(struct handshake *hs)
{
	*(struct nbd_greeting *)put(hs, sizeof(struct nbd_greeting)) = (struct nbd_greeting){
		.magic = be64_of(NBD_MAGIC),
		.option_magic = be64_of(NBD_OPTION_MAGIC),
		.flags = be16_of(NBD_FIXED_NEWSTYLE | NBD_NO_ZEROES),
	};
	return send_out(hs);
}

static int read_client_flags(struct handshake *hs)
{
	const be32 *wire;
	uint32_t flags;
	int rc = nbd_input_peek(&hs->conn->input, sizeof(*wire), (const void **)&wire);

	if (rc < 0)
		return rc;
	flags = be32_get(*wire);
	nbd_input_take(&hs->conn->input, sizeof(*wire));
	hs->fixed = flags & NBD_FIXED_NEWSTYLE;
	hs->no_zeroes = flags & NBD_NO_ZEROES;
	return flags & ~(NBD_FIXED_NEWSTYLE | NBD_NO_ZEROES) ? -EPROTO : 0;
}

int nbd_handshake(struct nbd_conn *conn)
{
	struct handshake hs = { .conn = conn };
	int rc = greet(&hs);

	if (rc == 0)
		rc = read_client_flags(&hs);
	return rc < 0 ? rc : haggle(&hs);
}
