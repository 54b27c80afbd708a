/* Looking at the server's process through /proc. Nothing here needs the server's help. */
#include "tests/client/server_proc.h"

#include <dirent.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

bool server_is_alive(pid_t pid)
{
	char path[64];
	char line[512];
	snprintf(path, sizeof(path), "/proc/%d/stat", (int)pid);
	FILE *file = fopen(path, "re");
	if (file == NULL)
		return false;
	char *got = fgets(line, sizeof(line), file);
	fclose(file);
	/* "pid (name) S ...": the name may hold anything, so look from its last parenthesis. */
	char *after = got == NULL ? NULL : strrchr(line, ')');
	return after != NULL && after[1] == ' ' && strchr("ZXx", after[2]) == NULL;
}

uint64_t server_cpu_ns(pid_t pid)
{
	clockid_t clock;
	struct timespec used;
	if (clock_getcpuclockid(pid, &clock) != 0 || clock_gettime(clock, &used) < 0)
		return 0;
	return (uint64_t)used.tv_sec * 1000000000u + (uint64_t)used.tv_nsec;
}

int server_fds(pid_t pid)
{
	char path[64];
	int count = 0;
	snprintf(path, sizeof(path), "/proc/%d/fd", (int)pid);
	DIR *dir = opendir(path);
	if (dir == NULL)
		return -1;
	for (struct dirent *entry = readdir(dir); entry != NULL; entry = readdir(dir))
		count += entry->d_name[0] != '.';
	closedir(dir);
	return count;
}

int server_mappings(pid_t pid, const char *memfd_name)
{
	char path[64];
	char line[512];
	char pattern[128];
	int count = 0;
	snprintf(path, sizeof(path), "/proc/%d/maps", (int)pid);
	snprintf(pattern, sizeof(pattern), "/memfd:%s", memfd_name);
	FILE *file = fopen(path, "re");
	if (file == NULL)
		return -1;
	while (fgets(line, sizeof(line), file) != NULL)
		count += strstr(line, pattern) != NULL;
	fclose(file);
	return count;
}
