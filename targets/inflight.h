/* Tracking of requests in flight in memory that survives us: see inflight_format.h for the bytes.
 *
 * A `struct inflight` is the region of one session, a `struct inflight_ring` the part that follows one running ring. The
 * region is shared with the front end: it is read only when a ring starts (copied, then checked) and only written
 * after that. Loop of the session. */
#ifndef TARGETS_INFLIGHT_H
#define TARGETS_INFLIGHT_H

#include <stdbool.h>
#include <stdint.h>

struct inflight;
struct inflight_queue;

/* Bytes of a region for so many rings of this size; a multiple of 4 KiB. */
uint64_t inflight_bytes(uint32_t queues, uint16_t ring_size);
/* A new region in a file of its own, which cannot shrink: the descriptor, or -errno. */
int inflight_create(uint32_t queues, uint16_t ring_size, bool writeback);
/* Maps a region that the front end gave. -EINVAL if it is too small for so many rings of this size, else as sharemem_map. */
int inflight_map(int fd, uint64_t off_bytes, uint64_t len_bytes, uint32_t queues, uint16_t ring_size,
		 struct inflight **out) __attribute__((warn_unused_result));
struct inflight *inflight_get(struct inflight *inf);
/* NULL is allowed. */
void inflight_put(struct inflight *inf);
bool inflight_is_broken(const struct inflight *inf);

/* The cache mode of the region's guest: 0 or 1; -ENOENT: the region does not tell. */
int inflight_writeback(const struct inflight *inf);
void inflight_set_writeback(struct inflight *inf, bool writeback);
/* The capacity the region's front end knows; 0: not known. */
uint64_t inflight_told(const struct inflight *inf);
void inflight_set_told(struct inflight *inf, uint64_t sectors);
/* As whom the region's front end writes a volume. False: the region does not tell, *claim is untouched. */
struct inflight_claim {
	uint64_t volume, epoch, nonce;
};
bool inflight_claim(const struct inflight *inf, struct inflight_claim *claim);
void inflight_set_claim(struct inflight *inf, const struct inflight_claim *claim);
/* A ring of this region has run before. */
bool inflight_has_history(const struct inflight *inf, uint32_t index);

/* One running ring. */
struct inflight_ring {
	struct inflight_queue *queue;  /* shared: written only */
	uint64_t counter;              /* of the next request */
	uint16_t size;
	uint16_t last_batch_head;
};

/* Begins (or continues, after a crash) to track ring `index` of `size` entries, whose used index is used_idx. Fills `heads`
 * (room for `size`) with the requests that were in flight, oldest first, and returns how many; next_avail is
 * then used_idx plus that many. 0 and *fresh: the ring has no history, or one of another life (its used index is
 * more than a ring away). -EBADMSG: the region's content is no valid history; -EINVAL: no such ring in it; -ENOMEM. */
int inflight_ring_start(struct inflight *inf, uint32_t index, uint16_t size, uint16_t used_idx,
			struct inflight_ring *ring, uint16_t *heads, bool *fresh) __attribute__((warn_unused_result));
/* A request was taken from the ring. */
void inflight_take(struct inflight_ring *ring, uint16_t head);
/* A request is about to be given back with the current batch; before the used index moves. */
void inflight_give(struct inflight_ring *ring, uint16_t head);
/* The used index has moved to used_idx, past these requests. */
void inflight_given(struct inflight_ring *ring, const uint16_t *heads, uint32_t count, uint16_t used_idx);

#endif
