/* Unit tests of pool/base/mem.c. */
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "pool/base/mem.h"
#include "tests/unit/unit.h"

static void zalloc_is_zero(void **state)
{
	static const char zeroes[3000];
	char *dirt = mem_alloc(sizeof(zeroes)), *mem;

	memset(dirt, 0xff, sizeof(zeroes));
	mem_free(dirt);
	mem = mem_zalloc(sizeof(zeroes));
	assert_memory_equal(mem, zeroes, sizeof(zeroes));
	mem_free(mem);
}

static void alignment_is_kept(void **state)
{
	for (size_t align = 1; align <= 1 << 21; align *= 2) {
		char *mem = mem_alloc_aligned(align, 100);

		assert_int_equal((uintptr_t)mem % align, 0);
		memset(mem, 1, 100);
		mem_free(mem);
	}
}

static void zero_bytes_are_an_allocation(void **state)
{
	void *mem = mem_alloc(0);

	assert_non_null(mem);
	mem_free(mem);
	mem_free(NULL);
}

static void strdup_copies(void **state)
{
	char *copy = mem_strdup("tank");

	assert_string_equal(copy, "tank");
	mem_free(copy);
}

static bool write_faults(volatile char *pos)
{
	pid_t pid = fork();
	int status;

	assert_true(pid >= 0);
	if (pid == 0) {
		signal(SIGSEGV, SIG_DFL);
		close(STDOUT_FILENO);
		close(STDERR_FILENO); /* a checker's report is expected */
		*pos = 1;
		_exit(0);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	return !WIFEXITED(status) || WEXITSTATUS(status) != 0;
}

static void guard_is_on_and_off(void **state)
{
	char *mem = mem_alloc_aligned(MEM_PAGE_BYTES, 3 * MEM_PAGE_BYTES);

	mem_guard(mem + MEM_PAGE_BYTES, MEM_PAGE_BYTES, true);
	assert_false(write_faults(mem + MEM_PAGE_BYTES - 1));
	assert_true(write_faults(mem + MEM_PAGE_BYTES));
	assert_true(write_faults(mem + 2 * MEM_PAGE_BYTES - 1));
	assert_false(write_faults(mem + 2 * MEM_PAGE_BYTES));
	mem_guard(mem + MEM_PAGE_BYTES, MEM_PAGE_BYTES, false);
	memset(mem, 1, 3 * MEM_PAGE_BYTES);
	mem_free(mem);
}

static int allocs, frees;

static void *count_alloc(size_t align_bytes, size_t size_bytes)
{
	allocs++;
	return allocs > 3 ? NULL : calloc(1, size_bytes);
}

static void count_free(void *ptr)
{
	frees++;
	free(ptr);
}

static void all_goes_through_replaced_ops(void **state)
{
	static const struct mem_ops ops = { .alloc = count_alloc, .free = count_free };
	char *a, *b, *c;

	mem_set_ops(&ops);
	a = mem_alloc(1);
	b = mem_zalloc(1);
	c = mem_strdup("c");
	mem_guard(NULL, MEM_PAGE_BYTES, true); /* no guard in these ops: nothing happens */
	assert_null(mem_alloc(1));
	assert_null(mem_zalloc(1));
	assert_null(mem_strdup("d"));
	mem_free(a);
	mem_free(b);
	mem_free(c);
	mem_set_ops(NULL);
	mem_free(mem_alloc(1));
	assert_int_equal(allocs, 6);
	assert_int_equal(frees, 3);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(zalloc_is_zero),
		cmocka_unit_test(alignment_is_kept),
		cmocka_unit_test(zero_bytes_are_an_allocation),
		cmocka_unit_test(strdup_copies),
		cmocka_unit_test(guard_is_on_and_off),
		cmocka_unit_test(all_goes_through_replaced_ops),
	};

	return run_unit_tests(tests);
}
