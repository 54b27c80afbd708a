/* On the wire and in files: a volume's snapshots on their way to another pool.
 *
 * A stream is records, one behind the other. Record:
 *
 *   off  size  field
 *     0     4  magic          "pstr"
 *     4     4  crc            CRC32C of the header with this field 0 and of the payload, begun with the crc of the record before
 *                             (the first: 0)
 *     8     8  seq            0, 1, 2, ...
 *    16     2  type
 *    18     2  flags          1: the payload is compressed (DEFLATE, RFC 1951); DATA only
 *    20     4  payload_bytes  at most 1 MiB
 *    24     8  off_bytes      DATA, HOLE: where, in the volume
 *    32     8  len_bytes      DATA, HOLE: how much
 *    40     .  payload
 *
 * type       payload
 *   1 STREAM      version 4 (1), k 4, m 4, snapshot_count 4, base 16 (GUID of the snapshot that the receiver must have; 0: none),
 *                 name 64 (of the volume it was)
 *   2 SNAPSHOT    guid 16, base 16 (what the following is the difference to; 0: to nothing), size_bytes 8 (of the volume),
 *                 created_s 8, name 64
 *   3 DATA        len_bytes of data, at most 1 MiB
 *   4 HOLE        nothing: the range reads as zeroes
 *   5 TAKEN       data_bytes 8, hole_bytes 8: how much DATA and HOLE told since SNAPSHOT. The snapshot is complete
 *   6 END         records 8 (before this one), data_bytes 8, hole_bytes 8: in all
 *
 * A stream is valid if and only if
 *
 *     it is STREAM, snapshot_count times {SNAPSHOT, any number of DATA and HOLE, TAKEN}, END, and nothing behind it
 *     each record has magic, its seq, its crc, no unknown flag, and a payload of its type's size; unused fields are 0
 *     version is 1; k from 1, k + m at most 24; snapshot_count is from 1 to 65536; names are valid; no snapshot's guid is 0
 *     the first SNAPSHOT's base is STREAM's, any other's the guid of the one before
 *     sizes and ranges are whole blocks of 4 KiB, not empty, a size at most 2^50; ranges ascend and end within the size
 *     a compressed payload is shorter than len_bytes and unpacks to exactly that; any other has len_bytes
 *     totals are right
 *
 * Because each crc goes on from the one before, a record is worth something only behind those it was written behind: what was
 * cut out, put in or turned round is refused at that record. A record counts when it is there whole and right. */
#ifndef SNAPSHOTS_STREAM_FORMAT_H
#define SNAPSHOTS_STREAM_FORMAT_H

#include <assert.h>
#include <stddef.h>
#include <stdint.h>

#include "pool/base/le.h"

#define STREAM_MAGIC 0x72747370u /* "pstr" */
#define STREAM_VERSION 1u
#define STREAM_COMPRESSED 1u
#define STREAM_DATA_BYTES_MAX (1u << 20)
#define STREAM_SNAPSHOTS_MAX 65536u
#define STREAM_NAME_BYTES 64u
#define STREAM_COLS_MAX 24u
#define STREAM_SIZE_MAX (1ull << 50)
#define STREAM_BLOCK_BYTES 4096u

enum stream_type {
	STREAM_RECORD_STREAM = 1,
	STREAM_RECORD_SNAPSHOT,
	STREAM_RECORD_DATA,
	STREAM_RECORD_HOLE,
	STREAM_RECORD_TAKEN,
	STREAM_RECORD_END,
};

struct stream_header {
	le32 magic, crc;
	le64 seq;
	le16 type, flags;
	le32 payload_bytes;
	le64 off_bytes, len_bytes;
};

struct stream_begin_format {
	le32 version, k, m, snapshot_count;
	uint8_t base[16];
	uint8_t name[STREAM_NAME_BYTES]; /* zero padded */
};

struct stream_snapshot_format {
	uint8_t guid[16], base[16];
	le64 size_bytes, created_s;
	uint8_t name[STREAM_NAME_BYTES];
};

struct stream_taken_format {
	le64 data_bytes, hole_bytes;
};

struct stream_end_format {
	le64 records, data_bytes, hole_bytes;
};

static_assert(sizeof(struct stream_header) == 40, "stream header");
static_assert(offsetof(struct stream_header, type) == 16, "stream header");
static_assert(sizeof(struct stream_begin_format) == 96, "stream begin");
static_assert(sizeof(struct stream_snapshot_format) == 112, "stream snapshot");
static_assert(sizeof(struct stream_taken_format) == 16, "stream taken");
static_assert(sizeof(struct stream_end_format) == 24, "stream end");

#define STREAM_RECORD_BYTES_MAX (sizeof(struct stream_header) + STREAM_DATA_BYTES_MAX)

#endif
