/* The state folder: what is written is read again, what cannot be read is refused, and one daemon has it at a time. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tests/unit/unit.h"
#include "tools/state.h"

#define UUID "01234567-89ab-cdef-0123-456789abcdef"

static char folder[64];

static int make_folder(void **unused)
{
	snprintf(folder, sizeof(folder), "/tmp/test-state.XXXXXX");
	return mkdtemp(folder) ? 0 : -1;
}

static int remove_folder(void **unused)
{
	static const char *const names[] = { "state.json", "state.json.new", "lock", "deep/er/lock",
					     "deep/er",    "deep",           "." };
	char path[128];

	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
		snprintf(path, sizeof(path), "%s/%s", folder, names[i]);
		if (remove(path) != 0 && errno == EINVAL)
			rmdir(folder);
	}
	return 0;
}

static void open_state(struct state *state)
{
	struct err err;

	assert_int_equal(state_open(state, folder, &err), 0);
}

/* One pool of two disks with one export. */
static void fill_state(struct state *state)
{
	const char *const disks[] = { "/dev/sdb", "file:/srv/\xc3\xa4.img" };
	struct state_pool *pool = state_pool_new("tank", UUID, disks, 2);
	struct state_export *exp = state_export_new(UUID, "web0", 7, "vhost-user-blk", "/run/web0.sock");

	exp->queues = 4;
	exp->read_only = true;
	list_push_back(&state->pools, &pool->node);
	list_push_back(&state->exports, &exp->node);
}

static void write_state(struct state *state)
{
	char *text = state_to_text(state);
	struct err err;

	assert_non_null(text);
	assert_int_equal(state_write(state, text, &err), 0);
	free(text);
}

static void check_filled(const struct state *state)
{
	const struct state_pool *pool = list_entry(state->pools.next, struct state_pool, node);
	const struct state_export *exp = list_entry(state->exports.next, struct state_export, node);

	assert_ptr_equal(state->pools.prev, &pool->node);
	assert_string_equal(pool->name, "tank");
	assert_string_equal(pool->uuid, UUID);
	assert_int_equal(pool->disk_count, 2);
	assert_string_equal(pool->disks[1], "file:/srv/\xc3\xa4.img");
	assert_ptr_equal(state->exports.prev, &exp->node);
	assert_string_equal(exp->pool_uuid, UUID);
	assert_string_equal(exp->volume, "web0");
	assert_int_equal(exp->volume_id, 7);
	assert_string_equal(exp->kind, "vhost-user-blk");
	assert_string_equal(exp->address, "/run/web0.sock");
	assert_int_equal(exp->queues, 4);
	assert_true(exp->read_only);
}

static void is_empty_at_first(void **unused)
{
	struct state state;
	struct err err;

	open_state(&state);
	assert_int_equal(state_load(&state, &err), 0);
	assert_true(list_empty(&state.pools));
	assert_true(list_empty(&state.exports));
	state_close(&state);
}

static void reads_what_it_wrote(void **unused)
{
	struct state state;
	struct err err;

	open_state(&state);
	fill_state(&state);
	write_state(&state);
	state_close(&state);
	open_state(&state);
	assert_int_equal(state_load(&state, &err), 0);
	check_filled(&state);
	state_close(&state);
}

static void is_private(void **unused)
{
	struct state state;
	struct stat st;

	open_state(&state);
	write_state(&state);
	assert_int_equal(fstatat(state.dir_fd, "state.json", &st, 0), 0);
	assert_int_equal(st.st_mode & 0777, 0600);
	state_close(&state);
}

static void leaves_the_old_file_when_it_cannot_write(void **unused)
{
	struct state state;
	struct err err;

	open_state(&state);
	fill_state(&state);
	write_state(&state);
	/* A folder of the temporary file's name is in the way. */
	assert_int_equal(mkdirat(state.dir_fd, "state.json.new", 0700), 0);
	assert_true(state_write(&state, "{}", &err) < 0);
	state_close(&state);
	open_state(&state);
	assert_int_equal(state_load(&state, &err), 0);
	check_filled(&state);
	state_close(&state);
}

static void ignores_a_half_written_file(void **unused)
{
	struct state state;
	struct err err;
	int fd;

	open_state(&state);
	fill_state(&state);
	write_state(&state);
	fd = openat(state.dir_fd, "state.json.new", O_WRONLY | O_CREAT, 0600);
	assert_int_equal(write(fd, "{\"ver", 5), 5);
	close(fd);
	state_close(&state);
	open_state(&state);
	assert_int_equal(state_load(&state, &err), 0);
	check_filled(&state);
	state_close(&state);
}

static void creates_its_folder(void **unused)
{
	char path[96];
	struct state state;
	struct stat st;
	struct err err;

	snprintf(path, sizeof(path), "%s/deep/er", folder);
	assert_int_equal(state_open(&state, path, &err), 0);
	assert_int_equal(stat(path, &st), 0);
	assert_int_equal(st.st_mode & 0777, 0700);
	state_close(&state);
}

static void has_one_owner(void **unused)
{
	struct state one, two;
	struct err err;

	open_state(&one);
	assert_int_equal(state_open(&two, folder, &err), -EBUSY);
	assert_non_null(strstr(err.msg, "another poold"));
	state_close(&one);
	assert_int_equal(state_open(&two, folder, &err), 0);
	state_close(&two);
}

