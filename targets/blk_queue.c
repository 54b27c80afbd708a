/* One started ring of the block device: chains to requests, requests to the volume, results back. See virtio_blk.h.
 *
 *     virtq_pop -> read_frame -> start_* -> send_next -> volume_submit
 *                                  |            ^             | done
 *                                  v            '-- more -----+
 *     virtq_publish <- give_back <- queue->done <-- finish ---'
 *
 * A request has one vio. What is larger than VIO_BYTES_MAX, and a list of ranges, is sent piece after piece, the next
 * when the one before is done; the first error ends it. A piece's end inside an iovec is made by cutting that iovec
 * for the time being (`cut_len`).
 *
 * Memory: requests are an array indexed by the chain's head, so finding one and knowing it is free need nothing. Each has
 * room for a few data pieces; one with more borrows one of the queue's few large arrays. While none is free the
 * queue takes no chains; small requests then wait too, which keeps the order fair and the memory bounded.
 *
 * Always: a chain that virtq_pop delivered becomes exactly one request, and each request is given back exactly once,
 * unless the queue is abandoned, or leaves and the request still waits for space: then it is not given back, and stays in
 * flight for a successor. */
#include <assert.h>
#include <errno.h>
#include <linux/virtio_blk.h>
#include <string.h>

#include "pool/base/mem.h"
#include "targets/sharemem.h"
#include "targets/virtio_blk.h"

#define IOV_INLINE 34u
#define LARGE_COUNT 16u

static_assert(VIRTQ_IOV_MAX <= DISK_IOV_MAX, "any chain's data is one vio");
static_assert(sizeof(struct blk_range) * BLK_RANGES_MAX <= sizeof(struct iovec) * IOV_INLINE, "ranges fit");

struct large {
	struct list node;              /* on queue->larges while free */
	struct iovec iov[VIRTQ_IOV_MAX];
};

struct request {
	struct vio vio;
	struct list node;              /* on queue->done */
	struct blk_queue *queue;
	uint8_t *status;               /* where it goes */
	uint16_t head;
	uint8_t result;                /* VIRTIO_BLK_S_* */
	uint32_t used_bytes;           /* written from the start of the writable part on, if it succeeds */
	uint32_t failed_bytes;         /* the same if it fails: the status, where nothing is before it */
	/* IN, OUT: what is left, from vio.off_bytes and iov on. */
	uint64_t left_bytes;
	struct iovec *iov;
	uint32_t iov_count;
	size_t cut_len;                /* taken off the end of the current piece's last iovec */
	/* DISCARD, WRITE_ZEROES */
	uint32_t range_next, range_count;
	struct large *large;
	union {
		struct iovec iov_inline[IOV_INLINE];
		struct blk_range range[BLK_RANGES_MAX];
	};
};

struct blk_queue {
	struct blk_queue_conf conf;
	struct list done;              /* completed, to be given back */
	struct list larges;
	uint32_t at_volume;            /* requests the volume has */
	uint32_t breaks_seen;          /* sharemem_breaks() when the memory was last known to be good */
	bool lost, abandoned;
	bool leaving;                  /* requests are not to wait for space any more */
	struct request *requests;      /* by head */
	struct large *large_array;
};

/* ---- life ---- */

static struct blk_queue *queue_alloc(uint16_t size)
{
	struct blk_queue *queue = mem_zalloc(sizeof(*queue));

	if (!queue)
		return NULL;
	/* Neither array is touched here: pages that are never needed cost nothing. */
	queue->requests = mem_alloc(size * sizeof(*queue->requests));
	queue->large_array = mem_alloc(LARGE_COUNT * sizeof(*queue->large_array));
	if (queue->requests && queue->large_array)
		return queue;
	mem_free(queue->requests);
	mem_free(queue->large_array);
	mem_free(queue);
	return NULL;
}

