/* Options of volumes and groups of limits, for control: see daemon.h. What a request does not name stays as it is. */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "tools/daemon_int.h"
#include "tools/log.h"

static void change_limits(struct volume_limits *limits, const struct limits_request *request)
{
	if (request->set_iops)
		limits->iops = request->iops;
	if (request->set_bps)
		limits->bps = request->bps;
	if (request->set_burst)
		limits->burst_ms = request->burst_ms;
}

/* --- a volume ----------------------------------------------------------------------------------------------- */

static int change_options(struct volume_options *options, const struct options_request *request, struct err *err)
{
	change_limits(&options->limits, &request->limits);
	if (request->set_full_after)
		options->full_after_s = request->full_after_s;
	if (request->no_group)
		options->group[0] = '\0';
	if (request->group && !name_is_valid(request->group))
		return err_set(err, -EINVAL, "'%.100s' is not the name of a group", request->group);
	if (request->group)
		snprintf(options->group, sizeof(options->group), "%s", request->group);
	return 0;
}

static int set_options(struct daemon_pool *pool, const char *image, const struct options_request *request, struct err *err)
{
	struct volume_info info;
	int ret = volume_get_info(pool->volumes, image, &info, err);

	if (ret == 0)
		ret = change_options(&info.options, request, err);
	return ret ? ret : volume_set_options(pool->volumes, image, &info.options, err);
}

int daemon_volume_set(struct daemon *daemon, const char *name, const struct options_request *request, struct err *err)
{
	struct daemon_pool *pool;
	struct image_path path;
	int ret = image_path_parse(name, IMAGE_VOLUME, &path, err);

	if (ret == 0)
		ret = daemon_pool_get(daemon, path.pool, &pool, err);
	if (ret)
		return ret;
	fmutex_lock(&pool->change);
	ret = set_options(pool, path.image, request, err);
	fmutex_unlock(&pool->change);
	daemon_pool_put(pool);
	if (ret == 0)
		log_info("options of volume '%s' are set", name);
	return ret;
}

/* --- groups --------------------------------------------------------------------------------------------------- */

static void copy_if_called(void *arg, const struct volume_group *group)
{
	struct volume_group *wanted = arg;

	if (strcmp(group->name, wanted->name) == 0)
		*wanted = *group;
}

static int set_group(struct daemon_pool *pool, const char *name, const struct limits_request *request, struct err *err)
{
	struct volume_group group = { .volumes = 0 };

	snprintf(group.name, sizeof(group.name), "%.*s", POOL_NAME_MAX, name); /* as long as it may be: see names.h */
	volume_group_for_each(pool->volumes, copy_if_called, &group);
	change_limits(&group.limits, request);
	return volume_group_set(pool->volumes, name, &group.limits, err);
}

/* request NULL: the group goes. */
static int change_group(struct daemon *daemon, const char *name, const struct limits_request *request, struct err *err)
{
	struct daemon_pool *pool;
	struct image_path path;
	int ret = image_path_parse(name, IMAGE_GROUP, &path, err);

	if (ret == 0)
		ret = daemon_pool_get(daemon, path.pool, &pool, err);
	if (ret)
		return ret;
	fmutex_lock(&pool->change);
	ret = request ? set_group(pool, path.image, request, err) : volume_group_delete(pool->volumes, path.image, err);
	fmutex_unlock(&pool->change);
	daemon_pool_put(pool);
	if (ret == 0)
		log_info("group '%s' %s", name, request ? "has its limits set" : "is deleted");
	return ret;
}

int daemon_qos_set(struct daemon *daemon, const char *name, const struct limits_request *request, struct err *err)
{
	return change_group(daemon, name, request, err);
}

int daemon_qos_delete(struct daemon *daemon, const char *name, struct err *err)
{
	return change_group(daemon, name, NULL, err);
}
