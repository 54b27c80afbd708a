/* Virtio devices whose rings are served here, by the event loop: a ring's kick calls the model's serve function.
 *
 * Split rings without event index and indirect tables: these devices are not about speed. What the guest says in a ring is
 * copied once, then checked; a chain that is wrong makes the device need a reset. VM's lock. */
#ifndef VMM_VIRTIO_LOCAL_H
#define VMM_VIRTIO_LOCAL_H

#include <linux/virtio_ring.h>
#include <sys/uio.h>

#include "vmm-glue/events.h"
#include "vmm-glue/virtio_pci.h"

#define LOCAL_QUEUES_MAX 4
#define LOCAL_RING_SIZE 128
#define LOCAL_SEGS_MAX LOCAL_RING_SIZE

/* A request: what the device reads, then what it writes. */
struct local_chain {
	uint16_t head;
	struct iovec seg[LOCAL_SEGS_MAX];
	uint64_t gpa[LOCAL_SEGS_MAX];
	uint32_t reads, segs; /* seg[0 .. reads - 1] are read, the rest is written */
};

struct virtio_local;

struct local_ring {
	struct virtio_local *local;
	struct event kick;
	struct vring_desc *desc;
	struct vring_avail *avail;
	struct vring_used *used;
	uint16_t size, next, used_idx;
};

struct virtio_local {
	struct virtio_dev dev; /* first: one is the other */
	struct events *events;
	struct local_ring ring[LOCAL_QUEUES_MAX];
	/* Required. Queue `index` has been kicked, or has just started. */
	void (*serve)(struct virtio_local *local, uint32_t index);
};

/* dev.ops, dev.features_offered, dev.config and serve are set by the caller; ops->start and ops->stop are these. */
int virtio_local_add(struct virtio_local *local, struct pci_bus *bus, struct ram *ram, struct events *events,
		     uint32_t queues, struct err *err) __attribute__((warn_unused_result));
void virtio_local_release(struct virtio_local *local);
void virtio_local_start(struct virtio_dev *dev);
void virtio_local_stop(struct virtio_dev *dev);

/* The next request. false: there is none, or the ring is broken and the device needs a reset. */
bool local_pop(struct virtio_local *local, uint32_t index, struct local_chain *chain);
/* Gives a request back, of whose written part the first `written` bytes are filled, and interrupts if the guest wants it. */
void local_push(struct virtio_local *local, uint32_t index, const struct local_chain *chain, uint32_t written);
/* Undoes the last local_pop. */
void local_unpop(struct virtio_local *local, uint32_t index);

#endif
