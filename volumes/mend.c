/* Mending: making every column of a batch hold what it should.
 *
 * A batch tells all its content: its header has a checksum, the header has the checksums of the data, and the padding is
 * zero. So each of its rows can be found, by whatever way the redundancy offers, and then be compared with all columns.
 * Rows with a block that no way gives are left alone. */
#include <errno.h>
#include <string.h>

#include "pool/base/crc32c.h"
#include "pool/base/mem.h"
#include "volumes/lineage.h"

/* A batch in memory while it is mended. */
struct mending {
	struct lineage *lin;
	struct lseg *lseg;
	uint32_t start, total;
	uint8_t *buf;                    /* total blocks */
	bool *known;                     /* [total] */
	struct mend_stats *stats;
};

static uint8_t *block_at(const struct mending *md, uint32_t i)
{
	return md->buf + (size_t)i * BLOCK_BYTES;
}

/* Gets the data blocks, all at once and then those that are wrong one by one. */
static void fetch_data(struct mending *md, const struct batch_header *h)
{
	const le32 *crcs = batch_crcs(h);
	uint32_t data = le32_get(h->data_blocks);

	if (data == 0)
		return;
	if (scan_read(md->lin, md->lseg, md->start + 1, data, block_at(md, 1)) < 0)
		memset(block_at(md, 1), 0, (size_t)data * BLOCK_BYTES);
	for (uint32_t i = 0; i < data; i++) {
		uint32_t crc = le32_get(crcs[i]);

		md->known[1 + i] = crc32c(0, block_at(md, 1 + i), BLOCK_BYTES) == crc ||
				   scan_read_block(md->lin, md->lseg, md->start + 1 + i, crc, block_at(md, 1 + i)) == 0;
		md->stats->lost += !md->known[1 + i];
	}
}

static bool row_known(const struct mending *md, uint32_t row)
{
	uint32_t k = md->lin->policy.k;

	for (uint32_t c = 0; c < k; c++) {
		if (!md->known[row * k + c])
			return false;
	}
	return true;
}

/* Mends runs of rows that are known. */
static int mend_rows(struct mending *md)
{
	uint32_t k = md->lin->policy.k, rows = md->total / k;

	for (uint32_t row = 0, n; row < rows; row += n) {
		int rc;

		for (n = 0; row + n < rows && row_known(md, row + n);)
			n++;
		if (n == 0) {
			n = 1;
			continue;
		}
		rc = segment_mend(md->lin->pool, &md->lseg->seg, md->start + row * k, n * k, block_at(md, row * k));
		if (rc < 0)
			return rc;
		md->stats->mended += (uint64_t)rc;
	}
	return 0;
}

int mend_batch(struct lineage *lin, struct lseg *lseg, const struct batch_header *h, struct mend_stats *stats)
{
	uint32_t used = batch_header_used(h), data = le32_get(h->data_blocks);
	struct mending *md = mem_zalloc(sizeof(*md));
	int rc = -ENOMEM;

	if (!md)
		return -ENOMEM;
	md->lin = lin;
	md->lseg = lseg;
	md->stats = stats;
	md->start = le32_get(h->index);
	md->total = le32_get(h->total_blocks);
	md->buf = mem_alloc_aligned(BLOCK_BYTES, (size_t)md->total * (BLOCK_BYTES + sizeof(bool)));
	if (md->buf) {
		md->known = (bool *)block_at(md, md->total);
		memset(md->known, true, md->total * sizeof(bool));
		memset(md->buf, 0, BLOCK_BYTES);
		memcpy(md->buf, h, used);
		md->known[0] = scan_header_valid(lin, lseg, md->start, md->buf);
		memset(block_at(md, 1 + data), 0, (size_t)(md->total - 1 - data) * BLOCK_BYTES);
		fetch_data(md, h);
		rc = mend_rows(md);
	}
	mem_free(md->buf);
	mem_free(md);
	return rc;
}
