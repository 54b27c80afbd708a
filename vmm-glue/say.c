/* Lines for people. See say.h. */
#include "vmm-glue/say.h"

#include <stdarg.h>
#include <stdio.h>

void vmm_say(const char *fmt, ...)
{
	char line[400];
	va_list args;

	va_start(args, fmt);
	vsnprintf(line, sizeof(line), fmt, args);
	va_end(args);
	fprintf(stderr, "poolvm: %s\n", line);
}
