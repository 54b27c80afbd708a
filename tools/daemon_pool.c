/* Pools of the registry: see daemon.h and the rules in daemon_int.h.
 *
 * Steps that write the disks and the step that writes the state folder cannot be one atomic act. Their order is chosen so
 * that a crash between them leaves nothing that a person cannot see and mend:
 *
 *	create, import   disks, then state: the pool is there to import
 *	add              state, then disks: a disk without the pool's label is left out of the next import
 *	export           state, then close: the pool is there to import
 *	destroy          disks, then state: the pool is DOWN, and 'pool export' forgets it */
#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tools/daemon_disks.h"
#include "tools/daemon_int.h"
#include "tools/log.h"

#define BUSY_WAIT_MS 3000
#define BUSY_LOOK_MS 10

struct daemon_pool *daemon_pool_new(struct daemon *daemon, const char *name, enum member_state state)
{
	struct daemon_pool *pool = calloc(1, sizeof(*pool));

	if (!pool)
		return NULL;
	pin_init(&pool->pin);
	fmutex_init(&pool->change);
	list_init(&pool->exports);
	pool->state = state;
	snprintf(pool->name, sizeof(pool->name), "%s", name);
	snprintf(pool->why.msg, sizeof(pool->why.msg), "not tried yet");
	list_push_back(&daemon->pools, &pool->node);
	return pool;
}

void daemon_pool_free(struct daemon_pool *pool)
{
	pin_wait_unused(&pool->pin);
	while (!list_empty(&pool->exports))
		daemon_export_free(list_entry(pool->exports.next, struct daemon_export, node));
	list_del(&pool->node);
	state_pool_free(pool->record);
	free(pool);
}

/* --- opening and closing ---------------------------------------------------------------------------------- */

const char *daemon_space_text(enum pool_space_level level)
{
	static const char *const texts[] = {
#define X(name, text, what) [POOL_SPACE_##name] = text,
		POOL_SPACE_LEVELS_LIST(X)
#undef X
	};

	return texts[level];
}

static void log_space(void *arg, enum pool_space_level level)
{
	static const char *const texts[] = {
#define X(name, text, what) [POOL_SPACE_##name] = what,
		POOL_SPACE_LEVELS_LIST(X)
#undef X
	};
	const struct daemon_pool *pool = arg;

	if (level == POOL_SPACE_OK)
		log_info("pool '%s': space is %s: %s", pool->name, daemon_space_text(level), texts[level]);
	else
		log_warn("pool '%s': space is %s: %s; add a disk, or delete data", pool->name, daemon_space_text(level),
			 texts[level]);
}

static int open_volumes(struct daemon *daemon, struct daemon_pool *pool, struct err *err)
{
	struct volumes_opts opts = {
		.loops = daemon->loops,
		.loop_count = daemon->loop_count,
		.map_cache_bytes = daemon->config->map_cache_bytes,
		.overlay_entries_max = daemon->config->overlay_entries,
		.checkpoint_log_bytes = daemon->config->checkpoint_log_bytes,
		.spare_after_ns = daemon->config->spare_after_s * 1000000000ull,
		.scrub_every_ns = daemon->config->scrub_every_s * 1000000000ull,
	};

	pool_set_space_watch(pool->pool, log_space, pool);
	return volumes_open(pool->pool, &opts, &pool->volumes, err);
}

static void close_engine(struct daemon_pool *pool)
{
	if (pool->volumes)
		volumes_close(pool->volumes);
	pool->volumes = NULL;
	if (pool->pool)
		pool_close(pool->pool);
	pool->pool = NULL;
}

/* Imports the pool from the disks, which it takes or closes, and opens its volumes. */
static int open_engine(struct daemon *daemon, struct daemon_pool *pool, struct disk_set *set, struct err *err)
{
	int ret = pool_import(set->disks, set->count, &pool->pool, err);

	if (ret) {
		disk_set_close(set);
		return ret;
	}
	ret = open_volumes(daemon, pool, err);
	if (ret)
		close_engine(pool);
	return ret;
}

/* STARTING -> OPEN. */
static void set_open(struct daemon_pool *pool)
{
	struct pool_info info;

	fmutex_lock(&pool->change);
	pool->state = MEMBER_OPEN;
	pool_get_info(pool->pool, &info);
	log_info("pool '%s' is open: %u disks", pool->name, info.disk_count);
	daemon_export_bring_up_all(pool);
	fmutex_unlock(&pool->change);
}

