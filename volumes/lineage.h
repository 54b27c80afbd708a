/* Inside volumes/: the lineage, a self-contained log with its maps. Not for other folders.
 *
 * Everything here belongs to the lineage's home loop, except what is marked otherwise. */
#ifndef VOLUMES_LINEAGE_H
#define VOLUMES_LINEAGE_H

#include "pool/base/table.h"
#include "pool/runtime/fiber.h"
#include "volumes/batch_format.h"
#include "volumes/nodecache.h"
#include "volumes/overlay.h"
#include "volumes/places.h"
#include "volumes/refs.h"
#include "volumes/volume.h"

/* --- limits ----------------------------------------------------------------------------------------------- */

#define VIO_BLOCKS_MAX (VIO_BYTES_MAX / BLOCK_BYTES + 1)        /* a misaligned largest request touches one more */
#define BATCH_DATA_MAX VIO_BLOCKS_MAX
#define BATCH_BLOCKS_MAX (1 + BATCH_DATA_MAX + SEGMENT_COLS_MAX) /* header, data, padding */
#define BATCHES_PER_LOOP 24u     /* buffers of a loop, ~1.1 MiB each, allocated when first needed */
#define HOLE_TAIL_ROWS 8u        /* of each data segment, for discards when there is no zone left */
#define STREAM_INFLIGHT_MAX 4u   /* batches of a stream being written at once */
#define SLOW_OPS_MAX 32u         /* fibers serving map misses and misaligned requests, per lineage and class */
#define READS_PER_LOOP 512u      /* reads on the fast path at once, per loop */
#define READ_RUNS_MAX 32u        /* disk runs of one fast read; more go the slow way */
#define READ_IOVS_MAX 512u
#define MAP_LEVELS_MAX 12u
#define LAYERS_MAX 16u           /* of an image: what a checkpoint merges and what came after */
#define IMAGES_MAX 60000u        /* of a lineage: each may refer to the same block, and references are counted in 16 bits */
#define REF_PAGES_MIN 1024u      /* of reference counts, in memory during a checkpoint: 1/4 of the map cache within these */
#define REF_PAGES_MAX 65536u
#define REF_PAGES_KEPT 256u      /* ... and between checkpoints */
#define PLACES_MAX 8192u         /* place blocks in memory, per lineage: 32 MiB */
#define MEMORY_RETRY_NS (10ull * 1000 * 1000)
#define REPLAY_FIBERS_MAX 32u
#define SEGNO_MAX (1u << 24)

#define OVERLAY_ENTRIES_DEFAULT (1u << 20)
#define CHECKPOINT_LOG_DEFAULT (1ull << 30)
#define MAP_CACHE_DEFAULT (64ull << 20)
/* A change is in a checkpoint after this time at the latest, so that discarded space comes back. */
#define CHECKPOINT_AGE_NS (10ull * 1000 * 1000 * 1000)
/* Log written without a flush by the guest before we flush ourselves: bounds what recovery must verify. */
#define UNFLUSHED_BYTES_MAX (64ull << 20)

/* --- types ------------------------------------------------------------------------------------------------ */

/* Per loop: what its lineages share. */
struct vloop {
	struct loop *loop;
	struct nodecache cache;
	struct list free_batches, free_reads;
	uint32_t batches, reads;         /* allocated */
	struct list starved;             /* lineages waiting for a batch buffer or a read slot */
};

/* What mending has done. */
struct mend_stats {
	uint64_t blocks;                 /* looked at */
	uint64_t mended;                 /* pieces of columns that were wrong */
	uint64_t lost;                   /* data blocks that no way gave; some may be of no use any more */
};

/* A segment of the lineage. */
struct lseg {
	struct segment seg;
	uint32_t live;                   /* blocks the durable maps refer to */
	int32_t delta;                   /* change by the checkpoint being made */
	uint32_t table_blocks;           /* blocks of the current liveness table in it */
	uint32_t table_blocks_new;       /* of the one being written */
	uint32_t unwritten;              /* open and in-flight batches */
	uint64_t last_seq;               /* data: newest batch in it, 0 if older than any replay */
	uint64_t flush_round;            /* the flush that covers what was last written */
	bool held;                       /* open or granted ahead: not to be freed */
	bool freeing;                    /* in a transaction that frees it */
	bool moved;                      /* its blocks are where the place table says, see places.h */
	bool moving;                     /* ... once the checkpoint being made is durable */
	bool cleaned;                    /* the checkpoint being made empties it */
	bool stuck;                      /* holds a block that cannot be read */
	struct ref_page **ref_page;      /* those in memory, see refs.h; NULL: none yet */
	struct place **place;            /* the same, see places.h */
	bool mending;                    /* not to be freed either */
	bool lost_again;                 /* a column has become lost while it was mended */
};

