/* Requests of the control socket: JSON text, typed parameters, JSON-RPC answers, names and options. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/unit/unit.h"
#include "tools/config.h"
#include "tools/json_text.h"
#include "tools/jsonrpc.h"
#include "tools/names.h"

/* --- JSON text -------------------------------------------------------------------------------------------- */

static int parse(const char *text)
{
	json_t *json = NULL;
	struct err err;
	int ret = json_text_parse(text, strlen(text), &json, &err);

	json_decref(json);
	return ret;
}

/* Appends text `count` times at *end. */
static void repeat(char **end, int count, const char *text)
{
	for (int i = 0; i < count; i++)
		*end = stpcpy(*end, text);
}

/* `count` times open, then close. */
static int parse_nested(int count, const char *open, const char *inner, const char *close)
{
	char text[8192], *end = text;

	repeat(&end, count, open);
	repeat(&end, 1, inner);
	repeat(&end, count, close);
	return parse(text);
}

static void text_limits_depth(void **unused)
{
	assert_int_equal(parse_nested(JSON_TEXT_DEPTH_MAX, "[", "", "]"), 0);
	assert_int_equal(parse_nested(JSON_TEXT_DEPTH_MAX + 1, "[", "", "]"), -EINVAL);
	assert_int_equal(parse_nested(JSON_TEXT_DEPTH_MAX, "{\"a\":", "1", "}"), 0);
	assert_int_equal(parse_nested(JSON_TEXT_DEPTH_MAX + 1, "{\"a\":", "1", "}"), -EINVAL);
	/* Never closed: jansson would recurse all the same. */
	assert_int_equal(parse_nested(1000, "[", "", ""), -EINVAL);
}

static void text_counts_no_brackets_in_strings(void **unused)
{
	assert_int_equal(parse("[\"[[[[[[[[[[[[[[[[[[[[[[[[\"]"), 0);
	assert_int_equal(parse("[\"\\\"[[[[[[[[[[[[[[[[[[[[[[\"]"), 0);
	assert_int_equal(parse("[\"\\\\\",[[[[[[[[[[[[[[[[[]]]]]]]]]]]]]]]]]]"), -EINVAL);
}

static void text_refuses_duplicates_and_bad_utf8(void **unused)
{
	assert_int_equal(parse("{\"a\": 1, \"b\": 1}"), 0);
	assert_int_equal(parse("{\"a\": 1, \"a\": 1}"), -EINVAL);
	assert_int_equal(parse("[\"\xc3\xa4\"]"), 0);
	assert_int_equal(parse("[\"\xff\"]"), -EINVAL);
	assert_int_equal(parse("[\"\xc0\xaf\"]"), -EINVAL);
	assert_int_equal(parse("[\"\\u0000\"]"), -EINVAL);
	assert_int_equal(parse("[99999999999999999999]"), -EINVAL);
	assert_int_equal(parse("[] []"), -EINVAL);
}

static void text_mends_strings(void **unused)
{
	json_t *json = json_text_string("a\xff"
					"b\xc3");

	assert_string_equal(json_string_value(json), "a?b?");
	json_decref(json);
}

/* --- parameters ------------------------------------------------------------------------------------------- */

struct rig {
	json_t *json;
	struct params params;
	struct err err;
};

static void rig_init(struct rig *rig, const char *text)
{
	rig->json = json_loads(text, JSON_DECODE_ANY, NULL);
	assert_non_null(rig->json);
	params_init(&rig->params, rig->json, &rig->err);
}

/* params_end is what it should be, and a failure names the key. */
static void rig_end(struct rig *rig, const char *bad_key)
{
	char quoted[64];

	assert_int_equal(params_end(&rig->params), bad_key ? -EINVAL : 0);
	snprintf(quoted, sizeof(quoted), "'%s'", bad_key ? bad_key : "");
	if (bad_key && *bad_key && !strstr(rig->err.msg, quoted))
		fail_msg("'%s' is not named in: %s", bad_key, rig->err.msg);
	json_decref(rig->json);
}

static void params_give_values(void **unused)
{
	const char *texts[4];
	struct rig rig;

	rig_init(&rig, "{\"t\": \"x\", \"n\": 42, \"d\": -7, \"f\": true, \"l\": [\"a\", \"b\"]}");
	assert_string_equal(param_text(&rig.params, "t"), "x");
	assert_int_equal(param_u64(&rig.params, "n", 42), 42);
	assert_int_equal(param_delta(&rig.params, "d", 7), -7);
	assert_true(param_flag(&rig.params, "f"));
	assert_int_equal(param_texts(&rig.params, "l", texts, 2), 2);
	assert_string_equal(texts[1], "b");
	rig_end(&rig, NULL);
}

