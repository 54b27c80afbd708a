/* A bare NBD client for tests: sends what it is told, right or wrong, and tells what came back. Nothing is checked that a
 * test might want to break. Every wait has an end. */
#ifndef TESTS_CLIENT_NBD_CLIENT_H
#define TESTS_CLIENT_NBD_CLIENT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "targets/nbd_format.h"

/* How long anything may take that is not meant to be slow; less than the 10 s that a handshake may take. */
#define NC_WAIT_MS 6000

/* What became of a wait. */
enum nc_got {
	NC_GOT,
	NC_CLOSED,
	NC_SILENT,
};

/* A connected socket, or -1. */
int nc_connect(const char *path);
/* Sends all; false: the other side closed, or takes nothing for NC_WAIT_MS. */
bool nc_send(int sock, const void *bytes, size_t len_bytes);
/* Receives exactly len_bytes. */
enum nc_got nc_recv(int sock, void *bytes, size_t len_bytes, int wait_ms);
/* Throws away what comes until the connection is closed. */
bool nc_is_closed(int sock, int wait_ms);

/* --- handshake ---------------------------------------------------------------------------------------------- */

/* Takes the greeting, sends the flags. */
bool nc_hello(int sock, uint32_t client_flags);
/* Sends an option whose header says `said_bytes` of data. */
bool nc_option_lying(int sock, uint32_t option, uint32_t said_bytes, const void *data, size_t len_bytes);
bool nc_option(int sock, uint32_t option, const void *data, size_t len_bytes);

struct nc_option_reply {
	uint32_t option, type;
	uint32_t len_bytes;
	uint8_t data[4200];
};
enum nc_got nc_option_reply(int sock, struct nc_option_reply *reply);
/* Takes replies until the last one; its type, or 0 if the connection closed or fell silent. */
uint32_t nc_final_reply(int sock);

/* Data of INFO and GO for a name, asking for nothing. Returns its length. */
size_t nc_info_data(uint8_t *data, const char *name);
/* Data of SET_META_CONTEXT for base:allocation. Returns its length. */
size_t nc_meta_data(uint8_t *data, const char *name);

/* A connection in transmission. */
struct nc {
	int sock;
	bool structured;
	uint64_t size_bytes;
	uint16_t flags;
};
/* Connects and negotiates; `structured` with base:allocation too. */
bool nc_open(struct nc *nc, const char *path, bool structured);
void nc_close(struct nc *nc);
#define AUTO_NC __attribute__((cleanup(nc_close))) struct nc

/* --- transmission ------------------------------------------------------------------------------------------- */

struct nbd_request nc_make(uint16_t type, uint16_t flags, uint64_t cookie, uint64_t off_bytes, uint32_t len_bytes);
bool nc_request(struct nc *nc, uint16_t type, uint16_t flags, uint64_t cookie, uint64_t off_bytes, uint32_t len_bytes);

/* One message of the server's. */
struct nc_answer {
	uint64_t cookie;
	uint32_t error;
	bool chunk, done;
	uint16_t type;       /* of the chunk */
	uint64_t off_bytes;  /* of a chunk's data */
	uint32_t data_bytes; /* of it, or of block status */
};
/* Takes a message; data up to room_bytes goes to `data`, more is thrown away. simple_bytes: what follows a simple reply
 * without error. */
enum nc_got nc_answer(struct nc *nc, struct nc_answer *answer, uint32_t simple_bytes, void *data, size_t room_bytes);
/* Asks and takes the whole answer: its error, or -1 if the connection closed or fell silent. Data of a READ is put together
 * in `data`; for a WRITE it is sent. */
int nc_ask(struct nc *nc, uint16_t type, uint16_t flags, uint64_t off_bytes, uint32_t len_bytes, void *data);

#endif
