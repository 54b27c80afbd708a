/* A guest in small for tests of targets/: memory in two adjacent regions, and a driver's side of a split ring. */
#ifndef TESTS_UNIT_UNIT_GUEST_H
#define TESTS_UNIT_UNIT_GUEST_H

#include <linux/virtio_ring.h>
#include <stdbool.h>
#include <stdint.h>

#include "targets/guestmem.h"
#include "targets/virtq.h"

#define GUEST_REGION_BYTES (8u << 20)
#define GUEST_GPA 0x40000000ull
#define GUEST_UVA 0x7f0000000000ull
/* Where the second region begins: a buffer there crosses. */
#define GUEST_SEAM (GUEST_GPA + GUEST_REGION_BYTES)
/* Where buffers may go; below are rings. */
#define GUEST_BUFFERS (GUEST_GPA + 0x100000)

struct unit_guest {
	int fd[2];
	uint8_t *map[2]; /* the guest's own view */
	struct guestmem_slot slot[2];
	struct guestmem *mem;
};

void unit_guest_init(struct unit_guest *guest);
void unit_guest_fini(struct unit_guest *guest);
/* The guest's view of an address; the range must not cross the seam. */
void *unit_guest_ptr(struct unit_guest *guest, uint64_t gpa);

struct unit_ring {
	struct unit_guest *guest;
	uint16_t size;
	struct vring_desc *desc;
	struct vring_avail *avail;
	struct vring_used *used;
	struct virtq_addr addr;
	uint16_t used_seen;
};

/* Ring number `index` (0 to 3) of at most 1024 entries, all zero. */
void unit_ring_init(struct unit_ring *ring, struct unit_guest *guest, unsigned index, uint16_t size);
void unit_ring_desc(struct unit_ring *ring, uint16_t i, uint64_t gpa, uint32_t len, uint16_t flags, uint16_t next);
/* Makes a head available, and with it all before. */
void unit_ring_offer(struct unit_ring *ring, uint16_t head);
uint16_t *unit_ring_used_event(struct unit_ring *ring);
uint16_t *unit_ring_avail_event(struct unit_ring *ring);

#endif
