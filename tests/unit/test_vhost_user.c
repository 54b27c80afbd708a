/* Unit tests of targets/vhost_user.c, vhost_requests.c and vhost_ring.c: whole sessions over a socket pair, with a volume
 * that completes requests when the test says so.
 *
 * Back end and front end are fibers of one reactor. What a front end sees of well-behaved sessions is for
 * tests/client/vhost_semantics.c; here is what depends on the volume's timing, and on our own death. */
#include <errno.h>
#include <fcntl.h>
#include <linux/virtio_blk.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include "pool/base/mem.h"
#include "pool/runtime/reactor.h"
#include "targets/vhost_proto.h"
#include "targets/vhost_user.h"
#include "tests/unit/fake_volume.h"
#include "tests/unit/unit.h"
#include "tests/unit/unit_guest.h"

#define RING_SIZE 64
#define VOLUME_BYTES (8u << 20)
#define HEADERS GUEST_BUFFERS
#define STATUSES (GUEST_BUFFERS + 0x1000)
#define DATA (GUEST_BUFFERS + 0x10000)
#define UNWRITTEN 0xee
#define BIT(n) (1ull << (n))
#define PROTOCOL                                                                                                   \
	(BIT(VHOST_P_REPLY_ACK) | BIT(VHOST_P_CONFIG) | BIT(VHOST_P_INFLIGHT_SHMFD) |                               \
	 BIT(VHOST_P_CONFIGURE_MEM_SLOTS) | BIT(VHOST_P_BACKEND_REQ))
#define FEATURES                                                                                                   \
	(BIT(32) | BIT(VHOST_F_PROTOCOL_FEATURES_BIT) | BIT(VIRTIO_BLK_F_FLUSH) | BIT(VIRTIO_BLK_F_CONFIG_WCE))
/* Long enough that nothing more comes, short enough to wait for. */
#define QUIET_NS 20000000ull
#define WAIT_NS 5000000000ull

static struct reactor *reactor;
static struct loop *loop;
static struct unit_guest guest;
static struct unit_ring ring;
static struct volume volume;
static struct vhost_user vu;
static unsigned lines;
static unsigned serving;

/* The front end's session. */
static int sock, kick_fd, call_fd, backend_fd, inflight_fd;
static struct vhost_inflight inflight;
static struct vhost_msg answer;

/* ---- the back end ---- */

static void count_line(struct vhost_user *user, const char *line)
{
	lines++;
}

/* A fresh process, as it were. */
static void new_back_end(void)
{
	memset(&vu, 0, sizeof(vu));
	vhost_user_init(&vu, loop);
	blk_dev_init(&vu.dev, &volume, "serial", 2, false);
	vu.log = count_line;
}

static void serve(void *arg)
{
	vhost_user_serve(&vu, (int)(intptr_t)arg);
	serving--;
}

/* ---- the front end ---- */

static void connect_front_end(void)
{
	int pair[2];

	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, pair), 0);
	sock = pair[0];
	serving++;
	assert_int_equal(fiber_start(loop, serve, (void *)(intptr_t)pair[1]), 0);
	fiber_yield();
}

static void disconnect(void)
{
	close(sock);
	sock = -1;
	while (vu.session)
		fiber_yield();
}

/* Receives an answer. 0, or -EPIPE: the back end has left. */
static int receive_for(uint64_t wait_ns)
{
	uint64_t deadline_ns = loop_now_ns(loop) + wait_ns;
	int rc;

	vhost_msg_release(&answer);
	while ((rc = vhost_msg_recv(sock, &answer)) == 0) {
		rc = fd_wait(sock, POLLIN, deadline_ns, NULL);
		if (rc < 0)
			return rc;
	}
	return rc < 0 ? rc : 0;
}

static void send_with(uint32_t request, const void *payload, uint32_t size_bytes, int fd, uint32_t flags)
{
	struct vhost_msg out;
	uint32_t sent = 0;

	vhost_msg_init(&out);
	if (size_bytes > 0)
		memcpy(&out.payload, payload, size_bytes);
	vhost_msg_set_header(&out, request, flags, size_bytes);
	assert_int_equal(vhost_msg_send(sock, &out, fd, &sent), 1);
}

/* A request that wants an acknowledgement: 0, or -EREMOTEIO. */
static int call_with(uint32_t request, const void *payload, uint32_t size_bytes, int fd)
{
	send_with(request, payload, size_bytes, fd, VHOST_FLAG_NEED_REPLY);
	assert_int_equal(receive_for(WAIT_NS), 0);
	assert_int_equal(vhost_msg_request(&answer), request);
	return le64_get(answer.payload.u64) == 0 ? 0 : -EREMOTEIO;
}

