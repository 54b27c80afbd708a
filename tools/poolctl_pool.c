/* poolctl pool ... and disk ... */
#include <stdlib.h>
#include <string.h>

#include "tools/poolctl.h"

/* --- showing ---------------------------------------------------------------------------------------------- */

static void print_disks(const json_t *disks)
{
	static const char *const heads[] = { ">ID", "DISK", "STATE", "DOMAIN", ">SIZE", ">USED", ">FREE", NULL };
	struct table table;
	json_t *disk;
	size_t i;

	table_init(&table, heads);
	json_array_foreach(disks, i, disk) {
		table_cell(&table, "%llu", cli_number(disk, "id"));
		table_cell(&table, "%s", *cli_text(disk, "disk") ? cli_text(disk, "disk") : "-");
		table_cell(&table, "%s", *cli_text(disk, "state") ? cli_text(disk, "state") : "-");
		table_cell(&table, "%s", *cli_text(disk, "domain") ? cli_text(disk, "domain") : "-");
		table_cell(&table, "%s", cli_size_text(disk, "size_bytes"));
		table_cell(&table, "%s", cli_size_text(disk, "used_bytes"));
		table_cell(&table, "%s", cli_size_text(disk, "free_bytes"));
	}
	table_print(&table, stdout);
}

/* What is being made anew, or is exposed. */
static void print_redundancy(const json_t *pool)
{
	if (cli_number(pool, "rebuild_left_bytes") > 0) {
		printf("rebuild   %s to go", cli_size_text(pool, "rebuild_left_bytes"));
		if (cli_number(pool, "rebuild_bytes_per_s") > 0)
			printf(", %s/s, %llu s left", cli_size_text(pool, "rebuild_bytes_per_s"),
			       cli_number(pool, "rebuild_left_s"));
		printf("\n");
	}
	if (cli_number(pool, "domains") > 1 && cli_number(pool, "exposed_segments") > 0)
		printf("exposed   %llu segments would not survive the loss of one failure domain: too few domains have room\n",
		       cli_number(pool, "exposed_segments"));
}

static void add_row(struct table *table, const json_t *pool)
{
	table_cell(table, "%s", cli_text(pool, "name"));
	table_cell(table, "%s", cli_text(pool, "state"));
	table_cell(table, "%s", cli_size_text(pool, "size_bytes"));
	table_cell(table, "%s", cli_size_text(pool, "free_bytes"));
	if (json_object_get(pool, "size_bytes")) {
		table_cell(table, "%llu", cli_number(pool, "disk_count"));
		table_cell(table, "%llu", cli_number(pool, "volumes"));
	} else {
		table_cell(table, "%zu", json_array_size(json_object_get(pool, "disks")));
		table_cell(table, "-");
	}
	table_cell(table, "%llu", cli_number(pool, "exports"));
}

void cli_print_pools(const json_t *pools)
{
	static const char *const heads[] = {
		"POOL", "STATE", ">SIZE", ">FREE", ">DISKS", ">VOLUMES", ">EXPORTS", NULL
	};
	struct table table;
	json_t *pool;
	size_t i;

	table_init(&table, heads);
	json_array_foreach(pools, i, pool)
		add_row(&table, pool);
	table_print(&table, stdout);
}

enum cli_exit cli_pool_list(struct cli *cli)
{
	json_t *pools;
	enum cli_exit ret = cli_call(cli, "pool.list", json_object(), &pools);

	if (ret)
		return ret;
	if (!cli_print_json(cli, pools)) {
		if (json_array_size(pools) == 0)
			printf("no pools; 'poolctl pool create' makes one, 'poolctl pool import' opens one\n");
		else
			cli_print_pools(pools);
	}
	json_decref(pools);
	return CLI_OK;
}

