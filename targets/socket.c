/* Listening on a path. See socket.h.
 *
 * A socket file stays behind when its process is killed. It is stale if connecting to it is refused, or if it answers for
 * a process that is no more: the kernel may keep a killed process's socket listening until its io_uring is torn
 * down, some milliseconds later. As that process may also still be dying, an answer is only believed after LISTEN_WAIT_MS.
 * (Two processes may find a stale socket at the same time; the daemon's own locks keep them apart.)
 *
 * The mode is set between bind and listen: before listen nobody can connect. */
#include "targets/socket.h"

#include <errno.h>
#include <signal.h>
#include <stdbool.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#define BACKLOG 16
#define LISTEN_WAIT_MS 1000
#define LISTEN_LOOK_MS 20

static int make_address(const char *path, struct sockaddr_un *addr, struct err *err)
{
	*addr = (struct sockaddr_un){ .sun_family = AF_UNIX };
	if (path[0] == '\0' || strlen(path) >= sizeof(addr->sun_path))
		return err_set(err, -ENAMETOOLONG, "cannot listen on '%.200s': a socket's path has 1 to %zu characters",
			       path, sizeof(addr->sun_path) - 1);
	strcpy(addr->sun_path, path);
	return 0;
}

static int new_socket(struct err *err)
{
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);

	return fd >= 0 ? fd : err_set(err, -errno, "cannot create a socket: %s", strerror(errno));
}

/* Whether the process that listens at the other end of a connection is gone. */
static bool is_ghost(int fd)
{
	struct ucred peer;
	socklen_t len = sizeof(peer);

	if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &len) < 0)
		return false;
	return peer.pid > 0 && kill(peer.pid, 0) < 0 && errno == ESRCH;
}

/* 0: nobody listens; -EADDRINUSE; another -errno. */
static int probe(const struct sockaddr_un *addr, struct err *err)
{
	int rc, fd = new_socket(err);

	if (fd < 0)
		return fd;
	rc = connect(fd, (const struct sockaddr *)addr, sizeof(*addr)) < 0 ? -errno : 0;
	if (rc == -ECONNREFUSED || rc == -ENOENT || (rc == 0 && is_ghost(fd)))
		rc = 0;
	else
		rc = err_set(err, -EADDRINUSE, "cannot listen on '%s': another process does", addr->sun_path);
	close(fd);
	return rc;
}

/* Makes way: 0 if nothing is there any more. */
static int remove_stale(const struct sockaddr_un *addr, struct err *err)
{
	struct stat st;
	int rc;

	if (lstat(addr->sun_path, &st) < 0)
		return errno == ENOENT ? 0 : err_set(err, -errno, "cannot look at '%s': %s", addr->sun_path, strerror(errno));
	if (!S_ISSOCK(st.st_mode))
		return err_set(err, -EEXIST, "cannot listen on '%s': it exists and is no socket", addr->sun_path);
	for (int waited_ms = 0; (rc = probe(addr, err)) == -EADDRINUSE && waited_ms < LISTEN_WAIT_MS;
	     waited_ms += LISTEN_LOOK_MS)
		usleep(LISTEN_LOOK_MS * 1000);
	if (rc < 0)
		return rc;
	if (unlink(addr->sun_path) < 0 && errno != ENOENT)
		return err_set(err, -errno, "cannot remove the stale socket '%s': %s", addr->sun_path, strerror(errno));
	return 0;
}

static int bind_and_listen(int fd, const struct sockaddr_un *addr, struct socket_file *file, struct err *err)
{
	struct stat st;
	int rc;

	if (bind(fd, (const struct sockaddr *)addr, sizeof(*addr)) < 0)
		return err_set(err, -errno, "cannot create the socket '%s': %s", addr->sun_path, strerror(errno));
	if (chmod(addr->sun_path, 0600) == 0 && lstat(addr->sun_path, &st) == 0 && listen(fd, BACKLOG) == 0) {
		file->dev = st.st_dev;
		file->ino = st.st_ino;
		return 0;
	}
	rc = err_set(err, -errno, "cannot listen on '%s': %s", addr->sun_path, strerror(errno));
	unlink(addr->sun_path);
	return rc;
}

int socket_listen(const char *path, struct socket_file *file, struct err *err)
{
	struct sockaddr_un addr;
	int fd, rc;

	rc = make_address(path, &addr, err);
	if (rc == 0)
		rc = remove_stale(&addr, err);
	if (rc < 0)
		return rc;
	fd = new_socket(err);
	if (fd < 0)
		return fd;
	file->path = path;
	rc = bind_and_listen(fd, &addr, file, err);
	if (rc < 0) {
		close(fd);
		return rc;
	}
	return fd;
}

void socket_remove(const struct socket_file *file)
{
	struct stat st;

	if (lstat(file->path, &st) == 0 && st.st_dev == file->dev && st.st_ino == file->ino)
		unlink(file->path);
}
