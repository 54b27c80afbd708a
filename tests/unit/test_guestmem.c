/* Unit tests of targets/guestmem.c and targets/sharemem.c. */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "targets/guestmem.h"
#include "targets/sharemem.h"
#include "tests/unit/unit.h"
#include "tests/unit/unit_guest.h"

static struct unit_guest guest;

static int setup(void **state)
{
	unit_guest_init(&guest);
	return 0;
}

static int teardown(void **state)
{
	unit_guest_fini(&guest);
	return 0;
}

/* ---- looking up ---- */

static void finds_bytes_at_both_ends_of_a_region(void **state)
{
	uint8_t *first = guestmem_ptr(guest.mem, GUEST_GPA, 1);
	uint8_t *last = guestmem_ptr(guest.mem, GUEST_SEAM - 1, 1);

	assert_non_null(first);
	assert_ptr_equal(last, first + GUEST_REGION_BYTES - 1);
	*last = 0x5a;
	assert_int_equal(guest.map[0][GUEST_REGION_BYTES - 1], 0x5a);
	assert_null(guestmem_ptr(guest.mem, GUEST_GPA - 1, 1));
	assert_null(guestmem_ptr(guest.mem, GUEST_SEAM + GUEST_REGION_BYTES, 1));
}

static void a_pointer_never_crosses_regions(void **state)
{
	assert_null(guestmem_ptr(guest.mem, GUEST_SEAM - 1, 2));
	assert_non_null(guestmem_ptr(guest.mem, GUEST_SEAM, 2));
	assert_null(guestmem_ptr(guest.mem, GUEST_GPA, UINT64_MAX));
}

static void a_range_across_regions_gives_two_pieces(void **state)
{
	struct iovec iov[2];

	assert_int_equal(guestmem_iov(guest.mem, GUEST_SEAM - 100, 300, iov, 2), 2);
	assert_int_equal(iov[0].iov_len, 100);
	assert_int_equal(iov[1].iov_len, 200);
	memset(iov[0].iov_base, 1, 100);
	memset(iov[1].iov_base, 2, 200);
	assert_int_equal(guest.map[0][GUEST_REGION_BYTES - 1], 1);
	assert_int_equal(guest.map[1][199], 2);
	assert_int_equal(guestmem_iov(guest.mem, GUEST_SEAM - 100, 300, iov, 1), -E2BIG);
}

static void a_range_that_leaves_memory_is_refused(void **state)
{
	struct iovec iov[4];
	uint64_t end = GUEST_SEAM + GUEST_REGION_BYTES;

	assert_int_equal(guestmem_iov(guest.mem, end - 1, 1, iov, 4), 1);
	assert_int_equal(guestmem_iov(guest.mem, end - 1, 2, iov, 4), -EFAULT);
	assert_int_equal(guestmem_iov(guest.mem, end, 1, iov, 4), -EFAULT);
	assert_int_equal(guestmem_iov(guest.mem, GUEST_GPA - 1, 2, iov, 4), -EFAULT);
	assert_int_equal(guestmem_iov(guest.mem, GUEST_GPA, UINT64_MAX, iov, 4), -EFAULT);
	assert_int_equal(guestmem_iov(guest.mem, UINT64_MAX, 2, iov, 4), -EFAULT);
	assert_int_equal(guestmem_iov(guest.mem, 0, 1, iov, 4), -EFAULT);
}

static void reads_across_regions(void **state)
{
	char text[8];

	memcpy(guest.map[0] + GUEST_REGION_BYTES - 3, "abc", 3);
	memcpy(guest.map[1], "defgh", 5);
	assert_int_equal(guestmem_read(guest.mem, GUEST_SEAM - 3, text, 8), 0);
	assert_memory_equal(text, "abcdefgh", 8);
	assert_int_equal(guestmem_read(guest.mem, GUEST_SEAM + GUEST_REGION_BYTES - 3, text, 8), -EFAULT);
}

static void user_addresses_are_a_space_of_their_own(void **state)
{
	uint8_t *ptr = guestmem_user_ptr(guest.mem, guest.slot[1].uva + 5, 10);

	assert_ptr_equal(ptr, guestmem_ptr(guest.mem, guest.slot[1].gpa + 5, 10));
	assert_null(guestmem_user_ptr(guest.mem, guest.slot[1].gpa, 1));
	assert_null(guestmem_user_ptr(guest.mem, guest.slot[0].uva + GUEST_REGION_BYTES - 1, 2));
	assert_null(guestmem_user_ptr(guest.mem, guest.slot[0].uva, UINT64_MAX));
	assert_null(guestmem_user_ptr(guest.mem, UINT64_MAX, 2));
}

