/* poolvm's control socket. See poolvm_control.h.
 *
 * Requests are served one by one with the VM's lock held: each method sees the VM standing still between two events. A
 * client that does not take its answers is dropped. */
#include "tools/poolvm_control.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "pool/base/list.h"
#include "tools/jsonrpc.h"
#include "tools/poolvm_methods.h"

struct client {
	struct poolvm_control *control;
	struct event event;
	char *line;
	size_t len_bytes;
};

struct poolvm_control {
	struct vm *vm;
	char *path;
	struct event listener;
	struct client client[CONTROL_CLIENTS_MAX];
};

static void drop(struct client *client)
{
	events_remove(&client->control->vm->events, &client->event);
	close(client->event.fd);
	client->event.fd = -1;
	free(client->line);
	client->line = NULL;
}

/* Sends an answer and a newline at once; sockets hold more than that. */
static bool answer(struct client *client, const char *text)
{
	size_t len_bytes = strlen(text);
	char newline = '\n';
	struct iovec iov[2] = { { (void *)text, len_bytes }, { &newline, 1 } };
	struct msghdr msg = { .msg_iov = iov, .msg_iovlen = 2 };

	return sendmsg(client->event.fd, &msg, MSG_NOSIGNAL | MSG_DONTWAIT) == (ssize_t)len_bytes + 1;
}

static bool carry_out(struct client *client, const char *request, size_t len_bytes)
{
	char *text = NULL;
	bool ok = jsonrpc_answer(poolvm_methods, poolvm_method_count, client->control->vm, request, len_bytes, &text) ==
		  0;

	if (ok && text)
		ok = answer(client, text);
	free(text);
	return ok;
}

static bool carry_out_lines(struct client *client)
{
	char *end;

	while ((end = memchr(client->line, '\n', client->len_bytes))) {
		size_t taken = (size_t)(end - client->line) + 1;

		if (taken > 1 && !carry_out(client, client->line, taken - 1))
			return false;
		client->len_bytes -= taken;
		memmove(client->line, client->line + taken, client->len_bytes);
	}
	return client->len_bytes < CONTROL_LINE_BYTES_MAX;
}

static void on_client(struct event *event, uint32_t epoll_events)
{
	struct client *client = container_of(event, struct client, event);
	ssize_t got = recv(event->fd, client->line + client->len_bytes, CONTROL_LINE_BYTES_MAX - client->len_bytes, 0);

	if (got < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	if (got > 0)
		client->len_bytes += (size_t)got;
	if (got <= 0 || !carry_out_lines(client))
		drop(client);
}

static struct client *free_client(struct poolvm_control *control)
{
	for (int i = 0; i < CONTROL_CLIENTS_MAX; i++)
		if (control->client[i].event.fd < 0)
			return &control->client[i];
	return NULL;
}

static void on_connect(struct event *event, uint32_t epoll_events)
{
	struct poolvm_control *control = container_of(event, struct poolvm_control, listener);
	int fd = accept4(event->fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
	struct client *client = free_client(control);

	if (fd < 0)
		return;
	if (!client || !(client->line = malloc(CONTROL_LINE_BYTES_MAX))) {
		close(fd);
		return;
	}
	client->event.fd = fd;
	client->len_bytes = 0;
	if (events_add(&control->vm->events, &client->event, EPOLLIN) < 0)
		drop(client);
}

/* Takes the place of a socket that nobody serves any more. */
static int listen_at(const char *path, struct err *err)
{
	struct sockaddr_un addr = { .sun_family = AF_UNIX };
	int fd, rc;

	if (strlen(path) >= sizeof(addr.sun_path))
		return err_set(err, -ENAMETOOLONG, "the path '%s' is too long for a socket", path);
	strcpy(addr.sun_path, path);
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0)
		return err_set(err, -errno, "cannot make a socket: %m");
	if (connect(fd, (struct sockaddr *)&addr, sizeof(addr)) == 0) {
		close(fd);
		return err_set(err, -EADDRINUSE, "another poolvm is controlled by '%s'", path);
	}
	unlink(path);
	rc = bind(fd, (struct sockaddr *)&addr, sizeof(addr)) < 0 || chmod(path, 0600) < 0 || listen(fd, 8) < 0 ? -errno
														: 0;
	if (rc < 0) {
		close(fd);
		return err_set(err, rc, "cannot listen on '%s': %s", path, strerror(-rc));
	}
	return fd;
}

int poolvm_control_open(struct vm *vm, const char *path, struct poolvm_control **out, struct err *err)
{
	struct poolvm_control *control = calloc(1, sizeof(*control));
	int fd;

	if (!control)
		return err_set(err, -ENOMEM, "no memory");
	fd = listen_at(path, err);
	if (fd < 0) {
		free(control);
		return fd;
	}
	control->vm = vm;
	control->path = strdup(path);
	control->listener = (struct event){ fd, on_connect };
	for (int i = 0; i < CONTROL_CLIENTS_MAX; i++)
		control->client[i] = (struct client){ .control = control, .event = { -1, on_client } };
	*out = control;
	return events_add(&vm->events, &control->listener, EPOLLIN) < 0 ? err_set(err, -ENOMEM, "no memory") : 0;
}

void poolvm_control_close(struct poolvm_control *control)
{
	if (!control)
		return;
	for (int i = 0; i < CONTROL_CLIENTS_MAX; i++)
		if (control->client[i].event.fd >= 0)
			drop(&control->client[i]);
	events_remove(&control->vm->events, &control->listener);
	close(control->listener.fd);
	if (control->path)
		unlink(control->path);
	free(control->path);
	free(control);
}
