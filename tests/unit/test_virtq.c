/* Unit tests of targets/virtq.c: the device side of a split ring against a driver that does right, and wrong. */
#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "targets/virtq.h"
#include "tests/unit/unit.h"
#include "tests/unit/unit_guest.h"

#define SIZE 16
#define NEXT VRING_DESC_F_NEXT
#define WRITE VRING_DESC_F_WRITE
#define INDIRECT VRING_DESC_F_INDIRECT

static struct unit_guest guest;
static struct unit_ring ring;
static struct virtq *q;
static const struct virtq_chain *chain;

static void start_with(uint16_t base, bool event_idx, bool indirect)
{
	struct virtq_conf conf = { .mem = guest.mem, .addr = ring.addr, .size = ring.size, .base = base,
				   .event_idx = event_idx, .indirect = indirect };

	if (q)
		virtq_destroy(q);
	q = NULL;
	assert_int_equal(virtq_create(&conf, &q), 0);
}

static int setup(void **state)
{
	unit_guest_init(&guest);
	unit_ring_init(&ring, &guest, 0, SIZE);
	q = NULL;
	start_with(0, true, true);
	return 0;
}

static int teardown(void **state)
{
	virtq_destroy(q);
	unit_guest_fini(&guest);
	return 0;
}

static int pop(void)
{
	return virtq_pop(q, false, &chain);
}

/* A chain of one buffer to read and one to write at descriptors head, head + 1. */
static void offer_pair(uint16_t head)
{
	unit_ring_desc(&ring, head, GUEST_BUFFERS + head * 0x1000u, 16, NEXT, (uint16_t)(head + 1));
	unit_ring_desc(&ring, (uint16_t)(head + 1), GUEST_BUFFERS + head * 0x1000u + 0x800, 1, WRITE, 0);
	unit_ring_offer(&ring, head);
}

static void expect_fault(const char *what)
{
	unit_ring_offer(&ring, 0);
	assert_int_equal(pop(), -EPROTO);
	assert_string_equal(virtq_fault(q), what);
	/* For good, and the index stays where it was. */
	assert_int_equal(pop(), -EPROTO);
	assert_int_equal(virtq_next_avail(q), 0);
	assert_int_equal(virtq_in_flight(q), 0);
}

/* ---- taking ---- */

static void an_empty_ring_gives_nothing(void **state)
{
	assert_int_equal(pop(), 0);
	assert_null(virtq_fault(q));
}

static void a_direct_chain_is_taken_whole(void **state)
{
	unit_ring_desc(&ring, 3, GUEST_BUFFERS, 16, NEXT, 7);
	unit_ring_desc(&ring, 7, GUEST_BUFFERS + 0x1000, 512, NEXT | WRITE, 1);
	unit_ring_desc(&ring, 1, GUEST_BUFFERS + 0x2000, 1, WRITE, 0);
	unit_ring_offer(&ring, 3);
	assert_int_equal(pop(), 1);
	assert_int_equal(chain->head, 3);
	assert_int_equal(chain->out_count, 1);
	assert_int_equal(chain->in_count, 2);
	assert_int_equal(chain->out_bytes, 16);
	assert_int_equal(chain->in_bytes, 513);
	assert_ptr_equal(chain->iov[1].iov_base, guestmem_ptr(guest.mem, GUEST_BUFFERS + 0x1000, 512));
	assert_int_equal(pop(), 0);
	assert_int_equal(virtq_in_flight(q), 1);
	assert_int_equal(virtq_next_avail(q), 1);
}

static void write_table(uint64_t gpa, unsigned count)
{
	struct vring_desc table[64];

	for (unsigned i = 0; i < count; i++)
		table[i] = (struct vring_desc){ .addr = GUEST_BUFFERS + 0x10000 + i * 0x1000, .len = 8,
						.flags = i + 1 < count ? NEXT : WRITE, .next = (uint16_t)(i + 1) };
	for (unsigned i = 0; i < count; i++)
		for (unsigned b = 0; b < sizeof(table[0]); b++)
			*(uint8_t *)unit_guest_ptr(&guest, gpa + i * sizeof(table[0]) + b) = ((uint8_t *)&table[i])[b];
}

static void an_indirect_chain_may_be_longer_than_the_ring(void **state)
{
	write_table(GUEST_BUFFERS, 40);
	unit_ring_desc(&ring, 0, GUEST_BUFFERS, 40 * 16, INDIRECT, 0);
	unit_ring_offer(&ring, 0);
	assert_int_equal(pop(), 1);
	assert_int_equal(chain->out_count, 39);
	assert_int_equal(chain->in_count, 1);
}

