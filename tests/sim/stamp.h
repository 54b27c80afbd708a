/* What the simulator writes: every 512-byte sector says which request wrote it, where, and in which family of
 * volumes: snapshots and clones hold what was written to their origins.
 *
 *     word 0       "stmp" << 32 | request
 *     word 1       family << 48 | sector
 *     word 2..63   an arithmetic sequence that follows from words 0 and 1
 *
 * So content alone tells what was applied, and a sector that is torn, moved or mixed is known as wrong. */
#ifndef TESTS_SIM_STAMP_H
#define TESTS_SIM_STAMP_H

#include <stdint.h>

#define STAMP_BYTES 512u

/* Special values in the place of a request's number. */
#define STAMP_ZERO 0u                /* all zeroes */
#define STAMP_UNREADABLE UINT32_MAX  /* could not be read */
#define STAMP_WRONG (UINT32_MAX - 1) /* anything else */

void stamp_fill(void *sector, uint32_t family, uint64_t at, uint32_t request);
/* The request whose stamp for this place it is, STAMP_ZERO or STAMP_WRONG. */
uint32_t stamp_read(const void *sector, uint32_t family, uint64_t at);
/* For messages: what a wrong sector holds; returns text. */
char *stamp_to_text(const void *sector, char *text, uint32_t text_bytes);

#endif
