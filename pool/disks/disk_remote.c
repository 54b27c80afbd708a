/* I/O on a network disk: see disk_remote.h.
 *
 *	submit -> queue | write_queue -> (cut into requests) -> flying -> finished -> done
 *	                                      ^ again: to be sent once more
 *
 * A write's request stands for an entry of the keep; when its session breaks the request is given back and the entry is QUEUED
 * again. All other requests keep their identity and wait on `again`.
 *
 * Nothing is answered from within submit or from within a driver: requests are put on `finished`, and the pump, a task, ends
 * them, then sends what can be sent. So everything that happens in one turn of the loop goes out together. */
#include "pool/disks/disk_remote.h"

#include <assert.h>
#include <errno.h>
#include <string.h>

#include "pool/base/mem.h"
#include "pool/runtime/fiber.h"

#define REQS_RESERVED 16
#define TICK_NS_MIN (20ull * 1000000)
#define TICK_NS_MAX (500ull * 1000000)

/* The driver's part of an I/O, in disk_io.priv. */
struct remote_io {
	struct list node; /* on remote.queue or .write_queue */
	struct loop *origin;
	uint64_t since_ns;
	uint64_t cut_bytes; /* given to requests */
	uint32_t pending;   /* requests, and 1 while it is on a queue */
	int res;
};

static_assert(sizeof(struct remote_io) <= sizeof(((struct disk_io *)0)->priv), "remote_io is too large");

static struct remote_io *rio_of(struct disk_io *io)
{
	return (struct remote_io *)io->priv;
}

static struct disk_io *io_of_node(struct list *node)
{
	return (struct disk_io *)((char *)list_entry(node, struct remote_io, node) - offsetof(struct disk_io, priv));
}

static struct remote *remote_of(struct disk *disk)
{
	return container_of(disk, struct remote, disk);
}

/* ---- the end of an I/O ---- */

static void answer_task(struct task *task)
{
	struct disk_io *io = container_of(task, struct disk_io, task);

	disk_done(io, rio_of(io)->res);
}

static void answer(struct disk_io *io)
{
	struct remote_io *rio = rio_of(io);

	if (rio->origin == loop_self()) {
		disk_done(io, rio->res);
		return;
	}
	io->task.fn = answer_task;
	loop_send(rio->origin, &io->task);
}

/* One of its requests has ended, or its time on a queue has. */
static void part_done(struct disk_io *io, int res)
{
	struct remote_io *rio = rio_of(io);

	if (res && !rio->res)
		rio->res = res;
	assert(rio->pending > 0);
	if (--rio->pending == 0)
		answer(io);
}

/* ---- requests ---- */

struct remote_req *remote_req_get(struct remote *remote, bool own)
{
	struct remote_req *req;

	if (remote->free_count <= (own ? 0 : REQS_RESERVED))
		return NULL;
	req = list_entry(list_pop_front(&remote->free), struct remote_req, node);
	remote->free_count--;
	req->io = NULL;
	req->kept = NULL;
	req->waiter = NULL;
	req->bounced = req->finished = false;
	req->tries = 0;
	return req;
}

void remote_req_put(struct remote *remote, struct remote_req *req)
{
	list_push_front(&remote->free, &req->node);
	remote->free_count++;
}

void remote_req_send(struct remote *remote, struct remote_req *req)
{
	int ret;

	if (list_empty(&remote->flying))
		remote->heard_ns = loop_now_ns(remote->home);
	list_push_back(&remote->flying, &req->node);
	ret = remote->ops->send(remote, req);
	if (ret)
		remote_req_done(req, ret);
}

void remote_send_kept(struct remote *remote, struct remote_req *req, struct kept *kept)
{
	kept->state = KEPT_FLYING;
	req->op = DISK_WRITE;
	req->kept = kept;
	req->off_bytes = kept->off_bytes;
	req->len_bytes = kept->len_bytes;
	req->one = (struct iovec){ .iov_base = kept->data, .iov_len = kept->len_bytes };
	req->iov = &req->one;
	req->iov_count = 1;
	remote_req_send(remote, req);
}

void remote_req_done(struct remote_req *req, int res)
{
	struct remote *remote = req->remote;

	remote->heard_ns = loop_now_ns(remote->home);
	if (res == -ENOTCONN) {
		remote_lost(remote, "the connection broke");
		return;
	}
	list_del(&req->node);
	if (res == -EAGAIN && ++req->tries < REMOTE_TRIES_MAX) {
		list_push_back(&remote->again, &req->node);
		return;
	}
	req->res = res == -EAGAIN ? -EIO : res;
	list_push_back(&remote->finished, &req->node);
	remote_pump_soon(remote);
}

