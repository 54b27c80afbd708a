/* Unit tests of targets/virtio_blk.c and targets/blk_queue.c: requests of a driver on a volume that is an array. */
#include <errno.h>
#include <linux/virtio_blk.h>
#include <string.h>
#include <unistd.h>

#include "targets/virtio_blk.h"
#include "tests/unit/fake_volume.h"
#include "tests/unit/unit.h"
#include "tests/unit/unit_guest.h"
#include "tests/unit/unit_loop.h"

#define RING_SIZE 64
#define VOLUME_BYTES (16u << 20)
#define NEXT VRING_DESC_F_NEXT
#define WRITE VRING_DESC_F_WRITE
#define ALL_FEATURES UINT64_MAX
#define WITHOUT(bit) (ALL_FEATURES & ~(1ull << (bit)))
#define UNWRITTEN 0xee

/* Where a request's parts are; each request may have others. */
#define HEADER GUEST_BUFFERS
#define STATUS (GUEST_BUFFERS + 0x1000)
#define TABLE (GUEST_BUFFERS + 0x2000)
#define DATA (GUEST_BUFFERS + 0x10000)

static struct unit_loop u;
static struct unit_guest guest;
static struct unit_ring ring;
static struct volume volume;
static struct blk_dev dev;
static struct blk_queue *queue;
static struct inflight *inflight;
static unsigned wakes, notifies, gone;

static void on_wake(void *arg)
{
	wakes++;
}

static void on_notify(void *arg)
{
	notifies++;
}

static void on_gone(void *arg)
{
	gone++;
}

static void open_queue(uint64_t features)
{
	struct virtq_conf conf = { .mem = guest.mem, .addr = ring.addr, .size = ring.size, .base = ring.used->idx,
				   .indirect = true, .inflight = inflight };
	struct blk_queue_conf queue_conf = { .dev = &dev, .features = features, .wake = on_wake, .notify = on_notify,
					     .gone = on_gone };

	assert_int_equal(virtq_create(&conf, &queue_conf.virtq), 0);
	assert_int_equal(blk_queue_create(&queue_conf, &queue), 0);
}

static void close_queue(void)
{
	if (queue)
		blk_queue_abandon(queue);
	queue = NULL;
}

static void reopen(uint64_t features)
{
	close_queue();
	open_queue(features);
}

static int setup(void **state)
{
	unit_loop_init(&u);
	unit_guest_init(&guest);
	unit_ring_init(&ring, &guest, 0, RING_SIZE);
	fake_volume_init(&volume, &u.loop, VOLUME_BYTES);
	blk_dev_init(&dev, &volume, "a serial", 4, false);
	wakes = notifies = gone = 0;
	inflight = NULL;
	open_queue(ALL_FEATURES);
	return 0;
}

static int teardown(void **state)
{
	fake_volume_release(&volume, false);
	unit_loop_run(&u);
	close_queue();
	inflight_put(inflight);
	fake_volume_fini(&volume);
	unit_guest_fini(&guest);
	unit_loop_fini(&u);
	return 0;
}

/* ---- the driver ---- */

static void *at(uint64_t gpa)
{
	return unit_guest_ptr(&guest, gpa);
}

static void put_header(uint64_t gpa, uint32_t type, uint64_t sector)
{
	struct blk_header header = { le32_of(type), le32_of(0), le64_of(sector) };

	memcpy(at(gpa), &header, sizeof(header));
}

/* Looks at the ring until nothing more happens. */
static void work(void)
{
	while (blk_queue_poll(queue, BLK_TAKE_ALL) > 0 || loop_has_ready(&u.loop))
		unit_loop_run(&u);
}

/* Header, one buffer, status at descriptors 0, 1, 2. The status. */
static uint8_t request(uint32_t type, uint64_t sector, uint32_t len, bool read)
{
	uint8_t *status = at(STATUS);

	put_header(HEADER, type, sector);
	*status = UNWRITTEN;
	unit_ring_desc(&ring, 0, HEADER, sizeof(struct blk_header), NEXT, 1);
	unit_ring_desc(&ring, 1, DATA, len, NEXT | (read ? WRITE : 0), 2);
	unit_ring_desc(&ring, 2, STATUS, 1, WRITE, 0);
	unit_ring_offer(&ring, 0);
	work();
	return *status;
}

