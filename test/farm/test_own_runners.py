"""Custom runners, written for PyTaskFarmer, and Shifter with a stub of its program."""

from __future__ import annotations

import signal
import sys

import pytest

from support.farming import eventually
from support.farms import Farm

# PyTaskFarmer's signature and conventions: Popen in `run`, kill in `terminate`
OLD = """
import os
import subprocess

from taskfarmer.runners import BasicRunner, CommandRunner, Runner


class Old(Runner):
    def __init__(self, greeting='hello'):
        super().__init__()
        self.greeting = greeting
        self.execute = None

    def run(self, taskid, command, logfh):
        my_env = os.environ
        my_env['PROC_NUMBER'] = str(taskid)
        logfh.write('{} {}\\n'.format(self.greeting, taskid))
        logfh.flush()
        self.execute = subprocess.Popen(
            ['/bin/bash', '-c', command], stdin=None, stdout=logfh, stderr=logfh, env=my_env)
        self.execute.communicate()
        return self.execute.returncode

    def terminate(self):
        if self.execute is None:
            return
        self.execute.kill()


class NoBase:
    def run(self, taskid, command, logfh):
        return subprocess.call(command, shell=True, stdout=logfh, stderr=logfh)

    def terminate(self):
        pass


class Deaf(Old):
    def terminate(self):
        pass


class Raises:
    def run(self, taskid, command, logfh):
        if command == 'exit':
            raise SystemExit(3)
        if command == 'raise':
            raise RuntimeError('the magic is gone')
        if command == 'none':
            return None
        if command == 'close':
            logfh.close()
            raise KeyError('closed')
        print('printed', command)
        return 0

    def terminate(self):
        raise RuntimeError('no terminate')


class TerminateRaises(Old):
    def terminate(self):
        self.execute.kill()
        raise RuntimeError('no terminate')


class NoTerminate:
    def run(self, taskid, command, logfh):
        return subprocess.call(command, shell=True, stdout=logfh, stderr=logfh)


class Wrapped(BasicRunner):
    def argv(self, taskid, command):
        return ['/usr/bin/env', 'MINE=argv', *super().argv(taskid, command)]


class Patched(BasicRunner):
    def __init__(self):
        self.argv = lambda taskid, command: ['/usr/bin/env', 'MINE=argv', '/bin/bash', '-c', command]


class Surrounded(BasicRunner):
    def environment(self, taskid):
        return {'MINE': 'environment'}


class Dressed(BasicRunner):
    def __init__(self):
        self.environment = lambda taskid: {'MINE': 'dressed'}


class Cleaned(BasicRunner):
    def cleanup(self, taskid):
        super().cleanup(taskid)
        open('cleaned_%d' % taskid, 'x').close()


class Planned(CommandRunner):
    def plan(self, taskid, command):
        return ['/usr/bin/env', 'MINE=plan', '/bin/sh', '-c', command]

    def cleanup(self, taskid):
        raise RuntimeError('there is nothing to clean up')


class Rash(BasicRunner):
    def plan(self, taskid, command):
        raise RuntimeError('too early')
"""
INI = """
[old]
Runner = myrunners.Old
greeting = 100% good day

[plain]
Runner = myrunners.NoBase

[deaf]
Runner = myrunners.Deaf

[raises]
Runner = myrunners.Raises

[angry]
Runner = myrunners.TerminateRaises

[endless]
Runner = myrunners.NoTerminate

[wrapped]
Runner = myrunners.Wrapped

[patched]
Runner = myrunners.Patched

[surrounded]
Runner = myrunners.Surrounded

[dressed]
Runner = myrunners.Dressed

[cleaned]
Runner = myrunners.Cleaned

[planned]
Runner = myrunners.Planned

[rash]
Runner = myrunners.Rash
"""


@pytest.fixture
def plugged(farm: Farm) -> Farm:
    """A farm whose list has a module of runners next to it, and the INI file that defines them."""
    (farm.folder / "myrunners.py").write_text(OLD)
    (farm.folder / "runners.ini").write_text(INI)
    return farm


