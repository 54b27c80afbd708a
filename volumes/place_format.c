/* Place blocks: validate, look up, change. Everything that decodes one goes through place_validate once. */
#include "volumes/place_format.h"

#include <string.h>

#define WORD_BITS 64u

void place_init(struct place_block *block, const struct place_part *part)
{
	*block = (struct place_block){ .magic = le32_of(PLACE_MAGIC), .segno = le32_of(part->segno),
				       .part = le32_of(part->part), .lineage = le64_of(part->lineage) };
}

/* --- bits --------------------------------------------------------------------------------------------------- */

static bool bit_get(const struct place_block *block, uint32_t i)
{
	return le64_get(block->placed[i / WORD_BITS]) >> i % WORD_BITS & 1;
}

static void bit_put(struct place_block *block, uint32_t i, bool set)
{
	le64 *word = &block->placed[i / WORD_BITS];
	uint64_t bit = 1ull << i % WORD_BITS;

	*word = le64_of(set ? le64_get(*word) | bit : le64_get(*word) & ~bit);
}

/* Bits set in [from, to). */
static uint32_t bits_between(const struct place_block *block, uint32_t from, uint32_t to)
{
	uint32_t bits = 0;

	while (from < to) {
		uint32_t in_word = from % WORD_BITS, n = WORD_BITS - in_word;
		uint64_t word = le64_get(block->placed[from / WORD_BITS]) >> in_word;

		if (n > to - from) {
			n = to - from;
			word &= (1ull << n) - 1;
		}
		bits += (uint32_t)__builtin_popcountll(word);
		from += n;
	}
	return bits;
}

/* --- pieces --------------------------------------------------------------------------------------------------- */

static uint32_t piece_first(const struct place_block *block, uint32_t n)
{
	return le32_get(block->piece[n].first);
}

static uint32_t piece_end(const struct place_block *block, uint32_t n)
{
	return n + 1 < le32_get(block->count) ? piece_first(block, n + 1) : PLACE_BLOCKS;
}

/* Number of pieces with first <= i. */
static uint32_t pieces_upto(const struct place_block *block, uint32_t i)
{
	uint32_t lo = 0, hi = le32_get(block->count);

	while (lo < hi) {
		uint32_t mid = (lo + hi) / 2;

		if (piece_first(block, mid) <= i)
			lo = mid + 1;
		else
			hi = mid;
	}
	return lo;
}

static bool pieces_valid(const struct place_block *block, uint32_t segment_blocks)
{
	for (uint32_t n = 0; n < le32_get(block->count); n++) {
		uint32_t first = piece_first(block, n), end = piece_end(block, n), blocks;

		if (end <= first || end > PLACE_BLOCKS)
			return false;
		blocks = bits_between(block, first, end);
		if (blocks == 0 || blocks > PLACE_PIECE_BLOCKS || blocks > segment_blocks ||
		    le32_get(block->piece[n].index) > segment_blocks - blocks)
			return false;
	}
	return true;
}

bool place_validate(const struct place_block *block, const struct place_part *part)
{
	uint32_t count = le32_get(block->count), begin = part->part * PLACE_BLOCKS;
	uint32_t blocks = part->segment_blocks - begin;

	if (le32_get(block->magic) != PLACE_MAGIC || le64_get(block->lineage) != part->lineage ||
	    le32_get(block->segno) != part->segno || le32_get(block->part) != part->part)
		return false;
	if (count == 0 || count > PLACE_PIECES || !pieces_valid(block, part->segment_blocks))
		return false;
	return bits_between(block, 0, piece_first(block, 0)) == 0 &&
	       (blocks >= PLACE_BLOCKS || bits_between(block, blocks, PLACE_BLOCKS) == 0);
}

bool place_find(const struct place_block *block, uint32_t i, uint32_t *host, uint32_t *index)
{
	uint32_t n = pieces_upto(block, i);

	if (n == 0 || !bit_get(block, i))
		return false;
	*host = le32_get(block->piece[n - 1].host);
	*index = le32_get(block->piece[n - 1].index) + bits_between(block, piece_first(block, n - 1), i);
	return true;
}

uint32_t place_piece_at(const struct place_block *block, uint32_t first)
{
	uint32_t n = pieces_upto(block, first);

	return n > 0 && piece_first(block, n - 1) == first ? n - 1 : PLACE_PIECES;
}

uint32_t place_piece_blocks(const struct place_block *block, uint32_t n, uint32_t at[PLACE_PIECE_BLOCKS])
{
	uint32_t count = 0;

	for (uint32_t i = piece_first(block, n); i < piece_end(block, n); i++) {
		if (bit_get(block, i))
			at[count++] = i;
	}
	return count;
}

bool place_append(struct place_block *block, const uint32_t *at, uint32_t count, uint32_t host, uint32_t index)
{
	uint32_t n = le32_get(block->count);

	if (n == PLACE_PIECES)
		return false;
	block->piece[n] = (struct place_piece){ le32_of(at[0]), le32_of(host), le32_of(index) };
	block->count = le32_of(n + 1);
	for (uint32_t i = 0; i < count; i++)
		bit_put(block, at[i], true);
	return true;
}

static void remove_piece(struct place_block *block, uint32_t n)
{
	uint32_t last = le32_get(block->count) - 1;

	memmove(&block->piece[n], &block->piece[n + 1], (last - n) * sizeof(block->piece[0]));
	memset(&block->piece[last], 0, sizeof(block->piece[0]));
	block->count = le32_of(last);
}

void place_replace(struct place_block *block, uint32_t n, const uint32_t *at, uint32_t count, uint32_t host, uint32_t index)
{
	for (uint32_t i = piece_first(block, n); i < piece_end(block, n); i++)
		bit_put(block, i, false);
	if (count == 0) {
		remove_piece(block, n);
		return;
	}
	block->piece[n] = (struct place_piece){ le32_of(at[0]), le32_of(host), le32_of(index) };
	for (uint32_t i = 0; i < count; i++)
		bit_put(block, at[i], true);
}
