/* Metadata contexts of a connection: what BLOCK_STATUS tells. See nbd_int.h.
 *
 * base:allocation tells which parts hold space. poold:changed-since:SNAPSHOT tells where the export differs from a snapshot of its
 * volume; the snapshot is open, and so stays, as long as the connection does. A client can name no other volume's. */
#include <errno.h>
#include <string.h>

#include "pool/base/mem.h"
#include "targets/nbd_int.h"

#define CHANGED_SINCE_BYTES (sizeof(NBD_CONTEXT_CHANGED_SINCE) - 1)

/* ---- selecting ---- */

static bool is_selected(const struct nbd_conn *conn, const struct volume *since)
{
	for (uint32_t i = 0; i < conn->context_count; i++) {
		if (conn->context[i].since == since)
			return true;
	}
	return false;
}

/* Takes over `since`, also if it fails. */
static int add(struct nbd_conn *conn, struct volume *since)
{
	bool again = is_selected(conn, since);

	if (!again && conn->context_count < NBD_CONTEXTS_MAX) {
		conn->context[conn->context_count++].since = since;
		conn->terms.contexts = true;
		return 1;
	}
	if (since)
		volume_snapshot_close(since);
	return again ? 0 : -E2BIG;
}

static int select_snapshot(struct nbd_conn *conn, struct nbd_text name)
{
	char text[POOL_NAME_MAX + 1] = "";
	struct volume *since;
	int rc;

	if (name.len_bytes > POOL_NAME_MAX)
		return 0;
	memcpy(text, name.bytes, name.len_bytes);
	rc = volume_snapshot_open(conn->server->conf.volume, text, &since);
	if (rc == 0)
		return add(conn, since);
	return rc == -ENOENT ? 0 : rc;
}

int nbd_context_select(struct nbd_conn *conn, struct nbd_text query)
{
	if (nbd_text_is(query, NBD_CONTEXT_ALLOCATION))
		return add(conn, NULL);
	if (query.len_bytes <= CHANGED_SINCE_BYTES || memcmp(query.bytes, NBD_CONTEXT_CHANGED_SINCE, CHANGED_SINCE_BYTES) != 0)
		return 0;
	query.bytes += CHANGED_SINCE_BYTES;
	query.len_bytes -= CHANGED_SINCE_BYTES;
	return select_snapshot(conn, query);
}

void nbd_contexts_drop(struct nbd_conn *conn)
{
	while (conn->context_count > 0) {
		struct volume *since = conn->context[--conn->context_count].since;

		if (since)
			volume_snapshot_close(since);
	}
	conn->terms.contexts = false;
}

/* ---- listing ---- */

static bool is_asked_for(const struct nbd_meta_option *queries, const char *context)
{
	struct nbd_meta_option left = *queries;
	struct nbd_text query;

	if (left.query_count == 0)
		return true;
	while (nbd_meta_option_next(&left, &query)) {
		if (nbd_query_selects(query, context, true))
			return true;
	}
	return false;
}

int nbd_contexts_list(const struct nbd_conn *conn, const struct nbd_meta_option *queries,
		      int (*tell)(void *arg, const char *context), void *arg)
{
	char context[CHANGED_SINCE_BYTES + POOL_NAME_MAX + 1] = NBD_CONTEXT_CHANGED_SINCE;
	char *names;
	int rc = volume_snapshot_names(conn->server->conf.volume, &names);

	if (rc == 0 && is_asked_for(queries, NBD_CONTEXT_ALLOCATION))
		rc = tell(arg, NBD_CONTEXT_ALLOCATION);
	for (const char *name = names; rc == 0 && *name; name += strlen(name) + 1) {
		memcpy(context + CHANGED_SINCE_BYTES, name, strlen(name) + 1);
		if (is_asked_for(queries, context))
			rc = tell(arg, context);
	}
	mem_free(names);
	return rc;
}
