/* An LD_PRELOAD that makes `link` and `rename` give false replies, as a network file system may do.

   Environment variables control it. They are read once, and removed for programs that this process starts.

   LIES_UNDER   only calls for names below this directory get false replies
   LIES_TOLD    a file that gets a line for each false reply
   LIES_SEED    decides which calls get false replies
   LIES_LINK    `lost`: the link is made, and the reply is an error; `empty`: it is not made, and the reply is success;
                `refused`: it is not made, and the reply is that the disk is full
   LIES_SHARE   the percentage of links that get false replies, 100 if it is not set
   LIES_AFTER   the number of links with true replies before
   LIES_LATE    a FIFO; a rename is written into it, to be done by its reader, and the reply is success at once
*/
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static const char *under, *told, *kind, *late;
static unsigned long long drawn;
static int share = 100, after, links;

static int (*real_link)(const char *, const char *);
static int (*real_linkat)(int, const char *, int, const char *, int);
static int (*real_rename)(const char *, const char *);
static int (*real_renameat)(int, const char *, int, const char *);

static const char *variable(const char *name)
{
    const char *value = getenv(name);
    return value ? strdup(value) : NULL;
}

__attribute__((constructor)) static void begin(void)
{
    const char *number;

    real_link = dlsym(RTLD_NEXT, "link");
    real_linkat = dlsym(RTLD_NEXT, "linkat");
    real_rename = dlsym(RTLD_NEXT, "rename");
    real_renameat = dlsym(RTLD_NEXT, "renameat");
    under = variable("LIES_UNDER");
    told = variable("LIES_TOLD");
    kind = variable("LIES_LINK");
    late = variable("LIES_LATE");
    if ((number = getenv("LIES_SEED")))
        drawn = strtoull(number, NULL, 10);
    if ((number = getenv("LIES_SHARE")))
        share = atoi(number);
    if ((number = getenv("LIES_AFTER")))
        after = atoi(number);
    unsetenv("LD_PRELOAD");
}

static unsigned draw(unsigned below)
{
    drawn = drawn * 6364136223846793005ULL + 1442695040888963407ULL;
    return (unsigned)(drawn >> 33) % below;
}

static int ours(const char *path)
{
    size_t length = under ? strlen(under) : 0;
    return length && !strncmp(path, under, length) && path[length] == '/';
}

static void tell(const char *what, const char *name)
{
    char line[PATH_MAX + 64];
    int size = snprintf(line, sizeof line, "%s %s\n", what, name);
    int file = open(told, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0666);
    if (file < 0 || write(file, line, size) != size)
        abort();
    close(file);
}

static int lied_link(int answer, int number, const char *name)
{
    static const int errors[] = {EIO, EEXIST, ESTALE};
    static const char *words[] = {"EIO", "EEXIST", "ESTALE"};
    int chosen;

    if (!answer) {
        chosen = (int)draw(3);
        tell(words[chosen], name);
    } else if (number == EEXIST) {
        chosen = 2 * (int)draw(2);
        tell(chosen ? "refusal-as-ESTALE" : "refusal-as-EIO", name);
    } else {
        errno = number;
        return answer;
    }
    errno = errors[chosen];
    return -1;
}

int linkat(int from, const char *old, int to, const char *new, int flags)
{
    int answer;

    if (!kind || !ours(new) || links++ < after || draw(100) >= (unsigned)share)
        return real_linkat(from, old, to, new, flags);
    if (!strcmp(kind, "empty")) {
        tell("empty", new);
        return 0;
    }
    if (!strcmp(kind, "refused")) {
        tell("refused", new);
        errno = ENOSPC;
        return -1;
    }
    answer = real_linkat(from, old, to, new, flags);
    return lied_link(answer, errno, new);
}

int link(const char *old, const char *new)
{
    return linkat(AT_FDCWD, old, AT_FDCWD, new, 0);
}

int renameat(int from, const char *old, int to, const char *new)
{
    char words[PIPE_BUF];
    struct stat there;
    int size, file;

    if (!late || !ours(new) || lstat(old, &there))
        return real_renameat(from, old, to, new);
    size = snprintf(words, sizeof words, "%s%c%s%c", old, 0, new, 0);
    file = open(late, O_WRONLY | O_CLOEXEC);
    if (size >= (int)sizeof words || file < 0 || write(file, words, size) != size)
        abort();
    close(file);
    tell("late", new);
    return 0;
}

int rename(const char *old, const char *new)
{
    return renameat(AT_FDCWD, old, AT_FDCWD, new);
}
