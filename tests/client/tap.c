/* TAP output and the options shared by vhost-hostile and vhost-semantics. */
#include "tests/client/tap.h"

#include <getopt.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

enum option_code {
	OPT_SOCKET = 256,
	OPT_SERVER_PID,
	OPT_OTHER_SOCKET,
	OPT_RESIZE_CMD,
	OPT_ONLY,
	OPT_SEED,
	OPT_ROUNDS,
	OPT_LIST,
};

static const struct option long_options[] = {
	{ "socket", required_argument, NULL, OPT_SOCKET },
	{ "server-pid", required_argument, NULL, OPT_SERVER_PID },
	{ "other-socket", required_argument, NULL, OPT_OTHER_SOCKET },
	{ "resize-cmd", required_argument, NULL, OPT_RESIZE_CMD },
	{ "only", required_argument, NULL, OPT_ONLY },
	{ "seed", required_argument, NULL, OPT_SEED },
	{ "rounds", required_argument, NULL, OPT_ROUNDS },
	{ "list", no_argument, NULL, OPT_LIST },
	{ NULL, 0, NULL, 0 },
};

static enum verdict give_verdict(struct bed *bed, enum verdict verdict, const char *format, va_list args)
{
	char why[sizeof(bed->why)]; /* the arguments may point into bed->why */
	vsnprintf(why, sizeof(why), format, args);
	memcpy(bed->why, why, sizeof(why));
	return verdict;
}

enum verdict bed_fail(struct bed *bed, const char *format, ...)
{
	va_list args;
	va_start(args, format);
	enum verdict verdict = give_verdict(bed, FAIL, format, args);
	va_end(args);
	return verdict;
}

enum verdict bed_skip(struct bed *bed, const char *format, ...)
{
	va_list args;
	va_start(args, format);
	enum verdict verdict = give_verdict(bed, SKIP, format, args);
	va_end(args);
	return verdict;
}

struct vc_options bed_options(const struct bed *bed)
{
	struct vc_options options;
	vc_options_init(&options, bed->socket);
	options.region_bytes = 8u << 20;
	return options;
}

static struct vc *connect_and_maybe_start(struct bed *bed, const struct vc_options *options, bool start)
{
	struct vc *vc = vc_create(options);
	if (vc == NULL) {
		bed_fail(bed, "no memory for a client");
		return NULL;
	}
	int rc = vc_connect(vc);
	if (rc == 0 && start)
		rc = vc_start(vc);
	if (rc == 0)
		return vc;
	bed_fail(bed, "no session: %s", vc->error);
	vc_destroy(vc);
	return NULL;
}

struct vc *bed_open(struct bed *bed, const struct vc_options *options)
{
	return connect_and_maybe_start(bed, options, true);
}

struct vc *bed_connect(struct bed *bed, const struct vc_options *options)
{
	return connect_and_maybe_start(bed, options, false);
}

void vc_auto_destroy(struct vc **vc)
{
	vc_destroy(*vc);
}

void fd_auto_close(int *fd)
{
	if (*fd >= 0)
		close(*fd);
}

/* ---- running ---- */

static bool is_wanted(const struct bed *bed, const struct test *test)
{
	return bed->only == NULL || strstr(test->name, bed->only) != NULL;
}

static unsigned count_tests(const struct bed *bed, const struct tap_plan *plan, bool print)
{
	unsigned count = 0;
	for (const struct test *const *list = plan->lists; *list != NULL; list++) {
		for (const struct test *test = *list; test->name != NULL; test++) {
			if (!is_wanted(bed, test))
				continue;
			count++;
			if (print)
				puts(test->name);
		}
	}
	return count;
}

static void print_result(const struct bed *bed, enum verdict verdict, unsigned number, const char *name)
{
	if (verdict == SKIP)
		printf("ok %u - %s # SKIP %s\n", number, name, bed->why);
	else
		printf("%s %u - %s\n", verdict == PASS ? "ok" : "not ok", number, name);
	if (verdict == FAIL)
		printf("# %s\n", bed->why);
	fflush(stdout);
}

/* Runs one test and what follows it; the reasons of both are kept. */
static enum verdict run_one(struct bed *bed, const struct tap_plan *plan, const struct test *test, bool *bail_out)
{
	char own_why[sizeof(bed->why)];
	bed->why[0] = '\0';
	enum verdict verdict = test->run(bed, test->arg);
	memcpy(own_why, bed->why, sizeof(own_why));
	if (plan->after == NULL || plan->after(bed, bail_out) != FAIL) {
		memcpy(bed->why, own_why, sizeof(own_why));
		return verdict;
	}
	if (verdict == FAIL)
		printf("# %s\n", own_why);
	return FAIL;
}

static int run_all(struct bed *bed, const struct tap_plan *plan)
{
	unsigned number = 0;
	unsigned failed = 0;
	for (const struct test *const *list = plan->lists; *list != NULL; list++) {
		for (const struct test *test = *list; test->name != NULL; test++) {
			bool bail_out = false;
			if (!is_wanted(bed, test))
				continue;
			enum verdict verdict = run_one(bed, plan, test, &bail_out);
			print_result(bed, verdict, ++number, test->name);
			failed += verdict == FAIL;
			if (bail_out) {
				printf("Bail out! %s\n", bed->why);
				return 1;
			}
		}
	}
	printf("# %u tests, %u failed\n", number, failed);
	return failed == 0 ? 0 : 1;
}

__attribute__((noreturn)) static void usage(const char *program)
{
	fprintf(stderr,
		"usage: %s --socket PATH [--server-pid PID] [--other-socket PATH] [--resize-cmd COMMAND]\n"
		"       [--only PART-OF-NAME] [--seed N] [--rounds N] [--list]\n"
		"TAP tests of a vhost-user-blk server. They write over the disk behind the socket.\n"
		"--server-pid lets tests look for crashes and leaks; --other-socket is a second export of the same\n"
		"server which must not suffer; --resize-cmd grows the disk behind the socket.\n",
		program);
	exit(2);
}

int tap_main(const struct tap_plan *plan, int argc, char **argv)
{
	struct bed bed = { .random = 1, .rounds = 200 };
	bool list = false;
	for (int code; (code = getopt_long(argc, argv, "", long_options, NULL)) != -1;) {
		switch (code) {
		case OPT_SOCKET: bed.socket = optarg; break;
		case OPT_SERVER_PID: bed.server_pid = (pid_t)atoi(optarg); break;
		case OPT_OTHER_SOCKET: bed.other_socket = optarg; break;
		case OPT_RESIZE_CMD: bed.resize_cmd = optarg; break;
		case OPT_ONLY: bed.only = optarg; break;
		case OPT_SEED: bed.random = strtoull(optarg, NULL, 0) | 1ull << 63; break;
		case OPT_ROUNDS: bed.rounds = (unsigned)atoi(optarg); break;
		case OPT_LIST: list = true; break;
		default: usage(plan->program);
		}
	}
	if (optind < argc || (bed.socket == NULL && !list))
		usage(plan->program);
	unsigned count = count_tests(&bed, plan, list);
	if (list)
		return 0;
	printf("1..%u\n", count);
	if (plan->before_all != NULL && !plan->before_all(&bed)) {
		printf("Bail out! %s\n", bed.why);
		return 1;
	}
	int status = run_all(&bed, plan);
	if (plan->after_all != NULL)
		plan->after_all(&bed);
	return status;
}
