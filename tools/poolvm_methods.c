/* The control socket's methods. A new one: one function, one line in the table at the end. Sizes are bytes. */
#include "tools/poolvm_methods.h"

#include <errno.h>

#include "vmm-glue/vm.h"

static const char *state_text(const struct vm *vm)
{
	return vm->pauses > 0 ? "paused" : "running";
}

static json_t *show_disk(const struct virtio_blk *blk)
{
	return json_pack("{s:s, s:b, s:I}", "socket", blk->vhost.path, "connected", blk->link == BLK_UP, "size_bytes",
			 (json_int_t)(*(const uint64_t *)blk->dev.config * 512));
}

static json_t *show_disks(const struct vm *vm)
{
	json_t *disks = json_array();

	for (uint32_t i = 0; i < vm->config.disks; i++)
		json_array_append_new(disks, show_disk(&vm->disk[i]));
	return disks;
}

static int give_status(struct vm *vm, json_t **result, struct err *err)
{
	*result = json_pack("{s:s, s:i, s:I, s:o}", "state", state_text(vm), "cpus", (int)vm->vcpus, "mem_bytes",
			    (json_int_t)vm->ram.size_bytes, "disks", show_disks(vm));
	if (*result && vm->config.balloon)
		json_object_set_new(*result, "balloon",
				    json_pack("{s:I, s:I}", "bytes", (json_int_t)virtio_balloon_bytes(&vm->balloon),
					      "reported_bytes", (json_int_t)vm->balloon.reported_bytes));
	return *result ? 0 : err_set(err, -ENOMEM, "no memory for the answer");
}

static int status(void *vm, struct params *params, json_t **result, struct err *err)
{
	return params_end(params) != 0 ? -EINVAL : give_status(vm, result, err);
}

/* Both may be said again: the state asked for is what counts. */
static int stop(void *context, struct params *params, json_t **result, struct err *err)
{
	struct vm *vm = context;

	if (params_end(params) != 0)
		return -EINVAL;
	if (!vm->stopped) {
		vm->stopped = true;
		vm_pause(vm);
	}
	return give_status(vm, result, err);
}

static int cont(void *context, struct params *params, json_t **result, struct err *err)
{
	struct vm *vm = context;

	if (params_end(params) != 0)
		return -EINVAL;
	if (vm->stopped) {
		vm->stopped = false;
		vm_resume(vm);
	}
	return give_status(vm, result, err);
}

static int reset(void *vm, struct params *params, json_t **result, struct err *err)
{
	if (params_end(params) != 0)
		return -EINVAL;
	vm_reset(vm);
	return give_status(vm, result, err);
}

static int power_button(void *vm, struct params *params, json_t **result, struct err *err)
{
	if (params_end(params) != 0)
		return -EINVAL;
	vm_press_power_button(vm);
	return give_status(vm, result, err);
}

static int balloon(void *context, struct params *params, json_t **result, struct err *err)
{
	struct vm *vm = context;
	uint64_t bytes = param_u64(params, "bytes", vm->ram.size_bytes);

	if (params_end(params) != 0)
		return -EINVAL;
	if (!vm->config.balloon)
		return err_set(err, -ENODEV, "this VM has no balloon; start it with --balloon");
	virtio_balloon_set(&vm->balloon, bytes);
	return give_status(vm, result, err);
}

static int quit(void *vm, struct params *params, json_t **result, struct err *err)
{
	if (params_end(params) != 0)
		return -EINVAL;
	vm_end(vm, 0);
	return 0;
}

const struct jsonrpc_method poolvm_methods[] = {
	{ "status", status, "state, memory, disks" },
	{ "stop", stop, "the guest stands still" },
	{ "cont", cont, "the guest goes on" },
	{ "reset", reset, "as if the reset button was pressed" },
	{ "power_button", power_button, "presses the power button" },
	{ "balloon", balloon, "{bytes}: asks the guest for memory" },
	{ "quit", quit, "ends the VM as if the power was cut" },
};
const size_t poolvm_method_count = sizeof(poolvm_methods) / sizeof(poolvm_methods[0]);
