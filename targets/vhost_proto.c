/* vhost-user messages on a socket. See vhost_proto.h.
 *
 * How: a message is received in as many pieces as the stream gives, header first, then exactly its payload, never a byte
 * of the next message. Ancillary data is taken from every piece.
 *
 * Always: every descriptor that the kernel installs for us is in msg->fd or closed before the call returns. */
#include "targets/vhost_proto.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

struct rule {
	const char *name;
	uint16_t size_min, size_max;
	uint8_t fds_min, fds_max;
	uint8_t feature;
};

static const struct rule rules[VHOST_REQUEST_END] = {
#define X(name, number, size_min, size_max, fds_min, fds_max, feature) \
	[number] = { #name, size_min, size_max, fds_min, fds_max, feature },
	VHOST_REQUESTS(X)
#undef X
};

static const struct rule *find_rule(uint32_t request)
{
	return request < VHOST_REQUEST_END && rules[request].name ? &rules[request] : NULL;
}

const char *vhost_request_name(uint32_t request)
{
	const struct rule *rule = find_rule(request);

	return rule ? rule->name : "unknown request";
}

int vhost_msg_validate(const struct vhost_msg *msg, uint64_t protocol_features)
{
	const struct rule *rule = find_rule(vhost_msg_request(msg));
	uint32_t flags = le32_get(msg->header.flags), size = vhost_msg_size(msg);

	if (!rule || (rule->feature != VHOST_P_NONE && !(protocol_features & (1ull << rule->feature))))
		return -EOPNOTSUPP;
	if ((flags & ~VHOST_FLAG_NEED_REPLY) != VHOST_FLAG_VERSION)
		return -EINVAL;
	if (size < rule->size_min || size > rule->size_max)
		return -EINVAL;
	return msg->fd_count >= rule->fds_min && msg->fd_count <= rule->fds_max ? 0 : -EINVAL;
}

void vhost_msg_init(struct vhost_msg *msg)
{
	memset(msg, 0, sizeof(*msg));
	for (uint32_t i = 0; i < VHOST_FDS_MAX; i++)
		msg->fd[i] = -1;
}

void vhost_msg_release(struct vhost_msg *msg)
{
	for (uint32_t i = 0; i < msg->fd_count; i++)
		if (msg->fd[i] >= 0)
			close(msg->fd[i]);
	vhost_msg_init(msg);
}

void vhost_msg_set_header(struct vhost_msg *msg, uint32_t request, uint32_t flags, uint32_t size_bytes)
{
	msg->header.request = le32_of(request);
	msg->header.flags = le32_of(VHOST_FLAG_VERSION | flags);
	msg->header.size = le32_of(size_bytes);
}

/* ---- receiving ---- */

/* Takes one descriptor into the message, or closes it. */
static int take_fd(struct vhost_msg *msg, int fd)
{
	if (msg->fd_count == VHOST_FDS_MAX) {
		close(fd);
		return -EPROTO;
	}
	msg->fd[msg->fd_count++] = fd;
	return 0;
}

static int take_ancillary(struct msghdr *hdr, struct vhost_msg *msg)
{
	int rc = hdr->msg_flags & MSG_CTRUNC ? -EPROTO : 0;

	for (struct cmsghdr *cmsg = CMSG_FIRSTHDR(hdr); cmsg; cmsg = CMSG_NXTHDR(hdr, cmsg)) {
		size_t count = (cmsg->cmsg_len - CMSG_LEN(0)) / sizeof(int);

		if (cmsg->cmsg_level != SOL_SOCKET || cmsg->cmsg_type != SCM_RIGHTS)
			continue;
		for (size_t i = 0; i < count; i++) {
			int fd;

			memcpy(&fd, CMSG_DATA(cmsg) + i * sizeof(fd), sizeof(fd));
			if (take_fd(msg, fd) < 0)
				rc = -EPROTO;
		}
	}
	return rc;
}

/* One recvmsg. Bytes got (> 0), 0: none there, or -errno. */
static int recv_some(int sock, void *into, uint32_t len_bytes, struct vhost_msg *msg)
{
	_Alignas(struct cmsghdr) char control[CMSG_SPACE(sizeof(int) * VHOST_FDS_MAX)];
	struct iovec iov = { into, len_bytes };
	struct msghdr hdr = { .msg_iov = &iov, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof(control) };
	ssize_t got = recvmsg(sock, &hdr, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
	int rc;

	if (got < 0 && (errno == EAGAIN || errno == EINTR))
		return 0;
	if (got < 0)
		return errno == ECONNRESET ? -EPIPE : -errno;
	rc = take_ancillary(&hdr, msg);
	if (rc < 0)
		return rc;
	return got == 0 ? -EPIPE : (int)got;
}

/* The header is complete: is it worth reading on? */
static int check_header(const struct vhost_msg *msg)
{
	if ((le32_get(msg->header.flags) & VHOST_FLAG_VERSION_MASK) != VHOST_FLAG_VERSION)
		return -EPROTO;
	return vhost_msg_size(msg) <= VHOST_PAYLOAD_BYTES_MAX ? 0 : -EMSGSIZE;
}

int vhost_msg_recv(int sock, struct vhost_msg *msg)
{
	const uint32_t head_bytes = sizeof(msg->header);

	for (;;) {
		bool in_head = msg->got_bytes < head_bytes;
		uint32_t end_bytes = in_head ? head_bytes : head_bytes + vhost_msg_size(msg);
		uint8_t *at = in_head ? (uint8_t *)&msg->header + msg->got_bytes
				      : (uint8_t *)&msg->payload + (msg->got_bytes - head_bytes);
		int got;

		if (msg->got_bytes == end_bytes)
			return 1;
		got = recv_some(sock, at, end_bytes - msg->got_bytes, msg);
		if (got <= 0)
			return got;
		msg->got_bytes += (uint32_t)got;
		if (in_head && msg->got_bytes == head_bytes) {
			int rc = check_header(msg);

			if (rc < 0)
				return rc;
		}
	}
}

/* ---- sending ---- */

static void attach_fds(struct msghdr *hdr, void *control, const int *fd, uint32_t fd_count)
{
	struct cmsghdr *cmsg;

	hdr->msg_control = control;
	hdr->msg_controllen = CMSG_SPACE(sizeof(*fd) * fd_count);
	cmsg = CMSG_FIRSTHDR(hdr);
	cmsg->cmsg_level = SOL_SOCKET;
	cmsg->cmsg_type = SCM_RIGHTS;
	cmsg->cmsg_len = CMSG_LEN(sizeof(*fd) * fd_count);
	memcpy(CMSG_DATA(cmsg), fd, sizeof(*fd) * fd_count);
}

int vhost_msg_send_fds(int sock, const struct vhost_msg *msg, const int *fd, uint32_t fd_count, uint32_t *sent)
{
	uint8_t bytes[sizeof(msg->header) + sizeof(msg->payload)];
	uint32_t len_bytes = sizeof(msg->header) + vhost_msg_size(msg);

	memcpy(bytes, &msg->header, sizeof(msg->header));
	memcpy(bytes + sizeof(msg->header), &msg->payload, vhost_msg_size(msg));
	while (*sent < len_bytes) {
		_Alignas(struct cmsghdr) char control[CMSG_SPACE(sizeof(int) * VHOST_FDS_MAX)] = { 0 };
		struct iovec iov = { bytes + *sent, len_bytes - *sent };
		struct msghdr hdr = { .msg_iov = &iov, .msg_iovlen = 1 };
		ssize_t gone;

		if (fd_count > 0 && *sent == 0)
			attach_fds(&hdr, control, fd, fd_count);
		gone = sendmsg(sock, &hdr, MSG_NOSIGNAL | MSG_DONTWAIT);
		if (gone < 0 && (errno == EAGAIN || errno == EINTR))
			return 0;
		if (gone < 0)
			return -errno;
		*sent += (uint32_t)gone;
	}
	return 1;
}
