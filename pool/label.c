/* Labels of disks: layout, encoding, validation, and the four copies.
 *
 * Everything a label says is checked once, in label_validate; who holds a `struct label` may rely on it: all regions
 * lie on the disk, in order, without overlap. Of several valid copies the one of the highest generation counts. A copy
 * by a newer version makes the whole disk refused even if older copies are readable: its writer knew more. */
#include "pool/label.h"

#include <errno.h>
#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#include "pool/base/crc32c.h"
#include "pool/base/mem.h"
#include "pool/base/size.h"

#define WIPE_BYTES LABEL_FRONT_BYTES
#define ZONES_ALIGN_BYTES (1ull << 20)
#define ZONES_MIN 4u
#define ZONES_MAX (1u << 30)
#define ZONES_WANTED 256u /* what label_default_zone_bytes tries to reach */

static uint64_t clamp_u64(uint64_t value, uint64_t min, uint64_t max)
{
	return value < min ? min : value > max ? max : value;
}

static uint64_t round_up(uint64_t value, uint64_t align)
{
	return (value + align - 1) / align * align;
}

/* --- layout ----------------------------------------------------------------------------------------------- */

uint64_t label_copy_off(uint64_t disk_bytes, uint32_t copy)
{
	return copy < 2 ? (copy + 1) * (64ull << 10) : disk_bytes - (4 - copy) * (64ull << 10);
}

uint32_t label_default_zone_bytes(uint64_t size_bytes)
{
	uint32_t zone_bytes = ZONE_BYTES_DEFAULT;

	while (zone_bytes > ZONE_BYTES_MIN && size_bytes / zone_bytes < ZONES_WANTED)
		zone_bytes /= 2;
	return zone_bytes;
}

/* A catalog half is 1/8192 of the disk, for each disk holds the objects of all disks: with 16 MiB zones that is 2 KiB for
 * each zone of its own, or 30 segments. */
static void layout_halves(struct label *label)
{
	uint64_t checkpoint = clamp_u64(label->disk_bytes >> 13, CHECKPOINT_BYTES_MIN, CHECKPOINT_BYTES_MAX);
	uint64_t journal = clamp_u64(label->disk_bytes >> 17, JOURNAL_BYTES_MIN, 4ull << 20);
	uint64_t off = LABEL_FRONT_BYTES;

	checkpoint = round_up(checkpoint, 64u << 10);
	journal = round_up(journal, 64u << 10);
	for (int h = 0; h < 2; h++) {
		label->half[h] = (struct catalog_half){
			.checkpoint_off = off,
			.checkpoint_bytes = checkpoint,
			.journal_off = off + checkpoint,
			.journal_bytes = journal,
		};
		off += checkpoint + journal;
	}
	label->zones_off = round_up(off, ZONES_ALIGN_BYTES);
}

int label_layout(struct label *label, uint64_t size_bytes, uint32_t zone_bytes, struct err *err)
{
	uint64_t back, zones, need;
	char size_text[SIZE_TEXT_BYTES], need_text[SIZE_TEXT_BYTES];

	if (size_bytes > (uint64_t)INT64_MAX)
		return err_set(err, -EFBIG, "size of %" PRIu64 " bytes is beyond all disks", size_bytes);
	label->disk_bytes = size_bytes / LABEL_BYTES * LABEL_BYTES;
	label->zone_bytes = zone_bytes;
	layout_halves(label);
	need = label->zones_off + (uint64_t)ZONES_MIN * zone_bytes + LABEL_BACK_BYTES;
	if (label->disk_bytes < need)
		return err_set(err, -ENOSPC, "it is too small (%s; at least %s are needed with zones of this size)",
			       size_to_text(size_bytes, size_text), size_to_text(need, need_text));
	back = label->disk_bytes - LABEL_BACK_BYTES;
	zones = (back - label->zones_off) / zone_bytes;
	label->zone_count = (uint32_t)clamp_u64(zones, ZONES_MIN, ZONES_MAX);
	return 0;
}

/* --- bytes ------------------------------------------------------------------------------------------------- */

static uint32_t label_crc(const struct label_block *block)
{
	static const le32 zero;
	const uint8_t *bytes = (const uint8_t *)block;
	const size_t at = offsetof(struct label_block, crc), after = at + sizeof(zero);

	return crc32c(crc32c(crc32c(0, bytes, at), &zero, sizeof(zero)), bytes + after, sizeof(*block) - after);
}

