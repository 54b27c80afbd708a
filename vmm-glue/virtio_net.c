/* The network card. See virtio_net.h.
 *
 * A frame travels with its virtio header: tap and guest speak the same format, so that checksums and segmentation of what
 * the guest sends are left to the host. */
#include "vmm-glue/virtio_net.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/if.h>
#include <linux/if_tun.h>
#include <linux/virtio_ids.h>
#include <linux/virtio_net.h>
#include <stddef.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "pool/base/list.h"

enum { RECEIVE, TRANSMIT, QUEUES };

static struct virtio_net *net_of(struct virtio_local *local)
{
	return container_of(local, struct virtio_net, local);
}

/* The tap is heard only while the guest has room. */
static void watch_tap(struct virtio_net *net, bool on)
{
	if (net->tap_watched == on || net->tap_event.fd < 0)
		return;
	if (!on)
		events_remove(net->local.events, &net->tap_event);
	else if (events_add(net->local.events, &net->tap_event, EPOLLIN) < 0)
		return;
	net->tap_watched = on;
}

static void receive(struct virtio_net *net)
{
	struct virtio_local *local = &net->local;
	struct local_chain chain;

	while (local_pop(local, RECEIVE, &chain)) {
		ssize_t got = readv(net->tap_event.fd, chain.seg + chain.reads, (int)(chain.segs - chain.reads));

		if (got <= 0) {
			local_unpop(local, RECEIVE);
			watch_tap(net, true);
			return;
		}
		local_push(local, RECEIVE, &chain, (uint32_t)got);
	}
	watch_tap(net, false);
}

/* A frame that the tap does not take is lost, as on any wire. */
static void transmit(struct virtio_net *net)
{
	struct local_chain chain;

	while (local_pop(&net->local, TRANSMIT, &chain)) {
		ssize_t put = writev(net->tap_event.fd, chain.seg, (int)chain.reads);

		(void)put;
		local_push(&net->local, TRANSMIT, &chain, 0);
	}
}

static void serve(struct virtio_local *local, uint32_t index)
{
	if (index == RECEIVE)
		receive(net_of(local));
	else
		transmit(net_of(local));
}

static void on_tap(struct event *event, uint32_t epoll_events)
{
	receive(container_of(event, struct virtio_net, tap_event));
}

static void stop(struct virtio_dev *dev)
{
	watch_tap(net_of(container_of(dev, struct virtio_local, dev)), false);
	virtio_local_stop(dev);
}

static const struct virtio_ops ops = {
	.name = "network card",
	.id = VIRTIO_ID_NET,
	.class_code = 0x020000,
	.start = virtio_local_start,
	.stop = stop,
};

int virtio_net_attach(struct virtio_net *net, struct err *err)
{
	struct ifreq ifr = { .ifr_flags = IFF_TAP | IFF_NO_PI | IFF_VNET_HDR };
	int header_bytes = sizeof(struct virtio_net_hdr_v1);
	int fd = open("/dev/net/tun", O_RDWR | O_CLOEXEC | O_NONBLOCK);

	if (fd < 0)
		return err_set(err, -errno, "cannot open '/dev/net/tun': %m");
	strncpy(ifr.ifr_name, net->tap, sizeof(ifr.ifr_name) - 1);
	if (ioctl(fd, TUNSETIFF, &ifr) < 0 || ioctl(fd, TUNSETVNETHDRSZ, &header_bytes) < 0 ||
	    ioctl(fd, TUNSETOFFLOAD, 0) < 0) {
		int rc = -errno;

		close(fd);
		return err_set(err, rc, "cannot use tap interface '%s': %s", net->tap, strerror(-rc));
	}
	net->tap_event.fd = fd;
	return 0;
}

void virtio_net_detach(struct virtio_net *net)
{
	if (net->tap_event.fd < 0)
		return;
	watch_tap(net, false);
	close(net->tap_event.fd);
	net->tap_event.fd = -1;
}

int virtio_net_add(struct virtio_net *net, struct pci_bus *bus, struct ram *ram, struct events *events, const char *tap,
		   const uint8_t mac[6], struct err *err)
{
	struct virtio_dev *dev = &net->local.dev;
	int rc;

	net->tap = tap;
	net->tap_event = (struct event){ -1, on_tap };
	net->local.serve = serve;
	dev->ops = &ops;
	dev->features_offered = VIRTIO_BIT(VIRTIO_NET_F_MAC) | VIRTIO_BIT(VIRTIO_NET_F_CSUM) |
				VIRTIO_BIT(VIRTIO_NET_F_HOST_TSO4) | VIRTIO_BIT(VIRTIO_NET_F_HOST_TSO6);
	memcpy(dev->config, mac, 6);
	dev->config_bytes = offsetof(struct virtio_net_config, status);
	rc = virtio_net_attach(net, err);
	return rc < 0 ? rc : virtio_local_add(&net->local, bus, ram, events, QUEUES, err);
}

void virtio_net_release(struct virtio_net *net)
{
	virtio_local_release(&net->local);
	virtio_net_detach(net);
}
