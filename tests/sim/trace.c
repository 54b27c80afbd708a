/* Hash, trail and verdict of a run. See trace.h.
 *
 * The trail is a ring of binary records, formatted only when somebody wants to read them: recording costs a few stores. */
#include "tests/sim/trace.h"

#include <stdarg.h>
#include <stdio.h>

#define TRAIL_RECORDS 8192
#define TRAIL_PRINTED 400

struct trail_record {
	uint64_t now_ns, arg[4];
	enum trace_kind kind;
};

static struct {
	bool verbose, failed;
	uint64_t seed, hash, now_ns;
	uint64_t count; /* records ever */
	struct trail_record ring[TRAIL_RECORDS];
	char failure[1024];
} run;

static const char *const formats[] = {
#define X(name, format) [TRACE_##name] = format,
	TRACE_KINDS(X)
#undef X
};

void trace_start(uint64_t seed, bool verbose)
{
	run.verbose = verbose;
	run.failed = false;
	run.failure[0] = 0;
	run.seed = seed;
	run.hash = seed ^ 0x243f6a8885a308d3ull;
	run.now_ns = 0;
	run.count = 0;
}

void trace_time(uint64_t now_ns)
{
	run.now_ns = now_ns;
}

void trace_hash(uint64_t value)
{
	unsigned __int128 product = (unsigned __int128)(run.hash ^ value) * 0x9e3779b97f4a7c15ull;

	run.hash = (uint64_t)product ^ (uint64_t)(product >> 64) ^ value;
}

static void print_record(const struct trail_record *r)
{
	printf("  %12.3f us  ", (double)r->now_ns / 1000);
/* The formats are ours, see TRACE_KINDS. */
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral"
	printf(formats[r->kind], (unsigned long long)r->arg[0], (unsigned long long)r->arg[1],
	       (unsigned long long)r->arg[2], (unsigned long long)r->arg[3]);
#pragma GCC diagnostic pop
	putchar('\n');
}

void trace(enum trace_kind kind, uint64_t a, uint64_t b, uint64_t c, uint64_t d)
{
	struct trail_record *r = &run.ring[run.count++ % TRAIL_RECORDS];

	*r = (struct trail_record){ .now_ns = run.now_ns, .arg = { a, b, c, d }, .kind = kind };
	trace_hash(run.now_ns << 8 | kind);
	trace_hash(a);
	trace_hash(b);
	trace_hash(c);
	trace_hash(d);
	if (run.verbose)
		print_record(r);
}

uint64_t trace_result(void)
{
	return run.hash;
}

void trace_print_trail(void)
{
	uint64_t first = run.count > TRAIL_PRINTED ? run.count - TRAIL_PRINTED : 0;

	if (run.verbose)
		return;
	if (first > 0)
		printf("  ... %llu earlier events (--verbose prints them all)\n", (unsigned long long)first);
	for (uint64_t i = first; i < run.count; i++)
		print_record(&run.ring[i % TRAIL_RECORDS]);
}

void sim_fail(const char *format, ...)
{
	va_list args;

	if (run.failed)
		return;
	run.failed = true;
	va_start(args, format);
	vsnprintf(run.failure, sizeof(run.failure), format, args);
	va_end(args);
	if (run.verbose)
		printf("  ==== failure: %s\n", run.failure);
}

bool sim_failed(void)
{
	return run.failed;
}

const char *sim_failure(void)
{
	return run.failure;
}
