/* The pool's face: making, opening, closing and growing pools, and what they say of themselves.
 *
 * Create: check everything, wipe the disks' ends and catalogs, write an empty catalog that names the disks, and last the
 * labels: there is no pool before the last label. Import is in import.c.
 *
 * Add: the new disk gets its label first; then a transaction on the old disks makes it a member; then a checkpoint on all
 * disks brings it the catalog. Crash before the transaction: the old disks are the pool, and a disk with a label but no
 * membership is refused. Crash after it: the new disk is needed, and the next import brings it the catalog.
 *
 * Always holds: pool->disks[id] is set before anything on that disk is granted and never changes until pool_close. */
#include "pool/pool.h"

#include <errno.h>
#include <string.h>

#include "pool/base/mem.h"
#include "pool/pool_int.h"
#include "pool/segment_format.h"

/* --- life ------------------------------------------------------------------------------------------------------- */

int pool_new(const struct uuid *uuid, const char *name, uint32_t zone_bytes, struct pool **out)
{
	struct pool *pool = mem_zalloc(sizeof(*pool));

	if (!pool)
		return -ENOMEM;
	if (catalog_new(uuid, &pool->catalog)) {
		mem_free(pool);
		return -ENOMEM;
	}
	catalog_set_hooks(pool->catalog, segments_changed, pool_lost, pool);
	pool->loop = loop_self();
	pool->uuid = *uuid;
	memcpy(pool->name, name, strlen(name) + 1);
	pool->zone_bytes = zone_bytes;
	pool->cols_max = 1;
	zones_init(&pool->zones);
	omap_init(&pool->owners, sizeof(void *));
	list_init(&pool->watches);
	fmutex_init(&pool->admin_lock);
	*out = pool;
	return 0;
}

void pool_free(struct pool *pool)
{
	if (!pool)
		return;
	catalog_free(pool->catalog);
	segments_release(pool);
	zones_release(&pool->zones);
	rows_release(pool);
	for (uint32_t id = 0; id < POOL_DISKS_MAX; id++)
		mem_free(pool->disks[id]);
	for (uint32_t i = 0; i < pool->removed_count; i++)
		mem_free(pool->removed[i]);
	mem_free(pool);
}

void pool_set_use(struct pool *pool, uint32_t disk_id)
{
	const struct pool_disk *pd = pool->disks[disk_id];

	zones_set_in_use(&pool->zones, disk_id,
			 !atomic_load(&pd->failed) && !(atomic_load(&pd->flags) & (DISK_GOES | DISK_SPARE)));
}

/* The number of a domain is that of its first disk. */
static void number_domains(struct pool *pool)
{
	for (uint32_t id = 0; id < POOL_DISKS_MAX; id++)
		for (uint32_t first = 0; first <= id && pool->disks[id]; first++)
			if (pool->disks[first] && !strcmp(pool->disks[first]->domain, pool->disks[id]->domain)) {
				zones_set_domain(&pool->zones, id, first);
				break;
			}
}

/* A disk's part of the pool, allocated but not yet visible. */
struct joiner {
	struct pool_disk *pd;
	uint64_t *bitmap;
};

static int joiner_init(struct joiner *joiner, struct disk *disk, const struct label *label)
{
	joiner->pd = mem_zalloc(sizeof(*joiner->pd));
	joiner->bitmap = zones_bitmap_new(label->zone_count);
	if (!joiner->pd || !joiner->bitmap) {
		mem_free(joiner->pd);
		mem_free(joiner->bitmap);
		return -ENOMEM;
	}
	joiner->pd->disk = disk;
	joiner->pd->label = *label;
	if (disk)
		pool_default_domain(disk, joiner->pd->domain);
	return 0;
}

static void joiner_release(struct joiner *joiner)
{
	mem_free(joiner->pd);
	mem_free(joiner->bitmap);
}

/* disk_expendable.can_do_without: whoever sees its I/O fail goes on without the disk. */
static bool can_do_without(void *arg, struct disk *disk)
{
	const struct pool *pool = arg;
	uint64_t grant;

	for (uint32_t id = 0; id < POOL_DISKS_MAX; id++) {
		const struct pool_disk *pd = pool->disks[id];

		if (!pd || pd->disk != disk)
			continue;
		return atomic_load(&pd->failed) ||
		       (pool_losses(pool) < pool->losses_max && segments_whole_without(pool, id, &grant));
	}
	return true;
}

