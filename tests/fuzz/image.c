/* A pool's image as a fuzz target: see image.h. Where its structures lie is image_map.c's, using it image_use.c's. */
#include "tests/fuzz/image_int.h"

#include "pool/base/crc32c.h"
#include "pool/base/mem.h"
#include "pool/catalog_format.h"
#include "pool/label_format.h"
#include "volumes/batch_format.h"
#include "volumes/map_format.h"

#define PATCH_BYTES_MAX 16u
#define PATCHES_MAX 32u
#define KEEP_CHECKSUM 0x80u

/* --- patches ------------------------------------------------------------------------------------------------ */

static void patch_object(struct image_object *object, uint32_t off, uint8_t control, struct fuzz_input *in)
{
	uint8_t bytes[PATCH_BYTES_MAX];
	uint32_t len = 1 + control % PATCH_BYTES_MAX;

	object->changed = true;
	if (control & KEEP_CHECKSUM) {
		object->deleted = off % 2;
		object->len_bytes = off / 2 % (CATALOG_OBJ_MAX + 1);
		return;
	}
	off %= object->len_bytes + 1;
	fuzz_take(in, bytes, len);
	if (len > CATALOG_OBJ_MAX - off)
		len = CATALOG_OBJ_MAX - off;
	memcpy(object->data + off, bytes, len);
}

static void patch_block(struct run *run, struct image_part *part, uint32_t off, uint8_t control, struct fuzz_input *in)
{
	uint8_t bytes[PATCH_BYTES_MAX];
	uint32_t len = 1 + control % PATCH_BYTES_MAX;

	off %= part->len_bytes;
	fuzz_take(in, bytes, len);
	if (len > part->len_bytes - off)
		len = part->len_bytes - off;
	medium_write(&run->media.medium[part->disk], part->off + off, bytes, len);
	part->changed = true;
	part->keep_checksum = control & KEEP_CHECKSUM;
}

static void patch(struct run *run, unsigned kinds, struct fuzz_input *in)
{
	uint16_t choice[PARTS_MAX];
	uint32_t choices = 0;

	for (uint32_t i = 0; i < run->part_count; i++) {
		if (run->part[i].kind & kinds)
			choice[choices++] = (uint16_t)i;
	}
	for (uint32_t n = 0; n < PATCHES_MAX && in->left > 0; n++) {
		struct image_part *part = &run->part[choice[fuzz_uint16(in) % choices]];
		uint32_t off = fuzz_uint16(in);
		uint8_t control = fuzz_uint8(in);

		if (part->kind & (IMAGE_POOL_OBJECT | IMAGE_VOLUME_OBJECT))
			patch_object(&run->object[part->parent], off, control, in);
		else
			patch_block(run, part, off, control, in);
	}
}

/* --- mending ------------------------------------------------------------------------------------------------ */

static void read_part(struct run *run, const struct image_part *part, void *buf)
{
	medium_read(&run->media.medium[part->disk], part->off, buf, part->len_bytes);
}

static void write_part(struct run *run, const struct image_part *part, const void *buf)
{
	medium_write(&run->media.medium[part->disk], part->off, buf, part->len_bytes);
}

static void mend_data(struct run *run, const struct image_part *part)
{
	struct image_part *batch = &run->part[part->parent];
	uint8_t block[BLOCK_BYTES];
	le32 crc;

	if (part->keep_checksum)
		return;
	read_part(run, part, block);
	crc = le32_of(crc32c(0, block, BLOCK_BYTES));
	medium_write(&run->media.medium[batch->disk], batch->off + part->parent_off, &crc, sizeof(crc));
	batch->changed = true;
}

static void mend_batch(struct run *run, const struct image_part *part)
{
	struct batch_header header;

	read_part(run, part, &header);
	batch_header_seal(&header);
	write_part(run, part, &header);
}

/* A node's checksum stands in its parent, or in the object that names the root. */
static void mend_node(struct run *run, const struct image_part *part)
{
	uint8_t block[BLOCK_BYTES];
	le32 crc;

	read_part(run, part, block);
	crc = le32_of(crc32c(0, block, BLOCK_BYTES));
	if (part->is_root) {
		memcpy(run->object[part->parent].data + part->parent_off, &crc, sizeof(crc));
		run->object[part->parent].changed = true;
		return;
	}
	medium_write(&run->media.medium[run->part[part->parent].disk], run->part[part->parent].off + part->parent_off,
		     &crc, sizeof(crc));
	run->part[part->parent].changed = true;
}

