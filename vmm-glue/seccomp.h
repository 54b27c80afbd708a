/* Confinement: from here on only the system calls that a running VM needs. */
#ifndef VMM_SECCOMP_H
#define VMM_SECCOMP_H

#include "pool/base/err.h"

/* For all threads of the process, for ever; another call ends the process. No new privileges either. */
int seccomp_confine(struct err *err) __attribute__((warn_unused_result));

#endif
