/* A few helper threads for functions that block. Only for the reactor: others call reactor_offload. */
#ifndef POOL_RUNTIME_OFFLOAD_H
#define POOL_RUNTIME_OFFLOAD_H

#include <pthread.h>

#include "pool/runtime/loop.h"

#define OFFLOAD_THREADS_MAX 4

struct offload {
	pthread_mutex_t lock;  /* guards all below */
	pthread_cond_t wanted; /* a job was queued, or quit was set */
	struct list queue;
	pthread_t threads[OFFLOAD_THREADS_MAX];
	uint32_t thread_count, idle_count;
	bool quit;
};

/* The submitter owns the job before submit and from done on. */
struct offload_job {
	int (*fn)(void *arg); /* runs on a helper thread */
	void *arg;
	struct loop *loop; /* where done is sent */
	struct task done;
	int res; /* of fn */
	struct list node;
};

void offload_init(struct offload *o);
/* Ends the threads. No job is queued or running. */
void offload_fini(struct offload *o);
/* Any thread. 0, or -errno when there is no thread and none can be made; done then does not come. */
int offload_submit(struct offload *o, struct offload_job *job) __attribute__((warn_unused_result));

#endif
