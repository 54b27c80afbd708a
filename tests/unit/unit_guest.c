/* A guest in small. See unit_guest.h. */
#include "tests/unit/unit_guest.h"

#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "tests/unit/unit.h"

/* Regions start here in their files, so that mixing up offsets is found out. */
#define FILE_OFF_BYTES 0x3000u
#define RING_BYTES 0x20000ull

static void region_init(struct unit_guest *guest, unsigned i)
{
	guest->fd[i] = memfd_create("unit-guest", MFD_CLOEXEC);
	assert_true(guest->fd[i] >= 0);
	assert_int_equal(ftruncate(guest->fd[i], FILE_OFF_BYTES + GUEST_REGION_BYTES), 0);
	guest->map[i] = mmap(NULL, GUEST_REGION_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, guest->fd[i], FILE_OFF_BYTES);
	assert_true(guest->map[i] != MAP_FAILED);
	guest->slot[i] = (struct guestmem_slot){
		.gpa = GUEST_GPA + i * GUEST_REGION_BYTES,
		.uva = GUEST_UVA + i * 0x10000000ull,
		.len_bytes = GUEST_REGION_BYTES,
		.off_bytes = FILE_OFF_BYTES,
	};
}

void unit_guest_init(struct unit_guest *guest)
{
	region_init(guest, 0);
	region_init(guest, 1);
	assert_int_equal(guestmem_create(guest->slot, guest->fd, 2, &guest->mem), 0);
}

void unit_guest_fini(struct unit_guest *guest)
{
	guestmem_put(guest->mem);
	for (unsigned i = 0; i < 2; i++) {
		munmap(guest->map[i], GUEST_REGION_BYTES);
		close(guest->fd[i]);
	}
}

void *unit_guest_ptr(struct unit_guest *guest, uint64_t gpa)
{
	uint64_t off_bytes = gpa - GUEST_GPA;

	assert_true(off_bytes < 2 * GUEST_REGION_BYTES);
	return guest->map[off_bytes / GUEST_REGION_BYTES] + off_bytes % GUEST_REGION_BYTES;
}

void unit_ring_init(struct unit_ring *ring, struct unit_guest *guest, unsigned index, uint16_t size)
{
	uint64_t off_bytes = index * RING_BYTES;
	uint8_t *at = guest->map[0] + off_bytes;

	assert_true(index < 4 && size <= 1024);
	memset(at, 0, RING_BYTES);
	*ring = (struct unit_ring){
		.guest = guest,
		.size = size,
		.desc = (struct vring_desc *)at,
		.avail = (struct vring_avail *)(at + 0x8000),
		.used = (struct vring_used *)(at + 0x10000),
		.addr = { GUEST_UVA + off_bytes, GUEST_UVA + off_bytes + 0x8000, GUEST_UVA + off_bytes + 0x10000 },
	};
}

void unit_ring_desc(struct unit_ring *ring, uint16_t i, uint64_t gpa, uint32_t len, uint16_t flags, uint16_t next)
{
	ring->desc[i] = (struct vring_desc){ .addr = gpa, .len = len, .flags = flags, .next = next };
}

void unit_ring_offer(struct unit_ring *ring, uint16_t head)
{
	uint16_t idx = ring->avail->idx;

	ring->avail->ring[idx % ring->size] = head;
	__atomic_store_n(&ring->avail->idx, (uint16_t)(idx + 1), __ATOMIC_RELEASE);
}

uint16_t *unit_ring_used_event(struct unit_ring *ring)
{
	return &ring->avail->ring[ring->size];
}

uint16_t *unit_ring_avail_event(struct unit_ring *ring)
{
	return (uint16_t *)&ring->used->ring[ring->size];
}
