/* The baseline of `python -m benchmarks spawn`: the time that the system itself needs to run short programs.
 *
 * usage: spawn TASKS PROCESSES FOLDER|- PROGRAM [WORD...]
 *
 * Each of PROCESSES runs every PROCESSES-th of the TASKS, one at a time: open FOLDER/log_N, posix_spawn
 * PROGRAM with it as output and errors and /dev/null as input, wait4. If FOLDER is `-` there are no logs,
 * and output goes to /dev/null, too. The program keeps no state and records nothing.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

extern char **environ;

static void fail(const char *what) {
    perror(what);
    _exit(1);
}

static void run(char **argv, int folder, int number) {
    char name[32];
    struct rusage usage;
    posix_spawn_file_actions_t files;
    int log = -1, status;
    pid_t pid;

    posix_spawn_file_actions_init(&files);
    posix_spawn_file_actions_addopen(&files, 0, "/dev/null", O_RDWR, 0);
    if (folder >= 0) {
        snprintf(name, sizeof name, "log_%d", number);
        log = openat(folder, name, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
        if (log < 0) fail(name);
    }
    posix_spawn_file_actions_adddup2(&files, log < 0 ? 0 : log, 1);
    posix_spawn_file_actions_adddup2(&files, log < 0 ? 0 : log, 2);
    if (posix_spawn(&pid, argv[0], &files, NULL, argv, environ)) fail(argv[0]);
    posix_spawn_file_actions_destroy(&files);
    if (log >= 0) close(log);
    if (wait4(pid, &status, 0, &usage) < 0) fail("wait4");
    if (status) fail("task");
}

int main(int argc, char **argv) {
    int failed = 0, folder = -1, status;

    if (argc < 5) return 2;
    int tasks = atoi(argv[1]), processes = atoi(argv[2]);
    if (strcmp(argv[3], "-")) {
        folder = open(argv[3], O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        if (folder < 0) fail(argv[3]);
    }
    for (int slot = 0; slot < processes; slot++)
        if (!fork()) {
            for (int number = slot; number < tasks; number += processes) run(argv + 4, folder, number);
            _exit(0);
        }
    while (wait(&status) > 0) failed |= status;
    return failed != 0;
}
