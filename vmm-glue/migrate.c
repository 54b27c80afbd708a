/* Moving a VM. See migrate.h.
 *
 * To a Unix socket, memory is handed over as it is, by its descriptor. To a TCP socket or a file it is copied while the
 * guest runs: first all that was ever used, then in rounds what was written meanwhile. Disks are held from the first
 * page on: a back end writes to guest memory without KVM's dirty log seeing it. Then, for both:
 *
 *      source                                        destination
 *      0  what machine it is  --------------------->  make the same one
 *                                              <---  READY
 *      1  pause: vCPUs, then rings (drained)
 *      2  let back ends and taps go
 *      3  the last pages, chips, devices, END  --->  check everything; connect to back ends; load
 *      4                                       <---  READY
 *      5  GO  ------------------------------------>
 *      6  end                                  <---  run; RUNNING
 *
 * Who runs the VM: the source until it has sent GO, the destination once it has received GO. Before 5 any failure makes the
 * source take back its back ends and go on, and the destination leave. If GO or RUNNING is lost on the way, the
 * source knows only that the destination may run: it stays stopped and says so (VM_MOVE_UNKNOWN). So never do both run.
 *
 * Whoever starts the disks' rings after 5 has them: the back end lets one front end write, and the other one ends when it hears
 * that (-ESTALE). So to take the VM back in doubt does no harm; where the destination runs, it is refused.
 *
 * A file is complete, and flushed, before it gets its name. */
#include "vmm-glue/migrate.h"

#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include "vmm-glue/say.h"
#include "vmm-glue/state.h"

/* Copying goes on until so little is left, or so many rounds did not get there. */
#define LEFT_PAGES_MAX 256u
#define ROUNDS_MAX 16u
#define CONNECT_TRIES 100
#define CONNECT_RETRY_US 20000

/* ---- addresses ---- */

static int unix_address(const char *path, struct sockaddr_un *addr, struct err *err)
{
	*addr = (struct sockaddr_un){ .sun_family = AF_UNIX };
	if (strlen(path) >= sizeof(addr->sun_path))
		return err_set(err, -ENAMETOOLONG, "the path '%s' is too long for a socket", path);
	strcpy(addr->sun_path, path);
	return 0;
}

/* "ADDRESS:PORT", an IPv6 address in brackets. Numbers only: no name service is asked. */
static int tcp_address(const char *text, struct sockaddr_storage *addr, socklen_t *len, struct err *err)
{
	const struct addrinfo hints = { .ai_flags = AI_NUMERICHOST | AI_NUMERICSERV, .ai_socktype = SOCK_STREAM };
	const char *colon = strrchr(text, ':');
	struct addrinfo *info = NULL;
	char host[64];
	int bytes = colon ? (int)(colon - text) : 0;
	bool brackets = bytes > 2 && text[0] == '[' && colon[-1] == ']';

	snprintf(host, sizeof(host), "%.*s", brackets ? bytes - 2 : bytes, text + brackets);
	if (!colon || getaddrinfo(host, colon + 1, &hints, &info) != 0)
		return err_set(err, -EINVAL, "'%s' is not a numeric ADDRESS:PORT", text);
	memcpy(addr, info->ai_addr, info->ai_addrlen);
	*len = info->ai_addrlen;
	freeaddrinfo(info);
	return 0;
}

