/* vhost-user, the front end's part. See vhost_frontend.h.
 *
 * How: requests go out one at a time, in the order in which QEMU sends them; with REPLY_ACK each is answered, so errors
 * surface where they happen. A ring is started where the back end stopped it, or, after a lost session, at its used
 * index: the inflight region tells the next back end what lies between there and what the guest has made available.
 * The available index is never used for it. */
#include "vmm-glue/vhost_frontend.h"

#include <errno.h>
#include <linux/virtio_ring.h>
#include <poll.h>
#include <stddef.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#define BIT(n) (1ull << (n))
#define PROTOCOL_WANTED                                                                              \
	(BIT(VHOST_P_MQ) | BIT(VHOST_P_REPLY_ACK) | BIT(VHOST_P_CONFIG) | BIT(VHOST_P_BACKEND_REQ) | \
	 BIT(VHOST_P_INFLIGHT_SHMFD))

static bool has(const struct vhost *v, unsigned feature)
{
	return v->protocol & BIT(feature);
}

void vhost_init(struct vhost *v, const char *path, const struct ram *ram)
{
	*v = (struct vhost){ .path = path, .ram = ram, .sock = -1, .backend_sock = -1, .inflight_fd = -1 };
}

static void close_fd(int *fd)
{
	if (*fd >= 0)
		close(*fd);
	*fd = -1;
}

void vhost_disconnect(struct vhost *v)
{
	close_fd(&v->sock);
	close_fd(&v->backend_sock);
}

void vhost_forget(struct vhost *v)
{
	close_fd(&v->inflight_fd);
}

/* ---- messages ---- */

static int wait_for(int sock, short events)
{
	struct pollfd pfd = { .fd = sock, .events = events };
	int rc;

	do
		rc = poll(&pfd, 1, VHOST_ANSWER_MS);
	while (rc < 0 && errno == EINTR);
	return rc < 0 ? -errno : rc == 0 ? -ETIMEDOUT : 0;
}

static int send_msg(struct vhost *v, const struct vhost_msg *msg, const int *fd, uint32_t fd_count)
{
	uint32_t sent = 0;
	int rc;

	while ((rc = vhost_msg_send_fds(v->sock, msg, fd, fd_count, &sent)) == 0) {
		rc = wait_for(v->sock, POLLOUT);
		if (rc < 0)
			return rc;
	}
	return rc < 0 ? rc : 0;
}

/* Receives the answer to `request` in place of what msg held. */
static int receive(struct vhost *v, uint32_t request, struct vhost_msg *msg)
{
	int rc;

	vhost_msg_init(msg);
	while ((rc = vhost_msg_recv(v->sock, msg)) == 0) {
		rc = wait_for(v->sock, POLLIN);
		if (rc < 0)
			return rc;
	}
	if (rc < 0)
		return rc;
	return vhost_msg_request(msg) == request && (le32_get(msg->header.flags) & VHOST_FLAG_REPLY) ? 0 : -EPROTO;
}

static int failed(struct vhost *v, uint32_t request, int rc, struct err *err)
{
	return err_set(err, rc, "'%s' fails at %s: %s", v->path, vhost_request_name(request), strerror(-rc));
}

/* Asks what has an answer of its own, of at least answer_bytes. msg holds question, then answer; to be released. */
static int ask(struct vhost *v, uint32_t request, struct vhost_msg *msg, uint32_t size_bytes, uint32_t answer_bytes,
	       struct err *err)
{
	int rc;

	vhost_msg_set_header(msg, request, 0, size_bytes);
	rc = send_msg(v, msg, NULL, 0);
	if (rc == 0)
		rc = receive(v, request, msg);
	if (rc == 0 && vhost_msg_size(msg) < answer_bytes)
		rc = -EPROTO;
	return rc < 0 ? failed(v, request, rc, err) : 0;
}

static int ask_u64(struct vhost *v, uint32_t request, uint64_t *value, struct err *err)
{
	struct vhost_msg msg;
	int rc;

	vhost_msg_init(&msg);
	rc = ask(v, request, &msg, 0, sizeof(le64), err);
	*value = le64_get(msg.payload.u64);
	vhost_msg_release(&msg);
	return rc;
}

