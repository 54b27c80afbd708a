/* A disk in memory for unit tests: see medium.h. */
#include "tests/unit/medium.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "pool/disks/disk_int.h"
#include "pool/runtime/fiber.h"
#include "tests/unit/unit.h"

#define PAGE 4096u
#define SECTOR 512u

struct medium_page {
	uint32_t refs;
	uint8_t bytes[PAGE];
};

struct log_entry {
	uint32_t medium;
	bool flush;
	uint64_t off, len;
	uint8_t *bytes;
};

/* --- content -------------------------------------------------------------------------------------------------- */

static void page_put(struct medium_page *page)
{
	if (page && --page->refs == 0)
		free(page);
}

static struct medium_page *page_own(struct medium_page **slot)
{
	struct medium_page *old = *slot;

	if (old && old->refs == 1)
		return old;
	*slot = calloc(1, sizeof(**slot));
	assert_non_null(*slot);
	(*slot)->refs = 1;
	if (old)
		memcpy((*slot)->bytes, old->bytes, PAGE);
	page_put(old);
	return *slot;
}

void medium_read(const struct medium *medium, uint64_t off, void *buf, uint64_t len)
{
	assert_true(off + len <= medium->size_bytes);
	for (uint64_t done = 0, n; done < len; done += n) {
		uint64_t at = off + done;
		struct medium_page *page = medium->pages[at / PAGE];

		n = PAGE - at % PAGE < len - done ? PAGE - at % PAGE : len - done;
		if (page)
			memcpy((uint8_t *)buf + done, page->bytes + at % PAGE, n);
		else
			memset((uint8_t *)buf + done, 0, n);
	}
}

void medium_write(struct medium *medium, uint64_t off, const void *buf, uint64_t len)
{
	assert_true(off + len <= medium->size_bytes);
	for (uint64_t done = 0, n; done < len; done += n) {
		uint64_t at = off + done;

		n = PAGE - at % PAGE < len - done ? PAGE - at % PAGE : len - done;
		memcpy(page_own(&medium->pages[at / PAGE])->bytes + at % PAGE, (const uint8_t *)buf + done, n);
	}
}

static void medium_init(struct medium *medium, uint32_t index, uint64_t size_bytes)
{
	*medium = (struct medium){ .index = index, .size_bytes = size_bytes };
	medium->pages = calloc((size_bytes + PAGE - 1) / PAGE, sizeof(*medium->pages));
	assert_non_null(medium->pages);
}

void media_init(struct media *media, uint32_t count, uint64_t size_bytes)
{
	*media = (struct media){ .count = count };
	for (uint32_t i = 0; i < count; i++)
		medium_init(&media->medium[i], i, size_bytes);
}

static void medium_release(struct medium *medium)
{
	for (uint64_t p = 0; p < (medium->size_bytes + PAGE - 1) / PAGE; p++)
		page_put(medium->pages[p]);
	free(medium->pages);
}

void media_release(struct media *media)
{
	for (uint32_t i = 0; i < media->count; i++)
		medium_release(&media->medium[i]);
	for (uint64_t e = 0; e < media->log_count; e++)
		free(media->log[e].bytes);
	free(media->log);
	*media = (struct media){ 0 };
}

void media_clone(struct media *to, const struct media *from)
{
	*to = (struct media){ .count = from->count };
	for (uint32_t i = 0; i < from->count; i++) {
		const struct medium *source = &from->medium[i];

		medium_init(&to->medium[i], i, source->size_bytes);
		to->medium[i].fault = source->fault;
		for (uint64_t p = 0; p < (source->size_bytes + PAGE - 1) / PAGE; p++) {
			to->medium[i].pages[p] = source->pages[p];
			if (source->pages[p])
				source->pages[p]->refs++;
		}
	}
}

/* --- log ------------------------------------------------------------------------------------------------------ */

static struct log_entry *log_add(struct media *media, uint32_t medium)
{
	if (media->log_count == media->log_cap) {
		media->log_cap = media->log_cap ? media->log_cap * 2 : 256;
		media->log = realloc(media->log, media->log_cap * sizeof(*media->log));
		assert_non_null(media->log);
	}
	media->log[media->log_count] = (struct log_entry){ .medium = medium };
	return &media->log[media->log_count++];
}

static void log_write(struct media *media, uint32_t medium, const struct disk_io *io)
{
	struct log_entry *entry = log_add(media, medium);

	entry->off = io->off_bytes;
	entry->len = io->len_bytes;
	entry->bytes = malloc(io->len_bytes);
	assert_non_null(entry->bytes);
	for (uint64_t i = 0, at = 0; i < io->iov_count; at += io->iov[i++].iov_len)
		memcpy(entry->bytes + at, io->iov[i].iov_base, io->iov[i].iov_len);
}

/* The last flush of a medium within the first `entries`, or 0: what stands before it is durable. */
static uint64_t durable_before(const struct media *logged, uint32_t medium, uint64_t entries)
{
	while (entries--)
		if (logged->log[entries].flush && logged->log[entries].medium == medium)
			return entries;
	return 0;
}

static uint64_t scramble(uint64_t x)
{
	x ^= x >> 33;
	x *= 0xff51afd7ed558ccdull;
	x ^= x >> 33;
	x *= 0xc4ceb9fe1a85ec53ull;
	return x ^ x >> 33;
}

