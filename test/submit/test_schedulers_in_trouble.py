"""If a scheduler is missing, refuses, is slow or prints notes, its messages are shown, and known facts are kept."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest

from support.daemons import marked
from support.farming import eventually
from support.house import PROGRAMS, Done, House

MARK = "TASKFARMER_TEST_CLIENT"


class Site:
    """A house with stubs of a scheduler's programs."""

    def __init__(self, house: House) -> None:
        self.house = house
        self.bin = house.folder / "bin"
        self.bin.mkdir()
        for name in ("bash", "sleep", "cat"):
            (self.bin / name).symlink_to(f"/bin/{name}")
        house.write("true\n")

    def program(self, name: str, text: str) -> None:
        (self.bin / name).write_text(f"#!/bin/bash\n{text}\n")
        (self.bin / name).chmod(0o755)

    def verb(self, *words: object) -> Done:
        environ = {"PATH": str(self.bin), MARK: str(self.house.folder)}
        return self.house.process([*PROGRAMS["taskfarmer"], *map(str, words)], environ=environ)

    def kept(self) -> list[Path]:
        return sorted(self.house.workdir.glob("jobs/submitted/*"))

    def jobs(self) -> tuple[list[dict[str, object]], list[str]]:
        done = self.verb("jobs", "list.txt_workdir", "--json")
        assert done.status == 0, done.stderr
        document = json.loads(done.out)
        return document["jobs"], document["warnings"]


@pytest.fixture
def site(house: House) -> Site:
    return Site(house)


def test_a_missing_scheduler_is_an_error_that_touches_nothing(site: Site) -> None:
    for options, name in (((), "sbatch"), (("--scheduler", "gridengine"), "qsub")):
        done = site.verb("submit", "list.txt", *options)
        assert done.status == 2
        assert f"{name}: not in PATH" in done.error_line
    assert not site.house.workdir.exists()


def test_the_message_of_a_scheduler_that_refuses_is_shown_and_no_file_is_left(site: Site) -> None:
    site.program("sbatch", "echo sbatch: error: no money >&2; exit 1")
    site.program("qsub", "echo Unable to run job: no such queue >&2; exit 1")
    for options, words in (((), "sbatch: error: no money"), (("--scheduler", "gridengine"), "no such queue")):
        done = site.verb("submit", "list.txt", *options)
        assert done.status == 2
        assert words in done.error_line
        assert not site.house.workdir.exists()
    site.house.workdir.mkdir()
    (site.house.workdir / "mine").touch()
    assert site.verb("submit", "list.txt").status == 2
    assert os.listdir(site.house.workdir) == ["mine"]


def test_submit_gives_up_on_a_slow_scheduler_and_reports_that_the_result_is_unknown(site: Site) -> None:
    site.program("sbatch", "echo sbatch: waiting for the controller >&2; sleep 600 & wait")
    done = site.verb("submit", "list.txt", "--patience", "1")
    assert done.status == 2
    for words in ("did not answer within 1 s", "waiting for the controller", "may have been submitted nevertheless"):
        assert words in done.error_line
    eventually(lambda: not marked(f"{MARK}={site.house.folder}"), "nothing of the client is left", 5)
    assert [path.suffix for path in site.kept()] == [".json", ".sh"]
    jobs, (warning,) = site.jobs()
    assert jobs == []
    assert "may or may not have been submitted" in warning
    site.kept()[0].unlink()
    assert site.verb("jobs", "list.txt_workdir").status == 2


def test_a_slow_scheduler_that_has_printed_the_job_id_counts_as_success(site: Site) -> None:
    site.program("sbatch", "echo '4711;far'; sleep 600")
    site.program("squeue", "echo '4711|PENDING|1|N/A|Priority'")
    done = site.verb("submit", "list.txt", "--patience", "1")
    assert done.status == 0, done.stderr
    assert "job 4711" in done.out
    ((job,), warnings) = site.jobs()
    assert (job["job"], job["state"], job["reason"], job["cluster"]) == ("4711", "PENDING", "Priority", "far")
    assert warnings == []


