/* virtio-blk on a vhost-user back end. See virtio_blk.h.
 *
 * The link to the back end is down, asked (connected, the first question is out) or up. A link that breaks is tried again
 * without limit, first after RETRY_MS_MIN, then ever more slowly up to RETRY_MS_MAX. Meanwhile rings stall and the guest sees no error.
 * After a reconnect every ring is kicked and interrupts once, for what either side may have missed. */
#include "vmm-glue/virtio_blk.h"

#include <errno.h>
#include <linux/virtio_blk.h>
#include <linux/virtio_config.h>
#include <linux/virtio_ids.h>
#include <linux/virtio_ring.h>
#include <poll.h>
#include <stddef.h>
#include <string.h>
#include <unistd.h>

#include "pool/base/list.h"
#include "vmm-glue/say.h"

#define RETRY_MS_MIN 10u
#define RETRY_MS_MAX 1000u
#define RING_SIZE_MAX 256
#define CLASS_SCSI_STORAGE 0x010000

/* Up to and including write zeroes: some back ends have no more. */
#define CONFIG_BYTES offsetof(struct virtio_blk_config, max_secure_erase_sectors)

#define FEATURES                                                                                                  \
	(VIRTIO_BIT(VIRTIO_BLK_F_SIZE_MAX) | VIRTIO_BIT(VIRTIO_BLK_F_SEG_MAX) | VIRTIO_BIT(VIRTIO_BLK_F_RO) |     \
	 VIRTIO_BIT(VIRTIO_BLK_F_BLK_SIZE) | VIRTIO_BIT(VIRTIO_BLK_F_FLUSH) | VIRTIO_BIT(VIRTIO_BLK_F_TOPOLOGY) | \
	 VIRTIO_BIT(VIRTIO_BLK_F_CONFIG_WCE) | VIRTIO_BIT(VIRTIO_BLK_F_MQ) | VIRTIO_BIT(VIRTIO_BLK_F_DISCARD) |   \
	 VIRTIO_BIT(VIRTIO_BLK_F_WRITE_ZEROES) | VIRTIO_BIT(VIRTIO_RING_F_INDIRECT_DESC) |                        \
	 VIRTIO_BIT(VIRTIO_RING_F_EVENT_IDX) | VIRTIO_BIT(VIRTIO_F_VERSION_1))

static struct virtio_blk *blk_of(struct virtio_dev *dev)
{
	return container_of(dev, struct virtio_blk, dev);
}

/* ---- the link ---- */

static void link_down(struct virtio_blk *blk)
{
	events_remove(blk->events, &blk->sock_event);
	events_remove(blk->events, &blk->backend_event);
	blk->sock_event.fd = blk->backend_event.fd = -1;
	vhost_disconnect(&blk->vhost);
	blk->link = BLK_DOWN;
}

static void retry_later(struct virtio_blk *blk)
{
	link_down(blk);
	events_timer_set(blk->timer_event.fd, blk->retry_ms * 1000000ull);
	blk->retry_ms = blk->retry_ms * 2 < RETRY_MS_MAX ? blk->retry_ms * 2 : RETRY_MS_MAX;
}

/* The back end has gone, or said what makes no sense. */
static void link_lost(struct virtio_blk *blk, const char *why)
{
	vmm_say("disk '%s': lost its back end (%s); trying again", blk->vhost.path, why);
	blk->lost |= blk->dev.running;
	blk->retry_ms = RETRY_MS_MIN;
	retry_later(blk);
}

static int watch(struct virtio_blk *blk)
{
	int rc = 0;

	if (blk->vhost.backend_sock >= 0) {
		blk->backend_event.fd = blk->vhost.backend_sock;
		rc = events_add(blk->events, &blk->backend_event, EPOLLIN);
	}
	return rc;
}

/* Takes over what the back end says of the disk. The number of queues is ours. */
static int read_config(struct virtio_blk *blk, struct err *err)
{
	struct virtio_blk_config config = { 0 };
	uint8_t writeback = ((struct virtio_blk_config *)blk->dev.config)->wce;
	bool known = blk->dev.config_bytes > 0;
	int rc = vhost_get_config(&blk->vhost, &config, CONFIG_BYTES, err);

	if (rc < 0)
		return rc;
	config.num_queues = (uint16_t)blk->dev.queues;
	if (known && virtio_has(&blk->dev, VIRTIO_BLK_F_CONFIG_WCE) && config.wce != writeback) {
		rc = vhost_set_config(&blk->vhost, offsetof(struct virtio_blk_config, wce), &writeback, 1, true, err);
		config.wce = writeback;
	}
	if (rc == 0 && known && memcmp(blk->dev.config, &config, CONFIG_BYTES) != 0) {
		memcpy(blk->dev.config, &config, CONFIG_BYTES);
		virtio_config_changed(&blk->dev);
	}
	memcpy(blk->dev.config, &config, CONFIG_BYTES);
	return rc;
}

/* ---- rings ---- */

