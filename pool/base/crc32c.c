/* CRC32C by isa-l, which picks the best code for the CPU.
 *
 * isa-l's crc32_iscsi works on the bare shift register: the usual inversion before and after is left to its caller.
 * Inverting on both sides here makes results standard and lets them be fed back in as seeds, as the inner pairs
 * cancel out. Its length is an int, so long data goes in pieces. */
#include "pool/base/crc32c.h"

#include <isa-l.h>

#define PIECE_BYTES_MAX (1u << 30)

uint32_t crc32c(uint32_t seed, const void *data, size_t len_bytes)
{
	const unsigned char *pos = data;
	uint32_t reg = ~seed;

	while (len_bytes > 0) {
		size_t piece = len_bytes < PIECE_BYTES_MAX ? len_bytes : PIECE_BYTES_MAX;

		/* Takes a pointer to non-const, but only reads. */
		reg = crc32_iscsi((unsigned char *)pos, (int)piece, reg);
		pos += piece;
		len_bytes -= piece;
	}
	return ~reg;
}
