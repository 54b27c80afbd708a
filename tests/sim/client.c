/* The load: random requests on a volume, checked against the model. See client.h. */
#include "tests/sim/client.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "tests/sim/stamp.h"
#include "tests/sim/trace.h"

#define SECTORS_MAX (VIO_BYTES_MAX / SECTOR_BYTES)
#define RELIEF_SLOTS 4096u

static void pump(struct client *c);
static void kick_soon(struct client *c);

/* ---- memory ---- */

static void cut_iov(struct slot *s, struct rng *rng, bool odd)
{
	uint64_t left = s->vio.len_bytes;
	uint8_t *at = s->buf;
	uint32_t n = 0;

	while (left > 0) {
		uint64_t piece = left;

		if (odd && n + 1 < CLIENT_IOVS_MAX && rng_per_mille(rng, 700))
			piece = rng_range(rng, 1, left / SECTOR_BYTES) * SECTOR_BYTES;
		s->iov[n++] = (struct iovec){ at, piece };
		at += piece;
		left -= piece;
	}
	s->vio.iov = s->iov;
	s->vio.iov_count = n;
}

static void stamp_all(const struct client *c, const struct slot *s)
{
	uint64_t sector = s->vio.off_bytes / SECTOR_BYTES;

	for (uint64_t i = 0; i < s->vio.len_bytes / SECTOR_BYTES; i++)
		stamp_fill(s->buf + i * SECTOR_BYTES, c->sv->model->family, sector + i, s->id);
}

static void take_buffer(struct client *c, struct slot *s)
{
	struct world *w = c->world;

	s->buf = NULL;
	s->vio.iov = NULL;
	s->vio.iov_count = 0;
	if (s->vio.op != VIO_READ && s->vio.op != VIO_WRITE)
		return;
	s->buf = aligned_alloc(4096, (s->vio.len_bytes + 4095) / 4096 * 4096);
	if (!s->buf)
		abort();
	cut_iov(s, &w->rng, w->config.odd_iov);
	if (s->vio.op == VIO_WRITE)
		stamp_all(c, s);
	else
		memset(s->buf, 0xee, s->vio.len_bytes);
}

/* ---- answers ---- */

/* A request to another volume depends on what this one has just completed. */
static void let_follow(struct client *c)
{
	struct world *w = c->world;
	struct client *other = w->volume[rng_below(&w->rng, w->volumes)]->client;

	if (!other || other == c)
		return;
	other->following++;
	kick_soon(other);
}

static void check_read(struct client *c, struct slot *s)
{
	uint32_t content[SECTORS_MAX];
	uint64_t first = s->vio.off_bytes / SECTOR_BYTES;
	uint32_t n = (uint32_t)(s->vio.len_bytes / SECTOR_BYTES);
	char why[MODEL_TEXT_BYTES];

	for (uint32_t i = 0; i < n; i++) {
		const uint8_t *sector = s->buf + (size_t)i * SECTOR_BYTES;

		content[i] = stamp_read(sector, c->sv->model->family, first + i);
		if (content[i] == STAMP_WRONG) {
			sim_fail("volume %u: read %u: sector %llu holds %s", c->sv->model->number, s->id,
				 (unsigned long long)(first + i), stamp_to_text(sector, why, sizeof(why)));
			return;
		}
		trace_hash(content[i]);
	}
	if (!model_read_done(&c->world->model, c->sv->model, s->id, content, why))
		sim_fail("%s", why);
}

static void check_error(struct client *c, const struct slot *s, int res)
{
	uint64_t since = c->world->model.requests[s->id].submitted;

	if (res == -ESTALE && (c->superseded || s->handle != c->sv->handle)) {
		model_refuse(&c->world->model, c->sv->model, s->id);
		return;
	}
	if (!world_excuses(c->world, res, since))
		sim_fail("volume %u: request %u failed with error %d, and nothing excuses it", c->sv->model->number,
			 s->id, -res);
	c->world->counts->errors++;
	model_fail(&c->world->model, c->sv->model, s->id);
}

static void check_answer(struct client *c, struct slot *s, int res)
{
	if (s->id == 0) {
		if (res != s->refusal)
			sim_fail("volume %u: a request that must be refused was answered with %d, not %d",
				 c->sv->model->number, res, s->refusal);
		return;
	}
	if (res > 0)
		sim_fail("volume %u: request %u answered with %d", c->sv->model->number, s->id, res);
	if (res != 0)
		check_error(c, s, res);
	else if (s->vio.op == VIO_READ)
		check_read(c, s);
	else
		model_acknowledge(&c->world->model, c->sv->model, s->id);
}

static void done(struct vio *vio, int res)
{
	struct slot *s = container_of(vio, struct slot, vio);
	struct client *c = s->client;

	if (loop_self() != c->home)
		sim_fail("volume %u: request %u completed on a foreign loop", c->sv->model->number, s->id);
	if (!s->busy) {
		sim_fail("volume %u: a request was completed twice", c->sv->model->number);
		return;
	}
	trace(TRACE_DONE, c->sv->model->number, s->id, (uint64_t)-res, env_tick());
	check_answer(c, s, res);
	free(s->buf);
	s->buf = NULL;
	s->busy = false;
	c->flying--;
	c->answered++;
	c->world->counts->ios++;
	c->world->counts->bytes += vio->iov_count > 0 ? vio->len_bytes : 0;
	if (c->world->config.linked && vio->op != VIO_READ)
		let_follow(c);
	pump(c);
}