static void joiner_join(struct joiner *joiner, struct pool *pool)
{
	const struct label *label = &joiner->pd->label;

	assert(!pool->disks[label->disk_id]);
	pool->disks[label->disk_id] = joiner->pd;
	pool->disk_count++;
	zones_add_disk(&pool->zones, label->disk_id, label->zone_count, joiner->bitmap);
	number_domains(pool);
	pool_set_use(pool, label->disk_id);
	if (joiner->pd->disk)
		disk_set_expendable(joiner->pd->disk, &(struct disk_expendable){ can_do_without, pool });
}

int pool_attach(struct pool *pool, struct disk *disk, const struct label *label)
{
	struct joiner joiner;
	int ret = joiner_init(&joiner, disk, label);

	if (ret)
		return ret;
	ret = catalog_attach(pool->catalog, disk, label->half, &joiner.pd->failed);
	if (ret) {
		joiner_release(&joiner);
		return ret;
	}
	joiner_join(&joiner, pool);
	return 0;
}

int pool_attach_missing(struct pool *pool, const struct label *label)
{
	struct joiner joiner;
	int ret = joiner_init(&joiner, NULL, label);

	if (ret)
		return ret;
	atomic_store(&joiner.pd->failed, true);
	joiner_join(&joiner, pool);
	return 0;
}

void pool_put_disk_object(struct cat_txn *txn, const struct pool_disk *pd, enum pool_disk_state state, uint32_t flags,
			  const struct cat_stamp *left)
{
	const struct label *label = &pd->label;
	struct disk_payload payload = {
		.disk_bytes = le64_of(label->disk_bytes),
		.zone_count = le32_of(label->zone_count),
		.state = le32_of(state),
		.left_generation = le64_of(left ? left->generation : 0),
		.left_stamp = le64_of(left ? left->stamp : 0),
		.flags = le32_of(flags),
	};

	memcpy(payload.uuid, label->disk_uuid.b, sizeof(payload.uuid));
	memcpy(payload.domain, pd->domain, sizeof(payload.domain));
	cat_put(txn, CAT_DISK, label->disk_id, &payload, sizeof(payload));
}

void pool_note_disk_object(struct pool *pool, struct pool_disk *pd, const struct disk_payload *payload)
{
	pd->state = le32_get(payload->state);
	atomic_store(&pd->flags, le32_get(payload->flags));
	memcpy(pd->domain, payload->domain, sizeof(pd->domain));
	number_domains(pool);
	pool_set_use(pool, pd->label.disk_id);
}

void pool_default_domain(const struct disk *disk, char domain[DISK_DOMAIN_BYTES])
{
	const char *host = disk->uri ? strstr(disk->uri, "://") : NULL;
	const char *user = host ? strchr(host, '@') : NULL;
	size_t len;

	host = user ? user + 1 : host ? host + 3 : "";
	len = strcspn(host, "/:?");
	if (host[0] == '[')
		len = strcspn(host, "]");
	memset(domain, 0, DISK_DOMAIN_BYTES);
	if (len == 0)
		memcpy(domain, "local", 5);
	else
		memcpy(domain, host, len < DISK_DOMAIN_BYTES ? len : DISK_DOMAIN_BYTES - 1);
}

void pool_close(struct pool *pool)
{
	struct disk *disks[POOL_DISKS_MAX], *removed[POOL_DISKS_MAX];
	uint32_t count = 0, removed_count = 0;

	/* A commit may still be on its way for somebody who no longer waits for it. */
	fmutex_lock(&pool->catalog->commit_lock);
	fmutex_unlock(&pool->catalog->commit_lock);
	for (uint32_t id = 0; id < POOL_DISKS_MAX; id++)
		if (pool->disks[id] && pool->disks[id]->disk)
			disks[count++] = pool->disks[id]->disk;
	for (uint32_t i = 0; i < pool->removed_count; i++)
		if (pool->removed[i]->disk)
			removed[removed_count++] = pool->removed[i]->disk;
	pool_free(pool);
	for (uint32_t i = 0; i < count; i++)
		disk_close(disks[i]);
	for (uint32_t i = 0; i < removed_count; i++)
		disk_close(removed[i]);
}

