/* The load loop: fill each queue up to its depth, poll used rings, account, check, and survive a restarted server.
 *
 * How: one thread, no notifications wanted. The clock is read once for each batch of completions; a request submitted
 * after that batch starts at that time. Only an idle loop looks at the deadline and at the socket.
 *
 * Always: every request handed to vc_submit is counted in `in_flight` until its one completion; a run is over only when
 * none is left. A run without a completion for STUCK_S seconds is an error. */
#include <errno.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "tests/client/bench.h"
#include "tests/client/pattern.h"
#include "tests/client/server_proc.h"

#define STUCK_S 60
#define POLLS_PER_CLOCK 256
#define CLOCKS_PER_SOCKET_LOOK 64
#define PICK_TRIES_MAX 8
#define AFTERMATH_MS 50
#define NS_PER_S 1000000000.0

static void io_init(struct load *load, struct io *io)
{
	const struct bench_options *options = load->options;
	io->segs = (options->bs_bytes + options->seg_bytes - 1) / options->seg_bytes;
	io->seg = calloc(io->segs, sizeof(*io->seg));
	if (io->seg == NULL)
		abort();
	uint64_t gpa = vc_alloc(load->vc, options->bs_bytes);
	io->data = vc_ptr(load->vc, gpa, options->bs_bytes);
	for (unsigned i = 0; i < io->segs; i++) {
		uint32_t off_bytes = i * options->seg_bytes;
		uint32_t left_bytes = options->bs_bytes - off_bytes;
		io->seg[i].gpa = gpa + off_bytes;
		io->seg[i].len_bytes = left_bytes < options->seg_bytes ? left_bytes : options->seg_bytes;
	}
	for (uint32_t i = 0; i < options->bs_bytes / 8; i++)
		memcpy(io->data + i * 8u, &(uint64_t){ pattern_random(&load->random) }, 8);
}

static void create_ios(struct load *load, unsigned queue)
{
	load->io[queue] = calloc(load->options->depth, sizeof(struct io));
	if (load->io[queue] == NULL)
		abort();
	for (unsigned i = 0; i < load->options->depth; i++) {
		struct io *io = &load->io[queue][i];
		io_init(load, io);
		io->next_free = load->free_io[queue];
		load->free_io[queue] = io;
	}
}

int load_init(struct load *load, const struct bench_options *options, struct vc *vc)
{
	memset(load, 0, sizeof(*load));
	load->options = options;
	load->vc = vc;
	load->random = 0x123456789u + options->seed * 0x9e3779b97f4a7c15ull;
	load->writes_until_flush = options->flush_every;
	uint64_t disk_bytes = vc->config.capacity * 512;
	uint64_t range_bytes = options->range_bytes != 0 && options->range_bytes < disk_bytes ? options->range_bytes
											      : disk_bytes;
	load->blocks = range_bytes / options->bs_bytes;
	if (load->blocks == 0) {
		fprintf(stderr, "vhost-bench: the range is smaller than one block\n");
		return -EINVAL;
	}
	for (unsigned queue = 0; queue < options->queues; queue++)
		create_ios(load, queue);
	return 0;
}

void load_release(struct load *load)
{
	for (unsigned queue = 0; queue < load->options->queues; queue++) {
		for (unsigned i = 0; i < load->options->depth; i++)
			free(load->io[queue][i].seg);
		free(load->io[queue]);
	}
}

/* ---- choosing and submitting ---- */

static bool is_random(enum bench_rw rw)
{
	return rw == RW_RANDREAD || rw == RW_RANDWRITE || rw == RW_RANDRW;
}

static bool choose_write(struct load *load)
{
	switch (load->options->rw) {
	case RW_WRITE:
	case RW_RANDWRITE: return true;
	case RW_RANDRW: return pattern_random(&load->random) >> 63;
	default: return false;
	}
}

static bool lock_block(struct load *load, uint64_t block, bool write)
{
	return load->table == NULL || table_lock(load->table, block, write);
}

static bool pick_random(struct load *load, struct io *io)
{
	for (unsigned i = 0; i < PICK_TRIES_MAX; i++) {
		io->block = (uint64_t)((unsigned __int128)pattern_random(&load->random) * load->blocks >> 64);
		if (lock_block(load, io->block, io->kind == IO_WRITE))
			return true;
	}
	return false;
}

static bool pick_next(struct load *load, struct io *io)
{
	io->block = load->next_block;
	if (!lock_block(load, io->block, io->kind == IO_WRITE))
		return false;
	load->next_block = (load->next_block + 1) % load->blocks;
	return true;
}

