/* poolctl export ... */
#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "tools/poolctl.h"

#define QUEUES_MAX 64

/* --- list ------------------------------------------------------------------------------------------------- */

/* A guest is there or not; of NBD's clients there may be several. */
static void put_client(struct table *table, const json_t *export)
{
	if (strcmp(cli_text(export, "state"), "open") != 0)
		table_cell(table, "-");
	else if (!json_is_true(json_object_get(export, "connected")))
		table_cell(table, "none");
	else if (cli_number(export, "connections") > 0)
		table_cell(table, "%llu", cli_number(export, "connections"));
	else
		table_cell(table, "connected");
}

static void put_access(struct table *table, const json_t *export)
{
	table_cell(table, "%s%s", json_is_true(json_object_get(export, "read_only")) ? "read-only" : "read-write",
		   json_is_true(json_object_get(export, "tls")) ? ", TLS" : "");
}

static void put_queues(struct table *table, const json_t *export)
{
	if (strcmp(cli_text(export, "kind"), "nbd") == 0)
		table_cell(table, "-");
	else
		table_cell(table, "%llu", cli_number(export, "queues"));
}

void cli_print_exports(const json_t *exports)
{
	static const char *const heads[] = {
		"VOLUME", "KIND", "STATE", "CLIENT", "ACCESS", ">QUEUES", "ADDRESS", NULL
	};
	struct table table;
	json_t *export;
	size_t i;

	table_init(&table, heads);
	json_array_foreach(exports, i, export) {
		table_cell(&table, "%s", cli_text(export, "volume"));
		table_cell(&table, "%s", cli_text(export, "kind"));
		table_cell(&table, "%s", cli_text(export, "state"));
		put_client(&table, export);
		put_access(&table, export);
		put_queues(&table, export);
		table_cell(&table, "%s", cli_text(export, "address"));
	}
	table_print(&table, stdout);
}

enum cli_exit cli_export_list(struct cli *cli)
{
	json_t *exports;
	enum cli_exit ret = cli_call(cli, "export.list", json_object(), &exports);

	if (ret)
		return ret;
	if (!cli_print_json(cli, exports)) {
		if (json_array_size(exports) == 0)
			printf("no exports; 'poolctl export add' makes one\n");
		else
			cli_print_exports(exports);
	}
	json_decref(exports);
	return CLI_OK;
}

/* --- add and remove --------------------------------------------------------------------------------------- */

/* The number of --queues, 0 if not given. */
static enum cli_exit read_queues(const struct cli *cli, int *queues)
{
	const char *text = cli_value(cli, "queues");
	char *end;
	long number;

	*queues = 0;
	if (!text)
		return CLI_OK;
	errno = 0;
	number = strtol(text, &end, 10);
	if (errno || end == text || *end || number < 1 || number > QUEUES_MAX)
		return cli_fail(cli, CLI_USAGE, -EINVAL, "--queues: '%s' is not a number from 1 to %d", text,
				QUEUES_MAX);
	*queues = (int)number;
	return CLI_OK;
}

/* The daemon's working folder is another one: "unix:PATH" with an absolute path, a path made absolute, or a copy. */
static char *absolute_address(const char *address)
{
	char *path, *absolute;

	if (strncmp(address, "tcp:", 4) == 0)
		return strdup(address);
	if (strncmp(address, "unix:", 5) != 0)
		return cli_absolute(address);
	path = cli_absolute(address + 5);
	if (!path || asprintf(&absolute, "unix:%s", path) < 0)
		absolute = NULL;
	free(path);
	return absolute;
}

/* The options that name a kind of export; exactly one of them is given. */
static const struct {
	const char *option, *kind;
} kinds[] = { { "vhost-user", "vhost-user-blk" }, { "nbd", "nbd" } };

static enum cli_exit read_kind(const struct cli *cli, const char **kind, const char **address)
{
	int given = 0;

	for (size_t i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++) {
		const char *value = cli_value(cli, kinds[i].option);

		if (!value)
			continue;
		given++;
		*kind = kinds[i].kind;
		*address = value;
	}
	return given == 1 ? CLI_OK : cli_fail(cli, CLI_USAGE, -EINVAL, "give one of --vhost-user and --nbd");
}

/* Puts the option's path, made absolute, if it is given. What cannot be made is put as nothing, which is refused. */
static void put_path(json_t *params, const char *key, const char *value)
{
	char *path;

	if (!value)
		return;
	path = cli_absolute(value);
	json_object_set_new(params, key, json_string(path ? path : ""));
	free(path);
}

static enum cli_exit add(struct cli *cli, const char *kind, const char *address, int queues)
{
	json_t *params = json_pack("{s:s, s:s, s:s, s:i, s:b, s:b}", "volume", cli->args[0], "kind", kind, "address",
				   address, "queues", queues, "read_only", cli_value(cli, "read-only") != NULL,
				   "standby", cli_value(cli, "standby") != NULL);
	enum cli_exit ret;
	json_t *export;

	put_path(params, "tls_certs", cli_value(cli, "tls-certs"));
	put_path(params, "tls_psk", cli_value(cli, "tls-psk"));
	ret = cli_call(cli, "export.add", params, &export);
	if (ret)
		return ret;
	if (!cli_print_json(cli, export))
		printf("'%s' is exported%s on '%s'\n", cli->args[0],
		       json_is_true(json_object_get(export, "read_only")) ? " read-only" : "", address);
	json_decref(export);
	return CLI_OK;
}

enum cli_exit cli_export_add(struct cli *cli)
{
	const char *kind = NULL, *address = NULL;
	char *absolute;
	int queues;
	enum cli_exit ret = read_queues(cli, &queues);

	if (ret == CLI_OK)
		ret = read_kind(cli, &kind, &address);
	if (ret)
		return ret;
	assert(address);
	absolute = absolute_address(address);
	ret = add(cli, kind, absolute ? absolute : "", queues);
	free(absolute);
	return ret;
}

/* An address is what begins with '/' or '.', as no pool does, or has a ':', as no volume has. */
static bool is_address(const char *word)
{
	return *word == '/' || *word == '.' || strchr(word, ':');
}

enum cli_exit cli_export_remove(struct cli *cli)
{
	const char *word = cli->args[0];
	char *address = is_address(word) ? absolute_address(word) : NULL;
	enum cli_exit ret = cli_do(cli, "export.remove",
				   json_pack("{s:s}", address ? "address" : "volume", address ? address : word),
				   "'%s' is no longer exported\n", word);

	free(address);
	return ret;
}
