/* What the bash completion asks: "poolctl __complete WORD..." prints what may stand for the last WORD, one a line. The words
 * before it are read by the table of commands; names come from the daemon. Nothing is printed where a file may stand (the
 * shell then offers files), and whatever goes wrong goes wrong in silence. */
#include <string.h>

#include "tools/poolctl.h"

/* What the words before the last amount to. */
struct context {
	const char *noun;
	const struct cli_command *command;
	int arg_count;
	const struct cli_option *pending; /* the last of them wants a value */
};

/* --- reading what is there -------------------------------------------------------------------------------- */

static const struct cli_option *find(const struct cli_option *options, const char *word)
{
	for (; options && options->name; options++) {
		if (strncmp(word, "--", 2) == 0 && strcmp(word + 2, options->name) == 0)
			return options;
		if (options->letter && word[1] == options->letter && !word[2])
			return options;
	}
	return NULL;
}

static const struct cli_option *option_of(const struct context *context, const char *word)
{
	const struct cli_option *option = find(context->command ? context->command->options : NULL, word);

	return option ? option : find(cli_global_options, word);
}

static void read_word(struct cli *cli, struct context *context, const char *word)
{
	if (context->pending) {
		if (strcmp(context->pending->name, "socket") == 0)
			cli->socket = word;
		context->pending = NULL;
	} else if (word[0] == '-') {
		const struct cli_option *option = option_of(context, word);

		context->pending = option && option->arg && *option->arg != '[' ? option : NULL;
	} else if (context->command) {
		context->arg_count++;
	} else if (!context->noun) {
		context->noun = word;
		context->command = cli_find_command(word, NULL);
	} else {
		context->command = cli_find_command(context->noun, word);
	}
}

/* --- offering --------------------------------------------------------------------------------------------- */

static void offer(const char *text, const char *prefix)
{
	if (strncmp(text, prefix, strlen(prefix)) == 0)
		puts(text);
}

/* "POOL/VOLUME@" and "POOL/", to be gone on with. */
static void offer_at(const char *volume, const char *prefix)
{
	char text[256];

	snprintf(text, sizeof(text), "%s@", volume);
	offer(text, prefix);
}

static void offer_slash(const char *pool, const char *prefix)
{
	char text[256];

	snprintf(text, sizeof(text), "%s/", pool);
	offer(text, prefix);
}

static void offer_options(const struct cli_option *options, const char *prefix)
{
	char text[64];

	for (; options && options->name; options++) {
		snprintf(text, sizeof(text), "--%s", options->name);
		offer(text, prefix);
	}
}

static void offer_nouns(const char *prefix)
{
	const char *last = "";

	for (const struct cli_command *command = cli_commands; command->noun; command++) {
		if (strcmp(command->noun, last) != 0)
			offer(command->noun, prefix);
		last = command->noun;
	}
}

static void offer_verbs(const char *noun, const char *prefix)
{
	for (const struct cli_command *command = cli_commands; command->noun; command++) {
		if (command->verb && strcmp(command->noun, noun) == 0)
			offer(command->verb, prefix);
	}
}

/* The member `key` of each of the objects that a method lists. */
static void offer_listed(struct cli *cli, const char *method, const char *key, const char *prefix,
			 void (*put)(const char *text, const char *prefix))
{
	json_t *list, *member;
	struct err err;
	size_t i;

	if (!cli->rpc && rpc_connect(cli->socket, &cli->rpc, &err) != 0)
		return;
	if (rpc_call(cli->rpc, method, json_object(), &list, &err) != 0)
		return;
	json_array_foreach(list, i, member)
		put(cli_text(member, key), prefix);
	json_decref(list);
}

/* What stands for each kind of argument. */
static const struct {
	const char *kind, *method, *key;
	void (*put)(const char *text, const char *prefix);
} listed[] = {
	{ "POOL", "pool.list", "name", offer },
	{ "POOL/VOLUME", "volume.list", "volume", offer },
	{ "POOL/VOLUME@SNAPSHOT", "snapshot.list", "snapshot", offer },
	{ "POOL/VOLUME@NAME", "volume.list", "volume", offer_at },
	{ "POOL/GROUP", "pool.list", "name", offer_slash },
	{ "POOL|POOL/VOLUME", "pool.list", "name", offer },
	{ "POOL|POOL/VOLUME", "volume.list", "volume", offer },
	{ "POOL/VOLUME[@SNAPSHOT]", "volume.list", "volume", offer },
	{ "POOL/VOLUME[@SNAPSHOT]", "snapshot.list", "snapshot", offer },
	{ "POOL/VOLUME[@SNAPSHOT]|ADDRESS", "export.list", "volume", offer },
	{ "POOL/VOLUME[@SNAPSHOT]|ADDRESS", "export.list", "address", offer },
};

static void offer_argument(struct cli *cli, const struct context *context, const char *prefix)
{
	char kind[32] = "";

	cli_arg_kind(context->command, context->arg_count, kind, sizeof(kind));
	for (size_t i = 0; i < sizeof(listed) / sizeof(listed[0]); i++) {
		if (strcmp(kind, listed[i].kind) == 0)
			offer_listed(cli, listed[i].method, listed[i].key, prefix, listed[i].put);
	}
	if (strcmp(kind, "NOUN") == 0)
		offer_nouns(prefix);
}

static void offer_full(const char *prefix)
{
	offer("park", prefix);
	offer("fail-after=", prefix);
}

static void offer_policies(const char *prefix)
{
	static const char *const policies[] = { "plain", "mirror2", "mirror3", "ec:2+1", "ec:4+2" };

	for (size_t i = 0; i < sizeof(policies) / sizeof(policies[0]); i++)
		offer(policies[i], prefix);
}

enum cli_exit cli_complete(struct cli *cli, int argc, char **argv)
{
	const char *prefix = argc > 0 ? argv[argc - 1] : "";
	struct context context = { 0 };

	for (int i = 0; i < argc - 1; i++)
		read_word(cli, &context, argv[i]);
	if (context.pending) {
		if (strcmp(context.pending->name, "policy") == 0)
			offer_policies(prefix);
		else if (strcmp(context.pending->name, "full") == 0)
			offer_full(prefix);
	} else if (*prefix == '-') {
		offer_options(context.command ? context.command->options : NULL, prefix);
		offer_options(cli_global_options, prefix);
	} else if (context.command) {
		offer_argument(cli, &context, prefix);
	} else if (context.noun) {
		offer_verbs(context.noun, prefix);
	} else {
		offer_nouns(prefix);
	}
	return CLI_OK;
}