static uint8_t read_sectors(uint64_t sector, uint32_t sectors)
{
	return request(VIRTIO_BLK_T_IN, sector, sectors * 512, true);
}

static uint8_t write_sectors(uint64_t sector, uint32_t sectors)
{
	return request(VIRTIO_BLK_T_OUT, sector, sectors * 512, false);
}

static uint8_t ranges(uint32_t type, const struct blk_range *range, unsigned count)
{
	memcpy(at(DATA), range, count * sizeof(*range));
	return request(type, 0, count * sizeof(*range), false);
}

static struct blk_range range_of(uint64_t sector, uint32_t sectors, uint32_t flags)
{
	return (struct blk_range){ le64_of(sector), le32_of(sectors), le32_of(flags) };
}

static uint32_t last_used_len(void)
{
	return ring.used->ring[(uint16_t)(ring.used->idx - 1) % ring.size].len;
}

static uint64_t volume_ops(void)
{
	uint64_t count = 0;

	for (unsigned i = 0; i < VIO_OP_COUNT; i++)
		count += volume.ops[i];
	return count;
}

/* ---- reading and writing ---- */

static void what_is_written_is_on_the_volume(void **state)
{
	memset(at(DATA), 0x5a, 8192);
	assert_int_equal(write_sectors(3, 16), VIRTIO_BLK_S_OK);
	assert_int_equal(volume.data[3 * 512 - 1], 0);
	assert_int_equal(volume.data[3 * 512], 0x5a);
	assert_int_equal(volume.data[19 * 512 - 1], 0x5a);
	assert_int_equal(volume.data[19 * 512], 0);
	assert_int_equal(last_used_len(), 1);
}

static void what_is_on_the_volume_is_read(void **state)
{
	memset(volume.data + 512, 0x77, 1024);
	memset(at(DATA), UNWRITTEN, 4096);
	assert_int_equal(read_sectors(1, 2), VIRTIO_BLK_S_OK);
	assert_int_equal(((uint8_t *)at(DATA))[1023], 0x77);
	assert_int_equal(((uint8_t *)at(DATA))[1024], UNWRITTEN);
	assert_int_equal(last_used_len(), 1025);
}

static void framing_carries_no_meaning(void **state)
{
	uint8_t *bytes = at(DATA);

	/* Header in three pieces, the last with data in it; data in odd pieces. */
	put_header(DATA, VIRTIO_BLK_T_OUT, 8);
	memset(bytes + 16, 0x31, 512);
	*(uint8_t *)at(STATUS) = UNWRITTEN;
	unit_ring_desc(&ring, 0, DATA, 1, NEXT, 1);
	unit_ring_desc(&ring, 1, DATA + 1, 14, NEXT, 2);
	unit_ring_desc(&ring, 2, DATA + 15, 100, NEXT, 3);
	unit_ring_desc(&ring, 3, DATA + 115, 0, NEXT, 4);
	unit_ring_desc(&ring, 4, DATA + 115, 413, NEXT, 5);
	unit_ring_desc(&ring, 5, STATUS, 1, WRITE, 0);
	unit_ring_offer(&ring, 0);
	work();
	assert_int_equal(*(uint8_t *)at(STATUS), VIRTIO_BLK_S_OK);
	assert_int_equal(volume.data[4096], 0x31);
	assert_int_equal(volume.data[4096 + 511], 0x31);
	/* Data and status in one descriptor. */
	put_header(HEADER, VIRTIO_BLK_T_IN, 8);
	memset(bytes, UNWRITTEN, 600);
	unit_ring_desc(&ring, 0, HEADER, 16, NEXT, 1);
	unit_ring_desc(&ring, 1, DATA, 513, WRITE, 0);
	unit_ring_offer(&ring, 0);
	work();
	assert_int_equal(bytes[511], 0x31);
	assert_int_equal(bytes[512], VIRTIO_BLK_S_OK);
	assert_int_equal(bytes[513], UNWRITTEN);
}

