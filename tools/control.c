/* The control socket: see control.h.
 *
 * One fiber accepts, one fiber serves each connection: read a line, carry it out, send the answer, again. A connection's
 * commands are carried out one after the other; those of different connections side by side, so a long one holds up nobody
 * else. Reading stops while a command runs, so a peer that only sends fills its own socket and nothing of ours.
 *
 * When all places are taken, the accepting fiber leaves newcomers in the kernel's backlog and makes room: the connection
 * that has been without a request for longest, and for CONTROL_IDLE_MS at least, is ended. */
#include "tools/control.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "pool/base/list.h"
#include "pool/runtime/fiber.h"
#include "pool/runtime/reactor.h"
#include "targets/socket.h"
#include "tools/log.h"

#define NS_PER_S 1000000000ull
#define READ_BYTES 4096
#define NS_PER_MS 1000000ull
#define RETRY_MS 20

struct control {
	struct control_opts opts;
	struct socket_file file;
	int listen_fd;
	struct fd_cancel stop; /* ends the accepting fiber */
	bool accepting;
	struct list conns;
	uint32_t conn_count;
	struct waitq changed; /* conn_count or accepting */
};

struct conn {
	struct list node; /* in control.conns */
	struct control *control;
	int fd;
	struct fd_cancel cancel; /* ends the wait for a request */
	bool idle;               /* waits for the first byte of a request */
	uint64_t since_ns;       /* since when it is idle, or the request began */
	char *buf;               /* CONTROL_REQUEST_BYTES_MAX + 1 at most */
	size_t len_bytes, cap_bytes;
};

static uint64_t now_ns(void)
{
	return loop_now_ns(loop_self());
}

/* --- sending ---------------------------------------------------------------------------------------------- */

/* Sends all, or fails when the peer does not read on. */
static int conn_send(struct conn *conn, const char *text, size_t len_bytes)
{
	while (len_bytes > 0) {
		ssize_t put = send(conn->fd, text, len_bytes, MSG_NOSIGNAL | MSG_DONTWAIT);

		if (put < 0 && errno != EAGAIN && errno != EINTR)
			return -errno;
		if (put < 0) {
			int ret = fd_wait(conn->fd, POLLOUT, now_ns() + CONTROL_SEND_S * NS_PER_S, NULL);

			if (ret < 0)
				return ret;
			continue;
		}
		text += put;
		len_bytes -= (size_t)put;
	}
	return 0;
}

/* Sends an answer and frees it. */
static int conn_answer(struct conn *conn, char *answer)
{
	int ret;

	if (!answer)
		return -ENOMEM;
	ret = conn_send(conn, answer, strlen(answer));
	if (ret == 0)
		ret = conn_send(conn, "\n", 1);
	free(answer);
	return ret;
}

/* --- receiving -------------------------------------------------------------------------------------------- */

/* Room for READ_BYTES more, up to one request of the largest size and its newline. */
static int make_room(struct conn *conn)
{
	size_t cap = conn->len_bytes + READ_BYTES;
	char *buf;

	if (conn->len_bytes > CONTROL_REQUEST_BYTES_MAX)
		return -EMSGSIZE;
	if (cap > CONTROL_REQUEST_BYTES_MAX + 1)
		cap = CONTROL_REQUEST_BYTES_MAX + 1;
	if (cap <= conn->cap_bytes)
		return 0;
	if (cap < 2 * conn->cap_bytes && 2 * conn->cap_bytes <= CONTROL_REQUEST_BYTES_MAX + 1)
		cap = 2 * conn->cap_bytes;
	buf = realloc(conn->buf, cap);
	if (!buf)
		return -ENOMEM;
	conn->buf = buf;
	conn->cap_bytes = cap;
	return 0;
}

/* Waits for bytes and takes them. 0: the peer has closed; > 0; -errno. */
static ssize_t conn_receive(struct conn *conn)
{
	int ret = make_room(conn);
	ssize_t got;

	if (ret)
		return ret;
	conn->idle = conn->len_bytes == 0;
	if (conn->idle)
		conn->since_ns = now_ns();
	do {
		ret = fd_wait(conn->fd, POLLIN, conn->idle ? UINT64_MAX : conn->since_ns + CONTROL_HALF_S * NS_PER_S,
			      &conn->cancel);
		if (ret < 0)
			return ret;
		got = recv(conn->fd, conn->buf + conn->len_bytes, conn->cap_bytes - conn->len_bytes, MSG_DONTWAIT);
	} while (got < 0 && (errno == EAGAIN || errno == EINTR));
	if (got < 0)
		return -errno;
	if (conn->idle)
		conn->since_ns = now_ns();
	conn->idle = false;
	conn->len_bytes += (size_t)got;
	return got;
}

