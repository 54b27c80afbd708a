/* Unit tests of pool/disks/disk_file.c and disk_file_open.c: real files, loop devices and rings. Runs in a folder of its
 * own under $TMPDIR or /var/tmp (better not a tmpfs, which has no block size worth testing); what needs root is skipped
 * without it. */
#include <errno.h>
#include <fcntl.h>
#include <linux/loop.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include "pool/disks/disk.h"
#include "pool/runtime/fiber.h"
#include "pool/runtime/reactor.h"
#include "tests/unit/disk_suite.h"
#include "tests/unit/unit.h"

#define KIB 1024ull
#define MIB (1024 * KIB)
#define GIB (1024 * MIB)

static const struct disk_open_opts no_opts;

static struct reactor *reactor;
static bool running;	  /* a test that failed stays so: its fiber never ends */
static char folder[4096]; /* of the test; emptied after it */

static int setup(void **state)
{
	const char *tmp = getenv("TMPDIR");
	struct err err;

	snprintf(folder, sizeof(folder), "%s/test_disk_file.XXXXXX", tmp ? tmp : "/var/tmp");
	assert_non_null(mkdtemp(folder));
	if (reactor_create(0, -1, &reactor, &err))
		fail_msg("%s", err.msg);
	return 0;
}

static int teardown(void **state)
{
	char command[4200];

	if (!running)
		reactor_destroy(reactor);
	running = false;
	snprintf(command, sizeof(command), "rm -rf '%s'", folder);
	return system(command);
}

static void run_body(void *arg)
{
	(*(void (**)(void))arg)();
	reactor_stop(reactor);
}

/* Runs fn on a fiber of the main thread's reactor. */
static void run(void (*fn)(void))
{
	running = true;
	assert_int_equal(fiber_start(reactor_loop(reactor), run_body, &fn), 0);
	reactor_run(reactor);
	running = false;
}

/* A path in the test's folder; good until the next four calls. */
static const char *path_of(const char *name)
{
	static char paths[4][4200];
	static unsigned next;
	char *path = paths[next++ % 4];

	snprintf(path, sizeof(paths[0]), "%s/%s", folder, name);
	return path;
}

/* A sparse file. */
static const char *make_file(const char *name, uint64_t size_bytes)
{
	const char *path = path_of(name);
	int fd = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);

	assert_true(fd >= 0);
	assert_int_equal(ftruncate(fd, (off_t)size_bytes), 0);
	close(fd);
	return path;
}

static struct disk *open_with(const char *uri, const struct disk_open_opts *opts)
{
	struct disk *disk;
	struct err err;

	if (disk_open(uri, opts, &disk, &err))
		fail_msg("%s", err.msg);
	return disk;
}

static int open_error(const char *uri, const struct disk_open_opts *opts, const char *part_of_message)
{
	struct disk *disk;
	struct err err = { "" };
	int ret = disk_open(uri, opts, &disk, &err);

	assert_true(ret < 0);
	if (!strstr(err.msg, part_of_message))
		fail_msg("'%s' does not say '%s'", err.msg, part_of_message);
	return ret;
}

static struct stat stat_of(const char *path)
{
	struct stat st;

	assert_int_equal(stat(path, &st), 0);
	return st;
}

/* ---- data ---- */

static void file_passes_the_suite_body(void)
{
	struct disk *disk = open_with(make_file("disk", 16 * MIB), &no_opts);

	assert_false(disk->volatile_data);
	assert_int_equal(disk->size_bytes, 16 * MIB);
	assert_true(disk->block_bytes == 512 || disk->block_bytes == 4096);
	disk_suite(disk);
	disk_close(disk);
}

static void file_passes_the_suite(void **state)
{
	run(file_passes_the_suite_body);
}

static void fault_around_a_file_passes_the_suite_body(void)
{
	const struct disk_open_opts opts = { .allow_fault = true };
	char uri[4300];
	struct disk *disk;

	snprintf(uri, sizeof(uri), "fault:delay-us=50:file:%s", make_file("disk", 16 * MIB));
	disk = open_with(uri, &opts);
	disk_suite(disk);
	disk_close(disk);
}

