/* The catalog: transactions, journal, checkpoints; crashes at every write, damage, hostile content, full areas.
 *
 * The model is an array of objects whose payload follows from a seed; a state of the catalog is compared whole. */
#include <errno.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "pool/base/crc32c.h"
#include "pool/base/mem.h"
#include "pool/catalog_int.h"
#include "tests/unit/medium.h"
#include "tests/unit/unit.h"

#define DISK_BYTES (12ull << 20)
#define OBJECTS 80

static const struct uuid uuid = { { 1, 2, 3 } };

/* --- rig -------------------------------------------------------------------------------------------------------- */

struct rig {
	struct media *media;
	struct catalog *cat;
	struct disk *disks[MEDIA_MAX];
	_Atomic bool failed[MEDIA_MAX];
};

static struct media media;
static struct label layout;

static void rig_open(struct rig *rig, struct media *of)
{
	memset(rig, 0, sizeof(*rig));
	rig->media = of;
	assert_int_equal(label_layout(&layout, DISK_BYTES, ZONE_BYTES_MIN, NULL), 0);
	assert_int_equal(catalog_new(&uuid, &rig->cat), 0);
	media_open(of, rig->disks);
	for (uint32_t i = 0; i < of->count; i++)
		assert_int_equal(catalog_attach(rig->cat, rig->disks[i], layout.half, &rig->failed[i]), 0);
}

static void rig_close(struct rig *rig)
{
	catalog_free(rig->cat);
	for (uint32_t i = 0; i < rig->media->count; i++)
		disk_close(rig->disks[i]);
}

/* As an import does it. */
static int rig_import(struct rig *rig, struct media *of, struct err *err)
{
	int ret;

	rig_open(rig, of);
	ret = catalog_load(rig->cat, err);
	return ret ? ret : catalog_checkpoint(rig->cat);
}

static void rig_must_import(struct rig *rig, struct media *of)
{
	struct err err = { "" };

	if (rig_import(rig, of, &err))
		fail_msg("%s", err.msg);
}

static void rig_format(struct rig *rig, struct media *of)
{
	rig_open(rig, of);
	assert_int_equal(catalog_format(rig->cat), 0);
}

/* --- model ------------------------------------------------------------------------------------------------------ */

struct model {
	struct {
		int16_t len; /* -1: absent */
		uint16_t seed;
	} obj[OBJECTS];
};

static uint64_t rng_state;

static uint32_t rnd(uint32_t below)
{
	rng_state = rng_state * 6364136223846793005ull + 1442695040888963407ull;
	return (uint32_t)(rng_state >> 33) % below;
}

static void model_clear(struct model *model)
{
	for (int i = 0; i < OBJECTS; i++)
		model->obj[i].len = -1;
}

static enum catalog_kind obj_kind(int i)
{
	return 1 + i % 5;
}

static void obj_payload(const struct model *model, int i, uint8_t *bytes)
{
	for (int b = 0; b < model->obj[i].len; b++)
		bytes[b] = (uint8_t)(model->obj[i].seed * 31 + b * 7 + i);
}

static void model_put(struct model *model, struct cat_txn *txn, int i, int len)
{
	uint8_t bytes[CATALOG_OBJ_MAX];

	model->obj[i].len = (int16_t)len;
	model->obj[i].seed = (uint16_t)rnd(65536);
	obj_payload(model, i, bytes);
	cat_put(txn, obj_kind(i), 100 + i, bytes, (uint32_t)len);
}

static void model_del(struct model *model, struct cat_txn *txn, int i)
{
	model->obj[i].len = -1;
	cat_del(txn, obj_kind(i), 100 + i);
}

/* Mostly a few small changes, sometimes everything at once. */
static void model_change(struct model *model, struct cat_txn *txn)
{
	uint32_t kind = rnd(12), ops = kind == 0 ? OBJECTS : kind < 3 ? 20 : 1 + rnd(4);

	for (uint32_t op = 0; op < ops; op++) {
		int i = ops == OBJECTS ? (int)op : (int)rnd(OBJECTS);

		if (rnd(4) == 0)
			model_del(model, txn, i);
		else
			model_put(model, txn, i, (int)(ops > 4 ? CATALOG_OBJ_MAX - rnd(9) : rnd(200)));
	}
}

static bool obj_matches(const struct catalog *cat, const struct model *model, int i)
{
	const struct cat_obj *obj = catalog_get(cat, obj_kind(i), 100 + i);
	uint8_t bytes[CATALOG_OBJ_MAX];

	if (!obj || model->obj[i].len < 0)
		return !obj && model->obj[i].len < 0;
	obj_payload(model, i, bytes);
	return obj->kind == obj_kind(i) && obj->id == 100ull + i && obj->len_bytes == (uint32_t)model->obj[i].len &&
	       memcmp(obj->data, bytes, obj->len_bytes) == 0;
}

static bool matches(const struct catalog *cat, const struct model *model)
{
	uint64_t count = 0, bytes = 0;

	for (int i = 0; i < OBJECTS; i++) {
		if (!obj_matches(cat, model, i))
			return false;
		count += model->obj[i].len >= 0;
		bytes += model->obj[i].len >= 0 ? cat_entry_bytes((uint32_t)model->obj[i].len) : 0;
	}
	return cat->count == count && cat->live_bytes == bytes;
}

static int commit_change(struct catalog *cat, struct model *model)
{
	struct model next = *model;
	struct cat_txn txn;
	int ret;

	cat_txn_init(&txn);
	model_change(&next, &txn);
	ret = catalog_commit(cat, &txn);
	if (!ret)
		*model = next;
	cat_txn_release(&txn);
	return ret;
}

static int commit_one(struct catalog *cat, struct model *model, int i, int len)
{
	struct model next = *model;
	struct cat_txn txn;
	int ret;

	cat_txn_init(&txn);
	if (len < 0)
		model_del(&next, &txn, i);
	else
		model_put(&next, &txn, i, len);
	ret = catalog_commit(cat, &txn);
	if (!ret)
		*model = next;
	cat_txn_release(&txn);
	return ret;
}

/* --- a test on a fiber with fresh media ----------------------------------------------------------------------------- */

static void run_on(uint32_t disks, void (*fn)(void *arg))
{
	rng_state = 1;
	env_seed(1);
	media_init(&media, disks, DISK_BYTES);
	run_fiber(fn, NULL);
	media_release(&media);
}

