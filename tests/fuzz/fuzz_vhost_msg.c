/* vhost-user messages: any bytes in any pieces with any number of descriptors. An input is pieces: length 1, descriptors 1,
 * bytes. Whatever comes, no descriptor is left behind, and what validates keeps the bounds of the table. */
#include <errno.h>
#include <sys/socket.h>
#include <unistd.h>

#include "targets/vhost_proto.h"
#include "tests/fuzz/fuzz.h"

#define FDS_SENT_MAX 12

static int sock[2];

/* The descriptors of one run are copies of sock[1]'s other end; what is open afterwards shows what leaked. */
static int lowest_free_fd(void)
{
	int fd = dup(0);

	FUZZ_REQUIRE(fd >= 0);
	close(fd);
	return fd;
}

static void send_piece(struct fuzz_input *in)
{
	_Alignas(struct cmsghdr) char control[CMSG_SPACE(sizeof(int) * FDS_SENT_MAX)] = { 0 };
	uint8_t bytes[256];
	size_t len = fuzz_uint8(in);
	unsigned fds = fuzz_uint8(in);
	struct iovec iov = { bytes, fuzz_take(in, bytes, len) };
	struct msghdr hdr = { .msg_iov = &iov, .msg_iovlen = 1 };

	fds = fds < 0xe0 ? 0 : fds % (FDS_SENT_MAX + 1);
	if (iov.iov_len == 0)
		return;
	if (fds > 0) {
		struct cmsghdr *cmsg;

		hdr.msg_control = control;
		hdr.msg_controllen = CMSG_SPACE(sizeof(int) * fds);
		cmsg = CMSG_FIRSTHDR(&hdr);
		cmsg->cmsg_level = SOL_SOCKET;
		cmsg->cmsg_type = SCM_RIGHTS;
		cmsg->cmsg_len = CMSG_LEN(sizeof(int) * fds);
		for (unsigned i = 0; i < fds; i++)
			memcpy(CMSG_DATA(cmsg) + i * sizeof(int), &sock[1], sizeof(int));
	}
	(void)!sendmsg(sock[1], &hdr, MSG_DONTWAIT | MSG_NOSIGNAL);
}

static void check(const struct vhost_msg *msg)
{
	FUZZ_REQUIRE(vhost_msg_size(msg) <= VHOST_PAYLOAD_BYTES_MAX && msg->fd_count <= VHOST_FDS_MAX);
	FUZZ_REQUIRE(msg->got_bytes == sizeof(msg->header) + vhost_msg_size(msg));
	FUZZ_REQUIRE(vhost_request_name(vhost_msg_request(msg)));
	if (vhost_msg_validate(msg, UINT64_MAX) == 0)
		FUZZ_REQUIRE(vhost_msg_request(msg) < VHOST_REQUEST_END);
	else
		FUZZ_REQUIRE(vhost_msg_validate(msg, 0) != 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct fuzz_input in = { data, size };
	struct vhost_msg msg;
	int before = lowest_free_fd(), rc = 0;

	FUZZ_REQUIRE(socketpair(AF_UNIX, SOCK_STREAM, 0, sock) == 0);
	vhost_msg_init(&msg);
	while (in.left > 0 && rc >= 0) {
		send_piece(&in);
		while ((rc = vhost_msg_recv(sock[0], &msg)) == 1) {
			check(&msg);
			vhost_msg_release(&msg);
		}
	}
	vhost_msg_release(&msg);
	close(sock[0]);
	close(sock[1]);
	FUZZ_REQUIRE(lowest_free_fd() == before);
	return 0;
}
