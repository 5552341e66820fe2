"""Configuration: which definition of a name wins, and the errors for unusable ones. Real files."""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from taskfarmer.config import BUILT_IN, Configuration, Definition
from taskfarmer.errors import ConfigError
from taskfarmer.runners import BasicRunner, ShifterRunner
from taskfarmer.tasks import ListTaskList


class House:
    """The directories that are searched for INI files, all below one temporary directory."""

    def __init__(self, base: Path) -> None:
        self.cwd, self.home, self.etc = base / "cwd", base / "home", base / "etc"
        self.named, self.beside = base / "named", base / "beside"
        for folder in (self.cwd, self.home, self.etc, self.named, self.beside):
            folder.mkdir()
        self.environ: dict[str, str] = {}

    def write(self, path: Path, text: str | bytes) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text.encode() if isinstance(text, str) else text)
        return path

    def search(self, config_file: Path | None = None) -> Configuration:
        return Configuration.search(
            None if config_file is None else str(config_file),
            cwd=str(self.cwd),
            environ=self.environ,
            home=str(self.home),
            etc=str(self.etc),
            beside=str(self.beside),
        )


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    path, modules = list(sys.path), set(sys.modules)
    yield House(tmp_path)
    sys.path[:] = path
    for module in set(sys.modules) - modules:
        if str(getattr(sys.modules[module], "__file__", None) or "").startswith(str(tmp_path)):
            del sys.modules[module]


def shifter(image: str, name: str = "r") -> str:
    return f"[{name}]\nRunner = taskfarmer.runners.ShifterRunner\nimage = {image}\n"


def failure(call: Callable[[], object]) -> str:
    with pytest.raises(ConfigError) as caught:
        call()
    message = str(caught.value)
    assert "\n" not in message
    assert "Traceback" not in message
    return message


# Contents of a section


def test_the_defaults_exist_without_any_file(house: House) -> None:
    configuration = house.search()
    assert type(configuration.runner("default")) is BasicRunner
    assert configuration.tasklist_class("default") == (ListTaskList, {})
    assert [d.file for d in configuration.definitions() if d.name == "default"] == [BUILT_IN, BUILT_IN]
    assert configuration.warnings == configuration.faults == []


def test_a_section_defines_a_runner_with_its_keys(house: House) -> None:
    file = house.write(
        house.cwd / "a.ini",
        "; a comment\n[r]\nRunner = taskfarmer.runners.ShifterRunner\nimage = debian:12\n"
        "setup =\n    source a\n    # left out\n    source b\ntempdir: True\n",
    )
    configuration = house.search()
    runner = configuration.runner("r")
    assert isinstance(runner, ShifterRunner)
    assert (runner.image, runner.setup, runner.tempdir) == ("debian:12", "\nsource a\nsource b", True)
    (definition,) = (d for d in configuration.definitions() if d.name == "r")
    assert (definition.kind, definition.file) == ("runner", str(file))
    assert definition.class_path == "taskfarmer.runners.ShifterRunner"
    assert "Runner" not in definition.options
    assert configuration.problem(definition) is None


def test_a_section_defines_a_task_list_handler_with_its_options(house: House) -> None:
    house.write(
        house.cwd / "a.ini",
        "[digi]\nTaskList = taskfarmer.atlas.TransformTaskList\ntransform = Reco_tf.py\ninput = HITS\noutput = RDO\n"
        "autoConfiguration = everything\n",
    )
    made_of, options = house.search().tasklist_class("digi")
    assert made_of.__name__ == "TransformTaskList"
    assert options == {
        "transform": "Reco_tf.py",
        "input": "HITS",
        "output": "RDO",
        "autoConfiguration": "everything",
    }


def test_a_runner_and_a_handler_may_have_the_same_name(house: House) -> None:
    house.write(house.cwd / "a.ini", "[x]\nRunner = taskfarmer.runners.BasicRunner\n")
    house.write(house.cwd / "b.ini", "[x]\nTaskList = taskfarmer.task.ListTaskList\n")
    configuration = house.search()
    assert type(configuration.runner("x")) is BasicRunner
    assert configuration.tasklist_class("x")[0] is ListTaskList


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("50%", "50%"),
        ("50%%", "50%"),
        ("%(x)s", "%(x)s"),
        ("date +%%Y-%m", "date +%Y-%m"),
        ("a = b", "a = b"),
        ("", ""),
    ],
)
def test_a_percent_sign_is_itself(house: House, written: str, meant: str) -> None:
    house.write(house.cwd / "a.ini", f"[r]\nRunner = taskfarmer.runners.ShifterRunner\nimage = i\nsetup = {written}\n")
    assert house.search().runner("r").setup == meant


