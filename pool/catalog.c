/* The catalog in memory, and its commit.
 *
 * Objects live in an omap of pointers, keyed kind << 56 | id. A commit
 *   1 joins the list of waiting transactions and takes the lock; whoever gets it serves all that wait (group commit);
 *   2 prepares: builds the new objects and keeps a place for each new key, so that nothing can fail later;
 *   3 writes one journal record, or, if the journal has no room or the transaction is too long for a record, a
 *     checkpoint of all objects with the transaction's entries at its end;
 *   4 applies to memory, calling the change hook for each entry.
 * Readers see the old state until 4.
 *
 * Disks that fail: the attempt is repeated as a checkpoint on the others, whose last entries say which disks are out; only
 * that acknowledges the transactions. The loss hook decides whether the others are enough.
 *
 * Always holds: memory equals what is durable, but for the running commit. When too many disks have failed that is no
 * longer known (a transaction whose commit returned -EIO may turn up at the next import, wholly or not at all), so the
 * catalog is then broken and refuses everything.
 *
 * Space: objects may grow to 3/4 of a checkpoint area; the last quarter takes only what makes the catalog smaller, so
 * that a full one can always be emptied. */
#include "pool/catalog.h"

#include <errno.h>
#include <stdatomic.h>
#include <string.h>

#include "pool/base/mem.h"
#include "pool/catalog_int.h"

static struct cat_node *node_at(const struct omap_iter *it)
{
	return *(struct cat_node **)omap_value(it);
}

static struct cat_node *node_get(const struct catalog *cat, uint64_t key)
{
	struct cat_node **slot = omap_get(&cat->objects, key);

	return slot ? *slot : NULL;
}

static uint32_t node_bytes(const struct cat_node *node)
{
	return node ? cat_entry_bytes(node->obj.len_bytes) : 0;
}

static struct cat_node *node_new(const struct cat_obj *obj)
{
	struct cat_node *node = mem_alloc(sizeof(*node) + obj->len_bytes);

	if (!node)
		return NULL;
	node->next = NULL;
	node->placed = false;
	node->obj = *obj;
	node->obj.data = memcpy(node->bytes, obj->data, obj->len_bytes);
	return node;
}

/* --- reading -------------------------------------------------------------------------------------------------- */

const struct cat_obj *catalog_get(const struct catalog *cat, enum catalog_kind kind, uint64_t id)
{
	struct cat_node *node = node_get(cat, cat_key(kind, id));

	return node ? &node->obj : NULL;
}

const struct cat_obj *catalog_next(const struct catalog *cat, enum catalog_kind kind, uint64_t from)
{
	struct omap_iter it;

	if (from >> CAT_ID_BITS || !omap_seek(&cat->objects, cat_key(kind, from), &it))
		return NULL;
	do {
		if (omap_key(&it) >> CAT_ID_BITS != kind)
			return NULL;
		if (node_at(&it))
			return &node_at(&it)->obj;
	} while (omap_next(&it));
	return NULL;
}

int catalog_for_each(const struct catalog *cat, enum catalog_kind kind, int (*fn)(void *arg, const struct cat_obj *obj),
		     void *arg)
{
	struct omap_iter it;
	int ret = 0;

	for (bool more = omap_seek(&cat->objects, cat_key(kind, 0), &it); more && !ret; more = omap_next(&it)) {
		if (omap_key(&it) >> CAT_ID_BITS != kind)
			break;
		if (node_at(&it))
			ret = fn(arg, &node_at(&it)->obj);
	}
	return ret;
}

uint64_t catalog_new_id(struct catalog *cat)
{
	uint64_t id = atomic_fetch_add(&cat->next_id, 1);

	assert(id < 1ull << CAT_ID_BITS);
	return id;
}

/* --- life ------------------------------------------------------------------------------------------------------ */

int catalog_new(const struct uuid *pool_uuid, struct catalog **out)
{
	struct catalog *cat = mem_zalloc(sizeof(*cat));

	if (!cat)
		return -ENOMEM;
	cat->chunk = mem_alloc_aligned(CAT_BLOCK_BYTES, CAT_CHUNK_BYTES);
	if (!cat->chunk) {
		mem_free(cat);
		return -ENOMEM;
	}
	memcpy(cat->pool_uuid, pool_uuid->b, sizeof(cat->pool_uuid));
	omap_init(&cat->objects, sizeof(struct cat_node *));
	fmutex_init(&cat->commit_lock);
	list_init(&cat->waiting);
	cat->next_id = 1;
	cat->next_generation = 1;
	cat->journal_pos = UINT64_MAX; /* no journal before the first checkpoint */
	*out = cat;
	return 0;
}