static void set_down(struct daemon_pool *pool, const struct err *why)
{
	pool->why = *why;
	pool->state = MEMBER_DOWN;
	log_error("pool '%s' is down: %s", pool->name, why->msg);
}

/* Opens recorded disks. After a kill the kernel may hold the dead process's disks for a moment, until its io_uring is torn
 * down, so one that is in use is tried again for BUSY_WAIT_MS. One that is not there the pool may do without. */
static int open_when_free(struct daemon *daemon, const struct disk_request *request, struct disk_set *set,
			  struct err *err)
{
	int ret = disk_set_open_found(set, daemon, request, err);

	for (int waited_ms = 0; ret == -EBUSY && waited_ms < BUSY_WAIT_MS; waited_ms += BUSY_LOOK_MS) {
		fiber_sleep_ns(BUSY_LOOK_MS * 1000000ull);
		ret = disk_set_open_found(set, daemon, request, err);
	}
	return ret;
}

/* Opens the recorded disks that are there and are the pool's. why: what is wrong with the first that is not there, or "". */
static int open_recorded(struct daemon *daemon, const struct state_pool *record, struct disk_set *set, struct err *why)
{
	struct disk_request request = { .uris = (const char *const *)record->disks, .count = record->disk_count };
	int ret = open_when_free(daemon, &request, set, why);
	struct err err;

	if (ret)
		return ret;
	ret = disk_set_keep(set, record->uuid, &err);
	if (!ret)
		return 0;
	disk_set_close(set);
	if (!why->msg[0])
		*why = err;
	return ret;
}

void daemon_pool_bring_up(struct daemon *daemon, struct daemon_pool *pool)
{
	struct disk_set set;
	struct err err, missing;
	int ret = open_recorded(daemon, pool->record, &set, &missing);

	if (ret)
		err = missing;
	else
		ret = open_engine(daemon, pool, &set, &err);
	if (ret) {
		/* What the pool misses is no news if it is known why. */
		set_down(pool, ret == -ENODEV && missing.msg[0] ? &missing : &err);
		return;
	}
	if (missing.msg[0])
		log_warn("pool '%s' is opened without a disk: %s", pool->name, missing.msg);
	set_open(pool);
}

static void stop_exports(struct daemon_pool *pool)
{
	list_for_each(node, &pool->exports) {
		struct daemon_export *exp = list_entry(node, struct daemon_export, node);

		if (exp->state == MEMBER_OPEN)
			daemon_export_shut(exp);
	}
}

void daemon_pool_shut(struct daemon_pool *pool)
{
	pool->state = MEMBER_STOPPING;
	pin_wait_unused(&pool->pin);
	stop_exports(pool);
	close_engine(pool);
	pool->state = MEMBER_DOWN;
	log_info("pool '%s' is closed", pool->name);
}

/* --- create and import ------------------------------------------------------------------------------------ */

/* Records a pool that was just opened; on failure it is closed. `done` says what has happened to its disks. */
static int record_new(struct daemon *daemon, struct daemon_pool *pool, const char *done, struct err *err)
{
	int ret = daemon_record_pool(daemon, pool, err);

	if (ret == 0)
		return 0;
	close_engine(pool);
	return err_prefix(err, ret, "pool '%s' %s, but cannot be kept open", pool->name, done);
}

static int create_on(struct daemon *daemon, struct daemon_pool *pool, const struct pool_create_opts *opts,
		     const struct disk_request *request, struct err *err)
{
	struct disk_set set;
	int ret = disk_set_open(&set, daemon, request, err);

	if (ret)
		return ret;
	ret = pool_create(opts, set.disks, set.count, &pool->pool, err);
	if (ret) {
		disk_set_close(&set);
		return ret;
	}
	ret = open_volumes(daemon, pool, err);
	if (ret) {
		close_engine(pool);
		return ret;
	}
	return record_new(daemon, pool, "is created", err);
}

static int check_new_name(struct daemon *daemon, const char *name, struct err *err)
{
	if (!name_is_valid(name))
		return err_set(
			err, -EINVAL,
			"'%.64s' is not a name for a pool; use 1 to %d of A-Z a-z 0-9 . _ -, not beginning with . or -",
			name, POOL_NAME_MAX);
	if (daemon_pool_lookup(daemon, name))
		return err_set(err, -EEXIST, "there is a pool '%s' already; export it, or choose another name", name);
	return 0;
}