/* One that was moved has none of its own any more (grant 0), only a number and live blocks elsewhere. */
static inline bool lseg_has_zones(const struct lseg *lseg)
{
	return lseg->seg.grant != 0;
}

/* Live blocks once the checkpoint being made is durable. */
static inline uint32_t lseg_live_after(const struct lseg *lseg)
{
	return (uint32_t)((int64_t)lseg->live + lseg->delta);
}

/* A batch being filled or written. */
struct batch {
	struct list node;
	struct stream *stream;
	struct lseg *lseg;
	uint8_t *buf;                    /* BATCH_BLOCKS_MAX blocks, block-aligned; block 0 is the header */
	uint64_t seq;
	uint32_t start;                  /* block of the header in the segment */
	uint32_t data, extents, total;
	struct list vios;                /* completed with it */
	uint32_t crc[BATCH_DATA_MAX];
	struct seg_io io;
	struct iovec iov;
	bool done;
	int res;
};

/* An append point: one open segment, batches in flight in log order. */
struct stream {
	struct lineage *lin;
	enum segment_stream id;
	struct lseg *seg;                /* open segment, NULL if none */
	struct lseg *next;               /* granted ahead */
	uint32_t head;                   /* next block in seg */
	bool granting;
	bool want_reserve;               /* a discard waits for room */
	bool reserve, next_reserve;      /* seg, next came from the reserve: for discards only while the pool is full */
	uint64_t next_seq;
	uint64_t last_grant;             /* of the newest segment ever opened */
	struct batch *open;
	struct list inflight;            /* in log order */
	uint32_t inflight_count;
	bool relocating;                 /* a write failed: nothing is appended until its batches have a new place */
	uint32_t relocations;            /* since the last batch that was written */
	int error;                       /* not data: batches were lost; the checkpoint must start again */
	bool kick_posted;
	struct task kick;
};

/* A place in the data stream: where batch `seq` is, or would be. Replay starts at one. */
struct log_point {
	uint64_t seq;
	uint64_t grant;                  /* segment, or the newest one before it */
	uint32_t index;                  /* UINT32_MAX: in a segment granted later */
};

struct map_root {
	struct node_ptr ptr;
	uint32_t height;                 /* 0: empty map */
};

struct touch_list {
	uint64_t *key;
	uint32_t count, cap;
};

/* A part of an image's map that is newer than its tree. Only the top layer of a writable image changes; an image forked
 * from another one shares its layers. */
struct layer {
	uint32_t refs;                   /* images that have it */
	struct overlay changes;
	struct touch_list touch;         /* keys whose nodes the merge rewrites */
	/* of the checkpoint being made */
	uint32_t group;                  /* images in it that have this layer */
	bool merged;                     /* what follows is known */
	struct map_root root;            /* tree with this layer and all below it */
	uint64_t mapped_blocks;
};