static void fill_queue(const struct virtio_dev *dev, const struct virtio_queue *from, struct vhost_queue *to)
{
	*to = (struct vhost_queue){
		.desc_gpa = from->desc_gpa,
		.avail_gpa = from->avail_gpa,
		.used_gpa = from->used_gpa,
		.size = from->enabled ? from->size : 0,
		.base = from->next,
		.kick_fd = from->kick_fd,
		.call_fd = virtio_call_fd(dev, from),
	};
}

static void start_rings(struct virtio_blk *blk)
{
	struct virtio_dev *dev = &blk->dev;
	struct err err;
	int rc;

	for (uint32_t i = 0; i < dev->queues; i++)
		fill_queue(dev, &dev->queue[i], &blk->queue[i]);
	rc = vhost_start(&blk->vhost, dev->features, blk->queue, dev->queues, blk->lost, &err);
	if (rc == 0) {
		blk->lost = false;
	} else if (rc == -EFAULT) {
		vmm_say("%s: the guest has to reset it", err.msg);
		virtio_needs_reset(dev);
	} else if (rc == -ESTALE) {
		vmm_say("disk '%s': another VM has written it since; this one ends", blk->vhost.path);
		link_down(blk);
		blk->superseded(blk->superseded_arg);
	} else {
		link_lost(blk, err.msg);
	}
}

static void nudge_rings(struct virtio_blk *blk)
{
	for (uint32_t i = 0; i < blk->dev.queues; i++) {
		if (!blk->dev.queue[i].enabled)
			continue;
		events_signal(blk->dev.queue[i].kick_fd);
		events_signal(virtio_call_fd(&blk->dev, &blk->dev.queue[i]));
	}
}

static void blk_start(struct virtio_dev *dev)
{
	struct virtio_blk *blk = blk_of(dev);

	if (blk->link == BLK_UP)
		start_rings(blk);
}

static void blk_stop(struct virtio_dev *dev)
{
	struct virtio_blk *blk = blk_of(dev);
	struct err err;

	if (blk->link != BLK_UP)
		return;
	if (vhost_stop(&blk->vhost, blk->queue, dev->queues, &err) < 0) {
		blk->lost = true;
		link_lost(blk, err.msg);
		return;
	}
	for (uint32_t i = 0; i < dev->queues; i++)
		dev->queue[i].next = blk->queue[i].base;
}

static void blk_reset(struct virtio_dev *dev)
{
	struct virtio_blk *blk = blk_of(dev);

	blk->lost = false;
	vhost_forget(&blk->vhost);
}

static void blk_config_write(struct virtio_dev *dev, uint32_t off_bytes, const void *data, uint32_t len_bytes)
{
	struct virtio_blk *blk = blk_of(dev);
	struct err err;

	if (off_bytes != offsetof(struct virtio_blk_config, wce) || len_bytes != 1 ||
	    !virtio_has(dev, VIRTIO_BLK_F_CONFIG_WCE))
		return;
	memcpy(dev->config + off_bytes, data, 1);
	/* A back end that is away hears of it when it is back. */
	if (blk->link == BLK_UP && vhost_set_config(&blk->vhost, off_bytes, data, 1, false, &err) < 0)
		link_lost(blk, err.msg);
}

static const struct virtio_ops blk_ops = {
	.name = "disk",
	.id = VIRTIO_ID_BLOCK,
	.class_code = CLASS_SCSI_STORAGE,
	.start = blk_start,
	.stop = blk_stop,
	.reset = blk_reset,
	.config_write = blk_config_write,
};

/* ---- events ---- */

/* The back end has answered: what it can do must cover what the guest relies on. */
static int join(struct virtio_blk *blk, struct err *err)
{
	int rc = vhost_negotiate(&blk->vhost, err);

	if (rc == 0 && ((blk->dev.features & ~blk->vhost.features) || blk->vhost.queues_max < blk->dev.queues))
		rc = err_set(err, -ENOTSUP, "it can do less than the one before");
	if (rc == 0)
		rc = read_config(blk, err);
	if (rc == 0)
		rc = watch(blk);
	return rc;
}

static void come_up(struct virtio_blk *blk)
{
	struct err err = { "no memory" };

	if (join(blk, &err) < 0) {
		vmm_say("disk '%s': %s", blk->vhost.path, err.msg);
		retry_later(blk);
		return;
	}
	blk->link = BLK_UP;
	blk->retry_ms = RETRY_MS_MIN;
	vmm_say("disk '%s': connected to its back end", blk->vhost.path);
	if (blk->dev.running)
		start_rings(blk);
	if (blk->dev.running && blk->link == BLK_UP)
		nudge_rings(blk);
}

static void on_sock(struct event *event, uint32_t epoll_events)
{
	struct virtio_blk *blk = container_of(event, struct virtio_blk, sock_event);

	if (blk->link == BLK_ASKED && !(epoll_events & (EPOLLRDHUP | EPOLLHUP | EPOLLERR)))
		come_up(blk);
	else if (blk->link == BLK_ASKED)
		retry_later(blk);
	else
		link_lost(blk, "it closed the connection");
}

