/* ACPI tables (ACPI 6.3). See acpi.h.
 *
 *     RSDP -> XSDT -> FADT (hardware reduced) -> DSDT
 *                     MADT (local APICs, one IOAPIC)
 *                     MCFG (configuration space of PCI bus 0)
 *
 * The DSDT is AML, written by the few functions below: each object is a function that appends its bytes, and what contains
 * others is opened and closed, with its length filled in at the end. A length always takes the 3-byte form.
 *
 *     \_SB.PCI0  host bridge: bus 0, ports, the memory window        \_SB.COM1  16550A
 *     \_SB.GED   turns pins of the IOAPIC into notifications         \_SB.PWRB  power button
 *     \_SB.VGEN  address of the VM's generation id                   \_S5       what to write to power off
 */
#include "vmm-glue/acpi.h"

#include <assert.h>
#include <string.h>

#include "pool/base/le.h"
#include "vmm-glue/layout.h"
#include "vmm-glue/power.h"

struct out {
	uint8_t *base;
	uint32_t len_bytes;
	uint64_t gpa;
};

static void put(struct out *out, const void *data, uint32_t len_bytes)
{
	assert(out->len_bytes + len_bytes <= ACPI_TABLES_BYTES_MAX);
	memcpy(out->base + out->len_bytes, data, len_bytes);
	out->len_bytes += len_bytes;
}

#define put_bytes(out, ...) put(out, (uint8_t[]){ __VA_ARGS__ }, sizeof((uint8_t[]){ __VA_ARGS__ }))

static void put_le(struct out *out, uint64_t value, uint32_t len_bytes)
{
	const le64 le = le64_of(value);

	put(out, &le, len_bytes);
}

/* ---- tables ---- */

static uint8_t sum(const uint8_t *data, uint32_t len_bytes)
{
	uint8_t sum = 0;

	while (len_bytes-- > 0)
		sum = (uint8_t)(sum + *data++);
	return sum;
}

#define HEADER_BYTES 36u
#define HEADER_LENGTH_OFF 4u
#define HEADER_CHECKSUM_OFF 9u

/* Opens a table; returns where it begins. */
static uint32_t table_open(struct out *out, const char *signature, uint8_t revision)
{
	uint32_t at = out->len_bytes;

	put(out, signature, 4);
	put_le(out, 0, 4);
	put_bytes(out, revision, 0);
	put(out, "POOLVMPOOLVM  ", 14);
	put_le(out, 1, 4);
	put(out, "POOL", 4);
	put_le(out, 1, 4);
	return at;
}

/* Fills in length and checksum; returns the table's address. */
static uint64_t table_close(struct out *out, uint32_t at)
{
	const le32 len = le32_of(out->len_bytes - at);

	memcpy(out->base + at + HEADER_LENGTH_OFF, &len, sizeof(len));
	out->base[at + HEADER_CHECKSUM_OFF] = (uint8_t)-sum(out->base + at, out->len_bytes - at);
	while (out->len_bytes % 16 != 0)
		put_bytes(out, 0);
	return out->gpa + at;
}

/* ---- AML ---- */

#define AML_LENGTH_BYTES 3u

/* What follows belongs to the object until aml_close, which fills in the length that begins here. */
static uint32_t aml_open(struct out *out)
{
	uint32_t at = out->len_bytes;

	put_bytes(out, 0, 0, 0);
	return at;
}

static void aml_close(struct out *out, uint32_t at)
{
	uint32_t len_bytes = out->len_bytes - at;

	out->base[at] = (uint8_t)(0x80 | (len_bytes & 0xf));
	out->base[at + 1] = (uint8_t)(len_bytes >> 4);
	out->base[at + 2] = (uint8_t)(len_bytes >> 12);
}

static uint32_t aml_device(struct out *out, const char *name)
{
	uint32_t at;

	put_bytes(out, 0x5b, 0x82);
	at = aml_open(out);
	put(out, name, 4);
	return at;
}

static void aml_name(struct out *out, const char *name)
{
	put_bytes(out, 0x08);
	put(out, name, 4);
}

static void aml_dword(struct out *out, uint32_t value)
{
	put_bytes(out, 0x0c);
	put_le(out, value, 4);
}

/* "PNP0501" and the like as one number. */
static void aml_eisa_id(struct out *out, const char *id)
{
	uint32_t value = (uint32_t)(id[0] - '@') << 26 | (uint32_t)(id[1] - '@') << 21 | (uint32_t)(id[2] - '@') << 16;

	for (int i = 3; i < 7; i++)
		value |= (uint32_t)(id[i] <= '9' ? id[i] - '0' : id[i] - 'A' + 10) << (4 * (6 - i));
	aml_dword(out, __builtin_bswap32(value));
}

static void aml_string(struct out *out, const char *text)
{
	put_bytes(out, 0x0d);
	put(out, text, (uint32_t)strlen(text) + 1);
}

/* A buffer of resources: what is put until aml_end_resources. The size is one more length, of 4 bytes. */
static uint32_t aml_resources(struct out *out)
{
	uint32_t at;

	aml_name(out, "_CRS");
	put_bytes(out, 0x11);
	at = aml_open(out);
	aml_dword(out, 0);
	return at;
}

