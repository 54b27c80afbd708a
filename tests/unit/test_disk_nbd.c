/* Unit tests of pool/disks/disk_nbd.c and, through it, of what network disks have in common (disk_remote*.c): with nbdkit and
 * qemu-nbd, which are killed, stopped and replaced under it. */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "pool/disks/disk.h"
#include "pool/runtime/fiber.h"
#include "pool/runtime/reactor.h"
#include "tests/unit/disk_crowd.h"
#include "tests/unit/disk_suite.h"
#include "tests/unit/server_rig.h"
#include "tests/unit/unit.h"
#include "tests/unit/unit_server.h"

#define KIB 1024ull
#define MIB (1024 * KIB)
#define MS 1000000ull

static const struct disk_open_opts no_opts;

static struct server_rig rig;
static char uri[1024];

static int setup(void **state)
{
	server_rig_setup(&rig, "test_disk_nbd");
	snprintf(uri, sizeof(uri), "nbd+unix:///?socket=%s/sock", rig.folder);
	return 0;
}

static int teardown(void **state)
{
	return server_rig_teardown(&rig);
}

static void run(void (*fn)(void))
{
	if (!unit_has("nbdkit") || !unit_has("qemu-nbd"))
		skip();
	server_rig_run(&rig, fn);
}

/* ---- servers, listening on the folder's "sock" ---- */

static void serve(const char *arguments)
{
	char path[300];

	snprintf(path, sizeof(path), "%s/sock", rig.folder);
	unlink(path);
	rig.server = unit_server_start("nbdkit --foreground --exit-with-parent --unix %s %s", path, arguments);
	unit_server_wait_unix(path);
}

/* A file of the folder by a server that keeps what is not flushed in memory of its own. */
static void serve_file_with_cache(const char *name)
{
	char arguments[600];

	snprintf(arguments, sizeof(arguments), "--filter=cache file %s/%s cache=writeback", rig.folder, name);
	serve(arguments);
}

static void stop_server(int signal)
{
	unit_server_signal(rig.server, signal);
	rig.server = 0;
}

static void make_file(const char *name, uint64_t size_bytes)
{
	char path[300];
	int fd;

	snprintf(path, sizeof(path), "%s/%s", rig.folder, name);
	fd = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	assert_true(fd >= 0);
	assert_int_equal(ftruncate(fd, (off_t)size_bytes), 0);
	close(fd);
}

static void read_file(const char *name, uint64_t off_bytes, void *buf, uint64_t len_bytes)
{
	char path[300];
	int fd;

	snprintf(path, sizeof(path), "%s/%s", rig.folder, name);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	assert_true(fd >= 0);
	assert_int_equal(pread(fd, buf, len_bytes, (off_t)off_bytes), len_bytes);
	close(fd);
}

static struct disk *open_with(const char *name)
{
	struct disk *disk;
	struct err err;

	if (disk_open(name, &no_opts, &disk, &err))
		fail_msg("%s", err.msg);
	return disk;
}

static struct disk *open_more(const char *more)
{
	char name[1200];

	snprintf(name, sizeof(name), "%s%s", uri, more);
	return open_with(name);
}

static void open_error(const char *name, const char *part_of_message)
{
	struct disk *disk;
	struct err err = { "" };

	assert_true(disk_open(name, &no_opts, &disk, &err) < 0);
	if (!strstr(err.msg, part_of_message))
		fail_msg("'%s' does not say '%s'", err.msg, part_of_message);
}

static bool all_are(const char *buf, uint64_t len_bytes, char value)
{
	return buf[0] == value && memcmp(buf, buf + 1, len_bytes - 1) == 0;
}

/* ---- data ---- */

