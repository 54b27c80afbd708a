/* Making the image, and finding its structures: see image.h. */
#include "pool/base/crc32c.h"
#include "pool/catalog_int.h"
#include "pool/pool_int.h"
#include "tests/fuzz/image_int.h"
#include "tests/unit/unit_volume.h"
#include "volumes/batch_format.h"
#include "volumes/map_format.h"

/* --- parts --------------------------------------------------------------------------------------------------- */

static struct image_part *add_part(struct image *image, enum image_kind kind, uint32_t disk, uint64_t off, uint32_t len_bytes)
{
	struct image_part *part = &image->part[image->part_count++];

	FUZZ_REQUIRE(image->part_count <= PARTS_MAX);
	*part = (struct image_part){ .kind = kind, .disk = disk, .off = off, .len_bytes = len_bytes };
	return part;
}

static void add_labels(struct image *image, uint32_t disk)
{
	for (uint32_t copy = 0; copy < LABEL_COPIES; copy++)
		add_part(image, IMAGE_LABEL, disk, label_copy_off(IMAGE_DISK_BYTES, copy), LABEL_BYTES);
}

static void add_catalog(struct image *image, const struct catalog *cat, uint32_t disk)
{
	const struct catalog_half *half = &cat->disks[disk]->half[cat->generation % 2];
	struct medium *medium = &image->media.medium[disk];
	struct checkpoint_block block;
	struct record_head head;

	medium_read(medium, half->checkpoint_off, &block, sizeof(block));
	add_part(image, IMAGE_CHECKPOINT, disk, half->checkpoint_off,
		 (uint32_t)(sizeof(block) + le64_get(block.payload_bytes)));
	for (uint64_t at = 0; at < cat->journal_pos; at += record_bytes(le32_get(head.payload_bytes))) {
		medium_read(medium, half->journal_off + at, &head, sizeof(head));
		add_part(image, IMAGE_RECORD, disk, half->journal_off + at, record_bytes(le32_get(head.payload_bytes)));
	}
	image->next_record_off[disk] = half->journal_off + cat->journal_pos;
	head.stamp = le64_of(cat->stamp);
	head.generation = le64_of(cat->generation);
	head.seq = le64_of(cat->seq + 1);
	head.next_id = le64_of(atomic_load(&cat->next_id));
	image->next_record = head;
}

static void add_objects(struct image *image, const struct catalog *cat)
{
	for (int kind = CAT_POOL; kind <= CAT_MAP; kind++) {
		for (const struct cat_obj *obj = catalog_next(cat, (enum catalog_kind)kind, 0); obj;
		     obj = catalog_next(cat, (enum catalog_kind)kind, obj->id + 1)) {
			struct image_object *object = &image->object[image->object_count++];
			enum image_kind of = kind <= CAT_SEGMENT ? IMAGE_POOL_OBJECT : IMAGE_VOLUME_OBJECT;

			FUZZ_REQUIRE(image->object_count <= OBJECTS_MAX);
			object->key = cat_key((enum catalog_kind)kind, obj->id);
			object->len_bytes = obj->len_bytes;
			memcpy(object->data, obj->data, obj->len_bytes);
			add_part(image, of, 0, 0, 1)->parent = image->object_count - 1;
		}
	}
}

static const struct segment *find_segment(struct pool *pool, uint64_t owner, uint32_t segno, struct segment *out)
{
	struct catalog *cat = pool_catalog(pool);

	for (const struct cat_obj *obj = catalog_next(cat, CAT_SEGMENT, 0); obj;
	     obj = catalog_next(cat, CAT_SEGMENT, obj->id + 1)) {
		FUZZ_REQUIRE(segment_from_obj(obj, out));
		if (out->owner == owner && out->segno == segno)
			return out;
	}
	return NULL;
}

/* Adds a block of a segment, and reads it. */
static struct image_part *add_block(struct image *image, const struct pool *pool, enum image_kind kind,
				    const struct segment *segment, uint32_t index, void *block)
{
	const struct zone_addr *at = &segment->cols[index % segment->policy.k];
	const struct label *label = &pool->disks[at->disk_id]->label;
	uint64_t off = label->zones_off + (uint64_t)at->zone * label->zone_bytes +
		       (uint64_t)(index / segment->policy.k) * BLOCK_BYTES;

	medium_read(&image->media.medium[at->disk_id], off, block, BLOCK_BYTES);
	return add_part(image, kind, at->disk_id, off, BLOCK_BYTES);
}

