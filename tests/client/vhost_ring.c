/* Split rings as a guest's driver works them: build a chain, publish it, kick, take completions.
 *
 * How: each descriptor of the ring has a slot in guest memory with a request header, a status byte and an indirect
 * table; a request uses the slot of its head descriptor. Free descriptors are listed outside guest memory.
 *
 * Barriers: avail->idx is stored sequentially consistent after the chain and the ring entry (pairs with the server's
 * acquire of it), and the server's event index or flags are loaded the same way after it: pairs with the server's fence
 * between asking for kicks and looking at avail->idx once more. The wish for calls is stored, and used->idx loaded,
 * sequentially consistent for the same reason the other way round. (Fences would say it too, but ThreadSanitizer does
 * not know them.)
 *
 * Always: a head is busy from vc_submit until the one completion that vc_reap accepts for it. A completion of a head
 * that is not busy, or more completions than requests published, is -EPROTO: "done twice" is always found. */
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "tests/client/vhost_client.h"

#define SLOT_STATUS_OFF_BYTES 16
#define SLOT_TABLE_OFF_BYTES 64
#define SLOT_BYTES (SLOT_TABLE_OFF_BYTES + (VC_SEGS_MAX + 2) * sizeof(struct vring_desc))
#define POLLS_PER_LOOK 4096

/* How many completions may pass before the event index of a polled ring is pushed away again. */
#define EVENT_PUSH_AFTER 4096

uint64_t vc_slot_header_gpa(const struct vc_ring *ring, uint16_t head)
{
	return ring->slots_gpa + head * SLOT_BYTES;
}

uint64_t vc_slot_status_gpa(const struct vc_ring *ring, uint16_t head)
{
	return vc_slot_header_gpa(ring, head) + SLOT_STATUS_OFF_BYTES;
}

uint64_t vc_slot_table_gpa(const struct vc_ring *ring, uint16_t head)
{
	return vc_slot_header_gpa(ring, head) + SLOT_TABLE_OFF_BYTES;
}

/* Slots lie in region 0, where vc_alloc takes from. */
static void *slot_at(struct vc *vc, uint64_t gpa)
{
	return vc->region[0].map + (gpa - vc->region[0].gpa);
}

struct virtio_blk_outhdr *vc_slot_header(struct vc *vc, const struct vc_ring *ring, uint16_t head)
{
	return slot_at(vc, vc_slot_header_gpa(ring, head));
}

uint8_t *vc_slot_status(struct vc *vc, const struct vc_ring *ring, uint16_t head)
{
	return slot_at(vc, vc_slot_status_gpa(ring, head));
}

struct vring_desc *vc_slot_table(struct vc *vc, const struct vc_ring *ring, uint16_t head)
{
	return slot_at(vc, vc_slot_table_gpa(ring, head));
}

void vc_ring_create(struct vc *vc, unsigned index, uint16_t size)
{
	struct vc_ring *ring = &vc->ring[index];
	uint64_t desc_bytes = size * sizeof(struct vring_desc);
	uint64_t avail_bytes = sizeof(struct vring_avail) + (size + 1) * sizeof(uint16_t);
	uint64_t used_bytes = sizeof(struct vring_used) + size * sizeof(struct vring_used_elem) + sizeof(uint16_t);

	*ring = (struct vc_ring){ .index = index, .size = size, .kick_fd = -1, .call_fd = -1, .err_fd = -1 };
	ring->desc_gpa = vc_alloc(vc, desc_bytes);
	ring->avail_gpa = vc_alloc(vc, avail_bytes);
	ring->used_gpa = vc_alloc(vc, used_bytes);
	ring->slots_gpa = vc_alloc(vc, size * SLOT_BYTES);
	ring->desc = vc_ptr(vc, ring->desc_gpa, desc_bytes);
	ring->avail = vc_ptr(vc, ring->avail_gpa, avail_bytes);
	ring->used = vc_ptr(vc, ring->used_gpa, used_bytes);
	ring->slot = calloc(size, sizeof(*ring->slot));
	ring->free_next = calloc(size, sizeof(*ring->free_next));
	if (ring->slot == NULL || ring->free_next == NULL)
		abort();
	vc_ring_reset(ring);
}

