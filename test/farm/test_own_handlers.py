"""Custom task list handlers: subclasses, options, and the errors for wrong ones."""

from __future__ import annotations

import pytest

from support.farms import Farm

HANDLERS = """
from taskfarmer.task import ListTaskList


class Doubled(ListTaskList):
    def __getitem__(self, taskid):
        return 'echo task {} of {}: {}'.format(taskid, len(self), self.tasks[taskid])


class Greeting(ListTaskList):
    def __init__(self, path, workdir, greeting='hello', name='nobody'):
        super().__init__(path, workdir)
        self.greeting = greeting
        self.name = name

    def __getitem__(self, taskid):
        return "echo '{} {}: {}'".format(self.greeting, self.name, super().__getitem__(taskid))


class Raises(ListTaskList):
    def __getitem__(self, taskid):
        if taskid == 2:
            raise KeyError('no third one')
        return 'true'


class RaisesAtOnce(ListTaskList):
    def __init__(self, path, workdir):
        raise RuntimeError('not today')


class Numbers(ListTaskList):
    def __getitem__(self, taskid):
        return taskid


class Counts:
    def __init__(self, path, workdir, count):
        self.count = int(count)

    def __len__(self):
        return self.count

    def __getitem__(self, taskid):
        return 'echo number {}\\necho and a second line'.format(taskid)
"""
INI = """
[doubled]
TaskList = myhandlers.Doubled

[greeting]
TaskList = myhandlers.Greeting
greeting = 100% good
name = you all

[raises]
TaskList = myhandlers.Raises

[once]
TaskList = myhandlers.RaisesAtOnce

[numbers]
TaskList = myhandlers.Numbers

[counts]
TaskList = myhandlers.Counts
count = 5

[wrong]
TaskList = myhandlers.Greeting
colour = red

[missing]
TaskList = myhandlers.Nobody
"""


@pytest.fixture
def plugged(farm: Farm) -> Farm:
    """A farm whose list has a module of handlers next to it, and the INI file that defines them."""
    (farm.folder / "myhandlers.py").write_text(HANDLERS)
    (farm.folder / "handlers.ini").write_text(INI)
    farm.write("# inputs", "one", "two", "", "three")
    return farm


def test_a_subclass_that_only_overrides_getitem_determines_the_commands(plugged: Farm) -> None:
    assert plugged.run("-t", "doubled").wait() == 0
    assert [plugged.log(number) for number in range(3)] == [
        "task 0 of 3: one\n",
        "task 1 of 3: two\n",
        "task 2 of 3: three\n",
    ]
    assert plugged.view("finished")[0] == b"echo task 0 of 3: one"
    plugged.check()


def test_options_of_the_ini_file_reach_the_handler(plugged: Farm) -> None:
    assert plugged.run("-t", "greeting").wait() == 0
    assert plugged.log(1) == "100% good you all: two\n"


def test_a_list_that_grew_is_passed_to_its_handler(plugged: Farm) -> None:
    assert plugged.run("-t", "greeting").wait() == 0
    plugged.append("four\n")
    farmer = plugged.run("-t", "greeting")
    assert farmer.wait() == 0, farmer.said
    assert plugged.log(3) == "100% good you all: four\n"
    assert plugged.places() == ([], [0, 1, 2, 3], [])
    plugged.list.write_text("one\nTWO\nthree\nfour\n")
    farmer = plugged.run("-t", "greeting")
    assert farmer.wait() == 2
    assert "line 2" in farmer.said
    plugged.check()


def test_a_handler_that_is_not_based_on_lines_makes_tasks_with_several_lines(plugged: Farm) -> None:
    assert plugged.run("-t", "counts").wait() == 0
    assert plugged.log(4) == "number 4\nand a second line\n"
    assert plugged.places() == ([], [0, 1, 2, 3, 4], [])
    plugged.check()


def test_a_users_file_with_the_name_of_a_farm_file_is_kept_if_no_farm_is_created(plugged: Farm) -> None:
    plugged.workdir.mkdir()
    (plugged.workdir / "lock").write_text("mine\n")
    plugged.write("true")
    assert plugged.run("-t", "once").wait() != 0
    assert (plugged.workdir / "lock").read_text() == "mine\n"


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("raises", ["KeyError", "no third one", "myhandlers.Raises"]),
        ("once", ["RuntimeError", "not today", "myhandlers.RaisesAtOnce"]),
        ("numbers", ["must be a str", "int"]),
        ("wrong", ["colour", "handlers.ini"]),
        ("missing", ["Nobody", "handlers.ini"]),
        ("nobody", ["nobody", "default"]),
    ],
)
def test_a_handler_that_fails_is_named_and_leaves_no_farm(plugged: Farm, name: str, words: list[str]) -> None:
    farmer = plugged.run("-t", name)
    assert farmer.wait() == 2, farmer.said
    for word in [*words, name]:
        assert word in farmer.said
    assert "Traceback" not in farmer.said
    assert not (plugged.workdir / "farm.json").exists()
    # the same directory accepts the list once the handler is fixed
    assert plugged.run("-t", "doubled").wait() == 0


def test_a_farm_of_another_handler_is_refused(plugged: Farm) -> None:
    assert plugged.run("-t", "doubled").wait() == 0
    farmer = plugged.run()
    assert farmer.wait() == 2
    assert "-t doubled" in farmer.said
