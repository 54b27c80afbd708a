/* Inside of vhost-hostile: what its lists of cases share.
 *
 * A case may end its session as it likes: the frame closes it, then demands that the server lives, that a well-behaved
 * session can write and read back, that nothing of the session leaked, and that another volume did not notice. */
#ifndef TESTS_CLIENT_HOSTILE_H
#define TESTS_CLIENT_HOSTILE_H

#include "tests/client/tap.h"

extern const struct test hostile_wire_tests[];
extern const struct test hostile_fd_tests[];
extern const struct test hostile_memory_tests[];
extern const struct test hostile_queue_tests[];
extern const struct test hostile_chain_tests[];
extern const struct test hostile_request_tests[];
extern const struct test hostile_inflight_tests[];

/* How the server took one message. */
enum answer {
	ANSWER_DONE,    /* acknowledged with 0, or answered with a body */
	ANSWER_REFUSED, /* acknowledged with an error, or an empty body */
	ANSWER_CLOSED,
	ANSWER_NONE, /* nothing for ANSWER_WAIT_MS */
};
#define ANSWER_WAIT_MS 3000

const char *answer_name(enum answer answer);
/* Sends a message that wants an acknowledgement and looks what comes back. */
enum answer hostile_ask(struct vc *vc, uint32_t request, const void *payload, uint32_t size_bytes, const int *fd,
			unsigned fds);
/* Sends any bytes and waits for an answer or a close. */
enum answer hostile_ask_bytes(struct vc *vc, const void *bytes, size_t len_bytes, const int *fd, unsigned fds);
/* Whether the message was refused or the connection closed; else bed->why says what happened to `what`. */
bool hostile_is_refused(struct bed *bed, enum answer answer, const char *what);

/* What became of a chain put into a ring: bits, so that a case can allow several. */
enum fate {
	FATE_OK = 1,
	FATE_IOERR = 2,
	FATE_UNSUPP = 4,
	FATE_NO_STATUS = 8, /* completed, but no status byte was written */
	FATE_SILENT = 16,   /* never completed: the ring was given up */
	FATE_CLOSED = 32,
	FATE_BAD_STATUS = 64,
	FATE_HUNG = 128, /* GET_VRING_BASE was not answered */
};
#define FATE_REFUSED (FATE_IOERR | FATE_UNSUPP | FATE_SILENT | FATE_CLOSED | FATE_NO_STATUS)
#define FATE_ERROR (FATE_IOERR | FATE_UNSUPP)
#define FATE_ANY_SANE (FATE_OK | FATE_REFUSED)

/* A session with one ring and buffers of a data request, all of it open to be bent.
 * Guest memory: header, data (with canaries on both sides), status and an indirect table, each on pages of its own. */
#define RIG_DATA_BYTES 4096u
#define RIG_RING_SIZE 64
struct rig {
	struct bed *bed;
	struct vc *vc;
	struct vc_ring *ring;
	uint64_t header_gpa;
	uint64_t data_gpa;
	uint64_t status_gpa;
	uint64_t table_gpa;
	struct virtio_blk_outhdr *header;
	uint8_t *data;
	uint8_t *status;
	struct vring_desc *table;
	uint64_t capacity;
};
void rig_auto_close(struct rig *rig);
#define AUTO_RIG __attribute__((cleanup(rig_auto_close))) struct rig

bool rig_open(struct rig *rig, struct bed *bed);
bool rig_open_with(struct rig *rig, struct bed *bed, const struct vc_options *options);
/* Descriptors 0, 1, 2: a good read of the first RIG_DATA_BYTES of the disk. */
void rig_good_read(struct rig *rig);
void rig_good_write(struct rig *rig);
/* Makes the good request an indirect one: table[0..2], ring descriptor 0. */
void rig_make_indirect(struct rig *rig);
/* Puts a head into the avail ring and moves its index; no kick. */
void rig_offer(struct rig *rig, uint16_t head);
/* Kicks, waits, stops the ring: what became of the one request offered. Waits long if only a completion is allowed. */
enum fate rig_fate(struct rig *rig, unsigned allowed);
/* rig_fate, and a verdict: allowed or not, canaries whole or not. */
enum verdict rig_expect(struct rig *rig, unsigned allowed);

/* A verified write and read in a fresh session; false with bed->why. */
bool hostile_is_healthy(struct bed *bed);

#endif
