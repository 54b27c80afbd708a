/* "nbd://HOST[:PORT]/EXPORT", "nbd+unix:///EXPORT?socket=PATH", and nbds for TLS: a disk behind an NBD server, by libnbd.
 *
 *	socket=PATH            of +unix: where the server listens
 *	tls-certificates=DIR   ca-cert.pem, and client-cert.pem with client-key.pem if the server asks for one
 *	tls-psk-file=PATH      pre-shared keys instead; the user is the one of the URI, or of the process
 *	tls-verify-peer=false  any certificate will do
 *	timeout=S, stall=S, give-up=S   see disk_remote.h
 *
 * The socket is connected here, since libnbd would look up names on our loop; the handshake is libnbd's. Replies come by its
 * callbacks, from within its functions, in which nothing of libnbd may be called: they only hand the request back.
 *
 * Structured replies are asked for, since without them a server can only drop the connection when a read fails midway. There
 * is one connection a disk, so what a server says of several ones does not matter. */
#include <errno.h>
#include <libnbd.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <string.h>
#include <sys/un.h>
#include <unistd.h>

#include "pool/base/mem.h"
#include "pool/disks/disk_discover.h"
#include "pool/disks/disk_remote.h"

#define PORT_DEFAULT "10809"
#define LIST_NS_MAX (10ull * 1000000000)
#define EXPORTS_MAX 1024

struct nbd_disk {
	struct remote remote;
	struct disk_uri uri;
	bool unix_socket, tls, any_peer;
	const char *socket_path, *tls_certificates, *tls_psk_file;
	struct nbd_handle *nbd; /* NULL: no session */
};

static struct nbd_disk *nbd_of(struct remote *remote)
{
	return container_of(remote, struct nbd_disk, remote);
}

/* libnbd's last error of this thread, without the function's name in front of it. */
static int nbd_error(struct err *err)
{
	const char *text = nbd_get_error(), *rest = text ? strstr(text, ": ") : NULL;
	int code = nbd_get_errno();

	return err_set(err, code > 0 ? -code : -EPROTO, "%.200s",
		       rest   ? rest + 2
		       : text ? text
			      : "the connection broke");
}

/* ---- connecting ---- */

/* A connected socket, or -errno. */
static int connect_to(struct remote *remote, const struct sockaddr *addr, socklen_t len_bytes, uint64_t deadline_ns)
{
	int fd = socket(addr->sa_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0), one = 1, code = 0;
	socklen_t code_bytes = sizeof(code);

	if (fd < 0)
		return -errno;
	if (addr->sa_family != AF_UNIX)
		setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
	if (connect(fd, addr, len_bytes) == 0)
		return fd;
	code = errno;
	if (code == EINPROGRESS) {
		int ready = fd_wait(fd, POLLOUT, deadline_ns, &remote->cancel);

		if (ready < 0)
			code = -ready;
		else if (getsockopt(fd, SOL_SOCKET, SO_ERROR, &code, &code_bytes))
			code = errno;
	}
	if (code == 0)
		return fd;
	close(fd);
	return -code;
}

static int connect_tcp(struct nbd_disk *nbd, uint64_t deadline_ns, struct err *err)
{
	const char *port = nbd->uri.port ? nbd->uri.port : PORT_DEFAULT;
	struct remote_addresses addresses;
	int fd = remote_resolve(nbd->uri.host, port, &addresses, err);

	if (fd < 0)
		return fd;
	for (uint32_t i = 0; i < addresses.count; i++) {
		fd = connect_to(&nbd->remote, (struct sockaddr *)&addresses.at[i].addr, addresses.at[i].len_bytes,
				deadline_ns);
		if (fd >= 0)
			return fd;
	}
	return err_set(err, fd, "no connection to %s, port %s: %s", nbd->uri.host, port, strerror(-fd));
}

static int connect_unix(struct nbd_disk *nbd, uint64_t deadline_ns, struct err *err)
{
	struct sockaddr_un addr = { .sun_family = AF_UNIX };
	int fd;

	if (strlen(nbd->socket_path) >= sizeof(addr.sun_path))
		return err_set(err, -EINVAL, "socket path '%.128s' is longer than %zu bytes", nbd->socket_path,
			       sizeof(addr.sun_path) - 1);
	strcpy(addr.sun_path, nbd->socket_path);
	fd = connect_to(&nbd->remote, (struct sockaddr *)&addr, sizeof(addr), deadline_ns);
	return fd >= 0 ? fd : err_set(err, fd, "no connection to '%s': %s", nbd->socket_path, strerror(-fd));
}