static void passes_the_suite_body(void)
{
	struct disk *disk;
	char command[600];

	serve("memory 16M");
	disk = open_with(uri);
	assert_int_equal(disk->size_bytes, 16 * MIB);
	assert_int_equal(disk->block_bytes, 512);
	assert_false(disk->volatile_data);
	disk_suite(disk);
	disk_close(disk);
	stop_server(SIGTERM);
	/* Blocks of 4 KiB, requests of 64 KiB at most. */
	serve("--filter=blocksize-policy memory 16M blocksize-minimum=4K blocksize-maximum=64K "
	      "blocksize-error-policy=error");
	disk = open_with(uri);
	assert_int_equal(disk->block_bytes, 4096);
	disk_suite(disk);
	disk_close(disk);
	stop_server(SIGTERM);
	make_file("disk", 16 * MIB);
	snprintf(command, sizeof(command), "%s/qemu", rig.folder);
	rig.server = unit_server_start("qemu-nbd -t -f raw -k %s %s/disk", command, rig.folder);
	unit_server_wait_unix(command);
	snprintf(command, sizeof(command), "nbd+unix:///?socket=%s/qemu", rig.folder);
	disk = open_with(command);
	disk_suite(disk);
	disk_close(disk);
}

static void passes_the_suite(void **state)
{
	run(passes_the_suite_body);
}

static void goes_by_tcp_body(void)
{
	int port = unit_server_free_port();
	char name[100];
	struct disk *disk;

	rig.server = unit_server_start(
		"nbdkit --foreground --exit-with-parent --port %d --ipaddr 127.0.0.1 -e this memory 16M", port);
	unit_server_wait_port(port);
	snprintf(name, sizeof(name), "nbd://localhost:%d/this", port);
	disk = open_with(name);
	disk_suite(disk);
	disk_close(disk);
}

static void goes_by_tcp(void **state)
{
	run(goes_by_tcp_body);
}

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
		assert_int_equal(disk_flush(half->disk), 0);
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

static void two_loops_use_one_disk_body(void)
{
	struct half own = { NULL, 0 }, other = { NULL, 8 * MIB };
	struct reactor *peer;
	pthread_t thread;

	serve("memory 16M");
	own.disk = other.disk = open_with(uri);
	own_half_done = false;
	assert_int_equal(reactor_create(1, -1, &peer, NULL), 0);
	assert_int_equal(pthread_create(&thread, NULL, peer_main, peer), 0);
	assert_int_equal(fiber_start(loop_self(), own_half, &own), 0);
	assert_int_equal(fiber_call_on(reactor_loop(peer), work_on_half, &other), 0);
	while (!own_half_done)
		fiber_sleep_ns(MS);
	assert_int_equal(own.disk->counters[1].ios[DISK_WRITE], 64);
	reactor_stop(peer);
	pthread_join(thread, NULL);
	reactor_destroy(peer);
	disk_close(own.disk);
}

static void two_loops_use_one_disk(void **state)
{
	run(two_loops_use_one_disk_body);
}

/* ---- the server dies ---- */

/* What is not flushed is gone with the server; the disk must bring it back, and in order. */
static void writes_outlive_the_servers_cache_body(void)
{
	char *out = suite_pattern(MIB, 1), *in = suite_pattern(MIB, 2);
	struct disk *disk;

	/* Less than what makes the disk flush by itself. */
	make_file("disk", 64 * MIB);
	serve_file_with_cache("disk");
	disk = open_with(uri);
	for (uint32_t i = 0; i < 7; i++) {
		memset(out, (int)i, MIB);
		assert_int_equal(disk_write(disk, 0, out, MIB), 0);
		assert_int_equal(disk_write(disk, (i + 1) * MIB, out, MIB), 0);
	}
	read_file("disk", 0, in, MIB);
	assert_true(all_are(in, MIB, 0)); /* the server has a cache, or this test tests nothing */
	stop_server(SIGKILL);
	serve_file_with_cache("disk");
	assert_int_equal(disk_read(disk, 0, in, MIB), 0);
	assert_true(all_are(in, MIB, 6));
	stop_server(SIGKILL);
	serve_file_with_cache("disk");
	assert_int_equal(disk_flush(disk), 0);
	for (uint32_t i = 0; i < 7; i++) {
		read_file("disk", (i + 1) * MIB, in, MIB);
		assert_true(all_are(in, MIB, (char)i));
	}
	disk_close(disk);
	free(out);
	free(in);
}

static void writes_outlive_the_servers_cache(void **state)
{
	run(writes_outlive_the_servers_cache_body);
}

