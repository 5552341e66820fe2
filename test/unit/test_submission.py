"""Job scripts and their jobs: the scripts equal the examples, and schedulers are asked about the right jobs."""

from __future__ import annotations

import json
import os
import re
import subprocess
from pathlib import Path

import pytest

from support.farming import eventually
from support.house import PROGRAMS, TOP, Done, House
from taskfarmer.formats.sealed import sealed
from taskfarmer.launch.jobs import FarmerInfo, jobs_at_work
from taskfarmer.launch.request import Request
from taskfarmer.launch.schedulers import GRID_ENGINE, SLURM
from taskfarmer.storage.layout import Workdir

EXAMPLES = TOP / "examples"
LOOP = re.compile(r"^farmer=\$!$.*^wait \"\$farmer\"; status=\$\?$", re.MULTILINE | re.DOTALL)
RETURNING = Request("/list", "list", ("pytaskfarmer.py",), time=43200.0, time_min=1800.0, requeue=True)


class Site:
    """A house with stubs of a scheduler's programs."""

    def __init__(self, house: House) -> None:
        self.house = house
        self.bin = house.folder / "bin"
        self.bin.mkdir()
        self.environ = {"PATH": f"{self.bin}:{os.environ['PATH']}"}
        house.write("true\n")

    def program(self, name: str, text: str) -> None:
        (self.bin / name).write_text(f"#!/bin/bash\n{text}\n")
        (self.bin / name).chmod(0o755)

    def verb(self, *words: object) -> Done:
        return self.house.process([*PROGRAMS["taskfarmer"], *map(str, words)], environ=self.environ)

    def jobs(self) -> list[tuple[str, str, str | None]]:
        done = self.verb("jobs", "list.txt_workdir", "--json")
        assert done.status == 0, done.stderr
        document = json.loads(done.out)
        assert document["warnings"] == []
        return [(one["job"], one["state"], one["cluster"]) for one in document["jobs"]]


@pytest.fixture
def site(house: House) -> Site:
    return Site(house)


# --- scripts ------------------------------------------------------------------------------------------


def loop(script: str) -> list[str]:
    """The lines from the pid of the farmer to its exit status."""
    match = LOOP.search(script)
    assert match is not None, script
    return [line for line in match[0].splitlines() if line and not line.startswith("#")]


def test_a_script_for_grid_engine_waits_for_its_farmer_as_the_example_does() -> None:
    example = loop((EXAMPLES / "gridengine" / "array.sh").read_text())
    assert loop(GRID_ENGINE.script(Request("/list", "list", ("pytaskfarmer.py",), array=3))) == example
    assert len(example) == 4


def test_a_script_that_requeues_itself_waits_for_its_farmer_as_the_example_does() -> None:
    text = (EXAMPLES / "slurm" / "flex.sh").read_text()
    script = SLURM.script(RETURNING)
    for_nersc = re.compile(r"setup|again=|ckpt_|trap |job=")
    assert [line for line in loop(text) if not for_nersc.match(line) and "$setup" not in line] == [
        line for line in loop(script) if not for_nersc.match(line)
    ]
    (name,) = re.findall(r"^job=.*$", text, re.MULTILINE)
    (limits,) = re.findall(r"^if \[\[ \$status .* then", text, re.MULTILINE)
    assert name in script.splitlines()
    assert limits in script.splitlines()
    for written in (text, script):
        (farmer,) = re.findall(r"^env --block-signal=.*&$", written.replace("\\\n", ""), re.MULTILINE)
        assert {"--wait", "--grace"} <= set(re.findall(r"--[a-z]+", farmer))


def test_options_of_the_user_for_a_script_that_requeues_itself_are_not_given_twice() -> None:
    script = SLURM.script(
        Request("/list", "list", ("farm",), ("--wait", "--grace=5"), time_min=1800.0, requeue=True, grace=5.0)
    )
    (farmer,) = re.findall(r"^env --block-signal=.*&$", script.replace("\\\n", ""), re.MULTILINE)
    assert re.findall(r"--(?:wait|grace)\S*", farmer) == ["--wait", "--grace=5"]