static void an_indirect_table_may_cross_regions_and_be_unaligned(void **state)
{
	uint64_t gpa = GUEST_SEAM - 16 * 5 - 7;

	write_table(gpa, 10);
	unit_ring_desc(&ring, 0, gpa, 10 * 16, INDIRECT, 0);
	unit_ring_offer(&ring, 0);
	assert_int_equal(pop(), 1);
	assert_int_equal(chain->out_count, 9);
	assert_int_equal(chain->in_bytes, 8);
}

static void an_indirect_table_may_follow_direct_descriptors(void **state)
{
	write_table(GUEST_BUFFERS, 3);
	unit_ring_desc(&ring, 0, GUEST_BUFFERS + 0x8000, 16, NEXT, 1);
	/* The write flag of the descriptor itself means nothing. */
	unit_ring_desc(&ring, 1, GUEST_BUFFERS, 3 * 16, INDIRECT | WRITE, 0);
	unit_ring_offer(&ring, 0);
	assert_int_equal(pop(), 1);
	assert_int_equal(chain->out_count, 3);
	assert_int_equal(chain->in_count, 1);
}

static void a_buffer_across_regions_becomes_two_pieces(void **state)
{
	unit_ring_desc(&ring, 0, GUEST_SEAM - 10, 100, WRITE, 0);
	unit_ring_offer(&ring, 0);
	assert_int_equal(pop(), 1);
	assert_int_equal(chain->in_count, 2);
	assert_int_equal(chain->in_bytes, 100);
}

static void buffers_of_length_0_are_skipped(void **state)
{
	unit_ring_desc(&ring, 0, UINT64_MAX, 0, NEXT, 1);
	unit_ring_desc(&ring, 1, GUEST_BUFFERS, 16, NEXT, 2);
	unit_ring_desc(&ring, 2, 0, 0, NEXT | WRITE, 3);
	unit_ring_desc(&ring, 3, GUEST_BUFFERS, 1, WRITE, 0);
	unit_ring_offer(&ring, 0);
	assert_int_equal(pop(), 1);
	assert_int_equal(chain->out_count, 1);
	assert_int_equal(chain->in_count, 1);
}

static void a_full_ring_is_taken_in_order(void **state)
{
	for (uint16_t i = 0; i < SIZE; i += 2)
		offer_pair((uint16_t)(SIZE - 2 - i));
	for (uint16_t i = 0; i < SIZE; i += 2) {
		assert_int_equal(pop(), 1);
		assert_int_equal(chain->head, SIZE - 2 - i);
	}
	assert_int_equal(pop(), 0);
}

static void indexes_wrap(void **state)
{
	start_with(65530, true, true);
	ring.avail->idx = 65530;
	for (unsigned i = 0; i < 20; i++) {
		offer_pair(0);
		assert_int_equal(pop(), 1);
		virtq_push(q, 0, 1);
		virtq_publish(q);
	}
	assert_int_equal(virtq_next_avail(q), (uint16_t)(65530 + 20));
	assert_int_equal(ring.used->idx, 20);
}

static void new_requests_wait_while_only_resubmits_are_wanted(void **state)
{
	offer_pair(0);
	assert_int_equal(virtq_pop(q, true, &chain), 0);
	assert_int_equal(pop(), 1);
}

/* ---- drivers that do wrong ---- */

static void a_loop_is_a_fault(void **state)
{
	unit_ring_desc(&ring, 0, GUEST_BUFFERS, 16, NEXT, 1);
	unit_ring_desc(&ring, 1, GUEST_BUFFERS, 16, NEXT, 0);
	expect_fault("a chain is a loop or longer than allowed");
}

static void a_loop_within_a_table_is_a_fault(void **state)
{
	struct vring_desc *table = unit_guest_ptr(&guest, GUEST_BUFFERS);

	write_table(GUEST_BUFFERS, 4);
	table[3].flags = NEXT;
	table[3].next = 0;
	unit_ring_desc(&ring, 0, GUEST_BUFFERS, 4 * 16, INDIRECT, 0);
	expect_fault("a chain is a loop or longer than allowed");
}

