/* How full the pool is, for people: see pool_set_space_watch in pool.h. Levels have a gap between going down and coming up again, so that
 * a pool at the edge does not tell again and again. */
#include "pool/pool_int.h"

#define LOW_PERCENT 5u            /* free above the reserve */
#define ENOUGH_PERCENT 10u

static bool less_is_free(const struct zones *zones, uint64_t percent)
{
	uint64_t above = zones->free > zones->reserve ? zones->free - zones->reserve : 0;

	return above * 100 < zones->count * percent;
}

static enum pool_space_level level_of(const struct pool *pool)
{
	if (pool->zones.refused || (pool->space_level == POOL_SPACE_FULL && less_is_free(&pool->zones, LOW_PERCENT)))
		return POOL_SPACE_FULL;
	if (less_is_free(&pool->zones, pool->space_level == POOL_SPACE_OK ? LOW_PERCENT : ENOUGH_PERCENT))
		return POOL_SPACE_LOW;
	return POOL_SPACE_OK;
}

void pool_note_space(struct pool *pool)
{
	enum pool_space_level level = level_of(pool);

	if (level == pool->space_level)
		return;
	pool->space_level = level;
	pool->space_changes[level]++;
	if (pool->space_changed)
		pool->space_changed(pool->space_arg, level);
}

void pool_set_space_watch(struct pool *pool, void (*changed)(void *arg, enum pool_space_level level), void *arg)
{
	pool->space_changed = changed;
	pool->space_arg = arg;
	pool->space_level = level_of(pool);
	if (pool->space_level != POOL_SPACE_OK)
		changed(arg, pool->space_level);
}
