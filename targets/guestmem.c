/* Guest memory tables. See guestmem.h.
 *
 * How: regions are sorted by guest address and found by binary search, after a look at the one that was hit last (guests
 * have few regions and use one for nearly everything). User addresses are looked up once a ring start and are simply
 * searched.
 *
 * Always: within a table no two regions overlap, neither by guest nor by user address, and no range wraps; so "gpa lies
 * in region r" has one answer and all arithmetic below is free of overflow. */
#include "targets/guestmem.h"

#include <assert.h>
#include <errno.h>
#include <string.h>

#include "pool/base/mem.h"
#include "targets/sharemem.h"

#define ALIGN_BYTES 4096u

struct region {
	struct guestmem_slot slot;
	struct sharemem *mem;
};

struct guestmem {
	uint32_t refs;
	uint32_t count;
	uint32_t last;                 /* index of the last hit */
	struct region region[];        /* sorted by slot.gpa */
};

static int slot_validate(const struct guestmem_slot *slot)
{
	uint64_t end;

	if ((slot->gpa | slot->uva | slot->len_bytes | slot->off_bytes) % ALIGN_BYTES != 0)
		return -EINVAL;
	if (slot->len_bytes == 0 || slot->len_bytes > GUESTMEM_REGION_BYTES_MAX)
		return -EINVAL;
	if (__builtin_add_overflow(slot->gpa, slot->len_bytes, &end) ||
	    __builtin_add_overflow(slot->uva, slot->len_bytes, &end))
		return -ERANGE;
	return 0;
}

static bool ranges_overlap(uint64_t a, uint64_t a_len, uint64_t b, uint64_t b_len)
{
	return a < b + b_len && b < a + a_len;
}

static bool overlaps_any(const struct guestmem *mem, const struct guestmem_slot *slot)
{
	for (uint32_t i = 0; i < mem->count; i++) {
		const struct guestmem_slot *old = &mem->region[i].slot;

		if (ranges_overlap(old->gpa, old->len_bytes, slot->gpa, slot->len_bytes) ||
		    ranges_overlap(old->uva, old->len_bytes, slot->uva, slot->len_bytes))
			return true;
	}
	return false;
}

static struct guestmem *table_new(uint32_t room)
{
	struct guestmem *mem = mem_zalloc(sizeof(*mem) + room * sizeof(struct region));

	if (mem)
		mem->refs = 1;
	return mem;
}

/* Maps a region and puts it where it belongs. The table has room. */
static int table_insert(struct guestmem *mem, const struct guestmem_slot *slot, int fd)
{
	uint32_t pos = mem->count;
	struct sharemem *shared;
	int rc;

	rc = slot_validate(slot);
	if (rc < 0)
		return rc;
	if (overlaps_any(mem, slot))
		return -EEXIST;
	rc = sharemem_map(fd, slot->off_bytes, slot->len_bytes, &shared);
	if (rc < 0)
		return rc;
	for (; pos > 0 && mem->region[pos - 1].slot.gpa > slot->gpa; pos--)
		mem->region[pos] = mem->region[pos - 1];
	mem->region[pos] = (struct region){ *slot, shared };
	mem->count++;
	return 0;
}

int guestmem_create(const struct guestmem_slot *slots, const int *fds, uint32_t count, struct guestmem **out)
{
	struct guestmem *mem;
	int rc;

	if (count > GUESTMEM_REGIONS_MAX)
		return -ENOSPC;
	mem = table_new(count);
	if (!mem)
		return -ENOMEM;
	for (uint32_t i = 0; i < count; i++) {
		rc = table_insert(mem, &slots[i], fds[i]);
		if (rc < 0) {
			guestmem_put(mem);
			return rc;
		}
	}
	*out = mem;
	return 0;
}

/* Appends the old table's regions from `first` to before `end`. */
static void table_share(struct guestmem *mem, const struct guestmem *old, uint32_t first, uint32_t end)
{
	for (uint32_t i = first; i < end; i++) {
		mem->region[mem->count] = old->region[i];
		sharemem_get(old->region[i].mem);
		mem->count++;
	}
}

int guestmem_with(const struct guestmem *old, const struct guestmem_slot *slot, int fd, struct guestmem **out)
{
	struct guestmem *mem;
	int rc;

	if (old->count >= GUESTMEM_REGIONS_MAX)
		return -ENOSPC;
	mem = table_new(old->count + 1);
	if (!mem)
		return -ENOMEM;
	table_share(mem, old, 0, old->count);
	rc = table_insert(mem, slot, fd);
	if (rc < 0) {
		guestmem_put(mem);
		return rc;
	}
	*out = mem;
	return 0;
}

