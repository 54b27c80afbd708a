/* The vCPUs' threads: run, serve exits, park.
 *
 * Parking: whoever pauses sets vm->pauses under the lock, then run->immediate_exit and a signal for each thread. A thread
 * clears immediate_exit under the lock, right before it looks at vm->pauses; so either it sees the pause, or the next
 * KVM_RUN returns at once.
 *
 * An access to a device is finished by KVM at the next KVM_RUN. Before a vCPU parks it therefore enters KVM once more, with
 * immediate_exit set, so that its registers are whole. */
#include <errno.h>
#include <linux/kvm.h>
#include <signal.h>
#include <string.h>
#include <sys/ioctl.h>

#include "vmm-glue/say.h"
#include "vmm-glue/vm.h"

#define KICK_SIGNAL SIGUSR1

static void fail(struct vcpu *vcpu, const char *what, uint64_t detail)
{
	vmm_say("vCPU %u: %s (%#llx)", vcpu->index, what, (unsigned long long)detail);
	vm_end(vcpu->vm, 1);
}

static void serve_port(struct vcpu *vcpu)
{
	struct kvm_run *run = vcpu->run;
	uint8_t *data = (uint8_t *)run + run->io.data_offset;

	for (uint32_t i = 0; i < run->io.count; i++)
		bus_do(&vcpu->vm->ports, run->io.port, data + i * run->io.size, run->io.size,
		       run->io.direction == KVM_EXIT_IO_OUT);
}

static void serve_exit(struct vcpu *vcpu)
{
	struct kvm_run *run = vcpu->run;

	switch (run->exit_reason) {
	case KVM_EXIT_IO:
		serve_port(vcpu);
		vcpu->mid_exit = true;
		break;
	case KVM_EXIT_MMIO:
		bus_do(&vcpu->vm->memory, run->mmio.phys_addr, run->mmio.data, run->mmio.len, run->mmio.is_write);
		vcpu->mid_exit = true;
		break;
	case KVM_EXIT_SHUTDOWN: vm_wish(vcpu->vm, VM_WISH_RESET); break;
	case KVM_EXIT_FAIL_ENTRY:
		fail(vcpu, "the processor refuses to run it", run->fail_entry.hardware_entry_failure_reason);
		break;
	case KVM_EXIT_INTERNAL_ERROR: fail(vcpu, "KVM cannot go on", run->internal.suberror); break;
	case KVM_EXIT_INTR: break;
	default: fail(vcpu, "unexpected exit", run->exit_reason);
	}
}

static void finish_exit(struct vcpu *vcpu)
{
	if (!vcpu->mid_exit)
		return;
	vcpu->run->immediate_exit = 1;
	(void)ioctl(vcpu->fd, KVM_RUN, 0);
	vcpu->run->immediate_exit = 0;
	vcpu->mid_exit = false;
}

static void park(struct vcpu *vcpu)
{
	struct vm *vm = vcpu->vm;

	finish_exit(vcpu);
	vcpu->parked = true;
	pthread_cond_broadcast(&vm->parked);
	pthread_cond_wait(&vm->go, &vm->lock);
}

static void run_once(struct vcpu *vcpu)
{
	struct vm *vm = vcpu->vm;
	int rc;

	vcpu->parked = false;
	vcpu->mid_exit = false;
	pthread_mutex_unlock(&vm->lock);
	rc = ioctl(vcpu->fd, KVM_RUN, 0) < 0 ? -errno : 0;
	pthread_mutex_lock(&vm->lock);
	if (rc == 0)
		serve_exit(vcpu);
	else if (rc != -EINTR && rc != -EAGAIN)
		fail(vcpu, strerror(-rc), 0);
}

static void *vcpu_main(void *arg)
{
	struct vcpu *vcpu = arg;
	struct vm *vm = vcpu->vm;

	pthread_mutex_lock(&vm->lock);
	while (!vm->ending) {
		vcpu->run->immediate_exit = 0;
		if (vm->pauses > 0)
			park(vcpu);
		else
			run_once(vcpu);
	}
	vcpu->parked = true;
	pthread_cond_broadcast(&vm->parked);
	pthread_mutex_unlock(&vm->lock);
	return NULL;
}

static void ignore(int signal_number)
{
}

int vm_start_vcpus(struct vm *vm, struct err *err)
{
	struct sigaction action = { .sa_handler = ignore };

	sigaction(KICK_SIGNAL, &action, NULL);
	for (uint32_t i = 0; i < vm->vcpus; i++) {
		int rc = pthread_create(&vm->vcpu[i].thread, NULL, vcpu_main, &vm->vcpu[i]);

		if (rc != 0)
			return err_set(err, -rc, "cannot start a thread: %s", strerror(rc));
		vm->vcpu[i].has_thread = true;
	}
	return 0;
}

void vm_kick_vcpus(struct vm *vm)
{
	for (uint32_t i = 0; i < vm->vcpus; i++) {
		if (!vm->vcpu[i].has_thread)
			continue;
		vm->vcpu[i].run->immediate_exit = 1;
		pthread_kill(vm->vcpu[i].thread, KICK_SIGNAL);
	}
	pthread_cond_broadcast(&vm->go);
}

void vm_join_vcpus(struct vm *vm)
{
	for (uint32_t i = 0; i < vm->vcpus; i++)
		if (vm->vcpu[i].has_thread)
			pthread_join(vm->vcpu[i].thread, NULL);
}