static void add_data(struct image *image, const struct pool *pool, const struct segment *segment,
		     const struct batch_header *header)
{
	uint32_t batch = image->part_count - 1;
	uint32_t crcs = (uint32_t)((const uint8_t *)batch_crcs(header) - (const uint8_t *)header);
	uint8_t block[BLOCK_BYTES];

	for (uint32_t i = 0; i < le32_get(header->data_blocks); i++) {
		struct image_part *data =
			add_block(image, pool, IMAGE_DATA, segment, le32_get(header->index) + 1 + i, block);

		data->parent = batch;
		data->parent_off = crcs + i * (uint32_t)sizeof(le32);
	}
}

static void add_batches(struct image *image, const struct pool *pool, const struct segment *segment)
{
	uint32_t blocks = segment_blocks(pool, segment->policy);
	struct batch_header header;

	for (uint32_t at = 0; at < blocks; at += le32_get(header.total_blocks)) {
		add_block(image, pool, IMAGE_BATCH, segment, at, &header);
		if (le32_get(header.magic) != BATCH_MAGIC || le64_get(header.grant) != segment->grant) {
			image->part_count--;
			break;
		}
		add_data(image, pool, segment, &header);
	}
}

static void add_data_segments(struct image *image, struct pool *pool)
{
	struct catalog *cat = pool_catalog(pool);
	struct segment segment;

	for (const struct cat_obj *obj = catalog_next(cat, CAT_SEGMENT, 0); obj;
	     obj = catalog_next(cat, CAT_SEGMENT, obj->id + 1)) {
		FUZZ_REQUIRE(segment_from_obj(obj, &segment));
		if (segment.stream == STREAM_DATA)
			add_batches(image, pool, &segment);
	}
}

/* --- trees and tables -------------------------------------------------------------------------------------- */

/* Adds what a pointer names; returns the part's number. */
static uint32_t add_pointed(struct image *image, struct pool *pool, enum image_kind kind, uint64_t lineage, uint32_t segno,
			    uint32_t index, void *block)
{
	struct segment segment;

	FUZZ_REQUIRE(find_segment(pool, lineage, segno, &segment));
	add_block(image, pool, kind, &segment, index, block);
	return image->part_count - 1;
}

static void add_children(struct image *image, struct pool *pool, uint64_t lineage, uint32_t parent,
			 const struct map_node *node)
{
	struct map_node child;

	for (uint32_t i = 0; i < le16_get(node->count) && le16_get(node->level) > 0; i++) {
		const struct map_entry *e = &node->entry[i];
		uint32_t part = add_pointed(image, pool, IMAGE_NODE, lineage, le32_get(e->segno), le32_get(e->index), &child);

		image->part[part].parent = parent;
		image->part[part].parent_off =
			(uint32_t)((const uint8_t *)&e->crc - (const uint8_t *)node);
		add_children(image, pool, lineage, part, &child);
	}
}

static uint32_t object_of(const struct image *image, enum catalog_kind kind, uint64_t id)
{
	for (uint32_t i = 0; i < image->object_count; i++) {
		if (image->object[i].key == cat_key(kind, id))
			return i;
	}
	FUZZ_REQUIRE(!"the object is there");
	return 0;
}

static void add_tree(struct image *image, struct pool *pool, uint64_t volume, uint64_t lineage)
{
	uint32_t object = object_of(image, CAT_MAP, volume), part;
	const struct map_root_format *root = (const struct map_root_format *)image->object[object].data;
	struct map_node node;

	FUZZ_REQUIRE(le32_get(root->height) >= 2);
	part = add_pointed(image, pool, IMAGE_NODE, lineage, le32_get(root->root.segno), le32_get(root->root.index), &node);
	image->part[part].is_root = true;
	image->part[part].parent = object;
	image->part[part].parent_off = offsetof(struct map_root_format, root.crc);
	add_children(image, pool, lineage, part, &node);
}

