/* Unit tests of pool/disks/disk_iscsi*.c, with tgt. What all network disks have in common is tested by test_disk_nbd.c; here it
 * is what iSCSI adds, and that it fits. */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

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
#define IQN "iqn.2024-01.test:disk"

static const struct disk_open_opts no_opts;

static struct server_rig rig;
static char uri[512];
static int port;

static int setup(void **state)
{
	server_rig_setup(&rig, "test_disk_iscsi");
	port = unit_server_free_port();
	snprintf(uri, sizeof(uri), "iscsi://127.0.0.1:%d/" IQN "/1", port);
	return 0;
}

static int teardown(void **state)
{
	return server_rig_teardown(&rig);
}

static void run(void (*fn)(void))
{
	if (!unit_has("tgtd") || !unit_has("tgtadm"))
		skip();
	server_rig_run(&rig, fn);
}

/* ---- the target ---- */

static bool admin(const char *arguments)
{
	return unit_shell(
		"TGT_IPC_SOCKET=%s/ctl tgtadm -C 1 --lld iscsi %s >/dev/null 2>%s/admin.err || ! cat %s/admin.err >&2",
		rig.folder, arguments, rig.folder, rig.folder);
}

static void start_target(void)
{
	char path[300];

	snprintf(path, sizeof(path), "%s/ctl", rig.folder);
	setenv("TGT_IPC_SOCKET", path, 1);
	unit_shell("rm -f %s/ctl*", rig.folder);
	rig.server = unit_server_start("tgtd -f --iscsi portal=127.0.0.1:%d -C 1", port);
	snprintf(path, sizeof(path), "%s/ctl.1", rig.folder);
	unit_server_wait_unix(path);
	unit_server_wait_port(port);
	assert_true(admin("--op new --mode target --tid 1 -T " IQN));
}

/* Until now nobody may log in. */
static void open_target(void)
{
	assert_true(admin("--op bind --mode target --tid 1 -I ALL"));
}

static void add_lun(const char *name, int lun, const char *more)
{
	char arguments[600];

	snprintf(arguments, sizeof(arguments), "--op new --mode logicalunit --tid 1 --lun %d -b %s/%s %s", lun, rig.folder,
		 name, more);
	assert_true(admin(arguments));
}

static void make_file(const char *name, const char *size)
{
	assert_true(unit_shell("truncate -s %s %s/%s", size, rig.folder, name));
}

static void serve(void)
{
	start_target();
	add_lun("disk", 1, "");
	open_target();
}

static void stop_server(int signal)
{
	unit_server_signal(rig.server, signal);
	rig.server = 0;
}

static struct disk *open_with(const char *name)
{
	struct disk *disk;
	struct err err;

	if (disk_open(name, &no_opts, &disk, &err))
		fail_msg("%s", err.msg);
	return disk;
}

static void open_error(const char *name, const char *part_of_message)
{
	struct disk *disk;
	struct err err = { "" };

	assert_true(disk_open(name, &no_opts, &disk, &err) < 0);
	if (!strstr(err.msg, part_of_message))
		fail_msg("'%s' does not say '%s'", err.msg, part_of_message);
}

/* ---- data ---- */

static void passes_the_suite_body(void)
{
	struct disk *disk;
	char name[600];

	make_file("disk", "16M");
	make_file("disk4k", "16M");
	serve();
	add_lun("disk4k", 2, "-y rdwr --blocksize 4096");
	disk = open_with(uri);
	assert_int_equal(disk->size_bytes, 16 * MIB);
	assert_int_equal(disk->block_bytes, 512);
	disk_suite(disk);
	disk_close(disk);
	snprintf(name, sizeof(name), "iscsi://localhost:%d/" IQN "/2?header-digest=crc32c", port);
	disk = open_with(name);
	assert_int_equal(disk->block_bytes, 4096);
	disk_suite(disk);
	disk_close(disk);
}

static void passes_the_suite(void **state)
{
	run(passes_the_suite_body);
}

static void discard_gives_space_back_body(void)
{
	char *out = suite_pattern(8 * MIB, 0);
	struct disk_io discard = { .op = DISK_DISCARD, .len_bytes = 8 * MIB };
	struct disk *disk;

	make_file("disk", "16M");
	serve();
	assert_true(admin("--op update --mode logicalunit --tid 1 --lun 1 --params thin_provisioning=1"));
	disk = open_with(uri);
	assert_int_equal(disk_write(disk, 0, out, 8 * MIB), 0);
	assert_int_equal(disk_flush(disk), 0);
	assert_true(unit_shell("[ $(stat -c %%b %s/disk) -ge 16384 ]", rig.folder));
	assert_int_equal(suite_submit(disk, &discard), 0);
	assert_true(unit_shell("[ $(stat -c %%b %s/disk) -lt 2048 ]", rig.folder));
	disk_close(disk);
	free(out);
}

static void discard_gives_space_back(void **state)
{
	run(discard_gives_space_back_body);
}

/* ---- the target dies or hangs ---- */

static void io_waits_for_the_target_body(void)
{
	char *out = suite_pattern(CROWD * 64 * KIB, 1), *in = suite_pattern(CROWD * 64 * KIB, 2);
	struct disk *disk;

	make_file("disk", "64M");
	serve();
	disk = open_with(uri);
	for (int round = 0; round < 6; round++) {
		memset(out, round + 1, CROWD * 64 * KIB);
		crowd_start(disk, DISK_WRITE, out);
		if (round % 2)
			fiber_sleep_ns((uint64_t)round * MS / 2);
		stop_server(SIGKILL);
		fiber_sleep_ns(20 * MS);
		serve();
		assert_int_equal(crowd_wait(), 0);
		crowd_start(disk, DISK_READ, in);
		stop_server(SIGKILL);
		serve();
		assert_int_equal(crowd_wait(), 0);
		assert_memory_equal(in, out, CROWD * 64 * KIB);
	}
	disk_close(disk);
	free(out);
	free(in);
}

