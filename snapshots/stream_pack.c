/* DEFLATE of a record's payload: see stream_pack.h. Level 1 of igzip: several hundred megabytes a second on one core. */
#include "snapshots/stream_pack.h"

#include <isa-l/igzip_lib.h>

#include "pool/base/mem.h"
#include "snapshots/stream_format.h"

struct stream_packer {
	struct isal_zstream z;
	uint8_t level[ISAL_DEF_LVL1_DEFAULT];
};

struct stream_unpacker {
	struct inflate_state z;
	uint8_t data[STREAM_DATA_BYTES_MAX];
};

struct stream_packer *stream_packer_new(void)
{
	return mem_alloc(sizeof(struct stream_packer));
}

struct stream_unpacker *stream_unpacker_new(void)
{
	return mem_alloc(sizeof(struct stream_unpacker));
}

uint32_t stream_pack(struct stream_packer *packer, const uint8_t *data, uint32_t len_bytes, uint8_t *out)
{
	struct isal_zstream *z = &packer->z;

	isal_deflate_stateless_init(z);
	z->level = 1;
	z->level_buf = packer->level;
	z->level_buf_size = sizeof(packer->level);
	z->end_of_stream = 1;
	z->flush = NO_FLUSH;
	z->next_in = (uint8_t *)(uintptr_t)data; /* only read */
	z->avail_in = len_bytes;
	z->next_out = out;
	z->avail_out = len_bytes - 1;
	return isal_deflate_stateless(z) == COMP_OK ? z->total_out : 0;
}

const uint8_t *stream_unpack(struct stream_unpacker *unpacker, const uint8_t *packed, uint32_t packed_bytes,
			     uint32_t len_bytes)
{
	struct inflate_state *z = &unpacker->z;

	isal_inflate_init(z);
	z->next_in = (uint8_t *)(uintptr_t)packed; /* only read */
	z->avail_in = packed_bytes;
	z->next_out = unpacker->data;
	z->avail_out = len_bytes;
	if (isal_inflate_stateless(z) != ISAL_DECOMP_OK || z->total_out != len_bytes || z->avail_in > 0)
		return NULL;
	return unpacker->data;
}