static void fault_around_a_file_passes_the_suite(void **state)
{
	run(fault_around_a_file_passes_the_suite_body);
}

static void data_is_there_after_reopening_body(void)
{
	const char *path = make_file("disk", 16 * MIB);
	struct disk *disk = open_with(path, &no_opts);
	char *out = suite_pattern(MIB, 0), *in = suite_pattern(MIB, 1);

	assert_int_equal(disk_write(disk, 3 * MIB, out, MIB), 0);
	assert_int_equal(disk_flush(disk), 0);
	disk_close(disk);
	disk = open_with(path, &no_opts);
	assert_int_equal(disk_read(disk, 3 * MIB, in, MIB), 0);
	assert_memory_equal(in, out, MIB);
	disk_close(disk);
	free(out);
	free(in);
}

static void data_is_there_after_reopening(void **state)
{
	run(data_is_there_after_reopening_body);
}

static void discard_gives_space_back_body(void)
{
	const char *path = make_file("disk", 16 * MIB);
	struct disk *disk = open_with(path, &no_opts);
	char *out = suite_pattern(8 * MIB, 0);
	struct disk_io discard = { .op = DISK_DISCARD, .off_bytes = 0, .len_bytes = 8 * MIB };

	assert_int_equal(disk_write(disk, 0, out, 8 * MIB), 0);
	assert_true(stat_of(path).st_blocks >= (blkcnt_t)(8 * MIB / 512));
	assert_int_equal(suite_submit(disk, &discard), 0);
	assert_true(stat_of(path).st_blocks < (blkcnt_t)(MIB / 512));
	assert_int_equal(stat_of(path).st_size, 16 * MIB);
	disk_close(disk);
	free(out);
}

static void discard_gives_space_back(void **state)
{
	run(discard_gives_space_back_body);
}

/* 4 GiB in pieces of 4 MiB: the kernel stops at 2 GiB - 4 KiB, within piece 511. All pieces share one buffer, except
 * those where it stops. */
#define PIECE (4 * MIB)
#define STOP  (2 * GIB - 4 * KIB)

static void put_mark(struct disk *disk, uint64_t off_bytes)
{
	char *mark = suite_pattern(4 * KIB, off_bytes);

	assert_int_equal(disk_write(disk, off_bytes, mark, 4 * KIB), 0);
	free(mark);
}

static void assert_mark(const char *buf, uint64_t off_bytes)
{
	char *mark = suite_pattern(4 * KIB, off_bytes);

	assert_memory_equal(buf, mark, 4 * KIB);
	free(mark);
}

static void short_transfers_are_continued_body(void)
{
	struct disk *disk = open_with(make_file("disk", 5 * GIB), &no_opts);
	char *shared = suite_pattern(PIECE, 0), *at_stop = suite_pattern(2 * PIECE, 0),
	     *at_end = suite_pattern(PIECE, 0);
	struct iovec *iov = calloc(DISK_IOV_MAX, sizeof(*iov));
	struct disk_io io = {
		.op = DISK_READ, .len_bytes = DISK_IOV_MAX * PIECE, .iov = iov, .iov_count = DISK_IOV_MAX
	};
	const uint64_t marks[] = { STOP - 4 * KIB, STOP, STOP + 4 * KIB, 4 * GIB - 4 * KIB };

	assert_non_null(iov);
	for (uint32_t i = 0; i < DISK_IOV_MAX; i++)
		iov[i] = (struct iovec){ .iov_base = shared, .iov_len = PIECE };
	iov[511].iov_base = at_stop;
	iov[512].iov_base = at_stop + PIECE;
	iov[1023].iov_base = at_end;
	for (uint32_t i = 0; i < 4; i++)
		put_mark(disk, marks[i]);
	assert_int_equal(suite_submit(disk, &io), 0);
	for (uint32_t i = 0; i < 3; i++)
		assert_mark(at_stop + (marks[i] - 511 * PIECE), marks[i]);
	assert_mark(at_end + PIECE - 4 * KIB, marks[3]);
	disk_close(disk);
	free(iov);
	free(shared);
	free(at_stop);
	free(at_end);
}

