/* The balloon. See virtio_balloon.h.
 *
 * A page that is given back reads as zeroes when the guest takes it again, which it may do at any time by touching it; so
 * deflation needs no work here. */
#include "vmm-glue/virtio_balloon.h"

#include <linux/virtio_balloon.h>
#include <linux/virtio_ids.h>
#include <stddef.h>
#include <string.h>

enum { INFLATE, DEFLATE, REPORT, QUEUES };

#define PFNS_MAX 1024u /* of one request that are heeded */

static struct virtio_balloon_config *config_of(const struct virtio_balloon *balloon)
{
	return (struct virtio_balloon_config *)balloon->local.dev.config;
}

/* Runs of neighbours are given back at once. */
static void discard_pfns(struct virtio_local *local, const uint32_t *pfn, uint32_t count)
{
	for (uint32_t i = 0, run; i < count; i += run) {
		for (run = 1; i + run < count && pfn[i + run] == pfn[i] + run; run++)
			;
		(void)ram_discard(local->dev.ram, (uint64_t)pfn[i] * RAM_PAGE_BYTES, run * RAM_PAGE_BYTES);
	}
}

static void inflate(struct virtio_local *local, const struct local_chain *chain)
{
	uint32_t pfn[PFNS_MAX];

	for (uint32_t i = 0; i < chain->reads; i++) {
		size_t bytes = chain->seg[i].iov_len < sizeof(pfn) ? chain->seg[i].iov_len : sizeof(pfn);

		memcpy(pfn, chain->seg[i].iov_base, bytes);
		discard_pfns(local, pfn, (uint32_t)(bytes / sizeof(pfn[0])));
	}
}

/* The buffers themselves are the free pages. */
static void report(struct virtio_balloon *balloon, const struct local_chain *chain)
{
	for (uint32_t i = chain->reads; i < chain->segs; i++)
		if (ram_discard(balloon->local.dev.ram, chain->gpa[i], chain->seg[i].iov_len) == 0)
			balloon->reported_bytes += chain->seg[i].iov_len;
}

static void serve(struct virtio_local *local, uint32_t index)
{
	struct local_chain chain;

	while (local_pop(local, index, &chain)) {
		if (index == INFLATE)
			inflate(local, &chain);
		else if (index == REPORT)
			report((struct virtio_balloon *)local, &chain);
		local_push(local, index, &chain, 0);
	}
}

/* The driver tells how much it has given. */
static void config_write(struct virtio_dev *dev, uint32_t off_bytes, const void *data, uint32_t len_bytes)
{
	if (off_bytes == offsetof(struct virtio_balloon_config, actual) && len_bytes == 4)
		memcpy(dev->config + off_bytes, data, 4);
}

static const struct virtio_ops ops = {
	.name = "balloon",
	.id = VIRTIO_ID_BALLOON,
	.class_code = 0x050000,
	.start = virtio_local_start,
	.stop = virtio_local_stop,
	.config_write = config_write,
};

int virtio_balloon_add(struct virtio_balloon *balloon, struct pci_bus *bus, struct ram *ram, struct events *events,
		       struct err *err)
{
	struct virtio_dev *dev = &balloon->local.dev;

	dev->ops = &ops;
	dev->features_offered = VIRTIO_BIT(VIRTIO_BALLOON_F_DEFLATE_ON_OOM) | VIRTIO_BIT(VIRTIO_BALLOON_F_REPORTING);
	dev->config_bytes = offsetof(struct virtio_balloon_config, free_page_hint_cmd_id);
	balloon->local.serve = serve;
	return virtio_local_add(&balloon->local, bus, ram, events, QUEUES, err);
}

void virtio_balloon_set(struct virtio_balloon *balloon, uint64_t bytes)
{
	config_of(balloon)->num_pages = (uint32_t)(bytes / RAM_PAGE_BYTES);
	virtio_config_changed(&balloon->local.dev);
}

uint64_t virtio_balloon_bytes(const struct virtio_balloon *balloon)
{
	return config_of(balloon)->actual * RAM_PAGE_BYTES;
}
