/* Examines an opened pool: is the directory, is every sector of every volume what the model allows? See world.h. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/sim/stamp.h"
#include "tests/sim/trace.h"
#include "tests/sim/world.h"

/* ---- directory ---- */

static int note_found(void *arg, const struct volume_info *info)
{
	struct world *w = arg;

	if (w->found < SIM_IMAGES_MAX)
		w->found_info[w->found] = *info;
	w->found++;
	return 0;
}

static bool is_made(const struct world *w, const struct sim_volume *sv)
{
	for (uint32_t i = 0; i < w->pending.made_count; i++) {
		if (w->pending.made[i] == sv)
			return true;
	}
	return false;
}

/* Its own name, before or after the pending operation. */
static const char *own_name(const struct world *w, const struct sim_volume *sv, bool happened)
{
	return happened && w->pending.op == MANAGE_RENAME && w->pending.volume == sv ? w->pending.name : sv->name;
}

/* What the image should be called and measure, before or after the pending operation. False: it should not be there. */
static bool expected(const struct world *w, const struct sim_volume *sv, bool happened, char name[VOLUME_NAME_BYTES],
		     uint64_t *size_sectors)
{
	const struct pending *p = &w->pending;
	bool goes = p->op == MANAGE_DELETE && (p->volume == sv || p->volume == sv->of);

	*size_sectors = sv->model->size_sectors;
	if (happened && p->volume == sv && (p->op == MANAGE_RESIZE || p->op == MANAGE_ROLLBACK))
		*size_sectors = p->size_sectors;
	if (sv->of)
		snprintf(name, VOLUME_NAME_BYTES, "%s@%s", own_name(w, sv->of, happened), own_name(w, sv, happened));
	else
		snprintf(name, VOLUME_NAME_BYTES, "%s", own_name(w, sv, happened));
	return happened ? !goes : !is_made(w, sv);
}

static bool was_found(struct world *w, struct sim_volume *sv, const char *name, uint64_t size_sectors)
{
	for (uint32_t i = 0; i < w->found; i++) {
		const struct volume_info *info = &w->found_info[i];

		if (strcmp(info->name, name) == 0 && info->size_bytes == size_sectors * SECTOR_BYTES &&
		    info->snapshot == (sv->of != NULL)) {
			sv->size_found = size_sectors;
			strcpy(sv->name_found, name);
			return true;
		}
	}
	return false;
}

static bool directory_fits(struct world *w, bool happened)
{
	struct sim_volume *sv;
	uint32_t should = 0;

	for (uint32_t i = 0; (sv = world_image(w, i)); i++) {
		char name[VOLUME_NAME_BYTES];
		uint64_t size_sectors;

		sv->size_found = 0; /* not there */
		if (!expected(w, sv, happened, name, &size_sectors))
			continue;
		should++;
		if (!was_found(w, sv, name, size_sectors))
			return false;
	}
	return should == w->found;
}

static void fail_directory(const struct world *w)
{
	const struct sim_volume *sv;
	char text[SIM_IMAGES_MAX * 100], name[VOLUME_NAME_BYTES];
	int at = 0;

	for (uint32_t i = 0; i < w->found && i < SIM_IMAGES_MAX; i++)
		at += snprintf(text + at, sizeof(text) - (size_t)at, " %.20s (%llu sectors)", w->found_info[i].name,
			       (unsigned long long)w->found_info[i].size_bytes / SECTOR_BYTES);
	at += snprintf(text + at, sizeof(text) - (size_t)at, "; known are");
	for (uint32_t i = 0; (sv = world_image(w, i)); i++) {
		sim_volume_name(sv, name);
		at += snprintf(text + at, sizeof(text) - (size_t)at, " %.20s (%llu sectors%s)", name,
			       (unsigned long long)sv->model->size_sectors, is_made(w, sv) ? ", perhaps" : "");
	}
	sim_fail("the directory is neither as before nor as after operation %d on %s: found are%s", (int)w->pending.op,
		 w->pending.volume ? w->pending.volume->name : "the pool", text);
}

/* What has happened is part of the world from now on. */
static void settle_pending(struct world *w, bool happened)
{
	struct pending *p = &w->pending;

	if (happened && p->op == MANAGE_DELETE)
		world_remove(w, p->volume);
	else if (happened && p->op == MANAGE_RENAME)
		strcpy(p->volume->name, p->name);
	else if (happened && p->op == MANAGE_RESIZE)
		model_resize(&w->model, p->volume->model, p->size_sectors);
	else if (happened && p->op == MANAGE_ROLLBACK)
		world_rolled_back(w, p->volume, p->snapshot);
	else if (happened)
		world_add_made(w);
	world_forget_made(w);
	w->pending = (struct pending){ 0 };
}

/* Size tells about a rollback, if at all; otherwise only content does. */
static bool is_ambiguous(const struct world *w)
{
	return w->pending.op == MANAGE_ROLLBACK && w->pending.size_sectors == w->pending.volume->model->size_sectors;
}

