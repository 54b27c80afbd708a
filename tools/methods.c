/* The control socket's methods. Each takes its parameters, calls the registry (daemon.h) and answers with what there is
 * now (show.h). A new method: one function, one line in the table at the end.
 *
 * Sizes are bytes. A method that changes something answers with the object it changed. */
#include "tools/methods.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "pool/disks/disk_discover.h"
#include "tools/daemon.h"
#include "tools/show.h"

/* Answers with json, which must be there. */
static int give(json_t *json, json_t **result, struct err *err)
{
	*result = json;
	return json ? 0 : err_set(err, -ENOMEM, "no memory for the answer");
}

/* --- pools ------------------------------------------------------------------------------------------------ */

/* The pool in full after a change; without it the answer is {}. */
static json_t *shown_pool(struct daemon *daemon, const char *name)
{
	struct daemon_pool *pool;
	json_t *json;

	if (daemon_pool_find(daemon, name, &pool, NULL) != 0)
		return NULL;
	json = show_pool(pool, true);
	daemon_pool_put(pool);
	return json;
}

static int pool_create_method(void *daemon, struct params *params, json_t **result, struct err *err)
{
	const char *uris[POOL_DISKS_MAX];
	struct pool_create_opts opts = {
		.name = param_text(params, "name"),
		.zone_bytes = (uint32_t)param_u64_or(params, "zone_bytes", ZONE_BYTES_MAX, 0),
		.force = param_flag(params, "force"),
	};
	struct disk_request disks = {
		.uris = uris,
		.count = param_texts(params, "disks", uris, POOL_DISKS_MAX),
		.create_bytes = param_u64_or(params, "create_bytes", INT64_MAX, 0),
		.preallocate = param_flag(params, "preallocate"),
	};
	int ret = params_end(params);

	if (ret == 0)
		ret = daemon_pool_create(daemon, &opts, &disks, err);
	if (ret == 0)
		*result = shown_pool(daemon, opts.name);
	return ret;
}

static int pool_import_method(void *daemon, struct params *params, json_t **result, struct err *err)
{
	const char *uris[POOL_DISKS_MAX];
	struct disk_request disks = { .uris = uris, .count = param_texts(params, "disks", uris, POOL_DISKS_MAX) };
	char name[POOL_NAME_MAX + 1];
	int ret = params_end(params);

	if (ret == 0)
		ret = daemon_pool_import(daemon, &disks, name, err);
	if (ret == 0)
		*result = shown_pool(daemon, name);
	return ret;
}

static int pool_list_method(void *daemon, struct params *params, json_t **result, struct err *err)
{
	int ret = params_end(params);

	return ret ? ret : give(show_pools(daemon), result, err);
}

static int pool_show_method(void *daemon, struct params *params, json_t **result, struct err *err)
{
	const char *name = param_text(params, "pool");
	struct daemon_pool *pool;
	int ret = params_end(params);

	if (ret == 0)
		ret = daemon_pool_find(daemon, name, &pool, err);
	if (ret)
		return ret;
	ret = give(show_pool(pool, true), result, err);
	daemon_pool_put(pool);
	return ret;
}

static int pool_export_method(void *daemon, struct params *params, json_t **result, struct err *err)
{
	const char *name = param_text(params, "pool");
	bool force = param_flag(params, "force");
	int ret = params_end(params);

	return ret ? ret : daemon_pool_export(daemon, name, force, err);
}

static int pool_destroy_method(void *daemon, struct params *params, json_t **result, struct err *err)
{
	const char *name = param_text(params, "pool");
	bool force = param_flag(params, "force");
	int ret = params_end(params);

	return ret ? ret : daemon_pool_destroy(daemon, name, force, err);
}

static int pool_add_method(void *daemon, struct params *params, json_t **result, struct err *err)
{
	const char *name = param_text(params, "pool");
	const char *uri = param_text(params, "disk");
	bool force = param_flag(params, "force");
	struct disk_request disk = {
		.uris = &uri,
		.count = 1,
		.create_bytes = param_u64_or(params, "create_bytes", INT64_MAX, 0),
		.preallocate = param_flag(params, "preallocate"),
	};
	int ret = params_end(params);

	if (ret == 0)
		ret = daemon_pool_add(daemon, name, &disk, force, err);
	if (ret == 0)
		*result = shown_pool(daemon, name);
	return ret;
}

