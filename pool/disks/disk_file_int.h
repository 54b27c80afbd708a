/* Between the two halves of the file driver: disk_file.c (I/O) and disk_file_open.c (open, create, lock, probe). */
#ifndef POOL_DISKS_DISK_FILE_INT_H
#define POOL_DISKS_DISK_FILE_INT_H

#include "pool/disks/disk.h"

/* An opened and locked file or block device, and what was found out about it. */
struct opened_file {
	int fd;
	bool is_block;	     /* a block device, not a regular file */
	bool direct;	     /* opened with O_DIRECT */
	uint64_t size_bytes; /* whole blocks */
	uint32_t block_bytes;
};

/* Blocks; any thread. 0 with *file (the caller closes fd, which also unlocks), or -errno with err filled and
 * nothing created. */
int opened_file_open(const char *path, const struct disk_open_opts *opts, struct opened_file *file, struct err *err);

#endif
