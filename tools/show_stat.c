/* Counters, as JSON: see show.h. One object for each disk, volume, export and loop, all with totals since they were
 * opened; who wants rates asks twice. */
#include <malloc.h>
#include <stdio.h>
#include <unistd.h>

#include "tools/json_text.h"
#include "tools/show_int.h"

/* Members of struct volume_counters that are single numbers. */
#define VOLUME_COUNTERS(X)    \
	X(data_bytes_written) \
	X(meta_bytes_written) \
	X(throttled)          \
	X(throttled_ns)       \
	X(batches)            \
	X(checkpoints)        \
	X(cleaned_segments)   \
	X(map_cache_hits)     \
	X(map_cache_misses)   \
	X(checksum_errors)

/* {"ios":, "bytes":, "errors":} under the operation's name. */
static void show_operation(json_t **object, const char *name, uint64_t ios, uint64_t bytes, uint64_t errors)
{
	json_t *operation = json_object();

	show_number(&operation, "ios", ios);
	show_number(&operation, "bytes", bytes);
	show_number(&operation, "errors", errors);
	show_put(object, name, operation);
}

/* --- disks ------------------------------------------------------------------------------------------------ */

static const char *const disk_ops_text[DISK_OP_COUNT] = {
	[DISK_READ] = "read",
	[DISK_WRITE] = "write",
	[DISK_FLUSH] = "flush",
	[DISK_DISCARD] = "discard",
};

static json_t *disk_stat(const struct daemon_pool *pool, uint32_t index)
{
	json_t *json = json_object();
	struct pool_disk_info info;

	pool_get_disk_info(pool->pool, index, &info);
	show_text(&json, "pool", pool->name);
	show_text(&json, "disk", info.uri);
	show_text(&json, "state", info.state);
	for (int op = 0; op < DISK_OP_COUNT; op++)
		show_operation(&json, disk_ops_text[op], info.counters.ios[op], info.counters.bytes[op],
			       info.counters.errors[op]);
	return json;
}

static void append_disks(json_t **array, struct daemon_pool *pool)
{
	struct pool_info info;

	pool_get_info(pool->pool, &info);
	for (uint32_t i = 0; i < info.disk_count; i++)
		show_append(array, disk_stat(pool, i));
}

/* --- volumes and exports ---------------------------------------------------------------------------------- */

static const char *const volume_ops_text[VIO_OP_COUNT] = {
	[VIO_READ] = "read",
	[VIO_WRITE] = "write",
	[VIO_FLUSH] = "flush",
	[VIO_DISCARD] = "discard",
	[VIO_WRITE_ZEROES] = "write_zeroes",
};

static json_t *image_stat(const struct daemon_pool *pool, const struct volume_info *info)
{
	const struct volume_counters *counters = &info->counters;
	json_t *json = json_object();

	show_image_name(&json, "volume", pool, info->name);
	show_text(&json, "state", show_volume_state(info));
	for (int op = 0; op < VIO_OP_COUNT; op++)
		show_operation(&json, volume_ops_text[op], counters->ios[op], counters->bytes[op],
			       counters->errors[op]);
#define X(member) show_number(&json, #member, counters->member);
	VOLUME_COUNTERS(X)
#undef X
	return json;
}

/* A snapshot only while it is open: nothing happens to it otherwise. */
static void append_image(json_t **array, struct daemon_pool *pool, const struct volume_info *info)
{
	if (!info->snapshot || info->opens > 0)
		show_append(array, image_stat(pool, info));
}

static void append_volumes(json_t **array, struct daemon_pool *pool)
{
	show_each_image(array, pool, append_image);
}

static json_t *export_stat(const struct daemon_pool *pool, struct daemon_export *exp)
{
	struct export_info info = { 0 };
	json_t *json = json_object();

	if (exp->state == MEMBER_OPEN)
		export_get_info(exp->export, &info);
	show_image_name(&json, "volume", pool, exp->record->volume);
	show_text(&json, "address", exp->record->address);
	show_flag(&json, "connected", info.connected);
	show_number(&json, "sessions", info.sessions);
	show_number(&json, "requests", info.requests);
	show_number(&json, "bad_requests", info.bad_requests);
	show_number(&json, "broken_rings", info.broken_rings);
	show_number(&json, "turned_away", info.turned_away);
	return json;
}

static void append_exports(json_t **array, struct daemon_pool *pool)
{
	show_each_export(array, pool, export_stat);
}

static json_t *of_open_pools(struct daemon *daemon, void (*append)(json_t **array, struct daemon_pool *pool))
{
	json_t *array = json_array();

	show_each_open(daemon, &array, append);
	return array;
}

/* --- loops and memory ------------------------------------------------------------------------------------- */

struct loop_stat {
	uint32_t fibers_live, fibers_free, timers;
};

/* On the loop that is asked. */
static int read_loop(void *arg)
{
	const struct loop *loop = loop_self();
	struct loop_stat *stat = arg;

	*stat = (struct loop_stat){ loop->fibers_live, loop->fibers_free, loop->timer_count };
	return 0;
}

static json_t *show_loop(struct daemon *daemon, uint32_t index)
{
	struct loop_stat stat = { 0 };
	json_t *json = json_object();

	if (fiber_call_on(daemon->loops[index], read_loop, &stat) != 0)
		show_put(&json, "fibers", NULL);
	show_number(&json, "loop", index);
	show_put(&json, "core", json_integer(daemon->config->cpus[index]));
	show_number(&json, "fibers", stat.fibers_live);
	show_number(&json, "fibers_kept", stat.fibers_free);
	show_number(&json, "timers", stat.timers);
	return json;
}

static json_t *show_loops(struct daemon *daemon)
{
	json_t *array = json_array();

	for (uint32_t i = 0; i < daemon->loop_count; i++)
		show_append(&array, show_loop(daemon, i));
	return array;
}

static uint64_t resident_bytes(void)
{
	unsigned long long total, resident = 0;
	FILE *file = fopen("/proc/self/statm", "re");

	if (!file)
		return 0;
	if (fscanf(file, "%llu %llu", &total, &resident) != 2)
		resident = 0;
	fclose(file);
	return resident * (uint64_t)sysconf(_SC_PAGESIZE);
}

static json_t *show_memory(void)
{
	struct mallinfo2 info = mallinfo2();
	json_t *json = json_object();

	show_number(&json, "resident_bytes", resident_bytes());
	show_number(&json, "heap_bytes", info.uordblks + info.hblkhd);
	show_number(&json, "heap_free_bytes", info.fordblks);
	return json;
}

json_t *show_stat(struct daemon *daemon)
{
	json_t *json = json_object();

	show_number(&json, "time_ns", loop_now_ns(daemon->loops[0]));
	show_put(&json, "disks", of_open_pools(daemon, append_disks));
	show_put(&json, "volumes", of_open_pools(daemon, append_volumes));
	show_put(&json, "exports", of_open_pools(daemon, append_exports));
	show_put(&json, "loops", show_loops(daemon));
	show_put(&json, "memory", show_memory());
	return json;
}