static struct label_half half_encode(const struct catalog_half *half)
{
	return (struct label_half){
		.checkpoint_off = le64_of(half->checkpoint_off),
		.checkpoint_bytes = le64_of(half->checkpoint_bytes),
		.journal_off = le64_of(half->journal_off),
		.journal_bytes = le64_of(half->journal_bytes),
	};
}

static struct catalog_half half_decode(const struct label_half *half)
{
	return (struct catalog_half){
		.checkpoint_off = le64_get(half->checkpoint_off),
		.checkpoint_bytes = le64_get(half->checkpoint_bytes),
		.journal_off = le64_get(half->journal_off),
		.journal_bytes = le64_get(half->journal_bytes),
	};
}

void label_encode(const struct label *label, uint32_t copy, struct label_block *block)
{
	assert(copy < LABEL_COPIES && name_is_valid(label->pool_name));
	memset(block, 0, sizeof(*block));
	memcpy(block->magic, LABEL_MAGIC, sizeof(block->magic));
	block->version = le32_of(LABEL_VERSION);
	block->copy = le32_of(copy);
	block->disk_id = le32_of(label->disk_id);
	memcpy(block->pool_uuid, label->pool_uuid.b, sizeof(block->pool_uuid));
	memcpy(block->disk_uuid, label->disk_uuid.b, sizeof(block->disk_uuid));
	block->generation = le64_of(label->generation);
	block->disk_count = le32_of(label->disk_count);
	block->zone_bytes = le32_of(label->zone_bytes);
	block->disk_bytes = le64_of(label->disk_bytes);
	block->zones_off = le64_of(label->zones_off);
	block->zone_count = le32_of(label->zone_count);
	block->half[0] = half_encode(&label->half[0]);
	block->half[1] = half_encode(&label->half[1]);
	memcpy(block->pool_name, label->pool_name, strlen(label->pool_name));
	block->crc = le32_of(label_crc(block));
}

static void label_decode(const struct label_block *block, struct label *label)
{
	memset(label, 0, sizeof(*label));
	memcpy(label->pool_uuid.b, block->pool_uuid, sizeof(block->pool_uuid));
	memcpy(label->disk_uuid.b, block->disk_uuid, sizeof(block->disk_uuid));
	memcpy(label->pool_name, block->pool_name, sizeof(label->pool_name) - 1);
	label->generation = le64_get(block->generation);
	label->disk_id = le32_get(block->disk_id);
	label->disk_count = le32_get(block->disk_count);
	label->disk_bytes = le64_get(block->disk_bytes);
	label->zone_bytes = le32_get(block->zone_bytes);
	label->zone_count = le32_get(block->zone_count);
	label->zones_off = le64_get(block->zones_off);
	label->half[0] = half_decode(&block->half[0]);
	label->half[1] = half_decode(&block->half[1]);
}

/* --- validation --------------------------------------------------------------------------------------------- */

/* A region [off, off + bytes) that begins at or after *end and stays below limit; moves *end past it. */
static bool region_ok(uint64_t off, uint64_t bytes, uint64_t min, uint64_t max, uint64_t limit, uint64_t *end)
{
	if (off % LABEL_BYTES || bytes % LABEL_BYTES || bytes < min || bytes > max || off < *end)
		return false;
	return !__builtin_add_overflow(off, bytes, end) && *end <= limit;
}

static bool layout_ok(const struct label *label)
{
	uint64_t end = LABEL_FRONT_BYTES, limit, zone_bytes = label->zone_bytes;

	if (label->disk_bytes % LABEL_BYTES || label->disk_bytes < LABEL_FRONT_BYTES + LABEL_BACK_BYTES)
		return false;
	if (zone_bytes < ZONE_BYTES_MIN || zone_bytes > ZONE_BYTES_MAX || zone_bytes & (zone_bytes - 1))
		return false;
	if (label->zone_count == 0 || label->zone_count > ZONES_MAX)
		return false;
	limit = label->disk_bytes - LABEL_BACK_BYTES;
	for (int h = 0; h < 2; h++) {
		const struct catalog_half *half = &label->half[h];

		if (!region_ok(half->checkpoint_off, half->checkpoint_bytes, CHECKPOINT_BYTES_MIN, CHECKPOINT_BYTES_MAX,
			       limit, &end) ||
		    !region_ok(half->journal_off, half->journal_bytes, JOURNAL_BYTES_MIN, JOURNAL_BYTES_MAX, limit,
			       &end))
			return false;
	}
	return region_ok(label->zones_off, label->zone_count * zone_bytes, zone_bytes, UINT64_MAX, limit, &end);
}

