/* The yardstick of `python -m benchmarks spawn`: what the system itself takes to run short programs.
 *
 * usage: spawn PROGRAM TASKS PROCESSES FOLDER
 *
 * Each of PROCESSES runs every PROCESSES-th of the TASKS, one at a time: open FOLDER/log_N, posix_spawn
 * PROGRAM with it as output and errors and /dev/null as input, wait4. No state is kept, nothing is recorded.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

extern char **environ;

static void fail(const char *what) {
    perror(what);
    _exit(1);
}

static void run(char *program, int folder, int number) {
    char name[32];
    char *argv[] = {program, NULL};
    struct rusage usage;
    posix_spawn_file_actions_t files;
    int log, status;
    pid_t pid;

    snprintf(name, sizeof name, "log_%d", number);
    log = openat(folder, name, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
    if (log < 0) fail(name);
    posix_spawn_file_actions_init(&files);
    posix_spawn_file_actions_addopen(&files, 0, "/dev/null", O_RDONLY, 0);
    posix_spawn_file_actions_adddup2(&files, log, 1);
    posix_spawn_file_actions_adddup2(&files, log, 2);
    if (posix_spawn(&pid, program, &files, NULL, argv, environ)) fail(program);
    posix_spawn_file_actions_destroy(&files);
    close(log);
    if (wait4(pid, &status, 0, &usage) < 0) fail("wait4");
    if (status) fail("task");
}

int main(int argc, char **argv) {
    int failed = 0, folder, status;

    if (argc != 5) return 2;
    int tasks = atoi(argv[2]), processes = atoi(argv[3]);
    folder = open(argv[4], O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (folder < 0) fail(argv[4]);
    for (int slot = 0; slot < processes; slot++)
        if (!fork()) {
            for (int number = slot; number < tasks; number += processes) run(argv[1], folder, number);
            _exit(0);
        }
    while (wait(&status) > 0) failed |= status;
    return failed != 0;
}
