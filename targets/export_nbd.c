/* NBD exports: life cycle, and the way from the pool's loop to the volume's. See export.h; the server itself is nbd.h.
 *
 * What blocks (resolving names, creating the socket, reading certificates) is a helper thread's. */
#include "targets/export_int.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "pool/base/mem.h"
#include "pool/runtime/fiber.h"
#include "pool/runtime/reactor.h"
#include "targets/nbd.h"
#include "targets/nbd_listen.h"
#include "targets/nbd_tls.h"

struct nbd_export {
	struct export base;
	struct loop *loop; /* the volume's home */
	struct nbd_conf conf;
	struct nbd_server *server; /* owner: the home loop */
	struct socket_file file;   /* path NULL: TCP */
};

static void on_log(void *arg, const char *text)
{
	struct nbd_export *exp = arg;

	export_log(&exp->base, exp->loop, text);
}

/* ---- helper thread ---- */

struct open_call {
	struct nbd_export *exp;
	const struct nbd_opts *opts;
	struct err *err;
};

static int call_open(void *arg)
{
	struct open_call *call = arg;
	struct nbd_export *exp = call->exp;
	const struct nbd_opts *opts = call->opts;
	int rc = 0;

	if (opts->tls_certs_dir || opts->tls_psk_file)
		rc = nbd_tls_creds_load(opts->tls_certs_dir, opts->tls_psk_file, &exp->conf.creds, call->err);
	if (rc < 0)
		return rc;
	exp->conf.listen_fd = nbd_listen(exp->base.address, &exp->file, call->err);
	if (exp->conf.listen_fd >= 0)
		return 0;
	nbd_tls_creds_free(exp->conf.creds);
	return exp->conf.listen_fd;
}

static int call_close(void *arg)
{
	struct nbd_export *exp = arg;

	close(exp->conf.listen_fd);
	if (exp->file.path)
		socket_remove(&exp->file);
	nbd_tls_creds_free(exp->conf.creds);
	return 0;
}

/* ---- home loop ---- */

static int call_start(void *arg)
{
	struct nbd_export *exp = arg;

	return nbd_server_start(&exp->conf, &exp->server);
}

static int call_stop(void *arg)
{
	struct nbd_export *exp = arg;

	nbd_server_stop(exp->server);
	return 0;
}

struct info_call {
	struct nbd_export *exp;
	struct export_info *info;
};

static int call_info(void *arg)
{
	struct info_call *call = arg;
	const struct nbd_counters *count = nbd_server_counters(call->exp->server);
	struct export_info *info = call->info;

	info->connections = nbd_server_conns(call->exp->server);
	info->connected = info->connections > 0;
	info->sessions = count->sessions;
	info->requests = count->requests;
	info->bad_requests = count->bad_requests;
	info->turned_away = count->turned_away;
	return 0;
}

/* ---- the pool's loop ---- */

/* But for the caller's handle of the volume. */
static void export_free(struct nbd_export *exp)
{
	if (exp->conf.reader)
		volume_close(exp->conf.reader);
	mem_free(exp->base.address);
	mem_free(exp);
}

static void nbd_stop(struct export *base)
{
	struct nbd_export *exp = container_of(base, struct nbd_export, base);

	/* The call itself needs memory for a fiber; there is no going back, so wait for it. */
	while (fiber_call_on(exp->loop, call_stop, exp) == -ENOMEM)
		fiber_sleep_ns(EXPORT_RETRY_NS);
	(void)reactor_offload(call_close, exp);
	volume_close(exp->conf.volume);
	export_free(exp);
}

static void nbd_get_info(struct export *base, struct export_info *info)
{
	struct nbd_export *exp = container_of(base, struct nbd_export, base);
	struct info_call call = { exp, info };
	int rc;

	info->read_only = exp->conf.read_only;
	info->tls = exp->conf.creds;
	/* Without memory for a fiber the counts stay 0. */
	rc = fiber_call_on(exp->loop, call_info, &call);
	(void)rc;
}

static const struct export_ops nbd_ops = {
	.kind = "nbd",
	.stop = nbd_stop,
	.get_info = nbd_get_info,
};

static int check(const char *name, const struct nbd_opts *opts, struct err *err)
{
	if (name[0] == '\0' || strlen(name) > NBD_EXPORT_NAME_BYTES_MAX)
		return err_set(err, -EINVAL, "cannot export as '%.64s': a name has 1 to %u bytes", name,
			       NBD_EXPORT_NAME_BYTES_MAX);
	if (opts->tls_certs_dir && opts->tls_psk_file)
		return err_set(err, -EINVAL, "cannot export on '%.200s': certificates and keys exclude each other",
			       opts->address);
	if (opts->connections_max > NBD_CONNS_MAX)
		return err_set(err, -EINVAL, "cannot export to %u connections: at most %u are possible",
			       opts->connections_max, NBD_CONNS_MAX);
	return 0;
}

static struct nbd_export *export_new(struct volume *volume, const char *name, const struct nbd_opts *opts)
{
	struct nbd_export *exp = mem_zalloc(sizeof(*exp));

	if (!exp)
		return NULL;
	exp->base.ops = &nbd_ops;
	exp->base.address = mem_strdup(opts->address);
	exp->conf.reader = volume_dup(volume);
	if (!exp->base.address || !exp->conf.reader) {
		export_free(exp);
		return NULL;
	}
	exp->loop = volume_loop(volume);
	exp->conf = (struct nbd_conf){
		.volume = volume,
		.reader = exp->conf.reader,
		.name = name,
		.read_only = opts->read_only,
		.conns_max = opts->connections_max > 0 ? opts->connections_max : NBD_CONNS_DEFAULT,
		.log = on_log,
		.log_arg = exp,
	};
	return exp;
}

int export_nbd_start(struct volume *volume, const char *name, const struct nbd_opts *opts, struct export **out,
		     struct err *err)
{
	struct open_call call = { .opts = opts, .err = err };
	int rc = check(name, opts, err);

	if (rc < 0)
		return rc;
	call.exp = export_new(volume, name, opts);
	if (!call.exp)
		return err_set(err, -ENOMEM, "cannot export: out of memory");
	rc = reactor_offload(call_open, &call);
	if (rc < 0)
		goto free_export;
	rc = fiber_call_on(call.exp->loop, call_start, call.exp);
	if (rc < 0) {
		err_set(err, rc, "cannot export on '%.200s': out of memory", opts->address);
		goto close_socket;
	}
	*out = &call.exp->base;
	return 0;

close_socket:
	(void)reactor_offload(call_close, call.exp);
free_export:
	export_free(call.exp);
	return rc;
}
