/* Sessions of the iSCSI driver: connecting, login, and what the target says of the LUN. Straight-line code on a fiber: each
 * step of libiscsi's is started and its socket served until the step's callback has come. */
#include <errno.h>
#include <iscsi/iscsi.h>
#include <iscsi/scsi-lowlevel.h>
#include <netdb.h>
#include <stdio.h>
#include <string.h>

#include "pool/disks/disk_iscsi_int.h"

#define ATTENTIONS_MAX 10
#define VPD_BYTES 255
#define PORTAL_BYTES 80
#define WRITE_PROTECTED 0x80

/* ---- steps ---- */

void *iscsi_step_begin(struct iscsi_disk *disk)
{
	if (disk->step.task)
		scsi_free_scsi_task(disk->step.task);
	disk->step = (struct iscsi_step){ 0 };
	return disk;
}

void iscsi_step_done(struct iscsi_context *iscsi, int status, void *command_data, void *private_data)
{
	struct iscsi_disk *disk = private_data;
	struct iscsi_step *step = &disk->step;

	step->done = true;
	step->status = status;
	step->task = command_data;
}

int iscsi_error(struct iscsi_disk *disk, int code, struct err *err)
{
	const char *text = iscsi_get_error(disk->iscsi);

	if (*text == '\0')
		text = "the target closed the connection";
	return err_set(err, code, "%.*s", (int)strcspn(text, "\n"), text);
}

/* What poll has seen of a socket that is broken: libiscsi would only say that it is. */
static int socket_error(int fd, struct err *err)
{
	socklen_t code_bytes = sizeof(int);
	int code = 0;

	if (getsockopt(fd, SOL_SOCKET, SO_ERROR, &code, &code_bytes) || code == 0)
		code = ECONNRESET;
	return err_set(err, -ECONNREFUSED, "%s", strerror(code));
}

int iscsi_step_wait(struct iscsi_disk *disk, uint64_t deadline_ns, struct err *err)
{
	struct iscsi_context *iscsi = disk->iscsi;

	while (!disk->step.done) {
		int fd = iscsi_get_fd(iscsi), revents;

		if (fd < 0)
			return iscsi_error(disk, -ECONNREFUSED, err);
		revents = fd_wait(fd, (short)iscsi_which_events(iscsi), deadline_ns, &disk->remote.cancel);
		if (revents == -ETIMEDOUT)
			return err_set(err, revents, "the target does not answer");
		if (revents < 0)
			return err_set(err, revents, "%s", strerror(-revents));
		if (revents & (POLLERR | POLLHUP))
			return socket_error(fd, err);
		if (iscsi_service(iscsi, revents) && !disk->step.done)
			return iscsi_error(disk, -ECONNREFUSED, err);
	}
	return 0;
}

void iscsi_session_end(struct iscsi_disk *disk)
{
	/* It may call what is not done yet. */
	iscsi_destroy_context(disk->iscsi);
	disk->iscsi = NULL;
	iscsi_step_begin(disk);
}

/* ---- connecting and login ---- */

static int portal_text(const struct remote_address *address, char text[PORTAL_BYTES])
{
	char host[64], port[8];

	if (getnameinfo((const struct sockaddr *)&address->addr, address->len_bytes, host, sizeof(host), port,
			sizeof(port), NI_NUMERICHOST | NI_NUMERICSERV))
		return -EINVAL;
	snprintf(text, PORTAL_BYTES, address->addr.ss_family == AF_INET6 ? "[%s]:%s" : "%s:%s", host, port);
	return 0;
}

static int create_context(struct iscsi_disk *disk, struct err *err)
{
	struct iscsi_context *iscsi = iscsi_create_context(disk->initiator);
	bool ok = iscsi != NULL;

	disk->iscsi = iscsi;
	if (!ok)
		return err_set(err, -ENOMEM, "no memory");
	iscsi_set_noautoreconnect(iscsi, 1);
	ok = iscsi_set_isid_random(iscsi, disk->isid, 0) == 0 &&
	     iscsi_set_session_type(iscsi, disk->target ? ISCSI_SESSION_NORMAL : ISCSI_SESSION_DISCOVERY) == 0 &&
	     iscsi_set_header_digest(iscsi, disk->header_digest ? ISCSI_HEADER_DIGEST_CRC32C
								: ISCSI_HEADER_DIGEST_NONE_CRC32C) == 0;
	if (ok && disk->target)
		ok = iscsi_set_targetname(iscsi, disk->target) == 0;
	if (ok && *disk->secret)
		ok = iscsi_set_initiator_username_pwd(iscsi, disk->uri.user, disk->secret) == 0;
	return ok ? 0 : iscsi_error(disk, -EINVAL, err);
}