void catalog_clear(struct catalog *cat)
{
	struct omap_iter it;

	for (bool more = omap_seek(&cat->objects, 0, &it); more; more = omap_next(&it))
		mem_free(node_at(&it));
	omap_destroy(&cat->objects);
	cat->count = cat->live_bytes = 0;
}

void catalog_free(struct catalog *cat)
{
	if (!cat)
		return;
	assert(list_empty(&cat->waiting) && !cat->commit_lock.held);
	catalog_clear(cat);
	for (uint32_t i = 0; i < cat->disk_count; i++)
		mem_free(cat->disks[i]);
	mem_free(cat->chunk);
	mem_free(cat);
}

void catalog_set_hooks(struct catalog *cat, cat_change_fn *change, cat_loss_fn *loss, void *arg)
{
	cat->change_fn = change;
	cat->loss_fn = loss;
	cat->hook_arg = arg;
}

static uint64_t min_u64(uint64_t a, uint64_t b)
{
	return a < b ? a : b;
}

static struct cat_disk *cat_disk_new(struct catalog *cat, struct disk *disk, const struct catalog_half half[2],
				     _Atomic bool *failed)
{
	struct cat_disk *cd = mem_zalloc(sizeof(*cd));

	if (!cd)
		return NULL;
	cd->disk = disk;
	cd->half[0] = half[0];
	cd->half[1] = half[1];
	cd->failed = failed;
	cd->cat = cat;
	return cd;
}

/* Narrows the limits to what a disk's halves hold. */
static void limit_to(struct catalog *cat, const struct catalog_half half[2])
{
	for (int h = 0; h < 2; h++) {
		cat->payload_max = min_u64(cat->payload_max, half[h].checkpoint_bytes - CAT_BLOCK_BYTES);
		cat->journal_bytes = min_u64(cat->journal_bytes, half[h].journal_bytes);
	}
}

static void reset_limits(struct catalog *cat)
{
	cat->payload_max = CHECKPOINT_BYTES_MAX;
	cat->journal_bytes = JOURNAL_BYTES_MAX;
	for (uint32_t i = 0; i < cat->disk_count; i++)
		limit_to(cat, cat->disks[i]->half);
}

int catalog_attach(struct catalog *cat, struct disk *disk, const struct catalog_half half[2], _Atomic bool *failed)
{
	struct cat_disk *cd = cat_disk_new(cat, disk, half, failed);

	assert(cat->disk_count < POOL_DISKS_MAX && cat->count == 0);
	if (!cd)
		return -ENOMEM;
	cat->disks[cat->disk_count++] = cd;
	reset_limits(cat);
	return 0;
}

/* --- changing memory --------------------------------------------------------------------------------------------- */

/* Counts an object out and another one in. */
static void account(struct catalog *cat, const struct cat_node *old, const struct cat_node *new)
{
	cat->count += (new != NULL) - (old != NULL);
	cat->live_bytes += (uint64_t)node_bytes(new) - node_bytes(old);
}

int catalog_apply_loaded(struct catalog *cat, const struct cat_entry *entry)
{
	struct cat_node *old = node_get(cat, entry->key), *new = NULL;

	if (entry->op == CAT_OP_PUT) {
		new = node_new(&entry->obj);
		if (!new)
			return -ENOMEM;
		if (omap_put(&cat->objects, entry->key, &new)) {
			mem_free(new);
			return -ENOMEM;
		}
	} else {
		omap_del(&cat->objects, entry->key);
	}
	account(cat, old, new);
	mem_free(old);
	return 0;
}

/* Next entry of a transaction of our own making. */
static bool txn_next(const struct cat_txn *txn, uint64_t *pos, struct cat_entry *entry)
{
	int ret = cat_entry_next(txn->buf, txn->len_bytes, pos, entry);

	assert(ret >= 0);
	return ret > 0;
}

static int prepare_put(struct catalog *cat, struct cat_commit *commit, const struct cat_entry *entry)
{
	struct cat_node *node = node_new(&entry->obj), *none = NULL;

	if (!node)
		return -ENOMEM;
	*commit->puts_tail = node;
	commit->puts_tail = &node->next;
	if (omap_get(&cat->objects, entry->key))
		return 0;
	node->placed = true;
	return omap_put(&cat->objects, entry->key, &none);
}

