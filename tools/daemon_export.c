/* Exports of the registry: see daemon.h and the rules in daemon_int.h.
 *
 * An export is bound to its volume by number: a rename, also one whose record was lost in a crash, does not part them.
 * A new kind of export: 1 write targets/export_x.c with its start function; 2 name it in `kinds`; 3 give poolctl its
 * option; 4 add it to the man page. */
#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tools/daemon_int.h"
#include "tools/log.h"

#define SERIAL_BYTES 21

struct export_kind {
	const char *name;
	/* Whether a request says what this kind needs, and no more. */
	int (*check)(const struct export_request *request, struct err *err);
	/* Takes over the volume's handle on success. */
	int (*start)(struct volume *volume, const char *serial, const struct state_export *record, struct export **out,
		     struct err *err);
};

static int check_path(const char *path, struct err *err)
{
	return path && path[0] != '/' ? err_set(err, -EINVAL, "'%.200s' is not an absolute path", path) : 0;
}

static int check_vhost_user(const struct export_request *request, struct err *err)
{
	if (request->tls_certs || request->tls_psk)
		return err_set(err, -EINVAL, "exports of kind '%s' have no TLS", request->kind);
	return check_path(request->address, err);
}

static int start_vhost_user(struct volume *volume, const char *serial, const struct state_export *record,
			    struct export **out, struct err *err)
{
	struct vhost_user_opts opts = {
		.socket_path = record->address,
		.listen_fd = -1,
		.queues = record->queues,
		.read_only = record->read_only,
	};

	return export_vhost_user_start(volume, serial, &opts, out, err);
}

static int check_nbd(const struct export_request *request, struct err *err)
{
	bool is_unix = strncmp(request->address, "unix:", 5) == 0;
	int ret = is_unix ? check_path(request->address + 5, err) : 0;

	if (!is_unix && strncmp(request->address, "tcp:", 4) != 0)
		return err_set(err, -EINVAL, "'%.200s' is neither unix:PATH nor tcp:HOST:PORT", request->address);
	if (request->queues)
		return err_set(err, -EINVAL, "exports of kind '%s' have no queues", request->kind);
	if (request->tls_certs && request->tls_psk)
		return err_set(err, -EINVAL, "TLS is by certificates or by pre-shared keys, not both");
	if (ret == 0)
		ret = check_path(request->tls_certs, err);
	return ret ? ret : check_path(request->tls_psk, err);
}

static int start_nbd(struct volume *volume, const char *serial, const struct state_export *record, struct export **out,
		     struct err *err)
{
	struct nbd_opts opts = {
		.address = record->address,
		.read_only = record->read_only,
		.tls_certs_dir = record->tls_certs,
		.tls_psk_file = record->tls_psk,
	};

	return export_nbd_start(volume, record->volume, &opts, out, err);
}

static const struct export_kind kinds[] = {
	{ "vhost-user-blk", check_vhost_user, start_vhost_user },
	{ "nbd", check_nbd, start_nbd },
};

static const struct export_kind *find_kind(const char *name)
{
	for (size_t i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++) {
		if (strcmp(kinds[i].name, name) == 0)
			return &kinds[i];
	}
	return NULL;
}

/* --- members ---------------------------------------------------------------------------------------------- */

struct daemon_export *daemon_export_new(struct daemon_pool *pool, struct state_export *record)
{
	struct daemon_export *exp = calloc(1, sizeof(*exp));

	if (!exp)
		return NULL;
	pin_init(&exp->pin);
	exp->state = MEMBER_DOWN;
	snprintf(exp->why.msg, sizeof(exp->why.msg), "its pool is not open");
	exp->record = record;
	list_push_back(&pool->exports, &exp->node);
	return exp;
}

void daemon_export_free(struct daemon_export *exp)
{
	pin_wait_unused(&exp->pin);
	list_del(&exp->node);
	state_export_free(exp->record);
	free(exp);
}

bool daemon_export_is_of(const struct state_export *record, const struct volume_info *image, bool or_snapshot)
{
	size_t len = strlen(image->name);

	if (record->volume_id == image->id)
		return true;
	return or_snapshot && strncmp(record->volume, image->name, len) == 0 && record->volume[len] == '@';
}

/* --- up and down ------------------------------------------------------------------------------------------ */

static int copy_name_of(void *arg, const struct volume_info *info)
{
	struct state_export *record = arg;

	if (info->id == record->volume_id)
		snprintf(record->volume, sizeof(record->volume), "%s", info->name);
	return info->id == record->volume_id;
}

