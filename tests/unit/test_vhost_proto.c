/* Unit tests of targets/vhost_proto.c: messages in any pieces, with any descriptors. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include "targets/vhost_proto.h"
#include "tests/unit/unit.h"

#define ALL_FEATURES UINT64_MAX

static int sock[2];                    /* 0: ours, 1: the other side */
static struct vhost_msg msg;
static unsigned fds_before;

static unsigned count_fds(void)
{
	DIR *dir = opendir("/proc/self/fd");
	unsigned count = 0;

	while (readdir(dir))
		count++;
	closedir(dir);
	return count;
}

static int setup(void **state)
{
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, sock), 0);
	vhost_msg_init(&msg);
	fds_before = count_fds();
	return 0;
}

static int teardown(void **state)
{
	vhost_msg_release(&msg);
	assert_int_equal(count_fds(), fds_before);
	close(sock[0]);
	close(sock[1]);
	return 0;
}

/* Sends bytes with `fds` copies of a descriptor. */
static void send_raw(const void *bytes, size_t len, unsigned fds)
{
	_Alignas(struct cmsghdr) char control[CMSG_SPACE(sizeof(int) * 64)] = { 0 };
	struct iovec iov = { (void *)bytes, len };
	struct msghdr hdr = { .msg_iov = &iov, .msg_iovlen = 1 };
	int fd = eventfd(0, 0);

	if (fds > 0) {
		hdr.msg_control = control;
		hdr.msg_controllen = CMSG_SPACE(sizeof(int) * fds);
		struct cmsghdr *cmsg = CMSG_FIRSTHDR(&hdr);

		cmsg->cmsg_level = SOL_SOCKET;
		cmsg->cmsg_type = SCM_RIGHTS;
		cmsg->cmsg_len = CMSG_LEN(sizeof(int) * fds);
		for (unsigned i = 0; i < fds; i++)
			memcpy(CMSG_DATA(cmsg) + i * sizeof(fd), &fd, sizeof(fd));
	}
	assert_int_equal(sendmsg(sock[1], &hdr, 0), len);
	close(fd);
}

struct wire {
	struct vhost_header header;
	uint8_t payload[600];
};

static struct wire message(uint32_t request, uint32_t flags, uint32_t size)
{
	struct wire wire = { { le32_of(request), le32_of(flags), le32_of(size) }, { 0 } };

	for (unsigned i = 0; i < sizeof(wire.payload); i++)
		wire.payload[i] = (uint8_t)i;
	return wire;
}

/* ---- receiving ---- */

static void a_message_without_payload_is_complete_with_its_header(void **state)
{
	struct wire wire = message(VHOST_GET_FEATURES, 1, 0);

	assert_int_equal(vhost_msg_recv(sock[0], &msg), 0);
	send_raw(&wire, 12, 0);
	assert_int_equal(vhost_msg_recv(sock[0], &msg), 1);
	assert_int_equal(vhost_msg_request(&msg), VHOST_GET_FEATURES);
}

static void a_message_may_come_byte_by_byte(void **state)
{
	struct wire wire = message(VHOST_SET_VRING_ADDR, 1, 40);

	for (unsigned i = 0; i < 52; i++) {
		assert_int_equal(vhost_msg_recv(sock[0], &msg), 0);
		send_raw((uint8_t *)&wire + i, 1, 0);
	}
	assert_int_equal(vhost_msg_recv(sock[0], &msg), 1);
	assert_memory_equal(&msg.payload, wire.payload, 40);
}

static void a_message_never_takes_bytes_of_the_next(void **state)
{
	struct wire wire = message(VHOST_SET_FEATURES, 1, 8);
	uint8_t two[40];

	memcpy(two, &wire, 20);
	memcpy(two + 20, &wire, 20);
	send_raw(two, 40, 0);
	assert_int_equal(vhost_msg_recv(sock[0], &msg), 1);
	vhost_msg_release(&msg);
	assert_int_equal(vhost_msg_recv(sock[0], &msg), 1);
	assert_int_equal(vhost_msg_recv(sock[0], &msg), 1);
	vhost_msg_release(&msg);
	assert_int_equal(vhost_msg_recv(sock[0], &msg), 0);
}

static void the_other_side_may_close_anywhere(void **state)
{
	struct wire wire = message(VHOST_SET_FEATURES, 1, 8);

	for (unsigned len = 0; len < 20; len++) {
		close(sock[0]);
		close(sock[1]);
		assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, sock), 0);
		vhost_msg_init(&msg);
		if (len > 0)
			send_raw(&wire, len, 1);
		shutdown(sock[1], SHUT_WR);
		assert_int_equal(vhost_msg_recv(sock[0], &msg), -EPIPE);
		vhost_msg_release(&msg);
	}
}

