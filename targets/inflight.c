/* Requests in flight, remembered across our own death. See inflight.h and inflight_format.h.
 *
 * The order of stores is the whole algorithm; kill -9 may fall between any two of them.
 *
 *     taking a request                 giving back a batch
 *       desc.counter                     1  for each: desc.next, last_batch_head   (inflight_give)
 *       desc.inflight = 1                2  used ring's idx                        (virtq_publish)
 *                                        3  for each: desc.inflight = 0            (inflight_given)
 *                                        4  used_idx = used ring's idx
 *
 * A successor that finds used_idx equal to the ring's index knows: no batch was published since; what has inflight set is
 * in flight (a death before 2: the list names requests that are still in flight, and nobody walks it). If the
 * ring's index is ahead by n, we died between 2 and 4: the first n of the list were published, so they are not in
 * flight, whatever their flag says.
 *
 * A request counts as in flight from its flag on; the ring's next available index is therefore never stored, it is the
 * used index plus the number of flags. Stores go through release operations, so that on every machine another process
 * sees them in this order.
 *
 * Always: after inflight_ring_start the region is only written, from private state; what the front end does to it then
 * harms its own next recovery and nothing else. */
#include "targets/inflight.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "pool/base/mem.h"
#include "targets/guestmem.h"
#include "targets/inflight_format.h"
#include "targets/sharemem.h"
#include "targets/virtq_format.h"

#define PAGE_BYTES 4096u

struct inflight {
	uint32_t refs;
	uint32_t queues;
	uint16_t ring_size;
	struct sharemem *mem;
	struct inflight_trailer *trailer;      /* NULL: another back end's region has none */
};

struct entry {
	uint64_t counter;
	uint16_t head;
};

/* A queue's part of the region, copied. */
struct snapshot {
	struct inflight_queue queue;
	struct inflight_desc desc[VIRTQ_SIZE_MAX];
};
static_assert(offsetof(struct snapshot, desc) == sizeof(struct inflight_queue), "copied in one piece");

/* ---- the region ---- */

static uint64_t stride_bytes(uint16_t ring_size)
{
	uint64_t bytes = sizeof(struct inflight_queue) + sizeof(struct inflight_desc) * (uint64_t)ring_size;

	return (bytes + INFLIGHT_ALIGN - 1) / INFLIGHT_ALIGN * INFLIGHT_ALIGN;
}

uint64_t inflight_bytes(uint32_t queues, uint16_t ring_size)
{
	uint64_t bytes = queues * stride_bytes(ring_size) + sizeof(struct inflight_trailer);

	return (bytes + PAGE_BYTES - 1) / PAGE_BYTES * PAGE_BYTES;
}

static int write_trailer(int fd, uint64_t off_bytes, bool writeback)
{
	struct inflight_trailer trailer = { .magic = le64_of(INFLIGHT_MAGIC), .writeback = writeback };

	return pwrite(fd, &trailer, sizeof(trailer), (off_t)off_bytes) == sizeof(trailer) ? 0 : -EIO;
}

int inflight_create(uint32_t queues, uint16_t ring_size, bool writeback)
{
	uint64_t len_bytes = inflight_bytes(queues, ring_size);
	int fd, rc;

	fd = memfd_create("vhost-inflight", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	if (fd < 0)
		return -errno;
	rc = ftruncate(fd, (off_t)len_bytes) < 0 ? -errno : 0;
	if (rc == 0)
		rc = write_trailer(fd, queues * stride_bytes(ring_size), writeback);
	if (rc == 0 && fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) < 0)
		rc = -errno;
	if (rc < 0) {
		close(fd);
		return rc;
	}
	return fd;
}

static struct inflight_trailer *find_trailer(struct inflight *inf, uint64_t len_bytes)
{
	uint64_t off_bytes = inf->queues * stride_bytes(inf->ring_size);
	struct inflight_trailer *shared, trailer;

	if (len_bytes - off_bytes < sizeof(trailer))
		return NULL;
	shared = (struct inflight_trailer *)(sharemem_base(inf->mem) + off_bytes);
	guest_copy(&trailer, shared, sizeof(trailer));
	return le64_get(trailer.magic) == INFLIGHT_MAGIC ? shared : NULL;
}

int inflight_map(int fd, uint64_t off_bytes, uint64_t len_bytes, uint32_t queues, uint16_t ring_size,
		 struct inflight **out)
{
	uint64_t map_bytes = (len_bytes + PAGE_BYTES - 1) / PAGE_BYTES * PAGE_BYTES;
	struct inflight *inf;
	int rc;

