/* Operations on volumes by name: see daemon.h. Each finds and pins the pool, holds its change lock while it checks what the
 * registry knows (exports), and leaves the rest to the engine. */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "pool/base/size.h"
#include "tools/daemon_int.h"
#include "tools/log.h"

/* A volume's pool, pinned and locked for changes. */
struct target {
	struct daemon_pool *pool;
	struct volume_path path;
};

static int target_begin(struct target *target, struct daemon *daemon, const char *name, struct err *err)
{
	int ret = daemon_name_split(name, &target->path, err);

	if (ret == 0)
		ret = daemon_pool_get(daemon, target->path.pool, &target->pool, err);
	if (ret == 0)
		fmutex_lock(&target->pool->change);
	return ret;
}

static void target_end(struct target *target)
{
	fmutex_unlock(&target->pool->change);
	daemon_pool_put(target->pool);
}

static int get_info(const struct target *target, struct volume_info *info, struct err *err)
{
	return volume_get_info(target->pool->volumes, target->path.volume, info, err);
}

/* What was asked for has been rounded up. */
static void log_size(const struct target *target, const char *done)
{
	struct volume_info info;

	if (get_info(target, &info, NULL) == 0)
		log_info("volume '%s/%s' %s: %llu bytes", target->path.pool, info.name, done,
			 (unsigned long long)info.size_bytes);
}

/* --- create ----------------------------------------------------------------------------------------------- */

static int parse_policy(const char *text, struct policy *policy, struct err *err)
{
	*policy = (struct policy){ 1, 0 };
	if (strcmp(text, "plain") == 0)
		return 0;
	if (strcmp(text, "mirror2") == 0 || strcmp(text, "mirror3") == 0 || strncmp(text, "ec:", 3) == 0)
		return err_set(err, -ENOTSUP, "policy '%.32s' is not yet supported; use 'plain'", text);
	return err_set(err, -EINVAL, "no policy '%.32s'; use 'plain'", text);
}

int daemon_volume_create(struct daemon *daemon, const char *name, uint64_t size_bytes, const char *policy,
			 struct err *err)
{
	struct volume_create_opts opts = { .size_bytes = size_bytes };
	struct target target;
	int ret = parse_policy(policy, &opts.policy, err);

	if (ret == 0)
		ret = target_begin(&target, daemon, name, err);
	if (ret)
		return ret;
	opts.name = target.path.volume;
	ret = volume_create(target.pool->volumes, &opts, err);
	if (ret == 0)
		log_size(&target, "is created");
	target_end(&target);
	return ret;
}

/* --- delete ----------------------------------------------------------------------------------------------- */

static int delete_unless_exported(const struct target *target, const char *name, struct err *err)
{
	struct daemon_export *exp;
	struct volume_info info;
	int ret = get_info(target, &info, err);

	if (ret)
		return ret;
	if (daemon_export_count(target->pool, info.id, &exp) > 0)
		return err_set(err, -EBUSY, "volume '%s' is exported on '%.150s'; remove the export first", name,
			       exp->record->address);
	return volume_delete(target->pool->volumes, target->path.volume, false, err);
}

int daemon_volume_delete(struct daemon *daemon, const char *name, struct err *err)
{
	struct target target;
	int ret = target_begin(&target, daemon, name, err);

	if (ret)
		return ret;
	ret = delete_unless_exported(&target, name, err);
	target_end(&target);
	if (ret == 0)
		log_info("volume '%s' is deleted", name);
	return ret;
}

/* --- rename ----------------------------------------------------------------------------------------------- */

/* "VOLUME" or "POOL/VOLUME": the volume's part, if the pool is the target's. */
static int new_name_of(const struct target *target, const char *text, char name[VOLUME_NAME_BYTES], struct err *err)
{
	struct volume_path path;
	int ret = 0;

	if (!strchr(text, '/')) {
		if (!name_is_valid(text))
			return err_set(err, -EINVAL,
				       "'%.64s' is not a name for a volume; use 1 to %d of A-Z a-z 0-9 . _ -, not "
				       "beginning with . or -",
				       text, POOL_NAME_MAX);
		snprintf(name, VOLUME_NAME_BYTES, "%s", text);
		return 0;
	}
	ret = daemon_name_split(text, &path, err);
	if (ret)
		return ret;
	if (strcmp(path.pool, target->path.pool) != 0)
		return err_set(err, -EXDEV, "cannot rename '%s/%s' to '%s': a volume stays in its pool",
			       target->path.pool, target->path.volume, text);
	snprintf(name, VOLUME_NAME_BYTES, "%s", path.volume);
	return 0;
}

static int rename_to(struct daemon *daemon, const struct target *target, const char *new_name, struct err *err)
{
	struct volume_info info;
	struct err save_err;
	int ret = get_info(target, &info, err);

	if (ret == 0)
		ret = volume_rename(target->pool->volumes, target->path.volume, new_name, err);
	if (ret)
		return ret;
	if (daemon_record_rename(daemon, target->pool, info.id, new_name, &save_err) != 0)
		log_warn("the state still calls volume '%s' by its old name: %s", new_name, save_err.msg);
	log_info("volume '%s/%s' is called '%s' now", target->path.pool, target->path.volume, new_name);
	return 0;
}

int daemon_volume_rename(struct daemon *daemon, const char *name, const char *new_name, struct err *err)
{
	char volume[VOLUME_NAME_BYTES];
	struct target target;
	int ret = target_begin(&target, daemon, name, err);

	if (ret)
		return ret;
	ret = new_name_of(&target, new_name, volume, err);
	if (ret == 0)
		ret = rename_to(daemon, &target, volume, err);
	target_end(&target);
	return ret;
}

/* --- resize ----------------------------------------------------------------------------------------------- */

static int new_size_of(const struct resize_request *request, const char *name, uint64_t old_bytes, uint64_t *new_bytes,
		       struct err *err)
{
	char old_text[SIZE_TEXT_BYTES];

	*new_bytes = request->size_bytes;
	if (request->relative && __builtin_add_overflow(old_bytes, request->delta_bytes, new_bytes))
		return err_set(err, -EINVAL, "cannot resize volume '%s' of %s by that much", name,
			       size_to_text(old_bytes, old_text));
	if (*new_bytes < old_bytes && !request->force)
		return err_set(err, -EPERM,
			       "volume '%s' of %s would shrink and lose what is beyond; use --force if that is meant",
			       name, size_to_text(old_bytes, old_text));
	return 0;
}

static int resize(const struct target *target, const char *name, const struct resize_request *request, struct err *err)
{
	struct volume_info info;
	uint64_t size_bytes;
	int ret = get_info(target, &info, err);

	if (ret == 0)
		ret = new_size_of(request, name, info.size_bytes, &size_bytes, err);
	if (ret == 0)
		ret = volume_resize(target->pool->volumes, target->path.volume, size_bytes, err);
	if (ret == 0)
		log_size(target, "is resized");
	return ret;
}

int daemon_volume_resize(struct daemon *daemon, const char *name, const struct resize_request *request, struct err *err)
{
	struct target target;
	int ret = target_begin(&target, daemon, name, err);

	if (ret)
		return ret;
	ret = resize(&target, name, request, err);
	target_end(&target);
	return ret;
}
