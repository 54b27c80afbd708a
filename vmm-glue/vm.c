/* A VM's life. See vm.h.
 *
 * Order of stopping: vCPUs first (no new requests), then devices (what is in flight finishes). Order of going on: devices,
 * then vCPUs.
 *
 * A reset puts chips and vCPUs back to what they were before the first instruction, empties memory, and boots again; the
 * process, its threads and its connections stay. */
#include "vmm-glue/vm.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "pool/base/list.h"
#include "vmm-glue/acpi.h"
#include "vmm-glue/boot.h"
#include "vmm-glue/image.h"
#include "vmm-glue/layout.h"
#include "vmm-glue/power.h"
#include "vmm-glue/say.h"

/* ---- pausing ---- */

static bool all_parked(const struct vm *vm)
{
	for (uint32_t i = 0; i < vm->vcpus; i++)
		if (vm->vcpu[i].has_thread && !vm->vcpu[i].parked)
			return false;
	return true;
}

static void stop_vcpus(struct vm *vm)
{
	vm_kick_vcpus(vm);
	while (!all_parked(vm))
		pthread_cond_wait(&vm->parked, &vm->lock);
}

void vm_pause(struct vm *vm)
{
	vm->pauses++;
	stop_vcpus(vm);
	for (uint32_t i = 0; i < vm->devs; i++)
		virtio_pci_pause(vm->dev[i]);
}

void vm_resume(struct vm *vm)
{
	if (--vm->pauses > 0)
		return;
	for (uint32_t i = 0; i < vm->devs; i++)
		virtio_pci_resume(vm->dev[i]);
	for (uint32_t i = 0; i < vm->vcpus; i++)
		vcpu_was_paused(&vm->vcpu[i]);
	pthread_cond_broadcast(&vm->go);
}

void vm_end(struct vm *vm, int exit_code)
{
	vm->exit_code = exit_code;
	vm->ending = true;
	vm->events.stop = true;
	vm_kick_vcpus(vm);
	events_signal(vm->wish_event.fd);
}

/* ---- what the guest and others wish ---- */

/* The vCPUs stop at once; the event loop does the rest. */
void vm_wish(struct vm *vm, enum vm_wish wish)
{
	if (vm->wish != VM_WISH_NONE)
		return;
	vm->wish = wish;
	vm->pauses++;
	vm_kick_vcpus(vm);
	events_signal(vm->wish_event.fd);
}

static void on_wish(struct event *event, uint32_t epoll_events)
{
	struct vm *vm = container_of(event, struct vm, wish_event);
	enum vm_wish wish = vm->wish;

	(void)events_take(event->fd);
	vm->wish = VM_WISH_NONE;
	if (wish == VM_WISH_OFF) {
		vmm_say("the guest has switched itself off");
		vm_end(vm, 0);
	} else if (wish == VM_WISH_RESET) {
		vmm_say("the guest resets itself");
		vm_reset(vm);
		vm_resume(vm);
	}
}

void vm_press_power_button(struct vm *vm)
{
	kvm_pulse(&vm->kvm, PIN_POWER_BUTTON);
}

void vm_set_generation(struct vm *vm, const uint8_t generation[VM_GENERATION_BYTES])
{
	memcpy(vm->config.generation, generation, VM_GENERATION_BYTES);
	ram_put(&vm->ram, LAYOUT_VMGENID, generation, VM_GENERATION_BYTES);
	kvm_pulse(&vm->kvm, PIN_VMGENID);
}

/* ---- booting ---- */

int vm_boot(struct vm *vm, struct err *err)
{
	const struct boot_source source = { vm->config.kernel_fd, vm->config.initrd_fd, vm->config.cmdline };
	uint8_t tables[ACPI_TABLES_BYTES_MAX];
	struct boot_entry entry;
	int rc = boot_load(&vm->ram, &source, &entry, err);

	if (rc < 0)
		return rc;
	ram_put(&vm->ram, LAYOUT_ACPI, tables, acpi_build(tables, LAYOUT_ACPI, vm->config.cpus));
	ram_put(&vm->ram, LAYOUT_VMGENID, vm->config.generation, VM_GENERATION_BYTES);
	return boot_set_registers(&vm->vcpu[0], &entry, err);
}

static int boot_again(struct vm *vm, struct err *err)
{
	int rc = 0;

	for (uint32_t i = 0; i < vm->devs; i++)
		virtio_pci_reset(vm->dev[i]);
	serial_reset(&vm->serial);
	for (uint32_t i = 0; rc == 0 && i < vm->ram.pieces; i++)
		rc = ram_discard(&vm->ram, vm->ram.piece[i].gpa, vm->ram.piece[i].len_bytes);
	if (rc < 0)
		return err_set(err, rc, "cannot empty the guest's memory: %s", strerror(-rc));
	rc = vm_image_put(vm, vm->power_on, err);
	return rc < 0 ? rc : vm_boot(vm, err);
}

void vm_reset(struct vm *vm)
{
	struct err err;

	vm_pause(vm);
	if (boot_again(vm, &err) < 0) {
		vmm_say("cannot reset: %s", err.msg);
		vm_end(vm, 1);
	}
	vm_resume(vm);
}

/* ---- making and ending ---- */

