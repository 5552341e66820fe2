"""Farms of strangers: a file is replaced by something else, or a document with a valid checksum is absurd.

`status`, `logs`, `check` and `jobs` read farms of any user; the other verbs may meet such a farm, too. Each of them
must exit with a documented status, in bounded memory and time, and without a traceback.
"""

from __future__ import annotations

import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import traceback
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from support.house import TOP, House
from taskfarmer.formats.results import result_line
from taskfarmer.formats.sealed import sealed, unsealed
from taskfarmer.ledger.segments import _ENTRY, _MAGIC

MEMORY = 700 << 20
"""Bytes that a verb may use in addition to those of this process."""
SECONDS = 120
STATUSES = (0, 1, 2, 74, 75)
TERABYTE = 1 << 40
READING = (
    ("status",),
    ("status", "--json"),
    ("jobs",),
    ("check",),
    ("logs", "0"),
    ("logs", "--failed"),
    ("logs", "--grep", "x"),
)
CHANGING = (("retry", "--failed"), ("stop",), ("check", "--repair"))
WORKDIR = "list.txt_workdir"


@dataclass(frozen=True)
class Done:
    words: tuple[str, ...]
    status: int
    out: str
    err: str

    def __str__(self) -> str:
        return f"{' '.join(self.words)}: {self.status}\n{self.out[-1500:]}{self.err[-1500:]}"


def verb(folder: Path, *words: str) -> Done:
    """Run a verb in a forked child with limits of memory and time; a fresh interpreter would take ten times as long."""
    out, err = folder / "verb.out", folder / "verb.err"
    pid = os.fork()
    if not pid:
        status = 99
        try:
            os.chdir(folder)
            for number, path in ((1, out), (2, err)):
                os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), number)
            size = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
            resource.setrlimit(resource.RLIMIT_AS, (size + MEMORY, size + MEMORY))
            signal.signal(signal.SIGALRM, signal.SIG_DFL)
            signal.alarm(SECONDS)
            for number, name in ((1, "stdout"), (2, "stderr")):
                setattr(sys, name, open(number, "w", closefd=False))  # noqa: SIM115
            status = main(words)
        except BaseException:
            traceback.print_exc()
            sys.stderr.flush()
        finally:
            os._exit(status)
    _, answer = os.waitpid(pid, 0)
    return Done(words, os.waitstatus_to_exitcode(answer), *(path.read_text(errors="replace") for path in (out, err)))


def main(words: tuple[str, ...]) -> int:
    from taskfarmer.cli import program
    from taskfarmer.inspect.check import journals
    from taskfarmer.ledger import commits, results

    # do not wait for file systems that show old contents: it would only slow this test down
    journals.PATIENCE = 0.5
    commits.Commits.__init__.__defaults__ = (1.0,)
    for function in (results.survey, results.read_counted, results.with_newer_states):
        function.__defaults__ = (1.0, *(function.__defaults__ or ())[1:])
    return program.main("taskfarmer", [words[0], WORKDIR, *words[1:]])


def sane(done: Done) -> None:
    assert done.status in STATUSES, str(done)
    said = done.out + done.err
    assert "Traceback" not in said, str(done)
    assert "unexpected" not in said, str(done)
    assert len(said) < 100_000, str(done)
    assert not any(ord(letter) < 32 and letter != "\n" for letter in done.err), str(done)
    if done.status == 74 and done.words[0] in ("status", "jobs"):
        assert done.err.count("error:") == 1 and done.err.count("\n") == 1, str(done)


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A farm of 100 tasks with all kinds of files; half of the tasks failed, and some of these are unprocessed."""
    house = House(tmp_path_factory.mktemp("template"))
    house.write("echo x; true\nfalse\n" * 50)
    assert house.command("pytaskfarmer.py", "list.txt", "-n", "2", "--logs", "packed").status == 1
    assert house.verb("retry", WORKDIR, "1", "5-9").status == 0
    farm = house.workdir
    (farm / "stop").write_bytes(sealed({"farmers": [], "now": False}))
    (farm / "locks.json").write_bytes(sealed({"locks": "shared", "between": ["a", "b"]}))
    (farm / "jobs" / "submitted").mkdir(parents=True)
    texts: dict[str, object] = dict.fromkeys(("job", "cluster", "user", "directory", "name"), "")
    document = {**texts, "scheduler": "slurm", "submitted": 1.0, "command": ["sbatch"]}
    (farm / "jobs" / "submitted" / "20260101-000000-00000000.json").write_bytes(sealed(document))
    (farm / "logs" / "log_0").write_bytes(b"x\n")
    register(farm)
    return house.folder


def register(farm: Path) -> None:
    """Add a farmer of another node that holds a task, with an identity and a heartbeat to be checked."""
    name = "elsewhere-7-0a1b2c3d"
    (identity,) = (farm / "farmers").glob("*.json")
    document = unsealed(identity.read_bytes())
    assert document is not None
    more: dict[str, object] = {"farmer": name, "host": "elsewhere", "boot": "other", "job": {"SLURM_JOB_ID": "7"}}
    (farm / "farmers" / f"{name}.json").write_bytes(sealed({**document, **more}))
    alive: dict[str, object] = {"beat": 1, "every": 30.0, "held": True, "running": [[0, 9, 2]]}
    (farm / "farmers" / f"{name}.alive").write_bytes(sealed(alive))

    def change(state: dict[str, Any]) -> None:
        state["farmers"][name] = [1, "0:9@2", 0, 1]
        state["returned"] = "0:1@2 0:5@2 0:7@2"
        alter(newest(farm), change)


def newest(farm: Path) -> Path:
    return max((path for path in farm.glob("ledger/*/*") if path.name.isdigit()), key=lambda path: int(path.name))


def alter(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Change a document, and update its checksum."""
    document = unsealed(path.read_bytes())
    assert document is not None
    change(document)
    path.write_bytes(sealed(document))


