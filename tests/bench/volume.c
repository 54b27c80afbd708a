/* How fast the engine is by itself: one reactor, a volume on a disk (default ram:4G), no guest and no socket.
 *
 *     bench/volume [DISK [SECONDS [VOLUME_BYTES [POLICY]]]]
 *     bench/volume overwrite [DISK [PERCENT [TIMES [POLICY]]]]
 *
 * A policy of several disks takes ram: disks of that size, or the files DISK.0, DISK.1 ... In the end one of them goes
 * offline, and reads have to do without it.
 *
 * Prints for 4 KiB random reads and writes at depths 1 and 32, and 128 KiB sequential ones, requests a second and CPU time a
 * request, and what was written to the disk per byte.
 *
 * overwrite: a volume of so many percent (80) of what the pool has for data (ram:1G) is written once, and then so many times
 * (5) its size at random, 4 KiB at depth 64: what the cleaner costs in bytes written, and in time waited. */
#include <assert.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "pool/base/size.h"
#include "pool/runtime/reactor.h"
#include "tests/client/histogram.h"
#include "tests/unit/unit_volume.h"
#include "volumes/volume.h"

#define DEPTH_MAX 64

struct bench {
	struct reactor *reactor;
	const char *disk;
	double seconds;
	unsigned percent, times; /* overwrite */
	uint64_t volume_bytes;
	struct policy policy;
	struct pool *pool;
	struct volumes *vols;
	struct volume *vol;
	struct fiber *waiting;
	/* the run */
	enum vio_op op;
	bool sequential;
	uint64_t len_bytes, next, random, done, stop_ns, stop_done;
	uint32_t running;
	struct histogram latency;
};

struct request {
	struct vio vio;
	struct iovec iov;
	struct bench *bench;
	uint64_t submitted_ns;
};

static uint64_t thread_cpu_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_THREAD_CPUTIME_ID, &ts);
	return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

/* splitmix64: a plain congruential generator goes over the volume too evenly, which the cleaner profits from. */
static uint64_t next_random(struct bench *b)
{
	uint64_t z = b->random += 0x9e3779b97f4a7c15ull;

	z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9ull;
	z = (z ^ z >> 27) * 0x94d049bb133111ebull;
	return z ^ z >> 31;
}

static uint64_t next_off(struct bench *b)
{
	uint64_t places = b->volume_bytes / b->len_bytes;

	return (b->sequential ? b->next++ : next_random(b)) % places * b->len_bytes;
}

static void submit(struct request *r)
{
	r->vio.op = r->bench->op;
	r->vio.off_bytes = next_off(r->bench);
	r->vio.len_bytes = r->iov.iov_len = r->bench->len_bytes;
	r->submitted_ns = loop_now_ns(reactor_loop(r->bench->reactor));
	volume_submit(r->bench->vol, &r->vio);
}

static void request_done(struct vio *vio, int res)
{
	struct request *r = container_of(vio, struct request, vio);
	struct bench *b = r->bench;
	uint64_t now_ns = loop_now_ns(reactor_loop(b->reactor));

	assert(res == 0);
	b->done++;
	histogram_add(&b->latency, now_ns - r->submitted_ns);
	if (now_ns < b->stop_ns && b->done < b->stop_done)
		submit(r);
	else if (--b->running == 0)
		fiber_wake(b->waiting);
}

/* Until the time is over, or b->stop_done are done. */
static void run(struct bench *b, struct request *requests, uint32_t depth, const char *name)
{
	struct loop *loop = reactor_loop(b->reactor);
	struct volume_info before, after;
	uint64_t start_ns, start_cpu_ns, ns, cpu_ns, data, meta;

	volume_get_info(b->vols, "v", &before, NULL);
	start_ns = loop_now_ns(loop);
	start_cpu_ns = thread_cpu_ns();
	b->done = 0;
	b->stop_ns = b->seconds > 0 ? start_ns + (uint64_t)(b->seconds * 1e9) : UINT64_MAX;
	memset(&b->latency, 0, sizeof(b->latency));
	b->running = depth;
	for (uint32_t i = 0; i < depth; i++)
		submit(&requests[i]);
	while (b->running > 0)
		fiber_park();
	ns = loop_now_ns(loop) - start_ns;
	cpu_ns = thread_cpu_ns() - start_cpu_ns;
	volume_get_info(b->vols, "v", &after, NULL);
	data = after.counters.data_bytes_written - before.counters.data_bytes_written;
	meta = after.counters.meta_bytes_written - before.counters.meta_bytes_written;
	printf("%-25s depth %2u  %9.0f/s  %7.0f MB/s  %6.2f us CPU  %5.2f written per byte, %5.2f of it tables\n", name,
	       depth, (double)b->done * 1e9 / (double)ns, (double)(b->done * b->len_bytes) * 1e3 / (double)ns,
	       (double)cpu_ns / 1e3 / (double)b->done, (double)(data + meta) / (double)(b->done * b->len_bytes),
	       (double)meta / (double)(b->done * b->len_bytes));
	fflush(stdout);
}

