/* poolctl check: the disks of a pool that is not open, read by tools/check/, which shares nothing with poold. */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tools/check/check.h"
#include "tools/poolctl.h"

struct checked {
	struct cli *cli;
	int fds[CHECK_DISKS_MAX];
	struct check_disk disks[CHECK_DISKS_MAX];
	json_t *problems;
};

static int read_disk(void *arg, uint64_t off_bytes, void *buf, uint32_t len_bytes)
{
	const int *fd = arg;
	uint8_t *at = buf;

	while (len_bytes > 0) {
		ssize_t got = pread(*fd, at, len_bytes, (off_t)off_bytes);

		if (got < 0 && errno == EINTR)
			continue;
		if (got <= 0)
			return got < 0 ? -errno : -EIO;
		at += got;
		off_bytes += (uint64_t)got;
		len_bytes -= (uint32_t)got;
	}
	return 0;
}

/* Whoever has the pool open locks its disks. */
static enum cli_exit lock(struct checked *checked, int fd, const char *name)
{
	struct flock whole = { .l_type = F_RDLCK, .l_whence = SEEK_SET };

	if (fcntl(fd, F_OFD_SETLK, &whole) == 0 || (errno != EAGAIN && errno != EACCES))
		return CLI_OK;
	return cli_fail(checked->cli, CLI_BUSY, -EBUSY, "'%s' is in use: export its pool first", name);
}

static enum cli_exit open_disk(struct checked *checked, uint32_t i)
{
	const char *name = checked->cli->args[i], *path = strncmp(name, "file:", 5) == 0 ? name + 5 : name;
	int *fd = &checked->fds[i];
	struct stat st;
	off_t end;

	*fd = open(path, O_RDONLY | O_CLOEXEC);
	/* What is mounted or in use as a block device is its holder's alone. */
	if (*fd >= 0 && fstat(*fd, &st) == 0 && S_ISBLK(st.st_mode)) {
		close(*fd);
		*fd = open(path, O_RDONLY | O_CLOEXEC | O_EXCL);
	}
	if (*fd < 0)
		return cli_fail(checked->cli,
				errno == ENOENT  ? CLI_NOT_FOUND
				: errno == EBUSY ? CLI_BUSY
						 : CLI_FAILED,
				-errno, "cannot open '%s': %s", name, strerror(errno));
	end = lseek(*fd, 0, SEEK_END);
	checked->disks[i] = (struct check_disk){ name, end > 0 ? (uint64_t)end : 0, read_disk, fd };
	return lock(checked, *fd, name);
}

static void on_problem(void *arg, const char *where, const char *what)
{
	struct checked *checked = arg;

	if (checked->cli->json)
		json_array_append_new(checked->problems, json_pack("{s:s, s:s}", "where", where, "problem", what));
	else
		printf("%s: %s\n", where, what);
}

static enum cli_exit show(struct checked *checked, const struct check_counts *counts)
{
	json_t *result = json_pack("{s:O}", "problems", checked->problems);

#define X(name, what)                                                                       \
	if (strcmp(#name, "problems") != 0)                                                 \
		json_object_set_new(result, #name, json_integer((json_int_t)counts->name)); \
	if (!checked->cli->json)                                                            \
		printf("%12llu %s\n", (unsigned long long)counts->name, what);
	CHECK_COUNTS(X)
#undef X
	cli_print_json(checked->cli, result);
	json_decref(result);
	return counts->problems > 0 ? CLI_FAILED : CLI_OK;
}

static enum cli_exit check(struct checked *checked)
{
	struct cli *cli = checked->cli;
	struct check_opts opts = { .headers = true,
				   .data = cli_value(cli, "data") != NULL,
				   .problem = on_problem,
				   .arg = checked };
	struct check_counts counts;
	enum cli_exit ret = CLI_OK;
	int res;

	for (uint32_t i = 0; i < (uint32_t)cli->arg_count && ret == CLI_OK; i++)
		ret = open_disk(checked, i);
	if (ret)
		return ret;
	res = check_pool(checked->disks, (uint32_t)cli->arg_count, &opts, &counts);
	if (res == -ENOMEM)
		return cli_fail(cli, CLI_FAILED, res, "no memory");
	return show(checked, &counts);
}

enum cli_exit cli_check(struct cli *cli)
{
	struct checked checked = { .cli = cli };
	enum cli_exit ret;

	if (cli->arg_count > (int)CHECK_DISKS_MAX)
		return cli_fail(cli, CLI_USAGE, -EINVAL, "a pool has at most %u disks", CHECK_DISKS_MAX);
	checked.problems = json_array();
	memset(checked.fds, -1, sizeof(checked.fds));
	ret = check(&checked);
	for (int i = 0; i < cli->arg_count; i++) {
		if (checked.fds[i] >= 0)
			close(checked.fds[i]);
	}
	json_decref(checked.problems);
	return ret;
}
