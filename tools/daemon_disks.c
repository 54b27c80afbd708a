/* A set of opened disks on its way into a pool: see daemon_disks.h. */
#include "tools/daemon_disks.h"

#include <errno.h>
#include <stdbool.h>
#include <string.h>

#include "tools/log.h"

/* "file:/dev/sdb" and "/dev/sdb" are the same. */
static const char *path_of(const char *uri)
{
	return strncmp(uri, "file:", 5) == 0 ? uri + 5 : uri;
}

static bool pool_has_disk(const struct daemon_pool *pool, const char *uri, struct pool_disk_info *disk)
{
	struct pool_info info;

	if (pool->state != MEMBER_OPEN)
		return false;
	pool_get_info(pool->pool, &info);
	for (uint32_t i = 0; i < info.disk_count; i++) {
		pool_get_disk_info(pool->pool, i, disk);
		if (strcmp(path_of(disk->uri), path_of(uri)) == 0)
			return true;
	}
	return false;
}

struct daemon_pool *disk_find_open(const struct daemon *daemon, const char *uri, struct pool_disk_info *disk)
{
	list_for_each(node, &daemon->pools) {
		struct daemon_pool *pool = list_entry(node, struct daemon_pool, node);

		if (pool_has_disk(pool, uri, disk))
			return pool;
	}
	return NULL;
}

/* A better message for a disk that is in use, if it is by ourselves. */
static int explain_busy(const struct daemon *daemon, const char *uri, int code, struct err *err)
{
	struct pool_disk_info disk;
	const struct daemon_pool *pool = code == -EBUSY ? disk_find_open(daemon, uri, &disk) : NULL;

	if (!pool)
		return code;
	return err_set(err, code, "disk '%.200s' belongs to pool '%s', which is open", uri, pool->name);
}

static int open_one(struct disk_set *set, const struct daemon *daemon, const struct disk_request *request, uint32_t i,
		    struct err *err)
{
	struct disk_open_opts opts = {
		.allow_fault = daemon->config->test_faults,
		.create_bytes = request->create_bytes,
		.preallocate = request->preallocate,
	};
	int ret = disk_open(request->uris[i], &opts, &set->disks[set->count], err);

	if (ret)
		return explain_busy(daemon, request->uris[i], ret, err);
	set->count++;
	return 0;
}

static int check_count(const struct disk_request *request, struct err *err)
{
	return request->count > POOL_DISKS_MAX ? err_set(err, -E2BIG, "a pool has at most %d disks", POOL_DISKS_MAX) : 0;
}

int disk_set_open(struct disk_set *set, const struct daemon *daemon, const struct disk_request *request,
		  struct err *err)
{
	int ret = check_count(request, err);

	set->count = 0;
	for (uint32_t i = 0; i < request->count && ret == 0; i++)
		ret = open_one(set, daemon, request, i, err);
	if (ret)
		disk_set_close(set);
	return ret;
}

int disk_set_open_found(struct disk_set *set, const struct daemon *daemon, const struct disk_request *request,
			struct err *why)
{
	int ret = check_count(request, why), first = 0;

	why->msg[0] = '\0';
	set->count = 0;
	for (uint32_t i = 0; i < request->count && ret != -EBUSY; i++) {
		struct err err;

		ret = open_one(set, daemon, request, i, &err);
		if (ret && (!first || ret == -EBUSY)) {
			*why = err;
			first = ret;
		}
	}
	if (ret != -EBUSY && set->count > 0)
		return 0;
	disk_set_close(set);
	return ret == -EBUSY ? ret : first;
}

void disk_set_close(struct disk_set *set)
{
	while (set->count > 0)
		disk_close(set->disks[--set->count]);
}

int disk_set_identify(const struct disk_set *set, struct disk_probe *found, struct err *err)
{
	for (uint32_t i = 0; i < set->count; i++) {
		int ret = pool_probe_disk(set->disks[i], found, err);

		if (ret)
			return ret;
		if (found->labelled)
			return 0;
	}
	return err_set(err, -ENOENT, "no disk given belongs to a pool; 'poolctl disk probe' shows what a disk holds");
}

/* Whether the disk has a label of the pool. -errno if it cannot be told. */
static int belongs(struct disk *disk, const char *pool_uuid, struct err *err)
{
	struct disk_probe probe;
	char uuid[UUID_TEXT_BYTES];
	int ret = pool_probe_disk(disk, &probe, err);

	if (ret)
		return ret;
	uuid_to_text(&probe.pool_uuid, uuid);
	return probe.labelled && strcmp(uuid, pool_uuid) == 0;
}

int disk_set_keep(struct disk_set *set, const char *pool_uuid, struct err *err)
{
	for (uint32_t i = 0; i < set->count;) {
		int ret = belongs(set->disks[i], pool_uuid, err);

		if (ret < 0)
			return ret;
		if (ret) {
			i++;
			continue;
		}
		log_warn("disk '%s' has no label of its pool: left out", set->disks[i]->uri);
		disk_close(set->disks[i]);
		set->disks[i] = set->disks[--set->count];
	}
	if (set->count == 0)
		return err_set(err, -ENOENT, "none of its disks has its label");
	return 0;
}
