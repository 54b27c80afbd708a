/* vhost-user-blk exports: life cycle, accepting front ends, and the way from the pool's loop to the volume's. See export.h.
 *
 * How: the pool's loop makes and ends an export; everything else of it happens on the volume's home loop, to which calls
 * go by fiber_call_on. There, one fiber accepts connections and starts one for each session.
 *
 * A second front end: while a session lasts there is no room for another. A newcomer is often the same front end that has
 * just closed its old connection, so it is kept waiting for HANDOVER_NS for the old session to end, then turned away.
 *
 * Always: `fibers` counts what runs on the home loop; the stop waits until it is 0 before anything is freed. */
#include "targets/export_int.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "pool/base/mem.h"
#include "pool/runtime/reactor.h"
#include "targets/socket.h"
#include "targets/vhost_user.h"

#define QUEUES_DEFAULT 4
#define HANDOVER_NS 1000000000ull

struct vhost_export {
	struct export base;
	struct vhost_user vu;
	struct loop *loop; /* the volume's home */
	struct volume_watch watch;
	struct fd_cancel cancel; /* stop accepting */
	struct waitq fibers_ended;
	uint32_t fibers;
	uint64_t turned_away;
	int listen_fd;
	bool owns_file;
	struct socket_file file;
};

static void on_log(struct vhost_user *vu, const char *text)
{
	struct vhost_export *exp = container_of(vu, struct vhost_export, vu);

	export_log(&exp->base, exp->loop, text);
}

/* ---- on the home loop ---- */

static int start_fiber(struct vhost_export *exp, void (*fn)(void *arg), void *arg)
{
	int rc = fiber_start(exp->loop, fn, arg);

	if (rc == 0)
		exp->fibers++;
	return rc;
}

static void fiber_ended(struct vhost_export *exp)
{
	exp->fibers--;
	waitq_wake_all(&exp->fibers_ended);
}

struct newcomer {
	struct vhost_export *exp;
	int sock;
};

static void serve(void *arg)
{
	struct newcomer newcomer = *(struct newcomer *)arg;

	mem_free(arg);
	vhost_user_serve(&newcomer.exp->vu, newcomer.sock);
	fiber_ended(newcomer.exp);
}

/* Gives the running session time to notice that its front end has gone. */
static bool wait_for_room(struct vhost_export *exp)
{
	uint64_t deadline_ns = loop_now_ns(exp->loop) + HANDOVER_NS;

	while (exp->vu.session && !exp->cancel.cancelled && loop_now_ns(exp->loop) < deadline_ns)
		fiber_sleep_ns(HANDOVER_NS / 1000);
	return !exp->vu.session && !exp->cancel.cancelled;
}

static void greet(struct vhost_export *exp, int sock)
{
	struct newcomer *newcomer = mem_alloc(sizeof(*newcomer));

	if (newcomer) {
		*newcomer = (struct newcomer){ exp, sock };
		if (start_fiber(exp, serve, newcomer) == 0) {
			/* It runs in the next turn; until then nobody looks whether there is a session. */
			fiber_yield();
			return;
		}
	}
	mem_free(newcomer);
	close(sock);
}

static void accept_one(struct vhost_export *exp)
{
	int sock = accept4(exp->listen_fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);

	if (sock < 0) {
		if (errno != EAGAIN && errno != EINTR && errno != ECONNABORTED)
			fiber_sleep_ns(EXPORT_RETRY_NS);
		return;
	}
	if (wait_for_room(exp)) {
		greet(exp, sock);
		return;
	}
	close(sock);
	exp->turned_away++;
	on_log(&exp->vu, "a second front end is turned away");
}

static void accept_loop(void *arg)
{
	struct vhost_export *exp = arg;

	while (!exp->cancel.cancelled) {
		int rc = fd_wait(exp->listen_fd, POLLIN, UINT64_MAX, &exp->cancel);

		if (rc >= 0)
			accept_one(exp);
		else if (rc != -ECANCELED)
			fiber_sleep_ns(EXPORT_RETRY_NS);
	}
	fiber_ended(exp);
}

static void on_resized(struct volume_watch *watch)
{
	vhost_user_resized(&container_of(watch, struct vhost_export, watch)->vu);
}

static int start_on_home(void *arg)
{
	struct vhost_export *exp = arg;
	int rc;

	vhost_user_init(&exp->vu, exp->loop);
	fd_cancel_init(&exp->cancel);
	waitq_init(&exp->fibers_ended);
	rc = start_fiber(exp, accept_loop, exp);
	if (rc < 0)
		return rc;
	exp->watch.resized = on_resized;
	volume_watch_add(exp->vu.dev.volume, &exp->watch);
	return 0;
}

static int stop_on_home(void *arg)
{
	struct vhost_export *exp = arg;

	fd_cancel(&exp->cancel);
	vhost_user_stop(&exp->vu);
	while (exp->fibers > 0)
		waitq_wait(&exp->fibers_ended);
	volume_watch_del(&exp->watch);
	return 0;
}