/* False with libnbd's error. */
static bool configure(struct nbd_disk *nbd, struct nbd_handle *h)
{
	bool ok = nbd_set_export_name(h, nbd->uri.path) == 0 && nbd_set_pread_initialize(h, false) == 0 &&
		  nbd_set_tls(h, nbd->tls ? LIBNBD_TLS_REQUIRE : LIBNBD_TLS_DISABLE) == 0 &&
		  nbd_set_tls_verify_peer(h, !nbd->any_peer) == 0;

	if (ok && nbd->tls_certificates)
		ok = nbd_set_tls_certificates(h, nbd->tls_certificates) == 0;
	if (ok && nbd->tls_psk_file)
		ok = nbd_set_tls_psk_file(h, nbd->tls_psk_file) == 0;
	if (ok && nbd->uri.user)
		ok = nbd_set_tls_username(h, nbd->uri.user) == 0;
	return ok;
}

static short events_of(struct nbd_handle *h)
{
	unsigned direction = nbd_aio_get_direction(h);

	return (short)((direction & LIBNBD_AIO_DIRECTION_READ ? POLLIN : 0) |
		       (direction & LIBNBD_AIO_DIRECTION_WRITE ? POLLOUT : 0));
}

/* Tells libnbd what it waits to be told. */
static int notify(struct nbd_handle *h, int revents)
{
	unsigned direction = nbd_aio_get_direction(h);

	if ((revents & ~POLLOUT) && (direction & LIBNBD_AIO_DIRECTION_READ))
		return nbd_aio_notify_read(h);
	if ((revents & ~POLLIN) && (direction & LIBNBD_AIO_DIRECTION_WRITE))
		return nbd_aio_notify_write(h);
	return 0;
}

/* Waits for the socket once, and serves it. */
static int converse(struct nbd_disk *nbd, struct nbd_handle *h, uint64_t deadline_ns, struct err *err)
{
	int revents = fd_wait(nbd_aio_get_fd(h), events_of(h), deadline_ns, &nbd->remote.cancel);

	if (revents == -ETIMEDOUT)
		return err_set(err, revents, "the server does not answer");
	if (revents < 0)
		return err_set(err, revents, "%s", strerror(-revents));
	return notify(h, revents) ? nbd_error(err) : 0;
}

static int shake_hands(struct nbd_disk *nbd, struct nbd_handle *h, uint64_t deadline_ns, struct err *err)
{
	int ret = 0;

	while (!ret && (nbd_aio_is_connecting(h) > 0 || nbd_aio_is_negotiating(h) > 0))
		ret = converse(nbd, h, deadline_ns, err);
	if (ret)
		return ret;
	return nbd_aio_is_ready(h) > 0 ? 0 : nbd_error(err);
}

static uint64_t at_most(int64_t told, uint64_t most)
{
	return told > 0 && (uint64_t)told < most ? (uint64_t)told : most;
}

static int ask_geometry(struct nbd_handle *h, struct remote_geometry *geometry, struct err *err)
{
	int64_t size_bytes = nbd_get_size(h), least_bytes = nbd_get_block_size(h, LIBNBD_SIZE_MINIMUM);

	if (size_bytes < 0)
		return nbd_error(err);
	geometry->block_bytes = least_bytes > 512 ? (uint32_t)least_bytes : 512;
	geometry->size_bytes = (uint64_t)size_bytes & -(uint64_t)geometry->block_bytes;
	geometry->piece_bytes = (uint32_t)at_most(nbd_get_block_size(h, LIBNBD_SIZE_MAXIMUM), REMOTE_PIECE_BYTES);
	geometry->piece_bytes &= -geometry->block_bytes;
	if (geometry->piece_bytes == 0)
		return err_set(err, -EPROTO, "the server takes no request as long as a block of %u bytes",
			       geometry->block_bytes);
	geometry->discard_bytes = nbd_can_trim(h) > 0 ? REMOTE_DISCARD_BYTES : 0;
	geometry->volatile_cache = nbd_can_flush(h) > 0;
	geometry->read_only = nbd_is_read_only(h) > 0;
	return 0;
}

static int begin_on(struct nbd_disk *nbd, struct nbd_handle *h, int fd, uint64_t deadline_ns,
		    struct remote_geometry *geometry, struct err *err)
{
	int ret;

	if (!configure(nbd, h)) {
		close(fd);
		return nbd_error(err);
	}
	/* Takes the descriptor in any case. */
	if (nbd_aio_connect_socket(h, fd))
		return nbd_error(err);
	ret = shake_hands(nbd, h, deadline_ns, err);
	return ret ? ret : ask_geometry(h, geometry, err);
}