static void aml_end_resources(struct out *out, uint32_t at)
{
	le32 bytes;

	put_bytes(out, 0x79, 0);
	bytes = le32_of(out->len_bytes - at - AML_LENGTH_BYTES - 5);
	memcpy(out->base + at + AML_LENGTH_BYTES + 1, &bytes, sizeof(bytes));
	aml_close(out, at);
}

static void resource_ports(struct out *out, uint16_t first, uint8_t count)
{
	put_bytes(out, 0x47, 1);
	put_le(out, first, 2);
	put_le(out, first, 2);
	put_bytes(out, 1, count);
}

/* An edge, active high, ours alone. */
static void resource_pin(struct out *out, uint32_t pin)
{
	put_bytes(out, 0x89, 6, 0, 0x03, 1);
	put_le(out, pin, 4);
}

/* A range that a bridge passes on: type 0 memory, 1 ports, 2 bus numbers. */
static void resource_window(struct out *out, uint8_t type, uint8_t flags, uint32_t first, uint32_t last)
{
	put_bytes(out, 0x87, 23, 0, type, 0x0c, flags);
	put_le(out, 0, 4);
	put_le(out, first, 4);
	put_le(out, last, 4);
	put_le(out, 0, 4);
	put_le(out, (uint64_t)last - first + 1, 4);
}

/* ---- the DSDT ---- */

static void host_bridge(struct out *out)
{
	uint32_t dev = aml_device(out, "PCI0"), res;

	aml_name(out, "_HID");
	aml_eisa_id(out, "PNP0A08");
	aml_name(out, "_CID");
	aml_eisa_id(out, "PNP0A03");
	aml_name(out, "_SEG");
	put_bytes(out, 0);
	aml_name(out, "_BBN");
	put_bytes(out, 0);
	aml_name(out, "_UID");
	put_bytes(out, 0);
	res = aml_resources(out);
	resource_window(out, 2, 0, 0, 0);
	resource_ports(out, PORT_PCI_ADDRESS, PORT_PCI_BYTES);
	resource_window(out, 0, 1, LAYOUT_PCI_MEMORY, LAYOUT_PCI_MEMORY + LAYOUT_PCI_MEMORY_BYTES - 1);
	aml_end_resources(out, res);
	aml_close(out, dev);
}

static void com1(struct out *out)
{
	uint32_t dev = aml_device(out, "COM1"), res;

	aml_name(out, "_HID");
	aml_eisa_id(out, "PNP0501");
	aml_name(out, "_UID");
	put_bytes(out, 0);
	res = aml_resources(out);
	resource_ports(out, PORT_COM1, PORT_COM1_BYTES);
	resource_pin(out, PIN_COM1);
	aml_end_resources(out, res);
	aml_close(out, dev);
}

static void power_button(struct out *out)
{
	uint32_t dev = aml_device(out, "PWRB");

	aml_name(out, "_HID");
	aml_eisa_id(out, "PNP0C0C");
	aml_name(out, "_UID");
	put_bytes(out, 0);
	aml_close(out, dev);
}

/* ADDR is {low, high} of the page that holds the id. */
static void generation_id(struct out *out)
{
	uint32_t dev = aml_device(out, "VGEN"), package;

	aml_name(out, "_HID");
	aml_string(out, "POOL0001");
	aml_name(out, "_CID");
	aml_string(out, "VM_Gen_Counter");
	aml_name(out, "_DDN");
	aml_string(out, "VM_Gen_Counter");
	aml_name(out, "ADDR");
	put_bytes(out, 0x12);
	package = aml_open(out);
	put_bytes(out, 2);
	aml_dword(out, (uint32_t)LAYOUT_VMGENID);
	aml_dword(out, 0);
	aml_close(out, package);
	aml_close(out, dev);
}

/* If (Arg0 == pin) { Notify (name, 0x80) } */
static void notify_on(struct out *out, uint8_t pin, const char *name)
{
	uint32_t at;

	put_bytes(out, 0xa0);
	at = aml_open(out);
	put_bytes(out, 0x93, 0x68, 0x0a, pin, 0x86);
	put(out, name, 4);
	put_bytes(out, 0x0a, 0x80);
	aml_close(out, at);
}

static void event_device(struct out *out)
{
	uint32_t dev = aml_device(out, "GED_"), res, method;

	aml_name(out, "_HID");
	aml_string(out, "ACPI0013");
	aml_name(out, "_UID");
	put_bytes(out, 0);
	res = aml_resources(out);
	resource_pin(out, PIN_POWER_BUTTON);
	resource_pin(out, PIN_VMGENID);
	aml_end_resources(out, res);
	put_bytes(out, 0x14);
	method = aml_open(out);
	put(out, "_EVT", 4);
	put_bytes(out, 0x09); /* one argument, serialized */
	notify_on(out, PIN_POWER_BUTTON, "PWRB");
	notify_on(out, PIN_VMGENID, "VGEN");
	aml_close(out, method);
	aml_close(out, dev);
}

