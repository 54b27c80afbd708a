/* Inside of vhost-bench: its options, its table of versions and the load loop.
 *
 * Words: a block is one request's worth of the range (`bs_bytes`); a unit is the piece that describes itself when
 * verifying, min(bs, 4096) bytes. */
#ifndef TESTS_CLIENT_BENCH_H
#define TESTS_CLIENT_BENCH_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "tests/client/histogram.h"
#include "tests/client/vhost_client.h"

enum bench_rw { RW_READ, RW_WRITE, RW_RANDREAD, RW_RANDWRITE, RW_RANDRW };

struct bench_options {
	const char *socket;
	enum bench_rw rw;
	uint32_t bs_bytes;
	uint32_t seg_bytes;
	uint32_t depth;
	uint32_t queues;
	uint32_t ring_size;
	double seconds;
	double warmup_s;
	uint64_t count;
	uint64_t range_bytes;
	uint64_t flush_every;
	uint32_t seed;
	int32_t pin;        /* -1: not pinned */
	int32_t server_pid; /* 0: not known */
	const char *table_path;
	double connect_s;
	bool verify;
	bool fresh;
	bool verify_only;
	bool direct;
	bool json;
	bool first_io;
	bool yield;
	bool reconnect;
};

/* Fills in the options or prints usage and exits. */
void bench_options_parse(struct bench_options *options, int argc, char **argv);
const char *bench_rw_name(enum bench_rw rw);

/* ---- table of versions (bench_table.c) ---- */

struct table {
	uint32_t seed;
	uint32_t unit_bytes;
	uint32_t units_per_block;
	uint64_t blocks;
	bool fresh;       /* what was never written must read as zeroes */
	uint32_t *issued; /* of each unit: newest version handed to the server */
	uint32_t *done;   /* of each unit: newest version acknowledged */
	uint8_t *busy;    /* of each block: number of reads in flight, or BLOCK_WRITING */
	void *map;
	uint64_t map_bytes;
};
#define BLOCK_WRITING 0xff
#define BLOCK_READERS_MAX 0xfe

int table_open(struct table *table, const struct bench_options *options, uint64_t blocks);
void table_close(struct table *table);
/* Takes a block for a request, or says no because that would race with another one in flight. */
bool table_lock(struct table *table, uint64_t block, bool write);
void table_unlock(struct table *table, uint64_t block, bool write);
/* New versions into the buffer; to be called between lock and submission. */
void table_fill(struct table *table, uint64_t block, uint8_t *data);
void table_written(struct table *table, uint64_t block);
/* Number of units that do not hold what they must; describes them on stderr. */
unsigned table_check(const struct table *table, uint64_t block, const uint8_t *data);
bool table_was_written(const struct table *table, uint64_t block);

/* ---- load (bench_load.c) ---- */

enum io_kind { IO_READ, IO_WRITE, IO_FLUSH, IO_KINDS };

struct io {
	struct io *next_free;
	struct vc_seg *seg;
	unsigned segs;
	uint8_t *data;
	uint64_t block;
	uint64_t start_ns;
	enum io_kind kind;
};

struct load {
	const struct bench_options *options;
	struct vc *vc;
	struct table *table; /* NULL: not verifying */
	uint64_t blocks;
	bool verifying; /* the final pass: read what was written, in order */

	struct io *io[VC_QUEUES_MAX]; /* of each queue: `depth` of them */
	struct io *free_io[VC_QUEUES_MAX];
	unsigned in_flight;
	uint64_t next_block;
	uint64_t random;
	uint64_t writes_until_flush;

	uint64_t now_ns;
	uint64_t start_ns;
	uint64_t end_ns;  /* stop submitting */
	uint64_t warm_ns; /* forget what was measured before; 0: nothing to forget */
	uint64_t last_done_ns;
	uint64_t cpu_start_ns;
	uint64_t submitted;

	uint64_t errors;
	uint64_t mismatches;
	unsigned reconnects;
	uint64_t pause_max_ns;
	bool paused; /* reconnected, nothing completed since */
	struct histogram latency[IO_KINDS];
};

int load_init(struct load *load, const struct bench_options *options, struct vc *vc);
void load_release(struct load *load);
/* Runs until time or count is reached and nothing is in flight any more. 0 or -errno. */
int load_run(struct load *load);
/* After load_run: reads all that was written once more. */
int load_verify_pass(struct load *load);
/* After load_run: nothing may complete now, and the server must agree with us where each ring stands. */
int load_check_rings(struct load *load);

#endif
