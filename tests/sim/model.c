/* The model in normal life: submissions, acknowledgements, reads. See model.h. */
#include "tests/sim/model.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void *must(void *ptr)
{
	if (!ptr)
		abort();
	return ptr;
}

void id_list_add(struct id_list *list, uint32_t id)
{
	if (list->count == list->cap) {
		list->cap = list->cap ? list->cap * 2 : 16;
		list->id = must(realloc(list->id, list->cap * sizeof(uint32_t)));
	}
	list->id[list->count++] = id;
}

static void id_list_remove(struct id_list *list, uint32_t id)
{
	for (uint32_t i = 0; i < list->count; i++) {
		if (list->id[i] != id)
			continue;
		memmove(list->id + i, list->id + i + 1, (list->count - i - 1) * sizeof(uint32_t));
		list->count--;
		return;
	}
	abort();
}

/* ---- life ---- */

void model_init(struct model *model, uint64_t (*tick)(void), bool keep_history)
{
	*model = (struct model){ .count = 1, .cap = 256, .tick = tick, .keep_history = keep_history };
	model->requests = must(calloc(model->cap, sizeof(*model->requests)));
}

void model_release(struct model *model)
{
	for (uint32_t id = 1; id < model->count; id++)
		free(model->requests[id].seen);
	free(model->requests);
}

struct model_volume *model_volume_new(struct model *model, uint64_t size_sectors, const struct model_window *windows,
				      uint32_t count)
{
	struct model_volume *vol = must(calloc(1, sizeof(*vol)));

	vol->number = vol->family = ++model->next_volume;
	vol->size_sectors = size_sectors;
	vol->windows = count;
	for (uint32_t i = 0; i < count; i++) {
		vol->window[i] = windows[i];
		vol->window[i].slot = vol->slots;
		vol->slots += windows[i].count;
	}
	vol->base = must(calloc(vol->slots, sizeof(uint32_t)));
	vol->live = must(calloc(vol->slots, sizeof(uint32_t)));
	return vol;
}

struct model_volume *model_volume_fork(struct model *model, const struct model_volume *origin)
{
	struct model_volume *vol = model_volume_new(model, origin->size_sectors, origin->window, origin->windows);

	vol->family = origin->family;
	return vol;
}

void model_volume_free(struct model_volume *vol)
{
	free(vol->base);
	free(vol->live);
	free(vol->history.id);
	free(vol->flying.id);
	free(vol);
}

/* ---- slots ---- */

static const struct model_window *window_of(const struct model_volume *vol, uint32_t slot)
{
	const struct model_window *w = vol->window;

	while (slot - w->slot >= w->count)
		w++;
	return w;
}

uint64_t model_sector_of(const struct model_volume *vol, uint32_t slot)
{
	const struct model_window *w = window_of(vol, slot);

	return w->sector + (slot - w->slot);
}

uint32_t model_slots_in_use(const struct model_volume *vol)
{
	return model_slots_within(vol, vol->size_sectors);
}

uint32_t model_slots_within(const struct model_volume *vol, uint64_t size_sectors)
{
	uint32_t slots = 0;

	for (uint32_t i = 0; i < vol->windows && vol->window[i].sector < size_sectors; i++) {
		uint64_t room = size_sectors - vol->window[i].sector;

		slots += room < vol->window[i].count ? (uint32_t)room : vol->window[i].count;
	}
	return slots;
}

uint32_t model_run_within(const struct model_volume *vol, uint32_t slot, uint32_t slots)
{
	const struct model_window *w = window_of(vol, slot);
	uint32_t end = w->slot + w->count;

	return (end < slots ? end : slots) - slot;
}

uint32_t model_run(const struct model_volume *vol, uint32_t slot)
{
	return model_run_within(vol, slot, model_slots_in_use(vol));
}

static void clip_list(struct model *model, const struct id_list *list, uint32_t slots)
{
	for (uint32_t i = 0; i < list->count; i++) {
		struct model_request *r = &model->requests[list->id[i]];

		if (r->start >= slots)
			r->count = 0;
		else if (r->count > slots - r->start)
			r->count = slots - r->start;
	}
}

/* ---- requests ---- */

static bool overlap(const struct model_request *r, uint32_t start, uint32_t count)
{
	return start < r->start + r->count && r->start < start + count;
}

bool model_conflicts(const struct model *model, const struct model_volume *vol, uint32_t start, uint32_t count,
		     bool fua)
{
	for (uint32_t i = 0; i < vol->flying.count; i++) {
		const struct model_request *r = &model->requests[vol->flying.id[i]];

		if ((fua || r->fua) && overlap(r, start, count))
			return true;
	}
	return false;
}

static bool changes(const struct model_request *r)
{
	return r->op == MODEL_WRITE || r->op == MODEL_ZERO;
}

uint32_t model_submit(struct model *model, struct model_volume *vol, enum model_op op, uint32_t start, uint32_t count,
		      bool fua)
{
	uint32_t id = model->count++;
	struct model_request *r;

	if (id >= model->cap) {
		model->cap *= 2;
		model->requests = must(realloc(model->requests, model->cap * sizeof(*model->requests)));
	}
	r = &model->requests[id];
	*r = (struct model_request){ .volume = vol->number,
				     .op = (uint8_t)op,
				     .fua = fua,
				     .start = start,
				     .count = count,
				     .submitted = model->tick() };
	if (changes(r))
		id_list_add(&vol->flying, id);
	if (op == MODEL_READ) {
		r->seen = must(malloc(count * sizeof(uint32_t)));
		memcpy(r->seen, vol->live + start, count * sizeof(uint32_t));
	}
	return id;
}

