/* As whom a vhost-user session writes its volume: see "who may write" in volumes/volume.h.
 *
 * A session is INACTIVE until its front end starts a ring. It then claims the volume: a new front end on top of the epoch that the
 * volume had when it connected, so not if anybody else has come first; one that has been here before on top of its own epoch,
 * which stands in its inflight region, so not if anybody has written since. While another session is at work there is no claim at
 * all. So of two front ends with the same volume one is refused, and one that was superseded stays so, whatever it does.
 *
 * A session whose rings are all stopped is at rest: then another one may claim, as the destination of a migration does. The nonce
 * is in the region before the claim is made: should we die in its midst, the next session finds that it succeeded. */
#include <errno.h>
#include <stdio.h>
#include <sys/socket.h>

#include "targets/vhost_user_int.h"

/* The front end has been here before. */
static bool recall_claim(const struct vhost_session *s, struct inflight_claim *claim)
{
	struct inflight_claim found;

	if (!s->env.inflight || !inflight_claim(s->env.inflight, &found) || found.volume != claim->volume)
		return false;
	*claim = found;
	return true;
}

static void note_claim(struct vhost_session *s, const struct inflight_claim *claim)
{
	if (s->env.inflight)
		inflight_set_claim(s->env.inflight, claim);
}

static void describe(const struct vhost_session *s, char text[VOLUME_HOLDER_BYTES])
{
	struct ucred peer = { 0 };
	socklen_t len = sizeof(peer);

	(void)getsockopt(s->sock, SOL_SOCKET, SO_PEERCRED, &peer, &len);
	snprintf(text, VOLUME_HOLDER_BYTES, "process %d on '%.80s'", (int)peer.pid, s->vu->address);
}

/* A claim whose answer was lost has its nonce in the region, and is made again as it was. */
static int try_claim(struct vhost_session *s, struct inflight_claim *claim, uint64_t nonce, struct err *err)
{
	char holder[VOLUME_HOLDER_BYTES];
	int rc;

	describe(s, holder);
	claim->nonce = nonce;
	note_claim(s, claim);
	rc = volume_activate(s->vu->dev.volume, &(struct volume_claim){ claim->epoch, nonce, holder }, err);
	if (rc == 0) {
		claim->epoch++;
		note_claim(s, claim);
	}
	return rc;
}

static int first_claim(struct vhost_session *s, struct err *err)
{
	struct inflight_claim claim = { volume_id(s->vu->dev.volume), s->epoch_seen, 0 };
	bool known = recall_claim(s, &claim);
	int rc;

	/* The epoch has moved on: perhaps by ourselves, before we could note it. */
	if (known && claim.epoch != volume_epoch(s->vu->dev.volume))
		rc = try_claim(s, &claim, claim.nonce, err);
	else
		rc = try_claim(s, &claim, loop_random(s->vu->loop) | 1, err);
	/* Who never came in has nothing to be stale. */
	if (rc < 0 && !known)
		note_claim(s, &(struct inflight_claim){ 0 });
	s->claimed = rc == 0;
	return rc;
}

int vhost_session_claim(struct vhost_session *s)
{
	struct err err = { "" };
	int rc;

	if (s->at_work || s->vu->dev.read_only)
		return 0;
	rc = s->claimed ? volume_resume(s->vu->dev.volume, &err) : first_claim(s, &err);
	s->at_work = rc == 0;
	if (rc < 0)
		vhost_session_say(s, "no ring starts: %s", err.msg);
	return rc;
}

void vhost_session_recall_claim(struct vhost_session *s)
{
	struct inflight_claim claim = { volume_id(s->vu->dev.volume), volume_epoch(s->vu->dev.volume), 0 };

	/* A region that came after the claim, in the place of none or of another one. */
	if (s->claimed)
		note_claim(s, &claim);
}

void vhost_user_rest(struct vhost_user *vu)
{
	if (vu->lingering > 0)
		return;
	if (vu->session) {
		for_each_ring(ring, vu->session)
			if (ring->has_kick || vhost_ring_is_started(ring))
				return;
		vu->session->at_work = false;
	}
	volume_rest(vu->dev.volume);
}
