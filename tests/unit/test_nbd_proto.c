/* NBD messages: every rule of nbd_proto.h, from both sides. */
#include "targets/nbd_proto.h"

#include <errno.h>
#include <string.h>

#include "tests/unit/unit.h"

#define SIZE (1ull << 30)

static const struct nbd_terms writable = { .size_bytes = SIZE, .structured = true, .contexts = true };
static const struct nbd_terms read_only = { .size_bytes = SIZE, .structured = true, .read_only = true };
static const struct nbd_terms simple = { .size_bytes = SIZE };

/* ---- requests ---- */

static int judge(const struct nbd_terms *terms, uint32_t type, uint16_t flags, uint64_t off, uint32_t len)
{
	struct nbd_call call = { .type = (uint16_t)type, .flags = flags, .off_bytes = off, .len_bytes = len };

	return nbd_call_validate(&call, terms);
}

static void decodes_a_request(void **state)
{
	static const uint8_t wire[28] = { 0x25, 0x60, 0x95, 0x13, 0, 1, 0, 6, 1, 2, 3, 4, 5, 6,
					  7,    8,    0,    0,    0, 1, 0, 0, 2, 0, 0, 1, 0, 0 };
	struct nbd_call call;

	assert_true(nbd_request_decode((const struct nbd_request *)wire, &call));
	assert_int_equal(call.flags, NBD_CMD_FLAG_FUA);
	assert_int_equal(call.type, NBD_CMD_WRITE_ZEROES);
	assert_int_equal(call.cookie, 0x0102030405060708);
	assert_int_equal(call.off_bytes, 0x100000200);
	assert_int_equal(call.len_bytes, 65536);
}

static void a_wrong_magic_is_no_request(void **state)
{
	struct nbd_request wire = { .magic = be32_of(NBD_REQUEST_MAGIC ^ 1) };
	struct nbd_call call;

	assert_false(nbd_request_decode(&wire, &call));
}

static void accepts_what_is_in_range(void **state)
{
	for (uint32_t type = 0; type <= NBD_CMD_BLOCK_STATUS; type++) {
		if (type == NBD_CMD_DISC || type == NBD_CMD_FLUSH)
			continue;
		assert_int_equal(judge(&writable, type, 0, 0, 512), 0);
		assert_int_equal(judge(&writable, type, 0, SIZE - 4096, 4096), 0);
		assert_int_equal(judge(&writable, type, NBD_CMD_FLAG_FUA, SIZE / 2, 32 << 20), 0);
	}
	assert_int_equal(judge(&writable, NBD_CMD_FLUSH, 0, 0, 0), 0);
}

static void refuses_what_is_out_of_range(void **state)
{
	static const struct {
		uint64_t off;
		uint32_t len;
	} bad[] = { { SIZE, 512 },       { SIZE - 512, 1024 }, { UINT64_MAX - 511, 512 }, { UINT64_MAX - 511, 1024 },
		    { 1ull << 63, 512 }, { 0, 0xfffffe00 } };

	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		assert_int_not_equal(judge(&writable, NBD_CMD_READ, 0, bad[i].off, bad[i].len), 0);
		assert_int_not_equal(judge(&writable, NBD_CMD_WRITE, 0, bad[i].off, bad[i].len), 0);
		assert_int_equal(judge(&writable, NBD_CMD_TRIM, 0, bad[i].off, bad[i].len), -EINVAL);
		assert_int_equal(judge(&writable, NBD_CMD_CACHE, 0, bad[i].off, bad[i].len), -EINVAL);
		assert_int_equal(judge(&writable, NBD_CMD_BLOCK_STATUS, 0, bad[i].off, bad[i].len), -EINVAL);
		assert_int_equal(judge(&writable, NBD_CMD_WRITE_ZEROES, 0, bad[i].off, bad[i].len), -ENOSPC);
	}
	assert_int_equal(judge(&writable, NBD_CMD_WRITE, 0, SIZE, 512), -ENOSPC);
	assert_int_equal(judge(&writable, NBD_CMD_READ, 0, SIZE, 512), -EINVAL);
}

