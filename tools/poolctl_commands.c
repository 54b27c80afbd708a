/* poolctl's commands: the table, and the help made from it.
 *
 * A new command: 1 its line here; 2 its function, declared in poolctl.h; 3 its paragraph in man/poolctl.8 (a test compares
 * the synopsis). */
#include <stdio.h>
#include <string.h>

#include "tools/poolctl.h"
#include "tools/version.h"

/* --- options ---------------------------------------------------------------------------------------------- */

const struct cli_option cli_global_options[] = {
	{ "socket", 0, "PATH", false, "control socket of poold ($POOLD_SOCKET, or " RPC_SOCKET_DEFAULT ")" },
	{ "json", 0, NULL, false, "print JSON, with exact sizes in bytes" },
	{ "help", 'h', NULL, false, "explain the command" },
	{ "version", 0, NULL, false, "print the version" },
	{ 0 },
};

static const struct cli_option pool_create_options[] = {
	{ "zone-size", 0, "SIZE", false,
	  "unit of allocation, a power of two from 2M to 1G (by the size of the smallest disk)" },
	{ "force", 'f', NULL, false, "take disks that hold a file system or belong to another pool" },
	{ "create-size", 0, "SIZE", false, "make files that do not exist, sparse and of this size" },
	{ "preallocate", 0, NULL, false, "allocate the files made by --create-size in full" },
	{ 0 },
};
static const struct cli_option pool_add_options[] = {
	{ "force", 'f', NULL, false, "take a disk that holds a file system or belongs to another pool" },
	{ "create-size", 0, "SIZE", false, "make the file if it does not exist, sparse and of this size" },
	{ "preallocate", 0, NULL, false, "allocate the file made by --create-size in full" },
	{ 0 },
};
static const struct cli_option pool_export_options[] = {
	{ "force", 'f', NULL, false, "remove the exports of its volumes too" },
	{ 0 },
};
static const struct cli_option pool_destroy_options[] = {
	{ "force", 'f', NULL, false, "remove the exports of its volumes too" },
	{ "yes", 'y', NULL, false, "do not ask" },
	{ 0 },
};
static const struct cli_option volume_create_options[] = {
	{ "size", 's', "SIZE", true, "size the guest sees, such as 20G" },
	{ "policy", 0, "POLICY", false, "redundancy: plain, mirror2, mirror3 or ec:K+M" },
	{ 0 },
};
static const struct cli_option volume_resize_options[] = {
	{ "force", 'f', NULL, false, "shrink: what is beyond the new size is lost" },
	{ 0 },
};
static const struct cli_option volume_delete_options[] = {
	{ "snapshots", 0, NULL, false, "delete its snapshots too" },
	{ "yes", 'y', NULL, false, "do not ask" },
	{ 0 },
};
static const struct cli_option yes_options[] = {
	{ "yes", 'y', NULL, false, "do not ask" },
	{ 0 },
};
static const struct cli_option export_add_options[] = {
	{ "vhost-user", 0, "PATH", false, "serve a guest by vhost-user-blk on a socket made here" },
	{ "queues", 'q', "N", false, "vhost-user: queues offered to the guest (4)" },
	{ "nbd", 0, "ADDRESS", false, "serve tools by NBD at unix:PATH or tcp:HOST:PORT" },
	{ "tls-certs", 0, "DIR", false, "NBD: only with TLS, by the certificates in this folder" },
	{ "tls-psk", 0, "FILE", false, "NBD: only with TLS, by the pre-shared keys in this file" },
	{ "read-only", 'r', NULL, false, "refuse writes (always so for a snapshot)" },
	{ "standby", 's', NULL, false, "beside another export: its clients may write when the other's have stopped" },
	{ 0 },
};
static const struct cli_option volume_import_options[] = {
	{ "format", 0, "FORMAT", false, "of the file, as qemu-img calls it (found out, if it stands alone)" },
	{ "policy", 0, "POLICY", false, "redundancy: plain, mirror2, mirror3 or ec:K+M" },
	{ 0 },
};
static const struct cli_option volume_export_options[] = {
	{ "format", 0, "FORMAT", true, "raw or qcow2" },
	{ "force", 'f', NULL, false, "replace the file" },
	{ 0 },
};
static const struct cli_option send_options[] = {
	{ "since", 0, "SNAPSHOT", false, "send what came after this snapshot, which the receiver has" },
	{ "compress", 0, NULL, false, "compress the data" },
	{ 0 },
};
static const struct cli_option recv_options[] = {
	{ "resume", 0, NULL, false, "go on where an earlier one broke off, given the same stream again" },
	{ "policy", 0, "POLICY", false, "redundancy of a new volume (that of the one sent)" },
	{ 0 },
};
static const struct cli_option stat_options[] = {
	{ "watch", 'w', "[SECONDS]", false, "show rates, again and again (1)" },
	{ 0 },
};