static uint64_t dsdt(struct out *out)
{
	uint32_t table = table_open(out, "DSDT", 2), scope, package;

	put_bytes(out, 0x10);
	scope = aml_open(out);
	put(out, "\\_SB_", 5);
	host_bridge(out);
	com1(out);
	power_button(out);
	generation_id(out);
	event_device(out);
	aml_close(out, scope);
	aml_name(out, "_S5_");
	put_bytes(out, 0x12);
	package = aml_open(out);
	put_bytes(out, 1, 0x0a, POWER_SLEEP_TYPE_OFF);
	aml_close(out, package);
	return table_close(out, table);
}

/* ---- the others ---- */

/* A port of one byte, as a generic address. */
static void put_port(struct out *out, uint16_t port)
{
	put_bytes(out, 1, 8, 0, 1);
	put_le(out, port, 8);
}

static void put_zeroes(struct out *out, uint32_t count)
{
	while (count-- > 0)
		put_bytes(out, 0);
}

#define FADT_FLAGS                                                                 \
	(1u << 0 /* WBINVD works */ | 1u << 4 /* the power button is a device */ | \
	 1u << 5 /* there is no sleep button */ | 1u << 10 /* reset register */ | 1u << 20 /* hardware reduced */)
#define FADT_BOOT_NO_VGA_NO_RTC (1u << 2 | 1u << 5)

static uint64_t fadt(struct out *out, uint64_t dsdt_gpa)
{
	uint32_t table = table_open(out, "FACP", 6);

	put_le(out, 0, 4);
	put_le(out, dsdt_gpa, 4);
	put_zeroes(out, 109 - 44);
	put_le(out, FADT_BOOT_NO_VGA_NO_RTC, 2);
	put_zeroes(out, 1);
	put_le(out, FADT_FLAGS, 4);
	put_port(out, PORT_POWER + POWER_RESET);
	put_bytes(out, POWER_RESET_VALUE, 0, 0, 3);
	put_le(out, 0, 8);
	put_le(out, dsdt_gpa, 8);
	put_zeroes(out, 244 - 148);
	put_port(out, PORT_POWER + POWER_SLEEP_CONTROL);
	put_port(out, PORT_POWER + POWER_SLEEP_STATUS);
	put(out, "POOLVM  ", 8);
	return table_close(out, table);
}

#define IOAPIC_ID 0xff

static uint64_t madt(struct out *out, uint32_t cpus)
{
	uint32_t table = table_open(out, "APIC", 5);

	put_le(out, LAYOUT_LAPIC, 4);
	put_le(out, 0, 4);
	for (uint32_t i = 0; i < cpus; i++) {
		put_bytes(out, 0, 8, (uint8_t)i, (uint8_t)i);
		put_le(out, 1, 4);
	}
	put_bytes(out, 1, 12, IOAPIC_ID, 0);
	put_le(out, LAYOUT_IOAPIC, 4);
	put_le(out, 0, 4);
	return table_close(out, table);
}

static uint64_t mcfg(struct out *out)
{
	uint32_t table = table_open(out, "MCFG", 1);

	put_zeroes(out, 8);
	put_le(out, LAYOUT_PCI_CONFIG, 8);
	put_zeroes(out, 8);
	return table_close(out, table);
}

#define RSDP_BYTES 36u
#define RSDP_V1_BYTES 20u
#define RSDP_CHECKSUM_OFF 8u
#define RSDP_XSDT_OFF 24u
#define RSDP_EXTENDED_CHECKSUM_OFF 32u

static void rsdp(uint8_t *at, uint64_t xsdt_gpa)
{
	const le64 xsdt = le64_of(xsdt_gpa);

	memcpy(at, "RSD PTR \0POOLVM\2", 16);
	at[20] = RSDP_BYTES;
	memcpy(at + RSDP_XSDT_OFF, &xsdt, sizeof(xsdt));
	at[RSDP_CHECKSUM_OFF] = (uint8_t)-sum(at, RSDP_V1_BYTES);
	at[RSDP_EXTENDED_CHECKSUM_OFF] = (uint8_t)-sum(at, RSDP_BYTES);
}

uint32_t acpi_build(uint8_t tables[ACPI_TABLES_BYTES_MAX], uint64_t gpa, uint32_t cpus)
{
	struct out out = { .base = tables, .gpa = gpa };
	uint64_t dsdt_gpa, fadt_gpa, madt_gpa, mcfg_gpa;
	uint32_t xsdt;

	memset(tables, 0, ACPI_TABLES_BYTES_MAX);
	put_zeroes(&out, 48); /* the RSDP's place */
	dsdt_gpa = dsdt(&out);
	fadt_gpa = fadt(&out, dsdt_gpa);
	madt_gpa = madt(&out, cpus);
	mcfg_gpa = mcfg(&out);
	xsdt = table_open(&out, "XSDT", 1);
	put_le(&out, fadt_gpa, 8);
	put_le(&out, madt_gpa, 8);
	put_le(&out, mcfg_gpa, 8);
	rsdp(tables, table_close(&out, xsdt));
	return out.len_bytes;
}