static void finds_the_right_one_of_many_regions(void **state)
{
	enum { COUNT = 100 };
	struct guestmem *mem, *more;

	assert_int_equal(guestmem_create(NULL, NULL, 0, &mem), 0);
	/* In an order that is neither up nor down. */
	for (uint64_t i = 0; i < COUNT; i++) {
		uint64_t at = i * 37 % COUNT;
		struct guestmem_slot slot = { .gpa = at * 0x2000, .uva = at * 0x3000, .len_bytes = 0x1000,
					      .off_bytes = at * 0x1000 };

		assert_int_equal(guestmem_with(mem, &slot, guest.fd[0], &more), 0);
		guestmem_put(mem);
		mem = more;
	}
	for (uint64_t i = 0; i < COUNT * 3; i++) {
		uint64_t at = i * 71 % COUNT;
		uint8_t *ptr = guestmem_ptr(mem, at * 0x2000 + 7, 1);

		assert_non_null(ptr);
		*ptr = (uint8_t)(at + 1);
		assert_ptr_equal(guestmem_user_ptr(mem, at * 0x3000 + 7, 1), ptr);
		assert_null(guestmem_ptr(mem, at * 0x2000 + 0x1000, 1));
	}
	/* The first three pages of the file are before the guest's own view. */
	for (uint64_t at = 3; at < COUNT; at++)
		assert_int_equal(guest.map[0][at * 0x1000 - 0x3000 + 7], at + 1);
	guestmem_put(mem);
}

/* ---- regions that are no good ---- */

static int create_one(uint64_t gpa, uint64_t uva, uint64_t len_bytes, uint64_t off_bytes)
{
	struct guestmem_slot slot = { .gpa = gpa, .uva = uva, .len_bytes = len_bytes, .off_bytes = off_bytes };
	struct guestmem *mem;
	int rc = guestmem_create(&slot, guest.fd, 1, &mem);

	if (rc == 0)
		guestmem_put(mem);
	return rc;
}

static void misaligned_and_empty_regions_are_refused(void **state)
{
	assert_int_equal(create_one(0, 0, 0x1000, 0), 0);
	assert_int_equal(create_one(1, 0, 0x1000, 0), -EINVAL);
	assert_int_equal(create_one(0, 1, 0x1000, 0), -EINVAL);
	assert_int_equal(create_one(0, 0, 0x1001, 0), -EINVAL);
	assert_int_equal(create_one(0, 0, 0x1000, 1), -EINVAL);
	assert_int_equal(create_one(0, 0, 0, 0), -EINVAL);
	assert_int_equal(create_one(0, 0, GUESTMEM_REGION_BYTES_MAX + 0x1000, 0), -EINVAL);
}

static void wrapping_regions_are_refused(void **state)
{
	uint64_t last = UINT64_MAX - 0xfff;

	assert_int_equal(create_one(last, 0, 0x2000, 0), -ERANGE);
	assert_int_equal(create_one(0, last, 0x2000, 0), -ERANGE);
	assert_int_equal(create_one(last, 0, 0x1000, 0), -ERANGE);
	assert_int_equal(create_one(0, 0, 0x2000, last), -ERANGE);
}

static void regions_beyond_their_file_are_refused(void **state)
{
	uint64_t file_bytes = 0x3000 + GUEST_REGION_BYTES;

	assert_int_equal(create_one(0, 0, file_bytes, 0), 0);
	assert_int_equal(create_one(0, 0, file_bytes + 0x1000, 0), -ERANGE);
	assert_int_equal(create_one(0, 0, 0x1000, file_bytes), -ERANGE);
	assert_int_equal(create_one(0, 0, 0x1000, 1ull << 62), -ERANGE);
}

static int add(const struct guestmem *mem, uint64_t gpa, uint64_t uva, uint64_t len_bytes)
{
	struct guestmem_slot slot = { .gpa = gpa, .uva = uva, .len_bytes = len_bytes };
	struct guestmem *more;
	int rc = guestmem_with(mem, &slot, guest.fd[0], &more);

	if (rc == 0)
		guestmem_put(more);
	return rc;
}

