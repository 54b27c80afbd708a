/* Who may write a volume: see volume.h.
 *
 * A CAT_EPOCH object has the volume's epoch, the nonce of the claim that made it and its holder. An epoch is durable before
 * anybody writes in it, and changes on the pool's loop under `claims`, one after the other; the home loop then learns it between
 * two requests. A request is checked when it is appended, so what waited for space or for a block to merge is fenced like what
 * comes later; and what was appended before came before the new writer, who has not been told yet.
 *
 * After a crash a claim whose answer was lost is made again with the same nonce and finds itself done. */
#include <errno.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>

#include "volumes/directory.h"

static_assert(sizeof(((struct epoch_format *)0)->holder) == VOLUME_HOLDER_BYTES, "holder");

/* --- catalog ------------------------------------------------------------------------------------------------ */

int epoch_load(struct volume_state *vol)
{
	const struct cat_obj *obj = catalog_get(pool_catalog(vol->vols->pool), CAT_EPOCH, vol->id);
	const struct epoch_format *f;

	if (!obj)
		return 0;
	f = obj->data;
	if (obj->len_bytes != sizeof(*f) || le64_get(f->epoch) == 0 || vol->flags & (VOLUME_SNAPSHOT | VOLUME_DELETED) ||
	    !memchr(f->holder, 0, sizeof(f->holder)))
		return -EINVAL;
	vol->epoch = le64_get(f->epoch);
	vol->nonce = le64_get(f->nonce);
	strcpy(vol->holder, f->holder);
	return 0;
}

static void put_epoch(struct cat_txn *txn, const struct volume_state *vol, uint64_t epoch, uint64_t nonce, const char *holder)
{
	struct epoch_format f = { .epoch = le64_of(epoch), .nonce = le64_of(nonce) };

	snprintf(f.holder, sizeof(f.holder), "%s", holder);
	cat_put(txn, CAT_EPOCH, vol->id, &f, sizeof(f));
}

void epoch_fence_in(struct cat_txn *txn, const struct volume_state *vol)
{
	if (vol->epoch > 0)
		put_epoch(txn, vol, vol->epoch + 1, 0, "");
}

void epoch_fenced(struct volume_state *vol)
{
	if (vol->epoch == 0)
		return;
	vol->epoch++;
	vol->nonce = 0;
	vol->holder[0] = '\0';
}

/* --- changing it -------------------------------------------------------------------------------------------- */

struct epoch_call {
	struct volume_state *vol;
	struct volume *volume;           /* the new writer; NULL: nobody */
	uint64_t epoch;
};

static int set_on_home(void *arg)
{
	const struct epoch_call *call = arg;
	struct volume_state *vol = call->vol;

	vol->epoch = call->epoch;
	vol->busy_epoch = call->volume ? call->epoch : 0;
	if (call->volume)
		call->volume->epoch = call->epoch;
	/* What waits and may not write any more ends now. */
	lineage_drain_soon(vol->lin);
	waitq_wake_all(&vol->lin->room);
	return 0;
}

static int commit_epoch(struct volume_state *vol, uint64_t epoch, uint64_t nonce, const char *holder)
{
	struct cat_txn txn;
	int rc;

	cat_txn_init(&txn);
	put_epoch(&txn, vol, epoch, nonce, holder);
	rc = pool_commit(vol->vols->pool, &txn);
	cat_txn_release(&txn);
	if (rc < 0)
		return rc;
	vol->nonce = nonce;
	snprintf(vol->holder, sizeof(vol->holder), "%s", holder);
	return 0;
}

/* Durable first, then in force. */
static int change(struct volume_state *vol, struct volume *volume, uint64_t epoch, uint64_t nonce, const char *holder,
		  struct err *err)
{
	struct epoch_call call = { vol, volume, epoch };
	int rc = epoch > vol->epoch ? commit_epoch(vol, epoch, nonce, holder) : 0;

	if (rc < 0)
		return directory_commit_error(err, rc, "change the writer of volume", vol->name);
	directory_call(vol->lin->loop, set_on_home, &call);
	return 0;
}