bool examine_directory(struct world *w)
{
	bool happened = false;
	int rc;

	w->found = 0;
	rc = volume_for_each(w->vols, note_found, w);
	if (rc < 0) {
		if (!world_excuses(w, rc, 0))
			sim_fail("the directory cannot be read: error %d", -rc);
		return false;
	}
	if (!directory_fits(w, false)) {
		happened = true;
		if (w->pending.op == MANAGE_NONE || !directory_fits(w, true)) {
			fail_directory(w);
			return false;
		}
	}
	if (!w->probe && !is_ambiguous(w))
		settle_pending(w, happened);
	return true;
}

/* ---- content ---- */

/* Reads a volume from end to end, on a fiber of its home loop. */
struct reading {
	struct world *w;
	struct sim_volume *sv;
	struct vio vio;
	struct iovec iov;
	struct fiber *fiber;
	bool done;
	int res;
	uint64_t since;
};

static uint8_t read_buf[VIO_BYTES_MAX] __attribute__((aligned(4096)));

static void read_done(struct vio *vio, int res)
{
	struct reading *r = container_of(vio, struct reading, vio);

	r->res = res;
	r->done = true;
	fiber_wake(r->fiber);
}

static int read_run(struct reading *r, uint32_t slot, uint32_t count)
{
	r->iov = (struct iovec){ read_buf, count * SECTOR_BYTES };
	r->vio = (struct vio){ .op = VIO_READ,
			       .off_bytes = model_sector_of(r->sv->model, slot) * SECTOR_BYTES,
			       .len_bytes = r->iov.iov_len,
			       .iov = &r->iov,
			       .iov_count = 1,
			       .done = read_done };
	r->fiber = fiber_self();
	r->done = false;
	volume_submit(r->sv->handle, &r->vio);
	while (!r->done)
		fiber_park();
	return r->res;
}

static bool note_run(struct reading *r, uint32_t slot, uint32_t count)
{
	const struct model_volume *mv = r->sv->model;
	uint64_t sector = model_sector_of(mv, slot);
	char text[120];

	for (uint32_t i = 0; i < count; i++) {
		const uint8_t *data = read_buf + (size_t)i * SECTOR_BYTES;
		uint32_t id = stamp_read(data, mv->family, sector + i);

		if (id == STAMP_WRONG) {
			sim_fail("volume %u: sector %llu holds %s", mv->number, (unsigned long long)(sector + i),
				 stamp_to_text(data, text, sizeof(text)));
			return false;
		}
		r->sv->content[slot + i] = id;
		trace_hash(id);
	}
	return true;
}

/* A run that cannot be read as a whole is read by blocks, so that only the bad ones count as unreadable. */
static bool read_piece(struct reading *r, uint32_t slot, uint32_t count)
{
	int res = read_run(r, slot, count);

	if (res == 0)
		return note_run(r, slot, count);
	if (!world_excuses(r->w, res, r->since)) {
		sim_fail("volume %u: sectors from %llu cannot be read (error %d), and nothing excuses it",
			 r->sv->model->number, (unsigned long long)model_sector_of(r->sv->model, slot), -res);
		return false;
	}
	r->w->counts->errors++;
	if (count <= 8) {
		for (uint32_t i = 0; i < count; i++)
			r->sv->content[slot + i] = STAMP_UNREADABLE;
		return true;
	}
	for (uint32_t i = 0; i < count; i += 8) {
		if (!read_piece(r, slot + i, count - i < 8 ? count - i : 8))
			return false;
	}
	return true;
}

static int read_volume(void *arg)
{
	struct reading *r = arg;
	uint32_t slots = model_slots_within(r->sv->model, r->sv->size_found);
	uint64_t size = volume_size_bytes(r->sv->handle);

	if (size != r->sv->size_found * SECTOR_BYTES)
		sim_fail("volume %u: an open handle says %llu bytes, the directory %llu", r->sv->model->number,
			 (unsigned long long)size, (unsigned long long)r->sv->size_found * SECTOR_BYTES);
	memset(r->sv->content, 0, r->sv->model->slots * sizeof(uint32_t));
	for (uint32_t slot = 0; slot < slots;) {
		uint32_t count = model_run_within(r->sv->model, slot, slots);

		if (count > VIO_BYTES_MAX / SECTOR_BYTES)
			count = VIO_BYTES_MAX / SECTOR_BYTES;
		if (!read_piece(r, slot, count))
			return -EIO;
		slot += count;
	}
	return 0;
}

static bool read_content(struct world *w, struct sim_volume *sv)
{
	struct reading r = { .w = w, .sv = sv, .since = env_tick() };
	int rc;

	if (!sv->handle) { /* damaged: cannot be opened, says nothing */
		for (uint32_t i = 0; i < sv->model->slots; i++)
			sv->content[i] = STAMP_UNREADABLE;
		return true;
	}
	rc = fiber_call_on(volume_loop(sv->handle), read_volume, &r);
	if (rc == -ENOMEM)
		sim_fail("no memory for a fiber");
	return rc == 0;
}

/* ---- judgement ---- */

