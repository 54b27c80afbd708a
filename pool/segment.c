/* Segments: grants, frees, seals, their catalog objects, and who waits for space.
 *
 * A grant takes zones, puts a CAT_SEGMENT object and commits it; only then does the owner get the segment. A free is the
 * deletion of that object in some transaction: when the commit is durable, the catalog's change hook gives the zones back.
 * So a zone is never in two segments, neither in memory nor in any state a crash can leave.
 *
 * An index in memory finds the segments of an owner: owner -> omap of segno -> grant. An entry is made before the commit
 * that brings its object and removed by the hook, so nothing can fail once a transaction is durable; readers skip an
 * entry whose object is not there yet. */
#include <errno.h>
#include <inttypes.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>

#include "pool/base/mem.h"
#include "pool/pool_int.h"
#include "pool/segment_format.h"

struct owner_segments {
	struct omap grants; /* segno -> grant */
};

/* --- bytes ---------------------------------------------------------------------------------------------------- */

void segment_put_in(struct cat_txn *txn, const struct segment *segment)
{
	struct segment_payload payload = {
		.owner = le64_of(segment->owner),
		.segno = le32_of(segment->segno),
		.sealed_blocks = le32_of(segment->sealed_blocks),
		.stream = segment->stream,
		.k = segment->policy.k,
		.m = segment->policy.m,
		.lost = le32_of(segment->lost),
	};

	assert(policy_is_valid(segment->policy));
	for (int c = 0; c < segment->policy.k + segment->policy.m; c++)
		payload.cols[c] =
			(struct segment_col){ le32_of(segment->cols[c].disk_id), le32_of(segment->cols[c].zone) };
	cat_put(txn, CAT_SEGMENT, segment->grant, &payload, segment_payload_bytes(segment->policy));
}

void segment_free_in(struct cat_txn *txn, uint64_t grant)
{
	cat_del(txn, CAT_SEGMENT, grant);
}

/* Columns lie on different disks, and no more than m have no zone. */
static bool cols_valid(const struct segment *segment, int cols)
{
	int without = 0;

	for (int a = 0; a < cols; a++) {
		struct zone_addr at = segment->cols[a];

		without += at.disk_id == DISK_NONE;
		if (at.disk_id == DISK_NONE && at.zone != UINT32_MAX)
			return false;
		for (int b = 0; b < a; b++)
			if (at.disk_id != DISK_NONE && at.disk_id == segment->cols[b].disk_id)
				return false;
	}
	return without <= segment->policy.m && segment->lost >> cols == 0;
}

bool segment_from_obj(const struct cat_obj *obj, struct segment *out)
{
	const struct segment_payload *payload = obj->data;
	struct segment segment = { .grant = obj->id };
	int cols;

	if (obj->kind != CAT_SEGMENT || obj->len_bytes < offsetof(struct segment_payload, cols))
		return false;
	segment.policy = (struct policy){ payload->k, payload->m };
	if (!policy_is_valid(segment.policy) || obj->len_bytes != segment_payload_bytes(segment.policy))
		return false;
	if (payload->stream >= STREAM_COUNT || payload->zero)
		return false;
	segment.owner = le64_get(payload->owner);
	segment.segno = le32_get(payload->segno);
	segment.sealed_blocks = le32_get(payload->sealed_blocks);
	segment.stream = payload->stream;
	segment.lost = le32_get(payload->lost);
	cols = segment.policy.k + segment.policy.m;
	for (int c = 0; c < cols; c++)
		segment.cols[c] =
			(struct zone_addr){ le32_get(payload->cols[c].disk_id), le32_get(payload->cols[c].zone) };
	if (!cols_valid(&segment, cols))
		return false;
	*out = segment;
	return true;
}

