/* Hostile descriptor chains: each case bends one good request, offers it and says which fates are allowed.
 *
 * Legal oddities (split headers, status in the same descriptor as data) must work: virtio gives devices no say in how a
 * request is cut into descriptors. What breaks the rules of chains may never complete OK. */
#include <errno.h>
#include <pthread.h>
#include <string.h>
#include <unistd.h>

#include "tests/client/hostile.h"
#include "tests/client/pattern.h"

#define NOWHERE 0x700000000000ull
#define TABLE_ENTRIES 1024u
#define RACE_KICKS 200

struct chain_case {
	void (*bend)(struct rig *rig);
	unsigned allowed;
};

static enum verdict run_chain(struct bed *bed, const void *arg)
{
	const struct chain_case *chain_case = arg;
	AUTO_RIG rig;
	CHECK(bed, rig_open(&rig, bed), "%s", bed->why);
	uint16_t offered = rig.ring->avail_next;
	chain_case->bend(&rig);
	if (rig.ring->avail_next == offered)
		rig_offer(&rig, 0);
	return rig_expect(&rig, chain_case->allowed);
}

/* ---- links ---- */

static void good_read(struct rig *rig)
{
	(void)rig;
}

static void good_indirect_write(struct rig *rig)
{
	rig_good_write(rig);
	rig_make_indirect(rig);
}

static void head_too_large(struct rig *rig)
{
	rig_offer(rig, RIG_RING_SIZE);
}

static void head_all_ones(struct rig *rig)
{
	rig_offer(rig, 0xffff);
}

static void next_too_large(struct rig *rig)
{
	rig->ring->desc[0].next = RIG_RING_SIZE;
}

static void next_all_ones(struct rig *rig)
{
	rig->ring->desc[1].next = 0xffff;
}

static void points_at_itself(struct rig *rig)
{
	rig->ring->desc[0].next = 0;
}

static void loops_through_data(struct rig *rig)
{
	rig->ring->desc[1].next = 1;
}

static void loops_at_the_end(struct rig *rig)
{
	rig->ring->desc[2].flags |= VRING_DESC_F_NEXT;
	rig->ring->desc[2].next = 0;
}

/* All descriptors of the ring in one chain whose last one leads back to data. */
static void loops_over_whole_ring(struct rig *rig)
{
	for (uint16_t i = 1; i < RIG_RING_SIZE; i++)
		rig->ring->desc[i] = (struct vring_desc){ .addr = rig->data_gpa,
							  .len = 512,
							  .flags = VRING_DESC_F_NEXT | VRING_DESC_F_WRITE,
							  .next = (uint16_t)(i + 1 == RIG_RING_SIZE ? 1 : i + 1) };
}

static void unknown_flags(struct rig *rig)
{
	for (unsigned i = 0; i < 3; i++)
		rig->ring->desc[i].flags |= 0xfff8;
}

/* ---- buffers ---- */

static void data_at_zero(struct rig *rig)
{
	rig->ring->desc[1].addr = 0;
}

static void data_nowhere(struct rig *rig)
{
	rig->ring->desc[1].addr = NOWHERE;
}

static void data_by_user_address(struct rig *rig)
{
	rig->ring->desc[1].addr += VC_UVA_SHIFT;
}

static void data_past_the_end(struct rig *rig)
{
	const struct vc_region *region = &rig->vc->region[0];
	rig->ring->desc[1].addr = region->gpa + region->size_bytes - 512;
}

static void data_wraps(struct rig *rig)
{
	rig->ring->desc[1].addr = UINT64_MAX - 511;
}

static void data_of_4_gib(struct rig *rig)
{
	rig->ring->desc[1].len = 0xffffffff & ~511u;
}

static void header_nowhere(struct rig *rig)
{
	rig->ring->desc[0].addr = NOWHERE;
}

static void header_before_memory(struct rig *rig)
{
	rig->ring->desc[0].addr = rig->vc->region[0].gpa - 8;
}

static void status_nowhere(struct rig *rig)
{
	rig->ring->desc[2].addr = NOWHERE;
}

static void data_over_own_ring(struct rig *rig)
{
	rig->ring->desc[1].addr = rig->ring->desc_gpa;
}

