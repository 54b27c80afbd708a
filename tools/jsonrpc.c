/* JSON-RPC 2.0 on whole messages: see jsonrpc.h.
 *
 * A request is checked in full before its method is called, so a method only ever sees an object of parameters. */
#include "tools/jsonrpc.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "tools/json_text.h"

/* An answer being made. */
struct answer {
	enum jsonrpc_error error;
	int code; /* 0, or -errno */
	struct err err;
	json_t *id;     /* borrowed from the request; NULL: unknown */
	json_t *result; /* owned */
};

static int fail(struct answer *answer, enum jsonrpc_error error, int code)
{
	answer->error = error;
	answer->code = code;
	return code;
}

static json_t *error_object(const struct answer *answer)
{
	const char *name = strerrorname_np(-answer->code);

	return json_pack("{s:i, s:o, s:{s:i, s:s}}", "code", (int)answer->error, "message",
			 json_text_string(answer->err.msg), "data", "errno", -answer->code, "name", name ? name : "?");
}

static json_t *result_object(struct answer *answer)
{
	return answer->result ? json_incref(answer->result) : json_object();
}

static char *answer_text(struct answer *answer)
{
	json_t *id = answer->id ? json_incref(answer->id) : json_null();
	json_t *object;
	char *text;

	if (answer->code)
		object = json_pack("{s:s, s:o, s:o}", "jsonrpc", "2.0", "error", error_object(answer), "id", id);
	else
		object = json_pack("{s:s, s:o, s:o}", "jsonrpc", "2.0", "result", result_object(answer), "id", id);
	text = object ? json_dumps(object, JSON_COMPACT) : NULL;
	json_decref(object);
	return text;
}

static bool id_is_valid(const json_t *id)
{
	return !id || json_is_string(id) || json_is_number(id) || json_is_null(id);
}

static int check_request(json_t *request, struct answer *answer)
{
	const char *version = json_string_value(json_object_get(request, "jsonrpc"));
	const json_t *params = json_object_get(request, "params");
	const char *what = NULL;

	if (!json_is_object(request))
		what = "it must be one object; batches are not supported";
	else if (!id_is_valid(json_object_get(request, "id")))
		what = "'id' must be a number, a string or null";
	else if (!version || strcmp(version, "2.0") != 0)
		what = "'jsonrpc' must be \"2.0\"";
	else if (!json_is_string(json_object_get(request, "method")))
		what = "'method' must be a string";
	if (what)
		return fail(answer, JSONRPC_REQUEST, err_set(&answer->err, -EINVAL, "invalid request: %s", what));
	if (params && !json_is_object(params))
		return fail(answer, JSONRPC_PARAMS, err_set(&answer->err, -EINVAL, "'params' must be an object"));
	return 0;
}

static const struct jsonrpc_method *find_method(const struct jsonrpc_method *methods, size_t count, const char *name)
{
	for (size_t i = 0; i < count; i++) {
		if (strcmp(methods[i].name, name) == 0)
			return &methods[i];
	}
	return NULL;
}

static void call_method(const struct jsonrpc_method *methods, size_t count, void *context, const json_t *request,
			struct answer *answer)
{
	const char *name = json_string_value(json_object_get(request, "method"));
	const struct jsonrpc_method *method = find_method(methods, count, name);
	struct params params;
	int ret;

	if (!method) {
		fail(answer, JSONRPC_METHOD, err_set(&answer->err, -ENOSYS, "no method '%s'; 'help' lists them", name));
		return;
	}
	params_init(&params, json_object_get(request, "params"), &answer->err);
	ret = method->call(context, &params, &answer->result, &answer->err);
	if (ret)
		fail(answer, params.bad ? JSONRPC_PARAMS : JSONRPC_FAILED, ret);
}

int jsonrpc_answer(const struct jsonrpc_method *methods, size_t method_count, void *context, const char *request_text,
		   size_t len_bytes, char **answer_out)
{
	struct answer answer = { 0 };
	json_t *request = NULL;
	bool wants_answer = true;
	int ret;

	*answer_out = NULL;
	ret = json_text_parse(request_text, len_bytes, &request, &answer.err);
	if (ret)
		fail(&answer, JSONRPC_PARSE, ret);
	else if (check_request(request, &answer) == 0) {
		answer.id = json_object_get(request, "id");
		wants_answer = answer.id != NULL;
		call_method(methods, method_count, context, request, &answer);
	}
	if (wants_answer)
		*answer_out = answer_text(&answer);
	json_decref(answer.result);
	json_decref(request);
	return wants_answer && !*answer_out ? -ENOMEM : 0;
}

char *jsonrpc_error_text(enum jsonrpc_error error, int code, const char *message)
{
	struct answer answer = { .error = error };

	answer.code = err_set(&answer.err, code, "%s", message);
	return answer_text(&answer);
}
