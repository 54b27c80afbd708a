/* One line to stderr for each event of the daemon's life. The data path never logs: it counts. Any thread. */
#ifndef TOOLS_LOG_H
#define TOOLS_LOG_H

/* X(name, text), most severe first. */
#define LOG_LEVELS(X)      \
	X(ERROR, "error")  \
	X(WARN, "warning") \
	X(INFO, "info")    \
	X(DEBUG, "debug")

enum log_level {
#define X(name, text) LOG_LEVEL_##name,
	LOG_LEVELS(X)
#undef X
};
#define LOG_LEVEL_COUNT (LOG_LEVEL_DEBUG + 1)

/* Lines less severe than this are dropped. Set before threads start; LOG_LEVEL_INFO until then. */
void log_set_level(enum log_level level);
/* The level of that name, or -EINVAL. */
int log_level_parse(const char *text);
const char *log_level_text(enum log_level level);

void log_write(enum log_level level, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

#define log_error(...) log_write(LOG_LEVEL_ERROR, __VA_ARGS__)
#define log_warn(...) log_write(LOG_LEVEL_WARN, __VA_ARGS__)
#define log_info(...) log_write(LOG_LEVEL_INFO, __VA_ARGS__)
#define log_debug(...) log_write(LOG_LEVEL_DEBUG, __VA_ARGS__)

#endif
