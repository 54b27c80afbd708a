/* Streams: the reader. See stream.h.
 *
 * First the record's checksum, which hangs on all records before; then that it may come here; then what it says. Only when all
 * of it is right does the reader move on. */
#include <errno.h>
#include <string.h>

#include "pool/base/crc32c.h"
#include "pool/base/mem.h"
#include "snapshots/stream.h"
#include "snapshots/stream_pack.h"

bool stream_guid_equal(const struct stream_guid *a, const struct stream_guid *b)
{
	return memcmp(a->b, b->b, sizeof(a->b)) == 0;
}

bool stream_guid_is_none(const struct stream_guid *guid)
{
	return stream_guid_equal(guid, &(struct stream_guid){ { 0 } });
}

int stream_reader_init(struct stream_reader *r)
{
	*r = (struct stream_reader){ .unpacker = stream_unpacker_new() };
	return r->unpacker ? 0 : -ENOMEM;
}

void stream_reader_release(struct stream_reader *r)
{
	mem_free(r->unpacker);
}

int stream_record_bytes(const struct stream_header *h, struct err *err)
{
	if (le32_get(h->magic) != STREAM_MAGIC || le32_get(h->payload_bytes) > STREAM_DATA_BYTES_MAX)
		return err_set(err, -EBADMSG, "this is no stream of snapshots, or it is damaged here");
	return (int)(sizeof(*h) + le32_get(h->payload_bytes));
}

static int wrong(const struct stream_reader *r, struct err *err, const char *what)
{
	return err_set(err, -EBADMSG, "the stream is not right at record %llu: %s", (unsigned long long)r->mark.seq, what);
}

/* --- the record ----------------------------------------------------------------------------------------------- */

/* *crc becomes the record's. */
static int check_record(const struct stream_reader *r, const uint8_t *record, uint32_t len_bytes, uint32_t *crc,
			struct err *err)
{
	struct stream_header h;
	uint32_t told;

	if (len_bytes < sizeof(h))
		return wrong(r, err, "it is cut off");
	memcpy(&h, record, sizeof(h));
	told = le32_get(h.crc);
	h.crc = le32_of(0);
	*crc = crc32c(crc32c(r->mark.crc, &h, sizeof(h)), record + sizeof(h), len_bytes - sizeof(h));
	if (le32_get(h.magic) != STREAM_MAGIC || sizeof(h) + le32_get(h.payload_bytes) != len_bytes)
		return wrong(r, err, "it is damaged");
	if (*crc != told || le64_get(h.seq) != r->mark.seq)
		return wrong(r, err, "it is damaged, or does not belong here");
	return 0;
}

/* Is it in its turn? */
static bool may_come(const struct stream_reader *r, enum stream_type type)
{
	switch (type) {
	case STREAM_RECORD_STREAM: return !r->begun;
	case STREAM_RECORD_SNAPSHOT: return r->begun && !r->within && r->snapshots_left > 0;
	case STREAM_RECORD_DATA:
	case STREAM_RECORD_HOLE:
	case STREAM_RECORD_TAKEN: return r->within;
	case STREAM_RECORD_END: return r->begun && !r->within && r->snapshots_left == 0 && !r->ended;
	}
	return false;
}

/* --- what it says --------------------------------------------------------------------------------------------- */

/* Zero padded, of printable characters; "/" and "@" part names from each other. */
static bool take_name(const uint8_t *bytes, char name[STREAM_NAME_BYTES + 1])
{
	size_t len = strnlen((const char *)bytes, STREAM_NAME_BYTES);

	memcpy(name, bytes, STREAM_NAME_BYTES);
	name[STREAM_NAME_BYTES] = '\0';
	for (size_t i = 0; i < STREAM_NAME_BYTES; i++) {
		if (i < len ? bytes[i] <= ' ' || bytes[i] > '~' || bytes[i] == '/' || bytes[i] == '@' : bytes[i] != 0)
			return false;
	}
	return len > 0;
}

static const char *read_begin(struct stream_reader *r, const uint8_t *payload, struct stream_begin *out)
{
	struct stream_begin_format f;

	memcpy(&f, payload, sizeof(f));
	if (le32_get(f.version) != STREAM_VERSION)
		return "it is of a version that is not known here";
	out->k = le32_get(f.k);
	out->m = le32_get(f.m);
	out->snapshot_count = le32_get(f.snapshot_count);
	memcpy(out->base.b, f.base, sizeof(f.base));
	if (out->k == 0 || out->k > STREAM_COLS_MAX || out->m > STREAM_COLS_MAX - out->k)
		return "its policy is out of range";
	if (out->snapshot_count == 0 || out->snapshot_count > STREAM_SNAPSHOTS_MAX)
		return "its number of snapshots is out of range";
	if (!take_name(f.name, out->name))
		return "the name of its volume is not valid";
	r->begun = true;
	r->snapshots_left = out->snapshot_count;
	r->base = out->base;
	return NULL;
}

static const char *read_snapshot(struct stream_reader *r, const uint8_t *payload, struct stream_snapshot *out)
{
	struct stream_snapshot_format f;

	memcpy(&f, payload, sizeof(f));
	memcpy(out->guid.b, f.guid, sizeof(f.guid));
	memcpy(out->base.b, f.base, sizeof(f.base));
	out->size_bytes = le64_get(f.size_bytes);
	out->created_s = le64_get(f.created_s);
	if (!stream_guid_equal(&out->base, &r->base) || stream_guid_is_none(&out->guid) ||
	    stream_guid_equal(&out->guid, &out->base))
		return "the snapshot does not follow the one before";
	if (out->size_bytes == 0 || out->size_bytes > STREAM_SIZE_MAX || out->size_bytes % STREAM_BLOCK_BYTES != 0)
		return "the volume's size is out of range";
	if (!take_name(f.name, out->name))
		return "the snapshot's name is not valid";
	r->within = true;
	r->snapshot = *out;
	r->end_bytes = 0;
	r->taken = (struct stream_totals){ 0 };
	return NULL;
}

