/* Hostile guest memory: region tables that lie, files that shrink under the server, rings laid where no ring fits. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include "tests/client/hostile.h"
#include "tests/client/pattern.h"

#define REGION_BYTES (1u << 20)
#define MANY_SLOTS 4096

static struct vc *half_open(struct bed *bed)
{
	struct vc_options options = bed_options(bed);
	options.region_bytes = 2u << 20;
	options.regions = 2;
	return bed_connect(bed, &options);
}

/* ---- single regions that are no good ---- */

struct bad_region {
	const char *name;
	struct vu_region region;
};

#define FILE_BYTES (VC_FILE_OFFSET_BYTES + (2u << 20))
#define UVA 0x500000000000ull

static const struct bad_region bad_regions[] = {
	{ "size 0", { VC_GPA_BASE, 0, UVA, 0 } },
	{ "larger than its file", { VC_GPA_BASE, FILE_BYTES + 4096, UVA, 0 } },
	{ "much larger than its file", { VC_GPA_BASE, 1ull << 46, UVA, 0 } },
	{ "offset and size exceed the file", { VC_GPA_BASE, 2u << 20, UVA, VC_FILE_OFFSET_BYTES + 4096 } },
	{ "offset behind the file", { VC_GPA_BASE, 4096, UVA, 1ull << 40 } },
	{ "offset and size overflow", { VC_GPA_BASE, 8192, UVA, UINT64_MAX - 4095 } },
	{ "negative offset", { VC_GPA_BASE, 4096, UVA, 0x8000000000000000ull } },
	{ "guest address wraps", { UINT64_MAX - 4095, 8192, UVA, 0 } },
	{ "user address wraps", { VC_GPA_BASE, 8192, UINT64_MAX - 4095, 0 } },
	{ "size is all ones", { 0, UINT64_MAX, 0, 0 } },
	{ "size is all ones, addresses high", { VC_GPA_BASE, UINT64_MAX - 4095, UVA, 4096 } },
};

static enum verdict bad_region_is_refused(struct bed *bed, const struct bad_region *bad, bool by_slot)
{
	char what[120];
	AUTO_VC vc = half_open(bed);
	CHECK(bed, vc != NULL, "%s", bed->why);
	struct vu_mem_table table = { .count = 1, .region[0] = bad->region };
	struct vu_mem_reg reg = { .region = bad->region };
	snprintf(what, sizeof(what), "%s of a region: %s", by_slot ? "ADD_MEM_REG" : "SET_MEM_TABLE", bad->name);
	enum answer answer = by_slot ? hostile_ask(vc, VU_ADD_MEM_REG, &reg, sizeof(reg), &vc->region[0].fd, 1)
				     : hostile_ask(vc, VU_SET_MEM_TABLE, &table, 40, &vc->region[0].fd, 1);
	return hostile_is_refused(bed, answer, what) ? PASS : FAIL;
}

static enum verdict regions_out_of_bounds(struct bed *bed, const void *arg)
{
	const bool *by_slot = arg;
	for (unsigned i = 0; i < sizeof(bad_regions) / sizeof(bad_regions[0]); i++) {
		if (bad_region_is_refused(bed, &bad_regions[i], *by_slot) != PASS)
			return FAIL;
	}
	return PASS;
}

/* An offset that is no multiple of the page may be refused or served, but not trip the server. */
static enum verdict unaligned_region(struct bed *bed, const void *arg)
{
	(void)arg;
	for (uint64_t odd = 1; odd < 4096; odd = odd * 3 + 1) {
		AUTO_VC vc = half_open(bed);
		CHECK(bed, vc != NULL, "%s", bed->why);
		struct vu_mem_table table = { .count = 1,
					      .region[0] = { VC_GPA_BASE + odd, 4096 + odd, UVA + odd, odd } };
		enum answer answer = hostile_ask(vc, VU_SET_MEM_TABLE, &table, 40, &vc->region[0].fd, 1);
		CHECK(bed, answer != ANSWER_NONE, "offset %llu: neither answered nor closed", (unsigned long long)odd);
	}
	return PASS;
}

/* ---- tables ---- */

static enum verdict table_is_refused(struct bed *bed, struct vc *vc, const struct vu_mem_table *table,
				     uint32_t size_bytes, unsigned fds, const char *what)
{
	int fd[8];
	for (unsigned i = 0; i < 8; i++)
		fd[i] = vc->region[i & 1].fd;
	enum answer answer = hostile_ask(vc, VU_SET_MEM_TABLE, table, size_bytes, fd, fds);
	return hostile_is_refused(bed, answer, what) ? PASS : FAIL;
}

