/* poolctl volume import and volume export: disk images of any format that qemu-img knows, converted by it; the volume's side is NBD
 * on an export made for that. What qemu-img tells of its progress becomes ours. */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tools/poolctl_nbd.h"
#include "tools/poolctl_progress.h"

#define QEMU_ARGS_MAX 20
#define PERCENT_SCALE 100 /* qemu-img tells hundredths of a per cent */

/* --- running qemu-img ------------------------------------------------------------------------------------- */

struct child {
	pid_t pid;
	int out_fd; /* its standard output */
};

static void be_child(const int pipe_fd[2], const char *const *args)
{
	prctl(PR_SET_PDEATHSIG, SIGTERM);
	dup2(pipe_fd[1], STDOUT_FILENO);
	close(pipe_fd[0]);
	close(pipe_fd[1]);
	execvp(args[0], (char *const *)(uintptr_t)args);
	fprintf(stderr, "poolctl: cannot run %s: %s\n", args[0], strerror(errno));
	_exit(127);
}

static enum cli_exit child_start(struct cli *cli, const char *const *args, struct child *child)
{
	int pipe_fd[2];

	if (pipe2(pipe_fd, O_CLOEXEC) != 0)
		return cli_fail(cli, CLI_FAILED, -errno, "cannot run %s: %s", args[0], strerror(errno));
	child->pid = fork();
	if (child->pid == 0)
		be_child(pipe_fd, args);
	close(pipe_fd[1]);
	child->out_fd = pipe_fd[0];
	if (child->pid > 0)
		return CLI_OK;
	close(child->out_fd);
	return cli_fail(cli, CLI_FAILED, -errno, "cannot run %s: %s", args[0], strerror(errno));
}

/* What it complained of stands on standard error. */
static enum cli_exit child_end(struct cli *cli, struct child *child)
{
	int status = 0;

	close(child->out_fd);
	while (waitpid(child->pid, &status, 0) < 0 && errno == EINTR)
		;
	if (WIFEXITED(status) && WEXITSTATUS(status) == 0)
		return CLI_OK;
	return cli_fail(cli, CLI_FAILED, -EIO, WIFEXITED(status) && WEXITSTATUS(status) == 127 ?
							"qemu-img is needed for this" : "qemu-img has failed");
}

/* "    (12.34/100%)\r", again and again. */
static void follow(struct child *child, const char *what, uint64_t total_bytes)
{
	FILE *out = fdopen(dup(child->out_fd), "r");
	struct progress progress;
	unsigned int whole, part;
	char text[64];
	size_t len = 0;
	int c;

	progress_init(&progress);
	while (out && (c = fgetc(out)) != EOF) {
		if (c != '\r' && c != '\n' && len + 1 < sizeof(text)) {
			text[len++] = (char)c;
			continue;
		}
		text[len] = '\0';
		len = 0;
		if (sscanf(text, " (%u.%2u/100%%)", &whole, &part) == 2) {
			uint64_t done = whole * PERCENT_SCALE + part;

			progress_show(&progress, what, done, 100 * PERCENT_SCALE,
				      total_bytes / (100 * PERCENT_SCALE) * done);
		}
	}
	progress_end(&progress);
	if (out)
		fclose(out);
}

static enum cli_exit convert(struct cli *cli, const char *const *args, const char *what, uint64_t total_bytes)
{
	struct child child;
	enum cli_exit ret = child_start(cli, args, &child);

	if (ret)
		return ret;
	follow(&child, what, total_bytes);
	return child_end(cli, &child);
}

/* --- what an image is ------------------------------------------------------------------------------------- */

static enum cli_exit image_info(struct cli *cli, const char *file, const char *format, json_t **info)
{
	const char *args[] = { "qemu-img", "info", "--output=json", file, format ? "-f" : NULL, format, NULL };
	json_error_t error;
	struct child child;
	enum cli_exit ret = child_start(cli, args, &child);
	FILE *out;

	if (ret)
		return ret;
	out = fdopen(dup(child.out_fd), "r");
	*info = out ? json_loadf(out, 0, &error) : NULL;
	if (out)
		fclose(out);
	ret = child_end(cli, &child);
	if (ret == CLI_OK && !*info)
		ret = cli_fail(cli, CLI_FAILED, -EPROTO, "qemu-img does not tell what '%s' is", file);
	if (ret)
		json_decref(*info);
	return ret;
}

/* A file's content may claim to be an image on top of another one: whoever wrote it could have any file read. */
static enum cli_exit check_alone(struct cli *cli, const char *file, const json_t *info)
{
	const json_t *specific = json_object_get(json_object_get(info, "format-specific"), "data");

	if (cli_value(cli, "format") ||
	    (!json_object_get(info, "backing-filename") && !json_object_get(specific, "data-file")))
		return CLI_OK;
	return cli_fail(cli, CLI_REFUSED, -EPERM,
			"image '%s' refers to another file: if you trust it, say --format %s", file, cli_text(info, "format"));
}

/* --- import ----------------------------------------------------------------------------------------------- */