static void data_over_avail_ring(struct rig *rig)
{
	rig->ring->desc[1].addr = rig->ring->avail_gpa;
}

static void data_over_used_ring(struct rig *rig)
{
	rig->ring->desc[1].addr = rig->ring->used_gpa;
}

static void data_over_header(struct rig *rig)
{
	rig->ring->desc[1].addr = rig->header_gpa;
}

static void status_over_data(struct rig *rig)
{
	rig->ring->desc[2].addr = rig->data_gpa;
}

static void status_over_used_index(struct rig *rig)
{
	rig->ring->desc[2].addr = rig->ring->used_gpa + 2;
}

/* ---- lengths ---- */

static void header_of_0(struct rig *rig)
{
	rig->ring->desc[0].len = 0;
}

static void header_of_15(struct rig *rig)
{
	rig->ring->desc[0].len = 15;
	rig->ring->desc[0].next = 2;
}

static void data_of_0(struct rig *rig)
{
	rig->ring->desc[1].len = 0;
}

static void data_of_511(struct rig *rig)
{
	rig->ring->desc[1].len = 511;
}

static void data_of_513(struct rig *rig)
{
	rig->ring->desc[1].len = 513;
}

static void write_of_511(struct rig *rig)
{
	rig_good_write(rig);
	rig->ring->desc[1].len = 511;
}

static void write_of_1(struct rig *rig)
{
	rig_good_write(rig);
	rig->ring->desc[1].len = 1;
}

static void status_of_0(struct rig *rig)
{
	rig->ring->desc[2].len = 0;
}

static void all_of_0(struct rig *rig)
{
	for (unsigned i = 0; i < 3; i++)
		rig->ring->desc[i].len = 0;
}

/* Zero-length descriptors in between say nothing and may be refused, but not read as something. */
static void zero_length_in_between(struct rig *rig)
{
	struct vring_desc *desc = rig->ring->desc;
	desc[1].next = 3;
	desc[3] = (struct vring_desc){ .addr = NOWHERE, .flags = VRING_DESC_F_NEXT | VRING_DESC_F_WRITE, .next = 2 };
}

/* ---- parts ---- */

static void header_alone(struct rig *rig)
{
	rig->ring->desc[0].flags = 0;
}

static void status_alone(struct rig *rig)
{
	rig->ring->desc[0] = rig->ring->desc[2];
}

static void no_data(struct rig *rig)
{
	rig->ring->desc[0].next = 2;
}

static void no_status(struct rig *rig)
{
	rig_good_write(rig);
	rig->ring->desc[1].flags = 0;
}

static void status_not_writable(struct rig *rig)
{
	rig_good_write(rig);
	rig->ring->desc[2].flags = 0;
}

static void header_writable(struct rig *rig)
{
	rig->ring->desc[0].flags |= VRING_DESC_F_WRITE;
}

static void everything_writable(struct rig *rig)
{
	for (unsigned i = 0; i < 3; i++)
		rig->ring->desc[i].flags |= VRING_DESC_F_WRITE;
}

static void writable_before_readable(struct rig *rig)
{
	rig_good_write(rig);
	struct vring_desc *desc = rig->ring->desc;
	struct vring_desc header = desc[0];
	desc[0] = (struct vring_desc){ .addr = rig->data_gpa,
				       .len = 512,
				       .flags = VRING_DESC_F_NEXT | VRING_DESC_F_WRITE,
				       .next = 3 };
	desc[3] = header;
}

static void readable_after_status(struct rig *rig)
{
	rig->ring->desc[2].flags |= VRING_DESC_F_NEXT;
	rig->ring->desc[2].next = 3;
	rig->ring->desc[3] = (struct vring_desc){ .addr = rig->data_gpa, .len = 512 };
}

static void read_into_readable(struct rig *rig)
{
	rig->ring->desc[1].flags &= (uint16_t)~VRING_DESC_F_WRITE;
}

static void write_from_writable(struct rig *rig)
{
	rig_good_write(rig);
	rig->ring->desc[1].flags |= VRING_DESC_F_WRITE;
}

/* ---- legal ways to cut a request ---- */

