/* Sessions of a network disk: see disk_remote.h.
 *
 * A fiber for each disk begins sessions and ends them. It sleeps while one lasts:
 *
 *	DOWN -> connect -> CHECKING: size, serial number, mark -> WRITING: all that is kept -> UP -> lost -> DOWN
 *
 * Between two tries it waits BACKOFF_NS_MIN, then twice as long each time, up to BACKOFF_NS_MAX. */
#include <assert.h>
#include <errno.h>
#include <netdb.h>
#include <stdio.h>
#include <string.h>

#include "pool/base/mem.h"
#include "pool/disks/disk_remote.h"
#include "pool/runtime/fiber.h"

#define BACKOFF_NS_MIN (50ull * 1000000)
#define BACKOFF_NS_MAX (2000ull * 1000000)
#define CONNECT_NS_MAX (10ull * 1000000000)
#define MARK_BLOCK_BYTES 4096
#define REWRITE_DEPTH 16
/* What is noticed by looking at the clock now and then, twice, is noticed late. */
#define PATIENCE_SHORT_NS (1200ull * 1000000)

static struct remote *remote_of(struct disk *disk)
{
	return container_of(disk, struct remote, disk);
}

/* ---- losing ---- */

void remote_lost(struct remote *remote, const char *why)
{
	if (remote->lost || remote->state == REMOTE_DOWN)
		return;
	remote->lost = true;
	err_set(&remote->why, -ENOTCONN, "%s", why);
	fiber_wake(remote->fiber);
}

static void on_ready(struct remote *remote, int revents, int asked)
{
	struct err err;

	if (remote->lost)
		return;
	if (revents < 0)
		remote_lost(remote, strerror(-revents));
	else if (remote->ops->service(remote, revents | asked, &err))
		remote_lost(remote, err.msg);
	else
		remote_pump_soon(remote); /* which arms the polls again */
}

static void readable(struct fd_poll *poll, int revents)
{
	on_ready(container_of(poll, struct remote, poll_in), revents, POLLIN);
}

static void writable(struct fd_poll *poll, int revents)
{
	on_ready(container_of(poll, struct remote, poll_out), revents, POLLOUT);
}

static void session_end(struct remote *remote)
{
	remote->lost = true;
	fd_poll_stop(&remote->poll_in);
	fd_poll_stop(&remote->poll_out);
	remote->ops->disconnect(remote);
	/* What has been answered counts before the rest is taken back. */
	while (remote->pump_posted)
		fiber_yield();
	remote->state = REMOTE_DOWN;
	remote->lost = false;
	remote_take_back(remote);
	remote_pump_soon(remote);
}

/* ---- is it our disk? ---- */

/* Reads a block into mark_block, on the session that is being begun. */
static int read_mark_block(struct remote *remote, uint64_t off_bytes)
{
	struct remote_req *req = remote_req_get(remote, true);
	int res;

	if (!req)
		return -EBUSY;
	req->op = DISK_READ;
	req->off_bytes = off_bytes;
	req->len_bytes = MARK_BLOCK_BYTES;
	req->one = (struct iovec){ .iov_base = remote->mark_block, .iov_len = MARK_BLOCK_BYTES };
	req->iov = &req->one;
	req->iov_count = 1;
	req->waiter = fiber_self();
	remote_req_send(remote, req);
	remote_pump_soon(remote);
	while (!req->finished && !remote->lost)
		fiber_park();
	if (!req->finished) {
		req->waiter = NULL; /* remote_take_back or the pump gives it back */
		return -ENOTCONN;
	}
	res = req->res;
	remote_req_put(remote, req);
	return res;
}

static int check_mark(struct remote *remote, struct err *err)
{
	const struct disk_mark mark = remote->mark;
	int ret = 0;

	for (uint32_t i = 0; i < mark.count; i++) {
		ret = read_mark_block(remote, mark.off_bytes[i]);
		if (!ret && memcmp(remote->mark_block + mark.skip_bytes, mark.bytes, DISK_MARK_BYTES) == 0)
			return 0;
		if (ret == -ENOTCONN)
			return ret;
	}
	if (mark.count == 0)
		return 0;
	if (ret)
		return err_set(err, ret, "its label cannot be read: %s", strerror(-ret));
	return err_set(err, -ENODEV,
		       "another disk is there under this name: it does not hold the label that this one had");
}

