/* Common ground of the unit tests: cmocka, speaking TAP.
 *
 *     int main(void)
 *     {
 *             const struct CMUnitTest tests[] = { cmocka_unit_test(does_this), cmocka_unit_test(does_that) };
 *
 *             return run_unit_tests(tests);
 *     }
 */
#ifndef TESTS_UNIT_UNIT_H
#define TESTS_UNIT_UNIT_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

/* `tests` is an array. The number of failures. */
#define run_unit_tests(tests) (cmocka_set_message_output(CM_OUTPUT_TAP), cmocka_run_group_tests(tests, NULL, NULL))

#endif