char *segment_to_text(const struct segment *segment, char text[SEGMENT_TEXT_BYTES])
{
	int len = snprintf(text, SEGMENT_TEXT_BYTES,
			   "segment grant %" PRIu64 " owner %" PRIu64 " segno %u stream %u policy %u+%u"
			   " sealed %d lost %#x zones",
			   segment->grant, segment->owner, segment->segno, segment->stream, segment->policy.k,
			   segment->policy.m, (int)segment->sealed_blocks, segment->lost);

	for (int c = 0; c < segment->policy.k + segment->policy.m && len < SEGMENT_TEXT_BYTES; c++)
		len += snprintf(text + len, SEGMENT_TEXT_BYTES - (size_t)len, " %u:%u", segment->cols[c].disk_id,
				segment->cols[c].zone);
	return text;
}

uint32_t segment_blocks(const struct pool *pool, struct policy policy)
{
	return policy.k * (pool->zone_bytes / BLOCK_BYTES);
}

/* --- index by owner ---------------------------------------------------------------------------------------------- */

static struct owner_segments *owner_get(struct pool *pool, uint64_t owner)
{
	struct owner_segments **slot = omap_get(&pool->owners, owner);

	return slot ? *slot : NULL;
}

static int owner_get_or_new(struct pool *pool, uint64_t owner, struct owner_segments **out)
{
	struct owner_segments *os = owner_get(pool, owner);

	*out = os;
	if (os)
		return 0;
	os = mem_alloc(sizeof(*os));
	if (!os)
		return -ENOMEM;
	omap_init(&os->grants, sizeof(uint64_t));
	if (omap_put(&pool->owners, owner, &os)) {
		mem_free(os);
		return -ENOMEM;
	}
	*out = os;
	return 0;
}

static void index_remove(struct pool *pool, const struct segment *segment)
{
	struct owner_segments *os = owner_get(pool, segment->owner);

	if (!os)
		return;
	omap_del(&os->grants, segment->segno);
	if (os->grants.count)
		return;
	omap_destroy(&os->grants);
	omap_del(&pool->owners, segment->owner);
	mem_free(os);
}

/* -EEXIST: the owner has a segment of this number. */
static int index_add(struct pool *pool, const struct segment *segment)
{
	struct owner_segments *os;
	int ret = owner_get_or_new(pool, segment->owner, &os);

	if (ret)
		return ret;
	if (omap_get(&os->grants, segment->segno))
		return -EEXIST;
	ret = omap_put(&os->grants, segment->segno, &segment->grant);
	if (ret && !os->grants.count)
		index_remove(pool, segment);
	return ret;
}

void segments_release(struct pool *pool)
{
	struct omap_iter it;

	for (bool more = omap_seek(&pool->owners, 0, &it); more; more = omap_next(&it)) {
		struct owner_segments *os = *(struct owner_segments **)omap_value(&it);

		omap_destroy(&os->grants);
		mem_free(os);
	}
	omap_destroy(&pool->owners);
}

void segment_for_each(struct pool *pool, uint64_t owner, void (*fn)(void *arg, const struct segment *segment),
		      void *arg)
{
	struct owner_segments *os = owner_get(pool, owner);
	struct omap_iter it;

	if (!os)
		return;
	for (bool more = omap_seek(&os->grants, 0, &it); more; more = omap_next(&it)) {
		const struct cat_obj *obj = catalog_get(pool->catalog, CAT_SEGMENT, *(uint64_t *)omap_value(&it));
		struct segment segment;

		if (obj && segment_from_obj(obj, &segment))
			fn(arg, &segment);
	}
}

/* --- loading ------------------------------------------------------------------------------------------------------ */

struct segment_load {
	struct pool *pool;
	struct err *err;
};

static int load_columns(const struct segment_load *load, const struct segment *segment)
{
	zones_use_policy(&load->pool->zones, segment->policy);
	for (int c = 0; c < segment->policy.k + segment->policy.m; c++) {
		struct zone_addr at = segment->cols[c];

		if (at.disk_id != DISK_NONE && !zones_take_at(&load->pool->zones, at))
			return err_set(load->err, -EUCLEAN, "segment %" PRIu64 " claims zone %u of disk %u, which %s",
				       segment->grant, at.zone, at.disk_id,
				       zones_is_taken(&load->pool->zones, at) ? "another segment has"
									      : "does not exist");
	}
	return 0;
}