/* ---- on the pool's loop ---- */

struct listen_call {
	const char *path;
	struct socket_file *file;
	struct err *err;
};

static int call_listen(void *arg)
{
	struct listen_call *call = arg;

	return socket_listen(call->path, call->file, call->err);
}

static int call_remove(void *arg)
{
	socket_remove(arg);
	return 0;
}

static int open_listener(struct vhost_export *exp, const struct vhost_user_opts *opts, struct err *err)
{
	struct listen_call call = { exp->base.address, &exp->file, err };
	int rc;

	if (opts->listen_fd >= 0) {
		if (fcntl(opts->listen_fd, F_SETFL, O_NONBLOCK) < 0)
			return err_set(err, -errno, "cannot use the passed socket: %s", strerror(errno));
		exp->listen_fd = opts->listen_fd;
		return 0;
	}
	rc = reactor_offload(call_listen, &call);
	if (rc < 0)
		return rc;
	exp->listen_fd = rc;
	exp->owns_file = true;
	return 0;
}

static void close_listener(struct vhost_export *exp)
{
	close(exp->listen_fd);
	if (exp->owns_file)
		(void)reactor_offload(call_remove, &exp->file);
}

static struct vhost_export *export_new(struct volume *volume, const char *serial, const struct vhost_user_opts *opts)
{
	uint16_t queues = opts->queues > 0 ? (uint16_t)opts->queues : QUEUES_DEFAULT;
	struct vhost_export *exp = mem_zalloc(sizeof(*exp));

	if (!exp)
		return NULL;
	exp->loop = volume_loop(volume);
	exp->base.address = mem_strdup(opts->socket_path ? opts->socket_path : "passed socket");
	if (!exp->base.address) {
		mem_free(exp);
		return NULL;
	}
	exp->vu.log = on_log;
	exp->vu.address = exp->base.address;
	blk_dev_init(&exp->vu.dev, volume, serial, queues, opts->read_only);
	return exp;
}

static void export_free(struct vhost_export *exp)
{
	mem_free(exp->base.address);
	mem_free(exp);
}

static void vhost_stop(struct export *base)
{
	struct vhost_export *exp = container_of(base, struct vhost_export, base);

	/* The call itself needs memory for a fiber; there is no going back, so wait for it. */
	while (fiber_call_on(exp->loop, stop_on_home, exp) == -ENOMEM)
		fiber_sleep_ns(EXPORT_RETRY_NS);
	close_listener(exp);
	volume_close(exp->vu.dev.volume);
	export_free(exp);
}

struct info_call {
	struct vhost_export *exp;
	struct export_info *info;
};

static int info_on_home(void *arg)
{
	struct info_call *call = arg;
	const struct vhost_user *vu = &call->exp->vu;
	struct export_info *info = call->info;

	info->connected = vu->session;
	info->queues_running = vhost_user_rings_started(vu);
	info->sessions = vu->sessions;
	info->requests = vu->dev.count.requests;
	info->bad_requests = vu->dev.count.bad_requests;
	info->broken_rings = vu->dev.count.broken_rings + vu->dev.count.lost_rings;
	return 0;
}

static void vhost_get_info(struct export *base, struct export_info *info)
{
	struct vhost_export *exp = container_of(base, struct vhost_export, base);
	struct info_call call = { exp, info };
	int rc;

	info->read_only = exp->vu.dev.read_only;
	info->queues = exp->vu.dev.queues;
	/* Without memory for a fiber the counts stay 0. */
	rc = fiber_call_on(exp->loop, info_on_home, &call);
	(void)rc;
}

static const struct export_ops vhost_ops = {
	.kind = "vhost-user-blk",
	.stop = vhost_stop,
	.get_info = vhost_get_info,
};

int export_vhost_user_start(struct volume *volume, const char *serial, const struct vhost_user_opts *opts,
			    struct export **out, struct err *err)
{
	struct vhost_export *exp;
	int rc;

	if (opts->queues > EXPORT_QUEUES_MAX)
		return err_set(err, -EINVAL, "cannot export with %u queues: at most %u are possible", opts->queues,
			       EXPORT_QUEUES_MAX);
	if (!opts->socket_path && opts->listen_fd < 0)
		return err_set(err, -EINVAL, "cannot export without a socket");
	exp = export_new(volume, serial, opts);
	if (!exp)
		return err_set(err, -ENOMEM, "cannot export: out of memory");
	rc = open_listener(exp, opts, err);
	if (rc < 0)
		goto free_export;
	rc = fiber_call_on(exp->loop, start_on_home, exp);
	if (rc < 0) {
		err_set(err, rc, "cannot export on '%.200s': out of memory", exp->base.address);
		goto close_socket;
	}
	exp->base.ops = &vhost_ops;
	*out = &exp->base;
	return 0;

close_socket:
	if (exp->owns_file)
		close_listener(exp);
free_export:
	export_free(exp);
	return rc;
}