/* Takes back the objects of prepare and the places it made itself. */
static void unprepare(struct catalog *cat, struct cat_commit *commit)
{
	struct cat_node *node;

	while ((node = commit->puts)) {
		if (node->placed)
			omap_del(&cat->objects, cat_key(node->obj.kind, node->obj.id));
		commit->puts = node->next;
		mem_free(node);
	}
}

static int prepare(struct catalog *cat, struct cat_commit *commit)
{
	struct cat_entry entry;
	uint64_t pos = 0;
	int ret = 0;

	commit->puts_tail = &commit->puts;
	while (!ret && txn_next(commit->txn, &pos, &entry))
		if (entry.op == CAT_OP_PUT)
			ret = prepare_put(cat, commit, &entry);
	if (ret)
		unprepare(cat, commit);
	return ret;
}

static void apply_entry(struct catalog *cat, struct cat_commit *commit, const struct cat_entry *entry)
{
	struct cat_node **slot = omap_get(&cat->objects, entry->key);
	struct cat_node *old = slot ? *slot : NULL, *new = NULL;

	if (entry->op == CAT_OP_PUT) {
		new = commit->puts;
		commit->puts = new->next;
		assert(slot);
		*slot = new;
	} else if (slot) {
		*slot = NULL;
	}
	account(cat, old, new);
	if (cat->change_fn)
		cat->change_fn(cat->hook_arg, old ? &old->obj : NULL, new ? &new->obj : NULL);
	mem_free(old);
}

/* Removes the places that the transaction left empty: keys it deleted, also after a put of its own. */
static void drop_empty(struct catalog *cat, const struct cat_txn *txn)
{
	struct cat_entry entry;
	uint64_t pos = 0;

	while (txn_next(txn, &pos, &entry)) {
		struct cat_node **slot = omap_get(&cat->objects, entry.key);

		if (slot && !*slot)
			omap_del(&cat->objects, entry.key);
	}
}

static void apply(struct catalog *cat, struct cat_commit *commit)
{
	struct cat_entry entry;
	uint64_t pos = 0;

	while (txn_next(commit->txn, &pos, &entry))
		apply_entry(cat, commit, &entry);
	assert(!commit->puts);
}

/* --- room -------------------------------------------------------------------------------------------------------- */

/* By how much the objects would grow. An omap remembers what the transaction itself did to a key before. */
static int txn_growth(const struct catalog *cat, const struct cat_txn *txn, int64_t *growth)
{
	struct omap sizes;
	struct cat_entry entry;
	uint64_t pos = 0;
	int ret = 0;

	*growth = 0;
	omap_init(&sizes, sizeof(uint32_t));
	while (!ret && txn_next(txn, &pos, &entry)) {
		uint32_t *before = omap_get(&sizes, entry.key);
		uint32_t old = before ? *before : node_bytes(node_get(cat, entry.key));
		uint32_t new = entry.op == CAT_OP_PUT ? cat_entry_bytes(entry.obj.len_bytes) : 0;

		*growth += (int64_t) new - old;
		ret = omap_put(&sizes, entry.key, &new);
	}
	omap_destroy(&sizes);
	return ret;
}

/* reserved: bytes by which transactions of the same group may grow the catalog before this one. */
static int check_room(const struct catalog *cat, const struct cat_txn *txn, uint64_t reserved)
{
	uint64_t soft_max = cat->payload_max / 4 * 3, live = cat->live_bytes + reserved;
	int64_t growth;
	int ret;

	if (txn->len_bytes <= soft_max && live <= soft_max - txn->len_bytes)
		return 0;
	ret = txn_growth(cat, txn, &growth);
	if (ret)
		return ret;
	if (growth > 0 && live + (uint64_t)growth > soft_max)
		return -ENOSPC;
	return txn->len_bytes > cat->payload_max || live > cat->payload_max - txn->len_bytes ? -ENOSPC : 0;
}

/* --- commit ------------------------------------------------------------------------------------------------------- */

static void finish(struct cat_commit *commit, int res)
{
	list_del(&commit->node);
	commit->finished = true;
	commit->res = res;
}

/* Moves the waiting transactions that fit one record to `group` and their entries to the chunk; those that cannot be done
 * are finished at once. A transaction longer than a record makes a group of its own, with no payload. */
