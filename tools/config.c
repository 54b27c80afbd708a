/* poold's options: see config.h.
 *
 * The file is a JSON object whose keys are the long options with '_' for '-'. Values are strings as on the command line;
 * flags are true or false, and sizes and counts may be numbers too:
 *
 *	{"socket": "/run/poold/poold.sock", "cores": "0,2-3", "map_cache": "256M", "test_faults": false}
 */
#include "tools/config.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "pool/base/size.h"
#include "tools/json_text.h"

#define CONFIG_FILE_BYTES_MAX 65536

struct option_def;
typedef int (*option_set)(struct config *config, const struct option_def *def, const char *value, struct err *err);

struct option_def {
	const char *name;
	const char *arg; /* NULL: a flag */
	size_t offset;   /* of its member in struct config */
	option_set set;
	bool command_line_only;
	const char *help;
};

/* --- values ----------------------------------------------------------------------------------------------- */

static void *member_of(struct config *config, const struct option_def *def)
{
	return (char *)config + def->offset;
}

static int set_text(struct config *config, const struct option_def *def, const char *value, struct err *err)
{
	char **text = member_of(config, def);
	char *copy;

	if (!*value)
		return err_set(err, -EINVAL, "it is empty");
	copy = strdup(value);
	if (!copy)
		return err_set(err, -ENOMEM, "no memory");
	free(*text);
	*text = copy;
	return 0;
}

static int set_flag(struct config *config, const struct option_def *def, const char *value, struct err *err)
{
	bool *flag = member_of(config, def);

	*flag = strcmp(value, "true") == 0;
	return 0;
}

static int set_size(struct config *config, const struct option_def *def, const char *value, struct err *err)
{
	uint64_t *size = member_of(config, def);

	if (size_parse(value, size) != 0)
		return err_set(err, -EINVAL, "'%s' is not a size; give one such as 64M", value);
	return 0;
}

/* Seconds, or a number of minutes, hours or days: 90, 5m, 12h, 7d. */
static int set_time(struct config *config, const struct option_def *def, const char *value, struct err *err)
{
	static const struct {
		const char *suffix;
		uint64_t seconds;
	} units[] = { { "", 1 }, { "s", 1 }, { "m", 60 }, { "h", 3600 }, { "d", 86400 } };
	char *end;
	unsigned long number = strtoul(value, &end, 10);

	for (size_t i = 0; i < sizeof(units) / sizeof(units[0]); i++) {
		if (*value < '0' || *value > '9' || number > 1000000 || strcmp(end, units[i].suffix) != 0)
			continue;
		*(uint64_t *)member_of(config, def) = number * units[i].seconds;
		return 0;
	}
	return err_set(err, -EINVAL, "'%s' is not a time; give one such as 90, 5m, 12h or 7d", value);
}

static int set_log_level(struct config *config, const struct option_def *def, const char *value, struct err *err)
{
	int level = log_level_parse(value);

	if (level < 0)
		return err_set(err, -EINVAL, "'%s' is none of error, warning, info, debug", value);
	config->log_level = (enum log_level)level;
	return 0;
}

static int add_cpu(struct config *config, unsigned long cpu, struct err *err)
{
	for (uint32_t i = 0; i < config->cpu_count; i++) {
		if (config->cpus[i] == (int)cpu)
			return err_set(err, -EINVAL, "core %lu is named twice", cpu);
	}
	if (config->cpu_count == CONFIG_CORES_MAX)
		return err_set(err, -EINVAL, "more than %d cores", CONFIG_CORES_MAX);
	config->cpus[config->cpu_count++] = (int)cpu;
	return 0;
}

/* Reads "3" or "3-5" at *pos. */
static int add_cpu_range(struct config *config, const char **pos, struct err *err)
{
	char *end;
	unsigned long first = strtoul(*pos, &end, 10), last = first;
	bool valid = end != *pos && **pos >= '0' && **pos <= '9';
	int ret = 0;

	if (valid && *end == '-') {
		*pos = end + 1;
		last = strtoul(*pos, &end, 10);
		valid = end != *pos && **pos >= '0' && **pos <= '9';
	}
	if (!valid || last < first || last >= CPU_SETSIZE)
		return err_set(err, -EINVAL, "it is not a list of cores such as 0,2-3");
	*pos = end;
	for (unsigned long cpu = first; cpu <= last && ret == 0; cpu++)
		ret = add_cpu(config, cpu, err);
	return ret;
}

