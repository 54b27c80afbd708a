/* The images of the model's directory: volumes and snapshots, and those that are being made. See world.h. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/sim/world.h"

struct sim_volume *world_image(const struct world *w, uint32_t index)
{
	if (index < w->volumes)
		return w->volume[index];
	index -= w->volumes;
	if (index < w->snapshots)
		return w->snapshot[index];
	index -= w->snapshots;
	return w->pending.op != MANAGE_NONE && index < w->pending.made_count ? w->pending.made[index] : NULL;
}

void sim_volume_name(const struct sim_volume *sv, char name[VOLUME_NAME_BYTES])
{
	if (sv->of)
		snprintf(name, VOLUME_NAME_BYTES, "%s@%s", sv->of->name, sv->name);
	else
		snprintf(name, VOLUME_NAME_BYTES, "%s", sv->name);
}

/* ---- making and freeing ---- */

/* One window at the start; or, far apart, at the start, somewhere, and across the end. */
static uint32_t draw_windows(struct world *w, struct model_window *win, uint64_t *size_sectors)
{
	uint32_t count = (uint32_t)w->config.window_sectors;
	struct rng *rng = &w->rng;

	if (!w->config.huge) {
		win[0] = (struct model_window){ .sector = 0, .count = count };
		*size_sectors = (rng_range(rng, count / 2 + 1, count + count / 4) + 7) & ~7ull;
		return 1;
	}
	*size_sectors = rng_log_range(rng, 1 << 20, VOLUME_SIZE_MAX / SECTOR_BYTES - 1024) & ~7ull;
	count = count / 3 + 8;
	win[0] = (struct model_window){ .sector = 0, .count = count };
	win[1] =
		(struct model_window){ .sector = rng_range(rng, 2 * count, *size_sectors - 3 * count), .count = count };
	win[2] = (struct model_window){ .sector = *size_sectors - count / 2, .count = count };
	if (win[1].sector + count >= win[2].sector)
		win[1].sector = 2 * count;
	return 3;
}

static struct sim_volume *make(struct world *w, const char *kind, struct model_volume *model)
{
	struct sim_volume *sv = calloc(1, sizeof(*sv));

	if (!sv)
		abort();
	snprintf(sv->name, sizeof(sv->name), "%s%u", kind, ++w->names);
	sv->model = model;
	sv->content = calloc(model->slots, sizeof(uint32_t));
	if (!sv->content)
		abort();
	return sv;
}

struct sim_volume *sim_volume_new(struct world *w)
{
	struct model_window win[MODEL_WINDOWS_MAX];
	uint64_t size_sectors;
	uint32_t windows = draw_windows(w, win, &size_sectors);
	struct sim_volume *sv = make(w, "vol", model_volume_new(&w->model, size_sectors, win, windows));

	sv->known = true;
	return sv;
}

struct sim_volume *sim_volume_fork(struct world *w, const struct sim_volume *origin, struct sim_volume *of)
{
	struct sim_volume *sv = make(w, of ? "s" : "vol", model_volume_fork(&w->model, origin->model));

	sv->of = of;
	if (!origin->of)
		return sv;
	model_begin_with(&w->model, sv->model, origin->model->size_sectors, origin->model->live);
	sv->known = true;
	return sv;
}

void sim_volume_drop_cut(struct sim_volume *sv)
{
	if (sv->cut && --sv->cut->refs == 0) {
		model_cut_free(sv->cut->model);
		free(sv->cut);
	}
	sv->cut = NULL;
}

void sim_volume_free(struct sim_volume *sv)
{
	sim_volume_drop_cut(sv);
	model_volume_free(sv->model);
	free(sv->content);
	free(sv);
}

static void remove_from(struct sim_volume **all, uint32_t *count, struct sim_volume *sv)
{
	for (uint32_t i = 0; i < *count; i++) {
		if (all[i] == sv)
			all[i] = all[--*count];
	}
}

bool world_has_snapshots(const struct world *w, const struct sim_volume *sv)
{
	for (uint32_t i = 0; i < w->snapshots; i++) {
		if (w->snapshot[i]->of == sv)
			return true;
	}
	return false;
}

void world_remove(struct world *w, struct sim_volume *sv)
{
	for (uint32_t i = w->snapshots; i-- > 0;) {
		struct sim_volume *snapshot = w->snapshot[i];

		if (snapshot->of != sv)
			continue;
		remove_from(w->snapshot, &w->snapshots, snapshot);
		sim_volume_free(snapshot);
	}
	if (sv->of)
		remove_from(w->snapshot, &w->snapshots, sv);
	else
		remove_from(w->volume, &w->volumes, sv);
	sim_volume_free(sv);
}

/* ---- what is being made ---- */

void world_begin_cut(struct world *w)
{
	struct pending *p = &w->pending;
	struct model_volume *origins[MODEL_CUT_MAX];
	struct sim_cut *cut = calloc(1, sizeof(*cut));

	if (!cut)
		abort();
	for (uint32_t i = 0; i < p->made_count; i++) {
		origins[i] = p->origin[i]->model;
		p->made[i]->cut = cut;
		p->made[i]->cut_part = i;
	}
	cut->refs = p->made_count;
	cut->model = model_cut_begin(&w->model, origins, p->made_count);
}

void world_end_cut(struct world *w)
{
	struct sim_cut *cut = w->pending.made_count > 0 ? w->pending.made[0]->cut : NULL;

	if (cut && cut->model->ended == 0)
		model_cut_end(&w->model, cut->model);
}

void world_add_made(struct world *w)
{
	struct pending *p = &w->pending;

	for (uint32_t i = 0; i < p->made_count; i++) {
		struct sim_volume *sv = p->made[i];

		if (sv->of)
			w->snapshot[w->snapshots++] = sv;
		else
			w->volume[w->volumes++] = sv;
		if (sv->cut) /* it is durable, and so is what its origin was then */
			model_flushed(&w->model, p->origin[i]->model, sv->cut->model->began);
	}
	p->made_count = 0;
}

void world_forget_made(struct world *w)
{
	while (w->pending.made_count > 0)
		sim_volume_free(w->pending.made[--w->pending.made_count]);
}

void world_rolled_back(struct world *w, struct sim_volume *sv, const struct sim_volume *snapshot)
{
	model_begin_with(&w->model, sv->model, snapshot->model->size_sectors, snapshot->model->live);
}
