/* Self-describing data units.
 *
 * How: bytes 0-7 magic, 8-15 unit, 16-19 version, 20-23 seed, 24-31 checksum of the first 24; from 32 on, word i is a
 * mix of the checksum and i. A unit is intact if and only if magic and checksum fit, unit and seed are the expected
 * ones, and every following word is the one that the header implies. */
#include "tests/client/pattern.h"

#include <assert.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#define MAGIC 0x74696e7574736574ull /* "testunit" */

struct head {
	uint64_t magic;
	uint64_t unit;
	uint32_t version;
	uint32_t seed;
	uint64_t check;
};
static_assert(sizeof(struct head) == 32, "pattern header");

#define HEAD_WORDS (sizeof(struct head) / sizeof(uint64_t))

static uint64_t mix(uint64_t value)
{
	value ^= value >> 32;
	value *= 0xd6e8feb86659fd93ull;
	value ^= value >> 29;
	return value;
}

uint64_t pattern_random(uint64_t *state)
{
	*state ^= *state << 13;
	*state ^= *state >> 7;
	*state ^= *state << 17;
	return *state * 0x2545f4914f6cdd1dull;
}

static struct head head_of(uint64_t unit, uint32_t version, uint32_t seed)
{
	struct head head = { .magic = MAGIC, .unit = unit, .version = version, .seed = seed };
	head.check = mix(mix(MAGIC + unit) + ((uint64_t)version << 32 | seed));
	return head;
}

static inline uint64_t word_at(const struct head *head, size_t index)
{
	uint64_t value = (head->check + index) * 0x9e3779b97f4a7c15ull;
	return value ^ value >> 31;
}

void pattern_fill(void *data, size_t len_bytes, uint64_t unit, uint32_t version, uint32_t seed)
{
	struct head head = head_of(unit, version, seed);
	uint64_t *word = data;
	memcpy(data, &head, sizeof(head));
	for (size_t i = HEAD_WORDS; i < len_bytes / sizeof(*word); i++)
		word[i] = word_at(&head, i);
}

static bool is_zero(const uint64_t *word, size_t words)
{
	uint64_t any = 0;
	for (size_t i = 0; i < words; i++)
		any |= word[i];
	return any == 0;
}

enum pattern_found pattern_check(const void *data, size_t len_bytes, uint64_t unit, uint32_t seed, uint32_t *version,
				 char *why, size_t why_bytes)
{
	const uint64_t *word = data;
	size_t words = len_bytes / sizeof(*word);
	struct head found;
	memcpy(&found, data, sizeof(found));
	struct head expected = head_of(found.unit, found.version, found.seed);
	*version = found.version;

	if (found.magic != MAGIC || found.check != expected.check) {
		*version = 0;
		if (found.magic == 0 && is_zero(word, words))
			return PATTERN_ZERO;
		snprintf(why, why_bytes, "no valid header: %016llx %016llx %016llx %016llx",
			 (unsigned long long)word[0], (unsigned long long)word[1], (unsigned long long)word[2],
			 (unsigned long long)word[3]);
		return PATTERN_WRONG;
	}
	if (found.unit != unit || found.seed != seed) {
		snprintf(why, why_bytes, "holds unit %llu, version %u, seed %u (expected unit %llu, seed %u)",
			 (unsigned long long)found.unit, found.version, found.seed, (unsigned long long)unit, seed);
		return PATTERN_WRONG;
	}
	for (size_t i = HEAD_WORDS; i < words; i++) {
		if (word[i] == word_at(&expected, i))
			continue;
		snprintf(why, why_bytes, "header says version %u, but byte %zu is of something else (%016llx)",
			 found.version, i * sizeof(*word), (unsigned long long)word[i]);
		return PATTERN_WRONG;
	}
	return PATTERN_INTACT;
}
