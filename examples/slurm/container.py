"""A runner for any program that starts a command in a container; container.ini uses it."""

import shlex

from taskfarmer.runners import CommandRunner


class ContainerRunner(CommandRunner):
    """Runs a task as `START /bin/bash -c -- TASK`. start: the program with its options and the image."""

    def __init__(self, start):
        self.start = shlex.split(start)

    def argv(self, taskid, command):
        return [*self.start, "/bin/bash", "-c", "--", command]
