/* poolctl status, retry, stat.
 *
 * stat shows totals since a disk, volume or export was opened; with --watch the differences of two samples, a second. One
 * function gives both: the value of now less that of before, by the time between, where "before" may be nothing. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "tools/poolctl.h"

#define WATCH_SECONDS_MAX 86400

/* --- status ----------------------------------------------------------------------------------------------- */

/* "3d 4h", "5m 6s"; in a static buffer. */
static const char *duration_text(uint64_t seconds)
{
	static char text[32];
	unsigned long long s = seconds;

	if (s >= 86400)
		snprintf(text, sizeof(text), "%llud %lluh", s / 86400, s / 3600 % 24);
	else if (s >= 3600)
		snprintf(text, sizeof(text), "%lluh %llum", s / 3600, s / 60 % 60);
	else if (s >= 60)
		snprintf(text, sizeof(text), "%llum %llus", s / 60, s % 60);
	else
		snprintf(text, sizeof(text), "%llus", s);
	return text;
}

static void print_why_down(const json_t *members, const char *what, const char *key)
{
	json_t *member;
	size_t i;

	json_array_foreach(members, i, member) {
		if (strcmp(cli_text(member, "state"), "down") == 0)
			printf("%s '%s' is down: %s\n", what, cli_text(member, key), cli_text(member, "error"));
	}
}

static void print_status(const json_t *status)
{
	const json_t *pools = json_object_get(status, "pools"), *exports = json_object_get(status, "exports");
	unsigned long long threads = cli_number(status, "loops");

	printf("poold %s, pid %llu, up %s, %llu thread%s\nsocket %s, state folder %s\n\n", cli_text(status, "version"),
	       cli_number(status, "pid"), duration_text(cli_number(status, "uptime_s")), threads,
	       threads == 1 ? "" : "s", cli_text(status, "socket"), cli_text(status, "state_dir"));
	cli_print_pools(pools);
	if (json_array_size(exports) > 0) {
		printf("\n");
		cli_print_exports(exports);
	}
	if (cli_number(status, "down") == 0)
		return;
	printf("\n");
	print_why_down(pools, "pool", "name");
	print_why_down(exports, "export of", "volume");
	printf("'poolctl retry' tries again; 'poolctl pool export' and 'poolctl export remove' forget\n");
}

enum cli_exit cli_status(struct cli *cli)
{
	json_t *status;
	enum cli_exit ret = cli_call(cli, "status", json_object(), &status);

	if (ret)
		return ret;
	if (!cli_print_json(cli, status))
		print_status(status);
	json_decref(status);
	return CLI_OK;
}

enum cli_exit cli_retry(struct cli *cli)
{
	json_t *status;
	enum cli_exit ret = cli_call(cli, "retry", json_object(), &status);

	if (ret)
		return ret;
	if (cli_number(status, "down") > 0)
		ret = CLI_FAILED;
	if (!cli_print_json(cli, status))
		print_status(status);
	json_decref(status);
	return ret;
}

/* --- samples ---------------------------------------------------------------------------------------------- */

struct sample {
	json_t *now, *before; /* before NULL: totals */
	double seconds;       /* between the two */
};

static bool same_name(const json_t *one, const json_t *two, const char *key)
{
	return one && two && strcmp(cli_text(one, key), cli_text(two, key)) == 0;
}

/* The member of sample.before[kind] that is called as the one at `index` now: at the same place mostly, which also tells
 * apart disks of one name (ram:). */
static const json_t *same_before(const struct sample *sample, const char *kind, const char *key, size_t index)
{
	const json_t *now = json_array_get(json_object_get(sample->now, kind), index);
	json_t *array = json_object_get(sample->before, kind), *other;
	size_t i;

	other = json_array_get(array, index);
	if (same_name(other, now, key))
		return other;
	json_array_foreach(array, i, other) {
		if (same_name(other, now, key))
			return other;
	}
	return NULL;
}

