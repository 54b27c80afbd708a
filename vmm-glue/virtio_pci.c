/* The virtio transport. See virtio_pci.h.
 *
 * BAR 0:  0x0000 common configuration   0x1000 ISR (never set: there are no line interrupts)
 *         0x2000 device configuration   0x3000 doorbells, 4 bytes a queue      0x8000 MSI-X (pci.c)
 *
 * Always: rings run (dev->running) only if the driver said DRIVER_OK, the device needs no reset and nobody paused it; what
 * the driver says of a ring while it is enabled is not heard. */
#include "vmm-glue/virtio_pci.h"

#include <errno.h>
#include <linux/virtio_config.h>
#include <linux/virtio_pci.h>
#include <stddef.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "pool/base/list.h"
#include "vmm-glue/events.h"

#define VENDOR_VIRTIO 0x1af4
#define DEVICE_BASE 0x1040

#define COMMON_OFF 0x0000u
#define ISR_OFF 0x1000u
#define DEVICE_OFF 0x2000u
#define NOTIFY_OFF 0x3000u
#define NOTIFY_STRIDE 4u
#define CONFIG_SOURCE 0 /* interrupt source of configuration changes; queue q has 1 + q */

static struct virtio_dev *virtio_of(struct pci_dev *pci)
{
	return container_of(pci, struct virtio_dev, pci);
}

/* ---- starting and stopping ---- */

static void run(struct virtio_dev *dev, bool on)
{
	if (dev->running == on)
		return;
	dev->running = on;
	if (on)
		dev->ops->start(dev);
	else
		dev->ops->stop(dev);
}

static bool may_run(const struct virtio_dev *dev)
{
	return (dev->status & VIRTIO_CONFIG_S_DRIVER_OK) && !(dev->status & VIRTIO_CONFIG_S_NEEDS_RESET) &&
	       !dev->paused && !dev->held;
}

static void reset_queue(struct virtio_queue *queue)
{
	queue->size = queue->size_max;
	queue->enabled = false;
	queue->desc_gpa = queue->avail_gpa = queue->used_gpa = 0;
	queue->next = 0;
	(void)events_take(queue->kick_fd);
}

static void reset_device(struct virtio_dev *dev)
{
	run(dev, false);
	dev->status = 0;
	dev->features = 0;
	dev->feature_select = dev->driver_select = 0;
	dev->queue_select = 0;
	for (uint32_t i = 0; i < dev->queues; i++)
		reset_queue(&dev->queue[i]);
	if (dev->ops->reset)
		dev->ops->reset(dev);
	for (uint32_t i = 0; i < dev->pci.sources; i++) {
		pci_set_vector(&dev->pci, i, PCI_NO_VECTOR);
		(void)events_take(dev->pci.source[i].fd);
	}
}

void virtio_pci_reset(struct virtio_dev *dev)
{
	reset_device(dev);
	pci_reset(&dev->pci);
}

void virtio_pci_pause(struct virtio_dev *dev)
{
	dev->paused = true;
	run(dev, false);
}

void virtio_pci_resume(struct virtio_dev *dev)
{
	dev->paused = false;
	run(dev, may_run(dev));
}

void virtio_pci_hold(struct virtio_dev *dev, bool hold)
{
	dev->held = hold;
	run(dev, may_run(dev));
}

void virtio_config_changed(struct virtio_dev *dev)
{
	dev->generation++;
	events_signal(dev->pci.source[CONFIG_SOURCE].fd);
}

void virtio_needs_reset(struct virtio_dev *dev)
{
	dev->status |= VIRTIO_CONFIG_S_NEEDS_RESET;
	run(dev, false);
	virtio_config_changed(dev);
}

/* The driver's word; a device that refuses the features leaves FEATURES_OK clear. */
static void set_status(struct virtio_dev *dev, uint8_t status)
{
	bool features_ok = !(dev->features & ~dev->features_offered) && virtio_has(dev, VIRTIO_F_VERSION_1);

	if (status == 0) {
		reset_device(dev);
		return;
	}
	if (!(dev->status & VIRTIO_CONFIG_S_FEATURES_OK) && !features_ok)
		status &= (uint8_t)~VIRTIO_CONFIG_S_FEATURES_OK;
	dev->status = status | (dev->status & VIRTIO_CONFIG_S_NEEDS_RESET);
	run(dev, may_run(dev));
}

