/* A split virtqueue, device side: the one owner of ring indexes and barriers. Bytes: virtq_format.h.
 *
 * A virtq lives while its ring is started. It takes chains (first those that were in flight when a predecessor died,
 * then new ones), gives them back in batches, and decides about notifications in both directions. Everything the guest
 * writes is read once into private memory and checked before use. A fault of the driver makes virtq_pop return
 * -EPROTO, now and for ever; chains already taken can still be given back.
 *
 * One thread: the loop of the session. Nothing allocates after virtq_create. */
#ifndef TARGETS_VIRTQ_H
#define TARGETS_VIRTQ_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/uio.h>

#include "targets/guestmem.h"
#include "targets/inflight.h"
#include "targets/virtq_format.h"

/* Pieces of one chain's buffers; more than descriptors where they cross regions. */
#define VIRTQ_IOV_MAX 1024u

struct virtq;

struct virtq_addr {
	uint64_t desc_uva, avail_uva, used_uva;
};

/* What a ring start needs. Addresses are user addresses, as in messages. */
struct virtq_conf {
	struct guestmem *mem;
	struct virtq_addr addr;
	uint16_t size;                 /* see virtq_size_is_valid */
	uint16_t base;                 /* next available index, unless `inflight` knows better */
	bool event_idx, indirect;      /* negotiated */
	struct inflight *inflight;     /* NULL: not tracked */
	uint32_t index;                /* ring number in `inflight` */
};

/* A chain, in pieces of our memory: first what the device reads, then what it writes. There is always something to write
 * (in_bytes > 0): a device without an answer could not give the chain back honestly. Together below 4 GiB. */
struct virtq_chain {
	uint16_t head;
	uint32_t out_count, in_count;
	uint64_t out_bytes, in_bytes;
	struct iovec iov[VIRTQ_IOV_MAX];       /* out_count + in_count used */
};

/* A power of two in [1, VIRTQ_SIZE_MAX]. */
bool virtq_size_is_valid(uint32_t size);
/* 0, or -EINVAL (alignment), -EFAULT (not all within one region of mem). */
int virtq_addr_validate(struct guestmem *mem, const struct virtq_addr *addr, uint16_t size);

/* Takes references of mem and inflight. 0, -ENOMEM, or as virtq_addr_validate and inflight_ring_start. */
int virtq_create(const struct virtq_conf *conf, struct virtq **out) __attribute__((warn_unused_result));
/* Also with chains still taken: they stay in flight, for a successor. */
void virtq_destroy(struct virtq *q);

/* Takes the next chain: 1, *chain is valid until the next call; 0 none; -EPROTO the driver broke the rules. With
 * `resubmit_only`, new requests stay where they are. */
int virtq_pop(struct virtq *q, bool resubmit_only, const struct virtq_chain **chain);
/* Puts a chain into the current batch of used ones; len_bytes: written into its device-writable part. */
void virtq_push(struct virtq *q, uint16_t head, uint32_t len_bytes);
/* Publishes the batch. True: the driver wants to be told. */
bool virtq_publish(struct virtq *q);

/* Asks the driver for a notification of the next request. True: there is one already. */
bool virtq_notify_on(struct virtq *q);
/* Tells the driver that we look by ourselves. */
void virtq_notify_off(struct virtq *q);

/* The ring goes on in the memory of a new table (same user addresses). 0, or -EFAULT and nothing has changed. */
int virtq_remap(struct virtq *q, struct guestmem *mem);

/* Taken and not yet published, those a predecessor took included. */
uint32_t virtq_in_flight(const struct virtq *q);
/* Of these, the ones virtq_pop has still to deliver. */
uint32_t virtq_resubmits_left(const struct virtq *q);
uint16_t virtq_size(const struct virtq *q);
/* Index of the next available entry to take: what GET_VRING_BASE answers. */
uint16_t virtq_next_avail(const struct virtq *q);
/* What the driver did wrong, for a person; NULL while nothing. */
const char *virtq_fault(const struct virtq *q);
/* Nothing of this ring may be touched any more: memory under it is gone. */
bool virtq_is_lost(const struct virtq *q);

#endif
