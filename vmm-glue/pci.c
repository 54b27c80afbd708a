/* The PCI bus. See pci.h.
 *
 * How: configuration space is an array with a mask of what the guest may write; sizing a BAR works by that mask alone.
 * After every write the few things with an effect are looked at again: is the BAR mapped, and which interrupt sources
 * may raise which message.
 *
 * A masked vector's source is unbound from KVM; what it signals meanwhile stays counted in its eventfd, which is both the
 * pending bit and what KVM delivers at once when it is bound again. */
#include "vmm-glue/pci.h"

#include <errno.h>
#include <linux/pci_regs.h>
#include <poll.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "pool/base/le.h"
#include "vmm-glue/layout.h"

#define MSIX_ENTRY_BYTES 16u
#define FIRST_CAP 0x40u

static uint32_t get(const void *at, uint32_t len_bytes)
{
	uint32_t value = 0;

	memcpy(&value, at, len_bytes);
	return value;
}

static void set(struct pci_dev *dev, uint32_t off_bytes, uint32_t len_bytes, uint32_t value)
{
	memcpy(dev->config + off_bytes, &value, len_bytes);
}

/* ---- the BAR ---- */

static void update_mapping(struct pci_dev *dev)
{
	bool on = get(dev->config + PCI_COMMAND, 2) & PCI_COMMAND_MEMORY;
	uint64_t gpa = get(dev->config + PCI_BASE_ADDRESS_0, 4) & PCI_BASE_ADDRESS_MEM_MASK;

	if (dev->is_mapped == on && (!on || dev->bar_gpa == gpa))
		return;
	if (dev->is_mapped)
		dev->ops->mapped(dev, false);
	dev->is_mapped = on;
	dev->bar_gpa = gpa;
	if (on)
		dev->ops->mapped(dev, true);
}

/* ---- MSI-X ---- */

static bool is_open(const struct pci_dev *dev, uint16_t vector)
{
	uint32_t flags = get(dev->config + dev->msix_cap + PCI_MSIX_FLAGS, 2);

	return (flags & PCI_MSIX_FLAGS_ENABLE) && !(flags & PCI_MSIX_FLAGS_MASKALL) && vector < dev->vectors &&
	       !(dev->vector[vector].control & MSIX_ENTRY_MASKED);
}

static uint32_t msi_slot(const struct pci_dev *dev, uint16_t vector)
{
	return dev->slot * (KVM_MSIS_MAX / PCI_SLOTS) + vector;
}

static void bind(struct pci_dev *dev, struct msix_source *source, bool on)
{
	if (source->bound == on)
		return;
	if (kvm_bind_irq(dev->bus->kvm, source->fd, KVM_GSI_MSI + msi_slot(dev, source->vector), on) == 0)
		source->bound = on;
}

static void update_source(struct pci_dev *dev, struct msix_source *source)
{
	bool on = is_open(dev, source->vector);

	if (on)
		(void)kvm_set_msi(dev->bus->kvm, msi_slot(dev, source->vector), dev->vector[source->vector].addr,
				  dev->vector[source->vector].data);
	bind(dev, source, on);
}

static void update_sources(struct pci_dev *dev)
{
	for (uint32_t i = 0; i < dev->sources; i++)
		update_source(dev, &dev->source[i]);
}

int pci_add_source(struct pci_dev *dev)
{
	int fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);

	if (fd < 0)
		return -errno;
	dev->source[dev->sources] = (struct msix_source){ .fd = fd, .vector = PCI_NO_VECTOR };
	return (int)dev->sources++;
}

void pci_set_vector(struct pci_dev *dev, uint32_t source, uint16_t vector)
{
	bind(dev, &dev->source[source], false);
	dev->source[source].vector = vector;
	update_source(dev, &dev->source[source]);
}

static void table_access(struct pci_dev *dev, uint32_t off_bytes, void *data, uint32_t len_bytes, bool write)
{
	uint8_t *table = (uint8_t *)dev->vector;

	if (off_bytes + len_bytes > dev->vectors * MSIX_ENTRY_BYTES)
		return;
	if (!write) {
		memcpy(data, table + off_bytes, len_bytes);
		return;
	}
	memcpy(table + off_bytes, data, len_bytes);
	update_sources(dev);
}

static bool is_pending(const struct pci_dev *dev, uint16_t vector)
{
	for (uint32_t i = 0; i < dev->sources; i++) {
		struct pollfd pfd = { .fd = dev->source[i].fd, .events = POLLIN };

		if (dev->source[i].vector == vector && !dev->source[i].bound && poll(&pfd, 1, 0) == 1)
			return true;
	}
	return false;
}

static void pending_read(struct pci_dev *dev, uint32_t off_bytes, void *data, uint32_t len_bytes)
{
	uint64_t bits = 0;

	for (uint16_t v = 0; v < dev->vectors; v++)
		if (is_pending(dev, v))
			bits |= 1ull << v;
	if (off_bytes + len_bytes <= sizeof(bits))
		memcpy(data, (uint8_t *)&bits + off_bytes, len_bytes);
}

