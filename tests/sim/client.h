/* A client of one volume: keeps requests in flight on the volume's home loop and checks every answer.
 *
 * Requests of one client overlap each other at will, except where the model could not tell what is right (FUA). */
#ifndef TESTS_SIM_CLIENT_H
#define TESTS_SIM_CLIENT_H

#include "tests/sim/world.h"

#define CLIENT_IOVS_MAX 24

struct slot {
	struct vio vio;
	struct client *client;
	uint32_t id; /* model's number of the request; 0: a request that must be refused, with: */
	int refusal;
	bool busy;
	struct volume *handle; /* by which it was sent */
	uint8_t *buf;
	struct iovec iov[CLIENT_IOVS_MAX];
};

struct client {
	struct world *world;
	struct sim_volume *sv;
	struct loop *home;
	struct task kick; /* starts it on the home loop */
	bool kicked;
	struct timer think;
	uint32_t depth, flying, left; /* left: requests still to make */
	uint32_t following;           /* of them to be made now, as another client's has been answered */
	bool stopping;
	bool superseded; /* another handle may be the writer already: what is sent by this one may be refused */
	uint64_t answered;  /* requests ever */
	uint32_t hot;       /* slot around which much happens */
	uint32_t relief_at; /* next slot to discard, UINT32_MAX: none */
	struct slot slot[SIM_DEPTH_MAX];
};

/* The volume is open. Starts to work at once. */
struct client *client_start(struct world *w, struct sim_volume *sv, uint32_t requests);
/* At rest only. */
void client_stop(struct client *client);
/* After a crash. */
void client_free(struct client *client);
void client_resume(struct client *client);
/* Nothing is in flight by another handle than the volume's. */
bool client_is_rid(const struct client *client);
/* Sends a write by a handle that must not write. Beyond the depth; not before client_is_rid. */
void client_send_stale(struct client *client, struct volume *stale);
/* Discards all of the volume, to give space back, beside whatever is in flight. */
void client_discard_all(struct client *client);
static inline bool client_done(const struct client *client)
{
	return client->flying == 0 && !client->kicked && client->relief_at == UINT32_MAX &&
	       (client->left == 0 || client->stopping);
}

#endif
