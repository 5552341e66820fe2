"""Three nodes that share two mounts process a list, and each of them suffers a different fault.

One loses its power and comes back with a time limit; one is stopped until the others declare it dead, and continues;
one is stopped and restarted, as a queue does when it requeues a job. Times, mounts and order are drawn from a seed.
The last tasks of the list wait until all faults have happened, so that there are always tasks to lose.
"""

from __future__ import annotations

import json
import os
import random
import re
import signal
import subprocess
import sys
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from support.checker import ENDED, Line, Report, check, sealed
from support.farming import TEST, Farmer, Field, eventually
from support.storms import state_of

LEASE = 6
SLOTS = 2
LAST = 24
AGAIN, NOT_RECORDED = 75, 74


@dataclass
class WorkerHandle:
    """A farmer on a node, and its name in the ledger."""

    farmer: Farmer
    name: str

    @property
    def status(self) -> int:
        return self.farmer.wait(90)


class Course:
    """`run` it, then `judge` the results. `locks` is the verdict that farmers should reach about the two mounts."""

    def __init__(self, folder: Path, places: tuple[Path, ...], locks: str, tasks: int, seed: int) -> None:
        self.places = places
        self.locks = locks
        self.tasks = tasks
        self.random = random.Random(seed)
        self.field = Field(folder, shared=places[0])
        self.place_of = {"node0": 0, "node1": 1, "node2": self.random.randrange(2)}
        self.faults_done = folder / "calm"
        self.names: set[str] = set()
        self.dead: dict[str, str] = {}
        wait = f"n=0; until [ -e {self.faults_done} ] || [ $((n += 1)) -gt 900 ]; do sleep 0.1; done"
        lasts = [f"sleep 0.{self.random.randrange(5, 25):02}"] * (tasks - LAST) + [wait] * LAST
        self.field.write(f"echo $TASKFARMER_ATTEMPT >> {self.field.ran}/$PROC_NUMBER; {one}" for one in lasts)

    # --- faults --------------------------------------------------------------------------------

    def run(self) -> None:
        node0, node1, node2 = self.start("node0"), self.start("node1", "--wait"), self.start("node2")
        for place in self.places:
            eventually(
                lambda place=place: self.lock_verdict_is_right(place), f"locks are found to be {self.locks}", 60, 0.2
            )
        happenings = [lambda: self.lose_power(node0), lambda: self.sleep(node1), lambda: self.requeue(node2)]
        self.random.shuffle(happenings)
        for number, happen in enumerate(happenings):
            self.reach((number + self.random.random()) / (len(happenings) + 1))
            happen()
        self.wake(node1)
        self.gone(node0)
        assert self.timed.status == AGAIN, self.timed.farmer.said
        last = self.start("node1", "--wait")
        self.faults_done.touch()
        for member in (self.requeued, last):
            assert member.status == 0, member.farmer.said

    def start(self, node: str, *options: object) -> WorkerHandle:
        """Start a farmer on a node, and wait until it has claimed tasks."""
        words = ("--proc", SLOTS, "--lease", LEASE, "--grace", 1, *options)
        farmer = self.field.start(*words, node=node, through=self.places[self.place_of[node]])

        def holds() -> str | None:
            assert not farmer.ended, farmer.said
            found = self.claims()
            return next((one for one in found if one.startswith(f"{node}-") and one not in self.names), None)

        name = str(eventually(holds, f"{node} takes tasks", 60))
        self.names.add(name)
        return WorkerHandle(farmer, name)

    def lose_power(self, member: WorkerHandle) -> None:
        """All processes of the node are killed at once. The node comes back with little time."""
        assert not member.farmer.ended, member.farmer.said
        member.farmer.kill_tree()
        assert member.status == -signal.SIGKILL
        self.timed = self.start("node0", "--timeout", f"{self.random.uniform(3, 6):.1f}")

    def requeue(self, member: WorkerHandle) -> None:
        assert not member.farmer.ended, member.farmer.said
        member.farmer.signal(signal.SIGUSR1)
        assert member.status == AGAIN, member.farmer.said
        self.requeued = self.start("node2")

    def sleep(self, member: WorkerHandle) -> None:
        """Stop the farmer alone, or all processes of its node."""
        assert not member.farmer.ended, member.farmer.said
        if self.random.random() < 0.5:
            member.farmer.signal(signal.SIGSTOP)
        else:
            member.farmer.stop_tree()

    def wake(self, member: WorkerHandle) -> None:
        """The farmer continues after the others declared it dead: it reports that and exits with an error."""
        self.gone(member)
        self.slept = member, self.recorded_by(member)
        member.farmer.continue_tree()
        assert member.status == NOT_RECORDED, member.farmer.said
        assert "expelled as dead" in member.farmer.said

    # --- observation ---------------------------------------------------------------------------

    def claims(self) -> dict[str, Any]:
        """The farmers that hold tasks."""
        state = state_of(self.field.workdir)
        return {name: entry for name, entry in state["farmers"].items() if entry[1]} if state else {}

    def reach(self, part: float) -> None:
        """Wait until this share of the list is finished."""

        def reached() -> bool:
            state = state_of(self.field.workdir)
            return state is not None and state["finished"] >= part * (self.tasks - LAST)

        eventually(reached, f"{part:.0%} of the list are finished", 240, 0.1)

    def gone(self, member: WorkerHandle) -> None:
        """Wait until others have expelled a farmer, and record the reason."""

        def why() -> str | None:
            said = re.compile(rf"{re.escape(member.name)} is dead \((.*)\); released its tasks")
            return next((match[1] for one in self.field.farmers if (match := said.search(one.said))), None)

        self.dead[member.name] = str(eventually(why, f"{member.name} is found dead", 15 * LEASE))

    def recorded_by(self, member: WorkerHandle) -> list[Line]:
        return [line for line in check(self.field.workdir).lines if line.journal == member.name]

    def lock_verdict_is_right(self, place: Path) -> bool:
        """Whether the farm, seen through a mount, reports the right verdict; locks can only fail between two mounts."""
        workdir = place / self.field.workdir.name
        environment = {**os.environ, "PYTHONPATH": str(TEST.parent)}
        words = [sys.executable, "-m", "taskfarmer", "status", str(workdir), "--json"]
        done = subprocess.run(words, env=environment, capture_output=True, text=True, timeout=60)
        if done.returncode:
            return False
        shown = json.loads(done.stdout)
        try:
            kept = sealed(workdir / "locks.json")
        except FileNotFoundError:
            return False
        if kept["locks"] == "local":
            assert len({self.place_of[node] for node in kept["between"]}) == 2, kept
        return len(set(kept["between"])) == 2 and (shown["locks"], kept["locks"]) == (self.locks, self.locks)

    # --- verdict -------------------------------------------------------------------------------

    def judge(self, kind: str) -> Report:
        """All results were recorded once, no farmer took a free lock for evidence, and no process is left."""
        field = self.field
        eventually(lambda: not field.strays(), "no process is left", 20)
        assert all(farmer.ended for farmer in field.farmers)
        report = check(field.workdir, views=True)
        runs = {int(path.name): Counter(map(int, path.read_text().split())) for path in field.ran.iterdir()}
        ends = [(line.task, line.attempt) for line in report.lines if line.outcome in ENDED]
        total = sum(sum(attempts.values()) for attempts in runs.values())
        lost = set(range(self.tasks)) - report.finished
        twice = {task for task, times in Counter(task for task, _ in ends).items() if times > 1}
        print(
            f"{kind}: {self.tasks} tasks, {len(field.farmers)} farmers, locks {self.locks}, {len(lost)} lost, "
            f"{len(twice)} twice, {total} runs ({(total - len(ends)) / len(ends):.1%} again); "
            + "; ".join(f"{name.split('-')[0]} dead: {why}" for name, why in self.dead.items())
        )
        assert report.problems == []
        assert (lost, twice, len(ends)) == (set(), set(), self.tasks)
        assert [end for end in ends if not runs[end[0]][end[1]]] == [], "recorded, and never ran"
        assert {task: found for task, found in runs.items() if max(found.values()) > 1} == {}, "an attempt ran twice"
        asleep, before = self.slept
        assert self.recorded_by(asleep) == before, "a farmer that was taken for dead recorded something"
        assert all(self.lock_verdict_is_right(place) for place in self.places)
        for farmer in field.farmers:
            assert "Traceback" not in farmer.said, farmer.said
            assert "its lock is free" not in farmer.said, farmer.said
        return report

    def close(self) -> None:
        self.field.close()