	if (ring_size == 0 || ring_size > VIRTQ_SIZE_MAX || len_bytes < queues * stride_bytes(ring_size) ||
	    map_bytes < len_bytes)
		return -EINVAL;
	inf = mem_zalloc(sizeof(*inf));
	if (!inf)
		return -ENOMEM;
	inf->refs = 1;
	inf->queues = queues;
	inf->ring_size = ring_size;
	rc = sharemem_map(fd, off_bytes, map_bytes, &inf->mem);
	if (rc < 0) {
		mem_free(inf);
		return rc;
	}
	inf->trailer = find_trailer(inf, len_bytes);
	*out = inf;
	return 0;
}

struct inflight *inflight_get(struct inflight *inf)
{
	inf->refs++;
	return inf;
}

void inflight_put(struct inflight *inf)
{
	if (!inf)
		return;
	assert(inf->refs > 0);
	if (--inf->refs > 0)
		return;
	sharemem_put(inf->mem);
	mem_free(inf);
}

bool inflight_is_broken(const struct inflight *inf)
{
	return sharemem_is_broken(inf->mem);
}

int inflight_writeback(const struct inflight *inf)
{
	uint8_t writeback;

	if (!inf->trailer)
		return -ENOENT;
	guest_copy(&writeback, &inf->trailer->writeback, sizeof(writeback));
	return writeback != 0;
}

void inflight_set_writeback(struct inflight *inf, bool writeback)
{
	if (inf->trailer)
		__atomic_store_n(&inf->trailer->writeback, writeback, __ATOMIC_RELEASE);
}

uint64_t inflight_told(const struct inflight *inf)
{
	le64 sectors;

	if (!inf->trailer)
		return 0;
	guest_copy(&sectors, &inf->trailer->told_sectors, sizeof(sectors));
	return le64_get(sectors);
}

void inflight_set_told(struct inflight *inf, uint64_t sectors)
{
	if (inf->trailer)
		__atomic_store_n(&inf->trailer->told_sectors.v, htole64(sectors), __ATOMIC_RELEASE);
}

bool inflight_claim(const struct inflight *inf, struct inflight_claim *claim)
{
	struct inflight_trailer copy;

	if (!inf->trailer)
		return false;
	guest_copy(&copy, inf->trailer, sizeof(copy));
	if (le64_get(copy.volume) == 0)
		return false;
	*claim = (struct inflight_claim){ le64_get(copy.volume), le64_get(copy.epoch), le64_get(copy.nonce) };
	return true;
}

/* The volume last: without it the others do not count. */
void inflight_set_claim(struct inflight *inf, const struct inflight_claim *claim)
{
	if (!inf->trailer)
		return;
	__atomic_store_n(&inf->trailer->nonce.v, htole64(claim->nonce), __ATOMIC_RELEASE);
	__atomic_store_n(&inf->trailer->epoch.v, htole64(claim->epoch), __ATOMIC_RELEASE);
	__atomic_store_n(&inf->trailer->volume.v, htole64(claim->volume), __ATOMIC_RELEASE);
}

static struct inflight_queue *queue_at(const struct inflight *inf, uint32_t index)
{
	return (struct inflight_queue *)(sharemem_base(inf->mem) + index * stride_bytes(inf->ring_size));
}

bool inflight_has_history(const struct inflight *inf, uint32_t index)
{
	le16 version;

	if (index >= inf->queues)
		return false;
	guest_copy(&version, &queue_at(inf, index)->version, sizeof(version));
	return le16_get(version) != 0;
}

/* ---- starting a ring ---- */

static void store16(le16 *at, uint16_t value)
{
	__atomic_store_n(&at->v, htole16(value), __ATOMIC_RELEASE);
}

static void set_inflight(struct inflight_queue *queue, uint16_t head, uint8_t value)
{
	__atomic_store_n(&queue->desc[head].inflight, value, __ATOMIC_RELEASE);
}

/* Nothing is in flight: version last, so that a death in between leaves an unused queue. */
static void begin_fresh(struct inflight_ring *ring, uint16_t used_idx)
{
	struct inflight_queue *queue = ring->queue;

	store16(&queue->version, 0);
	for (uint16_t i = 0; i < ring->size; i++)
		set_inflight(queue, i, 0);
	store16(&queue->desc_num, ring->size);
	store16(&queue->used_idx, used_idx);
	store16(&queue->version, INFLIGHT_VERSION);
}

