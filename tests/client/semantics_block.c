/* Semantics of block requests: data, flush, discard, write zeroes, identity, and 512-byte sectors in 4 KiB blocks, all
 * against a model in plain memory.
 *
 * The area under test starts at AREA_SECTOR; `struct area` holds what each of its sectors must contain. */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "tests/client/pattern.h"
#include "tests/client/semantics.h"

#define AREA_SECTOR 4096u
#define AREA_SECTORS 64u
#define SECTOR_BYTES 512u
#define AREA_BYTES (AREA_SECTORS * SECTOR_BYTES)

struct area {
	struct bed *bed;
	struct vc *vc;
	uint64_t gpa; /* AREA_BYTES for requests */
	uint8_t *data;
	uint8_t model[AREA_BYTES];
	uint32_t version;
};

static void area_auto_close(struct area *area)
{
	vc_destroy(area->vc);
}
#define AUTO_AREA __attribute__((cleanup(area_auto_close))) struct area

static bool area_open(struct area *area, struct bed *bed)
{
	struct vc_options options = bed_options(bed);
	area->bed = bed;
	area->version = 1;
	area->vc = bed_open(bed, &options);
	if (area->vc == NULL)
		return false;
	area->gpa = vc_alloc(area->vc, AREA_BYTES);
	area->data = vc_ptr(area->vc, area->gpa, AREA_BYTES);
	return true;
}

/* Writes sectors of the area with new data, and the model. The status, or -errno. */
static int area_write(struct area *area, unsigned first, unsigned sectors)
{
	for (unsigned i = 0; i < sectors; i++)
		pattern_fill(area->data + i * SECTOR_BYTES, SECTOR_BYTES, first + i, area->version++, 7);
	memcpy(area->model + first * SECTOR_BYTES, area->data, sectors * SECTOR_BYTES);
	return vc_io(area->vc, 0, VIRTIO_BLK_T_OUT, AREA_SECTOR + first, area->gpa, sectors * SECTOR_BYTES);
}

/* Reads sectors and compares; -1 if they are as they must be, else the first sector that is not, or -2 on error. */
static int area_compare(struct area *area, unsigned first, unsigned sectors)
{
	memset(area->data, 0xdb, AREA_BYTES);
	int rc = vc_io(area->vc, 0, VIRTIO_BLK_T_IN, AREA_SECTOR + first, area->gpa, sectors * SECTOR_BYTES);
	if (rc != VIRTIO_BLK_S_OK)
		return -2;
	for (unsigned i = 0; i < sectors; i++) {
		if (memcmp(area->data + i * SECTOR_BYTES, area->model + (first + i) * SECTOR_BYTES, SECTOR_BYTES) != 0)
			return (int)(first + i);
	}
	return -1;
}

static bool area_is_as_model(struct area *area, const char *after)
{
	int wrong = area_compare(area, 0, AREA_SECTORS);
	if (wrong == -1)
		return true;
	bed_fail(area->bed, "%s: %s %d", after, wrong == -2 ? "cannot read" : "wrong data in sector", wrong);
	return false;
}

/* ---- reads and writes ---- */

static enum verdict used_length(struct bed *bed, const void *arg)
{
	struct vc_options options = bed_options(bed);
	struct vc_done done;
	(void)arg;
	AUTO_VC vc = bed_open(bed, &options);
	CHECK(bed, vc != NULL, "%s", bed->why);
	struct vc_seg seg = { .gpa = vc_alloc(vc, 4096), .len_bytes = 4096 };
	struct vc_request request = { .type = VIRTIO_BLK_T_IN, .seg = &seg, .segs = 1 };
	CHECK(bed, vc_submit(vc, 0, &request) >= 0, "the ring is full");
	vc_kick(vc, 0);
	CHECK(bed, vc_wait(vc, 0, &done, WAIT_MS) == 0 && done.status == 0, "a read failed");
	CHECK(bed, done.len_bytes == 4097, "a read of 4096 bytes says %u bytes were written to memory", done.len_bytes);
	request.type = VIRTIO_BLK_T_OUT;
	CHECK(bed, vc_submit(vc, 0, &request) >= 0, "the ring is full");
	vc_kick(vc, 0);
	CHECK(bed, vc_wait(vc, 0, &done, WAIT_MS) == 0 && done.status == 0, "a write failed");
	CHECK(bed, done.len_bytes == 1, "a write says %u bytes were written to memory", done.len_bytes);
	return PASS;
}