static int disk_probe_method(void *daemon, struct params *params, json_t **result, struct err *err)
{
	const char *uri = param_text(params, "disk");
	struct disk_probe probe;
	uint64_t size_bytes;
	int ret = params_end(params);

	if (ret == 0)
		ret = daemon_disk_probe(daemon, uri, &probe, &size_bytes, err);
	if (ret == 0)
		*result = show_probe(uri, size_bytes, &probe);
	return ret;
}

struct discovery {
	struct disk_finder finder;
	json_t *list;
};

static void discovered(struct disk_finder *finder, const char *uri, uint64_t size_bytes, const char *why)
{
	json_array_append_new(container_of(finder, struct discovery, finder)->list,
			      json_pack("{s:s, s:I, s:s}", "disk", uri, "size_bytes", (json_int_t)size_bytes, "why", why));
}

static int disk_discover_method(void *daemon, struct params *params, json_t **result, struct err *err)
{
	const char *server = param_text(params, "server");
	struct discovery discovery = { .finder.found = discovered };
	int ret = params_end(params);

	if (ret)
		return ret;
	discovery.list = json_array();
	ret = disk_discover(server, &discovery.finder, err);
	if (ret)
		json_decref(discovery.list);
	else
		*result = discovery.list;
	return ret;
}

static int disk_change(void *daemon, struct params *params, enum daemon_disk_op op, json_t **result, struct err *err)
{
	const char *name = param_text(params, "pool");
	uint32_t disk_id = (uint32_t)param_u64(params, "id", POOL_DISKS_MAX - 1);
	int ret = params_end(params);

	if (ret == 0)
		ret = daemon_disk_change(daemon, name, disk_id, op, err);
	if (ret == 0)
		*result = shown_pool(daemon, name);
	return ret;
}

static int disk_offline_method(void *daemon, struct params *params, json_t **result, struct err *err)
{
	return disk_change(daemon, params, DAEMON_DISK_OFFLINE, result, err);
}

static int disk_online_method(void *daemon, struct params *params, json_t **result, struct err *err)
{
	return disk_change(daemon, params, DAEMON_DISK_ONLINE, result, err);
}

static int disk_remove_method(void *daemon, struct params *params, json_t **result, struct err *err)
{
	return disk_change(daemon, params, DAEMON_DISK_REMOVE, result, err);
}

static int scrub_start_method(void *daemon, struct params *params, json_t **result, struct err *err)
{
	const char *name = param_text(params, "pool");
	int ret = params_end(params);

	(void)result;
	return ret ? ret : daemon_scrub(daemon, name, err);
}

static int scrub_status_method(void *daemon, struct params *params, json_t **result, struct err *err)
{
	const char *name = param_text(params, "pool");
	struct mend_info info;
	struct daemon_pool *pool;
	int ret = params_end(params);

	if (ret == 0)
		ret = daemon_pool_get(daemon, name, &pool, err);
	if (ret)
		return ret;
	ret = volumes_mend_info(pool->volumes, &info);
	daemon_pool_put(pool);
	if (ret)
		return err_set(err, ret, "out of memory");
	return give(json_pack("{s:b, s:I, s:I, s:I}", "running", info.running, "blocks", (json_int_t)info.blocks, "mended",
			      (json_int_t)info.mended, "lost_blocks", (json_int_t)info.lost),
		    result, err);
}

/* --- volumes ---------------------------------------------------------------------------------------------- */

static int image_json(struct daemon *daemon, const char *name, enum image_kind kind, bool measure, json_t **result,
		      struct err *err)
{
	struct daemon_pool *pool;
	struct image_path path;
	int ret = image_path_parse(name, kind, &path, err);

	if (ret == 0)
		ret = daemon_pool_get(daemon, path.pool, &pool, err);
	if (ret)
		return ret;
	ret = show_image(pool, path.image, measure, result, err);
	daemon_pool_put(pool);
	return ret;
}

/* The volume or snapshot after a change; without it the answer is {}. */
static json_t *shown_image(struct daemon *daemon, const char *name)
{
	json_t *json = NULL;

	return image_json(daemon, name, IMAGE_EITHER, false, &json, NULL) == 0 ? json : NULL;
}

