/* Self-describing data: each unit of a disk says which unit, which version and which run it belongs to, and every
 * further word of it follows from these, so lost, stale, misplaced, torn and mixed data are told apart when read. */
#ifndef TESTS_CLIENT_PATTERN_H
#define TESTS_CLIENT_PATTERN_H

#include <stddef.h>
#include <stdint.h>

/* What a unit of the disk turned out to hold. */
enum pattern_found {
	PATTERN_INTACT, /* *version says which */
	PATTERN_ZERO,   /* all zero bytes: never written, or discarded */
	PATTERN_WRONG,  /* `why` says how */
};

/* Units are multiples of 512 bytes. Versions start at 1. */
void pattern_fill(void *data, size_t len_bytes, uint64_t unit, uint32_t version, uint32_t seed);
enum pattern_found pattern_check(const void *data, size_t len_bytes, uint64_t unit, uint32_t seed, uint32_t *version,
				 char *why, size_t why_bytes);

/* A small generator for tests: advances *state (never 0) and returns 64 bits. */
uint64_t pattern_random(uint64_t *state);

#endif
