/* The control protocol: any bytes as a JSON-RPC request, to methods that ask for parameters of every type. The answer, if
 * there is one, is valid JSON. */
#include <errno.h>

#include "tests/fuzz/fuzz.h"
#include "tools/json_text.h"
#include "tools/jsonrpc.h"

#define TEXTS_MAX 4

static int create(void *context, struct params *params, json_t **result, struct err *err)
{
	const char *texts[TEXTS_MAX];
	const char *name = param_text(params, "name");
	const char *kind = param_text_or(params, "kind", "file");
	uint64_t size_bytes = param_u64(params, "size_bytes", 1ull << 50);
	uint64_t queues = param_u64_or(params, "queues", 64, 1);
	int64_t delta = param_delta(params, "delta", 1000);
	bool force = param_flag(params, "force");
	uint32_t count = param_texts(params, "disks", texts, TEXTS_MAX);

	if (params_end(params) != 0)
		return -EINVAL;
	FUZZ_REQUIRE(name && kind && size_bytes <= 1ull << 50 && queues <= 64 && delta >= -1000 && delta <= 1000);
	FUZZ_REQUIRE(count >= 1 && count <= TEXTS_MAX);
	for (uint32_t i = 0; i < count; i++)
		FUZZ_REQUIRE(strlen(texts[i]) <= PARAM_TEXT_BYTES_MAX);
	if (force)
		return err_set(err, -EBUSY, "cannot create '%s'", name);
	*result = json_pack("{s:s}", "name", name);
	return 0;
}

static int quiet(void *context, struct params *params, json_t **result, struct err *err)
{
	return params_end(params);
}

static const struct jsonrpc_method methods[] = { { "create", create, "" }, { "quiet", quiet, "" } };

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct err err = { "" };
	char *answer;
	json_t *json;

	if (jsonrpc_answer(methods, 2, NULL, (const char *)data, size, &answer) != 0 || !answer)
		return 0;
	FUZZ_REQUIRE(!strchr(answer, '\n'));
	FUZZ_REQUIRE(json_text_parse(answer, strlen(answer), &json, &err) == 0);
	FUZZ_REQUIRE(json_object_get(json, "result") || json_object_get(json, "error"));
	json_decref(json);
	free(answer);
	return 0;
}
