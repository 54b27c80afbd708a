#include "tests/unit/server_rig.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>

#include "pool/runtime/fiber.h"
#include "tests/unit/unit.h"
#include "tests/unit/unit_server.h"

void server_rig_setup(struct server_rig *rig, const char *test)
{
	const char *tmp = getenv("TMPDIR");
	struct err err;

	snprintf(rig->folder, sizeof(rig->folder), "%s/%s.XXXXXX", tmp ? tmp : "/tmp", test);
	assert_non_null(mkdtemp(rig->folder));
	if (reactor_create(0, -1, &rig->reactor, &err))
		fail_msg("%s", err.msg);
	rig->server = 0;
}

int server_rig_teardown(struct server_rig *rig)
{
	if (rig->server)
		unit_server_signal(rig->server, SIGKILL);
	if (!rig->running)
		reactor_destroy(rig->reactor);
	rig->running = false;
	return unit_shell("rm -rf '%s'", rig->folder) ? 0 : -1;
}

struct body {
	struct server_rig *rig;
	void (*fn)(void);
};

static void run_body(void *arg)
{
	const struct body *body = arg;

	body->fn();
	reactor_stop(body->rig->reactor);
}

void server_rig_run(struct server_rig *rig, void (*fn)(void))
{
	struct body body = { rig, fn };

	rig->running = true;
	assert_int_equal(fiber_start(reactor_loop(rig->reactor), run_body, &body), 0);
	reactor_run(rig->reactor);
	rig->running = false;
}