int blk_queue_create(const struct blk_queue_conf *conf, struct blk_queue **out)
{
	struct blk_queue *queue = queue_alloc(virtq_size(conf->virtq));

	if (!queue)
		return -ENOMEM;
	queue->conf = *conf;
	queue->breaks_seen = sharemem_breaks();
	queue->lost = virtq_is_lost(conf->virtq);
	list_init(&queue->done);
	list_init(&queue->larges);
	for (uint32_t i = 0; i < LARGE_COUNT; i++)
		list_push_back(&queue->larges, &queue->large_array[i].node);
	conf->dev->count.resubmitted += virtq_resubmits_left(conf->virtq);
	*out = queue;
	return 0;
}

static void queue_free(struct blk_queue *queue)
{
	void (*gone)(void *arg) = queue->conf.gone;
	void *arg = queue->conf.gone_arg;

	virtq_destroy(queue->conf.virtq);
	mem_free(queue->requests);
	mem_free(queue->large_array);
	mem_free(queue);
	gone(arg);
}

void blk_queue_leave(struct blk_queue *queue)
{
	queue->leaving = true;
	volume_cancel(queue->conf.dev->volume);
}

void blk_queue_abandon(struct blk_queue *queue)
{
	queue->abandoned = true;
	blk_queue_leave(queue);
	if (queue->at_volume == 0)
		queue_free(queue);
}

bool blk_queue_is_drained(const struct blk_queue *queue)
{
	if (queue->at_volume > 0)
		return false;
	if (queue->lost)
		return true;
	return list_empty(&queue->done) &&
	       (virtq_fault(queue->conf.virtq) || virtq_resubmits_left(queue->conf.virtq) == 0);
}

struct virtq *blk_queue_virtq(const struct blk_queue *queue)
{
	return queue->conf.virtq;
}

/* ---- the end of a request ---- */

static void give_large_back(struct request *req)
{
	if (req->large)
		list_push_back(&req->queue->larges, &req->large->node);
	req->large = NULL;
}

static void finish(struct request *req, uint8_t result)
{
	req->result = result;
	give_large_back(req);
	list_push_back(&req->queue->done, &req->node);
}

/* The driver asked for what cannot be. */
static void refuse(struct request *req, uint8_t result)
{
	req->queue->conf.dev->count.bad_requests++;
	finish(req, result);
}

/* The one place where an errno becomes a status. */
static uint8_t status_of(int res)
{
	switch (res) {
	case 0:
		return VIRTIO_BLK_S_OK;
	case -EOPNOTSUPP:
		return VIRTIO_BLK_S_UNSUPP;
	default:
		return VIRTIO_BLK_S_IOERR;
	}
}

/* ---- sending to the volume ---- */

static bool is_writeback(const struct blk_queue *queue)
{
	if (!(queue->conf.features & (1ull << VIRTIO_BLK_F_FLUSH)))
		return false;
	return queue->conf.dev->writeback || !(queue->conf.features & (1ull << VIRTIO_BLK_F_CONFIG_WCE));
}

static void send_vio(struct request *req)
{
	req->vio.fua = !is_writeback(req->queue);
	req->queue->at_volume++;
	volume_submit(req->queue->conf.dev->volume, &req->vio);
}

/* The next piece of data: whole iovecs, the last one cut to fit. */
static void send_data(struct request *req)
{
	uint64_t room = req->left_bytes < VIO_BYTES_MAX ? req->left_bytes : VIO_BYTES_MAX;
	uint32_t count = 0;

	req->vio.len_bytes = room;
	while (room > 0 && req->iov[count].iov_len <= room)
		room -= req->iov[count++].iov_len;
	req->cut_len = 0;
	if (room > 0) {
		req->cut_len = req->iov[count].iov_len - room;
		req->iov[count++].iov_len = room;
	}
	req->vio.iov = req->iov;
	req->vio.iov_count = count;
	send_vio(req);
}

static void pass_data(struct request *req)
{
	struct iovec *last = &req->iov[req->vio.iov_count - 1];

	req->vio.off_bytes += req->vio.len_bytes;
	req->left_bytes -= req->vio.len_bytes;
	req->iov += req->vio.iov_count;
	if (req->cut_len == 0)
		return;
	last->iov_base = (uint8_t *)last->iov_base + last->iov_len;
	last->iov_len = req->cut_len;
	req->iov--;
}

