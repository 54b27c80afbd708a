/* Place blocks against a plain array, and hostile ones. */
#include "volumes/place_format.h"

#include <stdlib.h>
#include <string.h>

#include "tests/unit/unit.h"

#define SEGMENT_BLOCKS (PLACE_BLOCKS + 4096u)
#define NOWHERE UINT32_MAX

static const struct place_part part0 = { .lineage = 7, .segno = 3, .part = 0, .segment_blocks = SEGMENT_BLOCKS };
static const struct place_part part1 = { .lineage = 7, .segno = 3, .part = 1, .segment_blocks = SEGMENT_BLOCKS };

/* A block and what it should say. Host h's block i is told as h << 20 | i. */
struct model {
	struct place_block block;
	uint32_t at[PLACE_BLOCKS];
	uint32_t next_host;
};

static uint32_t rnd(unsigned *seed, uint32_t below)
{
	return (uint32_t)rand_r(seed) % below;
}

static void put(struct model *m, const uint32_t *at, uint32_t count, uint32_t host, uint32_t index)
{
	for (uint32_t i = 0; i < count; i++)
		m->at[at[i]] = host << 20 | (index + i);
}

static void check(const struct model *m)
{
	assert_true(le32_get(m->block.count) == 0 || place_validate(&m->block, &part0));
	for (uint32_t i = 0; i < PLACE_BLOCKS; i++) {
		uint32_t host, index;
		bool found = place_find(&m->block, i, &host, &index);

		assert_int_equal(found, m->at[i] != NOWHERE);
		assert_true(!found || (host << 20 | index) == m->at[i]);
	}
}

/* One block of `apart` is live; pieces of at most `most`. */
static void fill(struct model *m, unsigned *seed, uint32_t apart, uint32_t most)
{
	uint32_t at[PLACE_PIECE_BLOCKS], count = 0;

	place_init(&m->block, &part0);
	memset(m->at, 0xff, sizeof(m->at));
	m->next_host = 1;
	for (uint32_t i = 0; i < PLACE_BLOCKS; i++) {
		if (rnd(seed, apart) == 0)
			at[count++] = i;
		if (count == most || (i == PLACE_BLOCKS - 1 && count > 0)) {
			uint32_t index = rnd(seed, 1000);

			if (!place_append(&m->block, at, count, m->next_host, index)) {
				assert_int_equal(le32_get(m->block.count), PLACE_PIECES);
				return;
			}
			put(m, at, count, m->next_host++, index);
			count = 0;
		}
	}
}

/* Moves a piece again, without some of its blocks. */
static void move_piece(struct model *m, unsigned *seed)
{
	uint32_t n = rnd(seed, le32_get(m->block.count)), keep = rnd(seed, 101), left = 0;
	uint32_t at[PLACE_PIECE_BLOCKS], count = place_piece_blocks(&m->block, n, at), index = rnd(seed, 1000);

	assert_int_equal(place_piece_at(&m->block, le32_get(m->block.piece[n].first)), n);
	for (uint32_t i = 0; i < count; i++) {
		m->at[at[i]] = NOWHERE;
		if (rnd(seed, 100) < keep)
			at[left++] = at[i];
	}
	place_replace(&m->block, n, at, left, m->next_host, index);
	put(m, at, left, m->next_host++, index);
}

static void agrees_with_an_array(void **state)
{
	struct model *m = malloc(sizeof(*m));

	for (unsigned round = 0; round < 60; round++) {
		unsigned seed = round;

		fill(m, &seed, 1 + rnd(&seed, 1 + round), 1 + rnd(&seed, PLACE_PIECE_BLOCKS));
		check(m);
		for (uint32_t i = 0; i < 100 && le32_get(m->block.count) > 0; i++)
			move_piece(m, &seed);
		check(m);
	}
	free(m);
}

static void part_that_is_live_whole_fits(void **state)
{
	struct model *m = malloc(sizeof(*m));
	unsigned seed = 1;

	fill(m, &seed, 1, PLACE_PIECE_BLOCKS);
	assert_int_equal(le32_get(m->block.count), PLACE_BLOCKS / PLACE_PIECE_BLOCKS);
	check(m);
	free(m);
}

/* --- hostile -------------------------------------------------------------------------------------------------- */

/* Three pieces: blocks 10, 12; 20..23; 40. */
static void good_block(struct place_block *b, const struct place_part *part)
{
	place_init(b, part);
	assert_true(place_append(b, (uint32_t[]){ 10, 12 }, 2, 5, 100));
	assert_true(place_append(b, (uint32_t[]){ 20, 21, 22, 23 }, 4, 6, 1));
	assert_true(place_append(b, (uint32_t[]){ 40 }, 1, 5, SEGMENT_BLOCKS - 1));
	assert_true(place_validate(b, part));
}

static void refuse(struct place_block *b)
{
	assert_false(place_validate(b, &part0));
	good_block(b, &part0);
}

static void set_bit(struct place_block *b, uint32_t i)
{
	b->placed[i / 64] = le64_of(le64_get(b->placed[i / 64]) | 1ull << i % 64);
}

static void refuses_another_place(void **state)
{
	struct place_part other = part0;
	struct place_block b;

	good_block(&b, &part0);
	assert_false(place_validate(&b, &part1));
	other.segno++;
	assert_false(place_validate(&b, &other));
	other = part0, other.lineage++;
	assert_false(place_validate(&b, &other));
	b.magic = le32_of(PLACE_MAGIC + 1), refuse(&b);
}

static void refuses_bad_pieces(void **state)
{
	struct place_block b;

	good_block(&b, &part0);
	b.count = le32_of(0), refuse(&b);
	b.count = le32_of(PLACE_PIECES + 1), refuse(&b);
	b.count = le32_of(UINT32_MAX), refuse(&b);
	b.count = le32_of(4), refuse(&b);                    /* first 0: not ascending */
	b.piece[1].first = le32_of(10), refuse(&b);
	b.piece[1].first = le32_of(24), refuse(&b);          /* its blocks are the first piece's; it has none */
	b.piece[2].first = le32_of(PLACE_BLOCKS), refuse(&b);
	b.piece[2].first = le32_of(UINT32_MAX), refuse(&b);
	b.piece[1].first = le32_of(UINT32_MAX), refuse(&b);
	b.piece[0].index = le32_of(SEGMENT_BLOCKS - 1), refuse(&b);
	b.piece[0].index = le32_of(UINT32_MAX), refuse(&b);
}

static void refuses_bad_bits(void **state)
{
	struct place_block b;

	good_block(&b, &part0);
	set_bit(&b, 9), refuse(&b);                          /* before the first piece */
	b.placed[0] = le64_of(0), refuse(&b);                /* pieces without a block */
	for (uint32_t i = 100; i < 100 + PLACE_PIECE_BLOCKS; i++)
		set_bit(&b, i);
	refuse(&b);                                          /* too many in the last piece */
	good_block(&b, &part1);
	set_bit(&b, SEGMENT_BLOCKS - PLACE_BLOCKS);          /* behind the segment's end */
	b.piece[2].index = le32_of(0);
	assert_false(place_validate(&b, &part1));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(agrees_with_an_array),
		cmocka_unit_test(part_that_is_live_whole_fits),
		cmocka_unit_test(refuses_another_place),
		cmocka_unit_test(refuses_bad_pieces),
		cmocka_unit_test(refuses_bad_bits),
	};

	return run_unit_tests(tests);
}
