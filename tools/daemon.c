/* The registry's life, pools by name, pins: see daemon.h; the rules are in daemon_int.h.
 *
 * daemon_init turns every record of the state folder into a member that is DOWN. Bringing one up moves it through
 * STARTING to OPEN or back to DOWN, with the reason; a command may try again. Nothing but a command removes a member. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tools/daemon_int.h"
#include "tools/log.h"

const char *member_state_text(enum member_state state)
{
	static const char *const texts[] = {
#define X(name, text, what) [MEMBER_##name] = (text),
		MEMBER_STATES(X)
#undef X
	};

	return texts[state];
}

/* --- pins ------------------------------------------------------------------------------------------------- */

void pin_init(struct pin *pin)
{
	pin->users = 0;
	waitq_init(&pin->unused);
}

void pin_take(struct pin *pin)
{
	pin->users++;
}

void pin_drop(struct pin *pin)
{
	if (--pin->users == 0)
		waitq_wake_all(&pin->unused);
}

void pin_wait_unused(struct pin *pin)
{
	while (pin->users > 0)
		waitq_wait(&pin->unused);
}

/* --- finding ------------------------------------------------------------------------------------ */

struct daemon_pool *daemon_pool_lookup(struct daemon *daemon, const char *name)
{
	list_for_each(node, &daemon->pools) {
		struct daemon_pool *pool = list_entry(node, struct daemon_pool, node);

		if (strcmp(pool->name, name) == 0)
			return pool;
	}
	return NULL;
}

int daemon_pool_find(struct daemon *daemon, const char *name, struct daemon_pool **out, struct err *err)
{
	struct daemon_pool *pool = daemon_pool_lookup(daemon, name);

	if (!pool)
		return err_set(err, -ENOENT, "no pool '%.64s'; 'poolctl pool list' shows those there are", name);
	pin_take(&pool->pin);
	*out = pool;
	return 0;
}

int daemon_pool_get(struct daemon *daemon, const char *name, struct daemon_pool **out, struct err *err)
{
	int ret = daemon_pool_find(daemon, name, out, err);

	if (ret || (*out)->state == MEMBER_OPEN)
		return ret;
	if ((*out)->state == MEMBER_DOWN)
		ret = err_set(err, -ENXIO, "pool '%s' is down: %s ('poolctl retry' tries again)", name,
			      (*out)->why.msg);
	else
		ret = err_set(err, -EBUSY, "pool '%s' is %s", name, member_state_text((*out)->state));
	daemon_pool_put(*out);
	return ret;
}

void daemon_pool_put(struct daemon_pool *pool)
{
	pin_drop(&pool->pin);
}

/* --- life ------------------------------------------------------------------------------------------------- */

static int register_pools(struct daemon *daemon)
{
	list_for_each(node, &daemon->state.pools) {
		struct state_pool *record = list_entry(node, struct state_pool, node);
		struct daemon_pool *pool = daemon_pool_new(daemon, record->name, MEMBER_DOWN);

		if (!pool)
			return -ENOMEM;
		pool->record = record;
	}
	return 0;
}

static struct daemon_pool *lookup_uuid(struct daemon *daemon, const char *uuid)
{
	list_for_each(node, &daemon->pools) {
		struct daemon_pool *pool = list_entry(node, struct daemon_pool, node);

		if (strcmp(pool->record->uuid, uuid) == 0)
			return pool;
	}
	return NULL;
}

static int register_exports(struct daemon *daemon)
{
	list_for_each(node, &daemon->state.exports) {
		struct state_export *record = list_entry(node, struct state_export, node);

		if (!daemon_export_new(lookup_uuid(daemon, record->pool_uuid), record))
			return -ENOMEM;
	}
	return 0;
}

