/* Life of a ring. See vhost_ring.h.
 *
 * Polling: a started ring is a poller of its loop while there is something to do. The loop arms it before it sleeps (asks
 * the driver for kicks) and disarms it when awake. One that found nothing RING_PARK_POLLS times arms itself and leaves
 * the list, so it costs nothing while others keep the loop awake. A kick, or a completion, brings it back.
 *
 * Descriptors of the front end are eventfds and nothing else: anything else might block us, end us (SIGPIPE) or never
 * stop being ready. They are made non-blocking. (The front end shares that flag and could clear it again at the very
 * moment its counter is full; it would stall this loop until it reads. A front end that does so has the guest's
 * whole trust already.)
 *
 * Always: `polled` says whether the poller is on the loop's list, and only a started ring's is. After
 * vhost_ring_abandon nothing of guest memory is touched through this ring. */
#include "targets/vhost_ring.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/virtio_ring.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define EVENTFD_LINK "anon_inode:[eventfd]"

/* ---- descriptors ---- */

static bool is_eventfd(int fd)
{
	char path[32], link[sizeof(EVENTFD_LINK)];
	ssize_t len;

	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	len = readlink(path, link, sizeof(link));
	return len == sizeof(EVENTFD_LINK) - 1 && memcmp(link, EVENTFD_LINK, (size_t)len) == 0;
}

static void close_fd(int *fd)
{
	if (*fd >= 0)
		close(*fd);
	*fd = -1;
}

/* Takes over fd (-1: none) into *slot. */
static int replace_eventfd(int *slot, int fd)
{
	if (fd >= 0 && (!is_eventfd(fd) || fcntl(fd, F_SETFL, O_NONBLOCK) < 0)) {
		close(fd);
		return -EINVAL;
	}
	close_fd(slot);
	*slot = fd;
	return 0;
}

static void signal_eventfd(int fd)
{
	uint64_t one = 1;

	/* Full is as good as written: the other side has been told and did not look yet. */
	if (fd >= 0 && write(fd, &one, sizeof(one)) < 0)
		return;
}

static void clear_eventfd(int fd)
{
	uint64_t count;

	if (read(fd, &count, sizeof(count)) < 0)
		return;
}

/* ---- polling ---- */

static void start_polling(struct vhost_ring *ring)
{
	ring->empty_polls = 0;
	if (ring->polled)
		return;
	ring->polled = true;
	poller_add(ring->env->loop, &ring->poller);
}

static void stop_polling(struct vhost_ring *ring)
{
	if (!ring->polled)
		return;
	ring->polled = false;
	poller_del(ring->env->loop, &ring->poller);
}

static bool takes_requests(const struct vhost_ring *ring)
{
	return ring->enabled && !ring->draining && !ring->broken;
}

static enum blk_take what_to_take(const struct vhost_ring *ring)
{
	if (ring->draining)
		return BLK_TAKE_RESUBMITS;
	return takes_requests(ring) ? BLK_TAKE_ALL : BLK_TAKE_NONE;
}

/* There is, or may be, something to do. */
static void wake_ring(struct vhost_ring *ring)
{
	if (!ring->queue)
		return;
	start_polling(ring);
	if (takes_requests(ring))
		virtq_notify_off(blk_queue_virtq(ring->queue));
}

static void break_ring(struct vhost_ring *ring, const char *why)
{
	ring->broken = true;
	signal_eventfd(ring->err_fd);
	ring->env->broken(ring->env, ring, why);
}

static void look_for_faults(struct vhost_ring *ring)
{
	const char *fault;

	if (ring->broken)
		return;
	if (blk_queue_is_lost(ring->queue)) {
		ring->env->dev->count.lost_rings++;
		break_ring(ring, "its memory went away");
		return;
	}
	fault = virtq_fault(blk_queue_virtq(ring->queue));
	if (fault) {
		ring->env->dev->count.broken_rings++;
		break_ring(ring, fault);
	}
}

/* Whether the ring may sleep now: notifications asked for, and nothing came in between. */
static bool settle(struct vhost_ring *ring)
{
	if (!takes_requests(ring) || !blk_queue_has_room(ring->queue))
		return true;
	return !virtq_notify_on(blk_queue_virtq(ring->queue));
}

static int ring_poll(struct poller *poller)
{
	struct vhost_ring *ring = container_of(poller, struct vhost_ring, poller);
	uint32_t work = blk_queue_poll(ring->queue, what_to_take(ring));

	if (work > 0) {
		ring->empty_polls = 0;
	} else {
		look_for_faults(ring);
		if (++ring->empty_polls >= RING_PARK_POLLS && settle(ring))
			stop_polling(ring);
	}
	if (ring->draining && blk_queue_is_drained(ring->queue))
		ring->env->drained(ring->env);
	return (int)work;
}