/* Every first sector and every length within two blocks, each checked with its surroundings. */
static enum verdict sectors_merge_at_every_offset(struct bed *bed, const void *arg)
{
	(void)arg;
	AUTO_AREA area;
	CHECK(bed, area_open(&area, bed), "%s", bed->why);
	CHECK(bed, area_write(&area, 0, AREA_SECTORS) == 0, "cannot fill the area");
	for (unsigned first = 8; first < 24; first++) {
		for (unsigned sectors = 1; first + sectors <= 24; sectors++) {
			int rc = area_write(&area, first, sectors);
			CHECK(bed, rc == 0, "a write of %u sectors at %u: %d", sectors, first, rc);
			int wrong = area_compare(&area, 0, 32);
			CHECK(bed, wrong == -1, "after a write of %u sectors at %u: sector %d is wrong", sectors, first,
			      wrong);
		}
	}
	return PASS;
}

static enum verdict reads_at_every_offset(struct bed *bed, const void *arg)
{
	(void)arg;
	AUTO_AREA area;
	CHECK(bed, area_open(&area, bed), "%s", bed->why);
	CHECK(bed, area_write(&area, 0, AREA_SECTORS) == 0, "cannot fill the area");
	for (unsigned first = 0; first < 24; first++) {
		for (unsigned sectors = 1; first + sectors <= 32; sectors++) {
			int wrong = area_compare(&area, first, sectors);
			CHECK(bed, wrong == -1, "a read of %u sectors at %u: sector %d is wrong", sectors, first,
			      wrong);
		}
	}
	return PASS;
}

/* All eight sectors of a block written by eight requests in flight together: none may undo another. */
static enum verdict sectors_of_one_block_at_once(struct bed *bed, const void *arg)
{
	(void)arg;
	AUTO_AREA area;
	CHECK(bed, area_open(&area, bed), "%s", bed->why);
	CHECK(bed, area_write(&area, 0, AREA_SECTORS) == 0, "cannot fill the area");
	for (unsigned round = 0; round < 200; round++) {
		unsigned block = round % 8 * 8;
		for (unsigned i = 0; i < 8; i++) {
			unsigned sector = block + (i * 3 + round) % 8;
			uint8_t *data = area.data + i * SECTOR_BYTES;
			pattern_fill(data, SECTOR_BYTES, sector, area.version++, 7);
			memcpy(area.model + sector * SECTOR_BYTES, data, SECTOR_BYTES);
			struct vc_seg seg = { .gpa = area.gpa + i * SECTOR_BYTES, .len_bytes = SECTOR_BYTES };
			struct vc_request request = { .type = VIRTIO_BLK_T_OUT,
						      .sector = AREA_SECTOR + sector,
						      .seg = &seg,
						      .segs = 1 };
			CHECK(bed, vc_submit(area.vc, 0, &request) >= 0, "the ring is full");
		}
		vc_kick(area.vc, 0);
		if (!reap_ok(bed, area.vc, 0, 8) || !area_is_as_model(&area, "eight sectors of one block at once"))
			return FAIL;
	}
	return PASS;
}

/* Random requests of any size and kind, one at a time, the whole area compared now and then. */
static enum verdict random_requests_equal_the_model(struct bed *bed, const void *arg)
{
	(void)arg;
	AUTO_AREA area;
	CHECK(bed, area_open(&area, bed), "%s", bed->why);
	CHECK(bed, area_write(&area, 0, AREA_SECTORS) == 0, "cannot fill the area");
	for (unsigned round = 0; round < bed->rounds * 10; round++) {
		uint64_t bits = pattern_random(&bed->random);
		unsigned first = (unsigned)(bits >> 8) % AREA_SECTORS;
		unsigned sectors = 1 + (unsigned)(bits >> 20) % (AREA_SECTORS - first);
		if (bits & 3) {
			CHECK(bed, area_write(&area, first, sectors) == 0, "round %u: a write failed", round);
		} else if (vc_has(area.vc, VIRTIO_BLK_F_WRITE_ZEROES)) {
			struct virtio_blk_discard_write_zeroes range = { .sector = AREA_SECTOR + first,
									 .num_sectors = sectors,
									 .flags = bits >> 2 & 1 };
			int rc = vc_ranges(area.vc, 0, VIRTIO_BLK_T_WRITE_ZEROES, &range, 1);
			CHECK(bed, rc == 0, "round %u: write zeroes answered %d", round, rc);
			memset(area.model + first * SECTOR_BYTES, 0, sectors * SECTOR_BYTES);
		}
		if (round % 5 == 0 && !area_is_as_model(&area, "random requests"))
			return FAIL;
	}
	return area_is_as_model(&area, "random requests") ? PASS : FAIL;
}