static void a_large_request_is_done_in_pieces(void **state)
{
	uint32_t len = 5 * VIO_BYTES_MAX / 2;
	uint8_t *status = at(STATUS);
	struct vring_desc *table = at(TABLE);

	/* Pieces whose ends are nowhere near a megabyte. */
	put_header(HEADER, VIRTIO_BLK_T_OUT, 16);
	for (uint32_t i = 0; i < len / 4; i++)
		((uint32_t *)at(DATA))[i] = i;
	table[0] = (struct vring_desc){ .addr = HEADER, .len = 16, .flags = NEXT, .next = 1 };
	table[1] = (struct vring_desc){ .addr = DATA, .len = 700000, .flags = NEXT, .next = 2 };
	table[2] = (struct vring_desc){ .addr = DATA + 700000, .len = 1500000, .flags = NEXT, .next = 3 };
	table[3] = (struct vring_desc){ .addr = DATA + 2200000, .len = len - 2200000, .flags = NEXT, .next = 4 };
	table[4] = (struct vring_desc){ .addr = STATUS, .len = 1, .flags = WRITE };
	*status = UNWRITTEN;
	unit_ring_desc(&ring, 0, TABLE, 5 * 16, VRING_DESC_F_INDIRECT, 0);
	unit_ring_offer(&ring, 0);
	work();
	assert_int_equal(*status, VIRTIO_BLK_S_OK);
	assert_int_equal(volume.ops[VIO_WRITE], 3);
	assert_int_equal(volume.longest_bytes, VIO_BYTES_MAX);
	assert_memory_equal(volume.data + 8192, at(DATA), len);
	assert_int_equal(ring.used->idx, 1);
}

static void a_large_request_ends_with_its_first_error(void **state)
{
	volume.fail = -EIO;
	assert_int_equal(write_sectors(0, 6 * VIO_BYTES_MAX / 512), VIRTIO_BLK_S_IOERR);
	assert_int_equal(volume.ops[VIO_WRITE], 1);
	assert_int_equal(dev.count.failed_requests, 1);
}

static void many_pieces_and_few_large_arrays(void **state)
{
	enum { PIECES = 100, REQUESTS = 40 };
	uint8_t *statuses = at(STATUS);

	/* More requests with many pieces than there are large arrays. */
	volume.hold = true;
	for (unsigned r = 0; r < REQUESTS; r++) {
		uint64_t gpa = TABLE + 0x100000 + r * 0x2000;
		struct vring_desc *table = at(gpa);

		put_header(HEADER + r * 16, VIRTIO_BLK_T_OUT, r * PIECES);
		statuses[r] = UNWRITTEN;
		table[0] = (struct vring_desc){ .addr = HEADER + r * 16, .len = 16, .flags = NEXT, .next = 1 };
		for (unsigned i = 1; i <= PIECES; i++)
			table[i] = (struct vring_desc){ .addr = DATA + r, .len = 512, .flags = NEXT,
							.next = (uint16_t)(i + 1) };
		table[PIECES + 1] = (struct vring_desc){ .addr = STATUS + r, .len = 1, .flags = WRITE };
		unit_ring_desc(&ring, (uint16_t)r, gpa, (PIECES + 2) * 16, VRING_DESC_F_INDIRECT, 0);
		unit_ring_offer(&ring, (uint16_t)r);
	}
	work();
	assert_int_equal(volume.held_count, 16);
	assert_false(blk_queue_has_room(queue));
	for (unsigned i = 0; i < 3; i++) {
		fake_volume_release(&volume, true);
		work();
	}
	for (unsigned r = 0; r < REQUESTS; r++)
		assert_int_equal(statuses[r], VIRTIO_BLK_S_OK);
	assert_true(blk_queue_is_drained(queue));
}

static void completions_of_one_look_are_one_notification(void **state)
{
	volume.hold = true;
	for (uint16_t i = 0; i < 10; i++) {
		put_header(HEADER + i * 16u, VIRTIO_BLK_T_FLUSH, 0);
		unit_ring_desc(&ring, (uint16_t)(i * 2), HEADER + i * 16u, 16, NEXT, (uint16_t)(i * 2 + 1));
		unit_ring_desc(&ring, (uint16_t)(i * 2 + 1), STATUS + i, 1, WRITE, 0);
		unit_ring_offer(&ring, (uint16_t)(i * 2));
	}
	work();
	assert_int_equal(volume.held_count, 10);
	fake_volume_release(&volume, true);
	work();
	assert_int_equal(ring.used->idx, 10);
	assert_int_equal(ring.used->ring[0].id, 18);
	assert_int_equal(notifies, 1);
	assert_true(wakes >= 1);
}

