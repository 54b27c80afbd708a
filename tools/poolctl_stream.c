/* GUIDs and policies as text: see poolctl_stream.h. */
#include "tools/poolctl_stream.h"

#include <stdio.h>
#include <string.h>

bool stream_guid_from_text(const char *text, struct stream_guid *guid)
{
	int end = 0;
	uint8_t *b = guid->b;

	return sscanf(text, "%2hhx%2hhx%2hhx%2hhx-%2hhx%2hhx-%2hhx%2hhx-%2hhx%2hhx-%2hhx%2hhx%2hhx%2hhx%2hhx%2hhx%n", &b[0],
		      &b[1], &b[2], &b[3], &b[4], &b[5], &b[6], &b[7], &b[8], &b[9], &b[10], &b[11], &b[12], &b[13], &b[14],
		      &b[15], &end) == 16 &&
	       text[end] == '\0';
}

const char *stream_guid_to_text(const struct stream_guid *guid, char text[STREAM_GUID_TEXT_BYTES])
{
	const uint8_t *b = guid->b;

	snprintf(text, STREAM_GUID_TEXT_BYTES, "%02x%02x%02x%02x-%02x%02x-%02x%02x-%02x%02x-%02x%02x%02x%02x%02x%02x", b[0],
		 b[1], b[2], b[3], b[4], b[5], b[6], b[7], b[8], b[9], b[10], b[11], b[12], b[13], b[14], b[15]);
	return text;
}

bool stream_policy_from_text(const char *text, struct stream_begin *begin)
{
	unsigned int copies;

	begin->k = 1;
	begin->m = 0;
	if (strcmp(text, "plain") == 0)
		return true;
	if (sscanf(text, "mirror%u", &copies) == 1 && copies > 1) {
		begin->m = copies - 1;
		return true;
	}
	return sscanf(text, "ec:%u+%u", &begin->k, &begin->m) == 2 && begin->k > 0;
}

const char *stream_policy_to_text(const struct stream_begin *begin, char text[STREAM_POLICY_TEXT_BYTES])
{
	if (begin->k > 1)
		snprintf(text, STREAM_POLICY_TEXT_BYTES, "ec:%u+%u", begin->k, begin->m);
	else
		snprintf(text, STREAM_POLICY_TEXT_BYTES, begin->m > 0 ? "mirror%u" : "plain", begin->m + 1);
	return text;
}