/* More is written than is kept, without a flush from above. */
static void the_keep_never_overflows_body(void)
{
	char *out = suite_pattern(MIB, 1), *in = suite_pattern(MIB, 2);
	struct disk *disk;

	make_file("disk", 256 * MIB);
	serve_file_with_cache("disk");
	disk = open_with(uri);
	for (uint32_t i = 0; i < 200; i++) {
		memset(out, (int)i, MIB);
		assert_int_equal(disk_write(disk, i * MIB, out, MIB), 0);
	}
	stop_server(SIGKILL);
	serve_file_with_cache("disk");
	for (uint32_t i = 0; i < 200; i++) {
		assert_int_equal(disk_read(disk, i * MIB, in, MIB), 0);
		assert_true(all_are(in, MIB, (char)i));
	}
	disk_close(disk);
	free(out);
	free(in);
}

static void the_keep_never_overflows(void **state)
{
	run(the_keep_never_overflows_body);
}

static void io_waits_for_the_server_body(void)
{
	char *out = suite_pattern(CROWD * 64 * KIB, 1), *in = suite_pattern(CROWD * 64 * KIB, 2);
	struct disk *disk;

	make_file("disk", 64 * MIB);
	serve_file_with_cache("disk");
	disk = open_with(uri);
	for (int round = 0; round < 10; round++) {
		memset(out, round + 1, CROWD * 64 * KIB);
		crowd_start(disk, DISK_WRITE, out);
		if (round % 2)
			fiber_sleep_ns((uint64_t)round * MS / 4);
		stop_server(SIGKILL);
		fiber_sleep_ns(20 * MS);
		if (round == 9)
			assert_non_null(disk_away(disk));
		serve_file_with_cache("disk");
		assert_int_equal(crowd_wait(), 0);
		crowd_start(disk, DISK_READ, in);
		stop_server(SIGKILL);
		serve_file_with_cache("disk");
		assert_int_equal(crowd_wait(), 0);
		assert_true(all_are(in, CROWD * 64 * KIB, (char)(round + 1)));
	}
	assert_null(disk_away(disk));
	disk_close(disk);
	free(out);
	free(in);
}

static void io_waits_for_the_server(void **state)
{
	run(io_waits_for_the_server_body);
}

static void a_server_that_hangs_is_left_body(void)
{
	char *out = suite_pattern(CROWD * 64 * KIB, 1), *in = suite_pattern(CROWD * 64 * KIB, 2);
	struct disk *disk;
	pid_t hung;

	make_file("disk", 64 * MIB);
	serve_file_with_cache("disk");
	disk = open_more("&timeout=1");
	assert_int_equal(disk_write(disk, 0, out, MIB), 0);
	/* It comes back in time, and nothing has happened; then it does not. */
	unit_server_signal(rig.server, SIGSTOP);
	crowd_start(disk, DISK_WRITE, out);
	fiber_sleep_ns(300 * MS);
	unit_server_signal(rig.server, SIGCONT);
	assert_int_equal(crowd_wait(), 0);
	hung = rig.server;
	unit_server_signal(hung, SIGSTOP);
	crowd_start(disk, DISK_READ, in);
	fiber_sleep_ns(1500 * MS);
	assert_non_null(disk_away(disk));
	serve_file_with_cache("disk");
	assert_int_equal(crowd_wait(), 0);
	assert_memory_equal(in, out, CROWD * 64 * KIB);
	unit_server_signal(hung, SIGKILL);
	disk_close(disk);
	free(out);
	free(in);
}

static void a_server_that_hangs_is_left(void **state)
{
	run(a_server_that_hangs_is_left_body);
}

