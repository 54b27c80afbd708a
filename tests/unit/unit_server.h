/* Servers that a unit test runs beside itself. Any function fails the test if it cannot do its work. */
#ifndef TESTS_UNIT_UNIT_SERVER_H
#define TESTS_UNIT_UNIT_SERVER_H

#include <stdbool.h>
#include <sys/types.h>

/* Whether a program is installed. */
bool unit_has(const char *program);

/* Starts a program whose arguments are the words of `command` (printf), in a process that dies with this one. What it prints
 * goes to $UNIT_SERVER_LOG, or nowhere. */
pid_t unit_server_start(const char *command, ...) __attribute__((format(printf, 1, 2)));
/* Sends the signal and, if it is SIGKILL or SIGTERM, waits for the end; if SIGSTOP, until it
 * stands still. */
void unit_server_signal(pid_t pid, int signal);
/* Waits until something listens on a Unix socket, for 10 s at most. */
void unit_server_wait_unix(const char *path);
/* The same on a TCP port of 127.0.0.1. */
void unit_server_wait_port(int port);
/* A TCP port that nobody uses now. */
int unit_server_free_port(void);
/* Runs a command of the shell to its end; true if it succeeds. */
bool unit_shell(const char *command, ...) __attribute__((format(printf, 1, 2)));

#endif
