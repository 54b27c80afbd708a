/* The directory of volumes: catalog objects, handles, management, and the loops on which lineages live.
 *
 * Everything runs on the pool's loop under one lock, and goes to a lineage's home loop by fiber_call_on. A change is
 * first durable in the catalog and then takes effect. A volume that shrinks carries the mark "trim pending" until what was
 * beyond its end is unmapped; after a crash in between the next resize finishes that first, so old data never shows. */
#include "volumes/volume.h"

#include <errno.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "pool/base/mem.h"
#include "volumes/lineage.h"

#define OPEN_FIBERS_MAX 64u
#define CALL_RETRY_NS (10ull * 1000 * 1000)

struct volumes {
	struct pool *pool;
	struct volumes_opts opts;
	struct loop *loop;
	struct vloop *vloops;
	uint32_t next_home;
	struct list lineages;
	struct list volumes;             /* struct volume_state by dir */
	struct fmutex lock;
	struct task squeeze;
	_Atomic bool squeeze_queued;
	struct lineage *_Atomic cleaner; /* the one that cleans */
	_Atomic bool cleaners_wait;
};

const struct volumes_opts *volumes_options(const struct volumes *vols)
{
	return &vols->opts;
}

/* --- a full pool -------------------------------------------------------------------------------------------- */

static void squeeze_all(struct task *task)
{
	struct volumes *vols = container_of(task, struct volumes, squeeze);

	vols->squeeze_queued = false;
	list_for_each(node, &vols->lineages) {
		struct lineage *lin = list_entry(node, struct lineage, node);

		if (!atomic_exchange(&lin->squeeze_queued, true))
			loop_send(lin->loop, &lin->squeeze);
	}
}

void volumes_squeeze(struct volumes *vols)
{
	if (!atomic_exchange(&vols->squeeze_queued, true))
		loop_send(vols->loop, &vols->squeeze);
}

bool volumes_may_clean(struct volumes *vols, struct lineage *lin)
{
	struct lineage *none = NULL;

	if (atomic_compare_exchange_strong(&vols->cleaner, &none, lin))
		return true;
	vols->cleaners_wait = true;
	return false;
}

bool volumes_cleaner_awaited(const struct volumes *vols)
{
	return vols->cleaners_wait;
}

void volumes_cleaned(struct volumes *vols, struct lineage *lin)
{
	vols->cleaner = NULL;
	if (atomic_exchange(&vols->cleaners_wait, false))
		volumes_squeeze(vols);
}

/* --- catalog objects ---------------------------------------------------------------------------------------- */

static int put_volume(struct volumes *vols, const struct volume_state *vol, const char *name, uint64_t size_bytes,
		      uint32_t flags)
{
	struct volume_format f = {
		.version = le32_of(1),
		.number = le32_of(vol->number),
		.lineage = le64_of(vol->lin->id),
		.size_bytes = le64_of(size_bytes),
		.created_s = le64_of(vol->created_s),
		.flags = le32_of(flags),
		.of = le32_of(vol->of),
		.origin = le32_of(vol->origin),
		.fork_birth = le32_of(vol->fork_birth),
		.fork_seq = le64_of(vol->fork_seq),
	};
	struct cat_txn txn;
	int rc;

	memcpy(f.name, name, strlen(name));
	cat_txn_init(&txn);
	cat_put(&txn, CAT_VOLUME, vol->id, &f, sizeof(f));
	rc = pool_commit(vols->pool, &txn);
	cat_txn_release(&txn);
	return rc;
}

static bool volume_format_valid(const struct cat_obj *obj)
{
	const struct volume_format *f = obj->data;
	char name[POOL_NAME_MAX + 1] = { 0 };

	if (obj->len_bytes != sizeof(*f) || le32_get(f->version) != 1)
		return false;
	memcpy(name, f->name, POOL_NAME_MAX);
	return name_is_valid(name) && le64_get(f->size_bytes) > 0 && le64_get(f->size_bytes) <= VOLUME_SIZE_MAX &&
	       le64_get(f->size_bytes) % BLOCK_BYTES == 0;
}