static void refuses_misaligned_ranges(void **state)
{
	assert_int_equal(judge(&writable, NBD_CMD_READ, 0, 1, 512), -EINVAL);
	assert_int_equal(judge(&writable, NBD_CMD_READ, 0, 0, 511), -EINVAL);
	assert_int_equal(judge(&writable, NBD_CMD_WRITE, 0, 256, 512), -EINVAL);
	assert_int_equal(judge(&writable, NBD_CMD_BLOCK_STATUS, 0, 0, 1), -EINVAL);
}

static void limits_payloads_only(void **state)
{
	static const struct nbd_terms large = { .size_bytes = 1ull << 40, .structured = true, .contexts = true };
	const uint32_t over = NBD_PAYLOAD_BYTES_MAX + 512, most = 0xfffffe00;

	assert_int_equal(judge(&large, NBD_CMD_READ, 0, 0, NBD_PAYLOAD_BYTES_MAX), 0);
	assert_int_equal(judge(&large, NBD_CMD_WRITE, 0, 0, NBD_PAYLOAD_BYTES_MAX), 0);
	assert_int_equal(judge(&large, NBD_CMD_READ, 0, 0, over), -EOVERFLOW);
	assert_int_equal(judge(&simple, NBD_CMD_READ, 0, 0, over), -EINVAL);
	assert_int_equal(judge(&large, NBD_CMD_WRITE, 0, 0, over), -EINVAL);
	assert_int_equal(judge(&large, NBD_CMD_TRIM, 0, 0, most), 0);
	assert_int_equal(judge(&large, NBD_CMD_WRITE_ZEROES, 0, 0, most), 0);
	assert_int_equal(judge(&large, NBD_CMD_CACHE, 0, 0, most), 0);
	assert_int_equal(judge(&large, NBD_CMD_BLOCK_STATUS, 0, 0, most), 0);
}

static void refuses_changes_of_a_read_only_export(void **state)
{
	assert_int_equal(judge(&read_only, NBD_CMD_WRITE, 0, 0, 512), -EPERM);
	assert_int_equal(judge(&read_only, NBD_CMD_TRIM, 0, 0, 512), -EPERM);
	assert_int_equal(judge(&read_only, NBD_CMD_WRITE_ZEROES, 0, 0, 512), -EPERM);
	assert_int_equal(judge(&read_only, NBD_CMD_READ, 0, 0, 512), 0);
	assert_int_equal(judge(&read_only, NBD_CMD_FLUSH, 0, 0, 0), 0);
	assert_int_equal(judge(&read_only, NBD_CMD_CACHE, 0, 0, 512), 0);
}

static void refuses_flags_a_command_does_not_have(void **state)
{
	for (uint32_t type = 0; type <= NBD_CMD_BLOCK_STATUS; type++) {
		uint32_t len = type == NBD_CMD_FLUSH ? 0 : 512;

		if (type == NBD_CMD_DISC)
			continue;
		for (unsigned bit = 5; bit < 16; bit++)
			assert_int_equal(judge(&writable, type, (uint16_t)(1u << bit), 0, len), -EINVAL);
		assert_int_equal(judge(&writable, type, NBD_CMD_FLAG_FUA, 0, len), 0);
		assert_int_equal(judge(&writable, type, NBD_CMD_FLAG_DF, 0, len), type == NBD_CMD_READ ? 0 : -EINVAL);
		assert_int_equal(judge(&writable, type, NBD_CMD_FLAG_REQ_ONE, 0, len),
				 type == NBD_CMD_BLOCK_STATUS ? 0 : -EINVAL);
		assert_int_equal(judge(&writable, type, NBD_CMD_FLAG_NO_HOLE, 0, len),
				 type == NBD_CMD_WRITE_ZEROES ? 0 : -EINVAL);
		assert_int_equal(judge(&writable, type, NBD_CMD_FLAG_FAST_ZERO, 0, len),
				 type == NBD_CMD_WRITE_ZEROES ? 0 : -EINVAL);
	}
	assert_int_equal(judge(&simple, NBD_CMD_READ, NBD_CMD_FLAG_DF, 0, 512), -EINVAL);
}

