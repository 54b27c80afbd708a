/* The directory of volumes: its catalog objects, names, and the loops on which lineages live; opening and closing it all.
 *
 * Everything runs on the pool's loop and goes to a lineage's home loop by fiber_call_on. Changes exclude each other (`change`,
 * held over their I/O) but not those who only look: these hold `directory`, as a change does while it takes a lineage or a
 * volume away, and never over I/O. */
#include "volumes/directory.h"

#include <errno.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>

#include "pool/base/mem.h"

#define OPEN_FIBERS_MAX 64u

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

struct volume_format volume_to_format(const struct volume_state *vol)
{
	struct volume_format f = {
		.version = le32_of(2),
		.number = le32_of(vol->number),
		.lineage = le64_of(vol->lin->id),
		.size_bytes = le64_of(vol->size_bytes),
		.created_s = le64_of(vol->created_s),
		.flags = le32_of(vol->flags),
		.of = le32_of(vol->of),
		.origin = le32_of(vol->origin),
		.fork_birth = le32_of(vol->fork_birth),
		.fork_seq = le64_of(vol->fork_seq),
		.receive_seq = le64_of(vol->receive.seq),
		.receive_crc = le32_of(vol->receive.crc),
	};

	memcpy(f.guid, vol->guid.b, sizeof(f.guid));
	memcpy(f.name, vol->name, strlen(vol->name));
	return f;
}

/* The same whenever the pool is opened; what is written again has it as its own. */
static void make_old_guid(const struct volumes *vols, uint64_t id, struct volume_format *f)
{
	le64 part[2] = { le64_of(id), f->created_s };

	memcpy(f->guid, part, sizeof(f->guid));
	for (uint32_t i = 0; i < sizeof(f->guid); i++)
		f->guid[i] ^= pool_uuid(vols->pool)->b[i];
}

/* Of either version. */
static bool volume_format_read(const struct volumes *vols, const struct cat_obj *obj, struct volume_format *f)
{
	*f = (struct volume_format){ .version = le32_of(0) };
	if (obj->len_bytes != sizeof(*f) && obj->len_bytes != VOLUME_FORMAT_1_BYTES)
		return false;
	memcpy(f, obj->data, obj->len_bytes);
	if (le32_get(f->version) != (obj->len_bytes == sizeof(*f) ? 2 : 1))
		return false;
	if (le32_get(f->version) == 1)
		make_old_guid(vols, obj->id, f);
	return true;
}

static bool volume_format_valid(const struct volume_format *f)
{
	char name[POOL_NAME_MAX + 1] = { 0 };

	memcpy(name, f->name, POOL_NAME_MAX);
	if (le32_get(f->flags) & VOLUME_DELETED ? name[0] != '\0' : !name_is_valid(name))
		return false;
	return le64_get(f->size_bytes) > 0 && le64_get(f->size_bytes) <= VOLUME_SIZE_MAX &&
	       le64_get(f->size_bytes) % BLOCK_BYTES == 0;
}

static bool lineage_format_valid(const struct cat_obj *obj)
{
	const struct lineage_format *f = obj->data;

	return obj->len_bytes == sizeof(*f) && le32_get(f->version) == 1 && f->k > 0 &&
	       f->k + f->m <= SEGMENT_COLS_MAX && le64_get(f->seq) > 0;
}

int directory_commit_error(struct err *err, int rc, const char *what, const char *name)
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

struct vloop *directory_choose_home(struct volumes *vols)
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
	if (rc < 0) {
		call->lin->failed = rc;
		return rc;
	}
	call->lin->running = true;
	mend_start(call->lin, false);
	checkpoint_reclaim(call->lin);   /* which a crash has interrupted */
	return 0;
}

/* A lineage that cannot be recovered stays in the directory, failed, with the reason: it harms no other. */
void directory_start_lineage(struct lineage *lin, const struct lineage_format *f)
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

