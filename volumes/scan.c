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

struct crc_check {
	uint32_t crc;
	uint64_t wrong;
};

static bool has_crc(void *arg, const void *block)
{
	struct crc_check *check = arg;
	bool right = crc32c(0, block, BLOCK_BYTES) == check->crc;

	check->wrong += !right;
	return right;
}

int scan_read_block(struct lineage *lin, const struct lseg *lseg, uint32_t index, uint32_t crc, void *buf)
{
	struct crc_check check = { .crc = crc };
	int rc = segment_read_checked(lin->pool, &lseg->seg, index, has_crc, &check, buf);

	lin->counters.checksum_errors += check.wrong > 0;
	return rc;
}

bool scan_header_valid(const struct lineage *lin, const struct lseg *lseg, uint32_t index, const void *block)
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

		if (!scan_header_valid(lin, lseg, pos + *at, h))
			return 0;
		rc = fn(arg, h);
		if (rc != 0)
			return rc;
		*at += le32_get(h->total_blocks);
	}
	return 0;
}

struct header_check {
	const struct lineage *lin;
	const struct lseg *lseg;
	uint32_t index;
};

static bool is_header(void *arg, const void *block)
{
	const struct header_check *check = arg;

	return scan_header_valid(check->lin, check->lseg, check->index, block);
}

/* The end of a log is believed only when the block was read in every way there is, several times. Positive: it ends. */
static int ends_here(struct lineage *lin, const struct lseg *lseg, uint32_t index, uint8_t *buf)
{
	struct header_check check = { lin, lseg, index };
	int rc = segment_read_checked(lin->pool, &lseg->seg, index, is_header, &check, buf);

	return rc == -EBADMSG ? 1 : rc;
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
		if (at >= blocks)
			continue;
		rc = ends_here(lin, lseg, pos, buf);
		at = 0;
		if (rc == 0)             /* the header was to be had after all, and is in buf */
			rc = scan_window(lin, lseg, buf, pos, 1, &at, fn, arg);
		if (rc != 0)
			return rc < 0 ? rc : 0;
		pos += at;
	}
	return 0;
}