/* Total, or rate a second. A counter that fell began anew. */
static uint64_t value_of(const struct sample *sample, const json_t *now, const json_t *before, const char *key)
{
	uint64_t value = cli_number(now, key), old = cli_number(before, key);

	if (!sample->before)
		return value;
	return (uint64_t)((double)(value - (value < old ? 0 : old)) / sample->seconds + 0.5);
}

static void count_cell(struct table *table, const struct sample *sample, const json_t *now, const json_t *before,
		       const char *key)
{
	table_cell(table, "%llu", (unsigned long long)value_of(sample, now, before, key));
}

static void bytes_cell(struct table *table, const struct sample *sample, const json_t *now, const json_t *before,
		       const char *key)
{
	char text[SIZE_TEXT_BYTES];

	table_cell(table, "%s", size_to_text(value_of(sample, now, before, key), text));
}

/* Number and bytes of one kind of operation. */
static void op_cells(struct table *table, const struct sample *sample, const json_t *now, const json_t *before,
		     const char *op)
{
	const json_t *op_now = json_object_get(now, op), *op_before = json_object_get(before, op);

	count_cell(table, sample, op_now, op_before, "ios");
	bytes_cell(table, sample, op_now, op_before, "bytes");
}

static uint64_t errors_of(const json_t *member)
{
	uint64_t errors = 0;
	const char *key;
	json_t *value;

	json_object_foreach((json_t *)member, key, value)
		errors += cli_number(value, "errors");
	return errors;
}

/* --- tables ----------------------------------------------------------------------------------------------- */

static void print_volumes(const struct sample *sample)
{
	static const char *const heads[] = { "VOLUME", ">READS", ">READ",   ">WRITES", ">WRITTEN", ">FLUSHES",
					     ">LOG",   ">MAP",   ">HELD",   ">ERRORS",  "STATE",    NULL };
	struct table table;
	json_t *volume;
	size_t i;

	table_init(&table, heads);
	json_array_foreach(json_object_get(sample->now, "volumes"), i, volume) {
		const json_t *before = same_before(sample, "volumes", "volume", i);
		unsigned long long errors = errors_of(volume) + cli_number(volume, "checksum_errors");

		table_cell(&table, "%s", cli_text(volume, "volume"));
		op_cells(&table, sample, volume, before, "read");
		op_cells(&table, sample, volume, before, "write");
		count_cell(&table, sample, json_object_get(volume, "flush"), json_object_get(before, "flush"), "ios");
		bytes_cell(&table, sample, volume, before, "data_bytes_written");
		bytes_cell(&table, sample, volume, before, "meta_bytes_written");
		count_cell(&table, sample, volume, before, "throttled");
		table_cell(&table, "%llu", errors);
		table_cell(&table, "%s", cli_text(volume, "state"));
	}
	table_print(&table, stdout);
}

static void print_disks(const struct sample *sample)
{
	static const char *const heads[] = { "DISK",     ">READS",  ">READ", ">WRITES", ">WRITTEN",
					     ">FLUSHES", ">ERRORS", "STATE", NULL };
	struct table table;
	json_t *disk;
	size_t i;

	table_init(&table, heads);
	json_array_foreach(json_object_get(sample->now, "disks"), i, disk) {
		const json_t *before = same_before(sample, "disks", "disk", i);

		table_cell(&table, "%s", cli_text(disk, "disk"));
		op_cells(&table, sample, disk, before, "read");
		op_cells(&table, sample, disk, before, "write");
		count_cell(&table, sample, json_object_get(disk, "flush"), json_object_get(before, "flush"), "ios");
		table_cell(&table, "%llu", (unsigned long long)errors_of(disk));
		table_cell(&table, "%s", cli_text(disk, "state"));
	}
	table_print(&table, stdout);
}

