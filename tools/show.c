/* What the registry holds, as JSON: see show.h. Counters are show_stat.c's.
 *
 * Lists change while one waits, so every member is pinned before anything is asked of it. */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "tools/json_text.h"
#include "tools/show_int.h"
#include "tools/version.h"

/* --- making ----------------------------------------------------------------------------------------------- */

void show_put(json_t **object, const char *key, json_t *value)
{
	if (!*object) {
		json_decref(value);
		return;
	}
	if (json_object_set_new(*object, key, value) == 0)
		return;
	json_decref(*object);
	*object = NULL;
}

void show_number(json_t **object, const char *key, uint64_t value)
{
	show_put(object, key, json_integer((json_int_t)value));
}

void show_text(json_t **object, const char *key, const char *text)
{
	show_put(object, key, json_text_string(text));
}

void show_flag(json_t **object, const char *key, bool flag)
{
	show_put(object, key, json_boolean(flag));
}

void show_append(json_t **array, json_t *value)
{
	if (!*array) {
		json_decref(value);
		return;
	}
	if (json_array_append_new(*array, value) == 0)
		return;
	json_decref(*array);
	*array = NULL;
}

void show_image_name(json_t **object, const char *key, const struct daemon_pool *pool, const char *image)
{
	show_put(object, key, json_sprintf("%s/%s", pool->name, image));
}

static void show_uuid(json_t **object, const char *key, const struct uuid *uuid)
{
	char text[UUID_TEXT_BYTES];

	uuid_to_text(uuid, text);
	show_text(object, key, text);
}

/* --- walking ---------------------------------------------------------------------------------------------- */

void show_each_open(struct daemon *daemon, json_t **array, void (*fn)(json_t **array, struct daemon_pool *pool))
{
	list_for_each(node, &daemon->pools) {
		struct daemon_pool *pool = list_entry(node, struct daemon_pool, node);

		if (pool->state != MEMBER_OPEN)
			continue;
		pin_take(&pool->pin);
		fn(array, pool);
		pin_drop(&pool->pin);
	}
}

void show_each_export(json_t **array, struct daemon_pool *pool,
		      json_t *(*fn)(const struct daemon_pool *pool, struct daemon_export *exp))
{
	list_for_each(node, &pool->exports) {
		struct daemon_export *exp = list_entry(node, struct daemon_export, node);

		pin_take(&exp->pin);
		show_append(array, fn(pool, exp));
		pin_drop(&exp->pin);
	}
}

struct image_walk {
	json_t **array;
	struct daemon_pool *pool;
	void (*fn)(json_t **array, struct daemon_pool *pool, const struct volume_info *info);
};

static int visit_image(void *arg, const struct volume_info *info)
{
	struct image_walk *walk = arg;

	walk->fn(walk->array, walk->pool, info);
	return 0;
}

void show_each_image(json_t **array, struct daemon_pool *pool,
		     void (*fn)(json_t **array, struct daemon_pool *pool, const struct volume_info *info))
{
	struct image_walk walk = { array, pool, fn };

	if (volume_for_each(pool->volumes, visit_image, &walk) != 0)
		show_append(array, NULL);
}

/* --- pools ------------------------------------------------------------------------------------------------ */

static json_t *show_disk(const struct daemon_pool *pool, uint32_t index)
{
	struct pool_disk_info info;
	struct pool_info pool_info;
	json_t *json = json_object();

	pool_get_info(pool->pool, &pool_info);
	pool_get_disk_info(pool->pool, index, &info);
	show_text(&json, "disk", info.uri);
	show_number(&json, "id", info.id);
	show_uuid(&json, "uuid", &info.uuid);
	show_text(&json, "state", info.state);
	if (info.why)
		show_text(&json, "error", info.why);
	show_number(&json, "size_bytes", info.size_bytes);
	show_number(&json, "free_bytes", info.zones_free * pool_info.zone_bytes);
	show_number(&json, "mended_blocks", info.mended_blocks);
	return json;
}

static json_t *show_disks(const struct daemon_pool *pool, uint32_t count)
{
	json_t *array = json_array();

	for (uint32_t i = 0; i < count; i++)
		show_append(&array, show_disk(pool, i));
	return array;
}

