/* The system calls of a running VM. See seccomp.h. What is only needed to make one (open /dev/kvm, /dev/net/tun by a
 * restore, memfd_create ...) has happened before. */
#include "vmm-glue/seccomp.h"

#include <errno.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

static const int allowed[] = {
	/* vCPUs, interrupts, doorbells, dirty log; the tap; the terminal */
	SYS_ioctl,
	/* the event loop */
	SYS_epoll_wait,
	SYS_epoll_pwait,
	SYS_epoll_ctl,
	SYS_poll,
	SYS_timerfd_settime,
	/* eventfds, serial port, tap, state files */
	SYS_read,
	SYS_write,
	SYS_readv,
	SYS_writev,
	SYS_close,
	SYS_fcntl,
	/* kernel and initrd, again at each reset */
	SYS_pread64,
	SYS_fstat,
	SYS_newfstatat,
	/* back ends, control clients, migration: connecting, accepting, talking */
	SYS_socket,
	SYS_connect,
	SYS_socketpair,
	SYS_setsockopt,
	SYS_accept4,
	SYS_recvmsg,
	SYS_sendmsg,
	SYS_recvfrom,
	SYS_sendto,
	/* a saved state: create, complete, give its name; the taps after a migration that failed */
	SYS_openat,
	SYS_fsync,
	SYS_rename,
	SYS_unlink,
	/* memory of the guest: give back pages, find those in use */
	SYS_fallocate,
	SYS_lseek,
	/* our own memory */
	SYS_mmap,
	SYS_munmap,
	SYS_mprotect,
	SYS_mremap,
	SYS_madvise,
	SYS_brk,
	/* threads: locks, the one of a migration, ending */
	SYS_futex,
	SYS_clone,
	SYS_clone3,
	SYS_set_robust_list,
	SYS_rseq,
	SYS_exit,
	SYS_exit_group,
	SYS_restart_syscall,
	/* kicking vCPUs out of the guest */
	SYS_tgkill,
	SYS_getpid,
	SYS_gettid,
	SYS_rt_sigprocmask,
	SYS_rt_sigreturn,
	/* randomness for the guest; time, where the vDSO has none */
	SYS_getrandom,
	SYS_clock_gettime,
	SYS_clock_nanosleep,
};
#define ALLOWED_COUNT (sizeof(allowed) / sizeof(allowed[0]))

/* One comparison a call; a hit jumps over the rest to the last instruction. */
static struct sock_fprog build(struct sock_filter *code)
{
	unsigned short n = 0;

	code[n++] = (struct sock_filter)BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, arch));
	code[n++] = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, AUDIT_ARCH_X86_64, 1, 0);
	code[n++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS);
	code[n++] = (struct sock_filter)BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr));
	for (size_t i = 0; i < ALLOWED_COUNT; i++)
		code[n++] = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (uint32_t)allowed[i],
							 (uint8_t)(ALLOWED_COUNT - i), 0);
	code[n++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS);
	code[n++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW);
	return (struct sock_fprog){ n, code };
}

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define SANITIZED true /* sanitizers make calls of their own */
#else
#define SANITIZED false
#endif

int seccomp_confine(struct err *err)
{
	struct sock_filter code[ALLOWED_COUNT + 6];
	struct sock_fprog program = build(code);

	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0)
		return err_set(err, -errno, "cannot renounce new privileges: %m");
	if (!SANITIZED && syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_TSYNC, &program) != 0)
		return err_set(err, -errno, "cannot limit the system calls: %m");
	return 0;
}
