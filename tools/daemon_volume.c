/* Operations on volumes and snapshots by name: see daemon.h. Each finds and pins the pool, holds its change lock while it checks what the
 * registry knows (exports), and leaves the rest to the engine. */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "pool/base/size.h"
#include "tools/daemon_int.h"
#include "tools/log.h"

/* What is to be changed: its pool is pinned and locked for changes. */
struct target {
	struct daemon_pool *pool;
	struct image_path path;
};

static int target_begin(struct target *target, struct daemon *daemon, const char *name, enum image_kind kind,
			struct err *err)
{
	int ret = image_path_parse(name, kind, &target->path, err);

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
	return volume_get_info(target->pool->volumes, target->path.image, info, err);
}

/* A name that must be of the target's pool. */
static int parse_in_pool(const struct target *target, const char *name, enum image_kind kind, struct image_path *path,
			 struct err *err)
{
	int ret = image_path_parse(name, kind, path, err);

	if (ret == 0 && strcmp(path->pool, target->path.pool) != 0)
		return err_set(err, -EXDEV, "'%s' is not in pool '%s', and '%s/%s' is: this goes within one pool only",
			       name, target->path.pool, target->path.pool, target->path.image);
	return ret;
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
	if (policy_from_text(text, policy))
		return 0;
	return err_set(err, -EINVAL, "no policy '%.32s': use plain, mirror2, mirror3 or ec:K+M (K + M up to %d)", text,
		       SEGMENT_COLS_MAX);
}

static int create(struct daemon *daemon, const char *name, uint64_t size_bytes, const char *policy, bool receiving,
		  struct err *err)
{
	struct volume_create_opts opts = { .size_bytes = size_bytes, .receiving = receiving };
	struct target target;
	int ret = parse_policy(policy, &opts.policy, err);

	if (ret == 0)
		ret = target_begin(&target, daemon, name, IMAGE_VOLUME, err);
	if (ret)
		return ret;
	opts.name = target.path.image;
	ret = volume_create(target.pool->volumes, &opts, err);
	if (ret == 0)
		log_size(&target, receiving ? "is created and being received" : "is created");
	target_end(&target);
	return ret;
}

int daemon_volume_create(struct daemon *daemon, const char *name, uint64_t size_bytes, const char *policy,
			 struct err *err)
{
	return create(daemon, name, size_bytes, policy, false, err);
}

/* --- exports ---------------------------------------------------------------------------------------------- */

/* Refuses what the exports of an image of the target's pool, or of its snapshots, forbid. */
static int check_unexported(const struct target *target, const char *image, bool with_snapshots, struct err *err)
{
	struct volume_info info;
	int ret = volume_get_info(target->pool->volumes, image, &info, err);

	if (ret)
		return ret;
	list_for_each(node, &target->pool->exports) {
		const struct state_export *record = list_entry(node, struct daemon_export, node)->record;

		if (daemon_export_is_of(record, &info, with_snapshots))
			return err_set(err, -EBUSY, "'%s/%s' is exported on '%.100s'; remove the export first",
				       target->path.pool, record->volume, record->address);
	}
	return 0;
}

/* --- delete ----------------------------------------------------------------------------------------------- */

static int delete_image(struct daemon *daemon, const char *name, enum image_kind kind, bool with_snapshots,
			struct err *err)
{
	struct target target;
	int ret = target_begin(&target, daemon, name, kind, err);

	if (ret)
		return ret;
	ret = check_unexported(&target, target.path.image, with_snapshots, err);
	if (ret == 0)
		ret = volume_delete(target.pool->volumes, target.path.image, with_snapshots, err);
	if (ret == -ENOTEMPTY)
		err_set(err, ret,
			"volume '%s' has snapshots ('poolctl snapshot list' shows them); delete them first, or use "
			"--snapshots",
			name);
	target_end(&target);
	if (ret == 0)
		log_info("'%s' is deleted%s", name, with_snapshots ? ", and so are its snapshots" : "");
	return ret;
}

int daemon_volume_delete(struct daemon *daemon, const char *name, bool with_snapshots, struct err *err)
{
	return delete_image(daemon, name, IMAGE_VOLUME, with_snapshots, err);
}

