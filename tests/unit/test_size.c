/* Unit tests of pool/base/size.c. */
#include <errno.h>

#include "pool/base/size.h"
#include "tests/unit/unit.h"

static void assert_size(const char *text, uint64_t expected)
{
	uint64_t size_bytes = 1;

	if (size_parse(text, &size_bytes) != 0 || size_bytes != expected)
		fail_msg("'%s' is %llu", text, (unsigned long long)size_bytes);
}

static void assert_refused(const char *text, int expected)
{
	uint64_t size_bytes = 77;
	int ret = size_parse(text, &size_bytes);

	if (ret != expected)
		fail_msg("'%s' gives %d, not %d", text, ret, expected);
	assert_int_equal(size_bytes, 77);
}

static void reads_numbers_and_units(void **state)
{
	assert_size("0", 0);
	assert_size("4096", 4096);
	assert_size("18446744073709551615", UINT64_MAX);
	assert_size("1K", 1ull << 10);
	assert_size("2m", 2ull << 20);
	assert_size("20G", 20ull << 30);
	assert_size("20GB", 20ull << 30);
	assert_size("20GiB", 20ull << 30);
	assert_size("20gib", 20ull << 30);
	assert_size("3T", 3ull << 40);
	assert_size("1P", 1ull << 50);
	assert_size("15E", 15ull << 60);
}

static void reads_fractions_exactly(void **state)
{
	assert_size("1.5T", 3ull << 39);
	assert_size("0.25G", 1ull << 28);
	assert_size("1.0", 1);
}

static void refuses_what_is_not_a_size(void **state)
{
	static const char *const bad[] = { "",    " ",   "G",    "-1",    "+1",   "1 G",   " 1",  "1G ",
					   "1X",  "1GG", "1iB",  "1B",    "1Gi",  "0x10",  "1e3", ".5G",
					   "1.G", "1.5", "0.3K", "1..5G", "1,5G", "1.5.5G" };

	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
		assert_refused(bad[i], -EINVAL);
}

static void refuses_what_is_too_large(void **state)
{
	assert_refused("18446744073709551616", -ERANGE);
	assert_refused("99999999999999999999999", -ERANGE);
	assert_refused("16E", -ERANGE);
	assert_refused("17179869184G", -ERANGE);
}

static void assert_text(uint64_t size_bytes, const char *expected)
{
	char text[SIZE_TEXT_BYTES];

	assert_string_equal(size_to_text(size_bytes, text), expected);
}

static void writes_the_largest_unit(void **state)
{
	assert_text(0, "0");
	assert_text(1023, "1023");
	assert_text(1024, "1K");
	assert_text(20ull << 30, "20G");
	assert_text(3ull << 39, "1.5T");
	assert_text((1ull << 30) + (1ull << 20) * 52, "1.05G");
	assert_text((1ull << 30) - 1, "1023.99M");
	assert_text((1ull << 30) + 1, "1G");
	assert_text(UINT64_MAX, "15.99E");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(reads_numbers_and_units),    cmocka_unit_test(reads_fractions_exactly),
		cmocka_unit_test(refuses_what_is_not_a_size), cmocka_unit_test(refuses_what_is_too_large),
		cmocka_unit_test(writes_the_largest_unit),
	};

	return run_unit_tests(tests);
}