static void short_transfers_are_continued(void **state)
{
	run(short_transfers_are_continued_body);
}

/* Someone cuts the file off under us. */
static void a_file_cut_short_is_an_io_error_body(void)
{
	const char *path = make_file("disk", 16 * MIB);
	struct disk *disk = open_with(path, &no_opts);
	char *buf = suite_pattern(MIB, 0);

	assert_int_equal(truncate(path, 8 * MIB + 512), 0);
	assert_int_equal(disk_read(disk, 12 * MIB, buf, MIB), -EIO);
	assert_int_equal(disk_read(disk, 8 * MIB - 4 * KIB, buf, MIB), -EIO);
	assert_int_equal(disk_read(disk, 8 * MIB, buf, MIB), -EIO);
	assert_int_equal(disk_read(disk, 7 * MIB, buf, MIB), 0);
	assert_int_equal(truncate(path, 8 * MIB - 100), 0);
	assert_int_equal(disk_read(disk, 7 * MIB, buf, MIB), -EIO);
	disk_close(disk);
	free(buf);
}

static void a_file_cut_short_is_an_io_error(void **state)
{
	run(a_file_cut_short_is_an_io_error_body);
}

/* Two loops at once, each in its own half. */

struct half {
	struct disk *disk;
	uint64_t off_bytes;
};

static int work_on_half(void *arg)
{
	struct half *half = arg;
	char *out = suite_pattern(64 * KIB, half->off_bytes + 1), *in = suite_pattern(64 * KIB, 0);

	for (uint32_t i = 0; i < 64; i++) {
		uint64_t off_bytes = half->off_bytes + i * 64 * KIB;

		assert_int_equal(disk_write(half->disk, off_bytes, out, 64 * KIB), 0);
		assert_int_equal(disk_read(half->disk, off_bytes, in, 64 * KIB), 0);
		assert_memory_equal(in, out, 64 * KIB);
	}
	free(out);
	free(in);
	return 0;
}

static void *peer_main(void *arg)
{
	reactor_run(arg);
	return NULL;
}

static bool own_half_done;

static void own_half(void *arg)
{
	work_on_half(arg);
	own_half_done = true;
}

static void share_between_two_loops(const char *uri)
{
	struct disk *disk = open_with(uri, &no_opts);
	struct half own = { disk, 0 }, other = { disk, 8 * MIB };
	struct disk_counters sum;
	struct reactor *peer;
	pthread_t thread;

	own_half_done = false;
	assert_int_equal(reactor_create(1, -1, &peer, NULL), 0);
	assert_int_equal(pthread_create(&thread, NULL, peer_main, peer), 0);
	assert_int_equal(fiber_start(loop_self(), own_half, &own), 0);
	assert_int_equal(fiber_call_on(reactor_loop(peer), work_on_half, &other), 0);
	while (!own_half_done)
		fiber_sleep_ns(1000000);
	reactor_stop(peer);
	pthread_join(thread, NULL);
	reactor_destroy(peer);
	disk_counters_sum(disk, &sum);
	assert_int_equal(sum.ios[DISK_WRITE], 128);
	assert_int_equal(sum.bytes[DISK_READ], 8 * MIB);
	assert_int_equal(disk->counters[1].ios[DISK_WRITE], 64);
	disk_close(disk);
}

static void two_loops_use_one_disk_body(void)
{
	share_between_two_loops(make_file("disk", 16 * MIB));
	share_between_two_loops("ram:16M");
}

static void two_loops_use_one_disk(void **state)
{
	run(two_loops_use_one_disk_body);
}

/* ---- opening ---- */

