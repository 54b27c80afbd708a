/* Latency histogram: exact below 64 ns, then 64 buckets for each power of two, so percentiles are within 1.6 %. */
#ifndef TESTS_CLIENT_HISTOGRAM_H
#define TESTS_CLIENT_HISTOGRAM_H

#include <stdint.h>

#define HISTOGRAM_SUB_BITS 6
#define HISTOGRAM_BUCKETS ((64 - HISTOGRAM_SUB_BITS + 1) << HISTOGRAM_SUB_BITS)

struct histogram {
	uint64_t count;
	uint64_t max_ns;
	uint64_t bucket[HISTOGRAM_BUCKETS];
};

static inline unsigned histogram_index(uint64_t value_ns)
{
	if (value_ns < 1u << HISTOGRAM_SUB_BITS)
		return (unsigned)value_ns;
	unsigned shift = 63u - (unsigned)__builtin_clzll(value_ns) - HISTOGRAM_SUB_BITS;
	return ((shift + 1) << HISTOGRAM_SUB_BITS) + (unsigned)(value_ns >> shift) - (1u << HISTOGRAM_SUB_BITS);
}

static inline void histogram_add(struct histogram *histogram, uint64_t value_ns)
{
	histogram->count++;
	histogram->bucket[histogram_index(value_ns)]++;
	if (value_ns > histogram->max_ns)
		histogram->max_ns = value_ns;
}

/* The lower edge of the bucket in which the given share (0 to 1) of values is reached; 0 if there are no values. */
static inline uint64_t histogram_percentile_ns(const struct histogram *histogram, double share)
{
	uint64_t wanted = (uint64_t)((double)histogram->count * share);
	uint64_t seen = 0;
	for (unsigned i = 0; i < HISTOGRAM_BUCKETS && histogram->count > 0; i++) {
		seen += histogram->bucket[i];
		if (seen <= wanted && seen < histogram->count)
			continue;
		if (i < 1u << HISTOGRAM_SUB_BITS)
			return i;
		unsigned shift = (i >> HISTOGRAM_SUB_BITS) - 1;
		uint64_t mantissa = (i & ((1u << HISTOGRAM_SUB_BITS) - 1)) + (1u << HISTOGRAM_SUB_BITS);
		return mantissa << shift;
	}
	return 0;
}

#endif
