/* Streams of snapshots: what was written is read; anything else is refused before any of that record is believed. */
#include "snapshots/stream.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "pool/base/crc32c.h"
#include "tests/unit/unit.h"

#define RECORDS_MAX 64u
#define MIB (1u << 20)

/* A stream, and where its records end. */
struct tape {
	uint8_t *bytes;
	uint32_t len_bytes, cap_bytes, count;
	uint32_t end[RECORDS_MAX];
};

static void tape_init(struct tape *t)
{
	*t = (struct tape){ .cap_bytes = 8 * MIB };
	t->bytes = malloc(t->cap_bytes);
	assert_non_null(t->bytes);
}

static void put_record(struct tape *t, const struct stream_writer *w)
{
	assert_true(t->count < RECORDS_MAX && t->len_bytes + w->record_bytes <= t->cap_bytes);
	memcpy(t->bytes + t->len_bytes, w->record, w->record_bytes);
	t->len_bytes += w->record_bytes;
	t->end[t->count++] = t->len_bytes;
}

static void fill(uint8_t *data, uint32_t len_bytes, unsigned seed, bool random)
{
	for (uint32_t i = 0; i < len_bytes; i++)
		data[i] = random ? (uint8_t)rand_r(&seed) : (uint8_t)(seed + i / 512);
}

static void put_data(struct tape *t, struct stream_writer *w, uint64_t off, uint32_t len, unsigned seed, bool random)
{
	fill(w->data, len, seed, random);
	stream_write_data(w, off, len);
	put_record(t, w);
}

static void put_hole(struct tape *t, struct stream_writer *w, uint64_t off, uint64_t len)
{
	stream_write_hole(w, off, len);
	put_record(t, w);
}

static void put_snapshot(struct tape *t, struct stream_writer *w, uint8_t guid, uint8_t base, uint64_t size_bytes)
{
	struct stream_snapshot s = { .guid = { { guid } }, .base = { { base } }, .size_bytes = size_bytes, .created_s = 99 };

	s.name[0] = (char)('a' + guid);
	stream_write_snapshot(w, &s);
	put_record(t, w);
}

static void put_taken(struct tape *t, struct stream_writer *w)
{
	stream_write_taken(w);
	put_record(t, w);
}

/* Two snapshots, the first on top of guid `base`. */
static void write_stream(struct tape *t, bool compress, uint8_t base, unsigned seed)
{
	struct stream_begin begin = { .k = 4, .m = 2, .snapshot_count = 2, .base = { { base } }, .name = "web0" };
	struct stream_writer w;

	tape_init(t);
	assert_int_equal(stream_writer_init(&w, compress), 0);
	stream_write_begin(&w, &begin);
	put_record(t, &w);
	put_snapshot(t, &w, 1, base, MIB);
	put_data(t, &w, 0, 4096, seed, true);
	put_data(t, &w, 8192, 8192, seed + 1, false);
	put_hole(t, &w, 32768, 65536);
	put_taken(t, &w);
	put_snapshot(t, &w, 2, 1, 2 * MIB);
	put_hole(t, &w, 0, 4096);
	put_data(t, &w, MIB, 4096, seed + 2, false);
	put_taken(t, &w);
	stream_write_end(&w);
	put_record(t, &w);
	stream_writer_release(&w);
}

/* Reads records until one is refused or missing. Returns how many were right; *whole: the stream came to its end. */
static uint32_t read_stream(const uint8_t *bytes, uint32_t len_bytes, bool *whole)
{
	struct stream_reader r;
	struct stream_item item;
	struct err err;
	uint32_t at = 0, count = 0;

	assert_int_equal(stream_reader_init(&r), 0);
	while (len_bytes - at >= sizeof(struct stream_header)) {
		int bytes_wanted = stream_record_bytes((const struct stream_header *)(bytes + at), &err);

		if (bytes_wanted < 0 || (uint32_t)bytes_wanted > len_bytes - at)
			break;
		if (stream_read(&r, bytes + at, (uint32_t)bytes_wanted, &item, &err) != 0)
			break;
		at += (uint32_t)bytes_wanted;
		count++;
	}
	*whole = r.ended && at == len_bytes;
	stream_reader_release(&r);
	return count;
}

static void refuse_after(const uint8_t *bytes, uint32_t len_bytes, uint32_t right)
{
	bool whole;

	assert_int_equal(read_stream(bytes, len_bytes, &whole), right);
	assert_false(whole);
}

