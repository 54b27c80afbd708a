/* virtio-net on a tap interface. VM's lock. */
#ifndef VMM_VIRTIO_NET_H
#define VMM_VIRTIO_NET_H

#include "vmm-glue/virtio_local.h"

struct virtio_net {
	struct virtio_local local;
	const char *tap;
	struct event tap_event; /* fd -1: detached */
	bool tap_watched;
};

int virtio_net_add(struct virtio_net *net, struct pci_bus *bus, struct ram *ram, struct events *events, const char *tap,
		   const uint8_t mac[6], struct err *err) __attribute__((warn_unused_result));
void virtio_net_release(struct virtio_net *net);
/* Lets the tap go, so that another process may have it; and takes it back. Of a paused device. */
void virtio_net_detach(struct virtio_net *net);
int virtio_net_attach(struct virtio_net *net, struct err *err) __attribute__((warn_unused_result));

#endif