static void on_backend(struct event *event, uint32_t epoll_events)
{
	struct virtio_blk *blk = container_of(event, struct virtio_blk, backend_event);
	struct err err;

	if (epoll_events & (EPOLLHUP | EPOLLERR)) {
		events_remove(blk->events, event);
		return;
	}
	if (vhost_config_changed(&blk->vhost) && read_config(blk, &err) < 0)
		link_lost(blk, err.msg);
}

static void on_timer(struct event *event, uint32_t epoll_events)
{
	struct virtio_blk *blk = container_of(event, struct virtio_blk, timer_event);

	(void)events_take(event->fd);
	if (blk->link != BLK_DOWN)
		return;
	if (vhost_connect(&blk->vhost) < 0) {
		retry_later(blk);
		return;
	}
	blk->link = BLK_ASKED;
	blk->sock_event.fd = blk->vhost.sock;
	if (events_add(blk->events, &blk->sock_event, EPOLLIN | EPOLLRDHUP) < 0)
		retry_later(blk);
}

/* ---- life ---- */

/* At the start nothing runs yet, so waiting here is fine. */
static int first_connect(struct virtio_blk *blk, uint32_t wait_ms, struct err *err)
{
	struct vhost *v = &blk->vhost;
	struct pollfd pfd;
	int rc;

	for (uint32_t waited_ms = 0; (rc = vhost_connect(v)) < 0 && waited_ms < wait_ms; waited_ms += RETRY_MS_MIN)
		usleep(RETRY_MS_MIN * 1000);
	if (rc < 0)
		return err_set(err, rc, "cannot connect to disk '%s': %s", v->path, strerror(-rc));
	pfd = (struct pollfd){ .fd = v->sock, .events = POLLIN };
	if (poll(&pfd, 1, (int)wait_ms) != 1)
		return err_set(err, -ETIMEDOUT, "'%s' does not answer: does it serve somebody else?", v->path);
	return vhost_negotiate(v, err);
}

static int open_link(struct virtio_blk *blk, struct err *err)
{
	int rc;

	blk->sock_event.fd = blk->vhost.sock;
	rc = events_add(blk->events, &blk->sock_event, EPOLLIN | EPOLLRDHUP);
	if (rc == 0)
		rc = watch(blk);
	blk->timer_event.fd = events_timer_create();
	if (rc == 0 && blk->timer_event.fd >= 0)
		rc = events_add(blk->events, &blk->timer_event, EPOLLIN);
	return rc < 0 || blk->timer_event.fd < 0 ? err_set(err, -ENOMEM, "no memory for disk '%s'", blk->vhost.path)
						 : 0;
}

int virtio_blk_add(struct virtio_blk *blk, struct pci_bus *bus, struct ram *ram, struct events *events,
		   const char *socket_path, uint32_t queues, uint32_t wait_ms, struct err *err)
{
	int rc;

	blk->events = events;
	blk->retry_ms = RETRY_MS_MIN;
	blk->sock_event = (struct event){ -1, on_sock };
	blk->backend_event = (struct event){ -1, on_backend };
	blk->timer_event = (struct event){ -1, on_timer };
	vhost_init(&blk->vhost, socket_path, ram);
	rc = first_connect(blk, wait_ms, err);
	if (rc < 0)
		return rc;
	if (queues > blk->vhost.queues_max)
		return err_set(err, -EINVAL, "disk '%s' serves %u queues, not %u", socket_path, blk->vhost.queues_max,
			       queues);
	blk->link = BLK_UP;
	blk->dev.ops = &blk_ops;
	blk->dev.ram = ram;
	blk->dev.features_offered = blk->vhost.features & FEATURES;
	if (queues == 1)
		blk->dev.features_offered &= ~VIRTIO_BIT(VIRTIO_BLK_F_MQ);
	rc = virtio_pci_add(bus, &blk->dev, queues, RING_SIZE_MAX, err);
	if (rc == 0)
		rc = read_config(blk, err);
	blk->dev.config_bytes = CONFIG_BYTES;
	return rc < 0 ? rc : open_link(blk, err);
}

void virtio_blk_release(struct virtio_blk *blk)
{
	virtio_pci_release(&blk->dev);
	link_down(blk);
	vhost_forget(&blk->vhost);
	events_remove(blk->events, &blk->timer_event);
	if (blk->timer_event.fd >= 0)
		close(blk->timer_event.fd);
}

void virtio_blk_detach(struct virtio_blk *blk)
{
	events_timer_set(blk->timer_event.fd, 0);
	link_down(blk);
}

void virtio_blk_attach(struct virtio_blk *blk)
{
	blk->retry_ms = RETRY_MS_MIN;
	events_timer_set(blk->timer_event.fd, 1);
}

int virtio_blk_rejoin(struct virtio_blk *blk, struct err *err)
{
	int rc = read_config(blk, err);

	if (rc == 0)
		nudge_rings(blk);
	return rc;
}

bool virtio_blk_is_quiet(const struct virtio_blk *blk)
{
	return !blk->dev.running && !blk->lost;
}