static int connect_socket(struct nbd_disk *nbd, uint64_t deadline_ns, struct err *err)
{
	return nbd->unix_socket ? connect_unix(nbd, deadline_ns, err) : connect_tcp(nbd, deadline_ns, err);
}

static int nbd_connect(struct remote *remote, uint64_t deadline_ns, struct remote_geometry *geometry, struct err *err)
{
	struct nbd_disk *nbd = nbd_of(remote);
	int fd = connect_socket(nbd, deadline_ns, err), ret;
	struct nbd_handle *h;

	if (fd < 0)
		return fd;
	h = nbd_create();
	if (!h) {
		close(fd);
		return nbd_error(err);
	}
	ret = begin_on(nbd, h, fd, deadline_ns, geometry, err);
	if (ret)
		nbd_close(h);
	else
		nbd->nbd = h;
	return ret;
}

static void nbd_disconnect(struct remote *remote)
{
	struct nbd_disk *nbd = nbd_of(remote);

	/* Says good-bye if that does not have to wait. */
	if (nbd_aio_is_ready(nbd->nbd) > 0)
		(void)nbd_aio_disconnect(nbd->nbd, 0);
	nbd_close(nbd->nbd);
	nbd->nbd = NULL;
}

/* ---- requests ---- */

static int answered(void *arg, int *error)
{
	int code = *error;

	/* A server that is going to shut down, and a connection that is gone. */
	if (code == ESHUTDOWN || code == ENOTCONN)
		code = ENOTCONN;
	remote_req_done(arg, -code);
	return 1;
}

static int nbd_send(struct remote *remote, struct remote_req *req)
{
	struct nbd_handle *h = nbd_of(remote)->nbd;
	nbd_completion_callback done = { .callback = answered, .user_data = req };
	int64_t cookie = -1;

	switch (req->op) {
	case DISK_READ: cookie = nbd_aio_pread(h, req->iov->iov_base, req->len_bytes, req->off_bytes, done, 0); break;
	case DISK_WRITE: cookie = nbd_aio_pwrite(h, req->iov->iov_base, req->len_bytes, req->off_bytes, done, 0); break;
	case DISK_FLUSH: cookie = nbd_aio_flush(h, done, 0); break;
	default: cookie = nbd_aio_trim(h, req->len_bytes, req->off_bytes, done, 0);
	}
	if (cookie >= 0)
		return 0;
	return nbd_aio_is_dead(h) > 0 || nbd_aio_is_closed(h) > 0 ? -ENOTCONN : -nbd_get_errno();
}

static bool is_readable(struct nbd_handle *h)
{
	struct pollfd pollfd = { .fd = nbd_aio_get_fd(h), .events = POLLIN };

	return poll(&pollfd, 1, 0) > 0;
}

/* libnbd must not be told to read when there is nothing: it would write nothing until there is. So only readable() leads to
 * reading, and only after a look. A notification goes as far as one reply. */
static int nbd_service(struct remote *remote, int revents, struct err *err)
{
	struct nbd_handle *h = nbd_of(remote)->nbd;

	if (revents & POLLOUT) {
		if (notify(h, POLLOUT))
			return nbd_error(err);
	} else if (revents) {
		for (int i = 0; i < REMOTE_REQS_MAX && is_readable(h); i++) {
			if (notify(h, POLLIN))
				return nbd_error(err);
		}
	}
	if (nbd_aio_is_dead(h) > 0 || nbd_aio_is_closed(h) > 0)
		return err_set(err, -ENOTCONN, "the server closed the connection");
	return 0;
}

static int nbd_fd(struct remote *remote)
{
	return nbd_aio_get_fd(nbd_of(remote)->nbd);
}

static short nbd_events(struct remote *remote)
{
	return events_of(nbd_of(remote)->nbd);
}

static void nbd_free(struct remote *remote)
{
	mem_free(nbd_of(remote));
}

static const struct disk_ops nbd_disk_ops = {
	.scheme = "nbd",
	.submit = remote_submit,
	.close = remote_close,
	.set_mark = remote_set_mark,
	.set_spare = remote_set_spare,
	.away = remote_away,
};

static const struct remote_ops nbd_ops = {
	.disk_ops = &nbd_disk_ops,
	.connect = nbd_connect,
	.disconnect = nbd_disconnect,
	.send = nbd_send,
	.service = nbd_service,
	.fd = nbd_fd,
	.events = nbd_events,
	.free = nbd_free,
};

/* ---- open ---- */