static int create_vcpus(struct vm *vm, struct err *err)
{
	for (; vm->vcpus < vm->config.cpus; vm->vcpus++) {
		struct vcpu *vcpu = &vm->vcpu[vm->vcpus];
		int rc;

		*vcpu = (struct vcpu){ .vm = vm, .index = vm->vcpus, .fd = -1 };
		rc = vcpu_create(vcpu, &vm->kvm, vm->config.cpus, err);
		if (rc < 0) {
			vcpu_destroy(vcpu, &vm->kvm);
			return rc;
		}
	}
	vm->power_on = vm_image_new(vm);
	return vm->power_on ? vm_image_take(vm, vm->power_on, err) : err_set(err, -ENOMEM, "no memory");
}

static int watch_wishes(struct vm *vm, struct err *err)
{
	vm->wish_event = (struct event){ eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK), on_wish };
	if (vm->wish_event.fd < 0 || events_add(&vm->events, &vm->wish_event, EPOLLIN) < 0)
		return err_set(err, -ENOMEM, "no memory for an event");
	return 0;
}

int vm_create(struct vm *vm, const struct vm_config *config, int ram_fd, struct err *err)
{
	int rc;

	*vm = (struct vm){ .config = *config, .pauses = 1 };
	vm->ram.fd = vm->ram.dirty_fd = vm->kvm.fd = vm->kvm.vm_fd = vm->events.epoll_fd = vm->wish_event.fd = -1;
	pthread_mutex_init(&vm->lock, NULL);
	pthread_cond_init(&vm->parked, NULL);
	pthread_cond_init(&vm->go, NULL);
	rc = events_init(&vm->events, err);
	if (rc == 0)
		rc = watch_wishes(vm, err);
	if (rc == 0)
		rc = ram_create(&vm->ram, config->mem_bytes, ram_fd, err);
	if (rc == 0)
		rc = kvm_open(&vm->kvm, err);
	if (rc == 0)
		rc = kvm_set_ram(&vm->kvm, &vm->ram, err);
	if (rc == 0)
		rc = create_vcpus(vm, err);
	if (rc < 0)
		return rc;
	power_init(vm);
	pci_bus_init(&vm->pci, &vm->kvm, &vm->ports, &vm->memory);
	return serial_init(&vm->serial, &vm->kvm, &vm->events, &vm->ports, config->serial_in_fd, config->serial_out_fd,
			   config->serial_listen_fd, err);
}

static void on_superseded(void *arg)
{
	vm_end(arg, 1);
}

static int add_disk(struct vm *vm, uint32_t i, struct err *err)
{
	const struct vm_disk_config *config = &vm->config.disk[i];

	vm->disk[i].superseded = on_superseded;
	vm->disk[i].superseded_arg = vm;

	vm->dev[vm->devs++] = &vm->disk[i].dev;
	return virtio_blk_add(&vm->disk[i], &vm->pci, &vm->ram, &vm->events, config->socket, config->queues,
			      vm->config.disk_wait_ms, err);
}

static int add_net(struct vm *vm, uint32_t i, struct err *err)
{
	vm->dev[vm->devs++] = &vm->net[i].local.dev;
	return virtio_net_add(&vm->net[i], &vm->pci, &vm->ram, &vm->events, vm->config.net[i].tap,
			      vm->config.net[i].mac, err);
}

/* A machine that was saved is made again in this same order. */
int vm_add_devices(struct vm *vm, struct err *err)
{
	int rc = 0;

	for (uint32_t i = 0; rc == 0 && i < vm->config.disks; i++)
		rc = add_disk(vm, i, err);
	for (uint32_t i = 0; rc == 0 && i < vm->config.nets; i++)
		rc = add_net(vm, i, err);
	if (rc == 0 && vm->config.rng) {
		vm->dev[vm->devs++] = &vm->rng.local.dev;
		rc = virtio_rng_add(&vm->rng, &vm->pci, &vm->ram, &vm->events, err);
	}
	if (rc == 0 && vm->config.balloon) {
		vm->dev[vm->devs++] = &vm->balloon.local.dev;
		rc = virtio_balloon_add(&vm->balloon, &vm->pci, &vm->ram, &vm->events, err);
	}
	return rc;
}

static void release_device(struct vm *vm, struct virtio_dev *dev)
{
	for (uint32_t i = 0; i < vm->config.disks; i++)
		if (dev == &vm->disk[i].dev)
			virtio_blk_release(&vm->disk[i]);
	for (uint32_t i = 0; i < vm->config.nets; i++)
		if (dev == &vm->net[i].local.dev)
			virtio_net_release(&vm->net[i]);
	if (dev == &vm->rng.local.dev || dev == &vm->balloon.local.dev)
		virtio_pci_release(dev);
}

void vm_destroy(struct vm *vm)
{
	pthread_mutex_lock(&vm->lock);
	vm->ending = true;
	vm_kick_vcpus(vm);
	pthread_mutex_unlock(&vm->lock);
	vm_join_vcpus(vm);
	while (vm->devs > 0)
		release_device(vm, vm->dev[--vm->devs]);
	serial_release(&vm->serial);
	while (vm->vcpus > 0)
		vcpu_destroy(&vm->vcpu[--vm->vcpus], &vm->kvm);
	free(vm->power_on);
	kvm_close(&vm->kvm);
	ram_destroy(&vm->ram);
	if (vm->wish_event.fd >= 0)
		close(vm->wish_event.fd);
	events_release(&vm->events);
}

int vm_run(struct vm *vm)
{
	events_run(&vm->events, &vm->lock);
	pthread_mutex_lock(&vm->lock);
	stop_vcpus(vm);
	for (uint32_t i = 0; i < vm->devs; i++)
		virtio_pci_pause(vm->dev[i]);
	pthread_mutex_unlock(&vm->lock);
	return vm->exit_code;
}
