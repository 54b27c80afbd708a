/* Load straight on a disk of any kind, without a pool: what the disk and its driver can do.
 *
 *	disk URI randread|randwrite DEPTH SECONDS [BYTES]
 *
 * Prints operations of BYTES (4096) a second, and the CPU time of this process for one. Overwrites the disk. */
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "pool/disks/disk.h"
#include "pool/runtime/fiber.h"
#include "pool/runtime/reactor.h"

#define DEPTH_MAX 1024
#define BYTES_MAX (1u << 20)
#define PAGE 4096
#define NS_PER_S 1000000000.0

struct one {
	struct disk_io io;
	struct iovec iov;
};

static struct load {
	const char *uri;
	enum disk_op op;
	uint32_t depth, io_bytes;
	uint64_t run_ns, end_ns, done, failed;
	uint32_t flying;
	struct disk *disk;
	struct fiber *fiber;
	struct reactor *reactor;
	struct one ones[DEPTH_MAX];
} load;

static void next(struct one *one)
{
	uint64_t places = load.disk->size_bytes / load.io_bytes;

	one->io.off_bytes = loop_random(loop_self()) % places * load.io_bytes;
	disk_submit(load.disk, &one->io);
}

static void one_done(struct disk_io *io, int res)
{
	load.done++;
	load.failed += res != 0;
	if (loop_now_ns(loop_self()) < load.end_ns)
		next(container_of(io, struct one, io));
	else if (--load.flying == 0)
		fiber_wake(load.fiber);
}

static void start(char *buf)
{
	load.end_ns = loop_now_ns(loop_self()) + load.run_ns;
	load.flying = load.depth;
	for (uint32_t i = 0; i < load.depth; i++) {
		struct one *one = &load.ones[i];

		one->iov = (struct iovec){ .iov_base = buf + (size_t)i * load.io_bytes, .iov_len = load.io_bytes };
		one->io = (struct disk_io){ .op = load.op,
					    .len_bytes = load.io_bytes,
					    .iov = &one->iov,
					    .iov_count = 1,
					    .done = one_done };
		next(one);
	}
}

static void run(void *arg)
{
	char *buf = aligned_alloc(PAGE, (size_t)load.depth * load.io_bytes);
	struct err err;

	if (!buf || disk_open(load.uri, &(struct disk_open_opts){ 0 }, &load.disk, &err)) {
		fprintf(stderr, "disk: %s\n", buf ? err.msg : "no memory");
		exit(1);
	}
	memset(buf, 1, (size_t)load.depth * load.io_bytes);
	load.fiber = fiber_self();
	start(buf);
	while (load.flying > 0)
		fiber_park();
	disk_close(load.disk);
	free(buf);
	reactor_stop(load.reactor);
}

int main(int argc, char **argv)
{
	struct err err;

	if (argc != 5 && argc != 6) {
		fprintf(stderr, "usage: disk URI randread|randwrite DEPTH SECONDS [BYTES]\n");
		return argc == 1 ? 0 : 2;
	}
	signal(SIGPIPE, SIG_IGN);
	load.uri = argv[1];
	load.op = strcmp(argv[2], "randwrite") == 0 ? DISK_WRITE : DISK_READ;
	load.depth = (uint32_t)atoi(argv[3]);
	load.run_ns = (uint64_t)(atof(argv[4]) * NS_PER_S);
	load.io_bytes = argc == 6 ? (uint32_t)atoi(argv[5]) : PAGE;
	if (load.depth < 1 || load.depth > DEPTH_MAX || load.io_bytes < PAGE || load.io_bytes > BYTES_MAX ||
	    load.io_bytes % PAGE)
		return 2;
	if (reactor_create(0, -1, &load.reactor, &err) || fiber_start(reactor_loop(load.reactor), run, NULL)) {
		fprintf(stderr, "disk: %s\n", err.msg);
		return 1;
	}
	reactor_run(load.reactor);
	reactor_destroy(load.reactor);
	printf("%.0f IOPS, %.1f us CPU each, failed %" PRIu64 "\n", (double)load.done * NS_PER_S / (double)load.run_ns,
	       (double)clock() / CLOCKS_PER_SEC * 1e6 / (double)(load.done ? load.done : 1), load.failed);
	return load.failed ? 1 : 0;
}
