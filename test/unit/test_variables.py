"""Variables that have another value for each task are seen by everybody, and take no memory for each value."""

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
    """What this Python sees, and what a program does that is started without an environment."""
    return os.environ.get(NAME), subprocess.check_output(["printenv", NAME], text=True).rstrip("\n")


def test_python_and_programs_see_the_last_value(variable: Variable) -> None:
    for value in ("1", "22222222", "333", "4" * 500, "", "é/ü"):
        variable.set(os.fsencode(value))
        assert seen() == (value, value)


def test_what_somebody_else_makes_of_it_meanwhile_is_no_matter(variable: Variable) -> None:
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


def test_a_python_that_keeps_its_variables_elsewhere_has_them_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(NAME, "before")
    monkeypatch.setattr("taskfarmer.worker.variables._putenv", None)
    variable = Variable(NAME.encode())
    for value in ("1", "22"):
        variable.set(value.encode())
        assert seen() == (value, value)


def test_values_take_no_memory() -> None:
    """In a process of its own: what this one has freed would be used again. `setenv` takes 20 megabytes for these."""
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