static void header_in_16_pieces(struct rig *rig)
{
	struct vring_desc *desc = rig->ring->desc;
	for (uint16_t i = 0; i < 16; i++)
		desc[i == 0 ? 0 : i + 2] = (struct vring_desc){ .addr = rig->header_gpa + i,
								.len = 1,
								.flags = VRING_DESC_F_NEXT,
								.next = (uint16_t)(i + 3) };
	desc[17].next = 1;
}

static void header_and_data_in_one(struct rig *rig)
{
	rig_good_write(rig);
	memcpy(rig->data, rig->header, sizeof(*rig->header));
	rig->ring->desc[0] =
		(struct vring_desc){ .addr = rig->data_gpa, .len = 16 + 512, .flags = VRING_DESC_F_NEXT, .next = 2 };
}

static void data_and_status_in_one(struct rig *rig)
{
	rig->ring->desc[1].addr = rig->status_gpa - 512;
	rig->ring->desc[1].len = 513;
	rig->ring->desc[1].flags = VRING_DESC_F_WRITE;
}

static void data_in_odd_pieces(struct rig *rig)
{
	struct vring_desc *desc = rig->ring->desc;
	static const uint16_t lengths[] = { 1, 7, 500, 3, 513 };
	uint64_t gpa = rig->data_gpa;
	for (uint16_t i = 0; i < 5; i++) {
		desc[i + 3] = (struct vring_desc){ .addr = gpa,
						   .len = lengths[i],
						   .flags = VRING_DESC_F_NEXT | VRING_DESC_F_WRITE,
						   .next = (uint16_t)(i == 4 ? 2 : i + 4) };
		gpa += lengths[i];
	}
	desc[0].next = 3;
}

/* ---- indirect tables ---- */

static void nested_table(struct rig *rig)
{
	rig_make_indirect(rig);
	rig->table[1] = (struct vring_desc){ .addr = rig->table_gpa + 4096,
					     .len = 16,
					     .flags = VRING_DESC_F_INDIRECT | VRING_DESC_F_NEXT,
					     .next = 2 };
	rig->table[256] =
		(struct vring_desc){ .addr = rig->data_gpa, .len = RIG_DATA_BYTES, .flags = VRING_DESC_F_WRITE };
}

static void table_in_itself(struct rig *rig)
{
	rig_make_indirect(rig);
	rig->table[0] = rig->ring->desc[0];
}

static void table_of_0(struct rig *rig)
{
	rig_make_indirect(rig);
	rig->ring->desc[0].len = 0;
}

static void table_of_odd_length(struct rig *rig)
{
	rig_make_indirect(rig);
	rig->ring->desc[0].len = 3 * 16 - 1;
}

static void table_of_4_gib(struct rig *rig)
{
	rig_make_indirect(rig);
	rig->ring->desc[0].len = 0xfffffff0;
}

static void table_at_odd_address(struct rig *rig)
{
	rig_make_indirect(rig);
	memmove((uint8_t *)rig->table + 1, rig->table, 48);
	rig->ring->desc[0].addr++;
}

static void table_nowhere(struct rig *rig)
{
	rig_make_indirect(rig);
	rig->ring->desc[0].addr = NOWHERE;
}

static void table_past_the_end(struct rig *rig)
{
	const struct vc_region *region = &rig->vc->region[0];
	rig_make_indirect(rig);
	rig->ring->desc[0].addr = region->gpa + region->size_bytes - 16;
}

static void table_next_too_large(struct rig *rig)
{
	rig_make_indirect(rig);
	rig->table[0].next = 3;
}

static void table_loops(struct rig *rig)
{
	rig_make_indirect(rig);
	rig->table[1].next = 0;
}

static void table_and_next(struct rig *rig)
{
	rig_make_indirect(rig);
	rig->ring->desc[0].flags |= VRING_DESC_F_NEXT;
	rig->ring->desc[0].next = 2;
}

static void table_after_header(struct rig *rig)
{
	struct vring_desc *desc = rig->ring->desc;
	rig->table[0] = desc[1];
	rig->table[0].next = 1;
	rig->table[1] = desc[2];
	desc[1] = (struct vring_desc){ .addr = rig->table_gpa, .len = 32, .flags = VRING_DESC_F_INDIRECT };
}