static int load_segment(void *arg, const struct cat_obj *obj)
{
	const struct segment_load *load = arg;
	struct segment segment;
	int ret;

	if (!segment_from_obj(obj, &segment))
		return err_set(load->err, -EUCLEAN, "segment %" PRIu64 " makes no sense", obj->id);
	if (segment.sealed_blocks != SEGMENT_UNSEALED &&
	    segment.sealed_blocks > segment_blocks(load->pool, segment.policy))
		return err_set(load->err, -EUCLEAN, "segment %" PRIu64 " is sealed behind its end", obj->id);
	ret = load_columns(load, &segment);
	if (ret)
		return ret;
	ret = index_add(load->pool, &segment);
	if (ret == -EEXIST)
		return err_set(load->err, -EUCLEAN, "owner %" PRIu64 " has two segments of number %u", segment.owner,
			       segment.segno);
	if (!ret)
		ret = pool_use_policy(load->pool, segment.policy);
	load->pool->segment_count++;
	return ret ? err_set(load->err, ret, "out of memory") : 0;
}

int segments_load(struct pool *pool, struct err *err)
{
	struct segment_load load = { pool, err };

	return catalog_for_each(pool->catalog, CAT_SEGMENT, load_segment, &load);
}

/* --- wholeness ---------------------------------------------------------------------------------------------------- */

static bool whole_without(const struct pool *pool, const struct segment *segment, uint32_t disk_id)
{
	uint32_t good = segment_writable_cols(pool, segment) & ~segment->lost;

	for (uint32_t c = 0; c < SEGMENT_COLS_MAX && disk_id != DISK_NONE; c++)
		if (good >> c & 1 && segment->cols[c].disk_id == disk_id)
			good &= ~(1u << c);
	return (uint32_t)__builtin_popcount(good) >= segment->policy.k;
}

bool segment_is_whole(const struct pool *pool, const struct segment *segment)
{
	return whole_without(pool, segment, DISK_NONE);
}

static const struct cat_obj *next_segment(const struct pool *pool, const struct cat_obj *obj, struct segment *segment)
{
	obj = catalog_next(pool->catalog, CAT_SEGMENT, obj ? obj->id + 1 : 0);
	if (obj && !segment_from_obj(obj, segment))
		assert(!"segment in memory is valid");
	return obj;
}

bool segments_whole_without(const struct pool *pool, uint32_t disk_id, uint64_t *without)
{
	const struct cat_obj *obj = NULL;
	struct segment segment;

	while ((obj = next_segment(pool, obj, &segment))) {
		if (whole_without(pool, &segment, disk_id))
			continue;
		*without = segment.grant;
		return false;
	}
	return true;
}

uint64_t segments_on_disk(const struct pool *pool, uint32_t disk_id)
{
	const struct cat_obj *obj = NULL;
	struct segment segment;
	uint64_t count = 0;

	while ((obj = next_segment(pool, obj, &segment)))
		for (uint32_t c = 0; c < (uint32_t)segment.policy.k + segment.policy.m; c++)
			count += segment.cols[c].disk_id == disk_id;
	return count;
}

void segments_put_lost(struct pool *pool, uint32_t disk_id, struct cat_txn *txn)
{
	const struct cat_obj *obj = NULL;
	struct segment segment;

	while ((obj = next_segment(pool, obj, &segment))) {
		uint32_t lost = segment.lost;

		for (uint32_t c = 0; c < (uint32_t)segment.policy.k + segment.policy.m && segment.policy.m; c++)
			segment.lost |= (uint32_t)(segment.cols[c].disk_id == disk_id) << c;
		if (segment.lost != lost)
			segment_put_in(txn, &segment);
	}
}

/* --- changes ------------------------------------------------------------------------------------------------------ */

/* A change of a living segment must leave its number and policy; the seal, lost columns and zones may be new. */
static void assert_same_place(const struct segment *a, const struct segment *b)
{
	assert(a->owner == b->owner && a->segno == b->segno && a->policy.k == b->policy.k &&
	       a->policy.m == b->policy.m);
}

