/* A KVM machine on x86-64. See kvm.h. */
#include "vmm-glue/kvm.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/kvm.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

/* Three pages of guest address space that Intel's virtualization wants to itself, in the hole below 4 GiB. */
#define TSS_GPA 0xfffbd000ull
#define IDENTITY_MAP_GPA 0xfffbc000ull

struct kvm_state {
	struct kvm_irqchip chip[3]; /* PIC master, PIC slave, IOAPIC */
	struct kvm_pit_state2 pit;
	struct kvm_clock_data clock;
};

struct need {
	int cap;
	const char *name;
};

static const struct need needs[] = {
	{ KVM_CAP_IRQCHIP, "an in-kernel irqchip" },
	{ KVM_CAP_IRQFD, "irqfd" },
	{ KVM_CAP_IOEVENTFD, "ioeventfd" },
	{ KVM_CAP_IMMEDIATE_EXIT, "immediate exits" },
	{ KVM_CAP_USER_MEMORY, "user memory" },
	{ KVM_CAP_PIT2, "a PIT" },
	{ KVM_CAP_PIT_STATE2, "the PIT's state" },
	{ KVM_CAP_ADJUST_CLOCK, "the guest's clock" },
	{ KVM_CAP_EXT_CPUID, "CPUID" },
	{ KVM_CAP_XSAVE, "XSAVE" },
	{ KVM_CAP_XCRS, "XCRs" },
	{ KVM_CAP_DEBUGREGS, "debug registers" },
	{ KVM_CAP_VCPU_EVENTS, "vCPU events" },
};

static int check_needs(struct kvm *kvm, struct err *err)
{
	int version = ioctl(kvm->fd, KVM_GET_API_VERSION, 0);

	if (version != KVM_API_VERSION)
		return err_set(err, -ENOTSUP, "'/dev/kvm' has API version %d, not %d", version, KVM_API_VERSION);
	for (size_t i = 0; i < sizeof(needs) / sizeof(needs[0]); i++)
		if (ioctl(kvm->vm_fd, KVM_CHECK_EXTENSION, needs[i].cap) <= 0)
			return err_set(err, -ENOTSUP, "'/dev/kvm' cannot do what poolvm needs: %s", needs[i].name);
	return 0;
}

/* The MSRs that KVM names as a guest's state. */
static int list_msrs(struct kvm *kvm, struct err *err)
{
	struct {
		struct kvm_msr_list list;
		uint32_t index[256];
	} all = { .list.nmsrs = 256 };

	if (ioctl(kvm->fd, KVM_GET_MSR_INDEX_LIST, &all) < 0)
		return err_set(err, -errno, "cannot list the MSRs of this KVM: %m");
	kvm->msrs.count = all.list.nmsrs;
	memcpy(kvm->msrs.index, all.list.indices, all.list.nmsrs * sizeof(uint32_t));
	return 0;
}

static int create_chips(struct kvm *kvm, struct err *err)
{
	uint64_t identity = IDENTITY_MAP_GPA;
	struct kvm_pit_config pit = { .flags = KVM_PIT_SPEAKER_DUMMY };

	if (ioctl(kvm->vm_fd, KVM_SET_TSS_ADDR, TSS_GPA) < 0 ||
	    ioctl(kvm->vm_fd, KVM_SET_IDENTITY_MAP_ADDR, &identity) < 0 ||
	    ioctl(kvm->vm_fd, KVM_CREATE_IRQCHIP, 0) < 0 || ioctl(kvm->vm_fd, KVM_CREATE_PIT2, &pit) < 0)
		return err_set(err, -errno, "cannot make interrupt controllers and timer: %m");
	return 0;
}

static int create_machine(struct kvm *kvm, struct err *err)
{
	int bytes, rc;

	kvm->vm_fd = ioctl(kvm->fd, KVM_CREATE_VM, 0);
	if (kvm->vm_fd < 0)
		return err_set(err, -errno, "cannot make a KVM machine: %m");
	rc = check_needs(kvm, err);
	if (rc == 0)
		rc = list_msrs(kvm, err);
	if (rc == 0)
		rc = create_chips(kvm, err);
	kvm->run_bytes = (uint32_t)ioctl(kvm->fd, KVM_GET_VCPU_MMAP_SIZE, 0);
	bytes = ioctl(kvm->vm_fd, KVM_CHECK_EXTENSION, KVM_CAP_XSAVE2);
	kvm->xsave_bytes = bytes > (int)sizeof(struct kvm_xsave) ? (uint32_t)bytes : sizeof(struct kvm_xsave);
	return rc;
}