static void overlapping_regions_are_refused(void **state)
{
	uint64_t end = GUEST_SEAM + GUEST_REGION_BYTES;

	assert_int_equal(add(guest.mem, end, 0x1000, 0x1000), 0);
	assert_int_equal(add(guest.mem, end - 0x1000, 0x1000, 0x1000), -EEXIST);
	assert_int_equal(add(guest.mem, GUEST_GPA - 0x1000, 0x1000, 0x1000), 0);
	assert_int_equal(add(guest.mem, GUEST_GPA - 0x1000, 0x1000, 0x2000), -EEXIST);
	assert_int_equal(add(guest.mem, end, GUEST_UVA, 0x1000), -EEXIST);
	assert_int_equal(add(guest.mem, end, GUEST_UVA - 0x1000, 0x2000), -EEXIST);
}

static void slots_are_limited(void **state)
{
	struct guestmem *mem, *more;
	struct guestmem_slot slot = { .len_bytes = 0x1000 };

	assert_int_equal(guestmem_create(NULL, NULL, 0, &mem), 0);
	for (uint32_t i = 0; i < GUESTMEM_REGIONS_MAX; i++) {
		slot.gpa = slot.uva = i * 0x1000;
		assert_int_equal(guestmem_with(mem, &slot, guest.fd[0], &more), 0);
		guestmem_put(mem);
		mem = more;
	}
	slot.gpa = slot.uva = GUESTMEM_REGIONS_MAX * 0x1000;
	assert_int_equal(guestmem_with(mem, &slot, guest.fd[0], &more), -ENOSPC);
	guestmem_put(mem);
}

static void files_that_are_no_memory_are_refused(void **state)
{
	struct sharemem *mem;
	int pipes[2], fd;

	assert_int_equal(pipe(pipes), 0);
	assert_int_equal(sharemem_map(pipes[0], 0, 0x1000, &mem), -EINVAL);
	close(pipes[0]);
	close(pipes[1]);
	fd = open("/dev/zero", O_RDWR);
	assert_int_equal(sharemem_map(fd, 0, 0x1000, &mem), -EINVAL);
	close(fd);
	fd = open("/", O_RDONLY | O_DIRECTORY);
	assert_int_equal(sharemem_map(fd, 0, 0x1000, &mem), -EINVAL);
	close(fd);
	/* A regular file of a kind that may be anything. */
	fd = open("/proc/self/status", O_RDONLY);
	assert_true(sharemem_map(fd, 0, 0x1000, &mem) < 0);
	close(fd);
	assert_int_equal(sharemem_map(-1, 0, 0x1000, &mem), -EBADF);
}

static void memory_we_may_not_write_is_refused(void **state)
{
	struct sharemem *mem;

	assert_int_equal(fcntl(guest.fd[0], F_ADD_SEALS, F_SEAL_SHRINK), -1);
	int fd = memfd_create("sealed", MFD_CLOEXEC | MFD_ALLOW_SEALING);

	assert_int_equal(ftruncate(fd, 0x1000), 0);
	assert_int_equal(fcntl(fd, F_ADD_SEALS, F_SEAL_WRITE), 0);
	assert_int_equal(sharemem_map(fd, 0, 0x1000, &mem), -EPERM);
	close(fd);
}

/* ---- change ---- */

static void removing_wants_the_very_region(void **state)
{
	struct guestmem_slot slot = guest.slot[1];
	struct guestmem *less;

	slot.gpa += 0x1000;
	assert_int_equal(guestmem_without(guest.mem, &slot, &less), -ENOENT);
	slot = guest.slot[1];
	slot.uva += 0x1000;
	assert_int_equal(guestmem_without(guest.mem, &slot, &less), -ENOENT);
	slot = guest.slot[1];
	slot.len_bytes -= 0x1000;
	assert_int_equal(guestmem_without(guest.mem, &slot, &less), -ENOENT);
	slot = guest.slot[1];
	slot.off_bytes = 77;
	assert_int_equal(guestmem_without(guest.mem, &slot, &less), 0);
	assert_int_equal(guestmem_count(less), 1);
	guestmem_put(less);
}

static void the_old_table_stays_good_after_a_change(void **state)
{
	uint8_t *before = guestmem_ptr(guest.mem, GUEST_SEAM, 1);
	struct guestmem *less;

	assert_int_equal(guestmem_without(guest.mem, &guest.slot[1], &less), 0);
	assert_null(guestmem_ptr(less, GUEST_SEAM, 1));
	assert_ptr_equal(guestmem_ptr(less, GUEST_GPA, 1), guestmem_ptr(guest.mem, GUEST_GPA, 1));
	/* The new table alone keeps what they share. */
	guestmem_put(guest.mem);
	guest.mem = less;
	*(uint8_t *)guestmem_ptr(less, GUEST_GPA + 9, 1) = 0x33;
	assert_int_equal(guest.map[0][9], 0x33);
	(void)before;
}

