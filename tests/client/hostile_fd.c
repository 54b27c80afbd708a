/* Hostile descriptors: too many, too few, and of kinds that block, lie or never end. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include "tests/client/hostile.h"

#define STRAY_FDS_MAX 253
#define ENOUGH_CALLS 64

static struct vc *half_open(struct bed *bed)
{
	struct vc_options options = bed_options(bed);
	options.region_bytes = 2u << 20;
	return bed_connect(bed, &options);
}

/* ---- too many, too few ---- */

static enum verdict stray_fds(struct bed *bed, uint32_t request, const void *payload, uint32_t size_bytes, unsigned fds)
{
	int fd[STRAY_FDS_MAX];
	AUTO_VC vc = half_open(bed);
	CHECK(bed, vc != NULL, "%s", bed->why);
	AUTO_FD event_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
	for (unsigned i = 0; i < fds; i++)
		fd[i] = event_fd;
	enum answer answer = hostile_ask(vc, request, payload, size_bytes, fd, fds);
	CHECK(bed, answer != ANSWER_NONE, "request %u with %u descriptors: neither answered nor closed", request, fds);
	return PASS;
}

static enum verdict surplus_fds(struct bed *bed, const void *arg)
{
	static const uint32_t requests[] = { VU_GET_FEATURES,
					     VU_SET_FEATURES,
					     VU_SET_VRING_NUM,
					     VU_SET_VRING_KICK,
					     VU_SET_VRING_CALL,
					     VU_SET_VRING_ERR,
					     VU_GET_CONFIG,
					     VU_SET_VRING_ENABLE,
					     VU_GET_VRING_BASE,
					     VU_SET_OWNER,
					     999 };
	static const unsigned counts[] = { 2, 8, 9, 32, STRAY_FDS_MAX };
	uint64_t payload = 0;
	(void)arg;
	for (unsigned i = 0; i < sizeof(requests) / sizeof(requests[0]); i++) {
		for (unsigned j = 0; j < sizeof(counts) / sizeof(counts[0]); j++) {
			uint32_t size_bytes = requests[i] == VU_GET_FEATURES || requests[i] == VU_SET_OWNER ? 0 : 8;
			if (stray_fds(bed, requests[i], &payload, size_bytes, counts[j]) != PASS)
				return FAIL;
		}
	}
	return PASS;
}

/* Descriptors on the second half of a message, and on a message that is never finished. */
static enum verdict fds_on_pieces(struct bed *bed, const void *arg)
{
	struct vu_header header = { .request = VU_SET_FEATURES, .flags = VU_VERSION, .size_bytes = 8 };
	(void)arg;
	for (unsigned whole = 0; whole < 2; whole++) {
		AUTO_VC vc = half_open(bed);
		CHECK(bed, vc != NULL, "%s", bed->why);
		AUTO_FD event_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
		int fd[] = { event_fd, event_fd, event_fd, event_fd };
		vu_send_bytes(vc->sock, &header, sizeof(header), fd, 4);
		usleep(5000);
		vu_send_bytes(vc->sock, &vc->features, 4, fd, 4);
		usleep(5000);
		if (whole)
			vu_send_bytes(vc->sock, (char *)&vc->features + 4, 4, fd, 4);
		usleep(5000);
	}
	return PASS;
}

static bool is_refused(struct bed *bed, uint32_t request, const void *payload, uint32_t size_bytes, const int *fd,
		       unsigned fds, const char *what)
{
	AUTO_VC vc = half_open(bed);
	if (vc == NULL)
		return false;
	return hostile_is_refused(bed, hostile_ask(vc, request, payload, size_bytes, fd, fds), what);
}

