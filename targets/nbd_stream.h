/* The byte stream of an NBD connection: a socket, after STARTTLS with TLS over it.
 *
 * Waiting is done in the ring: a receive or a send is submitted and the fiber parks until the kernel has done it, so a
 * turn of the loop costs one system call however many connections moved data. What ends a wait early is
 * nbd_stream_shut, never a cancellation: the kernel then completes the operation by itself.
 *
 * One fiber may receive while another sends; not two of either. Home loop. */
#ifndef TARGETS_NBD_STREAM_H
#define TARGETS_NBD_STREAM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

/* iovecs of one send. */
#define NBD_SEND_IOV_MAX 1024u

struct nbd_tls;

struct nbd_stream {
	int sock;
	struct nbd_tls *tls; /* NULL: plain */
};

/* 1 .. len_bytes; 0: the other side closed; -errno. Waits. */
int nbd_stream_recv(struct nbd_stream *stream, void *buf, size_t len_bytes);
/* Sends all of it; the iovecs (at most NBD_SEND_IOV_MAX) are used up on the way. 0 or -errno. Waits. */
int nbd_stream_send(struct nbd_stream *stream, struct iovec *iov, uint32_t count);
/* Nothing is received any more, and, unless `reading_only`, nothing sent; what waits ends. Does not wait. */
void nbd_stream_shut(struct nbd_stream *stream, bool reading_only);

/* The socket below TLS: as above. */
int nbd_socket_recv(int sock, void *buf, size_t len_bytes);
int nbd_socket_send(int sock, struct iovec *iov, uint32_t count);

#endif
