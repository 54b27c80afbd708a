/* A vCPU: a thread that runs it, and its registers as a whole.
 *
 * Saving and loading want a vCPU that is not running. Registers at boot come from boot.h. */
#ifndef VMM_VCPU_H
#define VMM_VCPU_H

#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "vmm-glue/kvm.h"

struct vm;
struct kvm_run;

struct vcpu {
	struct vm *vm;
	uint32_t index;
	int fd;
	struct kvm_run *run;
	pthread_t thread;
	bool has_thread;
	bool parked;   /* not in KVM_RUN, and nothing of an exit is left to do; VM's lock */
	bool mid_exit; /* KVM must be entered once more to finish an access; VM's lock */
};

int vcpu_create(struct vcpu *vcpu, const struct kvm *kvm, uint32_t count, struct err *err)
	__attribute__((warn_unused_result));
void vcpu_destroy(struct vcpu *vcpu, const struct kvm *kvm);

/* Everything of a vCPU, `bytes` long; the same for all of a machine. */
struct vcpu_state;
size_t vcpu_state_bytes(const struct kvm *kvm);
int vcpu_save(struct vcpu *vcpu, const struct kvm *kvm, struct vcpu_state *state, struct err *err)
	__attribute__((warn_unused_result));
int vcpu_load(struct vcpu *vcpu, const struct kvm *kvm, const struct vcpu_state *state, struct err *err)
	__attribute__((warn_unused_result));
/* Tells the guest that it stood still, so that its watchdogs keep quiet. */
void vcpu_was_paused(struct vcpu *vcpu);

#endif
