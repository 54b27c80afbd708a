/* Sections on a file or socket. See stream.h. */
#include "vmm-glue/stream.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/uio.h>
#include <unistd.h>

#include "pool/base/crc32c.h"

int stream_open(struct stream *stream, int fd, bool is_socket, struct err *err)
{
	const struct timeval wait = { .tv_sec = STREAM_WAIT_S };

	*stream = (struct stream){ .fd = fd, .is_socket = is_socket, .got_fd = -1 };
	if (is_socket && (setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &wait, sizeof(wait)) < 0 ||
			  setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &wait, sizeof(wait)) < 0))
		return err_set(err, -errno, "cannot set up the connection: %m");
	stream->payload = malloc(STREAM_PAYLOAD_BYTES_MAX);
	return stream->payload ? 0 : err_set(err, -ENOMEM, "no memory");
}

static void close_got(struct stream *stream)
{
	if (stream->got_fd >= 0)
		close(stream->got_fd);
	stream->got_fd = -1;
}

void stream_close(struct stream *stream)
{
	close_got(stream);
	if (stream->fd >= 0)
		close(stream->fd);
	stream->fd = -1;
	free(stream->payload);
	stream->payload = NULL;
}

/* ---- writing ---- */

/* One sendmsg or writev of what is left; the descriptor goes with the first byte. */
static ssize_t put_some(struct stream *stream, struct iovec *iov, int count, int pass_fd)
{
	_Alignas(struct cmsghdr) char control[CMSG_SPACE(sizeof(int))] = { 0 };
	struct msghdr msg = { .msg_iov = iov, .msg_iovlen = (size_t)count };
	struct cmsghdr *cmsg;

	if (!stream->is_socket)
		return writev(stream->fd, iov, count);
	if (pass_fd >= 0) {
		msg.msg_control = control;
		msg.msg_controllen = sizeof(control);
		cmsg = CMSG_FIRSTHDR(&msg);
		cmsg->cmsg_level = SOL_SOCKET;
		cmsg->cmsg_type = SCM_RIGHTS;
		cmsg->cmsg_len = CMSG_LEN(sizeof(pass_fd));
		memcpy(CMSG_DATA(cmsg), &pass_fd, sizeof(pass_fd));
	}
	return sendmsg(stream->fd, &msg, MSG_NOSIGNAL);
}

static int put_all(struct stream *stream, struct iovec *iov, int count, int pass_fd)
{
	while (count > 0) {
		ssize_t put = put_some(stream, iov, count, pass_fd);

		if (put < 0 && errno == EINTR)
			continue;
		if (put < 0)
			return errno == EAGAIN ? -ETIMEDOUT : -errno;
		pass_fd = -1;
		stream->put_bytes += (uint64_t)put;
		for (; count > 0 && (size_t)put >= iov->iov_len; iov++, count--)
			put -= (ssize_t)iov->iov_len;
		if (count > 0) {
			iov->iov_base = (uint8_t *)iov->iov_base + put;
			iov->iov_len -= (size_t)put;
		}
	}
	return 0;
}

static uint32_t header_crc(struct stream_header header)
{
	header.crc = le32_of(0);
	return crc32c(0, &header, sizeof(header));
}

int stream_put(struct stream *stream, enum stream_type type, const void *head, uint32_t head_bytes, const void *body,
	       uint32_t body_bytes, int pass_fd, struct err *err)
{
	struct stream_header header = {
		.magic = le32_of(STREAM_MAGIC),
		.type = le16_of((uint16_t)type),
		.version = le16_of(1),
		.reader_min = le16_of(1),
		.payload_crc = le32_of(crc32c(crc32c(0, head, head_bytes), body, body_bytes)),
		.len_bytes = le64_of((uint64_t)head_bytes + body_bytes),
		.number = le32_of(stream->put_number),
	};
	struct iovec iov[3] = {
		{ &header, sizeof(header) },
		{ (void *)head, head_bytes },
		{ (void *)body, body_bytes },
	};
	int rc;

	header.crc = le32_of(header_crc(header));
	stream->put_number++;
	rc = put_all(stream, iov, 3, pass_fd);
	return rc < 0 ? err_set(err, rc, "cannot write the VM's state: %s", strerror(-rc)) : 0;
}