/* On failure some disks may still carry labels; the pool stays open. */
int pool_destroy(struct pool *pool, struct err *err)
{
	for (uint32_t id = 0; id < POOL_DISKS_MAX; id++) {
		struct pool_disk *pd = pool->disks[id];
		int ret = pd && pd->disk ? label_wipe(pd->disk, err) : 0;

		if (ret)
			return err_prefix(err, ret, "cannot destroy pool '%s': disk '%s'", pool->name, pd->disk->uri);
	}
	pool_close(pool);
	return 0;
}

/* --- create ------------------------------------------------------------------------------------------------------ */

int pool_check_takeable(struct disk *disk, struct err *err)
{
	struct disk_probe probe;
	int ret = pool_probe_disk(disk, &probe, err);

	if (ret)
		return ret;
	if (probe.labelled)
		return err_set(err, -EEXIST, "it belongs to pool '%s' (use --force to take it)", probe.pool_name);
	if (probe.foreign[0])
		return err_set(err, -EEXIST, "it holds %s data (use --force to overwrite it)", probe.foreign);
	return 0;
}

static bool zone_bytes_valid(uint32_t zone_bytes)
{
	return zone_bytes >= ZONE_BYTES_MIN && zone_bytes <= ZONE_BYTES_MAX && (zone_bytes & (zone_bytes - 1)) == 0;
}

static int check_opts(const struct pool_create_opts *opts, uint32_t disk_count, struct err *err)
{
	if (!name_is_valid(opts->name))
		return err_set(err, -EINVAL,
			       "'%.80s' is no name: use 1 to %d of A-Z a-z 0-9 . _ -, not beginning with . or -",
			       opts->name, POOL_NAME_MAX);
	if (opts->zone_bytes && !zone_bytes_valid(opts->zone_bytes))
		return err_set(err, -EINVAL, "zone size %u is not a power of two from %u to %u", opts->zone_bytes,
			       ZONE_BYTES_MIN, ZONE_BYTES_MAX);
	if (disk_count == 0 || disk_count > POOL_DISKS_MAX)
		return err_set(err, -EINVAL, "a pool has 1 to %d disks, not %u", POOL_DISKS_MAX, disk_count);
	return 0;
}

static uint32_t smallest_zone_bytes(struct disk **disks, uint32_t disk_count)
{
	uint64_t smallest = UINT64_MAX;

	for (uint32_t i = 0; i < disk_count; i++)
		smallest = disks[i]->size_bytes < smallest ? disks[i]->size_bytes : smallest;
	return label_default_zone_bytes(smallest);
}

static int check_new_disk(struct disk **disks, uint32_t i, uint32_t zone_bytes, bool force, struct err *err)
{
	struct label label;
	int ret;

	for (uint32_t j = 0; j < i; j++)
		if (disks[i] == disks[j])
			return err_set(err, -EINVAL, "it is named twice");
	ret = label_layout(&label, disks[i]->size_bytes, zone_bytes, err);
	if (!ret && !force)
		ret = pool_check_takeable(disks[i], err);
	return ret;
}

static void label_fill(struct label *label, const struct pool *pool, uint32_t disk_id, uint32_t disk_count)
{
	memset(label, 0, sizeof(*label));
	label->pool_uuid = pool->uuid;
	label->disk_uuid = uuid_new(pool->loop);
	memcpy(label->pool_name, pool->name, sizeof(label->pool_name));
	label->generation = 1;
	label->disk_id = disk_id;
	label->disk_count = disk_count;
}

static int create_attach(struct pool *pool, struct disk **disks, uint32_t disk_count, struct err *err)
{
	for (uint32_t i = 0; i < disk_count; i++) {
		struct label label;
		int ret;

		label_fill(&label, pool, i, disk_count);
		ret = label_layout(&label, disks[i]->size_bytes, pool->zone_bytes, err);
		if (ret)
			return ret;
		if (pool_attach(pool, disks[i], &label))
			return err_set(err, -ENOMEM, "out of memory");
	}
	return 0;
}

