"""PyTaskFarmer 0.1.0's documented commands, unchanged: under its name, in the user's directory."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import pytest

from support.farming import eventually
from support.farms import TEST, Farm, Farmer


@pytest.fixture
def user(farm: Farm) -> Farm:
    """A user with a checkout on PATH, a home directory, and a directory to work in."""
    farm.environment |= {
        "PATH": f"{TEST.parent}:{Path(sys.executable).parent}:{os.environ['PATH']}",
        "PYTHONPATH": "",
        "HOME": str(farm.folder / "home"),
    }
    (farm.folder / "home").mkdir()
    return farm


def type_in(user: Farm, line: str) -> Farmer:
    """Type a line in the user's directory; the shell becomes the command."""
    return user.start(words=["/bin/bash", "-c", f"exec {line}"])


def write_tasks(user: Farm, name: str, count: int, task: str) -> None:
    (user.folder / name).write_text("# my work\n\n" + "".join(f"{task.format(number)}\n" for number in range(count)))


def test_the_quick_start(user: Farm) -> None:
    write_tasks(user, "mywork.tasks", 100, "echo task {}")
    farmer = type_in(user, "pytaskfarmer.py --proc 8 --workdir myworkdir mywork.tasks")
    assert farmer.wait() == 0, farmer.said
    user.workdir = user.folder / "myworkdir"
    assert user.places() == ([], list(range(100)), [])
    assert user.view("finished")[99] == b"echo task 99"
    assert [user.log(number) for number in (0, 57)] == ["task 0\n", "task 57\n"]
    assert len(user.slices()) == 100
    user.check()


def test_the_default_work_directory_and_old_spellings_of_options(user: Farm) -> None:
    write_tasks(user, "mywork.tasks", 10, "echo task {}")
    farmer = type_in(user, "pytaskfarmer.py mywork.tasks -v True -n 4 --timeout 60 -r default -t default")
    assert farmer.wait() == 0, farmer.said
    user.workdir = user.folder / "mywork.tasks_workdir"
    assert user.places() == ([], list(range(10)), [])


def test_kill_and_restart(user: Farm) -> None:
    """Running the same command again continues the work of the killed farmer."""
    stay = f": > {user.started}/$PROC_NUMBER; [ -e go ] || sleep 1000"
    write_tasks(user, "mywork.tasks", 30, f"{stay}; echo task {{}}")
    user.workdir = user.folder / "myworkdir"
    line = "pytaskfarmer.py --proc 8 --workdir myworkdir mywork.tasks"
    for number in (signal.SIGUSR1, signal.SIGINT, signal.SIGKILL):
        farmer = type_in(user, line)
        user.wait_for_tasks(*range(8))
        farmer.signal(number)
        assert farmer.wait() == (75 if number != signal.SIGKILL else -9)
        user.no_survivors(15)
        for name in os.listdir(user.started):
            (user.started / name).unlink()
    (user.folder / "go").touch()
    farmer = type_in(user, line)
    assert farmer.wait() == 0, farmer.said
    assert user.places() == ([], list(range(30)), [])
    assert "task 29\n" in user.log(29)
    user.check()


def test_several_instances_on_one_list(user: Farm) -> None:
    write_tasks(user, "mywork.tasks", 200, "sleep 0.01; echo task {}")
    farmers = [type_in(user, "pytaskfarmer.py --proc 4 --workdir myworkdir mywork.tasks") for _ in range(3)]
    assert [farmer.wait() for farmer in farmers] == [0, 0, 0]
    user.workdir = user.folder / "myworkdir"
    assert user.places() == ([], list(range(200)), [])
    assert {line.attempt for line in user.check().lines} == {1}


def test_a_timeout(user: Farm) -> None:
    write_tasks(user, "mywork.tasks", 4, f": > {user.started}/{{}}; sleep 1000")
    farmer = type_in(user, "pytaskfarmer.py --timeout 2 --proc 2 mywork.tasks")
    assert farmer.wait() == 75
    user.workdir = user.folder / "mywork.tasks_workdir"
    assert user.places() == ([0, 1, 2, 3], [], [])
    user.no_survivors()