def test_a_runner_from_a_module_next_to_the_list_runs_every_task(plugged: Farm) -> None:
    plugged.write("echo $PROC_NUMBER $TASKFARMER_TASK_ID $TASKFARMER_ATTEMPT", "exit 4", "kill -9 $$", *["true"] * 20)
    farmer = plugged.run("-n", 3, "-r", "old")
    assert farmer.wait() == 1, farmer.said
    assert plugged.log(0) == "100% good day 0\n0 0 1\n"
    ends = {one["args"]["id"]: (one["args"]["exit_status"], one["args"]["signal"]) for one in plugged.slices()}
    assert (ends[0], ends[1], ends[2]) == ((0, 0), (4, 0), (0, 9))
    assert plugged.places() == ([], [0, *range(3, 23)], [1, 2])
    plugged.no_survivors()
    plugged.check()


SHORT_LIVED = """
import sys
from taskfarmer.start import taskfarmer
from taskfarmer.worker import plugin
plugin.TASKS_PER_WORKER = int(sys.argv[1])
sys.argv[1:2] = ['run']
taskfarmer()
"""


@pytest.mark.parametrize(("slots", "tasks", "limit"), [(1, 200, 5), (2, 60, 1), (3, 300, 20)])
def test_a_worker_is_replaced_when_it_has_run_many_tasks(plugged: Farm, slots: int, tasks: int, limit: int) -> None:
    plugged.write(*["echo $PPID; sleep 0.02"] * tasks)
    words = [sys.executable, "-c", SHORT_LIVED, str(limit), str(plugged.list), "-n", str(slots), "-r", "plain", "-v"]
    farmer = plugged.run(words=words)
    assert farmer.wait(60) == 0, farmer.said
    assert "warning" not in farmer.said
    workers = [plugged.log(number) for number in range(tasks)]
    assert len(set(workers)) > slots
    assert [plugged.attempts(number) for number in range(tasks)] == [[(1, "finished")]] * tasks
    plugged.no_survivors()
    plugged.check()


def test_a_worker_is_not_replaced_as_long_as_a_process_that_a_task_left_runs(plugged: Farm) -> None:
    plugged.write("echo $PPID; (setsid sleep 1000 >/dev/null 2>&1 &)", *["echo $PPID; sleep 0.01"] * 20)
    farmer = plugged.run(words=[sys.executable, "-c", SHORT_LIVED, "2", str(plugged.list), "-n", "1", "-r", "plain"])
    assert farmer.wait() == 0, farmer.said
    assert len({plugged.log(number) for number in range(21)}) == 1
    plugged.no_survivors()


@pytest.mark.parametrize(
    ("runner", "stop"),
    [
        ("old", signal.SIGUSR1),
        ("old", signal.SIGTERM),
        ("old", signal.SIGINT),
        ("deaf", signal.SIGUSR1),
        ("angry", signal.SIGUSR1),
        ("endless", signal.SIGUSR1),
    ],
)
def test_a_farmer_with_a_custom_runner_can_be_stopped(plugged: Farm, runner: str, stop: signal.Signals) -> None:
    stay = "[ $TASKFARMER_ATTEMPT -gt 1 ] || sleep 1000"
    twice = "[ $TASKFARMER_ATTEMPT -gt 1 ] || { (setsid sleep 1000 &) ; trap '' TERM; while :; do sleep 0.2; done; }"
    plugged.write(plugged.marked(stay), plugged.marked(twice), "true")
    farmer = plugged.start("-n", 2, "-r", runner, "--grace", 1)
    plugged.wait_for_tasks(0, 1)
    farmer.signal(stop)
    assert farmer.wait() == 75, farmer.said
    plugged.no_survivors()
    assert plugged.places() == ([0, 1, 2], [], [])
    plugged.check()
    assert plugged.run("-n", 2, "-r", runner).wait() == 0
    assert plugged.places() == ([], [0, 1, 2], [])


def test_a_runner_that_raises_fails_only_its_task(plugged: Farm) -> None:
    plugged.write("first", "raise", "exit", "none", "close", "last")
    farmer = plugged.run("-n", 1, "-r", "raises")
    assert farmer.wait() == 1, farmer.said
    assert plugged.places() == ([], [0, 5], [1, 2, 3, 4])
    assert "RuntimeError: the magic is gone" in plugged.log(1)
    assert "SystemExit: 3" in plugged.log(2)
    assert "None" in plugged.log(3)
    assert "worker" not in farmer.said
    plugged.check()