static void io_waits_for_the_target(void **state)
{
	run(io_waits_for_the_target_body);
}

static void a_target_that_hung_is_used_again_body(void)
{
	char *out = suite_pattern(CROWD * 64 * KIB, 1), *in = suite_pattern(CROWD * 64 * KIB, 2);
	char name[600];
	struct disk *disk;

	make_file("disk", "64M");
	serve();
	snprintf(name, sizeof(name), "%s?timeout=1", uri);
	disk = open_with(name);
	unit_server_signal(rig.server, SIGSTOP);
	crowd_start(disk, DISK_WRITE, out);
	fiber_sleep_ns(1500 * MS);
	assert_non_null(disk_away(disk));
	unit_server_signal(rig.server, SIGCONT);
	assert_int_equal(crowd_wait(), 0);
	crowd_start(disk, DISK_READ, in);
	assert_int_equal(crowd_wait(), 0);
	assert_memory_equal(in, out, CROWD * 64 * KIB);
	disk_close(disk);
	free(out);
	free(in);
}

static void a_target_that_hung_is_used_again(void **state)
{
	run(a_target_that_hung_is_used_again_body);
}

/* The same name and size, but it says it is another one. */
static void another_lun_is_not_written_body(void)
{
	char *out = suite_pattern(CROWD * 64 * KIB, 1);
	struct disk *disk;

	make_file("disk", "64M");
	make_file("other", "64M");
	serve();
	disk = open_with(uri);
	stop_server(SIGKILL);
	crowd_start(disk, DISK_WRITE, out);
	start_target();
	add_lun("other", 1, "");
	assert_true(admin("--op update --mode logicalunit --tid 1 --lun 1 --params scsi_sn=another"));
	open_target();
	for (int i = 0; !(disk_away(disk) && strstr(disk_away(disk), "another disk")); i++) {
		assert_true(i < 500);
		fiber_sleep_ns(10 * MS);
	}
	stop_server(SIGKILL);
	assert_true(unit_shell("cmp -n 67108864 %s/other /dev/zero", rig.folder));
	serve();
	assert_int_equal(crowd_wait(), 0);
	disk_close(disk);
	free(out);
}

static void another_lun_is_not_written(void **state)
{
	run(another_lun_is_not_written_body);
}

/* ---- login ---- */

static void chap_takes_the_right_secret_only_body(void)
{
	char name[900];
	struct disk *disk;

	make_file("disk", "16M");
	serve();
	assert_true(admin("--op new --mode account --user me --password the.right.secret"));
	assert_true(admin("--op bind --mode account --tid 1 --user me"));
	assert_true(unit_shell("echo the.right.secret >%s/right; echo the.wrong.secret >%s/wrong", rig.folder, rig.folder));
	snprintf(name, sizeof(name), "iscsi://me@127.0.0.1:%d/" IQN "/1?secret-file=%s/right", port, rig.folder);
	disk = open_with(name);
	assert_null(strstr(disk->uri, "the.right"));
	disk_suite(disk);
	disk_close(disk);
	snprintf(name, sizeof(name), "iscsi://me@127.0.0.1:%d/" IQN "/1?secret-file=%s/wrong", port, rig.folder);
	open_error(name, "uthenti");
	open_error(uri, "uth");
	snprintf(name, sizeof(name), "iscsi://me@127.0.0.1:%d/" IQN "/1?secret-file=%s/none", port, rig.folder);
	open_error(name, "cannot read the secret");
}

static void chap_takes_the_right_secret_only(void **state)
{
	run(chap_takes_the_right_secret_only_body);
}

static void what_is_not_there_is_told_body(void)
{
	char name[600];

	make_file("disk", "16M");
	make_file("fixed", "16M");
	serve();
	add_lun("fixed", 2, "");
	assert_true(admin("--op update --mode logicalunit --tid 1 --lun 2 --params readonly=1"));
	snprintf(name, sizeof(name), "iscsi://127.0.0.1:%d/iqn.2024-01.test:none/1", port);
	open_error(name, "portal 127.0.0.1");
	snprintf(name, sizeof(name), "iscsi://127.0.0.1:%d/" IQN "/7", port);
	open_error(name, "LUN 7");
	snprintf(name, sizeof(name), "iscsi://127.0.0.1:%d/" IQN "/2", port);
	open_error(name, "read-only");
	open_error("iscsi://127.0.0.1:1/" IQN "/1", "Connection refused");
	open_error("iscsi://127.0.0.1/", "TARGET/LUN");
	open_error("iscsi://127.0.0.1/" IQN "/x", "not a LUN");
	open_error("iscsi://127.0.0.1/" IQN "/256", "not a LUN");
	open_error("iscsi:///" IQN "/1", "names no host");
	open_error("iscsi://me%secret@127.0.0.1/" IQN "/1", "a secret must not");
	open_error("iscsi://me@127.0.0.1/" IQN "/1", "go together");
	open_error("iscsi://127.0.0.1/" IQN "/1?color=red", "no option 'color'");
}

static void what_is_not_there_is_told(void **state)
{
	run(what_is_not_there_is_told_body);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(passes_the_suite),           TEST(discard_gives_space_back),
		TEST(io_waits_for_the_target),    TEST(a_target_that_hung_is_used_again),
		TEST(another_lun_is_not_written), TEST(chap_takes_the_right_secret_only),
		TEST(what_is_not_there_is_told),
	};

	signal(SIGPIPE, SIG_IGN);
	return run_unit_tests(tests);
}
