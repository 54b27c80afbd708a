/* The block device: configuration space and cache mode. Requests are in blk_queue.c. See virtio_blk.h.
 *
 * Cache mode: the volume is write-back and FLUSH makes durable. A guest that cannot flush (FLUSH not negotiated), or that
 * switched to write-through (`writeback` 0), gets each write acknowledged only when it is durable. The choice is the
 * guest's and must outlive us; who keeps it is vhost_user.c. It never changes back by itself: a guest that has read
 * "write-through" does not flush. */
#include "targets/virtio_blk.h"

#include <errno.h>
#include <linux/virtio_blk.h>
#include <linux/virtio_config.h>
#include <linux/virtio_ring.h>
#include <string.h>

#define BIT(n) (1ull << (n))
#define LOGICAL_BLOCK_EXP 9
#define PHYSICAL_BLOCK_EXP BLOCK_SHIFT
#define BLOCK_SECTORS (BLOCK_BYTES / SECTOR_BYTES)
/* A request without data pieces: header and status. */
#define FRAME_DESCS 2u

void blk_dev_init(struct blk_dev *dev, struct volume *volume, const char *serial, uint16_t queues, bool read_only)
{
	memset(dev, 0, sizeof(*dev));
	dev->volume = volume;
	dev->queues = queues;
	dev->read_only = read_only;
	dev->writeback = true;
	memcpy(dev->serial, serial, strnlen(serial, sizeof(dev->serial)));
}

uint64_t blk_dev_features(const struct blk_dev *dev)
{
	uint64_t features = BIT(VIRTIO_F_VERSION_1) | BIT(VIRTIO_RING_F_INDIRECT_DESC) | BIT(VIRTIO_RING_F_EVENT_IDX) |
			    BIT(VIRTIO_BLK_F_SIZE_MAX) | BIT(VIRTIO_BLK_F_SEG_MAX) | BIT(VIRTIO_BLK_F_BLK_SIZE) |
			    BIT(VIRTIO_BLK_F_FLUSH) | BIT(VIRTIO_BLK_F_TOPOLOGY) | BIT(VIRTIO_BLK_F_MQ);

	if (dev->read_only)
		return features | BIT(VIRTIO_BLK_F_RO);
	return features | BIT(VIRTIO_BLK_F_CONFIG_WCE) | BIT(VIRTIO_BLK_F_DISCARD) | BIT(VIRTIO_BLK_F_WRITE_ZEROES);
}

/* A driver without indirect tables must fit a whole request into its ring, or it waits for ever. */
static uint32_t seg_max(uint16_t ring_size)
{
	if (ring_size == 0 || ring_size >= BLK_SEG_MAX + FRAME_DESCS)
		return BLK_SEG_MAX;
	return ring_size > FRAME_DESCS ? ring_size - FRAME_DESCS : 1;
}

void blk_dev_config(const struct blk_dev *dev, uint16_t ring_size, struct blk_config *config)
{
	*config = (struct blk_config){
		.capacity = le64_of(volume_size_bytes(dev->volume) / SECTOR_BYTES),
		.size_max = le32_of(VIO_BYTES_MAX),
		.seg_max = le32_of(seg_max(ring_size)),
		.blk_size = le32_of(1u << LOGICAL_BLOCK_EXP),
		.physical_block_exp = PHYSICAL_BLOCK_EXP - LOGICAL_BLOCK_EXP,
		.min_io_size = le16_of(BLOCK_SECTORS),
		.writeback = dev->writeback,
		.num_queues = le16_of(dev->queues),
	};
	if (dev->read_only)
		return;
	config->max_discard_sectors = le32_of(BLK_RANGE_SECTORS_MAX);
	config->max_discard_seg = le32_of(BLK_RANGES_MAX);
	config->discard_sector_alignment = le32_of(BLOCK_SECTORS);
	config->max_write_zeroes_sectors = le32_of(BLK_RANGE_SECTORS_MAX);
	config->max_write_zeroes_seg = le32_of(BLK_RANGES_MAX);
	config->write_zeroes_may_unmap = 1;
}

int blk_dev_set_config(struct blk_dev *dev, uint32_t off_bytes, const uint8_t *data, uint32_t len_bytes, bool migration)
{
	const uint32_t at = offsetof(struct blk_config, writeback);
	bool has_writeback = off_bytes <= at && at - off_bytes < len_bytes;

	if (!migration && (off_bytes != at || len_bytes != 1 || dev->read_only))
		return -EPERM;
	if (!has_writeback)
		return 0;
	if (data[at - off_bytes] > 1)
		return -EINVAL;
	dev->writeback = data[at - off_bytes];
	return 0;
}