def test_upper_and_lower_case_of_keys_differ(house: House) -> None:
    file = house.write(house.cwd / "a.ini", shifter("i") + "Setup = x\n")
    message = failure(lambda: house.search().runner("r"))
    assert message.startswith(f"{file}: [r] Setup: ShifterRunner has no such key: its keys are image, setup, ")


def test_a_byte_order_mark_is_ignored(house: House) -> None:
    house.write(house.cwd / "a.ini", b"\xef\xbb\xbf" + shifter("i").encode())
    assert house.search().runner("r").image == "i"


# Search path


def test_the_first_definition_on_the_search_path_wins(house: House) -> None:
    house.environ["TASKFARMER_CONFIG_DIR"] = str(house.named)
    config_file = house.write(house.cwd.parent / "mine.ini", shifter("0"))
    places = [
        house.named / "z.ini",
        house.named / "runners.d" / "a.ini",
        house.named / "tasklists.d" / "a.ini",
        house.cwd / "a.ini",
        house.cwd / "b.ini",
        house.cwd / "runners.d" / "a.ini",
        house.cwd / "tasklists.d" / "a.ini",
        house.beside / "a.ini",
        house.beside / "runners.d" / "a.ini",
        house.beside / "tasklists.d" / "a.ini",
        house.home / ".pytaskfarmer" / "runners.d" / "a.ini",
        house.home / ".pytaskfarmer" / "tasklists.d" / "a.ini",
        house.etc / "runners.d" / "a.ini",
        house.etc / "tasklists.d" / "a.ini",
    ]
    for number, path in enumerate(places, 1):
        house.write(path, shifter(str(number)))
    configuration = house.search(config_file)
    assert configuration.runner("r").image == "0"
    defined = [d for d in configuration.definitions() if d.name == "r"]
    assert [d.options["image"] for d in defined] == [str(number) for number in range(len(places) + 1)]
    for number, path in enumerate(places, 1):
        assert house.search().runner("r").image == str(number)
        path.unlink()
    assert "no runner named 'r'" in failure(lambda: house.search().runner("r"))


