/* Options of volumes, which may be changed at any time, and groups of volumes that share limits. See volume.h.
 *
 * What is not the default is a catalog object of its own, so images without cost nothing. A change is durable first, and then
 * takes effect on the home loop. On the pool's loop under the directory's lock. */
#include <errno.h>
#include <string.h>

#include "pool/base/mem.h"
#include "volumes/directory.h"

#define BURST_MS_DEFAULT 1000u

struct qos_group {
	struct list node;                /* vols->groups */
	uint64_t id;
	char name[POOL_NAME_MAX + 1];
	struct volume_limits limits;
	struct qos qos;
};

/* --- groups --------------------------------------------------------------------------------------------------- */

static struct qos_group *find_group(struct volumes *vols, const char *name)
{
	list_for_each(node, &vols->groups) {
		struct qos_group *group = list_entry(node, struct qos_group, node);

		if (strcmp(group->name, name) == 0)
			return group;
	}
	return NULL;
}

static struct qos_group *find_group_id(struct volumes *vols, uint64_t id)
{
	list_for_each(node, &vols->groups) {
		struct qos_group *group = list_entry(node, struct qos_group, node);

		if (group->id == id)
			return group;
	}
	return NULL;
}

static struct qos_group *group_new(struct volumes *vols, uint64_t id, const char *name)
{
	struct qos_group *group = mem_zalloc(sizeof(*group));

	if (!group)
		return NULL;
	group->id = id;
	strcpy(group->name, name);
	list_push_back(&vols->groups, &group->node);
	return group;
}

static void group_free(struct qos_group *group)
{
	list_del(&group->node);
	mem_free(group);
}

static uint32_t count_members(const struct volumes *vols, const struct qos_group *group)
{
	uint32_t count = 0;

	list_for_each(node, &vols->volumes)
		count += strcmp(list_entry(node, struct volume_state, dir)->options.group, group->name) == 0;
	return count;
}

/* --- limits --------------------------------------------------------------------------------------------------- */

static int check_limits(struct volume_limits *limits, struct err *err)
{
	if (limits->iops > VOLUME_IOPS_MAX)
		return err_set(err, -EINVAL, "bad limit of %llu requests a second: at most %llu, or 0 for none",
			       (unsigned long long)limits->iops, VOLUME_IOPS_MAX);
	if (limits->bps > 0 && (limits->bps < VOLUME_BPS_MIN || limits->bps > VOLUME_BPS_MAX))
		return err_set(err, -EINVAL, "bad limit of %llu bytes a second: from 4 KiB to 1 TiB, or 0 for none",
			       (unsigned long long)limits->bps);
	if (limits->burst_ms > VOLUME_BURST_MS_MAX)
		return err_set(err, -EINVAL, "bad burst of %u ms: an hour at most", limits->burst_ms);
	if (limits->burst_ms == 0)
		limits->burst_ms = BURST_MS_DEFAULT;
	return 0;
}

static struct limits_format limits_to_format(const struct volume_limits *limits)
{
	return (struct limits_format){ .iops = le64_of(limits->iops), .bps = le64_of(limits->bps),
				       .burst_ms = le32_of(limits->burst_ms) };
}

static bool limits_from_format(const struct limits_format *f, struct volume_limits *limits)
{
	*limits = (struct volume_limits){ le64_get(f->iops), le64_get(f->bps), le32_get(f->burst_ms) };
	return check_limits(limits, NULL) == 0;
}

struct limits_call {
	struct volume_state *vol;
	struct qos_group *group;
};

static bool has_limits(const struct volume_options *options)
{
	return options->limits.iops > 0 || options->limits.bps > 0 || options->group[0];
}

/* What needs memory comes before the change is durable. */
static int prepare_on_home(void *arg)
{
	struct volume_state *vol = ((struct limits_call *)arg)->vol;

	if (!vol->throttle)
		vol->throttle = throttle_new(vol->lin->loop, &vol->counters);
	return vol->throttle ? 0 : -ENOMEM;
}

static int apply_on_home(void *arg)
{
	const struct limits_call *call = arg;
	struct volume_state *vol = call->vol;
	struct throttle *throttle = vol->throttle;

	vol->full_after_ns = vol->options.full_after_s * 1000000000ull;
	io_full(vol->lin);
	lineage_drain_soon(vol->lin);
	if (has_limits(&vol->options)) {
		qos_set(&throttle->own, &vol->options.limits);
		throttle->group = call->group ? &call->group->qos : NULL;
		throttle_changed(throttle);
	} else if (throttle) {
		vol->throttle = NULL;
		throttle_free(throttle);
	}
	return 0;
}

