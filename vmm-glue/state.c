/* A VM's state: what is in the sections, and how it is read back. See state.h and stream_format.h.
 *
 * Pages are copied before they are checksummed, since the guest may be writing to them; a page torn by that is dirty and
 * comes again. Memory that was never touched is a hole in its file and takes no room; what the guest has given back is
 * sent as a range of zeroes.
 *
 * MACHINE names all that must be equal on both sides; whether memory comes as a descriptor stands there too, so that the
 * reader knows before it makes its own. */
#include "vmm-glue/state.h"

#include <errno.h>
#include <linux/virtio_ids.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "vmm-glue/image.h"

#define CHUNK_BYTES (256u << 10)
#define CHUNK_PAGES (CHUNK_BYTES / RAM_PAGE_BYTES)

struct machine {
	le32 cpus;
	le32 devs;
	le64 mem_bytes;
	le32 shares_memory; /* a MEMORY section follows, and no pages */
	le32 zero;
	struct {
		le16 id, queues;
	} dev[VM_DEVICES_MAX];
};

struct device_head {
	le32 number, zero;
};

static void describe_dev(struct machine *m, uint16_t id, uint32_t queues)
{
	uint32_t i = le32_get(m->devs);

	m->dev[i].id = le16_of(id);
	m->dev[i].queues = le16_of((uint16_t)queues);
	m->devs = le32_of(i + 1);
}

/* In the order of vm_add_devices. */
static struct machine describe(const struct vm_config *config)
{
	struct machine m = { .cpus = le32_of(config->cpus), .mem_bytes = le64_of(config->mem_bytes) };

	for (uint32_t i = 0; i < config->disks; i++)
		describe_dev(&m, VIRTIO_ID_BLOCK, config->disk[i].queues);
	for (uint32_t i = 0; i < config->nets; i++)
		describe_dev(&m, VIRTIO_ID_NET, 2);
	if (config->rng)
		describe_dev(&m, VIRTIO_ID_RNG, 1);
	if (config->balloon)
		describe_dev(&m, VIRTIO_ID_BALLOON, 3);
	return m;
}

/* ---- writing ---- */

int state_put_machine(const struct vm *vm, struct stream *stream, bool share_memory, struct err *err)
{
	struct machine m = describe(&vm->config);
	int rc;

	m.shares_memory = le32_of(share_memory);
	rc = stream_put(stream, STREAM_MACHINE, &m, sizeof(m), NULL, 0, -1, err);
	if (rc == 0 && share_memory)
		rc = stream_put(stream, STREAM_MEMORY, NULL, 0, NULL, 0, vm->ram.fd, err);
	return rc;
}

static bool is_zero(const uint8_t *bytes, uint32_t len_bytes)
{
	return bytes[0] == 0 && memcmp(bytes, bytes + 1, len_bytes - 1) == 0;
}

static int put_chunk(const struct vm *vm, struct stream *stream, uint64_t gpa, uint32_t len_bytes, struct err *err)
{
	const le64 head = le64_of(gpa);
	const struct stream_zeroes zeroes = { head, le64_of(len_bytes) };
	uint8_t *copy = malloc(len_bytes);
	int rc;

	if (!copy)
		return err_set(err, -ENOMEM, "no memory");
	memcpy(copy, ram_at(&vm->ram, gpa, len_bytes), len_bytes);
	if (is_zero(copy, len_bytes))
		rc = stream_put(stream, STREAM_ZEROES, &zeroes, sizeof(zeroes), NULL, 0, -1, err);
	else
		rc = stream_put(stream, STREAM_PAGES, &head, sizeof(head), copy, len_bytes, -1, err);
	free(copy);
	return rc;
}

static int put_range(const struct vm *vm, struct stream *stream, uint64_t gpa, uint64_t len_bytes, struct err *err)
{
	int rc = 0;

	for (uint64_t done = 0, step; rc == 0 && done < len_bytes; done += step) {
		step = len_bytes - done < CHUNK_BYTES ? len_bytes - done : CHUNK_BYTES;
		rc = put_chunk(vm, stream, gpa + done, (uint32_t)step, err);
	}
	return rc;
}

int state_put_memory(struct vm *vm, struct stream *stream, struct err *err)
{
	int rc = 0;

	for (uint32_t i = 0; i < vm->ram.pieces; i++) {
		const struct ram_piece *piece = &vm->ram.piece[i];
		off_t end = (off_t)(piece->off_bytes + piece->len_bytes), from = (off_t)piece->off_bytes;

		while (rc == 0 && (from = lseek(vm->ram.fd, from, SEEK_DATA)) >= 0 && from < end) {
			off_t to = lseek(vm->ram.fd, from, SEEK_HOLE);

			to = to < 0 || to > end ? end : to;
			rc = put_range(vm, stream, piece->gpa + ((uint64_t)from - piece->off_bytes),
				       (uint64_t)(to - from), err);
			from = to;
		}
	}
	return rc;
}