def test_a_runner_for_shifter_in_the_users_runners_d(user: Farm) -> None:
    """The `shifter` stub on PATH records its arguments and runs the rest: no container is created."""
    folder = user.folder / "home" / ".pytaskfarmer" / "runners.d"
    folder.mkdir(parents=True)
    (folder / "athena.ini").write_text(
        "[reco22]\n"
        "Runner = taskfarmer.runners.ShifterRunner\n"
        "image = zlmarshall/atlas-grid-centos7:20191110\n"
        "setup = source ${ATLAS_LOCAL_ROOT_BASE}/setup.sh && source ${AtlasSetup}/asetup.sh Athena,22.2,latest\n"
        "modules = cvmfs\n"
        "tempdir = True\n"
    )
    software = user.folder / "software"
    software.mkdir()
    (software / "setup.sh").write_text(f"export AtlasSetup={software}\n")
    (software / "asetup.sh").write_text("export RELEASE=$1\n")
    (user.folder / "bin").mkdir()
    (user.folder / "bin" / "shifter").write_text(
        '#!/bin/bash\nwords=()\nwhile [ "$1" != -- ]; do words+=("$1"); shift; done\nshift\n'
        f'printf "%s\\n" "${{words[@]}}" > "{user.folder}/arguments-$PROC_NUMBER"\nexec "$@"\n'
    )
    (user.folder / "bin" / "shifter").chmod(0o755)
    user.environment |= {
        "PATH": f"{user.folder / 'bin'}:{user.environment['PATH']}",
        "ATLAS_LOCAL_ROOT_BASE": str(software),
    }
    write_tasks(user, "mywork.tasks", 5, "echo {} with $RELEASE")
    farmer = type_in(user, "pytaskfarmer.py --proc 8 --runner reco22 --workdir myworkdir mywork.tasks")
    assert farmer.wait() == 0, farmer.said
    user.workdir = user.folder / "myworkdir"
    assert user.log(3) == "3 with Athena,22.2,latest\n"
    words = (user.folder / "arguments-3").read_text().splitlines()
    assert words[0] == "--image=zlmarshall/atlas-grid-centos7:20191110"
    assert "--module=cvmfs" in words
    user.check()


def test_a_handler_subclass_from_the_current_directory(user: Farm) -> None:
    (user.folder / "mytasks.py").write_text(
        "from taskfarmer import task\n\n\n"
        "class RecoTaskList(task.ListTaskList):\n"
        "    def __init__(self, path, workdir, events):\n"
        "        super().__init__(path, workdir)\n"
        "        self.events = int(events)\n\n"
        "    def __getitem__(self, taskid):\n"
        "        return 'echo reco --input {} --events {}'.format(self.tasks[taskid], self.events)\n"
    )
    (user.folder / "mytasks.ini").write_text("[reco]\nTaskList = mytasks.RecoTaskList\nevents = 1000\n")
    write_tasks(user, "mywork.tasks", 5, "input.{}.root")
    farmer = type_in(user, "pytaskfarmer.py --tasklist reco --proc 2 --workdir myworkdir mywork.tasks")
    assert farmer.wait() == 0, farmer.said
    user.workdir = user.folder / "myworkdir"
    assert user.log(4) == "reco --input input.4.root --events 1000\n"
    assert user.view("finished")[0] == b"echo reco --input input.0.root --events 1000"
    user.check()


def test_a_runner_class_from_the_current_directory(user: Farm) -> None:
    (user.folder / "myrunner.py").write_text(
        "import subprocess\n"
        "from taskfarmer import runners\n\n\n"
        "class NiceRunner(runners.Runner):\n"
        "    def __init__(self, nice):\n"
        "        super().__init__()\n"
        "        self.nice = nice\n"
        "        self.execute = None\n\n"
        "    def run(self, taskid, command, logfh):\n"
        "        words = ['nice', '-n', self.nice] + command.split()\n"
        "        self.execute = subprocess.Popen(words, stdout=logfh, stderr=logfh)\n"
        "        self.execute.communicate()\n"
        "        return self.execute.returncode\n\n"
        "    def terminate(self):\n"
        "        if self.execute is not None:\n"
        "            self.execute.kill()\n"
    )
    (user.folder / "runners.ini").write_text("[nicely]\nRunner = myrunner.NiceRunner\nnice = 7\n")
    (user.folder / "mywork.tasks").write_text("nice\nfalse\nsleep 1000\n")
    farmer = type_in(user, "pytaskfarmer.py -r nicely -n 1 -w myworkdir mywork.tasks")
    user.workdir = user.folder / "myworkdir"
    eventually(lambda: (user.workdir / "logs" / "log_2").exists(), "the last task runs")
    farmer.signal(signal.SIGUSR1)
    assert farmer.wait() == 75, farmer.said
    assert user.places() == ([2], [0], [1])
    assert user.log(0) == "7\n"
    user.no_survivors()
    user.check()


def test_a_work_directory_of_pytaskfarmer_itself_is_refused_with_an_explanation(user: Farm) -> None:
    write_tasks(user, "mywork.tasks", 3, "echo {}")
    old = user.folder / "myworkdir"
    (old / "logs").mkdir(parents=True)
    (old / "toprocess").write_text("1 echo 1\n2 echo 2\n")
    (old / "finished").write_text("0 echo 0\n")
    (old / "timeline.json").write_text("[]")
    farmer = type_in(user, "pytaskfarmer.py --workdir myworkdir mywork.tasks")
    assert farmer.wait() == 2
    assert "myworkdir" in farmer.said and "PyTaskFarmer" in farmer.said
    assert (old / "toprocess").read_text() == "1 echo 1\n2 echo 2\n"
    assert sorted(os.listdir(old)) == ["finished", "logs", "timeline.json", "toprocess"]