/* The disks a pool that is not open is looked for on. */
static json_t *show_recorded_disks(const struct daemon_pool *pool)
{
	json_t *array = json_array();

	for (uint32_t i = 0; pool->record && i < pool->record->disk_count; i++)
		show_append(&array, json_pack("{s:o}", "disk", json_text_string(pool->record->disks[i])));
	return array;
}

static size_t count_exports(const struct daemon_pool *pool)
{
	size_t count = 0;

	list_for_each(node, &pool->exports)
		count++;
	return count;
}

/* What was deleted and has not come back yet. */
static void show_reclaim(json_t **json, const struct daemon_pool *pool)
{
	uint64_t images, blocks;

	if (volumes_get_reclaim(pool->volumes, &images, &blocks) != 0) {
		show_put(json, "reclaiming_images", NULL);
		return;
	}
	show_number(json, "reclaiming_images", images);
	show_number(json, "reclaiming_bytes", blocks * BLOCK_BYTES);
}

/* Without waiting, also while a volume or a disk hangs. */
static void show_open_pool(json_t **json, struct daemon_pool *pool, bool detail)
{
	uint64_t volumes, snapshots;
	struct pool_info info;

	pool_get_info(pool->pool, &info);
	volumes_count(pool->volumes, &volumes, &snapshots);
	show_uuid(json, "uuid", pool_uuid(pool->pool));
	show_number(json, "zone_bytes", info.zone_bytes);
	show_number(json, "size_bytes", info.zones * info.zone_bytes);
	show_number(json, "free_bytes", info.zones_free * info.zone_bytes);
	show_number(json, "reserved_bytes", info.zones_reserved * info.zone_bytes);
	show_number(json, "segments", info.segments);
	show_number(json, "disk_count", info.disk_count);
	show_number(json, "volumes", volumes);
	show_number(json, "snapshots", snapshots);
	if (!detail)
		return;
	show_reclaim(json, pool);
	show_put(json, "disks", show_disks(pool, info.disk_count));
}

static void show_closed_pool(json_t **json, const struct daemon_pool *pool)
{
	if (pool->record)
		show_text(json, "uuid", pool->record->uuid);
	if (pool->state == MEMBER_DOWN)
		show_text(json, "error", pool->why.msg);
	show_put(json, "disks", show_recorded_disks(pool));
}

json_t *show_pool(struct daemon_pool *pool, bool detail)
{
	json_t *json = json_object();

	show_text(&json, "name", pool->name);
	show_text(&json, "state", member_state_text(pool->state));
	show_number(&json, "exports", count_exports(pool));
	if (pool->state == MEMBER_OPEN)
		show_open_pool(&json, pool, detail);
	else
		show_closed_pool(&json, pool);
	return json;
}

json_t *show_pools(struct daemon *daemon)
{
	json_t *array = json_array();

	list_for_each(node, &daemon->pools) {
		struct daemon_pool *pool = list_entry(node, struct daemon_pool, node);

		pin_take(&pool->pin);
		show_append(&array, show_pool(pool, false));
		pin_drop(&pool->pin);
	}
	return array;
}

json_t *show_probe(const char *uri, uint64_t size_bytes, const struct disk_probe *probe)
{
	json_t *json = json_object();

	show_text(&json, "disk", uri);
	show_number(&json, "size_bytes", size_bytes);
	show_put(&json, "pool", probe->labelled ? json_string(probe->pool_name) : json_null());
	if (probe->labelled) {
		show_uuid(&json, "pool_uuid", &probe->pool_uuid);
		show_uuid(&json, "disk_uuid", &probe->disk_uuid);
		show_number(&json, "disk_index", probe->disk_index);
		show_number(&json, "disk_count", probe->disk_count);
	} else if (probe->foreign[0]) {
		show_text(&json, "holds", probe->foreign);
	}
	return json;
}

/* --- volumes and snapshots -------------------------------------------------------------------------------- */

static json_t *policy_text(struct policy policy)
{
	char text[POLICY_TEXT_BYTES];

	return json_string(policy_to_text(policy, text));
}

