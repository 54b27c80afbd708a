/* What the runtime asks of Valgrind; nothing where its header is not installed. Costs a few instructions otherwise. */
#ifndef POOL_RUNTIME_VALGRIND_H
#define POOL_RUNTIME_VALGRIND_H

#if __has_include(<valgrind/valgrind.h>)
#include <valgrind/valgrind.h>
#else
#define RUNNING_ON_VALGRIND 0
#define VALGRIND_STACK_REGISTER(start, end) 0
#define VALGRIND_STACK_DEREGISTER(id) ((void)(id))
#endif

#endif