/* A volume or a snapshot. */
struct volume_state {
	struct list node;                /* lineage's volumes */
	struct table_node of_lineage;    /* lineage's numbers */
	struct list dir;                 /* of those with a name; from here on owner: the pool's loop */
	struct table_node by_name, by_number;
	struct volume_state *volume;     /* snapshot with a name: whose it is */
	struct list snapshots;           /* volume: its snapshots by `sibling` */
	uint32_t snapshot_count;
	struct list sibling;             /* up to here */
	struct lineage *lin;
	struct volumes *vols;
	char name[POOL_NAME_MAX + 1];    /* owner: the pool's loop; of a snapshot what comes behind the @ */
	uint64_t id;
	uint32_t number;
	uint32_t of;                     /* snapshot: number of the volume whose snapshot it is */
	uint64_t size_bytes;
	uint64_t created_s;
	uint32_t flags;
	struct uuid guid;
	struct receive_mark receive;     /* RECEIVING. Owner: the pool's loop */
	uint32_t opens;                  /* owner: the pool's loop */
	/* fork: what a fresh image begins with */
	uint32_t origin;                 /* number of the image it was made from; NUMBER_NONE */
	uint64_t fork_seq;               /* batches before it are seen */
	uint32_t fork_birth;             /* the lineage's counter up to the fork */
	bool fresh;                      /* in no checkpoint yet: its tree is its origin's, and not counted */
	/* map */
	uint64_t mapped_blocks;          /* in the tree */
	struct map_root root;
	struct layer *layer[LAYERS_MAX]; /* on top of the tree, newest last */
	uint32_t layers;
	/* of the checkpoint being made */
	bool joined;                     /* in it */
	bool going;                      /* and being taken down: */
	uint64_t reclaim_end;            /* up to here */
	struct layer *spare;             /* next top layer */
	uint32_t frozen;                 /* layers that it merges */
	struct map_root new_root;
	uint64_t new_mapped;
	struct list watches;
	struct volume_counters counters;
	/* who may write: epoch.c */
	uint64_t epoch;                  /* 0: nobody ever did. Owner: the home loop, while the pool's holds `claims` */
	uint64_t nonce;                  /* of the claim that made it; owner: the pool's loop, and of what follows */
	char holder[VOLUME_HOLDER_BYTES];
	_Atomic uint64_t busy_epoch;     /* whose writer is at work; 0: none is */
};

/* A handle. */
struct volume {
	struct volume_state *state;
	uint64_t epoch;                  /* in which it may write; 0: INACTIVE. Owner: the home loop */
};

static inline bool volume_is_writer(const struct volume *volume)
{
	return volume->epoch > 0 && volume->epoch == volume->state->epoch;
}
static inline bool volume_is_fenced(const struct volume *volume)
{
	return volume->epoch > 0 && volume->epoch != volume->state->epoch;
}

/* Slow operations: one fiber each, a limited number. Each class has its own: what waits for room must not keep those from
 * a fiber that make the room, nor reads. */
enum slow_class_id { SLOW_READS, SLOW_HOLES, SLOW_WRITES, SLOW_CLASSES };
struct slow_class {
	struct lineage *lin;
	struct list queue;
	uint32_t running;
};

struct lineage {
	struct volumes *vols;
	struct pool *pool;
	struct vloop *vl;
	struct loop *loop;
	struct list node;                /* all lineages; owner: the pool's loop */
	uint64_t id;
	struct policy policy;
	uint32_t segment_blocks;
	uint32_t birth;                  /* counts forks; each block remembers it */
	uint32_t images;
	uint32_t named;                  /* of these have names; owner: the pool's loop */
	struct lseg **segs;              /* [segno], NULL where free */
	uint32_t segs_cap;
	struct list volumes;             /* struct volume_state */
	struct table numbers;            /* the same, by number */
	struct stream stream[STREAM_COUNT];

	/* log */
	uint64_t completed_seq;          /* all batches up to it are written */
	uint64_t flushed_seq;            /* ... and flushed */
	uint64_t dirty_disks[DISK_SET_WORDS];
	uint64_t flush_round;            /* counts flushes; the next one */
	uint64_t unflushed_bytes;
	struct list flush_waiters;       /* vios, and flush_req of fibers */
	bool flushing;
	int failed;                      /* -errno once the log cannot be written: reads only */
	bool nospace;                    /* the pool had no zone for data */
	bool noreserve;                  /* ... and none in the reserve */
	struct list wait_writes, wait_holes; /* vios waiting for room */
	struct waitq room;               /* fibers waiting for room */
	struct task drain;
	bool drain_posted;
	struct timer retry;              /* after there was no memory to go on */
	struct list starved;             /* on vl->starved */
	struct list wait_reads;          /* vios waiting for a read slot */
	struct space_watch space;
	uint64_t frees;                  /* times that zones became free */
	struct task space_task;

	struct slow_class slow[SLOW_CLASSES];

	/* readers of the current and the previous map generation: a dead segment is freed when its readers are gone */
	bool mending, mend_again, scrub_wanted;
	struct mend_stats mend_stats;
	uint32_t readers[2];
	uint32_t reader_gen;
	struct waitq readers_gone;

