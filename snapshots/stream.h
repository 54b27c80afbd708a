/* Streams of snapshots: writing and reading their records. Pure: bytes in memory, no I/O. Format: stream_format.h.
 *
 * A writer fills its record, which the caller stores or sends before it asks for the next. A reader is given one whole record
 * after another, and believes nothing of one before all of it is found right; what it then tells can be done.
 * One thread at a time; neither is ever waited for. */
#ifndef SNAPSHOTS_STREAM_H
#define SNAPSHOTS_STREAM_H

#include <stdbool.h>
#include <stdint.h>

#include "pool/base/err.h"
#include "snapshots/stream_format.h"

struct stream_guid {
	uint8_t b[16]; /* all 0: none */
};
bool stream_guid_equal(const struct stream_guid *a, const struct stream_guid *b);
bool stream_guid_is_none(const struct stream_guid *guid);

struct stream_begin {
	uint32_t k, m;                   /* policy of the volume */
	uint32_t snapshot_count;
	struct stream_guid base;
	char name[STREAM_NAME_BYTES + 1];
};

struct stream_snapshot {
	struct stream_guid guid, base;
	uint64_t size_bytes, created_s;
	char name[STREAM_NAME_BYTES + 1];
};

/* How far a stream has been written or read: all records before seq. */
struct stream_mark {
	uint64_t seq;
	uint32_t crc;                    /* of the record before it; 0: there is none */
};

struct stream_totals {
	uint64_t data_bytes, hole_bytes;
};

/* --- writing ------------------------------------------------------------------------------------------------ */

struct stream_writer {
	uint8_t *data;                   /* STREAM_DATA_BYTES_MAX, for the caller to fill: see stream_write_data */
	uint8_t *record;                 /* the last one written */
	uint32_t record_bytes;
	struct stream_mark mark;
	struct stream_totals totals, taken; /* in all; since the last SNAPSHOT */
	struct stream_packer *packer;    /* NULL: nothing is compressed */
};

int stream_writer_init(struct stream_writer *writer, bool compress) __attribute__((warn_unused_result)); /* 0, -ENOMEM */
void stream_writer_release(struct stream_writer *writer);
/* In the order of the format, which the caller keeps. */
void stream_write_begin(struct stream_writer *writer, const struct stream_begin *begin);
void stream_write_snapshot(struct stream_writer *writer, const struct stream_snapshot *snapshot);
/* The first len_bytes of writer->data. */
void stream_write_data(struct stream_writer *writer, uint64_t off_bytes, uint32_t len_bytes);
void stream_write_hole(struct stream_writer *writer, uint64_t off_bytes, uint64_t len_bytes);
void stream_write_taken(struct stream_writer *writer);
void stream_write_end(struct stream_writer *writer);

/* --- reading ------------------------------------------------------------------------------------------------ */

/* What a record says. */
struct stream_item {
	enum stream_type type;
	uint64_t off_bytes, len_bytes;   /* DATA, HOLE */
	const uint8_t *data;             /* DATA: len_bytes, until the next record is read */
	struct stream_begin begin;       /* STREAM */
	struct stream_snapshot snapshot; /* SNAPSHOT; TAKEN: of the one that is complete */
};

struct stream_reader {
	struct stream_mark mark;
	/* what may come */
	bool begun, within, ended;       /* within: between SNAPSHOT and TAKEN */
	uint32_t snapshots_left;
	struct stream_guid base;         /* of the next SNAPSHOT */
	struct stream_snapshot snapshot;
	uint64_t end_bytes;              /* of the range before, in this snapshot */
	struct stream_totals totals, taken;
	struct stream_unpacker *unpacker;
};

int stream_reader_init(struct stream_reader *reader) __attribute__((warn_unused_result)); /* 0, -ENOMEM */
void stream_reader_release(struct stream_reader *reader);
/* Length of the record that begins with this header, which has not been verified: at most STREAM_RECORD_BYTES_MAX.
 * -EBADMSG: it is no record. */
int stream_record_bytes(const struct stream_header *header, struct err *err) __attribute__((warn_unused_result));
/* -EBADMSG with a message that says where and what; the reader is as before, but `item` and its data are not to be used. */
int stream_read(struct stream_reader *reader, const void *record, uint32_t len_bytes, struct stream_item *item,
		struct err *err) __attribute__((warn_unused_result));

#endif