/* The next block of the final pass; false when all were submitted. */
static bool pick_written(struct load *load, struct io *io)
{
	while (load->next_block < load->blocks && !table_was_written(load->table, load->next_block))
		load->next_block++;
	if (load->next_block == load->blocks)
		return false;
	io->kind = IO_READ;
	io->block = load->next_block++;
	return table_lock(load->table, io->block, false);
}

static bool is_over(const struct load *load)
{
	if (load->verifying)
		return load->next_block >= load->blocks;
	return (load->options->count != 0 && load->submitted >= load->options->count) ||
	       (load->end_ns != 0 && load->now_ns >= load->end_ns);
}

static bool pick(struct load *load, struct io *io)
{
	if (load->verifying)
		return pick_written(load, io);
	if (load->options->flush_every != 0 && load->writes_until_flush == 0) {
		load->writes_until_flush = load->options->flush_every;
		io->kind = IO_FLUSH;
		return true;
	}
	io->kind = choose_write(load) ? IO_WRITE : IO_READ;
	if (!(is_random(load->options->rw) ? pick_random(load, io) : pick_next(load, io)))
		return false;
	if (io->kind == IO_WRITE)
		load->writes_until_flush--;
	return true;
}

static struct vc_request request_of(const struct load *load, struct io *io)
{
	static const uint32_t types
		[] = { [IO_READ] = VIRTIO_BLK_T_IN, [IO_WRITE] = VIRTIO_BLK_T_OUT, [IO_FLUSH] = VIRTIO_BLK_T_FLUSH };
	struct vc_request request = { .type = types[io->kind], .cookie = io };
	if (io->kind == IO_FLUSH)
		return request;
	request.sector = io->block * (load->options->bs_bytes / 512);
	request.seg = io->seg;
	request.segs = io->segs;
	return request;
}

static bool submit_one(struct load *load, unsigned queue)
{
	struct io *io = load->free_io[queue];
	struct vc_ring *ring = &load->vc->ring[queue];
	if (io == NULL || is_over(load) || ring->free_count < io->segs + 2 || !pick(load, io))
		return false;
	struct vc_request request = request_of(load, io);
	if (io->kind == IO_WRITE && load->table != NULL)
		table_fill(load->table, io->block, io->data);
	else if (io->kind == IO_READ && load->table != NULL)
		memset(io->data, 0xdb, load->options->bs_bytes);
	if (vc_submit(load->vc, queue, &request) < 0)
		abort();
	load->free_io[queue] = io->next_free;
	io->start_ns = load->now_ns;
	load->in_flight++;
	load->submitted++;
	return true;
}

static void fill_queue(struct load *load, unsigned queue)
{
	bool any = false;
	while (submit_one(load, queue))
		any = true;
	if (any)
		vc_kick(load->vc, queue);
}

/* ---- completing ---- */

static void check_data(struct load *load, struct io *io)
{
	if (io->kind == IO_READ)
		load->mismatches += table_check(load->table, io->block, io->data);
	else
		table_written(load->table, io->block);
}

static void complete(struct load *load, unsigned queue, const struct vc_done *done)
{
	struct io *io = done->cookie;
	if (done->status != VIRTIO_BLK_S_OK) {
		if (load->errors++ < 10)
			fprintf(stderr, "request kind %d at block %llu failed with status %u\n", io->kind,
				(unsigned long long)io->block, done->status);
	} else if (load->table != NULL && io->kind != IO_FLUSH) {
		check_data(load, io);
	}
	if (load->table != NULL && io->kind != IO_FLUSH)
		table_unlock(load->table, io->block, io->kind == IO_WRITE);
	histogram_add(&load->latency[io->kind], load->now_ns - io->start_ns);
	io->next_free = load->free_io[queue];
	load->free_io[queue] = io;
	load->in_flight--;
}

static void end_pause(struct load *load)
{
	uint64_t pause_ns = load->now_ns - load->last_done_ns;
	load->paused = false;
	if (pause_ns > load->pause_max_ns)
		load->pause_max_ns = pause_ns;
}

/* Takes all completions of a queue: their number or -errno. */
static int reap_queue(struct load *load, unsigned queue)
{
	struct vc_done done;
	int count = 0;
	int rc;
	while ((rc = vc_reap(load->vc, queue, &done)) > 0) {
		if (count++ == 0)
			load->now_ns = vu_now_ns();
		if (load->paused)
			end_pause(load);
		complete(load, queue, &done);
	}
	if (count > 0)
		load->last_done_ns = load->now_ns;
	return rc < 0 ? rc : count;
}