static bool name_field_ok(const struct label_block *block)
{
	const char *end = memchr(block->pool_name, 0, POOL_NAME_MAX + 1);

	if (!end || !name_is_valid(block->pool_name))
		return false;
	for (; end < block->pool_name + sizeof(block->pool_name); end++)
		if (*end)
			return false;
	return true;
}

static int features_validate(const struct label_block *block, struct err *err)
{
	uint64_t incompat = le64_get(block->incompat) & ~LABEL_INCOMPAT_KNOWN;
	uint64_t ro_compat = le64_get(block->ro_compat) & ~LABEL_RO_COMPAT_KNOWN;

	if (le32_get(block->version) != LABEL_VERSION)
		return err_set(err, -EOPNOTSUPP,
			       "label has format version %u, this poold knows version %u: use a newer poold",
			       le32_get(block->version), LABEL_VERSION);
	if (incompat || ro_compat)
		return err_set(err, -EOPNOTSUPP,
			       "label has unknown feature bits (incompat 0x%" PRIx64 ", ro_compat 0x%" PRIx64
			       "): use a newer poold",
			       incompat, ro_compat);
	return 0;
}

int label_validate(const struct label_block *block, uint32_t copy, uint64_t disk_bytes, struct label *out,
		   struct err *err)
{
	struct label label;
	int ret;

	if (memcmp(block->magic, LABEL_MAGIC, sizeof(block->magic)) != 0 || le32_get(block->crc) != label_crc(block))
		return err_set(err, -ENOENT, "no label of a pool");
	ret = features_validate(block, err);
	if (ret)
		return ret;
	if (le32_get(block->copy) != copy)
		return err_set(err, -EUCLEAN, "label copy %u stands in the place of copy %u", le32_get(block->copy),
			       copy);
	if (!name_field_ok(block))
		return err_set(err, -EUCLEAN, "label has no valid pool name");
	label_decode(block, &label);
	if (label.disk_id >= POOL_DISKS_MAX || label.disk_count == 0 || label.disk_count > POOL_DISKS_MAX)
		return err_set(err, -EUCLEAN, "label names disk %u of %u", label.disk_id, label.disk_count);
	if (!layout_ok(&label))
		return err_set(err, -EUCLEAN, "label has sizes and offsets that do not add up");
	if (label.disk_bytes > disk_bytes)
		return err_set(err, -EUCLEAN, "disk has %" PRIu64 " bytes, its label says %" PRIu64, disk_bytes,
			       label.disk_bytes);
	*out = label;
	return 0;
}

char *label_to_text(const struct label *label, char text[LABEL_TEXT_BYTES])
{
	char pool_text[37], disk_text[37];

	uuid_to_text(&label->pool_uuid, pool_text);
	uuid_to_text(&label->disk_uuid, disk_text);
	snprintf(text, LABEL_TEXT_BYTES,
		 "pool %s (%s) disk %u of %u (%s) generation %" PRIu64 " size %" PRIu64 " zones %u x %u at %" PRIu64
		 " checkpoints %" PRIu64 "+%" PRIu64 " %" PRIu64 "+%" PRIu64 " journals %" PRIu64 "+%" PRIu64
		 " %" PRIu64 "+%" PRIu64,
		 label->pool_name, pool_text, label->disk_id, label->disk_count, disk_text, label->generation,
		 label->disk_bytes, label->zone_count, label->zone_bytes, label->zones_off,
		 label->half[0].checkpoint_off, label->half[0].checkpoint_bytes, label->half[1].checkpoint_off,
		 label->half[1].checkpoint_bytes, label->half[0].journal_off, label->half[0].journal_bytes,
		 label->half[1].journal_off, label->half[1].journal_bytes);
	return text;
}

/* --- copies -------------------------------------------------------------------------------------------------- */

/* Reads and judges one copy. Its message goes to err whatever the result. */
static int copy_read(struct disk *disk, uint32_t copy, struct label_block *block, struct label *out, struct err *err)
{
	uint64_t disk_bytes = disk->size_bytes / LABEL_BYTES * LABEL_BYTES;
	int ret = disk_read(disk, label_copy_off(disk_bytes, copy), block, sizeof(*block));

	if (ret)
		return err_set(err, ret, "cannot read label copy %u: %s", copy, strerror(-ret));
	return label_validate(block, copy, disk_bytes, out, err);
}