static const char *read_range(struct stream_reader *r, const struct stream_header *h, struct stream_item *out)
{
	uint64_t end;

	out->off_bytes = le64_get(h->off_bytes);
	out->len_bytes = le64_get(h->len_bytes);
	if (out->len_bytes == 0 || out->len_bytes % STREAM_BLOCK_BYTES != 0 || out->off_bytes % STREAM_BLOCK_BYTES != 0 ||
	    out->off_bytes < r->end_bytes || __builtin_add_overflow(out->off_bytes, out->len_bytes, &end) ||
	    end > r->snapshot.size_bytes)
		return "its range is not in order, or not of the volume";
	r->end_bytes = end;
	return NULL;
}

static const char *read_data(struct stream_reader *r, const struct stream_header *h, const uint8_t *payload,
			     struct stream_item *out)
{
	uint32_t payload_bytes = le32_get(h->payload_bytes);
	const char *why = read_range(r, h, out);

	if (why)
		return why;
	if (out->len_bytes > STREAM_DATA_BYTES_MAX)
		return "it is too long";
	if (!(le16_get(h->flags) & STREAM_COMPRESSED))
		out->data = payload_bytes == out->len_bytes ? payload : NULL;
	else if (payload_bytes < out->len_bytes)
		out->data = stream_unpack(r->unpacker, payload, payload_bytes, (uint32_t)out->len_bytes);
	if (!out->data)
		return "its data is not of its length";
	r->taken.data_bytes += out->len_bytes;
	r->totals.data_bytes += out->len_bytes;
	return NULL;
}

static const char *read_hole(struct stream_reader *r, const struct stream_header *h, struct stream_item *out)
{
	const char *why = read_range(r, h, out);

	if (why)
		return why;
	r->taken.hole_bytes += out->len_bytes;
	r->totals.hole_bytes += out->len_bytes;
	return NULL;
}

static const char *read_taken(struct stream_reader *r, const uint8_t *payload, struct stream_snapshot *out)
{
	struct stream_taken_format f;

	memcpy(&f, payload, sizeof(f));
	if (le64_get(f.data_bytes) != r->taken.data_bytes || le64_get(f.hole_bytes) != r->taken.hole_bytes)
		return "the snapshot's totals are wrong";
	*out = r->snapshot;
	r->within = false;
	r->base = r->snapshot.guid;
	r->snapshots_left--;
	return NULL;
}

static const char *read_end(struct stream_reader *r, const uint8_t *payload)
{
	struct stream_end_format f;

	memcpy(&f, payload, sizeof(f));
	if (le64_get(f.records) != r->mark.seq || le64_get(f.data_bytes) != r->totals.data_bytes ||
	    le64_get(f.hole_bytes) != r->totals.hole_bytes)
		return "its totals are wrong";
	r->ended = true;
	return NULL;
}

static const char *read_payload(struct stream_reader *r, const struct stream_header *h, const uint8_t *payload,
				struct stream_item *out)
{
	static const uint32_t sizes[] = {
		[STREAM_RECORD_STREAM] = sizeof(struct stream_begin_format),
		[STREAM_RECORD_SNAPSHOT] = sizeof(struct stream_snapshot_format),
		[STREAM_RECORD_TAKEN] = sizeof(struct stream_taken_format),
		[STREAM_RECORD_END] = sizeof(struct stream_end_format),
	};
	bool data = out->type == STREAM_RECORD_DATA, ranged = data || out->type == STREAM_RECORD_HOLE;

	if (le16_get(h->flags) & ~(data ? STREAM_COMPRESSED : 0u))
		return "it has a flag that is not known here";
	if (!data && le32_get(h->payload_bytes) != sizes[out->type])
		return "it has not the length of its type";
	if (!ranged && (le64_get(h->off_bytes) || le64_get(h->len_bytes)))
		return "it has a range, which its type has not";
	switch (out->type) {
	case STREAM_RECORD_STREAM: return read_begin(r, payload, &out->begin);
	case STREAM_RECORD_SNAPSHOT: return read_snapshot(r, payload, &out->snapshot);
	case STREAM_RECORD_DATA: return read_data(r, h, payload, out);
	case STREAM_RECORD_HOLE: return read_hole(r, h, out);
	case STREAM_RECORD_TAKEN: return read_taken(r, payload, &out->snapshot);
	case STREAM_RECORD_END: return read_end(r, payload);
	}
	return "its type is not known here";
}

int stream_read(struct stream_reader *r, const void *record, uint32_t len_bytes, struct stream_item *item,
		struct err *err)
{
	struct stream_reader after = *r;
	struct stream_header h;
	const char *why;
	uint32_t crc = 0;
	int ret = check_record(r, record, len_bytes, &crc, err);

	if (ret < 0)
		return ret;
	memcpy(&h, record, sizeof(h));
	*item = (struct stream_item){ .type = le16_get(h.type) };
	if (!may_come(r, item->type))
		return wrong(r, err, "nothing of its type comes here");
	why = read_payload(&after, &h, (const uint8_t *)record + sizeof(h), item);
	if (why)
		return wrong(r, err, why);
	after.mark = (struct stream_mark){ r->mark.seq + 1, crc };
	*r = after;
	return 0;
}