static void apply(struct model *model, uint32_t id, uint32_t *content)
{
	const struct model_request *r = &model->requests[id];
	uint32_t value = request_value(r, id);

	for (uint32_t i = 0; i < r->count; i++)
		content[r->start + i] = value;
}

/* Moves the certain beginning of the history into base. */
static void fold(struct model *model, struct model_volume *vol)
{
	uint32_t n = 0;

	if (model->keep_history || vol->pinned)
		return;
	for (; n < vol->history.count; n++) {
		const struct model_request *r = &model->requests[vol->history.id[n]];

		if (r->state != REQUEST_ACKED || !(r->certain || r->done <= vol->floor))
			break;
		apply(model, vol->history.id[n], vol->base);
	}
	if (n == 0)
		return;
	vol->history.count -= n;
	memmove(vol->history.id, vol->history.id + n, vol->history.count * sizeof(uint32_t));
}

void model_acknowledge(struct model *model, struct model_volume *vol, uint32_t id)
{
	struct model_request *r = &model->requests[id];

	r->state = REQUEST_ACKED;
	r->done = model->tick();
	if (changes(r)) {
		id_list_remove(&vol->flying, id);
		id_list_add(&vol->history, id);
		apply(model, id, vol->live);
	}
	if (r->op == MODEL_FLUSH || r->fua) {
		r->certain = true;
		model_flushed(model, vol, r->submitted);
	}
}

void model_flushed(struct model *model, struct model_volume *vol, uint64_t tick)
{
	if (vol->floor < tick)
		vol->floor = tick;
	fold(model, vol);
}

void model_refuse(struct model *model, struct model_volume *vol, uint32_t id)
{
	struct model_request *r = &model->requests[id];

	r->state = REQUEST_FAILED;
	r->done = model->tick();
	if (changes(r))
		id_list_remove(&vol->flying, id);
	free(r->seen);
	r->seen = NULL;
}

void model_fail(struct model *model, struct model_volume *vol, uint32_t id)
{
	model_refuse(model, vol, id);
	if (changes(&model->requests[id]))
		id_list_add(&vol->history, id);
}

/* ---- resize ---- */

static void fill_from(struct model_volume *vol, uint32_t slot, uint32_t value)
{
	for (; slot < vol->slots; slot++)
		vol->base[slot] = vol->live[slot] = value;
}

void model_resize(struct model *model, struct model_volume *vol, uint64_t size_sectors)
{
	bool shrinks = size_sectors < vol->size_sectors;
	uint32_t slots;

	vol->size_sectors = size_sectors;
	slots = model_slots_in_use(vol);
	clip_list(model, &vol->history, slots);
	/* Damage may cut the log in front of the trim, but not undo the new size: then the old content is back. */
	if (shrinks)
		fill_from(vol, slots, model->keep_history ? STAMP_UNREADABLE : STAMP_ZERO);
}

/* ---- forks ---- */

void model_begin_with(struct model *model, struct model_volume *vol, uint64_t size_sectors, const uint32_t *content)
{
	uint32_t slots;

	vol->size_sectors = size_sectors;
	slots = model_slots_in_use(vol);
	memcpy(vol->base, content, slots * sizeof(uint32_t));
	memcpy(vol->live, vol->base, slots * sizeof(uint32_t));
	fill_from(vol, slots, model->keep_history ? STAMP_UNREADABLE : STAMP_ZERO);
	vol->history.count = vol->flying.count = 0;
	vol->floor = model->tick();
	vol->forked = true;
}

/* ---- reads ---- */

/* May a read show r's effect at a slot where r wrote, though r was not the last one completed when it was submitted? */
static bool may_show(const struct model *model, const struct model_request *read, uint32_t slot,
		     const struct model_request *r)
{
	uint32_t seen = read->seen[slot - read->start];

	if (!changes(r) || r->volume != read->volume || !request_covers(r, slot))
		return false;
	switch (r->state) {
	case REQUEST_FLYING: return true;
	case REQUEST_ACKED: return r->done > read->submitted;
	case REQUEST_FAILED: /* unless overwritten since by one that came after the failure */
		return seen == STAMP_ZERO || seen == STAMP_UNREADABLE || model->requests[seen].submitted < r->done;
	default: return false;
	}
}

static bool may_show_zeroes(const struct model *model, const struct model_request *read, uint32_t slot)
{
	for (uint32_t id = model->count - 1; id > 0; id--) {
		const struct model_request *r = &model->requests[id];

		if (r->op == MODEL_ZERO && may_show(model, read, slot, r))
			return true;
	}
	return false;
}

static bool slot_readable_as(const struct model *model, const struct model_request *read, uint32_t slot, uint32_t value)
{
	uint32_t seen = read->seen[slot - read->start];

	if (value == seen || seen == STAMP_UNREADABLE || value == STAMP_UNREADABLE)
		return true;
	if (value == STAMP_ZERO)
		return may_show_zeroes(model, read, slot);
	return value < model->count && may_show(model, read, slot, &model->requests[value]);
}

bool model_read_done(struct model *model, const struct model_volume *vol, uint32_t id, const uint32_t *content,
		     char why[MODEL_TEXT_BYTES])
{
	struct model_request *read = &model->requests[id];
	uint32_t i = 0;

	while (i < read->count && slot_readable_as(model, read, read->start + i, content[i]))
		i++;
	if (i < read->count)
		snprintf(why, MODEL_TEXT_BYTES,
			 "volume %u: read %u: sector %llu shows request %u, but request %u had been completed (0: "
			 "zeroes)",
			 vol->number, id, (unsigned long long)model_sector_of(vol, read->start + i), content[i],
			 read->seen[i]);
	read->state = REQUEST_ACKED;
	read->done = model->tick();
	free(read->seen);
	read->seen = NULL;
	return i == read->count;
}
