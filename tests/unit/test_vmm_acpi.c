/* The ACPI tables: reachable from the RSDP, with right lengths and checksums, and nested AML lengths that add up. */
#include <string.h>

#include "tests/unit/unit.h"
#include "vmm-glue/acpi.h"

#define GPA 0xe0000ull

static uint8_t tables[ACPI_TABLES_BYTES_MAX];

static uint8_t sum_of(const uint8_t *at, uint32_t len_bytes)
{
	uint8_t sum = 0;

	while (len_bytes-- > 0)
		sum = (uint8_t)(sum + *at++);
	return sum;
}

static uint64_t number_at(const uint8_t *at, size_t len_bytes)
{
	uint64_t value = 0;

	memcpy(&value, at, len_bytes);
	return value;
}

/* The table at a guest address, its checksum checked; *len_bytes is its length. */
static const uint8_t *table_at(uint64_t gpa, const char *signature, uint32_t *len_bytes)
{
	const uint8_t *table = tables + (gpa - GPA);

	assert_true(gpa >= GPA && gpa < GPA + sizeof(tables));
	assert_memory_equal(table, signature, 4);
	*len_bytes = (uint32_t)number_at(table + 4, 4);
	assert_true(gpa - GPA + *len_bytes <= sizeof(tables));
	assert_int_equal(sum_of(table, *len_bytes), 0);
	return table;
}

static const uint8_t *xsdt(void)
{
	uint32_t len_bytes;
	const uint8_t *table;

	assert_memory_equal(tables, "RSD PTR ", 8);
	assert_int_equal(sum_of(tables, 20), 0);
	assert_int_equal(sum_of(tables, 36), 0);
	table = table_at(number_at(tables + 24, 8), "XSDT", &len_bytes);
	assert_int_equal(len_bytes, 36 + 3 * 8);
	return table;
}

static void test_all_tables_are_whole(void **state)
{
	const uint8_t *root, *fadt;
	uint32_t len_bytes;

	assert_true(acpi_build(tables, GPA, 4) <= sizeof(tables));
	root = xsdt();
	fadt = table_at(number_at(root + 36, 8), "FACP", &len_bytes);
	assert_int_equal(len_bytes, 276);
	assert_int_equal(number_at(fadt + 112, 4) & (1u << 20), 1u << 20);
	assert_int_equal(number_at(fadt + 40, 4), number_at(fadt + 140, 8));
	table_at(number_at(fadt + 140, 8), "DSDT", &len_bytes);
	table_at(number_at(root + 52, 8), "MCFG", &len_bytes);
	assert_int_equal(len_bytes, 60);
}

/* As many processors as asked for, numbered from 0, then one IOAPIC. */
static void test_processors(void **state)
{
	for (uint32_t cpus = 1; cpus <= 64; cpus++) {
		const uint8_t *madt;
		uint32_t len_bytes;

		acpi_build(tables, GPA, cpus);
		madt = table_at(number_at(xsdt() + 44, 8), "APIC", &len_bytes);
		assert_int_equal(len_bytes, 44 + 8 * cpus + 12);
		for (uint32_t i = 0; i < cpus; i++)
			assert_int_equal(madt[44 + 8 * i + 3], i);
		assert_int_equal(madt[44 + 8 * cpus], 1);
	}
}

/* The scope holds devices back to back, and ends where its length says. */
static void test_aml_lengths(void **state)
{
	const uint8_t *dsdt, *at, *end;
	uint32_t len_bytes, devices = 0;

	acpi_build(tables, GPA, 1);
	dsdt = table_at(number_at(tables + (number_at(xsdt() + 36, 8) - GPA) + 140, 8), "DSDT", &len_bytes);
	at = dsdt + 36;
	assert_int_equal(*at++, 0x10);
	end = at + ((at[0] & 0xf) | at[1] << 4 | at[2] << 12);
	assert_memory_equal(at + 3, "\\_SB_", 5);
	for (at += 8; at < end; devices++) {
		assert_int_equal(at[0], 0x5b);
		assert_int_equal(at[1], 0x82);
		at += 2;
		at += (at[0] & 0xf) | at[1] << 4 | at[2] << 12;
	}
	assert_ptr_equal(at, end);
	assert_int_equal(devices, 5);
	assert_memory_equal(end, "\x08_S5_", 5);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_all_tables_are_whole),
		cmocka_unit_test(test_processors),
		cmocka_unit_test(test_aml_lengths),
	};

	return run_unit_tests(tests);
}