static uint32_t gather_group(struct catalog *cat, struct list *group)
{
	uint8_t *payload = cat->chunk + sizeof(struct record_head);
	uint32_t payload_bytes = 0;

	list_for_each_safe(node, tmp, &cat->waiting) {
		struct cat_commit *commit = list_entry(node, struct cat_commit, node);
		uint32_t len = commit->txn->len_bytes;
		int ret;

		if (len > RECORD_PAYLOAD_MAX - payload_bytes && !list_empty(group))
			break;
		ret = check_room(cat, commit->txn, payload_bytes);
		if (!ret)
			ret = prepare(cat, commit);
		if (ret) {
			finish(commit, ret);
			continue;
		}
		list_del(&commit->node);
		list_push_back(group, &commit->node);
		if (len > RECORD_PAYLOAD_MAX)
			break;
		memcpy(payload + payload_bytes, commit->txn->buf, len);
		payload_bytes += len;
	}
	return payload_bytes;
}

/* What says which disks are out: the last transaction of a group. */
struct loss {
	struct cat_txn txn;
	struct cat_commit commit;
};

static void loss_release(struct catalog *cat, struct loss *loss)
{
	unprepare(cat, &loss->commit);
	list_del(&loss->commit.node);
	cat_txn_release(&loss->txn);
}

static void loss_init(struct loss *loss)
{
	cat_txn_init(&loss->txn);
	loss->commit = (struct cat_commit){ .txn = &loss->txn };
	list_init(&loss->commit.node);
}

/* Leaves out what has failed and puts it into words, instead of what an earlier call said. -EIO: too many. */
static int add_loss(struct catalog *cat, struct list *group, struct loss *loss)
{
	int ret = cat->loss_fn ? 0 : -EIO;

	loss_release(cat, loss);
	loss_init(loss);
	for (uint32_t i = 0; i < cat->disk_count; i++)
		cat->disks[i]->out = atomic_load(cat->disks[i]->failed);
	if (!ret)
		ret = cat->loss_fn(cat->hook_arg, &loss->txn);
	if (!ret)
		ret = loss->txn.error;
	if (!ret)
		ret = prepare(cat, &loss->commit);
	if (!ret && loss->txn.len_bytes)
		list_push_back(group, &loss->commit.node);
	return ret;
}

static int write_group(struct catalog *cat, struct list *group, uint32_t payload_bytes)
{
	if (payload_bytes && cat->journal_pos < cat->journal_bytes &&
	    record_bytes(payload_bytes) <= cat->journal_bytes - cat->journal_pos)
		return catalog_write_record(cat, payload_bytes);
	return catalog_write_checkpoint(cat, group);
}

static void apply_group(struct catalog *cat, struct list *group)
{
	list_for_each(node, group)
		apply(cat, list_entry(node, struct cat_commit, node));
	list_for_each(node, group)
		drop_empty(cat, list_entry(node, struct cat_commit, node)->txn);
}

static void finish_group(struct catalog *cat, struct list *group, int res)
{
	if (res)
		cat->broken = true;
	else
		apply_group(cat, group);
	list_for_each_safe(node, tmp, group) {
		struct cat_commit *commit = list_entry(node, struct cat_commit, node);

		unprepare(cat, commit);
		finish(commit, res);
	}
}

/* Writes and applies a group. With `losses` disks are known to have failed; payload_bytes 0: as a checkpoint. */
static int run_group(struct catalog *cat, struct list *group, uint32_t payload_bytes, bool losses)
{
	struct loss loss;
	int ret;

	loss_init(&loss);
	ret = losses ? 1 : write_group(cat, group, payload_bytes);
	while (ret > 0) {
		ret = add_loss(cat, group, &loss);
		if (!ret)
			ret = catalog_write_checkpoint(cat, group);
	}
	ret = ret ? -EIO : 0;
	finish_group(cat, group, ret);
	loss_release(cat, &loss);
	return ret;
}

/* One group, from the head of the waiting list. */
static void commit_group(struct catalog *cat)
{
	struct list group = LIST_INIT(group);
	uint32_t payload_bytes;

	if (cat->broken) {
		finish(list_entry(cat->waiting.next, struct cat_commit, node), -EIO);
		return;
	}
	payload_bytes = gather_group(cat, &group);
	if (!list_empty(&group))
		(void)!run_group(cat, &group, payload_bytes, false);
}

static int commit_locked(struct catalog *cat, struct cat_txn *txn)
{
	struct cat_commit commit = { .txn = txn };

	list_push_back(&cat->waiting, &commit.node);
	while (!commit.finished)
		commit_group(cat);
	return commit.res;
}

int catalog_commit(struct catalog *cat, struct cat_txn *txn)
{
	struct cat_commit commit = { .txn = txn };

	if (txn->error)
		return txn->error;
	if (cat->broken)
		return -EIO;
	if (txn->len_bytes == 0)
		return 0;
	list_push_back(&cat->waiting, &commit.node);
	fmutex_lock(&cat->commit_lock);
	while (!commit.finished)
		commit_group(cat);
	fmutex_unlock(&cat->commit_lock);
	return commit.res;
}

