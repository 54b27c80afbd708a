/* What poold is told at its start: command line and configuration file. One table (config.c) names every option; it
 * gives the command line, the file's keys and the help. */
#ifndef TOOLS_CONFIG_H
#define TOOLS_CONFIG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "pool/base/err.h"
#include "tools/log.h"

#define CONFIG_SOCKET_DEFAULT "/run/poold/poold.sock"
#define CONFIG_STATE_DEFAULT "/var/lib/poold"
#define CONFIG_CORES_MAX 64

struct config {
	char *socket, *state, *file; /* owned */
	int cpus[CONFIG_CORES_MAX];  /* one reactor each; -1: not pinned */
	uint32_t cpu_count;          /* >= 1 */
	bool test_faults;
	uint64_t map_cache_bytes, overlay_entries, checkpoint_log_bytes; /* 0: the engine's default */
	uint64_t spare_after_s;      /* 0: the engine's default */
	uint64_t scrub_every_s;      /* 0: only when asked to */
	enum log_level log_level;
	bool show_help, show_version;
};

/* Defaults, then the file named by --config, then the command line. -EINVAL and a message on anything unknown or wrong.
 * config_release in any case. */
int config_read(struct config *config, int argc, char **argv, struct err *err) __attribute__((warn_unused_result));
void config_release(struct config *config);
/* The options' part of --help, on stdout. */
void config_print_options(void);

/* For tests: the options in the text of a configuration file. */
int config_from_text(struct config *config, const char *text, size_t len_bytes, struct err *err)
	__attribute__((warn_unused_result));

#endif
