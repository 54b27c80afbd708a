/* A vhost-user session: its life, its rings as a whole, receiving and answering. See vhost_user.h; what the messages do is
 * in vhost_requests.c.
 *
 * How: one fiber a session reads messages and may wait in handlers; rings run by themselves on the loop in between. What
 * is refused is said so (REPLY_ACK); where the protocol has no way to say it, the session ends: a front end must not go
 * on believing in what did not happen.
 *
 * The end: a front end that is gone gets nothing more. All queues are let go at once, and requests still at the
 * volume linger; with an inflight region they stay marked there and the next session carries them out again. Asked to
 * leave by us (vhost_user_stop), the session first finishes what is in flight, except what waits for space in a full pool:
 * that is left as a lost session leaves it.
 *
 * Always: rings start only when nothing lingers. Whoever may be waiting in the session's fiber is woken by any ring that
 * has drained, and looks again. */
#include "targets/vhost_user.h"

#include <errno.h>
#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "pool/base/mem.h"
#include "targets/vhost_user_int.h"

/* How often a waiting session looks whether its front end is still there. */
#define HANG_UP_LOOK_NS 20000000ull

void vhost_session_say(struct vhost_session *s, const char *format, ...)
{
	char line[160];
	va_list args;

	va_start(args, format);
	vsnprintf(line, sizeof(line), format, args);
	va_end(args);
	s->vu->log(s->vu, line);
}

/* ---- rings, all together ---- */

bool vhost_session_any_started(struct vhost_session *s)
{
	for_each_ring(ring, s)
		if (vhost_ring_is_started(ring))
			return true;
	return false;
}

void vhost_session_start_rings(struct vhost_session *s)
{
	s->env.may_start = s->has_features && !s->ending && s->vu->lingering == 0;
	for_each_ring(ring, s)
		vhost_ring_try_start(ring);
}

static bool all_drained(struct vhost_session *s)
{
	for_each_ring(ring, s)
		if (ring->draining && !vhost_ring_is_drained(ring))
			return false;
	return true;
}

static uint64_t sum_or_max(uint64_t a, uint64_t b)
{
	uint64_t sum;

	return __builtin_add_overflow(a, b, &sum) ? UINT64_MAX : sum;
}

int vhost_session_wait_drained(struct vhost_session *s, uint64_t drain_ns_max)
{
	uint64_t now_ns = loop_now_ns(s->vu->loop), deadline_ns = sum_or_max(now_ns, drain_ns_max);

	while (!all_drained(s)) {
		uint64_t look_ns = now_ns + HANG_UP_LOOK_NS;

		if (vhost_user_is_hung_up(s->vu))
			return -EPIPE;
		if (now_ns >= deadline_ns)
			return -ETIMEDOUT;
		fiber_park_until(look_ns < deadline_ns ? look_ns : deadline_ns);
		now_ns = loop_now_ns(s->vu->loop);
	}
	return 0;
}

int vhost_session_drain_all(struct vhost_session *s, uint64_t drain_ns_max)
{
	for_each_ring(ring, s)
		if (vhost_ring_is_started(ring))
			vhost_ring_drain(ring);
	return vhost_session_wait_drained(s, drain_ns_max);
}

void vhost_session_resume_all(struct vhost_session *s)
{
	for_each_ring(ring, s)
		if (vhost_ring_is_started(ring))
			vhost_ring_resume(ring);
}

/* ---- telling the front end of a new size ---- */

void vhost_session_tell_capacity(struct vhost_session *s)
{
	uint64_t sectors = volume_size_bytes(s->vu->dev.volume) / SECTOR_BYTES;
	struct vhost_msg msg;
	uint32_t sent = 0;

	/* While no ring runs, the device must not send; and what was never asked for is no news. */
	if (s->backend_fd < 0 || s->ending || s->told_sectors == 0 || s->told_sectors == sectors ||
	    !vhost_session_any_started(s))
		return;
	s->told_sectors = sectors;
	if (s->env.inflight)
		inflight_set_told(s->env.inflight, sectors);
	vhost_msg_init(&msg);
	vhost_msg_set_header(&msg, VHOST_BACKEND_CONFIG_CHANGE, 0, 0);
	/* A full socket already holds such a message, unread; a broken one has nobody to tell. */
	(void)vhost_msg_send(s->backend_fd, &msg, -1, &sent);
}