static void a_next_out_of_range_is_a_fault(void **state)
{
	unit_ring_desc(&ring, 0, GUEST_BUFFERS, 16, NEXT, SIZE);
	expect_fault("a descriptor index is out of range");
}

static void a_next_beyond_the_table_is_a_fault(void **state)
{
	struct vring_desc *table = unit_guest_ptr(&guest, GUEST_BUFFERS);

	write_table(GUEST_BUFFERS, 4);
	table[1].next = 4;
	unit_ring_desc(&ring, 0, GUEST_BUFFERS, 4 * 16, INDIRECT, 0);
	expect_fault("a descriptor index is out of range");
}

static void a_head_out_of_range_is_a_fault(void **state)
{
	unit_ring_offer(&ring, SIZE);
	assert_int_equal(pop(), -EPROTO);
	assert_string_equal(virtq_fault(q), "an available entry is out of range");
}

static void a_table_in_a_table_is_a_fault(void **state)
{
	struct vring_desc *table = unit_guest_ptr(&guest, GUEST_BUFFERS);

	write_table(GUEST_BUFFERS, 4);
	table[1].flags = INDIRECT;
	unit_ring_desc(&ring, 0, GUEST_BUFFERS, 4 * 16, INDIRECT, 0);
	expect_fault("an indirect table where none may be");
}

static void a_descriptor_after_a_table_is_a_fault(void **state)
{
	unit_ring_desc(&ring, 0, GUEST_BUFFERS, 16, INDIRECT | NEXT, 1);
	expect_fault("an indirect table where none may be");
}

static void a_table_that_was_not_negotiated_is_a_fault(void **state)
{
	start_with(0, true, false);
	write_table(GUEST_BUFFERS, 4);
	unit_ring_desc(&ring, 0, GUEST_BUFFERS, 4 * 16, INDIRECT, 0);
	expect_fault("an indirect table where none may be");
}

static void tables_of_wrong_size_are_faults(void **state)
{
	static const uint32_t lens[] = { 0, 8, 17, 16 * 65537, 0xfffffff0 };

	for (unsigned i = 0; i < sizeof(lens) / sizeof(lens[0]); i++) {
		unit_ring_init(&ring, &guest, 0, SIZE);
		start_with(0, true, true);
		unit_ring_desc(&ring, 0, GUEST_BUFFERS, lens[i], INDIRECT, 0);
		expect_fault("an indirect table has a wrong size");
	}
}

static void tables_outside_memory_are_faults(void **state)
{
	static const uint64_t gpas[] = { 0, GUEST_GPA - 8, GUEST_SEAM + GUEST_REGION_BYTES - 8, UINT64_MAX - 8 };

	for (unsigned i = 0; i < sizeof(gpas) / sizeof(gpas[0]); i++) {
		unit_ring_init(&ring, &guest, 0, SIZE);
		start_with(0, true, true);
		unit_ring_desc(&ring, 0, gpas[i], 32, INDIRECT, 0);
		expect_fault("an indirect table lies outside guest memory");
	}
}

static void a_buffer_outside_memory_is_a_fault(void **state)
{
	unit_ring_desc(&ring, 0, GUEST_SEAM + GUEST_REGION_BYTES - 1, 2, WRITE, 0);
	expect_fault("a buffer lies outside guest memory");
}

static void reading_after_writing_is_a_fault(void **state)
{
	unit_ring_desc(&ring, 0, GUEST_BUFFERS, 1, WRITE | NEXT, 1);
	unit_ring_desc(&ring, 1, GUEST_BUFFERS, 1, 0, 0);
	expect_fault("a buffer to read follows one to write");
}

static void a_chain_without_room_for_an_answer_is_a_fault(void **state)
{
	unit_ring_desc(&ring, 0, GUEST_BUFFERS, 16, 0, 0);
	expect_fault("a request has no room for an answer");
}

static void too_many_pieces_are_a_fault(void **state)
{
	struct vring_desc *table = unit_guest_ptr(&guest, GUEST_BUFFERS);

	/* 513 buffers across the seam are 1026 pieces. */
	for (unsigned i = 0; i < 513; i++)
		table[i] = (struct vring_desc){ .addr = GUEST_SEAM - 1, .len = 2, .flags = NEXT | WRITE,
						.next = (uint16_t)(i + 1) };
	table[512].flags = WRITE;
	unit_ring_desc(&ring, 0, GUEST_BUFFERS, 513 * 16, INDIRECT, 0);
	expect_fault("a request has too many pieces");
}

