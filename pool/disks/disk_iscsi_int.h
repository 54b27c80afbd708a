/* Between the parts of the iSCSI driver: disk_iscsi.c (names, I/O), disk_iscsi_login.c (sessions), disk_iscsi_discover.c. */
#ifndef POOL_DISKS_DISK_ISCSI_INT_H
#define POOL_DISKS_DISK_ISCSI_INT_H

#include "pool/disks/disk_remote.h"

#define ISCSI_PORT_DEFAULT "3260"
#define INITIATOR_DEFAULT "iqn.2024-01.org.poold:"

struct iscsi_context;
struct scsi_task;

/* What a fiber waits for, one step of libiscsi's after the other. It outlives the fiber's patience: a callback that comes when
 * the session ends is meant for nobody. */
struct iscsi_step {
	bool done;
	int status;
	struct scsi_task *task; /* of a SCSI command; iscsi_step_begin frees it */
};

struct iscsi_disk {
	struct remote remote;
	struct disk_uri uri;
	const char *target; /* NULL: discovery */
	int lun;
	char initiator[224];
	char secret[256]; /* "": no CHAP */
	bool header_digest;
	uint32_t isid;      /* the same in every session */
	uint32_t lba_bytes; /* the target's blocks */
	struct iscsi_step step;
	struct iscsi_context *iscsi; /* NULL: no session */
};

static inline struct iscsi_disk *iscsi_of(struct remote *remote)
{
	return container_of(remote, struct iscsi_disk, remote);
}

/* Options and secret of a login. Fiber; waits. 0, or -errno and a message. */
int iscsi_parse_login(struct iscsi_disk *disk, struct err *err);

/* remote_ops.connect. */
int iscsi_login(struct remote *remote, uint64_t deadline_ns, struct remote_geometry *geometry, struct err *err);

/* Before a step is started; returns what is to be its private data (iscsi_step_done: its callback). */
void *iscsi_step_begin(struct iscsi_disk *disk);
void iscsi_step_done(struct iscsi_context *iscsi, int status, void *command_data, void *private_data);
/* Serves the socket until the step is done. 0, or -errno and a message: the session has to end. */
int iscsi_step_wait(struct iscsi_disk *disk, uint64_t deadline_ns, struct err *err);
/* -code and libiscsi's message, as one line. */
int iscsi_error(struct iscsi_disk *disk, int code, struct err *err);
/* Waits for a command that was just started. 0; -EAGAIN: a unit attention; -EIO: the target refuses it; any other -errno: the
 * session has to end. */
int iscsi_command_wait(struct iscsi_disk *disk, const struct scsi_task *started, uint64_t deadline_ns, struct err *err);
/* Size and blocks of disk->lun; as above. */
int iscsi_ask_capacity(struct iscsi_disk *disk, uint64_t deadline_ns, struct remote_geometry *geometry, struct err *err);
/* Connects and logs in, to the target or for discovery; disk->iscsi is set on success. */
int iscsi_session(struct iscsi_disk *disk, uint64_t deadline_ns, struct err *err);

/* Ends it, whatever has become of its last step. */
void iscsi_session_end(struct iscsi_disk *disk);

#endif
