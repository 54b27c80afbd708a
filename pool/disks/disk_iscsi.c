/* "iscsi://[USER@]HOST[:PORT]/TARGET/LUN": a disk behind an iSCSI target, by libiscsi.
 *
 *	secret-file=PATH         CHAP: the secret of USER
 *	initiator=NAME           how we call ourselves (INITIATOR_DEFAULT followed by the host's name)
 *	header-digest=crc32c     insist on it; otherwise the target decides
 *	timeout=S, stall=S, give-up=S   see disk_remote.h
 *
 * Reads go straight into the caller's pieces of memory, writes out of the keep. libiscsi's own reconnecting is off: it would
 * send again what it has, and check nothing. Its errors therefore end the session.
 *
 * A unit attention that tells of a reset or power-on means that the cache of the disk may be lost: the session ends and what is
 * kept is written again in the next one. Other unit attentions, and a target that is busy, are tried again. A session of the same
 * name replaces its predecessor (the ISID is kept), so that the target ends what it still does for that first. */
#include <errno.h>
#include <iscsi/iscsi.h>
#include <iscsi/scsi-lowlevel.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "pool/base/mem.h"
#include "pool/disks/disk_iscsi_int.h"

#define LUN_MAX 255
#define SENSE_RESET(ascq) (((ascq) >> 8) == 0x29)
#define SENSE_NO_SPACE 0x2707

/* ---- requests ---- */

static int sense_to_error(struct iscsi_disk *disk, const struct scsi_sense *sense)
{
	switch (sense->key) {
	case SCSI_SENSE_RECOVERED_ERROR: return 0;
	case SCSI_SENSE_UNIT_ATTENTION:
		if (!SENSE_RESET(sense->ascq))
			return -EAGAIN;
		remote_lost(&disk->remote, "the target was reset");
		return -ENOTCONN;
	case SCSI_SENSE_NOT_READY:
	case SCSI_SENSE_COMMAND_ABORTED: return -EAGAIN;
	case SCSI_SENSE_DATA_PROTECTION: return sense->ascq == SENSE_NO_SPACE ? -ENOSPC : -EROFS;
	case SCSI_SENSE_ILLEGAL_REQUEST:
		return sense->ascq == SCSI_SENSE_ASCQ_INVALID_OPERATION_CODE ? -EOPNOTSUPP : -EINVAL;
	default: return -EIO;
	}
}

static int status_to_error(struct iscsi_disk *disk, int status, const struct scsi_task *task)
{
	switch (status) {
	case SCSI_STATUS_GOOD: return 0;
	case SCSI_STATUS_CHECK_CONDITION: return sense_to_error(disk, &task->sense);
	case SCSI_STATUS_BUSY:
	case SCSI_STATUS_TASK_SET_FULL: return -EAGAIN;
	case SCSI_STATUS_RESERVATION_CONFLICT: return -EBADE;
	default: return -ENOTCONN; /* cancelled, or libiscsi's own errors */
	}
}

static void answered(struct iscsi_context *iscsi, int status, void *command_data, void *private_data)
{
	struct scsi_task *task = command_data;
	struct remote_req *req = private_data;
	struct iscsi_disk *disk = iscsi_of(req->remote);
	int res = status_to_error(disk, status, task);

	/* A target that says it is done and has moved less. */
	if (res == 0 && req->op == DISK_READ && task->residual_status == SCSI_RESIDUAL_UNDERFLOW)
		res = -EIO;
	/* A target without a cache need not know the command. */
	if (res == -EOPNOTSUPP && req->op == DISK_FLUSH)
		res = 0;
	scsi_free_scsi_task(task);
	remote_req_done(req, res);
}

static struct scsi_task *start_discard(struct iscsi_disk *disk, struct remote_req *req)
{
	struct unmap_list list = { .lba = req->off_bytes / disk->lba_bytes,
				   .num = (uint32_t)(req->len_bytes / disk->lba_bytes) };

	return iscsi_unmap_task(disk->iscsi, disk->lun, 0, 0, &list, 1, answered, req);
}

static int iscsi_send(struct remote *remote, struct remote_req *req)
{
	struct iscsi_disk *disk = iscsi_of(remote);
	uint64_t lba = req->off_bytes / disk->lba_bytes;
	struct scsi_iovec *iov = (struct scsi_iovec *)req->iov;
	struct scsi_task *task;

	switch (req->op) {
	case DISK_READ:
		task = iscsi_read16_iov_task(disk->iscsi, disk->lun, lba, (uint32_t)req->len_bytes,
					     (int)disk->lba_bytes, 0, 0, 0, 0, 0, answered, req, iov,
					     (int)req->iov_count);
		break;
	case DISK_WRITE:
		task = iscsi_write16_iov_task(disk->iscsi, disk->lun, lba, NULL, (uint32_t)req->len_bytes,
					      (int)disk->lba_bytes, 0, 0, 0, 0, 0, answered, req, iov,
					      (int)req->iov_count);
		break;
	case DISK_FLUSH: task = iscsi_synchronizecache16_task(disk->iscsi, disk->lun, 0, 0, 0, 0, answered, req); break;
	default: task = start_discard(disk, req);
	}
	if (task)
		return 0;
	return iscsi_is_logged_in(disk->iscsi) ? -ENOMEM : -ENOTCONN;
}

static void cork(struct iscsi_context *iscsi, int on)
{
	setsockopt(iscsi_get_fd(iscsi), IPPROTO_TCP, TCP_CORK, &on, sizeof(on));
}

