/* Forks: images made from images, snapshots and clones alike, in O(1).
 *
 * The new image shares its origin's tree and layers; from then on both put what changes into new top layers. On disk a fork
 * is one catalog object that says where in the log it was made (fork_seq) and from what. Until a checkpoint has given the
 * image a tree of its own (it is fresh), recovery begins it with its origin's tree and replays the origin's batches up to
 * fork_seq into layers that both share. So no checkpoint may begin between the fork and its commit. */
#include <errno.h>
#include <stdlib.h>

#include "pool/base/mem.h"
#include "volumes/lineage.h"

/* --- fork ----------------------------------------------------------------------------------------------------- */

/* One layer for the origin, one for the image, and one that a checkpoint pushes. */
static bool has_room(const struct volume_state *origin)
{
	return origin->layers + 3 <= LAYERS_MAX;
}

int fork_wait_room(struct volume_state *origin)
{
	struct lineage *lin = origin->lin;

	while (!has_room(origin)) {
		if (lin->failed || lin->closing)
			return lin->failed ? lin->failed : -EIO;
		checkpoint_start(lin);
		waitq_wait(&lin->room);
	}
	return 0;
}

/* Until the origin may have another layer and the log is between two batches. */
static int wait_ready(struct volume_state *origin)
{
	struct lineage *lin = origin->lin;
	struct stream *st = &lin->stream[STREAM_DATA];
	int rc;

	while ((rc = fork_wait_room(origin)) == 0 && !lin->failed) {
		if (st->relocating)
			waitq_wait(&lin->room);
		else if (st->open && st->open->extents > 0)
			stream_push(st);
		else
			return 0;
	}
	return rc < 0 ? rc : lin->failed;
}

static void push_if(struct volume_state *vol, struct layer *layer)
{
	if (layer)
		layer_push(vol, layer);
}

static int alloc_tops(const struct volume_state *origin, const struct volume_state *image, struct layer *top[2])
{
	top[0] = volume_has_top(origin) ? layer_new() : NULL;
	top[1] = volume_has_top(image) ? layer_new() : NULL;
	if ((top[0] || !volume_has_top(origin)) && (top[1] || !volume_has_top(image)))
		return 0;
	for (int i = 0; i < 2; i++) {
		if (top[i])
			layer_put(top[i]);
	}
	return -ENOMEM;
}

static void link_image(struct volume_state *origin, struct volume_state *image, struct layer *top[2])
{
	struct lineage *lin = origin->lin;
	const struct stream *st = &lin->stream[STREAM_DATA];

	image->fresh = true;
	image->origin = origin->number;
	image->fork_seq = st->open ? st->open->seq : st->next_seq;
	image->fork_birth = lin->birth++;
	image->root = origin->root;
	image->mapped_blocks = origin->mapped_blocks;
	layers_share(image, origin);
	push_if(origin, top[0]);
	push_if(image, top[1]);
	lineage_link(lin, image);
	lin->forking++;
}

int fork_image(struct volume_state *origin, uint64_t id, const struct volume_format *f, struct volume_state **out)
{
	struct lineage *lin = origin->lin;
	struct volume_state *image;
	struct layer *top[2] = { NULL };
	int rc;

	if (lin->images >= IMAGES_MAX)
		return -EMLINK;
	image = volume_state_new(lin, id, f);
	if (!image)
		return -ENOMEM;
	rc = wait_ready(origin);
	if (rc == 0)
		rc = alloc_tops(origin, image, top);
	if (rc < 0) {
		volume_state_free(image);
		return rc;
	}
	link_image(origin, image, top);
	*out = image;
	return 0;
}

int fork_sync(struct volume_state *image)
{
	int rc = stream_wait_written(&image->lin->stream[STREAM_DATA], image->fork_seq - 1);

	return rc < 0 ? rc : log_flush_wait(image->lin);
}

void fork_done(struct volume_state *image, bool committed)
{
	struct lineage *lin = image->lin;

	lin->forking--;
	if (committed) {
		checkpoint_later(lin);
	} else {
		lin->images--;
		volume_state_free(image);
	}
	lineage_drain_soon(lin);
}

/* --- rollback ----------------------------------------------------------------------------------------------------- */

/* Every image has a tree of its own in the last checkpoint: none needs the volume's to begin with. */
static bool have_trees(const struct lineage *lin)
{
	list_for_each(node, &lin->volumes) {
		const struct volume_state *vol = list_entry(node, struct volume_state, node);

		if (vol->fresh || vol->joined)
			return false;
	}
	return true;
}

static int settle(struct volume_state *vol, const struct volume_state *snapshot)
{
	struct lineage *lin = vol->lin;
	int rc = 0;

	while (rc == 0 && (lin->checkpointing || lin->frozen || !have_trees(lin) || !volume_is_settled(vol) ||
			   !volume_is_settled(snapshot)))
		rc = checkpoint_run(lin);
	return rc;
}

/* Takes the volume's tree over. It is one of the lineage's images once it is committed: a checkpoint takes its time over those
 * that go. */