@pytest.fixture
def folder(template: Path, tmp_path: Path) -> Path:
    shutil.copytree(template, tmp_path / "copy", symlinks=True)
    return tmp_path / "copy"


def files(farm: Path) -> dict[str, Path]:
    """Each kind of file that a farm has, by its name."""
    (pack,) = (path for path in (farm / "logs" / "packed").iterdir() if not path.suffix)
    (segment,) = (path for path in (farm / "tasks").iterdir() if not path.suffix)
    named = {path.name: path for path in farm.iterdir() if path.is_file()}
    others = {
        "HEAD": farm / "ledger" / "HEAD",
        "revision": newest(farm),
        "segment": segment,
        "index": segment.with_suffix(".index"),
        "journal": next((farm / "results").iterdir()),
        "identity": next((farm / "farmers").glob("elsewhere*.json")),
        "alive": next((farm / "farmers").glob("elsewhere*.alive")),
        "submitted": next((farm / "jobs" / "submitted").iterdir()),
        "log": farm / "logs" / "log_0",
        "pack": pack,
    }
    return named | others


KINDS = (
    *("farm.json", "HEAD", "revision", "segment", "index", "journal", "identity", "alive", "locks.json", "stop"),
    *("submitted", "finished", "toprocess", "timeline.json", "views.json", "log", "pack"),
)

LOOKED_AT_TWICE = ("farm.json", "revision", "journal", "segment", "finished", "pack")


def zeros(path: Path) -> None:
    path.symlink_to("/dev/zero")


def noise(path: Path) -> None:
    path.symlink_to("/dev/urandom")


def sparse(path: Path) -> None:
    with open(path, "wb") as file:
        file.truncate(TERABYTE)


def fifo(path: Path) -> None:
    os.mkfifo(path)


def lengthened(path: Path) -> None:
    """The old content, followed by a hole of a terabyte."""
    with open(path, "ab") as file:
        file.truncate(TERABYTE)


@pytest.mark.parametrize("kind", KINDS)
def test_every_verb_exits_soon_if_a_file_is_replaced_by_something_else(folder: Path, kind: str) -> None:
    path = files(folder / WORKDIR)[kind]
    before = path.read_bytes()
    for number, damage in enumerate((zeros, sparse, fifo, *((noise, lengthened) if kind in LOOKED_AT_TWICE else ()))):
        path.unlink(missing_ok=True)
        if damage is lengthened:
            path.write_bytes(before)
        damage(path)
        for words in (*READING[number % 2 :: 2], CHANGING[number % 3]):
            if (kind, words[:2]) == ("log", ("logs", "0")) and damage in (sparse, lengthened):
                continue  # this is the task's output: a terabyte if a user requests it
            sane(verb(folder, *words))


@pytest.mark.parametrize("kind", ["farm.json", "revision", "segment", "index", "journal", "HEAD", "stop", "views.json"])
def test_a_farmer_exits_soon_on_such_a_farm(folder: Path, kind: str) -> None:
    path = files(folder / WORKDIR)[kind]
    path.unlink()
    sparse(path)
    words = [sys.executable, "-m", "taskfarmer", "run", "list.txt", "-n", "1", "--timeout", "3", "--grace", "1"]
    environ = {name: value for name, value in os.environ.items() if name != "SCRATCH"}
    done = subprocess.run(
        words,
        cwd=folder,
        env={**environ, "PYTHONPATH": str(TOP)},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=SECONDS,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (2 << 30, 2 << 30)),
        check=False,
    )
    assert done.returncode in STATUSES, done.stderr
    assert "Traceback" not in done.stderr and "unexpected" not in done.stderr, done.stderr