static enum verdict overlapping_regions(struct bed *bed, const void *arg)
{
	static const struct {
		const char *name;
		struct vu_region second;
	} cases[] = {
		{ "SET_MEM_TABLE with the same region twice", { VC_GPA_BASE, REGION_BYTES, UVA, 0 } },
		{ "guest addresses overlap in the last byte", { VC_GPA_BASE + REGION_BYTES - 1, 4096, UVA * 2, 0 } },
		{ "second region within the first", { VC_GPA_BASE + 4096, 4096, UVA * 2, 0 } },
		{ "second region before and into the first", { VC_GPA_BASE - 4096, 8192, UVA * 2, 0 } },
		{ "user addresses overlap", { VC_GPA_BASE * 4, REGION_BYTES, UVA + REGION_BYTES - 4096, 0 } },
	};
	(void)arg;
	for (unsigned i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		AUTO_VC vc = half_open(bed);
		CHECK(bed, vc != NULL, "%s", bed->why);
		struct vu_mem_table table = { .count = 2,
					      .region = { { VC_GPA_BASE, REGION_BYTES, UVA, 0 }, cases[i].second } };
		if (table_is_refused(bed, vc, &table, 8 + 2 * 32, 2, cases[i].name) != PASS)
			return FAIL;
	}
	return PASS;
}

static enum verdict overlapping_slots(struct bed *bed, const void *arg)
{
	(void)arg;
	AUTO_VC vc = half_open(bed);
	CHECK(bed, vc != NULL, "%s", bed->why);
	if (!vc_has_protocol(vc, VU_P_CONFIGURE_MEM_SLOTS))
		return bed_skip(bed, "CONFIGURE_MEM_SLOTS is not offered");
	CHECK(bed, vc_region_share(vc, 0) == 0, "%s", vc->error);
	struct vu_mem_reg reg = { .region = vc_region_wire(vc, 0) };
	reg.region.gpa += 4096;
	reg.region.uva += UVA;
	reg.region.size_bytes -= 4096;
	enum answer answer = hostile_ask(vc, VU_ADD_MEM_REG, &reg, sizeof(reg), &vc->region[0].fd, 1);
	return hostile_is_refused(bed, answer, "ADD_MEM_REG over a region that is there") ? PASS : FAIL;
}

static enum verdict wrong_region_counts(struct bed *bed, const void *arg)
{
	static const uint32_t counts[] = { 2, 7, 9, 0x10000, 0x08000001, 0x80000000, 0xffffffff };
	(void)arg;
	for (unsigned i = 0; i < sizeof(counts) / sizeof(counts[0]); i++) {
		AUTO_VC vc = half_open(bed);
		CHECK(bed, vc != NULL, "%s", bed->why);
		struct vu_mem_table table = { .count = counts[i], .region[0] = vc_region_wire(vc, 0) };
		char what[100];
		snprintf(what, sizeof(what), "SET_MEM_TABLE of one region that says %u", counts[i]);
		if (table_is_refused(bed, vc, &table, 40, 1, what) != PASS)
			return FAIL;
	}
	return PASS;
}

static enum verdict empty_table(struct bed *bed, const void *arg)
{
	struct vc_options options = bed_options(bed);
	struct vu_mem_table table = { .count = 0 };
	(void)arg;
	AUTO_VC vc = bed_open(bed, &options);
	CHECK(bed, vc != NULL, "%s", bed->why);
	enum answer answer = hostile_ask(vc, VU_SET_MEM_TABLE, &table, 8, NULL, 0);
	CHECK(bed, answer != ANSWER_NONE, "neither answered nor closed");
	vc_notify(&vc->ring[0]);
	usleep(20000);
	return PASS;
}

