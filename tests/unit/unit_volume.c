/* Requests on volumes, for tests: see unit_volume.h. */
#include "tests/unit/unit_volume.h"

#include <string.h>

#include "pool/runtime/fiber.h"

struct request {
	struct vio vio;
	struct iovec iov;
	struct fiber *fiber;
	bool done;
	int res;
};

static void request_done(struct vio *vio, int res)
{
	struct request *r = container_of(vio, struct request, vio);

	r->res = res;
	r->done = true;
	fiber_wake(r->fiber);
}

int unit_volume_request(struct volume *volume, enum vio_op op, uint64_t off_bytes, uint64_t len_bytes, void *buf)
{
	struct request r = { .vio = { .op = op,
				      .off_bytes = off_bytes,
				      .len_bytes = len_bytes,
				      .iov = &r.iov,
				      .iov_count = 1,
				      .done = request_done },
			     .iov = { buf, len_bytes },
			     .fiber = fiber_self() };

	volume_submit(volume, &r.vio);
	while (!r.done)
		fiber_park();
	return r.res;
}

int unit_volume_open(struct volumes *volumes, const char *name, struct volume **out, struct err *err)
{
	int rc = volume_open(volumes, name, out, err);
	struct volume_claim claim = { .nonce = 1, .holder = "the test" };

	if (rc < 0 || strchr(name, '@'))
		return rc;
	claim.epoch = volume_epoch(*out);
	rc = volume_activate(*out, &claim, err);
	if (rc < 0)
		volume_close(*out);
	return rc;
}
