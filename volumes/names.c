/* Names of volumes and snapshots, and what is found by them: see directory.h.
 *
 * An image with a name is in two tables, by its name within its volume or the pool, and by its number within its lineage;
 * a snapshot also on the list of its volume. So nothing here depends on how many there are. */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "pool/base/crc32c.h"
#include "volumes/directory.h"

/* --- entering ----------------------------------------------------------------------------------------------- */

static uint64_t hash_name(const struct volume_state *of, const char *name, size_t len)
{
	return table_hash((of ? of->id << 32 : 0) ^ crc32c(0, name, len));
}

static uint64_t hash_number(const struct lineage *lin, uint32_t number)
{
	return table_hash(lin->id << 32 ^ number);
}

bool directory_add(struct volumes *vols, struct volume_state *vol)
{
	bool snapshot = vol->flags & VOLUME_SNAPSHOT;
	struct volume_state *of = snapshot ? directory_find_number(vols, vol->lin, vol->of) : NULL;

	if (snapshot && (!of || of->flags & VOLUME_SNAPSHOT))
		return false;
	vol->volume = of;
	if (snapshot) {
		list_push_back(&of->snapshots, &vol->sibling);
		of->snapshot_count++;
	}
	list_push_back(&vols->volumes, &vol->dir);
	vol->lin->named++;
	table_add(&vols->names, &vol->by_name, hash_name(of, vol->name, strlen(vol->name)));
	table_add(&vols->numbers, &vol->by_number, hash_number(vol->lin, vol->number));
	return true;
}

void directory_remove(struct volumes *vols, struct volume_state *vol)
{
	struct list *node;

	if (list_empty(&vol->dir))
		return;
	list_del(&vol->dir);
	vol->lin->named--;
	table_del(&vols->names, &vol->by_name);
	table_del(&vols->numbers, &vol->by_number);
	list_del(&vol->sibling);
	if (vol->volume)
		vol->volume->snapshot_count--;
	while ((node = list_pop_front(&vol->snapshots)))
		list_entry(node, struct volume_state, sibling)->volume = NULL; /* goes with it */
}

void directory_set_name(struct volumes *vols, struct volume_state *vol, const char *own)
{
	table_del(&vols->names, &vol->by_name);
	strcpy(vol->name, own);
	table_add(&vols->names, &vol->by_name, hash_name(vol->volume, own, strlen(own)));
}

/* --- finding ------------------------------------------------------------------------------------------------ */

/* The volume (of NULL) or snapshot with this name of its own. */
static struct volume_state *find_own(struct volumes *vols, const char *name, size_t len, const struct volume_state *of)
{
	table_for_bucket(node, &vols->names, hash_name(of, name, len)) {
		struct volume_state *vol = table_entry(node, struct volume_state, by_name);

		if (vol->volume == of && strlen(vol->name) == len && memcmp(vol->name, name, len) == 0)
			return vol;
	}
	return NULL;
}

struct volume_state *directory_find(struct volumes *vols, const char *name)
{
	size_t len = strcspn(name, "@");
	struct volume_state *vol = find_own(vols, name, len, NULL);

	return vol && name[len] == '@' ? find_own(vols, name + len + 1, strlen(name + len + 1), vol) : vol;
}

struct volume_state *directory_find_number(struct volumes *vols, const struct lineage *lin, uint32_t number)
{
	table_for_bucket(node, &vols->numbers, hash_number(lin, number)) {
		struct volume_state *vol = table_entry(node, struct volume_state, by_number);

		if (vol->lin == lin && vol->number == number)
			return vol;
	}
	return NULL;
}

void directory_name(const struct volume_state *vol, char name[VOLUME_NAME_BYTES])
{
	const struct volume_state *of = vol->volume;

	snprintf(name, VOLUME_NAME_BYTES, "%s%s%s", of ? of->name : "", of ? "@" : "", vol->name);
}

int directory_need(struct volumes *vols, const char *name, struct volume_state **vol, struct err *err)
{
	*vol = directory_find(vols, name);
	return *vol ? 0 : err_set(err, -ENOENT, "no %s '%s' in pool '%s'", strchr(name, '@') ? "snapshot" : "volume", name,
				  pool_name(vols->pool));
}

/* --- new names ------------------------------------------------------------------------------------------------ */

int directory_check_snapshot(struct volumes *vols, const struct volume_state *of, const char *own, struct err *err)
{
	if (!name_is_valid(own))
		return err_set(err, -EINVAL,
			       "bad snapshot name '%s': 1 to 64 of A-Z a-z 0-9 . _ - without a leading dot or dash", own);
	if (find_own(vols, own, strlen(own), of))
		return err_set(err, -EEXIST, "snapshot '%s@%s' exists in pool '%s'", of->name, own, pool_name(vols->pool));
	return 0;
}

int directory_check_new(struct volumes *vols, const char *name, struct err *err)
{
	if (!name_is_valid(name))
		return err_set(err, -EINVAL,
			       "bad volume name '%s': 1 to 64 of A-Z a-z 0-9 . _ - without a leading dot or dash", name);
	if (directory_find(vols, name))
		return err_set(err, -EEXIST, "volume '%s' exists in pool '%s'", name, pool_name(vols->pool));
	return 0;
}
