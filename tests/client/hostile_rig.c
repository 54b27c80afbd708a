/* Helpers of the hostile cases: sending a message and classing the answer, offering a chain and classing its fate.
 *
 * How a fate is found: kick, poll the used index (and the error eventfd and the socket); then GET_VRING_BASE, which
 * must be answered in time and after which nothing may change any more; only then the used ring is judged. */
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "tests/client/hostile.h"

#define CANARY 0xc9
#define CANARY_BYTES 4096u
#define SILENCE_MS 100
#define COMPLETION_MS 5000

const char *answer_name(enum answer answer)
{
	static const char *const names[] = {
		[ANSWER_DONE] = "accepted",
		[ANSWER_REFUSED] = "refused",
		[ANSWER_CLOSED] = "connection closed",
		[ANSWER_NONE] = "no answer",
	};
	return names[answer];
}

static enum answer read_answer(struct vc *vc)
{
	struct vu_message reply;
	uint64_t result = 0;
	int rc = vu_receive(vc->sock, &reply, ANSWER_WAIT_MS);
	if (rc == -ETIMEDOUT)
		return ANSWER_NONE;
	if (rc < 0)
		return ANSWER_CLOSED;
	vu_close_fds(&reply);
	if (reply.header.size_bytes == 0)
		return ANSWER_REFUSED;
	if (reply.header.size_bytes != sizeof(result))
		return ANSWER_DONE;
	memcpy(&result, reply.payload, sizeof(result));
	return result == 0 ? ANSWER_DONE : ANSWER_REFUSED;
}

enum answer hostile_ask_bytes(struct vc *vc, const void *bytes, size_t len_bytes, const int *fd, unsigned fds)
{
	int rc = vu_send_bytes(vc->sock, bytes, len_bytes, fd, fds);
	if (rc == -EAGAIN)
		return ANSWER_NONE;
	return rc < 0 ? ANSWER_CLOSED : read_answer(vc);
}

enum answer hostile_ask(struct vc *vc, uint32_t request, const void *payload, uint32_t size_bytes, const int *fd,
			unsigned fds)
{
	int rc = vu_send(vc->sock, request, VU_NEED_REPLY, payload, size_bytes, fd, fds);
	if (rc == -EAGAIN)
		return ANSWER_NONE;
	return rc < 0 ? ANSWER_CLOSED : read_answer(vc);
}

bool hostile_is_refused(struct bed *bed, enum answer answer, const char *what)
{
	if (answer == ANSWER_REFUSED || answer == ANSWER_CLOSED)
		return true;
	bed_fail(bed, "%s: %s", what, answer_name(answer));
	return false;
}

/* ---- rig ---- */

bool rig_open_with(struct rig *rig, struct bed *bed, const struct vc_options *options)
{
	memset(rig, 0, sizeof(*rig));
	rig->bed = bed;
	rig->vc = bed_open(bed, options);
	if (rig->vc == NULL)
		return false;
	struct vc *vc = rig->vc;
	rig->ring = &vc->ring[0];
	rig->header_gpa = vc_alloc(vc, 4096);
	rig->data_gpa = vc_alloc(vc, RIG_DATA_BYTES + 2 * CANARY_BYTES) + CANARY_BYTES;
	rig->status_gpa = vc_alloc(vc, 4096);
	rig->table_gpa = vc_alloc(vc, 16384);
	rig->header = vc_ptr(vc, rig->header_gpa, sizeof(*rig->header));
	rig->data = vc_ptr(vc, rig->data_gpa, RIG_DATA_BYTES);
	rig->status = vc_ptr(vc, rig->status_gpa, 1);
	rig->table = vc_ptr(vc, rig->table_gpa, 16384);
	memset(rig->data - CANARY_BYTES, CANARY, RIG_DATA_BYTES + 2 * CANARY_BYTES);
	memset(rig->status, VC_STATUS_UNWRITTEN, 4096);
	rig->capacity = vc->config.capacity;
	rig_good_read(rig);
	return true;
}

bool rig_open(struct rig *rig, struct bed *bed)
{
	struct vc_options options = bed_options(bed);
	options.ring_size = RIG_RING_SIZE;
	return rig_open_with(rig, bed, &options);
}

void rig_auto_close(struct rig *rig)
{
	vc_destroy(rig->vc);
}

