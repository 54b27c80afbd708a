/* A client of poold's control socket that keeps no rules; control-hostile.sh builds and uses it.
 *
 *	control_client SOCKET send WAIT_MS      sends stdin, prints what comes until the peer closes (then "closed" on
 *	                                        stderr) or is silent for WAIT_MS
 *	control_client SOCKET deaf WAIT_MS      sends stdin and reads nothing, until the peer closes ("closed") or nothing
 *	                                        happens for WAIT_MS
 *	control_client SOCKET many COUNT MS     opens COUNT connections at once and sends a request on each; prints how many
 *	                                        were answered within MS
 *	control_client SOCKET hold COUNT MS     opens COUNT connections, says nothing, closes after MS */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#define INPUT_BYTES_MAX (8u << 20)
#define CONNS_MAX 4096

static const char request[] = "{\"jsonrpc\": \"2.0\", \"method\": \"status\", \"id\": 1}\n";

static void __attribute__((noreturn)) die(const char *what)
{
	perror(what);
	exit(1);
}

static long now_ms(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

static int open_connection(const char *path)
{
	struct sockaddr_un addr = { .sun_family = AF_UNIX };
	int fd = socket(AF_UNIX, SOCK_STREAM, 0);

	if (fd < 0)
		die("socket");
	snprintf(addr.sun_path, sizeof(addr.sun_path), "%s", path);
	if (connect(fd, (struct sockaddr *)&addr, sizeof(addr)) != 0)
		die("connect");
	fcntl(fd, F_SETFL, O_NONBLOCK);
	return fd;
}

/* Prints what there is. False: the peer has closed. */
static bool print_some(int fd)
{
	char buf[65536];
	ssize_t got = recv(fd, buf, sizeof(buf), 0);

	if (got > 0)
		fwrite(buf, 1, (size_t)got, stdout);
	return got > 0 || (got < 0 && errno == EAGAIN);
}

/* Sends until all is sent, nothing moves for wait_ms, or the peer closes. Prints what comes, unless deaf. */
static void send_all(int fd, const char *text, size_t len, int wait_ms, bool deaf)
{
	struct pollfd pfd = { .fd = fd, .events = (short)(POLLOUT | (deaf ? 0 : POLLIN)) };
	size_t sent = 0;

	while (sent < len && poll(&pfd, 1, wait_ms) > 0) {
		ssize_t put;

		if ((pfd.revents & POLLIN) && !print_some(fd))
			return;
		put = send(fd, text + sent, len - sent, MSG_NOSIGNAL);
		if (put < 0 && errno != EAGAIN)
			return;
		sent += put > 0 ? (size_t)put : 0;
	}
}

/* Until the peer closes (true) or is silent for wait_ms. */
static bool wait_for_end(int fd, int wait_ms, bool deaf)
{
	struct pollfd pfd = { .fd = fd, .events = deaf ? 0 : POLLIN };

	while (poll(&pfd, 1, wait_ms) > 0) {
		if (deaf || !print_some(fd))
			return true;
	}
	return false;
}

static int send_and_print(const char *path, int wait_ms, bool deaf)
{
	char *text = malloc(INPUT_BYTES_MAX);
	size_t len = text ? fread(text, 1, INPUT_BYTES_MAX, stdin) : 0;
	int fd = open_connection(path);

	send_all(fd, text, len, wait_ms, deaf);
	if (wait_for_end(fd, wait_ms, deaf))
		fprintf(stderr, "closed\n");
	free(text);
	return 0;
}

/* Reads one answer from each connection; returns how many came. */
static int count_answers(struct pollfd *conns, int count, long until_ms)
{
	int answered = 0, left = count;

	while (left > 0 && now_ms() < until_ms) {
		poll(conns, (nfds_t)count, 100);
		for (int i = 0; i < count; i++) {
			char buf[65536];

			if (conns[i].fd < 0 || !conns[i].revents)
				continue;
			answered += recv(conns[i].fd, buf, sizeof(buf), 0) > 0;
			close(conns[i].fd);
			conns[i].fd = -1;
			left--;
		}
	}
	return answered;
}

static int open_many(const char *path, int count, int ms, bool ask)
{
	static struct pollfd conns[CONNS_MAX];
	struct rlimit limit = { CONNS_MAX + 16, CONNS_MAX + 16 };
	long until_ms = now_ms() + ms;

	setrlimit(RLIMIT_NOFILE, &limit);
	for (int i = 0; i < count && i < CONNS_MAX; i++) {
		conns[i] = (struct pollfd){ .fd = open_connection(path), .events = POLLIN };
		if (ask && send(conns[i].fd, request, strlen(request), MSG_NOSIGNAL) < 0)
			die("send");
	}
	printf("connected\n");
	fflush(stdout);
	if (ask)
		printf("%d\n", count_answers(conns, count, until_ms));
	else
		usleep((useconds_t)ms * 1000);
	return 0;
}

int main(int argc, char **argv)
{
	if (argc == 4 && strcmp(argv[2], "send") == 0)
		return send_and_print(argv[1], atoi(argv[3]), false);
	if (argc == 4 && strcmp(argv[2], "deaf") == 0)
		return send_and_print(argv[1], atoi(argv[3]), true);
	if (argc == 5 && strcmp(argv[2], "many") == 0)
		return open_many(argv[1], atoi(argv[3]), atoi(argv[4]), true);
	if (argc == 5 && strcmp(argv[2], "hold") == 0)
		return open_many(argv[1], atoi(argv[3]), atoi(argv[4]), false);
	fprintf(stderr, "usage: control_client SOCKET send|deaf WAIT_MS | many|hold COUNT MS\n");
	return 2;
}
