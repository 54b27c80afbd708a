/* Unit tests of pool/disks/disk.c, disk_open.c, disk_ram.c and disk_fault.c, in virtual time: nothing here needs a ring. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "pool/base/mem.h"
#include "pool/disks/disk.h"
#include "pool/disks/disk_fault.h"
#include "pool/disks/disk_int.h"
#include "pool/runtime/fiber.h"
#include "tests/unit/disk_suite.h"
#include "tests/unit/unit.h"
#include "tests/unit/unit_loop.h"

#define KIB 1024ull
#define MIB (1024 * KIB)

static const struct disk_open_opts with_faults = { .allow_fault = true };
static const struct disk_open_opts no_opts;

static struct unit_loop env;
static bool running; /* a test that failed stays so: its fiber never ends */

static int setup(void **state)
{
	unit_loop_init(&env);
	return 0;
}

static int teardown(void **state)
{
	if (!running)
		unit_loop_fini(&env);
	running = false;
	return 0;
}

static void call(void *arg)
{
	(*(void (**)(void))arg)();
}

static void run(void (*fn)(void))
{
	running = true;
	unit_loop_run_fiber(&env, call, &fn);
	running = false;
}

static struct disk *open_disk(const char *uri)
{
	struct disk *disk;
	struct err err;

	if (disk_open(uri, &with_faults, &disk, &err))
		fail_msg("%s", err.msg);
	assert_string_equal(disk->uri, uri);
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

/* ---- ram ---- */

static void ram_passes_the_suite_body(void)
{
	const char *const uris[] = { "ram:8M", "ram:16M,block=512", "ram:8M,block=4K", "ram:9M,block=1024" };

	for (uint32_t i = 0; i < 4; i++) {
		struct disk *disk = open_disk(uris[i]);

		assert_true(disk->volatile_data);
		disk_suite(disk);
		disk_close(disk);
	}
}

static void ram_passes_the_suite(void **state)
{
	run(ram_passes_the_suite_body);
}

static void ram_has_the_size_and_block_it_was_told_body(void)
{
	struct disk *disk = open_disk("ram:1536,block=512");

	assert_int_equal(disk->size_bytes, 1536);
	assert_int_equal(disk->block_bytes, 512);
	disk_close(disk);
	disk = open_disk("ram:16G");
	assert_int_equal(disk->size_bytes, 16 * 1024 * MIB);
	assert_int_equal(disk->block_bytes, 4096);
	disk_close(disk);
}

static void ram_has_the_size_and_block_it_was_told(void **state)
{
	run(ram_has_the_size_and_block_it_was_told_body);
}

static void ram_is_zero_at_first_and_after_discard_body(void)
{
	struct disk *disk = open_disk("ram:64M");
	char *buf = suite_pattern(MIB, 0);
	struct disk_io discard = { .op = DISK_DISCARD, .off_bytes = 8 * MIB, .len_bytes = 2 * MIB };

	for (int round = 0; round < 2; round++) {
		assert_int_equal(disk_read(disk, 9 * MIB, buf, MIB), 0);
		for (uint32_t i = 0; i < MIB; i++)
			assert_int_equal(buf[i], 0);
		memset(buf, 1, MIB);
		assert_int_equal(disk_write(disk, 9 * MIB, buf, MIB), 0);
		assert_int_equal(suite_submit(disk, &discard), 0);
	}
	free(buf);
	disk_close(disk);
}

static void ram_is_zero_at_first_and_after_discard(void **state)
{
	run(ram_is_zero_at_first_and_after_discard_body);
}

static void bad_uris_are_refused_with_a_reason(void **state)
{
	assert_int_equal(open_error("ram:", &no_opts, "is not a size"), -EINVAL);
	assert_int_equal(open_error("ram:0", &no_opts, "not 0"), -EINVAL);
	assert_int_equal(open_error("ram:-4096", &no_opts, "is not a size"), -EINVAL);
	assert_int_equal(open_error("ram:1000", &no_opts, "multiple of 4096"), -EINVAL);
	assert_int_equal(open_error("ram:1M,block=513", &no_opts, "block="), -EINVAL);
	assert_int_equal(open_error("ram:1M,block=256", &no_opts, "block="), -EINVAL);
	assert_int_equal(open_error("ram:1M,block=8192", &no_opts, "block="), -EINVAL);
	assert_int_equal(open_error("ram:1M,block=0", &no_opts, "block="), -EINVAL);
	assert_int_equal(open_error("ram:1M,color=red", &no_opts, "color=red"), -EINVAL);
	assert_int_equal(open_error("ram:8E", &no_opts, "not enough address space"), -ENOMEM);
	assert_int_equal(open_error("raw:1M", &no_opts, "scheme 'raw'"), -EINVAL);
	assert_int_equal(open_error("ra:m", &no_opts, "scheme 'ra'"), -EINVAL);
	assert_int_equal(open_error(":", &no_opts, "scheme ''"), -EINVAL);
}

/* ---- fault ---- */

static void fault_needs_permission(void **state)
{
	assert_int_equal(open_error("fault::ram:1M", &no_opts, "not allowed"), -EPERM);
}

static void bad_fault_options_are_refused(void **state)
{
	assert_int_equal(open_error("fault:ram", &with_faults, "fault:OPTIONS:URI"), -EINVAL);
	assert_int_equal(open_error("fault:eio:ram:1M", &with_faults, "'eio'"), -EINVAL);
	assert_int_equal(open_error("fault:torn=2:ram:1M", &with_faults, "'torn'"), -EINVAL);
	assert_int_equal(open_error("fault:torn=-1:ram:1M", &with_faults, "'torn'"), -EINVAL);
	assert_int_equal(open_error("fault:torn=nan:ram:1M", &with_faults, "'torn'"), -EINVAL);
	assert_int_equal(open_error("fault:torn=:ram:1M", &with_faults, "'torn'"), -EINVAL);
	assert_int_equal(open_error("fault:torn=1x:ram:1M", &with_faults, "'torn'"), -EINVAL);
	assert_int_equal(open_error("fault:delay-us=-5:ram:1M", &with_faults, "'delay-us'"), -EINVAL);
	assert_int_equal(open_error("fault:delay-us:ram:1M", &with_faults, "'delay-us'"), -EINVAL);
	assert_int_equal(open_error("fault:seed=1.5:ram:1M", &with_faults, "'seed'"), -EINVAL);
	assert_int_equal(open_error("fault:torn:ram:0", &with_faults, "ram:0"), -EINVAL);
}

static void without_faults_it_passes_the_suite_body(void)
{
	struct disk *disk = open_disk("fault:delay-us=3:fault::ram:8M,block=512");

	assert_true(disk->volatile_data);
	assert_int_equal(disk->block_bytes, 512);
	assert_int_equal(disk->size_bytes, 8 * MIB);
	disk_suite(disk);
	disk_close(disk);
}

static void without_faults_it_passes_the_suite(void **state)
{
	run(without_faults_it_passes_the_suite_body);
}

static void faults(struct disk *disk, const char *opts)
{
	struct err err;

	if (disk_fault_set(disk, opts, &err))
		fail_msg("%s", err.msg);
}

/* A faultless fault disk of 1 MiB whose content is `old`. */
static struct disk *filled_disk(char *old)
{
	struct disk *disk = open_disk("fault:seed=5:ram:1M");