/* Finds the name of the volume with the record's number. */
static int find_name(struct daemon_pool *pool, struct state_export *record, struct err *err)
{
	int ret = volume_for_each(pool->volumes, copy_name_of, record);

	if (ret < 0)
		return err_set(err, ret, "cannot list the volumes of pool '%s': %s", pool->name, strerror(-ret));
	if (ret == 0)
		return err_set(err, -ENOENT, "no volume '%s' of number %llu in pool '%s'", record->volume,
			       (unsigned long long)record->volume_id, pool->name);
	return 0;
}

/* Opens the volume with the record's number: the one of its name nearly always, or it was renamed. */
static int open_volume(struct daemon_pool *pool, struct state_export *record, struct volume **out, struct err *err)
{
	int ret = volume_open(pool->volumes, record->volume, out, err);

	if (ret == 0 && volume_id(*out) == record->volume_id)
		return 0;
	if (ret == 0)
		volume_close(*out);
	else if (ret != -ENOENT)
		return ret;
	ret = find_name(pool, record, err);
	return ret ? ret : volume_open(pool->volumes, record->volume, out, err);
}

/* What the guest sees as the disk's serial number: the same for ever, whatever the volume is called. */
static void make_serial(const struct daemon_pool *pool, uint64_t volume_id, char serial[SERIAL_BYTES])
{
	const struct uuid *uuid = pool_uuid(pool->pool);

	snprintf(serial, SERIAL_BYTES, "%02x%02x%02x%014llx", uuid->b[0], uuid->b[1], uuid->b[2],
		 (unsigned long long)(volume_id & 0xffffffffffffffull));
}

static int start(struct daemon_pool *pool, struct daemon_export *exp, struct err *err)
{
	const struct export_kind *kind = find_kind(exp->record->kind);
	char serial[SERIAL_BYTES];
	struct volume *volume;
	int ret;

	if (!kind)
		return err_set(err, -ENOTSUP, "exports of kind '%s' are not supported", exp->record->kind);
	ret = open_volume(pool, exp->record, &volume, err);
	if (ret)
		return ret;
	make_serial(pool, exp->record->volume_id, serial);
	ret = kind->start(volume, serial, exp->record, &exp->export, err);
	if (ret)
		volume_close(volume);
	return ret;
}

/* DOWN -> STARTING -> OPEN or DOWN. */
static int bring_up(struct daemon_pool *pool, struct daemon_export *exp)
{
	int ret;

	exp->state = MEMBER_STARTING;
	ret = start(pool, exp, &exp->why);
	if (ret) {
		exp->state = MEMBER_DOWN;
		log_error("export of '%s/%s' on '%s' is down: %s", pool->name, exp->record->volume,
			  exp->record->address, exp->why.msg);
		return ret;
	}
	exp->state = MEMBER_OPEN;
	log_info("'%s/%s' is exported on '%s'", pool->name, exp->record->volume, exp->record->address);
	return 0;
}

void daemon_export_bring_up_all(struct daemon_pool *pool)
{
	list_for_each(node, &pool->exports) {
		struct daemon_export *exp = list_entry(node, struct daemon_export, node);

		if (exp->state == MEMBER_DOWN)
			bring_up(pool, exp);
	}
}

void daemon_export_shut(struct daemon_export *exp)
{
	exp->state = MEMBER_STOPPING;
	pin_wait_unused(&exp->pin);
	export_stop(exp->export);
	exp->export = NULL;
	exp->state = MEMBER_DOWN;
}

/* --- add -------------------------------------------------------------------------------------------------- */

/* The export at this address, of any pool. */
static struct daemon_export *find_address(struct daemon *daemon, const char *address, struct daemon_pool **pool_out)
{
	list_for_each(pool_node, &daemon->pools) {
		struct daemon_pool *pool = list_entry(pool_node, struct daemon_pool, node);

		list_for_each(node, &pool->exports) {
			struct daemon_export *exp = list_entry(node, struct daemon_export, node);

			*pool_out = pool;
			if (strcmp(exp->record->address, address) == 0)
				return exp;
		}
	}
	return NULL;
}

static int check_writers(struct daemon_pool *pool, uint64_t volume_id, const char *volume, struct err *err)
{
	list_for_each(node, &pool->exports) {
		const struct state_export *record = list_entry(node, struct daemon_export, node)->record;

		if (record->volume_id == volume_id && !record->read_only)
			return err_set(err, -EBUSY,
				       "volume '%s' is exported for writing on '%.150s' already; remove that export "
				       "first, or add one that is read-only or on standby",
				       volume, record->address);
	}
	return 0;
}

