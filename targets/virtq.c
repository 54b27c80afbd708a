/* Split virtqueue, device side. See virtq.h; the bytes and what makes a chain valid: virtq_format.h.
 *
 * Barriers, and what each pairs with in the driver:
 *
 *   A  acquire load of avail idx       the driver's write barrier between ring entry and descriptors, and avail idx
 *   B  release store of used idx       the driver's read barrier between used idx, and used entries and data
 *   C  full fence between used idx     the driver's full fence between its used_event (or flags) and its last look at
 *      and reading used_event, flags   used idx: at least one side sees the other's store, so no wake-up is lost
 *   D  full fence between avail_event  the driver's full fence between avail idx and reading avail_event (or flags):
 *      (flags) and reading avail idx   same argument, for requests
 *
 * Notifications: with EVENT_IDX our wish is avail_event. It is only ever set to "the very next request", and left behind
 * while we poll; the driver passes it once in 65536 requests then, which costs one spurious kick. Without EVENT_IDX the
 * flag says it. The driver's wish is met once a batch: told if the used index passed used_event since the last batch.
 * The first batch after a start always tells: what the driver wished from our predecessor is not known.
 *
 * Always: next_avail, used_idx and `taken` are private; the guest's idx is only ever compared with them. In flight are
 * the heads with taken[head]; used_idx + in_flight + (unpopped) == avail idx in the mod-2^16 sense, as long as the
 * driver keeps the rules. */
#include "targets/virtq.h"

#include <assert.h>
#include <errno.h>
#include <linux/virtio_ring.h>
#include <string.h>

#include "pool/base/mem.h"

/* Where a ring is; the words of its three parts are little-endian. */
struct ring {
	const struct vq_desc *desc;
	const uint16_t *avail;
	uint16_t *used;
};

struct virtq {
	struct ring ring;
	struct guestmem *mem;

	uint16_t size;
	bool event_idx, indirect;
	bool told_once;                /* `told_idx` is valid */
	bool quiet;                    /* NO_NOTIFY is set */
	uint16_t next_avail;           /* next entry to take */
	uint16_t avail_idx;            /* the driver's idx when last looked at */
	uint16_t used_idx;             /* published */
	uint16_t told_idx;             /* used_idx at the last notification decision */
	uint16_t batch_count;
	uint16_t resubmit_pos, resubmit_count;
	uint32_t in_flight;

	const char *fault;
	struct virtq_addr addr;
	struct inflight *inflight;
	struct inflight_ring track;
	uint16_t *batch;               /* [size]: heads pushed, not published */
	uint16_t *resubmit;            /* [size]: heads a predecessor took, oldest first */
	bool *taken;                   /* [size]: by head */
	struct virtq_chain chain;
};

/* ---- guest words ---- */

static uint16_t word_read(const uint16_t *word)
{
	return le16toh(__atomic_load_n(word, __ATOMIC_RELAXED));
}

static void word_write(uint16_t *word, uint16_t value)
{
	__atomic_store_n(word, htole16(value), __ATOMIC_RELAXED);
}

static const uint16_t *used_event_word(const struct virtq *q)
{
	return &q->ring.avail[VQ_RING_WORD + q->size];
}

static uint16_t *avail_event_word(const struct virtq *q)
{
	return &q->ring.used[VQ_RING_WORD + q->size * sizeof(struct vq_used_elem) / sizeof(uint16_t)];
}

static int fault(struct virtq *q, const char *what)
{
	if (!q->fault)
		q->fault = what;
	return -EPROTO;
}

/* ---- life ---- */

bool virtq_size_is_valid(uint32_t size)
{
	return size >= 1 && size <= VIRTQ_SIZE_MAX && (size & (size - 1)) == 0;
}

static int map_ring(struct ring *ring, struct guestmem *mem, const struct virtq_addr *addr, uint16_t size)
{
	if (addr->desc_uva % VQ_DESC_ALIGN || addr->avail_uva % VQ_AVAIL_ALIGN || addr->used_uva % VQ_USED_ALIGN)
		return -EINVAL;
	ring->desc = guestmem_user_ptr(mem, addr->desc_uva, vq_desc_bytes(size));
	ring->avail = guestmem_user_ptr(mem, addr->avail_uva, vq_avail_bytes(size));
	ring->used = guestmem_user_ptr(mem, addr->used_uva, vq_used_bytes(size));
	return ring->desc && ring->avail && ring->used ? 0 : -EFAULT;
}

