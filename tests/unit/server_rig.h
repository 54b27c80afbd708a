/* What a test of a network disk stands on: a reactor, a folder, and a server that may be there. Main thread. */
#ifndef TESTS_UNIT_SERVER_RIG_H
#define TESTS_UNIT_SERVER_RIG_H

#include <stdbool.h>
#include <sys/types.h>

#include "pool/runtime/reactor.h"

struct server_rig {
	struct reactor *reactor;
	bool running; /* a test that failed stays so: its fiber never ends */
	char folder[256];
	pid_t server; /* 0: none; else it is killed at the end */
};

/* The folder is named after the test. */
void server_rig_setup(struct server_rig *rig, const char *test);
/* 0, or -1: the folder cannot be removed. */
int server_rig_teardown(struct server_rig *rig);
/* Runs fn on a fiber of the reactor, to its end. */
void server_rig_run(struct server_rig *rig, void (*fn)(void));

#endif
