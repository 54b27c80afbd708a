/* Unit tests of pool/base/err.c. */
#include <errno.h>
#include <string.h>

#include "pool/base/err.h"
#include "tests/unit/unit.h"

static void set_formats_and_returns_the_code(void **state)
{
	struct err err = { "" };

	assert_int_equal(err_set(&err, -ENOENT, "no volume '%s'", "web0"), -ENOENT);
	assert_string_equal(err.msg, "no volume 'web0'");
}

static void null_err_is_allowed(void **state)
{
	assert_int_equal(err_set(NULL, -EIO, "x"), -EIO);
	assert_int_equal(err_prefix(NULL, -EIO, "x"), -EIO);
}

static void prefix_puts_context_in_front(void **state)
{
	struct err err;

	err_set(&err, -EBUSY, "disk '%s' is in use", "a");
	assert_int_equal(err_prefix(&err, -EBUSY, "cannot import '%s'", "tank"), -EBUSY);
	assert_string_equal(err.msg, "cannot import 'tank': disk 'a' is in use");
}

static void arguments_may_be_the_old_message(void **state)
{
	struct err err;

	err_set(&err, -EIO, "inner");
	err_set(&err, -EIO, "<%s>", err.msg);
	assert_string_equal(err.msg, "<inner>");
}

static void long_message_ends_in_dots(void **state)
{
	char text[sizeof(((struct err *)0)->msg) + 1];
	struct err err;

	memset(text, 'x', sizeof(text) - 1);
	text[sizeof(text) - 1] = '\0';
	err_set(&err, -EIO, "%s", text);
	assert_int_equal(strlen(err.msg), sizeof(err.msg) - 1);
	assert_string_equal(err.msg + sizeof(err.msg) - 5, "x...");

	text[sizeof(text) - 2] = '\0';
	err_set(&err, -EIO, "%s", text);
	assert_string_equal(err.msg, text);
}

static void long_prefix_ends_in_dots(void **state)
{
	char text[sizeof(((struct err *)0)->msg)];
	struct err err;

	memset(text, 'y', sizeof(text) - 1);
	text[sizeof(text) - 1] = '\0';
	err_set(&err, -EIO, "%s", text);
	err_prefix(&err, -EIO, "context");
	assert_memory_equal(err.msg, "context: yyy", 12);
	assert_string_equal(err.msg + sizeof(err.msg) - 5, "y...");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(set_formats_and_returns_the_code), cmocka_unit_test(null_err_is_allowed),
		cmocka_unit_test(prefix_puts_context_in_front),     cmocka_unit_test(arguments_may_be_the_old_message),
		cmocka_unit_test(long_message_ends_in_dots),        cmocka_unit_test(long_prefix_ends_in_dots),
	};

	return run_unit_tests(tests);
}
