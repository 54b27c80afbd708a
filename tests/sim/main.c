/* simulator: runs the whole engine in a simulated world, from seeds.
 *
 *     simulator --seed N [--verbose] [--ops N]
 *     simulator --seeds A..B [--jobs J] [--stop] [--tap] [--ops N]
 *
 * --stop ends a range at its first failure.
 *
 * Ranges run in worker processes, so that a seed which crashes the simulator itself (a failed assertion of the engine, say)
 * is one failure among others: its worker is replaced and goes on behind it. Workers take seeds one by one from a shared
 * counter. One percent of the seeds run twice, and their trace hashes must agree. */
#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "tests/sim/sim_mem.h"
#include "tests/sim/trace.h"
#include "tests/sim/world.h"

#define JOBS_MAX 64
#define FAILURES_SHOWN_MAX 20
#define SEED_S_MAX 300 /* real time; whatever takes longer hangs, and its worker is killed */

struct options {
	uint64_t first, last;
	uint32_t ops, jobs;
	bool verbose, tap, one, stop;
};

/* Shared by all processes. */
struct shared {
	_Atomic uint64_t next;
	_Atomic uint32_t failures_shown;
	_Atomic bool differed; /* a seed had two hashes */
	struct worker {
		uint64_t seed; /* being run */
		struct counts counts;
		pid_t pid;
	} worker[JOBS_MAX];
};

static void usage(void)
{
	fprintf(stderr,
		"usage: simulator --seed N | --seeds A..B  [--jobs J] [--ops N] [--stop] [--verbose] [--tap]\n");
	exit(2);
}

/* ---- one seed ---- */

static void report_failure(const struct options *o, struct shared *sh, uint64_t seed, const char *what)
{
	if (o->stop)
		sh->next = o->last + 1;
	if (sh->failures_shown++ >= FAILURES_SHOWN_MAX)
		return;
	if (o->one && !o->verbose)
		trace_print_trail();
	printf("%sseed %llu failed: %s\n", o->tap ? "# " : "", (unsigned long long)seed, what);
	printf("%sreplay: build/simulator --seed %llu%s", o->tap ? "# " : "", (unsigned long long)seed,
	       o->ops ? "" : " --verbose\n");
	if (o->ops)
		printf(" --ops %u --verbose\n", o->ops);
	fflush(stdout);
}

static void run_twice(const struct options *o, struct shared *sh, struct worker *worker, uint64_t seed, uint64_t hash)
{
	struct counts ignored = { 0 };
	uint64_t again;

	worker->counts.twice++;
	run_seed(seed, o->ops, false, &ignored, &again);
	if (again == hash)
		return;
	sh->differed = true;
	worker->counts.failures++;
	report_failure(o, sh, seed, "two runs have different trace hashes");
}

static void run_one(const struct options *o, struct shared *sh, struct worker *worker, uint64_t seed)
{
	uint64_t hash;

	worker->seed = seed;
	if (!o->one)
		alarm(SEED_S_MAX);
	if (!run_seed(seed, o->ops, o->verbose, &worker->counts, &hash))
		report_failure(o, sh, seed, sim_failure());
	else if (seed % 100 == 0 || o->one)
		run_twice(o, sh, worker, seed, hash);
	if (o->one)
		printf("trace hash %016llx\n", (unsigned long long)hash);
}

static void work(const struct options *o, struct shared *sh, struct worker *worker)
{
	sim_mem_install();
	for (;;) {
		uint64_t seed = sh->next++;

		if (seed > o->last)
			return;
		run_one(o, sh, worker, seed);
	}
}

/* ---- processes ---- */

static void start_worker(const struct options *o, struct shared *sh, struct worker *worker)
{
	pid_t pid;

	fflush(stdout);
	pid = fork();
	if (pid < 0) {
		perror("fork");
		exit(1);
	}
	if (pid > 0) {
		worker->pid = pid; /* the parent's to write: the memory is shared */
		return;
	}
	work(o, sh, worker);
	fflush(stdout);
	_exit(0);
}

static struct worker *worker_of(struct shared *sh, uint32_t jobs, pid_t pid)
{
	for (uint32_t i = 0; i < jobs; i++) {
		if (sh->worker[i].pid == pid)
			return &sh->worker[i];
	}
	return NULL;
}