void directory_call(struct loop *loop, int (*fn)(void *arg), void *arg)
{
	while (fiber_call_on(loop, fn, arg) < 0)
		fiber_sleep_ns(CALL_RETRY_NS); /* no memory for a fiber there */
}

struct close_call {
	struct lineage *lin;
	bool abandon;
	int res;
};

static int close_on_home(void *arg)
{
	struct close_call *call = arg;

	call->res = lineage_close(call->lin, call->abandon);
	return 0;
}

int directory_stop_lineage(struct lineage *lin, bool abandon)
{
	struct close_call call = { .lin = lin, .abandon = abandon || lin->damage[0] };

	fmutex_lock(&lin->vols->directory);
	list_del(&lin->node);            /* no more squeezes from here on */
	fmutex_unlock(&lin->vols->directory);
	directory_call(lin->loop, close_on_home, &call);
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
		directory_start_lineage(lin, &f);
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
		rc = pool_use_policy(vols->pool, (struct policy){ f->k, f->m });
		if (rc == 0)
			rc = lineage_alloc(vols, vols->pool, directory_choose_home(vols), obj->id, (struct policy){ f->k, f->m }, &lin);
		if (rc < 0)
			return rc;
		list_push_back(todo, &lin->node);
		(*count)++;
	}
	return 0;
}

/* Snapshots after all volumes: each belongs to one that has a name. */
static int enter_images(struct volumes *vols, const struct lineage *lin, uint32_t snapshot)
{
	list_for_each(node, &lin->volumes) {
		struct volume_state *vol = list_entry(node, struct volume_state, node);

		if (vol->flags & VOLUME_DELETED || (vol->flags & VOLUME_SNAPSHOT) != snapshot)
			continue;
		if (!directory_add(vols, vol))
			return -EINVAL;
	}
	return 0;
}

static int enter_all(struct volumes *vols, const struct list *lineages)
{
	int rc = 0;

	list_for_each(node, lineages) {
		const struct lineage *lin = list_entry(node, struct lineage, node);

		if (rc == 0)
			rc = enter_images(vols, lin, 0);
		if (rc == 0)
			rc = enter_images(vols, lin, VOLUME_SNAPSHOT);
	}
	return rc;
}

static int load_volumes(struct volumes *vols, struct list *todo)
{
	struct catalog *cat = pool_catalog(vols->pool);

	for (const struct cat_obj *obj = catalog_next(cat, CAT_VOLUME, 0); obj;
	     obj = catalog_next(cat, CAT_VOLUME, obj->id + 1)) {
		struct volume_format f;
		struct volume_state *vol;
		struct lineage *lin;
		int rc;

		if (!volume_format_read(vols, obj, &f) || !volume_format_valid(&f))
			return -EINVAL;
		lin = find_in(todo, le64_get(f.lineage));
		if (!lin || lineage_find_volume(lin, le32_get(f.number)))
			return -EINVAL;
		vol = lineage_add_volume(lin, obj->id, &f);
		if (!vol)
			return -ENOMEM;
		rc = load_map_root(vols, vol);
		if (rc == 0)
			rc = epoch_load(vol);
		if (rc < 0)
			return rc;
	}
	return enter_all(vols, todo);
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
	table_init(&vols->names);
	table_init(&vols->numbers);
	fmutex_init(&vols->change);
	fmutex_init(&vols->measure);
	fmutex_init(&vols->claims);
	fmutex_init(&vols->directory);
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
	table_release(&vols->names);
	table_release(&vols->numbers);
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
	fmutex_lock(&vols->change);
	while (!list_empty(&vols->lineages)) {
		struct lineage *lin = list_entry(vols->lineages.next, struct lineage, node);

		(void)directory_stop_lineage(lin, false); /* what is not checkpointed is in the log */
		lineage_free(lin);
	}
	while (vols->squeeze_queued)
		fiber_yield();
	stop_loops(vols, vols->opts.loop_count);
	volumes_release(vols);
}
