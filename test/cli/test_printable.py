"""Untrusted text on a terminal."""

from __future__ import annotations

import os

import pytest

from taskfarmer.ui import printable, shell_word


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("plain ünï 漢字", "plain ünï 漢字"),
        (b"caf\xc3\xa9", "café"),
        (b"caf\xe9", r"caf\xe9"),
        (os.fsdecode(b"caf\xe9"), r"caf\xe9"),
        ("a\tb\nc\rd", r"a\tb\nc\rd"),
        ("\x1b[31mred", r"\x1b[31mred"),
        ("bell\x07 and \x9b", r"bell\x07 and \x9b"),
        ("left\u202eright", r"left\u202eright"),
        ("\U000e0001", r"\U000e0001"),
    ],
)
def test_control_sequences_are_escaped(text: str | bytes, expected: str) -> None:
    assert printable(text) == expected


def test_long_text_is_cut_with_an_ellipsis() -> None:
    assert printable("x" * 100, 10) == "xxxxxxx..."


@pytest.mark.parametrize("name", ["plain-1.txt", "with blank", "it's", "tab\there", "caf\udce9", "back\\slash\n"])
def test_a_shell_parses_a_quoted_name_to_the_name(name: str) -> None:
    import subprocess

    done = subprocess.run(["bash", "-c", f"printf %s {shell_word(name)}"], capture_output=True, check=True)
    assert done.stdout == os.fsencode(name)
    assert shell_word(name).isprintable()