def damaged_body(kind: str) -> bytes:
    body = {
        "brackets": b'{"x":' + b"[" * 200_000 + b"]" * 200_000 + b"}",
        "digits": b'{"format":' + b"9" * 5000 + b"}",
        "values": b'{"x":[' + b"[]," * 4_000_000 + b"[]]}",
    }[kind]
    return b'%s,"crc":"%08x"}\n' % (body[:-1], zlib.crc32(body))


@pytest.mark.parametrize("body", ["brackets", "digits", "values"])
def test_a_file_with_a_valid_checksum_that_is_not_a_document_is_named(folder: Path, body: str) -> None:
    for kind in ("farm.json", "revision", "identity", "alive", "locks.json", "stop", "submitted", "views.json"):
        path = files(folder / WORKDIR)[kind]
        before = path.read_bytes()
        path.write_bytes(damaged_body(body))
        vital = kind in ("farm.json", "revision")
        for words in (("status",), ("check",)) if vital else (("stop" if kind == "stop" else "jobs",),):
            done = verb(folder, *words)
            sane(done)
            if vital:
                assert done.status in (1, 74), str(done)
                assert str(path) in done.out + done.err, str(done)
        path.write_bytes(before)


ODD: tuple[Any, ...] = (
    *(None, True, -1, 10**17, 10**30, 10**400, -0.5, 1e300, float("nan"), float("inf")),
    *("", "x", "../../../../etc/passwd", "a\0b", "\udcff\x1b[2J", "\ud800", "x" * 100_000, "9" * 5000),
    *([], [1], [[[[]]]], {}, {"a": 1}, {"../x": [1, "0:0", 0, 1]}, [None] * 20, [-1, -1, -1, -1]),
)