/* A socket for "unix:PATH" or "tcp:ADDRESS:PORT", and where it goes. */
static int make_socket(const char *address, struct sockaddr_storage *addr, socklen_t *len, struct err *err)
{
	int rc, fd;

	if (strncmp(address, "unix:", 5) == 0) {
		rc = unix_address(address + 5, (struct sockaddr_un *)addr, err);
		*len = sizeof(struct sockaddr_un);
	} else if (strncmp(address, "tcp:", 4) == 0) {
		rc = tcp_address(address + 4, addr, len, err);
	} else {
		rc = err_set(err, -EINVAL, "'%s' is neither unix:PATH nor tcp:ADDRESS:PORT", address);
	}
	if (rc < 0)
		return rc;
	fd = socket(addr->ss_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
	return fd < 0 ? err_set(err, -errno, "cannot make a socket: %m") : fd;
}

static int connect_to(const char *address, struct err *err)
{
	struct sockaddr_storage addr;
	socklen_t len;
	int fd = make_socket(address, &addr, &len, err), rc = -ETIMEDOUT;

	if (fd < 0)
		return fd;
	for (int i = 0; i < CONNECT_TRIES; i++) {
		if (connect(fd, (struct sockaddr *)&addr, len) == 0)
			return fd;
		rc = -errno;
		if (rc != -ENOENT && rc != -ECONNREFUSED && rc != -EINTR)
			break;
		usleep(CONNECT_RETRY_US);
	}
	close(fd);
	return err_set(err, rc, "cannot connect to '%s': %s", address, strerror(-rc));
}

/* ---- the source ---- */

static uint64_t now_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec;
}

static bool hands_over_memory(const struct vm *vm)
{
	return !vm->move.to_file && strncmp(vm->move.address, "unix:", 5) == 0;
}

static bool is_cancelled(struct vm *vm)
{
	bool cancel;

	pthread_mutex_lock(&vm->lock);
	cancel = vm->move.cancel;
	pthread_mutex_unlock(&vm->lock);
	return cancel;
}

static void hold_disks(struct vm *vm, bool hold)
{
	for (uint32_t i = 0; i < vm->config.disks; i++)
		virtio_pci_hold(&vm->disk[i].dev, hold);
}

/* Starts the log before the first page is read, so that nothing is missed. */
static int start_log(struct vm *vm, struct err *err)
{
	int rc;

	pthread_mutex_lock(&vm->lock);
	hold_disks(vm, true);
	memset(vm->ram.dirty, 0, vm->ram.dirty_bytes);
	rc = kvm_log_dirty(&vm->kvm, &vm->ram, true);
	pthread_mutex_unlock(&vm->lock);
	return rc < 0 ? err_set(err, rc, "cannot log what the guest writes: %s", strerror(-rc)) : 0;
}

static void stop_log(struct vm *vm)
{
	pthread_mutex_lock(&vm->lock);
	(void)kvm_log_dirty(&vm->kvm, &vm->ram, false);
	pthread_mutex_unlock(&vm->lock);
}

/* Copies until little is left. */
static int copy_live(struct vm *vm, struct stream *stream, struct err *err)
{
	uint64_t pages = LEFT_PAGES_MAX + 1;
	int rc = start_log(vm, err);

	if (rc == 0)
		rc = state_put_memory(vm, stream, err);
	while (rc == 0 && pages > LEFT_PAGES_MAX && vm->move.rounds < ROUNDS_MAX) {
		rc = is_cancelled(vm) ? err_set(err, -ECANCELED, "cancelled")
				      : state_put_dirty(vm, stream, &pages, err);
		vm->move.rounds++;
		vm->move.sent_bytes = stream->put_bytes;
	}
	return rc;
}

/* With the lock. Nothing of the VM moves from here on. */
static int stop(struct vm *vm, struct err *err)
{
	vm_pause(vm);
	vm->move.state = VM_MOVE_STOPPED;
	if (vm->wish != VM_WISH_NONE || vm->ending)
		return err_set(err, -ECANCELED, "the guest is about to end or to reset itself");
	if (vm->move.cancel)
		return err_set(err, -ECANCELED, "cancelled");
	for (uint32_t i = 0; i < vm->config.disks; i++)
		if (!virtio_blk_is_quiet(&vm->disk[i]))
			return err_set(err, -EBUSY, "disk '%s' has lost its back end in the middle of requests",
				       vm->disk[i].vhost.path);
	return 0;
}