static void bar_access(struct pci_dev *dev, uint32_t off_bytes, void *data, uint32_t len_bytes, bool write)
{
	if (off_bytes < PCI_MSIX_TABLE_OFF)
		dev->ops->access(dev, off_bytes, data, len_bytes, write);
	else if (off_bytes < PCI_MSIX_PBA_OFF)
		table_access(dev, off_bytes - PCI_MSIX_TABLE_OFF, data, len_bytes, write);
	else if (!write)
		pending_read(dev, off_bytes - PCI_MSIX_PBA_OFF, data, len_bytes);
}

/* ---- configuration space ---- */

static void config_write(struct pci_dev *dev, uint32_t off_bytes, const uint8_t *data, uint32_t len_bytes)
{
	for (uint32_t i = 0; i < len_bytes; i++) {
		uint8_t mask = dev->writable[off_bytes + i];

		dev->config[off_bytes + i] = (uint8_t)((dev->config[off_bytes + i] & ~mask) | (data[i] & mask));
	}
	if (!dev->ops)
		return;
	update_mapping(dev);
	update_sources(dev);
}

static void config_access(struct pci_bus *bus, uint32_t slot, uint32_t off_bytes, void *data, uint32_t len_bytes,
			  bool write)
{
	struct pci_dev *dev = slot < PCI_SLOTS ? bus->dev[slot] : NULL;

	if (!dev)
		return;
	if (off_bytes + len_bytes > PCI_CONFIG_BYTES) {
		if (!write)
			memset(data, 0, len_bytes);
	} else if (write) {
		config_write(dev, off_bytes, data, len_bytes);
	} else {
		memcpy(data, dev->config + off_bytes, len_bytes);
	}
}

/* Bus 0, function 0 only. */
static void ecam_access(void *arg, uint64_t off_bytes, void *data, uint32_t len_bytes, bool write)
{
	uint32_t devfn = (uint32_t)(off_bytes >> 12);

	if (devfn % 8 == 0)
		config_access(arg, devfn / 8, off_bytes & 0xfff, data, len_bytes, write);
}

#define ADDRESS_ENABLE 0x80000000u

static void port_access(void *arg, uint64_t off_bytes, void *data, uint32_t len_bytes, bool write)
{
	struct pci_bus *bus = arg;

	if (off_bytes == 0 && len_bytes == 4) {
		memcpy(write ? (void *)&bus->address : data, write ? data : (void *)&bus->address, 4);
		return;
	}
	/* Bus and function are 0. */
	if (off_bytes < 4 || !(bus->address & ADDRESS_ENABLE) || (bus->address & 0x00ff0700))
		return;
	config_access(bus, (bus->address >> 11) & 31, (bus->address & 0xfc) + (uint32_t)(off_bytes - 4), data,
		      len_bytes, write);
}

static void memory_access(void *arg, uint64_t off_bytes, void *data, uint32_t len_bytes, bool write)
{
	struct pci_bus *bus = arg;
	uint64_t gpa = LAYOUT_PCI_MEMORY + off_bytes;

	for (uint32_t i = 0; i < PCI_SLOTS; i++) {
		struct pci_dev *dev = bus->dev[i];

		if (dev && dev->is_mapped && gpa >= dev->bar_gpa && gpa + len_bytes <= dev->bar_gpa + PCI_BAR_BYTES) {
			bar_access(dev, (uint32_t)(gpa - dev->bar_gpa), data, len_bytes, write);
			return;
		}
	}
}

/* ---- devices ---- */

static void set_ids(struct pci_dev *dev, uint16_t vendor, uint16_t id, uint32_t class_code)
{
	set(dev, PCI_VENDOR_ID, 2, vendor);
	set(dev, PCI_DEVICE_ID, 2, id);
	set(dev, PCI_CLASS_REVISION, 4, class_code << 8 | 1);
	set(dev, PCI_SUBSYSTEM_VENDOR_ID, 2, vendor);
	set(dev, PCI_SUBSYSTEM_ID, 2, id);
	memset(dev->writable + PCI_INTERRUPT_LINE, 0xff, 1);
	dev->cap_end = FIRST_CAP;
}

void pci_bus_init(struct pci_bus *bus, struct kvm *kvm, struct bus *ports, struct bus *memory)
{
	bus->kvm = kvm;
	set_ids(&bus->host_bridge, 0x1b36, 0x0008, 0x060000); /* a generic host bridge */
	bus->dev[0] = &bus->host_bridge;
	bus_add(ports, PORT_PCI_ADDRESS, PORT_PCI_BYTES, port_access, bus);
	bus_add(memory, LAYOUT_PCI_CONFIG, LAYOUT_PCI_CONFIG_BYTES, ecam_access, bus);
	bus_add(memory, LAYOUT_PCI_MEMORY, LAYOUT_PCI_MEMORY_BYTES, memory_access, bus);
}