/* Tells the back end something; knows that it took it if it can say so. */
static int tell_fds(struct vhost *v, uint32_t request, struct vhost_msg *msg, uint32_t size_bytes, const int *fd,
		    uint32_t fd_count, struct err *err)
{
	bool ack = has(v, VHOST_P_REPLY_ACK);
	int rc;

	vhost_msg_set_header(msg, request, ack ? VHOST_FLAG_NEED_REPLY : 0, size_bytes);
	rc = send_msg(v, msg, fd, fd_count);
	if (rc == 0 && ack) {
		rc = receive(v, request, msg);
		if (rc == 0 && le64_get(msg->payload.u64) != 0)
			rc = le64_get(msg->payload.u64) == ESTALE ? -ESTALE : -EREMOTEIO;
		vhost_msg_release(msg);
	}
	return rc < 0 ? failed(v, request, rc, err) : 0;
}

static int tell(struct vhost *v, uint32_t request, struct vhost_msg *msg, uint32_t size_bytes, struct err *err)
{
	return tell_fds(v, request, msg, size_bytes, NULL, 0, err);
}

static int tell_u64(struct vhost *v, uint32_t request, uint64_t value, int fd, struct err *err)
{
	struct vhost_msg msg;

	vhost_msg_init(&msg);
	msg.payload.u64 = le64_of(value);
	return tell_fds(v, request, &msg, sizeof(le64), &fd, fd >= 0, err);
}

static int tell_state(struct vhost *v, uint32_t request, uint32_t index, uint32_t num, struct err *err)
{
	struct vhost_msg msg;

	vhost_msg_init(&msg);
	msg.payload.state = (struct vhost_state){ le32_of(index), le32_of(num) };
	return tell(v, request, &msg, sizeof(msg.payload.state), err);
}

/* ---- connecting ---- */

int vhost_connect(struct vhost *v)
{
	struct sockaddr_un addr = { .sun_family = AF_UNIX };
	struct vhost_msg msg;
	int rc;

	if (strlen(v->path) >= sizeof(addr.sun_path))
		return -ENAMETOOLONG;
	strcpy(addr.sun_path, v->path);
	v->sock = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (v->sock < 0)
		return -errno;
	rc = connect(v->sock, (struct sockaddr *)&addr, sizeof(addr)) < 0 ? -errno : 0;
	if (rc == 0) {
		vhost_msg_init(&msg);
		vhost_msg_set_header(&msg, VHOST_GET_FEATURES, 0, 0);
		rc = send_msg(v, &msg, NULL, 0);
	}
	if (rc < 0)
		vhost_disconnect(v);
	return rc;
}

static int open_backend_channel(struct vhost *v, struct err *err)
{
	struct vhost_msg msg;
	int pair[2], rc;

	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) < 0)
		return err_set(err, -errno, "cannot make a pair of sockets: %m");
	vhost_msg_init(&msg);
	rc = tell_fds(v, VHOST_SET_BACKEND_REQ_FD, &msg, 0, &pair[1], 1, err);
	close(pair[1]);
	v->backend_sock = pair[0];
	return rc;
}

static int negotiate_protocol(struct vhost *v, struct err *err)
{
	uint64_t offered, queues = 1;
	int rc = ask_u64(v, VHOST_GET_PROTOCOL_FEATURES, &offered, err);

	if (rc == 0)
		rc = tell_u64(v, VHOST_SET_PROTOCOL_FEATURES, offered & PROTOCOL_WANTED, -1, err);
	if (rc < 0)
		return rc;
	v->protocol = offered & PROTOCOL_WANTED;
	if (has(v, VHOST_P_MQ))
		rc = ask_u64(v, VHOST_GET_QUEUE_NUM, &queues, err);
	v->queues_max = (uint32_t)queues;
	return rc;
}

int vhost_negotiate(struct vhost *v, struct err *err)
{
	struct vhost_msg msg;
	int rc = receive(v, VHOST_GET_FEATURES, &msg);

	v->features = le64_get(msg.payload.u64);
	vhost_msg_release(&msg);
	v->protocol = 0;
	v->queues_max = 1;
	if (rc < 0)
		return failed(v, VHOST_GET_FEATURES, rc, err);
	if (v->features & BIT(VHOST_F_PROTOCOL_FEATURES_BIT))
		rc = negotiate_protocol(v, err);
	if (rc == 0 && !has(v, VHOST_P_CONFIG))
		return err_set(err, -ENOTSUP, "'%s' does not tell its configuration (no CONFIG)", v->path);
	vhost_msg_init(&msg);
	if (rc == 0)
		rc = tell(v, VHOST_SET_OWNER, &msg, 0, err);
	if (rc == 0 && has(v, VHOST_P_BACKEND_REQ))
		rc = open_backend_channel(v, err);
	return rc;
}