int daemon_init(struct daemon *daemon, const struct config *config, struct err *err)
{
	int ret;

	*daemon = (struct daemon){ .config = config };
	list_init(&daemon->pools);
	fmutex_init(&daemon->saving);
	ret = state_open(&daemon->state, config->state, err);
	if (ret)
		return ret;
	ret = state_load(&daemon->state, err);
	if (ret == 0 && (register_pools(daemon) != 0 || register_exports(daemon) != 0))
		ret = err_set(err, -ENOMEM, "no memory");
	if (ret)
		daemon_fini(daemon);
	return ret;
}

void daemon_fini(struct daemon *daemon)
{
	while (!list_empty(&daemon->pools))
		daemon_pool_free(list_entry(daemon->pools.next, struct daemon_pool, node));
	state_close(&daemon->state);
}

struct bring_up_job {
	struct daemon *daemon;
	struct daemon_pool *pool;
};

static void run_bring_up(void *arg)
{
	struct bring_up_job *job = arg;

	daemon_pool_bring_up(job->daemon, job->pool);
	job->daemon->starting--;
	daemon_pool_put(job->pool);
	free(job);
}

/* DOWN -> STARTING, on a fiber of its own. */
static void start_pool(struct daemon *daemon, struct daemon_pool *pool)
{
	struct bring_up_job *job = malloc(sizeof(*job));

	if (!job)
		return;
	*job = (struct bring_up_job){ daemon, pool };
	if (fiber_start(daemon->loops[0], run_bring_up, job) != 0) {
		free(job);
		return;
	}
	pool->state = MEMBER_STARTING;
	pin_take(&pool->pin);
	daemon->starting++;
}

static void start_pools(struct daemon *daemon)
{
	list_for_each(node, &daemon->pools) {
		struct daemon_pool *pool = list_entry(node, struct daemon_pool, node);

		if (pool->state == MEMBER_DOWN)
			start_pool(daemon, pool);
	}
}

static void wait_started(struct daemon *daemon, uint64_t wait_ns)
{
	struct loop *loop = loop_self();
	uint64_t begin_ns = loop_now_ns(loop);

	while (daemon->starting > 0 && loop_now_ns(loop) - begin_ns < wait_ns)
		fiber_sleep_ns(2000000);
}

void daemon_restore_begin(struct daemon *daemon)
{
	start_pools(daemon);
}

void daemon_restore_wait(struct daemon *daemon)
{
	wait_started(daemon, DAEMON_RESTORE_WAIT_S * 1000000000ull);
	if (daemon->starting > 0)
		log_warn("%u pools are still being imported", daemon->starting);
}

static void retry_exports(struct daemon_pool *pool)
{
	pin_take(&pool->pin);
	fmutex_lock(&pool->change);
	if (pool->state == MEMBER_OPEN)
		daemon_export_bring_up_all(pool);
	fmutex_unlock(&pool->change);
	pin_drop(&pool->pin);
}

uint32_t daemon_retry(struct daemon *daemon)
{
	start_pools(daemon);
	wait_started(daemon, UINT64_MAX);
	list_for_each(node, &daemon->pools)
		retry_exports(list_entry(node, struct daemon_pool, node));
	return daemon_count_down(daemon);
}

uint32_t daemon_count_down(const struct daemon *daemon)
{
	uint32_t count = 0;

	list_for_each(node, &daemon->pools) {
		const struct daemon_pool *pool = list_entry(node, struct daemon_pool, node);

		count += pool->state == MEMBER_DOWN;
		list_for_each(exp_node, &pool->exports)
			count += list_entry(exp_node, struct daemon_export, node)->state == MEMBER_DOWN;
	}
	return count;
}

void daemon_stop(struct daemon *daemon)
{
	wait_started(daemon, DAEMON_RESTORE_WAIT_S * 1000000000ull);
	list_for_each(node, &daemon->pools) {
		struct daemon_pool *pool = list_entry(node, struct daemon_pool, node);

		if (pool->state == MEMBER_OPEN)
			daemon_pool_shut(pool);
		else if (pool->state == MEMBER_STARTING)
			log_warn("pool '%s' is still being imported: left as it is", pool->name);
	}
	while (daemon->watchers > 0)
		fiber_sleep_ns(1000000);
}