/* Makes the ends of a disk and its catalog areas empty. */
static int wipe_disk(struct disk *disk, const struct label *label, struct err *err)
{
	int ret = label_wipe(disk, err);

	if (ret)
		return ret;
	ret = catalog_wipe_disk(disk, label->half);
	return ret ? err_set(err, ret, "cannot wipe the catalog: %s", strerror(-ret)) : 0;
}

static int create_catalog(struct pool *pool, struct err *err)
{
	struct cat_txn txn;
	int ret = catalog_format(pool->catalog);

	cat_txn_init(&txn);
	for (uint32_t id = 0; id < pool->disk_count; id++)
		pool_put_disk_object(&txn, pool->disks[id], DISK_ONLINE, 0, NULL);
	if (!ret)
		ret = catalog_commit(pool->catalog, &txn);
	cat_txn_release(&txn);
	return ret ? err_set(err, ret, "cannot write the catalog: %s", strerror(-ret)) : 0;
}

static int create_write(struct pool *pool, struct err *err)
{
	int ret;

	for (uint32_t id = 0; id < pool->disk_count; id++) {
		ret = wipe_disk(pool->disks[id]->disk, &pool->disks[id]->label, err);
		if (ret)
			return err_prefix(err, ret, "disk '%s'", pool->disks[id]->disk->uri);
	}
	ret = create_catalog(pool, err);
	for (uint32_t id = 0; id < pool->disk_count && !ret; id++) {
		ret = label_write(pool->disks[id]->disk, &pool->disks[id]->label, err);
		if (ret)
			err_prefix(err, ret, "disk '%s'", pool->disks[id]->disk->uri);
	}
	return ret;
}

int pool_create(const struct pool_create_opts *opts, struct disk **disks, uint32_t disk_count, struct pool **out,
		struct err *err)
{
	struct uuid uuid = uuid_new(loop_self());
	struct pool *pool = NULL;
	uint32_t zone_bytes;
	int ret = check_opts(opts, disk_count, err);

	if (ret)
		return err_prefix(err, ret, "cannot create pool");
	zone_bytes = opts->zone_bytes ? opts->zone_bytes : smallest_zone_bytes(disks, disk_count);
	for (uint32_t i = 0; i < disk_count; i++) {
		ret = check_new_disk(disks, i, zone_bytes, opts->force, err);
		if (ret)
			return err_prefix(err, ret, "cannot use disk '%s'", disks[i]->uri);
	}
	if (pool_new(&uuid, opts->name, zone_bytes, &pool))
		return err_set(err, -ENOMEM, "cannot create pool '%s': out of memory", opts->name);
	ret = create_attach(pool, disks, disk_count, err);
	if (!ret)
		ret = create_write(pool, err);
	if (ret) {
		pool_free(pool);
		return err_prefix(err, ret, "cannot create pool '%s'", opts->name);
	}
	*out = pool;
	return 0;
}

/* --- add a disk ---------------------------------------------------------------------------------------------------- */

static bool is_member(const struct pool *pool, const struct disk *disk, const struct label *label)
{
	for (uint32_t id = 0; id < POOL_DISKS_MAX; id++) {
		const struct pool_disk *pd = pool->disks[id];

		if (pd && (pd->disk == disk || (label && uuid_equal(&pd->label.disk_uuid, &label->disk_uuid))))
			return true;
	}
	return false;
}

static int check_addable(struct pool *pool, struct disk *disk, bool force, struct err *err)
{
	struct label label;
	struct err label_err;
	int ret = label_read(disk, &label, &label_err);
	bool labelled = ret == 0;

	if (ret && ret != -ENOENT && ret != -EUCLEAN && ret != -EOPNOTSUPP)
		return err_set(err, ret, "%s", label_err.msg);
	if (pool->disk_count == POOL_DISKS_MAX)
		return err_set(err, -EINVAL, "a pool has at most %d disks", POOL_DISKS_MAX);
	if (is_member(pool, disk, labelled ? &label : NULL))
		return err_set(err, -EEXIST, "it is a disk of this pool already");
	return force ? 0 : pool_check_takeable(disk, err);
}