/* ---- common configuration ---- */

static struct virtio_queue *selected(struct virtio_dev *dev)
{
	return dev->queue_select < dev->queues ? &dev->queue[dev->queue_select] : NULL;
}

static uint32_t half(uint64_t value, uint32_t select)
{
	return select < 2 ? (uint32_t)(value >> (32 * select)) : 0;
}

static uint64_t with_half(uint64_t value, uint32_t select, uint32_t word)
{
	return (value & ~(0xffffffffull << (32 * select))) | (uint64_t)word << (32 * select);
}

static void fill_common(struct virtio_dev *dev, struct virtio_pci_common_cfg *c)
{
	const struct virtio_queue *queue = selected(dev);

	*c = (struct virtio_pci_common_cfg){
		.device_feature_select = dev->feature_select,
		.device_feature = half(dev->features_offered, dev->feature_select),
		.guest_feature_select = dev->driver_select,
		.guest_feature = half(dev->features, dev->driver_select),
		.msix_config = dev->pci.source[CONFIG_SOURCE].vector,
		.num_queues = (uint16_t)dev->queues,
		.device_status = dev->status,
		.config_generation = dev->generation,
		.queue_select = dev->queue_select,
	};
	if (!queue)
		return;
	c->queue_size = queue->size;
	c->queue_msix_vector = dev->pci.source[queue->source].vector;
	c->queue_enable = queue->enabled;
	c->queue_notify_off = dev->queue_select;
	c->queue_desc_lo = (uint32_t)queue->desc_gpa;
	c->queue_desc_hi = (uint32_t)(queue->desc_gpa >> 32);
	c->queue_avail_lo = (uint32_t)queue->avail_gpa;
	c->queue_avail_hi = (uint32_t)(queue->avail_gpa >> 32);
	c->queue_used_lo = (uint32_t)queue->used_gpa;
	c->queue_used_hi = (uint32_t)(queue->used_gpa >> 32);
}

static void set_vector(struct virtio_dev *dev, uint32_t source, uint32_t vector)
{
	pci_set_vector(&dev->pci, source, vector < dev->pci.vectors ? (uint16_t)vector : PCI_NO_VECTOR);
}

static void set_queue_size(struct virtio_queue *queue, uint32_t size)
{
	if (size > 0 && size <= queue->size_max && (size & (size - 1)) == 0)
		queue->size = (uint16_t)size;
}

#define COMMON(field) offsetof(struct virtio_pci_common_cfg, field)

/* What the driver says of the selected queue. */
static void write_queue(struct virtio_dev *dev, struct virtio_queue *queue, uint32_t off_bytes, uint32_t value)
{
	if (off_bytes == COMMON(queue_msix_vector))
		set_vector(dev, queue->source, value);
	if (queue->enabled)
		return;
	switch (off_bytes) {
	case COMMON(queue_size): set_queue_size(queue, value); break;
	case COMMON(queue_enable): queue->enabled = value == 1; break;
	case COMMON(queue_desc_lo): queue->desc_gpa = with_half(queue->desc_gpa, 0, value); break;
	case COMMON(queue_desc_hi): queue->desc_gpa = with_half(queue->desc_gpa, 1, value); break;
	case COMMON(queue_avail_lo): queue->avail_gpa = with_half(queue->avail_gpa, 0, value); break;
	case COMMON(queue_avail_hi): queue->avail_gpa = with_half(queue->avail_gpa, 1, value); break;
	case COMMON(queue_used_lo): queue->used_gpa = with_half(queue->used_gpa, 0, value); break;
	case COMMON(queue_used_hi): queue->used_gpa = with_half(queue->used_gpa, 1, value); break;
	}
}

