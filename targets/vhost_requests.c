/* What the messages of a vhost-user session do. Their life around it is in vhost_user.c; bytes and bounds are in
 * vhost_format.h, and a message that comes here has been checked against them.
 *
 * Changes of memory: rings drain, then the table changes, then they go on. Memory that is only added needs no draining.
 *
 * GET_VRING_BASE answers only when nothing of the ring is left with us. If requests do not finish in time there is no
 * honest answer, and the session ends; with an inflight region nothing is lost then.
 *
 * To add a request: see VHOST_REQUESTS. */
#include <errno.h>
#include <linux/virtio_blk.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "targets/vhost_user_int.h"

#define BIT(n) (1ull << (n))
#define PROTOCOL_FEATURES                                                                                        \
	(BIT(VHOST_P_MQ) | BIT(VHOST_P_REPLY_ACK) | BIT(VHOST_P_BACKEND_REQ) | BIT(VHOST_P_CONFIG) |              \
	 BIT(VHOST_P_INFLIGHT_SHMFD) | BIT(VHOST_P_CONFIGURE_MEM_SLOTS))

/* ---- answers ---- */

static void answer_bytes(struct vhost_session *s, uint32_t size_bytes)
{
	vhost_msg_set_header(&s->answer, vhost_msg_request(&s->msg), VHOST_FLAG_REPLY, size_bytes);
}

static void answer_u64(struct vhost_session *s, uint64_t value)
{
	s->answer.payload.u64 = le64_of(value);
	answer_bytes(s, sizeof(s->answer.payload.u64));
}

/* ---- negotiation ---- */

static uint64_t offered_features(const struct vhost_session *s)
{
	return blk_dev_features(&s->vu->dev) | BIT(VHOST_F_PROTOCOL_FEATURES_BIT);
}

static int get_features(struct vhost_session *s)
{
	answer_u64(s, offered_features(s));
	return 0;
}

static int set_features(struct vhost_session *s)
{
	uint64_t features = le64_get(s->msg.payload.u64);

	if (features & ~offered_features(s))
		return -EOPNOTSUPP;
	if (vhost_session_any_started(s) && features != s->env.features)
		return -EBUSY;
	s->env.features = features;
	s->has_features = true;
	if (!(features & BIT(VHOST_F_PROTOCOL_FEATURES_BIT)))
		for_each_ring(ring, s)
			vhost_ring_enable(ring, true);
	vhost_session_start_rings(s);
	return 0;
}

static int get_protocol_features(struct vhost_session *s)
{
	answer_u64(s, PROTOCOL_FEATURES);
	return 0;
}

static int set_protocol_features(struct vhost_session *s)
{
	uint64_t features = le64_get(s->msg.payload.u64);

	if (features & ~PROTOCOL_FEATURES)
		return -EOPNOTSUPP;
	s->protocol = features;
	return 0;
}

static int get_queue_num(struct vhost_session *s)
{
	answer_u64(s, s->ring_count);
	return 0;
}

static int do_nothing(struct vhost_session *s)
{
	return 0;
}

static int set_backend_req_fd(struct vhost_session *s)
{
	struct stat st;

	if (fstat(s->msg.fd[0], &st) < 0 || !S_ISSOCK(st.st_mode))
		return -EINVAL;
	if (s->backend_fd >= 0)
		close(s->backend_fd);
	s->backend_fd = s->msg.fd[0];
	s->msg.fd[0] = -1;
	vhost_session_tell_capacity(s);
	return 0;
}

/* ---- configuration space ---- */

/* 0 if the message carries as many bytes as it says, within the space. */
static int check_config(const struct vhost_session *s)
{
	const struct vhost_config *config = &s->msg.payload.config;
	uint32_t off_bytes = le32_get(config->off_bytes), len_bytes = le32_get(config->len_bytes);

	if (len_bytes == 0 || len_bytes > VHOST_CONFIG_DATA_MAX || off_bytes > VHOST_CONFIG_DATA_MAX - len_bytes)
		return -EINVAL;
	return vhost_msg_size(&s->msg) == VHOST_CONFIG_HEAD_BYTES + len_bytes ? 0 : -EINVAL;
}

/* The smallest ring the front end has told us of; 0: none yet. */
static uint16_t smallest_ring(struct vhost_session *s)
{
	uint16_t size = 0;

	for_each_ring(ring, s)
		if (ring->size > 0 && (size == 0 || ring->size < size))
			size = ring->size;
	return size;
}