/* --- the table -------------------------------------------------------------------------------------------- */

const struct cli_command cli_commands[] = {
	{ "pool", "create", "NAME DISK...", pool_create_options, cli_pool_create, false, "make a pool of disks" },
	{ "pool", "list", "", NULL, cli_pool_list, false, "list pools" },
	{ "pool", "show", "POOL", NULL, cli_pool_show, false, "show a pool and its disks" },
	{ "pool", "export", "POOL", pool_export_options, cli_pool_export, false,
	  "close a pool and forget it; its data stays" },
	{ "pool", "import", "DISK...", NULL, cli_pool_import, false, "open a pool from all of its disks" },
	{ "pool", "add", "POOL DISK", pool_add_options, cli_pool_add, false, "add a disk to a pool" },
	{ "pool", "destroy", "POOL", pool_destroy_options, cli_pool_destroy, false,
	  "destroy a pool and all data on it" },
	{ "disk", "list", "POOL", NULL, cli_disk_list, false, "list the disks of a pool" },
	{ "disk", "offline", "POOL ID", NULL, cli_disk_offline, false, "go on without a disk" },
	{ "disk", "online", "POOL ID", NULL, cli_disk_online, false, "take a disk back, and mend what it missed" },
	{ "disk", "remove", "POOL ID", NULL, cli_disk_remove, false,
	  "make anew elsewhere what a disk that is out had, and drop it" },
	{ "disk", "probe", "DISK", NULL, cli_disk_probe, false, "tell what a disk holds" },
	{ "disk", "discover", "SERVER", NULL, cli_disk_discover, false, "list what an iSCSI portal or NBD server offers" },
	{ "scrub", "start", "POOL", NULL, cli_scrub_start, false, "verify everything, and mend what is wrong" },
	{ "scrub", "status", "POOL", NULL, cli_scrub_status, false, "tell what scrubs and mending did" },
	{ "volume", "create", "POOL/VOLUME", volume_create_options, cli_volume_create, false, "make a thin volume" },
	{ "volume", "list", "[POOL]", NULL, cli_volume_list, false, "list volumes" },
	{ "volume", "show", "POOL/VOLUME", NULL, cli_volume_show, false, "show a volume" },
	{ "volume", "resize", "POOL/VOLUME SIZE", volume_resize_options, cli_volume_resize, false,
	  "set a volume's size, or with +SIZE or -SIZE change it" },
	{ "volume", "rename", "POOL/VOLUME NAME", NULL, cli_volume_rename, false, "give a volume another name" },
	{ "volume", "delete", "POOL/VOLUME", volume_delete_options, cli_volume_delete, false,
	  "delete a volume and its data" },
	{ "volume", "import", "FILE POOL/VOLUME", volume_import_options, cli_volume_import, false,
	  "make a volume of a disk image" },
	{ "volume", "export", "POOL/VOLUME[@SNAPSHOT] FILE", volume_export_options, cli_volume_export, false,
	  "make a disk image of a volume or snapshot" },
	{ "volume", "fence", "POOL/VOLUME", yes_options, cli_volume_fence, false,
	  "whoever writes a volume now may not go on" },
	{ "snapshot", "create", "POOL/VOLUME@NAME...", NULL, cli_snapshot_create, false,
	  "make snapshots of volumes of one pool, all at one instant" },
	{ "snapshot", "list", "[POOL|POOL/VOLUME]", NULL, cli_snapshot_list, false, "list snapshots" },
	{ "snapshot", "show", "POOL/VOLUME@SNAPSHOT", NULL, cli_snapshot_show, false, "show a snapshot" },
	{ "snapshot", "rename", "POOL/VOLUME@SNAPSHOT NAME", NULL, cli_snapshot_rename, false,
	  "give a snapshot another name" },
	{ "snapshot", "diff", "POOL/VOLUME@SNAPSHOT [POOL/VOLUME[@SNAPSHOT]]", NULL, cli_snapshot_diff, false,
	  "tell what changed since a snapshot" },
	{ "snapshot", "rollback", "POOL/VOLUME@SNAPSHOT", yes_options, cli_snapshot_rollback, false,
	  "give a volume back what its snapshot holds" },
	{ "snapshot", "delete", "POOL/VOLUME@SNAPSHOT", yes_options, cli_snapshot_delete, false, "delete a snapshot" },
	{ "clone", NULL, "POOL/VOLUME[@SNAPSHOT] POOL/CLONE", NULL, cli_clone, false,
	  "make a volume that begins with what a snapshot or volume holds" },
	{ "send", NULL, "POOL/VOLUME@SNAPSHOT", send_options, cli_send, false,
	  "write a snapshot, and those before it, to standard output" },
	{ "recv", NULL, "POOL/VOLUME", recv_options, cli_recv, false, "take snapshots from standard input into a volume" },
	{ "export", "add", "POOL/VOLUME[@SNAPSHOT]", export_add_options, cli_export_add, false,
	  "serve a volume, or a snapshot read-only" },
	{ "export", "list", "", NULL, cli_export_list, false, "list exports" },
	{ "export", "remove", "POOL/VOLUME[@SNAPSHOT]|ADDRESS", NULL, cli_export_remove, false,
	  "stop serving a volume or snapshot" },
	{ "status", NULL, "", NULL, cli_status, false, "show poold, its pools and exports, and what is wrong" },
	{ "retry", NULL, "", NULL, cli_retry, false, "try again to bring up pools and exports that are down" },
	{ "stat", NULL, "", stat_options, cli_stat, false, "show counters" },
	{ "help", NULL, "[NOUN] [VERB]", NULL, cli_run_help, true, "explain commands" },
	{ 0 },
};

