/* The judge: can this content have come about? See model.h for the rules.
 *
 * A content is taken apart backwards. The write that was applied last shows on all of its slots; take it off, and those
 * slots say nothing more: they are explained. Then the one before shows on all of its slots that are not explained yet,
 * and so on; in the end what is not explained must be as in base. Taking off any write that could be last never hurts, as
 * it only explains slots that it matches; so for writes in flight, whose order is open, taking off whatever can be taken
 * off, until nothing can, finds an order if there is one.
 *
 * How much of the history is in (the prefix) is open too. It is no less than what is certain and what is seen; from there
 * on each length is tried. Usually the first one fits. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/sim/model.h"

struct judge {
	struct model *model;
	const struct model_volume *vol;
	enum model_after after;
	const uint32_t *content;
	uint32_t slots;     /* that the volume found has */
	uint8_t *explained; /* [slot] */
	struct model_verdict *verdict;
	bool flying_seen; /* one without FUA shows: the whole history must be in */
	uint32_t witness; /* the request seen that needs the longest prefix */
};

static bool fits(const struct judge *j, uint32_t slot, uint32_t value)
{
	return j->explained[slot] || j->content[slot] == value || j->content[slot] == STAMP_UNREADABLE;
}

/* ---- taking writes off ---- */

static uint32_t end_of(const struct judge *j, const struct model_request *r)
{
	return r->start + r->count < j->slots ? r->start + r->count : j->slots;
}

/* First slot that contradicts the request being last; UINT32_MAX if none. */
static uint32_t contradiction(const struct judge *j, uint32_t id)
{
	const struct model_request *r = &j->model->requests[id];
	uint32_t value = request_value(r, id), slot = r->start, end = end_of(j, r);

	while (slot < end && fits(j, slot, value))
		slot++;
	return slot < end ? slot : UINT32_MAX;
}

static bool take_off(struct judge *j, uint32_t id)
{
	const struct model_request *r = &j->model->requests[id];
	uint32_t end = end_of(j, r);

	if (contradiction(j, id) != UINT32_MAX)
		return false;
	if (end > r->start)
		memset(j->explained + r->start, 1, end - r->start);
	return true;
}

/* Completed writes of the history that were over before r was submitted are all in, given this prefix? */
static bool order_allows(const struct judge *j, const struct model_request *r, uint32_t prefix)
{
	const struct id_list *history = &j->vol->history;

	if (prefix == history->count)
		return true;
	return r->fua && j->model->requests[history->id[prefix]].done > r->submitted;
}

static void take_off_flying(struct judge *j, uint32_t prefix)
{
	const struct id_list *flying = &j->vol->flying;
	uint8_t *off = calloc(flying->count + 1, 1);
	bool progress;

	if (!off)
		abort();
	do {
		progress = false;
		for (uint32_t i = 0; i < flying->count; i++) {
			const struct model_request *r = &j->model->requests[flying->id[i]];

			if (off[i] || !order_allows(j, r, prefix))
				continue;
			if (take_off(j, flying->id[i])) {
				id_list_add(&j->verdict->applied, flying->id[i]);
				off[i] = 1;
				progress = true;
			}
		}
	} while (progress);
	free(off);
}

static void reverse(struct id_list *list)
{
	for (uint32_t i = 0; i < list->count / 2; i++) {
		uint32_t id = list->id[i];

		list->id[i] = list->id[list->count - 1 - i];
		list->id[list->count - 1 - i] = id;
	}
}

/* ---- one length of prefix ---- */

static bool explain_why(const struct judge *j, uint32_t slot, uint32_t expected, const char *what)
{
	snprintf(j->verdict->why, MODEL_TEXT_BYTES,
		 "volume %u: sector %llu shows request %u, expected %u (0: zeroes): %s; history of %u, %u of it in as "
		 "%u is seen",
		 j->vol->number, (unsigned long long)model_sector_of(j->vol, slot), j->content[slot], expected, what,
		 j->vol->history.count, j->verdict->prefix, j->witness);
	return false;
}

static bool is_certain(const struct judge *j, const struct model_request *r)
{
	return j->after != AFTER_DAMAGE && r->certain;
}

/* The prefix ends within the group of requests whose order is not known, and r is one of them: it may be in. */
static bool in_open_group(const struct judge *j, const struct model_request *r)
{
	const struct id_list *history = &j->vol->history;
	uint32_t prefix = j->verdict->prefix;

	return r->unordered && prefix < history->count && j->model->requests[history->id[prefix]].done == r->done;
}

/* A write at this place of the history of which nobody knows whether it is in. */
static bool may_be_either(const struct judge *j, uint32_t place, const struct model_request *r)
{
	if (r->state == REQUEST_FAILED)
		return true;
	if (place <= j->verdict->prefix || is_certain(j, r))
		return false;
	return in_open_group(j, r) || (r->fua && order_allows(j, r, j->verdict->prefix));
}

static bool explain_history(struct judge *j)
{
	const struct id_list *history = &j->vol->history;

	for (uint32_t i = history->count; i > 0; i--) {
		uint32_t id = history->id[i - 1], slot;
		const struct model_request *r = &j->model->requests[id];

		if (may_be_either(j, i, r)) {
			if (take_off(j, id))
				id_list_add(&j->verdict->applied, id);
			continue;
		}
		if (i > j->verdict->prefix && !is_certain(j, r))
			continue;
		slot = contradiction(j, id);
		if (slot != UINT32_MAX)
			return explain_why(j, slot, request_value(r, id), "a completed write is missing or in part");
		take_off(j, id);
	}
	return true;
}

