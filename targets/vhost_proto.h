/* Sending and receiving single vhost-user messages; both a back end and a front end may use it. Bytes: vhost_format.h.
 *
 * The socket is non-blocking in effect: nothing here waits. The caller waits for the socket between steps. */
#ifndef TARGETS_VHOST_PROTO_H
#define TARGETS_VHOST_PROTO_H

#include <stdbool.h>
#include <stdint.h>

#include "targets/vhost_format.h"

/* Descriptors of one message. More than these never reach us: the kernel drops them, and the message is refused. */
#define VHOST_FDS_MAX VHOST_TABLE_REGIONS_MAX

/* A message, whole or arriving. Owner of the descriptors: whoever takes one out sets fd[i] to -1. */
struct vhost_msg {
	struct vhost_header header;
	union vhost_payload payload;   /* zeroes beyond the bytes received */
	int fd[VHOST_FDS_MAX];
	uint32_t fd_count;
	uint32_t got_bytes;            /* of header and payload */
};

void vhost_msg_init(struct vhost_msg *msg);
/* Closes the descriptors that nobody took. */
void vhost_msg_release(struct vhost_msg *msg);

/* Reads what there is. 1: the message is complete; 0: there is more to come; -EPIPE: the other side closed; -EMSGSIZE: no
 * message is that long; -EPROTO: too many descriptors, or a wrong version; another -errno. After an error the stream
 * is of no more use. */
int vhost_msg_recv(int sock, struct vhost_msg *msg);

/* Sends header and payload from byte *sent on; the descriptors (at most VHOST_FDS_MAX) go with the first. 1: all gone; 0:
 * the socket is full; -errno. */
int vhost_msg_send_fds(int sock, const struct vhost_msg *msg, const int *fd, uint32_t fd_count, uint32_t *sent);
/* The same with one descriptor, or none (-1). */
static inline int vhost_msg_send(int sock, const struct vhost_msg *msg, int fd, uint32_t *sent)
{
	return vhost_msg_send_fds(sock, msg, &fd, fd >= 0, sent);
}
/* Fills in a message to send; payload is set by the caller. */
void vhost_msg_set_header(struct vhost_msg *msg, uint32_t request, uint32_t flags, uint32_t size_bytes);

static inline uint32_t vhost_msg_request(const struct vhost_msg *msg) { return le32_get(msg->header.request); }
static inline uint32_t vhost_msg_size(const struct vhost_msg *msg) { return le32_get(msg->header.size); }

/* Whether a request from a front end is valid with these protocol features. 0; -EOPNOTSUPP: unknown, or not negotiated;
 * -EINVAL: wrong size, flags or number of descriptors. */
int vhost_msg_validate(const struct vhost_msg *msg, uint64_t protocol_features);

/* "SET_MEM_TABLE", or "unknown request". */
const char *vhost_request_name(uint32_t request);

#endif
