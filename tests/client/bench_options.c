/* Command line of vhost-bench. */
#include <getopt.h>
#include <stdio.h>
#include <string.h>

#include "tests/client/bench.h"

static const char usage[] =
	"usage: vhost-bench --socket PATH [options]\n"
	"\n"
	"Loads a vhost-user-blk server, polling its rings, and prints what it did.\n"
	"Writes over the contents of the disk, unless only reading.\n"
	"\n"
	"  --rw MODE           randread (default), randwrite, randrw, read, write\n"
	"  --bs BYTES          bytes of a request (4k)\n"
	"  --seg BYTES         bytes of one buffer piece of a request (as --bs)\n"
	"  --depth N           requests in flight on each queue (1)\n"
	"  --queues N          queues (1)\n"
	"  --ring-size N       entries of each ring (256)\n"
	"  --direct            no indirect descriptor tables\n"
	"  --seconds S         run time (5, if there is no --count)\n"
	"  --warmup S          run so long before measuring (0)\n"
	"  --count N           requests to do\n"
	"  --range BYTES       use only the first BYTES of the disk (all)\n"
	"  --flush-every N     a flush after each N writes\n"
	"  --verify            check all data read, and in the end all data written\n"
	"  --fresh             with --verify: blocks never written must be zero\n"
	"  --table FILE        keep the table of versions in FILE, to verify again in a later run\n"
	"  --verify-only       with --table: only check what the table says\n"
	"  --reconnect         survive a killed and restarted server\n"
	"  --connect-timeout S wait for a server (10; --reconnect and --first-io: 60)\n"
	"  --first-io          connect, do one read and one write back, print the milliseconds since start\n"
	"  --seed N            of random block numbers and of data (1)\n"
	"  --pin CPU           run on this CPU\n"
	"  --yield             let others run on it while there is nothing to do\n"
	"  --server-pid PID    report the server's CPU time for each request\n"
	"  --json              one JSON object instead of text\n"
	"\n"
	"BYTES take k, m, g, t. Exit status: 0 all well, 1 errors or wrong data, 2 usage.\n";

static const char *const rw_names[] = {
	[RW_READ] = "read",           [RW_WRITE] = "write",   [RW_RANDREAD] = "randread",
	[RW_RANDWRITE] = "randwrite", [RW_RANDRW] = "randrw",
};

const char *bench_rw_name(enum bench_rw rw)
{
	return rw_names[rw];
}

__attribute__((noreturn)) static void bad_usage(const char *what, const char *value)
{
	fprintf(stderr, "vhost-bench: %s '%s'\n\n%s", what, value, usage);
	exit(2);
}

static enum bench_rw parse_rw(const char *name)
{
	for (unsigned i = 0; i < sizeof(rw_names) / sizeof(rw_names[0]); i++) {
		if (strcmp(name, rw_names[i]) == 0)
			return (enum bench_rw)i;
	}
	bad_usage("unknown mode", name);
}

static uint64_t parse_size(const char *text)
{
	static const char suffixes[] = "kmgt";
	char *end;
	uint64_t value = strtoull(text, &end, 0);
	if (end == text)
		bad_usage("not a number", text);
	if (*end == '\0')
		return value;
	const char *suffix = strchr(suffixes, *end | 0x20);
	if (suffix == NULL || end[1] != '\0')
		bad_usage("not a size", text);
	return value << (10 * (suffix - suffixes + 1));
}

static uint32_t parse_number(const char *text, uint32_t min, uint32_t max)
{
	uint64_t value = parse_size(text);
	if (value < min || value > max)
		bad_usage("number out of range", text);
	return (uint32_t)value;
}

static double parse_seconds(const char *text)
{
	char *end;
	double value = strtod(text, &end);
	if (end == text || *end != '\0' || value < 0)
		bad_usage("not a number of seconds", text);
	return value;
}

/* ---- the table of options ---- */

enum kind { KIND_FLAG, KIND_TEXT, KIND_RW, KIND_NUMBER, KIND_BYTES, KIND_SECONDS };

struct option_spec {
	const char *name;
	enum kind kind;
	size_t off_bytes; /* of the field in struct bench_options; its type goes with the kind */
	uint32_t min;
	uint32_t max;
};

#define FIELD(field) offsetof(struct bench_options, field)