static int check_geometry(struct remote *remote, const struct remote_geometry *now, struct err *err)
{
	const struct remote_geometry *was = &remote->geometry;

	if (now->size_bytes < remote->disk.size_bytes)
		return err_set(err, -ENODEV, "it has shrunk from %llu to %llu bytes",
			       (unsigned long long)remote->disk.size_bytes, (unsigned long long)now->size_bytes);
	if (now->block_bytes > remote->disk.block_bytes)
		return err_set(err, -ENODEV, "its blocks have grown from %u to %u bytes", remote->disk.block_bytes,
			       now->block_bytes);
	if (now->piece_bytes < was->piece_bytes)
		return err_set(err, -ENODEV, "it takes requests of %u bytes only, no longer of %u", now->piece_bytes,
			       was->piece_bytes);
	if (strcmp(now->serial, was->serial) != 0)
		return err_set(err, -ENODEV, "another disk is there under this name: serial number '%s', not '%s'",
			       now->serial, was->serial);
	if (now->read_only)
		return err_set(err, -EROFS, "it has become read-only");
	return 0;
}

/* ---- writing again ---- */

/* Writes that were sent, and may have to be sent once more. */
static uint32_t count_writes(const struct list *reqs, const struct kept *kept, bool *overlap)
{
	uint32_t count = 0;

	list_for_each(node, reqs) {
		const struct kept *other = list_entry(node, struct remote_req, node)->kept;

		if (!other)
			continue;
		count++;
		if (kept && other->off_bytes < kept->off_bytes + kept->len_bytes &&
		    kept->off_bytes < other->off_bytes + other->len_bytes)
			*overlap = true;
	}
	return count;
}

/* Whether there are REWRITE_DEPTH unanswered writes, or one that overlaps `kept` (NULL: whether there is any at all). */
static bool must_wait(const struct remote *remote, const struct kept *kept)
{
	bool overlap = false;
	uint32_t count = count_writes(&remote->flying, kept, &overlap) + count_writes(&remote->again, kept, &overlap);

	return kept ? overlap || count >= REWRITE_DEPTH : count > 0;
}

/* Writes everything kept, oldest first. What overlaps is written one after the other. */
static int write_kept(struct remote *remote)
{
	for (uint64_t n = remote->keep.first; n < remote->keep.end; n++) {
		struct kept *kept;
		struct remote_req *req;

		if (n < remote->keep.first || (kept = keep_at(&remote->keep, n))->state != KEPT_QUEUED)
			continue;
		while (must_wait(remote, kept) && !remote->lost)
			fiber_park();
		if (remote->lost)
			return -ENOTCONN;
		if (kept->state != KEPT_QUEUED)
			continue;
		req = remote_req_get(remote, true);
		assert(req); /* REWRITE_DEPTH are reserved */
		remote_send_kept(remote, req, kept);
		remote_pump_soon(remote);
	}
	while (must_wait(remote, NULL) && !remote->lost)
		fiber_park();
	return remote->lost ? -ENOTCONN : 0;
}

/* ---- beginning ---- */

static int session_prove(struct remote *remote, const struct remote_geometry *geometry, struct err *err)
{
	int ret;

	if (remote->opened) {
		ret = check_geometry(remote, geometry, err);
		if (ret)
			return ret;
	}
	remote->geometry = *geometry;
	ret = check_mark(remote, err);
	if (ret)
		return ret;
	remote->state = REMOTE_WRITING;
	return write_kept(remote);
}

static int session_begin(struct remote *remote, struct err *err)
{
	uint64_t limit_ns = remote->timeout_ns < CONNECT_NS_MAX ? remote->timeout_ns : CONNECT_NS_MAX;
	struct remote_geometry geometry = { 0 };
	struct reactor *reactor = reactor_of(remote->home);
	int ret = remote->ops->connect(remote, loop_now_ns(remote->home) + limit_ns, &geometry, err);

	if (ret)
		return ret;
	fd_poll_init(reactor, &remote->poll_in, remote->ops->fd(remote), readable);
	fd_poll_init(reactor, &remote->poll_out, remote->ops->fd(remote), writable);
	remote->state = REMOTE_CHECKING;
	ret = session_prove(remote, &geometry, err);
	if (ret) {
		if (ret == -ENOTCONN)
			*err = remote->why;
		session_end(remote);
		return ret;
	}
	remote->state = REMOTE_UP;
	remote->dispensable = false;
	remote_send_again(remote, false);
	remote_pump_soon(remote);
	return 0;
}

