/* Changes of what the state folder holds. Each is made in memory and written at once, under one lock, and taken back if
 * it cannot be written: so memory and file agree whenever the lock is free. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tools/daemon_int.h"

struct write_job {
	const struct state *state;
	char *text;
	struct err *err;
};

static int run_write(void *arg)
{
	struct write_job *job = arg;

	return state_write(job->state, job->text, job->err);
}

/* Writes the lists as they are. daemon.saving is held. */
static int save(struct daemon *daemon, struct err *err)
{
	struct write_job job = { .state = &daemon->state, .err = err };
	int ret;

	job.text = state_to_text(&daemon->state);
	if (!job.text)
		return err_set(err, -ENOMEM, "cannot write the state: no memory");
	ret = reactor_offload(run_write, &job);
	free(job.text);
	return ret;
}

/* What is to be recorded of an open pool: the disks it has and `extra` (may be NULL). NULL: no memory. */
static struct state_pool *record_of(const struct daemon_pool *pool, const char *extra)
{
	const char *uris[POOL_DISKS_MAX + 1];
	char uuid[UUID_TEXT_BYTES];
	struct pool_disk_info disk;
	struct pool_info info;
	uint32_t count = 0;

	pool_get_info(pool->pool, &info);
	for (; count < info.disk_count; count++) {
		pool_get_disk_info(pool->pool, count, &disk);
		uris[count] = disk.uri;
	}
	if (extra)
		uris[count++] = extra;
	uuid_to_text(pool_uuid(pool->pool), uuid);
	return state_pool_new(pool->name, uuid, uris, count);
}

int daemon_record_pool(struct daemon *daemon, struct daemon_pool *pool, struct err *err)
{
	struct state_pool *record = record_of(pool, NULL);
	int ret;

	if (!record)
		return err_set(err, -ENOMEM, "cannot write the state: no memory");
	fmutex_lock(&daemon->saving);
	list_push_back(&daemon->state.pools, &record->node);
	ret = save(daemon, err);
	if (ret)
		state_pool_free(record);
	else
		pool->record = record;
	fmutex_unlock(&daemon->saving);
	return ret;
}

int daemon_record_disks(struct daemon *daemon, struct daemon_pool *pool, const char *extra, struct err *err)
{
	struct state_pool *old = pool->record, *new = record_of(pool, extra);
	int ret;

	if (!new)
		return err_set(err, -ENOMEM, "cannot write the state: no memory");
	fmutex_lock(&daemon->saving);
	list_add_between(&new->node, &old->node, old->node.next);
	list_del(&old->node);
	ret = save(daemon, err);
	if (ret) {
		list_add_between(&old->node, &new->node, new->node.next);
		list_del(&new->node);
	}
	pool->record = ret ? old : new;
	state_pool_free(ret ? new : old);
	fmutex_unlock(&daemon->saving);
	return ret;
}

static void forget_in_memory(struct daemon_pool *pool)
{
	list_del(&pool->record->node);
	list_for_each(node, &pool->exports)
		list_del(&list_entry(node, struct daemon_export, node)->record->node);
}

static void recall_in_memory(struct daemon *daemon, struct daemon_pool *pool)
{
	list_push_back(&daemon->state.pools, &pool->record->node);
	list_for_each(node, &pool->exports) {
		struct daemon_export *exp = list_entry(node, struct daemon_export, node);

		if (!exp->temporary)
			list_push_back(&daemon->state.exports, &exp->record->node);
	}
}

int daemon_forget_pool(struct daemon *daemon, struct daemon_pool *pool, struct err *err)
{
	int ret;

	fmutex_lock(&daemon->saving);
	forget_in_memory(pool);
	ret = save(daemon, err);
	if (ret)
		recall_in_memory(daemon, pool);
	fmutex_unlock(&daemon->saving);
	return ret;
}

int daemon_record_export(struct daemon *daemon, struct daemon_export *exp, struct err *err)
{
	int ret;

	fmutex_lock(&daemon->saving);
	list_push_back(&daemon->state.exports, &exp->record->node);
	ret = save(daemon, err);
	if (ret)
		list_del(&exp->record->node);
	fmutex_unlock(&daemon->saving);
	return ret;
}

int daemon_forget_export(struct daemon *daemon, struct daemon_export *exp, struct err *err)
{
	int ret;

	fmutex_lock(&daemon->saving);
	list_del(&exp->record->node);
	ret = save(daemon, err);
	if (ret)
		list_push_back(&daemon->state.exports, &exp->record->node);
	fmutex_unlock(&daemon->saving);
	return ret;
}

/* Returns how many exports have a new name now. */
static uint32_t rename_in_memory(struct daemon_pool *pool, const struct volume_info *old, const char *name)
{
	uint32_t count = 0;

	list_for_each(node, &pool->exports) {
		struct state_export *record = list_entry(node, struct daemon_export, node)->record;
		char own[VOLUME_NAME_BYTES] = "";

		if (!daemon_export_is_of(record, old, true))
			continue;
		if (record->volume_id != old->id) /* a snapshot keeps what is behind the volume's name */
			snprintf(own, sizeof(own), "%s", record->volume + strlen(old->name));
		snprintf(record->volume, sizeof(record->volume), "%s%s", name, own);
		count++;
	}
	return count;
}

int daemon_record_rename(struct daemon *daemon, struct daemon_pool *pool, const struct volume_info *old,
			 const char *name, struct err *err)
{
	int ret = 0;

	fmutex_lock(&daemon->saving);
	if (rename_in_memory(pool, old, name) > 0)
		ret = save(daemon, err);
	fmutex_unlock(&daemon->saving);
	return ret;
}