static struct volume_state *make_old(const struct volume_state *vol, uint64_t id)
{
	struct volume_format f = { .number = le32_of((uint32_t)id), .size_bytes = le64_of(vol->size_bytes),
				   .created_s = le64_of(vol->created_s), .flags = le32_of(vol->flags | VOLUME_DELETED),
				   .origin = le32_of(vol->origin), .fork_birth = le32_of(vol->fork_birth),
				   .fork_seq = le64_of(vol->fork_seq),
				   .receive_seq = le64_of(vol->receive.seq),
				   .receive_crc = le32_of(vol->receive.crc) };
	struct volume_state *old = volume_state_new(vol->lin, id, &f);

	if (!old)
		return NULL;
	old->root = vol->root;
	old->mapped_blocks = vol->mapped_blocks;
	return old;
}

int rollback_begin(struct volume_state *vol, const struct volume_state *snapshot, uint64_t old_id, struct volume_state **out)
{
	struct lineage *lin = vol->lin;
	struct stream *st = &lin->stream[STREAM_DATA];
	struct layer *top = layer_new();
	struct volume_state *old;
	int rc = top ? settle(vol, snapshot) : -ENOMEM;

	old = rc == 0 ? make_old(vol, old_id) : NULL;
	if (!old) {
		if (top)
			layer_put(top);
		return rc < 0 ? rc : -ENOMEM;
	}
	layers_release(vol);             /* empty ones, which others may have on top of the old tree */
	layer_push(vol, top);
	lin->forking++;
	vol->origin = snapshot->number;
	vol->fork_seq = st->open ? st->open->seq : st->next_seq;
	vol->fork_birth = lin->birth++;
	vol->root = snapshot->root;
	vol->mapped_blocks = snapshot->mapped_blocks;
	vol->flags = snapshot->flags & VOLUME_TRIM_PENDING;
	vol->fresh = true;
	vol->size_bytes = snapshot->size_bytes;
	*out = old;
	return fork_sync(vol);
}

void rollback_end(struct volume_state *vol, struct volume_state *old, bool committed)
{
	struct lineage *lin = vol->lin;

	lin->forking--;
	if (committed) {
		lineage_link(lin, old);
		checkpoint_start(lin);
	} else {
		vol->origin = old->origin;
		vol->fork_seq = old->fork_seq;
		vol->fork_birth = old->fork_birth;
		vol->root = old->root;
		vol->mapped_blocks = old->mapped_blocks;
		vol->flags = old->flags & ~VOLUME_DELETED;
		vol->size_bytes = old->size_bytes;
		vol->fresh = false;
		volume_state_free(old);
	}
	lineage_drain_soon(lin);
}

/* --- recovery --------------------------------------------------------------------------------------------------- */

static int by_fork(const void *a, const void *b)
{
	const struct volume_state *x = *(struct volume_state *const *)a, *y = *(struct volume_state *const *)b;

	if (x->fork_seq != y->fork_seq)
		return x->fork_seq < y->fork_seq ? -1 : 1;
	return x->id < y->id ? -1 : x->id > y->id;
}

/* The tree that a fresh image begins with: that of the first image it comes from that has one. */
static int take_root(struct volume_state *image)
{
	const struct volume_state *from = image;

	for (uint32_t steps = 0; from && from->fresh && from->origin != NUMBER_NONE; steps++) {
		from = steps < image->lin->images ? lineage_find_volume(image->lin, from->origin) : NULL;
	}
	if (!from)
		return -EUCLEAN;
	image->root = from->root;
	image->mapped_blocks = from->mapped_blocks;
	return 0;
}

static bool is_fork(const struct volume_state *vol)
{
	return vol->fresh && vol->origin != NUMBER_NONE;
}

int forks_load(struct lineage *lin, struct fork_list *list)
{
	*list = (struct fork_list){ .image = mem_alloc((lin->images + 1) * sizeof(struct volume_state *)) };
	if (!list->image)
		return -ENOMEM;
	list_for_each(node, &lin->volumes) {
		struct volume_state *vol = list_entry(node, struct volume_state, node);

		if (vol->fork_birth >= lin->birth && !is_fork(vol))
			return -EUCLEAN;
		if (!is_fork(vol))
			continue;
		if (take_root(vol) < 0)
			return -EUCLEAN;
		list->image[list->count++] = vol;
	}
	qsort(list->image, list->count, sizeof(struct volume_state *), by_fork);
	return 0;
}

static int replay_fork(struct volume_state *image)
{
	struct lineage *lin = image->lin;
	struct volume_state *origin = lineage_find_volume(lin, image->origin);
	struct layer *own = layer_top(image), *top = volume_has_top(origin) ? layer_new() : NULL;

	if (volume_has_top(origin) && !top)
		return -ENOMEM;
	if (!has_room(origin) || image->layers > 1) {
		if (top)
			layer_put(top);
		return -EUCLEAN;
	}
	image->layers = 0;
	layers_share(image, origin);
	push_if(origin, top);
	push_if(image, own);
	lin->birth = image->fork_birth + 1;
	return 0;
}

int forks_replay(struct fork_list *list, uint64_t seq)
{
	int rc = 0;

	while (rc == 0 && list->next < list->count && list->image[list->next]->fork_seq <= seq)
		rc = replay_fork(list->image[list->next++]);
	return rc;
}

void forks_release(struct fork_list *list)
{
	mem_free(list->image);
}