/* ---- what cannot be ---- */

static void requests_beyond_the_end_are_errors(void **state)
{
	uint64_t end = VOLUME_BYTES / 512;

	assert_int_equal(read_sectors(end - 1, 1), VIRTIO_BLK_S_OK);
	assert_int_equal(read_sectors(end - 1, 2), VIRTIO_BLK_S_IOERR);
	assert_int_equal(read_sectors(end, 1), VIRTIO_BLK_S_IOERR);
	assert_int_equal(write_sectors(end + 1, 1), VIRTIO_BLK_S_IOERR);
	assert_int_equal(write_sectors(UINT64_MAX, 1), VIRTIO_BLK_S_IOERR);
	assert_int_equal(write_sectors(UINT64_MAX / 512 + 1, 1), VIRTIO_BLK_S_IOERR);
	assert_int_equal(volume_ops(), 1);
	assert_int_equal(dev.count.bad_requests, 5);
}

static void odd_lengths_are_errors(void **state)
{
	assert_int_equal(request(VIRTIO_BLK_T_IN, 0, 511, true), VIRTIO_BLK_S_IOERR);
	assert_int_equal(request(VIRTIO_BLK_T_OUT, 0, 513, false), VIRTIO_BLK_S_IOERR);
	assert_int_equal(volume_ops(), 0);
}

static void data_in_the_wrong_direction_is_an_error(void **state)
{
	assert_int_equal(request(VIRTIO_BLK_T_IN, 0, 512, false), VIRTIO_BLK_S_IOERR);
	assert_int_equal(request(VIRTIO_BLK_T_OUT, 0, 512, true), VIRTIO_BLK_S_IOERR);
	assert_int_equal(volume_ops(), 0);
}

static void unknown_types_are_unsupported(void **state)
{
	static const uint32_t types[] = { 2, 3, 5, 9, 10, 12, 14, 15, 16, 0x80000000, 0x80000001, UINT32_MAX };

	for (unsigned i = 0; i < sizeof(types) / sizeof(types[0]); i++)
		assert_int_equal(request(types[i], 0, 512, false), VIRTIO_BLK_S_UNSUPP);
	assert_int_equal(volume_ops(), 0);
}

static void a_short_header_is_an_error(void **state)
{
	unit_ring_desc(&ring, 0, HEADER, 15, NEXT, 1);
	unit_ring_desc(&ring, 1, STATUS, 1, WRITE, 0);
	*(uint8_t *)at(STATUS) = UNWRITTEN;
	unit_ring_offer(&ring, 0);
	work();
	assert_int_equal(*(uint8_t *)at(STATUS), VIRTIO_BLK_S_IOERR);
	/* No header at all. */
	*(uint8_t *)at(STATUS) = UNWRITTEN;
	unit_ring_offer(&ring, 1);
	work();
	assert_int_equal(*(uint8_t *)at(STATUS), VIRTIO_BLK_S_IOERR);
	assert_int_equal(last_used_len(), 1);
}

static void a_failed_read_claims_no_bytes(void **state)
{
	volume.fail = -EIO;
	assert_int_equal(read_sectors(0, 8), VIRTIO_BLK_S_IOERR);
	assert_int_equal(last_used_len(), 0);
	assert_int_equal(write_sectors(0, 8), VIRTIO_BLK_S_IOERR);
	assert_int_equal(last_used_len(), 1);
}

static void a_volume_that_shrank_is_an_error(void **state)
{
	volume.fail = -EINVAL;
	assert_int_equal(read_sectors(0, 8), VIRTIO_BLK_S_IOERR);
	volume.fail = -EOPNOTSUPP;
	assert_int_equal(read_sectors(0, 8), VIRTIO_BLK_S_UNSUPP);
}