static void table_write_only(struct rig *rig)
{
	rig_make_indirect(rig);
	rig->ring->desc[0].flags |= VRING_DESC_F_WRITE;
}

/* A chain in a table that is longer than the queue: some drivers do it, the standard forbids it. */
static void table_longer_than_queue(struct rig *rig)
{
	rig_make_indirect(rig);
	struct vring_desc status = rig->table[2];
	for (uint16_t i = 1; i < TABLE_ENTRIES - 1; i++)
		rig->table[i] = (struct vring_desc){ .addr = rig->data_gpa,
						     .len = 512,
						     .flags = VRING_DESC_F_NEXT | VRING_DESC_F_WRITE,
						     .next = (uint16_t)(i + 1) };
	rig->table[TABLE_ENTRIES - 1] = status;
	rig->ring->desc[0].len = TABLE_ENTRIES * 16;
}

/* ---- without the feature, and across regions ---- */

static enum verdict table_not_negotiated(struct bed *bed, const void *arg)
{
	struct vc_options options = bed_options(bed);
	(void)arg;
	options.features &= ~VC_BIT(VIRTIO_RING_F_INDIRECT_DESC);
	AUTO_RIG rig;
	CHECK(bed, rig_open_with(&rig, bed, &options), "%s", bed->why);
	rig_make_indirect(&rig);
	rig_offer(&rig, 0);
	return rig_expect(&rig, FATE_REFUSED);
}

enum across { ACROSS_HEADER, ACROSS_DATA, ACROSS_TABLE };

/* Two regions lie side by side in guest addresses: such a buffer is served whole or refused, never half. */
static enum verdict across_regions(struct bed *bed, const void *arg)
{
	const enum across *what = arg;
	struct vc_options options = bed_options(bed);
	options.regions = 2;
	AUTO_RIG rig;
	CHECK(bed, rig_open_with(&rig, bed, &options), "%s", bed->why);
	uint64_t seam = rig.vc->region[1].gpa;
	uint8_t *low = vc_ptr(rig.vc, seam - 4096, 4096);
	uint8_t *high = vc_ptr(rig.vc, seam, 4096);
	if (*what == ACROSS_DATA) {
		rig_good_write(&rig);
		memset(low, 0x11, 4096);
		memset(high, 0x22, 4096);
		rig.ring->desc[1].addr = seam - 2048;
	} else if (*what == ACROSS_HEADER) {
		memset(low + 4096 - 8, 0, 8);
		memset(high, 0, 8);
		rig.ring->desc[0].addr = seam - 8;
	} else {
		rig_make_indirect(&rig);
		memcpy(low + 4096 - 24, rig.table, 24);
		memcpy(high, (uint8_t *)rig.table + 24, 24);
		rig.ring->desc[0].addr = seam - 24;
	}
	rig_offer(&rig, 0);
	enum verdict verdict = rig_expect(&rig, FATE_ANY_SANE);
	if (verdict != PASS || *what != ACROSS_DATA || *rig.status != VIRTIO_BLK_S_OK)
		return verdict;
	AUTO_RIG reader;
	vc_destroy(rig.vc);
	rig.vc = NULL;
	CHECK(bed, rig_open(&reader, bed), "%s", bed->why);
	int rc = vc_io(reader.vc, 0, VIRTIO_BLK_T_IN, 0, reader.data_gpa, RIG_DATA_BYTES);
	CHECK(bed,
	      rc == 0 && reader.data[0] == 0x11 && reader.data[2047] == 0x11 && reader.data[2048] == 0x22 &&
		      reader.data[4095] == 0x22,
	      "a write across regions said OK but wrote something else");
	return PASS;
}

/* Two chains that share descriptors, in flight together. */
static enum verdict shared_descriptors(struct bed *bed, const void *arg)
{
	(void)arg;
	AUTO_RIG rig;
	CHECK(bed, rig_open(&rig, bed), "%s", bed->why);
	rig.ring->desc[3] = rig.ring->desc[0];
	for (unsigned i = 0; i < 8; i++) {
		rig.ring->avail->ring[rig.ring->avail_next++ % RIG_RING_SIZE] = i & 1 ? 3 : 0;
	}
	vc_publish(rig.ring);
	vc_notify(rig.ring);
	usleep(20000);
	CHECK(bed, vc_ring_stop(rig.vc, 0) >= 0 || vu_is_closed(rig.vc->sock), "GET_VRING_BASE: %s", rig.vc->error);
	CHECK(bed, vc_used_idx(rig.ring) <= 8, "%u completions of 8", vc_used_idx(rig.ring));
	return PASS;
}

