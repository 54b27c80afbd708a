/* CRC32C (Castagnoli, RFC 3720 appendix B.4), by isa-l. Seed 0 starts; feed the result back in to continue:
 * crc32c(crc32c(0, a), b) == crc32c(0, a||b). Any thread. */
#ifndef POOL_BASE_CRC32C_H
#define POOL_BASE_CRC32C_H

#include <stddef.h>
#include <stdint.h>

uint32_t crc32c(uint32_t seed, const void *data, size_t len_bytes);

#endif
