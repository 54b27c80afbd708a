/* The state folder and its records: see state.h. Their JSON form is state_json.c's.
 *
 * state.json is replaced by the only order that survives a crash at any point: write a temporary file, fsync it, rename
 * it over the old one, fsync the folder. */
#include "tools/state.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#define STATE_FILE "state.json"
#define STATE_FILE_NEW "state.json.new"
#define STATE_BYTES_MAX (16u << 20)
#define LOCK_WAIT_MS 1000
#define LOCK_LOOK_MS 10

/* --- records ---------------------------------------------------------------------------------------------- */

static void free_texts(char **texts, uint32_t count)
{
	for (uint32_t i = 0; texts && i < count; i++)
		free(texts[i]);
	free(texts);
}

static char **copy_texts(const char *const *texts, uint32_t count)
{
	char **copy = calloc(count > 0 ? count : 1, sizeof(*copy));

	for (uint32_t i = 0; copy && i < count; i++) {
		copy[i] = strdup(texts[i]);
		if (!copy[i]) {
			free_texts(copy, count);
			return NULL;
		}
	}
	return copy;
}

struct state_pool *state_pool_new(const char *name, const char *uuid, const char *const *disks, uint32_t disk_count)
{
	struct state_pool *pool = calloc(1, sizeof(*pool));

	if (!pool)
		return NULL;
	list_init(&pool->node);
	snprintf(pool->name, sizeof(pool->name), "%s", name);
	snprintf(pool->uuid, sizeof(pool->uuid), "%s", uuid);
	pool->disks = copy_texts(disks, disk_count);
	pool->disk_count = disk_count;
	if (!pool->disks) {
		free(pool);
		return NULL;
	}
	return pool;
}

void state_pool_free(struct state_pool *pool)
{
	if (!pool)
		return;
	list_del(&pool->node);
	free_texts(pool->disks, pool->disk_count);
	free(pool);
}

struct state_export *state_export_new(const char *pool_uuid, const char *volume, uint64_t volume_id, const char *kind,
				      const char *address)
{
	struct state_export *exp = calloc(1, sizeof(*exp));

	if (!exp)
		return NULL;
	list_init(&exp->node);
	snprintf(exp->pool_uuid, sizeof(exp->pool_uuid), "%s", pool_uuid);
	snprintf(exp->volume, sizeof(exp->volume), "%s", volume);
	snprintf(exp->kind, sizeof(exp->kind), "%s", kind);
	exp->volume_id = volume_id;
	exp->address = strdup(address);
	if (!exp->address) {
		free(exp);
		return NULL;
	}
	return exp;
}

int state_export_set_tls(struct state_export *exp, const char *certs, const char *psk)
{
	exp->tls_certs = certs ? strdup(certs) : NULL;
	exp->tls_psk = psk ? strdup(psk) : NULL;
	return (certs && !exp->tls_certs) || (psk && !exp->tls_psk) ? -ENOMEM : 0;
}

void state_export_free(struct state_export *exp)
{
	if (!exp)
		return;
	list_del(&exp->node);
	free(exp->address);
	free(exp->tls_certs);
	free(exp->tls_psk);
	free(exp);
}

/* --- the folder ------------------------------------------------------------------------------------------- */

/* mkdir -p; the last folder gets 0700, its parents 0755. */
static int make_folder(const char *dir, struct err *err)
{
	char path[PATH_MAX];
	struct stat st;

	if (strlen(dir) >= sizeof(path))
		return err_set(err, -ENAMETOOLONG, "cannot use state folder '%s': its path is too long", dir);
	strcpy(path, dir);
	for (char *slash = strchr(path + 1, '/'); slash; slash = strchr(slash + 1, '/')) {
		*slash = '\0';
		if (mkdir(path, 0755) != 0 && errno != EEXIST)
			return err_set(err, -errno, "cannot create folder '%s': %m", path);
		*slash = '/';
	}
	if (mkdir(path, 0700) != 0 && (errno != EEXIST || stat(path, &st) != 0))
		return err_set(err, -errno, "cannot create state folder '%s': %m", path);
	return 0;
}

/* Reads the pid that the holder of the lock wrote, 0 if it did not yet. */
static long lock_holder(int lock_fd)
{
	char text[32] = "";

	if (pread(lock_fd, text, sizeof(text) - 1, 0) < 0)
		return 0;
	return strtol(text, NULL, 10);
}

/* Takes the lock, if need be within LOCK_WAIT_MS: a killed process holds its locks until the last of its threads is gone. */
static int lock_file(int fd)
{
	for (int waited_ms = 0; flock(fd, LOCK_EX | LOCK_NB) != 0; waited_ms += LOCK_LOOK_MS) {
		if (errno != EWOULDBLOCK || waited_ms >= LOCK_WAIT_MS)
			return -errno;
		usleep(LOCK_LOOK_MS * 1000);
	}
	return 0;
}

