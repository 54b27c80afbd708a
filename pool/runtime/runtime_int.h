/* What loop.c and fiber.c need of each other. Only for pool/runtime. */
#ifndef POOL_RUNTIME_RUNTIME_INT_H
#define POOL_RUNTIME_RUNTIME_INT_H

#include "pool/runtime/loop.h"

/* Makes room so that every live fiber and `extra` more timers can be armed together. 0 or -ENOMEM. */
int loop_reserve_timers(struct loop *loop, uint32_t extra) __attribute__((warn_unused_result));

/* Arms the timer of a live fiber, which is not armed: there is room, so it cannot fail. */
void loop_arm_fiber_timer(struct loop *loop, struct timer *timer, uint64_t due_ns);

/* Frees all stacks that are kept for reuse. */
void fiber_release_free(struct loop *loop);

#endif