static int call_u64(uint32_t request, uint64_t value, int fd)
{
	le64 payload = le64_of(value);

	return call_with(request, &payload, sizeof(payload), fd);
}

static int call_state(uint32_t request, uint32_t num)
{
	struct vhost_state state = { le32_of(0), le32_of(num) };

	return call_with(request, &state, sizeof(state), -1);
}

static void ask(uint32_t request, const void *payload, uint32_t size_bytes)
{
	send_with(request, payload, size_bytes, -1, 0);
	assert_int_equal(receive_for(WAIT_NS), 0);
}

static void negotiate(void)
{
	send_with(VHOST_SET_PROTOCOL_FEATURES, &(le64){ htole64(PROTOCOL) }, 8, -1, 0);
	assert_int_equal(call_u64(VHOST_SET_FEATURES, FEATURES, -1), 0);
}

static void offer_backend_channel(void)
{
	int pair[2];

	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, pair), 0);
	assert_int_equal(call_with(VHOST_SET_BACKEND_REQ_FD, NULL, 0, pair[1]), 0);
	close(pair[1]);
	backend_fd = pair[0];
}

static struct vhost_slot wire_slot(unsigned i)
{
	const struct guestmem_slot *slot = &guest.slot[i];

	return (struct vhost_slot){ .region = { le64_of(slot->gpa), le64_of(slot->len_bytes), le64_of(slot->uva),
						le64_of(slot->off_bytes) } };
}

static int add_region(unsigned i)
{
	struct vhost_slot slot = wire_slot(i);

	return call_with(VHOST_ADD_MEM_REG, &slot, sizeof(slot), guest.fd[i]);
}

static int remove_region(unsigned i)
{
	struct vhost_slot slot = wire_slot(i);

	return call_with(VHOST_REM_MEM_REG, &slot, sizeof(slot), -1);
}

static void give_inflight(void)
{
	struct vhost_inflight want = { .queues = le16_of(1), .ring_size = le16_of(RING_SIZE) };

	if (inflight_fd < 0) {
		ask(VHOST_GET_INFLIGHT_FD, &want, sizeof(want));
		inflight = answer.payload.inflight;
		inflight_fd = answer.fd[0];
		answer.fd[0] = -1;
	}
	assert_int_equal(call_with(VHOST_SET_INFLIGHT_FD, &inflight, sizeof(inflight), inflight_fd), 0);
}

static void place_ring(uint16_t base)
{
	struct vhost_addr addr = { .desc_uva = le64_of(ring.addr.desc_uva), .used_uva = le64_of(ring.addr.used_uva),
				   .avail_uva = le64_of(ring.addr.avail_uva) };

	assert_int_equal(call_state(VHOST_SET_VRING_NUM, RING_SIZE), 0);
	assert_int_equal(call_state(VHOST_SET_VRING_BASE, base), 0);
	assert_int_equal(call_with(VHOST_SET_VRING_ADDR, &addr, sizeof(addr), -1), 0);
}

static void set_up_ring_disabled(uint16_t base)
{
	place_ring(base);
	assert_int_equal(call_u64(VHOST_SET_VRING_KICK, 0, kick_fd), 0);
	assert_int_equal(call_u64(VHOST_SET_VRING_CALL, 0, call_fd), 0);
}

static void set_up_ring(uint16_t base)
{
	set_up_ring_disabled(base);
	assert_int_equal(call_state(VHOST_SET_VRING_ENABLE, 1), 0);
}

static void start_session(void)
{
	connect_front_end();
	negotiate();
	give_inflight();
	assert_int_equal(add_region(0), 0);
	set_up_ring(ring.used->idx);
}

static void kick(void)
{
	uint64_t one = 1;

	assert_int_equal(write(kick_fd, &one, sizeof(one)), sizeof(one));
}

/* Write number i: one sector of i + 1s to sector i. */
static void offer_write(uint16_t i)
{
	struct blk_header header = { le32_of(VIRTIO_BLK_T_OUT), le32_of(0), le64_of(i) };
	uint16_t desc = (uint16_t)(i % 20 * 3);

	memcpy(unit_guest_ptr(&guest, HEADERS + i * 16u), &header, sizeof(header));
	memset(unit_guest_ptr(&guest, DATA + i * 512u), i + 1, 512);
	*(uint8_t *)unit_guest_ptr(&guest, STATUSES + i) = UNWRITTEN;
	unit_ring_desc(&ring, desc, HEADERS + i * 16u, 16, VRING_DESC_F_NEXT, (uint16_t)(desc + 1));
	unit_ring_desc(&ring, (uint16_t)(desc + 1), DATA + i * 512u, 512, VRING_DESC_F_NEXT, (uint16_t)(desc + 2));
	unit_ring_desc(&ring, (uint16_t)(desc + 2), STATUSES + i, 1, VRING_DESC_F_WRITE, 0);
	unit_ring_offer(&ring, desc);
}

