/* A file system that misbehaves as DOCTOR_SHIM requests: link and rename that do not exclude, locks that do not lock. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static int is(const char *name)
{
    const char *asked = getenv("DOCTOR_SHIM");
    return asked && !strcmp(asked, name);
}

static int linked(const char *from, const char *to)
{
    if (is("no-links")) {
        errno = EPERM;
        return -1;
    }
    if (is("link-replaces"))
        unlink(to);
    int reply = (int)linkat(AT_FDCWD, from, AT_FDCWD, to, 0x10000 /* let through */);
    if (is("link-says-yes") && reply && errno == EEXIST)
        return 0;
    if (is("lost-reply") && !reply) {
        errno = EEXIST;
        return -1;
    }
    return reply;
}

int linkat(int a, const char *from, int b, const char *to, int flags)
{
    if (flags != 0x10000)
        return linked(from, to);
    int (*real)(int, const char *, int, const char *, int) = dlsym(RTLD_NEXT, "linkat");
    return real(a, from, b, to, 0);
}

int link(const char *from, const char *to) { return linked(from, to); }

int rename(const char *from, const char *to)
{
    int (*real)(const char *, const char *) = dlsym(RTLD_NEXT, "rename");
    if (is("rename-in-steps")) {
        unlink(to);
        usleep(400000);
    }
    return real(from, to);
}

int flock(int fd, int operation)
{
    int (*real)(int, int) = dlsym(RTLD_NEXT, "flock");
    if (is("flock-says-yes"))
        return 0;
    if (is("no-flock")) {
        errno = ENOSYS;
        return -1;
    }
    return real(fd, operation);
}
