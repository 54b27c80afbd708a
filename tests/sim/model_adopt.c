/* Going on from a content that was found right: the history is what turned out to be in, in the order of its writes, and
 * what is not in must never come back. See model.h. */
#include <stdlib.h>
#include <string.h>

#include "tests/sim/model.h"

static bool is_applied(const struct model_verdict *verdict, uint32_t id)
{
	for (uint32_t i = 0; i < verdict->applied.count; i++) {
		if (verdict->applied.id[i] == id)
			return true;
	}
	return false;
}

/* Acknowledged from now on; but where nothing of it can be seen because its place cannot be read, nobody knows. */
static enum model_state state_if_in(const struct model_request *r, uint32_t id, const uint32_t *content)
{
	bool hidden = false;

	for (uint32_t slot = r->start; slot < r->start + r->count; slot++) {
		if (content[slot] == request_value(r, id))
			return REQUEST_ACKED;
		hidden |= content[slot] == STAMP_UNREADABLE;
	}
	return hidden ? REQUEST_FAILED : REQUEST_ACKED;
}

static void rule_history(struct model *model, struct model_volume *vol, enum model_after after, const uint32_t *content,
			 const struct model_verdict *verdict)
{
	uint32_t kept = 0;

	for (uint32_t i = 0; i < vol->history.count; i++) {
		uint32_t id = vol->history.id[i];
		struct model_request *r = &model->requests[id];
		bool certain = r->certain && after != AFTER_DAMAGE;
		bool in = r->state != REQUEST_FAILED && (i < verdict->prefix || certain);

		if (in || is_applied(verdict, id)) {
			r->state = in ? REQUEST_ACKED : state_if_in(r, id, content);
			vol->history.id[kept++] = id;
		} else {
			r->state = REQUEST_LOST;
		}
	}
	vol->history.count = kept;
}

static void rule_flying(struct model *model, struct model_volume *vol, const uint32_t *content,
			const struct model_verdict *verdict)
{
	uint64_t tick = model->tick();

	for (uint32_t i = 0; i < vol->flying.count; i++)
		model->requests[vol->flying.id[i]].state = REQUEST_LOST;
	vol->flying.count = 0;
	for (uint32_t i = 0; i < verdict->applied.count; i++) {
		struct model_request *r = &model->requests[verdict->applied.id[i]];

		if (r->state != REQUEST_LOST)
			continue; /* a failed one: in history already */
		r->state = state_if_in(r, verdict->applied.id[i], content);
		r->unordered = true;
		r->done = tick;
		id_list_add(&vol->history, verdict->applied.id[i]);
	}
}

void model_adopt(struct model *model, struct model_volume *vol, enum model_after after, const uint32_t *content,
		 const struct model_verdict *verdict)
{
	rule_history(model, vol, after, content, verdict);
	rule_flying(model, vol, content, verdict);
	memcpy(vol->live, content, model_slots_in_use(vol) * sizeof(uint32_t));
	if (after == AFTER_KILL || after == AFTER_LOSS)
		return;
	vol->floor = model->tick();
	for (uint32_t i = 0; i < vol->history.count; i++)
		model->requests[vol->history.id[i]].certain = true;
	if (model->keep_history)
		return;
	vol->history.count = 0;
	memcpy(vol->base, content, vol->slots * sizeof(uint32_t));
}

void model_verdict_release(struct model_verdict *verdict)
{
	free(verdict->applied.id);
	verdict->applied = (struct id_list){ 0 };
}