static void what_was_written_is_read(void **state)
{
	struct stream_reader r;
	struct stream_item item[11];
	uint8_t data[8192];
	struct tape t;
	struct err err;

	for (int compress = 0; compress < 2; compress++) {
		write_stream(&t, compress, 0, 7);
		assert_int_equal(stream_reader_init(&r), 0);
		for (uint32_t i = 0, at = 0; i < t.count; at = t.end[i++]) {
			assert_int_equal(stream_record_bytes((void *)(t.bytes + at), &err), t.end[i] - at);
			assert_int_equal(stream_read(&r, t.bytes + at, t.end[i] - at, &item[i], &err), 0);
			if (i != 3)
				continue;
			fill(data, sizeof(data), 8, false);
			assert_int_equal(item[i].len_bytes, sizeof(data));
			assert_memory_equal(item[i].data, data, sizeof(data));
			assert_true(compress == (t.end[i] - at < sizeof(data)));
		}
		assert_true(r.ended);
		assert_int_equal(r.totals.data_bytes, 4096 + 8192 + 4096);
		assert_int_equal(r.totals.hole_bytes, 65536 + 4096);
		assert_int_equal(item[0].begin.k, 4);
		assert_string_equal(item[0].begin.name, "web0");
		assert_int_equal(item[1].snapshot.size_bytes, MIB);
		assert_int_equal(item[4].type, STREAM_RECORD_HOLE);
		assert_int_equal(item[4].off_bytes, 32768);
		assert_int_equal(item[5].type, STREAM_RECORD_TAKEN);
		assert_string_equal(item[5].snapshot.name, "b");
		assert_int_equal(item[9].snapshot.guid.b[0], 2);
		stream_reader_release(&r);
		free(t.bytes);
	}
}

static void any_changed_byte_is_refused_in_its_record(void **state)
{
	struct tape t;

	for (int compress = 0; compress < 2; compress++) {
		uint32_t record = 0;

		write_stream(&t, compress, 0, 3);
		for (uint32_t i = 0; i < t.len_bytes; i++) {
			record += i == t.end[record];
			t.bytes[i] ^= (uint8_t)(1u << i % 8);
			refuse_after(t.bytes, t.len_bytes, record);
			t.bytes[i] ^= (uint8_t)(1u << i % 8);
		}
		free(t.bytes);
	}
}

static void a_stream_that_is_cut_off_is_not_whole(void **state)
{
	uint32_t record = 0;
	struct tape t;
	bool whole;

	write_stream(&t, true, 0, 4);
	for (uint32_t len = 0; len < t.len_bytes; len++) {
		record += len == t.end[record];
		refuse_after(t.bytes, len, record);
	}
	assert_int_equal(read_stream(t.bytes, t.len_bytes, &whole), t.count);
	assert_true(whole);
	t.bytes[t.len_bytes] = 0;
	assert_int_equal(read_stream(t.bytes, t.len_bytes + 1, &whole), t.count);
	assert_false(whole);
	free(t.bytes);
}

static uint32_t start_of(const struct tape *t, uint32_t record)
{
	return record > 0 ? t->end[record - 1] : 0;
}

/* A stream of which record `a` is replaced by record b of another. */
static void refuse_splice(const struct tape *t, uint32_t a, const struct tape *other, uint32_t b)
{
	uint32_t part = other->end[b] - start_of(other, b), head = start_of(t, a), tail = t->len_bytes - t->end[a];
	uint8_t *bytes = malloc(head + part + tail);

	assert_non_null(bytes);
	memcpy(bytes, t->bytes, head);
	memcpy(bytes + head, other->bytes + start_of(other, b), part);
	memcpy(bytes + head + part, t->bytes + t->end[a], tail);
	refuse_after(bytes, head + part + tail, a);
	free(bytes);
}

static void records_of_other_places_and_streams_are_refused(void **state)
{
	struct tape t, other;

	write_stream(&t, false, 0, 5);
	write_stream(&other, false, 9, 5); /* on another base: the same data from record 2 on */
	for (uint32_t a = 0; a < t.count; a++) {
		for (uint32_t b = 0; b < t.count; b++) {
			if (a != b)
				refuse_splice(&t, a, &t, b);
		}
		if (a > 0)
			refuse_splice(&t, a, &other, a);
	}
	free(t.bytes);
	free(other.bytes);
}

static void a_record_that_is_left_out_is_missed(void **state)
{
	struct tape t;

	write_stream(&t, false, 0, 6);
	for (uint32_t i = 0; i < t.count; i++) {
		uint32_t part = t.end[i] - start_of(&t, i);
		uint8_t *bytes = malloc(t.len_bytes);

		assert_non_null(bytes);
		memcpy(bytes, t.bytes, start_of(&t, i));
		memcpy(bytes + start_of(&t, i), t.bytes + t.end[i], t.len_bytes - t.end[i]);
		refuse_after(bytes, t.len_bytes - part, i);
		free(bytes);
	}
	free(t.bytes);
}