static void params_fall_back(void **unused)
{
	struct rig rig;

	rig_init(&rig, "{}");
	assert_string_equal(param_text_or(&rig.params, "t", "x"), "x");
	assert_int_equal(param_u64_or(&rig.params, "n", 10, 5), 5);
	assert_int_equal(param_delta(&rig.params, "d", 7), 0);
	assert_false(param_flag(&rig.params, "f"));
	rig_end(&rig, NULL);
	params_init(&rig.params, NULL, &rig.err);
	assert_false(param_flag(&rig.params, "f"));
	assert_int_equal(params_end(&rig.params), 0);
}

static void bad_text(const char *json)
{
	struct rig rig;

	rig_init(&rig, json);
	assert_null(param_text(&rig.params, "t"));
	rig_end(&rig, "t");
}

static void params_refuse_bad_texts(void **unused)
{
	char *json;

	bad_text("{}");
	bad_text("{\"t\": 1}");
	bad_text("{\"t\": null}");
	bad_text("{\"t\": \"\"}");
	bad_text("{\"t\": \"a\\nb\"}");
	bad_text("{\"t\": \"a\\u007f\"}");
	assert_true(asprintf(&json, "{\"t\": \"%0*d\"}", PARAM_TEXT_BYTES_MAX + 1, 0) > 0);
	bad_text(json);
	free(json);
}

static void bad_number(const char *json, uint64_t max)
{
	struct rig rig;

	rig_init(&rig, json);
	assert_int_equal(param_u64(&rig.params, "n", max), 0);
	rig_end(&rig, "n");
}

static void params_refuse_bad_numbers(void **unused)
{
	bad_number("{}", 10);
	bad_number("{\"n\": 11}", 10);
	bad_number("{\"n\": -1}", UINT64_MAX);
	bad_number("{\"n\": 1.0}", 10);
	bad_number("{\"n\": \"1\"}", 10);
	bad_number("{\"n\": true}", 10);
}

static void bad_list(const char *json)
{
	const char *texts[2];
	struct rig rig;

	rig_init(&rig, json);
	assert_int_equal(param_texts(&rig.params, "l", texts, 2), 0);
	rig_end(&rig, "l");
}

static void params_refuse_bad_lists(void **unused)
{
	bad_list("{}");
	bad_list("{\"l\": []}");
	bad_list("{\"l\": \"a\"}");
	bad_list("{\"l\": {}}");
	bad_list("{\"l\": [\"a\", 1]}");
	bad_list("{\"l\": [\"a\", \"b\", \"c\"]}");
}

static void params_refuse_bad_flags_and_deltas(void **unused)
{
	struct rig rig;

	rig_init(&rig, "{\"f\": 1}");
	assert_false(param_flag(&rig.params, "f"));
	rig_end(&rig, "f");
	rig_init(&rig, "{\"d\": -8}");
	assert_int_equal(param_delta(&rig.params, "d", 7), 0);
	rig_end(&rig, "d");
}

static void params_refuse_unknown_ones(void **unused)
{
	struct rig rig;

	rig_init(&rig, "{\"t\": \"x\", \"u\": 1}");
	assert_non_null(param_text(&rig.params, "t"));
	rig_end(&rig, "");
}

static void params_keep_the_first_error(void **unused)
{
	struct rig rig;

	rig_init(&rig, "{\"a\": 1, \"b\": 1}");
	param_text(&rig.params, "a");
	param_text(&rig.params, "b");
	rig_end(&rig, "a");
}

/* --- JSON-RPC --------------------------------------------------------------------------------------------- */

static int greet(void *context, struct params *params, json_t **result, struct err *err)
{
	const char *name = param_text(params, "name");
	int *calls = context;

	if (params_end(params) != 0)
		return -EINVAL;
	++*calls;
	if (strcmp(name, "nobody") == 0)
		return err_set(err, -ENOENT, "no '%s'", name);
	*result = json_sprintf("hello %s", name);
	return 0;
}

static const struct jsonrpc_method greet_methods[] = { { "greet", greet, "name: says hello" } };

/* The answer to a request; NULL: none. */
static json_t *answer_to(const char *request, int *calls)
{
	json_t *json;
	char *text;

	*calls = 0;
	assert_int_equal(jsonrpc_answer(greet_methods, 1, calls, request, strlen(request), &text), 0);
	if (!text)
		return NULL;
	assert_null(strchr(text, '\n'));
	json = json_loads(text, 0, NULL);
	assert_non_null(json);
	assert_string_equal(json_string_value(json_object_get(json, "jsonrpc")), "2.0");
	free(text);
	return json;
}

static void rpc_answers(void **unused)
{
	int calls;
	json_t *json = answer_to(
		"{\"jsonrpc\": \"2.0\", \"method\": \"greet\", \"params\": {\"name\": \"you\"}, \"id\": \"x\"}",
		&calls);

	assert_string_equal(json_string_value(json_object_get(json, "result")), "hello you");
	assert_string_equal(json_string_value(json_object_get(json, "id")), "x");
	assert_int_equal(calls, 1);
	json_decref(json);
}

