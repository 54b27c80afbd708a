/* What a disk holds before we touch it: a label of ours, or the signature of somebody else.
 *
 * The signatures are one table of {name, from which end, offset, magic}; a row may repeat at a stride. They are read from
 * the first and last PROBE_BYTES of the disk. The first match wins, so containers that also look like something else
 * (vfat and ntfs end their boot sector as an MBR does) stand before it. A false alarm costs an administrator one
 * --force; a miss may cost a file system. */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "pool/base/mem.h"
#include "pool/label.h"
#include "pool/pool.h"

#define PROBE_BYTES (256u << 10)

struct signature {
	const char *name;
	bool from_end; /* offset counts back from the end of the disk */
	uint32_t offset;
	uint32_t stride, count; /* also at offset + i * stride, i < count; 0 means once */
	uint32_t magic_bytes;
	const char *magic;
};

#define MAGIC(str) .magic_bytes = sizeof(str) - 1, .magic = (str)

static const struct signature signatures[] = {
	{ "LUKS", false, 0, MAGIC("LUKS\xba\xbe") },
	{ "LUKS", false, 16384, MAGIC("SKUL\xba\xbe") },
	{ "xfs", false, 0, MAGIC("XFSB") },
	{ "qcow2", false, 0, MAGIC("QFI\xfb") },
	{ "ntfs", false, 3, MAGIC("NTFS    ") },
	{ "exfat", false, 3, MAGIC("EXFAT   ") },
	{ "vfat", false, 82, MAGIC("FAT32   ") },
	{ "vfat", false, 54, MAGIC("FAT16   ") },
	{ "vfat", false, 54, MAGIC("FAT12   ") },
	{ "LVM2", false, 0, 512, 4, MAGIC("LABELONE") },
	{ "GPT", false, 512, MAGIC("EFI PART") },
	{ "GPT", false, 4096, MAGIC("EFI PART") },
	{ "GPT", true, 512, MAGIC("EFI PART") },
	{ "GPT", true, 4096, MAGIC("EFI PART") },
	{ "btrfs", false, 65536 + 64, MAGIC("_BHRfS_M") },
	{ "swap", false, 4096 - 10, MAGIC("SWAPSPACE2") },
	{ "swap", false, 65536 - 10, MAGIC("SWAPSPACE2") },
	{ "swap", false, 4096 - 10, MAGIC("SWAP-SPACE") },
	{ "bcachefs", false, 4096 + 24, MAGIC("\xc6\x85\x73\xf6\x4e\x1a\x45\xca\x82\x65\xf5\x7f\x48\xba\x6d\x81") },
	{ "bcachefs", false, 4096 + 24, MAGIC("\xc6\x85\x73\xf6\x66\xce\x90\xa9\xd9\x6a\x60\xcf\x80\x3d\xf7\xef") },
	{ "f2fs", false, 1024, MAGIC("\x10\x20\xf5\xf2") },
	{ "iso9660", false, 32769, MAGIC("CD001") },
	{ "md raid", false, 0, MAGIC("\xfc\x4e\x2b\xa9") },
	{ "md raid", false, 4096, MAGIC("\xfc\x4e\x2b\xa9") },
	{ "md raid", true, 12288, 512, 9, MAGIC("\xfc\x4e\x2b\xa9") },
	{ "md raid", true, 128 << 10, 512, 129, MAGIC("\xfc\x4e\x2b\xa9") },
	{ "zfs", false, 128 << 10, 1024, 128, MAGIC("\x0c\xb1\xba\x00\x00\x00\x00\x00") },
	{ "zfs", false, 128 << 10, 1024, 128, MAGIC("\x00\x00\x00\x00\x00\xba\xb1\x0c") },
	{ "ext2/3/4", false, 1024 + 56, MAGIC("\x53\xef") },
};

/* Both ends of a disk in memory. On a disk smaller than 2 * PROBE_BYTES they overlap. */
struct ends {
	uint8_t *front, *back;
	uint64_t bytes;
};

static bool magic_at(const struct signature *sig, const struct ends *ends, uint64_t offset)
{
	const uint8_t *base = sig->from_end ? ends->back : ends->front;

	return offset <= ends->bytes && sig->magic_bytes <= ends->bytes - offset &&
	       memcmp(base + offset, sig->magic, sig->magic_bytes) == 0;
}

static bool signature_matches(const struct signature *sig, const struct ends *ends)
{
	uint64_t offset = sig->offset;

	if (sig->from_end && sig->offset > ends->bytes)
		return false;
	if (sig->from_end)
		offset = ends->bytes - sig->offset;
	for (uint32_t i = 0; i < (sig->count ? sig->count : 1); i++)
		if (magic_at(sig, ends, offset + (uint64_t)i * sig->stride))
			return true;
	return false;
}

/* A partition table that has an entry; an empty one, or a mere boot block, is nobody's data. */
static bool mbr_has_entries(const struct ends *ends)
{
	const uint8_t *mbr = ends->front;

	if (ends->bytes < 512 || mbr[510] != 0x55 || mbr[511] != 0xaa)
		return false;
	for (int i = 0; i < 4; i++)
		if (mbr[446 + 16 * i + 4])
			return true;
	return false;
}

static const char *foreign_name(const struct ends *ends)
{
	for (size_t i = 0; i < sizeof(signatures) / sizeof(signatures[0]); i++)
		if (signature_matches(&signatures[i], ends))
			return signatures[i].name;
	return mbr_has_entries(ends) ? "MBR partition table" : "";
}

static int probe_foreign(struct disk *disk, struct disk_probe *probe, struct err *err)
{
	struct ends ends = { .bytes = disk->size_bytes < PROBE_BYTES ? disk->size_bytes : PROBE_BYTES };
	int ret = 0;

	ends.front = mem_alloc_aligned(LABEL_BYTES, 2 * PROBE_BYTES);
	if (!ends.front)
		return err_set(err, -ENOMEM, "out of memory");
	ends.back = ends.front + PROBE_BYTES;
	if (ends.bytes)
		ret = disk_read(disk, 0, ends.front, ends.bytes);
	if (!ret && ends.bytes)
		ret = disk_read(disk, disk->size_bytes - ends.bytes, ends.back, ends.bytes);
	if (!ret)
		snprintf(probe->foreign, sizeof(probe->foreign), "%s", foreign_name(&ends));
	mem_free(ends.front);
	return ret ? err_set(err, ret, "cannot read disk '%s': %s", disk->uri, strerror(-ret)) : 0;
}

static void probe_fill(struct disk_probe *probe, const struct label *label)
{
	probe->labelled = true;
	memcpy(probe->pool_name, label->pool_name, sizeof(probe->pool_name));
	probe->pool_uuid = label->pool_uuid;
	probe->disk_uuid = label->disk_uuid;
	probe->disk_index = label->disk_id;
	probe->disk_count = label->disk_count;
}

int pool_probe_disk(struct disk *disk, struct disk_probe *probe, struct err *err)
{
	struct label label;
	struct err label_err;
	int ret = label_read(disk, &label, &label_err);

	memset(probe, 0, sizeof(*probe));
	switch (ret) {
	case 0: probe_fill(probe, &label); return 0;
	case -ENOENT: return probe_foreign(disk, probe, err);
	case -EOPNOTSUPP:
	case -EUCLEAN:
		snprintf(probe->foreign, sizeof(probe->foreign), "%s",
			 ret == -EUCLEAN ? "damaged pool label" : "newer pool label");
		return 0;
	default: return err_set(err, ret, "cannot read disk '%s': %s", disk->uri, label_err.msg);
	}
}