static void a_payload_longer_than_any_is_refused(void **state)
{
	static const uint32_t sizes[] = { VHOST_PAYLOAD_BYTES_MAX + 1, 4096, 0x7fffffff, 0x80000000, 0xffffffff };

	for (unsigned i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
		struct wire wire = message(VHOST_SET_FEATURES, 1, sizes[i]);

		vhost_msg_init(&msg);
		send_raw(&wire, 12, 0);
		assert_int_equal(vhost_msg_recv(sock[0], &msg), -EMSGSIZE);
	}
}

static void another_version_is_refused(void **state)
{
	static const uint32_t flags[] = { 0, 2, 3, 0xfffffffc };

	for (unsigned i = 0; i < sizeof(flags) / sizeof(flags[0]); i++) {
		struct wire wire = message(VHOST_SET_OWNER, flags[i], 0);

		vhost_msg_init(&msg);
		send_raw(&wire, 12, 0);
		assert_int_equal(vhost_msg_recv(sock[0], &msg), -EPROTO);
	}
}

static void the_longest_payload_fits(void **state)
{
	struct wire wire = message(VHOST_SET_CONFIG, 1, VHOST_PAYLOAD_BYTES_MAX);

	send_raw(&wire, 12 + VHOST_PAYLOAD_BYTES_MAX, 0);
	assert_int_equal(vhost_msg_recv(sock[0], &msg), 1);
	assert_memory_equal(&msg.payload, wire.payload, VHOST_PAYLOAD_BYTES_MAX);
}

/* ---- descriptors ---- */

static void descriptors_of_all_pieces_are_collected(void **state)
{
	struct wire wire = message(VHOST_SET_MEM_TABLE, 1, 40);

	send_raw(&wire, 12, 2);
	assert_int_equal(vhost_msg_recv(sock[0], &msg), 0);
	send_raw(wire.payload, 8, 3);
	assert_int_equal(vhost_msg_recv(sock[0], &msg), 0);
	send_raw(wire.payload + 8, 32, 3);
	assert_int_equal(vhost_msg_recv(sock[0], &msg), 1);
	assert_int_equal(msg.fd_count, 8);
	for (unsigned i = 0; i < 8; i++)
		assert_true(fcntl(msg.fd[i], F_GETFD) & FD_CLOEXEC);
}

static void too_many_in_one_piece_are_closed(void **state)
{
	struct wire wire = message(VHOST_SET_MEM_TABLE, 1, 40);

	send_raw(&wire, 52, VHOST_FDS_MAX + 1);
	assert_int_equal(vhost_msg_recv(sock[0], &msg), -EPROTO);
	/* What the kernel let through before the error is in the message, and closed with it. */
	vhost_msg_release(&msg);
	send_raw(&wire, 52, 60);
	assert_int_equal(vhost_msg_recv(sock[0], &msg), -EPROTO);
}

static void too_many_in_all_are_closed(void **state)
{
	struct wire wire = message(VHOST_SET_MEM_TABLE, 1, 40);

	send_raw(&wire, 12, 5);
	assert_int_equal(vhost_msg_recv(sock[0], &msg), 0);
	send_raw(wire.payload, 40, 4);
	assert_int_equal(vhost_msg_recv(sock[0], &msg), -EPROTO);
	assert_int_equal(msg.fd_count, VHOST_FDS_MAX);
}

static void a_descriptor_that_was_taken_is_left_alone(void **state)
{
	struct wire wire = message(VHOST_SET_VRING_KICK, 1, 8);
	int fd;

	send_raw(&wire, 20, 1);
	assert_int_equal(vhost_msg_recv(sock[0], &msg), 1);
	fd = msg.fd[0];
	msg.fd[0] = -1;
	vhost_msg_release(&msg);
	assert_true(fcntl(fd, F_GETFD) >= 0);
	close(fd);
}

/* ---- what is valid ---- */

static int validate(uint32_t request, uint32_t flags, uint32_t size, uint32_t fds, uint64_t features)
{
	struct vhost_msg m;

	vhost_msg_init(&m);
	m.header = (struct vhost_header){ le32_of(request), le32_of(flags), le32_of(size) };
	m.fd_count = fds;
	return vhost_msg_validate(&m, features);
}

