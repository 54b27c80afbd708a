/* A few helper threads for functions that block: see offload.h.
 *
 * Threads are made when a job finds none idle, up to OFFLOAD_THREADS_MAX, and stay. They block all signals, so that these
 * go to the threads that expect them. Jobs beyond that wait in line. */
#include "pool/runtime/offload.h"

#include <assert.h>
#include <signal.h>

void offload_init(struct offload *o)
{
	*o = (struct offload){ .thread_count = 0 };
	pthread_mutex_init(&o->lock, NULL);
	pthread_cond_init(&o->wanted, NULL);
	list_init(&o->queue);
}

void offload_fini(struct offload *o)
{
	pthread_mutex_lock(&o->lock);
	assert(list_empty(&o->queue));
	o->quit = true;
	pthread_cond_broadcast(&o->wanted);
	pthread_mutex_unlock(&o->lock);
	for (uint32_t i = 0; i < o->thread_count; i++)
		pthread_join(o->threads[i], NULL);
	pthread_cond_destroy(&o->wanted);
	pthread_mutex_destroy(&o->lock);
}

/* The next job; NULL: quit. */
static struct offload_job *next_job(struct offload *o)
{
	struct list *node;

	pthread_mutex_lock(&o->lock);
	o->idle_count++;
	while (list_empty(&o->queue) && !o->quit)
		pthread_cond_wait(&o->wanted, &o->lock);
	o->idle_count--;
	node = list_pop_front(&o->queue);
	pthread_mutex_unlock(&o->lock);
	return node ? list_entry(node, struct offload_job, node) : NULL;
}

static void *helper_main(void *arg)
{
	struct offload *o = arg;
	struct offload_job *job;

	while ((job = next_job(o))) {
		job->res = job->fn(job->arg);
		loop_send(job->loop, &job->done);
	}
	return NULL;
}

/* Lock held. 0 or -errno. */
static int add_thread(struct offload *o)
{
	sigset_t all, before;
	int ret;

	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &before);
	ret = pthread_create(&o->threads[o->thread_count], NULL, helper_main, o);
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	if (ret == 0)
		o->thread_count++;
	return -ret;
}

/* Lock held. Would one more job have to wait for a thread? Idle ones may have been signalled but not yet run. */
static bool short_of_threads(const struct offload *o)
{
	uint32_t waiting = 0;

	list_for_each(node, &o->queue)
		waiting++;
	return waiting >= o->idle_count;
}

int offload_submit(struct offload *o, struct offload_job *job)
{
	int ret = 0;

	pthread_mutex_lock(&o->lock);
	if (short_of_threads(o) && o->thread_count < OFFLOAD_THREADS_MAX)
		ret = add_thread(o);
	if (o->thread_count > 0) {
		ret = 0;
		list_push_back(&o->queue, &job->node);
		pthread_cond_signal(&o->wanted);
	}
	pthread_mutex_unlock(&o->lock);
	return ret;
}
