/* Rows of an erasure code: a data cell made anew from k others. See "Rows" in ARCHITECTURE.md for the code: parity p of a row is the
 * sum over its data cells j of cell_j / ((k + p) xor j), in the field of 256 elements with the polynomial 0x11d. */
#include <string.h>

#include "tools/check/check_int.h"

#define TRIES_MAX 1024u

static uint8_t multiply(uint8_t a, uint8_t b)
{
	uint32_t product = 0;

	for (uint32_t bit = 0; bit < 8; bit++)
		product ^= b & 1u << bit ? (uint32_t)a << bit : 0;
	for (uint32_t bit = 14; bit >= 8; bit--)
		product ^= product & 1u << bit ? 0x11du << (bit - 8) : 0;
	return (uint8_t)product;
}

static uint8_t invert(uint8_t a)
{
	uint8_t power = a;

	for (int i = 0; i < 6; i++) /* a^254 */
		power = multiply(multiply(power, power), a);
	return multiply(power, power);
}

/* How much of data cell j is in column col. */
static uint8_t share(uint32_t k, uint32_t col, uint32_t j)
{
	return col < k ? col == j : invert((uint8_t)(col ^ j));
}

/* Factors of the k columns that add up to data cell `want`: the solution of a k by k system. False: there is none. */
static bool solve(uint32_t k, const uint32_t *cols, uint32_t want, uint8_t *factor)
{
	uint8_t a[COLS_MAX][COLS_MAX + 1];

	for (uint32_t j = 0; j < k; j++) {
		for (uint32_t i = 0; i < k; i++)
			a[j][i] = share(k, cols[i], j);
		a[j][k] = j == want;
	}
	for (uint32_t i = 0; i < k; i++) {
		uint32_t pivot = i;
		uint8_t row[COLS_MAX + 1], by;

		while (pivot < k && a[pivot][i] == 0)
			pivot++;
		if (pivot == k)
			return false;
		by = invert(a[pivot][i]);
		for (uint32_t x = 0; x <= k; x++) {
			row[x] = multiply(a[pivot][x], by);
			a[pivot][x] = a[i][x];
		}
		memcpy(a[i], row, k + 1);
		for (uint32_t j = 0; j < k; j++) {
			by = a[j][i];
			for (uint32_t x = 0; j != i && x <= k; x++)
				a[j][x] ^= multiply(row[x], by);
		}
	}
	for (uint32_t i = 0; i < k; i++)
		factor[i] = a[i][k];
	return true;
}

static void add_up(uint32_t k, const uint32_t *cols, uint8_t (*cells)[BLOCK], const uint8_t *factor, uint8_t *out)
{
	memset(out, 0, BLOCK);
	for (uint32_t i = 0; i < k; i++) {
		uint8_t product[256];

		for (uint32_t v = 0; v < 256; v++)
			product[v] = multiply((uint8_t)v, factor[i]);
		for (uint32_t at = 0; at < BLOCK; at++)
			out[at] ^= product[cells[cols[i]][at]];
	}
}

/* The next choice of k out of count in order. False: there is none. */
static bool next_choice(uint32_t *choice, uint32_t k, uint32_t count)
{
	uint32_t i = k;

	while (i-- > 0) {
		if (choice[i] >= count - k + i)
			continue;
		choice[i]++;
		for (uint32_t j = i + 1; j < k; j++)
			choice[j] = choice[j - 1] + 1;
		return true;
	}
	return false;
}

bool row_restore(const struct row *row, uint32_t want, bool (*is_right)(const uint8_t *block, const void *arg),
		 const void *arg, uint8_t *out)
{
	uint32_t have[COLS_MAX], choice[COLS_MAX], cols[COLS_MAX], count = 0, tries = 0;
	uint8_t factor[COLS_MAX];

	for (uint32_t col = 0; col < row->k + row->m; col++) {
		if (col != want && row->present & 1u << col)
			have[count++] = col;
	}
	if (count < row->k)
		return false;
	for (uint32_t i = 0; i < row->k; i++)
		choice[i] = i;
	do {
		for (uint32_t i = 0; i < row->k; i++)
			cols[i] = have[choice[i]];
		if (!solve(row->k, cols, want, factor))
			continue;
		add_up(row->k, cols, row->cells, factor, out);
		if (is_right(out, arg))
			return true;
	} while (tries++ < TRIES_MAX && next_choice(choice, row->k, count));
	return false;
}