/* ---- memory that changes between two looks ---- */

struct racer {
	struct rig *rig;
	bool stop;
};

/* Flips everything the server may look at twice. */
static void *race(void *arg)
{
	struct racer *racer = arg;
	struct rig *rig = racer->rig;
	volatile struct vring_desc *desc = rig->ring->desc;
	volatile struct vring_desc *table = rig->table;
	uint64_t random = 88172645463325252ull;
	while (!__atomic_load_n(&racer->stop, __ATOMIC_RELAXED)) {
		uint64_t bits = pattern_random(&random);
		table[0].len = bits & 1 ? 16 : 0xffffffff;
		table[1].addr = bits & 2 ? rig->data_gpa : NOWHERE;
		table[1].len = bits & 4 ? 4096 : (uint32_t)(bits >> 32);
		table[1].next = bits & 8 ? 2 : 0xffff;
		table[2].addr = bits & 16 ? rig->status_gpa : UINT64_MAX;
		desc[0].len = bits & 32 ? 48 : 0xfffffff0;
		desc[0].addr = bits & 64 ? rig->table_gpa : NOWHERE;
		rig->header->type = bits & 128 ? VIRTIO_BLK_T_IN : (uint32_t)(bits >> 40);
		rig->header->sector = bits & 256 ? 0 : UINT64_MAX - 7;
		rig->ring->avail->ring[bits % RIG_RING_SIZE] = bits & 512 ? 0 : 0xffff;
	}
	return NULL;
}

static bool race_one_session(struct bed *bed)
{
	AUTO_RIG rig;
	pthread_t thread;
	if (!rig_open(&rig, bed))
		return false;
	rig_make_indirect(&rig);
	struct racer racer = { .rig = &rig };
	if (pthread_create(&thread, NULL, race, &racer) != 0)
		return false;
	for (unsigned i = 0; i < RACE_KICKS && !vu_is_closed(rig.vc->sock); i++) {
		uint16_t used_idx = vc_used_idx(rig.ring);
		if ((uint16_t)(rig.ring->avail_next - used_idx) < RIG_RING_SIZE / 2)
			rig_offer(&rig, 0);
		vc_notify(rig.ring);
	}
	int base = vc_ring_stop(rig.vc, 0);
	__atomic_store_n(&racer.stop, true, __ATOMIC_RELAXED);
	pthread_join(thread, NULL);
	if (base == -ETIMEDOUT)
		bed_fail(bed, "GET_VRING_BASE: neither answered nor closed");
	return base != -ETIMEDOUT;
}

static enum verdict changes_between_looks(struct bed *bed, const void *arg)
{
	(void)arg;
	for (unsigned i = 0; i < bed->rounds / 4; i++) {
		if (!race_one_session(bed))
			return FAIL;
	}
	return PASS;
}

/* ---- storm ---- */

static uint64_t random_gpa(struct bed *bed, const struct rig *rig)
{
	uint64_t places[] = { rig->header_gpa,
			      rig->data_gpa,
			      rig->status_gpa,
			      rig->table_gpa,
			      rig->ring->desc_gpa,
			      rig->ring->used_gpa,
			      NOWHERE,
			      0,
			      rig->data_gpa + 3,
			      UINT64_MAX - 15,
			      VC_GPA_BASE - 1,
			      rig->ring->avail_gpa,
			      VC_GPA_BASE + (8u << 20) - 8,
			      pattern_random(&bed->random) };
	return places[pattern_random(&bed->random) % (sizeof(places) / sizeof(places[0]))];
}