int daemon_pool_create(struct daemon *daemon, const struct pool_create_opts *opts, const struct disk_request *request,
		       struct err *err)
{
	struct daemon_pool *pool;
	int ret = check_new_name(daemon, opts->name, err);

	if (ret)
		return ret;
	pool = daemon_pool_new(daemon, opts->name, MEMBER_STARTING);
	if (!pool)
		return err_set(err, -ENOMEM, "no memory");
	ret = create_on(daemon, pool, opts, request, err);
	if (ret)
		daemon_pool_free(pool);
	else
		set_open(pool);
	return ret;
}

/* The known pool that the disks belong to, if it is DOWN and free to be brought up, or a new member: STARTING either way. */
static int member_for(struct daemon *daemon, const struct disk_probe *probe, struct daemon_pool **out, struct err *err)
{
	struct daemon_pool *pool = daemon_pool_lookup(daemon, probe->pool_name);
	char uuid[UUID_TEXT_BYTES];

	uuid_to_text(&probe->pool_uuid, uuid);
	if (pool && pool->record && strcmp(pool->record->uuid, uuid) != 0)
		return err_set(err, -EEXIST, "another pool '%s' is known already; export that one first", pool->name);
	if (pool && pool->state != MEMBER_DOWN)
		return err_set(err, -EEXIST, "pool '%s' is %s already", pool->name, member_state_text(pool->state));
	if (!pool)
		pool = daemon_pool_new(daemon, probe->pool_name, MEMBER_STARTING);
	if (!pool)
		return err_set(err, -ENOMEM, "no memory");
	pool->state = MEMBER_STARTING;
	*out = pool;
	return 0;
}

/* Takes or closes the disks. */
static int import_from(struct daemon *daemon, struct daemon_pool *pool, struct disk_set *set, struct err *err)
{
	int ret = open_engine(daemon, pool, set, err);

	if (ret)
		return ret;
	if (!pool->record)
		return record_new(daemon, pool, "is imported", err);
	ret = daemon_record_disks(daemon, pool, NULL, err);
	if (ret)
		close_engine(pool);
	return ret;
}

int daemon_pool_import(struct daemon *daemon, const struct disk_request *request, char name[POOL_NAME_MAX + 1],
		       struct err *err)
{
	struct daemon_pool *pool = NULL;
	struct disk_probe probe;
	struct disk_set set;
	int ret = disk_set_open(&set, daemon, request, err);

	if (ret)
		return ret;
	ret = disk_set_identify(&set, &probe, err);
	if (ret == 0)
		ret = member_for(daemon, &probe, &pool, err);
	if (ret) {
		disk_set_close(&set);
		return ret;
	}
	assert(pool);
	ret = import_from(daemon, pool, &set, err);
	if (ret == 0) {
		snprintf(name, POOL_NAME_MAX + 1, "%s", pool->name);
		set_open(pool);
	} else if (pool->record) {
		set_down(pool, err);
	} else {
		daemon_pool_free(pool);
	}
	return ret;
}

/* --- export, destroy, add --------------------------------------------------------------------------------- */

/* What forbids a pool to go. */
static int check_going(const struct daemon_pool *pool, bool force, struct err *err)
{
	if (!force && !list_empty(&pool->exports))
		return err_set(
			err, -EBUSY,
			"pool '%s' has exports ('poolctl export list' shows them); remove them first, or use --force",
			pool->name);
	return 0;
}

/* A pool that was OPEN or DOWN is STOPPING and has no user. *before: what it was, to go back to. */
static int begin_going(struct daemon *daemon, const char *name, bool force, struct daemon_pool **out,
		       enum member_state *before, struct err *err)
{
	struct daemon_pool *pool = daemon_pool_lookup(daemon, name);
	int ret;

	if (!pool)
		return err_set(err, -ENOENT, "no pool '%.64s'; 'poolctl pool list' shows those there are", name);
	if (pool->state != MEMBER_OPEN && pool->state != MEMBER_DOWN)
		return err_set(err, -EBUSY, "pool '%s' is %s", name, member_state_text(pool->state));
	ret = check_going(pool, force, err);
	if (ret)
		return ret;
	*before = pool->state;
	pool->state = MEMBER_STOPPING;
	pin_wait_unused(&pool->pin);
	ret = check_going(pool, force, err); /* a user that is gone now may have added one */
	if (ret)
		pool->state = *before;
	*out = pool;
	return ret;
}

