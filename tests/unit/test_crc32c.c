/* Unit tests of pool/base/crc32c.c: the vectors of RFC 3720 appendix B.4, and chaining. */
#include <stdlib.h>
#include <string.h>

#include "pool/base/crc32c.h"
#include "tests/unit/unit.h"

static void check_digits(void **state)
{
	assert_int_equal(crc32c(0, "123456789", 9), 0xe3069283);
}

static void rfc3720_vectors(void **state)
{
	uint8_t data[32];

	memset(data, 0, sizeof(data));
	assert_int_equal(crc32c(0, data, sizeof(data)), 0x8a9136aa);
	memset(data, 0xff, sizeof(data));
	assert_int_equal(crc32c(0, data, sizeof(data)), 0x62a8ab43);
	for (int i = 0; i < 32; i++)
		data[i] = (uint8_t)i;
	assert_int_equal(crc32c(0, data, sizeof(data)), 0x46dd794e);
	for (int i = 0; i < 32; i++)
		data[i] = (uint8_t)(31 - i);
	assert_int_equal(crc32c(0, data, sizeof(data)), 0x113fdb5c);
}

static void nothing_changes_nothing(void **state)
{
	assert_int_equal(crc32c(0, NULL, 0), 0);
	assert_int_equal(crc32c(0x12345678, "", 0), 0x12345678);
}

static uint32_t crc32c_bitwise(const uint8_t *data, size_t len_bytes)
{
	uint32_t reg = ~0u;

	for (size_t i = 0; i < len_bytes; i++) {
		reg ^= data[i];
		for (int bit = 0; bit < 8; bit++)
			reg = reg >> 1 ^ (reg & 1 ? 0x82f63b78 : 0);
	}
	return ~reg;
}

static void every_split_of_odd_lengths_and_alignments(void **state)
{
	uint8_t data[256];

	srandom(1);
	for (size_t i = 0; i < sizeof(data); i++)
		data[i] = (uint8_t)random();
	for (size_t len = 0; len < 200; len += 7) {
		const uint8_t *start = data + len % 16;
		uint32_t whole = crc32c_bitwise(start, len);

		for (size_t split = 0; split <= len; split++)
			assert_int_equal(crc32c(crc32c(0, start, split), start + split, len - split), whole);
	}
}

static void copied_blocks_have_the_checksum_of_what_was_copied(void **state)
{
	enum { BLOCKS = 7 };
	static uint8_t from[BLOCKS * CRC32C_BLOCK_BYTES + 64], to[sizeof(from)];
	uint32_t crc[BLOCKS + 1];

	srandom(2);
	for (size_t i = 0; i < sizeof(from); i++)
		from[i] = (uint8_t)random();
	for (uint32_t shift = 0; shift < 64; shift += 9) {
		for (uint32_t blocks = 0; blocks <= BLOCKS; blocks++) {
			size_t end = shift + (size_t)blocks * CRC32C_BLOCK_BYTES;

			memset(to, 0xaa, sizeof(to));
			crc[blocks] = 4711;
			crc32c_copy(to + shift, from + 63 - shift, blocks, crc);
			assert_memory_equal(to + shift, from + 63 - shift, end - shift);
			for (uint32_t i = 0; i < blocks; i++)
				assert_int_equal(crc[i], crc32c(0, to + shift + i * CRC32C_BLOCK_BYTES, CRC32C_BLOCK_BYTES));
			assert_int_equal(crc[blocks], 4711);
			assert_true((shift == 0 || to[shift - 1] == 0xaa) && (end == sizeof(to) || to[end] == 0xaa));
		}
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(check_digits),
		cmocka_unit_test(rfc3720_vectors),
		cmocka_unit_test(nothing_changes_nothing),
		cmocka_unit_test(every_split_of_odd_lengths_and_alignments),
		cmocka_unit_test(copied_blocks_have_the_checksum_of_what_was_copied),
	};

	return run_unit_tests(tests);
}
