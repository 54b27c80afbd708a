/* Semantics of the log of written pages, and of RESET_DEVICE. */
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "tests/client/semantics.h"

#define LOG_BYTES 262144u /* up to address 8 GiB; and 100 more, as logs are of any length */
#define PAGE_BYTES 4096u
#define F_LOG_ALL 26

struct log {
	uint8_t *bits;
	int fd;
};

static void log_auto_close(struct log *log)
{
	if (log->bits)
		munmap(log->bits, LOG_BYTES);
	if (log->fd >= 0)
		close(log->fd);
}
#define AUTO_LOG __attribute__((cleanup(log_auto_close))) struct log

static bool log_open(struct log *log)
{
	log->fd = memfd_create("log", MFD_CLOEXEC);
	if (log->fd < 0 || ftruncate(log->fd, LOG_BYTES + 100) < 0)
		return false;
	log->bits = mmap(NULL, LOG_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, log->fd, 0);
	return log->bits != MAP_FAILED;
}

static bool take(const struct log *log, uint64_t gpa)
{
	uint64_t page = gpa / PAGE_BYTES;
	uint8_t bit = (uint8_t)(1u << page % 8);

	return __atomic_fetch_and(&log->bits[page / 8], (uint8_t)~bit, __ATOMIC_ACQ_REL) & bit;
}

static bool is_empty(const struct log *log)
{
	for (unsigned i = 0; i < LOG_BYTES; i++)
		if (log->bits[i])
			return false;
	return true;
}

/* While the ring runs, as a front end does that begins to migrate. */
static bool start_log(struct vc *vc, const struct log *log, bool on)
{
	struct vu_log base = { LOG_BYTES + 100, 0 };
	uint64_t features = vc->features | (on ? VC_BIT(F_LOG_ALL) : 0);
	struct vu_addr addr = {
		.flags = on,
		.desc_uva = vc->ring[0].desc_gpa + VC_UVA_SHIFT,
		.avail_uva = vc->ring[0].avail_gpa + VC_UVA_SHIFT,
		.used_uva = vc->ring[0].used_gpa + VC_UVA_SHIFT,
		.log_gpa = vc->ring[0].used_gpa,
	};

	return vc_call(vc, VU_SET_LOG_BASE, &base, sizeof(base), &log->fd, 1) == 0 &&
	       vc_call(vc, VU_SET_FEATURES, &features, sizeof(features), NULL, 0) == 0 &&
	       vc_call(vc, VU_SET_VRING_ADDR, &addr, sizeof(addr), NULL, 0) == 0;
}

static struct vc *open_with_log(struct bed *bed)
{
	struct vc_options options = bed_options(bed);

	options.protocol |= VC_BIT(VU_P_LOG_SHMFD) | VC_BIT(VU_P_RESET_DEVICE);
	return bed_open(bed, &options);
}

/* What a request has written is in the log: its data, its status, the used ring; and nothing else is. */
static enum verdict what_is_written_is_logged(struct bed *bed, const void *arg)
{
	AUTO_LOG log = { NULL, -1 };
	(void)arg;
	AUTO_VC vc = open_with_log(bed);
	CHECK(bed, vc != NULL, "%s", bed->why);
	CHECK(bed, vc->features_offered & VC_BIT(F_LOG_ALL), "LOG_ALL is not offered");
	CHECK(bed, log_open(&log) && start_log(vc, &log, true), "%s", vc->error);
	uint64_t gpa = vc_alloc(vc, 8 * PAGE_BYTES), used = vc->ring[0].used_gpa;
	uint64_t status = vc_slot_status_gpa(&vc->ring[0], vc->ring[0].free_head);

	CHECK(bed, vc_io(vc, 0, VIRTIO_BLK_T_IN, 0, gpa + PAGE_BYTES, 3 * PAGE_BYTES) == 0, "a read");
	for (unsigned i = 0; i < 8; i++)
		CHECK(bed, take(&log, gpa + i * PAGE_BYTES) == (i >= 1 && i <= 3), "page %u of the buffer is wrong in the log", i);
	CHECK(bed, take(&log, used) && take(&log, status), "used ring or status are not in the log");
	for (unsigned i = 1; i <= 8 * vc->ring[0].size / PAGE_BYTES + 1; i++)
		(void)take(&log, used + i * PAGE_BYTES);
	CHECK(bed, is_empty(&log), "more is in the log than was written");

	CHECK(bed, vc_io(vc, 0, VIRTIO_BLK_T_OUT, 0, gpa, 4 * PAGE_BYTES) == 0, "a write");
	for (unsigned i = 0; i < 8; i++)
		CHECK(bed, !take(&log, gpa + i * PAGE_BYTES), "what was read from is in the log");
	CHECK(bed, take(&log, used), "the used ring is not in the log");
	return PASS;
}

static enum verdict nothing_is_logged_when_off(struct bed *bed, const void *arg)
{
	AUTO_LOG log = { NULL, -1 };
	(void)arg;
	AUTO_VC vc = open_with_log(bed);
	CHECK(bed, vc != NULL, "%s", bed->why);
	CHECK(bed, log_open(&log) && start_log(vc, &log, true) && start_log(vc, &log, false), "%s", vc->error);
	memset(log.bits, 0, LOG_BYTES);
	CHECK(bed, vc_io(vc, 0, VIRTIO_BLK_T_IN, 0, vc_alloc(vc, PAGE_BYTES), PAGE_BYTES) == 0, "a read");
	CHECK(bed, is_empty(&log), "the log is off, and not empty");
	return PASS;
}

/* After a reset the rings are as at first: stopped, and start again. */
static enum verdict device_is_reset(struct bed *bed, const void *arg)
{
	(void)arg;
	AUTO_VC vc = open_with_log(bed);
	CHECK(bed, vc != NULL, "%s", bed->why);
	uint64_t gpa = vc_alloc(vc, PAGE_BYTES);
	CHECK(bed, vc_io(vc, 0, VIRTIO_BLK_T_IN, 0, gpa, PAGE_BYTES) == 0, "a read");
	CHECK(bed, vc_call(vc, VU_RESET_DEVICE, NULL, 0, NULL, 0) == 0, "%s", vc->error);
	vc_notify(&vc->ring[0]);
	CHECK(bed, stays_quiet(&vc->ring[0], vc_used_idx(&vc->ring[0])), "a ring runs after the reset");
	vc_rings_reset(vc);
	CHECK(bed, vc_ring_setup(vc, 0) == 0 && vc_ring_enable(vc, 0, true) == 0, "%s", vc->error);
	CHECK(bed, vc_io(vc, 0, VIRTIO_BLK_T_IN, 0, gpa, PAGE_BYTES) == 0, "a read after the reset");
	return PASS;
}

const struct test semantics_log_tests[] = {
	{ "log: what is written is in it, and nothing else", what_is_written_is_logged, NULL },
	{ "log: nothing when it is off", nothing_is_logged_when_off, NULL },
	{ "reset: rings stop and start anew", device_is_reset, NULL },
	{ NULL, NULL, NULL },
};