static void mend_record(struct run *run, const struct image_part *part)
{
	uint8_t *record = malloc(part->len_bytes);
	struct record_head *head = (struct record_head *)record;

	read_part(run, part, record);
	if (le32_get(head->payload_bytes) <= RECORD_PAYLOAD_MAX &&
	    record_bytes(le32_get(head->payload_bytes)) <= part->len_bytes)
		record_seal(head);
	write_part(run, part, record);
	free(record);
}

static void mend_checkpoint(struct run *run, const struct image_part *part)
{
	uint8_t *bytes = malloc(part->len_bytes);
	struct checkpoint_block *block = (struct checkpoint_block *)bytes;
	uint64_t payload_bytes;

	read_part(run, part, bytes);
	payload_bytes = le64_get(block->payload_bytes);
	if (payload_bytes <= part->len_bytes - sizeof(*block))
		block->payload_crc = le32_of(crc32c(0, bytes + sizeof(*block), payload_bytes));
	checkpoint_seal(block);
	write_part(run, part, bytes);
	free(bytes);
}

static void mend_label(struct run *run, const struct image_part *part)
{
	struct label_block block;

	read_part(run, part, &block);
	block.crc = le32_of(0);
	block.crc = le32_of(crc32c(0, &block, sizeof(block)));
	write_part(run, part, &block);
}

static void mend_part(struct run *run, const struct image_part *part)
{
	switch (part->kind) {
	case IMAGE_DATA:
		mend_data(run, part);
		break;
	case IMAGE_BATCH:
		mend_batch(run, part);
		break;
	case IMAGE_NODE:
	case IMAGE_LIVE:
		mend_node(run, part);
		break;
	case IMAGE_RECORD:
		mend_record(run, part);
		break;
	case IMAGE_CHECKPOINT:
		mend_checkpoint(run, part);
		break;
	case IMAGE_LABEL:
		mend_label(run, part);
		break;
	default:
		break;
	}
}

/* One more journal record, with all objects that were changed. */
static void append_record(struct run *run)
{
	const struct image *image = run->image;
	uint8_t *record = calloc(1, record_bytes(RECORD_PAYLOAD_MAX));
	struct record_head *head = (struct record_head *)record;
	uint32_t bytes = 0;

	for (uint32_t i = 0; i < run->object_count; i++) {
		const struct image_object *object = &run->object[i];
		uint32_t len_bytes = object->deleted ? 0 : object->len_bytes;

		if (!object->changed || bytes + cat_entry_bytes(len_bytes) > RECORD_PAYLOAD_MAX)
			continue;
		cat_entry_encode((uint8_t *)(head + 1) + bytes, object->key, object->deleted ? CAT_OP_DEL : CAT_OP_PUT,
				 object->data, len_bytes);
		bytes += cat_entry_bytes(len_bytes);
	}
	if (bytes > 0) {
		*head = image->next_record;
		head->payload_bytes = le32_of(bytes);
		record_seal(head);
		for (uint32_t disk = 0; disk < IMAGE_DISKS; disk++)
			medium_write(&run->media.medium[disk], image->next_record_off[disk], record, record_bytes(bytes));
	}
	free(record);
}

/* Parents stand before their children in the list. */
static void mend(struct run *run)
{
	for (uint32_t i = run->part_count; i-- > 0;) {
		if (run->part[i].changed)
			mend_part(run, &run->part[i]);
	}
	append_record(run);
}

/* --- a run --------------------------------------------------------------------------------------------------- */

static void *plain_alloc(size_t align_bytes, size_t size_bytes)
{
	return align_bytes <= 16 ? malloc(size_bytes)
				 : aligned_alloc(align_bytes, (size_bytes + align_bytes - 1) / align_bytes * align_bytes);
}

void image_fuzz(unsigned kinds, struct fuzz_input *in)
{
	/* Without guard pages, which cost two system calls a fiber; ASan watches as well. */
	static const struct mem_ops plain_mem = { .alloc = plain_alloc, .free = free };
	static struct image *image;
	static struct run run;

	if (!image) {
		mem_set_ops(&plain_mem);
		image = image_make();
	}
	run.image = image;
	run.part_count = image->part_count;
	run.object_count = image->object_count;
	memcpy(run.part, image->part, image->part_count * sizeof(*run.part));
	memcpy(run.object, image->object, image->object_count * sizeof(*run.object));
	media_clone(&run.media, &image->media);
	patch(&run, kinds, in);
	mend(&run);
	image_use(&run.media);
	media_release(&run.media);
}
