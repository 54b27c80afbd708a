/* Volumes that are being received: see volume_receive_begin in volume.h. On the pool's loop, under the directory's lock.
 *
 * The flag and the mark are part of the volume's object, so they change with it in one transaction: a snapshot is there if and
 * only if the mark says that the stream was taken up to its end. */
#include <errno.h>
#include <string.h>

#include "volumes/directory.h"

static int commit_flags(struct volumes *vols, struct volume_state *vol, uint32_t flags, struct receive_mark mark, struct err *err)
{
	struct volume_format f = volume_to_format(vol);
	struct cat_txn txn;
	int rc;

	f.flags = le32_of(flags);
	f.receive_seq = le64_of(mark.seq);
	f.receive_crc = le32_of(mark.crc);
	cat_txn_init(&txn);
	cat_put(&txn, CAT_VOLUME, vol->id, &f, sizeof(f));
	rc = pool_commit(vols->pool, &txn);
	cat_txn_release(&txn);
	if (rc < 0)
		return directory_commit_error(err, rc, "receive", vol->name);
	vol->flags = flags;
	vol->receive = mark;
	return 0;
}

void directory_put_mark(struct cat_txn *txn, const struct volume_state *vol, struct receive_mark mark)
{
	struct volume_format f = volume_to_format(vol);

	f.receive_seq = le64_of(mark.seq);
	f.receive_crc = le32_of(mark.crc);
	cat_put(txn, CAT_VOLUME, vol->id, &f, sizeof(f));
}

/* --- begin ---------------------------------------------------------------------------------------------------- */

static struct volume_state *find_snapshot(struct volumes *vols, const struct volume_state *of, const struct uuid *guid)
{
	list_for_each(node, &vols->volumes) {
		struct volume_state *vol = list_entry(node, struct volume_state, dir);

		if (vol->lin == of->lin && vol->flags & VOLUME_SNAPSHOT && vol->of == of->number && uuid_equal(&vol->guid, guid))
			return vol;
	}
	return NULL;
}

struct compare_call {
	struct volume_state *vol, *base;
	bool same;
};

static int compare_on_home(void *arg)
{
	struct compare_call *call = arg;
	uint64_t size_bytes = call->vol->size_bytes;
	struct extent first;
	uint32_t count = 0;
	int rc;

	if (size_bytes != call->base->size_bytes)
		return 0;
	rc = volume_changes((struct volume *)call->vol, (const struct volume *)call->base, 0, size_bytes, &first, 1, &count);
	call->same = rc == 0 && count == 1 && !first.mapped && first.len_bytes == size_bytes;
	return rc;
}

static int check_base(struct volumes *vols, struct volume_state *vol, const struct uuid *base, struct err *err)
{
	struct compare_call call = { .vol = vol, .base = find_snapshot(vols, vol, base) };
	int rc;

	if (!call.base)
		return err_set(err, -ENOENT, "volume '%s' has not the snapshot that this stream is the difference to", vol->name);
	if (vol->opens > 0)
		return err_set(err, -EBUSY, "volume '%s' is in use: remove its exports first", vol->name);
	rc = fiber_call_on(vol->lin->loop, compare_on_home, &call);
	if (rc < 0)
		return err_set(err, rc, "cannot compare volume '%s' with its snapshot '%s': its map cannot be read", vol->name,
			       call.base->name);
	if (!call.same)
		return err_set(err, -EBUSY, "volume '%s' has changed since its snapshot '%s': roll it back first", vol->name,
			       call.base->name);
	return 0;
}

static int need_volume(struct volumes *vols, const char *name, struct volume_state **vol, struct err *err)
{
	int rc = directory_need(vols, name, vol, err);

	if (rc == 0 && (*vol)->flags & VOLUME_SNAPSHOT)
		return err_set(err, -EROFS, "'%s' is a snapshot: volumes are received", name);
	if (rc == 0 && (*vol)->lin->damage[0])
		return err_set(err, -EIO, "volume '%s' is damaged: %s", name, (*vol)->lin->damage);
	return rc;
}

int volume_receive_begin(struct volumes *vols, const char *name, const struct uuid *base, struct err *err)
{
	struct volume_state *vol;
	int rc;

	fmutex_lock(&vols->change);
	rc = need_volume(vols, name, &vol, err);
	if (rc == 0 && vol->flags & VOLUME_RECEIVING)
		rc = err_set(err, -EEXIST, "volume '%s' is being received already: go on with that, or roll it back", name);
	if (rc == 0)
		rc = check_base(vols, vol, base, err);
	if (rc == 0)
		rc = commit_flags(vols, vol, vol->flags | VOLUME_RECEIVING, (struct receive_mark){ 0 }, err);
	fmutex_unlock(&vols->change);
	return rc;
}

/* --- going on -------------------------------------------------------------------------------------------------- */

static int need_receiving(struct volumes *vols, const char *name, struct volume_state **vol, struct err *err)
{
	int rc = need_volume(vols, name, vol, err);

	if (rc == 0 && !((*vol)->flags & VOLUME_RECEIVING))
		return err_set(err, -EINVAL, "volume '%s' is not being received", name);
	return rc;
}

int volume_receive_set_mark(struct volumes *vols, const char *name, struct receive_mark mark, struct err *err)
{
	struct volume_state *vol;
	int rc;

	fmutex_lock(&vols->change);
	rc = need_receiving(vols, name, &vol, err);
	if (rc == 0)
		rc = commit_flags(vols, vol, vol->flags, mark, err);
	fmutex_unlock(&vols->change);
	return rc;
}

int volume_receive_get_mark(struct volumes *vols, const char *name, struct receive_mark *mark, struct err *err)
{
	struct volume_state *vol;
	int rc;

	fmutex_lock(&vols->change);
	rc = need_receiving(vols, name, &vol, err);
	if (rc == 0)
		*mark = vol->receive;
	fmutex_unlock(&vols->change);
	return rc;
}

int volume_receive_snapshot(struct volumes *vols, const char *name, const struct uuid *guid, uint64_t created_s,
			    struct receive_mark mark, struct err *err)
{
	const char *at = strchr(name, '@');
	char of[VOLUME_NAME_BYTES] = "";
	struct volume_state *vol;
	int rc;

	if (!at || (size_t)(at - name) >= sizeof(of))
		return err_set(err, -EINVAL, "'%s' does not name a snapshot: VOLUME@SNAPSHOT", name);
	memcpy(of, name, (size_t)(at - name));
	fmutex_lock(&vols->change);
	rc = need_receiving(vols, of, &vol, err);
	if (rc == 0)
		rc = directory_receive_snapshot(vols, vol, at + 1, guid, created_s, mark, err);
	fmutex_unlock(&vols->change);
	return rc;
}

int volume_receive_end(struct volumes *vols, const char *name, struct err *err)
{
	struct volume_state *vol;
	int rc;

	fmutex_lock(&vols->change);
	rc = need_receiving(vols, name, &vol, err);
	if (rc == 0)
		rc = commit_flags(vols, vol, vol->flags & ~VOLUME_RECEIVING, (struct receive_mark){ 0 }, err);
	fmutex_unlock(&vols->change);
	return rc;
}