static void print_pool(const json_t *pool)
{
	printf("pool      %s\nuuid      %s\nstate     %s\n", cli_text(pool, "name"), cli_text(pool, "uuid"),
	       cli_text(pool, "state"));
	if (*cli_text(pool, "error"))
		printf("error     %s\n", cli_text(pool, "error"));
	if (json_object_get(pool, "size_bytes"))
		printf("size      %s, %s free, %s of it reserved\nzones     of %s\nsegments  %llu\nvolumes   %llu, "
		       "snapshots %llu\n",
		       cli_size_text(pool, "size_bytes"), cli_size_text(pool, "free_bytes"),
		       cli_size_text(pool, "reserved_bytes"), cli_size_text(pool, "zone_bytes"),
		       cli_number(pool, "segments"), cli_number(pool, "volumes"), cli_number(pool, "snapshots"));
	if (*cli_text(pool, "space") && strcmp(cli_text(pool, "space"), "ok") != 0)
		printf("space     is %s: add a disk, or delete data\n", cli_text(pool, "space"));
	if (cli_number(pool, "reclaiming_images") > 0)
		printf("deleted   %llu volumes and snapshots, of which up to %s have yet to come back\n",
		       cli_number(pool, "reclaiming_images"), cli_size_text(pool, "reclaiming_bytes"));
	print_redundancy(pool);
	printf("exports   %llu\n\n", cli_number(pool, "exports"));
	print_disks(json_object_get(pool, "disks"));
}

static enum cli_exit show_errors(struct cli *cli)
{
	static const char *const heads[] = { "VOLUME", ">OFFSET", NULL };
	struct table table;
	json_t *errors, *error;
	size_t i;
	enum cli_exit ret = cli_call(cli, "pool.errors", json_pack("{s:s}", "pool", cli->args[0]), &errors);

	if (ret)
		return ret;
	table_init(&table, heads);
	json_array_foreach(errors, i, error) {
		table_cell(&table, "%s", cli_text(error, "volume"));
		table_cell(&table, "%llu", cli_number(error, "off_bytes"));
	}
	if (!cli_print_json(cli, errors)) {
		if (json_array_size(errors) == 0)
			printf("no block is known to be lost; 'poolctl scrub start' looks at all\n");
		else
			table_print(&table, stdout);
	}
	json_decref(errors);
	return CLI_OK;
}

enum cli_exit cli_pool_show(struct cli *cli)
{
	json_t *pool;
	enum cli_exit ret;

	if (cli_value(cli, "errors"))
		return show_errors(cli);
	ret = cli_call(cli, "pool.show", json_pack("{s:s}", "pool", cli->args[0]), &pool);

	if (ret)
		return ret;
	if (!cli_print_json(cli, pool))
		print_pool(pool);
	json_decref(pool);
	return CLI_OK;
}

/* --- disks as arguments ----------------------------------------------------------------------------------- */

/* The arguments from `first` on as disks. NULL: one is not UTF-8. */
static json_t *disk_array(const struct cli *cli, int first)
{
	json_t *array = json_array();

	for (int i = first; i < cli->arg_count; i++) {
		char *disk = cli_absolute_disk(cli->args[i]);
		int ret = json_array_append_new(array, disk ? json_string(disk) : NULL);

		free(disk);
		if (ret != 0) {
			json_decref(array);
			return NULL;
		}
	}
	return array;
}

/* The options that say how files are made, as parameters added to `params`. */
static enum cli_exit add_create_options(const struct cli *cli, json_t *params)
{
	uint64_t size_bytes;
	enum cli_exit ret = cli_size(cli, "create-size", 0, &size_bytes);

	if (ret)
		return ret;
	if (cli_value(cli, "preallocate") && size_bytes == 0)
		return cli_fail(cli, CLI_USAGE, 0, "--preallocate needs --create-size");
	if (params) {
		json_object_set_new(params, "force", json_boolean(cli_value(cli, "force")));
		json_object_set_new(params, "create_bytes", json_integer((json_int_t)size_bytes));
		json_object_set_new(params, "preallocate", json_boolean(cli_value(cli, "preallocate")));
	}
	return CLI_OK;
}

/* --- changing --------------------------------------------------------------------------------------------- */

enum cli_exit cli_pool_create(struct cli *cli)
{
	json_t *params, *pool;
	uint64_t zone_bytes;
	enum cli_exit ret = cli_size(cli, "zone-size", 0, &zone_bytes);

	if (ret)
		return ret;
	params = json_pack("{s:s, s:o, s:I}", "name", cli->args[0], "disks", disk_array(cli, 1), "zone_bytes",
			   (json_int_t)zone_bytes);
	ret = add_create_options(cli, params);
	if (ret) {
		json_decref(params);
		return ret;
	}
	ret = cli_call(cli, "pool.create", params, &pool);
	if (ret)
		return ret;
	if (!cli_print_json(cli, pool))
		printf("pool '%s' is made, disks: %zu, size: %s\n", cli->args[0],
		       json_array_size(json_object_get(pool, "disks")), cli_size_text(pool, "size_bytes"));
	json_decref(pool);
	return CLI_OK;
}

