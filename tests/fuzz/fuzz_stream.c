/* Streams of snapshots: an input is a list of records, whose magic, sequence and checksums are mended. Whatever they say, what
 * the reader tells is within the snapshot that it told before, and everything is read or refused. */
#include "pool/base/crc32c.h"
#include "snapshots/stream.h"
#include "tests/fuzz/fuzz.h"

#define PAYLOAD_BYTES_MAX 16384u /* more is the same, but slower */

static uint8_t record[STREAM_RECORD_BYTES_MAX];

/* Half of the inputs' bytes would otherwise go to checksums. Returns the record's length. */
static uint32_t take_record(struct fuzz_input *in, const struct stream_mark *mark)
{
	struct stream_header h;
	uint32_t payload_bytes;

	fuzz_take(in, &h, sizeof(h));
	payload_bytes = le32_get(h.payload_bytes) % PAYLOAD_BYTES_MAX;
	h.magic = le32_of(STREAM_MAGIC);
	h.payload_bytes = le32_of(payload_bytes);
	h.seq = le64_of(mark->seq);
	h.crc = le32_of(0);
	memcpy(record, &h, sizeof(h));
	fuzz_take(in, record + sizeof(h), payload_bytes);
	h.crc = le32_of(crc32c(mark->crc, record, sizeof(h) + payload_bytes));
	memcpy(record, &h, sizeof(h));
	return (uint32_t)sizeof(h) + payload_bytes;
}

static void check_item(const struct stream_reader *r, const struct stream_item *item)
{
	uint64_t sum = 0;

	if (item->type != STREAM_RECORD_DATA && item->type != STREAM_RECORD_HOLE)
		return;
	FUZZ_REQUIRE(item->len_bytes > 0 && item->off_bytes + item->len_bytes > item->off_bytes);
	FUZZ_REQUIRE(item->off_bytes + item->len_bytes <= r->snapshot.size_bytes);
	for (uint64_t i = 0; item->type == STREAM_RECORD_DATA && i < item->len_bytes; i++)
		sum += item->data[i];
	FUZZ_REQUIRE(sum <= 255 * item->len_bytes);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct fuzz_input in = { data, size };
	struct stream_reader r;
	struct stream_item item;
	struct err err;

	FUZZ_REQUIRE(stream_reader_init(&r) == 0);
	while (in.left > 0) {
		struct stream_mark before = r.mark;
		uint32_t len_bytes = take_record(&in, &before);

		FUZZ_REQUIRE(stream_record_bytes((const struct stream_header *)record, &err) == (int)len_bytes);
		if (stream_read(&r, record, len_bytes, &item, &err) == 0)
			check_item(&r, &item);
		else
			FUZZ_REQUIRE(r.mark.seq == before.seq && r.mark.crc == before.crc && err.msg[0]);
	}
	stream_reader_release(&r);
	return 0;
}
