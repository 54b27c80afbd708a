/* What a driver needs of disk.c, and the drivers' open functions. Only for drivers. */
#ifndef POOL_DISKS_DISK_INT_H
#define POOL_DISKS_DISK_INT_H

#include "pool/disks/disk.h"

/* Ends an I/O: counts a failure and calls io->done. On the submitting loop, never from within submit. */
void disk_done(struct disk_io *io, int res);

/* The same in the next turn of the loop, so it may be called from within submit. Takes io->task and io->priv[0]. */
void disk_done_later(struct disk_io *io, int res);

/* Open functions: `uri` is what the administrator gave, `rest` what follows "SCHEME:" in it. Fiber of a real loop; may
 * wait. 0 with *out, or -errno with err filled. disk_open sets (*out)->uri. */
int disk_file_open(
    const char *uri, const char *rest, const struct disk_open_opts *opts, struct disk **out, struct err *err);
int disk_ram_open(
    const char *uri, const char *rest, const struct disk_open_opts *opts, struct disk **out, struct err *err);
int disk_nbd_open(
    const char *uri, const char *rest, const struct disk_open_opts *opts, struct disk **out, struct err *err);
int disk_iscsi_open(
    const char *uri, const char *rest, const struct disk_open_opts *opts, struct disk **out, struct err *err);

#endif