const char *show_volume_state(const struct volume_info *info)
{
	if (info->failed)
		return "failed";
	if (info->parked)
		return "parked";
	return info->receiving ? "receiving" : "ok";
}

static json_t *image_addresses(const struct daemon_pool *pool, uint64_t id)
{
	json_t *array = json_array();

	list_for_each(node, &pool->exports) {
		const struct state_export *record = list_entry(node, struct daemon_export, node)->record;

		if (record->volume_id == id)
			show_append(&array, json_text_string(record->address));
	}
	return array;
}

/* Of volumes and snapshots alike. space: NULL if it was not measured. */
static void show_image_common(json_t **json, const struct daemon_pool *pool, const struct volume_info *info,
			      const struct volume_space *space)
{
	show_text(json, "pool", pool->name);
	show_number(json, "id", info->id);
	show_number(json, "size_bytes", info->size_bytes);
	show_number(json, "referenced_bytes", (space ? space->referenced_blocks : info->mapped_blocks) * BLOCK_BYTES);
	if (space) {
		show_number(json, "unique_bytes", space->unique_blocks * BLOCK_BYTES);
		show_number(json, "shared_bytes", (space->referenced_blocks - space->unique_blocks) * BLOCK_BYTES);
	}
	show_number(json, "opens", info->opens);
	show_number(json, "created_s", info->created_s);
	show_put(json, "exports", image_addresses(pool, info->id));
}

static json_t *volume_to_json(const struct daemon_pool *pool, const struct volume_info *info,
			      const struct volume_space *space)
{
	json_t *json = json_object();

	show_image_name(&json, "volume", pool, info->name);
	show_text(&json, "name", info->name);
	show_image_common(&json, pool, info, space);
	if (*info->origin)
		show_image_name(&json, "origin", pool, info->origin);
	else
		show_put(&json, "origin", json_null());
	show_number(&json, "snapshots", info->snapshots);
	show_put(&json, "policy", policy_text(info->policy));
	show_text(&json, "state", show_volume_state(info));
	show_number(&json, "segments", info->segments);
	show_number(&json, "home", info->home);
	show_number(&json, "recovery_us", info->recovery_us);
	show_number(&json, "epoch", info->epoch);
	show_put(&json, "holder", info->holder[0] ? json_text_string(info->holder) : json_null());
	show_flag(&json, "held", info->held);
	return json;
}

static json_t *snapshot_to_json(const struct daemon_pool *pool, const struct volume_info *info,
				const struct volume_space *space)
{
	const char *at = strchr(info->name, '@');
	json_t *json = json_object();

	show_image_name(&json, "snapshot", pool, info->name);
	show_put(&json, "volume", json_sprintf("%s/%.*s", pool->name, (int)(at - info->name), info->name));
	show_text(&json, "name", at + 1);
	show_uuid(&json, "guid", &info->guid);
	show_image_common(&json, pool, info, space);
	return json;
}

/* Whoever changes volumes holds `change` all the while: so this waits for others that measure at most. */
static bool measure_space(struct daemon_pool *pool, const char *name, struct volume_space *space)
{
	return !pool->change.held && volume_get_space(pool->volumes, name, space, NULL) == 0;
}

int show_image(struct daemon_pool *pool, const char *name, bool measure, json_t **out, struct err *err)
{
	struct volume_space space;
	struct volume_info info;
	bool measured = measure && measure_space(pool, name, &space);
	int ret = volume_get_info(pool->volumes, name, &info, err);

	if (ret == 0)
		*out = (info.snapshot ? snapshot_to_json : volume_to_json)(pool, &info, measured ? &space : NULL);
	return ret;
}

static void append_volume(json_t **array, struct daemon_pool *pool, const struct volume_info *info)
{
	if (!info->snapshot)
		show_append(array, volume_to_json(pool, info, NULL));
}

static void append_volumes(json_t **array, struct daemon_pool *pool)
{
	show_each_image(array, pool, append_volume);
}

json_t *show_volumes(struct daemon *daemon, struct daemon_pool *pool)
{
	json_t *array = json_array();

	if (pool)
		append_volumes(&array, pool);
	else
		show_each_open(daemon, &array, append_volumes);
	return array;
}

