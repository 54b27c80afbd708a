/* vhost-bench: measures and verifies a vhost-user-blk server from one thread that polls.
 *
 * Three jobs: a load (bench_load.c) with a report; the same under a server that is killed and restarted (--reconnect);
 * and --first-io, the time from start until one read and one write were answered. */
#include <errno.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>

#include "tests/client/bench.h"
#include "tests/client/server_proc.h"

#define REGION_SPARE_BYTES (4u << 20)
#define RING_SLOT_BYTES 4352u

static void pin_to(int cpu)
{
	cpu_set_t set;
	CPU_ZERO(&set);
	CPU_SET((unsigned)cpu, &set);
	if (sched_setaffinity(0, sizeof(set), &set) < 0)
		perror("vhost-bench: cannot pin");
}

static struct vc *create_client(const struct bench_options *options)
{
	struct vc_options client;
	vc_options_init(&client, options->socket);
	client.queues = options->queues;
	client.ring_size = options->ring_size;
	client.direct = options->direct;
	client.connect_wait_ms = (int)(options->connect_s * 1000);
	client.reply_wait_ms = 30000;
	uint64_t buffer_bytes = (options->bs_bytes + 4095ull) & ~4095ull;
	client.region_bytes = options->queues * (options->depth * buffer_bytes + options->ring_size * RING_SLOT_BYTES) +
			      REGION_SPARE_BYTES;
	client.region_bytes = (client.region_bytes + 4095) & ~4095ull;
	return vc_create(&client);
}

static int complain(struct vc *vc, int rc, const char *what)
{
	fprintf(stderr, "vhost-bench: %s: %s (%s)\n", what, vc->error, strerror(-rc));
	return 1;
}

/* ---- first I/O ---- */

static double ms_since(uint64_t start_ns)
{
	return (double)(vu_now_ns() - start_ns) / 1e6;
}

static int connect_and_start(struct vc *vc)
{
	int rc;
	do {
		rc = vc_connect(vc);
		if (rc == 0)
			rc = vc_start(vc);
		if (rc < 0)
			vc_disconnect(vc);
	} while (rc == -EPIPE);
	return rc;
}

static int first_io(struct vc *vc, const struct bench_options *options, uint64_t start_ns)
{
	int rc = connect_and_start(vc);
	if (rc < 0)
		return complain(vc, rc, "cannot connect");
	double connect_ms = ms_since(start_ns);
	uint64_t gpa = vc_alloc(vc, options->bs_bytes);
	rc = vc_io(vc, 0, VIRTIO_BLK_T_IN, 0, gpa, options->bs_bytes);
	double read_ms = ms_since(start_ns);
	if (rc == 0 && !(vc->features & VC_BIT(VIRTIO_BLK_F_RO)))
		rc = vc_io(vc, 0, VIRTIO_BLK_T_OUT, 0, gpa, options->bs_bytes);
	if (rc != 0) {
		fprintf(stderr, "vhost-bench: the first I/O failed: %d\n", rc);
		return 1;
	}
	printf(options->json ? "{\"connected_ms\": %.3f, \"read_ms\": %.3f, \"first_io_ms\": %.3f}\n"
			     : "connected_ms %.3f read_ms %.3f first_io_ms %.3f\n",
	       connect_ms, read_ms, ms_since(start_ns));
	return 0;
}

/* ---- report ---- */

struct report {
	double seconds;
	uint64_t requests;
	double iops;
	double mb_per_s;
	double cpu_us_per_request;
	double cpu_share;
	struct histogram all;
};

static void merge(struct histogram *into, const struct histogram *from)
{
	into->count += from->count;
	if (from->max_ns > into->max_ns)
		into->max_ns = from->max_ns;
	for (unsigned i = 0; i < HISTOGRAM_BUCKETS; i++)
		into->bucket[i] += from->bucket[i];
}

/* Must be called at the end of the load, while the server's CPU time is that of the load. */
static void measure(const struct load *load, struct report *report)
{
	uint64_t cpu_ns = server_cpu_ns(load->options->server_pid) - load->cpu_start_ns;
	memset(report, 0, sizeof(*report));
	merge(&report->all, &load->latency[IO_READ]);
	merge(&report->all, &load->latency[IO_WRITE]);
	report->requests = report->all.count;
	report->seconds = (double)(load->last_done_ns - load->start_ns) / 1e9;
	if (report->seconds <= 0 || report->requests == 0)
		return;
	report->iops = (double)report->requests / report->seconds;
	report->mb_per_s = report->iops * load->options->bs_bytes / 1e6;
	report->cpu_us_per_request = (double)cpu_ns / 1e3 / (double)report->requests;
	report->cpu_share = (double)cpu_ns / 1e9 / report->seconds;
}

