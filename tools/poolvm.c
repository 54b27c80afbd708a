/* poolvm: one virtual machine on KVM. Reads the options, makes the machine, boots it (or takes it over), serves its events
 * until it ends. The machine itself is in vmm-glue/.
 *
 * SIGTERM presses the power button; a second one, or SIGINT, ends the machine as if the power was cut. */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/signalfd.h>
#include <termios.h>
#include <unistd.h>

#include "pool/base/list.h"
#include "tools/poolvm_config.h"
#include "tools/poolvm_control.h"
#include "tools/version.h"
#include "vmm-glue/migrate.h"
#include "vmm-glue/say.h"
#include "vmm-glue/seccomp.h"
#include "vmm-glue/stream.h"

#define EXIT_USAGE 2

struct poolvm {
	struct poolvm_config config;
	struct vm vm;
	struct poolvm_control *control;
	struct event signals;
	struct stream incoming; /* where the VM comes from */
	bool asked_to_leave;
	bool raw_terminal;
	struct termios terminal;
};

/* --- signals ---------------------------------------------------------------------------------------------- */

static void on_signal(struct event *event, uint32_t epoll_events)
{
	struct poolvm *poolvm = container_of(event, struct poolvm, signals);
	struct signalfd_siginfo info;

	if (read(event->fd, &info, sizeof(info)) != sizeof(info))
		return;
	if (info.ssi_signo == SIGTERM && !poolvm->asked_to_leave) {
		poolvm->asked_to_leave = true;
		vm_press_power_button(&poolvm->vm);
		return;
	}
	vmm_say("ending on %s", strsignal((int)info.ssi_signo));
	vm_end(&poolvm->vm, 0);
}

/* Before any thread is made, so that all inherit the mask. */
static int block_signals(struct poolvm *poolvm, struct err *err)
{
	sigset_t set;

	signal(SIGPIPE, SIG_IGN);
	sigemptyset(&set);
	sigaddset(&set, SIGTERM);
	sigaddset(&set, SIGINT);
	pthread_sigmask(SIG_BLOCK, &set, NULL);
	poolvm->signals = (struct event){ signalfd(-1, &set, SFD_NONBLOCK | SFD_CLOEXEC), on_signal };
	return poolvm->signals.fd < 0 ? err_set(err, -errno, "cannot make a signalfd: %m") : 0;
}

/* --- the terminal ----------------------------------------------------------------------------------------- */

/* Every key goes to the guest, but for those that make signals. */
static void set_terminal(struct poolvm *poolvm)
{
	struct termios raw;

	if (poolvm->config.vm.serial_in_fd < 0 || tcgetattr(STDIN_FILENO, &poolvm->terminal) < 0)
		return;
	raw = poolvm->terminal;
	raw.c_lflag &= ~(unsigned)(ICANON | ECHO);
	poolvm->raw_terminal = tcsetattr(STDIN_FILENO, TCSANOW, &raw) == 0;
}

static void restore_terminal(struct poolvm *poolvm)
{
	if (poolvm->raw_terminal)
		tcsetattr(STDIN_FILENO, TCSANOW, &poolvm->terminal);
}

/* --- the machine ------------------------------------------------------------------------------------------ */

static int boot_machine(struct poolvm *poolvm, struct err *err)
{
	struct vm *vm = &poolvm->vm;
	int rc = vm_create(vm, &poolvm->config.vm, -1, err);

	if (rc == 0)
		rc = vm_add_devices(vm, err);
	if (rc == 0)
		rc = vm_boot(vm, err);
	return rc;
}

/* What comes out of a file is a copy, and told so. */
static int restore_machine(struct poolvm *poolvm, struct err *err)
{
	int rc = vm_incoming_open(&poolvm->incoming, poolvm->config.restore, err);

	if (rc == 0)
		rc = vm_incoming_load(&poolvm->vm, &poolvm->config.vm, &poolvm->incoming, err);
	if (rc == 0)
		vm_set_generation(&poolvm->vm, poolvm->config.vm.generation);
	return rc;
}

static int receive_machine(struct poolvm *poolvm, struct err *err)
{
	int rc = vm_incoming_accept(&poolvm->incoming, poolvm->config.incoming, err);

	return rc < 0 ? rc : vm_incoming_load(&poolvm->vm, &poolvm->config.vm, &poolvm->incoming, err);
}

static int make_machine(struct poolvm *poolvm, struct err *err)
{
	if (poolvm->config.incoming)
		return receive_machine(poolvm, err);
	return poolvm->config.restore ? restore_machine(poolvm, err) : boot_machine(poolvm, err);
}

static int start(struct poolvm *poolvm, struct err *err)
{
	struct vm *vm = &poolvm->vm;
	int rc = make_machine(poolvm, err);

	if (rc == 0 && events_add(&vm->events, &poolvm->signals, EPOLLIN) < 0)
		rc = err_set(err, -ENOMEM, "no memory");
	if (rc == 0 && poolvm->config.control)
		rc = poolvm_control_open(vm, poolvm->config.control, &poolvm->control, err);
	if (rc == 0)
		rc = vm_start_vcpus(vm, err);
	if (rc == 0 && !poolvm->config.no_seccomp)
		rc = seccomp_confine(err);
	/* The last thing that may fail. */
	if (rc == 0 && poolvm->config.incoming)
		rc = vm_incoming_take(&poolvm->incoming, err);
	return rc;
}

static int run(struct poolvm *poolvm, struct err *err)
{
	struct vm *vm = &poolvm->vm;
	int rc = block_signals(poolvm, err);

	if (rc == 0)
		rc = start(poolvm, err);
	if (rc == 0) {
		set_terminal(poolvm);
		pthread_mutex_lock(&vm->lock);
		vm_resume(vm);
		pthread_mutex_unlock(&vm->lock);
		if (poolvm->config.incoming && !vm->ending)
			vm_incoming_running(&poolvm->incoming);
		stream_close(&poolvm->incoming);
		rc = vm_run(vm) == 0 ? 0 : err_set(err, -EIO, "the machine has failed");
		restore_terminal(poolvm);
	}
	stream_close(&poolvm->incoming);
	vm_move_join(vm);
	poolvm_control_close(poolvm->control);
	vm_destroy(vm);
	return rc;
}

static void print_help(void)
{
	printf("usage: poolvm --kernel FILE [OPTION]...\n"
	       "Runs one virtual machine on KVM, its disks served by vhost-user-blk.\n\n");
	poolvm_config_print_options();
	printf("\npoolvm(8) tells more.\n");
}

int main(int argc, char **argv)
{
	static struct poolvm poolvm = { .incoming = { .fd = -1, .got_fd = -1 } };
	struct err err;

	if (poolvm_config_read(&poolvm.config, argc, argv, &err) < 0) {
		fprintf(stderr, "poolvm: %s; 'poolvm --help' lists the options\n", err.msg);
		return EXIT_USAGE;
	}
	if (poolvm.config.show_help) {
		print_help();
	} else if (poolvm.config.show_version) {
		printf("poolvm " POOLD_VERSION "\n");
	} else if (run(&poolvm, &err) < 0) {
		vmm_say("%s", err.msg);
		return EXIT_FAILURE;
	}
	return EXIT_SUCCESS;
}
