/* ACPI tables: how the guest learns of processors, interrupts, the PCI bus, COM1, the power button and its identity. */
#ifndef VMM_ACPI_H
#define VMM_ACPI_H

#include <stdint.h>

#include "vmm-glue/ram.h"

#define ACPI_TABLES_BYTES_MAX 0x4000u

/* Builds all tables for a place in guest memory, RSDP first. Returns the bytes used. */
uint32_t acpi_build(uint8_t tables[ACPI_TABLES_BYTES_MAX], uint64_t gpa, uint32_t cpus);

#endif