/* Tells the other disks' labels the new number of disks. Only probes read it, so a label that is not written does no harm;
 * but a flush that failed may have lost what somebody else had written, and nobody else will be told. */
static void refresh_disk_counts(struct pool *pool)
{
	for (uint32_t id = 0; id < POOL_DISKS_MAX; id++) {
		struct pool_disk *pd = pool->disks[id];
		struct err ignored;

		if (!pd || atomic_load(&pd->failed) || pd->label.disk_count == pool->disk_count)
			continue;
		pd->label.disk_count = pool->disk_count;
		pd->label.generation++;
		if (label_write(pd->disk, &pd->label, &ignored) < 0)
			atomic_store(&pd->failed, true);
	}
}

static int admit(struct pool *pool, struct joiner *joiner, uint32_t flags, struct err *err)
{
	struct pool_disk *pd = joiner->pd;
	struct cat_txn txn;
	int ret;

	cat_txn_init(&txn);
	pool_put_disk_object(&txn, pd, DISK_ONLINE, flags, NULL);
	ret = catalog_admit(pool->catalog, pd->disk, pd->label.half, &pd->failed, &txn);
	cat_txn_release(&txn);
	if (ret == -ENOSPC)
		return err_set(err, ret, "it is too small for the catalog of this pool");
	return ret ? err_set(err, ret, "cannot write the catalog: %s", strerror(-ret)) : 0;
}

/* Numbers go up; one that was removed is used again only when there is no other. */
static uint32_t free_disk_id(const struct pool *pool)
{
	uint32_t id = POOL_DISKS_MAX;

	while (id > 0 && !pool->disks[id - 1])
		id--;
	for (uint32_t i = 0; id == POOL_DISKS_MAX; i++)
		if (!pool->disks[i])
			return i;
	return id;
}

static bool domain_is_valid(const char *domain)
{
	size_t len = strlen(domain);

	for (size_t i = 0; i < len; i++)
		if (domain[i] <= ' ' || domain[i] > '~')
			return false;
	return len > 0 && len < DISK_DOMAIN_BYTES;
}

int pool_set_domain(struct pool_disk *pd, const char *domain, struct err *err)
{
	if (!domain_is_valid(domain))
		return err_set(err, -EINVAL, "'%.80s' is no failure domain: use 1 to %d printable characters without spaces",
			       domain, DISK_DOMAIN_BYTES - 1);
	memset(pd->domain, 0, sizeof(pd->domain));
	memcpy(pd->domain, domain, strlen(domain));
	return 0;
}

static int add_disk(struct pool *pool, struct disk *disk, const struct pool_add_opts *opts, struct err *err)
{
	uint32_t flags = opts->spare ? DISK_SPARE : 0;
	struct label label;
	struct joiner joiner;
	int ret = check_addable(pool, disk, opts->force, err);

	if (ret)
		return ret;
	label_fill(&label, pool, free_disk_id(pool), pool->disk_count + 1);
	ret = label_layout(&label, disk->size_bytes, pool->zone_bytes, err);
	if (ret)
		return ret;
	if (joiner_init(&joiner, disk, &label))
		return err_set(err, -ENOMEM, "out of memory");
	if (opts->domain)
		ret = pool_set_domain(joiner.pd, opts->domain, err);
	if (!ret)
		ret = wipe_disk(disk, &label, err);
	if (!ret)
		ret = label_write(disk, &label, err);
	if (!ret)
		ret = admit(pool, &joiner, flags, err);
	if (ret) {
		joiner_release(&joiner);
		return ret;
	}
	atomic_store(&joiner.pd->flags, flags);
	joiner_join(&joiner, pool);
	refresh_disk_counts(pool);
	return 0;
}

int pool_add_disk(struct pool *pool, struct disk *disk, const struct pool_add_opts *opts, struct err *err)
{
	int ret;

	fmutex_lock(&pool->admin_lock);
	ret = add_disk(pool, disk, opts, err);
	fmutex_unlock(&pool->admin_lock);
	if (!ret)
		segments_tell_watches(pool);
	return ret ? err_prefix(err, ret, "cannot add disk '%s' to pool '%s'", disk->uri, pool->name) : 0;
}

/* --- what it says ---------------------------------------------------------------------------------------------------- */

