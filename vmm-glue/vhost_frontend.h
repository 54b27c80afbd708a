/* The front end of a vhost-user device: one session with a back end, and what must outlive it.
 *
 * A lost session loses nothing: the inflight region and the rings' places stay here, and the next session gets them. A
 * caller connects, waits until the socket can be read, negotiates, starts rings. Calls wait for the back end's answers,
 * at most VHOST_ANSWER_MS each; after any error the session is of no more use and is to be closed. VM's lock. */
#ifndef VMM_VHOST_FRONTEND_H
#define VMM_VHOST_FRONTEND_H

#include <stdbool.h>
#include <stdint.h>

#include "targets/vhost_proto.h"
#include "vmm-glue/ram.h"

/* More than a back end takes to finish what is in flight. */
#define VHOST_ANSWER_MS 25000

struct vhost_queue {
	uint64_t desc_gpa, avail_gpa, used_gpa;
	uint16_t size;
	uint16_t base; /* where to start, and after vhost_stop where it stopped */
	int kick_fd, call_fd;
};

struct vhost {
	const char *path;
	const struct ram *ram;
	int sock;          /* -1: no session */
	int backend_sock;  /* what the back end tells by itself; -1: it cannot */
	uint64_t features; /* offered */
	uint64_t protocol; /* in use */
	uint32_t queues_max;
	int inflight_fd; /* -1: none yet */
	struct vhost_inflight inflight;
};

void vhost_init(struct vhost *v, const char *path, const struct ram *ram);
/* Ends the session; the inflight region stays. */
void vhost_disconnect(struct vhost *v);
/* Forgets the inflight region: the rings begin a new life. */
void vhost_forget(struct vhost *v);

/* Connects and asks the first question. 0 or -errno; never waits. */
int vhost_connect(struct vhost *v) __attribute__((warn_unused_result));
/* Once the socket can be read: learns what the back end can do. */
int vhost_negotiate(struct vhost *v, struct err *err) __attribute__((warn_unused_result));
int vhost_get_config(struct vhost *v, void *config, uint32_t len_bytes, struct err *err)
	__attribute__((warn_unused_result));
int vhost_set_config(struct vhost *v, uint32_t off_bytes, const void *data, uint32_t len_bytes, bool migration,
		     struct err *err) __attribute__((warn_unused_result));

/* Shares memory and starts the queues numbered 0 to count - 1, those of size 0 excepted. `features` are the driver's.
 * `lost`: the session before ended without vhost_stop; what it had not finished is carried out again.
 * -EFAULT: a ring is not in memory; -ESTALE: the back end says that another front end has written the disk since. */
int vhost_start(struct vhost *v, uint64_t features, struct vhost_queue *queue, uint32_t count, bool lost,
		struct err *err) __attribute__((warn_unused_result));
/* Returns when the back end touches the rings no more; queue[].base is where each goes on. */
int vhost_stop(struct vhost *v, struct vhost_queue *queue, uint32_t count, struct err *err)
	__attribute__((warn_unused_result));

/* Takes what the back end told by itself: true if the configuration has changed. */
bool vhost_config_changed(struct vhost *v);

#endif