/* Waits until buf begins with a whole line. Its length, newline included; 0: the peer has closed; -errno. */
static ssize_t conn_read_line(struct conn *conn)
{
	size_t seen = 0;

	for (;;) {
		const char *end = conn->buf ? memchr(conn->buf + seen, '\n', conn->len_bytes - seen) : NULL;
		ssize_t got;

		if (end)
			return end - conn->buf + 1;
		seen = conn->len_bytes;
		got = conn_receive(conn);
		if (got <= 0)
			return got;
	}
}

static void conn_consume(struct conn *conn, size_t len_bytes)
{
	conn->len_bytes -= len_bytes;
	memmove(conn->buf, conn->buf + len_bytes, conn->len_bytes);
	conn->since_ns = now_ns();
}

/* --- serving ---------------------------------------------------------------------------------------------- */

static bool peer_is_allowed(int fd)
{
	struct ucred cred;
	socklen_t len = sizeof(cred);

	if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &cred, &len) != 0)
		return false;
	return cred.uid == 0 || cred.uid == geteuid();
}

static bool is_blank(const char *text, size_t len_bytes)
{
	for (size_t i = 0; i < len_bytes; i++) {
		if (!strchr(" \t\r\n", text[i]) || text[i] == '\0')
			return false;
	}
	return true;
}

/* One line. An error ends the connection. */
static int conn_carry_out(struct conn *conn, size_t len_bytes)
{
	const struct control_opts *opts = &conn->control->opts;
	char *answer;
	int ret;

	if (!peer_is_allowed(conn->fd)) {
		conn_answer(conn,
			    jsonrpc_error_text(JSONRPC_REFUSED, -EPERM, "only root and poold's own user may use this"));
		return -EPERM;
	}
	if (is_blank(conn->buf, len_bytes))
		return 0;
	ret = jsonrpc_answer(opts->methods, opts->method_count, opts->context, conn->buf, len_bytes - 1, &answer);
	return ret || !answer ? ret : conn_answer(conn, answer);
}

/* Says why the connection is ended, where that helps. */
static void conn_farewell(struct conn *conn, ssize_t why)
{
	const char *text = NULL;

	if (why == -EMSGSIZE)
		text = "the request is too large";
	else if (why == -ETIMEDOUT)
		text = "the request did not come to an end in time";
	if (text)
		conn_answer(conn, jsonrpc_error_text(JSONRPC_PARSE, (int)why, text));
}

static void conn_free(struct conn *conn)
{
	struct control *control = conn->control;

	list_del(&conn->node);
	control->conn_count--;
	waitq_wake_all(&control->changed);
	close(conn->fd);
	free(conn->buf);
	free(conn);
}

static void conn_serve(void *arg)
{
	struct conn *conn = arg;
	ssize_t len;

	while ((len = conn_read_line(conn)) > 0) {
		if (conn_carry_out(conn, (size_t)len) != 0)
			break;
		conn_consume(conn, (size_t)len);
	}
	conn_farewell(conn, len);
	conn_free(conn);
}

/* --- accepting -------------------------------------------------------------------------------------------- */

static int conn_start(struct control *control, int fd)
{
	struct conn *conn = calloc(1, sizeof(*conn));

	if (!conn || fiber_start(loop_self(), conn_serve, conn) != 0) {
		free(conn);
		return -ENOMEM;
	}
	conn->control = control;
	conn->fd = fd;
	conn->since_ns = now_ns();
	fd_cancel_init(&conn->cancel);
	list_push_back(&control->conns, &conn->node);
	control->conn_count++;
	return 0;
}

