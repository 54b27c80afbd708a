/* "fault:OPTS:URI": a disk that passes I/O on to another and misbehaves as OPTS says. See disk_fault.h for OPTS.
 *
 *     fault:eio-read=0.01,seed=7:file:/tmp/a     one read in a hundred fails, the same ones in every run
 *     fault:torn=0.001,delay-us=500:ram:1G       every I/O takes half a millisecond more; some writes tear
 *     fault::/dev/sdb                            no fault yet; a test switches them on by disk_fault_set
 *
 * Each I/O gets a wrapper of its own. It goes through three stages: it hangs as long as `hang` chose it and is on (looked
 * at every HANG_LOOK_NS), waits for delay-us, and is then carried out with at most one of the other faults, the first of
 * FAULT_KINDS' order that applies to it and whose dice fall. A released I/O thus lands late, as after a session drop.
 *
 * Torn writes work on 512-byte sectors, whatever the block size: the old content is read, each sector of it is kept,
 * replaced by the new one or by garbage, and the mixture is written. Misdirected I/O goes to a random place aligned to its
 * own length or to 4 KiB, whichever is less.
 *
 * Chance is a hash of the seed and a counter of throws: with one loop, equal runs have equal faults.
 *
 * The wrapper, and copies of the data where a write is to be changed, are allocated per I/O, which only a disk for tests
 * may do. Always: `done` is called once, on the submitting loop, and never within submit. */
#include "pool/disks/disk_fault.h"

#include <assert.h>
#include <errno.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "pool/base/mem.h"
#include "pool/disks/disk_int.h"

#define HANG_LOOK_NS	(2 * 1000 * 1000)
#define DELAY_US_MAX	(60 * 1000 * 1000)
#define SECTOR_BYTES	512
#define PLACE_BYTES_MAX 4096
#define OPTS_BYTES_MAX	512
#define ALWAYS		(UINT64_C(1) << 32)

/* What the options say. */
struct fault_opts {
	uint64_t chance[FAULT_KIND_COUNT]; /* of ALWAYS */
	uint64_t delay_us;
	uint64_t seed;
	bool seed_given;
};

struct fault_disk {
	struct disk disk;
	struct disk *inner; /* owned */
	/* Any thread writes, any loop reads; relaxed, since no field depends on another. */
	_Atomic uint64_t chance[FAULT_KIND_COUNT];
	_Atomic uint64_t delay_us;
	_Atomic uint64_t seed;
	_Atomic uint64_t throws;
	_Atomic uint64_t done[FAULT_KIND_COUNT];
};

/* The wrapper of one I/O. */
struct fault_io {
	struct disk_io io;     /* to the inner disk */
	struct disk_io *outer; /* whose wrapper this is */
	struct fault_disk *fault;
	struct timer timer;
	char *copy; /* of a write's data; owned, NULL if none */
	struct iovec copy_iov;
	bool corrupt;
};

static const char *const kind_names[FAULT_KIND_COUNT] = {
#define X(kind, name) [kind] = name,
	FAULT_KINDS(X)
#undef X
};

static struct fault_disk *fault_of(struct disk *disk)
{
	return container_of(disk, struct fault_disk, disk);
}

/* ---- chance ---- */

static uint64_t mix(uint64_t x)
{
	x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9;
	x = (x ^ (x >> 27)) * 0x94d049bb133111eb;
	return x ^ (x >> 31);
}

static uint64_t throw_dice(struct fault_disk *fault)
{
	uint64_t n = atomic_fetch_add_explicit(&fault->throws, 1, memory_order_relaxed);

	return mix(mix(atomic_load_explicit(&fault->seed, memory_order_relaxed)) + n * 0x9e3779b97f4a7c15);
}

static uint64_t chance_of(struct fault_disk *fault, enum fault_kind kind)
{
	return atomic_load_explicit(&fault->chance[kind], memory_order_relaxed);
}

/* Whether a fault happens now; counted as done if so. */
static bool strikes(struct fault_disk *fault, enum fault_kind kind)
{
	uint64_t chance = chance_of(fault, kind);

	if (chance == 0 || throw_dice(fault) % ALWAYS >= chance)
		return false;
	atomic_fetch_add_explicit(&fault->done[kind], 1, memory_order_relaxed);
	return true;
}

/* ---- the end of an I/O ---- */