/* ---- what a request means when it has ended ---- */

static int flush_ended(struct remote *remote, const struct remote_req *req)
{
	if (req->res)
		remote->flush_broken = true;
	else if (req->flush > remote->flushed)
		remote->flushed = req->flush;
	keep_trim(&remote->keep, remote->flushed);
	if (!req->io)
		remote->own_flush = false;
	return remote->flush_broken ? -EIO : 0;
}

static void write_ended(struct remote *remote, const struct remote_req *req)
{
	struct kept *kept = req->kept;
	struct disk_io *io = kept->io;

	kept->io = NULL;
	if (req->res) {
		if (kept->acked_once)
			remote->flush_broken = true;
		kept->state = KEPT_DEAD;
	} else {
		kept->state = remote->geometry.volatile_cache ? KEPT_ACKED : KEPT_DEAD;
		kept->acked_once = true;
		kept->stamp = remote->flushes_begun;
	}
	if (kept->state == KEPT_DEAD)
		keep_trim(&remote->keep, remote->flushed);
	if (io)
		part_done(io, req->res);
}

static void unbounce(const struct remote_req *req)
{
	const struct disk_io *io = req->io;
	uint64_t skip_bytes = req->off_bytes - io->off_bytes, left_bytes = req->len_bytes;
	const struct iovec *iov = io->iov;
	const char *from = req->bounce;

	for (; skip_bytes >= iov->iov_len; iov++)
		skip_bytes -= iov->iov_len;
	for (; left_bytes > 0; iov++, skip_bytes = 0) {
		uint64_t len_bytes = iov->iov_len - skip_bytes;

		if (len_bytes > left_bytes)
			len_bytes = left_bytes;
		memcpy((char *)iov->iov_base + skip_bytes, from, len_bytes);
		from += len_bytes;
		left_bytes -= len_bytes;
	}
}

static void req_ended(struct remote *remote, struct remote_req *req)
{
	struct disk_io *io = req->io;
	int res = req->res;

	if (req->waiter) {
		req->finished = true;
		fiber_wake(req->waiter);
		return;
	}
	if (req->kept)
		write_ended(remote, req);
	else if (req->op == DISK_FLUSH)
		res = flush_ended(remote, req);
	else if (req->op == DISK_DISCARD)
		res = 0; /* a hint */
	else if (req->bounced && !res)
		unbounce(req);
	remote_req_put(remote, req);
	if (remote->state == REMOTE_WRITING)
		fiber_wake(remote->fiber);
	if (io)
		part_done(io, res);
}

/* ---- cutting I/O into requests ---- */

/* The memory of a read from cut_bytes on: straight into the caller's where the driver can, by a bounce buffer otherwise.
 * -ENOMEM. */
static int map_read(struct remote *remote, struct remote_req *req, const struct disk_io *io, uint64_t cut_bytes)
{
	const struct iovec *iov = io->iov;
	uint64_t skip_bytes = cut_bytes;

	for (; skip_bytes >= iov->iov_len; iov++)
		skip_bytes -= iov->iov_len;
	req->iov = &req->one;
	req->iov_count = 1;
	if (skip_bytes + req->len_bytes <= iov->iov_len) {
		req->one = (struct iovec){ .iov_base = (char *)iov->iov_base + skip_bytes, .iov_len = req->len_bytes };
		return 0;
	}
	if (remote->ops->scatters && req->len_bytes == io->len_bytes) {
		req->iov = (struct iovec *)io->iov;
		req->iov_count = io->iov_count;
		return 0;
	}
	if (!req->bounce)
		req->bounce = mem_alloc_aligned(MEM_PAGE_BYTES, REMOTE_PIECE_BYTES);
	if (!req->bounce)
		return -ENOMEM;
	req->bounced = true;
	req->one = (struct iovec){ .iov_base = req->bounce, .iov_len = req->len_bytes };
	return 0;
}

static void copy_out(char *to, const struct disk_io *io, uint64_t skip_bytes, uint64_t left_bytes)
{
	const struct iovec *iov = io->iov;

	for (; skip_bytes >= iov->iov_len; iov++)
		skip_bytes -= iov->iov_len;
	for (; left_bytes > 0; iov++, skip_bytes = 0) {
		uint64_t len_bytes = iov->iov_len - skip_bytes;

		if (len_bytes > left_bytes)
			len_bytes = left_bytes;
		to = mempcpy(to, (char *)iov->iov_base + skip_bytes, len_bytes);
		left_bytes -= len_bytes;
	}
}

