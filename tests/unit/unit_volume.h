/* Requests on volumes, for tests: submit and wait. */
#ifndef TESTS_UNIT_UNIT_VOLUME_H
#define TESTS_UNIT_UNIT_VOLUME_H

#include "volumes/volume.h"

/* buf is of len_bytes; NULL for what moves no data. Returns what the request completed with. Fiber of the home loop. */
int unit_volume_request(struct volume *volume, enum vio_op op, uint64_t off_bytes, uint64_t len_bytes, void *buf);

/* Opens, and makes the handle the writer; of a snapshot, opens only. Fiber of the pool's loop. */
int unit_volume_open(struct volumes *volumes, const char *name, struct volume **out, struct err *err);

#endif