static int connect_and_login(struct iscsi_disk *disk, const char *portal, uint64_t deadline_ns, struct err *err)
{
	const struct iscsi_step *step = &disk->step;
	int ret;

	if (iscsi_connect_async(disk->iscsi, portal, iscsi_step_done, iscsi_step_begin(disk)))
		return iscsi_error(disk, -ECONNREFUSED, err);
	ret = iscsi_step_wait(disk, deadline_ns, err);
	if (ret)
		return ret;
	if (step->status != SCSI_STATUS_GOOD)
		return iscsi_error(disk, -ECONNREFUSED, err);
	if (iscsi_login_async(disk->iscsi, iscsi_step_done, iscsi_step_begin(disk)))
		return iscsi_error(disk, -EPROTO, err);
	ret = iscsi_step_wait(disk, deadline_ns, err);
	if (ret)
		return ret;
	if (step->status == SCSI_STATUS_REDIRECT)
		return err_set(err, -EREMCHG, "the target has moved to %.128s: use that address",
			       iscsi_get_target_address(disk->iscsi));
	return step->status == SCSI_STATUS_GOOD ? 0 : iscsi_error(disk, -EACCES, err);
}

static int session_at(struct iscsi_disk *disk, const struct remote_address *address, uint64_t deadline_ns,
		      struct err *err)
{
	char portal[PORTAL_BYTES];
	int ret = portal_text(address, portal);

	if (ret)
		return err_set(err, ret, "it has an address of an unknown kind");
	ret = create_context(disk, err);
	if (!ret)
		ret = connect_and_login(disk, portal, deadline_ns, err);
	if (!ret)
		return 0;
	iscsi_session_end(disk);
	return err_prefix(err, ret, "portal %s", portal);
}

int iscsi_session(struct iscsi_disk *disk, uint64_t deadline_ns, struct err *err)
{
	const char *port = disk->uri.port ? disk->uri.port : ISCSI_PORT_DEFAULT;
	struct remote_addresses addresses;
	int ret = remote_resolve(disk->uri.host, port, &addresses, err);

	if (ret)
		return ret;
	for (uint32_t i = 0; i < addresses.count; i++) {
		ret = session_at(disk, &addresses.at[i], deadline_ns, err);
		if (ret != -ECONNREFUSED)
			break;
	}
	return ret;
}

/* ---- the LUN ---- */

int iscsi_command_wait(struct iscsi_disk *disk, const struct scsi_task *started, uint64_t deadline_ns, struct err *err)
{
	const struct iscsi_step *step = &disk->step;
	int ret = started ? iscsi_step_wait(disk, deadline_ns, err) : iscsi_error(disk, -ENOMEM, err);

	if (ret || step->status == SCSI_STATUS_GOOD)
		return ret;
	if (step->status == SCSI_STATUS_CHECK_CONDITION && step->task->sense.key == SCSI_SENSE_UNIT_ATTENTION)
		return iscsi_error(disk, -EAGAIN, err);
	return iscsi_error(disk, step->status == SCSI_STATUS_CANCELLED ? -ENOTCONN : -EIO, err);
}

/* After a login the target tells what has happened before; that is of no interest. */
static int wait_ready(struct iscsi_disk *disk, uint64_t deadline_ns, struct err *err)
{
	int ret = -EAGAIN;

	for (int i = 0; i < ATTENTIONS_MAX && ret == -EAGAIN; i++)
		ret = iscsi_command_wait(disk,
				   iscsi_testunitready_task(disk->iscsi, disk->lun, iscsi_step_done,
							    iscsi_step_begin(disk)),
				   deadline_ns, err);
	if (ret == -EIO && disk->step.status == SCSI_STATUS_RESERVATION_CONFLICT)
		ret = 0;
	return ret ? err_prefix(err, ret, "LUN %d", disk->lun) : 0;
}

int iscsi_ask_capacity(struct iscsi_disk *disk, uint64_t deadline_ns, struct remote_geometry *geometry, struct err *err)
{
	int ret = iscsi_command_wait(disk,
				     iscsi_readcapacity16_task(disk->iscsi, disk->lun, iscsi_step_done,
							       iscsi_step_begin(disk)),
				     deadline_ns, err);
	const struct scsi_readcapacity16 *capacity = ret ? NULL : scsi_datain_unmarshall(disk->step.task);

	if (ret)
		return err_prefix(err, ret, "capacity of LUN %d", disk->lun);
	if (!capacity)
		return err_set(err, -EPROTO, "LUN %d tells its capacity in too few bytes", disk->lun);
	disk->lba_bytes = capacity->block_length;
	if (disk->lba_bytes < 512 || disk->lba_bytes > 4096 || (disk->lba_bytes & (disk->lba_bytes - 1)))
		return err_set(err, -EINVAL, "LUN %d has blocks of %u bytes, not 512 to 4096", disk->lun,
			       disk->lba_bytes);
	if (capacity->returned_lba >= (uint64_t)INT64_MAX / disk->lba_bytes)
		return err_set(err, -EFBIG, "LUN %d says it is larger than all disks", disk->lun);
	geometry->block_bytes = disk->lba_bytes;
	geometry->size_bytes = (capacity->returned_lba + 1) * disk->lba_bytes;
	return 0;
}

