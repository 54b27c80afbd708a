/* What poolctl send and recv share: how the daemon's JSON calls what a stream has in binary. */
#ifndef TOOLS_POOLCTL_STREAM_H
#define TOOLS_POOLCTL_STREAM_H

#include "snapshots/stream.h"

#define STREAM_GUID_TEXT_BYTES 37
#define STREAM_POLICY_TEXT_BYTES 24

/* False: it is none. */
bool stream_guid_from_text(const char *text, struct stream_guid *guid);
const char *stream_guid_to_text(const struct stream_guid *guid, char text[STREAM_GUID_TEXT_BYTES]);
/* k and m. */
bool stream_policy_from_text(const char *text, struct stream_begin *begin);
const char *stream_policy_to_text(const struct stream_begin *begin, char text[STREAM_POLICY_TEXT_BYTES]);

#endif