static void a_read_only_device_is_not_written(void **state)
{
	struct blk_range range = range_of(0, 8, 0);

	dev.read_only = true;
	reopen(blk_dev_features(&dev));
	assert_int_equal(write_sectors(0, 8), VIRTIO_BLK_S_IOERR);
	assert_int_equal(ranges(VIRTIO_BLK_T_DISCARD, &range, 1), VIRTIO_BLK_S_UNSUPP);
	assert_int_equal(ranges(VIRTIO_BLK_T_WRITE_ZEROES, &range, 1), VIRTIO_BLK_S_UNSUPP);
	assert_int_equal(volume_ops(), 0);
	assert_int_equal(read_sectors(0, 8), VIRTIO_BLK_S_OK);
	assert_int_equal(request(VIRTIO_BLK_T_FLUSH, 0, 0, false), VIRTIO_BLK_S_OK);
}

/* ---- ranges ---- */

static void ranges_are_done_in_order(void **state)
{
	struct blk_range list[] = { range_of(0, 8, 0), range_of(100, 0, 0), range_of(16, 1, 0) };

	memset(volume.data, 1, VOLUME_BYTES);
	assert_int_equal(ranges(VIRTIO_BLK_T_DISCARD, list, 3), VIRTIO_BLK_S_OK);
	assert_int_equal(volume.ops[VIO_DISCARD], 2);
	assert_int_equal(volume.data[4095], 0);
	assert_int_equal(volume.data[4096], 1);
	assert_int_equal(volume.data[16 * 512], 0);
	assert_int_equal(volume.data[17 * 512], 1);
	list[0] = range_of(1, 3, VIRTIO_BLK_WRITE_ZEROES_FLAG_UNMAP);
	assert_int_equal(ranges(VIRTIO_BLK_T_WRITE_ZEROES, list, 1), VIRTIO_BLK_S_OK);
	assert_int_equal(volume.ops[VIO_WRITE_ZEROES], 1);
}

static void a_list_with_one_bad_range_is_refused_whole(void **state)
{
	uint64_t end = VOLUME_BYTES / 512;
	const struct {
		struct blk_range bad;
		uint8_t status;
	} cases[] = {
		{ range_of(end, 1, 0), VIRTIO_BLK_S_IOERR },
		{ range_of(end - 1, 2, 0), VIRTIO_BLK_S_IOERR },
		{ range_of(UINT64_MAX, 1, 0), VIRTIO_BLK_S_IOERR },
		{ range_of(UINT64_MAX / 512 + 2, 1, 0), VIRTIO_BLK_S_IOERR },
		{ range_of(0, UINT32_MAX, 0), VIRTIO_BLK_S_IOERR },
		{ range_of(0, 1, 2), VIRTIO_BLK_S_UNSUPP },
		{ range_of(0, 1, 0x80000000), VIRTIO_BLK_S_UNSUPP },
	};

	for (unsigned i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct blk_range list[] = { range_of(0, 8, 0), cases[i].bad, range_of(8, 8, 0) };

		assert_int_equal(ranges(VIRTIO_BLK_T_WRITE_ZEROES, list, 3), cases[i].status);
	}
	assert_int_equal(volume_ops(), 0);
}

static void discard_knows_no_flags(void **state)
{
	struct blk_range range = range_of(0, 8, VIRTIO_BLK_WRITE_ZEROES_FLAG_UNMAP);

	assert_int_equal(ranges(VIRTIO_BLK_T_DISCARD, &range, 1), VIRTIO_BLK_S_UNSUPP);
	assert_int_equal(volume_ops(), 0);
}

static void lists_have_a_size(void **state)
{
	struct blk_range list[BLK_RANGES_MAX + 1];

	for (unsigned i = 0; i <= BLK_RANGES_MAX; i++)
		list[i] = range_of(i, 1, 0);
	assert_int_equal(ranges(VIRTIO_BLK_T_DISCARD, list, BLK_RANGES_MAX), VIRTIO_BLK_S_OK);
	assert_int_equal(ranges(VIRTIO_BLK_T_DISCARD, list, BLK_RANGES_MAX + 1), VIRTIO_BLK_S_IOERR);
	assert_int_equal(request(VIRTIO_BLK_T_DISCARD, 0, 0, false), VIRTIO_BLK_S_IOERR);
	assert_int_equal(request(VIRTIO_BLK_T_DISCARD, 0, 15, false), VIRTIO_BLK_S_IOERR);
	assert_int_equal(volume.ops[VIO_DISCARD], BLK_RANGES_MAX);
}