static bool ring_arm(struct poller *poller)
{
	return !settle(container_of(poller, struct vhost_ring, poller));
}

static void ring_disarm(struct poller *poller)
{
	struct vhost_ring *ring = container_of(poller, struct vhost_ring, poller);

	if (takes_requests(ring))
		virtq_notify_off(blk_queue_virtq(ring->queue));
}

static void on_completion(void *arg)
{
	start_polling(arg);
}

static void on_notify(void *arg)
{
	signal_eventfd(((struct vhost_ring *)arg)->call_fd);
}

static void on_kick(struct fd_watch *watch)
{
	struct vhost_ring *ring = container_of(watch, struct vhost_ring, watch);

	clear_eventfd(ring->kick_fd);
	if (ring->queue) {
		wake_ring(ring);
		return;
	}
	ring->kicked = true;
	vhost_ring_try_start(ring);
}

/* The front end wants us to look by ourselves. */
static void on_look(struct timer *timer)
{
	struct vhost_ring *ring = container_of(timer, struct vhost_ring, timer);

	if (ring->queue)
		wake_ring(ring);
	else
		vhost_ring_try_start(ring);
	/* It was armed until now, so there is room for it. */
	(void)timer_arm(ring->env->loop, timer, loop_now_ns(ring->env->loop) + RING_LOOK_NS);
}

/* ---- messages ---- */

void vhost_ring_init(struct vhost_ring *ring, struct vhost_ring_env *env, uint32_t index)
{
	memset(ring, 0, sizeof(*ring));
	ring->env = env;
	ring->index = index;
	ring->kick_fd = ring->call_fd = ring->err_fd = -1;
	ring->poller.poll = ring_poll;
	ring->poller.arm = ring_arm;
	ring->poller.disarm = ring_disarm;
	list_init(&ring->poller.node);
	timer_init(&ring->timer, on_look);
}

int vhost_ring_set_size(struct vhost_ring *ring, uint32_t size)
{
	if (ring->queue)
		return size == ring->size ? 0 : -EBUSY;
	if (!virtq_size_is_valid(size))
		return -EINVAL;
	ring->size = (uint16_t)size;
	return 0;
}

int vhost_ring_set_base(struct vhost_ring *ring, uint32_t base)
{
	if (ring->queue)
		return -EBUSY;
	if (base > UINT16_MAX)
		return -EINVAL;
	ring->base = (uint16_t)base;
	return 0;
}

int vhost_ring_set_addr(struct vhost_ring *ring, const struct virtq_addr *addr)
{
	int rc;

	if (ring->queue)
		return memcmp(addr, &ring->addr, sizeof(*addr)) == 0 ? 0 : -EBUSY;
	/* Checked here so that the front end hears of it, and again when the ring starts: table and size may change. */
	rc = virtq_addr_validate(ring->env->mem, addr, ring->size > 0 ? ring->size : 1);
	if (rc < 0)
		return rc;
	ring->addr = *addr;
	ring->has_addr = true;
	return 0;
}

static void stop_watching(struct vhost_ring *ring)
{
	timer_cancel(ring->env->loop, &ring->timer);
	if (ring->watched)
		fd_watch_stop(&ring->watch);
	ring->watched = false;
}

static int start_watching(struct vhost_ring *ring)
{
	int rc;

	if (ring->kick_fd < 0)
		return timer_arm(ring->env->loop, &ring->timer, loop_now_ns(ring->env->loop));
	rc = fd_watch_start(reactor_of(ring->env->loop), &ring->watch, ring->kick_fd, on_kick);
	ring->watched = rc == 0;
	return rc;
}

int vhost_ring_set_kick(struct vhost_ring *ring, int fd)
{
	int rc;

	stop_watching(ring);
	rc = replace_eventfd(&ring->kick_fd, fd);
	if (rc < 0)
		close_fd(&ring->kick_fd);
	ring->has_kick = rc == 0;
	if (rc == 0)
		rc = start_watching(ring);
	if (!ring->queue)
		ring->broken = false;
	/* What was kicked at the old descriptor may not have reached us. */
	wake_ring(ring);
	return rc;
}

static void pay_call(struct vhost_ring *ring)
{
	if (!ring->owes_call || !ring->queue || ring->call_fd < 0)
		return;
	ring->owes_call = false;
	signal_eventfd(ring->call_fd);
}

