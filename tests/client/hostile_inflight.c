/* Hostile inflight regions: of wrong size, on strange files, with contents that lie, and rewritten or shrunk while the
 * server uses them. None of this may do more harm than lose the session's own requests. */
#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <unistd.h>

#include "tests/client/hostile.h"
#include "tests/client/pattern.h"

#define RING_SIZE 128u

static struct vc *half_open(struct bed *bed)
{
	struct vc_options options = bed_options(bed);
	options.ring_size = RING_SIZE;
	return bed_connect(bed, &options);
}

/* ---- getting ---- */

static enum verdict absurd_sizes_wanted(struct bed *bed, const void *arg)
{
	static const struct vu_inflight wanted[] = {
		{ .queues = 0xffff, .ring_size = 0xffff }, { .queues = 0xffff, .ring_size = 128 },
		{ .queues = 1, .ring_size = 0xffff },      { .queues = 0, .ring_size = 128 },
		{ .queues = 1, .ring_size = 0 },           { .queues = 1, .ring_size = 3 },
	};
	(void)arg;
	for (unsigned i = 0; i < sizeof(wanted) / sizeof(wanted[0]); i++) {
		AUTO_VC vc = half_open(bed);
		CHECK(bed, vc != NULL, "%s", bed->why);
		if (!vc_has_protocol(vc, VU_P_INFLIGHT_SHMFD))
			return bed_skip(bed, "INFLIGHT_SHMFD is not offered");
		struct vu_message reply;
		struct vu_inflight got;
		int rc = vc_ask(vc, VU_GET_INFLIGHT_FD, &wanted[i], sizeof(wanted[i]), &reply);
		CHECK(bed, rc != -ETIMEDOUT, "case %u: neither answered nor closed", i);
		if (rc < 0)
			continue;
		vu_close_fds(&reply);
		memcpy(&got, reply.payload, sizeof(got));
		CHECK(bed, reply.header.size_bytes < sizeof(got) || got.size_bytes < 64u << 20,
		      "the server made a region of %llu bytes", (unsigned long long)got.size_bytes);
	}
	return PASS;
}

/* ---- setting ---- */

struct bad_inflight {
	const char *name;
	struct vu_inflight inflight;
};

#define FILE_BYTES 65536u

static const struct bad_inflight bad_inflights[] = {
	{ "size 0", { .size_bytes = 0, .queues = 1, .ring_size = RING_SIZE } },
	{ "too small for the ring", { .size_bytes = 1024, .queues = 1, .ring_size = RING_SIZE } },
	{ "larger than its file", { .size_bytes = FILE_BYTES * 2, .queues = 1, .ring_size = RING_SIZE } },
	{ "size all ones", { .size_bytes = UINT64_MAX, .queues = 1, .ring_size = RING_SIZE } },
	{ "offset behind the file",
	  { .size_bytes = 4096, .off_bytes = FILE_BYTES, .queues = 1, .ring_size = RING_SIZE } },
	{ "offset overflows",
	  { .size_bytes = 8192, .off_bytes = UINT64_MAX - 4095, .queues = 1, .ring_size = RING_SIZE } },
	{ "no queues", { .size_bytes = FILE_BYTES, .queues = 0, .ring_size = RING_SIZE } },
	{ "more queues than fit", { .size_bytes = 4096, .queues = 0xffff, .ring_size = RING_SIZE } },
	{ "ring size 0", { .size_bytes = FILE_BYTES, .queues = 1, .ring_size = 0 } },
	{ "ring size all ones", { .size_bytes = FILE_BYTES, .queues = 1, .ring_size = 0xffff } },
};

static enum verdict bad_descriptions(struct bed *bed, const void *arg)
{
	(void)arg;
	for (unsigned i = 0; i < sizeof(bad_inflights) / sizeof(bad_inflights[0]); i++) {
		char what[100];
		AUTO_VC vc = half_open(bed);
		CHECK(bed, vc != NULL, "%s", bed->why);
		if (!vc_has_protocol(vc, VU_P_INFLIGHT_SHMFD))
			return bed_skip(bed, "INFLIGHT_SHMFD is not offered");
		AUTO_FD file = memfd_create("inflight", MFD_CLOEXEC);
		CHECK(bed, ftruncate(file, FILE_BYTES) == 0, "no file");
		snprintf(what, sizeof(what), "SET_INFLIGHT_FD: %s", bad_inflights[i].name);
		enum answer answer = hostile_ask(vc, VU_SET_INFLIGHT_FD, &bad_inflights[i].inflight,
						 sizeof(struct vu_inflight), &file, 1);
		if (!hostile_is_refused(bed, answer, what))
			return FAIL;
	}
	return PASS;
}

