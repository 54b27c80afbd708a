/* The simulator's randomness: xoshiro256** (Blackman, Vigna), seeded by splitmix64. Everything random in a run comes from
 * generators of one seed; separate concerns take separate generators, so that a change of one does not shift the rest. */
#ifndef TESTS_SIM_RNG_H
#define TESTS_SIM_RNG_H

#include <stdbool.h>
#include <stdint.h>

struct rng {
	uint64_t s[4];
};

static inline uint64_t splitmix64(uint64_t *state)
{
	uint64_t z = (*state += 0x9e3779b97f4a7c15ull);

	z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9ull;
	z = (z ^ z >> 27) * 0x94d049bb133111ebull;
	return z ^ z >> 31;
}

/* `concern` tells the generators of one seed apart. */
static inline void rng_seed(struct rng *rng, uint64_t seed, uint64_t concern)
{
	uint64_t state = seed * 0xd1342543de82ef95ull + concern;

	for (int i = 0; i < 4; i++)
		rng->s[i] = splitmix64(&state);
}

static inline uint64_t rng_next(struct rng *rng)
{
	uint64_t *s = rng->s, product = s[1] * 5, result = (product << 7 | product >> 57) * 9, t = s[1] << 17;

	s[2] ^= s[0];
	s[3] ^= s[1];
	s[1] ^= s[2];
	s[0] ^= s[3];
	s[2] ^= t;
	s[3] = s[3] << 45 | s[3] >> 19;
	return result;
}

/* 0 .. n - 1; n > 0. */
static inline uint64_t rng_below(struct rng *rng, uint64_t n)
{
	return (uint64_t)((unsigned __int128)rng_next(rng) * n >> 64);
}

/* low .. high, both included. */
static inline uint64_t rng_range(struct rng *rng, uint64_t low, uint64_t high)
{
	return low + rng_below(rng, high - low + 1);
}

static inline bool rng_per_mille(struct rng *rng, uint32_t chance)
{
	return rng_below(rng, 1000) < chance;
}

/* low .. high, small ones as likely as big ones: uniform in the logarithm. low > 0. */
static inline uint64_t rng_log_range(struct rng *rng, uint64_t low, uint64_t high)
{
	uint32_t bits_low = 63 - __builtin_clzll(low), bits_high = 63 - __builtin_clzll(high);
	uint32_t bits = (uint32_t)rng_range(rng, bits_low, bits_high);
	uint64_t value = rng_range(rng, 1ull << bits, (2ull << bits) - 1);

	return value < low ? low : value > high ? high : value;
}

#endif