/* Everything that is known to forbid the export. */
static int check_request(struct daemon *daemon, struct daemon_pool *pool, const struct export_request *request,
			 const struct volume_info *volume, struct err *err)
{
	const struct export_kind *kind = find_kind(request->kind);
	struct daemon_pool *other;
	int ret;

	if (!kind)
		return err_set(err, -ENOTSUP, "exports of kind '%.64s' are not supported", request->kind);
	ret = kind->check(request, err);
	if (ret)
		return ret;
	if (volume->receiving && !request->receiving)
		return err_set(err, -EBUSY, "volume '%s' is being received and not complete", request->image);
	if (find_address(daemon, request->address, &other))
		return err_set(err, -EEXIST, "there is an export on '%.200s' already; 'poolctl export list' shows it",
			       request->address);
	if (request->read_only || request->standby || volume->snapshot)
		return 0;
	return check_writers(pool, volume->id, request->image, err);
}

/* Registers the export, not yet up. No wait between the checks and this. */
static struct daemon_export *register_new(struct daemon_pool *pool, const struct export_request *request,
					  const struct volume_info *volume)
{
	struct daemon_export *exp = NULL;
	struct state_export *record =
		state_export_new(pool->record->uuid, volume->name, volume->id, request->kind, request->address);

	if (!record)
		return NULL;
	record->queues = request->queues;
	record->read_only = request->read_only || volume->snapshot;
	if (state_export_set_tls(record, request->tls_certs, request->tls_psk) == 0)
		exp = daemon_export_new(pool, record);
	if (exp)
		exp->temporary = request->temporary;
	else
		state_export_free(record);
	return exp;
}

/* --- temporary ones --------------------------------------------------------------------------------------- */

#define WATCH_NS 200000000ull

struct watch {
	struct daemon *daemon;
	char address[EXPORT_GIVEN_BYTES];
};

/* Nobody is served any more, or nobody came. */
static bool is_over(struct daemon_pool *pool, struct daemon_export *exp, uint64_t since_ns)
{
	struct export_info info = { 0 };

	pin_take(&pool->pin);
	pin_take(&exp->pin);
	export_get_info(exp->export, &info);
	pin_drop(&exp->pin);
	pin_drop(&pool->pin);
	if (info.connections > 0)
		return false;
	return info.sessions > 0 || loop_now_ns(loop_self()) - since_ns > EXPORT_TEMPORARY_S * 1000000000ull;
}

static void watch_temporary(void *arg)
{
	struct watch *watch = arg;
	uint64_t since_ns = loop_now_ns(loop_self());
	struct daemon_export *exp;
	struct daemon_pool *pool;

	while ((exp = find_address(watch->daemon, watch->address, &pool)) && exp->state == MEMBER_OPEN) {
		if (is_over(pool, exp, since_ns)) {
			(void)!daemon_export_remove(watch->daemon, NULL, watch->address, NULL);
			break;
		}
		fiber_sleep_ns(WATCH_NS);
	}
	watch->daemon->watchers--;
	free(watch);
}

static int watch_start(struct daemon *daemon, const char *address, struct err *err)
{
	struct watch *watch = calloc(1, sizeof(*watch));

	if (watch) {
		watch->daemon = daemon;
		snprintf(watch->address, sizeof(watch->address), "%s", address);
	}
	if (!watch || fiber_start(loop_self(), watch_temporary, watch) != 0) {
		free(watch);
		return err_set(err, -ENOMEM, "no memory");
	}
	daemon->watchers++;
	return 0;
}

/* A socket beside the one for control. */
static int give_address(struct daemon *daemon, struct export_request *request, struct err *err)
{
	char *path = realpath(daemon->config->socket, NULL);
	int len = path ? snprintf(request->given, sizeof(request->given), "unix:%s.%u", path, daemon->temporaries++) : 0;

	free(path);
	if (len <= 0 || len >= (int)sizeof(request->given))
		return err_set(err, -ENAMETOOLONG, "no socket can be made beside '%s'", daemon->config->socket);
	request->address = request->given;
	return 0;
}

/* --- add, in full ------------------------------------------------------------------------------------------ */