static int get_config(struct vhost_session *s)
{
	uint8_t space[VHOST_CONFIG_DATA_MAX] = { 0 };
	uint32_t off_bytes = le32_get(s->msg.payload.config.off_bytes);
	uint32_t len_bytes = le32_get(s->msg.payload.config.len_bytes);
	struct blk_config config;

	if (check_config(s) < 0) {
		answer_bytes(s, 0);
		return 0;
	}
	blk_dev_config(&s->vu->dev, smallest_ring(s), &config);
	memcpy(space, &config, sizeof(config));
	s->answer.payload.config = s->msg.payload.config;
	memcpy(s->answer.payload.config.data, space + off_bytes, len_bytes);
	answer_bytes(s, VHOST_CONFIG_HEAD_BYTES + len_bytes);
	s->told_sectors = le64_get(config.capacity);
	if (s->env.inflight)
		inflight_set_told(s->env.inflight, s->told_sectors);
	return 0;
}

static int set_config(struct vhost_session *s)
{
	const struct vhost_config *config = &s->msg.payload.config;
	uint32_t flags = le32_get(config->flags);
	int rc = check_config(s);

	if (rc == 0 && (flags & ~VHOST_CONFIG_FLAG_MIGRATION))
		rc = -EINVAL;
	if (rc == 0)
		rc = blk_dev_set_config(&s->vu->dev, le32_get(config->off_bytes), config->data,
					le32_get(config->len_bytes), flags & VHOST_CONFIG_FLAG_MIGRATION);
	if (rc == 0 && s->env.inflight)
		inflight_set_writeback(s->env.inflight, s->vu->dev.writeback);
	return rc;
}

/* ---- memory ---- */

static struct guestmem_slot slot_of(const struct vhost_region *region)
{
	return (struct guestmem_slot){
		.gpa = le64_get(region->gpa),
		.uva = le64_get(region->uva),
		.len_bytes = le64_get(region->len_bytes),
		.off_bytes = le64_get(region->off_bytes),
	};
}

/* Puts a new table in place of the old one. Takes over the reference. */
static void use_table(struct vhost_session *s, struct guestmem *mem)
{
	guestmem_put(s->env.mem);
	s->env.mem = mem;
	for_each_ring(ring, s)
		vhost_ring_remap(ring);
	vhost_session_start_rings(s);
}

/* The same, for a table that lacks what the old one had: nothing of it may be in use. */
static int use_table_drained(struct vhost_session *s, struct guestmem *mem)
{
	int rc = vhost_session_drain_all(s, s->vu->drain_ns_max);

	if (rc == 0)
		use_table(s, mem);
	else
		guestmem_put(mem);
	vhost_session_resume_all(s);
	return rc;
}

static int set_mem_table(struct vhost_session *s)
{
	const struct vhost_table *table = &s->msg.payload.table;
	uint32_t count = le32_get(table->count);
	struct guestmem_slot slots[VHOST_TABLE_REGIONS_MAX];
	struct guestmem *mem;
	int rc;

	/* Some front ends always send the whole struct. */
	if (count > VHOST_TABLE_REGIONS_MAX || count != s->msg.fd_count ||
	    (vhost_msg_size(&s->msg) != VHOST_TABLE_HEAD_BYTES + count * sizeof(table->region[0]) &&
	     vhost_msg_size(&s->msg) != sizeof(*table)))
		return -EINVAL;
	for (uint32_t i = 0; i < count; i++)
		slots[i] = slot_of(&table->region[i]);
	rc = guestmem_create(slots, s->msg.fd, count, &mem);
	return rc < 0 ? rc : use_table_drained(s, mem);
}

static int get_max_mem_slots(struct vhost_session *s)
{
	answer_u64(s, GUESTMEM_REGIONS_MAX);
	return 0;
}

static int add_mem_reg(struct vhost_session *s)
{
	struct guestmem_slot slot = slot_of(&s->msg.payload.slot.region);
	struct guestmem *mem;
	int rc = guestmem_with(s->env.mem, &slot, s->msg.fd[0], &mem);

	if (rc == 0)
		use_table(s, mem);
	return rc;
}

static int rem_mem_reg(struct vhost_session *s)
{
	struct guestmem_slot slot = slot_of(&s->msg.payload.slot.region);
	struct guestmem *mem;
	int rc = guestmem_without(s->env.mem, &slot, &mem);

	return rc < 0 ? rc : use_table_drained(s, mem);
}

