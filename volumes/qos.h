/* Inside volumes/: limits of rate, of a volume and of a group of volumes.
 *
 * Each limit is one number, the time at which the next request may start. A request takes that place and moves it on by
 * what it costs (a second / rate for each request, or byte); it is held back until its place has come. So a request of any size starts
 * as soon as what was before it is paid, those behind it wait for its price, and there is no tick and nothing to refill.
 * What was not used is saved up for `burst`: the number falls behind the clock, by so much at most. (This is a token bucket that
 * may go below zero; as GCRA it is in ITU-T I.371.)
 *
 * The numbers of a group are shared by threads, and atomic. Each volume holds one place at a time, so those of a group take turns. */
#ifndef VOLUMES_QOS_H
#define VOLUMES_QOS_H

#include <stdbool.h>
#include <stdint.h>

#include "pool/base/list.h"
#include "pool/runtime/loop.h"
#include "volumes/volume.h"

/* Of requests, and of bytes. */
#define QOS_RATES 2

struct qos {
	_Atomic uint64_t rate[QOS_RATES];    /* a second; 0: no limit */
	_Atomic uint64_t burst_ns;
	_Atomic uint64_t next_ns[QOS_RATES]; /* when the next one may start */
};

/* Any thread. */
void qos_set(struct qos *qos, const struct volume_limits *limits);
/* Takes a place for one request of so many bytes. When it may start: not after `now_ns`: at once. Any thread. */
uint64_t qos_take(struct qos *qos, uint64_t now_ns, uint64_t bytes);

/* Requests of a volume that are held back. Owner: the home loop. */
struct throttle {
	struct qos own;
	struct qos *group;               /* or NULL */
	struct list waiting;             /* vios, in order; the first has its place */
	uint64_t first_ns;               /* which is this */
	struct timer timer;
	struct loop *loop;
	bool cancel;                     /* some of them are not to wait any more */
	struct volume_counters *counters;
	uint64_t waiting_count, counted_ns; /* up to when their waiting has been counted */
};

/* NULL: no memory. */
struct throttle *throttle_new(struct loop *loop, struct volume_counters *counters);
/* Starts all that waits. Home loop, or nothing has ever waited. */
void throttle_free(struct throttle *throttle);
/* False: the request may start now, or is cancelled. True: it is kept, and started by volume_start later. Home loop. */
bool throttle_hold(struct throttle *throttle, struct vio *vio);
/* Those held back whose *cancelled is true end with -ECANCELED, in a later turn. Home loop. */
void throttle_cancel(struct throttle *throttle);
/* The limits have changed: the first starts now, and those behind it by the new ones. Home loop. */
void throttle_changed(struct throttle *throttle);

#endif
