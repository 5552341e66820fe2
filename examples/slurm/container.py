"""A runner for programs that start a command in a container; used by container.ini."""

import shlex

from taskfarmer.runners import CommandRunner


class ContainerRunner(CommandRunner):
    """Runs a task as `START /bin/bash -c -- TASK`; `start` is the program with its options and the image."""

    def __init__(self, start):
        self.start = shlex.split(start)

    def argv(self, taskid, command):
        return [*self.start, "/bin/bash", "-c", "--", command]