@pytest.mark.parametrize(
    ("runner", "said"),
    [
        ("wrapped", "argv"),
        ("patched", "argv"),
        ("surrounded", "environment"),
        ("dressed", "dressed"),
        ("planned", "plan"),
        ("rash", "no"),
    ],
)
def test_a_subclass_of_our_runner_decides_which_program_is_started(plugged: Farm, runner: str, said: str) -> None:
    plugged.write(*["printenv MINE || echo no"] * 20, "/usr/bin/printenv PROC_NUMBER")
    assert plugged.run("-n", 2, "-r", runner).wait() == 0
    assert [plugged.log(number) for number in range(20)] == [f"{said}\n"] * 20
    assert plugged.log(20) == "20\n"


def test_a_custom_cleanup_is_called_after_each_task(plugged: Farm) -> None:
    plugged.write(*["true"] * 9, "false", "no-such-program")
    assert plugged.run("-n", 2, "-r", "cleaned").wait() == 1
    assert plugged.places() == ([], [*range(9)], [9, 10])
    assert sorted(path.name for path in plugged.folder.glob("cleaned_*")) == sorted(f"cleaned_{n}" for n in range(11))


def test_the_tasks_of_a_custom_runner_have_default_signals(plugged: Farm) -> None:
    plugged.write("head -60 /proc/self/status")
    assert plugged.run("-n", 1, "-r", "plain").wait() == 0
    found = dict(line.split(":\t", 1) for line in plugged.log(0).splitlines())
    assert {name: int(found[name], 16) & ~(3 << 31) for name in ("SigBlk", "SigIgn")} == {"SigBlk": 0, "SigIgn": 0}


def test_a_further_attempt_of_a_custom_runner_is_appended_to_the_log(plugged: Farm) -> None:
    plugged.write(plugged.marked("[ $TASKFARMER_ATTEMPT -gt 1 ] || sleep 1000"))
    farmer = plugged.start("-r", "old", "--grace", 1)
    plugged.wait_for_tasks(0)
    farmer.signal(signal.SIGUSR1)
    assert farmer.wait() == 75
    assert plugged.run("-r", "old").wait() == 0
    first, header, second = plugged.log(0).splitlines()
    assert (first, second) == ("100% good day 0", "100% good day 0")
    assert header.startswith("=== taskfarmer: attempt 2 on ")


@pytest.mark.parametrize(
    ("section", "words"),
    [
        ("Runner = nowhere.Missing", ["nowhere"]),
        ("Runner = myrunners.Missing", ["Missing"]),
        ("Runner = myrunners.Old\nmood = good", ["mood"]),
        ("Runner = Old", ["'Old'"]),
    ],
)
def test_the_error_for_a_wrong_definition_names_file_and_section_and_no_farm_is_created(
    plugged: Farm, section: str, words: list[str]
) -> None:
    (plugged.folder / "wrong.ini").write_text(f"[wrong]\n{section}\n")
    plugged.write("true")
    farmer = plugged.run("-r", "wrong")
    assert farmer.wait() == 2
    for word in [*words, "wrong.ini", "wrong"]:
        assert word in farmer.said
    assert "Traceback" not in farmer.said
    assert not plugged.workdir.exists()


def test_an_unknown_runner_is_refused_with_a_list_of_the_known_ones(plugged: Farm) -> None:
    plugged.write("true")
    farmer = plugged.run("-r", "nobody")
    assert farmer.wait() == 2
    assert "nobody" in farmer.said and "old" in farmer.said and "default" in farmer.said
    assert not plugged.workdir.exists()