static bool is_readable(const struct sim_volume *sv)
{
	for (uint32_t i = 0; i < sv->model->slots; i++) {
		if (sv->content[i] == STAMP_UNREADABLE)
			return false;
	}
	return true;
}

/* An image whose content was not known: any that the cut allows is right. */
static bool judge_new(struct world *w, struct sim_volume *sv)
{
	char why[MODEL_TEXT_BYTES];

	if (!model_cut_judge(sv->cut->model, sv->cut_part, w->damaged, sv->content, why)) {
		sim_fail("%s %s: %s", sv->of ? "snapshot" : "clone", sv->name, why);
		return false;
	}
	/* A fault may hide some of it for now; but a clone is to be used. */
	if (w->probe || (!w->damaged && sv->of && !is_readable(sv)))
		return true;
	model_begin_with(&w->model, sv->model, sv->size_found, sv->content);
	sv->known = true;
	return true;
}

/* The rollback that was pending has happened. */
static bool was_rolled_back(struct world *w, struct sim_volume *sv)
{
	const struct pending *p = &w->pending;
	const uint32_t *wanted = p->snapshot ? p->snapshot->model->live : NULL;
	uint32_t slots = model_slots_within(sv->model, sv->size_found);

	if (p->op != MANAGE_ROLLBACK || p->volume != sv || p->size_sectors != sv->size_found)
		return false;
	for (uint32_t i = 0; i < slots && !w->damaged; i++) {
		if (sv->content[i] != wanted[i] && wanted[i] != STAMP_UNREADABLE)
			return false;
	}
	if (w->probe)
		return true;
	settle_pending(w, true);
	model_begin_with(&w->model, sv->model, sv->size_found, sv->content);
	return true;
}

static bool judge_known(struct world *w, struct sim_volume *sv, bool settle)
{
	enum model_after after = w->damaged ? AFTER_DAMAGE : w->after;
	struct model_verdict verdict;
	bool right = model_judge(&w->model, sv->model, after, sv->size_found, sv->content, &verdict);

	if (right && settle)
		model_adopt(&w->model, sv->model, after, sv->content, &verdict);
	else if (!right && !was_rolled_back(w, sv)) /* if it was, the model is right already */
		sim_fail("%s%s", sv->of ? "snapshot: " : "", verdict.why);
	trace(TRACE_CHECK, sv->model->number, sv->model->slots, verdict.prefix, (uint64_t)after);
	model_verdict_release(&verdict);
	return !sim_failed();
}

/* All images of the cut are as of one instant, as soon as all have been read. */
static bool check_cut(struct world *w, const struct sim_cut *cut)
{
	const uint32_t *contents[MODEL_CUT_MAX];
	struct sim_volume *sv;
	uint32_t count = 0;

	for (uint32_t i = 0; (sv = world_image(w, i)); i++) {
		if (sv->cut != cut || !(sv->known || sv->was_read))
			continue;
		contents[sv->cut_part] = sv->known ? sv->model->live : sv->content;
		count++;
	}
	if (count < cut->model->count)
		return true;
	if (count > 1 && !w->damaged && !model_cut_is_one(cut->model, contents)) {
		sim_fail("%u snapshots that were made at once are not of one instant", count);
		return false;
	}
	for (uint32_t i = 0; (sv = world_image(w, i)) && !w->probe; i++) {
		if (sv->cut == cut && sv->known)
			sim_volume_drop_cut(sv);
	}
	return true;
}

static bool examine_one(struct world *w, struct sim_volume *sv, bool settle)
{
	if (!read_content(w, sv))
		return false;
	sv->was_read = true;
	return sv->known ? judge_known(w, sv, settle) : judge_new(w, sv);
}

bool examine_image(struct world *w, struct sim_volume *sv)
{
	sv->size_found = sv->model->size_sectors;
	return examine_one(w, sv, false) && (!sv->cut || check_cut(w, sv->cut));
}

static bool check_cuts(struct world *w)
{
	struct sim_volume *sv;

	for (uint32_t i = 0; (sv = world_image(w, i)); i++) {
		if (sv->cut && !check_cut(w, sv->cut))
			return false;
	}
	return true;
}

/* Snapshots are closed again. */
static void put_handle(struct sim_volume *sv)
{
	if (!sv->of || !sv->handle)
		return;
	volume_close(sv->handle);
	sv->handle = NULL;
}

bool examine_content(struct world *w)
{
	struct sim_volume *sv;

	if (!w->damaged && !audit_pool(w))
		return false;
	for (uint32_t i = 0; (sv = world_image(w, i)); i++)
		sv->was_read = false;
	for (uint32_t i = 0; (sv = world_image(w, i)); i++) {
		/* In a probe some will do. */
		bool skip = sv->size_found == 0 || (w->probe && sv->of && rng_per_mille(&w->rng, 500));

		if (!skip && !examine_one(w, sv, !w->probe))
			return false;
		put_handle(sv);
	}
	if (is_ambiguous(w) && !w->probe)
		settle_pending(w, false);
	return check_cuts(w);
}