/* --- a volume's options ------------------------------------------------------------------------------------------ */

static bool is_default(const struct volume_options *options)
{
	return !has_limits(options) && options->full_after_s == 0;
}

void options_put_in(struct volumes *vols, uint64_t id, const struct volume_options *options, struct cat_txn *txn)
{
	const struct qos_group *group = options ? find_group(vols, options->group) : NULL;
	struct options_format f;

	if (!options || is_default(options)) {
		if (catalog_get(pool_catalog(vols->pool), CAT_OPTIONS, id))
			cat_del(txn, CAT_OPTIONS, id);
		return;
	}
	f = (struct options_format){ .version = le32_of(1), .full_after_s = le32_of(options->full_after_s), .limits = limits_to_format(&options->limits),
				     .group = le64_of(group ? group->id : 0) };
	cat_put(txn, CAT_OPTIONS, id, &f, sizeof(f));
}

int options_check(struct volumes *vols, struct volume_options *options, struct err *err)
{
	if (options->group[0] && !find_group(vols, options->group))
		return err_set(err, -ENOENT, "no group '%s' in pool '%s'", options->group, pool_name(vols->pool));
	if (options->full_after_s > VOLUME_FULL_AFTER_S_MAX)
		return err_set(err, -EINVAL, "bad time of %u s: a day at most", options->full_after_s);
	return check_limits(&options->limits, err);
}

int options_prepare(struct volume_state *vol, const struct volume_options *options)
{
	struct limits_call call = { .vol = vol };

	return has_limits(options) ? fiber_call_on(vol->lin->loop, prepare_on_home, &call) : 0;
}

void options_apply(struct volume_state *vol, const struct volume_options *options)
{
	struct limits_call call = { .vol = vol, .group = find_group(vol->vols, options->group) };

	vol->options = *options;
	directory_call(vol->lin->loop, apply_on_home, &call);
}

static int commit_options(struct volumes *vols, const struct volume_state *vol, const struct volume_options *options)
{
	struct cat_txn txn;
	int rc;

	cat_txn_init(&txn);
	options_put_in(vols, vol->id, options, &txn);
	rc = pool_commit(vols->pool, &txn);
	cat_txn_release(&txn);
	return rc;
}

int volume_set_options(struct volumes *vols, const char *name, const struct volume_options *wanted, struct err *err)
{
	struct volume_options options = *wanted;
	struct volume_state *vol;
	int rc;

	fmutex_lock(&vols->change);
	rc = directory_need(vols, name, &vol, err);
	if (rc == 0 && vol->flags & VOLUME_SNAPSHOT)
		rc = err_set(err, -EROFS, "a snapshot has no options: set those of its volume, or of a clone of '%s'", name);
	if (rc == 0)
		rc = options_check(vols, &options, err);
	if (rc == 0) {
		rc = options_prepare(vol, &options);
		if (rc == 0)
			rc = commit_options(vols, vol, &options);
		if (rc == 0)
			options_apply(vol, &options);
		else
			directory_commit_error(err, rc, "set options of volume", name);
	}
	fmutex_unlock(&vols->change);
	return rc;
}

/* --- changing groups --------------------------------------------------------------------------------------------- */

/* Members look again. */
static void group_changed(struct volumes *vols, struct qos_group *group)
{
	qos_set(&group->qos, &group->limits);
	list_for_each(node, &vols->volumes) {
		struct limits_call call = { list_entry(node, struct volume_state, dir), group };

		if (strcmp(call.vol->options.group, group->name) == 0)
			directory_call(call.vol->lin->loop, apply_on_home, &call);
	}
}

static int commit_group(struct volumes *vols, const struct qos_group *group, const struct volume_limits *limits)
{
	struct group_format f = { .version = le32_of(1) };
	struct cat_txn txn;
	int rc;

	cat_txn_init(&txn);
	memcpy(f.name, group->name, strlen(group->name));
	if (limits) {
		f.limits = limits_to_format(limits);
		cat_put(&txn, CAT_GROUP, group->id, &f, sizeof(f));
	} else {
		cat_del(&txn, CAT_GROUP, group->id);
	}
	rc = pool_commit(vols->pool, &txn);
	cat_txn_release(&txn);
	return rc;
}