static void detach(struct vm *vm)
{
	for (uint32_t i = 0; i < vm->config.disks; i++)
		virtio_blk_detach(&vm->disk[i]);
	for (uint32_t i = 0; i < vm->config.nets; i++)
		virtio_net_detach(&vm->net[i]);
}

static void attach(struct vm *vm)
{
	struct err err;

	for (uint32_t i = 0; i < vm->config.disks; i++)
		virtio_blk_attach(&vm->disk[i]);
	for (uint32_t i = 0; i < vm->config.nets; i++)
		if (virtio_net_attach(&vm->net[i], &err) < 0)
			vmm_say("%s", err.msg);
}

static int put_rest(struct vm *vm, struct stream *stream, struct err *err)
{
	uint64_t pages;
	int rc = hands_over_memory(vm) ? 0 : state_put_dirty(vm, stream, &pages, err);

	if (rc == 0)
		rc = state_put_devices(vm, stream, err);
	vm->move.sent_bytes = stream->put_bytes;
	return rc;
}

static int expect(struct stream *stream, enum stream_type type, struct err *err)
{
	int got = stream_get(stream, err);

	if (got == STREAM_FAILED)
		return err_set(err, -ECANCELED, "the destination refuses: %.*s", (int)stream->len_bytes,
			       (char *)stream->payload);
	return got < 0            ? got
	       : got == (int)type ? 0
				  : err_set(err, -EPROTO, "the destination does not follow the protocol");
}

/* Waits for READY without the lock, so that the VM's user still gets answers. */
static int wait_ready(struct vm *vm, struct stream *stream, struct err *err)
{
	int rc;

	pthread_mutex_unlock(&vm->lock);
	rc = expect(stream, STREAM_READY, err);
	pthread_mutex_lock(&vm->lock);
	return rc == 0 && vm->move.cancel ? err_set(err, -ECANCELED, "cancelled") : rc;
}

/* The point of no return, and what comes after it. */
static void hand_over(struct vm *vm, struct stream *stream, uint64_t since_ns)
{
	struct err err;
	int rc;

	vm->move.state = VM_MOVE_UNKNOWN;
	rc = stream_put(stream, STREAM_GO, NULL, 0, NULL, 0, -1, &err);
	pthread_mutex_unlock(&vm->lock);
	if (rc == 0)
		rc = expect(stream, STREAM_RUNNING, &err);
	pthread_mutex_lock(&vm->lock);
	vm->move.pause_ns = now_ns() - since_ns;
	if (rc < 0) {
		vm->move.err = err;
		vmm_say("it is not known whether the VM runs at '%s' (%s): it stays stopped here", vm->move.address,
			err.msg);
		return;
	}
	vm->move.state = VM_MOVE_DONE;
	vmm_say("the VM runs at '%s'; it stood still for %.1f ms", vm->move.address, (double)vm->move.pause_ns / 1e6);
	vm_end(vm, 0);
}

static int finish_file(struct vm *vm, struct stream *stream, const char *partial, struct err *err)
{
	if (fsync(stream->fd) < 0 || rename(partial, vm->move.address) < 0)
		return err_set(err, -errno, "cannot complete '%s': %m", vm->move.address);
	return 0;
}

/* From the pause on. With the lock. 0: the VM is no longer ours, or is saved. */
static int stop_and_put(struct vm *vm, struct stream *stream, struct err *err)
{
	uint64_t since_ns = now_ns();
	int rc = stop(vm, err);

	if (rc == 0 && !vm->move.to_file)
		detach(vm);
	if (rc == 0)
		rc = put_rest(vm, stream, err);
	if (rc == 0 && !vm->move.to_file)
		rc = wait_ready(vm, stream, err);
	if (rc == 0 && !vm->move.to_file) {
		hand_over(vm, stream, since_ns);
		return 0;
	}
	if (!vm->move.to_file)
		attach(vm);
	hold_disks(vm, false);
	vm_resume(vm);
	vm->move.pause_ns = now_ns() - since_ns;
	return rc;
}

