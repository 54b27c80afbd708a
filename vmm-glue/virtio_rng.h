/* virtio-rng: the host's randomness for the guest. VM's lock. */
#ifndef VMM_VIRTIO_RNG_H
#define VMM_VIRTIO_RNG_H

#include "vmm-glue/virtio_local.h"

struct virtio_rng {
	struct virtio_local local;
};

int virtio_rng_add(struct virtio_rng *rng, struct pci_bus *bus, struct ram *ram, struct events *events, struct err *err)
	__attribute__((warn_unused_result));

#endif