static const struct option_spec specs[] = {
	{ "socket", KIND_TEXT, FIELD(socket), 0, 0 },
	{ "rw", KIND_RW, FIELD(rw), 0, 0 },
	{ "bs", KIND_NUMBER, FIELD(bs_bytes), 512, 64u << 20 },
	{ "seg", KIND_NUMBER, FIELD(seg_bytes), 1, 64u << 20 },
	{ "depth", KIND_NUMBER, FIELD(depth), 1, 1024 },
	{ "queues", KIND_NUMBER, FIELD(queues), 1, VC_QUEUES_MAX },
	{ "ring-size", KIND_NUMBER, FIELD(ring_size), 4, 32768 },
	{ "direct", KIND_FLAG, FIELD(direct), 0, 0 },
	{ "seconds", KIND_SECONDS, FIELD(seconds), 0, 0 },
	{ "warmup", KIND_SECONDS, FIELD(warmup_s), 0, 0 },
	{ "count", KIND_BYTES, FIELD(count), 0, 0 },
	{ "range", KIND_BYTES, FIELD(range_bytes), 0, 0 },
	{ "flush-every", KIND_BYTES, FIELD(flush_every), 0, 0 },
	{ "verify", KIND_FLAG, FIELD(verify), 0, 0 },
	{ "fresh", KIND_FLAG, FIELD(fresh), 0, 0 },
	{ "table", KIND_TEXT, FIELD(table_path), 0, 0 },
	{ "verify-only", KIND_FLAG, FIELD(verify_only), 0, 0 },
	{ "reconnect", KIND_FLAG, FIELD(reconnect), 0, 0 },
	{ "connect-timeout", KIND_SECONDS, FIELD(connect_s), 0, 0 },
	{ "first-io", KIND_FLAG, FIELD(first_io), 0, 0 },
	{ "yield", KIND_FLAG, FIELD(yield), 0, 0 },
	{ "seed", KIND_NUMBER, FIELD(seed), 0, UINT32_MAX },
	{ "pin", KIND_NUMBER, FIELD(pin), 0, 1023 },
	{ "server-pid", KIND_NUMBER, FIELD(server_pid), 1, 1u << 30 },
	{ "json", KIND_FLAG, FIELD(json), 0, 0 },
};
#define SPECS (sizeof(specs) / sizeof(specs[0]))

static void take_option(struct bench_options *options, const struct option_spec *spec, const char *value)
{
	char *field = (char *)options + spec->off_bytes;

	switch (spec->kind) {
	case KIND_FLAG: *(bool *)field = true; break;
	case KIND_TEXT: *(const char **)(void *)field = value; break;
	case KIND_RW: *(enum bench_rw *)(void *)field = parse_rw(value); break;
	case KIND_NUMBER: *(uint32_t *)(void *)field = parse_number(value, spec->min, spec->max); break;
	case KIND_BYTES: *(uint64_t *)(void *)field = parse_size(value); break;
	case KIND_SECONDS: *(double *)(void *)field = parse_seconds(value); break;
	}
}

/* For getopt_long: option number i answers SPEC_CODE + i. */
#define SPEC_CODE 256
#define HELP_CODE 255

static void make_long_options(struct option *option)
{
	for (unsigned i = 0; i < SPECS; i++)
		option[i] = (struct option){ .name = specs[i].name,
					     .has_arg = specs[i].kind == KIND_FLAG ? no_argument : required_argument,
					     .val = SPEC_CODE + (int)i };
	option[SPECS] = (struct option){ .name = "help", .val = HELP_CODE };
	option[SPECS + 1] = (struct option){ .name = NULL };
}

static void check_and_complete(struct bench_options *options)
{
	if (options->socket == NULL)
		bad_usage("missing", "--socket");
	if (options->bs_bytes % 512 != 0 || (options->bs_bytes > 4096 && options->bs_bytes % 4096 != 0))
		bad_usage("block size must be a multiple of", "512, above 4096 of 4096");
	if (options->seg_bytes == 0)
		options->seg_bytes = options->bs_bytes;
	if ((options->bs_bytes + options->seg_bytes - 1) / options->seg_bytes > VC_SEGS_MAX)
		bad_usage("too many buffer pieces a request:", "--seg");
	if (options->verify_only && options->table_path == NULL)
		bad_usage("--verify-only needs", "--table");
	if (options->verify_only || options->table_path != NULL || options->fresh)
		options->verify = true;
	if (options->seconds == 0 && options->count == 0)
		options->seconds = 5;
	if (options->connect_s == 0)
		options->connect_s = options->reconnect || options->first_io ? 60 : 10;
}

void bench_options_parse(struct bench_options *options, int argc, char **argv)
{
	struct option long_options[SPECS + 2];

	*options = (struct bench_options){ .rw = RW_RANDREAD,
					   .bs_bytes = 4096,
					   .depth = 1,
					   .queues = 1,
					   .ring_size = 256,
					   .seed = 1,
					   .pin = -1 };
	make_long_options(long_options);
	for (int code; (code = getopt_long(argc, argv, "", long_options, NULL)) != -1;) {
		if (code == HELP_CODE) {
			fputs(usage, stdout);
			exit(0);
		}
		if (code < SPEC_CODE)
			bad_usage("see above:", argv[optind - 1]);
		take_option(options, &specs[code - SPEC_CODE], optarg);
	}
	if (optind < argc)
		bad_usage("unexpected", argv[optind]);
	check_and_complete(options);
}