/* Reading text fails with code and leaves a message. */
static void refuses(const char *text, int code)
{
	struct state state = { .dir_fd = -1, .lock_fd = -1 };
	struct err err = { "" };

	list_init(&state.pools);
	list_init(&state.exports);
	if (state_from_text(&state, text, strlen(text), &err) != code)
		fail_msg("not refused, or not so: %s (%s)", text, err.msg);
	assert_string_not_equal(err.msg, "");
	state_close(&state);
}

#define POOL_A "{\"name\": \"a\", \"uuid\": \"" UUID "\", \"disks\": [\"/x\"]}"
#define SNAPSHOT_EXPORT(name, read_only)                                                                          \
	"{\"pool_uuid\": \"" UUID "\", \"volume_id\": 1, \"volume\": \"" name "\", \"kind\": \"k\", \"address\": \"/y\", " \
	"\"queues\": 1, \"read_only\": " read_only "}"
#define EXPORT(uuid)                                                                                                \
	"{\"pool_uuid\": \"" uuid "\", \"volume_id\": 1, \"volume\": \"v\", \"kind\": \"k\", \"address\": \"/y\", " \
	"\"queues\": 1, \"read_only\": false}"

static void refuses_what_it_does_not_understand(void **unused)
{
	refuses("", -EINVAL);
	refuses("[]", -EINVAL);
	refuses("{}", -EINVAL);
	refuses("{\"version\": 1}", -EINVAL);
	refuses("{\"version\": \"1\", \"pools\": [], \"exports\": []}", -EINVAL);
	refuses("{\"version\": 1, \"pools\": [], \"exports\": [], \"more\": 1}", -EINVAL);
	refuses("{\"version\": 1, \"pools\": {}, \"exports\": []}", -EINVAL);
	refuses("{\"version\": 1, \"pools\": [1], \"exports\": []}", -EINVAL);
	refuses("{\"version\": 1, \"pools\": [], \"exports\": []", -EINVAL);
	refuses("{\"version\": 1, \"version\": 1, \"pools\": [], \"exports\": []}", -EINVAL);
}

static void refuses_a_newer_version(void **unused)
{
	refuses("{\"version\": 2, \"pools\": [], \"exports\": []}", -EPROTO);
}

static void refuses_a_bad_pool(void **unused)
{
	refuses("{\"version\": 1, \"pools\": [{\"name\": \"../a\", \"uuid\": \"" UUID "\", \"disks\": [\"/x\"]}], "
		"\"exports\": []}",
		-EINVAL);
	refuses("{\"version\": 1, \"pools\": [{\"name\": \"a\", \"uuid\": \"1\", \"disks\": [\"/x\"]}], \"exports\": "
		"[]}",
		-EINVAL);
	refuses("{\"version\": 1, \"pools\": [{\"name\": \"a\", \"uuid\": \"" UUID
		"\", \"disks\": []}], \"exports\": []}",
		-EINVAL);
	refuses("{\"version\": 1, \"pools\": [" POOL_A ", " POOL_A "], \"exports\": []}", -EINVAL);
}

static void refuses_an_export_of_no_pool(void **unused)
{
	refuses("{\"version\": 1, \"pools\": [], \"exports\": [" EXPORT(UUID) "]}", -EINVAL);
	refuses("{\"version\": 1, \"pools\": [" POOL_A
		"], \"exports\": [" EXPORT("11234567-89ab-cdef-0123-456789abcdef") "]}",
		-EINVAL);
}

static void takes_an_export_of_a_snapshot_that_is_read_only(void **unused)
{
	static const char text[] = "{\"version\": 1, \"pools\": [" POOL_A "], \"exports\": [" SNAPSHOT_EXPORT("v@s", "true") "]}";
	struct state state = { .dir_fd = -1, .lock_fd = -1 };
	struct err err;

	list_init(&state.pools);
	list_init(&state.exports);
	assert_int_equal(state_from_text(&state, text, strlen(text), &err), 0);
	state_close(&state);
	refuses("{\"version\": 1, \"pools\": [" POOL_A "], \"exports\": [" SNAPSHOT_EXPORT("v@s", "false") "]}", -EINVAL);
	refuses("{\"version\": 1, \"pools\": [" POOL_A "], \"exports\": [" SNAPSHOT_EXPORT("v@", "true") "]}", -EINVAL);
	refuses("{\"version\": 1, \"pools\": [" POOL_A "], \"exports\": [" SNAPSHOT_EXPORT("v@s@t", "true") "]}", -EINVAL);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, make_folder, remove_folder)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(is_empty_at_first),
		TEST(reads_what_it_wrote),
		TEST(is_private),
		TEST(leaves_the_old_file_when_it_cannot_write),
		TEST(ignores_a_half_written_file),
		TEST(creates_its_folder),
		TEST(has_one_owner),
		cmocka_unit_test(refuses_what_it_does_not_understand),
		cmocka_unit_test(refuses_a_newer_version),
		cmocka_unit_test(refuses_a_bad_pool),
		cmocka_unit_test(refuses_an_export_of_no_pool),
		cmocka_unit_test(takes_an_export_of_a_snapshot_that_is_read_only),
	};

	return run_unit_tests(tests);
}