static void refuses_unknown_commands(void **state)
{
	for (unsigned type = NBD_CMD_BLOCK_STATUS + 1; type <= UINT16_MAX; type += 97)
		assert_int_equal(judge(&writable, (uint16_t)type, 0, 0, 512), -EINVAL);
	assert_int_equal(judge(&writable, NBD_CMD_DISC, 0, 0, 0), -EINVAL);
}

static void refuses_a_flush_of_a_range(void **state)
{
	assert_int_equal(judge(&writable, NBD_CMD_FLUSH, 0, 0, 512), -EINVAL);
	assert_int_equal(judge(&writable, NBD_CMD_FLUSH, 0, 512, 0), -EINVAL);
}

static void block_status_needs_a_context_and_a_length(void **state)
{
	assert_int_equal(judge(&read_only, NBD_CMD_BLOCK_STATUS, 0, 0, 512), -EINVAL);
	assert_int_equal(judge(&writable, NBD_CMD_BLOCK_STATUS, 0, 0, 0), -EINVAL);
}

static void fast_zeroes_that_hold_space_are_not_supported(void **state)
{
	assert_int_equal(judge(&writable, NBD_CMD_WRITE_ZEROES, NBD_CMD_FLAG_FAST_ZERO | NBD_CMD_FLAG_NO_HOLE, 0, 512),
			 -ENOTSUP);
}

static void tells_what_the_export_can_do(void **state)
{
	assert_int_equal(nbd_transmission_flags(&writable), 0x0ded);
	assert_int_equal(nbd_transmission_flags(&simple), 0x0d6d);
	assert_int_equal(nbd_transmission_flags(&read_only), 0x058f);
}

static void maps_every_errno_to_one_of_the_protocol(void **state)
{
	static const struct {
		int res;
		uint32_t error;
	} known[] = { { 0, 0 },        { -EPERM, 1 },      { -EROFS, 1 },       { -EIO, 5 },
		      { -ENOMEM, 12 }, { -EINVAL, 22 },    { -ENOSPC, 28 },     { -EDQUOT, 28 },
		      { -EFBIG, 28 },  { -EOVERFLOW, 75 }, { -EOPNOTSUPP, 95 }, { -ESHUTDOWN, 108 },
		      { -ENOTCONN, 5 } };

	for (size_t i = 0; i < sizeof(known) / sizeof(known[0]); i++)
		assert_int_equal(nbd_error_of(known[i].res), known[i].error);
	for (int res = -1; res > -200; res--)
		assert_string_not_equal(nbd_error_name(nbd_error_of(res)), "unknown");
}

static void describes_a_request(void **state)
{
	struct nbd_call call = { .type = NBD_CMD_WRITE,
				 .off_bytes = UINT64_MAX,
				 .len_bytes = UINT32_MAX,
				 .flags = UINT16_MAX,
				 .cookie = UINT64_MAX };
	char buf[NBD_CALL_TEXT_BYTES];

	assert_string_equal(nbd_call_to_text(&call, buf), "WRITE off 18446744073709551615 len 4294967295 flags 0xffff "
							  "cookie 0xffffffffffffffff");
	call.type = 99;
	assert_memory_equal(nbd_call_to_text(&call, buf), "unknown ", 8);
}

/* ---- options ---- */

struct bytes {
	uint8_t data[NBD_OPTION_BYTES_MAX];
	uint32_t len;
};

static void add(struct bytes *b, const void *data, size_t len)
{
	memcpy(b->data + b->len, data, len);
	b->len += (uint32_t)len;
}

static void add_16(struct bytes *b, uint16_t value)
{
	be16 wire = be16_of(value);

	add(b, &wire, sizeof(wire));
}

