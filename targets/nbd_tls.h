/* TLS for NBD connections, by GnuTLS: X.509 certificates or pre-shared keys, TLS 1.2 and later. */
#ifndef TARGETS_NBD_TLS_H
#define TARGETS_NBD_TLS_H

#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

#include "pool/base/err.h"

/* What a server shows and asks for. Never changes once loaded; shared by its connections. */
struct nbd_tls_creds;

/* Blocks, so a helper thread's. Give one of both, the other is NULL:
 * certs_dir: holds server-cert.pem and server-key.pem; with ca-cert.pem, clients must show a certificate signed by it, which
 *     ca-crl.pem, if there, has not revoked.
 * psk_file: lines "USER:HEXKEY", as psktool writes them. */
int nbd_tls_creds_load(const char *certs_dir, const char *psk_file, struct nbd_tls_creds **out, struct err *err);
/* NULL is allowed. No session is left. */
void nbd_tls_creds_free(struct nbd_tls_creds *creds);

/* One connection's session. As with nbd_stream: one fiber may receive while another sends. */
struct nbd_tls;

/* Shakes hands on a connected socket whose next bytes are TLS; the arithmetic is a helper thread's. 0 or -errno. Waits. */
int nbd_tls_start(struct nbd_tls_creds *creds, int sock, struct nbd_tls **out);
/* As nbd_stream_recv and nbd_stream_send. Waits. */
int nbd_tls_recv(struct nbd_tls *tls, void *buf, size_t len_bytes);
int nbd_tls_send(struct nbd_tls *tls, struct iovec *iov, uint32_t count);
/* Tells the other side that nothing more comes. Nobody is sending. Waits. */
void nbd_tls_bye(struct nbd_tls *tls);
/* NULL is allowed. */
void nbd_tls_free(struct nbd_tls *tls);

#endif