static enum verdict strange_memory_files(struct bed *bed, const void *arg)
{
	int pair[2];
	(void)arg;
	CHECK(bed, socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) == 0, "no socket pair");
	AUTO_FD socket_a = pair[0];
	AUTO_FD socket_b = pair[1];
	AUTO_FD event_fd = eventfd(0, EFD_CLOEXEC);
	AUTO_FD null_fd = open("/dev/null", O_RDWR | O_CLOEXEC);
	AUTO_FD directory = open("/", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	AUTO_FD empty = memfd_create("empty", MFD_CLOEXEC);
	AUTO_FD read_only = open("/proc/self/exe", O_RDONLY | O_CLOEXEC);
	int fd[] = { socket_a, event_fd, null_fd, directory, empty, read_only };
	(void)socket_b;
	for (unsigned i = 0; i < sizeof(fd) / sizeof(fd[0]); i++) {
		AUTO_VC vc = half_open(bed);
		CHECK(bed, vc != NULL, "%s", bed->why);
		struct vu_mem_table table = { .count = 1, .region[0] = { VC_GPA_BASE, 4096, UVA, 0 } };
		char what[100];
		snprintf(what, sizeof(what), "SET_MEM_TABLE on a descriptor of kind %u", i);
		if (!hostile_is_refused(bed, hostile_ask(vc, VU_SET_MEM_TABLE, &table, 40, &fd[i], 1), what))
			return FAIL;
	}
	return PASS;
}

static enum verdict too_many_slots(struct bed *bed, const void *arg)
{
	(void)arg;
	AUTO_VC vc = half_open(bed);
	CHECK(bed, vc != NULL, "%s", bed->why);
	if (!vc_has_protocol(vc, VU_P_CONFIGURE_MEM_SLOTS))
		return bed_skip(bed, "CONFIGURE_MEM_SLOTS is not offered");
	enum answer answer = ANSWER_DONE;
	unsigned added = 0;
	while (added < MANY_SLOTS && answer == ANSWER_DONE) {
		struct vu_mem_reg reg = { .region = { VC_GPA_BASE + added * 8192ull, 4096, UVA + added * 8192ull, 0 } };
		answer = hostile_ask(vc, VU_ADD_MEM_REG, &reg, sizeof(reg), &vc->region[0].fd, 1);
		added++;
	}
	char what[100];
	snprintf(what, sizeof(what), "ADD_MEM_REG number %u", added);
	return hostile_is_refused(bed, answer, what) ? PASS : FAIL;
}

static enum verdict unknown_slot_removed(struct bed *bed, const void *arg)
{
	(void)arg;
	for (unsigned i = 0; i < 4; i++) {
		AUTO_VC vc = half_open(bed);
		CHECK(bed, vc != NULL, "%s", bed->why);
		if (!vc_has_protocol(vc, VU_P_CONFIGURE_MEM_SLOTS))
			return bed_skip(bed, "CONFIGURE_MEM_SLOTS is not offered");
		CHECK(bed, vc_region_share(vc, 0) == 0, "%s", vc->error);
		struct vu_mem_reg reg = { .region = vc_region_wire(vc, 0) };
		reg.region.gpa += i == 0 ? 4096 : 0;
		reg.region.uva += i == 1 ? 4096 : 0;
		reg.region.size_bytes -= i == 2 ? 4096 : 0;
		if (i == 3)
			reg.region = (struct vu_region){ UINT64_MAX, UINT64_MAX, UINT64_MAX, UINT64_MAX };
		enum answer answer = hostile_ask(vc, VU_REM_MEM_REG, &reg, sizeof(reg), NULL, 0);
		if (!hostile_is_refused(bed, answer, "REM_MEM_REG of a region that is not there"))
			return FAIL;
	}
	return PASS;
}

/* ---- changes while running ---- */

/* Keeps the ring full of reads from the buffers at `gpa`; completions are not looked at. */
static void keep_busy(struct vc *vc, uint64_t gpa, uint32_t len_bytes, unsigned requests)
{
	struct vc_seg seg = { .gpa = gpa, .len_bytes = len_bytes };
	for (unsigned i = 0; i < requests; i++) {
		struct vc_request request = { .type = i & 1 ? VIRTIO_BLK_T_OUT : VIRTIO_BLK_T_IN,
					      .sector = 1024 + i * 8,
					      .seg = &seg,
					      .segs = 1 };
		if (vc_submit(vc, 0, &request) < 0)
			break;
	}
	vc_kick(vc, 0);
}

