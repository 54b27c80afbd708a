/* Fibers: their life, the switch, park and wake. See fiber.h.
 *
 * One piece of memory holds a fiber, the struct in the same allocation as its stack:
 *
 *     | guard page | canary | stack, growing down  ... | struct fiber | colour |
 *
 * A fiber's context is made once. Between two lives it rests in fiber_main's loop, on loop->free_fibers.
 *
 *     READY    posted to run                    -> RUNNING by its task
 *     RUNNING  it is loop->current              -> PARKED, SLEEPING, READY (yield), DONE
 *     PARKED   waits for a wake or its timer    -> WOKEN
 *     SLEEPING waits for its timer only         -> READY
 *     WOKEN    was parked, posted to run        -> RUNNING
 *     DONE     fn returned                      -> free list, or freed
 *
 * A wake of a WOKEN fiber is the same wake. In any other state but PARKED it is kept in wake_pending for the next park.
 * Only tasks of the loop switch to fibers, so there is never a fiber below a fiber. */
#include "pool/runtime/fiber.h"

#include <assert.h>
#include <errno.h>

#include "pool/base/mem.h"
#include "pool/runtime/fiber_checkers.h"
#include "pool/runtime/runtime_int.h"

#define FIBERS_FREE_MAX 64
#define STACK_CANARY 0x7374616b656e6421ull
#define STACK_ALIGN 64
/* Stacks begin at different places in their page, else the busy end of all would fall on the same few cache sets. */
#define COLOURS 8
#define COLOUR_BYTES 512

/* Boost.Context's C entry points (boost/context/detail/fcontext.hpp is C++). */
typedef void *fcontext_t;
struct transfer {
	fcontext_t from; /* where the jump came from; jump there to go back */
	void *data;
};
extern struct transfer jump_fcontext(fcontext_t to, void *data);
extern fcontext_t make_fcontext(void *stack_top, size_t stack_bytes, void (*fn)(struct transfer));

enum fiber_state { FIBER_READY, FIBER_RUNNING, FIBER_PARKED, FIBER_SLEEPING, FIBER_WOKEN, FIBER_DONE };

struct fiber {
	struct loop *loop;
	struct task task;   /* switches to the fiber */
	struct timer timer; /* of fiber_sleep_ns and fiber_park_until */
	enum fiber_state state;
	bool wake_pending;
	bool timed_out; /* the timer ended the last park */
	void (*fn)(void *arg);
	void *arg;
	fcontext_t context; /* valid while not RUNNING */
	char *memory;       /* what mem_alloc_aligned returned */
	uint64_t *canary;
	struct list free_node; /* on loop->free_fibers */
	struct fiber_checkers checkers;
};

static_assert(FIBER_STACK_BYTES % MEM_PAGE_BYTES == 0, "the stack is whole pages");

/* ---- the switch ---- */

static void leave_fiber(struct fiber *fiber)
{
	struct loop *loop = fiber->loop;

	checkers_leave_fiber(&fiber->checkers);
	loop->main_context = jump_fcontext(loop->main_context, NULL).from;
	checkers_reach_fiber(&fiber->checkers);
}

static void fiber_main(struct transfer transfer)
{
	struct fiber *fiber = transfer.data;

	fiber->loop->main_context = transfer.from;
	checkers_reach_fiber(&fiber->checkers);
	for (;;) {
		fiber->fn(fiber->arg);
		fiber->state = FIBER_DONE;
		leave_fiber(fiber);
	}
}

static void fiber_end(struct fiber *fiber);

static void enter_fiber(struct task *task)
{
	struct fiber *fiber = container_of(task, struct fiber, task);
	struct loop *loop = fiber->loop;

	assert(!loop->current && loop_self() == loop);
	loop->current = fiber;
	fiber->state = FIBER_RUNNING;
	checkers_leave_loop(&fiber->checkers);
	fiber->context = jump_fcontext(fiber->context, fiber).from;
	checkers_reach_loop(&fiber->checkers);
	loop->current = NULL;
	if (fiber->state == FIBER_DONE)
		fiber_end(fiber);
}

/* Gives way until something posts the fiber's task. */
static void give_way(struct fiber *fiber, enum fiber_state state)
{
	fiber->state = state;
	leave_fiber(fiber);
	assert(fiber->state == FIBER_RUNNING);
}

static void make_ready(struct fiber *fiber, enum fiber_state state)
{
	fiber->state = state;
	loop_post(fiber->loop, &fiber->task);
}

/* ---- life ---- */

static void timer_ended(struct timer *timer)
{
	struct fiber *fiber = container_of(timer, struct fiber, timer);

	if (fiber->state == FIBER_SLEEPING) {
		make_ready(fiber, FIBER_READY);
	} else if (fiber->state == FIBER_PARKED) {
		fiber->timed_out = true;
		make_ready(fiber, FIBER_WOKEN);
	}
}