int virtq_addr_validate(struct guestmem *mem, const struct virtq_addr *addr, uint16_t size)
{
	struct ring ring;

	return map_ring(&ring, mem, addr, size);
}

/* The struct and its three arrays in one allocation. */
static struct virtq *virtq_alloc(uint16_t size)
{
	size_t words = sizeof(uint16_t) * size;
	struct virtq *q = mem_zalloc(sizeof(*q) + 2 * words + size * sizeof(bool));

	if (!q)
		return NULL;
	q->batch = (uint16_t *)(q + 1);
	q->resubmit = q->batch + size;
	q->taken = (bool *)(q->resubmit + size);
	q->size = size;
	return q;
}

/* Takes over what a predecessor left in flight, or begins at the base the front end gave. */
static int start_indexes(struct virtq *q, const struct virtq_conf *conf)
{
	bool fresh = true;
	int count = 0;

	q->used_idx = word_read(&q->ring.used[VQ_IDX_WORD]);
	if (conf->inflight)
		count = inflight_ring_start(conf->inflight, conf->index, q->size, q->used_idx, &q->track, q->resubmit,
					    &fresh);
	if (count < 0)
		return count;
	for (int i = 0; i < count; i++)
		q->taken[q->resubmit[i]] = true;
	q->resubmit_count = (uint16_t)count;
	q->in_flight = (uint32_t)count;
	q->next_avail = fresh ? conf->base : (uint16_t)(q->used_idx + count);
	q->avail_idx = q->next_avail;
	return 0;
}

int virtq_create(const struct virtq_conf *conf, struct virtq **out)
{
	struct virtq *q;
	int rc;

	assert(virtq_size_is_valid(conf->size));
	q = virtq_alloc(conf->size);
	if (!q)
		return -ENOMEM;
	q->event_idx = conf->event_idx;
	q->indirect = conf->indirect;
	q->addr = conf->addr;
	rc = map_ring(&q->ring, conf->mem, &conf->addr, conf->size);
	if (rc == 0)
		rc = start_indexes(q, conf);
	if (rc < 0) {
		mem_free(q);
		return rc;
	}
	q->mem = guestmem_get(conf->mem);
	q->inflight = conf->inflight ? inflight_get(conf->inflight) : NULL;
	*out = q;
	return 0;
}

void virtq_destroy(struct virtq *q)
{
	guestmem_put(q->mem);
	inflight_put(q->inflight);
	mem_free(q);
}

int virtq_remap(struct virtq *q, struct guestmem *mem)
{
	struct ring ring;
	int rc = map_ring(&ring, mem, &q->addr, q->size);

	if (rc < 0)
		return rc;
	q->ring = ring;
	guestmem_get(mem);
	guestmem_put(q->mem);
	q->mem = mem;
	return 0;
}

/* ---- taking chains ---- */

/* Where descriptors come from: the ring's table, or an indirect table (a pointer if it lies in one region). */
struct table {
	const struct vq_desc *ptr;
	uint64_t gpa;
	uint32_t count;
};

static int read_desc(struct virtq *q, const struct table *table, uint32_t i, struct vq_desc *desc)
{
	if (table->ptr) {
		guest_copy(desc, &table->ptr[i], sizeof(*desc));
		return 0;
	}
	if (guestmem_read(q->mem, table->gpa + i * sizeof(*desc), desc, sizeof(*desc)) < 0)
		return fault(q, "an indirect table lies outside guest memory");
	return 0;
}

/* Adds one buffer to the chain. */
static int add_buffer(struct virtq *q, const struct vq_desc *desc)
{
	struct virtq_chain *chain = &q->chain;
	uint32_t used = chain->out_count + chain->in_count;
	bool write = le16_get(desc->flags) & VRING_DESC_F_WRITE;
	uint32_t len_bytes = le32_get(desc->len);
	int pieces;

	if (!write && chain->in_count > 0)
		return fault(q, "a buffer to read follows one to write");
	if (len_bytes == 0)
		return 0;
	pieces = guestmem_iov(q->mem, le64_get(desc->addr), len_bytes, &chain->iov[used], VIRTQ_IOV_MAX - used);
	if (pieces == -EFAULT)
		return fault(q, "a buffer lies outside guest memory");
	if (pieces < 0)
		return fault(q, "a request has too many pieces");
	if (write) {
		chain->in_count += (uint32_t)pieces;
		chain->in_bytes += len_bytes;
	} else {
		chain->out_count += (uint32_t)pieces;
		chain->out_bytes += len_bytes;
	}
	return 0;
}