static void more_descriptors_than_allowed_are_a_fault(void **state)
{
	struct vring_desc *table = unit_guest_ptr(&guest, GUEST_BUFFERS);

	for (unsigned i = 0; i < VIRTQ_DESCS_MAX + 1; i++)
		table[i] = (struct vring_desc){ .addr = GUEST_BUFFERS, .len = 0, .flags = NEXT,
						.next = (uint16_t)(i + 1) };
	table[VIRTQ_DESCS_MAX].flags = WRITE;
	unit_ring_desc(&ring, 0, GUEST_BUFFERS, (VIRTQ_DESCS_MAX + 1) * 16, INDIRECT, 0);
	expect_fault("a chain is a loop or longer than allowed");
}

static void more_than_4_gib_are_a_fault(void **state)
{
	/* 600 buffers of nearly all of memory. */
	struct vring_desc *table = unit_guest_ptr(&guest, GUEST_BUFFERS);

	for (unsigned i = 0; i < 600; i++)
		table[i] = (struct vring_desc){ .addr = GUEST_GPA, .len = GUEST_REGION_BYTES, .flags = NEXT,
						.next = (uint16_t)(i + 1) };
	table[599].flags = WRITE;
	unit_ring_desc(&ring, 0, GUEST_BUFFERS, 600 * 16, INDIRECT, 0);
	expect_fault("a request is longer than 4 GiB");
}

static void an_index_that_jumps_is_a_fault(void **state)
{
	ring.avail->idx = SIZE + 1;
	assert_int_equal(pop(), -EPROTO);
	assert_string_equal(virtq_fault(q), "the available index jumped");
}

static void an_index_that_goes_back_is_a_fault(void **state)
{
	offer_pair(0);
	assert_int_equal(pop(), 1);
	ring.avail->idx = 0;
	assert_int_equal(pop(), -EPROTO);
}

static void a_head_twice_in_flight_is_a_fault(void **state)
{
	offer_pair(0);
	offer_pair(0);
	assert_int_equal(pop(), 1);
	assert_int_equal(pop(), -EPROTO);
	assert_string_equal(virtq_fault(q), "a request was made available twice");
	/* The one we have can still be given back. */
	virtq_push(q, 0, 1);
	virtq_publish(q);
	assert_int_equal(ring.used->idx, 1);
	assert_int_equal(virtq_in_flight(q), 0);
}

static void a_ring_that_does_not_fit_its_memory_is_refused(void **state)
{
	struct virtq_addr addr = ring.addr;

	assert_int_equal(virtq_addr_validate(guest.mem, &addr, SIZE), 0);
	addr.desc_uva += 8;
	assert_int_equal(virtq_addr_validate(guest.mem, &addr, SIZE), -EINVAL);
	addr = ring.addr;
	addr.avail_uva += 1;
	assert_int_equal(virtq_addr_validate(guest.mem, &addr, SIZE), -EINVAL);
	addr = ring.addr;
	addr.used_uva += 2;
	assert_int_equal(virtq_addr_validate(guest.mem, &addr, SIZE), -EINVAL);
	addr = ring.addr;
	addr.used_uva = GUEST_UVA + GUEST_REGION_BYTES - 4;
	assert_int_equal(virtq_addr_validate(guest.mem, &addr, SIZE), -EFAULT);
	addr = ring.addr;
	addr.avail_uva = 0;
	assert_int_equal(virtq_addr_validate(guest.mem, &addr, SIZE), -EFAULT);
}

static void sizes_are_powers_of_two(void **state)
{
	assert_true(virtq_size_is_valid(1));
	assert_true(virtq_size_is_valid(128));
	assert_true(virtq_size_is_valid(VIRTQ_SIZE_MAX));
	assert_false(virtq_size_is_valid(0));
	assert_false(virtq_size_is_valid(3));
	assert_false(virtq_size_is_valid(VIRTQ_SIZE_MAX * 2));
	assert_false(virtq_size_is_valid(0x10000));
}

/* ---- giving back ---- */

static void a_batch_becomes_visible_at_once(void **state)
{
	for (uint16_t i = 0; i < 6; i += 2)
		offer_pair(i);
	for (uint16_t i = 0; i < 6; i += 2)
		assert_int_equal(pop(), 1);
	virtq_push(q, 4, 100);
	virtq_push(q, 0, 1);
	assert_int_equal(ring.used->idx, 0);
	virtq_publish(q);
	assert_int_equal(ring.used->idx, 2);
	assert_int_equal(ring.used->ring[0].id, 4);
	assert_int_equal(ring.used->ring[0].len, 100);
	assert_int_equal(ring.used->ring[1].id, 0);
	assert_int_equal(virtq_in_flight(q), 1);
	assert_false(virtq_publish(q));
	assert_int_equal(ring.used->idx, 2);
}