static uint64_t next_piece_bytes(const struct remote *remote, struct disk_io *io)
{
	uint64_t left_bytes = io->len_bytes - rio_of(io)->cut_bytes;
	uint64_t max_bytes = io->op == DISK_DISCARD ? remote->geometry.discard_bytes : remote->geometry.piece_bytes;

	return left_bytes < max_bytes ? left_bytes : max_bytes;
}

/* False: there is no room for it in the keep. Takes req in any other case. */
static bool cut_write(struct remote *remote, struct remote_req *req, struct disk_io *io)
{
	struct remote_io *rio = rio_of(io);
	uint64_t len_bytes = next_piece_bytes(remote, io);
	struct kept *kept = keep_add(&remote->keep, io->off_bytes + rio->cut_bytes, (uint32_t)len_bytes);

	if (!kept)
		return false;
	copy_out(kept->data, io, rio->cut_bytes, len_bytes);
	kept->io = io;
	rio->cut_bytes += len_bytes;
	rio->pending++;
	remote_send_kept(remote, req, kept);
	return true;
}

static void cut_flush(struct remote *remote, struct remote_req *req, struct disk_io *io)
{
	req->op = DISK_FLUSH;
	req->io = io;
	req->flush = ++remote->flushes_begun;
	remote_req_send(remote, req);
}

/* The next request of a read, discard or flush. */
static void cut_other(struct remote *remote, struct remote_req *req, struct disk_io *io)
{
	struct remote_io *rio = rio_of(io);

	rio->pending++;
	if (io->op == DISK_FLUSH) {
		cut_flush(remote, req, io);
		return;
	}
	req->op = io->op;
	req->io = io;
	req->off_bytes = io->off_bytes + rio->cut_bytes;
	req->len_bytes = next_piece_bytes(remote, io);
	if (io->op == DISK_READ && map_read(remote, req, io, rio->cut_bytes)) {
		rio->cut_bytes = io->len_bytes;
		remote_req_put(remote, req);
		part_done(io, -ENOMEM);
		return;
	}
	rio->cut_bytes += req->len_bytes;
	remote_req_send(remote, req);
}

/* Nothing to send for it. */
static bool is_void(const struct remote *remote, const struct disk_io *io)
{
	if (io->op == DISK_FLUSH)
		return remote->flush_broken || !remote->geometry.volatile_cache;
	return io->op == DISK_DISCARD && remote->geometry.discard_bytes == 0;
}

/* Cuts the first I/O of a queue as far as there are requests and room. False: it, or what is behind it, has to wait. */
static bool cut_first(struct remote *remote, struct list *queue)
{
	struct disk_io *io = io_of_node(queue->next);
	struct remote_io *rio = rio_of(io);
	bool whole = is_void(remote, io);
	struct remote_req *req;

	while (!whole && (req = remote_req_get(remote, false))) {
		if (io->op != DISK_WRITE) {
			cut_other(remote, req, io);
		} else if (!cut_write(remote, req, io)) {
			remote_req_put(remote, req);
			break;
		}
		whole = rio->cut_bytes == io->len_bytes || io->op == DISK_FLUSH;
	}
	if (whole) {
		list_del(&rio->node);
		part_done(io, io->op == DISK_FLUSH && remote->flush_broken ? -EIO : 0);
	}
	return whole;
}

/* ---- giving up ---- */

static bool is_over(const struct remote *remote, struct disk_io *io, uint64_t now_ns)
{
	if (!io)
		return false;
	return remote->dispensable ||
	       (remote->give_up_ns && now_ns - rio_of(io)->since_ns >= remote->give_up_ns);
}

/* I/O that no request stands for. */
static void give_up_queue(struct remote *remote, struct list *queue, uint64_t now_ns)
{
	list_for_each_safe(node, next, queue) {
		struct disk_io *io = io_of_node(node);

		if (!is_over(remote, io, now_ns))
			continue;
		list_del(node);
		part_done(io, -ETIMEDOUT);
	}
}

/* ---- the pump ---- */

/* Sooner than the engine, if it leaves much unflushed. */
static void flush_keep(struct remote *remote)
{
	struct remote_req *req;

	if (remote->own_flush || remote->flush_broken || !remote->geometry.volatile_cache)
		return;
	if (remote->keep.used_bytes < KEEP_BYTES / 2 && remote->keep.end - remote->keep.first < KEEP_RECORDS / 2)
		return;
	req = remote_req_get(remote, true);
	if (!req)
		return;
	remote->own_flush = true;
	cut_flush(remote, req, NULL);
}

