/* A VM's state as bytes, the same in a file and on a socket: sections, one behind the other.
 *
 *     section   0  le32  magic        STREAM_MAGIC
 *               4  le16  type         enum stream_type
 *               6  le16  version      of the section's content
 *               8  le16  reader_min   the oldest reader that understands it
 *              10  le16  flags        1: optional, may be skipped by who does not know the type
 *              12  le32  payload_crc  CRC32C
 *              16  le64  len_bytes    of the payload, at most STREAM_PAYLOAD_BYTES_MAX
 *              24  le32  number       0, 1, 2, ...: nothing is missing, nothing comes twice
 *              28  le32  crc          CRC32C of the header with this field 0
 *              32        payload
 *
 * A stream is valid if and only if: every header and payload has its checksum; numbers are consecutive; no section wants a
 * newer reader; no mandatory type is unknown; it begins with MACHINE and comes to END. What a section holds is checked by who uses it.
 *
 *     MACHINE   struct stream_machine: what the reader's own machine must be
 *     MEMORY    no payload; a descriptor of the guest's memory travels with it (Unix sockets only)
 *     PAGES     le64 guest address, then whole pages             ZEROES  le64 guest address, le64 bytes
 *     CHIPS     struct vm_image's data                           DEVICE  le32 number, le32 zero, struct virtio_state
 *     SERIAL    struct serial_state                              END     all has been said
 *     READY, GO, RUNNING: who runs the VM is handed over by these three, see migrate.c
 *     FAILED    text for a person */
#ifndef VMM_STREAM_FORMAT_H
#define VMM_STREAM_FORMAT_H

#include <assert.h>

#include "pool/base/le.h"

#define STREAM_MAGIC 0x736d7670u /* pvms */
#define STREAM_READER_VERSION 1u
#define STREAM_FLAG_OPTIONAL 1u
#define STREAM_PAYLOAD_BYTES_MAX (4u << 20)

enum stream_type {
	STREAM_MACHINE = 1,
	STREAM_MEMORY,
	STREAM_PAGES,
	STREAM_ZEROES,
	STREAM_CHIPS,
	STREAM_DEVICE,
	STREAM_SERIAL,
	STREAM_END,
	STREAM_READY,
	STREAM_GO,
	STREAM_RUNNING,
	STREAM_FAILED,
	STREAM_TYPE_END,
};

struct stream_header {
	le32 magic;
	le16 type, version, reader_min, flags;
	le32 payload_crc;
	le64 len_bytes;
	le32 number;
	le32 crc;
};
static_assert(sizeof(struct stream_header) == 32, "section header");

struct stream_zeroes {
	le64 gpa, len_bytes;
};

#endif
