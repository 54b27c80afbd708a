/* Certificates and pre-shared keys: see nbd_tls.h. Files are read here, once, and never again. */
#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "pool/base/mem.h"
#include "targets/nbd_tls_int.h"

#define VERSIONS ":-VERS-ALL:+VERS-TLS1.3:+VERS-TLS1.2"
#define CERTS_PRIORITY "NORMAL" VERSIONS
/* No certificates at all, and keys that do not outlive the session where the client can. */
#define PSK_PRIORITY "NORMAL" VERSIONS ":-KX-ALL:+ECDHE-PSK:+DHE-PSK:+PSK"

#define PSK_FILE_BYTES_MAX (1u << 20)
#define PSK_KEY_BYTES_MIN 16

struct nbd_tls_creds {
	gnutls_priority_t priority;
	gnutls_certificate_credentials_t certs; /* NULL: keys */
	bool ask_client;                        /* it must show a certificate */
	gnutls_psk_server_credentials_t psk;
	char *psk_text; /* the file, its lines ended by 0 */
	size_t psk_bytes;
};

void nbd_tls_creds_free(struct nbd_tls_creds *creds)
{
	if (!creds)
		return;
	if (creds->certs)
		gnutls_certificate_free_credentials(creds->certs);
	if (creds->psk)
		gnutls_psk_free_server_credentials(creds->psk);
	if (creds->priority)
		gnutls_priority_deinit(creds->priority);
	if (creds->psk_text)
		explicit_bzero(creds->psk_text, creds->psk_bytes);
	mem_free(creds->psk_text);
	mem_free(creds);
}

static int tls_error(struct err *err, int res, const char *doing, const char *what)
{
	return err_set(err, -EINVAL, "cannot %s '%s': %s", doing, what, gnutls_strerror(res));
}

/* ---- certificates ---- */

static int load_pair(struct nbd_tls_creds *creds, const char *dir, struct err *err)
{
	char cert[PATH_MAX], key[PATH_MAX];
	int res;

	snprintf(cert, sizeof(cert), "%s/server-cert.pem", dir);
	snprintf(key, sizeof(key), "%s/server-key.pem", dir);
	if (access(cert, R_OK) || access(key, R_OK))
		return err_set(err, -errno, "cannot read '%s/server-cert.pem' and 'server-key.pem': %s", dir,
			       strerror(errno));
	res = gnutls_certificate_set_x509_key_file(creds->certs, cert, key, GNUTLS_X509_FMT_PEM);
	return res < 0 ? tls_error(err, res, "use the certificate and key in", dir) : 0;
}

/* The certificate of those who sign our clients', if there is one; and what they revoked. */
static int load_authority(struct nbd_tls_creds *creds, const char *dir, struct err *err)
{
	char ca[PATH_MAX], crl[PATH_MAX];
	int res;

	snprintf(ca, sizeof(ca), "%s/ca-cert.pem", dir);
	snprintf(crl, sizeof(crl), "%s/ca-crl.pem", dir);
	if (access(ca, F_OK))
		return errno == ENOENT ? 0 : err_set(err, -errno, "cannot read '%s': %s", ca, strerror(errno));
	res = gnutls_certificate_set_x509_trust_file(creds->certs, ca, GNUTLS_X509_FMT_PEM);
	if (res < 0)
		return tls_error(err, res, "use", ca);
	creds->ask_client = true;
	if (access(crl, F_OK))
		return errno == ENOENT ? 0 : err_set(err, -errno, "cannot read '%s': %s", crl, strerror(errno));
	res = gnutls_certificate_set_x509_crl_file(creds->certs, crl, GNUTLS_X509_FMT_PEM);
	return res < 0 ? tls_error(err, res, "use", crl) : 0;
}

static int load_certs(struct nbd_tls_creds *creds, const char *dir, struct err *err)
{
	int rc;

	if (gnutls_certificate_allocate_credentials(&creds->certs) < 0)
		return err_set(err, -ENOMEM, "no memory for certificates");
	rc = load_pair(creds, dir, err);
	if (rc == 0)
		rc = load_authority(creds, dir, err);
	if (rc == 0)
		gnutls_certificate_set_known_dh_params(creds->certs, GNUTLS_SEC_PARAM_MEDIUM);
	return rc;
}

/* ---- pre-shared keys ---- */

static bool is_hex_key(const char *text)
{
	size_t digits = strspn(text, "0123456789abcdefABCDEF");

	return text[digits] == '\0' && digits % 2 == 0 && digits >= 2 * PSK_KEY_BYTES_MIN;
}

/* The line of a user: "user\0hexkey". Lines were checked when the file was read. */
static const char *find_key(const struct nbd_tls_creds *creds, const char *user)
{
	const char *line = creds->psk_text, *end = creds->psk_text + creds->psk_bytes;

	while (line < end) {
		const char *key = line + strlen(line) + 1;

		if (strcmp(line, user) == 0)
			return key;
		line = key + strlen(key) + 1;
	}
	return NULL;
}