static void io_is_given_up_when_asked_for_body(void)
{
	char *out = suite_pattern(CROWD * 64 * KIB, 1), *in = suite_pattern(CROWD * 64 * KIB, 2);
	struct disk *disk;
	uint64_t begin_ns;

	make_file("disk", 64 * MIB);
	serve_file_with_cache("disk");
	disk = open_more("&give-up=1");
	assert_int_equal(disk_write(disk, 0, out, MIB), 0);
	for (int op = DISK_READ; op <= DISK_WRITE; op++) {
		begin_ns = loop_now_ns(loop_self());
		unit_server_signal(rig.server, SIGSTOP);
		crowd_start(disk, op, in);
		assert_int_equal(crowd_wait(), CROWD);
		assert_true(loop_now_ns(loop_self()) - begin_ns < 3000 * MS);
		assert_int_equal(disk_flush(disk), -ETIMEDOUT);
		stop_server(SIGKILL);
		serve_file_with_cache("disk");
		while (disk_away(disk))
			fiber_sleep_ns(10 * MS);
		assert_int_equal(disk_read(disk, 0, in, MIB), 0);
	}
	assert_int_equal(disk_write(disk, 0, out, MIB), 0);
	assert_int_equal(disk_read(disk, 0, in, MIB), 0);
	assert_memory_equal(in, out, MIB);
	disk_close(disk);
	free(out);
	free(in);
}

static void io_is_given_up_when_asked_for(void **state)
{
	run(io_is_given_up_when_asked_for_body);
}

struct judge {
	bool spare;
	uint32_t asked;
};

static bool judge(void *arg, struct disk *disk)
{
	struct judge *judge = arg;

	judge->asked++;
	return judge->spare;
}

/* Hung, asked for and needed: it waits. No longer needed: all I/O fails, more of it at once. Back: as if nothing had been. */
static void a_disk_that_hangs_fails_once_it_is_dispensable_body(void)
{
	char *out = suite_pattern(CROWD * 64 * KIB, 1), *in = suite_pattern(CROWD * 64 * KIB, 2);
	struct judge needed = { .spare = false };
	struct disk *disk;
	uint64_t begin_ns;

	make_file("disk", 64 * MIB);
	serve_file_with_cache("disk");
	disk = open_more("&stall=2");
	disk_set_expendable(disk, &(struct disk_expendable){ judge, &needed });
	assert_int_equal(disk_write(disk, 0, out, MIB), 0);
	for (int op = DISK_READ; op <= DISK_WRITE; op++) {
		needed.spare = false;
		needed.asked = 0;
		unit_server_signal(rig.server, SIGSTOP);
		crowd_start(disk, op, op == DISK_READ ? in : out);
		fiber_sleep_ns(2500 * MS);
		assert_true(needed.asked > 1);
		needed.spare = true;
		begin_ns = loop_now_ns(loop_self());
		assert_int_equal(crowd_wait(), CROWD);
		assert_true(loop_now_ns(loop_self()) - begin_ns < 1500 * MS);
		begin_ns = loop_now_ns(loop_self());
		assert_int_equal(disk_read(disk, 0, in, MIB), -ETIMEDOUT);
		assert_true(loop_now_ns(loop_self()) - begin_ns < 200 * MS);
		unit_server_signal(rig.server, SIGCONT);
		while (disk_away(disk))
			fiber_sleep_ns(10 * MS);
		assert_int_equal(disk_read(disk, 0, in, MIB), 0);
	}
	assert_int_equal(disk_write(disk, 0, out, MIB), 0);
	assert_int_equal(disk_read(disk, 0, in, MIB), 0);
	assert_memory_equal(in, out, MIB);
	disk_close(disk);
	free(out);
	free(in);
}

static void a_disk_that_hangs_fails_once_it_is_dispensable(void **state)
{
	run(a_disk_that_hangs_fails_once_it_is_dispensable_body);
}

/* ---- another disk ---- */

static void wait_until_away_says(struct disk *disk, const char *part)
{
	for (int i = 0; i < 500; i++) {
		const char *why = disk_away(disk);

		if (why && strstr(why, part))
			return;
		fiber_sleep_ns(10 * MS);
	}
	fail_msg("the disk does not say '%s'", part);
}