static bool lineage_format_valid(const struct cat_obj *obj)
{
	const struct lineage_format *f = obj->data;

	return obj->len_bytes == sizeof(*f) && le32_get(f->version) == 1 && f->k > 0 &&
	       f->k + f->m <= SEGMENT_COLS_MAX && le64_get(f->seq) > 0;
}

static int commit_error(struct err *err, int rc, const char *what, const char *name)
{
	return err_set(err, rc, "cannot %s '%s': %s", what, name,
		       rc == -ENOSPC ? "the pool's catalog is full" :
		       rc == -ENOMEM ? "out of memory" : "the catalog cannot be written");
}

/* --- loops -------------------------------------------------------------------------------------------------- */

struct vloop_call {
	struct vloop *vl;
	uint64_t cache_bytes;
};

static int vloop_start(void *arg)
{
	struct vloop_call *call = arg;

	list_init(&call->vl->free_batches);
	list_init(&call->vl->free_reads);
	list_init(&call->vl->starved);
	return nodecache_init(&call->vl->cache, call->cache_bytes);
}

static int vloop_stop(void *arg)
{
	io_release_loop(arg);
	return 0;
}

static void stop_loops(struct volumes *vols, uint32_t count)
{
	for (uint32_t i = 0; i < count; i++)
		(void)!fiber_call_on(vols->vloops[i].loop, vloop_stop, &vols->vloops[i]);
}

static int start_loops(struct volumes *vols)
{
	for (uint32_t i = 0; i < vols->opts.loop_count; i++) {
		struct vloop_call call = { &vols->vloops[i], vols->opts.map_cache_bytes };
		int rc;

		vols->vloops[i].loop = vols->opts.loops[i];
		rc = fiber_call_on(vols->opts.loops[i], vloop_start, &call);
		if (rc < 0) {
			stop_loops(vols, i);
			return rc;
		}
	}
	return 0;
}

static struct vloop *choose_home(struct volumes *vols)
{
	return &vols->vloops[vols->next_home++ % vols->opts.loop_count];
}

/* --- starting lineages -------------------------------------------------------------------------------------- */

struct segment_array {
	struct segment *v;
	uint32_t count, cap;
	int error;
};

static void collect_segment(void *arg, const struct segment *segment)
{
	struct segment_array *a = arg;

	if (a->count == a->cap) {
		uint32_t cap = a->cap ? a->cap * 2 : 16;
		struct segment *v = mem_alloc(cap * sizeof(*v));

		if (!v) {
			a->error = -ENOMEM;
			return;
		}
		if (a->count)
			memcpy(v, a->v, a->count * sizeof(*v));
		mem_free(a->v);
		a->v = v;
		a->cap = cap;
	}
	a->v[a->count++] = *segment;
}

struct start_call {
	struct lineage *lin;
	struct lineage_format f;
	struct segment_array segments;
	struct err err;
};

static int start_on_home(void *arg)
{
	struct start_call *call = arg;
	int rc = space_watch_add(call->lin->pool, &call->lin->space);

	if (rc == 0)
		rc = lineage_recover(call->lin, &call->f, call->segments.v, call->segments.count, &call->err);
	if (rc < 0)
		call->lin->failed = rc;
	else
		call->lin->running = true;
	return rc;
}

/* A lineage that cannot be recovered stays in the directory, failed, with the reason: it harms no other. */
static void start_lineage(struct lineage *lin, const struct lineage_format *f)
{
	struct start_call *call = mem_zalloc(sizeof(*call));
	int rc = -ENOMEM;

	if (call) {
		call->lin = lin;
		call->f = *f;
		segment_for_each(lin->pool, lin->id, collect_segment, &call->segments);
		rc = call->segments.error;
		if (rc == 0)
			rc = fiber_call_on(lin->loop, start_on_home, call);
		if (rc < 0)
			memcpy(lin->damage, call->err.msg, sizeof(lin->damage) - 1);
		mem_free(call->segments.v);
		mem_free(call);
	}
	if (rc < 0 && !lin->failed)
		lin->failed = rc;
	if (rc < 0 && !lin->damage[0])
		strcpy(lin->damage, "cannot be opened");
}

