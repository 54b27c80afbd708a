/* Two rings: see disk_keep.h. A write's data is contiguous; what is left at the end of mem when it does not fit there is
 * counted as part of its span, so that used_bytes alone tells whether there is room. */
#include "pool/disks/disk_keep.h"

#include <assert.h>
#include <errno.h>
#include <string.h>

#include "pool/base/mem.h"

int keep_init(struct keep *keep)
{
	memset(keep, 0, sizeof(*keep));
	keep->mem = mem_alloc_aligned(MEM_PAGE_BYTES, KEEP_BYTES);
	keep->records = mem_alloc(KEEP_RECORDS * sizeof(*keep->records));
	if (keep->mem && keep->records)
		return 0;
	keep_release(keep);
	return -ENOMEM;
}

void keep_release(struct keep *keep)
{
	mem_free(keep->mem);
	mem_free(keep->records);
	memset(keep, 0, sizeof(*keep));
}

struct kept *keep_add(struct keep *keep, uint64_t off_bytes, uint32_t len_bytes)
{
	uint32_t to_end_bytes = KEEP_BYTES - keep->head, skip_bytes = len_bytes > to_end_bytes ? to_end_bytes : 0;
	struct kept *kept;

	assert(len_bytes > 0 && len_bytes <= KEEP_BYTES / 2);
	if (keep->end - keep->first == KEEP_RECORDS || len_bytes + skip_bytes > KEEP_BYTES - keep->used_bytes)
		return NULL;
	if (skip_bytes)
		keep->head = 0;
	kept = keep_at(keep, keep->end++);
	*kept = (struct kept){
		.off_bytes = off_bytes,
		.data = keep->mem + keep->head,
		.len_bytes = len_bytes,
		.span_bytes = len_bytes + skip_bytes,
		.state = KEPT_QUEUED,
	};
	keep->head = (keep->head + len_bytes) % KEEP_BYTES;
	keep->used_bytes += kept->span_bytes;
	return kept;
}

void keep_trim(struct keep *keep, uint64_t flushed)
{
	while (!keep_empty(keep)) {
		const struct kept *kept = keep_at(keep, keep->first);

		if (kept->state != KEPT_DEAD && (kept->state != KEPT_ACKED || kept->stamp >= flushed))
			return;
		keep->used_bytes -= kept->span_bytes;
		keep->first++;
	}
	keep->head = 0; /* warm memory first */
}
