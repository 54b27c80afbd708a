/* Big-endian integers as they stand on the wire of network protocols. Distinct struct types, so that the compiler finds
 * every missing conversion. No alignment is required of them. */
#ifndef POOL_BASE_BE_H
#define POOL_BASE_BE_H

#include <endian.h>
#include <stdint.h>

typedef struct { uint16_t v; } __attribute__((packed)) be16;
typedef struct { uint32_t v; } __attribute__((packed)) be32;
typedef struct { uint64_t v; } __attribute__((packed)) be64;

static inline uint16_t be16_get(be16 x) { return be16toh(x.v); }
static inline uint32_t be32_get(be32 x) { return be32toh(x.v); }
static inline uint64_t be64_get(be64 x) { return be64toh(x.v); }
static inline be16 be16_of(uint16_t x) { return (be16){ htobe16(x) }; }
static inline be32 be32_of(uint32_t x) { return (be32){ htobe32(x) }; }
static inline be64 be64_of(uint64_t x) { return (be64){ htobe64(x) }; }

#endif