static void every_request_has_its_bounds(void **state)
{
#define X(name, number, min, max, fds_min, fds_max, feature)                                                       \
	assert_int_equal(validate(number, 1, min, fds_min, ALL_FEATURES), 0);                                      \
	assert_int_equal(validate(number, 9, max, fds_max, ALL_FEATURES), 0);                                      \
	assert_int_equal(validate(number, 1, (uint32_t)(min)-1, fds_min, ALL_FEATURES), -EINVAL);                  \
	assert_int_equal(validate(number, 1, (max) + 1, fds_min, ALL_FEATURES), -EINVAL);                          \
	assert_int_equal(validate(number, 1, min, (uint32_t)(fds_min)-1, ALL_FEATURES), -EINVAL);                  \
	assert_int_equal(validate(number, 1, min, (fds_max) + 1, ALL_FEATURES), -EINVAL);                          \
	assert_int_equal(validate(number, 1, min, fds_min, 0), (feature) == VHOST_P_NONE ? 0 : -EOPNOTSUPP);       \
	assert_string_equal(vhost_request_name(number), #name);
	VHOST_REQUESTS(X)
#undef X
}

static void unknown_requests_are_refused(void **state)
{
	static const uint32_t requests[] = { 0, 6, 7, 19, 20, 22, 23, 26, 30, 33, 34, 35, 39, 40, 42, 1000, UINT32_MAX };

	for (unsigned i = 0; i < sizeof(requests) / sizeof(requests[0]); i++) {
		assert_int_equal(validate(requests[i], 1, 0, 0, ALL_FEATURES), -EOPNOTSUPP);
		assert_string_equal(vhost_request_name(requests[i]), "unknown request");
	}
}

static void flags_that_are_not_for_requests_are_refused(void **state)
{
	assert_int_equal(validate(VHOST_SET_OWNER, 1, 0, 0, 0), 0);
	assert_int_equal(validate(VHOST_SET_OWNER, 5, 0, 0, 0), -EINVAL);
	assert_int_equal(validate(VHOST_SET_OWNER, 0x11, 0, 0, 0), -EINVAL);
	assert_int_equal(validate(VHOST_SET_OWNER, 0x80000001, 0, 0, 0), -EINVAL);
}

/* ---- sending ---- */

static void what_is_sent_can_be_received(void **state)
{
	struct vhost_msg out;
	uint32_t sent = 0;
	int fd = eventfd(7, EFD_NONBLOCK);
	uint64_t value;

	vhost_msg_init(&out);
	out.payload.u64 = le64_of(0x1122334455667788);
	vhost_msg_set_header(&out, VHOST_GET_FEATURES, VHOST_FLAG_REPLY, 8);
	assert_int_equal(vhost_msg_send(sock[1], &out, fd, &sent), 1);
	assert_int_equal(sent, 20);
	close(fd);
	assert_int_equal(vhost_msg_recv(sock[0], &msg), 1);
	assert_int_equal(le64_get(msg.payload.u64), 0x1122334455667788);
	assert_int_equal(msg.fd_count, 1);
	assert_int_equal(read(msg.fd[0], &value, 8), 8);
	assert_int_equal(value, 7);
}

static void a_full_socket_is_told_and_nothing_is_lost(void **state)
{
	struct vhost_msg out;
	unsigned count = 0, got = 0;
	uint32_t sent;
	int rc;

	vhost_msg_init(&out);
	vhost_msg_set_header(&out, VHOST_GET_CONFIG, VHOST_FLAG_REPLY, VHOST_PAYLOAD_BYTES_MAX);
	for (;;) {
		sent = 0;
		out.payload.u64 = le64_of(count);
		rc = vhost_msg_send(sock[1], &out, -1, &sent);
		if (rc != 1)
			break;
		count++;
	}
	assert_int_equal(rc, 0);
	while (got < count) {
		vhost_msg_init(&msg);
		assert_int_equal(vhost_msg_recv(sock[0], &msg), 1);
		assert_int_equal(le64_get(msg.payload.u64), got);
		got++;
	}
	assert_int_equal(vhost_msg_send(sock[1], &out, -1, &sent), 1);
	vhost_msg_init(&msg);
	assert_int_equal(vhost_msg_recv(sock[0], &msg), 1);
	assert_int_equal(le64_get(msg.payload.u64), count);
}

static void sending_to_nobody_is_an_error_and_no_signal(void **state)
{
	struct vhost_msg out;
	uint32_t sent = 0;

	vhost_msg_init(&out);
	vhost_msg_set_header(&out, VHOST_GET_FEATURES, VHOST_FLAG_REPLY, 8);
	shutdown(sock[0], SHUT_RDWR);
	assert_int_equal(vhost_msg_send(sock[1], &out, -1, &sent), -EPIPE);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
	const struct CMUnitTest tests[] = {
		TEST(a_message_without_payload_is_complete_with_its_header),
		TEST(a_message_may_come_byte_by_byte),
		TEST(a_message_never_takes_bytes_of_the_next),
		TEST(the_other_side_may_close_anywhere),
		TEST(a_payload_longer_than_any_is_refused),
		TEST(another_version_is_refused),
		TEST(the_longest_payload_fits),
		TEST(descriptors_of_all_pieces_are_collected),
		TEST(too_many_in_one_piece_are_closed),
		TEST(too_many_in_all_are_closed),
		TEST(a_descriptor_that_was_taken_is_left_alone),
		TEST(every_request_has_its_bounds),
		TEST(unknown_requests_are_refused),
		TEST(flags_that_are_not_for_requests_are_refused),
		TEST(what_is_sent_can_be_received),
		TEST(a_full_socket_is_told_and_nothing_is_lost),
		TEST(sending_to_nobody_is_an_error_and_no_signal),
	};

	return run_unit_tests(tests);
}