/* Of two failures the one that says more: newer version, damage, read error, nothing there. */
static int failure_rank(int ret)
{
	return ret == -EOPNOTSUPP ? 3 : ret == -EUCLEAN ? 2 : ret == -ENOENT ? 0 : 1;
}

/* The disk is to be known by this label. */
static void set_mark(struct disk *disk, const struct label *label)
{
	struct disk_mark mark = { .count = LABEL_COPIES, .skip_bytes = offsetof(struct label_block, pool_uuid) };

	static_assert(sizeof(mark.bytes) == sizeof(label->pool_uuid) + sizeof(label->disk_uuid), "mark");
	for (uint32_t copy = 0; copy < LABEL_COPIES; copy++)
		mark.off_bytes[copy] = label_copy_off(label->disk_bytes, copy);
	memcpy(mark.bytes, label->pool_uuid.b, sizeof(label->pool_uuid));
	memcpy(mark.bytes + sizeof(label->pool_uuid), label->disk_uuid.b, sizeof(label->disk_uuid));
	disk_set_mark(disk, &mark);
}

int label_read(struct disk *disk, struct label *out, struct err *err)
{
	struct label_block *block;
	struct label label = { 0 };
	struct err copy_err, worst_err = { "" };
	bool found = false;
	int ret, worst = 0;

	if (disk->size_bytes < LABEL_FRONT_BYTES + LABEL_BACK_BYTES)
		return err_set(err, -ENOENT, "no label of a pool");
	block = mem_alloc_aligned(LABEL_BYTES, sizeof(*block));
	if (!block)
		return err_set(err, -ENOMEM, "out of memory");
	for (uint32_t copy = 0; copy < LABEL_COPIES; copy++) {
		ret = copy_read(disk, copy, block, &label, &copy_err);
		if (ret == 0 && (!found || label.generation > out->generation)) {
			*out = label;
			found = true;
		} else if (ret && (!worst || failure_rank(ret) > failure_rank(worst))) {
			worst = ret;
			worst_err = copy_err;
		}
	}
	mem_free(block);
	if (!found || worst == -EOPNOTSUPP)
		return err_set(err, worst, "%s", worst_err.msg);
	set_mark(disk, out);
	return 0;
}

static int pair_write(struct disk *disk, const struct label *label, uint32_t first, struct label_block *block)
{
	int ret;

	for (uint32_t copy = first; copy < first + 2; copy++) {
		label_encode(label, copy, block);
		ret = disk_write(disk, label_copy_off(label->disk_bytes, copy), block, sizeof(*block));
		if (ret)
			return ret;
	}
	return disk_flush(disk);
}

int label_is_complete(struct disk *disk, const struct label *label)
{
	struct label_block *block = mem_alloc_aligned(LABEL_BYTES, sizeof(*block));
	struct label found;
	struct err ignored;
	int complete = 1;

	if (!block)
		return -ENOMEM;
	for (uint32_t copy = 0; copy < LABEL_COPIES && complete; copy++)
		complete = copy_read(disk, copy, block, &found, &ignored) == 0 && found.generation == label->generation;
	mem_free(block);
	return complete;
}

int label_write(struct disk *disk, const struct label *label, struct err *err)
{
	struct label_block *block = mem_alloc_aligned(LABEL_BYTES, sizeof(*block));
	int ret;

	if (!block)
		return err_set(err, -ENOMEM, "out of memory");
	ret = pair_write(disk, label, 0, block);
	if (!ret)
		ret = pair_write(disk, label, 2, block);
	mem_free(block);
	if (ret)
		return err_set(err, ret, "cannot write the label: %s", strerror(-ret));
	set_mark(disk, label);
	return 0;
}

int label_wipe(struct disk *disk, struct err *err)
{
	uint64_t front = disk->size_bytes < WIPE_BYTES ? disk->size_bytes : WIPE_BYTES;
	void *zeroes = mem_alloc_aligned(LABEL_BYTES, WIPE_BYTES);
	int ret;

	if (!zeroes)
		return err_set(err, -ENOMEM, "out of memory");
	memset(zeroes, 0, WIPE_BYTES);
	disk_set_mark(disk, &(struct disk_mark){ .count = 0 });
	ret = disk_write(disk, 0, zeroes, front);
	if (!ret)
		ret = disk_write(disk, disk->size_bytes - front, zeroes, front);
	if (!ret)
		ret = disk_flush(disk);
	mem_free(zeroes);
	return ret ? err_set(err, ret, "cannot wipe the labels: %s", strerror(-ret)) : 0;
}