static enum verdict missing_fds(struct bed *bed, const void *arg)
{
	struct vc_options options = bed_options(bed);
	struct vc *guest = vc_create(&options);
	struct vu_mem_table table = { .count = 1, .region[0] = vc_region_wire(guest, 0) };
	struct vu_mem_reg reg = { .region = vc_region_wire(guest, 0) };
	struct vu_inflight inflight = { .size_bytes = 4096, .queues = 1, .ring_size = 128 };
	uint64_t ring = 0;
	(void)arg;
	vc_destroy(guest);
	bool refused =
		is_refused(bed, VU_SET_VRING_KICK, &ring, 8, NULL, 0, "SET_VRING_KICK without descriptor") &&
		is_refused(bed, VU_SET_VRING_CALL, &ring, 8, NULL, 0, "SET_VRING_CALL without descriptor") &&
		is_refused(bed, VU_SET_VRING_ERR, &ring, 8, NULL, 0, "SET_VRING_ERR without descriptor") &&
		is_refused(bed, VU_SET_MEM_TABLE, &table, 40, NULL, 0, "SET_MEM_TABLE without descriptor") &&
		is_refused(bed, VU_ADD_MEM_REG, &reg, 40, NULL, 0, "ADD_MEM_REG without descriptor") &&
		is_refused(bed, VU_SET_INFLIGHT_FD, &inflight, 24, NULL, 0, "SET_INFLIGHT_FD without descriptor") &&
		is_refused(bed, VU_SET_BACKEND_REQ_FD, NULL, 0, NULL, 0, "SET_BACKEND_REQ_FD without descriptor");
	return refused ? PASS : FAIL;
}

static enum verdict memory_fds_do_not_match(struct bed *bed, const void *arg)
{
	(void)arg;
	for (unsigned fds = 1; fds <= 8; fds++) {
		if (fds == 2)
			continue;
		AUTO_VC vc = half_open(bed);
		CHECK(bed, vc != NULL, "%s", bed->why);
		CHECK(bed, vc_region_create(vc, 1u << 20) == 1, "no second region");
		struct vu_mem_table table = { .count = 2, .region = { vc_region_wire(vc, 0), vc_region_wire(vc, 1) } };
		int fd[8];
		for (unsigned i = 0; i < 8; i++)
			fd[i] = vc->region[i & 1].fd;
		char what[100];
		snprintf(what, sizeof(what), "SET_MEM_TABLE of 2 regions with %u descriptors", fds);
		if (!hostile_is_refused(bed, hostile_ask(vc, VU_SET_MEM_TABLE, &table, 8 + 2 * 32, fd, fds), what))
			return FAIL;
	}
	return PASS;
}

/* Bit 8 says "no descriptor", yet one comes. */
static enum verdict fd_announced_as_missing(struct bed *bed, const void *arg)
{
	uint64_t payload = VU_RING_NO_FD;
	(void)arg;
	return stray_fds(bed, VU_SET_VRING_KICK, &payload, 8, 1) == PASS &&
			       stray_fds(bed, VU_SET_VRING_CALL, &payload, 8, 1) == PASS &&
			       stray_fds(bed, VU_SET_VRING_ERR, &payload, 8, 1) == PASS
		       ? PASS
		       : FAIL;
}

/* ---- kinds of descriptors ---- */

/* Opens one kind; a second descriptor that belongs to it goes to *other. */
struct fd_kind {
	const char *name;
	int (*open)(int *other);
};

static int open_null(int *other)
{
	(void)other;
	return open("/dev/null", O_RDWR | O_CLOEXEC);
}

static int open_zero(int *other)
{
	(void)other;
	return open("/dev/zero", O_RDWR | O_CLOEXEC);
}

static int open_full(int *other)
{
	(void)other;
	return open("/dev/full", O_RDWR | O_CLOEXEC);
}

