/* fio I/O engine "vhost-blk": a vhost-user-blk front end (tests/client) as a guest's polling driver would be.
 *
 *     fio --ioengine=external:build/fio-vhost-blk.so --filename=SOCKET[:SOCKET...] [--queues=N]
 *         [--ring_size=N] [--indirect=0] [--segment=BYTES] --rw=randread --iodepth=32 ...
 *
 * How: each socket is one file of the job, and one session. fio's buffers lie in a memory region that all servers map, so
 * no byte is copied here. A request is published to its ring at once; the server is kicked only if it asks for it.
 * getevents polls the used rings and never waits for a notification. fsync becomes FLUSH, trim becomes DISCARD.
 *
 * Always: built against the source of exactly the fio that loads it (tests/bench/fio-source.sh). A job that cannot have
 * its queues, or whose server completes what was not in flight, fails: nothing is measured around an error. */
#include "fio.h"
#include "optgroup.h"

#include "tests/client/vhost_client.h"

#define RING_SIZE_MAX	1024
#define RING_BYTES_EACH (8u << 10) /* of guest memory, generous: a descriptor and its slot in vhost_ring.c */
#define POLLS_PER_LOOK	(1u << 20)
#define CONNECT_WAIT_MS 10000

struct options {
	void *pad; /* fio: no option may be at offset 0 */
	unsigned int queues;
	unsigned int ring_size;
	unsigned int indirect;
	unsigned int segment_bytes;
};

struct session {
	struct vc *vc;
	unsigned buffers;	/* the region of fio's buffers */
	uint32_t segment_bytes; /* 0: a buffer is one segment */
	struct virtio_blk_discard_write_zeroes *range; /* one for each io_u */
	uint64_t range_gpa;
};

struct engine {
	struct session *session;
	unsigned sessions;
	unsigned queues;
	unsigned ring_next; /* where polling goes on: session times queues plus queue */
	uint8_t *buffers;
	struct io_u **event;
};

#define ENGINE_OPTION(option_name, option_type, member, default_text, text)                           \
	{                                                                                             \
		.name = option_name, .lname = option_name, .type = option_type, .def = default_text,  \
		.off1 = offsetof(struct options, member), .help = text, .category = FIO_OPT_C_ENGINE, \
		.group = FIO_OPT_G_INVALID,                                                           \
	}

static struct fio_option engine_options[] = {
	ENGINE_OPTION("queues", FIO_OPT_INT, queues, "1", "Virtqueues of each session, used in turn"),
	ENGINE_OPTION("ring_size", FIO_OPT_INT, ring_size, "128", "Descriptors of each queue"),
	ENGINE_OPTION("indirect", FIO_OPT_BOOL, indirect, "1", "Use indirect descriptors when offered, as Linux does"),
	ENGINE_OPTION("segment", FIO_OPT_INT, segment_bytes, "0", "Cut buffers into pieces of this size (0: whole)"),
	{ .name = NULL },
};

static int complain(const char *where, const char *what)
{
	log_err("vhost-blk: %s: %s\n", where, what);
	return 1;
}

static struct vc *create_client(const struct options *o, const char *path)
{
	struct vc_options client;

	vc_options_init(&client, path);
	client.connect_wait_ms = client.reply_wait_ms = CONNECT_WAIT_MS;
	client.direct = !o->indirect;
	client.ring_size = o->ring_size;
	client.queues = o->queues;
	client.region_bytes = (uint64_t)o->queues * o->ring_size * RING_BYTES_EACH + (1u << 20);
	return vc_create(&client);
}

/* ---- set-up, in fio's main process: how large are the volumes? ---- */

static int learn_size(const struct options *o, struct fio_file *file)
{
	struct vc *vc = create_client(o, file->file_name);

	if (vc == NULL)
		return complain(file->file_name, "no memory");
	int rc = vc_connect(vc);
	if (rc < 0)
		complain(file->file_name, vc->error);
	file->real_file_size = vc->config.capacity * 512;
	fio_file_set_size_known(file);
	vc_destroy(vc);
	return rc < 0;
}