static int volume_create_method(void *daemon, struct params *params, json_t **result, struct err *err)
{
	const char *name = param_text(params, "volume");
	uint64_t size_bytes = param_u64(params, "size_bytes", VOLUME_SIZE_MAX);
	const char *policy = param_text_or(params, "policy", "plain");
	int ret = params_end(params);

	if (ret == 0)
		ret = daemon_volume_create(daemon, name, size_bytes, policy, err);
	if (ret == 0)
		*result = shown_image(daemon, name);
	return ret;
}

static int volume_list_method(void *daemon, struct params *params, json_t **result, struct err *err)
{
	const char *name = param_text_or(params, "pool", NULL);
	struct daemon_pool *pool = NULL;
	int ret = params_end(params);

	if (ret == 0 && name)
		ret = daemon_pool_get(daemon, name, &pool, err);
	if (ret)
		return ret;
	ret = give(show_volumes(daemon, pool), result, err);
	if (pool)
		daemon_pool_put(pool);
	return ret;
}

static int volume_show_method(void *daemon, struct params *params, json_t **result, struct err *err)
{
	const char *name = param_text(params, "volume");
	int ret = params_end(params);

	return ret ? ret : image_json(daemon, name, IMAGE_VOLUME, true, result, err);
}

static int volume_resize_method(void *daemon, struct params *params, json_t **result, struct err *err)
{
	bool absolute = param_given(params, "size_bytes");
	const char *name = param_text(params, "volume");
	struct resize_request request = {
		.relative = param_given(params, "delta_bytes"),
		.size_bytes = param_u64_or(params, "size_bytes", VOLUME_SIZE_MAX, 0),
		.delta_bytes = param_delta(params, "delta_bytes", VOLUME_SIZE_MAX),
		.force = param_flag(params, "force"),
	};
	int ret = params_end(params);

	if (ret == 0 && absolute == request.relative)
		ret = err_set(err, -EINVAL, "give the volume's new 'size_bytes' or its 'delta_bytes'");
	if (ret == 0)
		ret = daemon_volume_resize(daemon, name, &request, err);
	if (ret == 0)
		*result = shown_image(daemon, name);
	return ret;
}

static int volume_rename_method(void *daemon, struct params *params, json_t **result, struct err *err)
{
	const char *name = param_text(params, "volume");
	const char *new_name = param_text(params, "new_name");
	int ret = params_end(params);

	return ret ? ret : daemon_volume_rename(daemon, name, new_name, err);
}

static int volume_fence_method(void *daemon, struct params *params, json_t **result, struct err *err)
{
	const char *name = param_text(params, "volume");
	int ret = params_end(params);

	if (ret == 0)
		ret = daemon_volume_fence(daemon, name, err);
	if (ret == 0)
		*result = shown_image(daemon, name);
	return ret;
}

static int volume_delete_method(void *daemon, struct params *params, json_t **result, struct err *err)
{
	const char *name = param_text(params, "volume");
	bool with_snapshots = param_flag(params, "snapshots");
	int ret = params_end(params);

	return ret ? ret : daemon_volume_delete(daemon, name, with_snapshots, err);
}

static int clone_method(void *daemon, struct params *params, json_t **result, struct err *err)
{
	const char *from = param_text(params, "from");
	const char *name = param_text(params, "volume");
	int ret = params_end(params);

	if (ret == 0)
		ret = daemon_clone(daemon, from, name, err);
	if (ret == 0)
		*result = shown_image(daemon, name);
	return ret;
}

/* --- snapshots -------------------------------------------------------------------------------------------- */

static int snapshot_create_method(void *daemon, struct params *params, json_t **result, struct err *err)
{
	const char *names[VOLUME_SNAPSHOTS_MAX];
	uint32_t count = param_texts(params, "snapshots", names, VOLUME_SNAPSHOTS_MAX);
	int ret = params_end(params);

	if (ret == 0)
		ret = daemon_snapshot_create(daemon, names, count, err);
	if (ret)
		return ret;
	*result = json_array();
	for (uint32_t i = 0; i < count; i++)
		json_array_append_new(*result, shown_image(daemon, names[i])); /* unless it is gone */
	return 0;
}

