/* Chips and vCPUs as bytes. See image.h. */
#include "vmm-glue/image.h"

#include <stdlib.h>

static uint8_t *vcpu_part(const struct vm *vm, struct vm_image *image, uint32_t index)
{
	return image->data + (kvm_state_bytes() + 15) / 16 * 16 + index * vcpu_state_bytes(&vm->kvm);
}

struct vm_image *vm_image_new(const struct vm *vm)
{
	size_t bytes = (kvm_state_bytes() + 15) / 16 * 16 + vm->vcpus * vcpu_state_bytes(&vm->kvm);
	struct vm_image *image = calloc(1, sizeof(*image) + bytes);

	if (image)
		image->bytes = bytes;
	return image;
}

int vm_image_take(struct vm *vm, struct vm_image *image, struct err *err)
{
	int rc = kvm_save(&vm->kvm, (struct kvm_state *)image->data, err);

	for (uint32_t i = 0; rc == 0 && i < vm->vcpus; i++)
		rc = vcpu_save(&vm->vcpu[i], &vm->kvm, (struct vcpu_state *)vcpu_part(vm, image, i), err);
	return rc;
}

int vm_image_put(struct vm *vm, const struct vm_image *image, struct err *err)
{
	int rc = kvm_load(&vm->kvm, (const struct kvm_state *)image->data, err);

	for (uint32_t i = 0; rc == 0 && i < vm->vcpus; i++)
		rc = vcpu_load(&vm->vcpu[i], &vm->kvm,
			       (const struct vcpu_state *)vcpu_part(vm, (struct vm_image *)image, i), err);
	return rc;
}