static void another_disk_is_not_written_body(void)
{
	char *out = suite_pattern(CROWD * 64 * KIB, 1), *in = suite_pattern(CROWD * 64 * KIB, 2);
	struct disk_mark mark = { .count = 2, .off_bytes = { 32 * MIB, 48 * MIB }, .skip_bytes = 100 };
	struct disk *disk;

	make_file("disk", 64 * MIB);
	make_file("other", 64 * MIB);
	make_file("small", 63 * MIB);
	serve_file_with_cache("disk");
	disk = open_with(uri);
	/* In the second place only. */
	assert_int_equal(disk_write(disk, 48 * MIB, out, 4096), 0);
	assert_int_equal(disk_flush(disk), 0);
	memcpy(mark.bytes, out + 100, sizeof(mark.bytes));
	disk_set_mark(disk, &mark);
	assert_int_equal(disk_write(disk, 0, out, MIB), 0);
	stop_server(SIGKILL);
	crowd_start(disk, DISK_WRITE, out);
	serve_file_with_cache("other");
	wait_until_away_says(disk, "another disk");
	stop_server(SIGTERM);
	serve_file_with_cache("small");
	wait_until_away_says(disk, "shrunk");
	stop_server(SIGTERM);
	for (uint64_t off_bytes = 0; off_bytes < 63 * MIB; off_bytes += MIB) {
		read_file("other", off_bytes, in, MIB);
		assert_true(all_are(in, MIB, 0));
		read_file("small", off_bytes, in, MIB);
		assert_true(all_are(in, MIB, 0));
	}
	serve_file_with_cache("disk");
	assert_int_equal(crowd_wait(), 0);
	assert_int_equal(disk_flush(disk), 0);
	read_file("disk", 0, in, CROWD * 64 * KIB);
	assert_memory_equal(in, out, CROWD * 64 * KIB);
	disk_close(disk);
	free(out);
	free(in);
}

static void another_disk_is_not_written(void **state)
{
	run(another_disk_is_not_written_body);
}

/* ---- errors ---- */

static void errors_come_through_body(void)
{
	char *buf = suite_pattern(MIB, 1);
	char arguments[600];
	struct disk *disk;

	snprintf(arguments, sizeof(arguments),
		 "--filter=error memory 16M error-file=%s/fail error-pwrite=EIO error-pread=ENOSPC error-rate=100%%",
		 rig.folder);
	serve(arguments);
	disk = open_with(uri);
	assert_int_equal(disk_write(disk, 0, buf, MIB), 0);
	make_file("fail", 0);
	assert_int_equal(disk_write(disk, 0, buf, MIB), -EIO);
	assert_int_equal(disk_read(disk, 0, buf, MIB), -ENOSPC);
	assert_int_equal(disk_flush(disk), 0);
	assert_true(unit_shell("rm %s/fail", rig.folder));
	assert_int_equal(disk_write(disk, 0, buf, MIB), 0);
	disk_close(disk);
	free(buf);
}

static void errors_come_through(void **state)
{
	run(errors_come_through_body);
}

static void after_a_failed_flush_none_succeeds_body(void)
{
	char *buf = suite_pattern(MIB, 1);
	char path[300];
	struct disk *disk;
	FILE *file;

	snprintf(path, sizeof(path), "%s/plugin", rig.folder);
	file = fopen(path, "w");
	assert_non_null(file);
	fprintf(file,
		"#!/bin/bash\ncase $1 in\nget_size) echo 64M;;\npread) dd if=/dev/zero bs=$3 count=1 2>/dev/null;;\n"
		"can_write|can_flush) exit 0;;\npwrite) cat >/dev/null;;\n"
		"flush) [ ! -e %s/fail ] || { echo EIO failed >&2; exit 1; };;\n*) exit 2;;\nesac\n",
		rig.folder);
	fclose(file);
	chmod(path, 0700);
	snprintf(path, sizeof(path), "sh %s/plugin", rig.folder);
	serve(path);
	disk = open_with(uri);
	assert_int_equal(disk_write(disk, 0, buf, MIB), 0);
	assert_int_equal(disk_flush(disk), 0);
	make_file("fail", 0);
	/* The flush is the disk's own, since much has been written. */
	for (uint32_t i = 0; i < 40; i++)
		assert_int_equal(disk_write(disk, 0, buf, 256 * KIB), 0);
	for (uint32_t i = 0; i < 10; i++)
		assert_int_equal(disk_write(disk, 0, buf, MIB), 0);
	assert_true(unit_shell("sleep 0.2; rm %s/fail", rig.folder));
	assert_int_equal(disk_flush(disk), -EIO);
	assert_int_equal(disk_flush(disk), -EIO);
	disk_close(disk);
	free(buf);
}

