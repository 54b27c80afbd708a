/* Where things are in the guest's address spaces: one page to see that nothing overlaps. */
#ifndef VMM_LAYOUT_H
#define VMM_LAYOUT_H

/* Memory below 1 MiB, as the guest finds it at boot. */
#define LAYOUT_GDT 0x500ull
#define LAYOUT_START_INFO 0x6000ull  /* PVH */
#define LAYOUT_BOOT_PARAMS 0x7000ull /* bzImage */
#define LAYOUT_STACK 0x8ff0ull
#define LAYOUT_PAGE_TABLES 0x9000ull /* 6 pages */
#define LAYOUT_CMDLINE 0x20000ull
#define LAYOUT_CMDLINE_BYTES_MAX 4096u
#define LAYOUT_LOW_END 0x9fc00ull /* end of the free part */
#define LAYOUT_VMGENID 0xdf000ull
#define LAYOUT_ACPI 0xe0000ull /* RSDP first, where guests look for it */
#define LAYOUT_ACPI_BYTES_MAX 0x10000u
#define LAYOUT_KERNEL_MIN 0x100000ull

/* The hole from 3 GiB to 4 GiB. */
#define LAYOUT_PCI_MEMORY 0xc0000000ull
#define LAYOUT_PCI_MEMORY_BYTES 0x20000000ull
#define LAYOUT_PCI_CONFIG 0xe8000000ull /* one bus */
#define LAYOUT_PCI_CONFIG_BYTES 0x100000ull
#define LAYOUT_IOAPIC 0xfec00000ull
#define LAYOUT_LAPIC 0xfee00000ull

/* Ports. */
#define PORT_I8042 0x60
#define PORT_I8042_BYTES 5
#define PORT_COM1 0x3f8
#define PORT_COM1_BYTES 8
#define PORT_PCI_ADDRESS 0xcf8
#define PORT_PCI_BYTES 8
#define PORT_POWER 0x600 /* sleep control, sleep status, reset */
#define PORT_POWER_BYTES 3

/* Pins of the IOAPIC. */
#define PIN_COM1 4
#define PIN_POWER_BUTTON 5
#define PIN_VMGENID 6

#endif