/* Walks one table from entry i. At most `budget` descriptors, of which it returns the rest. An indirect descriptor ends
 * the walk and is left in *indirect. */
static int walk(struct virtq *q, const struct table *table, uint32_t i, uint32_t budget, struct vq_desc *indirect)
{
	for (; budget > 0; budget--) {
		struct vq_desc desc;
		uint16_t flags;

		if (i >= table->count)
			return fault(q, "a descriptor index is out of range");
		if (read_desc(q, table, i, &desc) < 0)
			return -EPROTO;
		flags = le16_get(desc.flags);
		if (flags & VRING_DESC_F_INDIRECT) {
			if (!indirect || (flags & VRING_DESC_F_NEXT))
				return fault(q, "an indirect table where none may be");
			*indirect = desc;
			return (int)budget - 1;
		}
		if (add_buffer(q, &desc) < 0)
			return -EPROTO;
		if (!(flags & VRING_DESC_F_NEXT))
			return (int)budget - 1;
		i = le16_get(desc.next);
	}
	return fault(q, "a chain is a loop or longer than allowed");
}

static int walk_indirect(struct virtq *q, const struct vq_desc *desc, uint32_t budget)
{
	struct table table = { .gpa = le64_get(desc->addr) };
	uint32_t len_bytes = le32_get(desc->len);

	table.count = len_bytes / sizeof(struct vq_desc);
	if (table.count == 0 || len_bytes % sizeof(struct vq_desc) != 0 || table.count > UINT16_MAX + 1u)
		return fault(q, "an indirect table has a wrong size");
	if (table.gpa + len_bytes < table.gpa)
		return fault(q, "an indirect table lies outside guest memory");
	table.ptr = guestmem_ptr(q->mem, table.gpa, len_bytes);
	return walk(q, &table, 0, table.count < budget ? table.count : budget, NULL);
}

static int read_chain(struct virtq *q, uint16_t head)
{
	struct table own = { .ptr = q->ring.desc, .count = q->size };
	struct vq_desc indirect = { .len = le32_of(0) };
	uint32_t budget = q->size < VIRTQ_DESCS_MAX ? q->size : VIRTQ_DESCS_MAX;
	int left;

	q->chain.head = head;
	q->chain.out_count = q->chain.in_count = 0;
	q->chain.out_bytes = q->chain.in_bytes = 0;
	left = walk(q, &own, head, budget, q->indirect ? &indirect : NULL);
	if (left < 0)
		return left;
	if (le16_get(indirect.flags) & VRING_DESC_F_INDIRECT)
		left = walk_indirect(q, &indirect, VIRTQ_DESCS_MAX - (budget - (uint32_t)left));
	if (left < 0)
		return left;
	if (q->chain.in_bytes == 0)
		return fault(q, "a request has no room for an answer");
	if (q->chain.out_bytes + q->chain.in_bytes > UINT32_MAX)
		return fault(q, "a request is longer than 4 GiB");
	return 0;
}

static int pop_resubmit(struct virtq *q)
{
	int rc = read_chain(q, q->resubmit[q->resubmit_pos]);

	if (rc < 0)
		return rc;
	q->resubmit_pos++;
	return 1;
}

/* 1: there are entries to take. */
static int look_for_new(struct virtq *q)
{
	uint16_t idx;

	if (q->avail_idx != q->next_avail)
		return 1;
	idx = le16toh(__atomic_load_n(&q->ring.avail[VQ_IDX_WORD], __ATOMIC_ACQUIRE)); /* A */
	if ((uint16_t)(idx - q->next_avail) > q->size)
		return fault(q, "the available index jumped");
	q->avail_idx = idx;
	return idx != q->next_avail;
}

