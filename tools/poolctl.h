/* Shared by the files of poolctl. One table of commands (poolctl_commands.c) gives parsing, help and completion. */
#ifndef TOOLS_POOLCTL_H
#define TOOLS_POOLCTL_H

#include <stdbool.h>
#include <stdint.h>

#include <jansson.h>

#include "pool/base/size.h"
#include "tools/poolctl_table.h"
#include "tools/rpc.h"

/* X(name, number, what). */
#define CLI_EXITS(X)                                                               \
	X(OK, 0, "done")                                                           \
	X(FAILED, 1, "the command failed")                                         \
	X(USAGE, 2, "the command was not understood, or an argument is wrong")     \
	X(UNREACHABLE, 3, "poold cannot be reached, or was lost")                  \
	X(NOT_FOUND, 4, "there is no such pool, volume, snapshot, export or disk") \
	X(BUSY, 5, "it is in use, exists already, or holds data")                  \
	X(REFUSED, 6, "not permitted, or not without --yes or --force")

enum cli_exit {
#define X(name, number, what) CLI_##name = (number),
	CLI_EXITS(X)
#undef X
};

#define CLI_ARGS_MAX 260
#define CLI_OPTIONS_MAX 8

struct cli_option {
	const char *name;
	char letter;     /* 0: none */
	const char *arg; /* NULL: a flag; "[X]": may be left out, then given as --name=X only */
	bool required;
	const char *help;
};

struct cli;

struct cli_command {
	const char *noun, *verb;          /* verb NULL: one word is the command */
	const char *args;                 /* "POOL DISK...": "[X]" is optional, "X..." one or more */
	const struct cli_option *options; /* ends with a NULL name; NULL: none */
	enum cli_exit (*run)(struct cli *cli);
	bool offline; /* runs without the daemon */
	const char *help;
};

/* One call of poolctl. */
struct cli {
	const char *socket;
	bool json, help, version;
	const struct cli_command *command;
	const char *noun; /* given, when there is no command */
	const char *args[CLI_ARGS_MAX + 1];
	int arg_count;
	const char *values[CLI_OPTIONS_MAX]; /* of command->options; NULL: not given; "": a flag, or no value */
	struct rpc *rpc;
};

/* --- poolctl_commands.c ----------------------------------------------------------------------------------- */

extern const struct cli_command cli_commands[];
extern const struct cli_option cli_global_options[];
/* NULL if there is none. verb may be NULL. */
const struct cli_command *cli_find_command(const char *noun, const char *verb);
bool cli_is_noun(const char *noun);
/* "poolctl pool create NAME DISK... [--force]", in a static buffer. */
const char *cli_synopsis(const struct cli_command *command);
/* Everything; or a noun's commands; or one command in full. */
void cli_print_help(FILE *file, const char *noun, const struct cli_command *command);
enum cli_exit cli_run_help(struct cli *cli);

/* --- poolctl_args.c --------------------------------------------------------------------------------------- */

/* Fills in cli from the command line. CLI_USAGE: a message is printed. */
enum cli_exit cli_parse(struct cli *cli, int argc, char **argv);
/* The n-th word of args, without brackets and dots; "" beyond the end unless the last one repeats. */
const char *cli_arg_kind(const struct cli_command *command, int n, char *buf, size_t size_bytes);
/* The value of an option, "" for a flag, NULL if not given. */
const char *cli_value(const struct cli *cli, const char *option);

/* --- poolctl.c: for commands ------------------------------------------------------------------------------ */

enum cli_exit cli_connect(struct cli *cli);
/* Calls a method. params is consumed; NULL: it could not be made. A failure is printed. */
enum cli_exit cli_call(struct cli *cli, const char *method, json_t *params, json_t **result);
/* Prints the result if --json was given; true then. */
bool cli_print_json(const struct cli *cli, const json_t *result);
/* Calls a method of which nothing is shown but, without --json, the text. */
enum cli_exit cli_do(struct cli *cli, const char *method, json_t *params, const char *fmt, ...)
	__attribute__((format(printf, 4, 5)));
