/* A virtual machine: what it is made of, and its life.
 *
 * Threads: the caller of vm_run serves events; each vCPU has a thread. One lock, vm->lock, guards everything but guest
 * memory: vCPU threads take it for exits, the event loop around each event. I/O does not need it: doorbells and
 * interrupts go between the guest and a back end through KVM. */
#ifndef VMM_VM_H
#define VMM_VM_H

#include <pthread.h>

#include "vmm-glue/bus.h"
#include "vmm-glue/events.h"
#include "vmm-glue/kvm.h"
#include "vmm-glue/pci.h"
#include "vmm-glue/ram.h"
#include "vmm-glue/serial.h"
#include "vmm-glue/vcpu.h"
#include "vmm-glue/virtio_balloon.h"
#include "vmm-glue/virtio_blk.h"
#include "vmm-glue/virtio_net.h"
#include "vmm-glue/virtio_rng.h"

#define VM_CPUS_MAX 64
#define VM_DISKS_MAX 8
#define VM_NETS_MAX 4
#define VM_DEVICES_MAX (VM_DISKS_MAX + VM_NETS_MAX + 2)
#define VM_GENERATION_BYTES 16

struct vm_disk_config {
	const char *socket; /* of the vhost-user-blk back end */
	uint32_t queues;
};

struct vm_net_config {
	const char *tap;
	uint8_t mac[6];
};

/* The strings stay the caller's, and alive. */
struct vm_config {
	uint32_t cpus;
	uint64_t mem_bytes;       /* a multiple of 1 MiB */
	int kernel_fd, initrd_fd; /* -1: none; read again at every reset */
	const char *cmdline;
	struct vm_disk_config disk[VM_DISKS_MAX];
	uint32_t disks;
	struct vm_net_config net[VM_NETS_MAX];
	uint32_t nets;
	bool rng, balloon;
	int serial_in_fd, serial_out_fd, serial_listen_fd;
	uint8_t generation[VM_GENERATION_BYTES]; /* VMGENID: another one for each clone */
	uint32_t disk_wait_ms;                   /* how late a disk's back end may be */
};

enum vm_move_state { VM_MOVE_NONE, VM_MOVE_COPYING, VM_MOVE_STOPPED, VM_MOVE_DONE, VM_MOVE_FAILED, VM_MOVE_UNKNOWN };

/* The VM's state on its way out, to a file or another process: see migrate.h. */
struct vm_move {
	enum vm_move_state state;
	bool to_file;
	bool cancel;
	bool has_thread;
	pthread_t thread;
	char address[256];
	uint32_t rounds;
	uint64_t sent_bytes, pause_ns; /* pause: how long the guest stood still */
	struct err err;                /* why it failed */
};

enum vm_wish { VM_WISH_NONE, VM_WISH_RESET, VM_WISH_OFF };

struct vm {
	struct vm_config config;
	pthread_mutex_t lock;
	pthread_cond_t parked; /* a vCPU has parked */
	pthread_cond_t go;     /* pauses or ending has changed */
	struct ram ram;
	struct kvm kvm;
	struct bus ports, memory;
	struct pci_bus pci;
	struct events events;
	struct serial serial;
	struct virtio_blk disk[VM_DISKS_MAX];
	struct virtio_net net[VM_NETS_MAX];
	struct virtio_rng rng;
	struct virtio_balloon balloon;
	struct virtio_dev *dev[VM_DEVICES_MAX]; /* all of them, in the order of their slots */
	uint32_t devs;
	struct vcpu vcpu[VM_CPUS_MAX];
	uint32_t vcpus;
	uint32_t pauses; /* > 0: vCPUs and devices stand still */
	bool stopped;    /* one of the pauses is the user's */
	bool ending;
	enum vm_wish wish; /* of the guest; served by the event loop */
	struct event wish_event;
	struct vm_image *power_on; /* vCPUs and chips as they were before the first instruction */
	int exit_code;
	struct vm_move move;
};

/* Makes the machine, without devices; nothing runs, and pauses is 1. ram_fd: memory to adopt, or -1. vm_destroy in any
 * case. */
int vm_create(struct vm *vm, const struct vm_config *config, int ram_fd, struct err *err)
	__attribute__((warn_unused_result));
/* Adds the devices. Disks connect to their back ends. */
int vm_add_devices(struct vm *vm, struct err *err) __attribute__((warn_unused_result));
/* Puts kernel, tables and registers in place. */
int vm_boot(struct vm *vm, struct err *err) __attribute__((warn_unused_result));
void vm_destroy(struct vm *vm);

/* Serves events until the machine ends; returns the exit code. Without the lock. */
int vm_run(struct vm *vm);

/* The rest is called with the lock held. */

/* Stops vCPUs, then devices; returns when nothing of the VM moves. Nests. Lets the lock go while it waits. */
void vm_pause(struct vm *vm);
/* Undoes one vm_pause. */
void vm_resume(struct vm *vm);
/* The machine ends as if the power was cut. */
void vm_end(struct vm *vm, int exit_code);
void vm_press_power_button(struct vm *vm);
void vm_reset(struct vm *vm);
/* The guest is told that it is a copy: another VMGENID. */
void vm_set_generation(struct vm *vm, const uint8_t generation[VM_GENERATION_BYTES]);

/* From a device model: what the guest wants. */
void vm_wish(struct vm *vm, enum vm_wish wish);

/* The vCPUs' threads (vcpu.c). */
int vm_start_vcpus(struct vm *vm, struct err *err) __attribute__((warn_unused_result));
void vm_kick_vcpus(struct vm *vm);
void vm_join_vcpus(struct vm *vm);

#endif
