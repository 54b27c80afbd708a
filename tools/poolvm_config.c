/* poolvm's options: see poolvm_config.h. One table gives parsing and help. */
#include "tools/poolvm_config.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "pool/base/size.h"

#define MIB (1ull << 20)
#define MEM_BYTES_MIN (8 * MIB)
#define MEM_BYTES_MAX (1ull << 40)

struct option_def {
	const char *name;
	const char *arg; /* NULL: a flag */
	int (*set)(struct poolvm_config *config, char *value, struct err *err);
	const char *help;
};

/* --- values ----------------------------------------------------------------------------------------------- */

static int read_number(const char *text, uint64_t min, uint64_t max, uint64_t *value, struct err *err)
{
	char *end;

	errno = 0;
	*value = strtoull(text, &end, 10);
	if (errno || end == text || *end || *text == '-' || *value < min || *value > max)
		return err_set(err, -EINVAL, "'%s' is not a number from %llu to %llu", text, (unsigned long long)min,
			       (unsigned long long)max);
	return 0;
}

/* Cuts "value,key=text" behind the value. The text of the key, or NULL if there is none. */
static int cut_key(char *value, const char *key, char **text, struct err *err)
{
	char *comma = strchr(value, ',');
	size_t len = strlen(key);

	*text = NULL;
	if (!comma)
		return 0;
	*comma = 0;
	if (strncmp(comma + 1, key, len) != 0 || comma[1 + len] != '=')
		return err_set(err, -EINVAL, "'%s' is not '%s=...'", comma + 1, key);
	*text = comma + 2 + len;
	return 0;
}

static int set_cpus(struct poolvm_config *config, char *value, struct err *err)
{
	uint64_t cpus;
	int rc = read_number(value, 1, VM_CPUS_MAX, &cpus, err);

	config->vm.cpus = (uint32_t)cpus;
	return rc;
}

static int set_mem(struct poolvm_config *config, char *value, struct err *err)
{
	uint64_t *bytes = &config->vm.mem_bytes;

	if (size_parse(value, bytes) != 0 || *bytes % MIB != 0 || *bytes < MEM_BYTES_MIN || *bytes > MEM_BYTES_MAX)
		return err_set(err, -EINVAL, "'%s' is not a size in whole MiB from 8M to 1T", value);
	return 0;
}

static int set_kernel(struct poolvm_config *config, char *value, struct err *err)
{
	config->kernel = value;
	return 0;
}

static int set_initrd(struct poolvm_config *config, char *value, struct err *err)
{
	config->initrd = value;
	return 0;
}

static int set_cmdline(struct poolvm_config *config, char *value, struct err *err)
{
	config->vm.cmdline = value;
	return 0;
}

static int set_disk(struct poolvm_config *config, char *value, struct err *err)
{
	struct vm_disk_config *disk = &config->vm.disk[config->vm.disks];
	uint64_t queues = 1;
	char *text;
	int rc;

	if (config->vm.disks == VM_DISKS_MAX)
		return err_set(err, -E2BIG, "more than %d disks", VM_DISKS_MAX);
	rc = cut_key(value, "queues", &text, err);
	if (rc == 0 && text)
		rc = read_number(text, 1, VIRTIO_QUEUES_MAX - 1, &queues, err);
	if (rc < 0)
		return rc;
	*disk = (struct vm_disk_config){ value, (uint32_t)queues };
	config->vm.disks++;
	return 0;
}

static int read_mac(const char *text, uint8_t mac[6], struct err *err)
{
	int used = 0;

	if (sscanf(text, "%hhx:%hhx:%hhx:%hhx:%hhx:%hhx%n", &mac[0], &mac[1], &mac[2], &mac[3], &mac[4], &mac[5],
		   &used) != 6 ||
	    text[used] || (mac[0] & 1))
		return err_set(err, -EINVAL, "'%s' is not an address of one network card", text);
	return 0;
}

static int set_net(struct poolvm_config *config, char *value, struct err *err)
{
	struct vm_net_config *net = &config->vm.net[config->vm.nets];
	char *text;
	int rc;

	if (config->vm.nets == VM_NETS_MAX)
		return err_set(err, -E2BIG, "more than %d network cards", VM_NETS_MAX);
	net->tap = value;
	rc = cut_key(value, "mac", &text, err);
	if (rc == 0 && text)
		rc = read_mac(text, net->mac, err);
	/* One of our own: locally administered. */
	if (rc == 0 && !text && getrandom(net->mac, 6, 0) == 6)
		net->mac[0] = (uint8_t)((net->mac[0] & 0xfc) | 2);
	config->vm.nets++;
	return rc;
}

