/* Split rings in guest memory that changes between two reads of it.
 *
 * virtq.c is compiled into this file with its reads of guest memory replaced: after each of them the input may write to the
 * ring, so that what is read twice differs. An input is: features 1, size 1, then steps: what 1, argument 2, and bytes.
 * Every chain that is delivered must be of guest memory, byte by byte, and every one is given back. */
#include "targets/virtq.h"

#include <assert.h>
#include <errno.h>
#include <linux/virtio_ring.h>

#include "pool/base/mem.h"
#include "tests/fuzz/fuzz.h"
#include "tests/unit/unit.h"
#include "tests/unit/unit_guest.h"

#define RING_AREA_BYTES 0x11000u /* descriptors, available and used ring, as unit_ring_init places them */
#define STEPS_MAX 200
#define TOUCH_BYTES_MAX 65536u

static struct unit_guest guest;
static struct unit_ring ring;
static struct fuzz_input *racing; /* NULL: nobody writes */

/* Where a write goes: mostly to the descriptors and heads in use. */
static uint8_t *target(uint16_t where)
{
	uint16_t off = where >> 2;

	switch (where & 3) {
	case 0:
		return (uint8_t *)ring.desc + off % (16u * ring.size);
	case 1:
		return (uint8_t *)ring.avail + off % (6u + 2u * ring.size);
	case 2:
		return unit_guest_ptr(&guest, GUEST_BUFFERS + off % 0x400);
	default:
		return (uint8_t *)ring.used + off % (6u + 8u * ring.size);
	}
}

static void guest_writes(struct fuzz_input *in)
{
	uint8_t bytes[16];
	uint16_t where = fuzz_uint16(in);
	uint32_t len = 1 + fuzz_uint8(in) % 16;

	fuzz_take(in, bytes, len);
	memcpy(target(where), bytes, len);
}

static void race(void)
{
	if (racing && racing->left > 0 && fuzz_uint8(racing) % 4 == 0)
		guest_writes(racing);
}

static void racing_copy(void *into, const void *from, size_t len_bytes)
{
	memcpy(into, from, len_bytes);
	race();
}

static uint16_t racing_word(uint16_t word)
{
	race();
	return word;
}

#define guest_copy racing_copy
#undef le16toh
#define le16toh(word) racing_word(word)
#include "targets/virtq.c"
#undef guest_copy

static bool in_guest(const struct iovec *iov)
{
	for (unsigned i = 0; i < 2; i++) {
		uint8_t *start = guestmem_ptr(guest.mem, guest.slot[i].gpa, GUEST_REGION_BYTES), *at = iov->iov_base;

		if (at >= start && at < start + GUEST_REGION_BYTES)
			return iov->iov_len <= (size_t)(start + GUEST_REGION_BYTES - at);
	}
	return false;
}

static void check_chain(const struct virtq *q, const struct virtq_chain *chain)
{
	uint64_t sum = 0;

	FUZZ_REQUIRE(chain->head < virtq_size(q) && chain->in_bytes > 0 && chain->in_count > 0);
	FUZZ_REQUIRE(chain->out_count + chain->in_count <= VIRTQ_IOV_MAX);
	FUZZ_REQUIRE(chain->out_bytes + chain->in_bytes <= UINT32_MAX);
	for (uint32_t i = 0; i < chain->out_count + chain->in_count; i++) {
		FUZZ_REQUIRE(chain->iov[i].iov_len > 0 && in_guest(&chain->iov[i]));
		sum += chain->iov[i].iov_len;
	}
	FUZZ_REQUIRE(sum == chain->out_bytes + chain->in_bytes);
}

/* Gives back up to `count` of the chains taken. */
static void give_back(struct virtq *q, bool *with_us, uint32_t count)
{
	for (uint16_t head = 0; head < virtq_size(q) && count > 0; head++) {
		if (!with_us[head])
			continue;
		with_us[head] = false;
		virtq_push(q, head, 1);
		count--;
	}
	(void)!virtq_publish(q);
}

static void step(struct virtq *q, bool *with_us, struct fuzz_input *in)
{
	const struct virtq_chain *chain;
	uint8_t what = fuzz_uint8(in);
	int rc;

	switch (what % 8) {
	case 0:
		give_back(q, with_us, what / 8 + 1u);
		break;
	case 1:
		(void)!virtq_notify_on(q);
		break;
	case 2:
		virtq_notify_off(q);
		break;
	case 3:
	case 4:
		guest_writes(in);
		break;
	case 5:
		unit_ring_offer(&ring, what / 8 % ring.size);
		break;
	default:
		rc = virtq_pop(q, false, &chain);
		FUZZ_REQUIRE(rc == 0 || rc == 1 || (rc == -EPROTO && virtq_fault(q)));
		if (rc != 1)
			break;
		check_chain(q, chain);
		FUZZ_REQUIRE(!with_us[chain->head]);
		with_us[chain->head] = true;
	}
}

/* A ring of valid chains of two, to begin with. */
static void fill_ring(void)
{
	for (uint16_t i = 0; i < ring.size; i++) {
		bool first = i % 2 == 0 && ring.size > 1;

		unit_ring_desc(&ring, i, GUEST_SEAM - 64 + i * 64, first ? 16 : 513,
			       first ? VRING_DESC_F_NEXT : VRING_DESC_F_WRITE, (uint16_t)(i + 1));
		ring.avail->ring[i] = i;
	}
	memset(unit_guest_ptr(&guest, GUEST_BUFFERS), 0, 0x1000);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct fuzz_input in = { data, size };
	uint8_t features = fuzz_uint8(&in);
	bool with_us[256] = { false };
	struct virtq_conf conf;
	struct virtq *q;

	if (!guest.mem)
		unit_guest_init(&guest);
	unit_ring_init(&ring, &guest, 0, (uint16_t)(1u << fuzz_uint8(&in) % 9));
	fill_ring();
	conf = (struct virtq_conf){ .mem = guest.mem, .addr = ring.addr, .size = ring.size,
				    .event_idx = features & 1, .indirect = features & 2 };
	FUZZ_REQUIRE(virtq_create(&conf, &q) == 0);
	racing = features & 4 ? &in : NULL;
	for (int i = 0; i < STEPS_MAX && in.left > 0; i++)
		step(q, with_us, &in);
	racing = NULL;
	give_back(q, with_us, UINT32_MAX);
	FUZZ_REQUIRE(virtq_in_flight(q) == 0);
	virtq_destroy(q);
	return 0;
}
