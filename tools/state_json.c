/* state.json's text, both ways: see state.h for its form.
 *
 * Reading is strict: unknown members, wrong types, names that are none, two pools of one name or uuid, or a version that is
 * not ours fail the whole file, because what a record means must not be guessed. The parameters of control methods and the
 * members of records are checked by the same getters (params.h). */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "tools/json_text.h"
#include "tools/names.h"
#include "tools/params.h"
#include "tools/state.h"

#define STATE_RECORDS_MAX 65536

/* --- writing ---------------------------------------------------------------------------------------------- */

static json_t *pool_to_json(const struct state_pool *pool)
{
	json_t *disks = json_array();

	for (uint32_t i = 0; i < pool->disk_count; i++) {
		if (json_array_append_new(disks, json_string(pool->disks[i])) != 0) {
			json_decref(disks);
			return NULL;
		}
	}
	return json_pack("{s:s, s:s, s:o}", "name", pool->name, "uuid", pool->uuid, "disks", disks);
}

static json_t *export_to_json(const struct state_export *exp)
{
	return json_pack("{s:s, s:I, s:s, s:s, s:s, s:i, s:b, s:s*, s:s*}", "pool_uuid", exp->pool_uuid, "volume_id",
			 (json_int_t)exp->volume_id, "volume", exp->volume, "kind", exp->kind, "address", exp->address,
			 "queues", (int)exp->queues, "read_only", (int)exp->read_only, "tls_certs", exp->tls_certs,
			 "tls_psk", exp->tls_psk);
}

static int fill_arrays(const struct state *state, json_t *pools, json_t *exports)
{
	int ret = 0;

	list_for_each(node, &state->pools)
		ret |= json_array_append_new(pools, pool_to_json(list_entry(node, struct state_pool, node)));
	list_for_each(node, &state->exports)
		ret |= json_array_append_new(exports, export_to_json(list_entry(node, struct state_export, node)));
	return ret;
}

char *state_to_text(const struct state *state)
{
	json_t *pools = json_array(), *exports = json_array();
	json_t *root = json_pack("{s:i, s:O, s:O}", "version", STATE_VERSION, "pools", pools, "exports", exports);
	char *text = NULL;

	if (root && fill_arrays(state, pools, exports) == 0)
		text = json_dumps(root, JSON_INDENT(2));
	json_decref(root);
	json_decref(pools);
	json_decref(exports);
	return text;
}

/* --- reading ---------------------------------------------------------------------------------------------- */

/* A text of exactly the form of a uuid. */
static bool uuid_is_valid(const char *text)
{
	static const char form[] = "xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx";

	if (strlen(text) != sizeof(form) - 1)
		return false;
	for (size_t i = 0; form[i]; i++) {
		if (form[i] == '-' ? text[i] != '-' : !strchr("0123456789abcdef", text[i]))
			return false;
	}
	return true;
}

static bool pool_is_known(const struct state *state, const char *name, const char *uuid)
{
	list_for_each(node, &state->pools) {
		const struct state_pool *pool = list_entry(node, struct state_pool, node);

		if (strcmp(pool->name, name) == 0 || strcmp(pool->uuid, uuid) == 0)
			return true;
	}
	return false;
}

static bool uuid_is_known(const struct state *state, const char *uuid)
{
	return pool_is_known(state, "", uuid);
}

static int pool_from_json(struct state *state, const json_t *json, struct err *err)
{
	const char *disks[POOL_DISKS_MAX];
	struct state_pool *pool;
	struct params params;
	const char *name, *uuid;
	uint32_t count;

	params_init(&params, json, err);
	name = param_text(&params, "name");
	uuid = param_text(&params, "uuid");
	count = param_texts(&params, "disks", disks, POOL_DISKS_MAX);
	if (params_end(&params) != 0)
		return err_prefix(err, -EINVAL, "in a pool");
	if (!name_is_valid(name) || !uuid_is_valid(uuid))
		return err_set(err, -EINVAL, "a pool has an invalid name or uuid");
	if (pool_is_known(state, name, uuid))
		return err_set(err, -EINVAL, "pool '%s' is there twice", name);
	pool = state_pool_new(name, uuid, disks, count);
	if (!pool)
		return err_set(err, -ENOMEM, "no memory");
	list_push_back(&state->pools, &pool->node);
	return 0;
}