struct close_call {
	struct lineage *lin;
	bool abandon, closed;
	int res;
};

static int close_on_home(void *arg)
{
	struct close_call *call = arg;

	call->res = lineage_close(call->lin, call->abandon);
	call->closed = true;
	return 0;
}

static int stop_lineage(struct lineage *lin, bool abandon)
{
	struct close_call call = { .lin = lin, .abandon = abandon || lin->damage[0] };

	list_del(&lin->node);            /* no more squeezes from here on */
	while (fiber_call_on(lin->loop, close_on_home, &call) < 0 && !call.closed)
		fiber_sleep_ns(CALL_RETRY_NS); /* no memory for a fiber there */
	return call.res;
}

/* --- opening the directory ---------------------------------------------------------------------------------- */

/* Fibers that start lineages side by side. */
struct opener {
	struct volumes *vols;
	struct list todo;                /* lineages not yet started */
	uint32_t running;
	struct waitq done;
};

static void opener_fiber(void *arg)
{
	struct opener *o = arg;
	struct list *node;

	while ((node = list_pop_front(&o->todo))) {
		struct lineage *lin = list_entry(node, struct lineage, node);
		const struct cat_obj *obj = catalog_get(pool_catalog(o->vols->pool), CAT_LINEAGE, lin->id);
		struct lineage_format f = *(const struct lineage_format *)obj->data;

		list_push_back(&o->vols->lineages, &lin->node);
		start_lineage(lin, &f);
	}
	o->running--;
	waitq_wake_all(&o->done);
}

static void start_all(struct opener *o, uint32_t lineages)
{
	waitq_init(&o->done);
	while (o->running < OPEN_FIBERS_MAX && o->running < lineages) {
		o->running++;
		if (fiber_start(o->vols->loop, opener_fiber, o) < 0) {
			o->running--;
			break;
		}
	}
	if (o->running == 0) {           /* no memory for fibers: do it ourselves */
		o->running = 1;
		opener_fiber(o);
	}
	while (o->running > 0)
		waitq_wait(&o->done);
}

static int load_map_root(struct volumes *vols, struct volume_state *vol)
{
	const struct cat_obj *obj = catalog_get(pool_catalog(vols->pool), CAT_MAP, vol->id);
	const struct map_root_format *r;

	vol->fresh = !obj;
	if (!obj)
		return 0;
	r = obj->data;
	if (obj->len_bytes != sizeof(*r) || le32_get(r->height) > MAP_LEVELS_MAX)
		return -EINVAL;
	vol->root.height = le32_get(r->height);
	vol->root.ptr = (struct node_ptr){ le32_get(r->root.segno), le32_get(r->root.index), le32_get(r->root.crc) };
	vol->mapped_blocks = le64_get(r->mapped_blocks);
	return 0;
}

static struct lineage *find_in(struct list *lineages, uint64_t id)
{
	list_for_each(node, lineages) {
		struct lineage *lin = list_entry(node, struct lineage, node);

		if (lin->id == id)
			return lin;
	}
	return NULL;
}

static int load_lineages(struct volumes *vols, struct list *todo, uint32_t *count)
{
	struct catalog *cat = pool_catalog(vols->pool);

	for (const struct cat_obj *obj = catalog_next(cat, CAT_LINEAGE, 0); obj;
	     obj = catalog_next(cat, CAT_LINEAGE, obj->id + 1)) {
		const struct lineage_format *f = obj->data;
		struct lineage *lin;
		int rc;

		if (!lineage_format_valid(obj))
			return -EINVAL;
		rc = lineage_alloc(vols, vols->pool, choose_home(vols), obj->id, (struct policy){ f->k, f->m }, &lin);
		if (rc < 0)
			return rc;
		list_push_back(todo, &lin->node);
		(*count)++;
	}
	return 0;
}