/* All, or those of a pool, or of a volume. */
static int snapshot_list_method(void *daemon, struct params *params, json_t **result, struct err *err)
{
	const char *pool_name = param_text_or(params, "pool", NULL);
	const char *volume = param_text_or(params, "volume", NULL);
	struct image_path path = { .pool = "" };
	struct daemon_pool *pool = NULL;
	struct volume_info info;
	int ret = params_end(params);

	if (ret == 0 && pool_name && volume)
		ret = err_set(err, -EINVAL, "give the snapshots' 'pool' or their 'volume', or none");
	if (ret == 0 && volume)
		ret = image_path_parse(volume, IMAGE_VOLUME, &path, err);
	if (ret == 0 && (pool_name || volume))
		ret = daemon_pool_get(daemon, volume ? path.pool : pool_name, &pool, err);
	if (ret)
		return ret;
	if (volume)
		ret = volume_get_info(pool->volumes, path.image, &info, err);
	if (ret == 0)
		ret = give(show_snapshots(daemon, pool, volume ? path.image : NULL), result, err);
	if (pool)
		daemon_pool_put(pool);
	return ret;
}

static int snapshot_show_method(void *daemon, struct params *params, json_t **result, struct err *err)
{
	const char *name = param_text(params, "snapshot");
	int ret = params_end(params);

	return ret ? ret : image_json(daemon, name, IMAGE_SNAPSHOT, true, result, err);
}

static int snapshot_rename_method(void *daemon, struct params *params, json_t **result, struct err *err)
{
	const char *name = param_text(params, "snapshot");
	const char *new_name = param_text(params, "new_name");
	int ret = params_end(params);

	return ret ? ret : daemon_snapshot_rename(daemon, name, new_name, err);
}

static int snapshot_delete_method(void *daemon, struct params *params, json_t **result, struct err *err)
{
	const char *name = param_text(params, "snapshot");
	int ret = params_end(params);

	return ret ? ret : daemon_snapshot_delete(daemon, name, err);
}

static int snapshot_rollback_method(void *daemon, struct params *params, json_t **result, struct err *err)
{
	const char *name = param_text(params, "snapshot");
	int ret = params_end(params);

	return ret ? ret : daemon_snapshot_rollback(daemon, name, err);
}

static json_t *diff_ranges(const struct diff_page *page)
{
	json_t *ranges = json_array();

	for (uint32_t i = 0; i < page->count; i++) {
		const struct diff_range *r = &page->range[i];

		json_array_append_new(ranges, json_pack("{s:I, s:I, s:b}", "offset", (json_int_t)r->off_bytes, "length",
							(json_int_t)r->len_bytes, "data", r->data));
	}
	if (json_array_size(ranges) == page->count)
		return ranges;
	json_decref(ranges);
	return NULL;
}

static int snapshot_diff_method(void *daemon, struct params *params, json_t **result, struct err *err)
{
	const char *from = param_text(params, "from");
	const char *to = param_text_or(params, "to", NULL);
	uint64_t offset = param_u64_or(params, "offset", VOLUME_SIZE_MAX, 0);
	struct diff_page *page;
	int ret = params_end(params);

	if (ret == 0)
		ret = daemon_snapshot_diff(daemon, from, to, offset, &page, err);
	if (ret)
		return ret;
	ret = give(json_pack("{s:I, s:I, s:o}", "size_bytes", (json_int_t)page->size_bytes, "next_offset",
			     (json_int_t)page->next_bytes, "ranges", diff_ranges(page)),
		   result, err);
	free(page);
	return ret;
}

/* --- receiving -------------------------------------------------------------------------------------------- */

static int parse_guid(const char *text, struct uuid *guid, struct err *err)
{
	return uuid_from_text(text, guid) ? 0 : err_set(err, -EINVAL, "'%.64s' is no GUID of a snapshot", text);
}

static struct receive_mark param_mark(struct params *params)
{
	return (struct receive_mark){
		.seq = param_u64(params, "seq", INT64_MAX),
		.crc = (uint32_t)param_u64(params, "crc", UINT32_MAX),
	};
}

static int receive_begin_method(void *daemon, struct params *params, json_t **result, struct err *err)
{
	const char *base = param_text_or(params, "base", NULL);
	struct receive_request request = {
		.volume = param_text(params, "volume"),
		.size_bytes = base ? 0 : param_u64(params, "size_bytes", VOLUME_SIZE_MAX),
		.policy = base ? NULL : param_text(params, "policy"),
	};
	struct uuid guid;
	int ret = params_end(params);

	if (ret == 0 && base)
		ret = parse_guid(base, &guid, err);
	if (base)
		request.base = &guid;
	return ret ? ret : daemon_receive_begin(daemon, &request, err);
}