void vc_ring_reset(struct vc_ring *ring)
{
	for (unsigned i = 0; i < ring->size; i++)
		ring->free_next[i] = (uint16_t)(i + 1);
	ring->free_head = 0;
	ring->free_count = ring->size;
	ring->avail_next = 0;
	ring->kicked = 0;
	ring->used_seen = 0;
	ring->event_set = 0;
	ring->base = 0;
	ring->running = false;
	memset(ring->slot, 0, ring->size * sizeof(*ring->slot));
	memset(ring->desc, 0, ring->size * sizeof(struct vring_desc));
	memset(ring->avail, 0, sizeof(struct vring_avail) + (ring->size + 1u) * sizeof(uint16_t));
	memset(ring->used, 0, sizeof(struct vring_used) + ring->size * sizeof(struct vring_used_elem) + 2);
}

static void close_fd(int *fd)
{
	if (*fd >= 0)
		close(*fd);
	*fd = -1;
}

void vc_ring_free(struct vc_ring *ring)
{
	close_fd(&ring->kick_fd);
	close_fd(&ring->call_fd);
	close_fd(&ring->err_fd);
	free(ring->slot);
	free(ring->free_next);
	ring->slot = NULL;
	ring->free_next = NULL;
}

static uint16_t *used_event(struct vc_ring *ring)
{
	return &ring->avail->ring[ring->size];
}

static uint16_t avail_event(const struct vc_ring *ring)
{
	return __atomic_load_n((uint16_t *)&ring->used->ring[ring->size], __ATOMIC_SEQ_CST);
}

/* ---- submitting ---- */

static uint16_t take_desc(struct vc_ring *ring)
{
	uint16_t index = ring->free_head;
	ring->free_head = ring->free_next[index];
	ring->free_count--;
	return index;
}

static bool device_writes(uint32_t type)
{
	return type == VIRTIO_BLK_T_IN || type == VIRTIO_BLK_T_GET_ID;
}

/* Part number `part` of a request of `parts`: header, data pieces, status. Flags and address, without the link. */
static struct vring_desc part_of(const struct vc_ring *ring, const struct vc_request *request, uint16_t head,
				 unsigned part)
{
	if (part == 0)
		return (struct vring_desc){ .addr = vc_slot_header_gpa(ring, head),
					    .len = sizeof(struct virtio_blk_outhdr) };
	if (part == request->segs + 1)
		return (struct vring_desc){ .addr = vc_slot_status_gpa(ring, head),
					    .len = 1,
					    .flags = VRING_DESC_F_WRITE };
	const struct vc_seg *seg = &request->seg[part - 1];
	return (struct vring_desc){ .addr = seg->gpa,
				    .len = seg->len_bytes,
				    .flags = device_writes(request->type) ? VRING_DESC_F_WRITE : 0 };
}

static void build_indirect(struct vc *vc, struct vc_ring *ring, const struct vc_request *request, uint16_t head)
{
	unsigned parts = request->segs + 2;
	struct vring_desc *table = vc_slot_table(vc, ring, head);
	for (unsigned part = 0; part < parts; part++) {
		table[part] = part_of(ring, request, head, part);
		if (part + 1 < parts) {
			table[part].flags |= VRING_DESC_F_NEXT;
			table[part].next = (uint16_t)(part + 1);
		}
	}
	ring->desc[head] = (struct vring_desc){ .addr = vc_slot_table_gpa(ring, head),
						.len = parts * (uint32_t)sizeof(struct vring_desc),
						.flags = VRING_DESC_F_INDIRECT };
}

