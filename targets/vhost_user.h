/* The vhost-user back end of one socket: sessions with a front end, one at a time, over one block device.
 *
 * `struct vhost_user` lives as long as its export; a session as long as its connection. Requests that a lost session left
 * at the volume linger: they are awaited before any ring of the next session starts, so an old write never overtakes
 * a newer one, and they touch nothing of the guest's but their own buffers.
 *
 * All of it on the volume's home loop. Functions marked "waits" want a fiber. */
#ifndef TARGETS_VHOST_USER_H
#define TARGETS_VHOST_USER_H

#include <stdbool.h>
#include <stdint.h>

#include "pool/runtime/fiber.h"
#include "targets/virtio_blk.h"

/* How long GET_VRING_BASE and changes of memory wait for requests in flight. QEMU's main loop stands still meanwhile. */
#define VHOST_DRAIN_NS_MAX (20 * 1000000000ull)
/* How long a message may take from its first byte to its last, and an answer to leave. */
#define VHOST_MESSAGE_NS_MAX (10 * 1000000000ull)

struct vhost_session;

struct vhost_user {
	struct blk_dev dev;
	struct loop *loop;
	struct vhost_session *session; /* NULL: no front end */
	uint64_t sessions;             /* since the start */
	uint32_t lingering;            /* queues of lost sessions that still have requests at the volume */
	bool stopping;
	const char *address;           /* of the socket, for people */
	uint64_t drain_ns_max;         /* VHOST_DRAIN_NS_MAX, but in tests */
	struct waitq changed;          /* session ended, or nothing lingers any more */
	/* Required. One line about the export for a person; rare. */
	void (*log)(struct vhost_user *vu, const char *line);
};

/* Everything else of *vu must be zero; dev, address and log are set by the caller before the first session. */
void vhost_user_init(struct vhost_user *vu, struct loop *loop);
/* Serves one front end on an accepted socket until it leaves; closes the socket. vu->session is NULL before and after.
 * Waits. */
void vhost_user_serve(struct vhost_user *vu, int sock);
/* Ends the session in good order (its requests finish first, unless they wait for space), takes no other, and returns when
 * nothing lingers. Waits. */
void vhost_user_stop(struct vhost_user *vu);
/* The volume's size has changed. */
void vhost_user_resized(struct vhost_user *vu);
/* The front end has gone and the session is about to notice. */
bool vhost_user_is_hung_up(const struct vhost_user *vu);
uint32_t vhost_user_rings_started(const struct vhost_user *vu);

#endif
