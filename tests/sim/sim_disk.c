/* A simulated disk: submission, completion, faults. See sim_disk.h.
 *
 *     submit: check, copy what is written, draw a fault and a delay -> event -> take effect -> post to the loop -> done
 *
 * A write's data is taken at submission and takes effect at completion; a read looks at completion. */
#include "tests/sim/sim_disk.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "pool/base/mem.h"
#include "tests/sim/trace.h"

/* The engine's handle. */
struct handle {
	struct disk disk;
	struct sim_disk *sim;
};

static const char *const fault_names[] = {
#define X(name, lasts) #name,
	SIM_FAULTS(X)
#undef X
};

static const bool fault_lasts[] = {
#define X(name, lasts) lasts,
	SIM_FAULTS(X)
#undef X
};

const char *sim_fault_name(enum sim_fault fault)
{
	return fault_names[fault];
}

bool sim_fault_lasts(enum sim_fault fault)
{
	return fault_lasts[fault];
}

void sim_disk_init(struct sim_disk *disk, uint32_t index, const struct sim_disk_opts *opts, uint64_t seed)
{
	*disk = (struct sim_disk){ .index = index, .opts = *opts };
	rng_seed(&disk->rng, seed, 100 + index);
	page_map_init(&disk->map, (uint32_t)(opts->size_bytes / PAGE_BYTES));
	list_init(&disk->cache);
	list_init(&disk->pending);
}

void sim_disk_release(struct sim_disk *disk)
{
	struct list *node;

	while ((node = list_pop_front(&disk->pending)))
		sim_io_free(list_entry(node, struct sim_io, node));
	while ((node = list_pop_front(&disk->cache)))
		record_unref(list_entry(node, struct write_record, node));
	page_map_release(&disk->map);
}

/* ---- memory of requests ---- */

/* A place in an iov. */
struct iov_walk {
	const struct iovec *iov;
	size_t off;
};

/* The next piece, at most `most` bytes; moves on. */
static uint8_t *walk_piece(struct iov_walk *walk, size_t most, size_t *bytes)
{
	uint8_t *piece = (uint8_t *)walk->iov->iov_base + walk->off;

	*bytes = walk->iov->iov_len - walk->off;
	if (*bytes > most)
		*bytes = most;
	walk->off += *bytes;
	if (walk->off == walk->iov->iov_len) {
		walk->iov++;
		walk->off = 0;
	}
	return piece;
}

static void walk_gather(struct iov_walk *walk, uint8_t *page)
{
	for (size_t done = 0, bytes; done < PAGE_BYTES; done += bytes) {
		const uint8_t *piece = walk_piece(walk, PAGE_BYTES - done, &bytes);

		memcpy(page + done, piece, bytes);
	}
}

/* page NULL: zeroes. */
static void walk_scatter(struct iov_walk *walk, const struct page *page)
{
	for (size_t done = 0, bytes; done < PAGE_BYTES; done += bytes) {
		uint8_t *piece = walk_piece(walk, PAGE_BYTES - done, &bytes);

		if (page)
			memcpy(piece, page->data + done, bytes);
		else
			memset(piece, 0, bytes);
	}
}

static uint64_t word_of(const struct page *page, uint32_t at)
{
	uint64_t word;

	memcpy(&word, page->data + at, sizeof(word));
	return word;
}

static struct write_record *take_data(struct sim_disk *disk, const struct disk_io *io)
{
	uint32_t count = (uint32_t)(io->len_bytes / PAGE_BYTES);
	struct write_record *record = record_new(disk, (uint32_t)(io->off_bytes / PAGE_BYTES), count);
	struct iov_walk walk = { io->iov, 0 };

	for (uint32_t i = 0; i < count; i++) {
		record->page[i] = page_new();
		walk_gather(&walk, record->page[i]->data);
		trace_hash(word_of(record->page[i], 0) ^ word_of(record->page[i], 2048));
	}
	return record;
}

