/* Labels: layout of disks, four copies under crashes and damage, hostile content, and other people's signatures. */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "pool/base/crc32c.h"
#include "pool/label.h"
#include "tests/unit/medium.h"
#include "tests/unit/unit.h"

#define DISK_BYTES (16ull << 20)

static struct media media;

static struct label sample(void)
{
	struct label label = { .generation = 5, .disk_id = 2, .disk_count = 3, .pool_name = "tank" };

	memset(label.pool_uuid.b, 1, 16);
	memset(label.disk_uuid.b, 2, 16);
	assert_int_equal(label_layout(&label, DISK_BYTES, ZONE_BYTES_MIN, NULL), 0);
	return label;
}

static void run_on_disk(uint64_t size_bytes, void (*fn)(void *arg))
{
	media_init(&media, 1, size_bytes);
	run_fiber(fn, NULL);
	media_release(&media);
}

#define TEST_ON_DISK(name, size_bytes)                 \
	static void name##_fiber(void *arg);           \
	static void name(void **state)                 \
	{                                              \
		run_on_disk(size_bytes, name##_fiber); \
	}                                              \
	static void name##_fiber(void *arg)

static struct disk *open_disk(struct media *of)
{
	struct disk *disks[MEDIA_MAX];

	media_open(of, disks);
	return disks[0];
}

/* --- layout ------------------------------------------------------------------------------------------------------- */

static void every_layout_is_valid_and_leaves_most_to_zones(void **state)
{
	static const uint32_t odd[] = { 0, 512, 4096, 12345 * 512 };
	struct label_block block;
	struct label label, out;
	struct err err = { "" };

	for (uint64_t size = 16ull << 20; size <= 1ull << 55; size *= 2)
		for (int o = 0; o < 4; o++) {
			uint64_t bytes = size + odd[o];

			label = sample();
			assert_int_equal(label_layout(&label, bytes, label_default_zone_bytes(bytes), &err), 0);
			label_encode(&label, 1, &block);
			assert_int_equal(label_validate(&block, 1, bytes, &out, &err), 0);
			assert_memory_equal(&label, &out, sizeof(label));
			if (size >= 128 << 20)
				assert_true((double)label.zone_count * label.zone_bytes > 0.92 * (double)bytes ||
					    size > 1ull << 53);
		}
}

static void disk_that_is_too_small_is_refused(void **state)
{
	struct label label = { 0 };
	struct err err = { "" };

	assert_int_equal(label_layout(&label, 8 << 20, ZONE_BYTES_MIN, &err), -ENOSPC);
	assert_non_null(strstr(err.msg, "too small (8M; at least "));
	assert_int_equal(label_layout(&label, 0, ZONE_BYTES_MIN, &err), -ENOSPC);
	assert_int_equal(label_layout(&label, UINT64_MAX, ZONE_BYTES_MIN, &err), -EFBIG);
}

/* --- copies ------------------------------------------------------------------------------------------------------- */

TEST_ON_DISK(label_is_read_as_written, DISK_BYTES + 512 * 3)
{
	struct label label = sample(), out;
	struct disk *disk = open_disk(&media);

	assert_int_equal(label_write(disk, &label, NULL), 0);
	assert_int_equal(label_read(disk, &out, NULL), 0);
	assert_memory_equal(&label, &out, sizeof(label));
	disk_close(disk);
}

static void spoil(struct media *of, uint64_t off)
{
	uint8_t byte;

	medium_read(&of->medium[0], off, &byte, 1);
	byte ^= 0x40;
	medium_write(&of->medium[0], off, &byte, 1);
}

TEST_ON_DISK(any_one_copy_suffices, DISK_BYTES)
{
	struct label label = sample(), out;
	struct disk *disk = open_disk(&media);

	for (uint32_t keep = 0; keep < LABEL_COPIES; keep++) {
		assert_int_equal(label_write(disk, &label, NULL), 0);
		for (uint32_t copy = 0; copy < LABEL_COPIES; copy++)
			if (copy != keep)
				spoil(&media, label_copy_off(DISK_BYTES, copy) + 88);
		assert_int_equal(label_read(disk, &out, NULL), 0);
		assert_memory_equal(&label, &out, sizeof(label));
	}
	for (uint32_t copy = 0; copy < LABEL_COPIES; copy++)
		medium_write(&media.medium[0], label_copy_off(DISK_BYTES, copy), "", 1);
	assert_int_equal(label_read(disk, &out, NULL), -ENOENT);
	disk_close(disk);
}

static void write_copy(const struct label *label, uint32_t copy)
{
	struct label_block block;

	label_encode(label, copy, &block);
	medium_write(&media.medium[0], label_copy_off(DISK_BYTES, copy), &block, sizeof(block));
}

TEST_ON_DISK(newest_copy_counts, DISK_BYTES)
{
	struct disk *disk = open_disk(&media);

	for (uint32_t newest = 0; newest < LABEL_COPIES; newest++) {
		struct label label = sample(), out;

		for (uint32_t copy = 0; copy < LABEL_COPIES; copy++) {
			label.generation = copy == newest ? 9 : 5 + copy / 2;
			write_copy(&label, copy);
		}
		assert_int_equal(label_read(disk, &out, NULL), 0);
		assert_int_equal(out.generation, 9);
	}
	disk_close(disk);
}

static bool labels_equal(const struct label *a, const struct label *b)
{
	char a_text[LABEL_TEXT_BYTES], b_text[LABEL_TEXT_BYTES];

	return strcmp(label_to_text(a, a_text), label_to_text(b, b_text)) == 0;
}

/* Reads a crash image: the old or the new label, never nothing. */
static void check_crash(const struct media *base, struct crash crash, const struct label *old, const struct label *new)
{
	struct media image;
	struct disk *disk;
	struct label out;

	media_clone(&image, base);
	crash_image(&image, &media, &crash);
	disk = open_disk(&image);
	assert_int_equal(label_read(disk, &out, NULL), 0);
	assert_true(labels_equal(&out, old) || labels_equal(&out, new));
	disk_close(disk);
	media_release(&image);
}

TEST_ON_DISK(crash_while_writing_leaves_old_or_new, DISK_BYTES)
{
	struct label old = sample(), new = sample();
	struct disk *disk = open_disk(&media);
	struct media base;

	new.generation++;
	new.disk_count++;
	assert_int_equal(label_write(disk, &old, NULL), 0);
	media_clone(&base, &media);
	media.logging = true;
	assert_int_equal(label_write(disk, &new, NULL), 0);
	for (uint64_t entries = 0; entries <= media.log_count; entries++)
		for (uint64_t kept = 0; kept < 4; kept++)
			for (uint64_t torn = 0; torn < 9; torn++)
				check_crash(&base, (struct crash){ 0, entries, kept, torn }, &old, &new);
	media_release(&base);
	disk_close(disk);
}

TEST_ON_DISK(wiped_disk_has_no_label, DISK_BYTES)
{
	struct label label = sample();
	struct disk *disk = open_disk(&media);
	struct disk_probe probe;

	assert_int_equal(label_write(disk, &label, NULL), 0);
	assert_int_equal(pool_probe_disk(disk, &probe, NULL), 0);
	assert_true(probe.labelled);
	assert_string_equal(probe.pool_name, "tank");
	assert_int_equal(probe.disk_index, 2);
	assert_int_equal(probe.disk_count, 3);
	assert_int_equal(label_wipe(disk, NULL), 0);
	assert_int_equal(label_read(disk, &label, NULL), -ENOENT);
	assert_int_equal(pool_probe_disk(disk, &probe, NULL), 0);
	assert_false(probe.labelled);
	assert_string_equal(probe.foreign, "");
	disk_close(disk);
}

static int fault_reads(struct medium *medium, const struct disk_io *io)
{
	return io->op == DISK_READ ? -EIO : 0;
}

TEST_ON_DISK(unreadable_disk_is_not_taken_for_an_empty_one, DISK_BYTES)
{
	struct disk *disk = open_disk(&media);
	struct disk_probe probe;
	struct err err = { "" };

	media.medium[0].fault = fault_reads;
	assert_int_equal(pool_probe_disk(disk, &probe, &err), -EIO);
	assert_non_null(strstr(err.msg, "medium:0"));
	disk_close(disk);
}

/* --- content with valid checksums -------------------------------------------------------------------------------------- */

static void mend(struct label_block *block)
{
	block->crc = le32_of(0);
	block->crc = le32_of(crc32c(0, block, sizeof(*block)));
}

static int judge(struct label_block *block, struct err *err)
{
	struct label out;

	mend(block);
	return label_validate(block, 0, DISK_BYTES, &out, err);
}

static void unknown_features_are_refused_by_name(void **state)
{
	struct label label = sample();
	struct label_block block;
	struct err err = { "" };

	label_encode(&label, 0, &block);
	block.incompat = le64_of(0x8000000000000001);
	assert_int_equal(judge(&block, &err), -EOPNOTSUPP);
	assert_non_null(strstr(err.msg, "incompat 0x8000000000000001"));
	label_encode(&label, 0, &block);
	block.ro_compat = le64_of(4);
	assert_int_equal(judge(&block, &err), -EOPNOTSUPP);
	assert_non_null(strstr(err.msg, "ro_compat 0x4"));
	label_encode(&label, 0, &block);
	block.version = le32_of(2);
	assert_int_equal(judge(&block, &err), -EOPNOTSUPP);
	assert_non_null(strstr(err.msg, "version 2"));
	label_encode(&label, 0, &block);
	block.compat = le64_of(7);
	assert_int_equal(judge(&block, &err), 0);
}

TEST_ON_DISK(newer_copy_makes_the_disk_refused, DISK_BYTES)
{
	struct label label = sample();
	struct disk *disk = open_disk(&media);
	struct label_block block;
	struct disk_probe probe;

	assert_int_equal(label_write(disk, &label, NULL), 0);
	label_encode(&label, 3, &block);
	block.incompat = le64_of(1);
	mend(&block);
	medium_write(&media.medium[0], label_copy_off(DISK_BYTES, 3), &block, sizeof(block));
	assert_int_equal(label_read(disk, &label, NULL), -EOPNOTSUPP);
	assert_int_equal(pool_probe_disk(disk, &probe, NULL), 0);
	assert_string_equal(probe.foreign, "newer pool label");
	disk_close(disk);
}

#define REFUSED(change)                                          \
	do {                                                     \
		struct label_block block;                        \
		struct label label = sample();                   \
		struct err err;                                  \
		label_encode(&label, 0, &block);                 \
		change;                                          \
		assert_int_equal(judge(&block, &err), -EUCLEAN); \
	} while (0)

static void nonsense_with_a_valid_checksum_is_refused(void **state)
{
	REFUSED(block.copy = le32_of(1));
	REFUSED(block.disk_id = le32_of(256));
	REFUSED(block.disk_count = le32_of(0));
	REFUSED(block.disk_count = le32_of(257));
	REFUSED(block.zone_bytes = le32_of(ZONE_BYTES_MIN / 2));
	REFUSED(block.zone_bytes = le32_of(ZONE_BYTES_MIN * 3));
	REFUSED(block.zone_bytes = le32_of(0));
	REFUSED(block.zone_count = le32_of(0));
	REFUSED(block.zone_count = le32_of(le32_get(block.zone_count) + 2));
	REFUSED(block.zone_count = le32_of(UINT32_MAX));
	REFUSED(block.zones_off = le64_of(le64_get(block.zones_off) - (1 << 20)));
	REFUSED(block.zones_off = le64_of(UINT64_MAX - 4095));
	REFUSED(block.zones_off = le64_of(le64_get(block.zones_off) + 1));
	REFUSED(block.disk_bytes = le64_of(DISK_BYTES + 4096));
	REFUSED(block.disk_bytes = le64_of(DISK_BYTES - 1));
	REFUSED(block.disk_bytes = le64_of(0));
	REFUSED(block.half[0].checkpoint_off = le64_of(0));
	REFUSED(block.half[0].checkpoint_bytes = le64_of(4096));
	REFUSED(block.half[0].checkpoint_bytes = le64_of(UINT64_MAX - 4095));
	REFUSED(block.half[1].journal_bytes = le64_of(4096));
	REFUSED(block.half[1].checkpoint_off = block.half[0].checkpoint_off);
	REFUSED(block.half[1].journal_off = le64_of(UINT64_MAX - 4095));
	REFUSED(block.pool_name[0] = '-');
	REFUSED(block.pool_name[0] = '\0');
	REFUSED(block.pool_name[3] = '/');
	REFUSED(block.pool_name[66] = 'x');
	REFUSED(memset(block.pool_name, 'x', 65));
}

static uint32_t rnd(void)
{
	static uint64_t state = 1;

	state = state * 6364136223846793005ull + 1442695040888963407ull;
	return (uint32_t)(state >> 33);
}

/* Whatever passes lies on the disk in order. */
static void check_geometry(const struct label *label)
{
	uint64_t end = LABEL_FRONT_BYTES;

	for (int h = 0; h < 2; h++) {
		assert_true(label->half[h].checkpoint_off >= end);
		end = label->half[h].checkpoint_off + label->half[h].checkpoint_bytes;
		assert_true(label->half[h].journal_off >= end);
		end = label->half[h].journal_off + label->half[h].journal_bytes;
	}
	assert_true(label->zones_off >= end);
	end = label->zones_off + (uint64_t)label->zone_count * label->zone_bytes;
	assert_true(end <= label->disk_bytes - LABEL_BACK_BYTES && label->disk_bytes <= DISK_BYTES);
	assert_true(name_is_valid(label->pool_name));
}

static void mutated_labels_are_refused_or_sound(void **state)
{
	uint32_t accepted = 0;

	for (int i = 0; i < 200000; i++) {
		struct label label = sample(), out;
		struct label_block block;
		struct err err;

		label_encode(&label, 0, &block);
		for (uint32_t n = 1 + rnd() % 3; n; n--)
			((uint8_t *)&block)[40 + rnd() % 212] = (uint8_t)(rnd() % 2 ? rnd() : 0xff * (rnd() % 2));
		mend(&block);
		if (label_validate(&block, 0, DISK_BYTES, &out, &err))
			continue;
		check_geometry(&out);
		accepted++;
	}
	assert_true(accepted > 1000);
}

static void text_says_what_stands_there(void **state)
{
	char text[LABEL_TEXT_BYTES];
	struct label label = sample();

	assert_non_null(
		strstr(label_to_text(&label, text), "pool tank (01010101-0101-0101-0101-010101010101) disk 2 of 3 "));
}

/* --- foreign ------------------------------------------------------------------------------------------------------------ */

struct foreign {
	const char *name;
	int64_t off; /* negative: from the end */
	const char *magic;
	size_t magic_bytes;
};

#define F(name, off, magic)                         \
	{                                           \
		name, off, magic, sizeof(magic) - 1 \
	}

static const struct foreign foreigns[] = {
	F("ext2/3/4", 1080, "\x53\xef"),
	F("xfs", 0, "XFSB"),
	F("btrfs", 65600, "_BHRfS_M"),
	F("LVM2", 512, "LABELONE"),
	F("LVM2", 1536, "LABELONE"),
	F("swap", 4086, "SWAPSPACE2"),
	F("LUKS", 0, "LUKS\xba\xbe"),
	F("LUKS", 16384, "SKUL\xba\xbe"),
	F("GPT", 512, "EFI PART"),
	F("GPT", -512, "EFI PART"),
	F("GPT", -4096, "EFI PART"),
	F("md raid", 0, "\xfc\x4e\x2b\xa9"),
	F("md raid", 4096, "\xfc\x4e\x2b\xa9"),
	F("md raid", -8192, "\xfc\x4e\x2b\xa9"),
	F("md raid", -65536, "\xfc\x4e\x2b\xa9"),
	F("ntfs", 3, "NTFS    "),
	F("vfat", 82, "FAT32   "),
	F("vfat", 54, "FAT16   "),
	F("zfs", (128 << 10) + 77 * 1024, "\x0c\xb1\xba\x00\x00\x00\x00\x00"),
	F("qcow2", 0, "QFI\xfb"),
};

static const char *probed(struct disk *disk)
{
	static struct disk_probe probe;

	assert_int_equal(pool_probe_disk(disk, &probe, NULL), 0);
	assert_false(probe.labelled);
	return probe.foreign;
}

TEST_ON_DISK(foreign_signatures_are_recognised_and_wiped, DISK_BYTES)
{
	struct disk *disk = open_disk(&media);

	assert_string_equal(probed(disk), "");
	for (size_t i = 0; i < sizeof(foreigns) / sizeof(foreigns[0]); i++) {
		const struct foreign *f = &foreigns[i];

		medium_write(&media.medium[0], (uint64_t)f->off + (f->off < 0 ? DISK_BYTES : 0), f->magic,
			     f->magic_bytes);
		assert_string_equal(probed(disk), f->name);
		assert_int_equal(label_wipe(disk, NULL), 0);
		assert_string_equal(probed(disk), "");
	}
	disk_close(disk);
}

TEST_ON_DISK(partition_table_counts_when_it_has_entries, DISK_BYTES)
{
	struct disk *disk = open_disk(&media);

	medium_write(&media.medium[0], 510, "\x55\xaa", 2);
	assert_string_equal(probed(disk), "");
	medium_write(&media.medium[0], 446 + 16 + 4, "\x83", 1);
	assert_string_equal(probed(disk), "MBR partition table");
	disk_close(disk);
}

TEST_ON_DISK(tiny_disk_can_be_probed, 4096)
{
	struct disk *disk = open_disk(&media);

	assert_string_equal(probed(disk), "");
	medium_write(&media.medium[0], 0, "XFSB", 4);
	assert_string_equal(probed(disk), "xfs");
	disk_close(disk);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(every_layout_is_valid_and_leaves_most_to_zones),
		cmocka_unit_test(disk_that_is_too_small_is_refused),
		cmocka_unit_test(label_is_read_as_written),
		cmocka_unit_test(any_one_copy_suffices),
		cmocka_unit_test(newest_copy_counts),
		cmocka_unit_test(crash_while_writing_leaves_old_or_new),
		cmocka_unit_test(wiped_disk_has_no_label),
		cmocka_unit_test(unreadable_disk_is_not_taken_for_an_empty_one),
		cmocka_unit_test(unknown_features_are_refused_by_name),
		cmocka_unit_test(newer_copy_makes_the_disk_refused),
		cmocka_unit_test(nonsense_with_a_valid_checksum_is_refused),
		cmocka_unit_test(mutated_labels_are_refused_or_sound),
		cmocka_unit_test(text_says_what_stands_there),
		cmocka_unit_test(foreign_signatures_are_recognised_and_wiped),
		cmocka_unit_test(partition_table_counts_when_it_has_entries),
		cmocka_unit_test(tiny_disk_can_be_probed),
	};

	return run_unit_tests(tests);
}