static int open_directory(int *other)
{
	(void)other;
	return open("/", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
}

static int open_path_only(int *other)
{
	(void)other;
	return open("/dev/null", O_PATH | O_CLOEXEC);
}

static int open_memfd(int *other)
{
	(void)other;
	return memfd_create("hostile", MFD_CLOEXEC);
}

static int open_epoll(int *other)
{
	(void)other;
	return epoll_create1(EPOLL_CLOEXEC);
}

static int open_pipe_reader(int *other)
{
	int pair[2];
	if (pipe2(pair, O_CLOEXEC) < 0)
		return -1;
	*other = pair[1];
	return pair[0];
}

/* Blocking and full: a server that writes without care stops here. */
static int open_full_pipe(int *other)
{
	static const char bytes[4096];
	int pair[2];
	if (pipe2(pair, O_CLOEXEC | O_NONBLOCK) < 0)
		return -1;
	while (write(pair[1], bytes, sizeof(bytes)) > 0)
		continue;
	while (write(pair[1], bytes, 1) > 0)
		continue;
	fcntl(pair[1], F_SETFL, 0);
	*other = pair[0];
	return pair[1];
}

static int open_broken_pipe(int *other)
{
	int pair[2];
	(void)other;
	if (pipe2(pair, O_CLOEXEC) < 0)
		return -1;
	close(pair[0]);
	return pair[1];
}

static int open_full_eventfd(int *other)
{
	uint64_t most = UINT64_MAX - 1;
	int fd = eventfd(0, EFD_CLOEXEC);
	(void)other;
	if (write(fd, &most, sizeof(most)) < 0)
		perror("eventfd");
	return fd;
}

static int open_semaphore(int *other)
{
	(void)other;
	return eventfd(1000000, EFD_CLOEXEC | EFD_SEMAPHORE);
}

static int open_full_socket(int *other)
{
	static const char bytes[4096];
	int pair[2];
	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) < 0)
		return -1;
	while (send(pair[0], bytes, sizeof(bytes), MSG_DONTWAIT | MSG_NOSIGNAL) > 0)
		continue;
	*other = pair[1];
	return pair[0];
}

static int open_closed_socket(int *other)
{
	int pair[2];
	(void)other;
	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) < 0)
		return -1;
	close(pair[1]);
	return pair[0];
}

static const struct fd_kind fd_kinds[] = {
	{ "/dev/null", open_null },
	{ "/dev/zero", open_zero },
	{ "/dev/full", open_full },
	{ "a directory", open_directory },
	{ "an O_PATH descriptor", open_path_only },
	{ "an empty memfd", open_memfd },
	{ "an epoll descriptor", open_epoll },
	{ "the reading end of a pipe", open_pipe_reader },
	{ "a full blocking pipe", open_full_pipe },
	{ "a pipe nobody reads", open_broken_pipe },
	{ "a full blocking eventfd", open_full_eventfd },
	{ "an eventfd semaphore", open_semaphore },
	{ "a full socket", open_full_socket },
	{ "a socket whose other end is closed", open_closed_socket },
};

/* Runs requests after giving ring 0 a strange descriptor. Whether they complete does not matter; the server has to
 * answer GET_VRING_BASE afterwards, or close. */
static enum verdict use_strange_ring_fd(struct bed *bed, uint32_t request, const struct fd_kind *kind)
{
	int other_end = -1;
	AUTO_FD strange = kind->open(&other_end);
	AUTO_FD other = other_end;
	struct vc_options options = bed_options(bed);
	options.interrupts = true;
	AUTO_RIG rig;
	CHECK(bed, rig_open_with(&rig, bed, &options), "%s", bed->why);
	if (strange < 0)
		return bed_fail(bed, "cannot make %s", kind->name);
	(void)other;
	uint64_t payload = 0;
	enum answer answer = hostile_ask(rig.vc, request, &payload, sizeof(payload), &strange, 1);
	CHECK(bed, answer != ANSWER_NONE, "%s as descriptor of request %u: neither answered nor closed", kind->name,
	      request);
	for (unsigned i = 0; i < ENOUGH_CALLS && answer == ANSWER_DONE; i++) {
		vc_want_call(rig.vc, 0, (uint16_t)i);
		rig_offer(&rig, 0);
		vc_notify(rig.ring);
		usleep(200);
	}
	int base = vc_ring_stop(rig.vc, 0);
	CHECK(bed, base != -ETIMEDOUT, "with %s as descriptor of request %u the server hangs", kind->name, request);
	return PASS;
}

static enum verdict strange_ring_fds(struct bed *bed, const void *arg)
{
	const uint32_t *request = arg;
	for (unsigned i = 0; i < sizeof(fd_kinds) / sizeof(fd_kinds[0]); i++) {
		if (use_strange_ring_fd(bed, *request, &fd_kinds[i]) != PASS)
			return FAIL;
	}
	return PASS;
}