/* Writes the lie into record i at off, with a good checksum for it and all behind it. */
static void refuse_lie(uint32_t record, uint32_t off, const void *lie, uint32_t lie_bytes)
{
	uint32_t crc = 0;
	struct tape t;

	write_stream(&t, false, 0, 8);
	memcpy(t.bytes + start_of(&t, record) + off, lie, lie_bytes);
	for (uint32_t i = 0; i < t.count; i++) {
		uint8_t *at = t.bytes + start_of(&t, i);
		struct stream_header *h = (struct stream_header *)at;

		h->crc = le32_of(0);
		crc = crc32c(crc, at, t.end[i] - start_of(&t, i));
		h->crc = le32_of(crc);
	}
	refuse_after(t.bytes, t.len_bytes, record);
	free(t.bytes);
}

#define LIE(record, off, type, value)                                  \
	do {                                                           \
		type lie_ = (value);                                   \
		refuse_lie((record), (uint32_t)(off), &lie_, sizeof(lie_)); \
	} while (0)
#define PAYLOAD(type, field) (sizeof(struct stream_header) + offsetof(struct type, field))

static void lies_with_good_checksums_are_refused(void **state)
{
	for (uint32_t record = 0; record < 11; record++) {
		LIE(record, offsetof(struct stream_header, type), le16, le16_of(0));
		LIE(record, offsetof(struct stream_header, type), le16, le16_of(7));
		LIE(record, offsetof(struct stream_header, flags), le16, le16_of(2));
		LIE(record, offsetof(struct stream_header, seq), le64, le64_of(77));
	}
	LIE(0, PAYLOAD(stream_begin_format, version), le32, le32_of(2));
	LIE(0, PAYLOAD(stream_begin_format, k), le32, le32_of(0));
	LIE(0, PAYLOAD(stream_begin_format, m), le32, le32_of(UINT32_MAX));
	LIE(0, PAYLOAD(stream_begin_format, snapshot_count), le32, le32_of(0));
	LIE(0, PAYLOAD(stream_begin_format, name), uint8_t, '/');
	LIE(0, PAYLOAD(stream_begin_format, name), uint8_t, 0);
	LIE(0, offsetof(struct stream_header, off_bytes), le64, le64_of(4096));
	LIE(1, PAYLOAD(stream_snapshot_format, base), uint8_t, 5);
	LIE(1, PAYLOAD(stream_snapshot_format, guid), uint8_t, 0);
	LIE(1, PAYLOAD(stream_snapshot_format, size_bytes), le64, le64_of(0));
	LIE(1, PAYLOAD(stream_snapshot_format, size_bytes), le64, le64_of(4095));
	LIE(1, PAYLOAD(stream_snapshot_format, name), uint8_t, '\n');
	LIE(3, offsetof(struct stream_header, off_bytes), le64, le64_of(0));
	LIE(3, offsetof(struct stream_header, off_bytes), le64, le64_of(MIB));
	LIE(3, offsetof(struct stream_header, off_bytes), le64, le64_of(UINT64_MAX - 4095));
	LIE(3, offsetof(struct stream_header, len_bytes), le64, le64_of(4096));
	LIE(3, offsetof(struct stream_header, len_bytes), le64, le64_of(8191));
	LIE(3, offsetof(struct stream_header, flags), le16, le16_of(STREAM_COMPRESSED));
	LIE(4, offsetof(struct stream_header, len_bytes), le64, le64_of(0));
	LIE(4, offsetof(struct stream_header, len_bytes), le64, le64_of(UINT64_MAX));
	LIE(4, offsetof(struct stream_header, flags), le16, le16_of(STREAM_COMPRESSED));
	LIE(5, PAYLOAD(stream_taken_format, data_bytes), le64, le64_of(1));
	LIE(6, PAYLOAD(stream_snapshot_format, base), uint8_t, 0);
	LIE(9, PAYLOAD(stream_taken_format, hole_bytes), le64, le64_of(0));
	LIE(10, PAYLOAD(stream_end_format, records), le64, le64_of(9));
	LIE(10, PAYLOAD(stream_end_format, hole_bytes), le64, le64_of(9));
}

static void the_same_again_gives_the_same_bytes(void **state)
{
	struct tape a, b;

	write_stream(&a, true, 0, 10);
	write_stream(&b, true, 0, 10);
	assert_int_equal(a.len_bytes, b.len_bytes);
	assert_memory_equal(a.bytes, b.bytes, a.len_bytes);
	free(a.bytes);
	free(b.bytes);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(what_was_written_is_read),
		cmocka_unit_test(any_changed_byte_is_refused_in_its_record),
		cmocka_unit_test(a_stream_that_is_cut_off_is_not_whole),
		cmocka_unit_test(records_of_other_places_and_streams_are_refused),
		cmocka_unit_test(a_record_that_is_left_out_is_missed),
		cmocka_unit_test(lies_with_good_checksums_are_refused),
		cmocka_unit_test(the_same_again_gives_the_same_bytes),
	};

	return run_unit_tests(tests);
}
