/* One KVM machine: its memory, interrupt routes and doorbells. What is special to a vCPU is in vcpu.h.
 *
 * Interrupts: the in-kernel PIC and IOAPIC have GSIs 0 to 23; from KVM_GSI_MSI on each GSI is a message (MSI). An
 * eventfd is bound to a GSI and raises it without our help. VM's lock. */
#ifndef VMM_KVM_H
#define VMM_KVM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "vmm-glue/ram.h"

#define KVM_GSI_PINS 24
#define KVM_GSI_MSI KVM_GSI_PINS
#define KVM_MSIS_MAX 512

struct kvm_msrs_known {
	uint32_t count;
	uint32_t index[256];
};

struct kvm {
	int fd, vm_fd;
	uint32_t run_bytes;
	uint32_t xsave_bytes;
	struct kvm_msrs_known msrs; /* those that are saved */
	struct kvm_irq_routing *routes;
	struct {
		uint64_t addr;
		uint32_t data;
		bool used;
	} msi[KVM_MSIS_MAX];
};

/* Opens /dev/kvm, checks that it can do what is needed, makes the machine. kvm_close in any case. */
int kvm_open(struct kvm *kvm, struct err *err) __attribute__((warn_unused_result));
void kvm_close(struct kvm *kvm);
int kvm_set_ram(struct kvm *kvm, const struct ram *ram, struct err *err) __attribute__((warn_unused_result));

/* Binds an eventfd to a GSI, or unbinds it. What was signalled before binding is delivered then. */
int kvm_bind_irq(struct kvm *kvm, int fd, uint32_t gsi, bool bind);
/* A 16-bit write of the guest to this address signals the eventfd, or no longer does. */
int kvm_bind_doorbell(struct kvm *kvm, int fd, uint64_t gpa, bool bind);
/* What GSI KVM_GSI_MSI + slot sends. */
int kvm_set_msi(struct kvm *kvm, uint32_t slot, uint64_t addr, uint32_t data);
/* An edge on a pin. */
void kvm_pulse(struct kvm *kvm, uint32_t pin);

/* Dirty log of the guest's own writes. Reading it is also what clears it: bits are added to those of ram->dirty. */
int kvm_log_dirty(struct kvm *kvm, const struct ram *ram, bool on);
int kvm_take_dirty(struct kvm *kvm, struct ram *ram);

/* The irqchips, the PIT and the clock, as bytes. KVM_STATE_BYTES; vCPUs stand still. */
struct kvm_state;
size_t kvm_state_bytes(void);
int kvm_save(struct kvm *kvm, struct kvm_state *state, struct err *err) __attribute__((warn_unused_result));
int kvm_load(struct kvm *kvm, const struct kvm_state *state, struct err *err) __attribute__((warn_unused_result));

#endif