int daemon_snapshot_delete(struct daemon *daemon, const char *name, struct err *err)
{
	return delete_image(daemon, name, IMAGE_SNAPSHOT, false, err);
}

/* --- rename ----------------------------------------------------------------------------------------------- */

static int rename_to(struct daemon *daemon, const struct target *target, const char *new_name, struct err *err)
{
	struct volume_info info;
	struct err save_err;
	int ret = get_info(target, &info, err);

	if (ret == 0)
		ret = volume_rename(target->pool->volumes, target->path.image, new_name, err);
	if (ret)
		return ret;
	if (daemon_record_rename(daemon, target->pool, &info, new_name, &save_err) != 0)
		log_warn("the state still calls '%s' by its old name: %s", new_name, save_err.msg);
	log_info("'%s/%s' is called '%s' now", target->path.pool, target->path.image, new_name);
	return 0;
}

/* The target's new name: all of it, or without the pool, or of a snapshot only what comes behind the '@'. */
static int new_name_of(const struct target *target, const char *text, struct image_path *path, struct err *err)
{
	const char *old = target->path.image;
	enum image_kind kind = image_name_is_snapshot(old) ? IMAGE_SNAPSHOT : IMAGE_VOLUME;
	bool own_part = kind == IMAGE_SNAPSHOT && !image_name_is_snapshot(text);
	char full[4 * (POOL_NAME_MAX + 1)]; /* what is cut off was too long anyway */

	if (strchr(text, '/'))
		return parse_in_pool(target, text, kind, path, err);
	snprintf(full, sizeof(full), "%s/%.*s%s%s", target->path.pool, own_part ? (int)strcspn(old, "@") : 0, old,
		 own_part ? "@" : "", text);
	return parse_in_pool(target, full, kind, path, err);
}

static int rename_image(struct daemon *daemon, const char *name, enum image_kind kind, const char *new_name,
			struct err *err)
{
	struct image_path path;
	struct target target;
	int ret = target_begin(&target, daemon, name, kind, err);

	if (ret)
		return ret;
	ret = new_name_of(&target, new_name, &path, err);
	if (ret == 0)
		ret = rename_to(daemon, &target, path.image, err);
	target_end(&target);
	return ret;
}

int daemon_volume_rename(struct daemon *daemon, const char *name, const char *new_name, struct err *err)
{
	return rename_image(daemon, name, IMAGE_VOLUME, new_name, err);
}

int daemon_snapshot_rename(struct daemon *daemon, const char *name, const char *new_name, struct err *err)
{
	return rename_image(daemon, name, IMAGE_SNAPSHOT, new_name, err);
}

/* --- snapshots and clones --------------------------------------------------------------------------------- */

int daemon_snapshot_create(struct daemon *daemon, const char *const *names, uint32_t count, struct err *err)
{
	const char *own[VOLUME_SNAPSHOTS_MAX]; /* without the pool */
	struct image_path path;
	struct target target;
	int ret = target_begin(&target, daemon, names[0], IMAGE_SNAPSHOT, err);

	if (ret)
		return ret;
	for (uint32_t i = 0; i < count && ret == 0; i++) {
		ret = parse_in_pool(&target, names[i], IMAGE_SNAPSHOT, &path, err);
		own[i] = names[i] + strlen(target.path.pool) + 1;
	}
	if (ret == 0)
		ret = volume_snapshot(target.pool->volumes, own, count, err);
	target_end(&target);
	for (uint32_t i = 0; i < count && ret == 0; i++)
		log_info("snapshot '%s' is created", names[i]);
	return ret;
}

static int roll_back(const struct target *target, struct err *err)
{
	char volume[VOLUME_NAME_BYTES];
	struct volume_info snapshot;
	int ret = get_info(target, &snapshot, err);

	snprintf(volume, sizeof(volume), "%.*s", (int)strcspn(target->path.image, "@"), target->path.image);
	if (ret == 0)
		ret = check_unexported(target, volume, false, err);
	return ret ? ret : volume_rollback(target->pool->volumes, target->path.image, err);
}

int daemon_snapshot_rollback(struct daemon *daemon, const char *name, struct err *err)
{
	struct target target;
	int ret = target_begin(&target, daemon, name, IMAGE_SNAPSHOT, err);

	if (ret)
		return ret;
	ret = roll_back(&target, err);
	target_end(&target);
	if (ret == 0)
		log_info("the volume of snapshot '%s' is rolled back to it", name);
	return ret;
}