static void add_32(struct bytes *b, uint32_t value)
{
	be32 wire = be32_of(value);

	add(b, &wire, sizeof(wire));
}

static void add_text(struct bytes *b, const char *text)
{
	add_32(b, (uint32_t)strlen(text));
	add(b, text, strlen(text));
}

static void parses_an_info_option(void **state)
{
	struct bytes b = { .len = 0 };
	struct nbd_info_option info;

	add_text(&b, "web0");
	add_16(&b, 2);
	add_16(&b, NBD_INFO_BLOCK_SIZE);
	add_16(&b, NBD_INFO_NAME);
	assert_int_equal(nbd_info_option_parse(b.data, b.len, &info), 0);
	assert_true(nbd_text_is(info.name, "web0"));
	assert_false(nbd_text_is(info.name, "web"));
	assert_true(nbd_info_option_asks(&info, NBD_INFO_NAME));
	assert_false(nbd_info_option_asks(&info, NBD_INFO_DESCRIPTION));
	/* Any other length is wrong. */
	for (uint32_t len = 0; len <= b.len + 1; len++)
		assert_int_equal(nbd_info_option_parse(b.data, len, &info), len == b.len ? 0 : -EINVAL);
}

static void an_info_option_may_be_empty(void **state)
{
	static const uint8_t data[6];
	struct nbd_info_option info;

	assert_int_equal(nbd_info_option_parse(data, sizeof(data), &info), 0);
	assert_int_equal(info.name.len_bytes, 0);
	assert_int_equal(info.type_count, 0);
}

static void refuses_names_that_reach_beyond_the_option(void **state)
{
	static const uint32_t lengths[] = { 5, 0x7fffffff, 0x80000000, 0xfffffffc, 0xffffffff };
	struct nbd_info_option info;
	struct nbd_meta_option meta;

	for (size_t i = 0; i < sizeof(lengths) / sizeof(lengths[0]); i++) {
		struct bytes b = { .len = 0 };

		add_32(&b, lengths[i]);
		add(&b, "webs", 4);
		assert_int_equal(nbd_info_option_parse(b.data, b.len, &info), -EINVAL);
		assert_int_equal(nbd_meta_option_parse(b.data, b.len, &meta), -EINVAL);
	}
}

static void names_have_4096_bytes_at_most(void **state)
{
	for (uint32_t len = NBD_NAME_BYTES_MAX; len <= NBD_NAME_BYTES_MAX + 1; len++) {
		struct bytes b = { .len = 0 };
		struct nbd_info_option info;

		add_32(&b, len);
		b.len += len;
		add_16(&b, 0);
		assert_int_equal(nbd_info_option_parse(b.data, b.len, &info), len > NBD_NAME_BYTES_MAX ? -E2BIG : 0);
	}
}

static void parses_meta_contexts(void **state)
{
	struct bytes b = { .len = 0 };
	struct nbd_meta_option meta;
	struct nbd_text query;

	add_text(&b, "");
	add_32(&b, 2);
	add_text(&b, "qemu:dirty-bitmap:x");
	add_text(&b, "base:allocation");
	assert_int_equal(nbd_meta_option_parse(b.data, b.len, &meta), 0);
	assert_true(nbd_meta_option_next(&meta, &query));
	assert_false(nbd_query_selects(query, NBD_CONTEXT_ALLOCATION, false));
	assert_true(nbd_meta_option_next(&meta, &query));
	assert_true(nbd_query_selects(query, NBD_CONTEXT_ALLOCATION, false));
	assert_false(nbd_meta_option_next(&meta, &query));
	for (uint32_t len = 0; len <= b.len + 1; len++)
		assert_int_equal(nbd_meta_option_parse(b.data, len, &meta), len == b.len ? 0 : -EINVAL);
}