static int set_serial(struct poolvm_config *config, char *value, struct err *err)
{
	if (strcmp(value, "stdio") != 0 && strcmp(value, "none") != 0 && strncmp(value, "unix:", 5) != 0)
		return err_set(err, -EINVAL, "'%s' is none of stdio, none and unix:PATH", value);
	config->serial = value;
	return 0;
}

static int set_rng(struct poolvm_config *config, char *value, struct err *err)
{
	config->vm.rng = true;
	return 0;
}

static int set_balloon(struct poolvm_config *config, char *value, struct err *err)
{
	config->vm.balloon = true;
	return 0;
}

static int set_generation(struct poolvm_config *config, char *value, struct err *err)
{
	int used = 0, count = 0;

	for (; count < VM_GENERATION_BYTES; count++) {
		value += used + (*(value + used) == '-');
		if (sscanf(value, "%2hhx%n", &config->vm.generation[count], &used) != 1 || used != 2)
			break;
	}
	return count == VM_GENERATION_BYTES && !value[used] ? 0 : err_set(err, -EINVAL, "this is not a UUID");
}

static int set_control(struct poolvm_config *config, char *value, struct err *err)
{
	config->control = value;
	return 0;
}

static int set_wait(struct poolvm_config *config, char *value, struct err *err)
{
	uint64_t ms;
	int rc = read_number(value, 0, 3600000, &ms, err);

	config->vm.disk_wait_ms = (uint32_t)ms;
	return rc;
}

static int set_incoming(struct poolvm_config *config, char *value, struct err *err)
{
	config->incoming = value;
	return 0;
}

static int set_restore(struct poolvm_config *config, char *value, struct err *err)
{
	config->restore = value;
	return 0;
}

static int set_no_seccomp(struct poolvm_config *config, char *value, struct err *err)
{
	config->no_seccomp = true;
	return 0;
}

static int set_help(struct poolvm_config *config, char *value, struct err *err)
{
	config->show_help = true;
	return 0;
}

static int set_version(struct poolvm_config *config, char *value, struct err *err)
{
	config->show_version = true;
	return 0;
}

static const struct option_def options[] = {
	{ "kernel", "FILE", set_kernel, "kernel: a 64-bit bzImage, or ELF with a PVH entry" },
	{ "initrd", "FILE", set_initrd, "initial RAM file system" },
	{ "cmdline", "TEXT", set_cmdline, "the kernel's command line" },
	{ "cpus", "N", set_cpus, "processors (1)" },
	{ "mem", "SIZE", set_mem, "memory (256M)" },
	{ "disk", "SOCKET[,queues=N]", set_disk, "a disk served by a vhost-user-blk back end; may be repeated" },
	{ "disk-wait", "MS", set_wait, "how late a back end may be at the start (5000)" },
	{ "net", "TAP[,mac=ADDRESS]", set_net, "a network card on a tap interface; may be repeated" },
	{ "rng", NULL, set_rng, "a random number generator" },
	{ "balloon", NULL, set_balloon, "a balloon: unused memory goes back to the host" },
	{ "serial", "WHERE", set_serial, "COM1: stdio (the default), none, or unix:PATH" },
	{ "generation", "UUID", set_generation, "generation id (random)" },
	{ "control", "PATH", set_control, "control socket" },
	{ "incoming", "ADDRESS", set_incoming, "do not boot: take over a migrating VM at unix:PATH or tcp:HOST:PORT" },
	{ "restore", "FILE", set_restore, "do not boot: go on from a saved state" },
	{ "no-seccomp", NULL, set_no_seccomp, "do not limit system calls; for debugging" },
	{ "help", NULL, set_help, "explain the options" },
	{ "version", NULL, set_version, "tell the version" },
};
#define OPTION_COUNT (sizeof(options) / sizeof(options[0]))