static void ranges_have_a_size(void **state)
{
	struct blk_range range = range_of(0, BLK_RANGE_SECTORS_MAX + 1, 0);

	volume.size_bytes = 1ull << 40;
	assert_int_equal(ranges(VIRTIO_BLK_T_DISCARD, &range, 1), VIRTIO_BLK_S_IOERR);
	assert_int_equal(volume_ops(), 0);
}

static void what_was_not_negotiated_is_unsupported(void **state)
{
	struct blk_range range = range_of(0, 8, 0);

	reopen(WITHOUT(VIRTIO_BLK_F_DISCARD));
	assert_int_equal(ranges(VIRTIO_BLK_T_DISCARD, &range, 1), VIRTIO_BLK_S_UNSUPP);
	assert_int_equal(ranges(VIRTIO_BLK_T_WRITE_ZEROES, &range, 1), VIRTIO_BLK_S_OK);
	reopen(WITHOUT(VIRTIO_BLK_F_WRITE_ZEROES));
	assert_int_equal(ranges(VIRTIO_BLK_T_WRITE_ZEROES, &range, 1), VIRTIO_BLK_S_UNSUPP);
}

/* ---- identity, configuration, cache mode ---- */

static void the_serial_is_padded(void **state)
{
	char *id = at(DATA);

	memset(id, UNWRITTEN, 64);
	assert_int_equal(request(VIRTIO_BLK_T_GET_ID, 0, 20, true), VIRTIO_BLK_S_OK);
	assert_memory_equal(id, "a serial\0\0\0\0\0\0\0\0\0\0\0\0", 20);
	assert_int_equal(last_used_len(), 21);
	assert_int_equal(request(VIRTIO_BLK_T_GET_ID, 0, 4, true), VIRTIO_BLK_S_OK);
	assert_int_equal(request(VIRTIO_BLK_T_GET_ID, 0, 64, true), VIRTIO_BLK_S_OK);
	assert_int_equal((uint8_t)id[20], UNWRITTEN);
	assert_int_equal(last_used_len(), 20);
	assert_int_equal(volume_ops(), 0);
}

static void the_longest_serial_has_no_end(void **state)
{
	struct blk_dev other;

	blk_dev_init(&other, &volume, "0123456789abcdefghijklmno", 1, false);
	assert_memory_equal(other.serial, "0123456789abcdefghij", 20);
	assert_int_equal(other.queues, 1);
}

static void the_configuration_is_complete(void **state)
{
	struct blk_config config;

	blk_dev_config(&dev, 0, &config);
	assert_int_equal(le64_get(config.capacity), VOLUME_BYTES / 512);
	assert_int_equal(le32_get(config.size_max), VIO_BYTES_MAX);
	assert_int_equal(le32_get(config.seg_max), 126);
	assert_int_equal(le32_get(config.blk_size), 512);
	assert_int_equal(config.physical_block_exp, 3);
	assert_int_equal(le16_get(config.min_io_size), 8);
	assert_int_equal(config.writeback, 1);
	assert_int_equal(le16_get(config.num_queues), 4);
	assert_int_equal(le32_get(config.max_discard_seg), BLK_RANGES_MAX);
	assert_int_equal(le32_get(config.discard_sector_alignment), 8);
	assert_int_equal(config.write_zeroes_may_unmap, 1);
}

static void a_request_fits_a_small_ring(void **state)
{
	static const struct {
		uint16_t ring_size;
		uint32_t seg_max;
	} cases[] = { { 1024, 126 }, { 128, 126 }, { 64, 62 }, { 4, 2 }, { 2, 1 }, { 1, 1 } };
	struct blk_config config;

	for (unsigned i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		blk_dev_config(&dev, cases[i].ring_size, &config);
		assert_int_equal(le32_get(config.seg_max), cases[i].seg_max);
	}
}

