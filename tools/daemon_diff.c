/* What changed between a snapshot and an image of the same lineage: see daemon_snapshot_diff in daemon.h.
 *
 * The engine tells where the two differ, from their maps alone; of these parts, those that are mapped in the newer one have data. A
 * page is looked up on the volume's home loop. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "tools/daemon_int.h"

/* Looked up at a time, on the fiber's stack. */
#define EXTENTS_A_LOOK 64u

struct diff_call {
	struct volume *from, *to;
	struct diff_page *page;
};

/* False: the page is full. What continues the last range belongs to it. */
static bool add(struct diff_page *page, uint64_t off_bytes, const struct extent *extent)
{
	struct diff_range *last = &page->range[page->count - 1];

	if (page->count > 0 && last->off_bytes + last->len_bytes == off_bytes && last->data == extent->mapped) {
		last->len_bytes += extent->len_bytes;
		return true;
	}
	if (page->count == DIFF_RANGES_MAX)
		return false;
	page->range[page->count++] = (struct diff_range){ off_bytes, extent->len_bytes, extent->mapped };
	return true;
}

/* Adds a part that has changed, cut into data and holes; page->next_bytes follows. */
static int add_changed(struct diff_call *call, uint64_t end_bytes, bool *full)
{
	struct diff_page *page = call->page;

	while (page->next_bytes < end_bytes && !*full) {
		struct extent found[EXTENTS_A_LOOK];
		uint32_t n;
		int ret = volume_extents(call->to, page->next_bytes, end_bytes - page->next_bytes, found, EXTENTS_A_LOOK, &n);

		if (ret)
			return ret;
		for (uint32_t i = 0; i < n && !*full; i++) {
			*full = !add(page, page->next_bytes, &found[i]);
			page->next_bytes += *full ? 0 : found[i].len_bytes;
		}
	}
	return 0;
}

static int fill_on_home(void *arg)
{
	struct diff_call *call = arg;
	struct diff_page *page = call->page;
	bool full = false;
	int ret = 0;

	page->size_bytes = volume_size_bytes(call->to);
	while (ret == 0 && page->next_bytes < page->size_bytes && !full) {
		struct extent found[EXTENTS_A_LOOK];
		uint32_t n = 0;

		ret = volume_changes(call->to, call->from, page->next_bytes, page->size_bytes - page->next_bytes, found,
				     EXTENTS_A_LOOK, &n);
		for (uint32_t i = 0; i < n && ret == 0 && !full; i++) {
			uint64_t end_bytes = page->next_bytes + found[i].len_bytes;

			if (found[i].mapped)
				ret = add_changed(call, end_bytes, &full);
			else
				page->next_bytes = end_bytes;
		}
	}
	return ret;
}

static int fill_error(int ret, const char *from, const char *to, struct err *err)
{
	if (ret == -EXDEV)
		return err_set(err, ret, "'%s' and '%s' have nothing in common: one must come from the other", from, to);
	return err_set(err, ret, "cannot compare '%s' and '%s': %s", from, to, strerror(-ret));
}

static int diff(struct daemon_pool *pool, const char *from, const char *to, struct diff_page *page, struct err *err)
{
	struct diff_call call = { .page = page };
	int ret = volume_open(pool->volumes, from, &call.from, err);

	if (ret)
		return ret;
	ret = volume_open(pool->volumes, to, &call.to, err);
	if (ret == 0) {
		ret = fiber_call_on(volume_loop(call.to), fill_on_home, &call);
		if (ret)
			fill_error(ret, from, to, err);
		volume_close(call.to);
	}
	volume_close(call.from);
	return ret;
}

static int parse_newer(const struct image_path *from, const char *to, struct image_path *path, struct err *err)
{
	int ret;

	*path = *from;
	path->image[strcspn(path->image, "@")] = '\0'; /* the volume now */
	if (!to)
		return 0;
	ret = image_path_parse(to, IMAGE_EITHER, path, err);
	if (ret == 0 && strcmp(path->pool, from->pool) != 0)
		return err_set(err, -EXDEV, "'%s' is not in pool '%s'", to, from->pool);
	return ret;
}

int daemon_snapshot_diff(struct daemon *daemon, const char *from, const char *to, uint64_t off_bytes, struct diff_page **out,
			 struct err *err)
{
	struct image_path from_path, to_path;
	struct diff_page *page = NULL;
	struct daemon_pool *pool;
	int ret = image_path_parse(from, IMAGE_SNAPSHOT, &from_path, err);

	if (ret == 0)
		ret = parse_newer(&from_path, to, &to_path, err);
	if (ret == 0)
		ret = daemon_pool_get(daemon, from_path.pool, &pool, err);
	if (ret)
		return ret;
	page = malloc(sizeof(*page) + DIFF_RANGES_MAX * sizeof(page->range[0]));
	if (page) {
		*page = (struct diff_page){ .next_bytes = off_bytes };
		ret = diff(pool, from_path.image, to_path.image, page, err);
	} else {
		ret = err_set(err, -ENOMEM, "no memory");
	}
	daemon_pool_put(pool);
	*out = ret ? NULL : page;
	if (ret)
		free(page);
	return ret;
}