static int put_all(struct vm *vm, struct stream *stream, struct err *err)
{
	bool share = hands_over_memory(vm);
	int rc = state_put_machine(vm, stream, share, err);

	if (rc == 0 && stream->is_socket)
		rc = expect(stream, STREAM_READY, err);
	if (rc == 0 && !share)
		rc = copy_live(vm, stream, err);
	pthread_mutex_lock(&vm->lock);
	if (rc == 0)
		rc = stop_and_put(vm, stream, err);
	else
		hold_disks(vm, false);
	pthread_mutex_unlock(&vm->lock);
	if (!share)
		stop_log(vm);
	return rc;
}

static int save(struct vm *vm, struct err *err)
{
	char partial[sizeof(vm->move.address) + 16];
	struct stream stream;
	int fd, rc;

	snprintf(partial, sizeof(partial), "%s.partial", vm->move.address);
	fd = open(partial, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	if (fd < 0)
		return err_set(err, -errno, "cannot create '%s': %m", partial);
	rc = stream_open(&stream, fd, false, err);
	if (rc == 0)
		rc = put_all(vm, &stream, err);
	if (rc == 0)
		rc = finish_file(vm, &stream, partial, err);
	stream_close(&stream);
	if (rc < 0)
		unlink(partial);
	return rc;
}

static int migrate(struct vm *vm, struct err *err)
{
	struct stream stream;
	struct err ignored;
	int rc, fd = connect_to(vm->move.address, err);

	if (fd < 0)
		return fd;
	rc = stream_open(&stream, fd, true, err);
	if (rc == 0)
		rc = put_all(vm, &stream, err);
	/* So that it does not wait for what does not come. */
	if (rc < 0 && stream.payload)
		(void)!stream_put(&stream, STREAM_FAILED, err->msg, (uint32_t)strlen(err->msg), NULL, 0, -1, &ignored);
	stream_close(&stream);
	return rc;
}

static void *move_main(void *arg)
{
	struct vm *vm = arg;
	struct err err = { "" };
	int rc = vm->move.to_file ? save(vm, &err) : migrate(vm, &err);

	pthread_mutex_lock(&vm->lock);
	if (rc < 0) {
		vm->move.state = VM_MOVE_FAILED;
		vm->move.err = err;
		vmm_say("the VM stays here: %s", err.msg);
	} else if (vm->move.to_file) {
		vm->move.state = VM_MOVE_DONE;
	}
	pthread_mutex_unlock(&vm->lock);
	return NULL;
}

bool vm_is_moving(const struct vm *vm)
{
	return vm->move.state == VM_MOVE_COPYING || vm->move.state == VM_MOVE_STOPPED;
}

static int begin(struct vm *vm, const char *address, bool to_file, struct err *err)
{
	int rc;

	if (vm_is_moving(vm) || vm->move.state == VM_MOVE_UNKNOWN)
		return err_set(err, -EBUSY, "the VM is already being saved or moved");
	if (strlen(address) >= sizeof(vm->move.address))
		return err_set(err, -ENAMETOOLONG, "'%s' is too long", address);
	if (vm->move.has_thread)
		pthread_join(vm->move.thread, NULL);
	vm->move = (struct vm_move){ .state = VM_MOVE_COPYING, .to_file = to_file };
	strcpy(vm->move.address, address);
	rc = pthread_create(&vm->move.thread, NULL, move_main, vm);
	vm->move.has_thread = rc == 0;
	if (rc != 0) {
		vm->move.state = VM_MOVE_FAILED;
		return err_set(err, -rc, "cannot start a thread: %s", strerror(rc));
	}
	return 0;
}

int vm_save_begin(struct vm *vm, const char *path, struct err *err)
{
	return begin(vm, path, true, err);
}

int vm_migrate_begin(struct vm *vm, const char *address, struct err *err)
{
	return begin(vm, address, false, err);
}

int vm_move_cancel(struct vm *vm, struct err *err)
{
	if (!vm_is_moving(vm))
		return err_set(err, -EALREADY, "there is nothing to cancel any more");
	vm->move.cancel = true;
	return 0;
}

int vm_take_back(struct vm *vm, struct err *err)
{
	if (vm->move.state != VM_MOVE_UNKNOWN)
		return err_set(err, -EALREADY, "there is nothing to take back");
	vm->move.state = VM_MOVE_FAILED;
	attach(vm);
	hold_disks(vm, false);
	vm_resume(vm);
	return 0;
}

void vm_move_join(struct vm *vm)
{
	pthread_mutex_lock(&vm->lock);
	vm->move.cancel = true;
	pthread_mutex_unlock(&vm->lock);
	if (vm->move.has_thread)
		pthread_join(vm->move.thread, NULL);
	vm->move.has_thread = false;
}

/* ---- the destination ---- */

int vm_incoming_accept(struct stream *stream, const char *address, struct err *err)
{
	struct sockaddr_storage addr;
	socklen_t len;
	int fd = -1, on = 1, listener = make_socket(address, &addr, &len, err);

	*stream = (struct stream){ .fd = -1, .got_fd = -1 };
	if (listener < 0)
		return listener;
	if (addr.ss_family == AF_UNIX)
		unlink(address + 5);
	setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
	if (bind(listener, (struct sockaddr *)&addr, len) == 0 && listen(listener, 1) == 0)
		fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
	if (fd < 0)
		err_set(err, -errno, "cannot be reached at '%s': %m", address);
	close(listener);
	if (addr.ss_family == AF_UNIX)
		unlink(address + 5);
	return fd < 0 ? -EIO : stream_open(stream, fd, true, err);
}

int vm_incoming_open(struct stream *stream, const char *path, struct err *err)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);

	*stream = (struct stream){ .fd = -1, .got_fd = -1 };
	return fd < 0 ? err_set(err, -errno, "cannot open '%s': %m", path) : stream_open(stream, fd, false, err);
}