int vhost_get_config(struct vhost *v, void *config, uint32_t len_bytes, struct err *err)
{
	struct vhost_msg msg;
	int rc;

	vhost_msg_init(&msg);
	msg.payload.config.len_bytes = le32_of(len_bytes);
	rc = ask(v, VHOST_GET_CONFIG, &msg, VHOST_CONFIG_HEAD_BYTES + len_bytes, VHOST_CONFIG_HEAD_BYTES + len_bytes,
		 err);
	if (rc == 0)
		memcpy(config, msg.payload.config.data, len_bytes);
	vhost_msg_release(&msg);
	return rc;
}

int vhost_set_config(struct vhost *v, uint32_t off_bytes, const void *data, uint32_t len_bytes, bool migration,
		     struct err *err)
{
	struct vhost_msg msg;

	vhost_msg_init(&msg);
	msg.payload.config.off_bytes = le32_of(off_bytes);
	msg.payload.config.len_bytes = le32_of(len_bytes);
	msg.payload.config.flags = le32_of(migration ? VHOST_CONFIG_FLAG_MIGRATION : 0);
	memcpy(msg.payload.config.data, data, len_bytes);
	return tell(v, VHOST_SET_CONFIG, &msg, VHOST_CONFIG_HEAD_BYTES + len_bytes, err);
}

/* ---- rings ---- */

static int get_inflight(struct vhost *v, uint32_t count, uint16_t ring_size, struct err *err)
{
	struct vhost_msg msg;
	int rc;

	vhost_msg_init(&msg);
	msg.payload.inflight =
		(struct vhost_inflight){ .queues = le16_of((uint16_t)count), .ring_size = le16_of(ring_size) };
	rc = ask(v, VHOST_GET_INFLIGHT_FD, &msg, sizeof(msg.payload.inflight), VHOST_INFLIGHT_BYTES_MIN, err);
	if (rc == 0 && msg.fd_count != 1)
		rc = failed(v, VHOST_GET_INFLIGHT_FD, -EPROTO, err);
	if (rc == 0) {
		v->inflight = msg.payload.inflight;
		v->inflight_fd = msg.fd[0];
		msg.fd[0] = -1;
	}
	vhost_msg_release(&msg);
	return rc;
}

/* A region belongs to one life of the rings: asked for once, then given to each back end. */
static int share_inflight(struct vhost *v, uint32_t count, uint16_t ring_size, struct err *err)
{
	struct vhost_msg msg;
	int rc = v->inflight_fd < 0 ? get_inflight(v, count, ring_size, err) : 0;

	vhost_msg_init(&msg);
	msg.payload.inflight = v->inflight;
	return rc < 0 ? rc
		      : tell_fds(v, VHOST_SET_INFLIGHT_FD, &msg, sizeof(msg.payload.inflight), &v->inflight_fd, 1, err);
}

static int share_memory(struct vhost *v, struct err *err)
{
	int fd[2] = { v->ram->fd, v->ram->fd };
	struct vhost_msg msg;

	vhost_msg_init(&msg);
	msg.payload.table.count = le32_of(v->ram->pieces);
	for (uint32_t i = 0; i < v->ram->pieces; i++) {
		const struct ram_piece *piece = &v->ram->piece[i];

		msg.payload.table.region[i] = (struct vhost_region){
			.gpa = le64_of(piece->gpa),
			.len_bytes = le64_of(piece->len_bytes),
			.uva = le64_of((uintptr_t)v->ram->base + piece->off_bytes),
			.off_bytes = le64_of(piece->off_bytes),
		};
	}
	return tell_fds(v, VHOST_SET_MEM_TABLE, &msg,
			(uint32_t)(VHOST_TABLE_HEAD_BYTES + v->ram->pieces * sizeof(struct vhost_region)), fd,
			v->ram->pieces, err);
}