/* ---- questions ---- */

static void send_by(struct client *c, struct slot *s, struct volume *handle)
{
	s->client = c;
	s->busy = true;
	s->vio.done = done;
	take_buffer(c, s);
	c->flying++;
	s->handle = handle;
	volume_submit(handle, &s->vio);
}

static void send(struct client *c, struct slot *s)
{
	send_by(c, s, c->sv->handle);
}

static void send_known(struct client *c, struct slot *s, enum vio_op op, uint32_t start, uint32_t count, bool fua)
{
	static const enum model_op model_ops[VIO_OP_COUNT] = { MODEL_READ, MODEL_WRITE, MODEL_FLUSH, MODEL_ZERO,
							       MODEL_ZERO };
	static const enum trace_kind kinds[VIO_OP_COUNT] = { TRACE_READ, TRACE_WRITE, TRACE_FLUSH, TRACE_DISCARD,
							     TRACE_ZEROES };
	struct model_volume *mv = c->sv->model;

	s->vio = (struct vio){ .op = op, .fua = fua };
	if (op != VIO_FLUSH) {
		uint64_t first = model_sector_of(mv, start), last = model_sector_of(mv, start + count - 1);

		s->vio.off_bytes = first * SECTOR_BYTES;
		s->vio.len_bytes = (last - first + 1) * SECTOR_BYTES;
	}
	s->id = model_submit(&c->world->model, mv, model_ops[op], start, count, fua);
	trace(fua && op == VIO_WRITE ? TRACE_WRITE_FUA : kinds[op], mv->number, s->id, s->vio.off_bytes / SECTOR_BYTES,
	      s->vio.len_bytes / SECTOR_BYTES);
	send(c, s);
}

/* A request that must be answered with EINVAL. */
static void send_nonsense(struct client *c, struct slot *s)
{
	uint64_t size = c->sv->model->size_sectors * SECTOR_BYTES;
	struct rng *rng = &c->world->rng;

	s->id = 0;
	s->refusal = -EINVAL;
	s->vio = (struct vio){ .op = rng_per_mille(rng, 500) ? VIO_READ : VIO_WRITE, .len_bytes = 4096 };
	switch (rng_below(rng, 3)) {
	case 0: s->vio.off_bytes = (size + 4095) / 4096 * 4096 + rng_below(rng, 1000) * 4096; break;
	case 1: s->vio.off_bytes = UINT64_MAX - 4095; break;
	default: s->vio.off_bytes = rng_range(rng, 1, 511);
	}
	send(c, s);
}

static uint32_t draw_count(struct client *c)
{
	struct rng *rng = &c->world->rng;

	switch (c->world->config.sizes) {
	case SIZES_SMALL: return (uint32_t)rng_log_range(rng, 1, 32);
	case SIZES_BLOCKS: return (uint32_t)rng_log_range(rng, 1, 32) * 8;
	case SIZES_LARGE: return (uint32_t)rng_log_range(rng, 256, SECTORS_MAX);
	default: return (uint32_t)rng_log_range(rng, 1, rng_per_mille(rng, 100) ? SECTORS_MAX : 128);
	}
}

/* Where: around the hot spot or anywhere; on block boundaries or not. */
static void draw_range(struct client *c, uint32_t *start, uint32_t *count)
{
	struct rng *rng = &c->world->rng;
	uint32_t in_use = model_slots_in_use(c->sv->model), run;

	*count = draw_count(c);
	if (rng_per_mille(rng, 500))
		*start = (c->hot + (uint32_t)rng_below(rng, 64)) % in_use;
	else
		*start = (uint32_t)rng_below(rng, in_use);
	if (rng_per_mille(rng, 600)) {
		*start &= ~7u;
		*count = (*count + 7) & ~7u;
	}
	run = model_run(c->sv->model, *start);
	if (*count > run)
		*count = run;
}

static enum vio_op draw_op(struct client *c)
{
	const struct sim_config *config = &c->world->config;
	struct rng *rng = &c->world->rng;

	if (model_slots_in_use(c->sv->model) == 0 || rng_per_mille(rng, config->flush_per_mille))
		return VIO_FLUSH;
	if (rng_per_mille(rng, config->read_per_mille))
		return VIO_READ;
	if (rng_per_mille(rng, config->zero_per_mille))
		return rng_per_mille(rng, 500) ? VIO_DISCARD : VIO_WRITE_ZEROES;
	return VIO_WRITE;
}

