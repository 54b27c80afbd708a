/* Stands in for volumes/ in tests of targets/: a volume that is an array. To be included by one file of a program; it
 * defines what the linker would otherwise take from volumes/.
 *
 * A submitted vio is carried out when it completes, in a later turn of the loop. With `hold` set vios gather in `held`
 * until fake_volume_release, which completes them in the order asked for; with `full` too they can be cancelled. */
#ifndef TESTS_UNIT_FAKE_VOLUME_H
#define TESTS_UNIT_FAKE_VOLUME_H

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "pool/runtime/loop.h"
#include "volumes/volume.h"

struct volume {
	struct loop *loop;
	uint8_t *data;
	uint64_t size_bytes;
	struct list watches;
	bool hold;
	bool full;                     /* what is held waits for space */
	struct list held;
	uint32_t held_count;
	int fail;                      /* what every vio completes with */
	uint64_t ops[VIO_OP_COUNT];
	uint64_t fua;                  /* vios that asked for it */
	uint64_t longest_bytes;
	bool closed;
	uint64_t epoch;
	int refuse;                    /* what claims end with */
	bool taken;                    /* by another writer */
	uint64_t claims, rests;
};

static inline void fake_volume_init(struct volume *volume, struct loop *loop, uint64_t size_bytes)
{
	*volume = (struct volume){ .loop = loop, .size_bytes = size_bytes, .data = calloc(1, size_bytes) };
	assert(volume->data);
	list_init(&volume->watches);
	list_init(&volume->held);
}

static inline void fake_volume_fini(struct volume *volume)
{
	free(volume->data);
}

static inline void fake_copy(struct volume *volume, struct vio *vio)
{
	uint64_t at = vio->off_bytes, end = vio->off_bytes + vio->len_bytes;

	for (uint32_t i = 0; i < vio->iov_count; i++) {
		const struct iovec *piece = &vio->iov[i];

		assert(piece->iov_len > 0 && at + piece->iov_len <= end);
		if (vio->op == VIO_READ)
			memcpy(piece->iov_base, volume->data + at, piece->iov_len);
		else
			memcpy(volume->data + at, piece->iov_base, piece->iov_len);
		at += piece->iov_len;
	}
	assert(at == end);
}

static inline int fake_carry_out(struct volume *volume, struct vio *vio)
{
	if (volume->fail)
		return volume->fail;
	if (vio->op == VIO_FLUSH)
		return 0;
	if (vio->off_bytes > volume->size_bytes || vio->len_bytes > volume->size_bytes - vio->off_bytes)
		return -EINVAL;
	if (vio->op == VIO_READ || vio->op == VIO_WRITE)
		fake_copy(volume, vio);
	else
		memset(volume->data + vio->off_bytes, 0, vio->len_bytes);
	return 0;
}

static inline void fake_complete(struct task *task)
{
	struct vio *vio = container_of(task, struct vio, task);

	vio->done(vio, fake_carry_out(vio->volume, vio));
}

void volume_submit(struct volume *volume, struct vio *vio)
{
	assert(vio->off_bytes % SECTOR_BYTES == 0 && vio->len_bytes % SECTOR_BYTES == 0);
	assert(vio->op == VIO_FLUSH || vio->len_bytes > 0);
	assert((vio->op != VIO_READ && vio->op != VIO_WRITE) || vio->len_bytes <= VIO_BYTES_MAX);
	vio->volume = volume;
	vio->task.fn = fake_complete;
	volume->ops[vio->op]++;
	volume->fua += vio->fua;
	if (vio->len_bytes > volume->longest_bytes)
		volume->longest_bytes = vio->len_bytes;
	if (volume->hold) {
		list_push_back(&volume->held, &vio->node);
		volume->held_count++;
	} else {
		loop_post(volume->loop, &vio->task);
	}
}

/* Completes the held vios, oldest or newest first. */
static inline void fake_volume_release(struct volume *volume, bool newest_first)
{
	while (!list_empty(&volume->held)) {
		struct list *node = newest_first ? volume->held.prev : volume->held.next;

		list_del(node);
		volume->held_count--;
		loop_post(volume->loop, &list_entry(node, struct vio, node)->task);
	}
}

static inline void fake_volume_resize(struct volume *volume, uint64_t size_bytes)
{
	volume->data = realloc(volume->data, size_bytes);
	assert(volume->data);
	if (size_bytes > volume->size_bytes)
		memset(volume->data + volume->size_bytes, 0, size_bytes - volume->size_bytes);
	volume->size_bytes = size_bytes;
	list_for_each_safe(node, next, &volume->watches) {
		struct volume_watch *watch = list_entry(node, struct volume_watch, node);

		watch->resized(watch);
	}
}

static inline void fake_cancel(struct task *task)
{
	struct vio *vio = container_of(task, struct vio, task);

	vio->done(vio, -ECANCELED);
}

void volume_cancel(struct volume *volume)
{
	if (!volume->full)
		return;
	list_for_each_safe(node, next, &volume->held) {
		struct vio *vio = list_entry(node, struct vio, node);

		if (!vio->cancelled || !*vio->cancelled)
			continue;
		list_del(node);
		volume->held_count--;
		vio->task.fn = fake_cancel;
		loop_post(volume->loop, &vio->task);
	}
}

uint64_t volume_size_bytes(const struct volume *volume)
{
	return volume->size_bytes;
}

struct loop *volume_loop(const struct volume *volume)
{
	return volume->loop;
}

void volume_close(struct volume *volume)
{
	volume->closed = true;
}

struct volume *volume_dup(const struct volume *volume)
{
	return NULL;
}

uint64_t volume_id(const struct volume *volume)
{
	return 1;
}

int volume_activate(struct volume *volume, const struct volume_claim *claim, struct err *err)
{
	if (volume->refuse)
		return err_set(err, volume->refuse, "refused");
	if (claim->epoch != volume->epoch)
		return err_set(err, -ESTALE, "stale");
	volume->epoch++;
	volume->claims++;
	return 0;
}

int volume_resume(struct volume *volume, struct err *err)
{
	return volume->refuse ? err_set(err, volume->refuse, "refused") : 0;
}

void volume_rest(struct volume *volume)
{
	volume->rests++;
}

uint64_t volume_epoch(const struct volume *volume)
{
	return volume->epoch;
}

bool volume_is_held(const struct volume *volume)
{
	return volume->taken;
}

void volume_watch_add(struct volume *volume, struct volume_watch *watch)
{
	list_push_back(&volume->watches, &watch->node);
}

void volume_watch_del(struct volume_watch *watch)
{
	list_del(&watch->node);
}

#endif
