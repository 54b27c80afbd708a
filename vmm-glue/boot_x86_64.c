/* Booting on x86-64. See boot.h; places are in layout.h.
 *
 * bzImage (Documentation/arch/x86/boot.rst): the setup header lies at 0x1f1 of the file; behind the setup sectors follows the
 * part for protected mode, entered 0x200 bytes after its start in long mode with memory mapped as it is, RSI at the
 * boot parameters.
 *
 * PVH (xen docs/misc/pvh.pandoc): an ELF file with a note that names a 32-bit entry; EBX at the start info.
 *
 * A kernel file is believed in nothing: whatever it names must lie in memory. */
#include "vmm-glue/boot.h"

#include <asm/bootparam.h>
#include <elf.h>
#include <errno.h>
#include <linux/kvm.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "vmm-glue/layout.h"

#define MIB (1ull << 20)
#define SETUP_HEADER_OFF 0x1f1u
#define SETUP_MAGIC 0x53726448u /* HdrS */
#define PROTOCOL_64BIT 0x020cu
#define LOADER_UNKNOWN 0xff
#define NOTE_PVH_ENTRY 18u
#define PVH_MAGIC 0x336ec578u
#define E820_RAM 1u
#define E820_RESERVED 2u

struct pvh_start_info {
	uint32_t magic, version, flags, nr_modules;
	uint64_t modlist_gpa, cmdline_gpa, rsdp_gpa, memmap_gpa;
	uint32_t memmap_entries, reserved;
};

struct pvh_module {
	uint64_t gpa, len_bytes, cmdline_gpa, reserved;
};

struct pvh_memmap {
	uint64_t gpa, len_bytes;
	uint32_t type, reserved;
};

/* ---- files ---- */

static int file_bytes(int fd, uint64_t *bytes)
{
	struct stat st;

	*bytes = 0;
	if (fstat(fd, &st) < 0)
		return -errno;
	*bytes = (uint64_t)st.st_size;
	return 0;
}

/* Reads part of a file into guest memory. -EFAULT: it does not fit; -ENOEXEC: the file is shorter. */
static int read_into(struct ram *ram, uint64_t gpa, int fd, uint64_t off_bytes, uint64_t len_bytes)
{
	uint8_t *at = ram_at(ram, gpa, len_bytes);

	if (!at)
		return -EFAULT;
	while (len_bytes > 0) {
		ssize_t got = pread(fd, at, len_bytes, (off_t)off_bytes);

		if (got <= 0)
			return got < 0 ? -errno : -ENOEXEC;
		at += got;
		off_bytes += (uint64_t)got;
		len_bytes -= (uint64_t)got;
	}
	return 0;
}

static int explain(int rc, const char *what, struct err *err)
{
	if (rc == -EFAULT)
		return err_set(err, rc, "the %s does not fit in the guest's memory", what);
	if (rc == -ENOEXEC)
		return err_set(err, rc,
			       "the %s is neither a 64-bit bzImage nor an ELF file with a PVH entry, or is cut short",
			       what);
	return rc < 0 ? err_set(err, rc, "cannot read the %s: %s", what, strerror(-rc)) : 0;
}

/* At the top of what the kernel reaches, above the kernel's own end. */
static int load_initrd(struct ram *ram, int fd, uint64_t kernel_end, uint64_t last_max, uint64_t *gpa, uint64_t *bytes,
		       struct err *err)
{
	uint64_t top = ram->piece[0].len_bytes;
	int rc;

	*gpa = *bytes = 0;
	if (fd < 0)
		return 0;
	if (last_max < top)
		top = last_max + 1;
	rc = file_bytes(fd, bytes);
	if (rc == 0 && (*bytes > top || (top - *bytes) / RAM_PAGE_BYTES * RAM_PAGE_BYTES < kernel_end))
		rc = -EFAULT;
	if (rc == 0) {
		*gpa = (top - *bytes) / RAM_PAGE_BYTES * RAM_PAGE_BYTES;
		rc = read_into(ram, *gpa, fd, 0, *bytes);
	}
	return explain(rc, "initrd", err);
}

static int load_cmdline(struct ram *ram, const char *cmdline, struct err *err)
{
	size_t bytes = strlen(cmdline) + 1;

	if (bytes > LAYOUT_CMDLINE_BYTES_MAX)
		return err_set(err, -E2BIG, "the command line is longer than %u bytes", LAYOUT_CMDLINE_BYTES_MAX - 1);
	return ram_put(ram, LAYOUT_CMDLINE, cmdline, bytes) ? 0 : err_set(err, -EFAULT, "too little memory to boot");
}

/* ---- the memory map ---- */