static int set_group(struct volumes *vols, const char *name, const struct volume_limits *limits, struct err *err)
{
	struct qos_group *group = find_group(vols, name);
	bool made = !group;
	int rc;

	if (made)
		group = group_new(vols, pool_new_id(vols->pool), name);
	rc = group ? commit_group(vols, group, limits) : -ENOMEM;
	if (rc == 0) {
		group->limits = *limits;
		group_changed(vols, group);
		return 0;
	}
	if (made && group)
		group_free(group);
	return directory_commit_error(err, rc, "set limits of group", name);
}

int volume_group_set(struct volumes *vols, const char *name, const struct volume_limits *wanted, struct err *err)
{
	struct volume_limits limits = *wanted;
	int rc = check_limits(&limits, err);

	if (rc == 0 && !name_is_valid(name))
		rc = err_set(err, -EINVAL,
			     "bad group name '%s': 1 to 64 of A-Z a-z 0-9 . _ - without a leading dot or dash", name);
	if (rc < 0)
		return rc;
	fmutex_lock(&vols->change);
	rc = set_group(vols, name, &limits, err);
	fmutex_unlock(&vols->change);
	return rc;
}

static int delete_group(struct volumes *vols, const char *name, struct err *err)
{
	struct qos_group *group = find_group(vols, name);
	uint32_t members = group ? count_members(vols, group) : 0;
	int rc;

	if (!group)
		return err_set(err, -ENOENT, "no group '%s' in pool '%s'", name, pool_name(vols->pool));
	if (members > 0)
		return err_set(err, -EBUSY, "group '%s' has %u volumes: take them out of it first", name, members);
	rc = commit_group(vols, group, NULL);
	if (rc < 0)
		return directory_commit_error(err, rc, "delete group", name);
	group_free(group);
	return 0;
}

int volume_group_delete(struct volumes *vols, const char *name, struct err *err)
{
	int rc;

	fmutex_lock(&vols->change);
	rc = delete_group(vols, name, err);
	fmutex_unlock(&vols->change);
	return rc;
}

void volume_group_for_each(struct volumes *vols, void (*fn)(void *arg, const struct volume_group *group), void *arg)
{
	list_for_each(node, &vols->groups) {
		const struct qos_group *group = list_entry(node, struct qos_group, node);
		struct volume_group info = { .limits = group->limits, .volumes = count_members(vols, group) };

		strcpy(info.name, group->name);
		fn(arg, &info);
	}
}

/* --- loading ------------------------------------------------------------------------------------------------------- */

static int load_groups(struct volumes *vols)
{
	struct catalog *cat = pool_catalog(vols->pool);

	for (const struct cat_obj *obj = catalog_next(cat, CAT_GROUP, 0); obj;
	     obj = catalog_next(cat, CAT_GROUP, obj->id + 1)) {
		const struct group_format *f = obj->data;
		char name[POOL_NAME_MAX + 1] = "";
		struct volume_limits limits;
		struct qos_group *group;

		if (obj->len_bytes != sizeof(*f) || le32_get(f->version) != 1 || !limits_from_format(&f->limits, &limits))
			return -EINVAL;
		memcpy(name, f->name, POOL_NAME_MAX);
		if (!name_is_valid(name) || find_group(vols, name))
			return -EINVAL;
		group = group_new(vols, obj->id, name);
		if (!group)
			return -ENOMEM;
		group->limits = limits;
		qos_set(&group->qos, &limits);
	}
	return 0;
}

static int load_options(struct volumes *vols, struct volume_state *vol)
{
	const struct cat_obj *obj = catalog_get(pool_catalog(vols->pool), CAT_OPTIONS, vol->id);
	const struct options_format *f = obj ? obj->data : NULL;
	struct volume_options options = { .full_after_s = f ? le32_get(f->full_after_s) : 0 };
	struct qos_group *group;
	int rc;

	if (!obj)
		return 0;
	if (obj->len_bytes != sizeof(*f) || le32_get(f->version) != 1 || !limits_from_format(&f->limits, &options.limits))
		return -EINVAL;
	group = find_group_id(vols, le64_get(f->group));
	if (!group && le64_get(f->group) != 0)
		return -EINVAL;
	if (group)
		strcpy(options.group, group->name);
	rc = options_check(vols, &options, NULL) < 0 ? -EINVAL : options_prepare(vol, &options);
	if (rc == 0)
		options_apply(vol, &options);
	return rc;
}

int options_load(struct volumes *vols)
{
	int rc = load_groups(vols);

	list_for_each(node, &vols->volumes) {
		if (rc == 0)
			rc = load_options(vols, list_entry(node, struct volume_state, dir));
	}
	return rc;
}

void options_release(struct volumes *vols)
{
	while (!list_empty(&vols->groups))
		group_free(list_entry(vols->groups.next, struct qos_group, node));
}
