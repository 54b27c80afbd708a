/* Hostile block requests in well-formed chains: sectors that overflow, unknown types and flags, lists of ranges.
 *
 * The rules asserted (virtio 1.2 section 5.2.6, VHOST.md): out of range is IOERR, what is not offered or known is
 * UNSUPP, and a list of ranges with one bad range changes nothing. */
#include <stdio.h>
#include <string.h>

#include "tests/client/hostile.h"

#define KEPT_SECTOR 256u
#define KEPT_BYTES 8192u

/* ---- sectors ---- */

static enum verdict sectors_out_of_range(struct bed *bed, const void *arg)
{
	const uint32_t *type = arg;
	AUTO_RIG rig;
	CHECK(bed, rig_open(&rig, bed), "%s", bed->why);
	uint64_t sectors[] = { rig.capacity,   rig.capacity - 7, rig.capacity - 1,    rig.capacity + 1,
			       1ull << 55,     (1ull << 55) - 1, 1ull << 63,          UINT64_MAX,
			       UINT64_MAX - 7, UINT64_MAX / 512, UINT64_MAX / 512 + 1 };
	for (unsigned i = 0; i < sizeof(sectors) / sizeof(sectors[0]); i++) {
		int rc = vc_io(rig.vc, 0, *type, sectors[i], rig.data_gpa, RIG_DATA_BYTES);
		CHECK(bed, rc == VIRTIO_BLK_S_IOERR, "sector %#llx of %#llx: answered %d",
		      (unsigned long long)sectors[i], (unsigned long long)rig.capacity, rc);
	}
	int rc = vc_io(rig.vc, 0, *type, rig.capacity - 8, rig.data_gpa, RIG_DATA_BYTES);
	CHECK(bed, rc == VIRTIO_BLK_S_OK, "the last block: answered %d", rc);
	return PASS;
}

/* ---- types ---- */

static enum verdict unknown_types(struct bed *bed, const void *arg)
{
	static const uint32_t types[] = { 2,     3,       5,          6,          7,          9,          10,        12,
					  14,    15,      16,         18,         20,         22,         24,        26,
					  0x100, 0x10000, 0x7fffffff, 0x80000000, 0x80000001, 0x80000004, 0xffffffff };
	(void)arg;
	AUTO_RIG rig;
	CHECK(bed, rig_open(&rig, bed), "%s", bed->why);
	for (unsigned i = 0; i < sizeof(types) / sizeof(types[0]); i++) {
		int rc = vc_io(rig.vc, 0, types[i], 0, rig.data_gpa, 512);
		CHECK(bed, rc == VIRTIO_BLK_S_UNSUPP, "type %#x with data: answered %d", types[i], rc);
		rc = vc_do(rig.vc, 0, &(struct vc_request){ .type = types[i] });
		CHECK(bed, rc == VIRTIO_BLK_S_UNSUPP, "type %#x without data: answered %d", types[i], rc);
	}
	return PASS;
}

/* What the driver did not negotiate is unknown too. */
static enum verdict types_not_negotiated(struct bed *bed, const void *arg)
{
	static const uint32_t types[] = { VIRTIO_BLK_T_DISCARD, VIRTIO_BLK_T_WRITE_ZEROES };
	struct virtio_blk_discard_write_zeroes range = { .sector = KEPT_SECTOR, .num_sectors = 8 };
	struct vc_options options = bed_options(bed);
	(void)arg;
	options.features &= ~(VC_BIT(VIRTIO_BLK_F_DISCARD) | VC_BIT(VIRTIO_BLK_F_WRITE_ZEROES));
	AUTO_VC vc = bed_open(bed, &options);
	CHECK(bed, vc != NULL, "%s", bed->why);
	for (unsigned i = 0; i < 2; i++) {
		int rc = vc_ranges(vc, 0, types[i], &range, 1);
		CHECK(bed, rc == VIRTIO_BLK_S_UNSUPP, "type %u: answered %d", types[i], rc);
	}
	return PASS;
}

