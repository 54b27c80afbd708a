/* Instead of pool/base/crc32c*.c in bench/poold-nosum: what poold would be without checksums over the data. Headers, labels
 * and the map keep theirs, as the engine relies on them to tell old from new. For measuring the price of checksums and
 * nothing else: any data is valid to it, so it must never see data that matters. */
#include "pool/base/crc32c.h"

#include <isa-l.h>
#include <string.h>

#include "pool/pool.h"
#include "volumes/map_format.h"

#define ANY_DATA 1u

static int is_metadata(const void *block)
{
	uint32_t magic;

	memcpy(&magic, block, sizeof(magic));
	return magic == MAP_MAGIC || magic == LIVE_MAGIC;
}

void crc32c_copy(void *dst, const void *src, uint32_t blocks, uint32_t *crc)
{
	memcpy(dst, src, (size_t)blocks * CRC32C_BLOCK_BYTES);
	for (uint32_t i = 0; i < blocks; i++)
		crc[i] = ANY_DATA;
}

uint32_t crc32c(uint32_t seed, const void *data, size_t len_bytes)
{
	if (len_bytes >= BLOCK_BYTES && !is_metadata(data))
		return ANY_DATA;
	/* Takes a pointer to non-const, but only reads. */
	return ~crc32_iscsi((unsigned char *)data, (int)len_bytes, ~seed);
}
