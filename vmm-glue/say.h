/* One line to stderr for each event of a VM's life. Any thread. */
#ifndef VMM_SAY_H
#define VMM_SAY_H

void vmm_say(const char *fmt, ...) __attribute__((format(printf, 1, 2)));

#endif