@pytest.mark.parametrize("script", ["flex.sh", "submit", "submit --array"])
@pytest.mark.parametrize(
    ("variables", "job"),
    [
        ({"SLURM_JOB_ID": "10"}, "10"),
        ({"SLURM_JOB_ID": "12", "SLURM_ARRAY_JOB_ID": "10", "SLURM_ARRAY_TASK_ID": "4"}, "10_4"),
        # the job ID of the last element of an array is that of the array
        ({"SLURM_JOB_ID": "10", "SLURM_ARRAY_JOB_ID": "10", "SLURM_ARRAY_TASK_ID": "0"}, "10_0"),
    ],
)
def test_a_job_requeues_only_itself(site: Site, script: str, variables: dict[str, str], job: str) -> None:
    text = {
        "flex.sh": (EXAMPLES / "slurm" / "flex.sh").read_text(),
        "submit": SLURM.script(RETURNING),
        "submit --array": SLURM.script(
            Request("/l", "l", ("pytaskfarmer.py",), array=4, time_min=1800.0, requeue=True)
        ),
    }[script]
    path = site.house.folder / "job.sh"
    path.write_text(text)
    site.program("pytaskfarmer.py", "exit 75")
    site.program("scontrol", f'echo "$@" >>{site.house.folder}/requeued')
    words = ["bash", str(path), "list.txt"]
    environ = {**site.environ, "SLURM_CPUS_PER_TASK": "2", "VARIABLE_TIME_JOB": "/nosuch", **variables}
    assert site.house.process(words, environ=environ).status == 75
    assert (site.house.folder / "requeued").read_text() == f"requeue {job}\n"


# --- answers of schedulers ----------------------------------------------------------------------------


def test_a_job_whose_id_was_printed_is_recorded_with_any_exit_status(site: Site) -> None:
    """`sbatch --wait` exits with the status of the job, such as 75."""
    site.program("sbatch", "echo 4711; exit 75")
    done = site.verb("submit", "list.txt", "--", "--wait")
    assert (done.status, done.stderr) == (0, "")
    site.program("squeue", "echo '4711|RUNNING|1|N/A|None'")
    assert site.jobs() == [("4711", "RUNNING", None)]


def test_jobs_of_a_named_cluster_are_queried_on_this_cluster_only(site: Site) -> None:
    asked = site.house.folder / "asked"
    site.program("sbatch", 'case "$*" in *far*) echo "4711;far";; *) echo 4711;; esac')
    site.program(
        "squeue",
        f'echo "$@" >>{asked}\n'
        "case \"$*\" in *'-M far'*) echo CLUSTER: far; echo '4711|PENDING|1|N/A|None';; "
        "*) echo '4711|RUNNING|1|N/A|None';; esac",
    )
    for options, cancel in ((("--", "-M", "far"), "scancel -M far 4711"), ((), "scancel 4711")):
        done = site.verb("submit", "list.txt", *options)
        assert done.status == 0, done.stderr
        assert f" {cancel}\n" in done.out
    assert site.jobs() == [("4711", "RUNNING", None), ("4711", "PENDING", "far")]
    here, far = sorted(asked.read_text().splitlines())
    assert here.startswith("--noheader")
    assert far.startswith("-M far ")


def test_farmers_on_a_named_cluster_are_counted_with_its_job(site: Site) -> None:
    site.program("sbatch", 'echo "7;far"')
    assert site.verb("submit", "list.txt", "--", "-M", "far").status == 0
    site.house.write("until [ -e go ]; do sleep 0.05; done\n")
    site.program("squeue", "[ \"$1 $2\" = '-M far' ] && echo '7|RUNNING|1|N/A|None' || echo '7|FAILED|1|N/A|None'")
    variables = {"SLURM_JOB_ID": "7", "SLURM_CLUSTER_NAME": "far"}
    words = [*PROGRAMS["taskfarmer"], "run", "list.txt", "--timeout", "none"]
    environ = {**site.house.environ, **variables}
    farmer = subprocess.Popen(words, cwd=site.house.folder, env=environ, stderr=subprocess.DEVNULL)
    try:
        eventually((site.house.workdir / "logs" / "log_0").exists, "the task runs")
        assert site.jobs() == [("7", "RUNNING", "far")]
    finally:
        (site.house.folder / "go").touch()
        assert farmer.wait(60) == 0


def test_names_with_invalid_bytes_do_not_hide_the_jobs_of_grid_engine(site: Site) -> None:
    site.program("qsub", "echo 12")
    job = "<job_list><JB_job_number>12</JB_job_number><JB_owner>M\\374ller</JB_owner><state>r</state></job_list>"
    site.program("qstat", f"printf \"<?xml version='1.0'?><job_info>{job}</job_info>\"")
    assert site.verb("submit", "list.txt", "--scheduler", "gridengine").status == 0
    assert site.jobs() == [("12", "RUNNING", None)]


def test_the_end_of_another_job_with_the_same_number_is_not_shown(tmp_path: Path) -> None:
    workdir = Workdir.at(str(tmp_path))
    os.makedirs(workdir.jobs)
    Path(workdir.job("8-0")).write_bytes(sealed({"job": "8", "cluster": "there", "end": 4e9}))
    for cluster, end in (("here", None), ("there", 4e9)):
        worker = FarmerInfo({"SLURM_JOB_ID": "8", "SLURM_CLUSTER_NAME": cluster}, "n1", 1, 0, "alive")
        ((job,), _) = jobs_at_work(workdir, [worker], [], {"PATH": "/nowhere"}, 10)
        assert job.ends == end