static void write_common(struct virtio_dev *dev, uint32_t off_bytes, uint32_t value)
{
	struct virtio_queue *queue = selected(dev);

	switch (off_bytes) {
	case COMMON(device_feature_select): dev->feature_select = value; break;
	case COMMON(guest_feature_select): dev->driver_select = value; break;
	case COMMON(guest_feature):
		if (dev->driver_select < 2 && !(dev->status & VIRTIO_CONFIG_S_FEATURES_OK))
			dev->features = with_half(dev->features, dev->driver_select, value);
		break;
	case COMMON(msix_config): set_vector(dev, CONFIG_SOURCE, value); break;
	case COMMON(device_status): set_status(dev, (uint8_t)value); break;
	case COMMON(queue_select): dev->queue_select = (uint16_t)value; break;
	default:
		if (queue)
			write_queue(dev, queue, off_bytes, value);
	}
}

static void common_access(struct virtio_dev *dev, uint32_t off_bytes, void *data, uint32_t len_bytes, bool write)
{
	struct virtio_pci_common_cfg common;
	uint32_t value = 0;

	if (off_bytes + len_bytes > sizeof(common))
		return;
	if (write && len_bytes == 8) {
		common_access(dev, off_bytes, data, 4, true);
		common_access(dev, off_bytes + 4, (uint8_t *)data + 4, 4, true);
	} else if (write) {
		memcpy(&value, data, len_bytes);
		write_common(dev, off_bytes, value);
	} else {
		fill_common(dev, &common);
		memcpy(data, (uint8_t *)&common + off_bytes, len_bytes);
	}
}

/* ---- BAR 0 ---- */

static void device_access(struct virtio_dev *dev, uint32_t off_bytes, void *data, uint32_t len_bytes, bool write)
{
	if (off_bytes + len_bytes > dev->config_bytes)
		return;
	if (!write)
		memcpy(data, dev->config + off_bytes, len_bytes);
	else if (dev->ops->config_write)
		dev->ops->config_write(dev, off_bytes, data, len_bytes);
}

static void access_bar(struct pci_dev *pci, uint32_t off_bytes, void *data, uint32_t len_bytes, bool write)
{
	struct virtio_dev *dev = virtio_of(pci);

	if (off_bytes < ISR_OFF) {
		common_access(dev, off_bytes - COMMON_OFF, data, len_bytes, write);
	} else if (off_bytes < DEVICE_OFF) {
		if (!write)
			memset(data, 0, len_bytes);
	} else if (off_bytes < NOTIFY_OFF) {
		device_access(dev, off_bytes - DEVICE_OFF, data, len_bytes, write);
	} else if (write && (off_bytes - NOTIFY_OFF) / NOTIFY_STRIDE < dev->queues) {
		/* A doorbell that KVM did not take: of another width. */
		events_signal(dev->queue[(off_bytes - NOTIFY_OFF) / NOTIFY_STRIDE].kick_fd);
	}
}

static void mapped(struct pci_dev *pci, bool on)
{
	struct virtio_dev *dev = virtio_of(pci);

	/* Where KVM takes no doorbell, access_bar does. */
	for (uint32_t i = 0; i < dev->queues; i++)
		(void)kvm_bind_doorbell(pci->bus->kvm, dev->queue[i].kick_fd,
					pci->bar_gpa + NOTIFY_OFF + i * NOTIFY_STRIDE, on);
}

static const struct pci_ops pci_ops = { .access = access_bar, .mapped = mapped };

static void add_cap(struct virtio_dev *dev, uint8_t type, uint32_t off_bytes, uint32_t len_bytes)
{
	struct virtio_pci_notify_cap cap = {
		.cap = { .cfg_type = type, .offset = off_bytes, .length = len_bytes },
		.notify_off_multiplier = NOTIFY_STRIDE,
	};
	uint32_t cap_bytes = type == VIRTIO_PCI_CAP_NOTIFY_CFG ? sizeof(cap) : sizeof(cap.cap);

	cap.cap.cap_len = (uint8_t)cap_bytes;
	pci_add_cap(&dev->pci, 0x09, &cap, cap_bytes);
}

/* ---- life ---- */