	/* cleaner */
	bool cleaning;                   /* checkpoints empty segments */
	bool cleaning_meta;              /* the one being made empties segments of the meta stream */
	bool clean_in_vain;              /* there was nothing to clean, and no checkpoint since */
	uint32_t emptied;                /* segments, by the last checkpoint that was to */
	uint64_t meta_grant;             /* the checkpoint being made writes to this segment of the meta stream and later ones */

	/* checkpoint */
	bool checkpointing;
	bool running;                    /* recovered, not yet closed */
	struct task squeeze;             /* the pool is full: checkpoint, there may be dead segments */
	_Atomic bool squeeze_queued;
	struct timer quiet_timer;        /* runs from the first change after a checkpoint */
	bool frozen;                     /* layers are frozen as of log_point, and not yet merged */
	uint32_t held;                   /* nothing is appended: forks of several lineages at one instant */
	uint32_t forking;                /* forks not yet committed: no freeze meanwhile */
	uint32_t log_birth;              /* at log_point */
	uint64_t changes;                /* in layers, since the last freeze */
	struct refs refs;
	struct places places;
	struct log_point log_point;
	uint64_t log_bytes;              /* data stream written since the last freeze */
	struct waitq checkpoint_done;
	struct node_ptr live_ptr;

	uint32_t fibers;                 /* running for us */
	struct waitq fibers_gone;
	bool closing;
	char damage[160];                /* why recovery failed, "" if it did not */
	uint64_t recovery_us;
	struct volume_counters counters;
};

/* Who may use how much of the log's room when the pool is full. */
enum room_class {
	ROOM_DATA,               /* waits for ordinary zones */
	ROOM_HOLE,               /* discards: also the tail that every segment keeps for them */
};

/* --- log.c: append, flush, room --------------------------------------------------------------------------- */

/* Finds or makes room in the stream's open batch for `blocks` data blocks and `extents` extents. 0 with *out; -EAGAIN:
 * lin->room will be woken; other -errno: the log has failed. */
int log_room(struct stream *st, uint32_t blocks, uint32_t extents, enum room_class class, struct batch **out);
/* Adds an extent; the caller has made sure of room and then adds its data blocks. */
void batch_add_extent(struct batch *b, enum batch_op op, uint32_t volume, uint64_t lba, uint64_t count);
/* Next data block: where to copy to. *index is its block number in the segment. Then batch_set_crc. */
uint8_t *batch_add_block(struct batch *b, uint32_t *index);
void batch_set_crc(struct batch *b, uint32_t crc);
/* The open batch leaves at the end of this turn, or when there is little enough in flight. */
void stream_kick(struct stream *st);
/* Closes and submits the open batch now if the in-flight limit allows; waits for it otherwise. Fiber. */
void stream_push(struct stream *st);
/* Waits until every batch up to seq has been written. Fiber. 0 or the log's error. */
int stream_wait_written(struct stream *st, uint64_t seq);
/* Content of a block that is still in a batch's buffer, or NULL. */
const uint8_t *log_find_unwritten(const struct lineage *lin, const struct lseg *lseg, uint32_t index);
/* Adds a vio to the waiters of the next flush. */
void log_flush_vio(struct lineage *lin, struct vio *vio);
/* The next flush covers the segment's disks. */
void log_mark_dirty(struct lineage *lin, const struct segment *seg);
/* Flushes every disk that the lineage has written. Fiber. */
int log_flush_wait(struct lineage *lin);
/* No more appends. All waiters get the error. */
void lineage_fail(struct lineage *lin, int error);
/* Waits for a batch buffer or read slot of the loop to become free, or for memory for one. */
void lineage_starve(struct lineage *lin, bool no_memory);
/* There was no memory to go on with what waits: try again in a while. */
void lineage_retry_later(struct lineage *lin);
/* Something changed for those who wait for room. */
void lineage_drain_soon(struct lineage *lin);

/* Writes a batch that has its place. */
void batch_submit(struct batch *b);
/* Takes the batch from the in-flight list and completes its requests. */
void batch_retire(struct batch *b);
void batch_free(struct vloop *vl, struct batch *b);
/* Asks the pool for a segment for the stream. Fiber. */
int lseg_grant(struct stream *st, enum grant_class class, uint32_t avoid_disk, struct lseg **out);