/* Helper thread, in a handshake. */
static int give_key(gnutls_session_t session, const char *user, gnutls_datum_t *key)
{
	const struct nbd_tls_creds *creds = gnutls_session_get_ptr(session);
	const char *hex_text = find_key(creds, user);
	gnutls_datum_t hex = { (unsigned char *)(uintptr_t)hex_text, hex_text ? (unsigned int)strlen(hex_text) : 0 };

	return hex_text && gnutls_hex_decode2(&hex, key) == 0 ? 0 : -1;
}

/* Makes "user\0key\0" of each line "user:key\n", packed; skips empty lines. */
static int cut_lines(struct nbd_tls_creds *creds, const char *path, struct err *err)
{
	char *rest = creds->psk_text, *to = creds->psk_text, *line;
	size_t packed_bytes;

	assert(to);
	for (int number = 1; (line = strsep(&rest, "\n")); number++) {
		char *colon = strchr(line, ':');
		size_t len = strlen(line);

		if (len == 0)
			continue;
		if (!colon || colon == line || !is_hex_key(colon + 1))
			return err_set(
				err, -EINVAL,
				"line %d of '%s' is not USER:HEXKEY with a key of %d bytes or more; psktool makes it",
				number, path, PSK_KEY_BYTES_MIN);
		*colon = '\0';
		memmove(to, line, len + 1);
		to += len + 1;
	}
	packed_bytes = (size_t)(to - creds->psk_text);
	explicit_bzero(to, creds->psk_bytes - packed_bytes);
	creds->psk_bytes = packed_bytes;
	if (packed_bytes == 0)
		return err_set(err, -EINVAL, "'%s' holds no key", path);
	return 0;
}

static int read_text(struct nbd_tls_creds *creds, int fd, const char *path, struct err *err)
{
	struct stat st;
	ssize_t len;

	if (fstat(fd, &st) != 0)
		return err_set(err, -errno, "cannot read '%s': %s", path, strerror(errno));
	if (!S_ISREG(st.st_mode) || st.st_size > PSK_FILE_BYTES_MAX)
		return err_set(err, -EINVAL, "'%s' is not a file of keys", path);
	creds->psk_text = mem_zalloc((size_t)st.st_size + 1);
	if (!creds->psk_text)
		return err_set(err, -ENOMEM, "no memory for '%s'", path);
	len = read(fd, creds->psk_text, (size_t)st.st_size);
	if (len != st.st_size || strlen(creds->psk_text) != (size_t)len)
		return err_set(err, -EINVAL, "cannot read all of '%s' as text", path);
	creds->psk_bytes = (size_t)len;
	return 0;
}

static int load_psk(struct nbd_tls_creds *creds, const char *path, struct err *err)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	int rc;

	if (fd < 0)
		return err_set(err, -errno, "cannot open '%s': %s", path, strerror(errno));
	rc = read_text(creds, fd, path, err);
	close(fd);
	if (rc == 0)
		rc = cut_lines(creds, path, err);
	if (rc)
		return rc;
	if (gnutls_psk_allocate_server_credentials(&creds->psk) < 0)
		return err_set(err, -ENOMEM, "no memory for keys");
	gnutls_psk_set_server_credentials_function(creds->psk, give_key);
	gnutls_psk_set_server_known_dh_params(creds->psk, GNUTLS_SEC_PARAM_MEDIUM);
	return 0;
}

/* ---- both ---- */

int nbd_tls_creds_load(const char *certs_dir, const char *psk_file, struct nbd_tls_creds **out, struct err *err)
{
	struct nbd_tls_creds *creds = mem_zalloc(sizeof(*creds));
	int rc;

	if (!creds)
		return err_set(err, -ENOMEM, "no memory for TLS");
	rc = certs_dir ? load_certs(creds, certs_dir, err) : load_psk(creds, psk_file, err);
	if (rc == 0) {
		int res = gnutls_priority_init(&creds->priority, certs_dir ? CERTS_PRIORITY : PSK_PRIORITY, NULL);

		if (res < 0)
			rc = tls_error(err, res, "set up", "TLS");
	}
	if (rc) {
		nbd_tls_creds_free(creds);
		return rc;
	}
	*out = creds;
	return 0;
}

int nbd_tls_creds_use(struct nbd_tls_creds *creds, gnutls_session_t session)
{
	int res = gnutls_priority_set(session, creds->priority);

	if (res < 0)
		return res;
	gnutls_session_set_ptr(session, creds);
	if (creds->psk)
		return gnutls_credentials_set(session, GNUTLS_CRD_PSK, creds->psk);
	if (creds->ask_client) {
		gnutls_certificate_server_set_request(session, GNUTLS_CERT_REQUIRE);
		gnutls_session_set_verify_cert(session, NULL, 0);
	}
	return gnutls_credentials_set(session, GNUTLS_CRD_CERTIFICATE, creds->certs);
}
