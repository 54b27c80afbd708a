/* Using an image that may say anything: see image.h. Virtual time, so that whoever waits for a retry gets it at once. */
#include <errno.h>

#include "pool/pool_int.h"
#include "tests/fuzz/image_int.h"
#include "tests/unit/unit.h"
#include "tests/unit/unit_loop.h"
#include "tests/unit/unit_volume.h"

#define CHUNK_BYTES (1u << 20)
#define READ_BYTES_MAX IMAGE_VOLUME_BYTES
#define EXTENTS_MAX 16
#define VOLUMES_MAX 4

/* --- environment -------------------------------------------------------------------------------------------- */

static struct unit_loop env;

/* What the engine was last asked for, to be told when it never answers. */
static const char *asked_for = "import";

struct job {
	void (*fn)(void *arg);
	void *arg;
	bool done;
};

static void job_fiber(void *arg)
{
	struct job *job = arg;

	job->fn(job->arg);
	job->done = true;
}

void image_run(void (*fn)(void *arg), void *arg)
{
	struct job job = { fn, arg, false };

	unit_loop_init(&env);
	unit_loop_start_fiber(&env, job_fiber, &job);
	if (!job.done)
		fprintf(stderr, "waits for ever in: %s\n", asked_for);
	FUZZ_REQUIRE(job.done);
	unit_loop_fini(&env);
}

void image_volumes_opts(struct volumes_opts *opts)
{
	static struct loop *loops[1];

	loops[0] = &env.loop;
	*opts = (struct volumes_opts){ .loops = loops, .loop_count = 1, .map_cache_bytes = 64 * BLOCK_BYTES,
				       .overlay_entries_max = 3000, .checkpoint_log_bytes = 16 << 20 };
}

/* --- requests ----------------------------------------------------------------------------------------------- */

int image_request(struct volume *volume, enum vio_op op, uint64_t off_bytes, uint64_t len_bytes, void *buf)
{
	static const char *const op_name[] = { "read", "write", "flush", "discard", "write zeroes" };
	int rc;

	asked_for = op_name[op];
	rc = unit_volume_request(volume, op, off_bytes, len_bytes, buf);
	FUZZ_REQUIRE(rc == 0 || rc == -EIO || rc == -EINVAL || rc == -ENOSPC);
	return rc;
}

/* --- one volume --------------------------------------------------------------------------------------------- */

static void read_volume(struct volume *volume, uint64_t size_bytes, uint8_t *buf)
{
	uint64_t end = size_bytes < READ_BYTES_MAX ? size_bytes : READ_BYTES_MAX;

	for (uint64_t off = 0, len; off < end; off += len) {
		len = end - off < CHUNK_BYTES ? end - off : CHUNK_BYTES;
		(void)!image_request(volume, VIO_READ, off, len, buf);
	}
	if (size_bytes > CHUNK_BYTES)
		(void)!image_request(volume, VIO_READ, size_bytes - CHUNK_BYTES, CHUNK_BYTES, buf);
}

static void look_at_extents(struct volume *volume, uint64_t size_bytes)
{
	struct extent extent[EXTENTS_MAX];
	uint64_t sum = 0;
	uint32_t count;

	asked_for = "extents";
	if (volume_extents(volume, 0, size_bytes, extent, EXTENTS_MAX, &count) != 0)
		return;
	FUZZ_REQUIRE(count > 0 && count <= EXTENTS_MAX);
	for (uint32_t i = 0; i < count; i++) {
		FUZZ_REQUIRE(extent[i].len_bytes > 0);
		sum += extent[i].len_bytes;
	}
	FUZZ_REQUIRE(sum <= size_bytes);
}