static void after_a_failed_flush_none_succeeds(void **state)
{
	run(after_a_failed_flush_none_succeeds_body);
}

static void bad_names_are_refused_body(void)
{
	char name[400];

	open_error("nbd:", "not of the form");
	open_error("nbd:///x", "names no host");
	open_error("nbd+unix:///x", "?socket=PATH");
	open_error("nbd://h/x?tls-psk-file=/x", "no option 'tls-psk-file'");
	open_error("nbd://h/x?timeout=0", "not a number");
	open_error("nbd://h/x?timeout", "KEY=VALUE");
	open_error("nbd://h:port/x", "not a port");
	open_error("nbd://h/%zz", "hexadecimal");
	open_error("nbd://me:secret@h/x", "a secret must not");
	open_error("nbd://127.0.0.1:1/x", "Connection refused");
	snprintf(name, sizeof(name), "nbd+unix:///x?socket=%s/none", rig.folder);
	open_error(name, "No such file");
}

static void bad_names_are_refused(void **state)
{
	run(bad_names_are_refused_body);
}

static void what_is_no_disk_is_refused_body(void)
{
	serve("-r memory 16M");
	open_error(uri, "read-only");
	stop_server(SIGTERM);
	serve("memory 100");
	open_error(uri, "no room");
	stop_server(SIGTERM);
	serve("--filter=exportname memory 16M exportname-strict=true exportname=there");
	open_error(uri, "server");
}

static void what_is_no_disk_is_refused(void **state)
{
	run(what_is_no_disk_is_refused_body);
}

/* ---- TLS ---- */

static void tls_by_a_shared_key_body(void)
{
	char arguments[600], name[900];
	struct disk *disk;

	assert_true(unit_shell("psktool -u me -p %s/keys >/dev/null 2>&1 && psktool -u me -p %s/wrong >/dev/null 2>&1",
			       rig.folder, rig.folder));
	snprintf(arguments, sizeof(arguments), "--tls=require --tls-psk=%s/keys memory 16M", rig.folder);
	serve(arguments);
	snprintf(name, sizeof(name), "nbds+unix://me@/?socket=%s/sock&tls-psk-file=%s/keys", rig.folder, rig.folder);
	disk = open_with(name);
	disk_suite(disk);
	disk_close(disk);
	snprintf(name, sizeof(name), "nbds+unix://me@/?socket=%s/sock&tls-psk-file=%s/wrong", rig.folder, rig.folder);
	open_error(name, "TLS");
	open_error(uri, "TLS");
	stop_server(SIGTERM);
	serve("memory 16M");
	snprintf(name, sizeof(name), "nbds+unix://me@/?socket=%s/sock&tls-psk-file=%s/keys", rig.folder, rig.folder);
	open_error(name, "TLS");
}

static void tls_by_a_shared_key(void **state)
{
	if (!unit_has("psktool"))
		skip();
	run(tls_by_a_shared_key_body);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(passes_the_suite),
		TEST(goes_by_tcp),
		TEST(two_loops_use_one_disk),
		TEST(writes_outlive_the_servers_cache),
		TEST(the_keep_never_overflows),
		TEST(io_waits_for_the_server),
		TEST(a_server_that_hangs_is_left),
		TEST(io_is_given_up_when_asked_for),
		TEST(a_disk_that_hangs_fails_once_it_is_dispensable),
		TEST(another_disk_is_not_written),
		TEST(errors_come_through),
		TEST(after_a_failed_flush_none_succeeds),
		TEST(bad_names_are_refused),
		TEST(what_is_no_disk_is_refused),
		TEST(tls_by_a_shared_key),
	};

	signal(SIGPIPE, SIG_IGN);
	return run_unit_tests(tests);
}
