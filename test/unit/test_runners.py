"""Runners: the program that is started for a command, and its result. Real files, real processes."""

from __future__ import annotations

import errno
import os
import shlex
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from taskfarmer.runners import BasicRunner, CommandRunner, Runner, ShifterRunner
from taskfarmer.runners import script as script_module
from taskfarmer.runners.programs import Programs
from taskfarmer.runners.shell import SHELL_WORDS, simple_argv
from taskfarmer.runners.shifter import commands, with_setup

BASH = "/bin/bash"
pytestmark = pytest.mark.skipif(not os.path.exists(BASH), reason="needs bash")


def executable(path: Path, text: str) -> Path:
    path.write_text(text)
    path.chmod(0o755)
    return path


def run(runner: Runner, command: str, tmp_path: Path, taskid: int = 7) -> tuple[int, str]:
    """Run one task; return its status and its log."""
    log = tmp_path / f"log_{taskid}"
    with log.open("w") as logfh:
        status = runner.run(taskid, command, logfh)
    return status, log.read_text(errors="surrogateescape")


def in_bash(command: str) -> tuple[int, str]:
    done = subprocess.run(
        [BASH, "-c", command], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False
    )
    return done.returncode, done.stdout.decode(errors="surrogateescape")


@pytest.fixture
def tools(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory of programs, first on PATH."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    return folder


# When a shell is needed


def test_a_plain_program_with_plain_words_needs_no_shell(tools: Path) -> None:
    program = executable(tools / "simulate", "#!/bin/sh\n")
    command = "simulate  --seed=1,2:3 -x\t+a @b 50% ./in_put.root a=b"
    expected = [str(program), "--seed=1,2:3", "-x", "+a", "@b", "50%", "./in_put.root", "a=b"]
    assert simple_argv(command) == expected
    assert BasicRunner().argv(0, command) == expected


@pytest.mark.parametrize(
    "command",
    [
        "env | cat",
        "env && env",
        "env; env",
        "env > out",
        "env < in",
        "env &",
        "env 'a'",
        'env "a"',
        "env a\\ b",
        "env $HOME",
        "env `pwd`",
        "env *.root",
        "env a?",
        "env [ab]",
        "env {a,b}",
        "env ~",
        "env ~root",
        "env # a comment",
        "env a\nenv b",
        "env a\r",
        "env a\x0bb",
        "env a!",
        "env a^b",
        "env (a)",
        "env caf\u00e9",
        "env \udcff",
        "X=1 env",
        "X=1",
        "a+=b",
        "%1",
        "",
        " ",
        "cd /",
        "source x",
        ". x",
        ":",
        "ulimit -n",
        "echo a",
        "test -e x",
        "true a",
        "false a",
        "time env",
        "exec env",
        "if",
    ],
)
def test_a_command_with_shell_syntax_runs_in_a_shell(command: str) -> None:
    assert simple_argv(command) is None
    assert BasicRunner().argv(0, command) == [BASH, "-c", "--", command]


@pytest.mark.parametrize("name", ["true", "false"])
def test_of_the_builtins_only_true_and_false_are_started_as_programs(name: str) -> None:
    argv = simple_argv(name)
    assert argv is not None
    assert argv[0].endswith(f"/{name}")


def test_every_keyword_and_builtin_of_this_bash_is_known() -> None:
    here = subprocess.run([BASH, "-c", "compgen -bk"], capture_output=True, text=True, check=True).stdout.split()
    assert set(here) <= SHELL_WORDS


@pytest.mark.parametrize("variable", ["BASH_FUNC_module%%", "BASH_FUNC_module()"])
def test_an_exported_function_takes_precedence_over_a_program(
    tools: Path, monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    executable(tools / "module", "#!/bin/sh\n")
    assert simple_argv("module load root") is not None
    monkeypatch.setenv(variable, "() { echo loaded $2; }")
    assert simple_argv("module load root") is None


def test_an_exported_function_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BASH_FUNC_module%%", "() { echo loaded $2; }")
    assert run(BasicRunner(), "module load root", tmp_path) == (0, "loaded root\n")


def test_a_program_that_is_not_on_path_is_left_to_bash() -> None:
    assert simple_argv("no-such-program -x") is None


def test_a_directory_or_a_file_without_execute_permission_is_not_a_program(tools: Path) -> None:
    (tools / "notes").write_text("text")
    (tools / "folder").mkdir()
    assert simple_argv("notes") is None
    assert simple_argv("folder") is None


def test_a_program_with_a_slash_is_started_under_this_path() -> None:
    assert simple_argv("./no/such -x") == ["./no/such", "-x"]


def test_the_first_program_on_path_wins_and_an_empty_entry_is_the_current_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "later").mkdir()
    executable(tmp_path / "later" / "prog", "#!/bin/sh\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", f"/nowhere::{tmp_path}/later")
    assert simple_argv("prog") == [f"{tmp_path}/later/prog"]
    executable(tmp_path / "prog", "#!/bin/sh\n")
    assert simple_argv("prog") == ["./prog"]


def test_special_entries_of_path_are_left_to_bash(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "~/bin:/usr/bin:/bin")
    assert simple_argv("env") is None
    monkeypatch.delenv("PATH")
    assert simple_argv("env") is None


def test_the_path_of_a_program_is_cached_until_path_changes(tools: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    programs = Programs()
    first = executable(tools / "prog", "#!/bin/sh\n")
    assert simple_argv("prog", programs) == [str(first)]
    first.unlink()
    assert simple_argv("prog", programs) == [str(first)]
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    assert simple_argv("prog", programs) is None


@pytest.mark.parametrize(
    "command",
    [
        "echo a   b",
        "printf '%s|' 'a b' \"c\" d\\ e",
        "echo a | tr a b && echo c || echo d",
        "false || exit 3",
        "X=1 env | grep ^X=",
        "cd / && pwd",
        "ulimit -n >/dev/null && type cd",
        "echo one # two",
        "no-such-program-here",
        "/no/such/program",
        "/tmp",
        "/etc/passwd",
        "kill -9 $$ # a signal",
        "echo caf\u00e9 \udcff",
        "env -i A=1 env",
        "dirname /a/b",
    ],
)
def test_a_command_does_what_it_does_in_bash(command: str, tmp_path: Path) -> None:
    expected = in_bash(command)
    assert run(BasicRunner(), command, tmp_path) == expected


# Synchronous execution


def test_a_task_sees_its_id_and_the_environment_and_no_input(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FROM_OUTSIDE", "yes")
    status, log = run(BasicRunner(), 'echo "$PROC_NUMBER $FROM_OUTSIDE"; cat; echo err >&2', tmp_path)
    assert (status, log) == (0, "7 yes\nerr\n")
    assert "PROC_NUMBER" not in os.environ


def test_a_signal_that_killed_the_task_is_a_negative_status(tmp_path: Path) -> None:
    assert run(BasicRunner(), "kill -TERM $$; sleep 60", tmp_path)[0] == -signal.SIGTERM


def test_a_task_runs_in_the_session_of_its_caller(tmp_path: Path) -> None:
    status, log = run(BasicRunner(), f"{shlex.quote(sys.executable)} -c 'import os; print(os.getsid(0))'", tmp_path)
    assert (status, log) == (0, f"{os.getsid(0)}\n")


def test_a_script_without_an_interpreter_line_runs_in_bash(tools: Path, tmp_path: Path) -> None:
    executable(tools / "bare", "[[ a == a ]] && echo bare $1\n")
    assert run(BasicRunner(), "bare 1", tmp_path) == (0, "bare 1\n")


def test_a_program_that_moved_while_it_was_cached_is_found_again(tools: Path, tmp_path: Path) -> None:
    runner = BasicRunner()
    executable(tools / "env", "#!/bin/sh\necho ours\n")
    assert run(runner, "env -i", tmp_path) == (0, "ours\n")
    (tools / "env").unlink()
    assert run(runner, "env -i", tmp_path) == (0, "")
    assert runner.argv(0, "env -i")[0] != str(tools / "env")


def test_bash_is_not_tried_if_the_system_cannot_create_a_process() -> None:
    error = OSError(errno.EAGAIN, "Resource temporarily unavailable")
    assert BasicRunner().otherwise(0, "true", error) is None


@pytest.mark.parametrize(
    ("program", "status", "reason"),
    [("/no/such", 127, "No such file or directory"), ("/etc/passwd", 126, "Permission denied"), ("a\0b", 126, "null")],
)
def test_a_task_whose_program_cannot_be_started_has_failed(
    program: str, status: int, reason: str, tmp_path: Path
) -> None:
    class Direct(CommandRunner):
        def argv(self, taskid: int, command: str) -> list[str]:
            return [command]

    got, log = run(Direct(), program, tmp_path)
    assert got == status
    assert log.startswith("taskfarmer: cannot start the command: ")
    assert reason in log
    assert log.count("\n") == 1


def test_a_task_whose_command_cannot_be_built_has_failed(tmp_path: Path) -> None:
    class Broken(CommandRunner):
        def argv(self, taskid: int, command: str) -> list[str]:
            raise FileNotFoundError(errno.ENOENT, "No such file or directory", "/no/scratch")

    status, log = run(Broken(), "x", tmp_path)
    assert status == 126
    assert "/no/scratch" in log


def test_a_task_gets_default_signals_and_an_empty_mask(tmp_path: Path) -> None:
    before = signal.signal(signal.SIGUSR2, signal.SIG_IGN)
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    try:
        status, log = run(BasicRunner(), "grep -E 'Sig(Blk|Ign)' /proc/self/status", tmp_path)
        assert signal.pthread_sigmask(signal.SIG_BLOCK, ()) == mask | {signal.SIGTERM}
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        signal.signal(signal.SIGUSR2, before)
    assert status == 0
    assert [int(line.split()[1], 16) for line in log.splitlines()] == [0, 0]


def test_terminate_in_a_signal_handler_ends_the_running_task(tmp_path: Path) -> None:
    runner = BasicRunner()
    before = signal.signal(signal.SIGUSR1, lambda number, frame: runner.terminate())
    try:
        status, _ = run(runner, "kill -USR1 $PPID; exec sleep 60", tmp_path)
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert status == -signal.SIGTERM


def test_terminate_before_the_process_exists_takes_effect_later(tmp_path: Path) -> None:
    class Interrupted(BasicRunner):
        def argv(self, taskid: int, command: str) -> list[str]:
            self.terminate()
            return super().argv(taskid, command)

    assert run(Interrupted(), "sleep 60", tmp_path)[0] == -signal.SIGTERM


def test_terminate_without_a_task_does_nothing(tmp_path: Path) -> None:
    runner = BasicRunner()
    runner.terminate()
    assert run(runner, "true", tmp_path)[0] == 0
    runner.terminate()


def test_an_old_subclass_that_changes_the_command_in_run_works(tmp_path: Path) -> None:
    class Nice(BasicRunner):
        def __init__(self, level: str) -> None:  # without super().__init__(), which worked in PyTaskFarmer
            self.level = level

        def run(self, taskid: int, command: str, logfh: Any) -> int:
            return super().run(taskid, f"echo {self.level}: {command}", logfh)

    assert run(Nice("5"), "a | cat", tmp_path) == (0, "5: a\n")


def test_a_runner_without_an_implementation_raises_not_implemented(tmp_path: Path) -> None:
    class Empty(Runner):
        pass

    class NoArgv(CommandRunner):
        pass

    with pytest.raises(NotImplementedError, match=r"Empty does not define run\(\)"):
        run(Empty(), "x", tmp_path)
    with pytest.raises(NotImplementedError, match=r"NoArgv does not define argv\(\)"):
        run(NoArgv(), "x", tmp_path)


# Plans before a task starts


@pytest.mark.parametrize(
    "command", ["/bin/true", "grep -c x y", "a | b", "A=1 env", "no-such-program", "", "echo \udcff"]
)
def test_a_plan_equals_the_later_result_of_argv(command: str) -> None:
    runner = BasicRunner()
    assert runner.plan(3, command) == runner.argv(3, command)


def test_a_command_that_needs_a_file_is_not_planned() -> None:
    before = descriptors()
    assert BasicRunner().plan(3, "echo " + "x" * 200_000) is None
    assert descriptors() == before


def test_a_runner_that_only_defines_argv_plans_nothing() -> None:
    class Direct(CommandRunner):
        def argv(self, taskid: int, command: str) -> list[str]:
            raise AssertionError("asked too early")

    assert Direct().plan(3, "x") is None


# Commands that are too long for an argument


def descriptors() -> set[str]:
    return set(os.listdir("/proc/self/fd"))


@pytest.mark.parametrize("in_memory", [True, False])
def test_a_command_too_long_for_an_argument_runs_from_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, in_memory: bool
) -> None:
    if not in_memory:

        def refuse(name: str, flags: int) -> int:
            raise OSError(errno.ENOSYS, "Function not implemented")

        monkeypatch.setattr(os, "memfd_create", refuse)
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.setenv("TMPDIR", str(scratch))
    before = descriptors()
    value = "caf\u00e9 \udcff" + "x" * 1_000_000
    runner = BasicRunner()
    assert run(runner, f"x='{value}'; echo ${{#x}} ${{x:0:6}}; exit 3", tmp_path)[0] == 3
    status, log = run(runner, f"cat <<< '{value}'", tmp_path)
    assert (status, log) == (0, value + "\n")
    assert descriptors() == before
    assert list(scratch.iterdir()) == []


def test_the_limit_counts_bytes_and_not_characters() -> None:
    most = "\u00e9" * ((script_module.ARGUMENT_LIMIT - 1) // 2)
    assert not script_module.is_too_long(most)
    assert script_module.is_too_long(most + "ab")


def test_the_longest_command_that_is_an_argument_runs(tmp_path: Path) -> None:
    start = "echo $PROC_NUMBER #"
    longest = start + "x" * (script_module.ARGUMENT_LIMIT - 1 - len(start))
    runner = BasicRunner()
    assert runner.argv(7, longest) == [BASH, "-c", "--", longest]
    assert run(runner, longest, tmp_path) == (0, "7\n")
    assert runner.argv(7, longest + "x")[1].startswith("/proc/self/fd/")
    runner.cleanup(7)


def test_cleanup_may_be_called_twice_or_not_at_all_before_a_new_attempt() -> None:
    before = descriptors()
    runner = BasicRunner()
    long = "x" * 200_000
    runner.argv(1, long)
    runner.argv(1, long)
    runner.cleanup(1)
    runner.cleanup(1)
    assert descriptors() == before


# Shifter


@pytest.fixture
def shifter(tools: Path, tmp_path: Path) -> Path:
    """A stub, because Shifter exists at NERSC only: it records its arguments, and runs the words after `--`."""
    record = tmp_path / "arguments"
    executable(
        tools / "shifter",
        f'#!/bin/bash\nprintf "%s\\0" "$@" >{shlex.quote(str(record))}\n'
        'for a in "$@"; do case $a in --workdir=*) cd "${a#--workdir=}" || exit 99;; esac; done\n'
        'while [ "$1" != -- ]; do shift; done\nshift\nexec "$@"\n',
    )
    return record


def recorded(record: Path) -> list[str]:
    return record.read_text().split("\0")[:-1]


def test_shifter_gets_its_options_and_runs_setup_and_task(shifter: Path, tmp_path: Path) -> None:
    runner = ShifterRunner("debian:12", setup="export A=1", volumes="/a:/b /c:/d", modules="cvmfs gpu")
    assert run(runner, 'echo "$A $PROC_NUMBER"', tmp_path) == (0, "1 7\n")
    assert recorded(shifter) == [
        "--image=debian:12",
        "--volume=/a:/b",
        "--volume=/c:/d",
        "--module=cvmfs",
        "--module=gpu",
        "--",
        "/bin/bash",
        "-c",
        "--",
        'export A=1 && echo "$A $PROC_NUMBER"',
    ]


def test_without_setup_only_the_task_runs(shifter: Path, tmp_path: Path) -> None:
    assert run(ShifterRunner("debian:12"), "echo a; echo b # c", tmp_path) == (0, "a\nb\n")
    assert recorded(shifter) == ["--image=debian:12", "--", "/bin/bash", "-c", "--", "echo a; echo b # c"]


def test_bash_env_is_empty_in_the_container(shifter: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "startup").write_text("echo from the host\n")
    (tmp_path / "bin" / "shifter").write_text('#!/bin/sh\nwhile [ "$1" != -- ]; do shift; done\nshift\nexec "$@"\n')
    monkeypatch.setenv("BASH_ENV", str(tmp_path / "startup"))
    assert run(ShifterRunner("debian:12"), "echo task ${BASH_ENV-unset}", tmp_path) == (0, "task\n")


@pytest.mark.parametrize("asked", [True, "True", "true", "yes", "1", "on"])
def test_with_tempdir_each_task_has_a_directory_that_is_removed(
    shifter: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, asked: bool | str
) -> None:
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.setenv("TMPDIR", str(scratch))
    runner = ShifterRunner("debian:12", tempdir=asked)
    status, log = run(runner, "pwd; mkdir -p a/b; echo x > a/b/c", tmp_path)
    workdir = recorded(shifter)[1]
    assert (status, f"--workdir={log.strip()}") == (0, workdir)
    assert log.startswith(f"{scratch}/")
    assert list(scratch.iterdir()) == []
    run(runner, "pwd", tmp_path)
    assert recorded(shifter)[1] != workdir


@pytest.mark.parametrize("asked", [False, "False", "false", "no", "0", "off"])
def test_without_tempdir_there_is_no_directory(asked: bool | str) -> None:
    assert not any(word.startswith("--workdir") for word in ShifterRunner("i", tempdir=asked).argv(0, "x"))


@pytest.mark.parametrize("asked", ["maybe", "", "2"])
def test_a_tempdir_that_is_neither_yes_nor_no_is_refused(asked: str) -> None:
    with pytest.raises(ValueError, match=f"tempdir = {asked} is not a boolean: write True or False"):
        ShifterRunner("i", tempdir=asked)


def test_an_empty_image_is_refused() -> None:
    with pytest.raises(ValueError, match="image is empty"):
        ShifterRunner(" ")


def test_a_task_whose_temporary_directory_cannot_be_created_has_failed(
    shifter: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TMPDIR", "/no/scratch")
    status, log = run(ShifterRunner("i", tempdir=True), "true", tmp_path)
    assert status == 126
    assert "/no/scratch/" in log


def test_a_task_fails_on_a_host_without_shifter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    status, log = run(ShifterRunner("i"), "true", tmp_path)
    assert status == 127
    assert "shifter: No such file or directory" in log


def test_a_task_too_long_for_a_container_fails_with_the_reason(
    shifter: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path / "scratch"))
    (tmp_path / "scratch").mkdir()
    runner = ShifterRunner("i", setup="true", tempdir=True)
    status, log = run(runner, "echo " + "x" * 131_072, tmp_path)
    assert status == 126
    assert "131071" in log
    assert "put them into a script" in log
    assert list((tmp_path / "scratch").iterdir()) == []
    assert not shifter.exists()


@pytest.mark.parametrize(
    ("setup", "found"),
    [
        ("", []),
        ("  \n# a comment\n\n", []),
        ("source a && source b", ["source a && source b"]),
        ("source a;", ["source a"]),
        ("source a &&", ["source a"]),
        ("\nsource a\n\n# why\nsource b\n", ["source a", "source b"]),
        ("source a;\nsource b;", ["source a", "source b"]),
        ("source a \\\n-x\nb", ["source a \\\n-x", "b"]),
        ("if true\nthen\na\nb\nfi\nc", ["if true\nthen\na\nb\nfi", "c"]),
        ("a 'x\n\n# y'\nb", ["a 'x\n\n# y'", "b"]),
        ("cat <<E\nx\nE\nb", ["cat <<E\nx\nE", "b"]),
        ("if a\nb", ["if a\nb"]),
    ],
)
def test_each_line_of_a_setup_is_a_command_unless_bash_continues_it(setup: str, found: list[str]) -> None:
    assert list(commands(setup)) == found


def test_simple_setups_and_tasks_are_joined_as_documented() -> None:
    assert with_setup("source a", "b c") == "source a && b c"
    assert with_setup("\nsource a\nsource b", "c && d # e") == "source a && source b && c && d # e"


@pytest.mark.parametrize(
    "setup",
    [
        "false",
        "false;",
        "false &&",
        "false\ntrue",
        "false\ntrue;",
        "false;\ntrue || true",
        "false\ntrue; true",
        "false # a comment",
        "if true\nthen\nfalse\nfi\ntrue",
        "true\nfalse",
        "true | false",
        "true;\n{ true; false; }",
    ],
)
@pytest.mark.parametrize(
    "task", ["echo ran", "echo ran; echo ran", "true || true; echo ran", "true || echo ran & echo ran", "a\necho ran"]
)
def test_a_task_does_not_run_if_a_line_of_the_setup_failed(setup: str, task: str) -> None:
    status, output = in_bash(with_setup(setup, task))
    assert (status, output) == (1, "")


@pytest.mark.parametrize(
    ("setup", "task", "output"),
    [
        ("A=1\nexport B=2", "echo $A$B", "12\n"),
        ("A=1 # the first", "echo $A # the task", "1\n"),
        ("A=1;", "echo $A; echo b # a comment", "1\nb\n"),
        ("cd /\n", "pwd; pwd", "/\n/\n"),
        ("if true; then\nA=1\nB=2\nfi", "echo $A$B", "12\n"),
        ("f() {\necho $1;\n}", "f a; f b", "a\nb\n"),
        ("true", "echo a; echo b \\", "a\nb \\\n"),
        ("true", "echo a; echo b \\\\", "a\nb \\\n"),
        ("true", "! false", ""),
        ("true", "for i in 1 2; do echo $i; done", "1\n2\n"),
        ("true", "(echo a; echo b) | tac", "b\na\n"),
        ("true", "cat <<E; echo b\na\nE", "a\nb\n"),
    ],
)
def test_a_task_runs_in_the_shell_that_the_setup_prepared(setup: str, task: str, output: str) -> None:
    assert in_bash(with_setup(setup, task)) == (0, output)


def test_the_status_of_a_grouped_task_is_that_of_its_last_command() -> None:
    assert in_bash(with_setup("true", "true; exit 5"))[0] == 5
    assert in_bash(with_setup("true", "false; true"))[0] == 0
