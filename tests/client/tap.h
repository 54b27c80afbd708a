/* The frame of the TAP test programs: options, one line a test, and what every test may need of the server.
 *
 * A test is a function that returns a verdict; CHECK leaves it with a reason. Sessions are declared AUTO_VC so that an
 * early return closes them: the server takes one session a socket at a time. */
#ifndef TESTS_CLIENT_TAP_H
#define TESTS_CLIENT_TAP_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "tests/client/vhost_client.h"

struct bed {
	const char *socket;
	pid_t server_pid;         /* 0: not known, nothing is looked up in /proc */
	const char *other_socket; /* another volume of the same server, or NULL */
	const char *resize_cmd;   /* shell command that grows the volume, or NULL */
	const char *only;         /* run tests whose name has this in it, or NULL for all */
	uint64_t random;          /* state of the run's generator */
	unsigned rounds;          /* of the random storms */
	char why[400];
};

enum verdict { PASS, FAIL, SKIP };

struct test {
	const char *name;
	enum verdict (*run)(struct bed *bed, const void *arg);
	const void *arg;
};

/* Lists end with an entry without a name. `after`, if given, runs after each test and may turn PASS into FAIL;
 * it returns true if the server is gone and the run must stop. */
struct tap_plan {
	const char *program;
	const struct test *const *lists;
	enum verdict (*after)(struct bed *bed, bool *bail_out);
	bool (*before_all)(struct bed *bed);
	void (*after_all)(struct bed *bed);
};
/* Exit status: 0 all passed or skipped, 1 otherwise. */
int tap_main(const struct tap_plan *plan, int argc, char **argv);

enum verdict bed_fail(struct bed *bed, const char *format, ...) __attribute__((format(printf, 2, 3)));
enum verdict bed_skip(struct bed *bed, const char *format, ...) __attribute__((format(printf, 2, 3)));

#define CHECK(bed, condition, ...)                         \
	do {                                               \
		if (!(condition))                          \
			return bed_fail(bed, __VA_ARGS__); \
	} while (0)

/* Options for one session on the bed's socket. */
struct vc_options bed_options(const struct bed *bed);
/* A running session, or NULL with the reason in bed->why. */
struct vc *bed_open(struct bed *bed, const struct vc_options *options);
/* The same without vc_start. */
struct vc *bed_connect(struct bed *bed, const struct vc_options *options);

void vc_auto_destroy(struct vc **vc);
#define AUTO_VC __attribute__((cleanup(vc_auto_destroy))) struct vc *

void fd_auto_close(int *fd);
#define AUTO_FD __attribute__((cleanup(fd_auto_close))) int

#endif