struct lseg *lseg_get(const struct lineage *lin, uint32_t segno);
/* Puts a segment into the table. NULL: no memory or the number is taken. */
struct lseg *lseg_add(struct lineage *lin, const struct segment *seg);
void lseg_del(struct lineage *lin, struct lseg *lseg);
void log_init(struct lineage *lin);
void log_release(struct lineage *lin);
void space_freed(struct task *task);

/* --- scan.c ----------------------------------------------------------------------------------------------------- */

#define SCAN_WINDOW_BLOCKS 16u

/* 0: go on; positive: stop; negative: an error that ends the scan. */
typedef int scan_fn(void *arg, const struct batch_header *h);
/* Calls fn for each valid batch from block `from` on, up to the segment's seal or the first block that is no header. An
 * error if a place where a header may be cannot be read: that is no end. buf holds SCAN_WINDOW_BLOCKS. Fiber. */
int scan_segment(struct lineage *lin, const struct lseg *lseg, uint32_t from, uint8_t *buf, scan_fn *fn, void *arg);
/* Reads one block that has the checksum, in every way there is, and heals it. -EBADMSG: it never had; other: not readable.
 * Fiber. */
int scan_read_block(struct lineage *lin, const struct lseg *lseg, uint32_t index, uint32_t crc, void *buf);
/* segment_read with a few tries. Fiber. */
int scan_read(struct lineage *lin, const struct lseg *lseg, uint32_t index, uint32_t count, void *buf);

/* Is this a valid header of the segment's batch at this block? */
bool scan_header_valid(const struct lineage *lin, const struct lseg *lseg, uint32_t index, const void *block);

/* --- mend.c ------------------------------------------------------------------------------------------------------ */

/* Makes all columns of a batch right, but for rows with blocks that are lost. h: at least its used part. Fiber. */
int mend_batch(struct lineage *lin, struct lseg *lseg, const struct batch_header *h, struct mend_stats *stats);

/* A disk that is out will come back: durably, all columns on it are lost. Fiber. */
int mend_lose_disk(struct lineage *lin, uint32_t disk_id);
/* Mends segments with lost columns, and with `scrub` all, in the background. */
void mend_start(struct lineage *lin, bool scrub);

/* --- cleaner.c -------------------------------------------------------------------------------------------------- */

/* Starts the cleaner if zones are wanted and it does not run. */
void cleaner_start(struct lineage *lin);
/* In a checkpoint, when all references have been counted: moves what is live out of some segments, which free_dead then
 * frees. Fiber. 0 also if it got stuck; -EIO, -ENOMEM: the checkpoint must start again. */
int cleaner_evacuate(struct lineage *lin);
/* That checkpoint is durable, or has failed. */
void cleaner_forget(struct lineage *lin);

/* --- relocate.c --------------------------------------------------------------------------------------------- */

/* All batches in flight are done, and the first has failed. */
void relocate_start(struct stream *st);

/* --- io.c: requests --------------------------------------------------------------------------------------- */

/* Tries what waits for room; called from the drain task. */
void io_drain(struct lineage *lin);
/* Starts fibers for slow operations that wait for one. */
void io_start_slow(struct lineage *lin);
void vio_finish(struct vio *vio, int res);
/* vio->done in a later task. */
void vio_finish_soon(struct vio *vio, int res);
void io_release_loop(struct vloop *vl);

/* --- layers.c: what is newer than the tree ---------------------------------------------------------------- */

