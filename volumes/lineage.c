/* Life of a lineage: made, started on its home loop, stopped, freed; and the fibers that work for it. */
#include "volumes/lineage.h"

#include <errno.h>
#include <string.h>

#include "pool/base/mem.h"
#include "volumes/directory.h"

/* Looks whether everything has ended, first soon and then less often. */
#define CLOSE_POLL_MIN_NS (10ull * 1000)
#define CLOSE_POLL_MAX_NS (100ull * 1000 * 1000)

int lineage_alloc(struct volumes *vols, struct pool *pool, struct vloop *vl, uint64_t id, struct policy policy,
		  struct lineage **out)
{
	struct lineage *lin = mem_zalloc(sizeof(*lin));

	if (!lin)
		return -ENOMEM;
	lin->vols = vols;
	lin->pool = pool;
	lin->vl = vl;
	lin->loop = vl->loop;
	lin->id = id;
	lin->policy = policy;
	lin->segment_blocks = segment_blocks(pool, policy);
	lin->live_ptr.segno = SEGNO_NONE;
	list_init(&lin->node);
	list_init(&lin->volumes);
	table_init(&lin->numbers);
	list_init(&lin->wait_reads);
	for (int i = 0; i < SLOW_CLASSES; i++) {
		lin->slow[i].lin = lin;
		list_init(&lin->slow[i].queue);
	}
	waitq_init(&lin->fibers_gone);
	checkpoint_init(lin);
	log_init(lin);
	lin->space_task.fn = space_freed;
	list_init(&lin->space_task.node);
	lin->space.loop = lin->loop;
	lin->space.task = &lin->space_task;
	list_init(&lin->space.node);
	if (refs_init(lin) < 0)
		goto fail_refs;
	if (places_init(lin) < 0)
		goto fail_places;
	*out = lin;
	return 0;
fail_places:
	refs_release(lin);
fail_refs:
	log_release(lin);
	mem_free(lin);
	return -ENOMEM;
}

struct volume_state *volume_state_new(struct lineage *lin, uint64_t id, const struct volume_format *f)
{
	struct volume_state *vol = mem_zalloc(sizeof(*vol));

	if (!vol)
		return NULL;
	vol->lin = lin;
	vol->vols = lin->vols;
	vol->id = id;
	vol->number = le32_get(f->number);
	vol->size_bytes = le64_get(f->size_bytes);
	vol->created_s = le64_get(f->created_s);
	vol->flags = le32_get(f->flags);
	vol->of = le32_get(f->of);
	vol->origin = le32_get(f->origin);
	vol->fork_seq = le64_get(f->fork_seq);
	vol->fork_birth = le32_get(f->fork_birth);
	memcpy(vol->name, f->name, POOL_NAME_MAX);
	memcpy(vol->guid.b, f->guid, sizeof(f->guid));
	vol->receive = (struct receive_mark){ le64_get(f->receive_seq), le32_get(f->receive_crc) };
	vol->root.ptr.segno = SEGNO_NONE;
	list_init(&vol->watches);
	list_init(&vol->node);
	table_node_init(&vol->of_lineage);
	list_init(&vol->dir);
	table_node_init(&vol->by_name);
	table_node_init(&vol->by_number);
	list_init(&vol->snapshots);
	list_init(&vol->sibling);
	return vol;
}

void volume_state_free(struct volume_state *vol)
{
	directory_remove(vol->vols, vol);
	list_del(&vol->node);
	table_del(&vol->lin->numbers, &vol->of_lineage);
	layers_release(vol);
	if (vol->spare)
		layer_put(vol->spare);
	mem_free(vol);
}

struct volume_state *lineage_add_volume(struct lineage *lin, uint64_t id, const struct volume_format *f)
{
	struct volume_state *vol = volume_state_new(lin, id, f);
	struct layer *top = vol && volume_has_top(vol) ? layer_new() : NULL;

	if (!vol)
		return NULL;
	if (volume_has_top(vol) && !top) {
		volume_state_free(vol);
		return NULL;
	}
	if (top)
		layer_push(vol, top);
	lineage_link(lin, vol);
	return vol;
}

void lineage_link(struct lineage *lin, struct volume_state *vol)
{
	list_push_back(&lin->volumes, &vol->node);
	table_add(&lin->numbers, &vol->of_lineage, table_hash(vol->number));
	lin->images++;
}

struct volume_state *lineage_find_volume(const struct lineage *lin, uint32_t number)
{
	table_for_bucket(node, &lin->numbers, table_hash(number)) {
		struct volume_state *vol = table_entry(node, struct volume_state, of_lineage);

		if (vol->number == number)
			return vol;
	}
	return NULL;
}

int lineage_fiber(struct lineage *lin, void (*fn)(void *arg), void *arg)
{
	int rc = fiber_start(lin->loop, fn, arg);

	if (rc == 0)
		lin->fibers++;
	return rc;
}

void lineage_fiber_end(struct lineage *lin)
{
	if (--lin->fibers == 0)
		waitq_wake_all(&lin->fibers_gone);
}

/* --- requests of our own ---------------------------------------------------------------------------------- */

struct own_request {
	struct vio vio;
	struct fiber *fiber;
	bool done;
	int res;
};

static void own_request_done(struct vio *vio, int res)
{
	struct own_request *own = container_of(vio, struct own_request, vio);

	own->res = res;
	own->done = true;
	fiber_wake(own->fiber);
}

int lineage_request(struct volume_state *vol, enum vio_op op, uint64_t off_bytes, uint64_t len_bytes)
{
	struct volume handle = { .state = vol };
	struct own_request own = {
		.vio = { .op = op, .off_bytes = off_bytes, .len_bytes = len_bytes, .internal = true,
			 .done = own_request_done },
		.fiber = fiber_self(),
	};

	volume_submit(&handle, &own.vio);
	while (!own.done)
		fiber_park();
	return own.res;
}

/* --- stopping ----------------------------------------------------------------------------------------------- */

static bool busy(const struct lineage *lin)
{
	bool streams = false;

	for (int id = 0; id < STREAM_COUNT; id++)
		streams |= lin->stream[id].kick_posted || lin->stream[id].inflight_count > 0;
	return streams || lin->fibers > 0 || lin->drain_posted || lin->squeeze_queued || lin->space.queued;
}

int lineage_close(struct lineage *lin, bool abandon)
{
	int rc = abandon ? 0 : checkpoint_run(lin);
	uint64_t poll_ns = CLOSE_POLL_MIN_NS;

	lin->closing = true;
	lin->running = false;
	timer_cancel(lin->loop, &lin->quiet_timer);
	space_watch_del(lin->pool, &lin->space);
	while (busy(lin)) {
		waitq_wake_all(&lin->room);
		fiber_sleep_ns(poll_ns);
		poll_ns = 2 * poll_ns < CLOSE_POLL_MAX_NS ? 2 * poll_ns : CLOSE_POLL_MAX_NS;
	}
	timer_cancel(lin->loop, &lin->retry);
	for (int id = 0; id < STREAM_COUNT; id++) {
		struct batch *b = lin->stream[id].open;

		lin->stream[id].open = NULL;
		if (b)
			list_push_front(&lin->vl->free_batches, &b->node);
	}
	nodecache_forget(&lin->vl->cache, lin->id);
	return rc;
}

void lineage_free(struct lineage *lin)
{
	while (!list_empty(&lin->volumes))
		volume_state_free(list_entry(lin->volumes.next, struct volume_state, node));
	table_release(&lin->numbers);
	refs_release(lin);
	places_release(lin);
	log_release(lin);
	list_del(&lin->node);
	mem_free(lin);
}
