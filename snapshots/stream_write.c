/* Streams: the writer. See stream.h. */
#include <errno.h>
#include <string.h>

#include "pool/base/crc32c.h"
#include "pool/base/mem.h"
#include "snapshots/stream.h"
#include "snapshots/stream_pack.h"

int stream_writer_init(struct stream_writer *w, bool compress)
{
	*w = (struct stream_writer){
		.data = mem_alloc(STREAM_DATA_BYTES_MAX),
		.record = mem_alloc(STREAM_RECORD_BYTES_MAX),
		.packer = compress ? stream_packer_new() : NULL,
	};
	if (w->data && w->record && (w->packer || !compress))
		return 0;
	stream_writer_release(w);
	return -ENOMEM;
}

void stream_writer_release(struct stream_writer *w)
{
	mem_free(w->data);
	mem_free(w->record);
	mem_free(w->packer);
}

static struct stream_header header_of(enum stream_type type, uint32_t payload_bytes)
{
	return (struct stream_header){
		.magic = le32_of(STREAM_MAGIC),
		.type = le16_of((uint16_t)type),
		.payload_bytes = le32_of(payload_bytes),
	};
}

static uint8_t *payload_of(struct stream_writer *w)
{
	return w->record + sizeof(struct stream_header);
}

/* The payload is in its place. */
static void finish(struct stream_writer *w, struct stream_header h)
{
	w->record_bytes = (uint32_t)sizeof(h) + le32_get(h.payload_bytes);
	h.seq = le64_of(w->mark.seq++);
	memcpy(w->record, &h, sizeof(h));
	w->mark.crc = crc32c(w->mark.crc, w->record, w->record_bytes);
	h.crc = le32_of(w->mark.crc);
	memcpy(w->record, &h, sizeof(h));
}

static void finish_with(struct stream_writer *w, enum stream_type type, const void *payload, uint32_t payload_bytes)
{
	memcpy(payload_of(w), payload, payload_bytes);
	finish(w, header_of(type, payload_bytes));
}

void stream_write_begin(struct stream_writer *w, const struct stream_begin *begin)
{
	struct stream_begin_format f = {
		.version = le32_of(STREAM_VERSION),
		.k = le32_of(begin->k),
		.m = le32_of(begin->m),
		.snapshot_count = le32_of(begin->snapshot_count),
	};

	memcpy(f.base, begin->base.b, sizeof(f.base));
	memcpy(f.name, begin->name, strnlen(begin->name, sizeof(f.name)));
	finish_with(w, STREAM_RECORD_STREAM, &f, sizeof(f));
}

void stream_write_snapshot(struct stream_writer *w, const struct stream_snapshot *snapshot)
{
	struct stream_snapshot_format f = {
		.size_bytes = le64_of(snapshot->size_bytes),
		.created_s = le64_of(snapshot->created_s),
	};

	memcpy(f.guid, snapshot->guid.b, sizeof(f.guid));
	memcpy(f.base, snapshot->base.b, sizeof(f.base));
	memcpy(f.name, snapshot->name, strnlen(snapshot->name, sizeof(f.name)));
	w->taken = (struct stream_totals){ 0 };
	finish_with(w, STREAM_RECORD_SNAPSHOT, &f, sizeof(f));
}

void stream_write_data(struct stream_writer *w, uint64_t off_bytes, uint32_t len_bytes)
{
	uint32_t packed_bytes = w->packer ? stream_pack(w->packer, w->data, len_bytes, payload_of(w)) : 0;
	struct stream_header h = header_of(STREAM_RECORD_DATA, packed_bytes > 0 ? packed_bytes : len_bytes);

	if (packed_bytes > 0)
		h.flags = le16_of(STREAM_COMPRESSED);
	else
		memcpy(payload_of(w), w->data, len_bytes);
	h.off_bytes = le64_of(off_bytes);
	h.len_bytes = le64_of(len_bytes);
	w->taken.data_bytes += len_bytes;
	w->totals.data_bytes += len_bytes;
	finish(w, h);
}

void stream_write_hole(struct stream_writer *w, uint64_t off_bytes, uint64_t len_bytes)
{
	struct stream_header h = header_of(STREAM_RECORD_HOLE, 0);

	h.off_bytes = le64_of(off_bytes);
	h.len_bytes = le64_of(len_bytes);
	w->taken.hole_bytes += len_bytes;
	w->totals.hole_bytes += len_bytes;
	finish(w, h);
}

void stream_write_taken(struct stream_writer *w)
{
	struct stream_taken_format f = { le64_of(w->taken.data_bytes), le64_of(w->taken.hole_bytes) };

	finish_with(w, STREAM_RECORD_TAKEN, &f, sizeof(f));
}

void stream_write_end(struct stream_writer *w)
{
	struct stream_end_format f = { le64_of(w->mark.seq), le64_of(w->totals.data_bytes),
				       le64_of(w->totals.hole_bytes) };

	finish_with(w, STREAM_RECORD_END, &f, sizeof(f));
}