static struct vring_desc random_desc(struct bed *bed, const struct rig *rig)
{
	static const uint32_t lengths[] = { 0, 1, 15, 16, 17, 48, 511, 512, 513, 4096, 65536, 0x7fffffff, 0xffffffff };
	uint64_t bits = pattern_random(&bed->random);
	return (struct vring_desc){
		.addr = random_gpa(bed, rig),
		.len = lengths[(bits >> 8) % (sizeof(lengths) / sizeof(lengths[0]))],
		.flags = (uint16_t)(bits & 7),
		.next = (uint16_t)((bits >> 16) % (RIG_RING_SIZE + 2)),
	};
}

static void scramble(struct bed *bed, struct rig *rig)
{
	static const uint32_t types[] = { 0, 1, 4, 8, 11, 13, 14, 0xffffffff };
	uint64_t bits = pattern_random(&bed->random);
	rig->header->type = types[bits & 7];
	rig->header->sector = bits & 8 ? pattern_random(&bed->random) : (bits >> 8) % (rig->capacity + 8);
	for (unsigned i = 0; i < RIG_RING_SIZE; i++) {
		rig->ring->desc[i] = random_desc(bed, rig);
		rig->table[i] = random_desc(bed, rig);
	}
	if (bits & 16) { /* a header that can be read, so that what follows is reached */
		uint16_t first = rig->ring->desc[0].next;
		rig_good_read(rig);
		rig->ring->desc[0].next = first;
	}
}

static enum verdict random_chains(struct bed *bed, const void *arg)
{
	(void)arg;
	for (unsigned round = 0; round < bed->rounds; round++) {
		AUTO_RIG rig;
		CHECK(bed, rig_open(&rig, bed), "round %u: %s", round, bed->why);
		scramble(bed, &rig);
		unsigned heads = 1 + (unsigned)(pattern_random(&bed->random) % 8);
		for (unsigned i = 0; i < heads; i++)
			rig_offer(&rig, (uint16_t)(i == 0 ? 0 : pattern_random(&bed->random) % RIG_RING_SIZE));
		vc_notify(rig.ring);
		usleep(300);
		int base = vc_ring_stop(rig.vc, 0);
		CHECK(bed, base != -ETIMEDOUT, "round %u: GET_VRING_BASE neither answered nor closed", round);
	}
	return PASS;
}

static const enum across header_across = ACROSS_HEADER;
static const enum across data_across = ACROSS_DATA;
static const enum across table_across = ACROSS_TABLE;

#define CASE(name, bend, allowed)                                     \
	{                                                             \
		"chain: " name, run_chain, &(const struct chain_case) \
		{                                                     \
			bend, allowed                                 \
		}                                                     \
	}

