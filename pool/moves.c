/* Columns of segments that move to other disks: see pool.h. Drain, replacement, rebuild on spares and balance are all made
 * of this: which columns should move is a question of what the catalog says of their disks, so a crash interrupts nothing.
 *
 * While a column is being copied, whoever finds a wrong cell in it must not put it right: its zone may belong to another
 * segment by the time the write gets there. Hence segment->moving, and who had begun before is waited for. Reads may come
 * too late; they know the checksum. */
#include <errno.h>
#include <stdatomic.h>
#include <string.h>

#include "pool/pool_int.h"

#define WRITERS_POLL_NS (100ull * 1000)

/* --- which ------------------------------------------------------------------------------------------------------ */

static bool must_move(const struct pool *pool, struct zone_addr at)
{
	return at.disk_id == DISK_NONE || atomic_load(&pool->disks[at.disk_id]->flags) & DISK_GOES;
}

uint32_t segment_movable_cols(const struct pool *pool, const struct segment *segment, bool urgent)
{
	uint32_t n = segment->policy.k + segment->policy.m, cols = 0;

	for (uint32_t c = 0; c < n; c++) {
		struct zone_addr at = segment->cols[c];

		cols |= (uint32_t)(must_move(pool, at) ||
				   (!urgent && atomic_load(&pool->disks[at.disk_id]->crowded))) << c;
	}
	return cols && segment_is_whole(pool, segment) && zones_have_another(&pool->zones, segment->cols, n) ? cols : 0;
}

/* --- begin and end ------------------------------------------------------------------------------------------------ */

struct move_call {
	struct pool *pool;
	const struct segment *segment;
	struct segment *to;
	uint32_t cols;
};

static int begin_home(void *arg)
{
	struct move_call *call = arg;
	struct pool *pool = call->pool;
	struct segment *to = call->to;
	uint32_t n = to->policy.k + to->policy.m;

	for (uint32_t c = 0; c < n; c++) {
		bool better = !must_move(pool, to->cols[c]);

		if (better && !atomic_load(&pool->disks[to->cols[c].disk_id]->crowded))
			continue;
		if (zones_take_another(&pool->zones, to->cols, n, c, better, &to->cols[c]))
			call->cols |= 1u << c;
	}
	return 0;
}

static void wait_for_writers(const struct pool *pool, const struct segment *segment, uint32_t cols)
{
	for (uint32_t c = 0; c < SEGMENT_COLS_MAX; c++)
		while (cols >> c & 1 && segment->cols[c].disk_id != DISK_NONE &&
		       atomic_load(&pool->disks[segment->cols[c].disk_id]->writers) > 0)
			fiber_sleep_ns(WRITERS_POLL_NS);
}

int segment_move_begin(struct pool *pool, struct segment *segment, struct segment *to, uint32_t *cols)
{
	struct move_call call = { .pool = pool, .to = to };
	int ret;

	*to = *segment;
	ret = fiber_call_on(pool->loop, begin_home, &call);
	*cols = call.cols;
	if (ret)
		return ret;
	segment->moving = call.cols;
	to->lost &= ~call.cols;
	wait_for_writers(pool, segment, call.cols);
	return 0;
}

static int drop_home(void *arg)
{
	struct move_call *call = arg;

	for (uint32_t c = 0; c < SEGMENT_COLS_MAX; c++)
		if (call->cols >> c & 1)
			zones_give_back(&call->pool->zones, &call->to->cols[c], 1);
	return 0;
}

static int commit_home(void *arg)
{
	struct move_call *call = arg;
	struct cat_txn txn;
	int ret;

	cat_txn_init(&txn);
	segment_put_in(&txn, call->to);
	ret = catalog_commit(call->pool->catalog, &txn);
	cat_txn_release(&txn);
	if (!ret)
		segments_tell_watches(call->pool);
	return ret;
}

int segment_move_end(struct pool *pool, struct segment *segment, const struct segment *to, uint32_t cols, bool commit)
{
	struct segment copy = *to;
	struct move_call call = { .pool = pool, .to = &copy, .cols = cols };
	int ret = commit ? fiber_call_on(pool->loop, commit_home, &call) : -ECANCELED;

	segment->moving = 0;
	if (!ret)
		*segment = copy;
	/* After -EIO the catalog may name the new zones, but then it grants nothing more. */
	while (ret && fiber_call_on(pool->loop, drop_home, &call) == -ENOMEM)
		fiber_sleep_ns(WRITERS_POLL_NS);
	return commit ? ret : 0;
}

/* --- what is to be done --------------------------------------------------------------------------------------------- */

bool pool_note_fill(struct pool *pool)
{
	bool any = false;

	for (uint32_t id = 0; id < POOL_DISKS_MAX; id++) {
		struct pool_disk *pd = pool->disks[id];
		bool crowded = pd && pool->zones.disks[id].in_use && zones_is_crowded(&pool->zones, id);

		if (pd)
			atomic_store(&pd->crowded, crowded);
		any |= crowded;
	}
	return any;
}

void pool_get_rebuild(struct pool *pool, uint64_t *left, uint64_t *done)
{
	struct segment segment;

	*left = 0;
	*done = pool->columns_made;
	for (const struct cat_obj *obj = segments_next(pool, NULL, &segment); obj; obj = segments_next(pool, obj, &segment))
		for (uint32_t c = 0; c < (uint32_t)segment.policy.k + segment.policy.m; c++)
			*left += must_move(pool, segment.cols[c]) || segment.lost >> c & 1;
}
