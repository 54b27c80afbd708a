/* virtio-balloon: memory that the guest does not need goes back to the host, by free page reporting on its own accord
 * and by inflation on ours. VM's lock. */
#ifndef VMM_VIRTIO_BALLOON_H
#define VMM_VIRTIO_BALLOON_H

#include "vmm-glue/virtio_local.h"

struct virtio_balloon {
	struct virtio_local local;
	uint64_t reported_bytes; /* given back by free page reporting, in all */
};

int virtio_balloon_add(struct virtio_balloon *balloon, struct pci_bus *bus, struct ram *ram, struct events *events,
		       struct err *err) __attribute__((warn_unused_result));
/* Asks the guest for so much memory; it gives what it can, when it can. */
void virtio_balloon_set(struct virtio_balloon *balloon, uint64_t bytes);
/* What the guest has given. */
uint64_t virtio_balloon_bytes(const struct virtio_balloon *balloon);

#endif
