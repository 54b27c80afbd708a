/* Cuts: what snapshots and clones of volumes in use may hold. See model.h.
 *
 * For an instant T the question is the judge's: it is that after a power loss, when everything completed up to T is durable and
 * nothing that was submitted after T exists. For one image the latest T that its content allows is as good as any other, and the
 * order of the history sees to it that such a T exists. Images made together need a T in common: from one completion to the next
 * a later T only allows more, so those before each completion and the end are all that need to be tried. */
#include <stdlib.h>
#include <string.h>

#include "tests/sim/model.h"

static void *copy(const void *from, size_t bytes)
{
	void *to = malloc(bytes + 1);

	if (!to)
		abort();
	return memcpy(to, from, bytes);
}

static struct id_list copy_list(const struct id_list *from)
{
	return (struct id_list){ .id = copy(from->id ? from->id : &from->count, from->count * sizeof(uint32_t)),
				 .count = from->count,
				 .cap = from->count };
}

static struct model_volume *copy_volume(const struct model_volume *from)
{
	struct model_volume *vol = copy(from, sizeof(*from));

	vol->base = copy(from->base, from->slots * sizeof(uint32_t));
	vol->live = copy(from->live, from->slots * sizeof(uint32_t));
	vol->history = copy_list(&from->history);
	vol->flying = copy_list(&from->flying);
	return vol;
}

struct model_cut *model_cut_begin(struct model *model, struct model_volume *const *origins, uint32_t count)
{
	struct model_cut *cut = calloc(1, sizeof(*cut));

	if (!cut)
		abort();
	cut->began = model->tick();
	cut->count = count;
	for (uint32_t i = 0; i < count; i++) {
		cut->origin[i] = origins[i];
		origins[i]->pinned = true;
	}
	return cut;
}

void model_cut_end(struct model *model, struct model_cut *cut)
{
	cut->ended = model->tick();
	cut->requests = *model;
	cut->requests.requests = copy(model->requests, model->count * sizeof(*model->requests));
	for (uint32_t id = 1; id < model->count; id++)
		cut->requests.requests[id].certain = false; /* only an instant says what is in */
	for (uint32_t i = 0; i < cut->count; i++) {
		cut->origin[i]->pinned = false;
		cut->origin[i] = copy_volume(cut->origin[i]);
		cut->origin[i]->floor = cut->began;
	}
}

void model_cut_free(struct model_cut *cut)
{
	for (uint32_t i = 0; i < cut->count && cut->ended > 0; i++)
		model_volume_free(cut->origin[i]);
	free(cut->requests.requests);
	free(cut);
}

bool model_cut_judge(struct model_cut *cut, uint32_t which, bool damaged, const uint32_t *content,
		     char why[MODEL_TEXT_BYTES])
{
	const struct model_volume *origin = cut->origin[which];
	struct model_verdict verdict;
	bool right = model_judge(&cut->requests, origin, damaged ? AFTER_DAMAGE : AFTER_POWER, origin->size_sectors,
				 content, &verdict);

	memcpy(why, verdict.why, MODEL_TEXT_BYTES);
	model_verdict_release(&verdict);
	return right;
}

/* ---- one instant ---- */

static void drop_later(const struct model *requests, struct id_list *list, uint64_t instant)
{
	uint32_t kept = 0;

	for (uint32_t i = 0; i < list->count; i++) {
		if (requests->requests[list->id[i]].submitted <= instant)
			list->id[kept++] = list->id[i];
	}
	list->count = kept;
}

static bool held_at(struct model_cut *cut, uint32_t which, uint64_t instant, const uint32_t *content)
{
	struct model_volume *vol = copy_volume(cut->origin[which]);
	struct model_verdict verdict;
	bool right;

	drop_later(&cut->requests, &vol->history, instant);
	drop_later(&cut->requests, &vol->flying, instant);
	vol->floor = instant;
	right = model_judge(&cut->requests, vol, AFTER_POWER, vol->size_sectors, content, &verdict);
	model_verdict_release(&verdict);
	model_volume_free(vol);
	return right;
}

static bool all_held_at(struct model_cut *cut, uint64_t instant, const uint32_t *const *contents)
{
	uint32_t i = 0;

	while (i < cut->count && held_at(cut, i, instant, contents[i]))
		i++;
	return i == cut->count;
}

bool model_cut_is_one(struct model_cut *cut, const uint32_t *const *contents)
{
	if (all_held_at(cut, cut->ended, contents))
		return true;
	for (uint32_t v = 0; v < cut->count; v++) {
		const struct id_list *history = &cut->origin[v]->history;

		for (uint32_t i = history->count; i > 0; i--) {
			uint64_t done = cut->requests.requests[history->id[i - 1]].done;

			if (done <= cut->began)
				break;
			if (all_held_at(cut, done - 1, contents))
				return true;
		}
	}
	return false;
}