static struct disk_io *unwrap(struct fault_io *fio)
{
	struct disk_io *outer = fio->outer;

	mem_free(fio->copy);
	mem_free(fio);
	return outer;
}

static void flip_bit(const struct disk_io *io, uint64_t dice)
{
	uint64_t bit = dice % (io->len_bytes * 8), byte = bit / 8;
	const struct iovec *iov = io->iov;

	for (; byte >= iov->iov_len; iov++)
		byte -= iov->iov_len;
	((uint8_t *)iov->iov_base)[byte] ^= (uint8_t)(1 << bit % 8);
}

static void pass_done(struct disk_io *io, int res)
{
	struct fault_io *fio = container_of(io, struct fault_io, io);

	if (fio->corrupt && res == 0)
		flip_bit(&fio->io, throw_dice(fio->fault));
	disk_done(unwrap(fio), res);
}

static void pass(struct fault_io *fio)
{
	fio->io.done = pass_done;
	disk_submit(fio->fault->inner, &fio->io);
}

/* Answers without the inner disk. */
static void answer(struct fault_io *fio, int res)
{
	disk_done_later(unwrap(fio), res);
}

/* ---- faults of writes ---- */

/* Makes the I/O work on memory of its own, whose content is not set. */
static int copy_alloc(struct fault_io *fio)
{
	fio->copy = mem_alloc_aligned(MEM_PAGE_BYTES, fio->io.len_bytes);
	if (!fio->copy)
		return -ENOMEM;
	fio->copy_iov = (struct iovec){ .iov_base = fio->copy, .iov_len = fio->io.len_bytes };
	fio->io.iov = &fio->copy_iov;
	fio->io.iov_count = 1;
	return 0;
}

static void rot(struct fault_io *fio)
{
	const struct disk_io *outer = fio->outer;
	char *at;

	if (copy_alloc(fio)) {
		answer(fio, -ENOMEM);
		return;
	}
	at = fio->copy;
	for (uint32_t i = 0; i < outer->iov_count; i++)
		at = mempcpy(at, outer->iov[i].iov_base, outer->iov[i].iov_len);
	flip_bit(&fio->io, throw_dice(fio->fault));
	pass(fio);
}

static void torn_written(struct disk_io *io, int res)
{
	disk_done(unwrap(container_of(io, struct fault_io, io)), -EIO);
}

/* One sector: half are new, three in eight stay old, one in eight is garbage. */
static void tear_sector(struct fault_disk *fault, char *old, const char *new)
{
	uint64_t dice = throw_dice(fault);

	if (dice % 8 < 4) {
		memcpy(old, new, SECTOR_BYTES);
	} else if (dice % 8 == 4) {
		for (uint32_t i = 0; i < SECTOR_BYTES; i += sizeof(dice)) {
			dice = mix(dice + i);
			memcpy(old + i, &dice, sizeof(dice));
		}
	}
}

static void torn_old_read(struct disk_io *io, int res)
{
	struct fault_io *fio = container_of(io, struct fault_io, io);
	const struct disk_io *outer = fio->outer;
	char *at = fio->copy;

	if (res) {
		torn_written(io, res);
		return;
	}
	for (uint32_t i = 0; i < outer->iov_count; i++) {
		const char *from = outer->iov[i].iov_base;

		for (uint64_t off = 0; off < outer->iov[i].iov_len; off += SECTOR_BYTES, at += SECTOR_BYTES)
			tear_sector(fio->fault, at, from + off);
	}
	io->op = DISK_WRITE;
	io->done = torn_written;
	disk_submit(fio->fault->inner, io);
}

static void tear(struct fault_io *fio)
{
	if (copy_alloc(fio)) {
		answer(fio, -ENOMEM);
		return;
	}
	fio->io.op = DISK_READ;
	fio->io.done = torn_old_read;
	disk_submit(fio->fault->inner, &fio->io);
}

static void misdirect(struct fault_io *fio)
{
	uint64_t len_bytes = fio->io.len_bytes, room_bytes = fio->fault->disk.size_bytes - len_bytes;
	uint64_t step_bytes = len_bytes < PLACE_BYTES_MAX ? len_bytes : PLACE_BYTES_MAX;

	fio->io.off_bytes = throw_dice(fio->fault) % (room_bytes / step_bytes + 1) * step_bytes;
}

/* ---- the stages of an I/O ---- */