static int keep(struct daemon *daemon, struct daemon_export *exp, struct err *err)
{
	return exp->temporary ? watch_start(daemon, exp->record->address, err) : daemon_record_export(daemon, exp, err);
}

static int add(struct daemon *daemon, struct daemon_pool *pool, const char *volume_name,
	       const struct export_request *request, struct err *err)
{
	struct daemon_export *exp;
	struct volume_info volume;
	int ret = volume_get_info(pool->volumes, volume_name, &volume, err);

	if (ret == 0)
		ret = check_request(daemon, pool, request, &volume, err);
	if (ret)
		return ret;
	exp = register_new(pool, request, &volume);
	if (!exp)
		return err_set(err, -ENOMEM, "no memory");
	ret = bring_up(pool, exp);
	if (ret)
		*err = exp->why;
	else
		ret = keep(daemon, exp, err);
	if (ret) {
		if (exp->state == MEMBER_OPEN)
			daemon_export_shut(exp);
		daemon_export_free(exp);
	}
	return ret;
}

int daemon_export_add(struct daemon *daemon, struct export_request *request, struct err *err)
{
	struct daemon_pool *pool;
	struct image_path path;
	int ret = image_path_parse(request->image, IMAGE_EITHER, &path, err);

	if (ret == 0 && !request->address)
		ret = give_address(daemon, request, err);
	if (ret == 0)
		ret = daemon_pool_get(daemon, path.pool, &pool, err);
	if (ret)
		return ret;
	fmutex_lock(&pool->change);
	ret = add(daemon, pool, path.image, request, err);
	fmutex_unlock(&pool->change);
	daemon_pool_put(pool);
	return ret;
}

/* --- remove ----------------------------------------------------------------------------------------------- */

/* The pool of a volume or snapshot; pins it. */
static int find_by_image(struct daemon *daemon, const char *image, struct daemon_pool **pool, struct err *err)
{
	struct image_path path;
	int ret = image_path_parse(image, IMAGE_EITHER, &path, err);

	return ret ? ret : daemon_pool_find(daemon, path.pool, pool, err);
}

static int find_by_address(struct daemon *daemon, const char *address, struct daemon_pool **pool, struct err *err)
{
	if (!find_address(daemon, address, pool))
		return err_set(err, -ENOENT, "no export on '%.200s'; 'poolctl export list' shows those there are",
			       address);
	pin_take(&(*pool)->pin);
	return 0;
}

static bool matches(const struct daemon_export *exp, const char *image, const char *address)
{
	if (address)
		return strcmp(exp->record->address, address) == 0;
	return strcmp(exp->record->volume, strchr(image, '/') + 1) == 0;
}

/* The one export of the pool that is meant. pool->change is held. */
static int pick(struct daemon_pool *pool, const char *image, const char *address, struct daemon_export **out,
		struct err *err)
{
	uint32_t count = 0;

	list_for_each(node, &pool->exports) {
		struct daemon_export *exp = list_entry(node, struct daemon_export, node);

		if (matches(exp, image, address) && count++ == 0)
			*out = exp;
	}
	if (count == 0)
		return err_set(err, -ENOENT, "'%.200s' is not exported; 'poolctl export list' shows what is",
			       address ? address : image);
	if (count > 1)
		return err_set(err, -EINVAL, "'%s' has %u exports; name one by its path", image, count);
	return 0;
}

static int remove_one(struct daemon *daemon, struct daemon_pool *pool, struct daemon_export *exp, struct err *err)
{
	int ret = exp->temporary ? 0 : daemon_forget_export(daemon, exp, err);

	if (ret)
		return ret;
	if (exp->state == MEMBER_OPEN)
		daemon_export_shut(exp);
	log_info("'%s/%s' is no longer exported on '%s'", pool->name, exp->record->volume, exp->record->address);
	daemon_export_free(exp);
	return 0;
}

int daemon_export_remove(struct daemon *daemon, const char *image, const char *address, struct err *err)
{
	struct daemon_export *exp = NULL;
	struct daemon_pool *pool = NULL;
	int ret;

	if (address)
		ret = find_by_address(daemon, address, &pool, err);
	else
		ret = find_by_image(daemon, image, &pool, err);
	if (ret)
		return ret;
	assert(pool);
	fmutex_lock(&pool->change);
	ret = pick(pool, image, address, &exp, err);
	if (ret == 0) {
		assert(exp);
		ret = remove_one(daemon, pool, exp, err);
	}
	fmutex_unlock(&pool->change);
	daemon_pool_put(pool);
	return ret;
}
