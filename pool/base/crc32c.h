/* CRC32C (Castagnoli, RFC 3720 appendix B.4). Any thread. */
#ifndef POOL_BASE_CRC32C_H
#define POOL_BASE_CRC32C_H

#include <stddef.h>
#include <stdint.h>

/* Seed 0 starts; feed the result back in to continue: crc32c(crc32c(0, a), b) == crc32c(0, a||b). */
uint32_t crc32c(uint32_t seed, const void *data, size_t len_bytes);

#define CRC32C_BLOCK_BYTES 4096u

/* Copies blocks of CRC32C_BLOCK_BYTES, and says for each what was copied: should src change meanwhile, crc[i] is that of dst.
 * Hardly dearer than the copy alone where src is not in the cache. No overlap; any alignment. */
void crc32c_copy(void *dst, const void *src, uint32_t blocks, uint32_t *crc);

#endif