/* Zones that a segment has moved out of are free. */
static void give_back_left(struct pool *pool, const struct segment *was, const struct segment *is)
{
	for (uint32_t c = 0; c < (uint32_t)is->policy.k + is->policy.m; c++) {
		struct zone_addr a = was->cols[c], b = is->cols[c];

		if (a.disk_id == b.disk_id && a.zone == b.zone)
			continue;
		assert(b.disk_id == DISK_NONE || zones_is_taken(&pool->zones, b));
		zones_give_back(&pool->zones, &a, 1);
		pool->space_freed = true;
	}
}

void segments_changed(void *arg, const struct cat_obj *old, const struct cat_obj *new)
{
	struct pool *pool = arg;
	struct segment was, is;

	if (new && new->kind == CAT_DISK && pool->disks[new->id])
		pool->disks[new->id]->state = le32_get(((const struct disk_payload *)new->data)->state);
	if ((old ? old->kind : new ? new->kind : CAT_POOL) != CAT_SEGMENT)
		return;
	if (old && !segment_from_obj(old, &was))
		assert(!"segment in memory is valid");
	if (new && !segment_from_obj(new, &is))
		assert(!"segment in a transaction is valid");
	pool->segment_count += (uint64_t)(new != NULL) - (old != NULL);
	if (old && new) {
		assert_same_place(&was, &is);
		give_back_left(pool, &was, &is);
	} else if (old) {
		zones_give_back(&pool->zones, was.cols, was.policy.k + was.policy.m);
		index_remove(pool, &was);
		pool->space_freed = true;
	} else {
		for (int c = 0; c < is.policy.k + is.policy.m; c++)
			assert(is.cols[c].disk_id == DISK_NONE || zones_is_taken(&pool->zones, is.cols[c]));
	}
}

/* --- commit and watchers -------------------------------------------------------------------------------------------- */

void segments_tell_watches(struct pool *pool)
{
	pool->space_freed = false;
	list_for_each(node, &pool->watches) {
		struct space_watch *watch = list_entry(node, struct space_watch, node);

		if (!atomic_exchange(&watch->queued, true))
			loop_send(watch->loop, watch->task);
	}
}

struct commit_call {
	struct pool *pool;
	struct cat_txn *txn;
};

static int commit_home(void *arg)
{
	struct commit_call *call = arg;
	int ret = catalog_commit(call->pool->catalog, call->txn);

	if (call->pool->space_freed)
		segments_tell_watches(call->pool);
	return ret;
}

int pool_commit(struct pool *pool, struct cat_txn *txn)
{
	struct commit_call call = { pool, txn };

	return fiber_call_on(pool->loop, commit_home, &call);
}

uint64_t pool_new_id(struct pool *pool)
{
	return catalog_new_id(pool->catalog);
}

struct watch_call {
	struct pool *pool;
	struct space_watch *watch;
};

static int watch_add_home(void *arg)
{
	struct watch_call *call = arg;

	list_push_back(&call->pool->watches, &call->watch->node);
	return 0;
}

int space_watch_add(struct pool *pool, struct space_watch *watch)
{
	struct watch_call call = { pool, watch };

	return fiber_call_on(pool->loop, watch_add_home, &call);
}

static int watch_del_home(void *arg)
{
	struct watch_call *call = arg;

	list_del(&call->watch->node);
	return 0;
}

/* Afterwards the task is not on its way either: the caller may free it. There is no memory to run out of on the pool's own
 * loop; elsewhere it is tried until it succeeds. */
void space_watch_del(struct pool *pool, struct space_watch *watch)
{
	struct watch_call call = { pool, watch };

	while (fiber_call_on(pool->loop, watch_del_home, &call))
		fiber_yield();
	while (atomic_load(&watch->queued))
		fiber_yield();
}

/* --- grants ----------------------------------------------------------------------------------------------------------- */

struct grant_call {
	struct pool *pool;
	struct segment *segment; /* all but grant and cols is set */
	enum grant_class class;
	uint32_t avoid_disk;
};

