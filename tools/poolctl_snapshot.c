/* poolctl snapshot ... */
#include <string.h>

#include "tools/poolctl.h"

/* --- showing ---------------------------------------------------------------------------------------------- */

static void print_snapshots(const json_t *snapshots)
{
	static const char *const heads[] = { "SNAPSHOT", ">SIZE",   ">REFERENCED", ">UNIQUE",
					     ">SHARED",  "CREATED", "EXPORTED ON", NULL };
	struct table table;
	json_t *snapshot;
	size_t i;

	table_init(&table, heads);
	json_array_foreach(snapshots, i, snapshot) {
		table_cell(&table, "%s", cli_text(snapshot, "snapshot"));
		table_cell(&table, "%s", cli_size_text(snapshot, "size_bytes"));
		table_cell(&table, "%s", cli_size_text(snapshot, "referenced_bytes"));
		table_cell(&table, "%s", cli_size_text(snapshot, "unique_bytes"));
		table_cell(&table, "%s", cli_size_text(snapshot, "shared_bytes"));
		table_cell(&table, "%s", cli_time_text(snapshot, "created_s"));
		table_cell(&table, "%s", cli_addresses_text(snapshot));
	}
	table_print(&table, stdout);
}

enum cli_exit cli_snapshot_list(struct cli *cli)
{
	const char *of = cli->args[0];
	json_t *params = of ? json_pack("{s:s}", strchr(of, '/') ? "volume" : "pool", of) : json_object();
	json_t *snapshots;
	enum cli_exit ret = cli_call(cli, "snapshot.list", params, &snapshots);

	if (ret)
		return ret;
	if (!cli_print_json(cli, snapshots)) {
		if (json_array_size(snapshots) == 0)
			printf("no snapshots; 'poolctl snapshot create' makes some\n");
		else
			print_snapshots(snapshots);
	}
	json_decref(snapshots);
	return CLI_OK;
}

enum cli_exit cli_snapshot_show(struct cli *cli)
{
	json_t *snapshot;
	enum cli_exit ret = cli_call(cli, "snapshot.show", json_pack("{s:s}", "snapshot", cli->args[0]), &snapshot);

	if (ret)
		return ret;
	if (!cli_print_json(cli, snapshot))
		printf("snapshot    %s\nvolume      %s\nsize        %s\nreferenced  %s\nunique      %s\nshared      "
		       "%s\n"
		       "created     %s\nexports     %s\n",
		       cli_text(snapshot, "snapshot"), cli_text(snapshot, "volume"),
		       cli_size_text(snapshot, "size_bytes"), cli_size_text(snapshot, "referenced_bytes"),
		       cli_size_text(snapshot, "unique_bytes"), cli_size_text(snapshot, "shared_bytes"),
		       cli_time_text(snapshot, "created_s"), cli_addresses_text(snapshot));
	json_decref(snapshot);
	return CLI_OK;
}

/* --- differences ------------------------------------------------------------------------------------------ */

/* A difference may be long: it comes page by page, and is printed as it comes. */
struct diff {
	const char *from, *to;
	uint64_t offset, size_bytes;
	uint64_t ranges, data_bytes, hole_bytes;
};

static void print_range(const struct cli *cli, struct diff *diff, const json_t *range)
{
	unsigned long long offset = cli_number(range, "offset"), length = cli_number(range, "length");
	bool data = json_is_true(json_object_get(range, "data"));

	if (cli->json)
		printf("%s\n    {\"offset\": %llu, \"length\": %llu, \"data\": %s}", diff->ranges > 0 ? "," : "", offset,
		       length, data ? "true" : "false");
	else
		printf("%16llu %16llu  %s\n", offset, length, data ? "data" : "hole");
	diff->ranges++;
	*(data ? &diff->data_bytes : &diff->hole_bytes) += length;
}

static enum cli_exit print_page(struct cli *cli, struct diff *diff)
{
	json_t *page, *range;
	size_t i;
	enum cli_exit ret = cli_call(cli, "snapshot.diff",
				     json_pack("{s:s, s:s, s:I}", "from", diff->from, "to", diff->to, "offset",
					       (json_int_t)diff->offset),
				     &page);