static void only_the_cache_mode_can_be_written(void **state)
{
	uint8_t bytes[60] = { 0 }, one = 1, two = 2, zero = 0;

	assert_int_equal(blk_dev_set_config(&dev, 32, &zero, 1, false), 0);
	assert_false(dev.writeback);
	assert_int_equal(blk_dev_set_config(&dev, 32, &two, 1, false), -EINVAL);
	assert_int_equal(blk_dev_set_config(&dev, 32, &one, 1, false), 0);
	assert_true(dev.writeback);
	assert_int_equal(blk_dev_set_config(&dev, 31, &zero, 1, false), -EPERM);
	assert_int_equal(blk_dev_set_config(&dev, 33, &zero, 1, false), -EPERM);
	assert_int_equal(blk_dev_set_config(&dev, 32, bytes, 2, false), -EPERM);
	assert_int_equal(blk_dev_set_config(&dev, 0, bytes, 60, false), -EPERM);
	assert_true(dev.writeback);
	assert_int_equal(blk_dev_set_config(&dev, 0, bytes, 32, true), 0);
	assert_true(dev.writeback);
	assert_int_equal(blk_dev_set_config(&dev, 0, bytes, 60, true), 0);
	assert_false(dev.writeback);
}

static void write_through_writes_are_durable_when_done(void **state)
{
	struct blk_range range = range_of(0, 8, 0);

	write_sectors(0, 8);
	assert_int_equal(volume.fua, 0);
	dev.writeback = false;
	write_sectors(0, 8);
	assert_int_equal(volume.fua, 1);
	ranges(VIRTIO_BLK_T_WRITE_ZEROES, &range, 1);
	assert_int_equal(volume.fua, 2);
}

static void a_guest_that_cannot_switch_gets_what_it_expects(void **state)
{
	/* No CONFIG_WCE: whatever an earlier guest chose, FLUSH means write-back. */
	dev.writeback = false;
	reopen(WITHOUT(VIRTIO_BLK_F_CONFIG_WCE));
	write_sectors(0, 8);
	assert_int_equal(volume.fua, 0);
	/* No FLUSH: the guest cannot make anything durable itself. */
	dev.writeback = true;
	reopen(WITHOUT(VIRTIO_BLK_F_FLUSH));
	write_sectors(0, 8);
	assert_int_equal(volume.fua, 1);
}

/* ---- the end, and what comes after ---- */

static void an_abandoned_queue_touches_nothing_and_goes_when_it_can(void **state)
{
	volume.hold = true;
	request(VIRTIO_BLK_T_IN, 0, 4096, true);
	assert_int_equal(volume.held_count, 1);
	close_queue();
	assert_int_equal(gone, 0);
	memset(at(STATUS), UNWRITTEN, 1);
	fake_volume_release(&volume, false);
	unit_loop_run(&u);
	assert_int_equal(gone, 1);
	assert_int_equal(*(uint8_t *)at(STATUS), UNWRITTEN);
	assert_int_equal(ring.used->idx, 0);
}

static void an_idle_queue_goes_at_once(void **state)
{
	read_sectors(0, 1);
	close_queue();
	assert_int_equal(gone, 1);
}

static void open_inflight(void)
{
	int fd = inflight_create(1, RING_SIZE, true);

	assert_int_equal(inflight_map(fd, 0, inflight_bytes(1, RING_SIZE), 1, RING_SIZE, &inflight), 0);
	close(fd);
	reopen(ALL_FEATURES);
}

/* Writes with one byte each, head by head, none completed yet. */
static void offer_writes(unsigned count)
{
	for (uint16_t i = 0; i < count; i++) {
		uint16_t desc = (uint16_t)(i * 3);

		put_header(HEADER + i * 16u, VIRTIO_BLK_T_OUT, i);
		memset(at(DATA + i * 512u), i + 1, 512);
		unit_ring_desc(&ring, desc, HEADER + i * 16u, 16, NEXT, (uint16_t)(desc + 1));
		unit_ring_desc(&ring, (uint16_t)(desc + 1), DATA + i * 512u, 512, NEXT, (uint16_t)(desc + 2));
		unit_ring_desc(&ring, (uint16_t)(desc + 2), STATUS + i, 1, WRITE, 0);
		unit_ring_offer(&ring, desc);
	}
}

