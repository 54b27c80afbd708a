/* The processors' side of a VM as bytes: chips and vCPUs. Taken and put while the VM is paused. */
#ifndef VMM_IMAGE_H
#define VMM_IMAGE_H

#include "vmm-glue/vm.h"

struct vm_image {
	size_t bytes;
	uint8_t data[]; /* kvm_state, then a vcpu_state for each vCPU */
};

/* Room for the image of such a VM. NULL: no memory. */
struct vm_image *vm_image_new(const struct vm *vm);
int vm_image_take(struct vm *vm, struct vm_image *image, struct err *err) __attribute__((warn_unused_result));
int vm_image_put(struct vm *vm, const struct vm_image *image, struct err *err) __attribute__((warn_unused_result));

#endif
