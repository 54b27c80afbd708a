/* Receiving and sending by the ring: see nbd_stream.h. */
#include "targets/nbd_stream.h"

#include <assert.h>
#include <errno.h>
#include <liburing.h>
#include <sys/socket.h>

#include "pool/runtime/fiber.h"
#include "pool/runtime/reactor.h"
#include "targets/nbd_tls.h"

struct wait {
	struct ring_op op;
	struct fiber *fiber;
	int res;
	bool done;
};

static void wait_done(struct ring_op *op, int res, uint32_t cqe_flags)
{
	struct wait *wait = container_of(op, struct wait, op);

	wait->res = res;
	wait->done = true;
	fiber_wake(wait->fiber);
}

static void wait_init(struct wait *wait)
{
	*wait = (struct wait){ .op.done = wait_done, .fiber = fiber_self() };
	assert(wait->fiber);
}

static struct io_uring_sqe *sqe_for(struct wait *wait)
{
	return reactor_sqe(reactor_of(loop_self()), &wait->op);
}

static int wait_end(struct wait *wait)
{
	while (!wait->done)
		fiber_park();
	return wait->res;
}

static bool is_passing(int res)
{
	return res == -EINTR || res == -EAGAIN;
}

int nbd_socket_recv(int sock, void *buf, size_t len_bytes)
{
	struct wait wait;
	int res;

	do {
		wait_init(&wait);
		io_uring_prep_recv(sqe_for(&wait), sock, buf, len_bytes, 0);
		res = wait_end(&wait);
	} while (is_passing(res));
	return res;
}

static void pass_iov(struct msghdr *msg, size_t len_bytes)
{
	while (msg->msg_iovlen > 0 && len_bytes >= msg->msg_iov->iov_len) {
		len_bytes -= msg->msg_iov->iov_len;
		msg->msg_iov++;
		msg->msg_iovlen--;
	}
	if (msg->msg_iovlen > 0) {
		msg->msg_iov->iov_base = (uint8_t *)msg->msg_iov->iov_base + len_bytes;
		msg->msg_iov->iov_len -= len_bytes;
	}
}

int nbd_socket_send(int sock, struct iovec *iov, uint32_t count)
{
	struct msghdr msg = { .msg_iov = iov, .msg_iovlen = count };
	struct wait wait;
	int res;

	while (msg.msg_iovlen > 0) {
		wait_init(&wait);
		io_uring_prep_sendmsg(sqe_for(&wait), sock, &msg, MSG_NOSIGNAL | MSG_WAITALL);
		res = wait_end(&wait);
		if (is_passing(res))
			continue;
		if (res <= 0)
			return res < 0 ? res : -EPIPE;
		pass_iov(&msg, (size_t)res);
	}
	return 0;
}

int nbd_stream_recv(struct nbd_stream *stream, void *buf, size_t len_bytes)
{
	return stream->tls ? nbd_tls_recv(stream->tls, buf, len_bytes) : nbd_socket_recv(stream->sock, buf, len_bytes);
}

int nbd_stream_send(struct nbd_stream *stream, struct iovec *iov, uint32_t count)
{
	assert(count <= NBD_SEND_IOV_MAX);
	return stream->tls ? nbd_tls_send(stream->tls, iov, count) : nbd_socket_send(stream->sock, iov, count);
}

void nbd_stream_shut(struct nbd_stream *stream, bool reading_only)
{
	/* It fails when the other side was faster; then there is nothing to do. */
	(void)shutdown(stream->sock, reading_only ? SHUT_RD : SHUT_RDWR);
}