static int load_volumes(struct volumes *vols, struct list *todo)
{
	struct catalog *cat = pool_catalog(vols->pool);

	for (const struct cat_obj *obj = catalog_next(cat, CAT_VOLUME, 0); obj;
	     obj = catalog_next(cat, CAT_VOLUME, obj->id + 1)) {
		const struct volume_format *f = obj->data;
		struct volume_state *vol;
		struct lineage *lin;
		int rc;

		if (!volume_format_valid(obj))
			return -EINVAL;
		lin = find_in(todo, le64_get(f->lineage));
		if (!lin || lineage_find_volume(lin, le32_get(f->number)))
			return -EINVAL;
		vol = lineage_add_volume(lin, obj->id, f);
		if (!vol)
			return -ENOMEM;
		list_push_back(&vols->volumes, &vol->dir);
		rc = load_map_root(vols, vol);
		if (rc < 0)
			return rc;
	}
	return 0;
}

static void free_lineages(struct list *lineages)
{
	while (!list_empty(lineages))
		lineage_free(list_entry(lineages->next, struct lineage, node));
}

static struct volumes *volumes_alloc(struct pool *pool, const struct volumes_opts *opts)
{
	struct volumes *vols = mem_zalloc(sizeof(*vols));

	if (!vols)
		return NULL;
	vols->pool = pool;
	vols->opts = *opts;
	vols->loop = pool_loop(pool);
	if (!vols->opts.map_cache_bytes)
		vols->opts.map_cache_bytes = MAP_CACHE_DEFAULT;
	if (!vols->opts.overlay_entries_max)
		vols->opts.overlay_entries_max = OVERLAY_ENTRIES_DEFAULT;
	if (!vols->opts.checkpoint_log_bytes)
		vols->opts.checkpoint_log_bytes = CHECKPOINT_LOG_DEFAULT;
	list_init(&vols->lineages);
	list_init(&vols->volumes);
	fmutex_init(&vols->lock);
	vols->squeeze.fn = squeeze_all;
	list_init(&vols->squeeze.node);
	vols->vloops = mem_zalloc(opts->loop_count * sizeof(*vols->vloops));
	if (vols->vloops)
		return vols;
	mem_free(vols);
	return NULL;
}

static void volumes_release(struct volumes *vols)
{
	mem_free(vols->vloops);
	mem_free(vols);
}

int volumes_open(struct pool *pool, const struct volumes_opts *opts, struct volumes **out, struct err *err)
{
	struct volumes *vols = volumes_alloc(pool, opts);
	struct opener opener = { .vols = vols };
	uint32_t count = 0;
	int rc;

	if (!vols)
		return err_set(err, -ENOMEM, "cannot open pool '%s': out of memory", pool_name(pool));
	list_init(&opener.todo);
	rc = start_loops(vols);
	if (rc < 0)
		goto fail_loops;
	rc = load_lineages(vols, &opener.todo, &count);
	if (rc == 0)
		rc = load_volumes(vols, &opener.todo);
	if (rc < 0)
		goto fail_load;
	if (count > 0)
		start_all(&opener, count);
	*out = vols;
	return 0;
fail_load:
	free_lineages(&opener.todo);
	stop_loops(vols, vols->opts.loop_count);
fail_loops:
	volumes_release(vols);
	return err_set(err, rc, "cannot open pool '%s': %s", pool_name(pool),
		       rc == -ENOMEM ? "out of memory" : "its directory of volumes is damaged");
}

void volumes_close(struct volumes *vols)
{
	fmutex_lock(&vols->lock);
	while (!list_empty(&vols->lineages)) {
		struct lineage *lin = list_entry(vols->lineages.next, struct lineage, node);

		(void)stop_lineage(lin, false); /* what is not checkpointed is in the log */
		lineage_free(lin);
	}
	while (vols->squeeze_queued)
		fiber_yield();
	stop_loops(vols, vols->opts.loop_count);
	volumes_release(vols);
}

/* --- finding ------------------------------------------------------------------------------------------------ */

static struct volume_state *find_volume(struct volumes *vols, const char *name)
{
	list_for_each(node, &vols->volumes) {
		struct volume_state *vol = list_entry(node, struct volume_state, dir);

		if (strcmp(vol->name, name) == 0)
			return vol;
	}
	return NULL;
}