/* ---- the loop ---- */

static int recover_session(struct load *load)
{
	if (!load->options->reconnect)
		return -EPIPE;
	vc_disconnect(load->vc);
	int rc = vc_connect(load->vc);
	if (rc == 0)
		rc = vc_start(load->vc);
	if (rc == -EPIPE || rc == -ECONNRESET)
		return 0; /* killed again: the next look at the socket tries anew */
	if (rc < 0)
		return rc;
	load->reconnects++;
	load->paused = load->in_flight > 0;
	return 0;
}

static int look_around(struct load *load, unsigned polls)
{
	if (polls % POLLS_PER_CLOCK != 0)
		return 0;
	load->now_ns = vu_now_ns();
	if (load->now_ns - load->last_done_ns > STUCK_S * 1000000000ull) {
		snprintf(load->vc->error, sizeof(load->vc->error), "no completion for %d s, %u requests in flight",
			 STUCK_S, load->in_flight);
		return -ETIMEDOUT;
	}
	if (polls % (POLLS_PER_CLOCK * CLOCKS_PER_SOCKET_LOOK) != 0)
		return 0;
	if (load->vc->sock < 0 || vu_is_closed(load->vc->sock)) {
		snprintf(load->vc->error, sizeof(load->vc->error), "the server closed the connection");
		return recover_session(load);
	}
	return 0;
}

static void forget_warmup(struct load *load)
{
	memset(load->latency, 0, sizeof(load->latency));
	load->start_ns = load->now_ns;
	load->cpu_start_ns = server_cpu_ns(load->options->server_pid);
	load->warm_ns = 0;
}

static int run_until_drained(struct load *load)
{
	unsigned idle_polls = 0;
	while (load->in_flight > 0 || !is_over(load)) {
		int done = 0;
		for (unsigned queue = 0; queue < load->options->queues; queue++) {
			fill_queue(load, queue);
			int rc = reap_queue(load, queue);
			if (rc < 0)
				return rc;
			done += rc;
		}
		if (load->warm_ns != 0 && load->now_ns >= load->warm_ns)
			forget_warmup(load);
		if (done > 0) {
			idle_polls = 0;
			continue;
		}
		if (load->options->yield)
			sched_yield();
		else
			__builtin_ia32_pause();
		int rc = look_around(load, ++idle_polls);
		if (rc < 0)
			return rc;
	}
	return 0;
}

static void start_clock(struct load *load)
{
	const struct bench_options *options = load->options;
	load->now_ns = vu_now_ns();
	load->start_ns = load->now_ns;
	load->last_done_ns = load->now_ns;
	load->cpu_start_ns = server_cpu_ns(options->server_pid);
	load->warm_ns = options->warmup_s > 0 ? load->start_ns + (uint64_t)(options->warmup_s * NS_PER_S) : 0;
	load->end_ns = 0;
	if (options->seconds > 0)
		load->end_ns = load->start_ns + (uint64_t)((options->warmup_s + options->seconds) * NS_PER_S);
}

int load_run(struct load *load)
{
	start_clock(load);
	return run_until_drained(load);
}

int load_verify_pass(struct load *load)
{
	load->verifying = true;
	load->next_block = 0;
	start_clock(load);
	return run_until_drained(load);
}

static int check_ring(struct load *load, unsigned queue)
{
	struct vc *vc = load->vc;
	struct vc_ring *ring = &vc->ring[queue];
	struct vc_done done;
	int rc = vc_reap(vc, queue, &done);
	if (rc < 0)
		return rc;
	int base = vc_ring_stop(vc, queue);
	if (base < 0)
		return base;
	if ((uint16_t)base == ring->avail_next && vc_used_idx(ring) == ring->avail_next)
		return 0;
	snprintf(vc->error, sizeof(vc->error), "queue %u stopped at %d, used index %u, but %u were submitted", queue,
		 base, vc_used_idx(ring), ring->avail_next);
	return -EPROTO;
}

int load_check_rings(struct load *load)
{
	usleep(AFTERMATH_MS * 1000);
	for (unsigned queue = 0; queue < load->options->queues; queue++) {
		int rc = check_ring(load, queue);
		while (rc == -EPIPE && load->options->reconnect) { /* killed while it stopped */
			rc = recover_session(load);
			if (rc == 0)
				rc = check_ring(load, queue);
		}
		if (rc < 0)
			return rc;
	}
	return 0;
}
