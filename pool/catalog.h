/* The pool's catalog: a small, transactional directory of objects, replicated on every disk.
 *
 * An object is {kind, id} -> up to CATALOG_OBJ_MAX bytes of payload whose meaning belongs to the layer that owns the kind
 * (pool: disks, segments; volumes: lineages, volumes; ...). A transaction puts and deletes objects atomically and durably:
 * when catalog_commit returns 0, it has been written and flushed on every disk in use. All objects are in memory.
 *
 * On disk each disk has two halves; a half is [checkpoint | journal]. A checkpoint is one big transaction that starts
 * from nothing; the journal that follows holds later transactions with consecutive sequence numbers. When a journal is
 * full, the other half gets a new checkpoint of the next generation. Loading takes, over all disks, the newest valid
 * checkpoint with the longest valid journal. Format: pool/catalog_format.h.
 *
 * Thread: the pool's loop; functions marked "waits" from fibers only. */
#ifndef POOL_CATALOG_H
#define POOL_CATALOG_H

#include <stdbool.h>
#include <stdint.h>

#include "pool/base/err.h"

#define CATALOG_OBJ_MAX 2048

/* X(name, number, what) */
#define CATALOG_KINDS(X) \
	X(POOL, 1, "pool properties (pool)") \
	X(DISK, 2, "disk of the pool (pool)") \
	X(SEGMENT, 3, "segment and its zones; id = grant number (pool)") \
	X(LINEAGE, 4, "lineage: policy, checkpoint (volumes)") \
	X(VOLUME, 5, "volume: name, size, flags (volumes)") \
	X(MAP, 6, "map root of a volume, same id (volumes)") \
	X(EPOCH, 7, "who may write a volume, same id (volumes)")

enum catalog_kind {
#define X(name, number, what) CAT_##name = number,
	CATALOG_KINDS(X)
#undef X
};

struct catalog;

struct cat_obj {
	enum catalog_kind kind;
	uint64_t id;                     /* < 2^56 */
	uint32_t len_bytes;
	const void *data;
};

/* A transaction being built: an owned, growing buffer. Any thread may build one. */
struct cat_txn {
	uint8_t *buf;
	uint32_t len_bytes, cap_bytes;
	int error;                       /* first -ENOMEM, reported by commit */
};
void cat_txn_init(struct cat_txn *txn);
void cat_txn_release(struct cat_txn *txn);
void cat_put(struct cat_txn *txn, enum catalog_kind kind, uint64_t id, const void *data, uint32_t len_bytes);
void cat_del(struct cat_txn *txn, enum catalog_kind kind, uint64_t id);

/* NULL if absent. Valid until the object is next changed. */
const struct cat_obj *catalog_get(const struct catalog *cat, enum catalog_kind kind, uint64_t id);
/* First object of the kind with id >= from, NULL at the end: for (o = next(c, k, 0); o; o = next(c, k, o->id + 1)). */
const struct cat_obj *catalog_next(const struct catalog *cat, enum catalog_kind kind, uint64_t from);
/* A number never handed out before in this pool's life (as far as any durable transaction knows). */
uint64_t catalog_new_id(struct catalog *cat);
/* Waits. -ENOSPC: the catalog is full (it still takes what makes it no larger); -ENOMEM: nothing has changed; -EIO: a disk
 * failed: the transaction turns up at the next import wholly or not at all, and until then the catalog takes no other. */
int catalog_commit(struct catalog *cat, struct cat_txn *txn) __attribute__((warn_unused_result));

#endif