static int need_volume(struct volumes *vols, const char *name, struct volume_state **vol, struct err *err)
{
	*vol = find_volume(vols, name);
	return *vol ? 0 : err_set(err, -ENOENT, "no volume '%s' in pool '%s'", name, pool_name(vols->pool));
}

static int check_new_name(struct volumes *vols, const char *name, struct err *err)
{
	if (!name_is_valid(name))
		return err_set(err, -EINVAL,
			       "bad volume name '%s': 1 to 64 of A-Z a-z 0-9 . _ - without a leading dot or dash", name);
	if (find_volume(vols, name))
		return err_set(err, -EEXIST, "volume '%s' exists in pool '%s'", name, pool_name(vols->pool));
	return 0;
}

static int check_size(uint64_t *size_bytes, struct err *err)
{
	if (*size_bytes == 0 || *size_bytes > VOLUME_SIZE_MAX)
		return err_set(err, -EINVAL, "bad volume size %llu: from 4 KiB to 1 PiB", (unsigned long long)*size_bytes);
	*size_bytes = (*size_bytes + BLOCK_BYTES - 1) / BLOCK_BYTES * BLOCK_BYTES;
	return 0;
}

/* --- create and delete -------------------------------------------------------------------------------------- */

static int commit_new(struct volumes *vols, const struct volume_state *vol, const struct lineage_format *lf,
		      const struct volume_format *vf)
{
	struct cat_txn txn;
	int rc;

	cat_txn_init(&txn);
	cat_put(&txn, CAT_LINEAGE, vol->lin->id, lf, sizeof(*lf));
	cat_put(&txn, CAT_VOLUME, vol->id, vf, sizeof(*vf));
	rc = pool_commit(vols->pool, &txn);
	cat_txn_release(&txn);
	return rc;
}

static int create_lineage(struct volumes *vols, const struct volume_create_opts *opts, uint64_t size_bytes,
			  struct err *err)
{
	struct policy policy = opts->policy.k ? opts->policy : (struct policy){ 1, 0 };
	struct volume_format vf = { .version = le32_of(1), .size_bytes = le64_of(size_bytes),
				    .created_s = le64_of(vols->loop->ops->wall_s(vols->loop)),
				    .origin = le32_of(NUMBER_NONE) };
	struct lineage_format lf = { .version = le32_of(1), .k = policy.k, .m = policy.m, .seq = le64_of(1),
				     .head_index = le32_of(UINT32_MAX), .birth = le32_of(1),
				     .live = { .segno = le32_of(SEGNO_NONE) },
				     .refs = { .segno = le32_of(SEGNO_NONE) },
				     .places = { .segno = le32_of(SEGNO_NONE) } };
	struct volume_state *vol;
	struct lineage *lin;
	int rc = lineage_alloc(vols, vols->pool, choose_home(vols), pool_new_id(vols->pool), policy, &lin);

	if (rc < 0)
		return err_set(err, rc, "cannot create volume '%s': out of memory", opts->name);
	vf.lineage = le64_of(lin->id);
	memcpy(vf.name, opts->name, strlen(opts->name));
	vol = lineage_add_volume(lin, pool_new_id(vols->pool), &vf);
	if (vol)
		vol->fresh = true;
	if (vol)
		start_lineage(lin, &lf); /* first all that needs memory */
	rc = vol ? lin->failed : -ENOMEM;
	if (rc == 0)
		rc = commit_new(vols, vol, &lf, &vf);
	if (rc < 0) {
		(void)stop_lineage(lin, true);
		lineage_free(lin);
		return commit_error(err, rc, "create volume", opts->name);
	}
	list_push_back(&vols->lineages, &lin->node);
	list_push_back(&vols->volumes, &vol->dir);
	return 0;
}