static struct write_record *take_discard(struct sim_disk *disk, const struct disk_io *io)
{
	uint32_t count = disk->opts.discard_way == 0 ? 0 : (uint32_t)(io->len_bytes / PAGE_BYTES);
	struct write_record *record = record_new(disk, (uint32_t)(io->off_bytes / PAGE_BYTES), count);

	for (uint32_t i = 0; disk->opts.discard_way == 2 && i < count; i++) {
		record->page[i] = page_new();
		memset(record->page[i]->data, 0xdb, PAGE_BYTES);
	}
	return record;
}

static void check_stable(const struct sim_io *sio)
{
	struct iov_walk walk = { sio->io->iov, 0 };
	uint8_t now[PAGE_BYTES];

	for (uint32_t i = 0; i < sio->record->count; i++) {
		walk_gather(&walk, now);
		if (memcmp(now, sio->record->page[i]->data, PAGE_BYTES) != 0)
			sim_fail("disk %u: memory of write %llu changed while it was in flight (page %u of %u)",
				 sio->disk->index, (unsigned long long)sio->number, i, sio->record->count);
	}
}

static void read_pages(const struct sim_disk *disk, const struct disk_io *io, uint64_t off_bytes)
{
	struct iov_walk walk = { io->iov, 0 };

	for (uint64_t i = 0; i < io->len_bytes / PAGE_BYTES; i++)
		walk_scatter(&walk, page_map_get(&disk->map, (uint32_t)(off_bytes / PAGE_BYTES + i)));
}

/* ---- taking effect ---- */

static uint64_t other_place(struct sim_disk *disk, const struct disk_io *io)
{
	uint64_t pages = (disk->opts.size_bytes - io->len_bytes) / PAGE_BYTES;
	uint64_t distance = rng_range(&disk->rng, 1, rng_per_mille(&disk->rng, 500) ? 16 : pages);

	return (io->off_bytes / PAGE_BYTES + distance) % (pages + 1) * PAGE_BYTES;
}

static int do_read(struct sim_io *sio)
{
	bool elsewhere = sio->fault == FAULT_MISDIRECTED_READ;

	if (sio->fault == FAULT_READ_EIO || sio->disk->dead)
		return -EIO;
	read_pages(sio->disk, sio->io, elsewhere ? other_place(sio->disk, sio->io) : sio->io->off_bytes);
	return 0;
}

static int do_write(struct sim_io *sio)
{
	struct write_record *record = sio->record;
	struct rng *rng = &sio->disk->rng;
	enum fate fate = sio->fault == FAULT_WRITE_EIO ? (enum fate)rng_below(rng, 3) : FATE_KEPT;

	sio->record = NULL;
	if (sio->disk->dead) {
		record_unref(record);
		return -EIO;
	}
	if (sio->fault == FAULT_PHANTOM_WRITE || fate == FATE_LOST) {
		record_unref(record);
		return fate == FATE_LOST ? -EIO : 0;
	}
	if (sio->fault == FAULT_MISDIRECTED_WRITE)
		record->at = (uint32_t)(other_place(sio->disk, sio->io) / PAGE_BYTES);
	if (fate == FATE_TORN)
		record_tear(record, rng);
	record_to_cache(record);
	return sio->fault == FAULT_WRITE_EIO ? -EIO : 0;
}

/* The cache's later part is lost, as when a kernel drops pages that it could not write. */
static void lose_cache(struct sim_disk *disk)
{
	uint32_t keep = (uint32_t)rng_below(&disk->rng, 20);

	for (struct list *node = disk->cache.prev; node != &disk->cache; node = disk->cache.prev) {
		struct write_record *record = list_entry(node, struct write_record, node);

		if (keep-- == 0)
			return;
		record_revert(record);
		list_del(node);
		record_unref(record);
	}
}

static int do_flush(struct sim_io *sio)
{
	struct sim_disk *disk = sio->disk;

	if (disk->dead)
		return -EIO;
	if (sio->fault == FAULT_FLUSH_EIO) {
		if (rng_per_mille(&disk->rng, 500))
			lose_cache(disk);
		return -EIO;
	}
	while (sio->fault != FAULT_LYING_FLUSH && !list_empty(&disk->cache)) {
		struct write_record *record = list_entry(disk->cache.next, struct write_record, node);

		if (record->done_tick > sio->number)
			break;
		list_del(&record->node);
		record_unref(record);
	}
	return 0;
}

