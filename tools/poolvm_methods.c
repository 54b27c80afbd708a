/* The control socket's methods. A new one: one function, one line in the table at the end. Sizes are bytes. */
#include "tools/poolvm_methods.h"

#include <errno.h>

#include "vmm-glue/migrate.h"

static const char *state_text(const struct vm *vm)
{
	return vm->pauses > 0 ? "paused" : "running";
}

static const char *move_text(const struct vm_move *move)
{
	static const char *const text[] = {
		[VM_MOVE_COPYING] = "copying", [VM_MOVE_STOPPED] = "stopped", [VM_MOVE_DONE] = "done",
		[VM_MOVE_FAILED] = "failed",   [VM_MOVE_UNKNOWN] = "unknown",
	};

	return text[move->state];
}

static json_t *show_move(const struct vm_move *move)
{
	return json_pack("{s:s, s:s, s:i, s:I, s:f, s:s}", "to", move->address, "state", move_text(move), "rounds",
			 (int)move->rounds, "sent_bytes", (json_int_t)move->sent_bytes, "pause_ms",
			 (double)move->pause_ns / 1e6, "error", move->err.msg);
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
	if (*result && vm->move.state != VM_MOVE_NONE)
		json_object_set_new(*result, "move", show_move(&vm->move));
	return *result ? 0 : err_set(err, -ENOMEM, "no memory for the answer");
}

/* What would change a VM that is on its way. */
static int refuse_moving(const struct vm *vm, struct err *err)
{
	return vm_is_moving(vm) ? err_set(err, -EBUSY, "the VM is being saved or moved; cancel that first") : 0;
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
	if (vm->move.state == VM_MOVE_UNKNOWN)
		return err_set(err, -EBUSY, "the VM may run at '%s'; 'take_back' it if you know that it does not",
			       vm->move.address);
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
	if (refuse_moving(vm, err) != 0)
		return -EBUSY;
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

static int save(void *vm, struct params *params, json_t **result, struct err *err)
{
	const char *path = param_text(params, "path");
	int rc = params_end(params);

	if (rc == 0)
		rc = vm_save_begin(vm, path, err);
	return rc < 0 ? rc : give_status(vm, result, err);
}

static int migrate(void *vm, struct params *params, json_t **result, struct err *err)
{
	const char *address = param_text(params, "to");
	int rc = params_end(params);

	if (rc == 0)
		rc = vm_migrate_begin(vm, address, err);
	return rc < 0 ? rc : give_status(vm, result, err);
}

static int cancel(void *vm, struct params *params, json_t **result, struct err *err)
{
	int rc = params_end(params);

	if (rc == 0)
		rc = vm_move_cancel(vm, err);
	return rc < 0 ? rc : give_status(vm, result, err);
}

static int take_back(void *vm, struct params *params, json_t **result, struct err *err)
{
	int rc = params_end(params);

	if (rc == 0)
		rc = vm_take_back(vm, err);
	return rc < 0 ? rc : give_status(vm, result, err);
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
	{ "save", save, "{path}: begins to save the VM's state; it goes on afterwards" },
	{ "migrate", migrate, "{to}: begins to move the VM to unix:PATH or tcp:ADDRESS:PORT" },
	{ "cancel", cancel, "gives up saving or moving" },
	{ "take_back", take_back, "runs a VM here of which it is not known whether it runs elsewhere" },
	{ "quit", quit, "ends the VM as if the power was cut" },
};
const size_t poolvm_method_count = sizeof(poolvm_methods) / sizeof(poolvm_methods[0]);