void vhost_user_resized(struct vhost_user *vu)
{
	if (vu->session)
		vhost_session_tell_capacity(vu->session);
}

/* ---- what rings tell us ---- */

static struct vhost_session *session_of(struct vhost_ring_env *env)
{
	return container_of(env, struct vhost_session, env);
}

static void on_started(struct vhost_ring_env *env)
{
	vhost_session_tell_capacity(session_of(env));
}

static void on_drained(struct vhost_ring_env *env)
{
	fiber_wake(session_of(env)->fiber);
}

static void on_broken(struct vhost_ring_env *env, struct vhost_ring *ring, const char *why)
{
	vhost_session_say(session_of(env), "ring %u is given up: %s", ring->index, why);
}

static void on_abandoned(struct vhost_ring_env *env)
{
	session_of(env)->vu->lingering++;
}

static void on_gone(void *arg)
{
	struct vhost_user *vu = arg;

	if (--vu->lingering > 0)
		return;
	if (vu->session)
		vhost_session_start_rings(vu->session);
	else
		vhost_user_rest(vu);
	waitq_wake_all(&vu->changed);
}

/* ---- messages ---- */

/* Waits for a whole message. One that has begun must be finished in time. */
static int receive(struct vhost_session *s)
{
	uint64_t deadline_ns = UINT64_MAX;
	int rc;

	if (s->cancel.cancelled)
		return -ECANCELED;
	while ((rc = vhost_msg_recv(s->sock, &s->msg)) == 0) {
		if (s->msg.got_bytes > 0 && deadline_ns == UINT64_MAX)
			deadline_ns = loop_now_ns(s->vu->loop) + VHOST_MESSAGE_NS_MAX;
		rc = fd_wait(s->sock, POLLIN, deadline_ns, &s->cancel);
		if (rc < 0)
			return rc;
	}
	return rc < 0 ? rc : 0;
}

static bool has_answer(const struct vhost_session *s)
{
	return le32_get(s->answer.header.flags) != 0;
}

static int send_answer(struct vhost_session *s)
{
	uint64_t deadline_ns = loop_now_ns(s->vu->loop) + VHOST_MESSAGE_NS_MAX;
	uint32_t sent = 0;
	int rc;

	while ((rc = vhost_msg_send(s->sock, &s->answer, s->answer_fd, &sent)) == 0) {
		rc = fd_wait(s->sock, POLLOUT, deadline_ns, &s->cancel);
		if (rc < 0)
			return rc;
	}
	return rc < 0 ? rc : 0;
}

static bool wants_ack(const struct vhost_session *s)
{
	return (s->protocol & (1ull << VHOST_P_REPLY_ACK)) && (le32_get(s->msg.header.flags) & VHOST_FLAG_NEED_REPLY);
}

/* A request with an answer of its own has no other way to fail than the end of the session. */
static bool answers_itself(uint32_t request)
{
	return request == VHOST_GET_VRING_BASE || request == VHOST_GET_INFLIGHT_FD;
}

/* 0, or what went wrong: the protocol asks for no more than that it is not 0. */
static void set_ack(struct vhost_session *s, int rc)
{
	s->answer.payload.u64 = le64_of((uint64_t)-rc);
	vhost_msg_set_header(&s->answer, vhost_msg_request(&s->msg), VHOST_FLAG_REPLY, sizeof(s->answer.payload.u64));
}

static int handle(struct vhost_session *s)
{
	uint32_t request = vhost_msg_request(&s->msg);
	bool ack = wants_ack(s);
	int rc = vhost_msg_validate(&s->msg, s->protocol);

	if (rc == 0)
		rc = vhost_request_handle(s);
	if (rc < 0)
		vhost_session_say(s, "%s (%u) is refused: %s", vhost_request_name(request), request, strerror(-rc));
	if (rc < 0 && (!ack || answers_itself(request)))
		return rc;
	if (ack && !has_answer(s))
		set_ack(s, rc);
	/* Descriptors that nobody took are closed before the front end can know that we are done. */
	vhost_msg_release(&s->msg);
	return has_answer(s) ? send_answer(s) : 0;
}