static int create_queue(struct virtio_dev *dev, uint16_t size_max)
{
	struct virtio_queue *queue = &dev->queue[dev->queues];
	int source = pci_add_source(&dev->pci);

	if (source < 0)
		return source;
	*queue = (struct virtio_queue){ .size = size_max, .size_max = size_max, .source = (uint32_t)source };
	queue->kick_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (queue->kick_fd < 0)
		return -errno;
	dev->queues++;
	return 0;
}

int virtio_pci_add(struct pci_bus *bus, struct virtio_dev *dev, uint32_t queues, uint16_t queue_size_max,
		   struct err *err)
{
	int rc = pci_add(bus, &dev->pci, &pci_ops, VENDOR_VIRTIO, (uint16_t)(DEVICE_BASE + dev->ops->id),
			 dev->ops->class_code, (uint16_t)(queues + 1));

	if (rc < 0)
		return err_set(err, rc, "cannot add a %s: the PCI bus is full", dev->ops->name);
	dev->features_offered |= VIRTIO_BIT(VIRTIO_F_VERSION_1);
	add_cap(dev, VIRTIO_PCI_CAP_COMMON_CFG, COMMON_OFF, 0x1000);
	add_cap(dev, VIRTIO_PCI_CAP_ISR_CFG, ISR_OFF, 0x1000);
	add_cap(dev, VIRTIO_PCI_CAP_DEVICE_CFG, DEVICE_OFF, 0x1000);
	add_cap(dev, VIRTIO_PCI_CAP_NOTIFY_CFG, NOTIFY_OFF, 0x1000);
	rc = pci_add_source(&dev->pci);
	while (rc >= 0 && dev->queues < queues)
		rc = create_queue(dev, queue_size_max);
	return rc < 0 ? err_set(err, rc, "cannot add a %s: %s", dev->ops->name, strerror(-rc)) : 0;
}

void virtio_pci_release(struct virtio_dev *dev)
{
	run(dev, false);
	pci_release(&dev->pci);
	for (uint32_t i = 0; i < dev->queues; i++)
		close(dev->queue[i].kick_fd);
	dev->queues = 0;
}

/* ---- state ---- */

void virtio_save(const struct virtio_dev *dev, struct virtio_state *state)
{
	*state = (struct virtio_state){
		.features = dev->features,
		.feature_select = dev->feature_select,
		.driver_select = dev->driver_select,
		.queue_select = dev->queue_select,
		.status = dev->status,
		.generation = dev->generation,
	};
	pci_save(&dev->pci, &state->pci);
	memcpy(state->config, dev->config, sizeof(state->config));
	for (uint32_t i = 0; i < dev->queues; i++) {
		const struct virtio_queue *queue = &dev->queue[i];

		state->queue[i].desc_gpa = queue->desc_gpa;
		state->queue[i].avail_gpa = queue->avail_gpa;
		state->queue[i].used_gpa = queue->used_gpa;
		state->queue[i].size = queue->size;
		state->queue[i].enabled = queue->enabled;
		state->queue[i].next = queue->next;
	}
}

int virtio_load(struct virtio_dev *dev, const struct virtio_state *state)
{
	if (state->features & ~dev->features_offered)
		return -EINVAL;
	for (uint32_t i = 0; i < dev->queues; i++)
		if (state->queue[i].size == 0 || state->queue[i].size > dev->queue[i].size_max)
			return -EINVAL;
	if (pci_load(&dev->pci, &state->pci) < 0)
		return -EINVAL;
	dev->features = state->features;
	dev->feature_select = state->feature_select;
	dev->driver_select = state->driver_select;
	dev->queue_select = state->queue_select;
	dev->status = state->status;
	dev->generation = state->generation;
	memcpy(dev->config, state->config, sizeof(dev->config));
	for (uint32_t i = 0; i < dev->queues; i++) {
		struct virtio_queue *queue = &dev->queue[i];

		queue->desc_gpa = state->queue[i].desc_gpa;
		queue->avail_gpa = state->queue[i].avail_gpa;
		queue->used_gpa = state->queue[i].used_gpa;
		queue->size = state->queue[i].size;
		queue->enabled = state->queue[i].enabled;
		queue->next = state->queue[i].next;
	}
	return 0;
}