static int export_from_json(struct state *state, const json_t *json, struct err *err)
{
	const char *pool_uuid, *volume, *kind, *address, *tls_certs, *tls_psk;
	struct state_export *exp;
	struct params params;
	uint64_t volume_id, queues;
	bool read_only;

	params_init(&params, json, err);
	pool_uuid = param_text(&params, "pool_uuid");
	volume = param_text(&params, "volume");
	volume_id = param_u64(&params, "volume_id", INT64_MAX);
	kind = param_text(&params, "kind");
	address = param_text(&params, "address");
	queues = param_u64(&params, "queues", UINT16_MAX);
	read_only = param_flag(&params, "read_only");
	tls_certs = param_text_or(&params, "tls_certs", NULL);
	tls_psk = param_text_or(&params, "tls_psk", NULL);
	if (params_end(&params) != 0)
		return err_prefix(err, -EINVAL, "in an export");
	if (!image_name_is_valid(volume, IMAGE_EITHER) || strlen(kind) > STATE_KIND_MAX)
		return err_set(err, -EINVAL, "an export has an invalid volume name or kind");
	if (image_name_is_snapshot(volume) && !read_only)
		return err_set(err, -EINVAL, "the export of snapshot '%s' is not read-only", volume);
	if (!uuid_is_known(state, pool_uuid))
		return err_set(err, -EINVAL, "the export of volume '%s' belongs to no pool", volume);
	exp = state_export_new(pool_uuid, volume, volume_id, kind, address);
	if (!exp)
		return err_set(err, -ENOMEM, "no memory");
	exp->queues = (uint32_t)queues;
	exp->read_only = read_only;
	list_push_back(&state->exports, &exp->node);
	return state_export_set_tls(exp, tls_certs, tls_psk) ? err_set(err, -ENOMEM, "no memory") : 0;
}

/* Calls `from` for each member of the array. */
static int each(struct state *state, const json_t *root, const char *key,
		int (*from)(struct state *state, const json_t *json, struct err *err), struct err *err)
{
	const json_t *array = json_object_get(root, key), *member;
	size_t i;
	int ret;

	if (!json_is_array(array) || json_array_size(array) > STATE_RECORDS_MAX)
		return err_set(err, -EINVAL, "'%s' is not an array of at most %d records", key, STATE_RECORDS_MAX);
	json_array_foreach(array, i, member) {
		if (!json_is_object(member))
			return err_set(err, -EINVAL, "'%s' holds something that is no record", key);
		ret = from(state, member, err);
		if (ret)
			return ret;
	}
	return 0;
}

static int from_json(struct state *state, const json_t *root, struct err *err)
{
	const json_t *version = json_object_get(root, "version");
	int ret;

	if (!json_is_integer(version))
		return err_set(err, -EINVAL, "it has no version");
	if (json_integer_value(version) != STATE_VERSION)
		return err_set(err, -EPROTO, "it has version %lld, and this poold reads %d only",
			       (long long)json_integer_value(version), STATE_VERSION);
	if (json_object_size(root) != 3)
		return err_set(err, -EINVAL, "it has unknown members");
	ret = each(state, root, "pools", pool_from_json, err);
	return ret ? ret : each(state, root, "exports", export_from_json, err);
}

int state_from_text(struct state *state, const char *text, size_t len_bytes, struct err *err)
{
	json_t *root;
	int ret = json_text_parse(text, len_bytes, &root, err);

	if (ret)
		return ret;
	ret = from_json(state, root, err);
	json_decref(root);
	return ret;
}