static void send_range(struct request *req)
{
	const struct blk_range *range = &req->range[req->range_next++];

	req->vio.off_bytes = le64_get(range->sector) * SECTOR_BYTES;
	req->vio.len_bytes = (uint64_t)le32_get(range->num_sectors) * SECTOR_BYTES;
	send_vio(req);
}

/* Sends the next piece; false: there is none. */
static bool send_next(struct request *req)
{
	if (req->left_bytes > 0) {
		send_data(req);
		return true;
	}
	while (req->range_next < req->range_count) {
		if (le32_get(req->range[req->range_next].num_sectors) == 0) {
			req->range_next++;
			continue;
		}
		send_range(req);
		return true;
	}
	return false;
}

static void vio_done(struct vio *vio, int res)
{
	struct request *req = container_of(vio, struct request, vio);
	struct blk_queue *queue = req->queue;

	assert(queue->at_volume > 0);
	queue->at_volume--;
	if (queue->abandoned) {
		if (queue->at_volume == 0)
			queue_free(queue);
		return;
	}
	if (res == 0 && req->left_bytes > 0)
		pass_data(req);
	if (res == 0 && send_next(req))
		return;
	if (res == -ECANCELED) {
		give_large_back(req);
	} else {
		queue->conf.dev->count.failed_requests += res != 0;
		finish(req, status_of(res));
	}
	queue->conf.wake(queue->conf.arg);
}

/* ---- a chain becomes a request ---- */

/* Copies up to `len` bytes from a chain's pieces, starting `skip` bytes in. Returns how many. */
static size_t gather(const struct iovec *iov, uint32_t count, uint64_t skip, void *into, size_t len)
{
	size_t copied = 0;

	for (uint32_t i = 0; i < count && copied < len; i++) {
		size_t n;

		if (skip >= iov[i].iov_len) {
			skip -= iov[i].iov_len;
			continue;
		}
		n = iov[i].iov_len - skip;
		if (n > len - copied)
			n = len - copied;
		guest_copy((uint8_t *)into + copied, (uint8_t *)iov[i].iov_base + skip, n);
		copied += n;
		skip = 0;
	}
	return copied;
}

/* The pieces of `len` bytes, starting `skip` bytes in, become the request's data. The pieces have them. */
static void slice(struct request *req, const struct iovec *iov, uint32_t count, uint64_t skip, uint64_t len)
{
	req->left_bytes = len;
	req->iov_count = 0;
	for (uint32_t i = 0; i < count && len > 0; i++) {
		uint64_t n;

		if (skip >= iov[i].iov_len) {
			skip -= iov[i].iov_len;
			continue;
		}
		n = iov[i].iov_len - skip;
		if (n > len)
			n = len;
		req->iov[req->iov_count++] = (struct iovec){ (uint8_t *)iov[i].iov_base + skip, n };
		len -= n;
		skip = 0;
	}
	assert(len == 0);
}

/* Room for all of the chain's pieces. */
static void set_room(struct request *req, const struct virtq_chain *chain)
{
	struct blk_queue *queue = req->queue;

	req->iov = req->iov_inline;
	req->large = NULL;
	if (chain->out_count + chain->in_count <= IOV_INLINE)
		return;
	req->large = list_entry(list_pop_front(&queue->larges), struct large, node);
	req->iov = req->large->iov;
}

/* Whether [sector, sector + len_bytes) lies in the volume. */
static bool in_capacity(const struct blk_queue *queue, uint64_t sector, uint64_t len_bytes)
{
	uint64_t capacity = volume_size_bytes(queue->conf.dev->volume) / SECTOR_BYTES;

	return sector <= capacity && len_bytes / SECTOR_BYTES <= capacity - sector;
}