static void append_snapshot_name(json_t **array, struct daemon_pool *pool, const struct volume_info *info)
{
	if (info->snapshot)
		show_append(array, json_string(info->name));
}

static bool is_snapshot_of(const char *name, const char *volume)
{
	size_t len = strcspn(name, "@");

	return strlen(volume) == len && strncmp(name, volume, len) == 0;
}

/* First the names, as to measure is to wait. A snapshot that goes meanwhile is left out. */
static void append_snapshots_of(json_t **array, struct daemon_pool *pool, const char *volume)
{
	json_t *names = json_array(), *name, *json;
	size_t i;

	show_each_image(&names, pool, append_snapshot_name);
	if (!names)
		show_append(array, NULL);
	json_array_foreach(names, i, name) {
		const char *text = json_string_value(name);

		if ((!volume || is_snapshot_of(text, volume)) && show_image(pool, text, true, &json, NULL) == 0)
			show_append(array, json);
	}
	json_decref(names);
}

static void append_snapshots(json_t **array, struct daemon_pool *pool)
{
	append_snapshots_of(array, pool, NULL);
}

json_t *show_snapshots(struct daemon *daemon, struct daemon_pool *pool, const char *volume)
{
	json_t *array = json_array();

	if (pool)
		append_snapshots_of(&array, pool, volume);
	else
		show_each_open(daemon, &array, append_snapshots);
	return array;
}

/* --- exports ---------------------------------------------------------------------------------------------- */

static json_t *export_to_json(const struct daemon_pool *pool, struct daemon_export *exp)
{
	const struct state_export *record = exp->record;
	struct export_info info = {
		.read_only = record->read_only,
		.tls = record->tls_certs || record->tls_psk,
		.queues = record->queues,
	};
	json_t *json = json_object();

	show_image_name(&json, "volume", pool, record->volume);
	show_text(&json, "pool", pool->name);
	show_text(&json, "kind", record->kind);
	show_text(&json, "address", record->address);
	show_text(&json, "state", member_state_text(exp->state));
	if (exp->state == MEMBER_DOWN)
		show_text(&json, "error", exp->why.msg);
	if (exp->state == MEMBER_OPEN)
		export_get_info(exp->export, &info);
	show_flag(&json, "read_only", info.read_only);
	show_flag(&json, "tls", info.tls);
	show_flag(&json, "connected", info.connected);
	show_number(&json, "connections", info.connections);
	show_number(&json, "queues", info.queues);
	show_number(&json, "queues_running", info.queues_running);
	show_number(&json, "sessions", info.sessions);
	return json;
}

json_t *show_exports(struct daemon *daemon)
{
	json_t *array = json_array();

	list_for_each(node, &daemon->pools) {
		struct daemon_pool *pool = list_entry(node, struct daemon_pool, node);

		pin_take(&pool->pin);
		show_each_export(&array, pool, export_to_json);
		pin_drop(&pool->pin);
	}
	return array;
}

json_t *show_export(struct daemon *daemon, const char *address)
{
	json_t *all = show_exports(daemon), *found = NULL, *member;
	size_t i;

	json_array_foreach(all, i, member) {
		if (strcmp(json_string_value(json_object_get(member, "address")), address) == 0)
			found = json_incref(member);
	}
	json_decref(all);
	return found;
}

/* --- status ----------------------------------------------------------------------------------------------- */

static uint64_t uptime_s(const struct daemon *daemon)
{
	return (loop_now_ns(daemon->loops[0]) - daemon->started_ns) / 1000000000;
}

json_t *show_status(struct daemon *daemon)
{
	json_t *json = json_object();

	show_text(&json, "version", POOLD_VERSION);
	show_number(&json, "pid", (uint64_t)getpid());
	show_number(&json, "uptime_s", uptime_s(daemon));
	show_text(&json, "socket", daemon->config->socket);
	show_text(&json, "state_dir", daemon->config->state);
	show_number(&json, "loops", daemon->loop_count);
	show_number(&json, "down", daemon_count_down(daemon));
	show_put(&json, "pools", show_pools(daemon));
	show_put(&json, "exports", show_exports(daemon));
	return json;
}