static int serve_one(struct vhost_session *s)
{
	int rc;

	vhost_msg_init(&s->msg);
	vhost_msg_init(&s->answer);
	s->answer_fd = -1;
	rc = receive(s);
	if (rc == 0)
		rc = handle(s);
	vhost_msg_release(&s->msg);
	if (s->answer_fd >= 0)
		close(s->answer_fd);
	return rc;
}

/* ---- life ---- */

static struct vhost_session *session_new(struct vhost_user *vu, int sock)
{
	struct vhost_session *s = mem_zalloc(sizeof(*s) + vu->dev.queues * sizeof(s->ring[0]));

	if (!s)
		return NULL;
	s->env = (struct vhost_ring_env){
		.loop = vu->loop,
		.dev = &vu->dev,
		.started = on_started,
		.drained = on_drained,
		.broken = on_broken,
		.abandoned = on_abandoned,
		.gone = on_gone,
		.gone_arg = vu,
	};
	if (guestmem_create(NULL, NULL, 0, &s->env.mem) < 0) {
		mem_free(s);
		return NULL;
	}
	s->vu = vu;
	s->sock = sock;
	s->backend_fd = -1;
	s->fiber = fiber_self();
	s->epoch_seen = volume_epoch(vu->dev.volume);
	fd_cancel_init(&s->cancel);
	s->ring_count = vu->dev.queues;
	for (uint32_t i = 0; i < s->ring_count; i++)
		vhost_ring_init(&s->ring[i], &s->env, i);
	return s;
}

/* Finishes what is in flight and can be finished. 0 or -EPIPE. */
static int leave(struct vhost_session *s)
{
	for_each_ring(ring, s)
		vhost_ring_leave(ring);
	return vhost_session_drain_all(s, UINT64_MAX);
}

/* Lets everything go. `orderly`: the front end is still there, and its requests are done. */
static void session_end(struct vhost_session *s, bool orderly)
{
	s->ending = true;
	s->env.may_start = false;
	for_each_ring(ring, s)
		vhost_ring_abandon(ring, orderly);
	for_each_ring(ring, s) {
		vhost_ring_close(ring);
		(void)vhost_ring_set_err(ring, -1);
	}
	inflight_put(s->env.inflight);
	guestmem_put(s->env.mem);
	if (s->backend_fd >= 0)
		close(s->backend_fd);
	close(s->sock);
}

void vhost_user_init(struct vhost_user *vu, struct loop *loop)
{
	vu->loop = loop;
	vu->drain_ns_max = VHOST_DRAIN_NS_MAX;
	waitq_init(&vu->changed);
}

void vhost_user_serve(struct vhost_user *vu, int sock)
{
	struct vhost_session *s = vu->stopping ? NULL : session_new(vu, sock);
	bool orderly;
	int rc;

	if (!s) {
		close(sock);
		return;
	}
	vu->session = s;
	vu->sessions++;
	/* One message a turn: a front end that never stops sending must not hold up the others of this loop. */
	while ((rc = serve_one(s)) == 0)
		fiber_yield();
	orderly = rc == -ECANCELED && leave(s) == 0;
	session_end(s, orderly);
	vu->session = NULL;
	mem_free(s);
	vhost_user_rest(vu);
	waitq_wake_all(&vu->changed);
}

void vhost_user_stop(struct vhost_user *vu)
{
	vu->stopping = true;
	if (vu->session)
		fd_cancel(&vu->session->cancel);
	while (vu->session || vu->lingering > 0)
		waitq_wait(&vu->changed);
}

bool vhost_user_is_hung_up(const struct vhost_user *vu)
{
	struct pollfd pfd = { .fd = vu->session ? vu->session->sock : -1, .events = POLLRDHUP };

	return poll(&pfd, 1, 0) > 0 && (pfd.revents & (POLLRDHUP | POLLHUP | POLLERR));
}

uint32_t vhost_user_rings_started(const struct vhost_user *vu)
{
	uint32_t count = 0;

	if (!vu->session)
		return 0;
	for_each_ring(ring, vu->session)
		count += vhost_ring_is_started(ring);
	return count;
}