int vm_incoming_load(struct vm *vm, const struct vm_config *config, struct stream *stream, struct err *err)
{
	struct err ignored;
	int ram_fd, rc = state_get_machine(config, stream, &ram_fd, err);

	if (rc == 0)
		rc = vm_create(vm, config, ram_fd, err);
	else if (ram_fd >= 0)
		close(ram_fd);
	if (rc == 0 && stream->is_socket)
		rc = stream_put(stream, STREAM_READY, NULL, 0, NULL, 0, -1, err);
	if (rc == 0)
		rc = state_load(vm, stream, err);
	if (rc < 0 && stream->is_socket)
		(void)!stream_put(stream, STREAM_FAILED, err->msg, (uint32_t)strlen(err->msg), NULL, 0, -1, &ignored);
	return rc;
}

int vm_incoming_take(struct stream *stream, struct err *err)
{
	int rc = stream_put(stream, STREAM_READY, NULL, 0, NULL, 0, -1, err), type;

	if (rc < 0)
		return rc;
	type = stream_get(stream, err);
	if (type == STREAM_FAILED)
		return err_set(err, -ECANCELED, "the source keeps the VM: %.*s", (int)stream->len_bytes,
			       (char *)stream->payload);
	return type < 0            ? type
	       : type == STREAM_GO ? 0
				   : err_set(err, -EPROTO, "the source does not follow the protocol");
}

void vm_incoming_running(struct stream *stream)
{
	struct err err;

	vmm_say("the VM runs here now");
	if (stream_put(stream, STREAM_RUNNING, NULL, 0, NULL, 0, -1, &err) < 0)
		vmm_say("the source does not hear that the VM runs here: %s", err.msg);
}