static int set_cores(struct config *config, const struct option_def *def, const char *value, struct err *err)
{
	int ret;

	config->cpu_count = 0;
	do {
		ret = add_cpu_range(config, &value, err);
	} while (ret == 0 && *value++ == ',');
	if (ret == 0 && value[-1] != '\0')
		ret = err_set(err, -EINVAL, "it is not a list of cores such as 0,2-3");
	return ret;
}

/* --- the table -------------------------------------------------------------------------------------------- */

#define MEMBER(name) offsetof(struct config, name)

static const struct option_def options[] = {
	{ "socket", "PATH", MEMBER(socket), set_text, false, "control socket (" CONFIG_SOCKET_DEFAULT ")" },
	{ "state", "DIR", MEMBER(state), set_text, false, "state folder (" CONFIG_STATE_DEFAULT ")" },
	{ "config", "FILE", MEMBER(file), set_text, true, "JSON file with these options as keys, '_' for '-'" },
	{ "cores", "LIST", MEMBER(cpus), set_cores, false, "one pinned thread for each, e.g. 0,2-3 (one, not pinned)" },
	{ "map-cache", "SIZE", MEMBER(map_cache_bytes), set_size, false, "map cache of each thread (64M)" },
	{ "overlay-entries", "N", MEMBER(overlay_entries), set_size, false,
	  "map changes a volume keeps in memory until a checkpoint" },
	{ "checkpoint-log", "SIZE", MEMBER(checkpoint_log_bytes), set_size, false,
	  "log a volume writes until a checkpoint; bounds recovery (1G)" },
	{ "spare-after", "TIME", MEMBER(spare_after_s), set_time, false,
	  "a disk that failed so long ago is replaced by a spare (5m)" },
	{ "scrub-every", "TIME", MEMBER(scrub_every_s), set_time, false,
	  "verify everything in pools that have been open so long, and again (never)" },
	{ "log-level", "LEVEL", MEMBER(log_level), set_log_level, false, "error, warning, info or debug (info)" },
	{ "test-faults", NULL, MEMBER(test_faults), set_flag, false, "accept fault: disks; for tests only" },
	{ "help", NULL, MEMBER(show_help), set_flag, true, "this text" },
	{ "version", NULL, MEMBER(show_version), set_flag, true, "the version" },
};

#define OPTION_COUNT (sizeof(options) / sizeof(options[0]))

void config_print_options(void)
{
	for (size_t i = 0; i < OPTION_COUNT; i++) {
		char left[64];

		snprintf(left, sizeof(left), "--%s %s", options[i].name, options[i].arg ? options[i].arg : "");
		printf("  %-24s %s\n", left, options[i].help);
	}
}

/* Compares with '_' and '-' alike. */
static bool same_name(const char *name, const char *given, size_t len)
{
	for (size_t i = 0; i < len; i++) {
		if (name[i] != (given[i] == '_' ? '-' : given[i]))
			return false;
	}
	return name[len] == '\0';
}

static const struct option_def *find_option(const char *name, size_t len)
{
	for (size_t i = 0; i < OPTION_COUNT; i++) {
		if (strnlen(options[i].name, len + 1) == len && same_name(options[i].name, name, len))
			return &options[i];
	}
	return NULL;
}

/* --- the file --------------------------------------------------------------------------------------------- */

/* The command line's form of a JSON value in text, or NULL. */
static const char *value_text(const struct option_def *def, const json_t *value, char text[32])
{
	if (!def->arg)
		return json_is_boolean(value) ? (json_is_true(value) ? "true" : "false") : NULL;
	if (json_is_string(value))
		return json_string_value(value);
	if (def->set != set_size || !json_is_integer(value) || json_integer_value(value) < 0)
		return NULL;
	snprintf(text, 32, "%lld", (long long)json_integer_value(value));
	return text;
}

