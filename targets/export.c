/* What all kinds of exports have in common: see export.h, and export_int.h for how to add one. */
#include "targets/export_int.h"

#include <stdio.h>

/* At most one line of an export in this time. */
#define LOG_GAP_NS 1000000000ull

static void (*log_hook)(const char *line);

void export_set_log(void (*log)(const char *line))
{
	log_hook = log;
}

void export_log(struct export *exp, struct loop *loop, const char *text)
{
	uint64_t now_ns = loop_now_ns(loop);
	char line[320];

	if (exp->logged_ns > 0 && now_ns - exp->logged_ns < LOG_GAP_NS) {
		exp->unlogged++;
		return;
	}
	snprintf(line, sizeof(line), "export '%.120s': %s", exp->address, text);
	if (exp->unlogged > 0)
		snprintf(line, sizeof(line), "export '%.120s': %s (and %llu lines like this before)", exp->address,
			 text, (unsigned long long)exp->unlogged);
	exp->logged_ns = now_ns;
	exp->unlogged = 0;
	if (log_hook)
		log_hook(line);
}

void export_stop(struct export *exp)
{
	exp->ops->stop(exp);
}

void export_get_info(struct export *exp, struct export_info *info)
{
	*info = (struct export_info){ .kind = exp->ops->kind, .address = exp->address };
	exp->ops->get_info(exp, info);
}
