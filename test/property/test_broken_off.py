"""Farmers that abort an exchange between two operations, and leave with a farewell note, with all kinds of faults."""

from __future__ import annotations

from dataclasses import replace

import pytest

from support.simulated.farmyard import history
from support.simulated.world import Faults, faults_of

SEEDS = 300
CAMPAIGN = 20_000


@pytest.mark.parametrize("slice_", range(3))
def test_each_task_is_recorded_once_if_any_exchange_is_aborted(slice_: int) -> None:
    notes = sum(len(history(seed, stopping(seed)).farewells) for seed in range(slice_, SEEDS, 3))
    assert notes > SEEDS / 10, "nothing was broken off"


@pytest.mark.campaign
@pytest.mark.parametrize("slice_", range(20))
def test_each_task_is_recorded_once_in_many_histories(slice_: int) -> None:
    for seed in range(10**6 + slice_, 10**6 + CAMPAIGN, 20):
        history(seed, stopping(seed))


def stopping(seed: int) -> Faults:
    return replace(faults_of(seed), stops=0.01)