/* Ends the connection that is idle for longest, if it is for long enough: true. */
static bool end_an_idle_one(struct control *control)
{
	struct conn *oldest = NULL;

	list_for_each(node, &control->conns) {
		struct conn *conn = list_entry(node, struct conn, node);

		if (conn->idle && !conn->cancel.cancelled && (!oldest || conn->since_ns < oldest->since_ns))
			oldest = conn;
	}
	if (!oldest || now_ns() - oldest->since_ns < CONTROL_IDLE_MS * NS_PER_MS)
		return false;
	fd_cancel(&oldest->cancel);
	return true;
}

/* Waits until there is a place, or the control socket stops. */
static void wait_for_place(struct control *control)
{
	while (control->conn_count >= CONTROL_CONNS_MAX && !control->stop.cancelled) {
		if (end_an_idle_one(control))
			waitq_wait(&control->changed);
		else
			fiber_sleep_ns(RETRY_MS * NS_PER_MS);
	}
}

/* Waits for a connection and for a place for it. */
static int wait_for_work(struct control *control)
{
	int ret = fd_wait(control->listen_fd, POLLIN, UINT64_MAX, &control->stop);

	if (ret >= 0)
		wait_for_place(control);
	return control->stop.cancelled ? -ECANCELED : ret;
}

static void accept_one(struct control *control)
{
	int fd = accept4(control->listen_fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);

	if (fd < 0 && (errno == EAGAIN || errno == EINTR || errno == ECONNABORTED))
		return;
	if (fd < 0 || conn_start(control, fd) != 0) {
		log_warn("cannot take a control connection: %s", strerror(fd < 0 ? errno : ENOMEM));
		if (fd >= 0)
			close(fd);
		fiber_sleep_ns(NS_PER_S);
	}
}

static void accept_all(void *arg)
{
	struct control *control = arg;
	int ret;

	while ((ret = wait_for_work(control)) >= 0)
		accept_one(control);
	if (ret != -ECANCELED)
		log_error("the control socket is lost: %s", strerror(-ret));
	control->accepting = false;
	waitq_wake_all(&control->changed);
}

/* --- life ------------------------------------------------------------------------------------------------- */

/* The last folder of the path, if it is missing: /run is empty after each boot. */
static int make_folder(const char *path, struct err *err)
{
	const char *slash = strrchr(path, '/');
	char *dir;
	int ret = 0;

	if (!slash || slash == path)
		return 0;
	dir = strndup(path, (size_t)(slash - path));
	if (!dir)
		return err_set(err, -ENOMEM, "no memory");
	if (mkdir(dir, 0755) != 0 && errno != EEXIST)
		ret = err_set(err, -errno, "cannot create folder '%s': %m", dir);
	free(dir);
	return ret;
}

struct listen_job {
	struct control *control;
	struct err *err;
};

/* The descriptor, or -errno. Blocks. */
static int run_listen(void *arg)
{
	struct listen_job *job = arg;
	const char *path = job->control->opts.socket_path;
	int ret = make_folder(path, job->err);

	if (ret == 0)
		ret = socket_listen(path, &job->control->file, job->err);
	if (ret >= 0 && listen(ret, CONTROL_BACKLOG) != 0)
		log_warn("few connections can wait on '%s': %s", path, strerror(errno));
	return ret;
}

int control_open(const struct control_opts *opts, struct control **out, struct err *err)
{
	struct control *control = calloc(1, sizeof(*control));
	struct listen_job job = { control, err };

	if (!control)
		return err_set(err, -ENOMEM, "no memory");
	control->opts = *opts;
	fd_cancel_init(&control->stop);
	list_init(&control->conns);
	waitq_init(&control->changed);
	control->listen_fd = reactor_offload(run_listen, &job);
	if (control->listen_fd < 0) {
		int ret = control->listen_fd;

		free(control);
		return ret;
	}
	*out = control;
	return 0;
}

int control_serve(struct control *control, struct err *err)
{
	control->accepting = fiber_start(loop_self(), accept_all, control) == 0;
	return control->accepting ? 0 : err_set(err, -ENOMEM, "no memory");
}

void control_stop(struct control *control)
{
	socket_remove(&control->file);
	fd_cancel(&control->stop);
	while (control->accepting)
		waitq_wait(&control->changed);
	list_for_each(node, &control->conns)
		fd_cancel(&list_entry(node, struct conn, node)->cancel);
	while (control->conn_count > 0)
		waitq_wait(&control->changed);
	close(control->listen_fd);
	free(control);
}
