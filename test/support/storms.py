"""A storm: farmers are started and killed, the list grows, views are damaged, failed tasks are retried.

Events and times are drawn from a seed. Half of the farmers see themselves on separate nodes, with a private host name
and pid namespace, so that only their silence shows that they are dead.
"""

from __future__ import annotations

import errno
import os
import random
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from support.checker import ENDED, Problem, Report, check, newest, sealed
from support.farming import TEST, Farmer, Field, children

LEASE = 2.0
EPOCH_LENGTH = 4
EPOCHS_ASLEEP = 3
VIEWS = ("toprocess", "finished", "failed", "timeline.json", "views.json")
KINDS = {"kill": 5, "kill tree": 2, "stop": 2, "sleep": 1, "interrupt": 2, "harm": 2, "retry": 1}
"""The possible events and their frequencies.

`stop` stops the farmer alone for a while; `sleep` stops all its processes until it was expelled and the epochs it knew
are gone; `interrupt` is SIGUSR1; `harm` damages a view.
"""
ALLOWED = (0, 1, 74, 75, -signal.SIGKILL, 128 + signal.SIGKILL, -signal.SIGUSR1, 128 + signal.SIGUSR1)


def nodes_are_possible() -> bool:
    words = ["unshare", "--uts", "--pid", "--fork", "--mount-proc", "--propagation", "slave", "hostname", "somewhere"]
    return bool(shutil.which("unshare")) and subprocess.run(words, capture_output=True).returncode == 0


def state_of(workdir: Path) -> dict[str, Any] | None:
    """The newest state; None if it cannot be read because files come and go."""
    try:
        return newest(workdir, sealed(workdir / "farm.json")["farm"], Report())
    except (OSError, Problem):
        return None


def epoch_number(name: str) -> int:
    return int(name.partition("-")[0])


def counted(workdir: Path, state: dict[str, Any], name: str) -> int:
    """The number of bytes that count in the journal of a farmer that has left."""
    if name in state["departed"]:
        return int(state["departed"][name])
    return next((int(path.suffix[1:]) for path in (workdir / "results").glob(f"{name}.*")), 0)


# --- damages to a view ------------------------------------------------------------------------------


def delete(path: Path) -> None:
    path.unlink()


