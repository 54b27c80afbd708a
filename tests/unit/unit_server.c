/* Servers beside a unit test: see unit_server.h. */
#include "tests/unit/unit_server.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/unit/unit.h"

#define ARGS_MAX 64
#define TRIES 1000
#define TRY_US 10000

bool unit_shell(const char *command, ...)
{
	char text[4096];
	va_list args;

	va_start(args, command);
	assert_in_range(vsnprintf(text, sizeof(text), command, args), 1, sizeof(text) - 1);
	va_end(args);
	return system(text) == 0;
}

bool unit_has(const char *program)
{
	return unit_shell("PATH=$PATH:/usr/sbin command -v %s >/dev/null", program);
}

static void run_words(char *command)
{
	const char *log = getenv("UNIT_SERVER_LOG"), *path = getenv("PATH");
	char *args[ARGS_MAX + 1], *save = NULL, search[4096];
	int count = 0, out = open(log ? log : "/dev/null", O_WRONLY | O_CREAT | O_APPEND, 0600);

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	for (char *word = strtok_r(command, " ", &save); word && count < ARGS_MAX; word = strtok_r(NULL, " ", &save))
		args[count++] = word;
	args[count] = NULL;
	dup2(out, STDOUT_FILENO);
	dup2(out, STDERR_FILENO);
	snprintf(search, sizeof(search), "%s:/usr/sbin", path ? path : "/usr/bin");
	setenv("PATH", search, 1);
	execvp(args[0], args);
	_exit(127);
}

pid_t unit_server_start(const char *command, ...)
{
	char text[4096];
	va_list args;
	pid_t pid;

	va_start(args, command);
	assert_in_range(vsnprintf(text, sizeof(text), command, args), 1, sizeof(text) - 1);
	va_end(args);
	pid = fork();
	assert_true(pid >= 0);
	if (pid == 0)
		run_words(text);
	return pid;
}

void unit_server_signal(pid_t pid, int signal)
{
	assert_int_equal(kill(pid, signal), 0);
	if (signal == SIGKILL || signal == SIGTERM)
		assert_int_equal(waitpid(pid, NULL, 0), pid);
	else if (signal == SIGSTOP)
		assert_int_equal(waitpid(pid, NULL, WUNTRACED), pid);
}

void unit_server_wait_unix(const char *path)
{
	struct sockaddr_un addr = { .sun_family = AF_UNIX };

	assert_true(strlen(path) < sizeof(addr.sun_path));
	strcpy(addr.sun_path, path);
	for (int i = 0; i < TRIES; i++) {
		int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
		int ret = connect(fd, (struct sockaddr *)&addr, sizeof(addr));

		close(fd);
		if (ret == 0)
			return;
		usleep(TRY_US);
	}
	fail_msg("nothing listens on '%s'", path);
}

static int bound_socket(struct sockaddr_in *addr, int port)
{
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	assert_true(fd >= 0);
	*addr = (struct sockaddr_in){ .sin_family = AF_INET,
				      .sin_addr.s_addr = htonl(INADDR_LOOPBACK),
				      .sin_port = htons((uint16_t)port) };
	return fd;
}

void unit_server_wait_port(int port)
{
	for (int i = 0; i < TRIES; i++) {
		struct sockaddr_in addr;
		int fd = bound_socket(&addr, port), ret = connect(fd, (struct sockaddr *)&addr, sizeof(addr));

		close(fd);
		if (ret == 0)
			return;
		usleep(TRY_US);
	}
	fail_msg("nothing listens on port %d", port);
}

int unit_server_free_port(void)
{
	struct sockaddr_in addr;
	socklen_t len = sizeof(addr);
	int fd = bound_socket(&addr, 0);

	assert_int_equal(bind(fd, (struct sockaddr *)&addr, sizeof(addr)), 0);
	assert_int_equal(getsockname(fd, (struct sockaddr *)&addr, &len), 0);
	close(fd);
	return ntohs(addr.sin_port);
}
