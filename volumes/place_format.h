/* On disk: a block of the place table, which tells where the moved blocks of a part of a segment are.
 *
 * A part is PLACE_BLOCKS consecutive blocks of a segment. What the cleaner moved at once lies one block behind the other in
 * a host segment: a piece. `placed` has a bit for each block of the part that was live when it was moved.
 *
 *   off  size  field
 *     0     4  magic    "pplc"
 *     4     4  segno    the segment whose blocks were moved
 *     8     4  part     which part of it
 *    12     4  count    pieces, 1 .. 168
 *    16     8  lineage
 *    24     8  zero
 *    32  2048  placed   bitmap: block i of the part is bit i % 64 of the le64 i / 64
 *  2080  12*c  pieces   {first 4, host 4, index 4}
 *     .     .  zero
 *
 * Block i, if its bit is set, is in the last piece whose first <= i: in segment `host`, at `index` and as many blocks on as
 * there are bits set in [first, i).
 *
 * Valid if and only if: the block's CRC32C is the pointer's; magic, lineage, segno and part are as expected; count is in
 * range; the pieces' first ascend strictly and are below PLACE_BLOCKS; every piece has 1 .. PLACE_PIECE_BLOCKS bits set, and
 * all bits set belong to a piece; no bit is set beyond the segment's end; each piece lies within a segment's size. A piece of
 * which nothing is live any more may name a host that is gone. */
#ifndef VOLUMES_PLACE_FORMAT_H
#define VOLUMES_PLACE_FORMAT_H

#include <assert.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "pool/base/le.h"
#include "pool/pool.h"

#define PLACE_MAGIC 0x636c7070u /* "pplc" */
#define PLACE_BLOCKS 16384u
#define PLACE_PIECES 168u
#define PLACE_PIECE_BLOCKS 128u

struct place_piece {
	le32 first, host, index;
};

struct place_block {
	le32 magic, segno, part, count;
	le64 lineage, zero;
	le64 placed[PLACE_BLOCKS / 64];
	struct place_piece piece[PLACE_PIECES];
};

static_assert(offsetof(struct place_block, placed) == 32, "place block");
static_assert(offsetof(struct place_block, piece) == 2080, "place block");
static_assert(sizeof(struct place_block) == BLOCK_BYTES, "place block");
static_assert(PLACE_BLOCKS / PLACE_PIECE_BLOCKS <= PLACE_PIECES, "a part that is moved whole");

/* Which part of which segment a place block is about. */
struct place_part {
	uint64_t lineage;
	uint32_t segno, part;
	uint32_t segment_blocks;
};

/* An empty one, which is for memory only: a part of which nothing is live has none on disk. */
void place_init(struct place_block *block, const struct place_part *part);
bool place_validate(const struct place_block *block, const struct place_part *part);
/* Where block i < PLACE_BLOCKS of the part is. False: it was not moved. */
bool place_find(const struct place_block *block, uint32_t i, uint32_t *host, uint32_t *index);
/* The piece that begins at `first`; PLACE_PIECES if none does. */
uint32_t place_piece_at(const struct place_block *block, uint32_t first);
/* The blocks of piece n, ascending; returns how many. */
uint32_t place_piece_blocks(const struct place_block *block, uint32_t n, uint32_t at[PLACE_PIECE_BLOCKS]);
/* Adds a piece behind all others: blocks at[0..count), ascending, one behind the other from host's index on. False: there
 * are too many pieces. */
bool place_append(struct place_block *block, const uint32_t *at, uint32_t count, uint32_t host, uint32_t index);
/* Piece n was moved again: at[0..count) of its blocks are left, elsewhere. None: the piece goes. */
void place_replace(struct place_block *block, uint32_t n, const uint32_t *at, uint32_t count, uint32_t host, uint32_t index);

#endif