def test_the_search_path_defaults_to_the_directories_of_the_process(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(house.cwd)
    monkeypatch.setenv("HOME", str(house.home))
    monkeypatch.setenv("TASKFARMER_CONFIG_DIR", str(house.named))
    house.write(house.home / ".pytaskfarmer" / "runners.d" / "a.ini", shifter("home", "h"))
    house.write(house.cwd / "a.ini", shifter("cwd", "c"))
    house.write(house.named / "a.ini", shifter("named", "n"))
    configuration = Configuration.search()
    assert [configuration.runner(name).image for name in "hcn"] == ["home", "cwd", "named"]
    assert [d.file for d in configuration.definitions() if d.name == "c"] == ["a.ini"]


def test_a_shadowed_definition_is_listed_with_that_problem(house: House) -> None:
    first = house.write(house.cwd / "a.ini", shifter("1"))
    second = house.write(house.cwd / "b.ini", shifter("2"))
    configuration = house.search()
    problems = {d.file: configuration.problem(d) for d in configuration.definitions() if d.name == "r"}
    assert problems == {
        str(first): None,
        str(second): f"{second}: [r] Runner: {first} defines the name first: use another name",
    }


def test_default_cannot_be_redefined(house: House) -> None:
    file = house.write(house.cwd / "a.ini", shifter("i", "default"))
    configuration = house.search()
    assert type(configuration.runner("default")) is BasicRunner
    (ours,) = (d for d in configuration.definitions() if d.file == str(file))
    assert configuration.problem(ours) == f"{file}: [default] Runner: default is built in: use another name"


def test_a_file_that_is_found_twice_counts_once(house: House) -> None:
    house.environ["TASKFARMER_CONFIG_DIR"] = str(house.cwd)
    file = house.write(house.cwd / "a.ini", shifter("1"))
    configuration = house.search(file)
    assert len([d for d in configuration.definitions() if d.name == "r"]) == 1


def test_other_files_are_ignored(house: House) -> None:
    (house.cwd / "folder.ini").mkdir()
    os.mkfifo(house.cwd / "pipe.ini")
    (house.cwd / "dangling.ini").symlink_to("nowhere")
    house.write(house.cwd / ".hidden.ini", shifter("hidden"))
    house.write(house.cwd / "tox.ini", "[tox]\nenvlist = py\n")
    house.write(house.cwd / "other.ini", "key without a section\n[a]\n[a]\n")
    configuration = house.search()
    assert [d.name for d in configuration.definitions() if d.file != BUILT_IN] == []
    assert configuration.faults == configuration.warnings == []


def test_a_named_file_must_exist(house: House) -> None:
    missing = house.cwd / "missing.ini"
    message = failure(lambda: house.search(missing))
    assert message == f"{missing}: cannot read this INI file: No such file or directory: " + (
        "correct the path or its permissions"
    )
    assert "Is a directory" in failure(lambda: house.search(house.cwd))


def test_a_named_folder_must_exist(house: House) -> None:
    house.environ["TASKFARMER_CONFIG_DIR"] = "/no/such"
    message = failure(house.search)
    assert message == "/no/such: not a directory: correct TASKFARMER_CONFIG_DIR, or unset it"
    house.environ["TASKFARMER_CONFIG_DIR"] = ""
    house.search()


# Owners and permissions


def test_a_found_file_that_all_users_may_write_is_skipped(house: House) -> None:
    file = house.write(house.cwd / "a.ini", shifter("bad"))
    file.chmod(0o666)
    house.write(house.cwd / "b.ini", shifter("good"))
    configuration = house.search()
    assert configuration.runner("r").image == "good"
    (warning,) = configuration.warnings
    assert warning.startswith(f"{file}: ignored because it is world-writable (chmod o-w): name it with --config")


def test_a_found_file_in_a_directory_that_all_users_may_write_is_skipped(house: House) -> None:
    file = house.write(house.cwd / "runners.d" / "a.ini", shifter("bad"))
    file.parent.chmod(0o777)
    configuration = house.search()
    assert "no runner named 'r'" in failure(lambda: configuration.runner("r"))
    assert f"{file}: ignored because" in failure(lambda: configuration.runner("r"))
    assert "its directory is world-writable" in configuration.warnings[0]
    file.parent.chmod(0o1777)
    assert house.search().runner("r").image == "bad"


def test_a_named_file_is_trusted_even_if_all_users_may_write_it(house: House) -> None:
    file = house.write(house.cwd / "a.ini", shifter("mine"))
    file.chmod(0o666)
    configuration = house.search(file)
    assert configuration.runner("r").image == "mine"
    assert configuration.warnings == []
    house.environ["TASKFARMER_CONFIG_DIR"] = str(house.cwd)
    assert house.search().runner("r").image == "mine"


def test_a_file_that_the_group_may_write_is_trusted(house: House) -> None:
    house.write(house.cwd / "a.ini", shifter("ours")).chmod(0o664)
    assert house.search().runner("r").image == "ours"


def test_there_is_no_warning_about_a_file_without_definitions(house: House) -> None:
    house.write(house.cwd / "tox.ini", "[tox]\nenvlist = py\n").chmod(0o666)
    assert house.search().warnings == []


def test_a_found_file_of_another_user_is_skipped(house: House) -> None:
    if os.geteuid() != 0:
        if os.environ.get("CI"):
            pytest.fail("only root can give a file away: run the tests in CI as root")
        pytest.skip("only root can give a file away")
    file = house.write(house.cwd / "a.ini", shifter("theirs"))
    os.chown(file, 12345, 12345)
    configuration = house.search()
    assert "no runner named 'r'" in failure(lambda: configuration.runner("r"))
    assert configuration.warnings[0].startswith(f"{file}: ignored because it belongs to another user: name it")
    assert house.search(file).runner("r").image == "theirs"


# Broken files


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (shifter("i") + "no value\n", "line 4: neither `key = value` nor `[section]`: correct it"),
        ("stray = 1\n" + shifter("i"), "line 1: not in a section: write a [name] above it"),
        (shifter("i") + "image = j\n", "[r] image: line 4: duplicate key: remove one of the two"),
        (shifter("i") + shifter("j"), "[r]: line 4: duplicate section: merge the two"),
        ("[DEFAULT]\nimage = i\n" + shifter("j"), "[DEFAULT] is not supported: copy its keys into the sections"),
        ((shifter("i") + "setup = caf\u00e9\n").encode("latin-1"), "line 4: not UTF-8: save the file in that"),
    ],
)
def test_a_broken_file_is_reported_when_a_name_in_it_is_requested(house: House, text: str | bytes, said: str) -> None:
    file = house.write(house.cwd / "a.ini", text)
    house.write(house.cwd / "b.ini", shifter("good", "other"))
    house.write(house.cwd / "c.ini", shifter("second choice", "r"))
    configuration = house.search()
    assert configuration.runner("other").image == "good"
    assert configuration.runner("default")
    message = failure(lambda: configuration.runner("r"))
    assert message.startswith(f"{file}: {said}")
    assert configuration.faults == [message]