static void end_finished(struct remote *remote)
{
	struct list batch;

	list_init(&batch);
	list_splice_back(&batch, &remote->finished);
	while (!list_empty(&batch))
		req_ended(remote, list_entry(list_pop_front(&batch), struct remote_req, node));
}

void remote_send_again(struct remote *remote, bool own)
{
	struct list batch;

	list_init(&batch);
	list_splice_back(&batch, &remote->again);
	while (!list_empty(&batch)) {
		struct remote_req *req = list_entry(list_pop_front(&batch), struct remote_req, node);

		if (own && !req->kept && !req->waiter)
			list_push_back(&remote->again, &req->node);
		else
			remote_req_send(remote, req);
	}
}

static void watch(struct remote *remote);

static void arm_polls(struct remote *remote)
{
	short events = remote->ops->events(remote);

	if ((events & POLLIN) && !remote->poll_in.armed)
		fd_poll_arm(&remote->poll_in, POLLIN);
	if ((events & POLLOUT) && !remote->poll_out.armed)
		fd_poll_arm(&remote->poll_out, POLLOUT);
}

static void push_out(struct remote *remote)
{
	struct err err;

	if (remote->ops->service(remote, 0, &err))
		remote_lost(remote, err.msg);
	else
		arm_polls(remote);
}

static void pump(struct task *task)
{
	struct remote *remote = container_of(task, struct remote, pump_task);

	remote->pump_posted = false;
	end_finished(remote);
	if (remote->state == REMOTE_UP && !remote->lost) {
		while (!list_empty(&remote->queue) && cut_first(remote, &remote->queue))
			;
		while (!list_empty(&remote->write_queue) && cut_first(remote, &remote->write_queue))
			;
		flush_keep(remote);
	} else if (remote->dispensable) {
		give_up_queue(remote, &remote->queue, loop_now_ns(remote->home));
		give_up_queue(remote, &remote->write_queue, loop_now_ns(remote->home));
	}
	if (remote->state != REMOTE_DOWN && !remote->lost)
		push_out(remote);
	watch(remote);
}

void remote_pump_soon(struct remote *remote)
{
	if (remote->pump_posted)
		return;
	remote->pump_posted = true;
	remote->pump_task.fn = pump;
	loop_post(remote->home, &remote->pump_task);
}

/* ---- time ---- */

static bool has_work(const struct remote *remote)
{
	return !list_empty(&remote->flying) || !list_empty(&remote->again) || !list_empty(&remote->queue) ||
	       !list_empty(&remote->write_queue) || (remote->state != REMOTE_UP && !keep_empty(&remote->keep));
}

static uint64_t tick_ns(const struct remote *remote)
{
	uint64_t least_ns = remote->timeout_ns, ns;

	if (remote->give_up_ns && remote->give_up_ns < least_ns)
		least_ns = remote->give_up_ns;
	if (remote->patience_ns < least_ns)
		least_ns = remote->patience_ns;
	ns = least_ns / 8;
	return ns < TICK_NS_MIN ? TICK_NS_MIN : ns > TICK_NS_MAX ? TICK_NS_MAX : ns;
}

/* What waits for a session is not with the library, so it can be given up. */
static void give_up_requests(struct remote *remote, uint64_t now_ns)
{
	list_for_each_safe(node, next, &remote->again) {
		struct remote_req *req = list_entry(node, struct remote_req, node);

		if (!is_over(remote, req->io, now_ns))
			continue;
		list_del(node);
		part_done(req->io, -ETIMEDOUT);
		remote_req_put(remote, req);
	}
	for (uint64_t n = remote->keep.first; n < remote->keep.end; n++) {
		struct kept *kept = keep_at(&remote->keep, n);

		if (kept->state != KEPT_QUEUED || !is_over(remote, kept->io, now_ns))
			continue;
		kept->state = KEPT_DEAD;
		part_done(kept->io, -ETIMEDOUT);
		kept->io = NULL;
	}
	keep_trim(&remote->keep, remote->flushed);
}

static bool a_flying_is_over(struct remote *remote, uint64_t now_ns)
{
	list_for_each(node, &remote->flying) {
		struct remote_req *req = list_entry(node, struct remote_req, node);

		if (is_over(remote, req->kept ? req->kept->io : req->io, now_ns))
			return true;
	}
	return false;
}

static bool has_waited(const struct remote *remote, struct disk_io *io, uint64_t now_ns)
{
	return io && now_ns - rio_of(io)->since_ns >= remote->patience_ns;
}