/* --- claims ------------------------------------------------------------------------------------------------- */

/* Somebody else works; its holder is as recorded. */
static int check_rest(const struct volume *volume, struct err *err)
{
	const struct volume_state *vol = volume->state;

	return volume_is_held(volume) ? err_set(err, -EBUSY, "volume '%s' is being written by %s", vol->name, vol->holder) : 0;
}

static int stale(const struct volume_state *vol, uint64_t epoch, struct err *err)
{
	return err_set(err, -ESTALE, "volume '%s' has had another writer since (epoch %llu, not %llu): %s", vol->name,
		       (unsigned long long)vol->epoch, (unsigned long long)epoch, vol->holder[0] ? vol->holder : "nobody now");
}

struct claim_call {
	struct volume *volume;
	const struct volume_claim *claim;
	struct err *err;
};

static int activate(const struct claim_call *call)
{
	const struct volume_claim *claim = call->claim;
	struct volume_state *vol = call->volume->state;
	bool done_before = claim->nonce == vol->nonce && claim->epoch + 1 == vol->epoch;
	int rc;

	if (!volume_is_writable(vol))
		return err_set(call->err, -EROFS, "'%s' is a snapshot", vol->name);
	if (claim->epoch != vol->epoch && !done_before)
		return stale(vol, claim->epoch, call->err);
	rc = check_rest(call->volume, call->err);
	return rc < 0 ? rc : change(vol, call->volume, claim->epoch + 1, claim->nonce, claim->holder, call->err);
}

static int activate_on_pool(void *arg)
{
	const struct claim_call *call = arg;
	struct volumes *vols = call->volume->state->vols;
	int rc;

	fmutex_lock(&vols->claims);
	rc = activate(call);
	fmutex_unlock(&vols->claims);
	return rc;
}

int volume_activate(struct volume *volume, const struct volume_claim *claim, struct err *err)
{
	struct claim_call call = { volume, claim, err };
	int rc = fiber_call_on(volume->state->vols->loop, activate_on_pool, &call);

	return rc == -ENOMEM ? err_set(err, rc, "cannot activate volume '%s': out of memory", volume->state->name) : rc;
}

/* Under `claims`, so that nobody is activated at the same time. */
static int resume_on_pool(void *arg)
{
	const struct claim_call *call = arg;
	struct volume_state *vol = call->volume->state;
	int rc = 0;

	fmutex_lock(&vol->vols->claims);
	if (volume_is_writer(call->volume))
		vol->busy_epoch = vol->epoch;
	else
		rc = stale(vol, call->volume->epoch, call->err);
	fmutex_unlock(&vol->vols->claims);
	return rc;
}

int volume_resume(struct volume *volume, struct err *err)
{
	struct claim_call call = { .volume = volume, .err = err };
	int rc = fiber_call_on(volume->state->vols->loop, resume_on_pool, &call);

	return rc == -ENOMEM ? err_set(err, rc, "cannot go on with volume '%s': out of memory", volume->state->name) : rc;
}

void volume_rest(struct volume *volume)
{
	uint64_t mine = volume->epoch;

	if (mine > 0)
		atomic_compare_exchange_strong(&volume->state->busy_epoch, &mine, 0);
}

int volume_fence(struct volumes *vols, const char *name, struct err *err)
{
	struct volume_state *vol;
	int rc;

	fmutex_lock(&vols->change);      /* the volume stays */
	fmutex_lock(&vols->claims);
	rc = directory_need(vols, name, &vol, err);
	if (rc == 0 && !volume_is_writable(vol))
		rc = err_set(err, -EROFS, "'%s' is a snapshot", name);
	if (rc == 0)
		rc = change(vol, NULL, vol->epoch + 1, 0, "", err);
	fmutex_unlock(&vols->claims);
	fmutex_unlock(&vols->change);
	return rc;
}

uint64_t volume_epoch(const struct volume *volume)
{
	return volume->state->epoch;
}

bool volume_is_held(const struct volume *volume)
{
	uint64_t busy = volume->state->busy_epoch;

	return busy > 0 && busy != volume->epoch;
}