/* Five entries at most; the two loaders have a format each. */
static uint32_t map_memory(const struct ram *ram, struct pvh_memmap map[5])
{
	uint32_t count = 0;

	map[count++] = (struct pvh_memmap){ 0, LAYOUT_LOW_END, E820_RAM, 0 };
	map[count++] = (struct pvh_memmap){ LAYOUT_LOW_END, MIB - LAYOUT_LOW_END, E820_RESERVED, 0 };
	map[count++] = (struct pvh_memmap){ MIB, ram->piece[0].len_bytes - MIB, E820_RAM, 0 };
	map[count++] = (struct pvh_memmap){ LAYOUT_PCI_CONFIG, LAYOUT_PCI_CONFIG_BYTES, E820_RESERVED, 0 };
	if (ram->pieces == 2)
		map[count++] = (struct pvh_memmap){ ram->piece[1].gpa, ram->piece[1].len_bytes, E820_RAM, 0 };
	return count;
}

/* ---- bzImage ---- */

static int check_header(const struct setup_header *hdr)
{
	if (hdr->boot_flag != 0xaa55 || hdr->header != SETUP_MAGIC || hdr->version < PROTOCOL_64BIT)
		return -ENOEXEC;
	return (hdr->xloadflags & XLF_KERNEL_64) && (hdr->loadflags & LOADED_HIGH) ? 0 : -ENOEXEC;
}

static void fill_e820(const struct ram *ram, struct boot_params *params)
{
	struct pvh_memmap map[5];
	uint32_t count = map_memory(ram, map);

	for (uint32_t i = 0; i < count; i++)
		params->e820_table[i] = (struct boot_e820_entry){ map[i].gpa, map[i].len_bytes, map[i].type };
	params->e820_entries = (uint8_t)count;
}

static int load_bzimage(struct ram *ram, const struct boot_source *source, uint64_t kernel_bytes,
			struct boot_params *params, struct boot_entry *entry, struct err *err)
{
	struct setup_header *hdr = &params->hdr;
	uint64_t setup_bytes = ((hdr->setup_sects ? hdr->setup_sects : 4u) + 1ull) * 512;
	uint64_t gpa = hdr->pref_address ? hdr->pref_address : LAYOUT_KERNEL_MIN, initrd_gpa, initrd_bytes;
	int rc = setup_bytes < kernel_bytes ? 0 : -ENOEXEC;

	/* The kernel unpacks itself into init_size bytes. */
	if (rc == 0 && (gpa < LAYOUT_KERNEL_MIN || !ram_at(ram, gpa, hdr->init_size)))
		rc = -EFAULT;
	if (rc == 0)
		rc = read_into(ram, gpa, source->kernel_fd, setup_bytes, kernel_bytes - setup_bytes);
	if (rc < 0)
		return explain(rc, "kernel", err);
	rc = load_initrd(ram, source->initrd_fd, gpa + hdr->init_size, hdr->initrd_addr_max, &initrd_gpa, &initrd_bytes,
			 err);
	if (rc < 0)
		return rc;
	hdr->type_of_loader = LOADER_UNKNOWN;
	hdr->code32_start = (uint32_t)gpa;
	hdr->cmd_line_ptr = (uint32_t)LAYOUT_CMDLINE;
	hdr->ramdisk_image = (uint32_t)initrd_gpa;
	hdr->ramdisk_size = (uint32_t)initrd_bytes;
	params->acpi_rsdp_addr = LAYOUT_ACPI;
	fill_e820(ram, params);
	*entry = (struct boot_entry){ .entry_gpa = gpa + 0x200 };
	return ram_put(ram, LAYOUT_BOOT_PARAMS, params, sizeof(*params)) ? 0 : explain(-EFAULT, "kernel", err);
}

/* ---- ELF with PVH ---- */

/* The entry named in a segment of notes; 0: none. */
static uint64_t find_note(int fd, const Elf64_Phdr *ph)
{
	uint8_t notes[4096];
	uint64_t bytes = ph->p_filesz < sizeof(notes) ? ph->p_filesz : sizeof(notes);

	if (pread(fd, notes, bytes, (off_t)ph->p_offset) != (ssize_t)bytes)
		return 0;
	for (uint64_t at = 0; at + sizeof(Elf64_Nhdr) <= bytes;) {
		Elf64_Nhdr note;
		uint64_t desc, entry = 0;

		memcpy(&note, notes + at, sizeof(note));
		desc = at + sizeof(note) + (note.n_namesz + 3ull) / 4 * 4;
		if (note.n_type == NOTE_PVH_ENTRY && note.n_descsz <= 8 && desc + note.n_descsz <= bytes) {
			memcpy(&entry, notes + desc, note.n_descsz);
			return entry;
		}
		at = desc + (note.n_descsz + 3ull) / 4 * 4;
	}
	return 0;
}

