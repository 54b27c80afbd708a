/* Inside snapshots/: DEFLATE of one record's payload, by isa-l. Each on its own: no record needs another to be unpacked. */
#ifndef SNAPSHOTS_STREAM_PACK_H
#define SNAPSHOTS_STREAM_PACK_H

#include <stdbool.h>
#include <stdint.h>

struct stream_packer;
struct stream_unpacker;

/* NULL: no memory. mem_free ends them. */
struct stream_packer *stream_packer_new(void);
struct stream_unpacker *stream_unpacker_new(void);

/* Length of what was put into out; 0: it does not become shorter than len_bytes. */
uint32_t stream_pack(struct stream_packer *packer, const uint8_t *data, uint32_t len_bytes, uint8_t *out);
/* The data, which is exactly len_bytes (at most STREAM_DATA_BYTES_MAX) long; NULL: it is not. Valid until the next one. */
const uint8_t *stream_unpack(struct stream_unpacker *unpacker, const uint8_t *packed, uint32_t packed_bytes,
			     uint32_t len_bytes);

#endif
