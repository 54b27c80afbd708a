/* How the engine grows with reactors, with no client in the way: a reactor for each core named, a volume at home on each,
 * and each volume keeps itself busy with 32 requests in flight.
 *
 *     bench/reactors SECONDS VOLUME_BYTES CPU [CPU...]
 *
 * Prints a line of JSON for each of randwrite and randread, 4 KiB: requests a second of all volumes, and CPU time of a
 * request. All volumes live on one disk, ram: of four times their size, that has been written once. */
#include <assert.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "pool/base/size.h"
#include "pool/runtime/reactor.h"
#include "tests/unit/unit_volume.h"
#include "volumes/volume.h"

#define WORKERS_MAX	4
#define DEPTH		32
#define BLOCK		4096
#define FILL_BLOCK	(128u << 10)
#define LOOKS_PER_CLOCK 64
#define POOL_FACTOR	4

struct worker;

struct request {
	struct vio vio;
	struct iovec iov;
	struct worker *worker;
};

/* A volume and what is done with it. Written on its home loop only, but for `bench` and `vol`. */
struct worker {
	struct bench *bench;
	struct volume *vol;
	struct fiber *waiting; /* in run_worker */
	struct request request[DEPTH];
	uint64_t random, next, submitted, done, cpu_ns;
	uint32_t running;
};

struct bench {
	struct reactor *reactor[WORKERS_MAX];
	struct worker worker[WORKERS_MAX];
	int count;
	double seconds;
	uint64_t volume_bytes;
	struct volumes *vols;
	struct fiber *main; /* on loop 0 */
	int busy;           /* workers not yet done; loop 0 */
	/* The phase. */
	enum vio_op op;
	bool sequential;
	uint32_t len_bytes;
	uint64_t requests; /* of each worker; 0: until stop_ns */
	uint64_t stop_ns;
};

