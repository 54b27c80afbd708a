/* poolctl: the administrator's side of poold. Reads a command (poolctl_args.c), runs its function (poolctl_pool.c, ...),
 * which calls the daemon and prints what it answers; and ends with an exit code of CLI_EXITS.
 *
 * Answers go to stdout, complaints to stderr. With --json both are JSON. */
#include "tools/poolctl.h"

#include <errno.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "tools/version.h"

/* --- failing ---------------------------------------------------------------------------------------------- */

static void print_json_error(enum cli_exit code, int errno_code, const char *message)
{
	const char *name = errno_code ? strerrorname_np(-errno_code) : NULL;
	json_t *text = json_string(message);
	json_t *json = json_pack("{s:{s:o, s:s*, s:i}}", "error", "message", text ? text : json_string("?"), "errno",
				 name, "exit_code", (int)code);

	json_dumpf(json, stderr, JSON_COMPACT);
	fputc('\n', stderr);
	json_decref(json);
}

enum cli_exit cli_fail(const struct cli *cli, enum cli_exit code, int errno_code, const char *fmt, ...)
{
	char message[1024];
	va_list args;

	va_start(args, fmt);
	vsnprintf(message, sizeof(message), fmt, args);
	va_end(args);
	if (cli->json)
		print_json_error(code, errno_code, message);
	else
		fprintf(stderr, "poolctl: %s\n", message);
	return code;
}

static enum cli_exit exit_of(int code)
{
	switch (-code) {
	case ENOENT: return CLI_NOT_FOUND;
	case EBUSY:
	case EEXIST:
	case ENOTEMPTY:
	case EADDRINUSE: return CLI_BUSY;
	case EPERM:
	case EROFS:
	case EACCES: return CLI_REFUSED;
	case EINVAL: return CLI_USAGE;
	default: return CLI_FAILED;
	}
}

/* --- calling ---------------------------------------------------------------------------------------------- */

enum cli_exit cli_connect(struct cli *cli)
{
	struct err err;
	int ret = rpc_connect(cli->socket, &cli->rpc, &err);

	return ret ? cli_fail(cli, CLI_UNREACHABLE, ret, "%s", err.msg) : CLI_OK;
}

enum cli_exit cli_call(struct cli *cli, const char *method, json_t *params, json_t **result)
{
	struct err err;
	int ret;

	if (!params)
		return cli_fail(cli, CLI_USAGE, -EINVAL, "an argument is not valid UTF-8");
	ret = rpc_call(cli->rpc, method, params, result, &err);
	if (ret)
		return cli_fail(cli, rpc_is_lost(cli->rpc) ? CLI_UNREACHABLE : exit_of(ret), ret, "%s", err.msg);
	return CLI_OK;
}

bool cli_print_json(const struct cli *cli, const json_t *result)
{
	if (!cli->json)
		return false;
	json_dumpf(result, stdout, JSON_INDENT(2));
	putchar('\n');
	return true;
}

enum cli_exit cli_do(struct cli *cli, const char *method, json_t *params, const char *fmt, ...)
{
	json_t *result = NULL;
	va_list args;
	enum cli_exit ret = cli_call(cli, method, params, &result);

	if (ret)
		return ret;
	if (!cli_print_json(cli, result)) {
		va_start(args, fmt);
		vprintf(fmt, args);
		va_end(args);
	}
	json_decref(result);
	return CLI_OK;
}

/* --- arguments -------------------------------------------------------------------------------------------- */

enum cli_exit cli_confirm(const struct cli *cli, const char *fmt, ...)
{
	char question[256], answer[16] = "";
	va_list args;

	if (cli_value(cli, "yes"))
		return CLI_OK;
	va_start(args, fmt);
	vsnprintf(question, sizeof(question), fmt, args);
	va_end(args);
	if (!isatty(STDIN_FILENO) || !isatty(STDERR_FILENO))
		return cli_fail(cli, CLI_REFUSED, -EPERM, "refusing to %s without --yes", question);
	fprintf(stderr, "Really %s? [y/N] ", question);
	if (fgets(answer, sizeof(answer), stdin) && (answer[0] == 'y' || answer[0] == 'Y'))
		return CLI_OK;
	return cli_fail(cli, CLI_REFUSED, -EPERM, "nothing done");
}

