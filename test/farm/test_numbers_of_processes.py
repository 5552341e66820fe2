"""A task may get the pid of a process that has just exited, before the exit of that process is recorded."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

from support.farming import need

# a worker in a private pid namespace; prints the lines that go to the journal
SCRIPT = """
import os, socket, sys, time
from pathlib import Path

from taskfarmer import protocol
from taskfarmer.worker.context import SlotContext
from taskfarmer.worker.programs import ProgramWorker
from taskfarmer.worker.slot import STRIDE
from taskfarmer.protocol import WorkerReports, Command
from taskfarmer.worker.worker import WorkerSetup
from taskfarmer.runners.shell import BasicRunner

folder = Path(sys.argv[1])
logs = os.open(folder, os.O_RDONLY)
places = tuple(SlotContext(slot, 'f', 'host', str(folder), str(folder), logs, log_mode='none') for slot in range(2))
ours, farmer = socket.socketpair()
shown = [memoryview(bytearray(STRIDE)) for _ in places]
worker = ProgramWorker(WorkerSetup(places, BasicRunner(), 1.0, 0.0, os.getppid(), ()), ours, shown)
lines = {0: b'0 true\\n2 sleep 1; exit 7\\n', 1: b'1 exit 3\\n'}
for slot, body in lines.items():
    farmer.send(Command(protocol.TASKS, slot, slot + 1, 1, 0.0, body).encode())
worker.wait_idle()
worker.start_tasks()
first, second = worker.running
assert [task.task_id for task in worker.running.values()] == [0, 1]


def state(pid):
    return Path(f'/proc/{pid}/stat').read_text().rpartition(')')[2].split()[0]


end = time.monotonic() + 20
while (state(first), state(second)) != ('Z', 'Z') and time.monotonic() < end:
    time.sleep(0.01)
# pids wrap around: the next process gets the pid of the second task
Path('/proc/sys/kernel/ns_last_pid').write_text(str(second - 1))
while worker.running.keys() != {second} and time.monotonic() < end:
    worker.wait()
(again,) = worker.running.values()
assert again.task_id == 2, 'the number was not given again'
while worker.running and time.monotonic() < end:
    worker.wait()
worker.flush()
for one in WorkerReports().feed(farmer.recv(1 << 20)):
    print(one.results.decode(), end='')
"""


def test_the_exit_of_a_task_is_not_confused_with_that_of_a_task_with_the_same_pid(tmp_path: Path) -> None:
    need(os.getuid() == 0 and shutil.which("unshare"), "a pid namespace needs root and unshare")
    words = ["unshare", "--pid", "--fork", "--kill-child", "--mount-proc", sys.executable, "-c", SCRIPT, str(tmp_path)]
    done = subprocess.run(words, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    ends = {words[0]: tuple(words[5:7]) for words in map(str.split, done.stdout.splitlines())}
    assert ends == {"0": ("finished", "0"), "1": ("failed", "3"), "2": ("failed", "7")}, done.stdout