static void rpc_carries_out_a_notification_in_silence(void **unused)
{
	int calls;

	assert_null(
		answer_to("{\"jsonrpc\": \"2.0\", \"method\": \"greet\", \"params\": {\"name\": \"you\"}}", &calls));
	assert_int_equal(calls, 1);
}

static void rpc_fails(const char *request, int code, int errno_code)
{
	int calls;
	json_t *json = answer_to(request, &calls), *error = json_object_get(json, "error");

	if (json_integer_value(json_object_get(error, "code")) != code)
		fail_msg("another error: %s", json_dumps(json, 0));
	assert_int_equal(json_integer_value(json_object_get(json_object_get(error, "data"), "errno")), errno_code);
	assert_null(json_object_get(json, "result"));
	json_decref(json);
}

static void rpc_tells_errors_apart(void **unused)
{
	rpc_fails("{", JSONRPC_PARSE, EINVAL);
	rpc_fails("[]", JSONRPC_REQUEST, EINVAL);
	rpc_fails("{\"method\": \"greet\", \"id\": 1}", JSONRPC_REQUEST, EINVAL);
	rpc_fails("{\"jsonrpc\": \"2.0\", \"id\": 1}", JSONRPC_REQUEST, EINVAL);
	rpc_fails("{\"jsonrpc\": \"2.0\", \"method\": \"greet\", \"id\": []}", JSONRPC_REQUEST, EINVAL);
	rpc_fails("{\"jsonrpc\": \"2.0\", \"method\": \"shout\", \"id\": 1}", JSONRPC_METHOD, ENOSYS);
	rpc_fails("{\"jsonrpc\": \"2.0\", \"method\": \"greet\", \"params\": [], \"id\": 1}", JSONRPC_PARAMS, EINVAL);
	rpc_fails("{\"jsonrpc\": \"2.0\", \"method\": \"greet\", \"id\": 1}", JSONRPC_PARAMS, EINVAL);
	rpc_fails("{\"jsonrpc\": \"2.0\", \"method\": \"greet\", \"params\": {\"name\": \"nobody\"}, \"id\": 1}",
		  JSONRPC_FAILED, ENOENT);
}

/* --- names ------------------------------------------------------------------------------------------------ */

static void names_are_split(void **unused)
{
	struct image_path path;
	struct err err;

	assert_int_equal(image_path_parse("tank/web0", IMAGE_VOLUME, &path, &err), 0);
	assert_string_equal(path.pool, "tank");
	assert_string_equal(path.image, "web0");
	assert_int_equal(image_path_parse("tank/web0@mon", IMAGE_SNAPSHOT, &path, &err), 0);
	assert_string_equal(path.pool, "tank");
	assert_string_equal(path.image, "web0@mon");
	assert_int_equal(image_path_parse("a/b", IMAGE_EITHER, &path, &err), 0);
	assert_int_equal(image_path_parse("a/b@c", IMAGE_EITHER, &path, &err), 0);
}

static void names_of_another_kind_are_refused(void **unused)
{
	struct image_path path;
	struct err err = { "" };

	assert_int_equal(image_path_parse("tank/web0@mon", IMAGE_VOLUME, &path, &err), -EINVAL);
	assert_non_null(strstr(err.msg, "not the name of a volume"));
	assert_int_equal(image_path_parse("tank/web0", IMAGE_SNAPSHOT, &path, &err), -EINVAL);
	assert_non_null(strstr(err.msg, "not the name of a snapshot"));
}

static void bad_names_are_refused(void **unused)
{
	static const char *const names[] = { "",     "tank", "/",    "tank/", "/web0", "tank/web0/", "a/b/c",
					     "../b", "a/..", "-a/b", "a/-b",  "a b/c", "a/\xc3\xa4",
					     "a/b@", "a/@c", "a@b",  "a@b/c", "a/b@c@d", "a/b@-c", "a/b@c/d" };
	struct image_path path;
	char long_name[2 * POOL_NAME_MAX + 8];
	struct err err;

	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
		if (image_path_parse(names[i], IMAGE_EITHER, &path, &err) != -EINVAL)
			fail_msg("'%s' is taken", names[i]);
	}
	snprintf(long_name, sizeof(long_name), "a/%0*d", POOL_NAME_MAX + 1, 0);
	assert_int_equal(image_path_parse(long_name, IMAGE_EITHER, &path, &err), -EINVAL);
	snprintf(long_name, sizeof(long_name), "a/b@%0*d", POOL_NAME_MAX + 1, 0);
	assert_int_equal(image_path_parse(long_name, IMAGE_EITHER, &path, &err), -EINVAL);
	snprintf(long_name, sizeof(long_name), "a/%0*d@%0*d", POOL_NAME_MAX, 0, POOL_NAME_MAX, 0);
	assert_int_equal(image_path_parse(long_name, IMAGE_EITHER, &path, &err), 0);
}