/* Nobody knows what was here before the history. */
static bool is_unknown(const struct judge *j, uint32_t slot)
{
	return j->vol->base[slot] == STAMP_UNREADABLE || (j->after == AFTER_DAMAGE && j->vol->forked);
}

static bool explain_base(struct judge *j)
{
	for (uint32_t slot = 0; slot < j->slots; slot++) {
		if (!is_unknown(j, slot) && !fits(j, slot, j->vol->base[slot]))
			return explain_why(j, slot, j->vol->base[slot],
					   "durable content is gone, or a write is in part");
	}
	return true;
}

static bool explain_with(struct judge *j, uint32_t prefix)
{
	memset(j->explained, 0, j->slots);
	j->verdict->prefix = prefix;
	j->verdict->applied.count = 0;
	take_off_flying(j, prefix);
	if (!explain_history(j) || !explain_base(j))
		return false;
	reverse(&j->verdict->applied);
	return true;
}

/* ---- what is seen ---- */

static void place_history(struct judge *j)
{
	for (uint32_t i = 0; i < j->vol->history.count; i++)
		j->model->requests[j->vol->history.id[i]].place = i + 1;
}

static void unplace_history(struct judge *j)
{
	for (uint32_t i = 0; i < j->vol->history.count; i++)
		j->model->requests[j->vol->history.id[i]].place = 0;
}

/* The prefix at which the group of the unordered request at this place begins. */
static uint32_t group_start(const struct judge *j, uint32_t place)
{
	const uint32_t *history = j->vol->history.id;
	const struct model_request *requests = j->model->requests;
	uint64_t done = place > 0 ? requests[history[place - 1]].done : 0;

	while (place > 0 && requests[history[place - 1]].done == done)
		place--;
	return place;
}

/* The prefix that was complete when a write with FUA was submitted. */
static uint32_t begun_after(const struct judge *j, const struct model_request *r)
{
	const uint32_t *history = j->vol->history.id;
	uint32_t prefix = r->place;

	while (prefix > 0 && j->model->requests[history[prefix - 1]].done > r->submitted)
		prefix--;
	return prefix;
}

/* The least prefix that a slot's content allows; UINT32_MAX: it can never be right. */
static uint32_t least_prefix_of(struct judge *j, uint32_t slot)
{
	uint32_t id = j->content[slot];
	const struct model_request *r;

	if (id == STAMP_ZERO || id == STAMP_UNREADABLE || id == j->vol->base[slot] || is_unknown(j, slot))
		return 0;
	r = id < j->model->count ? &j->model->requests[id] : NULL;
	if (!r || r->volume != j->vol->number || r->op != MODEL_WRITE || !request_covers(r, slot)) {
		explain_why(j, slot, j->vol->live[slot], "no request ever wrote this here");
		return UINT32_MAX;
	}
	if (r->state == REQUEST_LOST) {
		explain_why(j, slot, j->vol->live[slot], "a write that an earlier crash had undone is back");
		return UINT32_MAX;
	}
	if (r->state == REQUEST_FLYING && !r->fua)
		j->flying_seen = true;
	if (r->state != REQUEST_ACKED || is_certain(j, r))
		return 0;
	if (r->fua)
		return begun_after(j, r);
	return r->unordered ? group_start(j, r->place) : r->place;
}

/* Everything completed up to the floor is in. */
static uint32_t certain_prefix(const struct judge *j)
{
	const struct id_list *history = &j->vol->history;
	uint32_t prefix = history->count;

	if (j->after == AFTER_DAMAGE)
		return 0;
	if (j->after == AFTER_KILL || j->after == AFTER_CLOSE)
		return prefix;
	while (prefix > 0 && j->model->requests[history->id[prefix - 1]].done > j->vol->floor)
		prefix--;
	return prefix;
}

static bool try_prefixes(struct judge *j)
{
	uint32_t least = certain_prefix(j), count = j->vol->history.count;

	for (uint32_t slot = 0; slot < j->slots; slot++) {
		uint32_t need = least_prefix_of(j, slot);

		if (need == UINT32_MAX)
			return false;
		if (need > least) {
			least = need;
			j->witness = j->content[slot];
		}
	}
	if (j->flying_seen)
		least = count;
	for (uint32_t prefix = least; prefix <= count; prefix++) {
		if (explain_with(j, prefix))
			return true;
	}
	/* The shortest one says best what is wrong. */
	return least < count ? explain_with(j, least) : false;
}

bool model_judge(struct model *model, const struct model_volume *vol, enum model_after after, uint64_t size_sectors,
		 const uint32_t *content, struct model_verdict *verdict)
{
	struct judge j = { .model = model,
			   .vol = vol,
			   .after = after,
			   .content = content,
			   .verdict = verdict,
			   .slots = model_slots_within(vol, size_sectors) };
	bool right;

	*verdict = (struct model_verdict){ 0 };
	j.explained = malloc(vol->slots + 1);
	if (!j.explained)
		abort();
	place_history(&j);
	right = try_prefixes(&j);
	unplace_history(&j);
	free(j.explained);
	return right;
}
