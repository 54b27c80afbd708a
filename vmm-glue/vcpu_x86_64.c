/* What a vCPU is on x86-64: CPUID, and its state as a whole. See vcpu.h.
 *
 * The order of saving and loading is KVM's: reading MP_STATE first lets it deliver what is pending; the LAPIC is set after
 * SREGS (which hold APIC_BASE) and before MSRs (of which TSC_DEADLINE needs it); events come last. */
#include "vmm-glue/vcpu.h"

#include <assert.h>
#include <errno.h>
#include <linux/kvm.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

#define CPUID_ENTRIES_MAX 128
#define MSRS_MAX 256

#define MSR_IA32_MISC_ENABLE 0x1a0
#define MSR_MTRR_DEF_TYPE 0x2ff
#define MISC_ENABLE_FAST_STRING 1
#define MTRR_ENABLE_WRITE_BACK 0x806

struct cpuid {
	struct kvm_cpuid2 head;
	struct kvm_cpuid_entry2 entry[CPUID_ENTRIES_MAX];
};

struct msrs {
	struct kvm_msrs head;
	struct kvm_msr_entry entry[MSRS_MAX];
};

struct vcpu_state {
	struct kvm_mp_state mp;
	struct kvm_regs regs;
	struct kvm_sregs sregs;
	struct kvm_xcrs xcrs;
	struct kvm_debugregs debug;
	struct kvm_lapic_state lapic;
	struct kvm_vcpu_events events;
	uint64_t tsc_khz;
	struct cpuid cpuid;
	struct msrs msrs;
	uint8_t xsave[]; /* kvm->xsave_bytes */
};

/* ---- CPUID ---- */

#define LEAF1_ECX_TSC_DEADLINE (1u << 24)
#define LEAF1_ECX_HYPERVISOR (1u << 31)
#define LEAF1_EDX_HTT (1u << 28)

static uint32_t bits_for(uint32_t count)
{
	return count > 1 ? 32 - (uint32_t)__builtin_clz(count - 1) : 0;
}

static void set_identity(struct kvm_cpuid_entry2 *e, uint32_t index, uint32_t count)
{
	switch (e->function) {
	case 0x1:
		e->ebx = (e->ebx & 0xffff) | (count << 16) | (index << 24);
		e->ecx |= LEAF1_ECX_TSC_DEADLINE | LEAF1_ECX_HYPERVISOR;
		e->edx = count > 1 ? e->edx | LEAF1_EDX_HTT : e->edx & ~LEAF1_EDX_HTT;
		break;
	case 0x4: /* caches: one core a thread, all in one package */
		e->eax = (e->eax & 0x3fff) | ((count - 1) << 26);
		break;
	case 0xb:
	case 0x1f: /* levels: 0 threads of a core, 1 cores of the package */
		e->eax = e->index == 1 ? bits_for(count) : 0;
		e->ebx = e->index == 0 ? 1 : e->index == 1 ? count : 0;
		e->ecx = e->index | (e->index == 0 ? 1u << 8 : e->index == 1 ? 2u << 8 : 0);
		e->edx = index;
		break;
	case 0x80000008: e->ecx = (bits_for(count) << 12) | (count - 1); break;
	case 0x8000001e: /* one core a thread */
		e->eax = index;
		e->ebx = index & 0xff;
		e->ecx = 0;
		break;
	}
}

static int set_cpuid(struct vcpu *vcpu, const struct kvm *kvm, uint32_t count, struct err *err)
{
	struct cpuid cpuid = { .head.nent = CPUID_ENTRIES_MAX };

	if (ioctl(kvm->fd, KVM_GET_SUPPORTED_CPUID, &cpuid) < 0)
		return err_set(err, -errno, "cannot learn which CPU features KVM supports: %m");
	for (uint32_t i = 0; i < cpuid.head.nent; i++)
		set_identity(&cpuid.entry[i], vcpu->index, count);
	if (ioctl(vcpu->fd, KVM_SET_CPUID2, &cpuid) < 0)
		return err_set(err, -errno, "cannot set the CPU's features: %m");
	return 0;
}