/* --- options ---------------------------------------------------------------------------------------------- */

static int read_options(struct config *config, int argc, const char *const *argv)
{
	struct err err;

	return config_read(config, argc, (char **)argv, &err);
}

static void options_are_read(void **unused)
{
	const char *const argv[] = { "poold", "--socket",    "/s", "--state=/d",    "--cores",
				     "0,2-3", "--map-cache", "1G", "--test-faults", NULL };
	struct config config;

	assert_int_equal(read_options(&config, 9, argv), 0);
	assert_string_equal(config.socket, "/s");
	assert_string_equal(config.state, "/d");
	assert_int_equal(config.cpu_count, 3);
	assert_int_equal(config.cpus[2], 3);
	assert_int_equal(config.map_cache_bytes, 1ull << 30);
	assert_true(config.test_faults);
	config_release(&config);
}

static void bad_options_are_refused(void **unused)
{
	static const char *const options[] = { "--sock=x",
					       "-s",
					       "x",
					       "--",
					       "--state=",
					       "--cores=",
					       "--cores=1-0",
					       "--cores=0,",
					       "--cores=0,0",
					       "--cores=-1",
					       "--cores=1-",
					       "--cores=a",
					       "--cores=999999",
					       "--map-cache=x",
					       "--test-faults=1",
					       "--socket",
					       "--log-level=loud" };
	struct config config;

	for (size_t i = 0; i < sizeof(options) / sizeof(options[0]); i++) {
		const char *const argv[] = { "poold", options[i], NULL };

		if (read_options(&config, 2, argv) == 0)
			fail_msg("'%s' is taken", options[i]);
		config_release(&config);
	}
}

static int read_file(struct config *config, const char *text)
{
	struct err err;

	return config_from_text(config, text, strlen(text), &err);
}

static void a_file_gives_options(void **unused)
{
	struct config config = { 0 };

	assert_int_equal(read_file(&config, "{\"socket\": \"/s\", \"map_cache\": 4096, \"checkpoint_log\": \"2G\", "
					    "\"test_faults\": true, \"log_level\": \"debug\"}"),
			 0);
	assert_string_equal(config.socket, "/s");
	assert_int_equal(config.map_cache_bytes, 4096);
	assert_int_equal(config.checkpoint_log_bytes, 2ull << 30);
	assert_true(config.test_faults);
	assert_int_equal(config.log_level, LOG_LEVEL_DEBUG);
	config_release(&config);
}

static void a_bad_file_is_refused(void **unused)
{
	static const char *const files[] = { "",
					     "[]",
					     "{\"sockets\": \"/s\"}",
					     "{\"socket\": 1}",
					     "{\"map_cache\": -1}",
					     "{\"map_cache\": 1.5}",
					     "{\"test_faults\": \"true\"}",
					     "{\"config\": \"/x\"}",
					     "{\"help\": true}",
					     "{\"socket\": \"/s\", \"socket\": \"/t\"}" };
	struct config config = { 0 };

	for (size_t i = 0; i < sizeof(files) / sizeof(files[0]); i++) {
		if (read_file(&config, files[i]) == 0)
			fail_msg("taken: %s", files[i]);
	}
	config_release(&config);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(text_limits_depth),
		cmocka_unit_test(text_counts_no_brackets_in_strings),
		cmocka_unit_test(text_refuses_duplicates_and_bad_utf8),
		cmocka_unit_test(text_mends_strings),
		cmocka_unit_test(params_give_values),
		cmocka_unit_test(params_fall_back),
		cmocka_unit_test(params_refuse_bad_texts),
		cmocka_unit_test(params_refuse_bad_numbers),
		cmocka_unit_test(params_refuse_bad_lists),
		cmocka_unit_test(params_refuse_bad_flags_and_deltas),
		cmocka_unit_test(params_refuse_unknown_ones),
		cmocka_unit_test(params_keep_the_first_error),
		cmocka_unit_test(rpc_answers),
		cmocka_unit_test(rpc_carries_out_a_notification_in_silence),
		cmocka_unit_test(rpc_tells_errors_apart),
		cmocka_unit_test(names_are_split),
		cmocka_unit_test(names_of_another_kind_are_refused),
		cmocka_unit_test(bad_names_are_refused),
		cmocka_unit_test(options_are_read),
		cmocka_unit_test(bad_options_are_refused),
		cmocka_unit_test(a_file_gives_options),
		cmocka_unit_test(a_bad_file_is_refused),
	};

	return run_unit_tests(tests);
}
