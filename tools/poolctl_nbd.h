/* A volume or snapshot as poolctl reads and writes it: by NBD, on an export that the daemon makes for this one command and ends
 * when we are gone, however that comes about. Failures are printed. */
#ifndef TOOLS_POOLCTL_NBD_H
#define TOOLS_POOLCTL_NBD_H

#include "tools/poolctl.h"

#define CLI_RANGES_MAX 1024u

struct nbd_handle;

struct cli_image {
	const char *name; /* the caller's, for messages */
	char address[256]; /* "unix:PATH"; "": not exported */
	struct nbd_handle *nbd;
	const char *since; /* its metadata context, in `context`; NULL: none */
	char context[128];
};

struct cli_image_opts {
	bool read_only, receiving;
	const char *since; /* own name of a snapshot; what has changed since then will be asked. NULL: what is allocated */
};

enum cli_exit cli_image_open(struct cli *cli, const char *name, const struct cli_image_opts *opts, struct cli_image *image);
/* Also one that is zero, or could not be opened. */
void cli_image_close(struct cli *cli, struct cli_image *image);
/* Where others reach it. */
const char *cli_image_socket(const struct cli_image *image);
uint64_t cli_image_bytes(const struct cli_image *image);

enum cli_exit cli_image_read(struct cli *cli, struct cli_image *image, void *buf, uint64_t off_bytes, uint32_t len_bytes);
enum cli_exit cli_image_write(struct cli *cli, struct cli_image *image, const void *buf, uint64_t off_bytes,
			      uint32_t len_bytes);
/* It reads as zeroes and holds no space. Any length. */
enum cli_exit cli_image_punch(struct cli *cli, struct cli_image *image, uint64_t off_bytes, uint64_t len_bytes);
enum cli_exit cli_image_flush(struct cli *cli, struct cli_image *image);

/* A part: whether it is allocated, and whether it has changed since the snapshot (true without one). */
struct cli_range {
	uint64_t len_bytes;
	bool allocated, changed;
};
/* Describes [off_bytes, off_bytes + len_bytes) from its start on by *count ranges, at least one; they may cover less. */
enum cli_exit cli_image_ranges(struct cli *cli, struct cli_image *image, uint64_t off_bytes, uint64_t len_bytes,
			       struct cli_range out[CLI_RANGES_MAX], uint32_t *count);

#endif