static enum verdict id_into_short_buffers(struct bed *bed, const void *arg)
{
	static const uint32_t lengths[] = { 1, 19, 20, 21, 512, 4096 };
	(void)arg;
	AUTO_RIG rig;
	CHECK(bed, rig_open(&rig, bed), "%s", bed->why);
	for (unsigned i = 0; i < sizeof(lengths) / sizeof(lengths[0]); i++) {
		memset(rig.data, 0xab, RIG_DATA_BYTES);
		int rc = vc_io(rig.vc, 0, VIRTIO_BLK_T_GET_ID, 0, rig.data_gpa, lengths[i]);
		CHECK(bed, rc >= 0 && rc <= VIRTIO_BLK_S_UNSUPP, "into %u bytes: answered %d", lengths[i], rc);
		CHECK(bed, lengths[i] == RIG_DATA_BYTES || rig.data[lengths[i]] == 0xab, "into %u bytes: wrote further",
		      lengths[i]);
	}
	int rc = vc_do(rig.vc, 0, &(struct vc_request){ .type = VIRTIO_BLK_T_GET_ID });
	CHECK(bed, rc >= 0, "without a buffer: %d", rc);
	return PASS;
}

/* ---- lists of ranges ---- */

struct range_case {
	const char *name;
	struct virtio_blk_discard_write_zeroes range[3]; /* sectors >= FROM_END count from the end of the disk */
	unsigned ranges;
	int discard_answer; /* VIRTIO_BLK_S_*, or EITHER_ERROR */
	int zeroes_answer;
};
#define FROM_END (1ull << 62)
#define EITHER_ERROR (-1)
#define SKIP_KIND (-2)
#define GOOD                      \
	{                         \
		KEPT_SECTOR, 8, 0 \
	}

static const struct range_case range_cases[] = {
	{ "flag unmap", { { KEPT_SECTOR, 8, 1 } }, 1, VIRTIO_BLK_S_UNSUPP, SKIP_KIND },
	{ "flag 2", { { KEPT_SECTOR, 8, 2 } }, 1, VIRTIO_BLK_S_UNSUPP, VIRTIO_BLK_S_UNSUPP },
	{ "all flags", { { KEPT_SECTOR, 8, 0xffffffff } }, 1, VIRTIO_BLK_S_UNSUPP, VIRTIO_BLK_S_UNSUPP },
	{ "at the end", { { FROM_END, 8, 0 } }, 1, VIRTIO_BLK_S_IOERR, VIRTIO_BLK_S_IOERR },
	{ "over the end", { { FROM_END - 8, 16, 0 } }, 1, VIRTIO_BLK_S_IOERR, VIRTIO_BLK_S_IOERR },
	{ "far away", { { 1ull << 55, 8, 0 } }, 1, VIRTIO_BLK_S_IOERR, VIRTIO_BLK_S_IOERR },
	{ "wraps", { { UINT64_MAX, 8, 0 } }, 1, VIRTIO_BLK_S_IOERR, VIRTIO_BLK_S_IOERR },
	{ "wraps in bytes", { { (1ull << 55) + KEPT_SECTOR, 8, 0 } }, 1, VIRTIO_BLK_S_IOERR, VIRTIO_BLK_S_IOERR },
	{ "number all ones", { { KEPT_SECTOR, 0xffffffff, 0 } }, 1, EITHER_ERROR, EITHER_ERROR },
	{ "good, then at the end", { GOOD, { FROM_END, 8, 0 } }, 2, EITHER_ERROR, EITHER_ERROR },
	{ "good, then bad flags", { GOOD, { KEPT_SECTOR + 8, 8, 0x80 } }, 2, EITHER_ERROR, EITHER_ERROR },
	{ "bad, then good", { { FROM_END, 8, 0 }, GOOD }, 2, EITHER_ERROR, EITHER_ERROR },
	{ "good, good, far away",
	  { GOOD, { KEPT_SECTOR + 8, 8, 0 }, { UINT64_MAX, 1, 0 } },
	  3,
	  EITHER_ERROR,
	  EITHER_ERROR },
};