/* libiscsi writes each header and each piece of data by a call of its own, and every call would make a packet. */
static int write_queued(struct iscsi_context *iscsi)
{
	int ret;

	cork(iscsi, 1);
	ret = iscsi_service(iscsi, POLLOUT);
	if (iscsi_get_fd(iscsi) >= 0)
		cork(iscsi, 0);
	return ret;
}

static int iscsi_serve(struct remote *remote, int revents, struct err *err)
{
	struct iscsi_context *iscsi = iscsi_of(remote)->iscsi;
	int ret = 0;

	if (revents & ~POLLOUT)
		ret = iscsi_service(iscsi, revents & ~POLLOUT);
	if (!ret && (iscsi_which_events(iscsi) & POLLOUT) && iscsi_get_fd(iscsi) >= 0)
		ret = write_queued(iscsi);
	if (ret)
		return err_set(err, -ENOTCONN, "%.200s", iscsi_get_error(iscsi));
	if (iscsi_get_fd(iscsi) < 0 || !iscsi_is_logged_in(iscsi))
		return err_set(err, -ENOTCONN, "the target closed the connection");
	return 0;
}

static int iscsi_fd(struct remote *remote)
{
	return iscsi_get_fd(iscsi_of(remote)->iscsi);
}

static short iscsi_events(struct remote *remote)
{
	return (short)iscsi_which_events(iscsi_of(remote)->iscsi);
}

static void iscsi_disconnect_now(struct remote *remote)
{
	iscsi_session_end(iscsi_of(remote));
}

static void iscsi_free_disk(struct remote *remote)
{
	struct iscsi_disk *disk = iscsi_of(remote);

	explicit_bzero(disk->secret, sizeof(disk->secret));
	mem_free(disk);
}

static const struct disk_ops iscsi_disk_ops = {
	.scheme = "iscsi",
	.submit = remote_submit,
	.close = remote_close,
	.set_mark = remote_set_mark,
	.set_spare = remote_set_spare,
	.away = remote_away,
};

static const struct remote_ops iscsi_ops = {
	.disk_ops = &iscsi_disk_ops,
	.scatters = true,
	.connect = iscsi_login,
	.disconnect = iscsi_disconnect_now,
	.send = iscsi_send,
	.service = iscsi_serve,
	.fd = iscsi_fd,
	.events = iscsi_events,
	.free = iscsi_free_disk,
};

/* ---- open ---- */

/* "TARGET/LUN". */
static int parse_path(struct iscsi_disk *disk, struct err *err)
{
	char *slash = strrchr(disk->uri.path, '/'), *end;
	unsigned long lun;

	if (!slash || slash == disk->uri.path)
		return err_set(err, -EINVAL,
			       "it is not of the form iscsi://HOST/TARGET/LUN");
	lun = strtoul(slash + 1, &end, 10);
	if (slash[1] < '0' || slash[1] > '9' || *end != '\0' || lun > LUN_MAX)
		return err_set(err, -EINVAL, "'%.32s' is not a LUN from 0 to %d", slash + 1, LUN_MAX);
	*slash = '\0';
	disk->target = disk->uri.path;
	disk->lun = (int)lun;
	return 0;
}

int iscsi_parse_login(struct iscsi_disk *disk, struct err *err)
{
	const char *secret_file = disk_uri_opt(&disk->uri, "secret-file"),
		   *initiator = disk_uri_opt(&disk->uri, "initiator");
	const char *digest = disk_uri_opt(&disk->uri, "header-digest");
	char host[65] = "";

	if (*disk->uri.host == '\0')
		return err_set(err, -EINVAL, "it names no host");
	if (!disk->uri.user != !secret_file)
		return err_set(err, -EINVAL, "a user and a secret-file go together");
	if (digest && strcmp(digest, "crc32c") != 0)
		return err_set(err, -EINVAL, "header-digest=%.32s is not crc32c", digest);
	disk->header_digest = digest != NULL;
	gethostname(host, sizeof(host) - 1);
	if (snprintf(disk->initiator, sizeof(disk->initiator), "%s%s", initiator ? initiator : INITIATOR_DEFAULT,
		     initiator ? "" : host) >= (int)sizeof(disk->initiator))
		return err_set(err, -EINVAL, "the initiator's name is too long");
	return secret_file ? remote_read_secret(secret_file, disk->secret, sizeof(disk->secret), err) : 0;
}

static int parse(struct iscsi_disk *disk, const char *text, struct err *err)
{
	int ret = disk_uri_parse(&disk->uri, text, err);

	if (!ret)
		ret = remote_options(&disk->remote, &disk->uri, err);
	if (!ret)
		ret = parse_path(disk, err);
	if (!ret)
		ret = iscsi_parse_login(disk, err);
	return ret ? ret : disk_uri_check_opts(&disk->uri, err);
}

int disk_iscsi_open(const char *uri, const char *rest, const struct disk_open_opts *opts, struct disk **out,
		    struct err *err)
{
	struct iscsi_disk *disk = mem_zalloc(sizeof(*disk));
	int ret;

	if (!disk)
		return err_set(err, -ENOMEM, "cannot open '%s': no memory", uri);
	ret = parse(disk, uri, err);
	disk->isid = (uint32_t)loop_random(loop_self());
	if (ret)
		iscsi_free_disk(&disk->remote);
	else
		ret = remote_open(&disk->remote, &iscsi_ops, out, err);
	return ret ? err_prefix(err, ret, "cannot open '%.200s'", uri) : 0;
}
