/* Rings served in this process. See virtio_local.h. */
#include "vmm-glue/virtio_local.h"

#include <errno.h>
#include <string.h>

#include "pool/base/list.h"
#include "vmm-glue/say.h"

static struct virtio_local *local_of(struct virtio_dev *dev)
{
	return container_of(dev, struct virtio_local, dev);
}

static void on_kick(struct event *event, uint32_t epoll_events)
{
	struct local_ring *ring = container_of(event, struct local_ring, kick);

	(void)events_take(event->fd);
	ring->local->serve(ring->local, (uint32_t)(ring - ring->local->ring));
}

int virtio_local_add(struct virtio_local *local, struct pci_bus *bus, struct ram *ram, struct events *events,
		     uint32_t queues, struct err *err)
{
	int rc;

	local->events = events;
	local->dev.ram = ram;
	for (uint32_t i = 0; i < queues; i++)
		local->ring[i] = (struct local_ring){ .local = local, .kick = { -1, on_kick } };
	rc = virtio_pci_add(bus, &local->dev, queues, LOCAL_RING_SIZE, err);
	for (uint32_t i = 0; rc == 0 && i < queues; i++)
		local->ring[i].kick.fd = local->dev.queue[i].kick_fd;
	return rc;
}

void virtio_local_release(struct virtio_local *local)
{
	virtio_pci_release(&local->dev);
}

static int open_ring(struct virtio_local *local, uint32_t index)
{
	const struct virtio_queue *queue = &local->dev.queue[index];
	struct local_ring *ring = &local->ring[index];
	struct ram *ram = local->dev.ram;

	ring->size = queue->size;
	ring->next = queue->next;
	ring->desc = ram_at(ram, queue->desc_gpa, sizeof(*ring->desc) * queue->size);
	ring->avail = ram_at(ram, queue->avail_gpa, sizeof(*ring->avail) + 2ull * queue->size);
	ring->used = ram_at(ram, queue->used_gpa, sizeof(*ring->used) + sizeof(ring->used->ring[0]) * queue->size);
	if (!ring->desc || !ring->avail || !ring->used)
		return -EFAULT;
	ring->used_idx = ring->used->idx;
	return events_add(local->events, &ring->kick, EPOLLIN);
}

static void break_device(struct virtio_local *local, const char *why)
{
	vmm_say("%s: %s: the guest has to reset it", local->dev.ops->name, why);
	virtio_needs_reset(&local->dev);
}

void virtio_local_start(struct virtio_dev *dev)
{
	struct virtio_local *local = local_of(dev);

	for (uint32_t i = 0; i < dev->queues; i++) {
		if (dev->queue[i].enabled && open_ring(local, i) < 0) {
			break_device(local, "a ring is not in memory");
			return;
		}
	}
	for (uint32_t i = 0; dev->running && i < dev->queues; i++)
		if (dev->queue[i].enabled)
			local->serve(local, i);
}

void virtio_local_stop(struct virtio_dev *dev)
{
	struct virtio_local *local = local_of(dev);

	for (uint32_t i = 0; i < dev->queues; i++) {
		events_remove(local->events, &local->ring[i].kick);
		if (dev->queue[i].enabled)
			dev->queue[i].next = local->ring[i].next;
	}
}

/* Adds one descriptor to the chain: 0, or why not. */
static const char *add_seg(struct virtio_local *local, struct local_chain *chain, const struct vring_desc *desc)
{
	void *at = ram_at(local->dev.ram, desc->addr, desc->len);

	if (chain->segs == LOCAL_SEGS_MAX)
		return "a chain is too long";
	if (!at)
		return "a buffer is not in memory";
	if (desc->flags & VRING_DESC_F_INDIRECT)
		return "an indirect table, which was not offered";
	if (desc->flags & VRING_DESC_F_WRITE)
		ram_written(local->dev.ram, desc->addr, desc->len);
	else if (chain->reads++ != chain->segs)
		return "a buffer to read behind one to write";
	chain->gpa[chain->segs] = desc->addr;
	chain->seg[chain->segs++] = (struct iovec){ at, desc->len };
	return NULL;
}

static const char *collect(struct virtio_local *local, struct local_ring *ring, struct local_chain *chain)
{
	uint16_t index = chain->head;
	struct vring_desc desc;

	chain->reads = chain->segs = 0;
	do {
		const char *wrong;

		if (index >= ring->size)
			return "a descriptor that the ring does not have";
		memcpy(&desc, &ring->desc[index], sizeof(desc));
		wrong = add_seg(local, chain, &desc);
		if (wrong)
			return wrong;
		index = desc.next;
	} while (desc.flags & VRING_DESC_F_NEXT);
	return NULL;
}

bool local_pop(struct virtio_local *local, uint32_t index, struct local_chain *chain)
{
	struct local_ring *ring = &local->ring[index];
	/* Pairs with the driver's barrier between entry and index. */
	uint16_t avail_idx = local->dev.running ? __atomic_load_n(&ring->avail->idx, __ATOMIC_ACQUIRE) : ring->next;
	const char *wrong;

	if (avail_idx == ring->next)
		return false;
	chain->head = ring->avail->ring[ring->next++ % ring->size];
	wrong = collect(local, ring, chain);
	if (wrong)
		break_device(local, wrong);
	return !wrong;
}

void local_unpop(struct virtio_local *local, uint32_t index)
{
	local->ring[index].next--;
}

void local_push(struct virtio_local *local, uint32_t index, const struct local_chain *chain, uint32_t written)
{
	struct local_ring *ring = &local->ring[index];
	const struct virtio_queue *queue = &local->dev.queue[index];

	ring->used->ring[ring->used_idx % ring->size] = (struct vring_used_elem){ chain->head, written };
	/* Pairs with the driver's barrier between index and entry. */
	__atomic_store_n(&ring->used->idx, ++ring->used_idx, __ATOMIC_RELEASE);
	ram_written(local->dev.ram, queue->used_gpa, sizeof(*ring->used) + sizeof(ring->used->ring[0]) * ring->size);
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
	if (!(ring->avail->flags & VRING_AVAIL_F_NO_INTERRUPT))
		events_signal(virtio_call_fd(&local->dev, queue));
}
