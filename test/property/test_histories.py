"""The whole ledger on a simulated file system: after any events, each task is in one place, and is recorded once.

A failed run is printed as the events that lead to it, and can be pasted into a test. `history(SEED)` in farmyard.py
repeats a run of the campaign.
"""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule, run_state_machine_as_test

from support.simulated.farmyard import NODES, Farmyard, farmyard, history
from support.simulated.world import Faults, faults_of

RUNS = 300
CAMPAIGN = 20_000
SLICES = 20


@st.composite
def draw_faults(draw: st.DrawFn) -> Faults:
    """Faults that Hypothesis can drop one by one when it shrinks a failure."""
    seed = draw(st.integers(0, 2**32 - 1))
    return faults_of(seed, lambda choices: draw(st.sampled_from(choices)))


class Farm(RuleBasedStateMachine):
    """Events in a farm with working farmers; after each event all processes continue for a while."""

    yard: Farmyard
    fine = True

    @initialize(faults=draw_faults(), nodes=st.lists(st.integers(0, 2), min_size=1, max_size=3))
    def found(self, faults: Faults, nodes: list[int]) -> None:
        self.world = farmyard(faults)
        self.yard = self.world.__enter__()
        for node in nodes:
            self.yard.farmer_starts(node)
        self.go_on(200)

    def go_on(self, calls: int) -> None:
        self.fine = False
        self.yard.run(calls)
        self.fine = True

    @rule(node=st.integers(0, len(NODES) - 1), calls=st.integers(0, 400))
    def a_farmer_starts(self, node: int, calls: int) -> None:
        self.yard.farmer_starts(node)
        self.go_on(calls)

    @rule(which=st.integers(0, 5), seconds=st.sampled_from((1.0, 15.0, 40.0, 80.0)), calls=st.integers(0, 400))
    def a_farmer_sleeps(self, which: int, seconds: float, calls: int) -> None:
        self.yard.farmer_sleeps(which, seconds)
        self.go_on(calls)

    @rule(which=st.integers(0, 5), calls=st.integers(0, 400))
    def a_farmer_is_killed(self, which: int, calls: int) -> None:
        self.yard.farmer_is_killed(which)
        self.go_on(calls)

    @rule(node=st.integers(0, len(NODES) - 1), some=st.booleans(), calls=st.integers(0, 400))
    def tasks_are_retried(self, node: int, some: bool, calls: int) -> None:
        self.yard.retry(node, some)
        self.go_on(calls)

    @rule(tasks=st.integers(1, 9), calls=st.integers(0, 400))
    def the_list_grows(self, tasks: int, calls: int) -> None:
        self.yard.list_grows(tasks)
        self.go_on(calls)

    @rule(node=st.integers(0, len(NODES) - 1), calls=st.integers(0, 400))
    def a_node_crashes(self, node: int, calls: int) -> None:
        self.yard.node_crashes(node)
        self.go_on(calls)

    @rule()
    def the_power_fails(self) -> None:
        self.fine = False
        self.yard.power_fails()
        self.fine = True

    @rule(full=st.booleans(), calls=st.integers(0, 200))
    def the_disk_is_full_or_not(self, full: bool, calls: int) -> None:
        self.yard.disk_fills(full)
        self.go_on(calls)

    @rule(calls=st.integers(0, 400))
    def the_farm_is_deleted_and_recreated(self, calls: int) -> None:
        self.yard.farm_is_deleted()
        self.go_on(calls)

    def teardown(self) -> None:
        """A clean farmer completes the list after any events; stopped farmers wake up later and change nothing."""
        if not hasattr(self, "world"):
            return
        try:
            if self.fine:
                self.yard.end(ghosts=self.yard.faults.seed % 2 == 0)
        finally:
            self.world.__exit__(None, None, None)


def test_each_task_is_in_one_place_and_is_recorded_once() -> None:
    run_state_machine_as_test(
        Farm,
        settings=settings(
            max_examples=RUNS, stateful_step_count=12, deadline=None, suppress_health_check=list(HealthCheck)
        ),
    )


def test_a_seed_reproduces_the_same_run() -> None:
    for seed in range(5):
        one, other = history(seed), history(seed)
        assert (one.steps, one.now) == (other.steps, other.now)
        assert [moment.document for moment in one.oracle.moments] == [
            moment.document for moment in other.oracle.moments
        ]


@pytest.mark.campaign
@pytest.mark.timeout(900)
@pytest.mark.parametrize("part", range(SLICES))
def test_twenty_thousand_histories(part: int) -> None:
    size = CAMPAIGN // SLICES
    for seed in range(part * size, (part + 1) * size):
        try:
            history(seed)
        except BaseException:
            print(f"history({seed}) of test/property/farmyard.py fails")
            raise
