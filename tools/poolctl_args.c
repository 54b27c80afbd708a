/* poolctl's command line, read by the table of commands.
 *
 *	poolctl [OPTION]... NOUN [VERB] [ARGUMENT | OPTION]...
 *
 * Options may stand anywhere behind the command they belong to, those of all commands anywhere. "--" ends them. A dash and
 * a digit begin no option: "-10G" is an argument. An option whose value may be left out takes it as "--watch=5", or as the
 * next word if that is a number. */
#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "tools/poolctl.h"

/* --- the specification of arguments ----------------------------------------------------------------------- */

static bool repeats(const char *word, size_t len)
{
	return len > 3 && strncmp(word + len - 3, "...", 3) == 0;
}

const char *cli_arg_kind(const struct cli_command *command, int n, char *buf, size_t size_bytes)
{
	const char *pos = command->args, *word = "";
	size_t len = 0;

	for (int i = 0; i <= n && *pos; i++) {
		word = pos;
		len = strcspn(pos, " ");
		if (repeats(word, len))
			break;
		pos += len;
		pos += strspn(pos, " ");
		if (i < n && !*pos)
			return "";
	}
	if (repeats(word, len))
		len -= 3;
	if (*word == '[') {
		word++;
		len -= 2;
	}
	snprintf(buf, size_bytes, "%.*s", (int)len, word);
	return buf;
}

/* How many arguments there must be at least. */
static int args_needed(const struct cli_command *command)
{
	int count = 0;

	for (const char *pos = command->args; *pos; pos += strcspn(pos, " "), pos += strspn(pos, " "))
		count += *pos != '[';
	return count;
}

static enum cli_exit check_counts(const struct cli *cli)
{
	const struct cli_command *command = cli->command;
	char kind[32];

	if (cli->arg_count < args_needed(command)) {
		cli_arg_kind(command, cli->arg_count, kind, sizeof(kind));
		return cli_fail(cli, CLI_USAGE, 0, "%s is missing; usage: %s", kind, cli_synopsis(command));
	}
	if (cli->arg_count > 0 && !*cli_arg_kind(command, cli->arg_count - 1, kind, sizeof(kind)))
		return cli_fail(cli, CLI_USAGE, 0, "unexpected argument '%s'; usage: %s", cli->args[cli->arg_count - 1],
				cli_synopsis(command));
	for (int i = 0; command->options && command->options[i].name; i++) {
		if (command->options[i].required && !cli->values[i])
			return cli_fail(cli, CLI_USAGE, 0, "--%s is missing; usage: %s", command->options[i].name,
					cli_synopsis(command));
	}
	return CLI_OK;
}

/* --- options ---------------------------------------------------------------------------------------------- */

const char *cli_value(const struct cli *cli, const char *option)
{
	const struct cli_option *options = cli->command->options;

	for (int i = 0; options && options[i].name; i++) {
		if (strcmp(options[i].name, option) == 0)
			return cli->values[i];
	}
	return NULL;
}

/* Whether word, which begins with a dash, is this option; *value becomes what stands behind '='. */
static bool is_option(const struct cli_option *option, const char *word, const char **value)
{
	size_t len = strlen(option->name);

	*value = NULL;
	if (option->letter && word[1] == option->letter && !word[2])
		return true;
	if (word[1] != '-' || strncmp(word + 2, option->name, len) != 0)
		return false;
	if (word[2 + len] == '=')
		*value = word + 2 + len + 1;
	return word[2 + len] == '=' || word[2 + len] == '\0';
}

static int find_option(const struct cli_option *options, const char *word, const char **value)
{
	for (int i = 0; options && options[i].name; i++) {
		if (is_option(&options[i], word, value))
			return i;
	}
	return -1;
}

/* Completes *value from the next word where the option wants one. Returns how many words that took, or -1. */
static int take_value(const struct cli *cli, const struct cli_option *option, char **next, const char **value)
{
	bool optional = option->arg && *option->arg == '[';

	if (!option->arg && *value) {
		cli_fail(cli, CLI_USAGE, 0, "option '--%s' takes no value", option->name);
		return -1;
	}
	if (*value || !option->arg || (optional && (!*next || !isdigit((unsigned char)**next)))) {
		*value = *value ? *value : "";
		return 0;
	}
	if (!*next) {
		cli_fail(cli, CLI_USAGE, 0, "option '--%s' needs a value (%s)", option->name, option->arg);
		return -1;
	}
	*value = *next;
	return 1;
}

static void set_global(struct cli *cli, const char *name, const char *value)
{
	if (strcmp(name, "socket") == 0)
		cli->socket = value;
	else if (strcmp(name, "json") == 0)
		cli->json = true;
	else if (strcmp(name, "help") == 0)
		cli->help = true;
	else
		cli->version = true;
}

/* words[0] begins with a dash. Returns how many words it took beyond that, or -1. */
static int take_option(struct cli *cli, char **words)
{
	const struct cli_option *options = cli->command ? cli->command->options : NULL;
	const char *value;
	int i, taken;

	i = find_option(options, words[0], &value);
	if (i >= 0) {
		taken = take_value(cli, &options[i], words + 1, &value);
		cli->values[i] = value;
		return taken;
	}
	i = find_option(cli_global_options, words[0], &value);
	if (i < 0) {
		cli_fail(cli, CLI_USAGE, 0, "unknown option '%s'; 'poolctl help%s%s' explains", words[0],
			 cli->noun ? " " : "", cli->noun ? cli->noun : "");
		return -1;
	}
	taken = take_value(cli, &cli_global_options[i], words + 1, &value);
	if (taken >= 0)
		set_global(cli, cli_global_options[i].name, value);
	return taken;
}

/* --- words ------------------------------------------------------------------------------------------------ */

/* A word that is no option: noun, verb or argument. */
static enum cli_exit take_word(struct cli *cli, const char *word)
{
	if (cli->command) {
		if (cli->arg_count == CLI_ARGS_MAX)
			return cli_fail(cli, CLI_USAGE, 0, "more than %d arguments", CLI_ARGS_MAX);
		cli->args[cli->arg_count++] = word;
		return CLI_OK;
	}
	if (!cli->noun) {
		if (!cli_is_noun(word))
			return cli_fail(cli, CLI_USAGE, 0, "no command '%s'; 'poolctl help' lists them", word);
		cli->noun = word;
		cli->command = cli_find_command(word, NULL);
		return CLI_OK;
	}
	cli->command = cli_find_command(cli->noun, word);
	if (!cli->command)
		return cli_fail(cli, CLI_USAGE, 0, "no command '%s %s'; 'poolctl help %s' lists them", cli->noun, word,
				cli->noun);
	return CLI_OK;
}

static bool begins_option(const char *word)
{
	return word[0] == '-' && word[1] && !isdigit((unsigned char)word[1]);
}

enum cli_exit cli_parse(struct cli *cli, int argc, char **argv)
{
	bool words_only = false;

	for (int i = 1; i < argc; i++) {
		if (!words_only && strcmp(argv[i], "--") == 0) {
			words_only = true;
		} else if (!words_only && begins_option(argv[i])) {
			int taken = take_option(cli, argv + i);

			if (taken < 0)
				return CLI_USAGE;
			i += taken;
		} else if (take_word(cli, argv[i]) != CLI_OK) {
			return CLI_USAGE;
		}
	}
	if (cli->help || cli->version)
		return CLI_OK;
	if (!cli->command) {
		cli_print_help(stderr, cli->noun, NULL);
		return CLI_USAGE;
	}
	return check_counts(cli);
}