def test_shifter_gets_its_options_and_the_setup_reaches_every_task(farm: Farm) -> None:
    """The `shifter` stub records its arguments and runs the words after `--`: no container is created."""
    stand_in(farm)
    (farm.folder / "shifter.ini").write_text(
        "[contained]\nRunner = taskfarmer.runners.ShifterRunner\nimage = some/image:1\n"
        "setup = export SET=up\n    function tell { echo told $1; }\n"
        "volumes = /a:/b /c:/d\nmodules = cvmfs gpu\ntempdir = True\n"
    )
    farm.environment |= {"TMPDIR": str(farm.folder / "tmp"), "BASH_ENV": "/no/such/file"}
    (farm.folder / "tmp").mkdir()
    farm.write('echo $SET "$PROC_NUMBER" [$BASH_ENV]', "tell me; echo 'a  b' | tr a A", "exit 7", farm.marked("true"))
    farmer = farm.run("-n", 2, "-r", "contained")
    assert farmer.wait() == 1, farmer.said
    assert farm.log(0) == "up 0 []\n"
    assert farm.log(1) == "told me\nA  b\n"
    assert farm.places() == ([], [0, 1, 3], [2])
    for number in range(4):
        words = (farm.folder / f"arguments-{number}").read_text().split("\n")[:-1]
        assert words[0] == "--image=some/image:1"
        assert words[1].startswith(f"--workdir={farm.folder}/tmp/")
        assert words[2:] == ["--volume=/a:/b", "--volume=/c:/d", "--module=cvmfs", "--module=gpu"]
    assert [*(farm.folder / "tmp").iterdir()] == []
    farm.check()


def test_tasks_in_shifter_are_killed_with_their_farmer_and_leave_no_directory(farm: Farm) -> None:
    """This test uses the `shifter` stub, too."""
    stand_in(farm)
    (farm.folder / "shifter.ini").write_text(
        "[contained]\nRunner = taskfarmer.runners.ShifterRunner\nimage = any\nsetup = false || true\ntempdir = True\n"
    )
    farm.environment |= {"TMPDIR": str(farm.folder / "tmp")}
    (farm.folder / "tmp").mkdir()
    farm.write(*[farm.marked("[ $TASKFARMER_ATTEMPT -gt 1 ] || sleep 1000")] * 3)
    farmer = farm.start("-n", 3, "-r", "contained", "--grace", 1)
    farm.wait_for_tasks(0, 1, 2)
    farmer.signal(signal.SIGUSR1)
    assert farmer.wait() == 75
    farm.no_survivors()
    assert [*(farm.folder / "tmp").iterdir()] == []
    assert farm.run("-n", 3, "-r", "contained").wait() == 0
    assert farm.places() == ([], [0, 1, 2], [])


def test_without_shifter_every_task_fails_with_the_reason(farm: Farm) -> None:
    (farm.folder / "shifter.ini").write_text("[contained]\nRunner = taskfarmer.runners.ShifterRunner\nimage = any\n")
    farm.write("true", "true")
    assert farm.run("-r", "contained").wait() == 1
    assert "shifter" in farm.log(0)
    assert [one["args"]["exit_status"] for one in farm.slices()] == [127, 127]


def stand_in(farm: Farm) -> None:
    folder = farm.folder / "bin"
    folder.mkdir()
    (folder / "shifter").write_text(
        '#!/bin/bash\nwords=()\nwhile [ "$1" != -- ]; do words+=("$1"); shift; done\nshift\n'
        f'printf "%s\\n" "${{words[@]}}" > "{farm.folder}/arguments-$PROC_NUMBER"\nexec "$@"\n'
    )
    (folder / "shifter").chmod(0o755)
    farm.environment |= {"PATH": f"{folder}:/usr/bin:/bin"}


def test_a_second_sigint_leaves_a_custom_runner_no_time(plugged: Farm) -> None:
    plugged.write(plugged.marked("sleep 1000"))
    farmer = plugged.start("-n", 1, "-r", "deaf", "--grace", 60)
    plugged.wait_for_tasks(0)
    farmer.signal(signal.SIGINT)
    farmer.says("SIGINT: ")
    farmer.signal(signal.SIGINT)
    assert farmer.wait(20) == 75, farmer.said
    plugged.no_survivors()
    assert plugged.places() == ([0], [], [])


def test_a_farmer_runs_with_fewer_slots_if_it_cannot_start_enough_workers(plugged: Farm) -> None:
    plugged.write(*["sleep 0.3"] * 60)
    farmer = plugged.run("-n", 60, "-r", "old", before=["bash", "-c", 'ulimit -n 64; exec "$@"', "bash"])
    assert farmer.wait() == 0, farmer.said
    assert "cannot start a worker: Too many open files; use a smaller -n, or raise `ulimit`" in farmer.said
    assert {line.attempt for line in plugged.check().lines} == {1}
    assert plugged.places() == ([], list(range(60)), [])


