/* Copy and checksum in one pass: each 64 bytes are stored and folded while they are in a register.
 *
 * By itself either is slow for its own reason, the copy because it waits for memory, the checksum because carry-less multiplication takes
 * four cycles for 64 bytes. Done together the multiplications hide in the waiting.
 *
 * Folding (Gopal et al., "Fast CRC Computation for Generic Polynomials Using PCLMULQDQ", Intel 2009): four accumulators of 64 bytes
 * hold a polynomial that is congruent to what has been read so far. To go on by D bits, each 128 bits of it are multiplied by
 * x^D mod P, and what comes next is added. Constants are bit-reflected and shifted by one: FOLD(D) is {x^(D+32), x^(D-32)}. */
#include <stdbool.h>
#include <string.h>

#include "pool/base/crc32c.h"

static void copy_in_turn(uint8_t *dst, const uint8_t *src, uint32_t blocks, uint32_t *crc)
{
	for (uint32_t i = 0; i < blocks; i++) {
		uint8_t *to = dst + (size_t)i * CRC32C_BLOCK_BYTES;

		memcpy(to, src + (size_t)i * CRC32C_BLOCK_BYTES, CRC32C_BLOCK_BYTES);
		crc[i] = crc32c(0, to, CRC32C_BLOCK_BYTES);
	}
}

#ifdef __x86_64__
#include <immintrin.h>

#define WIDE __attribute__((target("avx512f,avx512vl,vpclmulqdq,pclmul,sse4.2")))

#define LANES 4
#define LANE_BYTES 64
#define STEP_BYTES (LANES * LANE_BYTES)
/* How far ahead of the copy memory is asked for: two blocks, since the CPU's own prefetcher stops at the end of each page. */
#define AHEAD_BYTES (2 * CRC32C_BLOCK_BYTES)

#define FOLD_2048 _mm_set_epi64x(0x0b9e02b86, 0x0dcb17aa4)
#define FOLD_512  _mm_set_epi64x(0x09e4addf8, 0x0740eef02)
#define FOLD_384  _mm_set_epi64x(0x1d82c63da, 0x1c291d04)
#define FOLD_256  _mm_set_epi64x(0x0ba4fc28e, 0x1384aa63a)
#define FOLD_128  _mm_set_epi64x(0x14cd00bd6, 0x0f20c0dfe)

WIDE static inline __m512i fold_lane(__m512i acc, __m512i by, __m512i next)
{
	__m512i low = _mm512_clmulepi64_epi128(acc, by, 0x00), high = _mm512_clmulepi64_epi128(acc, by, 0x11);

	return _mm512_ternarylogic_epi64(low, high, next, 0x96); /* xor of the three */
}

WIDE static inline __m128i fold_quarter(__m128i acc, __m128i by, __m128i next)
{
	__m128i low = _mm_clmulepi64_si128(acc, by, 0x00), high = _mm_clmulepi64_si128(acc, by, 0x11);

	return _mm_xor_si128(_mm_xor_si128(low, high), next);
}

/* The CRC of what the accumulators stand for. */
WIDE static inline uint32_t reduce(const __m512i acc[LANES])
{
	__m512i by = _mm512_broadcast_i32x4(FOLD_512), all = acc[0];
	__m128i last;
	uint64_t reg;

	for (int i = 1; i < LANES; i++)
		all = fold_lane(all, by, acc[i]);
	last = _mm512_extracti32x4_epi32(all, 3);
	last = fold_quarter(_mm512_castsi512_si128(all), FOLD_384, last);
	last = fold_quarter(_mm512_extracti32x4_epi32(all, 1), FOLD_256, last);
	last = fold_quarter(_mm512_extracti32x4_epi32(all, 2), FOLD_128, last);
	reg = _mm_crc32_u64(0, (uint64_t)_mm_cvtsi128_si64(last));
	return ~(uint32_t)_mm_crc32_u64(reg, (uint64_t)_mm_extract_epi64(last, 1));
}

/* `ahead`: there is as much as AHEAD_BYTES behind the block. */
WIDE static inline uint32_t copy_block(uint8_t *dst, const uint8_t *src, bool ahead)
{
	__m512i acc[LANES], by = _mm512_broadcast_i32x4(FOLD_2048);

	for (int i = 0; i < LANES; i++) {
		acc[i] = _mm512_loadu_si512(src + i * LANE_BYTES);
		_mm512_storeu_si512(dst + i * LANE_BYTES, acc[i]);
		if (ahead)
			_mm_prefetch((const char *)src + AHEAD_BYTES + i * LANE_BYTES, _MM_HINT_T0);
	}
	acc[0] = _mm512_xor_si512(acc[0], _mm512_zextsi128_si512(_mm_cvtsi32_si128(-1)));
	for (uint32_t at = STEP_BYTES; at < CRC32C_BLOCK_BYTES; at += STEP_BYTES) {
		for (uint32_t i = 0; i < LANES; i++) {
			__m512i next = _mm512_loadu_si512(src + at + i * LANE_BYTES);

			_mm512_storeu_si512(dst + at + i * LANE_BYTES, next);
			if (ahead)
				_mm_prefetch((const char *)src + AHEAD_BYTES + at + i * LANE_BYTES, _MM_HINT_T0);
			acc[i] = fold_lane(acc[i], by, next);
		}
	}
	return reduce(acc);
}

WIDE static void copy_wide(uint8_t *dst, const uint8_t *src, uint32_t blocks, uint32_t *crc)
{
	for (uint32_t i = 0; i < blocks; i++) {
		size_t at = (size_t)i * CRC32C_BLOCK_BYTES;

		if (blocks - i > AHEAD_BYTES / CRC32C_BLOCK_BYTES)
			crc[i] = copy_block(dst + at, src + at, true);
		else
			crc[i] = copy_block(dst + at, src + at, false);
	}
}

static bool is_wide(void)
{
	return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512vl") &&
	       __builtin_cpu_supports("vpclmulqdq");
}
#else
static bool is_wide(void)
{
	return false;
}

static void copy_wide(uint8_t *dst, const uint8_t *src, uint32_t blocks, uint32_t *crc)
{
	copy_in_turn(dst, src, blocks, crc);
}
#endif

void crc32c_copy(void *dst, const void *src, uint32_t blocks, uint32_t *crc)
{
	if (is_wide())
		copy_wide(dst, src, blocks, crc);
	else
		copy_in_turn(dst, src, blocks, crc);
}