/* ---- inflight region ---- */

static int check_inflight(const struct vhost_session *s)
{
	const struct vhost_inflight *inflight = &s->msg.payload.inflight;
	uint32_t queues = le16_get(inflight->queues);

	return queues >= 1 && queues <= s->ring_count && virtq_size_is_valid(le16_get(inflight->ring_size)) ? 0 : -EINVAL;
}

static int get_inflight_fd(struct vhost_session *s)
{
	const struct vhost_inflight *asked = &s->msg.payload.inflight;
	uint32_t queues = le16_get(asked->queues);
	uint16_t ring_size = le16_get(asked->ring_size);
	int rc = check_inflight(s);

	if (rc < 0)
		return rc;
	s->answer_fd = inflight_create(queues, ring_size, s->vu->dev.writeback);
	if (s->answer_fd < 0)
		return s->answer_fd;
	s->answer.payload.inflight = (struct vhost_inflight){
		.len_bytes = le64_of(inflight_bytes(queues, ring_size)),
		.queues = asked->queues,
		.ring_size = asked->ring_size,
	};
	answer_bytes(s, vhost_msg_size(&s->msg));
	return 0;
}

/* What the region's guest knows of the device holds on, whoever served it before. */
static void recall_from_region(struct vhost_session *s, struct inflight *inflight)
{
	struct blk_dev *dev = &s->vu->dev;

	if (inflight_writeback(inflight) == 0)
		dev->writeback = false;
	inflight_set_writeback(inflight, dev->writeback);
	if (s->told_sectors == 0)
		s->told_sectors = inflight_told(inflight);
	else
		inflight_set_told(inflight, s->told_sectors);
	vhost_session_recall_claim(s);
}

static int set_inflight_fd(struct vhost_session *s)
{
	const struct vhost_inflight *given = &s->msg.payload.inflight;
	struct inflight *inflight;
	int rc = check_inflight(s);

	if (rc == 0 && vhost_session_any_started(s))
		rc = -EBUSY;
	if (rc == 0)
		rc = inflight_map(s->msg.fd[0], le64_get(given->off_bytes), le64_get(given->len_bytes),
				  le16_get(given->queues), le16_get(given->ring_size), &inflight);
	if (rc < 0)
		return rc;
	inflight_put(s->env.inflight);
	s->env.inflight = inflight;
	recall_from_region(s, inflight);
	vhost_session_start_rings(s);
	return 0;
}

/* ---- messages to one ring ---- */

static struct vhost_ring *find_ring(struct vhost_session *s, uint32_t index)
{
	return index < s->ring_count ? &s->ring[index] : NULL;
}

static int set_vring_num(struct vhost_session *s)
{
	struct vhost_ring *ring = find_ring(s, le32_get(s->msg.payload.state.index));

	return ring ? vhost_ring_set_size(ring, le32_get(s->msg.payload.state.num)) : -EINVAL;
}

static int set_vring_base(struct vhost_session *s)
{
	struct vhost_ring *ring = find_ring(s, le32_get(s->msg.payload.state.index));

	return ring ? vhost_ring_set_base(ring, le32_get(s->msg.payload.state.num)) : -EINVAL;
}

static int set_vring_addr(struct vhost_session *s)
{
	const struct vhost_addr *msg = &s->msg.payload.addr;
	struct vhost_ring *ring = find_ring(s, le32_get(msg->index));
	struct virtq_addr addr = { le64_get(msg->desc_uva), le64_get(msg->avail_uva), le64_get(msg->used_uva) };
	int rc;

	/* The dirty log is not offered. */
	if (!ring || le32_get(msg->flags) != 0)
		return -EINVAL;
	rc = vhost_ring_set_addr(ring, &addr);
	if (rc == 0)
		vhost_ring_try_start(ring);
	return rc;
}

static int set_vring_enable(struct vhost_session *s)
{
	struct vhost_ring *ring = find_ring(s, le32_get(s->msg.payload.state.index));
	uint32_t on = le32_get(s->msg.payload.state.num);

	if (!ring || on > 1)
		return -EINVAL;
	vhost_ring_enable(ring, on);
	return 0;
}

