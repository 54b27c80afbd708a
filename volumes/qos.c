/* Limits of rate: see qos.h. */
#include "volumes/qos.h"

#include <errno.h>
#include <stdatomic.h>

#include "pool/base/mem.h"
#include "volumes/lineage.h"

#define SECOND_NS 1000000000ull

/* --- places ------------------------------------------------------------------------------------------------- */

void qos_set(struct qos *qos, const struct volume_limits *limits)
{
	qos->rate[0] = limits->iops;
	qos->rate[1] = limits->bps;
	qos->burst_ns = limits->burst_ms * 1000000ull;
	for (int i = 0; i < QOS_RATES; i++)
		qos->next_ns[i] = 0;     /* all is saved up */
}

static uint64_t take_place(struct qos *qos, int i, uint64_t now_ns, uint64_t units)
{
	uint64_t rate = qos->rate[i], burst_ns = qos->burst_ns, next, start;

	if (rate == 0 || units == 0)
		return 0;
	next = qos->next_ns[i];
	do {
		start = next + burst_ns < now_ns ? now_ns - burst_ns : next;
	} while (!atomic_compare_exchange_weak(&qos->next_ns[i], &next, start + units * SECOND_NS / rate));
	return start;
}

uint64_t qos_take(struct qos *qos, uint64_t now_ns, uint64_t bytes)
{
	uint64_t ops_ns = take_place(qos, 0, now_ns, 1), bytes_ns = take_place(qos, 1, now_ns, bytes);

	return ops_ns > bytes_ns ? ops_ns : bytes_ns;
}

/* --- waiting -------------------------------------------------------------------------------------------------- */

/* What moves data costs its length; what changes the map only is a request and no more. */
static uint64_t bytes_of(const struct vio *vio)
{
	return vio->op == VIO_READ || vio->op == VIO_WRITE ? vio->len_bytes : 0;
}

static uint64_t place_of(struct throttle *t, uint64_t now_ns, const struct vio *vio)
{
	uint64_t own_ns = qos_take(&t->own, now_ns, bytes_of(vio));
	uint64_t group_ns = t->group ? qos_take(t->group, now_ns, bytes_of(vio)) : 0;

	return own_ns > group_ns ? own_ns : group_ns;
}

/* One more waits, or one less. */
static void count_waiting(struct throttle *t, uint64_t now_ns, int change)
{
	t->counters->throttled_ns += t->waiting_count * (now_ns - t->counted_ns);
	t->counters->throttled += change > 0;
	t->waiting_count += (uint64_t)(int64_t)change;
	t->counted_ns = now_ns;
}

static struct vio *pop(struct throttle *t, uint64_t now_ns)
{
	count_waiting(t, now_ns, -1);
	return list_entry(list_pop_front(&t->waiting), struct vio, node);
}

static bool is_cancelled(const struct vio *vio)
{
	return vio->cancelled && *vio->cancelled;
}

/* The first keeps its place, also if it is another one then. */
static void drop_cancelled(struct throttle *t, uint64_t now_ns)
{
	t->cancel = false;
	list_for_each_safe(node, next, &t->waiting) {
		struct vio *vio = list_entry(node, struct vio, node);

		if (!is_cancelled(vio))
			continue;
		list_del(node);
		count_waiting(t, now_ns, -1);
		vio_finish(vio, -ECANCELED);
	}
}

/* Starts those whose place has come, each taking one only then. Without memory for the timer nothing waits. */
static void start_due(struct throttle *t)
{
	uint64_t now_ns = loop_now_ns(t->loop);

	if (t->cancel)
		drop_cancelled(t, now_ns);
	while (!list_empty(&t->waiting)) {
		if (t->first_ns > now_ns && timer_arm(t->loop, &t->timer, t->first_ns) == 0)
			return;
		volume_start(pop(t, now_ns));
		if (!list_empty(&t->waiting))
			t->first_ns = place_of(t, now_ns, list_entry(t->waiting.next, struct vio, node));
	}
}

static void timer_fired(struct timer *timer)
{
	start_due(container_of(timer, struct throttle, timer));
}

bool throttle_hold(struct throttle *t, struct vio *vio)
{
	uint64_t now_ns = loop_now_ns(t->loop);

	if (is_cancelled(vio))
		return false;
	if (list_empty(&t->waiting)) {
		uint64_t place_ns = place_of(t, now_ns, vio);

		if (place_ns <= now_ns || timer_arm(t->loop, &t->timer, place_ns) < 0)
			return false;
		t->first_ns = place_ns;
	}
	count_waiting(t, now_ns, 1);
	list_push_back(&t->waiting, &vio->node);
	return true;
}

void throttle_cancel(struct throttle *t)
{
	t->cancel = true;
	/* Without memory they end when the first of them would have started. */
	if (!list_empty(&t->waiting))
		(void)!timer_arm(t->loop, &t->timer, loop_now_ns(t->loop));
}

void throttle_changed(struct throttle *t)
{
	t->first_ns = 0;
	start_due(t);
}

/* --- life ------------------------------------------------------------------------------------------------------ */

struct throttle *throttle_new(struct loop *loop, struct volume_counters *counters)
{
	struct throttle *t = mem_zalloc(sizeof(*t));

	if (!t)
		return NULL;
	t->loop = loop;
	t->counters = counters;
	list_init(&t->waiting);
	timer_init(&t->timer, timer_fired);
	return t;
}

void throttle_free(struct throttle *t)
{
	if (!list_empty(&t->waiting))
		timer_cancel(t->loop, &t->timer);
	while (!list_empty(&t->waiting))
		volume_start(pop(t, loop_now_ns(t->loop)));
	mem_free(t);
}
