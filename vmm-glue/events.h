/* The main thread's event loop, on epoll. A handler runs with the VM's lock held; adding, changing and removing events
 * wants the lock too, from any thread. */
#ifndef VMM_EVENTS_H
#define VMM_EVENTS_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/epoll.h>

#include "pool/base/err.h"

struct event {
	int fd; /* the owner's; -1: none */
	void (*ready)(struct event *event, uint32_t epoll_events);
};

struct events {
	int epoll_fd;
	bool stop;
};

int events_init(struct events *events, struct err *err) __attribute__((warn_unused_result));
void events_release(struct events *events);
/* Fails for lack of memory, and for files that can always be read (-EPERM). */
int events_add(struct events *events, struct event *event, uint32_t epoll_events) __attribute__((warn_unused_result));
void events_change(struct events *events, struct event *event, uint32_t epoll_events);
/* Nothing is heard of it afterwards. Harmless if it was not added. */
void events_remove(struct events *events, struct event *event);
/* Serves events, with `lock` held around each, until stop is set. */
void events_run(struct events *events, pthread_mutex_t *lock);

/* A timer is a descriptor as well. -errno. */
int events_timer_create(void);
/* Fires once, after ns (> 0); 0 stops it. */
void events_timer_set(int timer_fd, uint64_t ns);
/* Takes what an eventfd or timer has counted. */
uint64_t events_take(int fd);
/* Adds one to an eventfd. */
void events_signal(int fd);

#endif
