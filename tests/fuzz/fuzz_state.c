/* state.json: any bytes. What is accepted reads back from its own text as the same text. */
#include "tests/fuzz/fuzz.h"
#include "tools/state.h"

static void state_init(struct state *state)
{
	*state = (struct state){ .dir_fd = -1, .lock_fd = -1 };
	list_init(&state->pools);
	list_init(&state->exports);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct state state, again;
	struct err err = { "" };
	char *text, *text_again;

	state_init(&state);
	if (state_from_text(&state, (const char *)data, size, &err) != 0) {
		FUZZ_REQUIRE(err.msg[0]);
		state_close(&state);
		return 0;
	}
	text = state_to_text(&state);
	FUZZ_REQUIRE(text);
	state_init(&again);
	FUZZ_REQUIRE(state_from_text(&again, text, strlen(text), &err) == 0);
	text_again = state_to_text(&again);
	FUZZ_REQUIRE(text_again && strcmp(text, text_again) == 0);
	free(text);
	free(text_again);
	state_close(&again);
	state_close(&state);
	return 0;
}
