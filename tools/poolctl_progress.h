/* How far a long command is: one line on standard error, written again and again, if that is a terminal. */
#ifndef TOOLS_POOLCTL_PROGRESS_H
#define TOOLS_POOLCTL_PROGRESS_H

#include <stdbool.h>
#include <stdint.h>

struct progress {
	bool on;
	uint64_t since_ns, shown_ns; /* 0: not yet */
	int width;                   /* of what stands there */
};

void progress_init(struct progress *progress);
/* `done` of `total` (0: nobody knows), and how many bytes went in all; what: "send tank/web0@mon". Shows it now and then. */
void progress_show(struct progress *progress, const char *what, uint64_t done, uint64_t total, uint64_t moved_bytes);
/* Takes the line away. */
void progress_end(struct progress *progress);

#endif