static enum verdict strange_files(struct bed *bed, const void *arg)
{
	(void)arg;
	AUTO_FD event_fd = eventfd(0, EFD_CLOEXEC);
	AUTO_FD empty = memfd_create("inflight", MFD_CLOEXEC);
	int fd[] = { event_fd, empty };
	for (unsigned i = 0; i < 2; i++) {
		struct vu_inflight inflight = { .size_bytes = 4096, .queues = 1, .ring_size = RING_SIZE };
		AUTO_VC vc = half_open(bed);
		CHECK(bed, vc != NULL, "%s", bed->why);
		if (!vc_has_protocol(vc, VU_P_INFLIGHT_SHMFD))
			return bed_skip(bed, "INFLIGHT_SHMFD is not offered");
		enum answer answer = hostile_ask(vc, VU_SET_INFLIGHT_FD, &inflight, sizeof(inflight), &fd[i], 1);
		if (!hostile_is_refused(bed, answer, i == 0 ? "an eventfd" : "an empty file"))
			return FAIL;
	}
	return PASS;
}

/* The region was made for another ring size than the ring then has. */
static enum verdict ring_size_differs(struct bed *bed, const void *arg)
{
	(void)arg;
	AUTO_VC vc = half_open(bed);
	CHECK(bed, vc != NULL, "%s", bed->why);
	if (!vc_has_protocol(vc, VU_P_INFLIGHT_SHMFD))
		return bed_skip(bed, "INFLIGHT_SHMFD is not offered");
	vc->options.ring_size = 64;
	CHECK(bed, vc_setup_inflight(vc) == 0, "%s", vc->error);
	int rc = vc_start(vc); /* the ring itself has RING_SIZE entries */
	CHECK(bed, rc != -ETIMEDOUT, "neither answered nor closed");
	if (rc < 0)
		return PASS;
	uint64_t gpa = vc_alloc(vc, 4096);
	for (unsigned i = 0; i < 100; i++) {
		struct vc_seg seg = { .gpa = gpa, .len_bytes = 4096 };
		(void)vc_submit(vc, 0, &(struct vc_request){ .type = VIRTIO_BLK_T_IN, .seg = &seg, .segs = 1 });
	}
	vc_kick(vc, 0);
	CHECK(bed, vc_ring_stop(vc, 0) != -ETIMEDOUT, "GET_VRING_BASE: neither answered nor closed");
	return PASS;
}

/* ---- contents that lie ---- */

enum lie {
	LIE_VERSION,
	LIE_DESC_NUM_LARGE,
	LIE_DESC_NUM_ZERO,
	LIE_USED_IDX,
	LIE_BATCH_HEAD,
	LIE_BATCH_LOOP,
	LIE_ALL_IN_FLIGHT,
	LIE_ALL_ONES,
	LIE_RANDOM,
	LIES,
};

static void tell_lie(struct vu_inflight_queue *queue, uint64_t size_bytes, enum lie lie, uint64_t *random)
{
	unsigned descs = RING_SIZE;
	switch (lie) {
	case LIE_VERSION: queue->version = 0x7777; break;
	case LIE_DESC_NUM_LARGE: queue->desc_num = 0xffff; break;
	case LIE_DESC_NUM_ZERO: queue->desc_num = 0; break;
	case LIE_USED_IDX: queue->used_idx = 0x1234; break;
	case LIE_BATCH_HEAD:
		queue->last_batch_head = 0xffff;
		queue->used_idx = (uint16_t)-100;
		break;
	case LIE_BATCH_LOOP:
		queue->last_batch_head = 1;
		queue->used_idx = (uint16_t)-120;
		queue->desc[1].next = 1;
		break;
	case LIE_ALL_IN_FLIGHT:
		for (unsigned i = 0; i < descs; i++)
			queue->desc[i].inflight = 1;
		break;
	case LIE_ALL_ONES: memset(queue, 0xff, size_bytes); break;
	case LIE_RANDOM:
		for (uint64_t i = 0; i < size_bytes; i++)
			((uint8_t *)queue)[i] = (uint8_t)pattern_random(random);
		break;
	case LIES: break;
	}
}