const char *pool_name(const struct pool *pool)
{
	return pool->name;
}

const struct uuid *pool_uuid(const struct pool *pool)
{
	return &pool->uuid;
}

struct loop *pool_loop(const struct pool *pool)
{
	return pool->loop;
}

struct catalog *pool_catalog(struct pool *pool)
{
	return pool->catalog;
}

static uint32_t count_domains(const struct pool *pool)
{
	uint32_t count = 0;

	for (uint32_t id = 0; id < POOL_DISKS_MAX; id++)
		count += pool->disks[id] && pool->zones.disks[id].domain == id;
	return count;
}

static bool is_exposed(const struct pool *pool, const struct segment *segment)
{
	uint32_t n = segment->policy.k + segment->policy.m, have = 0;

	for (uint32_t c = 0; c < n; c++)
		have += rows_trusted_disk(pool, segment, c) != NULL;
	for (uint32_t a = 0; a < n; a++) {
		uint32_t together = 0;

		for (uint32_t b = 0; b < n && rows_trusted_disk(pool, segment, a); b++)
			together += rows_trusted_disk(pool, segment, b) &&
				    pool->zones.disks[segment->cols[a].disk_id].domain ==
					    pool->zones.disks[segment->cols[b].disk_id].domain;
		if (have - together < segment->policy.k)
			return true;
	}
	return false;
}

uint64_t pool_count_exposed(const struct pool *pool)
{
	struct segment segment;
	uint64_t count = 0;

	for (const struct cat_obj *obj = segments_next(pool, NULL, &segment); obj; obj = segments_next(pool, obj, &segment))
		count += segment.policy.m > 0 && is_exposed(pool, &segment);
	return count;
}

void pool_get_info(const struct pool *pool, struct pool_info *info)
{
	*info = (struct pool_info){
		.space_level = pool->space_level,
		.disk_count = pool->disk_count,
		.disks_in_use = zones_disks_in_use(&pool->zones),
		.zone_bytes = pool->zone_bytes,
		.zones = pool->zones.count,
		.zones_free = pool->zones.free,
		.zones_reserved = pool->zones.reserve,
		.segments = pool->segment_count,
		.catalog_objects = pool->catalog->count,
		.domains = count_domains(pool),
	};
	memcpy(info->space_changes, pool->space_changes, sizeof(info->space_changes));
}

static uint32_t nth_disk_id(const struct pool *pool, uint32_t i)
{
	uint32_t id = 0;

	assert(i < pool->disk_count);
	for (;; id++)
		if (pool->disks[id] && i-- == 0)
			return id;
}

static const char *disk_state_text(const struct pool_disk *pd)
{
	uint32_t flags = atomic_load(&pd->flags);

	if (!pd->disk)
		return "missing";
	if (atomic_load(&pd->failed))
		return pd->state == DISK_OFFLINE ? "offline" : "failed";
	return flags & DISK_SPARE ? "spare" : flags & DISK_GOES ? "draining" : "online";
}

void pool_get_disk_info(const struct pool *pool, uint32_t i, struct pool_disk_info *info)
{
	uint32_t id = nth_disk_id(pool, i);
	const struct pool_disk *pd = pool->disks[id];
	const char *away = pd->disk ? disk_away(pd->disk) : NULL;

	*info = (struct pool_disk_info){
		.uri = pd->disk ? pd->disk->uri : "",
		.id = id,
		.uuid = pd->label.disk_uuid,
		.state = away && strcmp(disk_state_text(pd), "online") == 0 ? "away" : disk_state_text(pd),
		.why = away,
		.domain = pd->domain,
		.out = atomic_load(&pd->failed),
		.failed = atomic_load(&pd->failed) && pd->state != DISK_OFFLINE,
		.goes = atomic_load(&pd->flags) & DISK_GOES,
		.columns = pool->zones.disks[id].count - pool->zones.disks[id].free,
		.mended_blocks = atomic_load(&pd->mended_blocks),
		.size_bytes = pd->label.disk_bytes,
		.zones = pool->zones.disks[id].count,
		.zones_free = pool->zones.disks[id].free,
	};
	if (pd->disk)
		disk_counters_sum(pd->disk, &info->counters);
}