static void a_second_opener_is_refused_body(void)
{
	const char *path = make_file("disk", 16 * MIB);
	struct disk *disk = open_with(path, &no_opts);

	assert_int_equal(open_error(path, &no_opts, "in use"), -EBUSY);
	disk_close(disk);
	disk = open_with(path, &no_opts);
	disk_close(disk);
}

static void a_second_opener_is_refused(void **state)
{
	run(a_second_opener_is_refused_body);
}

static void what_is_no_disk_is_refused_body(void)
{
	char uri[4300];

	assert_int_equal(open_error(path_of("none"), &no_opts, "no such file"), -ENOENT);
	assert_int_equal(open_error(folder, &no_opts, "neither"), -EINVAL);
	assert_int_equal(open_error("/dev/null", &no_opts, "neither"), -EINVAL);
	assert_int_equal(open_error(make_file("empty", 0), &no_opts, "no room"), -EINVAL);
	assert_int_equal(open_error(make_file("tiny", 511), &no_opts, "no room"), -EINVAL);
	snprintf(uri, sizeof(uri), "%s/file", make_file("plain", 4096));
	assert_int_equal(open_error(uri, &no_opts, "Not a directory"), -ENOTDIR);
	assert_int_equal(open_error("", &no_opts, "no such file"), -ENOENT);
}

static void what_is_no_disk_is_refused(void **state)
{
	run(what_is_no_disk_is_refused_body);
}

static void a_size_is_cut_to_whole_blocks_body(void)
{
	struct disk *disk = open_with(make_file("disk", MIB + 4095), &no_opts);

	assert_int_equal(disk->size_bytes, (MIB + 4095) / disk->block_bytes * disk->block_bytes);
	disk_close(disk);
}

static void a_size_is_cut_to_whole_blocks(void **state)
{
	run(a_size_is_cut_to_whole_blocks_body);
}

static void names_with_colons_are_paths_body(void)
{
	char uri[4300];
	struct disk *disk;

	snprintf(uri, sizeof(uri), "file:%s", make_file("ram:1M", 16 * MIB));
	disk = open_with(uri, &no_opts);
	assert_string_equal(disk->uri, uri);
	assert_int_equal(disk->size_bytes, 16 * MIB);
	disk_close(disk);
	disk = open_with(path_of("ram:1M"), &no_opts);
	assert_int_equal(disk->size_bytes, 16 * MIB);
	disk_close(disk);
}

static void names_with_colons_are_paths(void **state)
{
	run(names_with_colons_are_paths_body);
}

/* ---- creating ---- */

static void creates_a_sparse_file_body(void)
{
	const struct disk_open_opts opts = { .create_bytes = 64 * MIB };
	const char *path = path_of("new");
	struct disk *disk = open_with(path, &opts);

	assert_int_equal(disk->size_bytes, 64 * MIB);
	assert_true(stat_of(path).st_blocks < (blkcnt_t)(MIB / 512));
	assert_int_equal(stat_of(path).st_mode & 07777, 0600);
	disk_close(disk);
	/* What exists keeps its size. */
	disk = open_with(path, &(struct disk_open_opts){ .create_bytes = 32 * MIB });
	assert_int_equal(disk->size_bytes, 64 * MIB);
	disk_close(disk);
}

static void creates_a_sparse_file(void **state)
{
	run(creates_a_sparse_file_body);
}

static void creates_a_preallocated_file_body(void)
{
	const struct disk_open_opts opts = { .create_bytes = 16 * MIB, .preallocate = true };
	const char *path = path_of("new");
	struct disk *disk = open_with(path, &opts);
	struct disk_io discard = { .op = DISK_DISCARD, .len_bytes = 16 * MIB };

	assert_int_equal(disk->size_bytes, 16 * MIB);
	assert_true(stat_of(path).st_blocks >= (blkcnt_t)(16 * MIB / 512));
	/* And so it stays. */
	assert_int_equal(suite_submit(disk, &discard), 0);
	assert_true(stat_of(path).st_blocks >= (blkcnt_t)(16 * MIB / 512));
	disk_suite(disk);
	disk_close(disk);
}