static int parse_tls(struct nbd_disk *nbd, struct err *err)
{
	const char *verify = disk_uri_opt(&nbd->uri, "tls-verify-peer");

	nbd->tls_certificates = disk_uri_opt(&nbd->uri, "tls-certificates");
	nbd->tls_psk_file = disk_uri_opt(&nbd->uri, "tls-psk-file");
	if (verify && strcmp(verify, "false") != 0 && strcmp(verify, "true") != 0)
		return err_set(err, -EINVAL, "tls-verify-peer=%.32s is neither true nor false", verify);
	nbd->any_peer = verify && strcmp(verify, "false") == 0;
	return 0;
}

static int parse(struct nbd_disk *nbd, const char *text, struct err *err)
{
	int ret = disk_uri_parse(&nbd->uri, text, err);

	if (!ret)
		ret = remote_options(&nbd->remote, &nbd->uri, err);
	if (ret)
		return ret;
	nbd->tls = strncmp(nbd->uri.scheme, "nbds", 4) == 0;
	nbd->unix_socket = strstr(nbd->uri.scheme, "+unix") != NULL;
	if (nbd->unix_socket)
		nbd->socket_path = disk_uri_opt(&nbd->uri, "socket");
	if (nbd->unix_socket && !nbd->socket_path)
		return err_set(err, -EINVAL, "it does not say where the server listens: add ?socket=PATH");
	if (!nbd->unix_socket && *nbd->uri.host == '\0')
		return err_set(err, -EINVAL, "it names no host");
	ret = nbd->tls ? parse_tls(nbd, err) : 0;
	return ret ? ret : disk_uri_check_opts(&nbd->uri, err);
}

int disk_nbd_open(const char *uri, const char *rest, const struct disk_open_opts *opts, struct disk **out,
		  struct err *err)
{
	struct nbd_disk *nbd = mem_zalloc(sizeof(*nbd));
	int ret;

	if (!nbd)
		return err_set(err, -ENOMEM, "cannot open '%s': no memory", uri);
	ret = parse(nbd, uri, err);
	if (ret)
		mem_free(nbd);
	else
		ret = remote_open(&nbd->remote, &nbd_ops, out, err);
	return ret ? err_prefix(err, ret, "cannot open '%.200s'", uri) : 0;
}

/* ---- what a server offers ---- */

struct listing {
	struct disk_finder *finder;
	uint32_t count;
	bool done;
	int error;
};

static int export_named(void *arg, const char *name, const char *description)
{
	struct listing *listing = arg;

	if (listing->count++ < EXPORTS_MAX)
		disk_found(listing->finder, name, 0, "");
	return 0;
}

static int list_ended(void *arg, int *error)
{
	struct listing *listing = arg;

	listing->done = true;
	listing->error = *error;
	return 1;
}

static int list_exports(struct nbd_disk *nbd, struct nbd_handle *h, struct listing *listing, uint64_t deadline_ns,
			struct err *err)
{
	nbd_list_callback named = { .callback = export_named, .user_data = listing };
	nbd_completion_callback ended = { .callback = list_ended, .user_data = listing };
	int ret = 0;

	while (!ret && nbd_aio_is_connecting(h) > 0)
		ret = converse(nbd, h, deadline_ns, err);
	if (ret)
		return ret;
	if (nbd_aio_opt_list(h, named, ended))
		return nbd_error(err);
	while (!ret && !listing->done)
		ret = converse(nbd, h, deadline_ns, err);
	if (!ret && listing->error)
		ret = err_set(err, -listing->error, "the server does not tell what it exports: %s",
			      strerror(listing->error));
	return ret;
}

static int discover(struct nbd_disk *nbd, struct nbd_handle *h, struct disk_finder *finder, struct err *err)
{
	struct listing listing = { .finder = finder };
	uint64_t deadline_ns = loop_now_ns(loop_self()) + LIST_NS_MAX;
	int fd;

	if (!configure(nbd, h) || nbd_set_opt_mode(h, true))
		return nbd_error(err);
	fd = connect_socket(nbd, deadline_ns, err);
	if (fd < 0)
		return fd;
	if (nbd_aio_connect_socket(h, fd))
		return nbd_error(err);
	return list_exports(nbd, h, &listing, deadline_ns, err);
}

int disk_nbd_discover(const char *uri, struct disk_finder *finder, struct err *err)
{
	struct nbd_disk *nbd = mem_zalloc(sizeof(*nbd));
	struct nbd_handle *h = nbd_create();
	int ret = nbd && h ? parse(nbd, uri, err) : err_set(err, -ENOMEM, "no memory");

	if (!ret) {
		fd_cancel_init(&nbd->remote.cancel);
		ret = discover(nbd, h, finder, err);
	}
	if (h)
		nbd_close(h);
	mem_free(nbd);
	return ret;
}