static void a_successor_finishes_what_was_in_flight_once(void **state)
{
	open_inflight();
	volume.hold = true;
	offer_writes(5);
	work();
	assert_int_equal(volume.held_count, 5);
	/* Two of the five, out of order, are completed before the accident. */
	volume.hold = false;
	for (unsigned i = 0; i < 2; i++) {
		struct list *node = volume.held.prev;

		list_del(node);
		volume.held_count--;
		loop_post(&u.loop, &list_entry(node, struct vio, node)->task);
	}
	work();
	assert_int_equal(ring.used->idx, 2);
	close_queue();
	fake_volume_release(&volume, false);
	unit_loop_run(&u);
	assert_int_equal(ring.used->idx, 2);
	/* More arrive while nobody is there. */
	memset(volume.data, 0, 8192);
	open_queue(ALL_FEATURES);
	assert_int_equal(virtq_resubmits_left(blk_queue_virtq(queue)), 3);
	assert_int_equal(dev.count.resubmitted, 3);
	assert_false(blk_queue_is_drained(queue));
	work();
	assert_int_equal(ring.used->idx, 5);
	assert_true(blk_queue_is_drained(queue));
	for (unsigned i = 0; i < 3; i++)
		assert_int_equal(volume.data[i * 512], i + 1);
	assert_int_equal(volume.data[3 * 512], 0);
	assert_int_equal(virtq_next_avail(blk_queue_virtq(queue)), 5);
}

static void draining_takes_what_was_in_flight_and_nothing_new(void **state)
{
	open_inflight();
	volume.hold = true;
	offer_writes(3);
	work();
	close_queue();
	fake_volume_release(&volume, false);
	unit_loop_run(&u);
	volume.hold = false;
	unit_ring_offer(&ring, 30);
	open_queue(ALL_FEATURES);
	while (blk_queue_poll(queue, BLK_TAKE_RESUBMITS) > 0 || loop_has_ready(&u.loop))
		unit_loop_run(&u);
	assert_true(blk_queue_is_drained(queue));
	assert_int_equal(ring.used->idx, 3);
	assert_int_equal(virtq_next_avail(blk_queue_virtq(queue)), 3);
}

static void a_request_that_spoilt_in_the_meantime_breaks_the_ring(void **state)
{
	open_inflight();
	volume.hold = true;
	offer_writes(2);
	work();
	close_queue();
	fake_volume_release(&volume, false);
	unit_loop_run(&u);
	volume.hold = false;
	ring.desc[0].next = RING_SIZE;
	open_queue(ALL_FEATURES);
	work();
	assert_non_null(virtq_fault(blk_queue_virtq(queue)));
	assert_true(blk_queue_is_drained(queue));
	assert_int_equal(ring.used->idx, 0);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
	const struct CMUnitTest tests[] = {
		TEST(what_is_written_is_on_the_volume),
		TEST(what_is_on_the_volume_is_read),
		TEST(framing_carries_no_meaning),
		TEST(a_large_request_is_done_in_pieces),
		TEST(a_large_request_ends_with_its_first_error),
		TEST(many_pieces_and_few_large_arrays),
		TEST(completions_of_one_look_are_one_notification),
		TEST(requests_beyond_the_end_are_errors),
		TEST(odd_lengths_are_errors),
		TEST(data_in_the_wrong_direction_is_an_error),
		TEST(unknown_types_are_unsupported),
		TEST(a_short_header_is_an_error),
		TEST(a_failed_read_claims_no_bytes),
		TEST(a_volume_that_shrank_is_an_error),
		TEST(a_read_only_device_is_not_written),
		TEST(ranges_are_done_in_order),
		TEST(a_list_with_one_bad_range_is_refused_whole),
		TEST(discard_knows_no_flags),
		TEST(lists_have_a_size),
		TEST(ranges_have_a_size),
		TEST(what_was_not_negotiated_is_unsupported),
		TEST(the_serial_is_padded),
		TEST(the_longest_serial_has_no_end),
		TEST(the_configuration_is_complete),
		TEST(a_request_fits_a_small_ring),
		TEST(only_the_cache_mode_can_be_written),
		TEST(write_through_writes_are_durable_when_done),
		TEST(a_guest_that_cannot_switch_gets_what_it_expects),
		TEST(an_abandoned_queue_touches_nothing_and_goes_when_it_can),
		TEST(an_idle_queue_goes_at_once),
		TEST(a_successor_finishes_what_was_in_flight_once),
		TEST(draining_takes_what_was_in_flight_and_nothing_new),
		TEST(a_request_that_spoilt_in_the_meantime_breaks_the_ring),
	};

	return run_unit_tests(tests);
}