static bool one_of_reqs_has_waited(const struct remote *remote, const struct list *reqs, uint64_t now_ns)
{
	list_for_each(node, reqs) {
		struct remote_req *req = list_entry(node, struct remote_req, node);

		if (has_waited(remote, req->kept ? req->kept->io : req->io, now_ns))
			return true;
	}
	return false;
}

/* Queues are in order of age. */
static bool first_has_waited(const struct remote *remote, const struct list *queue, uint64_t now_ns)
{
	return !list_empty(queue) && has_waited(remote, io_of_node(queue->next), now_ns);
}

static bool a_kept_has_waited(struct remote *remote, uint64_t now_ns)
{
	for (uint64_t n = remote->keep.first; n < remote->keep.end; n++)
		if (has_waited(remote, keep_at(&remote->keep, n)->io, now_ns))
			return true;
	return false;
}

static void judge_patience(struct remote *remote, uint64_t now_ns)
{
	bool waited = remote->dispensable || first_has_waited(remote, &remote->queue, now_ns) ||
		      first_has_waited(remote, &remote->write_queue, now_ns) ||
		      one_of_reqs_has_waited(remote, &remote->flying, now_ns) ||
		      one_of_reqs_has_waited(remote, &remote->again, now_ns) || a_kept_has_waited(remote, now_ns);

	remote->dispensable = waited && remote->spare.can_do_without &&
			      remote->spare.can_do_without(remote->spare.arg, &remote->disk);
}

static void tick(struct timer *timer)
{
	struct remote *remote = container_of(timer, struct remote, watchdog);
	uint64_t now_ns = loop_now_ns(remote->home);

	remote->watching = false;
	judge_patience(remote, now_ns);
	if (!list_empty(&remote->flying) &&
	    (now_ns - remote->heard_ns >= remote->timeout_ns || a_flying_is_over(remote, now_ns)))
		remote_lost(remote, "the server does not answer");
	give_up_queue(remote, &remote->queue, now_ns);
	give_up_queue(remote, &remote->write_queue, now_ns);
	if (remote->state != REMOTE_UP)
		give_up_requests(remote, now_ns);
	if (remote->state != REMOTE_DOWN && !remote->lost)
		remote_send_again(remote, remote->state != REMOTE_UP);
	remote_pump_soon(remote);
}

/* Looks at the clock as long as there is work, and not when there is none. */
static void watch(struct remote *remote)
{
	if (remote->watching || !has_work(remote))
		return;
	timer_init(&remote->watchdog, tick);
	/* Without memory for the timer: the next pump tries again. */
	remote->watching = timer_arm(remote->home, &remote->watchdog, loop_now_ns(remote->home) + tick_ns(remote)) == 0;
}

/* ---- sessions break ---- */

void remote_take_back(struct remote *remote)
{
	struct list batch;

	list_init(&batch);
	list_splice_back(&batch, &remote->flying);
	list_splice_back(&batch, &remote->again);
	while (!list_empty(&batch)) {
		struct remote_req *req = list_entry(list_pop_front(&batch), struct remote_req, node);

		if (req->io || req->op == DISK_FLUSH) {
			list_push_back(&remote->again, &req->node);
			continue;
		}
		if (req->kept)
			req->kept->state = KEPT_QUEUED;
		remote_req_put(remote, req);
	}
	for (uint64_t n = remote->keep.first; n < remote->keep.end; n++) {
		struct kept *kept = keep_at(&remote->keep, n);

		if (kept->state == KEPT_ACKED)
			kept->state = KEPT_QUEUED;
	}
}

/* ---- submit ---- */

static void enqueue(struct remote *remote, struct disk_io *io)
{
	struct remote_io *rio = rio_of(io);

	rio->since_ns = loop_now_ns(remote->home);
	list_push_back(io->op == DISK_WRITE ? &remote->write_queue : &remote->queue, &rio->node);
	remote_pump_soon(remote);
}

static void enqueue_task(struct task *task)
{
	struct disk_io *io = container_of(task, struct disk_io, task);

	enqueue(remote_of(io->disk), io);
}

void remote_submit(struct disk *disk, struct disk_io *io)
{
	struct remote *remote = remote_of(disk);
	struct loop *loop = loop_self();

	*rio_of(io) = (struct remote_io){ .origin = loop, .pending = 1 };
	if (loop == remote->home) {
		enqueue(remote, io);
		return;
	}
	io->task.fn = enqueue_task;
	loop_send(remote->home, &io->task);
}