static void start_data(struct request *req, const struct virtq_chain *chain, const struct blk_header *header)
{
	bool write = le32_get(header->type) == VIRTIO_BLK_T_OUT;
	uint64_t out = chain->out_bytes - sizeof(*header), in = chain->in_bytes - 1;
	uint64_t sector = le64_get(header->sector), len = write ? out : in;

	/* Data in the other direction: the driver means something else than it says. */
	if ((write ? in : out) > 0 || (write && req->queue->conf.dev->read_only) || len % SECTOR_BYTES != 0 ||
	    !in_capacity(req->queue, sector, len)) {
		refuse(req, VIRTIO_BLK_S_IOERR);
		return;
	}
	req->vio.op = write ? VIO_WRITE : VIO_READ;
	req->vio.off_bytes = sector * SECTOR_BYTES;
	set_room(req, chain);
	if (write)
		slice(req, chain->iov, chain->out_count, sizeof(*header), len);
	else
		slice(req, chain->iov + chain->out_count, chain->in_count, 0, len);
	if (!write)
		req->used_bytes = (uint32_t)len + 1;
	if (!send_next(req))
		finish(req, VIRTIO_BLK_S_OK);
}

/* One range of a list: VIRTIO_BLK_S_OK if it can be carried out. */
static uint8_t check_range(const struct request *req, const struct blk_range *range, uint32_t type)
{
	uint32_t allowed = type == VIRTIO_BLK_T_WRITE_ZEROES ? VIRTIO_BLK_WRITE_ZEROES_FLAG_UNMAP : 0;
	uint32_t sectors = le32_get(range->num_sectors);

	if (le32_get(range->flags) & ~allowed)
		return VIRTIO_BLK_S_UNSUPP;
	if (sectors > BLK_RANGE_SECTORS_MAX ||
	    !in_capacity(req->queue, le64_get(range->sector), (uint64_t)sectors * SECTOR_BYTES))
		return VIRTIO_BLK_S_IOERR;
	return VIRTIO_BLK_S_OK;
}

static void start_ranges(struct request *req, const struct virtq_chain *chain, uint32_t type)
{
	uint64_t len = chain->out_bytes - sizeof(struct blk_header);
	uint8_t verdict = VIRTIO_BLK_S_OK;

	if (req->queue->conf.dev->read_only || len == 0 || len % sizeof(struct blk_range) != 0 ||
	    len / sizeof(struct blk_range) > BLK_RANGES_MAX) {
		refuse(req, VIRTIO_BLK_S_IOERR);
		return;
	}
	gather(chain->iov, chain->out_count, sizeof(struct blk_header), req->range, len);
	req->range_count = (uint32_t)(len / sizeof(struct blk_range));
	for (uint32_t i = 0; i < req->range_count && verdict == VIRTIO_BLK_S_OK; i++)
		verdict = check_range(req, &req->range[i], type);
	if (verdict != VIRTIO_BLK_S_OK) {
		refuse(req, verdict);
		return;
	}
	req->vio.op = type == VIRTIO_BLK_T_DISCARD ? VIO_DISCARD : VIO_WRITE_ZEROES;
	if (!send_next(req))
		finish(req, VIRTIO_BLK_S_OK);
}

static void start_flush(struct request *req)
{
	req->vio.op = VIO_FLUSH;
	req->vio.off_bytes = req->vio.len_bytes = 0;
	send_vio(req);
}

static void start_get_id(struct request *req, const struct virtq_chain *chain)
{
	const char *serial = req->queue->conf.dev->serial;
	uint64_t len = chain->in_bytes - 1;

	if (len > BLK_SERIAL_BYTES)
		len = BLK_SERIAL_BYTES;
	set_room(req, chain);
	slice(req, chain->iov + chain->out_count, chain->in_count, 0, len);
	for (uint32_t i = 0; i < req->iov_count; i++) {
		memcpy(req->iov[i].iov_base, serial, req->iov[i].iov_len);
		serial += req->iov[i].iov_len;
	}
	/* A longer buffer's rest is not written, so the status behind it is not counted either. */
	req->used_bytes = chain->in_bytes - 1 == len ? (uint32_t)len + 1 : (uint32_t)len;
	finish(req, VIRTIO_BLK_S_OK);
}

static bool has_feature(const struct blk_queue *queue, unsigned bit)
{
	return queue->conf.features & (1ull << bit);
}