static void carry_out_read(struct fault_io *fio)
{
	struct fault_disk *fault = fio->fault;

	if (strikes(fault, FAULT_EIO_READ)) {
		answer(fio, -EIO);
		return;
	}
	if (strikes(fault, FAULT_CORRUPT))
		fio->corrupt = true;
	else if (strikes(fault, FAULT_MISDIRECT))
		misdirect(fio);
	pass(fio);
}

static void carry_out_write(struct fault_io *fio)
{
	struct fault_disk *fault = fio->fault;

	if (strikes(fault, FAULT_EIO_WRITE)) {
		answer(fio, -EIO);
	} else if (strikes(fault, FAULT_ROT)) {
		rot(fio);
	} else if (strikes(fault, FAULT_TORN)) {
		tear(fio);
	} else if (strikes(fault, FAULT_MISDIRECT)) {
		misdirect(fio);
		pass(fio);
	} else if (strikes(fault, FAULT_LOSE_WRITE)) {
		answer(fio, 0);
	} else {
		pass(fio);
	}
}

static void carry_out_flush(struct fault_io *fio)
{
	if (strikes(fio->fault, FAULT_EIO_FLUSH))
		answer(fio, -EIO);
	else if (strikes(fio->fault, FAULT_LOSE_FLUSH))
		answer(fio, 0);
	else
		pass(fio);
}

static void carry_out(struct fault_io *fio)
{
	switch (fio->io.op) {
	case DISK_READ:
		carry_out_read(fio);
		break;
	case DISK_WRITE:
		carry_out_write(fio);
		break;
	case DISK_FLUSH:
		carry_out_flush(fio);
		break;
	default:
		pass(fio);
	}
}

static void delay_over(struct timer *timer)
{
	carry_out(container_of(timer, struct fault_io, timer));
}

/* Waits for ns and then calls fn; without memory for that the I/O ends here. */
static void wait_then(struct fault_io *fio, uint64_t ns, void (*fn)(struct timer *timer))
{
	struct loop *loop = loop_self();

	timer_init(&fio->timer, fn);
	if (timer_arm(loop, &fio->timer, loop_now_ns(loop) + ns))
		answer(fio, -ENOMEM);
}

static void delay(struct fault_io *fio)
{
	uint64_t delay_us = atomic_load_explicit(&fio->fault->delay_us, memory_order_relaxed);

	if (delay_us > 0)
		wait_then(fio, delay_us * 1000, delay_over);
	else
		carry_out(fio);
}

static void hang_look(struct timer *timer)
{
	struct fault_io *fio = container_of(timer, struct fault_io, timer);

	if (chance_of(fio->fault, FAULT_HANG) > 0)
		wait_then(fio, HANG_LOOK_NS, hang_look);
	else
		delay(fio);
}

static void fault_submit(struct disk *disk, struct disk_io *outer)
{
	struct fault_disk *fault = fault_of(disk);
	struct fault_io *fio = mem_zalloc(sizeof(*fio));

	if (!fio) {
		disk_done_later(outer, -ENOMEM);
		return;
	}
	fio->fault = fault;
	fio->outer = outer;
	fio->io = (struct disk_io){
		.op = outer->op,
		.iov = outer->iov,
		.iov_count = outer->iov_count,
		.off_bytes = outer->off_bytes,
		.len_bytes = outer->len_bytes,
	};
	if (strikes(fault, FAULT_HANG))
		wait_then(fio, HANG_LOOK_NS, hang_look);
	else
		delay(fio);
}

static void fault_close(struct disk *disk)
{
	struct fault_disk *fault = fault_of(disk);

	disk_close(fault->inner);
	mem_free(fault);
}

static void fault_set_mark(struct disk *disk, const struct disk_mark *mark)
{
	disk_set_mark(fault_of(disk)->inner, mark);
}

static void fault_set_spare(struct disk *disk, const struct disk_expendable *spare)
{
	disk_set_expendable(fault_of(disk)->inner, spare);
}

static const char *fault_away(const struct disk *disk)
{
	return disk_away(container_of(disk, struct fault_disk, disk)->inner);
}

static const struct disk_ops fault_ops = {
	.scheme = "fault",
	.submit = fault_submit,
	.close = fault_close,
	.set_mark = fault_set_mark,
	.set_spare = fault_set_spare,
	.away = fault_away,
};

/* ---- options ---- */

