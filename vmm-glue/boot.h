/* Putting a guest's kernel in memory and a vCPU at its first instruction: bzImage by the 64-bit boot protocol, and ELF by
 * PVH. No firmware runs. */
#ifndef VMM_BOOT_H
#define VMM_BOOT_H

#include "vmm-glue/ram.h"
#include "vmm-glue/vcpu.h"

struct boot_source {
	int kernel_fd, initrd_fd; /* initrd: -1 for none */
	const char *cmdline;
};

/* The ways to enter a kernel. */
struct boot_entry {
	bool is_pvh; /* 32-bit with start info, instead of 64-bit with boot parameters */
	uint64_t entry_gpa;
};

/* Fills guest memory: kernel, initrd, command line, tables. */
int boot_load(struct ram *ram, const struct boot_source *source, struct boot_entry *entry, struct err *err)
	__attribute__((warn_unused_result));
/* Sets the first vCPU's registers; the others wait for it. */
int boot_set_registers(struct vcpu *vcpu, const struct boot_entry *entry, struct err *err)
	__attribute__((warn_unused_result));

#endif