def shorten(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def spoil(path: Path) -> None:
    path.write_bytes(b"\0\xff garbage\n" * random.randrange(1, 999))


def lengthen(path: Path) -> None:
    with open(path, "ab") as file:
        file.write(b"77 echo written by hand\n")


HARMS: tuple[Callable[[Path], None], ...] = (delete, shorten, spoil, lengthen)


@dataclass
class Ghost:
    """A farmer that is stopped: its name in the ledger, the epoch it knew, and the size of its counted results."""

    farmer: Farmer
    name: str
    epoch: int
    counted: int = 0


@dataclass
class Storm:
    """A storm on a field, until `seconds` have passed and `kills` farmers were killed. Farmers use `places` in turn.

    Without `everything` no farmer is stopped for several epochs, and no task fails, so that none is retried.
    """

    field: Field
    places: tuple[Path, ...]
    seed: int
    tasks: int
    seconds: float = 0.0
    kills: int = 0
    farmers: int = 8
    rate: float = 3.0
    limit: float = 900.0
    everything: bool = True
    running: list[Farmer] = field(default_factory=list)
    stopped: list[tuple[float, Farmer]] = field(default_factory=list)
    asleep: list[Ghost] = field(default_factory=list)
    woken: list[Ghost] = field(default_factory=list)
    did: Counter[str] = field(default_factory=Counter)
    dying: list[Farmer] = field(default_factory=list)
    retried: int = 0

    def __post_init__(self) -> None:
        self.random = random.Random(self.seed)
        self.nodes = nodes_are_possible()
        self.started = self.nodes_started = 0
        self.listed = 0
        self.retrying: subprocess.Popen[str] | None = None
        self.begin = time.monotonic()
        self.storm_seconds = 0.0
        self.given = 0
        self.next_look = 0.0
        self.grow(self.tasks * 2 // 5)
        self.kinds = dict(KINDS)
        if not self.everything:
            del self.kinds["sleep"], self.kinds["retry"]
        # each kind once, the one that takes longest first, and then at random
        self.first = self.random.sample([*self.kinds], len(self.kinds))
        self.first.sort(key="sleep".__ne__)

    # --- events --------------------------------------------------------------------------------

    def start(self, *options: object) -> Farmer:
        number, self.started = self.started, self.started + 1
        node = f"node{number}" if self.nodes and number // len(self.places) % 2 else None
        self.nodes_started += node is not None
        through = self.places[number % len(self.places)]
        words = ("--proc", 2, "--lease", LEASE, "--epoch-length", EPOCH_LENGTH, "--grace", 1, "--verbose", *options)
        return self.field.start(*words, node=node, through=through)

    def fails_until(self, task: int) -> int:
        """How many attempts at a task fail: none for most tasks."""
        return 1 + task % 2 if self.everything and task % 19 == 7 else 0

    def command(self, task: int) -> str:
        """Append the attempt to `ran/<ID>`, sleep a little, and fail or succeed according to `fails_until`."""
        words = f"echo $TASKFARMER_ATTEMPT >> {self.field.ran}/{task}"
        if task % 4:
            words += f"; sleep 0.{task % 4}"
        if self.fails_until(task):
            words += f"; test $TASKFARMER_ATTEMPT -gt {self.fails_until(task)}"
        return words

    def grow(self, to: int) -> None:
        """Append lines to the list, until it has `to` of them."""
        with open(self.field.list, "ab", buffering=0) as file:
            for task in range(self.listed, to):
                file.write(b"%s\n" % self.command(task).encode())
        self.listed = to

    def strike(self, kind: str, farmer: Farmer) -> bool:
        """Let an event happen; False if it is not possible now."""
        if kind in ("kill", "kill tree"):
            # a process that waits for its file system takes a while to die
            self.dying.append(farmer)
            farmer.signal(signal.SIGKILL) if kind == "kill" else farmer.kill_tree()
        elif kind == "interrupt":
            farmer.signal(signal.SIGUSR1)
        elif kind == "stop":
            farmer.signal(signal.SIGSTOP)
            self.stopped.append((time.monotonic() + LEASE * self.random.uniform(0.5, 4.0), farmer))
        elif kind == "sleep":
            wanted = len(self.asleep) < 2 and (self.progress < 1 or not self.did[kind])
            return wanted and self.put_to_sleep(farmer)
        elif kind == "harm":
            return self.harm(self.random.choice(VIEWS), self.random.choice(HARMS))
        else:
            return self.retry()
        return True

    def put_to_sleep(self, farmer: Farmer) -> bool:
        """Stop all processes of a farmer that holds tasks and has workers.

        A farmer without workers may have slept since before it read that its first commit landed. When it wakes up, it
        joins again, since it never started a task.
        """
        host = farmer.node or re.sub(r"[^A-Za-z0-9]", "-", socket.gethostname().split(".")[0])[:32]
        prefix = f"{host}-" if farmer.node else f"{host}-{farmer.pid}-"
        farmer.stop_tree()
        state = state_of(self.field.workdir) if children(farmer.pid) else None
        for name, entry in state["farmers"].items() if state else ():
            if name.startswith(prefix) and entry[1]:
                self.asleep.append(Ghost(farmer, name, epoch_number(state["epoch"])))
                return True
        farmer.continue_tree()
        return False

    def harm(self, view: str, how: Callable[[Path], None]) -> bool:
        try:
            how(self.field.workdir / view)
        except OSError as error:
            if error.errno not in (errno.ENOENT, errno.ESTALE):  # GlusterFS may be replacing it just now
                raise
            return False
        return True

    def retry(self) -> bool:
        """Start `taskfarmer retry --failed` during the other events."""
        if self.retrying is not None or not (self.field.workdir / "farm.json").exists():
            return False
        workdir = self.random.choice(self.places) / self.field.workdir.name
        words = [sys.executable, "-m", "taskfarmer", "retry", str(workdir), "--failed"]
        environment = {**os.environ, "PYTHONPATH": str(TEST.parent)}
        self.retrying = subprocess.Popen(
            words, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=self.field.folder
        )
        return True

    def finish_retry(self) -> int:
        """Wait until the retry exits; the number of tasks to be retried."""
        assert self.retrying is not None
        said, _ = self.retrying.communicate(timeout=120)
        status, self.retrying = self.retrying.returncode, None
        assert status == 0, said
        match = re.match(r"(\d+) tasks? (?:is|are) unprocessed again", said)
        assert match or said.startswith("no failed tasks to retry"), said
        count = int(match[1]) if match else 0
        self.retried += count
        return count

    # --- course --------------------------------------------------------------------------------

    @property
    def killed(self) -> int:
        return self.did["kill"] + self.did["kill tree"]

    @property
    def progress(self) -> float:
        """From 0 to 1."""
        passed = (time.monotonic() - self.begin) / self.seconds if self.seconds else 1.0
        return min(1.0, passed, self.killed / self.kills if self.kills else 1.0)

    @property
    def in_step(self) -> bool:
        """Whether kills keep pace with the tasks handed out, so that the storm covers the whole list."""
        return not self.kills or self.killed / self.kills <= self.given / self.tasks + 0.05

    @property
    def awaits_sleepers(self) -> bool:
        """Whether all events have happened, and only the stopped farmers remain to be expelled.

        If a stopped farmer holds the lock, each new farmer waits for it longer than it would live in the storm.
        """
        return self.progress >= 1 and bool(self.asleep) and not self.first

    @property
    def is_over(self) -> bool:
        return self.progress >= 1 and not (self.asleep or self.first or self.listed < self.tasks)

    def run(self) -> None:
        while not self.is_over:
            self.storm_seconds = time.monotonic() - self.begin
            assert time.monotonic() - self.begin < self.limit, self.describe()
            self.reap()
            while len(self.running) < self.farmers:
                self.running.append(self.start())
            self.wake()
            if self.retrying is not None and self.retrying.poll() is not None:
                self.finish_retry()
            self.feed()
            busy = [farmer for _, farmer in self.stopped] + [ghost.farmer for ghost in (*self.asleep, *self.woken)]
            busy += self.dying
            # mostly farmers that have started to work and written output
            awake = [
                farmer
                for farmer in self.running
                if farmer not in busy and farmer.pid and (farmer.said or self.random.random() < 0.1)
            ]
            if awake and self.in_step and not self.awaits_sleepers:
                self.happen(self.random.choice(awake))
            # events are spread over time; the loop does not wait for them to take effect
            time.sleep(self.random.expovariate(self.rate))

    def describe(self) -> str:
        """What a storm that does not end is waiting for, and the output of all farmers."""
        state = state_of(self.field.workdir) or {}
        ledger = sorted(str(path) for path in (self.field.workdir / "ledger").rglob("*"))
        said = "\n".join(f"{farmer.log.name} {farmer.node or farmer.pid}:\n{farmer.said}" for farmer in self.running)
        return (
            f"no end of the storm after {self.did}; to come: {self.first}, asleep: {self.asleep}, "
            f"epoch {state.get('epoch')}, farmers {state.get('farmers')}, {ledger}\n{said}"
        )

    def feed(self) -> None:
        """Grow the list along with the storm, and faster if few tasks are left, so that no farmer is idle."""
        wanted = int(self.tasks * (0.4 + 0.6 * self.progress))
        step = max(1, self.tasks // 25)
        if time.monotonic() >= self.next_look:
            self.next_look = time.monotonic() + 0.5
            state = state_of(self.field.workdir)
            if state is not None:
                self.given = sum(segment["next"] for segment in state["segments"])
                left = sum(segment["tasks"] for segment in state["segments"]) - self.given
                if left < 4 * self.farmers:
                    wanted = max(wanted, self.listed + step)
        if wanted - self.listed >= step or (self.progress >= 1 and wanted > self.listed):
            self.grow(wanted)
            self.did["growth"] += 1

    def happen(self, farmer: Farmer) -> None:
        kind = self.first[0] if self.first else self.random.choices([*self.kinds], [*self.kinds.values()])[0]
        if self.strike(kind, farmer):
            self.did[kind] += 1
            self.first = self.first[1:]
        elif self.first:
            self.first.append(self.first.pop(0))

    def reap(self) -> None:
        for farmer in [farmer for farmer in self.running if farmer.ended]:
            self.running.remove(farmer)

    def wake(self, everybody: bool = False) -> None:
        now = time.monotonic()
        for when, farmer in list(self.stopped):
            if everybody or now >= when:
                farmer.signal(signal.SIGCONT)
                self.stopped.remove((when, farmer))
        state = state_of(self.field.workdir) if self.asleep else None
        if state is None:
            return
        try:
            oldest = min(epoch_number(path.name) for path in (self.field.workdir / "ledger").glob("*-*"))
        except OSError:
            return
        for ghost in list(self.asleep):
            # a file that is open there keeps an epoch on FUSE, as long as only its mount sweeps
            least = max(oldest, epoch_number(state["epoch"]) - 4 * EPOCHS_ASLEEP)
            if ghost.name not in state["farmers"] and least >= ghost.epoch + EPOCHS_ASLEEP:
                ghost.counted = counted(self.field.workdir, state, ghost.name)
                self.asleep.remove(ghost)
                self.woken.append(ghost)
                ghost.farmer.continue_tree()

    def quiesce(self) -> Farmer:
        """Continue the ghosts, kill or stop the other farmers, and let one farmer complete the list."""
        self.wake(everybody=True)
        ghosts = [ghost.farmer for ghost in self.woken]
        for number, farmer in enumerate(farmer for farmer in self.running if farmer not in ghosts):
            if number % 2:
                farmer.kill_tree()
            else:
                farmer.signal(signal.SIGUSR1)
        for farmer in self.running:
            farmer.wait()
        self.reap()
        if self.retrying is not None:
            self.finish_retry()
        drain = self.drain()
        # one more round for each attempt that may fail
        for _ in range(4):
            if drain.process.returncode != 1 or not (self.retry() and self.finish_retry()):
                break
            drain = self.drain()
        return drain

    def drain(self) -> Farmer:
        drain = self.start("--wait", "--proc", 16)
        drain.wait(100)
        return drain


# --- verdict ------------------------------------------------------------------------------------------


def twice(storm: Storm, report: Report) -> list[int]:
    """Tasks that ended more often than allowed: once, after failed attempts, each with a different number."""
    ends: dict[int, list[tuple[int, str]]] = {}
    for line in report.lines:
        if line.outcome in ENDED:
            ends.setdefault(line.task, []).append((line.attempt, line.outcome))
    wrong = []
    for task, found in ends.items():
        *before, (_, last) = sorted(found)
        attempts = {attempt for attempt, _ in found}
        right = all(attempt <= storm.fails_until(task) and outcome == "failed" for attempt, outcome in before)
        if not right or len(attempts) < len(found) or last != "finished":
            wrong.append(task)
    return wrong


def judge(storm: Storm, kind: str, drain: Farmer) -> Report:
    """Print the events, and compare the recorded results with the attempts that ran."""
    folder = storm.field
    report = check(folder.workdir, views=True, retried=True)
    runs = {int(path.name): Counter(map(int, path.read_text().split())) for path in folder.ran.iterdir()}
    ends = [(line.task, line.attempt) for line in report.lines if line.outcome in ENDED]
    total = sum(sum(attempts.values()) for attempts in runs.values())
    lost = set(range(storm.listed)) - report.finished
    doubled = twice(storm, report)
    unheard = [farmer for farmer in folder.farmers if farmer.process.returncode == 74]
    did = storm.did
    again = (total - len(ends)) / max(1, len(ends))
    calmed = time.monotonic() - storm.begin - storm.storm_seconds
    print(
        f"{kind}, seed {storm.seed}: {storm.listed} tasks, {storm.killed} kills ({did['kill tree']} of all processes), "
        f"{did['stop']} stops, {did['sleep']} sleeps past {EPOCHS_ASLEEP} epochs, {len(unheard)} expelled alive, "
        f"{did['interrupt']} SIGUSR1s, {did['retry']} retries of {storm.retried} tasks, {did['growth']} growths, "
        f"{did['harm']} views harmed, {storm.started} farmers ({storm.nodes_started} nodes), "
        f"revision {report.state.get('revision')}, {total} runs for {len(ends)} results ({again:.1%} again), "
        f"{len(lost)} lost, {len(doubled)} twice, {storm.storm_seconds:.0f} + {calmed:.0f} s"
    )
    assert report.problems == [], f"{drain.process.returncode}\n{drain.said}"
    assert (lost, doubled, drain.process.returncode) == (set(), [], 0), drain.said
    assert report.tasks.keys() == set(range(storm.listed))
    # each retry of a task added one result, and nothing else did
    assert len(ends) - len(report.finished) == storm.retried
    assert [end for end in ends if not runs.get(end[0], Counter())[end[1]]] == [], "recorded, and never ran"
    assert {task: found for task, found in runs.items() if max(found.values()) > 1} == {}, "an attempt that ran twice"
    judge_farmers(storm, report, unheard)
    # the number of files stays bounded however many revisions there were
    assert len(list((folder.workdir / "ledger").glob("*/*"))) <= 4 * EPOCH_LENGTH + len(folder.farmers)
    return report


def judge_farmers(storm: Storm, report: Report, unheard: list[Farmer]) -> None:
    """Farmers that were declared dead report it and recorded nothing afterwards; all exit statuses are expected."""
    for ghost in storm.woken:
        status, said = ghost.farmer.process.returncode, ghost.farmer.said
        # one that was already leaving, with a complete journal, has left even though it was expelled
        left = status in (0, 1, 75) and "stopped by SIGUSR1" in said
        assert status == 74 or left, f"{ghost}: {status}\n{said}"
        assert counted(storm.field.workdir, report.state, ghost.name) == ghost.counted
    for farmer in unheard:
        assert "expelled as dead" in farmer.said, farmer.said
    for farmer in storm.field.farmers:
        assert farmer.process.returncode in ALLOWED, f"{farmer.process.returncode}\n{farmer.said}"
        assert "Traceback" not in farmer.said, farmer.said
    assert storm.did["sleep"] == len(storm.woken)