	assert_int_equal(disk_write(disk, 0, old, MIB), 0);
	return disk;
}

static void errors_are_reported_and_nothing_is_done_body(void)
{
	char *old = suite_pattern(MIB, 0), *new = suite_pattern(MIB, 1), *in = suite_pattern(MIB, 2);
	struct disk *disk = filled_disk(old);
	struct disk_counters sum;

	faults(disk, "eio-read,eio-write,eio-flush");
	assert_int_equal(disk_write(disk, 0, new, MIB), -EIO);
	assert_int_equal(disk_flush(disk), -EIO);
	memcpy(in, new, MIB);
	assert_int_equal(disk_read(disk, 0, in, MIB), -EIO);
	assert_memory_equal(in, new, MIB);
	disk_counters_sum(disk, &sum);
	assert_int_equal(sum.errors[DISK_READ] + sum.errors[DISK_WRITE] * 10 + sum.errors[DISK_FLUSH] * 100, 111);
	assert_int_equal(disk_fault_count(disk, FAULT_EIO_READ), 1);
	assert_int_equal(disk_fault_count(disk, FAULT_TORN), 0);
	faults(disk, "");
	assert_int_equal(disk_read(disk, 0, in, MIB), 0);
	assert_memory_equal(in, old, MIB);
	assert_int_equal(disk_flush(disk), -EIO); /* what the failed one lost is still lost */
	disk_flush_anew(disk);
	assert_int_equal(disk_flush(disk), 0);
	disk_close(disk);
	free(old);
	free(new);
	free(in);
}

static void errors_are_reported_and_nothing_is_done(void **state)
{
	run(errors_are_reported_and_nothing_is_done_body);
}

static uint32_t bits_different(const char *a, const char *b, uint64_t len_bytes)
{
	uint32_t bits = 0;

	for (uint64_t i = 0; i < len_bytes; i++)
		bits += (uint32_t)__builtin_popcount((uint8_t)(a[i] ^ b[i]));
	return bits;
}

static void corrupt_flips_a_bit_once_and_rot_for_good_body(void)
{
	char *old = suite_pattern(MIB, 0), *in = suite_pattern(MIB, 2);
	struct disk *disk = filled_disk(old);

	faults(disk, "corrupt");
	assert_int_equal(disk_read(disk, 0, in, MIB), 0);
	assert_int_equal(bits_different(old, in, MIB), 1);
	faults(disk, "");
	assert_int_equal(disk_read(disk, 0, in, MIB), 0);
	assert_int_equal(bits_different(old, in, MIB), 0);
	faults(disk, "rot");
	assert_int_equal(disk_write(disk, 4096, old + 4096, MIB / 2), 0);
	faults(disk, "");
	for (int round = 0; round < 2; round++) {
		assert_int_equal(disk_read(disk, 0, in, MIB), 0);
		assert_int_equal(bits_different(old, in, MIB), 1);
		assert_int_equal(bits_different(old + 4096, in + 4096, MIB / 2), 1);
	}
	disk_close(disk);
	free(old);
	free(in);
}

static void corrupt_flips_a_bit_once_and_rot_for_good(void **state)
{
	run(corrupt_flips_a_bit_once_and_rot_for_good_body);
}

/* Counts sectors that are new, old and neither. */
static void sort_sectors(const char *in, const char *old, const char *new, uint64_t len_bytes, uint32_t kinds[3])
{
	memset(kinds, 0, 3 * sizeof(kinds[0]));
	for (uint64_t off = 0; off < len_bytes; off += 512) {
		if (memcmp(in + off, new + off, 512) == 0)
			kinds[0]++;
		else if (memcmp(in + off, old + off, 512) == 0)
			kinds[1]++;
		else
			kinds[2]++;
	}
}

static void torn_write_leaves_a_mixture_body(void)
{
	char *old = suite_pattern(MIB, 0), *new = suite_pattern(MIB, 1), *in = suite_pattern(MIB, 2);
	struct disk *disk = filled_disk(old);
	uint32_t kinds[3];

	faults(disk, "torn");
	assert_int_equal(disk_write(disk, 4096, new + 4096, MIB / 2), -EIO);
	faults(disk, "");
	assert_int_equal(disk_read(disk, 0, in, MIB), 0);
	sort_sectors(in + 4096, old + 4096, new + 4096, MIB / 2, kinds);
	assert_in_range(kinds[0], 412, 612);
	assert_in_range(kinds[1], 284, 484);
	assert_in_range(kinds[2], 78, 178);
	assert_memory_equal(in, old, 4096);
	assert_memory_equal(in + MIB / 2 + 4096, old + MIB / 2 + 4096, MIB / 2 - 4096);
	disk_close(disk);
	free(old);
	free(new);
	free(in);
}

static void torn_write_leaves_a_mixture(void **state)
{
	run(torn_write_leaves_a_mixture_body);
}

/* Blocks of 4 KiB of `in` that equal the first of `what`. */
static uint32_t places_of(const char *in, const char *what, uint64_t *off_bytes)
{
	uint32_t found = 0;

	for (uint64_t off = 0; off < MIB; off += 4096) {
		if (memcmp(in + off, what, 4096) == 0) {
			*off_bytes = off;
			found++;
		}
	}
	return found;
}

static void misdirected_io_goes_elsewhere_body(void)
{
	char *old = suite_pattern(MIB, 0), *new = suite_pattern(4096, 1), *in = suite_pattern(MIB, 2);
	struct disk *disk = filled_disk(old);
	uint64_t off = 0;

	faults(disk, "misdirect");
	assert_int_equal(disk_write(disk, 8192, new, 4096), 0);
	assert_int_equal(disk_read(disk, 8192, in, 4096), 0);
	assert_memory_not_equal(in, old + 8192, 4096);
	assert_memory_not_equal(in, new, 4096);
	assert_int_equal(places_of(old, in, &off), 1);
	faults(disk, "");
	assert_int_equal(disk_read(disk, 0, in, MIB), 0);
	assert_int_equal(places_of(in, new, &off), 1);
	assert_int_not_equal(off, 8192);
	disk_close(disk);
	free(old);
	free(new);
	free(in);
}

static void misdirected_io_goes_elsewhere(void **state)
{
	run(misdirected_io_goes_elsewhere_body);
}

static void lost_writes_and_flushes_succeed_body(void)
{
	char *old = suite_pattern(MIB, 0), *new = suite_pattern(MIB, 1), *in = suite_pattern(MIB, 2);
	struct disk *disk = filled_disk(old);

	faults(disk, "lose-write");
	assert_int_equal(disk_write(disk, 0, new, MIB), 0);
	assert_int_equal(disk_read(disk, 0, in, MIB), 0);
	assert_memory_equal(in, old, MIB);
	disk_close(disk);
	/* A flush that got through would meet the inner disk's error. */
	disk = open_disk("fault:lose-flush:fault:eio-flush:ram:1M");
	assert_int_equal(disk_flush(disk), 0);
	faults(disk, "");
	assert_int_equal(disk_flush(disk), -EIO);
	disk_close(disk);
	free(old);
	free(new);
	free(in);
}

static void lost_writes_and_flushes_succeed(void **state)
{
	run(lost_writes_and_flushes_succeed_body);
}

static void inner_errors_come_through_body(void)
{
	struct disk *disk = open_disk("fault::fault:eio-read,eio-write:ram:1M");
	char *buf = suite_pattern(4096, 0);

	assert_int_equal(disk_read(disk, 0, buf, 4096), -EIO);
	assert_int_equal(disk_write(disk, 0, buf, 4096), -EIO);
	faults(disk, "torn,corrupt");
	assert_int_equal(disk_read(disk, 0, buf, 4096), -EIO);
	assert_int_equal(disk_write(disk, 0, buf, 4096), -EIO);
	disk_close(disk);
	free(buf);
}

static void inner_errors_come_through(void **state)
{
	run(inner_errors_come_through_body);
}

static void delay_takes_its_time_body(void)
{
	struct disk *disk = open_disk("fault:delay-us=700:ram:1M");
	char *buf = suite_pattern(4096, 0);
	uint64_t start_ns = loop_now_ns(loop_self());

	assert_int_equal(disk_read(disk, 0, buf, 4096), 0);
	assert_int_equal(loop_now_ns(loop_self()) - start_ns, 700000);
	assert_int_equal(disk_flush(disk), 0);
	assert_int_equal(loop_now_ns(loop_self()) - start_ns, 1400000);
	disk_close(disk);
	free(buf);
}

static void delay_takes_its_time(void **state)
{
	run(delay_takes_its_time_body);
}

struct hung_write {
	struct disk *disk;
	char *data;
	bool finished;
};

static void hung_write(void *arg)
{
	struct hung_write *hung = arg;

	assert_int_equal(disk_write(hung->disk, 0, hung->data, 4096), 0);
	hung->finished = true;
}

static void hung_io_lands_late_body(void)
{
	char *old = suite_pattern(MIB, 0), *in = suite_pattern(MIB, 2);
	struct hung_write hung = { .disk = filled_disk(old), .data = suite_pattern(4096, 1) };

	faults(hung.disk, "hang");
	assert_int_equal(fiber_start(loop_self(), hung_write, &hung), 0);
	fiber_sleep_ns(1000000000);
	assert_false(hung.finished);
	faults(hung.disk, "");
	assert_int_equal(disk_read(hung.disk, 0, in, 4096), 0);
	assert_memory_equal(in, old, 4096);
	fiber_sleep_ns(100000000);
	assert_true(hung.finished);
	assert_int_equal(disk_read(hung.disk, 0, in, 4096), 0);
	assert_memory_equal(in, hung.data, 4096);
	disk_close(hung.disk);
	free(hung.data);
	free(old);
	free(in);
}

static void hung_io_lands_late(void **state)
{
	run(hung_io_lands_late_body);
}

/* Which of the next 64 reads fail. */
static uint64_t failures(struct disk *disk)
{
	char *buf = suite_pattern(4096, 0);
	uint64_t mask = 0;

	for (uint32_t i = 0; i < 64; i++)
		mask = mask << 1 | (disk_read(disk, 0, buf, 4096) != 0);
	free(buf);
	return mask;
}

static void equal_seeds_make_equal_faults_body(void)
{
	struct disk *a = open_disk("fault:eio-read=0.5,seed=1:ram:1M");
	struct disk *b = open_disk("fault:seed=1,eio-read=0.5:ram:1M");
	struct disk *c = open_disk("fault:eio-read=0.5,seed=2:ram:1M");
	uint64_t of_a = failures(a);

	assert_int_equal(of_a, failures(b));
	assert_int_not_equal(of_a, failures(c));
	assert_int_not_equal(of_a, failures(a));
	faults(a, "seed=1,eio-read=0.5");
	assert_int_equal(of_a, failures(a));
	disk_close(a);
	disk_close(b);
	disk_close(c);
}

static void equal_seeds_make_equal_faults(void **state)
{
	run(equal_seeds_make_equal_faults_body);
}

static void chance_is_what_it_says_body(void)
{
	struct disk *disk = open_disk("fault:eio-read=0.1:ram:1M");

	for (uint32_t i = 0; i < 100; i++)
		failures(disk);
	assert_in_range(disk_fault_count(disk, FAULT_EIO_READ), 540, 740);
	faults(disk, "eio-read=0");
	assert_int_equal(failures(disk), 0);
	faults(disk, "eio-read=1");
	assert_int_equal(failures(disk), UINT64_MAX);
	disk_close(disk);
}

static void chance_is_what_it_says(void **state)
{
	run(chance_is_what_it_says_body);
}

static void a_bad_set_changes_nothing_body(void)
{
	struct disk *disk = open_disk("fault:eio-read:ram:1M"), *ram = open_disk("ram:1M");
	struct err err = { "" };

	assert_int_equal(disk_fault_set(disk, "eio-write,bogus", &err), -EINVAL);
	assert_non_null(strstr(err.msg, "'bogus'"));
	assert_int_equal(failures(disk), UINT64_MAX);
	assert_int_equal(disk_flush(disk), 0);
	assert_true(disk_is_fault(disk));
	assert_false(disk_is_fault(ram));
	disk_close(disk);
	disk_close(ram);
}

static void a_bad_set_changes_nothing(void **state)
{
	run(a_bad_set_changes_nothing_body);
}

/* ---- no memory ---- */

static uint32_t allocs_left; /* the one after these fails */

static void *failing_alloc(size_t align_bytes, size_t size_bytes)
{
	return allocs_left-- == 0 ? NULL : aligned_alloc(align_bytes, (size_bytes + align_bytes - 1) & -align_bytes);
}

/* Opens, writes, closes; returns the first error. */
static int open_write_close(char *buf)
{
	struct disk *disk;
	struct err err = { "" };
	int ret = disk_open("fault:rot,delay-us=1:ram:1M", &with_faults, &disk, &err);

	if (ret) {
		assert_non_null(strstr(err.msg, "no memory"));
		return ret;
	}
	ret = disk_write(disk, 0, buf, 4096);
	disk_close(disk);
	return ret;
}

static void every_failing_allocation_is_reported_body(void)
{
	const struct mem_ops ops = { .alloc = failing_alloc, .free = free };
	char *buf = suite_pattern(4096, 0);
	uint32_t fail_at = 0;
	int ret = -ENOMEM;

	mem_set_ops(&ops);
	for (; ret; fail_at++) {
		allocs_left = fail_at;
		ret = open_write_close(buf);
		assert_true(ret == 0 || ret == -ENOMEM);
	}
	mem_set_ops(NULL);
	assert_in_range(fail_at, 8, 20);
	free(buf);
}

static void every_failing_allocation_is_reported(void **state)
{
	run(every_failing_allocation_is_reported_body);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

/* ---- flushes ---- */

/* A driver that ends a flush when it is told to. */
static struct disk_io *held;
static uint32_t held_count;

static void hold(struct disk *disk, struct disk_io *io)
{
	held = io;
	held_count++;
}

struct asked_flush {
	struct disk_io io;
	int res;
};

static void asked_done(struct disk_io *io, int res)
{
	container_of(io, struct asked_flush, io)->res = res;
}

static void ask(struct disk *disk, struct asked_flush *flush)
{
	*flush = (struct asked_flush){ .io = { .op = DISK_FLUSH, .done = asked_done }, .res = 1 };
	disk_submit(disk, &flush->io);
}

static void flushes_share_and_fail_together_body(void)
{
	static const struct disk_ops ops = { .scheme = "hold", .submit = hold };
	struct asked_flush flush[4];
	struct disk disk;

	disk_init(&disk, &ops, MIB, 512);
	held_count = 0;
	for (int i = 0; i < 3; i++)
		ask(&disk, &flush[i]);
	assert_int_equal(held_count, 1);
	disk_done(held, 0);
	assert_int_equal(flush[0].res, 0);
	assert_int_equal(flush[1].res + flush[2].res, 2);
	assert_int_equal(held_count, 2); /* for both that came meanwhile */
	ask(&disk, &flush[3]);
	disk_done(held, -EIO);
	assert_int_equal(flush[1].res, -EIO);
	assert_int_equal(flush[2].res, -EIO);
	fiber_sleep_ns(1);
	assert_int_equal(flush[3].res, -EIO); /* the disk was not asked */
	ask(&disk, &flush[0]);
	fiber_sleep_ns(1);
	assert_int_equal(flush[0].res, -EIO);
	assert_int_equal(held_count, 2);
	disk_flush_anew(&disk);
	ask(&disk, &flush[0]);
	assert_int_equal(held_count, 3);
	disk_done(held, 0);
	assert_int_equal(flush[0].res, 0);
}

static void flushes_share_and_fail_together(void **state)
{
	run(flushes_share_and_fail_together_body);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(ram_passes_the_suite),
		TEST(ram_has_the_size_and_block_it_was_told),
		TEST(ram_is_zero_at_first_and_after_discard),
		TEST(bad_uris_are_refused_with_a_reason),
		TEST(fault_needs_permission),
		TEST(bad_fault_options_are_refused),
		TEST(without_faults_it_passes_the_suite),
		TEST(errors_are_reported_and_nothing_is_done),
		TEST(corrupt_flips_a_bit_once_and_rot_for_good),
		TEST(torn_write_leaves_a_mixture),
		TEST(misdirected_io_goes_elsewhere),
		TEST(lost_writes_and_flushes_succeed),
		TEST(inner_errors_come_through),
		TEST(delay_takes_its_time),
		TEST(hung_io_lands_late),
		TEST(equal_seeds_make_equal_faults),
		TEST(chance_is_what_it_says),
		TEST(a_bad_set_changes_nothing),
		TEST(every_failing_allocation_is_reported),
		TEST(flushes_share_and_fail_together),
	};

	return run_unit_tests(tests);
}
