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
