/* Shared by the files of nbd-hostile: what a bad client may do, and whether the server is still what it was. */
#ifndef TESTS_CLIENT_NBD_HOSTILE_H
#define TESTS_CLIENT_NBD_HOSTILE_H

#include "tests/client/nbd_client.h"
#include "tests/client/tap.h"

/* The bed's socket serves a volume in plain text, of 5 GiB or more where lengths near 2^32 are to be tested;
 * bed->other_socket, if given, one that wants TLS. */
extern const struct test nbd_handshake_tests[];
extern const struct test nbd_request_tests[];
extern const struct test nbd_flood_tests[];
extern const struct test nbd_tls_tests[];

/* A verified write and read on a fresh connection; false with bed->why. */
bool nbd_is_healthy(struct bed *bed);

#endif