int kvm_open(struct kvm *kvm, struct err *err)
{
	*kvm = (struct kvm){ .fd = open("/dev/kvm", O_RDWR | O_CLOEXEC), .vm_fd = -1 };
	if (kvm->fd < 0)
		return err_set(err, -errno, "cannot open '/dev/kvm': %m");
	kvm->routes = calloc(1, sizeof(*kvm->routes) + 64 * sizeof(kvm->routes->entries[0]) +
					KVM_MSIS_MAX * sizeof(kvm->routes->entries[0]));
	return kvm->routes ? create_machine(kvm, err) : err_set(err, -ENOMEM, "no memory");
}

void kvm_close(struct kvm *kvm)
{
	if (kvm->vm_fd >= 0)
		close(kvm->vm_fd);
	if (kvm->fd >= 0)
		close(kvm->fd);
	free(kvm->routes);
	*kvm = (struct kvm){ .fd = -1, .vm_fd = -1 };
}

/* ---- memory ---- */

static int set_slots(const struct kvm *kvm, const struct ram *ram, uint32_t flags)
{
	for (uint32_t i = 0; i < ram->pieces; i++) {
		struct kvm_userspace_memory_region region = {
			.slot = i,
			.flags = flags,
			.guest_phys_addr = ram->piece[i].gpa,
			.memory_size = ram->piece[i].len_bytes,
			.userspace_addr = (uintptr_t)ram->base + ram->piece[i].off_bytes,
		};

		if (ioctl(kvm->vm_fd, KVM_SET_USER_MEMORY_REGION, &region) < 0)
			return -errno;
	}
	return 0;
}

int kvm_set_ram(struct kvm *kvm, const struct ram *ram, struct err *err)
{
	int rc = set_slots(kvm, ram, 0);

	return rc < 0 ? err_set(err, rc, "cannot give memory to the guest: %s", strerror(-rc)) : 0;
}

int kvm_log_dirty(struct kvm *kvm, const struct ram *ram, bool on)
{
	return set_slots(kvm, ram, on ? KVM_MEM_LOG_DIRTY_PAGES : 0);
}

int kvm_take_dirty(struct kvm *kvm, struct ram *ram)
{
	for (uint32_t i = 0; i < ram->pieces; i++) {
		const struct ram_piece *piece = &ram->piece[i];
		uint64_t words = (piece->len_bytes / RAM_PAGE_BYTES + 63) / 64;
		uint64_t *log = calloc(words, sizeof(*log)), *into = ram->dirty + piece->gpa / RAM_PAGE_BYTES / 64;
		struct kvm_dirty_log get = { .slot = i, .dirty_bitmap = log };

		if (!log)
			return -ENOMEM;
		if (ioctl(kvm->vm_fd, KVM_GET_DIRTY_LOG, &get) < 0) {
			free(log);
			return -errno;
		}
		for (uint64_t w = 0; w < words; w++)
			if (log[w])
				__atomic_fetch_or(&into[w], log[w], __ATOMIC_RELAXED);
		free(log);
	}
	return 0;
}

/* ---- interrupts and doorbells ---- */

static void add_route(struct kvm *kvm, const struct kvm_irq_routing_entry *entry)
{
	kvm->routes->entries[kvm->routes->nr++] = *entry;
}

static void add_pin(struct kvm *kvm, uint32_t gsi, uint32_t chip, uint32_t pin)
{
	const struct kvm_irq_routing_entry entry = {
		.gsi = gsi,
		.type = KVM_IRQ_ROUTING_IRQCHIP,
		.u.irqchip = { chip, pin },
	};

	add_route(kvm, &entry);
}

/* PIC and IOAPIC share the GSIs of the old interrupts, as on a PC. */
static void add_pins(struct kvm *kvm)
{
	for (uint32_t gsi = 0; gsi < KVM_GSI_PINS; gsi++) {
		if (gsi < 16)
			add_pin(kvm, gsi, gsi < 8 ? KVM_IRQCHIP_PIC_MASTER : KVM_IRQCHIP_PIC_SLAVE, gsi % 8);
		add_pin(kvm, gsi, KVM_IRQCHIP_IOAPIC, gsi);
	}
}