const struct test hostile_chain_tests[] = {
	CASE("a good read, to prove the rig", good_read, FATE_OK),
	CASE("a good indirect write, to prove the rig", good_indirect_write, FATE_OK),
	CASE("head just too large", head_too_large, FATE_SILENT | FATE_CLOSED),
	CASE("head all ones", head_all_ones, FATE_SILENT | FATE_CLOSED),
	CASE("next just too large", next_too_large, FATE_REFUSED),
	CASE("next all ones", next_all_ones, FATE_REFUSED),
	CASE("descriptor points at itself", points_at_itself, FATE_REFUSED),
	CASE("loop through data", loops_through_data, FATE_REFUSED),
	CASE("loop at the end", loops_at_the_end, FATE_REFUSED),
	CASE("loop over the whole ring", loops_over_whole_ring, FATE_REFUSED),
	CASE("unknown flags", unknown_flags, FATE_ANY_SANE),
	CASE("data at 0", data_at_zero, FATE_REFUSED),
	CASE("data nowhere", data_nowhere, FATE_REFUSED),
	CASE("data by its user address", data_by_user_address, FATE_REFUSED),
	CASE("data past the end of memory", data_past_the_end, FATE_REFUSED),
	CASE("data wraps", data_wraps, FATE_REFUSED),
	CASE("data of 4 GiB", data_of_4_gib, FATE_REFUSED),
	CASE("header nowhere", header_nowhere, FATE_REFUSED),
	CASE("header partly before memory", header_before_memory, FATE_REFUSED),
	CASE("status nowhere", status_nowhere, FATE_NO_STATUS | FATE_SILENT | FATE_CLOSED),
	CASE("data over its own ring", data_over_own_ring, FATE_ANY_SANE),
	CASE("data over the available ring", data_over_avail_ring, FATE_ANY_SANE),
	CASE("data over the used ring", data_over_used_ring, FATE_ANY_SANE),
	CASE("data over the header", data_over_header, FATE_ANY_SANE),
	CASE("status over data", status_over_data, FATE_ANY_SANE),
	CASE("status over the used index", status_over_used_index, FATE_ANY_SANE),
	CASE("header of 0 bytes", header_of_0, FATE_REFUSED),
	CASE("header of 15 bytes", header_of_15, FATE_REFUSED),
	CASE("data of 0 bytes", data_of_0, FATE_ANY_SANE),
	CASE("read of 511 bytes", data_of_511, FATE_REFUSED),
	CASE("read of 513 bytes", data_of_513, FATE_REFUSED),
	CASE("write of 511 bytes", write_of_511, FATE_REFUSED),
	CASE("write of 1 byte", write_of_1, FATE_REFUSED),
	CASE("status of 0 bytes", status_of_0, FATE_REFUSED),
	CASE("everything of 0 bytes", all_of_0, FATE_REFUSED),
	CASE("zero-length descriptor in between", zero_length_in_between, FATE_ANY_SANE),
	CASE("header alone", header_alone, FATE_NO_STATUS | FATE_SILENT | FATE_CLOSED),
	CASE("status alone", status_alone, FATE_REFUSED),
	CASE("read without data", no_data, FATE_ANY_SANE),
	CASE("no status", no_status, FATE_NO_STATUS | FATE_SILENT | FATE_CLOSED),
	CASE("status not writable", status_not_writable, FATE_NO_STATUS | FATE_SILENT | FATE_CLOSED),
	CASE("header writable", header_writable, FATE_REFUSED),
	CASE("everything writable", everything_writable, FATE_REFUSED),
	CASE("writable before readable", writable_before_readable, FATE_REFUSED),
	CASE("readable after status", readable_after_status, FATE_REFUSED),
	CASE("read into a readable buffer", read_into_readable, FATE_ANY_SANE & ~FATE_OK),
	CASE("write from a writable buffer", write_from_writable, FATE_ANY_SANE & ~FATE_OK),
	CASE("header in 16 pieces is legal", header_in_16_pieces, FATE_OK),
	CASE("header and data in one piece is legal", header_and_data_in_one, FATE_OK),
	CASE("data and status in one piece is legal", data_and_status_in_one, FATE_OK),
	CASE("data in odd pieces is legal", data_in_odd_pieces, FATE_OK),
	CASE("indirect table in an indirect table", nested_table, FATE_REFUSED),
	CASE("indirect table that holds itself", table_in_itself, FATE_REFUSED),
	CASE("indirect table of 0 bytes", table_of_0, FATE_REFUSED),
	CASE("indirect table of odd length", table_of_odd_length, FATE_REFUSED),
	CASE("indirect table of 4 GiB", table_of_4_gib, FATE_REFUSED),
	CASE("indirect table at an odd address", table_at_odd_address, FATE_ANY_SANE),
	CASE("indirect table nowhere", table_nowhere, FATE_REFUSED),
	CASE("indirect table past the end of memory", table_past_the_end, FATE_REFUSED),
	CASE("indirect table with next too large", table_next_too_large, FATE_REFUSED),
	CASE("indirect table with a loop", table_loops, FATE_REFUSED),
	CASE("indirect table and next", table_and_next, FATE_REFUSED),
	CASE("indirect table after a header is legal", table_after_header, FATE_ANY_SANE),
	CASE("indirect table marked writable", table_write_only, FATE_ANY_SANE),
	CASE("indirect table longer than the queue", table_longer_than_queue, FATE_ANY_SANE),
	{ "chain: indirect table without the feature", table_not_negotiated, NULL },
	{ "chain: header across regions", across_regions, &header_across },
	{ "chain: data across regions", across_regions, &data_across },
	{ "chain: indirect table across regions", across_regions, &table_across },
	{ "chain: two chains share descriptors", shared_descriptors, NULL },
	{ "chain: memory that changes between two looks", changes_between_looks, NULL },
	{ "chain: storm of random ones", random_chains, NULL },
	{ NULL, NULL, NULL },
};
