"""Arguments of old scripts: which are rewritten, and which are refused."""

from __future__ import annotations

import click
import pytest

from taskfarmer.cli.arguments import Rewriter
from taskfarmer.cli.program import find_verb


def rewritten(line: str) -> list[str]:
    command = find_verb("run")
    return Rewriter(command.get_params(click.Context(command))).rewrite(line.split())


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("list -n 4", "list --proc=4"),
        ("list -n4", "list --proc=4"),
        ("list -n=4", "list --proc=4"),
        ("list --proc=4", "list --proc=4"),
        ("list --proc 4", "list --proc=4"),
        ("list -j 4", "list --proc=4"),
        ("list --jobs 4", "list --jobs=4"),
        ("list -n auto", "list --proc=auto"),
        ("list -n", "list --proc=auto"),
        ("list --proc", "list --proc=auto"),
        ("list -j -q", "list --proc=auto --quiet"),
        ("-n -w dir list", "--proc=auto --workdir=dir list"),
        ("-n -- list", "--proc=auto -- list"),
        ("list -n -4", "list --proc=-4"),
        ("-n list", "--proc=list"),
        ("list -qn", "list --quiet --proc=auto"),
        ("list -qn4", "list --quiet --proc=4"),
    ],
)
def test_the_number_of_processes_may_be_omitted_at_the_end_or_before_an_option(line: str, expected: str) -> None:
    assert rewritten(line) == expected.split()


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("list -v", "--verbose list"),
        ("-v list", "--verbose list"),
        ("-v True list", "--verbose list"),
        ("-v False list", "list"),
        ("-v 1 list", "--verbose list"),
        ("-vTrue list", "--verbose list"),
        ("-v0 list", "list"),
        ("--verbose=1 list", "--verbose list"),
        ("--verbose True list", "--verbose list"),
        ("--verbose=no list", "list"),
        ("-v list -v False", "list"),
        ("-v True -- True", "--verbose -- True"),
        ("-v ./True", "--verbose ./True"),
        ("-vn4 list", "--verbose --proc=4 list"),
    ],
)
def test_verbose_may_be_followed_by_a_word_for_true_or_false(line: str, expected: str) -> None:
    assert rewritten(line) == expected.split()


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("list --work dir", "list --workdir=dir"),
        ("list --workd=dir", "list --workdir=dir"),
        ("list --tim 5", "list --timeout=5"),
        ("list --tasklist h", "list --tasklist=h"),
        ("list --run r", "list --runner=r"),
        ("list --logDir d", "list --logDir=d"),
        ("list --log d", "list --logs-dir=d"),
        ("list --verb True", "--verbose list"),
        ("list --workdir --odd", "list --workdir=--odd"),
        ("list -w=dir", "list --workdir=dir"),
        ("list --unknown x", "list --unknown x"),
        ("list --epoch 5", "list --epoch 5"),
        ("-- -n --work", "-- -n --work"),
        ("- list", "- list"),
    ],
)
def test_a_long_option_may_be_abbreviated_if_it_is_unambiguous(line: str, expected: str) -> None:
    assert rewritten(line) == expected.split()


def test_an_ambiguous_abbreviation_is_refused_with_the_candidates() -> None:
    with pytest.raises(click.UsageError, match=r"--w is ambiguous \(--wait, --warn-signal, --warn-time, --workdir\)"):
        rewritten("list --w dir")


def test_a_word_that_is_neither_true_nor_false_is_refused() -> None:
    with pytest.raises(click.BadParameter, match="neither true nor false"):
        rewritten("list --verbose=perhaps")