static int pop_new(struct virtq *q)
{
	uint16_t head;
	int rc = look_for_new(q);

	if (rc <= 0)
		return rc;
	head = word_read(&q->ring.avail[VQ_RING_WORD + q->next_avail % q->size]);
	if (head >= q->size)
		return fault(q, "an available entry is out of range");
	if (q->taken[head])
		return fault(q, "a request was made available twice");
	rc = read_chain(q, head);
	if (rc < 0)
		return rc;
	if (q->inflight)
		inflight_take(&q->track, head);
	q->taken[head] = true;
	q->next_avail++;
	q->in_flight++;
	return 1;
}

int virtq_pop(struct virtq *q, bool resubmit_only, const struct virtq_chain **chain)
{
	int rc;

	if (q->fault)
		return -EPROTO;
	if (q->resubmit_pos < q->resubmit_count)
		rc = pop_resubmit(q);
	else
		rc = resubmit_only ? 0 : pop_new(q);
	if (rc > 0)
		*chain = &q->chain;
	return rc;
}

/* ---- giving back ---- */

void virtq_push(struct virtq *q, uint16_t head, uint32_t len_bytes)
{
	uint16_t slot = (uint16_t)(q->used_idx + q->batch_count) % q->size;
	struct vq_used_elem elem = { le32_of(head), le32_of(len_bytes) };

	assert(head < q->size && q->taken[head] && q->batch_count < q->size);
	memcpy((uint8_t *)q->ring.used + VQ_RING_OFF_BYTES + slot * sizeof(elem), &elem, sizeof(elem));
	if (q->inflight)
		inflight_give(&q->track, head);
	q->batch[q->batch_count++] = head;
}

static bool driver_wants_call(struct virtq *q)
{
	uint16_t told_idx = q->told_idx;
	bool told_once = q->told_once;

	__atomic_thread_fence(__ATOMIC_SEQ_CST); /* C */
	q->told_idx = q->used_idx;
	q->told_once = true;
	if (!q->event_idx)
		return !(word_read(&q->ring.avail[VQ_FLAGS_WORD]) & VRING_AVAIL_F_NO_INTERRUPT);
	return !told_once || vring_need_event(word_read(used_event_word(q)), q->used_idx, told_idx);
}

bool virtq_publish(struct virtq *q)
{
	if (q->batch_count == 0)
		return false;
	q->used_idx += q->batch_count;
	__atomic_store_n(&q->ring.used[VQ_IDX_WORD], htole16(q->used_idx), __ATOMIC_RELEASE); /* B */
	if (q->inflight)
		inflight_given(&q->track, q->batch, q->batch_count, q->used_idx);
	for (uint16_t i = 0; i < q->batch_count; i++)
		q->taken[q->batch[i]] = false;
	q->in_flight -= q->batch_count;
	q->batch_count = 0;
	return driver_wants_call(q);
}

/* ---- notifications ---- */

bool virtq_notify_on(struct virtq *q)
{
	q->quiet = false;
	if (q->event_idx)
		word_write(avail_event_word(q), q->next_avail);
	else
		word_write(&q->ring.used[VQ_FLAGS_WORD], 0);
	__atomic_thread_fence(__ATOMIC_SEQ_CST); /* D */
	return q->avail_idx != q->next_avail || word_read(&q->ring.avail[VQ_IDX_WORD]) != q->next_avail;
}

void virtq_notify_off(struct virtq *q)
{
	if (q->event_idx || q->quiet)
		return;
	q->quiet = true;
	word_write(&q->ring.used[VQ_FLAGS_WORD], VRING_USED_F_NO_NOTIFY);
}

/* ---- what it is ---- */

uint32_t virtq_in_flight(const struct virtq *q)
{
	return q->in_flight;
}

uint32_t virtq_resubmits_left(const struct virtq *q)
{
	return (uint32_t)(q->resubmit_count - q->resubmit_pos);
}

uint16_t virtq_size(const struct virtq *q)
{
	return q->size;
}

uint16_t virtq_next_avail(const struct virtq *q)
{
	return q->next_avail;
}

const char *virtq_fault(const struct virtq *q)
{
	return q->fault;
}

bool virtq_is_lost(const struct virtq *q)
{
	return guestmem_is_broken(q->mem) || (q->inflight && inflight_is_broken(q->inflight));
}
