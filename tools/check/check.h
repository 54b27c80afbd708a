/* Offline check of a pool: everything that its disks say of each other must agree.
 *
 * A reader of its own: it takes bytes from the disks, read-only, and knows the formats from their byte tables
 * (pool/label_format.h, pool/catalog_format.h, pool/segment_format.h, volumes/batch_format.h, volumes/map_format.h), but
 * shares no code with those who write them: a mistake would have to be made twice. The simulator proves its disks with it.
 *
 *     each disk has a label; together they have a whole catalog
 *     segments lie within their disks, none in another's zones; each batch header is of its place
 *     every pointer of every map leads into a segment of its lineage; nodes have their checksums, their keys are in order
 *     each block is referred to as often as the reference counts say
 *     each segment has as many blocks in use as the liveness table says, each image as many as its record says
 *     with `data`: each block that is referred to has its checksum
 *
 * What is in the log behind the last checkpoint is not looked at: recovery decides about it. Memory: about 5 bytes for each
 * block of the log. Any thread; all of it waits for reads. */
#ifndef TOOLS_CHECK_CHECK_H
#define TOOLS_CHECK_CHECK_H

#include <stdbool.h>
#include <stdint.h>

#define CHECK_DISKS_MAX 256u

struct check_disk {
	const char *name;
	uint64_t size_bytes;
	/* 0 or -errno. Whole blocks of 4 KiB. */
	int (*read)(void *arg, uint64_t off_bytes, void *buf, uint32_t len_bytes);
	void *arg;
};

/* What was looked at. X(name, what) */
#define CHECK_COUNTS(X)                               \
	X(lineages, "logs")                           \
	X(volumes, "volumes")                         \
	X(snapshots, "snapshots")                     \
	X(segments, "segments")                       \
	X(batches, "batch headers")                   \
	X(nodes, "map nodes")                         \
	X(blocks, "blocks that are referred to")      \
	X(verified, "blocks whose data was verified") \
	X(problems, "problems")

struct check_counts {
#define X(name, what) uint64_t name;
	CHECK_COUNTS(X)
#undef X
};

struct check_opts {
	bool headers; /* look at batch headers */
	bool partial; /* disks may be missing, as long as everything can be read without them */
	bool data;    /* verify data */
	/* Required. `where`: "disk /dev/sdb", "lineage 7, segment 3, block 12". */
	void (*problem)(void *arg, const char *where, const char *what);
	void *arg;
};

/* 0: all was looked at, counts->problems tells; -ENOMEM; -EUCLEAN: there is no pool, or its catalog cannot be read (which was
 * told as a problem). */
int check_pool(const struct check_disk *disks, uint32_t count, const struct check_opts *opts,
	       struct check_counts *counts) __attribute__((warn_unused_result));

#endif