static int bad_option(struct err *err, const char *option)
{
#define X(kind, name) " " name
	return err_set(err, -EINVAL,
	    "bad fault option '%.64s' (known: delay-us=N seed=N, and with =0 to =1 after them if wished:" FAULT_KINDS(
		X) ")",
	    option);
#undef X
}

static int parse_count(const char *text, uint64_t max, uint64_t *value)
{
	char *end;

	errno = 0;
	*value = strtoull(text, &end, 10);
	return errno || end == text || *end != '\0' || *text < '0' || *text > '9' || *value > max ? -EINVAL : 0;
}

static int parse_chance(const char *text, uint64_t *chance)
{
	char *end;
	double p = strtod(text, &end);

	if (end == text || *end != '\0' || !(p >= 0 && p <= 1))
		return -EINVAL;
	*chance = (uint64_t)(p * (double)ALWAYS);
	return 0;
}

/* One NAME[=VALUE], cut apart in place. */
static int parse_option(struct fault_opts *opts, const char *name, const char *value)
{
	if (strcmp(name, "delay-us") == 0)
		return value ? parse_count(value, DELAY_US_MAX, &opts->delay_us) : -EINVAL;
	if (strcmp(name, "seed") == 0) {
		opts->seed_given = true;
		return value ? parse_count(value, UINT64_MAX, &opts->seed) : -EINVAL;
	}
	for (uint32_t kind = 0; kind < FAULT_KIND_COUNT; kind++) {
		if (strcmp(name, kind_names[kind]) != 0)
			continue;
		opts->chance[kind] = ALWAYS;
		return value ? parse_chance(value, &opts->chance[kind]) : 0;
	}
	return -EINVAL;
}

static int parse_opts(const char *text, struct fault_opts *opts, struct err *err)
{
	char copy[OPTS_BYTES_MAX], *save = NULL;

	memset(opts, 0, sizeof(*opts));
	if (strlen(text) >= sizeof(copy))
		return err_set(err, -EINVAL, "fault options are longer than %d bytes", OPTS_BYTES_MAX - 1);
	strcpy(copy, text);
	for (char *name = strtok_r(copy, ",", &save); name; name = strtok_r(NULL, ",", &save)) {
		char *value = strchr(name, '=');

		if (value)
			*value++ = '\0';
		if (parse_option(opts, name, value))
			return bad_option(err, name);
	}
	return 0;
}

/* ---- the public face ---- */

static void apply_opts(struct fault_disk *fault, const struct fault_opts *opts)
{
	if (opts->seed_given) {
		atomic_store_explicit(&fault->seed, opts->seed, memory_order_relaxed);
		atomic_store_explicit(&fault->throws, 0, memory_order_relaxed);
	}
	for (uint32_t kind = 0; kind < FAULT_KIND_COUNT; kind++)
		atomic_store_explicit(&fault->chance[kind], opts->chance[kind], memory_order_relaxed);
	atomic_store_explicit(&fault->delay_us, opts->delay_us, memory_order_relaxed);
}

int disk_fault_wrap(struct disk *inner, const char *opts_text, struct disk **out, struct err *err)
{
	struct fault_disk *fault;
	struct fault_opts opts;
	int ret = parse_opts(opts_text, &opts, err);

	if (ret)
		return ret;
	fault = mem_zalloc(sizeof(*fault));
	if (!fault)
		return err_set(err, -ENOMEM, "cannot make a fault disk: no memory");
	disk_init(&fault->disk, &fault_ops, inner->size_bytes, inner->block_bytes);
	fault->disk.volatile_data = inner->volatile_data;
	fault->inner = inner;
	apply_opts(fault, &opts);
	*out = &fault->disk;
	return 0;
}

int disk_fault_set(struct disk *disk, const char *opts_text, struct err *err)
{
	struct fault_opts opts;
	int ret = parse_opts(opts_text, &opts, err);

	assert(disk_is_fault(disk));
	if (ret)
		return ret;
	apply_opts(fault_of(disk), &opts);
	return 0;
}

bool disk_is_fault(const struct disk *disk)
{
	return disk->ops == &fault_ops;
}

uint64_t disk_fault_count(const struct disk *disk, enum fault_kind kind)
{
	const struct fault_disk *fault = container_of(disk, struct fault_disk, disk);

	assert(disk_is_fault(disk));
	return atomic_load_explicit(&fault->done[kind], memory_order_relaxed);
}
