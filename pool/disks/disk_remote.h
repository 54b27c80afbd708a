/* What network disks have in common: a session that may break, and I/O that must not suffer from it.
 *
 * A remote disk belongs to the loop that opened it (its home). I/O of other loops is carried there and back by messages, so
 * that one thread knows what has been sent, acknowledged and flushed. The protocol is in a driver (disk_nbd.c, disk_iscsi.c)
 * behind struct remote_ops. What holds when sessions break is told in ARCHITECTURE.md, "Network disks"; in short:
 *
 * - Writes are copied into a keep (disk_keep.h) when submitted, sent from there, and stay until a flush has succeeded that was
 *   begun after they were acknowledged. When the keep is half full the disk flushes by itself.
 * - When a session breaks, I/O waits. A new session is begun, again and again, and first of all size and mark are checked; then
 *   everything kept is written again, in order where it overlaps; then waiting I/O goes on.
 * - A flush that failed, whoever asked for it, makes all later ones fail.
 *
 * Everything here: home loop, unless said otherwise. Files: disk_remote.c (I/O), disk_remote_session.c (sessions). */
#ifndef POOL_DISKS_DISK_REMOTE_H
#define POOL_DISKS_DISK_REMOTE_H

#include <poll.h>
#include <sys/socket.h>

#include "pool/disks/disk_int.h"
#include "pool/disks/disk_keep.h"
#include "pool/disks/disk_uri.h"
#include "pool/runtime/reactor.h"

#define REMOTE_REQS_MAX 128 /* sent and not answered */
#define REMOTE_PIECE_BYTES (1u << 20)
#define REMOTE_TIMEOUT_S 30 /* default of the option timeout= */
#define REMOTE_STALL_S 5    /* of stall= */
#define REMOTE_TRIES_MAX 40
#define REMOTE_DISCARD_BYTES (128u << 20)

struct remote;
struct kept;

/* One request to the server. Reads and writes have at most REMOTE_PIECE_BYTES. The driver holds it from send until it calls
 * remote_req_done, or until disconnect. */
struct remote_req {
	struct list node;
	enum disk_op op;
	uint32_t iov_count; /* 1 unless remote_ops.scatters */
	uint64_t off_bytes, len_bytes;
	struct iovec *iov;
	struct remote *remote;
	/* disk_remote.c's own. */
	struct disk_io *io; /* whose part this is; NULL: our own request */
	struct kept *kept;  /* of a write */
	struct fiber *waiter;
	struct iovec one;
	char *bounce; /* REMOTE_PIECE_BYTES, kept for reuse; NULL until needed */
	bool bounced;
	uint32_t tries;
	uint64_t flush; /* number of a flush */
	int res;
	bool finished;
};

/* What a server says of a disk. */
struct remote_geometry {
	uint64_t size_bytes;
	uint32_t block_bytes;
	uint32_t piece_bytes;   /* longest read or write */
	uint64_t discard_bytes; /* longest discard; 0: there are none */
	bool volatile_cache;    /* there is something to flush */
	bool read_only;
	char serial[64]; /* "" if it has none */
};

/* To add a protocol: 1 write disk_x.c with these and an open function that ends in remote_open; 2 the rest as in disk.h. */
struct remote_ops {
	const struct disk_ops *disk_ops;
	bool scatters; /* takes more than one piece of memory in a request */
	/* Required. Begins a session; waits (fiber). 0 and *geometry; or -errno, a message, and nothing is left of it. */
	int (*connect)(struct remote *remote, uint64_t deadline_ns, struct remote_geometry *geometry, struct err *err);
	/* Required. Ends the session at once: no memory of any request is touched afterwards. It may call remote_req_done. */
	void (*disconnect)(struct remote *remote);
	/* Required. Starts a request. 0, or -errno: it is not started. */
	int (*send)(struct remote *remote, struct remote_req *req);
	/* Required. Reads or writes the socket, without waiting: one of POLLIN and POLLOUT, perhaps with POLLHUP or POLLERR;
	 * 0: writes what send has left to be written. 0, or -errno and a message: the session is over. */
	int (*service)(struct remote *remote, int revents, struct err *err);
	/* Required. The socket, and what is to be waited for on it (POLLIN, POLLOUT). */
	int (*fd)(struct remote *remote);
	short (*events)(struct remote *remote);
	/* Required. Frees the driver's struct; no session is there. */
	void (*free)(struct remote *remote);
};

