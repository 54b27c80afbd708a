/* The progress line: see poolctl_progress.h. */
#include "tools/poolctl_progress.h"

#include <stdio.h>
#include <time.h>
#include <unistd.h>

#include "pool/base/size.h"

#define SHOW_NS 200000000ull
#define BAR_CHARS 30

static uint64_t now_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000000000ull + (uint64_t)now.tv_nsec;
}

void progress_init(struct progress *progress)
{
	*progress = (struct progress){ .on = isatty(STDERR_FILENO), .since_ns = now_ns() };
}

static int put_bar(uint64_t done, uint64_t total)
{
	double part = done < total ? (double)done / (double)total : 1;
	char bar[BAR_CHARS + 1];

	for (int i = 0; i < BAR_CHARS; i++)
		bar[i] = i < part * BAR_CHARS ? '#' : '.';
	bar[BAR_CHARS] = '\0';
	return fprintf(stderr, " [%s] %3.0f%%", bar, part * 100);
}

void progress_show(struct progress *progress, const char *what, uint64_t done, uint64_t total, uint64_t moved_bytes)
{
	uint64_t now = now_ns();
	char moved[SIZE_TEXT_BYTES], rate[SIZE_TEXT_BYTES];
	int width;

	if (!progress->on || now - progress->shown_ns < SHOW_NS)
		return;
	progress->shown_ns = now;
	width = fprintf(stderr, "\r%s", what);
	if (total > 0)
		width += put_bar(done, total);
	width += fprintf(stderr, " %s, %s/s", size_to_text(moved_bytes, moved),
			 size_to_text((uint64_t)((double)moved_bytes * 1e9 / (double)(now - progress->since_ns + 1)), rate));
	fprintf(stderr, "%*s", progress->width > width ? progress->width - width : 0, "");
	progress->width = width;
	fflush(stderr);
}

void progress_end(struct progress *progress)
{
	if (progress->width > 0)
		fprintf(stderr, "\r%*s\r", progress->width + 1, "");
	progress->width = 0;
}