static int checkpoint_locked(struct catalog *cat, bool losses)
{
	struct list none = LIST_INIT(none);

	return cat->broken ? -EIO : run_group(cat, &none, 0, losses);
}

int catalog_checkpoint(struct catalog *cat)
{
	int ret;

	fmutex_lock(&cat->commit_lock);
	ret = checkpoint_locked(cat, false);
	fmutex_unlock(&cat->commit_lock);
	return ret;
}

int catalog_resume(struct catalog *cat, bool without_some)
{
	int ret;

	fmutex_lock(&cat->commit_lock);
	/* Past whatever the others may have; twice, as an attempt without other disks may have gone past that too. */
	cat->without_some = without_some;
	if (without_some)
		cat->next_generation += CAT_UNSEEN_GENERATIONS + 2;
	do {
		for (uint32_t i = 0; i < cat->disk_count; i++)
			cat->disks[i]->out = atomic_load(cat->disks[i]->failed);
		ret = catalog_spread(cat);
		if (!ret)
			ret = catalog_flush_all(cat);
	} while (ret > 0);
	if (!ret)
		ret = checkpoint_locked(cat, cat->loss_fn != NULL);
	if (!ret && without_some) {
		cat->next_generation += CAT_UNSEEN_GENERATIONS;
		ret = checkpoint_locked(cat, false);
	}
	fmutex_unlock(&cat->commit_lock);
	return ret;
}

int catalog_settle_losses(struct catalog *cat)
{
	bool losses = false;
	int ret;

	fmutex_lock(&cat->commit_lock);
	for (uint32_t i = 0; i < cat->disk_count; i++)
		losses |= !cat->disks[i]->out && atomic_load(cat->disks[i]->failed);
	ret = cat->broken ? -EIO : losses ? checkpoint_locked(cat, true) : 0;
	fmutex_unlock(&cat->commit_lock);
	return ret;
}

int catalog_format(struct catalog *cat)
{
	int ret = catalog_checkpoint(cat);

	return ret ? ret : catalog_checkpoint(cat);
}

static int admit_locked(struct catalog *cat, struct cat_disk *cd, struct cat_txn *txn)
{
	int ret;

	assert(cat->disk_count < POOL_DISKS_MAX);
	limit_to(cat, cd->half);
	ret = commit_locked(cat, txn);
	if (ret) {
		reset_limits(cat);
		return ret;
	}
	cat->disks[cat->disk_count++] = cd;
	return checkpoint_locked(cat, false);
}

int catalog_admit(struct catalog *cat, struct disk *disk, const struct catalog_half half[2], _Atomic bool *failed,
		  struct cat_txn *txn)
{
	struct cat_disk *cd = cat_disk_new(cat, disk, half, failed);
	uint32_t before;
	int ret;

	if (!cd || txn->error) {
		mem_free(cd);
		return -ENOMEM;
	}
	fmutex_lock(&cat->commit_lock);
	before = cat->disk_count;
	ret = admit_locked(cat, cd, txn);
	if (cat->disk_count == before)
		mem_free(cd);
	fmutex_unlock(&cat->commit_lock);
	return ret;
}

static int readmit_locked(struct catalog *cat, struct cat_disk *cd, struct cat_txn *txn)
{
	int ret = commit_locked(cat, txn);

	if (ret)
		return ret;
	atomic_store(cd->failed, false);
	cd->out = false;
	return checkpoint_locked(cat, false);
}

static struct cat_disk *find_cat_disk(const struct catalog *cat, const struct disk *disk)
{
	uint32_t i = 0;

	while (cat->disks[i]->disk != disk)
		assert(++i < cat->disk_count);
	return cat->disks[i];
}

void catalog_leave_out(struct catalog *cat, const struct disk *disk)
{
	struct cat_disk *cd = find_cat_disk(cat, disk);

	fmutex_lock(&cat->commit_lock);
	atomic_store(cd->failed, true);
	cd->out = true;
	fmutex_unlock(&cat->commit_lock);
}

int catalog_readmit(struct catalog *cat, struct disk *disk, struct cat_txn *txn)
{
	struct cat_disk *cd = find_cat_disk(cat, disk);
	int ret;

	if (txn->error)
		return txn->error;
	assert(atomic_load(cd->failed));
	fmutex_lock(&cat->commit_lock);
	ret = cat->broken ? -EIO : readmit_locked(cat, cd, txn);
	fmutex_unlock(&cat->commit_lock);
	return ret;
}
