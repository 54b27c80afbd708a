/* A virtio-blk device whose rings a vhost-user back end serves. VM's lock. */
#ifndef VMM_VIRTIO_BLK_H
#define VMM_VIRTIO_BLK_H

#include "vmm-glue/events.h"
#include "vmm-glue/vhost_frontend.h"
#include "vmm-glue/virtio_pci.h"

struct virtio_blk {
	struct virtio_dev dev;
	struct vhost vhost;
	struct vhost_queue queue[VIRTIO_QUEUES_MAX];
	struct events *events;
	struct event sock_event, backend_event, timer_event;
	enum { BLK_DOWN, BLK_ASKED, BLK_UP } link;
	uint32_t retry_ms; /* until the next attempt to connect */
	bool lost;         /* the session ended without the rings being stopped */
	/* Required. Another VM has the disk now: this one must not go on. */
	void (*superseded)(void *arg);
	void *superseded_arg;
};

/* Connects to the back end, which may be up to wait_ms late, and adds the device. virtio_blk_release in any case. */
int virtio_blk_add(struct virtio_blk *blk, struct pci_bus *bus, struct ram *ram, struct events *events,
		   const char *socket_path, uint32_t queues, uint32_t wait_ms, struct err *err)
	__attribute__((warn_unused_result));
void virtio_blk_release(struct virtio_blk *blk);

/* Lets the back end go, so that another front end may have it; and comes back. Of a paused device. */
void virtio_blk_detach(struct virtio_blk *blk);
void virtio_blk_attach(struct virtio_blk *blk);
/* After a state was loaded: the back end learns what the guest has set, the guest what has changed of the disk. */
int virtio_blk_rejoin(struct virtio_blk *blk, struct err *err) __attribute__((warn_unused_result));
/* Nothing of the guest's is with a back end: true for a paused device whose rings were stopped in good order. */
bool virtio_blk_is_quiet(const struct virtio_blk *blk);

#endif
