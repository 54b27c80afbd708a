/* Following the batches of a segment by their headers: for recovery, and for the cleaner. */
#include <errno.h>

#include "pool/base/crc32c.h"
#include "volumes/lineage.h"

#define READ_TRIES 3

int scan_read(struct lineage *lin, const struct lseg *lseg, uint32_t index, uint32_t count, void *buf)
{
	int rc = -EIO;

	for (int i = 0; i < READ_TRIES && rc < 0; i++)
		rc = segment_read(lin->pool, &lseg->seg, index, count, buf);
	return rc;
}

int scan_read_block(struct lineage *lin, const struct lseg *lseg, uint32_t index, uint32_t crc, void *buf)
{
	int rc = -EIO;

	for (int i = 0; i < READ_TRIES; i++) {
		rc = segment_read(lin->pool, &lseg->seg, index, 1, buf);
		if (rc == 0 && crc32c(0, buf, BLOCK_BYTES) == crc)
			return 0;
		lin->counters.checksum_errors += rc == 0;
	}
	return rc < 0 ? rc : -EBADMSG;
}

static bool header_valid(const struct lineage *lin, const struct lseg *lseg, uint32_t index, const void *block)
{
	struct batch_place place = { .lineage = lin->id, .grant = lseg->seg.grant, .segno = lseg->seg.segno, .index = index,
				     .segment_blocks = lin->segment_blocks, .policy = lin->policy,
				     .stream = (enum segment_stream)lseg->seg.stream };

	return batch_header_validate(block, &place);
}

/* Hands out the batches whose headers lie in the window at pos, from *at on, and moves *at. Positive: fn has had enough. */
static int scan_window(struct lineage *lin, const struct lseg *lseg, const uint8_t *buf, uint32_t pos, uint32_t blocks,
		       uint32_t *at, scan_fn *fn, void *arg)
{
	while (*at < blocks) {
		const struct batch_header *h = (const struct batch_header *)(buf + (size_t)*at * BLOCK_BYTES);
		int rc;

		if (!header_valid(lin, lseg, pos + *at, h))
			return 0;
		rc = fn(arg, h);
		if (rc != 0)
			return rc;
		*at += le32_get(h->total_blocks);
	}
	return 0;
}

/* The end of a log is believed only when it was read several times: a read may come back wrong. Positive: it ends. */
static int ends_here(struct lineage *lin, const struct lseg *lseg, uint32_t index, uint8_t *buf)
{
	for (int i = 0; i < READ_TRIES; i++) {
		int rc = scan_read(lin, lseg, index, 1, buf);

		if (rc < 0 || header_valid(lin, lseg, index, buf))
			return rc;
	}
	return 1;
}

int scan_segment(struct lineage *lin, const struct lseg *lseg, uint32_t from, uint8_t *buf, scan_fn *fn, void *arg)
{
	uint32_t end = lin->segment_blocks, pos = from;

	if (lseg->seg.sealed_blocks < end)
		end = lseg->seg.sealed_blocks;
	while (pos < end) {
		uint32_t blocks = end - pos < SCAN_WINDOW_BLOCKS ? end - pos : SCAN_WINDOW_BLOCKS, at = 0;
		int rc;

		if (scan_read(lin, lseg, pos, blocks, buf) < 0) {
			blocks = 1;      /* perhaps only data behind the header is unreadable */
			rc = scan_read(lin, lseg, pos, blocks, buf);
			if (rc < 0)
				return rc;
		}
		rc = scan_window(lin, lseg, buf, pos, blocks, &at, fn, arg);
		if (rc != 0)
			return rc < 0 ? rc : 0;
		pos += at;
		rc = at < blocks ? ends_here(lin, lseg, pos, buf) : 0;
		if (rc != 0)
			return rc < 0 ? rc : 0;
	}
	return 0;
}
