/* The inflight region: any content, which the front end goes on changing. An input is: ring number 1, size 1, used index 2,
 * the content of the region's queue, up to CONTENT_BYTES; then steps. A start delivers each head once and in range; a
 * successor's start after our own steps finds exactly what is in flight, unless the front end wrote in between. */
#include "targets/inflight.h"

#include <errno.h>
#include <sys/mman.h>
#include <unistd.h>

#include "targets/inflight_format.h"
#include "tests/fuzz/fuzz.h"

#define QUEUES 2
#define SIZE 16
#define CONTENT_BYTES (16 + 16 * SIZE)
#define STRIDE_BYTES 320u /* CONTENT_BYTES rounded up to INFLIGHT_ALIGN */

static struct inflight *inf;
static uint8_t *map;

static void make_region(void)
{
	uint64_t len_bytes = inflight_bytes(QUEUES, SIZE);
	int fd = inflight_create(QUEUES, SIZE, true);

	FUZZ_REQUIRE(fd >= 0 && inflight_map(fd, 0, len_bytes, QUEUES, SIZE, &inf) == 0);
	map = mmap(NULL, len_bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	FUZZ_REQUIRE(map != MAP_FAILED);
	close(fd);
}

static void check_heads(const uint16_t *heads, int count, uint16_t size, bool *taken)
{
	FUZZ_REQUIRE(count <= size);
	for (int i = 0; i < count; i++) {
		FUZZ_REQUIRE(heads[i] < size && !taken[heads[i]]);
		taken[heads[i]] = true;
	}
}

/* Takes and gives back as virtq.c does. Returns true if the front end wrote. */
static bool run(struct inflight_ring *ring, uint16_t *used_idx, bool *taken, struct fuzz_input *in)
{
	bool wrote = false;

	for (int i = 0; i < 64 && in->left > 0; i++) {
		uint8_t what = fuzz_uint8(in);
		uint16_t head = what / 4 % ring->size;

		if (what % 4 == 3) {
			map[fuzz_uint16(in) % (QUEUES * STRIDE_BYTES)] = fuzz_uint8(in);
			wrote = true;
		} else if (!taken[head]) {
			inflight_take(ring, head);
			taken[head] = true;
		} else {
			inflight_give(ring, head);
			inflight_given(ring, &head, 1, ++*used_idx);
			taken[head] = false;
		}
	}
	return wrote;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size_bytes)
{
	struct fuzz_input in = { data, size_bytes };
	uint32_t index = fuzz_uint8(&in) % (QUEUES + 1);
	uint16_t size = (uint16_t)(1u << fuzz_uint8(&in) % 6), used_idx = fuzz_uint16(&in), heads[64];
	bool taken[64] = { false }, again[64] = { false }, fresh;
	struct inflight_ring ring;
	int count;

	if (!map)
		make_region();
	fuzz_take(&in, map + index % QUEUES * STRIDE_BYTES, CONTENT_BYTES);
	count = inflight_ring_start(inf, index, size, used_idx, &ring, heads, &fresh);
	if (count < 0) {
		FUZZ_REQUIRE(count == -EINVAL || count == -EBADMSG);
		return 0;
	}
	check_heads(heads, count, size, taken);
	if (run(&ring, &used_idx, taken, &in))
		return 0;
	count = inflight_ring_start(inf, index, size, used_idx, &ring, heads, &fresh);
	FUZZ_REQUIRE(count >= 0);
	check_heads(heads, count, size, again);
	FUZZ_REQUIRE(memcmp(taken, again, sizeof(taken)) == 0);
	return 0;
}
