"""The findings of doctors on several nodes: shared and unshared locks, and peers that do not appear or die."""

from __future__ import annotations

import json
import random
import time
from pathlib import Path
from typing import Any

import pytest

from support.doctors import FOLDER, Doctor, Report, doctors, examine, left_behind, need_nodes, together
from support.farming import eventually, mounts, sshfs_mounts
from support.glusterfs import Volume


def peer(report: Report) -> dict[str, Any]:
    (found,) = report.json["peers"]
    assert isinstance(found, dict)
    return found


def signs(directory: Path) -> dict[str, dict[str, Any]]:
    """The contents of the doctors' files, by host."""
    found = {}
    for path in directory.glob(f"{FOLDER}/*.sign"):
        try:
            says = json.loads(path.read_text())
        except (OSError, ValueError):
            continue
        found[says["host"]] = says
    return found


def test_two_nodes_on_one_directory_prove_that_it_is_shared(directory: Path) -> None:
    for report in together(directory, directory):
        assert report.status == 0, report.out + report.error
        found = peer(report)
        assert found["alive_lock"] == "shared"
        assert found["links"] == "agreed"
        assert found["farm_lock"] is None
        assert found["contents"]["count"] >= 3
        assert found["names"] > 0
        assert abs(found["clock"]) <= found["clock_error"] + 0.001
    assert left_behind(directory) == []


def test_locks_that_do_not_exclude_between_two_mounts_are_detected(directory: Path, tmp_path: Path) -> None:
    with mounts(directory, tmp_path / "one", tmp_path / "two") as places:
        reports = together(*places)
    for report in reports:
        assert report.status == 1, report.out + report.error
        assert peer(report)["alive_lock"] == "local"
        assert peer(report)["links"] == "agreed"
        assert report.states["locks between nodes"] == "slow"
        assert report.states["flock here"] == "proven"
    assert left_behind(directory) == []


def test_locks_that_are_forwarded_between_two_mounts_are_shared(directory: Path, tmp_path: Path) -> None:
    options = ("--enable-lock-forwarding",)
    with mounts(directory, tmp_path / "one", tmp_path / "two", options=options) as places:
        reports = together(*places)
    for report in reports:
        assert report.status == 0, report.out + report.error
        assert peer(report)["alive_lock"] == "shared"


@pytest.mark.timeout(600)
def test_sshfs_excludes_by_link_and_its_locks_are_local_to_each_mount(directory: Path, tmp_path: Path) -> None:
    with sshfs_mounts(directory, tmp_path / "one", tmp_path / "two") as places:
        reports = together(*places, options=("--wait", "2m"))  # the caches are valid for 20 s
    for report in reports:
        assert report.status == 1, report.out + report.error
        assert peer(report)["alive_lock"] == "local"
        assert peer(report)["links"] == "agreed"
        assert report.states["link excludes"] == "proven"
        assert report.json["directory"]["mount"]["type"] == "fuse.sshfs"


def test_two_clients_of_glusterfs_share_their_locks(volume: Volume) -> None:
    for report in together(*volume.places):
        assert report.status == 0, report.out + report.error
        assert peer(report)["alive_lock"] == "shared"
        assert report.json["directory"]["mount"]["type"] == "fuse.glusterfs"
    for place in volume.places:
        eventually(lambda place=place: not (place / FOLDER).exists(), "the end of the folder")


def test_a_lock_directory_that_differs_between_nodes_is_detected(directory: Path, tmp_path: Path) -> None:
    need_nodes()
    scratch = [tmp_path / "scratch0", tmp_path / "scratch1"]
    started = []
    for number, path in enumerate(scratch):
        path.mkdir()
        started.append(Doctor(directory, "--nodes", 2, "--lock-dir", path, node=f"node{number}"))
    for report in [doctor.wait() for doctor in started]:
        assert report.status == 1, report.out + report.error
        assert peer(report)["alive_lock"] == "shared"
        assert report.states["lock directory between nodes"] == "slow"
    assert left_behind(scratch[0]) == left_behind(scratch[1]) == left_behind(directory) == []


