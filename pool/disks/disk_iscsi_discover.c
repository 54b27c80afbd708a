/* What an iSCSI portal offers: a discovery session names the targets; then each is asked for its LUNs, and each of these whether
 * it is a disk, and how large.
 *
 * A target that does not let us in is passed over with its reason, so that one of many does not hide the others. Names come from
 * the other side: whatever is not a name of iSCSI's is left out. */
#include <errno.h>
#include <iscsi/iscsi.h>
#include <iscsi/scsi-lowlevel.h>
#include <stdio.h>
#include <string.h>

#include "pool/base/mem.h"
#include "pool/disks/disk_discover.h"
#include "pool/disks/disk_iscsi_int.h"

#define TARGETS_MAX 256
#define NAME_BYTES 224
#define LUNS_MAX 256
#define STEP_NS_MAX (10ull * 1000000000)
#define LUNS_REPLY_BYTES (8 + 8 * LUNS_MAX)
#define INQUIRY_BYTES 96
#define LUN_METHOD(raw) ((raw) >> 14)
#define LUN_NUMBER(raw) ((raw)&0x3fff)

struct discovery {
	struct iscsi_disk disk;
	struct disk_finder *finder;
	uint32_t target_count, lun_count;
	uint16_t luns[LUNS_MAX];
	char targets[TARGETS_MAX][NAME_BYTES];
};

static uint64_t deadline_ns(void)
{
	return loop_now_ns(loop_self()) + STEP_NS_MAX;
}

/* ---- targets ---- */

static bool is_name(const char *name)
{
	size_t len_bytes = strlen(name);

	return len_bytes > 0 && len_bytes < NAME_BYTES &&
	       strspn(name, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.-:_") == len_bytes;
}

/* libiscsi frees the list when this returns. */
static void targets_named(struct iscsi_context *iscsi, int status, void *command_data, void *private_data)
{
	struct discovery *discovery = container_of(private_data, struct discovery, disk);
	const struct iscsi_discovery_address *at = status == SCSI_STATUS_GOOD ? command_data : NULL;

	for (; at && discovery->target_count < TARGETS_MAX; at = at->next)
		if (is_name(at->target_name))
			strcpy(discovery->targets[discovery->target_count++], at->target_name);
	iscsi_step_done(iscsi, status, NULL, private_data);
}

static int ask_targets(struct discovery *discovery, struct err *err)
{
	struct iscsi_disk *disk = &discovery->disk;
	int ret = iscsi_session(disk, deadline_ns(), err);

	if (ret)
		return ret;
	if (iscsi_discovery_async(disk->iscsi, targets_named, iscsi_step_begin(disk)))
		ret = iscsi_error(disk, -EPROTO, err);
	else
		ret = iscsi_step_wait(disk, deadline_ns(), err);
	if (!ret && disk->step.status != SCSI_STATUS_GOOD)
		ret = iscsi_error(disk, -EPROTO, err);
	iscsi_session_end(disk);
	return ret;
}

/* ---- LUNs ---- */

/* The unit attention that follows a login is of no interest. */
static int ask_luns(struct discovery *discovery, struct err *err)
{
	struct iscsi_disk *disk = &discovery->disk;
	const struct scsi_reportluns_list *list;
	int ret = -EAGAIN;

	for (int i = 0; i < 2 && ret == -EAGAIN; i++)
		ret = iscsi_command_wait(
			disk, iscsi_reportluns_task(disk->iscsi, 0, LUNS_REPLY_BYTES, iscsi_step_done, iscsi_step_begin(disk)),
			deadline_ns(), err);
	list = ret ? NULL : scsi_datain_unmarshall(disk->step.task);
	discovery->lun_count = 0;
	for (uint32_t i = 0; list && i < list->num && i < LUNS_MAX; i++)
		if (LUN_METHOD(list->luns[i]) <= 1 && LUN_NUMBER(list->luns[i]) < LUNS_MAX)
			discovery->luns[discovery->lun_count++] = LUN_NUMBER(list->luns[i]);
	return ret;
}

static bool is_disk(struct iscsi_disk *disk, struct err *err)
{
	const struct scsi_inquiry_standard *standard;
	int ret = -EAGAIN;

	for (int i = 0; i < 2 && ret == -EAGAIN; i++)
		ret = iscsi_command_wait(disk,
					 iscsi_inquiry_task(disk->iscsi, disk->lun, 0, 0, INQUIRY_BYTES, iscsi_step_done,
							    iscsi_step_begin(disk)),
					 deadline_ns(), err);
	standard = ret ? NULL : scsi_datain_unmarshall(disk->step.task);
	return standard && standard->device_type == SCSI_INQUIRY_PERIPHERAL_DEVICE_TYPE_DIRECT_ACCESS;
}

static void tell_lun(struct discovery *discovery, uint64_t size_bytes)
{
	const struct iscsi_disk *disk = &discovery->disk;
	char path[NAME_BYTES + 8];

	snprintf(path, sizeof(path), "%s/%d", disk->target, disk->lun);
	disk_found(discovery->finder, path, size_bytes, "");
}

static void look_at_lun(struct discovery *discovery, int lun)
{
	struct iscsi_disk *disk = &discovery->disk;
	struct remote_geometry geometry = { 0 };
	struct err err;
	int ret = -EAGAIN;

	disk->lun = lun;
	if (!is_disk(disk, &err))
		return;
	for (int i = 0; i < 2 && ret == -EAGAIN; i++)
		ret = iscsi_ask_capacity(disk, deadline_ns(), &geometry, &err);
	tell_lun(discovery, ret ? 0 : geometry.size_bytes);
}

static void look_at_target(struct discovery *discovery, const char *target)
{
	struct iscsi_disk *disk = &discovery->disk;
	struct err err;
	int ret;

	disk->target = target;
	ret = iscsi_session(disk, deadline_ns(), &err);
	if (!ret) {
		ret = ask_luns(discovery, &err);
		for (uint32_t i = 0; !ret && i < discovery->lun_count; i++)
			look_at_lun(discovery, discovery->luns[i]);
		iscsi_session_end(disk);
	}
	if (ret)
		disk_found(discovery->finder, target, 0, err.msg);
}

/* ---- all ---- */

static int parse(struct iscsi_disk *disk, const char *text, struct err *err)
{
	int ret = disk_uri_parse(&disk->uri, text, err);

	if (!ret && *disk->uri.path)
		ret = err_set(err, -EINVAL, "name the portal only: iscsi://[USER@]HOST[:PORT]");
	if (!ret)
		ret = iscsi_parse_login(disk, err);
	return ret ? ret : disk_uri_check_opts(&disk->uri, err);
}

int disk_iscsi_discover(const char *uri, struct disk_finder *finder, struct err *err)
{
	struct discovery *discovery = mem_zalloc(sizeof(*discovery));
	int ret;

	if (!discovery)
		return err_set(err, -ENOMEM, "no memory");
	discovery->finder = finder;
	discovery->disk.isid = (uint32_t)loop_random(loop_self());
	fd_cancel_init(&discovery->disk.remote.cancel);
	ret = parse(&discovery->disk, uri, err);
	if (!ret)
		ret = ask_targets(discovery, err);
	for (uint32_t i = 0; !ret && i < discovery->target_count; i++)
		look_at_target(discovery, discovery->targets[i]);
	explicit_bzero(discovery->disk.secret, sizeof(discovery->disk.secret));
	mem_free(discovery);
	return ret;
}