static void session_restore(struct remote *remote)
{
	uint64_t backoff_ns = BACKOFF_NS_MIN;

	while (!remote->closing && session_begin(remote, &remote->why)) {
		uint64_t due_ns = loop_now_ns(remote->home) + backoff_ns;

		while (!remote->closing && fiber_park_until(due_ns))
			;
		backoff_ns = backoff_ns * 2 < BACKOFF_NS_MAX ? backoff_ns * 2 : BACKOFF_NS_MAX;
	}
}

static void session_main(void *arg)
{
	struct remote *remote = arg;

	remote->fiber = fiber_self();
	remote->open_res = session_begin(remote, remote->open_err);
	remote->opened = true;
	fiber_wake(remote->owner);
	while (remote->open_res == 0 && !remote->closing) {
		while (!remote->lost && !remote->closing)
			fiber_park();
		session_end(remote);
		session_restore(remote);
	}
	if (remote->state != REMOTE_DOWN)
		session_end(remote);
	remote->ended = true;
	if (remote->owner)
		fiber_wake(remote->owner);
}

/* ---- open and close ---- */

int remote_options(struct remote *remote, struct disk_uri *uri, struct err *err)
{
	uint64_t timeout_s = REMOTE_TIMEOUT_S, stall_s = REMOTE_STALL_S, give_up_s = 0;
	int ret = disk_uri_opt_number(uri, "timeout", 1, 3600, &timeout_s, err);

	if (!ret)
		ret = disk_uri_opt_number(uri, "stall", 2, 3600, &stall_s, err);
	if (!ret)
		ret = disk_uri_opt_number(uri, "give-up", 1, 86400, &give_up_s, err);
	remote->timeout_ns = timeout_s * 1000000000ull;
	remote->patience_ns = stall_s * 1000000000ull - PATIENCE_SHORT_NS;
	remote->give_up_ns = give_up_s * 1000000000ull;
	return ret;
}

static int prepare(struct remote *remote, struct err *err)
{
	list_init(&remote->queue);
	list_init(&remote->write_queue);
	list_init(&remote->free);
	list_init(&remote->flying);
	list_init(&remote->again);
	list_init(&remote->finished);
	fd_cancel_init(&remote->cancel);
	for (uint32_t i = 0; i < REMOTE_REQS_MAX; i++) {
		remote->reqs[i].remote = remote;
		remote_req_put(remote, &remote->reqs[i]);
	}
	remote->mark_block = mem_alloc_aligned(MARK_BLOCK_BYTES, MARK_BLOCK_BYTES);
	return remote->mark_block && keep_init(&remote->keep) == 0 ? 0 : err_set(err, -ENOMEM, "no memory");
}

static void free_remote(struct remote *remote)
{
	/* The pump and the wake-ups it made may still be on their way. */
	while (remote->pump_posted)
		fiber_yield();
	timer_cancel(remote->home, &remote->watchdog);
	for (uint32_t i = 0; i < REMOTE_REQS_MAX; i++)
		mem_free(remote->reqs[i].bounce);
	mem_free(remote->mark_block);
	keep_release(&remote->keep);
	remote->ops->free(remote);
}

static int check_first(const struct remote_geometry *geometry, struct err *err)
{
	if (geometry->read_only)
		return err_set(err, -EROFS, "the server offers it read-only");
	if (geometry->block_bytes > 4096)
		return err_set(err, -EINVAL, "its blocks have %u bytes, not 512 to 4096", geometry->block_bytes);
	if (geometry->size_bytes == 0)
		return err_set(err, -EINVAL, "it has no room for a single block of %u bytes", geometry->block_bytes);
	return 0;
}

static void end_session_main(struct remote *remote)
{
	remote->owner = fiber_self();
	remote->closing = true;
	fd_cancel(&remote->cancel);
	if (!remote->ended)
		fiber_wake(remote->fiber);
	while (!remote->ended)
		fiber_park();
}

