/* poolctl volume set, and poolctl qos ... */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "tools/poolctl.h"

/* --- limits ------------------------------------------------------------------------------------------------- */

/* "--iops 5000" into params. */
static enum cli_exit add_count(const struct cli *cli, const char *option, json_t *params)
{
	const char *text = cli_value(cli, option);
	unsigned long long value;
	char *end;

	if (!text)
		return CLI_OK;
	errno = 0;
	value = strtoull(text, &end, 10);
	if (errno || *end || *text < '0' || *text > '9' || value > INT64_MAX)
		return cli_fail(cli, CLI_USAGE, -EINVAL, "--%s: '%s' is not a number", option, text);
	json_object_set_new(params, option, json_integer((json_int_t)value));
	return CLI_OK;
}

static enum cli_exit add_bps(const struct cli *cli, json_t *params)
{
	uint64_t bps;
	enum cli_exit ret = cli_size(cli, "bps", 0, &bps);

	if (ret == CLI_OK && cli_value(cli, "bps"))
		json_object_set_new(params, "bps", json_integer((json_int_t)bps));
	return ret;
}

/* Seconds, and milliseconds behind a point. */
static enum cli_exit add_burst(const struct cli *cli, json_t *params)
{
	const char *text = cli_value(cli, "burst");
	double seconds;
	char *end;

	if (!text)
		return CLI_OK;
	seconds = strtod(text, &end);
	if (*end || end == text || !(seconds >= 0.001 && seconds <= 3600))
		return cli_fail(cli, CLI_USAGE, -EINVAL, "--burst: '%s' is not a time; give seconds, from 0.001 to 3600", text);
	json_object_set_new(params, "burst_ms", json_integer((json_int_t)(seconds * 1000 + 0.5)));
	return CLI_OK;
}

static enum cli_exit add_limits(const struct cli *cli, json_t *params)
{
	enum cli_exit ret = add_count(cli, "iops", params);

	if (ret == CLI_OK)
		ret = add_bps(cli, params);
	return ret ? ret : add_burst(cli, params);
}

const char *cli_limits_text(const json_t *object)
{
	static char text[96];
	unsigned long long iops = cli_number(object, "iops"), bps = cli_number(object, "bps");
	int len = 0;

	text[0] = '\0';
	if (iops > 0)
		len += snprintf(text, sizeof(text), "%llu requests/s, ", iops);
	if (bps > 0)
		len += snprintf(text + len, sizeof(text) - (size_t)len, "%s/s, ", cli_size_text(object, "bps"));
	if (len > 0)
		snprintf(text + len, sizeof(text) - (size_t)len, "burst %g s", (double)cli_number(object, "burst_ms") / 1000);
	return len > 0 ? text : "none";
}

/* --- a volume ----------------------------------------------------------------------------------------------- */

static enum cli_exit add_group(const struct cli *cli, json_t *params)
{
	const char *group = cli_value(cli, "group");

	if (group && cli_value(cli, "no-group"))
		return cli_fail(cli, CLI_USAGE, -EINVAL, "--group and --no-group exclude each other");
	if (group && json_object_set_new(params, "group", json_string(group)) != 0)
		return cli_fail(cli, CLI_USAGE, -EINVAL, "an argument is not valid UTF-8");
	if (cli_value(cli, "no-group"))
		json_object_set_new(params, "no_group", json_true());
	return CLI_OK;
}

/* "park" or "fail-after=SECONDS". */
enum cli_exit cli_add_full(const struct cli *cli, json_t *params)
{
	static const char fail_after[] = "fail-after=";
	const char *text = cli_value(cli, "full"), *number = text;
	unsigned long seconds = 0;
	char *end = "";

	if (!text)
		return CLI_OK;
	if (strncmp(text, fail_after, strlen(fail_after)) == 0) {
		number += strlen(fail_after);
		seconds = strtoul(number, &end, 10);
	}
	if (strcmp(text, "park") != 0 && (*end || *number < '0' || *number > '9' || seconds < 1 || seconds > 86400))
		return cli_fail(cli, CLI_USAGE, -EINVAL, "--full: give 'park' or 'fail-after=SECONDS', from 1 to 86400, not '%s'",
				text);
	json_object_set_new(params, "full_after_s", json_integer((json_int_t)seconds));
	return CLI_OK;
}

enum cli_exit cli_volume_set(struct cli *cli)
{
	json_t *params = json_pack("{s:s}", "volume", cli->args[0]);
	enum cli_exit ret = add_limits(cli, params);

	if (ret == CLI_OK)
		ret = add_group(cli, params);
	if (ret == CLI_OK)
		ret = cli_add_full(cli, params);
	if (ret == CLI_OK && json_object_size(params) == 1)
		ret = cli_fail(cli, CLI_USAGE, -EINVAL, "nothing to set; usage: %s", cli_synopsis(cli->command));
	if (ret) {
		json_decref(params);
		return ret;
	}
	return cli_do(cli, "volume.set", params, "options of volume '%s' are set\n", cli->args[0]);
}

/* --- groups --------------------------------------------------------------------------------------------------- */

enum cli_exit cli_qos_set(struct cli *cli)
{
	json_t *params = json_pack("{s:s}", "group", cli->args[0]);
	enum cli_exit ret = add_limits(cli, params);

	if (ret) {
		json_decref(params);
		return ret;
	}
	return cli_do(cli, "qos.set", params, "limits of group '%s' are set\n", cli->args[0]);
}

enum cli_exit cli_qos_delete(struct cli *cli)
{
	return cli_do(cli, "qos.delete", json_pack("{s:s}", "group", cli->args[0]), "group '%s' is deleted\n",
		      cli->args[0]);
}

static void print_groups(const json_t *groups)
{
	static const char *const heads[] = { "GROUP", "LIMITS", ">VOLUMES", NULL };
	struct table table;
	json_t *group;
	size_t i;

	table_init(&table, heads);
	json_array_foreach(groups, i, group) {
		table_cell(&table, "%s", cli_text(group, "group"));
		table_cell(&table, "%s", cli_limits_text(group));
		table_cell(&table, "%llu", cli_number(group, "volumes"));
	}
	table_print(&table, stdout);
}

enum cli_exit cli_qos_list(struct cli *cli)
{
	json_t *groups;
	enum cli_exit ret = cli_call(cli, "qos.list", json_pack("{s:s}", "pool", cli->args[0]), &groups);

	if (ret)
		return ret;
	if (!cli_print_json(cli, groups)) {
		if (json_array_size(groups) == 0)
			printf("no groups; 'poolctl qos set' makes one\n");
		else
			print_groups(groups);
	}
	json_decref(groups);
	return CLI_OK;
}
