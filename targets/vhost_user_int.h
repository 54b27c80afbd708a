/* Inside of the vhost-user back end: the session, as vhost_user.c (its life) and vhost_requests.c (what messages do) share
 * it. */
#ifndef TARGETS_VHOST_USER_INT_H
#define TARGETS_VHOST_USER_INT_H

#include "pool/runtime/reactor.h"
#include "targets/vhost_proto.h"
#include "targets/vhost_ring.h"
#include "targets/vhost_user.h"

struct vhost_session {
	struct vhost_user *vu;
	struct vhost_ring_env env;     /* env.mem: the table that all started rings use */
	int sock;
	int backend_fd;                /* our requests go here; -1: none */
	uint64_t protocol;             /* negotiated protocol features */
	uint64_t told_sectors;         /* the capacity the front end knows; 0: unknown */
	bool has_features;             /* SET_FEATURES came */
	uint64_t epoch_seen;           /* the volume's when the session began */
	bool claimed;                  /* it is, or was, the volume's writer */
	bool at_work;                  /* and not at rest */
	bool ending;
	struct fd_cancel cancel;       /* asked to leave */
	struct fiber *fiber;
	struct vhost_msg msg;          /* being handled */
	struct vhost_msg answer;
	int answer_fd;                 /* goes with the answer; ours to close; -1: none */
	uint32_t ring_count;
	struct vhost_ring ring[];
};

#define for_each_ring(ring, s) \
	for (struct vhost_ring *ring = (s)->ring; ring < (s)->ring + (s)->ring_count; ring++)

/* One line about the session for a person. */
void vhost_session_say(struct vhost_session *s, const char *format, ...) __attribute__((format(printf, 2, 3)));

bool vhost_session_any_started(struct vhost_session *s);
/* Starts all rings that were kicked and may start. */
void vhost_session_start_rings(struct vhost_session *s);
/* Waits until the rings that drain are drained. 0; -ETIMEDOUT after drain_ns_max; -EPIPE: the front end is gone. */
int vhost_session_wait_drained(struct vhost_session *s, uint64_t drain_ns_max);
/* Drains all started rings, and waits as above. */
int vhost_session_drain_all(struct vhost_session *s, uint64_t drain_ns_max);
void vhost_session_resume_all(struct vhost_session *s);
/* Sends CONFIG_CHANGE if the front end does not know the volume's size, and a ring runs. */
void vhost_session_tell_capacity(struct vhost_session *s);

/* --- vhost_claim.c --- */

/* A ring is about to start: the session becomes the volume's writer, or goes on as such. 0, or -errno and a line that says
 * why not. Waits. */
int vhost_session_claim(struct vhost_session *s);
/* The front end gave this region: what it says of a claim, or what we have claimed already. */
void vhost_session_recall_claim(struct vhost_session *s);
/* Tells the volume if no ring can run any more. */
void vhost_user_rest(struct vhost_user *vu);

/* Carries out s->msg, which is valid. 0, and s->answer is filled in if the request has an answer of its own; -errno:
 * refused, nothing has changed. Waits. */
int vhost_request_handle(struct vhost_session *s);

#endif