int kvm_set_msi(struct kvm *kvm, uint32_t slot, uint64_t addr, uint32_t data)
{
	if (kvm->msi[slot].used && kvm->msi[slot].addr == addr && kvm->msi[slot].data == data)
		return 0;
	kvm->msi[slot].used = true;
	kvm->msi[slot].addr = addr;
	kvm->msi[slot].data = data;
	kvm->routes->nr = 0;
	add_pins(kvm);
	for (uint32_t i = 0; i < KVM_MSIS_MAX; i++) {
		const struct kvm_irq_routing_entry entry = {
			.gsi = KVM_GSI_MSI + i,
			.type = KVM_IRQ_ROUTING_MSI,
			.u.msi = { (uint32_t)kvm->msi[i].addr,
				   (uint32_t)(kvm->msi[i].addr >> 32),
				   kvm->msi[i].data,
				   { 0 } },
		};

		if (kvm->msi[i].used)
			add_route(kvm, &entry);
	}
	return ioctl(kvm->vm_fd, KVM_SET_GSI_ROUTING, kvm->routes) < 0 ? -errno : 0;
}

int kvm_bind_irq(struct kvm *kvm, int fd, uint32_t gsi, bool bind)
{
	struct kvm_irqfd irqfd = { .fd = (uint32_t)fd, .gsi = gsi, .flags = bind ? 0 : KVM_IRQFD_FLAG_DEASSIGN };

	return ioctl(kvm->vm_fd, KVM_IRQFD, &irqfd) < 0 ? -errno : 0;
}

int kvm_bind_doorbell(struct kvm *kvm, int fd, uint64_t gpa, bool bind)
{
	struct kvm_ioeventfd doorbell = {
		.addr = gpa,
		.len = 2,
		.fd = fd,
		.flags = bind ? 0 : KVM_IOEVENTFD_FLAG_DEASSIGN,
	};

	return ioctl(kvm->vm_fd, KVM_IOEVENTFD, &doorbell) < 0 ? -errno : 0;
}

void kvm_pulse(struct kvm *kvm, uint32_t pin)
{
	struct kvm_irq_level level = { .irq = pin, .level = 1 };

	(void)ioctl(kvm->vm_fd, KVM_IRQ_LINE, &level);
	level.level = 0;
	(void)ioctl(kvm->vm_fd, KVM_IRQ_LINE, &level);
}

/* ---- state ---- */

size_t kvm_state_bytes(void)
{
	return sizeof(struct kvm_state);
}

int kvm_save(struct kvm *kvm, struct kvm_state *state, struct err *err)
{
	memset(state, 0, sizeof(*state));
	for (uint32_t i = 0; i < 3; i++) {
		state->chip[i].chip_id = i;
		if (ioctl(kvm->vm_fd, KVM_GET_IRQCHIP, &state->chip[i]) < 0)
			return err_set(err, -errno, "cannot read the interrupt controllers: %m");
	}
	if (ioctl(kvm->vm_fd, KVM_GET_PIT2, &state->pit) < 0 || ioctl(kvm->vm_fd, KVM_GET_CLOCK, &state->clock) < 0)
		return err_set(err, -errno, "cannot read timer and clock: %m");
	return 0;
}

/* The guest's clock goes on where it stood; what it says of this host's other clocks is of no use elsewhere. */
int kvm_load(struct kvm *kvm, const struct kvm_state *state, struct err *err)
{
	struct kvm_clock_data clock = { .clock = state->clock.clock };

	for (uint32_t i = 0; i < 3; i++)
		if (ioctl(kvm->vm_fd, KVM_SET_IRQCHIP, &state->chip[i]) < 0)
			return err_set(err, -errno, "cannot set the interrupt controllers: %m");
	if (ioctl(kvm->vm_fd, KVM_SET_PIT2, &state->pit) < 0 || ioctl(kvm->vm_fd, KVM_SET_CLOCK, &clock) < 0)
		return err_set(err, -errno, "cannot set timer and clock: %m");
	return 0;
}