static int load_segment(struct ram *ram, int fd, const Elf64_Phdr *ph, uint64_t *kernel_end)
{
	if (ph->p_memsz < ph->p_filesz || ph->p_paddr < LAYOUT_KERNEL_MIN || !ram_at(ram, ph->p_paddr, ph->p_memsz))
		return -EFAULT;
	if (ph->p_paddr + ph->p_memsz > *kernel_end)
		*kernel_end = ph->p_paddr + ph->p_memsz;
	return read_into(ram, ph->p_paddr, fd, ph->p_offset, ph->p_filesz);
}

static int load_elf(struct ram *ram, int fd, const Elf64_Ehdr *eh, struct boot_entry *entry, uint64_t *kernel_end)
{
	int rc = 0;

	*entry = (struct boot_entry){ .is_pvh = true };
	*kernel_end = 0;
	for (uint32_t i = 0; rc == 0 && i < eh->e_phnum; i++) {
		Elf64_Phdr ph;

		if (pread(fd, &ph, sizeof(ph), (off_t)(eh->e_phoff + i * sizeof(ph))) != sizeof(ph))
			return -ENOEXEC;
		if (ph.p_type == PT_LOAD)
			rc = load_segment(ram, fd, &ph, kernel_end);
		else if (ph.p_type == PT_NOTE && entry->entry_gpa == 0)
			entry->entry_gpa = find_note(fd, &ph);
	}
	return rc < 0 ? rc : entry->entry_gpa > 0 ? 0 : -ENOEXEC;
}

static int load_pvh(struct ram *ram, const struct boot_source *source, const Elf64_Ehdr *eh, struct boot_entry *entry,
		    struct err *err)
{
	struct {
		struct pvh_start_info info;
		struct pvh_module initrd;
		struct pvh_memmap map[5];
	} all = { 0 };
	uint64_t kernel_end;
	int rc = explain(load_elf(ram, source->kernel_fd, eh, entry, &kernel_end), "kernel", err);

	if (rc == 0)
		rc = load_initrd(ram, source->initrd_fd, kernel_end, UINT32_MAX, &all.initrd.gpa, &all.initrd.len_bytes,
				 err);
	if (rc < 0)
		return rc;
	all.info = (struct pvh_start_info){
		.magic = PVH_MAGIC,
		.version = 1,
		.nr_modules = source->initrd_fd >= 0,
		.modlist_gpa = LAYOUT_START_INFO + sizeof(all.info),
		.cmdline_gpa = LAYOUT_CMDLINE,
		.rsdp_gpa = LAYOUT_ACPI,
		.memmap_gpa = LAYOUT_START_INFO + sizeof(all.info) + sizeof(all.initrd),
		.memmap_entries = map_memory(ram, all.map),
	};
	return ram_put(ram, LAYOUT_START_INFO, &all, sizeof(all)) ? 0 : explain(-EFAULT, "kernel", err);
}

/* ---- tables of the processor ---- */

#define CR0_PE 1ull
#define CR0_ET 0x10ull
#define CR0_PG 0x80000000ull
#define CR4_PAE 0x20ull
#define EFER_LME 0x100ull
#define EFER_LMA 0x400ull
#define PTE_PRESENT_WRITABLE 3ull
#define PTE_LARGE 0x80ull

/* The first 4 GiB as they are, in pages of 2 MiB. */
static bool put_page_tables(struct ram *ram)
{
	uint64_t *table = ram_at(ram, LAYOUT_PAGE_TABLES, 6 * RAM_PAGE_BYTES);

	if (!table)
		return false;
	memset(table, 0, 6 * RAM_PAGE_BYTES);
	table[0] = (LAYOUT_PAGE_TABLES + RAM_PAGE_BYTES) | PTE_PRESENT_WRITABLE;
	for (uint64_t i = 0; i < 4; i++)
		table[512 + i] = (LAYOUT_PAGE_TABLES + (2 + i) * RAM_PAGE_BYTES) | PTE_PRESENT_WRITABLE;
	for (uint64_t i = 0; i < 4 * 512; i++)
		table[1024 + i] = (i << 21) | PTE_PRESENT_WRITABLE | PTE_LARGE;
	ram_written(ram, LAYOUT_PAGE_TABLES, 6 * RAM_PAGE_BYTES);
	return true;
}

#define GDT_CODE64 0x00af9b000000ffffull
#define GDT_CODE32 0x00cf9b000000ffffull
#define GDT_DATA 0x00cf93000000ffffull
#define GDT_TSS 0x00008b0000000067ull