int volume_create(struct volumes *vols, const struct volume_create_opts *opts, struct err *err)
{
	uint64_t size_bytes = opts->size_bytes;
	int rc;

	fmutex_lock(&vols->lock);
	rc = check_new_name(vols, opts->name, err);
	if (rc == 0)
		rc = check_size(&size_bytes, err);
	if (rc == 0 && opts->policy.m > 0)
		rc = err_set(err, -EOPNOTSUPP, "only the policy 'plain' is supported so far");
	if (rc == 0)
		rc = create_lineage(vols, opts, size_bytes, err);
	fmutex_unlock(&vols->lock);
	return rc;
}

static void free_in_txn(void *arg, const struct segment *segment)
{
	segment_free_in(arg, segment->grant);
}

/* The volume, its lineage and all its segments go in one transaction. */
static int delete_lineage(struct volumes *vols, struct volume_state *vol, struct err *err)
{
	struct lineage *lin = vol->lin;
	struct cat_txn txn;
	int rc;

	(void)stop_lineage(lin, true);
	cat_txn_init(&txn);
	cat_del(&txn, CAT_VOLUME, vol->id);
	if (catalog_get(pool_catalog(vols->pool), CAT_MAP, vol->id))
		cat_del(&txn, CAT_MAP, vol->id);
	cat_del(&txn, CAT_LINEAGE, lin->id);
	segment_for_each(vols->pool, lin->id, free_in_txn, &txn);
	rc = pool_commit(vols->pool, &txn);
	cat_txn_release(&txn);
	if (rc == 0) {
		lineage_free(lin);
		return 0;
	}
	list_push_back(&vols->lineages, &lin->node);
	lin->failed = rc;
	strcpy(lin->damage, "closed: its deletion could not be written");
	return commit_error(err, rc, "delete volume", vol->name);
}

int volume_delete(struct volumes *vols, const char *name, struct err *err)
{
	struct volume_state *vol;
	int rc;

	fmutex_lock(&vols->lock);
	rc = need_volume(vols, name, &vol, err);
	if (rc == 0 && vol->opens > 0)
		rc = err_set(err, -EBUSY, "volume '%s' is in use: remove its exports first", name);
	if (rc == 0)
		rc = delete_lineage(vols, vol, err);
	fmutex_unlock(&vols->lock);
	return rc;
}

/* --- rename and resize -------------------------------------------------------------------------------------- */

int volume_rename(struct volumes *vols, const char *name, const char *new_name, struct err *err)
{
	struct volume_state *vol;
	int rc;

	fmutex_lock(&vols->lock);
	rc = need_volume(vols, name, &vol, err);
	if (rc == 0)
		rc = check_new_name(vols, new_name, err);
	if (rc == 0) {
		rc = put_volume(vols, vol, new_name, vol->size_bytes, vol->flags);
		if (rc < 0)
			commit_error(err, rc, "rename volume", name);
		else
			strcpy(vol->name, new_name);
	}
	fmutex_unlock(&vols->lock);
	return rc;
}

struct resize_call {
	struct volume_state *vol;
	uint64_t size_bytes;
};

static int resize_on_home(void *arg)
{
	struct resize_call *call = arg;
	struct volume_state *vol = call->vol;

	vol->size_bytes = call->size_bytes;
	list_for_each_safe(node, next, &vol->watches) {
		struct volume_watch *watch = list_entry(node, struct volume_watch, node);

		watch->resized(watch);
	}
	return 0;
}

/* Unmaps what is beyond the size, durably. */
static int trim_on_home(void *arg)
{
	struct volume_state *vol = arg;
	int rc = 0;

	if (vol->size_bytes < VOLUME_SIZE_MAX)
		rc = lineage_request(vol, VIO_DISCARD, vol->size_bytes, VOLUME_SIZE_MAX - vol->size_bytes);
	return rc < 0 ? rc : lineage_request(vol, VIO_FLUSH, 0, 0);
}

/* Finishes a trim that is pending: before that the volume must not grow. */
static int trim(struct volumes *vols, struct volume_state *vol, struct err *err)
{
	int rc = fiber_call_on(vol->lin->loop, trim_on_home, vol);

	if (rc < 0)
		return err_set(err, rc, "cannot give back the space beyond the end of volume '%s'; try again", vol->name);
	rc = put_volume(vols, vol, vol->name, vol->size_bytes, vol->flags & ~VOLUME_TRIM_PENDING);
	if (rc < 0)
		return commit_error(err, rc, "resize volume", vol->name);
	vol->flags &= ~VOLUME_TRIM_PENDING;
	return 0;
}