/* The addresses as pointers of ours, which is what the protocol wants. */
static int tell_addresses(struct vhost *v, uint32_t index, const struct vhost_queue *queue, struct err *err)
{
	void *desc = ram_at(v->ram, queue->desc_gpa, 16ull * queue->size);
	void *avail = ram_at(v->ram, queue->avail_gpa, 6 + 2ull * queue->size);
	void *used = ram_at(v->ram, queue->used_gpa, 6 + 8ull * queue->size);
	struct vhost_msg msg;

	if (!desc || !avail || !used)
		return err_set(err, -EFAULT, "ring %u of '%s' is not in memory", index, v->path);
	vhost_msg_init(&msg);
	msg.payload.addr = (struct vhost_addr){
		.index = le32_of(index),
		.desc_uva = le64_of((uintptr_t)desc),
		.avail_uva = le64_of((uintptr_t)avail),
		.used_uva = le64_of((uintptr_t)used),
	};
	return tell(v, VHOST_SET_VRING_ADDR, &msg, sizeof(msg.payload.addr), err);
}

static uint16_t used_index(const struct vhost *v, const struct vhost_queue *queue)
{
	const struct vring_used *used = ram_at(v->ram, queue->used_gpa, sizeof(*used));

	return used ? __atomic_load_n(&used->idx, __ATOMIC_ACQUIRE) : 0;
}

static int start_queue(struct vhost *v, uint32_t index, struct vhost_queue *queue, bool lost, struct err *err)
{
	int rc;

	if (lost)
		queue->base = used_index(v, queue);
	rc = tell_state(v, VHOST_SET_VRING_NUM, index, queue->size, err);
	if (rc == 0)
		rc = tell_state(v, VHOST_SET_VRING_BASE, index, queue->base, err);
	if (rc == 0)
		rc = tell_addresses(v, index, queue, err);
	if (rc == 0)
		rc = tell_u64(v, VHOST_SET_VRING_CALL, index, queue->call_fd, err);
	if (rc == 0)
		rc = tell_u64(v, VHOST_SET_VRING_KICK, index, queue->kick_fd, err);
	if (rc == 0 && (v->features & BIT(VHOST_F_PROTOCOL_FEATURES_BIT)))
		rc = tell_state(v, VHOST_SET_VRING_ENABLE, index, 1, err);
	return rc;
}

int vhost_start(struct vhost *v, uint64_t features, struct vhost_queue *queue, uint32_t count, bool lost,
		struct err *err)
{
	uint16_t ring_size = 0;
	int rc = 0;

	for (uint32_t i = 0; i < count; i++)
		ring_size = queue[i].size > ring_size ? queue[i].size : ring_size;
	if (has(v, VHOST_P_INFLIGHT_SHMFD))
		rc = share_inflight(v, count, ring_size, err);
	if (rc == 0)
		rc = tell_u64(v, VHOST_SET_FEATURES, features | (v->features & BIT(VHOST_F_PROTOCOL_FEATURES_BIT)), -1,
			      err);
	if (rc == 0)
		rc = share_memory(v, err);
	for (uint32_t i = 0; rc == 0 && i < count; i++)
		if (queue[i].size > 0)
			rc = start_queue(v, i, &queue[i], lost, err);
	return rc;
}

static int stop_queue(struct vhost *v, uint32_t index, struct vhost_queue *queue, struct err *err)
{
	struct vhost_msg msg;
	int rc;

	vhost_msg_init(&msg);
	msg.payload.state.index = le32_of(index);
	rc = ask(v, VHOST_GET_VRING_BASE, &msg, sizeof(msg.payload.state), sizeof(msg.payload.state), err);
	if (rc == 0)
		queue->base = (uint16_t)le32_get(msg.payload.state.num);
	vhost_msg_release(&msg);
	return rc;
}

int vhost_stop(struct vhost *v, struct vhost_queue *queue, uint32_t count, struct err *err)
{
	int rc = 0;

	for (uint32_t i = 0; rc == 0 && i < count; i++)
		if (queue[i].size > 0)
			rc = stop_queue(v, i, &queue[i], err);
	return rc;
}

bool vhost_config_changed(struct vhost *v)
{
	struct vhost_msg msg;
	bool changed = false;

	vhost_msg_init(&msg);
	if (vhost_msg_recv(v->backend_sock, &msg) == 1)
		changed = vhost_msg_request(&msg) == VHOST_BACKEND_CONFIG_CHANGE;
	vhost_msg_release(&msg);
	return changed;
}
