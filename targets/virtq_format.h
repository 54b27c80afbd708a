/* The split virtqueue as it stands in guest memory (virtio 1.2, section 2.7). Constants: linux/virtio_ring.h.
 *
 *     descriptor table    16 bytes for each entry, aligned to 16
 *         0  le64  addr           guest-physical address of the buffer
 *         8  le32  len            its length in bytes
 *        12  le16  flags          VRING_DESC_F_NEXT 1, _WRITE 2 (device writes), _INDIRECT 4
 *        14  le16  next           index of the chain's next descriptor, if NEXT
 *     available ring      driver writes; aligned to 2; 6 + 2 * size bytes
 *         0  le16  flags          VRING_AVAIL_F_NO_INTERRUPT 1
 *         2  le16  idx            where the driver puts the next entry, modulo 2^16
 *         4  le16  ring[size]     heads of chains
 *            le16  used_event     with EVENT_IDX
 *     used ring           device writes; aligned to 4; 6 + 8 * size bytes
 *         0  le16  flags          VRING_USED_F_NO_NOTIFY 1
 *         2  le16  idx            where the device puts the next entry, modulo 2^16
 *         4        ring[size]     le32 head, le32 bytes written
 *            le16  avail_event    with EVENT_IDX
 *
 * A chain is valid if and only if: every index is below the ring's size (or the indirect table's entries); it has at most
 * `size` descriptors outside tables and VIRTQ_DESCS_MAX in all; an indirect descriptor is its last one outside the
 * table, its length is a multiple of 16 and at least 16, and the table names no other; what the device writes comes
 * after all it reads, and is at least a byte; every byte is guest memory, below 4 GiB of them; and its head is not
 * already with the device. Buffers of length 0 are skipped. */
#ifndef TARGETS_VIRTQ_FORMAT_H
#define TARGETS_VIRTQ_FORMAT_H

#include <assert.h>
#include <stddef.h>

#include "pool/base/le.h"

/* What we take from a ring, at most; QEMU's rings have at most 1024 entries. */
#define VIRTQ_SIZE_MAX 1024u
#define VIRTQ_DESCS_MAX 1024u

struct vq_desc {
	le64 addr;
	le32 len;
	le16 flags;
	le16 next;
};
static_assert(sizeof(struct vq_desc) == 16 && offsetof(struct vq_desc, next) == 14, "descriptor");

struct vq_used_elem {
	le32 id;
	le32 len;
};
static_assert(sizeof(struct vq_used_elem) == 8, "used entry");

/* Places in the two rings, in 16-bit words. */
#define VQ_FLAGS_WORD 0
#define VQ_IDX_WORD 1
#define VQ_RING_WORD 2
#define VQ_RING_OFF_BYTES 4

#define VQ_DESC_ALIGN 16u
#define VQ_AVAIL_ALIGN 2u
#define VQ_USED_ALIGN 4u

static inline size_t vq_desc_bytes(uint16_t size) { return sizeof(struct vq_desc) * size; }
static inline size_t vq_avail_bytes(uint16_t size) { return 6 + sizeof(le16) * (size_t)size; }
static inline size_t vq_used_bytes(uint16_t size) { return 6 + sizeof(struct vq_used_elem) * (size_t)size; }

#endif
