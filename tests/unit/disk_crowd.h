/* Many I/Os of a disk at once, for tests. One crowd at a time; fibers. */
#ifndef TESTS_UNIT_DISK_CROWD_H
#define TESTS_UNIT_DISK_CROWD_H

#include "pool/disks/disk.h"

#define CROWD 64

/* CROWD I/Os of 64 KiB, one behind the other from the disk's beginning on. */
void crowd_start(struct disk *disk, enum disk_op op, char *buf);
/* Waits for them. How many failed. */
uint32_t crowd_wait(void);

#endif