/* A page of vital product data, good until the next step; *page is NULL if the target has it not. */
static int ask_page(struct iscsi_disk *disk, int number, uint64_t deadline_ns, void **page, struct err *err)
{
	int ret = iscsi_command_wait(disk,
			       iscsi_inquiry_task(disk->iscsi, disk->lun, 1, number, VPD_BYTES, iscsi_step_done,
						  iscsi_step_begin(disk)),
			       deadline_ns, err);

	*page = ret ? NULL : scsi_datain_unmarshall(disk->step.task);
	return ret == -EIO || ret == -EAGAIN ? 0 : ret;
}

static int ask_serial(struct iscsi_disk *disk, uint64_t deadline_ns, struct remote_geometry *geometry, struct err *err)
{
	void *page;
	int ret = ask_page(disk, SCSI_INQUIRY_PAGECODE_UNIT_SERIAL_NUMBER, deadline_ns, &page, err);
	const struct scsi_inquiry_unit_serial_number *serial = page;

	if (serial && serial->usn)
		snprintf(geometry->serial, sizeof(geometry->serial), "%s", serial->usn);
	return ret;
}

static int ask_limits(struct iscsi_disk *disk, uint64_t deadline_ns, struct remote_geometry *geometry, struct err *err)
{
	uint32_t unmap_max = REMOTE_DISCARD_BYTES / disk->lba_bytes;
	bool unmaps;
	void *page;
	int ret = ask_page(disk, SCSI_INQUIRY_PAGECODE_LOGICAL_BLOCK_PROVISIONING, deadline_ns, &page, err);
	const struct scsi_inquiry_block_limits *limits;

	if (ret)
		return ret;
	unmaps = page && ((const struct scsi_inquiry_logical_block_provisioning *)page)->lbpu;
	ret = ask_page(disk, SCSI_INQUIRY_PAGECODE_BLOCK_LIMITS, deadline_ns, &page, err);
	limits = page;
	geometry->piece_bytes = REMOTE_PIECE_BYTES;
	if (limits && limits->max_xfer_len > 0 && limits->max_xfer_len < REMOTE_PIECE_BYTES / disk->lba_bytes)
		geometry->piece_bytes = limits->max_xfer_len * disk->lba_bytes;
	if (limits && limits->max_unmap > 0 && limits->max_unmap < unmap_max)
		unmap_max = limits->max_unmap;
	geometry->discard_bytes = unmaps ? (uint64_t)unmap_max * disk->lba_bytes : 0;
	return ret;
}

/* Write protection is told in front of all mode pages. */
static int ask_protection(struct iscsi_disk *disk, uint64_t deadline_ns, struct remote_geometry *geometry,
			  struct err *err)
{
	int ret = iscsi_command_wait(disk,
			       iscsi_modesense6_task(disk->iscsi, disk->lun, 1, SCSI_MODESENSE_PC_CURRENT,
						     SCSI_MODEPAGE_RETURN_ALL_PAGES, 0, VPD_BYTES, iscsi_step_done,
						     iscsi_step_begin(disk)),
			       deadline_ns, err);
	const struct scsi_mode_sense *mode = ret ? NULL : scsi_datain_unmarshall(disk->step.task);

	geometry->read_only = mode && (mode->device_specific_parameter & WRITE_PROTECTED);
	return ret == -EIO || ret == -EAGAIN ? 0 : ret;
}

int iscsi_login(struct remote *remote, uint64_t deadline_ns, struct remote_geometry *geometry, struct err *err)
{
	struct iscsi_disk *disk = iscsi_of(remote);
	int ret = iscsi_session(disk, deadline_ns, err);

	if (ret)
		return ret;
	geometry->volatile_cache = true;
	ret = wait_ready(disk, deadline_ns, err);
	if (!ret)
		ret = iscsi_ask_capacity(disk, deadline_ns, geometry, err);
	if (!ret)
		ret = ask_serial(disk, deadline_ns, geometry, err);
	if (!ret)
		ret = ask_limits(disk, deadline_ns, geometry, err);
	if (!ret)
		ret = ask_protection(disk, deadline_ns, geometry, err);
	if (ret)
		iscsi_session_end(disk);
	return ret;
}
