"""The verdict and its exit status as a function of the findings."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from taskfarmer.doctor.findings import Findings, Links, OneNode, Peer, Renames, Times
from taskfarmer.doctor.judgement import Health, judge
from taskfarmer.storage.mountchecks import MountedPath
from taskfarmer.storage.mounts import Mount

QUICK = Times(20, 0.001, 0.002)
HERE = OneNode(
    Links(16, 4, 0, 0), Renames(50, 900, 0, 0, 0), QUICK, True, QUICK, "excludes", "excludes", QUICK, None, 0.0
)
OTHER = Peer("x-b-1", "b", False, "shared", None, False, "agreed", QUICK, 0.1, 0.5, 0.01)


def place(path: str, type: str, options: str = "rw") -> MountedPath:
    return MountedPath(path, Mount("/", type, "source", tuple(options.split(","))))


ALONE = Findings("x-a-1", "a", place("/farm", "nfs4"), place("/farm", "nfs4"), HERE, 1, 0.0, ())
TWO = replace(ALONE, expected=2, waited=10.0, peers=(OTHER,))


def states(findings: Findings) -> dict[str, str]:
    return {check.name: check.state for check in judge(findings).checks}


def test_one_node_is_safe_and_lists_the_missing_proofs() -> None:
    judged = judge(ALONE)
    assert judged.health is Health.SAFE
    assert "other nodes were not tested" in judged.conclusion
    assert states(ALONE)["other nodes"] == "not proven"
    assert any("srun -N2 --kill-on-bad-exit=0 --wait=0 taskfarmer doctor DIR" in check.means for check in judged.checks)


def test_two_nodes_that_share_everything_are_safe_and_fast() -> None:
    assert judge(TWO).health is Health.SAFE
    assert states(TWO)["locks between nodes"] == states(TWO)["link between nodes"] == "proven"


@pytest.mark.parametrize("verdict", ["local", "unsupported", "unknown"])
def test_locks_that_are_not_proven_shared_are_slow(verdict: Any) -> None:
    found = replace(TWO, peers=(OTHER, replace(OTHER, host="c", alive_lock=verdict)))
    assert judge(found).health is Health.SLOW
    assert states(found)["locks between nodes"] == "slow"


@pytest.mark.parametrize("links", ["forked", "unknown"])
def test_names_that_are_not_proven_to_exclude_between_nodes_are_unsafe(links: Any) -> None:
    found = replace(TWO, peers=(OTHER, replace(OTHER, host="c", links=links)))
    assert judge(found).health is Health.UNSAFE


@pytest.mark.parametrize(
    ("expected", "met", "health"),
    [
        (2, 0, Health.UNSAFE),
        (4, 2, Health.UNSAFE),
        (4, 3, Health.SAFE),
        (1000, 4, Health.SAFE),
        (1000, 3, Health.UNSAFE),
    ],
)
def test_an_expected_node_that_does_not_appear_is_unsafe(expected: int, met: int, health: Health) -> None:
    peers = tuple(replace(OTHER, host=f"n{number}") for number in range(met))
    assert judge(replace(TWO, expected=expected, peers=peers)).health is health


def test_two_doctors_of_one_node_are_one_node() -> None:
    """Three nodes are expected, and the third one does not appear."""
    found = replace(TWO, expected=3, peers=(OTHER, replace(OTHER, doctor="y-b-2")))
    assert judge(found).health is Health.UNSAFE
    assert states(found)["other nodes"] == "unsafe"


@pytest.mark.parametrize(
    ("change", "health"),
    [
        ({"links": Links(16, 4, 1, 0)}, Health.UNSAFE),
        ({"links": Links(16, 4, 0, 0, "Operation not permitted")}, Health.UNSAFE),
        ({"links": Links(16, 4, 0, 3)}, Health.SAFE),
        ({"renames": Renames(50, 900, 0, 1, 0)}, Health.UNSAFE),
        ({"renames": Renames(50, 900, 0, 0, 1)}, Health.UNSAFE),
        ({"renames": Renames(50, 900, 9, 0, 0)}, Health.SAFE),
        ({"exclusion": "fails"}, Health.SLOW),
        ({"exclusion": "unsupported"}, Health.SLOW),
        ({"lock_exclusion": "fails"}, Health.SLOW),
        ({"lock_exclusion": None, "lock_cycle": None, "lock_trouble": "Permission denied"}, Health.SLOW),
        ({"directory_sync": False}, Health.SAFE),
    ],
)
def test_problems_of_names_are_unsafe_and_problems_of_locks_are_slow(change: dict[str, Any], health: Health) -> None:
    assert judge(replace(ALONE, here=replace(HERE, **change))).health is health


def test_a_node_local_lock_directory_for_a_shared_work_directory_is_slow() -> None:
    found = replace(ALONE, lock_directory=place("/scratch", "tmpfs"))
    assert judge(found).health is Health.SLOW
    assert any("--lock-dir" in check.means for check in judge(found).checks)


def test_a_lock_directory_that_other_nodes_do_not_see_is_slow() -> None:
    unseen = replace(TWO, lock_directory=place("/scratch", "nfs4"), peers=(replace(OTHER, farm_lock="unknown"),))
    assert judge(unseen).health is Health.SLOW
    seen = replace(unseen, peers=(replace(OTHER, farm_lock="shared", farm_lock_seen=True),))
    assert judge(seen).health is Health.SAFE


def test_mount_options_cause_a_warning_unless_a_proof_outweighs_them() -> None:
    lying = {
        "directory": place("/farm", "lustre", "localflock"),
        "lock_directory": place("/farm", "lustre", "localflock"),
    }
    assert judge(replace(ALONE, **lying)).health is Health.SLOW
    assert judge(replace(TWO, **lying)).health is Health.SAFE


def test_peers_on_the_same_machine_are_reported_as_such() -> None:
    found = replace(TWO, peers=(replace(OTHER, same_machine=True),))
    assert any("on this very machine" in check.means for check in judge(found).checks)