/* ---- files that shrink ---- */

/* cmocka catches SIGBUS in each test; what sharemem installed is put back over it. */
static struct sigaction our_action;

static void note_our_handler(void)
{
	struct sharemem *mem;
	int fd = memfd_create("first", MFD_CLOEXEC);

	if (ftruncate(fd, 0x1000) < 0 || sharemem_map(fd, 0, 0x1000, &mem) < 0)
		abort();
	sharemem_put(mem);
	close(fd);
	sigaction(SIGBUS, NULL, &our_action);
}

static void a_shrunk_file_reads_as_zeroes_and_breaks_its_table(void **state)
{
	uint32_t breaks = sharemem_breaks();
	volatile uint8_t *at = guestmem_ptr(guest.mem, GUEST_SEAM + 0x5000, 1);
	uint8_t copy[16];

	sigaction(SIGBUS, &our_action, NULL);
	memset(guest.map[1], 0xee, GUEST_REGION_BYTES);
	assert_false(guestmem_is_broken(guest.mem));
	assert_int_equal(ftruncate(guest.fd[1], 0), 0);
	assert_int_equal(*at, 0);
	*at = 1;
	assert_int_equal(guestmem_read(guest.mem, GUEST_SEAM, copy, sizeof(copy)), 0);
	assert_true(guestmem_is_broken(guest.mem));
	assert_int_equal(sharemem_breaks(), breaks + 1);
	/* The other region is as it was. */
	*(uint8_t *)guestmem_ptr(guest.mem, GUEST_GPA, 1) = 0x44;
	assert_int_equal(guest.map[0][0], 0x44);
}

static void a_table_entry_used_again_is_not_broken(void **state)
{
	struct sharemem *mem;

	sigaction(SIGBUS, &our_action, NULL);
	for (unsigned i = 0; i < 3; i++) {
		int fd = memfd_create("shrinks", MFD_CLOEXEC);

		assert_int_equal(ftruncate(fd, 0x1000), 0);
		assert_int_equal(sharemem_map(fd, 0, 0x1000, &mem), 0);
		assert_false(sharemem_is_broken(mem));
		assert_int_equal(ftruncate(fd, 0), 0);
		*(volatile uint8_t *)sharemem_base(mem) = 1;
		assert_true(sharemem_is_broken(mem));
		sharemem_put(mem);
		close(fd);
	}
}

static void a_fault_elsewhere_still_ends_the_process(void **state)
{
	pid_t pid = fork();
	int status;

	if (pid == 0) {
		sigaction(SIGBUS, &our_action, NULL);
		int fd = memfd_create("own", MFD_CLOEXEC);
		volatile uint8_t *own = mmap(NULL, 0x1000, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);

		/* Whatever checker we run under must not turn it into an exit code of its own. */
		close(1);
		close(2);
		*own = 1;
		_exit(0);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFSIGNALED(status) || WEXITSTATUS(status) != 0);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
	const struct CMUnitTest tests[] = {
		TEST(finds_bytes_at_both_ends_of_a_region),
		TEST(a_pointer_never_crosses_regions),
		TEST(a_range_across_regions_gives_two_pieces),
		TEST(a_range_that_leaves_memory_is_refused),
		TEST(reads_across_regions),
		TEST(user_addresses_are_a_space_of_their_own),
		TEST(finds_the_right_one_of_many_regions),
		TEST(misaligned_and_empty_regions_are_refused),
		TEST(wrapping_regions_are_refused),
		TEST(regions_beyond_their_file_are_refused),
		TEST(overlapping_regions_are_refused),
		TEST(slots_are_limited),
		TEST(files_that_are_no_memory_are_refused),
		TEST(memory_we_may_not_write_is_refused),
		TEST(removing_wants_the_very_region),
		TEST(the_old_table_stays_good_after_a_change),
		TEST(a_shrunk_file_reads_as_zeroes_and_breaks_its_table),
		TEST(a_table_entry_used_again_is_not_broken),
		TEST(a_fault_elsewhere_still_ends_the_process),
	};

	note_our_handler();
	return run_unit_tests(tests);
}