static int grant_commit(struct pool *pool, const struct segment *segment)
{
	struct cat_txn txn;
	int ret;

	cat_txn_init(&txn);
	segment_put_in(&txn, segment);
	ret = catalog_commit(pool->catalog, &txn);
	cat_txn_release(&txn);
	return ret;
}

static int grant_home(void *arg)
{
	struct grant_call *call = arg;
	struct pool *pool = call->pool;
	struct segment *segment = call->segment;
	uint32_t cols = segment->policy.k + segment->policy.m;
	int ret = pool_use_policy(pool, segment->policy);

	if (ret)
		return ret;
	segment->grant = catalog_new_id(pool->catalog);
	ret = index_add(pool, segment);
	if (ret)
		return ret;
	ret = zones_take(&pool->zones, segment->policy, call->class, call->avoid_disk, segment->cols);
	if (ret)
		goto unindex;
	ret = grant_commit(pool, segment);
	if (ret)
		goto give_back;
	return 0;

give_back:
	/* After -EIO the segment may exist on the disks, but then the catalog grants nothing more. */
	zones_give_back(&pool->zones, segment->cols, cols);
unindex:
	index_remove(pool, segment);
	return ret;
}

int segment_grant(struct pool *pool, uint64_t owner, uint32_t segno, enum segment_stream stream, struct policy policy,
		  enum grant_class class, uint32_t avoid_disk, struct segment *out)
{
	struct segment segment = {
		.owner = owner,
		.segno = segno,
		.sealed_blocks = SEGMENT_UNSEALED,
		.stream = (uint8_t)stream,
		.policy = policy,
	};
	struct grant_call call = { pool, &segment, class, avoid_disk };
	int ret;

	assert(policy_is_valid(policy) && stream < STREAM_COUNT);
	ret = fiber_call_on(pool->loop, grant_home, &call);
	if (!ret)
		*out = segment;
	return ret;
}

/* --- columns anew --------------------------------------------------------------------------------------------------- */

static bool col_wanted(const struct pool *pool, struct zone_addr at)
{
	const struct pool_disk *pd = at.disk_id == DISK_NONE ? NULL : pool->disks[at.disk_id];

	return !pd || (atomic_load(&pd->leaving) && atomic_load(&pd->failed));
}

bool segment_wants_columns(const struct pool *pool, const struct segment *segment)
{
	uint32_t cols = segment->policy.k + segment->policy.m;

	for (uint32_t c = 0; c < cols && segment->policy.m > 0; c++)
		if (col_wanted(pool, segment->cols[c]))
			return zones_have_another(&pool->zones, segment->cols, cols);
	return false;
}

struct move_call {
	struct pool *pool;
	struct segment *segment;
};

static int move_home(void *arg)
{
	struct move_call *call = arg;
	struct pool *pool = call->pool;
	struct segment to = *call->segment;
	uint32_t cols = to.policy.k + to.policy.m, moved = 0;
	int ret = 0;

	for (uint32_t c = 0; c < cols && to.policy.m; c++)
		if (col_wanted(pool, to.cols[c]) && zones_take_another(&pool->zones, to.cols, cols, &to.cols[c]))
			moved |= 1u << c;
	to.lost |= moved;
	if (moved)
		ret = grant_commit(pool, &to);
	for (uint32_t c = 0; c < cols && ret; c++)
		if (moved >> c & 1)
			zones_give_back(&pool->zones, &to.cols[c], 1);
	if (!ret)
		*call->segment = to;
	return ret;
}

int segment_move_columns(struct pool *pool, struct segment *segment)
{
	struct segment copy = *segment;
	struct move_call call = { pool, &copy };
	int ret = fiber_call_on(pool->loop, move_home, &call);

	if (!ret)
		*segment = copy;
	return ret;
}

uint64_t pool_segments_free(const struct pool *pool, struct policy policy)
{
	return zones_segments(&pool->zones, policy);
}

uint64_t pool_segments_wanted(const struct pool *pool, struct policy policy)
{
	uint32_t cols = policy.k + policy.m;

	return (pool->zones.wanted + cols - 1) / cols;
}
