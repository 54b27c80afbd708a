/* Memory for the data of NBD requests: page-aligned buffers of a few sizes, kept for use again, counted.
 *
 * One store serves all connections of an export, so what is free is what was used last and still in the cache. In
 * steady state a request allocates nothing. How much a connection may hold is the connection's business. Home loop. */
#ifndef TARGETS_NBD_BUFFERS_H
#define TARGETS_NBD_BUFFERS_H

#include <stddef.h>
#include <stdint.h>

#include "pool/base/list.h"

/* 4, 16, 64, 256 KiB, 1 MiB. */
#define NBD_BUFFER_CLASSES 5
#define NBD_BUFFER_BYTES_MAX (1u << 20)
/* Kept while nobody uses it. */
#define NBD_BUFFERS_IDLE_BYTES_MAX (32u << 20)

struct nbd_buffers {
	struct list idle[NBD_BUFFER_CLASSES]; /* last used first */
	uint64_t idle_bytes;
};

struct nbd_buffer {
	struct list node; /* on an idle list; the user's otherwise */
	uint8_t *data;    /* page-aligned */
	uint32_t size_bytes;
	uint32_t class;
	uint32_t refs; /* 1 when handed out */
};

void nbd_buffers_init(struct nbd_buffers *store);
/* Every buffer has been put back. */
void nbd_buffers_release(struct nbd_buffers *store);

/* What nbd_buffer_get will give for so many bytes (at most NBD_BUFFER_BYTES_MAX). */
uint32_t nbd_buffer_size_bytes(size_t len_bytes);
/* NULL: no memory. */
struct nbd_buffer *nbd_buffer_get(struct nbd_buffers *store, size_t len_bytes);
/* Drops one reference. */
void nbd_buffer_put(struct nbd_buffers *store, struct nbd_buffer *buffer);

#endif