static void start_request(struct request *req, const struct virtq_chain *chain, const struct blk_header *header)
{
	uint32_t type = le32_get(header->type);

	switch (type) {
	case VIRTIO_BLK_T_IN:
	case VIRTIO_BLK_T_OUT:
		start_data(req, chain, header);
		return;
	case VIRTIO_BLK_T_FLUSH:
		start_flush(req);
		return;
	case VIRTIO_BLK_T_GET_ID:
		start_get_id(req, chain);
		return;
	case VIRTIO_BLK_T_DISCARD:
		if (!has_feature(req->queue, VIRTIO_BLK_F_DISCARD))
			break;
		start_ranges(req, chain, type);
		return;
	case VIRTIO_BLK_T_WRITE_ZEROES:
		if (!has_feature(req->queue, VIRTIO_BLK_F_WRITE_ZEROES))
			break;
		start_ranges(req, chain, type);
		return;
	}
	refuse(req, VIRTIO_BLK_S_UNSUPP);
}

/* The status byte: the last of what the device writes. */
static uint8_t *status_byte(const struct virtq_chain *chain)
{
	const struct iovec *last = &chain->iov[chain->out_count + chain->in_count - 1];

	return (uint8_t *)last->iov_base + last->iov_len - 1;
}

static void take_chain(struct blk_queue *queue, const struct virtq_chain *chain)
{
	struct request *req = &queue->requests[chain->head];
	struct blk_header header;

	queue->conf.dev->count.requests++;
	req->queue = queue;
	req->head = chain->head;
	req->vio = (struct vio){ .done = vio_done, .cancelled = &queue->leaving };
	req->left_bytes = 0;
	req->range_next = req->range_count = 0;
	req->large = NULL;
	req->failed_bytes = chain->in_bytes == 1 ? 1 : 0;
	req->used_bytes = req->failed_bytes;
	list_init(&req->node);
	req->status = status_byte(chain);
	if (gather(chain->iov, chain->out_count, 0, &header, sizeof(header)) < sizeof(header))
		refuse(req, VIRTIO_BLK_S_IOERR);
	else
		start_request(req, chain, &header);
}

/* ---- the queue ---- */

static uint32_t take_chains(struct blk_queue *queue, enum blk_take take)
{
	const struct virtq_chain *chain;
	uint32_t taken = 0;

	while (take != BLK_TAKE_NONE && taken < BLK_POP_BATCH && !list_empty(&queue->larges)) {
		if (virtq_pop(queue->conf.virtq, take == BLK_TAKE_RESUBMITS, &chain) <= 0)
			break;
		taken++;
		take_chain(queue, chain);
	}
	return taken;
}

static uint32_t give_back(struct blk_queue *queue)
{
	struct list *node;
	uint32_t given = 0;

	while ((node = list_pop_front(&queue->done))) {
		struct request *req = list_entry(node, struct request, node);

		*(volatile uint8_t *)req->status = req->result;
		virtq_push(queue->conf.virtq, req->head,
			   req->result == VIRTIO_BLK_S_OK ? req->used_bytes : req->failed_bytes);
		given++;
	}
	if (given > 0 && virtq_publish(queue->conf.virtq)) {
		queue->conf.dev->count.notifications++;
		queue->conf.notify(queue->conf.arg);
	}
	return given;
}

bool blk_queue_is_lost(const struct blk_queue *queue)
{
	return queue->lost;
}

bool blk_queue_has_room(const struct blk_queue *queue)
{
	return !list_empty(&queue->larges);
}

/* Looks whether memory went away under the ring, at the price of one load while none did anywhere. */
static bool look_for_loss(struct blk_queue *queue)
{
	uint32_t breaks = sharemem_breaks();

	if (breaks != queue->breaks_seen) {
		queue->breaks_seen = breaks;
		queue->lost = virtq_is_lost(queue->conf.virtq);
	}
	return queue->lost;
}

uint32_t blk_queue_poll(struct blk_queue *queue, enum blk_take take)
{
	uint32_t work;

	if (look_for_loss(queue))
		return 0;
	work = give_back(queue);
	return work + take_chains(queue, take);
}
