/* What can be seen of the server from outside: is it alive, how much CPU has it used, does it leak. From /proc. */
#ifndef TESTS_CLIENT_SERVER_PROC_H
#define TESTS_CLIENT_SERVER_PROC_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

/* Running or sleeping; a zombie is dead. */
bool server_is_alive(pid_t pid);
/* CPU time of all its threads, or 0 if unknown. */
uint64_t server_cpu_ns(pid_t pid);
/* Open descriptors, or -1. */
int server_fds(pid_t pid);
/* Mappings of memory files with this name (as given to memfd_create), or -1. */
int server_mappings(pid_t pid, const char *memfd_name);

#endif