static int resize(struct volumes *vols, struct volume_state *vol, uint64_t size_bytes, struct err *err)
{
	struct resize_call call = { vol, size_bytes };
	uint32_t flags = vol->flags | (size_bytes < vol->size_bytes ? VOLUME_TRIM_PENDING : 0);
	int rc = put_volume(vols, vol, vol->name, size_bytes, flags);

	if (rc < 0)
		return commit_error(err, rc, "resize volume", vol->name);
	vol->flags = flags;
	rc = fiber_call_on(vol->lin->loop, resize_on_home, &call);
	if (rc < 0)
		return err_set(err, rc, "volume '%s' has its new size after the next import only: out of memory", vol->name);
	return flags & VOLUME_TRIM_PENDING ? trim(vols, vol, err) : 0;
}

int volume_resize(struct volumes *vols, const char *name, uint64_t size_bytes, struct err *err)
{
	struct volume_state *vol;
	int rc;

	fmutex_lock(&vols->lock);
	rc = need_volume(vols, name, &vol, err);
	if (rc == 0)
		rc = check_size(&size_bytes, err);
	if (rc == 0 && vol->lin->damage[0])
		rc = err_set(err, -EIO, "volume '%s' is damaged: %s", name, vol->lin->damage);
	if (rc == 0 && (vol->flags & VOLUME_TRIM_PENDING))
		rc = trim(vols, vol, err);
	if (rc == 0 && size_bytes != vol->size_bytes)
		rc = resize(vols, vol, size_bytes, err);
	fmutex_unlock(&vols->lock);
	return rc;
}

/* --- information -------------------------------------------------------------------------------------------- */

struct info_call {
	struct volume_state *vol;
	struct volume_info *info;
};

static int info_on_home(void *arg)
{
	const struct info_call *call = arg;
	const struct volume_state *vol = call->vol;
	const struct lineage *lin = vol->lin;
	struct volume_info *info = call->info;

	info->size_bytes = vol->size_bytes;
	info->mapped_blocks = vol->mapped_blocks;
	for (uint32_t i = 0; i < vol->layers; i++)
		info->mapped_blocks += vol->layer[i]->changes.items.count - vol->layer[i]->changes.holes;
	for (uint32_t i = 0; i < lin->segs_cap; i++)
		info->segments += lin->segs[i] && lseg_has_zones(lin->segs[i]);
	info->parked = lin->nospace && !list_empty(&lin->wait_writes);
	info->failed = lin->failed != 0;
	info->recovery_us = lin->recovery_us;
	info->counters = vol->counters;
	info->counters.data_bytes_written = lin->counters.data_bytes_written;
	info->counters.meta_bytes_written = lin->counters.meta_bytes_written;
	info->counters.batches = lin->counters.batches;
	info->counters.checkpoints = lin->counters.checkpoints;
	info->counters.cleaned_segments = lin->counters.cleaned_segments;
	info->counters.checksum_errors += lin->counters.checksum_errors;
	info->counters.map_cache_hits = lin->vl->cache.hits;
	info->counters.map_cache_misses = lin->vl->cache.misses;
	return 0;
}

/* Discards that are not merged yet make the count of mapped blocks too high: merge them. */
static int settle_on_home(void *arg)
{
	struct lineage *lin = arg;
	uint64_t holes = 0;

	list_for_each(node, &lin->volumes) {
		const struct volume_state *vol = list_entry(node, struct volume_state, node);

		for (uint32_t i = 0; i < vol->layers; i++)
			holes += vol->layer[i]->changes.holes;
	}
	return holes > 0 ? checkpoint_run(lin) : 0;
}