static void good_request(struct rig *rig, uint32_t type, uint16_t data_flags)
{
	struct vring_desc *desc = rig->ring->desc;
	*rig->header = (struct virtio_blk_outhdr){ .type = type };
	desc[0] = (struct vring_desc){ .addr = rig->header_gpa,
				       .len = sizeof(*rig->header),
				       .flags = VRING_DESC_F_NEXT,
				       .next = 1 };
	desc[1] = (struct vring_desc){ .addr = rig->data_gpa,
				       .len = RIG_DATA_BYTES,
				       .flags = VRING_DESC_F_NEXT | data_flags,
				       .next = 2 };
	desc[2] = (struct vring_desc){ .addr = rig->status_gpa, .len = 1, .flags = VRING_DESC_F_WRITE };
}

void rig_good_read(struct rig *rig)
{
	good_request(rig, VIRTIO_BLK_T_IN, VRING_DESC_F_WRITE);
}

void rig_good_write(struct rig *rig)
{
	good_request(rig, VIRTIO_BLK_T_OUT, 0);
}

void rig_make_indirect(struct rig *rig)
{
	memcpy(rig->table, rig->ring->desc, 3 * sizeof(rig->table[0]));
	rig->ring->desc[0] = (struct vring_desc){ .addr = rig->table_gpa,
						  .len = 3 * sizeof(rig->table[0]),
						  .flags = VRING_DESC_F_INDIRECT };
}

void rig_offer(struct rig *rig, uint16_t head)
{
	struct vc_ring *ring = rig->ring;
	ring->avail->ring[ring->avail_next % ring->size] = head;
	ring->avail_next++;
	vc_publish(ring);
}

static bool ring_has_failed(const struct vc_ring *ring)
{
	struct pollfd poll_fd = { .fd = ring->err_fd, .events = POLLIN };
	return poll(&poll_fd, 1, 0) > 0;
}

static enum fate judge_completion(const struct rig *rig)
{
	switch (*(volatile uint8_t *)rig->status) {
	case VIRTIO_BLK_S_OK: return FATE_OK;
	case VIRTIO_BLK_S_IOERR: return FATE_IOERR;
	case VIRTIO_BLK_S_UNSUPP: return FATE_UNSUPP;
	case VC_STATUS_UNWRITTEN: return FATE_NO_STATUS;
	default: return FATE_BAD_STATUS;
	}
}

enum fate rig_fate(struct rig *rig, unsigned allowed)
{
	struct vc_ring *ring = rig->ring;
	uint16_t before = ring->used_seen;
	int wait_ms = allowed & (FATE_SILENT | FATE_CLOSED) ? SILENCE_MS : COMPLETION_MS;
	uint64_t deadline_ns = vu_now_ns() + (uint64_t)wait_ms * 1000000u;

	vc_notify(ring);
	while (vc_used_idx(ring) == before && vu_now_ns() < deadline_ns && !ring_has_failed(ring) &&
	       !vu_is_closed(rig->vc->sock))
		usleep(100);
	int base = vc_ring_stop(rig->vc, 0);
	if (vc_used_idx(ring) != before)
		return judge_completion(rig);
	if (base >= 0)
		return FATE_SILENT;
	return base == -ETIMEDOUT ? FATE_HUNG : FATE_CLOSED;
}

static const char *fate_name(enum fate fate)
{
	switch (fate) {
	case FATE_OK: return "completed OK";
	case FATE_IOERR: return "IOERR";
	case FATE_UNSUPP: return "UNSUPP";
	case FATE_NO_STATUS: return "completed without a status";
	case FATE_SILENT: return "ring given up";
	case FATE_CLOSED: return "connection closed";
	case FATE_BAD_STATUS: return "completed with an unknown status";
	case FATE_HUNG: return "GET_VRING_BASE not answered";
	}
	return "?";
}

static bool canaries_are_whole(const struct rig *rig)
{
	for (unsigned i = 0; i < CANARY_BYTES; i++) {
		if (rig->data[-(int)CANARY_BYTES + (int)i] != CANARY || rig->data[RIG_DATA_BYTES + i] != CANARY)
			return false;
	}
	return true;
}

enum verdict rig_expect(struct rig *rig, unsigned allowed)
{
	enum fate fate = rig_fate(rig, allowed);
	CHECK(rig->bed, (fate & allowed) != 0, "%s", fate_name(fate));
	CHECK(rig->bed, canaries_are_whole(rig), "memory beside the buffer was written");
	return PASS;
}