static void bury(const struct options *o, struct shared *sh, struct worker *worker, int status)
{
	char what[80];

	snprintf(what, sizeof(what), "the simulator itself died (signal %d, exit code %d)",
		 WIFSIGNALED(status) ? WTERMSIG(status) : 0, WIFEXITED(status) ? WEXITSTATUS(status) : 0);
	worker->counts.seeds++;
	worker->counts.failures++;
	report_failure(o, sh, worker->seed, what);
}

static void run_workers(const struct options *o, struct shared *sh)
{
	uint32_t running = o->jobs;

	for (uint32_t i = 0; i < o->jobs; i++)
		start_worker(o, sh, &sh->worker[i]);
	while (running > 0) {
		int status;
		pid_t pid = wait(&status);
		struct worker *worker = pid > 0 ? worker_of(sh, o->jobs, pid) : NULL;

		if (!worker)
			continue;
		if (status == 0) {
			running--;
			continue;
		}
		bury(o, sh, worker, status);
		start_worker(o, sh, worker);
	}
}

/* ---- all together ---- */

static void add_counts(struct counts *sum, const struct counts *counts)
{
#define X(name) sum->name += counts->name;
	SIM_COUNTS(X)
#undef X
}

static void print_counts(const struct counts *sum, double seconds)
{
#define X(name) printf(#name " %llu, ", (unsigned long long)sum->name);
	SIM_COUNTS(X)
#undef X
	printf("%.1f s\n", seconds);
}

static void print_tap(const struct counts *sum, const struct shared *sh)
{
	printf("1..2\n%s 1 - simulator: %llu seeds, %llu crash states\n",
	       sum->failures > sh->differed ? "not ok" : "ok", (unsigned long long)sum->seeds,
	       (unsigned long long)sum->states);
	printf("%s 2 - simulator: same seed, same trace (%llu seeds run twice)\n", sh->differed ? "not ok" : "ok",
	       (unsigned long long)sum->twice);
}

static double now_s(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

static void parse_seeds(struct options *o, const char *text)
{
	char *end;

	o->first = strtoull(text, &end, 0);
	if (strncmp(end, "..", 2) != 0)
		usage();
	o->last = strtoull(end + 2, &end, 0);
	if (*end || o->last < o->first)
		usage();
}

static void parse(struct options *o, int argc, char **argv)
{
	static const struct option longs[] = {
		{ "seed", 1, NULL, 's' }, { "seeds", 1, NULL, 'r' },   { "jobs", 1, NULL, 'j' },
		{ "ops", 1, NULL, 'o' },  { "verbose", 0, NULL, 'v' }, { "tap", 0, NULL, 't' },
		{ "stop", 0, NULL, 'x' }, { NULL, 0, NULL, 0 },
	};

	*o = (struct options){ .jobs = 1, .last = 0 };
	for (int c; (c = getopt_long(argc, argv, "", longs, NULL)) != -1;) {
		switch (c) {
		case 's':
			o->first = o->last = strtoull(optarg, NULL, 0);
			o->one = true;
			break;
		case 'r': parse_seeds(o, optarg); break;
		case 'j': o->jobs = (uint32_t)strtoul(optarg, NULL, 0); break;
		case 'o': o->ops = (uint32_t)strtoul(optarg, NULL, 0); break;
		case 'v': o->verbose = true; break;
		case 't': o->tap = true; break;
		case 'x': o->stop = true; break;
		default: usage();
		}
	}
	if (optind < argc || (!o->one && o->last == 0) || o->jobs == 0 || o->jobs > JOBS_MAX)
		usage();
}

int main(int argc, char **argv)
{
	struct shared *sh = mmap(NULL, sizeof(*sh), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	struct counts sum = { 0 };
	double start_s = now_s();
	struct options o;

	parse(&o, argc, argv);
	if (sh == MAP_FAILED) {
		perror("mmap");
		return 1;
	}
	sh->next = o.first;
	if (o.one)
		work(&o, sh, &sh->worker[0]);
	else
		run_workers(&o, sh);
	for (uint32_t i = 0; i < o.jobs; i++)
		add_counts(&sum, &sh->worker[i].counts);
	if (o.tap)
		print_tap(&sum, sh);
	if (o.tap)
		printf("# ");
	print_counts(&sum, now_s() - start_s);
	return sum.failures > 0;
}
