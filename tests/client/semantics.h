/* Inside of vhost-semantics: its lists of tests and what they share.
 *
 * Every test opens its own session. Tests use the first megabytes of the disk and leave anything there. */
#ifndef TESTS_CLIENT_SEMANTICS_H
#define TESTS_CLIENT_SEMANTICS_H

#include "tests/client/tap.h"

extern const struct test semantics_proto_tests[];
extern const struct test semantics_ring_tests[];
extern const struct test semantics_block_tests[];
extern const struct test semantics_reconnect_tests[];

/* How long something that must not happen is given to happen. */
#define QUIET_MS 100
#define WAIT_MS 5000

/* True if ring `queue` completed nothing beyond `used_idx` for QUIET_MS. */
bool stays_quiet(const struct vc_ring *ring, uint16_t used_idx);
/* Reaps `count` completions that must all be OK; false with bed->why. */
bool reap_ok(struct bed *bed, struct vc *vc, unsigned queue, unsigned count);
/* Submits one read of 4 KiB into gpa, without kick. */
bool submit_read(struct bed *bed, struct vc *vc, unsigned queue, uint64_t sector, uint64_t gpa);

#endif