void poolvm_config_print_options(void)
{
	for (size_t i = 0; i < OPTION_COUNT; i++) {
		char left[48];

		snprintf(left, sizeof(left), "--%s%s%s", options[i].name, options[i].arg ? " " : "",
			 options[i].arg ? options[i].arg : "");
		printf("  %-26s %s\n", left, options[i].help);
	}
}

/* --- the command line ------------------------------------------------------------------------------------- */

static const struct option_def *find_option(const char *word)
{
	if (strncmp(word, "--", 2) != 0)
		return NULL;
	for (size_t i = 0; i < OPTION_COUNT; i++)
		if (strcmp(word + 2, options[i].name) == 0)
			return &options[i];
	return NULL;
}

static int read_words(struct poolvm_config *config, int argc, char **argv, struct err *err)
{
	for (int i = 1; i < argc; i++) {
		const struct option_def *def = find_option(argv[i]);
		char *value = NULL;
		int rc;

		if (!def)
			return err_set(err, -EINVAL, "unknown option '%s'", argv[i]);
		if (def->arg && ++i == argc)
			return err_set(err, -EINVAL, "option '--%s' needs a value: %s", def->name, def->arg);
		if (def->arg)
			value = argv[i];
		if (value && !*value && def->set != set_cmdline)
			return err_set(err, -EINVAL, "option '--%s' is empty", def->name);
		rc = def->set(config, value, err);
		if (rc < 0)
			return err_prefix(err, rc, "option '--%s'", def->name);
	}
	return 0;
}

/* --- files ------------------------------------------------------------------------------------------------ */

static int open_file(const char *path, const char *what, int *fd, struct err *err)
{
	if (!path)
		return 0;
	*fd = open(path, O_RDONLY | O_CLOEXEC);
	return *fd < 0 ? err_set(err, -errno, "cannot open %s '%s': %m", what, path) : 0;
}

static int listen_at(const char *path, int *fd, struct err *err)
{
	struct sockaddr_un addr = { .sun_family = AF_UNIX };

	if (strlen(path) >= sizeof(addr.sun_path))
		return err_set(err, -ENAMETOOLONG, "the path '%s' is too long for a socket", path);
	strcpy(addr.sun_path, path);
	unlink(path);
	*fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (*fd < 0 || bind(*fd, (struct sockaddr *)&addr, sizeof(addr)) < 0 || listen(*fd, 4) < 0)
		return err_set(err, -errno, "cannot listen on '%s': %m", path);
	return 0;
}

static int open_serial(struct poolvm_config *config, struct err *err)
{
	if (strncmp(config->serial, "unix:", 5) == 0)
		return listen_at(config->serial + 5, &config->vm.serial_listen_fd, err);
	if (strcmp(config->serial, "stdio") == 0) {
		config->vm.serial_in_fd = STDIN_FILENO;
		config->vm.serial_out_fd = STDOUT_FILENO;
	}
	return 0;
}

static int check(const struct poolvm_config *config, struct err *err)
{
	if (config->incoming && config->restore)
		return err_set(err, -EINVAL, "--incoming and --restore exclude each other");
	if (!config->kernel && !config->incoming && !config->restore)
		return err_set(err, -EINVAL, "which kernel? (--kernel FILE)");
	return 0;
}

int poolvm_config_read(struct poolvm_config *config, int argc, char **argv, struct err *err)
{
	int rc;

	*config = (struct poolvm_config){
		.vm = { .cpus = 1,
			.mem_bytes = 256 * MIB,
			.kernel_fd = -1,
			.initrd_fd = -1,
			.cmdline = "",
			.serial_in_fd = -1,
			.serial_out_fd = -1,
			.serial_listen_fd = -1,
			.disk_wait_ms = 5000 },
		.serial = "stdio",
	};
	if (getrandom(config->vm.generation, VM_GENERATION_BYTES, 0) != VM_GENERATION_BYTES)
		return err_set(err, -EIO, "the system has no randomness");
	rc = read_words(config, argc, argv, err);
	if (rc < 0 || config->show_help || config->show_version)
		return rc;
	rc = check(config, err);
	if (rc == 0)
		rc = open_file(config->kernel, "kernel", &config->vm.kernel_fd, err);
	if (rc == 0)
		rc = open_file(config->initrd, "initrd", &config->vm.initrd_fd, err);
	return rc < 0 ? rc : open_serial(config, err);
}