static enum verdict strange_backend_fds(struct bed *bed, const void *arg)
{
	(void)arg;
	for (unsigned i = 0; i < sizeof(fd_kinds) / sizeof(fd_kinds[0]); i++) {
		int other_end = -1;
		AUTO_FD strange = fd_kinds[i].open(&other_end);
		AUTO_FD other = other_end;
		(void)other;
		AUTO_VC vc = half_open(bed);
		CHECK(bed, vc != NULL, "%s", bed->why);
		enum answer answer = hostile_ask(vc, VU_SET_BACKEND_REQ_FD, NULL, 0, &strange, 1);
		CHECK(bed, answer != ANSWER_NONE, "%s as backend channel: neither answered nor closed",
		      fd_kinds[i].name);
	}
	return PASS;
}

/* Nonsense sent into the server's own request channel, and no answers to what it asks there. */
static enum verdict nonsense_on_backend_channel(struct bed *bed, const void *arg)
{
	static const uint8_t nonsense[512] = { 0xff, 0xff, 0xff, 0xff, 5, 0, 0, 0, 0xff, 0xff, 0xff, 0x7f };
	struct vc_options options = bed_options(bed);
	(void)arg;
	AUTO_VC vc = bed_open(bed, &options);
	CHECK(bed, vc != NULL, "%s", bed->why);
	if (vc->backend_sock < 0)
		return bed_skip(bed, "BACKEND_REQ is not offered");
	vu_send_bytes(vc->backend_sock, nonsense, sizeof(nonsense), NULL, 0);
	usleep(20000);
	int rc = vc_flush(vc, 0);
	CHECK(bed, rc == VIRTIO_BLK_S_OK || rc == -EPIPE, "a flush afterwards: %d", rc);
	return PASS;
}

/* The same descriptors over and over while the ring runs. */
static enum verdict ring_fds_replaced_often(struct bed *bed, const void *arg)
{
	struct vc_options options = bed_options(bed);
	(void)arg;
	AUTO_VC vc = bed_open(bed, &options);
	CHECK(bed, vc != NULL, "%s", bed->why);
	for (unsigned i = 0; i < 300; i++) {
		AUTO_FD event_fd = eventfd(i & 1, EFD_NONBLOCK | EFD_CLOEXEC);
		uint32_t request = VU_SET_VRING_KICK + i % 3;
		int rc = vc_ring_send_fd(vc, request, 0, event_fd);
		CHECK(bed, rc == 0, "request %u refused at round %u: %s", request, i, vc->error);
	}
	CHECK(bed, vc_ring_send_fd(vc, VU_SET_VRING_KICK, 0, vc->ring[0].kick_fd) == 0, "%s", vc->error);
	int rc = vc_flush(vc, 0);
	CHECK(bed, rc == VIRTIO_BLK_S_OK, "a flush afterwards: %d %s", rc, vc->error);
	return PASS;
}

static const uint32_t set_kick = VU_SET_VRING_KICK;
static const uint32_t set_call = VU_SET_VRING_CALL;
static const uint32_t set_err = VU_SET_VRING_ERR;

const struct test hostile_fd_tests[] = {
	{ "descriptors: more than the message may have", surplus_fds, NULL },
	{ "descriptors: on pieces of a message", fds_on_pieces, NULL },
	{ "descriptors: missing", missing_fds, NULL },
	{ "descriptors: number differs from number of regions", memory_fds_do_not_match, NULL },
	{ "descriptors: one comes though announced as missing", fd_announced_as_missing, NULL },
	{ "descriptors: strange ones to kick", strange_ring_fds, &set_kick },
	{ "descriptors: strange ones to call", strange_ring_fds, &set_call },
	{ "descriptors: strange ones for errors", strange_ring_fds, &set_err },
	{ "descriptors: strange ones as backend channel", strange_backend_fds, NULL },
	{ "descriptors: nonsense on the backend channel", nonsense_on_backend_channel, NULL },
	{ "descriptors: replaced often while the ring runs", ring_fds_replaced_often, NULL },
	{ NULL, NULL, NULL },
};
