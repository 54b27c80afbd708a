/* The manager's part about who may write: every client's handle is the volume's writer, and now and then another handle takes
 * over while requests of the old one are in flight. What the old one is refused has never happened. */
#include <errno.h>

#include "tests/sim/client.h"
#include "tests/sim/trace.h"
#include "tests/sim/world.h"

void manage_check_epoch(struct world *w, const struct sim_volume *sv)
{
	uint64_t epoch = volume_epoch(sv->handle);

	if (!w->damaged && !sv->of && (epoch < sv->epoch || epoch > sv->epoch_max))
		sim_fail("volume %s has epoch %llu, which is not between %llu and %llu", sv->name, (unsigned long long)epoch,
			 (unsigned long long)sv->epoch, (unsigned long long)sv->epoch_max);
}

/* Makes the handle the writer. */
static int claim(struct world *w, struct sim_volume *sv, struct volume *handle, struct err *err)
{
	struct volume_claim claim = { .epoch = volume_epoch(handle), .nonce = rng_next(&w->rng) | 1, .holder = "a client" };
	int rc;

	if (claim.epoch + 1 > sv->epoch_max)
		sv->epoch_max = claim.epoch + 1;
	rc = volume_activate(handle, &claim, err);
	if (rc == 0)
		sv->epoch = claim.epoch + 1;
	return rc;
}

bool manage_activate(struct world *w, struct sim_volume *sv)
{
	struct err err = { "" };
	uint64_t since = env_tick();
	int rc = volume_resume(sv->handle, &err);

	if (rc == -ESTALE)
		rc = claim(w, sv, sv->handle, &err);
	if (rc < 0 && !world_excuses(w, rc, since))
		sim_fail("volume %s cannot be activated: error %d, %s", sv->name, -rc, err.msg);
	return rc == 0;
}

/* What must not be let in. */
static void intrude(struct sim_volume *sv, struct volume *handle)
{
	struct volume_claim claim = { .epoch = volume_epoch(handle), .nonce = 1, .holder = "an intruder" };
	struct err err = { "" };

	manage_expect(volume_activate(handle, &claim, &err), -EBUSY, &err, "a writer beside another");
	claim.epoch--;
	manage_expect(volume_activate(handle, &claim, &err), -ESTALE, &err, "a writer with an old epoch");
	if (!volume_is_held(handle) || volume_is_held(sv->handle))
		sim_fail("volume %s is not held by its writer", sv->name);
}

/* The old handle's requests come to their end, and it writes no more. */
static void let_go(struct sim_volume *sv, struct volume *old)
{
	uint64_t wait_ns = 50000; /* ever longer, as a disk may be slow */
	bool sent = false;

	while (!sim_failed() && (!sent || !client_is_rid(sv->client))) {
		if (!sent && client_is_rid(sv->client)) {
			client_send_stale(sv->client, old);
			sent = true;
		}
		fiber_sleep_ns(wait_ns);
		wait_ns += wait_ns / 4;
	}
	volume_close(old);
}

void manage_takeover(struct world *w, struct sim_volume *sv)
{
	struct volume *old = sv->handle, *new;
	struct err err = { "" };
	uint64_t since;
	int rc;

	if (!sv->client || volume_open(w->vols, sv->name, &new, &err) < 0)
		return;
	intrude(sv, new);
	since = manage_begin(w, MANAGE_TAKEOVER, sv, sv->epoch);
	sv->client->superseded = true;
	volume_rest(old);
	rc = claim(w, sv, new, &err);
	sv->client->superseded = false;
	if (manage_end(w, rc, since, &err)) {
		sv->handle = new;
		let_go(sv, old);
		return;
	}
	volume_close(new);
	w->pending = (struct pending){ 0 }; /* nothing that can be seen, but the epoch */
	w->manage_stopped = false;
	if (volume_resume(old, &err) < 0)
		sim_fail("the writer of volume %s is none any more: %s", sv->name, err.msg);
}