static int set_from_json(struct config *config, const char *key, const json_t *value, struct err *err)
{
	const struct option_def *def = find_option(key, strlen(key));
	char number[32];
	const char *text;
	int ret;

	if (!def || def->command_line_only)
		return err_set(err, -EINVAL, "unknown key '%s'", key);
	text = value_text(def, value, number);
	if (!text)
		return err_set(err, -EINVAL, "key '%s': wrong type", key);
	ret = def->set(config, def, text, err);
	return ret ? err_prefix(err, ret, "key '%s'", key) : 0;
}

int config_from_text(struct config *config, const char *text, size_t len_bytes, struct err *err)
{
	const char *key;
	json_t *root, *value;
	int ret = json_text_parse(text, len_bytes, &root, err);

	if (ret)
		return ret;
	if (!json_is_object(root))
		ret = err_set(err, -EINVAL, "it must be one JSON object");
	json_object_foreach(root, key, value) {
		ret = set_from_json(config, key, value, err);
		if (ret)
			break;
	}
	json_decref(root);
	return ret;
}

static int read_file(struct config *config, const char *path, struct err *err)
{
	static char text[CONFIG_FILE_BYTES_MAX];
	FILE *file = fopen(path, "re");
	size_t len;
	int ret = 0;

	if (!file)
		return err_set(err, -errno, "cannot open configuration '%s': %m", path);
	len = fread(text, 1, sizeof(text), file);
	if (ferror(file))
		ret = err_set(err, -EIO, "cannot read configuration '%s'", path);
	else if (len == sizeof(text))
		ret = err_set(err, -EFBIG, "configuration '%s' is too large", path);
	fclose(file);
	if (ret)
		return ret;
	ret = config_from_text(config, text, len, err);
	return ret ? err_prefix(err, ret, "configuration '%s'", path) : 0;
}

/* --- the command line ------------------------------------------------------------------------------------- */

/* One argument "--name", "--name value" or "--name=value": sets def and value and moves *i over what it took. */
static int split_argument(int argc, char **argv, int *i, const struct option_def **def, const char **value,
			  struct err *err)
{
	const char *arg = argv[*i];
	const char *equals = strchrnul(arg, '=');

	if (strncmp(arg, "--", 2) != 0)
		return err_set(err, -EINVAL, "unexpected argument '%s'", arg);
	*def = find_option(arg + 2, (size_t)(equals - arg - 2));
	if (!*def)
		return err_set(err, -EINVAL, "unknown option '%s'", arg);
	if (!(*def)->arg && *equals)
		return err_set(err, -EINVAL, "option '--%s' takes no value", (*def)->name);
	*value = (*def)->arg ? (*equals ? equals + 1 : argv[++*i]) : "true";
	if (*i >= argc || !*value)
		return err_set(err, -EINVAL, "option '--%s' needs a value (%s)", (*def)->name, (*def)->arg);
	return 0;
}

/* Sets the options for which `wanted` holds; all are checked for their form. */
static int read_arguments(struct config *config, int argc, char **argv, bool file_only, struct err *err)
{
	for (int i = 1; i < argc; i++) {
		const struct option_def *def = NULL;
		const char *value = NULL;
		int ret = split_argument(argc, argv, &i, &def, &value, err);

		if (ret)
			return ret;
		assert(def);
		if (file_only != (def->offset == MEMBER(file)))
			continue;
		ret = def->set(config, def, value, err);
		if (ret)
			return err_prefix(err, ret, "option '--%s'", def->name);
	}
	return 0;
}

int config_read(struct config *config, int argc, char **argv, struct err *err)
{
	int ret;

	*config = (struct config){ .cpus = { -1 }, .cpu_count = 1, .log_level = LOG_LEVEL_INFO };
	config->socket = strdup(CONFIG_SOCKET_DEFAULT);
	config->state = strdup(CONFIG_STATE_DEFAULT);
	if (!config->socket || !config->state)
		return err_set(err, -ENOMEM, "no memory");
	ret = read_arguments(config, argc, argv, true, err);
	if (ret == 0 && config->file)
		ret = read_file(config, config->file, err);
	return ret ? ret : read_arguments(config, argc, argv, false, err);
}

void config_release(struct config *config)
{
	free(config->socket);
	free(config->state);
	free(config->file);
	*config = (struct config){ 0 };
}
