/* One ring of a vhost-user session: what messages set, when it starts and stops, how it is polled and kicked.
 *
 *     stopped   nothing of it is touched. Starts when it is kicked (or was running in an earlier session), has all it
 *               needs, and ring_env.may_start says so
 *     started   has a blk_queue. Looked at every turn while there is work, else parked until a kick or a completion.
 *               Takes requests while enabled and not draining
 *     broken    started, but takes no requests any more: its driver or its memory is bad
 *
 * Loop of the session. Functions marked "waits" want a fiber. */
#ifndef TARGETS_VHOST_RING_H
#define TARGETS_VHOST_RING_H

#include <stdbool.h>
#include <stdint.h>

#include "pool/runtime/reactor.h"
#include "targets/virtio_blk.h"

/* Empty looks until a ring is parked although its loop is busy with others. */
#define RING_PARK_POLLS 4096u
/* How often a ring is looked at whose front end gives no kick descriptor. */
#define RING_LOOK_NS 500000ull

struct vhost_ring;

/* What rings share; the session's. */
struct vhost_ring_env {
	struct loop *loop;
	struct blk_dev *dev;
	struct guestmem *mem;          /* current table */
	struct inflight *inflight;     /* or NULL */
	uint64_t features;             /* negotiated; 0 before SET_FEATURES */
	bool may_start;                /* features are set, nothing lingers, the session goes on */
	/* Required, all. Called from the loop or from within vhost_ring_*; they must not wait. */
	void (*started)(struct vhost_ring_env *env);
	void (*drained)(struct vhost_ring_env *env);   /* a ring that drains has nothing left */
	void (*broken)(struct vhost_ring_env *env, struct vhost_ring *ring, const char *why);
	void (*abandoned)(struct vhost_ring_env *env); /* a queue was let go and lingers ... */
	void (*gone)(void *arg);                       /* ... until this, perhaps at once */
	void *gone_arg;
};

struct vhost_ring {
	struct vhost_ring_env *env;
	uint32_t index;
	/* Set by messages. */
	uint16_t size;                 /* 0: not set */
	uint16_t base;
	struct virtq_addr addr;
	bool has_addr, enabled;
	bool has_kick;                 /* SET_VRING_KICK came; kick_fd -1: we are to poll */
	int kick_fd, call_fd, err_fd;  /* -1: none */
	/* State. */
	bool kicked;                   /* while stopped: to be started */
	bool owes_call;                /* the driver may wait for a call that got lost with an earlier session */
	bool draining, broken;
	bool polled, watched;
	uint32_t empty_polls;
	struct blk_queue *queue;       /* started */
	struct poller poller;
	struct fd_watch watch;
	struct timer timer;            /* polling without a kick descriptor */
};

void vhost_ring_init(struct vhost_ring *ring, struct vhost_ring_env *env, uint32_t index);

/* Messages. 0 or -errno; -EBUSY: not while started. Descriptors are taken over in any case. */
int vhost_ring_set_size(struct vhost_ring *ring, uint32_t size);
int vhost_ring_set_base(struct vhost_ring *ring, uint32_t base);
int vhost_ring_set_addr(struct vhost_ring *ring, const struct virtq_addr *addr);
int vhost_ring_set_kick(struct vhost_ring *ring, int fd);      /* waits */
int vhost_ring_set_call(struct vhost_ring *ring, int fd);
int vhost_ring_set_err(struct vhost_ring *ring, int fd);
void vhost_ring_enable(struct vhost_ring *ring, bool on);

static inline bool vhost_ring_is_started(const struct vhost_ring *ring) { return ring->queue; }
/* Starts the ring if all is there for it. */
void vhost_ring_try_start(struct vhost_ring *ring);

/* Stops taking requests; env->drained tells when none is left. */
void vhost_ring_drain(struct vhost_ring *ring);
/* From now on a drain does not wait for requests that wait for space: see blk_queue_leave. */
void vhost_ring_leave(struct vhost_ring *ring);
bool vhost_ring_is_drained(const struct vhost_ring *ring);
void vhost_ring_resume(struct vhost_ring *ring);
/* The table in env->mem is new. */
void vhost_ring_remap(struct vhost_ring *ring);
/* Lets go of the queue; base becomes the next available index, and the ring stays stopped until SET_VRING_KICK. `orderly`:
 * the front end still listens, and the ring is left with kicks asked for; else guest memory is not touched any more. */
void vhost_ring_abandon(struct vhost_ring *ring, bool orderly);
/* Gives up kick and call descriptors of a stopped ring. Waits. */
void vhost_ring_close(struct vhost_ring *ring);

#endif