static int get_vring_base(struct vhost_session *s)
{
	struct vhost_ring *ring = find_ring(s, le32_get(s->msg.payload.state.index));
	int rc;

	if (!ring)
		return -EINVAL;
	if (vhost_ring_is_started(ring)) {
		vhost_ring_drain(ring);
		rc = vhost_session_wait_drained(s, s->vu->drain_ns_max);
		if (rc < 0) {
			vhost_session_say(s, "ring %u does not drain: the session ends", ring->index);
			return rc;
		}
		vhost_ring_abandon(ring, true);
	}
	vhost_ring_close(ring);
	vhost_user_rest(s->vu);
	s->answer.payload.state = (struct vhost_state){ le32_of(ring->index), le32_of(ring->base) };
	answer_bytes(s, sizeof(struct vhost_state));
	return 0;
}

/* The ring and descriptor (-1: none) of a KICK, CALL or ERR message; the descriptor is the caller's from now on. */
static int take_ring_fd(struct vhost_session *s, struct vhost_ring **ring, int *fd)
{
	uint64_t payload = le64_get(s->msg.payload.u64);
	bool none = payload & VHOST_RING_FD_NONE;

	*ring = find_ring(s, payload & VHOST_RING_FD_INDEX_MASK);
	if (!*ring || payload & ~(VHOST_RING_FD_INDEX_MASK | VHOST_RING_FD_NONE) || none != (s->msg.fd_count == 0))
		return -EINVAL;
	*fd = none ? -1 : s->msg.fd[0];
	s->msg.fd[0] = -1;
	return 0;
}

static int set_vring_kick(struct vhost_session *s)
{
	struct vhost_ring *ring;
	int fd, rc = take_ring_fd(s, &ring, &fd);

	if (rc < 0)
		return rc;
	rc = vhost_session_claim(s);
	if (rc < 0 && fd >= 0)
		close(fd);
	if (rc == 0)
		rc = vhost_ring_set_kick(ring, fd);
	if (rc == 0)
		vhost_ring_try_start(ring);
	return rc;
}

static int set_vring_call(struct vhost_session *s)
{
	struct vhost_ring *ring;
	int fd, rc = take_ring_fd(s, &ring, &fd);

	return rc < 0 ? rc : vhost_ring_set_call(ring, fd);
}

static int set_vring_err(struct vhost_session *s)
{
	struct vhost_ring *ring;
	int fd, rc = take_ring_fd(s, &ring, &fd);

	return rc < 0 ? rc : vhost_ring_set_err(ring, fd);
}

/* ---- all of them ---- */

static int (*const handlers[VHOST_REQUEST_END])(struct vhost_session *s) = {
	[VHOST_GET_FEATURES] = get_features,
	[VHOST_SET_FEATURES] = set_features,
	[VHOST_SET_OWNER] = do_nothing,
	/* Deprecated; meant to disable rings, but front ends disagree about what else it does. */
	[VHOST_RESET_OWNER] = do_nothing,
	[VHOST_SET_MEM_TABLE] = set_mem_table,
	[VHOST_SET_VRING_NUM] = set_vring_num,
	[VHOST_SET_VRING_ADDR] = set_vring_addr,
	[VHOST_SET_VRING_BASE] = set_vring_base,
	[VHOST_GET_VRING_BASE] = get_vring_base,
	[VHOST_SET_VRING_KICK] = set_vring_kick,
	[VHOST_SET_VRING_CALL] = set_vring_call,
	[VHOST_SET_VRING_ERR] = set_vring_err,
	[VHOST_GET_PROTOCOL_FEATURES] = get_protocol_features,
	[VHOST_SET_PROTOCOL_FEATURES] = set_protocol_features,
	[VHOST_GET_QUEUE_NUM] = get_queue_num,
	[VHOST_SET_VRING_ENABLE] = set_vring_enable,
	[VHOST_SET_BACKEND_REQ_FD] = set_backend_req_fd,
	[VHOST_GET_CONFIG] = get_config,
	[VHOST_SET_CONFIG] = set_config,
	[VHOST_GET_INFLIGHT_FD] = get_inflight_fd,
	[VHOST_SET_INFLIGHT_FD] = set_inflight_fd,
	[VHOST_GET_MAX_MEM_SLOTS] = get_max_mem_slots,
	[VHOST_ADD_MEM_REG] = add_mem_reg,
	[VHOST_REM_MEM_REG] = rem_mem_reg,
};

int vhost_request_handle(struct vhost_session *s)
{
	return handlers[vhost_msg_request(&s->msg)](s);
}
