"""If a file of a farm is damaged in any way, each verb names it with a remedy, rebuilds it, or is not affected.

The campaign runs all cases; the default tests run a fixed share of them.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from support import cases
from support.cases import Case
from support.halfdone import HalfDone

Halves = tuple[HalfDone, HalfDone]

SHARE = 31
"""One in this many cases is tried with the verbs that only read."""
FULL = (
    ("farm.json", "gone"),
    ("segment", "a bit flipped"),
    ("newest revision", "gone"),
    ("open journal", "gone"),
    ("timeline.json", "a FIFO"),
)
"""Cases that are tried with all verbs here, including `run` and the remedy."""
PROCESSES = 8
SLICES = 12


def describe(done: list[Case]) -> str:
    return "\n".join(f"{case.name}\n    " + "\n    ".join(case.faults) for case in done if case.faults)


def test_verbs_that_read_name_a_damaged_file_or_are_not_affected(halves: Halves, tmp_path: Path) -> None:
    chosen = cases.all_cases(halves[0])[::SHARE]
    done = cases.play(*halves, chosen, tmp_path, PROCESSES, whole=False)
    assert len(done) == len(chosen)
    assert describe(done) == ""


def test_a_farm_with_a_damaged_file_is_completed_or_refused_until_the_file_is_restored(
    halves: Halves, tmp_path: Path
) -> None:
    chosen = [case for case in cases.all_cases(halves[0]) if (case.kind, case.damage) in FULL and not case.seed]
    assert len(chosen) == len(FULL)
    done = cases.play(*halves, chosen, tmp_path, PROCESSES)
    assert len(done) == len(chosen)
    assert describe(done) == ""


@pytest.mark.campaign
@pytest.mark.timeout(900)
@pytest.mark.parametrize("part", range(SLICES))
def test_every_damage_of_every_file(halves: Halves, tmp_path: Path, part: int) -> None:
    chosen = cases.all_cases(halves[0])[part::SLICES]
    done = cases.play(*halves, chosen, tmp_path, PROCESSES)
    assert len(done) == len(chosen)
    assert describe(done) == ""