/* Where the blocks lba..lba+n are now: layers, then the tree. As map_lookup. */
int volume_lookup(struct volume_state *vol, uint64_t lba, uint32_t n, struct mapping *map, bool wait);
/* Enters a change into the top layer. 0 or -ENOMEM. */
int volume_map_block(struct volume_state *vol, uint64_t lba, const struct mapping *m) __attribute__((warn_unused_result));
int volume_map_hole(struct volume_state *vol, uint64_t lba, uint64_t count) __attribute__((warn_unused_result));
/* A new, empty top layer. Takes it over. */
void layer_push(struct volume_state *vol, struct layer *layer);
struct layer *layer_new(void);
void layer_put(struct layer *layer);
bool layer_is_empty(const struct layer *layer);
/* The image's layers become those of `from`. */
void layers_share(struct volume_state *vol, const struct volume_state *from);
void layers_release(struct volume_state *vol);
/* Its tree is all there is to it. */
bool volume_is_settled(const struct volume_state *vol);
/* Drops what the checkpoint has merged and takes over its tree. */
void layers_install(struct volume_state *vol);
static inline struct layer *layer_top(const struct volume_state *vol)
{
	return vol->layers > 0 ? vol->layer[vol->layers - 1] : NULL;
}
/* Only snapshots never change. What goes was written before: a replay needs the layer. */
static inline bool volume_has_top(const struct volume_state *vol)
{
	return !(vol->flags & VOLUME_SNAPSHOT);
}
static inline bool volume_is_writable(const struct volume_state *vol)
{
	return !(vol->flags & (VOLUME_SNAPSHOT | VOLUME_DELETED));
}

/* --- map.c: lookup and merge ------------------------------------------------------------------------------ */

/* Fills the unknown of res[0..n) from the tree (unmapped: hole). Without waiting: -EAGAIN if a node is not in the
 * cache. With `wait` (fiber only) it is read. -EIO: a node is damaged. */
int map_lookup(struct volume_state *vol, uint64_t lba, uint32_t n, struct mapping *res, bool wait);
/* How the tree maps lba, and how many blocks from there on (1 .. max) surely are alike. Fiber. 0 or -EIO. */
int map_run(struct volume_state *vol, uint64_t lba, uint64_t max, bool *mapped, uint64_t *blocks);
/* Do two images' trees map lba to the same block, and how many blocks from there on (1 .. max) surely are alike? What they
 * share is passed in one step. Fiber. 0 or -EIO. */
int map_same_run(struct volume_state *vol, const struct volume_state *other, uint64_t lba, uint64_t max, bool *same,
		 uint64_t *blocks);
/* Merges a layer into the tree `base`, whose reference it takes over, and hands out one to the new tree. Writes nodes to
 * the meta stream and counts references, see refs.h. Fiber. */
int map_merge(struct volume_state *vol, const struct layer *layer, const struct map_root *base, struct map_root *root,
	      int64_t *mapped_delta);
/* One more or one less reference to a tree. What is left by the last one must have been unmapped. Fiber. */
int map_root_get(struct lineage *lin, const struct map_root *root);
int map_root_put(struct lineage *lin, const struct map_root *root);
/* Where to unmap an image up to, from its beginning, so that about *nodes nodes of its own are visited, which are taken off.
 * Fiber. */
int map_step(struct volume_state *vol, uint32_t *nodes, uint64_t *end);
/* The layer's merge rewrites the nodes on the way to key. 0 or -ENOMEM. */
int layer_touch(struct layer *layer, uint64_t key);
/* Calls fn for each node of the tree, parents first, and (level -1) for each block that leaves refer to. Where it returns a
 * positive number, what is below is left out; an error ends the walk. Fiber. */
typedef int map_walk_fn(void *arg, uint64_t key, int level, const struct node_ptr *ptr);
int map_walk(struct volume_state *vol, map_walk_fn *fn, void *arg);
/* Reads a block, checked against its CRC32C, at its place in a segment with zones. Fiber. */
int meta_read(struct lineage *lin, const struct node_ptr *ptr, void *buf);
/* Appends a block to the meta stream. Fiber. */
int meta_append(struct lineage *lin, const void *block, struct node_ptr *ptr);

/* --- live.c ----------------------------------------------------------------------------------------------- */

/* Writes live + delta of all segments; *out names the table. Fiber. */
int live_write(struct lineage *lin, struct node_ptr *out);
int live_load(struct lineage *lin, const struct node_ptr *table, struct err *err);

/* --- checkpoint.c ----------------------------------------------------------------------------------------- */

/* Starts one in the background if none runs. */
void checkpoint_start(struct lineage *lin);
/* Starts one if overlay or log have grown enough. */
void checkpoint_if_due(struct lineage *lin);
/* Starts one if there are images to be taken down; it goes on with the next until they are gone. */
void checkpoint_reclaim(struct lineage *lin);
/* The log has grown: sees to it that a checkpoint comes some day even if little more is written. */
void checkpoint_later(struct lineage *lin);
void checkpoint_init(struct lineage *lin);
/* Makes one and waits. Fiber. */
int checkpoint_run(struct lineage *lin);
/* See volume_get_space. Fiber. */
int checkpoint_measure(struct volume_state *vol, struct volume_space *space);