/* Pages `first` to `first + count` of a word's bits, as far as they are memory. */
static int put_pages(const struct vm *vm, struct stream *stream, uint64_t first, uint64_t count, struct err *err)
{
	uint64_t gpa = first * RAM_PAGE_BYTES;

	return ram_at(&vm->ram, gpa, count * RAM_PAGE_BYTES) ? put_range(vm, stream, gpa, count * RAM_PAGE_BYTES, err)
							     : 0;
}

static int put_word(const struct vm *vm, struct stream *stream, uint64_t first, uint64_t bits, struct err *err)
{
	int rc = 0;

	while (rc == 0 && bits) {
		uint32_t skip = (uint32_t)__builtin_ctzll(bits), run;

		run = ~(bits >> skip) ? (uint32_t)__builtin_ctzll(~(bits >> skip)) : 64 - skip;
		rc = put_pages(vm, stream, first + skip, run, err);
		bits = skip + run < 64 ? bits >> (skip + run) << (skip + run) : 0;
	}
	return rc;
}

int state_put_dirty(struct vm *vm, struct stream *stream, uint64_t *pages, struct err *err)
{
	int rc = kvm_take_dirty(&vm->kvm, &vm->ram);

	*pages = 0;
	if (rc < 0)
		return err_set(err, rc, "cannot read the dirty log: %s", strerror(-rc));
	for (uint64_t w = 0; rc == 0 && w < vm->ram.dirty_bytes / 8; w++) {
		uint64_t bits = __atomic_exchange_n(&vm->ram.dirty[w], 0, __ATOMIC_ACQ_REL);

		*pages += (uint64_t)__builtin_popcountll(bits);
		rc = put_word(vm, stream, w * 64, bits, err);
	}
	return rc;
}

static int put_chips(struct vm *vm, struct stream *stream, struct err *err)
{
	struct vm_image *image = vm_image_new(vm);
	int rc = image ? vm_image_take(vm, image, err) : err_set(err, -ENOMEM, "no memory");

	if (rc == 0)
		rc = stream_put(stream, STREAM_CHIPS, image->data, (uint32_t)image->bytes, NULL, 0, -1, err);
	free(image);
	return rc;
}

int state_put_devices(struct vm *vm, struct stream *stream, struct err *err)
{
	int rc = put_chips(vm, stream, err);

	for (uint32_t i = 0; rc == 0 && i < vm->devs; i++) {
		const struct device_head head = { .number = le32_of(i) };
		struct virtio_state state;

		virtio_save(vm->dev[i], &state);
		rc = stream_put(stream, STREAM_DEVICE, &head, sizeof(head), &state, sizeof(state), -1, err);
	}
	if (rc == 0)
		rc = stream_put(stream, STREAM_SERIAL, &vm->serial.state, sizeof(vm->serial.state), NULL, 0, -1, err);
	return rc < 0 ? rc : stream_put(stream, STREAM_END, NULL, 0, NULL, 0, -1, err);
}

/* ---- reading ---- */

static int bad(const char *what, struct err *err)
{
	return err_set(err, -EBADMSG, "the VM's state is not to be used: %s", what);
}

static int expect(struct stream *stream, enum stream_type type, struct err *err)
{
	int got = stream_get(stream, err);

	return got < 0 ? got : got == (int)type ? 0 : bad("a section is missing", err);
}

int state_get_machine(const struct vm_config *config, struct stream *stream, int *ram_fd, struct err *err)
{
	struct machine mine = describe(config), theirs = { 0 };
	int rc = expect(stream, STREAM_MACHINE, err);

	*ram_fd = -1;
	if (rc < 0)
		return rc;
	if (stream->len_bytes == sizeof(theirs))
		memcpy(&theirs, stream->payload, sizeof(theirs));
	mine.shares_memory = theirs.shares_memory;
	if (memcmp(&theirs, &mine, sizeof(mine)) != 0)
		return err_set(err, -EINVAL,
			       "the VM is another machine than this one: give the options it was started with");
	if (!le32_get(theirs.shares_memory))
		return 0;
	rc = expect(stream, STREAM_MEMORY, err);
	*ram_fd = stream->got_fd;
	stream->got_fd = -1;
	return rc == 0 && *ram_fd < 0 ? bad("the memory did not come along", err) : rc;
}

/* What has come, until it is known to be all. */
struct arrived {
	struct vm_image *chips;
	struct virtio_state dev[VM_DEVICES_MAX];
	uint32_t devs;
	struct serial_state serial;
	bool has_serial;
};

static int get_pages(struct vm *vm, const struct stream *stream, struct err *err)
{
	uint64_t len_bytes = stream->len_bytes - sizeof(le64);
	le64 gpa;

	if (stream->len_bytes <= sizeof(gpa) || len_bytes % RAM_PAGE_BYTES != 0)
		return bad("a section of pages has no whole pages", err);
	memcpy(&gpa, stream->payload, sizeof(gpa));
	if (!ram_put(&vm->ram, le64_get(gpa), stream->payload + sizeof(gpa), len_bytes))
		return bad("pages are not in memory", err);
	return 0;
}