/* ---- completion ---- */

void sim_io_free(struct sim_io *sio)
{
	if (sio->record)
		record_unref(sio->record);
	free(sio);
}

static void deliver(struct task *task)
{
	struct disk_io *io = container_of(task, struct disk_io, task);

	io->done(io, (int)(intptr_t)io->priv[0]);
}

static int take_effect(struct sim_io *sio)
{
	switch (sio->io->op) {
	case DISK_READ: return do_read(sio);
	case DISK_WRITE:
		if (sio->disk->opts.check_stable)
			check_stable(sio);
		return do_write(sio);
	case DISK_DISCARD: return do_write(sio);
	default: return do_flush(sio);
	}
}

static void complete(struct sim_event *event)
{
	struct sim_io *sio = container_of(event, struct sim_io, event);
	struct disk_io *io = sio->io;
	int res = take_effect(sio);

	if (sio->fault != FAULT_NONE)
		sio->disk->last_fault = env_tick();
	trace(TRACE_DISK_DONE, sio->disk->index, sio->number, (uint64_t)-res, sio->fault);
	list_del(&sio->node);
	io->priv[0] = (void *)(intptr_t)res;
	io->task.fn = deliver;
	loop_post(sio->loop, &io->task);
	sim_io_free(sio);
	env_count_disk_event();
}

/* ---- submission ---- */

static void check_request(const struct sim_disk *disk, const struct disk_io *io)
{
	uint32_t mask = disk->opts.block_bytes - 1;
	uint64_t sum = 0;

	if (io->op == DISK_FLUSH)
		return;
	if (io->off_bytes % PAGE_BYTES || io->len_bytes % PAGE_BYTES || io->len_bytes == 0)
		sim_fail("disk %u: I/O of %llu bytes at %#llx is not of whole blocks", disk->index,
			 (unsigned long long)io->len_bytes, (unsigned long long)io->off_bytes);
	if (io->op == DISK_DISCARD)
		return;
	for (uint32_t i = 0; i < io->iov_count; i++) {
		sum += io->iov[i].iov_len;
		if ((uintptr_t)io->iov[i].iov_base & mask || io->iov[i].iov_len & mask)
			sim_fail("disk %u: memory of an I/O is not aligned to %u bytes", disk->index, mask + 1);
	}
	if (sum != io->len_bytes || io->iov_count > DISK_IOV_MAX)
		sim_fail("disk %u: iov of %u pieces, %llu bytes for an I/O of %llu bytes", disk->index, io->iov_count,
			 (unsigned long long)sum, (unsigned long long)io->len_bytes);
}

/* Which faults can befall which operation. */
static enum sim_fault draw_fault(struct sim_disk *disk, enum disk_op op)
{
	static const enum sim_fault candidates[DISK_OP_COUNT][4] = {
		[DISK_READ] = { FAULT_READ_EIO, FAULT_MISDIRECTED_READ, FAULT_NONE },
		[DISK_WRITE] = { FAULT_WRITE_EIO, FAULT_MISDIRECTED_WRITE, FAULT_PHANTOM_WRITE, FAULT_NONE },
		[DISK_FLUSH] = { FAULT_FLUSH_EIO, FAULT_LYING_FLUSH, FAULT_NONE },
		[DISK_DISCARD] = { FAULT_NONE },
	};

	if (!disk->faults_on)
		return FAULT_NONE;
	for (const enum sim_fault *f = candidates[op]; *f != FAULT_NONE; f++) {
		if (disk->opts.fault_per_mille[*f] && rng_per_mille(&disk->rng, disk->opts.fault_per_mille[*f])) {
			disk->faults[*f]++;
			disk->last_fault = env_tick();
			return *f;
		}
	}
	return FAULT_NONE;
}

