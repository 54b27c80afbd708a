/* Examines an opened pool: is the directory, is every sector of every volume what the model allows? See world.h. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/sim/stamp.h"
#include "tests/sim/trace.h"
#include "tests/sim/world.h"

/* ---- volumes of the directory ---- */

struct sim_volume *world_find(struct world *w, const char *name)
{
	for (uint32_t i = 0; i < w->volumes; i++) {
		if (strcmp(w->volume[i]->name, name) == 0)
			return w->volume[i];
	}
	return NULL;
}

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

struct sim_volume *sim_volume_new(struct world *w)
{
	struct model_window win[MODEL_WINDOWS_MAX];
	struct sim_volume *sv = calloc(1, sizeof(*sv));
	uint64_t size_sectors;
	uint32_t windows = draw_windows(w, win, &size_sectors);

	if (!sv)
		abort();
	snprintf(sv->name, sizeof(sv->name), "vol%u", ++w->names);
	sv->model = model_volume_new(&w->model, size_sectors, win, windows);
	sv->content = calloc(sv->model->slots, sizeof(uint32_t));
	if (!sv->content)
		abort();
	return sv;
}

void sim_volume_free(struct sim_volume *sv)
{
	if (!sv)
		return;
	model_volume_free(sv->model);
	free(sv->content);
	free(sv);
}

void world_remove(struct world *w, struct sim_volume *sv)
{
	for (uint32_t i = 0; i < w->volumes; i++) {
		if (w->volume[i] == sv)
			w->volume[i] = w->volume[--w->volumes];
	}
	sim_volume_free(sv);
}

/* ---- directory ---- */

static int note_found(void *arg, const struct volume_info *info)
{
	struct world *w = arg;

	if (w->found < SIM_VOLUMES_MAX + 2)
		w->found_info[w->found++] = *info;
	return 0;
}

/* What the volume should be called and measure, before or after the pending operation; NULL: it should not be there. */
static const char *expected(const struct world *w, const struct sim_volume *sv, bool happened, uint64_t *size_sectors)
{
	const struct pending *p = &w->pending;
	bool meant = p->volume == sv && p->op != MANAGE_NONE;

	*size_sectors = meant && happened && p->op == MANAGE_RESIZE ? p->size_sectors : sv->model->size_sectors;
	if (meant && (p->op == MANAGE_DELETE ? happened : p->op == MANAGE_CREATE && !happened))
		return NULL;
	return meant && happened && p->op == MANAGE_RENAME ? p->name : sv->name;
}

static bool was_found(struct world *w, struct sim_volume *sv, const char *name, uint64_t size_sectors)
{
	for (uint32_t i = 0; i < w->found; i++) {
		const struct volume_info *info = &w->found_info[i];

		if (strcmp(info->name, name) == 0 && info->size_bytes == size_sectors * SECTOR_BYTES) {
			sv->size_found = size_sectors;
			return true;
		}
	}
	return false;
}

static bool directory_fits(struct world *w, bool happened)
{
	uint32_t should = 0, count = w->volumes + (w->pending.op == MANAGE_CREATE);

	for (uint32_t i = 0; i < count; i++) {
		struct sim_volume *sv = i < w->volumes ? w->volume[i] : w->pending.volume;
		uint64_t size_sectors;
		const char *name = expected(w, sv, happened, &size_sectors);

		sv->size_found = 0; /* not there */
		if (!name)
			continue;
		should++;
		if (!was_found(w, sv, name, size_sectors))
			return false;
	}
	return should == w->found;
}

static void fail_directory(const struct world *w)
{
	char text[600];
	int at = 0;

	for (uint32_t i = 0; i < w->found; i++)
		at += snprintf(text + at, sizeof(text) - (size_t)at, " %.20s (%llu sectors)", w->found_info[i].name,
			       (unsigned long long)w->found_info[i].size_bytes / SECTOR_BYTES);
	at += snprintf(text + at, sizeof(text) - (size_t)at, "; known are");
	for (uint32_t i = 0; i < w->volumes; i++)
		at += snprintf(text + at, sizeof(text) - (size_t)at, " %.20s (%llu sectors)", w->volume[i]->name,
			       (unsigned long long)w->volume[i]->model->size_sectors);
	sim_fail("the directory is neither as before nor as after operation %d on %s: found are%s", (int)w->pending.op,
		 w->pending.volume ? w->pending.volume->name : "the pool", text);
}

/* What has happened is part of the world from now on. */
static void settle_pending(struct world *w, bool happened)
{
	struct pending p = w->pending;

	w->pending = (struct pending){ 0 };
	switch (p.op) {
	case MANAGE_CREATE:
		if (happened)
			w->volume[w->volumes++] = p.volume;
		else
			sim_volume_free(p.volume);
		break;
	case MANAGE_DELETE:
		if (happened)
			world_remove(w, p.volume);
		break;
	case MANAGE_RENAME:
		if (happened)
			strcpy(p.volume->name, p.name);
		break;
	case MANAGE_RESIZE:
		if (happened)
			model_resize(&w->model, p.volume->model, p.size_sectors);
		break;
	default: break;
	}
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
	if (!w->probe)
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
		uint32_t id = stamp_read(data, mv->number, sector + i);

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

static bool judge(struct world *w, struct sim_volume *sv)
{
	enum model_after after = w->damaged ? AFTER_DAMAGE : w->after;
	struct model_verdict verdict;
	bool right = model_judge(&w->model, sv->model, after, sv->size_found, sv->content, &verdict);

	if (!right)
		sim_fail("%s", verdict.why);
	else if (!w->probe)
		model_adopt(&w->model, sv->model, after, sv->content, &verdict);
	trace(TRACE_CHECK, sv->model->number, sv->model->slots, verdict.prefix, (uint64_t)after);
	model_verdict_release(&verdict);
	return right;
}

bool examine_content(struct world *w)
{
	/* A volume that is being created is there, or not, and belongs to the directory only when that is settled. */
	struct sim_volume *extra = w->pending.op == MANAGE_CREATE ? w->pending.volume : NULL;
	uint32_t count = w->volumes + (extra != NULL);

	if (!w->damaged && !audit_pool(w))
		return false;
	for (uint32_t i = 0; i < count; i++) {
		struct sim_volume *sv = i < w->volumes ? w->volume[i] : extra;

		if (sv->size_found == 0)
			continue;
		if (!read_content(w, sv) || !judge(w, sv))
			return false;
	}
	return true;
}