int daemon_pool_export(struct daemon *daemon, const char *name, bool force, struct err *err)
{
	enum member_state before = MEMBER_DOWN;
	struct daemon_pool *pool = NULL;
	int ret = begin_going(daemon, name, force, &pool, &before, err);

	if (ret)
		return ret;
	assert(pool);
	ret = daemon_forget_pool(daemon, pool, err);
	if (ret) {
		pool->state = before;
		return ret;
	}
	stop_exports(pool);
	close_engine(pool);
	log_info("pool '%s' is exported", pool->name);
	daemon_pool_free(pool);
	return 0;
}

/* With no user left: stops all, wipes the labels and closes. */
static int wipe(struct daemon_pool *pool, struct err *err)
{
	int ret;

	stop_exports(pool);
	volumes_close(pool->volumes);
	pool->volumes = NULL;
	ret = pool_destroy(pool->pool, err);
	if (ret)
		pool_close(pool->pool);
	pool->pool = NULL;
	return ret;
}

int daemon_pool_destroy(struct daemon *daemon, const char *name, bool force, struct err *err)
{
	enum member_state before = MEMBER_DOWN;
	struct daemon_pool *pool = NULL;
	int ret = begin_going(daemon, name, force, &pool, &before, err);

	if (ret)
		return ret;
	assert(pool);
	if (before != MEMBER_OPEN) {
		pool->state = before;
		return err_set(err, -ENXIO,
			       "pool '%s' is down and cannot be wiped: %s ('poolctl pool export' forgets it)", name,
			       pool->why.msg);
	}
	ret = wipe(pool, err);
	if (ret == 0)
		ret = daemon_forget_pool(daemon, pool, err);
	if (ret) {
		set_down(pool, err);
		return ret;
	}
	log_info("pool '%s' is destroyed", pool->name);
	daemon_pool_free(pool);
	return 0;
}

/* The state names the disk before the disk's label names the pool. */
static int add_disk(struct daemon *daemon, struct daemon_pool *pool, struct disk_set *set, const struct pool_add_opts *opts,
		    struct err *err)
{
	struct err ignored;
	int ret = daemon_record_disks(daemon, pool, set->disks[0]->uri, err);

	if (ret)
		return ret;
	ret = pool_add_disk(pool->pool, set->disks[0], opts, err);
	if (ret && daemon_record_disks(daemon, pool, NULL, &ignored) != 0)
		log_warn("disk '%s' stays in the state of pool '%s': %s", set->disks[0]->uri, pool->name, ignored.msg);
	return ret;
}

int daemon_pool_add(struct daemon *daemon, const char *name, const struct disk_request *request,
		    const struct pool_add_opts *opts, struct err *err)
{
	struct daemon_pool *pool;
	struct disk_set set;
	int ret = daemon_pool_get(daemon, name, &pool, err);

	if (ret)
		return ret;
	fmutex_lock(&pool->change);
	ret = disk_set_open(&set, daemon, request, err);
	if (ret == 0) {
		ret = add_disk(daemon, pool, &set, opts, err);
		if (ret)
			disk_set_close(&set);
		else
			log_info("pool '%s' has disk '%s' now", pool->name, request->uris[0]);
	}
	fmutex_unlock(&pool->change);
	daemon_pool_put(pool);
	return ret;
}

/* A disk of an open pool cannot be opened again, but is known. */
static void describe_open(const struct daemon_pool *pool, const struct pool_disk_info *disk, struct disk_probe *probe)
{
	struct pool_info info;

	pool_get_info(pool->pool, &info);
	*probe = (struct disk_probe){
		.labelled = true,
		.pool_uuid = *pool_uuid(pool->pool),
		.disk_uuid = disk->uuid,
		.disk_index = disk->id,
		.disk_count = info.disk_count,
	};
	snprintf(probe->pool_name, sizeof(probe->pool_name), "%s", pool->name);
}

int daemon_disk_probe(struct daemon *daemon, const char *uri, struct disk_probe *probe, uint64_t *size_bytes,
		      struct err *err)
{
	struct disk_request request = { .uris = &uri, .count = 1 };
	struct pool_disk_info disk;
	struct daemon_pool *pool = disk_find_open(daemon, uri, &disk);
	struct disk_set set;
	int ret;

	if (pool) {
		*size_bytes = disk.size_bytes;
		describe_open(pool, &disk, probe);
		return 0;
	}
	ret = disk_set_open(&set, daemon, &request, err);
	if (ret)
		return ret;
	*size_bytes = set.disks[0]->size_bytes;
	ret = pool_probe_disk(set.disks[0], probe, err);
	disk_set_close(&set);
	return ret;
}

