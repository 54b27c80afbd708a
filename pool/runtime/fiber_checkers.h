/* Tells AddressSanitizer, ThreadSanitizer and Valgrind about fiber stacks and switches. Empty without them. Only for
 * fiber.c. Each pair brackets one jump: the first call is made on the stack that is left, the second one on the stack
 * that is reached. */
#ifndef POOL_RUNTIME_FIBER_CHECKERS_H
#define POOL_RUNTIME_FIBER_CHECKERS_H

#include <stddef.h>

#ifdef __SANITIZE_ADDRESS__
#include <sanitizer/common_interface_defs.h>
#endif
#ifdef __SANITIZE_THREAD__
#include <sanitizer/tsan_interface.h>
#endif

#include "pool/runtime/valgrind.h"

struct fiber_checkers {
	const void *stack; /* lowest address */
	size_t stack_bytes;
	unsigned int valgrind_id;
#ifdef __SANITIZE_ADDRESS__
	void *fake_stack, *loop_fake_stack;
	const void *loop_stack; /* of the thread that runs the loop */
	size_t loop_stack_bytes;
#endif
#ifdef __SANITIZE_THREAD__
	void *tsan, *loop_tsan;
#endif
};

static inline void checkers_init(struct fiber_checkers *c, const void *stack, size_t stack_bytes)
{
	c->stack = stack;
	c->stack_bytes = stack_bytes;
	c->valgrind_id = VALGRIND_STACK_REGISTER(stack, (const char *)stack + stack_bytes);
#ifdef __SANITIZE_ADDRESS__
	c->fake_stack = NULL;
#endif
#ifdef __SANITIZE_THREAD__
	c->tsan = __tsan_create_fiber(0);
#endif
}

static inline void checkers_fini(struct fiber_checkers *c)
{
	VALGRIND_STACK_DEREGISTER(c->valgrind_id);
#ifdef __SANITIZE_THREAD__
	__tsan_destroy_fiber(c->tsan);
#endif
}

/* The loop jumps to the fiber ... */
static inline void checkers_leave_loop(struct fiber_checkers *c)
{
	(void)c;
#ifdef __SANITIZE_ADDRESS__
	__sanitizer_start_switch_fiber(&c->loop_fake_stack, c->stack, c->stack_bytes);
#endif
#ifdef __SANITIZE_THREAD__
	c->loop_tsan = __tsan_get_current_fiber();
	__tsan_switch_to_fiber(c->tsan, 0);
#endif
}

/* ... and the fiber goes on. */
static inline void checkers_reach_fiber(struct fiber_checkers *c)
{
	(void)c;
#ifdef __SANITIZE_ADDRESS__
	__sanitizer_finish_switch_fiber(c->fake_stack, &c->loop_stack, &c->loop_stack_bytes);
#endif
}

/* The fiber jumps back to the loop ... */
static inline void checkers_leave_fiber(struct fiber_checkers *c)
{
	(void)c;
#ifdef __SANITIZE_ADDRESS__
	__sanitizer_start_switch_fiber(&c->fake_stack, c->loop_stack, c->loop_stack_bytes);
#endif
#ifdef __SANITIZE_THREAD__
	__tsan_switch_to_fiber(c->loop_tsan, 0);
#endif
}

/* ... and the loop goes on. */
static inline void checkers_reach_loop(struct fiber_checkers *c)
{
	(void)c;
#ifdef __SANITIZE_ADDRESS__
	__sanitizer_finish_switch_fiber(c->loop_fake_stack, NULL, NULL);
#endif
}

#endif