static enum verdict one_mebibyte_in_one_request(struct bed *bed, const void *arg)
{
	struct vc_options options = bed_options(bed);
	(void)arg;
	options.region_bytes = 16u << 20;
	AUTO_VC vc = bed_open(bed, &options);
	CHECK(bed, vc != NULL, "%s", bed->why);
	uint64_t gpa = vc_alloc(vc, 2u << 20);
	uint8_t *data = vc_ptr(vc, gpa, 2u << 20);
	for (unsigned i = 0; i < 256; i++)
		pattern_fill(data + i * 4096u, 4096, i, 1, 9);
	int rc = vc_io(vc, 0, VIRTIO_BLK_T_OUT, 8, gpa, 1u << 20);
	CHECK(bed, rc == 0, "a write of 1 MiB: %d %s", rc, vc->error);
	rc = vc_io(vc, 0, VIRTIO_BLK_T_IN, 8, gpa + (1u << 20), 1u << 20);
	CHECK(bed, rc == 0, "a read of 1 MiB: %d %s", rc, vc->error);
	CHECK(bed, memcmp(data, data + (1u << 20), 1u << 20) == 0, "1 MiB read differs from what was written");
	return PASS;
}

/* ---- flush, identity ---- */

static enum verdict flushes(struct bed *bed, const void *arg)
{
	(void)arg;
	AUTO_AREA area;
	CHECK(bed, area_open(&area, bed), "%s", bed->why);
	if (!vc_has(area.vc, VIRTIO_BLK_F_FLUSH))
		return bed_skip(bed, "FLUSH is not offered");
	CHECK(bed, vc_flush(area.vc, 0) == 0, "a flush before any write failed");
	for (unsigned i = 0; i < 10; i++) {
		CHECK(bed, area_write(&area, i, 9) == 0, "a write failed");
		CHECK(bed, vc_flush(area.vc, 0) == 0, "flush %u failed", i);
	}
	for (unsigned i = 0; i < 20; i++)
		CHECK(bed, vc_submit(area.vc, 0, &(struct vc_request){ .type = VIRTIO_BLK_T_FLUSH }) >= 0, "full");
	vc_kick(area.vc, 0);
	return reap_ok(bed, area.vc, 0, 20) ? PASS : FAIL;
}

static enum verdict identity(struct bed *bed, const void *arg)
{
	struct vc_options options = bed_options(bed);
	(void)arg;
	AUTO_VC vc = bed_open(bed, &options);
	CHECK(bed, vc != NULL, "%s", bed->why);
	uint64_t gpa = vc_alloc(vc, 4096);
	uint8_t *id = vc_ptr(vc, gpa, 4096);
	memset(id, 0xee, 4096);
	int rc = vc_io(vc, 0, VIRTIO_BLK_T_GET_ID, 0, gpa, VIRTIO_BLK_ID_BYTES);
	CHECK(bed, rc == 0, "answered %d", rc);
	CHECK(bed, id[VIRTIO_BLK_ID_BYTES] == 0xee, "more than %u bytes were written", VIRTIO_BLK_ID_BYTES);
	unsigned len = 0;
	for (; len < VIRTIO_BLK_ID_BYTES && id[len] != 0; len++)
		CHECK(bed, id[len] >= 0x20 && id[len] < 0x7f, "byte %u is %#x", len, id[len]);
	CHECK(bed, len > 0, "the id is empty");
	for (unsigned i = len; i < VIRTIO_BLK_ID_BYTES; i++)
		CHECK(bed, id[i] == 0, "byte %u behind the end is %#x", i, id[i]);
	return PASS;
}