enum cli_exit cli_pool_import(struct cli *cli)
{
	json_t *pool;
	enum cli_exit ret = cli_call(cli, "pool.import", json_pack("{s:o}", "disks", disk_array(cli, 0)), &pool);

	if (ret)
		return ret;
	if (!cli_print_json(cli, pool))
		printf("pool '%s' is open, volumes: %llu\n", cli_text(pool, "name"), cli_number(pool, "volumes"));
	json_decref(pool);
	return CLI_OK;
}

enum cli_exit cli_pool_add(struct cli *cli)
{
	char *disk = cli_absolute_disk(cli->args[1]);
	json_t *params = json_pack("{s:s, s:s}", "pool", cli->args[0], "disk", disk ? disk : "");
	enum cli_exit ret = add_create_options(cli, params);

	free(disk);
	if (ret) {
		json_decref(params);
		return ret;
	}
	json_object_set_new(params, "spare", json_boolean(cli_value(cli, "spare")));
	if (cli_value(cli, "domain"))
		json_object_set_new(params, "domain", json_string(cli_value(cli, "domain")));
	return cli_do(cli, "pool.add", params, "disk '%s' is part of pool '%s' now\n", cli->args[1], cli->args[0]);
}

/* A call about one pool that may be forced. */
static json_t *pool_and_force(const struct cli *cli)
{
	return json_pack("{s:s, s:b}", "pool", cli->args[0], "force", cli_value(cli, "force") != NULL);
}

enum cli_exit cli_pool_export(struct cli *cli)
{
	return cli_do(cli, "pool.export", pool_and_force(cli),
		      "pool '%s' is closed; its disks can be moved, 'poolctl pool import' opens it again\n",
		      cli->args[0]);
}

enum cli_exit cli_pool_destroy(struct cli *cli)
{
	enum cli_exit ret = cli_confirm(cli, "destroy pool '%s' and all data on it", cli->args[0]);

	if (ret)
		return ret;
	return cli_do(cli, "pool.destroy", pool_and_force(cli), "pool '%s' is destroyed\n", cli->args[0]);
}

/* --- disks ------------------------------------------------------------------------------------------------ */

static void print_probe(const json_t *probe)
{
	printf("disk  %s\nsize  %s\n", cli_text(probe, "disk"), cli_size_text(probe, "size_bytes"));
	if (*cli_text(probe, "pool"))
		printf("pool  %s (%s), disk %llu of %llu\n", cli_text(probe, "pool"), cli_text(probe, "pool_uuid"),
		       cli_number(probe, "disk_index") + 1, cli_number(probe, "disk_count"));
	else if (*cli_text(probe, "holds"))
		printf("pool  none; it holds %s\n", cli_text(probe, "holds"));
	else
		printf("pool  none; it looks unused\n");
}

/* Of a command with POOL ID. */
static enum cli_exit disk_params(struct cli *cli, json_t **params)
{
	char *end;
	unsigned long id = strtoul(cli->args[1], &end, 10);

	if (!*cli->args[1] || *end || id >= 256)
		return cli_fail(cli, CLI_USAGE, 0, "'%s' is no disk: give its number, as 'poolctl disk list' shows it",
				cli->args[1]);
	*params = json_pack("{s:s, s:I}", "pool", cli->args[0], "id", (json_int_t)id);
	if (cli_value(cli, "domain"))
		json_object_set_new(*params, "domain", json_string(cli_value(cli, "domain")));
	return CLI_OK;
}

static enum cli_exit change_disk(struct cli *cli, const char *method, const char *done)
{
	json_t *params;
	enum cli_exit ret = disk_params(cli, &params);

	return ret ? ret : cli_do(cli, method, params, "disk %s of pool '%s' is %s\n", cli->args[1], cli->args[0], done);
}

enum cli_exit cli_disk_drain(struct cli *cli)
{
	return change_disk(cli, "disk.drain", "being drained");
}

enum cli_exit cli_disk_set(struct cli *cli)
{
	return change_disk(cli, "disk.set", "in another failure domain now");
}

