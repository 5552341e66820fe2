"""Each file of a farm in each kind of damage, against every verb: named with a remedy, rebuilt, or without effect.

All cases are the campaign; here a share of them, the same ones each time.
"""

from __future__ import annotations

from pathlib import Path

import cases
import pytest
from cases import Case
from halfdone import HalfDone

Halves = tuple[HalfDone, HalfDone]

SHARE = 31
"""One case of so many is looked at by the verbs that only read."""
FULL = (
    ("farm.json", "gone"),
    ("segment", "a bit flipped"),
    ("newest revision", "gone"),
    ("open journal", "gone"),
    ("timeline.json", "a FIFO"),
)
"""Cases of which all verbs are tried here, `run` and the remedy too."""
PROCESSES = 8
SLICES = 12


def told(done: list[Case]) -> str:
    return "\n".join(f"{case.name}\n    " + "\n    ".join(case.faults) for case in done if case.faults)


def test_a_damaged_file_is_named_or_without_effect_for_verbs_that_read(halves: Halves, tmp_path: Path) -> None:
    chosen = cases.all_cases(halves[0])[::SHARE]
    done = cases.play(*halves, chosen, tmp_path, PROCESSES, whole=False)
    assert len(done) == len(chosen)
    assert told(done) == ""


def test_a_farm_with_a_damaged_file_comes_to_its_end_or_is_refused_until_it_is_restored(
    halves: Halves, tmp_path: Path
) -> None:
    chosen = [case for case in cases.all_cases(halves[0]) if (case.kind, case.damage) in FULL and not case.seed]
    assert len(chosen) == len(FULL)
    done = cases.play(*halves, chosen, tmp_path, PROCESSES)
    assert len(done) == len(chosen)
    assert told(done) == ""


@pytest.mark.campaign
@pytest.mark.timeout(900)
@pytest.mark.parametrize("part", range(SLICES))
def test_every_damage_of_every_file(halves: Halves, tmp_path: Path, part: int) -> None:
    chosen = cases.all_cases(halves[0])[part::SLICES]
    done = cases.play(*halves, chosen, tmp_path, PROCESSES)
    assert len(done) == len(chosen)
    assert told(done) == ""
