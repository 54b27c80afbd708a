/* Many I/Os of a disk at once, for tests: see disk_crowd.h. */
#include "tests/unit/disk_crowd.h"

#include "pool/runtime/fiber.h"

#define PIECE_BYTES (64ull * 1024)

static struct crowd {
	struct disk_io io[CROWD];
	struct iovec iov[CROWD];
	uint32_t left, failed;
	struct fiber *fiber;
} crowd;

static void crowd_done(struct disk_io *io, int res)
{
	crowd.failed += res != 0;
	if (--crowd.left == 0)
		fiber_wake(crowd.fiber);
}

void crowd_start(struct disk *disk, enum disk_op op, char *buf)
{
	crowd.left = CROWD;
	crowd.failed = 0;
	crowd.fiber = fiber_self();
	for (uint32_t i = 0; i < CROWD; i++) {
		crowd.iov[i] = (struct iovec){ buf + i * PIECE_BYTES, PIECE_BYTES };
		crowd.io[i] = (struct disk_io){ .op = op,
						.off_bytes = i * PIECE_BYTES,
						.len_bytes = PIECE_BYTES,
						.iov = &crowd.iov[i],
						.iov_count = 1,
						.done = crowd_done };
		disk_submit(disk, &crowd.io[i]);
	}
}

uint32_t crowd_wait(void)
{
	while (crowd.left > 0)
		fiber_park();
	return crowd.failed;
}