static int vhost_blk_setup(struct thread_data *td)
{
	struct options *o = td->eo;
	struct fio_file *file;
	unsigned i;

	if (o->queues == 0 || o->queues > VC_QUEUES_MAX || o->ring_size == 0 || o->ring_size > RING_SIZE_MAX)
		return complain("options", "1 to 16 queues, ring_size up to 1024");
	for_each_file(td, file, i)
	{
		if (learn_size(o, file) != 0)
			return 1;
	}
	return 0;
}

/* ---- a job's sessions ---- */

static int create_session(struct thread_data *td, struct fio_file *file, struct session *s)
{
	const struct options *o = td->eo;
	size_t range_bytes = td->o.iodepth * sizeof(s->range[0]);

	s->vc = create_client(o, file->file_name);
	if (s->vc == NULL)
		return complain(file->file_name, "no memory");
	s->segment_bytes = o->segment_bytes;
	s->range_gpa = vc_alloc(s->vc, range_bytes);
	s->range = vc_ptr(s->vc, s->range_gpa, range_bytes);
	FILE_SET_ENG_DATA(file, s);
	return 0;
}

static int vhost_blk_init(struct thread_data *td)
{
	const struct options *o = td->eo;
	struct engine *e = calloc(1, sizeof(*e));
	struct fio_file *file;
	unsigned i;

	if (e == NULL)
		return complain("job", "no memory");
	td->io_ops_data = e;
	e->queues = o->queues;
	e->session = calloc(td->files_index, sizeof(e->session[0]));
	e->event = calloc(td->o.iodepth, sizeof(e->event[0]));
	if (e->session == NULL || e->event == NULL)
		return complain("job", "no memory");
	for_each_file(td, file, i)
	{
		if (create_session(td, file, &e->session[e->sessions++]) != 0)
			return 1;
	}
	return 0;
}

/* The first session's region holds the buffers, the others share it. */
static int vhost_blk_iomem_alloc(struct thread_data *td, size_t size_bytes)
{
	struct engine *e = td->io_ops_data;
	int region = vc_region_create(e->session[0].vc, (size_bytes + 4095) & ~4095ull);

	for (unsigned i = 0; i < e->sessions && region >= 0; i++) {
		if (i > 0)
			region = vc_region_import(e->session[i].vc,
			    &e->session[0].vc->region[e->session[0].buffers]);
		e->session[i].buffers = (unsigned)region;
	}
	if (region < 0)
		return complain("job", "no memory for buffers");
	e->buffers = e->session[0].vc->region[e->session[0].buffers].map;
	memset(e->buffers, 0, size_bytes); /* pages are there before anything is measured */
	td->orig_buffer = (char *)e->buffers;
	return 0;
}

/* A segment must not be longer than the server allows. */
static void limit_segments(struct session *s)
{
	uint32_t most = s->vc->config.size_max;

	if (vc_has(s->vc, VIRTIO_BLK_F_SIZE_MAX) && most > 0 && (s->segment_bytes == 0 || s->segment_bytes > most))
		s->segment_bytes = most;
}

/* Whether all of the job's requests fit a session's rings at once, as they may. */
static bool fits(const struct thread_data *td, const struct session *s)
{
	const struct options *o = td->eo;
	unsigned long long bs_bytes = max(td->o.max_bs[DDIR_READ], td->o.max_bs[DDIR_WRITE]);
	unsigned long long segs = s->segment_bytes == 0 ? 1 : (bs_bytes + s->segment_bytes - 1) / s->segment_bytes;
	bool indirect = vc_has(s->vc, VIRTIO_RING_F_INDIRECT_DESC) && o->indirect;

	return segs <= VC_SEGS_MAX &&
	       td->o.iodepth * (indirect ? 1 : segs + 2) <= (unsigned long long)o->queues * o->ring_size;
}

