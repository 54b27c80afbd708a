/* Unit tests of pool/base/table.c. */
#include "pool/base/table.h"

#include "tests/unit/unit.h"

#define THINGS 1000u

struct thing {
	struct table_node node;
	uint64_t key;
};

static struct thing thing[THINGS];

/* All of one hash in one bucket when `hashes` is 1. */
static void fill(struct table *table, uint64_t hashes)
{
	table_init(table);
	for (uint32_t i = 0; i < THINGS; i++) {
		thing[i].key = i;
		table_node_init(&thing[i].node);
		table_add(table, &thing[i].node, table_hash(i % hashes));
	}
}

static uint32_t count(const struct table *table, uint64_t hash, uint64_t key)
{
	uint32_t found = 0;

	table_for_bucket(node, table, hash)
		found += table_entry(node, struct thing, node)->key == key;
	return found;
}

static void finds_what_is_there(void **state)
{
	static const uint64_t hashes[] = { THINGS, 7, 1 };

	for (uint32_t h = 0; h < 3; h++) {
		struct table table;

		fill(&table, hashes[h]);
		for (uint32_t i = 0; i < THINGS; i += 2)
			table_del(&table, &thing[i].node);
		assert_int_equal(table.count, THINGS / 2);
		for (uint32_t i = 0; i < THINGS; i++)
			assert_int_equal(count(&table, table_hash(i % hashes[h]), i), i % 2);
		for (uint32_t i = 0; i < THINGS; i++)
			table_del(&table, &thing[i].node); /* half of them again, which is harmless */
		table_release(&table);
	}
}

/* Numbers that follow each other, as ours do, share buckets with few. */
static void spreads(void **state)
{
	struct table table;

	fill(&table, THINGS);
	for (uint64_t i = 0; i <= table.mask; i++) {
		uint32_t in_bucket = 0;

		table_for_bucket(node, &table, i)
			in_bucket += node != NULL;
		assert_true(in_bucket <= 8);
	}
	for (uint32_t i = 0; i < THINGS; i++)
		table_del(&table, &thing[i].node);
	table_release(&table);
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(finds_what_is_there),
		cmocka_unit_test(spreads),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