/* Selectors as the boot protocols want them: code 0x10, data 0x18. */
static void fill_gdt(uint64_t gdt[5], bool is_pvh)
{
	gdt[0] = gdt[1] = 0;
	gdt[2] = is_pvh ? GDT_CODE32 : GDT_CODE64;
	gdt[3] = GDT_DATA;
	gdt[4] = GDT_TSS;
}

static bool put_tables(struct ram *ram, bool is_pvh)
{
	uint64_t gdt[5];

	fill_gdt(gdt, is_pvh);
	return ram_put(ram, LAYOUT_GDT, gdt, sizeof(gdt)) && put_page_tables(ram);
}

static int load_kernel(struct ram *ram, const struct boot_source *source, struct boot_entry *entry, struct err *err)
{
	struct boot_params params = { 0 };
	uint64_t kernel_bytes;
	Elf64_Ehdr eh;
	int rc = file_bytes(source->kernel_fd, &kernel_bytes);

	if (rc == 0)
		rc = load_cmdline(ram, source->cmdline, err);
	if (rc < 0)
		return rc;
	if (pread(source->kernel_fd, &eh, sizeof(eh), 0) == sizeof(eh) && memcmp(eh.e_ident, ELFMAG, SELFMAG) == 0)
		return load_pvh(ram, source, &eh, entry, err);
	if (pread(source->kernel_fd, &params.hdr, sizeof(params.hdr), SETUP_HEADER_OFF) != sizeof(params.hdr))
		return explain(-ENOEXEC, "kernel", err);
	rc = explain(check_header(&params.hdr), "kernel", err);
	return rc < 0 ? rc : load_bzimage(ram, source, kernel_bytes, &params, entry, err);
}

int boot_load(struct ram *ram, const struct boot_source *source, struct boot_entry *entry, struct err *err)
{
	int rc = load_kernel(ram, source, entry, err);

	return rc < 0 ? rc : put_tables(ram, entry->is_pvh) ? 0 : explain(-EFAULT, "kernel", err);
}

/* ---- registers ---- */

static struct kvm_segment segment(uint16_t selector, uint64_t descriptor)
{
	uint32_t limit = (uint32_t)((descriptor & 0xffff) | ((descriptor >> 32) & 0xf0000));
	bool pages = descriptor >> 55 & 1;

	return (struct kvm_segment){
		.limit = pages ? limit << 12 | 0xfff : limit,
		.selector = selector,
		.type = descriptor >> 40 & 0xf,
		.s = descriptor >> 44 & 1,
		.dpl = descriptor >> 45 & 3,
		.present = descriptor >> 47 & 1,
		.l = descriptor >> 53 & 1,
		.db = descriptor >> 54 & 1,
		.g = pages,
	};
}

static void set_segments(struct kvm_sregs *sregs, bool is_pvh)
{
	uint64_t gdt[5];

	fill_gdt(gdt, is_pvh);
	sregs->gdt.base = LAYOUT_GDT;
	sregs->gdt.limit = sizeof(gdt) - 1;
	sregs->idt.limit = 0;
	sregs->cs = segment(0x10, gdt[2]);
	sregs->ds = sregs->es = sregs->fs = sregs->gs = sregs->ss = segment(0x18, gdt[3]);
	sregs->tr = segment(0x20, gdt[4]);
}

int boot_set_registers(struct vcpu *vcpu, const struct boot_entry *entry, struct err *err)
{
	struct kvm_regs regs = {
		.rflags = 2,
		.rip = entry->entry_gpa,
		.rsp = LAYOUT_STACK,
		.rsi = LAYOUT_BOOT_PARAMS,
		.rbx = entry->is_pvh ? LAYOUT_START_INFO : 0,
	};
	struct kvm_sregs sregs;

	if (ioctl(vcpu->fd, KVM_GET_SREGS, &sregs) < 0)
		return err_set(err, -errno, "cannot read the registers of vCPU %u: %m", vcpu->index);
	set_segments(&sregs, entry->is_pvh);
	sregs.cr0 = CR0_PE | CR0_ET;
	if (!entry->is_pvh) {
		sregs.cr0 |= CR0_PG;
		sregs.cr3 = LAYOUT_PAGE_TABLES;
		sregs.cr4 = CR4_PAE;
		sregs.efer = EFER_LME | EFER_LMA;
	}
	if (ioctl(vcpu->fd, KVM_SET_SREGS, &sregs) < 0 || ioctl(vcpu->fd, KVM_SET_REGS, &regs) < 0)
		return err_set(err, -errno, "cannot set the registers of vCPU %u: %m", vcpu->index);
	return 0;
}
