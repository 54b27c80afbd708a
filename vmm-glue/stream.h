/* Writing and reading sections: see stream_format.h. Blocking; any thread, one at a time. */
#ifndef VMM_STREAM_H
#define VMM_STREAM_H

#include <stdbool.h>
#include <stdint.h>

#include "pool/base/err.h"
#include "vmm-glue/stream_format.h"

struct stream {
	int fd;
	bool is_socket;
	uint32_t put_number, get_number;
	uint64_t put_bytes;
	int got_fd;       /* a descriptor that came with the last section, or -1 */
	uint8_t *payload; /* of the last section */
	uint32_t len_bytes;
};

/* A socket's peer may stand still for so long. */
#define STREAM_WAIT_S 30

/* Takes over fd. stream_close in any case. */
int stream_open(struct stream *stream, int fd, bool is_socket, struct err *err) __attribute__((warn_unused_result));
void stream_close(struct stream *stream);

/* A section whose payload is head, then body. pass_fd (-1: none) travels with it. */
int stream_put(struct stream *stream, enum stream_type type, const void *head, uint32_t head_bytes, const void *body,
	       uint32_t body_bytes, int pass_fd, struct err *err) __attribute__((warn_unused_result));
/* The next section: its type, or -errno: -EBADMSG if it is damaged or out of order, -EPROTONOSUPPORT if it wants a newer
 * reader, -EPIPE at the end. */
int stream_get(struct stream *stream, struct err *err) __attribute__((warn_unused_result));

#endif