static uint64_t draw_delay_ns(struct sim_disk *disk, const struct disk_io *io)
{
	uint64_t base = disk->opts.latency_ns, ns = rng_range(&disk->rng, base / 2, base * 3 / 2);

	if (io->op == DISK_FLUSH)
		ns *= rng_range(&disk->rng, 1, 8);
	else
		ns += io->len_bytes / 4;
	if (rng_per_mille(&disk->rng, 60))
		ns *= rng_range(&disk->rng, 2, 40);
	return ns * (disk->faults_on ? disk->opts.slow_factor : 1);
}

static void submit(struct disk *handle, struct disk_io *io)
{
	static const enum trace_kind kinds[DISK_OP_COUNT] = { TRACE_DISK_READ, TRACE_DISK_WRITE, TRACE_DISK_FLUSH,
							      TRACE_DISK_DISCARD };
	struct sim_disk *disk = container_of(handle, struct handle, disk)->sim;
	struct sim_io *sio = calloc(1, sizeof(*sio));

	if (!sio)
		abort();
	sio->disk = disk;
	sio->io = io;
	sio->loop = loop_self();
	sio->number = env_tick();
	trace(kinds[io->op], disk->index, io->off_bytes, io->len_bytes, sio->number);
	check_request(disk, io);
	if (io->op == DISK_WRITE)
		sio->record = take_data(disk, io);
	else if (io->op == DISK_DISCARD)
		sio->record = take_discard(disk, io);
	disk->writes += io->op == DISK_WRITE;
	sio->fault = draw_fault(disk, io->op);
	list_push_back(&disk->pending, &sio->node);
	env_after(&sio->event, draw_delay_ns(disk, io), complete);
	env_count_disk_event();
}

/* ---- handles ---- */

static void handle_close(struct disk *disk)
{
	struct handle *handle = container_of(disk, struct handle, disk);

	if (!list_empty(&handle->sim->pending))
		sim_fail("disk %u: closed with I/O in flight", handle->sim->index);
	handle->sim->attached = false;
	mem_free(handle);
}

static const struct disk_ops sim_ops = {
	.scheme = "sim",
	.submit = submit,
	.close = handle_close,
};

struct disk *sim_disk_open(struct sim_disk *disk)
{
	struct handle *handle = mem_zalloc(sizeof(*handle));
	char uri[] = "sim:0";

	if (!handle)
		return NULL;
	uri[4] = (char)('0' + disk->index);
	handle->sim = disk;
	disk_init(&handle->disk, &sim_ops, disk->opts.size_bytes, disk->opts.block_bytes);
	handle->disk.uri = mem_strdup(uri);
	if (!handle->disk.uri) {
		mem_free(handle);
		return NULL;
	}
	disk->attached = true;
	return &handle->disk;
}

/* ---- bit rot ---- */

static struct page *rot_page(struct rng *rng, const struct page *page, uint64_t sector, uint64_t way)
{
	struct page *rotten = page_copy(page);
	uint8_t *at = rotten->data + sector * 512;

	if (way == 0)
		at[rng_below(rng, 512)] ^= (uint8_t)(1u << rng_below(rng, 8));
	else
		memset(at, way == 1 ? 0 : 0xff, 512);
	return rotten;
}

bool sim_disk_rot(struct sim_disk *disk)
{
	for (uint32_t tries = 0; tries < 200; tries++) {
		uint32_t chunk = (uint32_t)rng_below(&disk->rng, disk->map.chunk_count);
		uint64_t sector = rng_below(&disk->rng, PAGE_SECTORS), way = rng_below(&disk->rng, 3);
		uint32_t at = chunk * 256 + (uint32_t)rng_below(&disk->rng, 256);
		struct page *page = at < disk->map.pages ? page_map_get(&disk->map, at) : NULL;

		if (!page)
			continue;
		trace(TRACE_DISK_ROT, disk->index, (uint64_t)at * PAGE_BYTES, sector, way);
		page_map_set(&disk->map, at, rot_page(&disk->rng, page, sector, way));
		disk->faults[FAULT_BIT_ROT]++;
		return true;
	}
	return false;
}
