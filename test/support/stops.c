/* Suspends a process (SIGSTOP) once, just before a certain call, as if its node were suspended then.

   STOPS_CALL  open (for writing), write or rename
   STOPS_NAME  the end of the path; for rename, of the target
   STOPS_NTH   the number of the call, from 1 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/types.h>
#include <unistd.h>

static void meet(const char *call, const char *path)
{
    static int met;
    const char *wanted = getenv("STOPS_CALL"), *name = getenv("STOPS_NAME"), *nth = getenv("STOPS_NTH");
    if (!wanted || !name || strcmp(wanted, call) || strlen(path) < strlen(name))
        return;
    if (strcmp(path + strlen(path) - strlen(name), name))
        return;
    if (++met == (nth ? atoi(nth) : 1))
        kill(getpid(), SIGSTOP);
}

#define OPEN(name)                                                   \
    int name(const char *path, int flags, ...)                       \
    {                                                                \
        static int (*real)(const char *, int, ...);                  \
        va_list more;                                                \
        va_start(more, flags);                                       \
        mode_t mode = flags & O_CREAT ? va_arg(more, mode_t) : 0;    \
        va_end(more);                                                \
        if (!real)                                                   \
            real = (int (*)(const char *, int, ...))dlsym(RTLD_NEXT, #name); \
        if (flags & (O_WRONLY | O_RDWR))                             \
            meet("open", path);                                      \
        return real(path, flags, mode);                              \
    }
OPEN(open)
OPEN(open64)

ssize_t write(int fd, const void *data, size_t size)
{
    static ssize_t (*real)(int, const void *, size_t);
    char link[64], path[4096];
    if (!real)
        real = (ssize_t (*)(int, const void *, size_t))dlsym(RTLD_NEXT, "write");
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, sizeof path - 1);
    if (length > 0) {
        path[length] = 0;
        meet("write", path);
    }
    return real(fd, data, size);
}

int rename(const char *from, const char *to)
{
    static int (*real)(const char *, const char *);
    if (!real)
        real = (int (*)(const char *, const char *))dlsym(RTLD_NEXT, "rename");
    meet("rename", to);
    return real(from, to);
}
