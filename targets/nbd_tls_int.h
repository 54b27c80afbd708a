/* Between nbd_tls.c and nbd_tls_creds.c. */
#ifndef TARGETS_NBD_TLS_INT_H
#define TARGETS_NBD_TLS_INT_H

#include <gnutls/gnutls.h>

#include "targets/nbd_tls.h"

/* Gives a new session its credentials, priorities and demands. 0 or GnuTLS's error. */
int nbd_tls_creds_use(struct nbd_tls_creds *creds, gnutls_session_t session);

#endif
