/* A virtio device on the PCI bus (virtio 1.2, section 4.1, modern only, MSI-X only).
 *
 * The transport owns status, features and rings; a device model says what it can do and is told when its rings may run. A
 * queue's doorbell and interrupt are eventfds: the guest rings the first and is interrupted by the second without a
 * detour through here, so a back end in another process may have both. VM's lock. */
#ifndef VMM_VIRTIO_PCI_H
#define VMM_VIRTIO_PCI_H

#include <stdbool.h>
#include <stdint.h>

#include "vmm-glue/pci.h"
#include "vmm-glue/ram.h"

#define VIRTIO_QUEUES_MAX 16
#define VIRTIO_BIT(n) (1ull << (n))

struct virtio_dev;

struct virtio_ops {
	const char *name;
	uint16_t id; /* VIRTIO_ID_* */
	uint32_t class_code;
	/* Required. The driver is ready: rings may run. */
	void (*start)(struct virtio_dev *dev);
	/* Required. No ring may run any more; returns when nothing touches them. Called only after start. */
	void (*stop)(struct virtio_dev *dev);
	/* Optional. The rings' life is over; they do not run. */
	void (*reset)(struct virtio_dev *dev);
	/* Optional. The guest writes to the device's configuration; dev->config has not changed yet. */
	void (*config_write)(struct virtio_dev *dev, uint32_t off_bytes, const void *data, uint32_t len_bytes);
};

struct virtio_queue {
	uint16_t size, size_max;
	bool enabled;
	uint64_t desc_gpa, avail_gpa, used_gpa;
	uint16_t next; /* what the device takes next, while the ring is stopped */
	int kick_fd;
	uint32_t source; /* of its interrupt, in dev->pci */
};

struct virtio_dev {
	struct pci_dev pci; /* first: one is the other */
	const struct virtio_ops *ops;
	struct ram *ram;
	uint64_t features_offered, features;
	uint8_t config[256]; /* the device's configuration space */
	uint32_t config_bytes;
	uint8_t status, generation;
	bool running;      /* between start and stop */
	bool paused, held; /* by virtio_pci_pause, virtio_pci_hold */
	uint32_t feature_select, driver_select;
	uint16_t queue_select;
	struct virtio_queue queue[VIRTIO_QUEUES_MAX];
	uint32_t queues;
};

/* ops, ram, features_offered, config and config_bytes are set by the caller; VERSION_1 is added. */
int virtio_pci_add(struct pci_bus *bus, struct virtio_dev *dev, uint32_t queues, uint16_t queue_size_max,
		   struct err *err) __attribute__((warn_unused_result));
/* Stops the device if it runs, and takes it off the bus. */
void virtio_pci_release(struct virtio_dev *dev);
/* As at power on. */
void virtio_pci_reset(struct virtio_dev *dev);
/* Stops the rings and lets them go on, with the driver none the wiser: around pauses. */
void virtio_pci_pause(struct virtio_dev *dev);
void virtio_pci_resume(struct virtio_dev *dev);
/* Keeps the rings stopped while the guest runs on, whatever the driver says; or lets them go. */
void virtio_pci_hold(struct virtio_dev *dev, bool hold);

/* The eventfd that interrupts for a queue. */
static inline int virtio_call_fd(const struct virtio_dev *dev, const struct virtio_queue *queue)
{
	return dev->pci.source[queue->source].fd;
}
/* The configuration space has changed: tells the driver. */
void virtio_config_changed(struct virtio_dev *dev);
/* The device cannot go on with these rings: the driver has to reset it. */
void virtio_needs_reset(struct virtio_dev *dev);

static inline bool virtio_has(const struct virtio_dev *dev, unsigned feature)
{
	return dev->features & VIRTIO_BIT(feature);
}

struct virtio_state {
	struct pci_state pci;
	uint64_t features;
	uint8_t config[256];
	uint32_t feature_select, driver_select;
	uint16_t queue_select;
	uint8_t status, generation;
	uint32_t zero;
	struct {
		uint64_t desc_gpa, avail_gpa, used_gpa;
		uint16_t size, enabled, next, zero;
	} queue[VIRTIO_QUEUES_MAX];
};
/* Of a paused device. */
void virtio_save(const struct virtio_dev *dev, struct virtio_state *state);
/* Into a paused device that was never started. -EINVAL: this is no state of such a device. */
int virtio_load(struct virtio_dev *dev, const struct virtio_state *state) __attribute__((warn_unused_result));

#endif