static void send_random(struct client *c, struct slot *s)
{
	enum vio_op op = draw_op(c);
	struct rng *rng = &c->world->rng;
	uint32_t start = 0, count = 0;
	bool fua;

	if (rng_per_mille(rng, 5)) {
		send_nonsense(c, s);
		return;
	}
	fua = op != VIO_READ && op != VIO_FLUSH && rng_per_mille(rng, c->world->config.fua_per_mille);
	if (op != VIO_FLUSH)
		draw_range(c, &start, &count);
	/* Holes may be of any length, across windows too. */
	if ((op == VIO_DISCARD || op == VIO_WRITE_ZEROES) && rng_per_mille(rng, 100))
		count = (uint32_t)rng_range(rng, 1, model_slots_in_use(c->sv->model) - start);
	if (op != VIO_READ && op != VIO_FLUSH && model_conflicts(&c->world->model, c->sv->model, start, count, fua)) {
		op = VIO_FLUSH;
		fua = false;
		start = count = 0;
	}
	send_known(c, s, op, start, count, fua);
}

/* One more piece of the volume for client_discard_all. False: there is none, or it must wait. */
static bool send_relief(struct client *c, struct slot *s)
{
	uint32_t in_use = model_slots_in_use(c->sv->model), start, count;

	do {
		start = c->relief_at;
		if (start >= in_use) {
			c->relief_at = UINT32_MAX;
			return false;
		}
		count = in_use - start < RELIEF_SLOTS ? in_use - start : RELIEF_SLOTS;
		c->relief_at = start + count;
	} while (model_conflicts(&c->world->model, c->sv->model, start, count, false));
	send_known(c, s, VIO_DISCARD, start, count, false);
	return true;
}

/* ---- rhythm ---- */

static struct slot *free_slot(struct client *c, uint32_t depth)
{
	for (uint32_t i = 0; i < depth; i++) {
		if (!c->slot[i].busy)
			return &c->slot[i];
	}
	return NULL;
}

static bool may_send(const struct client *c)
{
	return c->left > 0 && !c->stopping && c->flying < c->depth && !sim_failed();
}

/* Beyond its depth; but one slot is kept for relief. */
static bool may_follow(struct client *c)
{
	return c->left > 0 && !c->stopping && free_slot(c, SIM_DEPTH_MAX - 1) && !sim_failed();
}

static void think_over(struct timer *timer)
{
	struct client *c = container_of(timer, struct client, think);

	if (may_send(c)) {
		c->left--;
		send_random(c, free_slot(c, c->depth));
	}
	pump(c);
}

static void pump(struct client *c)
{
	struct world *w = c->world;
	struct slot *s;

	while (c->relief_at != UINT32_MAX && (s = free_slot(c, SIM_DEPTH_MAX)) && send_relief(c, s))
		;
	while (may_send(c) && (w->config.think_ns == 0 || w->config.fills)) {
		c->left--;
		send_random(c, free_slot(c, c->depth));
	}
	if (may_send(c) && c->think.heap_pos == 0)
		(void)!timer_arm(c->home, &c->think, env_now_ns() + rng_below(&w->rng, 2 * w->config.think_ns));
}

static void kick(struct task *task)
{
	struct client *c = container_of(task, struct client, kick);

	c->kicked = false;
	for (; c->following > 0 && may_follow(c); c->following--) {
		c->left--;
		send_random(c, free_slot(c, SIM_DEPTH_MAX - 1));
	}
	c->following = 0;
	pump(c);
}

static void kick_soon(struct client *c)
{
	if (c->kicked)
		return;
	c->kicked = true;
	loop_send(c->home, &c->kick);
}

struct client *client_start(struct world *w, struct sim_volume *sv, uint32_t requests)
{
	struct client *c = calloc(1, sizeof(*c));

	if (!c)
		abort();
	c->world = w;
	c->sv = sv;
	c->home = volume_loop(sv->handle);
	c->kick.fn = kick;
	c->left = requests;
	/* One slot is kept for relief, which must get through when all others wait for space. */
	c->depth = w->config.depth < SIM_DEPTH_MAX ? w->config.depth : SIM_DEPTH_MAX - 1;
	c->relief_at = UINT32_MAX;
	c->hot = (uint32_t)rng_below(&w->rng, sv->model->slots);
	timer_init(&c->think, think_over);
	kick_soon(c);
	return c;
}

void client_free(struct client *client)
{
	for (uint32_t i = 0; i < SIM_DEPTH_MAX; i++)
		free(client->slot[i].buf);
	free(client);
}

void client_stop(struct client *client)
{
	timer_cancel(client->home, &client->think);
	client_free(client);
}

void client_resume(struct client *client)
{
	client->stopping = false;
	kick_soon(client);
}

bool client_is_rid(const struct client *client)
{
	for (uint32_t i = 0; i < SIM_DEPTH_MAX; i++) {
		if (client->slot[i].busy && client->slot[i].handle != client->sv->handle)
			return false;
	}
	return true;
}

void client_send_stale(struct client *client, struct volume *stale)
{
	struct slot *s = free_slot(client, SIM_DEPTH_MAX);

	if (!s)
		return;
	s->id = 0;
	s->refusal = -ESTALE;
	s->vio = (struct vio){ .op = VIO_WRITE, .len_bytes = 4096 };
	send_by(client, s, stale);
}

void client_discard_all(struct client *client)
{
	client->relief_at = 0;
	kick_soon(client);
}