/* A region as the server made it, spoilt by one lie, then given back as after a restart. */
static enum verdict try_lie(struct bed *bed, enum lie lie)
{
	AUTO_VC vc = half_open(bed);
	CHECK(bed, vc != NULL, "%s", bed->why);
	if (!vc_has_protocol(vc, VU_P_INFLIGHT_SHMFD))
		return bed_skip(bed, "INFLIGHT_SHMFD is not offered");
	CHECK(bed, vc_start(vc) == 0, "%s", vc->error);
	uint64_t gpa = vc_alloc(vc, 4096);
	CHECK(bed, vc_io(vc, 0, VIRTIO_BLK_T_IN, 0, gpa, 4096) == VIRTIO_BLK_S_OK, "a good read failed");
	vc_disconnect(vc);
	struct vu_inflight *inflight = &vc->inflight;
	uint8_t *map = mmap(NULL, inflight->size_bytes, PROT_READ | PROT_WRITE, MAP_SHARED, vc->inflight_fd,
			    (off_t)inflight->off_bytes);
	CHECK(bed, map != MAP_FAILED, "cannot map the inflight region");
	tell_lie((struct vu_inflight_queue *)(void *)map, inflight->size_bytes, lie, &bed->random);
	munmap(map, inflight->size_bytes);
	int rc = vc_connect(vc);
	CHECK(bed, rc == 0, "%s", vc->error);
	rc = vc_start(vc);
	CHECK(bed, rc != -ETIMEDOUT, "lie %d: neither answered nor closed", (int)lie);
	if (rc == 0) {
		usleep(20000);
		rc = vc_ring_stop(vc, 0);
		CHECK(bed, rc != -ETIMEDOUT, "lie %d: GET_VRING_BASE neither answered nor closed", (int)lie);
	}
	return PASS;
}

static enum verdict lying_contents(struct bed *bed, const void *arg)
{
	(void)arg;
	for (enum lie lie = 0; lie < LIES; lie++) {
		enum verdict verdict = try_lie(bed, lie);
		if (verdict != PASS)
			return verdict;
	}
	for (unsigned i = 0; i < bed->rounds / 10; i++) {
		if (try_lie(bed, LIE_RANDOM) != PASS)
			return FAIL;
	}
	return PASS;
}

/* ---- while live ---- */

struct scribbler {
	uint8_t *map;
	uint64_t size_bytes;
	bool stop;
};

static void *scribble(void *arg)
{
	struct scribbler *scribbler = arg;
	uint64_t random = 424242;
	while (!__atomic_load_n(&scribbler->stop, __ATOMIC_RELAXED)) {
		uint64_t bits = pattern_random(&random);
		((volatile uint8_t *)scribbler->map)[(bits >> 8) % scribbler->size_bytes] = (uint8_t)bits;
	}
	return NULL;
}

static void offer_reads(struct vc *vc, uint64_t gpa, unsigned rounds)
{
	struct vc_seg seg = { .gpa = gpa, .len_bytes = 4096 };
	struct vc_done done;
	for (unsigned i = 0; i < rounds && !vu_is_closed(vc->sock); i++) {
		while (vc_submit(vc, 0, &(struct vc_request){ .type = VIRTIO_BLK_T_IN, .seg = &seg, .segs = 1 }) >= 0)
			continue;
		vc_kick(vc, 0);
		usleep(200);
		while (vc_reap(vc, 0, &done) > 0)
			continue;
	}
}

static enum verdict rewritten_while_live(struct bed *bed, const void *arg)
{
	pthread_t thread;
	(void)arg;
	AUTO_VC vc = half_open(bed);
	CHECK(bed, vc != NULL, "%s", bed->why);
	if (!vc_has_protocol(vc, VU_P_INFLIGHT_SHMFD))
		return bed_skip(bed, "INFLIGHT_SHMFD is not offered");
	CHECK(bed, vc_start(vc) == 0, "%s", vc->error);
	struct scribbler scribbler = { .size_bytes = vc->inflight.size_bytes };
	scribbler.map = mmap(NULL, scribbler.size_bytes, PROT_READ | PROT_WRITE, MAP_SHARED, vc->inflight_fd,
			     (off_t)vc->inflight.off_bytes);
	CHECK(bed, scribbler.map != MAP_FAILED, "cannot map the inflight region");
	CHECK(bed, pthread_create(&thread, NULL, scribble, &scribbler) == 0, "no thread");
	offer_reads(vc, vc_alloc(vc, 4096), 200);
	int rc = vc_ring_stop(vc, 0);
	__atomic_store_n(&scribbler.stop, true, __ATOMIC_RELAXED);
	pthread_join(thread, NULL);
	munmap(scribbler.map, scribbler.size_bytes);
	CHECK(bed, rc != -ETIMEDOUT, "GET_VRING_BASE: neither answered nor closed");
	return PASS;
}