static bool wait_used(uint16_t idx)
{
	uint64_t deadline_ns = loop_now_ns(loop) + WAIT_NS;

	while (__atomic_load_n(&ring.used->idx, __ATOMIC_ACQUIRE) != idx && loop_now_ns(loop) < deadline_ns)
		fiber_sleep_ns(100000);
	return ring.used->idx == idx;
}

/* Three writes that the volume has and does not complete. */
static void hold_three(void)
{
	volume.hold = true;
	for (uint16_t i = 0; i < 3; i++)
		offer_write(i);
	kick();
	while (volume.held_count < 3)
		fiber_sleep_ns(100000);
}

static void release(void)
{
	volume.hold = false;
	fake_volume_release(&volume, true);
}

static uint64_t calls(void)
{
	uint64_t count = 0;

	return read(call_fd, &count, sizeof(count)) == sizeof(count) ? count : 0;
}

/* ---- the frame ---- */

struct scene {
	void (*play)(void);
};

static void run_scene(void *arg)
{
	((struct scene *)arg)->play();
	if (sock >= 0)
		disconnect();
	release();
	while (vu.lingering > 0 || serving > 0)
		fiber_yield();
	reactor_stop(reactor);
}

static void play(struct scene scene)
{
	struct err err;
	struct loop *previous;

	assert_int_equal(reactor_create(0, -1, &reactor, &err), 0);
	loop = reactor_loop(reactor);
	unit_guest_init(&guest);
	unit_ring_init(&ring, &guest, 0, RING_SIZE);
	fake_volume_init(&volume, loop, VOLUME_BYTES);
	new_back_end();
	vhost_msg_init(&answer);
	sock = backend_fd = inflight_fd = -1;
	kick_fd = eventfd(0, EFD_NONBLOCK);
	call_fd = eventfd(0, EFD_NONBLOCK);
	lines = serving = 0;
	previous = loop_enter(loop);
	assert_int_equal(fiber_start(loop, run_scene, &scene), 0);
	loop_enter(previous);
	reactor_run(reactor);
	vhost_msg_release(&answer);
	close(kick_fd);
	close(call_fd);
	if (backend_fd >= 0)
		close(backend_fd);
	if (inflight_fd >= 0)
		close(inflight_fd);
	fake_volume_fini(&volume);
	unit_guest_fini(&guest);
	reactor_destroy(reactor);
}