static enum cli_exit fill(struct cli *cli, const char *volume, const char *file, const char *format, uint64_t size_bytes)
{
	char uri[512];
	const char *args[] = { "qemu-img", "convert", "-p", "-n", "--target-is-zero", "-W", "-f", format, "-O", "raw", file,
			       uri, NULL };
	struct cli_image_opts opts = { 0 };
	struct cli_image image;
	enum cli_exit ret = cli_image_open(cli, volume, &opts, &image);

	if (ret == CLI_OK) {
		snprintf(uri, sizeof(uri), "nbd+unix:///?socket=%s", cli_image_socket(&image));
		ret = convert(cli, args, volume, size_bytes);
	}
	cli_image_close(cli, &image);
	return ret;
}

/* A volume of which only a part has come is of no use. */
static void drop(struct cli *cli, const char *volume)
{
	json_t *result;
	struct err err;

	if (rpc_call(cli->rpc, "volume.delete", json_pack("{s:s}", "volume", volume), &result, &err) == 0)
		json_decref(result);
}

static enum cli_exit import(struct cli *cli, const char *file, const char *volume, const json_t *info)
{
	const char *policy = cli_value(cli, "policy");
	uint64_t size_bytes = cli_number(info, "virtual-size");
	json_t *made;
	enum cli_exit ret = cli_call(cli, "volume.create",
				     json_pack("{s:s, s:I, s:s}", "volume", volume, "size_bytes", (json_int_t)size_bytes,
					       "policy", policy ? policy : "plain"),
				     &made);

	if (ret)
		return ret;
	ret = fill(cli, volume, file, cli_text(info, "format"), size_bytes);
	if (ret)
		drop(cli, volume);
	else if (!cli_print_json(cli, made))
		printf("'%s' is imported as volume '%s'\n", file, volume);
	json_decref(made);
	return ret;
}

static enum cli_exit import_file(struct cli *cli, const char *file)
{
	json_t *info = NULL;
	enum cli_exit ret;

	if (access(file, R_OK) != 0)
		return cli_fail(cli, errno == ENOENT ? CLI_NOT_FOUND : CLI_REFUSED, -errno, "cannot read '%s': %s", file,
				strerror(errno));
	ret = image_info(cli, file, cli_value(cli, "format"), &info);
	if (ret)
		return ret;
	ret = check_alone(cli, file, info);
	if (ret == CLI_OK)
		ret = import(cli, file, cli->args[1], info);
	json_decref(info);
	return ret;
}

/* qemu-img is given absolute paths only: "nbd:..." would be something else to it. */
enum cli_exit cli_volume_import(struct cli *cli)
{
	char *file = cli_absolute(cli->args[0]);
	enum cli_exit ret = file ? import_file(cli, file) : cli_fail(cli, CLI_FAILED, -ENOMEM, "no memory");

	free(file);
	return ret;
}

/* --- export ----------------------------------------------------------------------------------------------- */

static enum cli_exit write_image(struct cli *cli, const char *name, const char *part, const char *format)
{
	char uri[512];
	const char *args[] = { "qemu-img", "convert", "-p", "-W", "-f", "raw", "-O", format, uri, part, NULL };
	struct cli_image_opts opts = { .read_only = true };
	struct cli_image image;
	enum cli_exit ret = cli_image_open(cli, name, &opts, &image);

	if (ret == CLI_OK) {
		snprintf(uri, sizeof(uri), "nbd+unix:///?socket=%s", cli_image_socket(&image));
		ret = convert(cli, args, name, cli_image_bytes(&image));
	}
	cli_image_close(cli, &image);
	return ret;
}

/* Under another name until it is complete. */
static enum cli_exit export(struct cli *cli, const char *name, const char *file, const char *format)
{
	char *path = cli_absolute(file), *part = NULL;
	enum cli_exit ret;

	if (!path || asprintf(&part, "%s.part", path) < 0)
		return cli_fail(cli, CLI_FAILED, -ENOMEM, "no memory");
	ret = write_image(cli, name, part, format);
	if (ret == CLI_OK && rename(part, file) != 0)
		ret = cli_fail(cli, CLI_FAILED, -errno, "cannot write '%s': %s", file, strerror(errno));
	if (ret)
		unlink(part);
	free(path);
	free(part);
	return ret;
}

enum cli_exit cli_volume_export(struct cli *cli)
{
	const char *name = cli->args[0], *file = cli->args[1], *format = cli_value(cli, "format");
	json_t *result;
	enum cli_exit ret;

	if (strcmp(format, "raw") != 0 && strcmp(format, "qcow2") != 0)
		return cli_fail(cli, CLI_USAGE, -EINVAL, "--format: '%s' is neither raw nor qcow2", format);
	if (access(file, F_OK) == 0 && !cli_value(cli, "force"))
		return cli_fail(cli, CLI_BUSY, -EEXIST, "'%s' exists; use --force to replace it", file);
	ret = export(cli, name, file, format);
	if (ret)
		return ret;
	result = json_pack("{s:s, s:s, s:s}", strchr(name, '@') ? "snapshot" : "volume", name, "file", file, "format", format);
	if (!cli_print_json(cli, result))
		printf("'%s' is exported to '%s'\n", name, file);
	json_decref(result);
	return CLI_OK;
}