int vhost_ring_set_call(struct vhost_ring *ring, int fd)
{
	int rc = replace_eventfd(&ring->call_fd, fd);

	pay_call(ring);
	return rc;
}

int vhost_ring_set_err(struct vhost_ring *ring, int fd)
{
	return replace_eventfd(&ring->err_fd, fd);
}

void vhost_ring_enable(struct vhost_ring *ring, bool on)
{
	ring->enabled = on;
	wake_ring(ring);
}

/* ---- starting ---- */

/* The ring ran in an earlier session: requests may be waiting in it, and their kick is gone. */
static bool has_run_before(const struct vhost_ring *ring)
{
	return ring->base != 0 || (ring->env->inflight && inflight_has_history(ring->env->inflight, ring->index));
}

static bool is_ready(const struct vhost_ring *ring)
{
	if (ring->queue || ring->broken || !ring->env->may_start || !ring->has_kick || !ring->has_addr || ring->size == 0)
		return false;
	return ring->kicked || ring->kick_fd < 0 || has_run_before(ring);
}

static int create_queue(struct vhost_ring *ring)
{
	const struct vhost_ring_env *env = ring->env;
	struct virtq_conf conf = {
		.mem = env->mem,
		.addr = ring->addr,
		.size = ring->size,
		.base = ring->base,
		.event_idx = env->features & (1ull << VIRTIO_RING_F_EVENT_IDX),
		.indirect = env->features & (1ull << VIRTIO_RING_F_INDIRECT_DESC),
		.inflight = env->inflight,
		.index = ring->index,
	};
	struct blk_queue_conf queue_conf = {
		.dev = env->dev,
		.features = env->features,
		.wake = on_completion,
		.notify = on_notify,
		.gone = env->gone,
		.arg = ring,
		.gone_arg = env->gone_arg,
	};
	int rc = virtq_create(&conf, &queue_conf.virtq);

	if (rc < 0)
		return rc;
	rc = blk_queue_create(&queue_conf, &ring->queue);
	if (rc < 0)
		virtq_destroy(queue_conf.virtq);
	return rc;
}

static const char *start_error(int rc)
{
	switch (rc) {
	case -EBADMSG:
		return "the inflight region is damaged";
	case -EINVAL:
	case -EFAULT:
		return "it does not fit its memory or its inflight region";
	default:
		return "out of memory";
	}
}

void vhost_ring_try_start(struct vhost_ring *ring)
{
	int rc;

	if (!is_ready(ring))
		return;
	ring->owes_call = has_run_before(ring);
	ring->kicked = false;
	rc = create_queue(ring);
	if (rc < 0) {
		ring->env->dev->count.broken_rings++;
		break_ring(ring, start_error(rc));
		return;
	}
	wake_ring(ring);
	pay_call(ring);
	ring->env->started(ring->env);
}

/* ---- stopping ---- */

void vhost_ring_drain(struct vhost_ring *ring)
{
	ring->draining = true;
	wake_ring(ring);
}

void vhost_ring_leave(struct vhost_ring *ring)
{
	if (ring->queue)
		blk_queue_leave(ring->queue);
}

bool vhost_ring_is_drained(const struct vhost_ring *ring)
{
	return !ring->queue || blk_queue_is_drained(ring->queue);
}

void vhost_ring_resume(struct vhost_ring *ring)
{
	ring->draining = false;
	wake_ring(ring);
}

void vhost_ring_remap(struct vhost_ring *ring)
{
	if (!ring->queue || virtq_remap(blk_queue_virtq(ring->queue), ring->env->mem) == 0)
		return;
	vhost_ring_abandon(ring, false);
	ring->env->dev->count.broken_rings++;
	break_ring(ring, "its memory was taken away");
}

void vhost_ring_abandon(struct vhost_ring *ring, bool orderly)
{
	struct blk_queue *queue = ring->queue;
	struct virtq *virtq;

	if (!queue)
		return;
	virtq = blk_queue_virtq(queue);
	ring->base = virtq_next_avail(virtq);
	/* Whoever takes over next may wait for a kick. */
	if (orderly && !blk_queue_is_lost(queue))
		virtq_notify_on(virtq);
	stop_polling(ring);
	ring->queue = NULL;
	ring->has_kick = ring->kicked = ring->draining = false;
	ring->env->abandoned(ring->env);
	blk_queue_abandon(queue);
}

void vhost_ring_close(struct vhost_ring *ring)
{
	ring->has_kick = ring->kicked = ring->owes_call = false;
	stop_watching(ring);
	close_fd(&ring->kick_fd);
	close_fd(&ring->call_fd);
	ring->broken = false;
}