static void add_table(struct image *image, struct pool *pool, uint64_t lineage)
{
	uint32_t object = object_of(image, CAT_LINEAGE, lineage), parent = object, off = offsetof(struct lineage_format, live.crc);
	const struct ptr_format *ptr = &((const struct lineage_format *)image->object[object].data)->live;
	uint32_t segno = le32_get(ptr->segno), index = le32_get(ptr->index);
	bool is_root = true;

	while (segno != SEGNO_NONE) {
		struct live_block block;
		uint32_t part = add_pointed(image, pool, IMAGE_LIVE, lineage, segno, index, &block);

		image->part[part].is_root = is_root;
		image->part[part].parent = parent;
		image->part[part].parent_off = off;
		is_root = false;
		parent = part;
		off = offsetof(struct live_block, next_crc);
		segno = le32_get(block.next_segno);
		index = le32_get(block.next_index);
	}
}

static void add_maps(struct image *image, struct pool *pool)
{
	struct catalog *cat = pool_catalog(pool);

	for (const struct cat_obj *obj = catalog_next(cat, CAT_VOLUME, 0); obj;
	     obj = catalog_next(cat, CAT_VOLUME, obj->id + 1)) {
		uint64_t lineage = le64_get(((const struct volume_format *)obj->data)->lineage);

		add_tree(image, pool, obj->id, lineage);
		add_table(image, pool, lineage);
	}
}

/* --- making it ---------------------------------------------------------------------------------------------- */

/* Every other block is mapped when the checkpoint is taken; then overwrites, small writes and a hole. */
static void fill_volume(struct volumes *volumes, const char *name, struct policy policy)
{
	struct volume_create_opts opts = { .name = name, .size_bytes = IMAGE_VOLUME_BYTES, .policy = policy };
	uint8_t *buf = aligned_alloc(BLOCK_BYTES, 16 * BLOCK_BYTES);
	struct volume *volume;
	struct err err = { "" };

	FUZZ_REQUIRE(volume_create(volumes, &opts, &err) == 0);
	FUZZ_REQUIRE(unit_volume_open(volumes, name, &volume, &err) == 0);
	for (uint32_t i = 0; i < 200; i++) {
		memset(buf, (int)i, BLOCK_BYTES);
		FUZZ_REQUIRE(image_request(volume, VIO_WRITE, i * 2ull * BLOCK_BYTES, BLOCK_BYTES, buf) == 0);
	}
	FUZZ_REQUIRE(volume_checkpoint(volumes, name, &err) == 0);
	for (uint32_t i = 0; i < 4; i++) {
		memset(buf, 0x40 + (int)i, 16 * BLOCK_BYTES);
		FUZZ_REQUIRE(image_request(volume, VIO_WRITE, i * 40ull * BLOCK_BYTES, 8 * BLOCK_BYTES, buf) == 0);
		FUZZ_REQUIRE(i != 1 || image_request(volume, VIO_FLUSH, 0, 0, NULL) == 0);
	}
	FUZZ_REQUIRE(image_request(volume, VIO_DISCARD, 20 * BLOCK_BYTES, 5 * BLOCK_BYTES, NULL) == 0);
	FUZZ_REQUIRE(image_request(volume, VIO_WRITE, 512, 1024, buf) == 0);
	volume_close(volume);
	free(buf);
}

static void make(void *arg)
{
	struct pool_create_opts pool_opts = { .name = "tank", .zone_bytes = ZONE_BYTES_MIN };
	struct image *image = arg;
	struct media live;
	struct disk *disks[MEDIA_MAX];
	struct volumes_opts opts;
	struct volumes *volumes;
	struct pool *pool;
	struct err err = { "" };

	media_init(&live, IMAGE_DISKS, IMAGE_DISK_BYTES);
	media_open(&live, disks);
	FUZZ_REQUIRE(pool_create(&pool_opts, disks, IMAGE_DISKS, &pool, &err) == 0);
	image_volumes_opts(&opts);
	FUZZ_REQUIRE(volumes_open(pool, &opts, &volumes, &err) == 0);
	fill_volume(volumes, "a", (struct policy){ 1, 0 });
	fill_volume(volumes, "b", (struct policy){ 2, 0 });
	media_clone(&image->media, &live);
	for (uint32_t disk = 0; disk < IMAGE_DISKS; disk++) {
		add_labels(image, disk);
		add_catalog(image, pool_catalog(pool), disk);
	}
	add_objects(image, pool_catalog(pool));
	add_data_segments(image, pool);
	add_maps(image, pool);
	volumes_close(volumes);
	pool_close(pool);
	media_release(&live);
}

struct image *image_make(void)
{
	struct image *image = calloc(1, sizeof(*image));

	FUZZ_REQUIRE(image);
	image_run(make, image);
	return image;
}