/* Takes and gives back n chains in one batch; whether the driver is to be told. */
static bool turn(unsigned n)
{
	for (unsigned i = 0; i < n; i++) {
		offer_pair((uint16_t)(i * 2));
		assert_int_equal(pop(), 1);
	}
	for (unsigned i = 0; i < n; i++)
		virtq_push(q, (uint16_t)(i * 2), 1);
	return virtq_publish(q);
}

static void with_event_index_the_driver_is_told_when_it_is_passed(void **state)
{
	*unit_ring_used_event(&ring) = 9;
	assert_true(turn(1));          /* the first batch always */
	assert_false(turn(4));         /* 5 */
	assert_false(turn(4));         /* 9: entry 9 is not there yet */
	assert_true(turn(1));          /* 10 */
	assert_false(turn(1));
	*unit_ring_used_event(&ring) = 12;
	assert_true(turn(4));          /* 15: passed 12 in the middle of the batch */
	/* Flags mean nothing then. */
	ring.avail->flags = VRING_AVAIL_F_NO_INTERRUPT;
	*unit_ring_used_event(&ring) = 15;
	assert_true(turn(1));
}

static void without_event_index_the_flag_decides(void **state)
{
	start_with(0, false, true);
	assert_true(turn(1));
	ring.avail->flags = VRING_AVAIL_F_NO_INTERRUPT;
	assert_false(turn(1));
	ring.avail->flags = 0;
	assert_true(turn(2));
}

static void asking_for_kicks_names_the_next_request(void **state)
{
	turn(3);
	assert_false(virtq_notify_on(q));
	assert_int_equal(*unit_ring_avail_event(&ring), 3);
	offer_pair(0);
	/* The driver was faster: look again instead of sleeping. */
	assert_true(virtq_notify_on(q));
	virtq_notify_off(q);
	assert_int_equal(ring.used->flags, 0);
}

static void without_event_index_kicks_are_a_flag(void **state)
{
	start_with(0, false, true);
	virtq_notify_off(q);
	assert_int_equal(ring.used->flags, VRING_USED_F_NO_NOTIFY);
	assert_false(virtq_notify_on(q));
	assert_int_equal(ring.used->flags, 0);
	offer_pair(0);
	assert_true(virtq_notify_on(q));
}

/* ---- memory that changes ---- */

static void a_ring_goes_on_in_a_new_table(void **state)
{
	struct guestmem *mem;

	offer_pair(0);
	assert_int_equal(pop(), 1);
	assert_int_equal(guestmem_create(guest.slot, guest.fd, 1, &mem), 0);
	assert_int_equal(virtq_remap(q, mem), 0);
	guestmem_put(guest.mem);
	guest.mem = mem;
	virtq_push(q, 0, 1);
	virtq_publish(q);
	assert_int_equal(ring.used->idx, 1);
	unit_ring_desc(&ring, 0, GUEST_SEAM, 1, WRITE, 0);
	unit_ring_offer(&ring, 0);
	assert_int_equal(pop(), -EPROTO);
}

static void a_ring_whose_memory_is_taken_away_is_not_moved(void **state)
{
	struct guestmem *mem;

	assert_int_equal(guestmem_create(guest.slot + 1, guest.fd + 1, 1, &mem), 0);
	assert_int_equal(virtq_remap(q, mem), -EFAULT);
	guestmem_put(mem);
	offer_pair(0);
	assert_int_equal(pop(), 1);
}

/* Every index and descriptor is random, from a fixed seed: whatever happens, no access leaves memory (the sanitizers
 * look) and every chain taken is a sane one. */
static uint64_t random_state;

static uint64_t random_below(uint64_t limit)
{
	random_state = random_state * 6364136223846793005ull + 1442695040888963407ull;
	return (random_state >> 33) % limit;
}