static double percentile_us(const struct histogram *histogram, double share)
{
	return (double)histogram_percentile_ns(histogram, share) / 1e3;
}

static void print_text(const struct load *load, const struct report *report)
{
	const struct bench_options *options = load->options;
	printf("%s bs=%u depth=%u queues=%u: %llu requests in %.2f s\n", bench_rw_name(options->rw), options->bs_bytes,
	       options->depth, options->queues, (unsigned long long)report->requests, report->seconds);
	printf("  %.0f IOPS, %.1f MB/s\n", report->iops, report->mb_per_s);
	printf("  latency us: p50 %.2f, p99 %.2f, p99.9 %.2f, max %.2f\n", percentile_us(&report->all, 0.5),
	       percentile_us(&report->all, 0.99), percentile_us(&report->all, 0.999), (double)report->all.max_ns / 1e3);
	if (load->latency[IO_FLUSH].count > 0)
		printf("  %llu flushes us: p50 %.2f, p99 %.2f\n", (unsigned long long)load->latency[IO_FLUSH].count,
		       percentile_us(&load->latency[IO_FLUSH], 0.5), percentile_us(&load->latency[IO_FLUSH], 0.99));
	if (options->server_pid != 0)
		printf("  server CPU: %.2f us a request, %.0f %% of one core\n", report->cpu_us_per_request,
		       report->cpu_share * 100);
	if (options->reconnect)
		printf("  reconnects: %u, longest pause %.1f ms\n", load->reconnects, (double)load->pause_max_ns / 1e6);
	printf("  errors: %llu, wrong units: %llu\n", (unsigned long long)load->errors,
	       (unsigned long long)load->mismatches);
}

static void print_json(const struct load *load, const struct report *report)
{
	const struct bench_options *options = load->options;
	printf("{\"rw\": \"%s\", \"bs\": %u, \"depth\": %u, \"queues\": %u, \"requests\": %llu, \"seconds\": %.3f, "
	       "\"iops\": %.0f, \"mb_per_s\": %.1f, \"p50_us\": %.2f, \"p99_us\": %.2f, \"p999_us\": %.2f, "
	       "\"max_us\": %.2f, \"flushes\": %llu, \"flush_p50_us\": %.2f, \"server_cpu_us\": %.3f, "
	       "\"server_cpu_share\": %.3f, \"reconnects\": %u, \"pause_max_ms\": %.1f, \"errors\": %llu, "
	       "\"wrong\": %llu}\n",
	       bench_rw_name(options->rw), options->bs_bytes, options->depth, options->queues,
	       (unsigned long long)report->requests, report->seconds, report->iops, report->mb_per_s,
	       percentile_us(&report->all, 0.5), percentile_us(&report->all, 0.99), percentile_us(&report->all, 0.999),
	       (double)report->all.max_ns / 1e3, (unsigned long long)load->latency[IO_FLUSH].count,
	       percentile_us(&load->latency[IO_FLUSH], 0.5), report->cpu_us_per_request, report->cpu_share,
	       load->reconnects, (double)load->pause_max_ns / 1e6, (unsigned long long)load->errors,
	       (unsigned long long)load->mismatches);
}

/* ---- main ---- */

static int run_load(struct load *load)
{
	static struct report report;
	const struct bench_options *options = load->options;
	int rc = options->verify_only ? 0 : load_run(load);
	measure(load, &report);
	if (rc == 0 && options->verify)
		rc = load_verify_pass(load);
	if (rc == 0)
		rc = load_check_rings(load);
	(options->json ? print_json : print_text)(load, &report);
	if (rc < 0)
		return complain(load->vc, rc, "the run failed");
	return load->errors == 0 && load->mismatches == 0 ? 0 : 1;
}

static int bench(struct vc *vc, const struct bench_options *options)
{
	static struct load load;
	struct table table;
	int rc = connect_and_start(vc);
	if (rc < 0)
		return complain(vc, rc, "cannot connect");
	if (load_init(&load, options, vc) < 0)
		return 1;
	if (options->verify && table_open(&table, options, load.blocks) < 0)
		return 1;
	load.table = options->verify ? &table : NULL;
	int status = run_load(&load);
	if (options->verify)
		table_close(&table);
	load_release(&load);
	return status;
}

int main(int argc, char **argv)
{
	uint64_t start_ns = vu_now_ns();
	struct bench_options options;
	bench_options_parse(&options, argc, argv);
	if (options.pin >= 0)
		pin_to(options.pin);
	struct vc *vc = create_client(&options);
	if (vc == NULL) {
		fprintf(stderr, "vhost-bench: not enough memory\n");
		return 1;
	}
	int status = options.first_io ? first_io(vc, &options, start_ns) : bench(vc, &options);
	vc_destroy(vc);
	return status;
}