	if (ret)
		return ret;
	if (diff->offset == 0 && cli->json)
		printf("{\n  \"ranges\": [");
	else if (diff->offset == 0)
		printf("%16s %16s\n", "OFFSET", "LENGTH");
	json_array_foreach(json_object_get(page, "ranges"), i, range)
		print_range(cli, diff, range);
	diff->offset = cli_number(page, "next_offset");
	diff->size_bytes = cli_number(page, "size_bytes");
	json_decref(page);
	return CLI_OK;
}

static void print_sums(const struct cli *cli, const struct diff *diff)
{
	char data[SIZE_TEXT_BYTES], hole[SIZE_TEXT_BYTES], size[SIZE_TEXT_BYTES];

	if (cli->json)
		printf("\n  ],\n  \"data_bytes\": %llu,\n  \"hole_bytes\": %llu,\n  \"size_bytes\": %llu\n}\n",
		       (unsigned long long)diff->data_bytes, (unsigned long long)diff->hole_bytes,
		       (unsigned long long)diff->size_bytes);
	else
		printf("changed: %s of data and %s of holes, of %s\n", size_to_text(diff->data_bytes, data),
		       size_to_text(diff->hole_bytes, hole), size_to_text(diff->size_bytes, size));
}

enum cli_exit cli_snapshot_diff(struct cli *cli)
{
	char volume[256];
	struct diff diff = { .from = cli->args[0], .to = cli->args[1] ? cli->args[1] : volume };
	enum cli_exit ret;

	snprintf(volume, sizeof(volume), "%.*s", (int)strcspn(diff.from, "@"), diff.from);
	do {
		ret = print_page(cli, &diff);
	} while (ret == CLI_OK && diff.offset < diff.size_bytes);
	if (ret == CLI_OK)
		print_sums(cli, &diff);
	return ret;
}

/* --- changing --------------------------------------------------------------------------------------------- */

/* All arguments. NULL: one is not UTF-8. */
static json_t *name_array(const struct cli *cli)
{
	json_t *array = json_array();

	for (int i = 0; i < cli->arg_count; i++) {
		if (json_array_append_new(array, json_string(cli->args[i])) != 0) {
			json_decref(array);
			return NULL;
		}
	}
	return array;
}

enum cli_exit cli_snapshot_create(struct cli *cli)
{
	json_t *snapshots;
	enum cli_exit ret =
		cli_call(cli, "snapshot.create", json_pack("{s:o}", "snapshots", name_array(cli)), &snapshots);

	if (ret)
		return ret;
	if (!cli_print_json(cli, snapshots)) {
		for (int i = 0; i < cli->arg_count; i++)
			printf("snapshot '%s' is made\n", cli->args[i]);
	}
	json_decref(snapshots);
	return CLI_OK;
}

enum cli_exit cli_snapshot_rename(struct cli *cli)
{
	return cli_do(cli, "snapshot.rename",
		      json_pack("{s:s, s:s}", "snapshot", cli->args[0], "new_name", cli->args[1]),
		      "snapshot '%s' is called '%s' now\n", cli->args[0], cli->args[1]);
}

enum cli_exit cli_snapshot_delete(struct cli *cli)
{
	enum cli_exit ret = cli_confirm(cli, "delete snapshot '%s'", cli->args[0]);

	if (ret)
		return ret;
	return cli_do(cli, "snapshot.delete", json_pack("{s:s}", "snapshot", cli->args[0]),
		      "snapshot '%s' is deleted\n", cli->args[0]);
}

enum cli_exit cli_snapshot_rollback(struct cli *cli)
{
	const char *name = cli->args[0];
	int volume_len = (int)strcspn(name, "@");
	enum cli_exit ret = cli_confirm(cli, "roll volume '%.*s' back to '%s' and lose what was written since",
					volume_len, name, name);

	if (ret)
		return ret;
	return cli_do(cli, "snapshot.rollback", json_pack("{s:s}", "snapshot", name),
		      "volume '%.*s' holds again what '%s' holds\n", volume_len, name, name);
}
