/* What every disk must do, whatever its driver: for the drivers' unit tests. All functions: on a fiber. */
#ifndef TESTS_UNIT_DISK_SUITE_H
#define TESTS_UNIT_DISK_SUITE_H

#include "pool/disks/disk.h"

#define SUITE_DISK_BYTES_MIN (8 << 20)

/* Runs the whole suite on a disk of at least SUITE_DISK_BYTES_MIN, whose content is lost. */
void disk_suite(struct disk *disk);

/* Submits an I/O as it is and waits for it. Fails the test if done is called within submit, twice, on another loop or on
 * a fiber. */
int suite_submit(struct disk *disk, struct disk_io *io);

/* The same for one piece of memory. */
int suite_io(struct disk *disk, enum disk_op op, uint64_t off_bytes, void *buf, uint64_t len_bytes);

/* Memory aligned to 4096 bytes, of which each 8 bytes tell seed and place. */
void *suite_pattern(uint64_t len_bytes, uint64_t seed);

#endif
