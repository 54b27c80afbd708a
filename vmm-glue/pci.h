/* A PCI bus: configuration space by ports and by memory (ECAM), one memory BAR a device, MSI-X.
 *
 * No firmware runs, so devices come with their BARs assigned; a guest may move them. VM's lock. */
#ifndef VMM_PCI_H
#define VMM_PCI_H

#include <stdbool.h>
#include <stdint.h>

#include "vmm-glue/bus.h"
#include "vmm-glue/kvm.h"

#define PCI_SLOTS 32
#define PCI_CONFIG_BYTES 256
#define PCI_VECTORS_MAX 32
#define PCI_NO_VECTOR 0xffff
#define PCI_BAR_BYTES 0x10000u

/* Where MSI-X lies in BAR 0; everything below is the device's. */
#define PCI_MSIX_TABLE_OFF 0x8000u
#define PCI_MSIX_PBA_OFF 0x9000u

struct pci_dev;

struct pci_ops {
	/* Required. Access to BAR 0 below PCI_MSIX_TABLE_OFF. */
	void (*access)(struct pci_dev *dev, uint32_t off_bytes, void *data, uint32_t len_bytes, bool write);
	/* Required. BAR 0 now is at dev->bar_gpa (on), or is about to leave it. */
	void (*mapped)(struct pci_dev *dev, bool on);
};

struct msix_entry {
	uint64_t addr;
	uint32_t data, control;
};
#define MSIX_ENTRY_MASKED 1u

/* Something that interrupts by an eventfd, on the vector that the guest has chosen for it. */
struct msix_source {
	int fd;
	uint16_t vector;
	bool bound; /* to the vector's GSI in KVM */
};

struct pci_dev {
	const struct pci_ops *ops;
	struct pci_bus *bus;
	uint32_t slot;
	uint8_t config[PCI_CONFIG_BYTES], writable[PCI_CONFIG_BYTES];
	uint32_t cap_end; /* where the next capability goes */
	uint32_t last_cap;
	bool is_mapped;
	uint64_t bar_gpa;
	uint32_t msix_cap;
	uint16_t vectors;
	struct msix_entry vector[PCI_VECTORS_MAX];
	struct msix_source source[PCI_VECTORS_MAX];
	uint32_t sources;
};

struct pci_bus {
	struct kvm *kvm;
	struct pci_dev *dev[PCI_SLOTS];
	struct pci_dev host_bridge;
	uint32_t address; /* of the configuration ports */
};

void pci_bus_init(struct pci_bus *bus, struct kvm *kvm, struct bus *ports, struct bus *memory);

/* A device with a memory BAR and `vectors` interrupts in the next free slot. -ENOSPC. */
int pci_add(struct pci_bus *bus, struct pci_dev *dev, const struct pci_ops *ops, uint16_t vendor, uint16_t id,
	    uint32_t class_code, uint16_t vectors) __attribute__((warn_unused_result));
/* A capability of len_bytes, its id and link included; returns its place. */
uint32_t pci_add_cap(struct pci_dev *dev, uint8_t id, const void *cap, uint32_t len_bytes);
/* Forgets what the guest has set, as at power on. */
void pci_reset(struct pci_dev *dev);

/* One more interrupt source: its number, or -errno. */
int pci_add_source(struct pci_dev *dev);
/* Sets a source's vector; PCI_NO_VECTOR or one that exists. */
void pci_set_vector(struct pci_dev *dev, uint32_t source, uint16_t vector);
/* Lets go of what the device has in KVM; its sources' eventfds are closed. */
void pci_release(struct pci_dev *dev);

/* What of a device makes its state: configuration space, vectors, sources' vectors. */
struct pci_state {
	uint8_t config[PCI_CONFIG_BYTES];
	struct msix_entry vector[PCI_VECTORS_MAX];
	uint16_t source_vector[PCI_VECTORS_MAX];
};
void pci_save(const struct pci_dev *dev, struct pci_state *state);
/* -EINVAL, and nothing has changed, if this is no state of such a device. */
int pci_load(struct pci_dev *dev, const struct pci_state *state) __attribute__((warn_unused_result));

#endif