/* ---- reading ---- */

static void take_fds(struct stream *stream, struct msghdr *msg)
{
	for (struct cmsghdr *cmsg = CMSG_FIRSTHDR(msg); cmsg; cmsg = CMSG_NXTHDR(msg, cmsg)) {
		if (cmsg->cmsg_level != SOL_SOCKET || cmsg->cmsg_type != SCM_RIGHTS)
			continue;
		close_got(stream);
		memcpy(&stream->got_fd, CMSG_DATA(cmsg), sizeof(int));
	}
}

static ssize_t get_some(struct stream *stream, void *into, size_t len_bytes)
{
	_Alignas(struct cmsghdr) char control[CMSG_SPACE(sizeof(int))];
	struct iovec iov = { into, len_bytes };
	struct msghdr msg = { .msg_iov = &iov,
			      .msg_iovlen = 1,
			      .msg_control = control,
			      .msg_controllen = sizeof(control) };
	ssize_t got;

	if (!stream->is_socket)
		return read(stream->fd, into, len_bytes);
	got = recvmsg(stream->fd, &msg, MSG_CMSG_CLOEXEC);
	if (got > 0)
		take_fds(stream, &msg);
	return got;
}

static int get_all(struct stream *stream, void *into, size_t len_bytes, struct err *err)
{
	uint8_t *at = into;

	while (len_bytes > 0) {
		ssize_t got = get_some(stream, at, len_bytes);

		if (got < 0 && errno == EINTR)
			continue;
		if (got < 0)
			return err_set(err, errno == EAGAIN ? -ETIMEDOUT : -errno, "cannot read the VM's state: %s",
				       errno == EAGAIN ? "the other side stands still" : strerror(errno));
		if (got == 0)
			return err_set(err, -EPIPE, "the VM's state is cut short");
		at += got;
		len_bytes -= (size_t)got;
	}
	return 0;
}

static int check_header(const struct stream *stream, const struct stream_header *header, struct err *err)
{
	if (le32_get(header->magic) != STREAM_MAGIC || le32_get(header->crc) != header_crc(*header))
		return err_set(err, -EBADMSG, "section %u of the VM's state is damaged, or this is none",
			       stream->get_number);
	if (le32_get(header->number) != stream->get_number || le64_get(header->len_bytes) > STREAM_PAYLOAD_BYTES_MAX)
		return err_set(err, -EBADMSG, "section %u of the VM's state is out of order or too long",
			       stream->get_number);
	return 0;
}

/* What a mandatory section may not be: newer than we are, or unknown. */
static int check_known(const struct stream *stream, const struct stream_header *header, struct err *err)
{
	uint16_t type = le16_get(header->type);

	if (le16_get(header->reader_min) > STREAM_READER_VERSION || type == 0 || type >= STREAM_TYPE_END)
		return err_set(err, -EPROTONOSUPPORT,
			       "section %u of the VM's state is of type %u, version %u: it wants a newer poolvm",
			       stream->get_number, type, le16_get(header->version));
	return 0;
}

/* One section: 1 if it is to be used, 0 if it is skipped. */
static int get_one(struct stream *stream, struct stream_header *header, struct err *err)
{
	int rc = get_all(stream, header, sizeof(*header), err);

	if (rc == 0)
		rc = check_header(stream, header, err);
	if (rc < 0)
		return rc;
	stream->len_bytes = (uint32_t)le64_get(header->len_bytes);
	rc = get_all(stream, stream->payload, stream->len_bytes, err);
	if (rc == 0 && crc32c(0, stream->payload, stream->len_bytes) != le32_get(header->payload_crc))
		rc = err_set(err, -EBADMSG, "section %u of the VM's state is damaged", stream->get_number);
	if (rc == 0)
		rc = check_known(stream, header, err);
	if (rc == -EPROTONOSUPPORT && (le16_get(header->flags) & STREAM_FLAG_OPTIONAL))
		rc = 0;
	else if (rc == 0)
		rc = 1;
	stream->get_number++;
	return rc;
}

int stream_get(struct stream *stream, struct err *err)
{
	struct stream_header header;
	int rc;

	close_got(stream);
	do
		rc = get_one(stream, &header, err);
	while (rc == 0);
	return rc < 0 ? rc : le16_get(header.type);
}
