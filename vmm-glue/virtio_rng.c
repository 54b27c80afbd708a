/* Randomness. See virtio_rng.h. */
#include "vmm-glue/virtio_rng.h"

#include <linux/virtio_ids.h>
#include <sys/random.h>

/* Of one request; a driver asks again for more. */
#define BYTES_MAX 4096u

static void serve(struct virtio_local *local, uint32_t index)
{
	struct local_chain chain;

	while (local_pop(local, index, &chain)) {
		uint32_t written = 0;

		if (chain.segs > chain.reads) {
			const struct iovec *seg = &chain.seg[chain.reads];
			ssize_t got = getrandom(seg->iov_base, seg->iov_len < BYTES_MAX ? seg->iov_len : BYTES_MAX, 0);

			written = got > 0 ? (uint32_t)got : 0;
		}
		local_push(local, index, &chain, written);
	}
}

static const struct virtio_ops ops = {
	.name = "random number generator",
	.id = VIRTIO_ID_RNG,
	.class_code = 0xff0000,
	.start = virtio_local_start,
	.stop = virtio_local_stop,
};

int virtio_rng_add(struct virtio_rng *rng, struct pci_bus *bus, struct ram *ram, struct events *events, struct err *err)
{
	rng->local.dev.ops = &ops;
	rng->local.serve = serve;
	return virtio_local_add(&rng->local, bus, ram, events, 1, err);
}