static void replay_torn(struct medium *medium, const struct log_entry *entry, uint64_t torn)
{
	for (uint64_t at = 0; at < entry->len; at += SECTOR)
		if (scramble(torn + at) & 1)
			medium_write(medium, entry->off + at, entry->bytes + at, SECTOR);
}

uint64_t media_advance(struct media *base, const struct media *logged, uint64_t from, uint64_t entries)
{
	for (; from < entries; from++) {
		const struct log_entry *entry = &logged->log[from];

		if (entry->flush)
			continue;
		if (from >= durable_before(logged, entry->medium, entries))
			break;
		medium_write(&base->medium[entry->medium], entry->off, entry->bytes, entry->len);
	}
	return from;
}

uint32_t crash_image(struct media *image, const struct media *logged, const struct crash *crash)
{
	uint64_t durable[MEDIA_MAX];
	uint32_t loose = 0;

	for (uint32_t m = 0; m < logged->count; m++)
		durable[m] = durable_before(logged, m, crash->entries);
	for (uint64_t e = crash->base; e < crash->entries; e++) {
		const struct log_entry *entry = &logged->log[e];
		struct medium *medium = &image->medium[entry->medium];

		if (entry->flush)
			continue;
		if (e < durable[entry->medium]) {
			medium_write(medium, entry->off, entry->bytes, entry->len);
			continue;
		}
		if (crash->kept >> loose++ % 64 & 1) {
			if (crash->torn)
				replay_torn(medium, entry, crash->torn + e);
			else
				medium_write(medium, entry->off, entry->bytes, entry->len);
		}
	}
	return loose;
}

/* --- the disk --------------------------------------------------------------------------------------------------- */

struct medium_disk {
	struct disk disk;
	struct media *media;
	struct medium *medium;
};

static int transfer(struct medium *medium, const struct disk_io *io)
{
	uint64_t at = io->off_bytes;

	for (uint32_t i = 0; i < io->iov_count; i++) {
		if (io->op == DISK_WRITE)
			medium_write(medium, at, io->iov[i].iov_base, io->iov[i].iov_len);
		else if (io->op == DISK_READ)
			medium_read(medium, at, io->iov[i].iov_base, io->iov[i].iov_len);
		at += io->iov[i].iov_len;
	}
	return 0;
}

void medium_let_go(struct medium *medium)
{
	for (uint32_t i = 0; i < medium->held_count; i++)
		disk_done_later(medium->held[i], transfer(medium, medium->held[i]));
	medium->held_count = 0;
}

static void medium_submit(struct disk *disk, struct disk_io *io)
{
	struct medium_disk *md = container_of(disk, struct medium_disk, disk);
	struct medium *medium = md->medium;
	int res;

	medium->reads += io->op == DISK_READ;
	medium->writes += io->op == DISK_WRITE;
	medium->flushes += io->op == DISK_FLUSH;
	res = medium->fault ? medium->fault(medium, io) : 0;
	if (!res && md->media->logging && io->op == DISK_WRITE)
		log_write(md->media, medium->index, io);
	if (!res && md->media->logging && io->op == DISK_FLUSH)
		log_add(md->media, medium->index)->flush = true;
	if (!res && medium->hold && medium->hold(medium, io)) {
		assert_true(medium->held_count < HELD_MAX);
		medium->held[medium->held_count++] = io;
		return;
	}
	if (!res)
		res = transfer(medium, io);
	disk_done_later(io, res);
}

static void medium_close(struct disk *disk)
{
	free(container_of(disk, struct medium_disk, disk));
}

static const struct disk_ops medium_ops = { .scheme = "medium", .submit = medium_submit, .close = medium_close };

void media_open(struct media *media, struct disk **disks)
{
	for (uint32_t i = 0; i < media->count; i++) {
		struct medium_disk *md = calloc(1, sizeof(*md));

		assert_non_null(md);
		disk_init(&md->disk, &medium_ops, media->medium[i].size_bytes,
			  media->medium[i].size_bytes % PAGE ? SECTOR : PAGE);
		md->disk.uri = malloc(24);
		assert_non_null(md->disk.uri);
		snprintf(md->disk.uri, 24, "medium:%u", i);
		md->media = media;
		md->medium = &media->medium[i];
		disks[i] = &md->disk;
	}
}

/* --- environment -------------------------------------------------------------------------------------------------- */

static uint64_t env_state;

void env_seed(uint64_t seed)
{
	env_state = seed;
}

static void (*between_turns)(void);

void env_between_turns(void (*fn)(void))
{
	between_turns = fn;
}

static uint64_t env_now_ns(struct loop *loop)
{
	return 1;
}

static uint64_t env_random(struct loop *loop)
{
	return scramble(env_state += 0x9e3779b97f4a7c15ull);
}

static void env_wake(struct loop *loop)
{
}

static const struct loop_ops env_ops = {
	.now_ns = env_now_ns,
	.wall_s = env_now_ns,
	.random = env_random,
	.wake = env_wake,
};

void run_fiber(void (*fn)(void *arg), void *arg)
{
	struct loop loop, *previous;

	loop_init(&loop, &env_ops, 0);
	previous = loop_enter(&loop);
	assert_int_equal(fiber_start(&loop, fn, arg), 0);
	while (loop_turn(&loop) || loop_has_ready(&loop))
		if (between_turns)
			between_turns();
	loop_enter(previous);
	loop_fini(&loop);
}