static int take_lock(struct state *state, const char *dir, struct err *err)
{
	char text[32];
	int ret;

	state->lock_fd = openat(state->dir_fd, "lock", O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	if (state->lock_fd < 0)
		return err_set(err, -errno, "cannot open '%s/lock': %m", dir);
	ret = lock_file(state->lock_fd);
	if (ret == -EWOULDBLOCK)
		return err_set(err, -EBUSY,
			       "cannot use state folder '%s': another poold (pid %ld) has it; stop that one or give "
			       "another --state",
			       dir, lock_holder(state->lock_fd));
	if (ret)
		return err_set(err, ret, "cannot lock '%s/lock': %s", dir, strerror(-ret));
	snprintf(text, sizeof(text), "%d\n", getpid());
	if (ftruncate(state->lock_fd, 0) != 0 || pwrite(state->lock_fd, text, strlen(text), 0) < 0)
		return err_set(err, -errno, "cannot write '%s/lock': %m", dir);
	return 0;
}

int state_open(struct state *state, const char *dir, struct err *err)
{
	int ret;

	*state = (struct state){ .dir_fd = -1, .lock_fd = -1 };
	list_init(&state->pools);
	list_init(&state->exports);
	ret = make_folder(dir, err);
	if (ret)
		return ret;
	state->dir_fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (state->dir_fd < 0)
		return err_set(err, -errno, "cannot open state folder '%s': %m", dir);
	ret = take_lock(state, dir, err);
	if (ret)
		state_close(state);
	return ret;
}

static void close_fd(int *fd)
{
	if (*fd >= 0)
		close(*fd);
	*fd = -1;
}

void state_close(struct state *state)
{
	struct list *node;

	while ((node = list_pop_front(&state->pools)))
		state_pool_free(list_entry(node, struct state_pool, node));
	while ((node = list_pop_front(&state->exports)))
		state_export_free(list_entry(node, struct state_export, node));
	close_fd(&state->lock_fd);
	close_fd(&state->dir_fd);
}

/* --- the file --------------------------------------------------------------------------------------------- */

/* Reads until the end of the file. Returns the length or -errno. */
static ssize_t read_all(int fd, char *buf, size_t size_bytes)
{
	size_t len = 0;
	ssize_t got;

	do {
		got = read(fd, buf + len, size_bytes - len);
		if (got > 0)
			len += (size_t)got;
	} while (got > 0 || (got < 0 && errno == EINTR));
	return got < 0 ? -errno : (ssize_t)len;
}

static int load_fd(struct state *state, int fd, struct err *err)
{
	struct stat st;
	char *text;
	ssize_t len;
	int ret;

	if (fstat(fd, &st) != 0)
		return err_set(err, -errno, "%m");
	if (st.st_size > STATE_BYTES_MAX)
		return err_set(err, -EFBIG, "it is larger than %u bytes", STATE_BYTES_MAX);
	text = malloc((size_t)st.st_size + 1);
	if (!text)
		return err_set(err, -ENOMEM, "no memory");
	len = read_all(fd, text, (size_t)st.st_size + 1);
	if (len < 0)
		ret = err_set(err, (int)len, "%s", strerror((int)-len));
	else
		ret = state_from_text(state, text, (size_t)len, err);
	free(text);
	return ret;
}

int state_load(struct state *state, struct err *err)
{
	int fd = openat(state->dir_fd, STATE_FILE, O_RDONLY | O_CLOEXEC);
	int ret;

	if (fd < 0 && errno == ENOENT)
		return 0;
	if (fd < 0)
		return err_set(err, -errno, "cannot open '" STATE_FILE "': %m");
	ret = load_fd(state, fd, err);
	close(fd);
	if (ret)
		return err_prefix(err, ret, "cannot read '" STATE_FILE "' (mend it, or move it away and import again)");
	return 0;
}

static int write_all(int fd, const char *text, size_t len_bytes)
{
	while (len_bytes > 0) {
		ssize_t put = write(fd, text, len_bytes);

		if (put < 0 && errno != EINTR)
			return -errno;
		if (put > 0) {
			text += put;
			len_bytes -= (size_t)put;
		}
	}
	return 0;
}

/* Writes a new file in full and durably; its name is not yet. */
static int write_new_file(int dir_fd, const char *text)
{
	int fd = openat(dir_fd, STATE_FILE_NEW, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	int ret;

	if (fd < 0)
		return -errno;
	ret = write_all(fd, text, strlen(text));
	if (ret == 0 && fsync(fd) != 0)
		ret = -errno;
	if (close(fd) != 0 && ret == 0)
		ret = -errno;
	return ret;
}

int state_write(const struct state *state, const char *text, struct err *err)
{
	int ret = write_new_file(state->dir_fd, text);

	if (ret == 0 && renameat(state->dir_fd, STATE_FILE_NEW, state->dir_fd, STATE_FILE) != 0)
		ret = -errno;
	if (ret == 0 && fsync(state->dir_fd) != 0)
		ret = -errno;
	if (ret)
		return err_set(err, ret, "cannot write '" STATE_FILE "' in the state folder: %s", strerror(-ret));
	return 0;
}