static void a_lie_about_the_number_of_queries_is_refused(void **state)
{
	struct bytes b = { .len = 0 };
	struct nbd_meta_option meta;

	add_text(&b, "web0");
	add_32(&b, UINT32_MAX);
	add_text(&b, "base:");
	assert_int_equal(nbd_meta_option_parse(b.data, b.len, &meta), -EINVAL);
}

static bool selects(const char *query, const char *context, bool list)
{
	return nbd_query_selects((struct nbd_text){ (const uint8_t *)query, (uint32_t)strlen(query) }, context, list);
}

static void a_colon_at_the_end_stands_for_all_only_in_a_list(void **state)
{
	const char *since = NBD_CONTEXT_CHANGED_SINCE "mon";

	assert_true(selects("base:", NBD_CONTEXT_ALLOCATION, true));
	assert_false(selects("base:", NBD_CONTEXT_ALLOCATION, false));
	assert_false(selects("base:", since, true));
	assert_true(selects("poold:", since, true));
	assert_true(selects(NBD_CONTEXT_CHANGED_SINCE, since, true));
	assert_false(selects(NBD_CONTEXT_CHANGED_SINCE, since, false));
	assert_true(selects(since, since, false));
	assert_false(selects("poold:changed-since:mo", since, true));
	assert_false(selects("poold:changed-since:mond", since, true));
	assert_false(selects("", since, true));
	assert_false(selects(":", since, true));
}

static void too_many_queries_are_refused(void **state)
{
	for (uint32_t count = NBD_QUERIES_MAX - 1; count <= NBD_QUERIES_MAX + 1; count++) {
		struct bytes b = { .len = 0 };
		struct nbd_meta_option meta;

		add_text(&b, "");
		add_32(&b, count);
		for (uint32_t i = 0; i < count; i++)
			add_text(&b, "x");
		assert_int_equal(nbd_meta_option_parse(b.data, b.len, &meta), count > NBD_QUERIES_MAX ? -E2BIG : 0);
	}
}

static void names_what_there_is(void **state)
{
	assert_string_equal(nbd_option_name(NBD_OPT_GO), "GO");
	assert_string_equal(nbd_option_name(4), "unknown");
	assert_string_equal(nbd_option_reply_name(NBD_REP_ERR_TLS_REQD), "ERR_TLS_REQD");
	assert_string_equal(nbd_command_name(NBD_CMD_BLOCK_STATUS), "BLOCK_STATUS");
	assert_string_equal(nbd_error_name(NBD_ENOTSUP), "ENOTSUP");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(decodes_a_request),
		cmocka_unit_test(a_wrong_magic_is_no_request),
		cmocka_unit_test(accepts_what_is_in_range),
		cmocka_unit_test(refuses_what_is_out_of_range),
		cmocka_unit_test(refuses_misaligned_ranges),
		cmocka_unit_test(limits_payloads_only),
		cmocka_unit_test(refuses_changes_of_a_read_only_export),
		cmocka_unit_test(refuses_flags_a_command_does_not_have),
		cmocka_unit_test(refuses_unknown_commands),
		cmocka_unit_test(refuses_a_flush_of_a_range),
		cmocka_unit_test(block_status_needs_a_context_and_a_length),
		cmocka_unit_test(fast_zeroes_that_hold_space_are_not_supported),
		cmocka_unit_test(tells_what_the_export_can_do),
		cmocka_unit_test(maps_every_errno_to_one_of_the_protocol),
		cmocka_unit_test(describes_a_request),
		cmocka_unit_test(parses_an_info_option),
		cmocka_unit_test(an_info_option_may_be_empty),
		cmocka_unit_test(refuses_names_that_reach_beyond_the_option),
		cmocka_unit_test(names_have_4096_bytes_at_most),
		cmocka_unit_test(parses_meta_contexts),
		cmocka_unit_test(a_lie_about_the_number_of_queries_is_refused),
		cmocka_unit_test(too_many_queries_are_refused),
		cmocka_unit_test(a_colon_at_the_end_stands_for_all_only_in_a_list),
		cmocka_unit_test(names_what_there_is),
	};

	return run_unit_tests(tests);
}