/* --- recover.c -------------------------------------------------------------------------------------------- */

/* Loads liveness, replays the log, seals its end. Fiber of the home loop. `segments` are all the lineage has. */
int lineage_recover(struct lineage *lin, const struct lineage_format *f, const struct segment *segments, uint32_t count,
		    struct err *err);

/* --- fork.c: images made from images -------------------------------------------------------------------------- */

/* A new image that holds what `origin` holds now, in O(1); nothing is copied. In memory, on both sides of which writes may
 * be in flight. Then all batches before its fork_seq must be durable, and the image be committed, before fork_done says
 * how it went; no checkpoint begins meanwhile. -ENOMEM, -EMLINK: too many images, or the lineage's error. Fiber. */
int fork_image(struct volume_state *origin, uint64_t id, const struct volume_format *f, struct volume_state **out);
/* Waits until fork_image need not wait for a checkpoint. Fiber. */
int fork_wait_room(struct volume_state *origin);
/* Makes durable what the image holds. Fiber. */
int fork_sync(struct volume_state *image);
void fork_done(struct volume_state *image, bool committed);
/* The volume, of which nothing is in flight, gets what the snapshot holds; *old, a new image that goes, gets what it held. To be
 * made durable likewise, and ended in any case where *old is set. Fiber. */
int rollback_begin(struct volume_state *vol, const struct volume_state *snapshot, uint64_t old_id, struct volume_state **old);
void rollback_end(struct volume_state *vol, struct volume_state *old, bool committed);

/* Recovery: the fresh images, in the order of their forks. */
struct fork_list {
	struct volume_state **image;
	uint32_t count, next;
};
/* Gives them their trees. -EUCLEAN: what the catalog says of them cannot be; -ENOMEM. */
int forks_load(struct lineage *lin, struct fork_list *list);
/* The replay has come to batch `seq`: those forked up to there get their layers. Errors as above. */
int forks_replay(struct fork_list *list, uint64_t seq);
void forks_release(struct fork_list *list);

/* --- lineage.c: life cycle -------------------------------------------------------------------------------- */

int lineage_alloc(struct volumes *vols, struct pool *pool, struct vloop *vl, uint64_t id, struct policy policy,
		  struct lineage **out);
/* An image that belongs to no list yet, without layers. NULL: no memory. */
struct volume_state *volume_state_new(struct lineage *lin, uint64_t id, const struct volume_format *f);
void volume_state_free(struct volume_state *vol);
/* Adds an image before the lineage is started. */
struct volume_state *lineage_add_volume(struct lineage *lin, uint64_t id, const struct volume_format *f);
/* Checkpoint (unless abandoned) and stop. No request is in flight. Fiber of the home loop. */
int lineage_close(struct lineage *lin, bool abandon);
/* Fiber of the pool's loop; closed, or never started. */
void lineage_free(struct lineage *lin);
/* The image is one of the lineage from here on, until it is freed. */
void lineage_link(struct lineage *lin, struct volume_state *vol);
struct volume_state *lineage_find_volume(const struct lineage *lin, uint32_t number);
/* A fiber that lineage_close waits for. 0 or -ENOMEM. */
int lineage_fiber(struct lineage *lin, void (*fn)(void *arg), void *arg) __attribute__((warn_unused_result));
/* The last act of such a fiber. */
void lineage_fiber_end(struct lineage *lin);
/* Runs one request of our own and waits. Fiber of the home loop. */
int lineage_request(struct volume_state *vol, enum vio_op op, uint64_t off_bytes, uint64_t len_bytes);

/* One lineage of the pool cleans at a time. Others that asked meanwhile are told (squeezed) when it is done. Any loop. */
bool volumes_may_clean(struct volumes *vols, struct lineage *lin);
void volumes_cleaned(struct volumes *vols, struct lineage *lin);
bool volumes_cleaner_awaited(const struct volumes *vols);
/* The pool is full: every lineage looks for space. Any loop. */
void volumes_squeeze(struct volumes *vols);
const struct volumes_opts *volumes_options(const struct volumes *vols);

#endif