uint32_t pci_add_cap(struct pci_dev *dev, uint8_t id, const void *cap, uint32_t len_bytes)
{
	uint32_t at = dev->cap_end;

	memcpy(dev->config + at, cap, len_bytes);
	dev->config[at] = id;
	dev->config[at + 1] = 0;
	dev->config[dev->last_cap ? dev->last_cap + 1 : PCI_CAPABILITY_LIST] = (uint8_t)at;
	dev->config[PCI_STATUS] |= PCI_STATUS_CAP_LIST;
	dev->last_cap = at;
	dev->cap_end = (at + len_bytes + 3) / 4 * 4;
	return at;
}

static void add_msix(struct pci_dev *dev)
{
	struct {
		le16 id_next, flags;
		le32 table, pba;
	} cap = {
		.flags = le16_of(dev->vectors - 1),
		.table = le32_of(PCI_MSIX_TABLE_OFF),
		.pba = le32_of(PCI_MSIX_PBA_OFF),
	};

	dev->msix_cap = pci_add_cap(dev, PCI_CAP_ID_MSIX, &cap, sizeof(cap));
	dev->writable[dev->msix_cap + PCI_MSIX_FLAGS + 1] = (PCI_MSIX_FLAGS_ENABLE | PCI_MSIX_FLAGS_MASKALL) >> 8;
}

int pci_add(struct pci_bus *bus, struct pci_dev *dev, const struct pci_ops *ops, uint16_t vendor, uint16_t id,
	    uint32_t class_code, uint16_t vectors)
{
	uint32_t slot = 0;

	while (slot < PCI_SLOTS && bus->dev[slot])
		slot++;
	if (slot == PCI_SLOTS || vectors > KVM_MSIS_MAX / PCI_SLOTS)
		return -ENOSPC;
	bus->dev[slot] = dev;
	dev->bus = bus;
	dev->slot = slot;
	dev->ops = ops;
	dev->vectors = vectors;
	set_ids(dev, vendor, id, class_code);
	set(dev, PCI_BASE_ADDRESS_0, 4, (uint32_t)(LAYOUT_PCI_MEMORY + slot * PCI_BAR_BYTES));
	dev->writable[PCI_COMMAND] = PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER;
	dev->writable[PCI_COMMAND + 1] = PCI_COMMAND_INTX_DISABLE >> 8;
	dev->writable[PCI_BASE_ADDRESS_0 + 2] = dev->writable[PCI_BASE_ADDRESS_0 + 3] = 0xff;
	add_msix(dev);
	for (uint32_t i = 0; i < vectors; i++)
		dev->vector[i].control = MSIX_ENTRY_MASKED;
	return 0;
}

void pci_reset(struct pci_dev *dev)
{
	set(dev, PCI_COMMAND, 2, 0);
	update_mapping(dev);
	set(dev, PCI_BASE_ADDRESS_0, 4, (uint32_t)(LAYOUT_PCI_MEMORY + dev->slot * PCI_BAR_BYTES));
	set(dev, dev->msix_cap + PCI_MSIX_FLAGS, 2, dev->vectors - 1u);
	update_sources(dev);
	for (uint32_t i = 0; i < dev->vectors; i++)
		dev->vector[i] = (struct msix_entry){ .control = MSIX_ENTRY_MASKED };
}

void pci_release(struct pci_dev *dev)
{
	if (dev->is_mapped)
		dev->ops->mapped(dev, false);
	dev->is_mapped = false;
	for (uint32_t i = 0; i < dev->sources; i++) {
		bind(dev, &dev->source[i], false);
		close(dev->source[i].fd);
	}
	dev->sources = 0;
	if (dev->bus)
		dev->bus->dev[dev->slot] = NULL;
}

/* ---- state ---- */

void pci_save(const struct pci_dev *dev, struct pci_state *state)
{
	memset(state, 0, sizeof(*state));
	memcpy(state->config, dev->config, sizeof(state->config));
	memcpy(state->vector, dev->vector, sizeof(state->vector));
	for (uint32_t i = 0; i < dev->sources; i++)
		state->source_vector[i] = dev->source[i].vector;
}

/* All that the guest cannot write must be the same. */
static bool fits(const struct pci_dev *dev, const struct pci_state *state)
{
	for (uint32_t i = 0; i < PCI_CONFIG_BYTES; i++)
		if ((dev->config[i] ^ state->config[i]) & ~dev->writable[i])
			return false;
	for (uint32_t i = 0; i < dev->sources; i++)
		if (state->source_vector[i] != PCI_NO_VECTOR && state->source_vector[i] >= dev->vectors)
			return false;
	return true;
}

int pci_load(struct pci_dev *dev, const struct pci_state *state)
{
	if (!fits(dev, state))
		return -EINVAL;
	memcpy(dev->config, state->config, sizeof(dev->config));
	memcpy(dev->vector, state->vector, sizeof(dev->vector));
	update_mapping(dev);
	for (uint32_t i = 0; i < dev->sources; i++)
		pci_set_vector(dev, i, state->source_vector[i]);
	return 0;
}
