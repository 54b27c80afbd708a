/* The event loop. See events.h.
 *
 * How: one event a turn. So a handler may remove and free any other event: nothing of it is queued here. */
#include "vmm-glue/events.h"

#include <errno.h>
#include <sys/timerfd.h>
#include <unistd.h>

int events_init(struct events *events, struct err *err)
{
	*events = (struct events){ .epoll_fd = epoll_create1(EPOLL_CLOEXEC) };
	return events->epoll_fd < 0 ? err_set(err, -errno, "cannot make an epoll descriptor: %m") : 0;
}

void events_release(struct events *events)
{
	if (events->epoll_fd >= 0)
		close(events->epoll_fd);
	events->epoll_fd = -1;
}

static int control(struct events *events, int op, struct event *event, uint32_t epoll_events)
{
	struct epoll_event ep = { .events = epoll_events, .data.ptr = event };

	return epoll_ctl(events->epoll_fd, op, event->fd, &ep) < 0 ? -errno : 0;
}

int events_add(struct events *events, struct event *event, uint32_t epoll_events)
{
	return control(events, EPOLL_CTL_ADD, event, epoll_events);
}

void events_change(struct events *events, struct event *event, uint32_t epoll_events)
{
	(void)control(events, EPOLL_CTL_MOD, event, epoll_events);
}

void events_remove(struct events *events, struct event *event)
{
	if (event->fd >= 0)
		(void)control(events, EPOLL_CTL_DEL, event, 0);
}

void events_run(struct events *events, pthread_mutex_t *lock)
{
	while (!events->stop) {
		struct epoll_event ep;

		/* The lock is taken between hearing of an event and serving it, and whoever had it may have removed it:
		 * so look, lock, and ask again without waiting. */
		if (epoll_wait(events->epoll_fd, &ep, 1, -1) < 1)
			continue;
		pthread_mutex_lock(lock);
		if (!events->stop && epoll_wait(events->epoll_fd, &ep, 1, 0) == 1) {
			struct event *event = ep.data.ptr;

			event->ready(event, ep.events);
		}
		pthread_mutex_unlock(lock);
	}
}

int events_timer_create(void)
{
	int fd = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);

	return fd < 0 ? -errno : fd;
}

void events_timer_set(int timer_fd, uint64_t ns)
{
	struct itimerspec spec = { .it_value = { (time_t)(ns / 1000000000), (long)(ns % 1000000000) } };

	(void)timerfd_settime(timer_fd, 0, &spec, NULL);
}

uint64_t events_take(int fd)
{
	uint64_t count;

	return read(fd, &count, sizeof(count)) == sizeof(count) ? count : 0;
}

void events_signal(int fd)
{
	const uint64_t one = 1;
	ssize_t put = write(fd, &one, sizeof(one));

	/* A counter that is full has been heard. */
	(void)put;
}