/* --- disk life -------------------------------------------------------------------------------------------- */

static int change_disk(struct daemon_pool *pool, uint32_t disk_id, enum daemon_disk_op op, struct err *err)
{
	switch (op) {
	case DAEMON_DISK_OFFLINE: return pool_disk_offline(pool->pool, disk_id, err);
	case DAEMON_DISK_ONLINE: return volumes_disk_online(pool->volumes, disk_id, err);
	case DAEMON_DISK_DRAIN: return volumes_disk_drain(pool->volumes, disk_id, err);
	default: return volumes_disk_remove(pool->volumes, disk_id, err);
	}
}

int daemon_disk_change(struct daemon *daemon, const char *name, uint32_t disk_id, enum daemon_disk_op op, struct err *err)
{
	static const char *const done[] = { "offline", "online", "being drained", "removed" };
	struct daemon_pool *pool;
	int ret = daemon_pool_get(daemon, name, &pool, err);

	if (ret)
		return ret;
	fmutex_lock(&pool->change);
	ret = change_disk(pool, disk_id, op, err);
	if (ret == 0 && op == DAEMON_DISK_REMOVE)
		ret = daemon_record_disks(daemon, pool, NULL, err);
	if (ret == 0)
		log_info("disk %u of pool '%s' is %s", disk_id, name, done[op]);
	fmutex_unlock(&pool->change);
	daemon_pool_put(pool);
	return ret;
}

static int replace_disk(struct daemon *daemon, struct daemon_pool *pool, uint32_t disk_id, struct disk_set *set,
			const struct pool_add_opts *opts, struct err *err)
{
	struct err ignored;
	int ret = daemon_record_disks(daemon, pool, set->disks[0]->uri, err);

	if (ret)
		return ret;
	ret = volumes_disk_replace(pool->volumes, disk_id, set->disks[0], opts, err);
	if (ret < 0)
		disk_set_close(set);
	if (ret < 0 && daemon_record_disks(daemon, pool, NULL, &ignored) != 0)
		log_warn("a disk stays in the state of pool '%s': %s", pool->name, ignored.msg);
	return ret > 0 ? -EBUSY : ret;
}

int daemon_disk_replace(struct daemon *daemon, const char *name, uint32_t disk_id, const struct disk_request *request,
			const struct pool_add_opts *opts, struct err *err)
{
	struct daemon_pool *pool;
	struct disk_set set;
	int ret = daemon_pool_get(daemon, name, &pool, err);

	if (ret)
		return ret;
	fmutex_lock(&pool->change);
	ret = disk_set_open(&set, daemon, request, err);
	if (ret == 0)
		ret = replace_disk(daemon, pool, disk_id, &set, opts, err);
	if (ret == 0)
		log_info("disk '%s' replaces disk %u of pool '%s'", request->uris[0], disk_id, name);
	fmutex_unlock(&pool->change);
	daemon_pool_put(pool);
	return ret;
}

int daemon_disk_set_domain(struct daemon *daemon, const char *name, uint32_t disk_id, const char *domain, struct err *err)
{
	struct daemon_pool *pool;
	int ret = daemon_pool_get(daemon, name, &pool, err);

	if (ret)
		return ret;
	ret = pool_disk_set_domain(pool->pool, disk_id, domain, err);
	daemon_pool_put(pool);
	return ret;
}

/* --- care --------------------------------------------------------------------------------------------------- */

void daemon_pool_tend(struct daemon *daemon, struct daemon_pool *pool)
{
	struct err err;

	fmutex_lock(&pool->change);
	if (pool->state == MEMBER_OPEN && volumes_tend(pool->volumes)) {
		log_info("a disk of pool '%s' was emptied and removed", pool->name);
		if (daemon_record_disks(daemon, pool, NULL, &err) != 0)
			log_warn("the state of pool '%s' names a disk that was removed: %s", pool->name, err.msg);
	}
	fmutex_unlock(&pool->change);
}

int daemon_scrub(struct daemon *daemon, const char *name, bool pause, struct err *err)
{
	struct daemon_pool *pool;
	int ret = daemon_pool_get(daemon, name, &pool, err);

	if (ret)
		return ret;
	if (pause)
		volumes_scrub_pause(pool->volumes);
	else
		ret = volumes_scrub(pool->volumes);
	daemon_pool_put(pool);
	return ret ? err_set(err, ret, "cannot scrub pool '%s': out of memory", name) : 0;
}
