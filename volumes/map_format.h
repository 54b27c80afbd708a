/* On disk: nodes of the map, the liveness table, and the catalog objects of lineages and volumes.
 *
 * Map node (one block; level 0 is a leaf). Nodes are immutable; a pointer to one carries its CRC32C.
 *
 *   off  size  field
 *     0     4  magic    "pmap"
 *     4     2  level
 *     6     2  count    entries, 1 .. 169
 *     8     8  lineage
 *    16     4  volume   lineage's number of the volume that it was written for (others may share it)
 *    20    12  zero
 *    32  24*c  entries  {key 8, segno 4, index 4, crc 4, birth 4}, keys ascending
 *
 * In a leaf key is the LBA and the rest is where the block is, its CRC32C and its birth. In an inner node the entry
 * points to a child whose keys are >= key and < the next entry's key (the first child also holds smaller ones).
 * Valid if and only if: the block's CRC32C is the pointer's; magic, lineage and level are as expected; count is in
 * range; keys ascend strictly and lie in the range that the parent gives.
 *
 * Liveness table (a chain of blocks named by the checkpoint):
 *
 *     0     4  magic    "pliv"
 *     4     4  count    entries, 0 .. 254
 *     8     8  lineage
 *    16     4  next_segno, 4 next_index, 4 next_crc  the next block; next_segno 0xffffffff ends the chain
 *    28     4  zero
 *    32  16*c  entries  {grant 8, segno 4, live 4}
 *
 * Valid if and only if: CRC32C as its pointer says, magic and lineage match, count is in range, every segno is a segment of
 * the lineage with that grant, or grant is 0 and segno is below 2^24; no segno is there twice, live is not above the segment's
 * size. Live counts the blocks that maps refer to (data and map nodes); blocks of the table itself are not counted. Grant 0:
 * the segment was moved, and its live blocks are where the place table says (place_format.h); they also count as live in
 * the segments that host them. If it still has zones of its own, they are to be freed.
 *
 * Page of reference counts: 2048 numbers le16, see refs.h. Valid if and only if its CRC32C is the map's. */
#ifndef VOLUMES_MAP_FORMAT_H
#define VOLUMES_MAP_FORMAT_H

#include <assert.h>
#include <stddef.h>
#include <stdint.h>

#include "pool/base/le.h"
#include "pool/pool.h"

#define MAP_MAGIC 0x70616d70u  /* "pmap" */
#define LIVE_MAGIC 0x76696c70u /* "pliv" */
#define SEGNO_NONE UINT32_MAX

struct map_entry {
	le64 key;
	le32 segno, index, crc, birth;
};

#define MAP_FANOUT 169u

struct map_node {
	le32 magic;
	le16 level, count;
	le64 lineage;
	le32 volume;
	le32 zero[3];
	struct map_entry entry[MAP_FANOUT];
	uint8_t pad[8];
};

struct live_entry {
	le64 grant;
	le32 segno, live;
};

#define LIVE_FANOUT 254u

struct live_block {
	le32 magic, count;
	le64 lineage;
	le32 next_segno, next_index, next_crc;
	le32 zero;
	struct live_entry entry[LIVE_FANOUT];
};

static_assert(sizeof(struct map_entry) == 24, "map entry");
static_assert(sizeof(struct map_node) == BLOCK_BYTES, "map node");
static_assert(offsetof(struct map_node, entry) == 32, "map node");
static_assert(sizeof(struct live_block) == BLOCK_BYTES, "live block");

/* A block's place with the checksum its content must have. segno SEGNO_NONE: none. */
struct ptr_format {
	le32 segno, index, crc;
};

/* CAT_LINEAGE object. Recovery replays the data stream from batch `seq`, which is at block head_index of the segment
 * granted as head_grant, or at the start of a segment granted later. */
struct lineage_format {
	le32 version;            /* 1 */
	uint8_t k, m;
	le16 zero;
	le64 seq;
	le64 head_grant;
	le32 head_index;
	le32 birth;              /* snapshot counter */
	le64 meta_grant;         /* where the next meta batch goes; 0: none */
	le32 meta_index;
	struct ptr_format live;
	le32 refs_height;        /* the map of reference counts, see refs.h */
	struct ptr_format refs;
	le32 places_height;      /* the map of place blocks, see places.h */
	struct ptr_format places;
};

#define VOLUME_TRIM_PENDING 1u   /* blocks beyond the size are still to be unmapped */
#define VOLUME_SNAPSHOT 2u       /* never written */
#define VOLUME_DELETED 4u        /* has no name; goes when its tree has been taken down */
#define VOLUME_RECEIVING 8u      /* what it holds is part of a snapshot that is on its way from elsewhere */
#define NUMBER_NONE UINT32_MAX

/* CAT_VOLUME object: what management decides. Changed by the pool's loop only. Version 1 ends before guid: its guid is made of
 * the pool's uuid, id and created_s. */
struct volume_format {
	le32 version;            /* 2 */
	le32 number;             /* within the lineage */
	le64 lineage;
	le64 size_bytes;
	le64 created_s;
	le32 flags;
	le32 of;                 /* SNAPSHOT: number of the volume whose snapshot it is */
	uint8_t name[POOL_NAME_MAX];     /* zero padded; of a snapshot what comes behind the @ */
	/* Without a CAT_MAP object the image begins with its origin's tree and what the log has up to fork_seq. */
	le32 origin;             /* number of an image of the lineage, NUMBER_NONE */
	le32 fork_birth;         /* blocks of the origin up to this birth are its own */
	le64 fork_seq;
	uint8_t guid[16];        /* of a snapshot: who has the same guid has the same content, in whatever pool */
	le64 receive_seq;        /* RECEIVING: how far the stream has been taken, see volume_receive_begin */
	le32 receive_crc;
	le32 zero;
};

#define VOLUME_FORMAT_1_BYTES 120u

/* CAT_MAP object, same id as its volume: what the last checkpoint found. Changed by the home loop only. */
struct map_root_format {
	le32 height;             /* levels of the map; 0: empty */
	struct ptr_format root;
	le64 mapped_blocks;
};

/* CAT_EPOCH object, same id as its volume: see epoch.c. Changed by the pool's loop only. Missing: nobody ever wrote. */
struct epoch_format {
	le64 epoch;
	le64 nonce;              /* of the claim that made it */
	char holder[112];        /* text, zero padded */
};

static_assert(sizeof(struct epoch_format) == 128, "epoch object");
static_assert(sizeof(struct lineage_format) == 88, "lineage object");
static_assert(offsetof(struct volume_format, guid) == VOLUME_FORMAT_1_BYTES, "volume object");
static_assert(sizeof(struct volume_format) == 152, "volume object");
static_assert(sizeof(struct map_root_format) == 24, "map object");

#endif