static struct fiber *fiber_new(struct loop *loop)
{
	char *memory = mem_alloc_aligned(MEM_PAGE_BYTES, MEM_PAGE_BYTES + FIBER_STACK_BYTES);
	size_t colour_bytes = loop->fibers_live % COLOURS * COLOUR_BYTES;
	char *stack, *top;
	struct fiber *fiber;

	if (!memory)
		return NULL;
	stack = memory + MEM_PAGE_BYTES;
	top = stack + ((FIBER_STACK_BYTES - sizeof(*fiber)) & ~(size_t)(STACK_ALIGN - 1)) - colour_bytes;
	fiber = (struct fiber *)top;
	*fiber = (struct fiber){
		.loop = loop,
		.task.fn = enter_fiber,
		.memory = memory,
		.canary = (uint64_t *)stack,
		.context = make_fcontext(top, (size_t)(top - stack), fiber_main),
	};
	*fiber->canary = STACK_CANARY;
	timer_init(&fiber->timer, timer_ended);
	list_init(&fiber->free_node);
	checkers_init(&fiber->checkers, stack, (size_t)(top - stack));
	mem_guard(memory, MEM_PAGE_BYTES, true);
	return fiber;
}

static void fiber_free(struct fiber *fiber)
{
	char *memory = fiber->memory;

	checkers_fini(&fiber->checkers);
	mem_guard(memory, MEM_PAGE_BYTES, false);
	mem_free(memory);
}

static struct fiber *fiber_get(struct loop *loop)
{
	struct list *node = list_pop_front(&loop->free_fibers);

	if (!node)
		return fiber_new(loop);
	loop->fibers_free--;
	return list_entry(node, struct fiber, free_node);
}

static void fiber_put(struct fiber *fiber)
{
	struct loop *loop = fiber->loop;

	if (loop->fibers_free >= FIBERS_FREE_MAX) {
		fiber_free(fiber);
		return;
	}
	/* To the front: the stack used last is the one in the cache. */
	list_push_front(&loop->free_fibers, &fiber->free_node);
	loop->fibers_free++;
}

static void fiber_end(struct fiber *fiber)
{
	assert(fiber->timer.heap_pos == 0);
	/* Where there is no guard page, this is how an overflow comes to light. */
	assert(*fiber->canary == STACK_CANARY);
	fiber->loop->fibers_live--;
	fiber_put(fiber);
}

void fiber_release_free(struct loop *loop)
{
	struct list *node;

	while ((node = list_pop_front(&loop->free_fibers))) {
		fiber_free(list_entry(node, struct fiber, free_node));
		loop->fibers_free--;
	}
}

int fiber_start(struct loop *loop, void (*fn)(void *arg), void *arg)
{
	struct fiber *fiber;

	if (loop_reserve_timers(loop, 1))
		return -ENOMEM;
	fiber = fiber_get(loop);
	if (!fiber)
		return -ENOMEM;
	fiber->fn = fn;
	fiber->arg = arg;
	fiber->wake_pending = false;
	loop->fibers_live++;
	make_ready(fiber, FIBER_READY);
	return 0;
}

/* ---- park and wake ---- */

struct fiber *fiber_self(void)
{
	struct loop *loop = loop_self();

	return loop ? loop->current : NULL;
}

static struct fiber *running_fiber(void)
{
	struct fiber *fiber = fiber_self();

	assert(fiber && fiber->state == FIBER_RUNNING);
	return fiber;
}

/* A wake that came already, used up. */
static bool take_pending(struct fiber *fiber)
{
	bool pending = fiber->wake_pending;

	fiber->wake_pending = false;
	return pending;
}

void fiber_park(void)
{
	struct fiber *fiber = running_fiber();

	if (!take_pending(fiber))
		give_way(fiber, FIBER_PARKED);
}

bool fiber_park_until(uint64_t due_ns)
{
	struct fiber *fiber = running_fiber();

	if (take_pending(fiber))
		return true;
	fiber->timed_out = false;
	if (due_ns != UINT64_MAX)
		loop_arm_fiber_timer(fiber->loop, &fiber->timer, due_ns);
	give_way(fiber, FIBER_PARKED);
	timer_cancel(fiber->loop, &fiber->timer);
	return !fiber->timed_out;
}

void fiber_wake(struct fiber *fiber)
{
	assert(fiber->state != FIBER_DONE);
	if (fiber->state == FIBER_PARKED)
		make_ready(fiber, FIBER_WOKEN);
	else if (fiber->state != FIBER_WOKEN)
		fiber->wake_pending = true;
}

void fiber_yield(void)
{
	struct fiber *fiber = running_fiber();

	loop_post(fiber->loop, &fiber->task);
	give_way(fiber, FIBER_READY);
}

void fiber_sleep_ns(uint64_t ns)
{
	struct fiber *fiber = running_fiber();
	uint64_t due_ns;

	if (__builtin_add_overflow(loop_now_ns(fiber->loop), ns, &due_ns))
		due_ns = UINT64_MAX;
	loop_arm_fiber_timer(fiber->loop, &fiber->timer, due_ns);
	give_way(fiber, FIBER_SLEEPING);
}