/* What firmware would have set: memory is cached by default, string moves are fast. */
static int set_firmware_msrs(struct vcpu *vcpu, struct err *err)
{
	static const struct kvm_msr_entry entries[] = {
		{ .index = MSR_IA32_MISC_ENABLE, .data = MISC_ENABLE_FAST_STRING },
		{ .index = MSR_MTRR_DEF_TYPE, .data = MTRR_ENABLE_WRITE_BACK },
	};

	for (size_t i = 0; i < sizeof(entries) / sizeof(entries[0]); i++) {
		struct {
			struct kvm_msrs head;
			struct kvm_msr_entry entry;
		} one = { { .nmsrs = 1 }, entries[i] };

		if (ioctl(vcpu->fd, KVM_SET_MSRS, &one) < 0)
			return err_set(err, -errno, "cannot set MSR %#x: %m", entries[i].index);
	}
	return 0;
}

int vcpu_create(struct vcpu *vcpu, const struct kvm *kvm, uint32_t count, struct err *err)
{
	void *run;
	int rc;

	vcpu->fd = ioctl(kvm->vm_fd, KVM_CREATE_VCPU, (unsigned long)vcpu->index);
	if (vcpu->fd < 0)
		return err_set(err, -errno, "cannot make vCPU %u: %m", vcpu->index);
	run = mmap(NULL, kvm->run_bytes, PROT_READ | PROT_WRITE, MAP_SHARED, vcpu->fd, 0);
	if (run == MAP_FAILED)
		return err_set(err, -errno, "cannot map vCPU %u: %m", vcpu->index);
	vcpu->run = run;
	rc = set_cpuid(vcpu, kvm, count, err);
	return rc < 0 ? rc : set_firmware_msrs(vcpu, err);
}

void vcpu_destroy(struct vcpu *vcpu, const struct kvm *kvm)
{
	if (vcpu->run)
		munmap(vcpu->run, kvm->run_bytes);
	if (vcpu->fd >= 0)
		close(vcpu->fd);
	vcpu->run = NULL;
	vcpu->fd = -1;
}

/* ---- state ---- */

size_t vcpu_state_bytes(const struct kvm *kvm)
{
	return (sizeof(struct vcpu_state) + kvm->xsave_bytes + 7) / 8 * 8;
}

static int fail(struct vcpu *vcpu, const char *what, struct err *err)
{
	return err_set(err, errno ? -errno : -EIO, "cannot %s of vCPU %u: %m", what, vcpu->index);
}

/* KVM stops at the first it cannot give; that one is left out. */
static int save_msrs(struct vcpu *vcpu, const struct kvm *kvm, struct msrs *msrs, struct err *err)
{
	for (uint32_t i = 0; i < kvm->msrs.count && msrs->head.nmsrs < MSRS_MAX; i++) {
		struct {
			struct kvm_msrs head;
			struct kvm_msr_entry entry;
		} one = {
			{ .nmsrs = 1 },
			{ .index = kvm->msrs.index[i] },
		};
		int got = ioctl(vcpu->fd, KVM_GET_MSRS, &one);

		if (got < 0)
			return fail(vcpu, "read MSRs", err);
		if (got == 1)
			msrs->entry[msrs->head.nmsrs++] = one.entry;
	}
	return 0;
}