static int get_zeroes(struct vm *vm, const struct stream *stream, struct err *err)
{
	struct stream_zeroes zeroes;

	if (stream->len_bytes != sizeof(zeroes))
		return bad("a section of zeroes has a wrong length", err);
	memcpy(&zeroes, stream->payload, sizeof(zeroes));
	if (ram_discard(&vm->ram, le64_get(zeroes.gpa), le64_get(zeroes.len_bytes)) < 0)
		return bad("zeroes are not in memory", err);
	return 0;
}

static int get_chips(struct vm *vm, const struct stream *stream, struct arrived *arrived, struct err *err)
{
	if (arrived->chips)
		return bad("the processors come twice", err);
	arrived->chips = vm_image_new(vm);
	if (!arrived->chips)
		return err_set(err, -ENOMEM, "no memory");
	if (stream->len_bytes != arrived->chips->bytes)
		return bad("the processors are of another kind", err);
	memcpy(arrived->chips->data, stream->payload, stream->len_bytes);
	return 0;
}

static int get_device(const struct stream *stream, struct arrived *arrived, struct err *err)
{
	struct device_head head;

	if (stream->len_bytes != sizeof(head) + sizeof(arrived->dev[0]) || arrived->devs == VM_DEVICES_MAX)
		return bad("a device has a wrong length, or there are too many", err);
	memcpy(&head, stream->payload, sizeof(head));
	if (le32_get(head.number) != arrived->devs)
		return bad("devices are out of order", err);
	memcpy(&arrived->dev[arrived->devs++], stream->payload + sizeof(head), sizeof(arrived->dev[0]));
	return 0;
}

static int get_serial(const struct stream *stream, struct arrived *arrived, struct err *err)
{
	if (stream->len_bytes != sizeof(arrived->serial))
		return bad("the serial port has a wrong length", err);
	memcpy(&arrived->serial, stream->payload, sizeof(arrived->serial));
	arrived->has_serial = true;
	return 0;
}

static int get_failure(const struct stream *stream, struct err *err)
{
	return err_set(err, -ECANCELED, "the other side gave up: %.*s", (int)stream->len_bytes,
		       (char *)stream->payload);
}

static int get_section(struct vm *vm, struct stream *stream, int type, struct arrived *arrived, struct err *err)
{
	switch (type) {
	case STREAM_PAGES: return get_pages(vm, stream, err);
	case STREAM_ZEROES: return get_zeroes(vm, stream, err);
	case STREAM_CHIPS: return get_chips(vm, stream, arrived, err);
	case STREAM_DEVICE: return get_device(stream, arrived, err);
	case STREAM_SERIAL: return get_serial(stream, arrived, err);
	case STREAM_FAILED: return get_failure(stream, err);
	default: return bad("a section is where it does not belong", err);
	}
}

static int get_all(struct vm *vm, struct stream *stream, struct arrived *arrived, struct err *err)
{
	uint32_t devs = le32_get(describe(&vm->config).devs);
	int type, rc = 0;

	while (rc == 0 && (type = stream_get(stream, err)) != STREAM_END)
		rc = type < 0 ? type : get_section(vm, stream, type, arrived, err);
	if (rc == 0 && (!arrived->chips || !arrived->has_serial || arrived->devs != devs))
		rc = bad("a part is missing", err);
	return rc;
}

static int apply(struct vm *vm, const struct arrived *arrived, struct err *err)
{
	int rc = vm_add_devices(vm, err);

	for (uint32_t i = 0; rc == 0 && i < vm->devs; i++)
		if (virtio_load(vm->dev[i], &arrived->dev[i]) < 0)
			rc = err_set(err, -EINVAL,
				     "the state of the %s in slot %u does not fit: does its back end offer less?",
				     vm->dev[i]->ops->name, vm->dev[i]->pci.slot);
	if (rc == 0)
		serial_load(&vm->serial, &arrived->serial);
	if (rc == 0)
		rc = vm_image_put(vm, arrived->chips, err);
	/* Last: what interrupts now must find the chips as they were. */
	for (uint32_t i = 0; rc == 0 && i < vm->config.disks; i++)
		rc = virtio_blk_rejoin(&vm->disk[i], err);
	return rc;
}

int state_load(struct vm *vm, struct stream *stream, struct err *err)
{
	struct arrived *arrived = calloc(1, sizeof(*arrived));
	int rc = arrived ? get_all(vm, stream, arrived, err) : err_set(err, -ENOMEM, "no memory");

	if (rc == 0)
		rc = apply(vm, arrived, err);
	if (arrived)
		free(arrived->chips);
	free(arrived);
	return rc;
}
