/* poold: the composition root. Reads the options, makes the reactors, and on the first one's loop runs the daemon's life
 * as one fiber: bring up what is recorded, open the control socket, wait for SIGTERM or SIGINT, stop in reverse order.
 *
 * SIGTERM and SIGINT are blocked in all threads and arrive by a signalfd. A second one during the stop ends the process at
 * once, which is safe at any time: nothing acknowledged lives only in memory. */
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include "tools/control.h"
#include "tools/daemon.h"
#include "tools/log.h"
#include "tools/methods.h"
#include "tools/version.h"

#define EXIT_USAGE 2

struct poold {
	struct config config;
	struct daemon daemon;
	struct control *control;
	int signal_fd;
	struct fd_cancel no_more_signals;
	bool hears_second; /* leave_on_signal runs */
	struct reactor *reactors[CONFIG_CORES_MAX];
	struct loop *loops[CONFIG_CORES_MAX];
	pthread_t threads[CONFIG_CORES_MAX];
	uint32_t reactor_count, thread_count;
	int exit_code;
};

/* --- the daemon's life, on loop 0 ------------------------------------------------------------------------- */

/* Waits until a signal came and takes it. */
static int take_signal(struct poold *poold)
{
	struct signalfd_siginfo info;

	while (read(poold->signal_fd, &info, sizeof(info)) != sizeof(info)) {
		int ret = fd_wait(poold->signal_fd, POLLIN, UINT64_MAX, &poold->no_more_signals);

		if (ret < 0)
			return ret;
	}
	return (int)info.ssi_signo;
}

static void leave_on_signal(void *arg)
{
	struct poold *poold = arg;

	if (take_signal(poold) > 0) {
		log_warn("second signal: leaving at once");
		_exit(EXIT_FAILURE);
	}
	poold->hears_second = false;
}

/* The pools are brought up while the control socket is made; commands wait until they are. */
static int start_serving(struct poold *poold, struct err *err)
{
	struct control_opts opts = {
		.socket_path = poold->config.socket,
		.methods = methods,
		.method_count = method_count,
		.context = &poold->daemon,
	};
	int ret;

	fd_cancel_init(&poold->no_more_signals);
	poold->daemon.started_ns = loop_now_ns(poold->loops[0]);
	daemon_restore_begin(&poold->daemon);
	ret = control_open(&opts, &poold->control, err);
	if (ret)
		return ret;
	daemon_restore_wait(&poold->daemon);
	return control_serve(poold->control, err);
}

static void stop_serving(struct poold *poold)
{
	poold->hears_second = fiber_start(poold->loops[0], leave_on_signal, poold) == 0;
	if (poold->control)
		control_stop(poold->control);
	daemon_stop(&poold->daemon);
	fd_cancel(&poold->no_more_signals);
	while (poold->hears_second)
		fiber_yield();
}

static void live(void *arg)
{
	struct poold *poold = arg;
	struct err err;
	int signal_number;

	if (start_serving(poold, &err) != 0) {
		log_error("%s", err.msg);
		poold->exit_code = EXIT_FAILURE;
	} else {
		log_info("poold " POOLD_VERSION " is ready on '%s'", poold->config.socket);
		signal_number = take_signal(poold);
		log_info("stopping on %s", signal_number > 0 ? strsignal(signal_number) : "a lost signalfd");
	}
	stop_serving(poold);
	if (poold->daemon.starting > 0) {
		log_warn("stopped while a pool was being imported");
		_exit(poold->exit_code);
	}
	log_info("stopped");
	reactor_stop(poold->reactors[0]);
}

/* --- reactors and threads --------------------------------------------------------------------------------- */

static int create_reactors(struct poold *poold, struct err *err)
{
	for (; poold->reactor_count < poold->config.cpu_count; poold->reactor_count++) {
		uint32_t i = poold->reactor_count;
		int ret = reactor_create(i, poold->config.cpus[i], &poold->reactors[i], err);

		if (ret)
			return ret;
		poold->loops[i] = reactor_loop(poold->reactors[i]);
	}
	poold->daemon.loops = poold->loops;
	poold->daemon.loop_count = poold->reactor_count;
	return 0;
}