static int receive_show_method(void *daemon, struct params *params, json_t **result, struct err *err)
{
	const char *volume = param_text(params, "volume");
	struct receive_mark mark;
	int ret = params_end(params);

	if (ret == 0)
		ret = daemon_receive_get_mark(daemon, volume, &mark, err);
	return ret ? ret : give(json_pack("{s:I, s:I}", "seq", (json_int_t)mark.seq, "crc", (json_int_t)mark.crc), result, err);
}

static int receive_mark_method(void *daemon, struct params *params, json_t **result, struct err *err)
{
	const char *volume = param_text(params, "volume");
	struct receive_mark mark = param_mark(params);
	int ret = params_end(params);

	return ret ? ret : daemon_receive_set_mark(daemon, volume, mark, err);
}

static int receive_snapshot_method(void *daemon, struct params *params, json_t **result, struct err *err)
{
	const char *name = param_text(params, "snapshot"), *guid_text = param_text(params, "guid");
	uint64_t created_s = param_u64(params, "created_s", INT64_MAX);
	struct receive_mark mark = param_mark(params);
	struct uuid guid;
	int ret = params_end(params);

	if (ret == 0)
		ret = parse_guid(guid_text, &guid, err);
	if (ret == 0)
		ret = daemon_receive_snapshot(daemon, name, &guid, created_s, mark, err);
	if (ret == 0)
		*result = shown_image(daemon, name);
	return ret;
}

static int receive_end_method(void *daemon, struct params *params, json_t **result, struct err *err)
{
	const char *volume = param_text(params, "volume");
	int ret = params_end(params);

	if (ret == 0)
		ret = daemon_receive_end(daemon, volume, err);
	if (ret == 0)
		*result = shown_image(daemon, volume);
	return ret;
}

/* --- exports ---------------------------------------------------------------------------------------------- */

static int export_add_method(void *daemon, struct params *params, json_t **result, struct err *err)
{
	bool temporary = param_flag(params, "temporary");
	struct export_request request = {
		.image = param_text(params, "volume"),
		.kind = param_text(params, "kind"),
		.address = temporary ? NULL : param_text(params, "address"),
		.queues = (uint32_t)param_u64_or(params, "queues", EXPORT_QUEUES_MAX, 0),
		.read_only = param_flag(params, "read_only"),
		.standby = param_flag(params, "standby"),
		.tls_certs = param_text_or(params, "tls_certs", NULL),
		.tls_psk = param_text_or(params, "tls_psk", NULL),
		.temporary = temporary,
		.receiving = param_flag(params, "receiving"),
	};
	int ret = params_end(params);

	if (ret == 0)
		ret = daemon_export_add(daemon, &request, err);
	if (ret == 0)
		*result = show_export(daemon, request.address);
	return ret;
}

static int export_list_method(void *daemon, struct params *params, json_t **result, struct err *err)
{
	int ret = params_end(params);

	return ret ? ret : give(show_exports(daemon), result, err);
}

static int export_remove_method(void *daemon, struct params *params, json_t **result, struct err *err)
{
	const char *volume = param_text_or(params, "volume", NULL);
	const char *address = param_text_or(params, "address", NULL);
	int ret = params_end(params);

	if (ret)
		return ret;
	if (!volume == !address)
		return err_set(err, -EINVAL, "give the export's 'volume' or its 'address'");
	return daemon_export_remove(daemon, volume, address, err);
}

/* --- the daemon ------------------------------------------------------------------------------------------- */

static int status_method(void *daemon, struct params *params, json_t **result, struct err *err)
{
	int ret = params_end(params);

	return ret ? ret : give(show_status(daemon), result, err);
}

static int stat_method(void *daemon, struct params *params, json_t **result, struct err *err)
{
	int ret = params_end(params);

	return ret ? ret : give(show_stat(daemon), result, err);
}

static int retry_method(void *daemon, struct params *params, json_t **result, struct err *err)
{
	int ret = params_end(params);

	if (ret)
		return ret;
	daemon_retry(daemon);
	return give(show_status(daemon), result, err);
}