@pytest.mark.parametrize(("code", "status", "number"), [(-128, 1, 0), (-127, 1, 0), (-9, 0, 9), (256, 1, 0)])
def test_a_return_code_outside_the_range_of_exit_statuses_is_a_failure(
    plugged: Farm, code: int, status: int, number: int
) -> None:
    with open(plugged.folder / "myrunners.py", "a") as file:
        file.write(f"\n\nclass Odd(NoBase):\n    def run(self, taskid, command, logfh):\n        return {code}\n")
    with open(plugged.folder / "runners.ini", "a") as file:
        file.write("\n[odd]\nRunner = myrunners.Odd\n")
    plugged.write("true")
    assert plugged.run("-n", 1, "-r", "odd").wait() == 1
    (end,) = plugged.slices()
    assert (end["args"]["outcome"], end["args"]["exit_status"], end["args"]["signal"]) == ("failed", status, number)


def define(farm: Farm, name: str, runner: str, source: str) -> None:
    """Add a runner to the farm's INI file."""
    with open(farm.folder / "myrunners.py", "a", encoding="ascii") as file:
        file.write(source)
    with open(farm.folder / "runners.ini", "a", encoding="ascii") as file:
        file.write(f"\n[{name}]\nRunner = myrunners.{runner}\n")


def test_results_of_quick_tasks_are_reported_while_a_long_one_runs(plugged: Farm) -> None:
    define(
        plugged,
        "quick",
        "Quick",
        "\n\nclass Quick(NoBase):\n    def run(self, taskid, command, logfh):\n"
        "        return 0 if command == 'quick' else super().run(taskid, command, logfh)\n",
    )
    release = plugged.folder / "release"
    plugged.write(*["quick"] * 3000, plugged.marked(f"until [ -e {release} ]; do sleep 0.05; done"), "quick")
    farmer = plugged.start("-n", 1, "-r", "quick")
    plugged.wait_for_tasks(3000)
    eventually(lambda: len(plugged.view("finished")) == 3000, "all quick tasks are shown as finished")
    assert not farmer.ended
    release.touch()
    assert farmer.wait() == 0, farmer.said
    assert plugged.check().lines[-1].task == 3001


def test_a_runner_may_use_a_timer(plugged: Farm) -> None:
    define(
        plugged,
        "timed",
        "Timed",
        "\n\nimport signal\nimport time\n\n\nclass Timed(NoBase):\n    rang = 0\n\n"
        "    def ring(self, *args):\n        self.rang += 1\n\n"
        "    def run(self, taskid, command, logfh):\n        signal.signal(signal.SIGALRM, self.ring)\n"
        "        self.rang = 0\n        signal.setitimer(signal.ITIMER_REAL, 0.25 if command == 'ring' else 0)\n"
        "        end = time.monotonic() + float(0.5 if command == 'ring' else 0.002)\n"
        "        while time.monotonic() < end:\n            time.sleep(0.001)\n"
        "        return self.rang != (command == 'ring')\n",
    )
    plugged.write(*["quick"] * 200, "ring", *["quick"] * 50, "ring")
    farmer = plugged.run("-n", 1, "-r", "timed")
    assert farmer.wait() == 0, farmer.said
    assert plugged.places() == ([], list(range(252)), [])


def test_a_runner_may_use_multiprocessing(plugged: Farm) -> None:
    define(
        plugged,
        "pooled",
        "Pooled",
        "\n\nimport multiprocessing\n\n\ndef double(number):\n    return 2 * number\n\n\n"
        "class Pooled(NoBase):\n    def run(self, taskid, command, logfh):\n"
        "        with multiprocessing.get_context('fork').Pool(2) as pool:\n"
        "            logfh.write(str(sum(pool.map(double, range(int(command))))))\n        return 0\n",
    )
    plugged.write("3", "4", "5")
    farmer = plugged.run("-n", 2, "-r", "pooled")
    assert farmer.wait() == 0, farmer.said
    assert [plugged.log(task) for task in range(3)] == ["6", "12", "20"]
    plugged.no_survivors()
