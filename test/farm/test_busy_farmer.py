"""If a farmer does not read reports for a while, its worker sends them as soon as the farmer reads again."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

# the pool of a farmer that reads no report before the last task runs; prints how many reports it got during that task
SCRIPT = """
import json, os, sys, time
from pathlib import Path

from taskfarmer.formats.intervals import Interval
from taskfarmer.worker.context import SlotContext
from taskfarmer.pool.pool import Pool
from taskfarmer.runners.shell import BasicRunner

folder = Path(sys.argv[1])
timer = sys.argv[2] != 'none'
program = sys.argv[2] == 'program'


class Quick:
    def run(self, taskid, command, logfh):
        if not timer:
            import signal
            signal.signal(signal.SIGALRM, signal.SIG_IGN)
        if taskid == 5000:
            (folder / 'begun').touch()
            while not (folder / 'release').exists():
                time.sleep(0.01)
        return 0

    def terminate(self):
        pass


def until(condition):
    end = time.monotonic() + 60
    while not condition() and time.monotonic() < end:
        time.sleep(0.01)


(folder / 'logs').mkdir()
logs = os.open(folder / 'logs', os.O_RDONLY)
wakeup, _ = os.pipe()
place = SlotContext(0, 'f', 'host', str(folder), str(folder / 'logs'), logs, log_mode='none')
pool = Pool(1, lambda slot: place, BasicRunner() if program else Quick(), 1.0, wakeup)
pool.batch_size = 1 << 15
tasks = [b'%d true\\n' % number for number in range(5000)]
tasks.append(b'5000 touch %s/begun; until [ -e %s/release ]; do sleep 0.01; done\\n' % (2 * (bytes(folder),)))
pool.add(Interval(0, 0, 5001, 1), tasks)
pool.dispatch()
ended = 0


def listen():
    global ended
    ended += pool.wait(0.2).outcomes.ended


if timer:
    until((folder / 'begun').exists)
else:
    time.sleep(0.5)  # meanwhile the worker waits for its farmer
    end = time.monotonic() + 60
    while not (folder / 'begun').exists() and time.monotonic() < end:
        listen()
end = time.monotonic() + 20
while ended < 5000 and time.monotonic() < end:
    listen()
told = ended
(folder / 'release').touch()
end = time.monotonic() + 20
while ended < 5001 and time.monotonic() < end:
    listen()
pool.quit()
while pool.workers:
    listen()
print(json.dumps([told, ended]))
"""


@pytest.mark.parametrize("timer", ["timer", "none", "program"])
def test_results_that_a_busy_farmer_did_not_read_are_reported_while_a_long_task_runs(
    tmp_path: Path, timer: str
) -> None:
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, tmp_path, timer], capture_output=True, text=True, timeout=150, check=False
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == [5000, 5001], done.stderr
