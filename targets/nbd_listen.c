/* Listening sockets by address: see nbd_listen.h. */
#include "targets/nbd_listen.h"

#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <stdbool.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define BACKLOG 128
#define HOST_BYTES_MAX 256

struct host_port {
	char host[HOST_BYTES_MAX]; /* "": any */
	const char *port;
};

/* Takes "HOST:PORT" or "[HOST]:PORT" apart. */
static bool split(const char *text, struct host_port *out)
{
	const char *colon = strrchr(text, ':');
	size_t len = colon ? (size_t)(colon - text) : 0;

	if (!colon || colon[1] == '\0' || len >= sizeof(out->host))
		return false;
	if (len >= 2 && text[0] == '[' && text[len - 1] == ']') {
		text++;
		len -= 2;
	} else if (memchr(text, ':', len)) {
		return false;
	}
	memcpy(out->host, text, len);
	out->host[len] = '\0';
	out->port = colon + 1;
	return true;
}

static int listen_at(const struct addrinfo *where)
{
	int on = 1, off = 0, rc;
	int fd = socket(where->ai_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);

	if (fd < 0)
		return -errno;
	(void)setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
	/* The address for all of IPv6 then takes IPv4 as well. It fails for IPv4, which does not have it. */
	(void)setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &off, sizeof(off));
	if (bind(fd, where->ai_addr, where->ai_addrlen) == 0 && listen(fd, BACKLOG) == 0)
		return fd;
	rc = -errno;
	close(fd);
	return rc;
}

/* Listens on the first of the addresses that can be; for any address, IPv6 goes first, as it takes IPv4 too. */
static int listen_at_one(const struct addrinfo *all, bool any)
{
	int fd = -EADDRNOTAVAIL;

	for (const struct addrinfo *where = all; any && where && fd < 0; where = where->ai_next) {
		if (where->ai_family == AF_INET6)
			fd = listen_at(where);
	}
	for (const struct addrinfo *where = all; where && fd < 0 && fd != -EADDRINUSE; where = where->ai_next)
		fd = listen_at(where);
	return fd;
}

static int listen_tcp(const char *address, const char *host_port, struct err *err)
{
	struct addrinfo hints = { .ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM, .ai_flags = AI_PASSIVE };
	struct addrinfo *all;
	struct host_port to;
	int rc;

	if (!split(host_port, &to))
		return err_set(err, -EINVAL, "cannot listen on '%.200s': it is not tcp:HOST:PORT", address);
	rc = getaddrinfo(to.host[0] ? to.host : NULL, to.port, &hints, &all);
	if (rc)
		return err_set(err, -EINVAL, "cannot listen on '%.200s': %s", address, gai_strerror(rc));
	rc = listen_at_one(all, to.host[0] == '\0');
	freeaddrinfo(all);
	return rc < 0 ? err_set(err, rc, "cannot listen on '%.200s': %s", address, strerror(-rc)) : rc;
}

int nbd_listen(const char *address, struct socket_file *file, struct err *err)
{
	file->path = NULL;
	if (strncmp(address, "unix:", 5) == 0)
		return socket_listen(address + 5, file, err);
	if (strncmp(address, "tcp:", 4) == 0)
		return listen_tcp(address, address + 4, err);
	return err_set(err, -EINVAL, "cannot listen on '%.200s': it is neither unix:PATH nor tcp:HOST:PORT", address);
}