enum cli_exit cli_fail(const struct cli *cli, enum cli_exit code, int errno_code, const char *fmt, ...)
	__attribute__((format(printf, 4, 5)));
/* CLI_OK if --yes was given or a person agrees. */
enum cli_exit cli_confirm(const struct cli *cli, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* The option's size in bytes; fallback if it is not given. CLI_USAGE: a message is printed. */
enum cli_exit cli_size(const struct cli *cli, const char *option, uint64_t fallback, uint64_t *size_bytes);

/* Members of an answer; "" or 0 where there is none. */
const char *cli_text(const json_t *object, const char *key);
unsigned long long cli_number(const json_t *object, const char *key);
/* A size for people, or "-" where there is none; in one of a few static buffers. */
const char *cli_size_text(const json_t *object, const char *key);
/* "2026-01-31 09:00:00", or "-" where there is none; in a static buffer. */
const char *cli_time_text(const json_t *object, const char *key);
/* Where a volume or snapshot is exported: "/run/web0.sock, /run/other.sock", or "-"; in a static buffer. */
const char *cli_addresses_text(const json_t *image);
/* The daemon's working folder is another one: an absolute path, to be freed. NULL: no memory. */
char *cli_absolute(const char *path);
/* The same for a disk: a path, "file:PATH" or another URI. */
char *cli_absolute_disk(const char *disk);

/* The tables of pool list and export list, which status shows too. */
void cli_print_pools(const json_t *pools);
void cli_print_exports(const json_t *exports);

/* --- commands --------------------------------------------------------------------------------------------- */

enum cli_exit cli_pool_create(struct cli *cli);
enum cli_exit cli_pool_list(struct cli *cli);
enum cli_exit cli_pool_show(struct cli *cli);
enum cli_exit cli_pool_export(struct cli *cli);
enum cli_exit cli_pool_import(struct cli *cli);
enum cli_exit cli_pool_add(struct cli *cli);
enum cli_exit cli_pool_destroy(struct cli *cli);
enum cli_exit cli_disk_probe(struct cli *cli);
enum cli_exit cli_disk_discover(struct cli *cli);
enum cli_exit cli_disk_list(struct cli *cli);
enum cli_exit cli_disk_offline(struct cli *cli);
enum cli_exit cli_disk_online(struct cli *cli);
enum cli_exit cli_disk_remove(struct cli *cli);
enum cli_exit cli_scrub_start(struct cli *cli);
enum cli_exit cli_scrub_status(struct cli *cli);
enum cli_exit cli_volume_create(struct cli *cli);
enum cli_exit cli_volume_list(struct cli *cli);
enum cli_exit cli_volume_show(struct cli *cli);
enum cli_exit cli_volume_resize(struct cli *cli);
enum cli_exit cli_volume_rename(struct cli *cli);
enum cli_exit cli_volume_delete(struct cli *cli);
enum cli_exit cli_volume_import(struct cli *cli);
enum cli_exit cli_volume_export(struct cli *cli);
enum cli_exit cli_volume_fence(struct cli *cli);
enum cli_exit cli_clone(struct cli *cli);
enum cli_exit cli_snapshot_create(struct cli *cli);
enum cli_exit cli_snapshot_list(struct cli *cli);
enum cli_exit cli_snapshot_show(struct cli *cli);
enum cli_exit cli_snapshot_rename(struct cli *cli);
enum cli_exit cli_snapshot_delete(struct cli *cli);
enum cli_exit cli_snapshot_rollback(struct cli *cli);
enum cli_exit cli_send(struct cli *cli);
enum cli_exit cli_recv(struct cli *cli);

enum cli_exit cli_snapshot_diff(struct cli *cli);
enum cli_exit cli_export_add(struct cli *cli);
enum cli_exit cli_export_list(struct cli *cli);
enum cli_exit cli_export_remove(struct cli *cli);
enum cli_exit cli_status(struct cli *cli);
enum cli_exit cli_retry(struct cli *cli);
enum cli_exit cli_stat(struct cli *cli);
/* What may stand for the last word of argv, one a line; what comes before are the words so far. */
enum cli_exit cli_complete(struct cli *cli, int argc, char **argv);

#endif