static enum verdict shrinks_while_live(struct bed *bed, const void *arg)
{
	(void)arg;
	AUTO_VC vc = half_open(bed);
	CHECK(bed, vc != NULL, "%s", bed->why);
	if (!vc_has_protocol(vc, VU_P_INFLIGHT_SHMFD))
		return bed_skip(bed, "INFLIGHT_SHMFD is not offered");
	CHECK(bed, vc_start(vc) == 0, "%s", vc->error);
	uint64_t gpa = vc_alloc(vc, 4096);
	offer_reads(vc, gpa, 5);
	if (ftruncate(vc->inflight_fd, 0) < 0)
		return PASS; /* sealed against it: good */
	offer_reads(vc, gpa, 50);
	CHECK(bed, vc_ring_stop(vc, 0) != -ETIMEDOUT, "GET_VRING_BASE: neither answered nor closed");
	return PASS;
}

/* A file of our own, which we can shrink even if the server seals its. */
static enum verdict own_file_shrinks(struct bed *bed, const void *arg)
{
	(void)arg;
	AUTO_VC vc = half_open(bed);
	CHECK(bed, vc != NULL, "%s", bed->why);
	if (!vc_has_protocol(vc, VU_P_INFLIGHT_SHMFD))
		return bed_skip(bed, "INFLIGHT_SHMFD is not offered");
	AUTO_FD file = memfd_create("inflight", MFD_CLOEXEC);
	CHECK(bed, ftruncate(file, FILE_BYTES) == 0, "no file");
	vc->inflight = (struct vu_inflight){ .size_bytes = FILE_BYTES, .queues = 1, .ring_size = RING_SIZE };
	vc->inflight_fd = dup(file);
	int rc = vc_start(vc);
	CHECK(bed, rc != -ETIMEDOUT, "neither answered nor closed");
	if (rc < 0)
		return PASS;
	uint64_t gpa = vc_alloc(vc, 4096);
	offer_reads(vc, gpa, 5);
	CHECK(bed, ftruncate(file, 0) == 0, "cannot shrink");
	offer_reads(vc, gpa, 50);
	CHECK(bed, vc_ring_stop(vc, 0) != -ETIMEDOUT, "GET_VRING_BASE: neither answered nor closed");
	return PASS;
}

static enum verdict replaced_while_live(struct bed *bed, const void *arg)
{
	(void)arg;
	AUTO_VC vc = half_open(bed);
	CHECK(bed, vc != NULL, "%s", bed->why);
	if (!vc_has_protocol(vc, VU_P_INFLIGHT_SHMFD))
		return bed_skip(bed, "INFLIGHT_SHMFD is not offered");
	CHECK(bed, vc_start(vc) == 0, "%s", vc->error);
	uint64_t gpa = vc_alloc(vc, 4096);
	offer_reads(vc, gpa, 2);
	AUTO_FD file = memfd_create("inflight", MFD_CLOEXEC);
	CHECK(bed, ftruncate(file, FILE_BYTES) == 0, "no file");
	struct vu_inflight inflight = { .size_bytes = FILE_BYTES, .queues = 1, .ring_size = RING_SIZE };
	enum answer answer = hostile_ask(vc, VU_SET_INFLIGHT_FD, &inflight, sizeof(inflight), &file, 1);
	CHECK(bed, answer != ANSWER_NONE, "neither answered nor closed");
	offer_reads(vc, gpa, 5);
	CHECK(bed, vc_ring_stop(vc, 0) != -ETIMEDOUT, "GET_VRING_BASE: neither answered nor closed");
	return PASS;
}

const struct test hostile_inflight_tests[] = {
	{ "inflight: absurd sizes wanted", absurd_sizes_wanted, NULL },
	{ "inflight: descriptions that do not fit", bad_descriptions, NULL },
	{ "inflight: files that are no memory", strange_files, NULL },
	{ "inflight: made for another ring size", ring_size_differs, NULL },
	{ "inflight: contents that lie", lying_contents, NULL },
	{ "inflight: rewritten while live", rewritten_while_live, NULL },
	{ "inflight: shrinks while live", shrinks_while_live, NULL },
	{ "inflight: a file of our own shrinks while live", own_file_shrinks, NULL },
	{ "inflight: replaced while live", replaced_while_live, NULL },
	{ NULL, NULL, NULL },
};
