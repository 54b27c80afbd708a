/* The stream of a VM's state: what was put comes back, and any byte changed, any byte missing is refused. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "pool/base/crc32c.h"
#include "tests/unit/unit.h"
#include "vmm-glue/stream.h"

struct image {
	uint8_t bytes[4096];
	size_t len_bytes;
};

static int memory_file(const void *bytes, size_t len_bytes)
{
	int fd = memfd_create("stream", MFD_CLOEXEC);

	assert_true(fd >= 0);
	assert_int_equal(write(fd, bytes, len_bytes), (ssize_t)len_bytes);
	assert_int_equal(lseek(fd, 0, SEEK_SET), 0);
	return fd;
}

/* A small stream: a section with head and body, one with a head only, the end. */
static void make(struct image *image)
{
	struct stream stream;
	struct err err;
	int fd = memfd_create("stream", MFD_CLOEXEC);

	assert_true(fd >= 0);
	assert_int_equal(stream_open(&stream, fd, false, &err), 0);
	assert_int_equal(stream_put(&stream, STREAM_PAGES, "head", 4, "and its body", 12, -1, &err), 0);
	assert_int_equal(stream_put(&stream, STREAM_SERIAL, "serial", 6, NULL, 0, -1, &err), 0);
	assert_int_equal(stream_put(&stream, STREAM_END, NULL, 0, NULL, 0, -1, &err), 0);
	assert_int_equal(lseek(fd, 0, SEEK_SET), 0);
	image->len_bytes = (size_t)read(fd, image->bytes, sizeof(image->bytes));
	assert_int_equal(image->len_bytes, stream.put_bytes);
	stream_close(&stream);
}

/* Reads up to END: 0, or the error that came first. */
static int read_all(const struct image *image, size_t len_bytes)
{
	struct stream stream;
	struct err err;
	int type;

	assert_int_equal(stream_open(&stream, memory_file(image->bytes, len_bytes), false, &err), 0);
	do
		type = stream_get(&stream, &err);
	while (type > 0 && type != STREAM_END);
	stream_close(&stream);
	return type < 0 ? type : 0;
}

static void test_what_was_put_comes_back(void **state)
{
	struct image image;
	struct stream stream;
	struct err err;

	make(&image);
	assert_int_equal(stream_open(&stream, memory_file(image.bytes, image.len_bytes), false, &err), 0);
	assert_int_equal(stream_get(&stream, &err), STREAM_PAGES);
	assert_int_equal(stream.len_bytes, 16);
	assert_memory_equal(stream.payload, "headand its body", 16);
	assert_int_equal(stream_get(&stream, &err), STREAM_SERIAL);
	assert_memory_equal(stream.payload, "serial", 6);
	assert_int_equal(stream_get(&stream, &err), STREAM_END);
	assert_int_equal(stream_get(&stream, &err), -EPIPE);
	stream_close(&stream);
}

static void test_every_flipped_bit_is_refused(void **state)
{
	struct image image;

	make(&image);
	assert_int_equal(read_all(&image, image.len_bytes), 0);
	for (size_t bit = 0; bit < image.len_bytes * 8; bit++) {
		image.bytes[bit / 8] ^= (uint8_t)(1u << bit % 8);
		assert_true(read_all(&image, image.len_bytes) < 0);
		image.bytes[bit / 8] ^= (uint8_t)(1u << bit % 8);
	}
}

static void test_every_cut_is_refused(void **state)
{
	struct image image;

	make(&image);
	for (size_t len_bytes = 0; len_bytes < image.len_bytes; len_bytes++)
		assert_int_equal(read_all(&image, len_bytes), -EPIPE);
}

/* Sections of 48 and 38 bytes: swapped, or the first one left out. */
static void test_sections_out_of_order_are_refused(void **state)
{
	struct image image, other = { .len_bytes = 0 };

	make(&image);
	memcpy(other.bytes, image.bytes + 48, 38);
	memcpy(other.bytes + 38, image.bytes, 48);
	assert_int_equal(read_all(&other, 86), -EBADMSG);
	assert_int_equal(read_all(&other, 38), -EBADMSG);
}

/* Changes a field of the first header and gives it its checksum again. */
static void change_header(struct image *image, void (*change)(struct stream_header *header))
{
	struct stream_header header;

	memcpy(&header, image->bytes, sizeof(header));
	change(&header);
	header.crc = le32_of(0);
	header.crc = le32_of(crc32c(0, &header, sizeof(header)));
	memcpy(image->bytes, &header, sizeof(header));
}

static void make_newer(struct stream_header *header)
{
	header->reader_min = le16_of(STREAM_READER_VERSION + 1);
}

static void make_unknown_optional(struct stream_header *header)
{
	header->type = le16_of(STREAM_TYPE_END);
	header->flags = le16_of(STREAM_FLAG_OPTIONAL);
}

static void make_unknown(struct stream_header *header)
{
	header->type = le16_of(STREAM_TYPE_END);
}

static void make_endless(struct stream_header *header)
{
	header->len_bytes = le64_of(UINT64_MAX);
}

static void test_what_is_not_known(void **state)
{
	struct image image;

	make(&image);
	change_header(&image, make_newer);
	assert_int_equal(read_all(&image, image.len_bytes), -EPROTONOSUPPORT);
	make(&image);
	change_header(&image, make_unknown);
	assert_int_equal(read_all(&image, image.len_bytes), -EPROTONOSUPPORT);
	make(&image);
	change_header(&image, make_unknown_optional);
	assert_int_equal(read_all(&image, image.len_bytes), 0);
	make(&image);
	change_header(&image, make_endless);
	assert_int_equal(read_all(&image, image.len_bytes), -EBADMSG);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_what_was_put_comes_back),
		cmocka_unit_test(test_every_flipped_bit_is_refused),
		cmocka_unit_test(test_every_cut_is_refused),
		cmocka_unit_test(test_sections_out_of_order_are_refused),
		cmocka_unit_test(test_what_is_not_known),
	};

	return run_unit_tests(tests);
}