def test_a_machine_with_qsub_only_is_recognized_as_grid_engine(site: Site) -> None:
    site.program("qsub", "echo 12.1-3:1")
    site.program("qstat", "echo '<job_info><job_list><JB_job_number>12</JB_job_number><state>hqw</state>'")
    done = site.verb("submit", "list.txt", "--array", "3")
    assert done.out.startswith("submitted to Grid Engine: job 12 of 3 elements\n"), done.stderr
    ((job,), (warning,)) = site.jobs()
    assert (job["job"], job["scheduler"], job["state"]) == ("12", "gridengine", "?")
    assert "qstat" in warning
    end = "<tasks>2-3:1</tasks></job_list></job_info>"
    site.program("qstat", f"echo '<job_info><job_list><JB_job_number>12</JB_job_number><state>hqw</state>{end}'")
    ((job,), warnings) = site.jobs()
    assert (job["job"], job["state"], warnings) == ("12_[2-3:1]", "PENDING", [])


def test_other_messages_of_a_scheduler_are_shown(site: Site) -> None:
    site.program("sbatch", "echo sbatch: 12 hours left in account >&2; echo 4711")
    done = site.verb("submit", "list.txt")
    assert done.status == 0
    assert done.stderr == "sbatch: 12 hours left in account\n"


def test_a_scheduler_that_prints_no_job_id_has_not_succeeded(site: Site) -> None:
    site.program("sbatch", "echo tomorrow perhaps")
    done = site.verb("submit", "list.txt")
    assert done.status == 2
    assert "tomorrow perhaps" in done.error_line
    assert not site.house.workdir.exists()


def test_without_an_answer_of_the_scheduler_the_state_of_a_job_is_unknown(site: Site) -> None:
    site.program("sbatch", "echo 4711")
    assert site.verb("submit", "list.txt").status == 0
    for text, why in (("echo no controller >&2; exit 1", "no controller"), (None, "No such file")):
        if text is None:
            (site.bin / "squeue").unlink()
        else:
            site.program("squeue", text)
        ((job,), (warning,)) = site.jobs()
        assert (job["job"], job["state"]) == ("4711", "?")
        assert why in warning
    site.program("squeue", "sleep 600")
    done = site.verb("jobs", "list.txt_workdir", "--patience", "0.5")
    assert done.status == 0
    assert done.out.splitlines()[1].split()[:3] == ["4711", "slurm", "?"]
    assert "timed out" in done.stderr


def test_a_job_that_has_ended_is_not_listed(site: Site) -> None:
    site.program("sbatch", "echo 4711")
    assert site.verb("submit", "list.txt").status == 0
    for text in ("echo '4711|COMPLETED|1|0|None'", "echo slurm_load_jobs error: Invalid job id specified >&2; exit 1"):
        site.program("squeue", text)
        done = site.verb("jobs", "list.txt_workdir")
        assert (done.out, done.stderr) == ("no running or pending jobs for this farm\n", "")


def test_the_first_farmer_creates_the_farm_in_a_directory_that_only_contains_a_script(site: Site) -> None:
    site.program("sbatch", "echo 4711")
    site.program("squeue", "exit 0")
    assert site.verb("submit", "list.txt").status == 0
    assert os.listdir(site.house.workdir) == ["jobs"]
    done = site.house.command("pytaskfarmer.py", "list.txt")
    assert done.status == 0, done.stderr
    assert done.view("finished") == ["0 true"]
    assert len(site.kept()) == 2
    assert site.house.verb("check", "list.txt_workdir").status == 0


def test_a_farmer_that_was_started_by_hand_is_listed_without_a_job(site: Site) -> None:
    site.house.write("until [ -e fast ]; do sleep 0.05; done\n")
    words = [*PROGRAMS["taskfarmer"], "run", "list.txt", "-n", "3"]
    farmer = subprocess.Popen(words, cwd=site.house.folder, env=site.house.environ, stderr=subprocess.DEVNULL)
    try:
        eventually((site.house.workdir / "logs" / "log_0").exists, "the task runs")
        ((job,), warnings) = site.jobs()
        assert (job["job"], job["scheduler"], job["farmers_alive"], job["slots"], job["held"]) == (None, None, 1, 3, 1)
        assert warnings == []
    finally:
        (site.house.folder / "fast").touch()
        assert farmer.wait(60) == 0
    assert site.jobs() == ([], [])


def test_jobs_for_a_directory_without_a_farm_is_a_usage_error(house: House) -> None:
    for name in ("nosuch", "home"):
        done = house.verb("jobs", name)
        assert done.status == 2
        assert "no farm here" in done.error_line