static void random_desc(struct vring_desc *desc)
{
	static const uint64_t bases[] = { GUEST_BUFFERS, GUEST_SEAM - 40, GUEST_SEAM + GUEST_REGION_BYTES - 40, 0,
					  UINT64_MAX - 40 };

	*desc = (struct vring_desc){
		.addr = bases[random_below(8) < 6 ? 0 : random_below(5)] + random_below(64),
		.len = random_below(20) == 0 ? (uint32_t)random_below(1ull << 32) : (uint32_t)random_below(64),
		.flags = (uint16_t)(random_below(8) == 0 ? random_below(8) : random_below(4)),
		.next = (uint16_t)random_below(random_below(20) == 0 ? 65536 : SIZE),
	};
}

static void check_chain(void)
{
	uint64_t out_bytes = 0, in_bytes = 0;

	assert_true(chain->out_count + chain->in_count <= VIRTQ_IOV_MAX);
	for (uint32_t i = 0; i < chain->out_count + chain->in_count; i++)
		*(i < chain->out_count ? &out_bytes : &in_bytes) += chain->iov[i].iov_len;
	assert_int_equal(out_bytes, chain->out_bytes);
	assert_int_equal(in_bytes, chain->in_bytes);
	assert_true(in_bytes > 0);
}

static void random_rings_do_no_harm(void **state)
{
	unsigned taken = 0, faults = 0;

	for (random_state = 1; taken + faults < 40000;) {
		unit_ring_init(&ring, &guest, 0, SIZE);
		start_with(0, true, true);
		for (unsigned i = 0; i < SIZE; i++) {
			random_desc(&ring.desc[i]);
			random_desc((struct vring_desc *)unit_guest_ptr(&guest, GUEST_BUFFERS) + i);
			ring.avail->ring[i] = (uint16_t)random_below(random_below(30) == 0 ? 65536 : SIZE);
		}
		ring.avail->idx = (uint16_t)random_below(SIZE + 2);
		while (pop() > 0) {
			check_chain();
			taken++;
			virtq_push(q, chain->head, 1);
			virtq_publish(q);
		}
		faults += virtq_fault(q) != NULL;
	}
	assert_true(taken > 5000 && faults > 5000);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
	const struct CMUnitTest tests[] = {
		TEST(an_empty_ring_gives_nothing),
		TEST(a_direct_chain_is_taken_whole),
		TEST(an_indirect_chain_may_be_longer_than_the_ring),
		TEST(an_indirect_table_may_cross_regions_and_be_unaligned),
		TEST(an_indirect_table_may_follow_direct_descriptors),
		TEST(a_buffer_across_regions_becomes_two_pieces),
		TEST(buffers_of_length_0_are_skipped),
		TEST(a_full_ring_is_taken_in_order),
		TEST(indexes_wrap),
		TEST(new_requests_wait_while_only_resubmits_are_wanted),
		TEST(a_loop_is_a_fault),
		TEST(a_loop_within_a_table_is_a_fault),
		TEST(a_next_out_of_range_is_a_fault),
		TEST(a_next_beyond_the_table_is_a_fault),
		TEST(a_head_out_of_range_is_a_fault),
		TEST(a_table_in_a_table_is_a_fault),
		TEST(a_descriptor_after_a_table_is_a_fault),
		TEST(a_table_that_was_not_negotiated_is_a_fault),
		TEST(tables_of_wrong_size_are_faults),
		TEST(tables_outside_memory_are_faults),
		TEST(a_buffer_outside_memory_is_a_fault),
		TEST(reading_after_writing_is_a_fault),
		TEST(a_chain_without_room_for_an_answer_is_a_fault),
		TEST(too_many_pieces_are_a_fault),
		TEST(more_descriptors_than_allowed_are_a_fault),
		TEST(more_than_4_gib_are_a_fault),
		TEST(an_index_that_jumps_is_a_fault),
		TEST(an_index_that_goes_back_is_a_fault),
		TEST(a_head_twice_in_flight_is_a_fault),
		TEST(a_ring_that_does_not_fit_its_memory_is_refused),
		TEST(sizes_are_powers_of_two),
		TEST(a_batch_becomes_visible_at_once),
		TEST(with_event_index_the_driver_is_told_when_it_is_passed),
		TEST(without_event_index_the_flag_decides),
		TEST(asking_for_kicks_names_the_next_request),
		TEST(without_event_index_kicks_are_a_flag),
		TEST(a_ring_goes_on_in_a_new_table),
		TEST(a_ring_whose_memory_is_taken_away_is_not_moved),
		TEST(random_rings_do_no_harm),
	};

	return run_unit_tests(tests);
}