def test_a_shared_lock_directory_is_proven_with_locks_in_it(directory: Path, tmp_path: Path) -> None:
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    for report in together(directory, directory, options=("--lock-dir", scratch)):
        assert report.status == 0, report.out + report.error
        assert peer(report)["farm_lock"] == "shared"
    assert left_behind(scratch) == []


def test_peers_that_never_appear_prove_nothing(directory: Path) -> None:
    report = examine(directory, "--nodes", 3, "--wait", "0.5")
    assert report.status == 2
    assert report.json["peers"] == []
    assert report.states["other nodes"] == "unsafe"
    assert "0 of 2" in report.check("other nodes")["found"]
    assert left_behind(directory) == []


def test_a_second_doctor_of_the_same_node_does_not_count_as_another_node(directory: Path) -> None:
    started = [Doctor(directory, "--nodes", 2, "--wait", 1) for _ in range(2)]
    for report in [doctor.wait() for doctor in started]:
        assert report.status == 2
        assert report.json["peers"] == []
    assert left_behind(directory) == []


def test_files_of_a_killed_doctor_on_another_node_are_not_mistaken_for_a_peer(directory: Path) -> None:
    with doctors(directory, count=2, options=("--wait", 60)) as (killed,):
        eventually(lambda: signs(directory).get("node0", {}).get("beat", 0) > 2, "a doctor that waits")
        killed.kill()
    (debris,) = signs(directory).values()
    report = examine(directory, "--nodes", 2, "--wait", "0.3")
    assert report.status == 2
    assert report.json["peers"] == []
    reports = together(directory, directory)
    assert [report.status for report in reports] == [0, 0]
    assert {found["doctor"] for report in reports for found in report.json["peers"]}.isdisjoint({debris["doctor"]})


def test_a_peer_that_is_killed_in_the_middle_causes_no_wrong_verdict(directory: Path, tmp_path: Path) -> None:
    _kill_one_of_two(directory, tmp_path, lying=True, after=0.0)


@pytest.mark.campaign
@pytest.mark.parametrize("lying", [False, True], ids=["shared", "local"])
@pytest.mark.parametrize("seed", range(15))
def test_a_peer_that_is_killed_at_any_time_causes_no_wrong_verdict(
    directory: Path, tmp_path: Path, lying: bool, seed: int
) -> None:
    _kill_one_of_two(directory, tmp_path, lying, random.Random(seed).uniform(0.0, 0.4))


def _kill_one_of_two(directory: Path, tmp_path: Path, lying: bool, after: float) -> None:
    options = () if lying else ("--enable-lock-forwarding",)
    truth = "local" if lying else "shared"
    with (
        mounts(directory, tmp_path / "one", tmp_path / "two", options=options) as places,
        doctors(*places, options=("--wait", 1)) as (killed, other),
    ):
        eventually(
            lambda: len(signs(directory)) == 2 and signs(directory)["node1"]["beat"] > 1, "two doctors that meet"
        )
        time.sleep(after)  # not a wait for an event: the time of the kill varies
        killed.kill()
        report = other.wait()
    for found in report.json["peers"]:
        assert found["alive_lock"] in (truth, "unknown")
        assert found["links"] in ("agreed", "unknown")
        assert report.status == 2 or (found["links"], found["alive_lock"]) == ("agreed", truth)
    assert report.json["peers"] or report.status == 2


@pytest.mark.campaign
def test_many_doctors_on_each_of_two_mounts_do_not_disturb_each_others_proofs(directory: Path, tmp_path: Path) -> None:
    with mounts(directory, tmp_path / "one", tmp_path / "two") as places:
        reports = together(*places * 4, options=("--wait", 60))
    for number, report in enumerate(reports):
        found = {peer["host"]: peer["alive_lock"] for peer in report.json["peers"]}
        assert len(found) >= 4
        for other in range(len(reports)):
            here = (other - number) % 2 == 0
            assert found.get(f"node{other}", "shared" if here else "local") == ("shared" if here else "local")


@pytest.mark.campaign
def test_a_dozen_nodes_prove_each_others_locks(directory: Path) -> None:
    for report in together(*[directory] * 12, options=("--wait", 60)):
        assert report.status == 0, report.out
        assert {found["alive_lock"] for found in report.json["peers"]} == {"shared"}
    assert left_behind(directory) == []
