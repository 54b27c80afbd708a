/* The client's side of the control socket: see rpc.h. Messages are lines; what stands behind the first line of an answer
 * is an error, since there is never more than one call under way. */
#include "tools/rpc.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#define READ_BYTES 65536
#define ANSWER_BYTES_MAX (256u << 20)

struct rpc {
	int fd;
	json_int_t last_id;
	bool lost;
	char *buf;
	size_t len_bytes, cap_bytes;
};

static int refuse(const char *path, int code, struct err *err)
{
	const char *hint = "is poold running?";

	if (code == -EACCES || code == -EPERM)
		hint = "only root and the user poold runs as may use it";
	return err_set(err, code, "cannot reach poold at '%s': %s; %s", path, strerror(-code), hint);
}

int rpc_connect(const char *path, struct rpc **out, struct err *err)
{
	struct sockaddr_un addr = { .sun_family = AF_UNIX };
	struct rpc *rpc;

	if (strlen(path) >= sizeof(addr.sun_path))
		return refuse(path, -ENAMETOOLONG, err);
	strcpy(addr.sun_path, path);
	rpc = calloc(1, sizeof(*rpc));
	if (!rpc)
		return err_set(err, -ENOMEM, "no memory");
	rpc->fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (rpc->fd < 0 || connect(rpc->fd, (struct sockaddr *)&addr, sizeof(addr)) != 0) {
		int code = -errno;

		rpc_close(rpc);
		return refuse(path, code, err);
	}
	*out = rpc;
	return 0;
}

void rpc_close(struct rpc *rpc)
{
	if (!rpc)
		return;
	if (rpc->fd >= 0)
		close(rpc->fd);
	free(rpc->buf);
	free(rpc);
}

bool rpc_is_lost(const struct rpc *rpc)
{
	return rpc->lost;
}

static int lost(struct rpc *rpc, int code, const char *what, struct err *err)
{
	rpc->lost = true;
	return err_set(err, code, "lost poold: %s; see its log", what);
}

static int send_all(int fd, const char *text, size_t len_bytes)
{
	while (len_bytes > 0) {
		ssize_t put = send(fd, text, len_bytes, MSG_NOSIGNAL);

		if (put < 0 && errno != EINTR)
			return -errno;
		if (put > 0) {
			text += put;
			len_bytes -= (size_t)put;
		}
	}
	return 0;
}

/* A refused connection has its reason waiting to be read, so only a read says that the daemon is lost. */
static int send_request(struct rpc *rpc, const char *method, json_t *params, struct err *err)
{
	json_t *request = json_pack("{s:s, s:s, s:o*, s:I}", "jsonrpc", "2.0", "method", method, "params", params, "id",
				    ++rpc->last_id);
	char *text = request ? json_dumps(request, JSON_COMPACT) : NULL;
	int ret;

	json_decref(request);
	if (!text)
		return err_set(err, -EINVAL, "cannot call '%s': no memory, or an argument is not UTF-8", method);
	ret = send_all(rpc->fd, text, strlen(text));
	if (ret == 0)
		ret = send_all(rpc->fd, "\n", 1);
	free(text);
	return ret == 0 || ret == -EPIPE ? 0 : lost(rpc, ret, strerror(-ret), err);
}

static int make_room(struct rpc *rpc)
{
	size_t cap = rpc->cap_bytes ? 2 * rpc->cap_bytes : READ_BYTES;
	char *buf;

	if (rpc->cap_bytes - rpc->len_bytes >= READ_BYTES / 2)
		return 0;
	if (cap > ANSWER_BYTES_MAX)
		return -EMSGSIZE;
	buf = realloc(rpc->buf, cap);
	if (!buf)
		return -ENOMEM;
	rpc->buf = buf;
	rpc->cap_bytes = cap;
	return 0;
}

/* Reads one line into buf, without its newline. */
static int read_line(struct rpc *rpc, struct err *err)
{
	rpc->len_bytes = 0;
	for (;;) {
		ssize_t got;
		int ret = make_room(rpc);

		if (ret)
			return lost(rpc, ret, strerror(-ret), err);
		got = recv(rpc->fd, rpc->buf + rpc->len_bytes, rpc->cap_bytes - rpc->len_bytes, 0);
		if (got == 0)
			return lost(rpc, -ECONNRESET, "it closed the connection", err);
		if (got < 0 && errno != EINTR)
			return lost(rpc, -errno, strerror(errno), err);
		if (got > 0)
			rpc->len_bytes += (size_t)got;
		if (rpc->len_bytes > 0 && rpc->buf[rpc->len_bytes - 1] == '\n')
			return 0;
	}
}

/* The answer's error as code and message; `answer` is untouched. */
static int take_error(struct rpc *rpc, json_t *answer, struct err *err)
{
	const char *message;
	int number;

	if (json_unpack(answer, "{s:{s:s, s:{s:i}}}", "error", "message", &message, "data", "errno", &number) != 0 ||
	    number <= 0)
		return lost(rpc, -EPROTO, "its answer makes no sense", err);
	return err_set(err, -number, "%s", message);
}

static int take_answer(struct rpc *rpc, json_t *answer, json_t **result, struct err *err)
{
	json_t *value = json_object_get(answer, "result");

	if (!value)
		return take_error(rpc, answer, err);
	if (json_integer_value(json_object_get(answer, "id")) != rpc->last_id)
		return lost(rpc, -EPROTO, "its answer belongs to another call", err);
	*result = json_incref(value);
	return 0;
}

int rpc_call(struct rpc *rpc, const char *method, json_t *params, json_t **result, struct err *err)
{
	json_t *answer;
	int ret = send_request(rpc, method, params, err);

	if (ret)
		return ret;
	ret = read_line(rpc, err);
	if (ret)
		return ret;
	answer = json_loadb(rpc->buf, rpc->len_bytes, 0, NULL);
	if (!answer)
		return lost(rpc, -EPROTO, "its answer is not JSON", err);
	ret = take_answer(rpc, answer, result, err);
	json_decref(answer);
	return ret;
}