/* ---- discard, write zeroes ---- */

static enum verdict discarded_blocks_read_zero(struct bed *bed, const void *arg)
{
	(void)arg;
	AUTO_AREA area;
	CHECK(bed, area_open(&area, bed), "%s", bed->why);
	if (!vc_has(area.vc, VIRTIO_BLK_F_DISCARD))
		return bed_skip(bed, "DISCARD is not offered");
	for (unsigned first = 0; first < AREA_SECTORS; first += 8) {
		for (unsigned sectors = 8; first + sectors <= AREA_SECTORS; sectors += 8) {
			struct virtio_blk_discard_write_zeroes range = { .sector = AREA_SECTOR + first,
									 .num_sectors = sectors };
			CHECK(bed, area_write(&area, 0, AREA_SECTORS) == 0, "cannot fill the area");
			int rc = vc_ranges(area.vc, 0, VIRTIO_BLK_T_DISCARD, &range, 1);
			CHECK(bed, rc == 0, "discard of %u sectors at %u: %d", sectors, first, rc);
			memset(area.model + first * SECTOR_BYTES, 0, sectors * SECTOR_BYTES);
			if (!area_is_as_model(&area, "discard"))
				return FAIL;
		}
	}
	return PASS;
}

/* A discard that does not cover whole blocks may do less than said, but nothing beyond its range. */
static enum verdict unaligned_discard_keeps_neighbours(struct bed *bed, const void *arg)
{
	(void)arg;
	AUTO_AREA area;
	CHECK(bed, area_open(&area, bed), "%s", bed->why);
	if (!vc_has(area.vc, VIRTIO_BLK_F_DISCARD))
		return bed_skip(bed, "DISCARD is not offered");
	for (unsigned first = 1; first < 24; first += 3) {
		for (unsigned sectors = 1; sectors < 24; sectors += 5) {
			struct virtio_blk_discard_write_zeroes range = { .sector = AREA_SECTOR + first,
									 .num_sectors = sectors };
			CHECK(bed, area_write(&area, 0, AREA_SECTORS) == 0, "cannot fill the area");
			int rc = vc_ranges(area.vc, 0, VIRTIO_BLK_T_DISCARD, &range, 1);
			CHECK(bed, rc == 0, "discard of %u sectors at %u: %d", sectors, first, rc);
			CHECK(bed, area_compare(&area, 0, first) == -1, "a discard at %u changed what is before it",
			      first);
			CHECK(bed, area_compare(&area, first + sectors, AREA_SECTORS - first - sectors) == -1,
			      "a discard of %u sectors at %u changed what is behind it", sectors, first);
		}
	}
	return PASS;
}

static enum verdict zeroes_at_every_offset(struct bed *bed, const void *arg)
{
	const uint32_t *flags = arg;
	AUTO_AREA area;
	CHECK(bed, area_open(&area, bed), "%s", bed->why);
	if (!vc_has(area.vc, VIRTIO_BLK_F_WRITE_ZEROES))
		return bed_skip(bed, "WRITE_ZEROES is not offered");
	for (unsigned first = 8; first < 24; first++) {
		for (unsigned sectors = 1; first + sectors <= 26; sectors++) {
			struct virtio_blk_discard_write_zeroes range = { .sector = AREA_SECTOR + first,
									 .num_sectors = sectors,
									 .flags = *flags };
			CHECK(bed, area_write(&area, 0, AREA_SECTORS) == 0, "cannot fill the area");
			int rc = vc_ranges(area.vc, 0, VIRTIO_BLK_T_WRITE_ZEROES, &range, 1);
			CHECK(bed, rc == 0, "write zeroes of %u sectors at %u: %d", sectors, first, rc);
			memset(area.model + first * SECTOR_BYTES, 0, sectors * SECTOR_BYTES);
			if (!area_is_as_model(&area, "write zeroes"))
				return FAIL;
		}
	}
	return PASS;
}