static void *run_reactor(void *reactor)
{
	reactor_run(reactor);
	return NULL;
}

/* Reactor 0 is the main thread's. */
static int start_threads(struct poold *poold, struct err *err)
{
	for (poold->thread_count = 1; poold->thread_count < poold->reactor_count; poold->thread_count++) {
		uint32_t i = poold->thread_count;
		int ret = pthread_create(&poold->threads[i], NULL, run_reactor, poold->reactors[i]);

		if (ret)
			return err_set(err, -ret, "cannot start a thread: %s", strerror(ret));
	}
	return 0;
}

static void stop_threads(struct poold *poold)
{
	for (uint32_t i = 1; i < poold->thread_count; i++) {
		reactor_stop(poold->reactors[i]);
		pthread_join(poold->threads[i], NULL);
	}
}

static int run_reactors(struct poold *poold, struct err *err)
{
	int ret = start_threads(poold, err);

	if (ret == 0) {
		ret = fiber_start(poold->loops[0], live, poold);
		if (ret)
			err_set(err, ret, "no memory");
	}
	if (ret == 0)
		reactor_run(poold->reactors[0]);
	stop_threads(poold);
	return ret;
}

/* --- the process ------------------------------------------------------------------------------------------ */

/* Before any thread is made, so that all inherit it. */
static int set_signals(struct poold *poold, struct err *err)
{
	sigset_t set;

	signal(SIGPIPE, SIG_IGN);
	sigemptyset(&set);
	sigaddset(&set, SIGTERM);
	sigaddset(&set, SIGINT);
	pthread_sigmask(SIG_BLOCK, &set, NULL);
	poold->signal_fd = signalfd(-1, &set, SFD_NONBLOCK | SFD_CLOEXEC);
	if (poold->signal_fd < 0)
		return err_set(err, -errno, "cannot make a signalfd: %m");
	return 0;
}

/* Guests bring many descriptors. */
static void raise_descriptor_limit(void)
{
	struct rlimit limit;

	if (getrlimit(RLIMIT_NOFILE, &limit) != 0)
		return;
	limit.rlim_cur = limit.rlim_max;
	if (setrlimit(RLIMIT_NOFILE, &limit) != 0)
		log_warn("cannot raise the limit of open files: %s", strerror(errno));
}

static void log_of_exports(const char *line)
{
	log_warn("%s", line);
}

static int run(struct poold *poold, struct err *err)
{
	int ret;

	export_set_log(log_of_exports);
	raise_descriptor_limit();
	ret = set_signals(poold, err);
	if (ret)
		return ret;
	ret = daemon_init(&poold->daemon, &poold->config, err);
	if (ret)
		goto close_signals;
	ret = create_reactors(poold, err);
	if (ret == 0)
		ret = run_reactors(poold, err);
	for (uint32_t i = 0; i < poold->reactor_count; i++)
		reactor_destroy(poold->reactors[i]);
	daemon_fini(&poold->daemon);
close_signals:
	close(poold->signal_fd);
	return ret;
}

static void print_help(void)
{
	printf("usage: poold [OPTION]...\n"
	       "Serves pools of disks and the volumes carved from them. poolctl controls it.\n\n");
	config_print_options();
	printf("\npoold(8) tells more.\n");
}

static int read_config(struct poold *poold, int argc, char **argv)
{
	struct err err;

	if (config_read(&poold->config, argc, argv, &err) == 0)
		return 0;
	fprintf(stderr, "poold: %s; 'poold --help' lists the options\n", err.msg);
	return EXIT_USAGE;
}

int main(int argc, char **argv)
{
	static struct poold poold;
	struct err err;

	poold.exit_code = read_config(&poold, argc, argv);
	if (poold.exit_code == 0 && poold.config.show_help) {
		print_help();
	} else if (poold.exit_code == 0 && poold.config.show_version) {
		printf("poold " POOLD_VERSION "\n");
	} else if (poold.exit_code == 0) {
		log_set_level(poold.config.log_level);
		if (run(&poold, &err) != 0) {
			log_error("%s", err.msg);
			poold.exit_code = EXIT_FAILURE;
		}
	}
	config_release(&poold.config);
	return poold.exit_code;
}