int daemon_clone(struct daemon *daemon, const char *from, const char *new_name, struct err *err)
{
	struct image_path path;
	struct target target;
	int ret = target_begin(&target, daemon, from, IMAGE_EITHER, err);

	if (ret)
		return ret;
	ret = parse_in_pool(&target, new_name, IMAGE_VOLUME, &path, err);
	if (ret == 0)
		ret = volume_clone(target.pool->volumes, target.path.image, path.image, err);
	target_end(&target);
	if (ret == 0)
		log_info("volume '%s' is created from '%s'", new_name, from);
	return ret;
}

/* --- receiving -------------------------------------------------------------------------------------------- */

static int receive_onto(struct daemon *daemon, const char *name, const struct uuid *base, struct err *err)
{
	struct target target;
	int ret = target_begin(&target, daemon, name, IMAGE_VOLUME, err);

	if (ret)
		return ret;
	ret = check_unexported(&target, target.path.image, false, err);
	if (ret == 0)
		ret = volume_receive_begin(target.pool->volumes, target.path.image, base, err);
	target_end(&target);
	if (ret == 0)
		log_info("volume '%s' is being received", name);
	return ret;
}

int daemon_receive_begin(struct daemon *daemon, const struct receive_request *request, struct err *err)
{
	if (request->base)
		return receive_onto(daemon, request->volume, request->base, err);
	return create(daemon, request->volume, request->size_bytes, request->policy, true, err);
}

int daemon_receive_get_mark(struct daemon *daemon, const char *name, struct receive_mark *mark, struct err *err)
{
	struct target target;
	int ret = target_begin(&target, daemon, name, IMAGE_VOLUME, err);

	if (ret)
		return ret;
	ret = volume_receive_get_mark(target.pool->volumes, target.path.image, mark, err);
	target_end(&target);
	return ret;
}

int daemon_receive_set_mark(struct daemon *daemon, const char *name, struct receive_mark mark, struct err *err)
{
	struct target target;
	int ret = target_begin(&target, daemon, name, IMAGE_VOLUME, err);

	if (ret)
		return ret;
	ret = volume_receive_set_mark(target.pool->volumes, target.path.image, mark, err);
	target_end(&target);
	return ret;
}

int daemon_receive_snapshot(struct daemon *daemon, const char *name, const struct uuid *guid, uint64_t created_s,
			    struct receive_mark mark, struct err *err)
{
	struct target target;
	int ret = target_begin(&target, daemon, name, IMAGE_SNAPSHOT, err);

	if (ret)
		return ret;
	ret = volume_receive_snapshot(target.pool->volumes, target.path.image, guid, created_s, mark, err);
	target_end(&target);
	if (ret == 0)
		log_info("snapshot '%s' is received", name);
	return ret;
}

int daemon_receive_end(struct daemon *daemon, const char *name, struct err *err)
{
	struct target target;
	int ret = target_begin(&target, daemon, name, IMAGE_VOLUME, err);

	if (ret)
		return ret;
	ret = volume_receive_end(target.pool->volumes, target.path.image, err);
	target_end(&target);
	if (ret == 0)
		log_info("volume '%s' is received", name);
	return ret;
}

int daemon_volume_fence(struct daemon *daemon, const char *name, struct err *err)
{
	struct target target;
	int ret = target_begin(&target, daemon, name, IMAGE_EITHER, err);

	if (ret)
		return ret;
	ret = volume_fence(target.pool->volumes, target.path.image, err);
	target_end(&target);
	if (ret == 0)
		log_info("whoever wrote volume '%s' is fenced", name);
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
		ret = volume_resize(target->pool->volumes, target->path.image, size_bytes, err);
	if (ret == 0)
		log_size(target, "is resized");
	return ret;
}

int daemon_volume_resize(struct daemon *daemon, const char *name, const struct resize_request *request, struct err *err)
{
	struct target target;
	int ret = target_begin(&target, daemon, name, IMAGE_EITHER, err);

	if (ret)
		return ret;
	ret = resize(&target, name, request, err);
	target_end(&target);
	return ret;
}
