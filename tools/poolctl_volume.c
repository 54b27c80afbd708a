/* poolctl volume ... and clone */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "tools/poolctl.h"

/* --- showing ---------------------------------------------------------------------------------------------- */

static void print_volumes(const json_t *volumes)
{
	static const char *const heads[] = { "VOLUME", ">SIZE", ">REFERENCED", ">SNAPSHOTS",
					     "POLICY", "STATE", "EXPORTED ON", NULL };
	struct table table;
	json_t *volume;
	size_t i;

	table_init(&table, heads);
	json_array_foreach(volumes, i, volume) {
		table_cell(&table, "%s", cli_text(volume, "volume"));
		table_cell(&table, "%s", cli_size_text(volume, "size_bytes"));
		table_cell(&table, "%s", cli_size_text(volume, "referenced_bytes"));
		table_cell(&table, "%llu", cli_number(volume, "snapshots"));
		table_cell(&table, "%s", cli_text(volume, "policy"));
		table_cell(&table, "%s", cli_text(volume, "state"));
		table_cell(&table, "%s", cli_addresses_text(volume));
	}
	table_print(&table, stdout);
}

enum cli_exit cli_volume_list(struct cli *cli)
{
	const char *pool = cli->args[0];
	json_t *volumes;
	enum cli_exit ret =
		cli_call(cli, "volume.list", pool ? json_pack("{s:s}", "pool", pool) : json_object(), &volumes);

	if (ret)
		return ret;
	if (!cli_print_json(cli, volumes)) {
		if (json_array_size(volumes) == 0)
			printf("no volumes; 'poolctl volume create' makes one\n");
		else
			print_volumes(volumes);
	}
	json_decref(volumes);
	return CLI_OK;
}

static void print_writer(const json_t *volume)
{
	const char *rest = json_is_true(json_object_get(volume, "held")) ? "" : ", at rest";

	if (*cli_text(volume, "holder"))
		printf("writer      %s%s\n", cli_text(volume, "holder"), rest);
	else
		printf("writer      none\n");
	printf("epoch       %llu\n", cli_number(volume, "epoch"));
}

static void print_volume(const json_t *volume)
{
	const char *state = cli_text(volume, "state");

	printf("volume      %s\norigin      %s\nsize        %s\nreferenced  %s\nunique      %s\nshared      %s\n"
	       "snapshots   %llu\npolicy      %s\nstate       %s\n",
	       cli_text(volume, "volume"), *cli_text(volume, "origin") ? cli_text(volume, "origin") : "-",
	       cli_size_text(volume, "size_bytes"), cli_size_text(volume, "referenced_bytes"),
	       cli_size_text(volume, "unique_bytes"), cli_size_text(volume, "shared_bytes"),
	       cli_number(volume, "snapshots"), cli_text(volume, "policy"), state);
	if (strcmp(state, "parked") == 0)
		printf("            writes wait for space: add a disk to the pool, or delete data\n");
	if (strcmp(state, "failed") == 0)
		printf("            it can be read only: export and import the pool\n");
	printf("created     %s\nsegments    %llu\nexports     %s\n", cli_time_text(volume, "created_s"),
	       cli_number(volume, "segments"), cli_addresses_text(volume));
	print_writer(volume);
}

enum cli_exit cli_volume_show(struct cli *cli)
{
	json_t *volume;
	enum cli_exit ret = cli_call(cli, "volume.show", json_pack("{s:s}", "volume", cli->args[0]), &volume);

	if (ret)
		return ret;
	if (!cli_print_json(cli, volume))
		print_volume(volume);
	json_decref(volume);
	return CLI_OK;
}

/* --- changing --------------------------------------------------------------------------------------------- */

enum cli_exit cli_volume_create(struct cli *cli)
{
	const char *policy = cli_value(cli, "policy");
	uint64_t size_bytes;
	enum cli_exit ret = cli_size(cli, "size", 0, &size_bytes);

	if (ret)
		return ret;
	return cli_do(cli, "volume.create",
		      json_pack("{s:s, s:I, s:s}", "volume", cli->args[0], "size_bytes", (json_int_t)size_bytes,
				"policy", policy ? policy : "plain"),
		      "volume '%s' is made\n", cli->args[0]);
}

/* "20G", "+20G" or "-20G" into params. */
static enum cli_exit add_size(const struct cli *cli, const char *text, json_t *params)
{
	char sign = *text == '+' || *text == '-' ? *text++ : '\0';
	uint64_t bytes;

	if (size_parse(text, &bytes) != 0 || bytes > INT64_MAX)
		return cli_fail(cli, CLI_USAGE, -EINVAL, "'%s' is not a size; give one such as 20G, +20G or -20G",
				text);
	if (sign)
		json_object_set_new(params, "delta_bytes",
				    json_integer(sign == '-' ? -(json_int_t)bytes : (json_int_t)bytes));
	else
		json_object_set_new(params, "size_bytes", json_integer((json_int_t)bytes));
	return CLI_OK;
}

enum cli_exit cli_volume_resize(struct cli *cli)
{
	json_t *params, *volume;
	enum cli_exit ret;

	params = json_pack("{s:s, s:b}", "volume", cli->args[0], "force", cli_value(cli, "force") != NULL);
	ret = add_size(cli, cli->args[1], params);
	if (ret) {
		json_decref(params);
		return ret;
	}
	ret = cli_call(cli, "volume.resize", params, &volume);
	if (ret)
		return ret;
	if (!cli_print_json(cli, volume))
		printf("volume '%s' has %s now\n", cli->args[0], cli_size_text(volume, "size_bytes"));
	json_decref(volume);
	return CLI_OK;
}

enum cli_exit cli_volume_rename(struct cli *cli)
{
	return cli_do(cli, "volume.rename", json_pack("{s:s, s:s}", "volume", cli->args[0], "new_name", cli->args[1]),
		      "volume '%s' is called '%s' now\n", cli->args[0], cli->args[1]);
}

enum cli_exit cli_volume_delete(struct cli *cli)
{
	bool with_snapshots = cli_value(cli, "snapshots") != NULL;
	const char *what = with_snapshots ? ", its snapshots" : "";
	enum cli_exit ret = cli_confirm(cli, "delete volume '%s'%s and its data", cli->args[0], what);

	if (ret)
		return ret;
	return cli_do(cli, "volume.delete",
		      json_pack("{s:s, s:b}", "volume", cli->args[0], "snapshots", (int)with_snapshots),
		      "volume '%s' is deleted\n", cli->args[0]);
}

enum cli_exit cli_volume_fence(struct cli *cli)
{
	enum cli_exit ret = cli_confirm(cli, "fence whoever writes volume '%s'", cli->args[0]);

	if (ret)
		return ret;
	return cli_do(cli, "volume.fence", json_pack("{s:s}", "volume", cli->args[0]),
		      "whoever wrote volume '%s' is fenced\n", cli->args[0]);
}

enum cli_exit cli_clone(struct cli *cli)
{
	return cli_do(cli, "clone", json_pack("{s:s, s:s}", "from", cli->args[0], "volume", cli->args[1]),
		      "volume '%s' is made from '%s'\n", cli->args[1], cli->args[0]);
}