static enum verdict region_removed_while_used(struct bed *bed, const void *arg)
{
	const unsigned *region = arg;
	for (unsigned round = 0; round < 20; round++) {
		struct vc_options options = bed_options(bed);
		options.regions = 2;
		options.mem_slots = true;
		AUTO_VC vc = bed_connect(bed, &options);
		CHECK(bed, vc != NULL, "%s", bed->why);
		if (!vc_has_protocol(vc, VU_P_CONFIGURE_MEM_SLOTS))
			return bed_skip(bed, "CONFIGURE_MEM_SLOTS is not offered");
		CHECK(bed, vc_start(vc) == 0, "%s", vc->error);
		keep_busy(vc, vc_alloc_in(vc, 1, 65536, 4096), 65536, 32);
		int rc = vc_region_unshare(vc, *region);
		CHECK(bed, rc != -ETIMEDOUT, "REM_MEM_REG: neither answered nor closed");
		vc_notify(&vc->ring[0]);
		rc = vc_ring_stop(vc, 0);
		CHECK(bed, rc != -ETIMEDOUT, "GET_VRING_BASE: neither answered nor closed");
	}
	return PASS;
}

static enum verdict table_replaced_while_used(struct bed *bed, const void *arg)
{
	(void)arg;
	for (unsigned round = 0; round < 20; round++) {
		struct vc_options options = bed_options(bed);
		AUTO_VC vc = bed_open(bed, &options);
		CHECK(bed, vc != NULL, "%s", bed->why);
		keep_busy(vc, vc_alloc(vc, 65536), 65536, 32);
		AUTO_FD other = memfd_create("replaced", MFD_CLOEXEC);
		CHECK(bed, ftruncate(other, 4096) == 0, "no file");
		struct vu_mem_table table = { .count = 1, .region[0] = { 0, 4096, UVA, 0 } };
		enum answer answer = hostile_ask(vc, VU_SET_MEM_TABLE, &table, 40, &other, 1);
		CHECK(bed, answer != ANSWER_NONE, "SET_MEM_TABLE: neither answered nor closed");
		vc_notify(&vc->ring[0]);
		int rc = vc_ring_stop(vc, 0);
		CHECK(bed, rc != -ETIMEDOUT, "GET_VRING_BASE: neither answered nor closed");
	}
	return PASS;
}

/* ---- files that shrink (SIGBUS) ---- */

static enum verdict data_file_shrinks(struct bed *bed, const void *arg)
{
	const unsigned *when = arg; /* 0: before, 1: after the requests are offered */
	struct vc_options options = bed_options(bed);
	options.regions = 2;
	AUTO_VC vc = bed_open(bed, &options);
	CHECK(bed, vc != NULL, "%s", bed->why);
	uint64_t gpa = vc_alloc_in(vc, 1, 65536, 4096);
	memset(vc_ptr(vc, gpa, 65536), 1, 65536);
	if (*when == 0)
		CHECK(bed, ftruncate(vc->region[1].fd, 0) == 0, "cannot shrink");
	keep_busy(vc, gpa, 65536, 32);
	CHECK(bed, ftruncate(vc->region[1].fd, 0) == 0, "cannot shrink");
	keep_busy(vc, gpa, 65536, 8);
	usleep(50000);
	int rc = vc_ring_stop(vc, 0);
	CHECK(bed, rc != -ETIMEDOUT, "GET_VRING_BASE: neither answered nor closed");
	return PASS;
}

/* After this we may not touch our own ring any more either: only messages and kicks follow. */
static enum verdict ring_file_shrinks(struct bed *bed, const void *arg)
{
	const unsigned *left_bytes = arg;
	struct vc_options options = bed_options(bed);
	AUTO_VC vc = bed_open(bed, &options);
	CHECK(bed, vc != NULL, "%s", bed->why);
	keep_busy(vc, vc_alloc(vc, 65536), 65536, 32);
	CHECK(bed, ftruncate(vc->region[0].fd, *left_bytes) == 0, "cannot shrink");
	for (unsigned i = 0; i < 10; i++) {
		vc_notify(&vc->ring[0]);
		usleep(5000);
	}
	struct vu_state state = { .index = 0 };
	struct vu_message reply;
	int rc = vc_ask(vc, VU_GET_VRING_BASE, &state, sizeof(state), &reply);
	CHECK(bed, rc != -ETIMEDOUT, "GET_VRING_BASE: neither answered nor closed");
	if (rc == 0)
		vu_close_fds(&reply);
	return PASS;
}