static int open_session(struct remote *remote, struct err *err)
{
	int ret;

	remote->owner = fiber_self();
	remote->open_err = err;
	ret = fiber_start(remote->home, session_main, remote);
	if (ret)
		return err_set(err, ret, "no memory");
	while (!remote->opened)
		fiber_park();
	remote->owner = NULL;
	ret = remote->open_res ? remote->open_res : check_first(&remote->geometry, err);
	if (ret)
		end_session_main(remote);
	return ret;
}

int remote_open(struct remote *remote, const struct remote_ops *ops, struct disk **out, struct err *err)
{
	int ret;

	remote->ops = ops;
	remote->home = loop_self();
	ret = prepare(remote, err);
	if (!ret)
		ret = open_session(remote, err);
	if (ret) {
		free_remote(remote);
		return ret;
	}
	disk_init(&remote->disk, ops->disk_ops, remote->geometry.size_bytes, remote->geometry.block_bytes);
	*out = &remote->disk;
	return 0;
}

void remote_close(struct disk *disk)
{
	struct remote *remote = remote_of(disk);

	end_session_main(remote);
	free_remote(remote);
}

void remote_set_mark(struct disk *disk, const struct disk_mark *mark)
{
	remote_of(disk)->mark = *mark;
}

void remote_set_spare(struct disk *disk, const struct disk_expendable *spare)
{
	remote_of(disk)->spare = *spare;
}

const char *remote_away(const struct disk *disk)
{
	const struct remote *remote = container_of(disk, const struct remote, disk);

	return remote->state == REMOTE_UP && !remote->lost ? NULL : remote->why.msg;
}

/* ---- helpers of drivers ---- */

struct resolve_job {
	const char *host, *port;
	struct addrinfo *list;
};

/* Helper thread. */
static int resolve_job(void *arg)
{
	struct resolve_job *job = arg;
	const struct addrinfo hints = { .ai_socktype = SOCK_STREAM, .ai_flags = AI_NUMERICSERV };

	return getaddrinfo(job->host, job->port, &hints, &job->list);
}

int remote_resolve(const char *host, const char *port, struct remote_addresses *out, struct err *err)
{
	struct resolve_job job = { .host = host, .port = port };
	int ret = reactor_offload(resolve_job, &job);

	if (ret)
		return err_set(err, -EHOSTUNREACH, "host '%.128s' is not known: %s", host,
			       ret == -EAGAIN ? "no memory" : gai_strerror(ret));
	out->count = 0;
	for (const struct addrinfo *at = job.list; at && out->count < REMOTE_ADDRESSES_MAX; at = at->ai_next) {
		struct remote_address *to = &out->at[out->count++];

		to->len_bytes = at->ai_addrlen;
		memcpy(&to->addr, at->ai_addr, at->ai_addrlen);
	}
	freeaddrinfo(job.list);
	return 0;
}

struct secret_job {
	const char *path;
	char *buf;
	size_t size_bytes;
};

/* Helper thread. */
static int secret_job(void *arg)
{
	struct secret_job *job = arg;
	FILE *file = fopen(job->path, "re");
	size_t len_bytes;
	int ret;

	if (!file)
		return -errno;
	len_bytes = fread(job->buf, 1, job->size_bytes, file);
	ret = ferror(file) ? -EIO : len_bytes == job->size_bytes ? -EFBIG : 0;
	fclose(file);
	if (ret)
		return ret;
	if (len_bytes > 0 && job->buf[len_bytes - 1] == '\n')
		len_bytes--;
	job->buf[len_bytes] = '\0';
	return strlen(job->buf) == len_bytes && len_bytes > 0 ? 0 : -EINVAL;
}

int remote_read_secret(const char *path, char *buf, size_t size_bytes, struct err *err)
{
	struct secret_job job = { .path = path, .buf = buf, .size_bytes = size_bytes };
	int ret = reactor_offload(secret_job, &job);

	return ret ? err_set(err, ret, "cannot read the secret in '%.128s': %s", path,
			     ret == -EINVAL ? "it is not one line of text" : strerror(-ret))
		   : 0;
}
