"""Variables whose value differs for each task: Python and child programs see them, and old values take no memory."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from unittest import mock

import pytest

from taskfarmer.worker.variables import Variable

NAME = "TASKFARMER_TEST_VARIABLE"


@pytest.fixture
def variable() -> Iterator[Variable]:
    before = dict(os.environ)
    yield Variable(NAME.encode())
    os.environ.clear()
    os.environ.update(before)


def seen() -> tuple[str | None, str]:
    """The value for this Python, and for a program that is started without an explicit environment."""
    return os.environ.get(NAME), subprocess.check_output(["printenv", NAME], text=True).rstrip("\n")


def test_python_and_programs_see_the_last_value(variable: Variable) -> None:
    for value in ("1", "22222222", "333", "4" * 500, "", "é/ü"):
        variable.set(os.fsencode(value))
        assert seen() == (value, value)


def test_changes_of_the_variable_by_other_code_do_not_matter(variable: Variable) -> None:
    variable.set(b"1")
    os.environ[NAME] = "theirs"
    assert seen() == ("theirs", "theirs")
    variable.set(b"2")
    assert seen() == ("2", "2")
    del os.environ[NAME]
    assert os.environ.get(NAME) is None
    variable.set(b"3")
    assert seen() == ("3", "3")
    with mock.patch.dict(os.environ, {NAME: "patched"}):
        variable.set(b"4")
        assert seen() == ("4", "4")
    variable.set(b"5")
    assert seen() == ("5", "5")


def test_a_python_that_stores_its_variables_differently_sees_them_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(NAME, "before")
    monkeypatch.setattr("taskfarmer.worker.variables._putenv", None)
    variable = Variable(NAME.encode())
    for value in ("1", "22"):
        variable.set(value.encode())
        assert seen() == (value, value)


def test_old_values_take_no_memory() -> None:
    """In a separate process, because freed memory would be reused. `setenv` takes 20 megabytes for these values."""
    program = f"""
import os, resource
from taskfarmer.worker.variables import Variable
one = Variable({NAME.encode()!r})
def resident():
    return int(open("/proc/self/statm").read().split()[1]) * resource.getpagesize()
one.set(b"0")
before = resident()
for number in range(300_000):
    one.set(b"%d" % number)
print(resident() - before)
"""
    grown = int(subprocess.check_output([sys.executable, "-c", program], text=True))
    assert grown < 2_000_000