static void creates_a_preallocated_file(void **state)
{
	run(creates_a_preallocated_file_body);
}

/* As left by a crash within creation. */
static void goes_on_with_an_empty_file_body(void)
{
	const struct disk_open_opts opts = { .create_bytes = 16 * MIB };
	struct disk *disk = open_with(make_file("new", 0), &opts);

	assert_int_equal(disk->size_bytes, 16 * MIB);
	disk_close(disk);
}

static void goes_on_with_an_empty_file(void **state)
{
	run(goes_on_with_an_empty_file_body);
}

static void a_failed_creation_leaves_nothing_body(void)
{
	const struct disk_open_opts odd = { .create_bytes = MIB + 512 }, negative = { .create_bytes = -(4 * KIB) };
	const struct disk_open_opts huge = { .create_bytes = 1ull << 50, .preallocate = true };
	const char *path = path_of("new");

	assert_int_equal(open_error(path, &odd, "multiple of 4096"), -EINVAL);
	assert_int_equal(access(path, F_OK), -1);
	assert_int_equal(open_error(path, &negative, "multiple of 4096"), -EINVAL);
	assert_int_equal(access(path, F_OK), -1);
	open_error(path, &huge, "preallocation failed");
	assert_int_equal(access(path, F_OK), -1);
}

static void a_failed_creation_leaves_nothing(void **state)
{
	run(a_failed_creation_leaves_nothing_body);
}

/* ---- other file systems and devices ---- */

/* ramfs refuses O_DIRECT. */
static void without_direct_io_it_is_buffered_body(void)
{
	const struct disk_open_opts opts = { .create_bytes = 16 * MIB };
	struct disk *disk = open_with(path_of("mnt/disk"), &opts);

	assert_int_equal(disk->block_bytes, 512);
	disk_suite(disk);
	assert_int_equal(open_error(path_of("mnt/disk"), &no_opts, "in use"), -EBUSY);
	disk_close(disk);
}

static void without_direct_io_it_is_buffered(void **state)
{
	const char *mount_point = path_of("mnt");
	int fd;

	assert_int_equal(mkdir(mount_point, 0700), 0);
	if (mount("none", mount_point, "ramfs", 0, NULL)) {
		print_message("# skipped: cannot mount a ramfs (%s)\n", strerror(errno));
		skip();
	}
	fd = open(path_of("mnt/probe"), O_RDWR | O_CREAT | O_DIRECT, 0600);
	assert_true(fd < 0 && errno == EINVAL);
	run(without_direct_io_it_is_buffered_body);
	assert_int_equal(umount(mount_point), 0);
}

static char device[32];
static uint32_t device_block_bytes;

static const char *backing_name(void)
{
	return device_block_bytes == 512 ? "back512" : "back4096";
}

/* Makes `device` a loop device on a file of 16 MiB, gone with the descriptor returned. -1 where there are none. */
static int loop_device(void)
{
	int control = open("/dev/loop-control", O_RDWR | O_CLOEXEC), back, number, fd;
	struct loop_config config = { .block_size = device_block_bytes, .info = { .lo_flags = LO_FLAGS_AUTOCLEAR } };

	if (control < 0)
		return -1;
	number = ioctl(control, LOOP_CTL_GET_FREE);
	close(control);
	snprintf(device, sizeof(device), "/dev/loop%d", number);
	fd = open(device, O_RDWR | O_CLOEXEC);
	back = open(make_file(backing_name(), 16 * MIB), O_RDWR | O_CLOEXEC);
	config.fd = (uint32_t)back;
	if (number < 0 || fd < 0 || ioctl(fd, LOOP_CONFIGURE, &config)) {
		if (fd >= 0)
			close(fd);
		fd = -1;
	}
	close(back);
	return fd;
}