int guestmem_without(const struct guestmem *old, const struct guestmem_slot *slot, struct guestmem **out)
{
	struct guestmem *mem;
	uint32_t i;

	for (i = 0; i < old->count; i++) {
		const struct guestmem_slot *known = &old->region[i].slot;

		if (known->gpa == slot->gpa && known->uva == slot->uva && known->len_bytes == slot->len_bytes)
			break;
	}
	if (i == old->count)
		return -ENOENT;
	mem = table_new(old->count);
	if (!mem)
		return -ENOMEM;
	table_share(mem, old, 0, i);
	table_share(mem, old, i + 1, old->count);
	*out = mem;
	return 0;
}

struct guestmem *guestmem_get(struct guestmem *mem)
{
	mem->refs++;
	return mem;
}

void guestmem_put(struct guestmem *mem)
{
	if (!mem)
		return;
	assert(mem->refs > 0);
	if (--mem->refs > 0)
		return;
	for (uint32_t i = 0; i < mem->count; i++)
		sharemem_put(mem->region[i].mem);
	mem_free(mem);
}

uint32_t guestmem_count(const struct guestmem *mem)
{
	return mem->count;
}

/* ---- looking up ---- */

static bool region_has(const struct region *region, uint64_t gpa)
{
	return gpa >= region->slot.gpa && gpa - region->slot.gpa < region->slot.len_bytes;
}

static const struct region *find_region(struct guestmem *mem, uint64_t gpa)
{
	uint32_t low = 0, high = mem->count;

	if (high == 0)
		return NULL;
	if (region_has(&mem->region[mem->last], gpa))
		return &mem->region[mem->last];
	while (high - low > 1) {
		uint32_t middle = low + (high - low) / 2;

		if (mem->region[middle].slot.gpa <= gpa)
			low = middle;
		else
			high = middle;
	}
	if (!region_has(&mem->region[low], gpa))
		return NULL;
	mem->last = low;
	return &mem->region[low];
}

/* The piece of [gpa, gpa + len_bytes) in the region of its first byte; iov_len 0: there is none. */
static struct iovec first_piece(struct guestmem *mem, uint64_t gpa, uint64_t len_bytes)
{
	const struct region *region = find_region(mem, gpa);
	uint64_t off_bytes, room_bytes;

	if (!region)
		return (struct iovec){ 0 };
	off_bytes = gpa - region->slot.gpa;
	room_bytes = region->slot.len_bytes - off_bytes;
	return (struct iovec){ sharemem_base(region->mem) + off_bytes, len_bytes < room_bytes ? len_bytes : room_bytes };
}

int guestmem_iov(struct guestmem *mem, uint64_t gpa, uint64_t len_bytes, struct iovec *iov, uint32_t room)
{
	uint32_t count = 0;

	assert(len_bytes > 0);
	while (len_bytes > 0) {
		struct iovec piece = first_piece(mem, gpa, len_bytes);

		if (piece.iov_len == 0)
			return -EFAULT;
		if (count == room)
			return -E2BIG;
		iov[count++] = piece;
		gpa += piece.iov_len;
		len_bytes -= piece.iov_len;
	}
	return (int)count;
}

void *guestmem_ptr(struct guestmem *mem, uint64_t gpa, uint64_t len_bytes)
{
	struct iovec piece = first_piece(mem, gpa, len_bytes);

	return piece.iov_len == len_bytes ? piece.iov_base : NULL;
}

void *guestmem_user_ptr(struct guestmem *mem, uint64_t uva, uint64_t len_bytes)
{
	for (uint32_t i = 0; i < mem->count; i++) {
		const struct guestmem_slot *slot = &mem->region[i].slot;

		if (uva < slot->uva || uva - slot->uva >= slot->len_bytes)
			continue;
		if (len_bytes > slot->len_bytes - (uva - slot->uva))
			return NULL;
		return sharemem_base(mem->region[i].mem) + (uva - slot->uva);
	}
	return NULL;
}

int guestmem_read(struct guestmem *mem, uint64_t gpa, void *into, uint32_t len_bytes)
{
	uint8_t *at = into;

	while (len_bytes > 0) {
		struct iovec piece = first_piece(mem, gpa, len_bytes);

		if (piece.iov_len == 0)
			return -EFAULT;
		guest_copy(at, piece.iov_base, piece.iov_len);
		at += piece.iov_len;
		gpa += piece.iov_len;
		len_bytes -= (uint32_t)piece.iov_len;
	}
	return 0;
}

bool guestmem_is_broken(const struct guestmem *mem)
{
	for (uint32_t i = 0; i < mem->count; i++)
		if (sharemem_is_broken(mem->region[i].mem))
			return true;
	return false;
}