static int vhost_blk_post_init(struct thread_data *td)
{
	struct engine *e = td->io_ops_data;

	for (unsigned i = 0; i < e->sessions; i++) {
		struct session *s = &e->session[i];
		const char *path = s->vc->options.path;

		if (vc_connect(s->vc) < 0 || vc_start(s->vc) < 0)
			return complain(path, s->vc->error);
		limit_segments(s);
		if (!fits(td, s))
			return complain(path, "iodepth does not fit the rings: more queues or a larger ring_size");
	}
	return 0;
}

static void vhost_blk_cleanup(struct thread_data *td)
{
	struct engine *e = td->io_ops_data;

	if (e == NULL)
		return;
	for (unsigned i = 0; i < e->sessions; i++)
		vc_close(e->session[i].vc);
	free(e->session);
	free(e->event);
	free(e);
	td->io_ops_data = NULL;
}

/* The buffers lie in guest memory and go with the session. */
static void vhost_blk_iomem_free(struct thread_data *td)
{
	td->orig_buffer = NULL;
}

/* ---- requests ---- */

/* Cuts the io_u's buffer into segments. Their number. */
static unsigned cut(const struct engine *e, const struct session *s, const struct io_u *io_u, struct vc_seg *seg)
{
	uint64_t gpa = s->vc->region[s->buffers].gpa + (uint64_t)((uint8_t *)io_u->xfer_buf - e->buffers);
	uint64_t left_bytes = io_u->xfer_buflen;
	unsigned segs = 0;

	if (s->segment_bytes == 0) {
		seg[0] = (struct vc_seg){ .gpa = gpa, .len_bytes = (uint32_t)left_bytes };
		return 1;
	}
	while (left_bytes > 0) {
		uint32_t len_bytes = left_bytes < s->segment_bytes ? (uint32_t)left_bytes : s->segment_bytes;

		seg[segs++] = (struct vc_seg){ .gpa = gpa, .len_bytes = len_bytes };
		gpa += len_bytes;
		left_bytes -= len_bytes;
	}
	return segs;
}

static unsigned name_range(struct session *s, const struct io_u *io_u, struct vc_seg *seg)
{
	struct virtio_blk_discard_write_zeroes *range = &s->range[io_u->index];

	*range = (struct virtio_blk_discard_write_zeroes){
		.sector = io_u->offset / 512,
		.num_sectors = (uint32_t)(io_u->xfer_buflen / 512),
	};
	*seg = (struct vc_seg){ .gpa = s->range_gpa + io_u->index * sizeof(*range), .len_bytes = sizeof(*range) };
	return 1;
}

static enum fio_q_status fail(struct io_u *io_u, int error)
{
	io_u->error = (unsigned)error;
	return FIO_Q_COMPLETED;
}

static enum fio_q_status vhost_blk_queue(struct thread_data *td, struct io_u *io_u)
{
	struct engine *e = td->io_ops_data;
	struct session *s = FILE_ENG_DATA(io_u->file);
	unsigned queue = e->queues == 1 ? 0 : io_u->index % e->queues;
	struct vc_seg seg[VC_SEGS_MAX];
	struct vc_request request = { .seg = seg, .cookie = io_u };
	int rc;

	fio_ro_check(td, io_u);
	switch (io_u->ddir) {
	case DDIR_READ:
	case DDIR_WRITE:
		request.type = io_u->ddir == DDIR_READ ? VIRTIO_BLK_T_IN : VIRTIO_BLK_T_OUT;
		request.sector = io_u->offset / 512;
		request.segs = cut(e, s, io_u, seg);
		break;
	case DDIR_SYNC:
	case DDIR_DATASYNC:
		if (!vc_has(s->vc, VIRTIO_BLK_F_FLUSH))
			return fail(io_u, EOPNOTSUPP);
		request.type = VIRTIO_BLK_T_FLUSH;
		break;
	case DDIR_TRIM:
		request.type = VIRTIO_BLK_T_DISCARD;
		request.segs = name_range(s, io_u, seg);
		break;
	default: return fail(io_u, EINVAL);
	}
	rc = vc_submit(s->vc, queue, &request);
	if (rc < 0)
		return rc == -EAGAIN ? FIO_Q_BUSY : fail(io_u, -rc);
	vc_kick(s->vc, queue);
	return FIO_Q_QUEUED;
}

