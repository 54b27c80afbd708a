/* On disk: the header block of a batch, the unit of append.
 *
 * A batch is 1 header block, data_blocks data blocks and zero blocks up to a whole row, contiguous in a segment.
 *
 *   off  size  field
 *     0     4  magic          "pbat"
 *     4     4  crc            CRC32C of the 4096 bytes with this field 0
 *     8     8  lineage        id of the lineage
 *    16     8  grant          grant number of the segment this was written for
 *    24     8  seq            position in the lineage's log, consecutive (data stream)
 *    32     8  flushed_seq    all batches up to this one were durable when this was written
 *    40     4  segno          lineage's number of the segment
 *    44     4  index          block of this header in the segment
 *    48     4  data_blocks    data blocks that follow
 *    52     4  total_blocks   header, data and padding: where the next batch begins
 *    56     2  extent_count
 *    58     1  stream         enum segment_stream
 *    59     1  k              data columns of a row
 *    60     1  m              parity columns
 *    61     3  zero
 *    64  24*e  extents        struct batch_extent, in the order of their writes
 *     .   4*d  block_crc      CRC32C of each data block
 *
 * Valid if and only if: magic and crc match; lineage, grant, segno and index are those of the place it was read from;
 * 64 + 24 * extent_count + 4 * data_blocks <= 4096; the extents' counts, but for HOLE, add up to data_blocks;
 * total_blocks is 1 + data_blocks rounded up to k and fits the segment; every extent's op is one of the stream's, its count
 * is not 0, and lba + count does not exceed 2^52.
 * Its data is valid if every block has its block_crc; what seq <= flushed_seq of a later valid batch needs no look. */
#ifndef VOLUMES_BATCH_FORMAT_H
#define VOLUMES_BATCH_FORMAT_H

#include <assert.h>
#include <stdbool.h>
#include <stddef.h>

#include "pool/base/le.h"
#include "pool/pool.h"

#define BATCH_MAGIC 0x74616270u /* "pbat" */
#define BATCH_LBA_MAX (1ull << 52)

enum batch_op {
	BATCH_DATA = 1,          /* count blocks of data for volume's lba.. */
	BATCH_HOLE = 2,          /* count blocks of the volume read as zeroes from here on; no data */
	BATCH_META = 3,          /* map node, table block; lba unused */
	BATCH_MOVED = 4,         /* count blocks of segment `volume`, the first of them its block lba: see place_format.h */
};

struct batch_extent {
	le64 lba;
	le32 count;
	le32 count_high;         /* bits 32.. of count: holes may be long */
	le32 volume;             /* lineage's number of the volume; MOVED: of the segment */
	le32 op;                 /* enum batch_op */
};

struct batch_header {
	le32 magic, crc;
	le64 lineage, grant, seq, flushed_seq;
	le32 segno, index, data_blocks, total_blocks;
	le16 extent_count;
	uint8_t stream, k, m, zero[3];
	uint8_t body[BLOCK_BYTES - 64];
};

static_assert(sizeof(struct batch_extent) == 24, "batch extent");
static_assert(offsetof(struct batch_header, segno) == 40, "batch header");
static_assert(offsetof(struct batch_header, body) == 64, "batch header");
static_assert(sizeof(struct batch_header) == BLOCK_BYTES, "batch header");

/* Header space left matters to whoever fills a batch. */
#define BATCH_BODY_BYTES (BLOCK_BYTES - 64)

/* Where a batch was found, or is to be written. */
struct batch_place {
	uint64_t lineage, grant;
	uint32_t segno, index, segment_blocks;
	struct policy policy;
	enum segment_stream stream;
};

static inline uint64_t batch_extent_count(const struct batch_extent *e)
{
	return (uint64_t)le32_get(e->count_high) << 32 | le32_get(e->count);
}

static inline const struct batch_extent *batch_extents(const struct batch_header *h)
{
	return (const struct batch_extent *)h->body;
}

static inline const le32 *batch_crcs(const struct batch_header *h)
{
	return (const le32 *)(h->body + le16_get(h->extent_count) * sizeof(struct batch_extent));
}

/* Bytes of a header that say anything; those behind are zero. */
static inline uint32_t batch_header_used(const struct batch_header *h)
{
	return (uint32_t)(offsetof(struct batch_header, body) + le16_get(h->extent_count) * sizeof(struct batch_extent) +
			  le32_get(h->data_blocks) * sizeof(le32));
}

/* Whole rows that hold a header and data_blocks. */
static inline uint32_t batch_total_blocks(uint32_t data_blocks, uint32_t k)
{
	return (1 + data_blocks + k - 1) / k * k;
}

/* Fills magic and crc; everything else is set. */
void batch_header_seal(struct batch_header *h);
/* True if and only if valid as above. */
bool batch_header_validate(const struct batch_header *h, const struct batch_place *place);
/* One line, for dumps and messages; returns text. */
char *batch_header_to_text(const struct batch_header *h, char *text, size_t text_bytes);

#endif
