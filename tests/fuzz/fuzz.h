/* Common ground of the fuzzers: a libFuzzer target is one file fuzz_NAME.c that defines LLVMFuzzerTestOneInput.
 *
 *     make fuzz TIME=60             each for 60 seconds
 *     make fuzz TIME=600 FUZZ=map   one
 *     build/fuzz/fuzz_map FILE      what an input does
 *
 * An input is taken apart by the functions below; where it ends, zeroes follow, so that every input means something. */
#ifndef TESTS_FUZZ_FUZZ_H
#define TESTS_FUZZ_FUZZ_H

#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* What must hold whatever the input says. */
#define FUZZ_REQUIRE(what)                                                                     \
	do {                                                                                   \
		if (!(what)) {                                                                 \
			fprintf(stderr, "%s:%d: does not hold: %s\n", __FILE__, __LINE__, #what); \
			abort();                                                               \
		}                                                                              \
	} while (0)

struct fuzz_input {
	const uint8_t *at;
	size_t left;
};

/* Takes up to len bytes into buf, the rest of which becomes zero. Returns how many there were. */
static inline size_t fuzz_take(struct fuzz_input *in, void *buf, size_t len)
{
	size_t n = len < in->left ? len : in->left;

	if (n > 0)
		memcpy(buf, in->at, n);
	memset((uint8_t *)buf + n, 0, len - n);
	in->at += n;
	in->left -= n;
	return n;
}

#define FUZZ_TAKE(type)                                             \
	static inline type##_t fuzz_##type(struct fuzz_input *in)   \
	{                                                           \
		type##_t value;                                     \
                                                                    \
		fuzz_take(in, &value, sizeof(value));               \
		return value;                                       \
	}
FUZZ_TAKE(uint8)
FUZZ_TAKE(uint16)
FUZZ_TAKE(uint32)
FUZZ_TAKE(uint64)
#undef FUZZ_TAKE

#endif