static void print_export_counters(const struct sample *sample)
{
	static const char *const heads[] = {
		"EXPORT", "ON", "CLIENT", ">SESSIONS", ">REQUESTS", ">BAD", ">BROKEN", NULL
	};
	struct table table;
	json_t *export;
	size_t i;

	table_init(&table, heads);
	json_array_foreach(json_object_get(sample->now, "exports"), i, export) {
		const json_t *before = same_before(sample, "exports", "address", i);

		table_cell(&table, "%s", cli_text(export, "volume"));
		table_cell(&table, "%s", cli_text(export, "address"));
		table_cell(&table, "%s", json_is_true(json_object_get(export, "connected")) ? "connected" : "none");
		table_cell(&table, "%llu", cli_number(export, "sessions"));
		count_cell(&table, sample, export, before, "requests");
		table_cell(&table, "%llu", cli_number(export, "bad_requests"));
		table_cell(&table, "%llu", cli_number(export, "broken_rings"));
	}
	table_print(&table, stdout);
}

static void print_daemon(const json_t *now)
{
	const json_t *memory = json_object_get(now, "memory");
	json_t *loop;
	size_t i;

	printf("memory %s resident, %s of heap in use\n", cli_size_text(memory, "resident_bytes"),
	       cli_size_text(memory, "heap_bytes"));
	json_array_foreach(json_object_get(now, "loops"), i, loop)
		printf("thread %llu: %llu fibers, %llu timers\n", cli_number(loop, "loop"), cli_number(loop, "fibers"),
		       cli_number(loop, "timers"));
}

static void print_sample(const struct sample *sample)
{
	print_disks(sample);
	printf("\n");
	print_volumes(sample);
	printf("\n");
	print_export_counters(sample);
	if (!sample->before) {
		printf("\n");
		print_daemon(sample->now);
	}
}

/* --- once, or again and again ----------------------------------------------------------------------------- */

static enum cli_exit read_interval(const struct cli *cli, unsigned int *seconds)
{
	const char *text = cli_value(cli, "watch");
	char *end;
	long number;

	*seconds = text ? 1 : 0;
	if (!text || !*text)
		return CLI_OK;
	number = strtol(text, &end, 10);
	if (*end || number < 1 || number > WATCH_SECONDS_MAX)
		return cli_fail(cli, CLI_USAGE, -EINVAL, "--watch: '%s' is not a number of seconds from 1 to %d", text,
				WATCH_SECONDS_MAX);
	*seconds = (unsigned int)number;
	return CLI_OK;
}

static double seconds_between(const json_t *before, const json_t *now)
{
	double seconds = (double)(cli_number(now, "time_ns") - cli_number(before, "time_ns")) / 1e9;

	return seconds > 0.001 ? seconds : 0.001;
}

/* Shows what is now; of a watch, from its second sample on, rates. One JSON object a line when watching. */
static void show(const struct cli *cli, const struct sample *sample, bool watching)
{
	if (cli->json && watching) {
		json_dumpf(sample->now, stdout, JSON_COMPACT);
		printf("\n");
	} else if (!cli_print_json(cli, sample->now)) {
		if (watching && isatty(STDOUT_FILENO))
			printf("\033[H\033[2J");
		if (watching)
			printf("a second, over %.1f s:\n\n", sample->seconds);
		print_sample(sample);
		if (watching)
			printf("\n");
	}
	fflush(stdout);
}

static enum cli_exit watch(struct cli *cli, struct sample *sample, unsigned int seconds)
{
	enum cli_exit ret = CLI_OK;

	while (ret == CLI_OK && !ferror(stdout)) {
		if (sample->before || cli->json)
			show(cli, sample, true);
		json_decref(sample->before);
		sample->before = sample->now;
		sample->now = NULL;
		sleep(seconds);
		ret = cli_call(cli, "stat", json_object(), &sample->now);
		if (ret == CLI_OK)
			sample->seconds = seconds_between(sample->before, sample->now);
	}
	return ret;
}

enum cli_exit cli_stat(struct cli *cli)
{
	struct sample sample = { 0 };
	unsigned int seconds;
	enum cli_exit ret = read_interval(cli, &seconds);

	if (ret == CLI_OK)
		ret = cli_call(cli, "stat", json_object(), &sample.now);
	if (ret)
		return ret;
	if (seconds > 0)
		ret = watch(cli, &sample, seconds);
	else
		show(cli, &sample, false);
	json_decref(sample.now);
	json_decref(sample.before);
	return ret;
}
