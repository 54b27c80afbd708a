/* Sizes as people write them: "4096", "512K", "20G", "1.5T". Units are powers of 1024, the letter in either case,
 * optionally followed by "B" or "iB". Any thread. */
#ifndef POOL_BASE_SIZE_H
#define POOL_BASE_SIZE_H

#include <stdint.h>

#define SIZE_TEXT_BYTES 24

/* Reads the whole of text. 0; -EINVAL: not a size, or not a whole number of bytes; -ERANGE: 2^64 or more.
 * *size_bytes is set on success only. */
int size_parse(const char *text, uint64_t *size_bytes) __attribute__((warn_unused_result));

/* Writes size_bytes in the largest unit that leaves 1 or more, rounded down to two decimals ("20G", "1.5T", "999",
 * "1023.99M"). Returns buf. */
char *size_to_text(uint64_t size_bytes, char buf[SIZE_TEXT_BYTES]);

#endif