static bool fill_kept(struct rig *rig, uint64_t gpa)
{
	memset(vc_ptr(rig->vc, gpa, KEPT_BYTES), 0x5a, KEPT_BYTES);
	return vc_io(rig->vc, 0, VIRTIO_BLK_T_OUT, KEPT_SECTOR, gpa, KEPT_BYTES) == VIRTIO_BLK_S_OK;
}

static bool is_kept(struct rig *rig, uint64_t gpa)
{
	uint8_t *data = vc_ptr(rig->vc, gpa, KEPT_BYTES);
	memset(data, 0, KEPT_BYTES);
	if (vc_io(rig->vc, 0, VIRTIO_BLK_T_IN, KEPT_SECTOR, gpa, KEPT_BYTES) != VIRTIO_BLK_S_OK)
		return false;
	for (unsigned i = 0; i < KEPT_BYTES; i++) {
		if (data[i] != 0x5a)
			return false;
	}
	return true;
}

static enum verdict try_ranges(struct rig *rig, uint32_t type, const struct range_case *range_case, int wanted)
{
	struct bed *bed = rig->bed;
	struct virtio_blk_discard_write_zeroes range[3];
	memcpy(range, range_case->range, sizeof(range));
	for (unsigned i = 0; i < range_case->ranges; i++) {
		if (range[i].sector >= FROM_END - 64 && range[i].sector <= FROM_END)
			range[i].sector = range[i].sector - FROM_END + rig->capacity;
	}
	uint64_t gpa = vc_alloc(rig->vc, KEPT_BYTES);
	CHECK(bed, fill_kept(rig, gpa), "cannot write");
	int rc = vc_ranges(rig->vc, 0, type, range, range_case->ranges);
	if (wanted == EITHER_ERROR)
		CHECK(bed, rc == VIRTIO_BLK_S_IOERR || rc == VIRTIO_BLK_S_UNSUPP, "%s: answered %d", range_case->name,
		      rc);
	else
		CHECK(bed, rc == wanted, "%s: answered %d, not %d", range_case->name, rc, wanted);
	CHECK(bed, is_kept(rig, gpa), "%s: refused, but data changed", range_case->name);
	return PASS;
}

static enum verdict bad_ranges(struct bed *bed, const void *arg)
{
	const uint32_t *type = arg;
	bool discard = *type == VIRTIO_BLK_T_DISCARD;
	AUTO_RIG rig;
	CHECK(bed, rig_open(&rig, bed), "%s", bed->why);
	if (!vc_has(rig.vc, discard ? VIRTIO_BLK_F_DISCARD : VIRTIO_BLK_F_WRITE_ZEROES))
		return bed_skip(bed, "not offered");
	for (unsigned i = 0; i < sizeof(range_cases) / sizeof(range_cases[0]); i++) {
		int wanted = discard ? range_cases[i].discard_answer : range_cases[i].zeroes_answer;
		if (wanted != SKIP_KIND && try_ranges(&rig, *type, &range_cases[i], wanted) != PASS)
			return FAIL;
	}
	return PASS;
}

/* Lists of no length, of a length that is no list, and of more segments than offered. */
static enum verdict odd_lists(struct bed *bed, const void *arg)
{
	static const uint32_t lengths[] = { 1, 8, 15, 17, 31, 511 };
	const uint32_t *type = arg;
	AUTO_RIG rig;
	CHECK(bed, rig_open(&rig, bed), "%s", bed->why);
	bool discard = *type == VIRTIO_BLK_T_DISCARD;
	if (!vc_has(rig.vc, discard ? VIRTIO_BLK_F_DISCARD : VIRTIO_BLK_F_WRITE_ZEROES))
		return bed_skip(bed, "not offered");
	memset(rig.data, 0, RIG_DATA_BYTES);
	for (unsigned i = 0; i < sizeof(lengths) / sizeof(lengths[0]); i++) {
		int rc = vc_io(rig.vc, 0, *type, 0, rig.data_gpa, lengths[i]);
		CHECK(bed, rc == VIRTIO_BLK_S_IOERR || rc == VIRTIO_BLK_S_UNSUPP, "%u bytes: answered %d", lengths[i],
		      rc);
	}
	int rc = vc_do(rig.vc, 0, &(struct vc_request){ .type = *type });
	CHECK(bed, rc >= 0 && rc <= VIRTIO_BLK_S_UNSUPP, "no list: answered %d", rc);
	return PASS;
}