static uint64_t clock_ns(clockid_t clock)
{
	struct timespec ts;

	clock_gettime(clock, &ts);
	return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

/* ---- load ---- */

static void submit(struct request *r)
{
	struct worker *w = r->worker;
	const struct bench *b = w->bench;
	uint64_t places = b->volume_bytes / b->len_bytes;

	w->random = w->random * 6364136223846793005ull + 1442695040888963407ull;
	w->submitted++;
	r->vio.op = b->op;
	r->vio.off_bytes = (b->sequential ? w->next++ % places : (w->random >> 20) % places) * b->len_bytes;
	r->vio.len_bytes = r->iov.iov_len = b->len_bytes;
	volume_submit(w->vol, &r->vio);
}

static bool is_over(const struct worker *w)
{
	const struct bench *b = w->bench;

	if (b->requests > 0)
		return w->submitted >= b->requests;
	return w->done % LOOKS_PER_CLOCK == 0 && clock_ns(CLOCK_MONOTONIC) >= b->stop_ns;
}

static void request_done(struct vio *vio, int res)
{
	struct worker *w = container_of(vio, struct request, vio)->worker;

	assert(res == 0);
	w->done++;
	if (w->running == DEPTH && !is_over(w))
		submit(container_of(vio, struct request, vio));
	else if (--w->running == 0)
		fiber_wake(w->waiting);
}

/* On the volume's home loop. */
static int run_worker(void *arg)
{
	struct worker *w = arg;
	uint64_t start_ns = clock_ns(CLOCK_THREAD_CPUTIME_ID);

	w->waiting = fiber_self();
	w->submitted = w->done = 0;
	w->running = DEPTH;
	for (int i = 0; i < DEPTH; i++)
		submit(&w->request[i]);
	while (w->running > 0)
		fiber_park();
	w->cpu_ns = clock_ns(CLOCK_THREAD_CPUTIME_ID) - start_ns;
	return 0;
}

static void worker_fiber(void *arg)
{
	struct worker *w = arg;

	if (fiber_call_on(volume_loop(w->vol), run_worker, w) < 0)
		abort();
	if (--w->bench->busy == 0)
		fiber_wake(w->bench->main);
}

/* All workers at once. */
static void run_phase(struct bench *b, enum vio_op op, bool sequential, uint32_t len_bytes, uint64_t bytes)
{
	b->op = op;
	b->sequential = sequential;
	b->len_bytes = len_bytes;
	b->requests = bytes / len_bytes;
	b->stop_ns = clock_ns(CLOCK_MONOTONIC) + (uint64_t)(b->seconds * 1e9);
	b->busy = b->count;
	for (int i = 0; i < b->count; i++) {
		if (fiber_start(loop_self(), worker_fiber, &b->worker[i]) < 0)
			abort();
	}
	while (b->busy > 0)
		fiber_park();
}

static void measure(struct bench *b, enum vio_op op, const char *name)
{
	uint64_t start_ns = clock_ns(CLOCK_MONOTONIC), ns, done = 0, cpu_ns = 0;

	run_phase(b, op, false, BLOCK, 0);
	ns = clock_ns(CLOCK_MONOTONIC) - start_ns;
	for (int i = 0; i < b->count; i++) {
		done += b->worker[i].done;
		cpu_ns += b->worker[i].cpu_ns;
	}
	printf("{\"workload\": \"%s\", \"reactors\": %d, \"iops\": %.0f, \"cpu_us\": %.3f}\n", name, b->count,
	       (double)done * 1e9 / (double)ns, (double)cpu_ns / 1e3 / (double)done);
}

/* ---- stage ---- */

static int open_pool(struct bench *b, struct loop **loops, struct err *err)
{
	struct disk_open_opts disk_opts = { 0 };
	struct pool_create_opts pool_opts = { .name = "bench", .force = true };
	struct volumes_opts opts = { .loops = loops, .loop_count = (uint32_t)b->count };
	char uri[64];
	struct disk *disk;
	struct pool *pool;
	int rc;

	snprintf(uri, sizeof(uri), "ram:%llu",
		 (unsigned long long)(b->volume_bytes * (uint64_t)b->count * POOL_FACTOR));
	rc = disk_open(uri, &disk_opts, &disk, err);
	if (rc == 0)
		rc = pool_create(&pool_opts, &disk, 1, &pool, err);
	return rc < 0 ? rc : volumes_open(pool, &opts, &b->vols, err);
}

static int open_volume(struct bench *b, struct worker *w, int index, struct err *err)
{
	char name[16];
	struct volume_create_opts opts = { .name = name, .size_bytes = b->volume_bytes };
	int rc;

	snprintf(name, sizeof(name), "v%d", index);
	rc = volume_create(b->vols, &opts, err);
	return rc < 0 ? rc : unit_volume_open(b->vols, name, &w->vol, err);
}

static void init_worker(struct bench *b, struct worker *w, int index)
{
	w->bench = b;
	w->random = (uint64_t)index + 1;
	for (int i = 0; i < DEPTH; i++) {
		struct request *r = &w->request[i];

		r->worker = w;
		r->iov.iov_base = aligned_alloc(BLOCK, FILL_BLOCK);
		if (!r->iov.iov_base)
			abort();
		memset(r->iov.iov_base, i + 1, FILL_BLOCK);
		r->vio.iov = &r->iov;
		r->vio.iov_count = 1;
		r->vio.done = request_done;
	}
}

static void bench_fiber(void *arg)
{
	struct bench *b = arg;
	struct loop *loops[WORKERS_MAX];
	struct err err = { "" };
	int rc;

	b->main = fiber_self();
	for (int i = 0; i < b->count; i++)
		loops[i] = reactor_loop(b->reactor[i]);
	rc = open_pool(b, loops, &err);
	for (int i = 0; i < b->count && rc == 0; i++) {
		init_worker(b, &b->worker[i], i);
		rc = open_volume(b, &b->worker[i], i, &err);
	}
	if (rc < 0) {
		fprintf(stderr, "reactors: %s\n", err.msg);
		exit(1);
	}
	/* All data is there, and the log has gone round. */
	run_phase(b, VIO_WRITE, true, FILL_BLOCK, b->volume_bytes * (POOL_FACTOR + 1));
	run_phase(b, VIO_WRITE, false, BLOCK, b->volume_bytes);
	measure(b, VIO_WRITE, "randwrite-qd32");
	measure(b, VIO_READ, "randread-qd32");
	exit(0);
}

static void *reactor_thread(void *arg)
{
	reactor_run(arg);
	return NULL;
}

int main(int argc, char **argv)
{
	static struct bench b;
	struct err err = { "" };
	pthread_t thread;

	b.count = argc - 3;
	if (b.count < 1 || b.count > WORKERS_MAX || size_parse(argv[2], &b.volume_bytes) < 0) {
		fprintf(stderr, "usage: reactors SECONDS VOLUME_BYTES CPU [CPU...]\n");
		return 2;
	}
	b.seconds = atof(argv[1]);
	for (int i = 0; i < b.count; i++) {
		if (reactor_create((uint32_t)i, atoi(argv[3 + i]), &b.reactor[i], &err) < 0) {
			fprintf(stderr, "reactors: %s\n", err.msg);
			return 1;
		}
	}
	if (fiber_start(reactor_loop(b.reactor[0]), bench_fiber, &b) < 0)
		return 1;
	for (int i = 1; i < b.count; i++) {
		if (pthread_create(&thread, NULL, reactor_thread, b.reactor[i]) != 0)
			return 1;
	}
	reactor_run(b.reactor[0]);
	return 0;
}