static enum verdict many_ranges_in_one_request(struct bed *bed, const void *arg)
{
	const uint32_t *type = arg;
	struct virtio_blk_discard_write_zeroes range[4];
	bool discard = *type == VIRTIO_BLK_T_DISCARD;
	AUTO_AREA area;
	CHECK(bed, area_open(&area, bed), "%s", bed->why);
	uint32_t most = discard ? area.vc->config.max_discard_seg : area.vc->config.max_write_zeroes_seg;
	if (!vc_has(area.vc, discard ? VIRTIO_BLK_F_DISCARD : VIRTIO_BLK_F_WRITE_ZEROES) || most < 2)
		return bed_skip(bed, "the server takes %u segments", most);
	unsigned ranges = most < 4 ? most : 4;
	CHECK(bed, area_write(&area, 0, AREA_SECTORS) == 0, "cannot fill the area");
	for (unsigned i = 0; i < ranges; i++) {
		range[i] = (struct virtio_blk_discard_write_zeroes){ .sector = AREA_SECTOR + i * 16, .num_sectors = 8 };
		memset(area.model + i * 16 * SECTOR_BYTES, 0, 8 * SECTOR_BYTES);
	}
	int rc = vc_ranges(area.vc, 0, *type, range, ranges);
	CHECK(bed, rc == 0, "%u ranges: answered %d", ranges, rc);
	return area_is_as_model(&area, "several ranges") ? PASS : FAIL;
}

/* ---- errors ---- */

static enum verdict out_of_range_is_an_error(struct bed *bed, const void *arg)
{
	struct vc_options options = bed_options(bed);
	(void)arg;
	AUTO_VC vc = bed_open(bed, &options);
	CHECK(bed, vc != NULL, "%s", bed->why);
	uint64_t gpa = vc_alloc(vc, 4096);
	uint64_t capacity = vc->config.capacity;
	CHECK(bed, vc_io(vc, 0, VIRTIO_BLK_T_IN, capacity - 1, gpa, 512) == VIRTIO_BLK_S_OK, "the last sector");
	int rc = vc_io(vc, 0, VIRTIO_BLK_T_IN, capacity, gpa, 512);
	CHECK(bed, rc == VIRTIO_BLK_S_IOERR, "a read at the end: %d", rc);
	rc = vc_io(vc, 0, VIRTIO_BLK_T_OUT, capacity - 1, gpa, 1024);
	CHECK(bed, rc == VIRTIO_BLK_S_IOERR, "a write over the end: %d", rc);
	rc = vc_io(vc, 0, 99, 0, gpa, 512);
	CHECK(bed, rc == VIRTIO_BLK_S_UNSUPP, "an unknown type: %d", rc);
	CHECK(bed, vc_io(vc, 0, VIRTIO_BLK_T_IN, 0, gpa, 512) == VIRTIO_BLK_S_OK, "a good read after errors");
	return PASS;
}

static const uint32_t no_flags = 0;
static const uint32_t may_unmap = VIRTIO_BLK_WRITE_ZEROES_FLAG_UNMAP;
static const uint32_t discards = VIRTIO_BLK_T_DISCARD;
static const uint32_t zeroes = VIRTIO_BLK_T_WRITE_ZEROES;

const struct test semantics_block_tests[] = {
	{ "block: used lengths", used_length, NULL },
	{ "block: sectors are merged at every offset and length", sectors_merge_at_every_offset, NULL },
	{ "block: reads at every offset and length", reads_at_every_offset, NULL },
	{ "block: eight sectors of one block at once", sectors_of_one_block_at_once, NULL },
	{ "block: random requests equal the model", random_requests_equal_the_model, NULL },
	{ "block: 1 MiB in one request", one_mebibyte_in_one_request, NULL },
	{ "block: flushes", flushes, NULL },
	{ "block: device id", identity, NULL },
	{ "block: discarded blocks read as zeroes", discarded_blocks_read_zero, NULL },
	{ "block: unaligned discards keep their neighbours", unaligned_discard_keeps_neighbours, NULL },
	{ "block: write zeroes at every offset", zeroes_at_every_offset, &no_flags },
	{ "block: write zeroes at every offset, may unmap", zeroes_at_every_offset, &may_unmap },
	{ "block: several discard ranges in one request", many_ranges_in_one_request, &discards },
	{ "block: several write-zeroes ranges in one request", many_ranges_in_one_request, &zeroes },
	{ "block: out of range and unknown types are errors", out_of_range_is_an_error, NULL },
	{ NULL, NULL, NULL },
};