static int fill_info(struct volume_state *vol, struct volume_info *info)
{
	struct info_call call = { vol, info };

	*info = (struct volume_info){ .id = vol->id, .created_s = vol->created_s, .policy = vol->lin->policy,
				      .home = vol->lin->loop->index, .opens = vol->opens };
	strcpy(info->name, vol->name);
	return fiber_call_on(vol->lin->loop, info_on_home, &call);
}

static int by_name(const void *a, const void *b)
{
	const struct volume_state *const *x = a, *const *y = b;

	return strcmp((*x)->name, (*y)->name);
}

static struct volume_state **sorted_volumes(struct volumes *vols, uint32_t *count)
{
	struct volume_state **all;
	uint32_t n = 0;

	list_for_each(node, &vols->volumes)
		n++;
	all = mem_alloc((n + 1) * sizeof(struct volume_state *));
	if (!all)
		return NULL;
	n = 0;
	list_for_each(node, &vols->volumes)
		all[n++] = list_entry(node, struct volume_state, dir);
	qsort(all, n, sizeof(struct volume_state *), by_name);
	*count = n;
	return all;
}

int volume_for_each(struct volumes *vols, int (*fn)(void *arg, const struct volume_info *info), void *arg)
{
	struct volume_state **all;
	uint32_t count = 0;
	int rc;

	fmutex_lock(&vols->lock);
	all = sorted_volumes(vols, &count);
	rc = all ? 0 : -ENOMEM;
	for (uint32_t i = 0; i < count && rc == 0; i++) {
		struct volume_info info;

		rc = fill_info(all[i], &info);
		if (rc == 0)
			rc = fn(arg, &info);
	}
	mem_free(all);
	fmutex_unlock(&vols->lock);
	return rc;
}

int volume_get_info(struct volumes *vols, const char *name, struct volume_info *info, struct err *err)
{
	struct volume_state *vol;
	int rc;

	fmutex_lock(&vols->lock);
	rc = need_volume(vols, name, &vol, err);
	if (rc == 0)
		(void)!fiber_call_on(vol->lin->loop, settle_on_home, vol->lin); /* if it fails the count is an upper bound */
	if (rc == 0)
		rc = fill_info(vol, info);
	fmutex_unlock(&vols->lock);
	return rc;
}

/* --- handles ------------------------------------------------------------------------------------------------ */

int volume_open(struct volumes *vols, const char *name, struct volume **out, struct err *err)
{
	struct volume_state *vol;
	int rc;

	fmutex_lock(&vols->lock);
	rc = need_volume(vols, name, &vol, err);
	if (rc == 0 && vol->lin->damage[0])
		rc = err_set(err, -EIO, "volume '%s' is damaged: %s", name, vol->lin->damage);
	if (rc == 0) {
		vol->opens++;
		*out = (struct volume *)vol;
	}
	fmutex_unlock(&vols->lock);
	return rc;
}

void volume_close(struct volume *volume)
{
	((struct volume_state *)volume)->opens--;
}

struct loop *volume_loop(const struct volume *volume)
{
	return ((const struct volume_state *)volume)->lin->loop;
}

uint64_t volume_id(const struct volume *volume)
{
	return ((const struct volume_state *)volume)->id;
}

uint64_t volume_size_bytes(const struct volume *volume)
{
	return ((const struct volume_state *)volume)->size_bytes;
}

void volume_watch_add(struct volume *volume, struct volume_watch *watch)
{
	list_push_back(&((struct volume_state *)volume)->watches, &watch->node);
}

void volume_watch_del(struct volume_watch *watch)
{
	list_del(&watch->node);
}

static int checkpoint_on_home(void *arg)
{
	return checkpoint_run(arg);
}

int volume_checkpoint(struct volumes *vols, const char *name, struct err *err)
{
	struct volume_state *vol;
	int rc;

	fmutex_lock(&vols->lock);
	rc = need_volume(vols, name, &vol, err);
	if (rc == 0) {
		rc = fiber_call_on(vol->lin->loop, checkpoint_on_home, vol->lin);
		if (rc < 0)
			err_set(err, rc, "checkpoint of volume '%s' failed", name);
	}
	fmutex_unlock(&vols->lock);
	return rc;
}
