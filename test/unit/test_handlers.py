"""Task lists: which bytes of a file are tasks, and the handlers of the package. Real files."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from io import BytesIO
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import BinaryIO, cast

import pytest

import taskfarmer.task
from taskfarmer.atlas import AthenaTaskList, TransformTaskList
from taskfarmer.errors import TaskListError
from taskfarmer.tasks import ListTaskList, TaskList
from taskfarmer.tasks import source as source_module
from taskfarmer.tasks.source import SourceReader, line_of_task, open_source


def read(data: bytes, **options: object) -> tuple[list[bytes], SourceReader]:
    reader = SourceReader(BytesIO(data), "list.txt", **options)  # type: ignore[arg-type]
    return [task for batch in reader for task in batch], reader


def tasks_of(data: bytes) -> list[bytes]:
    return read(data)[0]


@pytest.fixture(params=[source_module.CHUNK, 1, 3, 7])
def chunk(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    """Several read sizes: tasks must not depend on the end of a read."""
    size = cast(int, request.param)
    monkeypatch.setattr(source_module, "CHUNK", size)
    return size


# Lines


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"", []),
        (b"\n\n", []),
        (b"a\nb\n", [b"a", b"b"]),
        (b"a\nb", [b"a", b"b"]),
        (b"a\r\nb\r\n\r\n", [b"a", b"b"]),
        (b"a\r\nb\r", [b"a", b"b"]),
        (b"a\r\r\n", [b"a\r"]),
        (b"a\rb\x0bc\x0cd\x1ce\xc2\x85f\xe2\x80\xa8g\n", [b"a\rb\x0bc\x0cd\x1ce\xc2\x85f\xe2\x80\xa8g"]),
        (b"# no\n#no\n #yes\na # yes\n", [b"#yes", b"a # yes"]),
        (b" \t \n\t\n \t\r\n", []),
        (b" \ta \t b\t \n", [b"a \t b"]),
        (b"a \t\r\n", [b"a"]),
        (b"\x0ba\x0b\n", [b"\x0ba\x0b"]),
        (b"a \\ \n", [b"a \\ "]),
        (b"a \\ \t\r\n", [b"a \\ \t"]),
        (b"a \\\nb\\\t \n", [b"a \\", b"b\\\t "]),
        (b"a\na\na\n", [b"a", b"a", b"a"]),
        (b"caf\xe9 \xff\xfe\n", [b"caf\xe9 \xff\xfe"]),
        (b"#TASKFARMERS\n# TASKFARMER x\n #TASKFARMER x\n", [b"#TASKFARMER x"]),
    ],
)
def test_a_line_is_a_task_byte_by_byte(chunk: int, data: bytes, expected: list[bytes]) -> None:
    assert tasks_of(data) == expected


@pytest.mark.parametrize("line", [b"#TASKFARMER", b"#TASKFARMER\r", b"#TASKFARMER x", b"#TASKFARMER\tx"])
@pytest.mark.parametrize("end", [b"", b"\n", b"\nlast\n"])
def test_a_reserved_line_is_refused(chunk: int, line: bytes, end: bytes) -> None:
    with pytest.raises(TaskListError, match=r"^list\.txt: line 3: #TASKFARMER is reserved.*: change the comment"):
        tasks_of(b"a\n\n" + line + end)


@pytest.mark.parametrize("data", [b"a\nb\nx\0\n", b"a\nb\n\0", b"a\nb\nlong\0long\nc"])
def test_a_file_with_a_nul_byte_is_refused(chunk: int, data: bytes) -> None:
    with pytest.raises(TaskListError, match=r"^list\.txt: line 3: contains a NUL byte.*: name a text file"):
        tasks_of(data)


def test_line_numbers_in_messages_start_at_the_given_number() -> None:
    with pytest.raises(TaskListError, match="line 12: contains a NUL"):
        read(b"....a\nx\0\n", offset=4, first_line=11)


def test_a_huge_binary_file_without_lines_is_refused_after_one_read(monkeypatch: pytest.MonkeyPatch) -> None:
    class Endless(BytesIO):
        def read(self, size: int | None = -1, /) -> bytes:
            return b"x\0"

    with pytest.raises(TaskListError, match=r"line 1: contains a NUL"):
        list(SourceReader(Endless(), "image.root"))


def test_lines_longer_than_any_read_are_complete() -> None:
    long = b"x" * 5_000_000
    assert tasks_of(b"a\n" + long + b"\nb\n" + long) == [b"a", long, b"b", long]


# End of the consumed part


@pytest.mark.parametrize("data", [b"", b"a\n", b"a\n#x\n\n", b"a\r\n\nb\n", b"\n"])
def test_a_file_of_complete_lines_is_consumed_to_its_end(chunk: int, data: bytes) -> None:
    _, reader = read(data)
    assert reader.consumed == len(data)
    assert reader.sha.digest() == hashlib.sha256(data).digest()
    assert reader.lines == data.count(b"\n")
    assert not reader.open_end


def test_a_last_task_without_newline_is_consumed_and_marked_as_open(chunk: int) -> None:
    tasks, reader = read(b"a\n#x\nb")
    assert (tasks, reader.consumed, reader.lines, reader.open_end) == ([b"a", b"b"], 6, 3, True)
    assert reader.sha.digest() == hashlib.sha256(b"a\n#x\nb").digest()


@pytest.mark.parametrize("tail", [b"#", b"# begun", b"  ", b"\t"])
def test_a_last_line_without_newline_or_task_is_left_for_later(chunk: int, tail: bytes) -> None:
    tasks, reader = read(b"a\n" + tail)
    assert (tasks, reader.consumed, reader.lines, reader.open_end) == ([b"a"], 2, 1, False)
    assert reader.sha.digest() == hashlib.sha256(b"a\n").digest()


def test_whole_lines_only_leaves_an_unfinished_line(chunk: int) -> None:
    tasks, reader = read(b"a\nb\nbeg", whole_lines_only=True)
    assert (tasks, reader.consumed, reader.lines, reader.open_end) == ([b"a", b"b"], 4, 2, False)
    assert read(b"beg", whole_lines_only=True)[1].consumed == 0


def test_zeros_in_an_unfinished_line_are_not_refused_yet(chunk: int) -> None:
    # A file that another node is still writing can show zeros in place of later bytes.
    assert read(b"a\n\0\0\0", whole_lines_only=True)[0] == [b"a"]


def test_reading_in_two_parts_gives_the_same_tasks_as_reading_at_once(chunk: int) -> None:
    data = b"a\n#x\n\nb\r\nc\nd"
    whole_tasks, whole = read(data)
    for cut in (0, 2, 5, 6, 9):
        tasks, first = read(data[:cut])
        more, second = read(
            data, offset=first.consumed, sha=first.sha.copy(), first_line=first.lines + 1, whole_lines_only=False
        )
        assert tasks + more == whole_tasks
        assert (second.consumed, second.open_end) == (whole.consumed, whole.open_end)
        assert second.sha.digest() == whole.sha.digest()
        assert first.lines + second.lines == whole.lines


def test_after_a_newline_for_the_open_end_the_next_task_follows(chunk: int) -> None:
    _, first = read(b"a\nb")
    assert read(b"a\nb\nc\n", offset=first.consumed)[0] == [b"c"]


def test_the_line_number_of_a_task_can_be_found(chunk: int, tmp_path: Path) -> None:
    path = tmp_path / "list.txt"
    path.write_bytes(b"# x\na\n\n \nb\r\n#y\nc")
    assert [line_of_task(str(path), k) for k in range(3)] == [2, 5, 7]
    with pytest.raises(IndexError):
        line_of_task(str(path), 3)


# Files that are not task lists


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("missing", "no such task list: check the path"),
        ("file/x", "no such task list: check the path"),
        ("folder", "is a directory, not a task list: name a text file"),
        ("fifo", "is a pipe or a device.*: write the commands into a file"),
        ("loop", "cannot open this task list: Too many levels of symbolic links: check"),
        ("x" * 300, "cannot open this task list: File name too long: choose a shorter path"),
    ],
)
def test_unreadable_files_are_refused_with_an_explanation(tmp_path: Path, name: str, message: str) -> None:
    (tmp_path / "file").write_text("a\n")
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "loop").symlink_to("loop")
    with pytest.raises(TaskListError, match=message) as caught:
        open_source(str(tmp_path / name))
    assert str(caught.value).startswith(f"{tmp_path / name}: ")
    assert "\n" not in str(caught.value)


def test_a_device_is_refused() -> None:
    with pytest.raises(TaskListError, match=r"^/dev/null: is a pipe or a device"):
        open_source("/dev/null")


def test_a_file_that_may_not_be_read_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "list.txt"
    path.write_text("a\n")
    if os.geteuid() == 0:  # root may read all files, so simulate the error

        def refuse(*arguments: object) -> int:
            raise PermissionError(13, "Permission denied", str(path))

        monkeypatch.setattr(os, "open", refuse)
    path.chmod(0)
    with pytest.raises(TaskListError, match=r"list\.txt: no permission to read this task list: .*chmod u\+r"):
        open_source(str(path))


def test_a_file_system_that_fails_while_it_is_read_is_named(tmp_path: Path) -> None:
    class Failing(BytesIO):
        def read(self, size: int | None = -1, /) -> bytes:
            raise OSError(5, "Input/output error")

    with pytest.raises(
        TaskListError, match=r"^list\.txt: cannot be read after byte 0: Input/output error: start again"
    ):
        list(SourceReader(Failing(), "list.txt"))


def test_a_good_file_opens(tmp_path: Path) -> None:
    path = tmp_path / "list.txt"
    path.write_text("a\n")
    stream: BinaryIO
    with open_source(str(path)) as stream:
        assert stream.read() == b"a\n"


# The handlers


@pytest.fixture
def task_file(tmp_path: Path) -> Path:
    path = tmp_path / "list.txt"
    path.write_bytes(b"# two tasks\necho caf\xe9\n\n  b  \n")
    return path


def test_a_list_is_a_sequence_of_commands_whose_bytes_survive(task_file: Path) -> None:
    tasks = ListTaskList(str(task_file), "wd")
    assert len(tasks) == 2
    assert [os.fsencode(task) for task in tasks.tasks] == [b"echo caf\xe9", b"b"]
    assert tasks[1] == "b"
    assert (tasks.path, tasks.workdir) == (str(task_file), "wd")


@pytest.mark.parametrize("locale", ["C", "C.UTF-8", "POSIX"])
def test_bytes_survive_in_every_locale(task_file: Path, locale: str) -> None:
    code = (
        "import os, sys; from taskfarmer.tasks import ListTaskList; "
        "os.write(1, os.fsencode(ListTaskList(sys.argv[1], '')[0]))"
    )
    environ = {**os.environ, "LC_ALL": locale, "PYTHONPATH": os.pathsep.join(sys.path)}
    environ.pop("PYTHONUTF8", None)
    done = subprocess.run([sys.executable, "-c", code, str(task_file)], env=environ, capture_output=True, check=True)
    assert done.stdout == b"echo caf\xe9"


def test_the_file_is_read_at_first_use(tmp_path: Path) -> None:
    tasks = ListTaskList(str(tmp_path / "missing"), "wd")
    with pytest.raises(TaskListError, match="no such task list"):
        len(tasks)


def test_an_old_subclass_that_overrides_getitem_works(task_file: Path) -> None:
    class Numbered(taskfarmer.task.ListTaskList):
        def __init__(self, path: str, workdir: str, prefix: str = "run") -> None:
            super().__init__(path, workdir)
            self.lock()
            self.prefix = prefix
            self.unlock()

        def __getitem__(self, taskid: int) -> str:
            return f"{self.prefix} {taskid} {self.tasks[taskid]}"

    tasks = Numbered(str(task_file), "wd", prefix="go")
    assert len(tasks) == 2
    assert tasks[1] == "go 1 b"


def test_a_subclass_may_replace_the_tasks(task_file: Path) -> None:
    class Doubled(ListTaskList):
        def __init__(self, path: str, workdir: str) -> None:
            super().__init__(path, workdir)
            self.tasks = [task for task in self.tasks for _ in range(2)]

    assert len(Doubled(str(task_file), "wd")) == 4


def test_a_handler_without_an_implementation_raises_not_implemented() -> None:
    class Empty(TaskList):
        pass

    with pytest.raises(NotImplementedError, match=r"Empty does not define __len__\(\)"):
        len(Empty("a", "b"))
    with pytest.raises(NotImplementedError, match=r"Empty does not define __getitem__\(\)"):
        Empty("a", "b")[0]


def test_the_module_name_of_0_1_0_still_exports_its_classes() -> None:
    assert taskfarmer.task.ListTaskList is ListTaskList
    assert taskfarmer.task.TaskList is TaskList


# ATLAS. The commands are literally those that PyTaskFarmer 0.1.0 made from the same options.


@pytest.fixture
def inputs(tmp_path: Path) -> Path:
    path = tmp_path / "inputs.txt"
    path.write_text("# in\n/data/a.root\n\n  /data/b.root  \n")
    return path


@pytest.fixture
def root(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """A stub for PyROOT, which is a large dependency: every file has 5 events. Returns the list of closed files."""
    closed: list[str] = []

    def open_file(path: str) -> object:
        if path == "/data/gone.root":
            return None
        trees = {} if path == "/data/other.root" else {"CollectionTree": SimpleNamespace(GetEntries=lambda: 5)}
        return SimpleNamespace(Get=trees.get, Close=lambda: closed.append(path))

    module = ModuleType("ROOT")
    module.TFile = SimpleNamespace(Open=open_file)  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "ROOT", module)
    return closed


@pytest.fixture
def no_root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ROOT", None)


def commands(handler: ListTaskList) -> list[str]:
    outdir = os.path.realpath(f"{handler.workdir}/output")
    return [handler[taskid].replace(outdir, "OUTDIR") for taskid in range(len(handler))]


TRANSFORM = {"autoConfiguration": "everything", "postInclude": "HITtoRDO:Campaigns/MC16NoPileUp.py"}
RECO = "Reco_tf.py --autoConfiguration 'everything' --postInclude 'HITtoRDO:Campaigns/MC16NoPileUp.py'"
ATHENA = {"command": "from X import Y; Y.z(True)", "nprocs": "64"}
JOB = "athena.py --command 'from X import Y; Y.z(True)' --nprocs '64'"


@pytest.mark.usefixtures("no_root")
def test_a_transform_runs_on_each_file(inputs: Path, tmp_path: Path) -> None:
    handler = TransformTaskList(str(inputs), str(tmp_path), "Reco_tf.py", "HITS", "RDO", **TRANSFORM)
    assert commands(handler) == [
        f"{RECO} --inputHITSFile /data/a.root --outputRDOFile RDO.0.root && rsync -avr RDO.0.root OUTDIR",
        f"{RECO} --inputHITSFile /data/b.root --outputRDOFile RDO.1.root && rsync -avr RDO.1.root OUTDIR",
    ]
    assert (tmp_path / "output").is_dir()


def test_a_transform_runs_on_ranges_of_events(inputs: Path, tmp_path: Path, root: list[str]) -> None:
    handler = TransformTaskList(
        str(inputs), str(tmp_path), "Reco_tf.py", "HITS", "RDO", maxEventsPerJob="2", **TRANSFORM
    )
    assert commands(handler) == [
        f"{RECO} --inputHITSFile /data/{file}.root --outputRDOFile RDO.{number}.{job}.root --skipEvents {skip} "
        f"--maxEvents 2 && rsync -avr RDO.{number}.{job}.root OUTDIR"
        for number, file in enumerate("ab")
        for job, skip in enumerate((0, 2, 4))
    ]
    assert root == ["/data/a.root", "/data/b.root"]


@pytest.mark.usefixtures("no_root")
def test_athena_runs_on_each_file(inputs: Path, tmp_path: Path) -> None:
    (tmp_path / "output").mkdir()
    handler = AthenaTaskList(str(inputs), str(tmp_path), "Val/top.py", "M.root", **ATHENA)
    assert commands(handler) == [
        f"{JOB} --filesInput /data/a.root Val/top.py && rsync -avr M.root OUTDIR/M.root.0",
        f"{JOB} --filesInput /data/b.root Val/top.py && rsync -avr M.root OUTDIR/M.root.1",
    ]


@pytest.mark.usefixtures("root")
def test_athena_runs_on_ranges_of_events(inputs: Path, tmp_path: Path) -> None:
    handler = AthenaTaskList(str(inputs), str(tmp_path), "Val/top.py", "M.root", maxEventsPerJob="2e0", **ATHENA)
    assert commands(handler) == [
        f"{JOB} --filesInput /data/{file}.root --skipEvents {skip} --evtMax 2 Val/top.py "
        f"&& rsync -avr M.root OUTDIR/M.root.{taskid}"
        for taskid, (file, skip) in enumerate((file, skip) for file in "ab" for skip in (0, 2, 4))
    ]


@pytest.mark.usefixtures("no_root")
def test_splitting_without_pyroot_is_refused(inputs: Path, tmp_path: Path) -> None:
    with pytest.raises(TaskListError, match=r"^maxEventsPerJob needs PyROOT .*: set up ROOT .* or remove"):
        TransformTaskList(str(inputs), str(tmp_path), "Reco_tf.py", "HITS", "RDO", maxEventsPerJob="2")


@pytest.mark.usefixtures("root")
@pytest.mark.parametrize("value", ["0", "-1", "0.5", "2.5", "many", "nan", "inf", ""])
def test_an_invalid_number_of_events_is_refused(inputs: Path, tmp_path: Path, value: str) -> None:
    with pytest.raises(TaskListError, match=f"^maxEventsPerJob = {value} is not a positive integer: correct it"):
        AthenaTaskList(str(inputs), str(tmp_path), "Val/top.py", "M.root", maxEventsPerJob=value)


@pytest.mark.usefixtures("root")
@pytest.mark.parametrize("file", ["/data/gone.root", "/data/other.root"])
def test_an_input_whose_events_cannot_be_counted_is_named(tmp_path: Path, file: str) -> None:
    (tmp_path / "inputs.txt").write_text(f"{file}\n")
    with pytest.raises(TaskListError, match=rf"^{file}: cannot count the events: .*: check the file"):
        AthenaTaskList(str(tmp_path / "inputs.txt"), str(tmp_path), "Val/top.py", "M.root", maxEventsPerJob="2")
