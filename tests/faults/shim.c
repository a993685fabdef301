/* Fails reading, writing or syncing files under FAULTS_UNDER with EIO, while a
 * file of the name `read`, `write` or `sync` is in FAULTS_ORDERS. Loaded into
 * the proxy with LD_PRELOAD by tests/faults/errors.rs. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

static int fails(const char *what, int fd)
{
	const char *under = getenv("FAULTS_UNDER"), *orders = getenv("FAULTS_ORDERS");
	char order[4096], link[64], path[4096];
	ssize_t length;

	if (!under || !orders)
		return 0;
	snprintf(order, sizeof order, "%s/%s", orders, what);
	if (access(order, F_OK))
		return 0;
	snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
	length = readlink(link, path, sizeof path - 1);
	if (length < 0)
		return 0;
	path[length] = 0;
	if (strncmp(path, under, strlen(under)))
		return 0;
	errno = EIO;
	return 1;
}

#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

ssize_t read(int fd, void *to, size_t size)
{
	return fails("read", fd) ? -1 : REAL(read)(fd, to, size);
}

ssize_t pread64(int fd, void *to, size_t size, off64_t at)
{
	return fails("read", fd) ? -1 : REAL(pread64)(fd, to, size, at);
}

ssize_t write(int fd, const void *from, size_t size)
{
	return fails("write", fd) ? -1 : REAL(write)(fd, from, size);
}

ssize_t pwrite64(int fd, const void *from, size_t size, off64_t at)
{
	return fails("write", fd) ? -1 : REAL(pwrite64)(fd, from, size, at);
}

int fsync(int fd)
{
	return fails("sync", fd) ? -1 : REAL(fsync)(fd);
}

int fdatasync(int fd)
{
	return fails("sync", fd) ? -1 : REAL(fdatasync)(fd);
}

int sync_file_range(int fd, off64_t at, off64_t size, unsigned int flags)
{
	return fails("sync", fd) ? -1 : REAL(sync_file_range)(fd, at, size, flags);
}