#define TEST_ON(disks, name)                 \
	static void name##_fiber(void *arg); \
	static void name(void **state)       \
	{                                    \
		run_on(disks, name##_fiber); \
	}                                    \
	static void name##_fiber(void *arg)

/* --- the straight path ---------------------------------------------------------------------------------------------- */

TEST_ON(2, objects_survive_reload)
{
	struct model model;
	struct rig rig;

	model_clear(&model);
	rig_format(&rig, &media);
	for (int i = 0; i < 300; i++) {
		assert_int_equal(commit_change(rig.cat, &model), 0);
		assert_true(matches(rig.cat, &model));
		if (i % 20)
			continue;
		rig_close(&rig);
		rig_must_import(&rig, &media);
		assert_true(matches(rig.cat, &model));
	}
	rig_close(&rig);
}

TEST_ON(1, next_walks_one_kind_in_order_of_ids)
{
	static const uint64_t ids[] = { 9, 3, (1ull << 56) - 1, 0 };
	const struct cat_obj *obj;
	struct cat_txn txn;
	struct rig rig;

	rig_format(&rig, &media);
	cat_txn_init(&txn);
	for (int i = 0; i < 4; i++) {
		cat_put(&txn, CAT_LINEAGE, ids[i], "x", 1);
		cat_put(&txn, CAT_VOLUME, i, "y", 1);
	}
	assert_int_equal(catalog_commit(rig.cat, &txn), 0);
	cat_txn_release(&txn);
	obj = catalog_next(rig.cat, CAT_LINEAGE, 0);
	assert_int_equal(obj->id, 0);
	obj = catalog_next(rig.cat, CAT_LINEAGE, obj->id + 1);
	assert_int_equal(obj->id, 3);
	obj = catalog_next(rig.cat, CAT_LINEAGE, obj->id + 1);
	assert_int_equal(obj->id, 9);
	obj = catalog_next(rig.cat, CAT_LINEAGE, obj->id + 1);
	assert_int_equal(obj->id, (1ull << 56) - 1);
	assert_null(catalog_next(rig.cat, CAT_LINEAGE, obj->id + 1));
	rig_close(&rig);
}

TEST_ON(1, last_entry_of_a_key_in_a_transaction_counts)
{
	struct cat_txn txn;
	struct rig rig;

	rig_format(&rig, &media);
	cat_txn_init(&txn);
	cat_put(&txn, CAT_VOLUME, 1, "gone", 4);
	cat_del(&txn, CAT_VOLUME, 1);
	cat_del(&txn, CAT_VOLUME, 2);
	cat_put(&txn, CAT_VOLUME, 2, "old", 3);
	cat_put(&txn, CAT_VOLUME, 2, "stays", 5);
	assert_int_equal(catalog_commit(rig.cat, &txn), 0);
	cat_txn_release(&txn);
	for (int pass = 0; pass < 2; pass++) {
		assert_null(catalog_get(rig.cat, CAT_VOLUME, 1));
		assert_int_equal(catalog_get(rig.cat, CAT_VOLUME, 2)->len_bytes, 5);
		assert_int_equal(rig.cat->count, 1);
		assert_int_equal(rig.cat->live_bytes, cat_entry_bytes(5));
		assert_int_equal(rig.cat->objects.count, 1);
		rig_close(&rig);
		rig_must_import(&rig, &media);
	}
	rig_close(&rig);
}

/* --- group commit ---------------------------------------------------------------------------------------------------- */

struct committer {
	struct rig *rig;
	int i, len, res;
	uint32_t *running;
};

static void committer_run(void *arg)
{
	struct committer *c = arg;
	uint8_t bytes[CATALOG_OBJ_MAX];
	struct cat_txn txn;

	cat_txn_init(&txn);
	memset(bytes, c->i, sizeof(bytes));
	for (int part = 0; part < (c->len + CATALOG_OBJ_MAX - 1) / CATALOG_OBJ_MAX; part++)
		cat_put(&txn, CAT_VOLUME, (uint64_t)c->i * 1000 + part, bytes, CATALOG_OBJ_MAX);
	if (c->i % 3 == 0)
		cat_del(&txn, CAT_VOLUME, (uint64_t)c->i * 1000);
	c->res = catalog_commit(c->rig->cat, &txn);
	cat_txn_release(&txn);
	--*c->running;
}

static void commit_together(struct rig *rig, struct committer *committers, int count, int len)
{
	uint32_t running = (uint32_t)count;

	for (int i = 0; i < count; i++) {
		committers[i] = (struct committer){ rig, i, i == 5 ? len * 40 : len, -1, &running };
		assert_int_equal(fiber_start(loop_self(), committer_run, &committers[i]), 0);
	}
	while (running)
		fiber_yield();
}

static void check_committed(const struct rig *rig, int count)
{
	for (int i = 0; i < count; i++) {
		assert_int_equal(catalog_get(rig->cat, CAT_VOLUME, (uint64_t)i * 1000) != NULL, i % 3 != 0);
		assert_int_equal(catalog_get(rig->cat, CAT_VOLUME, (uint64_t)i * 1000 + 1) != NULL, 1);
	}
}

TEST_ON(2, waiting_commits_share_records)
{
	struct committer committers[30];
	struct rig rig;
	uint64_t seq;

	rig_format(&rig, &media);
	seq = rig.cat->seq;
	commit_together(&rig, committers, 30, 2 * CATALOG_OBJ_MAX);
	for (int i = 0; i < 30; i++)
		assert_int_equal(committers[i].res, 0);
	check_committed(&rig, 30);
	assert_true(rig.cat->seq - seq < 10);
	rig_close(&rig);
	rig_must_import(&rig, &media);
	check_committed(&rig, 30);
	rig_close(&rig);
}

static void check_all_done(const struct committer *committers, int count, int res)
{
	for (int i = 0; i < count; i++)
		assert_int_equal(committers[i].res, res);
}

TEST_ON(2, waiting_commits_share_a_checkpoint_when_the_journal_is_full)
{
	struct committer committers[30];
	struct rig rig;
	uint64_t generation;

	rig_format(&rig, &media);
	generation = rig.cat->generation;
	for (int round = 0; round < 7; round++) {
		commit_together(&rig, committers, 30, CATALOG_OBJ_MAX + 1 + round % 2 * CATALOG_OBJ_MAX);
		check_all_done(committers, 30, 0);
	}
	check_committed(&rig, 30);
	assert_true(rig.cat->generation >= generation + 3);
	rig_close(&rig);
	rig_must_import(&rig, &media);
	check_committed(&rig, 30);
	rig_close(&rig);
}

static int fault_all_writes(struct medium *medium, const struct disk_io *io)
{
	return io->op == DISK_WRITE ? -EIO : 0;
}

TEST_ON(2, all_waiting_commits_fail_when_one_breaks_the_catalog)
{
	struct committer committers[30];
	struct rig rig;

	rig_format(&rig, &media);
	media.medium[1].fault = fault_all_writes;
	commit_together(&rig, committers, 30, 8 * CATALOG_OBJ_MAX);
	check_all_done(committers, 30, -EIO);
	assert_int_equal(rig.cat->count, 0);
	assert_int_equal(rig.cat->objects.count, 0);
	assert_int_equal(catalog_checkpoint(rig.cat), -EIO);
	rig_close(&rig);
}

TEST_ON(1, empty_transaction_is_nothing)
{
	struct cat_txn txn;
	struct rig rig;

	rig_format(&rig, &media);
	cat_txn_init(&txn);
	media.logging = true;
	assert_int_equal(catalog_commit(rig.cat, &txn), 0);
	assert_int_equal(media.log_count, 0);
	rig_close(&rig);
}

/* --- crashes --------------------------------------------------------------------------------------------------------- */

#define COMMITS 60

struct history {
	struct model state[COMMITS + 1]; /* after so many commits */
	uint64_t acked_at[COMMITS + 1];  /* entries of the log when it was acknowledged */
	uint64_t next_id[COMMITS + 1];
	uint32_t count;
};

static struct history history;

static void write_history(struct rig *rig, uint32_t commits)
{
	struct model model;

	model_clear(&model);
	history.count = commits;
	for (uint32_t i = 0; i <= commits; i++) {
		if (i) {
			(void)catalog_new_id(rig->cat);
			history.next_id[i] = atomic_load(&rig->cat->next_id);
			assert_int_equal(commit_change(rig->cat, &model), 0);
		}
		history.state[i] = model;
		history.acked_at[i] = rig->media->log_count;
	}
}

static uint32_t acked_before(uint64_t entries)
{
	uint32_t acked = 0;

	while (acked < history.count && history.acked_at[acked + 1] <= entries)
		acked++;
	return acked;
}

/* The state that was acknowledged or the one under way, and no number that it knows is given out again. */
static int check_state(const struct rig *rig, uint64_t entries)
{
	uint32_t acked = acked_before(entries);

	for (uint32_t i = acked; i <= acked + 1 && i <= history.count; i++)
		if (matches(rig->cat, &history.state[i])) {
			assert_true(atomic_load(&rig->cat->next_id) >= history.next_id[i]);
			return (int)i;
		}
	fail_msg("after %u entries of the log: neither state %u nor the next", (unsigned)entries, acked);
	return -1;
}

static uint32_t states_checked;

/* Opens the image; with `nested`, crashes again at every write of the import. Returns the state found. */
static int check_image(struct media *image, uint64_t entries, int expected, uint32_t nested)
{
	struct media before;
	struct rig rig;
	uint64_t base = 0;
	int found;

	media_clone(&before, image);
	image->logging = true;
	rig_must_import(&rig, image);
	found = check_state(&rig, entries);
	if (expected >= 0)
		assert_int_equal(found, expected);
	rig_close(&rig);
	states_checked++;
	for (uint64_t e = 1; nested && e <= image->log_count; e++) {
		base = media_advance(&before, image, base, e);
		for (uint64_t v = 0; v < 4; v++) {
			struct crash crash = { .base = base,
					       .entries = e,
					       .kept = v < 2 ? -v : rng_state >> 20,
					       .torn = v / 3 };
			struct media again;

			(void)rnd(2);
			media_clone(&again, &before);
			crash_image(&again, image, &crash);
			check_image(&again, entries, found, nested - 1);
			media_release(&again);
		}
	}
	media_release(&before);
	return found;
}

static void check_crash(const struct media *base, struct crash crash, uint32_t nested)
{
	struct media image;

	media_clone(&image, base);
	crash_image(&image, &media, &crash);
	check_image(&image, crash.entries, -1, nested);
	media_release(&image);
}

static uint32_t loose_writes(const struct media *base, uint64_t from, uint64_t entries)
{
	struct crash crash = { .base = from, .entries = entries };
	struct media image;
	uint32_t loose;

	media_clone(&image, base);
	loose = crash_image(&image, &media, &crash);
	media_release(&image);
	return loose;
}

/* All subsets of the writes that are not durable, if they are few; else some; and some torn ones. */
static void check_crashes_at(const struct media *base, uint64_t from, uint64_t entries)
{
	uint32_t loose = loose_writes(base, from, entries), subsets = loose <= 5 ? 1u << loose : 12;

	for (uint32_t s = 0; s < subsets; s++) {
		uint64_t kept = loose <= 5 || s < 2 ? -(uint64_t)(s == 1 && loose > 5) | s : rng_state;

		(void)rnd(2);
		check_crash(base, (struct crash){ from, entries, kept, 0 }, entries % 40 == 0 && s < 2);
		if (s < 3)
			check_crash(base, (struct crash){ from, entries, ~0ull, rng_state | 1 }, 0);
	}
}

static void check_all_crashes(struct media *base)
{
	uint64_t from = 0;

	for (uint64_t entries = 1; entries <= media.log_count; entries++) {
		from = media_advance(base, &media, from, entries);
		check_crashes_at(base, from, entries);
	}
}

static void crash_everywhere(void)
{
	struct media base;
	struct rig rig;

	rig_format(&rig, &media);
	media_clone(&base, &media);
	media.logging = true;
	write_history(&rig, COMMITS);
	assert_true(rig.cat->generation >= 4);
	rig_close(&rig);
	states_checked = 0;
	check_all_crashes(&base);
	print_message("# %u crash states\n", states_checked);
	media_release(&base);
}

TEST_ON(1, crash_at_any_write_keeps_what_was_acknowledged_on_one_disk)
{
	crash_everywhere();
}

TEST_ON(3, crash_at_any_write_keeps_what_was_acknowledged_on_three_disks)
{
	crash_everywhere();
}

/* --- failing I/O and memory ---------------------------------------------------------------------------------------------- */

static uint64_t fault_countdown;
static enum disk_op fault_op;

static int fault_once(struct medium *medium, const struct disk_io *io)
{
	if (io->op != fault_op || fault_countdown == 0)
		return 0;
	return --fault_countdown == 0 ? -EIO : 0;
}

/* Fails the nth write or flush of all; returns false when there were not so many. */
static bool fail_nth(enum disk_op op, uint64_t n)
{
	struct model before, model;
	struct media image;
	struct rig rig;
	int ret = 0;

	model_clear(&model);
	media_clone(&image, &media);
	rig_must_import(&rig, &image);
	for (uint32_t i = 0; i < image.count; i++)
		image.medium[i].fault = fault_once;
	fault_op = op;
	fault_countdown = n;
	before = model;
	for (int i = 0; i < 30 && !ret; i++) {
		before = model;
		ret = commit_change(rig.cat, &model);
	}
	if (ret) {
		assert_int_equal(ret, -EIO);
		assert_true(matches(rig.cat, &before));
		assert_int_equal(commit_one(rig.cat, &model, 1, 5), -EIO);
		assert_true(rig.failed[0] || rig.failed[1]);
	}
	fault_countdown = 0;
	rig_close(&rig);
	rig_must_import(&rig, &image);
	rig_close(&rig);
	media_release(&image);
	return ret != 0;
}

TEST_ON(2, failed_write_or_flush_breaks_the_catalog_until_reimport)
{
	struct rig rig;
	uint64_t n;

	rig_format(&rig, &media);
	rig_close(&rig);
	for (n = 1; fail_nth(DISK_WRITE, n); n += 3)
		;
	assert_true(n > 20);
	for (n = 1; fail_nth(DISK_FLUSH, n); n += 3)
		;
	assert_true(n > 20);
}

static uint64_t alloc_countdown;

static void *failing_alloc(size_t align_bytes, size_t size_bytes)
{
	void *ptr;

	if (alloc_countdown && --alloc_countdown == 0)
		return NULL;
	return posix_memalign(&ptr, align_bytes < 16 ? 16 : align_bytes, size_bytes) ? NULL : ptr;
}

static const struct mem_ops failing_mem = { .alloc = failing_alloc, .free = free };

/* False when no allocation failed. */
static bool commit_with_failing_alloc(struct rig *rig, struct model *model, uint64_t n)
{
	uint64_t keep = rng_state;
	bool failed;
	int ret;

	alloc_countdown = n;
	ret = commit_change(rig->cat, model);
	failed = alloc_countdown == 0;
	alloc_countdown = 0;
	assert_true(ret == 0 || (ret == -ENOMEM && failed));
	assert_true(matches(rig->cat, model));
	if (ret)
		rng_state = keep;
	return failed;
}

static void nomem_leaves_the_catalog_as_it_was_fiber(void *arg)
{
	struct model model;
	struct rig rig;
	uint32_t failures = 0;

	model_clear(&model);
	rig_format(&rig, &media);
	for (int i = 0; i < 60; i++)
		for (uint64_t n = 1; commit_with_failing_alloc(&rig, &model, n); n++)
			failures++;
	assert_true(failures > 300);
	rig_close(&rig);
	rig_must_import(&rig, &media);
	assert_true(matches(rig.cat, &model));
	rig_close(&rig);
}

static void nomem_leaves_the_catalog_as_it_was(void **state)
{
	mem_set_ops(&failing_mem);
	run_on(2, nomem_leaves_the_catalog_as_it_was_fiber);
	mem_set_ops(NULL);
}

TEST_ON(2, nomem_while_loading_is_reported)
{
	struct model model;
	struct err err;
	struct rig rig;
	uint64_t n = 0;
	int ret;

	model_clear(&model);
	rig_format(&rig, &media);
	for (int i = 0; i < 20; i++)
		assert_int_equal(commit_change(rig.cat, &model), 0);
	rig_close(&rig);
	mem_set_ops(&failing_mem);
	do {
		rig_open(&rig, &media);
		alloc_countdown = ++n;
		ret = catalog_load(rig.cat, &err);
		alloc_countdown = 0;
		assert_true(ret == 0 || ret == -ENOMEM);
		assert_true(ret == 0 ? matches(rig.cat, &model) : rig.cat->count == 0);
		rig_close(&rig);
	} while (ret);
	assert_true(n > 20);
	mem_set_ops(NULL);
}

/* --- damage ----------------------------------------------------------------------------------------------------------- */

static uint64_t journal_off(const struct rig *rig)
{
	return layout.half[rig->cat->generation % 2].journal_off;
}

static uint64_t checkpoint_off(const struct rig *rig)
{
	return layout.half[rig->cat->generation % 2].checkpoint_off;
}

static void rot(uint32_t disk, uint64_t off)
{
	uint8_t byte;

	medium_read(&media.medium[disk], off, &byte, 1);
	byte ^= 0x10;
	medium_write(&media.medium[disk], off, &byte, 1);
}

/* A catalog with a checkpoint of generation 3 that holds something, and five records of one block. */
static void rig_with_journal(struct rig *rig, struct model *model, uint64_t *journal, uint64_t *checkpoint)
{
	model_clear(model);
	rig_format(rig, &media);
	assert_int_equal(commit_one(rig->cat, model, 40, 1000), 0);
	assert_int_equal(catalog_checkpoint(rig->cat), 0);
	for (int i = 0; i < 5; i++)
		assert_int_equal(commit_one(rig->cat, model, i, 100), 0);
	*journal = journal_off(rig);
	*checkpoint = checkpoint_off(rig);
	rig_close(rig);
}

static void must_refuse(const char *why)
{
	struct media image;
	struct err err = { "" };
	struct rig rig;

	media_clone(&image, &media);
	image.logging = true;
	assert_int_equal(rig_import(&rig, &image, &err), -EUCLEAN);
	if (!strstr(err.msg, why))
		fail_msg("'%s' lacks '%s'", err.msg, why);
	assert_int_equal(rig.cat->count, 0);
	assert_int_equal(image.log_count, 0);
	rig_close(&rig);
	media_release(&image);
}

static void must_load(const struct model *model)
{
	struct media image;
	struct rig rig;

	media_clone(&image, &media);
	rig_must_import(&rig, &image);
	assert_true(matches(rig.cat, model));
	rig_close(&rig);
	media_release(&image);
}

TEST_ON(2, damage_on_one_disk_is_bridged_by_the_other)
{
	uint64_t journal, checkpoint;
	struct model model;
	struct rig rig;

	rig_with_journal(&rig, &model, &journal, &checkpoint);
	rot(0, journal + 2 * 4096 + 70);
	rot(1, journal + 3 * 4096 + 70);
	rot(0, journal + 4 * 4096 + 70);
	rot(1, checkpoint + 4096 + 10);
	must_load(&model);
	rot(0, checkpoint + 8);
	must_refuse("damaged on every disk that has it");
}

/* Damage that leaves a well-formed entry: another id, other data. */
TEST_ON(2, damaged_payload_leaves_nothing_behind)
{
	uint64_t journal, checkpoint;
	struct model model;
	struct rig rig;

	rig_with_journal(&rig, &model, &journal, &checkpoint);
	rot(0, checkpoint + 4096);
	must_load(&model);
	rot(0, checkpoint + 4096);
	rot(0, checkpoint + 4096 + 500);
	must_load(&model);
	rot(1, checkpoint + 4096 + 600);
	must_refuse("damaged on every disk that has it");
}

static void copy_bytes(const struct medium *from, uint64_t from_off, struct medium *to, uint64_t to_off, uint64_t len)
{
	uint8_t *bytes = malloc(len);

	assert_non_null(bytes);
	medium_read(from, from_off, bytes, len);
	medium_write(to, to_off, bytes, len);
	free(bytes);
}

TEST_ON(1, record_in_the_wrong_place_is_not_taken)
{
	uint64_t journal, checkpoint;
	struct model model;
	struct rig rig;

	rig_with_journal(&rig, &model, &journal, &checkpoint);
	copy_bytes(&media.medium[0], journal, &media.medium[0], journal + 4096, 4096);
	must_refuse("later ones exist");
	copy_bytes(&media.medium[0], journal + 4 * 4096, &media.medium[0], journal, 4096);
	must_refuse("later ones exist");
}

TEST_ON(1, journal_of_another_checkpoint_is_not_taken)
{
	uint64_t journal, checkpoint;
	struct model model;
	struct media other;
	struct rig rig;

	rig_with_journal(&rig, &model, &journal, &checkpoint);
	media_clone(&other, &media);
	rig_with_journal(&rig, &model, &journal, &checkpoint);
	copy_bytes(&other.medium[0], journal, &media.medium[0], journal, layout.half[0].journal_bytes);
	for (int i = 0; i < 5; i++)
		model.obj[i].len = -1;
	must_load(&model);
	media_release(&other);
}

static int oversize_change(struct rig *rig, struct model *model)
{
	struct model next = *model;
	struct cat_txn txn;
	int ret;

	cat_txn_init(&txn);
	for (int i = 0; i < OBJECTS; i++)
		model_put(&next, &txn, i, CATALOG_OBJ_MAX);
	assert_true(txn.len_bytes > RECORD_PAYLOAD_MAX);
	ret = catalog_commit(rig->cat, &txn);
	if (!ret)
		*model = next;
	cat_txn_release(&txn);
	return ret;
}

TEST_ON(2, disk_that_missed_checkpoints_is_refused)
{
	struct medium present;
	struct model model;
	struct media past;
	struct rig rig;

	model_clear(&model);
	rig_format(&rig, &media);
	assert_int_equal(commit_one(rig.cat, &model, 1, 10), 0);
	media_clone(&past, &media);
	for (int i = 0; i < 2; i++)
		assert_int_equal(oversize_change(&rig, &model), 0);
	rig_close(&rig);
	present = media.medium[1];
	media.medium[1] = past.medium[1];
	must_refuse("disk 'medium:1' is older than the others");
	media.medium[1] = present;
	media_release(&past);
}

TEST_ON(2, damage_of_a_record_on_all_disks_is_refused_if_later_ones_exist)
{
	uint64_t journal, checkpoint;
	struct model model;
	struct rig rig;

	rig_with_journal(&rig, &model, &journal, &checkpoint);
	rot(0, journal + 2 * 4096 + 70);
	rot(1, journal + 2 * 4096 + 70);
	must_refuse("later ones exist");
}

TEST_ON(2, damage_of_the_last_record_on_all_disks_looks_like_a_crash)
{
	uint64_t journal, checkpoint;
	struct model model;
	struct rig rig;

	rig_with_journal(&rig, &model, &journal, &checkpoint);
	rot(0, journal + 4 * 4096 + 70);
	rot(1, journal + 4 * 4096 + 70);
	model.obj[4].len = -1;
	must_load(&model);
}

TEST_ON(2, damage_of_the_newest_checkpoint_on_all_disks_is_refused)
{
	uint64_t journal, checkpoint;
	struct model model;
	struct rig rig;

	rig_with_journal(&rig, &model, &journal, &checkpoint);
	rot(0, checkpoint);
	rot(1, checkpoint + 9);
	must_refuse("missing on every disk");
	rot(0, checkpoint);
	rot(0, checkpoint + 4096 + 10);
	must_refuse("damaged on every disk that has it");
}

/* A crash kept the header of the newest checkpoint from disk 1. Where it is. */
static uint64_t rig_with_unfinished(struct rig *rig, struct model *model, bool without_some)
{
	uint8_t header[CAT_BLOCK_BYTES];
	uint64_t checkpoint;

	model_clear(model);
	rig_format(rig, &media);
	rig->cat->without_some = without_some;
	assert_int_equal(commit_one(rig->cat, model, 7, 300), 0);
	medium_read(&media.medium[1], layout.half[(rig->cat->generation + 1) % 2].checkpoint_off, header, sizeof(header));
	assert_int_equal(catalog_checkpoint(rig->cat), 0);
	checkpoint = checkpoint_off(rig);
	medium_write(&media.medium[1], checkpoint, header, sizeof(header));
	rig_close(rig);
	return checkpoint;
}

TEST_ON(2, unfinished_checkpoint_that_is_damaged_does_not_count)
{
	struct model model;
	struct rig rig;

	rot(0, rig_with_unfinished(&rig, &model, false) + 4096 + 10);
	must_load(&model);
}

TEST_ON(2, damaged_checkpoint_of_a_pool_without_some_disks_is_refused)
{
	struct model model;
	struct rig rig;

	rot(0, rig_with_unfinished(&rig, &model, true) + 4096 + 10);
	must_refuse("damaged on every disk that has it");
}

TEST_ON(2, newest_checkpoint_is_brought_to_a_disk_that_lacks_it)
{
	static const uint8_t zeroes[CAT_BLOCK_BYTES];
	struct err err = { "" };
	struct model model;
	struct rig rig;

	(void)rig_with_unfinished(&rig, &model, false);
	rig_open(&rig, &media);
	assert_int_equal(catalog_load(rig.cat, &err), 0);
	assert_true(rig.cat->disks[1]->behind && !rig.cat->disks[0]->behind);
	assert_int_equal(catalog_spread(rig.cat), 0);
	assert_false(rig.cat->disks[1]->behind);
	/* All else is lost: disk 0, and what was the newest on disk 1. */
	for (uint32_t half = 0; half < 2; half++)
		medium_write(&media.medium[0], layout.half[half].checkpoint_off, zeroes, sizeof(zeroes));
	medium_write(&media.medium[1], layout.half[(rig.cat->generation + 1) % 2].checkpoint_off, zeroes, sizeof(zeroes));
	rig_close(&rig);
	must_load(&model);
}

TEST_ON(2, disk_from_the_past_is_refused)
{
	struct model model;
	struct media past;
	struct rig rig;

	model_clear(&model);
	rig_format(&rig, &media);
	assert_int_equal(commit_one(rig.cat, &model, 1, 10), 0);
	media_clone(&past, &media);
	for (uint32_t commits = 1; commits < 700; commits++) {
		struct medium present = media.medium[1];

		assert_int_equal(commit_one(rig.cat, &model, (int)rnd(OBJECTS), 1800), 0);
		if (commits != 1 && commits != 2 && commits % 50)
			continue;
		media.medium[1] = past.medium[1];
		if (commits == 1)
			must_load(&model);
		else
			must_refuse("disk 'medium:1' is older than the others");
		media.medium[1] = present;
	}
	assert_true(rig.cat->generation > 8);
	rig_close(&rig);
	media_release(&past);
}

TEST_ON(2, disk_without_a_catalog_gets_one)
{
	uint64_t journal, checkpoint;
	struct model model;
	struct rig rig;

	rig_with_journal(&rig, &model, &journal, &checkpoint);
	rig_open(&rig, &media);
	assert_int_equal(catalog_wipe_disk(rig.disks[1], layout.half), 0);
	rig_close(&rig);
	rig_must_import(&rig, &media);
	assert_true(matches(rig.cat, &model));
	rig_close(&rig);
	rig_open(&rig, &media);
	assert_int_equal(catalog_wipe_disk(rig.disks[0], layout.half), 0);
	rig_close(&rig);
	must_load(&model);
}

TEST_ON(2, disks_of_another_pool_have_no_catalog)
{
	struct media image;
	struct err err;
	struct rig rig;

	rig_format(&rig, &media);
	rig_close(&rig);
	media_clone(&image, &media);
	rig_open(&rig, &image);
	rig.cat->pool_uuid[3] ^= 1;
	assert_int_equal(catalog_load(rig.cat, &err), -ENOENT);
	rig_close(&rig);
	media_release(&image);
}

static int fault_read_journal(struct medium *medium, const struct disk_io *io)
{
	return io->op == DISK_READ && io->off_bytes >= layout.half[1].journal_off &&
			       io->off_bytes < layout.half[1].journal_off + layout.half[1].journal_bytes
		       ? -EIO
		       : 0;
}

TEST_ON(2, unreadable_journal_is_never_taken_for_an_empty_one)
{
	uint64_t journal, checkpoint;
	struct model model;
	struct err err;
	struct rig rig;

	rig_with_journal(&rig, &model, &journal, &checkpoint);
	assert_int_equal(journal, layout.half[1].journal_off);
	media.medium[0].fault = fault_read_journal;
	must_load(&model);
	media.medium[1].fault = fault_read_journal;
	rig_open(&rig, &media);
	assert_int_equal(catalog_load(rig.cat, &err), -EIO);
	rig_close(&rig);
}

static int fault_all_reads(struct medium *medium, const struct disk_io *io)
{
	return io->op == DISK_READ ? -EIO : 0;
}

TEST_ON(2, unreadable_catalog_is_never_taken_for_none)
{
	uint64_t journal, checkpoint;
	struct model model;
	struct err err;
	struct rig rig;

	rig_with_journal(&rig, &model, &journal, &checkpoint);
	media.medium[0].fault = fault_all_reads;
	must_load(&model);
	media.medium[1].fault = fault_all_reads;
	rig_open(&rig, &media);
	assert_int_equal(catalog_load(rig.cat, &err), -EIO);
	rig_close(&rig);
}

/* --- hostile content with valid checksums ---------------------------------------------------------------------------------- */

static uint32_t crc_with_hole(const uint8_t *bytes, size_t len, size_t hole)
{
	static const uint8_t zero[4];

	return crc32c(crc32c(crc32c(0, bytes, hole), zero, 4), bytes + hole + 4, len - hole - 4);
}

/* Changes some bytes of a record or checkpoint, in the head or in the payload, and mends the checksums. */
static void mutate_record(uint64_t journal)
{
	uint8_t bytes[4096];
	struct record_head head;
	uint64_t off = journal + rnd(5) * 4096;

	medium_read(&media.medium[0], off, bytes, sizeof(bytes));
	for (uint32_t i = 0, n = 1 + rnd(3); i < n; i++)
		bytes[24 + rnd(rnd(2) ? 40 : 200)] = (uint8_t)(rnd(2) ? rnd(256) : rnd(2) ? 0xff : rnd(4));
	memcpy(&head, bytes, sizeof(head));
	if (rnd(2))
		head.payload_bytes = le32_of(16 + rnd(300));
	head.crc = le32_of(0);
	memcpy(bytes, &head, sizeof(head));
	if (record_bytes(le32_get(head.payload_bytes)) == sizeof(bytes))
		head.crc = le32_of(crc_with_hole(bytes, sizeof(bytes), offsetof(struct record_head, crc)));
	memcpy(bytes, &head, sizeof(head));
	medium_write(&media.medium[0], off, bytes, sizeof(bytes));
}

static void mutate_checkpoint(uint64_t checkpoint)
{
	struct checkpoint_block block;
	uint8_t *payload;
	uint64_t len;

	medium_read(&media.medium[0], checkpoint, &block, sizeof(block));
	for (uint32_t i = 0, n = rnd(3); i < n; i++)
		((uint8_t *)&block)[24 + rnd(40)] = (uint8_t)(rnd(2) ? rnd(256) : 0xff);
	len = le64_get(block.payload_bytes);
	if (len > layout.half[0].checkpoint_bytes - 4096)
		len = layout.half[0].checkpoint_bytes - 4096;
	payload = malloc(len + 1);
	assert_non_null(payload);
	medium_read(&media.medium[0], checkpoint + 4096, payload, len);
	for (uint32_t i = 0, n = rnd(3); len && i < n; i++)
		payload[rnd((uint32_t)(rnd(2) && len > 40 ? 40 : len))] = (uint8_t)(rnd(2) ? rnd(256) : rnd(4));
	medium_write(&media.medium[0], checkpoint + 4096, payload, len);
	block.payload_crc = le32_of(crc32c(0, payload, len));
	checkpoint_seal(&block);
	medium_write(&media.medium[0], checkpoint, &block, sizeof(block));
	free(payload);
}

static void count_bytes(const struct catalog *cat, uint64_t *count, uint64_t *bytes)
{
	for (enum catalog_kind kind = CAT_POOL; kind <= CAT_VOLUME; kind++)
		for (const struct cat_obj *o = catalog_next(cat, kind, 0); o; o = catalog_next(cat, kind, o->id + 1)) {
			++*count;
			*bytes += cat_entry_bytes(o->len_bytes);
		}
}

/* What was loaded is consistent in itself, can be changed, and is the same after another import. */
static void check_consistent(struct rig *rig, struct media *image)
{
	uint64_t count = 0, bytes = 0, count_again = 0, bytes_again = 0, id = catalog_new_id(rig->cat);
	struct cat_txn txn;

	cat_txn_init(&txn);
	cat_put(&txn, CAT_VOLUME, id, "new", 3);
	assert_null(catalog_get(rig->cat, CAT_VOLUME, id));
	assert_int_equal(catalog_commit(rig->cat, &txn), 0);
	cat_txn_release(&txn);
	count_bytes(rig->cat, &count, &bytes);
	assert_int_equal(count, rig->cat->count);
	assert_int_equal(bytes, rig->cat->live_bytes);
	rig_close(rig);
	rig_must_import(rig, image);
	count_bytes(rig->cat, &count_again, &bytes_again);
	assert_int_equal(count, count_again);
	assert_int_equal(bytes, bytes_again);
}

TEST_ON(1, hostile_content_is_refused_or_loaded_consistently)
{
	uint64_t journal, checkpoint;
	uint32_t loaded = 0, refused = 0;
	struct model model;
	struct media good;
	struct rig rig;

	rig_with_journal(&rig, &model, &journal, &checkpoint);
	media_clone(&good, &media);
	for (int i = 0; i < 4000; i++) {
		struct err err;

		media_release(&media);
		media_clone(&media, &good);
		if (i % 2)
			mutate_record(journal);
		else
			mutate_checkpoint(checkpoint);
		if (rig_import(&rig, &media, &err) == 0) {
			check_consistent(&rig, &media);
			loaded++;
		} else {
			assert_int_equal(rig.cat->count, 0);
			refused++;
		}
		rig_close(&rig);
	}
	assert_true(loaded > 100 && refused > 100);
	media_release(&good);
}

/* --- room ------------------------------------------------------------------------------------------------------------------- */

static int put_volume(struct rig *rig, uint64_t id, uint32_t len)
{
	static const uint8_t bytes[CATALOG_OBJ_MAX];
	struct cat_txn txn;
	int ret;

	cat_txn_init(&txn);
	cat_put(&txn, CAT_VOLUME, id, bytes, len);
	ret = catalog_commit(rig->cat, &txn);
	cat_txn_release(&txn);
	return ret;
}

TEST_ON(1, full_catalog_takes_what_makes_it_no_larger)
{
	struct cat_txn txn;
	struct rig rig;
	uint64_t n = 1;

	rig_format(&rig, &media);
	while (put_volume(&rig, n, CATALOG_OBJ_MAX) == 0)
		n++;
	assert_true(n * CATALOG_OBJ_MAX > CHECKPOINT_BYTES_MIN / 2 && n * CATALOG_OBJ_MAX < CHECKPOINT_BYTES_MIN);
	assert_int_equal(put_volume(&rig, n, CATALOG_OBJ_MAX), -ENOSPC);
	assert_int_equal(put_volume(&rig, n - 1, CATALOG_OBJ_MAX), 0);
	assert_int_equal(put_volume(&rig, n - 1, 100), 0);
	rig_close(&rig);
	rig_must_import(&rig, &media);
	cat_txn_init(&txn);
	for (uint64_t i = 1; i < n; i++)
		cat_del(&txn, CAT_VOLUME, i);
	assert_int_equal(catalog_commit(rig.cat, &txn), 0);
	cat_txn_release(&txn);
	assert_int_equal(rig.cat->count, 0);
	rig_close(&rig);
}

/* 100 objects of the size of a plain segment. */
static int put_segments(struct rig *rig, uint64_t from)
{
	static const uint8_t bytes[32];
	struct cat_txn txn;
	int ret;

	cat_txn_init(&txn);
	for (uint64_t id = from; id < from + 100; id++)
		cat_put(&txn, CAT_SEGMENT, id, bytes, sizeof(bytes));
	ret = catalog_commit(rig->cat, &txn);
	cat_txn_release(&txn);
	return ret;
}

TEST_ON(1, full_catalog_of_the_smallest_objects_can_be_emptied_at_once)
{
	struct cat_txn txn;
	struct rig rig;
	uint64_t n = 0;

	rig_format(&rig, &media);
	while (put_segments(&rig, n) == 0)
		n += 100;
	cat_txn_init(&txn);
	for (uint64_t i = 0; i < n; i++)
		cat_del(&txn, CAT_SEGMENT, i);
	assert_true(txn.len_bytes > RECORD_PAYLOAD_MAX);
	assert_int_equal(catalog_commit(rig.cat, &txn), 0);
	assert_int_equal(rig.cat->count, 0);
	cat_txn_release(&txn);
	rig_close(&rig);
	rig_must_import(&rig, &media);
	assert_int_equal(rig.cat->count, 0);
	rig_close(&rig);
}

TEST_ON(2, numbers_are_unique_over_imports)
{
	uint64_t last = 0;

	for (int life = 0; life < 20; life++) {
		struct rig rig;

		if (life)
			rig_must_import(&rig, &media);
		else
			rig_format(&rig, &media);
		for (int i = 0; i < 10; i++) {
			uint64_t id = catalog_new_id(rig.cat);

			assert_true(id > last);
			last = id;
		}
		/* Numbers that no transaction and no checkpoint has seen may come again. */
		switch (life % 4) {
		case 0: last -= 10; break;
		case 1: assert_int_equal(catalog_checkpoint(rig.cat), 0); break;
		default: assert_int_equal(put_volume(&rig, 1, 10), 0);
		}
		rig_close(&rig);
	}
}

TEST_ON(1, writing_a_checkpoint_never_touches_the_other_half)
{
	struct model model;
	struct rig rig;
	uint8_t before[4096], after[4096];

	model_clear(&model);
	rig_format(&rig, &media);
	for (int i = 0; i < 20; i++) {
		uint64_t off;

		assert_int_equal(commit_change(rig.cat, &model), 0);
		off = checkpoint_off(&rig);
		medium_read(&media.medium[0], off, before, sizeof(before));
		assert_int_equal(catalog_checkpoint(rig.cat), 0);
		medium_read(&media.medium[0], off, after, sizeof(after));
		assert_memory_equal(before, after, sizeof(before));
		assert_true(checkpoint_off(&rig) != off);
	}
	rig_close(&rig);
}

/* A catalog on the first of two disks. */
static void rig_for_admit(struct rig *rig, const struct catalog_half half[2])
{
	memset(rig, 0, sizeof(*rig));
	rig->media = &media;
	assert_int_equal(label_layout(&layout, DISK_BYTES, ZONE_BYTES_MIN, NULL), 0);
	assert_int_equal(catalog_new(&uuid, &rig->cat), 0);
	media_open(&media, rig->disks);
	assert_int_equal(catalog_attach(rig->cat, rig->disks[0], half, &rig->failed[0]), 0);
	assert_int_equal(catalog_format(rig->cat), 0);
}

static int admit(struct rig *rig, struct model *model)
{
	struct model next = *model;
	struct cat_txn txn;
	int ret;

	cat_txn_init(&txn);
	model_put(&next, &txn, 3, 33);
	ret = catalog_admit(rig->cat, rig->disks[1], layout.half, &rig->failed[1], &txn);
	cat_txn_release(&txn);
	if (!ret)
		*model = next;
	return ret;
}

TEST_ON(2, admitted_disk_has_the_whole_catalog)
{
	struct model model;
	struct rig rig;

	assert_int_equal(label_layout(&layout, DISK_BYTES, ZONE_BYTES_MIN, NULL), 0);
	model_clear(&model);
	rig_for_admit(&rig, layout.half);
	assert_int_equal(commit_change(rig.cat, &model), 0);
	assert_int_equal(admit(&rig, &model), 0);
	assert_int_equal(commit_change(rig.cat, &model), 0);
	assert_true(matches(rig.cat, &model));
	assert_int_equal(catalog_wipe_disk(rig.disks[0], layout.half), 0);
	rig_close(&rig);
	must_load(&model);
}

/* A catalog that is larger than its area on a disk that claims to be part of it. */
static void must_refuse_on_small_disk(const struct catalog_half large[2])
{
	struct media image;
	struct err err = { "" };
	struct rig rig = { .media = &image };

	media_clone(&image, &media);
	assert_int_equal(catalog_new(&uuid, &rig.cat), 0);
	media_open(&image, rig.disks);
	assert_int_equal(catalog_attach(rig.cat, rig.disks[0], large, &rig.failed[0]), 0);
	assert_int_equal(catalog_attach(rig.cat, rig.disks[1], layout.half, &rig.failed[1]), 0);
	assert_int_equal(catalog_load(rig.cat, &err), -EUCLEAN);
	assert_non_null(strstr(err.msg, "larger than its area"));
	rig_close(&rig);
	media_release(&image);
}

TEST_ON(2, disk_too_small_for_the_catalog_is_not_admitted)
{
	static const struct catalog_half large[2] = {
		{ 1 << 20, 3 << 20, 4 << 20, 1 << 20 },
		{ 5 << 20, 3 << 20, 8 << 20, 1 << 20 },
	};
	struct model model;
	struct rig rig;

	model_clear(&model);
	rig_for_admit(&rig, large);
	for (uint64_t id = 1; id <= 520; id++)
		assert_int_equal(put_volume(&rig, id, CATALOG_OBJ_MAX), 0);
	assert_int_equal(admit(&rig, &model), -ENOSPC);
	assert_int_equal(put_volume(&rig, 521, CATALOG_OBJ_MAX), 0);
	must_refuse_on_small_disk(large);
	for (uint64_t id = 1; id <= 521; id++)
		assert_int_equal(put_volume(&rig, id, 5), 0);
	assert_int_equal(admit(&rig, &model), 0);
	rig_close(&rig);
}

/* --- bytes ------------------------------------------------------------------------------------------------------------------ */

static int next_of(uint64_t key, uint32_t len, uint32_t op, uint8_t padding, uint64_t avail)
{
	static uint8_t payload[8192];
	struct cat_entry_head head = { le64_of(key), le32_of(len), le32_of(op) };
	struct cat_entry entry;
	uint64_t pos = 0;

	memset(payload, 0, sizeof(payload));
	memcpy(payload, &head, sizeof(head));
	payload[sizeof(head) + 5] = padding;
	return cat_entry_next(payload, avail, &pos, &entry);
}

static void entries_that_lie_are_refused(void **state)
{
	const uint64_t key = cat_key(CAT_VOLUME, 1);

	assert_int_equal(next_of(key, 5, CAT_OP_PUT, 0, 24), 1);
	assert_int_equal(next_of(key, 5, CAT_OP_PUT, 0, 0), 0);
	assert_int_equal(next_of(key, 5, CAT_OP_PUT, 0, 15), -EAGAIN);
	assert_int_equal(next_of(key, 5, CAT_OP_PUT, 0, 23), -EAGAIN);
	assert_int_equal(next_of(key, 5, CAT_OP_PUT, 1, 24), -EUCLEAN);
	assert_int_equal(next_of(key, 5, 3, 0, 24), -EUCLEAN);
	assert_int_equal(next_of(key, 5, CAT_OP_DEL, 0, 24), -EUCLEAN);
	assert_int_equal(next_of(key, 0, CAT_OP_DEL, 0, 16), 1);
	assert_int_equal(next_of(key, CATALOG_OBJ_MAX, CAT_OP_PUT, 0, 8192), 1);
	assert_int_equal(next_of(key, CATALOG_OBJ_MAX + 1, CAT_OP_PUT, 0, 8192), -EUCLEAN);
	assert_int_equal(next_of(key, UINT32_MAX, CAT_OP_PUT, 0, 8192), -EUCLEAN);
	assert_int_equal(next_of(1, 5, CAT_OP_PUT, 0, 24), -EUCLEAN);
	assert_int_equal(next_of(255ull << 56, 5, CAT_OP_PUT, 0, 24), -EUCLEAN);
}

TEST_ON(1, texts_say_what_stands_there)
{
	struct checkpoint_block block = { .generation = le64_of(7), .seq = le64_of(8) };
	struct record_head head = { .generation = le64_of(9), .payload_bytes = le32_of(10) };
	struct cat_entry entry = { .op = CAT_OP_PUT, .obj = { .kind = CAT_VOLUME, .id = 11, .len_bytes = 12 } };
	char text[CAT_TEXT_BYTES];

	assert_non_null(strstr(checkpoint_to_text(&block, text), "generation 7 stamp 0000000000000000 seq 8"));
	assert_non_null(strstr(record_to_text(&head, text), "payload 10 bytes"));
	assert_string_equal(cat_entry_to_text(&entry, text), "put VOLUME 11 (12 bytes)");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(objects_survive_reload),
		cmocka_unit_test(next_walks_one_kind_in_order_of_ids),
		cmocka_unit_test(last_entry_of_a_key_in_a_transaction_counts),
		cmocka_unit_test(waiting_commits_share_records),
		cmocka_unit_test(waiting_commits_share_a_checkpoint_when_the_journal_is_full),
		cmocka_unit_test(all_waiting_commits_fail_when_one_breaks_the_catalog),
		cmocka_unit_test(empty_transaction_is_nothing),
		cmocka_unit_test(crash_at_any_write_keeps_what_was_acknowledged_on_one_disk),
		cmocka_unit_test(crash_at_any_write_keeps_what_was_acknowledged_on_three_disks),
		cmocka_unit_test(failed_write_or_flush_breaks_the_catalog_until_reimport),
		cmocka_unit_test(nomem_leaves_the_catalog_as_it_was),
		cmocka_unit_test(nomem_while_loading_is_reported),
		cmocka_unit_test(damage_on_one_disk_is_bridged_by_the_other),
		cmocka_unit_test(damaged_payload_leaves_nothing_behind),
		cmocka_unit_test(record_in_the_wrong_place_is_not_taken),
		cmocka_unit_test(journal_of_another_checkpoint_is_not_taken),
		cmocka_unit_test(disk_that_missed_checkpoints_is_refused),
		cmocka_unit_test(damage_of_a_record_on_all_disks_is_refused_if_later_ones_exist),
		cmocka_unit_test(damage_of_the_last_record_on_all_disks_looks_like_a_crash),
		cmocka_unit_test(damage_of_the_newest_checkpoint_on_all_disks_is_refused),
		cmocka_unit_test(unfinished_checkpoint_that_is_damaged_does_not_count),
		cmocka_unit_test(damaged_checkpoint_of_a_pool_without_some_disks_is_refused),
		cmocka_unit_test(newest_checkpoint_is_brought_to_a_disk_that_lacks_it),
		cmocka_unit_test(disk_from_the_past_is_refused),
		cmocka_unit_test(disk_without_a_catalog_gets_one),
		cmocka_unit_test(disks_of_another_pool_have_no_catalog),
		cmocka_unit_test(unreadable_journal_is_never_taken_for_an_empty_one),
		cmocka_unit_test(unreadable_catalog_is_never_taken_for_none),
		cmocka_unit_test(hostile_content_is_refused_or_loaded_consistently),
		cmocka_unit_test(full_catalog_takes_what_makes_it_no_larger),
		cmocka_unit_test(full_catalog_of_the_smallest_objects_can_be_emptied_at_once),
		cmocka_unit_test(numbers_are_unique_over_imports),
		cmocka_unit_test(writing_a_checkpoint_never_touches_the_other_half),
		cmocka_unit_test(admitted_disk_has_the_whole_catalog),
		cmocka_unit_test(disk_too_small_for_the_catalog_is_not_admitted),
		cmocka_unit_test(entries_that_lie_are_refused),
		cmocka_unit_test(texts_say_what_stands_there),
	};

	return run_unit_tests(tests);
}