/* Shrunk before the ring starts: the first look at it hits a hole. */
static enum verdict ring_file_empty_at_start(struct bed *bed, const void *arg)
{
	struct vc_options options = bed_options(bed);
	(void)arg;
	AUTO_VC vc = bed_connect(bed, &options);
	CHECK(bed, vc != NULL, "%s", bed->why);
	CHECK(bed, vc_send_features(vc) == 0 && vc_share_memory(vc) == 0, "%s", vc->error);
	int event_fd[2] = { eventfd(1, EFD_CLOEXEC), eventfd(0, EFD_CLOEXEC) };
	AUTO_FD kick = event_fd[0];
	AUTO_FD call = event_fd[1];
	CHECK(bed, ftruncate(vc->region[0].fd, 0) == 0, "cannot shrink");
	struct vu_state state = { .index = 0, .num = 128 };
	struct vu_state zero = { .index = 0, .num = 0 };
	(void)vc_call(vc, VU_SET_VRING_NUM, &state, sizeof(state), NULL, 0);
	(void)vc_call(vc, VU_SET_VRING_BASE, &zero, sizeof(zero), NULL, 0);
	(void)vc_ring_send_addr(vc, 0);
	(void)vc_ring_send_fd(vc, VU_SET_VRING_CALL, 0, call);
	(void)vc_ring_send_fd(vc, VU_SET_VRING_KICK, 0, kick);
	(void)vc_ring_enable(vc, 0, true);
	usleep(50000);
	return PASS;
}

/* ---- where rings are ---- */

struct ring_place {
	const char *name;
	uint64_t desc;
	uint64_t used;
	uint64_t avail;
};

#define BASE (VC_GPA_BASE + VC_UVA_SHIFT)
#define END (BASE + (2u << 20) * 2)
#define SEAM (BASE + (2u << 20))

static const struct ring_place ring_places[] = {
	{ "all at 0", 0, 0, 0 },
	{ "outside all regions", UVA, UVA + 4096, UVA + 8192 },
	{ "descriptors at the end of memory", END - 16, BASE, BASE + 8192 },
	{ "used ring at the end of memory", BASE, END - 4, BASE + 8192 },
	{ "available ring at the end of memory", BASE, BASE + 8192, END - 2 },
	{ "descriptors wrap", UINT64_MAX - 15, BASE, BASE + 8192 },
	{ "used ring wraps", BASE, UINT64_MAX - 3, BASE + 8192 },
	{ "available ring wraps", BASE, BASE + 8192, UINT64_MAX - 1 },
	{ "guest instead of user addresses", VC_GPA_BASE, VC_GPA_BASE + 8192, VC_GPA_BASE + 16384 },
};

/* Odd places which a server may serve or refuse. */
static const struct ring_place odd_ring_places[] = {
	{ "descriptors across two regions", SEAM - 16, BASE, BASE + 8192 },
	{ "used ring across two regions", BASE, SEAM - 4, BASE + 8192 },
	{ "available ring across two regions", BASE, BASE + 8192, SEAM - 2 },
	{ "descriptors unaligned", BASE + 1, BASE + 8192, BASE + 16384 },
	{ "used ring unaligned", BASE, BASE + 8193, BASE + 16384 },
	{ "available ring unaligned", BASE, BASE + 8192, BASE + 16385 },
	{ "all three in one place", BASE, BASE, BASE },
};

static enum verdict place_ring(struct bed *bed, const struct ring_place *place, bool must_refuse)
{
	AUTO_VC vc = half_open(bed);
	CHECK(bed, vc != NULL, "%s", bed->why);
	struct vc_ring *ring = &vc->ring[0];
	CHECK(bed, vc_send_features(vc) == 0 && vc_share_memory(vc) == 0, "%s", vc->error);
	CHECK(bed, vc_ring_setup(vc, 0) == 0, "%s", vc->error);
	struct vu_addr addr = { .desc_uva = place->desc, .used_uva = place->used, .avail_uva = place->avail };
	enum answer answer = hostile_ask(vc, VU_SET_VRING_ADDR, &addr, sizeof(addr), NULL, 0);
	CHECK(bed, answer != ANSWER_NONE, "%s: neither answered nor closed", place->name);
	if (answer != ANSWER_DONE)
		return PASS;
	answer = vc_ring_enable(vc, 0, true) == 0 ? ANSWER_DONE : ANSWER_REFUSED;
	memset(vc->region[0].map, 0xff, 64);
	vc_notify(ring);
	usleep(20000);
	int rc = vc_ring_stop(vc, 0);
	CHECK(bed, rc != -ETIMEDOUT, "%s: GET_VRING_BASE neither answered nor closed", place->name);
	CHECK(bed, !must_refuse || answer != ANSWER_DONE || vc_used_idx(ring) == 0, "%s: used", place->name);
	return PASS;
}