static void build_direct(struct vc_ring *ring, const struct vc_request *request, uint16_t head)
{
	unsigned parts = request->segs + 2;
	uint16_t index = head;
	for (unsigned part = 0; part < parts; part++) {
		struct vring_desc desc = part_of(ring, request, head, part);
		uint16_t next = 0;
		if (part + 1 < parts) {
			next = take_desc(ring);
			desc.flags |= VRING_DESC_F_NEXT;
			desc.next = next;
		}
		ring->desc[index] = desc;
		index = next;
	}
}

int vc_submit(struct vc *vc, unsigned queue, const struct vc_request *request)
{
	struct vc_ring *ring = &vc->ring[queue];
	bool indirect = vc_has(vc, VIRTIO_RING_F_INDIRECT_DESC) && !vc->options.direct && !request->direct;
	unsigned descs = indirect ? 1 : request->segs + 2;

	if (request->segs > VC_SEGS_MAX)
		return -EINVAL;
	if (ring->free_count < descs)
		return -EAGAIN;
	uint16_t head = take_desc(ring);
	*vc_slot_header(vc, ring, head) =
		(struct virtio_blk_outhdr){ .type = request->type, .sector = request->sector };
	*vc_slot_status(vc, ring, head) = VC_STATUS_UNWRITTEN;
	if (indirect)
		build_indirect(vc, ring, request, head);
	else
		build_direct(ring, request, head);
	ring->slot[head] = (struct vc_slot){ .busy = true, .descs = (uint16_t)descs, .cookie = request->cookie };
	ring->avail->ring[ring->avail_next % ring->size] = head;
	ring->avail_next++;
	return head;
}

void vc_publish(struct vc_ring *ring)
{
	__atomic_store_n(&ring->avail->idx, ring->avail_next, __ATOMIC_SEQ_CST);
}

void vc_notify(struct vc_ring *ring)
{
	uint64_t one = 1;
	if (write(ring->kick_fd, &one, sizeof(one)) < 0 && errno != EAGAIN)
		perror("kick");
}

void vc_kick(struct vc *vc, unsigned queue)
{
	struct vc_ring *ring = &vc->ring[queue];
	uint16_t before = ring->kicked;
	bool wanted;

	vc_publish(ring);
	if (vc_has(vc, VIRTIO_RING_F_EVENT_IDX))
		wanted = vring_need_event(avail_event(ring), ring->avail_next, before);
	else
		wanted = (__atomic_load_n(&ring->used->flags, __ATOMIC_SEQ_CST) & VRING_USED_F_NO_NOTIFY) == 0;
	ring->kicked = ring->avail_next;
	if (wanted)
		vc_notify(ring);
}

/* ---- completions ---- */

/* A polled ring wants no calls: its flag says so, and its event index stays just behind what was seen. */
static void push_event_away(struct vc_ring *ring)
{
	ring->event_set = ring->used_seen;
	__atomic_store_n(used_event(ring), (uint16_t)(ring->used_seen - 1), __ATOMIC_RELAXED);
	__atomic_store_n(&ring->avail->flags, VRING_AVAIL_F_NO_INTERRUPT, __ATOMIC_RELAXED);
}

void vc_want_call(struct vc *vc, unsigned queue, uint16_t ahead)
{
	struct vc_ring *ring = &vc->ring[queue];
	(void)vc;
	__atomic_store_n(used_event(ring), (uint16_t)(ring->used_seen + ahead), __ATOMIC_SEQ_CST);
	__atomic_store_n(&ring->avail->flags, 0, __ATOMIC_SEQ_CST);
}

uint64_t vc_calls(struct vc_ring *ring, int wait_ms)
{
	uint64_t count = 0;
	struct pollfd poll_fd = { .fd = ring->call_fd, .events = POLLIN };
	if (poll(&poll_fd, 1, wait_ms) <= 0)
		return 0;
	if (read(ring->call_fd, &count, sizeof(count)) != sizeof(count))
		return 0;
	return count;
}