enum cli_exit cli_disk_replace(struct cli *cli)
{
	json_t *params;
	enum cli_exit ret = disk_params(cli, &params);
	char *disk;

	if (ret)
		return ret;
	disk = cli_absolute_disk(cli->args[2]);
	json_object_set_new(params, "disk", json_string(disk ? disk : ""));
	json_object_set_new(params, "force", json_boolean(cli_value(cli, "force")));
	free(disk);
	return cli_do(cli, "disk.replace", params, "disk '%s' replaces disk %s of pool '%s', which is being emptied\n",
		      cli->args[2], cli->args[1], cli->args[0]);
}

enum cli_exit cli_disk_offline(struct cli *cli)
{
	return change_disk(cli, "disk.offline", "offline");
}

enum cli_exit cli_disk_online(struct cli *cli)
{
	return change_disk(cli, "disk.online", "online");
}

enum cli_exit cli_disk_remove(struct cli *cli)
{
	return change_disk(cli, "disk.remove", "removed");
}

enum cli_exit cli_disk_list(struct cli *cli)
{
	json_t *pool;
	enum cli_exit ret = cli_call(cli, "pool.show", json_pack("{s:s}", "pool", cli->args[0]), &pool);

	if (ret)
		return ret;
	if (!cli_print_json(cli, json_object_get(pool, "disks")))
		print_disks(json_object_get(pool, "disks"));
	json_decref(pool);
	return CLI_OK;
}

enum cli_exit cli_scrub_start(struct cli *cli)
{
	return cli_do(cli, "scrub.start", json_pack("{s:s}", "pool", cli->args[0]), "pool '%s' is being scrubbed\n",
		      cli->args[0]);
}

enum cli_exit cli_scrub_pause(struct cli *cli)
{
	return cli_do(cli, "scrub.pause", json_pack("{s:s}", "pool", cli->args[0]), "the scrub of pool '%s' pauses\n",
		      cli->args[0]);
}

static const char *scrub_text(const json_t *status)
{
	if (json_is_true(json_object_get(status, "scrubbing")))
		return json_is_true(json_object_get(status, "paused")) ? "paused" : "running";
	return json_is_true(json_object_get(status, "running")) ? "idle; mending" : "idle";
}

enum cli_exit cli_scrub_status(struct cli *cli)
{
	json_t *status;
	enum cli_exit ret = cli_call(cli, "scrub.status", json_pack("{s:s}", "pool", cli->args[0]), &status);

	if (ret)
		return ret;
	if (!cli_print_json(cli, status))
		printf("scrub      %s\nverified   %llu blocks\nmended     %llu\nlost       %llu blocks\n", scrub_text(status),
		       cli_number(status, "blocks"), cli_number(status, "mended"), cli_number(status, "lost_blocks"));
	json_decref(status);
	return CLI_OK;
}

enum cli_exit cli_disk_probe(struct cli *cli)
{
	char *disk = cli_absolute_disk(cli->args[0]);
	json_t *probe;
	enum cli_exit ret = cli_call(cli, "disk.probe", json_pack("{s:s}", "disk", disk ? disk : ""), &probe);

	free(disk);
	if (ret)
		return ret;
	if (!cli_print_json(cli, probe))
		print_probe(probe);
	json_decref(probe);
	return CLI_OK;
}

static void print_found(const json_t *found)
{
	static const char *const heads[] = { "DISK", ">SIZE", "NOTE", NULL };
	struct table table;
	json_t *disk;
	size_t i;

	table_init(&table, heads);
	json_array_foreach(found, i, disk) {
		table_cell(&table, "%s", cli_text(disk, "disk"));
		table_cell(&table, "%s", cli_number(disk, "size_bytes") ? cli_size_text(disk, "size_bytes") : "-");
		table_cell(&table, "%s", cli_text(disk, "why"));
	}
	table_print(&table, stdout);
}

enum cli_exit cli_disk_discover(struct cli *cli)
{
	json_t *found;
	enum cli_exit ret = cli_call(cli, "disk.discover", json_pack("{s:s}", "server", cli->args[0]), &found);

	if (ret)
		return ret;
	if (!cli_print_json(cli, found))
		print_found(found);
	json_decref(found);
	return CLI_OK;
}