static enum verdict impossible_ring_places(struct bed *bed, const void *arg)
{
	(void)arg;
	for (unsigned i = 0; i < sizeof(ring_places) / sizeof(ring_places[0]); i++) {
		if (place_ring(bed, &ring_places[i], true) != PASS)
			return FAIL;
	}
	return PASS;
}

static enum verdict odd_places(struct bed *bed, const void *arg)
{
	(void)arg;
	for (unsigned i = 0; i < sizeof(odd_ring_places) / sizeof(odd_ring_places[0]); i++) {
		if (place_ring(bed, &odd_ring_places[i], false) != PASS)
			return FAIL;
	}
	return PASS;
}

/* A dirty log that is too small for the memory, of any kind, asked for or not. */
static enum verdict dirty_log_too_small(struct bed *bed, const void *arg)
{
	static const struct vu_log logs[] = {
		{ 0, 0 },          { 1, 0 },      { 4096, 0 }, { UINT64_MAX, 0 }, { 4096, UINT64_MAX - 100 },
		{ 1ull << 40, 0 }, { 4096, 4096 }
	};
	(void)arg;
	for (unsigned i = 0; i < sizeof(logs) / sizeof(logs[0]); i++) {
		struct vc_options options = bed_options(bed);
		options.protocol |= VC_BIT(VU_P_LOG_SHMFD);
		AUTO_VC vc = bed_open(bed, &options);
		CHECK(bed, vc != NULL, "%s", bed->why);
		AUTO_FD file = memfd_create("log", MFD_CLOEXEC);
		CHECK(bed, ftruncate(file, 4096) == 0, "no file");
		enum answer answer = hostile_ask(vc, VU_SET_LOG_BASE, &logs[i], sizeof(logs[i]), &file, 1);
		CHECK(bed, answer != ANSWER_NONE, "log of %llu bytes: neither answered nor closed",
		      (unsigned long long)logs[i].size_bytes);
		uint64_t with_log = vc->features | VC_BIT(26);
		(void)hostile_ask(vc, VU_SET_FEATURES, &with_log, sizeof(with_log), NULL, 0);
		if (vu_is_closed(vc->sock))
			continue;
		keep_busy(vc, vc_alloc(vc, 65536), 65536, 16);
		CHECK(bed, vc_ring_stop(vc, 0) != -ETIMEDOUT, "GET_VRING_BASE: neither answered nor closed");
	}
	return PASS;
}

static const bool by_table = false;
static const bool by_slot = true;
static const unsigned ring_region = 0;
static const unsigned data_region = 1;
static const unsigned before = 0;
static const unsigned after = 1;
static const unsigned to_nothing = 0;
static const unsigned to_one_page = VC_FILE_OFFSET_BYTES + 4096;

const struct test hostile_memory_tests[] = {
	{ "memory: regions out of bounds, by table", regions_out_of_bounds, &by_table },
	{ "memory: regions out of bounds, by slot", regions_out_of_bounds, &by_slot },
	{ "memory: region at an unaligned offset", unaligned_region, NULL },
	{ "memory: regions overlap", overlapping_regions, NULL },
	{ "memory: slots overlap", overlapping_slots, NULL },
	{ "memory: region count differs from the message", wrong_region_counts, NULL },
	{ "memory: empty table while running", empty_table, NULL },
	{ "memory: files that are no memory", strange_memory_files, NULL },
	{ "memory: more slots than there are", too_many_slots, NULL },
	{ "memory: slot removed that is not there", unknown_slot_removed, NULL },
	{ "memory: slot of buffers removed while in use", region_removed_while_used, &data_region },
	{ "memory: slot of rings removed while in use", region_removed_while_used, &ring_region },
	{ "memory: table replaced while in use", table_replaced_while_used, NULL },
	{ "memory: file of buffers shrinks before use", data_file_shrinks, &before },
	{ "memory: file of buffers shrinks while in use", data_file_shrinks, &after },
	{ "memory: file of rings shrinks to nothing", ring_file_shrinks, &to_nothing },
	{ "memory: file of rings shrinks to one page", ring_file_shrinks, &to_one_page },
	{ "memory: file of rings is empty at start", ring_file_empty_at_start, NULL },
	{ "memory: rings where no memory is", impossible_ring_places, NULL },
	{ "memory: rings in odd places", odd_places, NULL },
	{ "memory: dirty log too small", dirty_log_too_small, NULL },
	{ NULL, NULL, NULL },
};