static int snapshot_validate(const struct snapshot *snap, uint16_t size)
{
	if (le16_get(snap->queue.version) != INFLIGHT_VERSION || le16_get(snap->queue.desc_num) != size)
		return -EBADMSG;
	for (uint16_t i = 0; i < size; i++)
		if (snap->desc[i].inflight > 1)
			return -EBADMSG;
	return 0;
}

/* Clears the flags of the batch that was published but not booked; here and in the region. */
static int finish_batch(struct inflight_ring *ring, struct snapshot *snap, uint16_t count, uint16_t used_idx)
{
	uint16_t head = le16_get(snap->queue.last_batch_head);

	for (uint16_t i = 0; i < count; i++) {
		if (head >= ring->size)
			return -EBADMSG;
		snap->desc[head].inflight = 0;
		head = le16_get(snap->desc[head].next);
	}
	for (uint16_t i = 0; i < ring->size; i++)
		if (!snap->desc[i].inflight)
			set_inflight(ring->queue, i, 0);
	store16(&ring->queue->used_idx, used_idx);
	return 0;
}

static int compare_entries(const void *a, const void *b)
{
	const struct entry *x = a, *y = b;

	if (x->counter != y->counter)
		return x->counter < y->counter ? -1 : 1;
	return (x->head > y->head) - (x->head < y->head);
}

/* The requests in flight, oldest first; returns how many. */
static int list_entries(struct inflight_ring *ring, const struct snapshot *snap, uint16_t *heads)
{
	struct entry *entries = mem_alloc(ring->size * sizeof(*entries));
	int count = 0;

	if (!entries)
		return -ENOMEM;
	for (uint16_t i = 0; i < ring->size; i++)
		if (snap->desc[i].inflight)
			entries[count++] = (struct entry){ le64_get(snap->desc[i].counter), i };
	qsort(entries, (size_t)count, sizeof(*entries), compare_entries);
	for (int i = 0; i < count; i++)
		heads[i] = entries[i].head;
	ring->counter = count > 0 ? entries[count - 1].counter + 1 : 0;
	mem_free(entries);
	return count;
}

static int continue_history(struct inflight_ring *ring, struct snapshot *snap, uint16_t used_idx, uint16_t *heads)
{
	uint16_t ahead = (uint16_t)(used_idx - le16_get(snap->queue.used_idx));
	int rc;

	rc = finish_batch(ring, snap, ahead, used_idx);
	if (rc < 0)
		return rc;
	ring->last_batch_head = le16_get(snap->queue.last_batch_head);
	return list_entries(ring, snap, heads);
}

int inflight_ring_start(struct inflight *inf, uint32_t index, uint16_t size, uint16_t used_idx,
			struct inflight_ring *ring, uint16_t *heads, bool *fresh)
{
	struct snapshot *snap;
	int rc;

	if (index >= inf->queues || size > inf->ring_size)
		return -EINVAL;
	snap = mem_alloc(sizeof(*snap));
	if (!snap)
		return -ENOMEM;
	*ring = (struct inflight_ring){ .queue = queue_at(inf, index), .size = size };
	guest_copy(snap, ring->queue, sizeof(snap->queue) + size * sizeof(snap->desc[0]));
	*fresh = le16_get(snap->queue.version) == 0;
	rc = *fresh ? 0 : snapshot_validate(snap, size);
	if (rc == 0 && (uint16_t)(used_idx - le16_get(snap->queue.used_idx)) > size)
		*fresh = true;
	if (rc == 0 && *fresh)
		begin_fresh(ring, used_idx);
	else if (rc == 0)
		rc = continue_history(ring, snap, used_idx, heads);
	mem_free(snap);
	return rc;
}

/* ---- a running ring ---- */

void inflight_take(struct inflight_ring *ring, uint16_t head)
{
	struct inflight_desc *desc = &ring->queue->desc[head];

	__atomic_store_n(&desc->counter.v, htole64(ring->counter++), __ATOMIC_RELEASE);
	set_inflight(ring->queue, head, 1);
}

void inflight_give(struct inflight_ring *ring, uint16_t head)
{
	store16(&ring->queue->desc[head].next, ring->last_batch_head);
	store16(&ring->queue->last_batch_head, head);
	ring->last_batch_head = head;
}

void inflight_given(struct inflight_ring *ring, const uint16_t *heads, uint32_t count, uint16_t used_idx)
{
	/* Orders the store of the ring's index (2) before the flags (3). */
	__atomic_thread_fence(__ATOMIC_RELEASE);
	for (uint32_t i = 0; i < count; i++)
		set_inflight(ring->queue, heads[i], 0);
	store16(&ring->queue->used_idx, used_idx);
}