enum cli_exit cli_size(const struct cli *cli, const char *option, uint64_t fallback, uint64_t *size_bytes)
{
	const char *text = cli_value(cli, option);

	*size_bytes = fallback;
	if (!text || (size_parse(text, size_bytes) == 0 && *size_bytes <= INT64_MAX))
		return CLI_OK;
	return cli_fail(cli, CLI_USAGE, -EINVAL, "--%s: '%s' is not a size; give one such as 20G (units K M G T P)",
			option, text);
}

char *cli_absolute(const char *path)
{
	char *dir, *absolute = NULL;

	if (*path == '/')
		return strdup(path);
	while (strncmp(path, "./", 2) == 0)
		path += 2;
	dir = getcwd(NULL, 0);
	if (!dir || asprintf(&absolute, "%s/%s", dir, path) < 0)
		absolute = NULL;
	free(dir);
	return absolute;
}

/* Length of "scheme:" that disk begins with, 0 if it is a path. */
static size_t scheme_length(const char *disk)
{
	size_t len = strspn(disk, "abcdefghijklmnopqrstuvwxyz0123456789+-");

	return len > 0 && disk[len] == ':' ? len + 1 : 0;
}

char *cli_absolute_disk(const char *disk)
{
	size_t len = scheme_length(disk);
	char *path, *uri = NULL;

	if (len == 0)
		return cli_absolute(disk);
	if (strncmp(disk, "file:", len) != 0)
		return strdup(disk);
	path = cli_absolute(disk + len);
	if (!path || asprintf(&uri, "file:%s", path) < 0)
		uri = NULL;
	free(path);
	return uri;
}

/* --- answers ---------------------------------------------------------------------------------------------- */

const char *cli_text(const json_t *object, const char *key)
{
	const char *text = json_string_value(json_object_get(object, key));

	return text ? text : "";
}

unsigned long long cli_number(const json_t *object, const char *key)
{
	return (unsigned long long)json_integer_value(json_object_get(object, key));
}

const char *cli_size_text(const json_t *object, const char *key)
{
	static char texts[8][SIZE_TEXT_BYTES];
	static unsigned int next;

	if (!json_is_integer(json_object_get(object, key)))
		return "-";
	return size_to_text(cli_number(object, key), texts[next++ % 8]);
}

const char *cli_time_text(const json_t *object, const char *key)
{
	static char text[32];
	time_t when = (time_t)cli_number(object, key);
	struct tm tm;

	if (when == 0 || !localtime_r(&when, &tm) || !strftime(text, sizeof(text), "%Y-%m-%d %H:%M:%S", &tm))
		return "-";
	return text;
}

const char *cli_addresses_text(const json_t *image)
{
	static char text[512];
	json_t *address;
	size_t i, len = 0;

	snprintf(text, sizeof(text), "-");
	json_array_foreach(json_object_get(image, "exports"), i, address) {
		if (len < sizeof(text))
			len += (size_t)snprintf(text + len, sizeof(text) - len, "%s%s", i > 0 ? ", " : "",
						json_string_value(address));
	}
	return text;
}

/* --- the program ------------------------------------------------------------------------------------------ */

static enum cli_exit run(struct cli *cli)
{
	enum cli_exit ret;

	if (cli->version)
		printf("poolctl " POOLD_VERSION "\n");
	else if (cli->help)
		cli_print_help(stdout, cli->noun, cli->command);
	if (cli->version || cli->help)
		return CLI_OK;
	if (cli->command->offline)
		return cli->command->run(cli);
	ret = cli_connect(cli);
	return ret ? ret : cli->command->run(cli);
}

int main(int argc, char **argv)
{
	struct cli cli = { .socket = getenv("POOLD_SOCKET") };
	enum cli_exit ret;

	if (!cli.socket || !*cli.socket)
		cli.socket = RPC_SOCKET_DEFAULT;
	/* What the completion script asks; not for people. */
	if (argc > 1 && strcmp(argv[1], "__complete") == 0) {
		ret = cli_complete(&cli, argc - 2, argv + 2);
	} else {
		ret = cli_parse(&cli, argc, argv);
		if (ret == CLI_OK)
			ret = run(&cli);
	}
	rpc_close(cli.rpc);
	if (fflush(stdout) != 0 && ret == CLI_OK)
		ret = cli_fail(&cli, CLI_FAILED, -errno, "cannot write the answer: %s", strerror(errno));
	return ret;
}
