/* A reactor's inside. Only for pool/runtime/reactor*.c. */
#ifndef POOL_RUNTIME_REACTOR_INT_H
#define POOL_RUNTIME_REACTOR_INT_H

#include <liburing.h>
#include <stdatomic.h>

#include "pool/runtime/offload.h"
#include "pool/runtime/reactor.h"

#define RANDOM_POOL_COUNT 32

struct reactor {
	struct loop loop; /* first: what the hot path touches */
	struct io_uring ring;
	uint64_t idle_since_ns;  /* 0: the last turn had work */
	uint64_t spin_ns;        /* how long to look for work before sleeping */
	int cpu;                 /* -1: not pinned */
	bool enabled;            /* the ring belongs to the thread that runs us */
	int event_fd;            /* the doorbell */
	struct ring_op doorbell; /* multishot poll of event_fd */
	uint64_t random_pool[RANDOM_POOL_COUNT];
	uint32_t random_left;
	struct offload offload;

	/* Shared with other threads. */
	_Alignas(64) atomic_bool asleep; /* about to sleep or sleeping: ring the doorbell. Cleared by who rings */
	atomic_bool stop;
};

#endif
