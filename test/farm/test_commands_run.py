"""A line of the list runs as it would on a bash command line; one farm runs all of these lines."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from support.farms import Farm

# description of a line -> (the line, its output)
LINES: dict[str, tuple[str | bytes, str]] = {
    "single quotes keep blanks": ("printf '%s.' 'a  b' c", "a  b.c."),
    "double quotes expand": ('X=1; echo "x  $X"', "x  1\n"),
    "escaped blanks": (r"printf '%s.' a\ \ b", "a  b."),
    "a pipe": ("echo abc | tr a-c A-C", "ABC\n"),
    "and": ("true && echo yes", "yes\n"),
    "or": ("false || echo no", "no\n"),
    "two commands": ("echo one; echo two", "one\ntwo\n"),
    "output into a file": ("echo kept > out.txt; cat < out.txt", "kept\n"),
    "errors into the log": ("echo wrong >&2", "wrong\n"),
    "a variable before a command": ("GREETING=hi printenv GREETING", "hi\n"),
    "only a variable": ("X=5", ""),
    "a glob": ("echo *.glob", "a.glob b.glob\n"),
    "braces": ("echo {1..3}", "1 2 3\n"),
    "a substitution": ("echo $(echo in) $((6 * 7))", "in 42\n"),
    "a here-string": ("cat <<< word", "word\n"),
    "a process substitution": ("cat <(echo inside)", "inside\n"),
    "a loop": ("for i in a b; do echo $i; done", "a\nb\n"),
    "a test": ("[[ abc == a* ]] && echo matches", "matches\n"),
    "the background": ("echo behind & wait; echo before", "behind\nbefore\n"),
    "cd": ("cd / && pwd", "/\n"),
    "cd alone": ("cd /", ""),
    "source": ("source ./setup.sh && echo $SETTING", "set\n"),
    "ulimit": ("ulimit -c 0; ulimit -c", "0\n"),
    "an exported function": ("module load gcc/12", "loaded gcc/12\n"),
    "a comment at the end": ("echo one # first", "one\n"),
    "the same with another comment": ("echo one # second", "one\n"),
    "a duplicate": ("echo twice", "twice\n"),
    "its other": ("echo twice", "twice\n"),
    "a hash in a word": ("echo a#b", "a#b\n"),
    "a plain program": ("printenv PROC_NUMBER", "PLACE\n"),
    "tabs between words": ("\tprintenv\tGIVEN", "given\n"),
    "blanks around": ("   echo bare   ", "bare\n"),
    "a blank that a backslash keeps": (b"printf %s. a\\ ", "a ."),
    "a script without #!": ("./without-interpreter a 'b c'", "got a|b c|\n"),
    "a plain script without #!": ("./without-interpreter a b", "got a|b|\n"),
    "CR at its end": (b"echo plain\r", "plain\n"),
    "CR at the end of quotes": (b"echo 'quoted'\r", "quoted\n"),
    "text in UTF-8": ("printf %s grün", "grün"),
    "bytes that are not UTF-8": (b"printf %s caf\xe9 | od -An -tx1", " 63 61 66 e9\n"),
    "bytes that are not UTF-8 in a file's name": (b"cat name\xe9.txt", "named\n"),
    "200 KB": (b"printf %s " + b"x" * 200_000 + b" | wc -c", "200000\n"),
    "1 MB": (b"printf %s " + b"x" * 1_000_000 + b" | wc -c; echo $0 | wc -l", "1000000\n1\n"),
    "1 MB for a program": (b"echo " + b"word " * 200_000 + b"| wc -w", "200000\n"),
    "standard input": ("readlink /proc/self/fd/0", "/dev/null\n"),
    "reading standard input": ("cat", ""),
    "a form feed and other line separators": (
        "printf '%s' 'a\x0cb\x0bc\u2028d\x85e\x1cf'",
        "a\x0cb\x0bc\u2028d\x85e\x1cf",
    ),
    "a command that looks like JSON": ('{"command": "x"} 2>/dev/null || echo no JSON', "no JSON\n"),
}
# description of a line -> (the line, exit status, signal, text in its log)
FAILURES: dict[str, tuple[str, int, int, str]] = {
    "false": ("false", 1, 0, ""),
    "exit": ("exit 3", 3, 0, ""),
    "255": ("exit 255", 255, 0, ""),
    "a signal": ("kill -9 $$", 0, 9, ""),
    "a signal that Python ignores": ("kill -PIPE $$", 0, 13, ""),
    "a program that is not there": ("no-such-program --at all", 127, 0, "no-such-program: command not found"),
    "the same in a shell": ("no-such-program 'at all'", 127, 0, "no-such-program: command not found"),
    "a path that is not there": ("/no/such/program", 127, 0, "/no/such/program: No such file or directory"),
    "a file that is not executable": ("./a.glob", 126, 0, "./a.glob: Permission denied"),
    "a directory": ("/tmp", 126, 0, "/tmp: Is a directory"),
    "quotes without an end": ("echo 'open", 2, 0, "unexpected EOF"),
    "a line without a command": (")", 2, 0, "syntax error"),
    "a failure in front of &&": ("false && echo never", 1, 0, ""),
}
NAMES = [*LINES, *FAILURES]


def prepare(folder: Path) -> None:
    (folder / "a.glob").touch()
    (folder / "b.glob").touch()
    (folder / "setup.sh").write_text("SETTING=set\n")
    (folder / "without-interpreter").write_text('echo "got $(printf "%s|" "$@")"\n')
    (folder / "without-interpreter").chmod(0o755)
    (folder / "lost-interpreter").write_text("#!/no/such/interpreter\n")
    (folder / "lost-interpreter").chmod(0o755)
    Path(os.fsdecode(os.fsencode(folder) + b"/name\xe9.txt")).write_text("named\n")


def signals_of(status: str) -> dict[str, int]:
    """Blocked, ignored and caught signals from /proc/self/status."""
    found = dict(line.split(":\t", 1) for line in status.splitlines())
    # 32 and 33 are reserved by glibc: its posix_spawn leaves them ignored, and no program can use them
    return {name: int(found[name], 16) & ~(3 << 31) for name in ("SigBlk", "SigIgn", "SigCgt")}


@pytest.fixture(scope="module", params=["C.UTF-8", "C"])
def ran(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Farm:
    """A farm that ran all lines, in a locale."""
    farm = Farm(tmp_path_factory.mktemp("commands"))
    prepare(farm.folder)
    farm.environment = {
        "LC_ALL": request.param,
        "GIVEN": "given",
        "BASH_FUNC_module%%": '() { echo "${1}ed $2"; }',
    }
    farm.write(*(line for line, _ in LINES.values()), *(failure[0] for failure in FAILURES.values()))
    try:
        assert farm.run("-n", 4).wait() == 1
        farm.no_survivors()
        farm.check()
    finally:
        farm.close()
    return farm


@pytest.mark.parametrize("name", LINES)
def test_a_line_runs_as_on_a_bash_command_line(ran: Farm, name: str) -> None:
    number = NAMES.index(name)
    assert ran.log(number) == LINES[name][1].replace("PLACE", str(number))
    assert number in ran.view("finished")


@pytest.mark.parametrize("name", FAILURES)
def test_a_line_that_fails_is_failed_with_its_status_and_the_reason_in_its_log(ran: Farm, name: str) -> None:
    number = NAMES.index(name)
    _, status, by_signal, reason = FAILURES[name]
    assert number in ran.view("failed")
    found = next(one["args"] for one in ran.slices() if one["args"]["id"] == number)
    assert (found["exit_status"], found["signal"]) == (status, by_signal)
    assert reason in ran.log(number)


def test_the_views_contain_the_bytes_of_each_line_unchanged(ran: Farm) -> None:
    finished = ran.view("finished")
    for name in ("bytes that are not UTF-8", "1 MB", "text in UTF-8", "a blank that a backslash keeps"):
        assert finished[NAMES.index(name)] == os.fsencode(LINES[name][0])


def test_a_script_whose_interpreter_is_missing_fails_with_a_message(farm: Farm) -> None:
    prepare(farm.folder)
    farm.write("./lost-interpreter")
    assert farm.run().wait() == 1
    assert farm.slices()[0]["args"]["exit_status"] in (126, 127)  # bash's status for this changed in 5.2
    assert "./lost-interpreter: " in farm.log(0)


def test_no_shell_is_started_for_a_plain_program_with_plain_words(farm: Farm) -> None:
    # every bash that runs a command reads the file that BASH_ENV names, so each leaves a line
    (farm.folder / "witness").write_text(f"echo $PROC_NUMBER >> {farm.folder}/shells\n")
    farm.environment = {"BASH_ENV": str(farm.folder / "witness")}
    farm.write(
        "printenv PROC_NUMBER", "printenv PROC_NUMBER # in a shell", "ls -l --all ./ /", "true", "printenv 'HOME'"
    )
    assert farm.run("-n", 1).wait() == 0
    assert (farm.folder / "shells").read_text().split() == ["1", "4"]
    assert farm.log(0) == "0\n"


def test_a_list_whose_last_line_has_no_newline_runs_whole(farm: Farm) -> None:
    farm.list.write_bytes(
        b"# a comment\n\n \t \necho first\n#echo never\n  # a command for bash, and not for us\necho last"
    )
    farm.age_list()
    assert farm.run().wait() == 0
    assert farm.view("finished") == {
        0: b"echo first",
        1: b"# a command for bash, and not for us",
        2: b"echo last",
    }
    assert farm.log(2) == "last\n"
    farm.check()


@pytest.mark.parametrize("content", [b"", b"\n\n", b"# nothing\n#\n", b"# no newline"])
def test_an_empty_list_is_a_farm_with_nothing_to_do(farm: Farm, content: bytes) -> None:
    farm.list.write_bytes(content)
    assert farm.run().wait() == 0
    assert (farm.workdir / "farm.json").exists()
    assert farm.places() == ([], [], [])
    assert farm.slices() == []


def test_a_task_finds_its_identity_in_its_environment(farm: Farm) -> None:
    farm.write("printenv", "sleep 0", "printenv # in a shell")
    assert farm.run("-n", 1).wait() == 0
    found = dict(line.partition("=")[::2] for line in farm.log(2).splitlines())
    farmer = farm.check().lines[0].journal
    assert found["PROC_NUMBER"] == found["TASKFARMER_TASK_ID"] == "2"
    assert found["TASKFARMER_ATTEMPT"] == "1"
    assert found["TASKFARMER_SLOT"] == "0"
    assert found["TASKFARMER_WORKDIR"] == str(farm.workdir)
    assert found["TASKFARMER_LOG"] == str(farm.workdir / "logs" / "log_2")
    assert found["TASKFARMER_FARMER"] == farmer
    plain = dict(line.partition("=")[::2] for line in farm.log(0).splitlines())
    assert plain["TASKFARMER_LOG"] == str(farm.workdir / "logs" / "log_0")


def test_slots_are_numbered_from_0_and_each_runs_one_task_at_a_time(farm: Farm) -> None:
    farm.write(*["mkdir slot$TASKFARMER_SLOT && sleep 0.05 && rmdir slot$TASKFARMER_SLOT"] * 40)
    assert farm.run("-n", 3).wait() == 0
    assert {one["tid"] for one in farm.slices()} == {0, 1, 2}
    farm.check()


@pytest.mark.parametrize("command", ["head -60 /proc/self/status", "head -60 '/proc/self/status'"])
@pytest.mark.parametrize(
    "before", [(), ("env", "--ignore-signal=INT,PIPE,HUP,QUIT,USR2,CHLD", "--block-signal=USR1,TERM,ALRM,CHLD")]
)
def test_a_task_has_default_signals_and_an_empty_mask(farm: Farm, before: tuple[str, ...], command: str) -> None:
    farm.write(command)
    assert farm.run("-n", 1, before=before).wait() == 0
    assert signals_of(farm.log(0)) == {"SigBlk": 0, "SigIgn": 0, "SigCgt": 0}


def test_a_task_inherits_no_open_files_except_its_standard_streams_and_the_alive_lock(farm: Farm) -> None:
    farm.write("ls -l /proc/self/fd", "ls -l /proc/self/fd # in a shell")
    assert farm.run("-n", 2).wait() == 0
    for number in (0, 1):
        names = [line.rpartition(" -> ")[2] for line in farm.log(number).splitlines() if " -> " in line]
        log = str(farm.workdir / "logs" / f"log_{number}")
        others = [name for name in names if name not in ("/dev/null", log) and not name.startswith("/proc/")]
        # the lock that shows that the farmer's tasks are alive
        assert all(name.endswith(".alive") for name in others), names


def test_a_further_attempt_is_appended_to_the_log_under_a_header(farm: Farm) -> None:
    farm.write(farm.marked("echo attempt $TASKFARMER_ATTEMPT; [ $TASKFARMER_ATTEMPT = 2 ] || sleep 1000"))
    farmer = farm.start("--grace", 1)
    farm.wait_for_tasks(0)
    farmer.signal(signal.SIGUSR1)
    assert farmer.wait() == 75
    assert farm.run().wait() == 0
    first, header, second = farm.log(0).splitlines()
    assert (first, second) == ("attempt 1", "attempt 2")
    assert header.startswith(f"=== taskfarmer: attempt 2 on {os.uname().nodename}, ")
    assert farm.attempts(0) == [(1, "returned"), (2, "finished")]


def test_a_line_may_start_a_process_group_that_ends_after_it(farm: Farm) -> None:
    """Background processes of a task are killed with its farmer at the latest."""
    farm.write("sleep 1000 & echo left", "setsid sleep 1000 & echo left")
    assert farm.run("--grace", 1).wait() == 0
    farm.no_survivors()