static void run_all(struct bench *b, struct request *requests)
{
	b->len_bytes = 128 << 10;
	b->sequential = true;
	b->op = VIO_WRITE, run(b, requests, 32, "128k write");
	b->op = VIO_READ, run(b, requests, 32, "128k read");
	b->len_bytes = 4096;
	b->sequential = false;
	b->op = VIO_WRITE, run(b, requests, 1, "4k random write");
	b->op = VIO_WRITE, run(b, requests, 32, "4k random write");
	b->op = VIO_READ, run(b, requests, 1, "4k random read");
	b->op = VIO_READ, run(b, requests, 32, "4k random read");
	if (b->policy.m == 0)
		return;
	if (pool_disk_offline(b->pool, 0, NULL) < 0)
		exit(1);
	b->op = VIO_READ, run(b, requests, 32, "4k random read, degraded");
	b->len_bytes = 128 << 10;
	b->sequential = true;
	b->op = VIO_READ, run(b, requests, 32, "128k read, degraded");
}

static int open_disks(struct bench *b, struct disk **disks, uint32_t count, struct err *err)
{
	struct disk_open_opts opts = { .create_bytes = 8ull << 30 };
	int rc = 0;

	for (uint32_t i = 0; i < count && rc == 0; i++) {
		char uri[512];
		bool one = count == 1 || strncmp(b->disk, "ram:", 4) == 0;

		snprintf(uri, sizeof(uri), one ? "%s" : "%s.%u", b->disk, i);
		rc = disk_open(uri, &opts, &disks[i], err);
	}
	return rc;
}

static void overwrite(struct bench *b, struct request *requests)
{
	struct pool_info info;

	b->seconds = 0;
	b->op = VIO_WRITE;
	b->len_bytes = 128 << 10;
	b->sequential = true;
	b->stop_done = b->volume_bytes / b->len_bytes;
	run(b, requests, 32, "fill");
	b->len_bytes = 4096;
	b->sequential = false;
	b->stop_done = b->volume_bytes / b->len_bytes;
	for (unsigned i = 0; i < b->times; i++) {
		run(b, requests, DEPTH_MAX, "overwrite");
		pool_get_info(b->pool, &info);
		printf("    latency: median %.1f us, p99.9 %.1f us, max %.1f us; %" PRIu64 " of %" PRIu64 " zones free\n",
		       (double)histogram_percentile_ns(&b->latency, 0.5) / 1e3,
		       (double)histogram_percentile_ns(&b->latency, 0.999) / 1e3, (double)b->latency.max_ns / 1e3,
		       info.zones_free, info.zones);
	}
}

static int setup(struct bench *b, struct loop **loops, struct err *err)
{
	struct pool_create_opts pool_opts = { .name = "bench", .force = true };
	struct volumes_opts opts = { .loops = loops, .loop_count = 1 };
	struct volume_create_opts vol_opts = { .name = "v", .size_bytes = b->volume_bytes, .policy = b->policy };
	struct pool_info info;
	struct disk *disks[SEGMENT_COLS_MAX];
	uint32_t count = b->policy.k + b->policy.m;
	int rc = open_disks(b, disks, count, err);

	if (rc == 0)
		rc = pool_create(&pool_opts, disks, count, &b->pool, err);
	if (rc == 0 && b->percent > 0) {
		pool_get_info(b->pool, &info);
		b->volume_bytes = (info.zones - info.zones_reserved) * info.zone_bytes / count * b->policy.k / 100 *
				  b->percent >> 20 << 20;
		vol_opts.size_bytes = b->volume_bytes;
	}
	if (rc == 0)
		rc = volumes_open(b->pool, &opts, &b->vols, err);
	if (rc == 0)
		rc = volume_create(b->vols, &vol_opts, err);
	return rc < 0 ? rc : unit_volume_open(b->vols, "v", &b->vol, err);
}

static void bench_fiber(void *arg)
{
	struct bench *b = arg;
	struct loop *loops[] = { reactor_loop(b->reactor) };
	struct request *requests = calloc(DEPTH_MAX, sizeof(*requests));
	struct err err = { "" };

	b->waiting = fiber_self();
	if (setup(b, loops, &err) < 0) {
		fprintf(stderr, "bench: %s\n", err.msg);
		exit(1);
	}
	for (int i = 0; i < DEPTH_MAX; i++) {
		requests[i].bench = b;
		requests[i].iov.iov_base = aligned_alloc(4096, 128 << 10);
		memset(requests[i].iov.iov_base, i + 1, 128 << 10);
		requests[i].vio.iov = &requests[i].iov;
		requests[i].vio.iov_count = 1;
		requests[i].vio.done = request_done;
	}
	b->stop_done = UINT64_MAX;
	if (b->percent > 0)
		overwrite(b, requests);
	else
		run_all(b, requests);
	exit(0);
}

int main(int argc, char **argv)
{
	struct bench b = { .disk = argc > 1 ? argv[1] : "ram:4G", .seconds = argc > 2 ? atof(argv[2]) : 1,
			   .volume_bytes = 1 << 30, .policy = { 1, 0 } };
	struct err err = { "" };

	if (argc > 1 && strcmp(argv[1], "overwrite") == 0) {
		b.disk = argc > 2 ? argv[2] : "ram:1G";
		b.percent = argc > 3 ? (unsigned)atoi(argv[3]) : 80;
		b.times = argc > 4 ? (unsigned)atoi(argv[4]) : 5;
	} else if (argc > 3 && size_parse(argv[3], &b.volume_bytes) < 0)
		return 2;
	if (argc > 4 + (b.percent > 0) && !policy_from_text(argv[4 + (b.percent > 0)], &b.policy))
		return 2;
	if (reactor_create(0, -1, &b.reactor, &err) < 0 ||
	    fiber_start(reactor_loop(b.reactor), bench_fiber, &b) < 0) {
		fprintf(stderr, "bench: %s\n", err.msg);
		return 1;
	}
	reactor_run(b.reactor);
	return 0;
}