static unsigned error_of(uint8_t status)
{
	switch (status) {
	case VIRTIO_BLK_S_OK: return 0;
	case VIRTIO_BLK_S_UNSUPP: return EOPNOTSUPP;
	default: return EIO;
	}
}

/* Takes what one ring has completed. The number of events so far, or -errno. */
static int reap(struct engine *e, struct session *s, unsigned queue, int events, int max_events)
{
	struct vc_done done;

	while (events < max_events) {
		int rc = vc_reap(s->vc, queue, &done);
		if (rc < 0)
			return complain(s->vc->options.path, s->vc->error) ? rc : 0;
		if (rc == 0)
			break;
		struct io_u *io_u = done.cookie;
		io_u->error = error_of(done.status);
		e->event[events++] = io_u;
	}
	return events;
}

static uint64_t deadline_of(const struct timespec *wait)
{
	return wait == NULL ? UINT64_MAX
			    : vu_now_ns() + (uint64_t)wait->tv_sec * 1000000000u + (uint64_t)wait->tv_nsec;
}

static bool any_lost(const struct engine *e)
{
	for (unsigned i = 0; i < e->sessions; i++) {
		if (vu_is_closed(e->session[i].vc->sock))
			return complain(e->session[i].vc->options.path, "the server went away");
	}
	return false;
}

static int vhost_blk_getevents(
    struct thread_data *td, unsigned int min_events, unsigned int max_events, const struct timespec *wait)
{
	struct engine *e = td->io_ops_data;
	unsigned rings = e->sessions * e->queues;
	uint64_t deadline_ns = deadline_of(wait);
	int events = 0;

	for (unsigned polls = 1;; polls++) {
		unsigned ring = e->ring_next;

		e->ring_next = ring + 1 == rings ? 0 : ring + 1;
		events = reap(e, &e->session[ring / e->queues], ring % e->queues, events, (int)max_events);
		if (events < 0)
			return events;
		if (events >= (int)min_events && (events > 0 || polls >= rings))
			return events;
		if (wait != NULL && polls % 64 == 0 && vu_now_ns() >= deadline_ns)
			return events;
		if (polls % POLLS_PER_LOOK == 0 && any_lost(e))
			return -EPIPE;
	}
}

static struct io_u *vhost_blk_event(struct thread_data *td, int index)
{
	const struct engine *e = td->io_ops_data;

	return e->event[index];
}

/* ---- files: each is a session, open as long as the job ---- */

static int nothing_to_do(struct thread_data *td, struct fio_file *file)
{
	return 0;
}

/* The symbol that fio looks for. */
extern struct ioengine_ops ioengine;
struct ioengine_ops ioengine = {
	.name = "vhost-blk",
	.version = FIO_IOOPS_VERSION,
	.flags = FIO_RAWIO | FIO_NOEXTEND | FIO_NODISKUTIL | FIO_DISKLESSIO,
	.setup = vhost_blk_setup,
	.init = vhost_blk_init,
	.post_init = vhost_blk_post_init,
	.cleanup = vhost_blk_cleanup,
	.iomem_alloc = vhost_blk_iomem_alloc,
	.iomem_free = vhost_blk_iomem_free,
	.queue = vhost_blk_queue,
	.getevents = vhost_blk_getevents,
	.event = vhost_blk_event,
	.open_file = nothing_to_do,
	.close_file = nothing_to_do,
	.invalidate = nothing_to_do,
	.option_struct_size = sizeof(struct options),
	.options = engine_options,
};