/* What was written and flushed is what is read, whatever the image said. */
static void change_volume(struct volume *volume, uint64_t size_bytes, uint8_t *buf)
{
	const uint64_t at[] = { 0, 3 * BLOCK_BYTES, 100 * BLOCK_BYTES };

	for (uint32_t i = 0; i < 3 && at[i] + 2 * BLOCK_BYTES <= size_bytes; i++) {
		memset(buf, 0x90 + (int)i, 2 * BLOCK_BYTES);
		if (image_request(volume, VIO_WRITE, at[i], 2 * BLOCK_BYTES, buf) != 0 ||
		    image_request(volume, VIO_FLUSH, 0, 0, NULL) != 0)
			return;
		memset(buf, 0, 2 * BLOCK_BYTES);
		FUZZ_REQUIRE(image_request(volume, VIO_READ, at[i], 2 * BLOCK_BYTES, buf) == 0);
		FUZZ_REQUIRE(buf[0] == 0x90 + i && memcmp(buf, buf + 1, 2 * BLOCK_BYTES - 1) == 0);
	}
	if (size_bytes < IMAGE_VOLUME_BYTES)
		return;
	(void)!image_request(volume, VIO_WRITE, 50 * BLOCK_BYTES + 512, 1024, buf);
	(void)!image_request(volume, VIO_DISCARD, 60 * BLOCK_BYTES + 512, 300 * BLOCK_BYTES, NULL);
	(void)!image_request(volume, VIO_DISCARD, 0, size_bytes, NULL);
}

static void use_volume(struct volumes *volumes, const char *name, bool writable, uint8_t *buf)
{
	struct err err = { "" };
	struct volume *volume;
	uint64_t size_bytes;

	if ((writable ? unit_volume_open : volume_open)(volumes, name, &volume, &err) != 0) {
		FUZZ_REQUIRE(err.msg[0]);
		return;
	}
	size_bytes = volume_size_bytes(volume);
	read_volume(volume, size_bytes, buf);
	look_at_extents(volume, size_bytes);
	if (writable)
		change_volume(volume, size_bytes, buf);
	asked_for = "checkpoint";
	(void)!volume_checkpoint(volumes, name, &err);
	read_volume(volume, size_bytes, buf);
	asked_for = "close of the volume";
	volume_close(volume);
}

/* --- the pool ----------------------------------------------------------------------------------------------- */

struct names {
	uint32_t count;
	char name[VOLUMES_MAX][POOL_NAME_MAX + 1];
	bool writable[VOLUMES_MAX];
};

static int note_name(void *arg, const struct volume_info *info)
{
	struct names *names = arg;

	if (names->count == VOLUMES_MAX)
		return 0;
	/* On fewer disks than the policy wants a write waits for more, as on a full pool. */
	names->writable[names->count] = info->policy.k + info->policy.m <= IMAGE_DISKS;
	strcpy(names->name[names->count++], info->name);
	return 0;
}

static void use_pool(struct pool *pool)
{
	struct names names = { 0 };
	struct volumes_opts opts;
	struct volumes *volumes;
	struct err err = { "" };
	uint8_t *buf;

	image_volumes_opts(&opts);
	if (volumes_open(pool, &opts, &volumes, &err) != 0) {
		FUZZ_REQUIRE(err.msg[0]);
		return;
	}
	buf = aligned_alloc(BLOCK_BYTES, CHUNK_BYTES);
	volume_for_each(volumes, note_name, &names);
	for (uint32_t i = 0; i < names.count; i++)
		use_volume(volumes, names.name[i], names.writable[i], buf);
	free(buf);
	asked_for = "close of the pool";
	volumes_close(volumes);
}

static void import_and_use(void *arg)
{
	struct media *media = arg;
	struct disk *disks[MEDIA_MAX] = { NULL };
	struct err err = { "" };
	struct pool *pool;

	asked_for = "import";
	media_open(media, disks);
	if (pool_import(disks, media->count, &pool, &err) == 0) {
		use_pool(pool);
		pool_close(pool);
		return;
	}
	FUZZ_REQUIRE(err.msg[0]);
	for (uint32_t i = 0; i < media->count; i++)
		disk_close(disks[i]);
}

void image_use(struct media *media)
{
	image_run(import_and_use, media);
	image_run(import_and_use, media);
}