/* The file behind the loop device tells. */
static void discard_reaches_the_device(struct disk *disk)
{
	char *out = suite_pattern(8 * MIB, 0);
	struct disk_io discard = { .op = DISK_DISCARD, .len_bytes = 8 * MIB };

	assert_int_equal(disk_write(disk, 0, out, 8 * MIB), 0);
	assert_int_equal(disk_flush(disk), 0);
	assert_true(stat_of(path_of(backing_name())).st_blocks >= (blkcnt_t)(8 * MIB / 512));
	assert_int_equal(suite_submit(disk, &discard), 0);
	assert_true(stat_of(path_of(backing_name())).st_blocks < (blkcnt_t)(8 * MIB / 512));
	free(out);
}

/* How many flushes the kernel has sent to the device. */
static unsigned long long flushes_of_device(void)
{
	unsigned long long flushes = 0;
	char path[64];
	FILE *file;

	snprintf(path, sizeof(path), "/sys/block/%s/stat", device + strlen("/dev/"));
	file = fopen(path, "r");
	assert_non_null(file);
	assert_int_equal(fscanf(file, "%*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %llu", &flushes), 1);
	fclose(file);
	return flushes;
}

static void flush_reaches_the_device(struct disk *disk)
{
	unsigned long long before = flushes_of_device();

	assert_int_equal(disk_flush(disk), 0);
	assert_true(flushes_of_device() > before);
}

static void block_device_passes_the_suite_body(void)
{
	struct disk *disk = open_with(device, &no_opts);

	assert_int_equal(disk->size_bytes, 16 * MIB);
	assert_int_equal(disk->block_bytes, device_block_bytes);
	assert_int_equal(open_error(device, &no_opts, "in use"), -EBUSY);
	disk_suite(disk);
	discard_reaches_the_device(disk);
	flush_reaches_the_device(disk);
	disk_close(disk);
	/* Never grown, never truncated, whatever is asked for. */
	disk = open_with(device, &(struct disk_open_opts){ .create_bytes = 32 * MIB });
	assert_int_equal(disk->size_bytes, 16 * MIB);
	disk_close(disk);
}

static void block_device_passes_the_suite(void **state)
{
	for (device_block_bytes = 512; device_block_bytes <= 4096; device_block_bytes *= 8) {
		int fd = loop_device();

		if (fd < 0) {
			print_message("# skipped: no loop device (%s)\n", strerror(errno));
			skip();
		}
		run(block_device_passes_the_suite_body);
		close(fd);
	}
}

static void an_empty_device_is_refused_body(void)
{
	assert_int_equal(open_error(device, &(struct disk_open_opts){ .create_bytes = 32 * MIB }, "no room"), -EINVAL);
}

static void an_empty_device_is_refused(void **state)
{
	int control = open("/dev/loop-control", O_RDWR | O_CLOEXEC), number;

	if (control < 0) {
		print_message("# skipped: no loop device (%s)\n", strerror(errno));
		skip();
	}
	number = ioctl(control, LOOP_CTL_GET_FREE);
	close(control);
	snprintf(device, sizeof(device), "/dev/loop%d", number);
	run(an_empty_device_is_refused_body);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(file_passes_the_suite),
		TEST(fault_around_a_file_passes_the_suite),
		TEST(data_is_there_after_reopening),
		TEST(discard_gives_space_back),
		TEST(short_transfers_are_continued),
		TEST(a_file_cut_short_is_an_io_error),
		TEST(two_loops_use_one_disk),
		TEST(a_second_opener_is_refused),
		TEST(what_is_no_disk_is_refused),
		TEST(a_size_is_cut_to_whole_blocks),
		TEST(names_with_colons_are_paths),
		TEST(creates_a_sparse_file),
		TEST(creates_a_preallocated_file),
		TEST(goes_on_with_an_empty_file),
		TEST(a_failed_creation_leaves_nothing),
		TEST(without_direct_io_it_is_buffered),
		TEST(block_device_passes_the_suite),
		TEST(an_empty_device_is_refused),
	};

	return run_unit_tests(tests);
}
