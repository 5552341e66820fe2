/* A slow file system, as a library to preload: each operation on a name, and each sync and lock, takes longer.
 *
 * SLOW_MICROSECONDS are added before each call if its path is below one of SLOW_BELOW (directories separated by colons;
 * `/` for all paths except /proc, /sys and /dev). Reading and writing of open files is not slowed down. The library
 * does not see files that the dynamic linker opens, nor the calls between fork and exec within posix_spawn.
 * If SLOW_COUNT is set, these calls are also counted in the first eight bytes of that file, except those of programs
 * whose name is SLOW_UNCOUNTED. If SLOW_WHEN is set, calls are slow and counted only while a file of that name exists.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

static int is_below(const char *path) {
    const char *list = getenv("SLOW_BELOW");
    while (list && *list) {
        size_t size = strcspn(list, ":");
        if (size == 1 && *list == '/') {
            if (strncmp(path, "/proc/", 6) && strncmp(path, "/sys/", 5) && strncmp(path, "/dev/", 5)) return 1;
        } else if (size && !strncmp(path, list, size) && (path[size] == '/' || !path[size]))
            return 1;
        list += size + (list[size] == ':');
    }
    return 0;
}

static int is_time(void) {
    const char *when = getenv("SLOW_WHEN");
    return !when || !syscall(SYS_faccessat, AT_FDCWD, when, F_OK);
}

static long *count;

__attribute__((constructor)) static void open_count(void) {
    const char *path = getenv("SLOW_COUNT"), *but = getenv("SLOW_UNCOUNTED");
    void *shared;
    int file;
    if (!path || (but && !strcmp(but, program_invocation_short_name))) return;
    file = syscall(SYS_openat, AT_FDCWD, path, O_RDWR | O_CLOEXEC);
    if (file < 0) return;
    shared = mmap(NULL, sizeof *count, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    if (shared != MAP_FAILED) count = shared;
    close(file);
}

static void nap(void) {
    const char *text = getenv("SLOW_MICROSECONDS");
    long rest = text ? atol(text) : 0;
    struct timespec end;
    if (!rest) return;
    clock_gettime(CLOCK_MONOTONIC, &end);
    end.tv_nsec += rest % 1000000 * 1000;
    end.tv_sec += rest / 1000000 + end.tv_nsec / 1000000000;
    end.tv_nsec %= 1000000000;
    while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &end, NULL) == EINTR) {}
}

/* `path` may be NULL: then it is the file that `folder` is open on. */
static void slow(int folder, const char *path) {
    char whole[8192], link[64];
    long size = 0;
    int before = errno;
    if (!path || *path != '/') {
        if (folder == AT_FDCWD)
            strcpy(link, "/proc/self/cwd");
        else
            snprintf(link, sizeof link, "/proc/self/fd/%d", folder);
        size = syscall(SYS_readlinkat, AT_FDCWD, link, whole, 4000);
        if (size < 0) size = 0;
    }
    whole[size] = 0;
    if (path) snprintf(whole + size, sizeof whole - size, "%s%s", *path == '/' ? "" : "/", path);
    if (is_below(whole) && is_time()) {
        if (count) __atomic_add_fetch(count, 1, __ATOMIC_RELAXED);
        nap();
    }
    errno = before;
}

#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))
#define WRAP(result, name, parameters, folder, path, ...) \
    result name parameters {                              \
        static __typeof__(&name) real;                    \
        if (!real) real = REAL(name);                     \
        slow(folder, path);                               \
        return real(__VA_ARGS__);                         \
    }

#define MODE                               \
    mode_t mode = 0;                       \
    if (flags & (O_CREAT | O_TMPFILE)) {   \
        va_list more;                      \
        va_start(more, flags);             \
        mode = va_arg(more, mode_t);       \
        va_end(more);                      \
    }
#define OPEN(name)                               \
    int name(const char *path, int flags, ...) { \
        MODE slow(AT_FDCWD, path);               \
        return REAL(name)(path, flags, mode);    \
    }
#define OPENAT(name)                                         \
    int name(int folder, const char *path, int flags, ...) { \
        MODE slow(folder, path);                             \
        return REAL(name)(folder, path, flags, mode);        \
    }
OPEN(open)
OPEN(open64)
OPENAT(openat)
OPENAT(openat64)

WRAP(FILE *, fopen, (const char *path, const char *mode), AT_FDCWD, path, path, mode)
WRAP(FILE *, fopen64, (const char *path, const char *mode), AT_FDCWD, path, path, mode)
WRAP(DIR *, opendir, (const char *path), AT_FDCWD, path, path)
WRAP(int, stat, (const char *path, struct stat *to), AT_FDCWD, path, path, to)
WRAP(int, stat64, (const char *path, struct stat64 *to), AT_FDCWD, path, path, to)
WRAP(int, lstat, (const char *path, struct stat *to), AT_FDCWD, path, path, to)
WRAP(int, lstat64, (const char *path, struct stat64 *to), AT_FDCWD, path, path, to)
WRAP(int, fstatat, (int folder, const char *path, struct stat *to, int flags), folder, path, folder, path, to, flags)
WRAP(int, fstatat64, (int folder, const char *path, struct stat64 *to, int flags), folder, path, folder, path, to,
     flags)
WRAP(int, statx, (int folder, const char *path, int flags, unsigned mask, struct statx *to), folder, path, folder,
     path, flags, mask, to)
WRAP(int, access, (const char *path, int mode), AT_FDCWD, path, path, mode)
WRAP(int, faccessat, (int folder, const char *path, int mode, int flags), folder, path, folder, path, mode, flags)
WRAP(ssize_t, readlink, (const char *path, char *to, size_t size), AT_FDCWD, path, path, to, size)
WRAP(int, link, (const char *old, const char *path), AT_FDCWD, path, old, path)
WRAP(int, linkat, (int from, const char *old, int folder, const char *path, int flags), folder, path, from, old,
     folder, path, flags)
WRAP(int, symlink, (const char *to, const char *path), AT_FDCWD, path, to, path)
WRAP(int, unlink, (const char *path), AT_FDCWD, path, path)
WRAP(int, unlinkat, (int folder, const char *path, int flags), folder, path, folder, path, flags)
WRAP(int, rename, (const char *old, const char *path), AT_FDCWD, path, old, path)
WRAP(int, renameat, (int from, const char *old, int folder, const char *path), folder, path, from, old, folder, path)
WRAP(int, mkdir, (const char *path, mode_t mode), AT_FDCWD, path, path, mode)
WRAP(int, mkdirat, (int folder, const char *path, mode_t mode), folder, path, folder, path, mode)
WRAP(int, rmdir, (const char *path), AT_FDCWD, path, path)
WRAP(int, chmod, (const char *path, mode_t mode), AT_FDCWD, path, path, mode)
WRAP(int, fchmod, (int file, mode_t mode), file, NULL, file, mode)
WRAP(int, truncate, (const char *path, off_t size), AT_FDCWD, path, path, size)
WRAP(int, ftruncate, (int file, off_t size), file, NULL, file, size)
WRAP(int, ftruncate64, (int file, off64_t size), file, NULL, file, size)
WRAP(int, fsync, (int file), file, NULL, file)
WRAP(int, fdatasync, (int file), file, NULL, file)
WRAP(int, flock, (int file, int how), file, NULL, file, how)