static void release_head(struct vc_ring *ring, uint16_t head)
{
	struct vc_slot *slot = &ring->slot[head];
	uint16_t index = head;
	for (unsigned i = 1; i < slot->descs; i++) {
		ring->free_next[index] = ring->desc[index].next;
		index = ring->desc[index].next;
	}
	ring->free_next[index] = ring->free_head;
	ring->free_head = head;
	ring->free_count = (uint16_t)(ring->free_count + slot->descs);
	slot->busy = false;
}

static int completed_wrongly(struct vc *vc, const struct vc_ring *ring, const char *what, uint32_t id)
{
	snprintf(vc->error, sizeof(vc->error), "queue %u: %s (id %u, used index %u, seen %u, submitted %u)",
		 ring->index, what, id, vc_used_idx(ring), ring->used_seen, ring->avail_next);
	return -EPROTO;
}

int vc_reap(struct vc *vc, unsigned queue, struct vc_done *done)
{
	struct vc_ring *ring = &vc->ring[queue];
	uint16_t used_idx = vc_used_idx(ring);

	if (used_idx == ring->used_seen)
		return 0;
	struct vring_used_elem elem = ring->used->ring[ring->used_seen % ring->size];
	if ((uint16_t)(used_idx - ring->used_seen) > (uint16_t)(ring->avail_next - ring->used_seen))
		return completed_wrongly(vc, ring, "more completions than requests", elem.id);
	if (elem.id >= ring->size || !ring->slot[elem.id].busy)
		return completed_wrongly(vc, ring, "completed a request that is not in flight", elem.id);
	uint16_t head = (uint16_t)elem.id;
	*done = (struct vc_done){ .head = head, .len_bytes = elem.len, .cookie = ring->slot[head].cookie };
	done->status = *vc_slot_status(vc, ring, head);
	release_head(ring, head);
	ring->used_seen++;
	if (!vc->options.interrupts && (uint16_t)(ring->used_seen - ring->event_set) > EVENT_PUSH_AFTER)
		push_event_away(ring);
	return 1;
}

int vc_wait(struct vc *vc, unsigned queue, struct vc_done *done, int wait_ms)
{
	uint64_t deadline_ns = vu_now_ns() + (uint64_t)wait_ms * 1000000u;
	for (unsigned polls = 1;; polls++) {
		int rc = vc_reap(vc, queue, done);
		if (rc != 0)
			return rc < 0 ? rc : 0;
		__builtin_ia32_pause();
		if (polls % POLLS_PER_LOOK != 0)
			continue;
		if (vu_is_closed(vc->sock))
			return -EPIPE;
		if (vu_now_ns() > deadline_ns)
			return -ETIMEDOUT;
	}
}

/* ---- whole requests ---- */

int vc_do(struct vc *vc, unsigned queue, const struct vc_request *request)
{
	struct vc_done done;
	int head = vc_submit(vc, queue, request);
	if (head < 0)
		return head;
	vc_kick(vc, queue);
	int rc = vc_wait(vc, queue, &done, vc->options.reply_wait_ms);
	if (rc < 0)
		return rc;
	return done.head == head ? done.status : -EPROTO;
}

int vc_io(struct vc *vc, unsigned queue, uint32_t type, uint64_t sector, uint64_t gpa, uint32_t len_bytes)
{
	struct vc_seg seg = { .gpa = gpa, .len_bytes = len_bytes };
	return vc_do(vc, queue, &(struct vc_request){ .type = type, .sector = sector, .seg = &seg, .segs = 1 });
}

int vc_flush(struct vc *vc, unsigned queue)
{
	return vc_do(vc, queue, &(struct vc_request){ .type = VIRTIO_BLK_T_FLUSH });
}

int vc_ranges(struct vc *vc, unsigned queue, uint32_t type, const struct virtio_blk_discard_write_zeroes *range,
	      unsigned ranges)
{
	uint32_t size_bytes = ranges * (uint32_t)sizeof(*range);
	uint64_t gpa = vc_alloc_in(vc, 0, size_bytes, 16);
	memcpy(vc_ptr(vc, gpa, size_bytes), range, size_bytes);
	return vc_io(vc, queue, type, 0, gpa, size_bytes);
}