#define SCENE(name)                                                                                                \
	static void name##_scene(void);                                                                            \
	static void name(void **state)                                                                             \
	{                                                                                                          \
		play((struct scene){ name##_scene });                                                              \
	}                                                                                                          \
	static void name##_scene(void)

/* ---- starting ---- */

SCENE(a_ring_starts_when_kicked)
{
	start_session();
	offer_write(0);
	fiber_sleep_ns(QUIET_NS);
	assert_int_equal(ring.used->idx, 0);
	assert_int_equal(vhost_user_rings_started(&vu), 0);
	kick();
	assert_true(wait_used(1));
	assert_int_equal(volume.data[0], 1);
	assert_true(calls() > 0);
}

SCENE(without_kick_descriptor_we_look_ourselves)
{
	start_session();
	assert_int_equal(call_u64(VHOST_SET_VRING_KICK, VHOST_RING_FD_NONE, -1), 0);
	offer_write(0);
	assert_true(wait_used(1));
	fiber_sleep_ns(QUIET_NS);
	offer_write(1);
	assert_true(wait_used(2));
}

SCENE(a_ring_that_has_all_but_memory_waits_for_it)
{
	struct vhost_slot slot;

	start_session();
	kick();
	while (vhost_user_rings_started(&vu) == 0)
		fiber_yield();
	/* The ring's memory goes: it is given up, and with it the session goes on. */
	slot = wire_slot(0);
	assert_int_equal(call_with(VHOST_REM_MEM_REG, &slot, sizeof(slot), -1), 0);
	assert_int_equal(vhost_user_rings_started(&vu), 0);
	assert_int_equal(vu.dev.count.broken_rings, 1);
	assert_int_equal(add_region(0), 0);
	set_up_ring(0);
	offer_write(0);
	kick();
	assert_true(wait_used(1));
}

static int be_busy(struct poller *poller)
{
	return 1;
}

SCENE(an_idle_ring_asks_for_kicks_though_others_are_busy)
{
	struct poller busy = { .poll = be_busy };
	uint64_t deadline_ns = loop_now_ns(loop) + WAIT_NS;

	start_session();
	poller_add(loop, &busy);
	offer_write(0);
	kick();
	assert_true(wait_used(1));
	while (ring.used->flags != 0 && loop_now_ns(loop) < deadline_ns)
		fiber_yield();
	assert_int_equal(ring.used->flags, 0);
	offer_write(1);
	kick();
	assert_true(wait_used(2));
	poller_del(loop, &busy);
}

static unsigned turns;

static int count_turn(struct poller *poller)
{
	turns++;
	return 1;
}

SCENE(a_flood_of_messages_does_not_hold_up_the_loop)
{
	struct poller counter = { .poll = count_turn };

	connect_front_end();
	negotiate();
	for (unsigned i = 0; i < 50; i++)
		send_with(VHOST_SET_OWNER, NULL, 0, -1, 0);
	turns = 0;
	poller_add(loop, &counter);
	assert_int_equal(call_with(VHOST_SET_OWNER, NULL, 0, -1), 0);
	assert_true(turns >= 50);
	poller_del(loop, &counter);
}

SCENE(a_failed_question_ends_the_session)
{
	struct vhost_inflight want = { .queues = le16_of(0), .ring_size = le16_of(RING_SIZE) };

	start_session();
	send_with(VHOST_GET_INFLIGHT_FD, &want, sizeof(want), -1, VHOST_FLAG_NEED_REPLY);
	assert_int_equal(receive_for(WAIT_NS), -EPIPE);
}

/* ---- draining ---- */

SCENE(stopping_waits_for_requests_in_flight)
{
	struct vhost_state state = { le32_of(0), le32_of(0) };

	start_session();
	hold_three();
	send_with(VHOST_GET_VRING_BASE, &state, sizeof(state), -1, 0);
	assert_int_equal(receive_for(QUIET_NS), -ETIMEDOUT);
	/* New requests stay where they are. */
	offer_write(3);
	kick();
	release();
	assert_int_equal(receive_for(WAIT_NS), 0);
	assert_int_equal(le32_get(answer.payload.state.num), 3);
	assert_int_equal(ring.used->idx, 3);
	fiber_sleep_ns(QUIET_NS);
	assert_int_equal(ring.used->idx, 3);
}

SCENE(stopping_finishes_what_a_predecessor_had_taken)
{
	struct vhost_state state = { le32_of(0), le32_of(0) };

	start_session();
	hold_three();
	disconnect();
	release();
	/* The ring starts, but is never enabled. */
	connect_front_end();
	negotiate();
	give_inflight();
	assert_int_equal(add_region(0), 0);
	set_up_ring_disabled(0);
	fiber_sleep_ns(QUIET_NS);
	assert_int_equal(vhost_user_rings_started(&vu), 1);
	assert_int_equal(ring.used->idx, 0);
	ask(VHOST_GET_VRING_BASE, &state, sizeof(state));
	assert_int_equal(le32_get(answer.payload.state.num), 3);
	assert_int_equal(ring.used->idx, 3);
}

SCENE(requests_that_never_end_end_the_session_instead_of_a_lie)
{
	struct vhost_state state = { le32_of(0), le32_of(0) };

	vu.drain_ns_max = QUIET_NS;
	start_session();
	hold_three();
	send_with(VHOST_GET_VRING_BASE, &state, sizeof(state), -1, 0);
	assert_int_equal(receive_for(WAIT_NS), -EPIPE);
	assert_null(vu.session);
	assert_int_equal(vu.lingering, 1);
	release();
	fiber_sleep_ns(QUIET_NS);
	assert_int_equal(vu.lingering, 0);
	assert_int_equal(ring.used->idx, 0);
	assert_int_equal(*(uint8_t *)unit_guest_ptr(&guest, STATUSES), UNWRITTEN);
}

SCENE(a_front_end_that_leaves_while_we_drain_is_noticed)
{
	struct vhost_state state = { le32_of(0), le32_of(0) };
	uint64_t began_ns;

	start_session();
	hold_three();
	send_with(VHOST_GET_VRING_BASE, &state, sizeof(state), -1, 0);
	fiber_sleep_ns(QUIET_NS);
	began_ns = loop_now_ns(loop);
	disconnect();
	assert_true(loop_now_ns(loop) - began_ns < VHOST_DRAIN_NS_MAX / 10);
}

SCENE(memory_in_use_is_not_taken_away)
{
	struct vhost_slot slot = wire_slot(1);

	start_session();
	assert_int_equal(add_region(1), 0);
	hold_three();
	send_with(VHOST_REM_MEM_REG, &slot, sizeof(slot), -1, VHOST_FLAG_NEED_REPLY);
	assert_int_equal(receive_for(QUIET_NS), -ETIMEDOUT);
	release();
	assert_int_equal(receive_for(WAIT_NS), 0);
	assert_int_equal(le64_get(answer.payload.u64), 0);
	assert_int_equal(ring.used->idx, 3);
	offer_write(3);
	kick();
	assert_true(wait_used(4));
}

SCENE(memory_that_stays_in_use_stays)
{
	vu.drain_ns_max = QUIET_NS;
	start_session();
	assert_int_equal(add_region(1), 0);
	hold_three();
	assert_int_equal(remove_region(1), -EREMOTEIO);
	release();
	assert_true(wait_used(3));
	/* It goes on as if nothing had been asked. */
	assert_int_equal(remove_region(1), 0);
	assert_int_equal(remove_region(1), -EREMOTEIO);
	offer_write(3);
	kick();
	assert_true(wait_used(4));
}

SCENE(memory_is_added_without_waiting)
{
	start_session();
	hold_three();
	assert_int_equal(add_region(1), 0);
	assert_int_equal(ring.used->idx, 0);
	release();
	assert_true(wait_used(3));
}

SCENE(a_new_table_takes_over_a_running_ring)
{
	struct vhost_table table = { .count = le32_of(1) };

	start_session();
	hold_three();
	table.region[0] = wire_slot(0).region;
	send_with(VHOST_SET_MEM_TABLE, &table, 40, guest.fd[0], VHOST_FLAG_NEED_REPLY);
	assert_int_equal(receive_for(QUIET_NS), -ETIMEDOUT);
	release();
	assert_int_equal(receive_for(WAIT_NS), 0);
	assert_int_equal(le64_get(answer.payload.u64), 0);
	offer_write(3);
	kick();
	assert_true(wait_used(4));
	assert_int_equal(volume.data[3 * 512], 4);
}

static void release_soon(void *arg)
{
	fiber_sleep_ns(QUIET_NS);
	release();
}

SCENE(asked_to_stop_we_finish_first)
{
	start_session();
	hold_three();
	vu.drain_ns_max = 0;
	assert_int_equal(fiber_start(loop, release_soon, NULL), 0);
	vhost_user_stop(&vu);
	assert_int_equal(ring.used->idx, 3);
	/* Whoever comes next wants to be kicked. */
	assert_int_equal(ring.used->flags, 0);
	assert_int_equal(receive_for(WAIT_NS), -EPIPE);
	/* And nobody else comes in. */
	close(sock);
	connect_front_end();
	assert_int_equal(receive_for(WAIT_NS), -EPIPE);
	assert_int_equal(vu.sessions, 1);
}

SCENE(asked_to_stop_we_leave_what_waits_for_space)
{
	start_session();
	volume.full = true;
	hold_three();
	vhost_user_stop(&vu);
	assert_int_equal(ring.used->idx, 0);
	assert_int_equal(*(uint8_t *)unit_guest_ptr(&guest, STATUSES), UNWRITTEN);
	assert_int_equal(vu.dev.count.failed_requests, 0);
	assert_int_equal(receive_for(WAIT_NS), -EPIPE);
	/* After a restart there is space, and the requests are done. */
	close(sock);
	release();
	new_back_end();
	start_session();
	assert_true(wait_used(3));
	assert_int_equal(vu.dev.count.resubmitted, 3);
	assert_int_equal(volume.data[2 * 512], 3);
}

/* ---- losing the session ---- */

SCENE(what_a_lost_session_left_waiting_for_space_does_not_hold_up_the_next)
{
	start_session();
	volume.full = true;
	hold_three();
	disconnect();
	while (vu.lingering > 0)
		fiber_yield();
	start_session();
	kick();
	while (volume.held_count < 3)
		fiber_yield();
	assert_int_equal(vu.dev.count.resubmitted, 3);
	release();
	assert_true(wait_used(3));
}

SCENE(a_lost_session_touches_nothing_more)
{
	start_session();
	hold_three();
	disconnect();
	assert_int_equal(vu.lingering, 1);
	release();
	while (vu.lingering > 0)
		fiber_yield();
	fiber_sleep_ns(QUIET_NS);
	assert_int_equal(ring.used->idx, 0);
	assert_int_equal(*(uint8_t *)unit_guest_ptr(&guest, STATUSES), UNWRITTEN);
	assert_int_equal(calls(), 0);
}

SCENE(the_next_session_waits_for_what_lingers_and_does_it_again)
{
	start_session();
	hold_three();
	disconnect();
	/* Everything is answered, but the ring does not start: an old write must not overtake a newer one. */
	start_session();
	offer_write(3);
	kick();
	fiber_sleep_ns(QUIET_NS);
	assert_int_equal(vhost_user_rings_started(&vu), 0);
	assert_int_equal(volume.ops[VIO_WRITE], 3);
	release();
	assert_true(wait_used(4));
	assert_int_equal(volume.ops[VIO_WRITE], 7);
	/* Oldest first, then the new one; each once. */
	for (uint16_t i = 0; i < 4; i++) {
		assert_int_equal(ring.used->ring[i].id, i * 3);
		assert_int_equal(*(uint8_t *)unit_guest_ptr(&guest, STATUSES + i), VIRTIO_BLK_S_OK);
	}
	assert_int_equal(vu.dev.count.resubmitted, 3);
	assert_true(calls() > 0);
}

SCENE(without_inflight_region_the_base_tells_of_an_earlier_life)
{
	start_session();
	offer_write(0);
	kick();
	assert_true(wait_used(1));
	disconnect();
	offer_write(1);
	new_back_end();
	connect_front_end();
	negotiate();
	assert_int_equal(add_region(0), 0);
	set_up_ring(1);
	assert_true(wait_used(2));
}

SCENE(after_a_restart_rings_are_looked_at_and_called_without_a_kick)
{
	start_session();
	offer_write(0);
	kick();
	assert_true(wait_used(1));
	disconnect();
	calls();
	/* This one's kick went to the process that is gone. */
	offer_write(1);
	new_back_end();
	start_session();
	assert_true(wait_used(2));
	assert_true(calls() > 0);
}

SCENE(an_untouched_ring_of_an_earlier_session_is_called_too)
{
	start_session();
	kick();
	while (vhost_user_rings_started(&vu) == 0)
		fiber_yield();
	disconnect();
	new_back_end();
	start_session();
	fiber_sleep_ns(QUIET_NS);
	assert_int_equal(vhost_user_rings_started(&vu), 1);
	assert_int_equal(calls(), 1);
	/* Once more, with the call descriptor known before the ring starts. */
	disconnect();
	connect_front_end();
	negotiate();
	give_inflight();
	assert_int_equal(add_region(0), 0);
	place_ring(0);
	assert_int_equal(call_u64(VHOST_SET_VRING_CALL, 0, call_fd), 0);
	assert_int_equal(calls(), 0);
	assert_int_equal(call_u64(VHOST_SET_VRING_KICK, 0, kick_fd), 0);
	assert_int_equal(calls(), 1);
}

SCENE(a_damaged_inflight_region_stops_its_ring_only)
{
	start_session();
	hold_three();
	disconnect();
	release();
	assert_int_equal(pwrite(inflight_fd, "\xff\xff", 2, 8), 2);
	start_session();
	kick();
	fiber_sleep_ns(QUIET_NS);
	assert_int_equal(vhost_user_rings_started(&vu), 0);
	assert_int_equal(vu.dev.count.broken_rings, 1);
	assert_int_equal(call_u64(VHOST_SET_FEATURES, FEATURES, -1), 0);
	assert_true(lines > 0);
}

SCENE(the_cache_mode_outlives_us)
{
	struct vhost_config config = { le32_of(32), le32_of(1), le32_of(0), { 0 } };

	start_session();
	assert_int_equal(call_with(VHOST_SET_CONFIG, &config, 13, -1), 0);
	offer_write(0);
	kick();
	assert_true(wait_used(1));
	assert_int_equal(volume.fua, 1);
	disconnect();
	new_back_end();
	start_session();
	offer_write(1);
	assert_true(wait_used(2));
	assert_int_equal(volume.fua, 2);
}

/* ---- the configuration space ---- */

SCENE(configuration_is_neither_read_nor_written_beyond_its_end)
{
	static const struct { uint32_t off_bytes, len_bytes; } beyond[] = {
		{ 256, 1 }, { 255, 2 }, { 1, 256 }, { 0xffffffff, 1 }, { 0xffffff01, 256 }, { 0, 0 },
	};

	start_session();
	for (unsigned i = 0; i < sizeof(beyond) / sizeof(beyond[0]); i++) {
		struct vhost_config config = { le32_of(beyond[i].off_bytes), le32_of(beyond[i].len_bytes),
					       le32_of(VHOST_CONFIG_FLAG_MIGRATION), { 0 } };

		ask(VHOST_GET_CONFIG, &config, VHOST_CONFIG_HEAD_BYTES + beyond[i].len_bytes);
		assert_int_equal(vhost_msg_size(&answer), 0);
		assert_int_equal(call_with(VHOST_SET_CONFIG, &config, VHOST_CONFIG_HEAD_BYTES + beyond[i].len_bytes, -1),
				 -EREMOTEIO);
	}
}

/* ---- the size ---- */

static void read_config(void)
{
	struct vhost_config config = { le32_of(0), le32_of(256), le32_of(0), { 0 } };

	ask(VHOST_GET_CONFIG, &config, 12 + 256);
	assert_int_equal(vhost_msg_size(&answer), 12 + 256);
}

static unsigned config_changes(void)
{
	struct vhost_header header;
	unsigned count = 0;

	fiber_sleep_ns(QUIET_NS);
	while (recv(backend_fd, &header, sizeof(header), MSG_DONTWAIT) == sizeof(header)) {
		assert_int_equal(le32_get(header.request), VHOST_BACKEND_CONFIG_CHANGE);
		assert_int_equal(le32_get(header.size), 0);
		count++;
	}
	return count;
}

static void resize(uint64_t size_bytes)
{
	fake_volume_resize(&volume, size_bytes);
	vhost_user_resized(&vu);
}

SCENE(a_new_size_is_told_once_a_ring_runs)
{
	start_session();
	offer_backend_channel();
	read_config();
	assert_int_equal(le64_get(*(le64 *)answer.payload.config.data), VOLUME_BYTES / 512);
	for (unsigned i = 60; i < 256; i++)
		assert_int_equal(answer.payload.config.data[i], 0);
	/* A suspended device sends nothing. */
	resize(VOLUME_BYTES * 2);
	assert_int_equal(config_changes(), 0);
	kick();
	assert_int_equal(config_changes(), 1);
	resize(VOLUME_BYTES * 3);
	resize(VOLUME_BYTES * 4);
	vhost_user_resized(&vu);
	assert_int_equal(config_changes(), 2);
	read_config();
	assert_int_equal(le64_get(*(le64 *)answer.payload.config.data), VOLUME_BYTES * 4 / 512);
	resize(VOLUME_BYTES * 4);
	assert_int_equal(config_changes(), 0);
}

SCENE(a_size_that_changed_while_we_were_away_is_told)
{
	start_session();
	read_config();
	kick();
	while (vhost_user_rings_started(&vu) == 0)
		fiber_yield();
	disconnect();
	new_back_end();
	fake_volume_resize(&volume, VOLUME_BYTES * 2);
	start_session();
	offer_backend_channel();
	assert_int_equal(config_changes(), 1);
}

/* ---- memory that runs out ---- */

static unsigned allocs_left;
static bool alloc_failed;

static void *scarce_alloc(size_t align_bytes, size_t size_bytes)
{
	void *ptr;

	if (allocs_left == 0) {
		alloc_failed = true;
		return NULL;
	}
	allocs_left--;
	return posix_memalign(&ptr, align_bytes < sizeof(void *) ? sizeof(void *) : align_bytes, size_bytes) ? NULL : ptr;
}

static const struct mem_ops scarce_ops = { .alloc = scarce_alloc, .free = free };

/* A session up to its first write; false if the back end refuses something or leaves. */
static bool try_session(void)
{
	struct vhost_addr addr = { .desc_uva = le64_of(ring.addr.desc_uva), .used_uva = le64_of(ring.addr.used_uva),
				   .avail_uva = le64_of(ring.addr.avail_uva) };
	struct vhost_inflight want = { le64_of(inflight_bytes(1, RING_SIZE)), le64_of(0), le16_of(1), le16_of(RING_SIZE),
				       le32_of(0) };
	struct vhost_slot slot = wire_slot(0);
	struct vhost_state size = { le32_of(0), le32_of(RING_SIZE) }, on = { le32_of(0), le32_of(1) };
	struct vhost_state off = { le32_of(0), le32_of(0) };
	le64 protocol = le64_of(PROTOCOL), features = le64_of(FEATURES), zero = le64_of(0);
	const struct {
		uint32_t request;
		const void *payload;
		uint32_t size_bytes;
		int fd;
	} steps[] = {
		{ VHOST_SET_PROTOCOL_FEATURES, &protocol, 8, -1 },
		{ VHOST_SET_FEATURES, &features, 8, -1 },
		{ VHOST_SET_INFLIGHT_FD, &want, sizeof(want), inflight_fd },
		{ VHOST_ADD_MEM_REG, &slot, sizeof(slot), guest.fd[0] },
		{ VHOST_SET_VRING_NUM, &size, 8, -1 },
		{ VHOST_SET_VRING_ADDR, &addr, sizeof(addr), -1 },
		{ VHOST_SET_VRING_KICK, &zero, 8, kick_fd },
		{ VHOST_SET_VRING_ENABLE, &on, 8, -1 },
		{ VHOST_SET_VRING_ENABLE, &off, 8, -1 },
	};

	for (unsigned i = 0; i < sizeof(steps) / sizeof(steps[0]); i++) {
		struct vhost_msg out;
		uint32_t sent = 0;

		vhost_msg_init(&out);
		memcpy(&out.payload, steps[i].payload, steps[i].size_bytes);
		vhost_msg_set_header(&out, steps[i].request, i > 0 ? VHOST_FLAG_NEED_REPLY : 0, steps[i].size_bytes);
		if (vhost_msg_send(sock, &out, steps[i].fd, &sent) != 1)
			return false;
		/* The first one negotiates answers. */
		if (i > 0 && (receive_for(WAIT_NS) < 0 || le64_get(answer.payload.u64) != 0))
			return false;
		/* Kicks come by themselves. */
		fiber_sleep_ns(1000000);
	}
	return true;
}

SCENE(memory_may_run_out_anywhere)
{
	unsigned n = 0, failures = 0;

	connect_front_end();
	negotiate();
	give_inflight();
	disconnect();
	do {
		uint64_t broken_before = vu.dev.count.broken_rings;

		alloc_failed = false;
		allocs_left = n++;
		mem_set_ops(&scarce_ops);
		kick();
		connect_front_end();
		if (!try_session() || vu.dev.count.broken_rings > broken_before)
			failures++;
		mem_set_ops(NULL);
		disconnect();
	} while (alloc_failed && n < 100);
	/* Session, tables, mappings, inflight region, ring, queue and their parts: all of them, one by one. */
	assert_true(n > 10);
	assert_int_equal(failures, n - 1);
	start_session();
	offer_write(0);
	kick();
	assert_true(wait_used(1));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_ring_starts_when_kicked),
		cmocka_unit_test(without_kick_descriptor_we_look_ourselves),
		cmocka_unit_test(a_ring_that_has_all_but_memory_waits_for_it),
		cmocka_unit_test(an_idle_ring_asks_for_kicks_though_others_are_busy),
		cmocka_unit_test(a_flood_of_messages_does_not_hold_up_the_loop),
		cmocka_unit_test(a_failed_question_ends_the_session),
		cmocka_unit_test(stopping_waits_for_requests_in_flight),
		cmocka_unit_test(stopping_finishes_what_a_predecessor_had_taken),
		cmocka_unit_test(requests_that_never_end_end_the_session_instead_of_a_lie),
		cmocka_unit_test(a_front_end_that_leaves_while_we_drain_is_noticed),
		cmocka_unit_test(memory_in_use_is_not_taken_away),
		cmocka_unit_test(memory_that_stays_in_use_stays),
		cmocka_unit_test(memory_is_added_without_waiting),
		cmocka_unit_test(a_new_table_takes_over_a_running_ring),
		cmocka_unit_test(asked_to_stop_we_finish_first),
		cmocka_unit_test(asked_to_stop_we_leave_what_waits_for_space),
		cmocka_unit_test(what_a_lost_session_left_waiting_for_space_does_not_hold_up_the_next),
		cmocka_unit_test(a_lost_session_touches_nothing_more),
		cmocka_unit_test(the_next_session_waits_for_what_lingers_and_does_it_again),
		cmocka_unit_test(without_inflight_region_the_base_tells_of_an_earlier_life),
		cmocka_unit_test(after_a_restart_rings_are_looked_at_and_called_without_a_kick),
		cmocka_unit_test(an_untouched_ring_of_an_earlier_session_is_called_too),
		cmocka_unit_test(a_damaged_inflight_region_stops_its_ring_only),
		cmocka_unit_test(the_cache_mode_outlives_us),
		cmocka_unit_test(configuration_is_neither_read_nor_written_beyond_its_end),
		cmocka_unit_test(a_new_size_is_told_once_a_ring_runs),
		cmocka_unit_test(a_size_that_changed_while_we_were_away_is_told),
		cmocka_unit_test(memory_may_run_out_anywhere),
	};

	return run_unit_tests(tests);
}