def places(document: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The path of each value in a document, including nested ones."""
    if path:
        yield path
    if isinstance(document, dict):
        for name, value in document.items():
            yield from places(value, (*path, name))
    elif isinstance(document, list):
        for number, value in enumerate(document):
            yield from places(value, (*path, number))


def put(document: Any, path: tuple[Any, ...], value: Any) -> None:
    for step in path[:-1]:
        document = document[step]
    document[path[-1]] = value


@pytest.mark.parametrize("kind", ["farm.json", "revision", "identity", "alive", "locks.json", "stop", "submitted"])
def test_verbs_survive_an_odd_value_in_a_document_with_a_valid_checksum(folder: Path, kind: str) -> None:
    """Each value of a document is replaced by each odd one in turn; the verbs read them alternately."""
    path = files(folder / WORKDIR)[kind]
    document = unsealed(path.read_bytes())
    assert document is not None
    cases = [(place, value) for place in places(document) for value in ODD]
    chosen = cases[:: len(cases) // 40 or 1]
    verbs = (("status",), ("check",), ("jobs", "--json"), ("logs", "--failed"), ("status", "--json"), ("stop",))
    for number, (place, value) in enumerate(chosen):
        changed = json.loads(json.dumps(document))
        put(changed, place, value)
        path.write_bytes(sealed(changed))
        done = verb(folder, *verbs[number % len(verbs)])
        try:
            sane(done)
        except AssertionError as error:
            raise AssertionError(f"{place} = {str(value)[:40]!r}: {error}") from None


def test_absurd_intervals_are_reported_as_corrupt_and_use_little_memory(folder: Path) -> None:
    path = newest(folder / WORKDIR)
    document = unsealed(path.read_bytes())
    assert document is not None
    for returned in (
        "0:0+99999999999999999",
        "7:0",
        "-1:0",
        "0:-5+3",
        "0:1@0",
        "0:1@99999999999999999999",
        "0:1!-1",
        "0:x",
        "0~",
        "0~" + "_" * 100_000,
        "0~" + "A" * 100_000,
        "0:" + "9" * 5000,
        "0:1 " * 1_000_000,
        "\u0660:\u0661",
    ):
        path.write_bytes(sealed({**document, "returned": returned}))
        for words in (("status",), ("check",), ("retry", "--failed")):
            done = verb(folder, *words)
            sane(done)
            assert done.status in (1, 74), f"{returned[:40]}: {done}"


def test_absurd_results_with_valid_checksums_are_reported_as_corrupt(folder: Path) -> None:
    farm = folder / WORKDIR
    path = next((farm / "results").iterdir())
    before, state = path.read_bytes(), newest(farm).read_bytes()
    sound = result_line(1, 1, 0, 1.0, 2.0, b"failed").rpartition(b" ")[0].split(b" ")
    for word, value in ((0, b"x"), (0, b"9" * 5000), (1, b"9" * 30), (1, b"-1"), (3, b"nan"), (4, b"1e999"), (6, b"?")):
        words = [*sound]
        words[word] = value
        body = b" ".join(words)
        line = b"%s %08x\n" % (body, zlib.crc32(body))
        path.write_bytes(before + line)
        let_count(farm, len(line))
        for words_of_verb in (("status",), ("check",), ("logs", "--failed"), ("retry", "--failed")):
            done = verb(folder, *words_of_verb)
            sane(done)
            assert done.words == ("status",) or done.status in (1, 74), f"{line[:60]!r}: {done}"
        newest(farm).write_bytes(state)


def let_count(farm: Path, more: int) -> None:
    """Let more bytes of the one journal count."""

    def change(document: dict[str, Any]) -> None:
        (name,) = document["departed"]
        document["departed"][name] += more

    alter(newest(farm), change)


def test_a_segment_with_a_false_index_uses_little_memory(folder: Path) -> None:
    farm = folder / WORKDIR
    segment, index = files(farm)["segment"], files(farm)["index"]
    with open(segment, "wb") as file:
        file.truncate(TERABYTE)
    for entries in (
        [(0, 0), (TERABYTE // 2, 0), (TERABYTE, 100)],
        [(TERABYTE, 0), (0, 0), (5, 100)],
        [((1 << 64) - 1, 0), (1 << 63, 0), (0, 100)],
    ):
        body = _MAGIC + b"".join(_ENTRY.pack(*one) for one in entries)
        index.write_bytes(body + b"%08x\n" % zlib.crc32(body))
        for words in (*READING, *CHANGING):
            sane(verb(folder, *words))


def test_a_claim_of_millions_of_tasks_uses_little_memory(folder: Path) -> None:
    farm = folder / WORKDIR

    def change(document: dict[str, Any]) -> None:
        document["segments"][0]["tasks"] = (1 << 27) - 1

    alter(newest(farm), change)
    for words in (*READING, *CHANGING):
        sane(verb(folder, *words))


@pytest.mark.parametrize("name", ["\u00b2", "9" * 200, "1\x1b[2J", "\udcff", "007"])
def test_verbs_survive_odd_names_in_the_folders_of_a_farm(folder: Path, name: str) -> None:
    farm = folder / WORKDIR
    epoch = newest(farm).parent
    for place in (epoch, farm / "ledger", farm / "results", farm / "farmers", farm / "tasks", farm / "logs"):
        for odd in (name, f"{name}.alive", f"host-1-0a1b2c3d.{name}", f"log_{name}"):
            (place / odd).write_bytes(b"")
    for words in (*READING, *CHANGING):
        sane(verb(folder, *words))


def test_verbs_survive_a_packed_log_with_false_head_lines(folder: Path) -> None:
    pack = files(folder / WORKDIR)["pack"]
    size = b"9" * 18
    for heads in (
        b"exit 0, %s bytes" % size,
        b"exit 0, %s9 bytes" % size,
        b"exit 0, 1 of %s bytes" % size,
        b"exit 0, -1 bytes",
        b"exit %s, 1 bytes" % (b"9" * 5000),
        b"running, %s bytes, slot 0, file 1" % size,
        b"running, 0 bytes, slot ../../../../../../../dev/zero, file 1",
        b"running, 0 bytes, slot 999999999, file 999999999",
    ):
        for data in (b"", b"x\n", b"x" * 5000):
            pack.write_bytes((b"=== taskfarmer: task 0, attempt 1, %s ===\n%s" % (heads, data)) * 10)
            for verbs in (("logs", "0"), ("logs", "--grep", "y")):
                sane(verb(folder, *verbs))


def test_a_packed_log_of_many_torn_pieces_uses_little_memory(folder: Path) -> None:
    pack = files(folder / WORKDIR)["pack"]
    for heads in (b"continued, 1000 bytes", b"exit 0, 1 of 9999 bytes", b"running, 0 bytes, slot 1, file 1"):
        pack.write_bytes((b"=== taskfarmer: task 0, attempt 1, %s ===\n" % heads) * 500_000)
        sane(verb(folder, "logs", "--grep", "y"))