enum remote_state {
	REMOTE_DOWN,     /* no session */
	REMOTE_CHECKING, /* is it our disk? */
	REMOTE_WRITING,  /* what is kept is written again */
	REMOTE_UP,
};

/* The first member of a driver's struct. */
struct remote {
	struct disk disk;
	const struct remote_ops *ops;
	struct loop *home;
	struct remote_geometry geometry;
	struct disk_mark mark;
	struct disk_expendable spare;
	uint64_t timeout_ns, give_up_ns; /* 0: never */
	uint64_t patience_ns;            /* I/O that waited so long fails if the disk can be done without */

	/* Requests. */
	struct list queue, write_queue; /* disk_io: not, or not wholly, cut into requests */
	struct list free, flying, again, finished;
	uint32_t free_count;
	struct keep keep;
	uint64_t flushes_begun, flushed;
	bool own_flush, flush_broken;
	struct task pump_task;
	bool pump_posted;
	struct timer watchdog;
	bool watching;
	bool dispensable;  /* I/O has waited for patience_ns, and the disk can be done without: until a session is there */
	uint64_t heard_ns; /* when the server last answered, or had nothing to answer */

	/* Session. */
	enum remote_state state;
	bool lost, closing, opened, ended;
	int open_res;
	struct err *open_err;
	struct err why;              /* it is not there */
	struct fiber *fiber, *owner; /* owner: opens or closes, and waits for it */
	struct fd_poll poll_in, poll_out;
	struct fd_cancel cancel; /* of what connect waits for */
	uint8_t *mark_block;

	struct remote_req reqs[REMOTE_REQS_MAX];
};

/* --- for drivers ------------------------------------------------------------------------------------------ */

/* Takes the options that all network disks have (timeout, stall, give-up). */
int remote_options(struct remote *remote, struct disk_uri *uri, struct err *err) __attribute__((warn_unused_result));
/* Begins the first session and makes a disk of it. `remote` is zeroed but for what is the driver's, and options. On failure it
 * is freed. Fiber; waits. */
int remote_open(struct remote *remote, const struct remote_ops *ops, struct disk **out, struct err *err)
	__attribute__((warn_unused_result));

/* A request is answered: 0 or -errno. -EAGAIN: to be sent once more, later; -ENOTCONN: the session is over. Whatever context; the
 * I/O ends later. */
void remote_req_done(struct remote_req *req, int res);
/* The session is over. */
void remote_lost(struct remote *remote, const char *why);

/* The members of disk_ops. */
void remote_submit(struct disk *disk, struct disk_io *io);
void remote_close(struct disk *disk);
void remote_set_mark(struct disk *disk, const struct disk_mark *mark);
void remote_set_spare(struct disk *disk, const struct disk_expendable *spare);
const char *remote_away(const struct disk *disk);

/* Looks a host up without blocking the loop. Fiber; waits. At least one address, or -errno and a message. */
#define REMOTE_ADDRESSES_MAX 4
struct remote_addresses {
	uint32_t count;
	struct remote_address {
		socklen_t len_bytes;
		struct sockaddr_storage addr;
	} at[REMOTE_ADDRESSES_MAX];
};
int remote_resolve(const char *host, const char *port, struct remote_addresses *out, struct err *err)
	__attribute__((warn_unused_result));

/* Reads a whole small file, a secret, without blocking the loop; one line end at its end is dropped. Fiber; waits. 0, or
 * -errno and a message that does not tell what is in it. */
int remote_read_secret(const char *path, char *buf, size_t size_bytes, struct err *err)
	__attribute__((warn_unused_result));

/* --- between disk_remote.c and disk_remote_session.c ------------------------------------------------------- */

/* A free request; the last REQS_RESERVED are for our own. NULL: there is none. */
struct remote_req *remote_req_get(struct remote *remote, bool own);
void remote_req_put(struct remote *remote, struct remote_req *req);
/* Sends a request; it is answered in any case. */
void remote_req_send(struct remote *remote, struct remote_req *req);
void remote_send_kept(struct remote *remote, struct remote_req *req, struct kept *kept);
/* Has remote_pump run soon. */
void remote_pump_soon(struct remote *remote);
/* Sends what is to be sent once more; `own`: only what the beginning of a session needs. */
void remote_send_again(struct remote *remote, bool own);
/* What was sent and not answered waits for the next session. */
void remote_take_back(struct remote *remote);

#endif