static enum verdict too_many_ranges(struct bed *bed, const void *arg)
{
	const uint32_t *type = arg;
	static struct virtio_blk_discard_write_zeroes range[20000];
	AUTO_RIG rig;
	CHECK(bed, rig_open(&rig, bed), "%s", bed->why);
	bool discard = *type == VIRTIO_BLK_T_DISCARD;
	if (!vc_has(rig.vc, discard ? VIRTIO_BLK_F_DISCARD : VIRTIO_BLK_F_WRITE_ZEROES))
		return bed_skip(bed, "not offered");
	uint32_t most = discard ? rig.vc->config.max_discard_seg : rig.vc->config.max_write_zeroes_seg;
	for (unsigned i = 0; i < 20000; i++)
		range[i] = (struct virtio_blk_discard_write_zeroes){ .sector = KEPT_SECTOR + 8, .num_sectors = 1 };
	if (most >= 20000)
		return bed_skip(bed, "the server takes %u segments", most);
	int rc = vc_ranges(rig.vc, 0, *type, range, most + 1);
	CHECK(bed, rc == VIRTIO_BLK_S_IOERR || rc == VIRTIO_BLK_S_UNSUPP, "%u segments of %u: answered %d", most + 1,
	      most, rc);
	rc = vc_ranges(rig.vc, 0, *type, range, 20000);
	CHECK(bed, rc == VIRTIO_BLK_S_IOERR || rc == VIRTIO_BLK_S_UNSUPP, "20000 segments: answered %d", rc);
	return PASS;
}

static enum verdict flush_with_data(struct bed *bed, const void *arg)
{
	(void)arg;
	AUTO_RIG rig;
	CHECK(bed, rig_open(&rig, bed), "%s", bed->why);
	rig_good_write(&rig);
	rig.header->type = VIRTIO_BLK_T_FLUSH;
	rig.header->sector = UINT64_MAX;
	rig_offer(&rig, 0);
	return rig_expect(&rig, FATE_ANY_SANE);
}

static const uint32_t reads = VIRTIO_BLK_T_IN;
static const uint32_t writes = VIRTIO_BLK_T_OUT;
static const uint32_t discards = VIRTIO_BLK_T_DISCARD;
static const uint32_t zeroes = VIRTIO_BLK_T_WRITE_ZEROES;

const struct test hostile_request_tests[] = {
	{ "request: reads out of range are IOERR", sectors_out_of_range, &reads },
	{ "request: writes out of range are IOERR", sectors_out_of_range, &writes },
	{ "request: unknown types are UNSUPP", unknown_types, NULL },
	{ "request: types that were not negotiated are UNSUPP", types_not_negotiated, NULL },
	{ "request: device id into buffers of any length", id_into_short_buffers, NULL },
	{ "request: bad discard ranges", bad_ranges, &discards },
	{ "request: bad write-zeroes ranges", bad_ranges, &zeroes },
	{ "request: discard lists of odd length", odd_lists, &discards },
	{ "request: write-zeroes lists of odd length", odd_lists, &zeroes },
	{ "request: too many discard segments", too_many_ranges, &discards },
	{ "request: too many write-zeroes segments", too_many_ranges, &zeroes },
	{ "request: flush with data and a sector", flush_with_data, NULL },
	{ NULL, NULL, NULL },
};