def test_a_key_without_an_equals_sign_is_reported_in_a_named_file(house: House) -> None:
    file = house.write(house.named / "a.ini", "[r]\nRunner taskfarmer.runners.BasicRunner\n")
    assert failure(lambda: house.search(file).runner("r")).startswith(f"{file}: line 2: neither")


def test_an_unreadable_file_is_mentioned_when_a_name_is_missing(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    file = house.write(house.cwd / "a.ini", shifter("i"))
    if os.geteuid() == 0:  # root may read all files, so simulate the error
        opened = open

        def refuse(path: object, *rest: object, **more: object) -> object:
            if path == str(file):
                raise PermissionError(13, "Permission denied")
            return opened(path, *rest, **more)  # type: ignore[call-overload]

        monkeypatch.setattr("builtins.open", refuse)
    file.chmod(0)
    configuration = house.search()
    message = failure(lambda: configuration.runner("r"))
    assert message.startswith(f"no runner named 'r'; {file}: cannot read this INI file: Permission denied")


def test_the_error_for_an_undefined_name_lists_the_defined_ones(house: House) -> None:
    house.write(house.cwd / "a.ini", shifter("i", "b"))
    message = failure(lambda: house.search().runner("r"))
    assert message.startswith("no runner named 'r': use one of default, b")
    assert "or define [r] with a key Runner in an INI file" in message
    message = failure(lambda: house.search().tasklist_class("b"))
    assert f"no task list handler named 'b'; {house.cwd / 'a.ini'}: [b] has no key TaskList: use one of default" in (
        message
    )


def test_a_section_whose_key_is_misspelt_is_mentioned(house: House) -> None:
    file = house.write(house.cwd / "a.ini", "[r]\nrunner = taskfarmer.runners.BasicRunner\n")
    assert f"no runner named 'r'; {file}: [r] has no key Runner: " in failure(lambda: house.search().runner("r"))


# Invalid definitions


@pytest.mark.parametrize(
    ("section", "said"),
    [
        ("Runner = BasicRunner", "Runner: 'BasicRunner' is not a class path: write package.module.Class"),
        ("Runner =", "Runner: '' is not a class path"),
        ("Runner = a b.C", "Runner: 'a b.C' is not a class path"),
        ("Runner = .a.C", "Runner: '.a.C' is not a class path"),
        ("Runner = a.B\nTaskList = c.D", "Runner: the section has both Runner and TaskList: split it into two"),
        ("Runner = no_such.Class", "Runner: module no_such cannot be imported: ModuleNotFoundError: No module named"),
        ("Runner = taskfarmer.runners.Fast", "Runner: module taskfarmer.runners has no class Fast: correct"),
        ("Runner = taskfarmer.runners.base", "Runner: module taskfarmer.runners has no class base: correct"),
        ("Runner = taskfarmer.tasks.TaskList", "Runner: taskfarmer.tasks.TaskList is not a runner, it lacks run: name"),
        ("Runner = taskfarmer.runners.BasicRunner\nx = 1", "x: BasicRunner has no such key: it has no keys"),
        ("Runner = taskfarmer.runners.ShifterRunner", "image: ShifterRunner requires this key, but it is missing: its"),
        ("Runner = taskfarmer.runners.ShifterRunner\nimage = i\nself = 1", "self: ShifterRunner has no such key"),
        (
            "Runner = taskfarmer.runners.ShifterRunner\nimage = i\ntempdir = maybe",
            "Runner: taskfarmer.runners.ShifterRunner cannot be created: ValueError: tempdir = maybe is not a",
        ),
    ],
)
def test_a_runner_that_cannot_be_used_is_refused_by_file_section_and_key(house: House, section: str, said: str) -> None:
    file = house.write(house.cwd / "a.ini", f"[r]\n{section}\n")
    assert failure(lambda: house.search().runner("r")).startswith(f"{file}: [r] {said}")


@pytest.mark.parametrize(
    ("section", "said"),
    [
        (
            "TaskList = taskfarmer.runners.BasicRunner",
            "TaskList: taskfarmer.runners.BasicRunner is not a task list handler",
        ),
        ("TaskList = taskfarmer.tasks.ListTaskList\npath = x", "path: ListTaskList has no such key: it has no keys"),
        ("TaskList = taskfarmer.tasks.ListTaskList\nx = y", "x: ListTaskList has no such key: it has no keys"),
        ("TaskList = taskfarmer.atlas.AthenaTaskList\noutput = x", "jobOptions: AthenaTaskList requires this key"),
        ("TaskList = taskfarmer.atlas.AthenaTaskList\njobOptions = x\noutput = y\nworkdir = z", "workdir: Athena"),
        ("TaskList = mine.Alone", "TaskList: the constructor of mine.Alone does not accept (path, workdir): make them"),
        ("TaskList = mine.Raises", "TaskList: module mine has no class Raises"),
    ],
)
def test_a_handler_that_cannot_be_used_is_refused_by_file_section_and_key(
    house: House, section: str, said: str
) -> None:
    house.write(
        house.beside / "mine.py",
        "class Alone:\n    def __init__(self, path): pass\n    def __len__(self): return 0\n"
        "    def __getitem__(self, taskid): raise IndexError\n",
    )
    file = house.write(house.cwd / "a.ini", f"[t]\n{section}\n")
    configuration = house.search()
    message = failure(lambda: configuration.tasklist_class("t"))
    assert message.startswith(f"{file}: [t] {said}")
    (definition,) = (d for d in configuration.definitions() if d.name == "t")
    assert configuration.problem(definition) == message


@pytest.mark.parametrize(
    ("code", "cause"),
    [
        ("import no_such_thing\n", "ModuleNotFoundError: No module named 'no_such_thing' (mine.py line 1)"),
        ("class Mine\n", "SyntaxError: "),
        ("x = 1\ny = x / 0\n", "ZeroDivisionError: division by zero (mine.py line 2)"),
        ("import sys\nsys.exit('no main guard')\n", "SystemExit: no main guard (mine.py line 2)"),
        ("raise ValueError('two\\nlines')\n", "ValueError: two lines (mine.py line 1)"),
    ],
)
def test_a_module_that_fails_at_import_is_refused_with_the_cause(house: House, code: str, cause: str) -> None:
    house.write(house.beside / "mine.py", code)
    file = house.write(house.cwd / "a.ini", "[r]\nRunner = mine.Mine\n")
    message = failure(lambda: house.search().runner("r"))
    assert message.startswith(f"{file}: [r] Runner: module mine cannot be imported: {cause}")
    assert message.endswith(": correct the path, install the module, or put it beside the task list")


def test_a_constructor_that_fails_is_refused_with_the_cause(house: House) -> None:
    house.write(
        house.beside / "mine.py",
        "class Mine:\n    def __init__(self, host):\n        raise OSError('no ' + host)\n    def run(self): pass\n",
    )
    file = house.write(house.cwd / "a.ini", "[r]\nRunner = mine.Mine\nhost = node7\n")
    message = failure(lambda: house.search().runner("r"))
    assert message.startswith(f"{file}: [r] Runner: mine.Mine cannot be created: OSError: no node7 (mine.py line 3): ")


def test_no_module_is_imported_before_its_name_is_requested(house: House) -> None:
    house.write(house.beside / "mine.py", "raise SystemExit('imported')\n")
    house.write(house.cwd / "a.ini", "[bad]\nRunner = mine.Mine\n" + shifter("i"))
    configuration = house.search()
    assert configuration.runner("r").image == "i"
    assert {d.name for d in configuration.definitions()} >= {"bad", "r"}
    assert "mine" not in sys.modules


# Classes of users


USERS = """
from taskfarmer.runners import BasicRunner
from taskfarmer.tasks import ListTaskList

class Nice(BasicRunner):
    def __init__(self, level="5", *, prefix):
        self.words = (level, prefix)

class Anything(BasicRunner):
    def __init__(self, **options):
        self.options = options

class Duck:
    def run(self, taskid, command, logfh):
        return 0

class Events(ListTaskList):
    def __init__(self, tasklist, wd, program, *more, seed=0):
        super().__init__(tasklist, wd)
"""


@pytest.mark.parametrize("where", ["beside", "cwd"])
def test_a_class_in_a_module_next_to_the_list_is_found(house: House, where: str) -> None:
    house.write(getattr(house, where) / "mine.py", USERS)
    house.write(
        house.cwd / "a.ini",
        "[nice]\nRunner = mine.Nice\nprefix = p\n[any]\nRunner = mine.Anything\nx-y = 1\nZ = 2\n"
        "[duck]\nRunner = mine.Duck\n[events]\nTaskList = mine.Events\nprogram = sim\n",
    )
    before = list(sys.path)
    configuration = house.search()
    assert configuration.runner("nice").words == ("5", "p")
    assert configuration.runner("any").options == {"x-y": "1", "Z": "2"}
    assert configuration.runner("duck").run(0, "x", None) == 0
    assert configuration.tasklist_class("events")[1] == {"program": "sim"}
    assert sys.path == [*before, str(house.beside), str(house.cwd)]


def test_a_module_next_to_the_list_does_not_replace_an_installed_one(house: House) -> None:
    house.write(house.beside / "fractions.py", "raise SystemExit('the wrong one')\n")
    house.write(house.beside / "mine.py", "import fractions\n" + USERS)
    house.write(house.cwd / "a.ini", "[duck]\nRunner = mine.Duck\n")
    sys.modules.pop("fractions", None)
    house.search().runner("duck")
    assert not str(sys.modules["fractions"].__file__).startswith(str(house.beside))


def test_an_installed_plug_in_is_found_by_its_entry_point(house: House) -> None:
    house.write(house.beside / "plugin.py", USERS)
    house.write(
        house.beside / "farmplugin-1.0.dist-info" / "entry_points.txt",
        "[taskfarmer.runners]\nduck = plugin:Duck\ngone = plugin:Gone\nr = plugin:Duck\ndefault = plugin:Duck\n"
        "[taskfarmer.tasklists]\nevents = plugin:Events\n",
    )
    house.write(house.beside / "farmplugin-1.0.dist-info" / "METADATA", "Name: farmplugin\nVersion: 1.0\n")
    house.write(house.cwd / "a.ini", shifter("i"))
    sys.path.append(str(house.beside))
    importlib.invalidate_caches()
    configuration = house.search()
    assert type(configuration.runner("duck")).__name__ == "Duck"
    assert type(configuration.runner("default")) is BasicRunner
    assert configuration.runner("r").image == "i"
    assert failure(lambda: configuration.tasklist_class("events")).startswith(
        "entry point farmplugin: [events] program: Events requires this key, but it is missing: its keys are program"
    )
    problems = {d.name: configuration.problem(d) for d in configuration.definitions() if "farmplugin" in d.file}
    assert problems["duck"] is None
    assert "module plugin has no class Gone" in str(problems["gone"])
    assert f"{house.cwd / 'a.ini'} defines the name first" in str(problems["r"])
    assert "default is built in" in str(problems["default"])
    assert Definition("runner", "duck", "entry point farmplugin", "plugin.Duck") in configuration.definitions()


def test_a_class_without_an_inspectable_signature_is_simply_called(house: House) -> None:
    house.write(
        house.beside / "mine.py",
        "class Mute:\n    __signature__ = 'nonsense'\n    def __init__(self, **o): self.o = o\n"
        "    def run(self): pass\n",
    )
    house.write(house.cwd / "a.ini", "[r]\nRunner = mine.Mute\nx = 1\n")
    assert house.search().runner("r").o == {"x": "1"}


def test_installed_packages_are_not_searched_if_a_file_defines_the_name(house: House) -> None:
    house.write(house.cwd / "a.ini", shifter("i"))
    code = (
        "import sys\nfrom taskfarmer.config import Configuration\n"
        f"c = Configuration.search(cwd={str(house.cwd)!r}, environ={{}}, home='/no', etc='/no')\n"
        "before = 'importlib.metadata' in sys.modules\nc.runner('r')\n"
        "assert ('importlib.metadata' in sys.modules) == before\n"
    )
    environ = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    subprocess.run([sys.executable, "-c", code], env=environ, check=True)


def test_runners_and_tasks_can_be_imported_without_the_configuration() -> None:
    code = (
        "import sys, taskfarmer.runners, taskfarmer.tasks\n"
        "heavy = {'pydantic', 'configparser', 'tempfile', 'shutil', 'asyncio', 'importlib.metadata'}\n"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)\n"
    )
    environ = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    subprocess.run([sys.executable, "-c", code], env=environ, check=True)