static int help_method(void *daemon, struct params *params, json_t **result, struct err *err)
{
	int ret = params_end(params);

	if (ret == 0)
		ret = give(json_object(), result, err);
	for (size_t i = 0; ret == 0 && i < method_count; i++)
		json_object_set_new(*result, methods[i].name, json_string(methods[i].help));
	return ret;
}

/* --- the table -------------------------------------------------------------------------------------------- */

const struct jsonrpc_method methods[] = {
	{ "pool.create", pool_create_method,
	  "name, disks[, zone_bytes, force, create_bytes, preallocate]: format a pool" },
	{ "pool.import", pool_import_method, "disks: open a pool from its disks" },
	{ "pool.list", pool_list_method, "all pools" },
	{ "pool.show", pool_show_method, "pool: one pool and its disks" },
	{ "pool.export", pool_export_method, "pool[, force]: close a pool and forget it" },
	{ "pool.destroy", pool_destroy_method, "pool[, force]: wipe a pool" },
	{ "pool.add", pool_add_method, "pool, disk[, force, create_bytes, preallocate]: add a disk" },
	{ "disk.probe", disk_probe_method, "disk: what a disk holds" },
	{ "disk.discover", disk_discover_method, "server: what disks an iSCSI portal or NBD server offers" },
	{ "disk.offline", disk_offline_method, "pool, id: go on without a disk" },
	{ "disk.online", disk_online_method, "pool, id: take a disk back and mend what it missed" },
	{ "disk.remove", disk_remove_method, "pool, id: make a disk's columns anew elsewhere and drop it" },
	{ "scrub.start", scrub_start_method, "pool: verify everything and mend what is wrong" },
	{ "scrub.status", scrub_status_method, "pool: what scrubs and mending did since the import" },
	{ "volume.create", volume_create_method, "volume, size_bytes[, policy]: make a thin volume" },
	{ "volume.list", volume_list_method, "[pool]: volumes of open pools" },
	{ "volume.show", volume_show_method, "volume: one volume" },
	{ "volume.resize", volume_resize_method, "volume, size_bytes or delta_bytes[, force]: change the size" },
	{ "volume.rename", volume_rename_method, "volume, new_name: change the name" },
	{ "volume.fence", volume_fence_method, "volume: whoever writes it may not go on" },
	{ "volume.delete", volume_delete_method, "volume[, snapshots]: delete a volume and its data" },
	{ "clone", clone_method, "from, volume: make a volume from a snapshot or a volume" },
	{ "snapshot.create", snapshot_create_method, "snapshots: make snapshots of volumes of a pool, at one instant" },
	{ "snapshot.list", snapshot_list_method, "[pool or volume]: snapshots of volumes of open pools" },
	{ "snapshot.show", snapshot_show_method, "snapshot: one snapshot" },
	{ "snapshot.rename", snapshot_rename_method, "snapshot, new_name: change the name" },
	{ "snapshot.delete", snapshot_delete_method, "snapshot: delete a snapshot" },
	{ "snapshot.rollback", snapshot_rollback_method, "snapshot: give its volume back what the snapshot holds" },
	{ "snapshot.diff", snapshot_diff_method,
	  "from[, to, offset]: ranges in which an image, or the volume now, differs from a snapshot; a page of them" },
	{ "receive.begin", receive_begin_method,
	  "volume, and base, or size_bytes and policy: what a volume holds is to come from elsewhere" },
	{ "receive.show", receive_show_method, "volume: how far that is" },
	{ "receive.mark", receive_mark_method, "volume, seq, crc: it is so far, durably" },
	{ "receive.snapshot", receive_snapshot_method, "snapshot, guid, created_s, seq, crc: the volume holds all of this snapshot" },
	{ "receive.end", receive_end_method, "volume: all has come" },
	{ "export.add", export_add_method,
	  "volume, kind, address[, queues, read_only, standby, tls_certs, tls_psk]: serve a volume, or a snapshot read-only; with temporary "
	  "and no address until its last client has gone" },
	{ "export.list", export_list_method, "all exports" },
	{ "export.remove", export_remove_method, "volume or address: stop serving" },
	{ "status", status_method, "the daemon, its pools and exports" },
	{ "stat", stat_method, "counters of disks, volumes, exports, loops and memory" },
	{ "retry", retry_method, "try again to bring up what is down; answers as status does" },
	{ "help", help_method, "these lines" },
};

const size_t method_count = sizeof(methods) / sizeof(methods[0]);
