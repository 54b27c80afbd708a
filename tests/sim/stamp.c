/* Stamps of sectors. See stamp.h. */
#include "tests/sim/stamp.h"

#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#define WORDS (STAMP_BYTES / sizeof(uint64_t))
#define MAGIC 0x73746d70ull
#define STRIDE 0x9e3779b97f4a7c15ull

static uint64_t sequence_start(uint64_t word0, uint64_t word1)
{
	uint64_t x = (word0 ^ word1 * 0xd6e8feb86659fd93ull) * 0xff51afd7ed558ccdull;

	return x ^ x >> 32;
}

static void fill(uint64_t *words, uint64_t word0, uint64_t word1)
{
	uint64_t start = sequence_start(word0, word1);

	words[0] = word0;
	words[1] = word1;
	for (uint32_t i = 2; i < WORDS; i++)
		words[i] = start + i * STRIDE;
}

void stamp_fill(void *sector, uint32_t family, uint64_t at, uint32_t request)
{
	uint64_t words[WORDS];

	fill(words, MAGIC << 32 | request, (uint64_t)family << 48 | at);
	memcpy(sector, words, STAMP_BYTES);
}

static bool all_zero(const uint64_t *words)
{
	uint64_t bits = 0;

	for (uint32_t i = 0; i < WORDS; i++)
		bits |= words[i];
	return bits == 0;
}

static bool is_sequence(const uint64_t *words)
{
	uint64_t start = sequence_start(words[0], words[1]), bits = 0;

	for (uint32_t i = 2; i < WORDS; i++)
		bits |= words[i] ^ (start + i * STRIDE);
	return bits == 0;
}

uint32_t stamp_read(const void *sector, uint32_t family, uint64_t at)
{
	uint64_t words[WORDS];

	memcpy(words, sector, STAMP_BYTES);
	if (words[0] == 0 && all_zero(words))
		return STAMP_ZERO;
	if (words[0] >> 32 != MAGIC || words[1] != ((uint64_t)family << 48 | at) || !is_sequence(words))
		return STAMP_WRONG;
	return (uint32_t)words[0];
}

char *stamp_to_text(const void *sector, char *text, uint32_t text_bytes)
{
	uint64_t words[WORDS];

	memcpy(words, sector, STAMP_BYTES);
	if (all_zero(words))
		snprintf(text, text_bytes, "zeroes");
	else if (words[0] >> 32 == MAGIC)
		snprintf(text, text_bytes, "%s of request %u for sector %llu of family %u",
			 is_sequence(words) ? "the stamp" : "a torn stamp", (uint32_t)words[0],
			 (unsigned long long)(words[1] & 0xffffffffffffull), (uint32_t)(words[1] >> 48));
	else
		snprintf(text, text_bytes, "garbage (%016llx %016llx ...)", (unsigned long long)words[0],
			 (unsigned long long)words[1]);
	return text;
}