int vcpu_save(struct vcpu *vcpu, const struct kvm *kvm, struct vcpu_state *state, struct err *err)
{
	unsigned long xsave = kvm->xsave_bytes > sizeof(struct kvm_xsave) ? KVM_GET_XSAVE2 : KVM_GET_XSAVE;

	memset(state, 0, vcpu_state_bytes(kvm));
	state->cpuid.head.nent = CPUID_ENTRIES_MAX;
	state->tsc_khz = (uint64_t)ioctl(vcpu->fd, KVM_GET_TSC_KHZ, 0);
	if (ioctl(vcpu->fd, KVM_GET_MP_STATE, &state->mp) < 0 || ioctl(vcpu->fd, KVM_GET_REGS, &state->regs) < 0 ||
	    ioctl(vcpu->fd, KVM_GET_SREGS, &state->sregs) < 0 || ioctl(vcpu->fd, xsave, state->xsave) < 0 ||
	    ioctl(vcpu->fd, KVM_GET_XCRS, &state->xcrs) < 0 || ioctl(vcpu->fd, KVM_GET_DEBUGREGS, &state->debug) < 0 ||
	    ioctl(vcpu->fd, KVM_GET_LAPIC, &state->lapic) < 0 || ioctl(vcpu->fd, KVM_GET_CPUID2, &state->cpuid) < 0)
		return fail(vcpu, "read the registers", err);
	if (save_msrs(vcpu, kvm, &state->msrs, err) < 0)
		return -EIO;
	return ioctl(vcpu->fd, KVM_GET_VCPU_EVENTS, &state->events) < 0 ? fail(vcpu, "read events", err) : 0;
}

static int load_msrs(struct vcpu *vcpu, const struct msrs *msrs, struct err *err)
{
	for (uint32_t i = 0; i < msrs->head.nmsrs; i++) {
		struct {
			struct kvm_msrs head;
			struct kvm_msr_entry entry;
		} one = { { .nmsrs = 1 }, msrs->entry[i] };

		if (ioctl(vcpu->fd, KVM_SET_MSRS, &one) != 1)
			return err_set(err, -EINVAL, "cannot set MSR %#x of vCPU %u to %#llx", msrs->entry[i].index,
				       vcpu->index, (unsigned long long)msrs->entry[i].data);
	}
	return 0;
}

int vcpu_load(struct vcpu *vcpu, const struct kvm *kvm, const struct vcpu_state *state, struct err *err)
{
	/* A KVM that cannot scale the TSC keeps its own rate; the guest's clock is told of it by KVM. */
	if (state->tsc_khz)
		(void)ioctl(vcpu->fd, KVM_SET_TSC_KHZ, (unsigned long)state->tsc_khz);
	if (state->cpuid.head.nent > CPUID_ENTRIES_MAX || state->msrs.head.nmsrs > MSRS_MAX)
		return err_set(err, -EINVAL, "the state of vCPU %u is none", vcpu->index);
	if (ioctl(vcpu->fd, KVM_SET_CPUID2, &state->cpuid) < 0 || ioctl(vcpu->fd, KVM_SET_MP_STATE, &state->mp) < 0 ||
	    ioctl(vcpu->fd, KVM_SET_REGS, &state->regs) < 0 || ioctl(vcpu->fd, KVM_SET_SREGS, &state->sregs) < 0 ||
	    ioctl(vcpu->fd, KVM_SET_XSAVE, state->xsave) < 0 || ioctl(vcpu->fd, KVM_SET_XCRS, &state->xcrs) < 0 ||
	    ioctl(vcpu->fd, KVM_SET_DEBUGREGS, &state->debug) < 0 || ioctl(vcpu->fd, KVM_SET_LAPIC, &state->lapic) < 0)
		return fail(vcpu, "set the registers", err);
	if (load_msrs(vcpu, &state->msrs, err) < 0)
		return -EINVAL;
	return ioctl(vcpu->fd, KVM_SET_VCPU_EVENTS, &state->events) < 0 ? fail(vcpu, "set events", err) : 0;
}

void vcpu_was_paused(struct vcpu *vcpu)
{
	/* Fails in a guest without kvmclock, which has no watchdog to soothe. */
	(void)ioctl(vcpu->fd, KVM_KVMCLOCK_CTRL, 0);
}
