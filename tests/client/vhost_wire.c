/* Sending and receiving vhost-user messages over a Unix stream socket.
 *
 * How: a message goes out in one sendmsg with its descriptors attached to the first byte, as QEMU does. Receiving reads
 * the header, then the payload, polling with one deadline for the whole message. Always: a received descriptor is
 * either in message->fd or closed, never leaked. */
#include "tests/client/vhost_wire.h"

#include <errno.h>
#include <poll.h>
#include <stdbool.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#define SEND_WAIT_MS 2000
#define SEND_FDS_MAX 253

uint64_t vu_now_ns(void)
{
	struct timespec now;
	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

int vu_connect(const char *path)
{
	struct sockaddr_un addr = { .sun_family = AF_UNIX };
	if (strlen(path) >= sizeof(addr.sun_path))
		return -ENAMETOOLONG;
	strcpy(addr.sun_path, path);
	int sock = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (sock < 0)
		return -errno;
	struct timeval wait = { .tv_sec = SEND_WAIT_MS / 1000 };
	setsockopt(sock, SOL_SOCKET, SO_SNDTIMEO, &wait, sizeof(wait)); /* for connect: the listener's queue is full */
	if (connect(sock, (struct sockaddr *)&addr, sizeof(addr)) < 0) {
		int error = errno;
		close(sock);
		return -error;
	}
	return sock;
}

/* Waits for `events`, or a hang-up. 0, -ETIMEDOUT or -errno. */
static int wait_for(int sock, short events, int wait_ms)
{
	struct pollfd poll_fd = { .fd = sock, .events = events };
	int ready = poll(&poll_fd, 1, wait_ms < 0 ? 0 : wait_ms);
	if (ready < 0)
		return -errno;
	return ready == 0 ? -ETIMEDOUT : 0;
}

static void attach_fds(struct msghdr *msg, void *control, const int *fd, unsigned fds)
{
	msg->msg_control = control;
	msg->msg_controllen = CMSG_SPACE(fds * sizeof(int));
	struct cmsghdr *cmsg = CMSG_FIRSTHDR(msg);
	cmsg->cmsg_level = SOL_SOCKET;
	cmsg->cmsg_type = SCM_RIGHTS;
	cmsg->cmsg_len = CMSG_LEN(fds * sizeof(int));
	memcpy(CMSG_DATA(cmsg), fd, fds * sizeof(int));
}

int vu_send_bytes(int sock, const void *bytes, size_t len_bytes, const int *fd, unsigned fds)
{
	_Alignas(struct cmsghdr) char control[CMSG_SPACE(SEND_FDS_MAX * sizeof(int))] = { 0 };
	const char *at = bytes;

	if (fds > SEND_FDS_MAX)
		return -EINVAL;
	while (len_bytes > 0) {
		struct iovec iov = { .iov_base = (void *)at, .iov_len = len_bytes };
		struct msghdr msg = { .msg_iov = &iov, .msg_iovlen = 1 };
		if (fds > 0)
			attach_fds(&msg, control, fd, fds);
		ssize_t sent = sendmsg(sock, &msg, MSG_NOSIGNAL | MSG_DONTWAIT);
		if (sent < 0 && errno == EAGAIN) {
			if (wait_for(sock, POLLOUT, SEND_WAIT_MS) < 0)
				return -EAGAIN;
			continue;
		}
		if (sent < 0)
			return errno == ECONNRESET ? -EPIPE : -errno;
		fds = 0;
		at += sent;
		len_bytes -= (size_t)sent;
	}
	return 0;
}

int vu_send(int sock, uint32_t request, uint32_t flags, const void *payload, uint32_t size_bytes, const int *fd,
	    unsigned fds)
{
	char bytes[sizeof(struct vu_header) + VU_PAYLOAD_BYTES_MAX];
	struct vu_header header = { .request = request, .flags = VU_VERSION | flags, .size_bytes = size_bytes };

	if (size_bytes > VU_PAYLOAD_BYTES_MAX)
		return -EMSGSIZE;
	memcpy(bytes, &header, sizeof(header));
	if (size_bytes > 0)
		memcpy(bytes + sizeof(header), payload, size_bytes);
	return vu_send_bytes(sock, bytes, sizeof(header) + size_bytes, fd, fds);
}

static void take_fds(struct msghdr *msg, struct vu_message *message)
{
	for (struct cmsghdr *cmsg = CMSG_FIRSTHDR(msg); cmsg != NULL; cmsg = CMSG_NXTHDR(msg, cmsg)) {
		if (cmsg->cmsg_level != SOL_SOCKET || cmsg->cmsg_type != SCM_RIGHTS)
			continue;
		unsigned count = (unsigned)((cmsg->cmsg_len - CMSG_LEN(0)) / sizeof(int));
		for (unsigned i = 0; i < count; i++) {
			int fd;
			memcpy(&fd, CMSG_DATA(cmsg) + i * sizeof(int), sizeof(int));
			if (message->fds < VU_FDS_MAX)
				message->fd[message->fds++] = fd;
			else
				close(fd);
		}
	}
}

/* Reads exactly len_bytes before the deadline. */
static int receive_bytes(int sock, void *into, size_t len_bytes, uint64_t deadline_ns, struct vu_message *message)
{
	char *at = into;
	while (len_bytes > 0) {
		uint64_t now_ns = vu_now_ns();
		int rc = wait_for(sock, POLLIN, now_ns > deadline_ns ? 0 : (int)((deadline_ns - now_ns) / 1000000) + 1);
		if (rc < 0)
			return rc;
		_Alignas(struct cmsghdr) char control[CMSG_SPACE(VU_FDS_MAX * sizeof(int))];
		struct iovec iov = { .iov_base = at, .iov_len = len_bytes };
		struct msghdr msg = { .msg_iov = &iov, .msg_iovlen = 1 };
		msg.msg_control = control;
		msg.msg_controllen = sizeof(control);
		ssize_t got = recvmsg(sock, &msg, MSG_CMSG_CLOEXEC);
		if (got < 0)
			return errno == ECONNRESET ? -EPIPE : -errno;
		take_fds(&msg, message);
		if (got == 0)
			return -EPIPE;
		at += got;
		len_bytes -= (size_t)got;
	}
	return 0;
}

int vu_receive(int sock, struct vu_message *message, int wait_ms)
{
	uint64_t deadline_ns = vu_now_ns() + (uint64_t)wait_ms * 1000000u;
	message->fds = 0;
	int rc = receive_bytes(sock, &message->header, sizeof(message->header), deadline_ns, message);
	if (rc == 0 && message->header.size_bytes > sizeof(message->payload))
		rc = -EPROTO;
	if (rc == 0)
		rc = receive_bytes(sock, message->payload, message->header.size_bytes, deadline_ns, message);
	if (rc < 0)
		vu_close_fds(message);
	return rc;
}

void vu_close_fds(struct vu_message *message)
{
	for (unsigned i = 0; i < message->fds; i++)
		close(message->fd[i]);
	message->fds = 0;
}

int vu_is_closed(int sock)
{
	char byte;
	struct pollfd poll_fd = { .fd = sock, .events = POLLIN };
	if (poll(&poll_fd, 1, 0) <= 0)
		return false;
	if (poll_fd.revents & (POLLHUP | POLLERR | POLLNVAL))
		return true;
	ssize_t got = recv(sock, &byte, 1, MSG_PEEK | MSG_DONTWAIT);
	return got == 0 || (got < 0 && errno != EAGAIN);
}