const struct cli_command *cli_find_command(const char *noun, const char *verb)
{
	for (const struct cli_command *command = cli_commands; command->noun; command++) {
		if (strcmp(command->noun, noun) != 0)
			continue;
		if (!command->verb || (verb && strcmp(command->verb, verb) == 0))
			return command;
	}
	return NULL;
}

bool cli_is_noun(const char *noun)
{
	for (const struct cli_command *command = cli_commands; command->noun; command++) {
		if (strcmp(command->noun, noun) == 0)
			return true;
	}
	return false;
}

/* --- help ------------------------------------------------------------------------------------------------- */

static int print_option(char *buf, size_t size_bytes, const struct cli_option *option)
{
	const char *open = option->required ? "" : "[", *close = option->required ? "" : "]";

	if (!option->arg)
		return snprintf(buf, size_bytes, " %s--%s%s", open, option->name, close);
	if (*option->arg == '[')
		return snprintf(buf, size_bytes, " [--%s[=%.*s]]", option->name, (int)strlen(option->arg) - 2,
				option->arg + 1);
	return snprintf(buf, size_bytes, " %s--%s %s%s", open, option->name, option->arg, close);
}

const char *cli_synopsis(const struct cli_command *command)
{
	static char text[256];
	int len = snprintf(text, sizeof(text), "poolctl %s%s%s%s%s", command->noun, command->verb ? " " : "",
			   command->verb ? command->verb : "", *command->args ? " " : "", command->args);

	for (const struct cli_option *option = command->options; option && option->name; option++)
		len += print_option(text + len, sizeof(text) - (size_t)len, option);
	return text;
}

static void explain_options(FILE *file, const struct cli_option *options)
{
	for (; options && options->name; options++) {
		char left[48], letter[8] = "";

		if (options->letter)
			snprintf(letter, sizeof(letter), "-%c, ", options->letter);
		snprintf(left, sizeof(left), "%s--%s%s%s", letter, options->name,
			 options->arg && *options->arg != '[' ? " " : "", options->arg ? options->arg : "");
		fprintf(file, "  %-24s %s\n", left, options->help);
	}
}

static void print_command_help(FILE *file, const struct cli_command *command)
{
	fprintf(file, "usage: %s\n\n  %s\n\n", cli_synopsis(command), command->help);
	explain_options(file, command->options);
	explain_options(file, cli_global_options);
}

/* All commands, or a noun's. */
static void print_commands(FILE *file, const char *noun)
{
	for (const struct cli_command *command = cli_commands; command->noun; command++) {
		if (!noun || strcmp(command->noun, noun) == 0)
			fprintf(file, "  %s\n      %s\n", cli_synopsis(command), command->help);
	}
}

static void print_exits(FILE *file)
{
	fprintf(file, "\nexit codes:\n");
#define X(name, number, what) fprintf(file, "  %d  %s\n", number, what);
	CLI_EXITS(X)
#undef X
}

void cli_print_help(FILE *file, const char *noun, const struct cli_command *command)
{
	if (command) {
		print_command_help(file, command);
		return;
	}
	fprintf(file, "usage: poolctl [--socket PATH] [--json] %s ...\n\n", noun ? noun : "NOUN VERB");
	print_commands(file, noun);
	if (noun)
		return;
	fprintf(file, "\noptions of all commands:\n");
	explain_options(file, cli_global_options);
	print_exits(file);
	fprintf(file, "\npoolctl(8) tells more.\n");
}

enum cli_exit cli_run_help(struct cli *cli)
{
	const char *noun = cli->args[0], *verb = cli->args[1];

	if (noun && !cli_is_noun(noun))
		return cli_fail(cli, CLI_USAGE, 0, "no command '%s'; 'poolctl help' lists them", noun);
	if (noun && verb && !cli_find_command(noun, verb))
		return cli_fail(cli, CLI_USAGE, 0, "no command '%s %s'; 'poolctl help %s' lists them", noun, verb,
				noun);
	cli_print_help(stdout, noun, noun ? cli_find_command(noun, verb) : NULL);
	return CLI_OK;
}
